"""Nothing of a Ray of ours outlives its driver: what is left of it a moment after the driver ended, or let go, is killed.

    python launch/guard.py PROCESS    # the driver's process id; its end, or that of standard input, is the sign

Claim: it holds for whatever end, SIGKILL of the driver and of Ray among them, and for processes that are frozen or wait for somebody who is gone. They are
known by their output, which goes to a session folder that Ray names after the driver's process, at once or through a pipe. Standard library alone, as it runs beside
everything. Simplification: Linux; one machine, as a Ray that is joined ends a driver's actors by itself.
"""

from __future__ import annotations

import os
import re
import select
import signal
import stat
import sys
import time
from contextlib import suppress

GRACE_S = 0.5  # in which they may end by themselves
_GIVE_UP_S = 8.0  # a process in the kernel's hands is nobody's to end


def members(driver: int) -> list[int]:
    """Processes of Ray that have a file for output in a driver's session folder open to write; the driver itself has only logs there."""
    output, found = re.compile(rf"/session_[\d_-]+_{driver}/.*\.(out|err)$"), []
    for name in filter(str.isdigit, os.listdir("/proc")):
        for file in _files(name):
            with suppress(OSError):  # closed since
                if output.search(os.readlink(file)) and os.lstat(file).st_mode & stat.S_IWUSR:
                    found.append(int(name))
                    break
    return found


def _files(process: str) -> list[str]:
    """What a process has open; of another user's, nothing."""
    try:
        return [f"/proc/{process}/fd/{number}" for number in os.listdir(f"/proc/{process}/fd")]
    except OSError:
        return []


def main(driver: int) -> None:
    while os.getppid() == driver and not select.select([sys.stdin], [], [], 0.5)[0]:
        pass
    let_go = time.monotonic()
    while (left := members(driver)) and time.monotonic() < let_go + _GIVE_UP_S:
        for process in left if time.monotonic() > let_go + GRACE_S else ():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
