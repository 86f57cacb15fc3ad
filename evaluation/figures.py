"""The report's charts as plain plotly specifications: numbers in, dictionaries out, nothing drawn here.

Before is grey, after has the one accent colour; warm colours mean wrong or wasted. Keys stand in the caption, not in the plot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from evaluation.entries import ACCENT, Shown
from evaluation.results import Evaluation

RIGHT, WRONG, LIMIT, FAINT = "#2c8a57", "#c8663a", "#5b6470", "#c9ced4"
_FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif", "size": 12, "color": "#4a525b"}
_TICKS = 3  # an axis with fewer says too little
APART = 1.2  # times as much: ticks of a logarithmic axis that are nearer run into each other
_AXIS = {"gridcolor": "#eceff2", "zeroline": False, "linecolor": "#c9ced4", "ticks": "", "automargin": True}


class Panel(NamedTuple):
    """A chart with its caption: keys are (label, colour, dashed), a key without a colour is a remark."""

    title: str
    keys: list[tuple[str, str, bool]]
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    note: str = ""
    unit: str = ""
    height: int = 190


def budget_panel(shown: Sequence[Shown]) -> Panel:
    """Accuracy against the length a sample is allowed, with the 95 % band over problems; all of one ruler."""
    data, unit = [], shown[0].evaluation.settings.unit
    for one in shown:
        label, colour, evaluation = one.label, one.colour, one.evaluation
        curve = evaluation.budget_curve
        budgets = [point.budget for point in curve]
        bounds = [(point.low, point.high) for point in curve if point.low is not None and point.high is not None]
        if len(bounds) == len(curve):
            low, high = ([100 * bound for bound in side] for side in zip(*bounds, strict=True))
            data.append(drawn_band(budgets, low, high, colour))
        data.append(
            drawn_line(budgets, [100 * point.accuracy for point in curve], label, colour, hover=f"%{{y:.1f}} % within %{{x:,.0f}} {unit}")
        )
    note = "Cut after the fact: the same samples, counted as right if they were done within the budget. Band: 95 % interval over problems."
    cap = max(one.evaluation.budget_curve[-1].budget for one in shown)
    first = min(one.evaluation.budget_curve[0].budget for one in shown)
    layout = log_axis(laid_out(x=f"{unit} allowed per sample", yrange=[0, 102]), first, cap)
    return Panel(f"Accuracy against {unit.removesuffix('s')} budget", keys_of(shown), data, layout, note, "%", 360)


def cost_panel(shown: Sequence[Shown]) -> Panel:
    """Accuracy against the length really used on average, along the same budgets; the dot is the model uncut. All of one ruler."""
    data, unit = [], shown[0].evaluation.settings.unit
    hover = f"%{{y:.1f}} % at %{{x:,.0f}} {unit}"
    for one in shown:
        label, colour, evaluation = one.label, one.colour, one.evaluation
        curve = evaluation.budget_curve
        used, share = [point.tokens for point in curve], [100 * point.accuracy for point in curve]
        data.append(drawn_line(used, share, label, colour, hover=hover))
        dot = drawn_dot(evaluation, f"{label}, uncut", colour, hover=hover)
        dot["marker"]["line"] = {"color": "white", "width": 1.5}
        data.append(dot)
    note = f"{unit.capitalize()} used: mean of min(length, budget) along the same budgets. Dot: nothing cut, with both 95 % intervals."
    most = max(one.evaluation.tokens.high or one.evaluation.tokens.mean for one in shown)
    least = min(one.evaluation.budget_curve[0].tokens for one in shown)
    layout = log_axis(laid_out(x=f"mean {unit} used per sample", yrange=[0, 102]), least, 1.1 * most)
    return Panel(f"Accuracy against {unit} used", keys_of(shown), data, layout, note, "%", 360)


def level_panels(shown: Sequence[Shown]) -> list[Panel]:
    """One panel a family, lengths above and accuracy below, by level; all families share their axes."""
    cells, unit = [row for one in shown for row in one.evaluation.by_level], shown[0].evaluation.settings.unit
    top = 1.08 * max((row.tokens for row in cells), default=1)
    levels = sorted({row.level for row in cells})
    panels = []
    for family in sorted({row.family for row in cells}):
        data: list[dict[str, Any]] = []
        for one in shown:
            label, colour, evaluation = one.label, one.colour, one.evaluation
            rows = [row for row in evaluation.by_level if row.family == family]
            level = [row.level for row in rows]
            for axis, values, hover in (
                ("y2", [row.tokens for row in rows], f"%{{y:,.0f}} {unit}"),
                ("y", [100 * row.accuracy for row in rows], "%{y:.0f} %"),
            ):
                line = drawn_line(level, values, label, colour, hover=hover)
                data.append(line | {"mode": "lines+markers", "marker": {"size": 5, "color": colour}, "yaxis": axis})
        layout = laid_out(x="level", y="accuracy, %", yrange=[0, 105], xrange=[levels[0] - 0.4, levels[-1] + 0.4])
        layout["xaxis"] |= {"dtick": max(1, (len(levels) + 7) // 8)}
        layout["yaxis"] |= {"domain": [0, 0.42], "tickvals": [0, 50, 100]}
        layout["yaxis2"] = {**_AXIS, **_title(unit), "range": [0, top], "domain": [0.54, 1], "nticks": 5}
        problems = sum(row.problems for row in shown[0].evaluation.by_level if row.family == family)
        panels.append(Panel(family or "all problems", [(f"{problems} problems", "", False)], data, layout, height=290))
    return panels


def held_out_panels(evaluations: Sequence[Evaluation]) -> list[Panel]:
    """Accuracy and tokens of every evaluation of a source over steps, with 95 % intervals."""
    steps = [evaluation.step for evaluation in evaluations]
    panels, length = [], evaluations[-1].settings.unit
    for title, unit, key, scale in (("Held-out accuracy", "%", "accuracy", 100), (f"Held-out {length}", length, "tokens", 1)):
        mean, low, high = (
            [None if (value := getattr(getattr(e, key), bound)) is None else scale * value for e in evaluations]
            for bound in ("mean", "low", "high")
        )
        line = drawn_line(steps, mean, title, ACCENT, hover="%{y:.4~g}") | {"mode": "lines+markers"}
        if None not in low:
            line["error_y"] = error_bars(mean, low, high, ACCENT)
        keys = [("mean with 95 % interval", ACCENT, False)]
        panels.append(Panel(title, keys, [line], laid_out(yrange=[0, None] if key == "tokens" else None), unit=unit))
    return panels


def keys_of(shown: Sequence[Shown]) -> list[tuple[str, str, bool]]:
    """A key for each, as captions have them."""
    return [(one.label, one.colour, False) for one in shown]


def drawn_line(
    x: Sequence[Any], y: Sequence[Any], name: str, colour: str, *, hover: str, dashed: bool = False, width: float = 2.2
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(x),
        "y": list(y),
        "name": name,
        "line": {"color": colour, "width": width, "dash": "4px,3px" if dashed else "solid"},
        "hovertemplate": f"{hover}<extra>{name}</extra>",
    }


def drawn_dot(of: Evaluation, name: str, colour: str, *, hover: str) -> dict[str, Any]:
    """Accuracy at mean length, each with its interval."""
    length, accuracy = of.tokens, of.accuracy
    dot = drawn_line([length.mean], [100 * accuracy.mean], name, colour, hover=hover)
    dot |= {"mode": "markers", "marker": {"color": colour, "size": 10}}
    dot["error_y"] = error_bars([100 * accuracy.mean], [100 * accuracy.low], [100 * accuracy.high], colour)
    if length.low is not None:
        dot["error_x"] = error_bars([length.mean], [length.low], [length.high], colour)
    return dot


def drawn_band(x: Sequence[Any], low: Sequence[float], high: Sequence[float], colour: str) -> dict[str, Any]:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return {
        "type": "scatter",
        "x": [*x, *reversed(x)],
        "y": [*high, *reversed(low)],
        "fill": "toself",
        "fillcolor": f"rgba({red},{green},{blue},0.16)",
        "line": {"width": 0},
        "mode": "lines",
        "hoverinfo": "skip",
    }


def error_bars(mean: Sequence[Any], low: Sequence[Any], high: Sequence[Any], colour: str) -> dict[str, Any]:
    up, down = ([b - a for a, b in zip(*ends, strict=True)] for ends in ((mean, high), (low, mean)))
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "color": colour, "thickness": 1.3, "width": 0}


def log_axis(
    layout: dict[str, Any], first: float, last: float, axis: str = "xaxis", ticks: Sequence[float] | None = None
) -> dict[str, Any]:
    """The layout with a logarithmic axis from first to last.

    Args:
        ticks: None: `even` ones.
    """
    first, last = max(first, 0.9), max(last, first + 1)
    shown = even(first, last) if ticks is None else list(ticks)
    scale = {"type": "log", "range": [math.log10(first), math.log10(last)], "tickvals": shown}
    return layout | {axis: layout[axis] | scale | {"ticktext": [f"{tick:,}" for tick in shown]}}


def even(first: float, last: float) -> list[int]:
    """Round numbers for the ticks of a logarithmic axis: 1, 2, 5, 10, ..., and where too few of these fit, such at even steps."""
    decades = [step * 10**power for power in range(9) for step in (1, 2, 5) if first <= step * 10**power <= last]
    if len(decades) >= _TICKS:
        return decades
    step = next(step * 10**power for power in range(9) for step in (1, 2, 5) if (last - first) / (step * 10**power) <= 2 * _TICKS - 1)
    return list(range(step * math.ceil(first / step), int(last) + 1, step))


def around(marks: Sequence[int], first: float, last: float) -> list[int]:
    """Ticks at all marks that do not stand in each other's way, then round ones between."""
    found: list[int] = []
    for tick in [*marks, *even(first, last)]:
        if all(max(tick, other) >= APART * min(tick, other) for other in found):
            found.append(tick)
    return sorted(found)


def _title(text: str) -> dict[str, Any]:
    return {"title": {"text": text, "standoff": 8}} if text else {}


def laid_out(*, x: str = "", y: str = "", yrange: list[Any] | None = None, xrange: list[Any] | None = None) -> dict[str, Any]:
    xaxis: dict[str, Any] = {**_AXIS, "showgrid": False, **_title(x), **({"range": xrange} if xrange else {})}
    yaxis: dict[str, Any] = {**_AXIS, **_title(y), "nticks": 6, **({"range": yrange} if yrange else {})}
    if yrange == [0, None]:
        yaxis["rangemode"] = "tozero"
    return {
        "font": _FONT,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "margin": {"l": 8, "r": 10, "t": 6, "b": 8},
        "xaxis": xaxis,
        "yaxis": yaxis,
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "white", "bordercolor": "#c9ced4", "font": _FONT},
        "dragmode": False,
    }
