"""Placement: every process has a room, no GPU is given twice, and what cannot be met is refused with the arithmetic."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch import gpu_page
from launch.actors import host_bytes
from launch.machine import Machine
from launch.memory import GB, KNOWN, Shape, learner_bytes, trained_parameters
from launch.placement import Placement, Wish, place, places
from launch.plan import Plan, plan
from recipes.adapters import FullWeights, Lora
from recipes.cluster import ApartCluster, AutoCluster, Cluster, ColocatedCluster
from recipes.loader import load
from recipes.schema import Learner

KNOWN_15 = KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"]
LAPTOP = Machine(2, 20 * GB)
ONE_24 = Machine(16, 64 * GB, (24 * GB,))
ONE_80 = Machine(16, 128 * GB, (80 * GB,))
EIGHT = Machine(64, 800 * GB, (80 * GB,) * 8, name="10.0.0.1")
FOUR_NODES = tuple(Machine(64, 800 * GB, (80 * GB,) * 8, name=f"10.0.0.{n}") for n in range(1, 5))
MIXED = (Machine(64, 800 * GB, (80 * GB,) * 4, name="a"), Machine(64, 800 * GB, (40 * GB,) * 8, name="b"))


def wanted(engines: int, ranks: int, parallel: int = 1) -> list[Wish]:
    return [Wish("driver", 1), Wish("engine", engines, 1, parallel), Wish("judge", 2), Wish("learner", ranks, 1, 1)]


@pytest.mark.parametrize(
    ("nodes", "wishes", "engines", "ranks"),
    [
        ([EIGHT], wanted(4, 4), [0] * 4, [0] * 4),
        (FOUR_NODES, wanted(8, 8), [0] * 8, [1] * 8),
        (FOUR_NODES, wanted(2, 8, parallel=4), [0] * 2, [1] * 8),
        (FOUR_NODES[:2], wanted(3, 4, parallel=4), [0, 0, 1], [1] * 4),
        (MIXED, wanted(4, 8), [0] * 4, [1] * 8),  # engines where least is left, so that the ranks stay together
        (MIXED, wanted(1, 4, parallel=8), [1], [0] * 4),  # an engine stays on one node
        (FOUR_NODES[:3], wanted(2, 20), [0] * 2, [1] * 8 + [2] * 8 + [0] * 4),
    ],
)
def test_engines_are_whole_on_a_node_and_ranks_where_most_is_left(
    nodes: list[Machine], wishes: list[Wish], engines: list[int], ranks: list[int]
):
    placed = place(AutoCluster(), nodes, "cuda", wishes)
    assert placed.faults == () and (placed.at["engine"], placed.at["learner"]) == (engines, ranks)
    assert placed.at["driver"] == [0] and placed.at["judge"] == [0, 0]


@pytest.mark.parametrize(
    ("cluster", "gpus", "at_engines", "at_ranks"),
    [
        ({"kind": "colocated"}, [1, 1], "b", "b"),
        ({"kind": "colocated", "nodes": 1}, [1, 1], "b", "b"),
        ({"kind": "colocated"}, [1, 1], "ab", "ab"),
        ({"kind": "colocated", "nodes": 1}, [8, 1], "a" * 8, "a" * 8),
        ({"kind": "apart"}, [2, 2], "a", "b"),
        ({"kind": "apart"}, [2, 2], "a", "bb"),
        ({"kind": "apart", "nodes": 1}, [8, 8], "bbbb", "bbbb"),
        ({"kind": "apart", "nodes": 1}, [8, 4], "aaaa", "aaaa"),
        ({"kind": "apart", "nodes": 1, "gpus_per_node": 2}, [8, 4], "b", "b"),
        ({"kind": "apart", "nodes": 2, "gpus_per_node": 2}, [8, 4], "aa", "bb"),
    ],
)
def test_of_unlike_gpus_larger_ones_alone_are_taken_where_the_smaller_do_not_hold_it(
    cluster: dict, gpus: list[int], at_engines: str, at_ranks: str
):
    nodes = [Machine(64, 800 * GB, (24 * GB,) * gpus[0], name="a"), Machine(64, 800 * GB, (80 * GB,) * gpus[1], name="b")]
    counts = [f"engine.count={len(at_engines)}", f"learner.ranks={len(at_ranks)}"]
    words = [f"cluster={json.dumps(cluster)}", *counts, "engine.vllm={gpu_memory_utilization: 0.9}"]
    placed = plan(load("dler", "node8", words), *nodes[:1], nodes[1:]).placement
    assert placed.faults == () and placed.nodes[0].name == "a"
    assert ["".join(placed.nodes[node].name for node in placed.at[name]) for name in ("engine", "learner")] == [at_engines, at_ranks]
    for name, at in (("engine", at_engines), ("learner", at_ranks)):
        assert placed.least_gpu(name) == (24 if "a" in at else 80) * GB
    if "a" not in at_engines + at_ranks:
        assert all("node:b" in bundle for group in placed.groups for bundle in group.bundles)


@pytest.mark.parametrize(
    ("words", "gpus", "at_engines", "at_ranks"),
    [
        ([], {"a": [80], "b": [24]}, "b", "a"),
        ([], {"a": [24], "b": [80]}, "a", "b"),
        ([], {"a": [80], "b": [24], "c": [80], "d": [24]}, "bd", "ac"),
        ([], {"a": [80] * 4, "b": [24] * 8}, "bb", "aaaa"),  # where least is left that holds them, they would be on a
        (["engine.vllm.kv_cache_memory_bytes=40000000000", "learner.adapter.kind=lora"], {"a": [24], "b": [80]}, "b", "a"),
        (["engine.vllm.kv_cache_memory_bytes=40000000000", "learner.adapter.kind=lora"], {"a": [80], "b": [24]}, "a", "b"),
    ],
)  # fmt: skip
def test_apart_on_unlike_gpus_those_have_the_larger_ones_that_need_them(
    words: list[str], gpus: dict[str, list[int]], at_engines: str, at_ranks: str
):
    first, *others = (Machine(64, 800 * GB, tuple(size * GB for size in sizes), name=name) for name, sizes in gpus.items())
    counts = [f"engine.count={len(at_engines)}", f"learner.ranks={len(at_ranks)}"]
    made = plan(load("dler", "gpu1-80", ["cluster.kind=apart", *counts, *words]), first, others)
    assert not [line for line in made.blockers if "GB" in line], made.blockers
    assert ["".join(made.placement.nodes[node].name for node in made.placement.at[name]) for name in ("engine", "learner")] == [
        at_engines,
        at_ranks,
    ]
    named = [name for group in made.placement.groups for bundle in group.bundles for name in bundle if name.startswith("node:")]
    assert sorted(named) == sorted(f"node:{name}" for name in at_engines + at_ranks)


def test_nodes_are_taken_as_they_come_where_all_of_it_fits_them():
    other = Machine(64, 16 * GB, (96 * GB,) * 8, name="b")  # larger GPUs, and less main memory
    made = plan(load("dler", "node8", ["cluster={kind: apart, nodes: 1}"]), EIGHT, [other])
    assert not made.blockers and [node.name for node in made.placement.nodes] == [EIGHT.name]


@pytest.mark.parametrize(
    ("words", "gpus", "said"),
    [
        (["cluster.kind=apart"], [1], "this machine has 1; leave out cluster.kind=apart, so that they share it"),
        (["cluster.kind=apart", "learner.ranks=2"], [1], "this machine has 1; learner.ranks=1 and engine.count=1 share one without cluster.kind=apart"),
        (["cluster={kind: apart, gpus_per_node: 1}"], [2], "this machine has 1 by cluster.gpus_per_node; leave out cluster.kind=apart, so that they share it"),
        (["cluster={kind: apart, nodes: 1}", "learner.ranks=4"], [1, 4], "the node that is taken (1) has 4 by cluster.nodes; lower engine.count or learner.ranks"),
    ],
)  # fmt: skip
def test_too_few_gpus_are_counted_where_they_are_taken_and_the_remedy_is_one(words: list[str], gpus: list[int], said: str):
    names = [""] if len(gpus) == 1 else [str(index) for index in range(len(gpus))]
    first, *others = (Machine(64, 800 * GB, (80 * GB,) * count, name=name) for count, name in zip(gpus, names, strict=True))
    assert [line for line in plan(load("dler", "gpu1-80", words), first, others).blockers if line.endswith(said)]


def test_policies_that_engines_read_must_fit_shared_memory():
    made = plan(load("quickstart", None, ["device=cpu", "cluster.carrier=ipc"]), replace(LAPTOP, shared=2_000_000))
    assert [line for line in made.blockers if line.startswith("memory: weights that engines read") and "cluster.carrier=store" in line]
    assert not plan(load("quickstart", None, ["device=cpu", "cluster.carrier=ipc"]), replace(LAPTOP, shared=500_000_000)).blockers


def test_weights_are_read_in_place_on_a_shared_gpu_broadcast_between_gpus_and_stored_elsewhere():
    apart, together = ApartCluster(kind="apart"), ColocatedCluster(kind="colocated")
    for cluster, nodes, device, carrier in (
        (AutoCluster(), [ONE_80], "cuda", "ipc"),
        (together, [EIGHT], "cuda", "ipc"),
        (AutoCluster(), [EIGHT], "cuda", "broadcast"),
        (apart, FOUR_NODES, "cuda", "broadcast"),
        (AutoCluster(), [LAPTOP], "cpu", "store"),
    ):
        wishes = wanted(1, 1) if nodes == [ONE_80] else wanted(4, 4)
        placed = place(cluster, nodes, device, wishes)
        assert placed.carrier is not None and placed.carrier[0] == carrier and placed.faults == ()
        stored = place(cluster.model_copy(update={"carrier": "store"}), nodes, device, wishes)
        assert stored.carrier is not None and stored.carrier[0] == "store" and stored.faults == ()
    assert place(AutoCluster(), [LAPTOP], "cpu", [Wish("driver", 1), Wish("engine", 1), Wish("judge", 1)]).carrier is None
    for carrier in ("ipc", "broadcast"):
        alone = place(AutoCluster(carrier=carrier), [LAPTOP], "cpu", wanted(2, 2))
        assert alone.faults == () and alone.carrier == (carrier, "as the recipe says")


@pytest.mark.parametrize(
    ("cluster", "nodes", "device", "said"),
    [
        (
            ApartCluster(kind="apart", carrier="ipc"),
            [EIGHT],
            "cuda",
            "ipc: an engine would read the memory of a rank that is not on its GPU",
        ),
        (ColocatedCluster(kind="colocated", carrier="broadcast"), [EIGHT], "cuda", "broadcast: NCCL has one process on a GPU"),
        (AutoCluster(carrier="ipc"), [replace(LAPTOP, name="a"), replace(LAPTOP, name="b")], "cpu", "of a rank that is not on its machine"),
    ],
)
def test_a_carrier_that_cannot_work_there_is_refused(cluster: Cluster, nodes: list[Machine], device: str, said: str):
    [fault] = place(cluster, nodes, device, wanted(2, 2) if device == "cuda" else wanted(4, 1)).faults
    assert fault.startswith("cluster.carrier: ") and said in fault and fault.endswith("; leave it out")


def test_a_tensor_parallel_engine_is_a_strict_pack_and_ranks_are_a_pack():
    placed = place(AutoCluster(), FOUR_NODES, "cuda", wanted(2, 8, parallel=4))
    assert [(group.strategy, group.bundles) for group in placed.groups] == [
        ("STRICT_PACK", ({"GPU": 4.0},)),
        ("STRICT_PACK", ({"GPU": 4.0},)),
        ("PACK", ({"GPU": 1.0},) * 8),
    ]
    assert placed.bundles["engine"] == [(0, 0), (1, 0)] and placed.bundles["learner"] == [(2, rank) for rank in range(8)]
    assert placed.gpus == {"driver": 0, "engine": 4, "judge": 0, "learner": 1} and placed.total_gpus == 16


@given(
    st.lists(st.tuples(st.integers(0, 8), st.sampled_from([24, 24, 80])), min_size=1, max_size=4),
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from([1, 1, 2, 4]),
    st.sampled_from([AutoCluster(), ApartCluster(kind="apart"), ColocatedCluster(kind="colocated")]),
)
def test_no_gpu_is_given_twice_and_a_refusal_names_the_sum(
    gpus: list[tuple[int, int]], engines: int, ranks: int, parallel: int, cluster: Cluster
):
    nodes = [Machine(8, 64 * GB, (size * GB,) * count, name=str(index)) for index, (count, size) in enumerate(gpus)]
    for placed in places(cluster, nodes, "cuda", wanted(engines, ranks, parallel)):
        if placed.faults:
            assert any(word in placed.faults[0] for word in ("needs", "tensor_parallel_size", "evenly"))
            assert placed.total_gpus > sum(count for count, _ in gpus) or parallel > 1 or engines % ranks
            return
        used = [0.0] * len(nodes)
        for name in ("engine", "learner"):
            assert len(placed.at[name]) == len(placed.bundles[name]) == {"engine": engines, "learner": ranks}[name]
            for node in placed.at[name]:
                used[node] += placed.gpus[name]
        assert all(part <= len(node.gpus) + 1e-9 for part, node in zip(used, placed.nodes, strict=False))
        load_of = Counter[tuple[int, int]]()  # of a bundle, by whoever is in it
        for name, at in placed.bundles.items():
            for bundle in at:
                load_of[bundle] += placed.gpus[name]  # type: ignore[assignment]
        assert all(load <= placed.groups[group].bundles[bundle]["GPU"] + 1e-9 for (group, bundle), load in load_of.items())


def test_colocated_engines_and_ranks_are_in_one_bundle_by_turns():
    placed = place(ColocatedCluster(kind="colocated"), [EIGHT], "cuda", wanted(8, 8))
    assert placed.shared and placed.gpus["engine"] == placed.gpus["learner"] == 0.5 and placed.total_gpus == 8
    assert placed.bundles["engine"] == placed.bundles["learner"] == [(0, gpu) for gpu in range(8)]
    uneven = place(ColocatedCluster(kind="colocated"), [EIGHT], "cuda", wanted(4, 8))  # is refused, and its sums are said all the same
    assert uneven.faults and (uneven.total_gpus, uneven.on_a_gpu("engine"), uneven.on_a_gpu("learner")) == (8, 1, 1)
    twice = place(ColocatedCluster(kind="colocated"), [EIGHT], "cuda", wanted(16, 8))
    assert (twice.on_a_gpu("engine"), twice.on_a_gpu("learner"), twice.gpus["learner"]) == (2, 1, 0.3333)
    many = [Machine(64, 800 * GB, (80 * GB,) * 8, name=f"{n}") for n in range(512)]
    for each in range(1, 8):
        wide = place(ColocatedCluster(kind="colocated"), many, "cuda", wanted(4096 * each, 4096))
        assert (wide.total_gpus, wide.on_a_gpu("engine"), wide.on_a_gpu("learner")) == (4096, each, 1)
    over = place(ColocatedCluster(kind="colocated"), FOUR_NODES[:2], "cuda", wanted(16, 16))
    assert over.at["engine"] == over.at["learner"] == [0] * 8 + [1] * 8


def test_one_gpu_is_shared_unless_the_recipe_says_apart():
    assert place(AutoCluster(), [ONE_80], "cuda", wanted(1, 1)).gpus == {"driver": 0, "engine": 0.5, "judge": 0, "learner": 0.5}
    [fault] = place(ApartCluster(kind="apart"), [ONE_80], "cuda", wanted(1, 1)).faults
    assert "needs 2 GPUs (1 x 1 for engines + 1 x 1 for learners) and this machine has 1" in fault


REFUSED = {
    "evenly": (ColocatedCluster(kind="colocated"), [EIGHT], wanted(6, 4), "6 engines do not spread evenly over 4 GPUs with a rank each; set engine.count to 4"),
    "ranks": (ColocatedCluster(kind="colocated"), [ONE_80], wanted(1, 2), "needs 2 GPUs (1 x 0.5 for engines + 2 x 0.5 for learners) and this machine has 1; learner.ranks=1 and engine.count=1 share one"),
    "wide": (ColocatedCluster(kind="colocated"), [EIGHT], wanted(2, 4, 2), "tensor_parallel_size: 2: an engine that shares its GPU with a rank has one"),
    "sum": (AutoCluster(), FOUR_NODES[:2], wanted(12, 6), "needs 18 GPUs (12 x 1 for engines + 6 x 1 for learners) and 2 nodes have 8 + 8 = 16"),
    "whole": (AutoCluster(), MIXED, wanted(2, 2, 5), "an engine takes 5 GPUs of one node, and for number 2 of 2 4 + 3 of 4 + 8 are left; lower it or engine.count"),
    "wider": (AutoCluster(), FOUR_NODES[:2], wanted(1, 1, 12), "for number 1 of 1 8 + 8 of 8 + 8 are left; lower it"),
    "nodes": (ApartCluster(kind="apart", nodes=4), FOUR_NODES[:2], wanted(1, 1), "cluster.nodes: 4 are wanted and 2 there"),
    "each": (ApartCluster(kind="apart", nodes=2, gpus_per_node=8), MIXED, wanted(1, 1), "2 of the nodes must have 8 GPUs, and 1 have (of 4 + 8)"),
    "unknown": (AutoCluster(), [Machine(8, 64 * GB, (0, 80 * GB))], wanted(1, 1), "nvidia-smi does not tell the memory of every GPU"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_wish_that_cannot_be_met_is_refused_with_the_arithmetic(case: str):
    cluster, nodes, wishes, words = REFUSED[case]
    placed = place(cluster, nodes, "cuda", wishes)
    assert words in placed.faults[0] and placed.groups == ()
    assert ("or engine.count" in placed.faults[0]) is (case == "whole")


def test_of_each_node_only_the_gpus_are_taken_that_the_recipe_names():
    placed = place(ApartCluster(kind="apart", nodes=3, gpus_per_node=2), FOUR_NODES, "cuda", wanted(4, 2))
    assert [len(node.gpus) for node in placed.nodes] == [2, 2, 2] and placed.at["engine"] == [0, 0, 1, 1] and placed.at["learner"] == [2, 2]


def test_cores_of_joined_nodes_are_shared_beside_driver_and_judges_and_bundles_name_their_node():
    nodes = [Machine(6, 20 * GB, name="10.0.0.1", lends=6), Machine(2, 20 * GB, name="10.0.0.2", lends=2)]
    placed = place(AutoCluster(), nodes, "cpu", wanted(2, 2))  # 6 - 1 driver - 2 judges: 3 are left beside 2
    assert placed.at["engine"] == [0, 0] and placed.at["learner"] == [1, 0] and placed.total_gpus == 0
    first, second = {"node:10.0.0.1": 0.001}, {"node:10.0.0.2": 0.001}
    assert [group.bundles for group in placed.groups] == [(first, first), (second, first), ({"CPU": 2.0, **first},)]
    alone = place(ApartCluster(kind="apart", nodes=1), nodes, "cpu", wanted(2, 2))
    assert len(alone.nodes) == 1 and [group.bundles for group in alone.groups] == [(first, first), (first, first), ({"CPU": 2.0, **first},)]
    assert place(AutoCluster(), [LAPTOP], "cpu", wanted(2, 2)).groups == ()  # a Ray of our own, where nobody else is


def test_judges_hold_no_more_cores_than_ray_may_hand_out_on_the_drivers_node():
    front = Machine(1, 20 * GB, name="10.0.0.1", lends=0)  # a head that runs nothing
    assert [group.bundles for group in place(AutoCluster(), (front, *FOUR_NODES), "cuda", wanted(1, 1)).groups] == [({"GPU": 1.0},)] * 2
    [*_, judges] = place(AutoCluster(), (replace(EIGHT, lends=1), *FOUR_NODES[1:]), "cuda", wanted(1, 1)).groups
    assert judges.bundles == ({"CPU": 1.0, "node:10.0.0.1": 0.001},)


def test_the_drivers_node_is_among_those_taken_though_it_has_too_few_gpus():
    front = Machine(4, 16 * GB, (24 * GB,), name="10.0.0.9")
    placed = place(ApartCluster(kind="apart", nodes=2, gpus_per_node=8), (front, *FOUR_NODES), "cuda", wanted(8, 8))
    assert placed.faults == () and [(node.name, len(node.gpus)) for node in placed.nodes] == [
        ("10.0.0.9", 0),
        ("10.0.0.1", 8),
        ("10.0.0.2", 8),
    ]
    assert placed.at["driver"] == [0] and (set(placed.at["engine"]), set(placed.at["learner"])) == ({1}, {2})
    assert [group.bundles[7] for group in placed.groups] == [
        {"GPU": 1.0, f"node:10.0.0.{n}": 0.001} for n in (1, 2)
    ]  # not the driver's one GPU
    made = plan(
        load("dler", "node8", ["cluster={kind: apart, gpus_per_node: 8, nodes: 1}"]), replace(front, gpus=(), memory=GB), FOUR_NODES[:1]
    )
    assert any("the processes on 10.0.0.9 need about" in line for line in made.blockers)  # judges and the driver are there


def test_weights_that_no_shared_memory_holds_are_refused_with_where_and_the_remedy():
    recipe = load("dler", "node8", ["cluster.carrier=store"])
    small = replace(EIGHT, name="", shared=64 << 20)
    [fault] = plan(recipe, small).blockers
    assert "does not fit shared memory: /dev/shm has 67 MB free" in fault and "--shm-size" in fault
    [fault] = plan(recipe, replace(small, shared=2 * GB)).blockers
    assert "does not fit shared memory: /dev/shm has 2.0 GB free" in fault and "--shm-size" in fault
    joined = [replace(node, lends=64, shared=size) for node, size in zip(FOUR_NODES, (64 << 30, 1 << 30, 1, 1), strict=True)]
    [fault] = plan(recipe, joined[0], joined[1:]).blockers  # 10.0.0.3 and .4 run nothing of it
    assert "the object store of 10.0.0.2, which has 1.1 GB; start Ray there with a larger one (--object-store-memory" in fault
    assert plan(load("quickstart"), replace(LAPTOP, shared=64 << 20)).blockers == []  # Docker's


def test_a_cluster_without_gpus_is_sent_to_where_they_are():
    [fault] = place(AutoCluster(), [LAPTOP, LAPTOP], "cuda", wanted(1, 1)).faults
    assert "and none of the 2 nodes has any; send it to where they are (`laconic submit --address ...`" in fault
    [fault] = place(ColocatedCluster(kind="colocated"), [LAPTOP], "cuda", wanted(1, 1)).faults
    assert fault.startswith("device: cuda needs 1 GPU (1 x 0.5 for engines + 1 x 0.5 for learners) and this machine has none; send it")


INVENTORIES = {  # recipe, scale, further words: machines that it runs on, and that it does not
    ("quickstart", None, ()): ([[LAPTOP], [ONE_24], [ONE_80], [EIGHT], FOUR_NODES], []),
    ("dler", "node8", ()): ([[EIGHT], FOUR_NODES], [[LAPTOP], [ONE_24], [ONE_80]]),
    ("dler", "node8", ("engine.count=16", "learner.ranks=16")): ([FOUR_NODES], [[EIGHT], MIXED]),
}


@pytest.mark.parametrize("case", INVENTORIES)
def test_plan_tells_invented_inventories_on_which_a_recipe_runs_from_the_others(case: tuple[str, str | None, tuple[str, ...]]):
    name, scale, words = case
    fits, not_ = INVENTORIES[case]
    for nodes, runs in [*((nodes, True) for nodes in fits), *((nodes, False) for nodes in not_)]:
        made = plan(load(name, scale, words), nodes[0], nodes[1:])
        assert (not made.blockers) == runs, (len(nodes), made.blockers)


def test_gpus_that_are_unlike_are_counted_by_those_that_are_used_and_named_to_ray():
    """A recipe for one GPU of 80 GB on two cards of 24 GB, four of 80 and a node without: engine and rank are on the second node, and Ray is told so."""
    nodes = (Machine(16, 64 * GB, (24 * GB,) * 2, name="a"), Machine(64, 800 * GB, (80 * GB,) * 4, name="b"), Machine(8, 32 * GB, name="c"))
    made = plan(load("dler", "gpu1-80"), nodes[0], nodes[1:])
    assert not [line for line in made.blockers if "GB" in line], made.blockers
    assert made.placement.least_gpu("engine") == made.placement.least_gpu("learner") == 80 * GB
    assert all("node:b" in bundle for group in made.placement.groups for bundle in group.bundles if "GPU" in bundle)
    both = Machine(64, 800 * GB, (80 * GB, 24 * GB))
    for words, what, fits in ([], "share a GPU and need", True), (["cluster.kind=apart"], "one learner needs", False):
        [line] = [line for line in plan(load("dler", "gpu1-80", words), both).blockers if what in line]
        assert (
            line.endswith("; of 24 GB and 80 GB the smallest counts: leave it out (CUDA_VISIBLE_DEVICES)") == fits
        )  # apart, both are needed


def test_main_memory_is_counted_for_each_node():
    recipe = load("dler", "node8", ["engine.count=8", "learner.ranks=8"])
    made = plan(recipe, FOUR_NODES[0], FOUR_NODES[1:2])
    on = [host_bytes(made.actors, made.placement, node) for node in (0, 1)]
    assert sum(on) == host_bytes(made.actors, made.placement) and min(on) > 0
    small = [Machine(64, 2 * max(on), (80 * GB,) * 8, name="a"), Machine(64, on[1] - 1, (80 * GB,) * 8, name="b")]
    assert any("the processes on b need about" in line for line in plan(recipe, small[0], small[1:]).blockers)
    [fault] = plan(recipe, replace(LAPTOP, name="front"), [replace(EIGHT, name="b")]).blockers  # where nobody has a place, none is too full
    assert "needs 16 GPUs" in fault


def test_a_placement_without_ranks_gives_engines_gpus_of_their_own():
    wishes = wanted(4, 1)[:3]
    placed: Placement = place(ColocatedCluster(kind="colocated"), [EIGHT], "cuda", wishes)
    assert not placed.shared and placed.total_gpus == 4
    alone = place(AutoCluster(), [ONE_80], "cuda", wishes)
    assert alone.gpus["engine"] == 0.25 and alone.faults == ()


@pytest.mark.parametrize(("scale", "machine"), [("gpu1-24", ONE_24), ("gpu1-80", ONE_80), ("node8-colocated", EIGHT), ("node8", EIGHT)])
@pytest.mark.parametrize("recipe", ["dler", "grpo", "d3s", "controller", "thr_exploit", "dpo_short"])
def test_every_scale_plans_on_its_machine_and_on_none_that_is_smaller(recipe: str, scale: str, machine: Machine):
    made = plan(load(recipe, scale), machine)
    assert made.blockers == [] and made.placement.shared == (scale != "node8")
    half = replace(machine, gpus=tuple(size // 4 for size in machine.gpus))
    assert any("memory" in line for line in plan(load(recipe, scale), half).blockers)


def test_adapters_take_no_gradients_and_no_optimiser_state_of_frozen_weights():
    full, lora = (
        learner_bytes(KNOWN_15, Learner(adapter=adapter, zero_stage=2), bf16=True, reference=True, longest=4096)
        for adapter in (FullWeights(), Lora(kind="lora", rank=32))
    )
    trained = trained_parameters(KNOWN_15, Lora(kind="lora", rank=32))
    assert trained == 28 * 32 * (2 * (1536 + 1536) + 2 * (1536 + 256) + 3 * (1536 + 8960))  # q, o; k, v; gate, up, down
    assert lora["gradients"] == 2 * trained and lora["optimiser"] == 16 * trained and "reference" not in lora
    assert full["optimiser"] == 16 * KNOWN_15.parameters and full["weights"] == lora["weights"]


HALF = Shape(24, 896, 14, 2, 64, 4864, 151936, True, 32768)  # of Qwen2.5-0.5B


def turns_of(words: Sequence[str], machine: Machine, scale: str = "gpu1-80") -> Plan:
    return plan(load("dler", scale, words), machine)


def test_an_engine_gets_what_a_resting_learner_leaves_and_the_learner_what_a_sleeping_engine_leaves():
    made = turns_of([], ONE_80)
    engine, learner = (next(actor for actor in made.actors if actor.name == name) for name in ("engine", "learner"))
    N, tokens = KNOWN_15.parameters, 1024 + 32768  # an evaluation's longest, which its gate measures whole
    layer = 8 * 1536 + 128 * (5 * 12 + 8 * 2) + 4 * 8960  # numbers of a token
    rests = {"weights": 2 * N, "gate": 2 * tokens * layer + 2048 * 151936 * 8, "context": 800_000_000}
    assert learner.rests == rests and engine.rests == {"context": 800_000_000}
    assert learner.host["resting optimiser"] == 12 * N and learner.host["resting reference"] == 2 * N
    assert engine.bytes + sum(rests.values()) == pytest.approx(0.92 * 80 * GB, rel=1e-3)
    assert made.engine["gpu_memory_utilization"] * 80 * GB >= engine.bytes  # vLLM starts where its share is free


@pytest.mark.parametrize(
    ("words", "stays"),
    [
        (["cluster={kind: colocated, offload: false}"], {"optimiser", "gradients", "buckets", "reference"}),
        (["learner.zero_stage=1"], {"optimiser", "gradients"}),  # in bf16: BF16_Optimizer moves nothing
        (["learner.zero_stage=3"], {"optimiser", "gradients", "buckets"}),
        (["learner.zero_stage=1", "model.dtype=fp32", "learner.micro_batch_tokens=4096"], set()),
        (["learner.adapter={kind: lora, rank: 8}"], {"adapters"}),
    ],
)
def test_what_deepspeed_cannot_move_or_the_recipe_leaves_there_rests_on_the_gpu(words: list[str], stays: set[str]):
    [learner] = [actor for actor in turns_of(words, ONE_80).actors if actor.name == "learner"]
    assert learner.rests is not None and set(learner.rests) == {"weights", "context", "gate"} | stays
    assert ("resting optimiser" in learner.host) == ("optimiser" not in stays)


def test_turns_make_room_for_more_keys_and_values_and_for_learners_that_fill_a_gpu():
    still = "cluster={kind: colocated, sleep: false}"
    for scale, machine in (("gpu1-24", ONE_24), ("gpu1-80", ONE_80), ("node8-colocated", EIGHT)):
        taken, not_ = (turns_of(words, machine, scale) for words in ([], [still]))
        assert taken.turns and not not_.turns and "enable_sleep_mode" not in not_.engine
        assert taken.engine["kv_cache_memory_bytes"] > 1.15 * not_.engine["kv_cache_memory_bytes"]
    smaller = Machine(16, 128 * GB, (58 * GB,))
    assert turns_of([], smaller).blockers == []
    assert any("share the one GPU" in line for line in turns_of([still], smaller).blockers)
    smallest = Machine(16, 128 * GB, (50 * GB,))
    assert any("in the learners' turn (1 x 800 MB for engines + 1 x" in line for line in turns_of([], smallest).blockers)


QWEN_14 = Shape(48, 5120, 40, 8, 128, 13824, 152064, False, 32768)  # of Qwen2.5-14B
EACH_14 = 48 * (2 * 5120 * 5120 + 2 * 5120 * 1024 + 3 * 5120 * 13824)  # numbers of its linear layers


@pytest.mark.parametrize(
    ("words", "scale", "machine", "held"),
    [
        # rests with what its adapters were added in to, 26 GB, until the engine has it
        ([], "gpu1-80", Machine(16, 256 * GB, (141 * GB,)), 2 * EACH_14 + 12 * 5120 * 13824),
        # a broadcast takes one layer after the other, with three copies in fp32: less than an update's activations
        ([], "node8", EIGHT, 0),
        # gathered whole by ZeRO-3, and one layer beside it
        (["learner.zero_stage=3"], "node8", EIGHT, 2 * QWEN_14.parameters + (12 + 2) * 5120 * 13824),
    ],
)
def test_a_push_takes_room_where_adapters_are_added_in_or_zero_3_gathers(
    monkeypatch: pytest.MonkeyPatch, words: list[str], scale: str, machine: Machine, held: int
):
    monkeypatch.setitem(KNOWN, "Qwen/Qwen2.5-14B-Instruct", QWEN_14)
    sizes = ["eval.max_tokens=2048", "budget.limit=1024", "learner.micro_batch_tokens=2048", "learner.logit_chunk_tokens=512"]
    asked = ["model.path=Qwen/Qwen2.5-14B-Instruct", "learner.adapter={kind: lora}", *sizes, *words]
    made = turns_of(asked, machine, scale)
    [learner] = [actor for actor in made.actors if actor.name == "learner"]
    beyond = learner.holds.get("push", 0)
    updates = sum(learner.holds.get(name, 0) for name in ("activations", "logits", "gathered")) if beyond else 0
    assert made.blockers == [] and (learner.rests or {}).get("push", beyond + updates) == held
    smaller = replace(machine, gpus=(80 * GB if scale == "gpu1-80" else 40 * GB,) * len(machine.gpus))
    assert bool(held) == any("memory" in line for line in turns_of(asked, smaller, scale).blockers)


def test_a_model_of_half_a_billion_trains_whole_on_24_gigabytes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(KNOWN, "Qwen/Qwen2.5-0.5B-Instruct", HALF)
    words = ["model.path=Qwen/Qwen2.5-0.5B-Instruct", "learner.adapter={kind: full}", "learner.lr=1e-6", "eval.max_tokens=8000"]
    made = turns_of(words, ONE_24, "gpu1-24")
    assert made.blockers == [] and made.turns


def test_no_turns_are_taken_where_there_is_nothing_to_share_or_nobody_who_can_sleep():
    assert not plan(load("dler", "node8"), EIGHT).turns
    assert not turns_of(["engine.kind=reference"], ONE_80).turns and not turns_of(["engine.vllm.enable_sleep_mode=false"], ONE_80).turns
    assert not turns_of(["stages=[eval]"], ONE_80).turns and not plan(load("quickstart"), LAPTOP).turns
    assert turns_of(["cluster={kind: auto}"], ONE_80).turns  # by itself on one GPU
    unknown = turns_of(["model.path=owner/unknown"], ONE_80)
    assert unknown.turns and unknown.engine["enable_sleep_mode"]


def test_the_tables_of_the_page_on_gpus_are_current():
    text = gpu_page.PAGE.read_text(encoding="utf-8")
    assert text == gpu_page.renewed(text), "run `python -m launch.gpu_page`"
