r"""Two texts without separators: numbers, words, times of day, ratios, numbers in a base, formulas with or without units.

Runs in a judge's child process only, because formulas may be read (`algebra`). Conventions: a base or a unit on one side only is dropped, two that differ
make the answers differ; degrees are converted where the other side is a multiple of pi; a ratio may be shortened; a rounded gold
is met by what rounds to it.
"""

from __future__ import annotations

import re
from fractions import Fraction

from sympy import Expr, Float, Rational, pi

from rewards.verifier.algebra import degrees_of, formula, same_value
from rewards.verifier.numbers import as_number, close, last_place, numbers_rule, rounds_to
from rewards.verifier.tidy import compact
from rewards.verifier.units import known_unit, read_unit
from rewards.verifier.words import words_rule

_NAMED_UNIT = r"\\text\s*\{[^{}]*\}(?:\s*\^\s*\{?-?\d\}?)?"
_UNIT = re.compile(
    rf"(?s)(?P<value>.*?[\w}})])\s*(?P<unit>(?:\^\\circ|\s(?:degrees|radians?)|{_NAMED_UNIT}(?:\s*(?:/|\\cdot)?\s*{_NAMED_UNIT})*)\s*)$"
)
_ANGLE_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_BASED = re.compile(r"\(?(?P<digits>-?\w+(?:\.\w+)?)\)?_\{?(?:\\text\{)?(?P<base>\w+)\}*")
_CLOCK = re.compile(r"(?i)(?P<hour>\d{1,2})(?:\s*:\s*(?P<minute>\d{2}))?(?:\s*:\s*(?P<second>\d{2}))?\s*(?:(?P<half>[ap])\.?\s?m\.?)?")  # fmt: skip
_MODULUS = re.compile(r"(?P<value>.*?)\s*\\pmod\s*\{?(?P<modulus>\d+)\}?", re.DOTALL)
_RATIO = re.compile(r"\s*(?::|\\colon|\\text\{\s*to\s*\}|(?<=\d)\s*\bto\b(?=\s*\d))\s*")
_BASES = {
    word: str(base) for base, word in enumerate(["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], start=2)
} | {"sixteen": "16"}


def is_opaque(text: str) -> bool:
    """Texts that are compared letter by letter or by a rule of their own, not as formulas."""
    plain = text.strip()
    return bool(
        plain in (r"\ldots", r"\emptyset", r"\mathbb{R}", r"\mathbb{Z}", r"\mathbb{N}", r"\mathbb{Q}", r"\mathbb{C}")
        or r"\pmod" in plain
        or _clock(plain) is not None
        or len(_RATIO.split(plain)) > 1
        or ((based := _BASED.fullmatch(plain)) is not None and _in_base(based))
    )


def same_text_values(gold: str, answer: str) -> bool:
    """Two texts without separators: numbers, words, times, ratios, numbers in a base, formulas with or without units."""
    if compact(gold) == compact(answer):
        return True
    for rule in (numbers_rule, words_rule, _same_clock, _same_based, _same_residue, _same_ratio):
        equal = rule(gold, answer)
        if equal is not None:
            return equal
    if is_opaque(gold) or is_opaque(answer):
        return False
    (gold_text, gold_unit), (text, unit) = unit_off(gold), unit_off(answer)
    first, second = formula(gold_text), formula(text)
    written = as_number(answer)
    if second.is_Float and not first.has(Float) and written and not written.percent and written.places is not None:
        exact = Rational(written.value.numerator, written.value.denominator)
        if written.places < 6 or (first.is_number and abs(first - exact).evalf(30) >= Rational(10) ** -written.places):
            second = exact  # too short to be a rounded value of something exact, or no such value
    if gold_unit and unit and {gold_unit[0], unit[0]} == {"angle", "radian"}:
        first, second = (degrees_of(value) if which[0] == "radian" else value for value, which in ((first, gold_unit), (second, unit)))
    elif gold_unit and unit and gold_unit[0] and unit[0]:
        if gold_unit[0] != unit[0]:
            return False
        second = second * unit[1] / gold_unit[1]
    if (gold_unit or ("",))[0] == "angle" and not unit and second.has(pi):
        second = degrees_of(second)
    if (unit or ("",))[0] == "angle" and not gold_unit and first.has(pi):
        first = degrees_of(first)
    number = as_number(gold)
    if number is not None and number.places and number.digits >= 2 and not second.free_symbols and as_number(answer) is None:
        return _rounded(gold, second) or (number.percent and "%" not in answer and _rounded(gold, second * 100))
    if same_value(first, second):
        return True
    if ("%" in gold) != ("%" in answer):
        return same_value(first * 100, second) if "%" in gold else same_value(first, second * 100)
    return False


def _rounded(gold: str, value: Expr) -> bool:
    number = as_number(gold)
    near = value.evalf(30)
    if number is None or not near.is_real:
        return False
    exact = Fraction(str(near)) if near.is_Float or near.is_Integer else Fraction(int(near.p), int(near.q))
    return rounds_to(number, exact) or close(number.value, exact, last_place(number))


def unit_off(text: str) -> tuple[str, tuple[str, object] | None]:
    """A formula without the unit behind it, and the unit."""
    match = _UNIT.fullmatch(text.strip())
    if match is None or (match.group("unit").startswith("^") and _ANGLE_FUNCTION.search(text)):
        return text.strip(), None
    unit = known_unit(match.group("unit")) or read_unit(match.group("unit").strip(), glued=False)
    return (match.group("value").strip(), unit) if unit is not None else (text.strip(), None)


def _clock(text: str) -> int | None:
    """Seconds since midnight."""
    match = _CLOCK.fullmatch(re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).strip())
    if match is None or int(match.group("hour")) > 24 or int(match.group("minute") or 0) > 59:
        return None
    if not match.group("minute") and not match.group("half"):
        return None
    hour, half = int(match.group("hour")), (match.group("half") or "").lower()
    hour = hour % 12 + 12 if half == "p" else hour % 12 if half == "a" else hour
    return 3600 * hour + 60 * int(match.group("minute") or 0) + int(match.group("second") or 0)


def _same_clock(gold: str, answer: str) -> bool | None:
    first, second = _clock(gold), _clock(answer)
    if first is None or second is None:
        return None
    one, two = (re.search(r"[ap]\.?\s?m", text, re.IGNORECASE) is not None for text in (gold, answer))
    unsaid = one != two and 3600 <= (second if one else first) < 13 * 3600  # half a day may go unsaid
    return (first - second) % ((12 if unsaid else 24) * 3600) == 0


def _in_base(match: re.Match[str]) -> bool:
    """Whether the digits are digits of the base below them: x_1 is a name."""
    base = _BASES.get(match.group("base"), match.group("base"))
    digits = match.group("digits").removeprefix("-").replace(".", "").upper()
    return base.isdigit() and 2 <= int(base) <= 36 and all(digit in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: int(base)] for digit in digits)


def _same_based(gold: str, answer: str) -> bool | None:
    """Digits with a base below: both must agree; a missing base is the gold's."""
    first, second = _BASED.fullmatch(gold.strip()), _BASED.fullmatch(answer.strip())
    if not (first or second) or not all(match is None or _in_base(match) for match in (first, second)):
        return None
    sides = []
    for match, text in ((first, gold), (second, answer)):
        digits = match.group("digits") if match else text.strip()
        base = match.group("base") if match else ""
        sides.append((digits.upper(), _BASES.get(base, base)))
    (digits, base), (other, other_base) = sides
    return digits == other and (base == other_base or not base or not other_base)


def _same_residue(gold: str, answer: str) -> bool | None:
    r"""5 \pmod{7} and 12 \pmod{7}: values agree up to the modulus. A class of numbers is none of them."""
    first, second = _MODULUS.fullmatch(gold.strip()), _MODULUS.fullmatch(answer.strip())
    if first is None or second is None:
        return None
    values = as_number(first["value"]), as_number(second["value"])
    if values[0] is None or values[1] is None:
        return None
    modulus = int(first["modulus"])
    return modulus == int(second["modulus"]) > 0 and (values[0].value - values[1].value) % modulus == 0


def _same_ratio(gold: str, answer: str) -> bool | None:
    first, second = (_RATIO.split(text.strip()) for text in (gold, answer))
    if len(first) < 2 and len(second) < 2:
        return None
    if min(len(first), len(second)) < 2:
        if max(len(first), len(second)) != 2:
            return False
        first, second = (side if len(side) == 2 else [side[0], "1"] for side in (first, second))
    if len(first) != len(second):
        return False
    one, two = [formula(part) for part in first], [formula(part) for part in second]
    return 0 not in (*one, *two) and all(same_value(one[0] * b, two[0] * a) for a, b in zip(one[1:], two[1:], strict=True))
