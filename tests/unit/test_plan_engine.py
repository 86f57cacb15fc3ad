"""What plan says of engines' numbers: caches, what vLLM can take, and pushes that must fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launch.explain import explain
from launch.machine import Machine
from launch.memory import GB
from launch.plan import plan
from recipes.loader import load
from tests.unit.test_plan import LAPTOP, NODE, blockers


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (Machine(32, 128 * GB, (8 << 30,), "cuda"), ()),
        (Machine(32, 128 * GB, (48 << 30,), "cuda"), ("engine.count=2", "engine.vllm.gpu_memory_utilization=0.14")),
        (Machine(32, 128 * GB, (48 << 30,), "cuda"), ("engine.vllm.kv_cache_memory_bytes=100000000",)),
        (Machine(32, 128 * GB, (), "cpu"), ("engine.vllm.kv_cache_memory_bytes=100000000",)),
    ],
)
def test_a_cache_that_holds_no_sequence_of_full_length_is_refused(machine: Machine, words: tuple[str, ...]):
    # Two key-value heads of 128 numbers in 28 layers, 2 bytes each: 28,672 bytes a token
    words = ("model.path=deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "model.dtype=bf16", "eval.max_tokens=100000", *words)
    said = blockers(machine, "evaluate", None, *words)
    assert any("one sequence of 101024 tokens takes 2.9 GB" in line for line in said), said


def test_engines_that_share_a_gpu_have_equal_parts_of_it():
    words = ["model.path=deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "model.dtype=bf16"]
    for count in (2, 3):
        made = plan(load("evaluate", overrides=[*words, f"engine.count={count}"]), Machine(32, 128 * GB, (24 << 30,), "cuda"))
        [engine] = [actor for actor in made.actors if actor.name == "engine"]
        assert engine.bytes == pytest.approx(0.92 * (24 << 30) / count, rel=1e-6), count
        for said, share in ((0.9, 0.92 / count), (0.2, 0.2)):  # also where nobody knows how large the model is
            unknown = ["model.path=someone/mixture", f"engine.count={count}", f"engine.vllm.gpu_memory_utilization={said}"]
            assert plan(load("evaluate", overrides=unknown), made.machine).engine["gpu_memory_utilization"] == pytest.approx(
                share, abs=1e-4
            )


@pytest.mark.parametrize("words", [(), ("cluster.kind=apart",), ("cluster.sleep=false",)])
def test_a_cache_that_the_recipe_sizes_is_held_against_the_gpu_whoever_shares_it(words: tuple[str, ...]):
    machine = Machine(32, 128 * GB, (24 * GB,) * (1 + bool(words and "apart" in words[0])), "cuda")
    sized = ["cluster.kind=colocated"] * ("cluster.sleep=false" in words) + [*words, "engine.vllm.kv_cache_memory_bytes=40000000000"]
    assert not plan(load("dler", "gpu1-24", sized[:-1]), machine).blockers
    [line] = plan(load("dler", "gpu1-24", sized), machine).blockers
    assert line.startswith("memory: ") and "lower engine.vllm.kv_cache_memory_bytes" in line
    several = ["model.path=deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "engine.count=2", "engine.vllm.kv_cache_memory_bytes=15000000000"]
    [line] = plan(load("evaluate", None, several), replace(machine, gpus=machine.gpus[:1])).blockers
    assert (
        line.startswith("memory: engines share the one GPU and need about ")
        and "; lower engine.vllm.kv_cache_memory_bytes, or take" in line  # one engine of them would not fit, either
    )


@pytest.mark.parametrize(
    ("device", "words"), [("cpu", ()), ("cpu", ("engine.vllm.max_num_seqs=1",)), ("cuda", ("engine.vllm.max_num_seqs=1",))]
)
def test_an_engine_gets_a_cache_for_one_sequence_however_long_and_the_block_that_vllm_keeps(device: str, words: tuple[str, ...]):
    words = ("model.path=deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "model.dtype=bf16", "eval.max_tokens=100224", *words)
    shared = ["engine.count=2", "cluster.kind=colocated"] * (device == "cuda")
    made = plan(load("evaluate", overrides=[*words, *shared]), Machine(32, 128 * GB, (80 * GB,) * (device == "cuda"), device))  # type: ignore[arg-type]
    assert (
        made.engine["kv_cache_memory_bytes"] == (791 + 1) * 128 * 2 * 28 * 4 * 128 * 2 and made.blockers == []
    )  # 101,248 tokens are 791 blocks
    if device == "cpu":
        two = plan(load("evaluate", overrides=[*words, "engine.vllm.max_num_seqs=2", "eval.max_tokens=100"]), made.machine)
        assert two.engine["kv_cache_memory_bytes"] == (2 * 9 + 1) * 128 * 2 * 28 * 4 * 128 * 2  # 1,124 tokens are 9 blocks
    least = made.engine["kv_cache_memory_bytes"] - 128
    tight = plan(load("evaluate", overrides=[*words, *shared, f"engine.vllm.kv_cache_memory_bytes={least}"]), made.machine)
    assert any("one sequence of 101248 tokens" in line for line in tight.blockers)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("engine.vllm.gpu_memory_utilization=2", "engine.vllm.gpu_memory_utilization: 2 is not a number above 0 and up to 1"),
        ("engine.vllm.enable_sleep_mode=true", "engine.vllm.enable_sleep_mode: vLLM's CPU build cannot sleep; leave it out"),
        ("engine.vllm.max_num_seqs=true", "engine.vllm.max_num_seqs: True is not a whole number above 0"),
        ("engine.vllm.max_num_seqs=1.5", "engine.vllm.max_num_seqs: 1.5 is not a whole number above 0"),
        ("engine.vllm.max_num_batched_tokens=0", "engine.vllm.max_num_batched_tokens: 0 is not a whole number above 0"),
        ("engine.vllm.max_model_len=100000000", "engine.vllm.max_model_len: 100000000 is more than the 2048 tokens that tiny can take"),
        ("engine.vllm.max_model_len=10", "engine.vllm.max_model_len: 10 is less than the"),
        ("sampler.temperature=0.005", "sampler.temperature: 0.005: vLLM samples at 0.01 at the least; set that"),
        ("eval.temperature=0.005", "eval.temperature: 0.005: vLLM samples at 0.01 at the least; set that, or 0"),
    ],
)
def test_numbers_that_vllm_cannot_take_are_refused(words: str, said: str):
    assert any(line.startswith(said) for line in blockers(LAPTOP, "quickstart", None, words))


def test_a_push_that_the_object_store_cannot_hold_is_refused():
    small = replace(NODE, memory=60 * GB)
    large = ["dler", "node8", "model.path=deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"]
    assert not any("object store" in line for line in blockers(small, *large))  # it is broadcast
    words = blockers(small, *large, "cluster.carrier=store")
    assert any("a push of 16 GB does not fit the object store, which takes 15 GB of the 60 GB that are free" in line for line in words)
    assert not any("object store" in line for line in blockers(NODE, *large, "cluster.carrier=store"))


def test_a_share_of_a_gpu_that_the_rank_needs_too_is_an_upper_bound():
    # 0.9 of the card is the scale's word for an engine that has it alone; vLLM does not start where less than its share is free
    for sleep in (True, False):
        words = ["learner.ranks=1", "engine.count=1", f"cluster={{kind: colocated, sleep: {sleep}}}"]
        made = plan(load("dler", "node8", words), Machine(64, 500 * GB, (143771 << 20,), "cuda"))
        [rank] = [actor for actor in made.actors if actor.name == "learner"]
        assert made.blockers == [] and made.placement.shared and (rank.rests is not None) == sleep
        beside = sum((rank.holds if rank.rests is None else rank.rests).values())
        assert made.engine["gpu_memory_utilization"] * made.machine.gpus[0] + beside <= 0.94 * made.machine.gpus[0]


def test_tensor_parallel_workers_share_a_model_evenly_and_each_has_its_cache():
    """The 1.5B model: 12 heads, 2 of keys and values, 8,960 wide inside, so of the divisors of 12 neither 3 nor 6 nor 12."""
    for count in (3, 5, 6, 8, 12):
        made = plan(load("dler", "node8", ["engine.count=1", f"engine.vllm.tensor_parallel_size={count}"]), replace(NODE, build="cuda"))
        assert any(
            f"tensor_parallel_size: {count} workers cannot share" in line and line.endswith("take 1 or 2 or 4") for line in made.blockers
        ), made.blockers
    words = ["engine.count=1", "engine.vllm.tensor_parallel_size=4", f"engine.vllm.kv_cache_memory_bytes={200 * GB}"]
    made = plan(load("dler", "node8", words), replace(NODE, build="cuda"))
    assert next(actor.holds["KV cache"] for actor in made.actors if actor.name == "engine") == 200 * GB  # as vLLM counts it, of each GPU
    assert any(line.startswith("memory:") for line in made.blockers)


def test_a_tensor_parallel_engine_may_be_trained_for_and_plan_says_what_carries_the_weights():
    made = plan(load("dler", "node8", ["engine.count=2", "engine.vllm.tensor_parallel_size=2"]), replace(NODE, build="cuda"))
    assert not any("parallel" in line for line in made.blockers)
    assert "push     by a broadcast to all engines, engines and ranks have GPUs of their own (cluster.carrier: broadcast)" in explain(made)
