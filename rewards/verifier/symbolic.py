r"""Comparison of what takes reading: formulas, lists, sets, intervals, matrices, equations. Runs in a judge's child process only.

Structures are compared by their kinds, formulas inside them by value (`algebra`), plain numbers inside them as everywhere (`numbers`).
Text is read by latex2sympy's LaTeX grammar alone: no parser that evaluates Python text ever sees an answer or a gold.
The conventions (order in lists, names before "=", percent, units) are those of docs/verifier.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain, permutations

from sympy import Expr, fraction, together

from rewards.verifier import shapes
from rewards.verifier.algebra import Unreadable, formula, proportional, same_value
from rewards.verifier.compare import MAX_GOLD_CHARS, compare_quickly
from rewards.verifier.extract import bare
from rewards.verifier.formulas import is_opaque, same_text_values, unit_off
from rewards.verifier.intervals import definite, intervals, of_one, same_intervals
from rewards.verifier.numbers import as_number, lead_in_off
from rewards.verifier.statements import condition_off, is_constant, narrows, quantifier_off, renamed, rounded, statement
from rewards.verifier.structure import Formula, Items, Matrix, Node, Relation, Union, read
from rewards.verifier.tidy import compact, tidy
from rewards.verifier.words import is_choice, is_words

_NEARLY = re.compile(
    r"(?<=\S)\s*(?:\(\s*(?:\\approx|\\text\s*\{\s*approximately\s*\})|\\text\s*\{\s*(?:\(|or)?\s*approximately\s*\})\s*([^()]*)\)?$"
)
_EITHER = re.compile(r"[^,;]*(?:\bor\b)[^,;]*", re.DOTALL)
_SPACED, _THOUSANDS = re.compile(r"\d, |\d (?:and|or) "), r"(?<![\d.,_^])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\S)"
_FUNCTION = re.compile(r"([a-zA-Z])\(([a-zA-Z])\)")
_LETTERS = re.compile(r"(\\(?:text|begin|end)\{[^{}]*\}|\\(?:lambda|mu|tau|alpha|beta)(?![a-zA-Z])|[a-zA-Z](?:_\w|_\{\w+\})?|\\[a-zA-Z]+)")
_PARAMETERS = (  # shapes of golds, and the letters that are parameters in them
    (r"(?:[yuvwz]|[f-h]\([a-z]\))\s*=(?=.*[xt]).*", r"[a-dkmpA-DKM](?:_.*)?"),  # constants of a function
    (r"(?s)(?=.*\d)(?:(?:\([^()=]*\)\s*=\s*)?\(.*,.*\)|\\begin.*)", r"[a-dj-u]|\\(?:lambda|mu|tau|alpha|beta)"),  # what runs along a line
    (r"(?!.*[j-q]\s*\^)(?:[nmNx]\s*=[^=,]*|.*\\(?:pi|circ).*)", r"[j-npq]"),  # whole numbers
    (r"(?=.*[xt]).*\+\s*[Cc]", r"[a-dkA-DK]"),  # of integration
)


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
    if len(bare(gold)) > MAX_GOLD_CHARS:
        raise BadGold("too long")
    return compare_quickly(gold=gold, answer=answer) or compare_symbolically(gold=gold, answer=answer)


def compare_symbolically(*, gold: str, answer: str) -> tuple[bool, str]:
    """As `compare`, without the rules that need no parsing."""
    (gold, said), (answer, also) = quantifier_off(tidy(gold)), quantifier_off(tidy(answer))
    if said != also and ((said and also) or narrows(said or also, gold)):
        return False, "symbolic"
    (gold, condition), (answer, other) = condition_off(gold), condition_off(answer)
    if condition and other and (answer := renamed(answer, other.letter, condition.letter) or answer) and condition.domain != other.domain:
        return False, "symbolic"
    first, second = _node(gold), _node(answer)
    if (fault := _fault(first)) is not None:
        raise BadGold(fault)
    try:
        others = ((first, _node(text)) for text in _reparametrised(gold, answer))
        pairs = chain([(first, second), (_node(_glued(gold)), _node(_glued(answer)))], others)
        return any(_same(one, two) for one, two in pairs), _kind(first, second)
    except Unreadable:
        return False, "does not parse"


def _glued(text: str) -> str:
    """Thousands without commas: outside of brackets (x = 1,250), and in a list with spaces behind its other commas (1,000, 2,000)."""
    inside = r"" if _SPACED.search(text) else r"\([^()]*\)|\[[^\[\]]*\]|\\\{.*?\\\}|"
    return re.sub(f"{inside}{_THOUSANDS}", lambda match: match[0] if match[0][0] in r"([\{" else match[0].replace(",", ""), text)


def _reparametrised(gold: str, answer: str) -> Iterator[str]:
    """The answer with the gold's letters for parameters of its own."""
    letters = [dict.fromkeys(_LETTERS.findall(text.rpartition("=")[2])) for text in (gold, answer)]
    for shape, names in _PARAMETERS:
        mine, theirs = ([one for one in letters[side] if one not in letters[1 - side] and re.fullmatch(names, one)] for side in (0, 1))
        for order in permutations(mine) if re.fullmatch(shape, gold) and 0 < len(mine) == len(theirs) < 4 else ():
            new = {letter: f" {other} " for letter, other in zip(theirs, order, strict=True)}
            yield "".join(new.get(piece, piece) for piece in _LETTERS.split(answer) if piece)


def gold_fault(gold: str) -> str | None:
    """Why a gold is unusable: "empty", "too long" (2,000 characters), "does not parse", "does not equal itself"; None if it is fine."""
    if not bare(gold):
        return "empty"
    if len(bare(gold)) > MAX_GOLD_CHARS:
        return "too long"
    if as_number(gold) is not None or is_words(gold) or is_choice(gold):
        return None
    node = _node(condition_off(quantifier_off(tidy(gold))[0])[0])
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
    r"""The exact one of two forms of one value, \frac{1}{2} or 0.5."""
    if len(items) == 2 and all(is_constant(item) for item in items):
        first, second = (item.text for item in items if isinstance(item, Formula))
        for value, other in ((first, second), (second, first)):
            if rounded(value, other) or same_text_values(value, other):
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
    if isinstance(node, Matrix):
        parts: Sequence[Node] = [cell for row in node.rows for cell in row]
    else:
        parts = node.items if isinstance(node, Items) else node.parts[isinstance(node, Relation) :]
    return next((fault for part in parts if (fault := _fault(part))), None)


def _same(gold: Node, answer: Node) -> bool:
    """Whether two structures say the same. Raises Unreadable if a formula of the answer is none."""
    if definite(gold) or definite(answer):
        return _same_sets(gold, answer)
    gold, answer = _without_membership(gold), _without_membership(answer)
    gold, answer = shapes.unpacked(gold, beside=answer), shapes.unpacked(answer, beside=gold)
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return _same_relations(gold, answer)
    if isinstance(gold, Relation) and isinstance(answer, Formula) and _solved(gold, answer):
        return True
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        first, second = _stated(gold), _stated(answer, of_quantity=is_constant(gold) and not _is_zero(gold))
        return first is not None and second is not None and _same(first, second)
    gold, answer = shapes.as_point(gold, beside=answer), shapes.as_point(answer, beside=gold)
    if isinstance(gold, Matrix) or isinstance(answer, Matrix):
        return _same_matrices(shapes.as_matrix(gold), shapes.as_matrix(answer))
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
    if isinstance(gold, Union) != isinstance(answer, Union) and not of_one(these):  # x > 0, y > 0 is both
        return False
    return bool(these) and len(conditions) == 1 and _matched(these, those)


def _alternatives(node: Node) -> Sequence[Node]:
    """The parts of a union, or conditions side by side."""
    if isinstance(node, Union):
        return node.parts
    return node.items if isinstance(node, Items) and node.brackets == "" else ()


def _same_chains(gold: Relation, answer: Relation) -> bool:
    """Chains of < and <= that are the same from left to right or from right to left; one inequality may be multiplied through."""
    turned = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
    back = tuple(turned.get(sign, sign) for sign in answer.signs[::-1])
    for parts, signs in ((answer.parts, answer.signs), (answer.parts[::-1], back)):
        if signs == gold.signs and all(_same(one, two) for one, two in zip(gold.parts, parts, strict=True)):
            return True
    if len(gold.signs) == len(answer.signs) == 1:
        sign = proportional(_difference(gold), _difference(answer))
        return sign is not None and gold.signs[0] == (answer.signs[0] if sign > 0 else turned.get(answer.signs[0], answer.signs[0]))
    return False


def _without_membership(node: Node) -> Node:
    """S of x in S."""
    return node.parts[1] if isinstance(node, Relation) and node.signs == ("in",) else node


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
                same = _same(first.value, _renamed(second.value, first.name, second.name))
                if same or (is_constant(first.value) and is_constant(second.value)):
                    return same
            elif not (first.name and second.name) and not _free(first.value) and _same(first.value, second.value):
                return True
    if gold.signs != answer.signs or len(gold.signs) != 1:
        return False
    if gold.signs == ("=",):
        first, second = _difference(gold), _difference(answer)
        return proportional(first, second) is not None or proportional(_numerator(first), _numerator(second)) is not None
    return False


def _numerator(expression: Expr) -> Expr:
    """What is 0 where a formula is 0: xy - 1 of y - 1/x."""
    return fraction(together(expression))[0]


def _solved(gold: Relation, answer: Formula) -> bool:
    """Whether an equation says that its one letter which is not in the answer is the answer: 12/x of xy = 12."""
    if gold.signs != ("=",) or statement(gold) or is_constant(answer):
        return False
    difference, value = _difference(gold), formula(answer.text)
    own = difference.free_symbols - value.free_symbols
    if len(own) != 1 or not value.free_symbols <= difference.free_symbols:
        return False
    (letter,) = own
    factor = difference.diff(letter)
    return factor != 0 and not factor.has(letter) and same_value(-difference.subs(letter, 0) / factor, value)


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


def _same_matrices(gold: Node, answer: Node) -> bool:
    first, second = shapes.cells(gold), shapes.cells(answer)
    if first is None or second is None or (type(gold) is not type(answer) and not (shapes.is_line(gold) and shapes.is_line(answer))):
        return False
    if isinstance(gold, Matrix) and isinstance(answer, Matrix) and [len(row) for row in gold.rows] != [len(row) for row in answer.rows]:
        return False
    return len(first) == len(second) and all(_same(one, two) for one, two in zip(first, second, strict=True))


def _values(items: Sequence[Node]) -> list[Node]:
    r"""Items without names before them; x = \\pm 1 are two."""
    found: list[Node] = []
    for item in items:
        value = _stated(_without_membership(item)) or item
        found += value.items if isinstance(item, Relation) and isinstance(value, Items) and value.brackets == "" else (value,)
    return found


def _one_name(names: Sequence[str | None]) -> bool:
    return len(names) > 1 and set(names) == {names[0]} and names[0] is not None


def _same_items(gold: Node, answer: Node) -> bool:
    if not (isinstance(gold, Items) and isinstance(answer, Items)):
        one, other = (gold, answer) if isinstance(gold, Items) else (answer, gold)
        assert isinstance(one, Items)
        return len(one.items) == 1 and one.items[0] != Formula(r"\emptyset") and _same(one.items[0], other)
    if shapes.may_be_interval(gold) and answer.brackets in ("", "{}"):
        return False
    names = [[shapes.name_of(item) for item in node.items] for node in (gold, answer)]
    for labels in (names, [[shapes.noun_of(item) for item in node.items] for node in (gold, answer)]):
        if all(len(set(side)) == len(side) > 1 and None not in side for side in labels) and set(labels[0]) == set(labels[1]):
            found = dict(zip(labels[1], answer.items, strict=True))
            return all(_same(item, found[label]) for label, item in zip(labels[0], gold.items, strict=True))
    if (gold.brackets == "()" and _one_name(names[1])) or (answer.brackets == "()" and _one_name(names[0])):
        return False  # x = 2, x = 3 is no point
    first = _values(shapes.coordinates(gold, names[0]) if answer.brackets == "()" else gold.items)
    second = _values(shapes.coordinates(answer, names[1]) if gold.brackets == "()" else answer.items)
    ordered = shapes.is_ordered(gold, names[0]) or shapes.is_ordered(answer, names[1])
    if "{}" in (gold.brackets, answer.brackets):
        if shapes.holds_sets(gold) != shapes.holds_sets(answer):
            return False
        return not {"()", "[]"} & {gold.brackets, answer.brackets} and _covered(first, second) and _covered(second, first)
    if ordered:
        if {gold.brackets, answer.brackets} == {"()", "[]"} and len(first) == 2:
            return False
        return len(first) == len(second) and all(_same(one, two) for one, two in zip(first, second, strict=True))
    if all(isinstance(item, Items) for item in first):
        return _covered(first, second) and _covered(second, first)
    return len(first) == len(second) and _matched(first, second)


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
