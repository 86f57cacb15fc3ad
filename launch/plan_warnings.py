"""What plan warns of in a recipe, whatever the machine: choices that cancel each other, numbers that say nothing, promises that are waived.

Claim: what is said is true of every run of the recipe; what depends on data or policy is not said here.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

from recipes.advantages import Selection
from recipes.lengths import LengthTerm
from recipes.schema import DataSet, Recipe


def recipe_warnings(recipe: Recipe) -> Iterator[str]:
    """What the recipe itself says that will hardly be as meant, a sentence each."""
    yield from _method_warnings(recipe) if "rl" in recipe.stages else ()
    yield from _idle(recipe)


def _idle(recipe: Recipe) -> Iterator[str]:
    """Keys that were set though nothing reads them beside the recipe's other choices."""
    objective, tiny = recipe.objective, recipe.model.path == "tiny"
    trains, kind = "rl" in recipe.stages, objective.correction.kind
    here = tiny or Path(recipe.model.path).is_dir()
    conditions = [
        ("model.revision", here, f"{recipe.model.path} is no hub id"),
        ("tiny.layers tiny.width tiny.recheck tiny.rederive tiny.slip sft.steps sft.batch sft.lr", not tiny, "model.path is not tiny"),
        ("data.split", trains and not any(map(_takes_split, recipe.data.sets)), f"data.train is {', '.join(one.source for one in recipe.data.sets)}"),
        ("advantage.ddof", trains and recipe.advantage.scale == "none", "advantage.scale is none"),
        ("objective.kl.estimator", trains and not recipe.most("objective.kl.coef"), "objective.kl.coef is 0"),
        ("objective.entropy.delta objective.entropy.most", trains and objective.entropy.target is None, "objective.entropy.target is null"),
        ("objective.correction.low objective.correction.high", trains and kind == "none", "objective.correction.kind is none"),
        ("objective.correction.low", trains and kind == "tis", "tis has no lower bound"),
        ("engine.vllm", recipe.engine.kind == "reference", "engine.kind is reference"),
        ("sampler.max_refills", trains and recipe.sampler.keep_groups == "all", "sampler.keep_groups is all, so no prompt is replaced"),
        ("eval.top_p", recipe.eval.temperature == 0, "eval.temperature is 0"),
        ("data.problem data.answer", {one.source for one in [*(recipe.data.sets if trains else []), *recipe.held_out_sets]} <= {"tiny"}, "no data come from files or the hub"),
        ("judge.over_limit", trains and recipe.judge.not_judged_limit == 1, "judge.not_judged_limit is 1"),
    ]  # fmt: skip
    standard = Recipe()
    for names, idle, why in conditions:
        for name in names.split():
            value = attrgetter(name)(recipe)
            if idle and value != attrgetter(name)(standard):
                yield f"{name}: {value} says nothing, as {why}"
    if trains and isinstance(recipe.select, Selection) and recipe.ends("select.keep")[0] == recipe.sampler.group_size:
        yield f"select.keep: {recipe.select.keep} is sampler.group_size, so every rollout trains"
    if trains and recipe.learner.warmup_steps > recipe.train.steps:
        yield f"learner.warmup_steps: {recipe.learner.warmup_steps} is more than train.steps {recipe.train.steps}: learner.lr is never reached"


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
    if (
        objective.ratio == "sequence" and objective.clip_low > 0.01 and not recipe.sampler.no_thinking
    ):  # a rule's first token moves that mean
        yield f"objective.clip_low: {objective.clip_low:g} hardly ever binds a ratio that is a mean over a rollout; GSPO uses 3e-4 and 4e-4"
    if recipe.advantage.centre == "leave_one_out" and recipe.advantage.scale == "group":
        yield "advantage: the group's spread cancels the factor of leave_one_out, so this is GRPO; RLOO is scale: none"
    if "right_beats_wrong" in recipe.waive:
        yield f"waive: right_beats_wrong: a right answer may earn {max(0.0, -recipe.margin):g} less than a wrong one"
    if "length_of_wrong" in recipe.waive:
        yield "waive: length_of_wrong: the length of a wrong answer may change what it earns"
    for term in recipe.reward:
        yield from (f"reward: {doubt}" for doubt in term.doubts())
    lengths = recipe.sampler.keep_groups != "raw" and any(isinstance(term, LengthTerm) for term in recipe.reward)
    shaped = lengths or any(term.kind == "function" for term in recipe.reward)
    if shaped and recipe.advantage.scale == "group":
        yield "advantage.scale: group divides a group that differs by little by that little, so the weight of a small reward term has no effect there"
    if shaped and recipe.advantage.scale.startswith("batch") and recipe.sampler.keep_groups != "raw":
        yield f"advantage.scale: {recipe.advantage.scale} divides by the spread of the batch: where all its groups are right, the weight of a small reward term has no effect"
