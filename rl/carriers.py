"""What carries weights from the learner to engines: Ray's object store, shared memory, or a broadcast. The publisher speaks to one of them.

| carrier | what travels | where it works |
|---|---|---|
| `store` | the bytes, once to each node | everywhere |
| `ipc` | handles; an engine reads the memory of the rank beside it | engine and rank on one GPU; without GPUs, on one machine |
| `broadcast` | the bytes, through all engines (NCCL; gloo without GPUs) | GPUs of their own, also on several nodes |

Claim: each of them hands all engines the same version, and gives it again to one that was started again, until the next push; an engine that dies in a push costs that
push a repeat, no more. Which one it is, launch/placement says. Simplification: what is given again goes to one engine at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

from rl.learner import Learner
from rollout.broadcast import Seat
from rollout.engine import EngineError, EnginePool, NothingCame

_HANDS_S = 300.0  # for the learner to gather its tensors and hand them out
_LATE_S = 5.0  # for a learner to say that it is there, when engines say that nothing came


class Carrier(Protocol):
    """See the module."""

    def push(self, learner: Learner, pool: EnginePool, version: int) -> tuple[dict[str, int], list[dict[str, int]]]:
        """Load the learner's weights into every engine as `version`; the learner's digests, and those that each engine confirms."""


class ObjectStore:
    """The bytes are put once and read by all; what was put before must be gone by then (EnginePool.release)."""

    def push(self, learner: Learner, pool: EnginePool, version: int) -> tuple[dict[str, int], list[dict[str, int]]]:
        stored, digests = learner.weights()
        return digests, pool.push([stored] * pool.count, version, lambda engine: nullcontext(stored))


class Ipc:
    """An engine reads what the rank beside it has (launch/placement). The learner makes digests meanwhile."""

    def push(self, learner: Learner, pool: EnginePool, version: int) -> tuple[dict[str, int], list[dict[str, int]]]:
        def shared(engines: Sequence[int]) -> dict[int, Any]:
            return dict(item for of_rank in learner.hand_out("share", engines)(_HANDS_S) for item in of_rank.items())

        @contextmanager
        def again(engine: int) -> Iterator[Any]:
            try:
                yield shared([engine])[engine]
            finally:
                learner.hand_out("forget")(_HANDS_S)

        handles = shared(pool.numbers)
        digests = learner.hand_out("digests")
        try:
            confirmed = pool.push([handles[engine] for engine in pool.numbers], version, again)
        except NothingCame:
            learner.hand_out("forget")(_HANDS_S)  # if it is the learner that is gone, this says so
            raise
        made = digests(_HANDS_S)[0]
        learner.hand_out("forget")(_HANDS_S)  # before engines on the same GPUs have caches again
        return made, confirmed


class Broadcast:
    """All engines take part in one group, which stays until one of them is started again.

    Args:
        workers: processes of each engine.
        seconds: for a bucket, and to meet.
    """

    def __init__(self, workers: int = 1, seconds: float = 60.0):
        self._each = workers, seconds
        self._seats: list[Seat] = []
        self._restarts = 0

    def push(self, learner: Learner, pool: EnginePool, version: int) -> tuple[dict[str, int], list[dict[str, int]]]:
        @contextmanager
        def again(engine: int) -> Iterator[Any]:
            [seat] = learner.hand_out("meet", 1, *self._each)(_HANDS_S)[0]
            sent = learner.hand_out("send")
            try:
                yield seat
            finally:
                sent(_HANDS_S)  # waits no longer for an engine than `seconds`; if it is the learner that is gone, this says so

        pool.wait_ready()  # who has died since the push before is started again first
        if not self._seats or self._restarts != pool.restarts:
            self._seats = learner.hand_out("meet", pool.count, *self._each)(_HANDS_S)[0]
            self._restarts = pool.restarts
        sent = learner.hand_out("send")
        try:
            confirmed = pool.push(self._seats, version, again)
        except EngineError as error:
            self._seats = []
            if isinstance(error, NothingCame):
                sent(_LATE_S)  # if it is the learner that is gone, this says so
            raise
        return sent(_HANDS_S)[0], confirmed


CARRIERS: dict[str, type[Carrier]] = {"store": ObjectStore, "ipc": Ipc, "broadcast": Broadcast}
