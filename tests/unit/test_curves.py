"""Training curves: what the register lists and a run recorded is drawn in the register's words, or said where it never moved."""

from __future__ import annotations

import pytest

from evaluation import curves
from evaluation.curves import at_rest, beside_panels, training_panels
from evaluation.figures import Panel
from rollout.metrics import METRICS, SECTIONS


def drawn(metrics: list[dict]) -> dict[str, Panel]:
    return {panel.title: panel for panels in training_panels(metrics).values() for panel in panels}


def labels(panel: Panel) -> list[str]:
    return [label for label, _, _ in panel.keys]


def over(name: str, *values: float | None) -> list[dict]:
    return [{"step": step, name: value} for step, value in enumerate(values)]


def recorded(name: str) -> str:
    return name.replace("<N>", "0").replace("<term>", "verdict").replace("<name>", "words")


@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric.panel], ids=lambda metric: metric.name)
def test_every_metric_with_a_panel_is_drawn_once_it_moves_and_said_where_it_does_not(metric):
    name = recorded(metric.name)
    panel = drawn(over(name, 0.25, 0.5))[metric.panel.replace("<name>", "words")]
    scale = 100 if metric.unit == "share" else 1
    assert [trace["y"] for trace in panel.data] == [[scale * 0.25, scale * 0.5]]
    assert panel.unit == ("%" if metric.unit == "share" else metric.unit)
    assert (panel.title in at_rest(over(name, 0.5, 0.5))) == (panel.title not in curves.RESULTS)


def test_panels_come_in_the_order_of_the_register_whatever_the_order_of_the_record():
    names = [recorded(metric.name) for metric in METRICS if metric.panel]
    metrics = [{"step": step} | {name: (step + 1) * (place + 1) for place, name in enumerate(reversed(names))} for step in range(2)]
    found = training_panels(metrics)
    titles = list(dict.fromkeys(metric.panel.replace("<name>", "words") for metric in METRICS if metric.panel))
    assert [panel.title for panels in found.values() for panel in panels] == titles
    assert list(found) == list(SECTIONS)


def test_what_looks_of_panels_name_is_in_the_register():
    titles, names = {metric.panel for metric in METRICS}, {metric.name for metric in METRICS}
    assert {*curves.RESULTS, *curves.STACKED, *curves.LOGARITHMIC, *curves.FREE} <= titles
    assert {*curves.COLOURS, *curves.DASHED} <= names


def test_a_clip_fraction_that_is_always_0_is_said_with_its_reason_and_not_drawn():
    metrics = [{"step": step, "clip_fraction": 0.0, "ratio/mean": 1 + 1e-9 * step, "lr": 2e-5} for step in range(3)]
    assert drawn(metrics) == {}
    assert at_rest(metrics) == (
        "0 throughout: Clip fraction (with one update a step the ratio is 1, and nothing can leave the range). "
        "The same throughout: Ratio 1 (one update a step, which starts from the policy that sampled), Learning rate 2e−5."
    )


def test_curves_of_one_panel_that_rest_at_different_values_are_said_by_name():
    assert at_rest([{"step": step, "selected": 1.0, "tokens/kept": 0.2} for step in range(2)]) == (
        "The same throughout: Selection of rollouts 100 %, of their tokens 20 %."
    )


def test_a_single_step_is_drawn_as_points_and_rests_nowhere():
    metrics = over("clip_fraction", 0.0)
    assert at_rest(metrics) == "" and [trace["mode"] for trace in drawn(metrics)["Clip fraction"].data] == ["markers"]


def test_a_null_is_a_gap_and_a_step_that_did_not_look_is_none():
    metrics = [{"step": 0, "kl": 0.1, "monitor/accuracy": 0.5}, {"step": 1, "kl": None}, {"step": 2, "kl": 0.3, "monitor/accuracy": 0.75}]
    found = drawn(metrics)
    assert found["KL to the reference"].data[0]["y"] == [0.1, None, 0.3]
    [looked] = found["Accuracy"].data
    assert (looked["x"], looked["y"], looked["mode"]) == ([0, 2], [50, 75], "lines+markers")


def test_a_limit_that_rewards_went_by_has_a_curve_where_it_is_another_than_the_stated_one():
    same = [{"step": step, "limit": 96, "limit/rewarded": 96} for step in range(2)]
    other = [{"step": step, "limit": 96, "limit/rewarded": 80 + step} for step in range(2)]
    assert labels(drawn(same)["Length"]) == ["limit"]
    assert labels(drawn(other)["Length"]) == ["limit", "limit rewarded"]


def test_terms_and_logged_numbers_stand_under_their_own_names_and_positions_in_their_order():
    metrics = [
        {"step": step, "reward/verdict": step, "reward/mine:calm": -step, "reward/mean": step / 2, "function/a/<b>": step}
        | {f"gate/from_{start}": (step + 1) / (start + 1) for start in (1024, 64, 0, 256)}
        for step in range(2)
    ]
    found = drawn(metrics)
    assert labels(found["Reward"]) == ["mine:calm", "verdict", "mean"]
    assert labels(found["Logged: a/<b>"]) == ["mean over the step"]
    assert labels(found["Gate by position"]) == ["from 0", "from 64", "from 256", "from 1024"]
    assert len({colour for _, colour, _ in found["Gate by position"].keys}) == 4


def test_stacked_areas_leave_out_what_never_was():
    metrics = [{"step": step, "groups/trained": 8 + step, "groups/flat": 0, "groups/all_right": 2} for step in range(2)]
    assert labels(drawn(metrics)["Groups sampled"]) == ["trained", "all right"]
    assert drawn(over("groups/trained", 0)) == {}


def test_names_that_the_register_does_not_know_are_not_drawn():
    assert drawn(over("of another version", 1, 2)) == {} and at_rest(over("of another version", 1, 1)) == ""


def test_of_several_runs_the_main_metrics_that_move_stand_side_by_side() -> None:
    one = [{"step": step, "accuracy": 0.5 + step / 10, "length/mean": 90.0, "entropy": None} for step in range(3)]
    other = [{"step": step, "accuracy": 0.5, "length/mean": 90.0} for step in range(2)]
    (panel,) = beside_panels([("a", "#111111", one), ("b", "#222222", other)])
    assert [(trace["name"], trace["x"], trace["y"]) for trace in panel.data] == [("a", [0, 1, 2], [50, 60, 70]), ("b", [0, 1], [50, 50])]
    assert panel.title.startswith("Accuracy") and panel.unit == "%"
    assert beside_panels([("a", "#111111", one)]) == []
