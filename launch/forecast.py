"""What a recipe's step would take, by a run's own record: `laconic plan RECIPE --simulate RUN`.

`calibrate` reads from a run what launch/simulate is made with, `forecast` asks that for sizes, `words` says it. A device is what one engine or rank of the run had: a GPU,
or a core of a CPU. Of GPUs that engines and ranks do not share, a quarter, a half and three quarters are tried as engines'; the fastest is shown. What plan would refuse
for the memory of its GPUs is left out; main memory, and that of nodes without GPUs, is not looked at.
On a CPU, other times than engines' are taken back to a core of one's own: what engines got of theirs in a step tells how many threads of others wanted one (`others`).
Simplification: the means of all steps but the first are the run's speed, however its lengths moved; a step's load is one throughout.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.run_folder import records_of
from launch.memory import kv_bytes, many, number_width, option, trained_parameters, workers
from launch.plan import Plan, find_shape, fitted, step_work
from launch.simulate import Layout, Step, Trace, Work, steps
from recipes.adapters import Adapter, Lora
from recipes.advantages import Selection
from recipes.cluster import ApartCluster, ColocatedCluster, turns
from recipes.credit import DecsCredit, RedundantCredit
from recipes.loader import recorded
from recipes.schema import Recipe
from recipes.steps import steps as steps_of
from rollout.metrics import METRICS, varying

SIZES = (1, 2, 4, 8, 16, 64, 256, 1024, 4096)
_MOST = 65_536  # devices; takes ten seconds to simulate
_LEAST_STEPS = 4
_SMALL = 1024  # answers of a step
_KEPT = ("groups/trained", "groups/surplus")  # by the filter
_CONSTANT = ("groups/all_right", "groups/all_wrong", "groups/flat")  # and so left out by it
_IN_SOME = ("engines/step", "engines/step_each", "length/q_50", "tokens/trained")  # steps
_ABOVE_0_IN_SOME = ("engines/core", "engines/calls", "groups/sampled")
_IN_EACH = ("step", "time", *(f"seconds/{name}" for name in ("judge", "score", "poll", "sample", "update", "publish", "step")))
_SPEED = ("engine.kind", "engine.threads", "learner.threads", "learner.gradient_checkpointing", "learner.zero_stage")
_SIZED = (
    "tensor_parallel_size",
    "max_num_seqs",
    "kv_cache_memory_bytes",
    "gpu_memory_utilization",
    "max_model_len",
)  # what plan reckons with
_LENGTHS = ("sampler.temperature", "sampler.no_thinking")
_BUSY = 0.5  # of the cores: if others wanted more while engines sampled, they may not have in an update
_ROOM = 1 << 60  # bytes
_TOLD = 0.97  # a larger part of a core is a whole one


class TraceError(ValueError):
    """A run's record does not say what a simulation needs; what is missing, and the remedy."""


@dataclass(frozen=True)
class Calibration:
    """A run's trace, the recipe and the processes that it is of, and its steps (but the first) as they were recorded."""

    trace: Trace
    recipe: Recipe
    layout: Layout
    records: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Forecast:
    """Of simulated steps: seconds in the mean and at the 95th percentile, and their parts in the mean."""

    layout: Layout
    mean: float
    p95: float
    parts: Step

    @property
    def shares(self) -> tuple[float, float, float]:
        """Of the mean step that engines work, and that ranks do; of its sampling that is tail."""
        whole, sampled = self.mean or inf, self.parts.sample or inf
        return self.parts.engines / whole, self.parts.learner / whole, self.parts.tail / sampled


def calibrate(folder: Path) -> Calibration:
    """What a run says. Its layout has the others' threads of the mean step. Raises TraceError: its record is too short, or lacks what is needed."""
    recipe = next((step.recipe for step in steps_of(recorded(folder)) if step.own), None) if (folder / "recipe.yaml").is_file() else None
    if recipe is None or not all((folder / name).is_file() for name in ("metrics.jsonl", "environment.json")):
        raise TraceError(f"--simulate: {folder} is no run folder: name one that `laconic train` made")
    records = [_numbers(record) for record in records_of(folder / "metrics.jsonl") if record][1:]
    if len(records) < _LEAST_STEPS:
        raise TraceError(
            f"--simulate: {folder} has {many(len(records), 'step')} behind its first, and {_LEAST_STEPS} are needed to tell its speed: train on (--resume)"
        )
    missing = [name for name in _IN_SOME if not any(name in record for record in records)]
    missing += [name for name in _ABOVE_0_IN_SOME if not any(record.get(name) for record in records)]
    missing += [name for name in _IN_EACH if not all(name in record for record in records)]
    if missing:
        why = "its engines (engine.kind: reference) keep no time" if recipe.engine.kind == "reference" else "an earlier version made it"
        raise TraceError(
            f"--simulate: {folder} lacks {', '.join(missing)}: {why}; a few steps of the recipe with vLLM's engines are enough of a run"
        )
    if not any(record.get("groups/trained") for record in records):
        raise TraceError(
            f"--simulate: no group of {folder} trained behind its first step, so nothing tells what an update takes: name a run that learns"
        )
    facts = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    settings = recipe.engine
    layout = Layout(settings.count, recipe.learner.ranks, seats=int(option(settings.vllm, "max_num_seqs", 256)))
    told = next((one["device"] for one in [facts, *facts.get("resumed", [])] if one.get("device")), "")  # not by an earlier version
    if not (told == "cuda" if told else recipe.device == "cuda" or (recipe.device == "auto" and facts["gpus"])):
        layout = replace(layout, cores=facts["cpus"], threads=(settings.threads, recipe.learner.threads))
        layout = replace(layout, others=float(np.mean([others(record, layout) for record in records])))
    return Calibration(_trace(records, recipe, layout), recipe, layout, records)


def _numbers(step: Mapping[str, Any]) -> dict[str, float]:
    """A step's numbers from 0 on, as all are that are read here."""
    return {name: value for name, value in step.items() if isinstance(value, int | float) and 0 <= value < inf}


def _mean(records: Sequence[Mapping[str, Any]], name: str) -> float:
    """Mean over the steps that have it; 0 if none has."""
    there = [record[name] for record in records if record.get(name) is not None]
    return float(np.mean(there)) if there else 0.0


def others(record: Mapping[str, Any], layout: Layout) -> float:
    """Threads of other programs that wanted a core in a step: as many as explain what engines got of theirs; 0 on GPUs, and where that is all of one."""
    got = record.get("engines/core")
    if not got or got >= _TOLD or layout.cores == inf:
        return 0.0
    beside = sum(record[f"seconds/{name}"] for name in ("judge", "score", "poll")) / (record["seconds/sample"] or inf)
    return max(0.0, layout.cores / got - layout.engines * layout.threads[0] - beside)


def _alone(record: Mapping[str, Any], layout: Layout) -> dict[str, float]:
    """A step's seconds of ranks and of the driver as they would be with cores of one's own."""
    held = replace(layout, others=others(record, layout))
    seconds = {name.removeprefix("seconds/"): record.get(name) or 0.0 for name in record if name.startswith("seconds/")}
    turns = seconds.get("turns", 0.0) / 2  # the other half is in seconds/publish
    known = sum(seconds.get(name, 0.0) for name in ("sample", "watch", "update", "publish"))
    return {
        "update": seconds["update"] * held.part(layout.ranks * layout.threads[1]) * layout.ranks,
        "push": (seconds["publish"] - turns) * held.part(1),
        "rest": max(0.0, seconds["step"] - known - turns) * held.part(1),
        "turns": 2 * turns,
    }


def _trace(records: Sequence[Mapping[str, Any]], recipe: Recipe, layout: Layout) -> Trace:
    names = (
        "groups/sampled", *_KEPT, "tokens/sampled", "tokens/trained", "engines/calls",
        "seconds/judge", "seconds/score", "seconds/poll",
    )  # fmt: skip
    total = {name: sum(record.get(name) or 0.0 for record in records) for name in names}
    alone = [_alone(record, layout) for record in records]
    quantile = next(metric for metric in METRICS if metric.name == "length/q_<N>")
    answers = total["groups/sampled"] * recipe.sampler.group_size
    quantiles = sorted(
        (int(percent), name) for name in {name for record in records for name in record} if (percent := varying(quantile, name))
    )
    return Trace(
        shares=[percent / 100 for percent, _ in quantiles],
        lengths=[_mean(records, name) for _, name in quantiles],
        alike=_mean(records, "length/between"),
        kept=_share(records, _KEPT),
        trained=total["tokens/trained"] / (total["tokens/sampled"] * total["groups/trained"] / total["groups/sampled"] or inf),
        step=_mean(records, "engines/step"),
        each=_mean(records, "engines/step_each"),
        take=_mean(records, "engines/take"),
        judge=total["seconds/judge"] / answers,
        score=total["seconds/score"] / answers,
        poll=total["seconds/poll"] / total["engines/calls"],
        update=sum(one["update"] for one in alone) / (total["tokens/trained"] or inf),
        push=_mean(alone, "push"),
        rest=sum(one["rest"] for one in alone) / answers,
        turn=_mean(alone, "turns") or None,
        between=_between(records, recipe.eval.every),
    )


def _share(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> float:
    """Of all groups that were sampled."""
    found, sampled = (sum(record.get(name) or 0.0 for record in records for name in among) for among in (names, ["groups/sampled"]))
    return min(1.0, found / sampled)


def filtered(found: Calibration, here: Recipe) -> tuple[Trace, list[str]]:
    """The trace where a recipe says which groups train, and the keys that make this another choice than the run's: of these nobody knows what they change.

    Without a filter all that was judged trains, and an update is of no more than was sampled.
    """
    if here.sampler.keep_groups == "all":
        return replace(found.trace, kept=_share(found.records, (*_KEPT, *_CONSTANT)), trained=min(1.0, found.trace.trained)), []
    shaped = here.sampler.keep_groups == "shaped"
    reads = ["sampler.keep_groups", "sampler.group_size", *(["reward", "budget"] if shaped else [])]
    other = [name for name in reads if attrgetter(name)(found.recipe) != attrgetter(name)(here)]
    lets_in = RedundantCredit if shaped else DecsCredit  # groups of right answers alone
    credits = [isinstance(recipe.credit, lets_in) and recipe.credit for recipe in (found.recipe, here)]
    return found.trace, other + ["credit.kind"] * (credits[0] != credits[1])


def _between(records: Sequence[Mapping[str, Any]], every: int) -> float:
    """Seconds from a step's end to the next one's begin, evaluations left out; of a run that was resumed, without the gaps."""
    pairs = [(one, other) for one, other in pairwise(records) if not (every and other["step"] % every == 0)]
    gaps = [gap for one, other in pairs if (gap := other["time"] - one["time"] - other["seconds/step"]) >= 0]
    return float(np.mean(gaps)) if gaps else 0.0


def work_of(made: Plan) -> Work:
    """A step of a plan's recipe. Raises TraceError: its model's size is not known."""
    recipe, shape = made.recipe, made.shape
    if shape is None:
        raise TraceError(f"--simulate: the size of {recipe.model.path} is unknown until it is there: download it, or name its folder")
    trained = trained_parameters(shape, recipe.learner.adapter)
    return Work(
        prompts=recipe.sampler.prompts,
        group_size=recipe.sampler.group_size,
        limit=recipe.most_tokens,
        max_refills=recipe.sampler.max_refills,
        updates=recipe.learner.updates_per_step,
        micro_batch_tokens=recipe.learner.micro_batch_tokens,
        judges=recipe.judge.workers,
        gradients=trained * 4.0,
        weights=float(shape.parameters * number_width(recipe)),
        state=trained * 12.0,
        stored=recipe.cluster.carrier == "store" or made.device == "cpu",
    )


def refuse_other_model(made: Plan, run: Recipe, folder: Path) -> None:
    """Raise TraceError where the run's model is another than the plan's, whose speed it does not tell."""
    theirs, _ = find_shape(run)
    if (theirs or run.model.path, run.model.dtype) != (made.shape or made.recipe.model.path, made.recipe.model.dtype):
        raise TraceError(
            f"--simulate: {folder} trained {run.model.path} in {run.model.dtype}, and this recipe trains {made.recipe.model.path} in "
            f"{made.recipe.model.dtype}: name a run of the same model"
        )


def sizes(words: str) -> list[int]:
    """Numbers of devices as they are written on the command line; "": the usual ones. Raises ValueError: they are no whole numbers above 0, or too large."""
    if not words:
        return list(SIZES)
    if not all(word.strip().isdecimal() and int(word) for word in words.split(",")):
        raise ValueError(f"--gpus: {words!r} is no list of whole numbers above 0: write 8,64,512")
    found = [int(word) for word in words.split(",")]
    if max(found) > _MOST:
        raise ValueError(f"--gpus: {max(found):,} is more than can be simulated in seconds; name {_MOST:,} at most")
    return found


def layouts(devices: int, recipe: Recipe) -> Iterator[Layout]:
    """Ways to have so many devices: shared by engines and ranks, one of each on every device, and apart with a quarter, a half and three quarters for engines."""
    parallel, rows = workers(recipe), step_work(recipe).rows_per_update
    if parallel == 1 and devices <= rows:  # a device that is shared has a rank, and there are no more ranks than rows
        yield Layout(devices, devices, colocated=True)
    for engines in sorted({devices * quarters // 4 // parallel for quarters in (1, 2, 3)}):
        if 0 < engines * parallel < devices:
            yield Layout(engines, min(devices - engines * parallel, rows), gpus=parallel)


def seated(made: Plan, layout: Layout, trace: Trace) -> tuple[Layout, str]:
    """A layout with the seats of its engines, and why plan would refuse it for the memory of a GPU ("": it fits, or nothing is known of it).

    All GPUs are like the smallest that is there, main memory has room. On a GPU an engine runs as many sequences as its keys and values have room for:
    one that runs is in the mean as deep as half of the lengths' mean square over their mean; its prompt is not counted.
    """
    nodes = (made.machine, *made.others)
    gpu = min((one for node in nodes for one in node.gpus), default=0) or made.assumed
    step = next((part.step for part in made.stages if part.step.own), None)
    if made.device != "cuda" or step is None or made.shape is None or not gpu:
        return replace(layout, seats=int(made.engine.get("max_num_seqs", 256))), ""
    recipe, held = step.recipe, turns(step.recipe.cluster)
    shared = ColocatedCluster(kind="colocated", carrier=recipe.cluster.carrier, sleep=held.sleep, offload=held.offload)
    changes = {
        "engine": recipe.engine.model_copy(update={"count": layout.engines}),
        "learner": recipe.learner.model_copy(update={"ranks": layout.ranks}),
        "cluster": shared if layout.colocated else ApartCluster(kind="apart", carrier=recipe.cluster.carrier),
    }
    there = replace(
        made.machine,
        memory=_ROOM,
        shared=None,
        gpus=(gpu,) * layout.devices,
        cards=next((node.cards[:1] for node in nodes if node.cards), ()),
    )
    way = fitted(replace(step, recipe=recipe.model_copy(update=changes)), made.shape, (there,), made.device, made.assumed)
    cache = next(actor.holds["KV cache"] for actor in way.actors if actor.name == "engine")
    lengths = np.interp(np.linspace(0, 1, 1001), trace.shares, trace.lengths)
    depth = max(1, round(float((lengths**2).mean() / lengths.mean() / 2)))
    seats = min(int(way.engine["max_num_seqs"]), cache // kv_bytes(made.shape, depth, number_width(recipe), workers(recipe)))
    return replace(layout, seats=max(1, seats)), next(iter((*way.placement.faults, *way.unfit)), "")


def forecast(trace: Trace, work: Work, layout: Layout, seed: int = 0) -> Forecast:
    """Of enough simulated steps; of few where each is long to simulate, and the 95th percentile is nearly the slowest of them."""
    count = 20 if work.prompts * work.group_size <= _SMALL else 3
    found = steps(trace, work, layout, count, seed)
    seconds = [one.seconds for one in found]
    parts = Step(*(float(np.mean([getattr(one, name) for one in found])) for name in Step.__dataclass_fields__))
    return Forecast(layout, float(np.mean(seconds)), float(np.percentile(seconds, 95)), parts)


def best_of_each(ways: Sequence[Layout], trace: Trace, work: Work) -> list[Forecast]:
    """The fastest way to share devices, and the fastest to have them apart."""
    found = [forecast(trace, work, layout) for layout in ways]
    kinds = ([one for one in found if one.layout.colocated is kind] for kind in (True, False))
    return [min(kind, key=lambda one: one.mean) for kind in kinds if kind]


def words(made: Plan, folder: Path, devices: Sequence[int], price: float | None) -> str:
    """The forecast as text for people. Raises TraceError: the run does not tell what is needed. `price`: of a device and hour."""
    made = next(
        (replace(part, others=made.others, stages=made.stages) for part in made.stages if part.step.own), made
    )  # with its own changes
    found = calibrate(folder)
    refuse_other_model(made, found.recipe, folder)
    trace, refiltered = filtered(found, made.recipe)
    work, cores = work_of(made), found.layout.cores < inf
    ways = {size: [seated(made, layout, trace) for layout in layouts(size, made.recipe)] for size in devices}
    seats = max(
        (layout.seats for found in ways.values() for layout, why in found if not why), default=int(made.engine.get("max_num_seqs", 256))
    )
    device = "core" if cores else "GPU"
    lines = [
        f"trace    {folder}, {len(found.records)} steps: {many(found.layout.engines, 'engine')}, {many(found.layout.ranks, 'rank')}"
        + (f" on {found.layout.cores:g} cores, of which others wanted {found.layout.others:.1f}" if cores else ""),
        f"lengths  median {np.interp(0.5, trace.shares, trace.lengths):,.0f}, 95th percentile {np.interp(0.95, trace.shares, trace.lengths):,.0f}, "
        f"longest {trace.lengths[-1]:,.0f} tokens; {trace.alike:.0%} of their variance is between problems; {trace.kept:.0%} of the groups train",
        f"engine   a step takes {1e3 * trace.step:.3g} ms and {1e6 * trace.each:.3g} us for each of at most {seats:,} sequences",
        f"driver   {1e3 * trace.score:.2g} ms an answer, {1e3 * trace.poll:.2g} ms a call; a judge {1e3 * trace.judge:.2g} ms an answer",
        f"learner  {1e6 * trace.update:.3g} us a token and rank; push {trace.push:.2g} s",
        f"step     {work.prompts:,} prompts x {work.group_size}, at most {work.limit:,} tokens",
    ]
    if work.limit > found.recipe.most_tokens:
        lines.append(f"warning  the run's responses ended at {found.recipe.most_tokens:,} tokens, so longer ones are not foreseen")
    if cores and found.layout.others > _BUSY * found.layout.cores:
        lines.append(
            "warning  other programs wanted cores while engines sampled; that they did in updates and pushes is a guess, which can be a third off"
        )
    if refiltered:
        named = f"{', '.join(refiltered)}, which {'is another' if len(refiltered) == 1 else 'are others'} here"
        lines.append(f"warning  {trace.kept:.0%} of the groups train by the run's {named}; what that changes is not foreseen")
    there = [("device", "cpu" if cores else "cuda", made.device)] if (made.device == "cpu") != cores else []
    speeds = [*there, *_unlike(*(_of_speed(recipe, cores) for recipe in (found.recipe, made.recipe)))]
    for what, unlike in (("speeds", speeds), ("lengths", _unlike(*map(_of_lengths, (found.recipe, made.recipe))))):
        if said := [f"{name} {old} (here {new})" for name, old, new in unlike]:
            lines.append(f"warning  the run's {what} are those of {', '.join(said)}; what that changes is not foreseen")
    each = {size: best_of_each([layout for layout, why in found if not why], trace, work) for size, found in ways.items()}
    lines += [f"none     {size:,} {device}s hold no engine beside a rank" for size, found in ways.items() if not found]
    for kind in (True, False):
        if out := [(layout, why) for found in ways.values() for layout, why in found if why and layout.colocated is kind]:
            refuses = f"plan refuses them, {_placed(out[0][0])} for one" if len(out) > 1 else "plan refuses that"
            lines.append(f"none     {', '.join(_placed(layout) for layout, _ in out)}: {refuses}: {out[0][1]}")
    return "\n".join([*lines, "", *_table([(size, one) for size, ways in each.items() for one in ways], trace, device, price)])


def _unlike(run: dict[str, Any], here: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """What is another in two recipes: key, the run's, the other's."""
    return [(name, run.get(name), here.get(name)) for name in run | here if run.get(name) != here.get(name)]


def _of_speed(recipe: Recipe, cores: bool) -> dict[str, Any]:
    """What the speed of an engine, a rank or an update depends on, by key; of an update what it passes, and what of it trains. Threads count on cores alone."""
    choice = recipe.select
    return (
        {name: attrgetter(name)(recipe) for name in _SPEED if cores or not name.endswith("threads")}
        | {
            "learner.adapter": _adapter_words(recipe.learner.adapter),
            "engine.vllm.tensor_parallel_size": workers(recipe),
            "objective.kl.coef": "above 0" if recipe.most("objective.kl.coef") > 0 else 0,
            "reward": "with kl" if recipe.kl_reward else "without kl",
            "objective.hinge.weight": "above 0" if recipe.most("objective.hinge.weight") > 0 else 0,
            "objective.old_logprobs": recipe.objective.old_logprobs,
            "credit.kind": recipe.credit.kind,
            "tokens.kind": recipe.tokens.kind,
            "select": f"{choice.kind} {recipe.most('select.keep'):g}"
            if isinstance(choice, Selection) and choice.others == "drop"
            else "all",
            "budget.cut": recipe.budget.cut,
        }
        | {f"engine.vllm.{name}": value for name, value in recipe.engine.vllm.items() if name not in _SIZED}
    )


def _of_lengths(recipe: Recipe) -> dict[str, Any]:
    """What the lengths of responses depend on from the first step on, by key."""
    sets = " and ".join(f"{one.source}{f' x {one.weight:g}' if len(recipe.data.sets) > 1 else ''}" for one in recipe.data.sets)
    words = {f"data.{name}": json.dumps(getattr(recipe.data, name)) for name in ("instruction", "template")}
    return {name: attrgetter(name)(recipe) for name in _LENGTHS} | {"data.train": sets} | words


def _adapter_words(adapter: Adapter) -> str:
    return f"lora of rank {adapter.rank} on {', '.join(adapter.targets) or 'all'}" if isinstance(adapter, Lora) else "full"


def _placed(layout: Layout) -> str:
    return f"{layout.engines} + {layout.ranks}" + (" shared" if layout.colocated else "")


def _table(rows: Sequence[tuple[int, Forecast]], trace: Trace, device: str, price: float | None) -> list[str]:
    head = [
        f"{device}s", "engines + ranks", "step s", "p95", "sample", "update", "push", "rest", "engines busy", "learner busy", "long tail", f"{device} h a step",
    ]  # fmt: skip
    cells = [head + ["price a step"] * (price is not None)]
    for size, one in rows:
        layout, parts = one.layout, one.parts
        hours = layout.devices * (one.mean + trace.between) / 3600
        seconds = [f"{value:.3g}" for value in (one.mean, one.p95, parts.sample, parts.update, parts.push, parts.rest + parts.turns)]
        shares = [f"{share:.0%}" for share in one.shares]
        taken = f"{layout.devices:,}" + f" of {size:,}" * (layout.devices < size)
        cells.append([taken, _placed(layout), *seconds, *shares, f"{hours:.3g}", *([f"{price * hours:.3g}"] if price is not None else [])])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
