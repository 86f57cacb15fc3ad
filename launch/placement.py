"""Where the processes of a plan run: on which nodes and GPUs, decided once, before anything starts.

Claim: plan's sums and memory, Ray's placement groups and the actors' resources all read one Placement, made of what processes take and of
the nodes that are there; what cannot be met is refused with the arithmetic. Apart, every process has GPUs of its own: engines go first, each whole on
the node where least is left that holds it, then ranks fill up the nodes where most is left. Colocated, a GPU has one rank and as many engines as any
other. Of unlike GPUs plan takes nodes as they come if all of it fits, else the smaller ones for ranks or for engines, else larger ones alone; where cluster.nodes leaves some out, the first that do. Driver and judges are on the first node, whether or not it has GPUs that are taken. In a Ray that is joined, judges hold their cores.
Simplification: this is how Ray's PACK and STRICT_PACK place bundles on empty nodes; which GPUs of a node they are, Ray decides. Bundles name their nodes where
the recipe does not take all GPUs that are there, and on joined nodes without GPUs, where Ray counts nothing of engines and ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import ceil, floor
from typing import Literal

from launch.machine import Machine
from recipes.cluster import ApartCluster, AutoCluster, Carrier, Cluster, ColocatedCluster

_NAMED = 0.001  # of the resource that Ray gives each node under its address, of which it has 1


@dataclass(frozen=True)
class Wish:
    """Processes of a kind: how many, the threads of each, and the GPUs that it has where none is shared."""

    name: str
    count: int
    threads: int = 1
    gpus: int = 0


@dataclass(frozen=True)
class Group:
    """Bundles of resources that Ray finds room for together: on one node (STRICT_PACK), or on as few as it can (PACK)."""

    strategy: Literal["PACK", "STRICT_PACK"]
    bundles: tuple[dict[str, float], ...]


@dataclass(frozen=True)
class Placement:
    """Where processes run.

    Attributes:
        nodes: those that are taken, the driver's first.
        gpus: that one process of a name takes; a fraction where several are on one.
        at: node of each process, an index of `nodes`, by the process's name; -1: nowhere.
        groups: what Ray is asked for; none in a Ray of our own without GPUs.
        bundles: (group, bundle) of each process that is in one, by its name.
        faults: why the wish cannot be met, a sentence each.
        carrier: of weights from ranks to engines (rl/carriers), and why that one; none where no policy is trained beside engines.
    """

    nodes: tuple[Machine, ...]
    gpus: dict[str, float]
    at: dict[str, list[int]]
    groups: tuple[Group, ...] = ()
    bundles: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    carrier: tuple[Carrier, str] | None = None

    @property
    def shared(self) -> bool:
        """Whether a GPU has several processes."""
        return any(0 < part < 1 for part in self.gpus.values())

    @property
    def total_gpus(self) -> int:
        """GPUs that all processes take together."""
        if self.shared:  # one for each rank, or trainer; where there is none, one for all engines
            return next((len(at) for name, at in self.at.items() if self.gpus[name] and name != "engine"), 1)
        return ceil(sum(part * len(self.at[name]) for name, part in self.gpus.items()))

    def least_gpu(self, name: str) -> int:
        """Bytes of the smallest GPU of those nodes that have a process of this name, which is on one; of all nodes where it has no place; 0 without any that tells."""
        used = {node for node in self.at[name] if node >= 0} or range(len(self.nodes))
        return min((size for node in used for size in self.nodes[node].gpus if size), default=0) if self.gpus[name] else 0

    def on_a_gpu(self, name: str) -> int:
        """How many processes of a name are on each GPU that is shared."""
        return ceil(len(self.at.get(name, ())) / self.total_gpus) if self.gpus.get(name) else 0


def place(cluster: Cluster, nodes: Sequence[Machine], device: str, wishes: Sequence[Wish]) -> Placement:
    """A place for every process and a carrier for weights, or what is in the way; the first of `places`."""
    return next(places(cluster, nodes, device, wishes))


def places(cluster: Cluster, nodes: Sequence[Machine], device: str, wishes: Sequence[Wish]) -> Iterator[Placement]:
    """Ways to place processes: on nodes as they come, with smaller GPUs for one or the other, then on those with larger GPUs alone; at least one, if only to
    say what is in the way.

    Args:
        nodes: that are there, the driver's first; at least one.
        wishes: among them at most one of "engine", and one of ranks behind it.
    """
    found = list(_places(cluster, nodes, device, wishes))
    most = max(found, key=lambda one: sum(len(node.gpus) for node in one.nodes))
    for placed in [one for one in found if not one.faults] or [most]:
        if placed.faults or not {"engine", "learner"} <= placed.at.keys():
            yield placed
            continue
        name, why, fault = _carrier(cluster.carrier, placed, device)
        yield replace(placed, carrier=(name, why), faults=(f"cluster.carrier: {name}: {fault}; leave it out",) if fault else ())


def _carrier(asked: Carrier, placed: Placement, device: str) -> tuple[Carrier, str, str]:
    """The one that is asked for, or that moves the fewest bytes here; why, and what is in its way."""
    engines, ranks = placed.at["engine"], placed.at["learner"]
    best: tuple[Carrier, str] = ("store", "which works everywhere: there are no GPUs")
    if device == "cuda" and placed.shared:
        best = ("ipc", "an engine reads the memory of the rank on its GPU")
    elif device == "cuda":
        best = ("broadcast", "engines and ranks have GPUs of their own")
    if asked in ("auto", best[0]):
        return *best, ""
    apart = any(node != ranks[index % len(ranks)] for index, node in enumerate(engines))  # rl/carriers.Ipc
    fault = ""
    if asked == "ipc" and (device == "cuda" or apart):
        fault = f"an engine would read the memory of a rank that is not on its {'GPU' if device == 'cuda' else 'machine'}"
    elif asked == "broadcast" and placed.shared:
        fault = "NCCL has one process on a GPU, and engines and ranks share theirs"
    return asked, "as the recipe says", fault


def _places(cluster: Cluster, nodes: Sequence[Machine], device: str, wishes: Sequence[Wish]) -> Iterator[Placement]:
    ways, fault = _ways(cluster, nodes, device)
    users = [wish for wish in wishes if wish.gpus] if device == "cuda" else []
    gpus = dict.fromkeys((wish.name for wish in wishes), 0.0) | {wish.name: float(wish.gpus) for wish in users}
    at = {wish.name: [-1 if wish in users else 0] * wish.count for wish in wishes}
    faults = [fault] if fault else []
    if users and not all(size for node in ways[0] for size in node.gpus):
        faults.append(
            "memory: nvidia-smi does not tell the memory of every GPU here (`nvidia-smi` shows which); leave those out of CUDA_VISIBLE_DEVICES"
        )
    shares = _colocates(cluster, ways[0], users)
    if shares:
        engines, *ranks = users
        each = 1 + max(engines.count // ranks[0].count, 1) if ranks else engines.count  # processes on a GPU
        part = floor(1e4 / each) / 1e4  # Ray counts in ten-thousandths
        gpus |= {wish.name: part for wish in users}
    smaller = ["", *(wish.name for wish in reversed(users))] if len(users) > 1 and not shares else [""]
    for taken, small in product(ways, smaller):
        if small and not _unlike(taken):
            continue
        found = Placement(taken, gpus, at, faults=tuple(faults))
        if users and not faults:
            found = _together(cluster, found, users) if shares else _apart(cluster, found, users, small)
        elif not faults:
            found = _on_cores(found, wishes)
        if found.faults:
            yield found
            continue
        others = sum(len(node.gpus) for node in nodes) - sum(len(node.gpus) for node in found.nodes)
        named = _naming(found) if users and (others or _unlike(found.nodes)) else found  # memory is that of the GPUs which it says
        yield _judging(named, sum(wish.count for wish in wishes if wish.name == "judge"))


def _ways(cluster: Cluster, nodes: Sequence[Machine], device: str) -> tuple[list[tuple[Machine, ...]], str]:
    """Nodes that the recipe may take, with the GPUs that it takes of them, as they come, then with larger GPUs alone; and why there are not as many as it wants. The driver's is there in any case."""
    on_gpus = device == "cuda" and any(node.gpus for node in nodes)
    count, each = (None, 0) if isinstance(cluster, AutoCluster) else (cluster.nodes, (cluster.gpus_per_node or 0) if on_gpus else 0)
    wide = [index for index, node in enumerate(nodes) if len(node.gpus) >= each]
    if (count or 1) > len(wide):
        fault = f"cluster.nodes: {count} are wanted and {len(nodes)} there; lower it"
        if each and len(wide) < len(nodes):
            fault = f"cluster.gpus_per_node: {count or 1} of the nodes must have {each} GPU{'s' * (each > 1)}, and {len(wide)} have (of {_sum(nodes)}); lower it, or cluster.nodes"
        return [tuple(nodes)], fault
    cut = [replace(node, gpus=node.gpus[: each or None], cards=node.cards[: each or None]) for node in nodes]
    ways: list[tuple[Machine, ...]] = []
    for least in sorted({0, *(_smallest(cut[index]) for index in wide if on_gpus)}):
        large = [index for index in wide if not on_gpus or _smallest(cut[index]) >= least]
        for order in (large, sorted(large, key=lambda index: -len(cut[index].gpus))):
            chosen = order[: count or None]
            if len(chosen) >= (count or 1):
                kept = [index for index in range(len(nodes)) if not (index and (count or each)) or index in chosen]
                ways.append(tuple(cut[index] if index in chosen else replace(nodes[index], gpus=(), cards=()) for index in kept))
    return ways, ""


def _unlike(nodes: Sequence[Machine]) -> bool:
    return len({size for node in nodes for size in node.gpus}) > 1


def _smallest(node: Machine) -> int:
    return min(node.gpus, default=0)


def _colocates(cluster: Cluster, nodes: Sequence[Machine], users: Sequence[Wish]) -> bool:
    """Whether processes share GPUs. By itself where there is one GPU alone, which they can share: tensor parallelism and NCCL's ranks want several."""
    several = sum(wish.count for wish in users) > 1
    if isinstance(cluster, ColocatedCluster):
        return several and (len(users) > 1 or (users[0].name == "engine" and sum(len(node.gpus) for node in nodes) == 1))
    one_each = all(wish.gpus == 1 and (wish.count == 1 or wish.name == "engine") for wish in users)
    return isinstance(cluster, AutoCluster) and several and one_each and sum(len(node.gpus) for node in nodes) == 1


def _apart(cluster: Cluster, found: Placement, users: Sequence[Wish], small: str) -> Placement:
    """With GPUs of their own, the smaller ones for processes called `small`; "": nodes as they come."""
    free, smallest = [len(node.gpus) for node in found.nodes], [_smallest(node) for node in found.nodes]
    needed = sum(wish.count * wish.gpus for wish in users)
    if needed > sum(free):
        return replace(found, faults=(_too_few(cluster, found, needed, users),))
    groups: list[Group] = []
    at, bundles = dict(found.at), dict(found.bundles)
    for wish in users:
        at[wish.name], bundles[wish.name] = [], []
        for index in range(wish.count):
            fits = [node for node, left in enumerate(free) if left >= wish.gpus]
            if not fits:
                rest, fewer = " + ".join(map(str, free)), " or engine.count" * (index > 0)
                fault = (
                    f"engine.vllm.tensor_parallel_size: an engine takes {wish.gpus} GPUs of one node, and for number {index + 1} of {wish.count} "
                    f"{rest} of {_sum(found.nodes)} are left; lower it{fewer}"
                )
                return replace(found, faults=(fault,))
            by_size = {"": 0, wish.name: 1}.get(small, -1)
            by_left = 1 if wish.name == "engine" else -1
            node = min(fits, key=lambda node: (by_size * smallest[node], by_left * free[node]))
            if wish.name != "engine":  # ranks stay together
                node = next((last for last in at[wish.name][-1:] if last in fits), node)
            free[node] -= wish.gpus
            at[wish.name].append(node)
            whole = wish.gpus > 1
            bundles[wish.name].append((len(groups) + index, 0) if whole else (len(groups), index))
        one = {"GPU": float(wish.gpus)}
        groups += [Group("STRICT_PACK", (one,))] * wish.count if wish.gpus > 1 else [Group("PACK", (one,) * wish.count)]
    return replace(found, at=at, groups=tuple(groups), bundles=bundles)


def _together(cluster: Cluster, found: Placement, users: Sequence[Wish]) -> Placement:
    engines, *ranks = users
    gpus = ranks[0].count if ranks else 1
    fault = ""
    if wide := next((wish for wish in users if wish.gpus > 1), None):
        fault = f"engine.vllm.tensor_parallel_size: {wide.gpus}: an engine that shares its GPU with a rank has one; leave it out, or say cluster.kind=apart"
    elif gpus > sum(len(node.gpus) for node in found.nodes):
        fault = _too_few(cluster, found, gpus, users)
    elif engines.count % gpus:
        fault = f"cluster.kind: colocated: {engines.count} engines do not spread evenly over {gpus} GPUs with a rank each; set engine.count to {gpus}"
    if fault:
        return replace(found, faults=(fault,))
    order = sorted(range(len(found.nodes)), key=lambda node: -len(found.nodes[node].gpus))
    node_of = [node for node in order for _ in found.nodes[node].gpus][:gpus]
    at = {wish.name: [node_of[index % gpus] for index in range(wish.count)] for wish in users}
    bundles = {wish.name: [(0, index % gpus) for index in range(wish.count)] for wish in users}
    return replace(found, at=found.at | at, groups=(Group("PACK", ({"GPU": 1.0},) * gpus),), bundles=bundles)


def _naming(found: Placement) -> Placement:
    """The same, with the node of each bundle, as there are GPUs that the recipe does not take, or that are unlike."""
    named = [[dict(bundle) for bundle in group.bundles] for group in found.groups]
    for name, bundles in found.bundles.items():
        for (group, bundle), node in zip(bundles, found.at[name], strict=True):
            if found.nodes[node].name:
                named[group][bundle][f"node:{found.nodes[node].name}"] = _NAMED
    return replace(found, groups=tuple(Group(group.strategy, tuple(bundles)) for group, bundles in zip(found.groups, named, strict=True)))


def _judging(found: Placement, judges: int) -> Placement:
    """Cores that the judges hold of a joined Ray, on the driver's node; as many as it may hand out there, if they are more."""
    held = min(judges, found.nodes[0].lends or 0)
    if not held:
        return found
    return replace(found, groups=(*found.groups, Group("PACK", ({"CPU": float(held), f"node:{found.nodes[0].name}": _NAMED},))))


def _on_cores(found: Placement, wishes: Sequence[Wish]) -> Placement:
    """Engines and ranks on joined nodes without GPUs: each where most cores are left beside driver and judges."""
    if not found.nodes[0].name:
        return found
    free = [node.cores for node in found.nodes]
    moved = [wish for wish in wishes if wish.name in ("engine", "learner")]  # all else is the driver's
    free[0] -= sum(wish.count * wish.threads for wish in wishes if wish not in moved)
    at, bundles = dict(found.at), dict(found.bundles)
    groups: list[Group] = []
    for wish in moved:
        at[wish.name] = []
        for _ in range(wish.count):
            node = max(range(len(free)), key=lambda node: (free[node], -node))
            free[node] -= wish.threads
            at[wish.name].append(node)
        bundles[wish.name] = [(len(groups), index) for index in range(wish.count)]
        groups.append(Group("PACK", tuple({f"node:{found.nodes[node].name}": _NAMED} for node in at[wish.name])))
    return replace(found, at=at, groups=tuple(groups), bundles=bundles)


def _too_few(cluster: Cluster, found: Placement, needed: int, users: Sequence[Wish]) -> str:
    words = " + ".join(f"{wish.count} x {found.gpus[wish.name]:g} for {wish.name}s" for wish in users)
    there = sum(len(node.gpus) for node in found.nodes)
    wanted = f"device: cuda needs {needed} GPU{'s' * (needed > 1)} ({words})"
    alone = "the one node" if found.nodes[0].name else "this machine"
    if not there:
        why = f" ({found.nodes[0].trouble})" if found.nodes[0].trouble else ""
        here = f"{alone} has none" if len(found.nodes) == 1 else f"none of the {len(found.nodes)} nodes has any"
        return (
            f"{wanted} and {here}{why}; send it to where they are (`laconic submit --address ...`, "
            "`laconic manifest slurm`), or run it with --scale tiny"
        )
    less, apart = "lower engine.count or learner.ranks", isinstance(cluster, ApartCluster)
    if there == 1 and len(users) > 1 and users[1].name == "learner":
        less = "learner.ranks=1 and engine.count=1 share one" + " without cluster.kind=apart" * apart
        less = "leave out cluster.kind=apart, so that they share it" if apart and needed == 2 else less
    nodes = [node for node in found.nodes if node.gpus]
    alone = f"the node that is taken ({nodes[0].name})" if len(nodes) < len(found.nodes) else alone
    here = f"{alone} has {there}" if len(nodes) == 1 else f"{len(nodes)} nodes have {_sum(nodes)} = {there}"
    here += "".join(f" by cluster.{key}" for key in ("nodes", "gpus_per_node") if getattr(cluster, key, None))
    return f"{wanted} and {here}; {less}"


def _sum(nodes: Sequence[Machine]) -> str:
    return " + ".join(f"{len(node.gpus)}" for node in nodes)
