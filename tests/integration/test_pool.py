"""The pool on real actors: engines that die while they start, constructors that raise, weights that leave before others come (P26, P27)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray

from recipes.schema import Recipe
from rl.learner import Learner, LearnerError, LearnerLost
from rollout import peers
from rollout.engine import EngineError, EnginePool
from rollout.parcels import Stored
from rollout.peers import Peer
from rollout.types import Request
from rollout.weights import Packed
from tests.small_engine import Broken, Changed, Ending, Once, Small, Unlike


def request(name: str) -> Request:
    return Request(name, None, (1,), 1, 1, 1.0, 1.0, 0)


def packed() -> ray.ObjectRef:
    return ray.put(Stored(w=Packed(np.zeros(4, np.uint8), "float32", (1,))))


@pytest.fixture
def deadly(ray_session: None, tmp_path: Path):
    """A pool of engines of which one dies in its start so many times."""
    kind = ray.remote(Small)
    pools = []

    def make(deaths: int, engines: int = 1) -> EnginePool:
        log = tmp_path / f"deaths-{len(pools)}"
        pools.append(EnginePool(lambda index: kind.options(num_cpus=0).remote(log, deaths), engines))
        return pools[-1]

    yield make
    for pool in pools:
        pool.stop()


def test_an_engine_killed_while_starting_is_started_again_and_not_for_ever(deadly):
    pool = deadly(2)
    [process] = pool.wait_ready()
    assert pool.restarts == 2 and process != os.getpid()
    with pytest.raises(EngineError, match=r"engine 0 died 4 times in a row \(engine 0 died in process_id: killed by the system"):
        deadly(99).wait_ready()


def test_an_engine_whose_constructor_raises_says_what_it_said_and_is_not_started_again(ray_session: None):
    pool = EnginePool(lambda index: ray.remote(Broken).options(num_cpus=0).remote(), 1)
    with pytest.raises(EngineError, match=r"engine 0 could not start: ValueError: no room for the cache: set engine\.vllm"):
        pool.wait_ready()
    assert pool.restarts == 0


def test_an_engine_that_dies_between_two_pushes_waits_for_the_next_weights(deadly):
    pool = deadly(0)
    given = packed()
    assert pool.push([given], 1, lambda engine: nullcontext(given)) == [{"w": ray.get(given)["w"].digest}]
    pool.release()
    [process] = pool.wait_ready()
    os.kill(process, signal.SIGKILL)
    [again] = pool.wait_ready()  # which a push may ask first
    assert pool.restarts == 1 and isinstance(again, int) and again != process
    os.kill(again, signal.SIGKILL)
    pool.push([given], 2, lambda engine: nullcontext(given))
    assert (pool.restarts, pool.version) == (2, 2)
    pool.submit([request("a")])
    [(sent, [completion])] = pool.ready()
    assert sent.id == "a" and completion.versions.tolist() == [2]


def unlike(tmp_path: Path, mixes: bool = False) -> EnginePool:
    return EnginePool(lambda index: ray.remote(Unlike).options(num_cpus=0).remote(tmp_path / f"starts-{index}", mixes), 1)


def test_deaths_are_in_a_row_until_an_engine_answers_and_an_empty_slice_is_no_answer(ray_session: None, tmp_path: Path):
    pool = unlike(tmp_path)
    [member] = pool._members

    def restarts_after(what: Callable[[], object]) -> int:
        member.restarts = 3
        what()
        return member.restarts

    given = packed()
    assert restarts_after(pool.wait_ready) == 0
    assert restarts_after(lambda: pool.push([given], 1, lambda engine: nullcontext(given))) == 0
    pool.submit([request("a")])
    assert (
        restarts_after(lambda: pool.ready(lambda: True)) == 3 and pool.outstanding == 1
    )  # who asked may go on after it, though nothing is done
    assert restarts_after(pool.ready) == pool.outstanding == 0
    pool.stop()


def test_p10_an_engine_that_confirms_other_bytes_when_it_is_started_again_stops_the_run(ray_session: None, tmp_path: Path):
    pool, given = unlike(tmp_path), packed()
    pool.push([given], 1, lambda engine: nullcontext(given))
    [process] = pool.wait_ready()
    os.kill(process, signal.SIGKILL)
    with pytest.raises(
        EngineError, match=r"engine 0 holds other bytes than version 1 after it was started again \(engine 0 died in process_id"
    ):
        pool.wait_ready()
    pool.push([given], 2, lambda engine: nullcontext(given))  # those of a push are held against the learner's
    pool.stop()


def test_p10_a_group_of_two_versions_stops_the_run(ray_session: None, tmp_path: Path):
    pool = unlike(tmp_path, mixes=True)
    pool.submit([request("a")])
    with pytest.raises(EngineError, match=r"engine 0 sampled a with policy version \[0, 1\], published is 0"):
        pool.ready()
    pool.stop()


def test_a_request_goes_to_the_engine_that_owes_least_also_when_all_that_was_asked_is_being_sampled(deadly):
    pool = deadly(0, engines=2)
    pool.submit([request(name) for name in "abc"])
    for member in pool._members:
        member.queue = []  # it is under way
    pool.submit([request(name) for name in "defg"])
    assert [[*member.owed] for member in pool._members] == [["a", "c", "e", "g"], ["b", "d", "f"]]


def test_p45_an_engine_that_is_started_again_is_asked_as_at_its_first_start(ray_session: None, tmp_path: Path):
    pool = EnginePool(lambda index: ray.remote(Changed).options(num_cpus=0).remote(tmp_path / "starts"), 1)
    [process] = pool.wait_ready()
    assert pool.rehearse([request("r")], 1e-3) == [[1, 2]]
    os.kill(process, signal.SIGKILL)
    with pytest.raises(EngineError, match="engine 0, sampling a small batch at its start: the logprobs it reports"):
        pool.wait_ready()
    pool.stop()
    (tmp_path / "1").write_text("x")
    pool = EnginePool(lambda index: ray.remote(Changed).options(num_cpus=0).remote(tmp_path / str(index)), 2)
    with pytest.raises(EngineError, match="engine 1, sampling a small batch at its start"):
        pool.rehearse([request("r")], 1e-3)
    pool.stop()


def test_p27_an_engine_that_cannot_be_started_again_is_given_up_and_the_others_do_its_work(ray_session: None, tmp_path: Path, caplog):
    pool = EnginePool(lambda index: ray.remote(Once).options(num_cpus=0).remote(tmp_path / f"starts-{index}"), 2)
    process = pool.wait_ready()[1]
    pool.submit([request(name) for name in "abcd"])
    os.kill(process, signal.SIGKILL)
    found: list[str] = []
    while pool.outstanding:
        found += [sent.id for sent, _ in pool.ready()]
    assert sorted(found) == ["a", "b", "c", "d"] and pool.given_up == 1 and len(pool.wait_ready()) == 1
    assert "engine 1 could not be started again: engine 1 could not start: ValueError: no room for the cache" in caplog.text
    assert "the run goes on with the 1 engines that are left" in caplog.text
    pool.stop()


def test_p27_what_an_engine_owed_that_is_given_up_goes_to_those_that_are_left_by_their_numbers(ray_session: None, tmp_path: Path):
    pool = EnginePool(lambda index: ray.remote(Once).options(num_cpus=0).remote(tmp_path / f"starts-{index}"), 3)
    processes = pool.wait_ready()
    pool.submit([request(name) for name in "abcd"])  # the second owes least
    os.kill(processes[1], signal.SIGKILL)
    assert pool.wait_ready() == [processes[0], processes[2]]
    assert (pool.numbers, pool.count, pool.outstanding, pool.given_up) == ([0, 2], 2, 4, 1)
    pool.stop()
    for process in (processes[0], processes[2]):
        with suppress(psutil.NoSuchProcess):
            psutil.Process(process).wait(60)


def test_p26_an_engine_that_answers_with_an_error_and_ends_is_started_again_and_one_that_stays_is_not(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(peers, "_HEARS_S", 60.0)  # however late a busy machine lets it end

    def pool(name: str, ends: bool) -> EnginePool:
        return EnginePool(lambda index: ray.remote(Ending).options(num_cpus=0).remote(tmp_path / name, ends), 1)

    given = packed()
    sampling, pushing, staying = pool("sampling", True), pool("pushing", True), pool("staying", False)
    sampling.submit([request("a")])
    [(sent, [_])] = sampling.ready()
    assert sent.id == "a" and sampling.restarts == 1
    assert pushing.push([given], 3, lambda engine: nullcontext(given)) == [{"w": ray.get(given)["w"].digest}] and pushing.restarts == 1
    monkeypatch.setattr(peers, "_HEARS_S", 1.0)
    with pytest.raises(EngineError, match="engine 0 failed in load: RuntimeError: cancelled") as raised:
        staying.push([given], 3, lambda engine: nullcontext(given))
    assert staying.restarts == 0 and type(raised.value) is EngineError  # and it is not asked whether the learner is there
    for one in (sampling, pushing, staying):
        one.stop()


def test_the_next_slice_is_under_way_when_groups_are_handed_out(deadly):
    pool = deadly(0)
    pool.wait_ready()
    pool.submit([request("a")])
    member = pool._members[0]
    member.owed["b"] = request("b")  # owed, and in no call yet: as if it were still being sampled
    assert [sent.id for sent, _ in pool.ready()] == ["a"]
    assert member.call is not None and pool.outstanding == 1
    pool._members[0].owed.clear()


def test_a_rank_that_cannot_load_says_what_it_said(ray_session: None, tmp_path: Path):
    learner = Learner(Recipe(), tmp_path / "gone", "cpu")
    with pytest.raises(LearnerError, match=r"learner rank 0 failed in loading: .*gone"):
        learner.wait_ready()


def test_every_micro_batch_has_a_deadline_of_its_own_and_an_update_none(ray_session: None, tiny_checkpoint: Path, monkeypatch):
    from rl import learner as module
    from tests.integration.test_learner import recipe, rows

    learner = Learner(recipe(1, 0, 64), tiny_checkpoint, "cpu")
    [process] = learner.wait_ready()
    given = rows(0, count=24)
    learner.update([given], 0)
    begun = time.monotonic()
    learner.update([given], 1)
    took = time.monotonic() - begun
    deadline = max(6.0, 10 * took)  # on a busy machine too, no pass takes ten updates or stands still for so long
    monkeypatch.setattr(module, "_PASS_S", deadline)
    given = given * max(2, int(1.2 * deadline / took))
    while took <= deadline:  # until one update took longer than any of its passes may
        begun = time.monotonic()
        assert learner.update([given], 2)["updates/skipped"] == 0
        took, given = time.monotonic() - begun, given * 2
    os.kill(process, signal.SIGSTOP)
    with pytest.raises(LearnerError, match=r"learner rank 0 did not finish (begin|update \(micro-batch 1\)) within \d+ s: last heartbeat"):
        learner.update([given], 3)
    os.kill(process, signal.SIGKILL)
    learner.stop()


class Rank:
    """Fails as those do whose peer is gone, dies a little later than that is seen, or answers."""

    def fail(self) -> None:
        raise RuntimeError("[gloo] Connection reset by peer")

    def die(self) -> None:
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    def stay(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("other", "kind", "words"),
    [("die", LearnerLost, "rank 1 died in update: killed"), ("stay", LearnerError, "rank 0 failed in update: .*reset")],
)
def test_a_rank_that_fails_because_another_died_is_not_taken_for_a_rank_with_an_error(
    ray_session: None, monkeypatch: pytest.MonkeyPatch, other: str, kind: type[LearnerError], words: str
):
    monkeypatch.setattr(peers, "_HEARS_S", 30.0 if other == "die" else 1.0)
    learner, ranks = Learner.__new__(Learner), [ray.remote(Rank).options(num_cpus=0).remote() for _ in range(2)]
    learner._peers = [Peer(f"rank {index}", rank) for index, rank in enumerate(ranks)]
    ray.get([rank.stay.remote() for rank in ranks])
    with pytest.raises(LearnerError, match=words) as raised:
        learner._get([ranks[0].fail.remote(), getattr(ranks[1], other).remote()], "update", 60.0)
    assert type(raised.value) is kind
    for rank in ranks:
        ray.kill(rank)
