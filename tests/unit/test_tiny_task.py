"""The tiny task: right answers, disjoint sides, positions that suffice to resume, traces that may be wrong only by a slip."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.schema import Tiny
from rollout.tiny.reference import with_reference
from rollout.tiny.task import HELD_OUT_PER_FAMILY, LEVELS, is_held_out, problem, problems, trace
from rollout.types import Problem

FAMILIES = list(LEVELS)
CELLS = [(family, level) for family, levels in LEVELS.items() for level in range(1, levels + 1)]


def solved_by_brute_force(question: str) -> int:
    head, _, asked = question.partition(": ")
    if head == "Solve":
        left, right = (side.replace("x", "({x})") for side in asked.split(" = "))
        return next(x for x in range(1000) if _value(left.format(x=x)) == _value(right.format(x=x)))
    if head == "Modulo 10, left to right":
        first, *rest = asked.split()
        value = int(first)
        for sign, operand in zip(rest[::2], rest[1::2], strict=True):
            value = _value(f"{value} {sign} {operand}") % 10
        return value
    return _value(asked)


def _value(expression: str) -> int:
    """Products, then signed terms; no brackets but those around one number."""
    total = 0
    for sign, term in re.findall(r"(^|[+-]) ?((?:[\d()]+)(?: \* [\d()]+)*)", expression):
        product = 1
        for factor in term.split(" * "):
            product *= int(factor.strip("()"))
        total += -product if sign == "-" else product
    return total


@pytest.mark.parametrize(("family", "level"), CELLS)
def test_answers_are_what_the_question_asks_for(family: str, level: int):
    rng = Random(0)
    for _ in range(50):
        drawn = problem(family, level, rng)
        assert int(drawn.answer) == solved_by_brute_force(drawn.text), drawn.text


@pytest.mark.parametrize(("family", "level"), CELLS)
def test_a_trace_without_slips_ends_with_the_right_box(family: str, level: int):
    rng = Random(1)
    for _ in range(50):
        drawn = problem(family, level, rng)
        assert trace(drawn, rng, 0.6, 0.45, 0.0).endswith(f"\n</think>\n\\boxed{{{drawn.answer}}}")


def test_every_equation_of_a_trace_without_slips_holds():
    rng = Random(2)
    for drawn in problems("train", FAMILIES, 0, 0, 400):
        thinking = trace(drawn, rng, 0.6, 0.45, 0.0).partition("</think>")[0]
        for left, right in re.findall(r"((?:\d+ [+*-] )+\d+) = (\d+)(?! \*)", thinking):
            assert _value(left) == int(right), thinking


def share_right(family: str, recheck: float, slip: float) -> float:
    rng = Random(3)
    drawn = problems("train", [family], 0, 0, 2000)
    return sum(trace(p, rng, recheck, 0.0, slip).endswith(f"{{{p.answer}}}") for p in drawn) / len(drawn)


def test_slips_make_wrong_answers():
    assert share_right("chain", 0.0, 0.0) == 1.0
    assert 0.65 < share_right("chain", 0.0, 0.1) < 0.75  # mean of 0.9^k over k = 1..6 is 0.70


def test_a_recheck_repairs_some_slips_and_says_so():
    repaired = 0
    for drawn in problems("train", FAMILIES, 0, 0, 400):
        text = trace(drawn, Random(drawn.id), 1.0, 0.0, 0.2)
        repaired += ", no\n" in text and text.endswith(f"{{{drawn.answer}}}")
    assert repaired > 40


def test_settings_of_zero_write_the_shortest_trace():
    three_steps = Problem(id="", text="Modulo 10, left to right: 7 + 5 * 3 - 8", answer="8", family="chain", level=3)
    assert trace(three_steps, Random(0), 0, 0, 0) == "7 + 5 -> 2\n2 * 3 - 8\n2 * 3 -> 6\n6 - 8\n6 - 8 -> 8\n</think>\n\\boxed{8}"


def test_recheck_and_rederive_lengthen():
    def characters(recheck: float, rederive: float) -> int:
        rng = Random(5)
        return sum(len(trace(p, rng, recheck, rederive, 0.04)) for p in problems("train", FAMILIES, 0, 0, 400))

    assert characters(0, 0) < characters(0.6, 0) < characters(0.6, 0.45)
    assert characters(0, 0) < characters(0, 0.45)


def test_train_and_held_out_problems_are_disjoint_whatever_the_seed():
    held_out = {p.text for seed in (0, 1) for p in problems("heldout", FAMILIES, seed, 0, HELD_OUT_PER_FAMILY * len(FAMILIES))}
    train = {p.text for seed in (0, 1) for p in problems("train", FAMILIES, seed, 0, 8000)}
    assert not held_out & train
    assert all(map(is_held_out, held_out)) and not any(map(is_held_out, train))


def test_swapped_factors_and_addends_are_on_the_same_side():
    for a in range(10, 60):
        assert is_held_out(f"Multiply: {a} * 47") == is_held_out(f"Multiply: 47 * {a}")
        assert is_held_out(f"Add: {a} + 47 + 9") == is_held_out(f"Add: 9 + 47 + {a}")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reasoner_that_always_slips_comes_to_an_end(family: str):
    hard = problem(family, LEVELS[family], Random(0))
    for seed in range(20):
        assert "\\boxed{" in trace(hard, Random(seed), 1.0, 1.0, 1.0)


def test_held_out_problems_have_no_duplicates_and_are_balanced():
    held_out = problems("heldout", FAMILIES, 0, 0, HELD_OUT_PER_FAMILY * len(FAMILIES))
    assert len({p.text for p in held_out}) == len({p.id for p in held_out}) == HELD_OUT_PER_FAMILY * len(FAMILIES)
    assert Counter(p.family for p in held_out) == dict.fromkeys(FAMILIES, HELD_OUT_PER_FAMILY)
    assert Counter((p.family, p.level) for p in held_out) == {(f, level): HELD_OUT_PER_FAMILY // LEVELS[f] for f, level in CELLS}


@given(start=st.integers(0, 10**6), count=st.integers(0, 30), seed=st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_a_position_is_enough_to_resume(start: int, count: int, seed: int):
    whole = problems("train", FAMILIES, seed, start, count + 5)
    assert problems("train", FAMILIES, seed, start + count, 5) == whole[count:]


def test_an_id_names_one_problem_whichever_families_are_asked_for():
    by_id = {p.id: p for p in problems("train", FAMILIES, 0, 0, 400)}
    alone = problems("train", ["product"], 0, 0, 100)
    assert all(by_id[p.id] == p for p in alone)


def test_seeds_draw_different_problems():
    assert [p.text for p in problems("train", FAMILIES, 0, 0, 50)] != [p.text for p in problems("train", FAMILIES, 1, 0, 50)]


@pytest.mark.parametrize(
    ("split", "families", "count", "sentence"),
    [
        ("test", FAMILIES, 1, "split 'test' does not exist"),
        ("train", ["chian"], 1, r"families \['chian'\] do not exist; choose from chain"),
        ("heldout", ["chain"], 241, "241 held-out problems from number 0 on were asked for, 240 exist for chain"),
    ],
)
def test_bad_requests_are_refused(split: str, families: list[str], count: int, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        problems(split, families, 0, 0, count)  # type: ignore[arg-type]


def test_a_tiny_problem_knows_what_its_cold_start_takes_where_a_recipe_asks_for_columns():
    [problem] = problems("train", ["chain"], 0, 7, 1)
    verbose, plain = (with_reference(problem, Tiny(recheck=share, rederive=share, slip=0.0)).columns for share in (0.9, 0.0))
    assert verbose == with_reference(problem, Tiny(recheck=0.9, rederive=0.9, slip=0.0)).columns
    assert verbose["reference_tokens"] > plain["reference_tokens"] > 5 and verbose["reference_spread"] > plain["reference_spread"] >= 0
    assert plain["reference_accuracy"] == 1.0 and with_reference(problem, Tiny(slip=1.0, recheck=0.0)).columns["reference_accuracy"] < 1.0
