"""Where the learner's ranks meet: at a TCP store of torch's that rank 0 keeps.

Claim: the store listens at one address alone, that of rank 0's node (of loopback where all ranks are on one machine), and at a port that the kernel gave
the very socket that listens, so none can be taken. What ranks then say to each other goes through the interface of that address; NCCL, which speaks to engines on
other nodes, too, has the interface of the node's own (loopback in a Ray of our own). A rank that does not come, or
cannot reach the others, is named. Simplification: neither the store nor gloo and NCCL ask for a token, so the network between nodes has to be trusted.
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import Any

import psutil
import ray
import torch
from torch.distributed import DistError, TCPStore

from rollout.peers import beat

LOOPBACK = "127.0.0.1"
_PATIENCE = timedelta(hours=2)  # of a rank in a collective: whoever waits for ranks (rl/learner) gives up before, and ends all
_COME_S = 120.0  # for the last rank, once all of them have a process
_INTERFACES = {"GLOO_SOCKET_IFNAME": "{}", "NCCL_SOCKET_IFNAME": "={}"}  # NCCL takes a bare name for the beginning of one

Place = tuple[str, int]  # address and port


class MeetingError(RuntimeError):
    """Ranks did not come together; the message names the one that is missing."""


class Member:
    """A rank before it has met the others, as an actor."""

    def __init__(self, rank: int):
        beat()
        self._rank = rank
        self._door: socket.socket | None = None

    def address(self) -> str:
        """That Ray knows its node by."""
        return ray.util.get_node_ip_address()

    def listen(self, *addresses: str) -> Place:
        """Where all ranks shall meet, given the addresses of their nodes; asked of rank 0."""
        host = LOOPBACK if len(set(addresses)) == 1 else addresses[0]
        self._door = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        return host, self._door.getsockname()[1]

    def meet(self, at: Place, ranks: int, backend: str, within_s: float = _COME_S) -> None:
        """Make torch's process group of all ranks; returns once they are there.

        Args:
            at: what rank 0 answered to `listen`.
            backend: "gloo" or "nccl".

        Raises:
            MeetingError: another rank does not come, or rank 0 cannot be reached.
        """
        (host, port), wait = at, timedelta(seconds=within_s)
        _speak_through(LOOPBACK if host == LOOPBACK else self.address(), self.address())
        keeps: dict[str, Any] = {} if self._door is None else {"master_listen_fd": self._door.detach()}
        try:
            store = TCPStore(host, port, None, self._door is not None, wait, wait_for_workers=False, **keeps)
            store.set(f"came/{self._rank}", "")
        except DistError as error:
            raise MeetingError(
                f"rank {self._rank} on {self.address()} does not reach rank 0 at {host}:{port} within {within_s:g} s; "
                "between nodes every port must be open to the other nodes (is there a firewall?)"
            ) from error
        for other in range(ranks) if self._rank == 0 else ():
            try:
                store.wait([f"came/{other}"], wait)
            except DistError as error:
                raise MeetingError(f"rank {other} of {ranks} did not come to {host}:{port} within {within_s:g} s") from error
        torch.distributed.init_process_group(backend, store=store, rank=self._rank, world_size=ranks, timeout=_PATIENCE)


def _speak_through(gloo: str, nccl: str) -> None:
    """Have gloo and NCCL open their ports at the interfaces of these addresses, unless the environment names others; between ranks of one machine it cannot."""
    for (variable, form), address in zip(_INTERFACES.items(), (gloo, nccl), strict=True):
        if (name := interface(address)) and (address == LOOPBACK or variable not in os.environ):
            os.environ[variable] = form.format(name)


def interface(address: str) -> str:
    """The network interface that has an address; "" if none has it."""
    return next((name for name, has in psutil.net_if_addrs().items() if any(one.address == address for one in has)), "")
