r"""The rules that need no computer algebra system, in order; the first that decides gives the verdict.

Each rule is a pure function of (gold, answer) that says equal (True), different (False) or don't know (None). They settle nearly all
answers of a training run in microseconds, in the calling process; what none decides goes to `symbolic`.
The rules, their examples and their conventions are written down in docs/verifier.md.
"""

from __future__ import annotations

from collections.abc import Callable

from rewards.verifier.extract import bare
from rewards.verifier.numbers import as_number, numbers_rule
from rewards.verifier.tidy import compact, tidy
from rewards.verifier.words import choices_rule, words_rule

MAX_ANSWER_CHARS = 300
MAX_GOLD_CHARS = 2000  # of more than that nothing is read

Rule = Callable[[str, str], bool | None]


def _same_text(gold: str, answer: str) -> bool | None:
    return True if tidy(gold) and (tidy(gold) == tidy(answer) or compact(gold) == compact(answer)) else None


QUICK_RULES: list[tuple[str, Rule]] = [("number", numbers_rule), ("same text", _same_text), ("choice", choices_rule), ("words", words_rule)]


def compare_quickly(*, gold: str, answer: str) -> tuple[bool, str] | None:
    """Equal or not, and by which rule; None if it takes `symbolic.compare` to tell.

    An answer longer than 300 characters, or twice the gold if that is more, is wrong ("too long"): parsing it could
    take minutes, and no answer needs it.
    """
    if len(answer) > max(MAX_ANSWER_CHARS, 2 * len(gold)):
        return False, "too long"
    if len(bare(gold)) > MAX_GOLD_CHARS:
        return None
    for name, rule in QUICK_RULES:
        equal = rule(gold, answer)
        if equal is not None:
            return equal, _named(name, gold, answer)
    return None


def _named(name: str, gold: str, answer: str) -> str:
    """The rule's name; plain numbers say whether they are integers."""
    if name != "number":
        return name
    numbers = as_number(gold), as_number(answer)
    return "integer" if all(number is not None and number.value.denominator == 1 for number in numbers) else "number"
