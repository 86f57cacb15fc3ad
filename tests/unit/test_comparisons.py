"""Runs and evaluations set against each other: what is refused, what is marked, and what is said, in the terminal and in files."""

from __future__ import annotations

import importlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from evaluation import words
from evaluation.budgets import budget_table
from evaluation.comparisons import compare, pooled, read
from evaluation.entries import by_source, read_entries
from evaluation.formats import as_json, markdown, sentences
from evaluation.paired import paired_table
from evaluation.picture import picture
from evaluation.report import page, report
from evaluation.results import Settings
from evaluation.run_folder import Run, read_run
from evaluation.scores import score
from evaluation.statistics import wilson
from evaluation.tables import glance_table, noise_table, reservations
from launch.compare import compare_in_terminal
from launch.evaluate import print_scores
from recipes.loader import load
from rewards.verifier.verdict import Verdict
from rollout.records import rows
from rollout.types import Group
from tests.unit.test_report import SETTINGS, make_groups


def evaluated(
    folder: Path, groups: list[Group], source: str = "tiny", name: str = "tiny", template: str = "digest", **settings: object
) -> Path:
    """A folder as `laconic eval` makes one."""
    folder.mkdir(parents=True, exist_ok=True)
    table = rows(groups, 0, template)
    made = Settings(**SETTINGS | {"template": template} | settings)
    found = score(table, checkpoint=folder.name, step=0, source=source, settings=made)
    (folder / f"{name}.json").write_text(found.model_dump_json())
    pq.write_table(table, folder / f"{name}.parquet")
    return folder


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """A long and a short model on 24 problems, the short one better."""
    return [evaluated(tmp_path / "long", make_groups(12, 200)), evaluated(tmp_path / "short", make_groups(20, 50))]


def test_folders_of_evaluations_are_compared_under_their_names(two: list[Path]) -> None:
    found = read(two)
    (pair,) = found.comparisons
    assert (pair.old.label, pair.new.label, pair.claim, pair.problems) == ("long", "short", "better", 24)
    assert pair.length is not None and pair.length.mean == pytest.approx(61.5 / 211.5 - 1)
    assert [span.first for span in pair.better] == [60] and pair.better[-1].last == 320 and pair.worse == ()


def test_long_names_of_folders_are_shown_by_their_last_parts_where_those_differ(tmp_path: Path) -> None:
    names = ["home-me-runs-quick-2-checkpoints-step-12", "home-me-runs-quick-2-checkpoints-step-34", "x" * 40]
    folders = [evaluated(tmp_path / name, make_groups(12, 50)) for name in names]
    assert [run.label for run in read(folders).runs] == [
        "…quick-2-checkpoints-step-12",
        "…quick-2-checkpoints-step-34",
        "…" + "x" * 31,
    ]
    twins = [evaluated(tmp_path / f"{head}-runs-quick-2-checkpoints-step-12", make_groups(12, 50)) for head in ("a", "b")]
    assert [run.label for run in read(twins).runs] == [folder.name for folder in twins]


def test_budgets_at_which_the_new_one_is_less_accurate_are_told_apart(tmp_path: Path) -> None:
    """The new one is right on more problems, but later: at 60 to 79 tokens only the old one is."""
    old, new = evaluated(tmp_path / "old", make_groups(12, 20)), evaluated(tmp_path / "new", make_groups(24, 80))
    (pair,) = read([old, new]).comparisons
    assert [(span.first, span.last) for span in pair.worse] == [(30, 80)]
    assert [(span.first, span.last) for span in pair.better] == [(100, 320)]
    said = sentences(read([old, new]))
    assert any("more accurate from 100 to 320 tokens, and less accurate from 30 to 80 tokens" in one for one in said), said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": 1.0}, "temperature was 0.6 before and 1.0 after"),
        ({"top_p": 0.9}, "top_p was 1.0 before and 0.9 after"),
        ({"top_k": 20}, "top_k was 0 before and 20 after"),
        ({"max_tokens": 640}, "max_tokens was 320 before and 640 after"),
        ({"budget": {"kind": "forced", "limit": 32}}, None),
    ],
)
def test_other_settings_are_refused_and_budgets_are_another_curve(two: list[Path], settings: dict, said: str | None) -> None:
    evaluated(two[0], make_groups(12, 200), top_k=0)
    evaluated(two[1], make_groups(20, 50), **{"top_k": 0} | settings)
    found = read(two)
    if said is None:
        assert found.comparisons == []
    else:
        assert [pair.refused for pair in found.comparisons] == [said]
        assert f"cannot be compared: {said}" in markdown(found)


def test_a_top_k_that_one_did_not_record_is_marked(two: list[Path]) -> None:
    assert not any("top_k" in words for words in read(two).comparisons[0].remarks)  # neither did
    evaluated(two[1], make_groups(20, 50), top_k=20)
    (pair,) = read(two).comparisons
    assert pair.refused == "" and "top_k was not recorded of one, and 20 of the other" in pair.remarks


def test_another_commit_of_a_set_on_the_hub_is_marked(two: list[Path]) -> None:
    for folder, revision in zip(two, ("a" * 40, "b" * 40), strict=True):
        evaluated(folder, make_groups(20, 50), revision=revision)
    (pair,) = read(two).comparisons
    assert pair.refused == "" and pair.remarks == ("revision differs",)


def test_another_number_of_samples_is_compared_and_marked(two: list[Path]) -> None:
    groups = make_groups(20, 50)
    for group in groups:
        group.rollouts.pop()
    evaluated(two[1], groups, samples=1)
    (pair,) = read(two).comparisons
    assert pair.accuracy is not None and pair.remarks == ("2 samples each before, 1 after",)
    assert words.verdict(pair).endswith("paired over 24 problems with 2 and 1 samples each.")
    assert "24 problems of tiny, 2 and 1 samples each" in page(read(two))


def test_token_f1_is_a_row_beside_accuracy_that_says_what_it_is_of(two: list[Path]) -> None:
    assert "Token F1" not in markdown(read(two)) + page(read(two))
    groups = make_groups(20, 50)
    for group in groups[:3]:
        group.request = replace(group.request, problem=replace(group.problem, answer="Barack Obama"))
        for rollout in group.rollouts:
            rollout.verdict = Verdict("wrong", "words", "President Obama")
    evaluated(two[1], groups)
    found = read(two)
    for form in (markdown(found), page(found)):
        assert "Token F1, never a verdict" in form and "50.0 %" in form and "of 3 problems with a gold in words" in form
    shown = io.StringIO()
    print_scores(Console(file=shown, width=200).print, "tiny", found.shown["tiny"][1].evaluation, Path("tiny.json"))
    [row] = [line for line in shown.getvalue().splitlines() if "Token F1, never a verdict" in line]
    assert "50.0 %" in row and "of 3 problems with a gold in words" in row


@pytest.mark.parametrize(
    ("settings", "mark"),
    [
        ({"engine": "vllm"}, "engine differs"),
        ({"temperature": None}, "temperature was not recorded"),
        ({"stated_limit": 64, "instruction": "Short."}, "stated limit differs"),
        ({"template": "another"}, "lengths before are tokens of template digest, after tokens of template another: other units"),
    ],
)
def test_a_mark_stands_once_beside_the_claim_in_every_form(two: list[Path], settings: dict, mark: str) -> None:
    evaluated(two[0], make_groups(12, 200), **{"stated_limit": 32} | {key: None for key in settings if key == "temperature"})
    evaluated(two[1], make_groups(20, 50), **{"stated_limit": 32} | settings)
    console = Console(file=io.StringIO(), width=200)
    compare_in_terminal(two, None, console)
    for form in (markdown(read(two)), page(read(two)), console.file.getvalue()):
        (said,) = [line for line in re.findall(r"With reservations: [^\n<]*", form) if mark in line]
        assert form.count(mark) == 1, said


def test_tokens_of_another_tokenizer_are_never_compared_characters_are(two: list[Path]) -> None:  # P38
    groups = make_groups(20, 50, text="<think> a </think> \\boxed{7}")
    evaluated(two[1], groups, template="another")
    (pair,) = read(two).comparisons
    long, short = len(make_groups(1, 1)[0].rollouts[0].text), len(groups[0].rollouts[0].text)
    assert pair.unit == "characters" and pair.length is not None and pair.length.mean == pytest.approx(short / long - 1)
    assert pair.accuracy is not None and pair.better == ()
    table = {row.label: [cell.text for cell in row.cells] for row in paired_table(pair).rows}
    assert table["mean length, each as it was counted"][2] == "" and table["length in characters"][2].startswith("−")
    evaluated(two[1], groups, template="another", temperature=1.0)
    (refused,) = read(two).comparisons
    assert refused.refused and not any("of right samples" in row.label for row in paired_table(refused).rows)
    evaluated(two[1], groups, template="another")
    (two[1] / "tiny.parquet").unlink()
    (pair,) = read(two).comparisons
    assert not any("of right samples" in row.label for row in paired_table(pair).rows)
    assert pair.length is None and any("Lengths are not compared" in one for one in sentences(read(two)))


def test_lengths_side_by_side_say_what_counted_them_where_that_differs(two: list[Path]) -> None:
    own = ["tokens of template digest", "tokens of template another"]
    budget = {"kind": "forced", "limit": 32}
    evaluated(two[0], make_groups(12, 200), name="at", budget=budget)
    assert not any(ruler in markdown(read(two)) for ruler in own)
    evaluated(two[1], make_groups(20, 50), template="another")
    evaluated(two[1], make_groups(20, 50), name="at", budget=budget, template="another")
    found = read(two)
    assert noise_table(found.shown["tiny"]).head == [
        f"{name}, lengths in {ruler}" for name, ruler in zip(("long", "short"), own, strict=True)
    ]
    lengths = [row.cells[1].small for row in budget_table(found, "tiny").rows if not row.sub]
    assert [small.endswith(ruler) for small, ruler in zip(lengths, own, strict=True)] == [True, True]
    third = evaluated(two[0].parent / "third", make_groups(20, 50))
    marks = [row.cells[3].small for row in glance_table(read([*two, third]).comparisons).rows]
    assert set(marks) == set(own)


def test_the_margin_is_the_one_that_was_recorded_beforehand_unless_one_is_given(tmp_path: Path) -> None:
    groups = make_groups(12, 200)
    worse = make_groups(12, 50)
    worse[0].rollouts[0].verdict = replace(worse[0].rollouts[0].verdict, status="wrong", extracted="8")
    old, new = evaluated(tmp_path / "old", groups), evaluated(tmp_path / "new", worse, margin=0.2)
    (pair,) = read([old, new]).comparisons
    assert (pair.margin, pair.claim) == (0.2, "not worse")
    (pair,) = read([old, new], margin=0.001).comparisons
    assert (pair.margin, pair.claim) == (0.001, "not shown")


def test_a_start_that_two_runs_share_is_shown_once_and_ends_alone_can_be_asked_for(tmp_path: Path) -> None:
    runs = []
    for name, right in (("a", 18), ("b", 20)):
        evaluated(tmp_path / name / "evals", make_groups(12, 200), name="step-0")
        evaluated(tmp_path / name / "evals", make_groups(right, 50), name="step-3")
        content = json.loads((tmp_path / name / "evals" / "step-3.json").read_text())
        (tmp_path / name / "evals" / "step-3.json").write_text(json.dumps(content | {"step": 3}))
        runs.append(tmp_path / name)
    labels = {ends: [one.label for one in by_source(read_entries(runs), ends)["tiny"]] for ends in (True, False)}
    assert labels == {True: ["a, before", "a", "b"], False: ["a", "b"]}
    pairs = {ends: [(one.old.label, one.new.label) for one in read(runs, ends=ends).comparisons] for ends in (True, False)}
    assert pairs == {True: [("a, before", "a"), ("a, before", "b"), ("a", "b")], False: [("a", "b")]}
    evaluated(runs[1] / "evals", make_groups(13, 200), name="step-0")  # called alike, and another model
    assert [one.label for one in by_source(read_entries(runs))["tiny"]] == ["a, before", "a", "b, before", "b"]


def test_what_is_given_twice_or_is_of_one_name_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("base", "x/model", "y/model", "p/evals/qwen", "q/evals/qwen")
    paths = [evaluated(tmp_path / name, make_groups(12, 200)) for name in names]
    assert [run.label for run in read_entries(paths)] == [*names]
    file = paths[0].parent / "y" / "model.json"  # named as the folder beside it is
    file.write_text((paths[0] / "tiny.json").read_text())
    assert [run.label for run in read_entries([paths[2], file])] == ["y/model", "y/model.json"]
    with pytest.raises(ValueError, match="given twice"):
        read_entries([paths[0], paths[0] / "." / ""])
    monkeypatch.setattr("evaluation.entries.read_run", lambda path: Run(path, path.name))
    assert [run.label for run in read_entries([Path("/runs/dler"), Path("/data/runs/dler")])] == ["/runs/dler", "data/runs/dler"]


def test_several_claims_are_adjusted_together(two: list[Path]) -> None:
    for path, right in zip(two, (12, 13), strict=True):
        evaluated(path, make_groups(right, 60), source="other", name="other")
    said = sentences(read(two))
    assert any(one.startswith("p of no difference of accuracy, adjusted for 2 comparisons (Holm): other 1, tiny 0.0") for one in said), said


def test_single_samples_are_tested_by_mcnemar_exactly_and_several_by_sign_flips(tmp_path: Path) -> None:
    """20 problems: 8 that only the old one solves, 2 that only the new one does (hand example of A6: p = 0.109375)."""
    old, new = make_groups(18, 50, problems=20), make_groups(10, 50, problems=20)
    for place in (18, 19):
        new[place] = make_groups(20, 50, problems=20)[place]
    several = [evaluated(tmp_path / f"{name}2", groups) for name, groups in (("old", old), ("new", new))]
    for group in (*old, *new):
        group.rollouts.pop()
    single = [evaluated(tmp_path / name, groups, samples=1) for name, groups in (("old", old), ("new", new))]
    (pair,) = read(single).comparisons
    assert pair.moved == (2, 8) and pair.p == pytest.approx(0.109375)
    assert "| &nbsp;&nbsp;p of no difference |  |  | 0.11 (McNemar, exact: 2 gained, 8 lost) |" in markdown(read(single))
    assert json.loads(as_json(read(single)))["comparisons"][0]["test"] == "mcnemar"
    (pair,) = read(several).comparisons
    assert pair.moved is None and "(sign flips)" in markdown(read(several))


def test_two_models_on_several_benchmarks_are_pooled_in_one_line_of_equal_weights(two: list[Path]) -> None:
    assert pooled(read(two).comparisons) == []
    for path, right in zip(two, (12, 13), strict=True):
        evaluated(path, make_groups(right, 60, problems=16), source="other", name="other")
    (one,) = pooled(read(two).comparisons)
    assert one.sources == ("other", "tiny") and one.accuracy.mean == pytest.approx((1 / 16 + 8 / 24) / 2) and one.accuracy.low > 0
    line = "short against long over 2 benchmarks of equal weight (other, tiny): +19.8 points, 95 % interval"
    assert any(said.startswith(line) for said in sentences(read(two))) and line in report(two, two[0] / "page.html").read_text()
    assert json.loads(as_json(read(two)))["pooled"][0]["accuracy"]["mean"] == pytest.approx(one.accuracy.mean)
    for few in (1, 3, 5):  # of which nothing is said alone, so nothing among others
        for path, right in zip(two, (0, few), strict=True):
            evaluated(path, make_groups(right, 60, problems=few), source="few", name="few")
        assert [replace(again, few=()) for again in pooled(read(two).comparisons)] == [one]
    (said,) = [words.pooled(again) for again in pooled(read(two).comparisons)]
    assert "(other, tiny; left out for fewer than 6 problems: few): +19.8 points" in said
    for path, right in zip(two, (0, 3), strict=True):
        evaluated(path, make_groups(right, 60, problems=3), source="other", name="other")
    assert pooled(read(two).comparisons) == []


def test_the_rows_of_a_benchmark_claim_no_more_than_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One problem of 256 more is right, and none was lost: how many may be is not seen (Wilson: 1.5 points)."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    dler, methods = importlib.import_module("dler"), importlib.import_module("methods")
    (tmp_path / "recipe.yaml").write_text("extends: quickstart\n")
    for step, right, tokens in ((0, 250, 400), (load(str(tmp_path / "recipe.yaml")).train.steps, 251, 1)):
        evaluated(tmp_path / "evals", make_groups(right, tokens, 256), name=f"step-{step}")
        (tmp_path / "evals" / f"step-{step}.parquet").unlink()  # budgets are not looked at
    line, holds = dler.row(0, tmp_path, 60.0)
    (pair,) = [compare(*shown) for shown in by_source(read_entries([tmp_path])).values()]
    assert pair.claim == "not shown" and not holds
    assert pair.bounds is not None and f" +0.4 [{100 * pair.bounds.low:+.1f}, {100 * pair.bounds.high:+.1f}] " in line
    assert methods._pass(pair.new.evaluation) is None  # of two samples
    row = {"recipe": "a", "accuracy": [0.5] * 5, "tokens": [9.0] * 5, "pass": [None, None], "update": 1.0, "seconds": 1.0, "moved": {}}
    assert "| – | – |" in methods.line(row) and methods.line(row).count("|") == methods._HEAD.count("|")


@pytest.mark.parametrize(("gained", "shown"), [(4, False), (5, False), (6, True)])
def test_no_sentence_denies_the_interval_that_stands_beside_it(tmp_path: Path, gained: int, shown: bool) -> None:
    """Four or five of 24 gained and none lost: the bootstrap leaves 0 out, what 24 problems do not show and sign flips (p = 1/8, 1/16) do not, and claims go by all."""
    folders = [evaluated(tmp_path / "old", make_groups(12, 50)), evaluated(tmp_path / "new", make_groups(12 + gained, 50))]
    found = read(folders)
    (pair,) = found.comparisons
    assert pair.accuracy is not None and pair.accuracy.low > 0 and pair.bounds is not None and (pair.bounds.low > 0) == shown
    printed = words.span(pair.bounds)
    said = " ".join(sentences(found))
    limits = " ".join(reservations(found.runs, found.every, found.comparisons))
    assert ("any loss of accuracy is ruled out" in limits) == shown and "wider by what so many problems do not show" in limits
    for low, loss in ((-0.0003, "a loss of more than 0.03 points of"), (-0.0624, "than 6.24 points"), (-1e-17, "may not have changed")):
        assert pair.bounds and loss in " ".join(reservations([], [], [replace(pair, bounds=pair.bounds._replace(low=low))]))
    assert ("no difference shown: +" in said) != shown and f"{words.signed(100 * gained / 24)} points, 95 % interval {printed})" in said
    texts = [markdown(found), report(folders, tmp_path / "page.html").read_text(), picture(found)]
    assert all(printed in text for text in texts)
    assert not any(words.span(pair.accuracy) in text for text in texts) or words.span(pair.accuracy) == printed
    assert json.loads(as_json(found))["comparisons"][0]["bounds"]["low"] == pair.bounds.low


def test_a_pool_in_which_few_problems_moved_shows_no_difference(tmp_path: Path) -> None:
    """Two more right of 24 on one benchmark and on the other: of four that moved, sign flips say nothing (p = 1/8)."""
    for name, source in (("a", "tiny"), ("b", "other")):
        for folder, right in (("old", 12), ("new", 14)):
            evaluated(tmp_path / folder, make_groups(right, 50), source=source, name=name)
    (one,) = pooled(read([tmp_path / "old", tmp_path / "new"]).comparisons)
    assert one.p == 0.125 and one.accuracy.low == 0 < one.accuracy.high and "no difference of accuracy shown" in words.pooled(one)


def test_what_became_of_problems_is_counted_by_five_classes(two: list[Path]) -> None:
    """12 that both solve, shorter now; 8 gained; 4 that neither solves."""
    assert "| problems that both solve, in half of the samples |  |  | 12 (12 shorter) |" in markdown(read(two))
    assert "| &nbsp;&nbsp;gained, lost, neither |  |  | 8, 0, 4 |" in markdown(read(two))
    found = json.loads(as_json(read(two)))["comparisons"][0]["classes"]
    assert list(found.values()) == [12, 0, 8, 0, 4]


def test_how_often_a_model_is_right_again_is_said_of_four_samples_and_more(tmp_path: Path) -> None:
    """Of four samples all are right on 12 problems, three on 4, none on 8: both of two are right with 1 and 1/2."""
    groups = [*make_groups(12, 50), *make_groups(12, 50)]
    folder, made = tmp_path / "a", []
    for first, second in zip(groups[:24], groups[24:], strict=True):
        for place, rollout in enumerate(second.rollouts):
            rollout.sample, rollout.id = 2 + place, f"{rollout.id}-more"
        first.rollouts += second.rollouts
        made.append(first)
    for group in made[12:16]:
        for rollout in group.rollouts[:3]:
            rollout.verdict = Verdict("right", "integer", "7")
    evaluated(folder, made, samples=4)
    said = markdown(read([folder]))
    for label, share in {"pass^2, all of them right": 12 + 4 / 2, "G-Pass@2, half of them right": 16, "mG-Pass@2": 12 + 4 / 2}.items():
        assert f"| &nbsp;&nbsp;{label} | {100 * share / 24:.1f} % |" in said
    twice = [[replace(one, sample=place, id=f"{place}") for place, one in enumerate(group.rollouts[:2] * 2)] for group in made]
    other = evaluated(tmp_path / "b", [replace(group, rollouts=rollouts) for group, rollouts in zip(made, twice, strict=True)], samples=4)
    written = json.loads(as_json(read([folder, other])))
    assert written["evaluations"][0]["attempts"] == pytest.approx(
        {"pass@4": 16 / 24, "pass^2": 14 / 24, "G-Pass@2": 16 / 24, "mG-Pass@2": 14 / 24}
    )
    moved = written["comparisons"][0]["attempts"]
    assert moved["pass^2"]["mean"] == pytest.approx(2 / 24) and moved["pass@4"]["mean"] == 0.0 and moved["pass^2"]["low"] < 2 / 24
    table = {row.label: row.cells for row in paired_table(read([folder, other]).comparisons[0]).rows}
    assert [cell.text for cell in table["pass^2, all of them right"]] == ["58.3 %", "66.7 %", "+8.3 points"]
    assert "pass^" not in markdown(read([evaluated(tmp_path / "c", make_groups(12, 50))]))


def test_one_problem_leaves_nothing_to_compare_with_intervals(tmp_path: Path) -> None:
    paths = [evaluated(tmp_path / name, make_groups(1, tokens, problems=1)) for name, tokens in (("a", 9), ("b", 5))]
    shown = by_source(read_entries(paths))["tiny"]
    pair = compare(*shown)
    assert pair.claim == "too few"
    assert report(paths, tmp_path / "page.html").is_file() and "too few" in markdown(read(paths))


def test_the_area_over_budgets_is_the_mean_height_of_the_curve_on_a_log2_axis(tmp_path: Path) -> None:
    """All right at 21 to 25 tokens: nothing at 20 and below, all from 25 on; the trapezoid between them counts half."""
    paths = [evaluated(tmp_path / name, make_groups(right, 21, problems=5)) for name, right in (("none", 0), ("all", 5))]
    (pair,) = read(paths).comparisons
    row = next(row for row in paired_table(pair).rows if row.label.startswith("mean over budgets"))
    expected = (np.log2(320 / 25) + 0.5 * np.log2(25 / 20)) / np.log2(320 / 5)
    assert (
        row.label == "mean over budgets 5 to 320, log2" and row.cells[1].text == f"{100 * expected:.1f} %" and row.cells[0].text == "0.0 %"
    )


def test_samples_that_were_never_made_are_no_saving(tmp_path: Path) -> None:
    """All wrong answers replaced by nothing: they count at the limit, and it is said."""
    whole, failed = make_groups(12, 200), make_groups(12, 200)
    for group in failed[12:]:
        for rollout in group.rollouts:
            nothing = np.zeros(0, np.int32)
            rollout.completion = replace(
                rollout.completion, ids=nothing, logprobs=nothing.astype(np.float32), versions=nothing, finish="abort"
            )
            rollout.answer_start = None
    (pair,) = read([evaluated(tmp_path / "a", whole), evaluated(tmp_path / "b", failed)]).comparisons
    assert pair.length is not None and pair.length.mean > 0 and pair.new.evaluation.tokens.mean == pytest.approx((205.5 + 320) / 2)
    assert any("24 after were never made" in remark for remark in pair.remarks)
    evaluated(tmp_path / "b", failed, template="other")  # texts of nothing are no saving, either
    (pair,) = read([tmp_path / "a", tmp_path / "b"]).comparisons
    assert (
        pair.unit == "characters" and pair.length is None and "Lengths are not compared" in markdown(read([tmp_path / "a", tmp_path / "b"]))
    )
    assert "count as wrong, and lengths in characters are not compared" in "; ".join(pair.remarks)


def test_evaluations_in_characters_are_compared_in_characters(two: list[Path]) -> None:
    for path, right in zip(two, (12, 20), strict=True):
        evaluated(path, make_groups(right, 60), template="characters")
    found = read(two)
    (pair,) = found.comparisons
    assert pair.unit == "characters" and pair.length is not None
    text = markdown(found)
    assert "Mean characters" in text and "E3 of" not in text and report(two, two[0].parent / "page.html").is_file()


def test_a_temperature_that_was_not_recorded_is_left_out(tmp_path: Path) -> None:
    folders = [evaluated(tmp_path / name, make_groups(12, 50), temperature=None) for name in ("a", "b")]
    text = page(read(folders))
    assert "temperature None" not in text and "2 samples each, at most 320 tokens" in text
    folders[1] = evaluated(tmp_path / "c", make_groups(12, 50))
    (pair,) = read(folders).comparisons
    assert pair.refused == "temperature was not recorded before and 0.6 after"


def test_a_loss_that_is_shown_is_never_called_as_accurate(tmp_path: Path) -> None:
    folders = [evaluated(tmp_path / "a", make_groups(24, 50)), evaluated(tmp_path / "b", make_groups(18, 50))]
    found = read(folders, margin=0.3)
    assert words.claim(found.comparisons[0]).startswith("Less accurate, and not shown to be within the margin")
    assert glance_table(found.comparisons).rows[0].cells[-1].text == "less accurate"


def test_no_table_says_less_of_a_budget_than_the_sentence_on_all_of_them(tmp_path: Path) -> None:
    """Seven problems of 40 are solved once more often in two: sign flips are certain (2 in 2^7), the interval of a claim holds a loss that was not seen for possible. Then neither says it."""
    old, new = make_groups(8, 100, 40), make_groups(8, 100, 40)
    for group in new[8:15]:
        group.rollouts[0] = replace(group.rollouts[0], verdict=Verdict("right", "integer", "7"))
    (pair,) = read([evaluated(tmp_path / "old", old), evaluated(tmp_path / "new", new)]).comparisons
    assert pair.p == pytest.approx(2 / 2**7) and pair.bounds is not None and pair.bounds.low < 0
    assert pair.better == ()


def test_uneven_samples_a_margin_that_is_set_now_and_empty_samples_are_reservations(tmp_path: Path) -> None:
    old, new = (
        evaluated(tmp_path / "old", make_groups(12, 100)),
        evaluated(tmp_path / "new", [*make_groups(12, 50)[:-1], *_single(make_groups(12, 50)[-1:])]),
    )
    (pair,) = read([old, new], margin=0.06).comparisons
    assert (
        "1 to 2 samples of a problem after" in pair.remarks
        and "a loss of 6 points is allowed now, 1 were when it was sampled" in pair.remarks
    )
    assert "with 2 and 1 to 2 samples each" in words.verdict(pair)
    empty = evaluated(tmp_path / "empty", make_groups(0, 0, text=""))
    table = pq.read_table(empty / "tiny.parquet")
    found = score(
        table.set_column(table.schema.get_field_index("tokens"), "tokens", pa.array([0] * len(table))),
        checkpoint="",
        step=0,
        source="tiny",
        settings=Settings(**SETTINGS | {"template": "digest"}),
    )
    (empty / "tiny.json").write_text(found.model_dump_json())
    (pair,) = read([empty, old]).comparisons
    assert pair.length is None and "all samples before are empty, so no length is relative to theirs" in pair.remarks
    assert not any("inf" in sentence or "nan" in sentence for sentence in sentences(read([empty, old])))


def _single(groups: list[Group]) -> list[Group]:
    return [replace(group, rollouts=group.rollouts[:1]) for group in groups]


def test_a_claim_that_does_not_stand_beside_the_others_says_so(tmp_path: Path) -> None:
    """Each of three sets alone is looked at once; together, one of twenty looks errs."""
    for source, gained in (("a", 6), ("b", 0), ("c", 0)):
        evaluated(tmp_path / "old", make_groups(4, 100, 40), source=source, name=source)
        evaluated(tmp_path / "new", make_groups(4 + gained, 100, 40), source=source, name=source)
    found = read([tmp_path / "old", tmp_path / "new"])
    assert next(pair.claim for pair in found.comparisons) == "better"
    doubt = "Of 3 comparisons one may look so by chance: adjusted for all of them (Holm), p is 0.094."
    assert any(sentence.endswith(doubt) and "More accurate" in sentence for sentence in sentences(found))
    assert doubt in page(found) and glance_table(found.comparisons).rows[0].cells[-1].small.startswith("Holm p 0.094")


def test_a_sure_thing_has_an_interval_at_every_budget(tmp_path: Path) -> None:
    found = read_run(evaluated(tmp_path / "all", make_groups(24, 100))).evaluations[0]
    assert found.budget_curve[-1].low == pytest.approx(found.accuracy.low) and found.budget_curve[0].high == pytest.approx(
        wilson(0.0, 24).high
    )
