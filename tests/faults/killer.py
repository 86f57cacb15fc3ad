"""Runs of the laconic command that are SIGKILLed, with all their processes, when they reach a point for the nth time; or are told to end there (SIGTERM).

    python -m tests.faults.killer < jobs    # a job a line: {"point": ..., "count": ..., "signal": ..., "actors": ..., "arguments": [...], "output": file}

One process imports everything and forks for each job, since imports cost more than the runs; it answers a line with the exit code. A job
without a point runs to its end. The points are calls inside the project; nothing in the project knows of them.
A job without actors has learner (DeepSpeed) and engine in its own process instead of Ray's, which saves it their imports.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn

import deepspeed  # noqa: F401
import torch
import torch.utils.tensorboard

import launch.engines
import launch.stages  # what a run needs, imported once
import rewards.verifier.judge
import rl.learner
import rollout.engine
import rollout.peers
from evaluation.evaluate import Asked
from launch.cli import app
from rl import algorithm, checkpoint, merge, supervised
from rl.learner import Learner
from rl.meeting import Member
from rl.publisher import Publisher
from rl.run import Run
from rollout import parts
from rollout.engine import EnginePool
from rollout.parts import Parts
from rollout.scorer import Scorer
from tests.inprocess import Ray

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
    "mid-save": (checkpoint, "_seal", "before"),  # from here on beside the next step
    "between-filling-and-sealing": (Learner, "save", "after"),  # nothing is flushed
    "between-sealing-and-renaming": (checkpoint, "_seal", "after"),
    "between-save-and-prune": (checkpoint, "prune", "before"),
    "after-the-last-step": (Run, "__exit__", "before"),
}

# where a run is told to end; there it is always before
POLITE_POINTS: dict[str, tuple[Any, str, str]] = {
    "load": (launch.stages, "read_data", "before"),
    "start": (EnginePool, "wait_ready", "before"),
    "rollout": (EnginePool, "ready", "before"),
    "verdict": (Scorer, "finish", "before"),
    "prepare": (algorithm, "prepare", "before"),
    "update": (Learner, "update", "before"),
    "push": (EnginePool, "push", "before"),
    "checkpoint": (Learner, "save", "before"),
    "evaluate": (launch.stages, "_evaluate", "before"),
}

# the same, of runs of several stages
STAGE_POINTS: dict[str, tuple[Any, str, str]] = {
    "mid-sampling": (Parts, "keep", "after"),
    "mid-supervised": (supervised._Keeper, "on_save", "after"),
    "between-metrics-and-checkpoint": (Run, "record", "after"),
    "before-an-evaluation-is-kept": (Asked, "finish", "before"),
    "between-stages": (launch.stages, "merge", "before"),
    "mid-merge": (merge, "_overwrite", "after"),
}


def arm(point: str, count: int, polite: bool = False) -> None:
    """Replace the point's function by one that ends everything at its `count`-th call, or asks the run to end."""
    owner, name, when = (POINTS | POLITE_POINTS | STAGE_POINTS)[point]
    original: Callable[..., Any] = getattr(owner, name)
    left = [count]

    def armed(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0]:
            return original(*args, **kwargs)
        if polite:
            os.kill(os.getpid(), signal.SIGTERM)
            return original(*args, **kwargs)
        if when == "during":  # the ranks have been asked, and are at work
            owner._get = lambda *args, **kwargs: (time.sleep(0.05), end())
        if when != "before":
            original(*args, **kwargs)
        end()

    setattr(owner, name, armed)


def end() -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)


def without_actors() -> None:
    """Put a stand-in for Ray in its place, and what the learner's process gets from Ray into this one."""
    engines: Any = launch.engines
    engines.start_ray = lambda **_: None
    engines.stop_ray = lambda: None
    for module in (engines, rl.learner, rollout.engine, rollout.peers):
        module.ray = Ray()
    meet = Member.meet
    Member.meet = lambda self, *told: None if torch.distributed.is_initialized() else meet(self, *told)  # the learner of another stage did
    rewards.verifier.judge.subprocess = SimpleNamespace(Popen=unwarmed, PIPE=subprocess.PIPE)
    os.environ.update(DS_ACCELERATOR="cpu", TORCHDYNAMO_DISABLE="1")
    torch.set_num_threads(1)  # as an engine's own process would


def unwarmed(command: list[str], **more: Any) -> subprocess.Popen[bytes]:
    """A judging process that reads nothing beforehand, which would take as long as half of a run."""
    module = command[command.index("-m") + 1]
    code = f"import sys; from {module} import _WARM_UP, main; _WARM_UP.clear(); main(float(sys.argv[2]), int(sys.argv[3]))"
    return subprocess.Popen([sys.executable, "-P", "-B", "-c", code, module, *command[-2:]], **more)  # known by its name, as the other is


def run(job: dict[str, Any]) -> NoReturn:
    """The job, in a process group of its own."""
    os.setsid()
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    if not job["actors"]:
        without_actors()
    parts.PART_S = 0.0  # a part for each group
    if job["point"]:
        arm(job["point"], job["count"], job["signal"] == "SIGTERM")
    sys.argv = ["laconic", *job["arguments"]]
    app()
    raise SystemExit(0)


if __name__ == "__main__":
    for line in sys.stdin:
        if not (child := os.fork()):
            run(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
