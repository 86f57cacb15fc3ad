"""Three carriers, a real learner, the reference engine and vLLM in one pool: the same bytes and logprobs, and engines that die between two pushes and in one (P10, P26, P27)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import ray

from recipes.schema import Publish
from rl.carriers import CARRIERS, Broadcast, Ipc
from rl.learner import Learner, LearnerError, LearnerLost
from rl.publisher import Publisher
from rollout.engine import EngineError, EnginePool
from rollout.parcels import Parcel, Stored
from rollout.reference_engine import ReferenceEngine
from rollout.types import Problem, Request
from rollout.variables import engine_environment
from rollout.vllm_engine import VllmEngine
from rollout.weights import Undelivered
from tests.integration.test_learner import recipe, rows

pytestmark = pytest.mark.usefixtures("vllm_on_cpu")
PROBE = [list(range(4, 30)), [9, 8, 7, 6, 5, 9, 9, 9]]


class Mortal(ReferenceEngine):
    """Dies when the first tensors of a push have come, or has no room for them, if it is told to."""

    dies = False
    full = False

    def die_in_load(self) -> None:
        self.dies = True

    def is_full(self, full: bool) -> None:
        self.full = full

    def load(self, parcel: Parcel, version: int) -> dict[str, int]:
        if self.full:
            raise RuntimeError("CUDA out of memory")
        if self.dies:
            tensors = parcel.tensors(0, self._model.device)
            for _ in range(5):
                next(tensors)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load(parcel, version)


@pytest.fixture(scope="module")
def learner(ray_session: None, tiny_checkpoint: Path) -> Iterator[Learner]:
    learner = Learner(recipe(1, 0, 64), tiny_checkpoint, "cpu")
    learner.wait_ready()
    yield learner
    learner.stop()


@pytest.fixture(scope="module")
def pool(ray_session: None, tiny_checkpoint: Path) -> Iterator[EnginePool]:
    environment = {"env_vars": engine_environment(1, "cpu")}

    def start(index: int):
        if index == 0:
            return ray.remote(Mortal).options(num_cpus=0, runtime_env=environment).remote(tiny_checkpoint, "fp32", "cpu", (1,))
        options = {"kv_cache_memory_bytes": 64 << 20}
        return (
            ray.remote(VllmEngine)
            .options(num_cpus=0, runtime_env=environment)
            .remote(tiny_checkpoint, "fp32", "cpu", 256, (1,), 0, options)
        )

    pool = EnginePool(start, 2)
    pool.wait_ready()
    yield pool
    pool.stop()


class Cut(Stored):
    """A parcel of which half arrives."""

    def tensors(self, worker, device):
        for index, pair in enumerate(super().tensors(worker, device)):
            if index == len(self) // 2:
                raise Undelivered("the learner is gone")
            yield pair


def request(name: str) -> Request:
    return Request(name, Problem(name, "", ""), tuple(range(5, 15)), 2, 6, 1.0, 1.0, seed=7)


@pytest.mark.parametrize("name", CARRIERS)
def test_p10_every_carrier_brings_the_same_bytes_also_to_engines_that_died(name: str, pool: EnginePool, learner: Learner):
    publisher = Publisher(pool, Publish(check_every=1, tolerance=1e-4), PROBE, carrier=CARRIERS[name]())
    expected = learner.weights()[1]
    version = pool.version
    assert publisher.push(learner, version + 1)["publish/check"] < 1e-4
    assert pool._confirmed == expected

    learner.update([rows(version)], version)
    assert publisher.push(learner, version + 2)["publish/changed"] > 0.5  # and what is shared is what was trained
    assert pool._confirmed == learner.weights()[1] != expected

    [process, _] = pool.wait_ready()  # killed between two pushes: it is given the weights again as soon as it is missed
    restarts = pool.restarts
    os.kill(process, signal.SIGKILL)
    pool.submit([request("a"), request("b")])
    while pool.outstanding:
        for _, completions in pool.ready():
            assert all((one.versions == pool.version).all() for one in completions)
    assert pool.restarts == restarts + 1
    assert learner.hand_out("digests")(60.0) == [{}]  # nothing is held for it any more

    learner.update([rows(version + 1)], version + 1)
    assert publisher.push(learner, version + 3)["publish/changed"] > 0.5  # with all of them

    ray.get(pool._members[0].actor.die_in_load.remote())  # and in one, when others have half of it
    learner.update([rows(version + 2)], version + 2)
    assert publisher.push(learner, version + 4)["publish/changed"] > 0.5
    assert pool.restarts == restarts + 2 and pool._confirmed == learner.weights()[1]
    learner.update([rows(version + 3)], version + 3)
    assert publisher.push(learner, version + 5)["publish/check"] < 1e-4
    for scores in pool.score(PROBE):
        np.testing.assert_allclose(np.concatenate(scores), np.concatenate(learner.score(PROBE)), atol=1e-4)


def test_p10_half_a_model_is_refused_by_name_whatever_carries_it(pool: EnginePool, learner: Learner):
    stored = ray.get(learner.weights()[0])
    shared = learner.hand_out("share", [0])(60.0)[0][0]
    [seat, _] = learner.hand_out("meet", 2, 1, 60.0)(60.0)[0]
    assert seat.meeting.host == "127.0.0.1" and seat.first == 1  # nothing of ours listens elsewhere
    half = [
        Stored(dict(list(stored.items())[:5])),
        type(shared)(dict(list(shared.handles.items())[:5])),
        type(seat)(seat.meeting, seat.first, seat.specs[:5]),
    ]
    for parcel in half:
        with pytest.raises(EngineError, match=r"engine 0 failed in load: .*do not match the checkpoint: missing \['model"):
            pool.push([parcel] * 2, pool.version + 1, nullcontext)
    learner.hand_out("forget")(60.0)


def test_p10_an_engine_that_got_half_a_push_does_not_sample_and_takes_the_next_one_whole(pool: EnginePool, learner: Learner):
    publisher = Publisher(pool, Publish(check_every=1, tolerance=1e-4), PROBE)
    cut = Cut(ray.get(learner.weights()[0]))
    with pytest.raises(EngineError, match=rf"engine 0 did not get weights version {pool.version + 1}: .*the learner is gone"):
        pool.push([cut] * 2, pool.version + 1, nullcontext)
    for member in pool._members:
        with pytest.raises(RuntimeError, match="an engine was asked to score that has no weights: it sleeps, or a push did not arrive"):
            ray.get(member.actor.score.remote(PROBE))
    learner.update([rows(99)], 99)
    assert publisher.push(learner, pool.version + 1)["publish/check"] < 1e-4


def test_p26_a_learner_that_is_frozen_in_a_broadcast_is_named_and_all_meet_again(pool: EnginePool, learner: Learner):
    carrier = Broadcast(seconds=10.0)  # in which all come, also where a busy machine stands still
    publisher = Publisher(pool, Publish(check_every=1, tolerance=1e-4), PROBE, carrier=carrier)
    publisher.push(learner, pool.version + 1)
    [process] = learner.wait_ready()
    os.kill(process, signal.SIGSTOP)
    try:
        with pytest.raises(LearnerError, match=r"learner rank 0 did not finish weights \(send\) within 5 s: last heartbeat"):
            publisher.push(learner, pool.version + 1)
    finally:
        os.kill(process, signal.SIGCONT)
    learner.update([rows(7)], 7)
    assert publisher.push(learner, pool.version + 1)["publish/check"] < 1e-4

    ray.get(pool._members[0].actor.is_full.remote(True))  # what an engine itself says is not laid to the learner
    with pytest.raises(EngineError, match=r"engine 0 failed in load: .*CUDA out of memory"):
        publisher.push(learner, pool.version + 1)
    ray.get(pool._members[0].actor.is_full.remote(False))
    learner.update([rows(8)], 8)
    assert publisher.push(learner, pool.version + 1)["publish/check"] < 1e-4


def test_a_learner_that_dies_when_engines_are_to_read_its_memory_is_lost_and_no_engines_error(
    pool: EnginePool, learner: Learner, monkeypatch: pytest.MonkeyPatch
):
    [process] = learner.wait_ready()
    hand_out = learner.hand_out

    def killed(how: str, *arguments):
        given = hand_out(how, *arguments)
        if how == "digests":
            given(60.0)
            os.kill(process, signal.SIGKILL)
            while os.path.exists(f"/proc/{process}/fd/0"):
                time.sleep(0.01)
        return given

    monkeypatch.setattr(learner, "hand_out", killed)
    with pytest.raises(LearnerLost, match=r"learner rank 0 died in weights \(forget\)"):
        Publisher(pool, Publish(check_every=1, tolerance=1e-4), PROBE, carrier=Ipc()).push(learner, pool.version + 1)
