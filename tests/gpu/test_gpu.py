"""The learner on a GPU at real shapes; needs torch, transformers, pydantic and pytest, and vLLM, DeepSpeed and Ray for tests of their own.

`make test-gpu` runs it, `python -m pytest --noconftest -q tests/gpu` where the rest of the project is not installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_learner import SHAPES, free_memory
from tests.gpu import checks

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU (make test hides it; make test-gpu does not)"),
    pytest.mark.timeout(1800),  # vLLM compiles and captures at its first start
]
ROOT = Path(__file__).parents[2]
MODELS = ["qwen3-0.6b", "r1-distill-1.5b"]


@pytest.fixture(autouse=True)
def memory_is_freed():
    yield
    free_memory("cuda")


def test_the_head_is_exact():
    checks.head_is_exact("cuda", 32_000, 1536, 300)


def test_p42_pieces_of_the_head_do_not_add_up():
    checks.head_bounds_memory("cuda", 151_936, 1536, 512)


@pytest.mark.parametrize("name", MODELS)
def test_bf16_logprobs_are_near_those_of_float32(name: str):
    checks.policy_agrees_with_float32(name, "cuda", 2048)


@pytest.mark.parametrize("name", MODELS)
def test_attention_is_fused(name: str):
    checks.attention_is_fused(name, "cuda", 2048)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_learns(name: str):
    if torch.cuda.get_device_properties(0).total_memory < 20 * SHAPES[name].parameters:
        pytest.skip("weights, float32 masters, gradients and moments take 18 bytes a parameter")
    checks.steps_learn(name, "cuda", 2048)


@pytest.mark.parametrize("sleeps", [False, True])
def test_p08_vllm_samples_with_the_policys_probabilities_and_gives_its_memory_back_while_it_sleeps(tmp_path: Path, sleeps: bool):
    wanted("vllm")
    checks.vllm_agrees("qwen3-0.6b", "cuda", tmp_path, sleeps)


def test_a_rank_that_rests_gives_its_memory_back_and_goes_on(tmp_path: Path):
    wanted("deepspeed", "ray")
    checks.a_rank_rests("qwen3-0.6b", "cuda", tmp_path)


def test_p10_an_engine_reads_the_policys_memory_by_cuda_ipc():
    checks.handles_are_read("qwen3-0.6b", "cuda")


def test_p10_nccl_broadcasts_weights_between_two_gpus():
    if torch.cuda.device_count() < 2:
        pytest.skip("it takes two GPUs")
    checks.a_broadcast_arrives("qwen3-0.6b", "cuda:0", "cuda:1")


def test_a_whole_run_takes_turns_on_one_gpu(tmp_path: Path):
    """The quickstart's recipe, a few steps of it, with a checkpoint and an evaluation in each."""
    wanted("vllm", "deepspeed", "ray", "trl", "datasets")
    few = ["cold_start.steps=20", "train.steps=3", "train.checkpoint_every=1", "eval.problems=8", "eval.every=1", "budget.cut_stop=1"]
    command = [sys.executable, "-c", "from launch.cli import app; app()", "train", "quickstart", "--runs", str(tmp_path), *few]
    environment = os.environ | {"LACONIC_CACHE": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode in (0, 3), done.stdout + done.stderr  # 3: what it trained had no effect, which so few steps may well not have
    record = [json.loads(line) for line in (tmp_path / "quickstart" / "metrics.jsonl").read_text().splitlines()]
    assert len(record) == 3 and all(line["publish/check"] < 1e-3 for line in record if line.get("publish/check") is not None)


def wanted(*packages: str) -> None:
    """Skip where one is not installed. None is imported here: that is for processes with the environment that it needs."""
    if missing := [name for name in packages if find_spec(name) is None]:
        pytest.skip(f"{missing[0]} is not installed")
