"""What a recipe would do here, before anything is started: batches, actors, memory, and what stands in the way.

Estimates assume the worst case: every rollout at its full length. `plan` never refuses, `check_runnable` does. No torch.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import ceil, inf
from pathlib import Path
from typing import Any

from launch.actors import Actor, actors, misfits, takes_turns, wishes
from launch.checkpoints import adapter_faults, checkpoint_faults, config_faults, linear_layers, read_json
from launch.head import joined_address
from launch.machine import OLDEST_BF16, OLDEST_GPU, OTHERS, Machine, device_of, ray_folder_fault, this_machine
from launch.memory import GB, KNOWN, Shape, config_shape, context, contexts, evaluates, size, tiny_shape
from launch.placement import Placement, place, places
from launch.plan_data import plan_data, reference_blockers, unread_references
from launch.plan_thinking import thinking_blockers, thinking_warnings
from launch.plan_warnings import recipe_warnings, stage_warnings
from recipes.advantages import Selection
from recipes.loader import on_device
from recipes.schema import Recipe
from recipes.stages import changed, within
from recipes.steps import Step, steps
from recipes.terms import FunctionTerm
from rewards.functions import load_function, sample, trial

_BUILDS = {"cpu": "CPU", "cuda": "CUDA"}
_COLDEST = 0.01  # temperature; vLLM raises lower ones to it without a word


class PlanError(RuntimeError):
    """The recipe cannot run on this machine. One line a reason."""


@dataclass(frozen=True)
class Work:
    """Sizes of one step and its updates, at full length. `longest` is prompt plus response, tokens."""

    rollouts: int
    longest: int
    rows_per_update: int
    rows_per_rank: int
    rows_per_micro_batch: int
    micro_batches: int


@dataclass(frozen=True)
class Plan:
    """A recipe on a machine.

    Attributes:
        recipe: as it holds on this device (recipes.loader.on_device); what runs.
        device: "cpu" or "cuda".
        engine: options that vLLM is started with (launch.memory.engine_options).
        placement: where its processes run.
        turns: engines and ranks take turns (rl/turns).
        shape: architecture numbers; None if they are not known before a download.
        blockers: why it cannot run here, one sentence each.
        warnings: what will run, but hardly as meant.
        data: what was recognised in the data.
        others: nodes beside the machine.
        assumed: bytes of a GPU where none is there or tells its own, so that sizes can be told all the same; 0 where one does, or none is wanted.
        stages: of a whole recipe, the plan of each step; its sizes are those of the step whose record is the run's own.
    """

    recipe: Recipe
    machine: Machine
    device: str
    shape: Shape | None
    work: Work
    actors: list[Actor]
    engine: dict[str, Any]
    placement: Placement
    turns: bool = False
    blockers: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    others: tuple[Machine, ...] = ()
    assumed: int = 0
    stages: list[StagePlan] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class StagePlan(Plan):
    """The plan of a step."""

    step: Step


@dataclass(frozen=True)
class Way:
    """Processes of a step where they are placed, vLLM's options, and what does not fit the memory there, a sentence each."""

    placement: Placement
    actors: list[Actor]
    engine: dict[str, Any]
    unfit: list[str]


def plan(recipe: Recipe, machine: Machine | None = None, others: Sequence[Machine] = (), gpu_gb: int | None = None) -> Plan:
    """The plan of a recipe on a machine (default: this one) and other nodes beside it. Never raises for what the recipe or the machine lacks.
    `gpu_gb`: of a GPU where none is there or tells its own, GB; None: 80."""
    session = [ray_folder_fault()] if machine is None and joined_address() is None else []
    machine = machine or this_machine()
    nodes = (machine, *others)
    device = "cuda" if any(device_of(recipe.device, node) == "cuda" for node in nodes) else "cpu"
    recipe = on_device(recipe, device)
    assumed = (gpu_gb or 80) * GB if device == "cuda" and not any(gpu for node in nodes for gpu in node.gpus) else 0
    parts = [_plan_of(step, nodes, device, assumed) for step in steps(recipe)]
    if not parts:  # a cold start alone
        nowhere = place(recipe.cluster, (machine,), device, ())
        return Plan(
            recipe, machine, device, find_shape(recipe)[0], step_work(recipe), [], {}, nowhere, warnings=list(stage_warnings(recipe))
        )
    whole = next((part for part in parts if part.step.own), parts[-1])
    most = max((part.placement for part in parts), key=lambda placed: (bool(placed.faults), placed.total_gpus))
    each = [part.step for part in parts]
    blockers, warnings, data = (_together(parts, name) for name in ("blockers", "warnings", "data"))
    return replace(
        whole,
        recipe=recipe,
        others=tuple(others),
        stages=parts,
        blockers=[*blockers, *reference_blockers(each), *most.faults, *filter(None, session)],
        warnings=[*stage_warnings(recipe), *unread_references(each), *warnings],
        data=data,
    )


def _plan_of(step: Step, nodes: Sequence[Machine], device: str, assumed: int) -> StagePlan:
    """The plan of one stage."""
    recipe = step.recipe
    shape, missing = find_shape(recipe)
    work = step_work(recipe)
    way = fitted(step, shape, nodes, device, assumed)
    result = StagePlan(
        recipe,
        nodes[0],
        device,
        shape,
        work,
        way.actors,
        way.engine,
        way.placement,
        takes_turns(recipe, way.placement),
        assumed=assumed,
        step=step,
    )
    data = plan_data(step)
    checks = (
        _length_blockers(result),
        _engine_blockers(result),
        data.blockers,
        _package_blockers(result, data.columns),
        _resource_blockers(result),
        way.unfit,
    )
    blockers = [*missing, *thinking_blockers(recipe), *chain.from_iterable(checks)]
    return replace(result, blockers=blockers, warnings=[*_warnings(replace(result, blockers=blockers)), *data.warnings], data=data.said)


def fitted(step: Step, shape: Shape | None, nodes: Sequence[Machine], device: str, assumed: int) -> Way:
    """The first of the ways to place a step's processes that memory has room for, else the last. `assumed`: bytes of a GPU that does not tell its own."""
    for placed in places(step.recipe.cluster, nodes, device, wishes(step)):
        gpus = {name: placed.least_gpu(name) or assumed for name, part in placed.gpus.items() if part}
        made, options = actors(step, shape, gpus, step_work(step.recipe).longest, placed)
        if not (unfit := list(misfits(step.recipe, shape, placed, made, options, gpus))):
            break
    return Way(placed, made, options, unfit)


def _together(parts: Sequence[StagePlan], name: str) -> list[str]:
    """What is said of a recipe's stages, each line once: with their names where others of their kinds do not say it, or where it is of their own changes."""
    sayers: dict[str, list[Step]] = {}
    for part in parts:
        for line in dict.fromkeys(getattr(part, name)):
            sayers.setdefault(line, []).append(part.step)
    alike = {
        line: [part.step for part in parts if part.step.stage.kind in {one.stage.kind for one in said}] for line, said in sayers.items()
    }
    return [
        f"{', '.join(step.stage.called for step in said)}: {line}"
        if said != alike[line] or any(_of_changes(line, step) for step in said)
        else line
        for line, said in sayers.items()
    ]


def _of_changes(line: str, step: Step) -> bool:
    """Whether a line is of a key that the stage changes."""
    key = line.partition(":")[0]
    return any(within(key, [own]) or within(own, [key]) for own in changed(step.stage.said))


def check_runnable(plan: Plan) -> None:
    """Refuse what cannot run here. Raises PlanError: one line for each blocker."""
    if plan.blockers:
        raise PlanError("\n".join(plan.blockers))


def step_work(recipe: Recipe) -> Work:
    """Prompts x rollouts -> updates -> micro-batches, every rollout at its full length."""
    rollouts = recipe.sampler.prompts * recipe.sampler.group_size
    longest = recipe.data.max_prompt_tokens + recipe.most_tokens
    drops = isinstance(recipe.select, Selection) and recipe.select.others == "drop"
    trained = recipe.sampler.prompts * (int(recipe.most("select.keep")) if drops else recipe.sampler.group_size)
    per_update = trained // recipe.learner.updates_per_step
    per_rank = ceil(per_update / recipe.learner.ranks)
    per_micro_batch = min(per_rank, max(1, recipe.learner.micro_batch_tokens // longest))
    return Work(rollouts, longest, per_update, per_rank, per_micro_batch, ceil(per_rank / per_micro_batch))


def find_shape(recipe: Recipe) -> tuple[Shape | None, list[str]]:
    """The model's shape if it is known without a download, and why the model cannot be used."""
    path = recipe.model.path
    if path == "tiny":
        shape = tiny_shape(recipe.tiny)
        return shape, list(adapter_faults(shape.linear, recipe))
    folder = Path(path).expanduser()
    trains = recipe.trains
    if folder.is_dir():
        return config_shape(folder / "config.json"), [*checkpoint_faults(folder, trains), *adapter_faults(linear_layers(folder), recipe)]
    if "://" in path:
        return None, [
            f"model.path: {path} is a URL, and weights are read from folders and the hub: copy the checkpoint to a folder and name that, or name a hub id (owner/name)"
        ]
    if not recipe.model.on_hub:
        return None, [f"model.path: no folder {path}; name a checkpoint folder that exists, a hub id (owner/name) or `tiny`"]
    from huggingface_hub import try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(path, "config.json", revision=recipe.model.revision)
    except ValueError as error:  # HFValidationError
        return None, [f"model.path: {path} is no hub id: {str(error).splitlines()[0]}"]
    if not isinstance(cached, str):
        return KNOWN.get(path), list(adapter_faults(KNOWN[path].linear, recipe)) if path in KNOWN else []
    return config_shape(Path(cached)) or KNOWN.get(path), list(config_faults(read_json(Path(cached)) or {}, f"{path}/config.json", trains))


def _length_blockers(plan: StagePlan) -> Iterator[str]:
    recipe, shape = plan.recipe, plan.shape
    if shape is None:
        return
    longest = getattr(recipe.stages[0], "max_tokens", None) or 0
    if longest > shape.max_positions:
        yield f"stages[{plan.step.index}].max_tokens: {longest} is more than the {shape.max_positions} tokens that {recipe.model.path} can take"
    prompt = recipe.data.max_prompt_tokens
    for key, needed in contexts(recipe).items():
        if needed > shape.max_positions:
            short = 2 * prompt > shape.max_positions  # prompts alone would take more than half of it
            kept = shape.max_positions // 4 if short else prompt
            fits = f"data.max_prompt_tokens={kept} " * short + f"{key}={shape.max_positions - kept}"
            alone = needed - prompt > shape.max_positions
            what = f"{key}: {needed - prompt}" if alone else f"data.max_prompt_tokens {prompt} + {key} {needed - prompt} = {needed}"
            beside = f", beside prompts of data.max_prompt_tokens {prompt}" if alone else ""
            yield f"{what} is more than the {shape.max_positions} tokens that {recipe.model.path} can take{beside}; {fits} would fit"


def _package_blockers(plan: Plan, columns: dict[str, Any] | None) -> Iterator[str]:
    recipe = plan.recipe
    for term in recipe.reward:
        if isinstance(term, FunctionTerm) and recipe.trains:
            try:
                if columns is None:  # it may ask for a column of rows that only the run will see
                    load_function(term.name)
                else:
                    trial(term, sample(columns, limit=recipe.budget.limit, steps=recipe.train.steps), recipe.learner.nonfinite)
            except ValueError as error:
                yield f"reward: {error}"
    if recipe.wandb is not None and importlib.util.find_spec("wandb") is None:
        yield "wandb: the package is not installed; install it (`uv pip install wandb`) or set wandb=null"
    device, placed = plan.device, plan.placement
    # Who has no place counts as here.
    at = {actor.name: [node for node in placed.at.get(actor.name, ()) if node >= 0] or [0] for actor in plan.actors}
    for index, node in enumerate(placed.nodes if recipe.engine.kind == "vllm" else ()):
        if node.build in (device, "unknown"):
            continue
        here = {name for name, nodes in at.items() if index in nodes}
        on = f" on {node.name}" * (len(placed.nodes) > 1)
        found = "no vLLM is installed" if node.build == "none" else f"the {_BUILDS[node.build]} build is installed"
        if "engine" in here:
            yield f"engine.kind: vllm on {device} needs vLLM's {_BUILDS[device]} build and {found}{on}: `make install EXTRA={device}`"
        elif (device, node.build) == ("cuda", "cpu") and here & {"learner", "trainer"}:
            yield f"device: the learner on cuda needs the CUDA build and {found}{on}: `make install EXTRA=cuda`"


def _engine_blockers(plan: Plan) -> Iterator[str]:
    """Options of vLLM that cannot serve here."""
    options = plan.recipe.engine.vllm if plan.recipe.engine.kind == "vllm" else {}
    known = _vllm_options()
    for name, value in options.items():
        if known and name not in known:
            close = difflib.get_close_matches(name, known, 1)
            yield f"engine.vllm.{name}: vLLM has no such option{f'; did you mean {close[0]}?' if close else ''}"
        if name.startswith(("spec_", "speculat")) and value and plan.device == "cpu":
            yield (
                f"engine.vllm.{name}: with speculation, vLLM's CPU build samples from another distribution than it should and reports logprobs "
                "that are no numbers; leave it out"
            )
        if name == "enable_sleep_mode" and value and plan.device == "cpu":
            yield f"engine.vllm.{name}: vLLM's CPU build cannot sleep; leave it out (where engines and ranks share a GPU, it is set by itself)"
        of_them = name == "decode_context_parallel_size" and not plan.recipe.trains  # workers that are tensor parallel anyway
        more = (name.endswith("parallel_size") or name == "nnodes") and name != "tensor_parallel_size" and str(value) != "1"
        how = name == "distributed_executor_backend" and value not in (("uni",) if plan.recipe.trains else ("uni", "mp"))
        if (more and not of_them) or how:
            yield (
                f"engine.vllm.{name}: {value}: an engine here is one process, or tensor parallel workers on one node; leave it out and use "
                "engine.count or engine.vllm.tensor_parallel_size"
            )


def _vllm_options() -> frozenset[str]:
    """Names of vLLM's options, from its source, whose import would take seconds; empty where it is not installed or looks otherwise."""
    spec = importlib.util.find_spec("vllm")
    source = Path(spec.origin).parent / "engine" / "arg_utils.py" if spec and spec.origin else None
    return _fields_of(source, "EngineArgs") if source and source.is_file() else frozenset()


@functools.cache
def _fields_of(source: Path, name: str) -> frozenset[str]:
    """Annotated fields of a class in a source file."""
    classes = (node for node in ast.parse(source.read_bytes()).body if isinstance(node, ast.ClassDef) and node.name == name)
    return frozenset(
        part.target.id for node in classes for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    )


def _resource_blockers(plan: Plan) -> Iterator[str]:
    recipe = plan.recipe
    for name in ("tensor_parallel_size", "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization", "kv_cache_memory_bytes"):
        value, share = recipe.engine.vllm.get(name), name == "gpu_memory_utilization"
        if value is not None and not (type(value) in ((int, float) if share else (int,)) and 0 < value <= (1 if share else inf)):
            yield f"engine.vllm.{name}: {value!r} is not a {'number above 0 and up to 1' if share else 'whole number above 0'}"
    for name, temperature in ((name, recipe.ends(name)[0]) for name in ("sampler.temperature", "eval.temperature")):
        if recipe.engine.kind == "vllm" and 0 < temperature < _COLDEST:
            yield f"{name}: {temperature:g}: vLLM samples at {_COLDEST:g} at the least; set that" + (", or 0" if name[0] == "e" else "")
    parallel = recipe.engine.vllm.get("tensor_parallel_size") if recipe.engine.kind == "vllm" else None
    if type(parallel) is int and parallel > 0 and (shape := plan.shape) is not None and not shape.divides(parallel):
        sizes = [str(count) for count in range(1, shape.heads + 1) if shape.divides(count)]
        yield (
            f"engine.vllm.tensor_parallel_size: {parallel} workers cannot share {recipe.model.path} evenly ({shape.heads} attention heads, {shape.kv_heads} of keys and values, "
            f"{shape.inner} wide inside); take {' or '.join(sizes)}"
        )
    yield from _old_gpus(plan)
    sharing = {node for name, part in plan.placement.gpus.items() if 0 < part < 1 for node in plan.placement.at[name] if node >= 0}
    if any(plan.placement.nodes[node].exclusive for node in sharing):
        apart = ", or give each a GPU of its own (cluster.kind=apart)" * (sum(len(node.gpus) for node in plan.placement.nodes) > 1)
        yield f"device: a GPU takes one process at a time here (compute mode Exclusive_Process), and several are to share one; have it set to default (`nvidia-smi -c DEFAULT`, as root){apart}"
    if recipe.learner.ranks > plan.work.rows_per_update and recipe.trains:
        yield f"learner.ranks: {recipe.learner.ranks} ranks share {plan.work.rows_per_update} rollouts an update; some would get none"
    needed = context(recipe)
    if isinstance(given := recipe.engine.vllm.get("max_model_len"), int) and given < needed:
        yield f"engine.vllm.max_model_len: {given} is less than the {needed} tokens of data.max_prompt_tokens and a response; leave it out"
    elif isinstance(given, int) and plan.shape is not None and given > plan.shape.max_positions:
        yield f"engine.vllm.max_model_len: {given} is more than the {plan.shape.max_positions} tokens that {recipe.model.path} can take; leave it out"


def _old_gpus(plan: Plan) -> Iterator[str]:
    """GPUs that a process is placed on and cannot use."""
    recipe, placed = plan.recipe, plan.placement
    for index, node in enumerate(placed.nodes):
        on = f" of {node.name}" * (len(placed.nodes) > 1)
        taken = {name: part * list(placed.at[name]).count(index) for name, part in placed.gpus.items()}
        oldest = node.oldest(ceil(sum(taken.values())))
        if oldest < OLDEST_GPU:
            yield f"device: {node.too_old}{on}; {OTHERS}"
        elif taken.get("engine") and (recipe.engine.kind, recipe.model.dtype) == ("vllm", "bf16") and oldest < OLDEST_BF16:
            old = node.older(OLDEST_BF16)
            weights = plan.shape.parameters if plan.shape else 0
            more = f" (weights {size(4 * weights)} for {size(2 * weights)})" * bool(weights)
            yield f"model.dtype: vLLM takes no bf16 on {old}{on}; set model.dtype=fp32, in which weights, keys and values take twice the memory{more}"


def _warnings(plan: Plan) -> Iterator[str]:
    recipe, machine = plan.recipe, plan.machine
    trains = recipe.trains
    if machine.trouble:
        yield f"device: no GPU is seen: {machine.trouble}; `laconic doctor` says more"
    if plan.device == "cpu":
        if machine.gpus and recipe.device == "auto" and not machine.unusable:
            yield "device: there is a GPU, but the CPU build is installed, so the CPU is used; `make install EXTRA=cuda` changes that"
        for name in ("gpus_per_node", "sleep", "offload"):
            field = type(recipe.cluster).model_fields.get(name)
            if field and (value := getattr(recipe.cluster, name)) != field.default:
                yield f"cluster.{name}: {str(value).lower()} says nothing without GPUs"
        for actor in plan.actors:
            if actor.name in ("engine", "learner") and actor.count * actor.threads > machine.cores:
                yield f"{actor.name}: {actor.count} x {actor.threads} threads on {machine.cores} cores will wait for each other"
    if trains and evaluates(recipe) and recipe.eval.max_tokens < (most := int(recipe.most("budget.limit"))):
        largest = " at its largest" if most != recipe.budget.limit else ""
        yield f"eval.max_tokens: {recipe.eval.max_tokens} is below budget.limit {most}{largest}: evaluation cuts off what training allows"
    if trains and plan.work.longest > recipe.learner.micro_batch_tokens:
        yield (
            f"learner.micro_batch_tokens: {recipe.learner.micro_batch_tokens} holds no rollout of full length "
            f"({plan.work.longest} tokens with its prompt); such a one passes alone and takes more memory"
        )
    yield from recipe_warnings(recipe)
    yield from thinking_warnings(recipe)
    if plan.shape is None and not any(line.startswith("model.path") for line in plan.blockers):
        why = "is not that of a dense transformer" if Path(recipe.model.path).expanduser().is_dir() else "is unknown until it is there"
        yield f"model.path: the size of {recipe.model.path} {why}, so memory and context length were not checked"
