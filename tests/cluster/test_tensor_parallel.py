"""A tensor parallel engine, two workers over gloo: every carrier reaches both of them, and what they compute together is the learner's policy (P10).

Here because the start of such an engine takes a minute on two cores.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from recipes.schema import Publish
from rl.carriers import CARRIERS, Broadcast
from rl.learner import Learner
from rl.publisher import Publisher
from rollout.engine import EnginePool
from rollout.types import Problem, Request
from rollout.variables import engine_environment
from rollout.vllm_engine import VllmEngine
from tests.integration.test_learner import recipe, rows

pytestmark = pytest.mark.usefixtures("vllm_on_cpu")
ENGINE = ray.remote(VllmEngine).options(num_cpus=0, runtime_env={"env_vars": engine_environment(1, "cpu")})
OPTIONS = {"kv_cache_memory_bytes": 64 << 20, "tensor_parallel_size": 2}
PROBE = [list(range(4, 30)), [9, 8, 7, 6, 5, 9, 9, 9]]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32, "hidden_size": 64}
    sizes = {
        "vocab_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    }
    Qwen3ForCausalLM(Qwen3Config(**heads, **sizes, pad_token_id=0, eos_token_id=1, bos_token_id=None)).save_pretrained(tmp_path)
    return tmp_path


def workers_of(engine: int) -> list[psutil.Process]:
    """The workers of an engine, in the order in which it started them."""
    children = psutil.Process(engine).children()
    return [child for child in children if any(word in " ".join(child.cmdline()) for word in ("spawn_main", "VLLM::Worker"))]


def test_p26_an_engine_whose_worker_is_killed_while_it_starts_is_started_again(ray_session: None, checkpoint: Path):
    def kill() -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            for engine in psutil.Process().children(recursive=True):  # of this Ray
                if "ray::VllmEngine" in " ".join(engine.cmdline()) and len(found := workers_of(engine.pid)) == 2:
                    found[1].kill()
                    return
            time.sleep(0.2)

    killer = threading.Thread(target=kill)
    killer.start()
    pool = EnginePool(lambda index: ENGINE.remote(checkpoint, "fp32", "cpu", 256, (1,), 0, OPTIONS), 1)
    assert len(pool.wait_ready()) == 1 and pool.restarts == 1
    killer.join()
    pool.stop()


def test_p10_every_carrier_reaches_both_workers_of_an_engine_and_a_killed_one_comes_back(ray_session: None, checkpoint: Path):
    pool = EnginePool(lambda index: ENGINE.remote(checkpoint, "fp32", "cpu", 256, (1,), 0, OPTIONS), 1)
    learner = Learner(recipe(1, 0, 64), checkpoint, "cpu")
    [process] = pool.wait_ready()
    workers = psutil.Process(process).children(recursive=True)
    broadcast = Broadcast(workers=2)
    for carrier in (CARRIERS["store"](), CARRIERS["ipc"](), broadcast, broadcast):
        learner.update([rows(pool.version)], pool.version)
        publisher = Publisher(pool, Publish(check_every=1, tolerance=1e-4), PROBE, carrier=carrier)
        assert publisher.push(learner, pool.version + 1)["publish/check"] < 1e-4
        assert pool._confirmed == learner.weights()[1]
    os.kill(process, signal.SIGKILL)
    assert publisher.push(learner, pool.version + 1)["publish/check"] < 1e-4 and pool.restarts == 1
    np.testing.assert_allclose(np.concatenate(pool.score(PROBE)[0]), np.concatenate(learner.score(PROBE)), atol=1e-4)
    [process] = pool.wait_ready()
    workers += workers_of(process)
    os.kill(workers_of(process)[0].pid, signal.SIGKILL)
    assert publisher.push(learner, pool.version + 1)["publish/check"] < 1e-4 and pool.restarts == 2
    [process] = pool.wait_ready()
    request = Request("one", Problem("one", "", ""), (5, 6, 7), 32, 240, 1.0, 1.0, 0)
    killer = threading.Timer(0.5, lambda: os.kill(workers_of(process)[1].pid, signal.SIGKILL))
    killer.start()
    pool.submit([request])
    [(back, completions)] = pool.ready()
    killer.join()
    assert back == request and len(completions) == 32 and pool.restarts == 3
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert len(workers) >= 2 and not alive  # of the engine that was killed
    pool.stop()
    learner.stop()
