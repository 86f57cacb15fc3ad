"""docs/methods.md and docs/slots.md say what ships: every method has its section, what a section says of its recipes holds, and worked numbers are the code's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from pydantic import TypeAdapter

from recipes.advantages import Advantage, MaxVariance
from recipes.credit import Credit
from recipes.groups import grouped
from recipes.library import find, shipped
from recipes.loader import load
from recipes.objectives import Correction, Hinge
from recipes.schedules import Exponential, value_at
from rewards import lengths, profiles
from rewards.redundant import Thought
from rewards.verifier.verdict import Verdict
from rl.advantage import advantages
from rl.credit import Members, by_group, covariances, drpo, gtpo_rewards, shaped
from rl.objective import aggregation_weights, correction_weights, pull
from rl.policy import Row
from rl.selection import selected
from rollout.types import Completion, Rollout

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
GROUP = {name: group for group, names in grouped().items() for name in names if name in shipped()}
TRAINING = [name for name in GROUP if name != "evaluate"]


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
            name = next(iter(one.said))
            assert load(name, overrides=words.split()) != load(name), f"{words} changes nothing"


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


# ------------------------------------------------------------------------------------------------- worked numbers

kind = TypeAdapter(Credit).validate_python
TOY = np.array([100, 200, 300, 400]), np.array([True, False, True, False])


def said(numbers: Iterable[float]) -> str:
    """Numbers as the pages print them: four places at most, no zero in front of the point."""
    short = (f"{number:.4f}".rstrip("0").rstrip(".") for number in numbers)
    return ", ".join("0" if text in ("-0", "0") else re.sub(r"^(-?)0\.", r"\1.", text) for text in short)


def numbers(cell: str) -> list[float]:
    """What a cell like `1, -1/3 x 3` holds."""
    return [
        float(Fraction(value)) for value, times in re.findall(r"(-?[\d./]+)(?: x (\d+))?(?:[,;]|$)", cell) for _ in range(int(times or 1))
    ]


def table(after: str) -> dict[str, list[str]]:
    """The first table of docs/slots.md behind some words: first cell -> the others; of cells that repeat, all in one list."""
    rows: dict[str, list[str]] = {}
    for line in re.search(r"\n\|[- |]+\|\n((?:\|.*\n)+)", SLOTS[SLOTS.index(after) :])[1].splitlines():
        first, *rest = (cell.strip() for cell in line.strip("|").split(" | "))
        rows.setdefault(first.strip(), []).extend(rest)
    return rows


def same(cell: str, found: Iterable[float]) -> None:
    np.testing.assert_allclose(numbers(cell), list(found), atol=6e-5)


def group(
    right: Sequence[bool], sizes: Sequence[int], limit: int, share: float = 0.5, redundant: Sequence[Any] = (), **of_rows: Any
) -> Members:
    """Rollouts with rows of the given per-token numbers, advantage 1 and -1."""
    rows, rollouts = [], []
    for index, (flag, size) in enumerate(zip(right, sizes, strict=True)):
        done = Completion(np.arange(size, dtype=np.int32), np.zeros(size, np.float32), "stop", np.zeros(size, np.int32))
        thought = Thought(0.5, redundant[index]) if redundant else None
        rollouts.append(
            Rollout(f"r{index}", index, done, "", None, Verdict("right" if flag else "wrong", ""), reward=float(flag), thought=thought)
        )
        own = {name: np.asarray(value[index], np.float32) for name, value in of_rows.items()}
        rows.append(
            Row(f"r{index}", np.zeros(1, np.int32), done.ids, done.logprobs, advantage_T=np.full(size, 1.0 if flag else -1.0), **own)
        )
    return Members(rows, rollouts, limit, share)


def test_the_advantages_of_the_table_are_the_codes():
    reward_PG, tokens_PG = np.array([[1.0, 0, 0, 0], [1, 1, 1, 0]]), np.array([[10, 40, 40, 40], [10, 10, 20, 40]])
    rows = re.findall(
        r"^\| (\w+), (\w+) \| (\d?) ?\| (.*) \| (.*) \|$", SLOTS[SLOTS.index("## Advantages") : SLOTS.index("## Length")], re.MULTILINE
    )
    assert len(rows) == 7
    for centre, scale, ddof, *cells in rows:
        found_PG = advantages(reward_PG, reward_PG > 0, tokens_PG, Advantage(centre=centre, scale=scale, ddof=int(ddof or 0)))
        for cell, found_G in zip(cells, found_PG, strict=True):
            same(cell, found_G)


def test_the_subsets_of_largest_variance_are_the_codes():
    reward_PG = np.array([[0, 0.2, 0.9, 1, 0.5, 0.1]])
    for count, words in ((2, "two"), (3, "three"), (4, "four")):
        kept_PG = selected(reward_PG, np.ones((1, 6)), MaxVariance(kind="max_variance", keep=count))
        kept = np.sort(reward_PG[kept_PG])
        assert f"{{{said(kept)}}} of {words} ({said([kept.var()])})" in SLOTS
    for mask_PG in (kept_PG, None):
        found_PG = advantages(reward_PG, reward_PG > 0, np.ones((1, 6)), Advantage(centre="group", scale="group", ddof=1), mask_PG)
        assert said(np.sort(found_PG[kept_PG])) in SLOTS


def test_the_length_terms_numbers_are_the_codes():
    rows = table("## Length rewards")
    three = np.array([100, 200, 300]), np.ones(3, bool), np.ones(3, bool)
    five = np.array([1000, 1200, 1400, 1800, 6000])
    at = np.array([0, 0.25, 0.5, 0.75, 1]) * 1000
    for terms, found in {
        "`kimi`": lengths.kimi(*TOY)[[0, 2]],
        "`arora` (alpha .2)": 1 + lengths.arora(*three, alpha=0.2),
        "`shorterbetter`": lengths.shorterbetter(*TOY),
        "`laser` (limit 250)": lengths.laser(*TOY, 250),
        "`gr3` (alpha .33)": TOY[1] * lengths.gr3(TOY[0]),
        "`leash` (lambda .1, limit 4096)": 1 + 0.1 * lengths.leash(np.array([3000, 6144, 16384]), 4096),
        "`overlong` (limit 1000, buffer 200)": lengths.overlong(np.array([800, 900, 1000]), 1000, 200),
        "`logarithm` (sharpness 5)": lengths.logarithm(at, np.ones(5, bool), 1000),
        "`scaling`, `zmad`, `shortest`, `longest`": 0.1 * lengths.scaling(five, np.ones(5, bool)),
    }.items():
        assert re.search(rf"(?<![\d.]){re.escape(said(found))}(?!\d)", rows[terms][0]), f"{terms}: {said(found)}"
    assert f"{said(lengths.success_weight(np.array([0, 0.25, 0.5, 0.75, 1])))} at shares" in SLOTS.replace("\n", " ")
    assert profiles.band_of(profiles.Profile(17805.33, 823.33, 0.75))[2] == pytest.approx(0.8)


def test_the_influence_example_is_the_codes():
    chosen, hidden = np.eye(3)[[0, 1, 0, 2]], np.array([[1, 0], [0.5, 0.5], [1, 0], [0, 1]])
    error = chosen - np.array([[0.5, 0.3, 0.2], [0.2, 0.6, 0.2], [0.4, 0.4, 0.2], [0.1, 0.1, 0.8]])
    rows = table("### Influence on right answers")
    for weight, label in ((1.0, "influence, w = 1 (tau .16)"), (0.5, "influence, w = 1 / 2 (tau .08)")):
        moved = ((hidden @ (weight * error[:2].T @ hidden[:2]).T) * error).sum(1)
        for cell, found in zip(rows[label], (moved[:2], moved[2:]), strict=True):
            same(cell, found)
        one = group([True, False], [2, 2], 8, share=0.25, influence=[moved[:2], moved[2:]])
        kinds = (
            {"`nthr`, one of four right": {"kind": "nthr"}}
            if weight == 1
            else {f"`thr`, steer {said([steer])}": {"kind": "thr", "steer": steer} for steer in (0.0, 0.1, -0.1)}
        )
        for name, settings in kinds.items():
            for cell, found in zip(rows[name], by_group(one, kind(settings)), strict=True):
                same(cell, found)


def test_the_entropy_and_covariance_examples_are_the_codes():
    pairs = np.array([(1, 0.5), (1, 3), (-1, 0.5), (-1, 3), (0.1, 0.5)])
    assert f"give {said(shaped(pairs[:, 0], pairs[:, 1], kind({'kind': 'entropy'})))}." in SLOTS
    assert f"it is {said(covariances(np.array([1, -1, 0.5, 0]), np.array([-0.1, -2, -3, -0.5])))}." in SLOTS
    rows = table("`gtpo` gives tokens rewards of their own")
    one = group([True, True, False, False], [3, 2, 2, 1], 8, entropy=[[0.5, 1, 2], [1.5, 1], [0.2, 1], [0.4]])
    for level in ("token", "sequence"):
        found = [reward_T[: None if level == "token" else 1] for reward_T in gtpo_rewards(one, kind({"kind": "gtpo", "level": level}))]
        for cell, pair in zip(rows[f"`level: {level}`"], (found[:2], found[2:]), strict=True):
            same(cell, np.concatenate(pair))


def test_the_decoupled_example_is_the_codes():
    right = group([True] * 3 + [False], [1000, 2000, 4000, 1], 8192)
    for spread, cells in table("### Right and wrong answers decoupled").items():
        same(cells[0], drpo(right, kind({"kind": "drpo", "spread": float(spread)}))[:3])
    wrong = group([True, False, False], [1, 1, 1], 8, old_logp=[[-0.3], [-0.4], [-0.25]])
    for temperature in (10, 0.1):
        assert f"{said(drpo(wrong, kind({'kind': 'drpo', 'temperature': temperature}))[1:])} at" in SLOTS
    assert f"it is {said(pull(distance, 1, Hinge(weight=1000.0)) for distance in (5e-5, 1e-4, 3e-4))} at D" in SLOTS


def test_the_redundant_thought_example_is_the_codes():
    one = group([True] * 4, [8, 10, 12, 16], 20, redundant=[None, (6, 9), (5, 11), (6, 15)])
    for place, cells in table("### Redundant thought").items():
        for form, cell in zip(("code", "paper"), cells, strict=True):
            if re.match(r"[-\d.]", cell):
                found = [part[int(place)] for part in by_group(one, kind({"kind": "decs", "form": form})) if int(place) < len(part)]
                same(cell, found)


def test_the_weights_of_losses_are_the_codes():
    found = [
        sum(aggregation_weights(np.array([2, 8]), name, 10) * [2, -8])
        for name in ("sequence_mean", "token_mean", "constant", "sequence_sum")
    ]
    np.testing.assert_allclose(np.abs(found), [0, 0.6, 0.3, 3.0], atol=1e-9)
    assert "sequence_mean 0, token_mean 0.6, constant (limit 10) 0.3, sequence_sum 3.0" in SLOTS
    rows, logs = table("## Mismatch of engine and learner"), torch.tensor([[0.3, -1.2, 2, 0.01]])
    given = logs, torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.int64)
    for settings in ({"kind": "tis"}, {"kind": "clamp", "high": 5.0}, {"kind": "icepop", "high": 5.0}):
        weights = correction_weights(*given, TypeAdapter(Correction).validate_python(settings))
        assert rows[settings["kind"]][1].startswith(said(weights[0].tolist()))


def test_the_exponential_budgets_of_the_pages_are_the_codes():
    schedule = Exponential(kind="exponential", factor=0.7, every=150)
    levels = said(value_at(schedule, 256, step, 600) for step in (0, 150, 300, 450))
    assert f"every 150 steps is {levels}" in SLOTS and f"{levels}. r =" in METHODS
