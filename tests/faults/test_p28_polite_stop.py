"""SIGTERM in every phase (P28): the run ends by itself with a checkpoint of its last finished step, and what is resumed from there is the run that was left alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rl import checkpoint
from tests.faults.test_p23_kill_anywhere import Killer, arguments, data, model, record, rollouts  # noqa: F401

CHANGES = ["train.steps=8", "train.checkpoint_every=100", "eval.every=3", "eval.samples=1", "eval.max_tokens=12"]
STOPS = [  # where, in which call of the process, and the steps that its checkpoint then holds; 0: none. All of them: tests/cluster
    ("load", 1, 0),
    ("update", 1, 1),  # it waits until the step is whole
    ("verdict", 1, 1),
    ("evaluate", 1, 3),  # behind step 2
    ("rollout", 1, 3),
    ("checkpoint", 1, 8),  # the last one, which is written
]


@pytest.mark.timeout(600)
def test_p28_a_run_that_is_told_to_end_in_each_phase_saves_and_leaves_the_record_of_one_that_was_not(
    model: Path,  # noqa: F811
    data: Path,  # noqa: F811
    killer: Killer,
    tmp_path: Path,
):
    told_to_end(STOPS, model, data, killer, tmp_path)


def told_to_end(stops: list[tuple[str, int, int]], model: Path, data: Path, killer: Killer, tmp_path: Path) -> None:  # noqa: F811
    changes = [*CHANGES, f"eval.data=[{data}]"]
    code, output = killer.run(arguments(model, tmp_path / "alone", data, *changes), actors=False)
    assert code == 0, output[-3000:]
    folder, begun = tmp_path / "run", False
    for phase, count, steps in stops:
        words = arguments(model, tmp_path, data, *changes, *(["--resume"] if begun else []))
        code, output = killer.run(words, phase, count, actors=False, sign="SIGTERM")
        assert code == 130, f"{phase}: {output[-3000:]}"
        begun = (folder / "recipe.yaml").is_file()
        assert begun == (phase != "load")
        if begun:
            assert json.loads((folder / "status.json").read_text())["state"] == "stopped", phase
            kept = checkpoint.latest(folder / "checkpoints")
            assert (checkpoint.metadata(kept)["step"] if kept else 0) == steps, phase
            assert not list((folder / "checkpoints").glob(".tmp*")), phase
    code, output = killer.run(arguments(model, tmp_path, data, *changes, "--resume"), actors=False)
    assert code == 0, output[-3000:]
    alone = tmp_path / "alone" / "run"
    left_out = ("learner/restarts",)
    assert [{**line, **dict.fromkeys(left_out)} for line in record(folder)] == [
        {**line, **dict.fromkeys(left_out)} for line in record(alone)
    ]
    assert rollouts(folder) == rollouts(alone)
    assert sorted(path.name for path in (folder / "evals").iterdir()) == sorted(path.name for path in (alone / "evals").iterdir())
    shutil.rmtree(alone)
