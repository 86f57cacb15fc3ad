"""The slot `stages`: what runs, one after the other. Each stage takes a checkpoint and hands one on; a stage's own `changes` hold in it alone.

The record of the last `rl` stage is the run's own; every other stage that leaves something has the folder RUN/stages/NAME.
Simplification: stages follow each other in one line; none runs beside another, and a checkpoint goes to the next stage alone
(`merge` also reads the one that the last `rl` stage began with).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from recipes.data import DataSet, Sets, named_sets
from recipes.section import Count, FolderName, Natural, Positive, Section

_FIXED = ("stages", "name", "device", "on_cuda", "model", "judge", "wandb")  # there is one of each in a run
_TRAINER = ("threads", "ranks", "micro_batch_tokens", "gradient_checkpointing", "adapter")  # of the learner's, that TRL's take
_LOOP = (
    *("schedule", "seed", "tiny", "data", "sampler", "budget", "reward", "waive", "advantage", "select", "credit", "tokens", "objective"),
    *("wires", "cluster", "learner", "engine", "publish", "train", "eval"),
)


class Stage(Section):
    """What all stages have in common."""

    kind: str

    @property
    def called(self) -> str:
        """Its name, or its kind."""
        return getattr(self, "name", None) or self.kind

    @property
    def makes_model(self) -> bool:
        """Whether it hands on a checkpoint of its own, not the one that it took."""
        return self.kind not in ("reference", "eval")

    @property
    def said(self) -> dict[str, Any]:
        """Its changes; none of a kind that reads nothing of a recipe."""
        return getattr(self, "changes", {})

    @property
    def reads(self) -> tuple[str, ...]:
        """What of a recipe it goes by: sections and keys. Changes of others say nothing."""
        return ()


class Named(Stage):
    """One that leaves something."""

    name: FolderName | None = Field(None, description="Names the stage in words, and its folder RUN/stages/NAME; null: its kind.")


class Changing(Stage):
    """One that reads the rest of the recipe."""

    changes: dict[str, Any] = Field(
        {},
        description=f"What holds in this stage alone: keys as in a recipe (`budget.limit: 208`); not {', '.join(_FIXED)}.",
    )


class ColdStartStage(Changing):
    kind: Literal["cold_start"] = Field(..., description="The tiny reasoner, from random weights (section `cold_start`).")

    @property
    def reads(self) -> tuple[str, ...]:
        return ("cold_start", "tiny", "seed")


class ReferenceStage(Named, Changing):
    kind: Literal["reference"] = Field(
        ...,
        description="Samples the policy on the training problems once: accuracy, lengths and the shortest right answer of each, for the stages behind it.",
    )
    samples: Annotated[int, Field(ge=2)] = Field(8, description="Rollouts of a problem.")
    problems: Natural = Field(
        0,
        description="Problems of the training data that are sampled, the first that the next rl stage draws, and of sets of uneven weights perhaps fewer; 0: as many as that stage draws (prompts x steps). All, where that is as many as there are rows, or no rl stage comes.",
    )

    @property
    def reads(self) -> tuple[str, ...]:
        return ("data", "tiny", "seed", "sampler.temperature", "budget", "schedule.budget", "cluster", "engine", "publish.tolerance")


class Supervised(Named, Changing):
    """What stages with TRL's trainers have in common."""

    epochs: Annotated[float, Field(gt=0, le=1000)] = Field(
        1.0, description="Passes over the examples, rounded up to whole batches, which the stage says."
    )
    batch: Annotated[int, Field(ge=1, le=100_000)] = Field(32, description="Examples of an optimiser step.")
    lr: Positive | None = Field(
        None, description="Peak learning rate (AdamW, 5 % warm-up, cosine to 0); null: learner.lr, of `dpo` a quarter of it."
    )
    max_tokens: Count | None = Field(
        None,
        description="Longer examples are left out and counted; null: data.max_prompt_tokens and budget.limit with its room, of the reference stage where its answers are learned.",
    )

    def rate(self, lr: float) -> float:
        """Its peak learning rate where learner.lr is this."""
        return self.lr or lr

    @property
    def reads(self) -> tuple[str, ...]:
        learner = (*_TRAINER, *(() if self.lr else ("lr",)))
        length = () if self.max_tokens or learns_from_reference(self) else ("data.max_prompt_tokens", "budget", "schedule.budget")
        return ("seed", "cluster", "train.checkpoint_every", *(f"learner.{name}" for name in learner), *length)


class SftStage(Supervised):
    kind: Literal["sft"] = Field(..., description="Supervised fine-tuning with TRL's SFTTrainer.")
    data: Annotated[
        Annotated[str, Tag("<name>")] | Annotated[list[Sets], Field(min_length=1), Tag("<list>")],
        Discriminator(lambda value: "<list>" if isinstance(value, list) else "<name>"),
    ] = Field(
        "reference",
        description="`reference`: the shortest right answer to each problem of the reference stage before it; else sets as in data.train, with `messages`, or prompts and completions (`problem` and `answer` name their columns).",
    )

    @property
    def sets(self) -> list[DataSet]:
        """The sets that are learned from; none where the reference stage's answers are."""
        return [] if self.data == "reference" else named_sets(self.data, "train")

    @property
    def reads(self) -> tuple[str, ...]:
        return (*super().reads, *(("data.template", "data.thinking") if self.sets else ()))


class DpoStage(Supervised):
    kind: Literal["dpo"] = Field(
        ..., description="Preference optimisation with TRL's DPOTrainer, on pairs of the reference stage before it."
    )
    rejected: Literal["longer", "wrong", "both"] = Field(
        "both",
        description="What the shortest right answer is preferred to: the longest right one (of at least 1.5 times its length), the longest wrong one, or each of both.",
    )
    beta: Positive = Field(0.1, description="How close the policy stays to the stage's start.")

    def rate(self, lr: float) -> float:
        return self.lr or lr / 4


class RlStage(Named, Changing):
    kind: Literal["rl"] = Field(..., description="Reinforcement learning: the loop.")

    @property
    def reads(self) -> tuple[str, ...]:
        return _LOOP


class MergeStage(Named):
    kind: Literal["merge"] = Field(
        ..., description="Update-selective merging (DLER): the largest changes since the last rl stage began, scaled, on top of its start."
    )
    keep: Annotated[float, Field(gt=0, le=1)] = Field(0.25, description="Share of entries that are taken over, largest changes first.")
    scale: Positive = Field(0.7, description="Factor on the changes taken over.")
    scope: Literal["global", "tensor"] = Field("global", description="Changes are ranked over the whole model, or within each tensor.")


class EvalStage(Named, Changing):
    kind: Literal["eval"] = Field(
        ..., description="Evaluates the checkpoint that it gets; directly behind an rl stage: before and after that, with its engines."
    )

    @property
    def reads(self) -> tuple[str, ...]:
        data = (f"data.{name}" for name in ("problem", "answer", "instruction", "template", "thinking", "max_prompt_tokens"))
        return ("eval", *data, "tiny", "seed", "budget", "schedule.budget", "cluster", "engine", "publish.tolerance")


def _written_out(item: Any) -> Any:
    """A bare kind as a mapping."""
    return {"kind": item} if isinstance(item, str) else item


AnyStage = Annotated[
    ColdStartStage | ReferenceStage | SftStage | DpoStage | RlStage | MergeStage | EvalStage,
    Field(discriminator="kind"),
    BeforeValidator(_written_out),
]


def changed(changes: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The keys that changes set, as `budget.limit`, however they are nested; a schedule by what it moves."""
    for name, value in changes.items():
        key = f"{prefix}{name}"
        moves = key.startswith("schedule.") and isinstance(value, dict) and "kind" in value
        yield from changed(value, f"{key}.") if isinstance(value, dict) and value and not moves else (key,)


def within(key: str, names: Sequence[str]) -> bool:
    """Whether a key is one of these, or in one of these sections."""
    return any(f"{key}.".startswith(f"{name}.") for name in names)


def unread(stage: Stage, moving: Sequence[str]) -> list[str]:
    """The keys among a stage's changes that it does not go by.

    Args:
        moving: what schedules move in it; they go by train.steps.
    """
    steps = [name for name in moving if within(f"schedule.{name}", stage.reads)] and ["train.steps"]
    return [key for key in changed(stage.said) if not within(key, [*stage.reads, *steps])]


def refuse_twice(where: str, changes: Mapping[str, Any]) -> None:
    """Raise ValueError for changes that say one key twice: dotted and nested, or a key and what lies in it."""
    keys = list(changed(changes))
    if twice := [key for index, key in enumerate(keys) if any(within(key, [one]) or within(one, [key]) for one in keys[:index])]:
        raise ValueError(f"{where}: {twice[0]} is said twice, in two ways of writing it; say it once")


def refuse_order(stages: Sequence[Stage], tiny: bool) -> None:
    """Raise ValueError for stages that cannot follow each other as they stand, each by its place.

    Args:
        tiny: the model is the tiny reasoner.
    """
    for index, stage in enumerate(stages):
        where, before = f"stages[{index}]", [one.kind for one in stages[:index]]
        if stage.kind == "cold_start" and not tiny:
            raise ValueError(f"{where}: cold_start makes the tiny reasoner; with model.path set there is nothing to cold-start")
        if stage.kind == "cold_start" and index:
            raise ValueError(f"{where}: cold_start makes the model from nothing, so what ran before would be lost; put it first")
        if isinstance(stage, DpoStage | SftStage) and learns_from_reference(stage) and "reference" not in before:
            learned = (
                "; where the tiny reasoner's first training is meant: sft is now called cold_start" if stage.kind == "sft" and tiny else ""
            )
            raise ValueError(
                f"{where}: {stage.kind} learns from answers that a reference stage sampled, and none comes before it; put `reference` before it"
                + (", or name its data (data: [rows.jsonl])" if stage.kind == "sft" else "")
                + learned
            )
        if stage.kind == "merge" and "rl" not in before:
            raise ValueError(f"{where}: merge takes over what rl changed, and no rl stage comes before it")
        fixed = _FIXED if stage.kind == "cold_start" else (*_FIXED, "tiny.layers", "tiny.width")
        if out := [name for name in fixed if any(within(key, [name]) for key in changed(stage.said))]:
            raise ValueError(f"{where}: changes: {out[0]} has no place in it, as it is the whole run's")
        refuse_twice(f"{where}: changes", stage.said)
        if within_rl(stages, index) and (stage.called != stage.kind or stage.said):
            raise ValueError(
                f"{where}: an eval directly behind rl is a part of that stage; leave its {'changes' if stage.said else 'name'} out"
            )
        if not within_rl(stages, index) and any(
            one.called.casefold() == stage.called.casefold() for place, one in enumerate(stages[:index]) if not within_rl(stages, place)
        ):
            raise ValueError(f"{where}: a second stage named {stage.called} would write the same folder; name it (name: ...)")


def within_rl(stages: Sequence[Stage], index: int) -> bool:
    """Whether a stage is the eval directly behind an rl stage, which is a part of that."""
    return index > 0 and stages[index].kind == "eval" and stages[index - 1].kind == "rl"


def learns_from_reference(stage: Stage) -> bool:
    """Whether a stage's examples are answers of a reference stage."""
    return isinstance(stage, DpoStage) or (isinstance(stage, SftStage) and stage.data == "reference")
