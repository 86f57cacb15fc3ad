"""Reward terms as a recipe writes them, with the bounds that each states, and what follows from these: that being right beats being wrong (P13).

Claim: whether a recipe keeps the promise is known before it runs, from the numbers of its terms alone; who breaks it says so in the
recipe (`waive`). Simplification: bounds are added up, so two terms that multiply are taken to be as bad as both at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Literal

from pydantic import Field, model_validator

from recipes.section import NonNegative, Positive, Section, Share

ROUNDING = 1e-6  # rewards closer than this, or than this share of the larger, are equal: what float32 leaves of equal sums
_LEAST_MARGIN = 100 * ROUNDING  # of reward between right and wrong, of which a KL term in the reward may take 98 %

Bounds = tuple[float, float]  # least and most
Gate = Annotated[Literal["none", "right"], Field(description="`right`: counts for right answers only.")]
Waiver = Literal["right_beats_wrong", "length_of_wrong"]


@dataclass(frozen=True)
class Case:
    """What the bounds of a term may depend on: the verdicts' worth, rollouts of a group, and the most tokens of limit and rollout."""

    worth: float = 1.0
    group_size: int = 8
    limit: int = 1
    most: int = 1


class Term(Section):
    """What all terms have in common: bounds, and whether length pays a wrong answer."""

    def adds(self, right: bool, case: Case) -> Bounds:
        """Least and most that the term adds to the reward of a right, or of a wrong, answer, gate and weight included."""
        raise NotImplementedError

    def erases(self) -> bool:
        """Whether it may leave a right answer exactly nothing of its verdict, as truncation does: worth as much as a wrong one then."""
        return False

    def sees_length_of_wrong(self) -> bool:
        """Whether the reward of a wrong answer depends on its length."""
        return False


class VerdictTerm(Term):
    kind: Literal["verdict"] = Field(..., description="1 for a right answer, else `wrong`.")
    weight: Positive = Field(1.0, description="Factor.")
    wrong: Annotated[float, Field(lt=1)] = Field(0.0, description="What a wrong answer earns.")

    def adds(self, right: bool, case: Case) -> Bounds:
        return (self.weight, self.weight) if right else (self.weight * self.wrong, self.weight * self.wrong)


class TruncateTerm(Term):
    kind: Literal["truncate"] = Field(
        ..., description="A right answer beyond its limit, or cut off, keeps only `keep` of its point (DLER)."
    )
    keep: Share = Field(0.0, description="What remains: 0 in the DLER paper, 0.1 in its release.")

    def adds(self, right: bool, case: Case) -> Bounds:
        return (-(1 - self.keep) * case.worth if right and self.keep else 0.0, 0.0)

    def erases(self) -> bool:
        return self.keep == 0


class CutTerm(Term):
    kind: Literal["cut"] = Field(..., description="-1 for an answer that was cut off and is not right, else 0.")
    weight: Positive = Field(0.5, description="Factor.")

    def adds(self, right: bool, case: Case) -> Bounds:
        return (0.0, 0.0) if right else (-self.weight, 0.0)


class KlTerm(Term):
    kind: Literal["kl"] = Field(
        ...,
        description="-1 x the mean over a rollout's tokens of sampling policy against reference, at most 0.49 of the margin between right and wrong.",
    )
    weight: NonNegative = Field(..., description="Factor.")
    estimator: Literal["k1", "k2", "k3"] = Field("k1", description="As objective.kl.estimator.")

    def adds(self, right: bool, case: Case) -> Bounds:
        return 0.0, 0.0  # it is bounded by the margin that the others leave


class FormatTerm(Term):
    kind: Literal["format"] = Field(..., description="1 for exactly one thinking block, closed, followed by one box, else 0.")
    weight: Positive = Field(0.1, description="Factor.")
    gate: Gate = "none"

    def adds(self, right: bool, case: Case) -> Bounds:
        return (0.0, self.weight) if right or self.gate == "none" else (0.0, 0.0)


class FunctionTerm(Term):
    kind: Literal["function"] = Field(..., description="A function of your own with TRL's reward signature.")
    name: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] = Field(..., description="`module:function`.")
    weight: float = Field(1.0, description="Factor.")
    gate: Gate = "none"
    low: float = Field(
        0.0,
        description="Least that the function returns; a smaller value stops the run. From `low` and `high` follows whether right beats wrong.",
    )
    high: float = Field(1.0, description="Most that the function returns; a larger value stops the run.")

    @model_validator(mode="after")
    def _low_is_below_high(self) -> FunctionTerm:
        if self.low > self.high:
            raise ValueError(f"low: {self.low:g} is above high {self.high:g}")
        return self

    def adds(self, right: bool, case: Case) -> Bounds:
        ends = self.weight * self.low, self.weight * self.high
        return (min(ends), max(ends)) if right or self.gate == "none" else (0.0, 0.0)


RewardTerm = Annotated[
    VerdictTerm | TruncateTerm | CutTerm | KlTerm | FormatTerm | FunctionTerm,
    Field(discriminator="kind"),
]


def margin(reward: Sequence[RewardTerm], case: Case) -> float:
    """The least reward of a right answer minus the most of a wrong one, leaving out right ones whose verdict a term erases."""
    return _of_right(reward, case) - _most_of_wrong(reward, case)


def refuse_wrong_before_right(reward: Sequence[RewardTerm], case: Case, waived: Sequence[Waiver]) -> None:
    """Raise ValueError unless right answers earn more than wrong ones, or as much where a term erases, and length pays no wrong one (P13)."""
    case = Case(worth(reward), case.group_size, case.limit, case.most)
    kept = _of_right(reward, case)
    wrong, right = _most_of_wrong(reward, case), kept - case.worth if any(term.erases() for term in reward) else kept
    between = kept - wrong
    beaten = not isfinite(between) or between < _LEAST_MARGIN * max(1.0, abs(wrong), abs(right)) or right < wrong
    if beaten and "right_beats_wrong" not in waived:
        raise ValueError(
            f"reward: wrong answers may earn {wrong:g}, right ones no more than {right:g}: right must beat wrong; "
            "raise the verdict's weight, gate terms that wrong answers earn (gate: right), narrow a function's low and high, lower weights, "
            "or say waive: [right_beats_wrong]"
        )
    if "length_of_wrong" not in waived and (seen := [term.kind for term in reward if term.sees_length_of_wrong()]):
        raise ValueError(f"reward: {seen[0]} pays wrong answers for their length; gate it (gate: right), or say waive: [length_of_wrong]")


def worth(reward: Sequence[RewardTerm]) -> float:
    """What the verdicts of a right answer add up to."""
    return sum(term.weight for term in reward if isinstance(term, VerdictTerm))


def _of_right(reward: Sequence[RewardTerm], case: Case) -> float:
    case = Case(worth(reward), case.group_size, case.limit, case.most)
    return sum(term.adds(True, case)[0] for term in reward)


def _most_of_wrong(reward: Sequence[RewardTerm], case: Case) -> float:
    return sum(term.adds(False, case)[1] for term in reward)
