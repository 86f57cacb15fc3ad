"""How fast engines sample, from sums by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from rollout import pace
from rollout.collector import between
from rollout.pace import Pace, line, pace_metrics


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Both clocks stand until they are set: [wall, processor]."""
    now = [0.0, 0.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(pace.time, "thread_time", lambda: now[1])
    return now


def test_a_call_of_four_steps_gives_the_line_through_those_that_only_sample(clock: list[float]):
    """4 sequences come in (2 s), then 4, 3, 1 run for 1 + 0.5 x each: 3, 2.5, 1.5 s; the process has three quarters of a core."""
    one = Pace(gpu=True)
    one.begin(4)
    for at, running in ((2.0, 4), (5.0, 4), (7.5, 3), (9.0, 1)):
        clock[:] = at, 0.75 * at
        one.stepped(running)
    sums = one.take()
    assert line(sums) == pytest.approx((1.0, 0.5))
    assert pace_metrics([sums, Counter()], 10.0) == pytest.approx(
        {
            "engines/step": 1.0,
            "engines/step_each": 0.5,
            "engines/take": 0.5,
            "engines/busy": 0.45,
            "engines/core": 0.75,
            "engines/calls": 1,
        }
    )
    assert one.take() == {}


def test_on_a_cpu_the_line_is_of_processor_time(clock: list[float]):
    """As above: 1 + 0.5 x each, three quarters of it."""
    one = Pace(gpu=False)
    one.begin(4)
    for at, running in ((2.0, 4), (5.0, 4), (7.5, 3), (9.0, 1)):
        clock[:] = at, 0.75 * at
        one.stepped(running)
    found = pace_metrics([one.take()], 10.0)
    assert (found["engines/step"], found["engines/step_each"], found["engines/take"]) == pytest.approx((0.75, 0.375, 0.375))
    assert found["engines/busy"] == 0.9


def test_what_came_in_beside_others_is_in_no_line(clock: list[float]):
    one = Pace(gpu=True)
    one.begin(2)
    clock[0] = 1.0
    one.stepped(5)
    sums = one.take()
    assert sums["busy"] == 1.0 and line(sums) is None
    found = pace_metrics([sums], 2.0)
    assert (found["engines/step"], found["engines/step_each"], found["engines/take"]) == (None, None, None)


def test_a_line_does_not_go_below_nothing():
    """Steps of 1 and 4 s with 2 and 4 sequences would take -2 s without any: through 0, (2 x 1 + 4 x 4) / (4 + 16) a sequence."""
    sums = Counter(steps=2, n=6, nn=20, t=5, nt=18)
    assert line(sums) == (0.0, 0.9)
    falling = Counter(steps=2, n=6, nn=20, t=5, nt=2 * 4 + 4 * 1)
    assert line(falling) == (2.5, 0.0)  # faster with more: no part of it is theirs


def test_engines_that_keep_no_time_say_nothing():
    assert pace_metrics([Counter(), Counter()], 1.0) == {}


def test_the_variance_between_groups_is_that_of_one_way_analysis():
    """Means 2 and 10, variance within 2 each: between 32 - 2 / 2 = 31, of 33."""
    assert between([[1, 3], [9, 11]]) == pytest.approx(31 / 33)
    assert between([[1, 3], [3, 1]]) == 0.0
    assert between([[1, 3]]) is between([[5, 5], [5, 5]]) is None
