r"""Choices, yes and no, names and phrases (docs/verifier.md, Words and choices)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.verifier.words import choices_rule, is_words, plain_words, words_rule

LETTERS = "ABCDEFGHIJ"


@given(st.sampled_from(LETTERS), st.sampled_from(LETTERS))
def test_a_letter_is_the_same_choice_however_it_is_marked_and_no_other(gold, letter):
    for answer in (
        letter,
        f"({letter})",
        rf"\text{{{letter}}}",
        rf"\textbf{{({letter})}}",
        f"{letter}.",
        f"{letter})",
        f"Option {letter}",
        f"({letter.lower()})",
    ):
        for marked in (gold, f"({gold})", rf"\text{{{gold}}}"):
            assert choices_rule(marked, answer) is (gold == letter)


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("B", "(B) 12", True), ("B", "(C) 12", False), ("(B) 12", "12", True), ("(B) 12", "13", False), ("(B) 12", "B", True), ("12", "(B) 12", True), ("13", "(B) 12", None),
        ("B", "A, B", None), ("B", "AB", None), ("(B) x+1", "y+2", None), ("(B) x+1", "x + 1", True), ("x", "y", None), ("(A) red", "red", True), ("(A) red", "blue", None), ("B", "12", None),
    ],
)  # fmt: skip
def test_an_option_may_be_named_by_its_letter_or_its_text(gold, answer, equal):
    assert choices_rule(gold, answer) is equal


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("Yes", "Yes, no", False), ("No", "No. Yes.", False), ("Yes", "Yes | No", False), ("Yes", "Yes if true, otherwise no", False), ("No", "No, but yes", False), ("Yes", "True, False", False),
        ("Yes", "Yes, or possibly no", False), ("Yes", "Yes, since no such x exists", True), ("No", "No, because it is not true for 2", True), ("Yes", "Yes, as no", False),
        ("DNE", "does not exist", True), ("no solution", "undefined", False), ("infinitely many", r"\text{infinitely many solutions}", True), ("infinitely many", "many", False),
        ("Yes", "yes", True), ("Yes", "Yes, because 2 is even", True), ("Yes", "True", True), ("Yes", "No", False), ("Yes", "yes and no", False), ("Yes", "yesterday", False), ("No", "not known", False),
        ("No", r"\text{no}", True), ("False", "no", True), (r"\text{Wanda}", "wanda", True), (r"\text{Wanda}", "Boris", False), (r"\text{Wanda}", "Wanda and Boris", False),
        ("even function", "an even function.", True), ("even", "neither even nor odd", False), ("even", "2", False), (r"\emptyset", "no solution", True), (r"\emptyset", r"\{0\}", None),
        ("no solution", r"\varnothing", True), ("all real numbers", r"(-\infty,\infty)", True), ("all real numbers", r"(0,\infty)", None), ("x+1", "x+1", None), ("5", "five", None),
    ],
)  # fmt: skip
def test_words_are_compared_as_words(gold, answer, equal):
    assert words_rule(gold, answer) is equal


@pytest.mark.parametrize(
    "answer",
    [
        "(A) (B)", "(A) or (B)", "(A), (B), (C)", "A. B", "A: B", "A) B) C)", "(A)/(B)", "(A) 1 (B) 2", "A. No wait, B", "(A) is wrong", "(A) is not correct", r"A. \text{ or } B.",
        r"\text{(A) and (B)}", "A. isn't it", "The answer is (A) or (B).",
    ],
)  # fmt: skip
def test_one_who_names_several_choices_or_takes_one_back_has_not_chosen(answer):
    assert choices_rule("A", answer) is False


@pytest.mark.parametrize("answer", ["A. 12", "(A) is correct", "(A) A triangle", "A) none of these", "(A) No solution", "A: $x+1$"])
def test_a_choice_may_be_followed_by_its_text_or_by_saying_that_it_is_right(answer):
    assert choices_rule("A", answer) is True
    assert choices_rule("B", answer) is False


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("ACD", "A, C, D", True), ("ACD", "(A), (C) and (D)", True), ("ACD", "A, C, and D", True), ("A,C", "AC", True), ("ACD", "A, C", None), ("ACD", "A, B, C, D", None), ("ACD", "A, C, E", None),
        ("BA", "A, B", None), ("A", "A, C", None), ("(a) 3 (b) 5", "(a) 3, (b) 5", True), ("(a) 3 (b) 5", "(a) 5 (b) 3", False), ("(a) 3 (b) 5", "(a) 3", None),
        ("e", "(E)", False), ("i", "I", False), ("b", "(B)", True),
    ],
)  # fmt: skip
def test_several_choices_are_the_same_letters_and_e_and_i_are_numbers(gold, answer, equal):
    assert choices_rule(gold, answer) is equal


@given(st.text(alphabet="abcdefgh ", min_size=3, max_size=20).filter(is_words))
def test_words_equal_themselves_in_every_wrapping(words):
    for answer in (words.upper(), rf"\text{{{words}}}", f"{words}.", f" the {words} "):
        assert words_rule(words, answer) is True


def test_what_holds_anything_but_words_is_no_words():
    assert plain_words("2 apples") == plain_words("x+1") == ""
    assert plain_words(r"\text{An even} function.") == "even function"
    assert is_words("odd") and not is_words("xy") and not is_words("")
