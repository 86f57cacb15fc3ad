"""Promise P2: masked means absent. What stands at a masked position, NaN and 1e9 included, reaches no loss, gradient or statistic."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from recipes.objectives import Objective
from recipes.schema import Advantage
from rl.advantage import advantages
from rl.objective import Tokens, culprit, loss

B, T, V = 5, 7, 4
COMMON = {"kl": {"coef": 0.3, "estimator": "k3"}, "entropy": {"coef": 0.2}, "old_logprobs": "learner"}
OBJECTIVES = {
    "token": Objective.model_validate({**COMMON, "dual_clip": 1.2, "correction": {"kind": "icepop"}}),
    "sequence": Objective.model_validate({**COMMON, "ratio": "sequence", "correction": {"kind": "sequence_mask", "low": 0.9, "high": 1.2}}),
    "cispo": Objective.model_validate({**COMMON, "surrogate": "cispo", "correction": {"kind": "clamp"}}),
    "plain": Objective(),
}
POISONED = ["advantage", "weight", "engine_logp", "old_logp", "ref_logp"]


def masks(count: int) -> list[Tensor]:
    """Random masks of every density; the first are empty altogether, full, and empty in some rows."""
    draw = torch.Generator().manual_seed(0)
    found = [torch.zeros(B, T, dtype=torch.bool), torch.ones(B, T, dtype=torch.bool), torch.arange(B)[:, None].expand(B, T) % 2 == 0]
    while len(found) < count:
        found.append(torch.rand(B, T, generator=draw) < torch.rand(1, generator=draw))
    return found


def outcome(mask: Tensor, poison: float | None, objective: Objective, seed: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Loss, gradient and statistics of one random batch; `poison` is written wherever the mask is false."""
    draw = torch.Generator().manual_seed(seed)
    logits_BTV = torch.randn(B, T, V, generator=draw, dtype=torch.float64).requires_grad_()
    logp_BTV = logits_BTV.log_softmax(-1)
    batch = {"logp": logp_BTV[..., 0], "entropy": -(logp_BTV.exp() * logp_BTV).sum(-1)}
    for name in POISONED:
        offset = logp_BTV[..., 0].detach() if name.endswith("logp") else 0.0
        batch[name] = offset + 0.3 * torch.randn(B, T, generator=draw, dtype=torch.float64)
    batch |= {"row": torch.arange(B)[:, None].expand(B, T), "mask": mask}
    if poison is not None:
        batch |= {name: torch.where(mask, batch[name], poison) for name in [*POISONED, "logp", "entropy"]}
        assert culprit(Tokens(**batch)) is None  # nor is a masked position blamed for anything
    total, stats, _ = loss(Tokens(**batch), objective, objective.entropy.coef)
    (gradient,) = torch.autograd.grad(total, logits_BTV)
    return total.detach(), gradient, stats


@pytest.mark.parametrize("name", OBJECTIVES)
def test_p02_what_stands_at_masked_positions_changes_nothing(name: str):
    for seed, mask in enumerate(masks(200)):
        clean = outcome(mask, None, OBJECTIVES[name], seed)
        total, gradient, stats = outcome(mask, [np.nan, 1e9, -1e9, np.inf][seed % 4], OBJECTIVES[name], seed)
        assert torch.equal(total, clean[0]) and torch.equal(gradient, clean[1])
        assert stats == clean[2]
        assert not gradient[~mask].any() and torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_p02_a_batch_without_a_token_teaches_exactly_nothing(name: str):
    total, gradient, stats = outcome(torch.zeros(B, T, dtype=torch.bool), np.nan, OBJECTIVES[name], 0)
    assert total == 0 and not gradient.any() and not any(stats.values())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_p02_what_stands_at_open_positions_does_count(name: str):
    """The other side, without which the tests above could pass on a loss that ignores its inputs."""
    mask = torch.zeros(B, T, dtype=torch.bool)
    mask[1, 2:5] = True
    total, gradient, _ = outcome(mask, None, OBJECTIVES[name], 1)
    other_total, other_gradient, _ = outcome(mask | (torch.arange(T) == 5), None, OBJECTIVES[name], 1)
    assert gradient[mask].any() and total != other_total and not torch.equal(gradient, other_gradient)


def test_p02_rewards_of_rollouts_that_do_not_train_change_no_advantage():
    rng = np.random.default_rng(0)
    kinds = list(product(["group", "leave_one_out"], ["none", "group", "batch", "batch_tokens", "batch_rewards"], [0, 1]))
    for seed in range(200):
        centre, scale, ddof = kinds[seed % len(kinds)]
        if (centre, scale) == ("leave_one_out", "batch_rewards"):
            continue  # refused by the schema
        reward_PG, tokens_PG = rng.integers(0, 4, (3, 6)) / 3, rng.integers(1, 50, (3, 6))
        right_PG, kept_PG = rng.random((3, 6)) < 0.5, rng.random((3, 6)) < 0.5
        kept_PG[:, :2] = True  # a baseline needs two
        settings = Advantage(centre=centre, scale=scale, ddof=ddof, boost=0.1)
        clean_PG = advantages(reward_PG, right_PG, tokens_PG, settings, kept_PG)
        poisoned_PG = np.where(kept_PG, reward_PG, rng.choice([1e9, -1e9], (3, 6)))
        np.testing.assert_array_equal(
            advantages(poisoned_PG, right_PG | ~kept_PG, np.where(kept_PG, tokens_PG, 10**6), settings, kept_PG), clean_PG
        )
        assert not clean_PG[~kept_PG].any()
