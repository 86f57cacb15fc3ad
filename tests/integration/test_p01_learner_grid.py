"""Promise P1 on the real learner: ranks, ZeRO stages and micro-batches do not change loss, gradient norm or optimiser step, whatever the method.

Two steps against the referee in float64: the first is one update of all 32 trajectories, the second two updates of 16 each, so that ratio,
KL and correction are away from where they start. test_learner.py has the same for the rest of the grid, with DLER's objective only.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import rl.learner
from recipes.schema import Recipe
from rl import deepspeed_config
from rl.adapters import Merged, adapted
from rl.algorithm import measured, prepare
from rl.learner import Learner, LearnerRank
from rl.policy import Row
from tests.forked import Forked
from tests.reference import cases as case
from tests.reference.referee import Settings, Trajectory, advantages, loss_and_gradient, score

LR, CLIP = 1e-3, 0.15  # a bound that some methods meet and some do not
FULL, LORA = {"kind": "full"}, {"kind": "lora", "rank": 4, "alpha": 8}
GRID = [
    ("everything", 1, 2, 100_000, FULL),
    ("everything", 2, 3, 128, FULL),
    ("gspo", 2, 0, 256, FULL),
    ("cispo", 2, 1, 500, FULL),
    ("kl_in_reward", 2, 2, 256, FULL),
    ("kl_in_reward", 1, 2, 500, LORA),
    ("everything", 2, 3, 128, LORA | {"targets": ["q_proj", "down_proj"]}),
]


class Referee:
    """The model in float64 and its AdamW: one rollout at a time, one process."""

    def __init__(self, checkpoint: Path, settings: Settings, recipe: Recipe):
        self.reference, self.settings = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float64).eval(), settings
        single = deepcopy(self.reference).float()  # adapters are drawn in the learner's numbers
        self.model = adapted(single, recipe.learner.adapter, recipe.seed).double()
        self.trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimiser = torch.optim.AdamW(self.trained, lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)

    def logp(self, model: torch.nn.Module, item: Trajectory) -> list[float]:
        return score(model, item, self.settings.temperature)[1].gather(1, torch.tensor(item.ids)[:, None])[:, 0].tolist()

    def step(self, given: Sequence[Trajectory], updates: int) -> tuple[float, float]:
        """Mean loss and largest gradient norm of a step of so many updates."""
        known = [replace(item, old_logp=self.logp(self.model, item), ref_logp=self.logp(self.reference, item)) for item in given]
        of_all = advantages(known, self.settings)
        size = len(known) // updates
        losses, norms = [], []
        for start in range(0, len(known), size):
            part = slice(start, start + size)
            loss, _ = loss_and_gradient(self.model, known[part], of_all[part], self.settings)
            losses.append(loss)
            norms.append(float(torch.nn.utils.clip_grad_norm_(self.trained, CLIP)))
            self.optimiser.step()
        return float(np.mean(losses)), max(norms)


def influences(model: torch.nn.Module, rows: Sequence[Row], temperature: float) -> list[torch.Tensor]:
    """Of one group's rows: autograd's inner product, through a head untied from the embedding, of each token's logprob with what they lead toward."""
    weight = model.get_output_embeddings().weight.detach().clone().requires_grad_()
    logps = []
    for row in rows:
        ids = torch.from_numpy(np.concatenate([row.prompt_ids, row.ids]).astype(np.int64))
        hidden = model.base_model(ids[None]).last_hidden_state[0, len(row.prompt_ids) - 1 : -1].detach()
        logp = torch.log_softmax(hidden @ weight.t() / temperature, -1)
        logps.append(logp.gather(1, torch.from_numpy(row.ids.astype(np.int64))[:, None])[:, 0])
    used = torch.from_numpy(np.unique(np.concatenate([row.ids for row in rows])).astype(np.int64))

    def slope(value: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(value, weight, retain_graph=True)[0][used]

    whole = slope(sum((row.toward * logp[torch.from_numpy(row.mask_T.copy())]).sum() for row, logp in zip(rows, logps, strict=True)))
    return [torch.stack([(slope(one) * whole).sum() for one in logp]) * temperature**2 for logp in logps]


@pytest.mark.parametrize(("method", "ranks", "zero", "micro_batch_tokens", "adapter"), GRID)
def test_p01_the_learner_agrees_with_the_referee(
    forked: Forked, tiny_checkpoint: Path, method: str, ranks: int, zero: int, micro_batch_tokens: int, adapter: dict[str, Any]
):
    settings = case.METHODS[method]
    learner_keys = {
        "ranks": ranks,
        "zero_stage": zero,
        "micro_batch_tokens": micro_batch_tokens,
        "lr": LR,
        "grad_clip": CLIP,
        "threads": 1,
        "logit_chunk_tokens": 64,
        "adapter": adapter,
    }
    recipes = {updates: case.recipe(settings, learner={**learner_keys, "updates_per_step": updates}) for updates in (1, 2)}
    referee = Referee(tiny_checkpoint, settings, recipes[1])
    learner = Learner(recipes[1], tiny_checkpoint, "cpu")
    first = prepare(case.groups(case.trajectories(referee.model.config.vocab_size, seed=0)), recipes[1], learner.measure).updates[0]
    rows = [replace(row, toward=(0.0, 1.0, 0.25)[index % 3]) for index, row in enumerate(first)]
    names = ["influence", "logp", "entropy"]
    together, alone = learner.measure([rows], names), learner.measure([rows], names[1:])
    for group in {row.group for row in rows}:
        members = [row for row in rows if row.group == group]
        for row, expected in zip(members, influences(referee.model, members, recipes[1].sampler.temperature), strict=True):
            np.testing.assert_allclose(
                together[row.id][0], expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max())
            )  # of sums that cancel
            np.testing.assert_allclose(together[row.id][1:], alone[row.id], atol=2e-6)
    for step, updates in enumerate((1, 2)):
        given = case.trajectories(referee.model.config.vocab_size, seed=step)
        batch = prepare(case.groups(given), recipes[updates], learner.measure)
        stats = learner.update(batch.updates, step)
        loss, norm = referee.step(given, updates)
        assert stats["loss"] == pytest.approx(loss, rel=1e-5, abs=1e-6)
        assert stats["grad_norm"] == pytest.approx(norm, rel=1e-5)
    weights = {name: packed.tensor() for name, packed in forked.get(learner.weights()[0]).items()}
    learner.stop()
    # Where a gradient is near zero, AdamW's step is its sign: single weights may differ by a part of lr, all of them together may not.
    expected = {name: tensor for name, tensor in Merged(referee.model).items() if name in weights}
    off = {name: weights[name] - expected[name] for name in weights}
    assert all(difference.abs().max() < 0.2 * LR for difference in off.values())
    norms = [torch.stack([tensor.norm() for tensor in found]).norm() for found in (off.values(), expected.values())]
    assert norms[0] <= 1e-5 * norms[1]
    begun = referee.reference.state_dict()
    moved = {name for name in weights if not torch.equal(weights[name], begun[name].float())}
    assert moved == {
        name
        for name in weights
        if adapter == FULL or (name.endswith("_proj.weight") and any(end in name for end in adapter.get("targets", [""])))
    }


class OpenRank(LearnerRank):
    """A rank that shows the gradient of its first update: AdamW's first moment is a tenth of it.

    Its buckets are smaller than weight matrices, as real ones are than an embedding.
    """

    def __init__(self, *arguments: Any):
        deepspeed_config._SHARDING["reduce_bucket_size"] = 1000
        super().__init__(*arguments)

    def gradient(self) -> torch.Tensor:
        from deepspeed.utils import safe_get_full_optimizer_state

        moments = {name: safe_get_full_optimizer_state(weight, "exp_avg") for name, weight in self._engine.module.named_parameters()}
        return torch.cat([moments[name].flatten().float() * 10 for name in sorted(moments)])


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_p43_in_bf16_64_micro_batches_and_any_sharding_give_the_gradient_of_one(
    forked: Forked, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    """Adding 64 gradients up in bfloat16 is off by 1.0 to 1.2 % here, whose tolerance is 0.8 %: the arithmetic of bfloat16 in one pass."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 60, 64)
    rows = [
        Row(
            id=str(index),
            prompt_ids=rng.integers(5, 40, rng.integers(2, 12)).astype(np.int32),
            ids=rng.integers(5, 40, length).astype(np.int32),
            engine_logp=np.full(length, -3.7, np.float32),
            advantage_T=rng.normal(),
            weight_T=1.0 / int(lengths.sum()),
        )
        for index, length in enumerate(lengths)
    ]

    def gradient(ranks: int, zero: int, micro_batch_tokens: int) -> torch.Tensor:
        keys = {"ranks": ranks, "zero_stage": zero, "micro_batch_tokens": micro_batch_tokens, "threads": 1, "logit_chunk_tokens": 64}
        recipe = Recipe.model_validate(
            {"model": {"dtype": "bf16"}, "learner": keys | {"grad_clip": 1e9}, "objective": {"old_logprobs": "learner"}}
        )
        learner = Learner(recipe, tiny_checkpoint, "cpu")
        learner.update(measured([rows], recipe.objective, learner.measure), 0)
        found = learner._all("gradient")[0]
        learner.stop()
        return found

    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.bfloat16).double().eval()  # its weights as bfloat16 has them
    for row in rows:
        ids = torch.from_numpy(np.concatenate([row.prompt_ids, row.ids]).astype(np.int64))
        logp = model(ids[None]).logits[0].log_softmax(-1)[:-1].gather(1, ids[1:, None])[len(row.prompt_ids) - 1 :]
        (-logp * row.advantage_T[0] * row.weight_T[0]).sum().backward()  # every ratio is 1
    exact = torch.cat([weight.grad.flatten().float() for _, weight in sorted(model.named_parameters())])

    monkeypatch.setattr(rl.learner, "LearnerRank", OpenRank)
    pieces = gradient(1, 1, micro_batch_tokens=1)
    assert off(pieces, gradient(1, 2, micro_batch_tokens=100_000)) < 0.008
    assert off(pieces, exact) < 0.008
    for ranks, zero in [(2, 2), (2, 3)]:
        assert off(gradient(ranks, zero, micro_batch_tokens=1), pieces) < 1e-5, (ranks, zero)  # P1's own tolerance
