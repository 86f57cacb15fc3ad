"""Checkpoints that are whole or invisible: a folder appears under its name only after every byte of it was read back.

`write` fills a temporary folder beside the target, flushes it to the disk, seals it with a manifest (size and SHA-256 of
every file, and what the caller wants to know again on resume), reads it back and renames it. A full disk, a crash and a
second writer therefore leave the older checkpoints as they were. What is in the folder is the caller's business.
With `Background` the caller waits for the filling alone, and flushing, hashing, reading back and renaming go on beside it.
Simplification: one writer process fills the folder, or waits for those that do (ranks on a shared file system).
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

MANIFEST = "manifest.json"
_STEP = re.compile(r"step-(0|[1-9]\d*)")
_TEMP = re.compile(r"\.tmp-step-\d+-(\d+)")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

log = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """A checkpoint that could not be written, or is not what its manifest says."""


def write(folder: Path, fill: Callable[[Path], None], meta: dict[str, Any] | None = None) -> Path:
    """Make `folder` appear at once, whole and verified, or not at all.

    Args:
        folder: final place, e.g. `checkpoints/step-40`. A broken folder of that name is replaced, a whole one never.
        fill: writes the files into the folder it is given.
        meta: JSON values kept in the manifest (step, version, ranks, ZeRO stage, recipe, template and tokenizer hashes); `step-40` has step 40 in any case.

    Raises:
        CheckpointError: anything failed; nothing of the attempt remains and older checkpoints are untouched.
    """
    temp = _filled(folder, fill)
    _finish(folder, temp, meta or {})
    return folder


class Background:
    """Writes checkpoints of which the caller waits for the filling alone: sealing, reading back and renaming go on beside it, one at a time.

    Use as a context manager: the last one is waited for however it is left. What failed is raised by the next call, or at the end.
    """

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._error: Exception | None = None

    def write(self, folder: Path, fill: Callable[[Path], None], meta: dict[str, Any], then: Callable[[], None]) -> None:
        """As the function `write`; returns once `fill` has.

        Args:
            then: called behind it, in the background too, when the checkpoint stands.
        """
        self.wait()
        temp = _filled(folder, fill)

        def rest() -> None:
            try:
                _finish(folder, temp, meta)
                then()
            except Exception as error:  # whatever it is, the caller is to know
                self._error = error

        self._thread = Thread(
            target=rest, name=f"seal {folder.name}", daemon=True
        )  # a process that is told to end twice need not wait for it
        self._thread.start()

    def check(self) -> None:
        """Raises CheckpointError, or what `then` raised: the one before could not be written. Does not wait."""
        if self._thread is None or not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Until the one before stands; raises as `check`."""
        if self._thread is not None:
            self._thread.join()
        self._thread, error, self._error = None, self._error, None
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.wait()
        except Exception as failed:
            if error is None:
                raise
            error.add_note(str(failed))


def _filled(folder: Path, fill: Callable[[Path], None]) -> Path:
    """A temporary folder beside `folder` with what `fill` wrote."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if _STEP.fullmatch(folder.name):  # anything else may lie in a folder that is not ours to tidy
        _remove_stale(folder.parent)
    if whole(folder):
        raise CheckpointError(f"checkpoint {folder} exists already and is whole: does another process write to this run? It is untouched")
    temp = folder.parent / f".tmp-{folder.name}-{os.getpid()}"
    with _gone_if_it_fails(folder, temp):
        temp.mkdir()
        fill(temp)
    return temp


def _finish(folder: Path, temp: Path, meta: dict[str, Any]) -> None:
    """Seal a filled folder, read it back and give it its name."""
    named = _STEP.fullmatch(folder.name)
    with _gone_if_it_fails(folder, temp):
        _seal(temp, ({"step": int(named[1])} if named else {}) | meta)
        verify(temp)
        if folder.is_symlink() and fault(folder) is not None:
            folder.unlink()  # what it points to is not ours
        elif folder.exists() and fault(folder) is not None:
            shutil.rmtree(folder)
        os.rename(temp, folder)  # fails if another writer was faster: a folder that holds files is never replaced
        _sync(folder.parent)


@contextmanager
def _gone_if_it_fails(folder: Path, temp: Path) -> Iterator[None]:
    """Nothing of an attempt stays that fails. Raises CheckpointError, whatever went wrong."""
    try:
        yield
    except Exception as error:  # `fill` is the caller's: torch and safetensors report a full disk in classes of their own
        words = _explain(folder, temp, error)
        shutil.rmtree(temp, ignore_errors=True)
        raise CheckpointError(words) from error
    except BaseException:
        shutil.rmtree(temp, ignore_errors=True)
        raise


def metadata(folder: Path) -> dict[str, Any]:
    """The `meta` a checkpoint was written with; digests are not checked."""
    return _manifest(folder)["meta"]


def verify(folder: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        CheckpointError: naming the first file that is missing, has another size or another digest.
    """
    files = _manifest(folder)["files"]
    for name, entry in files.items():
        if not (folder / name).is_file():
            raise CheckpointError(f"checkpoint {folder}: {name} is missing")
        size = (folder / name).stat().st_size
        if size != entry["size"]:
            raise CheckpointError(f"checkpoint {folder}: {name} has {size} bytes, its manifest says {entry['size']}")
    digests = _digests(folder, list(files))
    for name, entry in files.items():
        if digests[name] != entry["sha256"]:
            raise CheckpointError(f"checkpoint {folder}: the content of {name} is not what was written (SHA-256 differs from the manifest)")


def whole(folder: Path) -> bool:
    """Whether a folder is there and is what its manifest says."""
    return folder.exists() and fault(folder) is None


def fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, None if it is whole."""
    try:
        verify(folder)
    except (CheckpointError, OSError) as error:
        return str(error)
    return None


def latest(checkpoints: Path) -> Path | None:
    """The whole `step-N` folder with the highest N, None if there is none. Broken ones are skipped with a warning."""
    for folder in reversed(finished(checkpoints)):
        if (why := fault(folder)) is None:
            return folder
        log.warning("skipped a broken checkpoint: %s", why)
    return None


def prune(newest: Path, keep: int, spared: Collection[Path] = ()) -> None:
    """Delete all but the newest `keep` checkpoints and those that are spared, after the newest was read back. What is a link to elsewhere stays, and that is said.

    Args:
        newest: the one just written. Higher numbers are of a run that went back behind them, as they were broken: they stay until they are written again.

    Raises:
        CheckpointError: the newest is broken; nothing is deleted.
    """
    folders = finished(newest.parent)
    folders = folders[: folders.index(newest) + 1]
    if not (gone := [folder for folder in folders[:-keep] if folder not in spared]):
        return
    verify(newest)
    for folder in gone:
        if folder.is_symlink():
            log.warning("checkpoint %s is a link and stays: remove it and what it points to once nobody needs it", folder)
            continue
        hidden = newest.parent / f".tmp-{folder.name}-{os.getpid()}"
        try:
            shutil.rmtree(hidden, ignore_errors=True)  # what was left of it the last time
            os.rename(folder, hidden)  # a kill in the middle of the deletion must not leave half a checkpoint in sight
            shutil.rmtree(hidden)
        except OSError as error:  # somebody reads it over NFS, say; what is left goes with the next one
            log.warning("checkpoint %s could not be removed: %s", folder, error)


def finished(checkpoints: Path) -> list[Path]:
    """`step-N` folders in the order of N, whole or not. Temporary folders have other names."""
    if not checkpoints.is_dir():
        return []
    numbered = [(int(match[1]), folder) for folder in checkpoints.iterdir() if (match := _STEP.fullmatch(folder.name))]
    return [folder for _, folder in sorted(numbered)]


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        files, meta = manifest["files"], manifest["meta"]
        if not isinstance(meta, dict) or not all({"size", "sha256"} <= entry.keys() for entry in files.values()):
            raise TypeError("meta must be an object, each of files one with size and sha256")
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {folder}: there is no {MANIFEST}, so it was never finished or is none of ours") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {folder}: {MANIFEST} cannot be read: {error}") from error
    if (named := _STEP.fullmatch(folder.name)) and meta.get("step") != int(named[1]):
        raise CheckpointError(f"checkpoint {folder}: {MANIFEST} says step {meta.get('step')}, so it is another's copy or was renamed")
    return manifest


def _seal(folder: Path, meta: dict[str, Any]) -> None:
    """Write the manifest and flush everything: files, then the manifest, then folders from the inside out."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    digests = _digests(folder, names)
    files = {name: {"size": (folder / name).stat().st_size, "sha256": digests[name]} for name in names}
    for name in names:
        _sync(folder / name)
    (folder / MANIFEST).write_text(json.dumps({"meta": meta, "files": files}, indent=1, allow_nan=False))
    _sync(folder / MANIFEST)
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        _sync(path)
    _sync(folder)


def _digests(folder: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of files, streamed, several at a time (hashing releases the interpreter lock)."""

    def digest(name: str) -> str:
        with open(folder / name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(names, pool.map(digest, names), strict=True))


def _sync(path: Path) -> None:
    """Flush a file or folder, and drop it from the page cache so that reading it back reads the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        if hasattr(os, "posix_fadvise") and path.is_file():
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _remove_stale(checkpoints: Path) -> None:
    """Delete temporary folders of steps whose writer is dead (or had our process id: two writes never overlap in a process)."""
    for folder in checkpoints.iterdir():
        match = _TEMP.fullmatch(folder.name)
        if match and (int(match[1]) == os.getpid() or not _alive(int(match[1]))):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _explain(folder: Path, temp: Path, error: Exception) -> str:
    """One sentence each: what failed, the bytes, what still stands, what to do."""
    written, free = _bytes(temp), shutil.disk_usage(folder.parent).free
    standing = latest(folder.parent)
    needed = max(written, _bytes(standing) if standing else 0)
    full = (isinstance(error, OSError) and error.errno in _FULL) or free < 1 << 20 or free + written < needed
    kept = f"{standing} is untouched" if standing else "no older checkpoint exists"
    remedy = f"free space for at least {max(needed, free + 1):,} bytes" if full else "remove the cause"
    return (
        f"checkpoint {folder} was not written: {error}. {written:,} bytes were written, {free:,} are free. {kept}: {remedy} and try again"
    )


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
