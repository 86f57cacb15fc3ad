"""The objective slot: ratio, clipping, mismatch correction, KL and entropy terms, and how a token's loss is weighed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from recipes.section import NonNegative, Positive, Section, Share, kind_or


class _EntropyBonus(Section):
    coef: NonNegative = Field(0.0, description="Weight of the entropy bonus; where it starts if it adapts.")


class FixedEntropy(_EntropyBonus):
    kind: Literal["fixed"] = Field("fixed", description="A bonus of one weight.")


class AdaptiveEntropy(_EntropyBonus):
    kind: Literal["adaptive"] = Field(
        ...,
        description="Its weight grows by `delta` after a step whose entropy is below `target`, else falls; off while entropy is above it.",
    )
    target: Positive = Field(..., description="Entropy to keep, nats.")
    delta: Positive = Field(0.005, description="Change of the weight in a step.")
    most: Positive = Field(1.0, description="Upper bound of the weight.")

    @model_validator(mode="after")
    def _starts_in_bounds(self) -> AdaptiveEntropy:
        if self.coef > self.most:
            raise ValueError(f"coef: {self.coef:g} is above most {self.most:g}, where an adaptive weight must stay")
        return self


Entropy = Annotated[FixedEntropy | AdaptiveEntropy, Field(discriminator="kind"), kind_or("fixed")]


class Kl(Section):
    coef: NonNegative = Field(
        0.0,
        description="Weight, in each token's loss, of the penalty against the reference (the model the stage starts from). In the reward: term `kl`.",
    )
    estimator: Literal["k1", "k2", "k3"] = Field(
        "k2", description="Per-token estimator of d = log policy - log reference: d, d^2/2, e^-d - 1 + d."
    )


class Hinge(Section):
    weight: NonNegative = Field(
        0.0,
        description="Weight x max(0, D - slack), held constant, on D, the mean over an update's tokens of old logp - logp: from a step's second update on (DRPO: 1000).",
    )
    slack: NonNegative = Field(1e-4, description="D that costs nothing, nats (DRPO: 1e-4).")


class NoCorrection(Section):
    kind: Literal["none"] = Field("none", description="Weight 1.")


class TisCorrection(Section):
    kind: Literal["tis"] = Field(
        ..., description="min(r, high), r the token's learner / engine probability; as all others, it needs old_logprobs: learner."
    )
    high: Annotated[float, Field(ge=1)] = Field(2.0, description="Upper bound.")


class _Bounded(Section):
    low: Share = Field(0.5, description="Lower bound.")
    high: Annotated[float, Field(ge=1)] = Field(2.0, description="Upper bound.")


class ClampCorrection(_Bounded):
    kind: Literal["clamp"] = Field(..., description="r, not below low nor above high.")


class IcepopCorrection(_Bounded):
    kind: Literal["icepop"] = Field(..., description="r if it lies in [low, high], else 0.")


class SequenceMaskCorrection(_Bounded):
    kind: Literal["sequence_mask"] = Field(..., description="r if the geometric mean of its rollout lies in [low, high], else 0.")

    @model_validator(mode="after")
    def _bounds_are_no_length_reward(self) -> SequenceMaskCorrection:
        if self.low > 0.997 or self.high < 1.003:
            raise ValueError(
                f"low {self.low:g}, high {self.high:g}: so narrow, sequence_mask drops short rollouts, whose means scatter most: a hidden length reward; "
                "take at most 0.997 and at least 1.003"
            )
        return self


Correction = Annotated[
    NoCorrection | TisCorrection | ClampCorrection | IcepopCorrection | SequenceMaskCorrection, Field(discriminator="kind"), kind_or("none")
]


class Objective(Section):
    ratio: Literal["token", "sequence"] = Field(
        "token",
        description="Learner / old probability of each token, or its geometric mean over the rollout (GSPO; clip 3e-4 / 4e-4 there).",
    )
    surrogate: Literal["clip", "cispo", "logp"] = Field(
        "clip",
        description="PPO's clipped ratio; a clipped weight without gradient on the log-probability, which drops no token (CISPO); or the log-probability as it is, without ratio (DRPO).",
    )
    clip_low: Positive = Field(0.2, description="Ratios below 1 - clip_low stop pushing down; from 1 on there is no such bound.")
    clip_high: Positive = Field(0.28, description="Ratios above 1 + clip_high stop pushing up.")
    dual_clip: Annotated[float, Field(gt=1)] | None = Field(
        None, description="Bound on the ratio of tokens with negative advantage (null: none); with surrogate clip only."
    )
    entropy: Entropy = FixedEntropy()
    aggregate: Literal["token_mean", "sequence_mean", "sequence_sum", "constant"] = Field(
        "token_mean",
        description="Mean over tokens; mean over rollouts of their token means; mean over rollouts of their sums; sum / (rollouts x budget.limit) (Dr.GRPO).",
    )
    old_logprobs: Literal["engine", "learner"] = Field(
        "engine", description="What the ratio divides by: logprobs recorded while sampling, or recomputed by the learner before the update."
    )
    kl: Kl = Kl()
    hinge: Hinge = Hinge()
    correction: Correction = NoCorrection()

    @model_validator(mode="after")
    def _pieces_fit(self) -> Objective:
        if self.correction.kind != "none" and self.old_logprobs == "engine":
            raise ValueError("correction: with old_logprobs: engine the ratio already holds it; set old_logprobs: learner")
        if self.surrogate != "clip" and self.dual_clip is not None:
            raise ValueError(f"dual_clip: says nothing with surrogate {self.surrogate}, which has no such ratio; set null")
        return self
