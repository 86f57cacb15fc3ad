"""A broadcast of weights from the learner to all engines: a process group of its own, and tensors packed into buckets.

    rank 0: the learner's rank 0 | rank 1 + i x w + t: worker t of engine i, each engine with w workers

Claim: the group is apart from every other one of its processes (DeepSpeed's, vLLM's), so nothing else can stand in its queue; NCCL carries it between GPUs and
gloo elsewhere, and both ends cut the same tensors into the same buckets. Who waits longer than the deadline, or whose peer is gone, leaves: its
connections close, so the others notice at once, and all meet anew. Simplification: one bucket is under way at a time.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rollout.weights import Undelivered, digest, in_a_line

BUCKET = 64 << 20  # bytes
_ALIGNED = 16  # bytes, of tensors in a bucket: what is read as 8-byte numbers begins at one


@dataclass(frozen=True)
class Spec:
    """Name, dtype and shape of a tensor that will come."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return prod(self.shape) * getattr(torch, self.dtype).itemsize


@dataclass(frozen=True)
class Meeting:
    """Where the processes of a group find each other.

    Attributes:
        host, port: of the store that the learner's rank 0 holds, on the address of its node that Ray uses: loopback with a Ray of our own.
        size: processes, the learner's with them.
        seconds: for each bucket, and to meet.
        backend: "nccl" or "gloo".
        bucket: bytes that travel at once, and are held twice; a larger tensor goes in pieces, from where it is to where it will be.
    """

    host: str
    port: int
    key: str
    size: int
    seconds: float
    backend: str
    bucket: int


@dataclass(frozen=True)
class Seat:
    """A parcel (rollout/parcels): the part of an engine in a broadcast. `first`: rank of its worker 0."""

    meeting: Meeting
    first: int
    specs: tuple[Spec, ...]

    @property
    def names(self) -> Collection[str]:
        return [spec.name for spec in self.specs]

    def tensors(self, worker: int, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        """See rollout/parcels.Parcel. Each bucket is memory of its own: whoever keeps a tensor of it for a while may."""
        group = joined(self.meeting, self.first + worker, device)
        for bucket in buckets(self.specs, self.meeting.bucket):
            whole = torch.empty(bucket.size, dtype=torch.uint8, device=device)
            group.broadcast(whole)
            for spec, start in bucket.parts:
                yield spec.name, whole[start : start + spec.bytes].view(getattr(torch, spec.dtype)).view(spec.shape)


def specs(tensors: Mapping[str, Tensor]) -> tuple[Spec, ...]:
    return tuple(Spec(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in tensors.items())


@dataclass(frozen=True)
class Bucket:
    """Tensors that travel together, each with the byte at which it starts."""

    size: int
    parts: tuple[tuple[Spec, int], ...]


def buckets(specs: Sequence[Spec], limit: int) -> Iterator[Bucket]:
    """Tensors in their order, in buckets of at most `limit` bytes; one that is larger alone in its own."""
    size, parts = 0, list[tuple[Spec, int]]()
    for spec in specs:
        start = -(-size // _ALIGNED) * _ALIGNED
        if parts and start + spec.bytes > limit:
            yield Bucket(size, tuple(parts))
            start, parts = 0, []
        parts.append((spec, start))
        size = start + spec.bytes
    if parts:
        yield Bucket(size, tuple(parts))


def send(tensors: Mapping[str, Tensor], what: Sequence[Spec], group: Group) -> Iterator[tuple[str, Tensor]]:
    """Send these tensors, each of which is asked for once; each with its digest, which is made while its bucket is under way. Raises Undelivered."""
    for bucket in buckets(what, group.meeting.bucket):
        here = {spec.name: tensors[spec.name].detach().contiguous() for spec, _ in bucket.parts}
        flat = [tensor.flatten().view(torch.uint8) for tensor in here.values()]
        whole = flat[0]
        if len(flat) > 1:
            whole = torch.empty(bucket.size, dtype=torch.uint8, device=whole.device)
            for (spec, start), part in zip(bucket.parts, flat, strict=True):
                whole[start : start + spec.bytes] = part
        pieces = group.begin(whole)
        yield from ((name, digest(tensor)) for name, tensor in here.items())
        group.end(pieces)


class Group:
    """The process group of a meeting, joined. Raises Undelivered if not all come in time."""

    def __init__(self, meeting: Meeting, rank: int, device: torch.device, store: Any = None):
        self.meeting, self._rank = meeting, rank
        within = timedelta(seconds=meeting.seconds)
        try:
            self._store = store or dist.TCPStore(meeting.host, meeting.port, None, False, within, False)
            prefixed = dist.PrefixStore(meeting.key, self._store)
            if meeting.backend == "nccl":
                if device.index is not None:  # else the one that this process uses, by whatever number
                    torch.cuda.set_device(device)
                with _watched_by_us():
                    self._group: Any = dist.ProcessGroupNCCL(prefixed, rank, meeting.size, dist.ProcessGroupNCCL.Options())
            else:
                options = dist.ProcessGroupGloo._Options()
                options._devices = [dist.ProcessGroupGloo.create_device(hostname=_address_towards(meeting.host, meeting.port))]
                options._timeout = within
                self._group = dist.ProcessGroupGloo(prefixed, rank, meeting.size, options)
        except RuntimeError as error:
            raise Undelivered(
                f"rank {rank} of {meeting.size} did not meet the others within {meeting.seconds:g} s: {in_a_line(error)}"
            ) from error

    def broadcast(self, flat: Tensor) -> None:
        """Take part in the broadcast of rank 0's bytes, uint8 [N]. Raises Undelivered."""
        self.end(self.begin(flat))

    def begin(self, flat: Tensor) -> list[Any]:
        """See `broadcast`; to be ended."""
        options = dist.BroadcastOptions()
        options.rootRank = 0
        try:
            return [self._group.broadcast([piece], options) for piece in flat.split(self.meeting.bucket)]
        except RuntimeError as error:
            raise self._failed(error) from error

    def end(self, pieces: Sequence[Any]) -> None:
        """Wait for what was begun. Raises Undelivered."""
        try:
            for piece in pieces:
                if self.meeting.backend == "nccl":
                    _wait_on_gpu(piece, self.meeting.seconds)
                else:
                    piece.wait(timedelta(seconds=self.meeting.seconds))
        except RuntimeError as error:
            raise self._failed(error) from error

    def leave(self) -> None:
        """Close all connections."""
        if self._group is not None and self.meeting.backend == "nccl":
            self._group.abort()
        self._group = self._store = None

    def _failed(self, error: RuntimeError) -> Undelivered:
        who = "an engine" if self._rank == 0 else "the learner, or an engine before this one,"
        return Undelivered(f"{who} sent or took nothing for {self.meeting.seconds:g} s, or is gone: {in_a_line(error)}")


@contextmanager
def _watched_by_us() -> Iterator[None]:
    """A group that is made here outlives peers that died: torch's watchdog would end the process with it."""
    name = "TORCH_NCCL_ASYNC_ERROR_HANDLING"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _wait_on_gpu(piece: Any, seconds: float) -> None:
    """NCCL's own wait is the stream's, and its watchdog would end the process."""
    deadline = time.monotonic() + seconds
    while not piece.is_completed():
        if time.monotonic() > deadline:
            raise RuntimeError("NCCL has not finished")
        time.sleep(1e-4)
    piece.wait()


_joined: list[Group] = []  # the one group that this process receives by


def joined(meeting: Meeting, rank: int, device: torch.device) -> Group:
    """The group of a meeting, joined unless it is the one of the push before. Raises Undelivered."""
    if not _joined or _joined[0].meeting != meeting:
        leave()
        _joined.append(Group(meeting, rank, device))
    return _joined[0]


def leave() -> None:
    """Leave the group that this process receives by, if there is one."""
    while _joined:
        _joined.pop().leave()


def host_meeting(host: str, size: int, seconds: float, backend: str, bucket: int = BUCKET) -> tuple[Meeting, Any]:
    """A meeting at this process, and the store that must be held for as long as its group lasts.

    Args:
        host: the address of this machine that it listens on, and no other: torch's own socket would listen on all.
    """
    listening = socket.create_server((host, 0))
    port = listening.getsockname()[1]
    within = timedelta(seconds=seconds)
    store = dist.TCPStore(host, port, None, True, within, False, master_listen_fd=listening.detach())
    return Meeting(host, port, uuid.uuid4().hex, size, seconds, backend, bucket), store


def _address_towards(host: str, port: int) -> str:
    """The address of this machine from which it reaches another."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect((host, port))
        return asked.getsockname()[0]
