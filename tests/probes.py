"""Probes of what a run does with a recipe: each hands one to the code that a run hands it to, and returns what came of it.

None looks at the recipe itself, its hash or what prints it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from launch import engines, problems, stages
from launch.evaluations import evaluations
from launch.machine import Machine
from launch.manifests import Nodes, slurm
from launch.plan import plan
from recipes.schema import Recipe
from recipes.steps import beginning
from rewards.functions import Asked, TrainerState
from rewards.redundant import Thought
from rewards.terms import Facts, rewards
from rewards.thinking import THINK
from rewards.verifier.judge import Judge
from rewards.verifier.verdict import Verdict
from rl import cold_start
from rl.algorithm import prepare
from rl.learner import Learner
from rl.loop import refuse_unjudged
from rl.selection import selected
from rl.wires import Collapsed, CollapseWires
from rollout.budget import Control, group_limit
from rollout.collector import Collected, Collector, PromptStream
from rollout.reference_engine import ReferenceEngine
from rollout.scorer import Scorer
from rollout.sources import Source, training_source
from rollout.template import load_template
from rollout.tokenizer import load_tokenizer
from rollout.types import Completion, Group, Problem, Request, Rollout
from tests.inprocess import libraries
from tests.scripted import ScriptedPool, response, template

FUNCTION = [{"kind": "verdict"}, {"kind": "function", "name": "p29_rewards:remainder", "weight": 0.1, "low": -1.0, "high": 8.0}]
TERMS = [{"kind": "verdict"}, {"kind": "truncate", "keep": 0.5}, {"kind": "format"}]


@dataclass(frozen=True)
class World:
    """What probes share: a tiny checkpoint, a judge of plain numbers, and a folder with rows and reward functions."""

    checkpoint: Path
    judge: Judge
    folder: Path


Probe = Callable[[Recipe, World], Any]


@dataclass(frozen=True)
class Row:
    """A key is alive if `probe` answers otherwise once it has `value`.

    Attributes:
        base: what else the recipe says, before and after; a key may matter only in company.
        along: what must change with it, because the schema allows neither alone.
        stops: the error that the changed recipe runs into, if that is the answer.
    """

    key: str
    probe: Probe
    value: Any
    base: dict[str, Any] = field(default_factory=dict)
    along: dict[str, Any] = field(default_factory=dict)
    stops: str = ""


def place(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; `reward[kind]` is the last term of that kind, `stages[kind]` the first stage of it, `budget.ladder[]` the first rung."""
    *parents, leaf = key.split(".")
    node: Any = tree
    for part in parents:
        name, _, kind = part.removesuffix("]").partition("[")
        node = node.setdefault(name, {})
        if part.endswith("]"):
            items = list(node.values()) if name == "schedule" else node
            if name not in ("budget", "select", "credit", "tokens", "cluster", "correction", "entropy", "adapter"):
                of_kind = [item for item in items if not kind or (isinstance(item, dict) and item["kind"] == kind)]
                node = of_kind[0 if name == "stages" or not kind else -1]
    if leaf == "kind" and "[" in key:
        node.clear()  # the other keys of a term are its kind's own
        node.update(value if isinstance(value, dict) else {"kind": value})
        return
    node[leaf] = deepcopy(value)


def recipe_of(world: World, *parts: dict[str, Any]) -> Recipe:
    tree: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            place(tree, key, str(world.checkpoint) if value == "CHECKPOINT" else value)
    return Recipe.model_validate(tree)


class PlainJudge(Judge):
    """Judges plain numbers only; its second checker calls everything right."""

    def audit(self, *, gold: str, answer: str) -> Future[Verdict]:
        said: Future[Verdict] = Future()
        said.set_result(Verdict("right", "second checker", answer))
        return said


# Probes, and what a recipe must say for each to be quick


def requests(recipe: Recipe, world: World) -> Any:
    """What engines are asked to sample."""
    source = training_source(recipe.data, recipe.tiny, recipe.seed, world.judge.check_golds)
    stream = PromptStream(source, load_template(world.checkpoint, recipe.data), recipe)
    return [stream.draw() for _ in range(16)], stream.template.thinking


def limits(recipe: Recipe, world: World) -> Any:
    """What prompts, engines and rewards are told of the limit, in each of six steps of rising accuracy."""
    columns = {"reference_tokens": 100, "asked": 70, "other": 60}
    problems = Source("numbers", lambda position: Problem(f"p{position}", f"q{position}", str(position), columns=columns))
    stream = PromptStream(problems, template(), recipe)
    tokens, right = np.array([10] * 31 + [120]), np.ones(32, dtype=bool)
    found: list[Any] = []
    for step in range(6):
        asked = stream.draw(step)
        budget = stream.control.budget(recipe.at(step).budget, step)
        mostly = right & (np.arange(32) > 3)
        given = asked.limit, asked.max_tokens, asked.thinking_tokens
        found.append((given, [group_limit(budget, asked.limit, tokens, each, right) for each in (right, mostly)]))
        watched = stream.watched(step)
        sampled = [spread(request, asked.limit, share) for request, share in zip(watched, 8 * (1.0, 0.5, 0.0), strict=False)]
        found.append(([request.max_tokens for request in watched], stream.control.watched(step, sampled)))
        found.append(stream.control.after(step, 0.9 if step == 0 else 0.95, 0.5, [40, 50, 60]))
    return found


def spread(request: Request, limit: int, right: float) -> Group:
    """A judged group of ever longer rollouts, up to 2.8 limits, a share of them right."""
    rollouts = []
    for index in range(request.group_size):
        ids = np.zeros(int(limit * (0.7 + 2.1 * index / request.group_size)), np.int32)
        verdict = Verdict("right" if index < right * request.group_size else "wrong", "")
        rollouts.append(Rollout(str(index), index, Completion(ids, ids.astype(np.float32), "stop", ids), "", None, verdict))
    return Group(request, rollouts)


def shaped(recipe: Recipe, world: World) -> Any:
    """What rewards of a group with four right and two wrong answers are, by term, and the multiplier of the step after it."""
    control = Control(recipe)
    tokens, right = np.array([10, 20, 30, 90, 40, 70]), np.array([1, 1, 1, 1, 0, 0], dtype=bool)
    thinking = np.array([2, 15, 20, 80, 30, 40])
    columns = {"reference_tokens": 25, "reference_spread": 4.0, "reference_accuracy": 0.75}
    ids = [[index % 60 for index in range(count)] for count in tokens]
    asked = Asked("p", [], ["\\boxed{1}", "</think>x" * 3, *["</think>x"] * 3, "x"], ids, columns, TrainerState(0, 1), list("abcdef"))
    facts = Facts(right, right | (tokens < 50), tokens, thinking, 50, 64, asked)
    control.after(0, 0.5, 3.0)
    return [
        {name: value_G.tolist() for name, value_G in rewards(terms, facts).items()}
        for terms in (recipe.reward, control.terms(recipe.reward))
    ]


def wired(recipe: Recipe, world: World) -> Any:
    """What is said of six steps: of ordinary rollouts, then of shorter ones, some empty, some repeating themselves, some cut off."""
    wires = CollapseWires(recipe.wires, THINK)
    request = Request("r", Problem("p", "", ""), (1,), 4, 8, 1.0, 1.0, 0)

    def step(length: int) -> list[Group]:
        ids = [list(range(length)), [7] * length, list(range(length)), list(range(length))]
        texts = ["a</think>b", "a</think>b", "</think>b", "a</think>b"]
        rollouts = []
        for sample, (tokens, text) in enumerate(zip(ids, texts, strict=True)):
            finish: Any = "length" if sample == 3 else "stop"
            completion = Completion(np.array(tokens, np.int32), np.zeros(length, np.float32), finish, np.zeros(length, np.int32))
            rollouts.append(Rollout(str(sample), sample, completion, text, 1))
        return [Group(request, rollouts)]

    try:
        seen = [wires.look(step(80), 0.5) for _ in range(5)] + [wires.look(step(20), 0.01)]
        for place, (_, said) in enumerate(seen):
            wires.refuse(said, place)
        return seen
    except Collapsed as error:
        return str(error)


def answers(request: Request) -> list[Completion]:
    """None, two, all and three right in turn; later samples are longer, and the last one of a prompt at an odd place is cut off."""
    position = int(request.problem.answer)
    rights = (0, 2, 4, 3)[position % 4]
    samples = [response(str(position if sample < rights else -1), thought=3 + 6 * sample) for sample in range(request.group_size)]
    if position % 2:
        samples[-1] = response("", thought=30, finish="length")
    if position % 4 == 0:
        samples[0] = response("", finish="abort")
    return samples


def collect(recipe: Recipe, world: World) -> Collected:
    source = Source("numbers", lambda position: Problem(f"p{position}", f"q{position}", str(position)))
    stream = PromptStream(source, template(), recipe)
    return Collector(ScriptedPool(answers), Scorer(world.judge, template()), stream).next()


def collected(recipe: Recipe, world: World) -> Any:
    """Groups that a step samples, with their rewards, and those that it trains on."""
    found = collect(recipe, world)
    earned = {
        group.problem.id: [(rollout.terms, rollout.reward, rollout.limit, rollout.audit) for rollout in group.rollouts]
        for group in found.sampled
    }
    return [group.problem.id for group in found.groups], earned


def eased(recipe: Recipe, world: World) -> Any:
    """Groups that three steps train on, some of right answers alone, and what is found redundant in them; every second one thinks on although it is there."""

    def think(request: Request) -> list[Completion]:
        position, made = int(request.problem.answer), []
        for sample in range(request.group_size):
            short = response(request.problem.answer if sample < (2, 4)[position % 2] else "-1", thought=0)
            ids = np.array([*map(ord, f"{position}\n" + "Wait, 999\nSo 999\n" * (sample % 2)), *short.ids], np.int32)
            made.append(Completion(ids, np.zeros(len(ids), np.float32), "stop", np.zeros(len(ids), np.int32)))
        return made

    source = Source("numbers", lambda position: Problem(f"p{position}", f"q{position}", str(position)))
    stream = PromptStream(source, template(), recipe)
    steps = Collector(ScriptedPool(think), Scorer(world.judge, template()), stream)
    found = [steps.next(step) for step in range(3)]
    redundant = [[rollout.redundant for group in one.groups for rollout in group.rollouts] for one in found]
    return [[group.problem.id for group in one.groups] for one in found], redundant


def unjudged(recipe: Recipe, world: World) -> Any:
    """What is said of a step with answers that have no verdict."""
    return refuse_unjudged(collect(recipe, world), recipe)


def groups(poison: float = 0.0) -> list[Group]:
    """Two judged groups whose token ids the tiny checkpoint knows, sampled from nearly its distribution."""
    draw = np.random.default_rng(0)
    made = []
    for index, (values, tokens) in enumerate([([1, 0, 0.2, 0], [3, 5, 8, 6]), ([1, 1, 0.5, 0], [2, 4, 7, 5])]):
        request = Request(f"r{index}", Problem(f"p{index}", "", ""), (9, 10 + index, 8), 4, 8, 1.0, 1.0, 0)
        rollouts = []
        for sample, (reward, length) in enumerate(zip(values, tokens, strict=True)):
            ids, logprobs = draw.integers(5, 41, length, np.int32), draw.normal(-3.7, 0.4, length).astype(np.float32)
            completion = Completion(ids, logprobs, "length" if sample == 3 else "stop", np.zeros(length, np.int32))
            verdict = Verdict("right" if reward == 1 else "wrong", "")
            rollout = Rollout(f"{index}-{sample}", sample, completion, "", None, verdict, {"verdict": reward}, reward + poison)
            rollout.thought = Thought(0.5, (0, length - 1)) if reward == 1 else None
            rollouts.append(rollout)
        made.append(Group(request, rollouts))
    return made


def prepared(recipe: Recipe, world: World) -> Any:
    """Rows of each update, with advantages, weights and what holds tokens in place."""

    def measure(parts: Any, what: Any) -> Any:
        def one(row: Any, name: str) -> Any:
            if name == "influence":
                return np.cos(5.0 * np.arange(len(row.ids)) + len(row.ids)) + 0.3 + 100 * row.toward
            return np.abs(row.engine_logp) if name == "entropy" else 0.9 * row.engine_logp

        return {row.id: np.stack([one(row, name) for name in what]) for rows in parts for row in rows}

    batch = prepare(groups(), recipe, measure)
    rows = [
        [(row.id, *(part_T.tolist() for part_T in (row.advantage_T, row.weight_T, row.stay_T))) for row in rows] for rows in batch.updates
    ]
    return rows, batch.metrics


def chosen(recipe: Recipe, world: World) -> Any:
    """Which rollouts of two prompts train, by advantages of which the second's say little."""
    return selected(np.array([[3.0, -1, -1, -1], [0.1, -0.1, 0.1, -0.1]]), np.ones((2, 4)), recipe.select).tolist()


def poisoned(recipe: Recipe, world: World) -> Any:
    """What becomes of rewards that are no numbers."""
    return prepare(groups(poison=float("nan")), recipe).updates


def trained(recipe: Recipe, world: World) -> Any:
    """Two steps of the learner: its numbers, the weights, the passes through the model, and what DeepSpeed and processes were given."""
    with libraries() as seen:
        learner = Learner(recipe, world.checkpoint, "cpu")
        steps = [learner.update(prepare(groups(), recipe, learner.measure).updates, step) for step in (0, 1)]
        stage = [config["zero_optimization"]["stage"] for config in seen.deepspeed]
        return steps, learner.weights()[1], learner.entropy.state(), seen.passes, stage, seen.threads, seen.actors


def engines_started(recipe: Recipe, world: World) -> Any:
    """What engines are started with."""
    with libraries() as seen, engines.engines(plan(recipe), world.checkpoint, load_template(world.checkpoint)):
        return seen.actors, seen.ray, seen.vllm


def placed(recipe: Recipe, world: World) -> Any:
    """Where processes run on two nodes of eight GPUs, and by what turns."""
    node = Machine(64, 800 << 30, (80 << 30,) * 8)
    made = plan(recipe, node, [node])
    found = made.placement
    return (
        len(found.nodes),
        found.at,
        found.gpus,
        found.groups,
        found.carrier,
        made.turns,
        [(actor.rests, actor.host) for actor in made.actors],
    )


def submitted(recipe: Recipe, world: World) -> Any:
    """What a job asks of Slurm."""
    return [
        line
        for line in slurm(recipe, Nodes(1, 0, 2, 4), "runs", "10").splitlines()
        if line.startswith("#SBATCH") and "job-name" not in line
    ]


def started_from(recipe: Recipe, world: World) -> Any:
    """The checkpoint that a run starts from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.snapshot_download", lambda name, revision, **_: f"{name}@{revision}")
        return stages.starting_checkpoint(recipe)


def cold_started(recipe: Recipe, world: World) -> Any:
    """What TRL's trainer is given."""
    given: list[Any] = []

    class Trainer:
        def __init__(self, model: Any, args: Any, train_dataset: Any, optimizers: Any, **_: Any):
            shape = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
            rates = [group["lr"] for group in optimizers[0].param_groups]
            given[:] = [shape, args.max_steps, args.per_device_train_batch_size, args.warmup_steps, rates, train_dataset.to_list()]

        def remove_callback(self, _: Any) -> None: ...

        def train(self) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cold_start, "SFTTrainer", Trainer)
        cold_start._train(beginning(recipe), world.folder / "cold", None)
    return given


def evaluated(recipe: Recipe, world: World) -> Any:
    """What engines are asked to sample in evaluations, and what is recorded of their settings."""
    parts = problems.held_out(recipe, world.judge)
    asked = evaluations(parts, recipe, template(), world.folder, checkpoint="x")
    return [(one.path.name, one.settings, one.requests) for one in asked]


def whole_run(recipe: Recipe, world: World) -> Any:
    """What a run of two steps leaves behind, times left out, and what it asked of libraries."""
    with libraries() as seen:
        folder = stages.run_recipe(plan(recipe), world.folder / f"runs-{len(list(world.folder.iterdir()))}")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = re.compile("seconds/|time$|tokens_per_s$")
    metrics = [{name: value for name, value in line.items() if not timed.match(name)} for line in lines]
    samples = {path.name: pq.read_table(path)["rollout"].to_pylist() for path in folder.glob("samples/*.parquet")}
    others = sorted(str(path.relative_to(folder)) for part in ("checkpoints", "evals") for path in (folder / part).iterdir())
    waived = json.loads((folder / "status.json").read_text()).get("waived")
    return folder.name, metrics, samples, others, sorted(seen.judges), seen.wandb, waived


def staged(recipe: Recipe, world: World) -> Any:
    """What stages ask of engines, what they give to trainers, and what they leave. Every second answer to a reference is right, later ones are longer."""
    sample, asked, given = ReferenceEngine._sample, list[Any](), list[Any]()

    def answer(self: ReferenceEngine, request: Request) -> list[Completion]:
        asked.append((request.id, request.group_size, request.max_tokens, request.temperature))
        if not request.id.startswith("reference"):
            return sample(self, request)
        found = []
        for number in range(request.group_size):
            text = "so " * (5 * number) + "</think>" + f" \\boxed{{{request.problem.answer}}}" * (number % 2 == 0)
            ids = np.array([*tokenizer(text, add_special_tokens=False)["input_ids"], *request_end], np.int32)
            found.append(Completion(ids, np.full(len(ids), -1.0, np.float32), "stop", np.zeros(len(ids), np.int32)))
        return found

    def learn(start: Path, folder: Path, rows: Any, *how: Any) -> Path:
        given.append((start.name, [tuple(map(tuple, row)) for row in rows], how[:-1]))
        shutil.copytree(start, folder / "checkpoint")
        return folder / "checkpoint"

    tokenizer = load_tokenizer(world.checkpoint)
    request_end = [tokenizer.eos_token_id]
    runs = world.folder / f"runs-{len(list(world.folder.iterdir()))}"
    with libraries(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReferenceEngine, "_sample", answer)
        for name in ("sft", "dpo"):
            patch.setattr(f"launch.teachers.{name}", learn)
        folder = stages.run_recipe(plan(recipe), runs)
    weights = {path.parent.name: path.read_bytes() for path in folder.glob("stages/merge/checkpoint/*.safetensors")}
    return (
        sorted(asked),
        given,
        sorted(str(path.relative_to(folder)) for path in folder.glob("**/*") if "manifest" not in path.name),
        weights,
    )


SMALL: dict[str, Any] = {"sampler.prompts": 2, "sampler.group_size": 4}
STEP = SMALL | {"sampler.max_refills": 2, "budget.limit": 30, "judge.not_judged_limit": 0.5, "reward": TERMS}
RUN = SMALL | {
    "device": "cpu",
    "model.path": "CHECKPOINT",
    "data.max_prompt_tokens": 64,
    "sampler.keep_groups": "all",
    "budget.limit": 4,
    "budget.cut_stop": 1.0,
    "reward": FUNCTION,
    "learner.lr": 0.001,
    "engine.kind": "reference",
    "train.steps": 2,
    "train.checkpoint_every": 1,
    "eval.problems": 2,
    "eval.samples": 1,
    "eval.max_tokens": 4,
}
BASES: dict[Probe, dict[str, Any]] = {
    requests: {},
    collected: STEP,
    shaped: SMALL | {"waive": ["right_beats_wrong", "length_of_wrong"]},
    wired: {},
    limits: {"train.steps": 6},
    unjudged: STEP,
    eased: SMALL | {"sampler.prompts": 4, "judge.audit": 0, "budget.limit": 90},
    prepared: SMALL,
    chosen: SMALL,
    poisoned: SMALL,
    trained: SMALL | {"learner.lr": 0.01, "learner.updates_per_step": 2},
    engines_started: {"device": "cpu", "engine.vllm": {"kv_cache_memory_bytes": 1 << 20}},
    placed: {"device": "cuda"},
    started_from: {"model.path": "owner/name"},
    submitted: {},
    cold_started: {"tiny.layers": 1, "tiny.width": 32, "cold_start.steps": 6, "cold_start.batch": 4},
    evaluated: {"stages": ["eval"], "eval.problems": 3, "eval.samples": 2},
    whole_run: RUN,
    staged: RUN,
}
