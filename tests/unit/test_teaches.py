"""What plan says of groups that are mixed, all right and all wrong."""

from __future__ import annotations

import pytest

from launch.explain import explain
from launch.plan import plan
from launch.teaches import teaching
from recipes.loader import load


@pytest.mark.parametrize(
    ("name", "words", "kept", "length", "trains"),
    [
        ("grpo", [], (1, 1, 1), (0, 0, 0), (1, 0, 0)),
        ("dler", [], (1, 0, 0), (1, 1, 0), (1, 0, 0)),  # correctness is constant where all are right: truncation teaches in mixed groups only
        ("da_dler", [], (1, 1, 0), (1, 1, 0), (1, 1, 0)),
        ("dot", [], (1, 1, 0), (0, 1, 0), (1, 1, 0)),  # outliers of all-right groups alone
        ("kimi", [], (1, 1, 1), (1, 1, 1), (1, 1, 1)),
        ("laser", [], (1, 1, 0), (1, 1, 0), (1, 1, 0)),
        ("laser", ["reward=[{kind: verdict, wrong: -0.5}, {kind: laser, explore: true}]", "waive=[length_of_wrong, right_beats_wrong]"], (1, 1, 1), (1, 1, 1), (1, 1, 1)),
        ("grpo", ["reward=[{kind: verdict}, {kind: format}]", "sampler.keep_groups=shaped"], (1, 1, 1), (0, 0, 0), (1, 1, 1)),
    ],
)  # fmt: skip
def test_a_recipe_says_which_groups_it_keeps_and_what_they_teach(name: str, words: list[str], kept, length, trains):
    found = teaching(load(name, "tiny", words))
    assert [one.kind for one in found] == ["mixed", "all right", "all wrong"]
    assert tuple(int(one.kept) for one in found) == kept
    assert tuple(int(one.length) for one in found) == length
    assert tuple(int(one.trains) for one in found) == trains


@pytest.mark.parametrize(
    ("term", "warned"),
    [
        ("", False),
        (", floor: 0.0", True),
        (", floor: 0.0, shape: linear", True),
        (", floor: 0.0, shape: saving", False),
        (", floor: 0.1", False),
    ],
)
def test_plan_warns_of_a_factor_that_falls_to_nothing_by_the_groups_shortest_right_answer(term: str, warned: bool):
    recipe = load("grpo", "tiny", [f"reward=[{{kind: verdict}}, {{kind: relative{term}}}]"])
    assert ("which trains guessing" in "\n".join(plan(recipe).warnings)) is warned


def test_plan_prints_what_can_teach():
    text = explain(plan(load("dler", "tiny")))
    assert "teaches  mixed      told apart by verdict, truncate: kept\n" in text
    assert "teaches  all right  told apart by truncate: replaced, as its correctness is constant; its length signal is lost\n" in text
    assert "teaches  all wrong  told apart by nothing: replaced, as its correctness is constant\n" in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("laser_d", "limit    104 to 416 tokens by a group's difficulty, as 96 problems sampled apart every 20 steps (768 rollouts) shows"),
        ("controller", "while accuracy of 24 problems sampled apart every 2 steps (192 rollouts) is less than 0.02 below its start"),
        (
            "toggle",
            "limit    in every second 10 steps (from step 10), percentile 80 of right answers' lengths, where at least 80% are right",
        ),
        ("l1_exact", "limit    drawn for each prompt from 2 to 104 tokens"),
        ("dot", "limit    in all-right groups, mean + 2 deviations"),
    ],
)
def test_plan_says_what_decides_a_limit_that_is_not_one_for_all(name, words):
    assert any(words in line for line in explain(plan(load(name, scale="tiny"))).splitlines())
