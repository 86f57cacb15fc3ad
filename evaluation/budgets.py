"""What was found at budgets that were asked for, as a table: a line for each evaluation, and under it what changed.

Claim: only what was made at the same budget is set against each other, over the same problems.
Simplification: the interval of each change is for itself, whatever the number of budgets.
"""

from __future__ import annotations

from collections.abc import Sequence

from evaluation import words
from evaluation.comparisons import Comparison, Found
from evaluation.results import Evaluation
from evaluation.tables import Cell, Row, Table, bounds, length_bounds, points, relative


def budget_table(found: Found, source: str) -> Table:
    """Every budget of a source with all that is shown of it; no rows without any."""
    budgets = found.budgets.get(source, {})
    several = len({one.label for shown in budgets.values() for one in shown}) > 1
    every = [one.evaluation for shown in budgets.values() for one in shown]
    rows, counted = [], iter(words.rulers(every))
    for budget, shown in budgets.items():
        rows += [Row(f"{budget.words}, {one.label}" if several else budget.words, _cells(one.evaluation, next(counted))) for one in shown]
        rows += [_change(pair) for pair in found.budget_pairs[source] if pair.new.evaluation.settings.budget == budget]
    return Table(_head(every), rows)


def table_of(found: Sequence[Evaluation]) -> Table:
    """A line for each, that without a budget (natural) too."""
    return Table(_head(found), [Row(budget.words if (budget := one.settings.budget) else "natural", _cells(one)) for one in found])


def _head(found: Sequence[Evaluation]) -> list[str]:
    return ["accuracy", words.unit(found), "cut off", "kept to it"]


def _cells(of: Evaluation, ruler: str = "") -> list[Cell]:
    """Accuracy and length with their intervals, share cut off, and how the budget was kept: what that means for its kind.

    Args:
        ruler: what counted the length, where others beside it were counted by another.
    """
    length = of.tokens
    return [
        Cell(words.percent(of.accuracy.mean), bounds(of.accuracy, 100, 1)),
        Cell(words.tokens(length.mean), f"{length_bounds(length)} {ruler}".strip()),
        Cell(words.percent(of.truncated)),
        Cell(_kept(of)),
    ]


def _kept(of: Evaluation) -> str:
    if of.forced:
        told = "" if of.forced.waits is None else f", {of.forced.waits:.1f} times told to go on"
        beyond = f", {words.percent(of.forced.beyond)} thought on" if of.forced.beyond else ""
        return f"{words.percent(of.forced.closed)} closed{told}{beyond}"
    if of.adherence:
        return f"{words.percent(of.adherence.within)} within, {of.adherence.ratio:.2f} of it"
    if of.parallel:
        return f"{words.tokens(of.parallel.tokens)} thinking, {words.tokens(of.parallel.time)} waited for"
    return ""


def _change(pair: Comparison) -> Row:
    accuracy = points(pair.bounds)
    said = Cell("not compared:", pair.refused) if pair.refused else Cell(accuracy.text, f"{accuracy.small}, p {words.number(pair.p, 2)}")
    return Row(
        f"{pair.new.label} against {pair.old.label}",
        [said, relative(pair.length, pair.unit), Cell(""), Cell("; ".join(pair.remarks))],
        sub=True,
    )
