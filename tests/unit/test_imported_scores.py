"""Scores of samples that others made: which sample is the best one, and what no other tool's form holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from evaluation.comparisons import read as compared
from evaluation.comparisons import samples_of
from evaluation.export import export
from evaluation.imported import read_samples
from evaluation.parallel import curves
from launch.imported import import_samples
from rewards.rows import DataError
from rewards.verifier.verdict import Verdict
from tests.unit.test_comparisons import evaluated as evaluation_folder
from tests.unit.test_imported import QUIET, RIGHT, WRONG, lines
from tests.unit.test_report import make_groups


def scored(**changes: Any) -> list[dict[str, Any]]:
    """Two problems with four samples each, the second and third right, of which the second is scored best."""
    texts = [WRONG, RIGHT, RIGHT, WRONG]
    return [
        {"problem": problem, "gold": "2", "completion": text, "judge": {"score": score}} | changes
        for problem in ("1+1", "3-1")
        for text, score in zip(texts, (0.3, 0.9, 0.1, 0.2), strict=True)
    ]


def test_a_score_of_each_sample_ranks_them_and_without_one_there_is_no_best(tmp_path: Path):
    path = lines(tmp_path / "rows.jsonl", scored())
    import_samples(path, tmp_path / "with", False, QUIET, score="judge.score")
    import_samples(path, tmp_path / "without", False, QUIET)
    assert pq.read_table(tmp_path / "with" / "rows.parquet")["score"].to_pylist() == [0.3, 0.9, 0.1, 0.2] * 2
    with_, without = (
        {curve.method: curve.points for curve in curves(samples_of(compared([tmp_path / name]).shown["rows"][0], scores=True))}
        for name in ("with", "without")
    )
    best = with_.pop("best by score")
    # the best wins three of the pairs; of the others, the third beats none
    assert [(at.k, at.accuracy) for at in best] == [(2, pytest.approx(3 / 6)), (3, pytest.approx(3 / 4)), (4, 1)]
    assert set(with_) == set(without)


@pytest.mark.parametrize("score", [None, "high", float("nan"), float("inf"), True, [0.1, 0.2], {"a": 1}])
def test_a_score_that_is_none_stops_the_import_with_its_line(tmp_path: Path, score: Any):
    rows = scored()
    rows[2] |= {"judge": {"score": score}}
    path = lines(tmp_path / "rows.jsonl", rows)
    with pytest.raises(
        DataError, match=r"rows.jsonl:3: judge.score is .*, where 1 finite number is wanted; correct it, or leave out --score"
    ):
        import_samples(path, tmp_path / "out", False, QUIET, score="judge.score")
    with pytest.raises(DataError, match=r"rows.jsonl:1: nothing is None, where 1 finite number is wanted"):
        import_samples(path, tmp_path / "out", False, QUIET, score="nothing")
    assert not (tmp_path / "out").exists()


def test_scores_of_several_completions_in_a_line_go_with_them(tmp_path: Path):
    path = lines(tmp_path / "rows.jsonl", [{"problem": "1+1", "gold": "2", "completions": [RIGHT, WRONG], "rm": [0.5, "2e0"]}])
    ((_, samples),) = read_samples(path, "rows", score="rm").problems
    assert [one.score for one in samples] == [0.5, 2.0]


def test_votes_of_chains_that_were_stopped_are_exported_in_no_other_tools_form(tmp_path: Path):
    folder = evaluation_folder(tmp_path / "natural", make_groups(12, 50))
    groups = make_groups(12, 50)
    for group in groups:
        group.rollouts[1].verdict = Verdict("not_judged", "stopped")
        object.__setattr__(group.rollouts[1].completion, "finish", "stopped")
    evaluation_folder(folder, groups, name="tiny@short-1-of-2", budget={"kind": "short", "first": 1, "of": 2})
    assert len(export(folder, "ockbench", tmp_path / "out")) == 1
    with pytest.raises(ValueError, match="holds votes of chains that were stopped, which other tools have no form for"):
        export(folder / "tiny@short-1-of-2.json", "lm-eval", tmp_path / "out")
