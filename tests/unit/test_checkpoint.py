"""A checkpoint is whole or invisible: faults at every call, real full disks, a kill in the middle, two writers."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Timer

import pytest

from rl import checkpoint
from rl.checkpoint import Background, CheckpointError

ROOT = Path(__file__).parents[2]


def fill(folder: Path) -> None:
    (folder / "learner").mkdir()
    (folder / "model.safetensors").write_bytes(b"w" * 5000)
    (folder / "learner" / "rank-0.safetensors").write_bytes(b"o" * 3000)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_checkpoint_carries_every_file_and_the_callers_words(tmp_path):
    folder = checkpoint.write(tmp_path / "step-20", fill, {"step": 20, "ranks": 2, "recipe_hash": "abc"})
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["files"].keys() == {"model.safetensors", "learner/rank-0.safetensors"}
    assert manifest["files"]["model.safetensors"]["size"] == 5000
    assert checkpoint.metadata(folder) == {"step": 20, "ranks": 2, "recipe_hash": "abc"}
    checkpoint.verify(folder)
    assert names(tmp_path) == {"step-20"}


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: (f / "model.safetensors").write_bytes(b"w" * 4999), "model.safetensors has 4999 bytes, its manifest says 5000"),
        (lambda f: (f / "learner/rank-0.safetensors").write_bytes(b"o" * 2999 + b"x"), "content of learner/rank-0.safetensors"),
        (lambda f: (f / "manifest.json").unlink(), "there is no manifest.json"),
        (lambda f: (f / "manifest.json").write_text('{"meta": {}'), "manifest.json cannot be read"),
        (lambda f: (f / "manifest.json").write_text('{"files": {}}'), "manifest.json cannot be read"),
        (lambda f: (f / "manifest.json").write_text('{"files": {}, "meta": {}}'), "manifest.json says step None"),
        (
            lambda f: (f / "manifest.json").write_text('{"files": {"a": {"sha256": ""}}, "meta": {"step": 10}}'),
            "manifest.json cannot be read",
        ),
        (lambda f: (shutil.rmtree(f), shutil.copytree(f.with_name("step-9"), f)), "manifest.json says step 9, so it is another's copy"),
    ],
)
def test_every_kind_of_damage_is_named_and_the_older_checkpoint_is_taken(tmp_path, caplog, harm, words):
    checkpoint.write(tmp_path / "step-9", fill)
    newest = checkpoint.write(tmp_path / "step-10", fill)
    assert checkpoint.latest(tmp_path) == newest
    harm(newest)
    with pytest.raises(CheckpointError, match=words):
        checkpoint.verify(newest)
    with caplog.at_level(logging.WARNING):
        assert checkpoint.latest(tmp_path) == tmp_path / "step-9"
    assert words in caplog.text


def test_latest_of_nothing_is_none(tmp_path):
    assert checkpoint.latest(tmp_path / "absent") is None
    (tmp_path / ".tmp-step-3-1").mkdir()
    (tmp_path / "step-x").mkdir()
    checkpoint.write(tmp_path / "step-04", fill, {"step": 4})
    assert checkpoint.latest(tmp_path) is None


def test_a_crash_in_fill_leaves_nothing_and_says_what_stands(tmp_path):
    checkpoint.write(tmp_path / "step-20", fill)

    def crash(folder: Path) -> None:
        fill(folder)
        raise ValueError("rank 1 died")

    with pytest.raises(
        CheckpointError,
        match=r"step-40 was not written: rank 1 died.* 8,000 bytes were written.*step-20 is untouched: remove the cause and try again",
    ):
        checkpoint.write(tmp_path / "step-40", crash)
    assert names(tmp_path) == {"step-20"}


def test_an_interrupt_in_fill_stays_an_interrupt_and_leaves_nothing(tmp_path):
    def interrupt(folder: Path) -> None:
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(tmp_path / "step-40", interrupt)
    assert names(tmp_path) == set()


def in_background(folder: Path, fill: Callable[[Path], None]) -> None:
    with Background() as writer:
        writer.write(folder, fill, {}, lambda: None)


@pytest.mark.parametrize("write", [checkpoint.write, in_background])
@pytest.mark.parametrize("call", ["os.fsync", "os.open", "os.rename", "Path.write_text", "Path.write_bytes", "Path.mkdir"])
def test_a_fault_at_any_call_leaves_the_old_checkpoint_and_no_half_one(tmp_path, monkeypatch, call, write):
    old = checkpoint.write(tmp_path / "step-1", fill)
    owner, name = (os, call[3:]) if call.startswith("os.") else (Path, call[5:])
    original = getattr(owner, name)
    failures = 0
    for k in range(1, 100):
        calls = 0

        def faulty(*args, _k=k, **kwargs):
            nonlocal calls
            calls += 1
            if calls == _k:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, faulty)
            try:
                write(tmp_path / "step-2", fill)
            except (CheckpointError, OSError) as error:
                failures += 1
                assert "No space left" in str(error)
                assert isinstance(error, CheckpointError) or (call, k) == ("Path.mkdir", 1)  # the parent folder is the run's
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp")]
        checkpoint.verify(old)
        if (tmp_path / "step-2").exists():
            checkpoint.verify(tmp_path / "step-2")  # visible means whole, also where the very last flush failed
            shutil.rmtree(tmp_path / "step-2")
        if calls < k:
            break
    assert failures == k - 1 >= 1


def test_a_full_disk_says_how_much_is_needed_and_a_larger_one_succeeds(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:

        def big(folder: Path) -> None:
            (folder / "model.safetensors").write_bytes(b"w" * 300_000)

        checkpoint.write(disk / "step-1", big)
        with pytest.raises(
            CheckpointError, match=r"No space left.* are free.*step-1 is untouched: free space for at least 300,\d\d\d bytes"
        ):
            checkpoint.write(disk / "step-2", big)
        assert names(disk) == {"step-1"}
        subprocess.run(["mount", "-o", "remount,size=2m", str(disk)], check=True)
        assert checkpoint.latest(disk) == disk / "step-1"
        checkpoint.write(disk / "step-2", big)
        assert checkpoint.latest(disk) == disk / "step-2"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_file_over_the_size_limit_is_one_clear_error(tmp_path):
    script = f"""
import resource, signal, sys
from pathlib import Path
from rl import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    checkpoint.write(Path({str(tmp_path)!r}) / "step-1", lambda f: (f / "model.safetensors").write_bytes(b"w" * 5000) and None)
except checkpoint.CheckpointError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "File too large" in done.stderr and "Traceback" not in done.stderr
    assert names(tmp_path) == set()


def test_a_kill_in_the_middle_leaves_the_old_one_latest_and_the_next_write_cleans_up(tmp_path):
    checkpoint.write(tmp_path / "step-20", fill)
    script = f"""
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Timer
from rl import checkpoint
def slow(folder):
    (folder / "model.safetensors").write_bytes(b"w" * 2500)
    print("half", flush=True)
    time.sleep(60)
checkpoint.write(Path({str(tmp_path)!r}) / "step-40", slow)
"""
    child = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "half\n"
    temp = f".tmp-step-40-{child.pid}"
    assert names(tmp_path) == {"step-20", temp}
    checkpoint.write(tmp_path / "step-30", fill)
    assert temp in names(tmp_path), "a living writer keeps its folder"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert checkpoint.latest(tmp_path) == tmp_path / "step-30"
    checkpoint.write(tmp_path / "step-40", fill)
    assert names(tmp_path) == {"step-20", "step-30", "step-40"}


def test_only_our_own_leftovers_are_cleaned_up_and_only_among_checkpoints(tmp_path):
    foreign, ours = tmp_path / ".tmp-precious-999999999", tmp_path / ".tmp-step-7-999999999"  # no process has such an id
    for folder in (foreign, ours):
        folder.mkdir()
    checkpoint.write(tmp_path / "merged", fill)
    assert names(tmp_path) == {"merged", foreign.name, ours.name}
    checkpoint.write(tmp_path / "step-8", fill)
    assert names(tmp_path) == {"merged", foreign.name, "step-8"}


def test_a_second_writer_loses_and_the_first_ones_checkpoint_stays(tmp_path):
    checkpoint.write(tmp_path / "step-1", fill, {"writer": "first"})
    with pytest.raises(CheckpointError, match="exists already and is whole: does another process write to this run"):
        checkpoint.write(tmp_path / "step-1", fill, {"writer": "second"})

    shutil.rmtree(tmp_path / "step-1")
    first = checkpoint.write(tmp_path / "other" / "step-2", fill, {"writer": "first"})

    def race(folder: Path) -> None:  # the other writer finishes while this one is still filling
        fill(folder)
        os.rename(first, tmp_path / "step-2")
        first.parent.rmdir()

    with pytest.raises(CheckpointError, match="step-2 is untouched"):
        checkpoint.write(tmp_path / "step-2", race, {"writer": "second"})
    assert checkpoint.metadata(tmp_path / "step-2") == {"step": 2, "writer": "first"}
    assert names(tmp_path) == {"step-2"}


def test_a_broken_folder_of_the_same_name_is_replaced(tmp_path):
    broken = checkpoint.write(tmp_path / "step-1", fill)
    (broken / "model.safetensors").write_bytes(b"")
    assert not checkpoint.whole(broken)
    checkpoint.write(tmp_path / "step-1", fill)
    assert checkpoint.whole(broken)


def test_prune_keeps_the_newest_by_number_not_by_name(tmp_path):
    for step in (9, 10, 100):
        checkpoint.write(tmp_path / f"step-{step}", fill)
    checkpoint.prune(tmp_path / "step-100", keep=2)
    assert names(tmp_path) == {"step-10", "step-100"}


def test_prune_spares_what_it_is_told_to_however_old(tmp_path):
    for step in (1, 2, 3, 4):
        checkpoint.write(tmp_path / f"step-{step}", fill)
    checkpoint.prune(tmp_path / "step-4", 1, [tmp_path / "step-2"])
    assert names(tmp_path) == {"step-2", "step-4"}
    checkpoint.prune(tmp_path / "step-4", 2, [tmp_path / "step-9"])
    assert names(tmp_path) == {"step-2", "step-4"}


def test_prune_goes_on_where_something_cannot_be_removed(tmp_path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    for step in (1, 2, 3):
        checkpoint.write(tmp_path / f"step-{step}", fill)
    remove = shutil.rmtree

    def held(folder, **how):
        if "step-1" in folder.name and not how:
            raise OSError(39, "Directory not empty")
        remove(folder, **how)

    with monkeypatch.context() as nfs:
        nfs.setattr(shutil, "rmtree", held)
        checkpoint.prune(tmp_path / "step-3", keep=1)
    assert "step-1 could not be removed: [Errno 39]" in caplog.text
    assert [folder.name for folder in checkpoint.finished(tmp_path)] == ["step-3"]
    checkpoint.write(tmp_path / "step-4", fill)
    assert names(tmp_path) == {"step-3", "step-4"}


def test_prune_deletes_nothing_while_the_newest_is_broken(tmp_path):
    for step in (1, 2, 3):
        checkpoint.write(tmp_path / f"step-{step}", fill)
    (tmp_path / "step-3" / "model.safetensors").write_bytes(b"w" * 5000 + b"!")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        checkpoint.prune(tmp_path / "step-3", keep=1)
    assert names(tmp_path) == {"step-1", "step-2", "step-3"}
    checkpoint.prune(tmp_path / "step-2", keep=1)  # of a run that had to go back behind the broken one
    assert names(tmp_path) == {"step-2", "step-3"}


def test_digests_stream_fast_enough_for_gigabytes(tmp_path):
    def large(folder: Path) -> None:
        for shard in range(2):
            (folder / f"shard-{shard}.bin").write_bytes(b"\0" * 50_000_000)

    start = time.process_time()  # disks and other processes have their own pace
    checkpoint.write(tmp_path / "step-1", large)
    assert time.process_time() - start < 10


def test_bytes_that_do_not_come_back_from_the_disk_are_never_visible(tmp_path, monkeypatch):
    def lossy(path: Path) -> None:
        if path.name == "model.safetensors":
            path.write_bytes(b"w" * 4999 + b"?")

    checkpoint.write(tmp_path / "step-1", fill)
    monkeypatch.setattr(checkpoint, "_sync", lossy)
    with pytest.raises(CheckpointError, match=r"step-2 was not written: .*content of model.safetensors.*step-1 is untouched"):
        checkpoint.write(tmp_path / "step-2", fill)
    assert names(tmp_path) == {"step-1"}


@contextmanager
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Nothing is sealed before the event is set; after a minute it is, so that a test which waits too early fails and does not hang."""
    go, seal = Event(), checkpoint._seal

    def late(*given):
        go.wait(60)
        seal(*given)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_seal", late)
        yield go


def test_in_the_background_the_caller_waits_for_the_filling_alone(tmp_path, monkeypatch):
    done = []
    with Background() as writer, held(monkeypatch) as go:
        writer.write(tmp_path / "step-1", fill, {"step": 1}, lambda: done.append(names(tmp_path)))
        writer.check()
        assert checkpoint.latest(tmp_path) is None and not done
        go.set()
        writer.wait()
        assert checkpoint.metadata(tmp_path / "step-1") == {"step": 1} and done == [{"step-1"}]


def test_in_the_background_the_next_one_waits_for_the_one_before(tmp_path, monkeypatch):
    seen = []

    def look(folder: Path) -> None:
        seen.append(checkpoint.whole(tmp_path / "step-1"))
        fill(folder)

    with Background() as writer, held(monkeypatch) as go:
        writer.write(tmp_path / "step-1", fill, {}, lambda: None)
        Timer(0.2, go.set).start()
        writer.write(tmp_path / "step-2", look, {}, lambda: None)
    assert seen == [True] and names(tmp_path) == {"step-1", "step-2"}


@pytest.mark.parametrize("harm", ["seal", "then"])
def test_what_fails_in_the_background_is_raised_by_whoever_asks_next_and_leaves_the_older_one(tmp_path, monkeypatch, harm):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for ask in ("check", "wait", "write", "end"):
        old = tmp_path / ask / "step-1"
        checkpoint.write(old, fill)
        with (
            pytest.raises((CheckpointError, OSError), match="step-2 was not written: .*No space left" if harm == "seal" else "No space"),
            Background() as writer,
        ):
            with monkeypatch.context() as patch:
                if harm == "seal":
                    patch.setattr(checkpoint, "_seal", full)
                writer.write(tmp_path / ask / "step-2", fill, {}, full)
                writer._thread.join()
            if ask == "write":
                writer.write(tmp_path / ask / "step-3", fill, {}, full)
            elif ask != "end":
                getattr(writer, ask)()
            assert ask == "end"
        assert checkpoint.whole(old) and names(tmp_path / ask) == {"step-1"} | ({"step-2"} if harm == "then" else set())


def test_what_failed_in_the_background_is_raised_once_and_the_next_one_is_written(tmp_path):
    def fails() -> None:
        raise RuntimeError("the copy failed")

    with Background() as writer:
        writer.write(tmp_path / "step-1", fill, {}, fails)
        with pytest.raises(RuntimeError, match="the copy failed"):
            writer.wait()
        writer.check()
        writer.write(tmp_path / "step-2", fill, {}, lambda: None)
    assert checkpoint.whole(tmp_path / "step-2")


def test_however_a_background_is_left_its_last_checkpoint_stands(tmp_path, monkeypatch):
    for number, error in enumerate((KeyboardInterrupt("SIGTERM"), RuntimeError("rank 1 died"))):
        with held(monkeypatch) as go, pytest.raises(type(error)), Background() as writer:
            writer.write(tmp_path / f"step-{number}", fill, {}, lambda: None)
            Timer(0.1, go.set).start()
            raise error
        assert checkpoint.whole(tmp_path / f"step-{number}")


def test_what_ends_a_run_is_not_hidden_by_a_checkpoint_that_failed_too(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_seal", lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match="rank 1 died") as caught, Background() as writer:
        writer.write(tmp_path / "step-1", fill, {}, lambda: None)
        raise RuntimeError("rank 1 died")
    assert "step-1 was not written: division by zero" in caught.value.__notes__[0]


def test_a_checkpoint_that_is_a_link_is_never_pruned_and_gives_way_once_it_is_broken(tmp_path, caplog):
    there = checkpoint.write(tmp_path / "disk" / "step-1", fill)
    runs = tmp_path / "checkpoints"
    for step in (2, 3):
        checkpoint.write(runs / f"step-{step}", fill)
    (runs / "step-1").symlink_to(there)
    with caplog.at_level(logging.WARNING):
        checkpoint.prune(runs / "step-3", 1)
    assert names(runs) == {"step-1", "step-3"} and checkpoint.whole(runs / "step-1") and "step-1 is a link and stays" in caplog.text
    (there / "manifest.json").unlink()
    checkpoint.write(runs / "step-1", fill)
    assert checkpoint.whole(runs / "step-1") and not (runs / "step-1").is_symlink() and there.is_dir()
