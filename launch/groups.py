"""Ray's placement groups of a plan's placement, and the options with which each of its actors starts.

Claim: what plan places is what Ray is asked for: processes that share a GPU are in one bundle, an engine of several GPUs is on one node. A group that
Ray finds no room for is waited for, as others may hold it, and after every minute it is said what is missing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from launch.placement import Placement

log = logging.getLogger(__name__)

Options = Callable[[str, int], dict[str, Any]]
_SAY_S = 60.0


def reserve(placed: Placement) -> Options:
    """Room in the Ray that this process speaks to, held until it ends; the options of the actor of a name and index. Blocks until all of it is there."""
    groups = [placement_group([dict(bundle) for bundle in group.bundles], strategy=group.strategy) for group in placed.groups]
    for group in groups:
        while not group.wait(_SAY_S):
            log.warning("%s", _missing(placed))

    def options(name: str, index: int) -> dict[str, Any]:
        known: dict[str, Any] = {"num_cpus": 0, "num_gpus": placed.gpus.get(name, 0)}
        if name not in placed.bundles:
            return known
        group, bundle = placed.bundles[name][index]
        return known | {"scheduling_strategy": PlacementGroupSchedulingStrategy(groups[group], placement_group_bundle_index=bundle)}

    return options


def _missing(placed: Placement) -> str:
    """What Ray has not got, in a sentence."""
    wanted = Counter[str]()
    for group in placed.groups:
        for bundle in group.bundles:
            wanted.update({name: amount for name, amount in bundle.items()})
    there, free = ray.cluster_resources(), ray.available_resources()
    lines = [f"{amount:g} {name}, {there.get(name, 0):g} there, {free.get(name, 0):g} free" for name, amount in wanted.items()]
    return f"waiting for room in Ray: {'; '.join(lines)} (`ray status` says who holds it)"
