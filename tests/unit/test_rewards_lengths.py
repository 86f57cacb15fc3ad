"""Length parts, limits and profiles against the papers' examples by hand."""

import numpy as np
import pytest

from rewards import lengths, profiles

TOKENS = np.array([100, 200, 300, 400])
RIGHT = np.array([True, False, True, False])
ALL = np.ones(4, dtype=bool)
POSITIVES = np.array([1000, 1200, 1400, 1800, 6000])


def near(found, expected, atol=6e-5):
    np.testing.assert_allclose(found, expected, atol=atol, rtol=0)


def whitened(value_G):
    return (value_G - value_G.mean()) / value_G.std(ddof=1)


# The papers' examples


def test_l1_exact_pays_a_price_per_token_of_distance_right_or_wrong():
    whole = np.array([1, 0, 0]) + lengths.l1_exact(np.array([1200, 1000, 400]), 1000, 3e-4)
    near(whole, [0.94, 0, -0.18])


def test_l1_max_in_the_papers_form():
    whole = 1 + lengths.l1_max(np.array([500, 1000, 2000, 2700, 3000]), np.ones(5, bool), 1000, 3e-4, 0.5)
    near(whole, [0.65, 0.5, 0.2, 0, 0])


def test_l1_max_in_the_codes_form():
    near(1 + lengths.l1_max_code(np.array([800, 900, 1000, 1050, 1100]), np.ones(5, bool), 1000, 0.01), [1, 1, 0.5, 0.25, 0])
    near(1 + lengths.l1_max_code(np.array([500, 1000, 2000]), np.ones(3, bool), 1000, 3e-4), [0.575, 0.5, 0.35])


def test_kimi_ranks_the_toy_group():
    near(lengths.kimi(TOKENS, RIGHT), [0.5, 0, -1 / 6, -0.5])


def test_arora_discounts_three_right_answers_and_halves_alpha_for_one_alone():
    three = np.ones(3, bool)
    near(1 + lengths.arora(np.array([100, 200, 300]), three, three, 0.2), [0.9546, 0.9, 0.8454])
    near(1 + lengths.arora(np.array([700]), np.array([True]), np.array([True]), 0.2), [0.9])


def test_arora_gives_nothing_to_what_did_not_finish_and_leaves_it_out_of_the_mean():
    whole = 1 + lengths.arora(np.array([100, 200, 300, 9000]), ALL, np.array([True, True, True, False]), 0.2)
    near(whole, [0.9546, 0.9, 0.8454, 0])


def test_o1_pruner_with_its_accuracy_part():
    right = np.array([1, 1, 0, 0])
    part = lengths.o1_pruner(np.array([100, 400, 400, 50]), 250)
    near(part, [1.5, -0.375, -0.375, 4])
    near(np.clip(part + 5 * (right - 0.5), -2, 4), [4, 2.125, -2, 1.5])


def test_alp_prices_tokens_by_the_share_right_and_at_least_by_one_rollout():
    near(RIGHT + lengths.alp(TOKENS, RIGHT, 1e4), [0.995, -0.01, 0.985, -0.02])
    near(lengths.alp(TOKENS, ~ALL, 1e4)[3], -0.01)


def test_shorterbetter_aims_at_the_shortest_right_answer_or_the_mean():
    near(2 * RIGHT + 0.001 * lengths.shorterbetter(TOKENS, RIGHT), [2, -0.1, 1.8, -0.3])
    near(0.001 * lengths.shorterbetter(TOKENS, ~ALL), [-0.15, -0.05, -0.05, -0.15])


def test_laser_adds_its_bonus_within_the_limit_and_laser_de_for_long_wrong_answers():
    base = np.where(RIGHT, 1, -0.5)
    near(base + 0.5 * lengths.laser(TOKENS, RIGHT, 250), [1.5, -0.5, 1, -0.5])
    near(base + 0.5 * lengths.laser_de(TOKENS, RIGHT, 250), [1.5, -0.5, 1, 0])
    near(base + 0.5 * lengths.laser_de(TOKENS, RIGHT, 250, np.array([0, 0, 0, 1])), [1.5, -0.5, 1, -0.5])


def test_overlong_falls_over_its_buffer():
    near(lengths.overlong(np.array([16384, 18432, 20480, 20481]), 20480, 4096), [0, -0.5, -1, -1])
    near(lengths.overlong(np.array([90]), 100, 20), [-0.5])


def test_overlong_of_pipeline_rl_scaled_by_the_share_right():
    term = lengths.overlong(np.array([800, 900, 1000]), 1000, 200)
    near(term, [0, -0.5, -1])
    near(0.25 * term, [0, -0.125, -0.25])
    near(0.75 * term, [0, -0.375, -0.75])


def test_overlong_counted_for_right_answers_keeps_them_above_wrong_ones_of_minus_a_half():
    """PipelineRL's table: at the cap a right answer is left 0, a wrong one has -0.5; with wrong ones at 0 they tie."""
    at_cap = 1 + lengths.overlong(np.array([1000]), 1000, 200)
    near(at_cap, [0])
    assert at_cap[0] > -0.5


def test_cosine_goes_from_two_to_one_for_right_and_from_minus_ten_to_zero_for_wrong():
    tokens = np.array([0, 25, 50, 75, 100, 101])
    right, wrong = np.ones(6, bool), np.zeros(6, bool)
    near(1 + lengths.cosine(tokens, right, 100, beyond=-10), [2, 1.8536, 1.5, 1.1464, 1, -10])
    near(lengths.cosine(tokens, wrong, 100, beyond=-10), [-10, -8.5355, -5, -1.4645, 0, -10])
    trl = {"right": (1, 0.5), "wrong": (-1, -0.5)}  # and beyond is as at the limit
    near(1 + lengths.cosine(tokens, right, 100, **trl)[[0, 4, 5]], [1, 0.5, 0.5])
    near(lengths.cosine(tokens, wrong, 100, **trl)[[0, 4, 5]], [-1, -0.5, -0.5])


def test_repetition_counts_ngrams_that_came_before():
    assert lengths.repetition([7] * 5, 2) == pytest.approx(0.75)
    assert lengths.repetition([1, 2, 1, 2, 1, 2], 2) == pytest.approx(0.6)
    assert lengths.repetition([1], 2) == lengths.repetition([], 2) == 0


def test_lead_is_an_exponential_of_z():
    near(1 + lengths.lead(np.array([100, 200, 300]), np.ones(3, bool), 0.05), [1.0513, 1, 0.9512])
    near(1 + lengths.lead(np.array([100, 200, 300]), np.ones(3, bool), 0.5), [1.6487, 1, 0.6065])
    near(np.where(RIGHT, 1, -1) + lengths.lead(TOKENS, RIGHT, 0.5), [1.4241, -1, 0.7022, -1])
    near((1 + lengths.lead(np.array([100] + [4000] * 15), np.ones(16, bool), 0.5))[:2], [6.5208, 0.8825])


def test_lead_waits_until_the_three_shortest_right_answers_are_long():
    tokens = np.array([3900, 4000, 4100, 9000])
    assert not lengths.lead(tokens, ALL, 0.05, least=4000).any()
    assert lengths.lead(tokens + 1, ALL, 0.05, least=4000).any()


def test_lead_weighs_prompts_by_success():
    near([lengths.success_weight(share) for share in (0, 0.25, 0.5, 0.75, 1)], [1.4994, 1.4926, 1.4166, 0.95, 0.4834])


def test_triangle_rises_to_the_limit_and_band_is_flat_below_it():
    tokens = np.array([0, 50, 100, 150, 200, 201])
    near(lengths.triangle(tokens, 100), [0, 0.5, 1, 0.5, 0, 0])
    near(lengths.band(tokens, 100), [1, 1, 1, 0.5, 0, 0])


def test_triangle_in_the_curriculums_mixture_pays_a_wrong_answer_of_the_budget():
    near(0.6 + 0.3 * lengths.triangle(np.array([150]), 100) + 0.1, [0.85])
    near(0.3 * lengths.triangle(np.array([100]), 100) + 0.1, [0.4])


def test_linear_takes_a_share_of_the_groups_mean_reward():
    """prime-rl: a quarter of the mean at the group's longest; its tenths for inputs and turns are alike for all and leave centred rewards as they are."""
    whole = RIGHT + 0.25 * lengths.linear(TOKENS, 0.5)
    alike = 0.5 * (0.1 + 0.1)
    near(whole - alike, [0.8688, -0.1625, 0.8063, -0.2250])
    near(whole - whole.mean(), [0.5469, -0.4844, 0.4844, -0.5469])
    gated = np.where(RIGHT, whole, 0)
    near(gated, [0.96875, 0, 0.90625, 0])
    near(gated - gated.mean(), [0.5, -0.46875, 0.4375, -0.46875])


def test_linear_puts_a_long_partial_answer_below_a_short_one_of_nothing():
    graded = np.array([1, 1, 1, 0.1, 0])
    whole = graded + 0.25 * lengths.linear(np.array([100, 100, 100, 400, 10]), graded.mean()) - graded.mean() * 0.2
    near(whole, [0.8373] * 3 + [-0.1790, -0.1279])


OTHERS = np.array([100, 150, 80, 300, 900]), np.array([1, 1, 0, 1, 1], bool)


@pytest.mark.parametrize(
    ("shape", "strength", "expected"),
    [
        ("linear", 1, [1, 0.5, 0, 0, 0]),
        ("linear", 0.25, [1, 0.875, 0, 0.5, 0]),
        ("exponential", 1, [1, 0.6065, 0, 0.1353, 0.0003]),
        ("exponential", 0.25, [1, 0.8825, 0, 0.6065, 0.1353]),
        ("rank", 1, [1, 0.5, 0, 0.3333, 0.25]),
        ("binary", 1, [1, 0, 0, 0, 0]),
        ("soft", 1, [1, 1, 0, 0.6667, 0]),
    ],
)
def test_relative_factors_have_their_published_numbers_and_never_fall_below_their_floor(shape, strength, expected):
    tokens, right = OTHERS
    near(right + lengths.relative(tokens, right, shape, strength), expected)
    near(right + lengths.relative(tokens, right, shape, strength, floor=0.3), np.where(right, np.maximum(0.3, expected), 0))


def test_a_shortest_answer_of_one_token_leaves_others_nothing_without_a_floor():
    tokens, three = np.array([1, 2, 50]), np.ones(3, bool)
    near(1 + lengths.relative(tokens, three, "linear", 1.0), [1, 0, 0])
    near(1 + lengths.relative(tokens, three, "linear", 1.0, floor=0.5), [1, 0.5, 0.5])


def test_saving_pays_what_is_shorter_than_the_mean_right_answer():
    whole = 1 + lengths.relative(np.array([10, 20, 40]), np.ones(3, bool), "saving")
    near(whole, [1.5714, 1.1429, 1])
    near(whole - whole.mean(), [0.3333, -0.0952, -0.2381])


def test_a_logarithm_is_one_at_nothing_and_zero_from_the_limit_on():
    tokens = np.array([0, 25, 50, 75, 100, 110, 120, 500])
    near(lengths.logarithm(tokens, np.ones(8, bool), 100, 5), [1, 0.8696, 0.6992, 0.4526, 0, 0, 0, 0])  # unclamped, -.3869 at 110


def test_the_shortest_right_answer_gains_and_the_longest_loses_if_they_are_among_the_top_ones():
    tokens, right = np.array([100, 50, 300, 200, 400]), np.array([1, 0, 1, 1, 1], bool)
    reward = np.array([0.8, 0, 1.0, 1.0, 0.9])
    near(lengths.shortest(tokens, right, reward), [1, 0, 0, 0, 0])
    near(lengths.longest(tokens, right, reward), [0, 0, 0, 0, -1])
    # of the rewards .8, .9, 1, 1 the second (top .5), the third (top .75): the shortest is below both, the longest below the second of them
    near(lengths.shortest(tokens, right, reward, top=0.5), [0] * 5)
    near(lengths.longest(tokens, right, reward, top=0.5), [0, 0, 0, 0, -1])
    near(lengths.longest(tokens, right, reward, top=0.75), [0, 0, -1, 0, 0])
    near(lengths.longest(tokens, right, np.array([0.8, 0, 1.0, 0.9, 0.9]), top=1.0), [0] * 5)  # one alone is nobody's longest
    alike = np.array([50, 50, 20])
    near(
        lengths.longest(alike, np.ones(3, dtype=bool), np.array([1, 0.2, 1]), top=1.0), [-1, 0, 0]
    )  # the second is as long, and not on top


def test_the_profiled_penalty_starts_one_deviation_above_the_references_mean():
    found = profiles.beyond_profile(np.array([18628, 18629, 26000]), profiles.Profile(17805.33, 823.33, 0.75))
    near(found, [0, -1, -1])  # 18628.66
    near(profiles.beyond_profile(np.array([18629]), profiles.Profile(17805.33, 0.0, 0.75)), [0])


def test_repeated_counts_the_tokens_of_ngrams_that_came_before():
    assert lengths.repeated([7] * 5, 2) == 4
    assert lengths.repeated([1, 2, 1, 2, 1, 2], 2) == 4
    assert lengths.repeated([1, 2, 3, 9, 1, 2, 3, 8, 1, 2, 3], 3) == 6
    assert lengths.repeated([1, 2, 3], 2) == lengths.repeated([1], 2) == lengths.repeated([], 2) == 0


def test_hard_prompts_are_spared_by_their_share_of_right_answers_and_cut_ones_are_not():
    """PipelineRL, M 1000, buffer 200, gamma 1: -.125 and -.25 at 900 and 1000 with a quarter right, -.375 and -.75 with three quarters."""
    for right, expected in (([1, 0, 0, 0], [-0.125, -0.25]), ([1, 1, 1, 0], [-0.375, -0.75])):
        for tokens, value in zip((900, 1000), expected, strict=True):
            part = lengths.overlong(np.array([tokens] * 4), 1000, 200)
            near((part * lengths.spared(np.array(right), ALL, 1.0))[[0, 3]], [value, part[3]])
            near((part * lengths.spared(np.array(right), ~ALL, 1.0))[[0, 3]], [part[0], part[3]])
    near(lengths.spared(RIGHT, ALL, 0.0), [1] * 4)


def test_scaling_is_relative_to_the_mean_of_right_answers():
    five = np.ones(5, bool)
    near(0.1 * lengths.scaling(POSITIVES, five), [0.0256, 0.0216, 0.0176, 0.0096, -0.0744])
    near(1 + 1.2 * lengths.scaling(POSITIVES, five), [1.3072, 1.2592, 1.2112, 1.1152, 0.1072])


def test_zmad_takes_the_outlier_and_spares_a_group_that_is_alike():
    five = np.ones(5, bool)
    near(lengths.zmad(POSITIVES, five, 2.5), [0, 0, 0, 0, -1])
    among_wrong, right = np.append(POSITIVES, [9000] * 6), np.append(five, np.zeros(6, dtype=bool))
    near(lengths.zmad(among_wrong, right, 2.5), [0, 0, 0, 0, -1, *[0] * 6])  # wrong answers move neither median
    assert lengths.zmad(POSITIVES, five, 7.7567)[4] == -1  # z = 0.6745 x 4600 / 400 = 7.75675
    near(lengths.zmad(POSITIVES, five, 7.757), [0] * 5)
    near(lengths.zmad(np.array([1000, 1010, 1020, 1030, 3000]), five, 2.5), [0] * 5)
    near(lengths.zmad(np.array([1000, 1010, 1020, 1030, 3000]), five, 133, tight=0.0), [0, 0, 0, 0, -1])


@pytest.mark.parametrize(("weight", "expected"), [(0.1, [1, 0.95, 0.7, -1, -1]), (0.5, [1, 0.75, -0.5, -1, -1]), (1, [1, 0.5, -1, -1, -1])])
def test_leash_with_verdicts_of_one_and_minus_one(weight, expected):
    part = lengths.leash(np.array([3000, 6144, 16384, 2000, 12288]), 4096)
    near(np.clip(np.array([1, 1, 1, -1, -1]) + weight * part, -1, 1), expected)


def test_leash_with_verdicts_of_one_and_zero_puts_a_long_right_answer_below_a_short_wrong_one():
    part = lengths.leash(np.array([3000, 6144, 16384, 2000, 12288]), 4096)
    near(np.array([1, 1, 1, 0, 0]) + 0.5 * part, [1, 0.75, -0.5, 0, -1])


def test_gr3_shrinks_rewards_by_relative_length():
    near(RIGHT * lengths.gr3(TOKENS, 0.33), [0.8834, 0, 0.7163, 0])
    near(whitened(RIGHT * lengths.gr3(TOKENS, 0.33)), [1.0357, -0.8567, 0.6778, -0.8567])
    factor = lengths.gr3(TOKENS, 0.33)
    near(factor, [0.8834, 0.7911, 0.7163, 0.6545])
    near(factor - factor.mean(), [0.1221, 0.0298, -0.0450, -0.1069])
    near(np.array([-1, -1, 1, 1]) * lengths.gr3(np.array([100, 400, 100, 200]), 0.33), [-0.8584, -0.6024, 0.8584, 0.7519])


def test_gr3_leaves_an_average_all_right_answer_below_its_groups_mean():
    factor = lengths.gr3(TOKENS, 0.33)
    average = lengths.gr3(np.array([250] * 4), 0.33)[0]
    near([factor.mean(), average], [0.7613, 0.7519])


def test_gr3_puts_a_short_half_answer_above_a_long_whole_one():
    """Graded rewards: 1 at four times the group's mean length, 0.5 at a quarter of it."""
    tokens = np.array([400, 25, 75, 60, 60, 60, 60, 60])
    near((np.array([1, 0.5, 0, 0, 0, 0, 0, 0]) * lengths.gr3(tokens, 0.33))[:2], [0.4310, 0.4619])


def test_profile_band_falls_from_a_through_the_floor_at_b():
    tokens = np.array([17000, 18600, 19452, 21000, 25000, 26000])
    args = tokens, np.ones(6, bool), 17805.33, 19451.99, 0.8
    near(1 + profiles.profile_band(*args, held=False), [1, 0.9035, 0.8, 0.612, 0.1261, 0.0047])
    near(1 + profiles.profile_band(*args), [1, 0.9035, 0.8, 0.8, 0.8, 0.8])


@pytest.mark.parametrize(("floor", "widths"), [(0.6, 2.5), (0.7, 10 / 3), (0.8, 5), (0.9, 10)])
def test_an_unheld_profile_band_reaches_zero_some_band_widths_beyond_a(floor, widths):
    tokens = 1000 + 100 * widths * np.array([0.98, 1.0, 1.1])
    whole = 1 + profiles.profile_band(tokens, np.ones(3, bool), 1000, 1100, floor, held=False)
    near(whole, [0.02, 0, 0])


def test_a_profile_is_mean_and_deviation_of_passing_rollouts():
    assert profiles.profile_of([900, 1000, 1100, 5000], [True, True, True, False]) == (1000, 100, 0.75)
    assert profiles.profile_of([900, 1100, 5000], [True, False, False]).tokens == pytest.approx(7000 / 3)  # one alone says too little
    assert profiles.profile_of([500, 500], [True, True]) == (500, 0, 1)
    assert profiles.profile_of([500], [False]) == (500, 0, 0)


def test_a_band_reaches_some_deviations_above_the_profiles_mean():
    near(profiles.band_of(profiles.Profile(1000, 100, 0.75)), [1000, 1200, 0.8])
    assert profiles.band_of(profiles.Profile(1000, 100, 1.0), 1.0) == (1000, 1100, 0.6)


@pytest.mark.parametrize(("rate", "floor"), [(1, 0.6), (0.875, 0.7), (0.8, 0.76), (0.75, 0.8), (0.625, 0.9), (0.5, None), (0, None)])
def test_the_floor_of_a_band_by_pass_rate(rate, floor):
    found = profiles.band_of(profiles.Profile(100, 3, rate))
    assert found is None if floor is None else found[2] == pytest.approx(floor)


def test_a_prompt_without_spread_has_no_band():
    assert profiles.band_of(profiles.Profile(500, 0, 1.0)) is None


def test_dot_cuts_the_outlier_of_an_all_right_group():
    sixteen = np.array([*range(1000, 1281, 20), 6000])
    assert profiles.dot_limit(sixteen, np.ones(16, bool), 3.0) == 5097
    thirty_two = np.array([*range(1000, 1601, 20), 6000])
    assert profiles.dot_limit(thirty_two, np.ones(32, bool), 3.0) == 3996


def test_dot_takes_903_tokens_off_an_outlier_of_3_74_deviations():
    sixteen = np.array([*range(1000, 1281, 20), 6000])
    assert sixteen.mean() == 1443.75 and sixteen.std(ddof=1) == pytest.approx(1218.07, abs=0.01)
    assert (6000 - 1443.75) / sixteen.std(ddof=1) == pytest.approx(3.74, abs=0.005)
    assert 6000 - profiles.dot_limit(sixteen, np.ones(16, bool), 3.0) == 903
    thirty_two = np.array([*range(1000, 1601, 20), 6000])
    assert thirty_two.mean() == 1446.875 and thirty_two.std(ddof=1) == pytest.approx(849.89, abs=0.01)


def test_dot_leaves_groups_with_a_wrong_answer_alone():
    assert profiles.dot_limit(np.array([*range(1000, 1281, 20), 6000]), np.array([True] * 15 + [False]), 3.0) is None


@pytest.mark.parametrize(("G", "z"), [(4, 1.5), (8, 2.4749), (10, 2.8460), (11, 3.0151), (16, 3.75), (32, 5.4801)])
def test_dot_never_cuts_at_an_alpha_of_the_largest_possible_deviation(G, z):
    tokens = np.array([1000] * (G - 1) + [90000])
    assert profiles.dot_limit(tokens, np.ones(G, bool), z + 1e-3) is None
    assert profiles.dot_limit(tokens, np.ones(G, bool), z - 1e-2) is not None


def test_percentile_limit_is_linear_between_neighbours():
    lengths_right = [800, 900, 1000, 1100, 2000]
    near([profiles.percentile_limit(lengths_right, rho) for rho in (50, 80, 90)], [1000, 1280, 1640])
    limit = profiles.percentile_limit([500, 1500, 900], 50)
    assert limit == 900
    near(np.array([1, 1, 1, 0]) * (np.array([500, 1500, 900, 3000]) <= limit), [1, 0, 1, 0])
    assert profiles.percentile_limit([], 50) is None


@pytest.mark.parametrize(("form", "expected"), [("code", [5120, 7168, 16000]), ("paper", [5120, 6144, 16000])])
def test_laser_limits_by_class_in_both_forms(form, expected):
    coverage = {"easy": {4096: 0.1, 5120: 0.3}, "medium": {6144: 0.4, 7168: 0.5}, "hard": {16384: 1.0}}
    assert [profiles.laser_limit(coverage[name], name, 8, 16000, form) for name in coverage] == expected


def test_laser_limit_is_the_longest_response_where_no_length_covers_enough():
    assert profiles.laser_limit({4096: 0.9}, "hard", 8, 7000) == 7000
    assert profiles.laser_limit({}, "easy", 8, 7000) == 7000


def test_laser_limit_in_code_wants_a_fifth_of_easy_and_half_of_medium_answers():
    for name, share in (("easy", 0.2), ("medium", 0.5), ("hard", 1.0)):
        assert profiles.laser_limit({1000: share}, name, 8, 9000) == 1000
        assert profiles.laser_limit({1000: share - 0.01}, name, 8, 9000) == 9000


def test_qglas_adds_to_the_shorter_of_positive_advantages():
    advantage = np.array([0.8660, -0.8660, 0.8660, -0.8660])
    reward = RIGHT.astype(float)
    beta = 0.2 / 2 * reward.std(ddof=1)  # so that the whole weight is the example's 0.2
    near(advantage + profiles.qglas(advantage, TOKENS, reward, 1.0, beta), [0.9660, -0.8660, 0.8660, -0.8660])


def test_gdpo_over_groups_keeps_the_length_parts_share():
    components = np.array([[1, 0, 1, 0], [1, 0.6667, 0.3333, 0]])
    near(profiles.gdpo(components, [1, 0.2]), [1.2683, -0.9105, 0.9105, -1.2683], 1e-4)
    summed = components.T @ [1, 0.2]
    near((summed - summed.mean()) / summed.std(), [1.1163, -0.8682, 0.8682, -1.1163], 1e-4)


def test_gdpo_against_the_others_blows_up_a_lone_wrong_answer():
    right = np.array([1, 1, 0, 1])
    scaled = 0.1 * lengths.scaling(TOKENS, right)
    near(scaled, [0.0444, 0.0111, 0, -0.0556])
    near(profiles.gdpo([right], [1], "leave_one_out"), [0.5773, 0.5773, -1, 0.5773])
    near(profiles.gdpo([right + scaled], [1], "leave_one_out"), [0.6942, 0.6041, -19.6392, 0.4367], 2e-3)
    near(whitened(profiles.gdpo([right, right + scaled], [1, 1], "leave_one_out")), [0.5106, 0.5023, -1.4999, 0.4870], 1e-4)


def test_gdpo_with_length_as_its_own_feature_puts_the_longest_right_answer_below_the_wrong_one():
    right = np.array([1, 1, 0, 1])
    scaled = 0.1 * lengths.scaling(TOKENS, right)
    near(profiles.gdpo([scaled], [1], "leave_one_out"), [1.6591, 0.2957, 0, -3.2024], 1e-3)
    near(whitened(profiles.gdpo([right, scaled], [1, 1], "leave_one_out")), [1.1114, 0.4708, -0.4093, -1.1729], 1e-3)
