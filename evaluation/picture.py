"""The picture of a report: accuracy against tokens per sample, drawn as SVG for a README or a paper, light and dark.

Simplification: the first source of problems, on a logarithmic axis; cut after the fact, and where nothing was sampled without a budget, at each that was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from evaluation import words
from evaluation.comparisons import Found, unlike
from evaluation.entries import Shown
from evaluation.figures import around
from evaluation.results import Budget
from evaluation.templates import environment

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 24, 60, 52
_ROW = 16  # of the legend
_HALF, _TITLE = 48, 66  # characters that fit into half a row, and into the headline in full size


def picture(found: Found) -> str:
    """The curves of the first source, each with its band, and the headline above them; of what was evaluated at budgets only, the points.

    Raises:
        ValueError: nothing was evaluated.
    """
    if not found.sources:
        raise ValueError(f"{found.title}: nothing was evaluated, so there is nothing to draw")
    source = found.sources[0]
    uncut = bool(found.pairs.get(source)) or (source in found.shown and not found.budget_pairs.get(source))
    groups = [found.shown[source]] if uncut else list(found.budgets[source].values())
    why = unlike(groups)
    drawn = (_curves(groups[0], why) if uncut else _points(groups, why)) + _left(groups, why)
    xs = [x for one in drawn for x, *_ in (*one.line, *one.dots)]
    limits = [] if uncut else sorted({budget.limit for budget in found.budgets[source] if isinstance(budget, Budget)})
    if not uncut:  # points, which need room around them
        xs = [0.8 * min(*xs, *limits, max(xs)), 1.2 * max(*xs, *limits, 0)]
    first = max(min(xs), 1)
    last = max(*xs, first + 1)
    columns = 1 if any(len(one.says) > _HALF for one in drawn) else 2
    top = _TOP + _ROW * math.ceil(len(drawn) / columns)

    def x(tokens: float) -> float:
        share = (math.log(max(tokens, first)) - math.log(first)) / (math.log(last) - math.log(first))
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(share: float) -> float:
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - top - _BOTTOM), 1)

    curves = [
        {
            "colour": one.colour,
            "says": one.says,
            "kind": one.kind,
            "line": _path([(x(at), y(share)) for at, share in one.line]),
            "band": _path([(x(at), y(share)) for at, share in one.band]),
            "dots": [(x(at), y(share)) for at, share in one.dots],
            "bars": [(x(at), y(low), y(high)) for at, low, high in one.bars],
        }
        for one in drawn
    ]
    unit = groups[0][0].evaluation.settings.unit
    axis = f"{unit} allowed per sample ({source}); dots: mean {unit} used, nothing cut"
    if not uncut:
        axis = f"mean {unit} used per sample ({source}), sampled at budgets that were asked for"
    return environment().get_template("picture.svg").render(
        width=_WIDTH, height=_HEIGHT, left=_LEFT, right=_WIDTH - _RIGHT, top=top, bottom=_HEIGHT - _BOTTOM, row=_ROW, curves=curves,
        title=found.title, headline=(headline := _headline(found, source, why)), size=round(16 * min(1, _TITLE / len(headline)), 1), columns=columns, axis=axis,
        across=[(x(tick), f"{tick:,}") for tick in around(limits, first, last)], up=[(y(share / 100), str(share)) for share in (0, 25, 50, 75, 100)],
    )  # fmt: skip


class _Drawn(NamedTuple):
    """What is drawn in one colour: points of (tokens, accuracy), and intervals of accuracy as (tokens, low, high)."""

    says: str
    colour: str
    line: Sequence[tuple[float, float]] = ()
    band: Sequence[tuple[float, float]] = ()
    dots: Sequence[tuple[float, float]] = ()
    bars: Sequence[tuple[float, float, float]] = ()
    kind: str = ""  # of budgets, which stands at the last point


def _left(groups: Sequence[Sequence[Shown]], why: Mapping[int, str]) -> list[_Drawn]:
    """What may not stand beside the others, with the reason in place of a line."""
    left = {(one.label, why[id(one)]): one.colour for group in groups for one in group if id(one) in why}
    return [_Drawn(f"{label}: not drawn, {reason}", colour) for (label, reason), colour in left.items()]


def _curves(shown: Sequence[Shown], left: Mapping[int, str]) -> list[_Drawn]:
    """Accuracy cut after the fact, of all but those that are left out."""
    drawn = []
    for one in shown:
        if id(one) in left:
            continue
        curve, dot = one.evaluation.budget_curve, (one.evaluation.tokens.mean, one.evaluation.accuracy.mean)
        band = [(p.budget, p.high) for p in curve if p.high is not None]
        band += [(p.budget, p.low) for p in reversed(curve) if p.low is not None]
        says = f"{one.label}: {words.percent(dot[1])} at {words.length(one.evaluation)}"
        drawn.append(_Drawn(says, one.colour, [(p.budget, p.accuracy) for p in curve], band, [dot]))
    return drawn


def _points(groups: Sequence[Sequence[Shown]], left: Mapping[int, str]) -> list[_Drawn]:
    """Every label at the budgets of each kind, joined where they limit tokens; without those that are left out."""
    lines: dict[tuple[str, str], list[Shown]] = {}
    for one in (one for group in groups for one in group if id(one) not in left):
        budget = one.evaluation.settings.budget
        lines.setdefault((one.label, budget.kind if budget else ""), []).append(one)
    drawn = []
    for (label, kind), line in lines.items():
        found = [one.evaluation for one in line]
        dots = [(one.tokens.mean, one.accuracy.mean) for one in found]
        ends = dots if len(dots) < 4 else [dots[0], dots[-1]]
        told = (", " if ends is dots else " to ").join(f"{words.percent(share)} at {words.tokens(at)}" for at, share in ends)
        bars = [(one.tokens.mean, one.accuracy.low, one.accuracy.high) for one in found]
        joined = dots if kind != "short" and len(dots) > 1 else []
        drawn.append(_Drawn(f"{label}, {kind}: {told} {words.unit(found)}", line[0].colour, joined, (), dots, bars, kind))
    return drawn


def _headline(found: Found, source: str, left: Mapping[int, str]) -> str:
    """Tokens saved and accuracy, of the last comparison of the source: of one that is drawn, where there is such a one."""
    pairs = [one for one in reversed(found.comparisons) if one.new.evaluation.source == source and not one.refused]
    pair = next((one for one in pairs if not {id(one.old), id(one.new)} & left.keys()), next(iter(pairs), None))
    last = (pair.new if pair else [one for one in found.main(source) if id(one) not in left][-1]).evaluation
    at = f"{budget.words}: " if (budget := last.settings.budget) else ""
    if pair is None or pair.bounds is None:
        accuracy = last.accuracy
        return f"{at}{words.percent(accuracy.mean)} [{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}] at {words.length(last)}"
    saved = "" if pair.length is None else f"{words.signed(100 * pair.length.mean, 0)} % {pair.unit} [{words.span(pair.length, 0)}], "
    return f"{at}{saved}{words.signed(100 * pair.bounds.mean)} points of accuracy [{words.span(pair.bounds)}]"


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x},{y}" for x, y in points) if points else ""
