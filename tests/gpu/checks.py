"""What must hold on a device: called with a GPU and real shapes by test_gpu.py, with the CPU and a toy by tests/unit/test_gpu_learner.py."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks import gpu_learner as bench
from recipes.schema import Recipe
from rl.gate import check_gaps
from rl.logprobs import ScoringHead
from rl.outbox import Outbox
from rl.policy import Row, load_policy, padded
from rollout.broadcast import Group, Seat, host_meeting, send, specs
from rollout.parcels import Parcel, Stored, digesting
from rollout.types import Completion, Problem, Request
from rollout.variables import engine_environment
from rollout.vllm_engine import VllmEngine
from rollout.weights import as_numbers, digest, pack


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


def sampled(folder: Path, device: str, asked: Request, sleeps: bool) -> list[Completion]:
    """What vLLM samples, in a process of its own with the engine's environment; after a sleep, in which a GPU is free, and a push of the same weights."""
    import vllm.envs

    assert not vllm.envs.VLLM_ENABLE_V1_MULTIPROCESSING  # a run's engine is in the process that owns it
    kv = 4 << 30 if device == "cuda" else 64 << 20
    options = {"gpu_memory_utilization": 0.5, "enable_sleep_mode": sleeps} if device == "cuda" else {}
    engine = VllmEngine(folder, "bf16", device, 512, (1,), 0, options | {"kv_cache_memory_bytes": kv})
    if sleeps:
        weights = Stored({name: pack(tensor) for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()})
        before, free = engine.score([asked.prompt_ids])[0], free_bytes(device)
        engine.sleep()
        asleep = free_bytes(device)
        for turn in (lambda: engine.wake("weights"), lambda: engine.load(weights, 1), lambda: engine.wake("kv_cache")):
            turn()
        held = sum(packed.tensor().nbytes for packed in weights.values()) + kv
        assert device == "cpu" or asleep - free > 0.9 * held
        np.testing.assert_allclose(engine.score([asked.prompt_ids])[0], before, atol=0.02)
    [(_, completions)] = engine.advance([asked], 600.0)
    return completions


def free_bytes(device: str) -> int:
    """Of the GPU."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else 0


def in_own_process(function: Callable[..., Any], device: str, *arguments: Any) -> Any:
    """What a function returns in a process that has an engine's environment."""
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in engine_environment(1, device).items():
            patch.setenv(variable, value)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()


def vllm_agrees(name: str, device: str, folder: Path, sleeps: bool) -> None:
    """What vLLM says it sampled with, the policy says too: a mean gap below 0.05 nats in bfloat16 (P8)."""
    bench.make_policy(name, device, torch.bfloat16, 1000, False).model.save_pretrained(folder)
    bench.free_memory(device)
    asked = Request("r", Problem("p", "", ""), tuple(range(5, 37)), 8, 128, 1.0, 1.0, seed=0)
    completions = in_own_process(sampled, device, folder, device, asked, sleeps)
    rows = [Row(str(i), np.array(asked.prompt_ids, np.int32), c.ids, c.logprobs, 1.0) for i, c in enumerate(completions)]
    policy, tensors = load_policy(folder, torch.bfloat16, 1.0, 1000).to(device), padded(rows, device)
    with torch.no_grad():
        moments_3N = torch.stack(policy(*tensors.inputs, spread=True)).cpu().numpy()
    parts = np.split(moments_3N, np.cumsum([len(row.ids) for row in rows])[:-1], axis=1)
    check_gaps(rows, {row.id: part for row, part in zip(rows, parts, strict=True)}, tolerance=0.05)


def updated(name: str, device: str, folder: Path) -> tuple[float, float, int]:
    """The loss of a rank's second update, before which it rested; the same after it went back to what was saved then; and bytes of the GPU that it gave back."""
    from rl.learner import LearnerRank

    recipe = Recipe.model_validate({"model": {"dtype": "bf16"}, "learner": {"ranks": 1, "zero_stage": 2, "gradient_checkpointing": True}})
    rank = LearnerRank(0)
    rank.start(rank.listen("127.0.0.1"), folder, recipe, device)
    rows = [bench.make_row(bench.SHAPES[name], 128, seed) for seed in range(4)]
    ids = [row.ids.tolist() for row in rows]

    def update() -> float:
        rank.begin("update", [[rows]], recipe.objective, 1e-5, 0.0, 1.0)
        while (answer := rank.go_on()) is None:
            pass
        return float(answer[0][0]["loss"])

    update()
    free, awake = free_bytes(device), rank.score(ids)
    rank.rest(True)
    free = free_bytes(device) - free
    for one, other in zip(rank.score(ids), awake, strict=True):
        np.testing.assert_array_equal(one, other)
    rank.save(folder / "saved")
    rank.rest(False)
    loss = update()
    rank.restore(folder / "saved")
    return loss, update(), free


def a_rank_rests(name: str, device: str, folder: Path) -> None:
    """A rank goes on after a rest as after going back to what it saved in it, and a GPU was free of moments and float32 weights meanwhile."""
    bench.make_policy(name, device, torch.bfloat16, 1000, False).model.save_pretrained(folder)
    bench.free_memory(device)
    loss, same, freed = in_own_process(updated, device, name, device, folder)
    assert loss == pytest.approx(same, rel=1e-3 if device == "cuda" else 0)
    assert device == "cpu" or freed > 0.9 * 12 * bench.SHAPES[name].parameters


def received(parcel: Parcel, device: str) -> dict[str, int]:
    """Digests of what another process gets on its device."""
    found: dict[str, torch.Tensor] = {}
    for _ in digesting(parcel.tensors(0, torch.device(device)), found):
        pass
    return as_numbers(found)


def handles_are_read(name: str, device: str) -> None:
    """Another process reads the policy's own memory by handles, also what is changed there later, and both make the digests that the CPU makes (P10)."""
    model = bench.make_policy(name, device, torch.bfloat16, 1000, False).model
    outbox = Outbox(model, model.state_dict().keys(), 0, 1, device, stays=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for _ in range(2):
            assert pool.submit(received, outbox.share([0])[0], device).result() == outbox.digests()
            assert outbox.digests() == {name: int(digest(tensor.cpu())) for name, tensor in model.state_dict().items()}
            with torch.no_grad():
                for weight in model.parameters():
                    weight.mul_(1.5)


def a_broadcast_arrives(name: str, device: str, other: str) -> None:
    """Tensors of one device are on another in a second process, to the bit, in two pushes through one group (P10)."""
    model = bench.make_policy(name, device, torch.bfloat16, 1000, False).model
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    meeting, store = host_meeting("127.0.0.1", 2, 60.0, "nccl" if device != "cpu" else "gloo", bucket=1 << 20)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        group = None
        for _ in range(2):
            arrived = pool.submit(received, Seat(meeting, 1, specs(tensors)), other)
            group = group or Group(meeting, 0, torch.device(device.partition(":")[0]), store)  # as a rank has it
            assert as_numbers(dict(send(tensors, specs(tensors), group))) == arrived.result()
