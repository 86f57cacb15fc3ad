"""Hand numbers of aggregations, ratios, corrections and KL estimators; masks are promise P2, signs and gradients promise P5."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recipes.objectives import AdaptiveEntropy, Entropy, FixedEntropy, Kl, Objective
from rl import objective as rl_objective
from rl.objective import EntropyControl, Tokens, aggregation_weights, correction_weights, culprit, kl_penalty, policy_loss, rollout_mean
from tests.corrected import corrected

B, T, V = 4, 5, 3

AGGREGATES = ["token_mean", "sequence_mean", "sequence_sum", "constant"]
EVERYTHING = Objective(
    kl=Kl(coef=0.3, estimator="k3"),
    entropy=FixedEntropy(coef=0.2),
    dual_clip=1.5,
    old_logprobs="learner",
    correction=corrected(kind="tis", high=1.2),
)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def loss(batch, objective):
    """The loss of a batch whose rows are the first dimension."""
    row = torch.arange(len(batch["mask"])).view(-1, *[1] * (batch["mask"].dim() - 1)).expand_as(batch["mask"])
    return rl_objective.loss(Tokens(**{"row": row} | batch), objective, objective.entropy.coef)


class ToyPolicy:
    """12 numbers: the logits of V tokens in B contexts, one context a row; the actions and the other models' logprobs are fixed."""

    def __init__(self, seed=0):
        draw = torch.Generator().manual_seed(seed)
        self.logits_BV = torch.randn(B, V, generator=draw, dtype=torch.float64).requires_grad_()
        self.actions_BT = torch.randint(V, (B, T), generator=draw)
        gaps = 0.4 * torch.randn(3, B, T, generator=draw, dtype=torch.float64)
        logp_BT = self.score(self.logits_BV)[0].detach()
        self.fixed = {
            "mask": torch.arange(T)[None] < torch.tensor([5, 3, 1, 4])[:, None],
            "row": torch.arange(B)[:, None].expand(B, T),
            "weight": torch.rand(B, 1, generator=draw, dtype=torch.float64).expand(B, T),
            "advantage": torch.randn(B, 1, generator=draw, dtype=torch.float64).expand(B, T),
            **{f"{name}_logp": logp_BT + gap for name, gap in zip(["old", "engine", "ref"], gaps, strict=True)},
        }

    def score(self, logits_BV):
        logp_BV = logits_BV.log_softmax(-1)
        return logp_BV.gather(1, self.actions_BT), -(logp_BV.exp() * logp_BV).sum(-1, keepdim=True).expand(B, T)

    def batch(self, logits_BV=None):
        logp_BT, entropy_BT = self.score(self.logits_BV if logits_BV is None else logits_BV)
        return {**self.fixed, "logp": logp_BT, "entropy": entropy_BT}


@pytest.mark.parametrize(
    ("ratio", "advantage", "clip_high", "dual_clip", "expected", "clipped"),
    [
        (1.25, 1, 0.2, None, -1.2, True),
        (1.25, 1, 0.28, None, -1.25, False),
        (1.5, 1, 0.2, None, -1.2, True),
        (1.5, 1, 0.28, None, -1.28, True),
        (0.7, 1, 0.28, None, -0.7, False),
        (1.5, -1, 0.28, None, 1.5, False),
        (0.7, -1, 0.28, None, 0.8, True),
        (12, -1, 0.28, None, 12, False),
        (12, -1, 0.28, 10, 10, True),
        (12, 1, 0.28, 10, -1.28, True),
    ],
)
def test_the_clipped_ratio_gives_its_published_numbers(ratio, advantage, clip_high, dual_clip, expected, clipped):
    logp = tensor(np.log(ratio)).requires_grad_()
    token_loss, is_clipped = policy_loss(logp, logp.exp(), tensor(advantage), Objective(clip_high=clip_high, dual_clip=dual_clip))
    assert token_loss.item() == pytest.approx(expected) and is_clipped.item() is clipped
    (gradient,) = torch.autograd.grad(token_loss.sum(), logp)
    assert gradient.item() == pytest.approx(0 if clipped else -advantage * ratio)


def test_on_policy_the_gradient_is_the_advantage_times_the_score():
    logp = tensor(-1.0, -2.0, -0.1).requires_grad_()
    token_loss, clipped = policy_loss(logp, (logp - logp.detach()).exp(), tensor(1, -2, 0.5), Objective(dual_clip=10))
    (gradient,) = torch.autograd.grad(token_loss.sum(), logp)
    assert gradient.tolist() == [-1, 2, -0.5] and not clipped.any()


@pytest.mark.parametrize(("kind", "expected"), [("sequence_mean", 0), ("token_mean", 0.6), ("constant", 0.3), ("sequence_sum", 3.0)])
def test_aggregations_give_their_published_numbers(kind, expected):  # len 2 and 8, A +1 and -1, ratio 1
    tokens_B, advantage_B = np.array([2, 8]), np.array([1, -1])
    weight_B = aggregation_weights(tokens_B, kind, limit=10)
    assert (weight_B * tokens_B * -advantage_B).sum() == pytest.approx(expected)


def test_micro_batches_do_not_change_the_token_mean():  # .8182, and 0 if the means of two halves are averaged
    tokens_B, advantage_B = np.array([2, 2, 20, 20]), tensor(1, 1, -1, -1)
    weight_B = torch.tensor(aggregation_weights(tokens_B, "token_mean", limit=20))
    mask_BT = torch.arange(20)[None] < torch.tensor(tokens_B)[:, None]

    def share(rows):
        zero_BT = torch.zeros(len(rows), 20, dtype=torch.float64)
        batch = {"mask": mask_BT[rows], "weight": weight_B[rows, None], "advantage": advantage_B[rows, None]}
        return loss(batch | dict.fromkeys(["logp", "old_logp", "engine_logp", "entropy"], zero_BT), Objective())[0].item()

    assert share([0, 1, 2, 3]) == pytest.approx(0.8182, abs=1e-4)
    assert share([0, 1]) + share([2, 3]) == pytest.approx(36 / 44)
    assert share([0]) + share([3, 1]) + share([2]) == pytest.approx(36 / 44)


@given(hnp.arrays(np.int64, st.integers(1, 20), elements=st.integers(0, 100)), st.sampled_from(AGGREGATES))
def test_weights_of_a_constant_loss_add_up_to_what_the_name_says(tokens_B, kind):
    total = (aggregation_weights(tokens_B, kind, limit=100) * tokens_B).sum()
    expected = {
        "token_mean": min(tokens_B.sum(), 1),
        "sequence_mean": (tokens_B > 0).mean(),
        "sequence_sum": tokens_B.mean(),
        "constant": tokens_B.mean() / 100,
    }
    assert total == pytest.approx(expected[kind])


@pytest.mark.parametrize(("estimator", "expected"), [("k1", [0.1, -0.5]), ("k2", [0.005, 0.125]), ("k3", [0.0048, 0.1487])])
def test_kl_estimators_give_their_published_numbers(estimator, expected):
    np.testing.assert_allclose(kl_penalty(tensor(-1, -1), tensor(-1.1, -0.5), estimator), expected, atol=1e-4)


CORRECTIONS = [
    (corrected(kind="none"), [1, 1, 1, 1]),
    (corrected(kind="tis", high=2), [1.3499, 0.3012, 2, 1.0101]),
    (corrected(kind="clamp", low=0.5, high=5), [1.3499, 0.5, 5, 1.0101]),
    (corrected(kind="icepop", low=0.5, high=5), [1.3499, 0, 0, 1.0101]),
    (corrected(kind="sequence_mask", low=0.5, high=1.3198), [0, 0, 0, 0]),  # the geometric mean is 1.31983
    (corrected(kind="sequence_mask", low=0.5, high=1.32), [1.3499, 0.3012, 7.3891, 1.0101]),
    (corrected(kind="sequence_mask", low=0.997, high=1.003), [0, 0, 0, 0]),
]


@pytest.mark.parametrize(("settings", "expected"), CORRECTIONS)
def test_mismatch_corrections_give_their_published_numbers(settings, expected):
    old_logp = tensor(0.3, -1.2, 2.0, 0.01).requires_grad_()
    mask, row = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.int64)
    weight = correction_weights(old_logp, tensor(0, 0, 0, 0), mask, row, settings)
    np.testing.assert_allclose(weight, expected, atol=1e-4)
    assert not weight.requires_grad


def test_the_statistics_of_a_mismatched_rollout():
    gap = tensor(0.3, -1.2, 2.0, 0.01)
    mask, row = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.int64)
    assert float(gap.sum().exp()) == pytest.approx(3.0344, abs=1e-4)
    np.testing.assert_allclose(rollout_mean(gap, mask, row).exp(), [1.3198] * 4, atol=1e-4)
    assert float(kl_penalty(tensor(0, 0, 0, 0), gap, "k3").mean()) == pytest.approx(1.2350, abs=1e-4)


@pytest.mark.parametrize("kind", ["icepop", "sequence_mask"])
def test_a_ratio_on_the_bound_is_inside_it(kind):
    mask, row = torch.ones(2, dtype=torch.bool), torch.tensor([0, 1])
    settings = corrected(kind=kind, low=0.5, high=2.0)
    weight = correction_weights(torch.log(tensor(0.5, 2.0)), tensor(0, 0), mask, row, settings)
    np.testing.assert_allclose(weight, [0.5, 2.0])
    weight = correction_weights(torch.log(tensor(0.499, 2.01)), tensor(0, 0), mask, row, settings)
    assert not weight.any()


def test_the_sequence_ratio_is_the_geometric_mean_and_clips_whole_rollouts():  # GSPO, arXiv 2507.18071
    log_ratio = tensor(0.2, -0.1, 0.05, 9.0)
    mask, row = torch.tensor([True, True, True, False]), torch.zeros(4, dtype=torch.int64)
    ratio = torch.exp(rollout_mean(log_ratio, mask, row))
    np.testing.assert_allclose(ratio, 1.05127, atol=1e-5)
    settings = Objective(ratio="sequence", clip_low=3e-4, clip_high=4e-4, aggregate="sequence_mean")
    token_loss, clipped = policy_loss(log_ratio, ratio, tensor(1, 1, 1, 1), settings)
    np.testing.assert_allclose(token_loss, -1.0004)
    assert clipped.all()


def test_a_correction_weighs_the_token_it_is_of_also_under_a_sequence_ratio():
    """Slopes -A s r_t / T, s the rollout's ratio and r_t the token's weight: GSPO-token (arXiv 2507.18071, 4.3), as verl has it."""
    logp = tensor([0.1, 0.3]).requires_grad_()
    batch = {name: tensor([0.0, 0.0]) for name in ("old_logp", "entropy")} | {"mask": torch.ones(1, 2, dtype=torch.bool)}
    batch |= {"logp": logp, "advantage": tensor([1.0]), "weight": tensor([0.5]), "engine_logp": -torch.log(tensor([1.5, 4.0]))}
    for correction, weights in (
        (corrected(kind="none"), [1, 1]),
        (corrected(kind="tis", high=3), [1.5, 3]),
        (corrected(kind="icepop", high=3), [1.5, 0]),
    ):
        total, *_ = loss(batch, Objective(ratio="sequence", clip_high=9, old_logprobs="learner", correction=correction))
        (slope,) = torch.autograd.grad(total, logp)
        np.testing.assert_allclose(slope, [[-0.5 * np.exp(0.2) * weight for weight in weights]], rtol=1e-12)


def test_a_sequence_ratio_moves_all_its_tokens_together():
    policy = ToyPolicy()
    settings = Objective(ratio="sequence", clip_low=0.9, clip_high=9.0, aggregate="sequence_mean")
    logp = policy.batch()["logp"].detach().requires_grad_()
    (gradient_BT,) = torch.autograd.grad(loss(policy.batch() | {"logp": logp}, settings)[0], logp)
    for gradient_T, mask_T in zip(gradient_BT, policy.fixed["mask"], strict=True):
        assert (gradient_T[mask_T] == gradient_T[0]).all() and not gradient_T[~mask_T].any() and gradient_T[0] != 0


@pytest.mark.parametrize(("low", "high", "expected"), [(1.0, 4.0, [0.5, 1, 3, 5]), (10, 0.2, [0.5, 1, 1.2, 1.2])])
def test_cispo_weighs_by_the_clipped_ratio_and_drops_no_token(low, high, expected):  # TRL's convention, verl's
    logp = torch.log(tensor(0.5, 1, 3, 6)).requires_grad_()
    settings = Objective(surrogate="cispo", clip_low=low, clip_high=high)
    token_loss, clipped = policy_loss(logp, logp.exp(), tensor(1, 1, 1, 1), settings)
    (gradient,) = torch.autograd.grad(token_loss.sum(), logp)
    np.testing.assert_allclose(-gradient, expected)
    np.testing.assert_allclose(token_loss.detach(), -tensor(*expected) * logp.detach())
    assert clipped.tolist() == [e != r for e, r in zip(expected, [0.5, 1, 3, 6], strict=True)]


def test_an_adaptive_entropy_bonus_grows_below_its_target_and_rests_above():  # structured.md 10.1
    settings = AdaptiveEntropy(kind="adaptive", coef=0.01, target=0.2, delta=0.005, most=0.017)

    def after(*entropies: float, settings: Entropy = settings) -> EntropyControl:
        control = EntropyControl(settings)
        for entropy in entropies:
            control.after(entropy)
        return control

    low, high = after(0.15), after(0.3)
    assert (low.coef, low.weight) == (pytest.approx(0.015), pytest.approx(0.015))
    assert (high.coef, high.weight) == (pytest.approx(0.005), 0.0)
    assert after(0.15, 0.1).coef == 0.017 and after(0.3, 0.3, 0.3).coef == 0.0
    assert after(9.0, settings=FixedEntropy(coef=0.01)).state() == {"coef": 0.01, "on": True}
    at_target = after(0.2)
    assert (at_target.coef, at_target.on) == (pytest.approx(0.005), True)


@pytest.mark.parametrize("name", ["engine_logp", "old_logp", "ref_logp", "logp", "entropy", "advantage"])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_with_its_row(name, poison):
    policy = ToyPolicy()
    batch = policy.batch()
    assert culprit(Tokens(**batch)) is None
    poisoned = batch[name].detach().clone()
    poisoned[3, 2] = poison
    assert culprit(Tokens(**batch | {name: poisoned})) == (f"{name} {poison}", 3)
    beyond = batch[name].detach().clone()
    beyond[2, 4] = poison  # masked
    assert culprit(Tokens(**batch | {name: beyond})) is None


def test_a_ratio_that_overflows_is_named():
    policy = ToyPolicy()
    old = policy.fixed["old_logp"].clone()
    old[1, 1] = -1e9
    assert culprit(Tokens(**policy.batch() | {"old_logp": old})) == ("ratio inf", 1)


def test_what_a_correction_keeps_is_counted_by_rollout():
    policy = ToyPolicy()
    policy.fixed["old_logp"] = policy.fixed["engine_logp"].clone()
    policy.fixed["old_logp"][1] += 3.0  # the row of three tokens is far off
    settings = Objective(old_logprobs="learner", correction=corrected(kind="icepop", low=0.5, high=2.0))
    _, stats, kept_R = loss(policy.batch(), settings)
    assert kept_R.tolist() == [5, 0, 1, 4]
    assert stats["correction"].item() == pytest.approx(10) and stats["tokens"] == 13
    assert loss(policy.batch(), Objective())[2] is None


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="token_mean"):
        aggregation_weights(np.ones(2), "mean", 1)
    with pytest.raises(ValueError, match="k1, k2 or k3"):
        kl_penalty(tensor(0), tensor(0), "abs")


@pytest.mark.parametrize(
    "objective",
    [
        Objective(),
        Objective(dual_clip=1.2),
        *(Objective(kl=Kl(coef=0.3, estimator=estimator)) for estimator in ["k1", "k2", "k3"]),
        Objective(ratio="sequence", clip_low=3e-2, clip_high=4e-2, aggregate="sequence_mean"),
        Objective(ratio="sequence", clip_low=0.9, clip_high=9.0, aggregate="sequence_mean"),
        Objective(entropy=FixedEntropy(coef=0.2)),
        EVERYTHING,
    ],
)
def test_gradients_agree_with_finite_differences(objective):
    policy = ToyPolicy()
    assert torch.autograd.gradcheck(lambda logits_BV: loss(policy.batch(logits_BV), objective)[0], policy.logits_BV)


def step_against(policy, objective):
    """The policy's logits after a small step down this loss."""
    (gradient,) = torch.autograd.grad(loss(policy.batch(), objective)[0], policy.logits_BV)
    return policy.logits_BV.detach() - 1e-3 * gradient


def test_a_step_raises_what_was_better_and_lowers_what_was_worse():
    policy = ToyPolicy()
    policy.fixed["old_logp"] = policy.batch()["logp"].detach()
    change_BT = policy.score(step_against(policy, Objective()))[0] - policy.batch()["logp"]
    toward_BT = torch.where(policy.fixed["mask"], policy.fixed["advantage"] * change_BT, 0)
    assert toward_BT.sum() > 0


def test_the_entropy_bonus_raises_entropy_and_the_kl_term_lowers_the_distance():
    policy = ToyPolicy()
    policy.fixed |= {"advantage": torch.zeros(B, T, dtype=torch.float64), "weight": torch.ones(B, T, dtype=torch.float64)}
    before, mask = policy.batch(), policy.fixed["mask"]
    entropy_BT = policy.score(step_against(policy, Objective(entropy=FixedEntropy(coef=1.0))))[1]
    assert (entropy_BT > before["entropy"]).all()
    for estimator in ["k2", "k3"]:
        logp_BT = policy.score(step_against(policy, Objective(kl=Kl(coef=1.0, estimator=estimator))))[0]
        distance = [kl_penalty(x_BT, before["ref_logp"], estimator)[mask].sum() for x_BT in (logp_BT, before["logp"])]
        assert distance[0] < distance[1]


def test_as_a_loss_k2_has_the_gradient_of_the_true_kl():
    logits_V, ref_V = torch.randn(2, V, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logits_V.requires_grad_()
    logp_V, ref_logp_V = logits_V.log_softmax(-1), ref_V.log_softmax(-1)
    (true,) = torch.autograd.grad((logp_V.exp() * (logp_V - ref_logp_V)).sum(), logits_V, retain_graph=True)
    (k2,) = torch.autograd.grad((logp_V.exp().detach() * kl_penalty(logp_V, ref_logp_V, "k2")).sum(), logits_V)
    torch.testing.assert_close(k2, true)


def outcome(batch, objective, leaf):
    total, stats, _ = loss(batch, objective)
    (gradient,) = torch.autograd.grad(total, leaf)
    return total.detach(), gradient, stats


def test_a_coefficient_of_zero_removes_its_term_bit_for_bit():
    policy = ToyPolicy()
    bare = Objective(dual_clip=1.5)
    switched_off = Objective(dual_clip=1.5, kl=Kl(coef=0.0, estimator="k3"), entropy=FixedEntropy(coef=0.0))
    without = {name: value for name, value in policy.batch().items() if name != "ref_logp"}
    poisoned = policy.batch() | {"ref_logp": torch.full((B, T), torch.nan, dtype=torch.float64)}
    total, gradient, _ = outcome(without, bare, policy.logits_BV)
    for batch in (policy.batch(), poisoned):
        other_total, other_gradient, _ = outcome(batch, switched_off, policy.logits_BV)
        assert torch.equal(total, other_total) and torch.equal(gradient, other_gradient)


def test_each_term_that_is_on_changes_the_loss_and_its_gradient():
    policy = ToyPolicy()
    total, gradient, _ = outcome(policy.batch(), Objective(old_logprobs="learner"), policy.logits_BV)
    for term in (
        {"kl": Kl(coef=0.1)},
        {"entropy": FixedEntropy(coef=0.1)},
        {"correction": corrected(kind="tis")},
        {"dual_clip": 1.01},
        {"clip_low": 0.01},
    ):
        other_total, other_gradient, _ = outcome(policy.batch(), Objective(old_logprobs="learner", **term), policy.logits_BV)
        assert not torch.equal(total, other_total) and not torch.equal(gradient, other_gradient), term


@given(hnp.arrays(bool, (B, T)), st.sampled_from([np.nan, np.inf, 1e9, -1e9]))
@settings(max_examples=200, deadline=None)
def test_what_stands_at_masked_positions_changes_nothing(mask_BT, poison):
    policy = ToyPolicy()
    policy.fixed["mask"] = mask = torch.from_numpy(mask_BT)
    clean = outcome(policy.batch(), EVERYTHING, policy.logits_BV)
    batch = policy.batch()
    # Multiplying, not replacing: a NaN that reached the gradient would show.
    batch = {name: value if name in ("mask", "row") else value * torch.where(mask, 1.0, poison) for name, value in batch.items()}
    total, gradient, stats = outcome(batch, EVERYTHING, policy.logits_BV)
    if np.isfinite(poison):
        assert torch.equal(gradient, clean[1])
    assert torch.equal(total, clean[0]) and stats == clean[2]


def test_a_micro_batch_that_is_all_masked_or_empty_gives_zero_and_a_zero_gradient():
    policy = ToyPolicy()
    policy.fixed["mask"] = torch.zeros(B, T, dtype=torch.bool)
    empty = {name: value[:0] for name, value in policy.batch().items()}
    for batch in (policy.batch(), empty):
        total, gradient, stats = outcome(batch, EVERYTHING, policy.logits_BV)
        assert total == 0 and not gradient.any() and not any(stats.values())


def test_statistics_are_sums_that_micro_batches_add_up_to():
    policy = ToyPolicy()
    batch = policy.batch()
    whole = loss(batch, EVERYTHING)[1]
    halves = [loss({name: value[rows] for name, value in batch.items()}, EVERYTHING)[1] for rows in (slice(0, 1), slice(1, B))]
    for name, value in whole.items():
        parts = [half[name] for half in halves]
        torch.testing.assert_close(max(parts) if name == "mismatch_max" else sum(parts), value)


def test_statistics_count_what_they_say():
    logp = (torch.log(tensor(1.5, 1.5, 0.5, 1.0)) - 2).requires_grad_()
    batch = {
        "mask": torch.tensor([True, True, True, False]),
        "weight": tensor(1, 1, 1, 1),
        "advantage": tensor(1, -1, -1, 1),
        "logp": logp,
        "old_logp": tensor(-2, -2, -2, -2),
        "engine_logp": tensor(-1.9, -2.2, -2, 3),
        "ref_logp": logp.detach() - 0.1,
        "entropy": tensor(1, 2, 3, 4),
    }
    _, stats, _ = loss(batch, Objective(old_logprobs="learner"))
    stats = {name: value.item() for name, value in stats.items()}
    assert stats == pytest.approx(
        {
            "loss": -1.28 + 1.5 + 0.8,
            "tokens": 3,
            "clipped": 2,
            "ratio": 3.5,
            "kl": 3 * 0.005,
            "entropy": 6,
            "mismatch": 0.3,
            "mismatch_max": 0.2,
        }
    )
    _, against_engine, _ = loss(batch, Objective(old_logprobs="engine"))
    assert against_engine["mismatch_max"].item() == pytest.approx(np.log(2))  # no learner's word but its present one
    _, by_rollout, _ = loss(batch, Objective(surrogate="cispo", ratio="sequence", clip_high=0.01))
    assert by_rollout["clipped"].item() == 3  # the rollout's ratio is (1.5 x 1.5 x 0.5)^(1/3) = 1.04, of tokens that train
