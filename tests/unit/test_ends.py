"""How a run ends, and what is said before it starts: exit codes, Ray's folder, folders that killed runs leave."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import typer

from launch import cli
from launch.doctor import faults
from launch.head import ADDRESS, HeadError, up
from launch.plan import plan
from launch.ray_start import RayStartError, start_ray
from recipes.loader import load
from rl.scratch import scratch_folder
from rollout.peers import last_words


@pytest.mark.parametrize(("state", "code"), [("finished", None), ("no-effective-update", 3)])
def test_a_run_that_taught_nothing_says_so_and_exits_with_its_own_code(
    state: str, code: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "it's [1]"

    def run_recipe(recipe: object, runs: Path, **_: object) -> Path:
        folder.mkdir()
        (folder / "status.json").write_text(json.dumps({"state": state, "reason": "no group had a signal [all_wrong]", "step": 3}))
        return folder

    monkeypatch.setattr("launch.stages.run_recipe", run_recipe)
    monkeypatch.setattr("evaluation.entries.read_entries", lambda folders: [])
    try:
        cli.train("quickstart", runs=str(tmp_path))
        found = None
    except typer.Exit as end:
        found = end.exit_code
    said = " ".join(capsys.readouterr().out.split())
    assert found == code
    assert ("This run taught nothing: no group had a signal [all_wrong]" in said) == (code is not None)
    assert (
        f"{folder} is complete. Look at it: laconic report {shlex.quote(str(folder))}" in said or f"Its samples: {folder}/samples" in said
    )


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_too_long_for_rays_sockets_is_named_with_the_remedy(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, f"{tmp_path}/{'long-' * 20}")
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # another test of this process may have started it
    with pytest.raises(RayStartError, match=rf"{variable}=.*long-: too long for the names of Ray's sockets .*set RAY_TMPDIR"):
        start_ray(num_cpus=1, num_gpus=0)


def test_plan_and_a_head_refuse_a_folder_that_ray_cannot_use_and_a_joined_ray_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = load("quickstart")
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path))
    for folder, words in [
        (tmp_path / ("long-" * 20), "long-: too long for the names of Ray's sockets"),
        ("/dev/null/below", "Ray keeps its session in /dev/null/below, and nothing can be written in /dev/null"),
    ]:
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        assert words in plan(recipe).blockers[-1] and words in faults()[0].found
        with pytest.raises(HeadError, match=re.escape(words)):
            up()
        monkeypatch.setenv(ADDRESS, "elsewhere:6379")
        assert not plan(recipe).blockers
        monkeypatch.delenv(ADDRESS)
        monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # goes before what is for everything else
        assert not plan(recipe).blockers


def test_what_a_killed_process_left_in_the_temporary_folder_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder("laconic-convert-") as mine:
        name = Path(mine).name
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = name.replace(str(os.getpid()), str(gone.pid), 1)
    stays = {
        name,
        left.replace("pid", "other", 1),
        f"laconic-convert-{gone.pid}-abc",
        name.replace(str(os.getpid()), str(os.getppid()), 1),
    }  # a process's own, of who knows where, and of another that lives
    for one in (left, *stays):
        (tmp_path / one).mkdir()
        (tmp_path / one / "step-1").touch()
    with scratch_folder("laconic-convert-") as mine:
        assert {path.name for path in tmp_path.iterdir()} == stays | {Path(mine).name}
    assert {path.name for path in tmp_path.iterdir()} == stays
    beside = tmp_path / "checkpoints"
    beside.mkdir()
    with scratch_folder("laconic-convert-", beside) as mine:
        assert Path(mine).parent == beside  # from where a finished folder is moved into its place


RAYS = """\x1b[36mray::VllmEngine.__init__()\x1b[39m (pid=7, ip=127.0.0.1)
  File "engine.py", line 61, in __init__
    self._llm = LLM(
        ^^^^
  File "dataclasses.py", line 121, in __init__
    s.__pydantic_validator__.validate_python(ArgsKwargs(args, kwargs), self_instance=s)
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, max_model_len (100000) is greater than the derived 2048. [type=value_error]
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            RAYS,
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig Value error, max_model_len (100000) is greater than the derived 2048. [type=value_error]",
        ),
        ('Traceback:\n  File "a.py", line 1, in f\n    g()\nValueError: no room: lower it', "ValueError: no room: lower it"),
        ("The actor died.\nIts node is gone.", "Its node is gone."),
        ("", "RuntimeError"),
    ],
)
def test_an_error_from_far_away_is_quoted_whole_without_the_road_to_it(text: str, words: str):
    assert last_words(RuntimeError(text)) == words
