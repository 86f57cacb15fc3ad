"""From names, files and `key=value` words to one checked recipe; every problem is one line that says where it is and what is allowed.

Order: what the recipe `extends` (recipes.extends), the recipe itself, the scale, the command line; later wins.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from recipes.explain import explain, faults
from recipes.extends import composed, nested
from recipes.keys import Key, keys
from recipes.library import find, scales, shipped, written
from recipes.schema import Recipe
from recipes.tree import Dumper, Place, RecipeError, Tree, below, override, places_of, refuse_undecoded

__all__ = ["Key", "RecipeError", "dump", "keys", "load", "recipe_hash", "recorded", "scales", "shipped", "written"]

_HINT = re.compile(r" ?(?:Did you mean \S+ |\(laconic recipes --keys lists all\))")  # for who writes a recipe


def load(name_or_path: str, scale: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """The resolved, checked recipe.

    Args:
        name_or_path: a shipped recipe's name, or a path that ends in .yaml.
        scale: a shipped scale's name (`tiny`), or a path that ends in .yaml.
        overrides: `key=value` words, e.g. `learner.lr=1e-5`, `stages=[rl, eval]`.

    A recipe without a `name` is called after its file and scale: `dler`, `dler-tiny`.

    Raises:
        RecipeError: one line for each problem found.
    """
    path, label = find(name_or_path, "recipe")
    over = [] if scale is None else [composed(*find(scale, "scale"))]
    problems: list[str] = []
    words = Tree()
    for word in overrides:
        try:
            tree = nested(override(word))
        except RecipeError as error:
            problems.append(str(error))
            continue
        problems += faults(tree, label)  # a later word would hide it
        words.overlay(tree)
    if problems:
        raise RecipeError("\n".join(problems))
    tree = composed(path, label, [*over, words])
    if "name" not in tree.data:
        tree.data["name"] = "-".join(Path(part).stem for part in (name_or_path, scale) if part)
        refuse_undecoded(tree.data["name"], f"name: {tree.data['name']}")
    recipe = _checked(tree, label)
    recipe._overridden = tree.overridden
    for one in [tree, _on_cuda(tree)] if recipe.on_cuda else [tree]:
        for index, stage in enumerate(_checked(one, label).stages):
            if stage.said:
                _checked(_in_stage(one, index), label, f"in stages[{index}].changes")
    return recipe


def recorded(run: Path) -> Recipe:
    """The recipe in a run's folder.

    Raises:
        RecipeError: this version cannot read it; the remedy is not that of a recipe that somebody writes.
    """
    file = run / "recipe.yaml"
    try:
        return load(str(file))
    except RecipeError as error:
        first, *others = str(error).splitlines()
        more = f" (and {len(others)} more)" if others else ""
        raise RecipeError(
            f"{_HINT.sub('', first).rstrip('. ')}{more}: no recipe of this version; use the one that made the run (`revision` in {run / 'environment.json'}), "
            "bring that file to this version, or evaluate a copy of the checkpoint outside of the run, naming its settings"
        ) from error


def on_device(recipe: Recipe, device: str) -> Recipe:
    """The recipe as it holds on "cpu" or "cuda": `on_cuda` merged into the rest, or left out."""
    tree = _tree(recipe)
    if device == "cuda" and recipe.on_cuda:
        tree = _on_cuda(tree)
    tree.data["on_cuda"] = {}
    here = _checked(tree, recipe.name)
    here._overridden = recipe.overridden
    return here


def in_stage(recipe: Recipe, index: int) -> Recipe:
    """The recipe as it holds in a stage: that stage's changes merged into the rest; `stages` is what it was."""
    return _checked(_in_stage(_tree(recipe), index), recipe.name) if recipe.stages[index].said else recipe


def _tree(recipe: Recipe) -> Tree:
    return Tree(recipe.model_dump(mode="json"))


def _on_cuda(tree: Tree) -> Tree:
    """The tree with what it says under `on_cuda` merged into the rest."""
    merged = Tree(copy.deepcopy(tree.data), dict(tree.written))
    return _overlaid(merged, merged.data.pop("on_cuda", {}), ("on_cuda",))


def _in_stage(tree: Tree, index: int) -> Tree:
    """The tree with the changes of a stage merged into the rest."""
    merged = Tree(copy.deepcopy(tree.data), dict(tree.written))
    return _overlaid(merged, tree.data["stages"][index]["changes"], ("stages", index, "changes"))


def _overlaid(tree: Tree, changes: Mapping[str, Any], at: Place) -> Tree:
    """The tree with changes, written in it at a place, laid over it; their keys may be dotted."""
    for name, value in changes.items():
        here = (*at, name)
        inner = {place[len(here) :]: line for place, line in tree.written.items() if place[: len(here)] == here}
        tree.overlay(below(places_of(name), value, tree.where(here), inner))
    return tree


def _checked(tree: Tree, label: str, within: str = "") -> Recipe:
    """The recipe that a tree holds; `within`: what to say of where a problem comes from. Raises RecipeError."""
    try:  # JSON in strict mode: `true` is no number and "8" no count, but a list may fill any sequence
        return Recipe.model_validate_json(json.dumps(tree.data), strict=True)
    except ValidationError as error:
        lines = (explain(detail, tree, label) + (f" ({within})" if within else "") for detail in error.errors(include_url=False))
        raise RecipeError("\n".join(" ".join(line.split()) for line in lines)) from error


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every key written out (nulls too); loads to the same hash."""
    return yaml.dump(
        recipe.model_dump(mode="json"), Dumper=Dumper, sort_keys=False, width=140
    )  # ASCII: YAML takes some other characters for line breaks


def recipe_hash(recipe: Recipe) -> str:
    """12 hex digits of SHA-256 over the resolved recipe as canonical JSON."""
    text = json.dumps(recipe.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
