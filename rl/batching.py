"""Micro-batches: rows of like length together, every rank the same number of them.

Padding is what a micro-batch wastes, so rows are sorted by length and dealt to the ranks back and forth (0 1 1 0 0 1 ...):
each rank gets the same mix and nearly the same tokens, and the i-th micro-batches of two ranks are alike.
What is measured over a group as a whole keeps its rows on one rank.
Simplification: work is counted in padded tokens; attention's quadratic part is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # torch, which a simulation does without
    from rl.policy import Row

_TOGETHER = 8  # micro-batches over which whole groups are sorted by length


def micro_batches(tokens_B: np.ndarray, micro_batch_tokens: int, ranks: int) -> list[list[np.ndarray]]:
    """Row indices of each micro-batch of each rank, longest rows first; every row is in exactly one.

    Args:
        tokens_B: length of each row, prompt and response, tokens.
        micro_batch_tokens: bound on rows x longest row; only a single row that is longer by itself may exceed it.
        ranks: learner processes. All get equally many micro-batches, since they meet in every one of them
            (ZeRO-3 gathers, gradient reduction); the last ones may be empty.
    """
    longest_first = np.argsort(-np.asarray(tokens_B), kind="stable")
    turn = np.arange(len(longest_first)) % (2 * ranks)
    owner = np.minimum(turn, 2 * ranks - 1 - turn)
    dealt = [_pack(longest_first[owner == rank], tokens_B, micro_batch_tokens) for rank in range(ranks)]
    count = max(map(len, dealt))
    empty = np.zeros(0, dtype=longest_first.dtype)
    return [batches + [empty] * (count - len(batches)) for batches in dealt]


def whole_groups(tokens_B: np.ndarray, group_B: Sequence[str], micro_batch_tokens: int, ranks: int) -> list[list[np.ndarray]]:
    """As `micro_batches`, with all rows of a group on one rank and in one window: as many tokens as `_TOGETHER` micro-batches have, or the group's own.

    Within a window rows are sorted by length whatever their group, so that little is padded; no more than a window's is ever kept until its groups are whole.
    """
    groups: dict[str, list[int]] = {}
    for index, group in enumerate(group_B):
        groups.setdefault(group, []).append(index)
    owned: list[list[list[int]]] = [[] for _ in range(ranks)]
    load_R = np.zeros(ranks)
    for rows in sorted(groups.values(), key=lambda rows: -max(tokens_B[rows])):
        rank = int(np.argmin(load_R))
        load_R[rank] += sum(tokens_B[rows])
        windows = owned[rank]
        if windows and sum(tokens_B[windows[-1] + rows]) <= _TOGETHER * micro_batch_tokens:
            windows[-1] += rows
        else:
            windows.append(list(rows))
    dealt = [
        [batch for rows in windows for batch in _pack(np.array(sorted(rows, key=lambda row: -tokens_B[row])), tokens_B, micro_batch_tokens)]
        for windows in owned
    ]
    count = max(map(len, dealt))
    return [batches + [np.zeros(0, dtype=np.int64)] * (count - len(batches)) for batches in dealt]


def _pack(rows: np.ndarray, tokens_B: np.ndarray, micro_batch_tokens: int) -> list[np.ndarray]:
    batches = []
    while len(rows):
        fit = max(1, int(micro_batch_tokens // max(tokens_B[rows[0]], 1)))
        batches.append(rows[:fit])
        rows = rows[fit:]
    return batches


def dealt(rows: Sequence[Row], micro_batch_tokens: int, ranks: int, whole: bool = False) -> list[list[list[Row]]]:
    """Micro-batches of every rank, equally many; `whole`: the rows of a group on one of them."""
    tokens_B = np.array([row.tokens for row in rows])
    indices_R = (
        whole_groups(tokens_B, [row.group for row in rows], micro_batch_tokens, ranks)
        if whole
        else micro_batches(tokens_B, micro_batch_tokens, ranks)
    )
    return [[[rows[index] for index in indices] for indices in share] for share in indices_R]
