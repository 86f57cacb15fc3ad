"""What must hold on a device: called with a GPU and real shapes by test_gpu.py, with the CPU and a toy by tests/unit/test_gpu_learner.py."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu_learner as bench
from rl.gate import check_gaps
from rl.logprobs import ScoringHead
from rl.policy import Row, load_policy, padded
from rollout.types import Completion, Problem, Request
from rollout.vllm_engine import VllmEngine, engine_environment


def head_is_exact(device: str, vocabulary: int, width: int, tokens: int) -> None:
    """In bfloat16 logprobs and entropies are those of float64, and gradients are off by no more than their own rounding."""
    torch.manual_seed(0)
    weight_VH = (torch.randn(vocabulary, width, device=device) * 4 / width**0.5).bfloat16()
    hidden_NH, targets_N = torch.randn(tokens, width, device=device).bfloat16(), torch.randint(vocabulary, (tokens,), device=device)
    slope_N = torch.randn(tokens, device=device)
    hidden_NH.requires_grad_()
    head = ScoringHead(torch.nn.Parameter(weight_VH))
    logp_N, entropy_N = head(hidden_NH, targets_N, 0.7, tokens // 3, True)
    ours = torch.autograd.grad((slope_N * logp_N + 0.1 * entropy_N).sum(), [hidden_NH, head.weight])
    wide = [tensor.detach().double().requires_grad_() for tensor in (hidden_NH, weight_VH)]
    exact = torch.distributions.Categorical(logits=wide[0] @ wide[1].t() / 0.7)
    exact_N = exact.log_prob(targets_N)
    assert (logp_N - exact_N).abs().max() < 1e-4 and (entropy_N - exact.entropy()).abs().max() < 1e-4
    expected = torch.autograd.grad((slope_N * exact_N + 0.1 * exact.entropy()).sum(), wide)
    for found, other in zip(ours, expected, strict=True):
        assert (found - other).norm() < 4e-3 * other.norm()


def head_bounds_memory(device: str, vocabulary: int, width: int, chunk: int) -> None:
    """Sixteen pieces allocate what two do, but for their tokens' own few numbers (P42)."""
    head = ScoringHead(torch.nn.Parameter(torch.zeros(vocabulary, width, device=device, dtype=torch.bfloat16)))
    peaks = []
    for pieces in (2, 16):
        hidden_NH = torch.zeros(pieces * chunk, width, device=device, dtype=torch.bfloat16, requires_grad=True)
        targets_N = torch.zeros(pieces * chunk, dtype=torch.int64, device=device)
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        head(hidden_NH, targets_N, 1.0, chunk)[0].sum().backward()
        peaks.append(torch.cuda.max_memory_allocated() - start)
        head.weight.grad = None
        del hidden_NH, targets_N
    assert peaks[1] - peaks[0] < 0.5 * chunk * vocabulary * 4


def policy_agrees_with_float32(name: str, device: str, tokens: int) -> None:
    """bfloat16 logprobs are within the tolerance that recipes give them, 0.05 nats in the mean."""
    gap_N = bench.gaps(name, bench.make_row(bench.SHAPES[name], tokens, 0), device, chunk=1000)
    assert np.isfinite(gap_N).all() and 0 < gap_N.mean() < 0.05


def attention_is_fused(name: str, device: str, tokens: int) -> None:
    """No pass makes the [tokens, tokens] matrix of attention."""
    policy = bench.make_policy(name, device, torch.bfloat16, 1000, False)
    assert "attention" in bench.attention_kernel(policy, bench.make_row(bench.SHAPES[name], tokens, 0), device)


def steps_learn(name: str, device: str, tokens: int) -> None:
    """A rollout with a positive advantage becomes likelier, with gradient checkpointing and float32 masters."""
    policy = bench.make_policy(name, device, torch.bfloat16, 1000, True)
    [row] = [row for row in (bench.make_row(bench.SHAPES[name], tokens, seed) for seed in range(9)) if row.advantage_T[0] > 0][:1]
    tensors = padded([row], device)

    def logp() -> float:
        with torch.no_grad():
            return float(policy(*tensors.inputs)[0].mean())

    engine, before = bench.MasterAdamW(policy, lr=1e-4), logp()
    for _ in range(3):
        engine.backward(bench.batch_loss(engine, row, device))
        engine.step()
    assert logp() > before


def sampled(folder: Path, device: str, asked: Request) -> list[Completion]:
    """What vLLM samples, in a process of its own with the engine's environment."""
    import vllm.envs

    assert not vllm.envs.VLLM_ENABLE_V1_MULTIPROCESSING  # a run's engine is in the process that owns it
    options = {"gpu_memory_utilization": 0.5} if device == "cuda" else {"kv_cache_memory_bytes": 64 << 20}
    engine = VllmEngine(folder, "bf16", device, 512, (1,), 0, options)
    [(_, completions)] = engine.advance([asked], 600.0)
    return completions


def vllm_agrees(name: str, device: str, folder: Path) -> None:
    """What vLLM says it sampled with, the policy says too: a mean gap below 0.05 nats in bfloat16 (P8)."""
    bench.make_policy(name, device, torch.bfloat16, 1000, False).model.save_pretrained(folder)
    bench.free_memory(device)
    asked = Request("r", Problem("p", "", ""), tuple(range(5, 37)), 8, 128, 1.0, 1.0, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in engine_environment(1, device).items():
            patch.setenv(variable, value)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            completions = pool.submit(sampled, folder, device, asked).result()
    rows = [Row(str(i), np.array(asked.prompt_ids, np.int32), c.ids, c.logprobs, 1.0) for i, c in enumerate(completions)]
    policy, tensors = load_policy(folder, torch.bfloat16, 1.0, 1000).to(device), padded(rows, device)
    with torch.no_grad():
        moments_3N = torch.stack(policy(*tensors.inputs, spread=True)).cpu().numpy()
    parts = np.split(moments_3N, np.cumsum([len(row.ids) for row in rows])[:-1], axis=1)
    check_gaps(rows, {row.id: part for row, part in zip(rows, parts, strict=True)}, tolerance=0.05)
