"""The problems of a run, read and checked before anything is started: what is trained on, what is held out, and what is left out of either."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from evaluation import benchmarks
from launch.memory import evaluates, many
from recipes.schema import Recipe
from rewards.rows import DataError
from rewards.verifier.judge import Judge
from rl.progress import Progress
from rollout.sources import Source, chosen, heldout_problems, overlaps
from rollout.template import Template
from rollout.types import Problem

_LONGEST_NAME = 60  # characters of any alphabet, of at most 4 bytes; file systems take 255 bytes, and a name gets prefix, number and suffix


@dataclass(frozen=True)
class HeldOut:
    """Problems of one evaluation source, the rows that cannot be used, and what there is to say of it.

    Attributes:
        revision: commit of the hub's set, "" for what is not of the hub.
        samples: of a problem that a benchmark's protocol takes; None for other sources.
    """

    name: str
    problems: list[Problem]
    left_out: list[tuple[str, str]]
    said: list[str] = field(default_factory=list)
    revision: str = ""
    samples: int | None = None


def held_out(recipe: Recipe, judge: Judge, held: Mapping[str, str] | None = None) -> list[HeldOut]:
    """The evaluation problems of a recipe, of its sets and then of its benchmarks; empty if it evaluates nothing.
    `held`: commits of the hub by source, which benchmarks that pin none are read of."""
    if not evaluates(recipe):
        return []
    sets, names = recipe.held_out_sets, recipe.held_out_names
    found = [
        HeldOut(name, *heldout_problems(one, recipe.tiny, recipe.eval.problems, recipe.seed, judge.check_golds, recipe.data))
        for name, one in zip(names, sets, strict=False)
    ]
    words = zip(names[len(sets) :], recipe.eval.benchmarks, strict=True)
    return found + [_benchmark(name, word, recipe, judge, (held or {}).get(name, "")) for name, word in words]


def _benchmark(name: str, word: str, recipe: Recipe, judge: Judge, commit: str) -> HeldOut:
    """A benchmark's problems; where the recipe asks for no form of answer, the directive of the protocol stands behind each."""
    kept, left_out, said, commit = benchmarks.load_at(word, commit, judge.check_golds)
    problems, words = chosen(name, kept, recipe.eval.problems)
    if not recipe.data.instruction:
        problems = [replace(problem, text=f"{problem.text}\n\n{benchmarks.DIRECTIVE}") for problem in problems]
    return HeldOut(name, problems, left_out, [said, *words], commit, benchmarks.find(word)[0].samples)


def fitting(part: HeldOut, template: Template, most: int) -> HeldOut:
    """The part without problems whose prompts exceed `most` tokens, which engines keep no room for."""
    sized = [(problem, len(template.prompt_ids(problem))) for problem in part.problems]
    kept = [problem for problem, tokens in sized if tokens <= most]
    long = [(problem.id, f"prompt of {tokens} tokens, data.max_prompt_tokens is {most}") for problem, tokens in sized if tokens > most]
    if not kept:
        raise DataError(f"{part.name}: all {len(long)} prompts exceed data.max_prompt_tokens {most}; raise it")
    return replace(part, problems=kept, left_out=part.left_out + long)


def some_fit(source: Source, template: Template, most: int) -> None:
    """Refuse training data of which nothing that is drawn first fits, before engines start. Raises DataError."""
    drawn = [source.at(position) for position in range(min(256, source.rows or 16))]
    shortest = min(len(template.prompt_ids(problem)) for problem in drawn)
    if shortest > most:
        raise DataError(
            f"{source.name}: the first {len(drawn)} prompts drawn all exceed data.max_prompt_tokens {most}, the shortest by {shortest - most}; raise it"
        )


def file_names(sources: Sequence[str]) -> list[str]:
    """Names for the files of evaluation sources: the last part of each, or all of it where several end alike, or a number."""
    short = [_file_name(Path(source).name) for source in sources]
    names = [name if short.count(name) == 1 else _file_name(source) for name, source in zip(short, sources, strict=True)]
    taken, again = set(names), {name for name in names if names.count(name) > 1}
    for index, name in enumerate(names):
        if name in again:
            names[index] = next(free for number in count(1) if (free := f"{name}-{number}") not in taken)
            taken.add(names[index])
    return names


def _file_name(source: str) -> str:
    return re.sub(r"[^\w.-]+", "-", source.removeprefix("hub:").removesuffix(".jsonl"))[-_LONGEST_NAME:].strip("-.") or "data"


def list_left_out(progress: Progress, path: Path, source: str, left_out: list[tuple[str, str]]) -> None:
    """Say which rows cannot be used: five of them and their number here, all of them in the JSON-lines file `path`."""
    if not left_out:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"row": where, "reason": reason}) + "\n" for where, reason in left_out), encoding="utf-8")
    for words in left_out_words(source, left_out, f", listed in {path}"):
        progress.message(words)


def left_out_words(source: str, left_out: Sequence[tuple[str, str]], listed: str = "") -> list[str]:
    """Five of the rows that cannot be used, and their number; nothing without any."""
    few = [f"left out {where}: {reason}" for where, reason in left_out[:5]]
    return few + [f"{source}: {many(len(left_out), 'row')} left out{listed}"] * bool(left_out)


def list_overlap(progress: Progress, path: Path, source: Source, heldout: Sequence[HeldOut]) -> None:
    """Say which training rows ask what an evaluation asks, and list all of them in the JSON-lines file `path`. Nothing is left out for it."""
    found = [(part.name, *pair) for part in heldout for pair in overlaps(source.problems, part.problems)]
    if not found:
        return
    path.write_text("".join(json.dumps({"eval": name, "train_row": row, "eval_row": other}) + "\n" for name, row, other in found))
    for name in dict.fromkeys(name for name, _, _ in found):
        rows = [row for part, row, _ in found if part == name]
        few = ", ".join(rows[:3]) + ", ..." * (len(rows) > 3)
        progress.message(f"{len(rows)} training rows are also rows of {name} ({few}), listed in {path}")
