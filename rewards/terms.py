"""Reward terms: what one group's verdicts, lengths and texts are worth.

A rollout's reward is the sum of its terms; each is a pure function of the group's `Facts`, in one table by kind. Verdict and truncation
together are DLER's R' = R x 1[finished within the limit], the difficulty ladder is DA-DLER's, a function term is a TRL reward function.
Terms that need more than one group (`kl`: what the learner measures) are added behind, by rl/algorithm.
Simplification: the phase of groups sees one group, never the batch; scaling over the batch is the advantage's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recipes.terms import ROUNDING, CutTerm, FormatTerm, FunctionTerm, RewardTerm, TruncateTerm, VerdictTerm
from rewards.functions import Asked, scores
from rewards.verifier.extract import well_formed


@dataclass(frozen=True)
class Facts:
    """All that rewards may know of one group, by rollout.

    Attributes:
        right_G: judged right (bool). Rollouts that could not be judged must have been left out.
        finished_G: ended by themselves (bool), not cut off by the limit.
        tokens_G: sampled tokens, stop token included.
        thinking_G: of these, up to and with the mark that closes thinking: all where it never closed, 0 where there was none.
        limit: the group's length limit, tokens (rollout/budget).
        asked: texts, ids and columns of the group; its prompt tells whether it opened the thinking block.
    """

    right_G: np.ndarray
    finished_G: np.ndarray
    tokens_G: np.ndarray
    thinking_G: np.ndarray
    limit: int
    asked: Asked
    verdict_G: np.ndarray | float = 0.0  # what the verdict terms add up to; filled by `rewards`


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
    facts = replace(facts, verdict_G=sum(term.weight * _verdict(term, facts) for term in terms if isinstance(term, VerdictTerm)))
    out: dict[str, np.ndarray] = {}
    for term in terms:
        if type(term) not in TERMS:
            continue  # of another phase
        value_G = getattr(term, "weight", 1.0) * TERMS[type(term)](term, facts)
        if getattr(term, "gate", "none") == "right":
            value_G = np.where(facts.right_G, value_G, 0.0)
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
    return np.array([well_formed(text, opened=opened, marks=asked.marks) for text in asked.completions], dtype=float)


def _function(term: FunctionTerm, facts: Facts) -> np.ndarray:
    return scores(term, facts.asked)


TERMS: Mapping[type, Callable[[Any, Facts], np.ndarray]] = {
    VerdictTerm: _verdict,
    TruncateTerm: _truncate,
    CutTerm: _cut,
    FormatTerm: _format,
    FunctionTerm: _function,
}
