"""Conversations to learn from: rows of chats, or of prompts and completions, in the layouts that people have.

Claim: a prompt is the one that inference would see, and what is learned begins just behind it (rollout.template.Template.example). Each
answer of a chat is an example of its own, with what was said before it as its prompt.
Simplification: chats that call tools are left out; earlier answers stand in a prompt without their thinking, as chats are continued.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, NamedTuple

from recipes.schema import DataSet
from rewards.completions import FLAGS
from rewards.rows import DataError, Row, nested, reach, read_rows
from rewards.thinking import THOUGHTS, split
from rollout.layouts import BEHIND, CHATS, PROBLEMS, SAMPLE, SURROGATE, beside, first_column, holds_text, named_column, turns_of
from rollout.sources import LeftOut
from rollout.types import Example

if TYPE_CHECKING:  # loads transformers, which plan does without
    from rollout.template import Template

_COMPLETIONS = ["completion", "response", "output", "generated_solution", "generation", "assistant"]
_SOLUTIONS = ["solution", "answer"]  # completions only where they are worked out: in many sets they are bare golds
_NAMES = re.compile(r"reasoning|think|thought|trajector|(?:^|_)cot(?:_|$)", re.IGNORECASE)
_FEW = 3  # words
_WORDS = 10  # so many make a completion of a solution
_SYSTEM = ["system", "system_prompt"]
_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant", "developer": "system"}


class Conversation(NamedTuple):
    """What was said, and the answer to it, with its thinking if it has any. `place`: the row, for messages."""

    place: str
    turns: list[dict[str, str]]
    answer: str


def conversations(one: DataSet) -> tuple[list[Conversation], LeftOut, str]:
    """The conversations of a set, (row id, reason) of rows that hold none, and one line that says how it was read. No tokenizer is needed.

    Chats lie in `messages`, `conversations` or `conversation` (roles and texts under the names that rollout.layouts knows), completions in
    `completion`, `response`, `output` ... beside `prompt`, `question` ..., as texts or as turns. `problem` and `answer` of the set name others.

    Raises:
        DataError: not there, no data, or no completions.
    """
    read = read_rows(one.source, one.split or "train")
    chat, prompt, completion = _columns(read.rows, one)
    behind = beside([row.values for row in read.rows[:SAMPLE]], prompt, BEHIND, {completion}) if prompt else None
    thinking = _thinking_beside(read.rows, (chat, prompt, completion, behind), completion)
    found: list[Conversation] = []
    left_out: LeftOut = []
    for row in read.rows:
        try:
            turns = _chat(row, chat) if chat else _pair(row, prompt or "", completion or "", behind)
            if thinking and turns[-1]["role"] == "assistant" and not turns[-1]["thought"]:
                turns[-1]["thought"] = _thought(row.values.get(thinking))
            found += _answers(row.place, _with_system(row, turns))
        except DataError as error:
            left_out.append((f"{read.name}@{read.revision}/{row.key}", str(error)))
    if not found:
        raise DataError(f"{one.source}: none of its {len(read.rows)} rows holds a completion to learn from (first: {left_out[0][1]})")
    how = f"chats of {chat}" if chat else f"prompts of {' and '.join(filter(None, (prompt, behind)))}, completions of {completion}"
    how += f", their thinking of {thinking}" if thinking else ""
    said = f"{one.source}: {len(read.rows):,} rows, {how}: {len(found):,} answers to learn from"
    if not any(split(answer)[0] for *_, answer in found):
        unread = _texts(read.rows, {chat, prompt, completion, behind, *_SYSTEM})
        said += ", none of which thinks" + (f" (not read: {', '.join(unread)})" if unread else "")
    return found, left_out, said


def _thinking_beside(rows: Sequence[Row], taken: Sequence[str | None], answer: str | None) -> str | None:
    """The column that holds the thinking of completions, by its name: first of those that begin as the completion's does. None: there is none.

    One of a few words in all rows, the same again and again, says how much to think, or of what kind.
    """
    sample = rows[:SAMPLE]
    names = [name for name in dict.fromkeys(name for row in sample for name in row.values) if name not in taken and _NAMES.search(name)]
    told = [name for name in names if _tells([_thought(row.values.get(name)) for row in sample])]
    told.sort(key=lambda name: (name not in THOUGHTS, name.split("_")[0] != (answer or "").split("_")[0]))
    return told[0] if told else None


def _tells(thoughts: Sequence[str]) -> bool:
    said = [thought for thought in thoughts if thought]
    return any(len(thought.split()) > _FEW for thought in said) or 4 * len(set(said)) >= len(said) > 0


def _texts(rows: Sequence[Row], taken: Set[str | None]) -> list[str]:
    """Columns of texts of many words that are not taken."""
    sample = rows[:SAMPLE]
    names = [name for name in dict.fromkeys(name for row in sample for name in row.values) if name not in taken]
    return [name for name in names if sum(len(_thought(row.values.get(name)).split()) > _WORDS for row in sample) > len(sample) / 2]


def examples(sets: Sequence[Sequence[Conversation]], template: Template) -> tuple[list[list[Example]], LeftOut]:
    """The ids of each set's conversations, and (place, reason) of those that the template refuses.

    Raises:
        DataError: nothing of a set is left.
    """
    refused: LeftOut = []
    return [list(rendered(conversations, template, refused)) for conversations in sets], refused


def rendered(conversations: Sequence[Conversation], template: Template, refused: LeftOut) -> Iterator[Example]:
    """The ids of a set's conversations, one after the other; (place, reason) of those that the template refuses goes to `refused`.

    Raises:
        DataError: at the end, if it refused all.
    """
    from rollout.template import TemplateError

    before = len(refused)
    for one in conversations:
        try:
            yield template.example(*one)
        except TemplateError as error:
            refused.append((one.place, str(error)))
    if len(refused) - before == len(conversations):
        raise DataError(f"none of {len(conversations)} answers can be learned by this model (first: {refused[before][1]})")


def _columns(rows: Sequence[Row], one: DataSet) -> tuple[str | None, str | None, str | None]:
    """Where chats lie, or else prompts and completions. Raises DataError: neither is there."""
    sample = [row.values for row in rows[:SAMPLE]]
    named, answer = named_column(rows, one.problem, "problem"), named_column(rows, one.answer, "answer")
    if answer is None and (chat := first_column(sample, [named] if named else CHATS, _answered)):
        return chat, None, None
    prompt = named or first_column(sample, PROBLEMS + CHATS, holds_text, {answer})
    completion = (
        answer or first_column(sample, _COMPLETIONS, holds_text, {prompt}) or first_column(sample, _SOLUTIONS, _worked_out, {prompt})
    )
    if prompt and not completion and 2 * sum(_answered(reach(row, prompt)) for row in sample) > len(sample):
        return prompt, None, None
    if prompt is None or completion is None:
        lacking, names = ("prompts", PROBLEMS) if prompt is None else ("completions", _COMPLETIONS)
        there = next((name for name in names if any(name in row for row in sample)), None)
        empty = f"{there} holds no text in any row that was looked at, and " if there else ""
        raise DataError(
            f"{rows[0].place}: {empty}no{' other' * bool(there)} column was recognised as {lacking}, nor as chats with an answer; it has {', '.join(map(str, rows[0].values))}. "
            "sft learns from completions: name the columns (problem and answer of the set), or take data that have them"
        )
    return None, prompt, completion


def _answered(value: Any) -> bool:
    """Holds a chat in which an assistant says something, or thinks."""
    texts = turns_of(value) or []
    raw = nested(value) if isinstance(value, str) else value
    said = [text.strip() or _own_thought(turn) for turn, (_, text) in zip(raw, texts, strict=True)] if texts else []
    return any(words and _ROLES.get(name, name) == "assistant" for words, (name, _) in zip(said, texts, strict=True))


def _worked_out(value: Any) -> bool:
    return isinstance(value, str) and len(value.split()) >= _WORDS


def _chat(row: Row, path: str, start: str = "user") -> list[dict[str, Any]]:
    """The turns of a cell: role, content, and of an answer what it thought and whether it is to be learned. A text is one turn of `start`.

    Raises:
        DataError: no text and no chat, a turn that calls a tool, or one that is no text.
    """
    value = reach(row.values, path)
    texts = turns_of(value)
    raw: list[dict[str, Any]] = [{}]
    if texts is None:
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{row.place}: {path} is {value!r:.80}: it must be a text or a chat; correct it or take the row out")
        texts = [(start, value)]
    else:
        raw = nested(value) if isinstance(value, str) else value
    turns = []
    for turn, (name, text) in zip(raw, texts, strict=True):
        role = _ROLES.get(name, name)
        if role not in ("system", "user", "assistant") or turn.get("tool_calls"):
            raise DataError(
                f"{row.place}: {path} has a turn that calls a tool or comes from one ({role}), which is not learned; take the row out"
            )
        thought = _own_thought(turn) or _part_thoughts(row, path, turn.get("content", turn.get("value")))
        if SURROGATE.search(text + thought):
            raise DataError(f"{row.place}: {path} holds half of a character (a surrogate), so it is no text; correct it")
        turns.append({"role": role, "content": text, "thought": thought, "learned": turn.get("weight", 1) != 0})
    return turns


def _pair(row: Row, prompt: str, completion: str, behind: str | None) -> list[dict[str, Any]]:
    """The turns of a prompt with its completion. Raises DataError: either is missing, or the prompt does not end in a user's turn."""
    asked, answered = _chat(row, prompt), _chat(row, completion, "assistant")
    if asked[-1]["role"] != "user":
        raise DataError(f"{row.place}: {prompt} ends in a turn of the {asked[-1]['role']}, so there is nothing to answer; take the row out")
    if behind and isinstance(more := reach(row.values, behind), str) and more.strip():
        asked[-1]["content"] += f"\n\n{more.strip()}"
    return asked + answered


def _thought(value: Any) -> str:
    """A text of thinking, or the first of a list of them; a flag (on, off, high) says how much to think, and is none."""
    words = value[0] if isinstance(value, list) and value else value
    return words if isinstance(words, str) and words.strip() and words.strip().lower() not in FLAGS else ""


def _own_thought(values: Mapping[str, Any]) -> str:
    """What a turn or a part holds of thinking under a name of its own."""
    return next(filter(None, (_thought(values.get(name)) for name in THOUGHTS)), "")


def _part_thoughts(row: Row, path: str, content: Any) -> str:
    """The thinking among the parts of a turn. Raises DataError: a part is neither text nor thinking, as pictures are."""
    thoughts = []
    for part in content if isinstance(content, list) else ():
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind in THOUGHTS:
            thoughts.append(_own_thought(part) or str(part.get("text") or ""))
        elif kind not in ("text", "input_text", "output_text"):
            raise DataError(f"{row.place}: {path} has a part that is no text ({kind}), which is not learned; take the row out")
    return "".join(thoughts)


def _with_system(row: Row, turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the system text that stands in a column of its own."""
    system = next((text for name in _SYSTEM if isinstance(text := row.values.get(name), str) and text.strip()), None)
    return [{"role": "system", "content": system}, *turns] if system and turns[0]["role"] != "system" else turns


def _answers(place: str, turns: Sequence[dict[str, Any]]) -> Iterator[Conversation]:
    """A conversation for each answer that is to be learned. Raises DataError: there is none."""
    before: list[dict[str, str]] = []
    found, alone = 0, False
    for turn in turns:
        said = turn["content"]
        if turn["role"] == "assistant":
            thinking, answer = split(said)
            if answer is not None and not answer.strip():
                alone |= bool(before and (thinking or turn["thought"]))
            elif before and turn["learned"]:
                found += 1
                apart = turn["thought"] and not thinking
                yield Conversation(place, list(before), f"<think>\n{turn['thought']}\n</think>\n\n{said}" if apart else said)
            said = (answer or "").strip()
        before.append({"role": turn["role"], "content": said})
    if not found and alone:
        raise DataError(f"{place}: what answers is thinking alone, with nothing said behind it; take the row out")
    if not found:
        raise DataError(f"{place}: nobody answers in this chat, or before anyone has asked; take the row out")
