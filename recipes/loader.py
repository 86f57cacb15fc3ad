"""From names, files and `key=value` words to one checked recipe; every problem is one line that says where it is and what is allowed.

Order: what the recipe `extends`, the recipe itself, the scale, the command line; later wins, mappings merge, lists are replaced whole.
Simplification: YAML without anchors, tags and second documents, so a recipe reads top to bottom and cannot build objects.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import ValidationError

from recipes.keys import Key, allowed, inside, keys, kinds_of, nearest, sections
from recipes.schema import Recipe
from recipes.section import Section

__all__ = ["Key", "RecipeError", "dump", "keys", "load", "recipe_hash", "scales", "shipped", "written"]

_SHIPPED = Path(__file__).parent
_MAX_BYTES = 256 * 1024
_MAX_DEPTH = 12

_Place = tuple[str | int, ...]


class RecipeError(ValueError):
    """The recipe cannot be used. One line a problem."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain scalars: `no` and `1:30` are text, `1e-5` is a number."""


class _Dumper(yaml.SafeDumper):
    """Quotes whatever another YAML reader, or ours, could take for something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.yaml_implicit_resolvers = {}
_FLOAT = re.compile(r"^[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9]\d*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


class _Tree:
    """Nested plain values and, for each place in them, where it was written ("file:line")."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.written: dict[_Place, str] = {}

    def overlay(self, other: _Tree) -> None:
        _drop(self.data.get("on_cuda"), other.data)  # what is said later holds on every device
        self._merge(self.data, other.data, other.written, ())

    def where(self, place: _Place) -> str | None:
        """Where `place` was written, or the nearest thing around it."""
        return next((self.written[place[:end]] for end in range(len(place), 0, -1) if place[:end] in self.written), None)

    def _merge(self, base: dict[str, Any], over: dict[str, Any], written: dict[_Place, str], place: _Place) -> None:
        for key, value in over.items():
            here = (*place, key)
            if isinstance(value, dict) and isinstance(base.get(key), dict):
                self.written |= {here: written[here]} if here in written else {}
                _forget_other_kind(base[key], value, here)
                self._merge(base[key], value, written, here)
                continue
            self.written = {at: line for at, line in self.written.items() if at[: len(here)] != here}
            self.written |= {at: line for at, line in written.items() if at[: len(here)] == here}
            base[key] = value


def _forget_other_kind(base: dict[str, Any], over: Mapping[str, Any], place: _Place) -> None:
    """Take out of `base` what belongs to its kind alone, where `over` says another."""
    annotation: Any = Recipe
    for part in place[1:] if place[0] == "on_cuda" else place:
        annotation = inside(annotation, part)
    kinds = kinds_of(annotation)
    if over.get("kind") in kinds and over["kind"] != base.get("kind"):
        for name in base.keys() - kinds[over["kind"]].model_fields.keys():
            del base[name]


def _drop(base: Any, said: dict[str, Any]) -> None:
    """Take out of nested `base` what `said` has, too."""
    for key in base.keys() & said.keys() if isinstance(base, dict) else ():
        if isinstance(base[key], dict) and isinstance(said[key], dict):
            _drop(base[key], said[key])
        else:
            del base[key]


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
    tree = _file(*_find(name_or_path, "recipe"), chain=())
    if scale is not None:
        tree.overlay(_file(*_find(scale, "scale"), chain=()))
    problems: list[str] = []
    for word in overrides:
        try:
            tree.overlay(_override(word))
        except RecipeError as error:
            problems.append(str(error))
    if problems:
        raise RecipeError("\n".join(problems))
    tree.data.setdefault("name", "-".join(Path(part).stem for part in (name_or_path, scale) if part))
    label = _find(name_or_path, "recipe")[1]
    recipe = _checked(tree, label)
    if recipe.on_cuda:
        _checked(_on_cuda(tree), label)
    return recipe


def on_device(recipe: Recipe, device: str) -> Recipe:
    """The recipe as it holds on "cpu" or "cuda": `on_cuda` merged into the rest, or left out."""
    tree = _Tree()
    tree.data = recipe.model_dump(mode="json")
    if device == "cuda" and recipe.on_cuda:
        tree = _on_cuda(tree)
    tree.data["on_cuda"] = {}
    return _checked(tree, recipe.name)


def _on_cuda(tree: _Tree) -> _Tree:
    """The tree with what it says under `on_cuda` merged into the rest."""
    merged, changes = _Tree(), _Tree()
    merged.data, merged.written = copy.deepcopy(tree.data), dict(tree.written)
    changes.data = merged.data.pop("on_cuda")
    changes.written = {place[1:]: line for place, line in tree.written.items() if place[0] == "on_cuda" and len(place) > 1}
    merged.overlay(changes)
    return merged


def _checked(tree: _Tree, label: str) -> Recipe:
    try:  # JSON in strict mode: `true` is no number and "8" no count, but a list may fill any sequence
        return Recipe.model_validate_json(json.dumps(tree.data), strict=True)
    except ValidationError as error:
        lines = (_explain(detail, tree, label) for detail in error.errors(include_url=False))
        raise RecipeError("\n".join(" ".join(line.split()) for line in lines)) from error


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every key written out (nulls too); loads to the same hash."""
    return yaml.dump(
        recipe.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, width=140
    )  # ASCII: YAML takes some other characters for line breaks


def recipe_hash(recipe: Recipe) -> str:
    """12 hex digits of SHA-256 over the resolved recipe as canonical JSON."""
    text = json.dumps(recipe.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


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

    path, label = _find(name, "recipe")
    walk("", _parse(_text(path, label), label).data)
    return flat


def _library() -> dict[str, Path]:
    paths = [*sorted(_SHIPPED.glob("*.yaml")), *sorted(_SHIPPED.glob("scales/*.yaml"))]
    return {path.relative_to(_SHIPPED).with_suffix("").as_posix(): path for path in paths}


def _first_sentence(path: Path) -> str:
    """Of the comment that a file begins with. A full stop ends it where a space and a capital, or nothing, follow."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join(line.lstrip("# ").rstrip() for line in lines))[0]


def _find(name: str, what: str, folder: Path = Path()) -> tuple[Path, str]:
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


def _file(path: Path, label: str, chain: tuple[Path, ...]) -> _Tree:
    """A file's tree on top of those it extends."""
    if path.resolve() in chain:
        names = " -> ".join(link.stem for link in (*chain, path))
        raise RecipeError(f"{label}: extends itself: {names}")
    own = _parse(_text(path, label), label)
    tree = _Tree()
    parents = own.data.pop("extends", [])
    for parent in [parents] if isinstance(parents, str) else parents if isinstance(parents, list) else [None]:
        at = own.where(("extends",))
        if not isinstance(parent, str):
            raise RecipeError(f"{at}: extends: {parents!r} is not allowed; needs the name of a recipe, or a list of names")
        try:
            found = _find(parent, "recipe", path.parent)
        except RecipeError as error:
            raise RecipeError(f"{at}: extends: {error}") from error
        tree.overlay(_file(*found, chain=(*chain, path.resolve())))
    own.written.pop(("extends",), None)
    tree.overlay(own)
    return tree


def _text(path: Path, label: str) -> str:
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


def _parse(text: str, label: str) -> _Tree:
    """YAML text to a tree; refuses whatever is not plain nested values."""
    tree = _Tree()
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
    tree.data = _plain(root, (), label, tree.written)
    return tree


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


def _plain(node: yaml.Node, place: _Place, label: str, written: dict[_Place, str]) -> Any:
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
            raise RecipeError(f"{at}: {_dotted(here)}: written twice (first at {written[here]})")
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


def _override(word: str) -> _Tree:
    """`a.b=value` as a tree. The value is a plain scalar, or YAML if it opens a list, a mapping or a quote."""
    name, equals, text = word.partition("=")
    label = f"-- {' '.join(word.split())}"
    places = name.strip().split(".")
    if not equals or not all(places):
        raise RecipeError(f"{label}: not an override; write key=value, e.g. learner.lr=1e-5")
    tree = _Tree()
    text = text.strip()
    if places[0] == "schedule" and len(places) > 2:  # its own keys are names of numbers, with their dots
        own = places[-1:] if text[:1] != "{" else []
        places = ["schedule", ".".join(places[1 : len(places) - len(own)]), *own]
    if text[:1] in ("[", "{", '"', "'"):
        parsed = _parse(f"value: {text}", label)
        if list(parsed.data) != ["value"]:
            raise RecipeError(f"{label}: holds more than one value")
        value = parsed.data["value"]
        inner = [place[1:] for place in parsed.written if len(place) > 1]
    else:
        value = _scalar(_Loader("").resolve(yaml.ScalarNode, text, (True, False)), text)
        inner = []
    for place in reversed(places):
        value = {place: value}
    tree.data = value
    tree.written = {tuple(places[:end]): label for end in range(1, len(places) + 1)}
    tree.written |= {(*places, *place): label for place in inner}
    return tree


def _explain(detail: Mapping[str, Any], tree: _Tree, label: str) -> str:
    """One pydantic error in plain words, with the place it comes from."""
    place, canonical = _places(detail["loc"])
    kind = detail["type"]
    if kind == "value_error":
        return _explain_rule(place, str(detail["ctx"]["error"]), tree, label)
    where = tree.where(place) or label
    name = _dotted(place)
    if kind == "extra_forbidden" and "." in str(place[-1]):
        return f"{where}: {name}: a key of a file has no dots; write `{str(place[-1]).split('.')[0]}:` and the rest indented below it"
    if kind == "extra_forbidden":
        pools = [sections()] if isinstance(detail["input"], dict) else [[key.name for key in keys()], sections()]
        close = next(filter(None, (nearest(canonical, pool) for pool in pools)), None)
        if close is not None and close.rpartition(".")[0] == canonical.rpartition(".")[0]:
            close = _dotted((*place[:-1], close.rpartition(".")[2]))
        return f"{where}: {name}: unknown key. {f'Did you mean {close}? ' if close else ''}(laconic recipes --keys lists all)"
    if kind.startswith("union_tag"):
        kinds = kinds_of(_annotation(place, tree))
        found = detail["input"].get("kind") if isinstance(detail["input"], dict) else None
        return f"{where}: {name}.kind: {'missing' if found is None else _shown(found) + ' is not allowed'}; needs one of {', '.join(kinds)}"
    words = _allowed_at(place, tree)
    if kind == "missing":
        return f"{where}: {name}: missing; needs {words}"
    return f"{where}: {name}: {_shown(detail['input'])} is not allowed; needs {words}"


def _explain_rule(place: _Place, message: str, tree: _Tree, label: str) -> str:
    """A rule between keys, broken: placed at that of the keys it names which was written last."""
    prefix = "".join(f"{part}." for part in place)
    key, colon, rest = message.partition(": ")
    first = f"{prefix}{key}" if colon else prefix.rstrip(".")
    names = [first, *(prefix + word for word in re.findall(r"[a-z_]+(?:\.[a-z_]+)*", rest)), *re.findall(r"[a-z_]+(?:\.[a-z_]+)+", rest)]
    order = {place: position for position, place in enumerate(tree.written)}  # as overlaid: what came last is what broke the rule
    places = [
        (key, rest.partition(": ")[0]) if key == "schedule" else (),
        *(tuple(name.split(".")) for name in names),
    ]  # its keys have dots
    last = max(places, key=lambda place: order.get(place, -1))
    where = tree.written.get(last, label)
    return f"{where}: {first}: {rest or message}"


def _places(loc: tuple[int | str, ...]) -> tuple[_Place, str]:
    """Place of an error in the tree, and its dotted name with kinds or `[]` for list items (as `keys` has it)."""
    place: list[str | int] = []
    canonical = ""
    annotation: Any = Recipe
    for part in loc:
        if part in (kinds := kinds_of(annotation)):  # pydantic puts the union's tag into the path
            annotation = kinds[str(part)]
            canonical = canonical.removesuffix("[]") + f"[{part}]" if canonical.endswith("[]") else canonical
            continue
        if isinstance(part, str) and part.startswith("<"):  # tags of a value that may be a text, a list or a mapping
            continue
        place.append(part)
        canonical += "[]" if isinstance(part, int) else f".{part}" if canonical else part
        annotation = _bare_kinds(inside(annotation, part))
    return tuple(place), canonical


def _bare_kinds(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _annotation(place: _Place, tree: _Tree) -> Any:
    """What the schema says at a place, the kinds that the tree names taken."""
    annotation: Any = Recipe
    value: Any = tree.data
    for part in place:
        annotation = inside(annotation, part, value)
        value = _at(value, part)
    return _bare_kinds(annotation)


def _at(value: Any, part: Any) -> Any:
    return value[part] if isinstance(value, list) else value.get(part) if isinstance(value, dict) else None


def _allowed_at(place: _Place, tree: _Tree) -> str:
    """What the schema allows at a place, in words."""
    if place[:2] in (("data", "train"), ("eval", "data")) and len(place) == 3:
        return "text or a mapping of keys"
    holder = _annotation(place[:-1], tree)
    if kinds := kinds_of(holder):
        value: Any = tree.data
        for part in place[:-1]:
            value = _at(value, part)
        holder = kinds.get(value.get("kind"), next(iter(kinds.values())))
    if isinstance(holder, type) and issubclass(holder, Section) and (field := holder.model_fields.get(str(place[-1]))):
        return allowed(field.annotation, field.metadata)
    return allowed(inside(holder, place[-1]))


def _dotted(place: _Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
