"""Which rollouts of a group train: hand numbers for PODS (arXiv 2504.13818) and GFPO (arXiv 2508.09726), and brute force."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from recipes.advantages import Advantage, Select, Shortest, TokenChoice
from recipes.loader import load
from recipes.schema import Recipe
from rl.advantage import advantages
from rl.algorithm import weighed
from rl.policy import Row
from rl.selection import chosen_tokens, selected

select = TypeAdapter(Select).validate_python
PODS = np.array([[0, 0.2, 0.9, 1, 0.5, 0.1]])
RIGHT, LENGTHS = np.array([[1.0, 1, 0, 1]]), np.array([[100, 300, 200, 400]])


def kept(reward_PG, tokens_PG=None, **settings) -> list[int]:
    tokens_PG = np.ones(reward_PG.shape) if tokens_PG is None else tokens_PG
    return np.flatnonzero(selected(reward_PG, tokens_PG, select(settings))[0]).tolist()


@pytest.mark.parametrize(("keep", "expected", "variance"), [(2, [0, 3], 0.25), (3, [0, 2, 3], 0.2022), (4, [0, 2, 3, 5], 0.2050)])
def test_max_variance_subsets_have_the_published_variance(keep, expected, variance):  # of 3 there are two: {0, .9, 1} and {0, .1, 1}
    assert kept(PODS, kind="max_variance", keep=keep) == expected
    assert np.var(PODS[0, expected]) == pytest.approx(variance, abs=1e-4)


def test_statistics_of_the_subset_differ_from_those_of_the_group():
    kept_PG = selected(PODS, np.ones(PODS.shape), select({"kind": "max_variance", "keep": 4}))
    flags = np.zeros(PODS.shape, bool)
    subset = advantages(PODS, flags, np.ones(PODS.shape), Advantage(scale="group"), kept_PG)
    whole = advantages(PODS, flags, np.ones(PODS.shape), Advantage(scale="group"))
    np.testing.assert_allclose(subset, [[-1.1041, 0, 0.8833, 1.1041, 0, -0.8833]], atol=3e-4)  # published with 1e-4 added to the spread
    np.testing.assert_allclose(whole[0, [3, 2, 5, 0]], [1.4237, 1.1648, -0.9060, -1.1648], atol=5e-4)


def test_two_right_of_eight_give_the_balanced_four():
    assert kept(np.array([[0, 1.0, 0, 0, 0, 1, 0, 0]]), kind="max_variance", keep=4) == [1, 5, 6, 7]


def test_rounding_decides_no_tie():
    noise_PG = 3e-8 * np.array([[2, 0, 1, 0, 2, 1]])
    for settings in ({"kind": "efficient", "keep": 2}, {"kind": "max_variance", "keep": 3}):
        for reward_PG in (np.full((1, 6), 0.3), np.array([[0.3, 1, 0.3, 0.3, 1, 1]])):
            assert kept(reward_PG + noise_PG, **settings) == kept(reward_PG, **settings)


@given(
    st.lists(st.integers(0, 1000).map(lambda parts: parts / 1000), min_size=2, max_size=7), st.data()
)  # rewards that rounding keeps apart
def test_no_subset_has_more_variance(rewards, data):
    keep = data.draw(st.integers(2, len(rewards)))
    chosen = kept(np.array([rewards]), kind="max_variance", keep=keep)
    best = max(np.var(subset) for subset in combinations(rewards, keep))
    assert len(chosen) == keep and np.var([rewards[index] for index in chosen]) == pytest.approx(best, abs=1e-12)


def test_gfpo_keeps_the_shortest_or_the_most_efficient_and_takes_their_statistics():
    shortest, efficient = (selected(RIGHT, LENGTHS, select({"kind": rule, "keep": 3})) for rule in ("shortest", "efficient"))
    assert shortest.tolist() == [[True, True, True, False]] and efficient.tolist() == [[True, True, False, True]]
    for settings in (Advantage(scale="group"), Advantage(scale="batch")):
        np.testing.assert_allclose(advantages(RIGHT, RIGHT == 1, LENGTHS, settings, shortest), [[0.7071, 0.7071, -1.4142, 0]], atol=1e-4)
        assert not advantages(RIGHT, RIGHT == 1, LENGTHS, settings, efficient).any()


def test_ties_go_to_the_earlier_sample_and_all_keeps_all():
    same = np.ones((1, 4))
    assert kept(same, np.array([[5, 5, 5, 5]]), kind="shortest", keep=2) == [0, 1]
    assert kept(same, kind="max_variance", keep=2) == [2, 3]  # no rollout from below, by the published scan
    assert kept(same) == [0, 1, 2, 3]


@pytest.mark.parametrize("rule", ["shortest", "efficient"])
def test_ties_among_many_go_to_the_earlier_samples(rule):
    """More rows than any sort handles as a special case, and every prompt by itself."""
    rewards, tokens = np.ones((2, 64)), np.full((2, 64), 7)
    tokens[1, 40:] = 3
    assert selected(rewards, tokens, select({"kind": rule, "keep": 5})).nonzero()[1].tolist() == [0, 1, 2, 3, 4, 40, 41, 42, 43, 44]


def test_a_token_is_the_least_that_a_reward_is_divided_by():
    assert kept(np.array([[1.0, 1.5, 0.0]]), np.array([[1, 2, 0]]), kind="efficient", keep=2) == [0, 1]
    assert kept(np.array([[1.0, 1.5, 0.9]]), np.array([[1, 2, 1]]), kind="efficient", keep=2) == [0, 2]


def test_of_losses_the_shorter_are_the_more_efficient():
    assert kept(np.array([[-1.0, -1.0, -1.0, 0.5]]), np.array([[9, 2, 5, 90]]), kind="efficient", keep=3) == [1, 2, 3]


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="expected all, max_variance, shortest or efficient"):
        selected(RIGHT, LENGTHS, Shortest.model_construct(kind="longest", keep=2))


def test_selected_rollouts_that_earned_the_same_teach_exactly_nothing_whatever_the_others_earned():
    reward_PG = np.array([[0.1, 0.1, 0.1, 0.9, 0.0]])
    kept_PG = np.array([[True, True, True, False, False]])
    for scale in ("none", "group", "batch"):
        assert not advantages(reward_PG, reward_PG > 2, np.ones((1, 5)), Advantage(scale=scale), kept_PG).any()


def row(id_: str, entropy: list[float], advantage: float, mask: list[bool] | None = None) -> Row:
    ids = np.arange(len(entropy), dtype=np.int32)
    logp = np.zeros(len(entropy), np.float32)
    given = np.ones(len(entropy), dtype=bool) if mask is None else np.array(mask)
    return Row(id_, np.array([1], np.int32), ids, logp, np.array(advantage), mask_T=given, entropy=np.array(entropy, np.float32))


choose = TypeAdapter(TokenChoice).validate_python


@pytest.mark.parametrize(
    ("keep", "values", "variance"), [(2, [1.732, -1.732], 3.0), (4, [1.732, -1.732, 0.577, -0.577], 1.6667), (6, None, 1.2222)]
)
def test_d3s_chooses_the_advantages_of_largest_variance_over_the_step(keep, values, variance):
    """core.md 3.2: three groups of four."""
    advantage_PG = np.array([[1.732, *[-0.577] * 3], [0.0] * 4, [0.577, 0.577, 0.577, -1.732]])
    kept_PG = selected(advantage_PG.reshape(1, 12), np.ones((1, 12)), select({"kind": "max_variance", "of": "advantage", "keep": keep}))
    chosen = advantage_PG.flatten()[kept_PG[0]]
    assert np.var(chosen) == pytest.approx(variance, abs=1e-3)
    assert values is None or sorted(chosen) == pytest.approx(sorted(values))
    whole_PG = selected(advantage_PG, np.ones((3, 4)), select({"kind": "max_variance", "of": "advantage", "scope": "batch", "keep": 1}))
    assert np.var(advantage_PG[whole_PG]) == pytest.approx(max(np.var(part) for part in combinations(advantage_PG.flatten(), 3)))


def test_d3s_keeps_the_tokens_of_highest_importance_of_the_whole_update():
    """core.md 3.2: keys .15, 1.8, .75 and 1.0, .15, .45, of which half; and of two rollouts of three tokens."""
    half = choose({"kind": "importance", "keep": 0.5})
    first = chosen_tokens([row("a", [0.1, 1.2, 0.5], 1.5), row("b", [2.0, 0.3, 0.9], 0.5)], half, {"a", "b"})
    second = chosen_tokens([row("a", [0.1, 1.2, 0.5], 1.7321), row("b", [2.0, 0.3, 0.9], -0.5774)], half, {"a", "b"})
    for kept in (first, second):
        assert np.flatnonzero(np.concatenate(kept)).tolist() == [1, 2, 3]
    by_entropy = chosen_tokens(
        [row("a", [0.1, 1.2, 0.5], 1.5), row("b", [2.0, 0.3, 0.9], 0.5)], choose({"kind": "entropy", "keep": 0.5}), {"a", "b"}
    )
    assert np.flatnonzero(np.concatenate(by_entropy)).tolist() == [1, 3, 5]


def test_the_fifth_of_highest_entropy():
    """core.md 3.3: entropies .1 to 1.0, whose 80 % quantile is .82: two tokens."""
    [kept] = chosen_tokens([row("a", [index / 10 for index in range(1, 11)], 1.0)], choose({"kind": "entropy", "keep": 0.2}), {"a"})
    assert np.flatnonzero(kept).tolist() == [8, 9]
    [kept] = chosen_tokens([row("a", [1.0] * 25, 1.0)], choose({"kind": "entropy", "keep": 0.28}), {"a"})
    assert np.flatnonzero(kept).tolist() == [*range(7)]  # 0.28 x 25 is 7, in floats a little more


def test_of_rollouts_that_a_selection_left_out_no_token_is_chosen_and_none_is_counted():
    kept = chosen_tokens([row("a", [0.1, 1.2, 0.5, 0.3], 1.5), row("b", [2.0] * 4, 0.5)], choose({"kind": "entropy", "keep": 0.5}), {"a"})
    assert [part.tolist() for part in kept] == [[False, True, True, False], [False] * 4]


@given(st.lists(st.lists(st.tuples(st.floats(0, 5), st.booleans()), min_size=1, max_size=9), min_size=1, max_size=6), st.floats(0.01, 1))
def test_a_share_of_the_tokens_that_may_train_is_met_and_no_other_ranks_above(rows, keep):
    made = [
        row(str(index), [h for h, _ in tokens], (-1) ** index * (index + 0.5), [m for _, m in tokens]) for index, tokens in enumerate(rows)
    ]
    kept = np.concatenate(chosen_tokens(made, choose({"kind": "importance", "keep": keep}), {one.id for one in made}))
    mask = np.concatenate([one.mask_T for one in made])
    score = np.concatenate([np.abs(one.advantage_T) * one.entropy for one in made])
    assert not (kept & ~mask).any() and kept.sum() == math.ceil(keep * mask.sum() - 1e-9)
    if kept.any() and (mask & ~kept).any():
        assert score[kept].min() >= score[mask & ~kept].max()


@pytest.mark.parametrize(("denominator", "weight"), [("kept", 1 / 3), ("all", 1 / 6)])
def test_a_token_that_is_not_kept_weighs_nothing_and_the_denominator_is_said(denominator, weight):
    recipe = Recipe.model_validate(
        {"tokens": {"kind": "importance", "keep": 0.5, "denominator": denominator}, "objective": {"aggregate": "token_mean"}}
    )
    first, second = weighed([row("a", [0.1, 1.2, 0.5], 1.5), row("b", [2.0, 0.3, 0.9], 0.5)], recipe, {"a", "b"})
    np.testing.assert_allclose(np.concatenate([first.weight_T, second.weight_T]), np.array([0, 1, 1, 1, 0, 0]) * weight)
    assert first.mask_T.all() and first.entropy is None  # the others stay in ratio and statistics


@pytest.mark.parametrize(("denominator", "loss"), [("all", -0.25), ("kept", -1.0)])
def test_a_loss_of_minus_1_a_token_says_what_it_is_a_mean_over(denominator, loss):
    """structured.md 10.2: of eight entropies .9 and 1.2 lie above the 80 % quantile, .82; no padding is among them."""
    recipe = Recipe.model_validate({"tokens": {"kind": "entropy", "denominator": denominator}, "objective": {"aggregate": "token_mean"}})
    entropies = [0.02, 0.05, 0.1, 0.3, 0.4, 0.7, 0.9, 1.2]
    given = [row("a", [*entropies, 9.0], 1.0, [True] * 8 + [False]), row("none", [9.0], 1.0, [False])]
    rows = weighed(given, recipe, {one.id for one in given})
    assert np.flatnonzero(rows[0].weight_T).tolist() == [6, 7] and not rows[1].weight_T.any()
    assert sum(float(-one.weight_T.sum()) for one in rows) == pytest.approx(loss)


def test_shares_on_a_schedule_reach_their_values():
    """core.md 3.2: a quarter of the way from 4 to 8 rollouts 5, from .2 to 1 of the tokens .4."""
    overrides = ["train.steps=101", "sampler.group_size=8"]
    recipe = load("d3s", "tiny", overrides)
    assert [(recipe.at(step).select.keep, round(recipe.at(step).tokens.keep, 6)) for step in (0, 25, 100, 999)] == [
        (4, 0.2),
        (5, 0.4),
        (8, 1.0),
        (8, 1.0),
    ]


def test_a_choice_of_tokens_without_a_measured_entropy_is_an_error():
    bare = replace(row("a", [0.1], 1.0), entropy=None)
    with pytest.raises(ValueError, match="row a: tokens are chosen by entropy, and none was measured"):
        chosen_tokens([bare], choose({"kind": "entropy"}), {bare.id})


def test_a_choice_that_would_compare_rewards_of_several_prompts_is_refused():
    with pytest.raises(ValueError, match="scope: batch compares rollouts of several prompts"):
        select({"kind": "max_variance", "keep": 2, "scope": "batch"})
