"""The slots `advantage`, `select` and `tokens`: what a rollout is compared with, which rollouts of a prompt train, and which of their tokens."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from recipes.section import Count, NonNegative, Section, kind_or


class Advantage(Section):
    centre: Literal["group", "leave_one_out", "reference"] = Field(
        "group",
        description="Baseline: the prompt's mean, the mean of its other rollouts (RLOO), or how often the reference model is right, from the column reference_accuracy (AdaptThink).",
    )
    scale: Literal["none", "group", "batch", "batch_tokens", "batch_rewards"] = Field(
        "batch",
        description="Divide by the spread of: nothing (Dr.GRPO), the group (GRPO), all centred rewards (DLER eq. 3), all tokens (REINFORCE++-baseline), all raw rewards (TRL `batch`).",
    )
    ddof: Literal[0, 1] = Field(0, description="0: population spread; 1: Bessel's correction.")
    combine: Literal["sum", "each", "each_leave_one_out"] = Field(
        "sum",
        description="Centre and scale the sum of the reward's terms, or first each term within its group, then their sum by weight (GDPO; TRL `normalize_then_sum`); `each_leave_one_out`: against the other rollouts (NeMo-RL).",
    )
    weigh: Literal["none", "success"] = Field(
        "none",
        description="`success`: advantages above 0 count more the rarer right answers are in their group, those below 0 the more common they are (GRPO-LEAD).",
    )
    shorter: NonNegative = Field(
        0.0,
        description="Added to advantages above 0 of rollouts shorter than those above 0 are on average, once to twice this (QGLAS); 0: nothing.",
    )
    boost: NonNegative = Field(0.0, description="Added to the scaled advantage of right answers (DLER release: 0.1).")

    @model_validator(mode="after")
    def _leave_one_out_has_its_scale(self) -> Advantage:
        if self.centre == "leave_one_out" and self.scale == "batch_rewards":
            raise ValueError(
                "scale: batch_rewards with centre leave_one_out can exceed every bound on an advantage; take batch, or centre group"
            )
        if self.centre == "reference" and (self.scale, self.combine) != ("none", "sum"):
            odd = [
                f"{key} {value} does not fit; take {fits}"
                for key, value, fits in (("scale", self.scale, "none"), ("combine", self.combine, "sum"))
                if value != fits
            ]
            raise ValueError(f"centre: reference leaves what has no mean of 0, so {', and '.join(odd)}")
        return self


class AllRollouts(Section):
    kind: Literal["all"] = Field("all", description="All of them.")


class Selection(Section):
    """One that trains on some rollouts of every prompt."""

    keep: Count = Field(..., description="Rollouts kept of a prompt.")
    others: Literal["drop", "zero"] = Field(
        "drop", description="The others are left out (PODS), or stay with advantage 0: in denominators, KL and entropy terms (GFPO)."
    )


class MaxVariance(Selection):
    kind: Literal["max_variance"] = Field(
        ..., description="Those of largest variance, of rewards (PODS, arXiv 2504.13818) or advantages (D3S)."
    )
    of: Literal["reward", "advantage"] = Field(
        "reward",
        description="Rewards, before advantages are taken of those kept alone; or advantages of all, which stay as they are (D3S, arXiv 2509.22115).",
    )
    scope: Literal["prompt", "batch"] = Field(
        "prompt", description="`keep` of every prompt, or keep x prompts of the whole step; the latter of advantages only."
    )

    @model_validator(mode="after")
    def _a_batch_has_advantages(self) -> MaxVariance:
        if self.scope == "batch" and self.of == "reward":
            raise ValueError("scope: batch compares rollouts of several prompts, whose rewards say different things; take of: advantage")
        return self


class Shortest(Selection):
    kind: Literal["shortest"] = Field(..., description="The shortest (GFPO, arXiv 2508.09726).")


class Efficient(Selection):
    kind: Literal["efficient"] = Field(..., description="Those of most reward per token (GFPO).")


Select = Annotated[AllRollouts | MaxVariance | Shortest | Efficient, Field(discriminator="kind"), kind_or("all")]


class AllTokens(Section):
    kind: Literal["all"] = Field("all", description="All tokens of the rollouts that train.")


class TokenSelection(Section):
    """One that trains on a share of the tokens, those of highest score in the whole update."""

    keep: Annotated[float, Field(gt=0, le=1)] = Field(0.2, description="Share of the update's tokens that train.")
    denominator: Literal["kept", "all"] = Field("kept", description="The loss is a mean over the tokens kept, or over all (TRL).")


class EntropyTokens(TokenSelection):
    kind: Literal["entropy"] = Field(..., description="Those of highest entropy (80/20, arXiv 2506.01939).")


class ImportanceTokens(TokenSelection):
    kind: Literal["importance"] = Field(..., description="Those of highest |advantage| x entropy (D3S, arXiv 2509.22115).")


TokenChoice = Annotated[AllTokens | EntropyTokens | ImportanceTokens, Field(discriminator="kind"), kind_or("all")]
