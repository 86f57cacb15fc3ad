"""The slot `credit`: which of a rollout's tokens its advantage belongs to. Each kind makes one number a token of one number a rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from recipes.section import NonNegative, Positive, Section, Share, kind_or

if TYPE_CHECKING:
    from recipes.schema import Recipe


class _Credit(Section):
    """What plan says of a kind: whether it gives advantages where rewards are the same, whether only where right and wrong meet, and whether by length."""

    pushes: ClassVar[bool] = False
    mixed_only: ClassVar[bool] = False
    sees_length: ClassVar[bool] = False


class EvenCredit(_Credit):
    kind: Literal["even"] = Field("even", description="The rollout's advantage at each of its tokens.")


class ThrCredit(_Credit):
    kind: Literal["thr"] = Field(
        ...,
        description="Token Hidden Reward (arXiv 2510.03669): tokens that hardly move the likelihood of the group's right answers get 0; those that raise it and those that lower it are weighed apart.",
    )
    steer: Annotated[float, Field(gt=-1, lt=1)] = Field(
        0.1, description="Factor 1 + steer on tokens that raise it, 1 - steer on those that lower it: above 0 exploits, below 0 explores."
    )
    threshold: NonNegative = Field(
        1.0, description="Least |influence| that counts, as a multiple of that of right answers' tokens on each other."
    )
    across: Literal["min", "mean"] = Field("min", description="Of several right answers' mean influences, the least or their mean.")


class NthrCredit(_Credit):
    kind: Literal["nthr"] = Field(
        ...,
        description="NTHR (arXiv 2505.18830): tokens of wrong answers that lower the likelihood of right ones get 2 |0.5 - share right| of their advantage.",
    )
    threshold: NonNegative = Field(1.0, description="beta: multiple of the least right answer's mean influence above which they do.")


class EntropyCredit(_Credit):
    kind: Literal["entropy"] = Field(
        ..., description="A + min(weight x entropy, |A| / most): more on tokens at which the policy hesitates (arXiv 2506.14758)."
    )
    weight: NonNegative = Field(0.4, description="alpha.")
    most: Annotated[float, Field(gt=1)] = Field(2.0, description="kappa: what is added stays below |A| / most, so no sign turns.")


class Covariance(_Credit):
    """One that picks few of an update's tokens by the covariance of advantage and logprob (arXiv 2505.22617)."""

    share: Share = Field(2e-4, description="Share of the update's tokens, at least one.")


class ClipCovCredit(Covariance):
    kind: Literal["clip_cov"] = Field(
        ..., description="Clip-Cov: the share, drawn among those of covariance between low and high, trains nothing."
    )
    low: float = Field(1.0, description="Least covariance.")
    high: float = Field(5.0, description="Largest.")


class KlCovCredit(Covariance):
    kind: Literal["kl_cov"] = Field(..., description="KL-Cov: the share of largest covariance pays for |logp - old logp|.")
    weight: Positive = Field(1.0, description="Of that penalty in the token's loss.")


class GtpoCredit(_Credit):
    pushes: ClassVar[bool] = True
    kind: Literal["gtpo"] = Field(
        ...,
        description="Rewards by entropy, then normalised (GTPO and GRPO-S, arXiv 2508.04349): hesitant tokens of right answers earn more, sure ones of wrong answers lose more.",
    )
    level: Literal["token", "sequence"] = Field(
        "token", description="Each token by its entropy (GTPO), or each rollout by its mean (GRPO-S)."
    )
    base: NonNegative = Field(1.0, description="alpha1: weight of the reward itself, and what a wrong answer loses.")
    weight: NonNegative = Field(0.1, description="alpha2: weight of the part by entropy.")
    normalise: Literal["together", "apart"] = Field(
        "together",
        description="Over the whole group, or right and wrong answers each by themselves (as published: half of a right answer's tokens then get a negative advantage).",
    )


class DrpoCredit(_Credit):
    mixed_only: ClassVar[bool] = True
    sees_length: ClassVar[bool] = True
    kind: Literal["drpo"] = Field(
        ...,
        description="DRPO's decoupled objective (arXiv 2510.04474): right answers weigh by their length among right ones alone, wrong ones by their likelihood.",
    )
    spread: Positive = Field(
        0.1, description="lambda: of lengths as shares of the limit; small ones leave the shortest right answer alone."
    )
    temperature: Positive = Field(10.0, description="tau: of wrong answers' mean logprobs; small ones push down the likeliest alone.")


Credit = Annotated[
    Annotated[EvenCredit, Tag("even")]
    | Annotated[ThrCredit, Tag("thr")]
    | Annotated[NthrCredit, Tag("nthr")]
    | Annotated[EntropyCredit, Tag("entropy")]
    | Annotated[ClipCovCredit, Tag("clip_cov")]
    | Annotated[KlCovCredit, Tag("kl_cov")]
    | Annotated[GtpoCredit, Tag("gtpo")]
    | Annotated[DrpoCredit, Tag("drpo")],
    Discriminator(kind_or("even")),
]


def refuse_misfits(recipe: Recipe) -> None:
    """Raise ValueError for a credit whose formula the objective does not compute."""
    objective = recipe.objective
    if isinstance(recipe.credit, DrpoCredit) and (objective.surrogate, objective.aggregate) != ("logp", "sequence_mean"):
        raise ValueError(
            f"credit.kind: drpo weighs mean logprobs of rollouts, not surrogate {objective.surrogate} and aggregate {objective.aggregate}; "
            "say objective: {surrogate: logp, aggregate: sequence_mean}"
        )
