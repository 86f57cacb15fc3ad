"""A Ray head on this machine for submitted jobs: `laconic cluster up` and `down`.

Claim: every port binds 127.0.0.1 and asks for a token, which lies in a file that only its owner reads; what `up` started, `down` ends, known by process id
and moment of its start, and nothing else. Simplification: one head for each cache folder. A head for several machines is `ray start`'s.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil

from launch.machine import CacheError, cache_folder, ray_folder_fault, this_machine
from launch.memory import object_store_bytes
from rollout.locks import taken

ADDRESS = "LACONIC_RAY_ADDRESS"  # `--address`
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0": loopback alone

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set for the driver of a submitted job, as RAY_ADDRESS is
_WORKER_PORTS = range(10002, 20000)  # Ray's own default, of which it lets nobody else have one
_START_S = 180.0  # a cold disk cache on two busy cores
_STOP_S = 20.0
_OF_OTHERS = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", _JOB, ADDRESS)


class HeadError(RuntimeError):
    """The head did not come up; the message says what to do."""


@dataclass(frozen=True)
class Head:
    """A head that runs.

    Attributes:
        pid: of the process that all others of it are below.
        started: when that process was made, seconds since 1970, by which it is told from a later one of the same id.
        url: of Ray's dashboard, which takes jobs.
        address: that a driver joins.
        token: file of the token that both want.
    """

    pid: int
    started: float
    url: str
    address: str
    token: Path


def joined_address() -> str | None:
    """Address of the Ray that a run joins: what `--address` says, else that of the cluster whose job this process is; None: it has a Ray of its own."""
    if told := os.environ.get(ADDRESS):
        return told
    return (_raylets_head() or os.environ.get("RAY_ADDRESS", "auto")) if _JOB in os.environ else None


def _raylets_head() -> str | None:
    """Address of the head that the raylet above this process belongs to. RAY_ADDRESS of a job is that of whatever `ray start` came last on the machine."""
    with contextlib.suppress(psutil.Error):  # one that has just ended, or is another's
        for parent in psutil.Process().parents():
            if parent.name() == "raylet":
                return next((word.partition("=")[2] for word in parent.cmdline() if word.startswith("--gcs-address=")), None)
    return None


def this_head() -> Head | None:
    """The head that `up` started here, if it runs."""
    try:
        known = json.loads((_folder() / "head.json").read_text(encoding="utf-8"))
        head = Head(**known | {"token": Path(known["token"])})
    except (CacheError, OSError, ValueError, TypeError, KeyError):
        return None
    return head if _process(head) else None


def up(cpus: int | None = None, gpus: int | None = None, port: int = 8265) -> tuple[Head, bool]:
    """The head, started unless it runs, and whether it was.

    Args:
        cpus: that Ray may hand out; None: the cores of this machine.
        gpus: likewise; None: all that CUDA shows.

    Raises:
        HeadError: it does not come up, the port is taken, or Ray's folder is none that it can use.
    """
    with _alone():
        if head := this_head():
            if _has_node(head):
                return head, False
            _end(head)  # it would take no jobs, and does not end by itself
        if fault := ray_folder_fault():
            raise HeadError(fault)
        if port in _WORKER_PORTS:
            raise HeadError(
                f"--dashboard-port: Ray gives {_WORKER_PORTS[0]} to {_WORKER_PORTS[-1]} to its workers; name another (--dashboard-port {free_ports(1)[0]})"
            )
        if not _is_free(port):
            raise HeadError(
                f"--dashboard-port: {port} is taken on 127.0.0.1; name a free one (--dashboard-port {free_ports(1)[0]}), or end what holds it"
            )
        token = _folder() / "token"
        token.unlink(missing_ok=True)
        with open(os.open(token, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
        machine = this_machine()
        gcs, client = free_ports(2)
        log = _folder() / "head.log"
        command = (
            "-m ray.scripts.scripts start --head --block --disable-usage-stats --include-log-monitor=false --dashboard-host=127.0.0.1 "
            f"--port={gcs} --ray-client-server-port={client} --dashboard-port={port} --dashboard-agent-listen-port=0 "
            f"--object-store-memory={object_store_bytes(machine.memory, 0, machine.shared)} "
            f"--num-cpus={machine.cores if cpus is None else cpus} --num-gpus={len(machine.gpus) if gpus is None else gpus}"
        )
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command.split()], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, cwd=_folder(), env=_environment(token),
            )  # fmt: skip
        head = Head(process.pid, psutil.Process(process.pid).create_time(), f"http://127.0.0.1:{port}", f"127.0.0.1:{gcs}", token)
        (_folder() / "head.json").write_text(json.dumps(asdict(head) | {"token": str(token)}), encoding="utf-8")
        try:
            _wait_ready(process, head, log)
        except BaseException:
            _end(head)
            raise
        return head, True


def down() -> Head | None:
    """End the head that `up` started, with the jobs in it; None if there is none."""
    with _alone():
        head = this_head()
        if head:
            _end(head)
        return head


def join(address: str) -> None:
    """Have all that this process runs join the Ray at an address. To be called before Ray is imported, which reads the environment then."""
    head = this_head()
    if head and address in ("auto", head.address, head.address.replace("127.0.0.1", "localhost")):
        address = head.address
        if "RAY_AUTH_TOKEN" not in os.environ:
            os.environ["RAY_AUTH_TOKEN_PATH"] = str(head.token)
    os.environ[ADDRESS] = address
    if os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # an address alone never enables it (Ray 2.60)
    host = address.rpartition(":")[0]
    if is_loopback(host):
        os.environ[LOOPBACK] = "0"  # else Ray takes the address for that of this machine on its network
    elif host:
        os.environ.pop(LOOPBACK, None)  # of whoever started us: a node of a network must not speak through loopback


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by an address that no other reaches."""
    return host in ("localhost", "::1", "[::1]") or host.startswith("127.")


def speaks_grpc(address: str, within_s: float) -> bool:
    """Whether a server of gRPC, as Ray's are, answers at HOST:PORT; Ray itself would wait for one for ever."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), within_s) as one:
            one.settimeout(within_s)
            one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")  # RFC 9113 3.4: the preface, with empty settings
            return one.recv(4)[3:] == b"\4"  # settings of its own
    except (OSError, ValueError, OverflowError):
        return False


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens at now, each another."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _environment(token: Path) -> dict[str, str]:
    """What the head and all its jobs see: loopback alone, the token's file, and this interpreter before others; no proxy for loopback."""
    kept = {name: value for name, value in os.environ.items() if name not in _OF_OTHERS}
    around = ",".join(filter(None, (os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1", "localhost")))
    return kept | {
        LOOPBACK: "0",  # Ray then takes 127.0.0.1 for its node's address and binds every server to it
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
        "NO_PROXY": around,
        "no_proxy": around,
    }


def _wait_ready(process: subprocess.Popen[bytes], head: Head, log: Path) -> None:
    """Until jobs can be submitted. Raises HeadError: it ended, or takes too long."""
    headers = {"Authorization": f"Bearer {head.token.read_text(encoding='ascii')}"}
    until, answers = time.monotonic() + _START_S, 0
    while time.monotonic() < until:
        if process.poll() is not None:
            last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            raise HeadError(f"the Ray head ended with code {process.returncode} while it started ({last:.200}); its log: {log}")
        with contextlib.suppress(httpx.HTTPError):
            found = httpx.get(f"{head.url}/nodes?view=summary", headers=headers, timeout=5, trust_env=False)
            if found.status_code == 200 and found.json()["data"]["summary"]:
                answers += 1
        if answers > 3:  # Ray ends the head a second later if one of its servers did not come up
            return
        time.sleep(0.5)
    raise HeadError(
        f"the Ray head did not come up within {_START_S:g} s; look at free memory and the machine's load, and at its log: {log}"
    )


def _end(head: Head) -> None:
    """End the head's processes, politely first, and forget it."""
    root = _process(head)
    if root:
        all_of_it = [root, *root.children(recursive=True)]
        with contextlib.suppress(psutil.NoSuchProcess):
            root.terminate()  # Ray's own way: it ends those below
        _, left = psutil.wait_procs(all_of_it, _STOP_S)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, _STOP_S)
    for name in ("head.json", "token"):
        (_folder() / name).unlink(missing_ok=True)


def _has_node(head: Head) -> bool:
    """Whether its node is there: a raylet that was told to end leaves the head behind."""
    root = _process(head)
    with contextlib.suppress(psutil.NoSuchProcess):
        return root is not None and any(child.name() == "raylet" for child in root.children(recursive=True))
    return False


def _process(head: Head) -> psutil.Process | None:
    try:
        process = psutil.Process(head.pid)
        same = abs(process.create_time() - head.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, TypeError, ValueError):  # a damaged record names none
        return None
    return process if same else None


def _folder() -> Path:
    return cache_folder("cluster")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One at a time starts or ends the head."""
    with (_folder() / "lock").open("w") as file:
        taken(file, _folder(), waits=True, option=" (LACONIC_CACHE)")
        yield
