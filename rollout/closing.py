"""Thinking that is closed and prolonged from outside: for engines that cannot close it themselves (rollout/thinking), with a mark of any number of tokens.

Claim: budget forcing as in s1 (arXiv 2501.19393), both ways. A sample is cut at its budget of thinking; if it thinks still, the closing mark is appended,
and it goes on from there to its own end. One that would end its thinking before is told to wait, at most so often: a word stands in the place of
the mark. What stood there before stays as it was sampled, as ids; mark and word count as the engine's.
Simplification: the bare mark, without s1's "Final Answer:", as engines do it; the budget counts from the response's first token, also where the
model writes the opening mark itself; a sample that closed its thinking by itself is asked for twice, too, if it is longer than the budget. What one that is
told to wait had answered already is thrown away, as engines do not stop at the mark; all its calls share one budget, and a mark that the model wrote in another split is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rollout.collector import seed_of
from rollout.engine import Pool
from rollout.template import Template
from rollout.thinking import behind
from rollout.types import FORCED, MODEL, Completion, Request


@dataclass
class _Group:
    """A request whose samples go on: what each is so far, how often it was told to wait, and those that are whole."""

    request: Request
    begun: dict[int, Completion] = field(default_factory=dict)
    waited: dict[int, int] = field(default_factory=dict)
    whole: dict[int, Completion] = field(default_factory=dict)

    @property
    def budget(self) -> int:
        """Tokens of thinking."""
        return min(self.request.thinking_tokens or 0, self.request.max_tokens)


class ClosingPool:
    """A `Pool` before another: closes thinking where requests limit it, lets it go on where they say so, and hands on all else.

    Args:
        mark: ids of what closes thinking.
        closed: whether a response has closed its thinking.
        alone: engines close thinking by themselves, so only requests that wait are seen to here.
    """

    def __init__(self, pool: Pool, mark: Sequence[int], closed: Callable[[Completion], bool], alone: bool = False):
        self._pool, self._mark, self._closed, self._alone = pool, np.asarray(mark, np.int32), closed, alone
        self._asked: dict[str, Request] = {}
        self._at_once: list[tuple[Request, list[Completion]]] = []  # of which nothing is left to sample
        self._going_on: dict[str, tuple[_Group, int, bool]] = {}  # by id of what is asked for a sample: whether it thinks

    def submit(self, requests: Sequence[Request]) -> None:
        """Take requests; of those that limit thinking, samples are asked for up to their budget first."""
        for request in requests:
            if request.thinking_tokens is None or (self._alone and request.wait is None):
                self._pool.submit([request])
                continue
            self._asked[request.id] = request
            if request.thinking_tokens:
                self._pool.submit([replace(request, max_tokens=_Group(request).budget, thinking_tokens=None, wait=None)])
            else:
                none = np.zeros(0, np.int32)
                self._at_once += self._begin(
                    self._asked.pop(request.id), [Completion(none, none.astype(np.float32), "length", none)] * request.group_size
                )

    @property
    def outstanding(self) -> int:
        """Requests that are asked for and not returned: of samples that go on, each."""
        return self._pool.outstanding + len(self._at_once)

    def ready(self, enough: Callable[[], bool] = lambda: False) -> list[tuple[Request, list[Completion]]]:
        """See rollout/engine.EnginePool.ready."""
        done, self._at_once = self._at_once, []
        while not done and self._pool.outstanding:
            groups = self._pool.ready(enough)
            done = [group for request, completions in groups for group in self._take(request, completions)]
            if not groups:
                break
        return done

    def _take(self, request: Request, completions: list[Completion]) -> list[tuple[Request, list[Completion]]]:
        """The group that these complete, if they do."""
        if (asked := self._asked.pop(request.id, None)) is not None:
            return self._begin(asked, completions)
        if request.id not in self._going_on:
            return [(request, completions)]
        group, sample, thinks = self._going_on.pop(request.id)
        joined = _joined(group.begun[sample], completions[0])
        if thinks:
            self._go_on(group, sample, joined)
        else:
            group.whole[sample] = joined
        return self._done(group)

    def _begin(self, request: Request, completions: list[Completion]) -> list[tuple[Request, list[Completion]]]:
        group = _Group(request)
        for sample, cut in enumerate(completions):
            self._go_on(group, sample, cut)
        return self._done(group)

    def _go_on(self, group: _Group, sample: int, cut: Completion) -> None:
        """Ask for the rest of a sample that was asked for up to its budget: told to wait, where it would end its thinking before; behind a mark, if it thinks still."""
        wait, waited = group.request.wait, group.waited.get(sample, 0)
        end = self._thought(cut) if wait and waited < wait.times else None
        if wait and end is not None and end + len(wait.ids) < group.budget:
            group.waited[sample] = waited + 1
            self._ask(group, sample, _put(cut.first(end), wait.ids), group.budget, thinks=True)
        elif cut.finish == "length":
            begun = cut if self._closed(cut) else self._with_mark(cut)
            self._ask(group, sample, begun, group.request.max_tokens, thinks=False)
        else:
            group.whole[sample] = cut

    def _ask(self, group: _Group, sample: int, begun: Completion, most: int, thinks: bool) -> None:
        """Have a sample gone on with until it has `most` tokens; one that has them is whole."""
        request, left = group.request, most - len(begun.ids)
        if left < 1:
            group.whole[sample] = begun.first(most) if left < 0 else begun
            return
        id_ = f"{request.id} from {sample}"
        group.begun[sample] = begun
        self._going_on[id_] = group, sample, thinks
        rest = replace(request, id=id_, prompt_ids=(*request.prompt_ids, *begun.ids.tolist()), group_size=1, max_tokens=left)
        turn = (group.waited[sample],) if thinks else ()
        self._pool.submit([replace(rest, seed=seed_of(request.seed, "rest", sample, *turn), thinking_tokens=None, wait=None)])

    def _done(self, group: _Group) -> list[tuple[Request, list[Completion]]]:
        size = group.request.group_size
        return [(group.request, [group.whole[sample] for sample in range(size)])] if len(group.whole) == size else []

    def _thought(self, completion: Completion) -> int | None:
        """Tokens before the mark by which a response closes its thinking; None if it does not, or not in these ids."""
        ends = behind(completion.ids, self._mark)
        return int(ends[0]) - len(self._mark) if len(ends) and self._closed(completion) else None

    def _with_mark(self, cut: Completion) -> Completion:
        """A sample and the mark behind it; of one that was cut within a mark of its own, the rest of that."""
        own = next((count for count in range(len(self._mark) - 1, 0, -1) if cut.ids[-count:].tolist() == self._mark[:count].tolist()), 0)
        return _put(cut, self._mark[own:])


def _put(cut: Completion, ids: Sequence[int] | np.ndarray) -> Completion:
    """A sample and what is put behind it, which counts as the engine's."""
    version, count = cut.versions[-1] if len(cut.versions) else 0, len(ids)
    return Completion(
        ids=np.append(cut.ids, np.asarray(ids, np.int32)),
        logprobs=np.append(cut.logprobs, np.zeros(count if len(cut.logprobs) == len(cut.ids) else 0, np.float32)),
        finish="length",
        versions=np.append(cut.versions, np.full(count, version, np.int32)),
        sources=np.append(cut.source_T, np.full(count, FORCED, np.int8)),
    )


def closing_outside(pool: Pool, template: Template, alone: bool = False) -> ClosingPool:
    """A `ClosingPool` for a template's model. Raises TemplateError: prompts leave no thinking to close."""
    return ClosingPool(pool, template.closing_ids(), lambda done: template.answer_start(done.ids, template.text(done)) is not None, alone)


def _joined(begun: Completion, rest: Completion) -> Completion:
    """A sample and how it went on."""
    sources = None if begun.sources is None else np.append(begun.sources, np.full(len(rest.ids), MODEL, np.int8))
    versions = begun.versions if begun.sampled.any() else np.full(len(begun.ids), rest.versions[0] if len(rest.versions) else 0, np.int32)
    return Completion(
        ids=np.append(begun.ids, rest.ids),
        logprobs=np.append(begun.logprobs, rest.logprobs) if len(rest.logprobs) else begun.logprobs[:0],
        finish=rest.finish,
        versions=np.append(versions, rest.versions),
        sources=sources,
    )
