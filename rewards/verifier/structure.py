r"""What an answer is made of: lists, tuples, sets, intervals, matrices, relations, and formulas without any of these.

A reader of tidied LaTeX that splits at brackets, commas, "and", relation signs and matrix rows; nothing is evaluated. Formulas stay text.
Simplifications: (a, b) is a pair until it is compared with an interval; sets of sets and quantifiers are not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MAX_DEPTH = 12


@dataclass(frozen=True)
class Formula:
    """A text without separators or relation signs: a number, a term, or words."""

    text: str


@dataclass(frozen=True)
class Items:
    r"""Things in a row. `brackets` is "" (a bare list), "&" (inequalities joined by "and"), "()", "[]", "(]", "[)" or "{}"."""

    brackets: str
    items: tuple[Node, ...]


@dataclass(frozen=True)
class Relation:
    """Parts joined by signs of = < > <= >= != ~ in, e.g. 1 < x <= 2."""

    parts: tuple[Node, ...]
    signs: tuple[str, ...]
    text: str = ""


@dataclass(frozen=True)
class Union:
    r"""Sets joined by \cup, or conditions joined by "or"; `without` is what \setminus takes away."""

    parts: tuple[Node, ...]
    without: Node | None = None


@dataclass(frozen=True)
class Matrix:
    """Rows of equal length."""

    rows: tuple[tuple[Node, ...], ...]


Node = Formula | Items | Relation | Union | Matrix

_TOKEN = re.compile(r"\\begin\{\w+\*?\}|\\end\{\w+\*?\}|\\text\s*\{[^{}]*\}|\\[a-zA-Z]+|\\.|.", re.DOTALL)
_OPEN, _CLOSE = ("(", "[", "{", r"\{"), (")", "]", "}", r"\}")
_JOINT = re.compile(r",?\s*\\text\s*\{\s*,?\s*(?:and|or)\s*\}|,?\s*(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])\s*")
_OR_JOINT = re.compile(r",?\s*(?:\\text\s*\{\s*,?\s*or\s*\}|(?<![a-zA-Z\\])or(?![a-zA-Z]))")
_AND = re.compile(r"(?<![a-zA-Z\\])and(?![a-zA-Z])")
_ORDER = frozenset({"<", ">", "<=", ">="})
_SIGNS = {
    "=": "=", "<": "<", ">": ">", r"\le": "<=", r"\ge": ">=", r"\ne": "!=", r"\approx": "~", r"\in": "in", r"\equiv": "=", r"\to": "to"
}  # fmt: skip
_MATRIX = re.compile(r"(?s)\\begin\{(?:[pb]?matrix|smallmatrix|array)\}(?:\{[lcr|\s]*\})?(.*)\\end\{(?:[pb]?matrix|smallmatrix|array)\}")  # fmt: skip
_CASES = re.compile(r"\\begin\{(?:cases|aligned|array|align\*?)\}(.*)\\end\{(?:cases|aligned|array|align\*?)\}", re.DOTALL)
_TRANSPOSED = re.compile(r"(.*[)\]}])\s*\^\s*\{?\s*(?:T|\\top|\\text\{T\})\s*\}?", re.DOTALL)
_PM = re.compile(r"\\pm(?![a-zA-Z])")
_EITHER_SIGN = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")
_IF = re.compile(r"^,?\s*(?:(\\text\s*\{)\s*,?\s*)?(?:if|for|when|where)(?![a-zA-Z])\s*\}?")
_LABEL = re.compile(
    r"^(?:\\text\s*\{\s*([A-Za-z][a-z]{1,20})\s*(?:\}\s*:|:\s*\}|\sis\s*\})|([A-Z][a-z]{1,20}|[a-z]{3,20})\s*:(?=\s*[^\s}]))\s*"
)  # Tom: 15
_OR = re.compile(r"(?<![a-zA-Z\\])or(?![a-zA-Z])")
_BUILDER = re.compile(r"^\s*[a-zA-Z]\s*(?:\\in\s*\\mathbb\{R\}\s*)?[|:](.*)$", re.DOTALL)


def _tokens(text: str) -> list[tuple[str, int]]:
    """Tokens and the bracket depth they stand at (a bracket: the depth outside it). Bars are not brackets."""
    tokens, depth = [], 0
    for token in _TOKEN.findall(text):
        if token in _CLOSE or token.startswith(r"\end"):
            depth -= 1
        tokens.append((token, depth))
        if token in _OPEN or token.startswith(r"\begin"):
            depth += 1
    return tokens


def _split(text: str, separators: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Pieces between the separators that stand outside all brackets, and the separators met."""
    pieces, met = [""], []
    for token, depth in _tokens(text):
        if depth == 0 and token in separators:
            met.append(token)
            pieces.append("")
        else:
            pieces[-1] += token
    return pieces, met


def _enclosed(text: str) -> tuple[str, str] | None:
    """Brackets and content of a text that one pair of brackets encloses whole."""
    tokens = _tokens(text)
    if len(tokens) < 2 or tokens[0][0] not in ("(", "[", r"\{") or tokens[-1][0] not in (")", "]", r"\}"):
        return None
    if any(depth <= 0 for _, depth in tokens[1:-1]):
        return None
    first, last = tokens[0][0], tokens[-1][0]
    return first[-1] + last[-1], text[len(first) : len(text) - len(last)]


def read(text: str, depth: int = 0) -> Node:
    """The structure of a tidied text. Never fails: what it cannot take apart is one Formula."""
    text = text.strip().strip("\u2062 ")
    if depth > _MAX_DEPTH:
        return Formula(text)
    for reader in (_read_list, _read_relation, _read_union, _read_signs, _read_transposed, _read_matrix, _read_brackets):
        node = reader(text, depth + 1)
        if node is not None:
            return node
    return Formula(text)


def _read_list(text: str, depth: int) -> Node | None:
    """Semicolons separate before commas, and so does "or" between several equations; else "and" and "or" separate like whichever there is."""
    pieces = _OR_JOINT.split(text)
    if len(pieces) > 1 and all("=" in piece and len(_split(piece, (",",))[0]) > 1 for piece in pieces):
        return Items("", tuple(read(piece.strip(" ,"), depth) for piece in pieces))
    for separator in (";", ","):
        if separator == "," or _split(text, (";",))[1]:
            pieces, met = _split(_JOINT.sub(separator, text), (separator,))
            pieces = [piece for piece in pieces if piece.strip()]
            if met and pieces:
                items = tuple(item for piece in pieces for item in _both_signs(read(piece, depth), piece))
                relations = all(isinstance(item, Relation) for item in items) and any(_is_condition(item) for item in items)
                if len(items) > 1 and relations and _OR.search(text):  # x < 1 or x = 2
                    return Union(items)
                return items[0] if len(items) == 1 else Items("&" if _is_joint(items, text) else "", items)
    return None


def _both_signs(node: Node, text: str) -> tuple[Node, ...]:
    r"""The two values of \pm 1 in a list."""
    return node.items if _PM.search(text) and isinstance(node, Items) and node.brackets == "" else (node,)


def _is_joint(items: tuple[Node, ...], text: str) -> bool:
    r"""Whether conditions hold together: joined by "and", or by commas where one of them only leaves something out (x > 0, x \ne 1)."""
    if not all(_is_condition(item) for item in items):
        return False
    return len(_AND.findall(text)) == len(items) - 1 or any(isinstance(item, Relation) and item.signs == ("!=",) for item in items)


def _is_condition(node: Node) -> bool:
    r"""x > 1, x \ne 1 or x \in \mathbb{R}."""
    if not isinstance(node, Relation):
        return False
    return bool(_ORDER & set(node.signs)) or node.signs == ("!=",) or (node.signs == ("in",) and node.parts[1] == Formula(r"\mathbb{R}"))


def _read_relation(text: str, depth: int) -> Node | None:
    pieces, signs = _split(_LABEL.sub(r"\1\2 = ", text), tuple(_SIGNS))
    if not signs or not all(piece.strip() for piece in pieces) or r"\to" in signs:
        return None
    return Relation(tuple(read(piece, depth) for piece in pieces), tuple(_SIGNS[sign] for sign in signs), text)


def _read_union(text: str, depth: int) -> Node | None:
    pieces, met = _split(text, (r"\cup", r"\bigcup"))
    if not met and re.search(r"[\])}]\s*U\s*[\[({\\]", text):
        pieces, met = _split(text, ("U",))
    if met:
        return Union(tuple(read(piece, depth) for piece in pieces))
    pieces, met = _split(text, (r"\setminus",))
    if not met and text.startswith((r"\mathbb", "(-", "[", r"\{")):
        pieces, met = _split(text, ("-",))
        met = met if pieces[-1].strip().startswith(r"\{") else []
    if len(met) == 1 and pieces[0].strip():
        return Union((read(pieces[0], depth),), without=read(pieces[1], depth))
    return None


def _read_signs(text: str, depth: int) -> Node | None:
    r"""\pm stands for two values."""
    if not _PM.search(text) or _enclosed(text) is not None:
        return None
    return Items("", tuple(read(each.removeprefix("+"), depth) for each in _with_signs(text)))


def _with_signs(text: str, count: int = 0) -> tuple[str, str]:
    """A text with its upper and with its lower signs: of the first `count`, or of all."""
    upper = _EITHER_SIGN.sub(lambda match: " + " if match.group() == r"\pm" else " - ", text, count=count)
    lower = _EITHER_SIGN.sub(lambda match: " - " if match.group() == r"\pm" else " + ", text, count=count)
    return " ".join(upper.split()), " ".join(lower.split())


def _read_transposed(text: str, depth: int) -> Node | None:
    """A row that is meant as a column: (1, 2)^T."""
    match = _TRANSPOSED.fullmatch(text)
    node = read(match.group(1), depth) if match else None
    if isinstance(node, Matrix):
        return Matrix(tuple(zip(*node.rows, strict=True)))
    return node if isinstance(node, Items) and node.brackets in ("()", "[]") else None


def _read_matrix(text: str, depth: int) -> Node | None:
    enclosed = _enclosed(text)
    match = _MATRIX.fullmatch(enclosed[1].strip() if enclosed and enclosed[0] in ("()", "[]") else text)
    if match and not re.search(r"\\(?:begin|end)", match.group(1)):
        rows = [row for row in re.split(r"\\\\(?:\[\w*\])?", match.group(1)) if row.strip(" \n")]
        cells = tuple(tuple(read(cell, depth) for cell in row.split("&")) for row in rows)
        return Matrix(cells) if cells and len({len(row) for row in cells}) == 1 else None
    begin = text.find(r"\begin{")
    whole = _read_matrix(text[begin:], depth) if begin > 0 and _MATRIX.fullmatch(text[begin:]) else None
    if isinstance(whole, Matrix):
        factor = text[:begin].strip().removesuffix(r"\cdot")
        factor = f"{factor}1" if factor in "+-" else factor
        rows = [[Formula(rf"({factor})\cdot({cell.text})") if isinstance(cell, Formula) else cell for cell in row] for row in whole.rows]
        return Matrix(tuple(map(tuple, rows)))
    match = _CASES.fullmatch(text)
    if match and not re.search(r"\\(?:begin|end)", match.group(1)):
        return Items("", tuple(_read_case(row, depth) for row in re.split(r"\\\\", match.group(1)) if row.strip()))
    return None


def _read_case(row: str, depth: int) -> Node:
    r"""A line of \begin{cases}: a value and its condition as a pair, or an equation with its sign behind the "&"."""
    value, _, condition = row.partition("&")
    if not condition.strip() or _split(condition, tuple(_SIGNS))[0][0].strip() == "":
        return read(row.replace("&", " "), depth)
    return Items("()", (read(value.strip().rstrip(","), depth), read(_IF.sub(_without_if, condition.strip().rstrip(",.")), depth)))


def _without_if(match: re.Match[str]) -> str:
    return "" if match.group().endswith("}") else match.group(1) or ""


def _read_brackets(text: str, depth: int) -> Node | None:
    enclosed = _enclosed(text)
    if enclosed is None:
        return None
    brackets, inside = enclosed
    if brackets == "{}":
        if builder := _BUILDER.match(inside):
            return read(builder.group(1), depth)
        node = read(inside, depth)
        if isinstance(node, Items) and node.brackets == "":
            return Items("{}", node.items)
        return Items("{}", (node,) if inside.strip() else ())
    if brackets not in ("()", "[]", "(]", "[)"):
        return None
    if "," in inside and brackets == "()" and 1 <= len(_PM.findall(inside)) <= 3 and (r"\mp" not in inside or inside.count(r"\pm") == 1):
        points = [inside]
        while _PM.search(points[0]):  # each sign for itself
            points = [each for point in points for each in _with_signs(point, 0 if r"\mp" in inside else 1)]
        return Items("", tuple(read(f"({point})", depth) for point in points))
    node = read(inside, depth)
    if brackets == "[]" and ";" in inside and isinstance(node, Items) and len(node.items) > 1:  # [1, 2; 3, 4]
        rows = [row.items for row in node.items if isinstance(row, Items) and row.brackets == ""]
        if len(rows) == len(node.items) and len({len(row) for row in rows}) == 1:
            return Matrix(tuple(rows))
    if isinstance(node, Items) and node.brackets == "":
        return Items(brackets, node.items) if not _PM.search(inside) or "," in inside else node
    return node if brackets in ("()", "[]") else None
