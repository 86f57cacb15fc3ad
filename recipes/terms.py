"""Reward terms as a recipe writes them, with the bounds that each states, and what follows from these: that being right beats being wrong (P13).

Claim: whether a recipe keeps the promise is known before it runs, from the numbers of its terms alone; who breaks it says so in the
recipe (`waive`). Simplification: bounds are added up, so two terms that multiply are taken to be as bad as both at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from recipes.lengths import LengthTerms
from recipes.section import NonNegative, Positive, Share
from recipes.term import Bounds, Case, Erases, Gate, Term, Waiver

_MOST_REWARD = 1e9  # of a term, in size: float32 and sums of squares still hold it
ROUNDING = 1e-6  # rewards closer than this, or than this share of the larger, are equal: what float32 leaves of equal sums
_ONCE = {
    "truncate": "would take off more than a right answer has",
    "kl": "say the same; add their weights",
    "leash": "would follow one lambda",
}
_LEAST_MARGIN = 100 * ROUNDING  # of reward between right and wrong, of which a KL term in the reward may take 98 %


class VerdictTerm(Term):
    kind: Literal["verdict"] = Field(..., description="1 for a right answer, else `wrong`.")
    weight: Positive = Field(1.0, description="Factor.")
    wrong: Annotated[float, Field(lt=1)] = Field(0.0, description="What a wrong answer earns.")

    def adds(self, right: bool, case: Case) -> Bounds:
        return (self.weight, self.weight) if right else (self.weight * self.wrong, self.weight * self.wrong)


class TruncateTerm(Term):
    reads_limit: ClassVar[bool] = True
    sees_length: ClassVar[bool] = True
    kind: Literal["truncate"] = Field(
        ..., description="A right answer beyond its limit, or cut off, keeps only `keep` of its point (DLER)."
    )
    keep: Share = Field(0.0, description="What remains: 0 in the DLER paper, 0.1 in its release.")

    def adds(self, right: bool, case: Case) -> Bounds:
        return (-(1 - self.keep) * case.worth if right and self.keep else 0.0, 0.0)

    def erases(self) -> Erases:
        return "" if self.keep else "at once"

    def erased(self, case: Case) -> float:
        return -(1 - self.keep) * case.worth


class CutTerm(Term):
    sees_length: ClassVar[bool] = True
    kind: Literal["cut"] = Field(..., description="-1 for an answer that was cut off and is not right, else 0.")
    weight: Positive = Field(0.5, description="Factor.")

    def adds(self, right: bool, case: Case) -> Bounds:
        return (0.0, 0.0) if right else (-self.weight, 0.0)

    def sees_length_of_wrong(self) -> bool:
        return True  # a short wrong answer earns more than one that was cut off


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
    form: Literal["whole", "halves"] = Field(
        "whole", description="As above, or a half for the block, and a half for one box behind thinking (arXiv 2508.08940)."
    )

    def adds(self, right: bool, case: Case) -> Bounds:
        return (0.0, self.weight) if right or self.gate == "none" else (0.0, 0.0)


class NoThinkingTerm(Term):
    sees_length: ClassVar[bool] = True
    kind: Literal["no_thinking"] = Field(
        ..., description="1 for a response that begins with the mark that closes thinking, else 0 (AdaptThink)."
    )
    weight: Positive = Field(0.05, description="Factor.")
    gate: Gate = "none"

    def adds(self, right: bool, case: Case) -> Bounds:
        return (0.0, self.weight) if right or self.gate == "none" else (0.0, 0.0)

    def sees_length_of_wrong(self) -> bool:
        return self.gate == "none"


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

    def adds(self, right: bool, case: Case) -> Bounds:
        ends = self.weight * self.low, self.weight * self.high
        return (min(ends), max(ends)) if right or self.gate == "none" else (0.0, 0.0)

    def doubts(self) -> list[str]:
        said = f"{self.name} counts for wrong answers, too: if it looks at length, it pays them for theirs; gate: right rules that out"
        return [said] if self.gate == "none" else []


RewardTerm = Annotated[
    VerdictTerm | TruncateTerm | CutTerm | KlTerm | FormatTerm | FunctionTerm | NoThinkingTerm | LengthTerms,
    Field(discriminator="kind"),
]


def span(term: RewardTerm, right: bool, case: Case) -> Bounds:
    """Least and most that a term adds to a right, or to a wrong, answer, those among them whose verdict it erases at once."""
    low, high = term.adds(right, case)
    return (min(low, term.erased(case)) if right and term.erases() == "at once" else low), high


def margin(reward: Sequence[RewardTerm], case: Case) -> float:
    """The least reward of a right answer minus the most of a wrong one, leaving out right ones whose verdict a term erases at once."""
    case = worth_of(reward, case)
    return sum(term.adds(True, case)[0] for term in reward) - sum(term.adds(False, case)[1] for term in reward)


def least_of_right(reward: Sequence[RewardTerm], case: Case) -> tuple[float, float, float]:
    """The least reward of a right answer whose verdict stands, that of one whose verdict a term erases at once, and the most of a wrong answer."""
    case = worth_of(reward, case)
    kept = sum(term.adds(True, case)[0] for term in reward)
    right = sum(term.erased(case) if term.erases() == "at once" else term.adds(True, case)[0] for term in reward)
    return kept, right, sum(term.adds(False, case)[1] for term in reward)


def refuse_misplaced(reward: Sequence[RewardTerm]) -> None:
    """Raise ValueError for terms that cannot stand together, whatever their numbers."""
    if not any(term.kind == "verdict" for term in reward):
        raise ValueError("reward: no verdict term: nothing would tell right from wrong")
    for kind, why in _ONCE.items():
        if sum(term.kind == kind for term in reward) > 1:
            raise ValueError(f"reward: two {kind} terms {why}; keep one")
    if len(instead := [term.kind for term in reward if term.replaces_verdict]) > 1:
        named = " and ".join(dict.fromkeys(instead)) if len(set(instead)) > 1 else f"two {instead[0]} terms"
        raise ValueError(f"reward: {named} would each stand in the verdict's place, and take it off twice; keep one")


def refuse_wrong_before_right(reward: Sequence[RewardTerm], case: Case, waived: Sequence[Waiver]) -> None:
    """Raise ValueError unless right answers earn more than wrong ones, or as much where a term erases, and length pays no wrong one (P13)."""
    case = worth_of(reward, case)
    for term in reward:
        if term.verdicts and not term.verdicts[1](case.worth, case.wrong):
            raise ValueError(f"reward: {term.kind} needs verdicts {term.verdicts[0]}; here they are {case.worth:g} and {case.wrong:g}")
        most = max(abs(end) for right in (True, False) for end in term.adds(right, case))
        if not most <= _MOST_REWARD:
            raise ValueError(
                f"reward: {term.kind} may add up to {most:.3g} in size, and rewards keep below {_MOST_REWARD:g}; take smaller numbers"
            )
    kept, right, wrong = least_of_right(reward, case)
    erasing = any(term.erases() == "at once" for term in reward)
    by_degrees = any(term.erases() == "by degrees" for term in reward)
    size = max(1.0, abs(wrong), abs(right))
    apart, tie = _LEAST_MARGIN * size, -ROUNDING * size
    if any(isinstance(term, KlTerm) for term in reward):  # may take most of what lies between, and all of a tie
        tie = apart
    beaten = (
        not isfinite(kept - wrong)
        or kept - wrong < (tie if by_degrees else apart)
        or right - wrong < (tie if by_degrees or erasing else apart)
    )
    if beaten and "right_beats_wrong" not in waived:
        gate = "gate terms that wrong answers earn (gate: right), " if any(getattr(term, "gate", "") == "none" for term in reward) else ""
        raise ValueError(
            f"reward: wrong answers may earn {wrong:g}, right ones no more than {right:g}: right must beat wrong; "
            f"raise the verdict's weight, {gate}narrow a function's low and high, lower weights, "
            "or say waive: [right_beats_wrong]"
        )
    ends = {round(sum(ends), 6) for right in (True, False) for ends in zip(*(span(term, right, case) for term in reward), strict=True)}
    if len(ends) == 1 and not any(isinstance(term, KlTerm) for term in reward):
        raise ValueError(f"reward: every answer, right or wrong, earns {ends.pop():g}: nothing would train; let terms differ")
    if "length_of_wrong" not in waived and (seen := [term for term in reward if term.sees_length_of_wrong()]):
        raise ValueError(
            f"reward: {seen[0].kind} pays wrong answers for their length; {_sparing_wrong(seen[0])}, or say waive: [length_of_wrong]"
        )


def refuse_telling_wrong_apart(reward: Sequence[RewardTerm], case: Case, reader: str) -> None:
    """Raise ValueError for a term by which wrong answers may earn different rewards, where `reader` could train towards a short one of them."""
    case = worth_of(reward, case)
    told = next((term for term in reward if isinstance(term, KlTerm) or len(set(term.adds(False, case))) > 1), None)
    if told:
        raise ValueError(
            f"{reader} with {told.kind}, a term that tells wrong answers apart, could train towards a short wrong one; {_sparing_wrong(told)}"
        )


def _sparing_wrong(term: RewardTerm) -> str:
    """What a recipe says so that wrong answers earn nothing by a term that they earn something by now."""
    return "gate it (gate: right)" if hasattr(term, "gate") else "say explore: false" if hasattr(term, "explore") else "take it out"


def worth_of(reward: Sequence[RewardTerm], case: Case) -> Case:
    """The case with what the verdicts add up to."""
    verdicts = [term for term in reward if isinstance(term, VerdictTerm)]
    return replace(case, worth=sum(term.weight for term in verdicts), wrong=sum(term.weight * term.wrong for term in verdicts))
