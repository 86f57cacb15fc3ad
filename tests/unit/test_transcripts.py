"""Texts whose tokens nobody has: what they come to in ids, lengths and marks."""

from __future__ import annotations

from typing import Any

import pytest

from recipes.data import Data
from rewards.thinking import Marks
from rollout.transcripts import completion, spoken, transcripts

END = ord("$")


@pytest.mark.parametrize(
    ("text", "finish", "ids", "said"),
    [
        ("ab", "stop", "ab$", "ab"),
        ("ab", "length", "ab", "ab"),
        ("ab$", "stop", "ab$", "ab"),  # the text holds its end already
        ("ab$", "length", "ab$", "ab$"),
        ("", "stop", "$", ""),
        ("a\ud800", "stop", "a?$", "a?"),  # half a character
    ],
)
def test_a_completion_that_ended_by_itself_is_its_text_and_one_end_of_turn(text: str, finish: Any, ids: str, said: str):
    made = completion(transcripts(Data(), ends=(END, 7)), text, finish, version=3)
    assert "".join(map(chr, made.ids)) == ids and made.text == said
    assert made.versions.tolist() == [3] * len(ids)
    bare = completion(transcripts(Data()), text, finish)
    assert len(bare.ids) == len(text)


def test_marks_of_thinking_are_the_recipes_then_those_that_are_known():
    data = Data.model_validate({"thinking": ["<a>", "</a>"]})
    assert [transcripts(one, marks=marks).marks.open for one in (data, Data()) for marks in (Marks("<b>", "</b>"), None)] == [
        "<a>",
        "<a>",
        "<b>",
        "<think>",
    ]


def test_thinking_that_was_said_apart_is_opened_once_and_closed_where_an_answer_follows():
    marks = Marks("<a>", "</a>")
    assert spoken(marks, "hm", "7", opened=False) == "<a>\nhm</a>\n\n7"
    assert spoken(marks, "hm", "7", opened=True) == "hm</a>\n\n7"
    assert spoken(marks, "hm", "", opened=False) == "<a>\nhm"
    assert spoken(marks, "", "7", opened=False) == "7"
