"""The picture of a report: accuracy against tokens per sample, drawn as SVG for a README or a paper, light and dark.

Simplification: the first source of problems, cut after the fact, on a logarithmic axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluation import words
from evaluation.comparisons import Found
from evaluation.entries import Shown
from evaluation.templates import environment

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 24, 76, 52


def picture(found: Found) -> str:
    """The curves of the first source, each with its band, and the headline above them.

    Raises:
        ValueError: nothing was evaluated.
    """
    if not found.shown:
        raise ValueError(f"{found.title}: nothing was evaluated, so there is nothing to draw")
    source, shown = next(iter(found.shown.items()))
    first = min(one.evaluation.budget_curve[0].budget for one in shown)
    last = max(one.evaluation.budget_curve[-1].budget for one in shown)
    last = max(last, first + 1)

    def x(tokens: float) -> float:
        share = (math.log(max(tokens, first)) - math.log(first)) / (math.log(last) - math.log(first))
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(share: float) -> float:
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    ticks = [step * 10**power for power in range(9) for step in (1, 2, 5) if first <= step * 10**power <= last]
    curves = [
        {
            "colour": one.colour,
            "label": one.label,
            "line": _path([(x(p.budget), y(p.accuracy)) for p in one.evaluation.budget_curve]),
            "band": _path(
                [(x(p.budget), y(p.high)) for p in one.evaluation.budget_curve if p.high is not None]
                + [(x(p.budget), y(p.low)) for p in reversed(one.evaluation.budget_curve) if p.low is not None]
            ),
            "dot": (x(one.evaluation.tokens.mean), y(one.evaluation.accuracy.mean)),
            "says": f"{one.label}: {words.percent(one.evaluation.accuracy.mean)} at {words.length(one.evaluation)}",
        }
        for one in shown
    ]
    return environment().get_template("picture.svg").render(
        width=_WIDTH, height=_HEIGHT, left=_LEFT, right=_WIDTH - _RIGHT, top=_TOP, bottom=_HEIGHT - _BOTTOM, curves=curves,
        title=found.title, headline=_headline(found, shown), source=source, unit=words.unit(one.evaluation for one in shown),
        across=[(x(tick), f"{tick:,}") for tick in ticks], up=[(y(share / 100), str(share)) for share in (0, 25, 50, 75, 100)],
    )  # fmt: skip


def _headline(found: Found, shown: Sequence[Shown]) -> str:
    """Tokens saved and accuracy, of the last comparison of the source."""
    pair = next(reversed(found.pairs[shown[0].evaluation.source]), None)
    if pair is None or pair.bounds is None:
        return words.single(shown[-1])
    saved = "" if pair.length is None else f"{words.signed(100 * pair.length.mean, 0)} % {pair.unit} [{words.span(pair.length, 0)}], "
    return f"{saved}{words.signed(100 * pair.bounds.mean)} points of accuracy [{words.span(pair.bounds)}]"


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x},{y}" for x, y in points) if points else ""
