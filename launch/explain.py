"""A plan in words: what a person reads before they spend hours of a machine on it."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from launch.actors import host_bytes
from launch.memory import evaluates, held_words, many, size
from launch.plan import Plan, StagePlan
from launch.plan_budget import in_advance
from launch.plan_data import read_of_reference
from launch.teaches import teaching_words
from recipes import budgets, credit
from recipes.advantages import EntropyTokens, MaxVariance, Selection, TokenSelection
from recipes.budgets import Budget
from recipes.evals import BudgetAt, ExtendedTo, ShortOf
from recipes.loader import recipe_hash
from recipes.schema import Recipe
from recipes.stages import DpoStage, MergeStage, ReferenceStage, RlStage, SftStage, changed, within
from recipes.steps import Step, beginning, evaluated_after

_MANY = 1 << 40  # rows, of data whose number plan does not say


def explain(plan: Plan) -> str:
    """The plan as text for people."""
    recipe = plan.recipe
    names = " -> ".join(stage.called for stage in recipe.stages)
    lines = [f"{recipe.name} ({recipe_hash(recipe)}): {names} on {'GPUs' if plan.device == 'cuda' else 'the CPU'}", ""]
    lines += [f"model    {_model_words(plan)}"]
    source = recipe.model.path
    if source == "tiny":
        first = beginning(recipe).cold_start
        source = "the cold start"
        lines += [f"start    cold start of {many(first.steps, 'step')} of {first.batch} traces, unless the cache has it"]
    trained: Plan | None = None  # the last rl stage so far
    for part in plan.stages:
        trained = part if part.recipe.trains else trained
        lines += ["", *_stage_words(part, source, trained)] if len(plan.stages) > 1 else _work_words(part, trained)
        source = part.step.stage.called if part.step.stage.makes_model else source
    lines += [f"data     {line}" for line in plan.data]
    lines += ["", *_processes(plan), ""]
    lines += [f"warning  {line}" for line in plan.warnings]
    lines += [f"BLOCKED  {line}" for line in plan.blockers] or ["This machine can run it, as far as can be told without starting it."]
    return "\n".join(lines)


def _stage_words(part: StagePlan, source: str, trained: Plan | None) -> list[str]:
    """A stage among several: what goes in, what it does, what comes out."""
    step, stage, folder = part.step, part.step.stage, part.step.folder(Path())
    left = {
        "reference": f"{folder}/part-*.parquet; the policy stays as it was",
        "rl": f"{folder / 'checkpoints'}/step-{part.recipe.train.steps}"
        + ("" if step.own else f" (`laconic report RUN/{shlex.quote(str(folder))}`)"),
        "eval": f"{folder / 'evals'}; the policy stays as it was",
    }.get(stage.kind, f"{folder}/checkpoint")
    name = stage.called if stage.called == stage.kind else f"{stage.called} ({stage.kind})"
    changes = [f"changes  {key}: {json.dumps(value)}" for key, value in stage.said.items()]
    return [f"stage    {name}, from {source}; leaves {left}", *changes, *_work_words(part, trained)]


def _work_words(part: StagePlan, trained: Plan | None) -> list[str]:
    """What a stage does. `trained`: itself or the last rl stage before it, None without any."""
    recipe, step = part.recipe, part.step
    match stage := step.stage:
        case ReferenceStage():
            lines = [f"sample   {_reference_words(step, stage)}"]
        case SftStage() | DpoStage():
            lines = [f"train    {_supervised_words(step, stage)}"]
        case MergeStage():
            ranked = "over the whole model" if stage.scope == "global" else "within each tensor"
            lines = [
                f"merge    the {stage.keep:.0%} of entries that changed most since the last rl stage began, ranked {ranked}, x {stage.scale:g}, on top of its start"
            ]
        case RlStage():
            read = read_of_reference(step)
            lines = [f"reads    {', '.join(read)}, which {step.reference.stage.called} found"] if step.reference and read else []
            lines += _rl_words(part)
        case _:
            lines = []
    return lines + ([f"eval     {_eval_words(recipe)}{_stated_words(part, trained)}"] if evaluates(recipe) else [])


def _reference_words(step: Step, stage: ReferenceStage) -> str:
    recipe, endless = step.recipe, "tiny" in [one.source for one in step.recipe.data.sets]
    count = step.problems(None if endless else _MANY)
    few = "at most " if len(step.recipe.data.sets) > 1 else ""  # of sets of uneven weights, one may be short
    first = f"{few}the first {many(count, 'problem')}" + ("" if endless else ", or all if there are fewer,")
    which = "all problems" if count == _MANY else first if count else "problems (nothing says how many)"
    rollouts = stage.samples * (count if 0 < count < _MANY else 1)
    each = "" if rollouts > stage.samples or count == 1 else " a problem"
    return (
        f"{which} x {stage.samples:,} rollouts of at most {recipe.most_tokens:,} tokens at T {recipe.sampler.temperature:g}, judged and kept: "
        f"accuracy, lengths and the shortest right answer of each; at most {rollouts:,} rollouts, {_sampled(rollouts * recipe.most_tokens)}{each}"
    )


def _supervised_words(step: Step, stage: SftStage | DpoStage) -> str:
    how = f"epochs {stage.epochs:g}, in batches of {stage.batch}, learning rate {stage.rate(step.recipe.learner.lr):g}, at most {step.longest:,} tokens"
    if isinstance(stage, SftStage):
        return f"SFT on {', '.join(one.source for one in stage.sets) or 'the shortest right answer to each problem'}: {how}"
    worse = {"longer": "a longer right one", "wrong": "a wrong one", "both": "a longer right one and a wrong one"}[stage.rejected]
    return f"DPO, the shortest right answer to a problem against {worse}, beta {stage.beta:g}: {how}"


def _processes(plan: Plan) -> list[str]:
    """The processes of each stage, said once for those that have the same, and what there is for them."""
    found: dict[str, list[str]] = {}
    for part in [part for part in plan.stages if len(part.actors) > 1] or plan.stages[:1]:
        found.setdefault("\n".join(_actor_words(part)), []).append(part.step.stage.called)
    if len(found) < 2:
        return ["processes, and what one of each holds at its peak:", *(found or _actor_words(plan)), *_machine_words(plan)]
    each = [f"processes of {', '.join(names)}, and what one of each holds at its peak:\n{lines}" for lines, names in found.items()]
    return [*each, *_machine_words(plan)]


def _model_words(plan: Plan) -> str:
    recipe, shape = plan.recipe, plan.shape
    if shape is None:
        return f"{recipe.model.path}: size unknown until it is there"
    count = shape.parameters
    words = f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.2f}M"
    reach = f"takes {shape.max_positions:,} tokens, vocabulary {shape.vocabulary:,}"
    return f"{recipe.model.path}: {words} parameters in {recipe.model.dtype}, {reach}"


def _rl_words(plan: Plan) -> list[str]:
    recipe, work = plan.recipe, plan.work
    sampler, learner = recipe.sampler, recipe.learner
    updates, steps = learner.updates_per_step, recipe.train.steps
    refill = ""
    if sampler.keep_groups != "all":
        signal = {"raw": "correctness", "shaped": "reward"}[sampler.keep_groups]
        refill = f"; groups of constant {signal} are replaced (at most {sampler.max_refills * sampler.prompts:,} times)"
    ranks = f" on each of {learner.ranks} ranks" if learner.ranks > 1 else ""
    prompts = sampler.prompts // updates
    select = recipe.select
    chosen: list[str] = []
    if isinstance(select, Selection):
        rule = {"max_variance": "of largest reward variance", "shortest": "shortest", "efficient": "of most reward per token"}[select.kind]
        rest = "are left out" if select.others == "drop" else "stay with advantage 0"
        whose = f"each prompt's {sampler.group_size} rollouts"
        if isinstance(select, MaxVariance) and select.of == "advantage":
            rule = "of largest variance of advantages"
            whose = f"all {work.rollouts:,} rollouts" if select.scope == "batch" else whose
        count = f"{select.keep * (sampler.prompts if whose.startswith('all') else 1):,}"
        chosen = [f"select   the {count}{_unless_moved(recipe, 'select.keep')} {rule} of {whose}; the others {rest}"]
    chosen += [f"credit   {words}" for words in [_credit_words(recipe)] if words]
    if isinstance(recipe.tokens, TokenSelection):
        score = "entropy" if isinstance(recipe.tokens, EntropyTokens) else "|advantage| x entropy"
        share = f"{recipe.tokens.keep:.0%}{_unless_moved(recipe, 'tokens.keep')}"
        chosen += [f"tokens   the {share} of highest {score} in an update; the loss is {_denominator(recipe)}"]
    lines = [
        f"step     {sampler.prompts} prompts x {sampler.group_size} rollouts = {work.rollouts:,} of at most {recipe.most_tokens:,} tokens{refill}"
    ]
    lines += [f"limit    {words}" for words in _budget_words(recipe) if words]
    lines += [f"moves    {words}" for words in _moving(recipe)]
    lines += [f"teaches  {words}" for words in teaching_words(recipe)]
    if sampler.closed:
        lines.append(f"begins   {sampler.closed} of each prompt's {sampler.group_size} rollouts with the mark that closes thinking")
    lines += chosen
    lines += [
        f"update   {many(updates, 'optimiser update')} a step, on {prompts} prompts = {work.rows_per_update:,} rollouts each",
        f"         {work.rows_per_rank:,} rollouts{ranks} make at most {many(work.micro_batches, 'micro-batch', 'es')}"
        f" of {many(work.rows_per_micro_batch, 'row')} ({work.longest:,} tokens each, prompt included)",
        *_push_words(plan),
        f"run      {many(steps, 'step')} = {many(steps * updates, 'update')} on {steps * work.rollouts:,} rollouts;"
        f" at most {_sampled((steps * work.rollouts + _watched(recipe)) * recipe.most_tokens)} before replacements",
    ]
    if recipe.cluster.preemptible:
        lost = min(recipe.train.checkpoint_every or steps, steps)
        lines.append(
            f"preempt  a node that goes without a word costs about {many(lost, 'step')} at most (train.checkpoint_every); a job of Slurm or KubeRay goes on by itself"
        )
    return lines


def _push_words(plan: Plan) -> list[str]:
    """How weights get to engines, and why so."""
    name, why = plan.placement.carrier or ("", "")
    words = {"store": "Ray's object store", "ipc": "memory that engine and rank share", "broadcast": "a broadcast to all engines"}
    return [f"push     by {words[name]}, {why} (cluster.carrier: {name})"] if name else []


def _sampled(tokens: int) -> str:
    return f"{tokens / 1e6:,.1f}M sampled tokens" if tokens >= 1e6 else f"{tokens:,} sampled tokens"


def _watched(recipe: Recipe) -> int:
    """Rollouts of problems sampled apart, in the whole run."""
    watching = recipe.budget.watching
    if watching is None:
        return 0
    return -(-recipe.train.steps // watching.every) * watching.watched(recipe.sampler.prompts) * recipe.sampler.group_size


def _budget_words(recipe: Recipe) -> Iterator[str]:
    """What decides a prompt's limit, where it is not one for all, a line for each kind."""
    held = recipe.each("budget")
    far = max(held, key=lambda step: abs(held[step].limit - recipe.budget.limit))
    for place, part in recipe.budget.placed.items():
        yield _kind_words(recipe, part, held[far].placed[place], far)


def _kind_words(recipe: Recipe, budget: Budget, moved: Budget, far: int) -> str:
    """How one kind decides it; where budget.limit moves, as it is written and where it is furthest from that (`moved`, at step `far`)."""
    apart = ""

    def tokens(of: Callable[[Any], int]) -> str:
        here, there = of(budget), of(moved)
        return f"{here:,}" if here == there else f"{here:,} ({there:,} at step {far})"

    limit, least = tokens(lambda one: one.limit), tokens(lambda one: one.least_limit)
    if isinstance(budget, budgets.WatchingBudget) and budget.watch:
        count = budget.watched(recipe.sampler.prompts)
        apart = f"{count:,} problems sampled apart every {many(budget.every, 'step').removeprefix('1 ')} ({count * recipe.sampler.group_size:,} rollouts)"
    match budget:
        case budgets.DifficultyBudget():
            beside = bool(recipe.budget.also)
            rungs = [
                f"{rung.share:g} x what the other kinds leave" if beside else f"{tokens(lambda one, rung=rung: rung.of(one.limit))} tokens"  # type: ignore[misc]
                for rung in budget.ladder
            ]
            shares = [rung.at_least for rung in budget.ladder]
            return ", else ".join(f"{words} where at least {share:.0%} are right" for words, share in zip(rungs, shares, strict=True))
        case budgets.PromptBudget(column=None):
            return f"drawn for each prompt from {least} to {limit} tokens"
        case budgets.PromptBudget():
            return f"each prompt's own, from the column {budget.column}, {least} to {limit} tokens"
        case budgets.ReferenceBudget():
            return f"{budget.share:g} x the column {budget.column}, {least} to {limit} tokens"
        case budgets.ControllerBudget():
            whose = f"of {apart}" if apart else "of what is sampled to train"
            return f"{limit} tokens, down to {least} while accuracy {whose} is less than {budget.within:g} below its start"
        case budgets.CoverageBudget():
            return f"{limit} to {tokens(lambda one: one.most_limit)} tokens by a group's difficulty, as {apart or 'nothing'} shows"
        case budgets.ToggleBudget():
            first = next((f"from step {step}" for step in range(recipe.train.steps) if budget.limited(step)), "not in this run")
            return (
                f"in every second {many(budget.period, 'step').removeprefix('1 ')} ({first}), percentile {budget.percentile:g} of right answers' lengths,"
                f" where at least {budget.accuracy:.0%} are right"
            )
        case budgets.ThinkingBudget():
            most = tokens(lambda one: one.closes(one.limit))
            if not in_advance(recipe):
                return f"{limit} tokens, of which thinking is closed after {most}"
            return f"thinking is closed after {budget.share:g} x what the other kinds leave, at most {most} tokens"
        case budgets.OutlierBudget():
            return f"in all-right groups, mean + {budget.alpha:g} deviations"
    return f"{limit} tokens, as rewards have it" if budget.room > 1 else ""


def _unless_moved(recipe: Recipe, name: str) -> str:
    """Behind a number as it is written: that it moves, where it does."""
    return " (as written, and moves)" if name in recipe.schedule else ""


def _denominator(recipe: Recipe) -> str:
    """What a choice of tokens leaves the loss divided by."""
    kept = isinstance(recipe.tokens, TokenSelection) and recipe.tokens.denominator == "kept"
    fixed = {
        "sequence_mean": f"each rollout's mean over {'those of its own that are kept' if kept else 'all of its own'}, then one over rollouts",
        "constant": "divided by rollouts x budget.limit all the same",
        "sequence_sum": "a mean over rollouts of their sums all the same",
    }
    return fixed.get(recipe.objective.aggregate, f"a mean over {'them' if kept else 'all'}")


def _credit_words(recipe: Recipe) -> str:
    """Which tokens get a rollout's advantage, where it is not all alike."""
    match recipe.credit:
        case credit.ThrCredit(steer=steer):
            rest = f"; what raises the likelihood of right answers counts {1 + steer:g}, what lowers it {1 - steer:g}" if steer else ""
            return f"to tokens that move the likelihood of the prompt's right answers, none to the others{rest}"
        case credit.NthrCredit():
            return "less to tokens of wrong answers that lower the likelihood of the prompt's right ones"
        case credit.EntropyCredit(weight=weight, most=most):
            return f"{weight:g} x entropy more, at most {1 / most:.0%} of the advantage"
        case credit.ClipCovCredit(share=share):
            return f"none to {share:.2%} of an update's tokens, drawn among those of large covariance of advantage and logprob"
        case credit.KlCovCredit(share=share):
            return f"all alike; {share:.2%} of an update's tokens, those of largest covariance of advantage and logprob, pay for moving"
        case credit.GtpoCredit(level=level):
            return f"by entropy of each {'token' if level == 'token' else 'rollout'}: more to hesitant right ones, less to sure wrong ones"
        case credit.DrpoCredit():
            return "right answers by their length among themselves, wrong ones by their likelihood; none without both"
        case credit.DecsCredit(beta=beta):
            return f"right answers 1 + {beta:g} at each position, less where they think on behind the gold; less the group's mean there, over its spread"
        case credit.EfficiencyCredit(weight=weight):
            return f"{weight:g} less, and never more than 0, to what right answers think behind the gold"
    return ""


def _moving(recipe: Recipe) -> list[str]:
    """Each scheduled number wherever it changes; of many changes, the first, one between and the last."""
    lines = []
    for name in recipe.schedule:
        shown: list[tuple[float, int]] = []
        for step, value in enumerate(recipe.by_step(name)):
            if not shown or value != shown[-1][0]:
                shown.append((value, step))
        several = shown if len(shown) <= 5 else [shown[0], shown[len(shown) // 2], shown[-1]]
        lines.append(f"{name} {', '.join(f'{value:g} from step {step}' for value, step in several)}")
    return lines


def _eval_words(recipe: Recipe) -> str:
    settings = recipe.eval
    endless = [one.source for one in recipe.held_out_sets] == ["tiny"] and not settings.benchmarks
    problems = f"{settings.problems} problems{'' if endless else ', or all,'}" if settings.problems else "all problems"
    when = ["before and after training" if recipe.trains else "once"] if recipe.stages[-1].kind == "eval" else []
    when += [f"every {many(settings.every, 'step').removeprefix('1 ')}"] if evaluated_after(recipe) else []
    samples = f"{settings.samples} samples of at most {settings.max_tokens:,} tokens at T {settings.temperature:g}"
    again = "".join(f", once more {_asked_words(budget, settings.samples)}" for budget in settings.budgets)
    return f"{problems} of {', '.join(recipe.held_out_names)} x {samples}, {', and '.join(when) or 'never: eval.every is more than train.steps'}{again}"


def _stated_words(part: StagePlan, trained: Plan | None) -> str:
    """Which limit the prompts of a stage's evaluations state, as launch.engines.stating has it; "" where they state none."""
    if "{budget}" not in part.recipe.data.instruction:
        return ""
    own = any(within(key, ["budget.limit", "schedule.budget.limit"]) for key in changed(part.step.stage.said))
    recipe = part.recipe if trained is None or own else trained.recipe
    moved = ", or what the controller leaves of it" * ("controller" in recipe.budget.kinds and recipe.trains)
    return f"; prompts state {recipe.at(recipe.train.steps).budget.limit:,} tokens{moved}"


def _asked_words(budget: BudgetAt, samples: int) -> str:
    if isinstance(budget, ShortOf):
        return f"as short-{budget.first}@{budget.of}, {many(max(1, samples // budget.of), 'vote')} a problem"
    if isinstance(budget, ExtendedTo):
        return f"at {budget.limit:,} tokens extended, told {budget.word!r} at most {many(budget.waits, 'time')} where thinking would end before"
    return f"at {budget.limit:,} tokens {budget.kind}"


def _actor_words(plan: Plan) -> list[str]:
    lines = []
    for actor in plan.actors:
        on = many(actor.threads, "thread")
        if actor.gpus:
            on = "part of GPU" if plan.placement.shared else many(int(actor.gpus), "GPU")
        unknown = ", model unknown" if plan.shape is None and actor.name in ("engine", "learner") else ""
        words = held_words(actor.holds) + unknown
        words += f"; at rest: {held_words(actor.rests)}" if actor.rests else ""
        words += f"{'; main memory: ' if words else ''}{held_words(actor.host)}" if actor.host else ""
        lines.append(f"{actor.count:>3} x {actor.name:<8} {on:<11} {size(actor.bytes if actor.gpus else actor.main_memory):>8}: {words}")
    needed = plan.placement.total_gpus
    lines += [f"turns    {words}" for words in _turn_words(plan)]
    lines.append(f"total    main memory {size(host_bytes(plan.actors, plan.placement))}{', ' + many(needed, 'GPU') if needed else ''}")
    return lines


def _machine_words(plan: Plan) -> list[str]:
    """What this machine has, and the nodes beside it."""
    assumed = f" (sizes are those on GPUs of {size(plan.assumed)}: --gpu-gb says others)" if plan.assumed else ""
    lines = [f"here     {plan.machine.cores} cores, {size(plan.machine.memory)} free, {_gpu_words(plan.machine.gpus)}{assumed}"]
    alike: dict[tuple[int, str], list[int]] = {}
    for node in plan.others:
        alike.setdefault((node.cores, _gpu_words(node.gpus)), []).append(node.memory)
    for (cores, gpus), free in alike.items():
        least = "at least " * (len(set(free)) > 1)
        lines.append(f"beside   {len(free)} x ({cores} cores, {least}{size(min(free))} free, {gpus})")
    return lines


def _gpu_words(gpus: tuple[int, ...]) -> str:
    """How many GPUs there are of each size; 0: of which it is not known."""
    counts = Counter(size(gpu) if gpu else "unknown size" for gpu in gpus)
    return " + ".join(f"{many(count, 'GPU')} of {words}" for words, count in counts.items()) or "no GPU"


def _turn_words(plan: Plan) -> Iterator[str]:
    """What is on a GPU in each turn, where engines and ranks take turns."""
    if not plan.turns:
        return
    users = [actor for actor in plan.actors if actor.rests is not None]
    for whose, does in zip(users, ("engines sample", "the learner works"), strict=True):
        parts = [(actor.name, actor.bytes if actor is whose else sum((actor.rests or {}).values())) for actor in users]
        held = [(name, plan.placement.on_a_gpu(name) * count) for name, count in parts]
        words = " + ".join(f"{name}{'s' if plan.placement.on_a_gpu(name) > 1 else ''} {size(count)}" for name, count in held)
        yield f"while {does}, a GPU holds {words} = {size(sum(count for _, count in held))}"
