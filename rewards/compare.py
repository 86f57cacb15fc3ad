r"""Two answers that are plainly numbers, or plainly the same text, are compared without a computer algebra system.

This settles nearly all answers of a training run in microseconds, in the calling process; what it cannot settle goes
to `symbolic`. Numbers: signs, currency, thousands separators, leading zeros, a trailing .0, \text{} units, percent.
Simplifications: units are dropped, not compared; a percent sign on one side only means "either reading" (10\% equals
10 and 0.1), as math-verify has it.
"""

from __future__ import annotations

import re
from fractions import Fraction

from rewards.extract import bare

MAX_ANSWER_CHARS = 300
_MAX_NUMBER_CHARS = 1000  # int() refuses beyond 4300 digits; no sane number comes close

_SEPARATOR = r"(?:,(?:\\!\s*)?|\{,\}|\\[,!; ]|\ |~)"
_NUMBER = re.compile(rf"([+-]?)\s*(\d{{1,3}}(?:{_SEPARATOR}\d{{3}})+|\d*)(\.\d+)?", re.ASCII)
_TEXT = r"\\(?:text|textbf|textrm|mathrm|mbox)\{([^{}]*)\}"
_TEXT_ONLY = re.compile(_TEXT)
_TEXT_UNIT = re.compile(rf"(?:\\[,;: ])?\s*{_TEXT}$")
_CURRENCY = re.compile(r"^([+-]?)\s*(?:\\?\$|[€£¥₹])\s*|\s*(?:\\?\$|[€£¥₹])$")


def as_number(text: str) -> tuple[Fraction, bool] | None:
    """The exact value of a plain integer or decimal and whether it carries a percent sign; None for all else.

    "1,000" is 1000, "27.0" is 27, "070" is 70, "$18" is 18; "3/4" is None.
    """
    text = bare(text)
    if len(text) > _MAX_NUMBER_CHARS:
        return None
    if only := _TEXT_ONLY.fullmatch(text):
        text = only.group(1).strip()
    text = _TEXT_UNIT.sub("", text).rstrip().replace("−", "-")
    percent = text.endswith("%")
    if percent:
        text = text[:-1].removesuffix("\\").rstrip()
    match = _NUMBER.fullmatch(_CURRENCY.sub(r"\1", text))
    if match is None or not (match.group(2) or match.group(3)):
        return None
    sign, whole, decimals = match.groups(default="")
    value = Fraction(f"{re.sub(r'[^0-9]', '', whole) or '0'}{decimals}")
    return (-value if sign == "-" else value), percent


def _close(gold: Fraction, answer: Fraction) -> bool:
    """Equal, or decimals that agree to math-verify's six places. Integers must be equal; tiny numbers are not all zero."""
    if gold.denominator == answer.denominator == 1:
        return gold == answer
    gap = abs(gold - answer)
    return gap < Fraction(5, 10**7) and gap * 10**6 <= max(abs(gold), abs(answer))


def compare_quickly(*, gold: str, answer: str) -> tuple[bool, str] | None:
    """Equal or not, and by which rule; None if it takes `symbolic.compare` to tell.

    An answer longer than 300 characters, or twice the gold if that is more, is wrong ("too long"): parsing it could
    take minutes, and no answer needs it.
    """
    if len(answer) > max(MAX_ANSWER_CHARS, 2 * len(gold)):
        return False, "too long"
    gold_number, number = as_number(gold), as_number(answer)
    if gold_number is not None and number is not None:
        (value, percent), (other, other_percent) = gold_number, number
        rule = "integer" if value.denominator == other.denominator == 1 else "decimal"
        if _close(value, other):
            return True, rule
        if percent and not other_percent:
            return _close(value / 100, other), rule
        if other_percent and not percent:
            return _close(value, other / 100), rule
        return False, rule
    if " ".join(bare(gold).split()) == " ".join(bare(answer).split()):
        return True, "same text"
    return None
