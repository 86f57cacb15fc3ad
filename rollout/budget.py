"""What a prompt may use: before sampling (`request_limit`: request and prompt speak of it), and after it (`group_limit`: rewards do).

Where several kinds hold (`budget.also`), a request is given the least of what they say. After sampling, in this order whatever the recipe's: outliers
are cut (rollout/scorer), coverage raises the request's limit, a difficulty's rung is a share of that, and a toggle's percentile lowers what is left.

Claim: a limit is a function of recipe, step, problem and the controller's state, which is in the checkpoint: never of the clock, nor of
how often a run was started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import exp, log
from typing import Any

import numpy as np

from recipes.budgets import (
    Budget,
    ControllerBudget,
    CoverageBudget,
    DifficultyBudget,
    PromptBudget,
    ReferenceBudget,
    ThinkingBudget,
    ToggleBudget,
)
from recipes.columns import number_in
from recipes.lengths import LeashTerm
from recipes.schema import Recipe
from recipes.section import whole
from recipes.terms import RewardTerm
from rewards.profiles import Difficulty, laser_limit, percentile_limit
from rewards.rows import reach
from rollout.types import Group, Problem

_WINDOW = 4096  # right answers whose lengths a toggle keeps
_CLASSES: tuple[tuple[Difficulty, float], ...] = (
    ("easy", 2 / 3),
    ("medium", 1 / 3),
    ("hard", 0.0),
)  # from which share of right rollouts on


@dataclass(frozen=True)
class Tiers:
    """Limits, tokens, by the share of a group's rollouts that are right: the first that it reaches. From the highest share down to 0."""

    steps: tuple[tuple[float, int], ...]

    def of(self, right: float) -> int:
        """The limit of a group with this share."""
        return next(tokens for at_least, tokens in self.steps if right >= at_least - 1e-9)


@dataclass(frozen=True)
class Held:
    """A budget with what the steps so far decided: coverage's limits, and a toggle's, where they have any."""

    budget: Budget
    covers: Tiers | None = None
    toggled: Tiers | None = None


def request_limit(budget: Budget, problem: Problem, seed: int, share: float = 1.0) -> int:
    """The limit of a request, tokens: the least of what the kinds say.

    Args:
        seed: the request's, from which a drawn limit follows.
        share: of `limit`, what a controller leaves.

    Raises:
        ValueError: the problem's row has no number where the recipe looks for one.
    """
    return min(_asked(part, problem, seed, share) for part in budget.parts)


def _asked(budget: Budget, problem: Problem, seed: int, share: float) -> int:
    """What one kind says of a request's limit."""
    match budget:
        case PromptBudget(column=None):
            return int(np.random.default_rng(seed).integers(budget.tokens(budget.least), budget.limit + 1))
        case PromptBudget(column=str(column)):
            wanted = _number(problem, column)
        case ReferenceBudget():
            wanted = budget.share * _number(problem, budget.column)
        case ControllerBudget():
            return stated_limit(budget, share)
        case _:
            return budget.limit
    return whole(min(max(wanted, budget.tokens(budget.least)), budget.limit))


def stated_limit(budget: Budget, share: float) -> int:
    """What prompts state, tokens, that no data speaks of: the limit, or what a controller leaves of it (a share)."""
    controller = budget.part(ControllerBudget)
    if controller is None:
        return budget.limit
    return min(max(budget.tokens(share), budget.tokens(controller.least)), budget.limit)


def thinking_limit(budget: Budget, limit: int) -> int | None:
    """Free tokens after which the engine closes the thinking of a request with this limit; None: it does not."""
    thinking = budget.part(ThinkingBudget)
    return thinking.closes(limit) if thinking else None


def _number(problem: Problem, column: str) -> float:
    number = number_in(value := reach(problem.columns, column))
    if not number > 0:
        raise ValueError(f"problem {problem.id}: budget.column {column} holds {value!r}, no number of tokens; name another column")
    return number


def group_limit(held: Held, limit: int, tokens_G: np.ndarray, right_G: np.ndarray, finished_G: np.ndarray) -> int:
    """The length limit, tokens, under which a group is rewarded.

    Coverage gives a request of less than budget.limit as many times that. `difficulty` (DA-DLER, arXiv 2510.15110 section 4): the share of rollouts
    that are right, finished and within the limit so far picks the first rung it reaches. A toggle lowers what is left, and never raises it.

    Args:
        limit: the request's, tokens.
        tokens_G: sampled tokens of each rollout.
        right_G: judged right.
        finished_G: ended by itself ("stop").
    """
    right = float(np.mean(right_G))
    if held.covers:
        limit = whole(held.covers.of(right) * limit / held.budget.limit)
    if difficulty := held.budget.part(DifficultyBudget):
        share = float(np.mean(right_G & finished_G & (tokens_G <= limit)))
        limit = difficulty.rung(share).of(limit)
    return min(limit, held.toggled.of(right)) if held.toggled else limit


@dataclass(frozen=True)
class Floor:
    """A controller's state: the share of the limit that it leaves, the mean accuracy, and the start's.

    Attributes:
        steps: times that accuracy was measured.
        start: mean accuracy of the first of them.
        accuracy: exponential mean since then.
    """

    share: float = 1.0
    steps: int = 0
    start: float = 0.0
    accuracy: float = 0.0


def next_floor(now: Floor, accuracy: float, settings: ControllerBudget) -> Floor:
    """The controller after a look at this raw accuracy.

    log share falls by gain x (mean accuracy - floor), by no more than `pace`, and stays between `least` and 1; at a bound nothing
    adds up, so it leaves it at once when the sign turns. Accuracy of the raw verdicts only, never of shaped rewards.
    """
    if now.steps < settings.measure:
        start = (now.start * now.steps + accuracy) / (now.steps + 1)
        return replace(now, steps=now.steps + 1, start=start, accuracy=start)
    mean = settings.smooth * now.accuracy + (1 - settings.smooth) * accuracy
    change = min(max(settings.gain * (mean - (now.start - settings.within)), -settings.pace), settings.pace)
    share = exp(min(max(log(now.share) - change, log(max(settings.least, 1 / settings.limit))), 0.0))
    return Floor(share, now.steps + 1, now.start, mean)


def next_lambda(now: float, excess: float, settings: LeashTerm) -> float:
    """Leash's multiplier after a step: now + gain x (mean of length / limit - 1), over all rewarded rollouts, between 0 and `most` (arXiv 2512.21540)."""
    return min(max(now + settings.gain * excess, 0.0), settings.most)


def covering(groups: Sequence[Group], budget: CoverageBudget) -> list[int]:
    """The limits, tokens, of easy, medium and hard groups, from problems sampled apart (LASER-D, arXiv 2505.15612).

    A problem is easy above two thirds of right rollouts, medium above one; rewards count the thirds themselves with the class above, as the
    release does. Lengths of all responses of a class count, right or wrong.
    """
    by_class: dict[Difficulty, list[int]] = {name: [] for name, _ in _CLASSES}
    for group in groups:
        share = float(np.mean([rollout.right for rollout in group.rollouts]))
        name = next(name for name, at_least in _CLASSES if share > at_least + 1e-9 or at_least == 0)
        by_class[name] += [rollout.tokens for rollout in group.rollouts]
    longest = max(max(lengths, default=0) for lengths in by_class.values())
    apart = max(budget.grid * budget.limit, 1.0)
    steps = whole(max(min(budget.most_limit, longest) - budget.limit, 0) / apart)  # beyond the longest none is chosen
    grid = [budget.limit + whole(step * apart) for step in range(steps + 1)]
    rollouts = len(groups[0].rollouts)
    found = []
    for name, lengths in by_class.items():
        shares = np.searchsorted(np.sort(lengths), grid, side="right") / max(len(lengths), 1)
        coverage = dict(zip(grid, shares.tolist(), strict=True))
        found.append(max(budget.limit, int(laser_limit(coverage, name, rollouts, longest, budget.form))))
    return found


class Control:
    """What answers to the steps so far: the controller's share, LASER-D's limits, Leash's multiplier, Toggle's lengths. Has state (rl/state)."""

    def __init__(self, recipe: Recipe):
        self._recipe = recipe
        self.floor = Floor()
        self.rights: list[int] = []
        self.covers: list[int] = []
        self.leash = next((term.weight for term in recipe.reward if isinstance(term, LeashTerm)), 0.0)

    def terms(self, reward: Sequence[RewardTerm]) -> list[RewardTerm]:
        """The terms with the multiplier that holds now."""
        return [term.model_copy(update={"weight": self.leash}) if isinstance(term, LeashTerm) else term for term in reward]

    def budget(self, budget: Budget, step: int) -> Held:
        """What rewards go by at a step: a toggle's percentile for groups that are mostly right (arXiv 2602.02276), LASER-D's limits by difficulty."""
        coverage, toggle = budget.part(CoverageBudget), budget.part(ToggleBudget)
        limits = self._covers(coverage) if coverage else []
        covers = Tiers(tuple((at_least, limit) for (_, at_least), limit in zip(_CLASSES, limits, strict=True))) if limits else None
        limit = percentile_limit(self.rights, toggle.percentile) if toggle and toggle.limited(step) else None
        if toggle is None or limit is None:
            return Held(budget, covers)
        return Held(budget, covers, Tiers(((toggle.accuracy, max(whole(limit), 1)), (0.0, budget.most_limit))))

    def _covers(self, budget: CoverageBudget) -> list[int]:
        """What was found at the last look, within the limits of a step's budget, which a schedule may have moved since."""
        return [min(max(limit, budget.limit), budget.most_limit) for limit in self.covers]

    def watched(self, step: int, groups: Sequence[Group]) -> dict[str, float | None]:
        """Take in the problems sampled apart in a step, all with verdicts; what was seen, by metric name."""
        budget = self._recipe.at(step).budget
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        if not rollouts:
            return {}
        accuracy = float(np.mean([rollout.right for rollout in rollouts]))
        controller, coverage = budget.part(ControllerBudget), budget.part(CoverageBudget)
        if controller and controller.watch:
            self.floor = next_floor(self.floor, accuracy, controller)
        if coverage:
            self.covers = covering(groups, coverage)
        return {"monitor/accuracy": accuracy, "monitor/length": float(np.mean([rollout.tokens for rollout in rollouts]))}

    def after(self, step: int, accuracy: float | None, over: float | None, rights: Sequence[int] = ()) -> dict[str, float | None]:
        """Take in a step; the trace by metric name.

        Args:
            accuracy: share of right answers among all judged, before any shaping; None, and nothing is taken in of it, if there were none.
            over: mean over all rewarded rollouts of length / limit, minus 1, of the lengths and limits that the term `leash` saw; None likewise.
            rights: lengths of right answers, tokens.
        """
        recipe = self._recipe.at(step)
        trace: dict[str, float | None] = {}
        controller, coverage = recipe.budget.part(ControllerBudget), recipe.budget.part(CoverageBudget)
        if recipe.budget.part(ToggleBudget):
            self.rights = [*self.rights, *rights][-_WINDOW:]
        if controller:
            trace["budget/share"] = self.floor.share  # that of the step
            if not controller.watch and accuracy is not None:
                self.floor = next_floor(self.floor, accuracy, controller)
            trace |= {"budget/accuracy": self.floor.accuracy, "budget/floor": self.floor.start - controller.within}
        if coverage:
            trace |= {f"budget/{name}": limit for (name, _), limit in zip(_CLASSES, self._covers(coverage), strict=False)}
        for term in recipe.reward:
            if isinstance(term, LeashTerm):
                trace["reward/lambda"] = self.leash  # that of the step
                self.leash = self.leash if over is None else next_lambda(self.leash, over, term)
        return trace

    def state(self) -> dict[str, Any]:
        return {"floor": asdict(self.floor), "leash": self.leash, "rights": self.rights, "covers": self.covers}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.floor, self.leash = Floor(**state["floor"]), state["leash"]
        self.rights, self.covers = state["rights"], state["covers"]
