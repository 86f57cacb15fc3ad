"""Evaluation: a policy samples held-out problems, and every sample is judged, counted and kept.

Claim: one route. Evaluations inside a run and `laconic eval` go through `evaluate`, with the engines, template and judge
of training; what differs is who holds the weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from evaluation.scores import score
from recipes.schema import Eval
from rollout.collector import sampled, seed_of
from rollout.engine import EnginePool
from rollout.records import rows
from rollout.scorer import Scorer
from rollout.types import Group, Problem, Request


def evaluate(
    pool: EnginePool,
    scorer: Scorer,
    problems: Sequence[Problem],
    settings: Eval,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Group]:
    """Judged groups, one for each problem, of `settings.samples` rollouts for each row that asks it (sampled, not greedy), in the order of `problems`.

    Args:
        progress: called with (problems done, problems).
    """
    requests = [
        Request(
            id=f"eval:{index}:{problem.id}",
            problem=problem,
            prompt_ids=scorer.template.prompt_ids(problem),
            group_size=settings.samples * (problem.repeats if settings.temperature > 0 else 1),
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=seed_of(seed, "eval", index),
        )
        for index, problem in enumerate(problems)
    ]
    pool.submit(requests)
    by_id: dict[str, Group] = {}
    for group in sampled(pool, scorer):
        by_id[group.request.id] = group
        if progress:
            progress(len(by_id), len(requests))
    return [by_id[request.id] for request in requests]


def write_scores(
    folder: Path,
    name: str,
    groups: Sequence[Group],
    *,
    checkpoint: str,
    step: int,
    source: str,
    settings: Eval,
    seed: int,
    engine: str,
    template: str,
) -> dict:
    """Write `folder`/`name`.json and .parquet (docs/architecture.md) and return the scores."""
    shown = settings.model_dump(include={"temperature", "top_p", "max_tokens", "samples"}) | {
        "seed": seed,
        "engine": engine,
        "template": template,
    }
    scores = score(groups, checkpoint=checkpoint, step=step, source=source, settings=shown)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows(groups, step, template), folder / f"{name}.parquet")
    (folder / f"{name}.json").write_text(json.dumps(scores, indent=1))
    return scores
