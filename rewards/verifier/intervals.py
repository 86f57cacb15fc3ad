r"""Sets of real numbers as unions of intervals, so that (1, 2), 1 < x < 2 and x \in (1, 2) are one answer in both directions.

An interval is (low, low closed, high, high closed). Inequalities are solved if they are polynomials or quotients of polynomials in one unknown,
or linear in the absolute value of something linear. Those that stand side by side hold together if anything is left of them, else either holds. Simplification: whatever is more than that is not an interval (None), and is compared part by part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

from sympy import Abs, Expr, Integer, Poly, Symbol, nsimplify, oo, simplify, together
from sympy.core.function import AppliedUndef

from rewards.verifier.algebra import Unreadable, formula, same_value
from rewards.verifier.structure import Formula, Items, Node, Relation, Union

_ORDER = frozenset({"<", ">", "<=", ">="})
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`; an end belongs to it if it is closed."""

    low: Expr
    low_closed: bool
    high: Expr
    high_closed: bool


_MAX_DEGREE = 8
_ALL = Interval(-oo, False, oo, False)


def definite(node: Node) -> bool:
    """Whether a node can only be meant as a set of real numbers: an inequality, a union, [0, 1), (-\\infty, 1)."""
    if isinstance(node, Relation):
        return bool(set(node.signs) & (_ORDER | {"!="})) or (node.signs == ("in",) and definite(node.parts[1]))
    if isinstance(node, Union):
        return True
    if isinstance(node, Items) and node.brackets == "&":
        return True
    if isinstance(node, Items) and node.brackets == "":
        return all(isinstance(item, Relation) and definite(item) for item in node.items)
    if isinstance(node, Items) and len(node.items) == 2 and node.brackets in ("(]", "[)", "()", "[]"):
        return node.brackets in ("(]", "[)") or any(isinstance(item, Formula) and r"\infty" in item.text for item in node.items)
    return False


def intervals(node: Node) -> list[Interval] | None:
    """The intervals a node stands for, sorted where their ends can be ordered; None if it is no such set."""
    try:
        found = _intervals(node)
    except (Unreadable, TypeError, RecursionError):
        return None
    return None if found is None else _joined(found)


def _intervals(node: Node) -> list[Interval] | None:
    if isinstance(node, Relation):
        if node.signs == ("in",):
            return _intervals(node.parts[1])
        return _solved(node)
    if isinstance(node, Union):
        parts = [_intervals(part) for part in node.parts]
        if any(part is None for part in parts) or not of_one(node.parts):
            return None
        whole = [interval for part in parts for interval in part or []]
        return whole if node.without is None else _without(whole, node.without)
    if isinstance(node, Formula):
        return [_ALL] if node.text.replace(" ", "") == r"\mathbb{R}" else None
    if not isinstance(node, Items):
        return None
    if node.brackets == "{}":
        points = [formula(item.text) for item in node.items if isinstance(item, Formula)]
        return [Interval(point, True, point, True) for point in points] if len(points) == len(node.items) else None
    if node.brackets in ("", "&"):
        parts = [_intervals(item) for item in node.items]
        if any(part is None for part in parts) or not of_one(node.items):
            return None
        either = [interval for part in parts for interval in part or []]
        if node.brackets == "" and not all(end.is_number for interval in either for end in (interval.low, interval.high)):
            return either
        both = reduce(_shared, (part or [] for part in parts))
        return both if node.brackets == "&" or both else either
    if len(node.items) != 2 or not all(isinstance(item, Formula) for item in node.items):
        return None
    low, high = (formula(item.text) for item in node.items if isinstance(item, Formula))
    if low.is_number and high.is_number and not bool(low.evalf() <= high.evalf()):
        return None
    return [Interval(low, node.brackets[0] == "[" and low != -oo, high, node.brackets[1] == "]" and high != oo)]


def of_one(nodes: Sequence[Node]) -> bool:
    """Whether conditions are about one unknown; sets are about any."""
    return len({str(_unknown_of(node)) for node in nodes if isinstance(node, Relation)}) < 2


def _unknown_of(node: Node) -> Expr | None:
    """What an inequality is about."""
    if isinstance(node, Relation) and node.signs == ("in",) and isinstance(node.parts[0], Formula):
        return _unknown(formula(node.parts[0].text))
    if not isinstance(node, Relation) or not all(isinstance(part, Formula) for part in node.parts):
        return None
    parts = (formula(part.text) * (index + 2) for index, part in enumerate(node.parts) if isinstance(part, Formula))
    return _unknown(sum(parts, Integer(0)))


def _shared(first: list[Interval], second: list[Interval]) -> list[Interval]:
    return [both for one in first for two in second if (both := _meet(one, two)) is not None]


def _without(whole: list[Interval], node: Node) -> list[Interval] | None:
    """What is left of intervals, all ends numbers, without others."""
    away = _intervals(node)
    if away is None or not all(end.is_number for interval in (*whole, *away) for end in (interval.low, interval.high)):
        return None
    for one in away:
        below = Interval(-oo, False, one.low, not one.low_closed and one.low != -oo)
        above = Interval(one.high, not one.high_closed and one.high != oo, oo, False)
        whole = _shared(whole, [side for side in (below, above) if side.low != side.high])
    return whole


def _solved(relation: Relation) -> list[Interval] | None:
    """The solutions of a chain of inequalities in one unknown."""
    if not all(isinstance(part, Formula) for part in relation.parts):
        return None
    parts = [formula(part.text) for part in relation.parts if isinstance(part, Formula)]
    signs = list(relation.signs)
    if signs == ["="] and parts[0].is_Symbol and parts[1].is_number:
        return [Interval(parts[1], True, parts[1], True)]
    if signs == ["!="]:
        return _solved_pair(parts[0], "!=", parts[1])
    if not set(signs) <= _ORDER:
        return None
    found: list[Interval] = [_ALL]
    for left, sign, right in zip(parts, signs, parts[1:], strict=False):
        one = _solved_pair(left, sign, right)
        if one is None:
            return None
        found = _shared(found, one)
    return found


def _unknown(expression: Expr) -> Expr | None:
    """The one symbol or f(x) in an expression; None if there is none or more than one."""
    functions = expression.atoms(AppliedUndef)
    names = functions | (expression.xreplace(dict.fromkeys(functions, oo)).free_symbols if functions else expression.free_symbols)
    return names.pop() if len(names) == 1 else None


def _linear(expression: Expr, unknown: Expr) -> tuple[Expr, Expr] | None:
    """(a, b) of a x + b."""
    stand_in = Symbol("_x")
    at = [expression.xreplace({unknown: stand_in}).subs(stand_in, value) for value in (0, 1, 2)]
    slope = simplify(at[1] - at[0])
    if simplify(at[2] - at[1] - slope) != 0 or slope == 0 or not slope.is_number:
        return None
    return slope, at[0]


def _solved_pair(left: Expr, sign: str, right: Expr) -> list[Interval] | None:
    if (sign in ("<", "<=") and oo in (-left, right)) or (sign in (">", ">=") and oo in (left, -right)):
        return [_ALL]
    difference = left - right
    unknown = _unknown(difference)
    if unknown is None:
        return None
    bars = difference.atoms(Abs)
    if bars:
        (bar,) = bars if len(bars) == 1 else (None,)
        if bar is None or (inner := _linear(bar.args[0], unknown)) is None or _unknown(difference.xreplace({bar: Symbol("_u")})) is None:
            return None
        outer = _linear(difference.xreplace({bar: Symbol("_u")}), Symbol("_u"))
        return None if outer is None or sign == "!=" else _unfolded(_half_line(*outer, sign), *inner)
    line = _linear(difference, unknown)
    if line is None:
        return _sign_chart(difference, unknown, sign)
    if sign == "!=":
        point = simplify(-line[1] / line[0])
        return [Interval(-oo, False, point, False), Interval(point, False, oo, False)]
    return [_half_line(*line, sign)]


def _sign_chart(difference: Expr, unknown: Expr, sign: str) -> list[Interval] | None:
    """Where a quotient of polynomials with rational coefficients `sign` 0: its sign between neighbouring zeros."""
    numerator, denominator = together(nsimplify(difference, rational=True)).as_numer_denom()
    if not all(side.is_polynomial(unknown) for side in (numerator, denominator)):
        return None
    above, below = Poly(numerator, unknown), Poly(denominator, unknown)
    product = above * below
    if product.degree() > _MAX_DEGREE or not (product.domain.is_QQ or product.domain.is_ZZ):
        return None
    zeros, poles = sorted(set(product.real_roots())), set(below.real_roots())
    found = []
    for low, high in pairwise((-oo, *zeros, oo)):
        inside = high - 1 if low == -oo else low + 1 if high == oo else (low + high) / 2
        value = product.as_expr().subs(unknown, inside if inside.is_finite else 0).evalf()
        if sign == "!=" or (value > 0) == sign.startswith(">"):
            found.append(Interval(low, False, high, False))
    points = [] if sign in ("<", ">", "!=") else [Interval(zero, True, zero, True) for zero in zeros if zero not in poles]
    return found + points


def _half_line(slope: Expr, constant: Expr, sign: str) -> Interval:
    """Where slope * x + constant `sign` 0."""
    end = simplify(-constant / slope)
    sign = sign if slope.evalf() > 0 else _TURNED[sign]
    closed = sign.endswith("=")
    return Interval(-oo, False, end, closed) if sign.startswith("<") else Interval(end, closed, oo, False)


def _unfolded(bound: Interval, slope: Expr, constant: Expr) -> list[Interval]:
    """Where |slope * x + constant| lies in a half line."""
    if bound.low == -oo:
        ends = sorted(((end - constant) / slope for end in (-bound.high, bound.high)), key=lambda end: float(end.evalf()))
        return [Interval(simplify(ends[0]), bound.high_closed, simplify(ends[1]), bound.high_closed)]
    ends = sorted(((end - constant) / slope for end in (-bound.low, bound.low)), key=lambda end: float(end.evalf()))
    return [Interval(-oo, False, simplify(ends[0]), bound.low_closed), Interval(simplify(ends[1]), bound.low_closed, oo, False)]


def _meet(first: Interval, second: Interval) -> Interval | None:
    """What two intervals share; ends that are no numbers give way to infinity only."""
    low, low_closed = (first.low, first.low_closed) if second.low == -oo else (second.low, second.low_closed)
    high, high_closed = (first.high, first.high_closed) if second.high == oo else (second.high, second.high_closed)
    if -oo not in (first.low, second.low) and bool(first.low >= second.low):
        low, low_closed = first.low, first.low_closed and (second.low_closed or first.low != second.low)
    if oo not in (first.high, second.high) and bool(first.high <= second.high):
        high, high_closed = first.high, first.high_closed and (second.high_closed or first.high != second.high)
    if low.is_number and high.is_number and (bool(low.evalf() > high.evalf()) or (low == high and not (low_closed and high_closed))):
        return None
    return Interval(low, low_closed, high, high_closed)


def _joined(found: list[Interval]) -> list[Interval]:
    """Intervals in order, touching ones joined, if all ends are numbers; as they were otherwise."""
    if not all(end.is_number for interval in found for end in (interval.low, interval.high)):
        return found
    found = sorted(found, key=lambda interval: (float(interval.low.evalf()), float(interval.high.evalf())))
    joined: list[Interval] = []
    for interval in found:
        last = joined[-1] if joined else None
        if last is not None and bool(last.high == interval.low) and (last.high_closed or interval.low_closed):
            joined[-1] = Interval(last.low, last.low_closed, interval.high, interval.high_closed)
        elif last is not None and last.high != oo and bool(last.high.evalf() > interval.low.evalf()):
            longer = max(last, interval, key=lambda one: float(one.high.evalf()))
            joined[-1] = Interval(last.low, last.low_closed, longer.high, longer.high_closed)
        elif interval not in joined:
            joined.append(interval)
    return joined


def same_intervals(first: list[Interval], second: list[Interval]) -> bool:
    """Equal ends, equally closed, in the same order."""
    pairs = list(zip(first, second, strict=False))
    closed = all((one.low_closed, one.high_closed) == (two.low_closed, two.high_closed) for one, two in pairs)
    return (
        len(first) == len(second) and closed and all(same_value(one.low, two.low) and same_value(one.high, two.high) for one, two in pairs)
    )
