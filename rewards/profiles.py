"""Limits, bands and advantages that lengths decide: what methods measure on a group, or on a reference run, before they reward.

Claim: each is a pure function of plain numbers; nothing is remembered between calls. Lengths are in tokens.
Simplification: what a run keeps from step to step (coverage, percentiles, profiles) is the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

_EPS = 1e-6


def profile_band(tokens_G: np.ndarray, right_G: np.ndarray, a: float, b: float, floor: float, held: bool = True) -> np.ndarray:
    """What multiplying right answers by a band's factor adds: 0 up to `a` tokens, floor - 1 at `b`, a line between (NeMo-RL #3604).

    Wrong answers 0. Where `b` is not above `a` the band is a step.

    Args:
        held: beyond `b` the factor stays at `floor` (#3852); False: it goes on falling, to 0 at most, where a right answer ties with a wrong one.
    """
    tokens_G = np.asarray(tokens_G, dtype=np.float64)
    least = floor if held else 0.0
    if b > a:
        factor_G = np.clip(1 - (tokens_G - a) / (b - a) * (1 - floor), least, 1.0)
    else:
        factor_G = np.where(tokens_G > a, least, 1.0)
    return np.where(right_G, factor_G - 1, 0.0)


class Profile(NamedTuple):
    """What a reference run showed on a prompt, as the data's columns hold it (reference_tokens, reference_spread, reference_accuracy).

    Attributes:
        tokens: mean length.
        spread: its deviation (Bessel's); 0: all equal, or one rollout.
        accuracy: share of right rollouts.
    """

    tokens: float
    spread: float
    accuracy: float


def profile_of(lengths: Sequence[float], right: Sequence[bool], min_passing: int = 2) -> Profile:
    """A prompt's profile from at least one rollout of a reference run: lengths of the right ones (NeMo-RL #3604).

    Args:
        min_passing: with fewer right rollouts than this, all rollouts' lengths count.
    """
    length_R, right_R = np.asarray(lengths, dtype=np.float64), np.asarray(right, dtype=bool)
    counted = length_R[right_R] if right_R.sum() >= min_passing else length_R
    spread = float(counted.std(ddof=1)) if counted.min() < counted.max() else 0.0
    return Profile(float(counted.mean()), spread, float(right_R.mean()))


def band_of(profile: Profile, deviations: float = 2.0) -> tuple[float, float, float] | None:
    """A prompt's band (a, b, floor) by its profile (NeMo-RL #3604): mean, mean + deviations x spread, floor by pass rate.

    The floor's table for 8 rollouts (1: 0.6, 0.875: 0.7, 0.75: 0.8, 0.625: 0.9) is a line, read here at any rate. None: pass rate of 0.5 or
    less (the line reaches 1), or no spread.
    """
    if profile.accuracy <= 0.5 or profile.spread <= 0:
        return None
    return profile.tokens, profile.tokens + deviations * profile.spread, 0.6 + 0.8 * (1 - profile.accuracy)


def beyond_profile(tokens_G: np.ndarray, profile: Profile, deviations: float = 1.0) -> np.ndarray:
    """-1 from mean + deviations x spread of the reference on (NeMo-RL #3604, where wrong answers count, too). No spread: 0."""
    limit = profile.tokens + deviations * profile.spread
    return np.where((np.asarray(tokens_G) >= limit) & (profile.spread > 0), -1.0, 0.0)


def dot_limit(tokens_G: np.ndarray, right_G: np.ndarray, alpha: float = 3.0, least_cut: int = 32) -> int | None:
    """Where outliers of an all-right group are cut off, then judged again: floor(mean + alpha deviations) (DOT, arXiv 2601.03969).

    None where one is wrong, for one rollout, and where nobody would lose `least_cut` tokens. Those who would lose fewer stay whole. No
    deviation exceeds (G - 1) / sqrt(G), so an alpha of that size or more never cuts.
    """
    tokens_G = np.asarray(tokens_G, dtype=np.float64)
    if len(tokens_G) < 2 or not np.all(right_G):
        return None
    limit = math.floor(tokens_G.mean() + alpha * tokens_G.std(ddof=1))
    return limit if tokens_G.max() - limit >= least_cut else None


def percentile_limit(right_lengths: Sequence[float], rho: float) -> float | None:
    """The rho-th percentile (0 to 100, linear between neighbours) of right answers' lengths (Toggle, arXiv 2602.02276). None without any."""
    return float(np.percentile(np.asarray(right_lengths, dtype=np.float64), rho)) if len(right_lengths) else None


Difficulty = Literal["easy", "medium", "hard"]


def laser_limit(
    coverage: Mapping[int, float], difficulty: Difficulty, rollouts: int, longest: float, form: Literal["paper", "code"] = "code"
) -> float:
    """The limit of a class of prompts: the least length whose coverage promises one answer of the class's size (LASER-D, arXiv 2505.15612).

    The size is two thirds (easy), a third (medium) or one (hard) of the rollouts, rounded up (paper) or down (code). No such length, or one
    beyond the batch's longest response: the longest.

    Args:
        coverage: by length of the grid, the share of all the class's responses that are no longer.
        rollouts: of a prompt.
    """
    size = 1
    if difficulty != "hard":
        thirds = (2 if difficulty == "easy" else 1) * rollouts
        size = max(1, -(-thirds // 3) if form == "paper" else thirds // 3)
    enough = [length for length, share in coverage.items() if share * size >= 1 - 1e-9]
    return min([*enough, longest])


def qglas(advantage_G: np.ndarray, tokens_G: np.ndarray, reward_G: np.ndarray, cap: float = 1.0, beta: float = 0.1) -> np.ndarray:
    """What QGLAS adds to advantages: a bonus for being shorter than the mean of those above 0, for these only; never a loss.

    The bonus is (spread of rewards / their deviation) x (beta where rewards above differ as much as all, to 2 beta where they do not differ)
    x the relative saving, within [0, cap], over cap. All 0 where no advantage is above 0 or all rewards are equal.
    Spread: most less lower quartile; the deviation is Bessel's, which the paper leaves open.
    """
    tokens_G, reward_G = np.asarray(tokens_G, dtype=np.float64), np.asarray(reward_G, dtype=np.float64)
    above_G = np.asarray(advantage_G) > 0
    if not above_G.any() or reward_G.min() == reward_G.max():
        return np.zeros(len(tokens_G))
    mean = tokens_G[above_G].mean()
    saving_G = np.where(above_G, np.clip((mean - tokens_G) / (mean + _EPS), 0.0, cap) / cap, 0.0)
    spread = reward_G.max() - np.quantile(reward_G, 0.25)
    alike = 1 - np.clip(np.ptp(reward_G[above_G]) / (spread + _EPS), 0.0, 1.0)
    return spread / reward_G.std(ddof=1) * beta * (1 + alike) * saving_G


def gdpo(component_KG: np.ndarray, weight_K: Sequence[float], against: Literal["group", "leave_one_out"] = "group") -> np.ndarray:
    """Advantages [G] of components normalised one by one, then added by weight; whitening over the batch is left to the caller (GDPO).

    "group" (TRL): less the mean, over the population's deviation. "leave_one_out" (NeMo-RL #3604): less the others' mean, over their Bessel
    deviation + 1e-6, undivided where the others are equal. A component without spread adds 0, one rollout gets 0.
    """
    component_KG = np.asarray(component_KG, dtype=np.float64)
    normalise = _by_group if against == "group" else _by_others
    return np.asarray(sum(weight * normalise(one_G) for weight, one_G in zip(weight_K, component_KG, strict=True)))


def _by_group(value_G: np.ndarray) -> np.ndarray:
    if value_G.min() == value_G.max():
        return np.zeros(len(value_G))
    return (value_G - value_G.mean()) / value_G.std()


def _by_others(value_G: np.ndarray) -> np.ndarray:
    if value_G.min() == value_G.max():
        return np.zeros(len(value_G))
    out_G = np.empty(len(value_G))
    for index, value in enumerate(value_G):
        others = np.delete(value_G, index)
        alike = others.min() == others.max()
        out_G[index] = value - others[0] if alike else (value - others.mean()) / (others.std(ddof=1) + _EPS)
    return out_G
