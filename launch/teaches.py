"""What a recipe can learn from: for groups that are mixed, all right and all wrong, whether the filter keeps them and what tells their rollouts apart.

Read off the terms' bounds and the filter's signal: a filter that looks at correctness drops all-right groups before length could teach in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from recipes.lengths import LengthTerm
from recipes.schema import Recipe
from recipes.terms import Case, TruncateTerm, VerdictTerm, worth_of

Kind = Literal["mixed", "all right", "all wrong"]


@dataclass(frozen=True)
class Teaching:
    """One kind of group.

    Attributes:
        kept: by the filter.
        length: some term tells its rollouts apart by their length.
        differs: what tells them apart, by term; "verdict" in mixed groups.
    """

    kind: Kind
    kept: bool
    length: bool
    differs: tuple[str, ...]

    @property
    def trains(self) -> bool:
        return self.kept and bool(self.differs)


def teaching(recipe: Recipe) -> list[Teaching]:
    """What each kind of group can teach."""
    case = worth_of(recipe.reward, recipe.case)
    found = []
    for kind, rights in (("mixed", (True, False)), ("all right", (True,)), ("all wrong", (False,))):
        terms = [
            term for term in recipe.reward if not isinstance(term, VerdictTerm) and any(_varies(term, right, case) for right in rights)
        ]
        cut = kind == "all right" and recipe.budget.kind == "outlier"
        length = cut or any(isinstance(term, LengthTerm | TruncateTerm) for term in terms)
        differs = (("verdict",) if kind == "mixed" else ()) + tuple(dict.fromkeys(getattr(term, "name", term.kind) for term in terms))
        differs += ("verdicts on cut outliers",) * cut
        signal = {"all": True, "raw": kind == "mixed", "shaped": bool(differs)}[recipe.sampler.keep_groups]
        found.append(Teaching(kind, signal, length, differs))  # type: ignore[arg-type]
    return found


def teaching_words(recipe: Recipe) -> Iterator[str]:
    """One line for each kind of group."""
    for one in teaching(recipe):
        what = ", ".join(one.differs) or "nothing"
        kept = "kept" if one.kept else f"replaced, as its {'correctness' if recipe.sampler.keep_groups == 'raw' else 'reward'} is constant"
        lost = "; its length signal is lost" if one.length and not one.kept else ""
        yield f"{one.kind:<10} told apart by {what}: {kept}{lost}"


def _varies(term: object, right: bool, case: Case) -> bool:
    if isinstance(term, TruncateTerm):
        return right and term.keep < 1
    low, high = term.adds(right, case)  # type: ignore[attr-defined]
    return low != high
