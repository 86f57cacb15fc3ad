"""Waiting for actors: what counts as silence, and what only looks like it (P26). Stand-ins for Ray's store; real processes are in tests/faults."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rollout import peers
from rollout.peers import Call, Gone, Peer


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves, and the last heartbeat in Ray's store."""
    found = SimpleNamespace(now=0.0, heard=b"1.0", process=0)
    monkeypatch.setattr(peers, "time", SimpleNamespace(monotonic=lambda: found.now))
    monkeypatch.setattr(Peer, "_heard", lambda self: found.heard)
    monkeypatch.setattr(Peer, "_found", lambda self: {"Pid": found.process})
    monkeypatch.setattr(Peer, "about", lambda self: "last heartbeat at 01:00:00")
    return found


def test_p26_a_process_without_a_heartbeat_is_named_after_120_seconds_of_waiting(clock):
    call = Call(Peer("learner rank 1", None), None, "update (micro-batch 3)", 900)
    for clock.now in range(1, 122):  # the look at 1 s hears the first one
        call.look()
    clock.now = 122
    with pytest.raises(
        Gone, match=r"^learner rank 1 is frozen in update \(micro-batch 3\): no heartbeat for 121 s, last heartbeat at 01:00:00$"
    ) as gone:
        call.look()
    assert gone.value.call is call


def test_p26_a_process_that_runs_and_does_not_answer_hangs_when_its_operation_may_take_no_longer(clock):
    call = Call(Peer("engine 0", None), None, "advance", 900)
    for clock.now in range(1, 901):
        clock.heard = str(clock.now).encode()
        call.look()
    clock.now = 901
    with pytest.raises(Gone, match="engine 0 did not finish advance within 900 s: last heartbeat"):
        call.look()


def test_time_in_which_the_one_who_waits_was_stopped_counts_for_nobody(clock):
    call = Call(Peer("engine 0", None), None, "advance", 60)
    for clock.now in (1, 2, 10_000, 10_001):
        call.look()
    assert call._waited == 5  # 1 + 1 + 2 (of 9,998) + 1


def test_an_actor_without_a_process_has_the_operations_deadline_alone(clock):
    clock.heard = None
    call = Call(Peer("engine 0", None), None, "process_id", 600)
    for clock.now in range(1, 601):
        call.look()
    clock.now = 601
    with pytest.raises(Gone, match="did not finish process_id within 600 s"):
        call.look()


def test_p26_a_process_that_never_had_a_heartbeat_is_named_after_300_seconds(clock):
    clock.heard = None
    call = Call(Peer("engine 0", None), None, "process_id", 600)
    for clock.now in range(1, 51):
        call.look()
    clock.process = 4
    for clock.now in range(51, 351):  # the time before is nobody's
        call.look()
    clock.now = 351
    with pytest.raises(Gone, match="engine 0 is frozen in process_id: no heartbeat for 301 s"):
        call.look()
