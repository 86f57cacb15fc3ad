"""What the schema allows, in plain words: every key with its type, default and description, and the nearest name to a wrong one.

Everything here is read off `recipes/schema.py`; nothing is written twice.
"""

from __future__ import annotations

import math
import types
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from recipes.schema import Recipe, Section
from recipes.stages import Stage

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "multiple_of": "a multiple of", "pattern": "matching"}

_LATER = "stages[sft].data"  # its items have the keys of data.train's, which comes behind it


@dataclass(frozen=True)
class Key:
    """One key of the schema.

    Attributes:
        name: dotted; `[]` stands for an item of a list, `[truncate]` for a reward term of that kind.
        allowed: type and range in words.
        default: as Python holds it; None stands for null, `...` for required.
    """

    name: str
    allowed: str
    default: Any
    description: str

    @property
    def default_text(self) -> str:
        """The default as one line of YAML, "needed" if there is none."""
        if self.default is ...:
            return "needed"
        items = self.default if isinstance(self.default, list) else [self.default]
        plain = [as_written(item) for item in items]
        text = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=math.inf).strip()
        return text if isinstance(self.default, list) else text[1:-1]


def as_written(item: Any) -> Any:
    """A default as a recipe would say it: a stage by its kind, any other section as a mapping."""
    return item.kind if isinstance(item, Stage) else item.model_dump() if isinstance(item, Section) else item


def keys() -> list[Key]:
    """Every key, in the schema's order."""
    return list(_walk(Recipe, "", set()))


def sections() -> list[str]:
    """Dotted names of the mappings that hold keys."""
    parents = (key.name.rpartition(".")[0] for key in keys())
    return list(dict.fromkeys(name for name in parents if name and "[" not in name))


def allowed(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """Type and range of a field in words: "a whole number, at least 1", "one of k1, k2, k3", "text or null"."""
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if origin is Annotated:
        more = [item for extra in arguments[1:] for item in (extra.metadata if isinstance(extra, FieldInfo) else [extra])]
        return allowed(arguments[0], [*metadata, *more])
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if kinds_of(annotation):
        return "a mapping of keys"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys("null" if argument is types.NoneType else allowed(argument, metadata) for argument in arguments))
    if origin is list:
        least = next((bound.min_length for bound in metadata if hasattr(bound, "min_length")), 0)
        return (f"a list (at least {least}) of " if least else "a list of ") + _items(arguments[0])
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, Section)):
        return "a mapping of keys"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[annotation]
    ranges = [f"{_BOUNDS[name]} {bound if name == 'pattern' else format(bound, 'g')}" for name, bound in _bounds(metadata)]
    return f"{words}, {' and '.join(ranges)}" if ranges else words


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known dotted name most like `name`: one of its section with a similar last part (of the same kind there, else of any), else the same last
    part under another section, else the most similar spelling, which must be nearer where the section is known; else None."""
    known = list(known)
    section, _, leaf = name.rpartition(".")

    def likeness(other: str) -> float:
        its_section, _, its_leaf = other.rpartition(".")
        return _ratio(section, its_section) + 2 * _ratio(leaf, its_leaf)

    def alike(other: str) -> float:
        return _ratio(leaf, other.rpartition(".")[2])

    of_kind = [other for other in known if other.rpartition(".")[0] == section]
    beside = [other for other in known if other.rpartition(".")[0].partition("[")[0] == section.partition("[")[0]]
    near = next(filter(None, ([other for other in pool if alike(other) >= 0.6] for pool in (of_kind, beside))), [])
    same_leaf = [other for other in known if other.rpartition(".")[2] == leaf]
    best = max(near or same_leaf or known, key=likeness, default=None)
    return best if best is not None and (near or same_leaf or alike(best) >= (0.8 if beside else 0.6)) else None


def kinds_of(annotation: Any) -> dict[str, type[Section]]:
    """The sections by their `kind`, where a value is one of several kinds; else none."""
    annotation = _bare(annotation)
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()
    plain = [_bare(member) for member in members]
    if not plain or not all(isinstance(member, type) and "kind" in getattr(member, "model_fields", ()) for member in plain):
        return {}
    return {get_args(member.model_fields["kind"].annotation)[0]: member for member in plain}


def inside(annotation: Any, part: str | int, value: Any = None) -> Any:
    """What the schema says of a part of a value, its bounds among it: a key of a section, an item of a list, a value of a mapping; None if it says nothing.

    Args:
        value: of which this is a part, if it is known: its `kind` decides where there are several.
    """
    annotation = _bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        field = annotation.model_fields.get(str(part))
        return None if field is None else Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    if kinds := kinds_of(annotation):
        kind = value.get("kind") if isinstance(value, dict) else None
        known = [kinds[kind]] if isinstance(kind, str) and kind in kinds else list(kinds.values())
        return next(filter(None, (inside(section, part) for section in known)), None)
    if get_origin(annotation) in (list, dict):
        return get_args(annotation)[-1]
    return next(filter(None, (inside(member, part, value) for member in get_args(annotation))), None)


def _walk(section: type[Section], prefix: str, said: set[type[Section]], without: Container[str] = ()) -> Iterator[Key]:
    """The keys of a section. `said`: kinds and items whose keys came before, under the slot or list that had them first."""
    for name, field in section.model_fields.items():
        if name in without:
            continue
        dotted = prefix + name
        annotation: Any = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from _walk(annotation, f"{dotted}.", said)
            continue
        if kinds := kinds_of(annotation):
            said |= {*kinds.values()}
            first, *_ = kinds.values()
            common = set.intersection(*(set(kind.model_fields) for kind in kinds.values())) - {"kind"}
            yield Key(f"{dotted}.kind", "one of " + ", ".join(kinds), first.model_fields["kind"].default, _summary(kinds))
            yield from _walk(first, f"{dotted}.", said, set(first.model_fields) - common)
            for name_of, kind in kinds.items():
                yield from _walk(kind, f"{dotted}[{name_of}].", said, common | {"kind"})
            continue
        yield Key(dotted, allowed(annotation, field.metadata), ... if field.is_required() else field.default, field.description or "")
        items = kinds_of(get_args(annotation)[-1]) if get_origin(annotation) in (list, dict) else {}
        parts: dict[str, type[Section] | None] = {f"{dotted}[{name_of}].": kind for name_of, kind in items.items()}
        for place, part in (parts or {f"{dotted}[].": item_section(annotation)}).items():
            if part and part not in said and dotted != _LATER:
                said.add(part)
                yield from _walk(part, place, said)


def _summary(kinds: Mapping[str, type[Section]]) -> str:
    """What each kind is, in one sentence each."""
    return " ".join(f"`{name}`: {kind.model_fields['kind'].description}" for name, kind in kinds.items())


def item_section(annotation: Any) -> type[Section] | None:
    """The section that items of a list are written as, also where they, or the list, may be a plain text; None if there is none."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, Section) else None
    return next(filter(None, map(item_section, get_args(annotation))), None)


def _items(item: Any) -> str:
    if get_origin(item) is Literal:
        return ", ".join(map(str, get_args(item)))
    if (kinds := kinds_of(item)) and any(isinstance(extra, BeforeValidator) for extra in get_args(item)):
        return f"{', '.join(kinds)}, or mappings of such a kind"
    if get_origin(item) is Annotated and {str} & set(map(_bare, get_args(get_args(item)[0]))):
        return "texts or mappings"
    return "texts" if _bare(item) is str else "mappings"


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _bounds(metadata: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    for constraint in metadata:
        for name in _BOUNDS:
            if getattr(constraint, name, None) is not None:
                yield name, getattr(constraint, name)


def _ratio(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()
