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


def test_plan_prints_what_can_teach():
    text = explain(plan(load("dler", "tiny")))
    assert "teaches  mixed      told apart by verdict, truncate: kept\n" in text
    assert "teaches  all right  told apart by truncate: replaced, as its correctness is constant; its length signal is lost\n" in text
    assert "teaches  all wrong  told apart by nothing: replaced, as its correctness is constant\n" in text
