"""Ray's placement groups of a plan's placement, and the options with which each of its actors starts.

Claim: what plan places is what Ray is asked for: processes that share a GPU are in one bundle, an engine of several GPUs is on one node. A group that
Ray finds no room for is waited for, as others may hold it, and after every minute it is said what is missing. Room that went with a node is
waited for when an actor is started again, as nodes come back, and not for ever.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from launch.placement import Placement

log = logging.getLogger(__name__)

Options = Callable[[str, int], dict[str, Any]]
_SAY_S = 60.0
_BACK_S = 120.0  # that a node has to come back
_PREEMPTED_S = 1800.0  # the same, of nodes that may be preempted: others want it meanwhile
_BRING_BACK = "bring it back (`ray start --address=...` there)"


class RoomLost(RuntimeError):
    """A node that held a part of the run is gone; the message names it."""


def reserve(placed: Placement, preemptible: bool = False) -> Options:
    """Room in the Ray that this process speaks to, held until it ends; the options of the actor of a name and index. Blocks until all of it is there.
    `preemptible`: nodes may be taken away and come back, which takes longer than when they were started again.
    Raises RoomLost: there is none, as a node went, which has not come back in time. So do options, where room that was there went."""
    groups = [placement_group([dict(bundle) for bundle in group.bundles], strategy=group.strategy) for group in placed.groups]
    back_s = _PREEMPTED_S if preemptible else _BACK_S
    until = time.monotonic() + back_s
    for group in groups:
        while not group.wait(_SAY_S):
            log.warning("%s", _missing(placed))
            if (lost := _lost(placed)) and time.monotonic() >= until:
                raise RoomLost(
                    f"node {', '.join(lost)} is gone from the cluster, and for {back_s:g} s there was no room elsewhere; {_BRING_BACK}"
                )

    def options(name: str, index: int) -> dict[str, Any]:
        known: dict[str, Any] = {"num_cpus": 0, "num_gpus": placed.gpus.get(name, 0)}
        if name not in placed.bundles:
            return known
        group, bundle = placed.bundles[name][index]
        if not groups[group].wait(back_s):  # ready since long, unless a node went
            raise RoomLost(
                f"{name} {index}: {_gone(placed, name, index)}, and for {back_s:g} s there was no room for it elsewhere; {_BRING_BACK}"
            )
        return known | {"scheduling_strategy": PlacementGroupSchedulingStrategy(groups[group], placement_group_bundle_index=bundle)}

    return options


def _gone(placed: Placement, name: str, index: int) -> str:
    """Which node went, as far as that is known: that of the process as it was planned, else any."""
    planned, lost = placed.nodes[placed.at[name][index]].name, _lost(placed)
    return f"node {planned if planned in lost or not lost else ', '.join(lost)} is gone from the cluster"


def _lost(placed: Placement) -> list[str]:
    """Planned nodes that are not in the cluster; none in a Ray of our own, whose node has no name."""
    alive = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    return [node.name for node in placed.nodes if node.name and node.name not in alive]


def _missing(placed: Placement) -> str:
    """What Ray has not got, in a sentence."""
    wanted: dict[str, float] = {}
    for name, amount in (item for group in placed.groups for bundle in group.bundles for item in bundle.items()):
        wanted[name] = wanted.get(name, 0) + amount
    there, free = ray.cluster_resources(), ray.available_resources()
    lines = [f"{amount:g} {name}, {there.get(name, 0):g} there, {free.get(name, 0):g} free" for name, amount in wanted.items()]
    return f"waiting for room in Ray: {'; '.join(lines)} (`ray status` says who holds it)"
