r"""Formulas: read by latex2sympy, compared by value. Runs in a judge's child process only, because nothing bounds its time or memory.

Two formulas are equal if they have the same value: exactly for rational numbers, to 30 digits for other constants, and at several points
(where both are real) for formulas with variables. Values are compared relative to their size, so that tiny numbers are not all equal.
Simplifications: points, not proofs; formulas are compared where both are real, so \sqrt{1/n} equals 1/\sqrt{n} and \ln x^2 equals 2\ln x;
"i" is the imaginary unit unless it counts a sum, "e" is Euler's number.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from sympy import Derivative, Expr, Float, I, Integer, Limit, Pow, Rational, Symbol, UnevaluatedExpr, conjugate, nan, oo, pi, simplify, zoo
from sympy.concrete.expr_with_limits import ExprWithLimits
from sympy.core.function import AppliedUndef

from rewards.verifier.steps import Stage, rewritten, sub

_UNDONE = (ExprWithLimits, Limit, Derivative, UnevaluatedExpr)
_CONFIG = ConversionConfig(interpret_as_mixed_fractions=False, lowercase_symbols=False)
_DIGITS = 30
_EXACT, _NOISE, _DECIMAL, _SMALL, _ABSOLUTE = (Float(text, _DIGITS) for text in ("1e-27", "1e-13", "5e-8", "1e-5", "5e-7"))
_SIZES = tuple(
    Float(Rational(*size), 200) for size in ((8, 11), (21, 13), (31, 13), (7, 17), (41, 13), (19, 16), (36, 13), (16, 19), (35, 24))
)
_SCALES = (1, 1, Rational(22, 3), Rational(22, 3), Rational(131, 3), 1, 1, 1, 1, 1)  # near and far, so that |x - 5| is not 5 - x
_NOTHING = Float("1e-90", _DIGITS)  # what cancels to less is 0: points have 200 digits
_WORD = re.compile(r"(?<![\\a-zA-Z{])[a-zA-Z]{4,}|\\text|(?<![\\a-zA-Z])(?:the|and|for|not|are|all|yes|has|is|of|if|no|or|to)(?![a-zA-Z])")
# "1 2" is no number, "1.5.2", "5'" and "5_x" are none, and x^2^3 could be either power
_UNCLEAR = re.compile(
    r"(?<![_^\d.])\d[\d.]*\s+\d|\d\.\d*\.\d|\^(?:\w|\{[^{}]*\})\s*\^|(?<![\w{])\d+'|(?<![\w{])\d+_\{?[a-zA-Z\\]|\\ldots|[;?#&\"$]|\\[()\[\]]"
)
_TIMES = re.compile(r"(?:(?<![\w^_\\.{])\d+(?:\.\d+)?|\))\s*(?=\()")  # latex2sympy adds 2(3) up, as if it were a mixed number
_BESIDE = re.compile(  # and it adds what stands beside a binomial, or a fraction behind a bracket
    r"(?<=[\d})!])\s*(?=\\binom)|(?<=\))\s*(?=\\frac)|(?P<binomial>\\binom\{[^{}]*\}\{[^{}]*\})\s*(?=[\w(]|\\(?:frac|sqrt|pi)(?![a-zA-Z]))"
)
_PLAIN_FRACTION = re.compile(  # 4/3\pi is (4/3)\pi, as 4/3*\pi is; latex2sympy takes it for 4/(3\pi)
    r"(?<![\w.\\^_)}/])(\d+)\s*/\s*(\d+)(?=\s*(?:[a-zA-Z]|\\(?:sqrt|pi|ln|log|sin|cos|tan|theta|alpha|beta|lambda|mu)(?![a-zA-Z])))"
)
_CAPITAL_E = re.compile(r"(\\[a-zA-Z]+)|E(?:_\{?(\w+)\}?)?")  # latex2sympy takes E for Euler's number
_CONJUGATED = re.compile(r"\\overline\{([^{}]*[+-][^{}]*)\}")
_POWER = r"(?:\s*\^\s*(?:\{[^{}]*\}|\w))?"
_ATOM = rf"(?:(?:\d+(?:\.\d+)?|\\(?:pi|theta|alpha|beta|gamma|phi|omega)(?![a-zA-Z])|\\(?:sqrt|frac\{{[^{{}}]*\}})\{{[^{{}}]*\}}|[a-zA-Z](?![a-zA-Z])){_POWER})"
_NAMED = r"\\(?:ln|log|lg|(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?)(?![a-zA-Z])"
_APPLIED = re.compile(  # \ln 2/3 is (ln 2)/3: what stands beside a function's name without brackets ends at a slash or a sign of times
    rf"({_NAMED}(?:_(?:\{{[^{{}}]*\}}|\w))?{_POWER})\s*({_ATOM}(?:\s*{_ATOM})*)\s*(?=/|\*|\\(?:cdot|times)(?![a-zA-Z]))"
)
_RECIPROCAL = re.compile(  # unknown to latex2sympy
    rf"\\(csch|sech|coth)({_POWER})\s*(\((?:[^()]|\([^()]*\))*\)|{_ATOM}(?:\s*{_ATOM})*)"
)
_INVERTED = {"csch": "sinh", "sech": "cosh", "coth": "tanh"}


class Unreadable(ValueError):
    """The text is no formula."""


def _mixed(match: re.Match[str]) -> str:
    whole, above, below = match.groups()
    return rf"({whole}+\frac{{{above}}}{{{below}}})" if int(above) < int(below) else rf"{whole}\cdot\frac{{{above}}}{{{below}}}"


_SAID_PLAINLY = Stage(  # for latex2sympy, which takes some forms for others and does not know some
    (
        sub("scientific notation", r"\A([+-]?\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})\Z", r"\1\\cdot 10^{\2}"),
        sub("plain fractions before a letter", _PLAIN_FRACTION, r"\\frac{\1}{\2}"),
        sub("products beside binomials", _BESIDE, r"\g<binomial>\\cdot "),
        sub("products before brackets", _TIMES, r"\g<0>\\cdot "),
        sub("primes", r"([a-zA-Z])('+)", lambda match: f"{match[1]}_{{{'p' * len(match[2])}}}"),
        sub("capital E", _CAPITAL_E, lambda match: match[1] or rf"\epsilon_{{E{match[2] or ''}}}"),
        sub("reciprocals of hyperbolic functions", _RECIPROCAL, lambda match: rf"\frac{{1}}{{\{_INVERTED[match[1]]}{match[2]}{match[3]}}}"),
        sub("inverse hyperbolic functions", r"\\ar(?=(?:sin|cos|tan)h)", r"\\arc"),
        sub("functions without brackets", _APPLIED, r"\1(\2)"),
        sub("mixed numbers", r"(?<![\d.\w}])(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}", _mixed),
        sub("percent signs", "%", r"\\cdot\\frac{1}{100}"),
        sub("degrees", r"(\d+(?:\.\d+)?|[a-zA-Z]|\\[a-z]+|\([^()]*\))\s*\^\\circ", r"(\\frac{\\pi}{180}\\cdot \1)"),
    )
)


@lru_cache(maxsize=256)
def formula(text: str) -> Expr:
    """The formula of a tidied text.

    Raises:
        Unreadable: the text is empty, holds words, or is no formula.
        MemoryError, RecursionError: the reader failed; the text may be fine.
    """
    if (conjugated := _CONJUGATED.fullmatch(text)) is not None:
        return conjugate(formula(conjugated.group(1)))
    if not text or _WORD.search(text) or _UNCLEAR.search(text):
        raise Unreadable(text)
    try:
        read = latex2sympy(rewritten([_SAID_PLAINLY], text), normalization_config=None, conversion_config=_CONFIG)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # latex2sympy raises plain Exception, sympy whatever it meets, for text that is no formula
        raise Unreadable(text) from error
    if not isinstance(read, Expr):
        raise Unreadable(text)
    return _with_imaginary_unit(read.replace(_is_odd_root, _real_root) if r"\sqrt[" in text else read)


def _is_odd_root(node: Expr) -> bool:
    """An odd root of a negative number: real, as schools have it."""
    return isinstance(node, Pow) and bool(node.base.is_number and node.base.is_negative) and (1 / node.exp).doit().is_odd is True


def _real_root(node: Expr) -> Expr:
    return -Pow(-node.base, node.exp)


def _with_imaginary_unit(expression: Expr) -> Expr:
    bound = {symbol.name for node in expression.atoms(ExprWithLimits) for symbol in node.variables if isinstance(symbol, Symbol)}
    unit = {symbol: I for symbol in expression.free_symbols if isinstance(symbol, Symbol) and symbol.name == "i" and "i" not in bound}
    return expression.xreplace(unit) if unit else expression


def _value(expression: Expr, point: dict[Expr, Expr]) -> Expr | None:
    """The value at a point, to 30 digits; None where there is none."""
    try:
        value = expression.xreplace(point)
        value = (value.doit() if value.has(*_UNDONE) else value).evalf(_DIGITS, maxn=400)
    except (ZeroDivisionError, ValueError, TypeError, ArithmeticError, AttributeError, NotImplementedError):
        return None
    if value in (nan, zoo) or value.has(nan, zoo) or value.free_symbols:
        return None
    return (Integer(0) if abs(value) < _NOTHING else value) if value.is_number else None


def _measured(expression: Expr, point: dict[Expr, Expr]) -> tuple[Expr, Expr] | None:
    """The value at a point, decimals as they are written, and how far it may be off by rounding.

    Decimals of six and more places are rounded ones, to less than a unit of their last: a whole unit is another digit.
    """
    exact = {decimal: Rational(str(decimal)) for decimal in expression.atoms(Float)}
    if (value := _value(expression, point | exact)) is None:
        return None
    off = Integer(0)
    for decimal, written in exact.items():
        places = -int(Decimal(str(decimal)).normalize().as_tuple().exponent)
        moved = _value(expression, point | exact | {decimal: written + Rational(99, 100) / Integer(10) ** places}) if places > 5 else None
        off += 0 if moved is None else abs(moved - value)
    return value, off


def _close(one: tuple[Expr, Expr], other: tuple[Expr, Expr], *, decimal: bool) -> bool:
    (first, off), (second, also) = one, other
    if first in (oo, -oo) or second in (oo, -oo):
        return bool(first == second)
    gap = abs(first - second).evalf(_DIGITS)
    if first == second or max(abs(first), abs(second)) < _NOTHING:
        return True
    size = max(abs(first).evalf(_DIGITS), abs(second).evalf(_DIGITS))
    if decimal and gap < max(off, also) and (gap <= _DECIMAL * size or (gap < _ABSOLUTE and gap <= _SMALL * size)):
        return True
    return bool(gap <= (_NOISE if decimal else _EXACT) * size)


def same_value(first: Expr, second: Expr) -> bool:
    """Whether two formulas have the same value wherever both are real. Decimals agree to six digits."""
    if first == second:
        return True
    first, second = _without_functions(first, second)
    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    decimal = first.has(Float) or second.has(Float)
    if not symbols:
        return _same_constant(first, second, decimal=decimal)
    found = _same_at_points(first, second, symbols, decimal=decimal)
    if found is None:  # no point has a value: what has none at all is equal to nothing
        return first.free_symbols == second.free_symbols and bool(simplify(first - second) == 0)
    return found


def _without_functions(first: Expr, second: Expr) -> tuple[Expr, Expr]:
    """Two formulas with a symbol for each f(x) in them."""
    names = {str(atom): atom for expression in (first, second) for atom in expression.atoms(AppliedUndef)}
    stand_ins = {atom: Symbol(f"_{index}") for index, (_, atom) in enumerate(sorted(names.items()))}
    return first.xreplace(stand_ins), second.xreplace(stand_ins)


def _same_constant(first: Expr, second: Expr, *, decimal: bool) -> bool:
    first, second = first.doit(), second.doit()
    if first == second:
        return True
    if isinstance(first, Rational) and isinstance(second, Rational):
        return False
    one, two = _measured(first, {}), _measured(second, {})
    if one is None or two is None:
        return bool(simplify(first - second) == 0)
    if (one[0] == 0) != (two[0] == 0) and not decimal:
        return bool((first - second).equals(0))
    if not _close(one, two, decimal=decimal):
        return False
    gap = None if decimal or (first - second).has(*_UNDONE) else _value(first - second, {})  # cancels to hundreds of digits
    return gap is None or bool(abs(gap) <= _NOTHING * max(1, abs(one[0])))


def _point(symbols: list[Symbol], turn: int) -> dict[Expr, Expr]:
    """The turn-th point to compare at: both signs in every combination of neighbours, near zero and far."""
    sign = 1 if turn % 2 == 0 else -1
    signs = [sign * (-1) ** (index * (turn // 2)) for index in range(len(symbols))]
    return {symbol: signs[index] * _SCALES[turn] * _SIZES[(index * 4 + turn) % len(_SIZES)] for index, symbol in enumerate(symbols)}


def _same_at_points(first: Expr, second: Expr, symbols: list[Symbol], *, decimal: bool) -> bool | None:
    """Equal or not at up to six points of both signs where both are real, else at whole numbers; None if there were no such points."""
    compared, ends = (
        0,
        (limits.free_symbols for one in (first, second) for node in one.atoms(ExprWithLimits) for limits in node.limits[0][1:]),
    )
    near = [] if any(ends) else [_point(symbols, turn) for turn in range(10)]  # sums that end at n: at whole numbers only
    whole: list[dict[Expr, Expr]] = [{symbol: Integer(turn + 2 * index) for index, symbol in enumerate(symbols)} for turn in range(1, 5)]
    for points, least, most in ((near, 1, 6), (whole, 2, 4)):
        for point in points:
            one, two = _measured(first, point), _measured(second, point)
            if one is None or two is None or (points is near and not (one[0].is_real and two[0].is_real)):
                continue
            if not _close(one, two, decimal=decimal):
                return False
            compared += 1
            if compared == most:
                return True
        if compared >= least:
            return True
    return None


def proportional(first: Expr, second: Expr) -> int | None:
    """The sign of k (1 if it is complex) if first = k second with a constant k other than 0; None if there is no such k."""
    first, second = _without_functions(first, second)
    imaginary = first.has(I) or second.has(I)
    if first.free_symbols != second.free_symbols or not first.free_symbols:
        return None
    symbols = sorted(first.free_symbols, key=str)
    ratios = []
    for turn in range(8):
        one, two = _measured(first, point := _point(symbols, turn)), _measured(second, point)
        if one and two and one[0] != 0 and two[0] != 0 and (imaginary or (one[0].is_real and two[0].is_real)):
            ratios.append(((one[0] / two[0]).evalf(_DIGITS), Integer(0)))
    decimal = first.has(Float) or second.has(Float)  # exact but for a computer's rounding
    if len(ratios) < 2 or not all(_close(ratio, ratios[0], decimal=decimal) for ratio in ratios[1:]):
        return None
    return -1 if ratios[0][0].is_real and ratios[0][0] < 0 else 1


def degrees_of(expression: Expr) -> Expr:
    """Radians as degrees."""
    return expression * 180 / pi
