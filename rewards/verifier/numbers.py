r"""Plain numbers, read exactly: integers, decimals, fractions, mixed numbers, powers of ten, percent, money, units.

This settles nearly all answers of a training run in microseconds, in the calling process.
Conventions: a percent sign on one side only means either reading (10\% equals 10 and 0.1); a unit on one side only is
dropped, two known units are converted or, if they measure different things, make the answers differ; a gold that is a
decimal of two or more digits is a rounded value, and an answer that rounds to it is right.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from rewards.verifier.steps import Stage, rewritten, sub
from rewards.verifier.tidy import CHANGES_CLAIM, tidy
from rewards.verifier.units import read_unit

_MAX_CHARS = 1000  # int() refuses beyond 4300 digits; no sane number comes close
_MAX_POWER = 400
_INTEGER = r"(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?:\s\d{3})+(?=\D|$)|\d+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d*)?|\.\d+)"
_CORE = re.compile(
    rf"(?a)(?P<sign>[+-]?)\s*(?:"
    rf"(?P<mixed>\d+)\s*\\frac\{{(?P<ma>\d+)\}}\{{(?P<mb>\d+)\}}"
    rf"|(?P<mixed2>\d+)\s+(?P<ma2>\d+)/(?P<mb2>\d+)"
    rf"|\\frac\s*\{{\s*(?P<fa>[+-]?\s*{_DECIMAL})\s*\}}\s*\{{\s*(?P<fb>{_DECIMAL})\s*\}}"
    rf"|(?P<pa>{_DECIMAL})\s*/\s*(?P<pb>{_DECIMAL})(?![\d.])"
    rf"|(?P<fixed>\d*)\.(?P<first>\d*)(?:\\overline\s*\{{(?P<again>\d+)\}}|\\dot\s*\{{(?P<again2>\d)\}}|\\bar\s*\{{(?P<again3>\d+)\}})"
    r"|10\s*\^\s*(?:\{\s*(?P<power>[+-]?\d+)\s*\}|(?P<power2>\d))"
    rf"|(?P<plain>{_DECIMAL})(?:\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{{\s*(?P<ten>[+-]?\d+)\s*\}}|(?P<ten2>\d))|[eE](?P<exp>[+-]?\d+)(?![\d.]))?"
    rf")"
)
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_LONE_UNIT = re.compile(r"[-+]?[\d.,]+(?:\s*\\(?:times|cdot)\s*10\s*\^\s*\{?[-+]?\d+\}?|[eE][-+]?\d+)?\s+[VJCTNKWAFH]")
_GLUED = re.compile(r"(?<=\d)(?=(?:[a-zA-Z]|Ω)$)")
_DIGIT = re.compile(r"\d")
_AND_DIGIT = re.compile(r"(?<=[a-zA-Z])\s*(?:,|\band\b)?\s*(?=\d)")
_COMMA = re.compile(r"(?<![\d.,])(\d+),(\d+)(?![\d.,])", re.ASCII)
_PERCENT = re.compile(r"(?i)\s*(?:%|\\text\{\s*(?:%|percent|per cent|pct|percentage)\s*\}|\\?\s(?:percent|per cent|pct|percentage)\b)")  # fmt: skip
_SCALE = re.compile(r"\s*(?:\\text\{\s*)?(hundred|thousand|million|billion|trillion|dozen)\b\s*(?:\})?", re.IGNORECASE)
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_SMALL = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
          "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS: dict[str, int | Fraction] = {
    **{word: n for n, word in enumerate(_SMALL)},
    **{word: 10 * n for n, word in enumerate(_TENS, start=2)},
    **{f"{ten} {one}": 10 * n + m for n, ten in enumerate(_TENS, start=2) for m, one in enumerate(_SMALL[1:10], start=1)},
    "one hundred": 100, "a hundred": 100, "half": Fraction(1, 2), "one half": Fraction(1, 2), "a half": Fraction(1, 2),
    "one third": Fraction(1, 3), "two thirds": Fraction(2, 3), "one fourth": Fraction(1, 4), "one quarter": Fraction(1, 4),
    "three fourths": Fraction(3, 4), "three quarters": Fraction(3, 4),
}  # fmt: skip
_DEGREES = (  # a bare degree sign may be either's, and a letter without one, too
    {"angle", "celsius"}, {"angle", "fahrenheit"}, {"celsius", "current time"}, {"fahrenheit", "current^2 time^4/length^2 mass"},
)  # fmt: skip
_ANSWER = r"the\s+(?:number\s+|value\s+|integer\s+)?(?=\d)|(?:the\s+)?(?:final\s+|correct\s+)?(?:answer(?:\s+is)?\s*[:=]?|(?:result|solution|total|sum)(?:\s+is|\s*[:=]))\s+|(?:it|this|that)(?:'s|\s+is)\s+|there\s+(?:is|are)\s+(?:exactly\s+)?(?=\d)"
_LEAD = re.compile(
    rf"(?i)(?:so|thus|hence|therefore)\b,?\s+(?:{_ANSWER})?|{_ANSWER}|(?:about|approximately|approx\.?|\\approx|roughly|around|exactly)\s*(?=[\d.$\\-])"
    rf"|(?!.*\b{CHANGES_CLAIM}\b)(?:the|an?|there|it|they|we|you|he|she)\s+(?:[a-z'-]+\s+){{1,12}}(?:is|are|equals?|has|have|gets?|makes?)\s*:?\s+(?=[-+]?[\d$\\(]|[a-z]\s*[=^(+*/-])"
)


_CARDINAL = re.compile(
    rf"(?i)(?:{'|'.join(word.replace(' ', '[ -]') for word in sorted(_WORDS, key=len, reverse=True) if isinstance(_WORDS[word], int))})(?=\s+[a-z])"
)
_IN_FIGURES = Stage(
    (
        sub("minus in words", r"(?i)^(?:negative|minus)\s+(?=\d)", "-"),
        sub("numbers inside of words", r"^\\text\{\s*\$?\s*([\d.,]+)([^{}]*)\}", r"\1\\text{\2}"),
        sub("shares in words", r"^(\d+)\s*(?:\\text\{\s*)?out\s+of\s*\}?\s*(\d+)$", r"\1/\2"),
    )
)


@dataclass(frozen=True)
class Number:
    """A number as it was written.

    Attributes:
        value: exact; of a percentage, the number before the sign.
        percent: a percent sign stands behind it.
        dimension, factor: its unit ("" and 1 without one).
        places: decimals written; None for fractions and integers.
        digits: significant digits written.
    """

    value: Fraction
    percent: bool = False
    dimension: str = ""
    factor: Fraction = Fraction(1)
    places: int | None = None
    digits: int = 0


def lead_in_off(text: str) -> str:
    """Text without "The answer is", "about" and the like before it."""
    return _LEAD.sub("", text, count=1) if _LEAD.match(text) else text


def _plain(text: str) -> Fraction:
    return Fraction(re.sub(r"[\s,]", "", text).rstrip(".") or "0")


def _value(match: re.Match[str]) -> tuple[Fraction, int | None, int] | None:
    """Value (without sign), decimals and significant digits of a match; None for a division by zero or an absurd power."""
    group = match.groupdict()
    for whole, above, below in (("mixed", "ma", "mb"), ("mixed2", "ma2", "mb2")):
        if group[whole] is not None:
            a, b = int(group[above]), int(group[below])
            return (int(group[whole]) + Fraction(a, b), None, 0) if a < b else None  # 2 5/3 would be a product
    for above, below in (("fa", "fb"), ("pa", "pb")):
        if group[above] is not None:
            denominator = _plain(group[below])
            return (_plain(group[above].replace(" ", "")) / denominator, None, 0) if denominator else None
    if group["first"] is not None and (again := group["again"] or group["again2"] or group["again3"]):
        start = Fraction(f"{group['fixed'] or '0'}.{group['first'] or '0'}")
        return start + Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(group["first"])), None, 0
    if (alone := group["power"] or group["power2"]) is not None:
        return (Fraction(10) ** int(alone), None, 0) if abs(int(alone)) <= _MAX_POWER else None
    text = re.sub(r"[\s,]", "", group["plain"])
    power = int(group["ten"] or group["ten2"] or group["exp"] or 0)
    if abs(power) > _MAX_POWER:
        return None
    places = len(text.partition(".")[2]) if "." in text else 0
    digits = len(text.replace(".", "").lstrip("0"))
    return _plain(text) * Fraction(10) ** power, (places - power if places or power else None), digits


@lru_cache(maxsize=8192)
def as_number(text: str, *, letters: bool = False) -> Number | None:
    """A plain number with whatever percent sign, scale word and unit stands behind it; None for all else.

    Args:
        letters: see `read_unit`.

    "1,000" is 1000, "27.0" is 27, "070" is 70, "$18" is 18 dollars, "3/4" is 3/4, "1 1/2" is 3/2, "2.5 million" is 2500000.
    """
    if len(text) > _MAX_CHARS:
        return None
    text = lead_in_off(tidy(text))
    if only := re.fullmatch(r"\\text\s*\{([^{}]*)\}", text):
        text = lead_in_off(tidy(only.group(1)))
    if (word := text.lower().replace("-", " ")) in _WORDS:
        return Number(Fraction(1) * _WORDS[word])
    text = rewritten([_IN_FIGURES], text)
    match = _CORE.match(text)
    if match is None or not match.group().strip("+- "):
        return None
    found = _value(match)
    if found is None:
        return None
    value, places, digits = found
    rest, percent = text[match.end() :], False
    if scale := _SCALE.match(rest):
        value, rest, places = value * _SCALES[scale.group(1).lower()], rest[scale.end() :], None
    if sign := _PERCENT.match(rest):
        percent, rest = True, rest[sign.end() :]
    unit = read_unit(rest.strip(), glued=not rest[:1].isspace(), letters=letters, one=value <= 1)
    if unit is None:
        return _compound(text)
    return Number(-value if match.group("sign") == "-" else value, percent, unit[0], unit[1], places, digits)


def _compound(text: str) -> Number | None:
    """Amounts of one dimension, the largest unit first: "2 hours 30 minutes" is 5/2 hours."""
    pieces = _AND_DIGIT.split(_TEXT.sub(r" \1 ", text))
    amounts = [as_number(piece) for piece in pieces] if 1 < len(pieces) < 5 else []
    read = [amount for amount in amounts if amount is not None and amount.dimension and not amount.percent]
    falling = all(one.factor > two.factor and one.dimension == two.dimension for one, two in pairwise(read))
    if not read or len(read) < len(pieces) or not falling:
        return None
    if "," in text and read[0].dimension not in ("time", "money"):
        return None  # 3 m, 4 cm are two lengths
    return Number(sum(amount.value * amount.factor for amount in read) / read[0].factor, dimension=read[0].dimension, factor=read[0].factor)


def close(gold: Fraction, answer: Fraction, last: Fraction) -> bool:
    """Equal but for a computer's rounding (1e-13), or apart by less than a unit of the last place written, 5e-7 and 1e-5 of their size.

    Args:
        last: one unit of the last decimal of the shorter of the two; 0 if none has decimals.
    """
    gap, size = abs(gold - answer), max(abs(gold), abs(answer))
    return (gap * 10**13 <= size and gap <= max(last, Fraction(5, 10**7))) or (gap < min(last, Fraction(5, 10**7)) and gap * 10**5 <= size)


def last_place(*numbers: Number) -> Fraction:
    """One unit of the last decimal of the number with the fewest; 0 if none has six: fewer are exact."""
    return max((Fraction(10) ** -number.places for number in numbers if number.places and not 0 < number.places < 6), default=Fraction(0))


def rounds_to(gold: Number, answer: Fraction, places: int | None = None) -> bool:
    """A gold written with two or more digits and a point stands for what rounds to it (or, from six digits, is cut to it), but for one whose only
    decimal is 0: tables write whole numbers so.

    Args:
        places: decimals the answer is written with; one with fewer decimals than the gold is no better value of it.
    """
    if gold.places is None or gold.places < 1 or gold.digits < 2 or (places is not None and places <= gold.places):
        return False
    if gold.places == 1 and gold.value.denominator == 1:
        return False
    last = Fraction(1, 10**gold.places)
    gap = abs(gold.value - answer)
    return gap <= last / 2 or (gold.digits >= 6 and gap < last)


def same_number(gold: Number, answer: Number) -> bool:
    """Whether two numbers as written mean the same, by the conventions at the top."""
    kinds = gold.dimension or gold.percent, answer.dimension or answer.percent
    if all(kinds) and not _same_kind(str(kinds[0]), str(kinds[1])):
        return False
    scale = answer.factor / gold.factor if gold.dimension and answer.dimension else Fraction(1)
    value = answer.value * scale
    last = last_place(gold, answer)
    same = operator.eq if gold.places is None and answer.places is None else lambda one, two: close(one, two, last)
    if same(gold.value, value):
        return True
    if gold.percent and not answer.percent:
        return bool(same(gold.value / 100, value)) or rounds_to(gold, value * 100)
    if answer.percent and not gold.percent:
        return bool(same(gold.value, value / 100))
    return rounds_to(gold, value, answer.places if answer.places is not None or value.denominator == 1 else None) and value.denominator != 1


def _comma_for_point(pair: str, number: Number | None) -> bool:
    """Whether a pair of integers is this decimal, written with a comma: 2,74 for 2.74. Three decimals could be thousands, but not behind a 0."""
    text = lead_in_off(tidy(pair))
    comma = _COMMA.search(text)
    if number is None or not number.places or comma is None or (len(comma.group(2)) == 3 and comma.group(1) != "0"):
        return False
    pointed = as_number(text[: comma.start()] + f"{comma.group(1)}.{comma.group(2)}" + text[comma.end() :])
    return pointed is not None and abs(pointed.value) == abs(number.value) and same_number(number, pointed)


def _beside(text: str, other: Number) -> Number | None:
    """A number whose letter can only be a unit: 12 V where the other side has one of the same dimension, or is a decimal."""
    if not other.dimension:
        return as_number(text, letters=True) if _LONE_UNIT.fullmatch(tidy(text)) else None
    number = as_number(_GLUED.sub(" ", text), letters=True)
    return number if number is not None and _same_kind(number.dimension, other.dimension) else None


def _spelled(text: str) -> Number | None:
    """Ten of "ten dollars"."""
    said = _CARDINAL.match(plain := lead_in_off(tidy(text)))
    return as_number(f"{_WORDS[said.group().lower().replace('-', ' ')]}{plain[said.end() :]}") if said else None


def _same_kind(first: str, second: str) -> bool:
    return first == second or {first, second} in _DEGREES


def numbers_rule(gold: str, answer: str) -> bool | None:
    """Decides if both sides are plain numbers, and that a decimal is right if the other side is one with a decimal comma."""
    first, second = as_number(gold), as_number(answer)
    if first is not None and second is None:
        second = _beside(answer, first) if first.dimension or first.places else None
        second = second or (_spelled(answer) if _DIGIT.search(gold) else None)
    if second is not None and first is None and second.dimension:
        first = _beside(gold, second)
    if first is not None and second is not None:
        return same_number(first, second)
    pair = _COMMA.search(gold)  # a gold like 1,5 may well be two numbers
    return True if _comma_for_point(answer, first) or (pair and len(pair.group(2)) > 1 and _comma_for_point(gold, second)) else None
