"""Engines of a few lines for tests of the pool, in a module that is imported in a moment, as each actor imports it anew."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from threading import Timer

import numpy as np

from rollout.types import Completion, Request


class Small:
    """An engine that answers at once: a group of one token. It dies in its start until a file says how often it has."""

    def __init__(self, deaths: Path, wanted: int):
        seen = len(deaths.read_text()) if deaths.exists() else 0
        if seen < wanted:
            deaths.write_text("x" * (seen + 1))
            os.kill(os.getpid(), signal.SIGKILL)
        self._version = 0

    def advance(self, requests, seconds):
        return [
            (request.id, [Completion(np.array([1]), np.zeros(1, np.float32), "stop", np.array([self._version]))]) for request in requests
        ]

    def load(self, weights, version):
        self._version = version
        return {name: packed.digest for name, packed in weights.items()}

    def process_id(self):
        return os.getpid()


class Broken:
    def __init__(self):
        raise ValueError("no room for the cache: set engine.vllm.kv_cache_memory_bytes")

    def process_id(self): ...


class Changed(Small):
    """Honest when it is first started; started again, it scores what it sampled otherwise."""

    def __init__(self, starts: Path):
        super().__init__(starts, 0)
        starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
        self._again = len(starts.read_text()) > 1

    def rehearse(self, requests):
        return [([1, 2], np.array([-0.5]), np.array([[-0.9 if self._again else -0.5], [0.5], [1.0]]))]


class Once(Small):
    """It can be started once."""

    def __init__(self, starts: Path):
        super().__init__(starts, 0)
        if starts.exists():
            raise ValueError("no room for the cache")
        starts.touch()


class Ending(Small):
    """What it is asked fails as it is first started; then it ends by itself, as one does that lost a worker of its own, or does not."""

    def __init__(self, starts: Path, ends: bool):
        super().__init__(starts, 0)
        self._first, self._ends = not starts.exists(), ends
        starts.touch()

    def _fail(self):
        if self._first:
            if self._ends:
                Timer(0.2, lambda: os._exit(1)).start()
            raise RuntimeError("cancelled")

    def advance(self, requests, seconds):
        self._fail()
        return super().advance(requests, seconds)

    def load(self, weights, version):
        self._fail()
        return super().load(weights, version)


class Unlike(Small):
    """Started again, it confirms other bytes than it was handed; its first slice is over before a group is; a token of a group may be of the version to come."""

    def __init__(self, starts: Path, mixes: bool = False):
        super().__init__(starts, 0)
        self._first, self._again, self._mixes = True, starts.exists(), mixes
        self._begun: list[Request] = []
        starts.touch()

    def advance(self, requests, seconds):
        self._begun += requests
        if self._first:
            self._first = False
            return []
        done, self._begun = self._begun, []
        found = super().advance(done, seconds)
        versions = np.array([self._version, self._version + self._mixes])
        return [(name, [replace(one, ids=np.ones(2), versions=versions) for one in group]) for name, group in found]

    def load(self, weights, version):
        return {name: digest + self._again for name, digest in super().load(weights, version).items()}
