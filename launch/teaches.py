"""What a recipe can learn from: for groups that are mixed, all right and all wrong, whether the filter keeps them, whether they carry a length
signal, and whether they train.

Read off the recipe: the bounds of its terms, what its filter looks at, what its advantages and its selection add. A filter that looks at
correctness drops all-right groups before length could teach in them. Simplifications: a group trains where the reward gives some rollout an advantage,
in any step, and a toggle lowers limits in some; that KL and entropy in the loss act on every group kept is not told here. A function may look at anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from recipes.advantages import Selection
from recipes.budgets import OutlierBudget
from recipes.credit import DecsCredit, RedundantCredit
from recipes.lengths import LinearTerm
from recipes.schema import Recipe
from recipes.terms import ROUNDING, Case, FunctionTerm, KlTerm, RewardTerm, span

Kind = Literal["mixed", "all right", "all wrong"]
_RIGHTS: dict[Kind, tuple[bool, ...]] = {"mixed": (True, False), "all right": (True,), "all wrong": (False,)}


@dataclass(frozen=True)
class Teaching:
    """One kind of group.

    Attributes:
        kept: by the filter.
        signals: what lets length decide over advantages, by name.
        differs: what tells the rewards of its rollouts apart, by term; "verdict" in mixed groups.
        pushes: what gives its rollouts advantages even where their rewards are the same.
        unsure: functions among `differs`, which may look at length or not.
        most: share of a step that such groups may be, where the filter would drop them all.
    """

    kind: Kind
    kept: bool
    signals: tuple[str, ...]
    differs: tuple[str, ...]
    pushes: tuple[str, ...]
    unsure: tuple[str, ...] = ()
    most: float = 1.0

    @property
    def length(self) -> bool:
        return bool(self.signals)

    @property
    def trains(self) -> bool:
        return self.kept and bool(self.differs or self.pushes)


def teaching(recipe: Recipe) -> list[Teaching]:
    """What each kind of group can teach."""
    return [_teaching(recipe, kind, list(recipe.rewards(rights=_shares(kind, recipe.sampler.group_size)).values())) for kind in _RIGHTS]


def _shares(kind: Kind, rollouts: int) -> list[float]:
    """The shares of right rollouts that a kind of group may have, for whoever counts finished ones only, too."""
    right = {"mixed": range(rollouts), "all right": range(rollouts + 1), "all wrong": (0,)}[kind]
    return [count / rollouts for count in right]


def _teaching(recipe: Recipe, kind: Kind, rewards: Sequence[tuple[list[RewardTerm], Case]]) -> Teaching:
    credit = recipe.credit
    varying = [term for reward, case in rewards for term in reward if _varies(term, kind, reward, case)]
    read = {"reward": True, "right": kind != "all wrong", "verdict": False}[credit.reads]
    cuts = any(one.cuts(recipe.sampler.group_size) for held in recipe.each("budget").values() if (one := held.part(OutlierBudget)))
    cut = ("verdicts on cut outliers",) * (kind == "all right" and cuts)
    shaped = ("verdict",) * (kind == "mixed") + _names(varying) + cut
    varying = varying if read else []
    differs = ("verdict",) * (kind == "mixed") + _names(varying) + cut
    differs += _names([term for term in varying if isinstance(term, KlTerm)], ())  # comes behind the filter
    boosts = kind != "all wrong" and recipe.most("advantage.boost") > 0
    pushes = ("advantage.boost",) * boosts + ("advantage.centre: reference",) * (recipe.advantage.centre == "reference")
    if credit.replaces:
        pushes = ()
    looks = (f"credit.kind: {credit.kind}",) * (kind != "all wrong" and isinstance(credit, RedundantCredit))
    pushes += looks + (f"credit.kind: {credit.kind}",) * (credit.pushes and recipe.most("credit.weight") > 0)
    kept = {"all": True, "raw": kind == "mixed" or bool(cut), "shaped": bool(shaped or looks)}[recipe.sampler.keep_groups]
    most = credit.most if isinstance(credit, DecsCredit) and kind == "all right" and not kept else 1.0
    signals = _names([term for term in varying if term.sees_length]) + cut + looks
    signals += ("advantage.shorter",) * (recipe.most("advantage.shorter") > 0 and bool(differs) and not credit.replaces)
    signals += (f"credit.kind: {credit.kind}",) * (credit.sees_length and bool(differs or pushes))
    even = differs == ("verdict",) and not pushes and all(case.wrong == 0 for _, case in rewards)
    signals += (f"select.kind: {recipe.select.kind}",) * (_chooses_by_length(recipe, even) and bool(differs or pushes))
    unsure = _names([term for term in varying if isinstance(term, FunctionTerm)])
    return Teaching(kind, kept or 0 < most < 1, signals, differs, pushes, unsure, most)


def teaching_words(recipe: Recipe) -> Iterator[str]:
    """One line for each kind of group."""
    constant = "correctness" if recipe.sampler.keep_groups == "raw" else "reward"
    for one in teaching(recipe):
        kept = (
            f"up to {one.most:.0%} of a step (credit.most)"
            if 0 < one.most < 1
            else "yes"
            if one.kept
            else f"no, as its {constant} is constant"
        )
        length = f"yes ({', '.join(one.signals)})" if one.signals else f"if {', '.join(one.unsure)} looks at it" if one.unsure else "no"
        length += ", lost with it" if one.length and not one.kept else ""
        by = ", ".join(one.differs + one.pushes)
        lacking = (
            f"no, as credit.kind {recipe.credit.kind} wants right and wrong ones"
            if recipe.credit.mixed_only
            else "no, as all its rollouts earn the same"
        )
        trains = f"yes, by {by}" if one.trains else lacking if one.kept else "no"
        yield f"{one.kind:<10} kept by the filter: {kept}; carries a length signal: {length}; trains: {trains}"


def _chooses_by_length(recipe: Recipe, even: bool) -> bool:
    """Whether the selection leaves rollouts out by their length.

    Args:
        even: all right answers earn the same and all wrong ones 0: the most reward per token is then that of right ones, whatever their length,
            and where more are right than train, nothing tells those apart.
    """
    if not isinstance(recipe.select, Selection) or recipe.ends("select.keep")[0] == recipe.sampler.group_size:
        return False
    return recipe.select.kind == "shortest" or (recipe.select.kind == "efficient" and not even)


def _names(terms: list[RewardTerm], without: tuple[type, ...] = (KlTerm,)) -> tuple[str, ...]:
    return tuple(dict.fromkeys(getattr(term, "name", term.kind) for term in terms if not isinstance(term, without)))


def _varies(term: RewardTerm, kind: Kind, reward: Sequence[RewardTerm], case: Case) -> bool:
    """Whether a term may tell rollouts of equal correctness apart in a kind of group, by more than what counts as equal."""
    if isinstance(term, KlTerm):
        return term.weight > 0
    if isinstance(term, LinearTerm) and kind == "all wrong":
        return case.wrong > 0 and term.sees_wrong()  # it goes by the group's mean verdict
    for right in _RIGHTS[kind]:
        low, high = span(term, right, case)
        least, most = (sum(ends) for ends in zip(*(span(one, right, case) for one in reward), strict=True))
        if high - low > ROUNDING * max(1.0, least, -most):  # of rewards that are at least that large
            return True
    return False
