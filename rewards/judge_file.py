"""Grade a file of (gold, prediction) lines with the judge that training and evaluation use.

A prediction that holds a box behind its thinking is judged by it, as in training. One without is judged by what it states as its answer
(`stated`); with `bare` off it is wrong, "no box". A row's gold may be a list: any of its golds will do.
Golds of a file were not audited, as those of training are: one that does not parse is called bad also where the answer
is too long to be compared.
Simplification: the file is read whole, so that a bad line stops it before anything was graded.
"""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from rewards.extract import final_answer, last_box
from rewards.judge import Judge
from rewards.stated import block, final_segment, stated
from rewards.verdict import Verdict

_MOST_S = 86_400  # a day; the system's timers end at 24 days


def _text(row: dict[str, Any], field: str, place: str) -> str:
    if field not in row:
        raise ValueError(f"{place}: no field {field}: each line needs gold and prediction")
    value = row[field]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{place}: {field} is {value!r}: it must be a text or a number")
    return str(value)


def _golds(row: dict[str, Any], place: str) -> list[str]:
    """The golds of a row: one, or a list of which any will do."""
    value = row.get("gold")
    if isinstance(value, list) and value:
        return [_text({"gold": gold}, "gold", place) for gold in value]
    return [_text(row, "gold", place)]


def read_pairs(path: Path) -> list[tuple[dict[str, Any], list[str], str]]:
    """Rows, golds (any of which will do) and predictions of a JSON-lines file. Raises ValueError with file and line number; empty lines are skipped."""
    pairs = []
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
            try:
                row = json.loads(line)
            except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
                raise ValueError(f"{place}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise ValueError(f"{place}: a {type(row).__name__}, not an object with gold and prediction")
            pairs.append((row, _golds(row, place), _text(row, "prediction", place)))
    return pairs


def answer_of(prediction: str, *, bare: bool) -> tuple[str | None, str]:
    """The answer to judge, or None and the reason why there is none."""
    answer, reason = final_answer(prediction, finish="stop", thinking=False)
    if not bare or reason not in ("no box", "thinking not closed"):
        return answer, reason
    segment = block(prediction) or final_segment(prediction)
    if segment is None:
        return None, reason
    answer = last_box(segment) or stated(segment)
    return (answer, "") if answer else (None, "no answer")


def _part_of(out: Path) -> Path:
    """The file beside `out` that becomes it at the end. Raises OSError, in terms of `out`, if one of the two cannot be written."""
    part = out.with_name(out.name + ".part")
    try:
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        part.touch()
    except OSError as error:
        raise OSError(f"{out}: cannot be written ({error.strerror}): choose another file") from error
    return part


def _best(verdicts: list[Verdict]) -> Verdict:
    """Of the verdicts against several golds: right if any is, else not judged if any is, else the first."""
    order = {"right": 0, "not_judged": 1, "wrong": 2}
    return min(verdicts, key=lambda verdict: order[verdict.status])


def judge_file(
    path: Path,
    out: Path,
    *,
    workers: int,
    wall_s: float,
    memory_mb: int,
    bare: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Write each row of `path` to `out` with `verdict`, `reason`, `extracted` and `seconds` added, in the same order.

    Args:
        workers, wall_s, memory_mb: as in `Judge`.
        bare: judge predictions without a box, too.
        progress: called with (rows done, rows in all).

    Returns:
        Rows by verdict: right, wrong, not_judged.

    Raises:
        ValueError: a limit is out of range, a line is not JSON or lacks a field; nothing is written.
        OSError: a file cannot be read or written.
    """
    if not 0 < wall_s <= _MOST_S:
        raise ValueError(f"wall_s: {wall_s:g}: seconds a comparison may take, above 0 and at most {_MOST_S}, e.g. 3")
    if memory_mb < 1:
        raise ValueError(f"memory_mb: {memory_mb}: memory a comparison may add to its process, at least 1, e.g. 1024")
    pairs = read_pairs(path)
    counts: Counter[str] = Counter(right=0, wrong=0, not_judged=0)
    part = _part_of(out)
    with Judge(workers, wall_s, memory_mb) as judge, open(part, "w", encoding="utf-8") as file:
        found = [answer_of(prediction, bare=bare) for _, _, prediction in pairs]
        futures = [
            [] if answer is None else [judge.compare(gold=gold, answer=answer) for gold in golds]
            for (_, golds, _), (answer, _) in zip(pairs, found, strict=True)
        ]
        gold_fault = cache(judge.check_gold)
        for done, ((row, golds, _), (_, reason), waiting) in enumerate(zip(pairs, found, futures, strict=True), start=1):
            verdict = _best([future.result() for future in waiting]) if waiting else Verdict("wrong", reason)
            if verdict.reason == "too long" and all(gold_fault(gold) == "does not parse" for gold in golds):
                verdict = Verdict("not_judged", "bad gold", verdict.extracted, verdict.seconds)
            counts[verdict.status] += 1
            graded = {
                "verdict": verdict.status,
                "reason": verdict.reason,
                "extracted": verdict.extracted,
                "seconds": round(verdict.seconds, 6),
            }
            file.write(json.dumps(row | graded) + "\n")
            progress(done, len(pairs))
    os.replace(part, out)
    return dict(counts)
