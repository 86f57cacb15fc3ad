"""The completions that a value of somebody's file or API holds: text, thinking that stands apart from it, and how each ended.

Claim: whatever tool wrote it, a completion is a text, a mapping around one, a chat's last turn, a list of parts, or a list of those; so lm-eval's, lighteval's
and evalscope's samples, answers of OpenAI's chat and responses APIs, of their batches, of Anthropic, Gemini, Mistral and Inspect are one case.
Simplification: what is neither text nor thinking (tool calls, pictures) says nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from rewards.rows import is_turn, nested, reach
from rewards.thinking import THINK, THOUGHTS, split

_INNER = ("content", "parts", "text", "value", "generation", "completion", "message", "choices", "output", "body", "candidates")
_SEVERAL = ("choices", "candidates")  # which go before a text that repeats the first of them
_OTHERS = ("user", "human", "system", "developer", "tool", "function")  # whose turn answers nothing
_THINKS = (*THOUGHTS, "reasoning_text", "redacted_thinking")  # kinds of parts
_THOUGHT = (*THOUGHTS, "text", "content", "summary")  # where a part of thinking has its text
FLAGS = frozenset(
    ["on", "off", "yes", "no", "true", "false", "none", "null", "auto", "default", "low", "medium", "high", "minimal"]
    + ["enabled", "disabled", "0", "1"]
)  # which say how much to think
FINISHES = (
    "finish",
    "finish_reason",
    "stop_reason",
    "finish_reasons",
    "stop_reasons",
    "finishReason",
    "finish_reason.type",
    "meta_info.finish_reason.type",
    "incomplete_details.reason",
)
_STATUSES = ("completed", "incomplete", "failed", "cancelled")  # of an answer of OpenAI's responses API
_CUTS = ("truncated", "is_truncated", "was_truncated")  # flags


class Said(NamedTuple):
    """A completion: its text, thinking that stood apart ("" where none did), and the file's own word for how it ended ("" where it has none)."""

    text: str
    thoughts: str = ""
    finish: str = ""

    @property
    def whole(self) -> str:
        """The text behind its thinking in `<think>`, which stays open where nothing was answered."""
        if not self.thoughts or split(self.text)[0]:
            return self.text
        return f"{THINK.open}\n{self.thoughts}" + (f"{THINK.close}\n\n{self.text}" if self.text else "")


_NOTHING = Said("")


def completions(value: Any, place: str, around: Said = _NOTHING) -> Iterator[Said]:
    """The completions of a value; null, and a chat that ends with another's turn, is a text without an answer.

    Args:
        place: for messages.
        around: what the mapping around says of thinking and end.

    Raises:
        ValueError: there is something else.
    """
    if isinstance(value, str) and isinstance(held := nested(value), list) and _are_samples(held):
        value = held
    if isinstance(value, list) and value and all(is_turn(turn) and "type" not in turn for turn in value):
        value = value[-1]
    if isinstance(value, dict) and is_turn(value) and str(value.get("role", value.get("from"))).lower() in _OTHERS:
        value = None
    if isinstance(value, dict) and (inner := _inner(value)):
        around = Said("", own_thoughts(value) or around.thoughts, next(iter(finishes(value)), failed(value) or around.finish))
        held = value[inner]
        yield from _ended([_of_parts(held, around)] if inner == "parts" and isinstance(held, list) else completions(held, place, around))
        return
    if isinstance(value, list) and value and all(isinstance(part, dict) and "type" in part for part in value):
        yield from _ended([_of_parts(value, around)])
        return
    if isinstance(value, list):
        if len(value) == 2 and value[1] in ("True", "False"):
            raise ValueError(
                f"{place} is {value!r:.80}: likelihoods of given choices, where texts are judged; name texts with --prediction"
            )
        for item in value:
            yield from completions(item, place, around)
        if not value and around != _NOTHING:  # whoever answered says how it ended, and nothing else
            yield around
        return
    if isinstance(value, dict) and (end := next(iter(finishes(value)), failed(value) or around.finish)):
        yield Said("", own_thoughts(value) or around.thoughts, end)
        return
    if isinstance(value, float) and math.isnan(value):
        value = None  # as pandas writes what is not there
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise ValueError(f"{place} is {value!r:.80}: it must be a text, a number or a list of those; name its path with --prediction")
    yield Said("" if value is None else str(value), around.thoughts, around.finish)


def thoughts_of(value: Any) -> str:
    """The text of thinking: a text, a part with one, or a list of those; a flag (on, high) says how much to think, and is none."""
    if isinstance(value, list):
        return "".join(map(thoughts_of, value))
    if isinstance(value, dict):
        return thoughts_of(next((value[name] for name in _THOUGHT if value.get(name)), ""))
    return value if isinstance(value, str) and value.strip() and value.strip().lower() not in FLAGS else ""


def own_thoughts(values: dict[str, Any]) -> str:
    """What a mapping holds of thinking under a name of its own."""
    return next((said for name in THOUGHTS if (said := thoughts_of(values.get(name)))), "")


def thoughts_beside(values: dict[str, Any], path: str, count: int) -> list[str]:
    """Of each of the completions at `path` the thinking that stands beside them, or in columns of the row: a list of as many, or of one alone its text."""
    for holder in _holders(values, path):
        for name in THOUGHTS:
            held = nested(holder.get(name))
            several = isinstance(held, list) and len(held) == count
            found = [thoughts_of(one) for one in held] if several else [thoughts_of(held)] * (count == 1)
            if any(found):
                return found
    return [""] * count


def finishes(values: dict[str, Any], path: str = "") -> list[str]:
    """What stands beside the completions at `path` on how they finished: one word, or one for each; empty if nothing does."""
    index = re.search(r"(?:\[-?\d+\])*$", path)
    holders = _holders(values, path)
    for holder in holders:
        for name in FINISHES:
            held = [nested(reach(holder, f"{name}{index[0] if index else ''}")), nested(reach(holder, name))]
            if said := next((words for one in held if (words := _words(one))), None):
                return said
    for flags in (nested(holder.get(name)) for holder in holders for name in _CUTS):
        said = ["truncated" if one in (True, "true", "True") else "" for one in (flags if isinstance(flags, list) else [flags])]
        if any(said):
            return said
    return [holder["status"] for holder in holders if isinstance(holder.get("output"), list) and holder.get("status") in _STATUSES][:1]


def _holders(values: dict[str, Any], path: str) -> list[dict[str, Any]]:
    """The mapping around what is at `path`, and the row."""
    parent = path.rpartition(".")[0]
    return [holder for holder in (reach(values, parent) if parent else None, values) if isinstance(holder, dict)]


def failed(values: dict[str, Any]) -> str:
    """The word for a completion that a mapping says failed ("error"), else "": an empty text beside it was never made."""
    error = values.get("error") or reach(values, "promptFeedback.blockReason")
    return "error" if (error and error == error) or values.get("type") in ("error", "errored") else ""  # NaN, as pandas writes it, is none


def _ended(found: Any) -> Iterator[Said]:
    """A failure is an end only of what says nothing."""
    for said in found:
        yield said._replace(finish="") if said.finish == "error" and said.text else said


def _inner(value: dict[str, Any]) -> str:
    """Where a mapping around completions has them."""
    several = next(
        (name for name in _SEVERAL if isinstance(value.get(name), list) and all(isinstance(one, dict) for one in value[name])), ""
    )
    return several or next((name for name in _INNER if name in value), "")


def _of_parts(parts: list[Any], around: Said) -> Said:
    """One completion of its parts: texts, messages with texts, thinking."""
    text, thoughts = [], []
    for part in parts:
        if not isinstance(part, dict):
            text.append(str(part))
        elif part.get("thought") is True or part.get("type") in _THINKS:
            thoughts.append(thoughts_of(part))
        elif isinstance(part.get("content"), list):
            inner = _of_parts(part["content"], around._replace(thoughts=""))
            text.append(inner.text)
            thoughts.append(inner.thoughts)
        else:
            held = part.get("text") or part.get("content")
            text.append(held if isinstance(held, str) else "")
    return around._replace(text="".join(text), thoughts="".join(thoughts) or around.thoughts)


def _are_samples(held: list[Any]) -> bool:
    """Whether the list that a text holds is one of completions: `[1, 2]` is an answer."""
    return any(held) and all(
        item is None or isinstance(item, str) or (isinstance(item, dict) and not item.keys().isdisjoint(_INNER)) for item in held
    )


def _words(value: Any) -> list[str]:
    """The texts of a text, or of a list of them, or of lists; a place without one is a text without a word. Empty where there is none at all."""
    if isinstance(value, list):
        words = [word for item in value for word in (_words(item) or [""])]
        return words if any(words) else []
    return [value] if isinstance(value, str) and value else []
