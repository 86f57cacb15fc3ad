"""Where problems come from: generated, a JSON-lines file, or the Hugging Face hub, all read by position.

Claim: the problem at a position is a function of recipe and position alone (an epoch is a seeded permutation), so a
position is all that a checkpoint must remember. Rows whose gold cannot be judged are listed and left out, never skipped in silence.
`hub:owner/name:split` names a split; without one, training reads data.split and evaluation `test`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from recipes.schema import Data, Tiny
from rewards.extract import ABSENT
from rollout.tiny_task import HELD_OUT_PER_FAMILY
from rollout.tiny_task import problems as tiny_problems
from rollout.types import Problem

_MISSING = ABSENT | {"none", "...", "tbd", "unknown"}


class DataError(ValueError):
    """A source cannot be read; the message names file, line and remedy."""


@dataclass
class Source:
    """Problems by position, without end.

    Attributes:
        name: what the recipe calls it.
        left_out: (problem id, reason) of rows that cannot be used.
    """

    name: str
    at: Callable[[int], Problem]
    rows: int | None = None
    left_out: list[tuple[str, str]] = field(default_factory=list)


def training_source(data: Data, tiny: Tiny, seed: int, check_golds: Callable[[Sequence[str]], list[str | None]]) -> Source:
    """The recipe's training problems.

    Args:
        check_golds: for each gold the reason why it is unusable, or None (rewards.judge.Judge.check_golds).
    """
    if data.train == "tiny":
        return Source("tiny", lambda position: tiny_problems("train", tiny.families, seed, position, 1)[0])
    kept, left_out = audited(read_rows(data.train, data, data.split), check_golds)
    if not kept:
        raise DataError(
            f"{data.train}: none of its {len(left_out)} rows has a usable gold answer (first: {left_out[0][1] if left_out else 'no rows'})"
        )
    return Source(data.train, lambda position: kept[_shuffled(position, len(kept), seed)], len(kept), left_out)


def heldout_problems(
    name: str, data: Data, tiny: Tiny, count: int, seed: int, check_golds: Callable[[Sequence[str]], list[str | None]]
) -> tuple[list[Problem], list[tuple[str, str]]]:
    """`count` problems to evaluate on (0: all), and what was left out."""
    if name == "tiny":
        return tiny_problems("heldout", tiny.families, seed, 0, count or HELD_OUT_PER_FAMILY * len(tiny.families)), []
    kept, left_out = audited(read_rows(name, data, "test"), check_golds)
    if not kept:
        raise DataError(f"{name}: no row has a usable gold answer")
    chosen = np.sort(np.random.default_rng(0).permutation(len(kept))[: count or len(kept)])
    return [kept[index] for index in chosen], left_out


def audited(
    rows: Sequence[Problem], check_golds: Callable[[Sequence[str]], list[str | None]]
) -> tuple[list[Problem], list[tuple[str, str]]]:
    """Split rows into usable ones and (id, reason) of the others."""
    missing = [_missing(row.answer) for row in rows]
    checked = iter(check_golds([row.answer for row, reason in zip(rows, missing, strict=True) if reason is None]))
    reasons = [reason or next(checked) for reason in missing]
    kept = [row for row, reason in zip(rows, reasons, strict=True) if reason is None]
    return kept, [(row.id, reason) for row, reason in zip(rows, reasons, strict=True) if reason is not None]


def _missing(answer: str) -> str | None:
    """Why an answer field holds no gold, None if it does."""
    if not answer.strip():
        return "no gold answer"
    return f"no gold answer ({answer.strip()})" if answer.strip().lower() in _MISSING else None


def read_rows(name: str, data: Data, split: str) -> list[Problem]:
    """All rows of a JSON-lines file or a hub set; `split` is read of a hub set that names none.

    Raises:
        DataError: not there, not JSON in UTF-8 (file and line), no row has the answer field, or a field is missing or not what it must
            be (file, line and field). A row without a gold is no error: it comes with the answer "".
    """
    if name.startswith("hub:"):
        revision, rows = _hub_rows(name, split)
    else:
        revision, rows = _file_rows(Path(name))
    if rows and not any(data.answer in row for _, row in rows):
        raise DataError(_no_field(rows[0][0], data.answer, rows[0][1]))
    return [_problem(f"{Path(name).name}@{revision}", where, row, data) for where, row in rows]


def _no_field(where: str, key: str, row: dict[str, object]) -> str:
    return f"{where}: no field {key!r}; it has {', '.join(sorted(row))}. Set data.problem and data.answer in the recipe"


def _problem(source: str, where: str, row: dict[str, object], data: Data) -> Problem:
    if data.problem not in row:
        raise DataError(_no_field(where, data.problem, row))
    text, answer = row[data.problem], row.get(data.answer)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: {data.problem} is {text!r:.80}: it must be a text that is not empty; correct it or set data.problem")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float | None):
        raise DataError(f"{where}: {data.answer} is {answer!r:.80}: it must be a text or a number; correct it or set data.answer")
    family, level = row.get("family", row.get("subject")), str(row.get("level"))
    return Problem(
        id=f"{source}/{where.rsplit(':', 1)[-1]}",
        text=text,
        answer="" if answer is None else str(answer),  # without a gold: listed and left out
        family="" if family is None else str(family),
        level=int(level) if level.isdecimal() else 0,
    )


_Rows = list[tuple[str, dict[str, object]]]


def _file_rows(path: Path) -> tuple[str, _Rows]:
    if not path.is_file():
        raise DataError(f"{path}: no such file (sources are `tiny`, a JSON-lines file, or hub:owner/name:split)")
    content = path.read_bytes()
    rows: _Rows = []
    for number, line in enumerate(content.split(b"\n"), 1):  # str.splitlines also splits at characters that JSON allows in a string
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, or an integer of thousands of digits
            raise DataError(f"{path}:{number}: not JSON in UTF-8 ({str(error).replace('line 1 ', '')})") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: not a JSON object but {type(row).__name__}")
        rows.append((f"{path}:{number}", row))
    return hashlib.sha256(content).hexdigest()[:8], rows


def _hub_rows(name: str, split: str) -> tuple[str, _Rows]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    path, named, after = name.removeprefix("hub:").partition(":")
    split = after if named else split
    try:
        dataset = load_dataset(path, split=split)
    except (DatasetNotFoundError, ConnectionError, OSError, ValueError) as error:
        raise DataError(
            f"{name}: split {split!r} cannot be loaded ({str(error).splitlines()[0]}); hub:owner/name:split names another"
        ) from error
    return dataset._fingerprint[:8], [(f"{name}:{number}", row) for number, row in enumerate(dataset)]


def _shuffled(position: int, rows: int, seed: int) -> int:
    """Row at a position of an endless stream of seeded permutations."""
    epoch, offset = divmod(position, rows)
    return int(_permutation(rows, seed, epoch)[offset])


@lru_cache(maxsize=2)
def _permutation(rows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(rows)
