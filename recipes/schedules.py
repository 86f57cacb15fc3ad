"""Numbers that move over training: `schedule` names them by their key, and says how each goes on from the number that the recipe gives it.

Claim: the value at a step is a pure function of recipe and step, so nothing of a schedule is state: a resumed run goes on where it was.
Past its end a schedule stays where it ended. Whole numbers are rounded down (arXiv 2508.08940: 179.2 tokens are 179).
Numbers that move keep to the rules of their slot together, in every step: asked where one, or the difference of two, is least or most, since rules are bounds on these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from math import ceil, inf, isfinite
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from recipes.section import Count, Natural, NonNegative, Positive, Section, whole


class Exponential(Section):
    """B(t) = start x factor^floor(t / every) (arXiv 2508.08940)."""

    kind: Literal["exponential"] = Field(..., description="Times `factor` every `every` steps.")
    factor: Positive = Field(..., description="Of each change.")
    every: Count = Field(..., description="Steps between changes.")
    least: float | None = Field(None, description="Lower bound (null: none).")

    def bends(self, steps: int) -> Iterable[int]:
        return range(0, steps, self.every)

    def value(self, start: float, step: int, steps: int) -> float:
        now = start * self.factor ** (step // self.every)
        bound = self.bound(start)
        return now if bound is None else max(now, bound)

    def bound(self, start: float) -> float | None:
        """The lower bound; of a whole number, the next one."""
        return ceil(self.least) if self.least is not None and isinstance(start, int) else self.least


class Decays(Section):
    """The same by its end and the number of changes: every steps / (count + 1), factor share^(1 / count)."""

    kind: Literal["decays"] = Field(..., description="Down to `share` of the number in `count` equal factors, evenly spread over the run.")
    share: Positive = Field(..., description="Where it ends, as a share of where it starts.")
    count: Count = Field(..., description="Number of changes.")

    def bends(self, steps: int) -> Iterable[int]:
        return [-(-change * steps // (self.count + 1)) for change in range(1, self.count + 1)]

    def value(self, start: float, step: int, steps: int) -> float:
        return start * self.share ** (min(step * (self.count + 1) // steps, self.count) / self.count)


class Linear(Section):
    """From the number to `to`, or to `share` of it: at every step, or in `drops` equal changes."""

    kind: Literal["linear"] = Field(..., description="In a straight line to `to`, or to `share` of where it starts.")
    to: float | None = Field(None, description="Where it ends.")
    share: NonNegative | None = Field(None, description="The same, as a share of where it starts.")
    over: Count | None = Field(None, description="Steps over which it moves (null: the run's; 1: from the start).")
    drops: Count | None = Field(
        None, description="Number of equal changes, which part `over` into drops + 1 equal stretches (null: one a step)."
    )

    @model_validator(mode="after")
    def _has_an_end(self) -> Linear:
        if (self.to is None) == (self.share is None):
            raise ValueError("to: say either to or share")
        return self

    def bends(self, steps: int) -> Iterable[int]:
        over, drops = self.over or steps, self.drops
        return [-(-change * over // (drops + 1)) for change in range(1, drops + 1)] if drops else [over - 1]

    def value(self, start: float, step: int, steps: int) -> float:
        over = self.over or steps
        to = start * self.share if self.share is not None else self.to or 0.0
        if self.drops:
            share = min(step * (self.drops + 1) // over, self.drops) / self.drops
        else:
            share = min(step / (over - 1), 1.0) if over > 1 else 1.0
        return start + share * (to - start)


class Stage(Section):
    since: Natural = Field(..., description="Step from which it holds.")
    value: float = Field(..., description="The number from then on.")


class Staged(Section):
    """Named values from named steps on (ThinkPrune, arXiv 2504.01296)."""

    kind: Literal["staged"] = Field(..., description="A value from a step on, then the next.")
    stages: list[Stage] = Field(..., min_length=1, description="In the order of their steps.")

    @model_validator(mode="after")
    def _in_order(self) -> Staged:
        since = [stage.since for stage in self.stages]
        if since != sorted(set(since)):
            raise ValueError(f"stages: since {since}: each must come after the one before")
        return self

    def bends(self, steps: int) -> Iterable[int]:
        return [stage.since for stage in self.stages]

    def value(self, start: float, step: int, steps: int) -> float:
        return next((stage.value for stage in reversed(self.stages) if stage.since <= step), start)


Schedule = Annotated[Exponential | Decays | Linear | Staged, Field(discriminator="kind")]
_SCHEDULE: TypeAdapter[Schedule] = TypeAdapter(Schedule)

# Numbers that may move. Others are built into engines, ranks or data when these start.
MOVABLE = (
    "sampler.temperature",
    "budget.limit",
    "budget.share",
    "advantage.boost",
    "advantage.shorter",
    "select.keep",
    "credit.steer",
    "credit.weight",
    "tokens.keep",
    "objective.clip_low",
    "objective.clip_high",
    "objective.entropy.coef",
    "objective.kl.coef",
    "learner.lr",
)


_EVENLY = 4096  # steps of a run that stand for all, where they are more


def value_at(schedule: Schedule, start: float, step: int, steps: int) -> float:
    """The number at a step of a run of `steps`; a whole number where `start` is one. Infinite where it grows beyond every number."""
    try:
        now = schedule.value(start, min(step, steps - 1), steps)
    except OverflowError:
        return inf
    return whole(now) if isinstance(start, int) and isfinite(now) else now


def line(schedule: Schedule, start: float, steps: int) -> Sequence[float]:
    """The number at every step."""
    return _line(schedule.model_dump_json(), start, steps)


@lru_cache(maxsize=16, typed=True)
def _line(schedule: str, start: float, steps: int) -> Sequence[float]:
    read: Schedule = _SCHEDULE.validate_json(schedule)
    return tuple(value_at(read, start, step, steps) for step in range(steps))


def turning(schedules: Mapping[str, Schedule], starts: Mapping[str, float], steps: int) -> list[int]:
    """The steps in which a bound may be worst that goes by these numbers of reward and budget, in order.

    These are the first and last step of every piece in which each moves on a straight line, or, where it is a whole one, stays: weights of terms make
    sums of such lines. Where other numbers move side by side, which makes products, so many evenly spaced steps of a longer run are looked at, too.
    """
    found = {0, steps - 1} if starts else {0}
    for name, start in starts.items():
        bends = set(schedules[name].bends(steps))
        if isinstance(start, int):
            numbers = line(schedules[name], start, steps)
            bends |= {step for step in range(1, steps) if numbers[step] != numbers[step - 1]}
        found |= {step for bend in bends for step in (bend - 1, bend) if 0 <= step < steps}
    lines = [name for name, start in starts.items() if not isinstance(start, int)]
    if len(lines) > 1 and not all(name.endswith(".weight") and name != "reward.verdict.weight" for name in lines):
        found |= set(range(0, steps, -(-steps // _EVENLY)))
    return sorted(found)


def moved(section: Any, parts: Sequence[str], value: float) -> Any:
    """A copy of a section, or list of terms, with one number changed. Nothing is checked."""
    if isinstance(section, list):
        return [moved(term, parts[1:], value) if term.kind == parts[0] else term for term in section]
    new = value if len(parts) == 1 else moved(getattr(section, parts[0]), parts[1:], value)
    return section.model_copy(update={parts[0]: new})


def refuse_leaving(recipe: Any, values: Mapping[str, Sequence[float]]) -> None:
    """Raise ValueError for numbers that break a rule of their slot, all as they stand in one step, with the first step in which they do.

    Args:
        recipe: whose slots hold the numbers that stay.
        values: of each number that moves, by step.
    """
    for slot in dict.fromkeys(name.partition(".")[0] for name in values):
        moving = {name: by_step for name, by_step in values.items() if name.startswith(slot + ".")}

        def broken(step: int, slot: str = slot, moving: Mapping[str, Sequence[float]] = moving) -> tuple[str, str] | None:
            now = getattr(recipe, slot)
            for name, by_step in moving.items():
                now = moved(now, name.split(".")[1:], by_step[step])
            return _broken(slot, now)

        if any(broken(step) for step in _ends(list(moving.values()))):
            step, (blamed, why) = next((step, found) for step in range(recipe.train.steps) if (found := broken(step)))
            names = [blamed] if blamed in moving else list(moving)
            raise ValueError(f"{at_step({name: moving[name][step] for name in names}, step)} is not allowed: {why}")


def at_step(values: Mapping[str, float], step: int) -> str:
    """Numbers that moved there, as an error begins that blames their schedules."""
    first, *others = values
    beside = "".join(f" beside {name} {values[name]:g}" for name in others)
    return f"schedule: {first}: {values[first]:g}{beside} at step {step}"


def _ends(lines: Sequence[Sequence[float]]) -> set[int]:
    """The steps in which a number, or the difference of two, is least or most: all that a bound on either can refuse."""
    gaps = [[a - b for a, b in zip(one, other, strict=True)] for one, other in combinations(lines, 2)]
    return {pick(range(len(line)), key=line.__getitem__) for line in (*lines, *gaps) for pick in (min, max)}


def _broken(name: str, slot: Any) -> tuple[str, str] | None:
    """Where a section, or one of a list of them, breaks a rule of its own, as a dotted key, and which rule; None if nowhere."""
    for section in slot if isinstance(slot, list) else [slot]:
        try:
            type(section).model_validate(section.model_dump(warnings=False))
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            where = [name, *([section.kind] if isinstance(slot, list) else []), *map(str, detail["loc"])]
            return ".".join(where), str(detail.get("ctx", {}).get("error") or detail["msg"].lower())
    return None
