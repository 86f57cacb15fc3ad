"""Files that one process holds at a time, until it closes them or ends, however it does."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO


class NoLocks(ValueError):
    """A file system refuses locks, as some mounts of NFS and Lustre do; the message says what to do."""


def taken(file: IO[str], folder: Path, waits: bool = False, option: str = "") -> bool:
    """Whether the file is this process's now; False: another holds it.

    Args:
        folder: what the file stands for, for the message.
        waits: until the other lets go.
        option: that names another folder, for the message.

    Raises:
        NoLocks: the file system cannot tell.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        raise NoLocks(
            f"{folder}: its file system refuses locks ({error.strerror}), so two processes could write there at once: mount it with them "
            f"(NFS: version 4, or local_lock=flock; Lustre: flock), or choose another folder{option}"
        ) from error
    return True
