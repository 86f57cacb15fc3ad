"""The slot of evaluations: what is asked after training, and before, how often, and at which budgets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from recipes.data import Sets
from recipes.section import Count, Natural, NonNegative, Section


class ForcedAt(Section):
    kind: Literal["forced"] = Field(..., description="Thinking is closed there, and the answer follows.")
    limit: Count = Field(..., description="Tokens of thinking before it is closed; at most eval.max_tokens.")


class ExtendedTo(Section):
    kind: Literal["extended"] = Field(
        ..., description="Thinking that ends before is told to go on, and closed there (budget forcing of s1, 2501.19393)."
    )
    limit: Count = Field(
        ..., description="Tokens of thinking before it is closed, the words put into it among them; at most eval.max_tokens."
    )
    waits: Count = Field(..., description="How often a sample is told to go on, at most.")
    word: str = Field("Wait", min_length=1, description="What stands in the place of the mark that would close its thinking.")


class RequestedAt(Section):
    kind: Literal["requested"] = Field(..., description="The prompt asks for it; how far samples keep to it is reported.")
    limit: Count = Field(
        ...,
        description="Tokens that `{budget}` in data.instruction stands for; without it, a sentence that says it is put behind. At most eval.max_tokens.",
    )


class ShortOf(Section):
    kind: Literal["short"] = Field(..., description="Chains are sampled together, and those stopped that would not vote (short-m@k).")
    first: Count = Field(..., description="Chains that vote, the first to think to the end (m); ties go to the shortest.")
    of: Count = Field(..., description="Chains that start together (k); a problem gets eval.samples / k such votes, at least one.")


BudgetAt = Annotated[ForcedAt | ExtendedTo | RequestedAt | ShortOf, Field(discriminator="kind")]


class Eval(Section):
    data: list[Sets] = Field(
        ["tiny"],
        description="Held-out sets, named as in data.train, or as mappings with their own columns (a hub set without `:split`: `test`).",
    )
    benchmarks: list[str] = Field(
        [],
        description="Benchmarks by name (`laconic benchmarks`), beside eval.data; `NAME@FOLDER` reads local files, `NAME@hub:owner/name` another copy. `laconic eval --benchmark` takes the protocol of R1, a recipe what stands here.",
    )
    problems: Natural = Field(256, description="Problems taken of each source; 0: all.")
    samples: Count = Field(4, description="Rollouts of a problem.")
    temperature: NonNegative = Field(0.6, description="Sampling temperature; 0 is greedy.")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="Nucleus sampling.")
    top_k: Natural = Field(
        0, description="Only so many of the likeliest tokens are sampled from, before top_p; 0: all. Qwen3 is published with 20."
    )
    max_tokens: Count = Field(320, description="Tokens a rollout may use.")
    every: Natural = Field(
        0,
        description="Steps between evaluations during training; 0: none. An eval stage behind it is of the first and of the last, besides.",
    )
    budgets: list[BudgetAt] = Field(
        [], description="Budgets at which all is sampled once more, beside the natural evaluation (`{kind: forced, limit: 1024}`)."
    )
    margin: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="Loss of accuracy, a share, that a shorter model may have; fixed before anything is sampled, and recorded.",
    )

    @model_validator(mode="after")
    def _each_budget_once_and_within_reach(self) -> Eval:
        for place, budget in enumerate(self.budgets):
            named = f"short {budget.first}@{budget.of}" if isinstance(budget, ShortOf) else f"{budget.kind} {budget.limit}"
            if not isinstance(budget, ShortOf):
                if budget.limit > self.max_tokens:
                    raise ValueError(
                        f"budgets: {named} is more than max_tokens {self.max_tokens}, where samples end; raise that, or take it out"
                    )
            elif budget.first > budget.of or budget.of < 2:
                raise ValueError(f"budgets: {named}: of 2 or more chains at most all can vote; write it as 3@8, the first 3 of 8")
            elif not self.temperature:
                raise ValueError(f"budgets: {named}: at temperature 0 all chains are alike; raise temperature, or take it out")
            if budget in self.budgets[:place]:
                raise ValueError(f"budgets: {named} stands there twice; take one out")
        return self
