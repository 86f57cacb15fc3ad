"""What sft learns from: chats, prompts and completions in the layouts that people have; the prompt of inference, the answer behind it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from recipes.schema import Data, DataSet
from rewards.rows import DataError
from rl.supervised import drawn
from rollout.chats import Conversation, conversations, examples
from rollout.template import Template, TemplateError, load_template
from rollout.types import Example

WORKED = "First we add four to three, which makes seven, so the answer is 7."
CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
ASKED = [("user", "q")]
THOUGHT = "<think>\n1 + 2 = 3\n</think>\n\\boxed{3}"


def read(folder: Path, *rows: Any, **columns: str) -> Any:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return conversations(DataSet(source=str(file), **columns))


def said(found: Any) -> list[tuple[list[tuple[str, str]], str]]:
    return [([(turn["role"], turn["content"]) for turn in one.turns], one.answer) for one in found]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": CHAT}, [(ASKED, "a")]),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, [(ASKED, "a")]),
        ({"messages": json.dumps(CHAT)}, [(ASKED, "a")]),
        ({"messages": [{"role": "developer", "content": "s"}, *CHAT]}, [([("system", "s"), *ASKED], "a")]),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, CHAT[1]]}, [(ASKED, "a")]),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"}, [([("system", "s"), *ASKED], "a")]),
        ({"messages": [CHAT[0], {"role": "assistant", "content": "a", "reasoning_content": "r"}]}, [(ASKED, "<think>\nr\n</think>\n\na")]),
        ({"messages": [CHAT[0], {"role": "assistant", "content": [{"type": "thinking", "thinking": "r"}, {"type": "text", "text": "a"}]}]}, [(ASKED, "<think>\nr\n</think>\n\na")]),
        ({"messages": [CHAT[0], {"role": "assistant", "content": [{"type": "reasoning", "text": "r"}, {"type": "text", "text": "a"}]}]}, [(ASKED, "<think>\nr\n</think>\n\na")]),
        ({"prompt": "q", "completion": "a", "thinking_trajectory": "r"}, [(ASKED, "<think>\nr\n</think>\n\na")]),
        ({"question": "q", "response": "a", "reasoning": "r"}, [(ASKED, "<think>\nr\n</think>\n\na")]),
        ({"prompt": "q", "completion": "a"}, [(ASKED, "a")]),
        ({"prompt": CHAT[:1], "completion": CHAT[1:]}, [(ASKED, "a")]),
        ({"prompt": CHAT[:1], "completion": "a"}, [(ASKED, "a")]),
        ({"prompt": CHAT}, [(ASKED, "a")]),
        ({"question": "q", "response": "a", "answer": "7"}, [(ASKED, "a")]),
        ({"problem": "q", "solution": WORKED, "answer": "7"}, [(ASKED, WORKED)]),
        ({"question": "q", "answer": WORKED}, [(ASKED, WORKED)]),
        ({"instruction": "q", "input": "about this", "output": "a"}, [([("user", "q\n\nabout this")], "a")]),
        ({"instruction": "q", "input": "", "output": "a"}, [(ASKED, "a")]),
        ({"instruction": "q", "context": "about this", "response": "a"}, [([("user", "q\n\nabout this")], "a")]),
        ({"messages": [CHAT[0], {"role": "assistant", "content": THOUGHT, "reasoning": "1 + 2 = 3"}]}, [(ASKED, THOUGHT)]),
        ({"messages": [CHAT[0], {"role": "assistant", "content": "a", "reasoning": None, "tool_calls": None, "weight": None}]}, [(ASKED, "a")]),
        ({"messages": "[{'role': 'user', 'content': 'q'}\n {'role': 'assistant', 'content': 'a'}]"}, [(ASKED, "a")]),
        ({"messages": [{"role": "assistant", "content": "hello"}, *CHAT]}, [([("assistant", "hello"), *ASKED], "a")]),
        ({"system_prompt": "s", "question": "q", "response": "a"}, [([("system", "s"), *ASKED], "a")]),
        ({"messages": [{"role": "system", "content": "own"}, *CHAT], "system": "s"}, [([("system", "own"), *ASKED], "a")]),
        ({"prompt": CHAT[:1], "completion": [CHAT[1] | {"reasoning": "own"}], "thinking_trajectory": "r"}, [(ASKED, "<think>\nown\n</think>\n\na")]),
        ({"query": "q", "response": "a", "type": "GSM"}, [(ASKED, "a")]),
        ({"problem": "q", "generated_solution": "a", "expected_answer": "7"}, [(ASKED, "a")]),
    ],
)  # fmt: skip
def test_prompts_and_completions_are_found_in_every_layout(tmp_path: Path, row: dict[str, Any], expected: Any):
    found, left_out, words = read(tmp_path, row, row)
    assert said(found) == expected * 2 and left_out == []
    assert words.partition(", none of which")[0].endswith("2 answers to learn from")


def test_named_columns_win_also_inside_of_others(tmp_path: Path):
    row = {"meta": {"q": "q"}, "out": ["a"], "short": "7", "prompt": "no", "completion": "no"}
    assert said(read(tmp_path, row, problem="meta.q", answer="out[0]")[0]) == [(ASKED, "a")]
    assert said(read(tmp_path, row, answer="short")[0]) == [([("user", "no")], "7")]
    assert said(read(tmp_path, {"talk": CHAT}, problem="talk")[0]) == [(ASKED, "a")]


def test_each_answer_of_a_chat_is_learned_with_what_was_said_before_it_without_its_thinking(tmp_path: Path):
    first, second = {"role": "assistant", "content": "<think>\nr\n</think>\n\na"}, {"role": "assistant", "content": "b"}
    found, *_ = read(tmp_path, {"messages": [CHAT[0], first, {"role": "user", "content": "more"}, second]})
    assert said(found) == [(ASKED, first["content"]), ([*ASKED, ("assistant", "a"), ("user", "more")], "b")]


def test_an_answer_of_weight_0_is_not_learned(tmp_path: Path):
    found, *_ = read(tmp_path, {"messages": [CHAT[0], CHAT[1] | {"weight": 0}, CHAT[0], CHAT[1] | {"weight": 1}]})
    assert said(found) == [([*ASKED, ("assistant", "a"), *ASKED], "a")]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": [CHAT[0]]}, "nobody answers in this chat"),
        ({"messages": [CHAT[1], CHAT[0]]}, "nobody answers in this chat, or before anyone has asked"),
        ({"messages": [CHAT[0], {"role": "assistant", "content": " "}]}, "nobody answers"),
        (
            {"messages": [CHAT[0], {"role": "assistant", "content": "", "reasoning_content": "r"}]},
            "what answers is thinking alone, with nothing said behind it",
        ),
        ({"messages": [CHAT[0], {"role": "assistant", "content": None, "reasoning": "r"}]}, "thinking alone"),
        ({"messages": [CHAT[0], {"role": "assistant", "content": "<think>r</think>\n "}]}, "thinking alone"),
        ({"messages": [CHAT[0], {"role": "assistant", "content": [{"type": "thinking", "thinking": "r"}]}]}, "thinking alone"),
        ({"messages": [CHAT[0], {"role": "tool", "content": "3"}, CHAT[1]]}, r"a turn that calls a tool or comes from one \(tool\)"),
        ({"messages": [CHAT[0], {"role": "assistant", "content": "", "tool_calls": [{}]}, CHAT[1]]}, "calls a tool"),
        ({"messages": None}, "messages is None: it must be a text or a chat"),
        ({"messages": [CHAT[0], {"role": "assistant", "content": "\ud800"}]}, "half of a character"),
    ],
)
def test_a_row_without_an_answer_is_left_out_and_the_others_are_not(tmp_path: Path, row: dict[str, Any], words: str):
    found, left_out, _ = read(tmp_path, {"messages": CHAT}, row, {"messages": CHAT})
    assert len(found) == 2
    [(place, reason)] = left_out
    assert place.endswith("/2")
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(reason)


@pytest.mark.parametrize("row", [
    {"messages": [CHAT[0], {"role": "assistant", "content": "", "reasoning_content": "r"}]},
    {"prompt": "q", "completion": "<think>r</think>"},
])  # fmt: skip
def test_data_in_which_everyone_only_thinks_are_refused_as_such(tmp_path: Path, row: dict[str, Any]):
    with pytest.raises(DataError, match=r"none of its 2 rows holds a completion to learn from .*what answers is thinking alone"):
        read(tmp_path, row, row)


def test_a_prompt_that_ends_in_an_answer_has_nothing_to_be_answered(tmp_path: Path):
    _, [(_, reason)], _ = read(
        tmp_path, {"prompt": "q", "completion": "a"}, {"prompt": CHAT, "completion": "a"}, {"prompt": "q", "completion": "a"}
    )
    assert "prompt ends in a turn of the assistant, so there is nothing to answer" in reason


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"problem": "q", "answer": "7"}, "no column was recognised as completions, nor as chats with an answer; it has problem, answer. sft learns from completions: name"),
        ({"prompt": CHAT[:1], "reward_model": {"ground_truth": "7"}}, "no column was recognised as completions"),
        ({"question": "q", "solution": "7"}, "no column was recognised as completions"),
        ({"text": "q a"}, "no column was recognised as prompts"),
        ({"messages": CHAT[:1]}, "no column was recognised as completions"),
        ({"prompt": "q", "completion": " "}, "completion holds no text in any row that was looked at, and no other column was recognised as completions"),
    ],
)  # fmt: skip
def test_data_without_completions_are_refused_in_words(tmp_path: Path, row: dict[str, Any], words: str):
    with pytest.raises(DataError, match=words):
        read(tmp_path, row, row)


def templated(start: Path, folder: Path, opening: str, data: Data | None = None) -> Template:
    """The tiny checkpoint, whose generation prompt ends in `opening`."""
    shutil.copytree(start, folder)
    [file] = folder.glob("chat_template*")
    file.write_text(file.read_text().replace("<think>\\n", opening))
    return load_template(folder, data)


@pytest.mark.parametrize(
    ("opening", "answer", "expected"),
    [
        ("<think>\\n", THOUGHT, "1 + 2 = 3\n</think>\n\\boxed{3}"),
        ("<think>\\n", THOUGHT.removeprefix("<think>\n"), "1 + 2 = 3\n</think>\n\\boxed{3}"),
        ("<think>\\n", "[THINK]1 + 2 = 3[/THINK]\\boxed{3}", "1 + 2 = 3</think>\\boxed{3}"),
        ("<think>\\n", "\\boxed{3}", "\n</think>\n\n\\boxed{3}"),
        ("", THOUGHT, THOUGHT),
        ("", "1 + 2 = 3\n</think>\n\\boxed{3}", THOUGHT),
        ("", "<think>1 + 2 = 3</think>\\boxed{3}", "<think>1 + 2 = 3</think>\\boxed{3}"),
        ("", "\\boxed{3}", "\\boxed{3}"),
        ("<think>\\n\\n</think>\\n\\n", THOUGHT, "\\boxed{3}"),
        ("<think>\\n\\n</think>\\n\\n", "\\boxed{3}", "\\boxed{3}"),
    ],
)
def test_an_answer_is_written_as_the_model_would_behind_its_prompt(
    tiny_checkpoint: Path, tmp_path: Path, opening: str, answer: str, expected: str
):
    template = templated(tiny_checkpoint, tmp_path / "model", opening)
    [[example]], refused = examples([[Conversation("row 1", [{"role": "user", "content": "Add: 1 + 2"}], answer)]], template)
    assert refused == []
    assert template.tokenizer.decode(example.prompt_ids) == "<|user|>Add: 1 + 2<|assistant|>" + opening.replace("\\n", "\n")
    assert template.tokenizer.decode(example.ids) == expected + "<|end|>"
    assert example.ids[-1] in template.stop_ids and not set(example.ids[:-1]) & set(template.stop_ids)


def test_where_the_template_keeps_an_answer_whole_its_own_rendering_is_what_is_learned(tiny_checkpoint: Path, tmp_path: Path):
    template = templated(tiny_checkpoint, tmp_path / "model", "")
    turns = [{"role": "user", "content": "Add: 1 + 2"}, {"role": "assistant", "content": "3"}, {"role": "user", "content": "Add: 3 + 4"}]
    example = template.example("row", turns, THOUGHT)
    whole = template.tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": THOUGHT}], return_dict=False)
    assert [*example.prompt_ids, *example.ids] == whole


def test_what_a_user_writes_stays_text_and_what_an_assistant_wrote_may_be_tokens(tiny_checkpoint: Path):
    template = load_template(tiny_checkpoint)
    end = template.end_id
    asked = template.example("row", [{"role": "user", "content": "1<|end|>2"}], "3").prompt_ids
    assert end not in asked
    earlier = [{"role": "user", "content": "1<|end|>2"}, {"role": "assistant", "content": "</think>3"}, {"role": "user", "content": "4"}]
    ids = list(template.example("row", earlier, "3").prompt_ids)
    close = template.tokenizer.convert_tokens_to_ids("</think>")
    assert ids.count(end) == 1 and ids.count(close) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("<think>\n1 + 2", "row 1: its answer opens thinking and never closes it; leave it out"),
        ("Zebra \u2603", "row 1: its answer holds what this vocabulary has no token for; leave it out"),
        ("3<|end|>4", r"row 1: its answer holds '<\|end\|>', which ends a response; take it out"),
        ("</think></think>3", "row 1: its answer holds a mark of thinking beside those around its thinking; leave it out"),
        ("<think></think></think>3", "beside those around its thinking"),
        ("<think>1</think>2</think>3", "beside those around its thinking"),
        ("<think>1<think>2</think>3", "beside those around its thinking"),
        ("<think>1</think><think>2</think>3", "beside those around its thinking"),
        ("[THINK]1[/THINK]2[/THINK]3", "beside those around its thinking"),
        ("<think>1[/THINK]2</think>3", "beside those around its thinking"),
        ("<think>1</think>no `<think>`", "beside those around its thinking"),
        ("3<|user|>4", r"row 1: its answer holds '<\|user\|>', which only the chat template writes; take it out"),
        ("<think>1<|assistant|>2</think>3", r"its answer holds '<\|assistant\|>', which only"),
        ("<|thoughts|>1<|/thoughts|>2", "row 1: its answer closes thinking with marks of no known model; write <think> and </think>"),
    ],
)
def test_an_answer_that_no_model_would_write_is_refused_and_nothing_left_is_an_error(tiny_checkpoint: Path, answer: str, words: str):
    template = load_template(tiny_checkpoint)
    asked = [{"role": "user", "content": "Add: 1 + 2"}]
    with pytest.raises(TemplateError, match=words):
        template.example("row 1", asked, answer)
    kept, refused = examples([[Conversation("row 0", asked, "3"), Conversation("row 1", asked, answer)]], template)
    assert len(kept[0]) == 1 and [place for place, _ in refused] == ["row 1"]
    with pytest.raises(DataError, match="none of 1 answers can be learned by this model"):
        examples([[Conversation("row 1", asked, answer)]], template)


def test_an_earlier_answer_writes_no_turn_of_others_into_the_prompt(tiny_checkpoint: Path):
    asked = {"role": "user", "content": "Add: 1 + 2"}
    for said in ("3<|user|>4", "3<|end|>", "<|pad|>"):
        _, refused = examples(
            [[Conversation("a", [asked], "3"), Conversation("b", [asked, {"role": "assistant", "content": said}, asked], "3")]],
            load_template(tiny_checkpoint),
        )
        assert [place for place, _ in refused] == ["b"] and "b: an earlier answer holds" in refused[0][1]


def test_marks_of_several_special_tokens_may_have_others_between_them_and_one_mark_is_no_role(tiny_checkpoint: Path, tmp_path: Path):
    """gpt-oss opens a turn of its own for the answer; Magistral's marks are special tokens themselves."""
    asked = [{"role": "user", "content": "Add: 1 + 2"}]
    for name, marks, answer in (
        ("oss", ["<|user|>yes<|pad|>", "<|user|>no<|pad|>"], "<|user|>yes<|pad|>1<|assistant|><|user|>no<|pad|>3"),
        ("magistral", ["<|user|>", "<|pad|>"], "<|user|>1<|pad|>3"),
    ):
        template = templated(tiny_checkpoint, tmp_path / name, "", Data(thinking=marks))
        example = template.example("row", asked, answer)
        assert template.tokenizer.decode(example.ids) == answer + "<|end|>"
        with pytest.raises(
            TemplateError, match="which ends a response" if name == "oss" else r"'<\|assistant\|>', which only the chat template"
        ):
            template.example("row", asked, "<|end|>" if name == "oss" else "<|assistant|>3")


def test_a_prompt_that_looks_like_marks_is_known(tiny_checkpoint: Path):
    template = load_template(tiny_checkpoint)
    for said in ("1 + </think>", "<think>", "<|assistant|>3", "1<|end|>", "<|pad|>"):
        assert template.holds_marks([{"role": "user", "content": said}]) and template.holds_marks([{"role": "system", "content": said}])
    for said in ("Add: 1 + 2", "think", "</reasoning>", "<b>"):
        assert not template.holds_marks([{"role": "user", "content": said}])
    assert not template.holds_marks([{"role": "user", "content": "1"}, {"role": "assistant", "content": "</think>2"}])


def test_turns_that_the_template_refuses_are_left_out_by_place(tiny_checkpoint: Path, tmp_path: Path):
    shutil.copytree(tiny_checkpoint, tmp_path / "model")
    [file] = (tmp_path / "model").glob("chat_template*")
    file.write_text("{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}" + file.read_text())
    template = load_template(tmp_path / "model")
    asked = [{"role": "user", "content": "Add: 1 + 2"}]
    told = [{"role": "system", "content": "s"}, *asked]
    _, refused = examples([[Conversation("row 0", asked, "3"), Conversation("row 1", told, "3")]], template)
    assert refused == [
        ("row 1", "row 1: the chat template refuses its turns, system and user (no system turns); leave out what it does not take")
    ]


def test_a_row_with_a_picture_is_left_out(tmp_path: Path) -> None:
    asked = [{"type": "image", "image": "x"}, {"type": "text", "text": "q"}]
    found, left_out, _ = read(tmp_path, {"messages": CHAT}, {"messages": [{"role": "user", "content": asked}, CHAT[1]]})
    assert len(found) == 1 and "a part that is no text (image)" in left_out[0][1]


def test_epochs_however_few_draw_a_batch() -> None:
    assert len(drawn([[Example((1,), (2,))]], [1.0], 0, 2, epochs=1e-12)) == 2


def test_a_completion_is_not_its_own_thinking(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "1 + 2", "reasoning": "one and two are three"}))
    [[chat], _, _] = conversations(DataSet(source=str(tmp_path / "rows.jsonl"), answer="reasoning"))
    assert chat.answer == "one and two are three"  # not twice


@pytest.mark.parametrize("flag", ["off", "on", "No", "high", "none", "true"])
@pytest.mark.parametrize("name", ["reasoning", "thinking"])
def test_a_flag_beside_an_answer_is_no_thought(tmp_path: Path, flag: str, name: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "2 + 2?", "output": "The answer is 4.", name: flag}))
    [one], _, said = conversations(DataSet(source=str(tmp_path / "a.jsonl")))
    assert one.answer == "The answer is 4." and "thinking" not in said.removeprefix(str(tmp_path))


def test_thinking_beside_a_chat_is_its_last_answers_and_is_said(tmp_path: Path) -> None:
    turns = [{"role": role, "content": text} for role, text in (("user", "1?"), ("assistant", "1"), ("user", "2 + 2?"), ("assistant", "4"))]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": turns, "reasoning": "two and two"}))
    found, _, said = conversations(DataSet(source=str(tmp_path / "a.jsonl")))
    assert [one.answer for one in found] == ["1", "<think>\ntwo and two\n</think>\n\n4"]
    assert "chats of messages, their thinking of reasoning: 2 answers" in said


@pytest.mark.parametrize(
    ("columns", "column"),
    [
        ({"deepseek_reasoning": "one and two are three", "deepseek_solution": "3"}, "deepseek_reasoning"),
        ({"thinking_trajectories": ["one and two are three"], "attempt": "3"}, "thinking_trajectories"),
        (
            {
                "gemini_thinking_trajectory": "no, really",
                "deepseek_thinking_trajectory": "one and two are three",
                "deepseek_attempt": "3",
            },
            "deepseek_thinking_trajectory",
        ),
        ({"reasoning_effort": "high", "cot": "one and two are three", "answer": "3"}, "cot"),
    ],
)
def test_thinking_beside_a_completion_is_known_by_what_its_column_is_called(tmp_path: Path, columns, column):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"problem": "1 + 2", **columns}))
    [[chat], _, said] = conversations(DataSet(source=str(tmp_path / "rows.jsonl"), problem="problem", answer=list(columns)[-1]))
    assert chat.answer == "<think>\none and two are three\n</think>\n\n3" and f"their thinking of {column}: 1 answers" in said


def test_answers_that_do_not_think_are_said_with_the_texts_that_nobody_reads(tmp_path: Path):
    kinds = ["arithmetic", "multi step", "long"]
    rows = [
        {"prompt": f"1 + {n}", "completion": f"\\boxed{{{n + 1}}}", "reasoning": kinds[n % 3], "trace": "one and " * 9} for n in range(15)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    [chats, _, said] = conversations(DataSet(source=str(tmp_path / "rows.jsonl")))
    assert said.endswith("completions of completion: 15 answers to learn from, none of which thinks (not read: trace)")
    assert chats[0].answer == "\\boxed{1}"
