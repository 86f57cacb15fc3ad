r"""Comparison of what takes reading: formulas, lists, sets, intervals, matrices, equations. Runs in a judge's child process only.

Structures are compared by their kinds, formulas inside them by value (`algebra`), plain numbers inside them as everywhere (`numbers`).
Text is read by latex2sympy's LaTeX grammar alone: no parser that evaluates Python text ever sees an answer or a gold.
The conventions (order in lists, names before "=", percent, units) are those of docs/verifier.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sympy import Expr, Symbol, latex

from rewards.algebra import Unreadable, formula, proportional
from rewards.compare import compare_quickly
from rewards.extract import bare
from rewards.formulas import is_opaque, same_text_values, unit_off
from rewards.intervals import definite, intervals, same_intervals
from rewards.numbers import as_number, lead_in_off
from rewards.statements import condition_off, is_constant, is_name, lone_letters, renamed, rounded, statement
from rewards.structure import Formula, Items, Matrix, Node, Relation, Union, read
from rewards.tidy import compact, tidy
from rewards.units import UNITS
from rewards.words import is_choice, is_words, unwrapped

_NEARLY = re.compile(
    r"(?<=\S)\s*(?:\(\s*(?:\\approx|\\text\s*\{\s*approximately\s*\})|\\text\s*\{\s*(?:\(|or)?\s*approximately\s*\})\s*([^()]*)\)?$"
)
_EITHER = re.compile(r"[^,;]*(?:\bor\b)[^,;]*", re.DOTALL)
_FUNCTION = re.compile(r"([a-zA-Z])\(([a-zA-Z])\)")
_POINT = re.compile(r"[A-Z]'?\s*(\(.*,.*\))", re.DOTALL)
_UNIT_VECTOR = re.compile(r"(?<![a-zA-Z\\])([ijk])(?![a-zA-Z])")
_COUNTED = re.compile(r"\d[\d,.]*\s+(?:more\s+)?([a-z]{3,})")


class BadGold(ValueError):
    """The gold cannot be compared with anything."""


def compare(*, gold: str, answer: str) -> tuple[bool, str]:
    """Whether the answer equals the gold, and by which rule ("integer", "same text", "interval", "symbolic", ...).

    Raises:
        BadGold: the gold is empty or does not parse.
        MemoryError, RecursionError, and what sympy raises: the comparison failed, nothing is known.
    """
    if not bare(gold):
        raise BadGold("empty")
    return compare_quickly(gold=gold, answer=answer) or compare_symbolically(gold=gold, answer=answer)


def compare_symbolically(*, gold: str, answer: str) -> tuple[bool, str]:
    """As `compare`, without the rules that need no parsing."""
    (gold, condition), (answer, other) = condition_off(tidy(gold)), condition_off(tidy(answer))
    if condition and not other:
        answer = _lettered(answer, beside=gold, letter=condition.letter)
    if other and not condition:
        gold = _lettered(gold, beside=answer, letter=other.letter)
    if condition and other and (answer := renamed(answer, other.letter, condition.letter) or answer) and condition.domain != other.domain:
        return False, "symbolic"
    first, second = _node(gold), _node(answer)
    if (fault := _fault(first)) is not None:
        raise BadGold(fault)
    try:
        return _same(first, second), _kind(first, second)
    except Unreadable:
        return False, "does not parse"


def _lettered(text: str, *, beside: str, letter: str) -> str:
    """A text with the other side's letter for a whole number, where only the other says that it is one."""
    own = lone_letters(text) - lone_letters(beside)
    return renamed(text, own.pop(), letter) or text if len(own) == 1 else text


def gold_fault(gold: str) -> str | None:
    """Why a gold is unusable: "empty", "does not parse", "does not equal itself"; None if it is fine."""
    if not bare(gold):
        return "empty"
    if as_number(gold) is not None or is_words(gold) or is_choice(gold):
        return None
    node = _node(condition_off(tidy(gold))[0])
    if _fault(node) is not None:
        return "does not parse"
    try:
        return None if _same(node, node) else "does not equal itself"
    except Unreadable:
        return "does not parse"


def _node(text: str) -> Node:
    """The structure of an answer or a gold; a plain number is one formula, thousands commas and all."""
    text = _NEARLY.sub(r"\\approx \1", lead_in_off(tidy(text)))
    if as_number(text) is not None:
        return Formula(text)
    node = read(text)
    return _one_of(node.items) or node if isinstance(node, Items) and _EITHER.fullmatch(text) else node


def _one_of(items: Sequence[Node]) -> Node | None:
    r"""The exact one of two spellings of one value, \frac{1}{2} or 0.5."""
    if len(items) == 2 and all(is_constant(item) for item in items):
        first, second = (item.text for item in items if isinstance(item, Formula))
        for value, other in ((first, second), (second, first)):
            if rounded(value, other) or compact(value) == compact(other):
                return Formula(value)
    return None


def _kind(gold: Node, answer: Node) -> str:
    """The name of the rule that compares two nodes."""
    for node in (gold, answer):
        if definite(node):
            return "interval"
    for node in (gold, answer):
        if isinstance(node, Matrix):
            return "matrix"
    if isinstance(gold, Items) or isinstance(answer, Items):
        brackets = {node.brackets for node in (gold, answer) if isinstance(node, Items)}
        return "set" if "{}" in brackets else "tuple" if brackets - {""} else "list"
    return "equation" if isinstance(gold, Relation) and isinstance(answer, Relation) else "symbolic"


def _fault(node: Node) -> str | None:
    """Why a gold cannot be compared: a formula in it that is none."""
    if isinstance(node, Formula):
        if is_opaque(node.text) or as_number(node.text) is not None or is_words(node.text):
            return None
        try:
            formula(unit_off(node.text)[0])
        except Unreadable:
            return "does not parse"
        return None
    if isinstance(node, Relation):
        return next((fault for part in node.parts[1:] if (fault := _fault(part))), None)
    parts: Sequence[Node] = ()
    if isinstance(node, Items):
        parts = node.items
    elif isinstance(node, Union):
        parts = node.parts
    elif isinstance(node, Matrix):
        parts = [cell for row in node.rows for cell in row]
    return next((fault for part in parts if (fault := _fault(part))), None)


def _same(gold: Node, answer: Node) -> bool:
    """Whether two structures say the same. Raises Unreadable if a formula of the answer is none."""
    if definite(gold) or definite(answer):
        return _same_sets(gold, answer)
    gold, answer = _without_membership(gold), _without_membership(answer)
    gold, answer = _unpacked(gold, beside=answer), _unpacked(answer, beside=gold)
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return _same_relations(gold, answer)
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        first, second = _stated(gold), _stated(answer, of_quantity=is_constant(gold) and not _is_zero(gold))
        return first is not None and second is not None and _same(first, second)
    gold, answer = _as_point(gold, beside=answer), _as_point(answer, beside=gold)
    if isinstance(gold, Matrix) or isinstance(answer, Matrix):
        return _same_matrices(_as_matrix(gold), _as_matrix(answer))
    if isinstance(gold, Items) or isinstance(answer, Items):
        return _same_items(gold, answer)
    if isinstance(gold, Formula) and isinstance(answer, Formula):
        return same_text_values(gold.text, answer.text)
    return False


def _same_sets(gold: Node, answer: Node) -> bool:
    first, second = intervals(gold), intervals(answer)
    if first is not None and second is not None:
        return same_intervals(first, second)
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return _same_chains(gold, answer)
    if isinstance(gold, Union) and isinstance(answer, Union) and gold.without != answer.without:
        return False
    these, those = _alternatives(gold), _alternatives(answer)
    conditions = {isinstance(part, Relation) for part in (*these, *those)}  # x < 1 or y > 2 is no union of sets
    return bool(these) and len(conditions) == 1 and _matched(these, those)


def _alternatives(node: Node) -> Sequence[Node]:
    """The parts of a union, or conditions side by side."""
    if isinstance(node, Union):
        return node.parts
    return node.items if isinstance(node, Items) and node.brackets == "" else ()


def _same_chains(gold: Relation, answer: Relation) -> bool:
    """Chains of < and <= that are the same from left to right or from right to left; one inequality may be multiplied through."""
    turned = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
    for parts, signs in (
        (answer.parts, answer.signs),
        (answer.parts[::-1], tuple(turned.get(sign, sign) for sign in answer.signs[::-1])),
    ):
        if signs == gold.signs and all(_same(one, two) for one, two in zip(gold.parts, parts, strict=True)):
            return True
    if len(gold.signs) == len(answer.signs) == 1:
        sign = proportional(_difference(gold), _difference(answer))
        return sign is not None and gold.signs[0] == (answer.signs[0] if sign > 0 else turned.get(answer.signs[0], answer.signs[0]))
    return False


def _without_membership(node: Node) -> Node:
    """S of x in S."""
    return node.parts[1] if isinstance(node, Relation) and node.signs == ("in",) else node


def _unpacked(node: Node, *, beside: Node) -> Node:
    """x = 1, y = 2 of (x, y) = (1, 2), beside something that may have names, too; beside a point it is the point (1, 2)."""
    named = isinstance(beside, Relation) or (isinstance(beside, Items) and beside.brackets == "")
    if not (named and isinstance(node, Relation) and node.signs == ("=",)):
        return node
    names, values = node.parts
    if not (isinstance(names, Items) and isinstance(values, Items) and names.brackets == values.brackets == "()"):
        return node
    if len(names.items) != len(values.items) or not all(is_name(name) for name in names.items):
        return node
    return Items("", tuple(Relation((name, value), ("=",)) for name, value in zip(names.items, values.items, strict=True)))


def _stated(node: Node, *, of_quantity: bool = False) -> Node | None:
    """The value of an equation, None if it states none; other nodes as they are."""
    if not isinstance(node, Relation):
        return node
    stated = statement(node, of_quantity=of_quantity)
    return stated.value if stated else None


def _is_zero(node: Node) -> bool:
    """0, the right side of any equation."""
    return isinstance(node, Formula) and formula(unit_off(node.text)[0]) == 0


def _difference(relation: Relation) -> Expr:
    left, right = relation.parts[0], relation.parts[-1]
    if not (isinstance(left, Formula) and isinstance(right, Formula)):
        raise Unreadable(relation.text)
    return formula(left.text) - formula(right.text)


def _same_relations(gold: Relation, answer: Relation) -> bool:
    if gold.text and compact(gold.text) == compact(answer.text):
        return True
    if set(gold.signs) | set(answer.signs) <= {"=", "~"}:
        first, second = statement(gold), statement(answer)
        if first and second:
            if first.name and second.name and _same_names(first.name, second.name):
                if _same(first.value, _renamed(second.value, first.name, second.name)):
                    return True
            elif not (first.name and second.name) and not _free(first.value) and _same(first.value, second.value):
                return True
    if gold.signs != answer.signs or len(gold.signs) != 1:
        return False
    if gold.signs == ("=",):
        return proportional(_difference(gold), _difference(answer)) is not None
    return False


def _free(node: Node) -> bool:
    return isinstance(node, Formula) and bool(formula(node.text).free_symbols)


def _same_names(gold: Node, answer: Node) -> bool:
    """x and x, f(x) and f(t), y and f(x); a name and no name."""
    if not isinstance(gold, Formula) or not isinstance(answer, Formula):
        return type(gold) is type(answer)
    one, two = compact(gold.text), compact(answer.text)
    if one == two:
        return True
    functions = [_FUNCTION.fullmatch(name) for name in (one, two)]
    if functions[0] and functions[1]:
        return functions[0].group(1) == functions[1].group(1)
    return bool((functions[0] and two == "y") or (functions[1] and one == "y"))


def _renamed(node: Node, gold_name: Node, name: Node) -> Node:
    """An answer's f(t) = ... in the gold's variable: f(x) = ..."""
    if not (isinstance(gold_name, Formula) and isinstance(name, Formula) and isinstance(node, Formula)):
        return node
    one, two = _FUNCTION.fullmatch(compact(gold_name.text)), _FUNCTION.fullmatch(compact(name.text))
    if one is None or two is None or one.group(2) == two.group(2):
        return node
    names = {one.group(2): r"\xi ", two.group(2): one.group(2)}  # what was free under the gold's name is something else
    return Formula(re.sub(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", lambda match: names.get(match.group(), match.group()), node.text))


def _as_point(node: Node, *, beside: Node) -> Node:
    """Beside a point or a vector: (2, 3) of P(2, 3), (2, -1) of 2i - j."""
    length = len(_cells(beside) or ())
    if not isinstance(node, Formula) or length < 2:
        return node
    if named := _POINT.fullmatch(node.text):
        return read(named.group(1))
    if length > 3 or len(set(_UNIT_VECTOR.findall(node.text))) < 2:
        return node
    expression = formula(_UNIT_VECTOR.sub(r"v_{\1}", node.text))
    units = [Symbol(f"v_{letter}") for letter in "ijk"[:length]]
    parts = [expression.diff(unit) for unit in units]
    if expression.subs(dict.fromkeys(units, 0)) != 0 or any(part.has(*units, Symbol("v_k")) for part in parts):
        return node
    return Items("()", tuple(Formula(latex(part)) for part in parts))


def _as_matrix(node: Node) -> Node:
    """[[1, 2], [3, 4]] as a matrix."""
    if not (isinstance(node, Items) and node.brackets in ("()", "[]") and len(node.items) > 1):
        return node
    rows = [item.items for item in node.items if isinstance(item, Items) and item.brackets == node.brackets]
    return Matrix(tuple(rows)) if len(rows) == len(node.items) and len({len(row) for row in rows}) == 1 else node


def _same_matrices(gold: Node, answer: Node) -> bool:
    first, second = _cells(gold), _cells(answer)
    if first is None or second is None or (type(gold) is not type(answer) and not (_is_line(gold) and _is_line(answer))):
        return False
    if isinstance(gold, Matrix) and isinstance(answer, Matrix) and [len(row) for row in gold.rows] != [len(row) for row in answer.rows]:
        return False
    return len(first) == len(second) and all(_same(one, two) for one, two in zip(first, second, strict=True))


def _cells(node: Node) -> list[Node] | None:
    """Cells row by row; a tuple is a vector, written as a row or a column."""
    if isinstance(node, Matrix):
        return [cell for row in node.rows for cell in row]
    return list(node.items) if isinstance(node, Items) and node.brackets in ("()", "[]") else None


def _is_line(node: Node) -> bool:
    return not isinstance(node, Matrix) or len(node.rows) == 1 or len(node.rows[0]) == 1


def _values(items: Sequence[Node]) -> list[Node]:
    r"""Items without names before them; x = \\pm 1 are two."""
    found: list[Node] = []
    for item in items:
        value = _stated(_without_membership(item)) or item
        found += value.items if isinstance(item, Relation) and isinstance(value, Items) and value.brackets == "" else (value,)
    return found


def _name_of(node: Node) -> str | None:
    """x of x = 3."""
    if isinstance(node, Relation) and set(node.signs) <= {"=", "~"} and isinstance(node.parts[0], Formula) and is_name(node.parts[0]):
        return compact(node.parts[0].text)
    return None


def _noun_of(node: Node) -> str | None:
    """rabbit of 8 rabbits."""
    match = _COUNTED.match(unwrapped(node.text)) if isinstance(node, Formula) else None
    return match.group(1).removesuffix("s") if match and match.group(1) not in UNITS else None


def _same_items(gold: Node, answer: Node) -> bool:
    if not (isinstance(gold, Items) and isinstance(answer, Items)):
        one, other = (gold, answer) if isinstance(gold, Items) else (answer, gold)
        assert isinstance(one, Items)
        return len(one.items) == 1 and one.items[0] != Formula(r"\emptyset") and _same(one.items[0], other)
    if _may_be_an_interval(gold) and answer.brackets in ("", "{}"):
        return False
    names = [[_name_of(item) for item in node.items] for node in (gold, answer)]
    for labels in (names, [[_noun_of(item) for item in node.items] for node in (gold, answer)]):
        if all(len(set(side)) == len(side) > 1 and None not in side for side in labels) and set(labels[0]) == set(labels[1]):
            found = dict(zip(labels[1], answer.items, strict=True))
            return all(_same(item, found[label]) for label, item in zip(labels[0], gold.items, strict=True))
    first = _values(_coordinates(gold, names[0]) if answer.brackets == "()" else gold.items)
    second = _values(_coordinates(answer, names[1]) if gold.brackets == "()" else answer.items)
    ordered = _is_ordered(gold, names[0]) or _is_ordered(answer, names[1])
    if "{}" in (gold.brackets, answer.brackets):
        if _holds_sets(gold) != _holds_sets(answer):
            return False
        return not {"()", "[]"} & {gold.brackets, answer.brackets} and _covered(first, second) and _covered(second, first)
    if ordered:
        if {gold.brackets, answer.brackets} == {"()", "[]"} and len(first) == 2:
            return False
        return len(first) == len(second) and all(_same(one, two) for one, two in zip(first, second, strict=True))
    if all(isinstance(item, Items) for item in first):
        return _covered(first, second) and _covered(second, first)
    return len(first) == len(second) and _matched(first, second)


def _coordinates(node: Items, names: Sequence[str | None]) -> Sequence[Node]:
    """Equations of neighbouring letters in the order of the letters, as a point has them: y = 3, x = 2 is (2, 3)."""
    found = "".join(sorted(name or "" for name in names))
    if len(found) != len(names) or len(set(found)) < len(names) or ord(found[-1]) - ord(found[0]) >= len(names):
        return node.items
    return [item for _, item in sorted(zip(names, node.items, strict=True), key=lambda pair: pair[0] or "")]


def _may_be_an_interval(node: Items) -> bool:
    """[2, 5], but not [5, 2]."""
    if node.brackets != "[]" or len(node.items) != 2 or not all(is_constant(item) for item in node.items):
        return False
    low, high = (formula(unit_off(item.text)[0]) for item in node.items if isinstance(item, Formula))
    return bool(low.is_real and high.is_real and low.evalf() < high.evalf())


def _holds_sets(node: Items) -> bool:
    return any(isinstance(item, Items) and item.brackets == "{}" for item in node.items)


def _is_ordered(node: Items, names: Sequence[str | None]) -> bool:
    """Brackets, or different names (x = 1, y = 2), or dots, make the order count."""
    dots = any(isinstance(item, Formula) and item.text.strip() == r"\ldots" for item in node.items)
    bases = {name.partition("_")[0] for name in names if name is not None}  # x_1 and x_2 are solutions, x and y are coordinates
    return node.brackets not in ("", "{}") or dots or (None not in names and len(bases) > 1)


def _alike(this: Node, that: Node) -> bool:
    """As `_same`, for one of several candidates: one that cannot be read is another."""
    try:
        return _same(this, that)
    except Unreadable:
        return False


def _covered(these: Sequence[Node], those: Sequence[Node]) -> bool:
    """Whether each of these has a like among those."""
    return all(any(_alike(this, that) for that in those) for this in these)


def _matched(these: Sequence[Node], those: Sequence[Node]) -> bool:
    """Whether each of these has a partner of its own among those."""
    left = list(those)
    for this in these:
        partner = next((that for that in left if _alike(this, that)), None)
        if partner is None:
            return False
        left.remove(partner)
    return not left
