"""Several attempts at one problem, against hand examples (evaluation methods A5, B1), every subset and simulation."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.attempts import (
    Chains,
    all_of_k,
    any_of_k,
    best_of_k,
    chains,
    g_pass,
    maj_at_k,
    mg_pass,
    pass_at_k,
    short_m,
    short_m_at_k,
    simulated,
)


def stored(
    lengths: list[float], answers: list[str | None], gold: str = "B", unfinished: tuple[int, ...] = (), score: list[float] | None = None
) -> Chains:
    finished = [n not in unfinished for n in range(len(lengths))]
    right = [answer == gold and ended for answer, ended in zip(answers, finished, strict=True)]
    return chains(lengths, answers, right, finished, lambda first, other: first == other, score)


FIVE = stored([100, 200, 300, 400, 500], list("ABABB"))


# how many of k are right


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (5, 2, 2, 0.7),
        (5, 4, 2, 1),
        (5, 0, 2, 0),
        (16, 3, 1, 0.1875),
        (16, 3, 4, 0.6071),
        (16, 3, 8, 0.9),
        (16, 13, 4, 1),
        (256, 4, 128, 0.939),
    ],
)
def test_pass_at_k_hand_examples(n: int, c: int, k: int, expected: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=6e-4 if n == 256 else 5e-5)


def test_what_k_samples_say_equals_brute_force_for_every_n_up_to_8() -> None:  # P35
    for n in range(1, 9):
        for c in range(n + 1):
            for k in range(1, n + 1):
                right = np.array([sum(draw) for draw in itertools.combinations([True] * c + [False] * (n - c), k)])
                assert pass_at_k(n, c, k) == pytest.approx((right >= 1).mean(), abs=1e-12)
                assert all_of_k(n, c, k) == pytest.approx((right == k).mean(), abs=1e-12)
                assert g_pass(n, c, k, 0.5) == pytest.approx((right >= max(-(-k // 2), 1)).mean(), abs=1e-12)
                assert mg_pass(n, c, k) == pytest.approx(np.maximum(right - -(-k // 2), 0).mean() * 2 / k, abs=1e-12)


def test_problems_with_different_numbers_of_samples_are_counted_at_once() -> None:
    np.testing.assert_allclose(pass_at_k([5, 4, 2], [2, 4, 0], 2), [0.7, 1, 0], atol=1e-12)


def test_more_draws_than_samples_are_refused_with_the_problem_that_has_too_few() -> None:
    with pytest.raises(ValueError, match="pass@5 of 2 right in 4 samples"):
        pass_at_k(4, 2, 5)
    with pytest.raises(ValueError, match="pass@3 of 1 right in 2 samples"):
        pass_at_k([4, 2], [2, 1], 3)


def test_g_pass_hand_examples() -> None:  # A5
    assert (g_pass(4, 3, 2, 0.5), g_pass(4, 3, 2, 1)) == (pytest.approx(1), pytest.approx(0.5))
    assert (g_pass(8, 6, 4, 0.75), g_pass(8, 6, 4, 1)) == (pytest.approx(0.785714, abs=1e-6), pytest.approx(0.214286, abs=1e-6))
    assert mg_pass(8, 6, 4) == pytest.approx(2 / 4 * (0.785714 + 0.214286)) == pytest.approx(0.5)
    assert mg_pass([8, 8], [6, 0], 1).tolist() == [0, 0]


def test_a_share_of_k_is_rounded_up_from_what_was_meant() -> None:  # 0.28 x 25 is 7.000000000000001 in binary
    assert g_pass(40, 22, 25, 0.28) == pytest.approx(g_pass(40, 22, 25, 0.2799))
    assert g_pass(40, 22, 25, 0.2801) < g_pass(40, 22, 25, 0.28)


# votes


def test_votes_hand_example() -> None:  # A5: gold B, ties to the shortest
    assert [maj_at_k(FIVE, k) for k in range(1, 6)] == pytest.approx([3 / 5, 2 / 5, 7 / 10, 2 / 5, 1])


def test_short_m_hand_examples() -> None:  # B1
    assert [short_m_at_k(FIVE, 1, k).accuracy for k in (1, 2, 3, 5)] == pytest.approx([3 / 5, 2 / 5, 3 / 10, 0])
    assert [short_m_at_k(FIVE, 1, k).tokens for k in (1, 2, 3)] == pytest.approx([300, 400, 450])
    assert (short_m_at_k(FIVE, 3, 3).accuracy, short_m_at_k(FIVE, 3, 5).accuracy) == pytest.approx((0.7, 0))
    assert [short_m(FIVE, m)[1:] for m in (1, 3, 5)] == [(500, 100), (1200, 300), (1500, 500)]


def test_chains_that_were_stopped_count_what_they_had_thought() -> None:  # B1: winners 5, 9, 12; spent 5, 9, 12, 12, 12
    found = short_m(stored([60, 12, 5, 40, 9], list("BBABA")), 3)
    assert (found.right, found.tokens, found.time) == (False, 5 + 9 + 12 + 12 + 12, 12)


def test_what_a_chain_says_that_never_thought_to_the_end_is_no_vote() -> None:
    found = chains([5, 9, 1], ["A", "A", "B"], [True, True, False], [False, False, True], str.__eq__)
    assert found.answer.tolist() == [0, -1, -1] and found.said == ("B",) and not short_m(found, 3).right


@st.composite
def problems(draw: st.DrawFn) -> Chains:
    n = draw(st.integers(1, 8))
    some = st.lists(st.integers(1, 6), min_size=n, max_size=n)
    answers = draw(st.lists(st.sampled_from([None, "A", "B", "C", "D"]), min_size=n, max_size=n))
    unfinished = draw(st.sets(st.integers(0, n - 1)))
    return stored([float(length) for length in draw(some)], answers, unfinished=tuple(unfinished))


@given(problems())
@settings(max_examples=60, deadline=None)
def test_the_closed_form_is_the_mean_over_every_subset(samples: Chains) -> None:
    n = len(samples.thinking)
    for k in range(1, n + 1):
        for m in range(1, k + 1):
            seen = [short_m(samples.first(np.array(some)), m) for some in itertools.combinations(range(n), k)]
            np.testing.assert_allclose(short_m_at_k(samples, m, k), np.mean(seen, axis=0), atol=1e-9)


def test_best_of_k_hand_examples() -> None:
    """Scores 5 to 1 with the third and fifth right: the best of all is wrong, of 3 it is right only if the best two are left out (1 in 10)."""
    samples = stored([1, 2, 3, 4, 5], list("AABAB"), score=[5, 4, 3, 2, 1])
    assert [best_of_k(samples, k).accuracy for k in (1, 2, 3, 4, 5)] == pytest.approx([2 / 5, 2 / 10, 1 / 10, 0, 0])
    alike = stored([1, 2, 3], list("ABB"), score=[7, 7, 7])  # the best is drawn by lot
    assert [best_of_k(alike, k).accuracy for k in (1, 2, 3)] == pytest.approx([2 / 3] * 3)
    with pytest.raises(ValueError, match="without scores have no best; sample with --logprobs, or import with --score"):
        best_of_k(FIVE, 2)


@given(problems(), st.data())
@settings(max_examples=60, deadline=None)
def test_best_and_oracle_are_means_over_every_subset(samples: Chains, data: st.DataObject) -> None:
    n = len(samples.thinking)
    scores = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    samples = replace(samples, score=np.array(scores, dtype=float))
    for k in range(1, n + 1):
        best, oracle = [], []
        for some in map(list, itertools.combinations(range(n), k)):
            top = [place for place in some if scores[place] == max(scores[one] for one in some)]
            best.append(np.mean(samples.own[top]))
            first = min((samples.thinking[place] for place in some if samples.own[place]), default=None)
            stop = samples.thinking[some].max() if first is None else first
            oracle.append((first is not None, np.minimum(samples.thinking[some], stop).sum(), stop))
        cost = [(samples.thinking[list(some)].sum(), samples.thinking[list(some)].max()) for some in itertools.combinations(range(n), k)]
        np.testing.assert_allclose(best_of_k(samples, k), (np.mean(best), *np.mean(cost, axis=0)), atol=1e-9)
        np.testing.assert_allclose(any_of_k(samples, k), np.mean(oracle, axis=0), atol=1e-9)
        assert any_of_k(samples, k).accuracy == pytest.approx(pass_at_k(n, int(samples.own.sum()), k), abs=1e-9)


def test_simulation_of_sixty_four_samples_agrees_with_the_closed_form() -> None:
    rng = np.random.default_rng(3)
    samples = stored(rng.integers(500, 9000, 64).tolist(), ["B" if draw < 0.4 else "ACDE"[int(draw * 97) % 4] for draw in rng.random(64)])
    for m, k in ((1, 8), (3, 8), (16, 16)):
        exact, (accuracy, tokens, time) = short_m_at_k(samples, m, k), simulated(samples, m, k, draws=2000)
        assert abs(accuracy.mean - exact.accuracy) < 2 * (accuracy.high - accuracy.low)
        assert (tokens, time) == (pytest.approx(exact.tokens, rel=0.03), pytest.approx(exact.time, rel=0.03))


def test_many_samples_are_counted_exactly() -> None:  # C(160, 80) is beyond what a float holds whole
    samples = stored([float(n) for n in range(160)], ["B" if n % 3 else "A" for n in range(160)])
    assert maj_at_k(samples, 1) == pytest.approx(106 / 160)
    assert maj_at_k(samples, 160) == 1
    assert maj_at_k(samples, 159) == 1  # 105 or 106 against 54 or 53


def test_samples_without_an_answer_abstain_and_nobody_voting_is_wrong() -> None:
    assert maj_at_k(stored([1, 2, 3], [None, None, "B"]), 3) == 1
    assert maj_at_k(stored([1, 2], [None, None]), 2) == 0


def test_who_never_finished_thinking_is_no_voter_and_is_waited_for_last() -> None:
    samples = stored([10, 30, 20], ["B", "A", "A"], unfinished=(0,))
    assert samples.thinking.tolist() == [20, 30, 30] and samples.finished.tolist() == [True, True, False]
    assert short_m_at_k(samples, 3, 3).accuracy == 0


def test_equal_answers_are_one_however_they_are_written() -> None:
    same = chains([1, 2, 3], ["1/2", "3", "0.5"], [True, False, True], [True] * 3, lambda first, other: {first, other} == {"1/2", "0.5"})
    assert same.answer.tolist() == [0, 1, 0] and same.right.tolist() == [True, False]


def test_votes_among_more_chains_than_there_are_are_refused() -> None:
    with pytest.raises(ValueError, match="short-3@6 of 5 samples"):
        short_m_at_k(FIVE, 3, 6)
    with pytest.raises(ValueError, match="short-6@5"):
        short_m(FIVE, 6)
