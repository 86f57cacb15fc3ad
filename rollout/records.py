"""Records: judged rollouts as rows, one schema for training samples and for evaluations.

A row holds what a reader or a later recount needs (text, verdict, lengths) and what a replay needs (ids, logprobs);
nothing has to be tokenised or judged again. Simplification: one policy version a row, the oldest of its tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from rollout.types import Group, Rollout

BY_TOKEN = ("advantage", "weight", "entropy", "influence")  # of rollouts that trained, where measured

CHARACTERS = "characters"
"""What lengths are counted in where no tokens are known; all texts share it. Any other name for it is a tokenizer's, by hash or by name."""

SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("rollout", pa.string()),
        ("problem_id", pa.string()),
        ("family", pa.string()),
        ("level", pa.int64()),
        ("problem", pa.string()),
        ("answer", pa.string()),
        ("golds", pa.list_(pa.string())),
        ("sample", pa.int64()),
        ("text", pa.string()),
        ("tokens", pa.int64()),
        ("think_tokens", pa.int64()),
        ("finish", pa.string()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("extracted", pa.string()),
        ("audit", pa.string()),
        ("stated", pa.string()),
        ("score", pa.float64()),
        ("reward", pa.float64()),
        ("advantage", pa.float64()),
        ("limit", pa.int64()),
        ("version", pa.int64()),
        ("ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("sources", pa.list_(pa.int8())),
        ("redundant", pa.list_(pa.int32())),
        ("extra", pa.string()),
        *((f"token_{name}", pa.list_(pa.float32())) for name in BY_TOKEN),
    ]
)


def rows(groups: Iterable[Group], step: int, template: str) -> pa.Table:
    """One row a rollout, in the order of groups and samples; columns as docs/architecture.md lists them.

    `think_tokens` counts sampled tokens up to and with the closing think tag, null if thinking never closed. A rollout that no judge
    has seen is written as not judged, reason "never judged". `version` is null for a rollout without tokens, `logprobs` where the request
    asked for none.

    Args:
        template: hash of the chat template and tokenizer that made the ids; the table's metadata `template`.
    """
    table = pa.Table.from_pylist([_row(group, rollout, step) for group in groups for rollout in group.rollouts], schema=SCHEMA)
    return table.replace_schema_metadata({"template": template})


def _row(group: Group, rollout: Rollout, step: int) -> dict[str, Any]:
    problem, completion, verdict = group.problem, rollout.completion, rollout.verdict
    return {
        "step": step,
        "rollout": rollout.id,
        "problem_id": problem.id,
        "family": problem.family,
        "level": problem.level,
        "problem": problem.text,
        "answer": problem.answer,
        "golds": list(problem.golds),
        "sample": rollout.sample,
        "text": rollout.text,
        "tokens": rollout.tokens,
        "think_tokens": rollout.think_tokens,
        "finish": completion.finish,
        "verdict": verdict.status if verdict else "not_judged",
        "reason": verdict.reason if verdict else "never judged",
        "extracted": verdict.extracted if verdict else None,
        "audit": rollout.audit,
        "stated": rollout.stated.status if rollout.stated else None,
        "score": rollout.score,
        "reward": rollout.reward,
        "advantage": rollout.advantage,
        "limit": rollout.limit,
        "version": int(completion.versions.min()) if len(completion.versions) else None,
        "ids": completion.ids if completion.counted is None else None,
        "logprobs": completion.logprobs if len(completion.logprobs) == len(completion.ids) else None,
        "sources": completion.sources,
        "redundant": rollout.redundant,
        "extra": json.dumps(rollout.extra) if rollout.extra else None,
        **{f"token_{name}": rollout.by_token.get(name) for name in BY_TOKEN},
    }
