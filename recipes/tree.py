"""YAML text and `key=value` words as nested plain values that know where each was written, and how later ones are laid over earlier ones.

Mappings merge; lists are replaced whole; a number said for one kind of a slot stays with that kind, wherever in the slot the kind stands (`budget.also`);
`schedule.NAME: null` takes a schedule out.
Simplification: YAML without anchors, tags and second documents, so a recipe reads top to bottom and cannot build objects.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from recipes.budgets import SHARED
from recipes.keys import inside, kinds_of
from recipes.schedules import MOVABLE
from recipes.schema import Recipe
from recipes.section import Section

_MAX_BYTES = 256 * 1024
_MAX_DEPTH = 12
_FURTHER = ("budget", "also")  # the slot of which several kinds hold, and its key for those beside the first

Place = tuple[str | int, ...]


class RecipeError(ValueError):
    """The recipe cannot be used. One line a problem."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain scalars: `no` and `1:30` are text, `1e-5` is a number."""


class Dumper(yaml.SafeDumper):
    """Quotes whatever another YAML reader, or ours, could take for something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.yaml_implicit_resolvers = {}
_FLOAT = re.compile(r"^[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9]\d*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


class Tree:
    """Nested plain values and, for each place in them, where it was written ("file:line"), what was written last at the end."""

    def __init__(self, data: dict[str, Any] | None = None, written: dict[Place, str] | None = None) -> None:
        self.data: dict[str, Any] = data or {}
        self.written: dict[Place, str] = written or {}
        self._aside: dict[tuple[Place, Any], dict[str, Any]] = {}  # what was said for another kind than the present one
        self._of_kind: dict[tuple[Place, str], dict[str, Any]] = {}  # a slot's kinds: all that was last said for each
        self._taken_out: set[Place] = set()
        self.overridden: tuple[str, ...] = ()  # words of one parent that another's took the place of, a sentence each

    def overlay(self, other: Tree) -> None:
        """Lay `other` over this."""
        _drop(self.data.get("on_cuda"), other.data, ())  # what is said later holds on every device
        self._merge(self.data, other.data, other.written, ())

    def where(self, place: Place) -> str | None:
        """Where `place` was written, or the nearest thing around it."""
        return next((self.written[place[:end]] for end in range(len(place), 0, -1) if place[:end] in self.written), None)

    def at(self, place: Place) -> Any:
        """The value at a place; None where there is none."""
        value: Any = self.data
        for part in place:
            value = child(value, part)
        return value

    def take_out(self, place: Place) -> None:
        """Forget a key and where it was written."""
        self.at(place[:-1]).pop(place[-1], None)
        self.written = {at: line for at, line in self.written.items() if at[: len(place)] != place}

    def _merge(self, base: dict[str, Any], over: dict[str, Any], written: dict[Place, str], place: Place) -> None:
        for key, value in over.items():
            here = (*place, key)
            if isinstance(value, dict) and isinstance(base.get(key), dict):
                if here in written:
                    self.written.pop(here, None)
                    self.written[here] = written[here]
                self._turn(base[key], value, here)
                self._merge(base[key], value, written, here)
                continue
            if place == ("schedule",) and value is None and (key in base or here in self._taken_out):
                self._taken_out.add(here)
                self.take_out(here)
                continue
            self.written = {at: line for at, line in self.written.items() if at[: len(here)] != here}
            self.written |= {at: line for at, line in written.items() if at[: len(here)] == here}
            base[key] = copy.deepcopy(value)
            if here[-2:] == _FURTHER and isinstance(value, list):
                base[key] = [self._begun(part, place) if isinstance(part, dict) else part for part in base[key]]

    def _turn(self, base: dict[str, Any], over: Mapping[str, Any], place: Place) -> None:
        """Where `over` says another kind than `base`: lay aside what belongs to the old one, and take up what was said for the new one."""
        kinds = _kinds_at(place)
        further = base.get("also") if place[-1:] == _FURTHER[:1] else None
        for said in [base, *further] if isinstance(further, list) else [base]:
            if isinstance(said, dict) and isinstance(kind := said.get("kind"), str):
                self._of_kind[place, kind] = {name: value for name, value in said.items() if name not in ("kind", "also", *SHARED)}
        new, old = (kind if isinstance(kind, str) else None for kind in (over.get("kind"), base.get("kind")))
        if new not in kinds or new == old:
            return
        other = [name for name in base if name != "kind" and not _shared(name, kinds.get(old or ""), kinds[new])]
        self._aside[place, old] = {name: base.pop(name) for name in other}
        base |= self._aside.pop((place, new), {})
        if isinstance(further, list) and new in [part.get("kind") for part in further if isinstance(part, dict)]:
            base |= self._of_kind[place, str(new)]

    def _begun(self, part: dict[str, Any], place: Place) -> dict[str, Any]:
        """A further kind of a slot: what was said for that kind there before, then its own words."""
        kind, kinds = str(part.get("kind")), _kinds_at(place)
        said = self._of_kind.get((place, kind), {}) if kind in kinds else {}
        return {name: value for name, value in said.items() if name in kinds[kind].model_fields} | part


def _kinds_at(place: Place) -> dict[str, type[Section]]:
    """The kinds of the slot at a place; none where there is no such slot."""
    annotation: Any = Recipe
    for part in place[1:] if place[0] == "on_cuda" else place:
        annotation = inside(annotation, part)
    return kinds_of(annotation)


def _shared(name: str, one: type[Section] | None, other: type[Section]) -> bool:
    """Whether a number means the same for two kinds: both have it from one class. Where the first is not known: whether the other has it."""
    homes = [[home for home in kind.__mro__ if name in vars(home).get("__annotations__", ())][:1] for kind in (one, other) if kind]
    return homes[0] == homes[-1] != []


def _drop(base: Any, said: dict[str, Any], place: Place) -> None:
    """Take out of nested `base` what `said` has, too, and what another kind than that of `said` alone has."""
    for key in base.keys() & said.keys() if isinstance(base, dict) else ():
        here = (*place, key)
        if isinstance(base[key], dict) and isinstance(said[key], dict):
            kinds, old, new = _kinds_at(here), base[key].get("kind"), said[key].get("kind")
            if isinstance(new, str) and new in kinds and new != old:
                for name in [name for name in base[key] if name != "kind" and not _shared(name, kinds.get(str(old)), kinds[new])]:
                    del base[key][name]
            _drop(base[key], said[key], here)
        else:
            del base[key]


def read(path: Path, label: str) -> str:
    """A file's text; RecipeError where it cannot be read, is too large or no text."""
    try:
        content = path.read_bytes()[: _MAX_BYTES + 1] if path.is_file() else None
    except OSError as error:
        raise RecipeError(f"{label}: cannot be read: {error.strerror}") from error
    if content is None:
        raise RecipeError(f"{label}: no such file")
    if len(content) > _MAX_BYTES:
        raise RecipeError(f"{label}: larger than {_MAX_BYTES // 1024} KiB, which no recipe is")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{label}: not UTF-8 text (byte {error.start})") from error


def parse(text: str, label: str) -> Tree:
    """YAML text to a tree; refuses whatever is not plain nested values."""
    written: dict[Place, str] = {}
    try:
        _refuse_tricks(text, label)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else 1
        raise RecipeError(f"{label}:{line}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{label}: not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(root, yaml.MappingNode):
        raise RecipeError(f"{label}: needs `key: value` lines, found {'nothing' if root is None else 'something else'}")
    return Tree(_plain(root, (), label, written), written)


def _refuse_tricks(text: str, label: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        mark = event.start_mark
        line = mark.line + 1 if mark else 1
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > _MAX_DEPTH:
                raise RecipeError(f"{label}:{line}: nested more than {_MAX_DEPTH} deep")
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise RecipeError(f"{label}:{line}: anchors and aliases are not used in recipes; `extends` shares what is common")
        if tag := getattr(event, "tag", None):
            raise RecipeError(f"{label}:{line}: tags ({tag}) are not used in recipes")


def _plain(node: yaml.Node, place: Place, label: str, written: dict[Place, str]) -> Any:
    """A node as dict, list or scalar; notes where each part was written."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            written[(*place, index)] = f"{label}:{item.start_mark.line + 1}"
        return [_plain(item, (*place, index), label, written) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node.tag, node.value)
    mapping: dict[str, Any] = {}
    for key, value in node.value:
        at = f"{label}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise RecipeError(f"{at}: a key must be a name")
        here = (*place, key.value)
        if key.value in mapping:
            raise RecipeError(f"{at}: {dotted(here)}: written twice (first at {written[here]})")
        written[here] = at
        mapping[key.value] = _plain(value, here, label, written)
    return mapping


def _scalar(tag: str, text: str) -> Any:
    match tag.rpartition(":")[2]:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int" if len(text) <= 20:
            return int(text)
        case "float":
            return float(text)
    return text


def refuse_undecoded(word: str, label: str) -> None:
    """Raise RecipeError where a word of the command line holds bytes that the locale's encoding has no letters for."""
    try:
        word.encode()
    except UnicodeEncodeError as error:
        here = sys.getfilesystemencoding()
        remedy = "write it in that" if here == "utf-8" else "set another (LC_ALL=C.UTF-8, say)"
        raise RecipeError(f"{label}: holds bytes that are no text in this terminal's encoding, {here}; {remedy}") from error


def override(word: str) -> Tree:
    """`a.b=value` as a tree. The value is a plain scalar, or YAML if it opens a list, a mapping or a quote."""
    name, equals, text = word.partition("=")
    label = f"-- {' '.join(word.split())}"
    refuse_undecoded(word, label)
    places = places_of(name.strip())
    if not equals or not all(places):
        raise RecipeError(f"{label}: not an override; write key=value, e.g. learner.lr=1e-5")
    text = text.strip()
    if text[:1] in ("[", "{", '"', "'"):
        parsed = parse(f"value: {text}", label)
        if list(parsed.data) != ["value"]:
            raise RecipeError(f"{label}: holds more than one value")
        value = parsed.data["value"]
        inner = {place[1:]: label for place in parsed.written}
    else:
        value, inner = _scalar(_Loader("").resolve(yaml.ScalarNode, text, (True, False)), text), {}
    return below(places, value, label, inner)


def below(places: Sequence[str], value: Any, line: str | None, inner: Mapping[Place, str]) -> Tree:
    """A tree of one value alone, at the end of these places.

    Args:
        line: where these were written, as far as that is known.
        inner: where what lies in the value was, by its place there.
    """
    written: dict[Place, str] = {tuple(places[:end]): line for end in range(1, len(places) + 1)} if line else {}
    for place in reversed(places):
        value = {place: value}
    return Tree(value, written | {(*places, *place): at for place, at in inner.items()})


def places_of(name: str) -> list[str]:
    """The parts of a dotted key: `budget.limit` is budget, limit; `schedule.budget.limit.to` is schedule, budget.limit, to."""
    places = name.split(".")
    if places[0] != "schedule":
        return places
    length = next((number.count(".") + 1 for number in MOVABLE if f"{'.'.join(places[1:])}.".startswith(f"{number}.")), 2)
    length = 3 if places[1:2] == ["reward"] else length  # its own keys are names of numbers, with their dots
    return ["schedule", *filter(None, [".".join(places[1 : 1 + length])]), *places[1 + length :]]


def child(value: Any, part: Any) -> Any:
    """A part of a list or mapping; None of anything else."""
    return value[part] if isinstance(value, list) else value.get(part) if isinstance(value, dict) else None


def dotted(place: Place) -> str:
    """`reward[1].keep`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
