r"""Units of measurement: what stands behind a number, as a dimension and a factor.

"cm" is (length, 1/100), "\text{ cm}^2" is (length^2, 1/10000), "km/h" is (length/time, ...). Known units of one dimension are converted,
known units of two dimensions differ, and a unit on one side only, or a noun ("20 cups of feed"), says nothing.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

_TABLE = {
    "length": "1/1000 mm millimeter millimetre|1/100 cm centimeter centimetre|1/10 dm decimeter|1 m meter metre|1000 km kilometer kilometre"
    "|254/10000 in inch|3048/10000 ft foot feet|9144/10000 yd yard|1609344/1000 mi mile",
    "time": "1 s sec second|60 min minute|3600 h hr hour|86400 day|604800 week",
    "month": "1 month|12 yr year",
    "mass": "1/1000 mg milligram|1 g gram|1000 kg kilogram|1000000 ton tonne|45359237/100000 lb pound|45359237/1600000 oz ounce",
    "volume": "1/1000 mL ml milliliter millilitre|1 L liter litre",
    "gallon": "1/8 pint|1/4 quart|1 gal gallon",
    "money": "1 dollar usd USD buck|1/100 cent penny pennies ¢",
    "euro": "1 euro", "sterling": "1 pounds\\ sterling", "yen": "1 yen", "rupee": "1 rupee Rs", "yuan": "1 yuan RMB", "ruble": "1 ruble rouble",
    "angle": "1 ^\\circ degree deg",
    "celsius": "1 ^\\circ\\ C ^\\circC degrees\\ Celsius", "fahrenheit": "1 ^\\circ\\ F ^\\circF degrees\\ Fahrenheit",
    "speed": "1 mph",
    "energy": "1 J joule|1000 kJ kilojoule",
    "force": "1 N newton", "power": "1 W watt|1000 kW kilowatt", "voltage": "1 V volt", "frequency": "1 Hz hertz", "current": "1 ampere amp",
    "": "1 unit",
}  # fmt: skip
_COMMAND = re.compile(r"\\text\{([^{}]*)\}")
_POWER = re.compile(r"\s*(?:\^\s*\{?\s*(\d)\s*\}?)$")
_ONE_LETTER = re.compile(r"[a-zA-Z](?:\s*\^.*)?", re.DOTALL)
_PLAIN_LETTER = re.compile(r"[mgshL]|m\s*\^\s*\{?[23]\}?")  # "3 m" is a length, "3 s^2" a formula
_WORD = re.compile(r"[a-z][a-z'-]+", re.IGNORECASE)
# words that make another number of it, or another claim
_CHANGES = re.compile(
    r"hundred|thousand|million|billion|trillion|dozen|half|halves|squared|cubed|factorial|times|plus|minus|more|less|fewer|or|and|to|than|if|when|where|mod|modulo"
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


def _single(text: str) -> tuple[str, Fraction] | None:
    """One unit, perhaps with a power: "cm", "cm^2", "square cm"."""
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
    return (f"{dimension}^{power}" if dimension and power > 1 else dimension), factor**power


def known_unit(text: str) -> tuple[str, Fraction] | None:
    r"""Dimension and factor of a unit ("\text{ cm}^2", "miles per hour", "m/s"); None if it is not one of the table."""
    text = _COMMAND.sub(r"\1", text).strip().rstrip(".")
    above, slash, below = re.sub(r"\s+(?:per|a|an|each)\s+|\s*/\s*", "/", text).partition("/")
    over = _single(above)
    if over is None or not slash:
        return over
    under = _single(below)
    return None if under is None else (f"{over[0]}/{under[0]}", over[1] / under[1])


@lru_cache(maxsize=2048)
def read_unit(text: str, *, glued: bool) -> tuple[str, Fraction] | None:
    """What stands behind a number, as dimension ("" for a noun) and factor; None if it could be anything else.

    Args:
        text: tidied text behind the number, e.g. " cups of feed".
        glued: no space and no \\text stands between the two: then one letter is a factor, not a unit ("10m" is 10 times m).
    """
    inside = text.startswith("\\text")
    text = " ".join(_COMMAND.sub(r" \1 ", text).split()).strip(" .")
    if not text:
        return "", Fraction(1)
    if (unit := known_unit(text)) is not None:
        one_letter = _ONE_LETTER.fullmatch(text) is not None and not inside
        return None if one_letter and (glued or not _PLAIN_LETTER.fullmatch(text)) else unit
    words = text.split(" ")
    plain = [word.strip(",.()") for word in words]
    if (glued and not inside) or len(words) > 12 or not all(_WORD.fullmatch(word) or re.fullmatch("[A-Z]", word) for word in plain if word):
        return None
    if (len(plain[0]) < 3 and not inside) or plain[0].isupper() or any(_CHANGES.fullmatch(word.lower()) for word in plain):
        return None
    return known_unit(plain[0]) or ("", Fraction(1))
