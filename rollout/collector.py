"""The collector: a step's groups, sampled, judged, filtered and refilled while sampling goes on.

Dynamic sampling (DAPO, arXiv 2503.14476; DLER 1.5): a prompt whose rollouts all earn the same teaches nothing and is
replaced by the next prompt. A step starts with as many prompts as the share kept in the step before says it will need,
since replacing one by one would leave the engines half idle. Claim: which prompts a step trains on depends on the stream and
the verdicts, never on who finished first: it draws the shortest stretch of the stream (no shorter than that start) with enough
groups in it, awaits all of it, and trains on the first of them; surplus groups are counted and dropped. Of groups of right answers alone, which the
filter drops, as many train as the recipe's credit lets in (rollout/kappa), drawn by the seed; they count as groups worth training on.
Simplification: nothing is sampled ahead of the learner, so all rollouts of a step come from one policy version.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from recipes.budgets import OutlierBudget
from recipes.credit import DecsCredit, RedundantCredit
from recipes.schema import Recipe
from rewards.functions import TrainerState
from rewards.redundant import Words
from rewards.terms import levelled
from rollout.budget import Control, request_limit, stated_limit, thinking_limit
from rollout.engine import EnginePool, Pool
from rollout.kappa import Kappa
from rollout.pace import pace_metrics
from rollout.scorer import Pending, Scorer, judged
from rollout.sources import Source
from rollout.template import Template
from rollout.types import Group, Request, Rollout

QUANTILES = (0, 5, 10, 25, 50, 75, 90, 95, 99, 100)  # of lengths, per cent
_TRIES = 10
_WATCHED = 1 << 40  # positions of problems sampled apart: beyond what any run trains on
Fate = Literal["trained", "all_right", "all_wrong", "flat", "not_judged"]


@dataclass
class PromptStream:
    """Requests by position in the data; `position`, `kept_share` and the count `too_long` are its state, beside what `control` and `kappa` keep.

    `kept_share` is the share of the last step's groups that were worth training on: what the next step expects.
    """

    source: Source
    template: Template
    recipe: Recipe
    position: int = 0
    kept_share: float = 1.0
    too_long: int = 0
    control: Control = field(init=False)
    kappa: Kappa = field(init=False)

    def __post_init__(self) -> None:
        self.control = Control(self.recipe)
        credit = self.recipe.credit
        gain, most = (credit.gain, credit.most) if isinstance(credit, DecsCredit) else (0.0, 0.0)
        self.kappa = Kappa(gain, most, self.recipe.sampler.prompts)

    @property
    def stated(self) -> int:
        """Tokens that prompts of evaluations state: the limit of the last step, or what a controller leaves of it by now."""
        return stated_limit(self.recipe.at(self.recipe.train.steps).budget, self.control.floor.share)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps (rl/state)."""
        return {"position": self.position, "kept_share": self.kept_share, "too_long": self.too_long}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.position, self.kept_share, self.too_long = state["position"], state["kept_share"], state["too_long"]

    def draw(self, step: int = 0) -> Request:
        """The next request whose prompt fits, with the limit that holds at a step."""
        recipe = self.recipe.at(step)
        for _ in range(10_000):
            position, self.position = self.position, self.position + 1
            if request := self._request(position, recipe, seed_of(recipe.seed, "train", position)):
                return request
            self.too_long += 1
        raise ValueError(f"{self.source.name}: 10,000 prompts in a row exceed data.max_prompt_tokens {self.recipe.data.max_prompt_tokens}")

    def watched(self, step: int) -> list[Request]:
        """What a budget wants sampled apart at a step (recipes/budgets): always the same problems, none twice, to the whole room whatever the controller leaves."""
        recipe = self.recipe.at(step)
        watching = recipe.budget.watching
        if watching is None or step % watching.every:
            return []
        count = watching.watched(recipe.sampler.prompts)
        rows = self.source.rows
        first = _WATCHED if rows is None else -(-_WATCHED // rows) * rows  # the start of an epoch
        asked: dict[str, Request] = {}
        for index in range(min(rows or _TRIES * count, _TRIES * count)):
            if len(asked) == count:
                break
            if request := self._request(first + index, recipe, seed_of(recipe.seed, "watched", index, step), whole=True):
                asked.setdefault(request.problem.id, request)  # of several sets, or of those that a reference left, some come again
        return [*asked.values()]

    def _request(self, position: int, recipe: Recipe, seed: int, whole: bool = False) -> Request | None:
        """The request at a position; None if its prompt is too long. `whole`: sampled to the most that any may be, and free to think."""
        problem = self.source.at(position)
        limit = request_limit(recipe.budget, problem, seed, self.control.floor.share)
        most = recipe.budget.limit if whole else limit
        prompt_ids = self.template.prompt_ids(problem, limit)
        if len(prompt_ids) > recipe.data.max_prompt_tokens:
            return None
        return Request(
            id=f"{position}:{problem.id}",
            problem=problem,
            prompt_ids=prompt_ids,
            group_size=recipe.sampler.group_size,
            max_tokens=recipe.budget.sampled(most),
            temperature=recipe.sampler.temperature,
            top_p=1.0,
            seed=seed,
            limit=limit,
            thinking_tokens=thinking_limit(recipe.budget, most),
            closed=0 if whole else recipe.sampler.closed,
        )


def seed_of(*parts: object) -> int:
    """A 63-bit seed that differs for any other parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


@dataclass
class Collected:
    """Groups to train on and all that were sampled, in stream order, and the step's sampling metrics (docs/architecture.md)."""

    groups: list[Group]
    sampled: list[Group]
    metrics: dict[str, float | int | None]


class Collector:
    """Collects the groups of a step.

    Args:
        scorer: its verdicts count; terms and budget are the step's.
    """

    def __init__(self, pool: EnginePool, scorer: Scorer, stream: PromptStream):
        self._pool, self._scorer, self._stream, self._recipe = pool, scorer, stream, stream.recipe
        credit, tokenizer = stream.recipe.credit, scorer.template.tokenizer
        self._words = (
            Words(credit.words, partial(tokenizer.encode, add_special_tokens=False), tokenizer.decode)
            if isinstance(credit, RedundantCredit)
            else None
        )

    def next(self, step: int = 0) -> Collected:
        """Sample until `sampler.prompts` groups are worth training on or the refill limit is reached. `step` is for reward functions."""
        recipe = self._recipe.at(step)
        seen = self._watch(step)
        self._pool.paces()  # what else was sampled, and judged, is not the step's
        self._scorer.judge.spent()
        start, own, polled = time.monotonic(), time.thread_time(), list[float]()
        scorer = replace(
            self._scorer,
            terms=self._stream.control.terms(recipe.reward),
            budget=self._stream.control.budget(recipe.budget, step),
            unit=recipe.unit,
            state=TrainerState(step, recipe.train.steps),
            words=self._words,
        )
        wanted, stream, kappa = self._recipe.sampler.prompts, self._stream, self._stream.kappa
        most = wanted * (1 + self._recipe.sampler.max_refills)
        order: dict[str, int] = {}
        fates: list[tuple[int, Fate, Group]] = []
        met = Counter[Fate]()

        def dispatch(count: int) -> None:
            requests = [stream.draw(step) for _ in range(count)]
            order.update({request.id: len(order) + offset for offset, request in enumerate(requests)})
            self._pool.submit(requests)

        dispatch(min(most, round(wanted / stream.kept_share)))
        for group in sampled(self._pool, scorer, polled):
            fate = fate_of(group, self._recipe.sampler.keep_groups)
            fates.append((order[group.request.id], fate, group))
            met[fate] += 1
            if kappa.kept(met["trained"] + len(order) - len(fates), met["all_right"]) < wanted and len(order) < most:
                dispatch(1)  # even if all that is awaited were worth training on
        stream.kept_share = max(kappa.kept(met["trained"], met["all_right"]), 1) / len(fates)
        fates.sort(key=lambda item: item[0])
        mixed, easy = kappa.fit(met["trained"], met["all_right"])
        groups = chosen([(fate, group) for _, fate, group in fates], mixed, easy, seed_of(recipe.seed, "easy", step))
        everything = [group for *_, group in fates]
        metrics = sampling_metrics(everything, met, seconds := time.monotonic() - start)
        metrics |= {"seconds/poll": sum(polled), "seconds/score": time.thread_time() - own - sum(polled)}
        metrics["seconds/judge"] = self._scorer.judge.spent()
        metrics |= pace_metrics(self._pool.paces(), seconds)
        metrics["groups/trained"], metrics["groups/surplus"] = len(groups), met["trained"] - mixed
        metrics["groups/all_right"] = met["all_right"] - easy
        metrics["prompts/too_long"], metrics["engines/restarts"] = stream.too_long, self._pool.restarts
        metrics["engines/given_up"] = self._pool.given_up
        metrics["groups/short"] = int(len(groups) < wanted)
        limits = [group.request.limit for group in everything]
        metrics["limit"] = limits[0] if len(set(limits)) == 1 else _mean(limits)
        if recipe.budget.part(OutlierBudget):
            metrics["budget/outliers"] = sum(rollout.ends is not None for group in everything for rollout in group.rollouts)
        metrics["limit/rewarded"] = _mean([rollout.limit for group in everything if judged(group) for rollout in group.rollouts])
        over = _mean([over for group in everything for over in group.over])
        rights = [rollout.tokens for group in everything for rollout in group.rollouts if rollout.right]
        metrics |= stream.control.after(step, metrics["accuracy"], over, rights)
        if self._words is not None:
            thoughts = [rollout.thought for group in groups for rollout in group.rollouts if rollout.thought]
            ratios = [thought.ratio for thought in thoughts if thought.ratio is not None]
            metrics |= kappa.after(ratios, mixed, easy) | thought_metrics(everything)
        metrics |= self._scorer.audit(everything, self._recipe.judge.audit)
        return Collected(groups, everything, metrics | seen)

    def _watch(self, step: int) -> dict[str, float | None]:
        """Sample what the budget watches, where a look is due, before anything is sampled to train."""
        start = time.monotonic()
        if not (requests := self._stream.watched(step)):
            return {}
        self._pool.submit(requests)
        groups = {group.request.id: group for group in sampled(self._pool, self._scorer)}
        seen = self._stream.control.watched(step, [groups[request.id] for request in requests if judged(groups[request.id])])
        return seen | {"seconds/watch": time.monotonic() - start}


def sampled(pool: Pool, scorer: Scorer, polled: list[float] | None = None) -> Iterator[Group]:
    """Judged groups as they become ready, until nothing that was submitted (also while iterating) is left.

    A group is given as soon as its verdicts are there, also while engines sample others: whoever takes it may find that it needs another one.

    Args:
        polled: gets the processor time of this thread, seconds, of each time that engines are asked.
    """
    pending: list[Pending] = []

    def enough() -> bool:
        return any(item.done for item in pending)

    while pool.outstanding or pending:
        own = time.thread_time()
        came = pool.ready(enough)
        if polled is not None:
            polled.append(time.thread_time() - own)
        pending += [scorer.begin(request, completions) for request, completions in came]
        ready = [item for item in pending if item.done or not pool.outstanding]
        pending = [item for item in pending if item not in ready]
        for item in ready:
            yield scorer.finish(item)


def chosen(fates: Sequence[tuple[Fate, Group]], mixed: int, easy: int, seed: int) -> list[Group]:
    """The first `mixed` groups of those worth training on, and `easy` of those of right answers alone, drawn by the seed; in their order."""
    places = {kind: [place for place, (fate, _) in enumerate(fates) if fate == kind] for kind in ("trained", "all_right")}
    drawn = np.random.default_rng(seed).permutation(places["all_right"])[:easy]
    kept = {*places["trained"][:mixed], *drawn.tolist()}
    return [group for place, (_, group) in enumerate(fates) if place in kept]


def fate_of(group: Group, keep_groups: str) -> Fate:
    """What becomes of a group: "trained", or why it is left out.

    `raw` looks at correctness before any shaping, of what was rewarded (an outlier that a budget cuts is judged again by that), `shaped` at rewards; which of the two decides whether an all-right group
    with length to lose is kept; what is thought although the answer is there counts as such a length where the recipe's credit has it looked for.
    """
    if not judged(group):
        return "not_judged"
    right = [rollout.right_as_rewarded for rollout in group.rollouts]
    rewards = [rollout.reward for rollout in group.rollouts]
    redundant = keep_groups == "shaped" and any(rollout.redundant for rollout in group.rollouts)
    if (
        keep_groups == "all"
        or redundant
        or not np.isfinite(rewards).all()
        or np.ptp(levelled(rewards if keep_groups == "shaped" else right))
    ):
        return "trained"  # what is not finite is named, and left out or not, by rl/algorithm
    return "all_right" if all(right) else "flat" if any(right) else "all_wrong"


def sampling_metrics(groups: Sequence[Group], fates: Counter[Fate], seconds: float) -> dict[str, float | int | None]:
    """What was sampled, before filtering, by metric name; None where there is nothing to average."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    statuses = Counter(rollout.verdict.status for rollout in rollouts if rollout.verdict)
    tokens = sum(rollout.tokens for rollout in rollouts)
    metrics: dict[str, float | int | None] = {
        "accuracy": statuses["right"] / sure if (sure := statuses["right"] + statuses["wrong"]) else None,
        "length/mean": _mean([rollout.tokens for rollout in rollouts]),
        "length/right": _mean([rollout.tokens for rollout in rollouts if rollout.right]),
        "length/wrong": _mean([rollout.tokens for rollout in rollouts if rollout.verdict and rollout.verdict.status == "wrong"]),
        "truncated": _mean([float(rollout.completion.cut) for rollout in rollouts]),
        "not_judged": statuses["not_judged"] / len(rollouts),
        "groups/sampled": len(groups),
        "tokens/sampled": tokens,
        "seconds/sample": seconds,
        "length/between": between([[rollout.tokens for rollout in group.rollouts] for group in groups]),
    }
    lengths = [rollout.tokens for rollout in rollouts]
    metrics |= {f"length/q_{percent}": float(np.percentile(lengths, percent)) for percent in QUANTILES}
    if any(group.request.thinking_tokens is not None for group in groups):
        metrics |= closed_metrics(rollouts)
    free = [rollout for group in groups if group.request.closed for rollout in group.rollouts[: -group.request.closed]]
    if free:
        metrics["thinking/skipped"] = _mean([float(rollout.answer_start == 1) for rollout in free])
    for name in sorted({name for group in groups for name in group.logged}):
        metrics[f"function/{name}"] = _mean([value for group in groups for value in group.logged.get(name, ())])
    for fate in get_args(Fate):
        metrics[f"groups/{fate}"] = fates[fate]
    return metrics


def between(lengths: Sequence[Sequence[float]]) -> float | None:
    """Of the variance of lengths, the share that lies between groups: one-way analysis of variance (ICC(1)), bounded to 0 and 1."""
    groups = [np.asarray(group, float) for group in lengths if len(group) > 1]
    size = len(groups[0]) if groups else 0
    if len(groups) < 2:
        return None
    within = float(np.mean([group.var(ddof=1) for group in groups]))
    across = float(np.var([group.mean() for group in groups], ddof=1)) - within / size
    return min(max(across, 0.0) / total, 1.0) if (total := max(across, 0.0) + within) else None


def thought_metrics(groups: Sequence[Group]) -> dict[str, float | int | None]:
    """Of right answers: the share of their tokens that are redundant, and the share of them whose thinking never reaches the gold by itself."""
    rights = [rollout for group in groups for rollout in group.rollouts if rollout.thought is not None]
    ranges = [rollout.redundant or (0, 0) for rollout in rights]
    tokens = sum(len(rollout.completion.ids) for rollout in rights)
    return {
        "credit/redundant": sum(end - start for start, end in ranges) / tokens if tokens else None,
        "credit/unreached": _mean([float(rollout.thought.ratio is None) for rollout in rights if rollout.thought]),
    }


def closed_metrics(rollouts: Sequence[Rollout]) -> dict[str, float | int | None]:
    """Share of rollouts whose thinking the engine closed, of those that thought on, and accuracy of those and of the others. An end of the model's own just there is among the first."""
    sure = [rollout for rollout in rollouts if rollout.verdict and rollout.verdict.status != "not_judged"]
    return {
        "budget/closed": _mean([float(rollout.completion.budget_hit) for rollout in rollouts]),
        "budget/evaded": _mean([float(_closes_again(rollout)) for rollout in rollouts if rollout.completion.budget_hit]),
        "accuracy/closed": _mean([float(rollout.right) for rollout in sure if rollout.completion.budget_hit]),
        "accuracy/free": _mean([float(rollout.right) for rollout in sure if not rollout.completion.budget_hit]),
    }


def _closes_again(rollout: Rollout) -> bool:
    """Whether thinking went on behind the engine's mark, up to one of the model's own."""
    return rollout.answer_start is not None and bool(rollout.completion.sampled[rollout.answer_start - 1])


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
