"""Nothing of a Ray of ours outlives its driver: what is left of it a moment after the driver ended, or let go, is killed.

    python launch/guard.py PROCESS    # the driver's process id; its end, or that of standard input, is the sign

Claim: it holds for whatever end, SIGKILL of the driver and of Ray among them, and for processes that are frozen or wait for somebody who is gone. They are
known by their output, which goes to a session folder that Ray names after the driver's process. Standard library alone, as it runs beside
everything. Simplification: Linux; one machine, as a Ray that is joined ends a driver's actors by itself.
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import time

GRACE_S = 0.5  # in which they may end by themselves
_GIVE_UP_S = 8.0  # a process in the kernel's hands is nobody's to end


def members(driver: int) -> list[int]:
    """Processes whose standard output or error is in a session folder of a driver."""
    session, found = re.compile(rf"/session_[\d_-]+_{driver}/"), []
    for name in filter(str.isdigit, os.listdir("/proc")):
        for stream in (1, 2):
            try:
                if session.search(os.readlink(f"/proc/{name}/fd/{stream}")):
                    found.append(int(name))
                    break
            except OSError:  # it ended, or is another user's
                break
    return found


def main(driver: int) -> None:
    while os.getppid() == driver and not select.select([sys.stdin], [], [], 0.5)[0]:
        pass
    let_go = time.monotonic()
    while (left := members(driver)) and time.monotonic() < let_go + _GIVE_UP_S:
        for process in left if time.monotonic() > let_go + GRACE_S else ():
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


if __name__ == "__main__":
    main(int(sys.argv[1]))
