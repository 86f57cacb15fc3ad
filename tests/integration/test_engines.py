"""Real engines: what they sample, what they hold after a push, and what survives when one is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from transformers import AutoModelForCausalLM

from recipes.schema import Publish
from rl.gate import check_gaps
from rl.policy import Policy, Row, padded
from rl.publisher import Publisher, PublishError
from rl.turns import Turns
from rollout.engine import EngineError, EnginePool
from rollout.honesty import rehearsal
from rollout.parcels import Stored
from rollout.reference_engine import ReferenceEngine
from rollout.thinking import ThinkIds
from rollout.types import RULE, Problem, Request, Short
from rollout.variables import engine_environment
from rollout.vllm_engine import VllmEngine
from rollout.weights import checkpoint_names, pack
from tests.forked import forking

pytestmark = pytest.mark.usefixtures("vllm_on_cpu", "forks")
STOPS = (1, 7)  # the first is the pad token, too, of many a checkpoint


def request(name: str = "a", group_size: int = 4, max_tokens: int = 24, temperature: float = 1.0) -> Request:
    return Request(name, Problem(name, "", ""), tuple(range(5, 25)), group_size, max_tokens, temperature, 1.0, seed=7)


@pytest.fixture(scope="module")
def forks() -> Iterator[None]:
    with forking(__name__):
        yield


@pytest.fixture(scope="module", params=["qwen3", "qwen2", "llama"])
def checkpoint(request: pytest.FixtureRequest, checkpoints: Callable[[str], Path]) -> Path:
    return checkpoints(request.param)


def vllm_actor(checkpoint: Path, engine: type = VllmEngine, dtype: str = "fp32", think: ThinkIds | None = None):
    environment = {"env_vars": engine_environment(1, "cpu")}
    options = {"kv_cache_memory_bytes": 64 << 20}
    return ray.remote(engine).options(num_cpus=0, runtime_env=environment).remote(checkpoint, dtype, "cpu", 256, STOPS, 0, options, think)


@pytest.fixture(scope="module")
def pool(forks: None, checkpoint: Path) -> Iterator[EnginePool]:
    pool = EnginePool(lambda index: vllm_actor(checkpoint), 1)
    pool.wait_ready()
    yield pool
    pool.stop()


class FixedLearner:
    """A learner that holds one model: what a publisher needs of a learner, with weights a test has chosen."""

    def __init__(self, checkpoint: Path, noise: float, seed: int = 3, dtype: torch.dtype = torch.float32):
        self.model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype).eval()
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(torch.randn_like(parameter) * noise)
        self.packed = {name: pack(self.model.state_dict()[name]) for name in checkpoint_names(checkpoint)}
        self.resting = False

    def rest(self, resting: bool) -> None:
        self.resting = resting

    def weights(self) -> tuple[ray.ObjectRef, dict[str, int]]:
        return ray.put(Stored(self.packed)), {name: packed.digest for name, packed in self.packed.items()}

    @torch.no_grad()
    def score(self, sequences: list[list[int]], temperature: float = 1.0) -> list[np.ndarray]:
        scores = []
        for ids in sequences:
            ids_T = torch.tensor(list(ids))
            logprobs_TV = (self.model(ids_T[None]).logits[0, :-1].float() / temperature).log_softmax(-1)
            scores.append(logprobs_TV.gather(1, ids_T[1:, None])[:, 0].numpy())
        return scores


PROBE = [list(range(4, 30)), [9, 8, 7, 6, 5, 9, 9, 9]]


def test_after_a_push_vllm_gives_the_new_weights_logprobs_and_samples_from_them(pool: EnginePool, checkpoint: Path):
    pool.submit([request("old")])  # fills the prefix cache under the old weights
    while pool.outstanding:
        pool.ready()
    learner = FixedLearner(checkpoint, noise=0.1)
    metrics = Publisher(pool, Publish(tolerance=1e-4), PROBE).push(learner, version=1)
    assert metrics["publish/check"] < 1e-4
    pool.submit([request("new", temperature=0.7)])
    [(sent, completions)] = pool.ready()
    for completion in completions:
        whole = [*sent.prompt_ids, *completion.ids.tolist()]
        expected = learner.score([whole], temperature=0.7)[0][len(sent.prompt_ids) - 1 :]
        np.testing.assert_allclose(completion.logprobs, expected, atol=1e-4)
        assert (completion.versions == 1).all()


def test_both_engines_sample_from_the_likeliest_tokens_alone_where_top_k_says_so(pool: EnginePool, checkpoint: Path):
    asked = replace(request("few", group_size=64, max_tokens=1, temperature=2.0), top_k=3)
    pool.submit([asked])
    [(_, sampled)] = pool.ready()
    [(_, same)] = ReferenceEngine(checkpoint, "fp32", "cpu", STOPS).advance([asked], 0.0)
    for completions in (sampled, same):
        chances = {int(one.ids[0]): float(np.exp(one.logprobs[0])) for one in completions}
        assert len(chances) == 3 and sum(chances.values()) == pytest.approx(1, abs=1e-3)


def test_p06_whatever_ended_an_answer_is_its_last_trained_token_and_a_cut_one_gets_none(pool: EnginePool, checkpoint: Path):
    reference = ReferenceEngine(checkpoint, "fp32", "cpu", STOPS)
    asked = request("stops", group_size=64, max_tokens=40)
    pool.submit([asked])
    [(_, sampled)] = pool.ready()
    [(_, same)] = reference.advance([asked], 0.0)
    pool.submit([replace(asked, logprobs=False)])
    [(_, unsaid)] = pool.ready()
    assert all(one.logprobs.shape == (0,) and len(one.ids) for one in unsaid)
    for completions in (sampled, same):
        rows = [Row(str(i), np.array(asked.prompt_ids, np.int32), c.ids, c.logprobs, 1.0) for i, c in enumerate(completions)]
        tensors = padded(rows, "cpu")
        ends = np.cumsum([len(row.ids) for row in rows]) - 1
        for completion, end in zip(completions, ends, strict=True):
            stopped = int(completion.ids[-1]) in STOPS
            assert (completion.finish == "stop") == stopped and not set(completion.ids[:-1].tolist()) & set(STOPS)
            assert len(completion.ids) == len(completion.logprobs) and (stopped or len(completion.ids) == 40)
            assert int(tensors.targets[end]) == int(completion.ids[-1]) and bool(tensors.mask[end])
        assert {int(c.ids[-1]) for c in completions if c.finish == "stop"} == set(STOPS) and any(c.finish == "length" for c in completions)


def test_an_engine_that_slept_wants_weights_before_it_samples_and_one_that_died_asleep_comes_back_awake(pool: EnginePool, checkpoint: Path):
    """vLLM on a CPU keeps its memory in sleep; its scheduler stands still all the same until both parts are awake."""
    learner = FixedLearner(checkpoint, noise=0.1)
    publisher = Publisher(pool, Publish(check_every=1, tolerance=1e-4), PROBE, turns := Turns((pool, learner)))
    pool.sleep()  # as it begins
    for wakes in (lambda: None, lambda: pool.wake("weights"), lambda: pool.wake("kv_cache")):
        wakes()
        with pytest.raises(EngineError, match=r"an engine was asked to score that has no .*weights: it sleeps"):
            pool.score(PROBE)
    for died in (False, True):
        turns.learn()
        if died:
            [process] = pool.wait_ready()
            os.kill(process, signal.SIGKILL)
        before = pool.restarts
        assert publisher.push(learner, pool.version + 1)["publish/check"] < 1e-4
        assert (pool.restarts - before, learner.resting) == (died, True)
        pool.submit([request(f"slept, died: {died}")])
        [(_, completions)] = pool.ready()
        assert all((completion.versions == pool.version).all() for completion in completions)
    turns.learn()
    assert not learner.resting
    publisher.push(learner, pool.version + 1)


class OpenEngine(VllmEngine):
    """An engine that tells what its output head computes in."""

    def head(self) -> str:
        return str(self._engine.model_config.head_dtype)


def test_p43_in_bf16_pushes_arrive_and_the_logprob_gate_holds_with_logits_in_float32_on_both_sides(checkpoints: Callable[[str], Path]):
    checkpoint = checkpoints("llama")
    actor = vllm_actor(checkpoint, OpenEngine, "bf16")
    assert ray.get(actor.head.remote()) == "torch.float32"
    pool = EnginePool(lambda index: actor, 1)
    learner = FixedLearner(checkpoint, noise=0.1, dtype=torch.bfloat16)
    assert Publisher(pool, Publish(tolerance=0.02), PROBE).push(learner, version=1)["publish/check"] > 1e-5  # it is bfloat16
    pool.submit([request("bf16", group_size=64, temperature=0.7)])
    [(sent, completions)] = pool.ready()
    pool.stop()
    rows = [Row(str(i), np.array(sent.prompt_ids, np.int32), c.ids, c.logprobs, 1.0) for i, c in enumerate(completions)]
    policy, tensors = Policy(learner.model, 0.7, 100), padded(rows, "cpu")
    with torch.no_grad():
        moments_3N = torch.stack(policy(*tensors.inputs, spread=True)).numpy()
    parts = np.split(moments_3N, np.cumsum([len(row.ids) for row in rows])[:-1], axis=1)
    gaps = check_gaps(rows, {row.id: part for row, part in zip(rows, parts, strict=True)}, tolerance=0.02)
    assert gaps["gate/mean"] > 1e-5 and abs(gaps["gate/surprise_z"]) < 6


class StaleHead(VllmEngine):
    """An engine with the fault that vLLM has by itself: the tied head's packed copy stays old after a reload."""

    def __init__(self, *args):
        super().__init__(*args)
        import rollout.vllm_worker

        rollout.vllm_worker.repack_tied_head = lambda model: None


def test_a_stale_tied_head_is_caught_at_the_first_push(tiny_checkpoint: Path):
    pool = EnginePool(lambda index: vllm_actor(tiny_checkpoint, StaleHead), 1)
    with pytest.raises(PublishError, match="does not run the weights it was sent"):
        Publisher(pool, Publish(), PROBE).push(FixedLearner(tiny_checkpoint, noise=0.1), version=1)
    pool.stop()


def test_a_killed_engine_does_not_lose_the_step_and_comes_back_with_the_published_weights(tiny_checkpoint: Path):
    pool = EnginePool(lambda index: vllm_actor(tiny_checkpoint), 1)
    learner = FixedLearner(tiny_checkpoint, noise=0.1)
    publisher = Publisher(pool, Publish(), PROBE)
    publisher.push(learner, version=3)
    [process] = pool.wait_ready()
    names = [f"r{index}" for index in range(60)]
    pool.submit([request(name, group_size=8, max_tokens=200) for name in names])
    done = [sent.id for sent, _ in pool.ready()]
    os.kill(process, signal.SIGKILL)
    versions = set()
    while pool.outstanding:
        for sent, completions in pool.ready():
            done.append(sent.id)
            versions.update(int(version) for completion in completions for version in completion.versions)
    assert sorted(done) == sorted(names)  # each once
    assert pool.restarts == 1
    assert versions == {3}
    publisher.push(learner, version=4)
    assert np.allclose(np.concatenate(pool.score(PROBE)[0]), np.concatenate(learner.score(PROBE)), atol=1e-4)
    pool.stop()


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_reference_engine_depends_on_the_request_alone(tiny_checkpoint: Path, temperature: float):
    def sample(before: int) -> list[list[int]]:
        engine = ReferenceEngine(tiny_checkpoint, "fp32", "cpu", STOPS)
        others = [request(f"x{index}") for index in range(before)]
        asked = request("me", temperature=temperature)
        engine.advance([*others, asked], 0.0)
        for _ in range(before - 1):
            engine.advance([], 0.0)
        [(name, completions)] = engine.advance([], 0.0) if before else [(asked.id, engine._sample(asked))]
        assert name == "me"
        return [completion.ids.tolist() for completion in completions]

    assert sample(0) == sample(2)


def test_the_reference_engine_records_the_logprobs_it_sampled_from(tiny_checkpoint: Path):
    asked = request(temperature=0.7)
    [(_, completions)] = ReferenceEngine(tiny_checkpoint, "fp32", "cpu", STOPS).advance([asked], 0.0)
    learner = FixedLearner(tiny_checkpoint, noise=0.0)
    for completion in completions:
        expected = learner.score([[*asked.prompt_ids, *completion.ids.tolist()]], temperature=0.7)[0][len(asked.prompt_ids) - 1 :]
        np.testing.assert_allclose(completion.logprobs, expected, atol=1e-5)
        assert (completion.finish == "stop") == (completion.ids[-1] in STOPS)


def test_greedy_vllm_and_the_reference_engine_write_the_same_tokens_and_close_thinking_at_the_same_place(tiny_checkpoint: Path):
    think = ThinkIds((23,), 6)  # the prompt ends in 23, 24
    asked = [replace(request("free", 1, temperature=0.0), thinking_tokens=None)]
    asked += [replace(request(f"closed-{budget}", 1, temperature=0.0), thinking_tokens=budget) for budget in (0, 1, 9)]
    asked += [replace(request("often", 32), thinking_tokens=3)]
    asked += [replace(request("begun", 2, temperature=0.0), closed=1)]
    reference = ReferenceEngine(tiny_checkpoint, "fp32", "cpu", STOPS, think)
    expected = dict(group for one in asked for group in reference.advance([one], 0.0))
    pool = EnginePool(lambda index: vllm_actor(tiny_checkpoint, think=think), 1)
    pool.rehearse(rehearsal([asked[0].prompt_ids], 41, 1.0, 0, think), tolerance=1e-3)
    pool.submit(asked)
    while pool.outstanding:
        for sent, completions in pool.ready():
            if sent.id == "often":
                assert all((one.ids[3] == 6) == one.budget_hit for one in completions if len(one.ids) > 3 and 6 not in one.ids[:3])
                assert any(one.budget_hit for one in completions)
                continue
            for one, same in zip(completions, expected[sent.id], strict=True):
                assert one.ids.tolist() == same.ids.tolist() and one.finish == same.finish
                assert (one.sampled == same.sampled).all() and one.budget_hit == (sent.thinking_tokens is not None)
                assert (one.logprobs[~one.sampled] == 0).all()
                assert (one.own == same.own).all() and (sent.id == "begun") == bool(one.sources is not None and one.sources[0] == RULE)
                assert one.logprobs[0] == np.float32(np.log(0.5)) or sent.id != "begun"
    pool.stop()


class Ignores(VllmEngine):
    """An engine that does not pass the budget on."""

    def _params(self, request: Request):
        params = super()._params(request)
        params.thinking_token_budget = None
        return params


def test_an_engine_that_ignores_a_thinking_budget_is_named_at_its_start(tiny_checkpoint: Path):
    think = ThinkIds((23,), 6)
    pool = EnginePool(lambda index: vllm_actor(tiny_checkpoint, Ignores, think=think), 1)
    with pytest.raises(EngineError, match=r"engine 0 failed in rehearse: .*request thinking-\d: .*engine\.vllm"):
        pool.rehearse(rehearsal([request().prompt_ids], 41, 1.0, 0, think), tolerance=1e-3)
    pool.stop()


def test_chains_that_lose_are_stopped_in_vllm_and_the_shortest_win(tiny_checkpoint: Path):
    """Six sets of 8 beside a whole group, whose chains do not start in one step."""
    actor = vllm_actor(tiny_checkpoint)
    pool, close = EnginePool(lambda index: actor, 1), 20
    asked = [replace(request(f"short {i}", group_size=16, max_tokens=120), logprobs=not i, short=Short(2, 8, (close,))) for i in range(3)]
    pool.submit([*asked, request("whole", group_size=16, max_tokens=120)])
    found = {}
    while pool.outstanding:
        found |= {sent.id: completions for sent, completions in pool.ready()}
    for sent in asked:
        assert [len(one.logprobs) == (len(one.ids) if sent.logprobs else 0) for one in found[sent.id]] == [True] * 16
        for chains in (found[sent.id][:8], found[sent.id][8:]):
            closed = [next((i + 1 for i, id_ in enumerate(one.ids) if id_ == close), None) for one in chains]
            thought = [closed[i] or (len(one.ids) if one.finish == "stop" else 999) for i, one in enumerate(chains)]
            winners = [i for i, one in enumerate(chains) if one.finish != "stopped"]
            assert len(winners) == 2 and max(thought[i] for i in winners) <= min(
                thought[i] if thought[i] < 999 else len(one.ids) for i, one in enumerate(chains) if one.finish == "stopped"
            )
            assert {chains[i].finish for i in winners} <= {"stop", "length"}
    spent = {name: sum(len(one.ids) for one in completions) for name, completions in found.items()}
    assert max(spent[sent.id] for sent in asked) < spent["whole"]
    pool.submit([replace(asked[0], id="again")])  # nothing is left of those that were stopped
    assert len(pool.ready()[0][1]) == 16
    pool.stop()
