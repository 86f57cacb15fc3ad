"""P10: weights that train are weights that sample. Two real engine actors, one of which can be told to misbehave."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from transformers import AutoModelForCausalLM

from recipes.schema import Publish
from rl.publisher import Publisher, PublishError
from rollout.engine import EngineError, EnginePool
from rollout.parcels import Stored
from rollout.reference_engine import ReferenceEngine
from rollout.types import Problem, Request
from rollout.weights import Packed, checkpoint_names, pack

PROBE = [list(range(4, 30)), [9, 8, 7, 6, 5, 9, 9, 9]]


def digests(packed):
    return {name: one.digest for name, one in packed.items()}


class FaultyEngine(ReferenceEngine):
    """The reference engine with one of the faults that engines have had."""

    fault = ""

    def become(self, fault: str) -> None:
        self.fault = fault

    def load(self, weights, version):
        stale = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
        if self.fault == "half a push":
            half = dict(list(weights.items())[: len(weights) // 2])
            self._model.load_state_dict({name: packed.tensor() for name, packed in half.items()}, strict=False)
            return digests(half)
        if self.fault == "a byte changed on the way":
            name, packed = next(iter(weights.items()))
            flipped = packed.data.copy()
            flipped[0] ^= 1
            weights = Stored(weights | {name: Packed(flipped, packed.dtype, packed.shape)})
        if self.fault == "no confirmation":
            return {}
        if self.fault == "dies":
            os.kill(os.getpid(), 9)
        confirmed = super().load(weights, version)
        if self.fault == "one stale layer":
            self._model.load_state_dict({name: tensor for name, tensor in stale.items() if ".layers.1." in name}, strict=False)
        if self.fault == "stale head":
            self._model.lm_head.weight = torch.nn.Parameter(stale["lm_head.weight"])
        return confirmed

    def score(self, sequences):
        if self.fault == "a cache from before the push":
            return self.cached
        self.cached = super().score(sequences)
        return self.cached

    def advance(self, requests, seconds):
        done = super().advance(requests, seconds)
        if self.fault != "tokens of an older version":
            return done
        return [(name, [replace(c, versions=c.versions - 1) for c in completions]) for name, completions in done]


class FixedLearner:
    """What a publisher needs of a learner: weights and their logprobs; every `move` makes new ones."""

    def __init__(self, checkpoint: Path):
        self.model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self.names = checkpoint_names(checkpoint)
        self.move()

    @torch.no_grad()
    def move(self) -> None:
        for parameter in self.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        self.packed = {name: pack(self.model.state_dict()[name].clone()) for name in self.names}

    def weights(self):
        return ray.put(Stored(self.packed)), digests(self.packed)

    @torch.no_grad()
    def score(self, sequences):
        scores = []
        for ids in sequences:
            ids_T = torch.tensor(list(ids))
            scores.append(self.model(ids_T[None]).logits[0, :-1].log_softmax(-1).gather(1, ids_T[1:, None])[:, 0].numpy())
        return scores


@pytest.fixture(scope="module")
def pool(ray_session: None, tiny_checkpoint: Path) -> Iterator[EnginePool]:
    environment = {"env_vars": {"OMP_NUM_THREADS": "1"}}
    engine = ray.remote(FaultyEngine).options(num_cpus=0, runtime_env=environment)
    pool = EnginePool(lambda index: engine.remote(tiny_checkpoint, "fp32", "cpu", (1,)), 2)
    pool.wait_ready()
    yield pool
    pool.stop()


@pytest.fixture
def learner(tiny_checkpoint: Path) -> FixedLearner:
    torch.manual_seed(1)
    return FixedLearner(tiny_checkpoint)


def become(pool: EnginePool, fault: str) -> None:
    ray.get(pool._members[1].actor.become.remote(fault))


def request(name: str) -> Request:
    return Request(name, Problem(name, "", ""), tuple(range(5, 15)), 2, 6, 1.0, 1.0, seed=7)


SEEN_AT_THE_PUSH = {
    "half a push": "engine 1 holds other bytes than version",
    "a byte changed on the way": "engine 1 holds other bytes than version",
    "no confirmation": "engine 1 holds other bytes than version",
    "one stale layer": "engine 1 gives other logprobs than the learner",
    "stale head": "engine 1 gives other logprobs than the learner",
    "a cache from before the push": "engine 1 gives other logprobs than the learner",
}


@pytest.mark.parametrize("fault", SEEN_AT_THE_PUSH)
def test_p10_a_push_that_does_not_arrive_is_an_error_that_names_the_engine(pool: EnginePool, learner: FixedLearner, fault: str):
    publisher = Publisher(pool, Publish(check_every=1), PROBE)
    version = pool.version
    publisher.push(learner, version + 1)
    learner.move()
    become(pool, fault)
    try:
        with pytest.raises(PublishError, match=SEEN_AT_THE_PUSH[fault]):
            publisher.push(learner, version + 2)
    finally:
        become(pool, "")
    assert publisher.push(learner, version + 3)["publish/check"] < 1e-4
    assert publisher.push(learner, version + 4)["publish/changed"] == 0
    learner.move()
    assert 0 < publisher.push(learner, version + 5)["publish/changed"] <= 1


def test_p10_missing_and_extra_names_and_older_versions_are_errors(pool: EnginePool, learner: FixedLearner):
    publisher = Publisher(pool, Publish(check_every=1), PROBE)
    version = pool.version + 1
    publisher.push(learner, version)
    whole = dict(learner.packed)
    name = sorted(whole)[0]
    for changed, message in [
        ({key: value for key, value in whole.items() if key != name}, f"missing \\['{name}'\\] \\(1\\)"),
        (whole | {"model.layers.9.extra.weight": whole[name]}, "unexpected \\['model.layers.9.extra.weight'\\]"),
    ]:
        learner.packed = changed
        with pytest.raises(EngineError, match=message):
            publisher.push(learner, version + 1)
    learner.packed = whole
    with pytest.raises(EngineError, match=f"version {version - 1} is older than version {version}"):
        publisher.push(learner, version - 1)
    publisher.push(learner, version + 2)


def test_p10_every_token_carries_the_published_version_or_the_run_stops(pool: EnginePool, learner: FixedLearner):
    Publisher(pool, Publish(check_every=1), PROBE).push(learner, pool.version + 1)
    pool.submit([request("a"), request("b")])
    while pool.outstanding:
        for _, completions in pool.ready():
            assert all((completion.versions == pool.version).all() for completion in completions)
    become(pool, "tokens of an older version")
    pool.submit([request("c"), request("d")])
    try:
        with pytest.raises(
            EngineError, match=f"engine 1 sampled d with policy version \\[{pool.version - 1}\\], published is {pool.version}"
        ):
            while pool.outstanding:
                pool.ready()
    finally:
        become(pool, "")
        for member in pool._members:
            member.owed.clear()
            member.call = None


def test_p10_an_engine_that_dies_in_a_push_is_started_again_with_those_weights(pool: EnginePool, learner: FixedLearner):
    publisher = Publisher(pool, Publish(check_every=1), PROBE)
    publisher.push(learner, pool.version + 1)
    learner.move()
    become(pool, "dies")
    restarts = pool.restarts
    assert publisher.push(learner, pool.version + 1)["publish/check"] < 1e-4
    assert pool.restarts == restarts + 1
    for scores in pool.score(PROBE):
        np.testing.assert_allclose(np.concatenate(scores), np.concatenate(learner.score(PROBE)), atol=1e-4)
