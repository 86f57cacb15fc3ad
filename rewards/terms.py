"""Reward terms: what one group's verdicts, lengths and texts are worth.

A rollout's reward is the sum of its terms; each is a pure function of the group's `Facts`, in one table by kind. Verdict and truncation
together are DLER's R' = R x 1[finished within the limit], the difficulty ladder is DA-DLER's, a function term is a TRL reward function.
Terms that need more than one group (`kl`: what the learner measures) are added behind, by rl/algorithm.
Simplification: the phase of groups sees one group, never the batch; scaling over the batch is the advantage's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from recipes.columns import REFERENCE, number_in
from recipes.lengths import (
    AlpTerm,
    AroraTerm,
    BandTerm,
    ClosingsTerm,
    CosineTerm,
    Gr3Term,
    KimiTerm,
    L1ExactTerm,
    L1MaxTerm,
    LaserTerm,
    LeadTerm,
    LeashTerm,
    LinearTerm,
    LogarithmTerm,
    LongestTerm,
    O1PrunerTerm,
    OverlongTerm,
    ProfileBandTerm,
    ProfiledTerm,
    RelativeTerm,
    RepetitionTerm,
    ScalingTerm,
    ShorterBetterTerm,
    ShortestTerm,
    TriangleTerm,
    ZmadTerm,
)
from recipes.terms import ROUNDING, CutTerm, FormatTerm, FunctionTerm, NoThinkingTerm, RewardTerm, TruncateTerm, VerdictTerm
from rewards import lengths, profiles
from rewards.functions import Asked, scores
from rewards.verifier.extract import block_and_box


@dataclass(frozen=True)
class Facts:
    """All that rewards may know of one group, by rollout.

    Attributes:
        right_G: judged right (bool). Rollouts that could not be judged must have been left out.
        finished_G: ended by themselves (bool), not cut off by the limit.
        tokens_G: sampled tokens, stop token included.
        thinking_G: of these, up to and with the mark that closes thinking: all where it never closed, 0 where there was none.
        limit: the group's length limit, tokens (rollout/budget).
        unit: budget.limit as the recipe writes it, tokens: what prices per token are given for.
        asked: texts, ids and columns of the group; its prompt tells whether it opened the thinking block.
    """

    right_G: np.ndarray
    finished_G: np.ndarray
    tokens_G: np.ndarray
    thinking_G: np.ndarray
    limit: int
    unit: int
    asked: Asked
    verdict_G: np.ndarray = field(default_factory=lambda: np.zeros(0))  # what the verdict terms add up to; filled by `rewards`
    earned_G: np.ndarray = field(default_factory=lambda: np.zeros(0))  # what the terms before this one add up to; filled by `rewards`

    def lengths(self, of: str) -> np.ndarray:
        """Tokens of each rollout: "total", of its "thinking", or of the "answer" behind that."""
        return {"total": self.tokens_G, "thinking": self.thinking_G, "answer": self.tokens_G - self.thinking_G}[of]

    @property
    def profile(self) -> profiles.Profile:
        """What the reference showed on the problem.

        Raises:
            ValueError: the problem's row does not say it.
        """
        return profiles.Profile(*map(self.column, REFERENCE))

    def column(self, name: str) -> float:
        """A number of the problem's row.

        Raises:
            ValueError: it has none.
        """
        number = number_in(value := self.asked.columns.get(name))
        if np.isnan(number):
            raise ValueError(
                f"rollout {self.asked.ids[0]}: the column {name}, which a reward term reads, holds {value!r}, no number; add it to the data"
            )
        return number


def levelled(reward_PG: np.ndarray | Sequence[float]) -> np.ndarray:
    """Rewards, float64 [..., rollouts], in which those of a group that only rounding tells apart are equal, to the least of them.

    A user's function may add in float32, where 0.1 + 0.2 is not 0.3; what is left over must not be divided by itself. Whoever asks
    whether rewards differ (filter, selection, advantages) asks of these. Finite values only.
    """
    reward_PG = np.asarray(reward_PG, dtype=np.float64)
    order_PG = np.argsort(reward_PG, axis=-1, kind="stable")
    sorted_PG = np.take_along_axis(reward_PG, order_PG, axis=-1)
    size_PG = np.maximum(1.0, np.abs(sorted_PG))
    rises_PG = np.diff(sorted_PG, axis=-1) > ROUNDING * np.maximum(size_PG[..., 1:], size_PG[..., :-1])
    first_PG = np.zeros(reward_PG.shape, dtype=np.int64)
    first_PG[..., 1:] = np.maximum.accumulate(np.where(rises_PG, np.arange(1, reward_PG.shape[-1]), 0), axis=-1)
    out_PG = np.empty_like(reward_PG)
    np.put_along_axis(out_PG, order_PG, np.take_along_axis(sorted_PG, first_PG, axis=-1), axis=-1)
    return out_PG


def rewards(terms: Sequence[RewardTerm], facts: Facts) -> dict[str, np.ndarray]:
    """The reward of each rollout of one group, by term, after weight and gate. The terms add up to the reward.

    Terms of one name share an entry; a function's name is `module:function`.

    Raises:
        ValueError: see `rewards.functions.scores`.
    """
    verdicts = [term.weight * _verdict(term, facts) for term in terms if isinstance(term, VerdictTerm)]
    facts = replace(facts, verdict_G=sum(verdicts, start=np.zeros(len(facts.right_G))))
    earned_G = np.zeros(len(facts.right_G))
    out: dict[str, np.ndarray] = {}
    for term in terms:
        if type(term) not in TERMS:
            continue  # of another phase
        value_G = getattr(term, "weight", 1.0) * TERMS[type(term)](term, replace(facts, earned_G=earned_G))
        if getattr(term, "gate", "none") == "right":
            value_G = np.where(facts.right_G, value_G, 0.0)
        earned_G = earned_G + value_G
        name: str = getattr(term, "name", term.kind)
        out[name] = out[name] + value_G if name in out else value_G
    return out


def _verdict(term: VerdictTerm, facts: Facts) -> np.ndarray:
    return np.where(facts.right_G, 1.0, term.wrong)


def _truncate(term: TruncateTerm, facts: Facts) -> np.ndarray:
    beyond_G = facts.right_G & (~facts.finished_G | (facts.tokens_G > facts.limit))
    return np.where(beyond_G, -(1 - term.keep) * facts.verdict_G, 0.0)


def _cut(term: CutTerm, facts: Facts) -> np.ndarray:
    return np.where(~facts.finished_G & ~facts.right_G, -1.0, 0.0)


def _format(term: FormatTerm, facts: Facts) -> np.ndarray:
    asked = facts.asked
    opened = asked.prompt.rstrip().endswith(asked.marks.open)
    parts_G = np.array([block_and_box(text, opened=opened, marks=asked.marks) for text in asked.completions], dtype=float)
    return parts_G.min(axis=1) if term.form == "whole" else parts_G.mean(axis=1)


def _no_thinking(term: NoThinkingTerm, facts: Facts) -> np.ndarray:
    return np.array([text.lstrip().startswith(facts.asked.marks.close) for text in facts.asked.completions], dtype=float)


def _function(term: FunctionTerm, facts: Facts) -> np.ndarray:
    return scores(term, facts.asked)


def _l1_max(term: L1MaxTerm, facts: Facts) -> np.ndarray:
    given = facts.lengths(term.of), facts.right_G, facts.limit, term.alpha / facts.unit
    part_G = lengths.l1_max_code(*given) if term.form == "code" else lengths.l1_max(*given, term.delta)
    return facts.verdict_G * part_G


def _o1_pruner(term: O1PrunerTerm, facts: Facts) -> np.ndarray:
    shorter_G = lengths.o1_pruner(facts.lengths(term.of), facts.column("reference_tokens"), -np.inf, np.inf)
    better_G = term.alpha * (facts.right_G - facts.column("reference_accuracy"))
    return np.clip(shorter_G + better_G, term.low, term.high) - facts.verdict_G


def _laser(term: LaserTerm, facts: Facts) -> np.ndarray:
    given = facts.lengths(term.of), facts.right_G, facts.limit
    if not term.explore:
        return lengths.laser(*given)
    return lengths.laser_de(*given, np.array([lengths.repetition(ids, 40) > 0.2 for ids in facts.asked.completion_ids]))


def _cosine(term: CosineTerm, facts: Facts) -> np.ndarray:
    right, wrong = (term.right_short, term.right_long), (term.wrong_short, term.wrong_long)
    whole_G = facts.right_G + lengths.cosine(facts.lengths(term.of), facts.right_G, facts.limit, right, wrong, term.beyond)
    return np.where(facts.finished_G, whole_G, term.beyond) - facts.verdict_G


def _repetition(term: RepetitionTerm, facts: Facts) -> np.ndarray:
    ids_G = facts.asked.completion_ids
    if term.form == "dense":
        return np.array([-lengths.repeated(ids, term.size) / facts.unit for ids in ids_G])
    return np.array([-lengths.repetition(ids, term.size) for ids in ids_G])


def _closings(term: ClosingsTerm, facts: Facts) -> np.ndarray:
    marks = {spelling.close for spelling in facts.asked.marks.spellings}
    count_G = np.array([sum(map(text.count, marks)) for text in facts.asked.completions])
    return -np.minimum(np.abs(count_G - 1.0), term.most)


def _overlong(term: OverlongTerm, facts: Facts) -> np.ndarray:
    part_G = lengths.overlong(facts.lengths(term.of), facts.limit, term.buffer * facts.limit)
    return part_G * lengths.spared(facts.right_G, facts.finished_G, term.hard)


def _scaling(term: ScalingTerm, facts: Facts) -> np.ndarray:
    tokens_G, right_G = facts.lengths(term.of), facts.right_G
    if term.profiled and right_G.any() and not (profiles.band_of(facts.profile) and tokens_G[right_G].mean() > facts.profile.tokens):
        return np.zeros(len(tokens_G))
    return lengths.scaling(tokens_G, right_G)


def _lead(term: LeadTerm, facts: Facts) -> np.ndarray:
    return lengths.lead(facts.lengths(term.of), facts.right_G, term.alpha, term.least * facts.unit)


def _profile_band(term: ProfileBandTerm, facts: Facts) -> np.ndarray:
    if (band := profiles.band_of(facts.profile, term.deviations)) is None:
        return np.zeros(len(facts.right_G))
    return facts.verdict_G * profiles.profile_band(facts.lengths(term.of), facts.right_G, *band, term.held)


def _leash(term: LeashTerm, facts: Facts) -> np.ndarray:
    if not term.weight:
        return np.zeros(len(facts.right_G))
    whole_G = np.clip(facts.verdict_G + term.weight * lengths.leash(facts.lengths(term.of), facts.limit), -1.0, 1.0)
    return (whole_G - facts.verdict_G) / term.weight


TERMS: Mapping[type, Callable[[Any, Facts], np.ndarray]] = {
    VerdictTerm: _verdict,
    TruncateTerm: _truncate,
    CutTerm: _cut,
    FormatTerm: _format,
    FunctionTerm: _function,
    NoThinkingTerm: _no_thinking,
    L1ExactTerm: lambda term, facts: lengths.l1_exact(facts.lengths(term.of), facts.limit, 1 / facts.unit),
    L1MaxTerm: _l1_max,
    KimiTerm: lambda term, facts: lengths.kimi(facts.lengths(term.of), facts.right_G),
    AroraTerm: lambda term, facts: facts.verdict_G * lengths.arora(facts.lengths(term.of), facts.right_G, facts.finished_G, term.alpha),
    O1PrunerTerm: _o1_pruner,
    AlpTerm: lambda term, facts: lengths.alp(facts.lengths(term.of), facts.right_G, facts.limit),
    ShorterBetterTerm: lambda term, facts: lengths.shorterbetter(facts.lengths(term.of), facts.right_G) / facts.unit,
    LaserTerm: _laser,
    OverlongTerm: _overlong,
    CosineTerm: _cosine,
    RepetitionTerm: _repetition,
    ClosingsTerm: _closings,
    LeadTerm: _lead,
    TriangleTerm: lambda term, facts: lengths.triangle(facts.lengths(term.of), facts.limit),
    BandTerm: lambda term, facts: lengths.band(facts.lengths(term.of), facts.limit),
    LinearTerm: lambda term, facts: lengths.linear(facts.lengths(term.of), max(0.0, float(np.mean(facts.verdict_G)))),
    LogarithmTerm: lambda term, facts: lengths.logarithm(facts.lengths(term.of), facts.right_G, facts.limit, term.sharpness),
    RelativeTerm: lambda term, facts: (
        facts.verdict_G * lengths.relative(facts.lengths(term.of), facts.right_G, term.shape, term.strength, term.floor)
    ),
    ShortestTerm: lambda term, facts: lengths.shortest(facts.lengths(term.of), facts.right_G, facts.earned_G, term.top),
    LongestTerm: lambda term, facts: lengths.longest(facts.lengths(term.of), facts.right_G, facts.earned_G, term.top),
    ProfiledTerm: lambda term, facts: profiles.beyond_profile(facts.lengths(term.of), facts.profile, term.deviations),
    ZmadTerm: lambda term, facts: lengths.zmad(facts.lengths(term.of), facts.right_G, term.threshold),
    ScalingTerm: _scaling,
    ProfileBandTerm: _profile_band,
    Gr3Term: lambda term, facts: facts.verdict_G * (lengths.gr3(facts.lengths(term.of), term.alpha) - 1),
    LeashTerm: _leash,
}
