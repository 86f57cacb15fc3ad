"""What an engine lacks that gave its memory away, so that nothing is asked of it meanwhile.

Claim: an engine that slept samples and scores only after it has room for weights, the weights themselves, and room for its cache, in this order.
"""

from __future__ import annotations

from typing import Literal

Part = Literal["weights", "kv_cache"]  # as vLLM calls them
_ROOM: dict[Part, str] = {"weights": "room for weights", "kv_cache": "room for keys and values"}


class Wakefulness:
    """Of one engine; it begins awake, and what is asked of it in its sleep raises RuntimeError."""

    def __init__(self) -> None:
        self._missing: set[str] = set()

    def sleep(self) -> None:
        """Nothing is kept, weights neither."""
        self._missing = {"weights", *_ROOM.values()}

    def wake(self, part: Part) -> None:
        """There is room for a part; what was in it is gone."""
        self._missing.discard(_ROOM[part])

    def loading(self, version: int) -> None:
        """New weights come; until all are there, there are none."""
        if _ROOM["weights"] in self._missing:
            raise RuntimeError(f"weights version {version} came to an engine that sleeps: wake it first")
        self._missing.add("weights")

    def loaded(self) -> None:
        """All weights are there."""
        self._missing.discard("weights")

    def needed(self, what: str) -> None:
        """All is needed."""
        if self._missing:
            lacks = " and no ".join(sorted(self._missing))
            raise RuntimeError(f"an engine was asked to {what} that has no {lacks}: it sleeps, or a push did not arrive")
