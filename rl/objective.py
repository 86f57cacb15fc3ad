"""The objective: a clipped ratio per token, extra terms, and weights whose sum over all tokens is the loss.

One denominator, decided once: `aggregation_weights` turns lengths into a weight for each token, over every rollout
of the update, and the loss is sum(weight x token loss). How the rollouts are cut into micro-batches and ranks cannot
change it; where gradients are averaged over ranks, multiply by the number of ranks.
Masked means absent: what stands at masked positions, NaN included, reaches no loss, gradient or statistic.
Sequence-level quantities are geometric means over a rollout's tokens. Products are not offered: their size depends on
length, which would make a bound on them a hidden length reward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recipes.objectives import (
    AdaptiveEntropy,
    ClampCorrection,
    Correction,
    Entropy,
    Hinge,
    IcepopCorrection,
    NoCorrection,
    Objective,
    SequenceMaskCorrection,
    TisCorrection,
)


class NonFinite(RuntimeError):
    """A reward, logprob, loss or gradient is NaN or infinite; the message names where."""


def aggregation_weights(tokens_B: np.ndarray, kind: str, limit: int) -> np.ndarray:
    """Weight of each token of a rollout, float64 [B], such that the loss is the weighted sum of token losses.

    Args:
        tokens_B: trained tokens of every rollout of the update, on all ranks.
        kind: "token_mean" (1 / all tokens), "sequence_mean" (1 / (B x own tokens)), "sequence_sum" (1 / B) or
            "constant" (1 / (B x limit), Dr.GRPO, arXiv 2503.20783).
        limit: tokens a rollout may use; read by "constant" only.
    """
    B, all_tokens = len(tokens_B), max(np.sum(tokens_B), 1)
    match kind:
        case "token_mean":
            return np.full(B, 1.0 / all_tokens)
        case "sequence_mean":
            return 1.0 / (B * np.maximum(tokens_B, 1))
        case "sequence_sum":
            return np.full(B, 1.0 / B)
        case "constant":
            return np.full(B, 1.0 / (B * limit))
    raise ValueError(f"objective.aggregate: {kind!r}: expected token_mean, sequence_mean, sequence_sum or constant")


def policy_loss(logp_BT: Tensor, ratio_BT: Tensor, advantage_BT: Tensor, settings: Objective) -> tuple[Tensor, Tensor]:
    """Surrogate of each token, to be minimised, and whether clipping decided it.

    `clip`: max(-A ratio, -A clip(ratio)); where A is negative at most -A dual_clip (DLER, arXiv 2510.15110; dual clip: arXiv 1912.09729).
    `cispo`: -A clip(ratio) logp, the weight without gradient (arXiv 2506.13585). `logp`: -A logp, without ratio (DRPO, arXiv 2510.04474).

    Args:
        logp_BT: log-probabilities under the policy, nats; any shape, the others broadcast to it. Read by `cispo` and `logp`.
        ratio_BT: policy / old probability, of the token or its rollout.
        advantage_BT: advantage of each token.
        settings: the recipe's objective slot.
    """
    if settings.surrogate == "logp":
        return -advantage_BT * logp_BT, torch.zeros_like(logp_BT, dtype=torch.bool)
    bounded_BT = ratio_BT.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    if settings.surrogate == "cispo":
        return -advantage_BT * bounded_BT.detach() * logp_BT, bounded_BT != ratio_BT
    plain_BT, clipped_loss_BT = -advantage_BT * ratio_BT, -advantage_BT * bounded_BT
    loss_BT, clipped_BT = torch.maximum(plain_BT, clipped_loss_BT), clipped_loss_BT > plain_BT
    if settings.dual_clip is not None:
        bound_BT = -advantage_BT * settings.dual_clip
        over_BT = (advantage_BT < 0) & (loss_BT > bound_BT)
        loss_BT, clipped_BT = torch.where(over_BT, bound_BT, loss_BT), clipped_BT | over_BT
    return loss_BT, clipped_BT


def rollout_mean(value_BT: Tensor, mask_BT: Tensor, row_BT: Tensor) -> Tensor:
    """Mean of each rollout's unmasked values, at every token of it; 0 for a rollout without any.

    Args:
        row_BT: number of the rollout that a token belongs to, from 0.
    """
    row, mask = row_BT.expand_as(value_BT).flatten(), mask_BT.flatten()
    rows = int(row.max()) + 1 if row.numel() else 0
    zeros = value_BT.new_zeros(rows)
    sums = zeros.index_add(0, row, torch.where(mask, value_BT.flatten(), 0.0))
    counts = zeros.index_add(0, row, mask.to(value_BT.dtype))
    return (sums / counts.clamp(min=1))[row].view_as(value_BT)


def kl_penalty(logp_BT: Tensor, ref_logp_BT: Tensor, estimator: str) -> Tensor:
    """Per-token KL estimate of the policy against the reference, nats: k1 = d, k2 = d^2 / 2, k3 = e^-d - 1 + d."""
    d_BT = logp_BT - ref_logp_BT
    match estimator:
        case "k1":
            return d_BT
        case "k2":
            return d_BT**2 / 2
        case "k3":
            return torch.expm1(-d_BT) + d_BT  # exp - 1 would lose all digits near the reference
    raise ValueError(f"objective.kl.estimator: {estimator!r}: expected k1, k2 or k3")


def correction_weights(old_logp_BT: Tensor, engine_logp_BT: Tensor, mask_BT: Tensor, row_BT: Tensor, settings: Correction) -> Tensor:
    """Weight of each token for the engine having sampled it with another probability than the learner gives it; no gradient.

    With r = learner / engine probability: `tis` min(r, high); `clamp` r within [low, high]; `icepop` r inside the bounds, else 0;
    `sequence_mask` r where the geometric mean over the rollout is inside, else 0 (docs/slots.md).
    """
    gap_BT = (old_logp_BT - engine_logp_BT).detach()
    weight_BT = torch.exp(gap_BT)
    match settings:
        case NoCorrection():
            return torch.ones_like(weight_BT)
        case TisCorrection():
            return weight_BT.clamp(max=settings.high)
        case ClampCorrection():
            return weight_BT.clamp(settings.low, settings.high)
        case IcepopCorrection():
            judged_BT = weight_BT
        case SequenceMaskCorrection():
            judged_BT = torch.exp(rollout_mean(gap_BT, mask_BT, row_BT))
    return torch.where((judged_BT >= settings.low) & (judged_BT <= settings.high), weight_BT, 0.0)


@dataclass(frozen=True)
class Tokens:
    """What the loss reads of a micro-batch: tensors of one shape, [N] or [B, T]; `advantage` and `weight` may be [B, 1].

    Attributes:
        mask: tokens that train, bool.
        weight: from `aggregation_weights`.
        row: which rollout a token belongs to, int64 from 0; whole rollouts only.
        logp, entropy: of the policy, with gradient, nats.
        old_logp: what the ratio divides by, nats.
        engine_logp: recorded while sampling, nats.
        ref_logp: of the reference, nats; None without one.
        stay: weight of |logp - old_logp| in the token's loss (KL-Cov, arXiv 2505.22617); None: none.
    """

    mask: Tensor
    weight: Tensor
    advantage: Tensor
    row: Tensor
    logp: Tensor
    entropy: Tensor
    old_logp: Tensor
    engine_logp: Tensor
    ref_logp: Tensor | None = None
    stay: Tensor | None = None


class Loss(NamedTuple):
    """A micro-batch's share of the loss, and what it adds to the step's statistics.

    Attributes:
        total: the share, with gradient.
        sums: detached scalars to be added up over micro-batches and ranks: `loss`, `tokens`, and over tokens `clipped`, `ratio`, `kl`,
            `entropy`, `mismatch`, with a correction also `correction` (its weights). Only `mismatch_max` is combined by maximum.
            `mismatch` is |learner - engine| in nats, with the learner as it was before the update where that is known; else as it is.
        kept_R: tokens of each rollout that a correction leaves a weight above 0; None without one.
    """

    total: Tensor
    sums: dict[str, Tensor]
    kept_R: Tensor | None


class EntropyControl:
    """Moves the entropy bonus from step to step: its coefficient, and whether it is on. Has state (rl/state)."""

    def __init__(self, settings: Entropy):
        self._settings = settings
        self.coef, self.on = settings.coef, True

    @property
    def weight(self) -> float:
        """Of the bonus in the step to come."""
        return self.coef if self.on else 0.0

    def after(self, entropy: float) -> None:
        """Take note of a step's mean entropy, nats (Skywork-OR1's rule, as TRL has it)."""
        if isinstance(settings := self._settings, AdaptiveEntropy):
            change = settings.delta if entropy < settings.target else -settings.delta
            self.coef, self.on = min(max(self.coef + change, 0.0), settings.most), entropy <= settings.target

    def state(self) -> dict[str, Any]:
        return {"coef": self.coef, "on": self.on}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.coef, self.on = state["coef"], state["on"]


def loss(tokens: Tokens, settings: Objective, entropy_coef: float, pull: float = 0.0) -> Loss:
    """This micro-batch's share of the loss.

    Args:
        settings: the recipe's objective slot.
        entropy_coef: weight of the entropy bonus in this step.
        pull: weight of each token's old logp - logp, whatever its own weight (see `pull`).
    """
    mask, row = tokens.mask, tokens.row

    def clean(tensor: Tensor) -> Tensor:
        return torch.where(mask, tensor, 0.0)  # before any arithmetic: 0 x NaN is NaN, in the backward pass too

    logp, old_logp, engine_logp, entropy = (clean(part) for part in (tokens.logp, tokens.old_logp, tokens.engine_logp, tokens.entropy))
    log_ratio = logp - old_logp
    if settings.ratio == "sequence":  # the rollout's value with each token's own gradient, so that a correction weighs the token it is of
        log_ratio = logp - logp.detach() + rollout_mean(log_ratio.detach(), mask, row)
    ratio = torch.exp(log_ratio)
    token_loss, clipped = policy_loss(logp, ratio, clean(tokens.advantage), settings)
    kept_R = None
    if settings.correction.kind != "none":
        correction = correction_weights(old_logp, engine_logp, mask, row, settings.correction)
        token_loss = token_loss * correction
        kept_R = _by_rollout(mask & (correction > 0), row)
    kl = torch.zeros_like(logp) if tokens.ref_logp is None else kl_penalty(logp, clean(tokens.ref_logp), settings.kl.estimator)
    if settings.kl.coef:
        token_loss = token_loss + settings.kl.coef * kl
    if tokens.stay is not None:
        token_loss = token_loss + clean(tokens.stay) * (logp - old_logp).abs()
    if entropy_coef:
        token_loss = token_loss - entropy_coef * entropy
    total = (clean(tokens.weight) * token_loss).sum()
    if pull:
        total = total + pull * (old_logp - logp).sum()

    with torch.no_grad():
        learner_logp = old_logp if settings.old_logprobs == "learner" else logp
        gap = (learner_logp - engine_logp).abs()
        sums = {
            "loss": total,
            "tokens": mask.sum(),
            "clipped": (clipped & mask).sum(),
            "ratio": torch.where(mask, ratio, 0.0).sum(),
            "kl": kl.sum(),
            "entropy": entropy.sum(),
            "mismatch": gap.sum(),
            "mismatch_max": gap.max() if gap.numel() else gap.sum(),
        }
        if settings.correction.kind != "none":
            sums["correction"] = torch.where(mask, correction, 0.0).sum()
        return Loss(total, {name: value.detach().to(total.dtype) for name, value in sums.items()}, kept_R)


def pull(distance: float, tokens: float, settings: Hinge) -> float:
    """Weight of each token's old logp - logp: that of DRPO's hinge on their mean (arXiv 2510.04474).

    Args:
        distance: sum of old logp - logp over the update's tokens, nats.
        tokens: how many they are.
    """
    return settings.weight * max(0.0, distance / max(tokens, 1.0) - settings.slack) / max(tokens, 1.0)


def _by_rollout(chosen_BT: Tensor, row_BT: Tensor) -> Tensor:
    """Chosen tokens of each rollout, int64 [R]."""
    row = row_BT.expand_as(chosen_BT).flatten()
    return row.new_zeros(int(row.max()) + 1 if row.numel() else 0).index_add(0, row, chosen_BT.flatten().to(row.dtype))


def culprit(tokens: Tokens) -> tuple[str, int] | None:
    """What in a micro-batch is not finite, and its row; None if all is, the ratio included."""
    named = {name: getattr(tokens, name) for name in ("engine_logp", "old_logp", "ref_logp", "logp", "entropy", "advantage")}
    found = {name: tensor.detach().expand_as(tokens.mask) for name, tensor in named.items() if tensor is not None}
    found["ratio"] = torch.exp(found["logp"] - found["old_logp"])
    for name, tensor in found.items():
        bad = tokens.mask & ~torch.isfinite(tensor)
        if bad.any():
            place = int(bad.flatten().nonzero()[0])
            return f"{name} {float(tensor.flatten()[place])}", int(tokens.row.expand_as(bad).flatten()[place])
    return None
