"""Advantages: how much better a rollout did than its peers.

Every estimator is `centre` then `scale`; the named methods are pairs of the two
(GRPO: group, group. Dr.GRPO: group, none. RLOO: leave_one_out, none. DLER: group, batch).
A group without spread has nothing to teach: its advantages are exactly zero under every pair, not noise over epsilon. Only a recipe's
`boost` of right answers is added there, too; `shorter` never is, and never turns a sign. `weigh` multiplies by one factor above 0 and
another below it, both positive: signs and order within a group stay, so what rewards promise of right and wrong holds of advantages, too.
A baseline of the reference model's takes no statistic of the group, so none of this holds there: it goes without a scale.
Simplification: outcome rewards only, one number a rollout that all its tokens share.
"""

from __future__ import annotations

import numpy as np

from recipes.schema import Advantage
from rewards.lengths import success_weight
from rewards.profiles import qglas
from rewards.terms import levelled

_TRL_EPS = 1e-4


def centre(reward_PG: np.ndarray, kind: str, kept_PG: np.ndarray, reference_P: np.ndarray | None = None) -> np.ndarray:
    """Subtract each prompt's baseline, taken over its kept rollouts; 0 for the others.

    Args:
        reward_PG: rewards, [prompts, rollouts].
        kind: "group" (mean of the prompt) or "leave_one_out" (mean of its other rollouts, arXiv 2402.14740), or
            "reference" (`reference_P`, which is no statistic of the group: one without spread teaches, too; AdaptThink, arXiv 2505.13417).
        kept_PG: rollouts that train; at least two a prompt.
        reference_P: how often the reference model is right on each prompt; read by "reference" only.

    Raises:
        ValueError: a reward is not finite, or a group has one rollout.
    """
    reward_PG = np.asarray(reward_PG, dtype=np.float64)
    kept_P1 = kept_PG.sum(axis=1, keepdims=True)
    if np.min(kept_P1) < 2:
        raise ValueError(
            f"rewards {list(reward_PG.shape)}: baseline {kind} compares rollouts of one prompt; set sampler.group_size to 2 or more"
        )
    if not np.isfinite(reward_PG).all():
        row, sample = np.argwhere(~np.isfinite(reward_PG))[0]
        raise ValueError(
            f"reward of row {row}, sample {sample} is {reward_PG[row, sample]}: every reward must be finite before advantages are taken"
        )
    if kind == "reference":
        assert reference_P is not None
        return np.where(kept_PG, reward_PG - reference_P[:, None], 0.0)
    reward_PG = levelled(reward_PG)
    mean_P1 = reward_PG.mean(axis=1, keepdims=True, where=kept_PG)
    centred_PG = np.where(kept_PG, reward_PG - mean_P1, 0.0)
    if kind == "leave_one_out":
        centred_PG *= kept_P1 / (kept_P1 - 1)
    elif kind != "group":
        raise ValueError(f"advantage.centre: {kind!r}: expected group, leave_one_out or reference")
    low_P1, high_P1 = (
        bound(reward_PG, axis=1, keepdims=True, where=kept_PG, initial=start) for bound, start in ((np.min, np.inf), (np.max, -np.inf))
    )
    return np.where(low_P1 == high_P1, 0.0, centred_PG)  # the mean of equals may miss them by a rounding


def scale(centred_PG: np.ndarray, kind: str, tokens_PG: np.ndarray, reward_PG: np.ndarray, ddof: int, kept_PG: np.ndarray) -> np.ndarray:
    """Divide by a spread, taken over kept rollouts; 0 for the others.

    Args:
        centred_PG: what `centre` made of `reward_PG`.
        kind: "none"; "group" (spread of each prompt, GRPO; the same for both baselines, whose factor cancels);
            "batch" (z-score over all rollouts, DLER eq. 3); "batch_tokens" (z-score in which a rollout counts once
            per token: verl with ddof 1, OpenRLHF and NeMo-RL with ddof 0); "batch_rewards" (spread of the raw
            rewards of the batch + 1e-4, no second mean: TRL `batch` with ddof 1).
        tokens_PG: response lengths, tokens; read by "batch_tokens" only.
        reward_PG: raw rewards; read by "batch_rewards" only.
        ddof: 0 for the population spread, 1 for Bessel's correction.
        kept_PG: rollouts that train.

    Raises:
        ValueError: "batch_tokens" and a rollout has no token.
    """
    mean = 0.0
    match kind:
        case "none":
            return centred_PG
        case "group":
            std = centred_PG.std(axis=1, keepdims=True, ddof=ddof, where=kept_PG)
        case "batch":
            std = centred_PG.std(ddof=ddof, where=kept_PG)  # the batch mean of eq. 3 is zero already: every group's is
        case "batch_tokens":
            if np.min(tokens_PG) < 1:
                row, sample = np.argwhere(tokens_PG < 1)[0]
                raise ValueError(
                    f"row {row}, sample {sample} has no token: scale batch_tokens weighs a rollout by its length; leave empty rollouts out"
                )
            weight_PG = tokens_PG * kept_PG
            mean = np.average(centred_PG, weights=weight_PG)
            std = np.sqrt((weight_PG * (centred_PG - mean) ** 2).sum() / (weight_PG.sum() - ddof))
        case "batch_rewards":
            std = np.std(levelled(reward_PG), ddof=ddof, where=kept_PG) + _TRL_EPS
        case _:
            raise ValueError(f"advantage.scale: {kind!r}: expected none, group, batch, batch_tokens or batch_rewards")
    flat_P1 = (centred_PG == 0).all(axis=1, keepdims=True)  # the token mean would move a flat group off zero
    return np.where(flat_P1 | ~kept_PG, 0.0, (centred_PG - mean) / np.where(std > 0, std, 1.0))


def weighed(advantage_PG: np.ndarray, right_PG: np.ndarray) -> np.ndarray:
    """Advantages above 0 times w(share right of the group), those below times w(share wrong), w falling (GRPO-LEAD, arXiv 2504.09696)."""
    share_P1 = np.mean(right_PG, axis=1, keepdims=True)
    return advantage_PG * np.where(advantage_PG > 0, success_weight(share_P1), success_weight(1 - share_P1))


def advantages(
    reward_PG: np.ndarray,
    right_PG: np.ndarray,
    tokens_PG: np.ndarray,
    settings: Advantage,
    kept_PG: np.ndarray | None = None,
    reference_P: np.ndarray | None = None,
) -> np.ndarray:
    """Advantages of a batch, float64 [prompts, rollouts]: centre, scale, weigh, then the bonus of shorter ones and the boost of right answers.

    Args:
        reward_PG: rewards after shaping.
        right_PG: whether the answer is right before any shaping; weights and boost read this, so cut answers count too.
        tokens_PG: response lengths, tokens.
        settings: the recipe's advantage slot.
        kept_PG: rollouts that train (rl/selection; default: all): means and spreads are theirs, the others get 0.
        reference_P: see `centre`.

    Raises:
        ValueError: as `centre` and `scale`.
    """
    kept_PG = np.ones(np.shape(reward_PG), dtype=bool) if kept_PG is None else kept_PG
    centred_PG = centre(reward_PG, settings.centre, kept_PG, reference_P)
    scaled_PG = scale(centred_PG, settings.scale, tokens_PG, reward_PG, settings.ddof, kept_PG)
    if settings.weigh == "success":
        scaled_PG = weighed(scaled_PG, right_PG)
    if settings.shorter:
        bonus_PG = np.zeros(scaled_PG.shape)
        for row, kept_G in enumerate(kept_PG):
            advantage_K, tokens_K, reward_K = (np.asarray(part)[row, kept_G] for part in (scaled_PG, tokens_PG, reward_PG))
            bonus_PG[row, kept_G] = qglas(advantage_K, tokens_K, reward_K, beta=settings.shorter)
        scaled_PG = scaled_PG + np.where(right_PG, bonus_PG, 0.0)  # a wrong answer that is above the mean is not paid for its length
    return scaled_PG + settings.boost * (right_PG & kept_PG)
