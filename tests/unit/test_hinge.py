"""DRPO's hinge on how far an update's tokens moved (arXiv 2510.04474), and KL-Cov's hold: both are nothing in a step's first update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.objectives import Hinge, Objective
from recipes.schema import Recipe
from rl.algorithm import prepare
from rl.learner import Learner
from rl.objective import Tokens, loss, pull
from tests.inprocess import libraries
from tests.probes import groups

Weights = dict[str, torch.Tensor]


@pytest.mark.parametrize(("kl", "factor"), [(5e-5, 0.0), (1e-4, 0.0), (3e-4, 0.2), (-1.0, 0.0)])
def test_the_worked_distances_cost_the_worked_factors(kl, factor):
    assert pull(kl * 50, 50, Hinge(weight=1000)) == pytest.approx(factor / 50, abs=1e-12)
    assert pull(0.0, 0, Hinge(weight=1000)) == 0


def test_every_token_is_pulled_back_alike_whatever_its_weight():
    logp, old = torch.tensor([-1.0, -2.0, float("nan")], requires_grad=True), torch.tensor([-0.5, -1.0, -1.0])
    mask, weight = torch.tensor([True, True, False]), torch.tensor([0.0, 0.7, 0.3])
    tokens = Tokens(mask, weight, torch.zeros(3), torch.zeros(3, dtype=torch.int64), logp, torch.zeros(3), old, old)
    total = loss(tokens, Objective(), 0.0, pull=0.1).total
    total.backward()
    assert total.item() == pytest.approx(0.1 * (0.5 + 1.0))
    assert logp.grad.tolist() == pytest.approx([-0.1, -0.1, 0.0])


def learned(checkpoint: Path, extra: dict[str, Any], learner: dict[str, Any]) -> Weights:
    """Weights behind a step of two updates."""
    keys = {"lr": 0.01, "updates_per_step": 2, "threads": 1, "zero_stage": 0} | learner
    recipe = Recipe.model_validate({"sampler": {"prompts": 2, "group_size": 4}, "learner": keys} | extra)
    with libraries():
        pupil = Learner(recipe, checkpoint, "cpu")
        pupil.update(prepare(groups(), recipe, pupil.measure).updates, 0)
        return {name: packed.tensor() for name, packed in pupil.weights()[0].value.items()}


@pytest.mark.parametrize(
    "extra", [{"objective": {"hinge": {"weight": 1000.0, "slack": 0.0}}}, {"credit": {"kind": "kl_cov", "share": 1.0, "weight": 50.0}}]
)
def test_the_first_update_of_a_step_pays_nothing_and_micro_batches_do_not_change_what_the_second_pays(tiny_checkpoint, extra):
    def apart(one: Weights, other: Weights) -> float:
        return float(torch.cat([(one[name] - other[name]).flatten() for name in one]).abs().mean())

    once = {"updates_per_step": 1}
    assert apart(learned(tiny_checkpoint, extra, once), learned(tiny_checkpoint, {}, once)) == 0
    held, pieces, loose = (learned(tiny_checkpoint, *how) for how in ((extra, {}), (extra, {"micro_batch_tokens": 16}), ({}, {})))
    assert apart(held, pieces) < 0.01 * apart(held, loose)
