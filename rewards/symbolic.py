r"""Symbolic comparison with math-verify: runs in a judge's child process only, because nothing bounds its time or memory.

Both sides are parsed as LaTeX formulas, the gold first (math-verify's comparison is not symmetric). math-verify's other
reader, plain expressions, is left out on purpose: it picks the first number out of what it cannot parse, so that
1 - 1/e would equal 1 + 1/e, and it evaluates Python text. Its time limits are off: they need the main thread and
turn a timeout into "different".
Simplification: no ordering rules, units or rounding beyond math-verify's own (six decimals).
"""

from __future__ import annotations

import logging

from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, normalize_latex
from math_verify import verify
from math_verify.parser import parse_latex_cached
from sympy import Basic, MatrixBase

from rewards.compare import compare_quickly
from rewards.extract import bare

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns once a process that its time limits are off

_NORMALIZATION = NormalizationConfig(basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="all", equations=False)


class BadGold(ValueError):
    """The gold cannot be compared with anything."""


def _parse(text: str) -> tuple[Basic | MatrixBase | None, str]:
    """The formula (None if it does not parse) and its normalised LaTeX."""
    latex = normalize_latex(bare(text).replace("\\$", "").replace("$", " ").replace("\n", " "), config=_NORMALIZATION)
    if not latex.strip():
        return None, ""
    try:
        return parse_latex_cached(latex), latex
    except (MemoryError, RecursionError):
        raise  # the judge failed, the text may be fine
    except Exception:  # latex2sympy raises plain Exception, sympy whatever it meets, for text that is no formula
        return None, latex


def compare(*, gold: str, answer: str) -> tuple[bool, str]:
    """Whether the answer equals the gold, and by which rule ("integer", "decimal", "same text", "symbolic", ...).

    Raises:
        BadGold: the gold is empty or does not parse.
        MemoryError, RecursionError, and what sympy raises: the comparison failed, nothing is known.
    """
    if not bare(gold):
        raise BadGold("empty")
    return compare_quickly(gold=gold, answer=answer) or compare_symbolically(gold=gold, answer=answer)


def compare_symbolically(*, gold: str, answer: str) -> tuple[bool, str]:
    """As `compare`, without the rules that need no parsing."""
    gold_formula, gold_latex = _parse(gold)
    if gold_formula is None:
        raise BadGold("does not parse")
    formula, latex = _parse(answer)
    if formula is None:
        return False, "does not parse"
    return gold_latex == latex or verify(gold_formula, formula, timeout_seconds=None, raise_on_error=True), "symbolic"


def gold_parses(gold: str) -> bool:
    """Whether the gold is a formula math-verify can read."""
    return _parse(gold)[0] is not None


def gold_fault(gold: str) -> str | None:
    """Why a gold is unusable: "empty", "does not parse", "does not equal itself"; None if it is fine."""
    if not bare(gold):
        return "empty"
    formula, _ = _parse(gold)
    if formula is None:
        return "does not parse"
    return None if verify(formula, formula, timeout_seconds=None, raise_on_error=True) else "does not equal itself"
