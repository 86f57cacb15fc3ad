"""The objective: a clipped ratio per token, extra terms, and weights whose sum over all tokens is the loss.

One denominator, decided once: `aggregation_weights` turns lengths into a weight for each token, over every rollout
of the update, and the loss is sum(weight x token loss). How the rollouts are cut into micro-batches and ranks cannot
change it; where gradients are averaged over ranks, multiply by the number of ranks.
Masked means absent: what stands at masked positions, NaN included, reaches no loss, gradient or statistic.
Simplification: the ratio is per token; sequence-level ratios (GSPO) are not offered.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recipes.schema import Objective


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


def policy_loss(
    logp_BT: Tensor, old_logp_BT: Tensor, advantage_BT: Tensor, clip_low: float, clip_high: float, dual_clip: float | None
) -> tuple[Tensor, Tensor]:
    """Clipped surrogate of each token, to be minimised, and whether clipping decided it (DLER, arXiv 2510.15110; dual clip: arXiv 1912.09729).

    Args:
        logp_BT: log-probabilities under the policy, nats; any shape, the others broadcast to it.
        old_logp_BT: those the ratio divides by.
        advantage_BT: advantage of each token.
        clip_low, clip_high: the ratio counts within [1 - clip_low, 1 + clip_high] only, where going further would gain.
        dual_clip: bound on the ratio where the advantage is negative (arXiv 1912.09729), None for no bound.
    """
    ratio_BT = torch.exp(logp_BT - old_logp_BT)
    plain_BT = -advantage_BT * ratio_BT
    bounded_BT = -advantage_BT * ratio_BT.clamp(1 - clip_low, 1 + clip_high)
    loss_BT, clipped_BT = torch.maximum(plain_BT, bounded_BT), bounded_BT > plain_BT
    if dual_clip is not None:
        bound_BT = -advantage_BT * dual_clip
        over_BT = (advantage_BT < 0) & (loss_BT > bound_BT)
        loss_BT, clipped_BT = torch.where(over_BT, bound_BT, loss_BT), clipped_BT | over_BT
    return loss_BT, clipped_BT


def kl_penalty(logp_BT: Tensor, ref_logp_BT: Tensor, estimator: str) -> Tensor:
    """Per-token KL estimate of the policy against the reference, nats: k1 = d, k2 = d^2 / 2, k3 = e^-d - 1 + d."""
    d_BT = logp_BT - ref_logp_BT
    match estimator:
        case "k1":
            return d_BT
        case "k2":
            return d_BT**2 / 2
        case "k3":
            return torch.exp(-d_BT) - 1 + d_BT
    raise ValueError(f"objective.kl.estimator: {estimator!r}: expected k1, k2 or k3")


def tis_weights(old_logp_BT: Tensor, engine_logp_BT: Tensor, cap: float) -> Tensor:
    """Truncated importance weights min(learner / engine probability, cap) of each token, no gradient."""
    return torch.exp(old_logp_BT - engine_logp_BT).clamp(max=cap).detach()


def loss(batch: dict[str, Tensor], settings: Objective) -> tuple[Tensor, dict[str, Tensor]]:
    """This micro-batch's share of the loss, and what it adds to the step's statistics.

    Args:
        batch: tensors of one shape, usually [B, T] (`advantage` and `weight` may be [B, 1]):
            `mask` (bool, tokens that train), `weight` (from `aggregation_weights`), `advantage`, `logp` and `entropy`
            (of the policy, with gradient, nats), `old_logp` (what the ratio divides by), `engine_logp` (recorded while
            sampling), and `ref_logp` if there is a reference.
        settings: the recipe's objective slot.

    Returns:
        The loss, and detached scalars to be added up over micro-batches and ranks: `loss`, `tokens`, and over tokens
        `clipped`, `ratio`, `kl`, `entropy`, `mismatch`. Only `mismatch_max` is combined by maximum.
        `mismatch` is |learner - engine| in nats, with the learner as it was before the update where that is known.
    """
    mask = batch["mask"]
    # where() comes before any arithmetic: 0 x NaN is NaN, in the backward pass too.
    clean = {name: torch.where(mask, tensor, 0.0) for name, tensor in batch.items() if name != "mask"}
    logp, old_logp, engine_logp = clean["logp"], clean["old_logp"], clean["engine_logp"]

    token_loss, clipped = policy_loss(logp, old_logp, clean["advantage"], settings.clip_low, settings.clip_high, settings.dual_clip)
    if settings.correction.kind == "tis":
        token_loss = token_loss * tis_weights(old_logp, engine_logp, settings.correction.cap)
    kl = kl_penalty(logp, clean["ref_logp"], settings.kl.estimator) if "ref_logp" in clean else torch.zeros_like(logp)
    if settings.kl.coef:
        token_loss = token_loss + settings.kl.coef * kl
    if settings.entropy:
        token_loss = token_loss - settings.entropy * clean["entropy"]
    total = (clean["weight"] * token_loss).sum()

    with torch.no_grad():
        learner_logp = old_logp if settings.old_logprobs == "learner" else logp
        gap = (learner_logp - engine_logp).abs()
        stats = {
            "loss": total,
            "tokens": mask.sum(),
            "clipped": clipped.sum(),
            "ratio": torch.where(mask, torch.exp(logp - old_logp), 0.0).sum(),
            "kl": kl.sum(),
            "entropy": clean["entropy"].sum(),
            "mismatch": gap.sum(),
            "mismatch_max": gap.max() if gap.numel() else gap.sum(),
        }
        return total, {name: value.detach().to(total.dtype) for name, value in stats.items()}
