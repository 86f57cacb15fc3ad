"""Credit of what is thought although the answer is there: DECS' worked examples (recent.md 1.6), and what both kinds keep on any group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from recipes.credit import Credit
from recipes.schema import Recipe
from rewards.redundant import Thought
from rewards.verifier.verdict import Verdict
from rl.algorithm import prepare
from rl.credit import Members, by_group
from rl.policy import Row
from rollout.types import Completion, Group, Problem, Request, Rollout

kind = TypeAdapter(Credit).validate_python
Ranges = Sequence[tuple[int, int] | None]


def rollouts(right: Sequence[bool], lengths: Sequence[int], ranges: Ranges) -> list[Rollout]:
    made = []
    for index, (flag, length, found) in enumerate(zip(right, lengths, ranges, strict=True)):
        done = Completion(np.arange(length, dtype=np.int32), np.zeros(length, np.float32), "stop", np.zeros(length, np.int32))
        verdict = Verdict("right" if flag else "wrong", "")
        thought = Thought(0.5, found) if flag else None
        made.append(Rollout(f"r{index}", index, done, "", None, verdict, reward=float(flag), thought=thought))
    return made


def members(right: Sequence[bool], lengths: Sequence[int], ranges: Ranges, limit: int = 20, advantage: Sequence[float] = ()) -> Members:
    them = rollouts(right, lengths, ranges)
    rows = [
        Row(one.id, np.zeros(1, np.int32), one.completion.ids, one.completion.logprobs, np.full(one.tokens, value))
        for one, value in zip(them, advantage or [0.0] * len(them), strict=True)
    ]
    return Members(rows, them, limit, float(np.mean(right)))


def column(one: Members, place: int, **of_credit: Any) -> list[float | None]:
    """Advantages at a position, None for rollouts that end before it."""
    return [float(part[place]) if place < len(part) else None for part in by_group(one, kind({"kind": "decs"} | of_credit))]


ALL_RIGHT = ([True] * 4, [8, 10, 12, 16], [None, (6, 9), (5, 11), (6, 15)])
MIXED = ([True, True, False, False], [10, 16, 12, 14], [None, (6, 15), None, None])


@pytest.mark.parametrize(
    ("place", "form", "expected"),
    [
        (4, "code", [0, 0, 0, 0]),
        (5, "code", [0.5, 0.5, -1.5, 0.5]),
        (5, "paper", [0.5, 0.5, -1.5, 0.5]),  # of two values, so how far apart they are cancels
        (6, "code", [1.3956, -0.0735, -0.3673, -0.9549]),
        (6, "paper", [1.4828, -0.3329, -0.4539, -0.6960]),
        (9, "code", [None, 0.8489, -0.6063, -1.0914]),
        (13, "code", [None, None, None, -1.5]),
    ],
)
def test_decs_takes_advantages_by_position_over_the_whole_group(place: int, form: str, expected: list[float | None]):
    assert column(members(*ALL_RIGHT), place, form=form) == [
        value if value is None else pytest.approx(value, abs=1e-4) for value in expected
    ]


@pytest.mark.parametrize(
    ("place", "form", "expected"),
    [
        (4, "code", [0.8660, 0.8660, -0.8660, -0.8660]),
        (6, "code", [0.9301, 0.7995, -0.8648, -0.8648]),
        (6, "paper", [1.0124, 0.7061, -0.8592, -0.8592]),
    ],
)
def test_in_a_mixed_group_decs_still_reinforces_what_is_redundant_a_little_less(place: int, form: str, expected: list[float]):
    assert column(members(*MIXED), place, form=form) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("group", "form", "by_right"),
    [
        (16, "code", {8: 0.8906, 12: 0.4653, 13: 0.3605, 14: 0.2419, 15: 0.0797, 16: -3.7497}),
        (16, "paper", {8: 0.7316, 12: 0.2755, 13: 0.149, 14: -0.0084, 15: -0.2613, 16: -3.7499}),
        (8, "code", {4: 0.8706, 6: 0.4573, 7: 0.2424, 8: -2.4747}),
        (8, "paper", {4: 0.7346, 6: 0.2873, 7: 0.0162, 8: -2.4748}),
    ],
)
def test_decs_compresses_by_groups_of_right_answers_alone(group: int, form: str, by_right: dict[int, float]):
    """One redundant rollout of half the limit among so many right ones: its advantage there."""
    for right, expected in by_right.items():
        flags = [index < right for index in range(group)]
        one = members(flags, [10] * group, [(5, 9)] + [None] * (group - 1))
        assert column(one, 6, form=form)[0] == pytest.approx(expected, abs=1e-4)


def test_the_limit_is_decs_length_and_never_the_longest_rollout():
    short, long = members(*ALL_RIGHT), members(*ALL_RIGHT, limit=2000)
    assert column(short, 6) != pytest.approx(column(long, 6), abs=1e-3)
    alone = members([True, True], [8, 8], [None, (3, 6)])
    with_long = members([True, True, True], [8, 8, 400], [None, (3, 6), None], limit=20)
    assert column(alone, 4)[1] < 0 and column(with_long, 4)[1] < 0  # a longer one does not change what its reward is
    beyond = members([True, True, False], [30, 8, 8], [(3, 6), None, None])  # sampled beyond the limit: right still beats wrong
    assert column(beyond, 4)[0] > column(beyond, 4)[2]


def test_decs_says_nothing_of_a_rollout_that_trains_alone():
    [alone] = by_group(members([True], [8], [(3, 6)]), kind({"kind": "decs"}))
    assert not alone.any()


@st.composite
def groups(draw: st.DrawFn) -> Members:
    size = draw(st.integers(2, 6))
    lengths = [draw(st.integers(1, 24)) for _ in range(size)]
    right = [draw(st.booleans()) for _ in range(size)]
    ranges: list[tuple[int, int] | None] = []
    for length in lengths:
        start = draw(st.integers(0, length - 1))
        ranges.append(draw(st.sampled_from([None, (start, draw(st.integers(start + 1, length)))])))
    advantage = [draw(st.floats(-2, 2)) for _ in range(size)]
    return members(right, lengths, [found if flag else None for flag, found in zip(right, ranges, strict=True)], 20, advantage)


@given(groups(), st.sampled_from(["code", "paper"]), st.floats(0.01, 0.99))
def test_decs_puts_no_wrong_answers_token_before_a_right_ones_and_none_of_a_wrong_one_above_0(one: Members, form: str, beta: float):
    found = by_group(one, kind({"kind": "decs", "form": form, "beta": beta}))
    assert found is not None and all(np.isfinite(part).all() for part in found)
    for place in range(max(map(len, found))):
        there = [(rollout.right, part[place]) for rollout, part in zip(one.rollouts, found, strict=True) if place < len(part)]
        rights, wrongs = ([value for flag, value in there if flag == side] for side in (True, False))
        assert max(wrongs, default=-9) <= 0
        assert not one.mixed or not rights or not wrongs or min(rights) > max(wrongs)


@given(groups(), st.floats(0.01, 1))
def test_efficiency_changes_redundant_tokens_of_right_answers_alone_and_reinforces_none_of_them(one: Members, weight: float):
    found = by_group(one, kind({"kind": "efficiency", "weight": weight}))
    assert found is not None
    for rollout, row, part in zip(one.rollouts, one.rows, found, strict=True):
        inside = np.zeros(len(part), dtype=bool)
        if rollout.redundant:
            assert rollout.right
            inside[slice(*rollout.redundant)] = True
        assert (part[~inside] == row.advantage_T[~inside]).all()
        assert (part[inside] <= 0).all() and (part[inside] <= row.advantage_T[inside] - weight).all()
        assert (part[inside] == np.minimum(row.advantage_T[inside] - weight, 0)).all()


def test_efficiency_acts_where_all_are_right_and_holds_back_where_right_beats_wrong():
    level = by_group(members([True, True], [4, 4], [None, (1, 3)]), kind({"kind": "efficiency"}))
    assert [part.tolist() for part in level] == [[0, 0, 0, 0], [0, -0.5, -0.5, 0]]
    mixed = members([True, True, False], [4, 4, 4], [None, (1, 3), None], advantage=[0.7, 0.7, -1.4])
    assert [part.tolist() for part in by_group(mixed, kind({"kind": "efficiency"}))] == [[0.7] * 4, [0.7, 0, 0, 0.7], [-1.4] * 4]


def test_what_the_engine_put_there_gets_nothing_and_what_was_cut_off_either():
    """A forced mark lies behind the redundant part; `ends` is where an outlier was cut."""
    them = rollouts([True, True], [6, 8], [None, (1, 5)])
    forced = np.array([0, 0, 0, 0, 0, 1, 0, 0], np.int8)
    done = them[1].completion
    them[1].completion = Completion(done.ids, done.logprobs, done.finish, done.versions, forced)
    them[1].ends = 7
    group = Group(Request("r", Problem("p", "", ""), (1,), 2, 20, 1.0, 1.0, 0, limit=20), them)
    for settings in ({"kind": "efficiency"}, {"kind": "decs"}):
        [[first, second]] = prepare([group], Recipe.model_validate({"credit": settings, "sampler": {"group_size": 2}})).updates
        assert first.advantage_T[0] == 0 and (second.advantage_T[1:5] < 0).all() and not second.advantage_T[[0, 5, 6, 7]].any()
        assert second.weight_T[[5, 7]].tolist() == [0, 0] and second.weight_T[4] > 0


def test_a_step_of_right_answers_alone_counts_what_their_tokens_get():
    """Rewards say nothing there; what credit gives decides whether a run taught something (run.no_effect)."""
    request = Request("r", Problem("p", "", ""), (1,), 2, 20, 1.0, 1.0, 0, limit=20)
    alike = Group(Request("s", Problem("q", "", ""), (1,), 2, 20, 1.0, 1.0, 0, limit=20), rollouts([True, True], [5, 4], [None, None]))
    for rollout in alike.rollouts:
        rollout.id = f"s{rollout.id}"
    for settings, most in (({"kind": "efficiency"}, 0.5), ({"kind": "decs"}, 0.7071), ({"kind": "even"}, 0)):
        recipe = Recipe.model_validate({"credit": settings, "sampler": {"group_size": 2}})
        found = prepare([Group(request, rollouts([True, True], [6, 8], [None, (1, 5)])), alike], recipe).metrics
        assert found["advantage/max"] == pytest.approx(most, abs=1e-3) and found["groups/zero"] == 1 + (most == 0)
        assert found["advantage/constant"] == (1 if most else None)


@pytest.mark.parametrize("kind", ["decs", "efficiency", "gtpo", "drpo"])
def test_credit_that_gives_advantages_of_its_own_is_refused_where_a_selection_leaves_rollouts_out_by_a_0(kind: str):
    given = {"credit": {"kind": kind}, "objective": {"surrogate": "logp", "aggregate": "sequence_mean"} if kind == "drpo" else {}}
    with pytest.raises(ValidationError, match=f"select.others: zero .* credit.kind {kind} gives them one of its own; take drop"):
        Recipe.model_validate(given | {"select": {"kind": "shortest", "keep": 4, "others": "zero"}})
    Recipe.model_validate(given | {"select": {"kind": "shortest", "keep": 4}})


@pytest.mark.parametrize(
    "wrong",
    [
        {"beta": 0},
        {"beta": 1},
        {"most": 1},
        {"most": -0.1},
        {"gain": -1},
        {"words": []},
        {"words": ["wait", " "]},
        {"form": "new"},
        {"weight": 1},
    ],
)
def test_decs_numbers_have_bounds(wrong: dict[str, Any]):
    with pytest.raises(ValidationError):
        kind({"kind": "decs"} | wrong)
