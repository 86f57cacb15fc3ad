"""Samples that others made, out of their files: problems with golds, completions, and how long those are and how they ended where a file says so.

Claim: what a file calls its fields is recognised as it is for data and for `laconic judge`, so lm-eval's samples, lighteval's details, OckBench's results
and our own tables are one case with a line of problem, gold and completion. A row that lacks one of them stops the import, with its place.
What contradicts itself does, too: a sample that comes twice, lengths that no completion has, a problem with two golds.
Simplification: a completion without a known word on how it ended counts as finished, which is said; one that is null was never made, and is not judged.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from evaluation.asked import digest
from rewards.rows import DataError, Row, nested, reach, read_rows
from rewards.verifier.judge_file import PREDICTIONS, Paths, paths_of, read_pairs, unknown_ends
from rollout.layouts import (
    CHATS,
    PROBLEMS,
    SAMPLE,
    Layout,
    family_of,
    first_column,
    holds_text,
    level_of,
    named_column,
    problem_of,
    recognise,
)
from rollout.types import Counted, Finish, Problem

_PROBLEMS = [*PROBLEMS, *CHATS, "full_prompt", "example"]
_USAGE = ["usage.completion_tokens", "usage.output_tokens"]
_USAGE_THINKING = [
    "usage.completion_tokens_details.reasoning_tokens",
    "usage.output_tokens_details.reasoning_tokens",
    "usage.reasoning_tokens",
]
_TOKENS = [
    "tokens",
    "completion_tokens",
    "output_tokens",
    "num_tokens",
    "n_tokens",
    "num_output_tokens",
    "generated_tokens",
    "num_generated_tokens",
    "response_tokens",
    "token_count",
]
_TOKENS += [
    "tokens.output_tokens",
    *_USAGE,
    "completion_length",
    "completion_lengths",
    "response_lengths",
    "output_lengths",
    "response_length",
    "cont_tokens",
    "completion_ids",
    "output_ids",
    "token_ids",
    "ids",
]
_THINKING = [
    "think_tokens",
    "thinking_tokens",
    "reasoning_tokens",
    "tokens.reasoning_tokens",
    *_USAGE_THINKING,
]
_LONE = {
    "prediction",
    "predictions",
    "model_answer",
    "pred",
    "choices",
    "attempt",
    "samples",
    "text",
}  # an answer alone, often, or something else
_ENDS = re.compile(r'"(?:finish|finish_?[rR]easons?|stop_reasons?|(?:is_|was_)?truncated|incomplete_details)"')
_IDS = ("problem_id", "question_id", "id")
_NUMBERS = ("sample", "sample_idx", "sample_index", "repeat", "repeat_idx")
_MOST_TOKENS = 10_000_000  # more than any completion has
_MODELS = ["model", "model_name", "model_id", "model_path", "checkpoint", "generator", "generator_model"]


@dataclass(frozen=True)
class Sample:
    """A completion. `tokens` and `thinking`: None where the file does not count; `number` among its problem's samples, None if it is not said.

    `score`: by which it may be taken as the best of several, None unless asked for.
    """

    place: str
    text: str
    finish: Finish
    tokens: int | None
    thinking: int | None
    number: int | None
    ended: str = ""  # in the file's own word
    score: float | None = None

    @property
    def counted(self) -> Counted | None:
        """The lengths that the file says."""
        return None if self.tokens is None else Counted(self.tokens, self.thinking)


@dataclass
class Imported:
    """What a file holds.

    Attributes:
        problems: each with its samples in order.
        model: its name, "" if none is said.
        revision: 8 hex digits of the content.
        said: what a user should know.
        left_out: (row, reason).
    """

    problems: list[tuple[Problem, list[Sample]]]
    model: str
    revision: str
    said: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    @property
    def counted(self) -> bool:
        """Whether the file counts tokens."""
        return self.problems[0][1][0].tokens is not None


def read_samples(
    path: Path,
    source: str,
    *,
    problem: str | None = None,
    gold: str | None = None,
    prediction: str | None = None,
    model: str | None = None,
    lengths: bool = True,
    score: str | None = None,
) -> Imported:
    """The samples of a file or folder.

    Args:
        source: names problems that have no id of their own.
        problem, gold, prediction: dotted paths to them; recognised if absent.
        model: whose samples are read, where a file holds several models'.
        lengths: those that the file says are read; else nobody counted.
        score: dotted path to a number of each sample, by which the best of several is told.

    Raises:
        ValueError, DataError: no data, a field that is missing or not recognised, a row without one, or rows that contradict each other.
    """
    said: list[str] = []
    read = read_rows(str(path), "test")
    rows = _one_filter([_lifted(row) for row in read.rows], said)
    rows, name = _of_model(rows, model)
    sample = [row.values for row in rows[:SAMPLE]]
    whole = (name for name in PREDICTIONS if name not in _LONE and any(reach(row, name) not in (None, "", []) for row in sample))
    paths = paths_of(rows, gold, prediction or next(whole, None))
    used = {paths.gold, paths.prediction}
    column = named_column(rows, problem, "problem") or first_column(sample, _PROBLEMS, holds_text, used)
    if column is None:
        names = ", ".join(sorted(map(str, rows[0].values)))
        raise DataError(f"{rows[0].place}: no field was recognised as the problem; it has {names}: name its path (--problem)")
    layout = recognise(rows, column, paths.gold)
    known, told = (names + _beside(paths.prediction, usage) for names, usage in ((_TOKENS, _USAGE), (_THINKING, _USAGE_THINKING)))
    tokens, thinking = (first_column(sample, names, _counts, used) if lengths else None for names in (known, told))
    if lengths and tokens is None:
        _refuse_lengths(rows, known)
    said.append(
        f"{path}: {len(rows):,} rows, problem from {column}, gold from {paths.gold}, completion from {paths.prediction}, "
        + (f"tokens from {tokens}" if tokens else "no tokens")
    )
    found: dict[tuple[str, str], tuple[Problem, list[Sample]]] = {}
    left_out: list[tuple[str, str]] = []
    for row in rows:
        asked = _problem(row, layout, paths, source)
        if asked is None:
            left_out.append((row.place, f"{reach(row.values, paths.gold)!r:.60} is no answer that could be compared"))
            continue
        key = (asked.id, digest(asked.system))
        kept, samples = found.setdefault(key, (asked, []))
        if kept.golds != asked.golds:
            raise DataError(
                f"{row.place}: {paths.gold} is {' or '.join(asked.golds)!r:.80}, and {samples[0].place} asks the same with {' or '.join(kept.golds)!r:.80}; correct one"
            )
        samples += _samples(row, paths, tokens, thinking, score)
    times = Counter(id_ for id_, _ in found)  # one text under several systems is several problems
    problems = [
        (one if times[one.id] == 1 else replace(one, id=f"{one.id}-{system}"), _in_order(samples))
        for (_, system), (one, samples) in found.items()
    ]
    if not problems:
        raise DataError(f"{path}: none of {len(rows)} rows has a gold (first: {left_out[0][0]}: {left_out[0][1]}); name its path (--gold)")
    every = [one for _, samples in problems for one in samples]
    if not any(one.ended for one in every) and not any(_ENDS.search(json.dumps(row, default=str)) for row in sample[:50]):
        said.append(f"{path}: nothing says how completions ended, so all count as finished and none as cut off")
    if unknown := unknown_ends([one.ended for one in every]):
        said.append(f"{path}: how completions ended is said in words that are not known and count as finished: {unknown}")
    if again := _repeated(problems):
        said.append(
            f"{path}: {len(again):,} samples repeat another of their problem word for word and count as samples of their own "
            f"(first: {again[0]}): take them out if a file was joined to itself"
        )
    return Imported(_with_ids(rows, problems, said), name, read.revision, said, left_out)


def _beside(prediction: str, usage: Sequence[str]) -> list[str]:
    """Where APIs count tokens: in the answer around a completion."""
    parts = prediction.split(".")
    around = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return [f"{one}.{name}" for one in [*around, f"{prediction}.body"] for name in usage]


def _refuse_lengths(rows: Sequence[Row], names: Sequence[str]) -> None:
    """Refuse numbers in place of lengths where none of them is one: nobody should take characters for them. Raises DataError with the first."""
    for name in names:
        for row in rows:
            value = nested(reach(row.values, name))
            if not _none(value) and isinstance(value, int | float) and not isinstance(value, bool):
                raise DataError(
                    f"{row.place}: {name} is {value!r:.60}, where a whole number is wanted; correct it, or count all with --tokenizer"
                )


def source_of(path: Path) -> str:
    """The set that a file's name says it is of: of lm-eval's samples_TASK_DATE and lighteval's details_TASK_DATE the task."""
    found = re.fullmatch(r"(?:samples|details)_(.+)_\d{4}-\d\d-\d\dT[\d.:+-]+", path.stem)
    return found[1] if found else path.stem


def _lifted(row: Row) -> Row:
    """The row with what tools put into a mapping beside their own notes: `doc` of lm-eval and lighteval, `model_response` of lighteval.

    Of several choices (`choices`) the gold is what `gold_index` says. OckBench's `model_response` is the completion.
    """
    values = dict(row.values)
    for name in ("doc", "model_response"):
        inner = nested(values.get(name))
        if isinstance(inner, dict):
            values = inner | values
    if "model_response" in values and not isinstance(nested(values["model_response"]), dict):
        values.setdefault("completion", values["model_response"])
    choices, index = nested(values.get("choices")), nested(values.get("gold_index"))
    if isinstance(choices, list) and index is not None and "gold" not in values:
        try:
            values["gold"] = [choices[int(one)] for one in (index if isinstance(index, list) else [index])]
        except (TypeError, ValueError, IndexError) as error:
            raise DataError(f"{row.place}: gold_index {index!r:.40} names none of its {len(choices)} choices; correct it") from error
        del values["choices"]  # of the problem, no completions
    return Row(row.place, row.key, values)


def _one_filter(rows: list[Row], said: list[str]) -> list[Row]:
    """lm-eval writes each sample once for each of its filters: those of the first."""
    filters = list(dict.fromkeys(str(row.values["filter"]) for row in rows if "filter" in row.values))
    if len(filters) < 2:
        return rows
    said.append(f"samples are written once for each filter ({', '.join(filters)}) and read once")
    return [row for row in rows if str(row.values.get("filter")) == filters[0]]


def _of_model(rows: list[Row], model: str | None) -> tuple[list[Row], str]:
    """The rows of one model, and its name. Raises ValueError: there are several, or not this one."""
    column = first_column([row.values for row in rows[:SAMPLE]], _MODELS, lambda value: isinstance(value, str))
    if column is None:
        return rows, model or ""
    names = list(dict.fromkeys(str(found) for row in rows if not _none(found := reach(row.values, column))))  # a row without one is of any
    if model is None and len(names) > 1:
        raise ValueError(
            f"{rows[0].place}: samples of several models ({', '.join(names[:5])}{', ...' * (len(names) > 5)}): say whose (--model)"
        )
    kept = rows if model is None or len(names) == 1 else [row for row in rows if str(reach(row.values, column)) == model]
    if not kept:
        raise ValueError(
            f"{rows[0].place}: no samples of {model}; there are those of {', '.join(names[:5])}{', ...' * (len(names) > 5)} (--model)"
        )
    return kept, model or names[0]


def _problem(row: Row, layout: Layout, paths: Paths, source: str) -> Problem | None:
    """What a row asks; None if it has a gold that is no answer, a proof say. Raises DataError: it has no problem, or no gold."""
    text, system = problem_of(row, layout)
    golds = read_pairs([row], paths)[0].golds
    if not golds and reach(row.values, paths.gold) not in (None, "", []):
        return None
    if not golds:
        raise DataError(f"{row.place}: no gold ({paths.gold} is {reach(row.values, paths.gold)!r:.60}); add it, or take the row out")
    level = level_of(reach(row.values, layout.level)) if layout.level else 0
    return Problem(f"{source}/{digest(text)}", text, golds[0], family_of(row, layout), level, tuple(golds[1:]), system)


def _samples(row: Row, paths: Paths, tokens: str | None, thinking: str | None, score: str | None) -> list[Sample]:
    pairs = read_pairs([row], paths)
    value = nested(reach(row.values, paths.prediction))
    several = value if isinstance(value, list) and len(value) == len(pairs) else [value] * len(pairs)
    made = [not _none(one) or one == "" for one in several]
    lengths, thoughts = (_lengths(row, path, len(pairs)) for path in (tokens, thinking))
    if tokens and all(_none(one) or _length(one) is not None for one in _listed(reach(row.values, tokens))):
        lengths = [0 if length is None and not pair.text else length for length, pair in zip(lengths, pairs, strict=True)]
    if tokens and (fault := _fault(lengths, thoughts, [pair.text for pair in pairs])):
        where = f"{tokens} is {reach(row.values, tokens)!r:.60}"
        raise DataError(f"{row.place}: {where}, {fault}; correct it, or count all with --tokenizer")
    if thinking and any(not _none(one) and _length(one) is None for one in _listed(reach(row.values, thinking))):
        raise DataError(f"{row.place}: {thinking} is {reach(row.values, thinking)!r:.60}, which counts no thinking; correct it")
    numbers = (_length(value) for name in _NUMBERS if not isinstance(value := row.values.get(name), list))
    number = next((one for one in numbers if one is not None), None)
    own = number if len(pairs) == 1 else None
    scores = _scores(row, score, len(pairs)) if score else [None] * len(pairs)
    return [
        Sample(
            row.place,
            pair.whole,
            pair.finish if there else "abort",
            length,
            thought,
            own,
            pair.said,
            one,
        )
        for pair, there, length, thought, one in zip(pairs, made, lengths, thoughts, scores, strict=True)
    ]


def _fault(lengths: Sequence[int | None], thoughts: Sequence[int | None], texts: Sequence[str]) -> str:
    """What is wrong with the lengths of a row's completions; "" if nothing is."""
    if None in lengths:
        return "where a whole number is wanted" if len(lengths) == 1 else f"where {len(lengths)} whole numbers are wanted"
    for length, thought, text in zip(lengths, thoughts, texts, strict=True):
        if length is not None and length > _MOST_TOKENS:
            return f"more than any completion has ({_MOST_TOKENS:,})"
        if length == 0 and text.strip():
            return "and its completion is not empty"
        if length is not None and thought is not None and thought > length:
            return f"and {thought:,} of them would be thinking"
    return ""


def _none(value: Any) -> bool:
    """Whether nothing stands there, as JSON or pandas write it."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _listed(value: Any) -> list[Any]:
    value = nested(value)
    return value if isinstance(value, list) else [value]


def _lengths(row: Row, path: str | None, count: int) -> list[int | None]:
    """The length of each of a row's completions: whole numbers, or lists of ids; None where there is none."""
    value = nested(reach(row.values, path)) if path else None
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) and count > 1:
        value = value[0]
    several = (
        value
        if isinstance(value, list) and len(value) == count and (count > 1 or isinstance(value[0], list) or len(value) == 1)
        else [value]
    )
    found = [_length(one) for one in several]
    return found if len(found) == count else [None] * count


def _scores(row: Row, path: str, count: int) -> list[float | None]:
    """The score of each of a row's completions. Raises DataError: it has not as many finite numbers."""
    value = nested(reach(row.values, path))
    found = [_number(one) for one in (value if isinstance(value, list) else [value])]
    if len(found) != count or None in found:
        raise DataError(
            f"{row.place}: {path} is {value!r:.60}, where {count} finite number{'s' * (count != 1)} {'are' if count != 1 else 'is'} wanted; correct it, or leave out --score"
        )
    return found


def _number(value: Any) -> float | None:
    try:
        found = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return found if found is not None and math.isfinite(found) else None


def _length(value: Any) -> int | None:
    if isinstance(value, list):
        return len(value)
    if isinstance(value, str) and re.fullmatch(r"[0-9]+(?:\.0*)?", value):
        return int(float(value))  # of a table of texts
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return int(value) if whole and not isinstance(value, bool) and value >= 0 else None


def _counts(value: Any) -> bool:
    value = nested(value)
    return (_length(value) is not None and value != []) if not isinstance(value, dict) else False


def _in_order(samples: list[Sample]) -> list[Sample]:
    """By the numbers that they have, if all have one. Raises DataError: one comes twice."""
    numbered = sorted((sample for sample in samples if sample.number is not None), key=lambda sample: sample.number or 0)
    for before, after in pairwise(numbered):
        if before.number == after.number:
            raise DataError(f"{after.place}: sample {after.number} of its problem is in {before.place}, too; take one out")
    return numbered if len(numbered) == len(samples) else samples


def _repeated(problems: Sequence[tuple[Problem, Sequence[Sample]]]) -> list[str]:
    """Places of samples that another of their problem is alike to, in text, length and end, where no numbers tell them apart."""
    again = []
    for _, samples in problems:
        seen: set[tuple[Any, ...]] = set()
        for one in samples:
            key = (one.text, one.tokens, one.ended)
            if one.number is None and one.text and key in seen:
                again.append(one.place)
            seen.add(key)
    return again


def _with_ids(rows: Sequence[Row], problems: list[tuple[Problem, list[Sample]]], said: list[str]) -> list[tuple[Problem, list[Sample]]]:
    """The problems under the file's own ids, if those tell them apart: two samples of a problem have one, those of two problems two.

    Args:
        said: is told of ids that stand for several problems.
    """
    by_place = {row.place: row.values for row in rows}
    for name in _IDS:
        own = [{str(by_place[sample.place].get(name)) for sample in samples} for _, samples in problems]
        if all(name in by_place[sample.place] for _, samples in problems for sample in samples) and all(len(ids) == 1 for ids in own):
            ids = [next(iter(one)) for one in own]
            if len(set(ids)) == len(ids):
                return [(replace(problem, id=id_), samples) for id_, (problem, samples) in zip(ids, problems, strict=True)]
            twice = next(id_ for id_ in ids if ids.count(id_) > 1)
            (one, first), (other, second) = [problems[place] for place, id_ in enumerate(ids) if id_ == twice][:2]
            golds = "" if one.golds == other.golds else f", with the golds {one.answer!r:.40} and {other.answer!r:.40}"
            said.append(
                f"{name} {twice!r:.40} stands for two problems (in {first[0].place} and {second[0].place}{golds}), so problems are named by their texts"
            )
    return problems
