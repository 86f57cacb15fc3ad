"""Runs on remote storage: what is found there is whole, wherever a writer died; one writer; what is fetched; what is refused."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest
from typer.testing import CliRunner

from evaluation.model import model_of
from evaluation.report import report
from launch import cli, objects, stages, storage
from launch.objects import Store
from launch.placement import Placement
from launch.plan import plan
from launch.storage import LockLost, Mirror, StorageError, fetched, refuse_unshared, run_storage
from recipes.loader import load
from recipes.schema import Recipe
from rl import checkpoint
from rl.learner import Learner
from rl.run import Run, RunError
from tests.inprocess import libraries
from tests.unit.test_several_stages import two_phases

ROOT = Path(__file__).parents[2]
TAUGHT = {"groups/trained": 1, "selected": 1, "advantage/max": 1.0, "publish/changed": 1}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waits, and without what opening a run asks other programs."""
    monkeypatch.setattr(objects, "_AGAIN_S", (0.0, 0.0))
    monkeypatch.setattr(storage, "_GONE", ())  # here one process is all machines
    monkeypatch.setattr("rl.environment._output", lambda *command: None)
    monkeypatch.setattr("rl.run.TensorBoard.log", lambda *given: None)


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield f"memory://{tmp_path.name}" if request.param == "memory" else f"file://{tmp_path}/remote"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Be another machine: with a cache folder of its own."""

    def be(name: str) -> None:
        monkeypatch.setenv("LACONIC_CACHE", str(tmp_path / name))

    be("first")
    return be


def recipe(keep: int = 2, best: int = 1) -> Recipe:
    return Recipe.model_validate({"name": "a", "train": {"steps": 9, "keep_checkpoints": keep, "keep_best": best}})


def steps(run: Run, *numbers: int, score: dict[int, float] | None = None) -> None:
    """Record steps, each with samples and a checkpoint that is mirrored."""
    for number in numbers:
        run.record(number - 1, TAUGHT)
        (run.folder / "samples" / f"step-{number - 1:05d}.parquet").write_bytes(b"samples %d" % number)
        (run.folder / "evals" / f"step-{number}.json").write_text(
            json.dumps({"accuracy": {"mean": (score or {}).get(number, 0.1)}, "tokens": {"mean": 9}})
        )
        checkpoint.write(run.folder / "checkpoints" / f"step-{number}", lambda folder, n=number: fill(folder, n), {"step": number})
        checkpoint.prune(run.folder / "checkpoints" / f"step-{number}", run.holds.train.keep_checkpoints, run.best())
        run.status("running")
        run.mirror()


def fill(folder: Path, number: int) -> None:
    (folder / "learner").mkdir()
    (folder / "model.safetensors").write_bytes(b"w" * 1000 + b"%d" % number)
    (folder / "learner" / "rank-0.safetensors").write_bytes(b"o" * 500)


def there(url: str, part: str = "") -> list[str]:
    return sorted(name for name in Store(url, "a").names() if name.startswith(part))


def manifests(url: str) -> list[str]:
    return [name.split("/")[1] for name in there(url, "checkpoints/") if name.endswith(checkpoint.MANIFEST)]


def test_a_run_goes_on_on_another_machine_from_the_newest_checkpoint_and_old_ones_go_there_too(url: str, machine: Callable[[str], None]):
    with pytest.raises(KeyboardInterrupt), run_storage(url, "a") as (runs, mirror), Run.create(recipe(), runs, mirror=mirror) as run:
        steps(run, 1, 2, 3, 4, score={1: 0.9})
        assert manifests(url) == ["step-1", "step-3", "step-4"]  # the two newest and the best
        raise KeyboardInterrupt("SIGTERM")
    assert json.loads(Store(url, "a").read("status.json") or b"")["state"] == "stopped" and "lock" not in there(url)
    assert not [name for name in there(url) if name.startswith(("tensorboard", ".")) or name.endswith((".part", ".tmp"))]

    machine("second")
    with run_storage(url, "a", resume=True) as (runs, mirror), Run.create(recipe(), runs, resume=True, mirror=mirror) as run:
        assert (
            run.step == 4
            and run.checkpoint is not None
            and [path.name for path in checkpoint.finished(run.checkpoint.parent)] == ["step-1", "step-4"]
        )
        assert (run.checkpoint / "model.safetensors").read_bytes().endswith(b"4")
        run.truncate_to(4)
        steps(run, 5)
        assert manifests(url) == ["step-1", "step-3", "step-4", "step-5"]
        steps(run, 6)
        assert manifests(url) == ["step-1", "step-5", "step-6"] and there(url, "checkpoints/step-4") == []
        if url.startswith("file://"):  # whose folders are there without anything in them, too
            assert {path.name for path in Path(url.removeprefix("file://"), "a/checkpoints").iterdir()} == {"step-1", "step-5", "step-6"}
    machine("first")  # where a former state lies: what the second machine did counts
    with pytest.raises(storage.StorageError, match=r"a exists already: go on with it \(--resume\)"), run_storage(url, "a"):
        raise AssertionError
    with run_storage(url, "a", resume=True) as (runs, _):
        assert len((runs / "a/metrics.jsonl").read_text().splitlines()) == 6


def changes(patch: pytest.MonkeyPatch, url: str, one: Recipe) -> list[tuple[str, bytes | None]]:
    """All that a run does to its objects, one after the other: their name, and what is in them then; None: no more there."""
    found: list[tuple[str, bytes | None]] = []
    put, remove = Store._put, Store.remove

    def noted_put(self: Store, name: str, call: Callable[[str], object]) -> None:
        put(self, name, call)
        found.append((name, self.read(name)))

    def noted_remove(self: Store, names: Sequence[str]) -> None:
        for name in names:
            remove(self, [name])
            found.append((name, None))

    patch.setattr(Store, "_put", noted_put)
    patch.setattr(Store, "remove", noted_remove)
    with run_storage(url, "a") as (runs, push), Run.create(one, runs, mirror=push) as run:
        run.mirror()
        steps(run, 1, 2, 3)
    return found


def test_wherever_the_writer_dies_the_newest_whole_checkpoint_and_a_record_that_reaches_it_are_there(
    url: str, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
):
    one, seen = recipe(keep=1, best=0), []
    with monkeypatch.context() as patch:
        all_of_it = [(name, content) for name, content in changes(patch, f"{url}/whole", one) if name != "lock"]
    machine("second")
    for number, (name, content) in enumerate(all_of_it):
        store = Store(url, "a")
        if content is None:
            store.remove([name])
        else:
            if not store._is_atomic:  # dead while it writes this
                store._files.makedirs(store._at(name).rpartition("/")[0], exist_ok=True)
                store._files.pipe_file(store._at(f"{name}.part"), b"half")
            store.write(name, content)  # dead behind it
        if store.json("mirror.json") is None:
            continue  # there is no run yet
        if b"finished" in (store.read("status.json") or b""):
            break
        with run_storage(url, "a", resume=True) as (runs, _):
            found = checkpoint.latest(runs / "a/checkpoints")
            seen.append(checkpoint.metadata(found)["step"] if found else 0)
            assert (runs / "a/metrics.jsonl").read_text().count("\n") >= seen[-1]
        if number % 9 == 0:
            place = f"{url}/{number}"
            for other in store.names():
                Store(place, "a").write(other, store.read(other) or b"")
            with run_storage(place, "a", resume=True) as (runs, push), Run.create(one, runs, resume=True, mirror=push) as run:
                run.truncate_to(run.step)
                steps(run, *range(run.step + 1, 5))
            assert {name.split("/")[1] for name in there(place, "checkpoints/")} == {"step-4"}
            assert len(fetched(f"{place}/a").joinpath("metrics.jsonl").read_text().splitlines()) == 4
    assert seen == sorted(seen) and set(seen) == {0, 1, 2, 3}


def test_a_run_of_several_stages_goes_on_elsewhere_from_what_its_background_sent(
    machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, tmp_path: Path
):
    wanted, url = two_phases(tiny_checkpoint, "merge"), f"memory://{tmp_path.name}"
    where = f"{url}/{wanted.name}"

    def run(resume: bool = False) -> Path:
        with run_storage(url, wanted.name, resume) as (runs, mirror), libraries():
            return stages.run_recipe(plan(wanted), runs, resume=resume, mirror=mirror)

    def gone(self: Mirror) -> None:
        self._ended.set()
        self._store.remove(["lock"])

    update, calls = Learner.update, []

    def dying(self: Learner, *given: object) -> object:
        calls.append(1)
        if len(calls) == 3:  # the first of the second phase
            raise KeyboardInterrupt
        return update(self, *given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Mirror, "close", gone)
        patch.setattr(Learner, "update", dying)
        run()
    before = fetched(where)
    assert json.loads((before / "status.json").read_text())["state"] == "running"
    phase = (before / "stages/phase_1/metrics.jsonl").read_bytes()
    machine("second")
    folder = run(resume=True)
    assert (folder / "stages/phase_1/metrics.jsonl").read_bytes() == phase and phase.count(b"\n") == 2
    assert "resumed" in json.loads((folder / "environment.json").read_text())
    after = fetched(where)
    assert json.loads((after / "status.json").read_text())["state"] == "finished"
    assert len((after / "metrics.jsonl").read_text().splitlines()) == 3
    assert model_of(after).called == "stages/merge/checkpoint" and report([after]).is_file()
    assert checkpoint.metadata(after / "stages/merge/checkpoint")["merge"]
    machine("third")
    with pytest.raises(RunError, match="is finished"):
        run(resume=True)


def test_two_writers_are_never_at_work(
    url: str, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    mirror = Mirror(url, "a")
    mirror.open()
    with pytest.raises(
        StorageError, match=rf"/a is in use by process {os.getpid()} of \S+ on \S+, since .*, which renewed its lock \d s ago: wait"
    ):
        Mirror(url, "a").open(resume=True)
    with Run.create(recipe(), mirror.folder.parent, mirror=mirror.push) as run:
        steps(run, 1)
        monkeypatch.setattr(storage, "_STALE_S", -1.0)  # as if it had been frozen for long
        machine("second")
        other = Mirror(url, "a")
        with caplog.at_level(logging.WARNING):
            other.open(resume=True)
        assert f"taken over from process {os.getpid()}" in caplog.text
        before = there(url)
        with pytest.raises(LockLost, match="has taken the run over"):
            steps(run, 2)
    with pytest.raises(LockLost):
        mirror.close()
    assert there(url) == before and manifests(url) == ["step-1"]
    other.close()


def test_who_lost_a_run_before_anything_was_sent_leaves_the_others_lock(
    url: str, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
):
    mirror, other = Mirror(url, "a"), Mirror(url, "a")
    mirror.open()
    monkeypatch.setattr(storage, "_STALE_S", -1.0)
    other.open()
    mirror.close()
    assert there(url) == [storage.LOCK]
    other.close()
    assert there(url) == []


def test_a_checkpoint_that_was_let_go_and_is_made_again_is_sent_again(url: str, machine: Callable[[str], None]):
    with run_storage(url, "a") as (runs, push), Run.create(recipe(), runs, mirror=push) as run:
        made = run.folder / "stages" / "merge" / "checkpoint"
        for text in (b"old", b"new"):
            checkpoint.write(made, lambda folder, text=text: (folder / "model.safetensors").write_bytes(text), {})
            push()
            assert Store(url, "a").read("stages/merge/checkpoint/model.safetensors") == text
            shutil.rmtree(made)
            push()
            assert not there(url, "stages/merge/checkpoint")


def test_who_is_patient_waits_for_a_lock_to_grow_stale_and_not_for_one_that_is_renewed(
    url: str, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    mirror = Mirror(url, "a")
    with pytest.raises(StorageError, match="no such run to resume"):
        mirror.open(resume=True)
    mirror.open(resume=True, patient=True)  # to begin it
    looks: list[float] = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            mirror._hold()

    monkeypatch.setattr("launch.storage.time.sleep", look)
    with pytest.raises(StorageError, match=f"is in use by process {os.getpid()} "):
        Mirror(url, "a").open(patient=True)
    assert len(looks) == 3 and caplog.text.count("waiting for process") == 1

    monkeypatch.setattr("launch.storage.time.sleep", lambda seconds: monkeypatch.setattr(storage, "_STALE_S", -1.0))
    other = Mirror(url, "a")
    other.open(patient=True)
    assert "taken over from process" in caplog.text
    with pytest.raises(LockLost):
        mirror._hold()
    other.close()


def test_a_writer_that_was_killed_here_is_followed_at_once(tmp_path: Path, machine: Callable[[str], None]):
    script = f"from launch.storage import Mirror\nMirror('file://{tmp_path}/remote', 'a').open()\nprint('open', flush=True)\nimport time; time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "open\n"
    with pytest.raises(StorageError, match=f"in use by process {child.pid} "):
        Mirror(f"file://{tmp_path}/remote", "a").open()
    child.send_signal(signal.SIGKILL)
    child.wait()
    mirror = Mirror(f"file://{tmp_path}/remote", "a")
    mirror.open()
    mirror.close()


def test_storage_that_fails_is_said_and_asked_again_and_raised_at_the_end(
    url: str, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def unplugged(self: Store, name: str, put: object) -> None:
        raise ConnectionError("no route to host")

    words = ["name=a", "device=cpu", "train.keep_checkpoints=2"]
    made = plan(load("quickstart", overrides=words))
    with (
        pytest.raises(StorageError, match=r"cannot write .*no route to host.*All of the run is in .*with --resume, here, sends it"),
        run_storage(url, "a") as (runs, mirror),
        Run.create(made.recipe, runs, mirror=mirror) as run,
    ):
        steps(run, 1)
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(Store, "_put", unplugged)
            steps(run, 2)
        assert "no route to host); sent again with the next checkpoint" in caplog.text and manifests(url) == ["step-1"]
        steps(run, 3)
        assert manifests(url) == ["step-1", "step-2", "step-3"][-len(checkpoint.finished(run.folder / "checkpoints")) :]
        monkeypatch.setattr(Store, "_put", unplugged)
    assert json.loads(Store(url, "a").read("status.json") or b"")["state"] == "running"
    monkeypatch.undo()
    monkeypatch.setattr(storage, "_GONE", ())
    monkeypatch.setenv("LACONIC_CACHE", str(runs.parents[1]))
    Store(url, "a").remove(["lock"])
    said = CliRunner().invoke(cli.app, ["train", "quickstart", *words, "--runs", url, "--resume"])
    assert (said.exit_code, f"{url}/a is complete" in " ".join(said.output.split())) == (0, True), said.output
    assert json.loads(Store(url, "a").read("status.json") or b"")["state"] == "finished"


def test_a_broken_checkpoint_there_is_passed_over_and_a_broken_record_refused(
    url: str, machine: Callable[[str], None], caplog: pytest.LogCaptureFixture
):
    with run_storage(url, "a") as (runs, mirror), Run.create(recipe(), runs, mirror=mirror) as run:
        steps(run, 1, 2)
    Store(url, "a").write("checkpoints/step-2/model.safetensors", b"w" * 1000 + b"?")
    Store(url, "a").write("status.json", b"{}")
    machine("second")
    with pytest.raises(StorageError, match=r"status.json is not what was sent \(SHA-256 differs\)"):
        fetched(f"{url}/a")
    index = Store(url, "a").json("mirror.json")
    assert index is not None
    del index["files"]["status.json"]
    Store(url, "a").write("mirror.json", json.dumps(index).encode())
    with caplog.at_level(logging.WARNING), run_storage(url, "a", resume=True) as (runs, _):
        assert checkpoint.latest(runs / "a/checkpoints") == runs / "a/checkpoints/step-1"
    assert "skipped a broken checkpoint: checkpoint checkpoints/step-2: the content of model.safetensors" in caplog.text


@pytest.mark.parametrize("name", ["../../../out", "evals/../../../../out", "/out", "//out"])
def test_a_name_there_that_leads_out_of_the_folder_is_never_written(
    name: str, machine: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(Store, "read", lambda self, what, read=Store.read: b"" if what.endswith("out") else read(self, what))
    url, wrote = f"memory://{tmp_path.name}", []
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: wrote.append(path))
    Store(url, "a").write("mirror.json", json.dumps({"files": {name: [hashlib.sha256(b"").hexdigest()]}}).encode())
    with pytest.raises(StorageError, match="leads out of"):
        fetched(f"{url}/a")
    with pytest.raises(StorageError, match="leads out of"), run_storage(url, "a", resume=True):
        raise AssertionError
    Store(url, "a").write("mirror.json", b'{"files": {}}')
    Store(url, "a").write("checkpoints/step-1/manifest.json", json.dumps({"files": {name: {}}, "meta": {}}).encode())
    with pytest.raises(StorageError, match="leads out of"), run_storage(url, "a", resume=True):
        raise AssertionError
    assert wrote == []


def test_an_index_that_is_anothers_is_none(url: str, machine: Callable[[str], None]):
    for content in (b'{"name": "a"}', b'{"files": []}', b'{"files": {"a": null}}'):
        Store(url, "a").write("mirror.json", content)
        with pytest.raises(StorageError, match="no run there"):
            fetched(f"{url}/a")


def test_reports_fetch_the_record_alone_and_only_what_changed(url: str, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch):
    with run_storage(url, "a") as (runs, mirror), Run.create(recipe(), runs, mirror=mirror) as run:
        steps(run, 1, 2)
        folder = fetched(f"{url}/a/")
        files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert files == {
            *("recipe.yaml", "environment.json", "metrics.jsonl", "status.json", "evals/step-1.json", "evals/step-2.json", "samples/step-00001.parquet"),
            *("checkpoints/step-1/manifest.json", "checkpoints/step-2/manifest.json"),
        }  # fmt: skip
        assert folder.parts[-2:] == (url.rpartition("/")[2], "a") and not (folder / "checkpoints/step-2/model.safetensors").exists()
        (folder / "report.html").write_text("")
        (run.folder / "evals/step-1.json").unlink()
        steps(run, 3)
        read = []
        original = Store.read
        monkeypatch.setattr(Store, "read", lambda self, name: read.append(name) or original(self, name))
        assert fetched(f"{url}/a") == folder
        assert sorted(read) == ["evals/step-3.json", "metrics.jsonl", "mirror.json", "samples/step-00002.parquet", "status.json"]
        assert (folder / "report.html").exists() and not (folder / "evals/step-1.json").exists()
        assert [path.name for path in checkpoint.finished(folder / "checkpoints")] == ["step-2", "step-3"]
    done = CliRunner().invoke(cli.app, ["report", f"{url}/a", "--format", "md", "--out", str(runs / "report.md")])
    assert done.exit_code == 0 and (runs / "report.md").read_text().startswith("# a\n"), done.output


def test_another_run_of_the_name_is_replaced_when_told_to_and_only_then(url: str, machine: Callable[[str], None]):
    with run_storage(url, "a") as (runs, mirror), Run.create(recipe(keep=9), runs, mirror=mirror) as run:
        steps(run, 1, 2, 3)
    machine("second")
    with pytest.raises(ValueError, match="refused"), run_storage(url, "a", overwrite=True):
        raise ValueError("refused before it begins")
    assert len(manifests(url)) == 3
    with run_storage(url, "a", overwrite=True) as (runs, mirror), Run.create(recipe(), runs, overwrite=True, mirror=mirror) as run:
        run.mirror()
        assert manifests(url) == [] and there(url, "samples") == []
        steps(run, 1)
    assert manifests(url) == ["step-1"]
    with pytest.raises(StorageError, match="/b: no such run to resume"), run_storage(url, "b", resume=True):
        raise AssertionError
    with pytest.raises(StorageError, match="/b: no run there"):
        fetched(f"{url}/b")


def test_doubled_slashes_name_one_place(machine: Callable[[str], None], tmp_path: Path):
    """Some storages list `bucket//runs` otherwise than they read it."""
    for here in ("memory://doubled//runs/", f"file://{tmp_path}//runs//"):
        store = Store(here, "a")
        store.write("x/y", b"1")
        assert store.names() == {"x/y"} and store.read("x/y") == b"1"
    assert (tmp_path / "runs" / "a" / "x" / "y").is_file()


def test_what_a_server_of_files_has_is_read_over_http(machine: Callable[[str], None], tmp_path: Path):
    with run_storage(f"file://{tmp_path}/remote", "a") as (runs, mirror), Run.create(recipe(), runs, mirror=mirror) as run:
        steps(run, 1, 2)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *given: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "remote")) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        found = fetched(f"http://127.0.0.1:{server.server_port}/a")
        server.shutdown()
    for name in ("metrics.jsonl", "status.json", "samples/step-00001.parquet", "checkpoints/step-2/manifest.json"):
        assert (found / name).read_bytes() == (run.folder / name).read_bytes()


def test_a_url_that_cannot_be_used_is_one_sentence(machine: Callable[[str], None], tmp_path: Path):
    (tmp_path / "file").write_text("")
    refused = {
        "nope://x/y": "fsspec knows no nope://",
        "http://127.0.0.1:1/runs": "--runs: http://127.0.0.1:1/runs: http can be read, not written: name a folder, or storage by",
        "HTTPS://host/runs": "http can be read, not written",
        "NOPE://x/y": "fsspec knows no nope://",
        "sftp://host/x": "sftp:// needs another package (SFTPFileSystem requires",
        "dbfs://x/a": "dbfs://x/a: fsspec cannot open it (",
        "file://relative/x": "write an absolute path, file:///..., or the plain path of a folder",
        "ftp://me:secret@host/x": "a password does not belong into a URL",
        "simplecache::s3://x": "a chain of file systems",
        "s3://:secret@bucket/x": "a password does not belong into a URL",
        "s3://": "'s3://' names no place: name a folder, or storage with its bucket or folder",
        " ": "' ' names no place",
        f"file://{tmp_path}/file": "cannot read lock (NotADirectoryError",
    }
    if importlib.util.find_spec("s3fs") is None:
        refused["s3://bucket/runs"] = "s3://bucket/runs: s3:// needs the package s3fs: pip install s3fs"
    for where, said in refused.items():
        with pytest.raises(StorageError) as caught, run_storage(where, "a"):
            raise AssertionError
        assert said in str(caught.value) and "secret" not in str(caught.value)


def test_ranks_on_other_nodes_need_a_cache_folder_that_is_shared(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LACONIC_CACHE", raising=False)
    here, apart = Placement((), {}, {"learner": [0, 0]}), Placement((), {}, {"learner": [0, 1], "engine": [2]})
    refuse_unshared("s3://x", [here])
    refuse_unshared("runs", [apart])
    with pytest.raises(StorageError, match="learner ranks on other nodes must see: name one that all do in LACONIC_CACHE"):
        refuse_unshared("s3://x", [here, apart])
    monkeypatch.setenv("LACONIC_CACHE", "/shared")
    refuse_unshared("s3://x", [apart])


def test_a_folder_may_go_while_it_is_listed(tmp_path: Path, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch):
    listed = os.scandir  # of `rung.parts`, as if it were gone by then
    monkeypatch.setattr(os, "scandir", lambda where: listed(f"{where}/gone" if str(where).endswith(".parts") else where))
    with run_storage(f"file://{tmp_path}/remote", "a") as (runs, push):
        (runs / "a/evals/rung.parts").mkdir(parents=True)
        push()


def test_a_lock_is_renewed_until_the_run_is_let_go(url: str, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch):
    assert 3 * storage._RENEW_S <= storage._STALE_S  # one that could not be sent, or two, lose no run
    monkeypatch.setattr(storage, "_RENEW_S", 0.05)
    mirror, store = Mirror(url, "a"), Store(url, "a")
    mirror.open()
    first, until = store.json("lock") or {}, time.monotonic() + 30
    while store.json("lock") == first and time.monotonic() < until:
        time.sleep(0.02)
    assert (store.json("lock") or {})["renewed"] > first["renewed"]
    mirror.close()
    time.sleep(0.2)
    assert there(url) == []
