"""What every reward term states: what it adds to right and to wrong answers, so that a recipe's promises can be told from its numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from recipes.section import Section

Bounds = tuple[float, float]  # least and most
Gate = Annotated[Literal["none", "right"], Field(description="`right`: counts for right answers only.")]
Erases = Literal["", "at once", "by degrees"]
Waiver = Literal["right_beats_wrong", "length_of_wrong"]


@dataclass(frozen=True)
class Case:
    """What the bounds of a term may depend on, as it holds in a step.

    Attributes:
        worth, wrong: what verdicts of right and of wrong answers add up to.
        group_size: rollouts of a prompt.
        unit: budget.limit as it is written, tokens.
        limit: the most that a group may be given, tokens.
        most: tokens of the longest rollout.
        times, above: the most tokens of a rollout per token of the limit that it is rewarded under, and how many above it (budget.beyond).
    """

    worth: float = 1.0
    wrong: float = 0.0
    group_size: int = 8
    unit: int = 1
    limit: int = 1
    most: int = 1
    times: float = 1.0
    above: int = 0


class Term(Section):
    """What all terms have in common: bounds, and whether length pays a wrong answer.

    Attributes:
        reads: columns of the data that its formula takes a number from (recipes.columns).
        verdicts: what its formula takes the verdicts of right and wrong answers to be, in words for an error; and whether they are.
        sees_length: what it adds depends on tokens, on being cut off, or on whether there is thinking at all.
        reads_limit: its formula takes the group's limit.
        replaces_verdict: it takes the verdict off and stands in its place.
    """

    sees_length: ClassVar[bool] = False
    reads_limit: ClassVar[bool] = False
    replaces_verdict: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...]] = ()
    verdicts: ClassVar[tuple[str, Callable[[float, float], bool]] | None] = None

    def adds(self, right: bool, case: Case) -> Bounds:
        """Least and most that the term adds to the reward of a right, or of a wrong, answer, gate and weight included."""
        raise NotImplementedError

    def erases(self) -> Erases:
        """Whether it may leave a right answer nothing of its verdict, worth as much as a wrong one: at once, as truncation, or by degrees."""
        return ""

    def doubts(self) -> list[str]:
        """What plan warns of, a sentence each."""
        return []

    def erased(self, case: Case) -> float:
        """The least that it adds to a right answer where it erases at once."""
        return self.adds(True, case)[0]

    def sees_length_of_wrong(self) -> bool:
        """Whether the reward of a wrong answer depends on its length."""
        return False
