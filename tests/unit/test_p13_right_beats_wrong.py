"""P13: being wrong is never better for being short, and being right always beats being wrong, for every reward that is shipped."""

from __future__ import annotations

import re
from itertools import combinations_with_replacement

import numpy as np
import pytest

from recipes.loader import RecipeError, load, shipped
from recipes.schema import Advantage
from rewards.functions import Asked, TrainerState
from rewards.terms import Facts, rewards
from rl.advantage import advantages
from rollout.budget import Held, group_limit

REFERENCE = {"reference_tokens": 20.0, "reference_spread": 5.0, "reference_accuracy": 0.75}
TEXTS = ["a thought</think>\\boxed{1}", "no box"]  # well formed or not, behind a prompt that opened the thinking block


def reward_G(recipe, rollouts) -> np.ndarray:
    """Rewards of a group given as (right, finished, tokens, text)."""
    right_G, finished_G = (np.array([rollout[index] for rollout in rollouts], dtype=bool) for index in (0, 1))
    tokens_G = np.array([rollout[2] for rollout in rollouts])
    facts = Facts(
        right_G=right_G,
        finished_G=finished_G,
        tokens_G=tokens_G,
        thinking_G=tokens_G // 2,
        limit=group_limit(Held(recipe.budget), recipe.budget.limit, tokens_G, right_G, finished_G),
        unit=recipe.budget.limit,
        asked=Asked(
            prompt="1<think>",
            messages=[{"role": "user", "content": "1"}],
            completions=[rollout[3] for rollout in rollouts],
            completion_ids=[[0] * rollout[2] for rollout in rollouts],
            columns={"problem": "1", "answer": "1", "level": 0} | REFERENCE,
            state=TrainerState(0, 1),
            ids=[str(index) for index in range(len(rollouts))],
        ),
    )
    terms = rewards(recipe.reward, facts)
    return sum(terms.values())


@pytest.mark.parametrize("name", [name for name in shipped() if name != "evaluate" and not load(name).waive])
@pytest.mark.parametrize(
    "reward",
    [
        "",
        "reward=[{kind: verdict}, {kind: format, weight: 0.9}]",
        "reward=[{kind: verdict}, {kind: truncate, keep: 0.2}, {kind: format, weight: 0.19}]",
        "reward=[{kind: verdict}, {kind: truncate}, {kind: format, weight: 0.9, gate: right}]",
    ],
)
def test_p13_right_beats_wrong_and_length_never_pays_a_wrong_answer(name: str, reward: str):
    recipe = load(name, "tiny", [reward, *(["select={kind: all}"] if name == "gfpo" else [])] if reward else [])
    ties = [term for term in recipe.reward if term.erases()]
    limit = recipe.budget.limit
    kinds = [(right, True, tokens, text) for right in (True, False) for tokens in (1, limit // 2, limit) for text in TEXTS]
    kinds += [(False, False, limit, TEXTS[1])]
    for number, some in enumerate(combinations_with_replacement(kinds, 3)):
        rollouts = some[:: 1 - 2 * (number % 2)]  # in either order
        reward_each = reward_G(recipe, rollouts)
        tokens = np.array([rollout[2] for rollout in rollouts])
        right = np.array([rollout[0] for rollout in rollouts])
        own_limit = group_limit(Held(recipe.budget), recipe.budget.limit, tokens, right, np.array([rollout[1] for rollout in rollouts]))
        within = right & (tokens <= own_limit)
        if within.any() and not right.all() and not any(term.erases() == "by degrees" for term in ties):
            assert reward_each[within].min() > reward_each[~right].max(), rollouts
        if right.any() and not right.all():  # where truncation keeps nothing, a right answer beyond its limit is worth a wrong one
            assert reward_each[right].min() > reward_each[~right].max() - bool(ties) * 1e-9, rollouts
        advantage = advantages(reward_each[None], right[None], tokens[None], Advantage(scale="none", boost=recipe.advantage.boost))[0]
        for text in TEXTS:  # same form, so only length differs
            wrong = np.array([not rollout[0] and rollout[3] == text for rollout in rollouts])
            assert not wrong.any() or np.ptp(advantage[wrong]) < 1e-12, rollouts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("reward=[{kind: verdict}, {kind: format, weight: 1.0}]", "right must beat wrong"),
        ("reward=[{kind: verdict, weight: 0.5}, {kind: format, weight: 0.3}, {kind: format, weight: 0.3}]", "right must beat wrong"),
        ("reward=[{kind: verdict}, {kind: truncate}, {kind: truncate}]", "two truncate terms"),
        (
            "reward=[{kind: verdict}, {kind: truncate}, {kind: format, weight: 0.01}]",
            "wrong answers may earn 0.01, right ones no more than 0: right must beat wrong",
        ),
        ("reward=[{kind: verdict}, {kind: truncate, keep: 0.1}, {kind: format, weight: 0.1}]", "right must beat wrong"),
        ("advantage.boost=-0.1", "advantage.boost"),
        ("reward=[{kind: verdict, weight: 1.0e-9}]", "right must beat wrong; raise the verdict's weight"),
        (
            "reward=[{kind: verdict, weight: 1.0e308}, {kind: verdict, weight: 1.0e308}, {kind: truncate}]",
            "beyond what any number here may be",
        ),  # their sum is infinite
        (
            "select={kind: shortest, keep: 2} reward=[{kind: verdict}, {kind: format}]",
            "select.kind: shortest with format, a term that tells wrong answers apart",
        ),
        ("reward=[{kind: verdict}, {kind: function, name: 'own:f'}]", "wrong answers may earn 1, right ones no more than 1:"),
        (
            "reward=[{kind: verdict}, {kind: function, name: 'own:f', low: -1, high: 0}]",
            "wrong answers may earn 0, right ones no more than 0:",
        ),
        (
            "reward=[{kind: verdict}, {kind: function, name: 'own:f', gate: right, low: -1}]",
            "right ones no more than 0: right must beat wrong",
        ),
        ("reward=[{kind: verdict}, {kind: function, name: 'own:f', weight: -1.0}]", "wrong answers may earn 0, right ones no more than 0:"),
        ("reward=[{kind: verdict}, {kind: truncate}, {kind: function, name: 'own:f', gate: right, low: -0.1}]", "no more than -0.1"),
    ],
)
def test_p13_a_recipe_in_which_wrong_could_win_is_refused(change: str, message: str):
    with pytest.raises(RecipeError, match=message):
        load("dler", "tiny", re.split(r" (?=reward=)", change))
    load("dler", "tiny", ["reward=[{kind: verdict}, {kind: format, weight: 5.0, gate: right}]"])


GRID = [1.0, 0.1, 0.01, 0.001]


@pytest.mark.parametrize("right", [[1] * 8, [0] * 8, [1, 1, 1, 1, 0, 0, 0, 0]], ids=["all right", "all wrong", "mixed"])
def test_p14_doubling_the_length_coefficient_doubles_the_length_part_of_the_advantage(right):
    """The grid of measurement M4: lengths 900..1600, reward = verdict - a x length / 1000."""
    length, tokens = np.linspace(0.9, 1.6, 8), np.full((1, 8), 9)
    right_PG = np.array([right])

    def length_part(a: float, scale: str) -> np.ndarray:
        with_length, without = (advantages(right_PG - c * length, right_PG == 1, tokens, Advantage(scale=scale)) for c in (a, 0.0))
        return with_length - without

    for a in GRID:
        np.testing.assert_allclose(length_part(2 * a, "none"), 2 * length_part(a, "none"), rtol=1e-9)
        np.testing.assert_allclose(length_part(a, "none"), -a * (length - length.mean())[None], rtol=1e-9)
    if len(set(right)) == 1:  # the rescaled variant fails: a thousandth of the coefficient has the same effect
        assert length_part(GRID[0], "group")[0, 0] == pytest.approx(length_part(GRID[-1], "group")[0, 0])
        assert length_part(GRID[-1], "group")[0, 0] == pytest.approx(1.5275, abs=1e-3)


def test_p13_a_waiver_lets_a_recipe_in_and_says_by_how_much_wrong_may_win():
    reward = "reward=[{kind: verdict, weight: 0.6}, {kind: format, weight: 0.9}]"
    with pytest.raises(RecipeError, match=r"waive: \[right_beats_wrong\]"):
        load("dler", "tiny", [reward])
    waived = load("dler", "tiny", [reward, "waive=[right_beats_wrong]"])
    assert waived.margin == pytest.approx(-0.3)
