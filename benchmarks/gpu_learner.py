"""The learner's pass at real shapes with random weights: tokens per second, MFU, peak memory, attention kernel, logprobs against float32.

    python benchmarks/gpu_learner.py [--models qwen3-0.6b r1-distill-1.5b] [--rows 4096 16384 65536] [--steps 3] [--peak 989] [--json gpu.json]
    python benchmarks/gpu_learner.py --toy        # seconds, on any machine: that it works

Needs torch, transformers and pydantic; no checkpoint, Ray, DeepSpeed or vLLM. A step is what the learner does on one rank: two
micro-batches of one row each through policy, head and objective (rl/policy, rl/logprobs, rl/objective) with gradient checkpointing,
gradients added up in float32, clipped, and AdamW on float32 master weights; with DeepSpeed installed, its ZeRO-2 in the place of these
is measured, too. Without a GPU and without --toy it says so and measures nothing.

MFU = FLOP of a step / seconds / the card's dense bfloat16 peak, where FLOP a token = 6 x (weights in matrix products, the head's among
them) + 6 x layers x heads x head width x T, the causal half of attention in rows of T tokens; recomputed activations do not count.
It is the reference's own count: from its tokens per second (prime-rl, Qwen3-0.6B, one H100) it makes the reference's MFU.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import sys
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project need not be installed

from launch.memory import Shape, learner_bytes, size
from recipes.schema import Objective, Recipe
from rl import objective
from rl.deepspeed_config import deepspeed_config
from rl.policy import Policy, Row, padded

SHAPES: dict[str, Shape] = {
    "qwen3-0.6b": Shape(28, 1024, 16, 8, 128, 3072, 151936, True, 131072),
    "r1-distill-1.5b": Shape(28, 1536, 12, 2, 128, 8960, 151936, False, 131072),
    "toy": Shape(2, 64, 4, 2, 32, 128, 512, True, 4096),
}
ARCHITECTURES = {"qwen3-0.6b": "qwen3", "r1-distill-1.5b": "qwen2", "toy": "qwen3"}
PEAKS = {"B200": 2250, "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "A10": 125, "4090": 165}  # TFLOP/s
REFERENCE = "reference: prime-rl, Qwen3-0.6B on one H100: 11,896 tokens/s and 11.1 % MFU in rows of 16k (13.4 GB), 10,150 and 26.8 % in rows of 64k (21.0 GB)"
PROMPT = 256
HEADER = [
    "model",
    "optimiser",
    "row",
    "tokens/s",
    "pass s",
    "step s",
    "MFU",
    "MFU full",
    "peak",
    "plan",
    "attention",
    "|bf16 - fp32| mean, p99",
]


def make_policy(name: str, device: str, dtype: torch.dtype, chunk: int, gradient_checkpointing: bool) -> Policy:
    """A policy of that shape with random weights (seed 0) whose logits spread by a few nats, as a trained model's do."""
    shape = SHAPES[name]
    config = AutoConfig.for_model(
        ARCHITECTURES[name],
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_width,
        max_position_embeddings=shape.max_positions,
        tie_word_embeddings=shape.tied,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    with torch.no_grad():
        model.base_model.norm.weight.fill_(4.0)
    model = model.to(dtype)
    if gradient_checkpointing:
        model.train()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return Policy(model, 1.0, chunk)


def make_row(shape: Shape, tokens: int, seed: int) -> Row:
    """One rollout of so many tokens, prompt included, drawn evenly from the vocabulary."""
    rng = np.random.default_rng(seed)
    prompt = min(PROMPT, tokens // 2)
    ids = rng.integers(0, shape.vocabulary, tokens).astype(np.int32)
    response = tokens - prompt
    return Row(str(seed), ids[:prompt], ids[prompt:], np.full(response, -12.0, np.float32), float(rng.choice([-1, 1])), 1 / response)


def batch_loss(policy: Callable[..., tuple[Tensor, Tensor]], row: Row, device: str) -> Tensor:
    """The default objective of one row at a ratio of 1."""
    tensors = padded([row], device)
    logp, entropy = policy(tensors.pop("ids"), tensors.pop("predicts"), tensors.pop("targets"))
    return objective.loss(tensors | {"logp": logp, "entropy": entropy, "old_logp": logp.detach()}, Objective(), 0.0)[0]


class MasterAdamW:
    """bfloat16 weights with float32 gradients, masters and moments: what ZeRO-2 keeps on one rank, in plain torch."""

    def __init__(self, policy: Policy, lr: float):
        self._policy, self._weights = policy, list(policy.parameters())
        self._masters = [nn.Parameter(weight.detach().float()) for weight in self._weights]
        self._adamw = torch.optim.AdamW(self._masters, lr=lr, foreach=False)

    def __call__(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        return self._policy(*inputs)

    def backward(self, loss: Tensor) -> None:
        loss.backward()
        for weight, master in zip(self._weights, self._masters, strict=True):
            if weight.grad is not None:
                master.grad = weight.grad.float() if master.grad is None else master.grad.add_(weight.grad)
                weight.grad = None

    def step(self) -> None:
        nn.utils.clip_grad_norm_(self._masters, 1.0, foreach=False)
        self._adamw.step()
        self._adamw.zero_grad()
        with torch.no_grad():
            for weight, master in zip(self._weights, self._masters, strict=True):
                weight.copy_(master)


@contextmanager
def deepspeed_ready(device: str) -> Iterator[bool]:
    """Whether DeepSpeed is there, as the only rank of a group that lasts as long as the context."""
    if importlib.util.find_spec("deepspeed") is None:
        yield False
        return
    import deepspeed

    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # compiles at first use
    with tempfile.TemporaryDirectory() as folder:
        meeting, backend = f"file://{folder}/ranks", "nccl" if device == "cuda" else "gloo"
        deepspeed.init_distributed(backend, init_method=meeting, rank=0, world_size=1, auto_mpi_discovery=False, verbose=False)
        yield True
        torch.distributed.destroy_process_group()


def deepspeed_engine(policy: Policy, recipe: Recipe) -> Any:
    """DeepSpeed's engine as the learner makes it."""
    import deepspeed

    return deepspeed.initialize(model=policy, model_parameters=policy.parameters(), config=deepspeed_config(recipe))[0]


def now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed_steps(engine: Any, rows: list[Row], steps: int, device: str) -> tuple[float, float]:
    """Median seconds of forward and backward passes, and of whole steps, after one step that warms up."""
    passes, wholes = [], []
    for _ in range(steps + 1):
        start = now(device)
        for row in rows:
            engine.backward(batch_loss(engine, row, device))
        middle = now(device)
        engine.step()
        passes.append(middle - start)
        wholes.append(now(device) - start)
    return median(passes[1:]), median(wholes[1:])


class Operators(TorchDispatchMode):
    """Remembers the names of operators."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def attention_kernel(policy: Policy, row: Row, device: str) -> str:
    """Which of torch's attention implementations a pass takes: flash_attention, efficient_attention, cudnn_attention, ...; none: plain products."""
    prefix = "_scaled_dot_product_"
    with Operators() as operators:
        batch_loss(policy, row, device)
    return ", ".join(sorted({name.removeprefix(prefix) for name in operators.names if name.startswith(prefix)})) or "none"


def gaps(name: str, row: Row, device: str, chunk: int) -> np.ndarray:
    """|logprob in bfloat16 - in float32| of a row's tokens, nats, with the same bfloat16 weights."""
    torch.backends.cuda.matmul.allow_tf32 = False
    tensors = padded([row], device)
    policy = make_policy(name, device, torch.bfloat16, chunk, False)
    found = []
    with torch.no_grad():
        for dtype in (torch.bfloat16, torch.float32):
            found.append(policy.to(dtype)(tensors["ids"], tensors["predicts"], tensors["targets"])[0])
    return (found[0] - found[1]).abs().cpu().numpy()


def flop_per_token(shape: Shape, tokens: int) -> float:
    """FLOP of forward and backward pass for a token of a row of `tokens`."""
    matrices = shape.parameters - (0 if shape.tied else shape.vocabulary * shape.width)  # an embedding is looked up, a head multiplied
    return 6.0 * matrices + 6.0 * shape.layers * shape.heads * shape.head_width * tokens


def card_peak(given: float | None) -> float | None:
    """Dense bfloat16 FLOP/s of the card, or None where it is not known."""
    if given:
        return given * 1e12
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((peak * 1e12 for key, peak in PEAKS.items() if key in name), None)


def measure(name: str, tokens: int, steps: int, device: str, chunk: int, peak: float | None, sharded: bool) -> dict[str, Any]:
    """One line of the table."""
    shape, rows = SHAPES[name], [make_row(SHAPES[name], tokens, seed) for seed in range(2)]
    gap = gaps(name, make_row(shape, min(tokens, 4096), 2), device, chunk)
    keys = {"micro_batch_tokens": tokens, "gradient_checkpointing": True, "logit_chunk_tokens": chunk, "lr": 1e-6}
    recipe = Recipe.model_validate({"model": {"dtype": "bf16"}, "learner": keys})
    gc.collect()  # DeepSpeed's engine of the line before is full of cycles
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    policy = make_policy(name, device, torch.bfloat16, chunk, True)
    kernel = attention_kernel(policy, rows[0], device)
    engine = deepspeed_engine(policy, recipe) if sharded else MasterAdamW(policy, recipe.learner.lr)
    seconds = timed_steps(engine, rows, steps, device)
    speed = 2 * tokens / seconds[1]
    return {
        "model": name,
        "optimiser": "DeepSpeed ZeRO-2" if sharded else "torch",
        "row": tokens,
        "tokens_per_second": speed,
        "pass_seconds": seconds[0],
        "step_seconds": seconds[1],
        "mfu": speed * flop_per_token(shape, tokens) / peak if peak else None,
        "peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        "plan_bytes": learner_bytes(shape, recipe.learner, bf16=True, reference=False, longest=tokens),
        "attention": kernel,
        "gap_mean": float(gap.mean()),
        "gap_p99": float(np.quantile(gap, 0.99)),
    }


def words(row: dict[str, Any]) -> list[str]:
    """A measurement as cells of the table."""
    mfu = f"{row['mfu']:.1%}" if row["mfu"] else "-"
    peak = size(row["peak_bytes"]) if row["peak_bytes"] else "-"
    seconds = [f"{row['pass_seconds']:.3f}", f"{row['step_seconds']:.3f}"]
    plan, gap = size(sum(row["plan_bytes"].values())), f"{row['gap_mean']:.2g}, {row['gap_p99']:.2g}"
    return [
        row["model"],
        row["optimiser"],
        f"{row['row']:,}",
        f"{row['tokens_per_second']:,.0f}",
        *seconds,
        mfu,
        peak,
        plan,
        row["attention"],
        gap,
    ]


def main() -> None:
    options = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    options.add_argument("--models", nargs="+", choices=list(SHAPES), default=["qwen3-0.6b", "r1-distill-1.5b"])
    options.add_argument("--rows", nargs="+", type=int, default=[4096, 16384, 65536], help="tokens of a row, prompt included")
    options.add_argument("--steps", type=int, default=3, help="measured steps after one that warms up (default 3)")
    options.add_argument("--chunk", type=int, default=4096, help="learner.logit_chunk_tokens (default 4096)")
    options.add_argument("--peak", type=float, help="the card's dense bfloat16 TFLOP/s, if it is not in the script's table")
    options.add_argument("--toy", action="store_true", help="a toy model and short rows, on the CPU where there is no GPU")
    options.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = options.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.toy:
        args.models, args.rows, args.steps, args.chunk = ["toy"], [64, 160], 1, 48
    elif device == "cpu":
        print("no GPU here: nothing measured. --toy shows that the script works")
        return
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{card}, torch {torch.__version__}; {REFERENCE}")
    print(" | ".join(HEADER))
    lines = []
    with deepspeed_ready(device) as ready:
        for name, tokens, sharded in product(args.models, args.rows, [False, True] if ready else [False]):
            try:
                lines.append(measure(name, tokens, args.steps, device, args.chunk, card_peak(args.peak), sharded))
                print(" | ".join(words(lines[-1])), flush=True)
            except torch.OutOfMemoryError as error:
                print(f"{name} | {tokens:,} | out of memory: {str(error).splitlines()[0]}", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"card": card, "torch": torch.__version__, "lines": lines}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
