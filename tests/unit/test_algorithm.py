"""Groups to rows: whole groups in even updates, one denominator for each update."""

from __future__ import annotations

import numpy as np
import pytest

from recipes.schema import Recipe
from rl.algorithm import prepare
from rollout.types import Completion, Group, Problem, Request, Rollout


def group(index: int, rewards: list[float], tokens: list[int]) -> Group:
    request = Request(f"r{index}", Problem(f"p{index}", "", ""), (1, 2, 3), len(rewards), 50, 1.0, 1.0, 0)
    rollouts = []
    for sample, (reward, length) in enumerate(zip(rewards, tokens, strict=True)):
        completion = Completion(np.full(length, index, np.int32), np.zeros(length, np.float32), "stop", np.zeros(length, np.int32))
        rollouts.append(Rollout(f"{index}-{sample}", sample, completion, "", None, reward=reward))
    return Group(request, rollouts)


def recipe(updates: int) -> Recipe:
    return Recipe.model_validate({"sampler": {"prompts": 4, "group_size": 4}, "learner": {"updates_per_step": updates}})


def test_dler_rows_carry_the_hand_computed_advantages_and_sum_to_one_denominator():
    groups = [group(0, [1, 0, 0, 0], [10, 40, 40, 40]), group(1, [1, 1, 1, 0], [10, 10, 20, 40])]
    [rows] = prepare(groups, recipe(1))
    expected = [1.7321, -0.5774, -0.5774, -0.5774, 0.5774, 0.5774, 0.5774, -1.7321]  # core.md 1.9, T1
    np.testing.assert_allclose([row.advantage for row in rows], expected, atol=1e-4)
    np.testing.assert_allclose([rollout.advantage for item in groups for rollout in item.rollouts], expected, atol=1e-4)
    assert sum(row.weight * len(row.ids) for row in rows) == pytest.approx(1.0)
    assert [len(row.ids) for row in rows] == [10, 40, 40, 40, 10, 10, 20, 40]


@pytest.mark.parametrize(("kept", "updates"), [(4, 2), (3, 2), (1, 2), (5, 4)])
def test_groups_stay_whole_and_every_update_has_its_own_denominator(kept: int, updates: int):
    batch = prepare([group(index, [1, 0, 0, 1], [3, 4, 5, 6]) for index in range(kept)], recipe(updates))
    assert len(batch) == min(updates, kept)
    owners = [{int(row.ids[0]) for row in rows} for rows in batch]
    assert sum(map(len, owners)) == kept == len(set.union(*owners))
    assert max(map(len, owners)) - min(map(len, owners)) <= 1
    for rows in batch:
        assert sum(row.weight * len(row.ids) for row in rows) == pytest.approx(1.0)


def test_a_step_without_groups_makes_no_update():
    assert prepare([], recipe(2)) == []
