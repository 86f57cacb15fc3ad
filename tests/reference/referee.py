"""The referee: advantage, loss and gradient of a list of trajectories, computed a second time and in the plainest way.

Claim: everything here follows from the formulas alone. It imports nothing of the package under test, handles one rollout
and one token at a time, in float64, without padding, masks, sorting or micro-batches; and it differentiates the loss by
hand (slopes with respect to log-probability and entropy), so that what is held constant is written down, not inferred
from `detach`. Only the model's own backward pass is torch's. Speed is no concern.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, inf, sqrt

import torch
from torch import Tensor, nn

FLAT = 1e-6  # a spread up to this is none: what is left of equal rewards after rounding


@dataclass(frozen=True)
class Trajectory:
    """One rollout. Log-probabilities are those of `ids`, in nats; `group` names its prompt."""

    group: int
    prompt_ids: Sequence[int]
    ids: Sequence[int]
    engine_logp: Sequence[float]
    old_logp: Sequence[float]
    ref_logp: Sequence[float]
    reward: float
    right: bool = False
    selected: bool = True


@dataclass(frozen=True)
class Settings:
    """The choices that the formulas leave open; the meanings are those of the recipe keys of the same names."""

    centre: str = "group"
    scale: str = "none"
    ddof: int = 0
    boost: float = 0.0
    others: str = "drop"
    ratio: str = "token"
    surrogate: str = "clip"
    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float | None = None
    entropy: float = 0.0
    kl: float = 0.0
    kl_estimator: str = "k2"
    kl_in_reward: bool = False
    correction: str = "none"
    low: float = 0.5
    high: float = 2.0
    old_logprobs: str = "engine"
    aggregate: str = "token_mean"
    limit: int = 100
    temperature: float = 1.0


# ------------------------------------------------------------------------------------------------------------ advantage


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def spread(values: Sequence[float], ddof: int) -> float:
    centre = mean(values)
    return sqrt(sum((value - centre) ** 2 for value in values) / (len(values) - ddof))


def kl_value(estimator: str, d: float) -> float:
    """k1, k2, k3 of d = log policy - log reference."""
    return {"k1": d, "k2": d * d / 2, "k3": exp(-d) - 1 + d}[estimator]


def kl_slope(estimator: str, d: float) -> float:
    return {"k1": 1.0, "k2": d, "k3": 1 - exp(-d)}[estimator]


def behaviour(trajectory: Trajectory, settings: Settings) -> Sequence[float]:
    """What the ratio divides by."""
    return trajectory.engine_logp if settings.old_logprobs == "engine" else trajectory.old_logp


def shaped(trajectory: Trajectory, settings: Settings) -> float:
    """The reward, less the divergence of the sampling policy from the reference, a token on average, if the recipe puts it there."""
    if not settings.kl_in_reward:
        return trajectory.reward
    pairs = list(zip(trajectory.engine_logp, trajectory.ref_logp, strict=True))
    return trajectory.reward - settings.kl * sum(kl_value(settings.kl_estimator, engine - ref) for engine, ref in pairs) / len(pairs)


def select(trajectories: Sequence[Trajectory], rule: str, keep: int) -> list[Trajectory]:
    """The same rollouts, `keep` of every group marked as selected: `max_variance` (PODS), `shortest`, `efficient` (GFPO)."""
    chosen: list[int] = []
    for group in sorted({trajectory.group for trajectory in trajectories}):
        members = [index for index, trajectory in enumerate(trajectories) if trajectory.group == group]
        if rule == "shortest":
            chosen += sorted(members, key=lambda index: len(trajectories[index].ids))[:keep]
        elif rule == "efficient":
            chosen += sorted(members, key=lambda index: -trajectories[index].reward / len(trajectories[index].ids))[:keep]
        else:  # some of the lowest and the rest of the highest: take the mixture of largest variance, fewest lowest first
            by_reward = sorted(members, key=lambda index: trajectories[index].reward)
            best, best_spread = by_reward, -1.0
            for low in range(keep + 1):
                mixture = by_reward[:low] + by_reward[len(by_reward) - (keep - low) :]
                width = spread([trajectories[index].reward for index in mixture], 0)
                if width > best_spread + 1e-9:
                    best, best_spread = mixture, width
            chosen += best
    return [replace(trajectory, selected=index in chosen) for index, trajectory in enumerate(trajectories)]


def advantages(trajectories: Sequence[Trajectory], settings: Settings) -> list[float]:
    """One number a rollout. Rollouts that were not selected get 0 and enter no mean and no spread."""
    rewards = [shaped(trajectory, settings) for trajectory in trajectories]
    used = [index for index, trajectory in enumerate(trajectories) if trajectory.selected]
    members = {index: [other for other in used if trajectories[other].group == trajectories[index].group] for index in used}
    flat = {index: spread([rewards[other] for other in members[index]], 0) <= FLAT for index in used}

    centred: dict[int, float] = {}
    for index in used:
        peers = [other for other in members[index] if settings.centre == "group" or other != index]
        centred[index] = 0.0 if flat[index] else rewards[index] - mean([rewards[other] for other in peers])

    result = [0.0] * len(trajectories)
    for index in used:
        middle, width = 0.0, 1.0
        if settings.scale == "group":
            width = spread([centred[other] for other in members[index]], settings.ddof)
        elif settings.scale == "batch":
            middle, width = mean(list(centred.values())), spread(list(centred.values()), settings.ddof)
        elif settings.scale == "batch_tokens":
            by_token = [centred[other] for other in used for _ in trajectories[other].ids]
            middle, width = mean(by_token), spread(by_token, settings.ddof)
        elif settings.scale == "batch_rewards":
            width = spread([rewards[other] for other in used], settings.ddof) + 1e-4
        if not flat[index] and width > FLAT:  # nothing to learn from equals: exactly 0, whatever the batch mean is
            result[index] = (centred[index] - middle) / width
        if trajectories[index].right:
            result[index] += settings.boost
    return result


# ----------------------------------------------------------------------------------------------------------------- loss


def trained(trajectories: Sequence[Trajectory], settings: Settings) -> list[int]:
    """Which rollouts take part in the update: those not selected are left out, or stay with advantage 0."""
    return [index for index, trajectory in enumerate(trajectories) if trajectory.selected or settings.others == "zero"]


def token_weight(trajectory: Trajectory, update: Sequence[Trajectory], settings: Settings) -> float:
    """What one token's loss is multiplied by before everything is added up."""
    if settings.aggregate == "token_mean":
        return 1 / sum(len(other.ids) for other in update)
    if settings.aggregate == "sequence_mean":
        return 1 / (len(update) * len(trajectory.ids))
    if settings.aggregate == "sequence_sum":
        return 1 / len(update)
    return 1 / (len(update) * settings.limit)


def clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def correction_weights(trajectory: Trajectory, settings: Settings) -> list[float]:
    """Weight of each token's policy term: repairs that the engine sampled from slightly other probabilities."""
    gaps = [old - engine for old, engine in zip(trajectory.old_logp, trajectory.engine_logp, strict=True)]
    rhos = [exp(gap) for gap in gaps]
    if settings.correction == "none":
        return [1.0] * len(rhos)
    if settings.correction == "tis":
        return [min(rho, settings.high) for rho in rhos]
    if settings.correction == "clamp":
        return [clip(rho, settings.low, settings.high) for rho in rhos]
    if settings.correction == "icepop":
        return [rho if settings.low <= rho <= settings.high else 0.0 for rho in rhos]
    assert settings.correction == "sequence_mask"
    keep = settings.low <= exp(mean(gaps)) <= settings.high
    return [rho if keep else 0.0 for rho in rhos]


def policy_term(advantage: float, ratio: float, logp: float, settings: Settings) -> tuple[float, float, float]:
    """A token's loss, and its slopes with respect to log(ratio) and to the token's own logp."""
    low, high = 1 - settings.clip_low, 1 + settings.clip_high
    if settings.surrogate == "cispo":
        held = clip(ratio, low, high) * advantage
        return -held * logp, 0.0, -held
    free, clipped = -advantage * ratio, -advantage * clip(ratio, low, high)
    bound = settings.dual_clip * abs(advantage) if settings.dual_clip is not None and advantage < 0 else inf
    value = min(max(free, clipped), bound)
    moves = free >= clipped and free <= bound
    return value, free if moves else 0.0, 0.0  # d(-A r) / d(log r) = -A r


def row_terms(
    trajectory: Trajectory, advantage: float, logp: Sequence[float], entropy: Sequence[float], settings: Settings
) -> tuple[list[float], list[float]]:
    """Loss of each token of a rollout (not yet weighted), and the slope of their sum with respect to each logp.

    The slope with respect to each entropy is -settings.entropy throughout.
    """
    gaps = [new - old for new, old in zip(logp, behaviour(trajectory, settings), strict=True)]
    weights = correction_weights(trajectory, settings)
    of_rollout = exp(mean(gaps))
    losses, slopes = [], []
    for t, gap in enumerate(gaps):
        ratio = exp(gap) if settings.ratio == "token" else of_rollout
        value, by_log_ratio, by_logp = policy_term(advantage, ratio, logp[t], settings)
        # The rollout's ratio moves with each of its tokens; a token's correction weighs what moves through that token (GSPO-token, verl).
        loss, slope = weights[t] * value - settings.entropy * entropy[t], weights[t] * (by_logp + by_log_ratio)
        if settings.kl and not settings.kl_in_reward:
            d = logp[t] - trajectory.ref_logp[t]
            loss += settings.kl * kl_value(settings.kl_estimator, d)
            slope += settings.kl * kl_slope(settings.kl_estimator, d)
        losses.append(loss)
        slopes.append(slope)
    return losses, slopes


# ------------------------------------------------------------------------------------------------------------- gradient


def score(model: nn.Module, trajectory: Trajectory, temperature: float) -> tuple[Tensor, Tensor]:
    """Logits [n, V] that predict the response, and their log-probabilities; `model` maps ids [1, T] to logits [1, T, V]."""
    out = model(torch.tensor([[*trajectory.prompt_ids, *trajectory.ids]]))
    logits = (out if isinstance(out, Tensor) else out.logits)[0, len(trajectory.prompt_ids) - 1 : -1]
    return logits, (logits.detach().double() / temperature).log_softmax(-1)


def loss_and_gradient(
    model: nn.Module, update: Sequence[Trajectory], advantage: Sequence[float], settings: Settings
) -> tuple[float, dict[str, Tensor]]:
    """Loss of one optimiser update and its gradient by parameter name. Leaves the model's `.grad` as the result."""
    model.zero_grad(set_to_none=True)
    total = 0.0
    for trajectory, a in zip(update, advantage, strict=True):
        logits, logp_all = score(model, trajectory, settings.temperature)
        probability = logp_all.exp()
        entropy = -(probability * logp_all).sum(-1)
        chosen = torch.nn.functional.one_hot(torch.tensor(trajectory.ids), logits.shape[-1]).double()
        losses, slopes = row_terms(trajectory, a, (chosen * logp_all).sum(-1).tolist(), entropy.tolist(), settings)
        weight = token_weight(trajectory, update, settings)
        total += weight * sum(losses)
        # d logp / d logits = (chosen - p) / T;  d H / d logits = -p (log p + H) / T
        by_logits = torch.tensor(slopes, dtype=torch.float64)[:, None] * (chosen - probability)
        by_logits += settings.entropy * probability * (logp_all + entropy[:, None])
        logits.backward((weight / settings.temperature * by_logits).to(logits.dtype))
    return total, {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}
