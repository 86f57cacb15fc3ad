"""Against TRL's own code: where TRL and the recipe mean the same thing, they get the same numbers.

TRL's two methods, from rewards to advantages and correction weights (`_generate_and_score_completions`) and from log-probabilities to the
loss (`_compute_loss`), run unchanged on a trainer whose model and sampler are prepared tensors. The differences that are meant stand in
docs/slots.md; tests named `..._unlike_trl` pin them down.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from recipes.objectives import AdaptiveEntropy, Objective
from recipes.schema import Advantage
from rl.advantage import advantages
from rl.objective import EntropyControl, Tokens, aggregation_weights, correction_weights, loss
from tests.corrected import corrected

P, G, T, LIMIT = 4, 4, 9, 12
B = P * G


class Trainer(GRPOTrainer):
    """GRPOTrainer without a model: log-probabilities, rewards and samples are given."""

    def __init__(self, given: dict[str, Tensor], **config: Any):
        accumulation = config.pop("accumulation", 1)
        self.args = GRPOConfig(
            output_dir="unused", report_to=[], use_cpu=True, bf16=False, num_generations=G, max_completion_length=LIMIT,
            per_device_train_batch_size=B // accumulation, gradient_accumulation_steps=accumulation,
            **{"use_bias_correction_kl": False, **config},
        )  # fmt: skip
        vars(self).update({name: value for name, value in vars(self.args).items() if not name.startswith("_")})
        self.epsilon_low, self.epsilon_high = self.args.epsilon, self.args.epsilon_high or self.args.epsilon
        self._entropy_bonus_enabled = self.args.entropy_coef != 0 or self.args.use_adaptive_entropy
        self._last_world_entropy, self._entropy_window_stats = float("inf"), None
        self.current_gradient_accumulation_steps = accumulation
        self.given, self.rows = given, slice(None)
        self.model, self.ref_model = SimpleNamespace(training=True, is_gradient_checkpointing=False), SimpleNamespace()
        self.accelerator = SimpleNamespace(
            device=torch.device("cpu"), num_processes=1, process_index=0, sync_gradients=True,
            gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, reduction: x,
        )  # fmt: skip
        self.tools = self.environments = self.environment_factories = self.pad_to_multiple_of = None
        self.aux_loss_enabled, self.log_multimodal, self.eos_token_ids = False, False, [2]
        self._tokenizer = SimpleNamespace(pad_token_id=0)
        self.reward_funcs, self.reward_func_names, self.reward_weights = [None], ["given"], torch.ones(1)
        self._metrics, self._pending_metrics, self._pending_extra_logs = {"train": defaultdict(list)}, {}, {}
        self._logs = {"prompt": [], "completion": [], "advantages": [], "rewards": defaultdict(list), "extra": defaultdict(list)}

    def _generate(self, prompts: list[str]) -> tuple[Any, ...]:
        lengths = self.given["mask"].sum(1).tolist()
        ids = [[5] * (n - 1) + [2] for n in lengths]
        sampled = [row[:n].tolist() for row, n in zip(self.given["engine_logp"], lengths, strict=True)]
        return [[1, 1]] * len(prompts), ids, None, prompts, sampled, {}, None, None

    def _calculate_rewards(self, *_: Any) -> Tensor:
        return self.given["reward"][:, None]

    def _get_per_token_logps_and_entropies(self, model: Any, *_: Any, **__: Any) -> tuple[Tensor, Tensor, None]:
        name = {id(self.model): "old_logp", id(self.ref_model): "ref_logp"}.get(id(model), "logp")
        return self.given[name][self.rows], self.given["entropy"][self.rows], None

    def prepared(self) -> dict[str, Tensor]:
        """What TRL makes of the samples: advantages, masks, correction weights."""
        with torch.no_grad():
            return self._generate_and_score_completions([{"prompt": "p"}] * len(self.given["reward"]))

    def outcome(self) -> list[Tensor]:
        """TRL's loss over all micro-batches of the update, and its gradient by log-probability (and entropy, if it has one)."""
        inputs, total = self.prepared(), torch.zeros(())
        inputs["old_per_token_logps"] = self.given["old_logp"]
        size = self.args.per_device_train_batch_size
        for start in range(0, B, size):
            self.rows = slice(start, start + size)
            part = {name: value[self.rows] if value.dim() else value for name, value in inputs.items()}
            total = total + self._compute_loss(None, part)
        return with_gradient(total, self.given)


def with_gradient(total: Tensor, given: dict[str, Tensor]) -> list[Tensor]:
    return [total.detach(), *torch.autograd.grad(total, [given["logp"], given["entropy"]], allow_unused=True, materialize_grads=True)]


def batch(seed: int) -> dict[str, Tensor]:
    """P groups of G rollouts, 1 to T tokens; ratios on both sides of every bound; the last group's rewards are equal."""
    draw = torch.Generator().manual_seed(seed)

    def normal(scale: float) -> Tensor:
        return (scale * torch.randn(B, T, generator=draw)).double()  # float32 numbers: TRL keeps the sampler's in float32

    lengths = torch.randint(1, T + 1, (B,), generator=draw)
    lengths[0] = T  # TRL pads to the longest
    engine = normal(0.5) - 2
    old = engine + normal(0.4)
    reward = torch.randint(0, 3, (B,), generator=draw).double() / 2
    reward[-G:] = 1.0
    logp = (old + normal(0.3) + 0.2 * torch.randn(B, 1, generator=draw)).requires_grad_()
    return {
        "mask": torch.arange(T)[None] < lengths[:, None], "reward": reward, "engine_logp": engine, "old_logp": old,
        "ref_logp": old + normal(0.3), "logp": logp, "entropy": normal(1.0).abs().requires_grad_(),
    }  # fmt: skip


def our_advantages(given: dict[str, Tensor], **settings: Any) -> np.ndarray:
    reward_PG, tokens_PG = given["reward"].view(P, G).numpy(), given["mask"].sum(1).view(P, G).numpy()
    return advantages(reward_PG, reward_PG > 0.5, tokens_PG, Advantage(**settings)).flatten()


def our_outcome(given: dict[str, Tensor], advantage_B: Tensor, **objective: Any) -> list[Tensor]:
    """Loss and gradients as `Trainer.outcome`, from the package's own functions."""
    settings = Objective.model_validate({"old_logprobs": "learner", **objective})
    weight_B = torch.from_numpy(aggregation_weights(given["mask"].sum(1).numpy(), settings.aggregate, LIMIT))
    per_token = {name: given[name] for name in ("mask", "logp", "entropy", "old_logp", "engine_logp", "ref_logp")}
    tokens = Tokens(**per_token, row=torch.arange(B)[:, None], weight=weight_B[:, None], advantage=advantage_B[:, None])
    return with_gradient(loss(tokens, settings, settings.entropy.coef).total, given)


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their.to(our.dtype), rtol=1e-6, atol=1e-9)


LOSSES = {"grpo": "sequence_mean", "dapo": "token_mean", "dr_grpo": "constant", "cispo": "token_mean"}


@pytest.mark.parametrize("accumulation", [1, 2, 4])
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", LOSSES)
def test_losses_and_their_gradients_equal_trls(loss_type: str, level: str, accumulation: int):
    cispo = loss_type == "cispo"
    for seed, beta, delta in product(range(3), [0.0, 0.1], [None] if cispo else [None, 1.5]):
        given = batch(seed)
        bounds = {"epsilon_high": 1.3} if cispo else {"epsilon": 0.2, "epsilon_high": 0.28, "delta": delta}
        trainer = Trainer(given, loss_type=loss_type, importance_sampling_level=level, beta=beta, accumulation=accumulation, **bounds)
        ours = (
            {"surrogate": "cispo", "clip_low": 1.0, "clip_high": 0.3} if cispo else {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": delta}
        )
        kl = {"coef": beta, "estimator": "k3"}
        advantage_B = trainer.prepared()["advantages"]
        assert (advantage_B < 0).any() and (advantage_B > 0).any()
        assert_equal(our_outcome(given, advantage_B, aggregate=LOSSES[loss_type], ratio=level, kl=kl, **ours), trainer.outcome())


@pytest.mark.parametrize(("delta", "equal"), [(1.5, True), (1.28, True), (1.2, False), (1.05, False)])
def test_delta_is_dual_clip_only_from_one_plus_clip_high_on(delta: float, equal: bool):
    """TRL caps the ratio before it clips: below that, delta bounds positive advantages, too, and negative ones not at all."""
    given = batch(0)
    trainer = Trainer(given, loss_type="dapo", epsilon=0.2, epsilon_high=0.28, delta=delta)
    ours = our_outcome(given, trainer.prepared()["advantages"], clip_low=0.2, clip_high=0.28, dual_clip=delta)
    if equal:
        assert_equal(ours, trainer.outcome())
        return
    with pytest.raises(AssertionError):
        assert_equal(ours, trainer.outcome())


@pytest.mark.parametrize(("mode", "low", "high", "kind"), [
    ("token_truncate", None, 1.3, "tis"), ("token_truncate", 0.7, 1.3, "clamp"), ("token_mask", 0.7, 1.3, "icepop"),
])  # fmt: skip
def test_corrections_of_a_token_equal_trls(mode: str, low: float | None, high: float, kind: str):
    for seed in range(3):
        given = batch(seed)
        names = {"vllm_importance_sampling_mode": mode, "vllm_importance_sampling_clip_min": low, "vllm_importance_sampling_clip_max": high}
        trainer = Trainer(given, use_vllm=True, loss_type="dapo", beta=0.1, epsilon=0.2, epsilon_high=0.28, **names)
        prepared = trainer.prepared()
        weight = correction_weights(
            given["old_logp"],
            given["engine_logp"],
            given["mask"],
            torch.arange(B)[:, None],
            corrected(kind=kind, low=low or 0.5, high=high),
        )
        torch.testing.assert_close(prepared["importance_sampling_ratio"][given["mask"]].double(), weight[given["mask"]], rtol=1e-6, atol=0)
        correction = corrected(kind, low=low or 0.5, high=high)
        ours = our_outcome(given, prepared["advantages"], kl={"coef": 0.1, "estimator": "k3"}, correction=correction)
        assert_equal(ours, trainer.outcome())


def test_the_entropy_bonus_equals_trls_under_token_mean():
    given = batch(0)
    trainer = Trainer(given, loss_type="dapo", epsilon=0.2, epsilon_high=0.28, entropy_coef=0.05)
    assert_equal(our_outcome(given, trainer.prepared()["advantages"], entropy={"coef": 0.05}), trainer.outcome())


def test_the_adaptive_entropy_weight_follows_trls_from_the_second_step_on():
    """In the first step TRL applies no bonus, because no entropy is known yet; ours applies the weight that the recipe names."""
    settings = AdaptiveEntropy(kind="adaptive", coef=0.01, target=0.2, delta=0.005, most=0.03)
    config = {"entropy_coef": 0.01, "entropy_target": 0.2, "entropy_coef_delta": 0.005, "entropy_coef_max": 0.03}
    given, bonus = batch(0), EntropyControl(settings)
    trainer = Trainer(given, loss_type="dapo", use_adaptive_entropy=True, **config)
    inputs = trainer.prepared() | {"advantages": torch.zeros(B)}
    for step, entropy in enumerate([0.15, 0.1, 0.19, 0.12, 0.1, 0.21, 0.3, 0.15, 0.5, 0.4, 0.3, 0.3, 0.3, 0.3, 0.1]):
        given["entropy"] = torch.full((B, T), entropy, dtype=torch.float64)
        applied = -float(trainer._compute_loss(None, inputs).detach()) / entropy
        assert applied == pytest.approx(bonus.weight if step else 0.0)
        bonus.after(entropy)
        assert bonus.coef == pytest.approx(trainer.entropy_coef)


@pytest.mark.parametrize(("theirs", "ours"), [("none", "none"), ("batch", "batch_rewards")])
def test_advantages_equal_trls(theirs: str, ours: str):
    for seed in range(20):
        given = batch(seed)
        np.testing.assert_allclose(
            our_advantages(given, scale=ours, ddof=1), Trainer(given, scale_rewards=theirs).prepared()["advantages"], rtol=1e-6, atol=1e-9
        )


def test_advantages_over_the_group_spread_equal_trls_but_for_its_epsilon():
    for seed in range(20):
        given = batch(seed)
        std_B = given["reward"].view(P, G).std(1).repeat_interleave(G).numpy()
        expected = Trainer(given, scale_rewards="group").prepared()["advantages"]
        np.testing.assert_allclose(our_advantages(given, scale="group", ddof=1) * std_B / (std_B + 1e-4), expected, rtol=1e-6, atol=1e-9)


def long_rollouts(gap: float) -> dict[str, Tensor]:
    """Every token of every rollout has this gap between learner and engine; rollouts have 1,000 tokens."""
    given = {name: torch.zeros(B, 1000, dtype=torch.float64) for name in ("engine_logp", "ref_logp", "logp", "entropy")}
    return {
        **given,
        "old_logp": given["engine_logp"] + gap,
        "mask": torch.ones(B, 1000, dtype=torch.bool),
        "reward": torch.arange(B).double(),
    }


@pytest.mark.parametrize(("gap", "product_form", "geometric"), [(0.002, 0.0, 1.002), (-0.002, 0.135, 0.998)])
def test_the_sequence_mask_takes_a_geometric_mean_unlike_trl(gap: float, product_form: float, geometric: float):
    given = long_rollouts(gap)
    trainer = Trainer(given, use_vllm=True)  # sequence_mask, cap 3: TRL's defaults
    np.testing.assert_allclose(trainer.prepared()["importance_sampling_ratio"], product_form, atol=1e-3)
    weight = correction_weights(
        given["old_logp"], given["engine_logp"], given["mask"], torch.arange(B)[:, None], corrected(kind="sequence_mask", high=3.0)
    )
    np.testing.assert_allclose(weight, geometric, atol=1e-3)


def test_the_entropy_bonus_has_the_denominator_of_the_loss_unlike_trl():
    given = batch(0)
    advantage_B = torch.zeros(B, dtype=torch.float64)
    ours = our_outcome(given, advantage_B, aggregate="sequence_mean", entropy={"coef": 1.0})[0]
    mask, entropy = given["mask"], given["entropy"].detach()
    assert ours == pytest.approx(-float(((entropy * mask).sum(1) / mask.sum(1)).mean()))
    trainer = Trainer({**given, "reward": torch.zeros(B, dtype=torch.float64)}, loss_type="grpo", entropy_coef=1.0)
    assert trainer.outcome()[0] == pytest.approx(-float(entropy[mask].mean()))


def test_the_penalty_is_not_multiplied_by_the_ratio_unlike_trls_default():
    given = batch(0)
    given["reward"] = torch.zeros(B, dtype=torch.float64)
    mask, log_ratio = given["mask"], (given["logp"] - given["old_logp"]).detach()
    d = (given["logp"] - given["ref_logp"]).detach()
    kl = torch.exp(-d) - 1 + d
    ours = our_outcome(given, torch.zeros(B, dtype=torch.float64), kl={"coef": 1.0, "estimator": "k3"})[0]
    assert ours == pytest.approx(float(kl[mask].mean()))
    trainer = Trainer(given, loss_type="dapo", beta=1.0, use_bias_correction_kl=True)
    assert trainer.outcome()[0] == pytest.approx(float((torch.exp(log_ratio) * kl)[mask].mean()))
