r"""What lists, points, vectors and matrices stand for beside each other: (2, -1) of 2i - j, x = 1, y = 2 of (x, y) = (1, 2), whether order counts.

Readers of structure only; whether two things are the same is for `symbolic` to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sympy import Symbol, latex

from rewards.verifier.algebra import formula
from rewards.verifier.formulas import unit_off
from rewards.verifier.statements import is_constant, is_name
from rewards.verifier.structure import Formula, Items, Matrix, Node, Relation, read
from rewards.verifier.tidy import compact
from rewards.verifier.units import units
from rewards.verifier.words import unwrapped

_POINT = re.compile(r"(?![CFNU]\()[A-Z]'?\s*(\((?:\\[a-z]+|[^a-zA-Z=\\])*,(?:\\[a-z]+|[^a-zA-Z=\\])*\))", re.DOTALL)
_UNIT_VECTOR = re.compile(r"(?<![a-zA-Z\\])([ijk])(?![a-zA-Z])")
_COUNTED = re.compile(r"\d[\d,.]*\s+(?:more\s+)?([a-z]{3,})")


def unpacked(node: Node, *, beside: Node) -> Node:
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


def name_of(node: Node) -> str | None:
    """x of x = 3."""
    if isinstance(node, Relation) and set(node.signs) <= {"=", "~"} and isinstance(node.parts[0], Formula) and is_name(node.parts[0]):
        return compact(node.parts[0].text)
    return None


def noun_of(node: Node) -> str | None:
    """rabbit of 8 rabbits."""
    match = _COUNTED.match(unwrapped(node.text)) if isinstance(node, Formula) else None
    return match.group(1).removesuffix("s") if match and match.group(1) not in units() else None


def coordinates(node: Items, names: Sequence[str | None]) -> Sequence[Node]:
    """Equations of neighbouring letters in the order of the letters, as a point has them: y = 3, x = 2 is (2, 3)."""
    found = "".join(sorted(name or "" for name in names))
    if len(found) != len(names) or len(set(found)) < len(names) or ord(found[-1]) - ord(found[0]) >= len(names):
        return node.items
    return [item for _, item in sorted(zip(names, node.items, strict=True), key=lambda pair: pair[0] or "")]


def is_ordered(node: Items, names: Sequence[str | None]) -> bool:
    """Brackets, or different names (x = 1, y = 2), or dots, make the order count."""
    dots = any(isinstance(item, Formula) and item.text.strip() == r"\ldots" for item in node.items)
    # x_1 and x_2 are solutions, x and y are coordinates, Tom and Ann in no order
    bases = {name.partition("_")[0] for name in names if name is not None and not re.fullmatch(r"[A-Z]?[a-z]{2,}", name)}
    return node.brackets not in ("", "{}") or dots or (None not in names and len(bases) > 1)


def may_be_interval(node: Items) -> bool:
    """[2, 5], but not [5, 2]."""
    if node.brackets != "[]" or len(node.items) != 2 or not all(is_constant(item) for item in node.items):
        return False
    low, high = (formula(unit_off(item.text)[0]) for item in node.items if isinstance(item, Formula))
    return bool(low.is_real and high.is_real and low.evalf() < high.evalf())


def holds_sets(node: Items) -> bool:
    return any(isinstance(item, Items) and item.brackets == "{}" for item in node.items)


def as_point(node: Node, *, beside: Node) -> Node:
    """Beside a point or a vector: (2, 3) of P(2, 3), (2, -1) of 2i - j."""
    length = len(cells(beside) or ())
    if not isinstance(node, Formula) or length < 2:
        return node
    if named := _POINT.fullmatch(node.text):
        return read(named.group(1))
    if length > 3 or len(set(_UNIT_VECTOR.findall(node.text))) < 2:
        return node
    expression = formula(_UNIT_VECTOR.sub(r"v_{\1}", node.text))
    axes = [Symbol(f"v_{letter}") for letter in "ijk"[:length]]
    parts = [expression.diff(axis) for axis in axes]
    if expression.subs(dict.fromkeys(axes, 0)) != 0 or any(part.has(*axes, Symbol("v_k")) for part in parts):
        return node
    return Items("()", tuple(Formula(latex(part)) for part in parts))


def as_matrix(node: Node) -> Node:
    """[[1, 2], [3, 4]] as a matrix."""
    if not (isinstance(node, Items) and node.brackets in ("()", "[]") and len(node.items) > 1):
        return node
    rows = [item.items for item in node.items if isinstance(item, Items) and item.brackets == node.brackets]
    return Matrix(tuple(rows)) if len(rows) == len(node.items) and len({len(row) for row in rows}) == 1 else node


def cells(node: Node) -> list[Node] | None:
    """Cells row by row; a tuple is a vector, written as a row or a column."""
    if isinstance(node, Matrix):
        return [cell for row in node.rows for cell in row]
    return list(node.items) if isinstance(node, Items) and node.brackets in ("()", "[]") else None


def is_line(node: Node) -> bool:
    return not isinstance(node, Matrix) or len(node.rows) == 1 or len(node.rows[0]) == 1
