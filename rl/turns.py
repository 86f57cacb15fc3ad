"""Whose turn it is on GPUs that engines and the learner's ranks share.

    learn: engines sleep, the learner has all it needs
      | hand_over   the learner rests, engines have room for weights
    hand over: weights are pushed
      | sample      engines have room for keys and values
    sample: what is pushed is sampled, scored and evaluated; the learner, resting, still measures and saves
      | learn       engines give everything away, the learner comes back

Claim: engines' caches and the optimiser's state are never on a GPU together, and an engine that slept gets weights before it samples. Whoever needs a
turn says so and asks for nothing where it has it. Without turns (GPUs of one's own, or no sleep) everybody is always there, and no call does a thing.
Simplification: engines are started again in sampling only (rollout/engine), when there is room for a whole one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rl.learner import Learner
    from rollout.engine import EnginePool

Turn = Literal["learn", "hand over", "sample"]


class Turns:
    """The turns of engines and a learner, whose it is to begin with, while the engines sleep.

    Args:
        pairs: engines and learner that take turns; without them there are none.
    """

    def __init__(self, *pairs: tuple[EnginePool, Learner]):
        self._pairs = pairs
        self._at: Turn = "learn"
        self._seconds = 0.0

    def hand_over(self) -> None:
        """Weights can go from the learner to the engines."""
        if self._at == "learn":
            self._become("hand over", lambda _, learner: learner.rest(True), lambda pool, _: pool.wake("weights"))

    def sample(self) -> None:
        """Engines can sample, with the weights that have been pushed."""
        if self._at == "hand over":
            self._become("sample", lambda pool, _: pool.wake("kv_cache"))

    def learn(self) -> None:
        """The learner can update; nothing is being sampled."""
        if self._at != "learn":
            self._become("learn", lambda pool, _: pool.sleep(), lambda _, learner: learner.rest(False))

    def spent(self) -> dict[str, float]:
        """`seconds/turns` since this was asked last; nothing without turns."""
        seconds, self._seconds = self._seconds, 0.0
        return {"seconds/turns": seconds} if self._pairs else {}

    def _become(self, turn: Turn, *changes: Callable[[EnginePool, Learner], None]) -> None:
        start = time.monotonic()
        for pool, learner in self._pairs:
            for change in changes:
                change(pool, learner)
        self._at = turn
        self._seconds += time.monotonic() - start
