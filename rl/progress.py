"""What a person sees while something runs: one live view on a terminal, one line a step elsewhere.

    with Progress("rl", total=60) as progress:
        progress.phase("sample")
        progress.step(metrics)

Works for any stage: it shows the metrics it knows and leaves out what is not there (sft has a loss only, an evaluation
counts problems). Simplification: the estimate of the time left is the mean of the last 20 steps, nothing more.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Column, Table
from rich.text import Text

# metric key, word on the screen, format, width of the value in a plain line
_SHOWN = (
    ("accuracy", "accuracy", "{:.1%}", 6),
    ("length/mean", "length", "{:.1f}", 6),
    ("truncated", "cut", "{:.1%}", 6),
    ("loss", "loss", "{:.4f}", 7),  # left out beside an accuracy: a policy-gradient loss tells nothing at a glance
    ("tokens_per_s", "tokens/s", "{:,.0f}", 7),
)
_PHASES = (("seconds/sample", "sample"), ("seconds/update", "update"), ("seconds/publish", "publish"))
_BARS = "▁▂▃▄▅▆▇█"
_COUNTED_S, _SAID_S = 5.0, 30.0  # between two counts that the time left is made of, and between two lines that say it
_TRENDS = ("accuracy", "length/mean", "loss")


def terminal(stderr: bool = False) -> Console:
    """Where everything for people is written. A name between two colons stays what it is: no `:key:` becomes a picture."""
    return Console(stderr=stderr, emoji=False, highlight=False)


class Progress:
    """A live view or plain lines; which one, the terminal decides.

    Args:
        title: what runs, the first word of every plain line.
        total: steps (or problems) until it is done.
        start: steps already done, when a run resumes.
        console: where to; standard output unless given.
    """

    def __init__(self, title: str, total: int, start: int = 0, console: Console | None = None) -> None:
        self._title, self._total, self._done = title, total, start
        self._console = console or terminal()
        self._phase = "starting"
        self._times: deque[tuple[float, int]] = deque(maxlen=21)
        self._metrics: Mapping[str, Any] = {}
        self._trends: dict[str, list[float]] = {key: [] for key in _TRENDS}
        self._spinner = Spinner("dots", style="cyan")
        self._live: Live | None = None
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(console=self._console, get_renderable=self._view, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._phase = "done" if self._done >= self._total else "stopped"
            self._live.stop()

    def phase(self, name: str) -> None:
        """What is being done now; seen on a terminal only."""
        self._phase = name

    def step(self, metrics: Mapping[str, Any]) -> None:
        """Show a finished step. `metrics["step"]` (0-based) places it; without it the count goes up by one."""
        now = time.monotonic()
        if not self._times and "seconds/step" in metrics:  # starting up says nothing about steps
            self._times.append((now - metrics["seconds/step"], metrics.get("step", self._done)))
        self._done = metrics.get("step", self._done) + 1
        self._times.append((now, self._done))
        self._metrics = metrics
        for key, values in self._trends.items():
            if metrics.get(key) is not None:
                values.append(float(metrics[key]))
        if not self._live:
            self._write(plain_line(self._title, self._done, self._total, metrics, self._left()))

    def count(self, done: int, total: int) -> None:
        """How far a phase is that counts by itself (problems of an evaluation); elsewhere than on a terminal a line from time to time."""
        now = time.monotonic()
        self._done, self._total = done, total
        if not self._times or now - self._times[-1][0] >= _COUNTED_S:  # groups come in bursts
            self._times.append((now, done))
        if not self._live and now - self._said >= _SAID_S:
            self._said, left = now, self._left()
            self._write(f"{self._title} {done}/{total}" + (f"  left {clock(left)}" if left is not None else ""))

    def show(self, what: RenderableType) -> None:
        """Something that stays and is more than a line, or has colours."""
        console = self._live.console if self._live else self._console
        console.print(what, highlight=False, soft_wrap=isinstance(what, str))

    def message(self, text: str) -> None:
        """One line that stays: above the live view, or among the plain lines."""
        if self._live:
            self._live.console.print(Text(text))
        else:
            self._write(f"{self._title}: {text}")

    def _write(self, line: str) -> None:
        self._console.file.write(line + "\n")  # not console.print, which would wrap lines at 80 columns
        self._console.file.flush()

    def _left(self) -> float | None:
        """Seconds until the end, None before it can be told."""
        if len(self._times) < 2:
            return None
        (begin, first), (end, last) = self._times[0], self._times[-1]
        return (end - begin) / (last - first) * (self._total - self._done) if last > first else None

    def _view(self) -> Group:
        left = self._left()
        head = Table.grid(Column(), Column(), Column(no_wrap=True), Column(no_wrap=True), Column(), Column(), padding=(0, 2))
        head.add_row(
            Text(self._title, style="bold"),
            ProgressBar(total=self._total, completed=self._done, width=28, complete_style="cyan", finished_style="green"),
            Text(f"{self._done}/{self._total}"),
            Text(f"{clock(left)} left" if left is not None and self._done < self._total else "", style="dim"),
            self._spinner if self._phase not in ("done", "stopped") else Text("✓" if self._phase == "done" else "■"),
            Text(self._phase, style="dim"),
        )
        body = Table.grid(Column(), Column(no_wrap=True), Column(), padding=(0, 2))
        for key, word, form, _ in _shown(self._metrics):
            if self._metrics[key] is not None:
                trend = Text(sparkline(self._trends.get(key, []), 32), style="cyan")
                body.add_row(Text(word, style="dim"), Text(form.format(self._metrics[key]), justify="right"), trend)
        phases = [f"{word} {self._metrics[key]:.1f} s" for key, word in _PHASES if self._metrics.get(key) is not None]
        return Group(head, body, Text("  ".join(phases), style="dim")) if phases else Group(head, body)


def plain_line(title: str, done: int, total: int, metrics: Mapping[str, Any], left: float | None) -> str:
    """`rl step 12/60  accuracy 0.912  length   48.2 ...  left 1:05`: aligned, and `grep -o 'accuracy *[0-9.]*'` finds a column."""
    parts = [f"{title} step {done:>{len(str(total))}}/{total}"]
    for key, word, form, width in _shown(metrics):
        value = "-" if metrics[key] is None else form.format(metrics[key])
        parts.append(f"{word} {value:>{width}}")
    parts += [f"{word} {metrics[key]:>4.1f}s" for key, word in _PHASES if metrics.get(key) is not None]
    if left is not None:
        parts.append(f"left {clock(left)}")
    return "  ".join(parts)


def _shown(metrics: Mapping[str, Any]) -> list[tuple[str, str, str, int]]:
    return [entry for entry in _SHOWN if entry[0] in metrics and not (entry[0] == "loss" and "accuracy" in metrics)]


def sparkline(values: Sequence[float], width: int) -> str:
    """At most `width` bars between the smallest and the largest value; more values than bars are averaged in even parts."""
    if len(values) > width:
        edges = [i * len(values) // width for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    if not values:
        return ""
    low, span = min(values), max(values) - min(values)
    return "".join(_BARS[int((value - low) / span * (len(_BARS) - 1) + 0.5)] if span else _BARS[0] for value in values)


def clock(seconds: float) -> str:
    """`1:05` or `2:03:09`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
