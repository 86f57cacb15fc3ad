"""Several stages in one run, in this process on stand-ins for Ray and DeepSpeed (tests/inprocess): what each finds, and what is not done again."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from evaluation.entries import by_source, read_entries
from evaluation.report import report
from launch import stages
from launch.evaluate import Question, jobs
from launch.plan import plan
from recipes.schema import Recipe
from rewards.rows import DataError
from rewards.verifier.verdict import Verdict
from rl import checkpoint
from rl.learner import Learner
from rl.run import RunError
from tests.inprocess import libraries
from tests.unit.test_loop import recipe

FIRST = {"kind": "rl", "name": "phase_1", "changes": {"train.steps": 2, "budget.limit": 6}}
EVAL = {"data": ["tiny"], "problems": 2, "samples": 1, "max_tokens": 4}


def two_phases(start: Path, *behind: Any, **changes: Any) -> Recipe:
    return recipe(start, stages=[FIRST, "eval", "rl", "eval", *behind], eval=EVAL, learner={"lr": 0.01}, **changes)


def run(wanted: Recipe, runs: Path, resume: bool = False) -> Path:
    with libraries():
        return stages.run_recipe(plan(wanted), runs, resume=resume)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def position(folder: Path) -> int:
    return int(checkpoint.metadata(folder)["state"]["stream"]["position"])


@pytest.fixture(scope="module")
def finished(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(two_phases(tiny_checkpoint, "merge", {"kind": "eval", "name": "merged"}), tmp_path_factory.mktemp("runs"))


def test_every_phase_is_a_record_of_its_own_with_its_own_limit_and_steps(finished: Path):
    first = finished / "stages" / "phase_1"
    assert [line["limit"] for line in lines(first)] == [6, 6] and [line["limit"] for line in lines(finished)] == [4, 4, 4]
    assert sorted(path.name for path in (first / "evals").glob("*.json")) == ["step-0.json", "step-2.json"]
    assert sorted(path.name for path in (finished / "evals").glob("*.json")) == ["step-0.json", "step-3.json"]
    assert "<td>Stages</td><td>phase_1 (rl) → eval</td>" in report([first]).read_text() and report([finished]).is_file()


def test_a_phase_starts_from_the_checkpoint_of_the_one_before_and_goes_on_in_the_data(finished: Path):
    last = finished / "stages" / "phase_1" / "checkpoints" / "step-2"
    scores = json.loads((finished / "evals" / "step-0.json").read_text())
    assert scores["checkpoint"] == str(last)
    assert (position(last), position(finished / "checkpoints" / "step-3")) == (4, 10)  # two prompts a step


def test_the_merged_model_is_evaluated_in_a_folder_of_its_own(finished: Path):
    scores = json.loads((finished / "stages" / "merged" / "evals" / "step-0.json").read_text())
    assert scores["checkpoint"] == str(finished / "stages" / "merge" / "checkpoint")
    assert checkpoint.metadata(finished / "stages" / "merge" / "checkpoint")["merge"]["base"].endswith("phase_1/checkpoints/step-2")


def test_the_first_evaluation_of_a_run_is_compared_with_the_last_whichever_stage_made_them(finished: Path):
    [[before, after]] = by_source(read_entries([finished])).values()
    assert (before.label, after.label, before.evaluation.source) == ("before", "after", "tiny")
    assert after.evaluation.checkpoint.endswith("stages/merge/checkpoint") and before.evaluation.step == 0


def test_evaluations_behind_merge_and_sft_state_what_the_last_rl_stage_left(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nothing is right and the floor lies below 0, so from 10, the limit of that stage alone, a controller goes down by e^-0.5 a step from the second on."""
    moving = {"kind": "controller", "limit": 10, "measure": 1, "within": 1.0, "gain": 1.0, "pace": 0.5, "cut_stop": 1.0}
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"prompt": "1 + 1", "completion": "2"}))
    wanted = recipe(
        tiny_checkpoint,
        stages=[
            *({"kind": "eval", "name": "before"}, {"kind": "rl", "name": "first", "changes": {"budget": moving}}, "eval", "merge"),
            *({"kind": "sft", "data": str(data), "batch": 1, "changes": {"budget.limit": 9}}, {"kind": "eval", "name": "behind"}),
            {"kind": "eval", "name": "own", "changes": {"budget": {"limit": 11}}},
        ],
        reward=[{"kind": "verdict"}],
        eval=EVAL,
        judge={"wall_s": 4},
    )
    evaluate, stated = stages.evaluate, []

    def watched(asked: Any, pool: Any, scorer: Any, **arguments: Any) -> Any:
        stated.append(scorer.template.budget)
        return evaluate(asked, pool, scorer, **arguments)

    monkeypatch.setattr(stages, "evaluate", watched)
    folder = run(wanted, tmp_path)
    assert stated == [4, 10, 3, 3, 11]
    made = {name: folder / "stages" / name / "checkpoint" for name in ("merge", "sft")}
    where = {str(path): tmp_path / name for name, path in ({"rl": folder / "checkpoints" / "step-3"} | made).items()}
    for words, expected in ([], 3), (["budget.limit=11"], 11), (["budget={limit: 12}"], 12), (["eval.samples=2"], 3):
        with jobs(where, Question(words)) as (_, ready):
            assert [job.template.budget for job in ready] == [expected] * 3
    with jobs({str(tiny_checkpoint): tmp_path / "tiny"}, Question(["budget.limit=11"])) as (_, [job]):
        assert job.template.budget == 11  # of no run
    where[str(tiny_checkpoint)] = tmp_path / "tiny"
    with pytest.raises(ValueError, match=r"judge.wall_s=3 .*; say one for all \(`judge.wall_s=\d"), jobs(where, Question([])):
        pass
    with jobs(where, Question(["judge.wall_s=3"])) as (_, ready):
        assert len(ready) == 4


def test_what_a_launcher_says_of_its_own_processes_stops_no_stage(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As torchrun, accelerate and mpirun set them: TRL's trainers would meet three others, DeepSpeed would find another rank."""
    torchrun = {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "3",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "29500",
    }
    others = {"ACCELERATE_USE_FSDP": "true", "ACCELERATE_TORCH_DEVICE": "cuda", "OMPI_COMM_WORLD_LOCAL_RANK": "3", "PMI_SIZE": "4"}
    for name, value in (torchrun | others).items():
        monkeypatch.setenv(name, value)
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"prompt": "1 + 1", "completion": "2"}))
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # says which job it is, and no library asks for it
    folder = run(recipe(tiny_checkpoint, stages=[{"kind": "sft", "data": str(data), "batch": 1}]), tmp_path)
    assert checkpoint.whole(folder / "stages" / "sft" / "checkpoint")
    assert {*torchrun, *others, "SLURM_JOB_ID"} & os.environ.keys() == {"SLURM_JOB_ID"}


def killed_in_the_second_phase(wanted: Recipe, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run, stopped in its second phase's first update."""
    update, calls = Learner.update, []

    def dying(self: Learner, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return update(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", dying)
        with pytest.raises(KeyboardInterrupt):
            run(wanted, runs)
    return runs / wanted.name


def test_a_phase_that_is_finished_is_not_done_again(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wanted = two_phases(tiny_checkpoint)
    folder = killed_in_the_second_phase(wanted, tmp_path, monkeypatch)
    before = lines(folder / "stages" / "phase_1")
    assert run(wanted, tmp_path, resume=True) == folder
    assert lines(folder / "stages" / "phase_1") == before and len(lines(folder)) == 3
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"


def test_a_phase_whose_checkpoint_is_gone_is_an_error_that_says_so(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wanted = two_phases(tiny_checkpoint)
    folder = killed_in_the_second_phase(wanted, tmp_path, monkeypatch)
    shutil.rmtree(folder / "stages" / "phase_1" / "checkpoints" / "step-2")
    with pytest.raises(RunError, match=r"stages\[0\] \(phase_1\): .*phase_1 is finished and its last checkpoint, step-2, is gone"):
        run(wanted, tmp_path, resume=True)


def test_a_stages_folder_that_was_not_finished_is_made_anew(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wanted = two_phases(tiny_checkpoint)
    folder = killed_in_the_second_phase(wanted, tmp_path, monkeypatch)
    (folder / "stages" / "phase_1" / "recipe.yaml").unlink()  # the last thing that is written when a record is begun
    (folder / "stages" / "phase_1" / "status.json").unlink()
    run(wanted, tmp_path, resume=True)
    assert len(lines(folder / "stages" / "phase_1")) == 2 and len(lines(folder)) == 3


def test_another_change_of_a_stage_is_another_recipe(finished: Path, tiny_checkpoint: Path):
    other = two_phases(tiny_checkpoint).model_copy(update={"name": finished.name})
    with pytest.raises(RunError, match="was started with another recipe: stages"):
        run(other, finished.parent, resume=True)


def test_a_stage_that_finds_nothing_to_learn_from_says_what_there_is(tiny_checkpoint: Path, tmp_path: Path):
    """A random model answers nothing."""
    wanted = recipe(tiny_checkpoint, stages=[{"kind": "reference", "problems": 3, "samples": 2}, "dpo"])
    with pytest.raises(ValueError, match="the reference stage sampled 3 problems: 0 have a right answer, 3 a wrong one"):
        run(wanted, tmp_path)
    status = json.loads((tmp_path / wanted.name / "status.json").read_text())
    assert status["state"] == "failed" and "there is no pair" in status["reason"]


def test_a_reference_of_which_nothing_was_judged_says_so(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    nothing: Future[Verdict] = Future()
    nothing.set_result(Verdict("not_judged", "timeout"))
    monkeypatch.setattr("rewards.verifier.judge.Judge.submit", lambda *_, **__: nothing)
    wanted = recipe(tiny_checkpoint, stages=[{"kind": "reference", "problems": 3, "samples": 2}, "sft"])
    with pytest.raises(ValueError, match="sampled 3 problems, and not one rollout could be judged"):
        run(wanted, tmp_path)
    said = capsys.readouterr().out
    assert "of 3 of 3 problems not one rollout could be judged" in said and "0 problems: accuracy" not in said


def test_a_reference_behind_an_rl_stage_samples_the_problems_that_the_next_one_trains_on(tiny_checkpoint: Path, tmp_path: Path):
    every, next_ones = ({"kind": "reference", "name": name, "samples": 2} for name in ("every", "next"))
    folder = run(recipe(tiny_checkpoint, stages=[every | {"problems": 10}, FIRST, next_ones, "rl"]), tmp_path)
    ids = [
        [row["problem_id"] for path in sorted((folder / "stages" / name).glob("*.parquet")) for row in pq.read_table(path).to_pylist()[::2]]
        for name in ("every", "next")
    ]
    assert len(ids[0]) == 10 and sorted(ids[1]) == sorted(ids[0][4:])  # phase_1 draws four, and three steps of two are left


@pytest.mark.parametrize(
    ("rows", "changes", "words"),
    [
        ([{"prompt": "1 + 1", "completion": "Zebra"}] * 2, {}, "none of 2 answers can be learned by this model"),
        ([{"prompt": "1 + 1", "completion": "<think>2"}], {}, "none of 1 answers can be learned by this model"),
        ([{"prompt": "1 + 1", "completion": "7 " * 200}] * 3, {}, r"stages\[1\] \(sft\): all 3 examples of .* are longer than 68 tokens"),
        (
            [{"prompt": "1 + 1", "completion": "2"}],
            {"max_tokens": 4},
            r"stages\[1\] \(sft\): all 1 examples of .* are longer than 4 tokens",
        ),
        ([{"prompt": "1", "completion": "Zebra"}, {"prompt": "1", "completion": "7 " * 90}], {}, "all 1 examples of .* are longer than 68"),
    ],
)
def test_data_of_which_nothing_can_be_learned_are_refused_before_anything_starts(
    tiny_checkpoint: Path, tmp_path: Path, rows: list[Any], changes: dict[str, Any], words: str
):
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "good.jsonl").write_text(json.dumps({"prompt": "1 + 1", "completion": "2"}))
    data = [str(tmp_path / "good.jsonl"), str(tmp_path / "rows.jsonl")]
    wanted = recipe(tiny_checkpoint, stages=[{"kind": "rl", "name": "first"}, {"kind": "sft", "data": data} | changes, "rl"])
    with pytest.raises(DataError, match=words):
        run(wanted, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_stages_behind_a_reference_walk_on_through_finite_data(tiny_checkpoint: Path, tmp_path: Path):
    """Five rows, of which the first stage draws four; the reference has all that comes, and both rl stages behind it go round."""
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"problem": f"Add: {n} + 1", "answer": str(n + 1)}) for n in range(5)))
    phases = [{"kind": "rl", "name": "again"}, "rl"]
    wanted = recipe(
        tiny_checkpoint,
        stages=[FIRST, {"kind": "reference", "samples": 2}, *phases],
        data={"train": str(tmp_path / "rows.jsonl"), "max_prompt_tokens": 64},
    )
    folder = run(wanted, tmp_path / "runs")
    sampled = {row["problem_id"] for path in (folder / "stages" / "reference").glob("*.parquet") for row in pq.read_table(path).to_pylist()}
    assert len(sampled) == 5
    ends = [position(folder / at / "checkpoints" / f"step-{step}") for at, step in (("stages/phase_1", 2), ("stages/again", 3), (".", 3))]
    assert ends == [4, 10, 16] and len(lines(folder / "stages" / "again")) == len(lines(folder)) == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("batch: 32", "warning: 1 update of 32: 10.7 passes over 3 examples, where epochs says 1, as only whole batches train; take batch: 3"),
        ("batch: 2", "2 updates of 2: 1.33 passes over 3 examples"),
        ("batch: 32, epochs: 10", "1 update of 32: 10.7 passes over 3 examples"),
        ("batch: 1, epochs: 0.1", "warning: 1 update of 1: 0.333 passes over 3 examples, where epochs says 0.1, as only whole batches train"),
    ],
)  # fmt: skip
def test_a_stage_says_how_often_it_goes_through_its_examples(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: str, said: str
):
    (tmp_path / "rows.jsonl").write_text("\n".join([json.dumps({"prompt": "1 + 1", "completion": "2"})] * 3))
    monkeypatch.setattr("launch.teachers.sft", lambda *_: None)
    stage = {"kind": "sft", "data": str(tmp_path / "rows.jsonl"), **yaml.safe_load(f"{{{given}}}")}
    run(recipe(tiny_checkpoint, stages=[stage]), tmp_path)
    assert f"sft: {said}\n" in capsys.readouterr().out


def test_a_stage_says_how_often_it_goes_through_each_of_its_sets(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Of weights 9 and 1, so 899 of the first thousand positions are the first set's (shares are thousandths)."""
    for name, count in ("small", 10), ("large", 990):
        rows = [{"prompt": f"{n} + 1", "completion": str(n + 1)} for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr("launch.teachers.sft", lambda *_: None)
    data = [{"source": str(tmp_path / "small.jsonl"), "weight": 9}, str(tmp_path / "large.jsonl")]
    run(recipe(tiny_checkpoint, stages=[{"kind": "sft", "data": data, "batch": 50}]), tmp_path)
    said = capsys.readouterr().out.replace(f"{tmp_path}/", "")
    assert "sft: 20 updates of 50: 89.9 passes over 10 examples of small.jsonl, 0.102 passes over 990 examples of large.jsonl\n" in said


def test_rows_that_an_sft_stage_cannot_learn_from_are_listed_and_counted(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    rows = (
        [{"prompt": "1 + 1", "completion": "2"}] * 2
        + [{"prompt": "1 + <|user|>", "completion": "2"}]
        + [{"prompt": "1 + 2", "completion": ""}, {"prompt": "1", "completion": "7 " * 200}]
    )
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    learned: list[Any] = []
    monkeypatch.setattr("launch.teachers.sft", lambda start, folder, rows, *_: learned.extend(rows))
    folder = run(recipe(tiny_checkpoint, stages=[{"kind": "sft", "data": str(tmp_path / "rows.jsonl"), "batch": 3}]), tmp_path)
    said = capsys.readouterr().out
    assert "sft: 1 update of 3: 1 passes over 3 examples" in said
    assert len(learned) == 3 and "1 of 4 examples are longer than 68 tokens and left out" in said and "sft: 3 examples" in said
    assert "1 of 4 prompts hold what looks like the model's own marks of roles or of thinking, learned as the text it is" in said
    listed = (folder / "stages" / "sft" / "left_out" / "rows.jsonl").read_text().splitlines()
    assert len(listed) == 1 and json.loads(listed[0])["row"].endswith("/4")


def test_rows_that_are_left_out_of_two_sets_of_one_file_are_all_listed(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    rows = [
        {"prompt": "1 + 1", "good": "2", "bad": "3"},
        {"prompt": "1 + 2", "good": "", "bad": "4"},
        {"prompt": "1", "good": "1", "bad": ""},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr("launch.teachers.sft", lambda *_: None)
    sets = [{"source": str(tmp_path / "rows.jsonl"), "problem": "prompt", "answer": answer} for answer in ("good", "bad")]
    folder = run(recipe(tiny_checkpoint, stages=[{"kind": "sft", "data": sets, "batch": 4}]), tmp_path)
    assert capsys.readouterr().out.count(": 1 row left out, listed in") == 2
    listed = [file.read_text() for file in sorted((folder / "stages" / "sft" / "left_out").iterdir())]
    assert [json.loads(line)["row"].rpartition("/")[2] for line in listed] == ["2", "3"]


def test_a_run_that_was_stopped_in_its_last_evaluation_makes_it_when_it_goes_on(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wanted = recipe(tiny_checkpoint, name="a", stages=["rl"], eval=EVAL | {"every": 1}, train={"steps": 2, "keep_best": 1})
    evaluate = stages.evaluate

    def stopped(asked: Any, pool: Any, scorer: Any, **arguments: Any) -> Any:
        if asked[0].path.name.startswith("step-2"):
            raise KeyboardInterrupt("SIGTERM")
        return evaluate(asked, pool, scorer, **arguments)

    with monkeypatch.context() as patch:
        patch.setattr(stages, "evaluate", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(wanted, tmp_path)
    folder = tmp_path / "a"
    assert checkpoint.latest(folder / "checkpoints") == folder / "checkpoints" / "step-2"
    assert not (folder / "evals" / "step-2.json").exists()
    monkeypatch.setattr(Learner, "restore", lambda self, folder: None)  # the stand-in keeps no weights
    run(wanted, tmp_path, resume=True)
    assert sorted(path.name for path in (folder / "evals").glob("*.json")) == ["step-1.json", "step-2.json"]
    assert len(lines(folder)) == 2


def test_what_stages_made_of_a_checkpoint_that_is_broken_is_made_anew(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wanted = recipe(tiny_checkpoint, name="a", stages=["rl", "merge"], train={"steps": 2, "checkpoint_every": 1})
    folder = run(wanted, tmp_path)
    (folder / "stages" / "merge" / "checkpoint" / "old").touch()
    monkeypatch.setattr(Learner, "restore", lambda self, folder: None)
    stopped = (folder / "status.json").read_text().replace('"finished"', '"stopped"')  # as it would be in a stage behind
    (folder / "status.json").write_text(stopped)
    run(wanted, tmp_path, resume=True)
    assert (folder / "stages" / "merge" / "checkpoint" / "old").exists()  # nothing was left to do
    (folder / "status.json").write_text(stopped)
    (folder / "checkpoints" / "step-2" / "manifest.json").unlink()
    run(wanted, tmp_path, resume=True)
    assert checkpoint.whole(folder / "stages" / "merge" / "checkpoint")
    assert not (folder / "stages" / "merge" / "checkpoint" / "old").exists()
