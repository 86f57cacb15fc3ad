"""What a recipe comes to with all that it extends: every file's own words once, in one order; what conflicts is refused by name.

The order: bases (files that nothing comes before: `grpo`, `dler`), those that a list names itself after those that are only inherited; then
each file after what it extends and after what its list names before it. So what one parent only inherits never overrides what another says.
Of two parents' own chains, lists, kinds and schedules of a number that differ conflict, wherever they stand (`on_cuda` too): nothing could be merged of them.
What a parent has of its base alone, and another parent's base overrides, is said as well.
Of other words that differ (sampler.keep_groups, data.instruction), and sets of data, the later parent's hold, and the tree says which were overridden (not by
a scale, which is to do that); of numbers the later one holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from recipes.explain import faults
from recipes.keys import inside
from recipes.library import find
from recipes.schema import Recipe
from recipes.stages import refuse_twice
from recipes.tree import Place, RecipeError, Tree, dotted, parse, places_of, read

_SETS: tuple[Place, ...] = (("data", "train"), ("eval", "data"))


@dataclass(frozen=True)
class _File:
    """A recipe file: its own words, the files that it extends, where it says so, and what messages call it."""

    said: Tree
    parents: tuple[Path, ...]
    at: str
    label: str


_Family = Mapping[Path, _File]


def composed(path: Path, label: str, over: Sequence[Tree] = ()) -> Tree:
    """A file with all that it extends, and `over` (scale, command line) laid over it.

    Raises:
        RecipeError: a file cannot be read, extends itself, says what nothing laid over it makes right, or its parents conflict.
    """
    family: dict[Path, _File] = {}
    _collect(path, label, (), family)
    order = _order(path.resolve(), family)
    differences = [found for file in order for found in _differences(file, order, family, over)]
    conflicts = [line for conflict, line in differences if conflict]
    own = [line for file in order for line in faults(family[file].said, family[file].label, unknown=bool(conflicts))]
    if own or conflicts:  # a key that says nothing settles none
        raise RecipeError("\n".join(own or conflicts))
    layers = [*(family[file].said for file in order), *over]
    sees = [{order.index(one) for one in _ancestors(file, family)} for file in order]
    sees += [set(range(index)) for index in range(len(order), len(layers))]
    tree = Tree()
    lost = [line for file in order for line in _lost_with_a_base(file, order, family, over)]
    tree.overridden = tuple(dict.fromkeys([*(line for _, line in differences), *lost]))
    for layer in layers:
        tree.overlay(layer)
    if not _waiver_holds(layers, sees):
        tree.take_out(("waive",))
    return tree


def _collect(path: Path, label: str, chain: tuple[Path, ...], family: dict[Path, _File]) -> None:
    """Read a file and what it extends, each once, parents first."""
    key = path.resolve()
    if key in chain:
        names = " -> ".join(link.stem for link in (*chain, path))
        raise RecipeError(f"{label}: extends itself: {names}")
    if key in family:
        return
    said = nested(parse(read(path, label), label))
    extends = said.data.pop("extends", [])
    at = said.written.pop(("extends",), label)
    said.written = {place: line for place, line in said.written.items() if place[0] != "extends"}
    parents = []
    for parent in [extends] if isinstance(extends, str) else extends if isinstance(extends, list) else [None]:
        if not isinstance(parent, str):
            raise RecipeError(f"{at}: extends: {extends!r} is not allowed; needs the name of a recipe, or a list of names")
        try:
            found, its_label = find(parent, "recipe", path.parent)
        except RecipeError as error:
            raise RecipeError(f"{at}: extends: {error}") from error
        _collect(found, its_label, (*chain, key), family)
        parents.append(found.resolve())
    family[key] = _File(said, tuple(dict.fromkeys(parents)), at, label)


def nested(said: Tree) -> Tree:
    """Words of a file or of the command line with the dotted keys under `on_cuda` as nested ones, so that a place has one name.

    Raises:
        RecipeError: a key is said in both ways.
    """
    changes = said.data.get("on_cuda")
    if not isinstance(changes, dict):
        return said
    try:
        refuse_twice("on_cuda", changes)
    except ValueError as error:
        raise RecipeError(f"{said.where(('on_cuda',))}: {error}") from error
    for name in [name for name in changes if "." in name and all(places_of(name))]:
        value, old, new = changes.pop(name), ("on_cuda", name), ("on_cuda", *places_of(name))
        split = Tree()
        split.written = {(*new, *place[2:]): line for place, line in said.written.items() if place[:2] == old}
        split.written |= {new[:end]: said.written[old] for end in range(2, len(new))}
        said.written = {place: line for place, line in said.written.items() if place[:2] != old}
        for part in reversed(new):
            value = {part: value}
        split.data = value
        said.overlay(split)
    return said


def _order(top: Path, family: _Family) -> list[Path]:
    """All files in the order in which their words are laid over each other."""
    before = _before(family)
    bases = [base for base in _roots(top, family) if not before[base]]
    waiting = [*bases, *(file for file in family if file not in bases)]
    order: list[Path] = []
    while waiting:
        ready = next((file for file in waiting if before[file] <= set(order)), None)
        if ready is None:
            names = ", ".join(file.stem for file in waiting)
            raise RecipeError(f"{family[top].at}: extends: these recipes name each other in different orders: {names}; name them in one")
        order.append(ready)
        waiting.remove(ready)
    return order


def _before(family: _Family) -> dict[Path, set[Path]]:
    """What must come before each file: what it extends, and what a list names before it."""
    before = {name: set(file.parents) for name, file in family.items()}
    for file in family.values():
        for index, later in enumerate(file.parents):
            for earlier in file.parents[:index]:
                if later in _ancestors(earlier, family):
                    raise RecipeError(
                        f"{file.at}: extends: {earlier.stem} extends {later.stem} already; leave {later.stem} out, or name it first"
                    )
                before[later].add(earlier)
    return before


def _roots(name: Path, family: _Family) -> list[Path]:
    """Files that extend nothing, among a file and its ancestors: those that it names itself after those that it inherits."""
    parents = family[name].parents
    named = [parent for parent in parents if not family[parent].parents]
    inherited = [root for parent in parents if parent not in named for root in _roots(parent, family)]
    return list(dict.fromkeys([*inherited, *named])) if parents else [name]


def _ancestors(name: Path, family: _Family) -> set[Path]:
    parents = family[name].parents
    return set(parents).union(*(_ancestors(parent, family) for parent in parents))


def _differences(name: Path, order: Sequence[Path], family: _Family, over: Sequence[Tree]) -> list[tuple[bool, str]]:
    """What several parents of a file say differently, and neither it nor anything after it settles: whether that is a conflict, and a line each."""
    parents = family[name].parents
    before = _before(family)
    own = [file for file in order if file in _ancestors(name, family) and (before[file] or file in parents)] if len(parents) > 1 else []
    later = [*(family[file].said for file in order if file == name or name in _ancestors(file, family)), *over]
    found: dict[Place, tuple[bool, str]] = {}
    for place in dict.fromkeys(place for file in own for place in _held(family[file].said.data)):
        sayers = [file for file in own if _says(family[file].said, place)]
        last = [file for file in sayers if not any(file in _ancestors(other, family) for other in sayers)]
        values = [_value(place, family[file].said.at(place)) for file in last]
        other = next((file for file, value in zip(last, values, strict=True) if value != values[-1]), None)
        settles = [place, *([("reward",)] if place == ("waive",) else []), *([place[1:]] if place[0] == "on_cuda" and place[1:] else [])]
        settled = any(_says(tree, one) for tree in later for one in settles)
        kind = (*place[:-1], "kind")  # what else is said in a slot goes with its kind
        with_kind = kind in found or (kind != place and any(_says(tree, kind) for tree in later))
        if other is None or settled or with_kind or (place == ("waive",) and ("reward",) in found):
            continue
        names = [f"{file.stem} ({family[file].said.where(place)})" for file in (other, last[-1])]
        settle = f"write {dotted(place)} in {name.stem} to settle it" + ", and the other kind in budget.also, where both are to hold" * (
            place[-2:] == ("budget", "kind")
        )
        if place not in _SETS and (place[-1] == "kind" or any(isinstance(value, list | dict) for value in values)):
            found[place] = True, f"{family[name].at}: extends: {' and '.join(names)} each say their own {dotted(place)}; {settle}"
        elif last[-1].parent.name != "scales" and any(isinstance(value, str | bool | None | list) for value in values):
            said = [json.dumps(family[file].said.at(place)) for file in (other, last[-1])]
            found[place] = False, f"extends: {dotted(place)}: {said[1]} of {names[1]} holds, not {said[0]} of {names[0]}; {settle}"
    return list(found.values())


def _lost_with_a_base(name: Path, order: Sequence[Path], family: _Family, over: Sequence[Tree]) -> Iterator[str]:
    """A line for each word, kind or list that a parent has of its base alone, and that another parent's base overrides here; numbers are not told."""
    parents = family[name].parents
    if len(parents) < 2:
        return
    before, lines = _before(family), [{parent, *_ancestors(parent, family)} for parent in parents]
    here = set().union(*lines)
    bases = [file for file in order if file in here and not before[file]]
    saying = [family[file].said for file in order if file in here and file not in bases]
    later = [*(family[file].said for file in order if file == name or name in _ancestors(file, family)), *over]
    for place in dict.fromkeys(place for base in bases for place in _held(family[base].said.data)):
        kind = (*place[:-1], "kind")
        if any(_says(tree, one) for tree in [*saying, *later] for one in (place, kind)):
            continue
        said = {base: family[base].said.at(place) for base in bases if _says(family[base].said, place)}
        holds = [base for base in bases if base in said][-1]
        if holds in parents:  # named in place of what the others are based on
            continue
        for parent, line in zip(parents, lines, strict=True):
            own = next((base for base in reversed(bases) if base in line and base in said), None)
            if (
                own is None
                or _value(place, said[own]) == _value(place, said[holds])
                or (isinstance(said[holds], int | float) and not isinstance(said[holds], bool))
            ):
                continue
            yield (
                f"extends: {dotted(place)}: {json.dumps(said[holds])} of {holds.stem} holds, not {json.dumps(said[own])} of {own.stem}, "
                f"which {parent.stem} is based on; say {dotted(place)} to settle it"
            )


def _value(place: Place, said: Any) -> Any:
    """What a list or mapping that was said comes to, so that 1 is 1.0, and a number left out its default; as it stands where it is not allowed."""
    if not isinstance(said, list | dict):
        return said
    annotation: Any = Recipe
    for part in place[1:] if place[0] == "on_cuda" else place:
        annotation = inside(annotation, part)
    if annotation is None:
        return said
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        value = adapter.dump_python(adapter.validate_python(said), mode="json")
    except ValidationError:
        return said
    return sorted(value) if place[-1] == "waive" else value  # in any order


def _held(value: Mapping[str, Any], place: Place = ()) -> Iterator[Place]:
    """Places that hold one thing, kinds before what goes with them: all but mappings of keys, and the schedule of a number as a whole."""
    for name in sorted(value, key=lambda name: name != "kind"):
        here = (*place, name)
        if isinstance(value[name], dict) and place[-1:] != ("schedule",):
            yield from _held(value[name], here)
        else:
            yield here


def _says(tree: Tree, place: Place) -> bool:
    holder = tree.at(place[:-1])
    return isinstance(holder, dict) and place[-1] in holder


def _waiver_holds(layers: Sequence[Tree], sees: Sequence[set[int]]) -> bool:
    """Whether the last `waive` was said for the reward that is used: a waiver goes with its list."""
    rewards = [index for index, layer in enumerate(layers) if "reward" in layer.data]
    waivers = [index for index, layer in enumerate(layers) if "waive" in layer.data]
    if not rewards or not waivers:
        return True
    last = waivers[-1]
    known = [index for index in rewards if index == last or index in sees[last]]
    return rewards[-1] <= last and (not known or known[-1] == rewards[-1])
