"""What more samples buy, in a chart, a text, a table and the terminal: the same numbers, with what was run beside what was counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from evaluation import charts, parallel
from evaluation.attempts import maj_at_k, of_samples, short_m_at_k
from evaluation.comparisons import read, samples_of
from evaluation.entries import at_budgets
from evaluation.formats import as_json, markdown
from evaluation.paired import paired_table
from evaluation.report import page
from evaluation.statistics import share_interval
from launch.compare import compare_in_terminal
from rewards.verifier.verdict import Verdict
from rollout.records import CHARACTERS
from rollout.types import Group
from tests.unit.test_comparisons import evaluated
from tests.unit.test_report import make_groups


def several(solved: int, count: int = 6, tokens: int = 40) -> list[Group]:
    """Of each problem `count` samples, each longer than the last, the shortest `solved` of them right (fewer on later problems)."""
    groups = make_groups(0, tokens, problems=8)
    for place, group in enumerate(groups):
        model, group.rollouts = group.rollouts[0], []
        for sample in range(count):
            (made,) = make_groups(0, tokens + 10 * sample + place, problems=1)[0].rollouts[:1]
            right = sample < solved - place % 2
            made.id, made.sample, made.text = f"{model.id}-{sample}", sample, model.text
            made.verdict = Verdict("right", "integer", "7") if right else Verdict("wrong", "integer", str(sample // 2))
            group.rollouts.append(made)
    return groups


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    return [evaluated(tmp_path / name, several(solved), samples=6) for name, solved in (("base", 2), ("new", 4))]


def test_every_form_says_the_same_numbers(two: list[Path]) -> None:
    found = read(two)
    new = found.shown["tiny"][1]
    stored = of_samples(samples_of(new))
    short = np.mean([short_m_at_k(one, 3, 6) for one in stored], axis=0)
    told = f"{100 * short[0]:.1f} % [" in markdown(found) and f"{short[1]:,.0f} tokens of thinking, {short[2]:,.0f} waited for" in markdown(
        found
    )
    assert told and "| short-3 of 6 |" in markdown(found) and "### Several samples of a problem" in markdown(found)
    written = {(one["label"], one["method"]): one["points"] for one in json.loads(as_json(found))["several_samples"]}
    assert set(written) == {(label, method) for label in ("base", "new") for method in ("majority", "short-1", "short-3", "best by mean logprob", "oracle (pass@k)")}  # fmt: skip
    point = written["new", "short-3"][-1]
    assert (point["k"], point["accuracy"], point["tokens"], point["time"]) == (6, *(pytest.approx(value) for value in short))
    assert point["low"] <= point["accuracy"] <= point["high"]
    console = Console(width=300, record=True)
    compare_in_terminal(two, None, console)
    said = console.export_text()
    assert "several samples of a problem, from those that are stored" in said and f"{short[1]:,.0f} tokens of thinking" in said


def test_a_majority_of_all_samples_stands_beside_the_mean_with_its_interval(two: list[Path]) -> None:
    found = read(two)
    base, new = found.shown["tiny"]
    for one in (base, new):
        votes = [maj_at_k(chains, 6) for chains in of_samples(samples_of(one))]
        assert one.evaluation.majority is not None and one.evaluation.majority.k == 6
        assert [row.majority for row in one.evaluation.per_problem] == votes
        assert (one.evaluation.majority.mean, one.evaluation.majority.low, one.evaluation.majority.high) == pytest.approx(
            share_interval(np.array(votes))
        )
    assert new.evaluation.majority.mean > new.evaluation.accuracy.mean
    assert "maj@n (cons@n), a vote of the n samples that every problem has | " in markdown(found)
    [row] = [row for row in paired_table(found.comparisons[0]).rows if row.label == "maj@6 (cons@6)"]
    assert row.cells[2].text.endswith("points") and row.cells[2].small.startswith("[")


def test_single_samples_have_no_majority_and_two_no_curves(tmp_path: Path) -> None:
    single = evaluated(tmp_path / "one", several(1, count=1), samples=1)
    pair = evaluated(tmp_path / "two", several(1, count=2), samples=2)
    assert [one.evaluation.majority is None for one in read([single, pair]).shown["tiny"]] == [True, False]
    assert "several_samples" in as_json(read([pair])) and json.loads(as_json(read([pair])))["several_samples"] == []
    assert "Several samples" not in markdown(read([single])) + markdown(read([pair]))


def test_chains_that_were_run_are_marks_beside_the_curves_and_on_none_of_them(tmp_path: Path, two: list[Path]) -> None:
    for folder, solved in zip(two, (2, 4), strict=True):
        groups = several(solved)
        for group in groups:
            for rollout in group.rollouts[3:]:
                rollout.verdict = Verdict("not_judged", "stopped")
                object.__setattr__(rollout.completion, "finish", "stopped")
        evaluated(folder, groups, name="tiny@short-3-of-6", samples=6, budget={"kind": "short", "first": 3, "of": 6})
    found = read(two)
    assert [one.evaluation.settings.budget for one in found.shown["tiny"]] == [None, None]
    sampled = [charts.Sampled(one, samples_of(one)) for one in found.shown["tiny"]]
    budgets = at_budgets(found.runs, "tiny")
    assert charts.asked_panels(found.budgets["tiny"]) == []
    (base, of), _ = budgets
    later = (base, of.model_copy(update={"step": of.step + 1}))  # of another checkpoint
    assert parallel.beside(found.shown["tiny"][0], [later, *budgets]) == [(of.settings.budget, of)]
    panels = charts.parallel_panels(sampled, budgets)
    assert [panel.title for panel in panels] == [
        f"{label}, against {name}" for label in ("base", "new") for name in ("k", "thinking tokens", "time to answer")
    ]
    for panel in panels:
        [mark] = [trace for trace in panel.data if trace["name"] == "short-3@6, run"]
        [curve] = [trace for trace in panel.data if trace["name"] == "short-3"]
        assert (mark["x"], mark["y"], mark["mode"]) == ([curve["x"][-1]], [pytest.approx(curve["y"][-1])], "markers")
    assert len({str(panel.layout["yaxis"]["range"]) for panel in panels}) == 1
    assert "Marks: chains that were run together" in page(found) and "are drawn" not in page(found)
    table = parallel.several_table(found, "tiny")
    rows = {row.label: [cell.text for cell in row.cells] for row in table.rows}
    assert rows["short-3@6, run"] == rows["short-3 of 6"]


def test_what_counted_the_tokens_is_said_where_two_rulers_stand_side_by_side(tmp_path: Path) -> None:
    folders = [
        evaluated(tmp_path / name, several(2), samples=6, template=template) for name, template in (("a", "x"), ("b", "y"), ("c", "x"))
    ]
    heads = [parallel.several_table(read(found), "tiny").head for found in (folders[:2], folders[::2])]
    assert heads == [["a, lengths in tokens of template x", "b, lengths in tokens of template y"], ["a", "c"]]


def test_lengths_in_characters_are_called_so(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "letters", several(2), samples=6, template=CHARACTERS)
    [cell] = next(row for row in parallel.several_table(read([folder]), "tiny").rows if row.label == "majority of 6").cells
    assert "characters of thinking" in cell.small
    (shown,) = read([folder]).shown["tiny"]
    panels = charts.parallel_panels([charts.Sampled(shown, samples_of(shown))])
    assert [panel.layout["xaxis"]["title"]["text"] for panel in panels][1:] == [
        "thinking characters of all k",
        "thinking characters waited for",
    ]


def test_votes_among_very_many_samples_are_drawn_and_the_first_to_finish_counted(tmp_path: Path) -> None:
    (shown,) = read([evaluated(tmp_path / "many", several(90, count=170)[:2], samples=170)]).shown["tiny"]
    samples = samples_of(shown)
    found = {curve.method: {at.k: at for at in curve.points} for curve in parallel.curves(samples)}
    stored = of_samples(samples)
    for k in (4, 16, 64):
        exact = np.mean([short_m_at_k(one, k, k) for one in stored], axis=0)
        drawn = found["majority"][k]
        assert (
            drawn.tokens != exact[1]
            and drawn.accuracy == pytest.approx(exact[0], abs=0.06)
            and drawn.tokens == pytest.approx(exact[1], rel=0.03)
        )
        assert found["short-3"][k].accuracy == pytest.approx(np.mean([short_m_at_k(one, 3, k).accuracy for one in stored]), abs=1e-12)


@pytest.mark.parametrize("samples", [4, 6, 16])
def test_the_axis_of_k_has_a_tick_at_every_k_that_is_drawn(tmp_path: Path, samples: int) -> None:
    (shown,) = read([evaluated(tmp_path / "one", several(3, count=samples), samples=samples)]).shown["tiny"]
    panel = charts.parallel_panels([charts.Sampled(shown, samples_of(shown))])[0]
    drawn = sorted({k for trace in panel.data for k in trace["x"]})
    low, high = (10**end for end in panel.layout["xaxis"]["range"])
    assert panel.layout["xaxis"]["tickvals"] == drawn == [k for k in (1, 2, 3, 4, 6, 8, 16) if k <= samples and (k != 6 or samples == 6)]
    assert low < 1 and high > samples and panel.layout["xaxis"]["ticktext"] == [str(k) for k in drawn]
