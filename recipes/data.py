"""The slot `data`: which problems are trained on, and how they are read and asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from recipes.section import Count, Positive, Section


class DataSet(Section):
    """One set of problems: where it lies, and what its columns are called if that is not recognised."""

    source: str = Field(..., description="As a plain name: `tiny`, a file or folder, or `hub:owner/name/config:split`.")
    weight: Positive = Field(1.0, description="Share of the training positions, relative to the other sets'; not read by evaluations.")
    problem: str | None = Field(None, description="Its data.problem.")
    answer: str | None = Field(None, description="Its data.answer.")
    split: str | None = Field(
        None, description="Split read of a hub set or folder that names none (null: data.split, in evaluations `test`)."
    )


Sets = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[DataSet, Tag("<set>")],
    Discriminator(lambda item: "<set>" if isinstance(item, dict | DataSet) else "<name>"),
]


def named_sets(said: str | Sequence[str | DataSet], split: str) -> list[DataSet]:
    """Sets as a recipe names them, one or several, each with its split filled in."""
    given = [DataSet(source=item) if isinstance(item, str) else item for item in ([said] if isinstance(said, str) else said)]
    return [one.model_copy(update={"split": one.split or split}) for one in given]


class Data(Section):
    train: Annotated[
        Annotated[str, Tag("<name>")] | Annotated[list[Sets], Tag("<list>")],
        Discriminator(lambda value: "<list>" if isinstance(value, list) else "<name>"),
    ] = Field(
        "tiny",
        description="`tiny` (generated), a file or folder (JSON lines, JSON, parquet, CSV, .gz), `hub:owner/name/config:split` (without `:split`: data.split), or a list of such sets, mixed by weight.",
    )
    split: str = Field("train", description="Split of a hub set or folder in data.train that names none.")
    problem: str | None = Field(
        None,
        description="Column of the problem, dotted into mappings and lists (`extra_info.question`); null: recognised, and said by plan. Evaluation sets without it are recognised.",
    )
    answer: str | None = Field(
        None, description="Column of the gold answer (`reward_model.ground_truth`), likewise; a list holds several, any of which will do."
    )
    instruction: str = Field("", description="Text put after every problem, behind a blank line.")
    template: dict[str, Any] = Field(
        {}, description="Arguments of the chat template under its own names: enable_thinking: false, reasoning_effort: low, ..."
    )
    thinking: Annotated[list[str], Field(min_length=2, max_length=2)] | None = Field(
        None, description="Marks that open and close the model's thinking, [<think>, </think>]; null: found in template and vocabulary."
    )
    max_prompt_tokens: Count = Field(1024, description="Longer prompts are left out and counted.")

    @model_validator(mode="after")
    def _names_a_set(self) -> Data:
        if not self.train:
            raise ValueError("train: empty; name `tiny`, a file or hub:owner/name")
        return self

    @model_validator(mode="after")
    def _marks_differ(self) -> Data:
        opener, closer = self.thinking or ("<", ">")
        if not opener.strip() or not closer.strip() or opener in closer or closer in opener:
            raise ValueError(
                f"thinking: {self.thinking}: one of these marks is empty or within the other; name what opens and what closes, as [<think>, </think>]"
            )
        return self

    @property
    def sets(self) -> list[DataSet]:
        """The training sets, each with its columns and split filled in."""
        given = named_sets(self.train, self.split)
        return [one.model_copy(update={"problem": one.problem or self.problem, "answer": one.answer or self.answer}) for one in given]
