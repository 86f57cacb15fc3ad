"""A verdict: what a judge says of one answer. Three-valued, because a judge that failed has not said "wrong"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["right", "wrong", "not_judged"]


@dataclass(frozen=True)
class Verdict:
    """The outcome for one answer.

    Attributes:
        status: right, wrong, or not_judged (timeout, crash, bad gold): never turned into 0 or 1.
        reason: one short word or phrase, e.g. "integer", "symbolic", "no box", "unfinished", "timeout".
        extracted: the text that was compared, None if no answer was found.
        seconds: time the comparison took.
    """

    status: Status
    reason: str
    extracted: str | None = None
    seconds: float = 0.0


def best(verdicts: Sequence[Verdict]) -> Verdict:
    """Of the verdicts against several golds: right if any is, else not judged if any is, else the first."""
    order = {"right": 0, "not_judged": 1, "wrong": 2}
    return min(verdicts, key=lambda verdict: order[verdict.status])
