"""Where lengths go, against hand examples (evaluation methods A9, A12)."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.lengths import (
    CLASSES,
    accuracy_by_bin,
    both_right,
    by_outcome,
    conditional_error,
    relative_bins,
    savings,
    tiers,
    transitions,
)
from evaluation.measured import Samples
from evaluation.word_overlap import token_f1


def samples(problems: list[list[tuple[float, int]]], ruler: str = "a", names: str = "abcdefghijklmnop") -> Samples:
    """Samples from (length, right) pairs of each problem; half of each is thinking."""
    flat = [sample for problem in problems for sample in problem]
    length_S, right_S = (np.array(values, dtype=kind) for values, kind in zip(zip(*flat, strict=True), (float, bool), strict=True))
    return Samples(
        ids=tuple(names[: len(problems)]),
        problem=np.repeat(np.arange(len(problems)), [len(problem) for problem in problems]),
        right=right_S,
        wrong=~right_S,
        length=length_S,
        thinking=length_S / 2,
        finish=np.full(len(flat), "stop", dtype="<U6"),
        extracted=np.full(len(flat), None),
        ruler=ruler,
    )


def test_thinking_answer_and_total_are_split_by_outcome() -> None:
    given = samples([[(10, 1), (40, 0)], [(20, 1), (320, 0)]])
    given.finish[3], given.thinking[3] = "length", np.nan
    table = by_outcome(given)
    assert table["right"].model_dump() == {"samples": 2, "closed": 1, "thinking": 7.5, "answer": 7.5, "total": 15}
    assert table["wrong"].model_dump() == {"samples": 2, "closed": 0.5, "thinking": 20, "answer": 20, "total": 180}
    assert table["truncated"].model_dump() == {"samples": 1, "closed": 0, "thinking": None, "answer": None, "total": 320}


def test_truncated_is_what_the_engine_cut_whatever_its_length() -> None:
    given = samples([[(320, 1), (320, 0), (7, 0), (9, 1)]])
    given.finish[2:] = "length"  # one of them had answered
    assert by_outcome(given)["truncated"].samples == 2 and by_outcome(given)["truncated"].total == 8


def test_conditional_error_hand_example() -> None:  # three bins: wrong 1, 2, 3 and right 9, 6, 1
    length_S = np.repeat([0, 100, 200], [10, 8, 4])
    right_S = np.repeat([False, True] * 3, [1, 9, 2, 6, 3, 1])
    np.testing.assert_allclose(conditional_error(length_S, right_S, [0, 100, 200]), [0.2727, 0.4167, 0.75], atol=5e-5)
    assert np.isnan(conditional_error(length_S, right_S, [300])).all()


def test_relative_length_hand_example() -> None:  # p99 of 100, 200, .. 1000 is 991
    length_S = np.arange(100, 1001, 100)
    assert np.percentile(length_S, 99) == 991
    assert relative_bins(length_S)[[0, 4, 9]].tolist() == [1, 5, 9]


def test_tiers_are_quantiles_and_equally_hard_problems_share_one() -> None:
    assert tiers([8, 1, 2, 3, 4, 5, 6, 7]).tolist() == [3, 0, 0, 1, 1, 2, 2, 3]
    assert tiers([0, 0, 0, 0, 0, 1], 4).tolist() == [0, 0, 0, 0, 0, 3]
    assert tiers([5, 5, 5]).tolist() == [0, 0, 0]


def test_accuracy_by_length_is_told_within_tiers_with_intervals_over_problems() -> None:
    given = samples([[(10, 1), (90, problem % 2)] for problem in range(6)] + [[(10, 0), (90, 0)]])
    table = accuracy_by_bin(given, (given.length > 50).astype(int), np.array([0] * 6 + [1]))
    assert [(cell["tier"], cell["bin"], cell["samples"], cell["problems"], cell["accuracy"]) for cell in table] == [
        (0, 0, 6, 6, 1.0),
        (0, 1, 6, 6, 0.5),
        (1, 0, 1, 1, 0.0),
        (1, 1, 1, 1, 0.0),
    ]
    alike, mixed, few = table[0], table[1], table[2]
    assert alike["low"] == pytest.approx(6 / (6 + 1.959964**2)) and alike["high"] == 1  # Wilson
    assert 0 < mixed["low"] < 0.5 < mixed["high"] < 1
    assert few["low"] is few["high"] is None


def test_samples_of_one_problem_are_not_taken_for_many_problems() -> None:
    one = samples([[(10, 1)] * 50 + [(10, 0)] * 50])
    assert accuracy_by_bin(one, np.zeros(100, dtype=int), np.array([0]))[0]["low"] is None


def test_pairs_are_problems_that_both_solve_with_lengths_of_right_samples() -> None:
    old = samples([[(100, 1), (900, 0)], [(50, 1), (70, 1)], [(10, 0), (10, 0)], [(40, 1), (40, 1)]])
    new = samples([[(40, 1), (60, 1)], [(90, 1), (5, 0)], [(10, 1), (10, 1)], [(8, 0), (8, 0)]])
    pairs = both_right(old, new)
    assert (pairs.problem.tolist(), pairs.old.tolist(), pairs.new.tolist()) == ([0, 1], [100, 60], [50, 90])
    assert pairs.ratio.tolist() == [0.5, 1.5]
    assert savings(pairs, np.array([0, 0, 1, 1])) == [{"tier": 0, "problems": 2, "median": 0, "low": -0.25, "high": 0.25}]
    assert [CLASSES[index] for index in transitions(old, new)] == ["both right, shorter", "both right, not shorter", "gained", "lost"]


def test_nobody_solving_a_problem_is_a_class_and_no_pair() -> None:
    none = samples([[(10, 0)], [(10, 0)]])
    assert [CLASSES[index] for index in transitions(none, none)] == ["neither", "neither"]
    assert savings(both_right(none, none), np.zeros(2, dtype=int)) == []


def test_pairs_are_matched_by_id_and_refuse_other_problems_and_other_tokens() -> None:
    old, new = samples([[(10, 1)], [(20, 1)]]), samples([[(5, 1)], [(30, 1)]], names="ba")
    assert both_right(old, new).new.tolist() == [30, 5]
    with pytest.raises(ValueError, match="different units"):
        both_right(old, samples([[(5, 1)], [(30, 1)]], ruler="b"))
    with pytest.raises(ValueError, match="2 problems are in one evaluation only"):
        transitions(old, samples([[(5, 1)], [(30, 1)]], names="ac"))


# words


@pytest.mark.parametrize(
    ("answer", "golds", "expected"),
    [
        ("Barack Obama", ["Obama"], 2 / 3),
        ("The Beatles", ["beatles"], 1),
        ("in the year 1969", ["1969"], 0.5),
        ("new new york", ["New York"], 0.8),
        ("Paris, France", ["London", "Paris"], 2 / 3),
        (r"\text{even function}", ["even function"], 1),
        ("O'Brien", ["OBrien"], 1),
        ("Göteborg", ["göteborg"], 1),
        ("42", ["forty two"], 0),
        (None, ["Paris"], 0),
        ("", ["Paris"], 0),
        ("the", ["a"], 1),
    ],
)
def test_token_f1_is_of_the_gold_that_fits_best(answer: str | None, golds: list[str], expected: float) -> None:
    assert token_f1(answer, golds) == pytest.approx(expected)
