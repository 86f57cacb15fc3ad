"""The nodes of the Ray that is joined, each as a machine, asked on the node itself.

Claim: plan places on what is there: cores, free memory and GPUs of a node as a process there sees them, and no more of them than Ray may hand out.
Simplification: what other jobs hold is not taken off; whoever comes too late waits (launch/groups).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from launch.head import joined_address
from launch.machine import Machine, this_machine
from launch.ray_start import RayStartError, start_ray
from rollout.peers import last_words

_ANSWER_S = 120.0  # a worker starts, and imports nothing heavy


def joined_nodes() -> list[Machine]:
    """The nodes that a run has beside each other, that of this process first; none where it has a Ray of its own.
    Raises RayStartError: the Ray that is named cannot be joined, or a node of it does not answer."""
    if joined_address() is None:
        return []
    start_ray(num_cpus=0, num_gpus=0)
    alive = [node for node in ray.nodes() if node["Alive"]]
    answers = _asked(alive, "does not say what it has", this_machine)
    return ordered(answers, alive, ray.get_runtime_context().get_node_id())


def ordered(machines: Sequence[Machine], nodes: Sequence[dict[str, Any]], here: str) -> list[Machine]:
    """What Ray may hand out of machines that are these nodes of it: of the node `here`, whose id that is, first, then by address."""
    found = sorted(zip(nodes, machines, strict=True), key=lambda one: (one[0]["NodeID"] != here, one[0]["NodeManagerAddress"]))
    return [granted(machine, node) for node, machine in found]


def asked(names: Sequence[str], what: str, ask: Callable[..., Any], *arguments: Any, within_s: float = _ANSWER_S) -> list[Any]:
    """What a function of a module answers on each of these nodes of the Ray that is joined.

    Args:
        names: as `Machine.name`.
        what: that a node which does not answer does, for the message: "does not say ...".

    Raises:
        RayStartError: a node does not answer, or is not there.
    """
    start_ray(num_cpus=0, num_gpus=0)
    alive = {node["NodeManagerAddress"]: node for node in ray.nodes() if node["Alive"]}
    if gone := [name for name in names if name not in alive]:
        raise RayStartError(f"node {gone[0]} is gone from the cluster; bring it back (`ray start --address=...` there)")
    return _asked([alive[name] for name in names], what, ask, *arguments, within_s=within_s)


def _asked(
    nodes: Sequence[Mapping[str, Any]], what: str, ask: Callable[..., Any], *arguments: Any, within_s: float = _ANSWER_S
) -> list[Any]:
    # Without the variable, Ray shows a task that takes no GPU none.
    environment = {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}}
    on = (NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes)
    calls = [ray.remote(ask).options(num_cpus=0, scheduling_strategy=node, runtime_env=environment).remote(*arguments) for node in on]
    answers = []
    for node, call in zip(nodes, calls, strict=True):
        try:
            answers.append(ray.get(call, timeout=within_s))
        except Exception as error:  # GetTimeoutError, NodeDiedError, RuntimeEnvSetupError, ...
            why = f"{last_words(error):.200}"
            raise RayStartError(f"node {node['NodeManagerAddress']} of the cluster {what} ({why})") from error
    return answers


def granted(machine: Machine, node: dict[str, Any]) -> Machine:
    """What Ray may hand out of a machine that is a node of it, under the address that Ray knows it by. `node`: of `ray.nodes()`."""
    has = node["Resources"]
    gpus = int(has.get("GPU", 0))
    lends, store = int(has.get("CPU", 0)), has.get("object_store_memory")
    return replace(
        machine,
        cores=max(1, min(machine.cores, lends)),
        gpus=machine.gpus[:gpus],
        cards=machine.cards[:gpus],
        name=node["NodeManagerAddress"],
        lends=lends,
        shared=machine.shared if store is None else int(store),
    )
