"""Folders that a process needs for a while, and that do not stay when it is killed: the next process that makes one takes them away."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from pathlib import Path

import psutil


def scratch_folder(prefix: str, parent: Path | None = None) -> tempfile.TemporaryDirectory[str]:
    """A new folder whose name begins with `prefix`, this process's id and where that counts; those of processes that are gone are removed.

    Args:
        parent: where it lies; None: the temporary folder.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    here = _here()
    for left in parent.glob(f"{prefix}*"):
        owner, _, rest = left.name.removeprefix(prefix).partition("-")
        if rest.startswith(f"{here}-") and owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-{here}-", dir=parent, ignore_cleanup_errors=True)


def _here() -> str:
    """Where process ids are this process's: its machine, and its container there. On shared storage others have the same numbers."""
    return re.sub(r"[^\w.]", "", f"{platform.node()}.{os.readlink('/proc/self/ns/pid')}")
