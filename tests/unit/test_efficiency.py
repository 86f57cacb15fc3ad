"""Efficiency scalars against the worked numbers of their sources (evaluation methods A10; recent methods 8 for OckScore)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.efficiency import (
    Point,
    Weights,
    aes,
    against,
    budget_area,
    e3,
    failures_at_limit,
    front,
    frontier_gap,
    hypervolume,
    ock,
    per_token,
    scalars,
    scaling,
)
from evaluation.measured import Measured
from rollout.records import CHARACTERS

BUDGETS, ACCURACY = [500, 1000, 2000, 4000], [0.20, 0.35, 0.45, 0.50]


def measured(share: list[float], length: list[float], ruler: str = "a") -> Measured:
    return Measured(tuple(map(str, range(len(share)))), np.array(share), np.array(length), ruler)


def points(ruler: str = "a") -> list[Point]:
    named = {"a": (8000, 0.60), "b": (5000, 0.55), "c": (6000, 0.50), "d": (2000, 0.30), "e": (5000, 0.52)}
    return [Point(label, accuracy, length, ruler) for label, (length, accuracy) in named.items()]


def test_e3_and_accuracy_per_token_hand_examples() -> None:
    assert (e3(0.5, 2000), per_token(0.5, 2000)) == (pytest.approx(1.25), pytest.approx(0.025))
    assert (e3(0.8, 6400), per_token(0.8, 6400)) == (pytest.approx(1.0), pytest.approx(0.0125))


def test_token_efficiency_hand_example() -> None:
    assert per_token(0.72, 3000) / per_token(0.70, 5000) == pytest.approx(1.7143, abs=5e-5)


@pytest.mark.parametrize(
    ("accuracy", "weights", "expected"),
    [(0.52, (1, 3, 5), 0.52), (0.48, (1, 3, 5), 0.20), (0.48, (1, 5, 10), 0.0), (0.48, (0.1, 0.1, 1), 0.0), (0.5, (1, 3, 5), 0.4)],
)
def test_aes_hand_examples(accuracy: float, weights: tuple[float, float, float], expected: float) -> None:
    assert aes(accuracy, 6000, 0.5, 10_000, Weights(*weights)) == pytest.approx(expected, abs=1e-9)


def test_aes_prints_its_weights_and_compares_the_same_problems() -> None:
    base, model = measured([0.5, 0.5], [10_000, 10_000]), measured([0.52, 0.52], [6000, 6000])
    score, ratio = against(model, base)
    assert (score.name, score.value) == ("AES (1, 3, 5)", pytest.approx((0.52,) * 3))
    assert (ratio.name, ratio.value) == ("accuracy per token, new over old", pytest.approx((0.52 / 0.5 / 0.6,) * 3))
    assert against(model, base, Weights(0.1, 0.1, 1))[0].name == "AES (0.1, 0.1, 1)"


def test_scalars_are_of_means_over_problems_not_means_of_scalars() -> None:
    found = {scalar.name: scalar.value.mean for scalar in scalars(measured([1, 0], [1000, 3000]))}
    assert found == {
        "E3 of Plan-and-Budget": pytest.approx(1.25),
        "accuracy per token": pytest.approx(0.025),
        "OckScore, base 10": pytest.approx(50 - 10 * math.log10(1.2)),
        "OckScore, base e": pytest.approx(50 - 10 * math.log(1.2)),
    }


def test_a_base_that_solves_nothing_in_some_draws_leaves_aes_without_bounds() -> None:
    score = against(measured([1, 0, 1], [5, 5, 5]), measured([1, 0, 0], [10, 10, 10]))[0]
    assert math.isfinite(score.value.mean) and not math.isfinite(score.value.high)


def test_scalars_of_two_models_need_one_ruler() -> None:
    with pytest.raises(ValueError, match="different units"):
        against(measured([1], [5]), measured([1], [5], "b"))
    with pytest.raises(ValueError, match="different units"):
        hypervolume([*points(), Point("x", 0.9, 100, "b")], 10_000)
    with pytest.raises(ValueError, match="defined for tokens"):
        scalars(measured([1], [5], CHARACTERS))


@pytest.mark.parametrize(
    ("accuracy", "tokens", "ten", "natural"),
    [
        (72.0, 20154, 67.207, 60.963),
        (71.0, 36212, 64.352, 55.693),
        (85.5, 625, 85.24, 84.89),
        (80, 3000, 78.861, 77.376),
        (80, 12000, 76.576, 72.115),
        (76, 3000, 74.861, 73.376),
        (50, 5000, 48.239, 50 - 10 * math.log(1.5)),
        (100, 90_000, 90, 100 - 10 * math.log(10)),  # 90,000 tokens cost exactly 10 points
    ],
)
def test_ock_scores_of_the_published_table(accuracy: float, tokens: float, ten: float, natural: float) -> None:
    assert ock(accuracy / 100, tokens, "10") == pytest.approx(ten, abs=6e-3)
    assert ock(accuracy / 100, tokens, "ln") == pytest.approx(natural, abs=6e-3)


def test_failing_without_tokens_is_not_rewarded() -> None:  # half the rows fail: 49.031 if they count nothing
    tokens_S, failed_S = np.array([5000, 0]), np.array([False, True])
    assert ock(0.5, tokens_S.mean()) == pytest.approx(49.031, abs=5e-4)
    assert ock(0.5, failures_at_limit(tokens_S, failed_S, 16_000).mean()) < ock(0.5, 5000)


def test_area_over_budgets_hand_example_depends_on_the_axis() -> None:
    assert budget_area(BUDGETS, ACCURACY, "linear") == pytest.approx(0.425)
    assert budget_area(BUDGETS, ACCURACY, "log2") == pytest.approx(0.38333, abs=5e-6)
    np.testing.assert_allclose(budget_area(BUDGETS, [ACCURACY, [1] * 4], "log2"), [0.38333, 1], atol=5e-6)


@pytest.mark.parametrize(("budgets", "axis"), [([500], "linear"), ([500, 500], "linear"), ([2000, 500], "linear"), ([0, 500], "log2")])
def test_budgets_that_span_nothing_are_refused(budgets: list[float], axis: str) -> None:
    with pytest.raises(ValueError, match="ascending"):
        budget_area(budgets, [0.5] * len(budgets), axis)


def test_gap_to_a_frontier_hand_example() -> None:
    frontier = [0.3, 0.4, 0.5, 0.5]
    assert frontier_gap(ACCURACY, frontier) == pytest.approx(0.2)
    assert budget_area(BUDGETS, np.subtract(frontier, ACCURACY), "linear") == pytest.approx(0.0392857, abs=1e-7)


def test_scaling_hand_example() -> None:  # s1
    assert scaling(BUDGETS, ACCURACY) == pytest.approx(1.2123e-4, abs=5e-9)
    with pytest.raises(ValueError, match="all different"):
        scaling([500, 500], [0.1, 0.2])


def test_front_and_hypervolume_hand_example() -> None:
    assert [point.label for point in front(points())] == ["d", "b", "a"]
    assert hypervolume(points(), 10_000) == pytest.approx(0.375)


def test_points_beyond_the_limit_add_nothing_and_twins_stay_on_the_front() -> None:
    far = Point("far", 0.99, 12_000, "a")
    assert hypervolume([*points(), far], 10_000) == pytest.approx(0.375)
    assert hypervolume([far], 10_000) == 0
    twins = [Point("x", 0.5, 100, "a"), Point("y", 0.5, 100, "a")]
    assert front(twins) == twins and hypervolume(twins, 200) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="needs a point"):
        hypervolume([], 100)
