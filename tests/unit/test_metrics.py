"""The register of metric names: what is recorded is listed, what is listed is recorded, and the page made of it is current."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import get_args

import pytest

from rollout.budget import _CLASSES
from rollout.collector import Fate
from rollout.metrics import METRICS, find, page, strange, varying

ROOT = Path(__file__).resolve().parents[2]
MODULES = {room: sorted((ROOT / room).rglob("*.py")) for room in ("rollout", "rl", "evaluation", "launch")}
RECORDERS = [path for room in ("rollout", "rl") for path in MODULES[room] if path.name != "metrics.py"]
READERS = [path for paths in MODULES.values() for path in paths]
LOOPS = {  # f-strings over names of our own, and which; others must vary in the register, too
    "groups/{}": get_args(Fate),
    "budget/{}": [name for name, _ in _CLASSES],
    "wire/{}": ["empty_thinking", "repetition"],
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def skeletons(node: ast.AST | None) -> Iterator[str]:
    """The strings that an expression may be, with {} for what an f-string fills in."""
    match node:
        case ast.Constant(value=str() as text):
            yield text
        case ast.JoinedStr():
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        case ast.IfExp():
            yield from (*skeletons(node.body), *skeletons(node.orelse))
        case ast.Tuple():
            yield from (text for item in node.elts for text in skeletons(item))


def whole(parent: ast.AST) -> Iterator[str]:
    """The strings of a module that are no part of an f-string."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif not isinstance(node, ast.JoinedStr):
            yield from whole(node)


def recorded(module: ast.AST) -> Iterator[str]:
    """Strings that a module makes keys of mappings."""
    for node in ast.walk(module):
        match node:
            case ast.Dict():
                keys: list[ast.AST | None] = [*node.keys]
            case ast.DictComp():
                keys = [node.key]
            case ast.Subscript(ctx=ast.Store()):
                keys = [node.slice]
            case ast.Call(func=ast.Attribute(attr="fromkeys")):
                keys = [*node.args[:1]]
            case _:
                continue
        yield from (text for key in keys for text in skeletons(key))


def names(paths: list[Path]) -> set[str]:
    keys = {text for path in paths for text in recorded(tree(path))}
    loops = {text.replace("{}", name) for text in keys & LOOPS.keys() for name in LOOPS[text]}
    return (keys - LOOPS.keys()) | loops


def listed() -> set[str]:
    return {re.sub(r"<\w+>", "{}", metric.name) for metric in METRICS}


def test_every_listed_metric_is_recorded_somewhere():
    assert listed() - names(RECORDERS) == set()


def test_every_name_with_a_slash_that_becomes_a_key_is_listed():
    found = {name for name in names(RECORDERS) if re.fullmatch(r"[a-z_]+/[a-z_0-9{}]*", name)}
    assert found - listed() == set()
    assert len(found) > 60


def test_every_metric_that_is_read_by_name_is_listed():
    rooms = {metric.name.split("/")[0] for metric in METRICS if "/" in metric.name}
    read = {text for path in READERS for text in whole(tree(path)) if re.fullmatch(rf"({'|'.join(rooms)})/[a-z_0-9]+", text)}
    read -= {metric.unit for metric in METRICS}
    assert {name for name in read if find(name) is None} == set()
    assert {"gate/mean", "groups/short"} <= read


def test_a_name_is_listed_once_with_what_it_means_and_words_for_its_curve():
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert [metric.name for metric in METRICS if not metric.meaning.endswith(".") or bool(metric.panel) != bool(metric.label)] == []


def test_curves_of_a_panel_stand_together_and_share_their_unit():
    drawn = [metric for metric in METRICS if metric.panel]
    runs = [(title, {metric.unit for metric in group}) for title, group in groupby(drawn, key=lambda metric: metric.panel)]
    assert [title for title, units in runs if len(units) > 1] == []
    assert len({title for title, _ in runs}) == len(runs)


@pytest.mark.parametrize(
    ("name", "entry", "part"),
    [
        ("reward/mean", "reward/mean", ""),
        ("reward/lambda", "reward/lambda", ""),
        ("reward/l1_max", "reward/<term>", "l1_max"),
        ("reward/mine:calm", "reward/<term>", "mine:calm"),
        ("function/a/b c", "function/<name>", "a/b c"),
        ("gate/from_4096", "gate/from_<N>", "4096"),
        ("correction/kept_3", "correction/kept_<N>", "3"),
    ],
)
def test_a_name_finds_its_entry_and_what_varies_in_it(name: str, entry: str, part: str):
    metric = find(name)
    assert metric and metric.name == entry and varying(metric, name) == part


@pytest.mark.parametrize("name", ["acuracy", "gate/from_", "gate/from_x", "length", "length/max", "groups/", "step/2"])
def test_a_name_that_is_not_listed_is_strange(name: str):
    assert strange({name: 1.0}) == [f"{name} is not listed in rollout/metrics.py; add it"]


def test_a_null_is_strange_where_no_reason_is_given():
    assert strange({"step": 0, "length/right": None, "kl": None, "reward/verdict": None}) == []
    assert strange({"length/mean": None}) == ["length/mean is null; rollout/metrics.py must say when"]


def test_the_metrics_page_is_current():
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == page(), "run `python -m rollout.metrics`"
