"""Kill and resume (P23): one run is killed at fourteen points, one after the other, and resumed each time; another is left alone.

All that has state is on at once: a controller, LASER-D's limits, a toggle, cut outliers, Leash's lambda, the entropy bonus' weight and schedules. For
that the model must be right now and then: its weights are set so that it thinks a few words, then boxes one of three digits.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl import checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 20

# Which call to die in, counted in each process from its start or resume; behind it, where that leaves the run. Checkpoints are finished
# beside the next step: how far that is at the kill is chance, so the newest one may be the one before.
COUNTS = {
    "before-the-first-push": 1,  # nothing done
    "mid-rollout": 5,
    "between-save-and-prune": 1,  # step-2 is the newest checkpoint
    "between-filling-and-sealing": 1,  # of step-4, which is never to be seen
    "between-sealing-and-renaming": 1,
    "mid-verdict": 4,
    "between-metrics-and-checkpoint": 6,  # steps 2 to 7 are recorded, step-6 is the newest checkpoint
    "mid-backward": 3,  # in step 8, step-8 is the newest
    "mid-push": 4,  # behind step 10, step-10 is the newest
    "between-update-and-push": 5,  # in step 14, step-14 is the newest
    "before-the-update": 2,  # in step 15
    "between-samples-and-metrics": 6,  # in the last step
    "mid-save": 1,  # of the last checkpoint
    "after-the-last-step": 1,
}
ACTORS = (
    "mid-rollout",
    "mid-backward",
    "mid-push",
)  # killed while actors of Ray are at work; elsewhere learner and engine live in the driver


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven problems, so that a run of twenty steps of three prompts passes the end of the data several times."""
    path = tmp_path_factory.mktemp("data") / "problems.jsonl"
    path.write_text("".join(json.dumps({"problem": f"{n} + {n + 1}", "answer": "2" if n < 6 else "1"}) + "\n" for n in range(1, 8)))
    return path


@pytest.fixture(scope="module")
def model(checkpoints: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose next token goes by the last one: each that answers are made of has a direction of its own, which the head reads."""
    folder = tmp_path_factory.mktemp("model") / "qwen2"
    shutil.copytree(checkpoints("qwen2"), folder)
    made, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    words = {"wait": 0.3, "hmm": 0.3, "</think>": 0.4}
    follow = {"\n": words, "wait": words, "hmm": words, "</think>": {"\\boxed{": 1}, "\\boxed{": {"1": 0.15, "2": 0.75, "3": 0.1}}
    follow |= {digit: {"}": 1} for digit in "123"} | {"}": {tokenizer.eos_token: 1}}
    with torch.no_grad():
        embedded, head = made.get_input_embeddings().weight, made.get_output_embeddings().weight
        embedded[:, : len(follow)] = head[:, :] = 0
        for direction, (token, after) in enumerate(follow.items()):
            embedded[tokenizer.convert_tokens_to_ids(token)] = torch.eye(embedded.shape[1])[direction]
            for next_token, share in after.items():
                head[tokenizer.convert_tokens_to_ids(next_token), direction] = (8 + log(share)) / embedded.shape[1] ** 0.5
    made.save_pretrained(folder)
    return folder


def arguments(checkpoint: Path, runs: Path, data: Path, *more: str) -> list[str]:
    return [
        "train", "quickstart", "name=run", f"model.path={checkpoint}", f"data.train={data}", "stages=[rl]", "engine.kind=reference",
        "engine.count=1", "sampler.prompts=3", "sampler.group_size=3", "sampler.max_refills=1", "budget.limit=8", "budget.cut_stop=1.0",
        f"train.steps={STEPS}", "train.checkpoint_every=2", "train.samples_per_step=100", "sampler.keep_groups=shaped",
        "budget.kind=controller", "budget.measure=2", "budget.room=2.0", "budget.gain=2.0", "budget.watch=0.7", "budget.every=3", "waive=[right_beats_wrong]",
        "budget.also=[{kind: coverage, watch: 0.7, every: 3, grid: 0.1}, {kind: toggle, period: 3, accuracy: 0.5}, {kind: outlier, alpha: 1.0}]",
        "schedule={learner.lr: {kind: linear, share: 0.5}, objective.clip_high: {kind: decays, share: 0.5, count: 4}}",
        "reward=[{kind: verdict, wrong: -1}, {kind: leash, weight: 0.3, gain: 0.05}, {kind: function, name: 'tests.faults.by_length:by_length', weight: 0.5, low: -2, high: 0.3}]",
        "objective.entropy={kind: adaptive, coef: 0.01, target: 2.0}", "judge.workers=1",
        "learner.ranks=1", "learner.threads=1", "publish.check_every=3", "--runs", str(runs), *more,
    ]  # fmt: skip


class Killer:
    """tests/faults/killer in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._output = folder / "output"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.killer"], env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, cwd=REPOSITORY,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

    def run(self, arguments: list[str], point: str = "", count: int = 0, actors: bool = True, sign: str = "SIGKILL") -> tuple[int, str]:
        """Exit code (minus the signal) and output."""
        assert self._process.stdin and self._process.stdout
        job = {"point": point, "count": count, "signal": sign, "actors": actors, "arguments": arguments, "output": str(self._output)}
        self._process.stdin.write(json.dumps(job) + "\n")
        return int(self._process.stdout.readline()), self._output.read_text()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def record(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without clocks, and without what a resumed run checks once more at its first step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    left_out = ("seconds/", "time", "tokens_per_s", "publish/check", "gate/")
    return [{key: value for key, value in line.items() if not key.startswith(left_out)} for line in lines]


def rollouts(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((folder / "samples").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def weights(folder: Path) -> bytes:
    return (folder / "checkpoints" / f"step-{STEPS}" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def alone(model: Path, data: Path, killer: Killer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("alone")
    code, output = killer.run(arguments(model, runs, data), actors=False)
    assert code == 0, output
    return runs / "run"


@pytest.mark.timeout(900)
def test_p23_a_run_killed_at_fourteen_points_leaves_the_record_of_one_that_was_left_alone(
    model: Path, data: Path, alone: Path, killer: Killer, tmp_path: Path
):
    from tests.faults.killer import POINTS  # imports all that a run needs

    assert set(COUNTS) == set(POINTS) and len(POINTS) == 14
    for number, (point, count) in enumerate(COUNTS.items()):
        words = arguments(model, tmp_path, data, *(["--resume"] if number else []))
        code, output = killer.run(words, point, count, actors=point in ACTORS)
        assert code == -signal.SIGKILL, f"{point}: {output[-3000:]}"
        assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "running"
        for visible in checkpoint.finished(tmp_path / "run" / "checkpoints"):
            checkpoint.verify(visible)
        assert number <= list(COUNTS).index("between-save-and-prune") or ("resumed" in output and "data position" in output), output
    code, output = killer.run(arguments(model, tmp_path, data, "--resume"), actors=False)
    assert code == 0 and f"step-{STEPS}: all {STEPS} steps are done" in output.replace("\n", " "), output
    assert record(tmp_path / "run") == record(alone)
    assert rollouts(tmp_path / "run") == rollouts(alone)
    assert weights(tmp_path / "run") == weights(alone)


def test_the_run_that_was_left_alone_learned_something(alone: Path):
    lines = record(alone)
    assert len(lines) == STEPS and any(line["grad_norm"] > 0 for line in lines)
    assert len({row["problem_id"] for row in rollouts(alone)}) == 7
    for name in (
        "entropy/weight",
        "budget/share",
        "budget/hard",
        "budget/outliers",
        "reward/lambda",
        "limit",
        "limit/rewarded",
        "lr",
    ):  # state, and what follows from it, that a resumed run must have
        assert len({line[name] for line in lines}) > 1, name


@pytest.mark.timeout(600)
def test_resuming_with_another_recipe_or_over_an_existing_run_is_refused(model: Path, data: Path, alone: Path, killer: Killer):
    code, output = killer.run(arguments(model, alone.parent, data, "--resume", "learner.lr=1e-3"))
    assert code == 1 and "learner.lr" in output
    code, output = killer.run(arguments(model, alone.parent, data))
    assert code == 1 and "--resume" in output


@pytest.mark.timeout(600)
def test_p25_a_run_that_is_converted_to_two_ranks_goes_on_as_the_one_that_was_left_alone(alone: Path, killer: Killer, tmp_path: Path):
    before = sorted(path.name for path in alone.rglob("*"))
    source, out = alone / "checkpoints" / "step-18", tmp_path / "two"
    code, output = killer.run(["convert", str(source), "--ranks", "2", "--zero-stage", "3", "--out", str(out)])
    assert code == 0 and "2 ranks with ZeRO-3, compared to the bit" in output, output
    assert sorted(path.name for path in alone.rglob("*")) == before and [path.name for path in tmp_path.iterdir()] == ["two"]
    code, output = killer.run(["train", f"{out}/recipe.yaml", "--runs", str(tmp_path), "--resume"])
    assert code == 0 and "step-18: policy, optimiser" in output.replace("\n", " "), output
    for one, other in zip(record(out), record(alone), strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():
            assert one[key] == (value if one["step"] < 18 or value is None else pytest.approx(value, rel=1e-3, abs=1e-6)), (
                one["step"],
                key,
            )
    assert rollouts(out)[: len(rollouts(alone))] and [row["ids"] for row in rollouts(out)] == [row["ids"] for row in rollouts(alone)]
