"""What ranks and micro-batches say of an update, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rl.policy import Row


def merge_sums(into: dict[str, float], new: dict[str, float]) -> None:
    """Add statistics up; names that end in _max are combined by maximum."""
    for name, value in new.items():
        into[name] = max(into.get(name, value), value) if name.endswith("_max") else into.get(name, 0.0) + value


def correction_metrics(sums: dict[str, float], updates: Sequence[Sequence[Row]], kept: Mapping[str, int]) -> dict[str, float | None]:
    """Mean weight of a mismatch correction and the share of tokens it keeps, by decile of length in an update; nothing without one.

    Args:
        kept: tokens kept of each row of the updates that were made, by id.
    """
    if "correction" not in sums:
        return {}
    kept_D, tokens_D = np.zeros(10), np.zeros(10)
    for rows in updates:
        tokens_B = np.array([row.mask_T.sum() for row in rows])
        decile_B = 10 * np.argsort(np.argsort(tokens_B, kind="stable"), kind="stable") // max(len(rows), 1)
        for row, tokens, decile in zip(rows, tokens_B, decile_B, strict=True):
            if row.id in kept:
                kept_D[decile] += kept[row.id]
                tokens_D[decile] += tokens
    shares = {f"correction/kept_{d}": float(kept_D[d] / tokens_D[d]) if tokens_D[d] else None for d in range(10)}
    return {"correction/weight": sums["correction"] / max(sums["tokens"], 1.0), **shares}
