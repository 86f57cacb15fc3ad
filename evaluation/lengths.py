"""Where lengths go: by outcome, within difficulty, and against another model's.

Claim: long and hard go together, so accuracy by length is shown within tiers of difficulty, on a scale of the model's own (its 99th
percentile), and with intervals over problems; two models' lengths are compared on problems that both solve, one problem one pair.
Simplification: tiers are quantiles of one number a problem (a level, or how often a third model fails on it).
Source: "o3-mini thinks harder, not longer" (2502.15631); its five classes of pairs are not spelt out, those here are ours.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from evaluation.measured import Samples, one_ruler, places
from evaluation.results import Outcome
from evaluation.statistics import FEWEST, resampled_means, wilson

CLASSES = ("both right, shorter", "both right, not shorter", "gained", "lost", "neither")


def by_outcome(samples: Samples, told: bool = True) -> dict[str, Outcome]:
    """Mean thinking, answer and total length of right, wrong and truncated samples; None where there are none.

    A truncated sample that was judged wrong is in both. `thinking` and `answer` are means over those that closed their thinking, whose share is `closed`:
    what is open is neither. Truncated is what the engine cut.

    Args:
        told: somebody counted thinking; if not, how many closed it is not known.
    """
    table = {}
    for name, mask_S in {"right": samples.right, "wrong": samples.wrong, "truncated": samples.cut}.items():
        length_S, thinking_S = samples.length[mask_S], samples.thinking[mask_S]
        closed_S = ~np.isnan(thinking_S)
        table[name] = Outcome(
            samples=int(mask_S.sum()),
            closed=_mean(closed_S) if told else None,
            thinking=_mean(thinking_S[closed_S]),
            answer=_mean(length_S[closed_S] - thinking_S[closed_S]),
            total=_mean(length_S),
        )
    return table


def conditional_error(length_S: ArrayLike, right_S: ArrayLike, edges: ArrayLike) -> np.ndarray:
    """P(wrong | at least this long) for each edge; NaN where nothing is as long."""
    length_S, wrong_S = np.asarray(length_S), ~np.asarray(right_S, dtype=bool)
    longer_EJ = length_S >= np.asarray(edges)[:, None]
    with np.errstate(invalid="ignore"):
        return (longer_EJ & wrong_S).sum(axis=1) / longer_EJ.sum(axis=1)


def relative_bins(length_S: ArrayLike) -> np.ndarray:
    """Index of the tenth that each length is in, of the model's own 99th percentile; the last one is open to the right."""
    length_S = np.asarray(length_S, dtype=float)
    return np.minimum((length_S / np.percentile(length_S, 99) * 10).astype(int), 9)


def tiers(difficulty_N: ArrayLike, count: int = 4) -> np.ndarray:
    """Tier of each problem from 0, easiest, by quantiles of its difficulty; equally hard problems share a tier, so some may be empty."""
    difficulty_N = np.asarray(difficulty_N, dtype=float)
    return np.searchsorted(np.quantile(difficulty_N, np.arange(1, count) / count), difficulty_N, side="left")


def accuracy_by_bin(samples: Samples, bin_S: np.ndarray, tier_N: np.ndarray) -> list[dict[str, Any]]:
    """Accuracy of each bin of samples within each tier of problems, with intervals over problems; bins that are empty are left out.

    Returns:
        Per tier and bin: tier, bin, samples, problems, accuracy, low, high. Bounds are None where fewer than 6 problems have a sample in the bin,
        and Wilson's, over its problems, where all samples in it agree.
    """
    table = []
    bins = np.arange(bin_S.max() + 1)
    within_SB = bin_S[:, None] == bins
    made_NB, right_NB = (samples.means(one_SB) * samples.count[:, None] for one_SB in (within_SB, within_SB & samples.right[:, None]))
    for tier in np.unique(tier_N):
        made_MB, right_MB = made_NB[tier_N == tier], right_NB[tier_N == tier]
        means_R = resampled_means(np.concatenate([right_MB, made_MB], axis=1))
        with np.errstate(invalid="ignore"):
            share_RB = means_R[:, : len(bins)] / means_R[:, len(bins) :]
        for place in np.flatnonzero(made_MB.sum(axis=0)):
            made, share = made_MB[:, place].sum(), right_MB[:, place].sum() / made_MB[:, place].sum()
            problems = int((made_MB[:, place] > 0).sum())
            low, high = wilson(share, problems)[1:] if share in (0, 1) else np.nanpercentile(share_RB[:, place], [2.5, 97.5])
            few = problems < FEWEST
            bounds = {"low": None if few else float(low), "high": None if few else float(high)}
            table.append(
                {"tier": int(tier), "bin": int(place), "samples": round(made), "problems": problems, "accuracy": float(share)} | bounds
            )
    return table


class Pairs(NamedTuple):
    """Problems that two models both solve at least once, with the mean length of each one's right samples.

    Attributes:
        problem: index of the problem among those of the first, [M].
        old, new: mean length of right samples, [M].
    """

    problem: np.ndarray
    old: np.ndarray
    new: np.ndarray

    @property
    def ratio(self) -> np.ndarray:
        """New over old, [M]."""
        return self.new / self.old


def both_right(old: Samples, new: Samples) -> Pairs:
    """Pairs of lengths on problems that both solve.

    Raises:
        ValueError: lengths were counted in different units, or the problems differ.
    """
    one_ruler(old.ruler, new.ruler)
    place_N = places(old.ids, new.ids)
    (old_N, new_N) = (_right_length(samples) for samples in (old, new))
    solved_M = np.flatnonzero(~np.isnan(old_N) & ~np.isnan(new_N[place_N]))
    return Pairs(solved_M, old_N[solved_M], new_N[place_N][solved_M])


def savings(pairs: Pairs, tier_N: np.ndarray) -> list[dict[str, Any]]:
    """Of each tier, what the new model saves on problems that both solve: tier, problems, median, quartiles."""
    table = []
    for tier in np.unique(tier_N[pairs.problem]):
        ratio_M = pairs.ratio[tier_N[pairs.problem] == tier]
        high, median, low = np.percentile(1 - ratio_M, [75, 50, 25])
        table.append({"tier": int(tier), "problems": len(ratio_M), "median": float(median), "low": float(low), "high": float(high)})
    return table


def transitions(old: Samples, new: Samples) -> np.ndarray:
    """Class of each of the old one's problems, an index into `CLASSES`, [N]; solved is what at least half of the samples solve.

    A problem that both solve is shorter if the mean length of right samples is. Raises as `both_right`.
    """
    one_ruler(old.ruler, new.ruler)
    place_N = places(old.ids, new.ids)
    before_N, after_N = old.means(old.right) >= 0.5, (new.means(new.right) >= 0.5)[place_N]
    with np.errstate(invalid="ignore"):
        shorter_N = _right_length(new)[place_N] < _right_length(old)
    return np.select([before_N & after_N & shorter_N, before_N & after_N, after_N, before_N], [0, 1, 2, 3], default=4)


def _right_length(samples: Samples) -> np.ndarray:
    """Mean length of each problem's right samples, [N]; NaN without any."""
    with np.errstate(invalid="ignore"):
        return samples.means(samples.right * samples.length) / samples.means(samples.right)


def _mean(values_S: np.ndarray) -> float | None:
    return float(values_S.mean()) if len(values_S) else None
