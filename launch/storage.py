"""Run folders on remote storage (`--runs s3://bucket/runs`): a run is written in the cache folder and mirrored to URL/NAME, through fsspec.

Claim: what is read from there is whole. A checkpoint's manifest is sent behind its files and deleted before them, and a folder without one is none; `mirror.json` has the digests of all other
files, old and new ones while these are sent. What could not be sent is sent the next time, since each time everything is that is missing. One writer: the object `lock` says who, renewed each
minute; one that was not for five is taken over, and who lost it stops. Simplification: clocks agree within minutes; a file of the record fits memory; files of
TensorBoard and W&B and what TRL's trainers keep to go on in the middle of a stage are not sent.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from threading import Event, Lock, Thread
from typing import Any

from launch.machine import cache_folder
from launch.objects import StorageError, Store, below
from launch.placement import Placement
from rl.checkpoint import MANIFEST, CheckpointError, verify

INDEX, LOCK = "mirror.json", "lock"
_RENEW_S, _STALE_S, _LOOK_S = 60.0, 300.0, 5.0
_STEP = re.compile(r"(.*/)step-(\d+)")
_ABSENT = ""  # among digests: the file may not be there yet
_GONE = ("memory",)  # protocols of storage that does not outlive the process
_LEFT_OUT = ("lock", "tensorboard", "wandb", "trainer")  # names of files and folders in a run that stay here

log = logging.getLogger(__name__)


class LockLost(StorageError):
    """Another process writes to the run."""


def is_url(where: str, written: bool = False) -> bool:
    """Whether a place of runs is remote storage. Raises StorageError where none can be: before anything is sent, shown or asked."""
    protocol, is_remote, place = where.partition("://")
    if not (place.strip("/") if is_remote else where.strip()):
        raise StorageError(f"--runs: {where!r} names no place: name a folder, or storage with its bucket or folder (s3://bucket/runs)")
    if is_remote and re.match("[^/]*:[^/]*@", place):
        raise StorageError(
            "--runs: a password does not belong into a URL, where others see it; credentials are read as the storage's own tools read them"
        )
    if is_remote and "::" in where:
        raise StorageError(f"--runs: {where}: a chain of file systems is not written to; name the storage itself")
    if written and protocol.lower() in _GONE:
        raise StorageError(f"--runs: {where} is gone with the process that writes it: name a folder, or storage that stays (s3://, gs://)")
    if written and where.lower().startswith(("http://", "https://")):
        raise StorageError(f"--runs: {where}: http can be read, not written: name a folder, or storage by its own protocol (s3://, gs://)")
    if where.startswith("file://") and not where.startswith("file:///"):
        raise StorageError(f"{where}: write an absolute path, file:///..., or the plain path of a folder")
    return bool(is_remote)


def local(where: str) -> Path:
    """A run or evaluation as a folder here: of a URL what reports read is fetched, as far as it is not here. Raises StorageError."""
    return fetched(where) if is_url(where) else Path(where)


def refuse_unshared(runs: str, placements: Iterable[Placement]) -> None:
    """Raises StorageError: learner ranks would write into another node's cache folder."""
    apart = any(node > 0 for placed in placements for node in placed.at.get("learner", ()))
    if is_url(runs) and apart and "LACONIC_CACHE" not in os.environ:
        raise StorageError(
            f"--runs: {runs} is written by way of a folder, which learner ranks on other nodes must see: name one that all do in LACONIC_CACHE"
        )


@contextmanager
def run_storage(
    runs: str, name: str, resume: bool = False, overwrite: bool = False, patient: bool = False
) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Where a run is written, and what is to be called whenever something of it is to be kept: a folder of runs, or remote storage by way of one.

    Args:
        patient: wait for the lock of a process that may have been taken away with its node; one that renews it is refused as ever. To resume what is not there
            is then to begin it.

    Raises:
        StorageError: it cannot be reached, another process writes there, the run is there and neither flag is set, or at the end something could not be sent.
    """
    if not is_url(runs, written=True):
        yield Path(runs), lambda: None
        return
    mirror = Mirror(runs, name)
    mirror.open(resume, overwrite, patient)
    try:
        yield mirror.folder.parent, mirror.push
    except BaseException as error:
        try:
            mirror.close()
        except StorageError as failed:
            error.add_note(str(failed))
        raise
    mirror.close()


class Mirror:
    """A run that is written here and kept on remote storage.

    Attributes:
        folder: where it is written.
    """

    def __init__(self, url: str, name: str) -> None:
        self._store = Store(url, name)
        self.folder = _cached("runs", url) / name
        self._session = secrets.token_hex(8)
        self._since = time.time()
        self._sessions = self.folder.with_name(f"{name}.sessions.json")  # those that wrote the folder here
        self._sent: dict[str, list[str]] = {}  # files of the record there, with the digests that each may have
        self._had: dict[str, bytes] = {}  # checkpoints that are there and here, or were here once, with their manifests
        self._replaces = self._is_armed = False
        self._ended, self._holding, self._pushing = Event(), Lock(), Lock()

    def open(self, resume: bool = False, overwrite: bool = False, patient: bool = False) -> None:
        """Take the run for this process, and have here what `--resume` goes on from. Raises StorageError."""
        self._take(patient)
        try:
            there = _index(self._store)
            self._sent = (there or {}).get("files", {})
            if resume and (there or not patient or (self.folder / "recipe.yaml").is_file()):
                self._resume(there)
            elif there and not overwrite:
                raise StorageError(
                    f"{self._store.shown} exists already: go on with it (--resume), replace it (--overwrite) or choose another name (name=...)"
                )
            self._replaces = overwrite
            self._sessions.parent.mkdir(parents=True, exist_ok=True)
            self._sessions.write_text(json.dumps([*(self._own_sessions() if resume else []), self._session]), encoding="utf-8")
        except BaseException:
            with suppress(StorageError):
                self._let_go()
            raise
        Thread(target=self._renew, name="lock of the run", daemon=True).start()

    def push(self) -> None:
        """Send what is missing there, and remove what was removed here. What storage refuses is said, and sent the next time. Raises LockLost."""
        self._is_armed = True
        try:
            self._push()
        except LockLost:
            raise
        except StorageError as error:
            log.warning("%s; sent again with the next checkpoint, or at the end", error)

    def close(self) -> None:
        """Send the rest and let go. Raises StorageError: it could not be sent."""
        try:
            if self._is_armed and (self.folder / "recipe.yaml").is_file():
                self._push()
        except LockLost:
            raise
        except StorageError as error:
            raise StorageError(f"{error}. All of the run is in {self.folder}; the same command with --resume, here, sends it") from error
        finally:
            self._ended.set()
        self._let_go()

    def _let_go(self) -> None:
        """Take the lock away, unless it is another's by now."""
        with self._holding:
            if (self._store.json(LOCK) or {}).get("session") == self._session:
                self._store.remove([LOCK])

    def _push(self) -> None:
        with self._pushing:
            self._hold()
            there = self._store.names()
            record = self._send_record()  # before the checkpoints, which it must reach
            own = {folder: self._send_checkpoint(folder, there) for folder in self._checkpoints()}
            surplus = [name for name in there if name not in (INDEX, LOCK) and name not in record and not self._stays(name, own, there)]
            self._store.remove(sorted(surplus, key=lambda name: (not name.endswith(f"/{MANIFEST}"), name)))
            self._replaces = False

    def _send_record(self) -> set[str]:
        """Send files that changed; names of all."""
        digests, changed = {}, {}
        for path in sorted(_files(self.folder)):
            inside = path.relative_to(self.folder)
            hidden = any(part.startswith(".") or part in _LEFT_OUT for part in inside.parts) or path.suffix == ".tmp"
            if hidden or not path.is_file() or any((self.folder / parent / MANIFEST).is_file() for parent in inside.parents):
                continue
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue  # it was one of several parts, which are one now
            name = inside.as_posix()
            digests[name] = _digest(content)
            if self._sent.get(name) != [digests[name]]:
                changed[name] = content
        if changed or self._sent.keys() != digests.keys():
            if self._sent:  # else there is no run yet, before all of its first record is there
                self._write_index(
                    {name: list(dict.fromkeys([*self._sent.get(name, [_ABSENT]), digest])) for name, digest in digests.items()}
                )
            for name, content in changed.items():
                self._store.write(name, content)
            self._write_index({name: [digest] for name, digest in digests.items()})
        return set(digests)

    def _write_index(self, files: dict[str, list[str]]) -> None:
        self._store.write(INDEX, json.dumps({"session": self._session, "files": files}, indent=1).encode())
        self._sent = files

    def _checkpoints(self) -> list[str]:
        """Those that are sealed here, the oldest first."""
        manifests = [path.relative_to(self.folder) for path in _files(self.folder) if path.name == MANIFEST]
        return sorted((path.parent.as_posix() for path in manifests if not any(part.startswith(".") for part in path.parts)), key=_order)

    def _send_checkpoint(self, folder: str, there: set[str]) -> set[str]:
        """Send a checkpoint unless it is there; the names of its objects."""
        content = (self.folder / folder / MANIFEST).read_bytes()
        names = {f"{folder}/{name}" for name in json.loads(content)["files"]}
        manifest = f"{folder}/{MANIFEST}"
        if self._had.get(folder) != content and not (manifest in there and self._store.read(manifest) == content):
            self._store.remove([manifest])  # of a former attempt at this step
            for name in sorted(names):
                self._store.send(self.folder / name, name)
            self._store.write(manifest, content)
        self._had[folder] = content
        return names | {manifest}

    def _stays(self, name: str, own: dict[str, set[str]], there: set[str]) -> bool:
        """Whether something there that is not of the record is of a checkpoint that stays: one that is here, or one that never was and is newer than those let go."""
        above = map(str, PurePosixPath(name).parents)
        folder = next((parent for parent in above if f"{parent}/{MANIFEST}" in there or parent in own), None)
        if folder is None or folder in own:
            return folder is not None and name in own[folder]
        let_go = [_order(one) for one in self._had.keys() - own.keys()]
        newer = not any(one[0] == _order(folder)[0] and one > _order(folder) for one in let_go)
        return not self._replaces and folder not in self._had and newer

    def _take(self, patient: bool) -> None:
        held, first = self._store.json(LOCK), None
        while held and (why := _alive(held)):
            if not patient or held != (first or held):
                raise StorageError(
                    f"{self._store.shown} is in use by {_owner(held)}, {why}: wait for it or stop it, or choose another name (name=...). A lock that nobody renewed for "
                    f"{_STALE_S / 60:g} minutes is taken over by --resume"
                )
            if first is None:
                log.warning("%s: waiting for %s, %s, to renew it or to be gone", self._store.shown, _owner(held), why)
            first = held
            time.sleep(_LOOK_S)
            held = self._store.json(LOCK)
        if held:
            log.warning("%s: taken over from %s, which left it locked", self._store.shown, _owner(held))
        self._write_lock()
        if (found := self._store.json(LOCK) or {}).get("session") != self._session:
            raise StorageError(
                f"{self._store.shown} is in use by {_owner(found)}, which came at the same moment; choose another name (name=...)"
            )

    def _write_lock(self) -> None:
        of_us = {"session": self._session, "user": _user(), "host": _host(), "process": os.getpid()}
        self._store.write(LOCK, json.dumps(of_us | {"since": self._since, "renewed": time.time()}).encode())

    def _hold(self) -> None:
        """Renew the lock, unless the run was let go of. Raises LockLost."""
        with self._holding:
            if self._ended.is_set():
                return
            held = self._store.json(LOCK)
            if held and held.get("session") != self._session:
                raise LockLost(
                    f"{self._store.shown}: {_owner(held)} has taken the run over, as its lock was not renewed from here: nothing more is written there"
                )
            self._write_lock()

    def _renew(self) -> None:
        while not self._ended.wait(_RENEW_S):
            try:
                self._hold()
            except StorageError as error:
                log.warning("%s", error)

    def _own_sessions(self) -> list[str]:
        try:
            found: list[str] = json.loads(self._sessions.read_text(encoding="utf-8"))
            return found
        except (OSError, ValueError):
            return []

    def _resume(self, there: dict[str, Any] | None) -> None:
        """Have the newest state here: what is here, if the last that wrote there wrote here, too, else what is there."""
        is_here = (self.folder / "recipe.yaml").is_file()
        if is_here and (there is None or there.get("session") in self._own_sessions()):
            self._is_armed = True  # what could not be sent is, even of a finished run
            return
        if there is None:
            raise StorageError(f"{self._store.shown}: no such run to resume; leave out --resume to start it")
        log.warning("%s: fetching the record and the newest checkpoint", self._store.shown)
        temp = self.folder.with_name(f".fetched-{self.folder.name}")
        shutil.rmtree(temp, ignore_errors=True)
        for name in there["files"]:
            _fetch_checked(self._store, name, below(temp, name), there["files"][name])
        self._fetch_checkpoints(temp)
        for part in ("samples", "checkpoints", "evals"):
            (temp / part).mkdir(exist_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        os.rename(temp, self.folder)
        self._sessions.unlink(missing_ok=True)
        self._had = {folder: (self.folder / folder / MANIFEST).read_bytes() for folder in self._checkpoints()}

    def _fetch_checkpoints(self, temp: Path) -> None:
        """The newest whole one of each stage, those that are kept as the best, and what other stages made."""
        kept: dict[str, list[str]] = {}
        for name in self._store.names():
            if name.endswith(f"/{MANIFEST}"):
                folder = name.removesuffix(f"/{MANIFEST}")
                kept.setdefault(_order(folder)[0], []).append(folder)
        for parent, folders in kept.items():
            status = temp / parent.removesuffix("checkpoints/") / "status.json"
            best = json.loads(status.read_text(encoding="utf-8")).get("best", []) if status.is_file() else []
            newest = False
            for folder in sorted(folders, key=_order, reverse=True):
                if not newest or PurePosixPath(folder).name in best:
                    newest = _fetch_checkpoint(self._store, folder, temp) or newest


def fetched(url: str) -> Path:
    """What reports read of a run on remote storage, here: its record, without samples of training but the last, and the names of its checkpoints.
    Raises StorageError: it cannot be reached, there is no run, or it does not hold what it says."""
    above, _, name = url.rstrip("/").rpartition("/")
    parts = [part for part in above.partition("://")[2].split("/") if part not in ("", "..")]  # which tell runs of one name apart
    store, target = Store(above, name), _cached("reports", above).joinpath(*parts, name)
    for attempt in range(3):  # a run that goes on changes it meanwhile
        index = _index(store)
        if index is None:
            raise StorageError(f"{url}: no run there (no {INDEX}); name URL/NAME, as `laconic train --runs URL` made it")
        files, there = index["files"], store.names()
        last = max((one for one in files if one.startswith("samples/")), default="")
        wanted = {one for one in files if one == last or not one.startswith("samples/")}
        wanted = {one for one in wanted if not re.search(r"(^|/)(part-[^/]*|[^/]*\.parts/.*)$", one)}
        manifests = {one for one in there if one.endswith(f"/{MANIFEST}")}
        try:
            for one in wanted:
                if not (here := below(target, one)).is_file() or _digest(here.read_bytes()) not in files[one]:
                    _fetch_checked(store, one, here, files[one])
            for one in manifests:
                store.fetch(one, below(target, one))
            break
        except StorageError:
            if attempt == 2:
                raise
            time.sleep(1)
    for path in sorted(target.rglob("*"), reverse=True):
        inside = path.relative_to(target)
        if path.is_file() and len(inside.parts) > 1 and inside.as_posix() not in wanted | manifests:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    return target


def _files(folder: Path) -> list[Path]:
    """All files below a folder; what is taken away while it is looked for is no error, as it is to Path.rglob."""
    return [Path(where, name) for where, _, names in os.walk(folder) for name in names]


def _index(store: Store) -> dict[str, Any] | None:
    """What a run on remote storage consists of. None: there is none, or another's."""
    found = store.json(INDEX)
    files = found.get("files") if found else None
    return found if isinstance(files, dict) and all(isinstance(digests, list) for digests in files.values()) else None


def _fetch_checked(store: Store, name: str, to: Path, digests: Sequence[str]) -> None:
    """Fetch a file of the record. Raises StorageError: it is not what was sent."""
    content = store.read(name)
    if content is None and _ABSENT in digests:
        return
    if content is None or _digest(content) not in digests:
        what = "is missing" if content is None else "is not what was sent (SHA-256 differs)"
        raise StorageError(f"{store.shown}: {name} {what}: put it back, or begin the run anew (--overwrite)")
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(content)


def _fetch_checkpoint(store: Store, folder: str, to: Path) -> bool:
    """Fetch a checkpoint, if what is there is whole."""
    hidden = below(to, folder).parent / f".tmp-{PurePosixPath(folder).name}-{os.getpid()}"
    try:
        store.fetch(f"{folder}/{MANIFEST}", hidden / MANIFEST)
        for name in json.loads((hidden / MANIFEST).read_text(encoding="utf-8"))["files"]:
            store.fetch(f"{folder}/{name}", below(hidden, name))
        verify(hidden)
    except (CheckpointError, OSError, ValueError, KeyError) as error:
        log.warning("%s: skipped a broken checkpoint: %s", store.shown, str(error).replace(str(hidden), folder))
        shutil.rmtree(hidden, ignore_errors=True)
        return False
    os.rename(hidden, to / folder)
    return True


def _order(folder: str) -> tuple[str, int]:
    """The folder that a checkpoint is in, with / behind it, and its number; -1 without one."""
    match = _STEP.fullmatch(folder)
    return (match[1], int(match[2])) if match else (folder.rpartition("/")[0] + "/", -1)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _cached(kind: str, url: str) -> Path:
    return cache_folder(kind) / _digest(url.rstrip("/").encode())[:16]


def _alive(held: dict[str, Any]) -> str:
    """Why a lock counts, in words; "" if its owner is gone."""
    ago = time.time() - float(held.get("renewed", 0))
    if held.get("host") == _host():
        try:
            os.kill(int(held.get("process", 0)), 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
    return f"which renewed its lock {ago:.0f} s ago" if ago < _STALE_S else ""


def _owner(held: dict[str, Any]) -> str:
    since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(float(held.get("since", 0))))
    return f"process {held.get('process')} of {held.get('user')} on {held.get('host')}, since {since}"


def _host() -> str:
    """This machine, and the container on it: where process ids mean the same."""
    space = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{space.stat().st_ino}" if space.exists() else socket.gethostname()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())
