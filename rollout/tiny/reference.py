"""What the tiny reasoner is taken to need for a problem before it is trained: statistics of traces like those of its cold start.

Simplification: the cold-started model itself is not asked; it writes about as much as what it learned from.
"""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from random import Random
from typing import Any

from recipes.columns import REFERENCE
from recipes.schema import Tiny
from rewards.profiles import profile_of
from rollout.tiny.task import trace
from rollout.types import Problem

_TRACES = 8


def with_reference(problem: Problem, tiny: Tiny) -> Problem:
    """The problem with the columns REFERENCE: its profile by such traces, the end token counted."""
    rng = Random(f"tiny/reference/{problem.id}/{problem.text}")
    traces = [trace(problem, rng, tiny.recheck, tiny.rederive, tiny.slip) for _ in range(_TRACES)]
    tokens = [len(_tokenizer().encode(text)) + 1 for text in traces]
    right = [re.search(r"boxed{(.*)}", text)[1] == problem.answer for text in traces]  # type: ignore[index]
    return replace(problem, columns=problem.columns | dict(zip(REFERENCE, profile_of(tokens, right), strict=True)))


@functools.cache
def _tokenizer() -> Any:
    from rollout.tiny.tokenizer import build_tokenizer  # loads transformers, which plan does without

    return build_tokenizer()
