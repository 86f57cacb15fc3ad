"""What becomes of a run when a process of it is killed or frozen: the table of docs/promises.md, and runs in which it happens.

    python -m tests.faults.survival          # prints the table
    python -m tests.faults.survival JOB      # a run of the laconic command to which faults happen; JOB: JSON, see `main`

A fault happens in the midst of a phase: what the phase waits for has been asked, and is not there. The places are calls inside the project; nothing in
it knows of them. The run's own limits are shortened, or a table would take hours.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

PEERS = ("driver", "engine", "learner rank", "judge", "node", "Ray head")
PHASES = ("start", "load", "rollout", "judge", "update", "push", "checkpoint", "eval")
SIGNALS = ("SIGKILL", "SIGSTOP")


@dataclass(frozen=True)
class Outcome:
    """What becomes of the run.

    Attributes:
        words: for people, a cell of the table.
        seconds: until that is under way.
        goes_on: the same process ends the run; else another one does, with --resume.
    """

    words: str
    seconds: float
    goes_on: bool = True


_AGAIN = "started again, goes on in the step, no prompt lost"
_JUDGE = "another one judges its answer, when it is next asked"
_STAGE = "processes are started anew, the run goes on from the last checkpoint"
_DRIVER = {
    "SIGKILL": Outcome("all its processes end; `--resume` goes on from the last checkpoint", 10, goes_on=False),
    "SIGSTOP": Outcome("the run waits, and goes on at SIGCONT", 0),
}


def outcome(peer: str, phase: str, sign: str) -> Outcome:
    """The table's cell."""
    frozen = sign == "SIGSTOP"
    match peer:
        case "driver":
            return _DRIVER[sign]
        case "engine":
            return Outcome(_AGAIN, (300 if phase == "start" else 120) if frozen else 5 if phase == "start" else 2)
        case "judge":
            return Outcome(_JUDGE, 120 if frozen and phase == "start" else 5 if frozen else 1)
        case "learner rank":
            return Outcome(_STAGE, (300 if phase in ("start", "load") else 120) if frozen else 5 if phase == "start" else 2)
    return Outcome(_STAGE, 40 if frozen else 10)


def table() -> str:
    """Markdown: a row for each peer and signal whose cells are alike."""
    lines = ["| who | in | signal | what becomes of the run | within |", "|---|---|---|---|---|"]
    for peer in PEERS:
        for sign in SIGNALS:
            phases: dict[Outcome, list[str]] = {}
            for phase in PHASES:
                phases.setdefault(outcome(peer, phase, sign), []).append(phase)
            for found, where in phases.items():
                place = "every phase" if len(where) == len(PHASES) else ", ".join(where)
                lines.append(f"| {peer} | {place} | {sign} | {found.words} | {f'{found.seconds:g} s' if found.seconds else ''} |")
    return "\n".join(lines)


# phase: what is waited for there, of whom (rollout/peers.Call.operation); "judge" is a call of its own
OPERATIONS = {
    "start": "process_id",
    "load": "rehearse",
    "rollout": "advance",
    "update": "update (micro-batch 1)",
    "push": "load",
    "checkpoint": "save",
    "eval": "advance",
}


class Faults:
    """Faults that happen to this run one after the other, and when."""

    def __init__(self, wanted: list[dict[str, Any]], log: str):
        self._wanted, self._log = wanted, log
        self._pools: list[Any] = []
        self._learners: list[Any] = []
        self._fallen: set[int] = set()
        self._evaluating, self._recorded = False, 0

    def say(self, event: str, **more: Any) -> None:
        with open(self._log, "a") as file:
            file.write(json.dumps({"time": time.time(), "event": event, **more}) + "\n")

    def at(self, phase: str) -> None:
        """Let the next fault happen, if it is one of this phase."""
        if not self._wanted or self._wanted[0]["phase"] != phase or self._recorded < self._wanted[0].get("recorded", 0):
            return
        fault = self._wanted[0]
        while (target := self._process(fault["peer"])) is None and fault["peer"] != "judge":
            time.sleep(0.02)  # its process is being started
        if target is None or target in self._fallen:
            return  # it fell to the fault before, which nobody has noticed yet: when another is in its place
        self._wanted.pop(0)
        self._fallen |= {target} - {os.getpid()}
        self.say("fault", **fault, process=target)
        sign = signal.Signals[fault["signal"]]
        if fault["peer"] == "judge":
            os.killpg(target, sign)  # it, and its fork that compares
            return
        if fault["peer"] == "driver" and sign == signal.SIGSTOP and not os.fork():
            time.sleep(3)
            os.kill(target, signal.SIGCONT)
            os._exit(0)
        os.kill(target, sign)
        self.at(phase)  # another that is to happen in the same wait

    def _process(self, peer: str) -> int | None:
        import ray

        def of_actor(actor: Any) -> int | None:
            return (ray._private.state.actors(actor._actor_id.hex()) or {}).get("Pid") or None

        match peer:
            case "driver":
                return os.getpid()
            case "engine":
                return of_actor(self._pools[-1]._members[-1].actor) if self._pools else None
            case "learner rank":
                return of_actor(self._learners[-1]._ranks[-1]) if self._learners else None
            case "judge":
                return judge_process()
        node = ray._private.worker._global_node
        infos = node.all_processes.get("raylet" if peer == "node" else "gcs_server") if node else None
        return infos[0].process.pid if infos else None

    def arm(self) -> None:
        """Put our calls around the project's."""
        from launch import stages
        from rewards.verifier import judge
        from rl import learner
        from rl.run import Run
        from rollout import engine, peers

        first, ask, evaluate, record = peers.first, judge._Worker._exchange, stages._evaluate, Run.record

        def asked(calls: Any) -> Any:
            while not peers.check_ray():  # so small a run would be over before anybody misses a frozen head
                time.sleep(0.1)
            for phase, operation in OPERATIONS.items():
                if any(call.operation == operation for call in calls) and (phase == "eval") == (
                    self._evaluating and operation == "advance"
                ):
                    self.at(phase)
            return first(calls)

        def exchanged(worker: Any, request: Any, deadline: float) -> Any:
            if "answer" in request and threading.current_thread().name.startswith("judge-"):
                self.at("judge")
            return ask(worker, request, deadline)

        def evaluated(*arguments: Any) -> Any:
            self._evaluating = True
            try:
                return evaluate(*arguments)
            finally:
                self._evaluating = False

        def recorded(run: Any, step: int, *arguments: Any) -> None:
            record(run, step, *arguments)
            self._recorded = max(self._recorded, step + 1)

        Run.record = recorded  # type: ignore[method-assign]
        for module in (peers, engine, learner):
            module.first = asked  # type: ignore[attr-defined]
        judge._Worker._exchange = exchanged  # type: ignore[method-assign]
        stages._evaluate = evaluated
        remember(engine.EnginePool, self._pools)
        remember(learner.Learner, self._learners)
        logging.getLogger().addHandler(Said(self.say))


def remember(kind: type, made: list[Any]) -> None:
    """Have every object of a kind noted."""
    begin: Callable[..., None] = kind.__init__  # type: ignore[misc]

    def noted(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        made.append(self)

    kind.__init__ = noted  # type: ignore[misc]


def judge_process() -> int | None:
    """A judging process of this one, with a group of its own."""
    import psutil

    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # ended since
            if "rewards.verifier.judge_worker" in child.cmdline() and os.getpgid(child.pid) == child.pid:
                return child.pid
    return None


class Said(logging.Handler):
    """Warnings, with their time."""

    def __init__(self, say: Callable[..., None]):
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say("warning", words=record.getMessage())


def main(job: dict[str, Any]) -> None:
    """Run the laconic command.

    Args:
        job: `arguments` of the command, `faults` [{peer, phase, signal, recorded: steps that must be before it}], `log` (a line of JSON an event), and `actors`:
            false, and learner and engine are in this process (tests/faults/killer).
    """
    from launch.cli import app
    from rewards.verifier import judge
    from rollout import parts, peers
    from tests.faults.killer import without_actors

    peers.SILENCE_S, peers.IMPORTS_S, peers.RAY_STOPPED_S, judge._START_S = 8.0, 20.0, 4.0, 20.0
    parts.PART_S = 0.0
    if not job["actors"]:
        without_actors()
    Faults(job["faults"], job["log"]).arm()
    sys.argv = ["laconic", *job["arguments"]]
    app()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(json.loads(sys.argv[1]))
    else:
        print(table())
