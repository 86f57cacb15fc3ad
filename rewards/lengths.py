"""What a rollout's length adds to its verdict: published formulas, each a pure function of one group.

Every function returns the length part alone, float64 [G]: what is added to the verdict (1 right, 0 wrong), before any weight. Where a paper
multiplies the verdict, that is verdict x factor - verdict. All are finite for every group of at least one rollout, tokens from 0, limits from 1.
Simplification: one factor in front of a whole part (Kimi's weight, ALP's beta, Leash's lambda, ...) is the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np


def l1_exact(tokens_G: np.ndarray, limit: float, alpha: float = 3e-4) -> np.ndarray:
    """-alpha |limit - tokens| (L1-Exact, arXiv 2503.04697). Whole: right + this, wrong answers too. `alpha` is a price per token."""
    return -alpha * np.abs(limit - _float(tokens_G))


def l1_max(tokens_G: np.ndarray, right_G: np.ndarray, limit: float, alpha: float = 3e-4, delta: float = 0.5) -> np.ndarray:
    """clip(alpha (limit - tokens) + delta, 0, 1) - 1 for right answers (L1-Max, arXiv 2503.04697). Whole: right x the clip; a tie with wrong at 0."""
    return _times(right_G, np.clip(alpha * (limit - _float(tokens_G)) + delta, 0.0, 1.0))


def l1_max_code(tokens_G: np.ndarray, right_G: np.ndarray, limit: float, alpha: float = 3e-4) -> np.ndarray:
    """L1-Max as its authors' code has it (2503.04697): right x (clip(alpha (limit - tokens), -1, 1) + 1) / 2, half the paper's slope."""
    return _times(right_G, (np.clip(alpha * (limit - _float(tokens_G)), -1.0, 1.0) + 1) / 2)


def kimi(tokens_G: np.ndarray, right_G: np.ndarray) -> np.ndarray:
    """0.5 - (tokens - least) / (most - least) over the whole group, for wrong answers at most 0 (Kimi k1.5, arXiv 2501.12599).

    Whole: right + weight x this. All lengths equal, or one rollout: 0.
    """
    part_G = 0.5 - _place(_float(tokens_G))
    return np.where(right_G, part_G, np.minimum(0.0, part_G))


def arora(tokens_G: np.ndarray, right_G: np.ndarray, finished_G: np.ndarray, alpha: float) -> np.ndarray:
    """-alpha sigmoid(z) for right answers, -1 for those that did not finish (Arora & Zanette, arXiv 2502.04463).

    Whole: right x finished x (1 - alpha sigmoid(z)). z is of the right answers that finished (population spread + 1e-7 tokens): one alone,
    or all equal, have z = 0.
    """
    tokens_G, right_G, counted_G = _float(tokens_G), _bool(right_G), _bool(right_G) & _bool(finished_G)
    part_G = np.where(right_G, -1.0, 0.0)
    if counted_G.any():
        own = tokens_G[counted_G]
        part_G[counted_G] = -alpha / (1 + np.exp(-(own - own.mean()) / (own.std() + 1e-7)))
    return part_G


def o1_pruner(tokens_G: np.ndarray, reference_tokens: float, low: float = -2.0, high: float = 4.0) -> np.ndarray:
    """(reference - tokens) / tokens, within [low, high] (O1-Pruner, arXiv 2501.12570). No tokens count as one.

    Whole: this + 5 (right - the reference's share right), within [-2, 4] as a sum; wrong answers gain by being short.

    Args:
        reference_tokens: mean length of the reference model's answers to this prompt.
    """
    tokens_G = np.maximum(1.0, _float(tokens_G))
    return np.clip((reference_tokens - tokens_G) / tokens_G, low, high)


def alp(tokens_G: np.ndarray, right_G: np.ndarray, most: float) -> np.ndarray:
    """-max(share right, 1/G) tokens / most (ALP, arXiv 2506.05256). Whole: right + beta x this; wrong answers too.

    Args:
        most: tokens that cost one whole beta on a prompt that is always solved.
    """
    return -max(float(np.mean(right_G)), 1 / len(tokens_G)) * _float(tokens_G) / most


def shorterbetter(tokens_G: np.ndarray, right_G: np.ndarray) -> np.ndarray:
    """-|tokens - target|, in tokens; the target is the shortest right answer (ShorterBetter, arXiv 2504.21370).

    Whole: alpha right + beta x this (beta 0.001), wrong answers too. None right: the target is the group's mean length.
    """
    tokens_G, right_G = _float(tokens_G), _bool(right_G)
    target = tokens_G[right_G].min() if right_G.any() else tokens_G.mean()
    return -np.abs(tokens_G - target)


def laser(tokens_G: np.ndarray, right_G: np.ndarray, limit: float) -> np.ndarray:
    """1 for right answers within the limit (LASER, arXiv 2505.15612). Whole: (right 1, wrong -0.5, unreadable -1) + alpha x this."""
    return (_bool(right_G) & (_float(tokens_G) <= limit)).astype(float)


def laser_de(tokens_G: np.ndarray, right_G: np.ndarray, limit: float, repetitive_G: np.ndarray | bool = False) -> np.ndarray:
    """`laser`, and 1 for wrong answers beyond the limit that do not repeat themselves (LASER-DE, arXiv 2505.15612): more tries where it is hard."""
    explores_G = ~_bool(right_G) & (_float(tokens_G) > limit) & ~_bool(repetitive_G)
    return laser(tokens_G, right_G, limit) + explores_G


def overlong(tokens_G: np.ndarray, limit: float, buffer: float) -> np.ndarray:
    """0 up to limit - buffer, then linearly down to -1 at the limit, -1 beyond (DAPO, arXiv 2503.14476). Wrong answers too. No buffer: a step."""
    tokens_G = _float(tokens_G)
    if buffer <= 0:
        return np.where(tokens_G > limit, -1.0, 0.0)
    return np.clip((limit - buffer - tokens_G) / buffer, -1.0, 0.0)


def spared(right_G: np.ndarray, finished_G: np.ndarray, hard: float) -> np.ndarray:
    """What multiplies a length penalty: share right to the power `hard` for right answers that finished, so that hard prompts are spared; 1 for others (PipelineRL)."""
    return np.where(_bool(right_G) & _bool(finished_G), np.mean(right_G) ** hard, 1.0)


def cosine(
    tokens_G: np.ndarray,
    right_G: np.ndarray,
    limit: float,
    right: tuple[float, float] = (2.0, 1.0),
    wrong: tuple[float, float] = (-10.0, 0.0),
    beyond: float | None = None,
) -> np.ndarray:
    """The whole reward less the verdict's 1 or 0: half a cosine from a value at 0 tokens to one at the limit (arXiv 2502.03373).

    Args:
        right: whole reward of right answers at 0 tokens and at the limit.
        wrong: that of wrong answers.
        beyond: whole reward of any answer beyond the limit (the paper's -10); None: as at the limit (TRL).
    """
    tokens_G, right_G = _float(tokens_G), _bool(right_G)
    height_G = (1 + np.cos(math.pi * np.minimum(1.0, tokens_G / limit))) / 2
    start_G, end_G = np.where(right_G, right[0], wrong[0]), np.where(right_G, right[1], wrong[1])
    whole_G = end_G + (start_G - end_G) * height_G
    if beyond is not None:
        whole_G = np.where(tokens_G > limit, beyond, whole_G)
    return whole_G - right_G


def repetition(ids: Sequence[int], size: int) -> float:
    """The share of one rollout's n-grams of `size` tokens that came before, 0 to below 1 (arXiv 2502.03373, as a ratio). Too short for one: 0."""
    grams = _grams(ids, size)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def repeated(ids: Sequence[int], size: int) -> int:
    """Tokens of one rollout that lie in an n-gram of `size` tokens that came before (arXiv 2502.03373: -0.05 each, at its place)."""
    seen: set[tuple[int, ...]] = set()
    count = end = 0
    for start, gram in enumerate(_grams(ids, size)):
        if gram in seen:
            count, end = count + start + size - max(start, end), start + size
        seen.add(gram)
    return count


def _grams(ids: Sequence[int], size: int) -> list[tuple[int, ...]]:
    return [tuple(ids[start : start + size]) for start in range(len(ids) - size + 1)]


def lead(tokens_G: np.ndarray, right_G: np.ndarray, alpha: float = 0.05, least: float = 0.0) -> np.ndarray:
    """exp(-alpha z) - 1 for right answers, z among them with Bessel's spread + 1e-6 tokens (GRPO-LEAD, arXiv 2504.09696).

    Whole: right exp(-alpha z), wrong -1 (a verdict's value, not of length). Fewer than two right, or all equal: 0.

    Args:
        least: tokens that the mean of the three shortest right answers must exceed for the term to act; 0: always (the paper's 4000).
    """
    tokens_G, right_G = _float(tokens_G), _bool(right_G)
    own, part_G = tokens_G[right_G], np.zeros(len(tokens_G))
    if len(own) > 1 and (least == 0 or np.sort(own)[:3].mean() > least):
        part_G[right_G] = np.expm1(-alpha * (own - own.mean()) / (own.std(ddof=1) + 1e-6))
    return part_G


def success_weight(share_P: np.ndarray, low: float = 0.4, high: float = 1.5, middle: float = 0.75, slope: float = 10.0) -> np.ndarray:
    """A prompt's weight, `high` if never solved, falling to `low` (GRPO-LEAD, arXiv 2504.09696).

    Advantages above 0 take it of the share right, those below of the share wrong.
    """
    return low + (high - low) / (1 + np.exp(np.minimum(700.0, slope * (_float(share_P) - middle))))


def triangle(tokens_G: np.ndarray, limit: float) -> np.ndarray:
    """tokens / limit up to the limit, back to 0 at twice the limit (arXiv 2508.08940). Wrong answers too, in the paper."""
    return np.clip(1 - np.abs(_float(tokens_G) / limit - 1), 0.0, 1.0)


def band(tokens_G: np.ndarray, limit: float) -> np.ndarray:
    """1 up to the limit, back to 0 at twice the limit (arXiv 2508.08940, the ablation of `triangle`). Wrong answers too, in the paper."""
    return np.clip(2 - _float(tokens_G) / limit, 0.0, 1.0)


def linear(tokens_G: np.ndarray, mean: float) -> np.ndarray:
    """-mean reward of the group x tokens / its most (prime-rl). Whole: reward + 0.25 x this, wrong answers too; right ones only in #3376.

    The parts for input tokens and turns are the same for all rollouts of a prompt here, and a centred advantage does not see them.
    """
    tokens_G = _float(tokens_G)
    return -mean * tokens_G / max(1.0, tokens_G.max())


def logarithm(tokens_G: np.ndarray, right_G: np.ndarray, limit: float, sharpness: float = 5.0) -> np.ndarray:
    """log(1 + k (1 - tokens / limit)) / log(1 + k) for right answers: 1 at none, 0 from the limit on (Acoer, arXiv 2606.22716; there below 0 beyond it)."""
    left_G = np.maximum(0.0, 1 - _float(tokens_G) / limit)
    return np.where(right_G, np.log1p(sharpness * left_G) / math.log1p(sharpness), 0.0)


Shape = Literal["linear", "exponential", "rank", "binary", "soft", "saving"]


def relative(tokens_G: np.ndarray, right_G: np.ndarray, shape: Shape, strength: float = 1.0, floor: float = 0.0) -> np.ndarray:
    """What a factor by the group's other right answers, at least `floor`, adds to a right one (open-instruct's shapers; `saving`: prime-rl #2265).

    With L the shortest right answer, at least a token: linear 1 - strength (n - L) / L; exponential e^-(strength (n - L) / L); rank
    1 / (1 + its place among the lengths that occur); binary 1 for the shortest, else 0; soft 1 up to t = strength x median, then 1 - (n - t) / t;
    saving 1 + (1 - n / mean), between 1 and 2. With a floor of 0 policies were measured to end at 8 to 10 tokens and half the accuracy (docs/methods.md).
    """
    tokens_G, right_G = np.maximum(1.0, _float(tokens_G)), _bool(right_G)
    if not right_G.any():
        return np.zeros(len(tokens_G))
    own = tokens_G[right_G]
    excess_G = (tokens_G - own.min()) / own.min()
    match shape:
        case "linear":
            factor_G = 1 - strength * excess_G
        case "exponential":
            factor_G = np.exp(-strength * excess_G)
        case "rank":
            factor_G = 1 / (1 + np.searchsorted(np.unique(own), tokens_G))
        case "binary":
            factor_G = (excess_G == 0).astype(float)
        case "soft":
            start = strength * np.median(own)
            factor_G = np.minimum(1.0, 2 - tokens_G / start)
        case "saving":
            factor_G = 1 + np.clip(1 - tokens_G / own.mean(), 0.0, 1.0)
    return _times(right_G, np.maximum(floor, factor_G))


def shortest(tokens_G: np.ndarray, right_G: np.ndarray, reward_G: np.ndarray, top: float = 0.0) -> np.ndarray:
    """1 for the shortest right answers if they are among the top ones by reward (NeMo-RL #3604). Fewer than two right, or all equal: 0."""
    tokens_G, right_G = _float(tokens_G), _bool(right_G)
    part_G, own = np.zeros(len(tokens_G)), tokens_G[right_G]
    if len(own) > 1 and own.min() < own.max():
        part_G[right_G & (tokens_G == own.min()) & _top(right_G, reward_G, top)] = 1.0
    return part_G


def longest(tokens_G: np.ndarray, right_G: np.ndarray, reward_G: np.ndarray, top: float = 0.0) -> np.ndarray:
    """-1 for the longest of the top right answers by reward (NeMo-RL #3604). Fewer than two of these, or all equal: 0."""
    tokens_G, top_G = _float(tokens_G), _top(_bool(right_G), reward_G, top)
    part_G, own = np.zeros(len(tokens_G)), tokens_G[top_G]
    if len(own) > 1 and own.min() < own.max():
        part_G[top_G & (tokens_G == own.max())] = -1.0
    return part_G


def _top(right_G: np.ndarray, reward_G: np.ndarray, top: float) -> np.ndarray:
    """Right answers whose reward is at least that of place int(top x their number) from below (1 is the least, and so is 0)."""
    ordered = np.sort(_float(reward_G)[right_G])
    if not len(ordered):
        return right_G
    least = ordered[max(0, int(top * len(ordered) + 1e-9) - 1)]
    return right_G & (reward_G >= least - 1e-6 * max(1.0, abs(least)))


def scaling(tokens_G: np.ndarray, right_G: np.ndarray) -> np.ndarray:
    """How much shorter than the other right answers, mean 0: w - mean w, w from 1 (shortest) to 0 (longest) (NeMo-RL #3604, group scaling).

    Wrong answers 0; fewer than two right, or all equal: 0.
    """
    tokens_G, right_G = _float(tokens_G), _bool(right_G)
    part_G = np.zeros(len(tokens_G))
    if right_G.any():
        place_R = _place(tokens_G[right_G])
        part_G[right_G] = place_R.mean() - place_R
    return part_G


def zmad(tokens_G: np.ndarray, right_G: np.ndarray, threshold: float = 2.0, tight: float = 0.015) -> np.ndarray:
    """-1 for right answers of z = 0.6745 (tokens - median) / MAD above the threshold, both of the right ones (NeMo-RL #3604).

    Wrong answers 0. All 0 where MAD is 0 or less than `tight` medians: such a group is alike, and an outlier in it is spared.
    """
    tokens_G, right_G = _float(tokens_G), _bool(right_G)
    if not right_G.any():
        return np.zeros(len(tokens_G))
    median = np.median(tokens_G[right_G])
    mad = np.median(np.abs(tokens_G[right_G] - median))
    if mad == 0 or mad < tight * median:
        return np.zeros(len(tokens_G))
    return np.where(right_G & (0.6745 * (tokens_G - median) / mad > threshold), -1.0, 0.0)


def leash(tokens_G: np.ndarray, limit: float) -> np.ndarray:
    """-max(0, tokens / limit - 1) (Leash, arXiv 2512.21540). Whole: clip(verdict + lambda x this, -1, 1) with the verdict 1 or -1, wrong answers too."""
    return np.minimum(0.0, 1 - _float(tokens_G) / limit)


def gr3(tokens_G: np.ndarray, alpha: float = 0.33) -> np.ndarray:
    """The factor 1 / (1 + alpha tokens / mean tokens), which multiplies rewards of at least 0 (GR3, arXiv 2603.10535).

    The added part is reward x (factor - 1), so 0 for rewards of 0. One rollout, all equal, or no tokens at all: 1 / (1 + alpha).
    """
    tokens_G = _float(tokens_G)
    mean = tokens_G.mean()
    return 1 / (1 + alpha * (tokens_G / mean if mean > 0 else np.ones(len(tokens_G))))


def _float(tokens_G: np.ndarray) -> np.ndarray:
    return np.asarray(tokens_G, dtype=np.float64)


def _bool(mask_G: np.ndarray | bool) -> np.ndarray:
    return np.asarray(mask_G, dtype=bool)


def _times(right_G: np.ndarray, factor_G: np.ndarray) -> np.ndarray:
    """What multiplying a verdict of 1 or 0 by the factor adds to it."""
    return np.where(right_G, factor_G - 1, 0.0)


def _place(tokens_G: np.ndarray) -> np.ndarray:
    """Where each length stands between the least (0) and the most (1); 0.5 for all where these are equal."""
    least, most = tokens_G.min(), tokens_G.max()
    return (tokens_G - least) / (most - least) if most > least else np.full(len(tokens_G), 0.5)
