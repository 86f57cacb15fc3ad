"""Actors as forks of one process that has imported what they need, for tests that start ranks and engines by the dozen: imports would cost more than what they show.

All that happens in an actor is real: DeepSpeed, gloo, ZeRO over several processes, vLLM, files, and death by a signal. Of Ray there is what `rl.learner`,
`rollout.engine` and `rollout.peers` ask of it. Ray's own actors are in the tests of whole runs, of the pool and of carriers.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import pytest
import ray

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.forked_imports"])


def _live(there: Connection, kind: type, environment: dict[str, str], arguments: tuple[Any, ...]) -> None:
    """An actor: what it is asked, one call after the other, until nobody can ask."""
    os.environ.update(environment)
    actor, broken = None, ""
    try:
        actor = kind(*arguments)
    except Exception:
        broken = traceback.format_exc()
    while True:
        try:
            method, given = there.recv()
        except EOFError:
            return
        try:
            there.send((getattr(actor, method)(*given), broken))
        except Exception:
            there.send((None, broken or traceback.format_exc()))


class _Actor:
    def __init__(self, kind: type, environment: dict[str, str], arguments: tuple[Any, ...]):
        self._here, there = _FORKS.Pipe()
        self._calls = ThreadPoolExecutor(1)
        self.process = _FORKS.Process(target=_live, args=(there, kind, environment, arguments), daemon=True)
        self.process.start()
        there.close()
        self._actor_id = SimpleNamespace(hex=lambda: self)  # what Forked's state is asked by

    def __getattr__(self, name: str) -> _Method:
        return _Method(self, name)

    def ask(self, method: str, arguments: tuple[Any, ...]) -> Any:
        given = [argument.result() if isinstance(argument, Future) else argument for argument in arguments]
        try:
            self._here.send((method, given))
            answer, error = self._here.recv()
        except (EOFError, OSError) as error:
            raise ray.exceptions.ActorDiedError from error
        if error:
            raise ray.exceptions.RayError(error)
        return answer

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        return self._calls.submit(function, *arguments)


class _Method:
    def __init__(self, actor: _Actor, name: str, returns: int = 1):
        self._actor, self._name, self._returns = actor, name, returns

    def options(self, num_returns: int) -> _Method:
        return _Method(self._actor, self._name, num_returns)

    def remote(self, *arguments: Any) -> Any:
        answer = self._actor.submit(self._actor.ask, self._name, arguments)
        if self._returns == 1:
            return answer
        return [self._actor.submit(lambda index: answer.result()[index], index) for index in range(self._returns)]


class Forked:
    """In Ray's place."""

    exceptions = ray.exceptions

    def __init__(self) -> None:
        self._actors: list[_Actor] = []
        state = SimpleNamespace(actors=lambda actor: {"State": "ALIVE" if actor.process.is_alive() else "DEAD"})
        self._private = SimpleNamespace(state=state, worker=SimpleNamespace(_global_node=None))

    def remote(self, kind: type) -> Any:
        def start(options: dict[str, Any], arguments: tuple[Any, ...]) -> _Actor:
            self._actors.append(_Actor(kind, options["runtime_env"]["env_vars"], arguments))
            return self._actors[-1]

        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=lambda *arguments: start(options, arguments)))

    def get(self, references: Any, timeout: float | None = None) -> Any:
        return [self.get(one) for one in references] if isinstance(references, list) else references.result(timeout)

    def wait(self, references: list[Future[Any]], num_returns: int = 1, timeout: float | None = None) -> tuple[list[Any], list[Any]]:
        done, left = wait(references, timeout, FIRST_COMPLETED)
        return [one for one in references if one in done], [one for one in references if one in left]

    def kill(self, actor: _Actor) -> None:
        actor.process.kill()

    def put(self, value: Any) -> Future[Any]:
        made: Future[Any] = Future()
        made.set_result(value)
        return made

    def is_initialized(self) -> bool:
        return False

    def stop(self) -> None:
        for actor in self._actors:
            actor.process.kill()


@contextmanager
def forking(*places: str) -> Iterator[Forked]:
    """Learners and pools have forks for actors, and so has each module's `ray` of these names; all end with the context."""
    made = Forked()
    with pytest.MonkeyPatch.context() as patch:
        for place in ("rl.learner", "rollout.engine", "rollout.peers", *places):
            patch.setattr(f"{place}.ray", made)
        patch.setattr("rollout.peers._HEARS_S", 0.5)  # of the end of a fork one hears at once
        yield made
    made.stop()
