"""Selection on two levels: which rollouts are worth training on, and which of their tokens. Sampling is cheap beside the update, so sample more and keep the best.

Claim: both are decided on the controller over the whole step and the whole update, so neither ranks nor micro-batches change what is kept.
Tokens that are not kept stay in their rollout's ratio and in what is logged of it; their weight in the loss is 0.
Simplification: of equal scores the earlier token is kept, so a share of tokens is met exactly (the 80/20 paper keeps all at its threshold).
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from math import ceil

import numpy as np

from recipes.advantages import EntropyTokens, MaxVariance, Select, Selection, TokenSelection
from rewards.terms import levelled
from rl.policy import Row


def selected(value_PG: np.ndarray, tokens_PG: np.ndarray, settings: Select) -> np.ndarray:
    """Rollouts to train on, bool [prompts, rollouts]: `settings.keep` of every prompt. Ties go to the earlier sample; among the highest of
    `max_variance` to the later.

    `max_variance`: the subset of largest variance (of rewards: PODS, arXiv 2504.13818; of advantages, also one over all prompts: D3S, arXiv
    2509.22115); `shortest`, and `efficient` (most reward per token): GFPO, arXiv 2508.09726.

    Args:
        value_PG: rewards; advantages where the recipe selects by them.
    """
    if not isinstance(settings, Selection):
        return np.ones(value_PG.shape, dtype=bool)
    value_PG = levelled(value_PG)
    if isinstance(settings, MaxVariance) and settings.scope == "batch":
        kept_B = np.zeros(value_PG.size, dtype=bool)
        kept_B[_max_variance(value_PG.flatten(), settings.keep * len(value_PG))] = True
        return kept_B.reshape(value_PG.shape)
    match settings.kind:
        case "max_variance":
            order_PG = np.stack([_max_variance(value_G, settings.keep) for value_G in value_PG])
        case "shortest":
            order_PG = np.argsort(tokens_PG, axis=1, kind="stable")
        case "efficient":
            length_PG = np.maximum(tokens_PG, 1)
            worth_PG = np.where(value_PG >= 0, value_PG / length_PG, value_PG * length_PG)  # of losses, the shorter is better
            order_PG = np.argsort(-worth_PG, axis=1, kind="stable")
        case _:
            raise ValueError(f"select.kind: {settings.kind!r}: expected all, max_variance, shortest or efficient")
    kept_PG = np.zeros(value_PG.shape, dtype=bool)
    np.put_along_axis(kept_PG, order_PG[:, : settings.keep], True, axis=1)
    return kept_PG


def _max_variance(value_G: np.ndarray, keep: int) -> np.ndarray:
    """Indices of the `keep` values of largest variance: some of the lowest and the rest of the highest (PODS, theorem 1)."""
    order = np.argsort(value_G, kind="stable")
    sorted_G = value_G[order] - value_G.mean()
    sums, squares = (np.concatenate([[0.0], np.cumsum(part)]) for part in (sorted_G, sorted_G**2))
    low = np.arange(keep + 1)
    high = len(order) - (keep - low)  # where the rest begins
    mean, square = ((part[low] + part[-1] - part[high]) / keep for part in (sums, squares))
    variance = square - mean**2
    best = int(np.argmax(variance > variance.max() - 1e-12 * float(squares[-1])))  # rounding must not decide between equals
    return np.concatenate([order[:best], order[high[best] :]])


def chosen_tokens(rows: Sequence[Row], settings: TokenSelection, among: Set[str]) -> list[np.ndarray]:
    """Tokens of an update's rows that train, bool [T] each: of those of their masks, the share of highest entropy, or |advantage| x entropy.

    Args:
        rows: all of the update, with the entropy that the policy had before it, nats.
        among: ids of the rows that a selection of rollouts kept; of the others, none is chosen or counted.
    """
    mask_N = np.concatenate([row.mask_T & (row.id in among) for row in rows])
    score_N = np.concatenate([_entropy(row) * (1.0 if isinstance(settings, EntropyTokens) else np.abs(row.advantage_T)) for row in rows])
    count = ceil(settings.keep * int(mask_N.sum()) - 1e-9)
    order_N = np.argsort(np.where(mask_N, -score_N, np.inf), kind="stable")
    kept_N = np.zeros(len(mask_N), dtype=bool)
    kept_N[order_N[:count]] = True
    return np.split(kept_N & mask_N, np.cumsum([len(row.ids) for row in rows])[:-1])


def _entropy(row: Row) -> np.ndarray:
    if row.entropy is None:
        raise ValueError(f"row {row.id}: tokens are chosen by entropy, and none was measured")
    return row.entropy.astype(np.float64)
