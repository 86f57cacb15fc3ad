"""Folders that a process needs for a while, and that do not stay when it is killed: the next process that makes one takes them away."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psutil


def scratch_folder(prefix: str, parent: Path | None = None) -> tempfile.TemporaryDirectory[str]:
    """A new folder whose name begins with `prefix` and this process's id; those of processes that are gone are removed.

    Args:
        parent: where it lies; None: the temporary folder.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    for left in parent.glob(f"{prefix}*"):
        owner = left.name.removeprefix(prefix).partition("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-", dir=parent, ignore_cleanup_errors=True)
