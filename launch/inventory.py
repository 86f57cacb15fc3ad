"""The nodes of the Ray that is joined, each as a machine, asked on the node itself.

Claim: plan places on what is there: cores, free memory and GPUs of a node as a process there sees them, and no more of them than Ray may hand out.
Simplification: what other jobs hold is not taken off; whoever comes too late waits (launch/groups).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from launch.head import joined_address
from launch.machine import Machine, this_machine
from launch.ray_start import RayStartError, start_ray

_ANSWER_S = 120.0  # a worker starts, and imports nothing heavy


def joined_nodes() -> list[Machine]:
    """The nodes that a run has beside each other, that of this process first; none where it has a Ray of its own.

    Raises:
        RayStartError: the Ray that is named cannot be joined, or a node of it does not answer.
    """
    if joined_address() is None:
        return []
    start_ray(num_cpus=0, num_gpus=0)
    alive = [node for node in ray.nodes() if node["Alive"]]
    # Without the variable, Ray shows a task that takes no GPU none.
    environment = {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}}
    on = (NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in alive)
    ask = ray.remote(this_machine)
    asked = [ask.options(num_cpus=0, scheduling_strategy=node, runtime_env=environment).remote() for node in on]
    machines = []
    for node, answer in zip(alive, asked, strict=True):
        try:
            machines.append(granted(ray.get(answer, timeout=_ANSWER_S), node))
        except Exception as error:  # GetTimeoutError, NodeDiedError, RuntimeEnvSetupError, ...
            raise RayStartError(
                f"node {node['NodeManagerAddress']} of the cluster does not say what it has ({' '.join(str(error).split()):.200})"
            ) from error
    here = ray.get_runtime_context().get_node_id()
    order = sorted(range(len(alive)), key=lambda index: (alive[index]["NodeID"] != here, machines[index].name))
    return [machines[index] for index in order]


def granted(machine: Machine, node: dict[str, Any]) -> Machine:
    """What Ray may hand out of a machine that is a node of it, under the address that Ray knows it by.

    Args:
        node: of `ray.nodes()`.
    """
    has = node["Resources"]
    gpus = int(has.get("GPU", 0))
    cores = max(1, min(machine.cores, int(has.get("CPU", 0))))
    return replace(machine, cores=cores, gpus=machine.gpus[:gpus], cards=machine.cards[:gpus], name=node["NodeManagerAddress"])
