"""`make install` takes one build or stops: the Makefile with stand-ins for the programs that it would download with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
case "$1" in launch/machine.py) echo "$SAYS"; test -n "$SAYS";; esac
"""


def make(folder: Path, *words: str, says: str = "") -> subprocess.CompletedProcess[str]:
    """make in a folder where launch/machine.py says `says` (nothing: it fails), and uv writes down what it is asked."""
    programs = folder / ".venv/bin"
    programs.mkdir(parents=True, exist_ok=True)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name, text in {"python": PYTHON, "uv": '#!/bin/sh\necho "$@" >> asked\n'}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "SAYS": says}
    return subprocess.run(["make", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("extra", ["cpu cuda", "cuda cpu", "cpu cpu", "gpu", "cpu,cuda", "CPU"])
def test_extra_is_one_build(tmp_path: Path, extra: str):
    done = make(tmp_path, "install", f"EXTRA={extra}", says="cpu")
    assert done.returncode != 0 and f"EXTRA is {extra}; it must be cpu or cuda" in done.stderr
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("says", ["", "none", "cpu cuda"])
def test_where_the_machine_does_not_tell_its_build_nothing_is_installed(tmp_path: Path, says: str):
    done = make(tmp_path, "install", says=says)
    assert done.returncode != 0 and "say make install EXTRA=cpu or EXTRA=cuda" in done.stderr
    assert not (tmp_path / "asked").exists() and not (tmp_path / ".venv/.installed").exists()


@pytest.mark.parametrize(("words", "says", "build"), [([], "cuda", "cuda"), (["EXTRA= cpu "], "", "cpu"), (["EXTRA=cuda"], "cpu", "cuda")])
def test_the_build_is_the_machines_or_the_one_asked_for_and_is_remembered(tmp_path: Path, words: list[str], says: str, build: str):
    assert make(tmp_path, "install", *words, says=says).returncode == 0
    assert f".[{build},dev]" in (tmp_path / "asked").read_text()
    assert (tmp_path / ".venv/.installed").read_text().strip() == build
    (tmp_path / "asked").unlink()
    assert make(tmp_path, "install").returncode == 0


def test_an_empty_stamp_is_no_installation(tmp_path: Path):
    make(tmp_path, "help")
    (tmp_path / ".venv/.installed").write_text("\n")
    assert make(tmp_path, "install", says="cpu").returncode == 0
    assert ".[cpu,dev]" in (tmp_path / "asked").read_text()


def test_help_lists_the_tests_of_a_gpu(tmp_path: Path):
    assert "make test-gpu" in make(tmp_path).stdout
