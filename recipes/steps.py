"""What a recipe's stages come to: each as a step, with the recipe that holds in it, and what it sees of those before it.

Claim: whoever plans, runs or shows stages asks this module, and no other reads their order. An eval directly behind an rl stage is a part of
that step; the cold start is what makes `model.path: tiny`, and no step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from recipes.columns import REFERENCE, SHORTEST, NumberColumn
from recipes.loader import in_stage
from recipes.schema import Recipe
from recipes.stages import ReferenceStage, Stage, learns_from_reference, within_rl


@dataclass(frozen=True)
class Step:
    """A stage in its place.

    Attributes:
        index: its place in the recipe's `stages`.
        recipe: as it holds in it; its `stages` are this one, and the eval behind it if that is a part of it.
        own: its record is the run's own: that of the last rl stage, of the last eval where nothing is trained by rl.
        reference: the reference stage before it, whose columns and answers it sees; None without.
        drawn: what the next rl stage draws; 0 without one.
        since: what rl stages have drawn at its end since that reference.
    """

    index: int
    stage: Stage
    recipe: Recipe
    own: bool
    reference: Step | None = None
    drawn: int = 0
    since: int = 0

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"stages[{self.index}] ({self.stage.called})"

    @property
    def draws(self) -> int:
        """Prompts that it draws in all its steps as an rl stage, without replacements."""
        return self.recipe.sampler.prompts * self.recipe.train.steps if self.recipe.trains else 0

    @property
    def given(self) -> tuple[str, ...]:
        """Columns that problems have of a reference stage."""
        return (*REFERENCE, SHORTEST) if self.reference else ()

    @property
    def numbers(self) -> list[NumberColumn]:
        """Columns that the rows of its data must hold themselves (Recipe.number_columns)."""
        return [number for number in self.recipe.number_columns if number.name not in self.given] if self.recipe.trains else []

    @property
    def longest(self) -> int:
        """The longest example that an sft or dpo stage takes, tokens: what it says, else the longest rollout, with its prompt, of whoever sampled them."""
        sampler = self.reference if self.reference and learns_from_reference(self.stage) else self
        return getattr(self.stage, "max_tokens", None) or sampler.recipe.data.max_prompt_tokens + sampler.recipe.most_tokens

    def problems(self, rows: int | None) -> int:
        """Problems, at most, that a reference stage samples of data of so many rows (None: without end), all of them if these are as many; 0 where
        nothing says how many."""
        given = self.stage.problems if isinstance(self.stage, ReferenceStage) else 0
        return given or min(self.drawn or rows or 0, rows or self.drawn)

    def folder(self, run: Path) -> Path:
        """What it leaves lies in this folder of a run."""
        return run if self.own else run / "stages" / self.stage.called


def behind(recipe: Recipe) -> list[Step]:
    """The steps behind that whose record is the run's own."""
    found = steps(recipe)
    return found[1 + next((index for index, step in enumerate(found) if step.own), len(found)) :]


def steps(recipe: Recipe) -> list[Step]:
    """The steps of a recipe in their order, without the cold start. Its `on_cuda` is not looked at (recipes.loader.on_device)."""
    stages = recipe.stages
    owner = next((place for kind in ("rl", "eval") for place in reversed(range(len(stages))) if stages[place].kind == kind), None)
    made: list[Step] = []
    for index, stage in enumerate(stages):
        if stage.kind == "cold_start" or within_rl(stages, index):
            continue
        here = in_stage(recipe, index)
        end = index + 1 + (index + 1 < len(stages) and within_rl(stages, index + 1))
        alone = [plain(one) for one in here.stages[index:end]]
        name = {} if index == owner else {"name": stage.called}
        made.append(Step(index, stage, here.model_copy(update={"stages": alone} | name), index == owner))
    found: list[Step] = []
    for place, step in enumerate(made):
        reference = next((one for one in reversed(found) if one.stage.kind == "reference"), None)
        drawn = next((one.draws for one in made[place:] if one.draws), 0)
        since = sum(one.draws for one in made[: place + 1] if reference and one.index > reference.index)
        found.append(replace(step, reference=reference, drawn=drawn, since=since))
    return found


def beginning(recipe: Recipe) -> Recipe:
    """The recipe that says what the first stage starts from: that of the cold start where one is named."""
    return in_stage(recipe, 0) if recipe.stages[0].kind == "cold_start" else recipe


def evaluated_after(recipe: Recipe) -> range:
    """Finished steps after which an rl stage's policy is evaluated in the midst of training; after the last one, too, where no eval stage is behind, which does that."""
    every, last = recipe.eval.every, recipe.train.steps - (recipe.stages[-1].kind == "eval")
    return range(every, last + 1, every) if recipe.trains and every else range(0)


def plain(stage: Stage) -> Stage:
    """The stage without its changes, which are in its recipe."""
    return stage.model_copy(update={"changes": {}}) if stage.said else stage
