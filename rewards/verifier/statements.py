r"""What an equation states: x = 5 is 5 under the name x, 1 + 2 = 3 is 3, \frac{2}{3} \approx 0.67 is two thirds.

A statement is a name and a value. Values along a chain must agree, so that x = 6 = 5 states nothing.
Simplification: whether a left side names a quantity (m + n, \cos A) or is an equation to be solved (2x, x^2, \ln x) is told by its letters:
one unknown under a factor, power, root or function is to be solved for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from sympy import Expr, Rational
from sympy.core.function import AppliedUndef

from rewards.verifier.algebra import Unreadable, formula, same_value
from rewards.verifier.formulas import same_text_values, unit_off
from rewards.verifier.numbers import as_number
from rewards.verifier.structure import Formula, Items, Node, Relation
from rewards.verifier.tidy import compact

_GREEK = "alpha|beta|gamma|theta|lambda|phi|varphi|omega|mu|sigma|delta|rho|tau|Delta|Omega"
_NAME = re.compile(  # x, f(x), x_1, AB, \angle ABC, Area, \vec{a}; x(x + 1) is a product
    r"(?!([a-z])\([^()]*\1)(?:\\(?:angle|triangle|overline|vec|overrightarrow|hat|widehat|bar|tilde|text|mathcal|mathbb|Delta|measuredangle))?[\s{]*"
    rf"(?:[A-Z]{{1,5}}|[a-zA-Z]|[A-Z][a-z]{{2,}}|[A-Za-z]{{4,}}|\\(?:{_GREEK}))\}}?'*(?:_(?:\w|\{{[^{{}}=]+\}}))?(?:\^\*|\^\{{?-1\}}?)?(?:\([^()]*\))?'*"
)
_UNKNOWN_IN_BARS = re.compile(r"\|[a-y]\|")  # |x| = 5 is solved, |z| is a modulus
_CALCULATION = re.compile(r"\\(?:lim|int|sum|prod|begin|binom|bmod|det|gcd|log|max|min)")
_OPERATOR = re.compile(r"\\(?:gcd|lcm|max|min|deg|dim|Pr|det)(?![a-zA-Z])|[A-Z]\[|\\mathbb\{E\}|\\text\{(?:[a-z]{2,4}|R[e]|I[m])\}(?=[\s(\[\\])")  # fmt: skip
_DENIAL = re.compile(r"\\n(?:eg|ot)|\\l?not|\b(?:not|no|never|if|unless|is|mod|or)\b|n't")
_ANGLE_NAME = re.compile(rf"\\(?:sin|cos|tan|cot|sec|csc)\s*[({{]?\s*(?:\\angle\s*)?(?:[A-Z]{{1,3}}|\\(?:{_GREEK}))\s*[)}}]?")
_POWER_OF_A_LENGTH = re.compile(r"[A-Z]{2}\^\{?2\}?|\|z\|\^\{?2\}?")
_LETTER = re.compile(  # commands that are no letters give an empty match
    rf"(\\text\{{[^{{}}]*\}}|\\(?:{_GREEK})(?![a-zA-Z])|(?<![a-zA-Z\\])[A-Z]{{2,}}(?![a-z])|(?<![\\])[a-zA-Z](?:_\w|_\{{[^{{}}]*\}})?)|\\[a-zA-Z]+"
)
_FUNCTION_OF = re.compile(r"([fghpqFGHPQ])\((?:[^()]|\([^()]*\))*\)")
_FACTOR = re.compile(r"-|\d|\\frac\{\d+\}\{\d+\}")


_LONE = re.compile(r"\\text\{[^{}]*\}|\\[a-zA-Z]+|[a-zA-Z]")
_WHOLE = r"\\mathbb\{[ZN]\}|[ZN]|\\text\{[ZN]\}"
_CONDITION = re.compile(
    rf"(?s)(?P<rest>.*?\S)\s*[,;]?\s*(?:\\text\{{[\s,]*(?:for|where|with)(?:\s+(?:all|any|some))?\s*\}})?\s*\(?\s*(?:(?P<letter>[a-z])\s*\\in\s*(?P<domain>{_WHOLE})"
    r"\s*(?P<signed>[_^]\s*(?:\{\s*)?(?:[*+]|>\s*0)(?:\s*\})?)?|(?P<letter2>[a-z])\s*\\text\{\s*(?:is )?any? integer\s*\}|\\text\{\s*for (?:some|any|all) integers?\s*\}\s*(?P<letter3>[a-z]))\s*\)?"
)


_DOMAIN = r"\s*\\in\s*\\mathbb\s*\{[RQZNC]\}(?:\s*[_^]\s*(?:\{\s*(?:[+*]|(?:>|\\ge)\s*0)\s*\}|[+*]))?"
_KINDS = r"(?:\s*\b(?:real|positive|negative|non-?negative|non-?zero|whole|natural|rational|primes?|even|odd|complex|integers?|numbers?|values?|of)\b)*"
_WITHIN, _IF = (
    r"(?:(?!\\(?:le|ge|ne|in)(?![a-z])|[<>,]|\bor\b|(?<![\\a-zA-Z])[a-zA-Z]{3}).)*?",
    r"(?:for|where|with|if|when)",
)  # no word, no sign of relation but "="
_QUALIFIERS = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"(?<=\S)\s*,?\s*(?:\\text\s*\{\s*for (?:all|any|every|each"
        r"|some (?:real |complex |fixed |arbitrary )*(?:constants?|numbers?|parameters?))\b[a-z\s-]*\}\s*(?:[a-z](?:\s*,\s*[a-z](?![a-z]))*)?"
        rf"|(?<![a-z]{{2}} )(?<![{{a-z])(?<!\\{{ )for (?:all|any|every|each)(?: [a-z-]{{2,}})* ?[a-z]?)(?:{_DOMAIN})?(?=\s*(?:[,;]|\\text\s*\{{[\s,]*and\b|$))",
        # "where c is the constant", "with n an integer": nothing that says more of the value
        r"(?<=\S)\s*,?\s*(?:\\text\s*\{[\s,(]*)?(?<![a-zA-Z])(?:where|with)\b(?!.*(?:[<>=\d]|\\(?:le|ge|ne|equiv|approx|pm|cup)(?![a-z])|\b(?:not|no|never|or|remainder)\b|n't)).*$",
        rf"(?<=\S)\s*(?:(?:,|\\text\s*\{{\s*,?\s*for\s*\}})\s*[a-zA-Z]{_DOMAIN.replace('RQZNC', 'RQC')}|,?\s*\\forall\s*[a-zA-Z](?:{_DOMAIN})?)$",
        rf"(?<=\S)\s*,?\s*\\text\s*\{{[\s,(]*for\s*\}}\s*[a-zA-Z]\s*\\text\s*\{{\s*(?:is |an? )*{_KINDS}\s*\)?\s*\}}$",
        # "(attained at x = 3)", "with equality iff x = y", and a domain of the letter itself: "1/x, x \ne 0"
        r"(?<=\S)\s*,?\s*\(?\s*(?:\\text\s*\{[\s,(]*)?(?<![a-zA-Z])(?:is )?(?:(?:attain|achiev|reach)ed (?:at|when|for|if|by|only)|(?:w\w+ )?equality)"
        r"(?!.*\b(?:or|not|and|but)\b).*$",
        rf"^(?![a-z]\s*(?:,|\\text|[a-z]{{2}})|[a-z]\s\()(?P<rest>{_WITHIN}(?<![a-zA-Z\\])(?P<of>[a-z])(?![a-zA-Z]){_WITHIN})\s*(?:,|,?\s*\\text\s*\{{[\s,(]*{_IF}\s*\}}|,?\s\(?{_IF}\s|(?<=\s)\((?=.*\)$))"
        r"\s*(?P=of)\s*(?:[<>]|\\(?:le|ge|ne)(?![a-z]))\s*-?(?:\d+|\\frac\{\d+\}\{\d+\})(?:\s*\)|\s*\\text\{\s*\)\s*\})?$",
        # "all integers n with n >= 3"
        rf"^(?:\\text\s*\{{\s*)?(?:for )?(?:all|any|every|each)\b{_KINDS}\s*\}}?\s*(?:\b[a-z]\s*(?:\\text\s*\{{)?\s*,?\s*(?:with|where|such that|for which|satisfying)\b\s*\}}?\s*)?"
        r"(?=[a-z]\s*(?:[<>]|\\(?:le|ge|ne|in|equiv)(?![a-z])))",
    )
]
_SAID = re.compile(
    r"\b(?:non-?negative|non-?zero|whole|rational|prime|even|odd|complex|integer|positive|negative|natural)|(?<=\\mathbb\{)[ZNQC]"
    r"|[a-z]\s*(?:=|[<>]|\\[gln]e(?![a-z]))[^,)}]+"
)
_NARROWING = re.compile(r"\b(?:prime|even|odd|rational|Q)\b")
_ORDERED = re.compile(r"[<>]|\\(?:le|ge|ne|in|cup)(?![a-z])")


class Statement(NamedTuple):
    """A value, and the name it is given, if any."""

    name: Node | None
    value: Node


def statement(node: Node, *, of_quantity: bool = False) -> Statement | None:
    """What an equation states: 3 of x = 3, of 3 = x, of x = 1 + 2 = 3, of 1 + 2 = 3. None if it states nothing.

    Args:
        of_quantity: a constant is sought, so that expressions are names, too: m + n = 113, \\cos A = \\frac{3}{5}.
    """
    if not isinstance(node, Relation) or not set(node.signs) <= {"=", "~"}:
        return None
    parts, cut = node.parts, node.signs.index("~") if "~" in node.signs else len(node.signs)
    if any(
        isinstance(one, Formula) and isinstance(two, Formula) and compact(one.text) == compact(two.text) for one, two in pairwise(parts)
    ):
        return None
    first, last = parts[0], parts[cut] if cut else parts[-1]
    found: Statement | None = None
    if is_name(first):
        found = Statement(first, last)
    elif not cut and is_constant(first):
        found = Statement(None, first) if all(is_constant(part) for part in parts) else None
    elif len(parts) == 2 and isinstance(last, Formula) and _NAME.fullmatch(compact(last.text)) and isinstance(first, Formula):
        return Statement(last, first)
    elif isinstance(first, Formula) and _is_calculation(first.text, last):
        found = Statement(None, last)
    elif of_quantity and isinstance(first, Formula) and is_constant(last) and _is_quantity(first.text):
        found = Statement(first, last)
    return found if found and _agree(parts[bool(found.name) :], found.value, rough=cut < len(node.signs)) else None


def is_name(node: Node) -> bool:
    """Whether a node can stand before "=" as the name of what is sought: x, f(x), (x, y), AB, \\angle ABC, |AB|, x_1 : x_2."""
    if isinstance(node, Items):
        return all(is_name(item) for item in node.items)
    if not isinstance(node, Formula) or _DENIAL.search(node.text):
        return False
    parts = re.split(r":|/", re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", compact(node.text)))
    return all(_NAME.fullmatch(part.strip("|").replace(r"\|", "")) and not _UNKNOWN_IN_BARS.fullmatch(part) for part in parts)


def is_constant(node: Node) -> bool:
    """Whether a node is one value without unknowns."""
    if not isinstance(node, Formula):
        return False
    try:
        value = _value(node.text)
    except Unreadable:
        return False
    return not value.free_symbols and not value.atoms(AppliedUndef)


def _value(text: str) -> Expr:
    number = as_number(text)
    return Rational(number.value.numerator, number.value.denominator) if number is not None else formula(unit_off(text)[0])


def _agree(parts: Sequence[Node], value: Node, *, rough: bool) -> bool:
    """Whether all constants of a chain are one value; decimals may be rounded, whole numbers only where a sign says so."""
    constants = [part.text for part in parts if isinstance(part, Formula) and is_constant(part)]
    if not constants:
        return True
    reference = value.text if isinstance(value, Formula) and is_constant(value) else constants[0]
    pairs = [(text, reference) for text in constants]
    return all(same_text_values(a, b) or rounded(b, a, whole=rough) or rounded(a, b, whole=rough) for a, b in pairs)


def rounded(text: str, near: str, *, whole: bool = False) -> bool:
    """Whether a decimal (or, if `whole`, an integer) is a constant rounded to the decimal's own last digit."""
    number = as_number(near)
    places = None if number is None else 0 if whole and number.value.denominator == 1 else number.places
    if number is None or places is None or (places < 1 and not whole):
        return False
    gap = abs(_value(text) - Rational(number.value.numerator, number.value.denominator)).evalf(30)
    return bool(gap.is_Number and gap <= Rational(10) ** -places / 2)


def _is_calculation(text: str, result: Node) -> bool:
    """Whether the left side is a sum to be worked out and, as far as it can be read, comes to the right side."""
    if not isinstance(result, Formula):
        return False
    try:
        left = formula(text)
    except Unreadable:
        return _CALCULATION.search(text) is not None and not is_constant(Formula(text))
    try:
        return not left.free_symbols and same_value(left, formula(result.text))
    except Unreadable:
        return False


def _is_quantity(text: str) -> bool:
    """Whether an expression names what is sought, rather than being an equation's left side: see the simplification above."""
    text = unit_off(text)[0]
    bare_text = re.sub(r"\([^()]*\)|\{[^{}]*\}", "", text)
    if as_number(text) is not None or _DENIAL.search(text):
        return False
    if _ANGLE_NAME.fullmatch(text) or _POWER_OF_A_LENGTH.fullmatch(compact(text)):
        return True
    if _FACTOR.match(text) and not re.search(r"[+-]", bare_text[1:]):
        return False
    named = _OPERATOR.search(text) is not None
    letters = {letter for letter in _LETTER.findall(_FUNCTION_OF.sub(r"\1", text)) if letter and letter not in ("e", "i")}
    try:
        value = formula(text)
    except Unreadable:
        return named or len(letters) > 1
    functions = value.atoms(AppliedUndef)
    if (not value.free_symbols and not functions and not named) or value.as_content_primitive()[0] != 1:
        return False
    return named or len(letters) > 1 or len(functions) > 1 or bool(_FUNCTION_OF.fullmatch(text))


class Condition(NamedTuple):
    """That a letter of a formula is a whole number, of the domain "Z", "N" or "Z+"."""

    letter: str
    domain: str


def condition_off(text: str) -> tuple[str, Condition | None]:
    r"""2k\pi of "2k\pi, k \in \mathbb{Z}", and the condition. Conditions of inequalities, and of what is not in the formula, stay."""
    builder = re.fullmatch(r"\\\{\s*[a-z]\s*[|:](.*)\\\}", text, re.DOTALL)
    match = _CONDITION.fullmatch(builder.group(1) if builder else text)
    letter = (match["letter"] or match["letter2"] or match["letter3"]) if match else ""
    if match is None or (letter not in "jklmnpq" and re.search(r"[<>]|\\(?:le|ge|ne|in)(?![a-z])", match["rest"])):
        return text, None
    if letter not in _LONE.findall(match["rest"]):
        return text, None
    domain = re.sub(r"\\\w+|[{}]", "", match["domain"] or "Z")
    return match["rest"], Condition(letter, "Z+" if match["signed"] else domain)


def quantifier_off(text: str) -> tuple[str, str]:
    """f(x) = x of "f(x) = x for all integers x", 4 of "4, where c is the constant", n >= 3 of "all n >= 3"; and the domain that was said, if any."""
    said: set[str] = set()
    for pattern in _QUALIFIERS:
        for match in pattern.finditer(text):
            said |= {{"Z": "integer", "N": "natural"}.get(word, word.replace(" ", "")) for word in _SAID.findall(match.group())}
        text = pattern.sub(lambda match: match.groupdict().get("rest", ""), text).strip(" ,")
    return text, " ".join(sorted(said))


def narrows(said: str, text: str) -> bool:
    """Whether a domain leaves something out of the set that a text is: the even, the prime of n >= 3, the rational of (0, 1)."""
    return bool(_NARROWING.search(said) and _ORDERED.search(text))


def lone_letters(text: str) -> set[str]:
    """The single letters of a text that may be unknowns or counters."""
    return {letter for letter in _LONE.findall(text) if len(letter) == 1} - {"e", "i"}


def renamed(text: str, name: str, new: str) -> str | None:
    """A text with another letter for one of its letters; None if that is taken."""
    if name == new:
        return text
    return None if new in _LONE.findall(text) else _LONE.sub(lambda match: new if match.group() == name else match.group(), text)
