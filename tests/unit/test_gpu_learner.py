"""What waits for a GPU works: the same code at a toy shape on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks import gpu_learner
from tests.gpu import checks

ROOT = Path(__file__).parents[2]
HEAVY = ["ray", "deepspeed", "vllm", "trl", "datasets"]


def test_the_checks_of_a_gpu_hold_for_a_toy_on_the_cpu():
    checks.head_is_exact("cpu", 300, 64, 30)
    checks.policy_agrees_with_float32("toy", "cpu", 128)
    checks.attention_is_fused("toy", "cpu", 128)
    checks.steps_learn("toy", "cpu", 128)


def test_the_benchmark_measures_a_toy(tmp_path: Path):
    command = [sys.executable, "benchmarks/gpu_learner.py", "--toy", "--json", str(tmp_path / "gpu.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    lines = json.loads((tmp_path / "gpu.json").read_text())["lines"]
    assert {(line["row"], line["optimiser"]) for line in lines} >= {(64, "torch"), (160, "torch")}
    for line in lines:
        assert "attention" in line["attention"] and line["tokens_per_second"] > 0 and 0 < line["gap_mean"] < 0.05
    assert "11,896 tokens/s" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it would measure")
def test_it_needs_no_more_than_torch_transformers_and_pydantic_and_without_a_gpu_says_so_and_ends_well():
    code = f"import sys; sys.path.insert(0, '.'); sys.modules.update(dict.fromkeys({HEAVY})); from benchmarks import gpu_learner; gpu_learner.main()"
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
