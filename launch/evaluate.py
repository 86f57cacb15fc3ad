"""`laconic eval`: a checkpoint's accuracy and tokens on held-out problems, by the same route as inside a run.

What differs is the setting of benchmarks: here each has its own samples and the protocol that published numbers have, in a run the recipe's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from launch.plan import check_runnable, plan
from recipes.loader import load
from recipes.schema import Eval
from recipes.steps import steps
from rollout.records import CHARACTERS

if TYPE_CHECKING:  # they import transformers
    from evaluation.results import Evaluation
    from launch.problems import HeldOut
    from rollout.template import Template


def evaluate_checkpoint(
    checkpoint: str,
    overrides: list[str],
    folder: Path | None,
    overwrite: bool,
    console: Console,
    lenient: bool = False,
    benchmarks: Sequence[str] = (),
    show_prompt: bool = False,
) -> None:
    """Evaluate and print; scores and samples go to `folder` (default: evals/CHECKPOINT in the working directory).

    A checkpoint inside a run is evaluated with the run's own recipe, any other with the recipe `evaluate`.

    Args:
        lenient: answers that are stated without a box are read, too, and both rates reported.
        benchmarks: taken in place of eval.data with the protocol of R1 (`protocol`), of which overrides may change any part.
        show_prompt: print the first prompt of each set as the model sees it, and sample nothing.

    Raises:
        RecipeError, PlanError, DataError, TemplateError, EngineError: one clear sentence each.
        FileExistsError: the folder holds results of the same name, and `overwrite` is off.
        FileNotFoundError: a hub model that cannot be had.
    """
    own, changes = recipe_of(Path(checkpoint).expanduser())
    asked = [*changes, f"model.path={json.dumps(checkpoint)}", "stages=[eval]", *protocol(benchmarks), *overrides]
    recipe = load(str(own) if own else "evaluate", None, asked)
    made = plan(recipe)
    check_runnable(made)  # what cannot work is said before torch takes seconds to load
    recipe = made.recipe
    from evaluation.evaluate import evaluate, read_stated, write_scores
    from launch.engines import engines, left, rehearsed, stating
    from launch.problems import file_names, fitting, held_out, list_left_out
    from launch.stages import planned_with, settle_device, starting_checkpoint
    from rewards.verifier.judge import Judge
    from rl.progress import Progress
    from rl.run import prompt_date
    from rollout.scorer import Scorer
    from rollout.template import load_template

    target = folder or Path("evals") / checkpoint.strip("./~").replace("/", "-")
    if not show_prompt:
        refuse_earlier([target / f"{name}.json" for name in file_names(recipe.held_out_names)], overwrite)
    settle_device(made)
    with Judge(recipe.judge.workers, recipe.judge.wall_s, recipe.judge.memory_mb) as judge:
        parts = held_out(recipe, judge)
        start = starting_checkpoint(recipe)
        made = planned_with(start, made)
        template = stating(load_template(start, recipe.data, prompt_date(own.parent if own else Path())), recipe, left(start))
        for words in template.remarks:
            console.print(words, highlight=False)
        parts = [fitting(part, template, recipe.data.max_prompt_tokens) for part in parts]
        if show_prompt:
            print_prompts(console, template, parts)
            return
        with engines(made, start, template) as pool:
            pool.wait_ready()
            rehearsed(made, pool, template, [template.prompt_ids(problem) for problem in parts[0].problems[:16]])
            scorer = Scorer(judge, template)
            for part, name in zip(parts, file_names([part.name for part in parts]), strict=True):
                settings = settings_of(part, recipe.eval, benchmarks, overrides)
                with Progress(part.name, len(part.problems)) as progress:
                    for words in part.said:
                        progress.message(words)
                    list_left_out(progress, target / f"{name}.left_out.jsonl", part.name, part.left_out)
                    progress.phase("evaluate")
                    groups = evaluate(pool, scorer, part.problems, settings, recipe.seed, progress.count)
                    if lenient:
                        read_stated(groups, scorer)
                scores = write_scores(
                    target, name, groups, checkpoint=checkpoint, step=0, source=part.name, settings=settings, seed=recipe.seed,
                    engine=recipe.engine.kind, template=template, lenient=lenient,
                )  # fmt: skip
                print_scores(console, part.name, scores, target / f"{name}.json", lenient)


def protocol(benchmarks: Sequence[str]) -> list[str]:
    """Overrides for an evaluation on benchmarks with the settings of DeepSeek-R1; none without benchmarks."""
    from evaluation.benchmarks import LONGEST_PROMPT, PROTOCOL

    if not benchmarks:
        return []
    settings = [f"eval.{key}={value}" for key, value in PROTOCOL.items()]
    return ["eval.data=[]", f"eval.benchmarks={json.dumps(list(benchmarks))}", f"data.max_prompt_tokens={LONGEST_PROMPT}", *settings]


def settings_of(part: HeldOut, settings: Eval, benchmarks: Sequence[str], overrides: Sequence[str]) -> Eval:
    """An evaluation's settings for one of its sets: of `benchmarks`, each has its own samples unless overrides say how many."""
    said = any(word.startswith("eval.samples=") for word in overrides)
    return settings if said or not benchmarks or part.samples is None else settings.model_copy(update={"samples": part.samples})


def print_prompts(console: Console, template: Template, parts: Sequence[HeldOut]) -> None:
    """The first prompt of each set, special tokens and all, and what answers it."""
    for part in parts:
        problem = part.problems[0]
        ids = template.prompt_ids(problem)
        head = f"{part.name}: {problem.id}, {len(ids)} tokens, gold {' or '.join(problem.golds)}"
        text = template.tokenizer.decode(list(ids), skip_special_tokens=False)
        console.print(f"{head}\n{text}", highlight=False, markup=False, soft_wrap=True)


def recipe_of(checkpoint: Path) -> tuple[Path | None, list[str]]:
    """The recipe of the run that a checkpoint lies in, None outside of any, and the changes of the stage that made it, as `key=value`."""
    run = checkpoint.absolute().parent.parent  # of RUN/checkpoints/step-N; of RUN/stages/NAME/checkpoint it is RUN/stages
    if run.name == "stages" and not (run / "recipe.yaml").is_file():
        run = run.parent
    if not (file := run / "recipe.yaml").is_file():
        return None, []
    inside = [
        step for step in steps(load(str(file))) if checkpoint.absolute().parent in (step.folder(run), step.folder(run) / "checkpoints")
    ]
    return file, [f"{key}={json.dumps(value)}" for step in inside for key, value in step.stage.said.items()]


def refuse_earlier(files: list[Path], overwrite: bool) -> None:
    for file in files:
        if file.exists() and not overwrite:
            raise FileExistsError(f"{file} holds earlier results: replace them (--overwrite) or choose another folder (--out)")


def print_scores(console: Console, source: str, scores: Evaluation, file: Path, lenient: bool) -> None:
    """What is to be said against an evaluation, its table, and where it was written."""
    from evaluation.words import warnings

    for warning in warnings(scores, lenient):
        console.print(f"[yellow]warning:[/yellow] {escape(f'{source}: {warning}')}", highlight=False, soft_wrap=True)
    console.print(_table(source, scores))
    console.print(f"{file}", highlight=False)


def _table(source: str, scores: Evaluation) -> Table:
    accuracy, tokens = scores.accuracy, scores.tokens
    settings = scores.settings
    unit = settings.template if settings.template == CHARACTERS else "tokens"
    sampled = "" if settings.temperature is None else f", T {settings.temperature}, at most {settings.max_tokens} tokens"
    table = Table(
        title=f"{source}: {scores.problems} problems x {scores.samples} samples{sampled}",
        box=None, pad_edge=False, title_justify="left",
    )  # fmt: skip
    for column in ("", "value", "95 % interval"):
        table.add_column(column)
    table.add_row("accuracy", f"{accuracy.mean:.1%}", f"{accuracy.low:.1%} .. {accuracy.high:.1%}")
    if stated := scores.stated:
        table.add_row("accuracy with stated answers", f"{stated.mean:.1%}", f"{stated.low:.1%} .. {stated.high:.1%}")
    low, high = tokens.low, tokens.high
    table.add_row(unit, f"{tokens.mean:.1f}", "" if low is None else f"{low:.1f} .. {high:.1f}")
    for name in ("right", "wrong", "truncated"):
        mean = getattr(tokens, name)
        table.add_row(f"{unit} of {name}", "none" if mean is None else f"{mean:.1f}", "")
    for name in ("truncated", "no_answer", "not_judged"):
        table.add_row(f"share {name.replace('_', ' ')}", f"{getattr(scores, name):.1%}", "")
    for point in scores.budget_curve[4::5]:
        table.add_row(f"accuracy within {point.budget} {unit}", f"{point.accuracy:.1%}", "cut after the fact")
    return table
