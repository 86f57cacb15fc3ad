"""What waits for a GPU works: the same code at a toy shape on the CPU."""

from __future__ import annotations

import gc
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks import gpu_learner
from launch.memory import Shape, size
from tests.gpu import checks

ROOT = Path(__file__).parents[2]
HEAVY = ["ray", "deepspeed", "vllm", "trl", "datasets"]


def test_the_checks_of_a_gpu_hold_for_a_toy_on_the_cpu():
    checks.head_is_exact("cpu", 300, 64, 30)
    checks.policy_agrees_with_float32("toy", "cpu", 128)
    checks.attention_is_fused("toy", "cpu", 128)
    checks.steps_learn("toy", "cpu", 128)


def test_p10_a_toys_weights_reach_another_process_by_handles_and_by_broadcast():
    checks.handles_are_read("toy", "cpu")
    checks.a_broadcast_arrives("toy", "cpu", "cpu")


def test_the_benchmark_measures_a_toy(tmp_path: Path):
    command = [sys.executable, "benchmarks/gpu_learner.py", "--toy", "--json", str(tmp_path / "gpu.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    lines = json.loads((tmp_path / "gpu.json").read_text())["lines"]
    assert {(line["row"], line["optimiser"]) for line in lines} >= {(64, "torch"), (160, "torch")}
    titles, *rows = [row.split(" | ") for row in done.stdout.splitlines() if " | " in row]
    for line, row in zip(lines, rows, strict=True):
        shown = dict(zip(titles, row, strict=True))
        assert shown["plan"] == size(sum(line["plan_bytes"].values())) and shown["attention"] == line["attention"] and shown["peak"] == "-"
        assert set(line) | {"failure"} == {key for key, _ in gpu_learner.COLUMNS.values()}
        assert "attention" in line["attention"] and line["tokens_per_second"] > 0 and 0 < line["gap_mean"] < 0.05
    assert "11,896 tokens/s" in done.stdout


def test_p08_a_toys_vllm_samples_with_the_policys_probabilities_also_when_it_slept(vllm_on_cpu: None, tmp_path: Path):
    checks.vllm_agrees("toy", "cpu", tmp_path, sleeps=True)


def test_a_toys_rank_goes_on_after_a_rest(tmp_path: Path):
    checks.a_rank_rests("toy", "cpu", tmp_path)


def huge() -> Shape:
    """A toy whose head no machine can address: an allocation that does fail."""
    return replace(gpu_learner.SHAPES["toy"], vocabulary=10**13)


def live_tensors() -> int:
    gc.collect()
    return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())


def test_a_line_out_of_memory_is_a_line_and_the_others_are_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(gpu_learner.SHAPES, "huge", huge())
    monkeypatch.setitem(gpu_learner.ARCHITECTURES, "huge", "qwen3")
    cases = [("toy", 64, False), ("huge", 64, False), ("toy", 64, False)]
    first, failed, last = gpu_learner.measured(cases, 1, "cpu", 48, None)
    assert first["tokens_per_second"] > 0 and last["tokens_per_second"] > 0 and "failure" not in last
    assert failed["failure"].startswith("out of memory") and failed["plan_bytes"]
    assert len(gpu_learner.cells(failed)) == len(gpu_learner.cells(last)) == len(gpu_learner.COLUMNS)


def test_the_file_has_every_line_even_if_one_fails_for_another_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "gpu.json"
    monkeypatch.setitem(gpu_learner.ARCHITECTURES, "toy", "no such architecture")
    monkeypatch.setattr(sys, "argv", ["gpu_learner.py", "--toy", "--json", str(file)])
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        gpu_learner.main()
    lines = json.loads(file.read_text())["lines"]
    assert ended.value.code == 1 and [line["row"] for line in lines] == [64, 160]
    assert all("ValueError" in line["failure"] or "KeyError" in line["failure"] for line in lines)


def test_a_file_that_cannot_be_written_is_said_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["gpu_learner.py", "--toy", "--json", str(tmp_path / "nowhere" / "gpu.json")])
    with pytest.raises(SystemExit) as ended:
        gpu_learner.main()
    said = capsys.readouterr()
    assert ended.value.code == 2 and "toy |" not in said.out and "--json" in said.err.splitlines()[-1]


@pytest.mark.parametrize("shape", ["toy", "huge"])
def test_a_line_leaves_nothing_behind(shape: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(gpu_learner.SHAPES, "huge", huge())
    monkeypatch.setitem(gpu_learner.ARCHITECTURES, "huge", "qwen3")
    list(gpu_learner.measured([("toy", 64, False)], 1, "cpu", 48, None))
    before = live_tensors()
    list(gpu_learner.measured([(shape, 64, False)], 1, "cpu", 48, None))
    assert live_tensors() == before


def test_a_line_of_deepspeed_leaves_nothing_behind_even_if_its_engine_was_half_made():
    code = """
import gc, torch
from benchmarks import gpu_learner
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

def fails(optimizer):
    raise RuntimeError("CUDA error: out of memory")

with gpu_learner.deepspeed_ready("cpu"):
    for breaks in (False, True):
        if breaks:
            DeepSpeedZeroOptimizer.initialize_optimizer_states = fails
        left = []
        for _ in range(2):
            [line] = gpu_learner.measured([("toy", 64, True)], 1, "cpu", 48, None)
            assert ("failure" in line) == breaks, line
            gc.collect()
            left.append(sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects()))
        assert left[0] == left[1], left
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "NCCL error in: ProcessGroupNCCL.cpp:3699, unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'",
        "NCCL error: unhandled cuda error\nLast error:\nFailed to CUDA calloc async 608 bytes",
        "CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY",
        "cudaErrorMemoryAllocation",
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
        "[Errno 12] Cannot allocate memory",
    ],
)
def test_out_of_memory_is_known_in_all_its_words(said: str):
    assert gpu_learner.failure(RuntimeError(said)).startswith("out of memory: ")
    outer = ValueError("the engine could not be made")
    outer.__cause__ = RuntimeError(said)
    assert gpu_learner.failure(outer) == "out of memory: the engine could not be made"


def test_out_of_memory_is_known_by_its_class_and_other_errors_are_not_taken_for_it():
    assert gpu_learner.failure(torch.OutOfMemoryError("Tried to")).startswith("out of memory")
    assert gpu_learner.failure(MemoryError()).startswith("out of memory")
    for said in (
        "CUDA error: an illegal memory access was encountered",
        "CUBLAS_STATUS_EXECUTION_FAILED",
        "out of resource: shared memory",
        "",
    ):
        assert gpu_learner.failure(RuntimeError(said)) == f"RuntimeError: {said}"


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA L40", 181),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA A10G", None),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("GRID A100-10C", None),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA GeForce RTX 4090", None),
        ("CPU", None),
    ],
)
def test_a_cards_peak_is_its_own_or_unknown(card: str, peak: float | None):
    assert gpu_learner.card_peak(card, None) == (peak and peak * 1e12)
    assert gpu_learner.card_peak(card, 100.0) == 100e12


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it would measure")
def test_it_needs_no_more_than_torch_transformers_and_pydantic_and_without_a_gpu_says_so_and_ends_well():
    code = f"import sys; sys.path.insert(0, '.'); sys.modules.update(dict.fromkeys({HEAVY})); import tests.gpu.checks; from benchmarks import gpu_learner; gpu_learner.main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "no GPU here" in done.stdout, done.stderr


@pytest.mark.parametrize("name", list(gpu_learner.SHAPES))
def test_shapes_are_those_of_the_models(name: str):
    with torch.device("meta"):
        policy = gpu_learner.make_policy(name, "meta", torch.bfloat16, 8, False)
    counted = sum(weight.numel() for weight in policy.parameters())
    known = {"qwen3-0.6b": 596_049_920, "r1-distill-1.5b": 1_777_088_000}.get(name, counted)
    assert counted == known
    assert counted == pytest.approx(gpu_learner.SHAPES[name].parameters, rel=1e-3)


def test_flop_per_token_by_hand():
    # two layers of 64 x (4 + 2) x 32 x 2 attention and 3 x 64 x 128 feed-forward weights and 128 of norms, a head of 512 x 64, a last norm
    matrices = 2 * (24_576 + 24_576 + 128) + 32_768 + 64
    assert gpu_learner.flop_per_token(gpu_learner.SHAPES["toy"], 100) == 6 * matrices + 6 * 2 * 4 * 32 * 100


@pytest.mark.parametrize(("tokens", "speed", "mfu"), [(16384, 11_896, 0.111), (65536, 10_150, 0.268)])
def test_the_references_speed_on_an_h100_gives_the_mfu_it_states(tokens: int, speed: float, mfu: float):
    assert speed * gpu_learner.flop_per_token(gpu_learner.SHAPES["qwen3-0.6b"], tokens) / 989e12 == pytest.approx(mfu, abs=5e-4)


def test_a_toy_step_is_the_step_of_adamw_on_float32_weights():
    """Where bfloat16 rounds nothing away, the master weights are plain AdamW's."""
    policy = gpu_learner.make_policy("toy", "cpu", torch.float32, 48, True)
    plain = gpu_learner.make_policy("toy", "cpu", torch.float32, 48, False)
    adamw = torch.optim.AdamW(plain.parameters(), lr=1e-3)
    rows = [gpu_learner.make_row(gpu_learner.SHAPES["toy"], 64, seed) for seed in range(2)]
    engine = gpu_learner.MasterAdamW(policy, 1e-3)
    for row in rows:
        engine.backward(gpu_learner.batch_loss(engine, row, "cpu"))
        gpu_learner.batch_loss(plain, row, "cpu").backward()
    engine.step()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
    adamw.step()
    for ours, theirs in zip(policy.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_model_of_these_shapes_is_saved_and_loaded_under_its_own_names(tmp_path: Path):
    policy = gpu_learner.make_policy("toy", "cpu", torch.bfloat16, 48, False)
    policy.model.save_pretrained(tmp_path, state_dict=policy.model.state_dict())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    state = loaded.state_dict()
    for name, tensor in policy.model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
