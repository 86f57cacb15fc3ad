r"""Answers that are words: a letter of multiple choice, yes or no, a name, a phrase.

Conventions: "B", "(B)", "\text{B}", "B. 12" and, where the gold names it, the option's text are one answer; yes and true are one,
no and false are one, whatever explanation follows; case, articles and punctuation of words do not matter.
"""

from __future__ import annotations

import re

from rewards.numbers import as_number, lead_in_off
from rewards.tidy import compact, tidy

_CHOICE = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+)?(?:option|choice)\s*(?:is\s*)?)?(?P<open>[(\[])?\s*(?P<letter>[A-Ja-j])\s*(?:(?P<close>[)\]])\s*[.:]?|(?P<mark>[.:])(?=\s|$)|$)\s*(?P<rest>.*)",
    re.DOTALL | re.IGNORECASE,
)
_YES = {"yes": "yes", "true": "yes", "correct": "yes", "no": "no", "false": "no", "incorrect": "no"}
_BOTH = re.compile(r"\b(?:and|or)\b\s*(?:yes|no|true|false)\b|/\s*(?:yes|no|true|false)\b")
_ARTICLES = frozenset({"a", "an", "the"})
_SYNONYMS = {
    "all real numbers": "r", "all reals": "r", "real numbers": "r", "any real number": "r", "reals": "r", "dne": "does not exist",
    "no solutions": "none", "no solution": "none", "none": "none", "empty set": "none", "no real solutions": "none", "no real solution": "none",
    "there are no solutions": "none", "there is no solution": "none", r"positive \infty": "infinity", r"negative \infty": "-infinity", r"minus \infty": "-infinity",
}  # fmt: skip
_SYMBOLS = {
    r"\mathbb{R}": "r", r"x\in\mathbb{R}": "r", r"(-\infty,\infty)": "r", r"(-\infty,+\infty)": "r", r"\emptyset": "none", r"\{\}": "none",
    r"\infty": "infinity", r"+\infty": "infinity", r"-\infty": "-infinity",
}  # fmt: skip


def unwrapped(text: str) -> str:
    r"""Tidied text with the contents of \text{} laid bare and lead-ins taken off."""
    return lead_in_off(" ".join(re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", tidy(text)).split()))


def _choice(text: str) -> tuple[str, bool, str] | None:
    """Letter, whether it is marked as a choice, and the option's text; None if the text is no choice."""
    plain = unwrapped(text)
    match = _CHOICE.fullmatch(plain)
    if match is None or (match.group("open") and not match.group("close")):
        return None
    rest = match.group("rest").strip()
    marked = bool(match.group("open") or match.group("close") or match.group("mark")) or len(plain) > 1 or "\\text" in text
    if rest and not (match.group("close") or match.group("mark")):
        return None
    return match.group("letter"), marked, rest


def is_choice(text: str) -> bool:
    """A letter of multiple choice, with or without its option's text."""
    return _choice(text) is not None


def choices_rule(gold: str, answer: str) -> bool | None:
    """Decides if one side is a letter of multiple choice, and the other a letter or the text of that letter's option."""
    first, second = _choice(gold), _choice(answer)
    if first and second:
        (letter, marked, _), (other, other_marked, _) = first, second
        if letter == other or ((marked or other_marked) and letter.upper() == other.upper()):
            return True
        return None if len(tidy(gold)) == 1 and not letter.isupper() else False  # a variable, not a choice
    if first and first[2] and first[1]:
        return _same_option(first[2], answer)
    if second and second[2] and second[1]:
        return True if _same_option(gold, second[2]) else None
    return None


def _same_option(gold: str, answer: str) -> bool | None:
    numbers = as_number(gold), as_number(answer)
    if numbers[0] is not None and numbers[1] is not None:
        return numbers[0].value == numbers[1].value
    return True if compact(gold) == compact(answer) or (plain_words(gold) and plain_words(gold) == plain_words(answer)) else None


def plain_words(text: str) -> str:
    """Words in small letters, without articles and punctuation; "" if there is anything but words."""
    words = re.sub(r"[.,;:!?\"'`*_-]+", " ", unwrapped(text)).split()
    if not all(word.isalpha() for word in words):
        return ""
    return " ".join(word.lower() for word in words if word.lower() not in _ARTICLES)


def is_words(text: str) -> bool:
    r"""Words and nothing else, at least one of them of three letters or a yes or no: "Evelyn", "\text{even function}"."""
    words = plain_words(text).split()
    wrapped = "\\text" in tidy(text)  # then two letters are a name, not a product
    return bool(words) and (words[0] in _YES or any(len(word) > (1 if wrapped else 2) for word in words))


def words_rule(gold: str, answer: str) -> bool | None:
    """Decides if the gold is words (or a sign that has words of its own, like the empty set)."""
    meaning, other = _meaning(gold), _meaning(answer)
    if meaning and other:
        return meaning == other
    if not is_words(gold):
        return None
    words, others = plain_words(gold), plain_words(answer)
    if words.split()[0] in _YES and len(words.split()) == 1:
        opening = re.match(r"[a-z]+", unwrapped(answer).lower())
        return opening is not None and _YES.get(opening.group()) == _YES[words] and not _BOTH.search(unwrapped(answer).lower())
    if others:
        return words.replace(" ", "") == others.replace(" ", "") or _listed(gold) == _listed(answer)
    return None if meaning else False


def _listed(text: str) -> list[str]:
    """The words of a list of words, in alphabetical order: "Monday, Friday" is "Friday and Monday"."""
    return sorted(plain_words(part) for part in re.split(r",|;|\band\b", unwrapped(text)) if part.strip())


def _meaning(text: str) -> str:
    return _SYNONYMS.get(" ".join(unwrapped(text).lower().split()), "") or _SYMBOLS.get(compact(text), "")
