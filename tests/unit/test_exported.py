"""Exports: other tools' forms hold our numbers, and are imported again to the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from evaluation.evaluate import write
from evaluation.export import export
from evaluation.results import Evaluation, Settings
from launch.imported import import_samples
from rewards.verifier.judge import Judge
from rollout.records import rows
from rollout.scorer import Scorer
from rollout.template import load_template
from rollout.transcripts import completion
from rollout.types import Problem, Request
from tests.unit.test_imported import RIGHT, WRONG, evaluated, lines, plain

QUIET = Console(quiet=True)


@pytest.mark.parametrize(("form", "file"), [("lm-eval", "x/samples_x_*.jsonl"), ("ockbench", "x.json")])
def test_what_is_exported_is_imported_to_the_same_numbers(tmp_path: Path, form, file):
    samples = [row | {"think_tokens": 4 if "</think>" in row["completion"] else None} for row in plain(model="m")]
    import_samples(lines(tmp_path / "x.jsonl", samples), tmp_path / "own", False, QUIET)
    own = Evaluation.model_validate_json((tmp_path / "own" / "x.json").read_text())
    written = export(tmp_path / "own", form, tmp_path / "theirs")
    [path] = (tmp_path / "theirs").glob(file)
    assert path in written
    again = evaluated(path, model="m")
    same = ("problems", "samples", "source", "accuracy", "tokens", "truncated", "no_answer_by", "not_judged", "per_problem")
    assert [getattr(again, name) for name in same] == [getattr(own, name) for name in same]
    with pytest.raises(FileExistsError, match="--overwrite"):
        export(tmp_path / "own" / "x.json", form, tmp_path / "theirs")


@pytest.mark.parametrize(("form", "file"), [("lm-eval", "x/samples_x_*.jsonl"), ("ockbench", "x.json")])
def test_what_is_exported_has_the_same_lengths_when_its_tokenizer_counts_again(tmp_path: Path, tiny_checkpoint: Path, form, file):
    """Of samples as engines make them: ids with the end of turn where they ended by themselves, without it where they were cut."""
    template = load_template(tiny_checkpoint)
    with Judge(1, 10.0, 1024) as judge:
        scorer, groups = Scorer(judge, template), []
        for text, problem in (("1+1", Problem("1", "1+1", "2")), ("3-1", Problem("2", "3-1", "2"))):
            request = Request(text, problem, template.prompt_ids(problem), 3, 1, 1.0, 1.0, 0)
            made = [completion(template, RIGHT, "stop"), completion(template, WRONG, "length"), completion(template, WRONG, "stop")]
            groups.append(scorer.finish(scorer.begin(request, made)))
    settings = Settings(max_tokens=64, template=template.digest)
    own = write(tmp_path / "own" / "x", rows(groups, 0, template.digest), checkpoint="m", step=0, source="x", settings=settings)
    export(tmp_path / "own", form, tmp_path / "theirs")
    [path] = (tmp_path / "theirs").glob(file)
    again = evaluated(path, model="m", tokenizer=tiny_checkpoint, max_tokens=64)
    same = ("problems", "samples", "accuracy", "tokens", "by_outcome", "truncated", "budget_curve")
    assert [getattr(again, name) for name in same] == [getattr(own, name) for name in same]
    assert again.settings.template == own.settings.template


def test_lm_evals_results_hold_the_share_its_error_and_the_settings(tmp_path: Path):
    import_samples(lines(tmp_path / "x.jsonl", plain(model="org/m")), tmp_path / "own", False, QUIET, temperature=0.6, max_tokens=64)
    results, samples = export(tmp_path / "own", "lm-eval", tmp_path / "theirs")
    found = json.loads(results.read_text())
    share = found["results"]["x"]
    assert share["exact_match,none"] == 0.25 and share["exact_match_stderr,none"] == pytest.approx(np.std([0.5, 0.0], ddof=1) / np.sqrt(2))
    assert found["n-samples"]["x"] == {"original": 2, "effective": 2} and found["configs"]["x"]["repeats"] == 2
    assert found["configs"]["x"]["generation_kwargs"] == {"do_sample": True, "temperature": 0.6, "top_p": None, "max_gen_toks": 64}
    assert (found["model_name"], found["model_name_sanitized"]) == ("org/m", "org_m")
    first = json.loads(samples.read_text().splitlines()[0])
    assert (
        first["target"] == "2"
        and first["resps"] == [[RIGHT, WRONG]]
        and first["filtered_resps"] == [["2", "3"]]
        and first["exact_match"] == 0.5
    )
    assert first.keys() >= {"doc_id", "doc", "arguments", "filter", "metrics", "doc_hash", "prompt_hash", "target_hash"}


def test_ockbenchs_records_and_scores_are_those_of_their_formula(tmp_path: Path):
    import_samples(lines(tmp_path / "x.jsonl", plain(think_tokens=4, model="m")), tmp_path / "own", False, QUIET)
    [file] = export(tmp_path / "own", "ockbench", tmp_path / "theirs")
    found = json.loads(file.read_text())
    assert found["results"][0]["tokens"] == {
        "prompt_tokens": 0,
        "answer_tokens": 6,
        "reasoning_tokens": 4,
        "output_tokens": 10,
        "total_tokens": 10,
    }
    summary = found["summary"]
    assert (summary["total_problems"], summary["correct_count"], summary["accuracy"], summary["avg_tokens_per_problem"]) == (
        4,
        1,
        25.0,
        21.0,
    )
    assert summary["ock_score"] == pytest.approx(25 - 10 * np.log(21 / 10_000 + 1)) and summary["ock10"] == pytest.approx(
        25 - 10 * np.log10(21 / 10_000 + 1)
    )


def test_what_was_never_made_is_not_short_in_ockbenchs_score(tmp_path: Path):
    samples = plain(model="m")
    samples[3] |= {"completion": None, "tokens": 0, "finish": "abort"}
    import_samples(lines(tmp_path / "x.jsonl", samples), tmp_path / "own", False, QUIET, max_tokens=100)
    found = json.loads(export(tmp_path / "own", "ockbench", tmp_path / "theirs")[0].read_text())
    assert found["summary"]["error_count"] == 1 and found["summary"]["ock10"] == pytest.approx(25 - 10 * np.log10(36 / 10_000 + 1))


def test_an_export_that_cannot_be_is_one_sentence(tmp_path: Path):
    samples = [{name: value for name, value in row.items() if name != "tokens"} for row in plain()]
    import_samples(lines(tmp_path / "x.jsonl", samples), tmp_path / "own", False, QUIET)
    for path, form, words in (
        (tmp_path / "own", "csv", "expected lm-eval or ockbench"),
        (tmp_path / "own", "ockbench", "lengths are in characters"),
        (tmp_path / "none", "lm-eval", "does not exist"),
        (tmp_path, "lm-eval", "no evaluation with its samples"),
    ):
        with pytest.raises(ValueError, match=words):
            export(path, form, tmp_path / "theirs")
    (tmp_path / "own" / "x.json").write_text("{}")
    with pytest.raises(ValueError, match="no whole evaluation"):
        export(tmp_path / "own", "lm-eval", tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()
