"""The judge: one verdict for every completion, in bounded time and memory, whatever the completion says.

Extraction, plain numbers and words are settled in the calling process in microseconds; what has to be read happens in
killable child processes (`judge_worker`), because a computer algebra system can be stopped in no other way. A child
that dies costs its answer a "not_judged" and is replaced; a failure of the judge is never a "wrong".
Works the same from any thread or process: no signals, no multiprocessing, nothing that needs the main thread.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from rewards.thinking import Marks
from rewards.verifier.compare import as_number, compare_quickly
from rewards.verifier.extract import ABSENT, bare, final_answer
from rewards.verifier.verdict import Status, Verdict

_STARTS = 3  # of a judging process, one after another
_START_S = 120.0  # importing sympy takes 2 s on an idle core
_GRACE_S = 2.0  # the kernel ends a comparison at wall_s; this much later its whole worker is replaced
_CACHE_SIZE = 100_000
_KILLED = f"crash: {signal.SIGKILL.name}"  # nothing that a comparison does ends like that

log = logging.getLogger(__name__)


class _Died(Exception):
    """A judging process ended or fell silent instead of answering."""


class _Worker:
    """A judging process and the pipes to it; owned by one thread. It starts anew after a death."""

    def __init__(self, wall_s: float, memory_mb: int):
        self._wall_s, self._memory_mb = wall_s, memory_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._ids = itertools.count()
        self._buffer, self._ready = b"", False

    def start(self) -> None:
        """Start the process if none runs, without waiting for its imports. Raises OSError if the system refuses."""
        if self._process is not None:
            return
        paths = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._buffer, self._ready = b"", False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-B", "-m", "rewards.verifier.judge_worker", str(self._wall_s), str(self._memory_mb)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def ask(self, request: dict[str, str]) -> tuple[Status, str, float]:
        """Status, reason and seconds of one request. Raises RuntimeError or OSError if the process cannot start.

        Who ends a worker from outside, or freezes it, costs no answer its verdict: a new worker is asked once more. What kills both does so by itself.
        """
        died = _Died()
        for again in (True, False):
            self._begin()
            start = time.perf_counter()
            try:
                reply = self._exchange(request, start + self._wall_s + _GRACE_S)
                if not again or reply["reason"] != _KILLED:
                    return reply["status"], reply["reason"], time.perf_counter() - start
                died = _Died(_KILLED)
            except _Died as error:
                died = error
            self._end(died, "asked" if again else "")
        self.start()
        return "not_judged", str(died), time.perf_counter() - start

    def _begin(self) -> None:
        """Block until a process has imported what it needs; one that ends or falls silent before that is replaced. Raises RuntimeError when `_STARTS` did."""
        for left in reversed(range(_STARTS)):
            self.start()
            try:
                if not self._ready:
                    self._read(time.perf_counter() + _START_S)
                    self._ready = True
                return
            except _Died as error:
                words = self._end(error, "started" if left else "")
                if not left:
                    raise RuntimeError(f"the judging process did not start ({error}): {words[-500:] or 'no message'}") from error

    def _end(self, died: _Died, once_more: str) -> str:
        """End a process that died, and return its last words; they are said where another is asked or started once more."""
        number, words = self._process.pid if self._process else 0, self.close().decode(errors="replace").strip()
        if once_more:
            log.warning("judging process %d is replaced, and %s once more (%s); it said %r", number, once_more, died, words[-200:])
        return words

    def _exchange(self, request: dict[str, str], deadline: float) -> dict[str, Any]:
        id_ = next(self._ids)
        try:
            _pipe(self._process, "stdin").write(json.dumps({"id": id_, **request}).encode() + b"\n")
        except OSError as error:
            raise _Died("crash: worker ended") from error
        while True:
            reply = self._read(deadline)
            if reply["id"] in (id_, "died"):  # an older id answers a request already given up
                return reply

    def _read(self, deadline: float) -> dict[str, Any]:
        """The next line of the worker. Raises _Died."""
        pipe = _pipe(self._process, "stdout").fileno()
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        while b"\n" not in self._buffer:
            left = deadline - time.perf_counter()
            if left <= 0 or not poll.poll(left * 1000):
                raise _Died("timeout")
            chunk = os.read(pipe, 65536)
            if not chunk:
                raise _Died("crash: worker ended")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return cast(dict[str, Any], json.loads(line))

    def close(self) -> bytes:
        """End the process and its fork, now; returns what it last said on stderr."""
        if self._process is None:
            return b""
        process, self._process = self._process, None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # not reaped before the next line: the id is still its own
        process.wait()
        words = _pipe(process, "stderr").read()
        for name in ("stdin", "stdout", "stderr"):
            _pipe(process, name).close()
        return words


def _pipe(process: subprocess.Popen[bytes] | None, name: str) -> IO[bytes]:
    return cast(IO[bytes], getattr(process, name))


class Judge:
    """Judges completions with `workers` child processes; a context manager.

    Args:
        workers: child processes that compare answers symbolically; they start at once, in the background.
        wall_s: seconds a comparison may take before its process is killed (a third of it, in CPU time, before it is interrupted).
        memory_mb: memory a comparison may add to what its process starts with.
    """

    def __init__(self, workers: int, wall_s: float, memory_mb: int):
        self._wall_s, self._memory_mb = wall_s, memory_mb
        self._queue: queue.SimpleQueue[tuple[dict[str, str], Future[Verdict]] | None] = queue.SimpleQueue()
        self._cache: dict[tuple[str, str], Future[Verdict]] = {}
        self._lock = threading.RLock()
        self._closed = False
        self._spent = 0.0
        self._threads = [threading.Thread(target=self._serve, name=f"judge-{i}", daemon=True) for i in range(workers)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the workers. Answers still waiting come back as not judged ("judge closed")."""
        with self._lock:  # nothing can be queued behind the end marks
            self._closed = True
            for _ in self._threads:
                self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def submit(self, *, gold: str, text: str, finish: str, thinking: bool, marks: Marks | None = None) -> Future[Verdict]:
        """Judge one completion.

        Args:
            gold: the reference answer.
            text: the completion, without its prompt.
            finish: why it ended: "stop", "length", "abort" or "stopped" (as others of its set were shorter).
            thinking: a closing mark of thinking is required.
            marks: see rewards.verifier.extract.final_answer.

        Returns:
            A future verdict. It raises RuntimeError only if the judging processes cannot start at all.
        """
        if finish in ("abort", "stopped"):
            return _done(Verdict("not_judged", "aborted" if finish == "abort" else "stopped"))
        answer, reason = final_answer(text, finish=finish, thinking=thinking, marks=marks)
        if answer is None:
            return _done(Verdict("wrong", reason))
        return self.compare(gold=gold, answer=answer)

    def compare(self, *, gold: str, answer: str) -> Future[Verdict]:
        """Judge a bare answer, taken out of its completion already. Equal pairs share one comparison."""
        start = time.perf_counter()
        if bare(gold).lower() in ABSENT:
            return _done(Verdict("not_judged", "bad gold", answer))
        quick = compare_quickly(gold=gold, answer=answer)
        if quick is not None:
            return _done(Verdict("right" if quick[0] else "wrong", quick[1], answer, time.perf_counter() - start))
        with self._lock:
            future = self._cache.get((gold, answer))
            if future is None or (future.done() and (future.exception() or future.result().status == "not_judged")):
                if len(self._cache) >= _CACHE_SIZE:
                    self._cache.clear()
                future = self._cache[gold, answer] = self._enqueue({"gold": gold, "answer": answer})
        return future

    def audit(self, *, gold: str, answer: str) -> Future[Verdict]:
        """What a second checker (`rewards.verifier.second`) says of a bare answer, within the same limits."""
        return self._enqueue({"gold": gold, "answer": answer, "audit": "second"})

    def spent(self) -> float:
        """Seconds that comparisons took in the workers, all together, since this was asked last; a second checker's are not counted."""
        with self._lock:
            spent, self._spent = self._spent, 0.0
        return spent

    def check_golds(self, golds: Iterable[str]) -> list[str | None]:
        """Why each gold is unusable (empty, does not parse, does not equal itself, could not be judged), None for the good ones."""
        futures = [None if as_number(gold) else self._enqueue({"gold": gold}) for gold in golds]
        verdicts = [future.result() if future else None for future in futures]
        return [None if verdict is None or verdict.status == "right" else verdict.reason for verdict in verdicts]

    def check_gold(self, gold: str) -> str | None:
        """Why one gold is unusable, None if it is fine."""
        return self.check_golds([gold])[0]

    def _enqueue(self, request: dict[str, str]) -> Future[Verdict]:
        future: Future[Verdict] = Future()
        future.set_running_or_notify_cancel()  # shared between callers, so nobody may cancel it
        with self._lock:
            if self._closed:
                raise RuntimeError("this judge is closed")
            self._queue.put((request, future))
        return future

    def _serve(self) -> None:
        """One thread per worker: take a request, ask, hand the verdict over."""
        worker = _Worker(self._wall_s, self._memory_mb)
        with suppress(OSError):  # a system that refuses is reported by the first request
            worker.start()
        while (task := self._queue.get()) is not None:
            request, future = task
            if self._closed:
                future.set_result(Verdict("not_judged", "judge closed", request.get("answer")))
                continue
            try:
                status, reason, seconds = worker.ask(request)
            except (RuntimeError, OSError, ValueError) as error:
                worker.close()
                future.set_exception(error)
            else:
                with self._lock:
                    self._spent += 0.0 if "audit" in request else seconds
                future.set_result(Verdict(status, reason, request.get("answer"), seconds))
        worker.close()


def _done(verdict: Verdict) -> Future[Verdict]:
    future: Future[Verdict] = Future()
    future.set_result(verdict)
    return future
