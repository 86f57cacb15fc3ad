"""The shipped recipes by what their methods turn, read off the recipes themselves: a new one finds its group without being listed anywhere.

Simplification: one that turns several things stands in the group of the first rule it meets.
"""

from __future__ import annotations

from recipes.loader import load, scales, shipped
from recipes.schema import Recipe

GROUPS = {
    "to begin with": "needs no scale",
    "baselines": "rewards that see no length",
    "length rewards": "a term of the reward sees length, under one limit for all",
    "budgets": "limits that differ by prompt or group, or move over training",
    "selection": "rollouts that are chosen or weighed by their length or reward",
    "credit": "tokens of a rollout that train, or count, apart",
    "stages": "several trainings, one after the other",
    "scales": "`--scale NAME`, for the sizes of a machine",
}


def group_of(recipe: Recipe) -> str:
    """The key of GROUPS that a recipe belongs to."""
    if recipe.model.path == "tiny":
        return "to begin with"
    if sum(stage.makes_model for stage in recipe.stages) > 1:
        return "stages"
    if recipe.budget.kinds != ("constant",) or "budget.limit" in recipe.schedule:
        return "budgets"
    if recipe.select.kind != "all" or recipe.advantage.shorter:
        return "selection"
    if recipe.credit.kind != "even" or recipe.tokens.kind != "all":
        return "credit"
    return "length rewards" if any(term.sees_length for term in recipe.reward) else "baselines"


def grouped() -> dict[str, dict[str, str]]:
    """Group -> name -> what it is, in one sentence; recipes, and the scales behind them."""
    groups: dict[str, dict[str, str]] = {group: {} for group in GROUPS}
    for name, words in shipped().items():
        groups[group_of(load(name))][name] = words
    return groups | {"scales": scales()}
