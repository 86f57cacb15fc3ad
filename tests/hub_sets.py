"""Data sets of a hub on loopback: what `datasets` and `huggingface_hub` ask of one to read a set, files of git repositories as GitHub gives them, and nothing else.

A branch names a commit, a commit its files. As the real one answers: https://huggingface.co/docs/hub/api and huggingface_hub's own source.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote


@dataclass
class Sets:
    """What the server holds: of each set its commits with their files, the newest last, and what it was asked."""

    url: str = ""
    commits: dict[str, dict[str, Mapping[str, bytes]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def answer(self, line: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content."""
        self.asked.append(line)
        _, path = line.split(" ", 1)
        if found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(found[1], unquote(found[2]), found[3])
        if found := re.fullmatch(r"/(?!api/)([^/]+/[^/]+)/([0-9a-f]{40}|main)/(.+)", path):  # raw.githubusercontent.com
            return self._file(found[1], found[2], found[3])
        found = re.fullmatch(r"/api/datasets/([^/]+/[^/]+?)(?:/(revision|tree|paths-info)/([^/?]+))?(/[^?]*)?(?:\?.*)?", path)
        if not found or not (commit := self._commit(found[1], unquote(found[3] or "main"))):
            return 404, {"X-Error-Code": self._lacking(found[1] if found else "")}, b"{}"
        files = self.commits[found[1]][commit]
        value: Any = {"id": found[1], "sha": commit, "siblings": [{"rfilename": name} for name in files], "private": False, "tags": []}
        if found[2] == "tree":
            folder = unquote(found[4] or "").strip("/")
            inside = [name for name in files if not folder or name.startswith(f"{folder}/")]
            if not inside:
                return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"
            value = [_entry(name, files[name]) for name in inside]
        elif found[2] == "paths-info":
            asked = json.loads(body)["paths"] if body[:1] == b"{" else parse_qs(body.decode()).get("paths", [])
            value = [_entry(name, files[name]) for name in asked if name in files]
        return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()

    def _commit(self, name: str, revision: str) -> str:
        commits = self.commits.get(name, {})
        return next(reversed(commits), "") if revision == "main" else revision if revision in commits else ""

    def _lacking(self, name: str) -> str:
        return "RevisionNotFound" if name in self.commits else "RepoNotFound"

    def _file(self, name: str, revision: str, file: str) -> tuple[int, dict[str, str], bytes]:
        if not (commit := self._commit(name, revision)):
            return 404, {"X-Error-Code": self._lacking(name)}, b""
        files = self.commits[name][commit]
        if file not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        content = files[file]
        return 200, {"X-Repo-Commit": commit, "ETag": f'"{_digest(content)}"', "Content-Type": "application/octet-stream"}, content


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _entry(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(content), "oid": _digest(content)}


@contextmanager
def serving_sets() -> Iterator[Sets]:
    """A hub that listens on loopback until the block ends."""
    sets = Sets()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, content = sets.answer(f"{self.command} {self.path}", body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

        do_GET = do_POST = do_HEAD = reply

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    sets.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield sets
    finally:
        server.shutdown()
        server.server_close()
