"""A polite stop, SIGTERM or Ctrl-C: it comes at once while nothing of the policy's state moves, else when that is whole again.

Claim: between `hold` and `release` a stop waits for `release`; a second one does not. Outside of the main thread, where no signal arrives, nothing is held.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self


class Stop:
    """Holds stops back. A context manager: however it is left, the former handlers are back, and one that waited comes before any error."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}
        self._came = ""

    @property
    def holds(self) -> bool:
        """Whether a stop waits now: if one comes all the same, the state is not whole."""
        return bool(self._before)

    def hold(self) -> None:
        """Let a stop wait from now on."""
        if threading.current_thread() is threading.main_thread() and not self._before:
            self._before = {one: signal.signal(one, self._note) for one in (signal.SIGTERM, signal.SIGINT)}

    def release(self) -> None:
        """Let stops come again. Raises KeyboardInterrupt: one waited."""
        self._put_back()
        if came := self._came:
            self._came = ""
            raise KeyboardInterrupt(came)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._put_back()
        if self._came and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(self._came) from error

    def _put_back(self) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)
        self._before = {}

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if came := self._came:
            self._came = ""
            raise KeyboardInterrupt(came)
        self._came = signal.Signals(signum).name
