"""A run to which faults happen (P26, P27), and the table of their outcomes; the runs themselves, which take minutes, are in tests/cluster.

Limits of heartbeats are shortened (tests/faults/survival.py); what is found is the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from launch.guard import members
from tests.faults.survival import table
from tests.faults.test_p23_kill_anywhere import REPOSITORY, model, record, rollouts  # noqa: F401

OF_SURVIVAL = ("engines/restarts", "learner/restarts")  # that others are there tells nothing of what they learned


@dataclass(frozen=True)
class Ended:
    """A run that came to its end.

    Attributes:
        events: faults, and warnings with their times.
        left: processes of it, 10 s later.
    """

    code: int
    output: str
    events: list[dict[str, Any]]
    left: list[str]

    @property
    def warnings(self) -> str:
        return "\n".join(event["words"] for event in self.events if event["event"] == "warning")

    def noticed(self) -> list[float]:
        """Seconds from each fault to the next warning."""
        warned = [event["time"] for event in self.events if event["event"] == "warning"]
        faults = [event["time"] for event in self.events if event["event"] == "fault"]
        return [round(min((late - time for late in warned if late > time), default=float("nan")), 1) for time in faults]


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Golds that only a judging process can compare."""
    path = tmp_path_factory.mktemp("data") / "problems.jsonl"
    rows = [{"problem": f"{n} + {n + 1}", "answer": r"\sqrt{4}" if n < 6 else r"\sqrt{1}"} for n in range(1, 8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def arguments(start: Path, runs: Path, data: Path, *more: str) -> list[str]:
    return [
        "train", "quickstart", "name=run", f"model.path={start}", f"data.train={data}", "stages=[rl]", "engine.kind=reference", "engine.count=1",
        "sampler.prompts=3", "sampler.group_size=3", "sampler.keep_groups=all", "budget.limit=8", "budget.cut_stop=1.0", "train.steps=3",
        "train.checkpoint_every=1", "train.samples_per_step=100", "learner.ranks=1", "learner.threads=1", "judge.workers=1",
        f"eval.data=[{data}]", "eval.samples=1", "eval.max_tokens=8", "eval.every=2", "--runs", str(runs), *more,
    ]  # fmt: skip


def run(words: Sequence[str], folder: Path, *faults: dict[str, Any], actors: bool = True, within_s: float = 500) -> Ended:
    """The laconic command with faults, until nothing of it is left, 10 s at most."""
    folder.mkdir(parents=True, exist_ok=True)
    log, output = folder / "events", folder / "output"
    log.unlink(missing_ok=True)
    job = {"arguments": words, "faults": faults, "log": str(log), "actors": actors}
    with open(output, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.survival", json.dumps(job)], env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            cwd=REPOSITORY, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    family: dict[int, psutil.Process] = {}
    until = time.monotonic() + within_s
    while process.poll() is None and time.monotonic() < until:
        try:
            family |= {child.pid: child for child in psutil.Process(process.pid).children(recursive=True)}
        except psutil.NoSuchProcess:
            break
        time.sleep(0.3)
    process.poll() is None and process.kill()
    code = process.wait()
    until = time.monotonic() + 10
    while (left := _left(process.pid, family)) and time.monotonic() < until:
        time.sleep(0.2)
    events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return Ended(code, output.read_text(), events, left)


def _left(driver: int, family: dict[int, psutil.Process]) -> list[str]:
    found = [*family.values(), *(psutil.Process(pid) for pid in members(driver) if psutil.pid_exists(pid))]
    left = []
    for one in found:
        try:
            if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                left.append(f"{one.pid} {one.name()} {' '.join(one.cmdline())[-80:]}")
        except psutil.NoSuchProcess:
            continue
    return left


def learned(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What a run left of its steps, without how often others took over."""
    lines = [{key: value for key, value in line.items() if key not in OF_SURVIVAL} for line in record(folder / "run")]
    return lines, rollouts(folder / "run")


def test_the_table_of_the_page_is_that_of_the_code():
    assert table() in (REPOSITORY / "docs" / "promises.md").read_text(encoding="utf-8")
