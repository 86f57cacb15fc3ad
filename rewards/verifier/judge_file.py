"""Grade a file of golds and predictions with the judge that training and evaluation use.

A prediction that holds a box behind its thinking is judged by it, as in training. One without is judged by what it states as its answer
(`stated`); with `bare` off it is wrong, "no box". A row's gold may be a list: any of its golds will do. Other tools' files (lm-eval's resps and
target, verl's output and gts, lists of samples) are recognised by the names of their fields, or named by paths.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rewards.completions import Said, completions, failed, finishes, thoughts_beside
from rewards.golds import golds, marked, no_gold
from rewards.rows import Row, nested, reach, read_rows
from rewards.verifier.extract import final_answer, last_box
from rewards.verifier.judge import Judge
from rewards.verifier.stated import block, final_segment, stated
from rewards.verifier.verdict import Verdict, best

_GOLDS: tuple[str, ...] = (
    "gold",
    "golds",
    "gts",
    "target",
    "reward_model.ground_truth",
    "ground_truth",
    "expected_answer",
    "gt",
    "gt_answer",
    "final_answer",
)
_GOLDS += ("reference_answer", "correct_answer", "reference", "answer", "doc.answer", "doc.solution", "label", "solution", "doc.choices")
PREDICTIONS: tuple[str, ...] = (
    "prediction",
    "predictions",
    "resps",
    "output",
    "outputs",
    "response",
    "responses",
    "completion",
    "completions",
    "generation",
)
PREDICTIONS += (
    "generations",
    "generated_text",
    "generated_solution",
    "model_response.text",
    "model_response",
    "model_output",
    "model_answer",
    "pred",
)
PREDICTIONS += ("choices", "attempt", "samples", "code", "text")
_CUT = frozenset(
    ["length", "max_tokens", "max_output_tokens", "max_new_tokens", "max_length", "model_length", "repetition", "truncated", "incomplete"]
)
_CUT |= {"context_length_exceeded", "model_context_window_exceeded", "token_limit"}
_GIVEN_UP = frozenset(["abort", "aborted", "cancelled", "canceled", "error", "failed", "timeout", "content_filter", "safety", "recitation"])
_DONE = frozenset(
    ["", "stop", "eos", "eos_token", "stop_sequence", "stop_str", "end_turn", "end", "eot", "complete", "completed", "finish"]
)
_DONE |= {"finished", "done", "success", "tool_calls", "function_call", "none", "null"}
_SENTENCE = "no gold answer but a sentence"  # which training leaves out; here somebody asks for a verdict on it
_MOST_S = 86_400  # a day; the system's timers end at 24 days


@dataclass(frozen=True)
class Paths:
    """Where a file's rows hold golds and predictions, as dotted paths."""

    gold: str
    prediction: str


def paths_of(rows: Sequence[Row], gold: str | None = None, prediction: str | None = None) -> Paths:
    """The paths that are named, or else recognised, in the rows of a file.

    Raises:
        ValueError: no row has what a path names, or nothing was recognised; names the fields of the first row.
    """
    found = []
    for role, named, known in (("gold", gold, _GOLDS), ("prediction", prediction, PREDICTIONS)):
        candidates = known if named is None else (named,)
        held = [path for path in candidates if any(row.has(path) for row in rows)]
        filled = (path for path in held if any(reach(row.values, path) not in (None, "", []) for row in rows))
        path = next(filled, held[0] if held else None)
        if path is None:
            what = f"no field {named or role}: each row needs gold and prediction"
            raise ValueError(
                f"{rows[0].place}: {what}; it has {', '.join(map(str, rows[0].values))}: name the paths (--gold, --prediction)"
            )
        found.append(path)
    return Paths(*found)


class Pair(NamedTuple):
    """A prediction and what it is held against.

    Attributes:
        row: the row's fields, and `sample`, the prediction's number, if it is one of several.
        golds: any of them will do; none where there is none.
        finish: how it ended: "length" if it was cut off, "abort" if its engine gave it up, else "stop".
        said: the file's own word for that, "" where it has none.
        thoughts: thinking that stood apart.
    """

    row: dict[str, Any]
    golds: list[str]
    text: str
    finish: Literal["stop", "length", "abort"]
    said: str = ""
    thoughts: str = ""

    @property
    def whole(self) -> str:
        """The text behind its thinking."""
        return Said(self.text, self.thoughts).whole


def read_pairs(rows: Sequence[Row], paths: Paths) -> list[Pair]:
    """The rows' pairs, one for each sample of a row.

    Raises:
        ValueError: a row without the prediction's field, or a value that is neither text nor number (file and line).
    """
    pairs = []
    for row in rows:
        if not row.has(paths.prediction) and re.split(r"[.\[]", paths.prediction)[0] not in row.values:
            raise ValueError(f"{row.place}: no field {paths.prediction}: each row needs gold and prediction")
        try:
            held = [(gold if "####" not in gold else marked(gold) or gold) for gold in golds(_gold(row, paths.gold))]
            held = [gold for gold in held if (no_gold(gold) or _SENTENCE).startswith(_SENTENCE)]
        except ValueError as error:
            raise ValueError(f"{row.place}: {paths.gold} is {reach(row.values, paths.gold)!r:.80}: {error}") from error
        samples = list(completions(reach(row.values, paths.prediction), f"{row.place}: {paths.prediction}")) or [Said("")]
        beside = finishes(row.values, paths.prediction)
        ends = beside if len(beside) == len(samples) else beside[:1] * len(samples) if len(beside) == 1 else [""] * len(samples)
        for index, (one, other, apart) in enumerate(
            zip(samples, ends, thoughts_beside(row.values, paths.prediction, len(samples)), strict=True)
        ):
            numbered = row.values | ({"sample": index} if len(samples) > 1 else {})
            said = one._replace(thoughts=one.thoughts or apart)
            word = one.finish or other
            if not said.whole and ended(word) == "stop":
                word = failed(row.values) or word
            pairs.append(Pair(numbered, held, said.text, ended(word), word, said.thoughts))
    return pairs


def _gold(row: Row, path: str) -> Any:
    """What is at the path of golds: of choices the one that `gold_index` beside them names. Raises ValueError: it names none."""
    value, holder = reach(row.values, path), path.rpartition(".")[0]
    index = nested(reach(row.values, f"{holder}.gold_index" if holder else "gold_index"))
    if not path.endswith("choices") or not isinstance(value, list) or index is None:
        return value
    try:
        return [value[int(one)] for one in (index if isinstance(index, list) else [index])]
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"gold_index {index!r:.40} names none of its {len(value)} choices; correct it") from error


def unknown_ends(said: Sequence[str]) -> str:
    """Words for how completions ended that nobody knows, which count as finished, with how often they stand there; "" without any."""
    unknown = Counter(word for word in said if word.lower() not in _DONE | _CUT | _GIVEN_UP)
    return ", ".join(f"{word!r:.40} ({count:,} times)" for word, count in unknown.most_common(3)) + ", ..." * (len(unknown) > 3)


def ended(said: str) -> Literal["stop", "length", "abort"]:
    """How a completion ended, of the many words for it: cut off, given up by its engine or a filter, or else finished."""
    said = said.lower()
    return "length" if said in _CUT else "abort" if said in _GIVEN_UP else "stop"


def answer_of(prediction: str, *, bare: bool, finish: str = "stop") -> tuple[str | None, str]:
    """The answer to judge, or None and the reason why there is none. One that was cut off has none but a box behind a closing mark of thinking."""
    answer, reason = final_answer(prediction, finish=finish, thinking=finish == "length")
    if not bare or finish == "length" or reason not in ("no box", "thinking not closed"):
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


def judge_file(
    path: Path,
    out: Path,
    *,
    workers: int,
    wall_s: float,
    memory_mb: int,
    bare: bool = True,
    gold: str | None = None,
    prediction: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda words: None,
) -> dict[str, int]:
    """Write each row of `path` to `out` with `verdict`, `reason`, `extracted` and `seconds` added, in the same order.

    Args:
        workers, wall_s, memory_mb: as in `Judge`.
        bare: judge predictions without a box, too.
        gold, prediction: dotted paths to them (`doc.answer`, `resps[0][0]`); recognised if absent.
        progress: called with (rows done, rows in all).
        say: called with one line on the fields that were taken.

    Returns:
        Rows by verdict: right, wrong, not_judged; those without a gold are not judged, reason "no gold".

    Raises:
        ValueError: a limit is out of range, the file is no data, or a row lacks a field; nothing is written.
        OSError: a file cannot be read or written.
    """
    if not 0 < wall_s <= _MOST_S:
        raise ValueError(f"wall_s: {wall_s:g}: seconds a comparison may take, above 0 and at most {_MOST_S}, e.g. 3")
    if out.resolve() == path.resolve():
        raise ValueError(f"{out}: is what is judged, and would be replaced by its verdicts; choose another file (--out)")
    if memory_mb < 1:
        raise ValueError(f"memory_mb: {memory_mb}: memory a comparison may add to its process, at least 1, e.g. 1024")
    rows = read_rows(str(path)).rows
    paths = paths_of(rows, gold, prediction)
    say(f"{path}: {len(rows):,} rows, gold from {paths.gold}, prediction from {paths.prediction}")
    pairs = read_pairs(rows, paths)
    if unknown := unknown_ends([pair.said for pair in pairs]):
        say(f"{path}: how completions ended is said in words that are not known and count as finished: {unknown}")
    if absent := [row.place for row in rows if reach(row.values, paths.prediction) is None]:
        say(
            f"{path}: {len(absent):,} rows hold nothing at {paths.prediction}, so they answer nothing: {', '.join(absent[:3])}{', ...' * (len(absent) > 3)}"
        )
    counts: Counter[str] = Counter(right=0, wrong=0, not_judged=0)
    part = _part_of(out)
    with Judge(workers, wall_s, memory_mb) as judge, open(part, "w", encoding="utf-8") as file:
        found = [answer_of(pair.whole, bare=bare, finish=pair.finish) for pair in pairs]
        futures = [
            [] if answer is None else [judge.compare(gold=one, answer=answer) for one in held]
            for (_, held, *_), (answer, _) in zip(pairs, found, strict=True)
        ]
        gold_fault = cache(judge.check_gold)
        for done, ((row, held, _, finish, *_), (_, reason), waiting) in enumerate(zip(pairs, found, futures, strict=True), start=1):
            if not held or finish == "abort":
                verdict = Verdict("not_judged", "aborted" if held else "no gold", found[done - 1][0])
            else:
                verdict = best([future.result() for future in waiting]) if waiting else Verdict("wrong", reason)
            if held and verdict.reason == "too long" and all(gold_fault(one) == "does not parse" for one in held):
                verdict = Verdict("not_judged", "bad gold", verdict.extracted, verdict.seconds)
            counts[verdict.status] += 1
            graded = {
                "verdict": verdict.status,
                "reason": verdict.reason,
                "extracted": verdict.extracted,
                "seconds": round(verdict.seconds, 6),
            }
            file.write(json.dumps(row | graded, default=str) + "\n")
            progress(done, len(pairs))
    os.replace(part, out)
    return dict(counts)
