"""`laconic eval --engine-url`: held-out problems answered by somebody else's server, judged, counted and kept as those of our own engines are.

What differs: nothing is started here, so nothing of this machine is planned. A checkpoint, if one is named, lends its tokenizer and chat template only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from launch.evaluate import print_prompts, print_scores, protocol, recipe_of, refuse_earlier, settings_of
from recipes.loader import load
from rollout.api import KEY, Api


def evaluate_server(
    url: str,
    model: str,
    checkpoint: str | None,
    overrides: list[str],
    folder: Path | None,
    overwrite: bool,
    console: Console,
    lenient: bool = False,
    benchmarks: Sequence[str] = (),
    show_prompt: bool = False,
    at_once: int = 64,
) -> None:
    """Evaluate the model of a server; see launch.evaluate.evaluate_checkpoint. The key, if it wants one, is in the environment (rollout.api.KEY).

    Args:
        model: as the server calls it; "": the only one that it has.
        checkpoint: what the server's model was made of, None if it is not at hand.
        at_once: samples that are asked for at a time.

    Raises:
        ValueError: `url` is no address, or the key no key.
        RecipeError, DataError, TemplateError, ServerError, FileExistsError, FileNotFoundError: as evaluate_checkpoint does.
    """
    api = Api(url, os.environ.get(KEY, ""), at_once)
    own, changes = recipe_of(Path(checkpoint).expanduser()) if checkpoint else (None, [])
    named = [f"model.path={json.dumps(checkpoint)}"] if checkpoint else []
    recipe = load(str(own) if own else "evaluate", None, [*changes, *named, "stages=[eval]", *protocol(benchmarks), *overrides])
    from evaluation.evaluate import evaluate, read_stated, write_scores
    from launch.engines import left, stating
    from launch.problems import file_names, fitting, held_out, list_left_out
    from launch.stages import starting_checkpoint
    from rewards.verifier.judge import Judge
    from rl.progress import Progress
    from rl.run import prompt_date
    from rollout.scorer import Scorer
    from rollout.server import ServerPool
    from rollout.template import load_template

    known = None
    if checkpoint:
        start = starting_checkpoint(recipe, weights=False)
        known = stating(load_template(start, recipe.data, prompt_date(own.parent if own else Path())), recipe, left(start))
    with ServerPool(api, model, known, recipe.data) as pool:
        pool.meet()
        console.print(f"{pool.words}; lengths are {pool.lengths}", highlight=False, markup=False, soft_wrap=True)
        target = folder or Path("evals") / (checkpoint or pool.model).strip("./~").replace("/", "-")
        if not show_prompt:
            refuse_earlier([target / f"{name}.json" for name in file_names(recipe.held_out_names)], overwrite)
        with Judge(recipe.judge.workers, recipe.judge.wall_s, recipe.judge.memory_mb) as judge:
            parts = [fitting(part, pool.template, recipe.data.max_prompt_tokens) for part in held_out(recipe, judge)]
            if show_prompt:
                print_prompts(console, pool.template, parts)
                return
            scorer = Scorer(judge, pool.template)
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
                    target, name, groups, checkpoint=checkpoint or pool.model, step=0, source=part.name, settings=settings,
                    seed=recipe.seed, engine=pool.words, template=pool.template, lenient=lenient,
                )  # fmt: skip
                print_scores(console, part.name, scores, target / f"{name}.json", lenient)
