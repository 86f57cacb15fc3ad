"""Evaluation: a policy samples held-out problems, and every sample is judged, counted and kept.

Claim: one route. Evaluations inside a run and `laconic eval` go through `evaluate`, with the engines, template and judge
of training; what differs is who holds the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.results import Evaluation, Settings
from evaluation.scores import score
from recipes.schema import Eval
from rewards.verifier.stated import block, stated
from rewards.verifier.verdict import best
from rollout.collector import sampled, seed_of
from rollout.engine import Pool
from rollout.records import rows
from rollout.scorer import Scorer
from rollout.template import Template
from rollout.types import Group, Problem, Request


def evaluate(
    pool: Pool,
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


def read_stated(groups: Sequence[Group], scorer: Scorer) -> None:
    """Judge answers that finished samples state without a box, as `rollout.stated`; verdicts on boxes stay what they are.

    Read is what stands behind the thinking. A sample that was cut off, or whose thinking never closed, has no answer here either.
    """
    waiting = []
    for rollout, golds in ((rollout, group.problem.golds) for group in groups for rollout in group.rollouts):
        if rollout.verdict is None or rollout.verdict.reason not in ("no box", "empty box") or rollout.completion.finish != "stop":
            continue
        text = scorer.template.text(rollout.completion, start=rollout.answer_start or 0)
        if answer := block(text) or stated(text):
            waiting.append((rollout, [scorer.judge.compare(gold=gold, answer=answer) for gold in golds]))
    for rollout, futures in waiting:
        rollout.stated = best([future.result() for future in futures])


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
    template: Template,
    lenient: bool = False,
) -> Evaluation:
    """Write `folder`/`name`.json and .parquet (docs/architecture.md) and return the scores; `lenient` after `read_stated`."""
    shown = Settings(
        **settings.model_dump(include={"temperature", "top_p", "max_tokens", "samples"}),
        seed=seed,
        engine=engine,
        template=template.digest,
        date=template.date,
        lenient=lenient,
    )
    table, asked = rows(groups, step, template.digest), [group.problem.id for group in groups]
    return write_table(folder, name, table, checkpoint=checkpoint, step=step, source=source, settings=shown, asked=asked)


def write_table(
    folder: Path, name: str, table: pa.Table, *, checkpoint: str, step: int, source: str, settings: Settings, asked: Sequence[str] = ()
) -> Evaluation:
    """Write `folder`/`name`.json and .parquet of judged samples, whoever made them, and return the scores. Raises as `score`."""
    found = score(table, checkpoint=checkpoint, step=step, source=source, settings=settings, asked=asked)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / f"{name}.parquet")
    (folder / f"{name}.json").write_text(found.model_dump_json(indent=1))
    return found
