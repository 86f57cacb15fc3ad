"""Ray on this machine alone: started here, listening on loopback only, ended with us.

Every port that Ray opens binds 127.0.0.1 and asks for a token that lives no longer than the process. Simplification: always a cluster
of one node, never an existing one (RAY_ADDRESS is ignored).
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import signal
import threading

import psutil
import ray
from ray._private import parameter, ray_constants
from ray._private import worker as ray_worker

from launch.machine import ray_folder, this_machine
from launch.memory import object_store_bytes

_ATTEMPTS = 3
_SOCKET_BYTES = 107
_PARAMETERS = parameter.RayParams


class RayStartError(RuntimeError):
    """Ray did not come up; the message says what to do."""


def start_ray(num_cpus: int, num_gpus: int, push: int = 0) -> None:
    """Start a local Ray, or keep the one this process already started.

    Args:
        num_cpus: CPUs that Ray may hand out to actors.
        num_gpus: GPUs that Ray may hand out to actors.
        push: bytes of weights that are published at once.

    Raises:
        RayStartError: Ray did not start in three attempts, or would have listened beyond loopback.
    """
    if ray.is_initialized():
        return
    _refuse_long_folder()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # otherwise Ray writes one to the home folder
    # What makes Ray take 127.0.0.1 for its node address and bind every server to it (`_node_ip_address` is overruled, Ray 2.60).
    # Ray reads the variable when it is imported, so the constant is set too; the children read the variable.
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    ray_worker.print_to_stdstream = lambda *args, **kwargs: None  # Ray's own pages about a dead actor; whoever asked it says so in a line
    # No autoscaler and no tailing of logs that nobody is shown: two processes less, a fifth of a start on two cores.
    parameter.RayParams = functools.partial(_PARAMETERS, no_monitor=True, include_log_monitor=False)
    handler = signal.getsignal(signal.SIGTERM)
    for attempt in range(1, _ATTEMPTS + 1):  # Ray gives its agents 15 s (fixed), which a cold disk cache or a busy machine can use up
        before = {child.pid for child in psutil.Process().children()}
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
                object_store_memory=max(object_store_bytes(this_machine().memory, push), ray_constants.OBJECT_STORE_MINIMUM_MEMORY_BYTES),
            )
            break
        except Exception as error:  # Ray raises plain Exception, ValueError, OSError, ConnectionError
            ray.shutdown()
            _end_children(keep=before)
            if attempt == _ATTEMPTS:
                raise RayStartError(
                    f"Ray did not start ({error}). Check free memory, free space in {ray_folder()[1]} and /dev/shm, and the machine's load "
                    f"({os.getloadavg()[0]:.0f} on {os.cpu_count()} cores); Ray's own logs are in {ray_folder()[1]}/ray/session_latest/logs. "
                    "`laconic doctor --deep` tests it alone."
                ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray puts its own there, which would end a run without a word
    address = ray.util.get_node_ip_address()
    if not address.startswith("127."):
        stop_ray()
        raise RayStartError(f"Ray would listen on {address}, not on loopback only; is this the pinned Ray? (`laconic doctor`)")


def _refuse_long_folder() -> None:
    """Ray's sockets lie in its temporary folder, and the name of a socket has room for 107 bytes."""
    variable, folder = ray_folder()
    longest = len(os.fsencode(f"{folder}/ray/session_2026-01-01_00-00-00_000000_{2**22}/sockets/plasma_store"))
    if longest > _SOCKET_BYTES:
        raise RayStartError(
            f"{variable}={folder}: too long for the names of Ray's sockets ({longest} bytes, {_SOCKET_BYTES} are allowed): "
            "set RAY_TMPDIR to a short folder, RAY_TMPDIR=/tmp say; TMPDIR may stay"
        )


def stop_ray() -> None:
    """End Ray and every actor in it; nothing to do if it is not running."""
    ray.shutdown()


def _end_children(keep: set[int]) -> None:
    """Ray leaves the processes of a failed start behind until we exit."""
    for child in psutil.Process().children():
        if child.pid not in keep:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
