"""How many groups of right answers alone may train in a step: DECS' kappa (arXiv 2509.25827), which rises as thoughts reach their answer later in themselves.

Claim: what is let in depends on recipe, state and verdicts alone, so a resumed run lets in the same; without a ratio in a step nothing moves.
The release's kappa has no bounds and keeps no memory but the last ratio, kappa = gain x (ratio - 0.5); a step without a ratio makes it NaN for good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Kappa:
    """Groups of right answers alone as a share of a step; has state (rl/state).

    Attributes:
        gain: change of the share by a change of the ratio.
        most: largest share of a step's `prompts`.
        share: kappa, that of the step to come.
        ratio: mean share of their chunks in which right answers of the last step that had any reached the gold.
        mixed: groups of right and wrong answers that trained since one of right answers alone last did.
    """

    gain: float
    most: float
    prompts: int
    share: float = 0.0
    ratio: float = 0.5
    mixed: int = 0

    def easy(self, mixed: int) -> int:
        """Groups of right answers alone that may train beside so many mixed ones, floor(kappa K / (1 - kappa)); what is owed from earlier steps never makes them more than `most`."""
        owed = self.share * (self.mixed + mixed) / (1 - self.share)
        return int(min(owed, self.most * self.prompts) + 1e-9)

    def kept(self, mixed: int, right: int) -> int:
        """Groups worth training on among so many mixed ones and ones of right answers alone. Grows with either by 1 or more; none is worth more than a mixed one."""
        return mixed + min(self.easy(mixed), right)

    def fit(self, mixed: int, right: int) -> tuple[int, int]:
        """How many of each train: as few mixed ones as fill the step."""
        used = next((count for count in range(mixed) if self.kept(count, right) >= self.prompts), mixed)
        return used, min(self.kept(used, right), self.prompts) - used

    def after(self, ratios: Sequence[float], mixed: int, easy: int) -> dict[str, float | int | None]:
        """Take in a step; the trace by metric name.

        Args:
            ratios: of right rollouts that trained, where a chunk reached the gold.
            mixed, easy: groups that trained.
        """
        ratio = float(np.mean(ratios)) if ratios else None
        trace = {"credit/ratio": ratio} | ({"credit/kappa": self.share, "groups/easy": easy} if self.most else {})
        self.mixed = 0 if easy else self.mixed + mixed
        if ratio is not None:
            self.share = min(max(self.share + self.gain * (ratio - self.ratio), 0.0), self.most)
            self.ratio = ratio
        return trace

    def state(self) -> dict[str, Any]:
        return {"share": self.share, "ratio": self.ratio, "mixed": self.mixed}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.share, self.ratio, self.mixed = state["share"], state["ratio"], state["mixed"]
