"""Conversations to learn from: rows of chats, or of prompts and completions, in the layouts that people have.

Claim: a prompt is the one that inference would see, and what is learned begins just behind it: the chat template with its generation
prompt, then the answer as the model would write it, then the token that ends its turn. Each answer of a chat is an example of its own, with
what was said before it as its prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from recipes.schema import DataSet
from rollout.sources import LeftOut
from rollout.types import Example

if TYPE_CHECKING:
    from rollout.template import Template


class Conversation(NamedTuple):
    """What was said, and the answer to it. `place`: the row, for messages. A thought is in `answer`, in the marks that its data use."""

    place: str
    turns: list[dict[str, str]]
    answer: str


def conversations(one: DataSet) -> tuple[list[Conversation], LeftOut, str]:
    """The examples of a set as texts, (place, reason) of rows that hold none, and one line that says how it was read. No tokenizer is needed: plan asks this.

    Chats lie in `messages`, `conversations` or `conversation` (roles and contents under the names that rollout.layouts knows), completions in
    `completion`, `response`, `output` ... beside `prompt`, `question` ...; `problem` and `answer` of the set name others.

    Raises:
        DataError: not there, no data, or no completions: no chat with an answer and no column of answers.
    """
    raise NotImplementedError


def examples(sets: Sequence[Sequence[Conversation]], template: Template) -> tuple[list[list[Example]], LeftOut]:
    """The ids of each set's conversations, and those that the template refuses."""
    raise NotImplementedError
