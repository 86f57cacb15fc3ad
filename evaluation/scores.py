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
from typing import Any

import numpy as np

from evaluation.lengths import by_outcome
from evaluation.measured import Samples, of_groups
from evaluation.statistics import interval, resampled_means, share_interval
from evaluation.word_overlap import token_f1
from rewards.verifier.words import is_words
from rollout.types import Group

_CURVE_POINTS = 64


def budget_curve(samples: Samples, budgets: Sequence[int]) -> list[dict[str, float | None]]:
    """Accuracy at smaller budgets, cut after the fact: a sample counts at budget b if it is right and used at most b tokens.

    Pessimistic where it is tight: a model told to stop at b, or trained to, might still have answered.

    Returns:
        Per budget: budget, accuracy, low, high, and tokens, the mean of min(tokens, budget). Bounds are None for one problem.
    """
    budget_B = np.asarray(budgets)
    right_NB = samples.means(samples.right[:, None] & (samples.length[:, None] <= budget_B))
    tokens_B = samples.means(np.minimum(samples.length[:, None], budget_B)).mean(axis=0)
    several = len(samples.ids) > 1
    bounds_2B = np.percentile(resampled_means(right_NB), [2.5, 97.5], axis=0) if several else np.full((2, len(budget_B)), np.nan)
    return [
        {"budget": int(budget), "accuracy": float(accuracy), "low": _or_none(low), "high": _or_none(high), "tokens": float(tokens)}
        for budget, accuracy, low, high, tokens in zip(budget_B, right_NB.mean(axis=0), *bounds_2B, tokens_B, strict=True)
    ]


def score(groups: Sequence[Group], *, checkpoint: str, step: int, source: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The content of evals/step-N.json (docs/architecture.md) from judged groups.

    `tokens.right`, `.wrong` and `.truncated` are means over such samples; `by_outcome` splits them into thinking and answer.
    `token_f1` is of the problems whose gold is in words, None without any; it is no accuracy.
    `no_answer_by` splits `no_answer` by reason; `stated` is the accuracy if answers stated without a box count, too, None unless `settings` is lenient.
    Values that do not exist are None. `settings` holds at least `samples` (asked for per problem) and `max_tokens`.

    Raises:
        ValueError: no groups, a problem without samples, or a problem that comes twice.
    """
    samples = of_groups(groups, ruler=str(settings.get("template", "")))
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    silent_S = np.array([said is None for said in samples.extracted]) & samples.wrong
    stated_S = samples.right | np.array([rollout.stated is not None and rollout.stated.status == "right" for rollout in rollouts])
    why_S = np.array(
        [
            "unfinished" if cut else rollout.verdict.reason if rollout.verdict else ""
            for rollout, cut in zip(rollouts, samples.cut, strict=True)
        ]
    )
    measured, outcome = samples.measured, by_outcome(samples)
    accuracy, tokens = share_interval(measured.share), interval(measured.length)
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
        for group, mean in zip(groups, measured.length, strict=True)
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
            "median": float(np.median(samples.length)),
            "p90": float(np.percentile(samples.length, 90)),
            "right": outcome["right"]["total"],
            "wrong": outcome["wrong"]["total"],
            "truncated": outcome["truncated"]["total"],
        },
        "truncated": float(samples.means(samples.cut).mean()),
        "no_answer": float(samples.means(silent_S).mean()),
        "no_answer_by": {
            reason: float(samples.means(silent_S & (why_S == reason)).mean()) for reason in sorted(set(why_S[silent_S].tolist()))
        },
        "not_judged": float(samples.means(~samples.right & ~samples.wrong).mean()),
        "token_f1": _token_f1(groups),
        "stated": share_interval(samples.means(stated_S))._asdict() if settings.get("lenient") else None,
        "by_outcome": outcome,
        "by_level": _by_level(groups),
        "budget_curve": budget_curve(samples, budgets.tolist()),
        "per_problem": per_problem,
    }


def _token_f1(groups: Sequence[Group]) -> dict[str, float | None] | None:
    """Over the problems whose gold is in words; None without any. It says nothing of right and wrong."""
    share_N = [
        np.mean([token_f1(rollout.verdict.extracted if rollout.verdict else None, group.problem.golds) for rollout in group.rollouts])
        for group in groups
        if is_words(group.problem.answer)
    ]
    if not share_N:
        return None
    mean, low, high = share_interval(np.array(share_N))
    return {"mean": mean, "low": low, "high": high, "problems": len(share_N)}


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


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
