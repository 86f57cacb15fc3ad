"""What the starting policy does on the training problems: sampled once, judged, kept as parquet, and read by whatever comes later.

Claim: what is there is whole and is never sampled again: groups are kept in parts that appear at once, and a position that a part holds is
done. Tokens stay as the engines sampled them; nothing is decoded and encoded again.
Simplification: one part file a few seconds of sampling, read together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa

from recipes.columns import NumberColumn
from rollout.engine import EnginePool
from rollout.scorer import Scorer
from rollout.sources import Source
from rollout.template import Template
from rollout.types import Example, Preference, Request

Columns = dict[str, float | None]


class ReferenceError(ValueError):
    """What a stage reads of a reference is not there; the message says what there is."""


def requests(
    source: Source,
    template: Template,
    problems: int,
    *,
    samples: int,
    max_tokens: int,
    temperature: float,
    seed: int,
    max_prompt_tokens: int,
    limit: int = 0,
) -> list[Request]:
    """The problems at the first positions of a training stream, each once, to be sampled.

    Args:
        source: as the rl stage has it (rollout.sources.training_source).
        problems: how many; fewer where the source has fewer rows.
        samples: rollouts of a problem.
        max_tokens: where engines stop.
        max_prompt_tokens: problems with longer prompts are passed over, as training does.
        limit: what `{budget}` in the instruction stands for, tokens.
    """
    raise NotImplementedError


def waiting(folder: Path, asked: Sequence[Request]) -> list[Request]:
    """Those requests whose groups are not in the folder: none when the reference is done.

    Raises:
        ReferenceError: a part was sampled with another template or tokenizer.
    """
    raise NotImplementedError


def sample(
    folder: Path, pool: EnginePool, scorer: Scorer, asked: Sequence[Request], progress: Callable[[int, int], None] | None = None
) -> None:
    """Sample and judge what is not in the folder yet, and keep it there part by part (`part-00000.parquet` ...).

    Args:
        scorer: judges only; its reward is not asked.
        progress: called with (problems done, problems).
    """
    raise NotImplementedError


def read(folder: Path, asked: Sequence[Request] = ()) -> pa.Table:
    """All rows of a reference: rollout.records' columns and `request`, `prompt_ids`; by sample within a request, in the order of `asked`."""
    raise NotImplementedError


def statistics(table: pa.Table) -> dict[str, Columns]:
    """By problem id: reference_tokens, reference_spread, reference_accuracy (rewards.profiles.profile_of) and reference_shortest.

    reference_shortest is the length of the shortest right rollout, None without one. Rollouts that no judge could judge do not count; a
    problem that has none but such is not there.
    """
    raise NotImplementedError


def with_statistics(source: Source, asked: Sequence[Request], found: Mapping[str, Columns], numbers: Sequence[NumberColumn] = ()) -> Source:
    """The source with those columns, of the problems asked about: in that order first, then in seeded permutations, without end.

    Problems that lack a number which something reads are left out and listed in `left_out`.

    Args:
        numbers: columns that must hold a number (Recipe.number_columns).

    Raises:
        ReferenceError: no problem is left.
    """
    raise NotImplementedError


def shortest_right(table: pa.Table) -> list[Example]:
    """The shortest right answer of each problem that has one, as it was sampled, in the order of the table; ties go to the first sample.

    Raises:
        ReferenceError: no problem has a right answer.
    """
    raise NotImplementedError


def pairs(table: pa.Table, rejected: Literal["longer", "wrong", "both"]) -> list[Preference]:
    """The shortest right answer of a problem against the others: right ones at least 1.5 times as long (Kimi k1.5, arXiv 2501.12599), wrong ones, or both.

    Raises:
        ReferenceError: not a single pair; says how many problems have a right answer, a wrong one, a longer right one.
    """
    raise NotImplementedError
