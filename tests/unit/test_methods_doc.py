"""docs/methods.md and docs/slots.md say what ships: every method has its section, what a section says of its recipes holds, and worked numbers are the code's."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from recipes.groups import grouped
from recipes.library import find, shipped
from recipes.loader import load

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
METHODS, SLOTS = ((DOCS / name).read_text(encoding="utf-8") for name in ("methods.md", "slots.md"))


class Section(NamedTuple):
    """A method's section: `said` is what stands in backticks behind each recipe of its recipe line, by recipe."""

    title: str
    text: str
    said: dict[str, list[str]]


def ticked(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def section(text: str) -> Section:
    title, _, body = text.partition("\n")
    said: dict[str, list[str]] = {}
    line = re.search(r"^- \*\*Recipe\.\*\*(.*(?:\n  .*)*)", body, re.MULTILINE)
    for words in ticked(line[1]) if line else []:
        if re.fullmatch(r"\w+", words):
            said[words] = []
        else:
            said[list(said)[-1]].append(words)
    return Section(title, text, said)


SECTIONS = [one for one in map(section, re.split(r"^## ", METHODS, flags=re.MULTILINE)[1:]) if one.said]
TRAINING = [name for names in grouped().values() for name in names if name in shipped() and name != "evaluate"]
GROUP = {name: group for group, names in grouped().items() for name in names}


def anchor(title: str) -> str:
    """Of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def contents() -> str:
    """The list that docs/methods.md begins with: a line for each group of `laconic recipes`, its sections by name."""
    lines = []
    for group, sections in groupby(SECTIONS, key=lambda one: GROUP[next(iter(one.said))]):
        links = [f"[{re.sub(r' [(].*', '', one.title)}](#{anchor(one.title)})" for one in sections]
        lines.append(f"- **{group}**: {' · '.join(links)}")
    return "\n".join(lines)


def test_every_recipe_that_trains_stands_in_the_recipe_line_of_one_section():
    assert sorted(name for one in SECTIONS for name in one.said) == sorted(TRAINING)


def test_sections_follow_the_order_of_laconic_recipes_and_the_contents_list_them():
    firsts = [next(iter(one.said)) for one in SECTIONS]
    assert firsts == sorted(firsts, key=TRAINING.index)
    assert contents() in METHODS, f"the contents of docs/methods.md should be\n{contents()}"


def test_every_section_says_what_is_claimed_how_it_is_made_and_what_is_open():
    for one in SECTIONS:
        assert re.findall(r"^- \*\*(\w+)\.\*\*", one.text, re.MULTILINE) == ["Claims", "Formula", "Recipe", "Open"], one.title


@pytest.mark.parametrize("name", TRAINING)
def test_the_papers_that_a_recipe_names_stand_in_its_section(name):
    header = re.match(r"(?:#.*\n)+", find(name, "recipe")[0].read_text(encoding="utf-8"))
    (own,) = (one for one in SECTIONS if name in one.said)
    assert header
    assert set(re.findall(r"\d{4}\.\d{5}", header[0])) <= set(re.findall(r"\d{4}\.\d{5}", own.text))


def within(part: Any, whole: Any) -> bool:
    """Whether a resolved value says what is written of it: mappings may say more, lists are whole, a bare kind stands for a mapping."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and within(value, whole[key]) for key, value in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(within, part, whole))
    return part == (whole["kind"] if isinstance(whole, dict) and isinstance(part, str) else whole)


def written(words: str) -> Any:
    """`objective.kl: {coef: 1}` as a tree."""
    ((key, value),) = yaml.safe_load(words).items()
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


@pytest.mark.parametrize("name", TRAINING)
def test_what_a_section_says_of_a_recipe_holds(name):
    (own,) = (one.said[name] for one in SECTIONS if name in one.said)
    recipe = load(name).model_dump()
    for words in own:
        if re.match(r"[\w.]+: ", words):
            assert within(written(words), recipe), f"{name} does not say {words}"


@pytest.mark.parametrize("one", SECTIONS, ids=lambda one: one.title)
def test_overrides_that_a_section_offers_are_taken(one):
    for words in ticked(one.text):
        if re.match(r"[\w.]+=", words):
            load(next(iter(one.said)), overrides=words.split())


def test_every_name_in_backticks_is_a_recipe_or_a_word_of_the_references():
    elsewhere = {"epsilon_high", "max_completion_length", "token_mask", "token_truncate", "use_bias_correction_kl", "thinking_token_budget"}
    pages = "".join((DOCS / page).read_text(encoding="utf-8") for page in ("recipes.md", "architecture.md"))
    known = set(re.findall(r"\w+", pages)) | set(shipped()) | elsewhere  # of TRL and vLLM
    assert {words for words in ticked(METHODS + SLOTS) if re.fullmatch(r"[a-z][a-z0-9_]*", words)} <= known


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")) + [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(page):
    for path, place in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {path}"
        if place:
            headings = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert place in map(anchor, headings), f"{page.name} links to {path}#{place}"
