"""A reward of a test's own: shorter is better, so that a random model's groups have something to learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def by_length(prompts: Sequence[str], completions: Sequence[str], completion_ids: Sequence[Sequence[int]], **columns: Any) -> list[float]:
    return [-len(ids) / 12 + (ids[0] % 7) / 20 for ids in completion_ids]
