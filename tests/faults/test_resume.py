"""Kill and resume: the record of a killed and resumed run equals the record of one that was left alone (P23)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 6


def command(checkpoint: Path, runs: Path, name: str, *more: str) -> list[str]:
    overrides = [
        f"name={name}", f"model.path={checkpoint}", "stages=[rl]", "engine.kind=reference", "engine.count=1", "sampler.prompts=3", "sampler.group_size=2",
        "sampler.keep_groups=raw", "sampler.max_refills=1", "budget.limit=12", f"train.steps={STEPS}", "train.checkpoint_every=2", "train.samples_per_step=100",
        "reward=[{kind: verdict}, {kind: function, name: 'tests.faults.by_length:by_length', weight: 1.0}]", "sampler.keep_groups=shaped",
        "learner.threads=1", "publish.check_every=3",
    ]  # fmt: skip
    return [str(Path(sys.executable).with_name("laconic")), "train", "quickstart", *overrides, "--runs", str(runs), *more]


def run(arguments: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(arguments, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=280, **more)


def record(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clocks = ("seconds/", "time", "tokens_per_s", "publish/check")  # a resumed run checks its first push once more
    return [{key: value for key, value in line.items() if not key.startswith(clocks)} for line in lines]


def rollouts(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((folder / "samples").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def weights(folder: Path) -> bytes:
    return (folder / "checkpoints" / f"step-{STEPS}" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("whole")
    done = run(command(tiny_checkpoint, runs, "whole"))
    assert done.returncode == 0, done.stderr
    return runs / "whole"


def kill_after(arguments: list[str], folder: Path, finished_steps: int) -> None:
    """Start the run and SIGKILL its whole process group once the record holds so many steps."""
    process = subprocess.Popen(
        arguments,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    metrics = folder / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") >= finished_steps):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.timeout(600)
def test_a_killed_and_resumed_run_leaves_the_record_of_an_uninterrupted_one(tiny_checkpoint: Path, whole: Path, tmp_path: Path):
    kill_after(command(tiny_checkpoint, tmp_path, "whole"), tmp_path / "whole", finished_steps=3)
    assert json.loads((tmp_path / "whole" / "status.json").read_text())["state"] == "running"
    resumed = run(command(tiny_checkpoint, tmp_path, "whole", "--resume"))
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed" in resumed.stdout and "data position" in resumed.stdout
    assert record(tmp_path / "whole") == record(whole)
    assert rollouts(tmp_path / "whole") == rollouts(whole)
    assert weights(tmp_path / "whole") == weights(whole)


def test_the_uninterrupted_run_learned_something(whole: Path):
    lines = record(whole)
    assert len(lines) == STEPS
    assert any(line["grad_norm"] > 0 for line in lines)
    assert len({row["problem_id"] for row in rollouts(whole)}) > STEPS


@pytest.mark.timeout(600)
def test_resuming_with_another_recipe_or_over_an_existing_run_is_refused(tiny_checkpoint: Path, whole: Path):
    other = run([*command(tiny_checkpoint, whole.parent, "whole", "--resume"), "learner.lr=1e-3"])
    assert other.returncode == 1 and "learner.lr" in other.stderr
    again = run(command(tiny_checkpoint, whole.parent, "whole"))
    assert again.returncode == 1 and "--resume" in again.stderr
