"""The slot `credit`: which of a rollout's tokens its advantage belongs to. Each kind makes one number a token of one number a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from recipes.advantages import Select
from recipes.objectives import Objective
from recipes.section import NonNegative, Positive, Section, kind_or


class _Credit(Section):
    """What others ask of a kind.

    Attributes:
        own: it may give an advantage to a rollout whose own is 0.
        replaces: it makes advantages of its own, so nothing that the slot `advantage` turns is read.
        reads: of the reward: all, that of right answers, or the verdict alone.
        mixed_only: it gives advantages only where right and wrong answers meet.
        pushes: it gives them where rewards are the same.
        sees_length: by length.
    """

    own: ClassVar[bool] = False
    replaces: ClassVar[bool] = False
    reads: ClassVar[Literal["reward", "right", "verdict"]] = "reward"
    mixed_only: ClassVar[bool] = False
    pushes: ClassVar[bool] = False
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

    share: Annotated[float, Field(gt=0, le=1)] = Field(2e-4, description="Share of the update's tokens, at least one.")


class ClipCovCredit(Covariance):
    kind: Literal["clip_cov"] = Field(
        ..., description="Clip-Cov: the share, drawn among those of covariance between low and high, trains nothing."
    )
    low: float = Field(1.0, description="Least covariance.")
    high: float = Field(5.0, description="Largest.")

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> ClipCovCredit:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g}, high {self.high:g}: no covariance lies between them; low must be below high")
        return self


class KlCovCredit(Covariance):
    kind: Literal["kl_cov"] = Field(..., description="KL-Cov: the share of largest covariance pays for |logp - old logp|.")
    weight: Positive = Field(1.0, description="Of that penalty in the token's loss.")


class GtpoCredit(_Credit):
    own: ClassVar[bool] = True
    replaces: ClassVar[bool] = True
    reads: ClassVar[Literal["reward", "right", "verdict"]] = "right"
    pushes: ClassVar[bool] = True
    kind: Literal["gtpo"] = Field(
        ...,
        description="Rewards by entropy, then normalised (GTPO and GRPO-S, arXiv 2508.04349): hesitant tokens of right answers earn more, sure ones of wrong answers lose more.",
    )
    level: Literal["token", "sequence"] = Field(
        "token", description="Each token by its entropy (GTPO), or each rollout by its mean (GRPO-S)."
    )
    base: Positive = Field(1.0, description="alpha1: weight of the reward itself, and what a wrong answer loses.")
    weight: NonNegative = Field(0.1, description="alpha2: weight of the part by entropy.")
    normalise: Literal["together", "apart"] = Field(
        "together",
        description="Over the whole group, or right and wrong answers each by themselves (second-hand, as published: then nothing tells the two apart).",
    )

    @model_validator(mode="after")
    def _something_differs(self) -> GtpoCredit:
        if self.normalise == "apart" and not self.weight:
            raise ValueError(
                "weight: 0 leaves right answers, and wrong ones, nothing to differ by, and normalise: apart compares no others; take together"
            )
        return self


class DrpoCredit(_Credit):
    own: ClassVar[bool] = True
    replaces: ClassVar[bool] = True
    reads: ClassVar[Literal["reward", "right", "verdict"]] = "verdict"
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


class RedundantCredit(_Credit):
    """One that looks for what right answers think although they have reached the gold (rewards/redundant)."""

    own: ClassVar[bool] = True
    words: list[Annotated[str, Field(pattern=r"\S")]] = Field(
        ["wait", "but", "alternatively", "hmm", "let", "therefore", "again", "check"],
        min_length=1,
        description="Words that begin a chunk of a thought where they begin a sentence or a line: DECS' six and the tiny reasoner's.",
    )


class DecsCredit(RedundantCredit):
    replaces: ClassVar[bool] = True
    reads: ClassVar[Literal["reward", "right", "verdict"]] = "verdict"
    kind: Literal["decs"] = Field(
        ...,
        description="DECS (arXiv 2509.25827): right answers' tokens earn 1 + beta, less where they think on although they have the answer; advantages are taken by position.",
    )
    beta: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="Added to a right answer's token before and behind that part.")
    form: Literal["code", "paper"] = Field(
        "code", description="Tokens of that part earn 1 + beta (1 - length / limit), or 1 - beta length / limit."
    )
    gain: Positive = Field(
        0.2, description="Of kappa, the share of a step's groups that may be right answers alone: by how much of their thoughts these need."
    )
    most: Annotated[float, Field(ge=0, lt=1)] = Field(0.2, description="Bound of kappa; 0: none train.")


class EfficiencyCredit(RedundantCredit):
    kind: Literal["efficiency"] = Field(
        ...,
        description="Ours: tokens that a right answer thinks although it has the answer get its advantage less `weight`, and never more than 0; all others keep theirs.",
    )
    weight: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="Taken off; no more than what right and wrong differ by.")


Credit = Annotated[
    EvenCredit
    | ThrCredit
    | NthrCredit
    | EntropyCredit
    | ClipCovCredit
    | KlCovCredit
    | GtpoCredit
    | DrpoCredit
    | DecsCredit
    | EfficiencyCredit,
    Field(discriminator="kind"),
    kind_or("even"),
]


def refuse_misfits(credit: Credit, objective: Objective, select: Select, budget: Sequence[str], keep_groups: str) -> None:
    """Raise ValueError for a credit whose formula the objective does not compute, that trains what the selection leaves out, or that the budget or the
    filter works against.

    Args:
        budget: its kinds.
    """
    if credit.own and getattr(select, "others", "drop") == "zero":
        raise ValueError(
            f"select.others: zero leaves rollouts out by an advantage of 0, and credit.kind {credit.kind} gives them one of its own; take drop"
        )
    if isinstance(credit, DrpoCredit) and (objective.surrogate, objective.aggregate) != ("logp", "sequence_mean"):
        raise ValueError(
            f"credit.kind: drpo weighs mean logprobs of rollouts, not surrogate {objective.surrogate} and aggregate {objective.aggregate}; "
            "say objective: {surrogate: logp, aggregate: sequence_mean}"
        )
    if "outlier" in budget and credit.reads == "verdict":
        raise ValueError(
            f"credit.kind: {credit.kind} weighs whole answers, and the budget outlier leaves some in part; take another budget"
        )
    if isinstance(credit, DecsCredit) and keep_groups == "shaped":
        raise ValueError(
            "sampler.keep_groups: shaped lets in groups of right answers for what they think on, where credit.kind decs has kappa decide how many; take raw"
        )


def refuse_right_below_wrong(credit: Credit, least: float) -> None:
    """Raise ValueError for a reward scale under which a credit would rank a right answer below a wrong one.

    Args:
        least: that a right answer may earn.
    """
    if isinstance(credit, GtpoCredit) and least <= -1:
        raise ValueError(
            f"credit.kind: gtpo gives wrong answers -base whatever they earn, and base x reward to right ones, which may earn {least:g}: raise the verdict's "
            "weight or narrow the terms on right answers until they earn more than -1"
        )
