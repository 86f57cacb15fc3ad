r"""Equality of answers: the known pairs that plain math-verify 0.9.0 judges, row by row, with what we say where we differ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.verifier.compare import compare_quickly
from rewards.verifier.symbolic import BadGold, compare, compare_symbolically, gold_fault

A4 = [  # gold, answer, equal; "ours" where math-verify says the opposite
    (r"10\%", "0.1", True),
    (r"10\%", "10", True),
    ("50", "0.5", False),
    (r"\{1,2\}", "2,1", True),
    ("(1,2)", r"\{1,2\}", False),  # ours: a set is not a pair
    ("(1,2)", "1,2", True),
    ("(2,1)", "(1,2)", False),
    ("[1,2]", "(1,2)", False),
    ("1<x<2", "(1,2)", True),
    ("(1,2)", "1<x<2", True),  # ours: both directions
    ("x<1", r"(-\infty,1)", True),
    (r"(-\infty,1)", "x<1", True),  # ours: both directions
    (r"(-\infty,1)\cup(2,\infty)", "x<1 or x>2", True),  # ours: unions in words
    (r"\sqrt{2}", "1.41421356", True),
    (r"\sqrt{2}", "1.4142", False),
    (r"\frac{1}{3}", "0.333333", True),
    (r"\frac{1}{3}", "0.33333", False),
    ("70", "070", True),
    (r"90^\circ", "90", True),
    ("11_2", "11", True),
    ("y=2x+1", "2x+1", True),
    ("1000", "1,000", True),
]
M1 = [  # what plain math-verify gets wrong and this does not, and what stays as it is
    (r"1,2,\ldots,n", r"1,3,5,\ldots,2n-1", False),
    ("3*x-1*y+13=0", "3x + 4y + 14=0", False),
    (r"\left(3,\frac{\pi}{2}\right)", r"$(3,\frac{\pi}{2})$", True),
    ("42", "I think 42", False),
    ("42", r"42\%", True),
    ("0.42", r"42\%", True),
    (r"\frac{1}{2}", r"\frac12", True),
    ("13", r"\text{13}", True),
    (r"\sqrt{1/n}", r"\frac{1}{\sqrt n}", True),
    (r"1-\frac{1}{\mathrm{e}}", r"1+\frac{1}{\mathrm{e}}", False),
    (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}", False),
    (r"\frac{1}{2004!}", r"\frac{1}{2006!}", False),
    (r"\frac{2^{2005}+1}{3\cdot2^{2006}}", r"\frac{1}{3\cdot2^{2006}}", False),
]
LEDGER = A4 + M1


@pytest.mark.parametrize(("gold", "answer", "equal"), LEDGER)
def test_known_pairs_are_judged_as_the_tables_say(gold, answer, equal):
    assert compare(gold=gold, answer=answer)[0] is equal


@given(st.integers(-(10**30), 10**30), st.integers(0, 5))
def test_every_way_to_write_an_integer_is_right_and_its_neighbour_wrong(n, zeros):
    sign = "-" if n < 0 else ""
    for text in (
        str(n),
        f"{n}.",
        f"{n}.{'0' * (zeros + 1)}",
        f"{sign}{'0' * zeros}{abs(n)}",
        f"{n:,}",
        f"${n}$",
        rf"\text{{{n}}}",
        f" {n} ",
    ):
        assert compare_quickly(gold=str(n), answer=text) == (True, "integer")
    assert compare_quickly(gold=str(n), answer=str(n + 1)) == (False, "integer")


def test_tiny_decimals_are_not_all_zero():
    assert compare_quickly(gold="0.0000001", answer="0.0000002") == (False, "number")
    assert compare_quickly(gold="0.0000001", answer="0") == (False, "number")
    assert compare_quickly(gold="0.333333", answer="0.3333333") == (True, "number")
    assert compare_quickly(gold="1234567.5", answer="1234567.6") == (False, "number")


def test_percent_signs_on_both_sides_must_agree():
    assert compare_quickly(gold=r"10\%", answer=r"0.1\%") == (False, "number")
    assert compare_quickly(gold=r"10\%", answer="10%") == (True, "integer")


def test_an_answer_is_too_long_beyond_300_characters_or_twice_the_gold():
    assert compare_quickly(gold="1", answer="1" * 300) == (False, "integer")
    assert compare_quickly(gold="1", answer="1" * 301) == (False, "too long")
    gold = "x+" * 100 + "1"
    assert compare_quickly(gold=gold, answer="x+" * 200) is None
    assert compare_quickly(gold=gold, answer="x+" * 202) == (False, "too long")


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("3+2=5\n#### 1,200", "1200", True), ("3+2=5\n#### 1,200", "5", False), (r"\boxed 3", "3", True), ("5", r"\text{The answer is } 5", True), ("5", r"\text{The answer is 5.}", True),
        ("5", r"\text{There are } 5 \text{ solutions}", True), ("5", r"\text{There are } 6 \text{ solutions}", False), ("5", r"5\text{ (since }x>0)", True), ("5", r"\text{exactly } 5", True),
        ("5", r"\text{The answer is not } 5", False), ("5", r"\text{There are at least } 5", False), ("5", r"\text{There are } 5 \text{ or } 6", False), ("5", r"\text{half of it is } 5", False),
        ("5", r"\text{There are more than } 5", False), ("5", r"5\text{ since }x>0\text{ or } 6", False), (r"(1,2)", r"\langle 1,2\rangle", True), (r"(1,2)", r"\langle 2,1\rangle", False),
        (r"\binom{10}{3}", r"{10\choose3}", True), (r"\binom{10}{3}", r"{10\choose4}", False), ("5", r"\color{blue}{5}", True), ("5", r"\textcolor{red}{6}", False), ("7", r"\underline{7}", True),
        ("7", r"{\bf 7}", True), ("7", "`7`", True), ("7", "`8`", False), (r"\mathbb{R}", r"\mathbf{R}", True), (r"\mathbb{R}", r"\mathbf{Z}", False), ("7", "7...", False),
    ],
)  # fmt: skip
def test_wrappings_and_sentences_around_one_value_are_taken_off(gold, answer, equal):
    assert compare(gold=gold, answer=answer)[0] is equal


def test_gold_and_answer_cannot_be_swapped_by_position():
    for function in (compare, compare_quickly, compare_symbolically):
        with pytest.raises(TypeError):
            function("1", "2")


@pytest.mark.parametrize("answer", ["", "{", r"\frac{", "\\", "}{", r"\begin{matrix}", "$", "\x00", "\ud800", "答案"])
def test_an_answer_that_is_no_formula_is_wrong(answer):
    assert compare(gold=r"\frac{1}{2}", answer=answer)[0] is False


@pytest.mark.parametrize("gold", ["", "  ", "$$"])
def test_an_empty_gold_is_an_error_not_a_verdict(gold):
    with pytest.raises(BadGold):
        compare(gold=gold, answer="1")


def test_a_gold_that_does_not_parse_is_an_error_unless_the_answer_is_the_same_text():
    broken = r"1-\frac{1}{\mathrm{e}"
    with pytest.raises(BadGold):
        compare(gold=broken, answer=r"\pi")
    assert compare(gold=broken, answer=broken) == (True, "same text")


def test_golds_are_audited():
    assert [gold_fault(gold) for gold in ("", r"\frac{", r"\frac12", r"\$5", "x<1")] == ["empty", "does not parse", None, None, None]


@pytest.mark.parametrize(("gold", "answer", "equal"), [row for row in LEDGER if row[2]])
def test_every_gold_of_the_ledger_equals_itself(gold, answer, equal):
    assert compare_symbolically(gold=gold, answer=gold)[0]


@pytest.mark.parametrize(("gold", "answer", "equal"), LEDGER)
def test_gold_and_answer_may_be_swapped(gold, answer, equal):
    if not ({gold, answer} & {r"\sqrt{2}", r"\frac{1}{3}", "I think 42"}):  # rounding is for golds, prose is no gold
        assert compare(gold=answer, answer=gold)[0] is equal
