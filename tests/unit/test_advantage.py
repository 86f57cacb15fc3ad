"""Hand numbers: DLER (arXiv 2510.15110) on eight rollouts, and R = [1, 0, 0, 0] under every estimator; the bounds are promise P4."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recipes.schema import Advantage
from rl.advantage import advantages, centre, scale

REWARD = np.array([[1, 0, 0, 0], [1, 1, 1, 0]], dtype=float)
TOKENS = np.array([[10, 40, 40, 40], [10, 10, 20, 40]])
ALL = np.ones((2, 4), dtype=bool)
CENTRES = ["group", "leave_one_out"]
SCALES = ["none", "group", "batch", "batch_tokens", "batch_rewards"]
PAIRS = [(kind, spread) for kind in CENTRES for spread in SCALES if (kind, spread) != ("leave_one_out", "batch_rewards")]  # refused


def run(reward_PG, tokens_PG=None, right_PG=None, **settings):
    tokens_PG = np.full(reward_PG.shape, 7) if tokens_PG is None else tokens_PG
    right_PG = np.zeros(reward_PG.shape, dtype=bool) if right_PG is None else right_PG
    return advantages(reward_PG, right_PG, tokens_PG, Advantage(**settings))


def bound(spread, shape, all_tokens):
    """sqrt(n - 1) of the n things compared (promise P4)."""
    P, G = shape
    return np.sqrt({"none": G, "group": G, "batch": P * G, "batch_rewards": P * G, "batch_tokens": all_tokens}[spread] - 1)


def lone(winner, losers, peers, failure):
    """A group with one success above a group with one failure, as T1 writes them."""
    return [[winner] + [losers] * 3, [peers] * 3 + [failure]]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"scale": "none"}, lone(0.75, -0.25, 0.25, -0.75)),
        ({"scale": "group", "ddof": 1}, lone(1.5, -0.5, 0.5, -1.5)),
        ({"scale": "group"}, lone(1.7320, -0.5773, 0.5773, -1.7320)),
        ({"scale": "batch"}, lone(1.7321, -0.5774, 0.5774, -1.7321)),
        ({"scale": "batch_tokens", "ddof": 1}, lone(2.5339, -0.1267, 1.2036, -1.4570)),
        ({"scale": "batch_tokens"}, lone(2.5400, -0.1270, 1.2065, -1.4605)),
        ({"scale": "batch_rewards", "ddof": 1}, lone(1.4029, -0.4676, 0.4676, -1.4029)),
        ({"scale": "batch_tokens", "ddof": 1, "boost": 0.1}, lone(2.6339, -0.1267, 1.3036, -1.4570)),
        ({"scale": "none", "centre": "leave_one_out"}, lone(1, -1 / 3, 1 / 3, -1)),
    ],
)
def test_every_estimator_gives_its_published_numbers(settings, expected):
    np.testing.assert_allclose(run(REWARD, TOKENS, REWARD == 1, **settings), expected, atol=1e-4)


def test_the_statistics_behind_the_token_weighted_numbers():  # token mean -.20238
    centred_PG = centre(REWARD, "group", ALL)
    advantage_PG = scale(centred_PG, "batch_tokens", TOKENS, REWARD, ddof=1, kept_PG=ALL)
    assert np.average(centred_PG, weights=TOKENS) == pytest.approx(-0.20238, abs=1e-5)
    assert np.average(advantage_PG, weights=TOKENS) == pytest.approx(0, abs=1e-12)


def test_dler_normalises_over_the_batch_not_the_group():
    reward_PG = np.array([[1, 0, 0, 0], [1, 1, 0, 0]], dtype=float)
    ratio = run(reward_PG, scale="batch")[0, 0] / run(reward_PG, scale="batch")[1, 0]
    assert ratio == pytest.approx(0.75 / 0.5)  # under the group's spread it would be 1.7321 / 1


def test_one_right_of_sixteen_is_blown_up_by_the_group_spread_only():  # 3.873 against .9375
    reward_PG = np.zeros((1, 16))
    reward_PG[0, 0] = 1
    assert run(reward_PG, scale="group")[0, 0] == pytest.approx(3.873, abs=1e-3)
    assert run(reward_PG, scale="none")[0, 0] == pytest.approx(0.9375)
    assert run(1 - reward_PG, scale="group")[0, 0] == pytest.approx(-3.873, abs=1e-3)


def test_the_boost_reads_correctness_not_reward():  # truncated right answers are boosted too
    right_PG = np.array([[True, True, False, False], [True, True, True, False]])
    plain_PG = run(REWARD, TOKENS, right_PG)
    np.testing.assert_allclose(run(REWARD, TOKENS, right_PG, boost=0.1) - plain_PG, 0.1 * right_PG, atol=1e-12)


@pytest.mark.parametrize(("kind", "spread"), PAIRS)
def test_p04_one_odd_reward_among_equals_stays_bounded(kind, spread):  # promises M5: a residue once made 6,872 of this
    reward_PG = np.array([[0.95] + [0.35] * 7])
    assert np.abs(run(reward_PG, centre=kind, scale=spread)).max() <= bound(spread, reward_PG.shape, 8) + 1e-3


@pytest.mark.parametrize(("kind", "spread"), PAIRS)
@pytest.mark.parametrize("ddof", [0, 1])
def test_p04_a_batch_of_equal_rewards_teaches_exactly_nothing(kind, spread, ddof):
    reward_PG = np.array([[0.1 + 0.2] * 7, [0.35] * 7])
    reward_PG[0, 3] = 0.3  # 5e-17 away: the same terms, added in another order
    assert (run(reward_PG, centre=kind, scale=spread, ddof=ddof) == 0).all()


EQUALS = {
    "sums in another order": np.array([0.3, np.float32(0.1) + np.float32(0.2), np.float32(1.1) - np.float32(0.8), 0.1 + 0.2]),
    "neighbours": np.nextafter(np.float32(0.95), np.float32([0, 1, 0.95, 1])),
    "large": np.float32(1234.5) + np.float32([0, 1.3e-4, -1.3e-4, 0]),
    "below nothing": -np.cumsum(np.full(64, 0.01, np.float32))[[9]] - np.array([0, 9e-8, 0, 0]),
    "small": np.float32([1e-8, 0, 3e-8, 0]),
}


@pytest.mark.parametrize(("kind", "spread"), PAIRS)
@pytest.mark.parametrize("reward_G", EQUALS.values(), ids=EQUALS)
def test_p04_what_float32_leaves_of_equal_rewards_teaches_nothing(kind, spread, reward_G):
    reward_PG = np.array([reward_G, [1, 0, 0, 0.2]])
    assert len(set(reward_PG[0])) > 1
    advantage_PG = run(reward_PG, centre=kind, scale=spread)
    assert (advantage_PG[0] == 0).all() and (advantage_PG[1] != 0).all()
    np.testing.assert_allclose(  # and among others, equals have equal advantages
        *(run(np.array([[*rewards, 1.0]]), centre=kind, scale=spread)[0, :3] for rewards in (reward_G[:3], [reward_G.min()] * 3)),
        rtol=1e-12,
    )


@pytest.mark.parametrize(("kind", "spread"), PAIRS)
def test_p04_a_flat_group_stays_exactly_zero_beside_a_live_one(kind, spread):
    reward_PG = np.array([[0.35] * 4, [1, 0, 0, 0.2]])
    advantage_PG = run(reward_PG, np.array([[3, 9, 9, 2], [1, 8, 7, 7]]), centre=kind, scale=spread)
    assert (advantage_PG[0] == 0).all() and (advantage_PG[1] != 0).all()


@pytest.mark.parametrize(("p", "G", "share"), [(0.1, 4, 0.6562), (0.9, 8, 0.4305), (0.1, 16, 0.1853), (0.5, 4, 0.125), (0.5, 8, 0.0078)])
def test_flat_groups_are_as_frequent_as_binary_rewards_make_them(p, G, share):  # p^G + (1-p)^G
    outcome_PG = (np.arange(2**G)[:, None] >> np.arange(G)) & 1  # every group there is, once
    chance_P = np.where(outcome_PG, p, 1 - p).prod(axis=1)
    teaches_nothing_P = (run(outcome_PG, scale="batch") == 0).all(axis=1)
    assert chance_P[teaches_nothing_P].sum() == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_p04_a_reward_that_is_not_finite_is_refused_by_row(bad):
    reward_PG = REWARD.copy()
    reward_PG[1, 2] = bad
    with pytest.raises(ValueError, match="row 1, sample 2"):
        run(reward_PG)


@pytest.mark.parametrize("kind", CENTRES)
def test_p04_a_group_of_one_is_refused(kind):
    with pytest.raises(ValueError, match="group_size"):
        centre(np.ones((3, 1)), kind, np.ones((3, 1), bool))


def test_token_weights_refuse_a_rollout_without_tokens():
    with pytest.raises(ValueError, match="row 0, sample 1"):
        run(REWARD, np.array([[1, 0, 1, 1], [1, 1, 1, 1]]), scale="batch_tokens")


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="leave_one_out"):
        centre(REWARD, "median", ALL)
    with pytest.raises(ValueError, match="batch_rewards"):
        scale(centre(REWARD, "group", ALL), "iqr", TOKENS, REWARD, 0, ALL)


rewards = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=9),
    elements=st.floats(0, 1) | st.sampled_from([0, 0.35, 0.95, 1]),
)


@given(rewards, st.sampled_from(PAIRS), st.sampled_from([0, 1]), st.integers(0, 99))
def test_p04_advantages_are_finite_and_bounded_by_their_number(reward_PG, pair, ddof, seed):
    kind, spread = pair
    tokens_PG = np.random.default_rng(seed).integers(1, 50, reward_PG.shape)
    advantage_PG = run(reward_PG, tokens_PG, centre=kind, scale=spread, ddof=ddof)
    assert np.isfinite(advantage_PG).all() and np.abs(advantage_PG).max() <= bound(spread, reward_PG.shape, tokens_PG.sum()) + 1e-3


@given(rewards, st.sampled_from(PAIRS), st.integers(0, 99))
def test_shuffling_prompts_and_rollouts_shuffles_the_advantages(reward_PG, pair, seed):
    kind, spread = pair
    rng = np.random.default_rng(seed)
    tokens_PG = rng.integers(1, 50, reward_PG.shape)
    order = np.ix_(*(rng.permutation(size) for size in reward_PG.shape))
    advantage_PG = run(reward_PG, tokens_PG, centre=kind, scale=spread)
    np.testing.assert_allclose(
        run(reward_PG[order], tokens_PG[order], centre=kind, scale=spread), advantage_PG[order], rtol=1e-6, atol=1e-6
    )


@given(rewards, st.sampled_from(SCALES))
def test_within_a_group_a_higher_reward_never_has_a_lower_advantage(reward_PG, spread):
    advantage_PG = run(reward_PG, scale=spread)
    order = np.argsort(reward_PG, axis=1)
    assert (np.diff(np.take_along_axis(advantage_PG, order, axis=1), axis=1) >= -1e-9).all()


def test_a_weight_by_success_has_leads_numbers_on_each_side_of_zero():  # arXiv 2504.09696: w(.25) 1.4926, w(.75) .95
    plain, weighed = (run(REWARD, None, REWARD == 1, scale="group", ddof=1, weigh=kind) for kind in ("none", "success"))
    np.testing.assert_allclose(plain, lone(1.5, -0.5, 0.5, -1.5))
    np.testing.assert_allclose(weighed, lone(1.5 * 1.4926, -0.5 * 0.95, 0.5 * 0.95, -1.5 * 1.4926), atol=1e-4)
    halves = np.array([[1.0, 1, 0, 0]])
    np.testing.assert_allclose(run(halves, None, halves == 1, scale="group", weigh="success"), 1.4166 * (2 * halves - 1), atol=1e-4)


def test_where_all_are_right_a_weight_by_success_presses_the_long_ones_and_hardly_pays_the_short_ones():
    reward_PG = np.array([[1.1, 0.9]])  # told apart by length alone
    np.testing.assert_allclose(run(reward_PG, None, reward_PG > 0, scale="group", weigh="success"), [[0.4834, -1.4994]], atol=1e-4)


@given(rewards, st.integers(0, 99))
def test_p13_a_weight_by_success_keeps_signs_and_order_within_a_group(reward_PG, seed):
    right_PG = np.random.default_rng(seed).random(reward_PG.shape) < 0.5
    plain_PG, weighed_PG = (run(reward_PG, None, right_PG, weigh=kind) for kind in ("none", "success"))
    assert (np.sign(plain_PG) == np.sign(weighed_PG)).all()
    order_PG = np.argsort(plain_PG, axis=1)
    assert (np.diff(np.take_along_axis(weighed_PG, order_PG, axis=1), axis=1) >= 0).all()
    same_PG = np.diff(np.take_along_axis(plain_PG, order_PG, axis=1), axis=1) == 0
    assert (np.diff(np.take_along_axis(weighed_PG, order_PG, axis=1), axis=1)[same_PG] == 0).all()


def test_a_bonus_for_shorter_answers_goes_to_advantages_above_zero_and_turns_no_sign():
    reward_PG, tokens_PG = np.array([[1.0, 0, 1, 0], [1, 1, 1, 1]]), np.array([[100, 200, 300, 400], [10, 20, 30, 40]])
    plain, with_bonus = (
        advantages(reward_PG, reward_PG > 0, tokens_PG, Advantage(scale="group", ddof=1, shorter=beta)) for beta in (0.0, 0.1)
    )
    # spread 1, deviation 0.5774, all that is above 0 equal: weight 2 x 0.1 / 0.5774; saving of the first (200 - 100) / 200
    np.testing.assert_allclose((with_bonus - plain)[0], [0.2 / 0.57735 / 2, 0, 0, 0], atol=1e-5)
    assert (with_bonus[1] == 0).all()


def test_p13_the_bonus_of_shorter_ones_is_for_right_answers_whatever_else_lifts_a_wrong_one():
    reward_PG, right_PG = np.array([[1.0, 0.4, 0.0, 0.0]]), np.array([[True, False, False, False]])
    tokens_PG = np.array([[300, 10, 200, 200]])
    with_bonus, without = (advantages(reward_PG, right_PG, tokens_PG, Advantage(scale="group", shorter=shorter)) for shorter in (3.0, 0.0))
    assert (with_bonus[~right_PG] == without[~right_PG]).all() and with_bonus[0, 0] > with_bonus[0, 1]
    wrong_PG = np.array([[0.1, 0.1, 0.0, 0.0]])
    alike = advantages(wrong_PG, wrong_PG > 1, np.array([[400, 10, 50, 50]]), Advantage(scale="group", shorter=0.1))
    assert alike[0, 0] == alike[0, 1]


def test_the_bonus_of_shorter_ones_is_measured_among_the_rollouts_that_are_kept():
    reward_PG, tokens_PG = np.array([[1.0, 1.0, 0.0, 0.0, 1.0]]), np.array([[100, 300, 200, 200, 9000]])
    kept_PG = np.array([[True, True, True, True, False]])
    settings = Advantage(scale="group", ddof=1, shorter=0.1)
    some = advantages(reward_PG, reward_PG > 0, tokens_PG, settings, kept_PG)
    alone = advantages(reward_PG[:, :4], reward_PG[:, :4] > 0, tokens_PG[:, :4], settings)
    np.testing.assert_allclose(some, np.append(alone, [[0.0]], axis=1))
