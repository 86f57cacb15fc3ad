"""Engines behind one door: a pool of Ray actors that turn requests into groups and can lose a member.

Claim: whatever is submitted comes back exactly once, also when an engine dies: it is started again, given the last
published weights, and handed the groups it owed. Nothing waits without a deadline.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import ray

from rollout.honesty import check_rehearsal
from rollout.pace import SLICE_S, Sums
from rollout.parcels import Parcel
from rollout.sleep import Part
from rollout.types import Completion, Request
from rollout.weights import Undelivered

log = logging.getLogger(__name__)

WHY_DEAD = "killed by the system for its memory, or by someone"  # where its node goes on
_NODE_DIED = "its node has died"  # as Ray puts it
_ADVERTISEMENT = re.compile(r"^\s*For further information visit ")
_MOST_WORDS = 600  # characters
_SILENCE_S = 900.0  # an engine that says nothing for so long is taken for dead
_LATE_S = 90.0  # for others to say so too, when one says that weights did not arrive
_RESTARTS = 3  # in a row, without an answer between them
_START_S = 600.0


class Engine(Protocol):
    """What an engine actor answers; VllmEngine and ReferenceEngine do."""

    def advance(self, requests: Sequence[Request], seconds: float) -> list[tuple[str, list[Completion]]]: ...
    def pace(self) -> Sums: ...
    def load(self, parcel: Parcel, version: int) -> dict[str, int]: ...
    def sleep(self) -> None: ...
    def wake(self, part: Part) -> None: ...
    def score(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]: ...
    def moments(self, sequences: Sequence[Sequence[int]], temperature: float) -> list[np.ndarray]: ...
    def rehearse(self, requests: Sequence[Request]) -> list[tuple[list[int], np.ndarray, np.ndarray]]: ...
    def process_id(self) -> int: ...


def last_words(error: BaseException) -> str:
    """What Ray says of an error, without the road to it: the exception that was raised far away, with its whole message."""
    lines = [line for line in str(error).splitlines() if line.strip() and not _ADVERTISEMENT.search(line)]
    frame = max((index for index, line in enumerate(lines) if line.lstrip().startswith("File ")), default=None)
    if frame is not None:
        lines = lines[next((index for index in range(frame, len(lines)) if not lines[index][0].isspace()), -1) :]
    else:
        lines = lines[-1:]
    words = " ".join(" ".join(lines).split())
    return (words if len(words) <= _MOST_WORDS else words[: _MOST_WORDS - 3] + "...") or type(error).__name__


def why_dead(error: BaseException) -> str:
    """All that can be known of why an actor is gone."""
    return "its node is gone, or cut off from the others" if _NODE_DIED in str(error) else WHY_DEAD


def constructor_failed(error: BaseException) -> bool:
    """Whether an actor is gone because its constructor raised, which it would do again."""
    return bool(getattr(error, "actor_init_failed", False))


class EngineError(RuntimeError):
    """An engine failed for good; the message names it and what to do."""


@dataclass
class _Member:
    actor: Any
    queue: list[Request] = field(default_factory=list)
    owed: dict[str, Request] = field(default_factory=dict)
    call: Any = None
    since: float = 0.0
    restarts: int = 0  # in a row


class Pool(Protocol):
    """What sampling asks of engines, wherever they are."""

    def submit(self, requests: Sequence[Request]) -> None: ...
    @property
    def outstanding(self) -> int: ...
    def ready(self) -> list[tuple[Request, list[Completion]]]: ...


class EnginePool:
    """Engine actors and what each of them owes.

    Args:
        start: makes the i-th actor. Called again when it dies.
        count: number of engines.
    """

    def __init__(self, start: Callable[[int], Any], count: int):
        self._start = start
        self._members = [_Member(start(index)) for index in range(count)]
        self._again: Callable[[int], Any] | None = None
        self._confirmed: dict[str, int] | None = None
        self._rehearsal: tuple[Sequence[Request], float] | None = None
        self.version = 0  # policy version that every engine holds: the last one pushed
        self.restarts = 0

    def wait_ready(self, seconds: float = _START_S) -> list[int]:
        """Block until every engine answers; their process ids. Raises EngineError naming the one that does not."""
        return self._all("process_id", seconds)

    def rehearse(self, requests: Sequence[Request], tolerance: float) -> list[list[int]]:
        """Let every engine sample and score the same small batch (rollout/honesty), and each that is started again later; the sequences of the first.

        Raises:
            EngineError: one reports logprobs that are not its own, or does not sample from them.
        """
        answers = self._all("rehearse", _START_S, requests)
        self._rehearsal = requests, tolerance
        for index, samples in enumerate(answers):
            self._refuse_dishonest(index, samples, tolerance)
        return [ids for ids, *_ in answers[0]]

    def _refuse_dishonest(self, index: int, samples: Any, tolerance: float) -> None:
        if words := check_rehearsal(samples, tolerance):
            raise EngineError(f"engine {index}, sampling a small batch at its start: {words}")

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
            self._go_on()
            calls = [member.call for member in self._members if member.call is not None]
            ray.wait(calls, num_returns=1, timeout=5.0)
            groups = [group for index in range(len(self._members)) for group in self._collect(index)]
            if groups:
                self._go_on()  # the next slice is sampled while the caller judges this one
                return groups
        return []

    @property
    def count(self) -> int:
        """Number of engines."""
        return len(self._members)

    def paces(self) -> list[Sums]:
        """How fast every engine sampled since this was asked last (rollout/pace)."""
        return self._all("pace", _START_S)

    def release(self) -> None:
        """Let go of the weights last pushed, so that the next ones find room. An engine that dies before those are there waits for them."""
        self._again = None

    def push(self, parcels: Sequence[Any], version: int, again: Callable[[int], Any]) -> list[dict[str, int]]:
        """Load weights into every engine; the digests each of them confirms.

        Args:
            parcels: what each engine is handed (rollout/parcels), or Ray's reference to it.
            again: another for one engine, by its number: of one that died, which is started again, now or later, or that got nothing since another died.

        Raises:
            EngineError: one does not answer, or gets nothing though all are there.
        """
        self._again, self.version, self._confirmed = again, version, None
        calls = [member.actor.load.remote(parcel, version) for member, parcel in zip(self._members, parcels, strict=True)]
        self._refuse_silence(calls)
        before, missed = self.restarts, dict[int, str]()
        answers = [self._loaded(index, call, missed) for index, call in enumerate(calls)]
        for index in list(missed):
            if self.restarts == before:
                raise EngineError(f"engine {index} did not get weights version {version}: {missed[index]}")
            call = self._members[index].actor.load.remote(again(index), version)
            answers[index] = self._loaded(index, call, left := dict[int, str]())
            if left:
                raise EngineError(f"engine {index} did not get weights version {version}, twice: {left[index]}")
        self._confirmed = answers[0]
        return answers

    def _refuse_silence(self, calls: Sequence[Any]) -> None:
        """Wait until every engine has said how loading went; once one says that nothing came, the others have little time to."""
        waiting, deadline = list(calls), time.monotonic() + _START_S
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
            if not done:
                late = ", ".join(str(calls.index(call)) for call in waiting)
                raise EngineError(f"engine {late} of {len(calls)} did not answer load in time")
            try:
                ray.get(done)
            except ray.exceptions.RayError:
                deadline = min(deadline, time.monotonic() + _LATE_S)

    def _loaded(self, index: int, call: Any, missed: dict[int, str]) -> dict[str, int]:
        """What an engine confirms; of one that died, after it was started again. One that got nothing is noted in `missed`."""
        try:
            found = ray.get(call, timeout=_START_S)
            self._members[index].restarts = 0
            return found
        except ray.exceptions.RayActorError as error:
            return self._restart(index, self._why(index, error))
        except Undelivered as error:
            missed[index] = last_words(error)
            return {}
        except ray.exceptions.RayError as error:
            raise EngineError(f"engine {index} failed in load: {last_words(error)}") from error

    def sleep(self) -> None:
        """Let every engine give its memory away. One that died is started again first, with the weights last pushed."""
        self._all("sleep", _START_S)

    def wake(self, part: Part) -> None:
        """Let every engine take the memory of a part again. One that died in its sleep is started again, awake; what is pushed next it gets like the others."""
        self._all("wake", _START_S, part)

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[np.ndarray]]:
        """Every engine's logprobs of the same sequences; see VllmEngine.score."""
        return self._all("score", _START_S, sequences)

    def stop(self) -> None:
        """Kill the actors."""
        for member in self._members:
            ray.kill(member.actor)

    def _go_on(self) -> None:
        """Hand every engine that owes groups and is not sampling its next slice."""
        for member in self._members:
            if member.call is None and member.owed:
                member.call, member.queue, member.since = member.actor.advance.remote(member.queue, SLICE_S), [], time.monotonic()

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
        except ray.exceptions.RayActorError as error:
            self._restart(index, self._why(index, error))
            return []
        except ray.exceptions.RayError as error:
            raise EngineError(f"engine {index} failed while sampling: {last_words(error)}") from error
        member.call = None
        for request_id, completions in finished:
            for completion in completions:
                if (completion.versions != self.version).any():
                    sampled = sorted(set(completion.versions.tolist()))
                    raise EngineError(f"engine {index} sampled {request_id} with policy version {sampled}, published is {self.version}")
        if finished:
            member.restarts = 0
        return [(member.owed.pop(request_id), completions) for request_id, completions in finished if request_id in member.owed]

    def _why(self, index: int, error: BaseException) -> str:
        """Why an actor is gone, for a log. Raises EngineError if its constructor raised: it would do so again."""
        if constructor_failed(error):
            raise EngineError(f"engine {index} could not start: {last_words(error)}") from error
        return why_dead(error)

    def _restart(self, index: int, why: str) -> dict[str, int]:
        """Start an engine again, with the weights last pushed and the groups it owed; again if it dies in that, a few times. The digests that it confirms."""
        member = self._members[index]
        while True:
            if member.restarts >= _RESTARTS:
                raise EngineError(
                    f"engine {index} died {_RESTARTS + 1} times in a row ({why}): look at its memory use and at engine.vllm in the recipe"
                )
            ray.kill(member.actor)
            log.warning("engine %d died (%s); it is started again and goes on with the %d groups it owed", index, why, len(member.owed))
            self.restarts += 1
            member.restarts += 1
            member.actor, member.call, member.queue = self._start(index), None, list(member.owed.values())
            confirmed = self._confirmed
            try:
                if self._again is not None:
                    confirmed = ray.get(member.actor.load.remote(self._again(index), self.version), timeout=_START_S)
                if self._rehearsal is not None:
                    requests, tolerance = self._rehearsal
                    self._refuse_dishonest(index, ray.get(member.actor.rehearse.remote(requests), timeout=_START_S), tolerance)
                break
            except ray.exceptions.RayActorError as error:
                why = self._why(index, error)
            except ray.exceptions.RayError as error:
                raise EngineError(f"engine {index} could not be started again ({why}): {last_words(error)}") from error
        if self._confirmed is not None and confirmed != self._confirmed:
            raise EngineError(f"engine {index} holds other bytes than version {self.version} after it was started again ({why})")
        return confirmed or {}

    def _all(self, method: str, seconds: float, *args: Any) -> list[Any]:
        """Call every engine; one that died, in its start too, is started again and asked once more."""
        calls = [getattr(member.actor, method).remote(*args) for member in self._members]
        return [self._answer(index, call, method, seconds, args) for index, call in enumerate(calls)]

    def _answer(self, index: int, call: Any, method: str, seconds: float, args: tuple[Any, ...]) -> Any:
        while True:
            try:
                answer = ray.get(call, timeout=seconds)
                self._members[index].restarts = 0
                return answer
            except ray.exceptions.RayActorError as error:
                self._restart(index, self._why(index, error))
                call = getattr(self._members[index].actor, method).remote(*args)
            except ray.exceptions.GetTimeoutError as error:
                raise EngineError(f"engine {index} did not answer {method} within {seconds:.0f} s") from error
            except ray.exceptions.RayError as error:
                raise EngineError(f"engine {index} failed in {method}: {last_words(error)}") from error
