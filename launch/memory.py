"""How many bytes a model takes: as weights, as a cache of keys and values, and while it learns.

Estimates from a handful of architecture numbers, worst-case lengths and nothing measured at run time; no torch.
Simplification: Llama-like dense models (Qwen2, Qwen3, Llama, Mistral), the ones this project trains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.schema import Learner, Tiny

GB = 1_000_000_000

# Resident size of a process before it holds a model, measured on Linux with CPU builds.
LIBRARIES = {"engine": int(0.85 * GB), "learner": int(0.55 * GB), "judge": int(0.12 * GB), "driver": int(0.9 * GB)}


@dataclass(frozen=True)
class Shape:
    """Architecture numbers of a dense decoder. `max_positions` is the longest sequence in tokens."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    inner: int
    vocabulary: int
    tied: bool
    max_positions: int

    @property
    def parameters(self) -> int:
        """Without biases and query/key norms, which are under a thousandth."""
        attention = 2 * self.width * self.head_width * (self.heads + self.kv_heads)
        layer = attention + 3 * self.width * self.inner + 2 * self.width
        return self.layers * layer + self.width + self.width * self.vocabulary * (1 if self.tied else 2)


# Public models the shipped recipes name, so that they can be planned before anything is downloaded.
KNOWN = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": Shape(28, 1536, 12, 2, 128, 8960, 151936, False, 131072),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": Shape(28, 3584, 28, 4, 128, 18944, 152064, False, 131072),
}


def tiny_shape(tiny: Tiny) -> Shape:
    """The tiny reasoner as rl/cold_start makes it; a test compares the two, since that module imports torch."""
    heads = max(1, tiny.width // 32)
    return Shape(tiny.layers, tiny.width, heads, heads, 32, 3 * tiny.width, 41, True, 2048)


def config_shape(path: Path) -> Shape | None:
    """Shape from a checkpoint's config.json; None if it is not a dense decoder this module knows."""
    try:
        config: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if any("expert" in key for key in config):
            return None
        heads = config["num_attention_heads"]
        return Shape(
            layers=config["num_hidden_layers"],
            width=config["hidden_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_width=config.get("head_dim") or config["hidden_size"] // heads,
            inner=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            tied=config.get("tie_word_embeddings", False),
            max_positions=config["max_position_embeddings"],
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return None


def kv_bytes(shape: Shape, tokens: int, width: int) -> int:
    """Keys and values of `tokens` tokens at `width` bytes a number."""
    return 2 * shape.layers * shape.kv_heads * shape.head_width * width * tokens


def learner_bytes(shape: Shape, learner: Learner, bf16: bool, reference: bool, longest: int) -> dict[str, int]:
    """What one learner rank holds at its peak, bytes by part.

    Args:
        reference: a frozen copy stands beside the policy (KL penalty).
        longest: prompt plus response, tokens; a single row longer than the micro-batch still passes whole.
    """
    width = 2 if bf16 else 4
    ranks, stage = learner.ranks, learner.zero_stage
    N = shape.parameters
    optimiser = 12 + 4 if bf16 else 8  # Adam's moments; bf16 adds fp32 master weights and fp32 gradients
    tokens = max(learner.micro_batch_tokens, longest)
    per_token = 8 * shape.width + shape.head_width * (5 * shape.heads + 8 * shape.kv_heads) + 4 * shape.inner
    kept = shape.layers * shape.width + per_token if learner.gradient_checkpointing else shape.layers * per_token
    parts = {
        "weights": N * width // (ranks if stage == 3 else 1),
        "gradients": N * width // (ranks if stage >= 2 else 1),
        "optimiser": N * optimiser // (ranks if stage >= 1 else 1),
        "activations": tokens * kept * width,
        "logits": min(learner.logit_chunk_tokens, tokens) * shape.vocabulary * 4 * 3,  # logits, log-softmax, its gradient
    }
    return parts | ({"reference": N * width} if reference else {})


def size(count: float) -> str:
    """Bytes for people: 3.6 GB, 250 MB, 2 KB."""
    for unit, bound in (("GB", GB), ("MB", GB / 1000), ("KB", 1000)):
        if count >= bound:
            return f"{count / bound:.1f} {unit}" if count < 10 * bound else f"{count / bound:,.0f} {unit}"
    return f"{count:.0f} B"
