"""The Ray that a run's actors are in: one of its own, on this machine and on loopback alone, or one that is there and is joined.

Claim: of its own, every port that Ray opens binds 127.0.0.1 and asks for a token that lives no longer than the process, and Ray ends with us, whatever ends us (launch/guard). One is
joined by the driver of a job that was submitted to it, and where ADDRESS says so; nothing of our loopback settings reaches it, and it stays
when we leave, with our actors and placement groups gone. Simplification: RAY_ADDRESS alone joins nothing.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import signal
import subprocess
import sys
import threading

import psutil
import ray
from ray._private import parameter, ray_constants
from ray._private import worker as ray_worker
from ray._private.services import canonicalize_bootstrap_address
from ray.exceptions import AuthenticationError

from launch import guard
from launch.head import joined_address, speaks_grpc
from launch.machine import ray_folder, ray_folder_fault, this_machine
from launch.memory import object_store_bytes
from rollout.peers import ray_processes, stopped

_ATTEMPTS = 3
_CONNECT_S = 5.0
_PARAMETERS = parameter.RayParams
# Else there is one for each CPU, of which our actors, each with an environment of its own, take none.
_NO_IDLE_WORKERS = {"prestart_worker_first_driver": False}
_guards: list[subprocess.Popen[bytes]] = []  # of the Ray that this process started, if it did (launch/guard)
_VERSIONS = re.compile(r"Ray: (\S+) Python: (\S+) .*?Ray: (\S+) Python: (\S+)")


class RayStartError(RuntimeError):
    """Ray did not come up; the message says what to do."""


def start_ray(num_cpus: int, num_gpus: int, push: int = 0) -> None:
    """Join the Ray that is named, else start a local one, which may hand out so many CPUs and GPUs; or keep what this process already speaks to.
    `push`: bytes of weights that are published at once.
    Raises RayStartError: none can be joined there; or Ray did not start in three attempts, or would have listened beyond loopback."""
    if ray.is_initialized():
        return
    ray_worker.print_to_stdstream = lambda *args, **kwargs: None  # Ray's own pages about a dead actor; whoever asked it says so in a line
    handler = signal.getsignal(signal.SIGTERM)
    if address := joined_address():
        _join(address)
    else:
        _start_own(num_cpus, num_gpus, push)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray puts its own there, which would end a run without a word


def _join(address: str) -> None:
    """Speak to a Ray that is there. Raises RayStartError: there is none, or it will not have us."""
    there = canonicalize_bootstrap_address(address) if address == "auto" else address
    if there and not speaks_grpc(there, _CONNECT_S):
        if address == "auto":
            raise RayStartError(
                f"--address auto: the Ray that was last started or joined here, at {there}, does not answer within {_CONNECT_S:g} s; "
                "name HOST:PORT of the head, or start one on this machine (`laconic cluster up`)"
            )
        raise RayStartError(
            f"--address: no Ray that drivers join answers at {address} within {_CONNECT_S:g} s; name HOST:PORT of a head (6379 is usual; 8265 is its dashboard, "
            "which takes jobs: `laconic submit`), or auto on a node of it"
        )
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except Exception as error:  # Ray raises ConnectionError, RuntimeError, AuthenticationError, ValueError
        ray.shutdown()
        raise RayStartError(f"Ray at {address} cannot be joined: {_why(error)}") from error


def _why(error: Exception) -> str:
    """What Ray's error comes to, in a sentence."""
    words = " ".join(str(error).split())
    if found := _VERSIONS.search(words):
        return f"it has Ray {found[1]} on Python {found[2]}, and here are Ray {found[3]} and Python {found[4]}; both must be the same"
    if isinstance(error, AuthenticationError) or "uthenticat" in words or "Failed to connect" in words:
        return "it wants another token, or is no head; set RAY_AUTH_TOKEN_PATH to the file that has its token"
    return f"{words:.200}"


def _start_own(num_cpus: int, num_gpus: int, push: int) -> None:
    """A Ray that ends with this process. Raises RayStartError."""
    if fault := ray_folder_fault():
        raise RayStartError(fault)
    stop_ray()  # the guard of a start that failed
    _guards.append(
        subprocess.Popen([sys.executable, "-I", guard.__file__, str(os.getpid())], stdin=subprocess.PIPE, start_new_session=True)
    )
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # otherwise Ray writes one to the home folder
    # What makes Ray take 127.0.0.1 for its node address and bind every server to it (`_node_ip_address` is overruled, Ray 2.60).
    # Ray reads the variable when it is imported, so the constant is set too; the children read the variable.
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    # No autoscaler and no tailing of logs that nobody is shown: two processes less, a fifth of a start on two cores.
    parameter.RayParams = functools.partial(_PARAMETERS, no_monitor=True, include_log_monitor=False)
    machine = this_machine()
    store = object_store_bytes(machine.memory, push, machine.shared)
    for attempt in range(1, _ATTEMPTS + 1):  # Ray gives its agents 15 s (fixed), which a cold disk cache or a busy machine can use up
        before = set(psutil.Process().children())
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
                object_store_memory=store,
                _system_config=_NO_IDLE_WORKERS,
            )
            break
        except Exception as error:  # Ray raises plain Exception, ValueError, OSError, ConnectionError
            ray.shutdown()
            for child in set(psutil.Process().children()) - before:  # else they stay until we exit
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            if attempt == _ATTEMPTS:
                raise RayStartError(
                    f"Ray did not start ({error}). Check free memory, free space in {ray_folder()[1]} and /dev/shm, and the machine's load "
                    f"({os.getloadavg()[0]:.0f} on {os.cpu_count()} cores); Ray's own logs are in {ray_folder()[1]}/ray/session_latest/logs. "
                    "`laconic doctor --deep` tests it alone."
                ) from error
    address = ray.util.get_node_ip_address()
    if not address.startswith("127."):
        stop_ray()
        raise RayStartError(f"Ray would listen on {address}, not on loopback only; is this the pinned Ray? (`laconic doctor`)")


def stop_ray() -> None:
    """End our Ray with every actor in it, and wait until all of it is gone, or leave the one that was joined, which then ends our actors and
    placement groups; nothing without either."""
    for _, process in ray_processes():
        if stopped(process):
            process.kill()  # else Ray waits for its goodbye
    ray.shutdown()
    while _guards:
        _guards.pop().communicate()
