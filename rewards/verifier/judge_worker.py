"""A judging process: JSON lines in, one JSON line out for each, whatever happens to the comparison.

    python -m rewards.verifier.judge_worker WALL_S MEMORY_MB

The first process only imports, warms up and forks; its child does the comparing under limits that the kernel enforces
(wall time, memory, no files). A child that is killed, or that failed in any way, is replaced by a fresh fork within
milliseconds; the imports are paid once. Both end when stdin does, so a dead parent leaves nothing behind.
Linux only (fork, /proc, RLIMIT_AS).
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
from types import FrameType
from typing import Any

from rewards.verifier.second import second_opinion
from rewards.verifier.symbolic import BadGold, compare, gold_fault

_DONE, _AGAIN = 0, 3
_WARM_UP = [  # the grammar's tables fill as it reads: what is read here is read faster in every fork
    (r"\frac{\sqrt{2}}{3}+1", r"x=0.5\pi"),
    (r"\sqrt{2}", r"2^{1/2}"),
    (r"(1,\frac{\pi}{3})", r"(1,\pi/3)"),
    (r"[0,\infty)", r"x\ge0"),
    (r"\{1,x\}", "x,1"),
    ("x^2+2x+1-y", "(x+1)(x+1)-y"),
    (r"\frac{n(n-1)}{2}", r"\binom{n}{2}"),
    (r"2\sin x\cos x", r"\sin(2x)"),
    (r"\ln 8+e^{x}", r"3\ln 2+e^x"),
    ("y=2x+1", "2x-y+1=0"),
    (r"\sum_{k=1}^{n}k", r"\log_2 n"),
    (r"|x_1|!+\lfloor n\rfloor", "3i"),
    ("(x+3)^2", "x^2+6x+10"),
    ("y=3x+1", "3x-y+2=0"),
    (r"3\sqrt{8}", r"7\sqrt{2}"),
    ("(1,3]", r"1<x\le 4"),
]
_FORBIDDEN = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink",
              "os.truncate", "os.chmod", "os.chown", "os.kill", "subprocess.", "shutil.", "socket.", "ctypes.", "pty.")  # fmt: skip


class _OutOfTime(BaseException):
    """Not an Exception: sympy swallows those."""


def _out_of_time(_signal: int, _frame: FrameType | None) -> None:
    raise _OutOfTime


def _deny_side_effects(event: str, args: tuple[Any, ...]) -> None:
    """Audit hook: a comparison has no business with files, processes or sockets. Reading a module to import it stays allowed."""
    writing = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writing or event.startswith(_FORBIDDEN):
        raise PermissionError(f"a comparison tried {event}")


def _limit(memory_mb: int) -> None:
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_mb * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_deny_side_effects)


def _reply(request: dict[str, Any]) -> tuple[str, str]:
    """Status and reason of one request; one without an answer asks about its gold, one with `audit` what a second checker says."""
    if "answer" not in request:
        fault = gold_fault(request["gold"])
        return ("wrong", fault) if fault else ("right", "")
    if "audit" in request:
        return ("right" if second_opinion(gold=request["gold"], answer=request["answer"]) else "wrong"), "second checker"
    try:
        equal, reason = compare(gold=request["gold"], answer=request["answer"])
    except BadGold:
        return "not_judged", "bad gold"
    return ("right" if equal else "wrong"), reason


def _serve(replies: int, wall_s: float, memory_mb: int) -> int:
    """Answer requests until stdin ends (_DONE) or one failed, after which this process is not trusted again (_AGAIN).

    Two timers: CPU time, a third of the limit, raises inside Python; wall time kills a process stuck in one big-integer operation.
    """
    _limit(memory_mb)
    signal.signal(signal.SIGPROF, _out_of_time)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    while line := sys.stdin.buffer.readline():
        request, again = json.loads(line), False
        signal.setitimer(signal.ITIMER_REAL, wall_s)
        try:
            try:
                signal.setitimer(signal.ITIMER_PROF, wall_s / 3)
                status, reason = _reply(request)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
        except _OutOfTime:
            status, reason, again = "not_judged", "timeout", True
        except MemoryError:
            status, reason, again = "not_judged", "memory", True
        except Exception as error:  # whatever sympy raises, the answer was not shown to be wrong
            status, reason, again = "not_judged", f"error: {type(error).__name__}", True
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.write(replies, json.dumps({"id": request["id"], "status": status, "reason": reason}).encode() + b"\n")
        if again:
            return _AGAIN
    return _DONE


def main(wall_s: float, memory_mb: int) -> None:
    for gold, answer in _WARM_UP:
        compare(gold=gold, answer=answer)
    replies = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # what a library prints must not look like a reply
    os.dup2(nowhere, 2)
    gc.collect()
    gc.freeze()
    os.write(replies, b'{"id": "ready"}\n')
    while True:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = _serve(replies, wall_s, memory_mb)
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code == -signal.SIGALRM:
            os.write(replies, b'{"id": "died", "status": "not_judged", "reason": "timeout"}\n')
        elif code < 0:
            notice = {"id": "died", "status": "not_judged", "reason": f"crash: {signal.Signals(-code).name}"}
            os.write(replies, json.dumps(notice).encode() + b"\n")
        elif code != _AGAIN:
            sys.exit(code)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
