"""Waiting for actors of Ray: with a deadline, an eye on their heartbeats, and words that name who is missing, in what, and what it said last.

Claim: whoever waits learns within a second that an actor died, within SILENCE_S that its process is frozen, whatever it was doing and whoever waits for it
in a collective, and within the operation's own deadline that it hangs. A thread of each actor (`beat`) keeps the time in Ray's store, from the beginning of its
constructor on. Time in which the one who waits did not run counts for nobody. Simplification: until Ray has a process for an actor, the deadline of its start alone holds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from threading import Thread
from typing import Any

import psutil
import ray
from ray.experimental import internal_kv
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

BEAT_S = 2.0
SILENCE_S = 120.0  # a process that runs finds a moment for its heartbeat in that time, whatever else it does
IMPORTS_S = 300.0  # and for its first one, which comes behind torch's import, from a slow shared file system
RAY_STOPPED_S = 30.0  # Ray ends everybody after a minute without its head
WHY_DEAD = "killed by the system for its memory, or by someone"  # where its node goes on
_NODE_DIED = "its node has died"  # as Ray puts it
_LOOK_S = 1.0
_HEARS_S = 5.0
_READ_S = 10.0
_LAST_LINES = 5
_ADVERTISEMENT = re.compile(r"^\s*For further information visit ")
_MOST_WORDS = 600  # characters


class Gone(RuntimeError):
    """An actor's process died, is frozen or hangs; the message says which, in what, its last heartbeat and the end of its log.

    Attributes:
        call: that it does not answer.
    """

    def __init__(self, call: Call, words: str):
        super().__init__(f"{call.peer.name} {words}")
        self.call = call


class Failed(RuntimeError):
    """An actor raised an error, in its constructor or in what it was asked; it would do so again."""


class RayLost(RuntimeError):
    """A process of the Ray that this process started is gone or frozen; the message names it."""


def beat() -> None:
    """Tell whoever waits for this actor, every BEAT_S from now on, that its process runs. Does nothing outside of an actor."""
    if ray.is_initialized() and (actor := ray.get_runtime_context().get_actor_id()) is not None:
        Thread(target=_beat, args=(_key(actor),), name="heartbeat", daemon=True).start()


def _beat(key: bytes) -> None:
    while True:
        with suppress(Exception):  # a head that is away for a moment; that it stays away others find
            internal_kv._internal_kv_put(key, str(time.time()).encode(), overwrite=True)
        time.sleep(BEAT_S)


def _key(actor: str) -> bytes:
    return f"laconic-heartbeat-{actor}".encode()


@dataclass(eq=False)
class Peer:
    """An actor, as those see it who wait for it.

    Attributes:
        name: of it in messages: "engine 0".
    """

    name: str
    actor: Any
    _last: bytes | None = None
    _silent: float = 0.0

    def silent(self, passed: float) -> float:
        """Seconds of waiting since its last heartbeat, of which `passed` are new; before the first one, since it has a process."""
        try:
            heard = self._heard()
            runs = heard is not None or bool(self._found().get("Pid"))
        except Exception:  # the head is away; whether for a moment others find
            heard, runs = None, False
        self._silent = self._silent + passed if runs and heard == self._last else 0.0
        self._last = heard or self._last
        return self._silent

    @property
    def heard(self) -> bool:
        """Whether it ever had a heartbeat."""
        return self._last is not None

    def about(self) -> str:
        """Where it is, when it was last heard, and the end of its log."""
        found: dict[str, Any] = {}
        heard = self._last
        with suppress(Exception):  # the head is gone, too
            heard = self._heard() or heard
            found = self._found()
        process, node = found.get("Pid"), found.get("Address", {})
        where = f"process {process} on {node.get('IPAddress')}" if process else "of an unknown process"
        when = time.strftime("last heartbeat at %H:%M:%S", time.localtime(float(heard))) if heard else "no heartbeat yet"
        said = _log_of(process, node.get("NodeID")) if process else ""
        return f"{when}, {where}; its log " + (f"ends: {said}" if said else "says nothing")

    def _found(self) -> dict[str, Any]:
        """What Ray knows of it. Asked after `_heard`, which waits no longer than _READ_S for a head that is gone: this one ends the process after a minute."""
        return ray._private.state.actors(self.actor._actor_id.hex()) or {}

    def _heard(self) -> bytes | None:
        client = ray._private.worker.global_worker.gcs_client
        return client.internal_kv_get(_key(self.actor._actor_id.hex()), None, timeout=_READ_S)


@dataclass(eq=False)
class Call:
    """What an actor was asked, and how much longer that may take.

    Attributes:
        operation: for messages: "update (micro-batch 3)".
        seconds: of waiting until it counts as hanging.
    """

    peer: Peer
    reference: Any
    operation: str
    seconds: float
    _waited: float = 0.0
    _looked: float = field(default_factory=lambda: time.monotonic())

    def hurry(self, seconds: float) -> None:
        """From now on it may take so long, no more."""
        self.seconds = min(self.seconds, self._waited + seconds)

    def look(self) -> None:
        """Count the time that passed. Raises Gone: there was too much of it."""
        now = time.monotonic()
        if (passed := now - self._looked) < _LOOK_S:
            return
        self._looked, passed = now, min(passed, 2 * _LOOK_S)  # in the rest of it this process was busy or frozen itself
        self._waited += passed
        if (silent := self.peer.silent(passed)) > (SILENCE_S if self.peer.heard else IMPORTS_S):
            raise Gone(self, f"is frozen in {self.operation}: no heartbeat for {silent:.0f} s, {self.peer.about()}")
        if self._waited > self.seconds:
            raise Gone(self, f"did not finish {self.operation} within {self.seconds:.0f} s: {self.peer.about()}")


def first(calls: Sequence[Call]) -> Call:
    """Block until one of several calls is answered, or has failed, and return it.

    Raises:
        Gone: a process of another one is frozen, or took too long.
        RayLost: Ray itself is gone or frozen.
    """
    while True:
        done, _ = ray.wait([call.reference for call in calls], num_returns=1, timeout=_LOOK_S)
        runs = check_ray()  # else nobody is looked at, as that asks its head, which is waited for
        for call in calls:
            if runs and call.reference not in done:
                call.look()
        if done:
            return next(call for call in calls if call.reference in done)


def answer(call: Call) -> Any:
    """Block until a call is answered. Raises as `first` and `taken`."""
    return taken(first([call]))


def taken(call: Call) -> Any:
    """The answer of a call that is there.

    Raises:
        Gone: the actor died.
        Failed: it raised an error.
    """
    name = call.peer.name
    try:
        return ray.get(call.reference)
    except ray.exceptions.RayActorError as error:
        if getattr(error, "actor_init_failed", False):
            raise Failed(f"{name} could not start: {last_words(error)}") from error
        raise Gone(call, f"died in {call.operation}: {why_dead(error)}; {call.peer.about()}") from error
    except ray.exceptions.RayError as error:
        raise Failed(f"{name} failed in {call.operation}: {last_words(error)}") from error


def died(peers: Sequence[Peer]) -> Peer | None:
    """The first whose process is gone, of which Ray hears within _HEARS_S."""
    until = time.monotonic() + _HEARS_S
    while time.monotonic() < until:
        with suppress(Exception):  # the head is away; whether for a moment others find
            if dead := next((peer for peer in peers if peer._found().get("State") == "DEAD"), None):
                return dead
        time.sleep(_LOOK_S / 5)
    return None


_stopped: dict[int, float] = {}  # since when processes of Ray are seen to be stopped


def check_ray() -> bool:
    """Whether the head and the raylet that this process started run. Raises RayLost if one is dead, or was stopped for RAY_STOPPED_S."""
    runs = True
    for kind, process in ray_processes():
        if process.poll() is not None:
            raise RayLost(f"Ray's {kind} (process {process.pid}) is gone: {WHY_DEAD}")
        if not stopped(process):
            _stopped.pop(process.pid, None)
            continue
        runs = False
        if time.monotonic() - _stopped.setdefault(process.pid, time.monotonic()) > RAY_STOPPED_S:
            raise RayLost(f"Ray's {kind} (process {process.pid}) has been stopped for {RAY_STOPPED_S:.0f} s, by someone")
    return runs


def ray_processes() -> list[tuple[str, Popen[bytes]]]:
    """Ray's head (gcs_server) and raylet, where this process started them."""
    node = ray._private.worker._global_node
    return [(kind, info.process) for kind in ("gcs_server", "raylet") for info in (node.all_processes.get(kind, ()) if node else ())]


def stopped(process: Popen[bytes]) -> bool:
    """Whether a process is there and frozen by a signal."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
    return False


def why_dead(error: BaseException) -> str:
    """All that can be known of why an actor is gone."""
    return "its node is gone, or cut off from the others" if _NODE_DIED in str(error) else WHY_DEAD


def last_words(error: BaseException) -> str:
    """What Ray says of an error, without the road to it: the exception that was raised far away, with its whole message."""
    lines = [line for line in str(error).splitlines() if line.strip() and not _ADVERTISEMENT.search(line)]
    frame = max((index for index, line in enumerate(lines) if line.lstrip().startswith("File ")), default=None)
    if frame is not None:
        lines = lines[next((index for index in range(frame, len(lines)) if not lines[index][0].isspace()), -1) :]
    else:
        lines = lines[-1:]
    return _short(" ".join(lines)) or type(error).__name__


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _MOST_WORDS else words[: _MOST_WORDS - 3] + "..."


def _log_of(process: int, node: str) -> str:
    """The end of an actor's log, on whatever node it is; "" where that does not answer."""
    if node == ray.get_runtime_context().get_node_id():
        return log_end(process)
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    with suppress(Exception):  # the node is gone, too
        return ray.get(ray.remote(log_end).options(num_cpus=0, scheduling_strategy=there).remote(process), timeout=_READ_S)
    return ""


def log_end(process: int) -> str:
    """The last lines that a Ray worker of this node wrote, standard error before standard output."""
    folder = Path(ray._private.worker._global_node.get_logs_dir_path())
    lines: list[str] = []
    for file in sorted(folder.glob(f"worker-*-{process}.*")):  # .err, .out
        text = file.read_text(encoding="utf-8", errors="replace")[-10_000:]
        lines += [line for line in text.splitlines() if line.strip() and not line.startswith((":job_id:", ":actor_name:"))][-_LAST_LINES:]
    return _short(" | ".join(lines[:_LAST_LINES]))
