"""Engines behind one door: a pool of Ray actors that turn requests into groups and can lose a member.

Claim: whatever is submitted comes back exactly once, also when an engine dies, freezes or hangs: it is started again, given the last
published weights, and handed the groups it owed. One that cannot be started again is done without, as long as there are others. Nothing waits without
a deadline (rollout/peers).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import ray

from rollout.honesty import check_rehearsal
from rollout.pace import SLICE_S, Sums
from rollout.parcels import Parcel
from rollout.peers import Call, Failed, Gone, Peer, answer, died, first
from rollout.sleep import Part
from rollout.types import Completion, Request
from rollout.weights import Undelivered

log = logging.getLogger(__name__)

_LONGEST_SLICE_S = 900.0  # an engine that runs and does not report for so long hangs
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


class EngineError(RuntimeError):
    """An engine failed for good; the message names it and what to do."""


class NothingCame(EngineError):
    """An engine runs, and did not get weights: whoever hands them out may be gone."""


Again = Callable[[int], AbstractContextManager[Any]]  # what an engine of that number is handed, for as long as it loads


@dataclass(eq=False)
class _Member:
    index: int
    peer: Peer
    queue: list[Request] = field(default_factory=list)
    owed: dict[str, Request] = field(default_factory=dict)
    call: Call | None = None
    restarts: int = 0  # in a row

    @property
    def actor(self) -> Any:
        return self.peer.actor


class Pool(Protocol):
    """What sampling asks of engines, wherever they are."""

    def submit(self, requests: Sequence[Request]) -> None: ...
    @property
    def outstanding(self) -> int: ...
    def ready(self, enough: Callable[[], bool] = lambda: False) -> list[tuple[Request, list[Completion]]]: ...


class EnginePool:
    """Engine actors and what each of them owes.

    Args:
        start: makes the i-th actor. Called again when it dies.
        count: number of engines.
    """

    def __init__(self, start: Callable[[int], Any], count: int):
        self._start = start
        self._members = [_Member(index, _peer(start, index)) for index in range(count)]
        self._again: Again | None = None
        self._confirmed: dict[str, int] | None = None
        self._rehearsal: tuple[Sequence[Request], float] | None = None
        self.version = 0  # policy version that every engine holds: the last one pushed
        self.restarts = 0
        self.given_up = 0  # engines that could not be started again

    def wait_ready(self) -> list[int]:
        """Block until every engine answers; their process ids. Raises EngineError naming the one that does not."""
        return self._all("process_id")

    def rehearse(self, requests: Sequence[Request], tolerance: float) -> list[list[int]]:
        """Let every engine sample and score the same small batch (rollout/honesty), and each that is started again later; the sequences of the first.

        Raises:
            EngineError: one reports logprobs that are not its own, or does not sample from them.
        """
        answers = self._all("rehearse", requests)
        self._rehearsal = requests, tolerance
        for member, samples in zip(self._members, answers, strict=True):
            self._refuse_dishonest(member.index, samples, tolerance)
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

    def ready(self, enough: Callable[[], bool] = lambda: False) -> list[tuple[Request, list[Completion]]]:
        """Block until at least one group is done and return all that are; an empty list only if none is outstanding, or `enough` says, after a slice
        of engines' time, that the caller has something to do."""
        while self.outstanding:
            self._go_on()
            calls = {member.call: member for member in self._members if member.call is not None}
            try:
                first([*calls])
            except Gone as gone:
                self._restart(calls[gone.call], str(gone))
            groups = [group for member in self._members for group in self._collect(member)]
            if groups or enough():
                self._go_on()  # the next slice is sampled while the caller judges this one
                return groups
        return []

    @property
    def count(self) -> int:
        """Number of engines that are there."""
        return len(self._members)

    @property
    def numbers(self) -> list[int]:
        """Of those: which of all that were started they are."""
        return [member.index for member in self._members]

    def paces(self) -> list[Sums]:
        """How fast every engine sampled since this was asked last (rollout/pace)."""
        return self._all("pace")

    def release(self) -> None:
        """Let go of the weights last pushed, so that the next ones find room. An engine that dies before those are there waits for them."""
        self._again = None

    def push(self, parcels: Sequence[Any], version: int, again: Again) -> list[dict[str, int]]:
        """Load weights into every engine; the digests each of them confirms.

        Args:
            parcels: what each engine is handed (rollout/parcels), or Ray's reference to it.
            again: another for one engine: of one that died, which is started again, now or later, or that got nothing since another died.

        Raises:
            EngineError: one does not answer.
            NothingCame: one gets nothing, though all are there.
        """
        self._again, self.version, self._confirmed = again, version, None
        before = self.restarts
        found = self._loaded(
            {self._call(member, "load", _START_S, what, version): member for member, what in zip(self._members, parcels, strict=True)}
        )
        for member, said in found.items():
            if isinstance(said, Gone):
                found[member] = self._restart(member, str(said))
            elif isinstance(said, Failed) and not isinstance(said.__cause__, Undelivered):
                raise EngineError(str(said)) from said
        for member in [member for member, said in found.items() if isinstance(said, Failed)]:
            words = f"engine {member.index} did not get weights version {version}"
            if self.restarts == before:
                raise NothingCame(f"{words}: {found[member]}")
            try:
                found[member] = self._load_again(member, again)
            except Gone as gone:
                found[member] = self._restart(member, str(gone))
            except Failed as error:
                raise NothingCame(f"{words}, twice: {error}") from error
        answers = [found[member] for member in self._members]
        self._confirmed = answers[0]
        return answers

    def _loaded(self, calls: Mapping[Call, _Member]) -> dict[_Member, Any]:
        """What each engine confirms, or the Gone or Failed that comes instead; once one says that nothing came, the others have little time to."""
        found: dict[_Member, Any] = {}
        while left := [call for call, member in calls.items() if member not in found]:
            try:
                call = first(left)
                found[calls[call]] = self._taken(calls[call], call, told=Undelivered)
                calls[call].restarts = 0
            except Gone as gone:
                found[calls[gone.call]] = gone
            except Failed as error:
                found[calls[call]] = error
            if isinstance([*found.values()][-1], Exception):
                for call in left:
                    call.hurry(_LATE_S)
        return {member: found[member] for member in calls.values()}

    def sleep(self) -> None:
        """Let every engine give its memory away. One that died is started again first, with the weights last pushed."""
        self._all("sleep")

    def wake(self, part: Part) -> None:
        """Let every engine take the memory of a part again. One that died in its sleep is started again, awake; what is pushed next it gets like the others."""
        self._all("wake", part)

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[np.ndarray]]:
        """Every engine's logprobs of the same sequences; see VllmEngine.score."""
        return self._all("score", sequences)

    def stop(self) -> None:
        """Kill the actors."""
        for member in self._members:
            ray.kill(member.actor)

    def _go_on(self) -> None:
        """Hand every engine that owes groups and is not sampling its next slice."""
        for member in self._members:
            if member.call is None and member.owed:
                member.call = self._call(member, "advance", _LONGEST_SLICE_S, member.queue, SLICE_S)
                member.queue = []

    def _collect(self, member: _Member) -> list[tuple[Request, list[Completion]]]:
        if member.call is None or not ray.wait([member.call.reference], timeout=0)[0]:
            return []
        try:
            finished = self._taken(member, member.call)
        except Gone as gone:
            self._restart(member, str(gone))
            return []
        except Failed as error:
            raise EngineError(str(error)) from error
        member.call = None
        for request_id, completions in finished:
            for completion in completions:
                if (completion.versions != self.version).any():
                    sampled = sorted(set(completion.versions.tolist()))
                    raise EngineError(
                        f"engine {member.index} sampled {request_id} with policy version {sampled}, published is {self.version}"
                    )
        if finished:
            member.restarts = 0
        return [(member.owed.pop(request_id), completions) for request_id, completions in finished if request_id in member.owed]

    def _restart(self, member: _Member, why: str) -> dict[str, int]:
        """Start an engine again, with the weights last pushed and the groups it owed; again if it dies in that, a few times. Else do without it.

        Returns:
            the digests that it confirms.
        """
        index = member.index
        while True:
            ray.kill(member.actor)
            if member.restarts >= _RESTARTS:
                return self._give_up(member, f"died {_RESTARTS + 1} times in a row ({why})")
            log.warning("%s; it is started again and goes on with the %d groups it owed", why, len(member.owed))
            self.restarts += 1
            member.restarts += 1
            member.peer, member.call, member.queue = _peer(self._start, index), None, list(member.owed.values())
            confirmed = self._confirmed
            try:
                self._taken(member, self._call(member, "process_id", _START_S))
                if self._again is not None:
                    confirmed = self._load_again(member, self._again)
                if self._rehearsal is not None:
                    requests, tolerance = self._rehearsal
                    self._refuse_dishonest(index, self._taken(member, self._call(member, "rehearse", _START_S, requests)), tolerance)
                break
            except Gone as gone:
                why = str(gone)
            except Failed as error:
                return self._give_up(member, f"could not be started again: {error}")
        if self._confirmed is not None and confirmed != self._confirmed:
            raise EngineError(f"engine {index} holds other bytes than version {self.version} after it was started again ({why})")
        return confirmed or {}

    def _load_again(self, member: _Member, again: Again) -> dict[str, int]:
        with again(member.index) as parcel:
            return self._taken(member, self._call(member, "load", _START_S, parcel, self.version))

    def _give_up(self, member: _Member, why: str) -> dict[str, int]:
        """Go on without an engine, which confirms nothing. Raises EngineError: there is no other."""
        others = [one for one in self._members if one is not member]
        if not others:
            raise EngineError(f"engine {member.index} {why}: look at its memory use and at engine.vllm in the recipe")
        ray.kill(member.actor)
        log.warning("engine %d %s: the run goes on with the %d engines that are left, and is slower", member.index, why, len(others))
        self.given_up += 1
        self._members = others
        self.submit(list(member.owed.values()))
        return {}

    def _call(self, member: _Member, method: str, seconds: float, *args: Any) -> Call:
        return Call(member.peer, getattr(member.actor, method).remote(*args), method, seconds)

    def _all(self, method: str, *args: Any) -> list[Any]:
        """Call every engine; one that died, in its start too, is started again and asked once more. The answers of those that are there in the end."""
        calls = [(member, self._call(member, method, _START_S, *args)) for member in self._members]
        answers = [(member, self._answer(member, call, args)) for member, call in calls]
        return [given for member, given in answers if member in self._members]

    def _answer(self, member: _Member, call: Call, args: tuple[Any, ...]) -> Any:
        while member in self._members:
            try:
                given = self._taken(member, call)
                member.restarts = 0
                return given
            except Gone as gone:
                self._restart(member, str(gone))
                call = self._call(member, call.operation, call.seconds, *args)
            except Failed as error:
                raise EngineError(str(error)) from error

    def _taken(self, member: _Member, call: Call, told: type[Exception] | tuple[()] = ()) -> Any:
        """Block until an engine answers. Raises as `peers.answer`: Gone also of one that answers with an error and ends, as it does with a killed worker of its own.

        Args:
            told: an error that is no sign of that.
        """
        try:
            return answer(call)
        except Failed as error:
            if not isinstance(error.__cause__, (ray.exceptions.RayActorError, told)) and died(
                [member.peer]
            ):  # the first is of its constructor
                raise Gone(call, f"ended with an error in {call.operation}: {error}") from error
            raise


def _peer(start: Callable[[int], Any], index: int) -> Peer:
    return Peer(f"engine {index}", start(index))
