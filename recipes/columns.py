"""Numbers that a recipe reads off the rows of its data beside problem and gold: which column, by which key, and what its cells may hold.

Claim: plan, the start of a run and the rewards ask this module what a cell holds, so what one of them takes, all take.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan
from typing import Any


def number_in(value: Any) -> float:
    """The finite number that a cell holds, also as its text (CSV); NaN for anything else, true and false among it."""
    try:
        number = nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return nan
    return number if isfinite(number) else nan


# What a reference run showed on a problem (rewards.profiles.Profile).
REFERENCE = ("reference_tokens", "reference_spread", "reference_accuracy")
SHORTEST = "reference_shortest"  # tokens of its shortest right answer there, null without one


@dataclass(frozen=True)
class NumberColumn:
    """A column that holds a number in every row.

    Attributes:
        name: dotted into mappings and lists (rewards.rows.reach).
        reader: the key of the recipe that reads it, for messages.
    """

    name: str
    reader: str

    @property
    def what(self) -> str:
        """What a cell holds, in words."""
        return {"reference_spread": "number of at least 0", "reference_accuracy": "share from 0 to 1"}.get(self.name, "number above 0")

    def held_by(self, value: Any) -> bool:
        """Whether a cell's value is such a number."""
        number = number_in(value)
        match self.name:
            case "reference_spread":
                return number >= 0
            case "reference_accuracy":
                return 0 <= number <= 1
        return number > 0
