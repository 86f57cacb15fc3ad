"""The doctor: looks at an installation and a machine, and says for each finding whether it will do and what to do if not.

`diagnose` looks, `render` shows; whether a failure ends the program is the caller's affair. Libraries that may hang or crash are
tried in child processes with a deadline. A machine without a GPU that has the CUDA build is a login node: it may plan and submit, so
that is no failure. Simplification: this machine only, no GPU drivers beyond what nvidia-smi reports.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rich.markup import escape
from rich.table import Column, Table

from launch.machine import (
    CARDS,
    OTHERS,
    CacheError,
    Machine,
    cache_folder,
    driver_version,
    nvidia_smi,
    old_driver,
    ray_folder,
    ray_folder_fault,
    this_machine,
    visible_gpus,
)

State = Literal["ok", "warn", "fail"]

_GIB = 2**30
_REINSTALL = "touch pyproject.toml && make install"  # the build that was chosen stays
_RAY_ANSWERS = """
from launch.ray_start import start_ray, stop_ray
start_ray(num_cpus=1, num_gpus=0)
import ray
assert ray.get(ray.remote(lambda: 6 * 7).remote(), timeout=60) == 42
stop_ray()
"""
_JUDGE_AGREES = """
from math_verify import parse, verify
assert verify(parse(r"$\\frac{1}{2}$"), parse("$0.5$")), "1/2 and 0.5 count as different"
assert not verify(parse(r"$\\frac{1}{2}$"), parse("$0.6$")), "1/2 and 0.6 count as equal"
"""


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, whether it will do, what was found, and what to do (empty if nothing)."""

    name: str
    state: State
    found: str
    remedy: str = ""


def diagnose(deep: bool) -> list[Check]:
    """Look at everything, cheap things first; nothing raises. `deep`: also import vLLM and start Ray, half a minute."""
    machine = this_machine()
    gpus = len(machine.gpus)
    versions = installed_versions()
    checks = [
        python_version(sys.version_info[:2]),
        *library_versions(requirements(machine.build if machine.build in ("cpu", "cuda") else "cuda" if gpus else "cpu"), versions),
        torch_build(gpus, versions.get("torch"), 0 if gpus else len(visible_gpus(nvidia_smi(CARDS)[0], "", None)), machine.unusable),
        driver(driver_version() if gpus else "", torch_cuda(), machine.trouble),
        *old_gpus(machine, torch_cuda()),
        torchvision_trap(),
        cores(machine.cores),
        memory(machine.memory),
        disk("disk of runs", Path("runs"), least=2, enough=10),
        disk("disk of Ray's session files", ray_folder()[1], least=1, enough=2),
        *faults(),
        shared_memory(machine.shared or 0),
        compiler(gpus, shutil.which("c++") or shutil.which("g++"), Path(sysconfig.get_path("include")) / "Python.h"),
        hub(os.environ),
        probe("math-verify", _JUDGE_AGREES, timeout_s=60, done="1/2 equals 0.5, differs from 0.6", remedy=_REINSTALL),
        probe("DeepSpeed", "import deepspeed", timeout_s=120, done="imports", remedy=_REINSTALL),
    ]
    if deep:
        ray = f"end other Ray programs of yours (`ray stop`), make room in {ray_folder()[1]} and /dev/shm, or wait until the machine is less busy"
        checks.append(probe("vLLM", "import vllm; vllm.LLM", timeout_s=180, done="imports", remedy=_REINSTALL))
        checks.append(probe("Ray", _RAY_ANSWERS, timeout_s=240, done="starts on loopback and answers", remedy=ray))
    return checks


def render(checks: Sequence[Check]) -> Table:
    """The findings as a table for the terminal."""
    colour = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table(*(Column(head, overflow="fold") for head in ("", "what", "found", "what to do")), box=None, pad_edge=False)
    for check in checks:
        table.add_row(f"[{colour[check.state]}]{check.state}[/]", escape(check.name), escape(check.found), escape(check.remedy))
    return table


def requirements(extra: str) -> list[Requirement]:
    """What laconic with an extra ("cpu", "cuda") requires on this platform, from its installed metadata; empty if not installed."""
    try:
        texts = metadata.requires("laconic") or []
    except metadata.PackageNotFoundError:
        return []
    wanted = [Requirement(text) for text in texts]
    return [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": extra})]


def installed_versions() -> dict[str, str]:
    """Version of every installed distribution, by normalised name."""
    return {canonicalize_name(found.metadata["Name"]): found.version for found in metadata.distributions() if found.metadata["Name"]}


def python_version(version: tuple[int, int]) -> Check:
    found = f"{version[0]}.{version[1]} at {sys.executable}"
    if (3, 11) <= version < (3, 15):
        return Check("Python", "ok", found)
    return Check("Python", "fail", found, "rm -r .venv, install Python 3.12, make install")


def library_versions(wanted: Sequence[Requirement], versions: Mapping[str, str]) -> list[Check]:
    """One failure for each library that is missing or not as required; one line for all that are. `versions`: by normalised name."""
    if not wanted:
        return [Check("libraries", "fail", "laconic itself is not installed here", "make install, then use .venv/bin/laconic")]
    checks = []
    for one in wanted:
        version = versions.get(canonicalize_name(one.name))
        if version is None:
            checks.append(Check(one.name, "fail", f"missing, {one.specifier} is required", _REINSTALL))
        elif not one.specifier.contains(version, prereleases=True):
            checks.append(Check(one.name, "fail", f"{version}, {one.specifier} is required", _REINSTALL))
    pinned = [f"{one.name} {versions.get(canonicalize_name(one.name))}" for one in wanted if str(one.specifier).startswith("==")]
    return checks or [Check("libraries", "ok", f"{len(wanted)} as required: {', '.join(pinned)}")]


def torch_build(gpus: int, version: str | None, hidden: int = 0, unusable: bool = False) -> Check:
    """A CPU build beside a GPU leaves it unused; a CUDA build without one is a login node's.

    Args:
        gpus: GPUs that nvidia-smi reports and CUDA shows.
        hidden: those that CUDA_VISIBLE_DEVICES hides where none are shown.
        unusable: see `Machine`.
        version: of torch, with its local label, e.g. "2.13.0+cpu" or "2.13.0" (from PyPI on Linux: CUDA).
    """
    if version is None:
        return Check("torch build", "fail", "no torch", _REINSTALL)
    cpu_build = version.endswith("+cpu")
    found = f"{version}, {gpus or 'no'} GPU{'s' if gpus > 1 else ''}"
    if hidden:
        found += f": CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')} hides {hidden}"
        return Check("torch build", "warn", found, "unset it, or name GPUs that are there, to use them")
    if cpu_build and gpus and not unusable:
        return Check("torch build", "warn", f"{found}: the GPU is not used", "make install EXTRA=cuda")
    if not cpu_build and not gpus:
        what = "a login node can plan and submit; to train and evaluate here: make install EXTRA=cpu"
        return Check("torch build", "warn", f"{found}: the CUDA build", what)
    return Check("torch build", "ok", found)


def torch_cuda() -> str | None:
    """The CUDA version that the installed torch was built for ("13.0"); None for a CPU build or without torch. Imports nothing."""
    spec = importlib.util.find_spec("torch")
    written = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    if not written or not written.is_file():
        return None
    found = re.search(r"^cuda\b.*= *['\"]([\d.]+)['\"]", written.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else None


def driver(version: str, cuda: str | None, trouble: str = "") -> Check:
    """The NVIDIA driver (`version` "550.54.15", say; "" without a GPU) against the CUDA that torch was built for. `trouble`: see `Machine`."""
    if trouble:
        remedy = "restart the machine after a driver update, or install the driver again (on a cluster, ask who runs it)"
        return Check("NVIDIA driver", "fail" if cuda else "warn", trouble, remedy)
    if not version or cuda is None:
        return Check("NVIDIA driver", "ok", f"{version or 'none'}, not needed {'without a GPU' if cuda else 'by what is installed'}")
    found = f"{version}, torch is built for CUDA {cuda}"
    if (old := old_driver(version, int(cuda.split(".")[0]))) is None:
        return Check("NVIDIA driver", "warn", f"{found}: not known to this check", "if torch cannot use the GPU, update the driver")
    return Check("NVIDIA driver", "fail", f"{found}, which needs a newer one", old) if old else Check("NVIDIA driver", "ok", found)


def old_gpus(machine: Machine, cuda: str | None) -> list[Check]:
    """What a CUDA build of torch that is installed cannot use: a failure where that is all visible GPUs."""
    if cuda is None or not machine.too_old:
        return []
    return [Check("GPU", "fail" if machine.unusable else "warn", machine.too_old, OTHERS)]


def torchvision_trap() -> Check:
    """A torchvision of another build makes `import transformers` fail; nothing here needs any."""
    if importlib.util.find_spec("torchvision") is None:
        return Check("torchvision", "ok", "absent, not needed")
    remedy = "uv pip uninstall torchvision: it is not needed, and transformers cannot be imported beside a broken one"
    return probe("torchvision", "import torchvision", timeout_s=60, done="present, imports", remedy=remedy)


def cores(count: int) -> Check:
    if count >= 2:
        return Check("cores", "ok", str(count))
    return Check("cores", "warn", str(count), "engines and learner share one core: expect twice the time")


def memory(free: int) -> Check:
    """Free memory in bytes, against what the tiny pipeline takes: about 4 GiB."""
    found = f"{free / _GIB:.1f} GiB free"
    if free >= 6 * _GIB:
        return Check("memory", "ok", found)
    state: State = "warn" if free >= 4 * _GIB else "fail"
    return Check("memory", state, found, "free at least 6 GiB; `laconic plan RECIPE` says what a recipe needs")


def disk(name: str, folder: Path, least: float, enough: float) -> Check:
    """Free space where `folder` is or would be: fails under `least` GiB, warns under `enough` GiB or 5 % (Ray stops writing there)."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if os.path.exists(parent))
    usage = shutil.disk_usage(there)
    share = usage.free / usage.total
    found = f"{usage.free / _GIB:.1f} GiB free ({share:.0%}) at {there}"
    if usage.free >= enough * _GIB and share >= 0.05:
        return Check(name, "ok", found)
    return Check(name, "fail" if usage.free < least * _GIB else "warn", found, f"make room: {enough:g} GiB and 5 % of the disk")


def faults() -> list[Check]:
    """Folders that cannot serve: Ray's, and that of what is kept."""
    found = [Check("Ray's session files", "fail", fault)] if (fault := ray_folder_fault()) else []
    try:
        cache_folder()
    except CacheError as error:
        found.append(Check("cache folder", "fail", str(error)))
    return found


def shared_memory(free: int) -> Check:
    """Ray keeps published weights and groups in /dev/shm."""
    found = f"{free / _GIB:.1f} GiB free in /dev/shm"
    if free >= _GIB:
        return Check("shared memory", "ok", found)
    return Check("shared memory", "warn", f"{found}: Ray falls back to files, slower", "in a container: --shm-size=4g")


def compiler(gpus: int, path: str | None, header: Path) -> Check:
    """Triton and DeepSpeed's fused kernels compile on first use on GPUs, against Python's header; the CPU path compiles nothing."""
    missing = [*(["no C++ compiler"] if path is None else []), *([] if header.is_file() else [f"no {header}"])]
    if not missing:
        return Check("C++ compiler, Python.h", "ok", f"{path}, {header}")
    if not gpus:
        return Check("C++ compiler, Python.h", "ok", f"{', '.join(missing)}: not needed without a GPU")
    major, minor = sys.version_info[:2]
    remedy = f"apt install g++ python{major}.{minor}-dev (or the package of your system that has Python.h)"
    return Check("C++ compiler, Python.h", "fail", f"{', '.join(missing)}: GPU kernels cannot be compiled", remedy)


def hub(environment: Mapping[str, str]) -> Check:
    """What of the Hugging Face hub can be used; the network is not asked."""
    home = environment.get("HF_HOME", "~/.cache/huggingface")
    # Without a home folder as it stands, as the hub's own package does.
    cache = Path(os.path.expanduser(environment.get("HF_HUB_CACHE", f"{home}/hub")))
    count = len([*cache.glob("models--*"), *cache.glob("datasets--*")])
    offline = environment.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}
    found = f"{count} models and data sets cached in {cache}, {'offline (HF_HUB_OFFLINE)' if offline else 'downloads allowed'}"
    if offline and not count:
        remedy = "the tiny recipes need nothing; for hub models unset HF_HUB_OFFLINE or fill the cache"
        return Check("Hugging Face hub", "warn", found, remedy)
    return Check("Hugging Face hub", "ok", found)


def probe(name: str, code: str, timeout_s: float, done: str, remedy: str) -> Check:
    """Run `code` in a child of this Python; a crash, an exception or `timeout_s` seconds without an end is a failure."""
    try:
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return Check(name, "fail", f"no answer in {timeout_s:g} s", remedy)
    if child.returncode == 0:
        return Check(name, "ok", done)
    lines = [line for line in child.stderr.splitlines() if line.strip()]
    return Check(name, "fail", lines[-1] if lines else f"ended with code {child.returncode}", remedy)
