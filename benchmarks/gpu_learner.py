"""The learner's pass at real shapes with random weights: tokens per second, MFU, peak memory, attention kernel, logprobs against float32.

    python benchmarks/gpu_learner.py [--models qwen3-0.6b r1-distill-1.5b] [--rows 4096 16384 65536] [--steps 3] [--peak 989] [--json gpu.json]
    python benchmarks/gpu_learner.py --toy        # seconds, on any machine: that it works

Needs torch, transformers and pydantic; no checkpoint, Ray, DeepSpeed or vLLM. A step is what the learner does on one rank: two
micro-batches of one row each through policy, head and objective (rl/policy, rl/logprobs, rl/objective) with gradient checkpointing,
gradients added up in float32, clipped, and AdamW on float32 master weights; with DeepSpeed installed, its ZeRO-2 in the place of these
is measured, too. Without a GPU and without --toy it says so and measures nothing. A line that runs out of memory, or fails otherwise,
says so in the table and in the JSON, which is written after every line; the rest is measured. It ends with 1 if one failed otherwise.

MFU = FLOP of a step / seconds / the card's dense bfloat16 peak, where FLOP a token = 6 x (weights in matrix products, the head's among
them) + 6 x layers x heads x head width x T, the causal half of attention in rows of T tokens; recomputed activations do not count.
It is the reference's own count: from its tokens per second (prime-rl, Qwen3-0.6B, one H100) it makes the reference's MFU.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import re
import sys
import tempfile
import time
import traceback
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Iterator
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
from recipes.objectives import Objective
from recipes.schema import Recipe
from rl import objective
from rl.deepspeed_config import deepspeed_config
from rl.policy import Policy, Row, padded

SHAPES: dict[str, Shape] = {
    "qwen3-0.6b": Shape(28, 1024, 16, 8, 128, 3072, 151936, True, 131072),
    "r1-distill-1.5b": Shape(28, 1536, 12, 2, 128, 8960, 151936, False, 131072),
    "toy": Shape(2, 64, 4, 2, 32, 128, 512, True, 4096),
}
ARCHITECTURES = {"qwen3-0.6b": "qwen3", "r1-distill-1.5b": "qwen2", "toy": "qwen3"}
# Dense bfloat16 TFLOP/s (the sheets' number with sparsity, halved), by the whole name that CUDA gives a card. One that is not here (a
# slice of a card, a laptop's, one whose sheets disagree) has no MFU without --peak, rather than another card's.
PEAKS = {
    "NVIDIA B200": 2250,
    "NVIDIA H200": 989,
    "NVIDIA H100 80GB HBM3": 989,
    "NVIDIA H100 PCIe": 756,
    "NVIDIA A100-SXM4-40GB": 312,
    "NVIDIA A100-SXM4-80GB": 312,
    "NVIDIA A100-PCIE-40GB": 312,
    "NVIDIA A100 80GB PCIe": 312,
    "NVIDIA L40S": 362,
    "NVIDIA L40": 181,
    "NVIDIA L4": 121,
    "NVIDIA A10": 125,
}
REFERENCE = "reference: prime-rl, Qwen3-0.6B on one H100: 11,896 tokens/s and 11.1 % MFU in rows of 16k (13.4 GB), 10,150 and 26.8 % in rows of 64k (21.0 GB)"
PROMPT = 256
# The table: a column's name, the key of a line (as --json writes it) that it shows, and how.
COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "model": ("model", str),
    "optimiser": ("optimiser", str),
    "row": ("row", "{:,}".format),
    "tokens/s": ("tokens_per_second", "{:,.0f}".format),
    "pass s": ("pass_seconds", "{:.3f}".format),
    "step s": ("step_seconds", "{:.3f}".format),
    "MFU": ("mfu", "{:.1%}".format),
    "peak": ("peak_bytes", size),
    "plan": ("plan_bytes", lambda parts: size(sum(parts.values()))),
    "attention": ("attention", str),
    "mean gap to fp32": ("gap_mean", "{:.2g}".format),
    "p99 gap": ("gap_p99", "{:.2g}".format),
    "failure": ("failure", str),
}
# What torch, CUDA, cuBLAS, cuDNN, NCCL and the system say where memory ends; only some of it is a torch.OutOfMemoryError.
MEMORY = re.compile(
    r"out.of.memory|not enough memory|alloc.?failed|memory.?allocation|(can.?t|cannot|unable to|failed to|could not) (\w+ )?c?alloc", re.I
)


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
    advantage, weight = np.asarray(rng.choice([-1.0, 1.0])), np.asarray(1 / response)
    return Row(str(seed), ids[:prompt], ids[prompt:], np.full(response, -12.0, np.float32), advantage, weight)


def batch_loss(policy: Callable[..., tuple[Tensor, Tensor]], row: Row, device: str) -> Tensor:
    """The default objective of one row at a ratio of 1."""
    tensors = padded([row], device)
    logp, entropy = policy(*tensors.inputs)
    tensors.old_logp = logp.detach()
    return objective.loss(tensors.tokens(logp, entropy), Objective(), 0.0).total


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
            found.append(policy.to(dtype)(*tensors.inputs)[0])
    return (found[0] - found[1]).abs().cpu().numpy()


def flop_per_token(shape: Shape, tokens: int) -> float:
    """FLOP of forward and backward pass for a token of a row of `tokens`."""
    matrices = shape.parameters - (0 if shape.tied else shape.vocabulary * shape.width)  # an embedding is looked up, a head multiplied
    return 6.0 * matrices + 6.0 * shape.layers * shape.heads * shape.head_width * tokens


def card_peak(card: str, given: float | None) -> float | None:
    """Dense bfloat16 FLOP/s: as given in TFLOP/s, else of the card of that name, None where it is not known."""
    peak = given or PEAKS.get(card)
    return peak * 1e12 if peak else None


def free_memory(device: str) -> None:
    """What the measurement before left: DeepSpeed's engine is full of cycles, and torch keeps blocks that were freed."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def measure(name: str, tokens: int, sharded: bool, recipe: Recipe, steps: int, device: str, peak: float | None) -> dict[str, Any]:
    """What is measured for a line of the table."""
    chunk = recipe.learner.logit_chunk_tokens
    shape, rows = SHAPES[name], [make_row(SHAPES[name], tokens, seed) for seed in range(2)]
    gap = gaps(name, make_row(shape, min(tokens, 4096), 2), device, chunk)
    free_memory(device)
    policy = make_policy(name, device, torch.bfloat16, chunk, True)
    kernel = attention_kernel(policy, rows[0], device)
    engine: Any = None
    try:
        engine = deepspeed_engine(policy, recipe) if sharded else MasterAdamW(policy, recipe.learner.lr)
        seconds = timed_steps(engine, rows, steps, device)
    finally:  # what DeepSpeed's hooks hold, those of an engine half made among them, no collector finds
        if sharded and engine is not None:
            engine.destroy()
        for weight in policy.parameters():
            (weight._post_accumulate_grad_hooks or {}).clear()
    speed = 2 * tokens / seconds[1]
    return {
        "tokens_per_second": speed,
        "pass_seconds": seconds[0],
        "step_seconds": seconds[1],
        "mfu": speed * flop_per_token(shape, tokens) / peak if peak else None,
        "peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        "attention": kernel,
        "gap_mean": float(gap.mean()),
        "gap_p99": float(np.quantile(gap, 0.99)),
    }


def failure(error: BaseException) -> str:
    """An error as words of one line, "out of memory: ..." if that is what it, or one that led to it, says."""
    said = " ".join((str(error).splitlines() or [""])[0].split())
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, torch.OutOfMemoryError | MemoryError) or MEMORY.search(str(cause)):
            return f"out of memory: {said}"
        cause = cause.__cause__ or cause.__context__
    return f"{type(error).__name__}: {said}"


def measured(cases: Iterable[tuple[str, int, bool]], steps: int, device: str, chunk: int, peak: float | None) -> Iterator[dict[str, Any]]:
    """The lines of the table, one for each model, tokens of a row, and whether DeepSpeed is to step. One that fails says why in `failure`."""
    for name, tokens, sharded in cases:
        keys = {"micro_batch_tokens": tokens, "gradient_checkpointing": True, "logit_chunk_tokens": chunk, "lr": 1e-6}
        recipe = Recipe.model_validate({"model": {"dtype": "bf16"}, "learner": keys})
        plan = learner_bytes(SHAPES[name], recipe.learner, bf16=True, reference=False, longest=tokens)
        line: dict[str, Any] = {"model": name, "optimiser": "DeepSpeed ZeRO-2" if sharded else "torch", "row": tokens, "plan_bytes": plan}
        free_memory(device)
        try:
            line |= measure(name, tokens, sharded, recipe, steps, device, peak)
        except Exception as error:  # whatever it is, the other lines are worth having
            line["failure"] = failure(error)
            if not line["failure"].startswith("out of memory"):
                traceback.print_exception(error)
        yield line


def cells(line: dict[str, Any]) -> list[str]:
    """A line as cells of the table, "-" for what it lacks."""
    return ["-" if line.get(key) is None else shown(line[key]) for key, shown in COLUMNS.values()]


def write(file: Path, found: dict[str, Any]) -> None:
    """In one go, so that a run which is killed leaves all the lines before."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(file)


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
        print("torch sees no GPU here: nothing measured. --toy shows that the script works")
        return
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{card}, torch {torch.__version__}; {REFERENCE}")
    print(" | ".join(COLUMNS))
    lines: list[dict[str, Any]] = []
    found = {"card": card, "torch": torch.__version__, "lines": lines}
    if args.json:
        try:
            write(args.json, found)
        except OSError as error:
            options.error(f"--json {args.json} cannot be written ({error.strerror}): name a file in a folder that can")
    with deepspeed_ready(device) as ready:
        cases = product(args.models, args.rows, [False, True] if ready else [False])
        for line in measured(cases, args.steps, device, args.chunk, card_peak(card, args.peak)):
            lines.append(line)
            print(" | ".join(cells(line)), flush=True)
            if args.json:
                write(args.json, found)
    if any(not line.get("failure", "out of memory").startswith("out of memory") for line in lines):
        sys.exit(1)


if __name__ == "__main__":
    main()
