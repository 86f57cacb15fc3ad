"""Training curves: what every step recorded as small charts over steps, in the order, words and units of the register (rollout/metrics).

Here stands only how a panel looks. A panel that never moves is words, not a chart, unless it is the result itself.
Simplification: a curve that repeats one before it in its panel point by point (limits where all are one) is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from evaluation import words
from evaluation.entries import ACCENT, BASE
from evaluation.figures import FAINT, LIMIT, RIGHT, WRONG, Panel, drawn_line, laid_out
from rollout.metrics import SECTIONS, Metric, find, varying

Records = Sequence[Mapping[str, Any]]

RESULTS = ("Accuracy", "Length")  # drawn though they may never move
STACKED = ("Groups sampled", "Time per step")
LOGARITHMIC = ("Learner against engine", "Gate by position")  # where they span more than a power of ten
BESIDE = ("accuracy", "length/mean", "truncated", "limit", "budget/share", "reward/mean", "entropy", "kl", "grad_norm", "tokens/trained")
FREE = ("Accuracy", "Reward", "Controller", "Ratio", "Mismatch correction")  # whose axis need not begin at 0
DASHED = ("limit", "limit/rewarded", "budget/floor")
COLOURS = {
    "length/wrong": WRONG,
    "length/right": RIGHT,
    "length/mean": ACCENT,
    "limit": LIMIT,
    "limit/rewarded": BASE,
    "truncated": WRONG,
    "not_judged": LIMIT,
    "groups/all_right": "#a9cbb7",
    "groups/all_wrong": "#e3b49c",
    "groups/flat": FAINT,
    "groups/surplus": "#b59b6a",
    "groups/not_judged": LIMIT,
    "reward/mean": ACCENT,
    "budget/floor": LIMIT,
    "mismatch/max": BASE,
    "gate/p99": "#b59b6a",
    "audit/right_only_there": WRONG,
}
_SHADES = ("#7fb1c2", "#b59b6a", "#8f86b8", "#7aa884", "#b5702a", "#5b6470")
_RAMP = ((178, 212, 223), (9, 70, 94))  # of numbered curves, from the first to the last


class _Curve(NamedTuple):
    """A metric over the steps that recorded it, in the unit of its chart; None where it was null."""

    name: str
    metric: Metric
    label: str
    steps: list[int]
    values: list[float | None]

    @property
    def moves(self) -> bool:
        return len({f"{value:.6g}" for value in self.values if value is not None}) > 1


def training_panels(metrics: Records) -> dict[str, list[Panel]]:
    """The charts of a run by section of the register, without sections that have none.

    Lines over steps, or areas that add up. A null is a gap; a metric that is never there, or always null, has no key, and a panel without any is left out.
    """
    found = {
        section: [_panel(title, curves, len(metrics)) for title, curves in moving] for section, (moving, _) in _sorted(metrics).items()
    }
    return {section: drawn for section, panels in found.items() if (drawn := [panel for panel in panels if panel.data])}


def beside_panels(runs: Sequence[tuple[str, str, Records]]) -> list[Panel]:
    """One chart for each of a few metrics with a curve for each run, (label, colour, metrics); those that no run moves are left out."""
    panels = []
    for name in BESIDE:
        metric = find(name)
        assert metric is not None
        drawn = [(label, colour, _curve(name, metric, "", metrics)) for label, colour, metrics in runs]
        there = [one for one in drawn if any(value is not None for value in one[2].values)]
        if len(there) < 2 or not any(curve.moves for _, _, curve in there):
            continue
        data = [drawn_line(curve.steps, curve.values, label, colour, hover="%{y:.4~g}", width=1.6) for label, colour, curve in there]
        title = f"{metric.panel}, {metric.label}" if metric.label and metric.label != metric.panel else metric.panel
        keys = [(label, colour, False) for label, colour, _ in there]
        panels.append(Panel(title, keys, data, laid_out(yrange=None if metric.panel in FREE else [0, None]), unit=_unit(metric)))
    return panels


def at_rest(metrics: Records) -> str:
    """What is not drawn because it had one value throughout, in sentences; "" without such."""
    resting = [item for _, still in _sorted(metrics).values() for item in still]
    zero = [title for title, curves in resting if not any(value for curve in curves for value in curve.values)]
    zero_words = ", ".join(title + _why(curves) for title, curves in resting if title in zero)
    other_words = ", ".join(f"{title} {_values(curves)}{_why(curves)}" for title, curves in resting if title not in zero)
    said = [f"0 throughout: {zero_words}."] * bool(zero) + [f"The same throughout: {other_words}."] * bool(other_words)
    return " ".join(said)


def _sorted(metrics: Records) -> dict[str, tuple[list[tuple[str, list[_Curve]]], list[tuple[str, list[_Curve]]]]]:
    """The panels of each section that have something to show, each with its curves: those to draw, and those that never moved."""
    names = dict.fromkeys(name for record in metrics for name in record)
    found = {}
    for section, listed in SECTIONS.items():
        panels: dict[str, list[_Curve]] = {}
        for metric in listed:
            for name in sorted((name for name in names if metric.panel and find(name) is metric), key=_by_number):
                part = varying(metric, name) or ""
                curve = _curve(name, metric, part, metrics)
                if any(value is not None for value in curve.values):
                    panels.setdefault(_filled(metric.panel, part), []).append(curve)
        still = {title for title, curves in panels.items() if len(metrics) > 1 and not any(curve.moves for curve in curves)} - {*RESULTS}
        items = list(panels.items())
        found[section] = [item for item in items if item[0] not in still], [item for item in items if item[0] in still]
    return found


def _curve(name: str, metric: Metric, part: str, metrics: Records) -> _Curve:
    there = [record for record in metrics if name in record]
    scale = 100 if metric.unit == "share" else 1
    values = [None if record[name] is None else scale * record[name] for record in there]
    return _Curve(name, metric, _filled(metric.label, part), [record["step"] for record in there], values)


def _filled(words: str, part: str) -> str:
    """Words of the register with what a name says in the place that varies."""
    before, mark, rest = words.partition("<")
    return before + part + rest.partition(">")[2] if mark else words


def _by_number(name: str) -> tuple[int, str]:
    tail = name.rpartition("_")[2]
    return (int(tail) if tail.isdecimal() else 0), name


def _panel(title: str, curves: Sequence[_Curve], recorded: int) -> Panel:
    if title in STACKED:
        kept = [curve for curve in curves if any(curve.values)]
    else:
        drawn = [(curve.steps, curve.values) for curve in curves]
        kept = [curve for place, curve in enumerate(curves) if drawn[place] not in drawn[:place]]
    data, keys = [], []
    for curve, colour in zip(kept, _colours(kept), strict=True):
        dashed = curve.name in DASHED
        trace = drawn_line(curve.steps, curve.values, curve.label, colour, hover="%{y:.4~g}", dashed=dashed, width=1.6)
        if title in STACKED:
            trace |= {"stackgroup": "all", "fillcolor": colour, "line": {"width": 0, "color": colour}}
        if len(curve.steps) == 1:
            trace["mode"] = "markers"
        elif len(curve.steps) < recorded and title not in STACKED:
            trace |= {"mode": "lines+markers", "marker": {"size": 4, "color": colour}}  # where it was looked at
        data.append(trace)
        keys.append((curve.label, colour, dashed))
    values = [value for curve in kept for value in curve.values if value is not None]
    log = title in LOGARITHMIC and max(values, default=0) > 10 * min(values, default=0) > 0
    layout = laid_out(yrange=[0, None] if not log and title not in FREE and min(values, default=0) >= 0 else None)
    if log:
        layout["yaxis"] |= {"type": "log", "exponentformat": "power", "dtick": 1}
    return Panel(title, keys, data, layout, unit=_unit(curves[0].metric))


def _colours(curves: Sequence[_Curve]) -> list[str]:
    """One for each curve: its own, the accent for the first that has none, then shades; numbered curves run from light to dark."""
    if len(curves) > 1 and all("<N>" in curve.metric.name for curve in curves):
        shares = [place / (len(curves) - 1) for place in range(len(curves))]
        return ["#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(*_RAMP, strict=True)) for share in shares]
    own = [COLOURS.get(curve.name) for curve in curves]
    others = iter(([] if ACCENT in own else [ACCENT]) + [*_SHADES] * len(curves))
    return [colour or next(others) for colour in own]


def _unit(metric: Metric) -> str:
    return "%" if metric.unit == "share" else metric.unit


def _values(curves: Sequence[_Curve]) -> str:
    """The values of curves that never moved, with their unit; by name where they differ."""
    unit = f" {_unit(curves[0].metric)}".rstrip()
    said = {curve.label: f"{words.number(next(value for value in curve.values if value is not None), 4)}{unit}" for curve in curves}
    return next(iter(said.values())) if len({*said.values()}) == 1 else ", ".join(f"{label} {value}" for label, value in said.items())


def _why(curves: Sequence[_Curve]) -> str:
    return "".join(f" ({curve.metric.still})" for curve in curves if curve.metric.still)
