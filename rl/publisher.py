"""The publisher: the weights that were trained become the weights that sample, or the run stops.

Every push carries a version and a digest per tensor which every engine must confirm; an engine drops its caches in the
same call. Digests cannot see what an engine makes of the bytes it got (a packed copy that stays old, a wrong layout), so
before the first update and every few steps all engines score a fixed batch, and their logprobs must be the learner's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from recipes.schema import Publish
from rl.carriers import Carrier, ObjectStore
from rl.learner import Learner
from rl.turns import Turns
from rollout.engine import EnginePool


class PublishError(RuntimeError):
    """Engines do not hold the weights that the learner sent."""


class Publisher:
    """Pushes weights and checks that they arrived.

    Args:
        probe: token ids of the fixed batch.
        turns: of engines and learner; a push begins the engines'. None: they take none.
        carrier: of the weights; None: Ray's object store.
    """

    def __init__(
        self,
        pool: EnginePool,
        settings: Publish,
        probe: Sequence[Sequence[int]],
        turns: Turns | None = None,
        carrier: Carrier | None = None,
    ):
        self._pool, self._settings, self._probe = pool, settings, probe
        self._turns, self._carrier = turns or Turns(), carrier or ObjectStore()
        self._checked = False
        self._last: dict[str, int] = {}
        self._version: int | None = None

    def begin(self, learner: Learner, version: int) -> None:
        """See `push`; nothing where engines hold that version."""
        if version != self._version:
            self.push(learner, version)

    def push(self, learner: Learner, version: int) -> dict[str, float | None]:
        """Load the learner's weights into every engine as policy version `version`.

        Returns:
            `seconds/publish`, `publish/changed` (share of tensors that are other bytes than the last push's, 1 for the first), and
            `publish/check` (mean |gap| in nats) on pushes that checked.

        Raises:
            PublishError: an engine confirms other bytes, or gives other logprobs than the learner.
        """
        start = time.monotonic()
        self._pool.release()
        self._turns.hand_over()
        digests, answers = self._carrier.push(learner, self._pool, version)
        for engine, confirmed in zip(self._pool.numbers, answers, strict=True):
            wrong = sorted(name for name in digests.keys() | confirmed.keys() if digests.get(name) != confirmed.get(name))
            if wrong:
                raise PublishError(f"engine {engine} holds other bytes than version {version} of {wrong[0]} ({len(wrong)} tensors differ)")
        self._turns.sample()
        changed = sum(self._last.get(name) != digest for name, digest in digests.items())
        metrics: dict[str, float | None] = {"publish/changed": changed / len(digests)}
        self._last, self._version = digests, version
        if not self._checked or version % self._settings.check_every == 0:
            metrics["publish/check"] = self._check(learner, version)
        metrics["seconds/publish"] = time.monotonic() - start
        return metrics

    def _check(self, learner: Learner, version: int) -> float:
        expected = np.concatenate(learner.score(self._probe))
        gap_E = np.array([np.abs(np.concatenate(scores) - expected).mean() for scores in self._pool.score(self._probe)])
        worst = int(gap_E.argmax())  # a NaN is, whichever engine's
        if not gap_E[worst] <= self._settings.tolerance:
            raise PublishError(
                f"engine {self._pool.numbers[worst]} gives other logprobs than the learner for version {version}: mean gap {gap_E[worst]:.2g} nats, "
                f"publish.tolerance {self._settings.tolerance:g}. The engine does not run the weights it was sent"
            )
        self._checked = True
        return float(gap_E[worst])
