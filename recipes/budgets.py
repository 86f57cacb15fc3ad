"""The budget slot: how many tokens a rollout may use, by kind. `limit` is the most that any prompt is given; engines keep room for it.

Several kinds hold together (`also`): each has its own numbers, and limit, room, cut and cut_stop of the first. A request is given the least of what they
say; after sampling, coverage may raise that, then a difficulty's rung and a toggle lower it (rollout/budget).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from recipes.section import Count, Natural, NonNegative, Positive, Section, Share, kind_or, whole

SHARED = ("limit", "room", "cut", "cut_stop")  # numbers of the first kind, which all others have from it
_Kind = TypeVar("_Kind", bound="_Budget")


class _Budget(Section):
    limit: Count = Field(128, description="Tokens a rollout may use, as rewards and prompts speak of them ({budget} in data.instruction).")
    room: Annotated[float, Field(ge=1)] = Field(
        1.0, description="Sampling stops at room x limit: above 1, rewards see by how much a rollout exceeds its limit."
    )
    cut: Literal["score", "mask"] = Field(
        "score",
        description="Rollouts cut off there: train like any other (reward terms say what they earn), or are kept out of the loss and its denominators.",
    )
    cut_stop: Share = Field(
        0.95, description="A first step with a larger share of cut rollouts stops the run: the limit does not fit the model."
    )
    also: list[FurtherBudget] = Field(
        [],
        description="Further kinds that hold at the same time, each with its own numbers, and limit, room, cut and cut_stop of this one (`- {kind: toggle}`); an entry begins with what a parent said for its kind. No number of theirs takes a schedule.",
    )

    @model_validator(mode="before")
    @classmethod
    def _hand_on(cls, said: Any) -> Any:
        """Give further kinds the numbers that they have from the first."""
        if not isinstance(said, dict) or not isinstance(said.get("also"), list):
            return said
        for index, part in enumerate(said["also"]):
            if isinstance(part, dict) and (stated := next((name for name in (*SHARED, "also") if name in part), None)):
                why = "further kinds stand side by side" if stated == "also" else f"budget.{stated} is that of all kinds"
                raise ValueError(f"also[{index}].{stated}: {why}; leave it out here")
        try:
            shared = _Budget.model_validate({name: said[name] for name in SHARED if name in said}, strict=True).shared
        except ValidationError:  # said of the first kind itself
            return said
        return said | {"also": [{**part, **shared} if isinstance(part, dict) else part for part in said["also"]]}

    @model_validator(mode="after")
    def _each_kind_once(self) -> Any:
        if not self.also:
            return self
        kinds = self.kinds
        for index, kind in enumerate(kinds[1:]):
            if kind in kinds[: index + 1]:
                raise ValueError(f"also[{index}].kind: {kind} is there already; each kind holds once")
        looks = {(part.watch, part.every) for part in self.parts if isinstance(part, WatchingBudget) and part.watch}
        if len(looks) > 1:
            said = " and ".join(f"{watch:g} every {every}" for watch, every in sorted(looks))
            raise ValueError(
                f"also: controller and coverage look at the same problems sampled apart, at the same steps, and here watch is {said}; say the same watch and every for both"
            )
        return self

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        if also := written.pop("also", []):
            written["also"] = [{name: value for name, value in part.items() if name not in SHARED} for part in also]
        return written

    @property
    def shared(self) -> dict[str, Any]:
        """The numbers that all kinds have from the first."""
        return {name: getattr(self, name) for name in SHARED}

    @property
    def placed(self) -> Mapping[str, Budget]:
        """Each kind that holds, with the numbers of all, by where the recipe says it."""
        first: Any = self.model_copy(update={"also": []}) if self.also else self
        return {"budget": first} | {f"budget.also[{index}]": part.model_copy(update=self.shared) for index, part in enumerate(self.also)}

    @property
    def parts(self) -> tuple[Budget, ...]:
        """The same without their places."""
        return tuple(self.placed.values())

    def part(self, kind: type[_Kind]) -> _Kind | None:
        """The kind of this class that holds; None if none does."""
        return next((part for part in self.parts if isinstance(part, kind)), None)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What holds, by name."""
        return tuple(part.kind for part in self.parts)

    @property
    def columns(self) -> dict[str, str]:
        """Columns of the data that limits come from, by the key that names each."""
        named = {f"{place}.column": getattr(part, "column", None) for place, part in self.placed.items()}
        return {key: column for key, column in named.items() if column is not None}

    @property
    def watching(self) -> WatchingBudget | None:
        """A kind that looks at problems sampled apart: when, and at how many, which all such kinds agree on."""
        return next((part for part in self.parts if isinstance(part, WatchingBudget) and part.watch), None)

    @property
    def least_request(self) -> int:
        """The least that a request may be given, tokens."""
        return min(self.limit, *(part.tokens(getattr(part, "least", 1.0)) for part in self.parts))

    @property
    def least_limit(self) -> int:
        """The least that a group may be rewarded under."""
        return min(part.lowered(self.least_request) for part in self.parts)

    @property
    def most_limit(self) -> int:
        """The most that a group may be rewarded under."""
        return self.most_tokens if self.part(CoverageBudget) else self.limit

    @property
    def most_tokens(self) -> int:
        """The most that any rollout is sampled to."""
        return self.sampled(self.limit)

    def beyond(self, rights: Sequence[float] | None = None) -> tuple[float, int]:
        """The most tokens of a rollout per token of the limit that it is rewarded under, and how many above it.

        Args:
            rights: the shares of right rollouts that groups may have (default: any).
        """
        times = max(part.times(self.least_request, rights) for part in self.parts)
        return times, self.most_tokens - min(part.lowered(self.limit, rights) for part in self.parts)

    def times(self, least: int, rights: Sequence[float] | None = None) -> float:
        """The first of these by this kind, for requests from `least` tokens on. Where the limit is the one that a rollout was sampled with, or more,
        `room` bounds it, and of one limit, or where none can be exceeded, what whole tokens leave of it."""
        return self.room if least < self.limit < self.most_tokens else self.most_tokens / self.limit

    def lowered(self, limit: int, rights: Sequence[float] | None = None) -> int:
        """The least that this kind leaves, after sampling, of a request's limit, tokens."""
        return limit

    def sampled(self, limit: int) -> int:
        """Where sampling stops, tokens, of a prompt with this limit."""
        return whole(limit * self.room)

    def tokens(self, share: float) -> int:
        """A share of the limit in tokens, at least one."""
        return max(whole(share * self.limit), 1)


class ConstantBudget(_Budget):
    kind: Literal["constant"] = Field("constant", description="One limit for all (with a `schedule`, one at a time).")


class Rung(Section):
    at_least: Share = Field(0.0, description="Holds for groups whose share of right, finished rollouts is at least this.")
    share: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="Length limit of such groups, as a share of budget.limit.")

    def of(self, limit: int) -> int:
        """Its limit, tokens, at least one."""
        return max(whole(self.share * limit), 1)


class WatchingBudget(_Budget):
    """One that looks at problems sampled apart from those that train: the first of the training data's own order, always the same."""

    watch: NonNegative = Field(
        4.0,
        description="Training problems sampled apart, always the same, each sampler.group_size times, to room x limit: their number as a multiple of sampler.prompts.",
    )
    every: Count = Field(20, description="Steps between two looks at them, from step 0 on.")

    def watched(self, prompts: int) -> int:
        """How many problems, at `prompts` a step."""
        return round(self.watch * prompts)


class DifficultyBudget(_Budget):
    kind: Literal["difficulty"] = Field(
        ..., description="The share of right rollouts of a prompt picks its rung, after sampling (DA-DLER)."
    )
    ladder: list[Rung] = Field(..., description="Rungs, first match wins. The limits apply to rewards, after generation.")

    @model_validator(mode="after")
    def _ladder_reaches_all(self) -> DifficultyBudget:
        thresholds = [rung.at_least for rung in self.ladder]
        if not self.ladder or thresholds != sorted(set(thresholds), reverse=True) or thresholds[-1] != 0:
            raise ValueError("ladder: rungs must fall in at_least and end with one that always holds (no at_least)")
        if whole(self._share() * self.limit) < 1:
            raise ValueError(f"ladder: a share of limit {self.limit} is less than one token, so no answer could ever be rewarded")
        return self

    def rung(self, right: float) -> Rung:
        """That of a group with this share of right, finished rollouts."""
        return next(rung for rung in self.ladder if right >= rung.at_least)

    def _share(self, rights: Sequence[float] | None = None) -> float:
        return min(rung.share for rung in (self.ladder if rights is None else map(self.rung, rights)))

    def lowered(self, limit: int, rights: Sequence[float] | None = None) -> int:
        return max(whole(self._share(rights) * limit), 1)

    def times(self, least: int, rights: Sequence[float] | None = None) -> float:
        share, lowered = self._share(rights), self.lowered(least, rights)
        if share == 1:
            return super().times(least)
        most = self.most_tokens / lowered
        return most if least == self.limit else min(most, self.room / share * (1 + 1 / lowered))  # whole tokens lose less than one


class PromptBudget(_Budget):
    kind: Literal["prompt"] = Field(
        ..., description="Each prompt's own: from a column of the data, or drawn for it (L1: evenly from least x limit to limit)."
    )
    column: str | None = Field(
        None, min_length=1, description="Column that holds it, in tokens; more than limit counts as limit (null: drawn)."
    )
    least: Share = Field(0.025, description="No prompt is given less, as a share of limit.")


class ReferenceBudget(_Budget):
    kind: Literal["reference"] = Field(
        ..., description="A share of what the reference model takes for the prompt, from a column of the data."
    )
    column: str = Field("reference_tokens", min_length=1, description="Column with the reference's mean length on the prompt, tokens.")
    share: Positive = Field(0.5, description="Of that length.")
    least: Share = Field(0.025, description="No prompt is given less, as a share of limit.")


class CoverageBudget(WatchingBudget):
    kind: Literal["coverage"] = Field(
        ...,
        description="By the group's difficulty: the least length, from limit up to room x limit, that covers answers of its class on problems sampled apart (LASER-D, arXiv 2505.15612).",
    )
    grid: Positive = Field(0.25, description="Step between lengths that it may choose, as a share of limit (1024 of 4096).")
    form: Literal["paper", "code"] = Field(
        "code", description="How many rollouts a class promises: two thirds, a third, one, rounded up (paper) or down (release)."
    )


class ControllerBudget(WatchingBudget):
    kind: Literal["controller"] = Field(
        ..., description="As short as accuracy allows: falls while accuracy is above a floor, and rises below it."
    )
    watch: NonNegative = Field(
        0.0,
        description="Problems sampled apart, as a multiple of sampler.prompts (see `coverage`); it is their accuracy that counts. 0: that of what is sampled to train, up to room x the limit that holds.",
    )
    every: Count = Field(1, description="Steps between two looks at them.")
    within: Share = Field(0.02, description="The floor lies this much below the accuracy of the first `measure` looks.")
    measure: Count = Field(5, description="Looks over which the start's accuracy is taken; until then the limit stays.")
    smooth: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.8, description="Weight of the past in the exponential mean of accuracy (raw verdicts)."
    )
    gain: Positive = Field(0.5, description="Change of the logarithm of the limit per look and per unit of accuracy above the floor.")
    pace: Positive = Field(0.05, description="Largest change of that logarithm in a look.")
    least: Share = Field(0.1, description="Lower bound, as a share of limit.")


class ToggleBudget(_Budget):
    kind: Literal["toggle"] = Field(
        ...,
        description="Phases with and without a limit: a percentile of right answers' lengths so far, for groups that are mostly right (Toggle).",
    )
    period: Count = Field(50, description="Steps of a phase; the first is without a limit.")
    warmup: Natural = Field(0, description="Steps before the first phase with a limit.")
    percentile: Annotated[float, Field(ge=0, le=100)] = Field(80, description="Of the last 4096 right answers' lengths.")
    accuracy: Share = Field(0.8, description="Share of right rollouts from which on a group meets the limit.")

    def limited(self, step: int) -> bool:
        """Whether a step is of a phase with a limit."""
        return step >= self.warmup and (step // self.period) % 2 == 1

    def lowered(self, limit: int, rights: Sequence[float] | None = None) -> int:
        return 1 if rights is None or max(rights) >= self.accuracy - 1e-9 else limit

    def times(self, least: int, rights: Sequence[float] | None = None) -> float:
        return float(self.most_tokens) if self.lowered(2, rights) == 1 else super().times(least)


class ThinkingBudget(_Budget):
    kind: Literal["thinking"] = Field(
        ...,
        description="Engines close thinking after a share of the limit; the mark that they put there neither trains nor counts as length.",
    )
    share: Share = Field(0.5, description="Of limit, that thinking may take before it is closed; 0 closes it at once.")

    def closes(self, limit: int) -> int:
        """Tokens of thinking before it is closed, of a request with this limit."""
        return whole(self.share * limit)


class OutlierBudget(_Budget):
    kind: Literal["outlier"] = Field(
        ..., description="In all-right groups, rollouts far longer than the others are cut, and judged again by what is left (DOT)."
    )
    alpha: Positive = Field(3.0, description="Standard deviations above the group's mean.")
    least_cut: NonNegative = Field(0.004, description="By how much a rollout must exceed that, to be cut, as a share of limit.")

    @property
    def cut_tokens(self) -> int:
        """The same, tokens."""
        return self.tokens(self.least_cut)

    def cuts(self, rollouts: int) -> bool:
        """Whether a group of so many can hold one that is cut: the most exceeds it where one is as long as can be, and all others are of a token."""
        bound = 1 + (self.most_tokens - 1) * (1 / rollouts + self.alpha / rollouts**0.5)
        return self.most_tokens - floor(bound) >= self.cut_tokens


_Further = (
    DifficultyBudget | PromptBudget | ReferenceBudget | ControllerBudget | OutlierBudget | ToggleBudget | CoverageBudget | ThinkingBudget
)
FurtherBudget = Annotated[_Further, Field(discriminator="kind")]
Budget = Annotated[ConstantBudget | _Further, Field(discriminator="kind"), kind_or("constant")]
for _kind in (_Budget, ConstantBudget, *get_args(_Further)):
    _kind.model_rebuild()


def refuse_unfit(budget: Budget, states: bool, tiny: bool, prompts: int, group_size: int) -> None:
    """Raise ValueError for a kind that the prompts or the sampler do not fit.

    Args:
        states: data.instruction states a {budget}.
        tiny: the model is the tiny reasoner, which is told none.
        prompts, group_size: the sampler's.
    """
    placed = budget.placed
    later = next((place for place, part in placed.items() if part.kind in ("difficulty", "outlier", "toggle", "coverage")), None)
    must = "prompt" in budget.kinds and not tiny
    if must and later:
        raise ValueError(
            f"budget.also: prompt gives each prompt a limit that it must state, and {placed[later].kind} decides another after sampling; take one out"
        )
    if later and states:
        raise ValueError(
            f"data.instruction: states a {{budget}}, but {later}.kind {placed[later].kind} decides it after sampling; take it out"
        )
    if must and not states:
        raise ValueError("data.instruction: budget.kind prompt gives each prompt its own limit, which it must state: say {budget} in it")
    most = (group_size - 1) / group_size**0.5
    for place, part in placed.items():
        if isinstance(part, OutlierBudget) and part.alpha >= most:
            raise ValueError(
                f"{place}.alpha: {part.alpha:g}: among {group_size} rollouts none lies more than {most:.3f} deviations above their mean; take less"
            )
        watch = getattr(part, "watch", 0.0)
        if (watch or part.kind == "coverage") and round(watch * prompts) < 1:
            raise ValueError(f"{place}.watch: {watch:g} x sampler.prompts {prompts} is not one problem; raise it")
