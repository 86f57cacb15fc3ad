"""The simulation against times by hand, and what must hold whatever the numbers."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from launch.simulate import Layout, Trace, Work, drawn, sample, steps, update_seconds

PLAIN = Trace(shares=(0, 1), lengths=(1, 100), step=1.0, each=0.5)


def test_two_engines_and_three_requests_take_the_time_by_hand():
    """Engine 0 has 4 and, as third, 2 tokens; engine 1 has 3. Engine 0: 2 steps of 1 + 2 x 0.5, then 2 of 1.5 = 7 s; engine 1: 3 x 1.5 = 4.5 s.

    Three sequences run until 4 s (two until 4.5): less than half of three from 4.5 to 7 s, when one does.
    """
    found = sample(PLAIN, Work(3, 1, 100), Layout(2, 1), [[4], [3], [2]], slice_s=inf)
    assert found.seconds == pytest.approx(7) and found.busy == pytest.approx(7 + 4.5) and found.tail == pytest.approx(2.5)
    assert (found.tokens, found.groups, found.trained) == (9, 3, [[4], [3], [2]])


def test_a_sequence_beyond_the_seats_waits_for_one_that_ends():
    """One seat: 4 + 3 + 2 steps of 1.5 s; and taking a sequence in costs 0.25 s each time."""
    trace = Trace(PLAIN.shares, PLAIN.lengths, step=1.0, each=0.5, take=0.25)
    found = sample(trace, Work(3, 1, 100), Layout(1, 1, seats=1), [[4], [3], [2]], slice_s=inf)
    assert found.seconds == found.busy == pytest.approx(9 * 1.5 + 3 * 0.25)


def test_driver_and_judges_work_one_after_the_other_behind_the_engines():
    """Call 1 s, 2 sequences of 1 step (2 s), call 1 s, 2 answers x 0.5 s of the driver, then one judge 2 x 3 s."""
    trace = Trace(PLAIN.shares, PLAIN.lengths, step=1.0, each=0.5, poll=1.0, score=0.5, judge=3.0)
    assert sample(trace, Work(1, 2, 100), Layout(1, 1), [[1, 1]], slice_s=inf).seconds == pytest.approx(1 + 2 + 1 + 1 + 6)
    assert sample(trace, Work(1, 2, 100, judges=2), Layout(1, 1), [[1, 1]], slice_s=inf).seconds == pytest.approx(1 + 2 + 1 + 1 + 3)


def test_an_engine_is_asked_again_after_each_slice():
    """4 steps of 1.5 s in slices of 3 s: two steps each; calls of 0.5 s before each slice and behind the last."""
    trace = Trace(PLAIN.shares, PLAIN.lengths, step=1.0, each=0.5, poll=0.5)
    assert sample(trace, Work(1, 1, 100), Layout(1, 1), [[4]], slice_s=3.0).seconds == pytest.approx(4 * 1.5 + 3 * 0.5)


def test_engines_that_share_a_core_take_turns_on_it():
    """Both engines want the one core for 4.5 s of it (9 s), then engine 0 has it alone for 2.5 s."""
    assert sample(PLAIN, Work(3, 1, 100), Layout(2, 1, cores=1), [[4], [3], [2]], slice_s=inf).seconds == pytest.approx(9 + 2.5)
    assert sample(PLAIN, Work(1, 1, 100), Layout(1, 1, cores=2, others=3), [[4]], slice_s=inf).seconds == pytest.approx(6 * 2)


def test_groups_that_are_left_out_are_replaced_up_to_the_refill_limit():
    fates = iter([False, False, True, False, True])
    lengths = [[length] for length in range(1, 10)]
    found = sample(PLAIN, Work(2, 1, 100, max_refills=2), Layout(1, 1), lengths, lambda: next(fates), slice_s=inf)
    assert found.groups == 5 and found.trained == [[3], [5]]
    found = sample(PLAIN, Work(2, 1, 100, max_refills=2), Layout(1, 1), lengths, lambda: False, slice_s=inf)
    assert found.groups == 6 and found.trained == []
    half = Trace(
        PLAIN.shares, PLAIN.lengths, step=1.0, kept=0.5
    )  # twice as many are asked for, and none is left out: the others are surplus
    found = sample(half, Work(2, 1, 100, max_refills=2), Layout(1, 1), lengths, slice_s=inf)
    assert found.groups == 4 and found.trained == [[1], [2]]


def test_an_update_is_its_longest_share_its_ring_and_its_calls():
    """2 updates of four rows of 10 tokens: two ranks have 20 each at 0.1 s a token, the gradients' 2 x 1/2 x 200 GB at 200 GB/s, 2 micro-batches x 2 calls x 0.01 s."""
    trace = Trace(PLAIN.shares, PLAIN.lengths, update=0.1, poll=0.01)
    work = Work(8, 1, 100, updates=2, micro_batch_tokens=10, gradients=200e9)
    assert update_seconds(trace, work, Layout(1, 2), [[10] * 4] * 2) == pytest.approx((2 * (2 + 1 + 0.04), 2 * 2))
    assert update_seconds(trace, work, Layout(1, 2, cores=1), [[10] * 4] * 2) == pytest.approx((2 * (4 + 1 + 0.04), 2 * 4))
    one = Work(2, 1, 100)
    assert update_seconds(Trace((0, 1), (1, 9), update=0.1), one, Layout(1, 4), [[9, 1]]) == pytest.approx(
        (0.9, 0.25)
    )  # the longest is one rank's
    calls = update_seconds(Trace((0, 1), (1, 9), poll=0.01), Work(4, 1, 100, micro_batch_tokens=12), Layout(1, 1), [[9, 5], [5, 1]])
    assert calls == pytest.approx((0.03, 0))  # 9 alone, 5 + 5, and 1: rows are whole, and as wide as the longest beside them
    assert update_seconds(trace, replace(work, micro_batch_tokens=1), Layout(1, 2), [[0] * 4] * 2) == pytest.approx((2 * (1 + 0.04), 0))
    assert update_seconds(trace, work, Layout(1, 2), []) == (0.0, 0.0)
    # Groups are whole: of three groups of two one update has two, so 4 rows and 2 rows and not 3 and 3; of one group two updates are one.
    three = update_seconds(replace(trace, poll=0), replace(work, gradients=0), Layout(1, 1), [[1, 1]] * 3)
    assert three == pytest.approx((0.6, 0.6)) and update_seconds(trace, work, Layout(1, 1), [[10, 10]]) == pytest.approx((2 + 0.02, 2))
    assert update_seconds(replace(trace, poll=0), work, Layout(1, 2), [[8, 8], [1, 1], [1, 1]]) == pytest.approx((0.9 + 0.1 + 2 * 1, 1.0))


@pytest.mark.parametrize("seed", range(20))
def test_twice_the_engines_are_never_slower_and_shares_are_shares(seed: int):
    """With nothing serial: engine i of 2 N has a part of what engine i of N has."""
    random = np.random.default_rng(seed)
    trace = Trace(
        (0, 0.5, 1), (1, *sorted(random.integers(2, 400, 2).tolist())), alike=random.random(), step=0.01, each=random.random() / 100
    )
    work = Work(int(random.integers(1, 40)), int(random.integers(1, 9)), 300)
    lengths = [next(iter(drawn(trace, work, random))) for _ in range(work.prompts)]
    last, first = inf, 0.0
    for engines in (1, 2, 4, 8, 16, 32):
        found = sample(trace, work, Layout(engines, 1), lengths)
        assert found.seconds <= last + 1e-9 and 0 <= found.tail <= found.seconds
        assert found.busy <= engines * found.seconds + 1e-9
        least = sum(map(sum, lengths)) * trace.each + trace.step * max(max(group) for group in lengths)
        assert found.busy >= least - 1e-9  # each token takes its part, and the longest all its steps
        last, first = found.seconds, first or found.busy
        assert found.tokens == sum(map(sum, lengths)) and found.trained == lengths


@pytest.mark.parametrize("layout", [Layout(1, 1), Layout(3, 2, seats=4), Layout(4, 4, colocated=True), Layout(2, 2, cores=2, others=1.5)])
def test_steps_are_the_sum_of_their_parts_and_utilisation_is_a_share(layout: Layout):
    trace = Trace(
        (0, 0.5, 0.9, 1), (5, 50, 120, 300), alike=0.5, kept=0.6, trained=0.9, step=0.01, each=0.001, take=0.002, judge=0.01, score=0.001,
        poll=0.001, update=0.0005, push=0.05, rest=0.001, between=0.1,
    )  # fmt: skip
    work = Work(8, 4, 200, max_refills=3, updates=2, micro_batch_tokens=500, judges=2, gradients=4e6, weights=4e6, state=1e9)
    found = steps(trace, work, layout, 5, seed=3)
    assert found == steps(trace, work, layout, 5, seed=3) != steps(trace, work, layout, 5, seed=4)
    for one in found:
        assert one.seconds == pytest.approx(one.sample + one.update + one.push + one.rest + one.turns)
        assert 0 < one.engines <= one.sample and 0 < one.learner <= one.update and 0 <= one.tail <= one.sample
        assert bool(one.turns) == layout.colocated


def test_weights_go_between_nodes_as_what_carries_them_does():
    """25 GB over ports of 25 GB/s: by the store in log2 rounds of a tree, by a broadcast in one pass through all nodes, on shared GPUs nowhere; a call of 1 ms to each engine."""
    trace = Trace((0, 1), (1, 1), push=0.5, poll=0.001)

    def push(layout: Layout, *, stored: bool) -> float:
        return steps(trace, Work(1, 1, 10, weights=25e9, stored=stored), layout, 1)[0].push

    four, shared = Layout(16, 16), Layout(32, 32, colocated=True)  # of 8 GPUs each
    assert [push(one, stored=True) for one in (Layout(4, 4), four, shared)] == pytest.approx([0.504, 2.516, 2.532])
    assert [push(one, stored=False) for one in (Layout(4, 4), four, shared)] == pytest.approx([0.504, 1.516, 0.532])


def test_drawn_lengths_follow_the_quantiles_and_are_alike_in_a_group_as_far_as_they_are_told():
    random = np.random.default_rng(0)
    for alike in (0.0, 0.7):
        trace = Trace((0, 0.5, 1), (0, 100, 400), alike=alike)
        source = iter(drawn(trace, Work(1, 16, 300), random))
        lengths_PG = np.array([next(source) for _ in range(2000)])
        assert np.median(lengths_PG) == pytest.approx(100, rel=0.08) and lengths_PG.max() == 300 and lengths_PG.min() >= 1
        within, total = lengths_PG.var(axis=1, ddof=1).mean(), lengths_PG.var()
        assert 1 - within / total == pytest.approx(alike, abs=0.06)
