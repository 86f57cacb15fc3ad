"""Thinking that is closed from outside the engine: cut at the budget, the mark appended, and gone on with from the prefix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.closing import ClosingPool
from rollout.reference_engine import ReferenceEngine
from rollout.thinking import ThinkIds
from rollout.types import FORCED, Completion, Problem, Request, Wait
from tests.scripted import ScriptedPool

MARK, STOP = (90, 91), 99
THINK = ThinkIds((23,), 6)  # of the tiny tokenizer


def asked(budget: int | None, most: int = 40, count: int = 2, **changes: object) -> Request:
    return replace(Request("r", Problem("p", "q", "1"), (1, 2), count, most, 1.0, 1.0, 0, thinking_tokens=budget), **changes)


def model(thought: int, answer: int, seen: list[Request]):
    """A model that thinks so many tokens (1), closes its thinking (the mark), answers (2) and stops, wherever it is begun."""

    def script(request: Request) -> list[Completion]:
        seen.append(request)
        begun = [id_ for id_ in request.prompt_ids[2:]]
        own = [1] * thought + [*MARK] + [2] * answer + [STOP]
        if begun[-2:] == [*MARK] and begun.count(90) == 1 and 2 not in begun:
            rest = [2] * answer + [STOP]  # whoever closed it
        else:
            rest = own[len(begun) :]
        ids = np.array(rest[: request.max_tokens], np.int32)
        finish = "stop" if len(rest) <= request.max_tokens else "length"
        logprobs = np.full(len(ids), -0.5, np.float32) if request.logprobs else np.zeros(0, np.float32)
        return [Completion(ids, logprobs, finish, np.full(len(ids), 7, np.int32))] * request.group_size

    return script


def closed(completion: Completion) -> bool:
    return "90, 91" in str(completion.ids.tolist())


def run(request: Request, thought: int, answer: int) -> tuple[list[Completion], list[Request]]:
    seen: list[Request] = []
    pool = ClosingPool(ScriptedPool(model(thought, answer, seen)), MARK, closed)
    pool.submit([request])
    [(same, found)] = pool.ready()
    assert same is request and pool.outstanding == 0 and pool.ready() == []
    return found, seen


def test_a_thought_that_is_longer_than_its_budget_is_closed_there_and_answered():
    found, seen = run(asked(10), thought=25, answer=3)
    for one in found:
        assert one.ids.tolist() == [1] * 10 + [*MARK, 2, 2, 2, STOP] and one.finish == "stop"
        assert one.sources is not None and np.flatnonzero(one.sources == FORCED).tolist() == [10, 11] and one.budget_hit
        assert (one.logprobs[~one.sampled] == 0).all() and len(one.logprobs) == len(one.ids)
        assert one.versions.tolist() == [7] * len(one.ids)
    assert [request.max_tokens for request in seen] == [10, 28, 28]
    assert seen[1].prompt_ids == (1, 2, *[1] * 10, *MARK) and seen[1].seed != seen[2].seed


def test_a_thought_that_closes_by_itself_goes_on_unmarked_and_one_that_is_done_is_not_asked_again():
    found, seen = run(asked(10), thought=5, answer=9)
    assert found[0].ids.tolist() == [1] * 5 + [*MARK] + [2] * 9 + [STOP] and found[0].sources is None and len(seen) == 3
    found, seen = run(asked(30), thought=5, answer=9)
    assert found[0].ids.tolist() == [1] * 5 + [*MARK] + [2] * 9 + [STOP] and len(seen) == 1


def test_a_budget_of_none_closes_at_once():
    found, seen = run(asked(0, logprobs=False), thought=5, answer=2)
    assert found[0].ids.tolist() == [*MARK, 2, 2, STOP] and not found[0].sampled[:2].any() and found[0].logprobs.shape == (0,)
    assert found[0].versions.tolist() == [7] * 5  # of what was sampled behind it
    assert all(request.thinking_tokens is None for request in seen)


def restless(segments: list[int], answer: int, seen: list[Request]):
    """A model that thinks so many tokens (1) in each stretch, answers (2) behind a mark, and thinks on behind a word (7)."""

    def script(request: Request) -> list[Completion]:
        seen.append(request)
        begun = list(request.prompt_ids[2:])
        here = begun[len(begun) - begun[::-1].index(7) :] if 7 in begun else begun  # of this stretch, the mark and the answer among it
        whole = [1] * segments[begun.count(7)] + [*MARK] + [2] * answer + [STOP]
        rest = [2] * answer + [STOP] if here[-2:] == [*MARK] else whole[len(here) :]
        ids = np.array(rest[: request.max_tokens], np.int32)
        finish = "stop" if len(rest) <= request.max_tokens else "length"
        return [Completion(ids, np.zeros(len(ids), np.float32), finish, np.zeros(len(ids), np.int32))] * request.group_size

    return script


@pytest.mark.parametrize(
    ("segments", "times", "thought", "put", "limits"),
    [
        ([4, 8], 1, [1] * 4 + [7] + [1] * 5, [4, 10, 11], [10, 5, 28]),  # of the remainder, 5 tokens; cut there, and closed
        ([4, 2, 9], 1, [1] * 4 + [7] + [1] * 2, [4], [10, 5, 30]),  # told once, and it ends before the budget
        (
            [4, 2, 1],
            2,
            [1] * 4 + [7] + [1] * 2 + [7] + [1],
            [4, 7, 10],
            [10, 5, 2, 29],
        ),  # told twice; its last mark is cut off, and made whole
        ([9], 3, [1] * 9, [10], [10, 29]),  # the budget is used up within its mark
        ([4, 8], 0, [1] * 4, [], [10]),  # nobody tells it
    ],
)
def test_thinking_that_ends_before_its_budget_is_told_to_go_on_and_shares_one_budget(segments, times, thought, put, limits):
    """s1's example: 10 tokens of thinking, 4 and then 8 of which end by themselves, one word between (2501.19393; its code trims 14 to 10)."""
    seen: list[Request] = []
    pool = ClosingPool(ScriptedPool(restless(segments, 3, seen)), MARK, closed, alone=True)
    pool.submit([asked(10, count=1, wait=Wait(times, (7,)))])
    [(_, [one])] = pool.ready()
    assert one.ids.tolist() == [*thought, *MARK, 2, 2, 2, STOP] and one.finish == "stop"
    assert np.flatnonzero(one.sources == FORCED).tolist() == put if put else one.sources is None
    assert [request.max_tokens for request in seen] == limits and all(request.wait is None for request in seen)
    assert len(one.ids) == len(one.logprobs) == len(one.versions) and pool.outstanding == 0


def test_a_word_that_would_use_up_the_budget_is_not_put_there():
    seen: list[Request] = []
    pool = ClosingPool(ScriptedPool(restless([8, 5], 3, seen)), MARK, closed, alone=True)
    pool.submit([asked(10, count=1, wait=Wait(1, (8, 7)))])
    [(_, [one])] = pool.ready()
    assert one.ids.tolist() == [1] * 8 + [*MARK, 2, 2, 2, STOP] and one.sources is None


def test_the_beginning_of_a_mark_at_the_end_of_a_sample_is_none():
    ids = np.array([1, 90, 91], np.int32)
    whole = Completion(ids, np.zeros(3, np.float32), "stop", np.zeros(3, np.int32))
    pool = ClosingPool(ScriptedPool(lambda request: [whole]), (*MARK, 92), lambda _: True, alone=True)
    pool.submit([asked(10, count=1, wait=Wait(1, (7,)))])
    assert pool.ready()[0][1] == [whole]


def test_where_engines_close_thinking_alone_only_what_waits_is_seen_to():
    seen: list[Request] = []
    pool = ClosingPool(ScriptedPool(restless([4], 3, seen)), MARK, closed, alone=True)
    pool.submit([request := asked(10)])
    pool.ready()
    assert seen == [request] and seen[0].thinking_tokens == 10


def test_requests_without_a_budget_pass():
    request = asked(None)
    found, seen = run(request, thought=5, answer=2)
    assert seen == [request] and found[0].ids.tolist() == [1] * 5 + [*MARK, 2, 2, STOP]


@given(st.integers(0, 30), st.integers(1, 30), st.integers(0, 20), st.integers(1, 10))
def test_no_sample_is_longer_than_it_may_be_and_thinks_no_longer_than_its_budget(budget: int, most: int, thought: int, answer: int):
    [one, _], _ = run(asked(budget, most), thought, answer)
    ids = one.ids.tolist()
    assert len(ids) <= most and (one.finish == "stop") == (ids[-1:] == [STOP])
    assert len(ids) == most or one.finish == "stop"
    assert ids[: ids.index(90) if 90 in ids else None].count(1) <= max(budget, 0) or len(ids) <= budget
    assert one.budget_hit <= (thought + len(MARK) > budget) and ids.count(90) <= 1
    assert len(one.ids) == len(one.versions) == len(one.logprobs)


@pytest.mark.parametrize("budget", [0, 1, 7])
def test_it_gives_what_an_engine_gives_that_closes_thinking_itself(tiny_checkpoint: Path, budget: int):
    """Greedy, so that both say the same; the mark is one token here."""
    engine = ReferenceEngine(tiny_checkpoint, "fp32", "cpu", (1,), THINK)
    request = asked(budget, 20, 1, prompt_ids=(30, 23, 9, 14), temperature=0.0)
    [(_, [expected])] = engine.advance([request], 0.0)
    pool = ClosingPool(ScriptedPool(lambda one: engine.advance([one], 0.0)[0][1]), (THINK.close,), lambda one: THINK.close in one.ids)
    pool.submit([request])
    [(_, [found])] = pool.ready()
    assert found.ids.tolist() == expected.ids.tolist() and found.finish == expected.finish
    assert (found.sampled == expected.sampled).all() and found.budget_hit and expected.budget_hit
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-4)
