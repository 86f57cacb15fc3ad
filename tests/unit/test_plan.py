"""Plans: the arithmetic of a step, what memory holds, and what is refused before anything starts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from launch import plan as planning
from launch.actors import host_bytes
from launch.evaluate import protocol
from launch.explain import explain
from launch.machine import Machine
from launch.memory import GB, KNOWN, config_shape, learner_bytes, size, sizes_apart, tiny_shape
from launch.plan import PlanError, check_runnable, plan, step_work
from recipes.loader import load, scales, shipped
from recipes.schema import Learner, Tiny

ROOT = Path(__file__).parents[2]
LAPTOP = Machine(cores=2, memory=16 * GB)
NODE = Machine(cores=64, memory=500 * GB, gpus=(80 * GB,) * 8)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def blockers(machine: Machine, name: str, scale: str | None, *words: str) -> list[str]:
    return plan(load(name, scale, words), machine).blockers


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("scale", [None, *scales()])
@pytest.mark.parametrize("machine", [LAPTOP, NODE])
def test_every_shipped_recipe_plans(name: str, scale: str | None, machine: Machine):
    recipe = load(name, scale)
    text = explain(plan(recipe, machine))
    assert ("optimiser update" in text) == recipe.trains
    assert ("BLOCKED" in text) != ("This machine can run it" in text)


@pytest.mark.parametrize("name", ["quickstart", "dler", "dler_release", "da_dler"])
def test_the_tiny_scale_runs_on_a_laptop(name: str):
    result = plan(load(name, "tiny"), LAPTOP)
    assert (result.blockers, result.warnings) == ([], [])
    check_runnable(result)


def test_the_node_scale_runs_on_a_node_and_only_there():
    check_runnable(plan(load("dler", "node8"), NODE))
    elsewhere = plan(load("dler", "node8"), LAPTOP)
    assert "512 prompts x 16 rollouts = 8,192" in explain(elsewhere)
    with pytest.raises(PlanError, match=r"cuda needs 8 GPUs \(4 x 1 for engines \+ 4 x 1 for learners\) and this machine has none"):
        check_runnable(elsewhere)


def test_prompts_become_updates_and_micro_batches():
    # 512 x 16 = 8192 rollouts, in 8 updates 1024, on 4 ranks 256; 32768 // (1024 + 4000) = 6 rows, ceil(256 / 6) = 43
    work = step_work(load("dler", "node8"))
    assert (work.rollouts, work.rows_per_update, work.rows_per_rank, work.rows_per_micro_batch, work.micro_batches) == (
        8192,
        1024,
        256,
        6,
        43,
    )
    assert work.longest == 5024


def test_only_selected_rollouts_make_micro_batches():
    whole = load("dler", "tiny")
    for others, share in (("drop", 2), ("zero", 1)):
        work = step_work(load("dler", "tiny", ["select.kind=shortest", "select.keep=4", f"select.others={others}"]))
        assert work.rows_per_update == step_work(whole).rows_per_update // share
        assert work.rollouts == step_work(whole).rollouts


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["objective.kl.estimator=k1", "objective.kl.coef=0.1"], "k1 as a loss"),
        (["objective.correction.kind=sequence_mask", "objective.old_logprobs=learner"], "hardly ever masks"),
        (["objective.ratio=sequence"], "ratio: sequence goes with sequence_mean"),
        (["objective.ratio=sequence", "objective.aggregate=sequence_mean"], "hardly ever binds"),
        (
            ["objective={ratio: sequence, clip_low: 3.0e-4, clip_high: 4.0e-4}", "model.dtype=bf16", "learner.zero_stage=1"],
            "objective.ratio: bounds less than engine",
        ),
        (["advantage.centre=leave_one_out", "advantage.scale=group"], "so this is GRPO"),
        (
            ["advantage.scale=group", "reward=[{kind: verdict}, {kind: function, name: 'tests.faults.by_length:by_length', weight: 0.1}]"],
            "has no effect there",
        ),
    ],
)
def test_a_method_that_hardly_does_what_its_name_says_is_a_warning(changes, words):
    assert any(words in warning for warning in plan(load("dler", "tiny", changes), LAPTOP).warnings)
    assert not any(words in warning for warning in plan(load("dler", "tiny"), LAPTOP).warnings)


def test_the_explanation_says_what_the_step_does():
    text = explain(plan(load("da_dler", "tiny"), LAPTOP))
    assert "24 prompts x 8 rollouts = 192 of at most 104 tokens; groups of constant reward are replaced (at most 240 times)" in text
    assert "52 tokens where at least 50% are right, else 104 tokens where at least 0% are right" in text
    assert "1 optimiser update a step, on 24 prompts = 192 rollouts each" in text
    assert "96 rollouts on each of 2 ranks make at most 4 micro-batches of 24 rows (168 tokens each, prompt included)" in text
    assert "34 steps = 34 updates on 6,528 rollouts" in text


REFUSED = {
    ("quickstart", None, "budget.limit=4000"): "budget.limit: 4000 is more than the 2048 tokens that tiny can take",
    ("quickstart", None, "budget.limit=2000"): "data.max_prompt_tokens 64 + budget.limit 2000 = 2064 is more than the 2048 tokens",
    ("quickstart", None, "eval.max_tokens=2000"): "data.max_prompt_tokens 64 + eval.max_tokens 2000 = 2064 is more than",
    ("quickstart", None, "data.train=train.jsonl"): "data.train: train.jsonl is not for the tiny reasoner",
    ("quickstart", None, "eval.data=[]"): "eval.data: empty, so the eval stage has nothing to do",
    ("quickstart", None, "engine.count=40"): "memory: the processes need about",
    ("quickstart", None, "eval.problems=1000"): "eval.problems: 1000 is more than the 480 held-out problems of chain, product",
    ("quickstart", None, "learner.ranks=300"): "learner.ranks: 300 ranks share 192 rollouts an update; some would get none",
    ("quickstart", None, "device=cuda"): "device: cuda needs 2 GPUs (1 x 1 for engines + 1 x 1 for learners) and this machine has none",
    ("quickstart", None, "engine.vllm.max_num_seqs=many"): "engine.vllm.max_num_seqs: 'many' is not a whole number above 0",
    (
        "quickstart",
        None,
        "reward=[{kind: verdict}, {kind: function, name: nowhere:f, gate: right}]",
    ): "reward: reward function nowhere:f: no module nowhere",
    ("quickstart", None, "reward=[{kind: verdict}, {kind: function, name: math:f, gate: right}]"): "math has no function f",
    ("dler", None, "model.path=./gone"): "model.path: no folder ./gone; name a checkpoint folder that exists",
    ("dler", None, "model.path=runs/a/checkpoints/step-4"): "model.path: no folder runs/a/checkpoints/step-4",
    ("dler", None, "model.path=s3://bucket/it"): "model.path: s3://bucket/it is a URL, and weights are read from folders and the hub",
    ("dler", None, "model.path=some..one/it"): "model.path: some..one/it is no hub id",
    ("dler", None, "model.path=gone"): "model.path: no folder gone",
    ("da_dler", "node8", "seed=1"): "model.path: no folder runs/dler-node8/checkpoints/step-450",
    ("dler", None, "model.path=."): "model.path: . holds no config.json",
    (
        "dler",
        None,
        "data.train=gone.jsonl",
    ): "data.train: gone.jsonl: no such file; sources are `tiny`, a file or folder of JSON lines, JSON, parquet or CSV, or hub:owner/name",
    (
        "dler",
        None,
        "eval.data=[aime25]",
    ): "eval.data: aime25: no such file; sources are `tiny`, a file or folder of JSON lines, JSON, parquet or CSV, or hub:owner/name",
    ("dler", None, "eval.data=[hub:aime]"): "eval.data: hub:aime is no hub set; write hub:owner/name",
    ("dler", None, "budget.limit=200000"): "budget.limit: 200000 is more than the 131072 tokens that deepseek-ai",
    (
        "dler",
        None,
        "device=cpu",
    ): "memory: the processes need about 81 GB of main memory, 16 GB are free; learners take 64 GB of it: lower learner.micro",
    ("dler", "tiny", "judge.workers=100000"): "main memory, 16 GB are free; judges take 12,000 GB of it: lower judge.workers",
    ("dler", "tiny", "engine.count=100"): "lower engine.count, or take a smaller model",
}


def test_sizes_that_differ_are_told_in_digits_that_show_it():
    assert (size(74e9), size(9.96e6), size(1999), size(7)) == ("74 GB", "10.0 MB", "2.0 KB", "7 B")
    assert sizes_apart(74.2e9, 73.6e9) == ("74.2 GB", "73.6 GB") and sizes_apart(81e9, 16e9) == ("81 GB", "16 GB")
    assert sizes_apart(1_000_000_001, 1_000_000_000) == ("1.000000001 GB", "1.000000000 GB")
    recipe = load("dler", "tiny")
    needed = host_bytes((made := plan(recipe, LAPTOP)).actors, made.placement)
    (line,) = plan(recipe, replace(LAPTOP, memory=needed - 1)).blockers
    assert len(set(re.findall(r"([\d.]+ GB) (?:of main|are free)", line))) == 2, line


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_cannot_work_is_refused_in_one_sentence(case: tuple[str, str, str]):
    name, scale, word = case
    result = plan(load(name, scale, [word]), LAPTOP)
    assert any(REFUSED[case] in line for line in result.blockers), result.blockers
    with pytest.raises(PlanError):
        check_runnable(result)


def test_a_missing_package_is_refused(monkeypatch: pytest.MonkeyPatch):
    assert blockers(replace(LAPTOP, build="cpu"), "quickstart", None) == blockers(replace(NODE, build="cuda"), "dler", "node8") == []
    for machine, name, scale, words in (
        (replace(NODE, build="cpu"), "dler", "node8", "vllm on cuda needs vLLM's CUDA build and the CPU build is installed: `make install EXTRA=cuda`"),
        (replace(LAPTOP, build="cuda"), "quickstart", None, "vllm on cpu needs vLLM's CPU build and the CUDA build is installed: `make install EXTRA=cpu`"),
        (replace(LAPTOP, build="none"), "quickstart", None, "vllm on cpu needs vLLM's CPU build and no vLLM is installed"),
    ):  # fmt: skip
        assert any(words in line for line in blockers(machine, name, scale))
        assert blockers(machine, name, scale, "engine.kind=reference") == []
    front = Machine(8, 64 * GB, build="cuda", name="front")
    for build, others, refused in (("cuda", "none", True), ("none", "cuda", False)):
        nodes = replace(front, build=build), replace(NODE, build=others, name="gpus")  # engines are on the second, the driver on the first
        assert [
            line.endswith("on gpus: `make install EXTRA=cuda`") for line in plan(load("dler", "node8"), nodes[0], nodes[1:]).blockers
        ] == [True] * refused
    wide = [
        "engine.count=1",
        "engine.vllm={tensor_parallel_size: 8}",
        "model.path=Qwen/Qwen3-8B",
    ]  # ranks are on the first, the engine on the second
    four = replace(NODE, gpus=NODE.gpus[:4], build="cpu", name="four"), replace(NODE, build="cuda", name="eight")
    said = [line for line in plan(load("dler", "node8", wide), four[0], four[1:]).blockers if "build" in line]
    assert said == ["device: the learner on cuda needs the CUDA build and the CPU build is installed on four: `make install EXTRA=cuda`"]
    nothing = plan(load("evaluate", "gpu1-24"), Machine(8, 64 * GB, build="none")).blockers
    assert any("no vLLM is installed" in line for line in nothing) and any("needs 1 GPU" in line for line in nothing)
    monkeypatch.setattr(planning.importlib.util, "find_spec", lambda name: None)
    assert any(line.startswith("wandb: the package is not installed") for line in blockers(LAPTOP, "quickstart", None, "wandb=mine"))


def test_too_few_or_too_small_gpus_are_refused():
    few, small = Machine(64, 500 * GB, (80 * GB,) * 2), Machine(64, 500 * GB, (16 * GB,) * 8)
    assert any("needs 8 GPUs" in line and "this machine has 2" in line for line in blockers(few, "dler", "node8"))
    assert any(line.startswith("memory: one learner needs about") for line in blockers(small, "dler", "node8"))


ONE_GPU = [Machine(8, 64 * GB, (memory * GB,)) for memory in (8, 16, 24, 80)]


@pytest.mark.parametrize("machine", ONE_GPU, ids=lambda machine: size(machine.gpus[0]))
@pytest.mark.parametrize("name", ["quickstart", "dler", "da_dler"])
def test_the_tiny_scale_runs_on_one_gpu_which_engine_and_rank_share(name: str, machine: Machine):
    made = plan(load(name, "tiny"), machine)
    assert (made.blockers, made.device, made.placement.shared) == ([], "cuda", True)
    assert {actor.name: (actor.count, actor.gpus) for actor in made.actors if actor.gpus} == {"engine": (1, 0.5), "learner": (1, 0.5)}
    held = sum(actor.count * actor.bytes for actor in made.actors if actor.gpus)
    assert made.engine["kv_cache_memory_bytes"] > 0 and held < 0.92 * machine.gpus[0]
    assert made.engine["gpu_memory_utilization"] * machine.gpus[0] < machine.gpus[0] - held / 2  # vLLM starts beside the rank
    assert made.turns and made.engine["enable_sleep_mode"] and made.engine["gpu_memory_utilization"] < 1
    said = explain(made)
    assert "part of GPU" in said and "1 GPU of" in said
    assert (
        "turns    while engines sample, a GPU holds engine" in said
        and "turns    while the learner works, a GPU holds engine 800 MB + learner" in said
    )
    apart = explain(plan(load(name, "tiny"), LAPTOP))
    assert "turns " not in apart and "at rest:" not in apart and "; at rest: weights" in said


def test_more_engines_on_one_gpu_share_what_the_rank_leaves():
    one, three = (
        plan(load("quickstart", overrides=[f"engine.count={count}", "engine.vllm.max_num_seqs=100000"]), ONE_GPU[2]) for count in (1, 3)
    )
    assert three.turns and three.blockers == [] and {actor.gpus for actor in three.actors if actor.gpus} == {0.25}
    assert 3 * three.engine["kv_cache_memory_bytes"] < one.engine["kv_cache_memory_bytes"]


def test_what_does_not_fit_on_one_gpu_together_is_refused_with_the_sum():
    alone = ["device=cuda", "learner.ranks=1", "engine.count=1", "learner.gradient_checkpointing=true"]
    assert any("engines and learner share the one GPU and need about" in line for line in blockers(ONE_GPU[2], "dler", None, *alone))
    turn = "in the engines' turn"  # the learner rests, and measures an evaluation's longest answer whole
    [said] = [line for line in blockers(Machine(8, 64 * GB, (16 * GB,)), "dler", "gpu1-80") if turn in line]
    assert "; lower eval.max_tokens, or" in said
    assert any("this machine has 1; learner.ranks=1 and engine.count=1 share one" in line for line in blockers(ONE_GPU[3], "dler", "node8"))


def test_with_two_gpus_the_tiny_scale_takes_one_each():
    made = plan(load("quickstart"), Machine(8, 64 * GB, (24 * GB,) * 2))
    assert (made.blockers, made.placement.shared, [actor.gpus for actor in made.actors if actor.gpus]) == ([], False, [1, 1])


def test_the_cpu_build_beside_a_gpu_runs_on_the_cpu_and_says_so():
    made = plan(load("quickstart"), replace(ONE_GPU[2], build="cpu"))
    assert (made.blockers, made.device, made.recipe.learner.ranks) == ([], "cpu", 2)
    assert any("the CPU build is installed, so the CPU is used" in line for line in made.warnings)


def test_p13_a_function_that_counts_for_wrong_answers_is_a_warning():
    ungated = "reward=[{kind: verdict}, {kind: function, name: 'tests.faults.by_length:by_length', weight: 0.1}]"
    said = "\n".join(plan(load("quickstart", overrides=[ungated]), LAPTOP).warnings)
    assert "tests.faults.by_length:by_length counts for wrong answers, too" in said
    gated = plan(load("quickstart", overrides=[ungated.replace("0.1}]", "0.1, gate: right}]")]), LAPTOP)
    assert "counts for wrong answers" not in "\n".join(gated.warnings)


def test_what_will_hardly_work_is_a_warning():
    def warnings(*words: str) -> str:
        return "\n".join(plan(load("quickstart", overrides=words), LAPTOP).warnings)

    assert "engine: 4 x 1 threads on 2 cores will wait for each other" in warnings("engine.count=4")
    assert "learner: 2 x 2 threads on 2 cores" in warnings("learner.threads=2")
    assert "eval.max_tokens: 90 is below budget.limit 104" in warnings("eval.max_tokens=90")
    assert "learner.micro_batch_tokens: 100 holds no rollout of full length (168 tokens" in warnings("learner.micro_batch_tokens=100")


def test_the_cold_start_is_said_whether_it_is_named_or_not():
    for words in ([], ["stages=[cold_start, rl]"], ["stages=[eval]"]):
        assert "start    cold start of 1,150 steps of 16 traces, unless the cache has it" in explain(
            plan(load("quickstart", None, words), LAPTOP)
        )
    changed = explain(plan(load("quickstart", None, ["stages=[{kind: cold_start, changes: {cold_start.steps: 9}}, rl]"]), LAPTOP))
    assert "start    cold start of 9 steps" in changed


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        ("model.revision=main", "model.revision: main says nothing, as tiny is no hub id"),
        ("model.path=~/ model.revision=main", "model.revision: main says nothing, as ~/ is no hub id"),
        ("data.split=test", "data.split: test says nothing, as data.train is tiny"),
        ("advantage.scale=none advantage.ddof=1", "advantage.ddof: 1 says nothing, as advantage.scale is none"),
        ("objective.kl.estimator=k3", "objective.kl.estimator: k3 says nothing, as objective.kl.coef is 0"),
        ("train.keep_best=1", "train.keep_best: 1 says nothing, as no checkpoint is evaluated on the way"),
        ("train.keep_best=1 eval.every=3 train.checkpoint_every=10 train.steps=30", "train.keep_best: 1 says nothing"),
        ("engine.kind=reference engine.vllm.max_num_seqs=8", "says nothing, as engine.kind is reference"),
        ("sampler.keep_groups=all sampler.max_refills=1", "sampler.max_refills: 1 says nothing, as sampler.keep_groups is all"),
        ("eval.temperature=0 eval.samples=1 eval.top_p=0.9", "eval.top_p: 0.9 says nothing, as eval.temperature is 0"),
        ("data.problem=question", "data.problem: question says nothing, as no data come from files or the hub"),
        ("data.answer=gold", "data.answer: gold says nothing, as no data come from files or the hub"),
        ("judge.not_judged_limit=1 judge.over_limit=warn", "judge.over_limit: warn says nothing, as judge.not_judged_limit is 1"),
        ("select.kind=shortest select.keep=8", "select.keep: 8 is sampler.group_size, so every rollout trains"),
        ("learner.warmup_steps=61 train.steps=60", "learner.warmup_steps: 61 is more than train.steps 60"),
        ("stages=[rl] model.path=owner/name cold_start.steps=9", "cold_start.steps: 9 says nothing, as model.path is not tiny"),
    ],
)
def test_p29_a_key_that_says_nothing_beside_the_others_is_named(words: str, warning: str):
    base = ["sampler.group_size=8", "objective.kl.coef=0"]
    assert any(warning in line for line in plan(load("quickstart", overrides=[*base, *words.split()]), LAPTOP).warnings)
    assert not any(warning in line for line in plan(load("quickstart", overrides=base), LAPTOP).warnings)


def test_parameters_of_known_models_are_counted():  # model cards: 1.78B and 7.62B
    assert KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"].parameters / 1e9 == pytest.approx(1.78, abs=0.005)
    assert KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"].parameters / 1e9 == pytest.approx(7.62, abs=0.005)


def test_a_checkpoint_folder_tells_its_own_size(tmp_path: Path):
    config = dict(num_hidden_layers=2, hidden_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=128)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | dict(vocab_size=100, tie_word_embeddings=True, max_position_embeddings=4096)))
    shape = config_shape(folder / "config.json")
    # a layer: q and o 64*64 each, k and v 64*32 each, three times 64*128, two norms of 64; embedding 100*64, last norm 64
    assert shape is not None and shape.parameters == 2 * (2 * 4096 + 2 * 2048 + 3 * 8192 + 128) + 6400 + 64
    result = plan(load("dler", None, ["model.path=model", "budget.limit=5000"]), LAPTOP)
    assert any("5000 is more than the 4096 tokens that model can take" in line for line in result.blockers)


def test_a_model_of_unknown_size_is_said_to_be_unknown():
    result = plan(load("dler", None, ["model.path=someone/something"]), NODE)
    assert result.shape is None
    assert "size unknown until it is there" in explain(result)
    assert any("is unknown until it is there, so memory and context length were not checked" in line for line in result.warnings)
    gone = plan(load("dler", None, ["model.path=/nowhere/model"]), NODE)
    assert any("no folder /nowhere/model" in line for line in gone.blockers)
    assert not any("model.path" in line for line in gone.warnings)  # nothing is waited for that is refused


@pytest.mark.parametrize("positions", [512, 2048, 3000, 4096, 8192, 32768])
def test_the_one_sentence_on_a_short_context_says_what_would_fit_and_that_does(positions: int):
    folder = Path("short")
    folder.mkdir()
    config = dict(num_hidden_layers=2, hidden_size=64, num_attention_heads=4, intermediate_size=128, vocab_size=100)
    (folder / "config.json").write_text(json.dumps(config | dict(max_position_embeddings=positions)))
    asked = ["model.path=short", *protocol(["aime24@none"]), "eval.benchmarks=[]", "eval.data=[tiny.jsonl]"]

    def lengths(*changes: str) -> list[str]:
        return [line for line in plan(load("evaluate", None, [*asked, *changes]), LAPTOP).blockers if "tokens that short can take" in line]

    [said] = lengths()
    fits = re.search(r"; (.*) would fit$", said)
    assert fits and lengths(*fits[1].split()) == []


def test_the_tiny_reasoner_is_as_large_as_planned():
    import torch
    from transformers import Qwen3ForCausalLM

    from rl.cold_start import _model_config
    from rollout.tiny.tokenizer import build_tokenizer

    shape = tiny_shape(Tiny())
    model = Qwen3ForCausalLM(_model_config(load("quickstart"), build_tokenizer()))
    config = model.config
    assert (shape.layers, shape.kv_heads, shape.vocabulary) == (config.num_hidden_layers, config.num_key_value_heads, config.vocab_size)
    assert shape.max_positions == config.max_position_embeddings
    assert model.num_parameters() == pytest.approx(shape.parameters, rel=1e-3)

    kept: dict[int, int] = {}  # bytes of each storage that autograd keeps

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.base_model(input_ids=torch.zeros(20, 192, dtype=torch.long), use_cache=False)
    planned = learner_bytes(shape, Learner(micro_batch_tokens=20 * 192), bf16=False, reference=False, longest=192)
    assert sum(kept.values()) == pytest.approx(planned["activations"], rel=0.25)


def test_sizes_are_written_for_people():
    assert [size(count) for count in (5, 2_000, 3_200_000, 25_000_000, 7_467_958_272, 73 * GB)] == [
        "5 B",
        "2.0 KB",
        "3.2 MB",
        "25 MB",
        "7.5 GB",
        "73 GB",
    ]


def test_a_plan_takes_seconds_and_no_torch():
    code = (
        "import sys, time; from launch.plan import plan; from launch.explain import explain; from recipes.loader import load\n"
        "print(explain(plan(load('dler', 'node8')))); assert not {'torch', 'vllm', 'ray'} & set(sys.modules) and time.process_time() < 30"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=240, capture_output=True, text=True)
    assert "optimiser updates" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("engine.vllm.speculative_config={method: ngram, num_speculative_tokens: 3}", "vLLM's CPU build samples from another distribution"),
        ("engine.vllm.pipeline_parallel_size=2", "pipeline_parallel_size: 2: an engine here is one process, or tensor parallel"),
        ("engine.vllm.data_parallel_size=2", "data_parallel_size: 2: an engine here is one process"),
        ("engine.vllm.prefill_context_parallel_size='2'", "prefill_context_parallel_size: 2: an engine here is one process"),
        ("engine.vllm.decode_context_parallel_size=2", "decode_context_parallel_size: 2: an engine here is one process"),
        ("engine.vllm.distributed_executor_backend=mp", "distributed_executor_backend: mp: an engine here is one process"),
        ("engine.vllm.spec_method=ngram", "engine.vllm.spec_method: with speculation, vLLM's CPU build samples from another"),
    ],
)
def test_options_of_vllm_that_cannot_serve_are_refused_by_name(words: str, said: str):
    assert any(said in line for line in blockers(LAPTOP, "quickstart", None, words))
    assert not any(said in line for line in blockers(LAPTOP, "quickstart", None, words, "engine.kind=reference"))
    alone = blockers(replace(NODE, build="cuda"), "dler", "node8", words, "stages=[eval]")
    works = any(
        word in words for word in ("spec", "decode_context", "=mp")
    )  # speculation on a GPU, caches shared among tensor parallel workers, and these
    assert any(said in line for line in alone) != works


def test_an_option_that_vllm_does_not_have_is_refused_before_anything_starts():
    assert blockers(LAPTOP, "quickstart", None, "engine.vllm.max_num_seq=8") == [
        "engine.vllm.max_num_seq: vLLM has no such option; did you mean max_num_seqs?"
    ]
