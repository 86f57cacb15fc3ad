r"""Equality of answers: the tables of section A4 (math-verify 0.9.0) and M1, row by row, and the path that needs no algebra."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.compare import as_number, compare_quickly
from rewards.symbolic import BadGold, compare, compare_symbolically, gold_fault, gold_parses

A4 = [  # gold, answer, equal
    (r"10\%", "0.1", True),
    (r"10\%", "10", True),
    ("50", "0.5", False),
    (r"\{1,2\}", "2,1", True),
    ("(1,2)", r"\{1,2\}", True),
    ("(1,2)", "1,2", True),
    ("(2,1)", "(1,2)", False),
    ("[1,2]", "(1,2)", False),
    ("1<x<2", "(1,2)", True),
    ("(1,2)", "1<x<2", False),
    ("x<1", r"(-\infty,1)", True),
    (r"(-\infty,1)", "x<1", False),
    (r"(-\infty,1)\cup(2,\infty)", "x<1 or x>2", False),
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
    (r"\sqrt{1/n}", r"\frac{1}{\sqrt n}", False),
]
LEDGER = A4 + M1


@pytest.mark.parametrize(("gold", "answer", "equal"), LEDGER)
def test_known_pairs_are_judged_as_the_tables_say(gold, answer, equal):
    assert compare(gold=gold, answer=answer)[0] is equal


@pytest.mark.parametrize(
    ("text", "value"),  # the integer path of section A4, then our own
    [
        ("1,000", 1000), ("27.0", 27), ("070", 70), ("$18", 18), ("145.0", 145), (r"\$18", 18), ("-5", -5), ("+5", 5), ("−5", -5), ("-$5", -5), ("$-5$", -5), ("5.", 5), (".5", Fraction(1, 2)),
        (r"1{,}000", 1000), (r"11,\! 111,\! 111", 11111111), (r"1\,000", 1000), ("12,345,678.90", Fraction("12345678.9")), (r"\text{13}", 13), (r"5\text{ cm}", 5), (r"5 \, \text{cm}", 5),
        ("€7", 7), (r"50\%", 50), ("0", 0), ("000", 0), (r"\boxed{4}", 4),
    ],
)  # fmt: skip
def test_plain_numbers_are_read_exactly(text, value):
    assert as_number(text)[0] == value


@pytest.mark.parametrize(
    "text",
    [
        "3/4",
        "",
        "x",
        "1,00",
        "1,2",
        "2 3",
        r"2\text{ or }3",
        "1e5",
        "1.2.3",
        "--5",
        "-",
        ".",
        "%",
        "(5)",
        "٣",
        "1, 000",
        r"\frac{1}{2}",
        "9" * 5000,
    ],
)
def test_what_is_not_plainly_a_number_is_left_to_symbolic_comparison(text):
    assert as_number(text) is None


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
    assert compare_quickly(gold="0.0000001", answer="0.0000002") == (False, "decimal")
    assert compare_quickly(gold="0.0000001", answer="0") == (False, "decimal")
    assert compare_quickly(gold="0.333333", answer="0.3333333") == (True, "decimal")
    assert compare_quickly(gold="1234567.5", answer="1234567.6") == (False, "decimal")


def test_percent_signs_on_both_sides_must_agree():
    assert compare_quickly(gold=r"10\%", answer=r"0.1\%") == (False, "decimal")
    assert compare_quickly(gold=r"10\%", answer="10%") == (True, "integer")


def test_an_answer_is_too_long_beyond_300_characters_or_twice_the_gold():
    assert compare_quickly(gold="1", answer="1" * 300) == (False, "integer")
    assert compare_quickly(gold="1", answer="1" * 301) == (False, "too long")
    gold = "x" * 200
    assert compare_quickly(gold=gold, answer="x" * 400) is None
    assert compare_quickly(gold=gold, answer="x" * 401) == (False, "too long")


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
    assert gold_parses("x+1") and not gold_parses(r"\frac{")


@pytest.mark.parametrize(("gold", "answer", "equal"), [row for row in LEDGER if row[2]])
def test_every_gold_of_the_ledger_equals_itself(gold, answer, equal):
    assert compare_symbolically(gold=gold, answer=gold)[0]
