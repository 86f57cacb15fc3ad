"""All rollouts of a report in its page, packed: the samples of the evaluations shown and those that training kept, as columns.

Claim: each rollout has its row, so that counts are those of the files; a problem's text is there once. What does not fit are texts, and by one rule:
those of the lowest sample numbers of every problem are there, then problems evenly, before and after of a sample always together.
Simplification: thinking and answer are told apart by the marks in the text (rewards/thinking); lengths are the judge's.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from evaluation.by_token import carried
from evaluation.entries import ACCENT, Shown, at_budgets
from evaluation.examples import split_thinking
from evaluation.run_folder import Run, read_columns
from rollout.records import CHARACTERS

_MOST = 10_000_000  # characters that all of it may take, packed: the page stays under 15 MB
_OF_PROBLEM = ("problem_id", "family", "level", "problem", "answer", "golds")
_OF_ROW = ("step", "sample", "tokens", "think_tokens", "finish", "verdict", "reason", "extracted", "reward", "advantage", "rollout", "text")
_EVENLY = (5**0.5 - 1) / 2  # its multiples, modulo 1, fill the interval evenly however many there are

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class _Set:
    """Rollouts under one label: of an evaluation, or without `source` of training. `at`: the budget that they were sampled at, "" for none."""

    label: str
    colour: str
    source: str
    run: Run
    tables: Mapping[Path, pa.Table]
    at: str = ""
    told: bool = True  # somebody counted thinking

    @property
    def unit(self) -> str:
        """Of its lengths."""
        rulers = {(table.schema.metadata or {}).get(b"template", b"").decode() for table in self.tables.values()}
        return CHARACTERS if rulers == {CHARACTERS} else "tokens"


def packed(text: str) -> str:
    """Text as base64 of its deflate, as page.js unpacks it."""
    return base64.b64encode(zlib.compress(text.encode(), 6)).decode()


def reader(runs: Sequence[Run], shown: Mapping[str, Sequence[Shown]], most: int = _MOST) -> dict[str, Any]:
    """What the reader's template shows: `payload` (packed), `sets` (names by number), and in words what is there and what is not.

    Args:
        most: characters that the payload may have.
    """
    sets = _sets(runs, shown)
    source = [one.source for one in sets]
    rows, problems = _columns(sets)
    rows["changed"] = _changed(rows, sets)
    rank_N = _rank(rows)
    turns = [row for row in _turns(rows, rank_N, source) if sets[rows["set"][row]].unit != CHARACTERS]  # whose ids are letters
    tokens = carried(rows, turns, [one.run for one in sets])
    told = [
        {"label": one.label, "colour": one.colour, "source": one.source, "unit": one.unit, "at": one.at, "told": one.told} for one in sets
    ]
    texts = [text or "" for text in rows.pop("text")]
    here = {name: column for name, column in rows.items() if name not in ("file", "rollout")}
    payload, kept = _fitting({"sets": told, "problems": problems, "rows": here} | tokens, texts, rank_N, most)
    lead = _lead(source, len(texts), kept, len(tokens["carried"]))
    return {"payload": payload, "sets": told, "count": len(texts), "several": len(shown) > 1, "lead": lead}


def _sets(runs: Sequence[Run], shown: Mapping[str, Sequence[Shown]]) -> list[_Set]:
    """Evaluations by source, then those at budgets (of a run the last at each), then what training kept, as far as their samples are there."""
    found = [
        _Set(one.label, one.colour, source, one.run, _tables(one.run, [one.evaluation.table]), told=one.evaluation.tells_thinking)
        for source, some in shown.items()
        for one in some
    ]
    for source in dict.fromkeys(one.source for run in runs for one in run.evaluations):
        last = {(run.label, one.settings.budget.words): (run, one) for run, one in at_budgets(runs, source) if one.settings.budget}
        for (label, budget), (run, one) in last.items():
            colour = next((other.colour for other in reversed(shown.get(source, [])) if other.run is run), ACCENT)
            called = f"{label}, {budget}" if len(runs) > 1 else budget
            found.append(_Set(called, colour, source, run, _tables(run, [one.table]), budget, one.tells_thinking))
    for run in runs:
        label = f"{run.label}, training" if len(runs) > 1 else "training"
        found.append(_Set(label, "", "", run, _tables(run, sorted((run.path / "samples").glob("step-*.parquet")))))
    return [one for one in found if one.tables]


def _tables(run: Run, files: Sequence[Path | None]) -> dict[Path, pa.Table]:
    read = {file: read_columns(run, file, (*_OF_PROBLEM, *_OF_ROW)) for file in files if file is not None}
    return {file: table for file, table in read.items() if table is not None and table.num_rows}


def _columns(sets: Sequence[_Set]) -> tuple[Columns, Columns]:
    """All rows, and the problems that they name by number. Rows of a problem stand together, and of a sample those of all labels: so they pack well."""
    rows: Columns = {name: [] for name in (*_OF_ROW, "set", "problem", "file")}
    problems: Columns = {name: [] for name in ("source", *_OF_PROBLEM)}
    place: dict[tuple[str, str], int] = {}
    for number, one in enumerate(sets):
        for file, table in one.tables.items():
            for name in _OF_ROW:
                rows[name] += _column(table, name)
            rows["set"] += [number] * table.num_rows
            rows["file"] += [file] * table.num_rows
            for values in zip(*(_column(table, name) for name in _OF_PROBLEM), strict=True):
                rows["problem"].append(place.setdefault((one.source, values[0]), len(place)))
                if len(place) > len(problems["source"]):
                    for name, value in zip(problems, (one.source, *values), strict=True):
                        problems[name].append(value)
    answers = problems.pop("answer")
    problems["golds"] = [golds or [answer] for golds, answer in zip(problems["golds"], answers, strict=True)]
    keys = [
        (problem, sample if sets[one].source else step, one, sample)
        for problem, sample, one, step in zip(*(rows[name] for name in ("problem", "sample", "set", "step")), strict=True)
    ]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return {name: [column[index] for index in order] for name, column in rows.items()}, problems


def _column(table: pa.Table, name: str) -> list[Any]:
    """Values of a column, whatever is no finite number as None; None for all that a file lacks."""
    if name not in table.column_names:
        return [None] * table.num_rows
    values: list[Any] = table[name].to_pylist()
    return [None if isinstance(value, float) and not math.isfinite(value) else value for value in values]


def _changed(rows: Columns, sets: Sequence[_Set]) -> list[int]:
    """1 where a problem's majority verdict (right in more than half of its samples) is another under this label than under the first of its source, or, at a
    budget, than its own run's without one; for rows under the first, than under any other without a budget."""
    right: dict[tuple[int, int], list[bool]] = {}
    for one, problem, verdict in zip(rows["set"], rows["problem"], rows["verdict"], strict=True):
        right.setdefault((one, problem), []).append(verdict == "right")
    majority = {key: 2 * sum(some) > len(some) for key, some in right.items()}
    base = [_base(place, sets) for place in range(len(sets))]
    differs = {
        (one, problem): bool(sets[one].source) and (base[one], problem) in majority and majority[base[one], problem] != won
        for (one, problem), won in majority.items()
    }
    for (one, problem), other in list(differs.items()):
        if other and not sets[one].at:
            differs[base[one], problem] = True
    return [int(differs[key]) for key in zip(rows["set"], rows["problem"], strict=True)]


def _base(place: int, sets: Sequence[_Set]) -> int:
    """The set that a set's verdicts are held against: the first of its source, or its own run's where it is at a budget."""
    own = sets[place]
    plain = [k for k, other in enumerate(sets) if other.source == own.source and not other.at]
    alike = [k for k in plain if sets[k].run is own.run] if own.at else plain[:1]
    return (alike or plain or [place])[-1]


def _rank(rows: Columns) -> np.ndarray:
    """Order in which rollouts get room, [N]: low samples first, of a sample the problems evenly; equal for the same sample of several labels."""
    sample_N, problem_N = np.array(rows["sample"], dtype=float), np.array(rows["problem"], dtype=float)
    return sample_N + problem_N * _EVENLY % 1


def _turns(rows: Columns, rank_N: np.ndarray, source: Sequence[str]) -> list[int]:
    """Rows that may carry tokens, the first ones first: one of training, newest steps first, then one of an evaluation, and so on."""
    order = np.argsort(rank_N, kind="stable").tolist()
    evaluated = [row for row in order if source[rows["set"][row]]]
    trained = sorted((row for row in order if not source[rows["set"][row]]), key=lambda row: -rows["step"][row])
    return [row for pair in zip_longest(trained, evaluated) for row in pair if row is not None]


def _fitting(content: dict[str, Any], texts: Sequence[str], rank_N: np.ndarray, most: int) -> tuple[str, int]:
    """The content with the texts that fit, packed, and how many these are."""
    order_N = np.argsort(rank_N, kind="stable")
    size_N = np.cumsum([len(texts[index]) for index in order_N])
    halves: dict[int, tuple[str, str]] = {}
    limit = 4.0 * most
    for _ in range(6):
        kept = int(np.searchsorted(size_N, limit, "right"))
        if 0 < kept < len(texts):  # all labels of a sample, or none
            kept = int(np.searchsorted(rank_N[order_N], rank_N[order_N[kept]], "left"))
        chosen = sorted(order_N[:kept].tolist())
        halves |= {index: split_thinking(texts[index]) for index in chosen if index not in halves}
        thinking: list[str | None] = [None] * len(texts)
        answer: list[str | None] = [None] * len(texts)
        for index in chosen:
            thinking[index], answer[index] = halves[index]
        payload = packed(
            json.dumps(content | {"thinking": thinking, "answer": answer}, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        )
        if not kept or (len(payload) <= most and (kept == len(texts) or len(payload) > 0.8 * most)):
            break
        limit = int(size_N[kept - 1]) * 0.9 * most / len(payload)
    return payload, kept


def _lead(source: Sequence[str], count: int, kept: int, tokens: int) -> str:
    rules = {"of evaluations the lowest sample numbers, problems evenly": any(source), "of training the newest steps": not all(source)}
    shown = {"of the evaluations above": any(source), "that training kept": not all(source)}
    sentences = [f"All {count:,} rollouts {_joined(shown)}."]
    if kept < count:
        sentences.append(
            f"{kept:,} of them have their text here, which is what fits: the lowest sample numbers of every problem first, then problems evenly, "
            "and of a sample before and after alike. The others are in the parquet files."
        )
    if tokens:
        sentences.append(f"{tokens:,} carry their tokens, with numbers: {_joined(rules)}.")
    return " ".join(sentences)


def _joined(words: Mapping[str, bool]) -> str:
    return " and ".join(word for word, holds in words.items() if holds)
