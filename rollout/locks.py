"""Files that one process holds at a time, until it closes them or ends, however it does."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO


class NoLocks(ValueError):
    """A file system refuses locks, as some mounts of NFS and Lustre do; the message says what to do."""


def taken(file: IO[str], folder: Path) -> bool:
    """Whether the file is this process's now; False: another holds it.

    Args:
        folder: what the file stands for, for the message.

    Raises:
        NoLocks: the file system cannot tell.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise NoLocks(
            f"{folder}: its file system refuses locks ({error.strerror}), so two processes could write there at once: mount it with them "
            "(NFS: version 4, or local_lock=flock; Lustre: flock), or choose another folder"
        ) from error
    return True
