"""Which rollouts of a group train: hand numbers for PODS (arXiv 2504.13818) and GFPO (arXiv 2508.09726), and brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from recipes.advantages import Advantage, Select, Shortest
from rl.advantage import advantages
from rl.selection import selected

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
    settings = Advantage(scale="group")
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


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="expected all, max_variance, shortest or efficient"):
        selected(RIGHT, LENGTHS, Shortest.model_construct(kind="longest", keep=2))


def test_selected_rollouts_that_earned_the_same_teach_exactly_nothing_whatever_the_others_earned():
    reward_PG = np.array([[0.1, 0.1, 0.1, 0.9, 0.0]])
    kept_PG = np.array([[True, True, True, False, False]])
    for scale in ("none", "group", "batch"):
        assert not advantages(reward_PG, reward_PG > 2, np.ones((1, 5)), Advantage(scale=scale), kept_PG).any()
