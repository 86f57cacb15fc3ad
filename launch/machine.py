"""What this machine has: cores, memory, GPUs. Asked of the operating system and nvidia-smi, so no torch is imported."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """A machine as a plan sees it.

    Attributes:
        cores: cores this process may use.
        memory: bytes free for new processes, container limits included.
        gpus: memory of each visible GPU, bytes.
    """

    cores: int
    memory: int
    gpus: tuple[int, ...] = ()


def this_machine() -> Machine:
    """The machine this runs on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(cores, _free_memory(), _gpus())


def _free_memory() -> int:
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except OSError:  # not Linux: all there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (bound := limit.read_text().strip()) != "max":
        return min(free, max(0, int(bound) - int(used.read_text())))
    return free


def _gpus() -> tuple[int, ...]:
    if shutil.which("nvidia-smi") is None:
        return ()
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return ()
    sizes = tuple(int(line) << 20 for line in answer.split() if line.isdigit())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return sizes if visible is None else sizes[: len([part for part in visible.split(",") if part.strip()])]
