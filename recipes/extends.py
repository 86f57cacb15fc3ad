"""What a recipe comes to with all that it extends: every file's own words once, in one order; what conflicts is refused by name.

The order: bases (files that nothing comes before: `grpo`, `dler`), those that a list names itself after those that are only inherited; then
each file after what it extends and after what its list names before it. So what one parent only inherits never overrides what another says.
Conflicts are what cannot be merged: of two parents' own chains, the lists `reward`, `waive` and `stages`, the kind of a slot, and a number's schedule.
Simplification: numbers do not conflict, later wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.keys import kinds_of
from recipes.library import find
from recipes.schema import Recipe
from recipes.tree import Place, RecipeError, Tree, dotted, parse, read

_SLOTS = [name for name, field in Recipe.model_fields.items() if kinds_of(field.annotation)]  # budget, select, ...


@dataclass(frozen=True)
class _File:
    """A recipe file: its own words, the files that it extends, and where it says so."""

    said: Tree
    parents: tuple[Path, ...]
    at: str


_Family = Mapping[Path, _File]


def composed(path: Path, label: str, over: Sequence[Tree] = ()) -> Tree:
    """A file with all that it extends, and `over` (scale, command line) laid over it.

    Raises:
        RecipeError: a file cannot be read, extends itself, or its parents conflict.
    """
    family: dict[Path, _File] = {}
    _collect(path, label, (), family)
    order = _order(path.resolve(), family)
    if problems := [problem for file in order for problem in _conflicts(file, order, family, over)]:
        raise RecipeError("\n".join(problems))
    layers = [*(family[file].said for file in order), *over]
    sees = [{order.index(one) for one in _ancestors(file, family)} for file in order]
    sees += [set(range(index)) for index in range(len(order), len(layers))]
    tree = Tree()
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
    said = parse(read(path, label), label)
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
    family[key] = _File(said, tuple(dict.fromkeys(parents)), at)


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


def _conflicts(name: Path, order: Sequence[Path], family: _Family, over: Sequence[Tree]) -> list[str]:
    """What several parents of a file say differently, and neither it nor anything after it settles; a line each."""
    parents = family[name].parents
    before = _before(family)
    own = [file for file in order if file in _ancestors(name, family) and (before[file] or file in parents)] if len(parents) > 1 else []
    later = [*(family[file].said for file in order if file == name or name in _ancestors(file, family)), *over]
    lines: dict[Place, str] = {}
    for place in _exclusive(family[file].said for file in own):
        sayers = [file for file in own if _says(family[file].said, place)]
        last = [file for file in sayers if not any(file in _ancestors(other, family) for other in sayers)]
        other = next((file for file in last if family[file].said.at(place) != family[last[0]].said.at(place)), None)
        settled = any(_says(tree, place) or (place == ("waive",) and _says(tree, ("reward",))) for tree in later)
        if other is None or settled or (place == ("waive",) and ("reward",) in lines):
            continue
        names = " and ".join(f"{file.stem} ({family[file].said.where(place)})" for file in (last[0], other))
        lines[place] = (
            f"{family[name].at}: extends: {names} each say their own {dotted(place)}; write {dotted(place)} in {name.stem} to settle it"
        )
    return list(lines.values())


def _exclusive(trees: Iterable[Tree]) -> list[Place]:
    """Places that hold one thing, whoever says it."""
    schedules = [tree.data["schedule"] for tree in trees if isinstance(tree.data.get("schedule"), dict)]
    numbers = dict.fromkeys(name for schedule in schedules for name in schedule)
    return [("reward",), ("waive",), ("stages",), *((slot, "kind") for slot in _SLOTS), *(("schedule", name) for name in numbers)]


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
