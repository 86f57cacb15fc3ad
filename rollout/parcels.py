"""What an engine is handed, by which each of its workers fetches the weights: bytes in Ray's store, handles of memory that others hold, or a seat in a broadcast.

Claim: whatever the parcel, a worker gets the same names and bytes, one tensor after the other, and makes their digests where they arrived. Handles are of memory that stays
where it is: on a GPU CUDA's (one process maps the other's memory), elsewhere open files that have no name, so nothing is left when a process is killed.
Simplification: who hands out handles keeps the tensors, unchanged, until all engines have confirmed.
"""

from __future__ import annotations

import mmap
import os
import uuid
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from rollout.weights import Packed, Undelivered, digest, in_a_line


class Parcel(Protocol):
    """See the module."""

    @property
    def names(self) -> Collection[str]:
        """Of the tensors that will come."""

    def tensors(self, worker: int, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        """Fetch them, read only, for a worker of the engine, counted from 0. Raises Undelivered."""


def digesting(tensors: Iterator[tuple[str, Tensor]], found: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The same tensors; their digests are in `found` once they have passed."""
    for name, tensor in tensors:
        found[name] = digest(tensor)
        yield name, tensor


class Stored(dict[str, Packed]):
    """Tensors by name in Ray's object store, which a process that speaks to Ray reads without a copy."""

    @property
    def names(self) -> Collection[str]:
        return self.keys()

    def tensors(self, worker: int, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        for name, packed in self.items():
            yield name, packed.tensor().to(device)


@dataclass(frozen=True)
class HostHandle:
    """A tensor in main memory: an open file of a process, and where in it.

    Attributes:
        key: of memory that lasts, which is mapped once and read again at each push; "" of any other.
    """

    file: str
    size: int
    offset: int
    dtype: str
    shape: tuple[int, ...]
    key: str = ""

    def open(self, mapped: dict[str, mmap.mmap]) -> Tensor:
        """The tensor in place. `mapped`: files that are mapped already."""
        if self.key in _LASTING:
            return _LASTING[self.key]
        tensor = self._map(mapped)
        if self.key:
            _LASTING[self.key] = tensor
        return tensor

    def _map(self, mapped: dict[str, mmap.mmap]) -> Tensor:
        if self.file not in mapped:
            try:
                file = os.open(self.file, os.O_RDONLY)
            except OSError as error:
                raise Undelivered(
                    f"the memory that the learner shares is gone ({error.strerror}: {self.file}); did its process end?"
                ) from error
            try:
                mapped[self.file] = mmap.mmap(file, self.size, prot=mmap.PROT_READ)
            finally:
                os.close(file)
        dtype = getattr(torch, self.dtype)
        count = int(np.prod(self.shape)) * dtype.itemsize
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that the memory is read only; nobody writes
            flat = torch.from_numpy(np.frombuffer(mapped[self.file], np.uint8, count, self.offset))
        return flat.view(dtype).view(self.shape)


@dataclass(frozen=True)
class DeviceHandle:
    """A tensor on a GPU, as CUDA IPC has it.

    Attributes:
        key: of memory that lasts, as above; it may not be mapped again, since torch counts whoever maps.
        gpu: the GPU's own id, whatever number processes give it.
    """

    gpu: str
    arguments: tuple[Any, ...]
    key: str = ""

    def open(self, device: torch.device) -> Tensor:
        """The tensor in place."""
        from torch.multiprocessing.reductions import rebuild_cuda_tensor

        if self.key in _LASTING:
            return _LASTING[self.key]
        index = device.index or 0
        if (here := _gpu(index)) != self.gpu:
            raise Undelivered(f"the learner shares memory of GPU {self.gpu}, and this engine is on {here}; {_STORE}")
        try:
            tensor = rebuild_cuda_tensor(*self.arguments[:6], index, *self.arguments[7:])
        except RuntimeError as error:
            raise Undelivered(f"CUDA does not open the memory that the learner shares ({in_a_line(error)}); {_STORE}") from error
        if self.key:
            _LASTING[self.key] = tensor
        return tensor


_LASTING: dict[str, Tensor] = {}  # memory of others that this process has mapped, by its key


_STORE = "cluster.carrier=store works everywhere"


def _gpu(index: int) -> str:
    return str(torch.cuda.get_device_properties(index).uuid)


@dataclass(frozen=True)
class Shared:
    """Handles of tensors by name, for processes of the same machine, or of the same GPU."""

    handles: Mapping[str, HostHandle | DeviceHandle]

    @property
    def names(self) -> Collection[str]:
        return self.handles.keys()

    def tensors(self, worker: int, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        mapped: dict[str, mmap.mmap] = {}
        for name, handle in self.handles.items():
            yield name, handle.open(mapped).to(device) if isinstance(handle, HostHandle) else handle.open(device)


def share(tensors: Mapping[str, Tensor], lasting: Mapping[int, HostHandle | DeviceHandle]) -> Shared:
    """Handles of tensors, which are contiguous; what is in main memory moves to memory that can be shared, where its owner finds it as before.

    Args:
        lasting: handles that are out already, by the address of their memory; these go out again.

    Raises:
        RuntimeError: there is not enough of such memory (/dev/shm), or CUDA shares none.
    """
    return Shared({name: lasting.get(tensor.data_ptr()) or _handle(tensor) for name, tensor in tensors.items()})


def _handle(tensor: Tensor, key: str = "") -> HostHandle | DeviceHandle:
    if tensor.device.type == "cuda":
        from torch.multiprocessing.reductions import reduce_tensor

        try:
            return DeviceHandle(_gpu(tensor.device.index), reduce_tensor(tensor.detach())[1], key)
        except RuntimeError as error:
            raise RuntimeError(f"CUDA does not share memory of this GPU with other processes ({in_a_line(error)}); {_STORE}") from error
    storage = tensor.untyped_storage()
    try:
        file, size = storage._share_fd_cpu_()
    except RuntimeError as error:
        for left in Path("/dev/shm").glob(f"torch_{os.getpid()}_*"):  # which torch would have taken the name of
            left.unlink(missing_ok=True)
        raise RuntimeError(
            f"there is no shared memory for a tensor of {storage.nbytes():,} bytes: give /dev/shm more (a container: docker run --shm-size=16g), or set "
            f"cluster.carrier=store ({error})"
        ) from error
    dtype = str(tensor.dtype).removeprefix("torch.")
    offset = tensor.storage_offset() * tensor.element_size()
    return HostHandle(f"/proc/{os.getpid()}/fd/{file}", size, offset, dtype, tuple(tensor.shape), key)


def last(tensors: Iterable[Tensor]) -> dict[int, HostHandle | DeviceHandle]:
    """Handles of tensors that stay where they are, by the address of their memory, which may have moved for it as by `share`. Raises as it does."""
    made = [(tensor, _handle(tensor, uuid.uuid4().hex)) for tensor in tensors]
    return {tensor.data_ptr(): handle for tensor, handle in made}
