"""From judged groups to what the learner trains on: advantages, the split into updates, one weight per token.

Everything here is a number per rollout, computed on the controller; the learner never learns which method it serves.
"""

from __future__ import annotations

import numpy as np

from recipes.schema import Recipe
from rl.advantage import advantages
from rl.objective import aggregation_weights
from rl.policy import Row
from rollout.types import Group

Batch = list[list[Row]]  # rows by optimiser update


def prepare(groups: list[Group], recipe: Recipe) -> Batch:
    """Rows for each of `learner.updates_per_step` updates; fills `rollout.advantage`.

    Groups stay whole and are split evenly; a step that kept fewer groups than updates makes fewer updates.
    """
    if not groups:
        return []
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    shape = len(groups), recipe.sampler.group_size
    advantage_PG = advantages(
        np.array([rollout.reward for rollout in rollouts]).reshape(shape),
        np.array([rollout.right for rollout in rollouts]).reshape(shape),
        np.array([rollout.tokens for rollout in rollouts]).reshape(shape),
        recipe.advantage,
    )
    for rollout, advantage in zip(rollouts, advantage_PG.flatten(), strict=True):
        rollout.advantage = float(advantage)
    parts = np.array_split(np.arange(len(groups)), min(recipe.learner.updates_per_step, len(groups)))
    return [_rows([groups[index] for index in part], recipe) for part in parts]


def _rows(groups: list[Group], recipe: Recipe) -> list[Row]:
    pairs = [(group, rollout) for group in groups for rollout in group.rollouts]
    weight_B = aggregation_weights(np.array([rollout.tokens for _, rollout in pairs]), recipe.objective.aggregate, recipe.budget.limit)
    return [
        Row(
            prompt_ids=np.asarray(group.request.prompt_ids, np.int32),
            ids=rollout.completion.ids,
            engine_logp=rollout.completion.logprobs,
            advantage=rollout.advantage,
            weight=float(weight),
        )
        for (group, rollout), weight in zip(pairs, weight_B, strict=True)
    ]
