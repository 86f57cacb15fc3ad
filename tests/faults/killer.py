"""`python -m tests.faults.killer POINT N ...`: the laconic command, SIGKILLed with all its processes when it reaches a point for the Nth time.

The points are calls inside the project; nothing in the project knows of them.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from launch.cli import app
from rl import algorithm, checkpoint
from rl.learner import Learner
from rl.publisher import Publisher
from rl.run import Run
from rollout.engine import EnginePool
from rollout.scorer import Scorer

# name: where the function is found, its name, and whether the kill comes before or after it has done its work
POINTS: dict[str, tuple[Any, str, str]] = {
    "before-the-first-push": (Publisher, "push", "before"),
    "mid-rollout": (EnginePool, "ready", "after"),
    "mid-verdict": (Scorer, "finish", "before"),
    "before-the-update": (algorithm, "prepare", "after"),
    "mid-backward": (Learner, "update", "during"),
    "between-update-and-push": (Learner, "update", "after"),
    "mid-push": (EnginePool, "push", "after"),
    "between-samples-and-metrics": (Run, "keep_samples", "after"),
    "between-metrics-and-checkpoint": (Run, "record", "after"),
    "mid-save": (checkpoint, "_seal", "before"),
    "between-save-and-prune": (checkpoint, "prune", "before"),
    "after-the-last-step": (Run, "__exit__", "before"),
}


def arm(point: str, count: int) -> None:
    """Replace the point's function by one that ends everything at its `count`-th call."""
    owner, name, when = POINTS[point]
    original: Callable[..., Any] = getattr(owner, name)
    left = [count]

    def armed(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0]:
            return original(*args, **kwargs)
        if when == "during":  # the ranks have been asked, and are at work
            owner._get = lambda *args, **kwargs: (time.sleep(0.05), end())
        if when != "before":
            original(*args, **kwargs)
        end()

    setattr(owner, name, armed)


def end() -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    arm(sys.argv[1], int(sys.argv[2]))
    sys.argv = ["laconic", *sys.argv[3:]]
    app()
