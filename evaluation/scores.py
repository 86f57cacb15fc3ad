"""Scores: what the judged samples of an evaluation say, each number with its noise.

Claim: one road from a table of samples to numbers, for evaluations of a run, for `laconic eval`, and for samples that others made.
Every mean is a mean over problems of the mean over their samples, and every interval resamples problems (statistics.py).

A sample that could not be judged stays in the denominator: accuracy is right / samples that exist, and the true value
lies at most the `not_judged` share above it. Samples asked for and never made are the gap between `asked`
and the sum of `per_problem[].samples`; a problem without any is an error, since leaving it out would move the mean.

Simplification: one benchmark at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from evaluation.attempts import maj_at_k, of_samples, voted
from evaluation.lengths import by_outcome
from evaluation.measured import Samples, budgets_up_to, grouped, of_table
from evaluation.results import (
    Adherence,
    Budget,
    Cell,
    Evaluation,
    Forced,
    Lengths,
    Majority,
    Overlap,
    Point,
    ProblemScore,
    Settings,
    Share,
    ShortOf,
)
from evaluation.statistics import interval, resampled_means, share_interval
from evaluation.word_overlap import token_f1
from rewards.verifier.words import is_words
from rollout.records import CHARACTERS
from rollout.types import FORCED


def budget_curve(samples: Samples, budgets: Sequence[int]) -> list[Point]:
    """Accuracy at smaller budgets, cut after the fact: a sample counts at budget b if it is right and used at most b tokens.

    Pessimistic where it is tight: a model told to stop at b, or trained to, might still have answered.
    """
    budget_B = np.asarray(budgets)
    right_NB = samples.right_within(budget_B)
    tokens_B = samples.means(np.minimum(samples.length[:, None], budget_B)).mean(axis=0)
    several = len(samples.ids) > 1
    bounds_2B = np.percentile(resampled_means(right_NB), [2.5, 97.5], axis=0) if several else np.full((2, len(budget_B)), np.nan)
    for place in np.flatnonzero(np.ptp(right_NB, axis=0) == 0) if several else ():  # all alike is not certainty
        bounds_2B[:, place] = share_interval(right_NB[:, place])[1:]
    return [
        Point(budget=int(budget), accuracy=float(accuracy), low=_or_none(low), high=_or_none(high), tokens=float(tokens))
        for budget, accuracy, low, high, tokens in zip(budget_B, right_NB.mean(axis=0), *bounds_2B, tokens_B, strict=True)
    ]


def score(
    table: pa.Table, *, checkpoint: str, step: int, source: str, settings: Settings, asked: Mapping[str, int] | None = None
) -> Evaluation:
    """The numbers of one evaluation from its samples.

    `tokens.right`, `.wrong` and `.truncated` are means over such samples; `by_outcome` splits them into thinking and answer.
    `token_f1` is of the problems whose gold is in words; it is no accuracy.

    Args:
        table: columns of rollout.records.SCHEMA; problems come in the order of their first rows.
        asked: of each problem that was to be sampled, how often.

    Raises:
        ValueError: no samples, a problem without samples, or a sample that comes twice.
    """
    table = grouped(table)
    asked = asked or {}
    samples, budget = of_table(table, None if settings.template == CHARACTERS else settings.max_tokens), settings.budget
    if missing := sorted(asked.keys() - set(samples.ids)):
        raise ValueError(f"problem {missing[0]}: no samples, and leaving it out would move the mean; sample it again")
    first_N = np.cumsum(samples.count) - samples.count
    problems = table.select(["family", "level", "answer", "golds"]).take(first_N).to_pylist()
    forced = None
    if isinstance(budget, Budget) and budget.kind in ("forced", "extended"):
        forced = {"forced": _forced, "extended": _extended}[budget.kind](samples, table, budget.limit)
    stated = _stated(samples, table["stated"].to_pylist()) if settings.lenient and not isinstance(budget, ShortOf) else None
    reason_S, parallel = np.array(table["reason"].to_pylist(), dtype=object), None
    if isinstance(budget, ShortOf):  # from here on a sample is a vote
        samples, parallel = voted(samples, budget.first, budget.of)
        reason_S = np.full(len(samples.problem), "no votes", dtype=object)
    votes_N = _majorities(samples) if parallel is None else []
    told = any(table[name].null_count < len(table) for name in ("ids", "think_tokens"))  # who counts without ids need not count thinking
    overlap_N = _overlaps(samples, problems)
    measured, outcome, tokens = samples.measured, by_outcome(samples, told), interval(samples.measured.length)
    silent_S = np.array([said is None for said in samples.extracted]) & samples.wrong
    why_S = np.where(samples.cut, "unfinished", reason_S)
    longest = (
        settings.max_tokens if samples.ruler != CHARACTERS and parallel is None else max(samples.length.max(), 1)
    )  # limits are tokens of one sample
    return Evaluation(
        checkpoint=checkpoint,
        step=step,
        source=source,
        settings=settings,
        problems=len(samples.ids),
        samples=(settings.samples if parallel is None else None) or int(samples.count.max()),
        asked=sum(asked.values()) // (budget.of if isinstance(budget, ShortOf) else 1) or None,
        accuracy=Share(**share_interval(measured.share)._asdict()),
        tokens=Lengths(
            mean=tokens.mean,
            low=_or_none(tokens.low),
            high=_or_none(tokens.high),
            median=float(np.median(samples.length)),
            p90=float(np.percentile(samples.length, 90)),
            right=outcome["right"].total,
            wrong=outcome["wrong"].total,
            truncated=outcome["truncated"].total,
        ),
        truncated=float(samples.means(samples.cut).mean()),
        no_answer=float(samples.means(silent_S).mean()),
        no_answer_by={
            reason: float(samples.means(silent_S & (why_S == reason)).mean()) for reason in sorted(set(why_S[silent_S].tolist()))
        },
        not_judged=float(samples.means(~samples.right & ~samples.wrong).mean()),
        token_f1=_token_f1(overlap_N),
        majority=Majority(k=int(samples.count.min()), **share_interval(np.array(votes_N))._asdict()) if votes_N else None,
        stated=stated,
        by_outcome=outcome,
        by_level=_by_level(samples, problems),
        budget_curve=budget_curve(samples, budgets_up_to(longest).tolist()),
        per_problem=_per_problem(samples, problems, votes_N, overlap_N),
        forced=forced,
        adherence=_adherence(samples, budget.limit) if isinstance(budget, Budget) and budget.kind == "requested" else None,
        parallel=parallel,
    )


def _per_problem(
    samples: Samples, problems: Sequence[dict], votes_N: Sequence[float], overlap_N: Sequence[float | None]
) -> list[ProblemScore]:
    length_N, right_N = samples.measured.length, np.bincount(samples.problem, samples.right, len(samples.ids))
    return [
        ProblemScore(
            id=samples.ids[place],
            family=problem["family"],
            level=problem["level"],
            right=int(right_N[place]),
            samples=int(samples.count[place]),
            tokens=float(length_N[place]),
            majority=votes_N[place] if votes_N else None,
            token_f1=overlap_N[place],
        )
        for place, problem in enumerate(problems)
    ]


def _majorities(samples: Samples) -> list[float]:
    """Of each problem the share of right votes among as many of its samples as every problem has; empty for single samples."""
    k = int(samples.count.min())
    return [maj_at_k(one, k) for one in of_samples(samples)] if k > 1 else []


def _stated(samples: Samples, verdicts: Sequence[str | None]) -> Share:
    stated_S = samples.right | (np.array(verdicts, dtype=object) == "right")
    return Share(**share_interval(samples.means(stated_S))._asdict())


def _forced(samples: Samples, table: pa.Table, limit: int) -> Forced:
    """What was put there. A sample that counts more thinking than it had where the mark was put (or than the limit, where it was told to wait before) thought on."""
    sources, thinking = table["sources"].to_pylist(), table["think_tokens"].to_pylist()
    put_S = np.array([(one or []).count(FORCED) for one in sources])
    beyond_S = np.array(
        [FORCED in (one or []) and (thought or 0) > max(limit, one.index(FORCED)) for one, thought in zip(sources, thinking, strict=True)]
    )
    closed, tokens, beyond = (float(samples.means(value_S).mean()) for value_S in (put_S > 0, put_S, beyond_S))
    return Forced(closed=closed, tokens=tokens, beyond=beyond)


def _extended(samples: Samples, table: pa.Table, limit: int) -> Forced:
    """Of tokens put there in a row the last close thinking if the answer begins behind them; all others have it go on."""
    closed_S, rows_S = np.zeros(len(table)), np.zeros(len(table))
    for place, (source, thinking) in enumerate(zip(table["sources"].to_pylist(), table["think_tokens"].to_pylist(), strict=True)):
        put_T = np.array(source or [0]) == FORCED
        ends = np.flatnonzero(put_T & ~np.append(put_T[1:], False))
        rows_S[place] = len(ends)
        closed_S[place] = len(ends) > 0 and thinking == (~put_T[: ends[-1] + 1]).sum()
    closed, waits = (float(samples.means(value_S).mean()) for value_S in (closed_S, rows_S - closed_S))
    return _forced(samples, table, limit).model_copy(update={"closed": closed, "waits": waits})


def _adherence(samples: Samples, limit: int) -> Adherence:
    """Control of s1 (arXiv 2501.19393), and the mean of tokens / limit."""
    within_S = samples.length <= limit
    return Adherence(within=float(samples.means(within_S).mean()), ratio=float(samples.means(samples.length).mean() / limit))


def _overlaps(samples: Samples, problems: Sequence[dict]) -> list[float | None]:
    """Token F1 of each problem whose gold is in words, else None."""
    return [
        float(np.mean([token_f1(said, problem["golds"]) for said in samples.extracted[samples.problem == place]]))
        if is_words(problem["answer"])
        else None
        for place, problem in enumerate(problems)
    ]


def _token_f1(overlap_N: Sequence[float | None]) -> Overlap | None:
    """Over the problems whose gold is in words; None without any."""
    found = [one for one in overlap_N if one is not None]
    return Overlap(**share_interval(np.array(found))._asdict(), problems=len(found)) if found else None


def _by_level(samples: Samples, problems: Sequence[dict]) -> list[Cell]:
    cells: dict[tuple[str, int], list[int]] = {}
    for place, problem in enumerate(problems):
        cells.setdefault((problem["family"], problem["level"]), []).append(place)
    measured, table = samples.measured, []
    for (family, level), places in sorted(cells.items()):
        right_tokens = samples.length[samples.right & np.isin(samples.problem, places)]
        table.append(
            Cell(
                family=family,
                level=level,
                problems=len(places),
                accuracy=float(measured.share[places].mean()),
                tokens=float(measured.length[places].mean()),
                tokens_right=float(right_tokens.mean()) if len(right_tokens) else None,
            )
        )
    return table


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
