"""Which columns of a data set hold the problem, its golds, its family and its level, recognised by what they are called and hold.

Claim: sets differ in a few names and forms, not in kind, so lists of names in order of preference serve those that people
train and test on, also renamed and copied: no set is known by its own name. Columns that the recipe names win.
A chat (a list of turns) gives its last user turn as the problem and its system turns as `system`; earlier turns are dropped.
Columns (looked up November 2026): DeepScaleR, Big-Math, NuminaMath-1.5, OpenR1-Math, Omni-MATH, POLARIS: problem, answer. NuminaMath-CoT, MATH:
problem, solution. GSM8K: question, answer with ####. verl (DAPO, Skywork-OR1): prompt, reward_model.ground_truth.
OlympiadBench: context, question, final_answer. OpenMathReasoning: problem, expected_answer. TRL: prompt, completion or solution.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rewards.golds import golds, marked
from rewards.rows import DataError, Row, is_turn, nested, reach
from rewards.thinking import THOUGHTS, split

PROBLEMS = ["problem", "question_concat", "question", "problem_statement", "question_text", "prompt", "query", "instruction", "input"]
CHATS = ["messages", "conversations", "conversation"]
_BEFORE = {"question": ["context", "body"]}  # a passage, an earlier part
BEHIND = {"instruction": ["input", "context"]}  # Alpaca's and Dolly's: what the instruction is about
_PLAIN = ["reward_model.ground_truth", "ground_truth", "final_answer", "expected_answer", "gt_answer", "verifiable_answer"]
_PLAIN += ["correct_answer", "reference_answer", "answer", "answers", "gold", "golds", "target", "gt", "label"]
_WORKED = ["solution", "response", "output", "completion", *CHATS]
_FAMILY = [
    "family",
    "subfield",
    "subject",
    "type",
    "topic",
    "domain",
    "category",
    "problem_source",
    "problem_type",
    "data_source",
    "source",
]
_LEVEL = ["level", "difficulty", "difficulty_level"]
_WORDS = 4  # more of them, outside of formulas, are no answer but a sentence
SURROGATE = re.compile("[\ud800-\udfff]")
SAMPLE = 1000  # rows that are looked at to tell columns apart
_MOST_FAMILIES = 200  # a column with more values tells rows apart, not families


@dataclass(frozen=True)
class Layout:
    """Columns in use, as dotted paths; None where there is none.

    Attributes:
        before, behind: a text set before the problem, or behind it.
        worked: golds are what worked solutions mark; of a text that marks nothing, it is itself the gold if it is short.
        chat: problems are chats.
    """

    problem: str
    answer: str
    before: str | None
    behind: str | None
    family: str | None
    level: str | None
    worked: bool
    chat: bool

    @property
    def words(self) -> str:
        """One line for people."""
        kind = "chats" if self.chat else "worked solutions" if self.worked else "problems and answers"
        if self.answer.startswith("reward_model."):
            kind = "verl's layout"
        parts = [
            f"problem from {' and '.join(filter(None, (self.before, self.problem, self.behind)))}{' (last user turn)' if self.chat else ''}",
            f"gold from {self.answer}{' (what its text marks as the answer)' if self.worked else ''}",
            *([f"family from {self.family}"] if self.family else []),
            *([f"level from {self.level}"] if self.level else []),
        ]
        return f"{kind}: {', '.join(parts)}"


def recognise(rows: Sequence[Row], problem: str | None = None, answer: str | None = None) -> Layout:
    """The layout of a set's rows; `problem` and `answer` are paths that the recipe names.

    Raises:
        DataError: a named column that no row has, or none recognised; names the columns that are there.
    """
    sample = [row.values for row in rows[:SAMPLE]]
    problem = (
        named_column(rows, problem, "problem") or first_column(sample, PROBLEMS + CHATS, holds_text) or first_column(sample, PROBLEMS, _any)
    )
    if problem is None:
        raise DataError(_unknown(rows[0], "the problem", "data.problem"))
    behind = beside(sample, problem, BEHIND, {problem, answer})
    used = {problem, behind} - set(CHATS)
    answer = (
        named_column(rows, answer, "answer")
        or first_column(sample, _PLAIN, _holds_gold, used)
        or first_column(sample, _WORKED, _holds_gold, used)
        or first_column(sample, [*_PLAIN, *_WORKED], _any, used)
    )
    if answer is None:
        raise DataError(_unknown(rows[0], "the gold answer", "data.answer"))
    texts = [text for row in sample if isinstance(text := _gold_value(reach(row, answer)), str) and text.strip()]
    family, passed = None, {problem, answer}
    while (family := first_column(sample, _FAMILY, _family, passed)) and len(
        {_family(reach(row, family)) for row in sample}
    ) > _MOST_FAMILIES:
        passed.add(family)
    level = first_column(sample, _LEVEL, level_of, {problem, answer})
    if level and _solve_rates([str(reach(row, level)) for row in sample]):
        level = None
    chats = sum(turns_of(reach(row, problem)) is not None for row in sample)
    return Layout(
        problem,
        answer,
        beside(sample, problem, _BEFORE, {problem, answer}),
        behind,
        family,
        level,
        worked=_worked(answer, texts),
        chat=2 * chats > len(sample),
    )


def problem_of(row: Row, layout: Layout) -> tuple[str, str]:
    """(problem text, system text) of a row.

    Raises:
        DataError: no text that is not empty, or that is no Unicode, or a chat without a user turn (file, line and column).
    """
    value = reach(row.values, layout.problem)
    turns = turns_of(value)
    if turns is None:
        text, system = value, ""
    else:
        text = next((content for role, content in reversed(turns) if role in ("user", "human")), None)
        system = "\n\n".join(content for role, content in turns if role in ("system", "developer"))
    what = "a text" if turns is None else "a chat with a user turn"
    if not isinstance(text, str) or not text.strip():
        raise DataError(
            f"{row.place}: {layout.problem} is {value!r:.80}: it must be {what} that is not empty; correct it or set data.problem"
        )
    before, behind = (reach(row.values, path) if path else None for path in (layout.before, layout.behind))
    if isinstance(before, str) and before.strip() and before.strip() not in text:
        text = f"{before.strip()}\n\n{text}"
    if isinstance(behind, str) and behind.strip():
        text = f"{text}\n\n{behind.strip()}"
    if SURROGATE.search(text + system):
        raise DataError(f"{row.place}: {layout.problem} holds half of a character (a surrogate), so it is no text; correct it")
    return text, system


def golds_of(row: Row, layout: Layout) -> tuple[str, ...]:
    """The golds of a row, any of which will do; () for none.

    Raises:
        DataError: a value that can be no gold (file, line and column).
    """
    value = _gold_value(reach(row.values, layout.answer))
    try:
        found = golds(value)
    except ValueError as error:
        raise DataError(f"{row.place}: {layout.answer} is {value!r:.80}: {error}; correct it or set data.answer") from error
    return tuple(gold for text in found if (gold := _gold(text, layout.worked)) is not None)


def _gold(text: str, worked: bool) -> str | None:
    """What a solution marks; an answer as it stands; None for a solution that marks nothing, or whose thinking never closed."""
    if worked:
        thinking, answer = split(text)
        if answer is None:
            return None
        text = answer.strip() if thinking else text
    if (worked or "\n" in text) and (gold := marked(text)) is not None:
        return gold
    words = re.findall(r"[^\W\d_]{2,}", re.sub(r"\$[^$]*\$|\\[a-zA-Z]+", "", text))
    brief = "\n" not in text.strip() and len(words) <= _WORDS and (re.search(r"[\d$\\=]", text) or not text.rstrip().endswith("."))
    return text if brief or not worked else None


def family_of(row: Row, layout: Layout) -> str:
    return _family(reach(row.values, layout.family)) if layout.family else ""


def level_of(value: Any) -> int:
    """A whole level from 1 on: 5, "5", "Level 5", 4.5 (rounded down); 0 for anything else ("3/8" is a solve rate, "Level ?" unknown)."""
    found = re.fullmatch(r"(?:(?:level|difficulty|grade)[\s:_-]*)?(\d{1,6}(?:\.\d+)?)", str(value).strip(), re.IGNORECASE)
    return int(float(found.group(1))) if found and found.group(1).isascii() and not isinstance(value, bool) else 0


def _solve_rates(values: Sequence[str]) -> bool:
    """Shares of samples that solved a problem, from 0 to 1, in place of levels."""
    numbers = [float(value) for value in values if re.fullmatch(r"\d+(?:\.\d*)?|\.\d+", value)]
    return any(0 < number < 1 for number in numbers) and max(numbers) <= 1


def _family(value: Any) -> str:
    value = nested(value)
    if isinstance(value, list):
        value = value[0] if value else None
    return "" if value is None or isinstance(value, dict) else str(value)


def beside(sample: Sequence[dict[str, Any]], problem: str, columns: dict[str, list[str]], used: set[str | None]) -> str | None:
    """The column of a text that belongs to the problem's."""
    return first_column(sample, columns.get(short(problem), []), lambda value: isinstance(value, str) and value.strip(), used)


def named_column(rows: Sequence[Row], path: str | None, key: str) -> str | None:
    """A path that the recipe names, which some row must have."""
    if path is not None and not has(rows, path):
        names = ", ".join(sorted(map(str, rows[0].values)))
        raise DataError(f"{rows[0].place}: no field {path!r}; it has {names}. Set data.{key} in the recipe, or {key} of the set")
    return path


def has(rows: Sequence[Row], path: str) -> bool:
    """Whether some row has a path."""
    return any(row.has(path) for row in rows)


def _unknown(row: Row, what: str, key: str) -> str:
    names = ", ".join(sorted(map(str, row.values))) or "no columns"
    return f"{row.place}: no column was recognised as {what}; it has {names}. Set data.problem and data.answer in the recipe, or problem and answer of the set ({key} here)"


def first_column(sample: Sequence[dict[str, Any]], candidates: Sequence[str], holds: Any, but: set[Any] = frozenset()) -> str | None:  # type: ignore[assignment]
    """The first candidate, whatever its case and spelling, that holds something in half as many rows as the one that does in most."""
    counts: dict[str, int] = {}
    for candidate in candidates:
        for path in dict.fromkeys(path for row in sample if (path := _path(row, candidate)) is not None):
            if path not in but and path not in counts:
                counts[path] = sum(bool(holds(reach(row, path))) for row in sample)
    return next((path for path, count in counts.items() if count and 2 * count >= max(counts.values())), None)


def _path(row: dict[str, Any], candidate: str) -> str | None:
    """The names by which a row has a dotted candidate: `Expected Answer` for expected_answer."""
    head, _, rest = candidate.partition(".")
    for name in row:
        if short(str(name)) == short(head):
            if not rest:
                return str(name)
            inner = nested(row[name])
            below = _path(inner, rest) if isinstance(inner, dict) else None
            return f"{name}.{below}" if below else None
    return None


def short(name: str) -> str:
    """A name without what its spellings differ in: `Expected Answer` and expected_answer are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _worked(answer: str, values: Sequence[str]) -> bool:
    """Whether a column holds worked solutions: its name says so, or most of its samples mark an answer."""
    return short(answer) in map(short, _WORKED) or 2 * sum(marked(text) is not None for text in values) > len(values)


def _any(value: Any) -> bool:
    """Holds also for a column without a value, whose rows are then named one by one."""
    return True


def _holds_gold(value: Any) -> bool:
    return value not in (None, "", [])


def holds_text(value: Any) -> bool:
    return bool(isinstance(value, str) and value.strip()) or turns_of(value) is not None


def turns_of(value: Any) -> list[tuple[str, str]] | None:
    """(role, text) of a chat's turns, also of one written as a JSON text; None if it is no chat."""
    value = nested(value) if isinstance(value, str) and "[" in value[:10] else value
    if not isinstance(value, list) or not value or not all(is_turn(turn) for turn in value):
        return None
    return [(str(turn.get("role", turn.get("from"))).lower(), _content(turn.get("content", turn.get("value")))) for turn in value]


def _content(value: Any) -> str:
    """A turn's text; of parts (`{"type": "text", "text": ...}`), their texts."""
    if isinstance(value, list):
        said = [part for part in value if not (isinstance(part, dict) and part.get("type") in THOUGHTS)]
        return "".join(str(part.get("text") or "") if isinstance(part, dict) else str(part) for part in said)
    return "" if value is None else str(value)


def _gold_value(value: Any) -> Any:
    """Of a chat, what its last turn that is no user's says; anything else as it is."""
    turns = turns_of(value)
    if turns is None:
        return value
    chat = nested(value) if isinstance(value, str) else value
    spoken = (turn for turn, (role, _) in zip(reversed(chat), reversed(turns), strict=True) if role not in ("user", "human", "system"))
    last: dict[str, Any] = next(spoken, {})
    return last.get("ground_truth") or _content(last.get("content", last.get("value"))) or None
