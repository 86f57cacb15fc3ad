"""A training step as a simulation of discrete events: what it takes, on machines that are not there. Pure: numbers in, numbers out.

How things scale. Engines are data-parallel: each has the groups that it was given whole, always those of the engine that owes least. A step of an engine takes
least + each x sequences that run; a sequence beyond its seats waits. Engines are asked in slices of time by one driver, which makes rollouts of answers and hands
them to judging processes meanwhile: the driver does one thing at a time. Lengths are drawn from the trace's, alike within a group as far as they were there. An update's
rows are packed and dealt as the learner does it, without their prompts; gradients go round a ring of ranks; for each micro-batch the driver calls every rank. Weights take what they took in
the trace, and a call to each engine; by the object store they go to nodes as by a binary tree, by a broadcast through all of them once, in buckets that follow one another, and on shared GPUs nowhere. Where processes share cores, all that want one get the same part of it (`Layout.cores`), those of others too.
Simplifications: lengths are no longer than the trace's; step and update take as long at any depth of a response; ranks of a ring and engines are all equally fast and
nothing fails; filters keep groups by chance; pushes and updates of one size take one time; evaluations are left out.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil, inf, log2
from statistics import NormalDist

import numpy as np

from rl.batching import micro_batches
from rollout.pace import SLICE_S

NODE = 8  # GPUs
ON_NODE, BETWEEN_NODES, TO_HOST = 200e9, 25e9, 25e9  # bytes/s a GPU: NVLink's ring, a 200 Gbit/s port, PCIe


@dataclass(frozen=True)
class Trace:
    """What a run says of its model on its hardware; seconds of a process that has a device, or a core, to itself.

    Attributes:
        shares, lengths: tokens that a share of rollouts does not exceed; both rise.
        alike: share of the lengths' variance between groups.
        kept: share of groups that are worth training on.
        trained: share of their tokens that an update is of.
        step, each: of an engine's step, and more with each sequence that runs.
        take: of a sequence that an engine takes in.
        judge, score: of an answer: a judging process's, the driver's.
        poll: of the driver's call to an engine or a rank.
        update: of one rank, for a token of an update, all passes.
        push: new weights to the engines.
        rest: of the driver in a step beside that, for a sampled answer.
        turn: engines and ranks changing places; None: nothing is known.
        between: from a step's end to the next one's begin: record, checkpoint.
    """

    shares: Sequence[float]
    lengths: Sequence[float]
    alike: float = 0.0
    kept: float = 1.0
    trained: float = 1.0
    step: float = 0.0
    each: float = 0.0
    take: float = 0.0
    judge: float = 0.0
    score: float = 0.0
    poll: float = 0.0
    update: float = 0.0
    push: float = 0.0
    rest: float = 0.0
    turn: float | None = None
    between: float = 0.0


@dataclass(frozen=True)
class Work:
    """A step of a recipe. `gradients` and `weights` are bytes of the trained model, `state` of what a rank puts away in the engines' turn; `stored`: weights go by the
    object store, as without GPUs."""

    prompts: int
    group_size: int
    limit: int
    max_refills: float = 0.0
    updates: int = 1
    micro_batch_tokens: int = 1 << 40
    judges: int = 1
    gradients: float = 0.0
    weights: float = 0.0
    state: float = 0.0
    stored: bool = False


@dataclass(frozen=True)
class Layout:
    """Processes and what they have.

    Attributes:
        seats: sequences that an engine runs at once.
        colocated: engines and ranks share devices.
        threads: of an engine, of a rank: cores that each wants.
        cores: that all processes share; inf: each has what it wants.
        others: threads of others that always want a core.
        gpus: an engine's.
    """

    engines: int
    ranks: int
    seats: int = 256
    colocated: bool = False
    threads: tuple[int, int] = (1, 1)
    cores: float = inf
    others: float = 0.0
    gpus: int = 1

    @property
    def devices(self) -> int:
        return self.engines if self.colocated else self.engines * self.gpus + self.ranks

    @property
    def nodes(self) -> int:
        return ceil(self.devices / NODE)

    def part(self, wanting: float) -> float:
        """What each of so many threads gets of a core."""
        return min(1.0, self.cores / (wanting + self.others)) if wanting else 1.0


@dataclass(frozen=True)
class Sampled:
    """A rollout. `busy`: seconds of all engines at work; `tail`: seconds in which less than half of the seats that were ever taken are; `trained`: lengths of what trains."""

    seconds: float
    busy: float
    tail: float
    tokens: int
    groups: int
    trained: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Step:
    """Seconds of a step by part; `engines` and `learner`: that an engine and a rank work, in the mean; `tail`: of the sampling."""

    sample: float
    update: float
    push: float
    rest: float
    turns: float
    engines: float
    learner: float
    tail: float

    @property
    def seconds(self) -> float:
        return self.sample + self.update + self.push + self.rest + self.turns


@dataclass
class _Engine:
    """Sequences of an engine: those that run, by the step at which they end, and those that wait."""

    trace: Trace
    seats: int
    waiting: deque[tuple[int, int]] = field(default_factory=deque)  # (group, length)
    running: list[tuple[int, int]] = field(default_factory=list)  # (last step, group)
    steps: int = 0
    owed: int = 0
    called: bool = False

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    def sample(self, seconds: float) -> tuple[float, list[tuple[float, int]], list[int]]:
        """Sample for about so long, or until nothing is left.

        Returns:
            How long that took, at what times how many sequences more or fewer ran, and the group of each that ended.
        """
        now, changes, ended = 0.0, list[tuple[float, int]](), list[int]()
        while True:
            gone = len(ended)
            while self.running and self.running[0][0] <= self.steps:
                ended.append(heapq.heappop(self.running)[1])
            came = min(self.seats - len(self.running), len(self.waiting))
            changes.append((now, came + gone - len(ended)))
            now += came * self.trace.take
            for group, length in (self.waiting.popleft() for _ in range(came)):
                heapq.heappush(self.running, (self.steps + length, group))
            if not self.running or now >= seconds:
                return now, changes, ended
            one = self.trace.step + self.trace.each * len(self.running)
            left = ceil((seconds - now) / one) if 0 < one < inf and seconds < inf else inf
            count = int(min(self.running[0][0] - self.steps, max(left, 1)))
            self.steps += count
            now += count * one


class _Rollout:
    """Engines, driver and judges of a rollout, and the queue of what happens next.

    The queue is in the time of a process that has a core to itself. All that are at work go on equally fast, so one clock serves for all of them; the clock on
    the wall goes faster by what each gets of a core (`Layout.part`).
    """

    def __init__(
        self, trace: Trace, work: Work, layout: Layout, lengths: Iterable[Sequence[int]], kept: Callable[[], bool], slice_s: float
    ):
        self.trace, self.work, self.layout, self.slice_s = trace, work, layout, slice_s
        self._lengths, self._kept = iter(lengths), kept
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._clock = self._events = 0
        self._own = 0.0
        self.engines = [_Engine(trace, layout.seats) for _ in range(layout.engines)]
        self.groups: list[Sequence[int]] = []
        self._left: list[int] = []  # sequences of each group that are not sampled yet, then answers that are not judged
        self._at: list[int] = []
        # Groups that each engine owes; what is outdated stays until it is met.
        self._owing = [(0, index) for index in range(layout.engines)]
        self._done: list[tuple[int, bool]] = []
        self._jobs: deque[tuple[float, Callable[[], None]]] = deque()
        self._driver = self._sampling = self._judging = self._running = self._most = self._keeps = 0
        self._answers: deque[int] = deque()

    def run(self) -> Sampled:
        """All of it."""
        self._dispatch(min(self._largest, max(1, round(self.work.prompts / self.trace.kept))))
        wall = busy = 0.0
        spans: list[tuple[float, int]] = []
        while self._queue:
            at, _, action = heapq.heappop(self._queue)
            passed = (at - self._own) / self.layout.part(self._wanting)
            wall, busy = wall + passed, busy + self._sampling * passed
            spans.append((passed, self._running))
            self._own = at
            action()
            self._most = max(self._most, self._running)
        self._done.sort()
        trained = [self.groups[group] for group, kept in self._done if kept][: self.work.prompts]
        tail = sum(passed for passed, running in spans if 2 * running < self._most)
        return Sampled(wall, busy, tail, sum(map(sum, self.groups)), len(self.groups), trained)

    @property
    def _largest(self) -> int:
        return int(self.work.prompts * (1 + self.work.max_refills))

    @property
    def _wanting(self) -> int:
        """Threads that want a core."""
        return self._sampling * self.layout.threads[0] + self._judging + self._driver

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._events += 1
        heapq.heappush(self._queue, (self._own + seconds, self._events, action))

    def _dispatch(self, count: int) -> None:
        asked = dict[int, _Engine]()
        for lengths in (next(self._lengths) for _ in range(count)):
            while self._owing[0][0] != self.engines[self._owing[0][1]].owed:  # it has changed since
                heapq.heappop(self._owing)
            index = self._owing[0][1]
            asked[index] = engine = self.engines[index]
            engine.waiting.extend((len(self.groups), length) for length in lengths)
            self._owes(index, 1)
            self.groups.append(lengths)
            self._left.append(len(lengths))
            self._at.append(index)
        for _, engine in sorted(asked.items()):
            if not engine.called:
                self._call(engine, [])

    def _owes(self, index: int, more: int) -> None:
        engine = self.engines[index]
        engine.owed += more
        heapq.heappush(self._owing, (engine.owed, index))

    def _drive(self, seconds: float, action: Callable[[], None]) -> None:
        """Let the driver do something when it comes to it."""
        self._jobs.append((seconds, action))
        if not self._driver:
            self._next_job()

    def _next_job(self) -> None:
        self._driver = int(bool(self._jobs))
        if self._driver:
            seconds, action = self._jobs.popleft()
            self._later(seconds, partial(self._did, action))

    def _did(self, action: Callable[[], None]) -> None:
        action()
        self._next_job()

    def _call(self, engine: _Engine, ended: Sequence[int]) -> None:
        """Take what an engine has sampled, and ask it for more."""
        engine.called = True
        self._drive(self.trace.poll, partial(self._called, engine, ended))

    def _called(self, engine: _Engine, ended: Sequence[int]) -> None:
        engine.called = False
        for group in ended:
            self._left[group] -= 1
            if not self._left[group]:
                self._owes(self._at[group], -1)
                self._drive(self.trace.score * self.work.group_size, partial(self._judge, group))
        if not engine.idle:
            engine.called = True
            took, changes, gone = engine.sample(self.slice_s * self.layout.part(self._wanting))
            self._sampling += 1
            for at, change in changes:
                self._later(at, partial(self._change, change))
            self._later(took, partial(self._returned, engine, gone))

    def _change(self, running: int) -> None:
        self._running += running

    def _returned(self, engine: _Engine, ended: Sequence[int]) -> None:
        self._sampling -= 1
        self._call(engine, ended)

    def _judge(self, group: int) -> None:
        self._left[group] = self.work.group_size
        self._answers.extend([group] * self.work.group_size)
        while self._answers and self._judging < self.work.judges:
            self._next_answer()

    def _next_answer(self) -> None:
        self._judging += 1
        group = self._answers.popleft()
        self._later(self.trace.judge, partial(self._judged, group))

    def _judged(self, group: int) -> None:
        self._judging -= 1
        if self._answers:
            self._next_answer()
        self._left[group] -= 1
        if not self._left[group]:
            self._done.append((group, self._kept()))
            self._keeps += self._done[-1][1]
            if self._keeps + len(self.groups) - len(self._done) < self.work.prompts and len(self.groups) < self._largest:
                self._dispatch(1)


def sample(
    trace: Trace,
    work: Work,
    layout: Layout,
    lengths: Iterable[Sequence[int]],
    kept: Callable[[], bool] = lambda: True,
    slice_s: float = SLICE_S,
) -> Sampled:
    """The rollout of a step.

    Args:
        lengths: of groups, in the stream's order, as many as may be asked for.
        kept: whether the next group that is judged is worth training on.
        slice_s: seconds after which an engine says what it has finished.
    """
    return _Rollout(trace, work, layout, lengths, kept, slice_s).run()


def drawn(trace: Trace, work: Work, random: np.random.Generator) -> Iterable[list[int]]:
    """Lengths of group after group. A group's have a part in common: normal deviates, correlated, through the trace's quantiles (a Gaussian copula)."""
    phi = np.vectorize(NormalDist().cdf)
    while True:
        deviates_G = trace.alike**0.5 * random.normal() + (1 - trace.alike) ** 0.5 * random.normal(size=work.group_size)
        tokens_G = np.interp(phi(deviates_G), trace.shares, trace.lengths)
        yield np.clip(np.ceil(tokens_G), 1, work.limit).astype(int).tolist()


def update_seconds(trace: Trace, work: Work, layout: Layout, groups: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Seconds of a step's updates, and those of them that a rank works, in the mean. `groups`: tokens that train, of each rollout of each."""
    ranks, seconds, working = layout.ranks, 0.0, 0.0
    per_gpu = ON_NODE if ranks <= NODE else BETWEEN_NODES
    token = trace.update / layout.part(ranks * layout.threads[1])
    for part in np.array_split(np.arange(len(groups)), min(work.updates, len(groups)) or 1):  # as rl/algorithm has it
        if not len(tokens_B := np.array([tokens for index in part for tokens in groups[index]], dtype=int)):
            continue
        shares = micro_batches(tokens_B, work.micro_batch_tokens, ranks)
        most = max(sum(int(tokens_B[rows].sum()) for rows in batches) for batches in shares)
        ring = 2 * (ranks - 1) / ranks * work.gradients / per_gpu
        seconds += most * token + ring + len(shares[0]) * ranks * trace.poll
        working += float(tokens_B.sum()) / ranks * token
    return seconds, working


def between_nodes(work: Work, layout: Layout) -> float:
    """Seconds that new weights take from node to node (launch/placement says what carries them)."""
    once = work.weights / BETWEEN_NODES
    if work.stored:
        return ceil(log2(layout.nodes)) * once
    return once if layout.nodes > 1 and not layout.colocated else 0.0


def step(trace: Trace, work: Work, layout: Layout, random: np.random.Generator) -> Step:
    """One step, with lengths and fates of its own."""
    found = sample(trace, work, layout, drawn(trace, work, random), lambda: bool(random.random() < trace.kept))
    update, working = update_seconds(trace, work, layout, [[round(trace.trained * length) for length in group] for group in found.trained])
    own = layout.part(1)
    push = trace.push / own + between_nodes(work, layout) + layout.engines * trace.poll
    rest = trace.rest / own * found.groups * work.group_size
    turns = (trace.turn if trace.turn is not None else 2 * work.state / layout.ranks / TO_HOST) if layout.colocated else 0.0
    return Step(found.seconds, update, push, rest, turns, found.busy / layout.engines, working, found.tail)


def steps(trace: Trace, work: Work, layout: Layout, count: int, seed: int = 0) -> list[Step]:
    """So many steps."""
    random = np.random.default_rng(seed)
    return [step(trace, work, layout, random) for _ in range(count)]
