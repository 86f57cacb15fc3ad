"""A hub on loopback that speaks the few calls that sending a model makes, and remembers all it was asked.

As the real one answers: https://huggingface.co/docs/hub/api, git-lfs's batch API, and huggingface_hub's own source. Weights go over LFS, everything
else within the commit. Whatever else is asked is answered 404 and remembered in `strange`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_" + "loopback" * 4
_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
Answer = tuple[int, Any]


@dataclass
class Repo:
    """A repository: whether it is private, and the files of each branch."""

    private: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {".gitattributes": b""}})


@dataclass
class Hub:
    """What the server holds.

    Attributes:
        writes_for: owners that the token may write for.
        refuse: (method and path, as a pattern) to the answer that is given in place of the right one.
        asked: method and path of each request, in order.
    """

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    writes_for: tuple[str, ...] = ("me",)
    refuse: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    large: dict[str, bytes] = field(default_factory=dict)
    commits: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, line: str, token: str, body: bytes) -> Answer:
        self.asked.append(line)
        for pattern, given in self.refuse.items():
            if re.search(pattern, line):
                return given
        if uploaded := re.fullmatch(r"PUT /upload/(\w+)", line):
            assert token == "", "a store of large files is not the hub and gets no token"
            assert hashlib.sha256(body).hexdigest() == uploaded[1]
            self.large[uploaded[1]] = body
            return 200, {}
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid username or password."}
        for pattern, method in _CALLS.items():
            if found := re.fullmatch(pattern.replace("REPO", _REPO), line):
                return method(self, body, **found.groupdict())
        self.strange.append(line)
        return 404, {"error": "not spoken here"}

    def create(self, body: bytes) -> Answer:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] not in self.writes_for:
            return 403, {"error": "You don't have the rights to create a model under the namespace \"" + asked["organization"] + '"'}
        taken = name in self.repos
        self.repos.setdefault(name, Repo(asked.get("visibility") == "private"))
        return (409 if taken else 200), {"url": f"{self.url}/{name}", "error": "You already created this model repo"}

    def branch(self, body: bytes, repo: str, branch: str) -> Answer:
        branches = self.repos[repo].branches
        taken = branch in branches
        branches.setdefault(branch, dict(branches["main"]))
        return (409 if taken else 201), {"error": "Reference already exists"}

    def info(self, body: bytes, repo: str, branch: str = "main") -> Answer:
        if repo not in self.repos:
            return 404, {"error": "Repository not found"}
        there = self.repos[repo]
        return 200, {"id": repo, "private": there.private, "siblings": [{"rfilename": name} for name in there.branches[branch]]}

    def yaml(self, body: bytes) -> Answer:
        import yaml

        head = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.DOTALL)
        assert head and isinstance(yaml.safe_load(head[1]), dict)
        return 200, {"errors": [], "warnings": []}

    def preupload(self, body: bytes, repo: str, branch: str) -> Answer:
        modes = [(file["path"], "lfs" if file["path"].endswith(".safetensors") else "regular") for file in json.loads(body)["files"]]
        return 200, {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes]}

    def batch(self, body: bytes, repo: str) -> Answer:
        objects = json.loads(body)["objects"]
        actions = {"upload": lambda oid: f"{self.url}/upload/{oid}", "verify": lambda oid: f"{self.url}/verify"}
        return 200, {
            "transfer": "basic",
            "objects": [one | {"actions": {name: {"href": made(one["oid"])} for name, made in actions.items()}} for one in objects],
        }

    def verify(self, body: bytes) -> Answer:
        asked = json.loads(body)
        return (200 if len(self.large.get(asked["oid"], b"")) == asked["size"] else 422), {}

    def commit(self, body: bytes, repo: str, branch: str) -> Answer:
        files, lines = self.repos[repo].branches[branch], [json.loads(line) for line in body.splitlines()]
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            else:
                assert line["key"] == "deletedFile", line
                del files[value["path"]]
        self.commits.append(lines[0]["value"])
        return 200, {"commitUrl": f"{self.url}/{repo}/commit/{len(self.commits):040x}", "commitOid": f"{len(self.commits):040x}"}


_CALLS: dict[str, Callable[..., Answer]] = {
    r"POST /api/repos/create": Hub.create,
    r"POST /api/models/REPO/branch/(?P<branch>[\w.-]+)": Hub.branch,
    r"GET /api/models/REPO/revision/(?P<branch>[\w.-]+)": Hub.info,
    r"GET /api/models/REPO": Hub.info,  # asked where a repository may not be made
    r"POST /api/validate-yaml": Hub.yaml,
    r"POST /api/models/REPO/preupload/(?P<branch>[\w.-]+)": Hub.preupload,
    r"POST /REPO.git/info/lfs/objects/batch": Hub.batch,
    r"POST /verify": Hub.verify,
    r"POST /api/models/REPO/commit/(?P<branch>[\w.-]+)": Hub.commit,
}


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that listens on loopback until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self) -> None:
            chunked = self.headers.get("Transfer-Encoding") == "chunked"
            body = b"".join(self._chunks()) if chunked else self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, value = hub.answer(f"{self.command} {self.path}", self.headers.get("Authorization") or "", body)
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _chunks(self) -> Iterator[bytes]:
            while length := int(self.rfile.readline(), 16):
                yield self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()

        def log_message(self, format: str, *args: Any) -> None:
            pass

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = reply

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
