r"""Only the final answer is judged (promise P22): which part of a completion is the answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.thinking import KNOWN, Marks, split
from rewards.verifier.extract import bare, block_and_box, final_answer, last_box

FIXTURES = [  # completion, finish, thinking, answer or (None, reason)
    (r"<think>a</think>\boxed{7}", "stop", True, "7"),
    (r"<think>\boxed{42}", "stop", True, (None, "thinking not closed")),
    (r"<think>\boxed{42}", "stop", False, (None, "thinking not closed")),
    (r"<think>\boxed{42}", "length", True, (None, "unfinished")),
    (r"thinking in the prompt's block \boxed{42}", "stop", True, (None, "thinking not closed")),
    (r"thinking in the prompt's block \boxed{42}", "length", True, (None, "unfinished")),
    (r"so</think>\boxed{42}", "stop", True, "42"),
    (r"<think>\boxed{1}</think>\boxed{2}", "stop", True, "2"),
    (r"<think>\boxed{1}</think>it is one", "stop", True, (None, "no box")),
    (r"<think>\boxed{1}</think>", "stop", True, (None, "no box")),
    (r"<think>a</think>7", "stop", True, (None, "no box")),
    (r"<think>a</think>\boxed{7", "stop", True, (None, "no box")),
    (r"<think>a</think>\boxed{7", "length", True, (None, "no box")),
    (r"<think>a</think>\boxed{7} and", "length", True, "7"),
    (r"<think>a</think>\boxed{}", "stop", True, (None, "empty box")),
    (r"<think>a</think>\boxed{  }", "stop", True, (None, "empty box")),
    (r"<think>a</think>\boxed{1} then \boxed{2}", "stop", True, "2"),
    (r"<think>a</think>\boxed{2}, but \boxed{3", "stop", True, (None, "no box")),
    (r"<think>a</think>b</think>\boxed{3}", "stop", True, "3"),
    (r"<think>a</think>\boxed{3}</think>", "stop", True, (None, "no box")),
    (r"<think>a</think>\boxed{3}<think>wait", "stop", True, (None, "thinking not closed")),
    (r"<think>a</think>\boxed{3}<think>wait</think>\boxed{4}", "stop", True, "4"),
    (r"\boxed{2} and \boxed{3}", "stop", False, "2, 3"),
    (r"$\boxed{2}$, $\boxed{3}$ or \(\boxed{5}\).", "stop", False, "2, 3, 5"),
    (r"$\boxed{2} \quad \text{and} \quad \boxed{3}$", "stop", False, "2, 3"),
    ("Half is $\\boxed{3}$\n\n$$\\boxed{7}$$", "stop", False, "7"),
    ("Half is $\\boxed{3}$,\n\n$$\\boxed{7}$$", "stop", False, "7"),
    ("$x=\\boxed{2}$,\n$y=\\boxed{3}$", "stop", False, "x=2, y=3"),
    ("\\boxed{2}和\\boxed{3}", "stop", False, "2, 3"),
    ("$\\boxed{2}$、$\\boxed{3}$", "stop", False, "2, 3"),
    ("$\\boxed{2}$ \\text{ 或 } $\\boxed{3}$", "stop", False, "2, 3"),
    ("$x=\\boxed{2}$，$y=\\boxed{3}$", "stop", False, "x=2, y=3"),
    ("\\boxed{2} 또는 \\boxed{3}", "stop", False, "2, 3"),
    ("$$\\boxed{2}$$\n\nor\n\n$$\\boxed{3}$$", "stop", False, "2, 3"),
    (r"\boxed{2}, no: \boxed{3}", "stop", False, "3"),
    (r"\boxed{7}, \boxed{7}", "stop", False, "7"),
    (r"<think>\boxed{2}</think>\boxed{3}", "stop", False, "3"),
    (r"\boxed{5}", "stop", False, "5"),
    (r"\boxed{5} cut off he", "length", False, "5"),
    (r"maybe 13", "length", False, (None, "no box")),
    (r"the answer is 13", "stop", False, (None, "no box")),
    (r"\fbox{5}", "stop", False, "5"),
    (r"\boxed {5}", "stop", False, "5"),
    (r"\boxed5", "stop", False, "5"),
    (r"so $\boxed 72$.", "stop", False, "72"),
    (r"$\boxed x$", "stop", False, "x"),
    (r"\boxed 7^2", "stop", False, (None, "no box")),
    (r"\boxed 7x", "stop", False, (None, "no box")),
    (r"\boxed a nice thing", "stop", False, (None, "no box")),
    (r"\boxed{2} and \boxed3", "stop", False, "2, 3"),
    (r"\framebox{5}", "stop", False, "5"),
    (r"\boxed{5}. The final answer is 7.", "stop", False, "5"),
    (r"\boxed{\frac{1}{\sqrt{2}}}", "stop", False, r"\frac{1}{\sqrt{2}}"),
    (r"\boxed{\{1,2\}}", "stop", False, r"\{1,2\}"),
    ("", "stop", False, (None, "no box")),
    ("", "length", True, (None, "unfinished")),
]


@pytest.mark.parametrize(("text", "finish", "thinking", "expected"), FIXTURES)
def test_p22_only_the_final_answer_is_judged(text, finish, thinking, expected):
    assert final_answer(text, finish=finish, thinking=thinking) == (expected if isinstance(expected, tuple) else (expected, ""))


@pytest.mark.parametrize(
    ("text", "box"),  # the last-box check of section A4
    [
        (r"\boxed{1} then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\text{a}_{3}} x", r"\text{a}_{3}"),
        (r"\boxed{4", None),
        (r"\boxed{2}, but \boxed{3", None),
        (r"\boxed{\boxed{6}}", "6"),
        (r"\mbox{4}", None),
    ],
)
def test_the_last_balanced_box_counts_and_a_broken_one_hides_earlier_ones(text, box):
    assert last_box(text) == box


def test_the_answer_segment_starts_behind_the_last_closing_tag():
    assert split("a</think>b</think>c") == ("a</think>b</think>", "c")
    assert split("plain") == ("", "plain")
    assert split("plain", thinking=True) == ("plain", None)
    assert split("[T]a[/T]b", Marks("[T]", "[/T]")) == ("[T]a[/T]", "b")


@pytest.mark.parametrize("marks", KNOWN, ids=lambda marks: marks.open)
def test_p22_thinking_that_never_closed_is_no_answer_in_any_known_models_marks(marks):
    box = r"\boxed{42}"
    for own in (None, marks):
        assert final_answer(f"{marks.open}I try {box}. Wait", finish="length", thinking=False, marks=own) == (None, "unfinished")
        assert final_answer(f"{marks.open}no\\boxed{{1}}{marks.close}It is {box}.", finish="stop", thinking=False, marks=own) == ("42", "")
        assert final_answer(f"I try {box}{marks.close}", finish="stop", thinking=True, marks=own) == (None, "no box")
        assert final_answer(f"a{marks.close}{box}{marks.open}wait", finish="stop", thinking=True, marks=own) == (
            None,
            "thinking not closed",
        )


GRANITE = [Marks(f"Here{say} my thought process:", f"Here{say} my response:") for say in (" is", "'s", "\u2019s")]


@pytest.mark.parametrize("own", [None, *GRANITE])
@pytest.mark.parametrize("opens", GRANITE)
@pytest.mark.parametrize("closes", GRANITE)
def test_p22_a_model_that_writes_its_marks_in_several_ways_is_read_in_all_of_them(own: Marks | None, opens: Marks, closes: Marks):
    for end in (" maybe \\boxed{5}", " It is \\boxed{5}.", " so \\boxed{5} and"):
        assert final_answer(opens.open + end, finish="length", thinking=False, marks=own) == (None, "unfinished")
    whole = f"{opens.open} 2 + 3, \\boxed{{4}}? No. {closes.close} \\boxed{{5}}"
    assert final_answer(whole, finish="length", thinking=False, marks=own) == ("5", "")
    if own is not None:
        assert all(block_and_box(whole, opened=False, marks=own)) and not all(
            block_and_box(f"{opens.open}{whole}", opened=False, marks=own)
        )


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("think\nI try \\boxed{42} and then", None),
        ("think\nI try \\boxed{41}\nanswer\nIt is \\boxed{42}", "42"),
        ("analysisI try \\boxed{41}assistantfinalIt is \\boxed{42}", "42"),
        ("analysisI try \\boxed{41}, but then", None),
        ("think\nTwo and two make four. It is \\boxed{4}.", "4"),
        ("I think \\boxed{42}", "42"),
    ],
)
def test_marks_that_a_decoder_has_stripped_are_known_by_what_is_left(text, answer):
    assert final_answer(text, finish="stop", thinking=False)[0] == answer


@given(st.text(alphabet="ab{}\\<>/think boxed$", max_size=80))
def test_what_is_in_the_thinking_never_becomes_the_answer(thought):
    thought = thought.replace("</think>", "")
    assert final_answer(f"<think>{thought}</think>\\boxed{{9}}", finish="stop", thinking=True) == ("9", "")
    assert final_answer(f"<think>{thought}</think>nine", finish="stop", thinking=True) == (None, "no box")


@given(st.recursive(st.text(alphabet="ab1 ", max_size=5), lambda inner: st.builds("{{{}}}{}".format, inner, inner), max_leaves=12))
def test_any_balanced_content_comes_back_whole(content):
    assert last_box(rf"x \boxed{{{content}}} y") == content


def test_extraction_is_linear_in_the_text():
    assert last_box(r"\boxed{" * 50_000) is None
    assert last_box("{" * 200_000 + r"\boxed{1}") == "1"


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        (r"<think>a</think>\boxed{1}", False, True),
        (r"a</think>so \boxed{1}.", True, True),
        (r"a</think>\boxed{1}", False, False),  # no block was ever opened
        (r"<think>a</think>\boxed{1}", True, False),  # the prompt opened one already
        (r"<think>a\boxed{1}", False, False),
        (r"<think>a</think>1", False, False),
        (r"<think>a</think>\boxed{1} \boxed{1}", False, False),
        (r"<think>a</think>b</think>\boxed{1}", False, False),
        (r"<think>a</think><think>b</think>\boxed{1}", False, False),
        (r"<think>\boxed{2}</think>\boxed{1}", False, True),
        (r"<think>a</think>\boxed{1", False, False),
        ("", False, False),
    ],
)
def test_well_formed_is_one_closed_thinking_block_then_one_box(text, opened, expected):
    assert all(block_and_box(text, opened=opened)) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$5$", "5"),
        (r"\(5\)", "5"),
        (r"\[ 5 \]", "5"),
        (r"\boxed{4}", "4"),
        ("$1$ and $2$", "$1$ and $2$"),
        (r"\$5", r"\$5"),
        ("5.", "5"),
        ("2*36 = 72\n#### 72", "72"),
        ("#### 1,200", "1,200"),
        ("#### 72\nno, 73", "#### 72\nno, 73"),
        (r"so it is $x=\boxed{4}$ as was shown", "4"),
        ("$", "$"),
    ],
)
def test_bare_takes_off_one_wrapping_and_keeps_the_rest(text, expected):
    assert bare(text) == expected
