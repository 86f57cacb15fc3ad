"""Efficiency: accuracy and length in one number, and why each such number names what it depends on.

Claim: a scalar is worth what its name says: weights, base of the logarithm, axis and end points are part of it. None replaces the pair of accuracy
and length, with intervals, beside it. Formulas take shares (0..1) and lengths as arrays, so that one bootstrap over problems serves all;
whatever sets two models against each other takes `Measured` or `Point` and refuses lengths of different rulers.
Sources: E3 and A/T of Plan-and-Budget (2505.16122), AES of O1-Pruner (2501.12570), s1 (2501.19393), OckScore (2511.05722), REG (2506.07104).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import trapezoid

from evaluation.measured import Measured, aligned, one_ruler
from evaluation.statistics import Interval, bootstrap
from rollout.records import CHARACTERS

_OCK_TOKENS = 10_000


class Weights(NamedTuple):
    """Weights of AES: of the share of length saved, of a relative gain of accuracy, of a relative loss."""

    shorter: float
    gain: float
    loss: float


WEIGHTS = Weights(1, 3, 5)
"""Those of most scripts; S3-CoT has (1, 5, 10), QFFT (0.1, 0.1, 1)."""


class Scalar(NamedTuple):
    """A number with its interval, under a name that says what it depends on; numbers of different rulers do not belong into one column."""

    name: str
    value: Interval


class Point(NamedTuple):
    """A model, or a model at a budget: its accuracy (share) and its mean length."""

    label: str
    accuracy: float
    length: float
    ruler: str


def e3(accuracy: ArrayLike, tokens: ArrayLike) -> np.ndarray:
    """E3 of Plan-and-Budget: (accuracy in per cent)^2 / mean tokens. It can rise while accuracy falls."""
    return (100 * np.asarray(accuracy)) ** 2 / np.asarray(tokens)


def per_token(accuracy: ArrayLike, tokens: ArrayLike) -> np.ndarray:
    """Accuracy in per cent for each token."""
    return 100 * np.asarray(accuracy) / np.asarray(tokens)


def aes(accuracy: ArrayLike, length: ArrayLike, base_accuracy: ArrayLike, base_length: ArrayLike, weights: Weights = WEIGHTS) -> np.ndarray:
    """Accuracy-efficiency score: weighted share of length saved, plus weighted relative gain of accuracy, or minus weighted relative loss."""
    saved = 1 - np.asarray(length) / np.asarray(base_length)
    gained = np.asarray(accuracy) / np.asarray(base_accuracy) - 1
    return weights.shorter * saved + np.where(gained >= 0, weights.gain, weights.loss) * gained


def ock(accuracy: ArrayLike, tokens: ArrayLike, base: Literal["10", "ln"] = "10") -> np.ndarray:
    """OckScore: accuracy in per cent - 10 x log(mean generated tokens / 10,000 + 1).

    Base 10 fits the published table, "ln" is what the released code computes. Samples that failed without tokens would be rewarded for it:
    count them with `failures_at_limit` first.
    """
    log = np.log10 if base == "10" else np.log
    return 100 * np.asarray(accuracy) - 10 * log(np.asarray(tokens) / _OCK_TOKENS + 1)


def failures_at_limit(tokens_S: ArrayLike, failed_S: ArrayLike, limit: int) -> np.ndarray:
    """Tokens of samples, those that failed to be generated counted as if they had used all that they were allowed."""
    return np.where(failed_S, limit, tokens_S)


def scalars(model: Measured) -> list[Scalar]:
    """E3, accuracy per token and both OckScores of a model.

    Raises:
        ValueError: its lengths are characters; these are defined for tokens.
    """
    if model.ruler == CHARACTERS:
        raise ValueError("E3, accuracy per token and OckScore are defined for tokens, these lengths are characters: count tokens")
    pair_N2 = np.stack([model.share, model.length], axis=1)
    formulas: dict[str, Callable[..., np.ndarray]] = {
        "E3 of Plan-and-Budget": e3,
        "accuracy per token": per_token,
        "OckScore, base 10": partial(ock, base="10"),
        "OckScore, base e": partial(ock, base="ln"),
    }
    return [Scalar(name, bootstrap(pair_N2, formula)) for name, formula in formulas.items()]


def against(model: Measured, base: Measured, weights: Weights = WEIGHTS) -> list[Scalar]:
    """AES against a base model, and accuracy per token relative to the base's (token efficiency of SwiReasoning).

    Raises:
        ValueError: the problems differ, or lengths were counted in different units.
    """
    one_ruler(model.ruler, base.ruler)
    base = aligned(model, base)
    values_N4 = np.stack([model.share, model.length, base.share, base.length], axis=1)
    score = bootstrap(values_N4, partial(aes, weights=weights))
    ratio = bootstrap(values_N4, lambda a, t, base_a, base_t: per_token(a, t) / per_token(base_a, base_t))
    return [
        Scalar(f"AES ({', '.join(f'{weight:g}' for weight in weights)})", score),
        Scalar("accuracy per token, new over old", ratio),
    ]


def budget_area(budget_B: ArrayLike, accuracy_RB: ArrayLike, axis: Literal["linear", "log2"]) -> np.ndarray:
    """Mean height of an accuracy curve over its span of budgets (trapezoids): [..., B] -> [...]. The axis and the end points belong to the number.

    Raises:
        ValueError: budgets do not ascend, there are fewer than two, or the axis is a logarithm and one is not above 0.
    """
    x_B = np.asarray(budget_B, dtype=float)
    if len(x_B) < 2 or (np.diff(x_B) <= 0).any() or (axis == "log2" and x_B[0] <= 0):
        raise ValueError(f"area over budgets {list(x_B)}: give at least two, ascending, above 0 for a log2 axis")
    x_B = np.log2(x_B) if axis == "log2" else x_B
    return trapezoid(np.asarray(accuracy_RB), x_B, axis=-1) / (x_B[-1] - x_B[0])


def frontier_gap(accuracy_B: ArrayLike, frontier_B: ArrayLike) -> float:
    """REG: sum over budgets of what a model lacks to the best of a pool. It depends on the pool: name and freeze it."""
    return float(np.sum(np.asarray(frontier_B) - np.asarray(accuracy_B)))


def scaling(tokens_B: ArrayLike, accuracy_B: ArrayLike) -> float:
    """Mean slope over all pairs of budgets (s1): accuracy for each further token.

    Raises:
        ValueError: fewer than two budgets, or two of the same length.
    """
    x_B, y_B = np.asarray(tokens_B, dtype=float), np.asarray(accuracy_B, dtype=float)
    if len(np.unique(x_B)) < max(len(x_B), 2):
        raise ValueError(f"slopes between lengths {list(x_B)}: give at least two, all different")
    i, j = np.triu_indices(len(x_B), 1)
    return float(np.mean((y_B[j] - y_B[i]) / (x_B[j] - x_B[i])))


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats: none is as short and as accurate, and better in one. Shortest first. Raises as `one_ruler`."""
    one_ruler(*(point.ruler for point in points))

    def beaten(point: Point) -> bool:
        return any(
            other.length <= point.length and other.accuracy >= point.accuracy and other[1:3] != point[1:3]
            for other in points
        )  # fmt: skip

    return sorted((point for point in points if not beaten(point)), key=lambda point: point.length)


def hypervolume(points: Sequence[Point], limit: float) -> float:
    """Share of the rectangle from (0 tokens, all right) to (limit, none right) that the front dominates.

    Args:
        limit: the length from which on nothing counts; a fixed cap that the report prints. Points beyond it add nothing.
    Raises:
        ValueError: no points, a limit that is not above 0, or lengths of different rulers.
    """
    if not points or limit <= 0:
        raise ValueError(f"hypervolume of {len(points)} points up to {limit:g}: needs a point and a limit above 0")
    reached = [point for point in front(points) if point.length < limit]
    ends = [point.length for point in reached[1:]] + [limit]
    return sum(point.accuracy * (end - point.length) for point, end in zip(reached, ends, strict=False)) / limit
