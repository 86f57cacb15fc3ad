"""Grade a file of (gold, prediction) lines with the judge that training and evaluation use.

A prediction that holds a box is judged by its last box behind the last closing think tag, as in training. One without
a box is judged by what it states as its answer (the last of <answer>...</answer>, else of "#### ...", "A: ..." or
"answer is ..."), and if it states none it is taken for a bare answer; with `bare` off it is wrong, "no box".
Golds of a file were not audited, as those of training are: one that does not parse is called bad also where the answer
is too long to be compared.
Simplification: the file is read whole, so that a bad line stops it before anything was graded.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from rewards.extract import answer_segment, final_answer
from rewards.judge import Judge
from rewards.verdict import Verdict

_STATED = re.compile(r"(?:####|^A:|(?i:answer is):?)[ \t]*(\S[^\n]*)", re.MULTILINE)
_MOST_S = 86_400  # a day; the system's timers end at 24 days


def _text(row: dict[str, Any], field: str, place: str) -> str:
    if field not in row:
        raise ValueError(f"{place}: no field {field}: each line needs gold and prediction")
    value = row[field]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{place}: {field} is {value!r}: it must be a text or a number")
    return str(value)


def read_pairs(path: Path) -> list[tuple[dict[str, Any], str, str]]:
    """Rows, golds and predictions of a JSON-lines file. Raises ValueError with file and line number; empty lines are skipped."""
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
            pairs.append((row, _text(row, "gold", place), _text(row, "prediction", place)))
    return pairs


def _stated(text: str) -> str:
    """What the text names as its answer, or all of it."""
    before, closed, _ = text.rpartition("</answer>")
    if closed and "<answer>" in before:
        return before.rpartition("<answer>")[2].strip()
    lines = _STATED.findall(text)
    return (lines[-1] if lines else text).strip()


def answer_of(prediction: str, *, bare: bool) -> tuple[str | None, str]:
    """The answer to judge, or None and the reason why there is none."""
    answer, reason = final_answer(prediction, finish="stop", thinking=False)
    if bare and reason == "no box":
        answer = _stated(answer_segment(prediction) or "")
        return (answer, "") if answer else (None, "no answer")
    return answer, reason


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
            None if answer is None else judge.compare(gold=gold, answer=answer)
            for (_, gold, _), (answer, _) in zip(pairs, found, strict=True)
        ]
        gold_fault = cache(judge.check_gold)
        for done, ((row, gold, _), (_, reason), future) in enumerate(zip(pairs, found, futures, strict=True), start=1):
            verdict = Verdict("wrong", reason) if future is None else future.result()
            if verdict.reason == "too long" and gold_fault(gold) == "does not parse":
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
