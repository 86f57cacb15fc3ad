r"""Answers that are words: a letter of multiple choice, yes or no, a name, a phrase.

Conventions: "B", "(B)", "\text{B}", "B. 12" and, where the gold names it, the option's text are one answer; yes and true are one,
no and false are one, whatever explanation follows; case, articles and punctuation of words do not matter.
"""

from __future__ import annotations

import re

from rewards.verifier.numbers import as_number, lead_in_off
from rewards.verifier.tidy import compact, tidy

_CHOICE = re.compile(
    r"(?si)(?:(?:the\s+)?(?:correct\s+)?(?:option|choice)\s*(?:is\s*)?)?(?P<open>[(\[])?\s*(?P<letter>[A-Ja-j])\s*(?:(?P<close>[)\]])\s*[.:]?|(?P<mark>[.:])(?=\s|$)|$)\s*(?P<rest>.*)"
)
_YES = {"yes": "yes", "true": "yes", "correct": "yes", "no": "no", "false": "no", "incorrect": "no"}
_REASON = re.compile(r"\b(?:because|since|as|for|there|has|have|with)\b")
_LETTER = re.compile(r"\([A-Ja-j]\)|(?<![A-Za-z\\])[A-J]\)|(?:^|(?<=[\s,;:/&.]))(?:[B-J]|A(?!\s+[a-z]{2}))(?=[\s,;:/&.]|$)")
_AFFIRMED = re.compile(r"\s+is\s+(?:the\s+)?(?:correct|right|true)(?:\s+(?:answer|choice|option))?\W*$", re.IGNORECASE)
_OPTION_TEXT = re.compile(  # "Both A and B", "E = mc^2", but not "B", "or B", "twelve, C. fifteen", "But C is better"
    r"(?is)(?!.*(?:[A-J][.:)]|[.;!?]\s|\b(?:wait|actually|instead|rather|maybe|perhaps|possibly|but|however|also|alternatively|sorry|then|hence|therefore|thus|so|excluded|eliminated)\b))"
    r".*(?:\b(?!(?:option|choice|answer|and|nor|not|the)\b)[a-z]{3,}|[=<>^\\])"
)
_PARENTHESISED = re.compile(r"\([A-Ja-j]\)")
_ROMAN = re.compile(r"\b(?:I{1,3}|IV|V)\b")
_TAKEN_BACK = re.compile(
    r"(?is)(?:or|and|nor)\b|\w+n't\s+(?!be\b|exist\b)|(?:cannot|not)\b(?:\s+(?:be|the|a|really)\b)*\s*(?:(?:right|correct|true|valid|possible|answer|choice|option)\b|\(?[A-J]\)?\W*$|$)"
    r"|(?:wrong|incorrect)\W*$|(?:is|was)\s+(?:not|wrong|incorrect|false|impossible|excluded|eliminated|ruled|out)\b|.*\bwait\b"
)
_LETTERS = re.compile(r"[A-J]{2,10}|\(?[A-J]\)?(?:(?:\s*[,;、&]\s*(?:and\s+)?|\s+and\s+|\s+|(?<=\))(?=\())\(?[A-J]\)?)+")
_NO_NOUN = re.compile(
    r"no\.?\s*#?\d|no\s+(?!(?:because|since|as|for|it|they|he|she|we|you|this|that|these|those|the|there|an?|not|such|if)\b)[a-z]{2,}"
)
_MONTH = r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
_DATE = re.compile(
    rf"(?:(?P<month>{_MONTH})\.?\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?|(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<month2>{_MONTH})\.?)(?:,?\s+(?P<year>\d{{4}}))?"
)
_ARTICLES = frozenset({"a", "an", "the"})
_SYNONYMS = {
    "all real numbers": "r", "all reals": "r", "real numbers": "r", "any real number": "r", "reals": "r", "dne": "does not exist", "does not exist": "does not exist", "limit does not exist": "does not exist",
    "the limit does not exist": "does not exist", "undefined": "undefined", "infinitely many": "infinity", "infinitely many solutions": "infinity", "there are infinitely many solutions": "infinity", "infinite": "infinity",
    "no solutions": "none", "no solution": "none", "no solution exists": "none", "no solutions exist": "none", "the empty set": "none", "none": "none", "empty set": "none", "no real solutions": "none", "no real solution": "none",
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
    plain = _AFFIRMED.sub("", unwrapped(text))
    match = _CHOICE.fullmatch(plain)
    if match is None or (match.group("open") and not match.group("close")):
        return None
    rest = match.group("rest").strip()
    if rest and (_TAKEN_BACK.match(rest) or _PARENTHESISED.search(rest)):
        return None
    if rest and _LETTER.search(_ROMAN.sub("", rest)) and not _OPTION_TEXT.match(rest):
        return None
    marked = bool(match.group("open") or match.group("close") or match.group("mark")) or len(plain) > 1 or "\\text" in text
    if rest and not (match.group("close") or match.group("mark")):
        return None
    return match.group("letter"), marked, rest


def is_choice(text: str) -> bool:
    """A letter of multiple choice, with or without its option's text."""
    return _choice(text) is not None


def _letters(text: str) -> str:
    """The letters of several choices: "ACD" of "ACD" and "(A), (C) and (D)"; "" if the text is not that."""
    plain = unwrapped(text)
    letters = re.sub(r"[^A-J]", "", plain) if _LETTERS.fullmatch(plain) else ""
    return letters if len(set(letters)) == len(letters) > 1 else ""


def _same_letters(gold: str, answer: str) -> bool | None:
    """Decides between letters of several choices. A gold that is not in alphabetical order is a ranking; "BAD" is a word."""
    letters, others = _letters(gold), _letters(answer)
    if not letters or not others or (letters == tidy(gold) and "".join(sorted(letters)) != letters):
        return None
    if letters == others or ("".join(sorted(letters)) == letters == "".join(sorted(others))):
        return True
    return False if set(letters) == set(others) else None


def _parts(text: str) -> list[tuple[str, str]]:
    """The labels and answers of a problem in parts: "(a) 3 (b) 5"; [] if the text is not that."""
    pieces = re.split(r"\(([a-j])\)", unwrapped(text))
    parts = [(label, part.strip(" ,;.")) for label, part in zip(pieces[1::2], pieces[2::2], strict=True)]
    return parts if len(parts) > 1 and not pieces[0].strip() and all(part for _, part in parts) else []


def _withdrawn(text: str) -> bool:
    """It starts like a choice and goes on to name another or to take it back: "(A) or (B)", "A. No wait, B", "(A) is wrong"."""
    match = _CHOICE.fullmatch(unwrapped(text))
    return match is not None and bool(match.group("close") or match.group("mark")) and not is_choice(text)


def choices_rule(gold: str, answer: str) -> bool | None:
    """Decides if one side is a letter of multiple choice, and the other a letter or the text of that letter's option.

    One who names several has not chosen, but where the gold names several ("ACD"), the same letters are right. "e" and "i" are numbers.
    """
    if (several := _same_letters(gold, answer)) is not None:
        return several
    if (parts := _parts(gold)) and (others := _parts(answer)):
        pairs = zip(parts, others, strict=False)
        same = [label == also and _same_option(part, other) for (label, part), (also, other) in pairs]
        return False if len(parts) != len(others) or False in same else True if all(same) else None
    first, second = _choice(gold), _choice(answer)
    if first and _withdrawn(answer):
        return compact(gold) == compact(answer)
    if first and second:
        (letter, marked, _), (other, other_marked, _) = first, second
        if tidy(gold) in ("e", "i"):
            return letter == other
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
    if _date(text):
        return True
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
    if meaning and not words:
        return False
    if words in ("true", "false") and others in ("t", "f"):
        return words[0] == others
    if words.split()[0] in _YES and len(words.split()) == 1:
        return _says(answer) == _YES[words]
    if others:
        return words.replace(" ", "") == others.replace(" ", "") or _listed(gold) == _listed(answer)
    return None if meaning else False


def _says(text: str) -> str:
    """ "yes" or "no" if the text opens with one and the other is nowhere in it; "" else.

    "No" before a noun of a reason ("Yes, since no such x exists") and "not true" contradict nothing.
    """
    words = unwrapped(text).lower()
    if _NO_NOUN.match(words):  # "no answer provided" answers nothing
        return ""
    opening = re.match(r"[a-z]+", words)
    said = _YES.get(opening.group(), "") if opening else ""
    for match in re.finditer(r"(?P<negated>\b(?:not|\w+n't)\s+(?:\w+\s+)?)?\b(?P<word>[a-z]+)\b", words):
        if _YES.get(match["word"], said) == said or match["negated"]:
            continue
        noun = match["word"] == "no" and re.match(r"\s+[a-z]{3,}", words[match.end() :])
        if not (noun and _REASON.search(words[: match.start()])):
            return ""
    return said


def _listed(text: str) -> list[str]:
    """The words of a list of words, in alphabetical order: "Monday, Friday" is "Friday and Monday"."""
    return sorted(plain_words(part) for part in re.split(r",|;|\band\b", unwrapped(text)) if part.strip())


def _meaning(text: str) -> str:
    return _SYNONYMS.get(" ".join(unwrapped(text).lower().split()), "") or _SYMBOLS.get(compact(text), "") or _date(text)


def _date(text: str) -> str:
    """ "mar 14" of "March 14th" and "14 March"; "" if the text is no day of the year."""
    match = _DATE.fullmatch(unwrapped(text).lower())
    if match is None:
        return ""
    return f"{(match['month'] or match['month2'])[:3]} {int(match['day'] or match['day2'])} {match['year'] or ''}".strip()
