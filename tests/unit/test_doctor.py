"""The doctor's verdicts on given facts, and one look at the real installation."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement
from rich.console import Console

from launch import doctor

GIB = 2**30


def test_a_library_off_its_pin_is_named_with_both_versions():
    wanted = [Requirement("ray[default]==2.60.0"), Requirement("numpy>=1.26")]
    (check,) = doctor.library_versions(wanted, {"ray": "2.59.1", "numpy": "2.2.0"})
    assert (check.name, check.state, check.found) == ("ray", "fail", "2.59.1, ==2.60.0 is required")
    assert "make install" in check.remedy


def test_a_missing_library_fails():
    (check,) = doctor.library_versions([Requirement("trl==1.16.0")], {})
    assert (check.state, check.found) == ("fail", "missing, ==1.16.0 is required")


def test_the_cpu_label_and_the_spelling_of_a_name_do_not_matter():
    wanted = [Requirement("torch==2.13.0"), Requirement("latex2sympy2_extended==1.11.0")]
    (check,) = doctor.library_versions(wanted, {"torch": "2.13.0+cpu", "latex2sympy2-extended": "1.11.0"})
    assert check.state == "ok"


def test_an_uninstalled_laconic_is_said_to_be_so():
    (check,) = doctor.library_versions([], {"torch": "2.13.0"})
    assert check.state == "fail" and "not installed" in check.found


@pytest.mark.parametrize(
    ("gpus", "version", "state"),
    [
        (0, "2.13.0+cpu", "ok"),
        (0, "2.13.0", "warn"),  # a login node
        (0, "2.13.0+cu130", "warn"),
        (1, "2.13.0", "ok"),
        (8, "2.13.0+cpu", "warn"),
        (0, None, "fail"),
    ],
)
def test_torch_must_be_built_for_what_the_machine_has(gpus: int, version: str | None, state: str):
    assert doctor.torch_build(gpus, version).state == state


@pytest.mark.parametrize(("version", "state"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 14), "ok"), ((3, 15), "fail")])
def test_python_outside_3_11_to_3_14_fails(version: tuple[int, int], state: str):
    assert doctor.python_version(version).state == state


@pytest.mark.parametrize(("free", "state"), [(3 * GIB, "fail"), (5 * GIB, "warn"), (6 * GIB, "ok")])
def test_little_memory_warns_and_too_little_fails(free: int, state: str):
    assert doctor.memory(free).state == state


def test_the_disk_of_a_folder_that_does_not_exist_yet_is_its_parents(tmp_path: Path):
    check = doctor.disk("disk of runs", tmp_path / "not" / "yet", least=0, enough=1e-9)
    assert check.found.endswith(f"at {tmp_path}")


def test_the_disk_of_a_folder_that_nobody_can_look_at_is_that_of_one_above(tmp_path: Path):
    check = doctor.disk(
        "disk of Ray's session files", tmp_path / ("x" * 300) / "ray", least=0, enough=1e-9
    )  # no file system takes such a name
    assert check.found.endswith(f"at {tmp_path}")


def test_a_full_disk_fails(tmp_path: Path):
    check = doctor.disk("disk of runs", tmp_path, least=1e9, enough=1e9)
    assert check.state == "fail" and check.remedy


def test_a_compiler_and_pythons_header_are_needed_for_gpus_only(tmp_path: Path):
    header = tmp_path / "Python.h"
    assert [doctor.compiler(gpus, None, header).state for gpus in (0, 1)] == ["ok", "fail"]
    assert "Python.h: GPU kernels cannot be compiled" in doctor.compiler(1, "/usr/bin/g++", header).found
    header.touch()
    assert doctor.compiler(1, "/usr/bin/g++", header).state == "ok"


@pytest.mark.parametrize(
    ("version", "cuda", "state"),
    [
        ("580.65.06", "13.0", "ok"),
        ("550.54.15", "13.0", "fail"),
        ("550.54.15", "12.9", "ok"),  # older than CUDA 12.9, but of its major version
        ("470.1", "12.4", "fail"),
        ("600.1", "14.0", "warn"),
        ("", "13.0", "ok"),
        ("550.54.15", None, "ok"),
    ],
)
def test_the_driver_is_held_against_the_cuda_that_torch_was_built_for(version: str, cuda: str | None, state: str):
    check = doctor.driver(version, cuda)
    assert check.state == state and bool(check.remedy) == (state != "ok")


def test_torchs_cuda_is_read_without_importing_it():
    import torch

    assert doctor.torch_cuda() == torch.version.cuda


def test_an_offline_hub_with_an_empty_cache_warns(tmp_path: Path):
    empty = {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    assert doctor.hub(empty).state == "warn"
    (tmp_path / "models--owner--name").mkdir()
    assert doctor.hub(empty).state == "ok"


def test_a_probe_reports_the_last_line_of_what_went_wrong():
    check = doctor.probe("x", "raise ValueError('no such thing')", timeout_s=240, done="", remedy="mend it")
    assert (check.state, check.found, check.remedy) == ("fail", "ValueError: no such thing", "mend it")


def test_a_probe_that_hangs_or_crashes_is_a_failure():
    assert doctor.probe("x", "import time; time.sleep(60)", timeout_s=0.5, done="", remedy="").found == "no answer in 0.5 s"
    assert doctor.probe("x", "import os; os.abort()", timeout_s=240, done="", remedy="").found == "ended with code -6"


def test_this_installation_has_what_pyproject_requires():
    checks = doctor.library_versions(doctor.requirements("cpu"), doctor.installed_versions())
    assert [check for check in checks if check.state != "ok"] == []
    assert "ray 2.60.0" in checks[0].found


def test_every_finding_is_shown_with_its_remedy():
    console = Console(width=200)
    with console.capture() as shown:
        console.print(doctor.render([doctor.Check("ray", "fail", "[Errno 98] in use", "laconic[cpu]")]))
    assert "fail ray [Errno 98] in use laconic[cpu]" in " ".join(shown.get().split())
