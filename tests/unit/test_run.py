"""The run folder: what is recorded, what is refused, how a run ends, and what a resumed run forgets."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import types
from copy import deepcopy

import numpy as np
import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from evaluation import words
from launch import head
from launch.plan import plan
from launch.stages import run_recipe
from recipes.loader import load, recipe_hash
from recipes.schema import Recipe
from rewards.verifier.verdict import Verdict
from rl import checkpoint
from rl.run import Run, RunError, no_effect, refuse_unusable
from rl.samples import pick_samples
from rollout.locks import NoLocks
from rollout.types import Completion, Group, Problem, Request, Rollout, rollout_id

TAUGHT = {"accuracy": 0.5, "groups/trained": 3, "advantage/max": 1.0, "publish/changed": 0.5}


def recipe(**changes) -> Recipe:
    return Recipe.model_validate({"name": "a", "train": {"steps": 4}} | changes)


def group(problem: str, outcomes: list[tuple[int, str, str]]) -> Group:
    """Rollouts of (tokens, finish, verdict)."""
    request = Request(problem, Problem(problem, "1+1?", "2"), (1, 2), len(outcomes), 128, 1.0, 1.0, 0)
    rollouts = []
    for j, (tokens, finish, verdict) in enumerate(outcomes):
        completion = Completion(np.arange(tokens, dtype=np.int32), np.zeros(tokens, np.float32), finish, np.zeros(tokens, np.int32))
        rollouts.append(Rollout(rollout_id(problem, (1, 2), j), j, completion, "text", None, Verdict(verdict, "integer")))
    return Group(request, rollouts)


GROUPS = [
    group("p", [(10, "stop", "right"), (30, "stop", "right"), (128, "length", "wrong"), (20, "stop", "wrong")]),
    group("q", [(40, "stop", "not_judged"), (5, "stop", "wrong"), (50, "stop", "right"), (128, "length", "wrong")]),
]


def status(run: Run) -> dict:
    return json.loads((run.folder / "status.json").read_text())


def record(run: Run, upto: int) -> None:
    for step in range(run.step, upto):
        run.record(step, TAUGHT, GROUPS)


def test_a_new_run_leaves_the_files_of_the_architecture_page(tmp_path):
    wanted = recipe()
    with Run.create(wanted, tmp_path, resume=False) as run:
        assert status(run) == {"state": "running", "reason": "", "step": 0}
        for step in run.remaining_steps():
            run.record(step, TAUGHT | {"time": np.float32(1.5), "length/right": None}, GROUPS)
    assert recipe_hash(load(str(run.folder / "recipe.yaml"))) == recipe_hash(wanted)
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["recipe_hash"] == recipe_hash(wanted) and environment["seed"] == 0
    assert environment["packages"]["torch"] and environment["python"].startswith("3.") and environment["memory_bytes"] > 1e8
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert lines[0]["time"] == 1.5 and lines[0]["length/right"] is None
    assert pq.read_table(run.folder / "samples/step-00003.parquet")["step"].to_pylist() == [3] * 8
    assert list((run.folder / "tensorboard").glob("events.*"))
    assert status(run) == {"state": "finished", "reason": "", "step": 4}
    assert {path.name for path in run.folder.iterdir()} == {
        "recipe.yaml", "environment.json", "metrics.jsonl", "tensorboard", "samples", "checkpoints", "evals", "status.json", "lock",
    }  # fmt: skip


def test_a_folder_that_exists_is_never_taken_over(tmp_path):
    Run.create(recipe(), tmp_path, resume=False)
    with pytest.raises(RunError, match=r"a exists already: go on with it \(--resume\), replace it \(--overwrite\) or choose another name"):
        Run.create(recipe(), tmp_path, resume=False)


@pytest.mark.parametrize("runs", ["/proc/nope", "file", "file/below", "n" * 300])
def test_a_folder_that_cannot_be_made_is_refused_before_anything_starts(tmp_path, runs):
    (tmp_path / "file").write_text("not a folder")
    for attempt in (refuse_unusable, Run.create):
        with pytest.raises(RunError, match=r"a: nothing can be written in .*; choose another folder \(--runs\)"):
            attempt(recipe(), tmp_path / runs)
    refuse_unusable(recipe(), tmp_path / "new" / "and" / "deep")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # nothing is left of the asking


def test_overwrite_replaces_a_run_and_nothing_else(tmp_path):
    Run.create(recipe(), tmp_path)
    (tmp_path / "a" / "old").touch()
    Run.create(recipe(), tmp_path, overwrite=True)
    assert not (tmp_path / "a" / "old").exists()
    (tmp_path / "a" / "recipe.yaml").unlink()
    with pytest.raises(RunError, match=r"a holds no recipe\.yaml, so it is no run and is not replaced"):
        Run.create(recipe(), tmp_path, overwrite=True)
    assert (tmp_path / "a" / "metrics.jsonl").exists()


def test_overwrite_never_removes_the_model_it_would_start_from(tmp_path):
    run = Run.create(recipe(), tmp_path)
    start = run.folder / "checkpoints" / "step-2"
    start.mkdir()
    killed(run)
    with pytest.raises(RunError, match="step-2 lies in the run that --overwrite would remove"):
        Run.create(recipe(model={"path": str(start)}), tmp_path, overwrite=True)
    assert start.is_dir()


def test_a_full_disk_does_not_hide_the_error_that_ended_the_run(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(RuntimeError, match="the checkpoint's own words"), Run.create(recipe(), tmp_path):
        monkeypatch.setattr("rl.run._write", full)
        raise RuntimeError("the checkpoint's own words")


def test_resume_needs_the_same_run_and_names_the_keys_that_differ(tmp_path):
    with pytest.raises(RunError, match="no such run to resume; leave out --resume"):
        Run.create(recipe(), tmp_path, resume=True)
    Run.create(recipe(), tmp_path, resume=False)
    other = recipe(seed=7, sampler={"prompts": 16})
    with pytest.raises(
        RunError, match=r"another recipe: sampler.prompts \(was 32, now 16\), seed \(was 0, now 7\)\. Resume with .*recipe.yaml"
    ):
        Run.create(other, tmp_path, resume=True)
    (tmp_path / "a" / "recipe.yaml").unlink()
    with pytest.raises(RunError, match=r"holds no recipe\.yaml"):
        Run.create(recipe(), tmp_path, resume=True)


def killed(run: Run) -> None:
    """What the kernel does for a process that is gone."""
    run._lock.close()


def test_a_file_system_that_refuses_locks_is_named_and_no_other_process_is_blamed(tmp_path, monkeypatch):
    Run.create(recipe(), tmp_path)._lock.close()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")  # as NFS 3 without a lock daemon

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(
        NoLocks, match=r"/a: its file system refuses locks \(No locks available\).*local_lock=flock.* or choose another folder"
    ):
        refuse_unusable(recipe(), tmp_path, resume=True)
    with pytest.raises(NoLocks):
        Run.create(recipe(name="b"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]  # nothing that a mended mount would find in its way
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path / "cache"))
    with pytest.raises(NoLocks, match=r"or choose another folder \(LACONIC_CACHE\)"), head._alone():
        raise AssertionError


@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}, {}])
def test_a_run_that_another_process_writes_to_is_left_alone(tmp_path, how):
    held = Run.create(recipe(), tmp_path)
    record(held, 2)
    before = (held.folder / "metrics.jsonl").read_bytes()
    for attempt in (refuse_unusable, Run.create):
        with pytest.raises(RunError, match=f"in use by process {os.getpid()}: wait for it or stop it"):
            attempt(recipe(), tmp_path, **how)
    assert (held.folder / "metrics.jsonl").read_bytes() == before
    with held:
        record(held, 3)
    Run.create(recipe(), tmp_path, overwrite=True)


def test_a_run_is_let_go_by_a_process_that_dies_whatever_its_children_do(tmp_path):
    code = (
        "import os, subprocess, sys; from pathlib import Path; from recipes.schema import Recipe; from rl.run import Run\n"
        f"run = Run.create(Recipe.model_validate({recipe().model_dump(mode='json')!r}), Path({str(tmp_path)!r}))\n"
        "child = subprocess.Popen(['sleep', '600'], stdout=-3, stderr=-3); print(child.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    try:
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert Run.create(recipe(), tmp_path, resume=True).checkpoint is None
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)


def test_a_finished_run_is_not_resumed(tmp_path):
    tmp_path /= "it's mine"
    with Run.create(recipe(), tmp_path) as run:
        record(run, 4)
    before = (run.folder / "status.json").read_bytes()
    with pytest.raises(RunError, match=r"is finished, nothing is left to resume: look at it with `laconic report '/.*'\"'\"'s "):
        Run.create(recipe(), tmp_path, resume=True)
    assert (run.folder / "status.json").read_bytes() == before


def test_samples_and_a_resumed_run_know_the_template_that_made_them(tmp_path):
    run = Run.create(recipe(), tmp_path, template="old")
    record(run, 1)
    killed(run)
    assert pq.read_schema(run.folder / "samples/step-00000.parquet").metadata[b"template"] == b"old"
    with pytest.raises(RunError, match="was sampled with chat template and tokenizer old, the model now has new"):
        Run.create(recipe(), tmp_path, resume=True, template="new")
    assert Run.create(recipe(), tmp_path, resume=True, template="old").step == 0


def test_a_resumed_run_goes_on_at_its_checkpoint_and_forgets_what_came_after(tmp_path):
    run = Run.create(recipe(), tmp_path, resume=False)
    record(run, 2)
    before = (run.folder / "metrics.jsonl").read_bytes()
    checkpoint.write(run.folder / "checkpoints/step-2", lambda folder: (folder / "w").write_bytes(b"w"), {"step": 2})
    record(run, 3)
    with open(run.folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "accu')  # killed in the middle of a line
    killed(run)
    evals = run.folder / "evals"
    for name in ("step-0.json", "step-2.json", "step-2-aime@forced-9.parquet", "step-20.json", "step-3.json", "step-3-step-1.parquet"):
        (evals / name).touch()
    for name in ("step-2.parts", "step-3.parts", "step-3@forced-9.parts"):
        (evals / name).mkdir()
        (evals / name / "part-00000.parquet").touch()
    resumed = Run.create(recipe(), tmp_path, resume=True)
    assert resumed.checkpoint == run.folder / "checkpoints/step-2"
    assert (run.folder / "samples/step-00002.parquet").exists(), "nothing is forgotten before the checkpoint was restored"
    with resumed:
        resumed.truncate_to(2)
        assert (run.folder / "metrics.jsonl").read_bytes() == before
        assert sorted(path.name for path in (run.folder / "samples").iterdir()) == ["step-00000.parquet", "step-00001.parquet"]
        assert sorted(path.name for path in evals.iterdir()) == [
            *("step-0.json", "step-2-aime@forced-9.parquet", "step-2.json", "step-2.parts"),
        ], "steps 3 and on are made once more, and by another policy perhaps"
        assert list(resumed.remaining_steps()) == [2, 3]
        record(resumed, 4)
    assert [row["step"] for row in resumed.metrics()] == [0, 1, 2, 3]
    assert len(json.loads((run.folder / "environment.json").read_text())["resumed"]) == 1


def test_a_run_killed_before_its_first_checkpoint_starts_over(tmp_path):
    run = Run.create(recipe(), tmp_path, resume=False)
    record(run, 1)
    killed(run)
    resumed = Run.create(recipe(), tmp_path, resume=True)
    assert resumed.checkpoint is None
    resumed.truncate_to(0)
    assert resumed.metrics() == [] and list(resumed.remaining_steps()) == [0, 1, 2, 3]


def test_a_record_with_a_hole_before_the_checkpoint_is_an_error_with_its_line(tmp_path):
    run = Run.create(recipe(), tmp_path, resume=False)
    record(run, 3)
    path = run.folder / "metrics.jsonl"
    path.write_text(path.read_text().replace('"step": 1', '"step": 5'))
    whole = path.read_text()
    with pytest.raises(RunError, match=r"metrics.jsonl:2: step 1 is missing or cannot be read"):
        run.truncate_to(3)
    assert path.read_text() == whole and len(list((run.folder / "samples").iterdir())) == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan"), "0.5"])
def test_a_metric_that_is_no_finite_number_is_named_and_its_samples_are_kept(tmp_path, value):
    run = Run.create(recipe(), tmp_path, resume=False)
    with pytest.raises(ValueError, match=r"step 0: metric kl is .*samples/step-00000.parquet"):
        run.record(0, {"kl": value}, GROUPS)
    assert run.metrics() == [] and (run.folder / "samples/step-00000.parquet").exists()


def test_a_step_is_recorded_once_and_in_order(tmp_path):
    run = Run.create(recipe(), tmp_path, resume=False)
    record(run, 1)
    for step in (0, 2):
        with pytest.raises(ValueError, match=f"step {step} recorded where step 1 was expected"):
            run.record(step, TAUGHT)


def test_the_way_a_run_is_left_is_its_status(tmp_path):
    with pytest.raises(RuntimeError) as failed, Run.create(recipe(name="f"), tmp_path, resume=False) as run:
        record(run, 2)
        raise RuntimeError("engine 0 is gone")
    assert status(run) == {"state": "failed", "reason": "RuntimeError: engine 0 is gone", "step": 2}
    assert failed.value.__notes__ == ["No checkpoint stood yet: `--resume` does these steps again."]

    with pytest.raises(RuntimeError) as failed, Run.create(recipe(name="c"), tmp_path, resume=False) as run:
        record(run, 2)
        run.stands(run.folder / "checkpoints/step-1")
        raise RuntimeError("engine 0 is gone")
    assert failed.value.__notes__ == ["What is recorded stays; `--resume` goes on from the last checkpoint."]

    with pytest.raises(KeyboardInterrupt), Run.create(recipe(name="s"), tmp_path, resume=False) as run:
        record(run, 1)
        raise KeyboardInterrupt("SIGTERM")
    assert status(run) == {"state": "stopped", "reason": "SIGTERM after 1 of 4 steps", "step": 1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"groups/trained": 0}, "in none of 4 steps a group was left"),
        ({"selected": 0.0, "advantage/max": 0.0}, "all that were chosen were cut, which budget.cut: mask keeps out"),
        ({"selected": 0.125, "advantage/max": 0.0}, "that train earned the same, or credit had nothing to compare"),
        ({"advantage/max": 0.0}, "an advantage was other than 0"),
        ({"publish/changed": 0.0}, "weights moved"),
    ],
)
def test_a_run_that_taught_nothing_says_so(tmp_path, changes, words):
    with Run.create(recipe(), tmp_path, resume=False) as run:
        for step in run.remaining_steps():
            run.record(step, TAUGHT | changes)
    assert status(run)["state"] == "no-effective-update" and words in status(run)["reason"]


def test_one_step_that_taught_is_enough_and_no_step_is_no_verdict():
    still, flat = TAUGHT | {"publish/changed": 0.0}, TAUGHT | {"advantage/max": 0.0}
    assert no_effect([TAUGHT | {"groups/trained": 0}, TAUGHT, still]) == ""
    assert "weights moved" in no_effect([flat, still])  # one trained on nothing, the other's updates were lost
    assert no_effect([]) == ""


def test_a_logger_that_raises_is_warned_of_once_and_stops_nothing(tmp_path, monkeypatch, caplog):
    class Broken(Exception):
        pass

    def fail(**_):
        raise Broken("no network")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=fail))
    monkeypatch.setattr(
        "torch.utils.tensorboard.SummaryWriter.add_scalar", lambda *_: (_ for _ in ()).throw(OSError("No space left on device"))
    )
    with caplog.at_level(logging.WARNING), Run.create(recipe(wandb="project"), tmp_path, resume=False) as run:
        record(run, 4)
    assert len(run.metrics()) == 4 and status(run)["state"] == "finished"
    assert [text for text in ("WandB failed", "TensorBoard failed") if caplog.text.count(text) == 1] == [
        "WandB failed",
        "TensorBoard failed",
    ]


def test_a_job_that_was_taken_away_at_its_very_end_has_nothing_left_to_do(tmp_path):
    words = ["name=a", "device=cpu", "cluster={kind: apart, preemptible: true}"]
    made, other = (plan(load("quickstart", overrides=[*words, *more])) for more in ([], ["seed=1"]))
    with Run.create(made.recipe, tmp_path):
        pass
    assert run_recipe(made, tmp_path, resume=True) == tmp_path / "a"
    with pytest.raises(RunError, match="was started with another recipe: seed"):
        run_recipe(other, tmp_path, resume=True)


def test_a_job_that_was_taken_away_before_there_was_a_run_begins_it(tmp_path, monkeypatch):
    asked: list[bool] = []
    monkeypatch.setattr("launch.stages.refuse_unusable", lambda recipe, runs, resume, overwrite: asked.append(resume) or 1 / 0)
    for cluster in [], ["cluster={kind: apart, preemptible: true}"]:
        with pytest.raises(ZeroDivisionError):
            run_recipe(plan(load("quickstart", overrides=["name=a", "device=cpu", *cluster])), tmp_path, resume=True)
    assert asked == [True, False]


def test_a_full_disk_is_said_with_the_folder_and_a_remedy(tmp_path):
    with pytest.raises(OSError) as caught, Run.create(recipe(), tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [note for note in caught.value.__notes__ if note.startswith(f"{tmp_path}/a: the disk took no more; free some")]


def test_steps_that_are_done_again_in_the_same_process_are_logged_once(tmp_path, monkeypatch):
    sessions: list[dict[int, float]] = []

    def init(**options):
        sessions.append({})
        return types.SimpleNamespace(log=lambda values, step: sessions[-1].update({step: values["accuracy"]}), finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    with Run.create(recipe(wandb="laconic", train={"steps": 3}), tmp_path) as run:
        for step in range(2):
            run.record(step, TAUGHT | {"accuracy": 0.25})
        run.go_back()  # a learner was lost before the first checkpoint
        run.truncate_to(0)
        for step in range(3):
            run.record(step, TAUGHT | {"accuracy": 0.5})
    assert sessions == [{0: 0.25, 1: 0.25}, {0: 0.5, 1: 0.5, 2: 0.5}]
    events = EventAccumulator(str(tmp_path / "a/tensorboard")).Reload().Scalars("accuracy")
    assert [(event.step, event.value) for event in events] == [(0, 0.5), (1, 0.5), (2, 0.5)]


def test_wandb_holds_the_numbers_of_the_run_that_counts_after_a_resume(tmp_path, monkeypatch):
    sessions = []

    def init(**options):
        kept = {}

        def log(values, step):
            assert step > max(kept, default=-1), "W&B drops a step that is not later than the last"
            assert None not in values.values() and "step" not in values
            kept[step] = values["accuracy"]

        sessions.append((options, kept))
        return types.SimpleNamespace(log=log, finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    with pytest.raises(KeyboardInterrupt), Run.create(recipe(wandb="laconic"), tmp_path, resume=False) as run:
        for step in range(4):
            run.record(step, TAUGHT | {"accuracy": 0.1 * step, "kl": None})
        raise KeyboardInterrupt
    with Run.create(recipe(wandb="laconic"), tmp_path, resume=True) as run:
        run.truncate_to(2)  # steps 2 and 3 were after the last checkpoint, and come out otherwise
        run.record(2, TAUGHT | {"accuracy": 0.9})
    (first, killed), (second, counts) = sessions
    assert (killed[2], counts) == (pytest.approx(0.2), {0: 0.0, 1: 0.1, 2: 0.9})
    assert first["id"] != second["id"] and first["group"] == second["group"] == "a" and second["name"] == "a, resumed at 2"


def test_wandb_gets_the_numbers_of_metrics_jsonl(tmp_path, monkeypatch):
    calls = []
    session = types.SimpleNamespace(log=lambda values, step: calls.append((step, values)), finish=lambda: calls.append("finished"))
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **options: calls.append(options) or session))
    with Run.create(recipe(wandb="laconic"), tmp_path, resume=False) as run:
        run.record(0, TAUGHT | {"kl": None})
    assert calls[0]["project"] == "laconic" and calls[0]["id"].startswith("a-2") and "resume" not in calls[0]
    assert calls[1:] == [(0, TAUGHT), "finished"]


def picked(count: int, groups=GROUPS) -> set[tuple[str, int]]:
    return {(g.problem.id, r.sample) for g in pick_samples(groups, count) for r in g.rollouts}


def test_samples_are_picked_by_rule():
    assert picked(1) == {("q", 1)}  # shortest
    assert len(picked(2) & {("p", 2), ("q", 3)}) == 1  # longest: both have 128 tokens
    six = [r for g in pick_samples(GROUPS, 6) for r in g.rollouts]
    assert any(r.right for r in six)
    assert any(r.verdict.status == "wrong" and r.completion.finish == "stop" and r.tokens != 5 for r in six)
    assert sum(r.completion.finish == "length" for r in six) == 2  # the longest, and another for the rule "cut"
    assert any(r.verdict.status == "not_judged" for r in six)
    cut = group("p", [(9 - sample, "length", "wrong") for sample in range(8)] + [(5, "stop", "wrong")])
    assert ("p", 8) in picked(3, [cut])  # the one that ends, behind the shortest and the longest
    assert len(picked(8)) == len(picked(100)) == 8
    assert picked(0) == picked(5, []) == set()


def test_a_rollout_that_a_second_checker_judges_otherwise_is_kept_first():
    groups = deepcopy(GROUPS)
    for rollout, said in zip(groups[0].rollouts, ("right", "wrong", None, "wrong"), strict=True):
        rollout.audit = said
    assert picked(1, groups) == {("p", 1)}  # right, 30 tokens: no other rule would take it
    assert picked(2, groups) == {("p", 1), ("q", 1)}


def test_rollouts_that_are_named_are_kept_first_and_beyond_the_count():
    said = f"wires: rollouts {GROUPS[0].rollouts[1].id}, {GROUPS[1].rollouts[2].id}"
    for count in (0, 1, 2):
        kept = {(g.problem.id, r.sample) for g in pick_samples(GROUPS, count, said) for r in g.rollouts}
        assert kept == {("p", 1), ("q", 2)}
    assert len([r for g in pick_samples(GROUPS, 5, said) for r in g.rollouts]) == 5


def test_the_pick_does_not_depend_on_the_order_groups_arrive_in_and_changes_nothing():
    for count in range(9):
        assert picked(count) == picked(count, GROUPS[::-1])
    assert [len(g.rollouts) for g in GROUPS] == [4, 4]


def test_the_best_checkpoints_are_those_of_highest_held_out_accuracy_then_of_fewest_tokens_and_survive_pruning(tmp_path):
    found = {
        "step-1": (0.5, 90.0),
        "step-2": (0.7, 80.0),
        "step-3": (0.7, 60.0),
        "step-4": None,
        "step-5": (0.7, 60.0),
        "step-6": (0.1, 1.0),
    }
    with Run.create(recipe(train={"steps": 9, "keep_best": 2, "keep_checkpoints": 1}), tmp_path) as run:
        for name, scores in found.items():
            if scores:
                (run.folder / "evals" / f"{name}.json").write_text(
                    json.dumps({"accuracy": {"mean": scores[0]}, "tokens": {"mean": scores[1]}})
                )
            folder = checkpoint.write(run.folder / "checkpoints" / name, lambda folder: None, {"step": int(name[5:])})
            checkpoint.prune(folder, 1, run.best())
        run.status("running")
        assert status(run)["best"] == ["step-5", "step-3"]
    assert [folder.name for folder in checkpoint.finished(run.folder / "checkpoints")] == ["step-3", "step-5", "step-6"]
    run.status("stopped")
    with Run.create(run.recipe, tmp_path, resume=True) as again:  # of what lies there, and nothing that a process remembers
        assert [folder.name for folder in again.best()] == ["step-5", "step-3"]
        for none in (
            '{"accuracy": {"mean": null}}',
            '{"accuracy": {"mean": NaN}, "tokens": {"mean": 1}}',
            '{"accuracy": {"mean": 0.7}, "tokens": {"mean": null}}',
        ):
            (run.folder / "evals" / "step-5.json").write_text(none)
            assert [folder.name for folder in again.best()] == ["step-3", "step-6"]
    shown = words.status(types.SimpleNamespace(status={"state": "finished", "step": 9, "best": ["step-5", "step-3"]}))[1]
    assert shown == "The run finished at step 9. Best of its checkpoints on held-out problems, and kept, in this order: step-5, step-3."
    assert words.status(types.SimpleNamespace(status={"state": "finished", "best": []}))[1] == "The run finished."
