r"""A second checker: plain math-verify on the answer that was compared. It audits verdicts and never gives one.

Claim: it shares the LaTeX grammar with `rewards.verifier.symbolic` and no rule of comparison, so the two err together only where the grammar
does. A disagreement is a row to look at, not an error of either: math-verify does not know the conventions of docs/verifier.md.
Runs in a judge's child process only. Its reader of plain expressions is left out, because that one evaluates text.
"""

from __future__ import annotations

import logging

from math_verify import LatexExtractionConfig, parse, verify

from rewards.verifier.extract import bare

_READER = [LatexExtractionConfig(boxed_match_priority=0)]

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timers are off: the judging process has its own


def second_opinion(*, gold: str, answer: str) -> bool:
    """Whether math-verify calls the answer equal to the gold. Raises what sympy raises."""
    expected, given = (parse(rf"\boxed{{{bare(text)}}}", _READER, parsing_timeout=0, raise_on_error=True) for text in (gold, answer))
    return bool(verify(expected, given, timeout_seconds=0, raise_on_error=True))
