"""Rollouts worth a look, picked by rule and not by taste, each rule printed beside its example.

Every example is one problem before and after; a sample is the one of median length among those the rule asks for, so
no rule can pick a flattering outlier. A rule that finds no problem says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from evaluation.results import ProblemScore
from rewards.thinking import split

Row = dict[str, Any]


class Choice(NamedTuple):
    """A problem a rule picked: verdicts the two shown samples should have (None: any). `problem_id` None: nothing fits."""

    title: str
    rule: str
    problem_id: str | None
    before: str | None = None
    after: str | None = None


def choose(before: Sequence[ProblemScore], after: Sequence[ProblemScore]) -> list[Choice]:
    """Pick problems from two `per_problem` lists on the same problems; no problem is picked twice."""
    after_by_id = {row.id: row for row in after}
    both = [(row, after_by_id[row.id]) for row in before]
    taken: set[str] = set()

    def first(
        fits: Callable[[ProblemScore, ProblemScore], bool], rank: Callable[[ProblemScore, ProblemScore], tuple[float, ...]]
    ) -> str | None:
        found = [(b, a) for b, a in both if b.id not in taken and fits(b, a)]
        if not found:
            return None
        best = min(found, key=lambda pair: (tuple(-value for value in rank(*pair)), pair[0].id))[0].id
        taken.add(best)
        return str(best)

    gain = first(lambda b, a: a.share > b.share, lambda b, a: (a.share - b.share, b.level))
    loss = first(lambda b, a: a.share < b.share, lambda b, a: (b.share - a.share, b.level))
    saving = first(lambda b, a: b.share == a.share == 1 and a.tokens < b.tokens, lambda b, a: (b.tokens - a.tokens,))
    top = max((b.level for b, _ in both), default=0)
    hard = first(lambda b, a: b.level == top, lambda b, a: (a.tokens,))
    return [
        Choice(
            "Same answer, shortest",
            "Right in every sample before and after; the largest saving of mean length.",
            saving,
            "right",
            "right",
        ),
        Choice("Wrong before, right after", "The largest gain in right samples, the harder level first.", gain, "wrong", "right"),
        Choice("Right before, wrong after", "The largest loss of right samples, the harder level first.", loss, "right", "wrong"),
        Choice("Where it still thinks", f"The highest level ({top}); the longest of the new ones.", hard),
    ]


def median_sample(rows: Sequence[Row], verdict: str | None) -> Row | None:
    """The sample of median length (the lower one of two) among those with this verdict, or among all if none has it."""
    wanted = [row for row in rows if row["verdict"] == verdict] or list(rows)
    wanted.sort(key=lambda row: (row["tokens"], row["sample"]))
    return wanted[(len(wanted) - 1) // 2] if wanted else None


def training_samples(rows: Sequence[Row]) -> list[Row]:
    """Up to four samples of one training step, of different kinds: not judged, cut off, wrong, then the shortest right ones."""
    order = {"not_judged": 0, "wrong": 2, "right": 3}
    ranked = sorted(rows, key=lambda row: (1 if row["finish"] == "length" else order.get(row["verdict"], 0), row["tokens"]))
    kinds = {(row["verdict"], row["finish"]): row for row in reversed(ranked)}
    chosen = sorted(kinds.values(), key=ranked.index)
    return (chosen + [row for row in ranked if row not in chosen])[:4]


def split_thinking(text: str) -> tuple[str, str]:
    """(thinking with its closing mark, answer); all of it is thinking if it never closed."""
    thought, answer = split(text, thinking=True)
    return thought, answer or ""


def shorten(text: str, most: int = 6000) -> str:
    """Text for reading: the middle of a long one goes, and the gap says how much."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n\n[… {len(text) - 2 * half:,} characters left out …]\n\n{text[-half:]}"
