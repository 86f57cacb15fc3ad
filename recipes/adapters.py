"""The slot of what is trained of a model: all of its weights, or adapters beside them that stay frozen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from recipes.section import Count, Positive, Section, kind_or


class FullWeights(Section):
    kind: Literal["full"] = Field("full", description="All weights train.")


class Lora(Section):
    kind: Literal["lora"] = Field(
        ...,
        description="Low-rank adapters train beside frozen weights (LoRA, arXiv 2106.09685), which cost no gradients and no optimiser state; wants about ten times the learning rate.",
    )
    rank: Count = Field(32, description="Of an adapter's two matrices.")
    alpha: Positive = Field(64.0, description="Adapters count alpha / rank times.")
    targets: list[str] = Field(
        [], description="Ends of names of the linear layers that get one (`[q_proj, v_proj]`); []: all but the output head."
    )


Adapter = Annotated[Annotated[FullWeights, Tag("full")] | Annotated[Lora, Tag("lora")], Discriminator(kind_or("full"))]
