"""The parts of a run: each stage as it is planned, with its data read and checked, and what one stage hands to the next."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
        sets: those of an sft stage that names its data, as `conversations` reads each.
        learned: training problems that what it evaluates may have seen: its own, else those of the last stage before that had some.
    """

    made: StagePlan
    source: Source | None
    heldout: list[HeldOut]
    sets: list[tuple[list[Conversation], LeftOut, str]]
    learned: Source | None

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
        source = next((source for other, source in known if recipe.samples and other == asked), None)
        if recipe.samples and source is None:
            source = training_source(*asked[:3], judge.check_golds, *asked[3:])
            known.append((asked, source))
        sets = [conversations(one) for one in step.stage.sets] if isinstance(step.stage, SftStage) else []
        learned = source or next((part.source for part in reversed(parts) if part.source is not None), None)
        parts.append(Part(one, source, held_out(recipe, judge, held), sets, learned))
    return parts


def digests(parts: Sequence[Part]) -> dict[str, str]:
    """A hash of all that is trained on, by set: who goes on with the run reads the same. None of what is made by position alone."""
    sources = {id(part.source): part.source for part in parts if part.source is not None and part.source.problems}
    named: list[tuple[str, Iterable[object]]] = [
        (one.name, ((row.text, row.system, row.golds, row.columns) for row in one.problems)) for one in sources.values()
    ]
    for part in parts:
        if isinstance(part.step.stage, SftStage):
            named += (
                (one.source, ((row.turns, row.answer) for row in rows))
                for one, (rows, *_) in zip(part.step.stage.sets, part.sets, strict=True)
            )
    found: dict[str, str] = {}
    for name, rows in named:
        known = hashlib.sha256(found.get(name, "").encode())
        for row in rows:
            known.update(f"{row!r}\n".encode(errors="surrogatepass"))
        found[name] = known.hexdigest()[:16]
    return found
