"""How fast engines sample: their steps by how many sequences run, and what they got of a core. `laconic plan --simulate` is calibrated by it.

Sums over steps, which add up over engines, and a straight line through them: seconds of a step = least + each x sequences that run. Steps in which
nothing but new prompts runs are kept apart, as what taking a sequence in costs; prompts that come in beside others are in the line.
On a CPU, seconds of the line are those of the processor, which the load of others does not stretch.
Simplification: how long the sequences are by then, which slows attention, is in the line only as far as it goes with their number.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

SLICE_S = 0.2  # an engine that is asked reports finished groups about this often

Sums = Counter[str]


class Pace:
    """The sums of one engine, on a GPU or on a CPU."""

    def __init__(self, gpu: bool) -> None:
        self._gpu = gpu
        self._sums: Sums = Counter()

    def begin(self, coming: int) -> None:
        """A call begins, with so many sequences that come in."""
        self._coming = coming
        self._at = time.monotonic(), time.thread_time()
        self._sums["calls"] += 1

    def stepped(self, running: int) -> None:
        """A step is done, and what follows from it, in which so many sequences ran."""
        now = time.monotonic(), time.thread_time()
        seconds, core = now[0] - self._at[0], now[1] - self._at[1]
        self._at = now
        sums: dict[str, float] = {"busy": seconds, "core": core}
        took = seconds if self._gpu else core
        if not self._coming:
            sums |= {"steps": 1, "n": running, "nn": running**2, "t": took, "nt": running * took}
        elif self._coming == running:
            sums |= {"taken": running, "taking": took}
        self._coming = 0
        self._sums.update(sums)

    def take(self) -> Sums:
        """The sums since this was asked last."""
        sums, self._sums = self._sums, Counter()
        return sums


def line(sums: Sums) -> tuple[float, float] | None:
    """Seconds of a step: with few sequences, and more with each; None where all steps had the same number. Neither is below 0."""
    n, spread = sums["steps"], sums["steps"] * sums["nn"] - sums["n"] ** 2
    if spread <= 0:
        return None
    each = max(0.0, (n * sums["nt"] - sums["n"] * sums["t"]) / spread)
    least = (sums["t"] - each * sums["n"]) / n
    return (least, each) if least >= 0 else (0.0, sums["nt"] / sums["nn"])  # through 0


def pace_metrics(engines: Sequence[Sums], seconds: float) -> dict[str, float | int | None]:
    """What a step's sampling of so many seconds says of its engines, by metric name; nothing of engines that keep no time."""
    sums: Sums = Counter()
    for one in engines:
        sums.update(one)
    if not sums["busy"]:
        return {}
    least, each = line(sums) or (None, None)
    return {
        "engines/step": least,
        "engines/step_each": each,
        "engines/take": sums["taking"] / sums["taken"] if sums["taken"] else None,
        "engines/busy": sums["busy"] / (len(engines) * seconds),
        "engines/core": sums["core"] / sums["busy"],
        "engines/calls": sums["calls"],
    }
