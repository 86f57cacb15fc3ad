"""Intervals, tests and claims against hand examples (evaluation methods A6), enumeration and simulated twins."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.statistics import (
    Interval,
    at_once,
    bootstrap,
    claim_bounds,
    claim_interval,
    difference_interval,
    difference_shown,
    holm,
    interval,
    mcnemar,
    non_inferiority,
    resampled_means,
    share_interval,
    sign_flip,
    standard_error,
    standard_errors,
    stratified,
    wilson,
)
from evaluation.words import non_inferiority as non_inferiority_in_words

A = np.array([1, 0.5, 0, 0.75, 1])  # A6, paired
B = np.array([0.75, 0.5, 0.25, 0.25, 0.5])


def test_standard_errors_hand_example() -> None:  # A6: p = (1, .5, 0), 4 samples; the wrong binomial would say 0.144338
    gen, fix = standard_errors(np.array([4, 2, 0]), np.array([4, 4, 4]))
    assert (gen, fix) == (pytest.approx(0.288675, abs=1e-6), pytest.approx(0.096225, abs=1e-6))


def test_standard_errors_do_not_exist_for_one_problem_or_one_sample() -> None:
    assert math.isnan(standard_errors(np.array([1]), np.array([2]))[0])
    assert math.isnan(standard_errors(np.array([1, 0]), np.array([1, 1]))[1])


def test_fewer_than_six_problems_never_show_a_difference() -> None:
    assert not difference_shown(Interval(1, 1, 1), problems=5)
    assert difference_shown(Interval(1, 1, 1), problems=6)
    assert not difference_shown(Interval(1, math.nan, math.nan), problems=1)


def test_bootstrap_interval_is_about_two_standard_errors_and_repeats() -> None:
    value_N = np.random.default_rng(0).normal(size=400)
    mean, low, high = interval(value_N)
    assert (high - low) / 2 == pytest.approx(1.96 * value_N.std() / 20, rel=0.05)
    assert interval(value_N) == (mean, low, high)


def test_resampling_in_chunks_gives_every_resample() -> None:
    value_NK = np.random.default_rng(0).normal(size=(9000, 2))  # more cells than one chunk holds
    means_RK = resampled_means(value_NK, 1000)
    assert means_RK.shape == (1000, 2)
    np.testing.assert_allclose(means_RK.mean(axis=0), value_NK.mean(axis=0), atol=0.002)


def test_wilson_hand_examples() -> None:  # A6 scale
    assert wilson(0.5, 30) == pytest.approx((0.5, 0.3315, 0.6685), abs=1e-4)
    assert share_interval(np.ones(30)) == pytest.approx((1, 0.8865, 1), abs=1e-4)


def test_paired_hand_example() -> None:  # A6
    d_N = A - B
    assert d_N.mean() == pytest.approx(0.2)
    assert standard_error(d_N) == pytest.approx(0.145774, abs=1e-6)
    assert math.hypot(standard_error(A), standard_error(B)) == pytest.approx(0.209165, abs=1e-6)  # unpaired: wider
    assert sign_flip(d_N) == pytest.approx(0.375)
    assert difference_interval(d_N) == pytest.approx((0.2, -0.05, 0.45))


def test_sign_flips_are_all_tried_where_there_are_few() -> None:
    for seed in range(5):
        d_N = np.random.default_rng(seed).integers(-4, 5, 9) / 4
        flipped = [abs(np.dot(signs, d_N)) for signs in itertools.product((-1, 1), repeat=9)]
        assert sign_flip(d_N) == pytest.approx(np.mean(np.array(flipped) >= abs(d_N.sum()) - 1e-9))


def test_many_sign_flips_are_sampled_and_agree_with_all_of_them() -> None:
    d_N = np.full(20, 0.25)
    d_N[:5] = -0.25  # as many heads as a coin of 20: P(|15 - 5| or more)
    assert sign_flip(d_N) == pytest.approx(mcnemar(15, 5), abs=0.01)
    assert sign_flip(np.full(40, 0.25)) == pytest.approx(0, abs=3e-4)


def test_no_difference_anywhere_is_no_evidence() -> None:
    assert sign_flip(np.zeros(30)) == 1 and mcnemar(0, 0) == 1


def test_mcnemar_hand_example() -> None:  # A6 scale
    assert mcnemar(8, 2) == mcnemar(2, 8) == pytest.approx(0.109375)


def test_half_widths_of_benchmarks() -> None:  # A6 scale: 30 problems half right, 500 problems at 0.9, one sample each
    for share, N, expected in ((0.5, 30, 0.179), (0.9, 500, 0.026)):
        right_N = np.arange(N) < share * N
        assert 1.96 * standard_error(right_N) * math.sqrt((N - 1) / N) == pytest.approx(expected, abs=5e-4)


def test_holm_hand_example_keeps_order_and_is_monotone() -> None:  # .01 x 4, .02 x 3, then max with what went before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1, 1] and holm([0.03]) == [0.03] and holm([]) == []


def test_non_inferiority_hand_example() -> None:  # A6.9, in points: -0.2 with a standard error of 0.5
    difference = Interval(-0.002, -0.0118, 0.0078)
    assert non_inferiority(difference, 500, 0.015) == "not worse"
    assert non_inferiority(difference, 500, 0.01) == "not shown"


@pytest.mark.parametrize(
    ("low", "high", "problems", "claim"),
    [
        (0.01, 0.05, 30, "better"),
        (-0.01, 0.05, 30, "not worse"),
        (-0.015, -0.005, 30, "not worse"),  # a loss, and a smaller one than was put up with
        (-0.03, -0.005, 30, "not shown"),
        (-0.09, -0.03, 30, "worse"),
        (-0.02, 0.05, 30, "not shown"),  # at the margin is not above it
        (0.01, 0.05, 5, "too few"),
        (math.nan, math.nan, 30, "too few"),
    ],
)
def test_what_may_be_claimed_follows_from_the_interval_and_the_margin(low: float, high: float, problems: int, claim: str) -> None:
    assert non_inferiority(Interval((low + high) / 2, low, high), problems, 0.02) == claim


@pytest.mark.parametrize("delta", [0, -0.01, 1, 1.5])
def test_a_margin_that_is_no_share_is_refused(delta: float) -> None:
    with pytest.raises(ValueError, match="for a point"):
        non_inferiority(Interval(0, -0.1, 0.1), 30, delta)


@pytest.mark.parametrize(
    ("low", "high", "problems", "words"),
    [
        (0.01, 0.05, 30, "More accurate (95 % interval +1.00 to +5.00 points, a loss of 2 was allowed)."),
        (-0.01, 0.05, 30, "As accurate, within the margin (95 % interval −1.00 to +5.00 points"),
        (-0.015, -0.005, 30, "Less accurate, by less than the margin (95 % interval −1.50 to −0.50 points"),
        (
            -0.0625,
            -0.0046,
            30,
            "Less accurate, and not shown to be within the margin, a loss of 6.25 points is not ruled out (95 % interval −6.25 to",
        ),
        (-0.0312, 0.01, 30, "Not shown to be as accurate, a loss of 3.12 points is not ruled out (95 % interval −3.12 to +1.00"),
        (-0.09, -0.03, 30, "Less accurate, by more than the margin (95 % interval −9.00 to −3.00"),
        (0.01, 0.05, 5, "Nothing can be said of accuracy: 5 problems are too few"),
    ],
)
def test_the_sentence_says_the_claim_the_interval_and_the_margin(low: float, high: float, problems: int, words: str) -> None:
    assert non_inferiority_in_words(Interval((low + high) / 2, low, high), problems, 0.02).startswith(words)


def test_problems_that_all_agree_are_not_certainty() -> None:  # Wilson: 0 of 30 lies below 0.1135
    assert difference_interval(np.zeros(30)) == pytest.approx((0, -0.1135, 0.1135), abs=1e-4)
    assert difference_interval(np.ones(30)) == pytest.approx((1, 0.8865, 1), abs=1e-4)
    assert non_inferiority(difference_interval(np.zeros(30)), 30, 0.05) == "not shown"
    assert non_inferiority(difference_interval(np.zeros(500)), 500, 0.01) == "not worse"


def test_a_worse_model_is_called_not_worse_at_most_5_percent_of_the_time() -> None:  # true loss = the margin of 4 points
    rng = np.random.default_rng(11)
    claims = []
    for _ in range(1000):
        skill_N = rng.beta(2, 1, 100)
        old_N, new_N = rng.binomial(8, skill_N) / 8, rng.binomial(8, np.clip(skill_N - 0.04, 0, 1)) / 8
        claims.append(non_inferiority(difference_interval(new_N - old_N, resamples=400), 100, 0.04) in ("better", "not worse"))
    assert np.mean(claims) <= 0.05


def test_benchmarks_count_alike_and_are_resampled_apart() -> None:
    small_N, large_N = np.array([0.0, 1.0] * 15), np.full(500, 0.9)
    mean, low, high = stratified([small_N, large_N])
    assert mean == pytest.approx(0.7)
    assert (high - low) == pytest.approx((interval(small_N).high - interval(small_N).low) / 2, rel=0.05)  # all of it from the small one
    sure = stratified([np.ones(20), np.ones(20)])
    assert (sure.low, sure.high) == (pytest.approx(1 - wilson(0.0, 20).high / math.sqrt(2)), 1.0)
    still = stratified([np.zeros(30), np.zeros(30)])  # Wilson's 0.1135 of each, of which half counts
    assert (still.low, still.high) == (pytest.approx(-0.1135 / math.sqrt(2), abs=1e-4), pytest.approx(0.1135 / math.sqrt(2), abs=1e-4))


def test_benchmarks_of_one_size_are_drawn_independently() -> None:  # the same draws twice would make the spread sqrt(2) too wide
    value_N = np.random.default_rng(0).normal(size=200)
    single, double = interval(value_N), stratified([value_N, value_N])
    assert (double.high - double.low) / (single.high - single.low) == pytest.approx(1 / math.sqrt(2), rel=0.05)


def test_a_ratio_is_resampled_jointly_and_proportional_columns_have_no_noise() -> None:
    value_N = np.random.default_rng(0).random(50)
    ratio = bootstrap(np.stack([value_N, 4 * value_N], axis=1), lambda a_R, b_R: a_R / b_R)
    assert ratio == pytest.approx((0.25, 0.25, 0.25))


def test_a_statistic_that_some_draws_lack_has_no_bounds() -> None:
    found = bootstrap(np.array([[0.0, 0.0], [1.0, 1.0]]), lambda a_R, b_R: a_R / b_R)
    assert found.mean == 1 and math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.parametrize("moved", [0, 1])
def test_at_most_one_problem_that_moved_says_nothing_of_a_sign(moved: int) -> None:
    assert sign_flip(np.array([0.5] * moved + [0.0] * 9)) == 1


def test_one_gain_does_not_take_away_the_losses_that_are_still_possible() -> None:
    """30 problems, one gain: the bootstrap says 0 to +10 points; of none lost by Wilson a loss of 8 points is not ruled out."""
    moved = np.array([1.0] + [0.0] * 29)
    assert difference_interval(moved).low == 0
    bounds = claim_interval(moved)
    assert bounds.low == pytest.approx(1 / 30 - math.hypot(1 / 30, wilson(0, 30).high)) and bounds.low < -0.08
    assert non_inferiority(bounds, 30, 0.01) == "not shown"


@pytest.mark.parametrize("moved", [0, 9, 10, 15])
def test_problems_that_moved_by_a_sample_rule_out_no_problem_that_is_lost_whole(moved: int) -> None:
    """30 problems x 64 samples, as many one sample up as down: none was lost, and up to 11.35 points may be, whatever moved by 1.6."""
    change_N = np.repeat([1 / 64, -1 / 64, 0], [moved, moved, 30 - 2 * moved])
    bounds = claim_interval(change_N)
    assert (bounds.low, bounds.high) == (pytest.approx(-0.1135, abs=2e-4), pytest.approx(0.1135, abs=2e-4))
    assert non_inferiority(bounds, 30, 0.05) == "not shown" and non_inferiority(bounds, 30, 0.12) == "not worse"
    assert non_inferiority(claim_interval(np.tile(change_N, 17)), 510, 0.01) == "not worse"  # of many problems a point can be said


@pytest.mark.parametrize(("problems", "samples"), [(30, 64), (60, 64)])
def test_noise_of_many_samples_does_not_hide_that_one_problem_in_twenty_is_lost(problems: int, samples: int) -> None:
    rng, claims = np.random.default_rng(0), []
    for _ in range(60):
        skill_N = rng.beta(8, 2, problems)
        new_N = np.where(rng.random(problems) < 0.05 / 0.8, 0, skill_N)  # true loss = the margin
        change_N = (rng.binomial(samples, new_N) - rng.binomial(samples, skill_N)) / samples
        low, high = claim_bounds(change_N[:, None])[:, 0]
        claims.append(non_inferiority(Interval(float(change_N.mean()), low, high), problems, 0.05) in ("better", "not worse"))
    assert np.mean(claims) <= 0.05


def test_few_problems_show_no_difference_that_sign_flips_do_not() -> None:
    moved = np.array([1.0, 1, 1, 0, 0, 0])
    assert difference_interval(moved).low > 0 and sign_flip(moved) == 0.25
    assert claim_interval(moved).low <= 0


@pytest.mark.parametrize(("problems", "gain", "lose"), [(10, 0.0, 0.05), (30, 0.02, 0.04), (30, 0.03, 0.05), (100, 0.01, 0.025)])
def test_a_model_that_is_worse_by_more_than_the_margin_is_seldom_called_as_accurate(problems: int, gain: float, lose: float) -> None:
    rng = np.random.default_rng(0)
    draws = rng.choice([1.0, -1.0, 0.0], p=[gain, lose, 1 - gain - lose], size=(300, problems))
    claims = [non_inferiority(claim_interval(moved), problems, 0.01) for moved in draws]
    assert sum(claim in ("better", "not worse") for claim in claims) <= 0.05 * len(claims)


def test_where_many_problems_moved_much_claims_go_by_the_bootstrap() -> None:
    moved = np.random.default_rng(1).choice([0.5, -0.25, 0.0], size=500)
    assert claim_interval(moved) == pytest.approx(difference_interval(moved), abs=1.2e-3)  # of 2.8 points to a side


@pytest.mark.parametrize(
    ("gained", "lost", "problems"), [(14, 5, 60), (17, 7, 60), (20, 9, 100), (23, 11, 500), (31, 17, 500), (15, 5, 60), (31, 14, 60)]
)
def test_what_is_claimed_of_single_samples_is_what_mcnemars_test_says(gained: int, lost: int, problems: int) -> None:
    """The p that stands beside a claim is the test's: no interval leaves out 0 where that does not."""
    change_N = np.repeat([1.0, -1.0, 0.0], [gained, lost, problems - gained - lost])
    p = sign_flip(change_N)
    assert p == mcnemar(gained, lost)
    assert (claim_interval(change_N).low > 0) <= (p <= 0.05)
    assert (claim_interval(-change_N).high < 0) <= (p <= 0.05)


@pytest.mark.parametrize("problems", [2, 3, 5, 6, 30])
def test_problems_that_all_move_alike_claim_no_more_than_their_p(problems: int) -> None:
    found = claim_interval(np.ones(problems))
    assert (found.low > 0) == (sign_flip(np.ones(problems)) <= 0.05) == (problems >= 6)


@given(st.lists(st.sampled_from([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0]), min_size=6, max_size=60))
@settings(max_examples=40, deadline=None)
def test_no_interval_of_a_claim_leaves_out_0_where_sign_flips_do_not(change: list[float]) -> None:
    found = claim_interval(np.array(change))
    assert not (found.low > 0 or found.high < 0) or sign_flip(np.array(change)) <= 0.05


@pytest.mark.parametrize("problems", [6, 12, 40])
def test_a_look_at_many_budgets_errs_once_in_twenty_and_single_intervals_err_more_often(problems: int) -> None:
    """Two models that are alike, at 40 budgets whose lengths are drawn: how often a difference is shown at some budget."""
    rng, share_K = np.random.default_rng(0), np.linspace(0.05, 0.9, 40)
    looks, once, singly = 200, 0, 0
    for _ in range(looks):
        change_NK = (rng.random((problems, 1)) < share_K) * 1.0 - (rng.random((problems, 1)) < share_K)
        once += bool((at_once(change_NK) <= 0.05).any())
        lows, highs = np.percentile(resampled_means(change_NK, 500), [2.5, 97.5], axis=0)
        singly += bool(((lows > 0) | (highs < 0)).any())
    assert once <= 0.08 * looks and singly >= 0.15 * looks


def test_one_column_alone_has_the_p_of_sign_flips_and_a_second_one_raises_it() -> None:
    difference_N = np.array([0.3, 0.5, -0.1, 0.4, 0.2, 0.6, 0.0, 0.25])
    assert at_once(difference_N[:, None])[0] == pytest.approx(sign_flip(difference_N))
    other_N = np.array([0.5, -0.5, 0.5, -0.5, 0.5, -0.5, 0.5, -0.25])
    assert at_once(np.column_stack([difference_N, other_N]))[0] > sign_flip(difference_N)
    assert at_once(np.column_stack([difference_N, 2 * difference_N]))[0] == pytest.approx(
        sign_flip(difference_N)
    )  # nothing new is looked at


def test_six_of_six_are_shown_five_are_not_and_nothing_is_no_difference() -> None:  # 2 of 2^6 patterns, of 2^5
    assert at_once(np.ones((6, 3))).tolist() == [2 / 64] * 3 and at_once(np.ones((5, 3))).tolist() == [2 / 32] * 3
    assert at_once(np.zeros((30, 2))).tolist() == [1, 1]
    assert at_once(np.ones((40, 1)))[0] == pytest.approx(1 / 10_000)  # drawn at random: what was seen is one of the patterns
