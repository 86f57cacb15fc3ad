"""Scores: what the judged samples of an evaluation say, each number with its noise.

Every mean is a mean over problems of the mean over their samples, and every interval resamples problems (statistics.py).

A sample that could not be judged stays in the denominator: accuracy is right / samples that exist, and the true value
lies at most the `not_judged` share above it. Samples asked for and never made are the gap between `samples` x `problems`
and the sum of `per_problem[].samples`; a problem without any is an error, since leaving it out would move the mean.

Simplification: one benchmark at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from evaluation.statistics import RESAMPLES, Interval, difference_interval, interval, resampled_means, share_interval
from rollout.types import Group

_CURVE_POINTS = 64

PerProblem = Sequence[Mapping[str, Any]]
"""Items with id, right, samples and tokens: `per_problem` of an evaluation."""


def paired_difference(
    a: PerProblem, b: PerProblem, key: Literal["accuracy", "tokens"] = "accuracy", resamples: int = RESAMPLES
) -> Interval:
    """Mean over problems of a minus b, both measured on the same problems.

    Raises:
        ValueError: the problems differ.
    """
    a_N, b_N = _paired(a, b, key)
    return (difference_interval if key == "accuracy" else interval)(a_N - b_N, resamples)


def paired_ratio(a: PerProblem, b: PerProblem, key: Literal["accuracy", "tokens"] = "tokens") -> Interval:
    """Mean of a over mean of b, minus 1 (-0.77: 77 % less), problems resampled jointly. Raises as paired_difference."""
    pair_N2 = np.stack(_paired(a, b, key), axis=1)
    mean_a, mean_b = pair_N2.mean(axis=0)
    if len(pair_N2) < 2:
        return Interval(float(mean_a / mean_b - 1), math.nan, math.nan)
    means_R2 = resampled_means(pair_N2)
    low, high = np.percentile(means_R2[:, 0] / means_R2[:, 1] - 1, [2.5, 97.5])
    return Interval(float(mean_a / mean_b - 1), float(low), float(high))


def budget_curve(tokens_S: np.ndarray, right_S: np.ndarray, starts_N: np.ndarray, budgets: Sequence[int]) -> list[dict[str, float | None]]:
    """Accuracy at smaller budgets, cut after the fact: a sample counts at budget b if it is right and used at most b tokens.

    Pessimistic where it is tight: a model told to stop at b, or trained to, might still have answered.

    Args:
        tokens_S, right_S: tokens and verdict of each sample, [samples of all problems], problem by problem.
        starts_N: index of each problem's first sample.
        budgets: tokens.

    Returns:
        Per budget: budget, accuracy, low, high, and tokens, the mean of min(tokens, budget). Bounds are None for one problem.
    """
    budget_B = np.asarray(budgets)
    right_SB = right_S[:, None] & (tokens_S[:, None] <= budget_B)
    right_NB = _problem_means(right_SB, starts_N)
    tokens_B = _problem_means(np.minimum(tokens_S[:, None], budget_B), starts_N).mean(axis=0)
    bounds_2B = np.percentile(resampled_means(right_NB), [2.5, 97.5], axis=0) if len(starts_N) > 1 else np.full((2, len(budget_B)), np.nan)
    return [
        {"budget": int(budget), "accuracy": float(accuracy), "low": _or_none(low), "high": _or_none(high), "tokens": float(tokens)}
        for budget, accuracy, low, high, tokens in zip(budget_B, right_NB.mean(axis=0), *bounds_2B, tokens_B, strict=True)
    ]


def score(groups: Sequence[Group], *, checkpoint: str, step: int, source: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The content of evals/step-N.json (docs/architecture.md) from judged groups.

    `tokens.right`, `.wrong` and `.truncated` are means over such samples; a truncated sample that was judged wrong is in both.
    `no_answer_by` splits `no_answer` by reason; `stated` is the accuracy if answers stated without a box count, too, None unless `settings` is lenient.
    Values that do not exist are None. `settings` holds at least `samples` (asked for per problem) and `max_tokens`.

    Raises:
        ValueError: no groups, a problem without samples, or a problem that comes twice.
    """
    _check(groups)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    samples_N = np.array([len(group.rollouts) for group in groups])
    starts_N = np.concatenate([[0], np.cumsum(samples_N)[:-1]])
    tokens_S = np.array([rollout.tokens for rollout in rollouts])
    right_S = np.array([rollout.right for rollout in rollouts])
    wrong_S = np.array([rollout.verdict is not None and rollout.verdict.status == "wrong" for rollout in rollouts])
    cut_S = np.array([rollout.completion.cut for rollout in rollouts])
    silent_S = np.array([rollout.verdict is not None and rollout.verdict.extracted is None for rollout in rollouts]) & wrong_S
    stated_S = right_S | np.array([rollout.stated is not None and rollout.stated.status == "right" for rollout in rollouts])
    why_S = np.array(
        ["unfinished" if cut else rollout.verdict.reason if rollout.verdict else "" for rollout, cut in zip(rollouts, cut_S, strict=True)]
    )
    right_N, tokens_N = _problem_means(right_S, starts_N), _problem_means(tokens_S, starts_N)

    accuracy, tokens = share_interval(right_N), interval(tokens_N)
    budgets = np.unique(np.linspace(0, settings["max_tokens"], _CURVE_POINTS + 1).round().astype(int))[1:]
    per_problem = [
        {
            "id": group.problem.id,
            "family": group.problem.family,
            "level": group.problem.level,
            "right": sum(rollout.right for rollout in group.rollouts),
            "samples": len(group.rollouts),
            "tokens": float(mean),
        }
        for group, mean in zip(groups, tokens_N, strict=True)
    ]
    return {
        "checkpoint": checkpoint,
        "step": step,
        "source": source,
        "settings": dict(settings),
        "problems": len(groups),
        "samples": settings["samples"],
        "accuracy": accuracy._asdict(),
        "tokens": {
            "mean": tokens.mean,
            "low": _or_none(tokens.low),
            "high": _or_none(tokens.high),
            "median": float(np.median(tokens_S)),
            "p90": float(np.percentile(tokens_S, 90)),
            "right": _mean_where(tokens_S, right_S),
            "wrong": _mean_where(tokens_S, wrong_S),
            "truncated": _mean_where(tokens_S, cut_S),
        },
        "truncated": float(_problem_means(cut_S, starts_N).mean()),
        "no_answer": float(_problem_means(silent_S, starts_N).mean()),
        "no_answer_by": {
            reason: float(_problem_means(silent_S & (why_S == reason), starts_N).mean()) for reason in sorted(set(why_S[silent_S].tolist()))
        },
        "not_judged": float(_problem_means(~right_S & ~wrong_S, starts_N).mean()),
        "stated": share_interval(_problem_means(stated_S, starts_N))._asdict() if settings.get("lenient") else None,
        "by_level": _by_level(groups),
        "budget_curve": budget_curve(tokens_S, right_S, starts_N, budgets.tolist()),
        "per_problem": per_problem,
    }


def _by_level(groups: Sequence[Group]) -> list[dict[str, Any]]:
    cells: dict[tuple[str, int], list[Group]] = {}
    for group in groups:
        cells.setdefault((group.problem.family, group.problem.level), []).append(group)
    table = []
    for (family, level), members in sorted(cells.items()):
        right_tokens = [rollout.tokens for group in members for rollout in group.rollouts if rollout.right]
        table.append(
            {
                "family": family,
                "level": level,
                "problems": len(members),
                "accuracy": float(np.mean([np.mean([rollout.right for rollout in group.rollouts]) for group in members])),
                "tokens": float(np.mean([np.mean([rollout.tokens for rollout in group.rollouts]) for group in members])),
                "tokens_right": float(np.mean(right_tokens)) if right_tokens else None,
            }
        )
    return table


def _check(groups: Sequence[Group]) -> None:
    if not groups:
        raise ValueError("nothing to score: no problem was sampled")
    seen: set[str] = set()
    for group in groups:
        if not group.rollouts:
            raise ValueError(f"problem {group.problem.id}: no samples, and leaving it out would move the mean; sample it again")
        if group.problem.id in seen:
            raise ValueError(f"problem {group.problem.id}: scored twice; give each problem one group")
        seen.add(group.problem.id)


def _paired(a: PerProblem, b: PerProblem, key: str) -> tuple[np.ndarray, np.ndarray]:
    value_a, value_b = (
        {row["id"]: row["right"] / row["samples"] if key == "accuracy" else row["tokens"] for row in rows} for rows in (a, b)
    )
    only = sorted(value_a.keys() ^ value_b.keys())
    if only or not value_a:
        raise ValueError(
            f"cannot pair: {len(only)} problems are in one evaluation only ({', '.join(only[:3])}...); evaluate both on the same problems"
        )
    return np.array([value_a[id_] for id_ in value_a], dtype=float), np.array([value_b[id_] for id_ in value_a], dtype=float)


def _problem_means(values_S: np.ndarray, starts_N: np.ndarray) -> np.ndarray:
    """Mean of each problem's samples: [S, ...] -> [N, ...]."""
    count_N = np.diff(np.append(starts_N, len(values_S)))
    total_N = np.add.reduceat(values_S.astype(float), starts_N, axis=0)
    return total_N / count_N.reshape(-1, *[1] * (values_S.ndim - 1))


def _mean_where(values_S: np.ndarray, mask_S: np.ndarray) -> float | None:
    return float(values_S[mask_S].mean()) if mask_S.any() else None


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
