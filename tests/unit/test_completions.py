"""Completions in the forms in which tools and APIs keep them: text, thinking that stands apart, how each ended."""

from __future__ import annotations

import pytest

from rewards.completions import Said, completions
from rewards.rows import Row
from rewards.verifier.judge_file import paths_of, read_pairs

THOUGHT, TEXT = "One and one.", "It is \\boxed{2}."
MESSAGE = {"role": "assistant", "content": TEXT, "reasoning_content": THOUGHT}
PARTS = [{"type": "reasoning", "reasoning": THOUGHT}, {"type": "text", "text": TEXT}]
OPENAI = {"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "length"}], "usage": {"completion_tokens": 9}}
RESPONSE = {
    "status": "completed",
    "error": None,
    "output": [
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": THOUGHT}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": TEXT, "annotations": []}]},
    ],
}
GEMINI = [{"content": {"role": "model", "parts": [{"text": THOUGHT, "thought": True}, {"text": TEXT}]}, "finishReason": "MAX_TOKENS"}]


@pytest.mark.parametrize(
    ("value", "finish"),
    [
        (MESSAGE, ""),
        ([{"role": "user", "content": "1 + 1?"}, MESSAGE], ""),
        (OPENAI, "length"),
        (OPENAI["choices"], "length"),
        ({"status_code": 200, "body": OPENAI}, "length"),
        ({"role": "assistant", "content": PARTS}, ""),
        (PARTS, ""),
        ([{"type": "thinking", "thinking": THOUGHT, "signature": "x"}, {"type": "text", "text": TEXT}], ""),
        (
            {"content": [{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": TEXT}], "stop_reason": "max_tokens"},
            "max_tokens",
        ),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}, {"type": "text", "text": TEXT}], ""),
        (RESPONSE, "completed"),
        (RESPONSE["output"], ""),
        (RESPONSE | {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "max_output_tokens"),
        (RESPONSE | {"status": "incomplete"}, "incomplete"),
        ({"candidates": GEMINI}, "MAX_TOKENS"),
        ({"model": "m", "choices": [{"message": {"content": PARTS}, "stop_reason": "stop"}], "completion": TEXT}, "stop"),
        ({"text": TEXT, "reasoning": THOUGHT, "reasoning_effort": "high"}, ""),
        ({"role": "assistant", "reasoning": THOUGHT, "content": [{"type": "text", "text": TEXT}]}, ""),
    ],
)
def test_thinking_that_stands_apart_belongs_to_its_completion(value: object, finish: str) -> None:
    assert list(completions(value, "here")) == [Said(TEXT, THOUGHT, finish)]


@pytest.mark.parametrize("role", ["user", "system", "developer", "tool", "function"])
def test_a_chat_that_ends_with_anothers_turn_answers_nothing(role: str) -> None:
    assert list(completions([MESSAGE, {"role": role, "content": "7"}], "here")) == [Said("")]


def test_a_word_that_says_how_much_to_think_is_no_thinking_and_an_empty_list_no_completion() -> None:
    for flag in ("high", " On ", "auto"):
        assert list(completions({"text": TEXT, "reasoning": flag}, "here")) == [Said(TEXT)]
    assert list(completions([], "here")) == []


def test_an_answer_that_was_never_reached_leaves_its_thinking_open_and_marks_in_the_text_stand_for_themselves() -> None:
    assert Said(TEXT, THOUGHT).whole == f"<think>\n{THOUGHT}</think>\n\n{TEXT}"
    assert Said("", THOUGHT, "length").whole == f"<think>\n{THOUGHT}"
    assert Said(f"<think>a</think>{TEXT}", THOUGHT).whole == f"<think>a</think>{TEXT}"


@pytest.mark.parametrize("held", [{"reasoning": ["a", "b"]}, {"reasoning_content": "['a' 'b']"}, {"thinking": [["a"], [{"text": "b"}]]}])
def test_thinking_of_several_completions_stands_in_a_list_beside_them(held: dict[str, object]) -> None:
    rows = [Row("in:1", "1", {"gold": "2", "completions": ["x", "y"]} | held)]
    assert [(pair.text, pair.thoughts) for pair in read_pairs(rows, paths_of(rows))] == [("x", "a"), ("y", "b")]


def test_thinking_of_another_number_of_completions_is_nobodys() -> None:
    rows = [Row("in:1", "1", {"gold": "2", "completions": ["x", "y"], "reasoning": ["a", "b", "c"]})]
    assert [(pair.text, pair.thoughts) for pair in read_pairs(rows, paths_of(rows))] == [("x", ""), ("y", "")]


@pytest.mark.parametrize(
    ("row", "finish"),
    [
        ({"prediction": "", "error": "timeout"}, "abort"),
        ({"prediction": "", "error": None}, "stop"),
        ({"prediction": "", "error": float("nan")}, "stop"),
        ({"prediction": "x", "error": "of the judge"}, "stop"),
        ({"prediction": {"choices": [{"message": {"content": None}}], "error": {"code": 500}}}, "abort"),
        ({"prediction": {"choices": [{"message": {"content": "x"}}], "error": {"code": 500}}}, "stop"),
        ({"prediction": "x", "truncated": True}, "length"),
        ({"prediction": "x", "truncated": False}, "stop"),
    ],
)
def test_a_failure_is_no_answer_and_a_flag_says_what_was_cut(row: dict[str, object], finish: str) -> None:
    rows = [Row("in:1", "1", {"gold": "2"} | row)]
    assert [pair.finish for pair in read_pairs(rows, paths_of(rows))] == [finish]


FAILED = {"status": "failed", "error": {"code": "x"}, "output": [], "usage": None}


@pytest.mark.parametrize(
    ("value", "finish"),
    [
        (FAILED, "abort"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": []}, "length"),
        ({"status_code": 200, "body": FAILED}, "abort"),
        ({"status_code": 429, "body": {"error": {"message": "slow down"}}}, "abort"),
        ({"choices": [], "completion": "", "error": "boom"}, "abort"),
        ({"candidates": [], "promptFeedback": {"blockReason": "OTHER"}}, "abort"),
        ({"candidates": [{"content": {"role": "model"}, "finishReason": "MAX_TOKENS"}]}, "length"),
        ({"candidates": [{"finishReason": "SAFETY"}]}, "abort"),
        ({"role": "assistant", "content": [], "stop_reason": "max_tokens"}, "length"),
        ({"type": "error", "error": {"type": "overloaded_error"}}, "abort"),
        ({"type": "errored", "error": {}}, "abort"),
    ],
)
def test_what_was_cut_or_failed_before_it_said_anything_is_no_finished_answer(value: object, finish: str) -> None:
    rows = [Row("in:1", "1", {"gold": "2", "response": value})]
    assert [(pair.text, pair.finish) for pair in read_pairs(rows, paths_of(rows, None, "response"))] == [("", finish)]


def test_each_of_several_completions_has_its_own_flag_and_thinking_beside_it() -> None:
    rows = [Row("in:1", "1", {"gold": "2", "model_response": {"text": ["x", "y"], "reasonings": ["a", None]}, "truncated": [True, False]})]
    assert [(pair.text, pair.thoughts, pair.finish) for pair in read_pairs(rows, paths_of(rows))] == [
        ("x", "a", "length"),
        ("y", "", "stop"),
    ]


def test_of_choices_the_gold_is_the_one_that_its_index_names() -> None:
    rows = [Row("in:1", "1", {"doc": {"choices": ["A", "B", "C"], "gold_index": 1}, "prediction": "B"})]
    assert [pair.golds for pair in read_pairs(rows, paths_of(rows))] == [["B"]]
    rows = [Row("in:1", "1", {"doc": {"choices": ["A", "B", "C"], "gold_index": 7}, "prediction": "B"})]
    with pytest.raises(ValueError, match="gold_index 7 names none of its 3 choices"):
        read_pairs(rows, paths_of(rows))
