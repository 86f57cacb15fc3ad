"""Texts of a model whose tokens nobody has: a server's that hands out no ids, and those that others sampled.

Claim: what judges, counts and keeps rollouts reads them as it reads a checkpoint's, since a tokenizer stands in that splits a text into its
characters. Lengths are then characters, which all texts share, or what `Completion.counted` says; they carry the name of what they were counted in.
Simplification: without a chat template nobody knows whether a prompt opened thinking: unless other texts show it, one without any mark is all answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipes.data import Data
from rewards.thinking import THINK, Marks
from rollout.records import CHARACTERS
from rollout.template import Template
from rollout.types import Completion, Counted, Finish, Problem


class Characters:
    """A tokenizer whose tokens are the characters of a text."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return list(map(ord, text))

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return "".join(map(chr, ids))


@dataclass(frozen=True)
class Transcripts(Template):
    """A template for texts without a chat template (`transcripts`)."""

    def opens_thinking(self, problem: Problem) -> bool:
        return self.thinking

    def _chat_ids(self, messages: Sequence[Mapping[str, str]], what: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode("\n\n".join(message["content"] for message in messages), add_special_tokens=False))


def transcripts(
    data: Data,
    ruler: str = CHARACTERS,
    tokenizer: Any = None,
    marks: Marks | None = None,
    thinking: bool = False,
    ends: Sequence[int] = (),
) -> Transcripts:
    """What reads texts.

    Args:
        data: the recipe's; its marks of thinking win.
        ruler: what lengths are counted in; recorded as the hash of a template is.
        tokenizer: that counts them; None: characters.
        marks: of thinking, where data.thinking names none; None: the most common ones.
        thinking: prompts open it.
        ends: ids that end a turn, the model's own first; a completion that ended by itself is one of them longer than its text. None: it is as long as that.
    """
    return Transcripts(
        tokenizer=tokenizer or Characters(),
        instruction=data.instruction,
        stop_ids=tuple(ends),
        thinking=thinking,
        marks=Marks(*data.thinking) if data.thinking else marks or THINK,
        digest=ruler,
        date="",
        end_id=ends[0] if ends else -1,
    )


def completion(
    template: Template, text: str, finish: Finish, ids: Sequence[int] | None = None, counted: Counted | None = None, version: int = 0
) -> Completion:
    """A completion of which the text is known, and its ids where somebody has them; else they are the text's own and its end of turn, once."""
    said = None
    if ids is None:
        said = text.encode(errors="replace").decode()  # half characters are no text
        ids = template.tokenizer.encode(said, add_special_tokens=False)
        if finish == "stop" and ids[-1:] and ids[-1] in template.stop_ids:
            said = said.removesuffix(template.tokenizer.decode(ids[-1:], skip_special_tokens=False))
        elif finish == "stop" and template.end_id >= 0:
            ids = [*ids, template.end_id]
    return Completion(
        np.asarray(ids, np.int32), np.zeros(0, np.float32), finish, np.full(len(ids), version, np.int32), counted=counted, text=said
    )


def spoken(marks: Marks, thinking: str, answer: str, opened: bool) -> str:
    """A text in one piece of what was said apart: thinking in its marks, closed if an answer follows.

    Args:
        opened: the prompt wrote the mark that opens thinking.
    """
    if not thinking:
        return answer
    begun = "" if opened else f"{marks.open}\n"
    return f"{begun}{thinking}{marks.close}\n\n{answer}" if answer else begun + thinking
