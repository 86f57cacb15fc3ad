"""The verifier's rewrites as named steps: which of them did what to an answer, and that their order is what it has to be."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.verifier.algebra import _SAID_PLAINLY
from rewards.verifier.steps import Stage, Step, rewritten, sub, traced
from rewards.verifier.tidy import TIDYING, tidy
from rewards.verifier.units import _PLAIN, known_unit

THREE = [
    Stage((sub("a to b", "a", "b"), Step("twice", lambda text: text * 2))),
    Stage((sub("b to c", "b", "c"),), lambda text: len(text) > 2),
]


def test_each_step_sees_what_the_one_before_it_left_and_a_stage_is_asked_once():
    assert rewritten(THREE, "ab") == "cccc" and list(traced(THREE, "ab")) == [("a to b", "bb"), ("twice", "bbbb"), ("b to c", "cccc")]
    assert rewritten(THREE, "a") == "bb" and [name for name, _ in traced(THREE, "a")] == ["a to b", "twice"]
    assert rewritten(THREE, "") == "" and list(traced(THREE, "")) == []


@pytest.mark.parametrize(
    ("text", "steps", "left"),
    [
        (r"\boxed{\dfrac12}", ["box and delimiters", "one name for each command", "fractions without braces"], r"\frac{1}{2}"),
        ("$1{,}000$", ["box and delimiters", "commas in braces", "thousands"], "1000"),
        (r"5\!,000\,\text{ cm}", ["commas of thousands", "thin spaces", "thousands", "thin spaces that are left"], r"5000 \text{ cm}"),
        (r"(2,\,3)", ["thin spaces", "thin spaces that are left"], "(2, 3)"),
        ("$5.50", ["money"], r"5.50\text{ dollars}"),
        ("US $5", ["US before dollars", "money"], r"5\text{ dollars}"),
        ("**$120^{th}$**", ["endings of ordinals", "bold", "box and delimiters inside"], "120"),
        (r"\\frac{1}{2}", ["backslashes written twice"], r"\frac{1}{2}"),
        ("0.3 repeating", ["repeating decimals"], r"0.\overline{3}"),
        (r"\text{The answer is } 7", ["lead-ins"], "7"),
        ("101 base two", ["bases in words"], "101_{two}"),
        ("3 (mod 7)", ["moduli in words"], r"3 \pmod{7}"),
        (r"\pi + 3 (mod 7)", ["moduli"], r"\pi + 3 \pmod{7}"),  # with a command, those of LaTeX come first
        ("2007", [], "2007"),
    ],
)
def test_it_can_be_asked_which_step_did_what_to_an_answer(text: str, steps: list[str], left: str):
    assert [name for name, _ in traced(TIDYING, text)] == steps
    assert tidy(text) == left


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ("commas of thousands", "wide spaces", r"5\!,000"),
        ("ratios", "wide spaces", r"3\!:\!4"),
        ("letters of an alphabet", "number sets in bold", r"x \in \mathbf R"),
        ("one name for each command", "fractions without braces", r"\dfrac12"),
        ("braces of words", "units of one letter", r"5\text {m}"),
        ("thousands", "commas that are left", r"5\!,000"),
        ("thousands", "thin spaces that are left", r"5\,000"),
    ],
)
def test_where_the_order_of_two_steps_matters_another_order_is_another_answer(first: str, second: str, text: str):
    steps = {step.name: step for stage in TIDYING for step in stage.steps}
    assert list(steps).index(first) < list(steps).index(second)
    swapped = {first: steps[second], second: steps[first]}
    others = [stage._replace(steps=[swapped.get(step.name, step) for step in stage.steps]) for stage in TIDYING]
    found = rewritten(others, text)
    assert found != tidy(text), found


@pytest.mark.parametrize("stages", [TIDYING, [_SAID_PLAINLY], [_PLAIN]], ids=["tidy", "formulas", "units"])
def test_every_step_has_a_name_of_its_own(stages: list[Stage]):
    names = [step.name for stage in stages for step in stage.steps]
    assert max(Counter(names).values()) == 1 and all(re.fullmatch(r"\w[\w -]+", name) for name in names)


@given(st.text(alphabet=r"\${}^_,.()0123456789abmx !%*=½√²′°#~" + "\n", max_size=40))
def test_the_trace_of_an_answer_ends_at_its_common_form(text: str):
    assert ([text] + [left for _, left in traced(TIDYING, text)])[-1] == tidy(text)


def test_units_and_formulas_go_through_steps_of_their_own():
    assert [name for name, _ in traced([_PLAIN], r"\frac{\text{m}}{\text{s}}.")] == ["words laid bare", "quotients", "ends", "slashes"]
    assert known_unit(r"\frac{\text{m}}{\text{s}}.") == known_unit("m per s")
    assert dict(traced([_SAID_PLAINLY], "2(3)")) == {"products before brackets": r"2\cdot (3)"}
    assert [name for name, _ in traced([_SAID_PLAINLY], "1e5")] == ["scientific notation"]
