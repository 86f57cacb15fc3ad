"""Engines that answer by a script, and a tokenizer whose tokens are characters: what collecting and judging need of a model."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from rewards.thinking import THINK
from rollout.engine import EnginePool
from rollout.pace import Sums
from rollout.template import Template
from rollout.types import Completion, Problem, Request

CLOSE, STOP = 250, 251


class LetterTokenizer:
    """A token is a character; 250 closes the thinking block, 251 ends a response."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return list(map(ord, text))

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return "".join("</think>" if id == CLOSE else chr(id) for id in ids)


class Letters(Template):
    """A template of letters: the user's turn and an open thought."""

    def prompt_ids(self, problem: Problem, limit: int = 0) -> tuple[int, ...]:
        return tuple(map(ord, self.messages(problem, limit)[-1]["content"] + "<think>"))

    def opens_thinking(self, problem: Problem) -> bool:
        return True


def template() -> Template:
    return Letters(LetterTokenizer(), "", (STOP,), True, THINK, "digest")


def response(answer: str, thought: int = 3, finish: str = "stop", version: int = 0) -> Completion:
    ids = [ord("x")] * thought + ([CLOSE, *map(ord, f"\\boxed{{{answer}}}"), STOP] if finish == "stop" else [])
    return Completion(np.array(ids, np.int32), np.full(len(ids), -0.5, np.float32), finish, np.full(len(ids), version, np.int32))


class ScriptedPool(EnginePool):
    """An engine that answers by a script and gives groups back in any order, a few at a time."""

    def __init__(self, script: Callable[[Request], list[Completion]], seed: int = 0):
        self._script, self._random = script, random.Random(seed)
        self._owed: list[Request] = []
        self.seen: list[str] = []
        self.restarts = self.given_up = 0

    def submit(self, requests: Sequence[Request]) -> None:
        self._owed += requests
        self.seen += [request.problem.id for request in requests]

    def paces(self) -> list[Sums]:
        return []

    @property
    def outstanding(self) -> int:
        return len(self._owed)

    def ready(self, enough: Callable[[], bool] = lambda: False) -> list[tuple[Request, list[Completion]]]:
        self._random.shuffle(self._owed)
        count = self._random.randint(min(1, len(self._owed)), len(self._owed))
        done, self._owed = self._owed[:count], self._owed[count:]
        return [(request, self._script(request)) for request in done]
