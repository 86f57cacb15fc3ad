"""The parts of a run: each stage as it is planned, with its data read and checked, and what one stage hands to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from launch.evaluations import held_commits
from launch.plan import Plan, StagePlan
from launch.problems import HeldOut, held_out
from recipes.schema import Recipe
from recipes.stages import SftStage
from recipes.steps import Step
from rewards.verifier.judge import Judge
from rollout.chats import Conversation, conversations
from rollout.parts import Parts
from rollout.sources import LeftOut, Source, training_source


@dataclass(frozen=True)
class Part:
    """A stage that is planned, with its data read and checked.

    Attributes:
        source: the training problems of a stage that samples some.
        conversations: of each set of an sft stage that names its data.
        said: on those, a line a set.
        left_out: by set, (row, reason) of those that hold none.
    """

    made: StagePlan
    source: Source | None
    heldout: list[HeldOut]
    conversations: list[list[Conversation]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    learned: Source | None = None

    @property
    def step(self) -> Step:
        return self.made.step

    @property
    def recipe(self) -> Recipe:
        return self.made.recipe


@dataclass(frozen=True)
class Standing:
    """Where a run stands between two stages.

    Attributes:
        start: the checkpoint that the next stage takes.
        began: the one that the last rl stage took.
        position: in the training data, where the next rl stage goes on.
        reference: what the last reference stage sampled.
        limit: what the last rl stage left of its limit, tokens, which evaluations state; None before the first.
    """

    start: Path
    began: Path
    position: int = 0
    reference: Parts | None = None
    limit: int | None = None


def read_data(made: Plan, judge: Judge, run: Path | None) -> list[Part]:
    """Each stage with its data, read before anything is started. Raises DataError. `run`: that is gone on with; benchmarks are read of its commits."""
    known: list[tuple[object, Source]] = []
    parts: list[Part] = []
    for one in made.stages:
        step, recipe = one.step, one.recipe
        held = held_commits(step.folder(run) / "evals") if run else {}
        asked = (recipe.data, recipe.tiny, recipe.seed, recipe.trains and recipe.reads_columns, step.numbers)
        source = next((source for other, source in known if other == asked), None)
        if recipe.samples and source is None:
            source = training_source(*asked[:3], judge.check_golds, *asked[3:])
            known.append((asked, source))
        sets = [conversations(one) for one in step.stage.sets] if isinstance(step.stage, SftStage) else []
        left_out = {one.source: rows for one, (_, rows, _) in zip(getattr(step.stage, "sets", []), sets, strict=False)}
        chats, said = [found for found, *_ in sets], [words for *_, words in sets]
        own = source if recipe.samples else None
        learned = own or next((part.source for part in reversed(parts) if part.source is not None), None)
        parts.append(Part(one, own, held_out(recipe, judge, held), chats, said, left_out, learned))
    return parts
