"""From judged groups to what the learner trains on: rewards complete, selection, advantages, the split into updates, credit and weight by token.

Everything here is computed on the controller; the learner never learns which method it serves.
Claim: nothing that is not a finite number gets into a mean: it is named, and its group is left out or the run stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import chain
from math import fsum, inf, isfinite
from typing import Literal

import numpy as np
import torch

from recipes.advantages import MaxVariance, TokenSelection
from recipes.columns import number_in
from recipes.credit import Credit
from recipes.objectives import Objective
from recipes.schema import Recipe
from recipes.terms import KlTerm
from rewards.profiles import gdpo
from rewards.terms import levelled
from rl import credit
from rl.advantage import advantages
from rl.objective import NonFinite, aggregation_weights, kl_penalty
from rl.policy import Row
from rl.selection import chosen_tokens, selected
from rollout.types import Group, Rollout

Measure = Callable[[Sequence[Sequence[Row]], Sequence[str]], Mapping[str, np.ndarray]]  # Learner.measure
FIELDS = {"logp": "old_logp", "ref_logp": "ref_logp", "entropy": "entropy", "influence": "influence"}  # of a row, by what is measured


@dataclass(frozen=True)
class Batch:
    """A step's rows by optimiser update, and what preparing them showed, by metric name."""

    updates: list[list[Row]]
    metrics: dict[str, float | int | None] = field(default_factory=dict)


def prepare(groups: Sequence[Group], recipe: Recipe, measure: Measure | None = None) -> Batch:
    """Rows for each of `learner.updates_per_step` updates; fills `rollout.advantage` and `rollout.by_token`.

    Groups stay whole and are split evenly; a step that kept fewer groups than updates makes fewer updates.

    Args:
        measure: passes rows through the models; needed where the objective reads more than the engines said.

    Raises:
        NonFinite: a reward or an engine's logprob is not a finite number, and learner.nonfinite is stop.
    """
    if (kl := recipe.kl_reward) and measure is not None:
        _take_off_kl(groups, kl, measure, most=0.49 * recipe.margin if recipe.margin > 0 else inf)
    groups, left_out = finite(
        groups, recipe.learner.nonfinite
    )  # of what trains, the term kl included, which the loop's asking could not see
    if not groups:
        return Batch(
            [],
            {
                "groups/trained": 0,
                "groups/nonfinite": left_out,
                "groups/zero": 0,
                "advantage/max": 0.0,
                "advantage/constant": None,
                "selected": None,
                "reward/mean": None,
            },
        )
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    shape = len(groups), recipe.sampler.group_size
    reward_PG = np.array([rollout.reward for rollout in rollouts]).reshape(shape)
    tokens_PG = np.array([rollout.trains.sum() for rollout in rollouts]).reshape(shape)
    right_PG = np.array([rollout.right_as_rewarded for rollout in rollouts]).reshape(shape)
    by_advantage = isinstance(recipe.select, MaxVariance) and recipe.select.of == "advantage"
    kept_PG = np.ones(shape, dtype=bool) if by_advantage else selected(reward_PG, tokens_PG, recipe.select)
    combined_PG = reward_PG if recipe.advantage.combine == "sum" else _each_by_itself(groups, kept_PG, recipe)
    advantage_PG = advantages(combined_PG, right_PG, tokens_PG, recipe.advantage, kept_PG, _reference(groups, recipe))
    if by_advantage:  # these stay as they are: no mean of those kept is taken off
        kept_PG = selected(advantage_PG, tokens_PG, recipe.select)
        advantage_PG = np.where(kept_PG, advantage_PG, 0.0)
    for rollout, advantage in zip(rollouts, advantage_PG.flatten(), strict=True):
        rollout.advantage = float(advantage)
    trains_PG = np.ones(shape, dtype=bool) if getattr(recipe.select, "others", "drop") == "zero" else kept_PG
    if recipe.budget.cut == "mask":
        trains_PG = trains_PG & np.array([not rollout.completion.cut for rollout in rollouts]).reshape(shape)
    parts = np.array_split(np.arange(len(groups)), min(recipe.learner.updates_per_step, len(groups)))
    updates = [rows for part in parts if (rows := _rows([groups[index] for index in part], trains_PG[part], kept_PG[part], recipe.credit))]
    if measure is not None:
        also = {*credit.asked(recipe.credit), *(["entropy"] if isinstance(recipe.tokens, TokenSelection) else [])}
        updates = measured(updates, recipe.objective, measure, sorted(also))
    chosen = {rollout.id for rollout, kept in zip(rollouts, kept_PG.flatten(), strict=True) if kept}
    updates, gave = _credited(updates, groups, recipe, chosen)
    measured_updates, updates = updates, [weighed(rows, recipe, chosen) for rows in updates]
    _tell(rollouts, measured_updates, updates)
    metrics: dict[str, float | int | None] = {
        "groups/trained": len(groups),
        "groups/nonfinite": left_out,
        "groups/zero": len(groups) - len({row.group for rows in updates for row in rows if row.advantage_T[row.mask_T].any()}),
        "advantage/max": max(
            (float(np.abs(row.advantage_T[row.mask_T]).max(initial=0.0)) for rows in updates for row in rows), default=0.0
        ),
        "advantage/constant": _share_of_constant(groups, updates),
        "selected": float((kept_PG & trains_PG).mean()),
        "reward/mean": float(reward_PG[trains_PG].mean()) if trains_PG.any() else None,
    }
    trained = [rollout for rollout, trains in zip(rollouts, trains_PG.flatten(), strict=True) if trains]
    for name in sorted(rollouts[0].terms):
        metrics[f"reward/{name}"] = float(np.mean([rollout.terms[name] for rollout in trained])) if trained else None
    metrics |= gave
    if isinstance(recipe.tokens, TokenSelection):
        kept = [weighs for rows in updates for row in rows for weighs in (row.weight_T > 0)[row.mask_T]]
        metrics["tokens/kept"] = float(np.mean(kept)) if kept else None
    return Batch(updates, metrics)


def _reference(groups: Sequence[Group], recipe: Recipe) -> np.ndarray | None:
    """How often the reference model is right on each prompt, [prompts], if the recipe's baseline is that. Raises ValueError for a row that does not say."""
    if recipe.advantage.centre != "reference":
        return None
    reference_P = np.array([number_in(group.problem.columns.get("reference_accuracy")) for group in groups])
    if len(missing_P := np.flatnonzero(np.isnan(reference_P))):
        raise ValueError(
            f"problem {groups[missing_P[0]].problem.id}: its row holds no number in reference_accuracy, which advantage.centre reads; add it to the data"
        )
    return reference_P


def _each_by_itself(groups: Sequence[Group], kept_PG: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Each term of the reward normalised over its group's kept rollouts, then added by weight, [prompts, rollouts], 0 for the others (GDPO; rewards/profiles.gdpo)."""
    against: Literal["group", "leave_one_out"] = "group" if recipe.advantage.combine == "each" else "leave_one_out"
    weights: dict[str, float] = {}
    for term in recipe.reward:
        name = getattr(term, "name", term.kind)
        weights[name] = weights.get(name, 0.0) + abs(getattr(term, "weight", 1.0))
    combined_PG = np.zeros(kept_PG.shape)
    for group, kept_G, combined_G in zip(groups, kept_PG, combined_PG, strict=True):
        names = sorted(group.rollouts[0].terms)
        weight_K = np.array([weights.get(name) or 1.0 for name in names])
        component_KG = np.array([[rollout.terms[name] for rollout in group.rollouts] for name in names])[:, kept_G]
        combined_G[kept_G] = gdpo(levelled(component_KG / weight_K[:, None]), weight_K.tolist(), against)
    return combined_PG


def asked(objective: Objective) -> list[str]:
    """What must be measured of rows that train (Learner.measure)."""
    return ["logp"] * (objective.old_logprobs == "learner") + ["ref_logp"] * (objective.kl.coef > 0)


def measured(updates: Sequence[Sequence[Row]], objective: Objective, measure: Measure, also: Sequence[str] = ()) -> list[list[Row]]:
    """The rows with what the objective reads beside them, and what else is asked for: measured once, before the first update."""
    names = [*asked(objective), *also]
    if not names:
        return [list(rows) for rows in updates]
    found = measure(updates, names)

    def with_measured(row: Row) -> Row:
        values = dict(zip(names, found[row.id], strict=True))
        if "logp" in values:  # what began a rollout by a rule has the rule's probability, whoever is asked
            values["logp"] = np.where(row.own_T, values["logp"], row.engine_logp)
        return replace(row, **{FIELDS[name]: value_T for name, value_T in values.items()})

    return [[with_measured(row) for row in rows] for rows in updates]


def rows_of(groups: Sequence[Group]) -> list[Row]:
    """Every rollout of the groups as a row, for scoring."""
    return [_row(group, rollout) for group in groups for rollout in group.rollouts]


def _share_of_constant(groups: Sequence[Group], updates: Sequence[Sequence[Row]]) -> float | None:
    """Share of the gradient, sum |advantage| x weight x tokens, that comes from groups that are all right or all wrong."""
    constant = {rollout.id for group in groups if len({r.right_as_rewarded for r in group.rollouts}) == 1 for rollout in group.rollouts}
    pushes = [(row.id in constant, fsum(np.abs(row.advantage_T * row.weight_T)[row.mask_T])) for rows in updates for row in rows]
    total = sum(push for _, push in pushes)
    return sum(push for flat, push in pushes if flat) / total if total else None


def _credited(
    updates: Sequence[Sequence[Row]], groups: Sequence[Group], recipe: Recipe, chosen: Set[str]
) -> tuple[list[list[Row]], dict[str, float]]:
    """The updates' rows with their credit by token, and the means of what it did by metric name (a sum of groups left alone).

    Args:
        chosen: ids of rollouts that the selection keeps; others that stay, with an advantage of 0, are in none of credit's statistics.
    """
    done, said = [], []
    for all_rows in updates:
        rows = [row for row in all_rows if row.id in chosen]
        if not rows:
            done.append(list(all_rows))
            continue
        by_id = {row.id: row for row in rows}
        there = [one for group in groups if (one := credit.members(by_id, group.rollouts, recipe.budget.limit)).rows]
        new, metrics = credit.credited(rows, there, recipe.credit, recipe.seed)
        new_by_id = {row.id: row for row in new}
        done.append([new_by_id.get(row.id, row) for row in all_rows])
        said.append(metrics)
    names = said[0] if said else {}
    return done, {name: sum(one[name] for one in said) / (1 if name == "credit/idle" else len(said)) for name in names}


def _row(group: Group, rollout: Rollout) -> Row:
    return Row(
        id=rollout.id,
        prompt_ids=np.asarray(group.request.prompt_ids, np.int32),
        ids=rollout.completion.ids,
        engine_logp=rollout.completion.logprobs,
        advantage_T=np.full(len(rollout.completion.ids), rollout.advantage),
        mask_T=rollout.completion.sampled,
        own_T=rollout.completion.own,
        group=group.request.id,
    )


def _rows(groups: Sequence[Group], trains_PG: np.ndarray, kept_PG: np.ndarray, kind: Credit) -> list[Row]:
    """Rows of an update; what leads influence is of those that the selection keeps."""
    pairs = [(group, rollout) for group in groups for rollout in group.rollouts]
    return [
        replace(_row(group, rollout), mask_T=rollout.trains, toward=credit.toward(kind, rollout) if kept else 0.0)
        for (group, rollout), trains, kept in zip(pairs, trains_PG.flatten(), kept_PG.flatten(), strict=True)
        if trains
    ]


def weighed(rows: Sequence[Row], recipe: Recipe, chosen: Set[str]) -> list[Row]:
    """An update's rows with the weight of each token, which only the whole update can tell; 0 for tokens that are not chosen.

    Args:
        chosen: as in `_credited`; of other rollouts no token is chosen.
    """
    masks = [row.mask_T for row in rows]
    choice = recipe.tokens
    kept = chosen_tokens(rows, choice, chosen) if isinstance(choice, TokenSelection) else masks
    counted = masks if isinstance(choice, TokenSelection) and choice.denominator == "all" else kept
    tokens_B = np.array([tokens_T.sum() for tokens_T in counted], dtype=np.int64)
    weight_B = aggregation_weights(tokens_B, recipe.objective.aggregate, recipe.unit)
    return [
        replace(row, weight_T=np.where(tokens_T, weight, 0.0), entropy=None, influence=None)
        for row, tokens_T, weight in zip(rows, kept, weight_B, strict=True)
    ]


def _tell(rollouts: Sequence[Rollout], measured_updates: Sequence[Sequence[Row]], updates: Sequence[Sequence[Row]]) -> None:
    """Tell each rollout that trains what its tokens train with: of the same rows before and after they were weighed."""
    by_id = {rollout.id: rollout for rollout in rollouts}
    for before, after in zip(chain(*measured_updates), chain(*updates), strict=True):
        numbers = {
            "advantage": after.advantage_T * after.mask_T,
            "weight": after.weight_T,
            "entropy": before.entropy,
            "influence": before.influence,
        }
        by_id[after.id].by_token = {name: value_T for name, value_T in numbers.items() if value_T is not None}


def _take_off_kl(groups: Sequence[Group], term: KlTerm, measure: Measure, most: float) -> None:
    """Add the term `kl`: minus its weight times the mean, over the rollout's tokens that were rewarded, of the policy that sampled against the reference.

    A sum, as elsewhere, would charge longer rollouts more, without bound: a right long answer could earn less than a wrong short one.
    For the same reason the term is never larger than `most`, nearly half the margin between right and wrong.
    """
    reference_logp = measure([rows_of(groups)], ["ref_logp"])
    for rollout in [rollout for group in groups for rollout in group.rollouts]:
        engine_logp_T, ref_logp_T = rollout.completion.logprobs, reference_logp[rollout.id][0]
        kl_T = kl_penalty(torch.tensor(engine_logp_T), torch.tensor(ref_logp_T), term.estimator)
        own_T = torch.from_numpy(rollout.completion.own & rollout.trains)
        value = -term.weight * float(kl_T[own_T].mean()) if own_T.any() else 0.0
        rollout.terms["kl"] = min(max(value, -most), most) if isfinite(value) else value
        rollout.reward = sum(rollout.terms.values())


def finite(groups: Sequence[Group], policy: str) -> tuple[list[Group], int]:
    """Groups of finite rewards and engine logprobs only, and how many others there are.

    Raises:
        NonFinite: there are others, and the policy is "stop"; the first is named.
    """
    faults = [next(filter(None, map(_fault, group.rollouts)), None) for group in groups]
    named = [f"problem {group.problem.id}, {fault}" for group, fault in zip(groups, faults, strict=True) if fault]
    if named and policy == "stop":
        raise NonFinite(f"{named[0]} ({len(named)} groups hold such numbers); learner.nonfinite=skip leaves them out and goes on")
    return [group for group, fault in zip(groups, faults, strict=True) if not fault], len(named)


def _fault(rollout: Rollout) -> str | None:
    bad_T = np.flatnonzero(rollout.completion.sampled & ~np.isfinite(rollout.completion.logprobs))
    if len(bad_T):
        return f"rollout {rollout.id}: the engine's logprob of token {bad_T[0]} is {rollout.completion.logprobs[bad_T[0]]}"
    if np.isfinite(rollout.reward):
        return None
    terms = [f"{name} {value}" for name, value in rollout.terms.items() if not np.isfinite(value)]
    return f"rollout {rollout.id}: its reward is {rollout.reward} ({', '.join(terms) or 'no term'})"
