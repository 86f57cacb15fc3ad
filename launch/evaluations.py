"""Evaluations of a checkpoint, put together once: for `laconic eval`, for eval stages, and for training, which holds engines and judge already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from evaluation.evaluate import COMMIT, DATE, SOURCE, Asked, requests, stating_of
from evaluation.results import Budget, Extended, Settings, ShortOf
from launch.problems import HeldOut, file_names, fitting
from recipes.schema import Recipe
from rollout.parts import read_made
from rollout.template import Template, TemplateError


def settings(recipe: Recipe, template: Template, *, samples: int | None = None, lenient: bool = False, engine: str = "") -> list[Settings]:
    """Of the natural evaluation, then of one at each of the recipe's budgets.

    Args:
        samples: of a problem; None: the recipe's.
        engine: what samples; "": the recipe's.
    """
    asked = recipe.eval
    natural = Settings(
        **asked.model_dump(include={"temperature", "top_p", "top_k", "max_tokens", "samples", "margin"})
        | ({"samples": samples} if samples else {}),
        seed=recipe.seed,
        engine=engine or recipe.engine.kind,
        template=template.digest,
        date=template.date,
        lenient=lenient,
        instruction=recipe.data.instruction or None,
        stated_limit=template.budget if "{budget}" in recipe.data.instruction else None,
    )
    made: dict[str, type[Budget | ShortOf]] = {"short": ShortOf, "extended": Extended}
    budgets = [made.get(one.kind, Budget).model_validate(one.model_dump()) for one in asked.budgets]
    stated = {"requested": None}  # where prompts say the budget
    return [
        natural,
        *(natural.model_copy(update={"budget": one, "stated_limit": stated.get(one.kind, natural.stated_limit)}) for one in budgets),
    ]


def fit(part: HeldOut, template: Template, recipe: Recipe) -> HeldOut:
    """The part without problems whose prompts are too long, whatever budget they state: all evaluations ask the same.

    Raises:
        DataError: none is left.
        TemplateError: the chat template leaves out what requests a budget.
    """
    for one in settings(recipe, template):
        stating = stating_of(template, one)
        part = fitting(part, stating, recipe.data.max_prompt_tokens)
        other = replace(stating, budget=stating.budget + 1)
        if stating is not template and stating.prompt_ids(part.problems[0]) == other.prompt_ids(part.problems[0]):
            raise TemplateError(
                "eval.budgets: the chat template leaves the request for a budget out, so no prompt would state it; take it out"
            )
    return part


def evaluations(
    parts: Sequence[HeldOut],
    recipe: Recipe,
    template: Template,
    folder: Path,
    *,
    checkpoint: str,
    step: int = 0,
    prefix: str = "",
    weights: str = "",
    lenient: bool = False,
    own_samples: bool = False,
    logprobs: bool = False,
    ranked: bool = False,
    engine: str = "",
) -> list[Asked]:
    """Every evaluation of a checkpoint on these sources, which fit (`fit`): each source's natural one and then its budgets.

    Args:
        folder: of their files, NAME[@BUDGET].json and so on (docs/architecture.md).
        prefix: of files inside a run, whose first source needs no name: `step-40`.
        lenient, engine: see `settings`.
        own_samples: of a problem of a benchmark, as many as its protocol takes.
        logprobs: engines report those of sampled tokens, which costs them time.
        ranked: they do, and all samples must have them.
    """
    found = []
    for index, (part, name) in enumerate(zip(parts, file_names([part.name for part in parts]), strict=True)):
        stem = name if not prefix else f"{prefix}-{name}" if index else prefix
        for one in settings(recipe, template, samples=part.samples if own_samples else None, lenient=lenient, engine=engine):
            called = stem + (f"@{one.budget.name}" if one.budget else "")
            one = one.model_copy(update={"revision": part.revision or None})
            questions = requests(called, part.problems, template, one, logprobs or ranked)
            found.append(Asked(folder / called, checkpoint, step, part.name, one, questions, weights, ranked))
    return found


def earlier_date(folder: Path) -> str | None:
    """The date that prompts of the samples in a folder state, since whoever goes on with them must state the same; None without samples."""
    return next((date for made in _made(folder) if (date := made.get(DATE))), None)


def held_commits(folder: Path) -> dict[str, str]:
    """The commits of the hub's sets, by source, that the samples in a folder are of: whoever goes on there asks the same."""
    found: dict[str, str] = {}
    for made in _made(folder):
        if made.get(SOURCE) and made.get(COMMIT):
            found.setdefault(made[SOURCE], made[COMMIT])
    return found


def _made(folder: Path) -> Iterator[dict[str, str]]:
    """How the samples in a folder were made, whole ones first."""
    for file in (*sorted(folder.glob("*.parquet")), *sorted(folder.glob("*.parts/part-*.parquet"))):
        with suppress(OSError, ValueError):
            yield read_made(file)
