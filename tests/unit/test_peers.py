"""Waiting for actors: what counts as silence, and what only looks like it (P26). Stand-ins for Ray's store; real ones are in tests/faults. And what an engine does whose own worker ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing import active_children
from types import SimpleNamespace

import pytest

from rollout import peers
from rollout.peers import Call, Gone, Peer
from rollout.vllm_engine import _end_with_workers, made_processes

FORK = multiprocessing.get_context("fork")


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


def _engine(end: str) -> None:
    """An engine with a worker that ends before the engine looks."""
    made_processes.clear()  # of whom this is a fork
    worker = FORK.Process(target=os._exit, args=(7,)) if end == "fails" else FORK.Process(target=time.sleep, args=(60,))
    worker.start()
    if end == "is killed":
        os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert not active_children()  # multiprocessing counts it no more
    _end_with_workers()


@pytest.mark.parametrize(("end", "code"), [("is killed", 1), ("fails", 0)])
def test_p26_an_engine_ends_with_a_worker_that_is_killed_however_early_and_not_with_one_that_fails(end: str, code: int):
    engine = FORK.Process(target=_engine, args=(end,))
    engine.start()
    engine.join(10)
    engine.kill()
    assert engine.exitcode == code
