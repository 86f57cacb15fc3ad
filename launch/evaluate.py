"""`laconic eval`: accuracy and tokens of checkpoints on held-out problems, by the same route as inside a run.

Checkpoints, sources and budgets are one job: all is read and checked before the first engine starts, each checkpoint's engines start once, and one
view says how far it is. What differs from a run is the setting of benchmarks: here each has its own samples and the protocol that published
numbers have, in a run the recipe's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.markup import escape

from launch.doors import say
from launch.plan import Plan, check_runnable, plan
from recipes.loader import load, recorded
from recipes.schema import Recipe
from recipes.stages import changed
from recipes.steps import steps
from recipes.tree import override

if TYPE_CHECKING:  # they import transformers
    from evaluation.evaluate import Asked
    from evaluation.results import Evaluation
    from evaluation.tables import Table
    from launch.problems import HeldOut
    from rewards.verifier.judge import Judge
    from rl.progress import Progress
    from rollout.engine import Pool
    from rollout.template import Template


@dataclass(frozen=True)
class Question:
    """What is asked of every checkpoint.

    Attributes:
        overrides: changes to its recipe.
        benchmarks: taken in place of eval.data with the protocol of R1 (`protocol`), of which overrides may change any part.
        lenient: answers that are stated without a box are read, too, and both rates reported.
        natural: also without any of the budgets.
        logprobs: are kept, so that the best of several samples can be told.
    """

    overrides: Sequence[str] = ()
    benchmarks: Sequence[str] = ()
    lenient: bool = False
    natural: bool = True
    logprobs: bool = False

    @property
    def keys(self) -> list[str]:
        """That the overrides set."""
        return [key for word in self.overrides for key in changed(override(word).data)]

    @property
    def own_samples(self) -> bool:
        """Of a problem of a benchmark, as many as its protocol takes."""
        return bool(self.benchmarks) and "eval.samples" not in self.keys


@dataclass(frozen=True)
class Job:
    """A checkpoint, or a server's model, that is ready to be evaluated.

    Attributes:
        checkpoint: as it was named.
        folder: of its files.
        parts: its problems.
        asked: all evaluations of it.
        pool: what samples, for as long as its context lasts, asked with its problems.
    """

    checkpoint: str
    folder: Path
    template: Template
    parts: list[HeldOut]
    asked: list[Asked]
    pool: Callable[[Sequence[HeldOut]], AbstractContextManager[Pool]]


def evaluate_checkpoints(
    checkpoints: Sequence[str], question: Question, out: Path | None, overwrite: bool, console: Console, show_prompt: bool = False
) -> None:
    """Evaluate and print; scores and samples of each go to a folder of its own (`folders`). What is there already is not sampled again.

    A checkpoint inside a run is evaluated with the run's own recipe, any other with the recipe `evaluate`.

    Args:
        show_prompt: print the first prompt of each set as the model sees it, and sample nothing.

    Raises:
        RecipeError, PlanError, DataError, TemplateError, EngineError: one clear sentence each.
        FileExistsError, OtherParts: a folder holds results or samples of other settings, problems or weights, and `overwrite` is off.
        FileNotFoundError: a hub model that cannot be had.
        ValueError: two checkpoints are one, or would share a folder; nothing would be sampled.
    """
    with jobs(folders(checkpoints, out), question, overwrite, show_prompt) as (judge, ready):
        do(ready, judge, console, overwrite, show_prompt)


def do(ready: Sequence[Job], judge: Judge, console: Console, overwrite: bool, show_prompt: bool) -> None:
    """Make the evaluations of these jobs, or what is left of them, and print; see `evaluate_checkpoints`."""
    from evaluation.evaluate import waiting
    from launch.problems import file_names, left_out_words, list_left_out
    from rl.progress import Progress

    for words in dict.fromkeys(words for job in ready for words in job.template.remarks):
        say(words, console)
    if show_prompt:
        read = [words for job in ready for part in job.parts for words in (*part.said, *left_out_words(part.name, part.left_out))]
        for words in dict.fromkeys(read):  # checkpoints share them
            say(words, console)
        for job in ready:
            print_prompts(console, job.template, job.asked)
        return
    total = sum(one.parts.rollouts for job in ready for one in job.asked)
    with Progress("eval", total, console=console) as progress:
        for job in ready:
            for part, name in zip(job.parts, file_names([part.name for part in job.parts]), strict=True):
                for words in part.said:
                    progress.message(words)
                list_left_out(progress, job.folder / f"{name}.left_out.jsonl", part.name, part.left_out)
        left = [waiting(job.asked, progress.message, overwrite) for job in ready]  # refused before any engine starts
        done = total - sum(one.parts.rollouts for some in left for one in some)
        for job, some in zip(ready, left, strict=True):
            for one in job.asked:
                if one not in some and (before := one.found()):
                    progress.message(f"made before: {one.label}")
                    print_scores(progress.show, one.label, before, one.scores)
            for one, scores in evaluated(job, some, judge, progress, done, total):
                print_scores(progress.show, f"{job.checkpoint} on {one.label}", scores, one.scores)
            done += sum(one.parts.rollouts for one in some)
    for job in ready:
        for part in job.parts:
            _print_budgets(console, [one for one in job.asked if one.source == part.name])


@contextmanager
def jobs(
    where: Mapping[str, Path], question: Question, anew: bool = False, prompts_only: bool = False
) -> Iterator[tuple[Judge, list[Job]]]:
    """The judge, and each checkpoint with its recipe, plan, problems, weights and evaluations, checked; nothing is started but the judge.

    Args:
        where: the folder of each checkpoint's files.
        anew: what lies there is not gone on with.
        prompts_only: nothing will be sampled, so whether a model fits, and its prompts, is not asked, nor for its weights.

    Raises:
        ValueError: their runs judged within different limits.
    """
    recipes = {checkpoint: recipe_for(checkpoint, question) for checkpoint in where}
    limits = {
        f"judge.wall_s={recipe.judge.wall_s:g} judge.memory_mb={recipe.judge.memory_mb}": name for name, (recipe, _) in recipes.items()
    }
    if len(limits) > 1 and not prompts_only:
        found = " and ".join(f"{name} has {words}" for words, name in limits.items())
        raise ValueError(f"what is judged within different limits does not compare: {found}; say one for all (`{next(iter(limits))}`)")
    plans = {checkpoint: plan(recipe) for checkpoint, (recipe, _) in recipes.items()}
    for made in plans.values() if not prompts_only else ():
        check_runnable(made)  # what cannot work is said before torch takes seconds to load
    from launch.engines import closing
    from launch.problems import held_out
    from launch.stages import planned_with, settle_device, starting_checkpoint
    from rewards.verifier.judge import Judge
    from rl.start import fingerprint

    first = next(iter(plans.values()))
    settle_device(first)
    with Judge(first.recipe.judge.workers, first.recipe.judge.wall_s, first.recipe.judge.memory_mb) as judge:
        read: dict[str, list[HeldOut]] = {}
        ready = []
        for checkpoint, made in plans.items():
            recipe, folder, own = made.recipe, where[checkpoint], recipes[checkpoint][1]
            held = commits(own, folder, anew)
            key = recipe.model_copy(update={"model": recipe.model.model_copy(update={"path": ""})}).model_dump_json() + json.dumps(held)
            if key not in read:
                read[key] = held_out(recipe, judge, held)
            start = starting_checkpoint(recipe, weights=not prompts_only)
            made = made if prompts_only else planned_with(start, made)
            template = template_of(start, recipe, own, folder, question, anew)
            closing(recipe, template)  # refused before anything starts
            pool = partial(_engines, made, start, template)
            ready.append(
                prepared(checkpoint, folder, template, recipe, read[key], question, pool, prompts_only, weights=fingerprint(start))
            )
        yield judge, ready


def commits(own: Path | None, folder: Path, anew: bool) -> dict[str, str]:
    """The commits of the hub's sets that are read: those of the run's evaluations and of what lies in the folder, if that is gone on with. `own`: see `recipe_for`."""
    from launch.evaluations import held_commits

    return {} if anew else (held_commits(own.parent / "evals") if own else {}) | held_commits(folder)


def template_of(start: Path, recipe: Recipe, own: Path | None, folder: Path, question: Question, anew: bool) -> Template:
    """The template of the checkpoint `start`, with the date of what lies in the folder, if that is gone on with, or of the run, and the limit that prompts state."""
    from launch.engines import stating
    from launch.evaluations import earlier_date
    from rl.environment import prompt_date
    from rl.state import left
    from rollout.template import load_template

    date = (None if anew else earlier_date(folder)) or prompt_date(own.parent if own else Path())
    return stating(load_template(start, recipe.data, date), recipe, question.keys, left(start))


def prepared(
    checkpoint: str, folder: Path, template: Template, recipe: Recipe, read: list[HeldOut], question: Question,
    pool: Callable[[Sequence[HeldOut]], AbstractContextManager[Pool]], prompts_only: bool, weights: str = "", engine: str = "",
) -> Job:  # fmt: skip
    """A checkpoint's evaluations on the problems that were read, without those whose prompts are too long, unless it is asked for prompts only."""
    from launch.evaluations import evaluations, fit

    parts = read if prompts_only else [fit(part, template, recipe) for part in read]
    asked = evaluations(
        parts, recipe, template, folder, checkpoint=checkpoint, weights=weights, engine=engine, lenient=question.lenient,
        own_samples=question.own_samples, ranked=question.logprobs,
    )  # fmt: skip
    return Job(checkpoint, folder, template, parts, [one for one in asked if question.natural or one.settings.budget], pool)


@contextmanager
def _engines(made: Plan, start: Path, template: Template, parts: Sequence[HeldOut]) -> Iterator[Pool]:
    from launch.engines import closer, sampling

    with sampling(made, start, template, [template.prompt_ids(problem) for problem in parts[0].problems[:16]]) as pool:
        yield closer(pool, made.recipe, template)


def evaluated(
    job: Job, asked: Sequence[Asked], judge: Judge, progress: Progress, done: int, total: int
) -> Iterator[tuple[Asked, Evaluation]]:
    """Make these evaluations of a job with engines of its own, started only if there are any.
    `done`, `total`: rollouts of all jobs: those of evaluations that are made, and all."""
    from evaluation.evaluate import evaluate
    from rollout.scorer import Scorer

    if not asked:
        return
    progress.phase(f"{job.checkpoint}: start engines")
    with job.pool(job.parts) as pool:
        progress.phase(job.checkpoint)
        yield from evaluate(asked, pool, Scorer(judge, job.template), lambda count, _: progress.count(done + count, total))


def recipe_for(checkpoint: str | None, question: Question) -> tuple[Recipe, Path | None]:
    """The recipe that a checkpoint, or a model without one, is evaluated with, and the run's that it comes from, if it does from any.

    Raises:
        RecipeError: it does not load.
        ValueError: without the natural evaluation there is none.
    """
    own, changes = recipe_of(Path(checkpoint).expanduser()) if checkpoint else (None, [])
    named = [f"model.path={json.dumps(checkpoint)}"] if checkpoint else []
    asked = [*changes, *named, "stages=[eval]", *protocol(question.benchmarks), *question.overrides]
    recipe = load(str(own) if own else "evaluate", None, asked)
    if not question.natural and not recipe.eval.budgets:
        raise ValueError("--no-natural: leaves nothing to do without budgets; name some (--forced 1024, --requested 2048)")
    return recipe, own


def folder_of(model: str, out: Path | None, alone: bool = True) -> Path:
    """Where the files of a model's evaluations go: `out`, if it is alone there, else a folder of its own in it; by default in evals/ of the working directory."""
    return out if out and alone else (out or Path("evals")) / model.strip("./~").replace("/", "-")


def folders(checkpoints: Sequence[str], out: Path | None) -> dict[str, Path]:
    """Where the files of each checkpoint go (`folder_of`). Raises ValueError: two checkpoints are one, or would share a folder."""
    found: dict[str, Path] = {}
    for checkpoint in checkpoints:
        folder = folder_of(checkpoint, out, len(checkpoints) == 1)
        for other, taken in found.items():
            if Path(other).expanduser().absolute() == Path(checkpoint).expanduser().absolute():
                raise ValueError(f"{checkpoint}: named twice; name each checkpoint once")
            if taken == folder:
                raise ValueError(f"{other} and {checkpoint} would share the folder {folder}: evaluate one at a time, with --out")
        found[checkpoint] = folder
    return found


def budgets(forced: list[int], extended: list[str], requested: list[int], short: list[str]) -> list[dict[str, Any]]:
    """What eval.budgets is to be. Raises ValueError: one of `extended` is not N@TOKENS[:WORD], or of `short` not M@K."""
    limited: list[dict[str, Any]]
    limited = [{"kind": kind, "limit": limit} for kind, limits in (("forced", forced), ("requested", requested)) for limit in limits]
    for said in extended:
        if (found := re.fullmatch(r"(\d+)@(\d+)(?::(.+))?", said, re.DOTALL)) is None:
            raise ValueError(
                f"--extended {said}: not N@TOKENS; 2@4096 tells thinking that ends before 4,096 tokens to go on, twice, and 2@4096:Hmm by another word"
            )
        limited.append({"kind": "extended", "waits": int(found[1]), "limit": int(found[2])} | ({"word": found[3]} if found[3] else {}))
    for said in short:
        if (found := re.fullmatch(r"(\d+)@(\d+)", said)) is None:
            raise ValueError(f"--short {said}: not M@K; 3@8 lets the first 3 of 8 chains vote")
        limited.append({"kind": "short", "first": int(found[1]), "of": int(found[2])})
    return limited


def protocol(benchmarks: Sequence[str]) -> list[str]:
    """Overrides for an evaluation on benchmarks with the settings of DeepSeek-R1; none without benchmarks."""
    from evaluation.benchmarks import LONGEST_PROMPT, PROTOCOL

    if not benchmarks:
        return []
    settings = [f"eval.{key}={value}" for key, value in PROTOCOL.items()]
    return ["eval.data=[]", f"eval.benchmarks={json.dumps(list(benchmarks))}", f"data.max_prompt_tokens={LONGEST_PROMPT}", *settings]


def print_prompts(console: Console, template: Template, asked: Sequence[Asked]) -> None:
    """The first prompt of each evaluation whose prompts differ, special tokens and all, and what answers it."""
    shown: set[tuple[int, ...]] = set()
    for one in asked:
        ids, problem = one.requests[0].prompt_ids, one.requests[0].problem
        if ids in shown:
            continue
        shown.add(ids)
        head = f"{one.label}: {problem.id}, {len(ids)} tokens, gold {' or '.join(problem.golds)}"
        text = template.tokenizer.decode(list(ids), skip_special_tokens=False)
        say(f"{head}\n{text}", console)


def recipe_of(checkpoint: Path) -> tuple[Path | None, list[str]]:
    """The recipe of the run that a checkpoint lies in, None outside of any, and the changes that an eval directly behind the stage that made it sees, those
    of an rl stage, as `key=value`."""
    run = checkpoint.absolute().parent.parent  # of RUN/checkpoints/step-N; of RUN/stages/NAME/checkpoint it is RUN/stages
    if run.name == "stages" and not (run / "recipe.yaml").is_file():
        run = run.parent
    if not (file := run / "recipe.yaml").is_file():
        return None, []
    inside = [
        step for step in steps(recorded(run)) if step.recipe.trains and checkpoint.absolute().parent == step.folder(run) / "checkpoints"
    ]
    return file, [f"{key}={json.dumps(value)}" for step in inside for key, value in step.stage.said.items()]


def print_scores(show: Callable[[RenderableType], None], what: str, scores: Evaluation, file: Path) -> None:
    """What is to be said against an evaluation, its table if it is of no budget (those come in one table), and where it was written."""
    from evaluation.words import limit, warnings
    from launch.shown import Uncut

    settings = scores.settings
    for warning in warnings(scores, settings.lenient):
        show(f"[yellow]warning:[/yellow] {escape(f'{what}: {warning}')}")
    if settings.budget is None:
        sampled = "" if settings.temperature is None else f", T {settings.temperature}, at most {limit(settings)}"
        show(Uncut(f"{what}: {scores.problems} problems x {scores.samples} samples{sampled}", _table(scores)))
    show(escape(f"{file}"))


def _print_budgets(console: Console, asked: Sequence[Asked]) -> None:
    """What was found at each budget, one below the other; nothing without budgets."""
    from evaluation.budgets import table_of
    from launch.shown import Uncut

    if not any(one.settings.budget for one in asked):
        return
    found = [scores for one in asked if (scores := one.found())]
    console.print(Uncut(f"{asked[0].checkpoint} on {asked[0].source}", table_of(found)))


def _table(scores: Evaluation) -> Table:
    """Its numbers, and accuracy at smaller budgets, cut after the fact."""
    from evaluation import words
    from evaluation.tables import TOKEN_F1, Cell, Row, Table, bounds, length_bounds, overlap

    accuracy, length, unit = scores.accuracy, scores.tokens, scores.settings.unit
    values = {"accuracy": (words.percent(accuracy.mean), bounds(accuracy, 100, 1))}
    if stated := scores.stated:
        values["accuracy with stated answers"] = (words.percent(stated.mean), bounds(stated, 100, 1))
    if shared := scores.token_f1:
        values[TOKEN_F1] = overlap(shared)
    values[unit] = (words.tokens(length.mean), length_bounds(length))
    for name in ("right", "wrong", "truncated"):
        mean = getattr(length, name)
        values[f"{unit} of {name}"] = ("none" if mean is None else words.tokens(mean), "")
    for name in ("truncated", "no_answer", "not_judged"):
        values[f"share {name.replace('_', ' ')}"] = (words.percent(getattr(scores, name)), "")
    for point in scores.budget_curve[4::5]:
        values[f"accuracy within {point.budget:,} {unit}"] = (words.percent(point.accuracy), "cut after the fact")
    return Table(["value", "95 % interval"], [Row(label, [Cell(value), Cell(noise)]) for label, (value, noise) in values.items()])
