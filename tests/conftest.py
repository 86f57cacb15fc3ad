"""What all tests share: a quiet, offline, single-threaded environment, one Ray and one tiny checkpoint a session."""

from __future__ import annotations

import json
import os

# Read when the libraries are imported, so set before any of them is.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from tests.forked import Forked

HERE = Path(__file__).resolve().parent


def pytest_configure(config: pytest.Config) -> None:
    """Tests mean the CPU, also on a machine with GPUs, unless tests/gpu alone is asked for."""
    if not all(path.is_relative_to(HERE / "gpu") for path in _asked(config)):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["DS_ACCELERATOR"] = "cpu"
        os.environ["TORCHDYNAMO_DISABLE"] = "1"  # nothing is compiled on a CPU, and libraries that ask for it import for seconds


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Tests that take an hour, and daemons of the machine, are run where they are named (`make test-cluster`)."""
    if collection_path == HERE / "cluster" and not any(path.is_relative_to(collection_path) for path in _asked(config)):
        return True
    return None


def _asked(config: pytest.Config) -> list[Path]:
    return [(config.invocation_params.dir / argument.split("::")[0]).resolve() for argument in config.args]


hypothesis.settings.register_profile("laconic", deadline=None)  # a shared machine may stall any single example
hypothesis.settings.load_profile("laconic")


@pytest.fixture(scope="session", autouse=True)
def only_listed_metrics_are_recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever tests left in a metrics.jsonl, from this process or another, stands in the register of rollout/metrics.py."""
    from rollout.metrics import strange

    yield
    base, said = tmp_path_factory.getbasetemp(), set()
    for file in base.rglob("metrics.jsonl"):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # torn on purpose
            if isinstance(record, dict):
                said |= {f"{file.relative_to(base)}: {words}" for words in strange(record)}
    assert not said, "\n".join(sorted(said))


@pytest.fixture(scope="session")
def vllm_on_cpu() -> None:
    """For tests that start vLLM: its CUDA build cannot run on the CPU, where tests stay."""
    from launch.machine import this_machine

    if (build := this_machine().build) == "cuda":
        pytest.skip(f"vLLM's CPU build is needed, and the {build} build is installed (make install EXTRA=cpu)")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A running Ray of two CPUs on loopback, for all tests of the session."""
    from launch.ray_start import start_ray, stop_ray

    start_ray(num_cpus=2, num_gpus=0)
    yield
    stop_ray()


@pytest.fixture
def forked() -> Iterator[Forked]:
    """Ranks of this test's learners are forks instead of Ray's actors."""
    from tests.forked import forking

    with forking() as made:
        yield made


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Hugging Face checkpoint folders by architecture: "qwen3" (tied head), "qwen2" (attention biases, own head) and "llama" (tied head).

    Two layers, width 32, random weights (seed 0), the tiny task's tokenizer. Shared by the session: tests that write to one copy it first.
    """

    @cache
    def folder(architecture: str) -> Path:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        from rollout.tiny.tokenizer import build_tokenizer

        tokenizer = build_tokenizer()
        config = AutoConfig.for_model(
            architecture,
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=2048,
            tie_word_embeddings=architecture != "qwen2",
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
        made = tmp_path_factory.mktemp(f"tiny-{architecture}")
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config)
            for name, weight in model.named_parameters():
                if name.endswith("bias"):
                    weight.normal_(std=0.5)  # they are made as zeros, which would hide a lost one
            model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        return made

    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(checkpoints: Callable[[str], Path]) -> Path:
    """The Qwen3 of `checkpoints`."""
    return checkpoints("qwen3")
