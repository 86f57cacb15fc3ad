"""Reward terms as a recipe writes them, and what follows from their numbers alone: that being right beats being wrong (P13)."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Annotated, Literal

from pydantic import Field, model_validator

from recipes.section import Positive, Section, Share

ROUNDING = 1e-6  # rewards closer than this, or than this share of the larger, are equal: what float32 leaves of equal sums
_LEAST_MARGIN = 100 * ROUNDING  # of reward between right and wrong, of which a KL term in the reward may take 98 %


class VerdictTerm(Section):
    kind: Literal["verdict"] = Field(..., description="1 for a right answer, else 0.")
    weight: Positive = Field(1.0, description="Factor.")


class TruncateTerm(Section):
    kind: Literal["truncate"] = Field(
        ..., description="A right answer beyond its limit, or cut off, keeps only `keep` of its point (DLER)."
    )
    keep: Share = Field(0.0, description="What remains: 0 in the DLER paper, 0.1 in its release.")


class FormatTerm(Section):
    kind: Literal["format"] = Field(..., description="1 for exactly one thinking block, closed, followed by one box, else 0.")
    weight: Positive = Field(0.1, description="Factor.")
    gate: Literal["none", "right"] = Field("none", description="`right`: counts for right answers only.")


class FunctionTerm(Section):
    kind: Literal["function"] = Field(..., description="A function of your own with TRL's reward signature.")
    name: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] = Field(..., description="`module:function`.")
    weight: float = Field(1.0, description="Factor.")
    gate: Literal["none", "right"] = Field("none", description="`right`: counts for right answers only.")
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


RewardTerm = Annotated[VerdictTerm | TruncateTerm | FormatTerm | FunctionTerm, Field(discriminator="kind")]


def margin(reward: Sequence[RewardTerm]) -> float:
    """The least reward of a right answer minus the most of a wrong one, leaving out right ones that `truncate` leaves nothing."""
    return _rewards_of_right(reward)[0] - _most_of_wrong(reward)


def refuse_wrong_before_right(reward: Sequence[RewardTerm]) -> None:
    """Raise ValueError unless right answers earn more than wrong ones, or as much where `truncate` keeps nothing (P13)."""
    wrong, right, between = _most_of_wrong(reward), _rewards_of_right(reward)[1], margin(reward)
    if not isfinite(between) or between < _LEAST_MARGIN * max(1.0, abs(wrong), abs(right)) or right < wrong:
        raise ValueError(
            f"reward: wrong answers may earn {wrong:g}, right ones no more than {right:g}: right must beat wrong; "
            "raise the verdict's weight, gate format and function terms (gate: right), narrow a function's low and high, or lower weights"
        )


def _rewards_of_right(reward: Sequence[RewardTerm]) -> tuple[float, float]:
    """The least that right answers earn, of those that `truncate` leaves something, and of all."""
    worth = sum(term.weight for term in reward if isinstance(term, VerdictTerm))
    least = sum(min(term.weight * term.low, term.weight * term.high) for term in reward if isinstance(term, FunctionTerm))
    keep = min((term.keep for term in reward if isinstance(term, TruncateTerm)), default=1.0)
    return (keep or 1.0) * worth + least, keep * worth + least


def _most_of_wrong(reward: Sequence[RewardTerm]) -> float:
    formats = sum(term.weight for term in reward if isinstance(term, FormatTerm) and term.gate == "none")
    functions = [term for term in reward if isinstance(term, FunctionTerm) and term.gate == "none"]
    return formats + sum(max(term.weight * term.low, term.weight * term.high) for term in functions)
