"""`laconic eval --engine-url`: held-out problems answered by somebody else's server, judged, counted and kept as those of our own engines are.

What differs: nothing is started here, so nothing of this machine is planned. A checkpoint, if one is named, lends its tokenizer and chat template only.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from launch.doors import say
from launch.evaluate import Question, commits, do, folder_of, prepared, recipe_for, template_of
from rollout.api import KEY, Api, ServerError


def evaluate_server(
    url: str,
    model: str,
    checkpoint: str | None,
    question: Question,
    folder: Path | None,
    overwrite: bool,
    console: Console,
    show_prompt: bool = False,
    at_once: int = 64,
) -> None:
    """Evaluate the model of a server; see launch.evaluate.evaluate_checkpoints. The key, if it wants one, is in the environment (rollout.api.KEY).

    Args:
        model: as the server calls it; "": the only one that it has.
        checkpoint: what the server's model was made of, None if it is not at hand.
        at_once: samples that are asked for at a time.

    Raises:
        ValueError: `url` is no address, or the key no key.
        RecipeError, DataError, TemplateError, ServerError, FileExistsError, FileNotFoundError: as evaluate_checkpoints does.
    """
    api = Api(url, os.environ.get(KEY, ""), at_once)
    recipe, own = recipe_for(checkpoint, question)
    if any(budget.kind == "short" for budget in recipe.eval.budgets):
        raise ServerError(
            f"{api.url}: answers of a server are not streamed, so no chain can be stopped: leave out --short; the report counts votes of stored samples"
        )
    if question.logprobs:
        raise ServerError(f"{api.url}: logprobs of a server are of nobody knows which distribution: leave out --logprobs")
    from launch.plan_thinking import forces_thinking
    from launch.problems import held_out
    from launch.stages import starting_checkpoint
    from rewards.verifier.judge import Judge
    from rollout.closing import closing_outside
    from rollout.engine import Pool
    from rollout.server import ServerPool

    known = None
    if checkpoint:
        start = starting_checkpoint(recipe, weights=False)
        known = template_of(start, recipe, own, folder_of(checkpoint, folder), question, overwrite)
    with ServerPool(api, model, known, recipe.data) as pool:
        pool.meet()
        say(f"{pool.words}; lengths are {pool.lengths}", console)
        template, forces = pool.template, forces_thinking(recipe)
        if forces and not pool.takes_ids:
            raise ServerError(
                f"{url} takes no token ids, so no thinking can be closed: leave out forced and extended budgets, or name the checkpoint that its model was made of"
            )
        name = checkpoint or pool.model
        target = folder_of(name, folder)
        with Judge(recipe.judge.workers, recipe.judge.wall_s, recipe.judge.memory_mb) as judge:
            read = held_out(recipe, judge, commits(own, target, overwrite))
            engine: Pool = closing_outside(pool, template) if forces else pool
            asked = prepared(name, target, template, recipe, read, question, lambda _: nullcontext(engine), show_prompt, engine=pool.words)
            do([asked], judge, console, overwrite, show_prompt)
