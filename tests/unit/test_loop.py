"""The loop's own decisions, in this process on stand-ins for Ray and DeepSpeed (tests/inprocess): when it stops, and what is then kept."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from launch import stages
from launch.explain import explain
from launch.plan import plan
from recipes.loader import load
from recipes.schema import Recipe
from recipes.steps import evaluated_after
from rl import checkpoint
from rl.checkpoint import MANIFEST, CheckpointError
from rl.gate import GateError
from rl.learner import Learner, LearnerLost, LearnerRank
from rl.loop import TooManyCut
from rl.objective import NonFinite
from rl.policy import Row
from rl.run import Run, RunError
from rl.state import left
from rl.wires import Collapsed
from rollout.collector import Collector
from rollout.reference_engine import ReferenceEngine
from tests.inprocess import libraries


def recipe(checkpoint: Path, **changes: object) -> Recipe:
    settings = {
        "stages": ["rl"],
        "device": "cpu",
        "model": {"path": str(checkpoint)},
        "data": {"max_prompt_tokens": 64},
        "sampler": {"prompts": 2, "group_size": 4, "keep_groups": "all"},
        "budget": {"limit": 4, "cut_stop": 1.0},
        "reward": [
            {"kind": "verdict"},
            {"kind": "function", "name": "tests.faults.by_length:by_length", "weight": 0.5, "low": -1, "high": 0.3},
        ],
        "engine": {"kind": "reference"},
        "train": {"steps": 3, "checkpoint_every": 1, "samples_per_step": 100},
        "eval": {"data": []},
    }
    for key, value in changes.items():
        settings[key] = settings.get(key, {}) | value if isinstance(value, dict) else value
    return Recipe.model_validate(settings)


@contextmanager
def running(wanted: Recipe, runs: Path) -> Iterator[SimpleNamespace]:
    with libraries() as seen:
        yield seen
    folder = runs / wanted.name
    seen.state = json.loads((folder / "status.json").read_text())["state"]
    seen.lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seen.samples = sorted(path.name for path in (folder / "samples").iterdir())


def test_p07_a_first_step_of_cut_rollouts_trains_nothing_and_can_be_read(tiny_checkpoint: Path, tmp_path: Path):
    wanted = recipe(tiny_checkpoint, budget={"limit": 2, "cut_stop": 0.3})
    with running(wanted, tmp_path) as seen, pytest.raises(TooManyCut):
        stages.run_recipe(plan(wanted), tmp_path)
    assert (seen.state, seen.lines, seen.samples) == ("failed", [], ["step-00000.parquet"])
    wanted = recipe(tiny_checkpoint, name="later", budget={"limit": 2})
    with running(wanted, tmp_path) as seen:
        stages.run_recipe(plan(wanted), tmp_path)
    assert (seen.state, len(seen.lines)) == ("finished", 3)


def test_p08_the_gate_is_asked_before_the_first_update_even_if_that_step_trains_nothing(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An engine that reports its logprobs a nat too high, and a first step whose groups are all flat."""
    sample = ReferenceEngine._sample

    def off(self: ReferenceEngine, request):
        completions = sample(self, request)
        for completion in completions if not request.id.startswith("rehearsal") else ():
            completion.logprobs[:] += 1.0
        return completions

    monkeypatch.setattr(ReferenceEngine, "_sample", off)
    flat = {"keep_groups": "raw", "max_refills": 0}
    wanted = recipe(tiny_checkpoint, sampler=flat, reward=[{"kind": "verdict"}])
    with running(wanted, tmp_path) as seen, pytest.raises(GateError, match=r"gate/mean 1 nats"):
        stages.run_recipe(plan(wanted), tmp_path)
    assert (seen.state, seen.lines, seen.samples) == ("failed", [], ["step-00000.parquet"])


def test_p08_a_resumed_run_asks_the_gate_again(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wanted = recipe(tiny_checkpoint, publish={"check_every": 100})
    update = LearnerRank.update
    calls = []

    def dying(self: LearnerRank, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return update(self, *arguments)

    monkeypatch.setattr(LearnerRank, "update", dying)
    monkeypatch.setattr(Learner, "restore", lambda self, folder: None)  # the stand-in keeps no weights
    with running(wanted, tmp_path) as seen, pytest.raises(KeyboardInterrupt):
        stages.run_recipe(plan(wanted), tmp_path)
    assert ["gate/mean" in line for line in seen.lines] == [True, False]
    with running(wanted, tmp_path) as seen:
        stages.run_recipe(plan(wanted), tmp_path, resume=True)
    assert ["gate/mean" in line for line in seen.lines] == [True, False, True]


@pytest.mark.parametrize(("objective", "every"), [({"old_logprobs": "learner", "kl": {"coef": 0.1}}, 1), ({}, 100)])
def test_p08_sampler_learner_reference_and_gate_follow_a_temperature_that_moves(
    objective: dict[str, object], every: int, tiny_checkpoint: Path, tmp_path: Path
):
    """Old and reference logprobs are those of the temperature sampled at, in every step: ratios stay 1, the gate shut, and no KL to oneself."""
    wanted = recipe(
        tiny_checkpoint,
        schedule={"sampler.temperature": {"kind": "linear", "to": 0.05}},
        objective=objective,
        learner={"lr": 1e-12},
        publish={"check_every": every, "tolerance": 1e-4},
    )
    with running(wanted, tmp_path) as seen:
        stages.run_recipe(plan(wanted), tmp_path)
    assert len(seen.lines) == 3
    for line in seen.lines:
        assert line.get("gate/mean", 0) < 1e-5 and line["mismatch/max"] < 1e-4 and (line["kl"] or 0) < 1e-8
        assert line["ratio/mean"] == pytest.approx(1, abs=1e-5)
    assert seen.lines[2]["entropy"] < 0.5 * seen.lines[0]["entropy"]


def test_p40_another_seed_leaves_another_record_and_the_same_seed_the_same(tiny_checkpoint: Path, tmp_path: Path):
    found = []
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        wanted = recipe(tiny_checkpoint, name=name, seed=seed, train={"steps": 1})
        with running(wanted, tmp_path) as seen:
            stages.run_recipe(plan(wanted), tmp_path)
        rows = pq.read_table(tmp_path / name / "samples" / "step-00000.parquet").to_pylist()
        found.append((seen.lines[0]["loss"], [row["ids"] for row in rows], [row["problem_id"] for row in rows], seen.lines[0].keys()))
    first, again, other = found
    assert first == again
    assert all(one != two for one, two in zip(first[:3], other[:3], strict=True)) and first[3] == other[3]


@pytest.mark.parametrize(("policy", "state"), [("stop", "failed"), ("skip", "finished")])
def test_a_reward_of_ones_own_that_is_nan_stops_the_run_or_leaves_its_group_out(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, state: str
):
    def spoiled(prompts, completions, completion_ids, **columns):
        return (
            [float("nan"), *(-len(ids) / 7 for ids in completion_ids[1:])] if "7" in prompts[0] else [-len(i) / 7 for i in completion_ids]
        )

    monkeypatch.setattr("tests.faults.by_length.by_length", spoiled)
    wanted = recipe(tiny_checkpoint, learner={"nonfinite": policy}, sampler={"keep_groups": "shaped"}, train={"steps": 4})
    with running(wanted, tmp_path) as seen:
        if policy == "stop":
            with pytest.raises(NonFinite, match=r"its reward is nan \(tests.faults.by_length:by_length nan\)"):
                stages.run_recipe(plan(wanted), tmp_path)
        else:
            stages.run_recipe(plan(wanted), tmp_path)
    assert seen.state == state
    if policy == "skip":
        assert sum(line["groups/nonfinite"] for line in seen.lines) > 0
        for line in seen.lines:
            fates = ("trained", "nonfinite", "surplus", "all_right", "all_wrong", "flat", "not_judged")
            assert sum(line[f"groups/{fate}"] for fate in fates) == line["groups/sampled"]


@pytest.mark.parametrize("keep", ["all", "raw"])  # raw: the groups, all wrong, do not train
@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_logprob_that_is_nan_is_named_or_left_out_also_where_the_gate_looks(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, keep: str
):
    sample, calls = ReferenceEngine._sample, []

    def spoiled(self: ReferenceEngine, request):
        completions = sample(self, request)
        calls.extend([] if request.id.startswith("rehearsal") else [request.id])
        if calls == [request.id]:
            completions[0].logprobs[0] = np.nan
        return completions

    monkeypatch.setattr(ReferenceEngine, "_sample", spoiled)
    wanted = recipe(tiny_checkpoint, learner={"nonfinite": policy}, sampler={"keep_groups": keep}, train={"samples_per_step": 1})
    with running(wanted, tmp_path) as seen:
        if policy == "stop":
            with pytest.raises(NonFinite, match=r"^step 0: .*rollout \w+: the engine's logprob of token 0 is nan") as stopped:
                stages.run_recipe(plan(wanted), tmp_path)
            kept = pq.read_table(tmp_path / wanted.name / "samples" / "step-00000.parquet")["rollout"].to_pylist()
            assert len(kept) == 1 and kept[0] in str(stopped.value)
        else:
            stages.run_recipe(plan(wanted), tmp_path)
    if policy == "skip":
        assert [line["groups/nonfinite"] for line in seen.lines] == [keep == "all", 0, 0] and "gate/mean" in seen.lines[0]


def test_a_clipped_infinity_is_not_trained_on_though_its_gradient_is_finite(tiny_checkpoint: Path, tmp_path: Path):
    rows = [
        Row(f"r{i}", np.arange(5, 9, dtype=np.int32), np.arange(9, 13, dtype=np.int32), np.full(4, -3.0, np.float32), 1.0, 0.1)
        for i in range(3)
    ]
    rows[1].engine_logp[2] = -200.0  # a ratio that overflows; CISPO's weight is clipped, and its gradient finite
    wanted = recipe(tiny_checkpoint, objective={"surrogate": "cispo"}, learner={"nonfinite": "skip", "lr": 0.01, "zero_stage": 0})
    with libraries():
        learner = Learner(wanted, tiny_checkpoint, "cpu")
        before = learner.weights()[1]
        stats = learner.update([rows], 0)
        assert stats["updates/skipped"] == 1 and learner.weights()[1] == before
        assert learner.update([[rows[0], rows[2]]], 1)["updates/skipped"] == 0 and learner.weights()[1] != before


@pytest.mark.parametrize("action", ["warn", "stop"])
def test_p15_rollouts_that_a_wire_names_are_in_the_samples_of_its_step_which_words_and_status_name(
    action: str, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """An entropy that no policy of 40 letters reaches trips at step 0; samples_per_step has no place for what is named."""
    wanted = recipe(
        tiny_checkpoint,
        wires={"entropy": 100.0, "cut": 1.0, "empty_thinking": 1.0, "repetition": 1.0, "action": action},
        train={"steps": 2, "samples_per_step": 1},
    )
    with running(wanted, tmp_path) as seen:
        if action == "stop":
            with pytest.raises(Collapsed, match=r"^step 0: "):
                stages.run_recipe(plan(wanted), tmp_path)
        else:
            stages.run_recipe(plan(wanted), tmp_path)
    status = json.loads((tmp_path / wanted.name / "status.json").read_text())
    said = status["reason"] if action == "stop" else capsys.readouterr().out
    [named] = re.findall(r"step 0: the entropy .*: rollouts ([\w, ]+), the first", said)
    kept = pq.read_table(tmp_path / wanted.name / "samples" / "step-00000.parquet")["rollout"].to_pylist()
    assert sorted(kept) == sorted(named.split(", ")) and len(kept) == 3
    assert [line["wire/tripped"] for line in seen.lines] == ([1, 1] if action == "warn" else [1])
    assert (tmp_path / wanted.name / "checkpoints" / "step-1" / "manifest.json").is_file() or action == "warn"


def test_evaluations_state_what_the_controller_leaves_of_the_limit_when_they_are_made(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nothing is right and the floor lies below 0, so the limit of 10 falls by e^-0.5 a step from the second on."""
    budget = {"kind": "controller", "limit": 10, "measure": 1, "within": 1.0, "gain": 1.0, "pace": 0.5, "cut_stop": 1.0}
    evaluation = {"data": ["tiny"], "problems": 2, "samples": 1, "max_tokens": 4, "every": 1}
    wanted = recipe(tiny_checkpoint, stages=["rl", "eval"], budget=budget, eval=evaluation, reward=[{"kind": "verdict"}])
    evaluate, stated = stages.evaluate, []

    def watched(asked, pool, scorer, **arguments):
        stated.append(scorer.template.budget)
        return evaluate(asked, pool, scorer, **arguments)

    monkeypatch.setattr(stages, "evaluate", watched)
    with running(wanted, tmp_path):
        stages.run_recipe(plan(wanted), tmp_path)
    assert stated == [10, 10, 6, 3]
    last = tmp_path / wanted.name / "checkpoints" / "step-3"
    assert left(last) == 3 and left(tmp_path) is None
    (last / MANIFEST).write_text(json.dumps({"meta": {"step": 3}, "files": {}}))
    assert left(last) is None  # of a checkpoint that does not say


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_that_another_process_began_during_the_cold_start_is_left_alone(
    overwrite: bool, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The folder was free when it was asked for first; minutes later it is asked again."""
    wanted = recipe(tiny_checkpoint, train={"steps": 1})
    starting, others = stages.starting_checkpoint, []

    def slow(asked: Recipe) -> Path:
        others.append(Run.create(asked, tmp_path))
        return starting(asked)

    monkeypatch.setattr(stages, "starting_checkpoint", slow)
    with libraries(), pytest.raises(RunError, match="is in use by process"):
        stages.run_recipe(plan(wanted), tmp_path, overwrite=overwrite)
    with others[0] as run:
        assert run.remaining_steps() and (run.folder / "recipe.yaml").is_file()


def test_a_checkpoint_that_fails_beside_the_next_step_stops_the_run_and_is_named(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seal = checkpoint._seal

    def full(folder: Path, meta: dict[str, object]) -> None:
        if meta["step"] == 2:
            raise OSError(28, "No space left on device")
        seal(folder, meta)

    monkeypatch.setattr(checkpoint, "_seal", full)
    for every, last in ((1, False), (2, True)):  # the second one of four, and the last one of two
        wanted = recipe(tiny_checkpoint, name=f"every-{every}", train={"steps": 2 if last else 4, "checkpoint_every": every})
        with running(wanted, tmp_path) as seen, pytest.raises(CheckpointError, match=r"step-2 was not written: .*No space left"):
            stages.run_recipe(plan(wanted), tmp_path)
        assert seen.state == "failed" and 2 <= len(seen.lines) <= 3
        assert [path.name for path in checkpoint.finished(tmp_path / wanted.name / "checkpoints")] == ["step-1"] * (not last)


@pytest.mark.parametrize(
    ("kind", "method", "every", "fails", "kept"),
    [
        (Collector, "next", 1, False, ["step-1"]),  # which is sealed meanwhile
        (Collector, "next", 1, True, ["step-1"]),  # which fails meanwhile, and is written once more
        (Collector, "next", 3, False, ["step-1"]),
        (LearnerRank, "update", 1, False, ["step-1"]),
        (LearnerRank, "update", 3, False, []),  # as only a second stop does: weights are no longer those behind step 1
    ],
)
def test_p28_a_run_that_is_stopped_leaves_its_last_step_whole_or_not_at_all(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type,
    method: str,
    every: int,
    fails: bool,
    kept: list[str],
):
    does, seal, told, failed = getattr(kind, method), checkpoint._seal, Event(), Event()

    def stopped(self: Any, *arguments):
        if told.is_set():
            raise KeyboardInterrupt("SIGTERM")
        told.set()
        return does(self, *arguments)

    def late(*given: object) -> None:
        time.sleep(0.3)
        if fails and not failed.is_set():
            failed.set()
            raise OSError(28, "No space left on device")
        seal(*given)

    monkeypatch.setattr(kind, method, stopped)
    monkeypatch.setattr(checkpoint, "_seal", late)
    wanted = recipe(tiny_checkpoint, train={"checkpoint_every": every})
    with running(wanted, tmp_path) as seen, pytest.raises(KeyboardInterrupt) as ended:
        stages.run_recipe(plan(wanted), tmp_path)
    assert (seen.state, len(seen.lines)) == ("stopped", 1)
    assert any("before could not be written" in note for note in getattr(ended.value, "__notes__", ())) == fails
    found = checkpoint.finished(tmp_path / wanted.name / "checkpoints")
    assert [folder.name for folder in found if checkpoint.whole(folder)] == kept


def losing(monkeypatch: pytest.MonkeyPatch, lost: set[int]) -> list[int]:
    """A learner that is lost in these calls of `update`, which are counted over all learners; the steps that it was asked for."""
    update, asked = Learner.update, []

    def losing_update(self: Learner, updates, step: int):
        asked.append(step)
        if len(asked) in lost:
            raise LearnerLost("learner rank 0 died in update (micro-batch 1)")
        return update(self, updates, step)

    monkeypatch.setattr(Learner, "update", losing_update)
    monkeypatch.setattr(Learner, "restore", lambda self, folder: None)  # the stand-in keeps no weights
    return asked


def test_p26_a_lost_learner_is_a_stage_that_goes_on_from_its_last_checkpoint(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    asked = losing(monkeypatch, {1, 3, 8})
    save, saved = Learner.save, []

    def losing_save(self: Learner, folder: Path):
        saved.append(folder)
        if len(saved) == 1:  # behind its fifth update, and the third loss without a checkpoint
            raise LearnerLost("learner rank 0 died in save")
        save(self, folder)

    monkeypatch.setattr(Learner, "save", losing_save)
    wanted = recipe(tiny_checkpoint, train={"steps": 4, "checkpoint_every": 2, "samples_per_step": 100})
    with running(wanted, tmp_path) as seen:
        stages.run_recipe(plan(wanted), tmp_path)
    assert asked == [0, 0, 1, 0, 1, 0, 1, 2, 2, 3]
    assert [line["learner/restarts"] for line in seen.lines] == [3, 3, 4, 4]
    assert (seen.state, len(seen.samples)) == ("finished", 4)
    for before, after in pairwise(seen.lines):
        assert after["time"] - before["time"] >= after["seconds/step"]  # of the processes before it, too
    assert "step 1: learner rank 0 died in update (micro-batch 1). The stage goes on from step 0" in caplog.text


def test_p26_a_learner_that_is_lost_four_times_without_a_checkpoint_in_between_ends_the_run(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = losing(monkeypatch, {2, 3, 4, 5})
    wanted = recipe(tiny_checkpoint, train={"steps": 4, "checkpoint_every": 1, "samples_per_step": 100})
    with running(wanted, tmp_path) as seen, pytest.raises(LearnerLost, match="step 1: learner rank 0 died"):
        stages.run_recipe(plan(wanted), tmp_path)
    assert asked == [0, 1, 1, 1, 1]
    assert seen.state == "failed"


def test_p26_the_stages_before_the_last_count_their_losses_by_their_own_checkpoints(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = losing(monkeypatch, {2, 3, 5, 6, 8, 10})
    wanted = recipe(tiny_checkpoint, stages=[{"kind": "rl", "name": "first"}, "rl"], train={"steps": 3, "checkpoint_every": 1})
    with running(wanted, tmp_path) as seen:
        stages.run_recipe(plan(wanted), tmp_path)
    lines = (tmp_path / wanted.name / "stages" / "first" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["learner/restarts"] for line in lines] == [0, 2, 4]
    assert asked == [0, 1, 1, 1, 2, 2, 2, 0, 0, 1, 1, 2]
    assert (seen.state, [line["learner/restarts"] for line in seen.lines]) == ("finished", [1, 2, 2])


@pytest.mark.parametrize(
    ("stages", "every", "steps", "said"),
    [
        ("[rl]", 2, [2, 4, 6], "every 2 steps"),
        ("[rl]", 4, [4], "every 4 steps"),
        ("[rl, eval]", 2, [2, 4], "before and after training, and every 2 steps"),  # the eval stage takes the first and the last
        ("[rl, eval]", 0, [], "before and after training"),
        ("[rl, eval]", 6, [], "before and after training"),
        ("[rl]", 7, [], "never: eval.every is more than train.steps"),
    ],
)
def test_the_last_step_is_evaluated_once_and_plan_says_when(stages: str, every: int, steps: list[int], said: str):
    wanted = load("quickstart", None, [f"stages={stages}", f"eval.every={every}", "train.steps=6", "device=cpu"])
    assert list(evaluated_after(wanted)) == steps
    [line] = [line for line in explain(plan(wanted)).splitlines() if line.startswith("eval  ")]
    assert line.endswith(f", {said}")
