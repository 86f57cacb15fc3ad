"""Thinking that is closed from outside: for engines that cannot close it themselves (rollout/thinking), with a mark of any number of tokens.

Claim: a sample is cut at its budget of thinking; if it thinks still, the closing mark is appended, and it goes on from there to its own end
(budget forcing, s1, arXiv 2501.19393). What stood there before stays as it was sampled, as ids; the mark counts as the engine's.
Simplification: the bare mark, without s1's "Final Answer:", as engines do it; the budget counts from the response's first token, also where the
model writes the opening mark itself; a sample that closed its thinking by itself is asked for twice, too, if it is longer than the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rollout.collector import seed_of
from rollout.engine import Pool
from rollout.template import Template
from rollout.types import FORCED, MODEL, Completion, Request


@dataclass
class _Group:
    """A request whose samples go on: what each was cut at, the mark behind it included, and those that are whole."""

    request: Request
    begun: list[Completion]
    whole: dict[int, Completion] = field(default_factory=dict)


class ClosingPool:
    """A `Pool` before another: closes thinking where requests limit it, and hands on all else.

    Args:
        mark: ids of what closes thinking.
        closed: whether a response has closed its thinking.
    """

    def __init__(self, pool: Pool, mark: Sequence[int], closed: Callable[[Completion], bool]):
        self._pool, self._mark, self._closed = pool, np.asarray(mark, np.int32), closed
        self._asked: dict[str, Request] = {}
        self._at_once: list[tuple[Request, list[Completion]]] = []  # of which nothing is left to sample
        self._going_on: dict[str, tuple[_Group, int]] = {}  # by id of what is asked for a sample

    def submit(self, requests: Sequence[Request]) -> None:
        """Take requests; of those that limit thinking, samples are asked for up to their budget first."""
        for request in requests:
            if request.thinking_tokens is None:
                self._pool.submit([request])
                continue
            self._asked[request.id] = request
            if request.thinking_tokens:
                most = min(request.thinking_tokens, request.max_tokens)
                self._pool.submit([replace(request, max_tokens=most, thinking_tokens=None)])
            else:
                none = np.zeros(0, np.int32)
                self._at_once += self._go_on(request, [Completion(none, none.astype(np.float32), "length", none)] * request.group_size)

    @property
    def outstanding(self) -> int:
        """Requests that are asked for and not returned: of samples that go on, each."""
        return self._pool.outstanding + len(self._at_once)

    def ready(self) -> list[tuple[Request, list[Completion]]]:
        """Block until at least one group is done and return all that are; an empty list only if none is outstanding."""
        if self._at_once:
            done, self._at_once = self._at_once, []
            return done
        while groups := self._pool.ready():
            if done := [group for request, completions in groups for group in self._take(request, completions)]:
                return done
        return []

    def _take(self, request: Request, completions: list[Completion]) -> list[tuple[Request, list[Completion]]]:
        """The group that these complete, if they do."""
        if (asked := self._asked.pop(request.id, None)) is not None:
            return self._go_on(asked, completions)
        if request.id not in self._going_on:
            return [(request, completions)]
        group, sample = self._going_on.pop(request.id)
        group.whole[sample] = _joined(group.begun[sample], completions[0])
        return self._done(group)

    def _go_on(self, request: Request, completions: list[Completion]) -> list[tuple[Request, list[Completion]]]:
        """Ask for the rest of samples that were cut at the budget, behind a mark if they think still."""
        group = _Group(request, [])
        for sample, cut in enumerate(completions):
            begun = cut if cut.finish != "length" or self._closed(cut) else self._with_mark(cut)
            group.begun.append(begun)
            left = request.max_tokens - len(begun.ids)
            if cut.finish != "length" or left < 1:
                group.whole[sample] = begun.first(request.max_tokens) if left < 0 else begun
                continue
            id_ = f"{request.id} from {sample}"
            self._going_on[id_] = group, sample
            rest = replace(request, id=id_, prompt_ids=(*request.prompt_ids, *begun.ids.tolist()), group_size=1, max_tokens=left)
            self._pool.submit([replace(rest, seed=seed_of(request.seed, "rest", sample), thinking_tokens=None)])
        return self._done(group)

    def _done(self, group: _Group) -> list[tuple[Request, list[Completion]]]:
        size = group.request.group_size
        return [(group.request, [group.whole[sample] for sample in range(size)])] if len(group.whole) == size else []

    def _with_mark(self, cut: Completion) -> Completion:
        """A sample and the mark behind it; of one that was cut within a mark of its own, the rest of that."""
        version = cut.versions[-1] if len(cut.versions) else 0
        own = next((count for count in range(len(self._mark) - 1, 0, -1) if cut.ids[-count:].tolist() == self._mark[:count].tolist()), 0)
        mark = len(self._mark) - own
        return Completion(
            ids=np.concatenate([cut.ids, self._mark[own:]]),
            logprobs=np.append(cut.logprobs, np.zeros(mark if len(cut.logprobs) == len(cut.ids) else 0, np.float32)),
            finish="length",
            versions=np.append(cut.versions, np.full(mark, version, np.int32)),
            sources=np.append(np.full(len(cut.ids), MODEL, np.int8), np.full(mark, FORCED, np.int8)),
        )


def closing_outside(pool: Pool, template: Template) -> ClosingPool:
    """A `ClosingPool` for a template's model. Raises TemplateError: prompts leave no thinking to close."""
    return ClosingPool(pool, template.closing_ids(), lambda done: template.answer_start(done.ids, template.text(done)) is not None)


def _joined(begun: Completion, rest: Completion) -> Completion:
    """A sample and how it went on."""
    sources = None if begun.sources is None else np.append(begun.sources, np.full(len(rest.ids), MODEL, np.int8))
    return Completion(
        ids=np.append(begun.ids, rest.ids),
        logprobs=np.append(begun.logprobs, rest.logprobs) if len(rest.logprobs) else begun.logprobs[:0],
        finish=rest.finish,
        versions=np.append(begun.versions, rest.versions),
        sources=sources,
    )
