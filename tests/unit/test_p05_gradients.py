"""Promise P5: every enabled term has a gradient, of the right size and sign; a coefficient of zero removes its term bit for bit.

The policy has 12 numbers: the logits of 3 tokens in 4 contexts, one context a rollout. Gradients are compared with central differences of
the loss; where a weight is held constant by definition (CISPO), with central differences of the loss in which that weight does not move.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from recipes.objectives import Objective
from rl.objective import Tokens, loss
from tests.corrected import corrected

B, T, V = 4, 6, 3
MASK = torch.arange(T)[None] < torch.tensor([[6], [3], [1], [4]])
ACTIONS = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))
START = torch.randn(B, V, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def score(logits_BV: Tensor) -> tuple[Tensor, Tensor]:
    logp_BV = logits_BV.log_softmax(-1)
    return logp_BV.gather(1, ACTIONS), -(logp_BV.exp() * logp_BV).sum(-1, keepdim=True).expand(B, T)


def fixed(seed: int = 0) -> dict[str, Tensor]:
    """All that does not depend on the policy: ratios lie on both sides of every bound, advantages on both sides of zero."""
    draw = torch.Generator().manual_seed(seed)
    gaps = 0.4 * torch.randn(3, B, T, generator=draw, dtype=torch.float64) + 0.3 * torch.randn(3, B, 1, generator=draw, dtype=torch.float64)
    names = ["old_logp", "engine_logp", "ref_logp"]
    return {
        "mask": MASK, "row": torch.arange(B)[:, None].expand(B, T),
        "weight": 0.5 + torch.rand(B, 1, generator=draw, dtype=torch.float64).expand(B, T),
        "advantage": torch.tensor([[1.0], [-1.5], [0.5], [-0.7]], dtype=torch.float64).expand(B, T),
        **{name: score(START)[0] + gap for name, gap in zip(names, gaps, strict=True)},
    }  # fmt: skip


def objective(**keys: Any) -> Objective:
    return Objective.model_validate({"old_logprobs": "learner", **keys})


def total(logits_BV: Tensor, settings: Objective, given: dict[str, Tensor] | None = None) -> Tensor:
    logp_BT, entropy_BT = score(logits_BV)
    return loss(Tokens(**given or fixed(), logp=logp_BT, entropy=entropy_BT), settings, settings.entropy.coef)[0]


def gradient(settings: Objective, given: dict[str, Tensor] | None = None) -> Tensor:
    logits_BV = START.clone().requires_grad_()
    return torch.autograd.grad(total(logits_BV, settings, given), logits_BV)[0]


def differences(function: Callable[[Tensor], Tensor], step: float = 1e-5) -> Tensor:
    """Central differences of a function of the 12 numbers."""
    found = torch.zeros_like(START)
    for place in range(START.numel()):
        move = torch.zeros_like(START).view(-1)
        move[place] = step
        found.view(-1)[place] = (function(START + move.view(B, V)) - function(START - move.view(B, V))) / (2 * step)
    return found


NO_POLICY = {"advantage": torch.zeros(B, T, dtype=torch.float64)}
TERMS = {
    "policy": {},
    "dual clip": {"dual_clip": 1.1},
    "sequence ratio": {"ratio": "sequence", "dual_clip": 1.3},
    "gspo": {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4},
    **{kind: {"correction": corrected(kind, low=0.8, high=1.3)} for kind in ("tis", "clamp", "icepop", "sequence_mask")},
    **{estimator: {"kl": {"coef": 0.3, "estimator": estimator}} for estimator in ("k1", "k2", "k3")},
    "entropy": {"entropy": {"coef": 0.2}},
    "everything": {"dual_clip": 1.3, "kl": {"coef": 0.3, "estimator": "k3"}, "entropy": {"coef": 0.2}, "correction": {"kind": "clamp"}},
}


@pytest.mark.parametrize("name", TERMS)
def test_p05_gradients_are_the_slopes_of_the_loss(name: str):
    settings = objective(**TERMS[name])
    torch.testing.assert_close(gradient(settings), differences(lambda logits_BV: total(logits_BV, settings)), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["k1", "k2", "k3", "entropy"])
def test_p05_each_term_has_its_own_gradient_without_the_policy_term(name: str):
    given = {**fixed(), **NO_POLICY}
    assert not gradient(objective(), given).any()
    alone = gradient(objective(**TERMS[name]), given)
    assert (alone != 0).any(1).all()  # every context, hence every rollout
    both = gradient(objective(**TERMS[name]))
    torch.testing.assert_close(both - gradient(objective()), alone)  # and the policy term does not change it


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize(("low", "high"), [(1.0, 0.1), (0.1, 0.1)])
def test_p05_cispo_is_the_slope_with_its_weights_held(level: str, low: float, high: float):
    settings, given = objective(surrogate="cispo", ratio=level, clip_low=low, clip_high=high), fixed()
    log_ratio_BT = score(START)[0] - given["old_logp"]
    if level == "sequence":
        log_ratio_BT = (log_ratio_BT * MASK).sum(1, keepdim=True) / MASK.sum(1, keepdim=True)
    held_BT = log_ratio_BT.exp().clamp(1 - low, 1 + high) * given["advantage"] * given["weight"] * MASK
    torch.testing.assert_close(
        gradient(settings), differences(lambda logits_BV: -(held_BT * score(logits_BV)[0]).sum()), rtol=1e-6, atol=1e-8
    )
    assert not torch.allclose(gradient(settings), gradient(objective(ratio=level, clip_low=low, clip_high=high)))


@pytest.mark.parametrize(
    "off",
    [
        {"kl": {"coef": 0.0, "estimator": "k3"}},
        {"entropy": {"coef": 0.0}},
        {"kl": {"coef": 0.0, "estimator": "k1"}, "entropy": {"coef": 0.0}},
    ],
)
def test_p05_a_coefficient_of_zero_removes_the_term_bit_for_bit(off: dict[str, Any]):
    """Even what would be infinite in it: 0 x inf must not be computed."""
    bare = {name: value for name, value in fixed().items() if name != "ref_logp"}
    poisoned = fixed() | {"ref_logp": torch.full((B, T), torch.inf, dtype=torch.float64)}
    settings = objective(dual_clip=1.3, **off)
    for given in (fixed(), poisoned):
        assert torch.equal(total(START, settings, given), total(START, objective(dual_clip=1.3), bare))
        assert torch.equal(gradient(settings, given), gradient(objective(dual_clip=1.3), bare))


def step_down(settings: Objective, given: dict[str, Tensor]) -> Tensor:
    return START - 1e-3 * gradient(settings, given)


@pytest.mark.parametrize("keys", [{}, {"ratio": "sequence"}, {"surrogate": "cispo"}, {"surrogate": "cispo", "ratio": "sequence"}])
def test_p05_a_step_makes_better_rollouts_likelier_and_worse_ones_less_likely(keys: dict[str, Any]):
    given = fixed() | {"old_logp": score(START)[0]}
    change_BT = score(step_down(objective(**keys), given))[0] - score(START)[0]
    toward_B = (torch.where(MASK, change_BT, 0.0).sum(1) * given["advantage"][:, 0]).tolist()
    assert all(value > 0 for value in toward_B)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_p05_a_step_down_the_kl_term_comes_nearer_to_the_reference(estimator: str):
    reference_BV = torch.randn(B, V, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    given = {**fixed(), **NO_POLICY, "mask": torch.ones(B, V, dtype=torch.bool), "row": torch.arange(B)[:, None].expand(B, V)}
    logp_BV, ref_logp_BV = START.log_softmax(-1), reference_BV.log_softmax(-1)

    def distance(logits_BV: Tensor) -> Tensor:
        other_BV = logits_BV.log_softmax(-1)
        return (other_BV.exp() * (other_BV - ref_logp_BV)).sum(1)

    # every token once, weighted by its probability: the expectation over what the policy samples
    zeros_BV = torch.zeros(B, V, dtype=torch.float64)
    given |= {
        "weight": logp_BV.exp(),
        "ref_logp": ref_logp_BV,
        "advantage": zeros_BV,
        "old_logp": logp_BV,
        "engine_logp": logp_BV,
    }
    logits_BV = START.clone().requires_grad_()
    settings = objective(kl={"coef": 1.0, "estimator": estimator})
    batch = {**given, "logp": logits_BV.log_softmax(-1), "entropy": zeros_BV}
    (slope_BV,) = torch.autograd.grad(loss(Tokens(**batch), settings, 0.0)[0], logits_BV)
    assert (distance(START - 1e-3 * slope_BV) < distance(START)).all()
    if estimator == "k2":  # as a loss, k2's gradient is that of the KL divergence itself
        torch.testing.assert_close(slope_BV, differences(lambda moved_BV: distance(moved_BV).sum()), rtol=1e-6, atol=1e-9)


def test_p05_k1_pushes_every_sampled_token_down_whatever_the_reference():
    """Its gradient is the score function: zero in expectation, so as a loss it penalises nothing (docs/slots.md)."""
    given = {**fixed(), **NO_POLICY}
    logits_BV = START.clone().requires_grad_()
    log_probability = (torch.where(MASK, score(logits_BV)[0], 0.0) * given["weight"]).sum()
    torch.testing.assert_close(
        gradient(objective(kl={"coef": 1.0, "estimator": "k1"}), given), torch.autograd.grad(log_probability, logits_BV)[0]
    )


def test_p05_a_step_up_the_entropy_bonus_raises_entropy():
    given = {**fixed(), **NO_POLICY}
    assert (score(step_down(objective(entropy={"coef": 1.0}), given))[1] > score(START)[1]).all()
