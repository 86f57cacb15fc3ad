"""A run that cannot go on as it began is refused in words, with nothing of its record touched; one that never had a checkpoint begins anew by itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rl import checkpoint
from rl.checkpoint import Background
from rl.loop import Saver
from rl.run import Run, RunError, refuse_unusable
from tests.unit.test_run import TAUGHT, killed, recipe, record


def content(folder: Path) -> dict[str, bytes]:
    """All files of a run but those that say who has it open."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(("lock", "tensorboard"))}


def keep(run: Run) -> Path:
    """A checkpoint of where the run stands, as rl/loop has it written."""
    made = checkpoint.write(run.folder / "checkpoints" / f"step-{run.step}", lambda folder: (folder / "w").write_bytes(b"w"))
    run.stands(made)
    return made


def stopped(runs: Path) -> Path:
    """The folder of a run that has three steps, checkpoints of the first two, and was killed."""
    run = Run.create(recipe(), runs)
    for step in range(3):
        run.record(step, TAUGHT)
        if step < 2:
            keep(run)
    killed(run)
    return run.folder


def unseal(folder: Path) -> None:
    (folder / "checkpoints" / "step-1" / "w").write_bytes(b"?")
    (folder / "checkpoints" / "step-2" / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (
            lambda folder: shutil.rmtree(folder / "checkpoints"),
            r"step-2 is gone from .*checkpoints, and no other checkpoint is there\. Put",
        ),
        (lambda folder: [shutil.rmtree(one) for one in (folder / "checkpoints").iterdir()], "step-2 is gone from"),
        (unseal, r"no checkpoint is whole any more: checkpoint .*step-2: there is no manifest.json.* begin the run anew \(--overwrite\)"),
    ],
)
def test_a_run_whose_checkpoints_are_gone_or_broken_is_refused_and_keeps_its_record(
    tmp_path: Path, harm: Callable[[Path], object], words: str
):
    folder = stopped(tmp_path)
    harm(folder)
    before = content(folder)
    with pytest.raises(RunError, match=words):
        Run.create(recipe(), tmp_path, resume=True)
    assert content(folder) == before
    assert Run.create(recipe(), tmp_path, overwrite=True).step == 0


def test_a_run_that_goes_back_for_a_lost_learner_keeps_its_record_too(tmp_path: Path):
    run = Run.create(recipe(), tmp_path)
    record(run, 1)
    shutil.rmtree(keep(run))
    with pytest.raises(RunError, match="step-1 is gone"):
        run.go_back()
    assert len(run.metrics()) == 1


def test_a_run_that_is_killed_while_its_first_checkpoint_is_sealed_begins_anew_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Steps behind it are recorded by then."""
    run = Run.create(recipe(), tmp_path)
    record(run, 1)
    with monkeypatch.context() as patch, Background() as writer:
        patch.setattr(checkpoint, "_finish", lambda *_: None)  # the kill
        writer.write(run.folder / "checkpoints" / "step-1", lambda folder: None, {}, lambda: None)
        record(run, 2)
    killed(run)
    again = Run.create(recipe(), tmp_path, resume=True)
    assert again.checkpoint is None
    again.truncate_to(0)
    assert again.metrics() == [] and list(again.remaining_steps()) == [0, 1, 2, 3]


def test_the_record_that_is_sent_with_the_first_checkpoint_does_not_tell_of_it(tmp_path: Path):
    """It is sent before it: a node that is taken away in between leaves a run that begins anew by itself."""
    run, told = Run.create(recipe(), tmp_path), []
    record(run, 1)
    run.mirror = lambda: told.append("checkpoint" in (run.folder / "status.json").read_text())
    made = checkpoint.write(run.folder / "checkpoints" / "step-1", lambda folder: None)
    nobody: Any = None
    Saver(nobody, run, nobody, nobody, nobody, tmp_path)._after(made)
    assert told == [False] and json.loads((run.folder / "status.json").read_text())["checkpoint"] == "step-1"


def test_a_record_that_goes_on_tells_of_its_newest_checkpoint_from_the_first_moment_on(tmp_path: Path):
    stopped(tmp_path)
    with Run.create(recipe(), tmp_path, resume=True) as run:
        assert json.loads((run.folder / "status.json").read_text())["checkpoint"] == "step-2"


@pytest.mark.parametrize("text", [None, "", '{"template": ""', "[]", "{}"])
def test_a_run_that_does_not_say_what_it_began_with_is_refused_with_a_remedy(tmp_path: Path, text: str | None):
    file = stopped(tmp_path) / "environment.json"
    file.unlink()
    if text is not None:
        file.write_text(text)
    with pytest.raises(RunError, match=r"environment.json cannot be read.*put it back, or begin the run anew"):
        Run.create(recipe(), tmp_path, resume=True)


def test_a_record_that_is_missing_is_named_where_a_checkpoint_needs_it_and_begun_where_none_does(tmp_path: Path):
    folder = stopped(tmp_path)
    (folder / "metrics.jsonl").unlink()
    with Run.create(recipe(), tmp_path, resume=True) as run:
        with pytest.raises(RunError, match=r"metrics.jsonl:1: step 0 is missing .*put it back, or begin the run anew"):
            run.truncate_to(2)
        run.truncate_to(0)
        assert run.metrics() == []


def test_files_of_others_among_the_samples_stay(tmp_path: Path):
    folder = stopped(tmp_path)
    for name in ("step-abc.parquet", "step-00002.parquet", "step-00002.parquet.old"):
        (folder / "samples" / name).touch()
    with Run.create(recipe(), tmp_path, resume=True) as run:
        run.truncate_to(2)
    assert sorted(path.name for path in (folder / "samples").iterdir()) == ["step-00002.parquet.old", "step-abc.parquet"]


def test_a_link_in_place_of_a_run_is_not_emptied(tmp_path: Path):
    folder = stopped(tmp_path / "disk")
    (tmp_path / "a").symlink_to(folder)
    before = content(folder)
    with pytest.raises(RunError, match=r"a is a link to .*disk/a, which is not emptied: remove the link, or choose another name"):
        refuse_unusable(recipe(), tmp_path, overwrite=True)
    assert content(folder) == before


@pytest.mark.parametrize("part", ["samples", "checkpoints", "evals"])
@pytest.mark.parametrize("target", ["/proc/self/fd", "/nowhere/at/all"])
def test_a_part_of_a_run_that_lies_on_a_disk_that_takes_nothing_is_named_before_anything_starts(tmp_path: Path, part: str, target: str):
    folder = stopped(tmp_path)
    (folder / part).rename(tmp_path / part)
    (folder / part).symlink_to(target)
    with pytest.raises(RunError, match=rf"a/{part}: nothing can be written in "):
        refuse_unusable(recipe(), tmp_path, resume=True)
