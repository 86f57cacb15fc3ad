"""What plan warns of in a recipe, whatever the machine: choices that cancel each other, numbers that say nothing, promises that are waived.

Claim: what is said is true of every run of the recipe; what depends on data or policy is not said here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isclose, lcm
from operator import attrgetter
from pathlib import Path

from launch.memory import evaluates, many
from recipes.advantages import Selection
from recipes.budgets import ControllerBudget, CoverageBudget, OutlierBudget, ToggleBudget
from recipes.credit import DecsCredit
from recipes.data import DataSet
from recipes.lengths import LengthTerm
from recipes.loader import in_stage
from recipes.schedules import Decays, Exponential, Linear, Schedule, Staged, value_at
from recipes.schema import Recipe
from recipes.stages import unread
from recipes.term import Case, Waiver
from recipes.terms import ROUNDING, KlTerm, RewardTerm, least_of_right, refuse_wrong_before_right


def recipe_warnings(recipe: Recipe) -> Iterator[str]:
    """What the recipe itself says that will hardly be as meant, a sentence each."""
    yield from _method_warnings(recipe) if recipe.trains else ()
    yield from _idle(recipe)


def stage_warnings(recipe: Recipe) -> Iterator[str]:
    """Words of one parent that another's took the place of, and changes of a stage that it does not read, a sentence each."""
    yield from recipe.overridden
    for index, stage in enumerate(recipe.stages):
        for key in unread(stage, list(in_stage(recipe, index).schedule)) if stage.said else ():
            yield f"stages[{index}] ({stage.called}): changes: {key} says nothing, as a stage of kind {stage.kind} does not read it; leave it out"


def _idle(recipe: Recipe) -> Iterator[str]:
    """Keys that were set though nothing reads them beside the recipe's other choices."""
    objective, tiny = recipe.objective, recipe.model.path == "tiny"
    trains = recipe.trains
    read = [*(recipe.data.sets if recipe.samples else []), *(recipe.held_out_sets if evaluates(recipe) else [])]
    conditions = [
        ("model.revision", not recipe.model.on_hub, f"{recipe.model.path} is no hub id"),
        ("tiny.layers tiny.width tiny.recheck tiny.rederive tiny.slip cold_start.steps cold_start.batch cold_start.lr", not tiny, "model.path is not tiny"),
        ("data.split", recipe.samples and not any(map(_takes_split, recipe.data.sets)), f"data.train is {', '.join(one.source for one in recipe.data.sets)}"),
        ("advantage.ddof", trains and recipe.advantage.scale == "none", "advantage.scale is none"),
        ("objective.kl.estimator", trains and not recipe.most("objective.kl.coef"), "objective.kl.coef is 0"),
        ("objective.ratio", trains and objective.surrogate == "logp", "objective.surrogate logp has no ratio"),
        ("objective.hinge.slack", trains and not objective.hinge.weight, "objective.hinge.weight is 0"),
        ("engine.vllm", recipe.engine.kind == "reference", "engine.kind is reference"),
        ("sampler.max_refills", trains and recipe.sampler.keep_groups == "all", "sampler.keep_groups is all, so no prompt is replaced"),
        ("eval.top_p eval.top_k", recipe.eval.temperature == 0, "eval.temperature is 0"),
        ("data.problem data.answer", bool(read) and {one.source for one in read} <= {"tiny"}, "no data come from files or the hub"),
        ("train.keep_best", trains and not _scored(recipe), "no checkpoint is evaluated on the way (eval.every, train.checkpoint_every, train.steps)"),
        ("judge.over_limit", trains and recipe.judge.not_judged_limit == 1, "judge.not_judged_limit is 1"),
    ]  # fmt: skip
    standard = Recipe()
    for names, idle, why in conditions:
        for name in names.split():
            value = attrgetter(name)(recipe)
            if idle and value != attrgetter(name)(standard):
                yield f"{name}: {value} says nothing, as {why}"
    if trains and isinstance(recipe.select, Selection) and recipe.ends("select.keep")[0] == recipe.sampler.group_size:
        yield f"select.keep: {recipe.sampler.group_size} is sampler.group_size, so every rollout trains"
    if trains and recipe.learner.warmup_steps > recipe.train.steps:
        yield f"learner.warmup_steps: {recipe.learner.warmup_steps} is more than train.steps {recipe.train.steps}: learner.lr is never reached"


def _scored(recipe: Recipe) -> bool:
    """Whether an evaluation before the last step is of a step that leaves a checkpoint."""
    every = recipe.eval.every and recipe.train.checkpoint_every and lcm(recipe.eval.every, recipe.train.checkpoint_every)
    return 0 < every < recipe.train.steps


def _takes_split(one: DataSet) -> bool:
    """Whether a set leaves its split to data.split: a hub set without one, or a folder."""
    return one.source.count(":") == 1 if one.source.startswith("hub:") else Path(one.source).expanduser().is_dir()


def _method_warnings(recipe: Recipe) -> Iterator[str]:
    objective, kl = recipe.objective, recipe.objective.kl
    if recipe.most("objective.kl.coef") and kl.estimator == "k1":
        yield "objective.kl: k1 as a loss has no gradient in expectation, so it penalises nothing; take k2, or the reward term kl"
    correction = objective.correction
    if correction.kind == "sequence_mask" and (correction.low < 0.9 or correction.high > 1.1):
        yield (
            f"objective.correction: {correction.low:g} to {correction.high:g} hardly ever masks a mean over a rollout; "
            "bounds like 0.99 and 1.01 do"
        )
    if objective.ratio == "sequence" and objective.aggregate != "sequence_mean":
        yield f"objective.aggregate: {objective.aggregate} counts a rollout's one ratio once per token; ratio: sequence goes with sequence_mean"
    clips = objective.ratio == "sequence" and objective.surrogate != "logp"
    if clips and objective.clip_low > 0.01 and not recipe.sampler.no_thinking:  # a rule's first token moves that mean
        yield f"objective.clip_low: {objective.clip_low:g} hardly ever binds a ratio that is a mean over a rollout; GSPO uses 3e-4 and 4e-4"
    narrow = {
        "objective.ratio": clips and objective.clip_low < 0.01,
        "objective.hinge": bool(objective.hinge.weight),
        "credit.kind": recipe.credit.kind == "kl_cov",
    }
    if objective.old_logprobs == "engine" and recipe.model.dtype == "bf16" and (names := [name for name, is_so in narrow.items() if is_so]):
        yield f"{', '.join(names)}: bounds less than engine and learner may differ by in bf16 before anything has moved; set objective.old_logprobs: learner"
    if recipe.advantage.centre == "leave_one_out" and recipe.advantage.scale == "group":
        yield "advantage: the group's spread cancels the factor of leave_one_out, so this is GRPO; RLOO is scale: none"
    moved = recipe.learner.updates_per_step > 1
    if recipe.credit.kind == "kl_cov" and not moved:
        yield "credit.kind: kl_cov charges tokens for what earlier updates of a step moved; with learner.updates_per_step 1 there are none, so it has no effect"
    if objective.hinge.weight and not moved:
        yield "objective.hinge: charges what earlier updates of a step moved; with learner.updates_per_step 1 there are none, so it has no effect"
    if objective.surrogate == "logp" and moved and not objective.hinge.weight:
        yield "objective.surrogate: logp bounds nothing that later updates of a step do; set objective.hinge.weight, or learner.updates_per_step 1"
    rewards = list(recipe.rewards().values())
    yield from _credit_warnings(recipe, rewards)
    yield from _unread_limits(recipe)
    yield from _fixed_limits(recipe)
    yield from _waived(recipe, rewards)
    yield from _not_in_this_run(recipe)
    yield from _floorless(recipe)
    losses = [case.wrong for _, case in rewards if case.wrong < 0]
    if recipe.select.kind == "efficient" and losses:
        yield f"select.kind: efficient takes the shortest wrong answers, as they earn {min(losses):g}, a loss that it counts for every token; with verdict.wrong 0 it tells none apart"
    for term in recipe.reward:
        yield from (f"reward: {doubt}" for doubt in term.doubts())
    if recipe.credit.replaces:
        return
    lengths = recipe.sampler.keep_groups != "raw" and any(isinstance(term, LengthTerm | KlTerm) for term in recipe.reward)
    shaped = lengths or any(term.kind == "function" for term in recipe.reward)
    if shaped and recipe.advantage.scale == "group":
        yield "advantage.scale: group divides a group that differs by little by that little, so the weight of a small reward term has no effect there"
    if shaped and recipe.advantage.scale.startswith("batch") and recipe.sampler.keep_groups != "raw":
        yield f"advantage.scale: {recipe.advantage.scale} divides by the spread of the batch: where all its groups are right, the weight of a small reward term has no effect"


def _credit_warnings(recipe: Recipe, rewards: Sequence[tuple[list[RewardTerm], Case]]) -> Iterator[str]:
    """What credit by token does not read, and where it cannot act."""
    credit, own = recipe.credit, f"credit.kind {recipe.credit.kind} makes advantages of its own"
    if credit.reads == "verdict" and (others := [term.kind for term in recipe.reward if term.kind != "verdict"]):
        yield f"reward: {', '.join(others)}: says nothing to advantages, as credit.kind {credit.kind} goes by verdicts alone"
    pays = dict.fromkeys(term.kind for reward, case in rewards for term in reward if any(term.adds(False, case)))
    if credit.reads == "right" and pays:
        yield f"reward: {', '.join(pays)}: what wrong answers earn says nothing, as credit.kind {credit.kind} gives each of them -base"
    standard = type(recipe.advantage)()
    for name in ("boost", "shorter", "weigh", "combine") if credit.replaces else ():
        if (value := getattr(recipe.advantage, name)) != getattr(standard, name) or f"advantage.{name}" in recipe.schedule:
            yield f"advantage.{name}: {value} says nothing, as {own}"
    if credit.replaces and recipe.advantage.centre == "reference":
        yield f"advantage.centre: reference says nothing, as {own}"
    if isinstance(credit, DecsCredit) and recipe.sampler.keep_groups == "all":
        yield "credit.kind: decs: kappa says nothing, as sampler.keep_groups is all; take raw"
    if isinstance(credit, DecsCredit) and not credit.most:
        yield f"credit.gain: {credit.gain:g} says nothing, as credit.most is 0"
    if credit.kind in ("thr", "nthr", "decs", "drpo") and getattr(recipe.select, "scope", "") == "batch":
        yield f"select.scope: batch may leave one rollout of a group, of which credit.kind {credit.kind} says nothing; prompt keeps as many of each"
    fixed = recipe.objective.aggregate in ("constant", "sequence_sum")
    if fixed and getattr(recipe.tokens, "denominator", "all") == "kept":
        yield f"tokens.denominator: kept says nothing with objective.aggregate {recipe.objective.aggregate}, which does not count tokens: fewer of them make a smaller step"


_CHOOSING = {
    "prompt": "lower budget.least",
    "reference": "lower budget.least",
    "controller": "lower budget.least",
    "coverage": "raise budget.room",
    "difficulty": "give a rung of budget.ladder a share below 1",
}


def _unread_limits(recipe: Recipe) -> Iterator[str]:
    """Limits that are decided after sampling, for rewards only, where no reward goes by them."""
    unread = recipe.credit.reads == "verdict" or not any(term.reads_limit for term in recipe.reward)
    for place, part in recipe.budget.placed.items():
        if part.kind == "controller" and unread and part.room > 1 and "{budget}" not in recipe.data.instruction:
            yield (
                f"{place}.kind: controller: only where sampling stops, at budget.room {part.room:g} x its limit, goes by it: no prompt states it, and no term of "
                "the reward that counts reads a limit; add one, as truncate"
            )
        if part.kind not in ("difficulty", "toggle", "coverage"):
            continue
        if recipe.credit.reads == "verdict":
            yield f"{place}.kind: {part.kind}: its limits say nothing, as credit.kind {recipe.credit.kind} goes by verdicts alone"
        elif not any(term.reads_limit for term in recipe.reward):
            yield f"{place}.kind: {part.kind}: its limits say nothing, as no term of the reward reads a limit; add one, as truncate"


def _floorless(recipe: Recipe) -> Iterator[str]:
    """A controller's numbers that ask nothing."""
    for place, part in recipe.budget.placed.items():
        if not isinstance(part, ControllerBudget):
            continue
        if part.within >= 1:
            yield f"{place}.within: {part.within:g} below any start is a floor of 0 or less, which asks nothing of accuracy, so the limit only falls"
        if not part.watch and part.every != 1:
            yield f"{place}.every: {part.every} says nothing, as {place}.watch is 0, so that every step is a look"


def _waived(recipe: Recipe, rewards: Sequence[tuple[list[RewardTerm], Case]]) -> Iterator[str]:
    """What a waiver allows in this recipe, by how much, or that nothing needs it."""
    if "right_beats_wrong" in recipe.waive:
        ends = [least_of_right(reward, case) for reward, case in rewards if _refused(reward, case, ["length_of_wrong"])]
        short = max((wrong - min(kept, right) for kept, right, wrong in ends), default=0.0)
        if ends and short > ROUNDING:
            yield f"waive: right_beats_wrong: a right answer may earn {short:g} less than a wrong one"
        elif ends:
            yield "waive: right_beats_wrong: a right answer may earn as little as a wrong one"
        if recipe.advantage.combine != "sum":
            yield (
                f"waive: right_beats_wrong: advantage.combine: {recipe.advantage.combine} gives every term its own scale, "
                "so the advantage of a right answer may be below a wrong one's"
            )
        elif not ends:
            yield "waive: right_beats_wrong: not needed, as every right answer earns more than a wrong one, or as much where a term erases its verdict; leave it out"
    if "length_of_wrong" in recipe.waive:
        pays = dict.fromkeys(term.kind for reward, _ in rewards for term in reward if term.sees_length_of_wrong())
        says = f"the length of a wrong answer may change what it earns by {', '.join(pays)}"
        yield f"waive: length_of_wrong: {says if pays else 'not needed, as no term says that it pays wrong answers for their length; leave it out'}"


def _refused(reward: list[RewardTerm], case: Case, waived: list[Waiver]) -> bool:
    try:
        refuse_wrong_before_right(reward, case, waived)
    except ValueError:
        return True
    return False


def _fixed_limits(recipe: Recipe) -> Iterator[str]:
    """Limits that the kind of budget is to choose, where there is one to choose from; outliers, where none can be one."""
    budgets = [held.placed for held in recipe.each("budget").values()]
    rollouts = recipe.sampler.group_size
    for place, part in recipe.budget.placed.items():
        outliers = [one for held in budgets if isinstance(one := held[place], OutlierBudget)]
        if isinstance(part, OutlierBudget) and not any(one.cuts(rollouts) for one in outliers):
            most = f"mean + {part.alpha:g} deviations by {part.cut_tokens} tokens"
            yield f"{place}.kind: outlier: says nothing, as none of {rollouts} rollouts can exceed {most}; lower {place}.least_cut or {place}.alpha"
        if part.kind in _CHOOSING and all(held[place].least_limit == held[place].most_limit for held in budgets):
            advice = _CHOOSING[part.kind].replace("budget", place) if part.kind != "coverage" else _CHOOSING[part.kind]
            yield f"{place}.kind: {part.kind}: says nothing, as no limit but budget.limit is allowed; {advice}"


def _end(schedule: Schedule, start: float, steps: int) -> float | None:
    """Where a schedule ends, however long it takes; None for one that goes on for ever or names its values."""
    if isinstance(schedule, Linear | Decays):
        return schedule.value(start, max(steps, getattr(schedule, "over", None) or 0), steps)
    return schedule.bound(start) if isinstance(schedule, Exponential) and schedule.factor < 1 else None


def _missed(schedule: Schedule, start: float, steps: int) -> str:
    """What a schedule reaches in a run that ends before it does; empty if it comes to its end."""
    end = _end(schedule, start, steps)
    exact, last = schedule.value(start, steps - 1, steps), value_at(schedule, start, steps - 1, steps)
    return "" if end is None or isclose(exact, end) or isclose(last, end) else f"which reaches {last:g}"


def _not_in_this_run(recipe: Recipe) -> Iterator[str]:
    """What is to come after some steps, and train.steps ends before it."""
    steps = recipe.train.steps
    run = f"not in this run of {many(steps, 'step')}"
    for name, schedule in recipe.schedule.items():
        late = [stage.since for stage in schedule.stages if stage.since >= steps] if isinstance(schedule, Staged) else []
        if late:
            yield f"schedule: {name}: the stage since step {late[0]} is {run}"
        elif isinstance(schedule, Exponential) and schedule.every >= steps:
            yield f"schedule: {name}: its first change, after {many(schedule.every, 'step')}, is {run}"
        elif missed := _missed(schedule, recipe.number(name), steps):
            yield f"schedule: {name}: its end, {_end(schedule, recipe.number(name), steps):g}, is {run}, {missed}"
        elif set(recipe.by_step(name)) == {recipe.number(name)}:
            yield f"schedule: {name}: says nothing, as {recipe.number(name):g} holds in every step with it or without; take it out (null)"
    for place, part in recipe.budget.placed.items():
        if isinstance(part, ControllerBudget):
            apart = part.every if part.watch else 1
            first = part.measure * apart + (not part.watch)  # what is sampled to train is seen behind the step
            if first >= steps:
                yield f"{place}.measure: {part.measure} looks, one every {many(apart, 'step').removeprefix('1 ')}, come before the limit moves: that is {run}"
        elif isinstance(part, CoverageBudget) and part.every >= steps:
            yield f"{place}.every: a second look, after {many(part.every, 'step')}, is {run}, so limits stay as the start has them"
        elif isinstance(part, ToggleBudget) and not any(map(part.limited, range(steps))):
            if any(map(part.model_copy(update={"warmup": 0}).limited, range(steps))):
                yield f"{place}.warmup: a phase with a limit, none before step {part.warmup}, is {run}"
                continue
            later = f", nor before step {part.warmup}, as {place}.warmup says" if part.warmup >= steps else ""
            yield f"{place}.period: a phase with a limit is {run}{later}"
