"""What stages decide before anything starts: which held-out prompts fit, and names of evaluation files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from launch.machine import Machine
from launch.memory import GB
from launch.plan import PlanError, plan
from launch.problems import HeldOut, file_names, fitting, list_left_out, list_overlap, some_fit
from launch.stages import planned_with, settle_device
from recipes.loader import load
from recipes.stages import RlStage
from rewards.rows import DataError
from rollout.sources import Source
from rollout.types import Problem

TEMPLATE: Any = SimpleNamespace(prompt_ids=lambda problem: tuple(map(ord, problem.text)))


def test_held_out_prompts_that_engines_keep_no_room_for_are_left_out_and_listed():
    part = HeldOut("numbers", [Problem("a", "short", "1"), Problem("b", "much longer", "2")], [("c", "no gold")])
    kept = fitting(part, TEMPLATE, 5)
    assert [problem.id for problem in kept.problems] == ["a"]
    assert kept.left_out == [("c", "no gold"), ("b", "prompt of 11 tokens, data.max_prompt_tokens is 5")]
    with pytest.raises(DataError, match=r"numbers: all 2 prompts exceed data\.max_prompt_tokens 4; raise it"):
        fitting(part, TEMPLATE, 4)


def test_p19_rows_left_out_are_told_by_five_of_them_and_kept_whole_in_a_file(tmp_path: Path):
    said: list[str] = []
    progress: Any = SimpleNamespace(message=said.append)
    rows = [(f"golds.jsonl:{line}", "gold answer empty") for line in range(1, 8)]
    list_left_out(progress, tmp_path / "left_out" / "train.jsonl", "golds.jsonl", rows)
    assert said[:5] == [f"left out golds.jsonl:{line}: gold answer empty" for line in range(1, 6)]
    assert said[5:] == [f"golds.jsonl: 7 rows left out, listed in {tmp_path}/left_out/train.jsonl"]
    kept = [json.loads(line) for line in (tmp_path / "left_out" / "train.jsonl").read_text().splitlines()]
    assert kept == [{"row": where, "reason": reason} for where, reason in rows]
    list_left_out(progress, tmp_path / "none.jsonl", "sound.jsonl", [])
    assert len(said) == 6 and not (tmp_path / "none.jsonl").exists()


def test_a_gpu_that_torch_cannot_use_is_said_to_be_one(tmp_path: Path):
    if torch.version.cuda is not None:
        pytest.skip("this torch could use a GPU")
    made = plan(load("quickstart"), Machine(8, 64 * GB, (24 * GB,)))
    with pytest.raises(PlanError, match="a GPU that torch cannot use; `laconic doctor` looks for the reason"):
        settle_device(made)


def test_what_a_download_brought_is_planned_again(tiny_checkpoint: Path):
    made = plan(
        load("dler", overrides=["model.path=owner/unknown", "model.dtype=fp32", "learner.zero_stage=0", "device=cpu"]), Machine(2, 16 * GB)
    )
    assert made.shape is None and "kv_cache_memory_bytes" not in made.engine
    with pytest.raises(PlanError, match=r"eval\.max_tokens: 32768 is more than the 2048 tokens"):
        planned_with(tiny_checkpoint, made)
    short = plan(
        made.recipe.model_copy(update={"stages": [RlStage(kind="rl")], "budget": made.recipe.budget.model_copy(update={"limit": 9})}),
        made.machine,
    )
    again = planned_with(tiny_checkpoint, short)
    assert again.shape is not None and again.engine["kv_cache_memory_bytes"] > 0 and again.recipe == short.recipe


def test_sources_that_differ_in_their_folder_or_version_get_files_of_their_own():
    names = ["tiny", "a/test.jsonl", "b/test.jsonl", "hub:a/MATH", "hub:b/MATH", "AIME-v1.5.jsonl", "AIME-v1.6.jsonl", "../up.jsonl"]
    assert file_names(names) == ["tiny", "a-test", "b-test", "a-MATH", "b-MATH", "AIME-v1.5", "AIME-v1.6", "up"]
    assert file_names(["/data/my test.jsonl", "hub:a/MATH:test[:9]"]) == ["my-test", "MATH-test-9"]


def test_sets_of_one_source_get_names_and_files_of_their_own():
    sets = [
        {"source": "d", "split": "test"},
        {"source": "d", "split": "dev"},
        "e.jsonl",
        "e.jsonl",
        {"source": "*.csv"},
        "./rows",
        "rows.jsonl",
    ]
    names = load("evaluate", overrides=["model.path=tiny", f"eval.data={json.dumps(sets)}"]).held_out_names
    assert names == ["d test", "d dev", "e.jsonl test 1", "e.jsonl test 2", "*.csv", "./rows", "rows.jsonl"]
    assert file_names(names) == ["d-test", "d-dev", "e.jsonl-test-1", "e.jsonl-test-2", "csv", "rows-1", "rows-2"]


def test_no_two_evaluations_share_a_file_and_no_name_is_too_long_for_one():
    assert file_names(["d", "d", "d-1"]) == ["d-2", "d-3", "d-1"]
    assert file_names(["d-1", "d", "d"]) == ["d-1", "d-2", "d-3"]
    names = file_names(["a/" + "\u6570" * 300, "b/" + "\u6570" * 300, "hub:owner/" + "n" * 300])
    assert len(set(names)) == 3 and all(len(f"eval-{name}.left_out.jsonl".encode()) < 256 for name in names)


def test_training_rows_that_are_also_evaluation_rows_are_counted_named_and_listed(tmp_path: Path):
    said: list[str] = []
    progress: Any = SimpleNamespace(message=said.append)
    source = Source("numbers", lambda position: Problem("", "", ""), problems=[Problem("t1", "1 + 1?", "2"), Problem("t2", "2 + 2?", "4")])
    list_overlap(progress, tmp_path / "overlap.jsonl", source, [HeldOut("test", [Problem("e1", "2 + 2 ?", "4")], [])])
    assert said == [f"1 training rows are also rows of test (t2), listed in {tmp_path}/overlap.jsonl"]
    assert json.loads((tmp_path / "overlap.jsonl").read_text()) == {"eval": "test", "train_row": "t2", "eval_row": "e1"}


def test_training_data_of_which_nothing_fits_are_refused_before_engines_start():
    source = Source("numbers", lambda position: Problem("", "1 + 1?"[: 4 + position % 3], ""), rows=3)
    some_fit(source, TEMPLATE, 4)
    with pytest.raises(
        DataError, match=r"numbers: the first 3 prompts drawn all exceed data\.max_prompt_tokens 2, the shortest by 2; raise it"
    ):
        some_fit(source, TEMPLATE, 2)
