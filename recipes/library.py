"""The shipped recipes and scales, found by name."""

from __future__ import annotations

import difflib
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

from recipes.tree import RecipeError, parse, read

_SHIPPED = Path(__file__).parent


def shipped() -> dict[str, str]:
    """Shipped recipes and the first sentence of what each says about itself."""
    return {name: _first_sentence(path) for name, path in _library().items() if "/" not in name}


def scales() -> dict[str, str]:
    """Shipped scales, likewise."""
    return {name.removeprefix("scales/"): _first_sentence(path) for name, path in _library().items() if "/" in name}


def written(name: str) -> dict[str, Any]:
    """What a shipped recipe (or `scales/NAME`) says itself: values by dotted key, `extends` among them."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, values: dict[str, Any]) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                walk(f"{prefix}{key}.", value)
            else:
                flat[f"{prefix}{key}"] = value

    path, label = find(name, "recipe")
    walk("", parse(read(path, label), label).data)
    return flat


def _library() -> dict[str, Path]:
    paths = [*sorted(_SHIPPED.glob("*.yaml")), *sorted(_SHIPPED.glob("scales/*.yaml"))]
    return {path.relative_to(_SHIPPED).with_suffix("").as_posix(): path for path in paths}


def _first_sentence(path: Path) -> str:
    """Of the comment that a file begins with. A full stop ends it where a space and a capital, or nothing, follow."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join(line.lstrip("# ").rstrip() for line in lines))[0]


def find(name: str, what: str, folder: Path = Path()) -> tuple[Path, str]:
    """File and printed label of a recipe or scale; relative paths start at `folder`."""
    if name.endswith((".yaml", ".yml")):
        return folder / name, str(folder / name)
    library = _library()
    full = f"scales/{name}" if what == "scale" else name
    if full in library:
        return library[full], f"recipes/{full}.yaml"
    known = list(scales() if what == "scale" else shipped())
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    raise RecipeError(f"{name}: no such {what}. {hint}Shipped: {', '.join(known)}; a file of your own must end in .yaml")
