"""Jobs of a Ray cluster, over Ray Jobs' REST interface: submit, list, follow, stop. Those of Slurm: launch/slurm.

Claim: whatever is wrong with address, token, version or job's name is one sentence, and what became of a job is told from the cluster's own record of it, so it is the
same whoever asks and whenever. Imports no Ray, which would take seconds. Simplification: logs are followed by asking for them again; a job is a job
that was submitted, drivers that merely connected are not shown.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from launch.head import is_loopback, this_head

_ADDRESS = "RAY_API_SERVER_ADDRESS"  # as Ray's own `ray job` reads it
_ASK_S = 60.0  # Ray waits so long for an agent that takes a job
_LOOK_S = (0.5, 5.0)  # between two looks at a log, at first and at last
_AWAY_S = 60.0  # that a dashboard may not answer while a log is followed
_WAITS_S = 60.0  # after which a job that has not started says why, again and again
DONE = {"SUCCEEDED": 0, "FAILED": 1, "STOPPED": 5}
UNKNOWN = 3  # exit code
RUNNING = 4
_OTHER = "answers with other JSON than one does"


class JobsError(RuntimeError):
    """The cluster does not take what is asked; the message says what to do."""


class UnknownJob(JobsError):
    """There is no such job."""


@dataclass(frozen=True)
class Job:
    """A submitted job.

    Attributes:
        id: as it was submitted.
        state: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        message: what Ray says of that.
        recipe: the name of its run; "" of a job that `laconic submit` did not make.
        runs: folder of that run, as the cluster sees it.
        started: seconds since 1970; None: not yet.
        ended: likewise.
    """

    id: str
    state: str
    message: str = ""
    recipe: str = ""
    runs: str = ""
    started: float | None = None
    ended: float | None = None

    @property
    def exit_code(self) -> int:
        return DONE.get(self.state, RUNNING)

    @property
    def is_done(self) -> bool:
        return self.state in DONE

    @property
    def seconds(self) -> float | None:
        """That it has run, or ran."""
        return None if self.started is None else (self.ended or time.time()) - self.started

    @property
    def words(self) -> str:
        """What became of it, in a line."""
        why = "" if self.state in ("RUNNING", "SUCCEEDED") else " ".join(self.message.partition(", last available logs")[0].split())
        where = f"; its run: {self.runs}/{self.recipe}" if self.state == "SUCCEEDED" and self.recipe else ""
        said = f"{self.id} {_WORDS.get(self.state, self.state.lower())}" + (f": {why:.300}" if why else "") + where
        return "".join(filter(str.isprintable, said))  # what others named is no order to a terminal


_WORDS = {"PENDING": "waits to start", "RUNNING": "runs", "SUCCEEDED": "succeeded", "FAILED": "failed", "STOPPED": "was stopped"}


class Jobs(ABC):
    """Those of a cluster. Every method raises JobsError for what it refuses, UnknownJob for a job that it does not know."""

    @abstractmethod
    def jobs(self) -> list[Job]:
        """All jobs that the cluster remembers, the oldest first."""

    @abstractmethod
    def job(self, name: str) -> Job:
        """One job."""

    @abstractmethod
    def log(self, name: str) -> str:
        """All that it wrote."""

    def follow(self, name: str) -> Iterator[str]:
        """What it writes, until it is done; of one that does not start, every minute why. Who is asked may not answer for _AWAY_S, but at first."""
        seen, wait, said, heard = 0, _LOOK_S[0], time.monotonic(), -inf
        while True:
            try:
                job = self.job(name)  # asked before its log, which is then whole
                log = self.log(name)
            except UnknownJob:
                raise
            except JobsError:
                if time.monotonic() - heard > _AWAY_S:
                    raise
                time.sleep(_LOOK_S[0])
                continue
            heard = time.monotonic()
            if len(log) > seen:
                yield log[seen:]
                seen, wait = len(log), _LOOK_S[0]
            if job.is_done:
                return
            if job.state == "PENDING" and time.monotonic() - said >= _WAITS_S:
                yield f"{job.words}\n"
                said = time.monotonic()
            time.sleep(wait)
            wait = min(1.5 * wait, _LOOK_S[1])

    @abstractmethod
    def stop(self, name: str, within_s: float) -> Job:
        """Ask it to stop, which saves a checkpoint, and wait for that; what became of it."""

    def waited(self, name: str, within_s: float) -> Job:
        """A job once it is done, or after a time."""
        until = time.monotonic() + within_s
        while not (job := self.job(name)).is_done and time.monotonic() < until:
            time.sleep(_LOOK_S[0])
        return job


class Cluster(Jobs):
    """A Ray cluster that takes jobs. Every method raises JobsError for what its server refuses.

    Args:
        address: URL of its dashboard, http://127.0.0.1:8265; None: RAY_API_SERVER_ADDRESS, else the head that `laconic cluster up` started here.

    Raises:
        JobsError: there is none, it wants another token, or its Ray is another version than the one here.
    """

    def __init__(self, address: str | None = None) -> None:
        self.url, self.is_here, token = dashboard(address)
        if not self.url:
            raise JobsError(
                f"--address: which cluster? Name its dashboard (--address http://HOST:8265, or {_ADDRESS}), or start a head here: `laconic cluster up`"
            )
        token = token or _token()
        self._client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(_ASK_S, connect=10.0),
            trust_env=not self.is_here,  # proxies are for what lies outside
        )
        theirs, ours = self._asked("GET", "/api/version").get("ray_version"), version("ray")
        if not isinstance(theirs, str):
            raise self._is_none("names no version of Ray")
        if theirs != ours:
            raise JobsError(
                f"{self.url} has Ray {theirs} and here is Ray {ours}; both must be the same: install ray=={theirs} here, or {ours} there"
            )

    def holds(self, package: str) -> bool:
        """Whether a package was sent before."""
        return self._answered("GET", f"/api/packages/gcs/{package}").status_code == 200

    def send(self, package: str, content: bytes) -> None:
        """Send a package, a zip file."""
        self._heard(self._answered("PUT", f"/api/packages/gcs/{package}", content=content))

    def submit(self, name: str, entrypoint: str, package: str, environment: Mapping[str, str], metadata: Mapping[str, str]) -> None:
        """Have a command run in the folder of a package that was sent. Returns as soon as the cluster has it."""
        runtime = {"working_dir": f"gcs://{package}", "env_vars": dict(environment)}
        self._asked(
            "POST", "/api/jobs/", json={"entrypoint": entrypoint, "submission_id": name, "runtime_env": runtime, "metadata": dict(metadata)}
        )

    def jobs(self) -> list[Job]:
        said = self._asked("GET", "/api/jobs/", form=list)
        found = [self._told(one) for one in said if not isinstance(one, dict) or one.get("submission_id")]
        return sorted(found, key=lambda job: job.started or inf)

    def job(self, name: str) -> Job:
        return self._told(self._asked("GET", "", name))

    def log(self, name: str) -> str:
        said = str(self._asked("GET", "/logs", name).get("logs") or "")
        return said.encode(errors="replace").decode()  # JSON may hold halves of characters

    def stop(self, name: str, within_s: float) -> Job:
        self._asked("POST", "/stop", name)
        return self.waited(name, within_s)

    def _asked(self, method: str, path: str, name: str | None = None, form: type = dict, **content: Any) -> Any:
        """What the dashboard says to a path, of a job by its name below that job's."""
        path = path if name is None else f"/api/jobs/{quote(name, safe='') or '-'}{path}"
        return self._heard(self._answered(method, path, **content), name, form)

    def _answered(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **content)
        except httpx.ConnectError as error:
            start = " `laconic cluster up` starts one here." if self.is_here else ""
            raise JobsError(
                f"--address: nothing answers at {self.url} ({error}); is the head up, and is this its dashboard (port 8265)?{start}"
            ) from error
        except httpx.HTTPError as error:
            drivers = (
                "; is this the port for drivers (6379)? The dashboard's is 8265" if isinstance(error, httpx.RemoteProtocolError) else ""
            )
            raise JobsError(f"--address: {self.url} did not answer ({type(error).__name__}: {error}){drivers}") from error

    def _heard(self, response: httpx.Response, name: str | None = None, form: type = dict) -> Any:
        """What a response says. Raises what it comes to where that is an error."""
        status, text = response.status_code, response.text
        if status in (401, 403):
            lacks = "wants a token" if status == 401 else "refuses the token"
            raise JobsError(f"--address: {self.url} {lacks}: set RAY_AUTH_TOKEN_PATH to the file that has it, or RAY_AUTH_TOKEN")
        if status == 404 and name is not None:
            raise UnknownJob(f"{name}: {self.url} knows no such job; `laconic jobs` lists those that it knows")
        if 300 <= status < 400:
            where = response.headers.get("Location", "another place").partition("?")[0]
            raise JobsError(
                f"--address: {self.url} leads on to {where:.200}: name the dashboard itself, or a tunnel to it past what asks for a login"
            )
        if status >= 400:
            last = (text.strip().splitlines() or [f"status {status}"])[-1]
            if "<html" in text.lower():
                raise self._is_none(f"answers with a page (status {status})")
            if "ClientConnectorError" in last:
                raise JobsError(
                    f"{self.url}: the node of this head does not answer, so it takes no jobs; end it and start another (`laconic cluster down`, then `up`)"
                )
            raise JobsError(f"{self.url} refuses: {last:.300}")
        try:
            said = response.json() if text else form()
        except ValueError as error:
            raise self._is_none("answers with something else than JSON") from error
        if not isinstance(said, form):
            raise self._is_none(_OTHER)
        return said

    def _told(self, said: Any) -> Job:
        try:
            return _job(said)
        except (AttributeError, TypeError) as error:
            raise self._is_none(_OTHER) from error

    def _is_none(self, why: str) -> JobsError:
        return JobsError(f"--address: {self.url} is no Ray dashboard: it {why}")


def dashboard(address: str | None) -> tuple[str, bool, str]:
    """URL of the dashboard that is meant (`Cluster`), "" for none; whether it is this machine's; the token of the head here, if it is that one's.

    Nobody is asked. Raises JobsError: it is no URL of one.
    """
    head = this_head()
    given = (address or os.environ.get(_ADDRESS) or "auto").strip()
    url = _checked(given) if given != "auto" else head.url if head else ""
    own = head and url.replace("//localhost:", "//127.0.0.1:") == head.url
    return (
        url,
        is_loopback(urlsplit(url).hostname or ""),
        head.token.read_text(encoding="utf-8").strip() if head and own and head.token.is_file() else "",
    )


def _checked(address: str) -> str:
    """The URL of a dashboard. Raises JobsError: it is none."""
    wrong = JobsError(f"--address: {address} is no URL of a dashboard; http://HOST:8265 is one (not the port that drivers join)")
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise wrong from error
    if parts.scheme not in ("http", "https") or not host:
        raise wrong
    if parts.username or parts.password:
        raise JobsError(
            "--address: a password does not belong there, where others see it; tokens come from RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN"
        )
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{port or (443 if parts.scheme == 'https' else 8265)}{parts.path.rstrip('/')}"


def _token() -> str:
    """The token that a cluster wants, from where Ray itself looks. Raises JobsError, which does not repeat it: it cannot be sent."""
    where, token = "RAY_AUTH_TOKEN", os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if not token:
        named = os.environ.get("RAY_AUTH_TOKEN_PATH")
        where = os.path.expanduser(named or "~/.ray/auth_token")  # as it stands where nobody is at home
        try:
            token = Path(where).read_text(encoding="utf-8", errors="replace").strip()
        except OSError as error:
            if named:
                raise JobsError(f"RAY_AUTH_TOKEN_PATH: {named} cannot be read ({error.strerror})") from error
    if token.isascii() and token.isprintable():
        return token
    raise JobsError(f"{where} holds no token: one is a single line of ASCII characters")


def _job(said: Mapping[str, Any]) -> Job:
    metadata = said.get("metadata") or {}
    started, ended = (said[name] / 1000 if said.get(name) else None for name in ("start_time", "end_time"))
    return Job(
        str(said.get("submission_id") or said.get("job_id")),
        str(said.get("status")),
        str(said.get("message") or ""),
        str(metadata.get("laconic_recipe", "")),
        str(metadata.get("laconic_runs", "")),
        started,
        ended,
    )
