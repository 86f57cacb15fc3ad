"""Selection: which rollouts of a group are worth training on. Sampling is cheap beside the update, so sample more and keep the best.

Simplification: rollouts of one group only, by reward and length; the learner's own numbers (entropy) are not asked.
"""

from __future__ import annotations

import numpy as np

from recipes.advantages import Select, Selection
from rewards.terms import levelled


def selected(reward_PG: np.ndarray, tokens_PG: np.ndarray, settings: Select) -> np.ndarray:
    """Rollouts to train on, bool [prompts, rollouts]: `settings.keep` of every prompt. Ties go to the earlier sample; among the highest of
    `max_variance` to the later.

    `max_variance`: the subset of largest reward variance (PODS, arXiv 2504.13818); `shortest`, and `efficient` (most reward per
    token): GFPO, arXiv 2508.09726.
    """
    if not isinstance(settings, Selection):
        return np.ones(reward_PG.shape, dtype=bool)
    reward_PG = levelled(reward_PG)
    match settings.kind:
        case "max_variance":
            order_PG = np.stack([_max_variance(reward_G, settings.keep) for reward_G in reward_PG])
        case "shortest":
            order_PG = np.argsort(tokens_PG, axis=1, kind="stable")
        case "efficient":
            length_PG = np.maximum(tokens_PG, 1)
            worth_PG = np.where(reward_PG >= 0, reward_PG / length_PG, reward_PG * length_PG)  # of losses, the shorter is better
            order_PG = np.argsort(-worth_PG, axis=1, kind="stable")
        case _:
            raise ValueError(f"select.kind: {settings.kind!r}: expected all, max_variance, shortest or efficient")
    kept_PG = np.zeros(reward_PG.shape, dtype=bool)
    np.put_along_axis(kept_PG, order_PG[:, : settings.keep], True, axis=1)
    return kept_PG


def _max_variance(reward_G: np.ndarray, keep: int) -> np.ndarray:
    """Indices of the `keep` rewards of largest variance: some of the lowest and the rest of the highest (PODS, theorem 1)."""
    order = np.argsort(reward_G, kind="stable")
    ends = [np.concatenate([order[:low], order[len(order) - (keep - low) :]]) for low in range(keep + 1)]
    variances = np.array([np.var(reward_G[indices]) for indices in ends])
    return ends[int(np.argmax(variances > variances.max() - 1e-12))]  # rounding must not decide between equals
