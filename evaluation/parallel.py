"""What more samples of a problem buy: votes, the first to finish, the best by score and an oracle, against k, thinking tokens and waiting time.

Claim: all of it is counted from stored samples, over all choices of k among them; what was run that way (`Evaluation.parallel`) is set beside it.
Compute is the thinking of all k until they are stopped, time that of the longest that is waited for (short-m@k, 2505.17813).
Simplification: votes among more than 160 samples of a problem are drawn (1,000 choices), as counting them exactly takes seconds a problem.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from evaluation import words
from evaluation.attempts import Chains, Expected, any_of_k, best_of_k, of_samples, short_m_at_k, short_m_over, simulated
from evaluation.comparisons import Found, samples_of
from evaluation.entries import Shown, at_budgets
from evaluation.measured import Samples
from evaluation.results import Evaluation, ShortOf
from evaluation.run_folder import Run
from evaluation.statistics import resampled_means, wilson
from evaluation.tables import Cell, Row, Table

_EXACT = 160  # samples of a problem
_FEWEST = 3  # samples of a problem: two never outvote each other
_KS = (1, 2, 3, 4, 8, 16, 32, 64)
_MOST = 40_000  # samples; beyond it counting takes too long for a page


class At(NamedTuple):
    """A method with k samples, means over problems: accuracy with its 95 % interval, thinking tokens of all k, and what is waited for."""

    k: int
    accuracy: float
    low: float
    high: float
    tokens: float
    time: float


class Curve(NamedTuple):
    """A method over k."""

    method: str
    points: list[At]


def curves(samples: Samples) -> list[Curve]:
    """Majority (maj@k), short-1@k, short-3@k, best-of-k where samples are scored, and pass@k with an oracle; empty for fewer than three samples a problem, or too many in all."""
    k_max = int(samples.count.min())
    if k_max < _FEWEST or len(samples.length) > _MOST:
        return []
    stored = of_samples(samples)
    ks = [*(k for k in _KS if k < k_max), k_max]
    methods: dict[str, tuple[int, Callable[[Chains, Sequence[int]], list[Expected]]]] = {
        "majority": (1, lambda one, ks: [_majority(one, k) for k in ks]),
        "short-1": (2, lambda one, ks: short_m_over(one, 1, ks)),
        "short-3": (4, lambda one, ks: short_m_over(one, 3, ks)),
    }
    if samples.score is not None:
        methods[f"best by {samples.scored}"] = (2, lambda one, ks: [best_of_k(one, k) for k in ks])
    methods["oracle (pass@k)"] = (2, lambda one, ks: [any_of_k(one, k) for k in ks])
    found = []
    for name, (least, of) in methods.items():
        if own := [k for k in ks if k >= least]:
            values_NK3 = np.array([of(one, own) for one in stored])
            found.append(Curve(name, _points(own, values_NK3)))
    return found


def beside(shown: Shown, others: Sequence[tuple[Run, Evaluation]]) -> list[tuple[ShortOf, Evaluation]]:
    """Of evaluations at budgets those of the same checkpoint whose chains were stopped."""
    return [
        (one.settings.budget, one)
        for run, one in others
        if run is shown.run and one.step == shown.evaluation.step and isinstance(one.settings.budget, ShortOf)
    ]


def several_table(found: Found, source: str) -> Table:
    """The curves in a few places, of all that are shown of a source, one column each; no rows without several samples."""
    columns = []
    for shown in found.shown.get(source, []):
        samples, run = samples_of(shown, scores=True), beside(shown, at_budgets(found.runs, source))
        places = {4, 16, *(budget.of for budget, _ in run)}
        points = {
            f"{curve.method} of {at.k}": at
            for curve in (curves(samples) if samples else [])
            for at in curve.points
            if at.k in places or at is curve.points[-1]
        }
        columns.append(points | {f"{budget.words}, run": of_run(one, budget) for budget, one in run})
    names = dict.fromkeys(name for column in columns for name in column)
    counted = words.rulers(one.evaluation for one in found.shown.get(source, []))
    return Table(
        [one.label + f", lengths in {ruler}" * bool(ruler) for one, ruler in zip(found.shown.get(source, []), counted, strict=True)],
        [Row(name, [_cell(column.get(name), one) for column, one in zip(columns, found.shown[source], strict=True)]) for name in names],
    )


def unit(evaluation: Evaluation) -> str:
    """What a point costs is counted in: of thinking, or, where nobody told it from the answer, of whole samples."""
    return ("thinking " if evaluation.tells_thinking else "") + evaluation.settings.unit


def cost(at: At, shown: Shown) -> str:
    """What a point costs, in words."""
    of = shown.evaluation
    return f"{at.tokens:,.0f} {of.settings.unit}{' of thinking' * of.tells_thinking}, {at.time:,.0f} waited for"


def _cell(at: At | None, shown: Shown) -> Cell:
    if at is None:
        return Cell("–")
    return Cell(f"{100 * at.accuracy:.1f} %", f"[{100 * at.low:.1f}, {100 * at.high:.1f}] {cost(at, shown)}")


def of_run(evaluation: Evaluation, budget: ShortOf) -> At:
    """What an evaluation found whose chains were stopped."""
    parallel, accuracy = evaluation.parallel, evaluation.accuracy
    assert parallel is not None
    return At(budget.of, accuracy.mean, accuracy.low, accuracy.high, parallel.tokens, parallel.time)


def _majority(stored: Chains, k: int) -> Expected:
    if len(stored.thinking) <= _EXACT or k == len(stored.thinking):
        return short_m_at_k(stored, k, k)
    accuracy, tokens, time = simulated(stored, k, k)
    return Expected(accuracy.mean, tokens, time)


def _points(ks: Sequence[int], values_NK3: np.ndarray) -> list[At]:
    """Of accuracy, tokens and time of each problem by k."""
    accuracy_NK, means_K3 = values_NK3[:, :, 0], values_NK3.mean(axis=0).tolist()
    bounds_2K = np.percentile(resampled_means(accuracy_NK), [2.5, 97.5], axis=0)
    found = []
    for place, (k, (accuracy, tokens, time)) in enumerate(zip(ks, means_K3, strict=True)):
        alike = np.ptp(accuracy_NK[:, place]) == 0  # nothing can be resampled
        low, high = wilson(accuracy, len(accuracy_NK))[1:] if alike else bounds_2K[:, place].tolist()
        found.append(At(k, accuracy, low, high, tokens, time))
    return found
