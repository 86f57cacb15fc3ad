"""The learner on a GPU at real shapes; needs torch, transformers, pydantic and pytest, and vLLM for its own test.

`make test-gpu` runs it, `python -m pytest --noconftest -q tests/gpu` where the rest of the project is not installed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_learner import SHAPES, free_memory
from tests.gpu import checks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU (make test hides it; make test-gpu does not)")
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


def test_p08_vllm_samples_with_the_policys_probabilities(tmp_path: Path):
    if find_spec("vllm") is None:  # not imported: that is for the process with the engine's environment
        pytest.skip("vLLM is not installed")
    checks.vllm_agrees("qwen3-0.6b", "cuda", tmp_path)
