"""What the schema refuses, in plain words and with the place where it was written."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from recipes.keys import allowed, inside, keys, kinds_of, nearest, sections
from recipes.schema import Recipe
from recipes.tree import Place, Tree, child, dotted

_MAPPING = "a mapping of keys"  # as `allowed` says it
_KIND = re.compile(r"\[\w*\]")  # behind the slot whose key it has
_RENAMED = {"sft": "cold_start"}


def explain(detail: Mapping[str, Any], tree: Tree, label: str) -> str:
    """One pydantic error in plain words, with the place it comes from."""
    if detail["type"] == "json_invalid":  # all else that it holds, a tree can say
        return f"{label}: a text in it is not Unicode (half a pair, as \\ud800, or bytes of another encoding); write it anew"
    place, canonical = _places(detail["loc"])
    kind = detail["type"]
    if kind == "value_error":
        return _explain_rule(place, str(detail["ctx"]["error"]), tree, label)
    where = tree.where(place) or label
    name = dotted(place)
    if kind == "extra_forbidden" and "." in str(place[-1]):
        return f"{where}: {name}: a key of a file has no dots; write `{str(place[-1]).split('.')[0]}:` and the rest indented below it"
    slot = dotted((*place[:-1], _KIND.sub("", str(place[-1]))))
    if kind == "extra_forbidden" and slot != name and any(key.name.startswith(f"{name}.") for key in keys()):
        inner = next(iter(detail["input"]), "") if isinstance(detail["input"], dict) else ""
        one = _MAPPING in allowed(_annotation((*place[:-1], slot.rpartition(".")[2]), tree))
        meant = _written(f"{name}.{inner}", slot) if one else f"an entry of {slot} with kind: {name[len(slot) + 1 : -1]}"
        return f"{where}: {name}: unknown key. Did you mean {meant}?"
    if kind == "extra_forbidden" and "[" in canonical:
        slot = canonical.rpartition(".")[0]
        own = [key.name.rpartition(".")[2] for key in keys() if key.name.rpartition(".")[0] == slot]
        if own:
            close = nearest(canonical.rpartition(".")[2], own)
            hint = f"Did you mean {dotted((*place[:-1], close))}?" if close else f"There are {', '.join(own)}"
            return f"{where}: {name}: unknown key. {hint} (laconic recipes --keys lists all)"
    if kind == "extra_forbidden":
        pools = [sections()] if isinstance(detail["input"], dict) else [[key.name for key in keys()], sections()]
        close = next(filter(None, (nearest(canonical, pool) for pool in pools)), None)
        if close is not None and close.rpartition(".")[0] == canonical.rpartition(".")[0]:
            close = dotted((*place[:-1], close.rpartition(".")[2]))
        close = close and _written(close, dotted(place[:-1]))
        meant = (
            f"{canonical} is now called {_RENAMED[canonical]}. " if canonical in _RENAMED else f"Did you mean {close}? " if close else ""
        )
        return f"{where}: {name}: unknown key. {meant}(laconic recipes --keys lists all)"
    if kind.startswith("union_tag") and place[0] == "schedule" and "." not in str(place[-1]):
        return f"{where}: {name}: names no number; the keys in it have dots: `schedule: {{budget.limit: {{kind: linear, to: 87}}}}`"
    if kind.startswith("union_tag"):
        found = detail["input"].get("kind") if isinstance(detail["input"], dict) else None
        kinds = f"one of {', '.join(kinds_of(_annotation(place, tree)))}"
        said = "missing" if found is None else f"{_shown(found)} is not allowed"
        key = name if isinstance(tree.at(place), str) else f"{name}.kind"  # a bare kind, or a mapping of one
        return f"{tree.where((*place, 'kind')) or label}: {key}: {said}; needs {kinds}{_meant(found, kinds)}"
    words = allowed(_annotation(place, tree))
    if kind == "missing":
        where = tree.where((*place[:-1], "kind")) or label  # what asks for it
        return f"{where}: {name}: missing; needs {words}"
    if place[0] == "schedule" and len(place) == 2:
        words += "; there is none to take out" if detail["input"] is None else ", as `{kind: linear, to: 87}`"
    return f"{where}: {name}: {_shown(detail['input'])} is not allowed; needs {words}{_meant(detail['input'], words)}"


def faults(tree: Tree, label: str, unknown: bool = False) -> list[str]:
    """What is wrong in a file or a word whatever is laid over it, in plain words: mappings where none may be, something else where one must, keys that do not exist.

    Args:
        unknown: say keys that do not exist, too.
    """
    device = tree.data.get("on_cuda")
    found = [
        explain({"type": kind, "loc": place, "input": tree.at(place)}, tree, label)
        for kind, place in _astray(tree.data, Recipe, ())
        if kind != "extra_forbidden" or unknown
    ]
    if isinstance(device, dict):
        written = {place[1:]: line for place, line in tree.written.items() if place[0] == "on_cuda" and place[1:]}
        found += faults(Tree(device, written), label, unknown)
    return found


def _astray(value: Mapping[str, Any], annotation: Any, place: Place) -> Iterator[tuple[str, Place]]:
    """Places in a mapping that the schema does not know, or knows as something else; not in lists."""
    for key, inner in value.items():
        here, within = (*place, key), inside(annotation, key, value)
        if within is None:
            yield "extra_forbidden", here
        elif within is not Any and key != "kind":  # of which pydantic says what there is
            words = allowed(within).split(" or ")
            nested = isinstance(inner, dict)
            if _MAPPING not in words if nested else inner is not None and not {*words} - {_MAPPING, "null"}:
                yield "shape", here
            elif nested:
                yield from _astray(inner, within, here)


def _meant(found: Any, words: str) -> str:
    """A hint at the choice that looks like what was found."""
    choices = words.removeprefix("one of ").split(", ") if words.startswith("one of ") else []
    close = difflib.get_close_matches(found, choices, n=1) if isinstance(found, str) else []
    return f". Did you mean {close[0]}?" if close else ""


def _explain_rule(place: Place, message: str, tree: Tree, label: str) -> str:
    """A rule between keys, broken: placed at that of the keys it names which was written last."""
    key, colon, rest = message.partition(": ")
    if not colon or not re.fullmatch(r"[a-z_.]+(?:\[\d+\][a-z_.]*)?", key):
        key, rest = "", message
    first = (*place, *(int(part) if part.isdecimal() else part for part in re.findall(r"[a-z_]+|\d+", key)))
    moves = ("schedule", rest.partition(": ")[0])  # its own keys have dots
    inside = re.findall(r"[a-z_]+(?:\.[a-z_]+)*", rest) if place else re.findall(r"[a-z_]+(?=:)", "" if key.endswith("]") else rest)
    names = [
        *((*place, *word.split(".")) for word in inside),
        *(tuple(word.split(".")) for word in re.findall(r"[a-z_]+(?:\.[a-z_]+)+", rest)),
    ]
    own = [
        written
        for written in tree.written
        for word in re.findall(r"[a-z_]+(?:\.[a-z_]+)+", rest)
        if first and written[: len(first)] == first and ".".join(map(str, written[len(first) :])).removeprefix("changes.") == word
    ]
    names = own or names  # what a stage, or on_cuda, says itself
    if key == "schedule" and {"to", "stages"} & (tree.at(moves) or {}).keys():
        names = []  # where it starts did not break it
    order = {written: position for position, written in enumerate(tree.written)}  # as overlaid: what came last is what broke the rule
    last = max([moves if key == "schedule" and moves in order else first, *names], key=lambda name: order.get(name, -1))
    return f"{tree.where(last if last in order else first) or label}: {dotted(first)}{': ' if first else ''}{rest}"


def _places(loc: tuple[int | str, ...]) -> tuple[Place, str]:
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
        annotation = inside(annotation, part)
    return tuple(place), canonical


def _annotation(place: Place, tree: Tree) -> Any:
    """What the schema says at a place, the kinds that the tree names taken."""
    annotation: Any = Recipe
    value: Any = tree.data
    for part in place:
        annotation = inside(annotation, part, value)
        value = child(value, part)
    return annotation


def _written(key: str, slot: str) -> str:
    """A key of a list of keys as one writes it below its slot, which is that of its kind."""
    found = re.fullmatch(r"(.+)\[(\w+)\](.*)", key)
    return f"{slot}{found[3].rstrip('.')}, with {slot}.kind={found[2]}" if found and found[1] == slot else key


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
