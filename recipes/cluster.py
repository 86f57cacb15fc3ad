"""The slot of the cluster: which nodes a recipe takes, and whether engines and the learner's ranks share GPUs. How many there are of them, engine.count and learner.ranks say."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from recipes.section import Count, Section, kind_or

Carrier = Literal["auto", "store", "ipc", "broadcast"]


class _Carried(Section):
    carrier: Carrier = Field(
        "auto",
        description="What carries weights to engines: ipc (one reads the other's memory) on shared GPUs, broadcast (NCCL) on GPUs apart, else store (Ray's), which works everywhere.",
    )


class _Nodes(_Carried):
    nodes: Count | None = Field(None, description="Nodes to take, of those that are there; null: all.")
    gpus_per_node: Count | None = Field(None, description="GPUs to take of each; null: all.")
    preemptible: bool = Field(
        False,
        description="Nodes may be taken away: a job of Slurm or KubeRay starts again by itself and goes on from its newest checkpoint; `--resume` starts a run that is not there yet.",
    )


class AutoCluster(_Carried):
    kind: Literal["auto"] = Field("auto", description="All that is there: colocated on one GPU, apart elsewhere.")
    preemptible: ClassVar[bool] = False


class ApartCluster(_Nodes):
    kind: Literal["apart"] = Field(..., description="Engines and ranks have GPUs of their own.")


class ColocatedCluster(_Nodes):
    kind: Literal["colocated"] = Field(..., description="A GPU has one rank and its share of the engines; they take turns.")
    sleep: bool = Field(
        True, description="vLLM gives its memory away while the learner works, and takes it again for the weights that come then."
    )
    offload: bool = Field(
        True,
        description="Optimiser state, fp32 weights and the reference wait in main memory while engines sample (the optimiser's with learner.zero_stage 2; of fp32 with 1, too).",
    )


Cluster = Annotated[AutoCluster | ApartCluster | ColocatedCluster, Field(discriminator="kind"), kind_or("auto")]


def turns(cluster: Cluster) -> ColocatedCluster:
    """How engines and ranks take turns where they share GPUs; by itself on one GPU as colocated does."""
    return cluster if isinstance(cluster, ColocatedCluster) else ColocatedCluster(kind="colocated")
