r"""Units of measurement: what stands behind a number, as a dimension and a factor.

"cm" is (length, 1/100), "\text{ cm}^2" is (length^2, 1/10000), "N" is (mass length/time^2, 1000): products and quotients of metres, seconds,
grams, amperes and what else is countable, with whole powers. Known units of one dimension are converted, known units of two dimensions
differ, and a unit on one side only, or a noun ("20 cups of feed"), says nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from functools import lru_cache

_TABLE = {
    "length": "1/1000 mm millimeter millimetre|1/100 cm centimeter centimetre|1/10 dm decimeter|1 m meter metre|1000 km kilometer kilometre"
    "|254/10000 in inch|3048/10000 ft foot feet|9144/10000 yd yard|1609344/1000 mi mile"
    "|1/1000000 \\mu\\ m micrometer micron|1/1000000000 nm nanometer|1/10000000000 Å \\AA angstrom",
    "time": "1 s sec second|60 min minute|3600 h hr hour|86400 day|604800 week",
    "month": "1 month|12 yr year",
    "mass": "1/1000 mg milligram|1 g gram|1000 kg kilogram|1000000 ton tonne|45359237/100000 lb pound|45359237/1600000 oz ounce",
    "length^2": "10000 hectare|40468564224/10000000 acre",
    "length^3": "1/1000000 mL ml milliliter millilitre|1/1000 L liter litre"
    "|473176473/1000000000000 pint|946352946/1000000000000 quart|3785411784/1000000000000 gal gallon",
    "money": "1 dollar usd USD buck|1/100 cent penny pennies ¢",
    "euro": "1 euro", "sterling": "1 pounds\\ sterling", "yen": "1 yen", "rupee": "1 rupee Rs", "yuan": "1 yuan RMB", "ruble": "1 ruble rouble",
    "angle": "1 ^\\circ degree deg",
    "celsius": "1 ^\\circ\\ C ^\\circC degrees\\ Celsius", "fahrenheit": "1 ^\\circ\\ F ^\\circF degrees\\ Fahrenheit",
    "length/time": "1609344/3600000 mph|1000/3600 kph",
    "mass length/time^2": "1000 N newton|1000000 kN",
    "mass length^2/time^2": "1000 J joule|1000000 kJ kilojoule|1000000000 MJ megajoule|3600000000 kWh|4184000 kcal|1/10000 erg"
    "|1602176634/10000000000000000000000000 eV|1602176634/10000000000000000000 MeV",
    "mass length^2/time^3": "1000 W watt|1000000 kW kilowatt", "mass/length time^2": "1000 Pa pascal|1000000 kPa|101325000 atm",
    "current": "1 ampere amp", "current time": "1 coulomb", "mass/current time^2": "1000 tesla",
    "mass length^2/current time^3": "1000 V volt", "mass length^2/current^2 time^3": "1000 \\Omega ohm", "/time": "1 Hz hertz",
    "temperature": "1 K kelvin", "amount": "1 mol mole|1/1000 mmol", "astronomical": "1 AU", "radian": "1 rad radian",
    "": "1 unit",
}  # fmt: skip
_COMMAND = re.compile(r"\\text\{((?:[^{}]|\{[^{}]*\})*)\}")
_POWER = re.compile(r"\s*\^\s*\{?\s*(-?\d)\s*\}?$")
_POWER_MARK = re.compile(r"\s*\^\s*(?=\{?\s*-?\d)")
_QUOTIENT = re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_TIMES = re.compile(r"\\cdot(?![a-zA-Z])|\\times(?![a-zA-Z])|\*|(?<=[a-zA-Z])-(?=[a-zA-Z])")
_LETTERS = re.compile(r"(?:(?:\\frac|\\cdot|(?<![a-zA-Z])[a-zA-Z](?![a-zA-Z]))[\s^{}/\d*-]*)+")
_PLAIN_LETTERS = re.compile(
    r"[mgshL]|m\s*\^\s*\{?[23]\}?|[mghsLVWNJ]\s*/\s*[mghsL]\s*(?:\^\s*\{?[23]\}?)?"
)  # "3 m" is a length, "3 s^2" and "3 m g" formulas
_WORD = re.compile(r"[a-z][a-z'-]+", re.IGNORECASE)
# no noun of things counted: numerals, operations, and the small words by which something else is said of a number
_CHANGES = re.compile(
    r"hundred|thousand|million|billion|trillion|dozen|half|halves|squared|cubed|factorial|times|plus|minus|more|less|fewer|or|and|to|than|if"
    r"|isn't|aren't|cannot|can|can't|is|are|was|were|wrong|incorrect|false|invalid|impossible|below|under|above|beyond"
    r"|hundreds|thousands|millions|billions|trillions|dozens|tens|lakhs?|crores?|scores?|gross|myriads?|permille|mille|basis|doubled|tripled|quadrupled|halved|inverted"
    r"|(?:eleven|twelf|\w+teen|\w+tie|\w+illion)ths?|\w+illions?|kilo|mega|giga|mil|mln|bn|grand|repeating|recurring|almost|undefined|rejected|fails?|failed|excluded|negated|reciprocals?|inverse|opposite|conjugate|double|triple|twice|thrice|otherwise|except|maybe|possibly|never|don't|doesn't|won't|when|where|mod|modulo"
    r"|divided|over|base|power|root|pi|infinity|not|no|out|remainder|percent|pct|by|through|between|with|both|either|point|negative"
    r"|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|\w+ty|(?:quarter|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|\w+dth)s?"
)  # fmt: skip


def _units() -> dict[str, tuple[str, Fraction]]:
    table = {}
    for dimension, rows in _TABLE.items():
        for row in rows.split("|"):
            factor, *names = row.replace("\\ ", "\0").split(" ")
            for name in (name.replace("\0", " ") for name in names):
                table[name] = (dimension, Fraction(factor))
                if len(name) > 2 and name[-1].isalpha() and name.islower():
                    table[name + ("es" if name.endswith(("ch", "sh")) else "s")] = (dimension, Fraction(factor))
    return table


UNITS = _units()


def _single(text: str) -> tuple[Counter[str], Fraction] | None:
    """Powers of the dimensions, and factor, of one unit, perhaps with a power: "cm", "cm^2", "s^{-1}", "square cm"."""
    text, power = text.strip(), 1
    if match := _POWER.search(text):
        text, power = text[: match.start()].strip(), int(match.group(1))
    for word, exponent in (("square ", 2), ("sq ", 2), ("sq. ", 2), ("cubic ", 3)):
        if text.startswith(word):
            text, power = text.removeprefix(word).strip(), exponent
    found = UNITS.get(text) or UNITS.get(text.lower() if len(text) > 2 else text)
    if found is None:
        return None
    dimension, factor = found
    powers: Counter[str] = Counter()
    for sign, side in zip((1, -1), dimension.split("/"), strict=False):
        for name, _, times in (one.partition("^") for one in side.split()):
            powers[name] = sign * power * int(times or 1)
    return powers, factor**power


def _product(text: str) -> tuple[dict[str, int], Fraction] | None:
    """Powers of the dimensions, and factor, of units side by side: "kg m^2"."""
    if (whole := _single(text)) is not None:
        return dict(whole[0]), whole[1]
    powers: Counter[str] = Counter()
    factor = Fraction(1)
    for part in text.split():
        found = _single(part)
        if found is None:
            return None
        powers.update(found[0])
        factor *= found[1]
    return (dict(powers), factor) if text.strip() else None


def known_unit(text: str) -> tuple[str, Fraction] | None:
    r"""Dimension and factor of a unit ("\text{ cm}^2", "miles per hour", "kg m/s"); None if it is not made of those of the table."""
    text = _QUOTIENT.sub(r"\1/\2", _COMMAND.sub(r" \1 ", text)).strip().rstrip(".")
    text = _POWER_MARK.sub("^", _TIMES.sub(" ", text))
    above, slash, below = re.sub(r"\s+(?:per|a|an|each)\s+|\s*/\s*", "/", text).partition("/")
    over, under = _product(above), _product(below) if slash else ({}, Fraction(1))
    if over is None or under is None:
        return None
    powers = Counter(over[0])
    powers.subtract(under[0])
    return _written(powers), over[1] / under[1]


def _written(powers: Counter[str]) -> str:
    """A dimension as text: "length^2", "mass length/time"; "" for none."""
    above, below = (
        " ".join(sorted(f"{name}^{abs(n)}" if abs(n) > 1 else name for name, n in powers.items() if sign * n > 0)) for sign in (1, -1)
    )
    return f"{above}/{below}" if below else above


@lru_cache(maxsize=2048)
def read_unit(text: str, *, glued: bool) -> tuple[str, Fraction] | None:
    """What stands behind a number, as dimension ("" for a noun) and factor; None if it could be anything else.

    Args:
        text: tidied text behind the number, e.g. " cups of feed".
        glued: no space and no \\text stands between the two: then one letter is a factor, not a unit ("10m" is 10 times m).
    """
    inside = text.startswith(("\\text", r"\frac{\text"))
    text = " ".join(_COMMAND.sub(r" \1 ", text).split()).strip(" .")
    if not text:
        return "", Fraction(1)
    if (unit := known_unit(text)) is not None:
        formula = (text.startswith("\\") and glued and "circ" not in text) or _LETTERS.fullmatch(text)
        return None if formula and not inside and (glued or not (_PLAIN_LETTERS.fullmatch(text) or text.startswith("\\"))) else unit
    words = text.split(" ")
    plain = [word.strip(",.()") for word in words]
    if (glued and not inside) or len(words) > 12 or not all(_WORD.fullmatch(word) or re.fullmatch("[A-Z]", word) for word in plain if word):
        return None
    if (len(plain[0]) < 3 and not inside) or plain[0].isupper() or any(_CHANGES.fullmatch(word.lower()) for word in plain):
        return None
    if len(plain) == 1 and len(plain[0]) > 4 and plain[0].endswith("ed"):  # "5 doubled", "5 discarded": nothing is counted
        return None
    return known_unit(plain[0]) or ("", Fraction(1))
