"""The slot of what is trained of a model: all of its weights, or adapters beside them that stay frozen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from recipes.section import Count, Positive, Section, kind_or

_ENDS = ("lm_head", "embed_tokens", "embed_out", "wte", "wpe", "word_embeddings", "embeddings")  # of a model, where adapters are not seen


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
        [], description="Ends of names of the linear layers that get one (`[q_proj, v_proj]`); []: all but the output head, which has none."
    )

    def at(self, layer: str) -> bool:
        """Whether a linear layer gets one, by its name in the model; peft's rule."""
        return not self.targets or any(f".{layer}".endswith(f".{target}") for target in self.targets)

    @field_validator("targets")
    @classmethod
    def _linear_layers(cls, targets: list[str]) -> list[str]:
        if odd := [name for name in targets if name.rpartition(".")[2] in _ENDS]:
            raise ValueError(f"{odd[0]}: the output head and embeddings have no adapter here; leave it out")
        return targets


Adapter = Annotated[FullWeights | Lora, Field(discriminator="kind"), kind_or("full")]
