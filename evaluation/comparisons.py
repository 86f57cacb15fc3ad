"""Two evaluations of the same problems: what may be said of the one against the other.

Claim: nothing is compared that was not made alike. Other problems or other sampling: refused. Lengths counted by other tokenizers: characters
are compared, where the texts are at hand, else nothing. The margin of "as accurate" is the one that the new evaluation recorded before it sampled.
Budgets at which one is better are shown for all budgets at once.
Simplification: bands around curves hold for each budget alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evaluation.entries import Shown, by_budget, by_source, compared, read_entries
from evaluation.measured import Samples, accuracy_change, budgets_up_to, length_change, of_evaluation, of_table, places
from evaluation.results import Budget, Evaluation, ShortOf
from evaluation.run_folder import Run
from evaluation.statistics import (
    FEWEST,
    LEVEL,
    Claim,
    Interval,
    at_once,
    claim_bounds,
    claim_interval,
    difference_interval,
    mcnemar,
    non_inferiority,
    sign_flip,
    stratified,
)
from rollout.records import CHARACTERS

_MUST_AGREE = ("temperature", "top_p", "max_tokens", "budget")
_IF_RECORDED = ("top_k",)  # must agree, too, where both say
_MAY_DIFFER = ("engine", "instruction", "stated_limit", "revision")  # are compared, and said
_COLUMNS = ["problem_id", "sample", "verdict", "tokens", "think_tokens", "finish", "extracted", "text"]


class Span(NamedTuple):
    """Neighbouring budgets, in tokens, at which a difference of accuracy is shown."""

    first: int
    last: int


@dataclass(frozen=True)
class Comparison:
    """One evaluation against another.

    Attributes:
        refused: why they are not compared, "" if they are; all that follows is None or empty then.
        remarks: what differs between them although they are compared.
        accuracy: new minus old, a share.
        length: relative change of mean length, in tokens or, if `unit` says so, in characters; None where neither can be had.
        bounds: of `accuracy`, as claims are made by (statistics.claim_interval).
        claim: of accuracy, with the margin `margin`; `p` is that of no difference.
        moved: of single samples, problems that only the new one solves, and only the old one: then `p` is McNemar's, exact; else None.
        better, worse: budgets at which the new one is, cut after the fact; none for what was sampled at a budget.
    """

    old: Shown
    new: Shown
    refused: str = ""
    remarks: tuple[str, ...] = ()
    accuracy: Interval | None = None
    length: Interval | None = None
    unit: str = "tokens"
    bounds: Interval | None = None
    claim: Claim | None = None
    margin: float = 0.0
    p: float = 1.0
    moved: tuple[int, int] | None = None
    better: tuple[Span, ...] = ()
    worse: tuple[Span, ...] = ()

    @property
    def problems(self) -> int:
        """Pairs of problems."""
        return len(self.new.evaluation.per_problem)


def compare(old: Shown, new: Shown, margin: float | None = None) -> Comparison:
    """All that may be said of `new` against `old`.

    Args:
        margin: the loss that was allowed beforehand, a share; None: what the new evaluation recorded.
    """
    a, b = old.evaluation, new.evaluation
    if words := refused(a, b):
        return Comparison(old, new, words)
    before, after = of_evaluation(a), of_evaluation(b)
    change_N = accuracy_change(after, before)
    accuracy, bounds = difference_interval(change_N), claim_interval(change_N)
    allowed = b.settings.margin if margin is None else margin
    remarks = [f"{a.samples} samples each before, {b.samples} after"] if a.samples != b.samples else []
    remarks += [
        f"{min(counts)} to {max(counts)} samples of a problem {when}"
        for when, one in (("before", a), ("after", b))
        if len(counts := {row.samples for row in one.per_problem}) > 1
    ]
    if allowed != b.settings.margin:
        remarks.append(f"a loss of {100 * allowed:g} points is allowed now, {100 * b.settings.margin:g} were when it was sampled")
    remarks += [f"{name} was not recorded" for name in ("temperature", "top_p") if getattr(b.settings, name) is None]
    remarks += [
        f"{name} was not recorded of one, and {said:g} of the other"
        for name in _IF_RECORDED
        if None in (both := [getattr(one.settings, name) for one in (a, b)]) and (said := next(filter(None, both), None))
    ]
    remarks += [
        f"{name.replace('_', ' ')} differs"
        for name in _MAY_DIFFER
        if None not in (x := (getattr(a.settings, name), getattr(b.settings, name))) and x[0] != x[1]
    ]
    first, second = samples_of(old), samples_of(new)
    failed = [sum(one.finish == "abort") if one else 0 for one in (first, second)]
    unit, length = "tokens", None
    better: tuple[Span, ...] = ()
    worse: tuple[Span, ...] = ()
    if before.ruler == after.ruler:
        length = length_change(after, before) if before.length.any() else None
        unit = CHARACTERS if before.ruler == CHARACTERS else unit
        if first and second and unit == "tokens" and b.settings.budget is None:
            better, worse = _spans(first, second, min(a.settings.max_tokens, b.settings.max_tokens))
    else:
        remarks.append(f"lengths before are {a.settings.ruler}, after {b.settings.ruler}: other units")
        first, second = samples_of(old, characters=True), samples_of(new, characters=True)
        if first and second:
            unit = CHARACTERS
            length = length_change(second.measured, first.measured) if first.measured.length.any() else None
    if length is None and not before.length.any():
        remarks.append("all samples before are empty, so no length is relative to theirs")
    if any(failed):  # no limit is in characters, so there they would pass for a saving
        length, counted = (None, "and lengths in characters are not compared") if unit == CHARACTERS else (length, "at the limit")
        remarks.append(f"{failed[0]} samples before and {failed[1]} after were never made; they count as wrong, {counted}")
    single = all(row.samples == 1 for one in (a, b) for row in one.per_problem)
    moved = (int((change_N > 0).sum()), int((change_N < 0).sum())) if single else None
    p = mcnemar(*moved) if moved else sign_flip(change_N)
    return Comparison(
        old, new, "", tuple(remarks), accuracy, length, unit, bounds, non_inferiority(bounds, len(after.ids), allowed), allowed,
        p, moved, better, worse,
    )  # fmt: skip


@dataclass(frozen=True)
class Pooled:
    """One model against another over several benchmarks, each of equal weight.

    Attributes:
        sources: the benchmarks.
        few: further ones, left out: of fewer than `FEWEST` problems nothing can be said.
        accuracy: mean over them of new minus old, problems resampled inside each; where random sign flips do not leave out 0, neither does it.
        p: of no difference, sign flips of all problems.
    """

    old: str
    new: str
    sources: tuple[str, ...]
    few: tuple[str, ...]
    accuracy: Interval
    p: float


def pooled(found: Sequence[Comparison]) -> list[Pooled]:
    """Of every two that are compared on several benchmarks, all of these that something can be said of in one."""
    both: dict[tuple[str, str, Budget | ShortOf | None], list[Comparison]] = {}
    for pair in found:
        if not pair.refused:
            both.setdefault((pair.old.label, pair.new.label, pair.new.evaluation.settings.budget), []).append(pair)
    made = []
    for (old, new, _), every in both.items():
        pairs = [pair for pair in every if pair.problems >= FEWEST]
        if len(pairs) < 2:
            continue
        measured = [(of_evaluation(pair.new.evaluation), of_evaluation(pair.old.evaluation)) for pair in pairs]
        sets = [accuracy_change(after, before) for after, before in measured]
        mean, low, high = stratified(sets)
        p = sign_flip(np.concatenate([change_N / len(change_N) for change_N in sets]))
        if p > LEVEL:
            low, high = min(low, 0.0), max(high, 0.0)
        few = tuple(pair.new.evaluation.where for pair in every if pair.problems < FEWEST)
        made.append(Pooled(old, new, tuple(pair.new.evaluation.where for pair in pairs), few, Interval(mean, low, high), p))
    return made


@dataclass(frozen=True)
class Found:
    """What a report or a comparison is of: entries, their evaluations by source, and what is set against what.

    Attributes:
        shown, pairs: of evaluations without a budget.
        budgets, budget_pairs: of those at budgets that were asked for; only what was made at the same one is compared.
    """

    runs: list[Run]
    shown: dict[str, list[Shown]]
    pairs: dict[str, list[Comparison]]
    budgets: dict[str, dict[Budget | ShortOf, list[Shown]]]
    budget_pairs: dict[str, list[Comparison]]

    @property
    def title(self) -> str:
        """Names of all entries."""
        return ", ".join(run.label for run in self.runs)

    @property
    def sources(self) -> list[str]:
        """Of all evaluations."""
        return list(dict.fromkeys([*self.shown, *self.budgets]))

    @property
    def comparisons(self) -> list[Comparison]:
        """Those that the headline is of: of every source without a budget, and at budgets where one of the two has nothing else on it."""
        return [
            pair
            for source in self.sources
            for pair in (*self.pairs.get(source, ()), *self.budget_pairs.get(source, ()))
            if self._told(pair.old) or self._told(pair.new)
        ]

    def main(self, source: str) -> list[Shown]:
        """The evaluations of a source that the headline is of."""
        compared = {id(one) for pair in self.comparisons for one in (pair.old, pair.new)}
        return [one for group in self._groups(source) for one in group if self._told(one) or id(one) in compared]

    @property
    def alone(self) -> list[Shown]:
        """What nothing is compared with, of the evaluations that the headline is of."""
        return [one for source in self.sources for group in self._groups(source) if len(group) == 1 for one in group if self._told(one)]

    def _groups(self, source: str) -> list[list[Shown]]:
        """The evaluations of a source, those of one budget together, and first those without any."""
        return [group for group in (self.shown.get(source, []), *self.budgets.get(source, {}).values()) if group]

    def _told(self, one: Shown) -> bool:
        """Whether the headline speaks of it: it has no budget, or its entry has nothing without one on its source."""
        natural = self.shown.get(one.evaluation.source, [])
        return one.evaluation.settings.budget is None or all(other.run is not one.run for other in natural)

    @property
    def every(self) -> list[Shown]:
        """All evaluations, those without a budget first."""
        return [one for shown in [*self.shown.values(), *(some for of in self.budgets.values() for some in of.values())] for one in shown]


def read(paths: Sequence[Path], margin: float | None = None, ends: bool = True) -> Found:
    """Everything that runs and evaluations say, and what may be said of them together.

    Args:
        margin: as in `compare`.
        ends: as in `by_source`.

    Raises:
        ValueError: one is neither a run folder nor one of evaluations.
    """
    return found_in(read_entries(paths), margin, ends)


def found_in(runs: list[Run], margin: float | None = None, ends: bool = True) -> Found:
    """What entries say that were read. Arguments as in `read`."""
    shown, budgets = by_source(runs, ends), by_budget(runs, ends)
    pairs = {source: [compare(*pair, margin) for pair in compared(one)] for source, one in shown.items()}
    at_budgets = {source: [compare(*pair, margin) for one in of.values() for pair in compared(one)] for source, of in budgets.items()}
    return Found(runs, shown, pairs, budgets, at_budgets)


def refused(old: Evaluation, new: Evaluation) -> str:
    """Why two evaluations may not be compared, empty if they may: same sampling settings, same problems."""
    for key in (*_MUST_AGREE, *_IF_RECORDED):
        a, b = getattr(old.settings, key), getattr(new.settings, key)
        if a != b and not (key in _IF_RECORDED and None in (a, b)):
            said = ["not recorded" if one is None else one for one in (a, b)]
            return f"{key} was {said[0]} before and {said[1]} after"
    if {row.id for row in old.per_problem} != {row.id for row in new.per_problem}:
        return "they were made on different problems"
    return ""


def unlike(groups: Sequence[Sequence[Shown]]) -> dict[int, str]:
    """Why some of these evaluations, those of one budget a group, may not share a chart with the others, by their `id`: they may not be compared with
    the first of their group, or their lengths were not counted by what counted those of the first of all."""
    ruler = groups[0][0].evaluation.settings.template
    return {
        id(one): why
        for group in groups
        for one in group
        if (why := refused(group[0].evaluation, one.evaluation) or "lengths in other units" * (one.evaluation.settings.template != ruler))
    }


def samples_of(shown: Shown, characters: bool = False, scores: bool = False) -> Samples | None:
    """The samples of an evaluation; None, with a note on its run, where they are not there or cannot be read, and of votes, which no table holds.

    Args:
        characters: lengths are those of the texts, not counted in tokens.
        scores: also by what one may be taken as the best of several, where that is there.
    """
    file = shown.evaluation.table
    try:
        if file is None or shown.evaluation.parallel:
            return None
        there = set(pq.read_schema(file).names)
        table = pq.read_table(file, columns=_COLUMNS + [name for name in ("score", "logprobs") if scores and name in there])
        if characters:
            place = table.schema.get_field_index("tokens")
            table = table.set_column(place, "tokens", pc.utf8_length(table["text"])).replace_schema_metadata({"template": CHARACTERS})
        elif table["tokens"].null_count or table["problem_id"].null_count:
            raise ValueError("a sample without problem_id or tokens")
        counted = not characters and shown.evaluation.settings.template != CHARACTERS
        return of_table(table, shown.evaluation.settings.max_tokens if counted else None)
    except (OSError, ValueError, pa.ArrowException) as error:
        note = f"{file} could not be read ({str(error).splitlines()[0][:200]}), so what needs single samples is left out."
        if note not in shown.run.notes:
            shown.run.notes.append(note)
        return None


def _spans(old: Samples, new: Samples, cap: int) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """Budgets at which the new one is more, and less, accurate: shown for all of them at once, and at each by the interval that claims are made by."""
    if len(old.ids) < FEWEST or set(old.ids) != set(new.ids):
        return (), ()
    budget_B = budgets_up_to(cap)
    old_NB, new_NB = (one.right_within(budget_B) for one in (old, new))
    change_NB = new_NB - old_NB[places(new.ids, old.ids)]
    shown_B, mean_B = at_once(change_NB) <= LEVEL, change_NB.mean(axis=0)
    low_K, high_K = claim_bounds(change_NB[:, shown_B])  # an interval of a claim that is wider says less in a table
    shown_B[shown_B] = (low_K > 0) | (high_K < 0)
    return _runs(budget_B, shown_B & (mean_B > 0)), _runs(budget_B, shown_B & (mean_B < 0))


def _runs(budget_B: np.ndarray, shown_B: np.ndarray) -> tuple[Span, ...]:
    """The runs of neighbours that are shown."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], shown_B, [False]]).astype(int)))
    return tuple(Span(int(budget_B[first]), int(budget_B[last - 1])) for first, last in edges.reshape(-1, 2))
