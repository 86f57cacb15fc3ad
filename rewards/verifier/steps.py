"""Rewrites of a text as named steps, each of which sees what the one before it left: a pipeline that reads as a list.

Claim: where the order of two rewrites matters, both have a name, and which of them did what to a text can be asked (`traced`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple


class Step(NamedTuple):
    name: str
    rewrite: Callable[[str], str]


class Stage(NamedTuple):
    """Steps that are taken together where the text that comes to them asks for it."""

    steps: Sequence[Step]
    when: Callable[[str], bool] = lambda text: True


def sub(name: str, pattern: str | re.Pattern[str], by: str | Callable[[re.Match[str]], str]) -> Step:
    """The step that replaces every match of a pattern."""
    return Step(name, partial(re.compile(pattern).sub, by))


def rewritten(stages: Sequence[Stage], text: str) -> str:
    """What all steps leave of a text."""
    for steps, when in stages:
        if when(text):
            for _, rewrite in steps:
                text = rewrite(text)
    return text


def traced(stages: Sequence[Stage], text: str) -> Iterator[tuple[str, str]]:
    """The steps that change a text, in order, each with what it leaves."""
    for steps, when in stages:
        for name, rewrite in steps if when(text) else ():
            before, text = text, rewrite(text)
            if text != before:
                yield name, text
