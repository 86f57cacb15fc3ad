"""Two evaluations of the same problems as one table: each number of both, and what changed, with its interval.

Claim: every change is one of means over the same problems, and every change of a share has the bounds that claims are made by
(statistics.claim_interval), so that no sentence denies an interval beside it. What needs single samples (shares, accuracy at smaller budgets) has
none where the samples are not beside the evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from evaluation import words
from evaluation.attempts import again
from evaluation.comparisons import Comparison, samples_of
from evaluation.efficiency import against, budget_area, scalars
from evaluation.lengths import CLASSES, transitions
from evaluation.measured import Samples, of_evaluation, places
from evaluation.results import Evaluation
from evaluation.statistics import Interval, claim_interval, difference_interval
from evaluation.tables import TOKEN_F1, Cell, Row, Table, again_label, detectable, points, relative

_SHARES = (1 / 8, 1 / 4, 1 / 2)  # of max_tokens


def paired_table(pair: Comparison) -> Table:
    """All numbers of both, and their changes; only the numbers where the two may not be compared."""
    old, new = pair.old.evaluation, pair.new.evaluation
    samples, one_ruler = _samples(pair), old.settings.template == new.settings.template
    alike = samples if pair.unit == "tokens" else None  # lengths of the same ruler
    rows = [
        _row("accuracy", _percent(old.accuracy.mean), _percent(new.accuracy.mean), points(pair.bounds)),
        *_p(pair),
        *_at_budgets(old, new, alike),
        *_area(old, new, alike),
        *_passes(old, new, bool(pair.refused)),
        *_overlap(old, new, bool(pair.refused)),
        *_lengths(pair),
    ]
    for name in ("right", "wrong"):
        if one_ruler and name in old.by_outcome and name in new.by_outcome:
            rows += [
                _row(f" of {name} samples", _tokens(old.by_outcome[name].total), _tokens(new.by_outcome[name].total)),
                _row(" thinking of those", _tokens(old.by_outcome[name].thinking), _tokens(new.by_outcome[name].thinking)),
            ]
    of: dict[str, Callable[[Samples], np.ndarray]] = {
        "truncated": lambda found: found.cut,
        "no_answer": lambda found: found.wrong & np.array([said is None for said in found.extracted]),
        "not_judged": lambda found: ~found.right & ~found.wrong,
    }
    for name, mask in of.items():
        rows.append(_row(name.replace("_", " "), *(_percent(getattr(one, name)) for one in (old, new)), points(_moved(samples, mask))))
    if not pair.refused and pair.unit == "tokens" and pair.length is not None:
        rows += _scalars(old, new)
    return Table([pair.old.label, pair.new.label, "change, 95 % interval"], rows + _classes(alike))


def _lengths(pair: Comparison) -> list[Row]:
    """Mean lengths with their change; counted by two rulers each has its own unit, and the change is that of the texts."""
    old, new = pair.old.evaluation, pair.new.evaluation
    if old.settings.template == new.settings.template:
        return [_row(f"mean {new.settings.unit}", _tokens(old.tokens.mean), _tokens(new.tokens.mean), relative(pair.length))]
    own = _row("mean length, each as it was counted", *(Cell(words.length(one)) for one in (old, new)))
    return [own] + [_row("length in characters", Cell("–"), Cell("–"), relative(pair.length))] * (pair.length is not None)


def _p(pair: Comparison) -> list[Row]:
    """Of no difference of accuracy, and which test said it."""
    if pair.refused:
        return []
    test = f"McNemar, exact: {pair.moved[0]} gained, {pair.moved[1]} lost" if pair.moved else "sign flips"
    rows = [_row(" p of no difference", Cell(""), Cell(""), Cell(words.number(pair.p, 2), f"({test})"))]
    if (seen := detectable(pair)) is not None:
        rows.append(_row(" change that 4 of 5 such comparisons would show", Cell(""), Cell(""), Cell(f"{100 * seen:.1f} points")))
    return rows


def _samples(pair: Comparison) -> tuple[Samples, Samples] | None:
    first, second = (None, None) if pair.refused else (samples_of(pair.old), samples_of(pair.new))
    return (first, second) if first and second else None


def classes(pair: Comparison) -> dict[str, int]:
    """Problems by what became of them (lengths.CLASSES); empty without samples whose lengths are of one ruler."""
    return _counted(_samples(pair) if pair.unit == "tokens" else None)


def _counted(samples: tuple[Samples, Samples] | None) -> dict[str, int]:
    counts = np.bincount(transitions(*samples), minlength=len(CLASSES)).tolist() if samples else []
    return dict(zip(CLASSES, counts, strict=True)) if counts else {}


def _classes(samples: tuple[Samples, Samples] | None) -> list[Row]:
    found = _counted(samples)
    if not found:
        return []
    shorter, longer, gained, lost, neither = found.values()
    how = Cell(f"{shorter + longer}", f"({shorter} shorter)")
    return [
        _row("problems that both solve, in half of the samples", Cell(""), Cell(""), how),
        _row(" gained, lost, neither", Cell(""), Cell(""), Cell(f"{gained}, {lost}, {neither}")),
    ]


def _passes(old: Evaluation, new: Evaluation, refused: bool) -> list[Row]:
    found: dict[str, list[np.ndarray]] = {}
    if old.majority and new.majority and old.majority.k == new.majority.k:
        voted = [np.array([row.majority for row in one.per_problem], dtype=float) for one in (old, new)]
        found[f"maj@{old.majority.k} (cons@{old.majority.k})"] = voted
    found |= {again_label(name): [*both] for name, both in reached(old, new).items()}
    rows = []
    for name, (before_N, after_N) in found.items():
        change = None if refused else moved_again(old, new, before_N, after_N)
        rows.append(_row(name, _percent(float(before_N.mean())), _percent(float(after_N.mean())), points(change)))
    return rows


def _overlap(old: Evaluation, new: Evaluation, refused: bool) -> list[Row]:
    """Token F1 of the problems whose gold is in words, with its change: longer answers may share more words with it, and be right no more often."""
    if not old.token_f1 or not new.token_f1:
        return []
    before, after = ({row.id: row.token_f1 for row in one.per_problem if row.token_f1 is not None} for one in (old, new))
    known = bool(before) and before.keys() == after.keys() and not refused
    change = difference_interval(np.array([after[id_] - before[id_] for id_ in before])) if known else None
    return [_row(TOKEN_F1, _percent(old.token_f1.mean), _percent(new.token_f1.mean), points(change))]


def reached(old: Evaluation, new: Evaluation) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What attempts reach and how often it is so again (`attempts.again`) of both, of each problem in its own order, for as many samples as every problem has."""
    k = min(row.samples for one in (old, new) for row in one.per_problem)
    before, after = (again([row.samples for row in one.per_problem], [row.right for row in one.per_problem], k) for one in (old, new))
    return {name: (before[name], after[name]) for name in before}


def moved_again(old: Evaluation, new: Evaluation, before_N: np.ndarray, after_N: np.ndarray) -> Interval:
    """The change of such a number, problem by problem, with the bounds that claims are made by."""
    order_N = places([row.id for row in old.per_problem], [row.id for row in new.per_problem])
    return claim_interval(after_N[order_N] - before_N)


def _at_budgets(old: Evaluation, new: Evaluation, samples: tuple[Samples, Samples] | None) -> list[Row]:
    rows = []
    for share in _SHARES:
        budget = round(share * min(old.settings.max_tokens, new.settings.max_tokens))
        if samples and budget:
            within_2N = [one.right_within([budget])[:, 0] for one in samples]
            change = _change(samples, *within_2N)
            rows.append(_row(f" within {budget:,} tokens", *(_percent(float(one.mean())) for one in within_2N), points(change)))
    return rows


def _area(old: Evaluation, new: Evaluation, samples: tuple[Samples, Samples] | None) -> list[Row]:
    """Mean accuracy over budgets, from the curves' points that both have, on a log2 axis."""
    budgets = sorted({point.budget for point in old.budget_curve} & {point.budget for point in new.budget_curve})
    if samples is None or len(budgets) < 2:
        return []
    area_2N = [budget_area(budgets, one.right_within(budgets), "log2") for one in samples]
    change = _change(samples, *area_2N)
    label = f" mean over budgets {budgets[0]:,} to {budgets[-1]:,}, log2"
    return [_row(label, *(_percent(float(one.mean())) for one in area_2N), points(change))]


def _moved(samples: tuple[Samples, Samples] | None, mask: Callable[[Samples], np.ndarray]) -> Interval | None:
    if samples is None:
        return None
    return _change(samples, *(one.means(mask(one)) for one in samples))


def _change(samples: tuple[Samples, Samples], before_N: np.ndarray, after_N: np.ndarray) -> Interval:
    """Of a number of each problem, in each one's own order."""
    old, new = samples
    return claim_interval(after_N[places(old.ids, new.ids)] - before_N)


def _scalars(old: Evaluation, new: Evaluation) -> list[Row]:
    a, b = of_evaluation(old), of_evaluation(new)
    rows = [
        _row(one.name, Cell(words.number(one.value.mean)), Cell(words.number(other.value.mean)))
        for one, other in zip(scalars(a), scalars(b), strict=True)
    ]
    for one in against(b, a):
        known = all(math.isfinite(number) for number in one.value)  # a base that is all wrong leaves nothing to divide by
        said = (
            Cell(words.number(one.value.mean), f"[{words.number(one.value.low)}, {words.number(one.value.high)}]") if known else Cell("–")
        )
        rows.append(_row(one.name, Cell(""), Cell(""), said))
    return rows


def _row(label: str, *cells: Cell) -> Row:
    return Row(label.strip(), [*cells, *[Cell("")] * (3 - len(cells))], label.startswith(" "))


def _percent(share: float) -> Cell:
    return Cell(words.percent(share))


def _tokens(value: float | None) -> Cell:
    return Cell(words.tokens(value))
