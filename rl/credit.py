"""Credit: what each token of a rollout gets of its advantage. Of the recipe's slot `credit`; `even` leaves it as it is.

Claim: every kind is a pure function of one group's or one update's numbers, taken over the rollouts that train and the tokens that the model
sampled. A group of which a kind says nothing (`says`) is left alone, or without advantage by kinds that make their own, and counted.
Simplification: numbers are those of the policy before the step's first update, also for the updates after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recipes.credit import (
    ClipCovCredit,
    Covariance,
    Credit,
    DecsCredit,
    DrpoCredit,
    EfficiencyCredit,
    EntropyCredit,
    EvenCredit,
    GtpoCredit,
    KlCovCredit,
    NthrCredit,
    ThrCredit,
)
from rl.policy import Row
from rollout.collector import seed_of
from rollout.types import Rollout

_TINY = 1e-8  # GTPO: least entropy whose inverse is taken


@dataclass(frozen=True)
class Members:
    """A group's rollouts that train, side by side with their rows.

    Attributes:
        limit: length limit, tokens.
        share: of the whole group, how many are right.
    """

    rows: list[Row]
    rollouts: list[Rollout]
    limit: int
    share: float

    @property
    def right_G(self) -> np.ndarray:
        return np.array([rollout.right_as_rewarded for rollout in self.rollouts])

    @property
    def mixed(self) -> bool:
        return 0 < self.right_G.sum() < len(self.rollouts)


def asked(credit: Credit) -> list[str]:
    """What must be measured of the rows (Learner.measure)."""
    if isinstance(credit, ThrCredit | NthrCredit):
        return ["influence"]
    return ["entropy"] if isinstance(credit, EntropyCredit | GtpoCredit) else []


def toward(credit: Credit, rollout: Rollout) -> float:
    """Weight of a rollout's tokens in the log-likelihood that influence is measured on: of right answers, each token's (NTHR) or their mean's (THR)."""
    if not rollout.right_as_rewarded:
        return 0.0
    return 1.0 / max(int(rollout.trains.sum()), 1) if isinstance(credit, ThrCredit) else 1.0


def credited(rows: Sequence[Row], members: Sequence[Members], credit: Credit, seed: int) -> tuple[list[Row], dict[str, float]]:
    """An update's rows with the advantage of each token, and what that did, by metric name.

    Args:
        rows: all of the update; `members` holds the same, by group.
        seed: of the recipe, where a kind draws.
    """
    if isinstance(credit, EvenCredit):
        return list(rows), {}
    if isinstance(credit, Covariance):
        new, idle = _by_covariance(rows, credit, seed), 0
    else:
        groups = [by_group(one, credit, len(rows) / len(members)) for one in members]
        idle = sum(not says(one, credit) for one in members)
        found = {
            row.id: advantage_T
            for one, group in zip(members, groups, strict=True)
            for row, advantage_T in zip(one.rows, group, strict=True)
        }
        new = [replace(row, advantage_T=np.where(row.mask_T, found.get(row.id, 0.0), 0.0)) for row in rows]
    before, after = (np.concatenate([row.advantage_T[row.mask_T] for row in some]) for some in (rows, new))
    held = np.concatenate([row.stay_T[row.mask_T] for row in new]) > 0
    count = max(len(after), 1)
    return new, {
        "credit/changed": int(((before != after) | held).sum()) / count,
        "credit/zero": int((after == 0).sum()) / count,
        "credit/idle": idle,
    }


def says(one: Members, credit: Credit) -> bool:
    """Whether a kind says anything of such a group: those that compare right with wrong need both, DECS needs two rollouts."""
    if isinstance(credit, DecsCredit):
        return len(one.rows) > 1
    return one.mixed or not isinstance(credit, ThrCredit | NthrCredit | DrpoCredit)


def by_group(one: Members, credit: Credit, rows_a_group: float = 1.0) -> list[np.ndarray]:
    """Advantages of a group's tokens, [T] a rollout. Where the kind says nothing of the group: as they are, or 0 of one that makes its own."""
    if not says(one, credit):
        return [np.zeros(row.ids.shape) if credit.replaces else row.advantage_T for row in one.rows]
    match credit:
        case ThrCredit():
            return thr(one, credit)
        case NthrCredit():
            return nthr(one, credit)
        case EntropyCredit():
            return [shaped(row.advantage_T, _measured(row, "entropy"), credit) for row in one.rows]
        case GtpoCredit():
            return gtpo(one, credit)
        case DecsCredit():
            return decs(one, credit)
        case EfficiencyCredit():
            return [
                efficient(np.broadcast_to(row.advantage_T, row.ids.shape), rollout.redundant, credit)
                for row, rollout in zip(one.rows, one.rollouts, strict=True)
            ]
        case DrpoCredit():  # the loss is a mean over rollouts, DRPO's one over groups
            coef_G = drpo(one, credit) * rows_a_group
            return [np.full(row.ids.shape, coef) for row, coef in zip(one.rows, coef_G, strict=True)]
    raise ValueError(f"credit.kind: {credit.kind!r} has no formula for a group")


def thr(one: Members, credit: ThrCredit) -> list[np.ndarray]:
    """Token Hidden Reward (arXiv 2510.03669): 1[|THR| > tau] (1 + sign(THR) steer) A, where THR is the influence of training on the token on the
    mean logprobs of the group's right answers, and tau the mean influence of right answers' own tokens: the least of them, or their mean."""
    influences = [_measured(row, "influence") for row in one.rows]
    means = [float(found_T[row.mask_T].mean()) for found_T, row, right in zip(influences, one.rows, one.right_G, strict=True) if right]
    tau = credit.threshold * (min(means) if credit.across == "min" else float(np.mean(means)))
    signed = [found_T if right else -found_T for found_T, right in zip(influences, one.right_G, strict=True)]
    return [
        np.where(np.abs(thr_T) > tau, (1 + np.sign(thr_T) * credit.steer) * row.advantage_T, 0.0)
        for thr_T, row in zip(signed, one.rows, strict=True)
    ]


def nthr(one: Members, credit: NthrCredit) -> list[np.ndarray]:
    """NTHR (arXiv 2505.18830): tokens of wrong answers whose influence on the right ones exceeds beta x the least right answer's mean get
    2 |0.5 - share right| of their advantage; the share is of the whole group."""
    influences = [_measured(row, "influence") for row in one.rows]
    means = [float(found_T[row.mask_T].mean()) for found_T, row, right in zip(influences, one.rows, one.right_G, strict=True) if right]
    tau, damp = credit.threshold * min(means), 2 * abs(0.5 - one.share)
    return [
        np.where(~right & (found_T > tau), damp, 1.0) * row.advantage_T
        for found_T, row, right in zip(influences, one.rows, one.right_G, strict=True)
    ]


def shaped(advantage_T: np.ndarray, entropy_T: np.ndarray, credit: EntropyCredit) -> np.ndarray:
    """Entropy-shaped advantages (arXiv 2506.14758): A + min(weight x H, |A| / most)."""
    return advantage_T + np.minimum(credit.weight * entropy_T, np.abs(advantage_T) / credit.most)


def gtpo(one: Members, credit: GtpoCredit) -> list[np.ndarray]:
    """GTPO, or GRPO-S (arXiv 2508.04349): `gtpo_rewards`, less their mean, over their spread; 0 where there is none.

    Second-hand formulas; taken over tokens (GTPO) or rollouts (GRPO-S).
    """
    rewards = gtpo_rewards(one, credit)
    masks = [row.mask_T for row in one.rows]
    new = [np.zeros(row.ids.shape) for row in one.rows]
    parts = [np.ones(len(masks), dtype=bool)] if credit.normalise == "together" else [one.right_G, ~one.right_G]
    for part_G in parts:
        chosen = [index for index in np.flatnonzero(part_G) if masks[index].any()]
        if not chosen:
            continue
        values_N = np.concatenate([rewards[index][masks[index]][: 1 if credit.level == "sequence" else None] for index in chosen])
        spread = float(values_N.std())
        if spread > 1e-9:
            for index in chosen:
                new[index] = (rewards[index] - values_N.mean()) / spread
    return new


def gtpo_rewards(one: Members, credit: GtpoCredit) -> list[np.ndarray]:
    """Reward of each token: of right answers base x reward + weight x H / (sum of H at this place over right answers that reach it) x how many do;
    of wrong ones -base - weight x likewise of 1 / H."""
    sequence = credit.level == "sequence"
    entropies = [_measured(row, "entropy")[row.mask_T] for row in one.rows]
    if sequence:
        entropies = [entropy_T.mean(keepdims=True) if len(entropy_T) else entropy_T for entropy_T in entropies]
    worths = [entropy_T if right else 1 / (entropy_T + _TINY) for entropy_T, right in zip(entropies, one.right_G, strict=True)]
    longest = max(map(len, worths))
    sum_2T, count_2T = np.zeros((2, longest)), np.zeros((2, longest))
    for worth_T, right in zip(worths, one.right_G, strict=True):
        sum_2T[int(right), : len(worth_T)] += worth_T
        count_2T[int(right), : len(worth_T)] += 1
    rewards = []
    for row, rollout, worth_T in zip(one.rows, one.rollouts, worths, strict=True):
        side, places = int(rollout.right_as_rewarded), slice(len(worth_T))
        sum_T = sum_2T[side, places]  # a share of nothing is an even one; of a lone answer exactly 1, whatever the rounding
        share_T = np.where(sum_T > 0, worth_T / np.where(sum_T > 0, sum_T, 1.0), 1 / count_2T[side, places])
        part_T = credit.weight * share_T * count_2T[side, places]
        reward_T = np.zeros(row.ids.shape)
        reward_T[row.mask_T] = credit.base * rollout.reward + part_T if rollout.right_as_rewarded else -credit.base - part_T
        rewards.append(reward_T)
    return rewards


def drpo(one: Members, credit: DrpoCredit) -> np.ndarray:
    """DRPO's coefficients of mean logprobs (arXiv 2510.04474), float64 [G]: right answers softmax((1 - tokens / limit) / lambda) among themselves,
    wrong ones -softmax(mean logprob / tau) among theirs: the slope of tau log mean exp(s / tau)."""
    right_G = one.right_G
    share_G = np.array([row.mask_T.sum() for row in one.rows]) / one.limit
    score_G = np.array([float(old_logp(row)[row.mask_T].mean()) if row.mask_T.any() else 0.0 for row in one.rows])
    coef_G = np.zeros(len(right_G))
    coef_G[right_G] = _softmax((1 - share_G[right_G]) / credit.spread)
    coef_G[~right_G] = -_softmax(score_G[~right_G] / credit.temperature)
    return coef_G


def decs(one: Members, credit: DecsCredit) -> list[np.ndarray]:
    """DECS (arXiv 2509.25827): rewards by token, less their mean over the group at this position, over Bessel's spread + 1e-6; 0 where they are equal.

    A right answer earns 1 + beta at every position, those behind its end included, and in its redundant part 1 + beta (1 - n / limit) (release) or
    1 - beta n / limit (paper), of its n tokens; a wrong one 0. So right beats wrong at every position.
    """
    sizes = [len(row.ids) for row in one.rows]
    reward_GT = np.repeat((1 + credit.beta) * one.right_G[:, None], max(sizes), axis=1)
    for reward_T, rollout in zip(reward_GT, one.rollouts, strict=True):
        if rollout.redundant is not None:
            reward_T[slice(*rollout.redundant)] = 1 + credit.beta * ((credit.form == "code") - min(rollout.tokens / one.limit, 1.0))
    centred_GT = reward_GT - reward_GT.mean(axis=0)
    advantage_GT = np.where(np.ptp(reward_GT, axis=0) > 0, centred_GT / (reward_GT.std(axis=0, ddof=1) + 1e-6), 0.0)
    return [advantage_T[:size] for advantage_T, size in zip(advantage_GT, sizes, strict=True)]


def efficient(advantage_T: np.ndarray, redundant: tuple[int, int] | None, credit: EfficiencyCredit) -> np.ndarray:
    """A token of the redundant part gets min(A - weight, 0): it is never reinforced, and pushed down where there is nothing else to learn."""
    new_T = advantage_T.copy()
    if redundant is not None:
        new_T[slice(*redundant)] = np.minimum(new_T[slice(*redundant)] - credit.weight, 0.0)
    return new_T


def _by_covariance(rows: Sequence[Row], credit: Covariance, seed: int) -> list[Row]:
    """Clip-Cov and KL-Cov (arXiv 2505.22617) over an update's tokens: (A - mean A) (logp - mean logp)."""
    masks = [row.mask_T for row in rows]
    covariance_N = covariances(
        np.concatenate([row.advantage_T[mask_T] for row, mask_T in zip(rows, masks, strict=True)]),
        np.concatenate([old_logp(row)[mask_T] for row, mask_T in zip(rows, masks, strict=True)]),
    )
    count = max(int(credit.share * len(covariance_N)), 1)
    if isinstance(credit, ClipCovCredit):
        among = np.flatnonzero((covariance_N > credit.low) & (covariance_N < credit.high))
        rng = np.random.default_rng(seed_of(seed, "clip_cov", rows[0].id))
        chosen = rng.permutation(among)[:count]
    else:
        chosen = np.argsort(-covariance_N, kind="stable")[:count]
    picked_N = np.zeros(len(covariance_N), dtype=bool)
    picked_N[chosen] = True
    new = []
    for row, picked_n in zip(rows, np.split(picked_N, np.cumsum([mask_T.sum() for mask_T in masks])[:-1]), strict=True):
        picked_T = np.zeros(row.ids.shape, dtype=bool)
        picked_T[row.mask_T] = picked_n
        if isinstance(credit, KlCovCredit):
            new.append(replace(row, stay_T=np.where(picked_T, credit.weight, 0.0)))
        else:
            new.append(replace(row, advantage_T=np.where(picked_T, 0.0, row.advantage_T)))
    return new


def covariances(advantage_N: np.ndarray, logp_N: np.ndarray) -> np.ndarray:
    """Each token's part of the covariance of advantage and logprob, [N]."""
    return (advantage_N - advantage_N.mean()) * (logp_N - logp_N.mean()) if len(advantage_N) else advantage_N


def old_logp(row: Row) -> np.ndarray:
    """Logprobs of the policy before the step's first update, as the ratio divides by them: the learner's where it measured them, else the engine's."""
    return (row.engine_logp if row.old_logp is None else row.old_logp).astype(np.float64)


def members(rows: Mapping[str, Row], rollouts: Sequence[Rollout], limit: int) -> Members:
    """A group's rollouts that have rows in which some token trains, with these."""
    trained = [rollout for rollout in rollouts if rollout.id in rows and rows[rollout.id].mask_T.any()]
    share = sum(rollout.right_as_rewarded for rollout in rollouts) / len(rollouts)
    return Members([rows[rollout.id] for rollout in trained], trained, limit, share)


def _softmax(score_G: np.ndarray) -> np.ndarray:
    worth_G = np.exp(score_G - score_G.max(initial=-np.inf))
    return worth_G / worth_G.sum()


def _measured(row: Row, name: str) -> np.ndarray:
    value_T = getattr(row, name)
    if value_T is None:
        raise ValueError(f"row {row.id}: credit reads its {name}, and none was measured")
    return value_T.astype(np.float64)
