"""The objects of one run on remote storage, through fsspec: s3://, gs://, file:// and whatever else it reaches.

Claim: an object is there whole or not at all, and what fails is tried again before it is one sentence. Simplification: credentials and endpoints are read as the storage's own tools do.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import known_implementations

_ATOMIC = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"}  # where an object is there whole or not at all
_AGAIN_S = (1.0, 5.0)  # before a call that failed is tried again


class StorageError(RuntimeError):
    """Storage that cannot be reached, or does not hold what it should; the message says what to do."""


def below(folder: Path, name: str) -> Path:
    """Where an object of a run lies in a folder here. Raises StorageError: its name, which storage says, leads out of that."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0].startswith("/") or ".." in parts:
        raise StorageError(f"{name!r}: no file of a run has such a name; it leads out of {folder}, so it is not fetched (who wrote there?)")
    return folder / name


class Store:
    """The objects of one run, by their paths in its folder. Every method raises StorageError, after it tried again."""

    def __init__(self, url: str, name: str) -> None:
        scheme = urlsplit(url).scheme
        url = scheme + url[len(scheme) :]  # S3:// is s3://
        self.shown = f"{url.rstrip('/')}/{name}"
        try:
            self._files, root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            known = known_implementations[scheme]
            package = known["class"].partition(".")[0]
            needs = (
                f"the package {package}: pip install {package}" if package != "fsspec" else f"another package ({known.get('err', error)})"
            )
            raise StorageError(f"{url}: {scheme}:// needs {needs}") from error
        except ValueError as error:
            raise StorageError(f"{url}: fsspec knows no {scheme}://; s3://, gs:// and file:// are some that it knows") from error
        except (TypeError, OSError) as error:  # options of its own that no URL says; a server that is not there
            raise StorageError(
                f"{url}: fsspec cannot open it ({' '.join(str(error).split()):.200}); s3://, gs:// and file:// need nothing more"
            ) from error
        self._root = re.sub("(?<!:)/{2,}", "/", f"{root}/{name}")  # some storages list a doubled slash otherwise than they read it
        self._is_atomic = scheme in _ATOMIC

    def names(self) -> set[str]:
        """All there is."""
        self._files.invalidate_cache()
        found = self._tried("list", "", lambda: self._files.find(self._root))
        return {name.removeprefix(f"{self._root}/") for name in found or ()}

    def read(self, name: str) -> bytes | None:
        """None: there is none."""
        content: bytes | None = self._tried("read", name, lambda: self._files.cat_file(self._at(name)))
        return content

    def fetch(self, name: str, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._tried("read", name, lambda: self._files.get_file(self._at(name), str(file)))

    def write(self, name: str, content: bytes) -> None:
        self._tried("write", name, lambda: self._put(name, lambda at: self._files.pipe_file(at, content)))

    def send(self, file: Path, name: str) -> None:
        self._tried("write", name, lambda: self._put(name, lambda at: self._files.put_file(str(file), at)))

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._tried("remove", name, partial(self._files.rm_file, self._at(name)))
            for folder in PurePosixPath(name).parents[:-1] if isinstance(self._files, LocalFileSystem) else ():
                # Of other storages an empty folder is none, or they remove it with what is in it.
                with suppress(OSError):  # something is left in it
                    self._files.rmdir(self._at(str(folder)))

    def json(self, name: str) -> dict[str, Any] | None:
        """An object of ours. None: there is none, or another's."""
        try:
            found = json.loads(self.read(name) or b"null")
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _put(self, name: str, put: Callable[[str], Any]) -> None:
        """Where a file may be there by half it appears by renaming it."""
        if self._is_atomic:
            put(self._at(name))
            return
        self._files.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
        put(self._at(f"{name}.part"))
        self._files.mv(self._at(f"{name}.part"), self._at(name))

    def _tried(self, what: str, name: str, call: Callable[[], Any]) -> Any:
        """What a call returns, None of something that is not there."""
        for wait in (*_AGAIN_S, None):
            try:
                return call()
            except FileNotFoundError as error:
                if what != "write":
                    return None
                failed: Exception = error
            except Exception as error:  # each storage has classes of its own
                failed = error
            if wait is not None:
                time.sleep(wait)
        why = (str(failed).strip().splitlines() or [""])[0]
        raise StorageError(f"{self.shown}: cannot {what} {name or 'what is there'} ({type(failed).__name__}: {why:.300})") from failed
