"""Noise: intervals, tests and claims about numbers of which there is one a problem.

Claim: problems are what was drawn, so every interval resamples problems (percentile bootstrap, 95 %, fixed seed), samples of one problem
are never taken for independent ones, and two models are compared by the differences on the same problems.
A difference that is not shown is no equality: "as good as before" is a claim of its own, non-inferiority, with a margin fixed beforehand.
Simplification: percentile intervals, which are a little narrow for few problems (those of claims are wider); below `FEWEST` problems nothing is claimed at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import binomtest, permutation_test

RESAMPLES = 10_000
FEWEST = 6  # problems: with fewer an exact sign-flip test cannot reach p < 0.05
_SEED = 0
_CHUNK_CELLS = 4_000_000  # bounds the memory of the resample counts: about 32 MB at a time
_KEPT_CELLS = 20_000_000  # of draws that are kept for the next number
LEVEL = 0.05
_EXACT = 16  # differences other than 0: up to here all 2^16 sign patterns are tried, beyond RESAMPLES random ones
_SLACK = 1e-9  # sums that are equal but for rounding

Claim = Literal["better", "not worse", "worse", "not shown", "too few"]


class Interval(NamedTuple):
    """A mean and its 95 % interval; low and high are NaN where one problem leaves nothing to resample."""

    mean: float
    low: float
    high: float


def resampled_means(values_NK: np.ndarray, resamples: int = RESAMPLES, seed: int = _SEED) -> np.ndarray:
    """Means over problems drawn with replacement, [resamples, K]: all K columns see the same draws.

    Args:
        values_NK: one row a problem; columns that belong together (accuracy and tokens, all budgets) stay paired.
    """
    N = len(values_NK)
    drawn = _kept_draws(N, resamples, seed) if N * resamples <= _KEPT_CELLS else _draws(N, resamples, seed)
    return np.concatenate([times_RN @ values_NK / N for times_RN in drawn])


def _draws(N: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of N problems is drawn, [rows, N] at a time, in `resamples` rows."""
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // N)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn_RN = rng.integers(0, N, (rows, N)) + N * np.arange(rows)[:, None]
        yield np.bincount(drawn_RN.ravel(), minlength=rows * N).reshape(rows, N)


@lru_cache(maxsize=4)
def _kept_draws(N: int, resamples: int, seed: int) -> list[np.ndarray]:
    """`_draws`, made once for all numbers of a set: a report has dozens of one. At most 4 x 40 MB."""
    return [times_RN.astype(np.uint16) for times_RN in _draws(N, resamples, seed)]


def bootstrap(values_NK: np.ndarray, statistic: Callable[..., np.ndarray], resamples: int = RESAMPLES) -> Interval:
    """A statistic of means over problems with its interval; the columns are resampled jointly.

    Args:
        values_NK: one row a problem, for example its accuracy and its tokens under two models.
        statistic: of K columns of means, each [R], to [R]: their ratio, for example. Where it does not exist for some draws (a division of 0 by 0), neither do the bounds.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = float(statistic(*values_NK.mean(axis=0)))
        if len(values_NK) < 2:
            return Interval(whole, math.nan, math.nan)
        low, high = np.percentile(statistic(*resampled_means(values_NK, resamples).T), [2.5, 97.5])
    return Interval(whole, float(low), float(high))


def interval(values_N: np.ndarray, resamples: int = RESAMPLES) -> Interval:
    """Mean over problems with its bootstrap interval; NaN bounds for a single problem."""
    return bootstrap(np.asarray(values_N, dtype=float)[:, None], lambda mean_R: mean_R, resamples)


def stratified(sets: Sequence[np.ndarray]) -> Interval:
    """Mean over benchmarks of mean differences of shares, each of equal weight; problems are resampled inside each benchmark.

    Of one whose problems all agree nothing can be resampled: what Wilson's interval of 0 in N leaves open there is added to both sides.

    Args:
        sets: of each benchmark a difference of two models for each problem, from -1 to 1.
    """
    mean = float(np.mean([np.mean(values_N) for values_N in sets]))
    means_RS = np.column_stack([resampled_means(np.asarray(values_N)[:, None], seed=seed) for seed, values_N in enumerate(sets)])
    low, high = np.percentile(means_RS.mean(axis=1), [2.5, 97.5])
    unseen = math.hypot(*(wilson(0.0, len(values_N)).high for values_N in sets if np.ptp(values_N) == 0)) / len(sets)
    return Interval(mean, max(-1.0, float(low) - unseen), min(1.0, float(high) + unseen))


def share_interval(share_N: np.ndarray) -> Interval:
    """Interval of a mean share; Wilson's score interval over N problems where all are alike and nothing can be resampled.

    Thirty problems solved out of thirty are not certainty: the bootstrap would say [1, 1], Wilson says [0.8865, 1].
    """
    share_N = np.asarray(share_N, dtype=float)
    if np.ptp(share_N) > 0:
        return interval(share_N)
    return wilson(float(share_N.mean()), len(share_N))


def difference_interval(difference_N: np.ndarray, resamples: int = RESAMPLES) -> Interval:
    """Interval of a mean difference of shares, each from -1 to 1.

    Where all problems agree, nothing can be resampled, and that is not certainty: none of N moved away from the others, so by
    Wilson's interval of 0 in N up to that share of problems may, each by 1 (N = 30: 0.1135 to both sides).
    """
    difference_N = np.asarray(difference_N, dtype=float)
    if np.ptp(difference_N) > 0 or len(difference_N) < 2:
        return interval(difference_N, resamples)
    mean, unseen = float(difference_N[0]), wilson(0.0, len(difference_N)).high
    return Interval(mean, max(-1.0, mean - unseen), min(1.0, mean + unseen))


def claim_interval(difference_N: np.ndarray) -> Interval:
    """The interval that claims are made by: `claim_bounds`, which leave out 0 only if sign flips do, too. NaN bounds for a single problem."""
    difference_N = np.asarray(difference_N, dtype=float)
    mean = float(difference_N.mean())
    if len(difference_N) < 2:
        return Interval(mean, math.nan, math.nan)
    return agreed(Interval(mean, *claim_bounds(difference_N[:, None])[:, 0].tolist()), difference_N)


def agreed(change: Interval, difference_N: np.ndarray) -> Interval:
    """The interval of a change, which reaches to 0 unless sign flips of the problems' differences leave that out, too: of few problems the bootstrap alone shows what is not there in 8 to 14 of 100 looks."""
    mean, low, high = change
    if (low > 0 or high < 0) and not _certain(difference_N) and sign_flip(difference_N) > LEVEL:
        low, high = min(low, 0.0), max(high, 0.0)
    return Interval(mean, low, high)


def claim_bounds(difference_NK: np.ndarray) -> np.ndarray:
    """Bounds of K mean differences of shares, [2, K]: the bootstrap's, and to each side wider by what N problems do not show.

    A bootstrap never sees what did not occur: of one gain and no loss it takes the loss that is still possible for none, of thirty problems that
    moved by a sample or two it takes none for lost whole. Of such there may be as many as Wilson's interval of 0 in N has (N = 30: 0.1135). As in
    Newcombe's interval of a difference, the two are squared and added.
    """
    mean_K, unseen = difference_NK.mean(axis=0), wilson(0.0, len(difference_NK)).high
    low_K, high_K = np.percentile(resampled_means(difference_NK), [2.5, 97.5], axis=0)
    return np.clip([mean_K - np.hypot(mean_K - low_K, unseen), mean_K + np.hypot(high_K - mean_K, unseen)], -1, 1)


def _certain(difference_N: np.ndarray) -> bool:
    """Whether sign flips are sure to have p below `LEVEL`, without trying any: of random signs |sum| reaches z sqrt(sum of squares) in 2 exp(-z^2 / 2) at most (Hoeffding)."""
    return bool(difference_N.sum() ** 2 >= 2 * math.log(2 / LEVEL) * (difference_N**2).sum())


def at_once(difference_NK: np.ndarray) -> np.ndarray:
    """Two-sided p of each of K mean differences, adjusted for looking at all of them, [K]: 0.05 says that such a look errs once in twenty.

    Sign flips of whole problems (Westfall and Young's max-T): how often the largest of the K |sum| / sqrt(sum of squares), which flips leave alone below the line,
    is as large as the one seen. Exact whatever the number of problems and however their K differences hang together; a column of zeros has p = 1.

    Args:
        difference_NK: one row a problem, its differences at each budget.
    """
    difference_NK = np.asarray(difference_NK, dtype=float)
    moved_MK = difference_NK[(difference_NK != 0).any(axis=1)]
    length_K = np.sqrt((moved_MK**2).sum(axis=0))
    scaled_MK = moved_MK / np.where(length_K > 0, length_K, 1)
    seen_K = np.abs(scaled_MK.sum(axis=0))
    M = len(moved_MK)
    if M <= _EXACT:
        signs_RM = 1.0 - 2.0 * (np.arange(2**M)[:, None] >> np.arange(M) & 1)
    else:
        signs_RM = 1.0 - 2.0 * np.random.default_rng(_SEED).integers(0, 2, (RESAMPLES, M), np.int8)
        signs_RM[0] = 1.0  # the pattern that was seen is one of them
    largest_R = np.sort(np.abs(signs_RM @ scaled_MK).max(axis=1, initial=0))
    return 1 - np.searchsorted(largest_R, seen_K - _SLACK) / len(largest_R)


def wilson(share: float, trials: int) -> Interval:
    """Wilson's 95 % score interval of a share seen in `trials` independent trials; the share need not be a whole number of them."""
    z = 1.959964
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def standard_error(values_N: np.ndarray) -> float:
    """sd / sqrt(N), ddof 1, of a mean over problems: clustered, for shares as for paired differences. NaN with one problem."""
    values_N = np.asarray(values_N, dtype=float)
    return float(values_N.std(ddof=1) / math.sqrt(len(values_N))) if len(values_N) > 1 else math.nan


def standard_errors(right_N: np.ndarray, samples_N: np.ndarray) -> tuple[float, float]:
    """(SE_gen, SE_fix) of mean accuracy: over new problems, and over new samples of these problems.

    SE_gen = sd(p) / sqrt(N), ddof 1; SE_fix = sqrt(sum p (1 - p) / (n - 1)) / N. NaN with one problem, or one sample.
    """
    right_N, samples_N = np.asarray(right_N, dtype=float), np.asarray(samples_N, dtype=float)
    share_N, N = right_N / samples_N, len(right_N)
    fix = float(np.sqrt(np.sum(share_N * (1 - share_N) / (samples_N - 1))) / N) if samples_N.min() > 1 else math.nan
    return standard_error(share_N), fix


def difference_shown(difference: Interval, problems: int) -> bool:
    """Whether an interval excludes 0. Fewer than `FEWEST` problems never show one."""
    return problems >= FEWEST and (difference.low > 0 or difference.high < 0)


def sign_flip(difference_N: np.ndarray) -> float:
    """Two-sided p of the mean of paired differences, if each were as likely to have the other sign.

    Exact for up to 16 differences other than 0 (those that are 0 have no sign) and where all of those are of one size, which is McNemar's test; else from 10,000
    random patterns, never below 2/10,001 then.
    """
    moved_M = np.asarray(difference_N, dtype=float)
    moved_M = moved_M[moved_M != 0]
    if len(moved_M) < 2:  # one has two patterns of signs, both as far from 0
        return 1.0
    if np.ptp(np.abs(moved_M)) == 0:
        return mcnemar(int((moved_M > 0).sum()), int((moved_M < 0).sum()))
    patterns = 2 ** len(moved_M) if len(moved_M) <= _EXACT else RESAMPLES
    found = permutation_test(
        (moved_M,), np.mean, permutation_type="samples", vectorized=True, n_resamples=patterns, batch=2_000_000 // len(moved_M), rng=_SEED
    )
    return float(found.pvalue)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of McNemar's test, for one sample a problem: problems that only one of the two models solves."""
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p of several claims, in the given order: reject those below the level, and at most that share of families errs."""
    p_M = np.asarray(p_values, dtype=float)
    order_M = np.argsort(p_M)
    stepped_M = np.maximum.accumulate(p_M[order_M] * np.arange(len(p_M), 0, -1))
    adjusted_M = np.empty(len(p_M))
    adjusted_M[order_M] = np.minimum(stepped_M, 1.0)
    return [float(p) for p in adjusted_M]


def non_inferiority(difference: Interval, problems: int, delta: float) -> Claim:
    """What may be claimed of new minus old accuracy, with a margin fixed before either was seen.

    "not worse" if the whole interval lies above -delta ("better": above 0), "worse" if it lies below -delta, "not shown" in between, "too few"
    below `FEWEST` problems.

    Args:
        delta: the loss that one would put up with, a share above 0 (0.01: a point).
    Raises:
        ValueError: delta is not within 0..1.
    """
    if not 0 < delta < 1:
        raise ValueError(f"non-inferiority with a margin of {delta:g}: give the accuracy one would give up as a share, 0.01 for a point")
    if problems < FEWEST or math.isnan(difference.low):
        return "too few"
    if difference.low > -delta:
        return "better" if difference.low > 0 else "not worse"
    return "worse" if difference.high < -delta else "not shown"
