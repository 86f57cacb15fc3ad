"""What was measured of a model on a benchmark, and what of it may be set against another model.

Claim: models are compared on the same problems, and lengths only if one ruler measured both: a tokenizer that needs fewer tokens for the
same words makes nobody think less. Whoever compares lengths asks `one_ruler` first. Tokens of two tokenizers are counted again with one
of them, or characters are compared; they are never converted.
Truncation is what the engine said (`finish`), never a guess from a length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from evaluation.results import Evaluation
from evaluation.statistics import Interval, agreed, bootstrap

_BUDGETS = 64  # points of a curve


@dataclass(frozen=True)
class Measured:
    """A model on a benchmark, problem by problem.

    Attributes:
        ids: of the problems, [N].
        share: right samples among all samples, [N].
        length: mean length of all samples in units of the ruler, [N].
        ruler: what lengths are counted in.
    """

    ids: tuple[str, ...]
    share: np.ndarray
    length: np.ndarray
    ruler: str


@dataclass(frozen=True)
class Samples:
    """Judged samples of a model on a benchmark, problem by problem.

    Attributes:
        ids: of the problems, [N].
        problem: index of each sample's problem, ascending, [S].
        right, wrong: its verdict, [S]; neither: not judged.
        length: of all that was generated, in units of the ruler, [S].
        thinking: the part of it up to the end of thinking, [S]; NaN where thinking never closed.
        finish: "stop", "length", "abort" or "stopped" as the engine gave it, [S]; the length of what was stopped is no natural one (attempts.voted).
        extracted: the answer that was read out of it, None if there is none, [S].
        ruler: what lengths are counted in.
        score: by which one may be taken as the best of several, [S]; None: not every sample has one.
        scored: what scores are, "" without.
    """

    ids: tuple[str, ...]
    problem: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    length: np.ndarray
    thinking: np.ndarray
    finish: np.ndarray
    extracted: np.ndarray
    ruler: str
    score: np.ndarray | None = None
    scored: str = ""

    @property
    def cut(self) -> np.ndarray:
        """Ended by a limit, bool [S]."""
        return self.finish == "length"

    @cached_property
    def count(self) -> np.ndarray:
        """Samples of each problem, [N]."""
        return np.bincount(self.problem, minlength=len(self.ids))

    def means(self, values_S: np.ndarray) -> np.ndarray:
        """Mean of each problem's samples: [S, ...] -> [N, ...]."""
        starts_N = np.cumsum(self.count) - self.count
        return np.add.reduceat(values_S.astype(float), starts_N, axis=0) / self.count.reshape(-1, *[1] * (values_S.ndim - 1))

    def right_within(self, budget_B: ArrayLike) -> np.ndarray:
        """Share of each problem's samples that are right and no longer than each budget, [N, B]: cut after the fact."""
        return self.means(self.right[:, None] & (self.length[:, None] <= np.asarray(budget_B)))

    @property
    def measured(self) -> Measured:
        """Each problem's share of right samples and mean length."""
        return Measured(self.ids, self.means(self.right), self.means(self.length), self.ruler)


def budgets_up_to(most: float) -> np.ndarray:
    """Budgets at which accuracy is looked at, evenly up to the most there is, in whole units, [B]."""
    return np.unique(np.linspace(0, most, _BUDGETS + 1).round().astype(int))[1:]


def grouped(table: pa.Table) -> pa.Table:
    """The rows of each problem together, problems in the order of their first rows, by sample within.

    Raises:
        ValueError: no rows, or a sample that comes twice.
    """
    if not len(table):
        raise ValueError("nothing to score: there are no samples")
    ids, samples = table["problem_id"].to_pylist(), table["sample"].to_pylist()
    place = {id_: index for index, id_ in enumerate(dict.fromkeys(ids))}
    keys = [(place[id_], sample) for id_, sample in zip(ids, samples, strict=True)]
    if len(set(keys)) < len(keys):
        twice = ids[next(row for row, key in enumerate(keys) if keys.index(key) < row)]
        raise ValueError(f"problem {twice}: scored twice; give each problem its samples once")
    return table.take(sorted(range(len(keys)), key=keys.__getitem__))


def of_table(table: pa.Table, limit: int | None = None) -> Samples:
    """Samples of a table of rollout.records.SCHEMA, rows in any order, lengths in tokens; the ruler is its metadata `template`. Raises as `grouped`.

    Args:
        limit: what a sample that was never made counts as, in tokens: as short as it is, it would pass for a saving. None, as no limit is in
            characters: the mean of its problem's others (of the other problems' means, without any), so that it moves no mean.
    """
    table = grouped(table)
    needed = ["problem_id", "verdict", "tokens", "think_tokens", "finish", "extracted"]
    ids, status, length, thinking, finish, extracted = (column.to_pylist() for column in table.select(needed).columns)
    status_S = np.array(status)
    place = {id_: index for index, id_ in enumerate(dict.fromkeys(ids))}
    problem_S, lengths_S, never_S = np.array([place[id_] for id_ in ids]), np.array(length), np.array(finish) == "abort"
    if limit is not None:
        lengths_S = np.where(never_S, np.maximum(lengths_S, limit), lengths_S)
    elif never_S.any() and not never_S.all():
        made_N, total_N = (np.bincount(problem_S, values_S, len(place)) for values_S in (~never_S, ~never_S * lengths_S))
        with np.errstate(invalid="ignore"):
            mean_N = total_N / made_N
        lengths_S = np.where(never_S, np.where(made_N > 0, mean_N, np.nanmean(mean_N))[problem_S], lengths_S)
    return Samples(
        ids=tuple(place),
        problem=problem_S,
        right=status_S == "right",
        wrong=status_S == "wrong",
        length=lengths_S,
        thinking=np.array(thinking, dtype=float),  # None becomes NaN
        finish=np.array(finish),
        extracted=np.array(extracted, dtype=object),
        ruler=(table.schema.metadata or {}).get(b"template", b"").decode(),
        **_scores(table),
    )


def _scores(table: pa.Table) -> dict[str, Any]:
    """`score` and `scored`: what came with the samples, else the mean logprob of each, where all have it."""
    if "score" in table.schema.names and not table["score"].null_count:
        return {"score": table["score"].to_numpy(), "scored": "score"}
    if "logprobs" not in table.schema.names or table["logprobs"].null_count:
        return {}
    lists = table["logprobs"].combine_chunks()
    count_S = np.asarray(pc.list_value_length(lists))
    if not count_S.all():
        return {}
    ends_S = np.cumsum(count_S)
    sums_S = np.add.reduceat(np.asarray(lists.flatten(), dtype=float), ends_S - count_S)
    return {"score": sums_S / count_S, "scored": "mean logprob"}


def of_evaluation(evaluation: Evaluation) -> Measured:
    """What an evaluation says of each problem; its ruler is the recorded hash of template and tokenizer."""
    problems = evaluation.per_problem
    return Measured(
        ids=tuple(problem.id for problem in problems),
        share=np.array([problem.share for problem in problems]),
        length=np.array([problem.tokens for problem in problems], dtype=float),
        ruler=evaluation.settings.template,
    )


def one_ruler(*rulers: str) -> str:
    """The ruler that all lengths were measured with.

    Raises:
        ValueError: there are several.
    """
    if len(set(rulers)) > 1:
        named = " and ".join(sorted({ruler or "a tokenizer that was not recorded" for ruler in rulers}))
        raise ValueError(
            f"lengths were counted with {named}, which are different units: count all with one tokenizer, or compare characters"
        )
    return rulers[0]


def places(ids: Sequence[str], among: Sequence[str]) -> list[int]:
    """Where each of these problems stands in another order.

    Raises:
        ValueError: the problems differ.
    """
    place = {id_: index for index, id_ in enumerate(among)}
    only = sorted(set(ids) ^ place.keys())
    if only or not ids:
        raise ValueError(
            f"cannot pair: {len(only)} problems are in one evaluation only ({', '.join(only[:3])}...); evaluate both on the same problems"
        )
    return [place[id_] for id_ in ids]


def aligned(a: Measured, b: Measured) -> Measured:
    """b in the order of a. Raises as `places`."""
    order_N = places(a.ids, b.ids)
    return Measured(a.ids, b.share[order_N], b.length[order_N], b.ruler)


def accuracy_change(new: Measured, old: Measured) -> np.ndarray:
    """New minus old accuracy of each problem, [N]. Raises as `places`."""
    return new.share - aligned(new, old).share


def length_change(new: Measured, old: Measured) -> Interval:
    """Mean new over mean old length, minus 1 (-0.77: 77 % less), problems resampled jointly; 0 is left out only if sign flips do (`statistics.agreed`). Raises as `places` and `one_ruler`."""
    one_ruler(new.ruler, old.ruler)
    pair_N2 = np.stack([new.length, aligned(new, old).length], axis=1)
    return agreed(bootstrap(pair_N2, lambda new_R, old_R: new_R / old_R - 1), pair_N2[:, 0] - pair_N2[:, 1])
