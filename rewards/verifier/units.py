r"""Units of measurement: what stands behind a number, as a dimension and a factor.

"cm" is (length, 1/100), "\text{ cm}^2" is (length^2, 1/10000), "N" is (mass length/time^2, 1000): products and quotients of metres, seconds,
grams, amperes and what else is countable, with whole powers. Known units of one dimension are converted, known units of two dimensions
differ, and a unit on one side only, or a noun ("20 cups of feed"), says nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from functools import cache, lru_cache

from rewards.verifier.steps import Stage, Step, rewritten, sub

# dimension: factors and names, of units that SI prefixes go with and of others; symbols with prefixes, then words with prefixes
_PREFIXED = {
    "length": "1 m meter metre", "time": "1 s sec second", "mass": "1 g gram", "current": "1 A amp ampere", "amount": "1 mol mole",
    "length^3": "1/1000 L liter litre|1/1000 l", "mass length/time^2": "1000 N newton", "mass/length time^2": "1000 Pa pascal|100000000 bar bar",
    "mass length^2/time^2": "1000 J joule|4184 cal calorie|1602176634/10000000000000000000000000 eV electronvolt|3600000 Wh watt-hour",
    "mass length^2/time^3": "1000 W watt", "current time": "1 C coulomb", "mass/current time^2": "1000 T tesla",
    "mass length^2/current time^3": "1000 V volt", "mass length^2/current^2 time^3": "1000 Ω ohm", "mass length^2/current time^2": "1000 Wb weber",
    "current^2 time^4/mass length^2": "1/1000 F farad", "mass length^2/current^2 time^2": "1000 H henry", "/time": "1 Hz hertz",
    "temperature": "1 K kelvin", "amount/length^3": "1000 M molar", "current^2 time^3/mass length^2": "1/1000 S siemens",
    "parsec": "1 pc parsec", "byte": "1 B byte", "decay": "1 Bq becquerel", "flux": "1 lm lumen",
}  # fmt: skip
_PREFIXES = {
    "G": ("giga", Fraction(10**9)), "M": ("mega", Fraction(10**6)), "k": ("kilo", Fraction(1000)), "d": ("deci", Fraction(1, 10)),
    "c": ("centi", Fraction(1, 100)), "m": ("milli", Fraction(1, 1000)), "μ": ("micro", Fraction(1, 10**6)),
    "n": ("nano", Fraction(1, 10**9)), "p": ("pico", Fraction(1, 10**12)),
}  # fmt: skip
_OTHERS = {
    "length": "254/10000 in inch|3048/10000 ft foot feet|9144/10000 yd yard|1609344/1000 mi mile|1/1000000 micron|1/10000000000 Å \\AA angstrom",
    "length^2": "10000 hectare|40468564224/10000000 acre",
    "length^3": "1/1000000 cc|473176473/1000000000000 pint|946352946/1000000000000 quart|3785411784/1000000000000 gal gallon",
    "time": "60 min minute|3600 h hr hrs hour|86400 day|604800 week", "month": "1 month|12 yr yrs year",
    "mass": "1000000 ton tonne|45359237/100000 lb pound|45359237/1600000 oz ounce", "mass/length time^2": "101325000 atm atmosphere",
    "mass length^2/time^2": "1/10000 erg|1000 Nm N-m", "length/time": "1609344/3600000 mph|1000/3600 kph",
    "money": "1 dollar usd USD buck|1/100 cent penny pennies ¢",
    "euro": "1 euro", "sterling": "1 pounds\\ sterling", "yen": "1 yen", "rupee": "1 rupee Rs", "yuan": "1 yuan RMB|1/10 jiao", "ruble": "1 ruble rouble",
    "angle": "1 ^\\circ degree deg", "radian": "1 rad radian", "turn": "1 revolution rev", "turn/time": "1/60 rpm",
    "celsius": "1 ^\\circ\\ C ^\\circC degrees\\ Celsius", "fahrenheit": "1 ^\\circ\\ F ^\\circF degrees\\ Fahrenheit",
    "astronomical": "1 AU", "light": "1 light\\ year light-year ly", "bit": "1 bit", "decibel": "1 dB decibel", "dalton": "1 Da u amu dalton", "debye": "1 D debye", "cup": "1 cup", "spoon": "3 tablespoon tbsp|1 teaspoon tsp", "": "1 unit",
}  # fmt: skip
_COMMAND = re.compile(r"\\text\{((?:[^{}]|\{[^{}]*\})*)\}")
_PLAIN = Stage(
    (
        sub("words laid bare", _COMMAND, r" \1 "),
        sub("quotients", r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2"),
        Step("ends", lambda text: text.strip().rstrip(".")),
        sub("signs of times", r"\\cdot(?![a-zA-Z])|\\times(?![a-zA-Z])|\*|(?<=[a-zA-Z])-(?=[a-zA-Z])", " "),
        sub("spaces around marks of powers", r"\s*\^\s*(?=\{?\s*-?\d)", "^"),
        sub("micro", r"\\mu(?![a-zA-Z])\s*", "μ"),
        sub("ohm", r"(?:(?<![a-zA-Z])([kMGm])\s+)?\\Omega(?![a-zA-Z])", r"\1Ω"),
        sub("brackets below a slash", r"/\s*\(([^()]*)\)", r"/\1"),
        sub("powers in words", r"(?<=[a-z])\s+(squared|cubed)\b", lambda match: "^2" if match[1] == "squared" else "^3"),
        sub("slashes", r"\s+(?:per|a|an|each)\s+|\s*/\s*", "/"),
    )
)
_POWER = re.compile(r"\s*\^\s*\{?\s*(-?\d)\s*\}?$")
_LETTERS = re.compile(r"(?:(?:\\frac|\\cdot|(?<![a-zA-Z])[a-zA-Z](?![a-zA-Z]))[\s^{}/\d*-]*)+")
_PLAIN_LETTERS = re.compile(
    r"[mgshL]|m\s*\^\s*\{?[23]\}?|[mghsLVWNJ]\s*/\s*[mghsL]\s*(?:\^\s*\{?[23]\}?)?"
)  # "3 m" is a length, "3 s^2" and "3 m g" formulas
_FACTORS = re.compile(r"(?![cdkmn]m$|[mk]g$|m[lLi]$|k[JWN]$|[kMGd]B$|cc$)[GMkdcmμnp][a-zA-Z]")  # "2 mV" is as well a product
_WORD = re.compile(r"[a-z][a-z'-]+", re.IGNORECASE)
# what is counted, or says no more than that it is: a plural, a colour, "left", "in total"
_COUNTED = re.compile(
    r"(?!(?:.*wards|always|perhaps|besides|sometimes|nowadays|yes|has|was|does|its|as|thus|alas)$)[a-z'-]+[^\Wsui]'?s"
    r"|.*(?:people|children|men|feet|teeth|mice|geese|fish|sheep|cattle|dice|pence)|red|blue|green|yellow|white|black|brown|orange|pink"
    r"|left|only|remaining|total|altogether|combined|each|apiece|old|of|all|per|every|candy|fruit|money"
)  # fmt: skip
# no noun of things counted: numerals, operations, and the small words by which something else is said of a number
_CHANGES = re.compile(
    r"hundred|thousand|million|billion|trillion|dozen|half|halves|squared|cubed|factorial|times|plus|minus|more|less|fewer|or|and|to|than|if"
    r"|isn't|aren't|cannot|can|can't|most|least|max|maximum|min|minimum|is|are|was|were|wrong|incorrect|false|invalid|impossible|below|under|above|beyond"
    r"|hundreds|thousands|millions|billions|trillions|dozens|tens|lakhs?|crores?|scores?|gross|myriads?|permille|mille|basis|doubled|tripled|quadrupled|halved|inverted"
    r"|(?:eleven|twelf|\w+teen|\w+tie|\w+illion)ths?|\w+illions?|kilo|mega|giga|mil|mln|bn|grand|repeating|recurring|almost|undefined|rejected|fails?|failed|excluded|negated|reciprocals?|inverse|opposite|conjugate|double|triple|twice|thrice|otherwise|except|maybe|possibly|never|don't|doesn't|won't|when|where|mod|modulo"
    r"|millones|milhões|millionen|milliarden?|milliards?|milioni|miliardi|docenas?|douzaines?|dutzend|prozent"
    r"|divided|over|base|power|root|pi|infinity|not|no|out|remainder|percent|pct|by|through|between|with|both|either|point|negative"
    r"|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|\w+ty|(?:quarter|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|\w+dth)s?"
)  # fmt: skip


def _rows(table: dict[str, str]) -> Iterator[tuple[str, Fraction, list[str]]]:
    for dimension, rows in table.items():
        for row in rows.split("|"):
            factor, *names = row.replace("\\ ", "\0").split(" ")
            yield dimension, Fraction(factor), [name.replace("\0", " ") for name in names]


@cache
def units() -> dict[str, tuple[str, Fraction]]:
    """Dimension and factor of every known unit, by name."""
    table = {}
    for dimension, factor, (symbol, *words) in _rows(_PREFIXED):
        for letter, (prefix, times) in {"": ("", Fraction(1)), **_PREFIXES}.items():
            table[letter + symbol] = (dimension, factor * times)
            table |= {prefix + name + plural: (dimension, factor * times) for name in words for plural in ("", "s")}
    del table["pm"], table["dB"]  # a time of day, and no tenth of a byte
    for dimension, factor, names in _rows(_OTHERS):
        for name in names:
            table[name] = (dimension, factor)
            if len(name) > 2 and name[-1].isalpha() and name.islower():
                table[name + ("es" if name.endswith(("ch", "sh")) else "s")] = (dimension, factor)
    return table


def _single(text: str) -> tuple[Counter[str], Fraction] | None:
    """Powers of the dimensions, and factor, of one unit, perhaps with a power: "cm", "cm^2", "s^{-1}", "square cm"."""
    text, power = text.strip(), 1
    if match := _POWER.search(text):
        text, power = text[: match.start()].strip(), int(match.group(1))
    for word, exponent in (("square ", 2), ("sq ", 2), ("sq. ", 2), ("cubic ", 3)):
        if text.startswith(word):
            text, power = text.removeprefix(word).strip(), exponent
    found = units().get(text) or units().get(text.lower() if len(text) > 2 else text)
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
    above, slash, below = rewritten([_PLAIN], text).partition("/")
    over, under = _product(above), _product(below.replace("/", " ")) if slash else ({}, Fraction(1))
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
def read_unit(text: str, *, glued: bool, letters: bool = False, one: bool = False) -> tuple[str, Fraction] | None:
    """What stands behind a number, as dimension ("" for a noun) and factor; None if it could be anything else.

    Args:
        text: tidied text behind the number, e.g. " cups of feed".
        glued: no space and no \\text stands between the two: then one letter is a factor, not a unit ("10m" is 10 times m).
        letters: single letters behind a space are units, whichever they are ("12 V").
        one: the number is no more than one, so that what is counted need not be a plural.
    """
    inside = text.startswith(("\\text", r"\frac{\text"))
    text = " ".join(_COMMAND.sub(r" \1 ", text).split()).strip(" .")
    if not text:
        return "", Fraction(1)
    if (unit := known_unit(text)) is not None:
        formula = (text.startswith("\\") and glued and "circ" not in text) or _LETTERS.fullmatch(text) or _FACTORS.fullmatch(text)
        unclear = glued or not (letters or _PLAIN_LETTERS.fullmatch(text) or text.startswith("\\"))
        return None if formula and not inside and unclear else unit
    if text.startswith("("):  # "(rejected)", "(at least)" are not what is counted
        return known_unit(text.strip("() "))
    words = text.split(" ")
    plain = [word.strip(",.()") for word in words]
    if (glued and not inside) or len(words) > 12 or not all(_WORD.fullmatch(word) or re.fullmatch("[A-Z]", word) for word in plain if word):
        return None
    if plain[0].isupper() or any(_CHANGES.fullmatch(word.lower()) for word in plain):
        return None
    if len(plain[0]) < 3 and not inside and plain[0] not in ("in", "of"):
        return None
    unit = known_unit(plain[0]) if plain[0] != "in" else None  # what follows "in" is no inch
    if not (one or unit or any(_COUNTED.fullmatch(word.lower()) or (len(word) > 2 and known_unit(word)) for word in plain)):
        return None  # "7 max", "7 short"
    return unit or ("", Fraction(1))
