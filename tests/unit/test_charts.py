"""Charts of samples: what they draw is what the numbers say, and kinds of budgets are kept apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation import charts
from evaluation.attempts import maj_at_k, of_samples, short_m_at_k
from evaluation.comparisons import read, samples_of
from evaluation.entries import Shown
from evaluation.report import page
from rollout.types import Group
from tests.unit.test_comparisons import evaluated
from tests.unit.test_report import make_groups


def shown(paths: list[Path]) -> list[Shown]:
    return read(paths).shown["tiny"]


def sampled(paths: list[Path]) -> list[charts.Sampled]:
    return [charts.Sampled(one, samples_of(one, scores=True)) for one in shown(paths)]


def three_samples(right: int, tokens: int) -> list[Group]:
    """Three samples a problem, the first two as `make_groups` makes them, the third with the first one's verdict and longer by 5."""
    groups = make_groups(right, tokens)
    for group, longer in zip(groups, make_groups(right, tokens + 5), strict=True):
        third = longer.rollouts[0]
        third.sample, third.id = 2, f"{group.rollouts[0].id}-third"
        group.rollouts.append(third)
    return groups


def test_the_front_passes_what_nothing_beats_and_three_points_are_needed(tmp_path: Path) -> None:
    paths = [
        evaluated(tmp_path / name, make_groups(right, tokens)) for name, right, tokens in (("a", 12, 200), ("b", 20, 50), ("c", 10, 80))
    ]
    assert charts.pareto_panel(shown(paths[:2])) is None
    panel = charts.pareto_panel(shown(paths))
    assert panel is not None
    assert panel.data[0]["x"] == [61.5, 61.5, 320] and panel.data[0]["y"] == [0, pytest.approx(2000 / 24), pytest.approx(2000 / 24)]
    assert f"{100 * (20 / 24) * (320 - 61.5) / 320:.1f} % of the area up to 320 tokens" in panel.note
    # budgets 5, 10, 20, 40, 80, 160: b solves those of its 20 problems of at most 80 tokens, c 1 within 80 and all 10 within 160, a none
    assert "summed over the budgets 5, 10, 20, 40, 80, 160: a 1.67, b 0.00, c 1.21." in panel.note
    other = evaluated(tmp_path / "d", make_groups(20, 50), template="another")
    assert charts.pareto_panel(shown([*paths, other])) is None  # tokens of another tokenizer


def test_a_histogram_counts_every_sample_once(tmp_path: Path) -> None:
    groups = make_groups(12, 200)
    for rollout in groups[-1].rollouts:
        rollout.completion = replace(rollout.completion, finish="length")
    panels = charts.length_panels(sampled([evaluated(tmp_path / "a", groups), evaluated(tmp_path / "b", make_groups(20, 50))]))
    assert [sum(sum(trace["y"]) for trace in panel.data) for panel in panels] == [48, 48]
    assert [(trace["name"], sum(trace["y"])) for trace in panels[0].data] == [("right", 24), ("wrong", 22), ("cut off", 2)]


def test_mistakes_among_long_samples_rise_to_the_share_of_the_longest(tmp_path: Path) -> None:
    """Problems 0 to 11 are right and shorter than 12 to 23: of all, half are wrong; of the 24 longest, all."""
    (trace,) = charts.error_panel(sampled([evaluated(tmp_path / "a", make_groups(12, 200))])).data
    assert trace["y"][0] == 50 and trace["y"][-1] == 100 and trace["y"] == sorted(trace["y"])
    assert 212 < trace["x"][-1] <= 214  # two each of 200 to 223 tokens: beyond 214 there are fewer than 20


def test_accuracy_by_length_is_shown_within_tiers_of_difficulty(tmp_path: Path) -> None:
    panels = charts.tier_panels(sampled([evaluated(tmp_path / "a", make_groups(12, 200)), evaluated(tmp_path / "b", make_groups(20, 50))]))
    assert len(panels) == 2
    for panel in panels:
        assert {trace["name"] for trace in panel.data} <= {"easiest", "easier", "harder", "hardest"} and len(panel.data) > 1


def test_tiers_are_those_of_the_problems_whatever_their_order(tmp_path: Path) -> None:
    groups = make_groups(12, 200)
    first, same, turned = sampled([evaluated(tmp_path / name, made) for name, made in (("a", groups), ("b", groups), ("c", groups[::-1]))])
    drawn = [[(one["name"], one["x"], one["y"]) for one in panel.data] for panel in charts.tier_panels([first, same, turned])]
    assert drawn[0] == drawn[1] == drawn[2] and drawn[0]


def test_problems_that_both_solve_are_set_against_each_other(tmp_path: Path) -> None:
    old, new = sampled([evaluated(tmp_path / "a", make_groups(12, 200)), evaluated(tmp_path / "b", make_groups(20, 50))])
    panel = charts.pairs_panel(old, new)
    assert panel is not None and panel.data[1]["x"] == [200 + i for i in range(12)] and panel.data[1]["y"] == [50 + i for i in range(12)]
    assert "12 problems that both solve; 0 % of them take longer now." in panel.note
    (other,) = sampled([evaluated(tmp_path / "c", make_groups(20, 50), template="another")])
    assert charts.pairs_panel(old, other) is None
    (few,) = sampled([evaluated(tmp_path / "d", make_groups(20, 50, problems=20))])
    assert charts.pairs_panel(old, few) is None


def test_votes_are_the_exact_means_of_stored_samples(tmp_path: Path) -> None:
    path = evaluated(tmp_path / "a", three_samples(12, 200), samples=3)
    by_k, by_tokens, by_time = charts.parallel_panels(sampled([path]))
    majority = next(trace for trace in by_tokens.data if trace["name"] == "majority")
    stored = of_samples(sampled([path])[0].samples)
    assert majority["y"] == [pytest.approx(100 * np.mean([maj_at_k(one, k) for one in stored])) for k in (1, 2, 3)]
    assert [words.split(":")[0] for words in majority["customdata"]] == ["k = 1", "k = 2", "k = 3"] and majority["x"] == sorted(
        majority["x"]
    )
    for place, panel in enumerate((by_k, by_tokens, by_time)):
        lines = {trace["name"]: trace for trace in panel.data}
        assert set(lines) == {"majority", "short-1", "best by mean logprob", "oracle (pass@k)"}
        for name, m_of in (("majority", lambda k: k), ("short-1", lambda k: 1)):
            ks = [1, 2, 3] if name == "majority" else [2, 3]
            found = [np.mean([short_m_at_k(one, m_of(k), k) for one in stored], axis=0) for k in ks]
            assert lines[name]["x"] == [pytest.approx(k if not place else value[place]) for k, value in zip(ks, found, strict=True)]
            assert lines[name]["y"] == [pytest.approx(100 * value[0]) for value in found]
    assert charts.parallel_panels(sampled([evaluated(tmp_path / "b", make_groups(12, 200))])) == []  # two samples


def test_what_attempts_reach_and_how_often_again_is_shown_for_all_k(tmp_path: Path) -> None:
    panels = charts.attempts_panels(shown([evaluated(tmp_path / "a", three_samples(12, 200), samples=3)]))
    assert [panel.title for panel in panels] == ["pass@k", "G-Pass@k", "pass^k"]
    assert [panel.data[0]["x"] for panel in panels] == [[1, 2, 3], [2], [1, 2, 3]]
    assert all(set(panel.data[0]["y"]) == {50} for panel in panels)


def test_forced_and_requested_budgets_are_charts_of_their_own_and_not_the_natural_curve(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "a", make_groups(20, 50))
    for kind, limit, right in (("forced", 64, 10), ("forced", 32, 5), ("requested", 32, 8)):
        evaluated(folder, make_groups(right, limit), name=f"tiny@{kind}-{limit}", budget={"kind": kind, "limit": limit})
    found = read([folder])
    forced, requested = charts.asked_panels(found.budgets["tiny"])
    assert (forced.title, requested.title) == ("Accuracy at budgets, forced", "Accuracy at budgets, requested")
    assert forced.data[0]["text"] == ["32", "64"] and forced.data[0]["y"] == [pytest.approx(100 * right / 24) for right in (5, 10)]
    assert (
        f"{1e5 * (10 - 5) / 24 / 32:+.2f} points for each further 1,000 tokens (s1's Scaling)" in forced.note
        and "Scaling" not in requested.note
    )
    assert [one.evaluation.settings.budget for one in found.shown["tiny"]] == [None]
    assert "At budgets that were asked for" in page(found)
