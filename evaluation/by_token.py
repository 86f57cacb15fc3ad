"""What a page tells of single tokens: how surprising each was, who put it there, and what it trained with.

Claim: texts of tokens are those of the tokenizer beside the run's weights, and only if they add up to the rollout's text; else token numbers are shown.
Simplification: a few hundred rollouts carry tokens. A scale is one for the page and ends at the 98th percentile of absolute values: beyond, colours are alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from evaluation.run_folder import Run, read_columns
from rollout.records import BY_TOKEN
from rollout.types import FORCED

_ROLLOUTS, _TOKENS = 400, 200_000  # at most
_COLUMNS = ("rollout", "text", "think_tokens", "ids", "logprobs", "sources", "redundant", *(f"token_{name}" for name in BY_TOKEN))
Decode = Callable[[list[int]], str]


def carried(rows: dict[str, list[Any]], order: Iterable[int], runs: Sequence[Run]) -> dict[str, Any]:
    """Tokens of some rollouts, and where the scale of each measure ends.

    Args:
        rows: columns set, tokens, file and rollout.
        order: of the rows, as they get room.
        runs: of each set.

    Returns:
        `carried`, by row number {ids, texts (None: not known), answer (index of its first token), and a list for each measure}; `scales`.
    """
    files: dict[Path, dict[str, int]] = {}
    for row in _first(order, rows["tokens"]):
        files.setdefault(rows["file"][row], {})[rows["rollout"][row]] = row
    found: dict[int, dict[str, Any]] = {}
    decoders: dict[Path, Decode | None] = {}
    for file, wanted in files.items():
        run = runs[rows["set"][next(iter(wanted.values()))]]
        if run.path not in decoders:
            decoders[run.path] = _decoder(run)
        table = read_columns(run, file, _COLUMNS, filters=[("rollout", "in", list(wanted))])
        for one in [] if table is None else table.to_pylist():
            if one.get("ids"):
                found[wanted[one["rollout"]]] = _tokens(one, decoders[run.path])
    names = dict.fromkeys(name for one in found.values() for name in one if name not in ("ids", "texts", "answer"))
    scales = {name: _end([value for one in found.values() for value in one.get(name, ()) if value is not None]) for name in names}
    return {"carried": {str(row): found[row] for row in sorted(found)}, "scales": scales}


def _first(order: Iterable[int], tokens: Sequence[int | None]) -> Iterator[int]:
    """Rows as long as there is room."""
    room = _TOKENS
    for row in islice(order, _ROLLOUTS):
        room -= tokens[row] or 0
        if room < 0:
            return
        yield row


def _tokens(row: dict[str, Any], decode: Decode | None) -> dict[str, Any]:
    ids: list[int] = row["ids"]
    texts = pieces(ids, decode) if decode else None
    if texts and not "".join(texts).startswith(row["text"]):  # another tokenizer's
        texts = None
    source_T = np.array(row.get("sources") or [0] * len(ids))
    inside_T = np.zeros(len(ids))
    if span := row.get("redundant"):
        inside_T[span[0] : span[1]] = 1
    answer = None
    if row.get("think_tokens") is not None:  # counts sampled tokens only
        spent_T = np.concatenate([[0], np.cumsum(source_T != FORCED)])
        answer = int(np.searchsorted(spent_T, row["think_tokens"], "right")) - 1
    measures: dict[str, Any] = {
        "surprise": [-value for value in row.get("logprobs") or []],
        "source": source_T.tolist() if source_T.any() else None,
        "redundant": inside_T.astype(int).tolist() if span else None,
        **{name: row.get(f"token_{name}") for name in BY_TOKEN},
    }
    told = {name: [_short(value) for value in values] for name, values in measures.items() if values and len(values) == len(ids)}
    measured = {name: values for name, values in told.items() if any(value is not None for value in values)}
    return {"ids": ids, "texts": texts, "answer": answer, **measured}


def pieces(ids: Sequence[int], decode: Decode) -> list[str]:
    """The text of each token, which together are the text of all. Of a character in several tokens the last one has it."""
    texts: list[str] = []
    start, shown = 0, ""  # what is decoded anew begins with the last token that was whole, whose neighbour may need it
    for end in range(1, len(ids) + 1):
        text = decode(list(ids[start:end]))
        if text.endswith("\ufffd") and end < len(ids):
            texts.append("")
            continue
        texts.append(text[len(shown) :])
        start, shown = end - 1, decode([ids[end - 1]])
    return texts


def _decoder(run: Run) -> Decode | None:
    """Of the tokenizer beside the newest checkpoint, the model that training began with, or the checkpoint that was evaluated; all of them files here."""
    steps = sorted((run.path / "checkpoints").glob("step-*"), key=lambda path: (len(path.name), path.name), reverse=True)
    model = run.recipe.get("model")
    started = [Path(str(model["path"]))] if isinstance(model, dict) and model.get("path") else []
    for folder in [*steps, *started, *(Path(one.checkpoint) for one in run.evaluations)]:
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception:  # the library raises plain Exception, also where there is no file
            continue
        return lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False))
    return None


def _end(values: Sequence[float]) -> float:
    return _short(float(np.percentile(np.abs(values), 98))) or _short(float(np.abs(values).max(initial=0.0))) or 1.0


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.3g}")
