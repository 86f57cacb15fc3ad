"""Where problems come from: generated, or rows of files and hub sets in any of the layouts that `rollout.layouts` recognises, all read by position.

Claim: the problem at a position is a function of recipe and position alone, so a position is all that a checkpoint must
remember. Each set is walked in seeded permutations; several share the positions by weight, in slates of 1,000 whose order is seeded.
Rows whose gold cannot be judged are listed and left out, never skipped in silence.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

from recipes.columns import REFERENCE, NumberColumn
from recipes.data import Data, DataSet
from recipes.schema import Tiny
from rewards.golds import no_gold
from rewards.rows import DataError, Row, reach, read_rows
from rollout.layouts import Layout, family_of, golds_of, has, level_of, problem_of, recognise
from rollout.tiny.reference import with_reference
from rollout.tiny.task import HELD_OUT_PER_FAMILY
from rollout.tiny.task import problems as tiny_problems
from rollout.types import Problem

_SLATE = 1000  # positions over which the weights of several sets hold, to one part in 1,000
_INSTRUCTION = re.compile(
    r"step by step|\\boxed|\banswer:|(?:final|your) answer|^\W*(?:enter|give|express|write|provide|report|state) (?:the|an) answer",
    re.IGNORECASE,
)
_LABEL = re.compile(  # at the start of a line, of what is asked and of what is to come: "Q:", "Problem 3.", "### Response:", "Solve this problem:"
    r"(?:^|\n)\W{0,20}(?:(?:(?:please )?(?:solve|answer)|this is|here is) (?:this|the)(?: following| next)?(?: math(?:s|ematics|ematical)?)? )?"
    r"(?:problem|question|instruction|user|q|assistant|response|solution|answer|a)(?:[ \t]*\d{1,4})?[ \t*]*(?::|\.(?=\s)|\n|\Z)[ \t*]*",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\A\s*\(?\d{1,4}[.)]\s+")
_CONTEST = re.compile(r"\s*\((?:19|20)\d\d,? [A-Z][^()\n]{2,40}\)\s*\Z")
CheckGolds = Callable[[Sequence[str]], list[str | None]]
LeftOut = list[tuple[str, str]]


@dataclass
class Source:
    """Problems by position, without end.

    Attributes:
        name: what the recipe calls it.
        rows: usable rows; None for a source that makes its problems.
        left_out: (problem id, reason) of rows that cannot be used.
        said: one line a set: which layout was recognised, and which columns are used.
        problems: all usable problems of files and hub sets.
    """

    name: str
    at: Callable[[int], Problem]
    rows: int | None = None
    left_out: LeftOut = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def training_source(
    data: Data, tiny: Tiny, seed: int, check_golds: CheckGolds, columns: bool = False, numbers: Sequence[NumberColumn] = ()
) -> Source:
    """The recipe's training problems.

    Args:
        check_golds: for each gold the reason why it is unusable, or None (rewards.verifier.judge.Judge.check_golds).
        columns: keep the rows' other columns, which may be long.
        numbers: columns that must hold a number in every row (Recipe.number_columns).

    Raises:
        DataError: as `usable`, or a set that lacks numbers.
    """
    sets = data.sets
    taken: dict[str, Problem] = {}
    parts = [_one_source(one, tiny, seed, check_golds, columns, place, taken) for place, one in enumerate(sets, 1)]
    # plan asked the same of small files only: hub sets and large ones are read here first
    if lines := [line for one, part in zip(sets, parts, strict=True) for line in lacking(one.source, part.problems, numbers)]:
        raise DataError("\n".join(lines))
    share_columns([problem for part in parts for problem in part.problems])
    if len(parts) == 1:
        return parts[0]
    counts = shares([one.weight for one in sets])

    def at(position: int) -> Problem:
        index, own = _dealt(counts, seed, position)
        return parts[index].at(own)

    return Source(
        " + ".join(part.name for part in parts),
        at,
        None if any(part.rows is None for part in parts) else sum(part.rows or 0 for part in parts),
        [row for part in parts for row in part.left_out],
        [f"{words} ({count / _SLATE:.1%} of the positions)" for part, count in zip(parts, counts, strict=True) for words in part.said],
        [problem for part in parts for problem in part.problems],
    )


def lacking(source: str, problems: Sequence[Problem], numbers: Sequence[NumberColumn]) -> Iterator[str]:
    """One sentence for each number that a set, or a row of it, does not have."""
    for number in numbers:
        values = [reach(problem.columns, number.name) for problem in problems]
        if all(value is None for value in values) and not (source == "tiny" and number.name in REFERENCE):
            there = ", ".join(dict.fromkeys(str(name) for problem in problems for name in problem.columns)) or ", ".join(REFERENCE)
            other = " or name another" if number.reader.startswith("budget") else ""
            other += " or put a stage `reference` before" if number.name in REFERENCE else ""
            yield f"{source}: has no column {number.name}, which {number.reader} reads ({number.what}): add it{other}; there is {there:.300}"
        elif wrong := [index for index, value in enumerate(values) if not number.held_by(value)]:
            first = problems[wrong[0]]
            yield (
                f"{source}: {len(wrong)} of {len(values)} rows hold no {number.what} in {number.name}, which {number.reader} reads "
                f"(first: {first.id}: {values[wrong[0]]!r:.40}): correct them or take them out"
            )


def share_columns(problems: Sequence[Problem]) -> None:
    """Give every problem the columns of all of them, None where its row has no such column."""
    names = dict.fromkeys(name for problem in problems for name in problem.columns)
    for problem in problems:
        for name in names:
            problem.columns.setdefault(name, None)


def _one_source(
    one: DataSet, tiny: Tiny, seed: int, check_golds: CheckGolds, columns: bool, place: int, taken: dict[str, Problem]
) -> Source:
    """The set at a place of the list, 1-based. `taken`: the problems of those before it by id, to which its own are added."""
    if one.source == "tiny":

        def at(position: int) -> Problem:
            [problem] = tiny_problems("train", tiny.families, seed, position, 1)
            return with_reference(problem, tiny) if columns else problem

        return Source("tiny", at, said=["tiny: generated"])
    found, left_out, said, _ = usable(one, check_golds, columns)
    kept = [  # a row that another set reads by other columns is another problem
        problem if taken.setdefault(problem.id, problem) == problem else replace(problem, id=f"{problem.id}#{place}") for problem in found
    ]
    return Source(one.source, lambda position: kept[_shuffled(position, len(kept), seed)], len(kept), left_out, [said], kept)


class Held(NamedTuple):
    """Problems of an evaluation set, what was left out, what there is to say of it, and the hub's commit, "" if it is not of the hub."""

    problems: list[Problem]
    left_out: LeftOut
    said: list[str]
    commit: str


def heldout_problems(one: DataSet, tiny: Tiny, count: int, seed: int, check_golds: CheckGolds, lent: Data | None = None) -> Held:
    """`count` problems to evaluate on (0: all). `lent`: see `usable`.

    Rows that ask the same (text, system and golds) are one problem, whose `repeats` says how many they were: copies add samples, not evidence.
    """
    if one.source == "tiny":
        return Held(tiny_problems("heldout", tiny.families, seed, 0, count or HELD_OUT_PER_FAMILY * len(tiny.families)), [], [], "")
    kept, left_out, said, commit = usable(one, check_golds, lent=lent)
    problems, words = chosen(one.source, kept, count)
    return Held(problems, left_out, [said, *words], commit)


def chosen(source: str, problems: Sequence[Problem], count: int) -> tuple[list[Problem], list[str]]:
    """`count` of the different problems of an evaluation set (0: all), the same whatever the seed, and what there is to say of it."""
    different = _merged(problems)
    repeated = f"{source}: {len(problems)} rows ask {len(different)} different problems: each counts once, with the samples of all its rows"
    taken = np.sort(np.random.default_rng(0).permutation(len(different))[: count or len(different)])
    return [different[index] for index in taken], [repeated] * (len(different) < len(problems))


def _merged(problems: Sequence[Problem]) -> list[Problem]:
    """Each problem once, in the order of first rows, with the number of its rows."""
    first: dict[tuple[str, str, tuple[str, ...]], Problem] = {}
    for problem in problems:
        key = (normalised(problem.text), problem.system, problem.golds)
        first[key] = replace(first[key], repeats=first[key].repeats + 1) if key in first else problem
    return list(first.values())


class Usable(NamedTuple):
    """The problems of a set that have a gold, (id, reason) of its other rows, the line that says how it was read, and the hub's commit, "" if it is not of the hub."""

    problems: list[Problem]
    left_out: LeftOut
    said: str
    commit: str


def usable(one: DataSet, check_golds: CheckGolds, columns: bool = False, lent: Data | None = None) -> Usable:
    """What of a set can be used.

    Files of a folder whose columns are not those of the others are recognised on their own.

    Args:
        columns: keep the whole rows.
        lent: names columns for training, which an evaluation set takes where it has them and names none itself.

    Raises:
        DataError: not there, no data, columns that are missing or not recognised, or no row that can be used.
    """
    read = read_rows(one.source, one.split or "train")
    lacking = ""
    if lent is not None:
        one = _lent(read.rows, one, lent)
        absent = [
            f"no field {path!r}, which data.{name} names"
            for name in ("problem", "answer")
            if (path := getattr(lent, name)) and not getattr(one, name)
        ]
        lacking = "".join(f"; {words}" for words in absent)
    problems: list[Problem] = []
    left_out: LeftOut = []
    layouts: list[str] = []
    for rows, layout in _layouts(read.rows, one):
        layouts.append(layout.words)
        for row in rows:
            id_ = f"{read.name}@{read.revision}/{row.key}"
            try:
                problems.append(_problem(id_, row, layout, columns))
            except DataError as error:
                left_out.append((id_, str(error)))
    kept, goldless = audited(problems, check_golds)
    left_out += goldless
    if not kept:
        raise DataError(
            f"{one.source}: none of its {len(read.rows)} rows has a usable problem and gold answer (first: {left_out[0][1]}); look at data.problem and data.answer"
        )
    at = f" of commit {read.commit}" if read.commit else ""
    said = f"{one.source}: {len(read.rows):,} rows{at}, {'; others: '.join(dict.fromkeys(layouts))}{lacking}"
    return Usable(kept, left_out, said, read.commit)


def _lent(rows: Sequence[Row], one: DataSet, data: Data) -> DataSet:
    """An evaluation set with those of data.problem and data.answer that its rows have."""
    columns = {"problem": one.problem or data.problem, "answer": one.answer or data.answer}
    return one.model_copy(update={name: path for name, path in columns.items() if path is not None and has(rows, path)})


def _layouts(rows: Sequence[Row], one: DataSet) -> list[tuple[list[Row], Layout]]:
    """Rows with their layout: one for all files but those in which the columns of the problem or of the gold are nowhere."""
    files: dict[str, list[Row]] = {}
    for row in rows:
        files.setdefault(row.place.rpartition(":")[0], []).append(row)
    layout, found = recognise(rows, one.problem, one.answer), []
    for held in files.values():
        there = all(any(reach(row.values, path) is not None for row in held) for path in (layout.problem, layout.answer))
        found.append((held, layout if there or len(files) == 1 else recognise(held, one.problem, one.answer)))
    return found


def _problem(id_: str, row: Row, layout: Layout, columns: bool) -> Problem:
    text, system = map(sys.intern, problem_of(row, layout))
    answer, *others = golds_of(row, layout) or ("",)
    level = level_of(row.values.get(layout.level)) if layout.level else 0
    return Problem(id_, text, answer, family_of(row, layout), level, tuple(others), system, columns=row.values if columns else {})


def audited(problems: Sequence[Problem], check_golds: CheckGolds) -> tuple[list[Problem], LeftOut]:
    """Problems with the golds that can be judged, and (id, reason) of those that have none."""
    missing = {gold: no_gold(gold) for gold in dict.fromkeys(gold for problem in problems for gold in problem.golds)}
    asked = [gold for gold, reason in missing.items() if reason is None]
    reasons = missing | dict(zip(asked, check_golds(asked), strict=True))
    kept, left_out = [], []
    for problem in problems:
        golds = [gold for gold in problem.golds if reasons[gold] is None]
        if golds:
            kept.append(replace(problem, answer=golds[0], others=tuple(golds[1:])))
        else:
            left_out.append((problem.id, str(reasons[problem.answer])))
    return kept, left_out


def normalised(text: str) -> str:
    """A text as problems are compared: case, spaces but between numbers, dollar signs and punctuation at its ends do not count."""
    return re.sub(r"[\s$]+|\\[()\[\],;:! ]", "", re.sub(r"(?<=\d)[\s$]+(?=\d)", "_", text)).casefold().strip(".,:;?")


def overlaps(training: Iterable[Problem], held_out: Iterable[Problem]) -> list[tuple[str, str]]:
    """(training id, evaluation id) of training rows that ask what an evaluation asks (`normalised`), whatever instructions stand around it.

    Sentences that say how to answer do not count, nor what blank lines set off from the problem, on either side.
    """
    asked: dict[str, str] = {}
    inside: dict[str, str] = {}
    for problem in held_out:
        whole, *parts = _askings(problem.text)
        asked[whole] = problem.id
        inside |= dict.fromkeys(parts, problem.id)

    @cache  # sets repeat their problems: DAPO's holds each a hundred times
    def hit(text: str) -> str | None:
        whole, *parts = _askings(text)
        return asked.get(whole) or inside.get(whole) or next((asked[part] for part in parts if part in asked), None)

    return [(problem.id, found) for problem in training if (found := hit(problem.text)) is not None]


def _askings(text: str) -> list[str]:
    """What a text may ask: all of it, then each run of its blocks."""
    parted = _CONTEST.sub("", _NUMBER.sub("", _LABEL.sub("\n\n", text)))
    blocks = [block for block in (_without_instructions(block) for block in parted.split("\n\n")) if normalised(block)] or [text]
    most = min(len(blocks), 6)
    runs = ((first, last) for first in range(most) for last in range(len(blocks), max(first, len(blocks) - most), -1))
    return [normalised("\n\n".join(blocks[first:last])) for first, last in runs]


def _without_instructions(text: str) -> str:
    sentences = re.split(r"(?<=[.!?])\s+|\n", text)
    return " ".join(sentence for sentence in sentences if not _INSTRUCTION.search(sentence))


def shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Positions of a slate of 1,000 for each weight, by largest remainder; at least one each."""
    exact = np.array(weights) / sum(weights) * (_SLATE - len(weights))
    counts = np.floor(exact).astype(int)
    for index in np.argsort(counts - exact, kind="stable")[: _SLATE - len(weights) - int(counts.sum())]:
        counts[index] += 1
    return tuple(int(count) + 1 for count in counts)


def blended(sizes: Sequence[int], weights: Sequence[float], seed: int) -> Callable[[int], tuple[int, int]]:
    """(set, row) at a position of the endless stream that sets of these sizes make: by weight, each walked in seeded permutations."""
    counts = shares(weights) if len(sizes) > 1 else ()

    def at(position: int) -> tuple[int, int]:
        index, own = _dealt(counts, seed, position) if counts else (0, position)
        return index, _shuffled(own, sizes[index], seed)

    return at


def _dealt(counts: tuple[int, ...], seed: int, position: int) -> tuple[int, int]:
    """The set that a position belongs to, and which of that set's own positions it is."""
    slate, offset = divmod(position, _SLATE)
    index, rank = _slate(counts, seed, slate)[offset]
    return index, slate * counts[index] + rank


@lru_cache(maxsize=2)
def _slate(counts: tuple[int, ...], seed: int, slate: int) -> list[tuple[int, int]]:
    """For each position of a slate its set, and which of the slate's positions of that set it is."""
    order = np.random.default_rng([seed, slate, len(counts)]).permutation(np.repeat(np.arange(len(counts)), counts))
    seen = [0] * len(counts)
    placed = []
    for index in order.tolist():
        placed.append((index, seen[index]))
        seen[index] += 1
    return placed


def _shuffled(position: int, rows: int, seed: int) -> int:
    """Row at a position of an endless stream of seeded permutations."""
    epoch, offset = divmod(position, rows)
    return int(_permutation(rows, seed, epoch)[offset])


@lru_cache(maxsize=8)
def _permutation(rows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(rows)
