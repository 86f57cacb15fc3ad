"""The learner's end of a push, in the process of each rank: tensors go out by one of the carriers (rl/carriers), with digests made where they are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rl.adapters import Merged
from rollout.broadcast import Group, Meeting, Seat, Spec, host_meeting, send, specs
from rollout.parcels import DeviceHandle, HostHandle, Shared, Stored, last, share
from rollout.weights import Undelivered, as_numbers, digest, pack

NEEDS_WHOLE = ("store", "share", "meet", "send")  # steps that read tensors, which ZeRO-3 gathers on all ranks


class Outbox:
    """What a rank has out, of the tensors of a checkpoint.

    Args:
        model: with adapters or without.
        names: of its tensors in the checkpoint.
        rank: of so many `ranks`.
        stays: its memory is where it is from push to push (ZeRO-3 gathers it anew).
    """

    def __init__(self, model: nn.Module, names: Collection[str], rank: int, ranks: int, device: str, stays: bool):
        self._model, self._names, self._rank, self._ranks, self._stays = model, sorted(names), rank, ranks, stays
        self._device = torch.device(device)
        self._held: dict[str, Tensor] = {}
        self._lasting: dict[int, HostHandle | DeviceHandle] | None = None
        self._group: Group | None = None
        self._meeting: tuple[Meeting, Any] | None = None
        self._specs: tuple[Spec, ...] = ()

    def store(self) -> tuple[Stored, dict[str, int]]:
        """All bytes, for Ray's store, and their digests; nothing on ranks other than 0."""
        if self._rank:
            return Stored(), {}
        found, stored = dict[str, Tensor](), Stored()
        for name, tensor in self._tensors().items():
            found[name], stored[name] = digest(tensor), pack(tensor)
        return stored, as_numbers(found)

    def share(self, engines: Sequence[int]) -> dict[int, Shared]:
        """Handles of all tensors, which are held until `forget`, for each of these engines that is beside this rank: number i is beside rank i modulo ranks.
        Each has its own, as CUDA counts one reader a handle."""
        self._held = {}  # before there are others: one set of merged tensors is all that there is room for
        self._held = {name: tensor.contiguous() for name, tensor in self._tensors().items()}
        if self._lasting is None:
            self._lasting = last(self._model.state_dict().values()) if self._stays else {}
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return {engine: share(self._held, self._lasting) for engine in engines if engine % self._ranks == self._rank}

    def digests(self) -> dict[str, int]:
        """Of what is held; nothing on ranks other than 0, who hold the same."""
        if self._rank:
            return {}
        return as_numbers({name: digest(tensor) for name, tensor in self._held.items()})

    def forget(self) -> None:
        """Hold nothing more; what is not the policy's own is freed, also for other processes."""
        self._held = {}
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def meet(self, engines: int, workers: int, seconds: float) -> list[Seat]:
        """The seats of so many engines in a new broadcast, to which `send` is from now on; nothing on ranks other than 0."""
        if self._rank:
            return []
        self._leave()
        backend = "nccl" if self._device.type == "cuda" else "gloo"
        self._meeting = host_meeting(_own_address(), 1 + engines * workers, seconds, backend)
        self._specs = self._specs or specs(self._tensors())
        return [Seat(self._meeting[0], 1 + engine * workers, self._specs) for engine in range(engines)]

    def send(self) -> dict[str, int]:
        """Send all tensors to all seats; their digests, also where an engine is gone: who did not get them says so, and gets them again."""
        if self._rank:
            return {}
        assert self._meeting is not None, "nobody was given a seat"
        tensors, found = self._tensors(), dict[str, Tensor]()
        try:
            self._group = self._group or Group(self._meeting[0], 0, self._device, self._meeting[1])
            for name, made in send(tensors, self._specs, self._group):
                found[name] = made
        except Undelivered:
            self._leave()
        return as_numbers(found | {name: digest(tensors[name]) for name in tensors if name not in found})

    def _tensors(self) -> Merged:
        return Merged(self._model, self._names)

    def _leave(self) -> None:
        if self._group is not None:
            self._group.leave()
        self._group = self._meeting = None


def _own_address() -> str:
    """The address by which Ray knows the node of this process: loopback in a Ray of our own."""
    import ray  # what is on a GPU is tested without it

    own = ray.get_runtime_context().get_node_id()
    return next(node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] == own)
