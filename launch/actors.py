"""The processes of a plan: what each holds, and whether that fits where it is placed.

Estimates of launch/memory, at the peak of each process. Engines and ranks that take turns (rl/turns) on a GPU are at their peaks one after the other, and
what rests keeps of it. Simplification: all other processes of a node are at their peaks at one time, and every process has the smallest GPU of the nodes with one of its kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from launch import memory
from launch.memory import GPU_SHARE, Shape, size, sizes_apart
from launch.placement import Placement, Wish
from recipes.adapters import Lora
from recipes.cluster import turns
from recipes.schema import Recipe
from recipes.stages import Supervised
from recipes.steps import Step
from rl.deepspeed_config import moves_states

_OF_UPDATES = ("activations", "logits", "gathered", "head gradient", "optimiser step")  # gone between them


@dataclass(frozen=True)
class Actor:
    """A kind of process.

    Attributes:
        gpus: that one of them takes; a fraction where several processes share one.
        holds: bytes by part in one of them, at its peak; on each of its GPUs if it has any, else in main memory.
        host: bytes by part in main memory beside that.
        rests: what it holds of its GPU while it is others' turn; None: it takes no turns, and holds all.
    """

    name: str
    count: int
    threads: int
    gpus: float
    holds: dict[str, int]
    host: dict[str, int] = field(default_factory=dict)
    rests: dict[str, int] | None = None

    @property
    def bytes(self) -> int:
        """Where its model is."""
        return sum(self.holds.values())

    @property
    def main_memory(self) -> int:
        return sum(self.host.values()) + (0 if self.gpus else self.bytes)


def wishes(step: Step) -> list[Wish]:
    """The processes of a stage, with what each has where nothing is shared."""
    recipe = step.recipe
    wanted = [Wish("driver", 1)]
    if memory.contexts(recipe):
        wanted += [Wish("engine", recipe.engine.count, recipe.engine.threads, memory.workers(recipe)), Wish("judge", recipe.judge.workers)]
    if isinstance(step.stage, Supervised):
        alone = memory.one_trainer(recipe.learner)
        wanted.append(Wish("trainer", alone.ranks, alone.threads, 1))
    elif recipe.trains:
        wanted.append(Wish("learner", recipe.learner.ranks, recipe.learner.threads, 1))
    return wanted


def actors(step: Step, shape: Shape | None, gpus: Mapping[str, int], longest: int, placed: Placement) -> tuple[list[Actor], dict[str, Any]]:
    """The processes of a stage with what each holds, and the sizes that vLLM is started with.

    Args:
        gpus: memory of a GPU of each process that has one, bytes, by its name; {}: on a CPU.
        longest: prompt plus response, tokens.
    """
    recipe, found = step.recipe, {wish.name: wish for wish in wishes(step)}
    gpu = gpus.get("engine", 0) if "engine" in found else max(gpus.values(), default=0)
    ranks = _rank_holds(step, shape, gpu, longest) if "learner" in found or "trainer" in found else {}
    sleep = takes_turns(recipe, placed)
    rests, waits = _rank_rests(recipe, shape, ranks, placed) if sleep and shape is not None else ({}, {})
    if "learner" in found and shape is not None and not sleep:
        name, held = _between(recipe, shape, placed)
        beyond = held - sum(ranks.get(name, 0) for name in _OF_UPDATES)
        ranks |= {name: beyond} if beyond > 0 else {}
    room = None
    if placed.shared:
        taken = sum((rests if sleep else ranks).values()) if placed.on_a_gpu("learner") else 0
        room = (int(GPU_SHARE * gpu) - taken) // placed.on_a_gpu("engine")
    card = " ".join(card for node in placed.nodes for card in node.cards)
    options = memory.engine_options(recipe, shape, gpu, room, card) | ({"enable_sleep_mode": True} if sleep else {})
    stored = memory.push_bytes(recipe, shape, placed)
    published = {"published weights": 2 * stored} if stored else {}  # packed by a rank, and in Ray's store
    holds = {
        "driver": {"libraries": memory.LIBRARIES["driver"]} | published,
        "engine": {} if shape is None or "engine" not in found else memory.engine_bytes(recipe, shape, gpu, options),
        "judge": {"libraries": memory.LIBRARIES["judge"]},
    } | dict.fromkeys(("learner", "trainer"), ranks)
    on_host = {
        "engine": _engine_host(recipe, gpu),
        "learner": _rank_host(shape, memory.number_width(recipe), gpu) | waits,
        "trainer": _rank_host(shape, 4, gpu),
    }
    resting = {"engine": {"context": memory.CUDA_CONTEXT}, "learner": rests} if sleep else {}
    made = [
        Actor(name, wish.count, wish.threads, placed.gpus[name], holds[name], on_host.get(name, {}), resting.get(name))
        for name, wish in found.items()
    ]
    return made, options if "engine" in found else {}


def takes_turns(recipe: Recipe, placed: Placement) -> bool:
    """Whether engines sleep while the learner works: where they share GPUs with ranks, and can."""
    asked = turns(recipe.cluster).sleep and recipe.engine.vllm.get("enable_sleep_mode", True)
    return bool(placed.shared and placed.on_a_gpu("learner") and recipe.engine.kind == "vllm" and asked)


def _rank_rests(recipe: Recipe, shape: Shape, holds: Mapping[str, int], placed: Placement) -> tuple[dict[str, int], dict[str, int]]:
    """What a rank holds on its GPU while engines sample, and what waits in main memory meanwhile."""
    away = turns(recipe.cluster).offload
    moved = away and moves_states(recipe)
    gone = {*_OF_UPDATES, *(("optimiser", "gradients", "buckets") if moved else ()), *(("reference",) if away else ())}
    stays = {name: held for name, held in holds.items() if name not in gone}
    name, held = _between(recipe, shape, placed)
    stays[name] = held
    waits = {"reference": holds["reference"]} if away and "reference" in holds else {}
    if moved:  # without gradients
        waits["optimiser"] = holds["optimiser"] * 12 // (16 if recipe.model.dtype == "bf16" else 12)
    return stays, {f"resting {name}": held for name, held in waits.items()}


def _between(recipe: Recipe, shape: Shape, placed: Placement) -> tuple[str, int]:
    """What a rank takes between updates beside what it keeps: for the gate of an evaluation, which passes its longest answer whole, or for a push."""
    width, carrier = memory.number_width(recipe), placed.carrier[0] if placed.carrier else ""
    gate = memory.forward_bytes(shape, recipe.learner, width, memory.context(recipe))
    push = memory.handing_bytes(shape, recipe.learner, width, carrier)
    return ("gate", gate) if gate >= push else ("push", push)


def _rank_holds(step: Step, shape: Shape | None, gpu: int, longest: int) -> dict[str, int]:
    if shape is None:
        return {}
    recipe, learner = step.recipe, step.recipe.learner
    bf16 = recipe.model.dtype == "bf16"
    if isinstance(step.stage, Supervised):
        longest = step.longest * (2 if step.stage.kind == "dpo" else 1)  # a pair passes together
        return memory.trainer_bytes(shape, learner, bf16, longest, gpu > 0)
    return memory.learner_bytes(shape, learner, bf16, recipe.reads_reference, longest, gpu > 0)


def _rank_host(shape: Shape | None, width: int, gpu: int) -> dict[str, int]:
    loading = {"weights while loading": shape.parameters * width} if gpu and shape is not None else {}
    return _libraries("learner", gpu) | loading


def _engine_host(recipe: Recipe, gpu: int) -> dict[str, int]:
    """Of an engine and its workers, which are processes of their own where it is tensor parallel."""
    count = memory.workers(recipe)
    return {name: held * (1 + count * (count > 1)) for name, held in _libraries("engine", gpu).items()}


def _libraries(actor: str, gpu: int) -> dict[str, int]:
    return {"libraries": memory.LIBRARIES[actor] + (memory.CUDA_LIBRARIES if gpu else 0)}


def misfits(
    recipe: Recipe, shape: Shape | None, placed: Placement, actors: Sequence[Actor], options: Mapping[str, Any], gpus: Mapping[str, int]
) -> Iterator[str]:
    """What does not fit the memory that is there, a sentence each; arguments as of `actors`."""
    nowhere = any(-1 in at for at in placed.at.values())  # and so on none of several nodes
    for index, node in enumerate(placed.nodes if len(placed.nodes) == 1 or not nowhere else ()):
        if (host := host_bytes(actors, placed, index)) > node.memory:
            where = f" on {node.name}" if len(placed.nodes) > 1 else ""
            needed, free = sizes_apart(host, node.memory)
            largest = max(actors, key=lambda actor: host_bytes([actor], placed, index))
            if gpus and largest.name != "judge":
                stays = f"keep what rests on the GPU (cluster.offload=false{' cluster.kind=colocated' * (recipe.cluster.kind == 'auto')}), "
                rests = takes_turns(recipe, placed) and turns(recipe.cluster).offload
                remedy = f"have fewer engines and ranks on a node, {stays * rests}or take a smaller model"
            else:
                lacking = host - node.memory
                remedy = _IN_MAIN_MEMORY.get(largest.name) or _remedies(recipe, {largest.name: largest.holds}, placed, lacking)
            yield (
                f"memory: the processes{where} need about {needed} of main memory, {free} are free; "
                f"{largest.name}s take {size(host_bytes([largest], placed, index))} of it: {remedy}"
            )
    yield from _store_misfits(placed, memory.push_bytes(recipe, shape, placed))
    if shape is None:
        return
    if placed.carrier and placed.carrier[0] == "ipc" and not gpus:
        gathered = memory.handing_bytes(shape, recipe.learner, memory.number_width(recipe), "ipc")
        own = shape.parameters * memory.number_width(recipe) if recipe.learner.zero_stage != 3 else 0
        yield from _shared_misfits(placed, own + gathered)
    one = memory.sequence_bytes(recipe, shape, memory.workers(recipe)) * (1 if gpus else memory.workers(recipe))
    for actor in actors:
        cache = actor.holds.get("KV cache", 0)
        if actor.name == "engine" and cache < one:
            room, takes = sizes_apart(cache, one)
            said = (
                f"raise engine.vllm.{name}" for name in ("kv_cache_memory_bytes", "gpu_memory_utilization") if name in recipe.engine.vllm
            )
            yield (
                f"memory: an engine has room for {room} of keys and values, and one sequence of {memory.context(recipe)} tokens takes {takes}; "
                f"lower budget.limit or eval.max_tokens, or {next(said, 'let the engine have more memory')}"
            )
    if gpus:
        yield from _gpu_misfits(recipe, placed, actors, options, gpus, one)


def _shared_misfits(placed: Placement, each: int) -> Iterator[str]:
    """Shared memory that has no room for the policies, `each` bytes, which engines read there."""
    for index, node in enumerate(placed.nodes):
        needed = each * placed.at["learner"].count(index)
        if node.shared is not None and needed > node.shared:
            takes, has = sizes_apart(needed, node.shared)
            what = f"weights that engines read of ranks take {takes} of shared memory, and /dev/shm has {has}"
            yield f"memory: {what}; {_MORE_SHARED}, or set cluster.carrier=store"


def _store_misfits(placed: Placement, push: int) -> Iterator[str]:
    """Object stores that have no room for the weights of a push: our own, or those of joined nodes that get or give them."""
    for index, node in enumerate(placed.nodes):
        own = node.lends is None
        room = memory.object_store_bytes(node.memory, push, node.shared) if own else node.shared or push * 2
        speaks = index == 0 or any(index in placed.at.get(name, ()) for name in ("engine", "learner"))
        if push * 1.02 <= room or not speaks:
            continue
        least = room if node.shared is None else min(room, node.shared)
        needed, has = sizes_apart(push * 1.02, least)
        if not own:
            where = f"the object store of {node.name}, which has {has}"
            remedy = "start Ray there with a larger one (--object-store-memory; /dev/shm must hold it)"
        elif node.shared is not None and least >= node.shared - node.shared // 50:
            where, remedy = f"shared memory: /dev/shm has {has} free", _MORE_SHARED
        else:
            where, remedy = f"the object store, which takes {has} of the {size(node.memory)} that are free", "free main memory"
        yield f"memory: a push of {needed} does not fit {where}; {remedy}, or take a smaller model"


def _gpu_misfits(
    recipe: Recipe, placed: Placement, actors: Sequence[Actor], options: Mapping[str, Any], gpus: Mapping[str, int], one: int
) -> Iterator[str]:
    """What does not fit on a GPU. An engine can do with keys and values of one sequence, `one` bytes, unless the recipe says how many: the rest waits its turn."""
    users = [actor for actor in actors if actor.gpus]
    fixed = "kv_cache_memory_bytes" in recipe.engine.vllm  # which vLLM takes, whatever share it was given
    least = {actor.name: dict(actor.holds) for actor in users}
    if not fixed and "engine" in least:
        least["engine"]["KV cache"] = min(one, least["engine"]["KV cache"]) or one
    every = [gpu for node in placed.nodes for gpu in node.gpus if gpu]

    def remedies(held: Mapping[str, Mapping[str, int]], needed: float, room: float) -> str:
        """What to do; where GPUs are unlike, and enough of them would do, that, too."""
        words = _remedies(recipe, held, placed, needed - room)
        if len(set(every)) == 1 or sum(GPU_SHARE * gpu >= needed for gpu in every) < placed.total_gpus:
            return words
        return f"{words}; of {' and '.join(map(size, sorted(set(every))))} the smallest counts: leave it out (CUDA_VISIBLE_DEVICES)"

    if placed.shared:
        gpu = gpus[users[0].name]  # of all that share it
        where = "each GPU" if placed.total_gpus > 1 else "the one GPU" if sum(len(node.gpus) for node in placed.nodes) == 1 else "a GPU"
        for turn in [actor.name for actor in users if actor.rests is not None] or [""]:
            parts = {one.name: least[one.name] if one.rests is None or one.name == turn else one.rests for one in users}
            held = {name: {part: placed.on_a_gpu(name) * count for part, count in own.items()} for name, own in parts.items()}
            together = sum(sum(own.values()) for own in held.values())
            if together > GPU_SHARE * gpu:
                when = f" in the {turn}s' turn" if turn else ""
                sums = " + ".join(f"{placed.on_a_gpu(name)} x {size(sum(own.values()))} for {name}s" for name, own in parts.items())
                takes, there = sizes_apart(together, GPU_SHARE * gpu)
                yield (
                    f"memory: engines{' and learner' * (len(users) > 1)} share {where} and need about {takes}{when} ({sums}), "
                    f"{there} are there; {remedies(held, together, GPU_SHARE * gpu)}"
                )
        return
    for name, own in least.items():
        share = memory.option(options, "gpu_memory_utilization", GPU_SHARE) if name == "engine" and not fixed else GPU_SHARE
        if (needed := sum(own.values())) > (room := share * gpus[name]):
            takes, there = sizes_apart(needed, room)
            by_itself = needed <= GPU_SHARE * gpus[name]
            where = (
                "are there by engine.vllm.gpu_memory_utilization; raise that, or leave it out"
                if by_itself
                else f"are there; {remedies({name: own}, needed, room)}"
            )
            yield f"memory: one {name} needs about {takes} on its GPU, {there} {where}"


def _remedies(recipe: Recipe, held: Mapping[str, Mapping[str, int]], placed: Placement, lacking: float) -> str:
    """What frees the bytes that are lacking of what processes hold, by part and by their name: the largest that may do alone, else two that may together, else the largest; of each what it frees at most."""
    frees: dict[str, Counter[tuple[str, str]]] = {}
    for name, parts in held.items():
        for words, freed in _engine_frees(recipe, parts, placed) if name == "engine" else _rank_frees(recipe, name, parts):
            frees[words] = frees.get(words, Counter()) | Counter({(name, part): int(bytes_) for part, bytes_ in freed.items()})
    ranked = sorted((words for words in frees if frees[words].total()), key=lambda words: -frees[words].total())
    enough = [words for words in ranked if frees[words].total() >= lacking]
    pairs = [
        pair
        for pair in combinations([words for words in ranked if words not in enough], 2)
        if (frees[pair[0]] | frees[pair[1]]).total() >= lacking
    ]
    said = enough[:3] if len(enough) > 2 else [*enough, *(" together with ".join(pair) for pair in pairs[:1])]
    words = ", ".join(said) or "not enough alone: " * bool(ranked) + ", ".join(ranked[:3])
    alone = placed.shared and recipe.cluster.kind == "auto" and "GPUs" not in words
    return f"{words}{', or ' * bool(words)}take a smaller model{' or more GPUs' * alone}"


def _engine_frees(recipe: Recipe, held: Mapping[str, int], placed: Placement) -> Iterator[tuple[str, Mapping[str, float]]]:
    """What can be changed about an engine, and the bytes that it frees at most, by part."""
    sized, count = "kv_cache_memory_bytes" in recipe.engine.vllm, placed.on_a_gpu("engine")
    yield "lower engine.vllm.kv_cache_memory_bytes" if sized else "lower budget.limit or eval.max_tokens", _of(held, "KV cache")
    yield "lower engine.vllm.max_num_seqs or engine.vllm.max_num_batched_tokens", _of(held, "profile")
    if not placed.shared:
        yield "take more GPUs an engine (engine.vllm.tensor_parallel_size)", _of(held, "weights")
    elif count > 1:
        yield "lower engine.count", {part: bytes_ * (count - 1) / count for part, bytes_ in held.items()}


def _rank_frees(recipe: Recipe, name: str, held: Mapping[str, int]) -> Iterator[tuple[str, Mapping[str, float]]]:
    """What can be changed about a rank, or a supervised stage's trainer, and the bytes that it frees at most, by part."""
    learner, alone = recipe.learner, name == "trainer"
    stage, ranks = (0, 1) if alone else (learner.zero_stage, learner.ranks)
    longest, most = recipe.data.max_prompt_tokens + recipe.most_tokens, memory.context(recipe)
    filled, limit = "lower learner.micro_batch_tokens", "lower budget.limit"
    update = filled if alone or learner.micro_batch_tokens > longest else limit
    yield update + " or the stage's max_tokens (a pair of answers passes at once)" * alone, _of(held, "activations")
    yield filled if learner.micro_batch_tokens > most else "lower eval.max_tokens" if most > longest else limit, _of(held, "gate")
    if not learner.gradient_checkpointing:
        yield "set learner.gradient_checkpointing=true", _of(held, "activations")
    if not alone:
        yield "lower learner.logit_chunk_tokens", _of(held, "logits")
    if not isinstance(learner.adapter, Lora):
        trained = ("gradients", "optimiser", "optimiser step", "head gradient", "buckets", "reference")
        yield "take adapters (learner.adapter.kind=lora)", _of(held, *trained)
    why = ["objective.kl.coef=0"] * (recipe.most("objective.kl.coef") > 0) + ["no reward of kind kl"] * (recipe.kl_reward is not None)
    yield f"do without the reference ({' and '.join(why)})", _of(held, "reference")
    states = ("optimiser", "gradients", "weights")
    yield "take more ranks (and GPUs)", _of(held, *states[:stage])
    if ranks > 1 and stage < 3:
        yield "set learner.zero_stage=3", {part: bytes_ * (ranks - 1) / ranks for part, bytes_ in _of(held, *states[stage:]).items()}


def _of(held: Mapping[str, int], *parts: str) -> dict[str, float]:
    return {part: held.get(part, 0) for part in parts}


_MORE_SHARED = "give it more (a container: docker run --shm-size=16g)"
_IN_MAIN_MEMORY = {
    "driver": "take a smaller model",
    "judge": "lower judge.workers",
    "engine": "lower engine.count, or take a smaller model",
    "learner": "lower learner.micro_batch_tokens or learner.ranks, or take a smaller model",
}


def host_bytes(actors: Sequence[Actor], placed: Placement, node: int | None = None) -> int:
    """Main memory of the processes on a node, at their peak; on all nodes without one. What has no place counts on the first."""
    return sum(
        actor.main_memory * (actor.count if node is None else sum(max(at, 0) == node for at in placed.at[actor.name])) for actor in actors
    )
