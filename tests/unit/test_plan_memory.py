"""What a plan says of memory: of the learner's parts, of engines, of the machine's own."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from launch.actors import host_bytes
from launch.explain import explain
from launch.machine import Machine
from launch.memory import CUDA_LIBRARIES, GB, KNOWN, LIBRARIES, Shape, kv_bytes, learner_bytes, tiny_shape
from launch.plan import plan
from recipes.loader import load
from recipes.schema import Learner, Tiny
from tests.unit.test_plan import LAPTOP, NODE, blockers, own_folder  # noqa: F401


def test_memory_parts_follow_the_zero_stage():
    shape = KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"]
    N = shape.parameters
    held = {
        stage: learner_bytes(shape, Learner(ranks=4, zero_stage=stage), bf16=True, reference=False, longest=5024) for stage in (1, 2, 3)
    }
    assert [held[stage]["weights"] for stage in (1, 2, 3)] == [2 * N, 2 * N, 2 * N // 4]
    assert [held[stage]["gradients"] for stage in (1, 2, 3)] == [2 * N, 2 * N // 4, 2 * N // 4]
    assert [held[stage]["optimiser"] for stage in (1, 2, 3)] == [
        12 * (N // 4) + 4 * N,
        16 * (N // 4),
        16 * (N // 4),
    ]  # BF16_Optimizer's sums are whole
    assert ["buckets" in held[stage] for stage in (1, 2, 3)] == [False, True, True]
    single = [
        learner_bytes(shape, Learner(ranks=1, zero_stage=stage), bf16=False, reference=False, longest=5024)["gradients"] for stage in (1, 2)
    ]
    assert single == [4 * N, 8 * N]  # of a micro-batch beside the sum
    assert held[1]["logits"] == 4096 * 151936 * 4 * 2  # the term that a vocabulary of 152k makes the largest
    assert "reference" not in held[1]
    assert {stage: part["gathered"] for stage, part in held.items() if "gathered" in part} == {
        3: 2 * 1_000_000_000
    }  # stage3_max_live_parameters
    assert kv_bytes(shape, 1, 2) == 2 * 28 * 2 * 128 * 2
    assert [kv_bytes(shape, 1, 2, workers) for workers in (1, 2, 4)] == [2 * 28 * heads * 128 * 2 for heads in (2, 1, 1)]


def test_what_a_step_of_the_optimiser_takes_counts_where_activations_leave_too_little():
    shape = KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"]
    learner = Learner(ranks=1, zero_stage=2, micro_batch_tokens=256, logit_chunk_tokens=256, gradient_checkpointing=True)
    held = learner_bytes(shape, learner, bf16=True, reference=False, longest=256)
    assert held["buckets"] == 151936 * 1536 * (2 + 4)  # the embedding is larger than a bucket
    assert held["head gradient"] == 151936 * 1536 * 6
    assert held["optimiser step"] == 4 * shape.parameters - held["activations"] - held["logits"]
    assert "context" not in held and learner_bytes(shape, learner, True, False, 256, gpu=True)["context"] > 0
    assert "buckets" not in learner_bytes(shape, Learner(zero_stage=0), False, False, 256)


def test_zero_keeps_a_second_copy_of_fp32_weights_and_takes_two_shares_for_a_step():
    # A step's peak as measured with the profiler, one rank, 19.5M parameters: 28 bytes a parameter where activations take next to nothing.
    shape = KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"]
    small = {"micro_batch_tokens": 1, "logit_chunk_tokens": 1, "gradient_checkpointing": True}
    held = learner_bytes(shape, Learner(ranks=1, zero_stage=1, **small), bf16=False, reference=False, longest=1)
    model = sum(held[part] for part in ("weights", "gradients", "optimiser", "activations", "logits", "optimiser step"))
    assert model == 28 * shape.parameters and held["optimiser"] == 12 * shape.parameters
    plain = learner_bytes(shape, Learner(ranks=1, zero_stage=0, **small), bf16=False, reference=False, longest=1)
    assert plain["optimiser"] == 8 * shape.parameters
    tiny = tiny_shape(Tiny())
    buckets = [learner_bytes(tiny, Learner(zero_stage=1), False, False, 9, gpu=gpu)["buckets"] for gpu in (False, True)]
    assert buckets == [8 * tiny.parameters, 8 * 100_000_000]  # taken whole on a GPU; on a CPU only what is used


@pytest.mark.parametrize(
    ("memory", "card", "sequences", "batched"),
    [
        (24, "NVIDIA GeForce RTX 4090", 256, 8192),
        (80, "NVIDIA H100 80GB HBM3", 1024, 16384),
        (80, "NVIDIA A100-SXM4-80GB", 256, 8192),
        (80, "NVIDIA A100 80GB PCIe", 256, 8192),
        (80, "", 1024, 16384),
        (141, "NVIDIA H200", 1024, 16384),
        (180, "NVIDIA B200", 1024, 16384),
    ],
)
def test_an_engine_is_started_with_the_sizes_that_vllm_takes_for_such_a_card(memory: int, card: str, sequences: int, batched: int):
    made = plan(load("dler"), Machine(64, 500 * GB, (memory * GB,) * 8, cards=(card,) * 8))
    assert made.engine == {"max_num_seqs": sequences, "max_num_batched_tokens": batched, "gpu_memory_utilization": 0.92}
    engine = next(actor for actor in made.actors if actor.name == "engine")
    assert engine.bytes == pytest.approx(0.92 * memory * GB, abs=10)
    assert engine.holds["profile"] > sequences * 151936 * 4 * 3  # logits of every sequence, and a batch's activations


def test_what_engine_vllm_says_wins_over_the_sizes_of_the_card():
    made = plan(load("dler", "node8"), NODE)
    assert made.engine == {"max_num_seqs": 512, "max_num_batched_tokens": 16384, "gpu_memory_utilization": 0.9, "tensor_parallel_size": 1}


def test_main_memory_counts_every_process_and_the_weights_on_their_way():
    made = plan(load("dler", "node8"), NODE)
    N = KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"].parameters
    bare = sum(actor.count * (LIBRARIES[actor.name] + (CUDA_LIBRARIES if actor.gpus else 0)) for actor in made.actors)
    assert host_bytes(made.actors, made.placement) == bare + 4 * 2 * N  # four ranks load bf16 weights
    stored = plan(load("dler", "node8", ["cluster.carrier=store"]), NODE)
    assert host_bytes(stored.actors, stored.placement) == bare + 4 * 2 * N + 2 * 2 * N  # packed and published once each


def test_plan_says_what_is_there_gpus_of_each_size_and_other_nodes_with_how_many_of_each():
    front, mixed = Machine(16, 60 * GB), Machine(64, 800 * GB, (24 * GB, 80 * GB) * 2 + (0,))
    nodes = [Machine(64, memory * GB, (80 * GB,) * 4, name=f"{memory}") for memory in (500, 400)]
    said = explain(plan(load("quickstart"), front, [*nodes, replace(front, name="b")])).splitlines()
    at = said.index("here     16 cores, 60 GB free, no GPU")
    assert said[at + 1 : at + 3] == [
        "beside   2 x (64 cores, at least 400 GB free, 4 GPUs of 80 GB)",
        "beside   1 x (16 cores, 60 GB free, no GPU)",
    ]
    assert "here     64 cores, 800 GB free, 2 GPUs of 24 GB + 2 GPUs of 80 GB + 1 GPU of unknown size" in explain(
        plan(load("quickstart"), mixed)
    )


@pytest.mark.parametrize("gpus", [(0,), (0, 0, 0), (80 * GB, 0, 80 * GB)])
def test_a_gpu_that_does_not_tell_its_memory_is_refused_for_that_and_not_for_having_none(gpus: tuple[int, ...]):
    for name, scale in (("quickstart", None), ("dler", "gpu1-80")):
        [line] = plan(load(name, scale), Machine(16, 64 * GB, gpus)).blockers
        assert line.startswith("memory: nvidia-smi does not tell the memory of every GPU here")


def test_an_evaluation_alone_needs_room_for_what_it_samples_only():
    small = ["model.path=model", "stages=[eval]", "data.max_prompt_tokens=100", "eval.max_tokens=1900", "budget.limit=4000"]
    folder = Path("model")
    folder.mkdir()
    config = dict(num_hidden_layers=2, hidden_size=64, num_attention_heads=4, intermediate_size=128, vocab_size=100)
    (folder / "config.json").write_text(json.dumps(config | dict(max_position_embeddings=2048)))
    assert not any("budget.limit" in line for line in plan(load("dler", None, small), LAPTOP).blockers)
    assert any(
        "eval.max_tokens 2000 = 2100 is more than the 2048" in line
        for line in plan(load("dler", None, [*small, "eval.max_tokens=2000"]), LAPTOP).blockers
    )
    assert any("budget.limit: 4000 is more than" in line for line in plan(load("dler", None, [*small, "stages=[rl]"]), LAPTOP).blockers)
    never = [*small, "stages=[rl]", "budget.limit=1000", "eval.max_tokens=9000"]  # asked for, and not: eval.every=0 and no eval stage
    said = [plan(load("dler", None, [*never, f"eval.every={every}"]), LAPTOP).blockers for every in (10, 0)]
    assert [any("eval.max_tokens: 9000 is more" in line for line in lines) for lines in said] == [True, False]


@pytest.mark.parametrize(
    ("words", "held"),
    [
        ([], False),
        (["objective.kl.coef=0.1"], True),
        (["schedule.objective.kl.coef={kind: linear, to: 0.1}"], True),
        (["objective.kl.coef=0.1", "schedule.objective.kl.coef={kind: linear, to: 0.0}"], True),
        (["reward=[{kind: verdict}, {kind: kl, weight: 0.01}]"], True),
        (["reward=[{kind: verdict}, {kind: kl, weight: 0.0}]", "schedule.reward.kl.weight={kind: linear, to: 0.1}"], True),
    ],
)
def test_whatever_reads_the_reference_model_counts_its_memory_and_reads_its_estimator(words: list[str], held: bool):
    result = plan(load("grpo", "tiny", ["objective.kl.coef=0", "objective.kl.estimator=k1", *words]), LAPTOP)
    assert ("reference" in next(actor for actor in result.actors if actor.name == "learner").holds) is held
    in_loss, said = any("objective.kl.coef" in word for word in words), "\n".join(result.warnings)
    assert ("objective.kl.estimator: k1 says nothing" in said) is (not in_loss)
    assert ("k1 as a loss" in said) is in_loss


_ON_FOUR = ["engine.count=1", "engine.vllm.tensor_parallel_size=4", "learner.ranks=4"]
_LORA = "take adapters (learner.adapter.kind=lora)"


@pytest.mark.parametrize(
    ("scale", "words", "gpu", "remedies"),
    [  # what is too large of 32B parameters: frozen weights and a reference are 66 GB, each whole on a rank without ZeRO-3
        ("node8", [*_ON_FOUR, "learner.zero_stage=2", "learner.adapter.kind=lora"], 80, "set learner.zero_stage=3, "),
        ("node8", [*_ON_FOUR, "learner.zero_stage=3", "learner.adapter.kind=lora", "learner.micro_batch_tokens=131072"], 40, "lower learner.micro_batch_tokens, "),
        ("node8", [*_ON_FOUR, "learner.zero_stage=3", "learner.ranks=24", "objective.kl.coef=0.1"], 80, f"{_LORA}, do without the reference (objective.kl.coef=0) together with lower learner.micro_batch_tokens, "),
        ("node8", [*_ON_FOUR, "learner.zero_stage=3", "objective.kl.coef=0"], 80, f"take more ranks (and GPUs), {_LORA} together with lower learner.micro_batch_tokens, "),
        ("node8", [*_ON_FOUR, "learner.zero_stage=1", "learner.ranks=1", "objective.kl.coef=0"], 80, f"{_LORA} together with lower learner.micro_batch_tokens, "),
        ("gpu1-80", ["learner.adapter.kind=lora", "engine.count=4"], 160, "not enough alone: lower engine.count, lower budget.limit or eval.max_tokens, "),
        ("gpu1-80", ["learner.adapter.kind=lora", "engine.count=2", "budget.limit=64", "eval.max_tokens=64"], 240, "lower engine.count, "),
    ],
)  # fmt: skip
def test_the_remedies_for_a_full_gpu_are_what_frees_enough_of_it(
    scale: str, words: list[str], gpu: int, remedies: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(KNOWN, "some/32b", Shape(64, 5120, 40, 8, 128, 27648, 152064, False, 131072))
    machines = [
        Machine(64, 4000 * GB, (gpu * GB,) * (8 if scale == "node8" else 1), name=f"{n}") for n in range(4 if scale == "node8" else 1)
    ]
    made = plan(load("dler", scale, ["model.path=some/32b", *words]), machines[0], machines[1:])
    [line] = [line for line in made.blockers if re.match("memory: (one learner|engines and)", line)]
    assert f" are there; {remedies}" in line and re.search(r", or take a smaller model( or more GPUs)?$", line), line


def test_what_is_said_to_be_enough_is_where_it_can_be_told_and_what_is_not_is_not_said():
    """7B whole on eight of 80 GB: the reference alone and ZeRO-3 alone are not, both are; its largest remedy alone is."""
    seven, node = f"model.path={next(name for name in KNOWN if name.endswith('7B'))}", Machine(64, 1000 * GB, (80 * GB,) * 8)

    def refused(*words: str, scale: str = "node8", at: Machine = node) -> list[str]:
        return plan(load("dler", scale, [seven, *words]), at).blockers

    reference, stage, adapters = "objective.kl.coef=0", "learner.zero_stage=3", "learner.adapter.kind=lora"
    assert f"; {_LORA}, take more ranks (and GPUs), do without" in refused()[0] and not refused(adapters)
    assert f"do without the reference ({reference}), or" in refused(stage)[0] and not refused(stage, reference)
    assert refused(reference) and f"({reference})," not in refused()[0]
    full = refused(scale="gpu1-24", at=Machine(64, 1000 * GB, (24 * GB,)))
    assert any("in the engines' turn" in line for line in full) and any(
        "has room for 0 B" in line for line in full
    )  # no 67 MB of what is not there
    little = plan(load("dler", "gpu1-80", ["engine.vllm.gpu_memory_utilization=0.05"]), Machine(64, 1000 * GB, (80 * GB,)))
    assert "or raise engine.vllm.gpu_memory_utilization" in "".join(
        little.blockers
    )  # the GPU is not full, but the share that the recipe gives
    alone = Machine(64, 1000 * GB, (80 * GB,) * 2)
    own = plan(load("dler", overrides=["engine.vllm.gpu_memory_utilization=0.05"]), alone).blockers
    assert "4.0 GB are there by engine.vllm.gpu_memory_utilization; raise that, or leave it out" in "".join(own)
    sized = plan(load("dler", overrides=["engine.vllm.kv_cache_memory_bytes=1000"]), alone).blockers
    assert "or raise engine.vllm.kv_cache_memory_bytes" in "".join(sized)


def test_an_option_of_vllm_that_a_scale_says_is_taken_out_by_null():
    node = Machine(64, 1000 * GB, (80 * GB,) * 8)
    said = load("dler", "node8").engine.vllm
    assert said and load("dler", "node8", [f"engine.vllm.{name}=null" for name in said]).engine.vllm == {}
    assert plan(load("dler", overrides=["engine.vllm.kv_cache_memory_bytes=null"]), node) == plan(load("dler"), node)
