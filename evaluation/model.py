"""The model that a run made: where its checkpoint lies, and which of the run's evaluations are of it.

Claim: numbers stand beside the weights they were measured on and nowhere else. A run evaluates its start, what its steps arrived at and what
later stages made of that; a checkpoint that none of these is was not evaluated.
Simplification: evaluations that were made outside of the run are not looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from evaluation.results import Evaluation
from recipes.loader import recorded
from recipes.steps import Step, steps
from rl.checkpoint import finished


@dataclass(frozen=True)
class Model:
    """A checkpoint of a run.

    Attributes:
        run: the run's folder.
        steps: all of the run, of which the one at `place` made it.
        folder: where it lies, or would lie if it were there.
        number: training steps of an rl stage, None for what other stages make.
    """

    run: Path
    steps: tuple[Step, ...]
    place: int
    folder: Path
    number: int | None

    @property
    def step(self) -> Step:
        """The stage that made it."""
        return self.steps[self.place]

    @property
    def made_by(self) -> list[Step]:
        """The stages that it went through."""
        return [step for step in self.steps[: self.place + 1] if step.stage.kind != "eval"]

    @property
    def called(self) -> str:
        """Its place in the run, checkpoints/step-40 or stages/merge/checkpoint."""
        return str(self.folder.relative_to(self.run))

    def measured_by(self, evaluation: Evaluation) -> bool:
        """Whether an evaluation of the run is of it: made by its own stage at its step, or by one behind that was handed it."""
        record = _record(evaluation)
        if record == self.step.folder(self.run) and self.number is not None and evaluation.step == self.number:
            return True
        handed_on = self.number in (None, self.step.recipe.train.steps)
        behind = takewhile(lambda step: not step.stage.makes_model, self.steps[self.place + 1 :])
        return handed_on and record in [step.folder(self.run) for step in behind if step.stage.kind == "eval"]

    def of_what(self, evaluation: Evaluation) -> str:
        """What an evaluation of the run is of, in words: the model that the run began with, or what a stage made of it."""
        place = next((place for place, step in enumerate(self.steps) if step.folder(self.run) == _record(evaluation)), 0)
        step = self.steps[place]
        if step.stage.kind == "rl" and evaluation.step:
            return f"the model after {evaluation.step} steps of {step.stage.called}"
        made = [one.stage.called for one in self.steps[:place] if one.stage.makes_model]
        return f"what the stage {made[-1]} made" if made else "the model that the run began with"


def _record(evaluation: Evaluation) -> Path | None:
    """The folder of the stage that made an evaluation."""
    return evaluation.table.parent.parent if evaluation.table else None


def model_of(run: Path, named: str | None = None) -> Model:
    """The newest checkpoint of the last stage that makes one, whole or not, or the step-N that is named.

    Args:
        run: a run folder.

    Raises:
        RecipeError: this version cannot read the run's recipe.
        ValueError: no run folder, no stage that makes a model, or no checkpoint of that name.
    """
    run = run.resolve()
    if not (run / "recipe.yaml").is_file():
        raise ValueError(f"{run}: holds no recipe.yaml, so it is no run folder; name one that `laconic train` made (runs/NAME)")
    found = steps(recorded(run))
    places = [place for place, step in enumerate(found) if step.stage.makes_model]
    if not places:
        kinds = ", ".join(step.stage.kind for step in found) or "cold_start"
        raise ValueError(f"{run}: its stages ({kinds}) make no model of their own; name a run that trains")
    if named is None:
        return _at(run, found, places[-1], None)
    for place in reversed(places):
        if found[place].stage.kind == "rl" and named in _names(run, found[place]):
            return _at(run, found, place, named)
    there = [name for place in places if found[place].stage.kind == "rl" for name in _names(run, found[place])]
    raise ValueError(f"--checkpoint {named}: {run} has {', '.join(there) or 'no step-N at all'}; name one of these, or leave it out")


def _names(run: Path, step: Step) -> list[str]:
    return [folder.name for folder in finished(step.folder(run) / "checkpoints")]


def _at(run: Path, found: Sequence[Step], place: int, named: str | None) -> Model:
    step = found[place]
    if step.stage.kind != "rl":
        return Model(run, tuple(found), place, step.folder(run) / "checkpoint", None)
    name = named or next(reversed(_names(run, step)), f"step-{step.recipe.train.steps}")
    return Model(run, tuple(found), place, step.folder(run) / "checkpoints" / name, int(name.removeprefix("step-")))
