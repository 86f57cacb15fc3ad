"""Chains that are sampled together until enough of them have thought to the end (short-m@k, arXiv 2505.17813).

Claim: who wins depends on the chains alone, never on who is sampled first: a chain counts only when every chain that still thinks is at least as
long. So the winners are the m shortest, ties to the one asked first, and queueing, preemption or slices change nothing but what is spent.
Simplification: thinking ends with its first closing mark, in the tokens that the mark has by itself; a model without marks is waited for to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np

from rollout.types import Completion, Finish, Request


class Chains:
    """The chains of a request as they grow, one set of `short.of` behind the other. Raises ValueError: the request has none.

    Attributes:
        finish: how each ended, "stopped" once its set has gone on without it; None while it is sampled.
    """

    def __init__(self, request: Request):
        if request.short is None or request.group_size % request.short.of:
            raise ValueError(f"request {request.id}: {request.group_size} rollouts are no sets of chains ({request.short})")
        self._first, self._of, self._close = request.short
        self._ids: list[list[int]] = [[] for _ in range(request.group_size)]
        self._logprobs: list[list[float]] = [[] for _ in range(request.group_size)]
        self._thought: list[int | None] = [None] * request.group_size  # tokens until thinking ended
        self._open = list(range(0, request.group_size, self._of))  # first chains of sets that are not decided
        self.finish: list[Finish | None] = [None] * request.group_size

    def take(self, chain: int, ids: Sequence[int], logprobs: Sequence[float] = (), finish: Finish | None = None) -> None:
        """What a chain was sampled to since, and how it ended, if it did."""
        own, width = self._ids[chain], len(self._close)
        for id_ in ids:
            own.append(id_)
            if self._thought[chain] is None and width and tuple(own[-width:]) == self._close:
                self._thought[chain] = len(own)
        self._logprobs[chain] += logprobs
        self.finish[chain] = finish
        if finish == "stop" and self._thought[chain] is None:
            self._thought[chain] = len(own)

    def stop(self) -> list[int]:
        """Chains whose set has been decided without them since this was asked last: they are to be stopped."""
        lost = []
        for start in list(self._open):
            places = range(start, start + self._of)
            if (winners := self._winners(places)) is None:
                continue
            self._open.remove(start)
            if len(winners) == self._first:
                lost += [place for place in places if place not in winners]
        for chain in lost:
            self.finish[chain] = "stopped"
        return lost

    def _winners(self, places: Sequence[int]) -> list[int] | None:
        """The shortest chains of a set, as many as may answer, or those that there are when none is left to think; None while others may be as short."""
        shortest = sorted((thought, place) for place in places if (thought := self._thought[place]) is not None)
        least = min((len(self._ids[place]) for place in places if self._thought[place] is None and self.finish[place] is None), default=inf)
        sure = [place for thought, place in shortest if thought <= least]
        return sure[: self._first] if len(sure) >= self._first or least == inf else None

    @property
    def done(self) -> bool:
        """Whether nothing is left to sample."""
        return None not in self.finish

    def completions(self, version: int) -> list[Completion]:
        """All of them, as they are."""
        return [
            Completion(
                ids=np.asarray(ids, np.int32),
                logprobs=np.asarray(logprobs, np.float32),
                finish=finish or "abort",
                versions=np.full(len(ids), version, np.int32),
            )
            for ids, logprobs, finish in zip(self._ids, self._logprobs, self.finish, strict=True)
        ]
