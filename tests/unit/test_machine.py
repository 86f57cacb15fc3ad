"""What a machine has, and that install, plan and run ask the same place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.machine import Machine, device_of, this_machine, visible_gpus
from launch.plan import Plan, plan
from recipes.loader import load

ROOT = Path(__file__).parents[2]
SMI = """#!/bin/sh
case "$*" in *index*) echo "0, GPU-aaaa-bbbb, 24564"; echo "Unable to determine the device handle for GPU1"; exit 14;; *) exit 9;; esac
"""


@pytest.fixture
def one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose nvidia-smi tells of a GPU."""
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


TABLE = "0, GPU-aaa1, 81559\n1, GPU-bbb2, 24564\n"


@pytest.mark.parametrize(
    ("visible", "shown"),
    [(None, [81559, 24564]), ("", []), ("-1", []), ("1", [24564]), ("1,-1,0", [24564]), ("GPU-bb", [24564]), ("NoDevFiles", [])],
)
def test_the_gpus_that_cuda_will_show_are_counted(visible: str | None, shown: list[int]):
    assert visible_gpus(TABLE, visible, 0) == tuple(memory << 20 for memory in shown)


def test_a_gpu_without_memory_of_its_own_has_the_machines():
    assert visible_gpus("0, GPU-x, [N/A]\n", None, 7) == (7,) and visible_gpus("No devices were found\n", None, 7) == ()


def test_install_and_plan_see_the_same_gpu(one_gpu: None, monkeypatch: pytest.MonkeyPatch):
    def asked_by_install() -> str:
        return subprocess.run([sys.executable, "launch/machine.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    assert (this_machine().gpus, asked_by_install()) == ((24564 << 20,), "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert (this_machine().gpus, asked_by_install()) == ((), "cpu")


@pytest.mark.parametrize(
    ("wanted", "gpus", "build", "device"),
    [
        ("auto", (1,), "cuda", "cuda"),
        ("auto", (1,), "unknown", "cuda"),
        ("auto", (1,), "cpu", "cpu"),
        ("auto", (), "cuda", "cpu"),
        ("cpu", (1,), "cuda", "cpu"),
        ("cuda", (), "cpu", "cuda"),
    ],
)
def test_auto_is_the_gpu_where_it_can_be_used(wanted: str, gpus: tuple[int, ...], build: str, device: str):
    assert device_of(wanted, Machine(2, 1, gpus, build)) == device  # type: ignore[arg-type]


@pytest.mark.parametrize(("word", "said"), [("cuda", "extra=cuda;"), ("cpu", "extra=cpu;")])
def test_extra_overrides_what_install_detects_and_is_remembered(tmp_path: Path, word: str, said: str):
    def make(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["make", "-n", "install", *words], cwd=tmp_path, capture_output=True, text=True)

    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    assert said in make(f"EXTRA={word}").stdout
    (tmp_path / ".venv" / ".installed").write_text(f"{word}\n")
    assert "Nothing to be done" in make().stdout and "Nothing to be done" in make(f"EXTRA={word}").stdout
    other = {"cuda": "cpu", "cpu": "cuda"}[word]
    assert f"replacing the {word} build" in make(f"EXTRA={other}").stdout
    assert "it must be cpu or cuda" in make("EXTRA=gpu").stderr


def test_this_machine_has_cores_and_memory():
    machine = this_machine()
    assert machine.cores >= 1 and machine.memory > 0
    assert isinstance(plan(load("quickstart")), Plan)
