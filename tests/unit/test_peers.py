"""Waiting for actors: what counts as silence, and what only looks like it (P26). Stand-ins for Ray's store; real ones are in tests/faults. And what an engine does whose own worker ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace

import pytest

from rollout import peers
from rollout.peers import Call, Gone, Peer, RayLost, check_ray, first, last_words, log_end, why_dead
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


def test_time_in_which_rays_head_is_away_is_no_silence_and_what_was_heard_before_is_kept(clock, monkeypatch: pytest.MonkeyPatch):
    peer = Peer("engine 0", None)
    call, clock.process = Call(peer, None, "advance", 2000), 4
    for begin, there in ((1, False), (400, True), (500, False)):
        with monkeypatch.context() as patch:
            if not there:
                patch.setattr(Peer, "_heard", lambda self: 1 / 0)
            for clock.now in range(begin, begin + 400 - 300 * there):
                call.look()
        assert peer.heard is (begin > 1)
    assert peer._silent == 0
    for clock.now in range(900, 1020):  # 120 s since it is back, and no new one
        call.look()
    clock.now = 1020
    with pytest.raises(Gone, match="is frozen in advance: no heartbeat for 121 s"):
        call.look()


def test_p26_who_waits_looks_at_those_that_have_not_answered_while_ray_runs(monkeypatch: pytest.MonkeyPatch):
    done, runs = iter([[], [], ["b"]]), iter([False, True, True])
    monkeypatch.setattr(peers, "ray", SimpleNamespace(wait=lambda asked, num_returns, timeout: (next(done), [])))
    monkeypatch.setattr(peers, "check_ray", lambda: next(runs))
    looked: list[str] = []
    monkeypatch.setattr(Call, "look", lambda self: looked.append(self.reference))
    calls = [Call(Peer(name, None), name, "advance", 900) for name in "ab"]
    assert first(calls) is calls[1]
    assert looked == ["a", "b", "a"]  # nobody in the first round, in which Ray's head would be waited for


def test_what_is_to_hurry_has_so_long_from_then_on_and_never_longer_than_it_had(clock):
    call = Call(Peer("engine 0", None), None, "load", 600)
    for clock.now in range(1, 101):
        call.look()
    for seconds, until in [(90, 190), (900, 190), (20, 120)]:
        call.hurry(seconds)
        assert call.seconds == until


def test_p26_a_ray_that_is_gone_or_was_stopped_for_30_seconds_on_end_is_named(monkeypatch: pytest.MonkeyPatch):
    now, frozen, ended = [0.0], [True], [None]
    raylet = SimpleNamespace(pid=7, poll=lambda: ended[0])
    monkeypatch.setattr(peers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(peers, "ray_processes", lambda: [("raylet", raylet)])
    monkeypatch.setattr(peers, "stopped", lambda process: frozen[0])
    monkeypatch.setattr(peers, "_stopped", {})
    for now[0], frozen[0] in [(0, True), (20, False), (40, True), (70, True)]:  # it ran between
        assert check_ray() is not frozen[0]
    now[0] = 71
    with pytest.raises(RayLost, match=r"^Ray's raylet \(process 7\) has been stopped for 30 s, by someone$"):
        check_ray()
    for ended[0] in (-9, 0):
        with pytest.raises(RayLost, match=r"^Ray's raylet \(process 7\) is gone: killed by the system"):
            check_ray()


FAR = """ray::Small.load() (pid=7, ip=127.0.0.1)
  File "a.py", line 3, in load
    open("x")
FileNotFoundError: x

During handling of the above exception, another exception occurred:

  File "a.py", line 5, in load
    raise ValueError(words)
ValueError: no room for the cache:
  set engine.vllm
  For further information visit https://example.org
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FAR, "ValueError: no room for the cache: set engine.vllm"),
        ("The actor died.\nIts worker process has died.", "Its worker process has died."),
        ("", "RuntimeError"),
        ("x" * 601, "x" * 597 + "..."),
    ],
    ids=["raised", "died", "nothing", "long"],
)
def test_of_an_error_far_away_its_last_exception_is_told_whole(text: str, words: str):
    assert last_words(RuntimeError(text)) == words


def test_why_an_actor_is_gone_tells_a_killed_process_from_a_node_that_is_away():
    assert why_dead(RuntimeError("The actor died because its node has died. Node Id: 7")).startswith("its node is gone")
    assert why_dead(RuntimeError("The actor is dead because its worker process has died.")).startswith(
        "killed by the system for its memory"
    )


def test_a_log_ends_in_its_last_five_lines_errors_before_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "worker-ab-01-7.err").write_text(":job_id:01\n" + "".join(f"e{line}\n\n" for line in range(8)))
    (tmp_path / "worker-ab-01-7.out").write_text("said\n")
    (tmp_path / "worker-ab-01-8.err").write_text("another's\n")
    monkeypatch.setattr("ray._private.worker._global_node", SimpleNamespace(get_logs_dir_path=lambda: str(tmp_path)))
    assert log_end(7) == "e3 | e4 | e5 | e6 | e7"
    (tmp_path / "worker-ab-01-7.err").write_text("e0\n")
    assert log_end(7) == "e0 | said"


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
