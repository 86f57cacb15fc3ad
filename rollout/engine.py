"""Engines behind one door: a pool of Ray actors that turn requests into groups and can lose a member.

Claim: whatever is submitted comes back exactly once, also when an engine dies: it is started again, given the last
published weights, and handed the groups it owed. Nothing waits without a deadline.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import ray

from rollout.types import Completion, Request
from rollout.weights import Packed

log = logging.getLogger(__name__)

WHY_DEAD = "killed by the system for its memory, or by someone"  # all that can be known of an actor that is gone
_SLICE_S = 0.2  # an engine reports finished groups about this often
_SILENCE_S = 900.0  # an engine that says nothing for so long is taken for dead
_RESTARTS = 3  # in a row, without a group between them


class Engine(Protocol):
    """What an engine actor answers; VllmEngine and ReferenceEngine do."""

    def advance(self, requests: Sequence[Request], seconds: float) -> list[tuple[str, list[Completion]]]: ...
    def load(self, weights: Mapping[str, Packed], version: int) -> dict[str, int]: ...
    def score(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]: ...
    def process_id(self) -> int: ...


class EngineError(RuntimeError):
    """An engine failed for good; the message names it and what to do."""


@dataclass
class _Member:
    actor: Any
    queue: list[Request] = field(default_factory=list)
    owed: dict[str, Request] = field(default_factory=dict)
    call: Any = None
    since: float = 0.0
    restarts: int = 0


class EnginePool:
    """Engine actors and what each of them owes.

    Args:
        start: makes the i-th actor. Called again when it dies.
        count: number of engines.
    """

    def __init__(self, start: Callable[[int], Any], count: int):
        self._start = start
        self._members = [_Member(start(index)) for index in range(count)]
        self._weights: tuple[Any, int] | None = None
        self._confirmed: dict[str, int] | None = None
        self.restarts = 0

    @property
    def version(self) -> int:
        """Policy version that every engine holds: the last one pushed, 0 before any."""
        return self._weights[1] if self._weights else 0

    def wait_ready(self, seconds: float = 600.0) -> list[int]:
        """Block until every engine answers; their process ids. Raises EngineError naming the one that does not."""
        return self._all("process_id", seconds)

    def submit(self, requests: Sequence[Request]) -> None:
        """Hand each request to the engine that owes least."""
        for request in requests:
            member = min(self._members, key=lambda member: len(member.owed))
            member.queue.append(request)
            member.owed[request.id] = request

    @property
    def outstanding(self) -> int:
        """Groups submitted and not returned."""
        return sum(len(member.owed) for member in self._members)

    def ready(self) -> list[tuple[Request, list[Completion]]]:
        """Block until at least one group is done and return all that are; an empty list only if none is outstanding."""
        while self.outstanding:
            for member in self._members:
                if member.call is None and member.owed:
                    member.call, member.queue, member.since = member.actor.advance.remote(member.queue, _SLICE_S), [], time.monotonic()
            calls = [member.call for member in self._members if member.call is not None]
            ray.wait(calls, num_returns=1, timeout=5.0)
            groups = [group for index in range(len(self._members)) for group in self._collect(index)]
            if groups:
                return groups
        return []

    def push(self, weights: Any, version: int) -> list[dict[str, int]]:
        """Load weights (a Ray reference to name -> Packed) into every engine; the digests each of them confirms.

        An engine that dies gets the last weights pushed when it is started again.
        """
        self._weights, self._confirmed = (weights, version), None
        answers = self._all("load", 600.0, *self._weights)
        self._confirmed = answers[0]
        return answers

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[np.ndarray]]:
        """Every engine's logprobs of the same sequences; see VllmEngine.score."""
        return self._all("score", 600.0, sequences)

    def stop(self) -> None:
        """Kill the actors."""
        for member in self._members:
            ray.kill(member.actor)

    def _collect(self, index: int) -> list[tuple[Request, list[Completion]]]:
        member = self._members[index]
        if member.call is None:
            return []
        done, _ = ray.wait([member.call], timeout=0)
        if not done:
            if time.monotonic() - member.since > _SILENCE_S:
                self._restart(index, f"said nothing for {_SILENCE_S:.0f} s in advance")
            return []
        try:
            finished = ray.get(member.call)
        except ray.exceptions.RayActorError:
            self._restart(index, WHY_DEAD)
            return []
        except ray.exceptions.RayError as error:
            raise EngineError(f"engine {index} failed while sampling: {_last_line(error)}") from error
        member.call = None
        for request_id, completions in finished:
            for completion in completions:
                if (completion.versions != self.version).any():
                    sampled = sorted(set(completion.versions.tolist()))
                    raise EngineError(f"engine {index} sampled {request_id} with policy version {sampled}, published is {self.version}")
        if finished:
            member.restarts = 0
        return [(member.owed.pop(request_id), completions) for request_id, completions in finished if request_id in member.owed]

    def _restart(self, index: int, why: str) -> None:
        member = self._members[index]
        if member.restarts >= _RESTARTS:
            raise EngineError(
                f"engine {index} died {_RESTARTS + 1} times in a row ({why}): look at its memory use and at engine.vllm in the recipe"
            )
        ray.kill(member.actor)
        log.warning("engine %d died (%s); it is started again and goes on with the %d groups it owed", index, why, len(member.owed))
        self.restarts += 1
        member.restarts += 1
        member.actor, member.call, member.queue = self._start(index), None, list(member.owed.values())
        if self._weights is not None:
            try:
                confirmed = ray.get(member.actor.load.remote(*self._weights), timeout=600)
            except ray.exceptions.RayError as error:
                raise EngineError(f"engine {index} could not be started again ({why}): {_last_line(error)}") from error
            if self._confirmed is not None and confirmed != self._confirmed:
                raise EngineError(f"engine {index} holds other bytes than version {self.version} after it was started again ({why})")

    def _all(self, method: str, seconds: float, *args: Any) -> list[Any]:
        """Call every engine; one that died is started again and asked once more."""
        answers = []
        calls = [getattr(member.actor, method).remote(*args) for member in self._members]
        for index, call in enumerate(calls):
            try:
                answers.append(ray.get(call, timeout=seconds))
            except ray.exceptions.RayTaskError as error:
                raise EngineError(f"engine {index} failed in {method}: {_last_line(error)}") from error
            except ray.exceptions.GetTimeoutError as error:
                raise EngineError(f"engine {index} did not answer {method} within {seconds:.0f} s") from error
            except ray.exceptions.RayActorError as error:
                if method == "process_id":
                    raise EngineError(f"engine {index} did not start: {_last_line(error)}") from error
                self._restart(index, WHY_DEAD)
                try:
                    answers.append(ray.get(getattr(self._members[index].actor, method).remote(*args), timeout=seconds))
                except ray.exceptions.RayError as again:
                    raise EngineError(f"engine {index} died twice in {method}: {_last_line(again)}") from again
        return answers


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
