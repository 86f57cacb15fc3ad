"""Samples that others made: read in the forms that people have them in, judged and counted like our own, and handed on in other tools' forms."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from evaluation.comparisons import read as compared
from evaluation.imported import read_samples, source_of
from evaluation.results import Evaluation
from evaluation.words import warnings
from launch.imported import import_samples
from rewards.rows import DataError
from rollout.records import CHARACTERS
from rollout.template import load_template
from rollout.tokenizer import copy_companions

QUIET = Console(quiet=True)
RIGHT, WRONG, STATED = "<think>\nhm</think>\n\\boxed{2}", "<think>\nhm hm</think>\n\\boxed{3}", "<think>\nhm</think>\nThe answer is 2."
BOX = "It is \\boxed{2}."


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def evaluated(path: Path, **options: Any) -> Evaluation:
    folder = path.parent / "out"
    import_samples(path, folder, True, QUIET, **options)
    [file] = [file for file in folder.glob("*.json") if not file.name.endswith("left_out.jsonl")]
    found = Evaluation.model_validate_json(file.read_text())
    file.unlink()
    return found


def ruler(path: Path) -> str:
    """Of a file that names no model."""
    return f"tokens of {path.stem} ({hashlib.sha256(path.read_bytes()).hexdigest()[:8]}), as recorded"


def plain(**changes: Any) -> list[dict[str, Any]]:
    """Two problems with two samples each: one right of two, and none."""
    rows = [
        {"problem": "1+1", "gold": "2", "completion": RIGHT, "tokens": 10},
        {"problem": "3-1", "gold": "2", "completion": STATED, "tokens": 20},
        {"problem": "1+1", "gold": "2", "completion": WRONG, "tokens": 14},
        {"problem": "3-1", "gold": "2", "completion": "<think>\nhm", "tokens": 40, "finish": "length"},
    ]
    return [row | changes for row in rows]


def lm_eval(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """As lm-eval logs them, once for each of two filters."""
    docs = [
        {"doc_id": n, "doc": {"question": problem, "answer": f"so\n#### {2}"}, "target": "2", "arguments": {"gen_args_0": {"arg_0": f"Question: {problem}\nAnswer:", "arg_1": {}}},
         "resps": [[row["completion"] for row in rows if row["problem"] == problem]], "filtered_resps": ["2"], "exact_match": 1.0}
        for n, problem in enumerate(("1+1", "3-1"))
    ]  # fmt: skip
    return [doc | {"filter": name} for name in ("strict-match", "flexible-extract") for doc in docs]


def lighteval(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """As the details of lighteval 0.10 and later have them, with ids in place of counts."""
    return [
        {
            "doc": {"query": problem, "choices": ["7", "2"], "gold_index": 1, "instruction": "", "task_name": "lighteval|x|0"},
            "model_response": {
                "input": f"<user>{problem}",
                "text": [row["completion"] for row in rows if row["problem"] == problem],
                "output_tokens": [[5] * row["tokens"] for row in rows if row["problem"] == problem],
            },
            "metric": {"pass@k": 1.0},
        }
        for problem in ("1+1", "3-1")
    ]


def older_lighteval(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "full_prompt": problem, "gold": ["2"], "choices": ["2"], "gold_index": [0], "input_tokens": [[1, 2]], "metrics": {"extractive_match": 1},
            "predictions": [row["completion"] for row in rows if row["problem"] == problem],
            "cont_tokens": [[5] * row["tokens"] for row in rows if row["problem"] == problem],
        }
        for problem in ("1+1", "3-1")
    ]  # fmt: skip


def ockbench(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "problem_id": int(row["problem"] == "1+1"), "question": row["problem"], "ground_truth": row["gold"], "model_response": row["completion"], "correct": True,
            "tokens": {"prompt_tokens": 3, "answer_tokens": row["tokens"] - 4, "reasoning_tokens": 4, "output_tokens": row["tokens"]},
            "finish_reason": row.get("finish", "stop"),
        }
        for row in rows
    ]  # fmt: skip


def renamed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    names = {
        "problem": "prompt",
        "gold": "reference_answer",
        "completion": "generated_text",
        "tokens": "num_tokens",
        "finish": "finish_reason",
    }
    return [{names[name]: value for name, value in row.items()} for row in rows]


def of_messages(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line a problem, with its completions as chats and one answer of the API beside each."""
    return [
        {
            "messages": [{"role": "system", "content": "be short"}, {"role": "user", "content": problem}],
            "answer": 2,
            "responses": [{"message": {"role": "assistant", "content": row["completion"]}, "finish_reason": row.get("finish", "stop")} for row in rows if row["problem"] == problem],
            "completion_tokens": [row["tokens"] for row in rows if row["problem"] == problem],
        }
        for problem in ("1+1", "3-1")
    ]  # fmt: skip


def api(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line a sample, with the whole answer of an API."""
    return [
        {
            "prompt": row["problem"], "target": row["gold"],
            "output": {"choices": [{"message": {"role": "assistant", "content": row["completion"]}, "finish_reason": row.get("finish", "stop")}], "usage": {"completion_tokens": row["tokens"]}},
        }
        for row in rows
    ]  # fmt: skip


def batch(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of an API's batch, with problem and gold put back in."""
    return [
        {"custom_id": str(n), "problem": row["problem"], "gold": row["gold"], "error": None, "response": {"status_code": 200, "body": {
            "choices": [{"message": {"role": "assistant", "content": row["completion"]}, "finish_reason": row.get("finish", "stop")}],
            "usage": {"completion_tokens": row["tokens"]}}}}
        for n, row in enumerate(rows)
    ]  # fmt: skip


def responses(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """As OpenAI's responses API answers."""
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    return [
        {"problem": row["problem"], "gold": row["gold"], "usage": {"output_tokens": row["tokens"]}, "output": [
            {"type": "reasoning", "summary": []}, {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": row["completion"]}]}]}
        | (cut if "finish" in row else {"status": "completed"})
        for row in rows
    ]  # fmt: skip


def inspect(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """As Inspect logs samples."""
    return [
        {"id": row["problem"], "input": row["problem"], "target": row["gold"], "output": {"model": "m", "completion": row["completion"],
         "choices": [{"message": {"role": "assistant", "content": row["completion"]}, "stop_reason": "max_tokens" if "finish" in row else "stop"}],
         "usage": {"input_tokens": 3, "output_tokens": row["tokens"]}}}
        for row in rows
    ]  # fmt: skip


def qwen_math(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Texts lie in `code`, and what was read out of them in `pred`; here with lengths of all, as texts."""
    return [
        {
            "idx": 0, "question": problem, "gt": "2", "gt_cot": "so \\boxed{2}", "pred": ["2", "9"],
            "code": [row["completion"] for row in rows if row["problem"] == problem], "finish_reasons": [row.get("finish", "stop") for row in rows if row["problem"] == problem],
            "response_lengths": [str(row["tokens"]) for row in rows if row["problem"] == problem],
        }
        for problem in ("1+1", "3-1")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "form",
    [plain, lighteval, older_lighteval, ockbench, renamed, of_messages, api, batch, responses, inspect, qwen_math],
    ids=lambda form: form.__name__,
)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_samples_are_read_in_the_forms_that_tools_write_them_in(tmp_path: Path, form, suffix):
    rows = form() if form is plain else form(plain())
    path = tmp_path / f"mine.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist([dict.fromkeys(name for one in rows for name in one) | row for row in rows]), path)
    elif suffix == "json":
        path.write_text(json.dumps(rows))
    else:
        lines(path, rows)
    found = evaluated(path)
    assert (found.problems, found.samples, found.source, found.accuracy.mean) == (2, 2, "mine", 0.25)
    assert (found.tokens.mean, found.tokens.right, found.settings.template) == (21.0, 10.0, ruler(path))
    says = form not in (lighteval, older_lighteval)  # how completions ended
    assert found.truncated == (0.25 if says else 0.0)
    assert found.no_answer_by.get("unfinished", 0.0) == (0.25 if says else 0.0)


def test_thinking_that_a_file_keeps_apart_or_to_itself_is_counted_and_failures_are_no_short_answers(tmp_path: Path):
    def read(**message: Any) -> Any:
        usage = {"usage": {"output_tokens": 12, "output_tokens_details": {"reasoning_tokens": 5}}} if "counted" in message else {}
        message.pop("counted", None)
        return {
            "problem": "1+1",
            "gold": "2",
            "response": {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": "stop"}]} | usage,
        }

    apart = evaluated(lines(tmp_path / "apart.jsonl", [read(content=BOX, reasoning_content="x" * 100)]))
    assert apart.settings.template == CHARACTERS and apart.tokens.mean > 100 + len(BOX)
    kept = evaluated(lines(tmp_path / "kept.jsonl", [read(content=BOX, counted=True)]))
    assert (kept.tokens.mean, kept.by_outcome["right"].thinking) == (12, 5)
    failed = [row | {"model_response": "", "error": "timeout", "tokens": {"output_tokens": 0}} for row in ockbench(plain())[:1]]
    found = evaluated(lines(tmp_path / "failed.jsonl", [*failed, *ockbench(plain())[1:]]))
    assert found.not_judged == 0.25 and found.tokens.mean == 21.0 + (40 - 10) / 4


def test_lm_evals_samples_are_read_once_whatever_the_filters(tmp_path: Path):
    path = lines(tmp_path / "samples_gsm8k_2026-11-29T10-00-00.123456.jsonl", lm_eval(plain()))
    found = evaluated(path)
    assert (found.problems, found.samples, found.source, found.accuracy.mean, found.settings.template) == (2, 2, "gsm8k", 0.25, CHARACTERS)
    assert any("strict-match, flexible-extract" in words for words in read_samples(path, "x").said)
    assert source_of(Path("details_lighteval|aime24|0_2025-05-08T13-09-55.375464.parquet")) == "lighteval|aime24|0"
    assert source_of(Path("my_samples.jsonl")) == "my_samples"


def test_problems_pair_by_their_text_or_by_ids_that_tell_them_apart(tmp_path: Path):
    def ids(rows: Sequence[dict[str, Any]], source: str = "set") -> list[str]:
        return [problem.id for problem, _ in read_samples(lines(tmp_path / "x.jsonl", rows), source).problems]

    first = ids(plain())
    assert first == ids([row | {"problem": f" {row['problem']}\n"} for row in plain()]) and all(id_.startswith("set/") for id_ in first)
    assert ids([row | {"id": f"q{row['problem']}"} for row in plain()]) == ["q1+1", "q3-1"]
    assert ids([row | {"id": n} for n, row in enumerate(plain())]) == first  # of the samples, not of the problems
    assert ids(plain(id="all")) == first
    assert first[0] == f"set/{hashlib.sha256(b'1+1').hexdigest()[:12]}"  # as benchmarks by name have it
    systems = [
        {"messages": [{"role": "system", "content": said}, {"role": "user", "content": "1+1"}], "gold": "2", "completion": RIGHT}
        for said in ("Be brief.", "Be long.")
    ]
    several = [one.removeprefix(f"{first[0]}-") for one in ids(systems)]
    assert several == [hashlib.sha256(one["messages"][0]["content"].encode()).hexdigest()[:12] for one in systems]
    assert ids(systems[1:]) == first[:1] and evaluated(lines(tmp_path / "systems.jsonl", systems)).problems == 2
    spaced = {
        **systems[0],
        "messages": [{"role": "system", "content": f" {systems[0]['messages'][0]['content']}\n"}, systems[0]["messages"][1]],
    }
    again = evaluated(lines(tmp_path / "spaced.jsonl", [*systems, spaced]))  # one problem, as a text in other white space is
    assert [row.samples for row in again.per_problem] == [2, 1]


def test_without_tokens_lengths_are_characters_or_what_a_named_tokenizer_counts(tmp_path: Path, tiny_checkpoint: Path):
    rows = [{name: value for name, value in row.items() if name != "tokens"} for row in plain()]
    found = evaluated(lines(tmp_path / "x.jsonl", rows))
    assert found.settings.template == CHARACTERS and found.tokens.right == len(RIGHT)
    assert found.budget_curve[-1].budget == len(WRONG) or found.budget_curve[-1].budget == max(len(row["completion"]) for row in rows)
    assert found.by_outcome["right"].thinking == len("<think>\nhm</think>")
    found = evaluated(lines(tmp_path / "x.jsonl", plain()), tokenizer=tiny_checkpoint)  # it wins over the file's own count
    template = load_template(tiny_checkpoint)
    assert found.settings.template == template.digest and found.tokens.right == len(template.tokenizer.encode(RIGHT)) + 1  # its end
    with pytest.raises(ValueError, match="--tokenizer: no folder"):
        evaluated(lines(tmp_path / "x.jsonl", plain()), tokenizer=tmp_path / "none")


def test_a_completion_that_ended_by_itself_is_its_end_of_turn_longer_and_one_that_was_cut_is_not(tmp_path: Path, tiny_checkpoint: Path):
    template = load_template(tiny_checkpoint)
    end = template.tokenizer.decode([template.end_id])
    bare = tmp_path / "bare"  # a tokenizer without a chat template
    bare.mkdir()
    copy_companions(tiny_checkpoint, bare)
    for file in bare.glob("chat_template*"):
        file.unlink()
    (bare / "tokenizer_config.json").write_text(json.dumps({"eos_token": end}))
    text, row = len(template.tokenizer.encode(RIGHT)), {"problem": "1+1", "gold": "2"}
    for changes, length in (({}, text + 1), ({"completion": RIGHT + end}, text + 1), ({"finish": "length"}, text), ({"completion": ""}, 1)):
        for folder in (tiny_checkpoint, bare):
            found = evaluated(lines(tmp_path / "x.jsonl", [row | {"completion": RIGHT} | changes]), tokenizer=folder)
            assert found.tokens.mean == length, (changes, folder)


def test_stated_answers_count_only_where_they_are_asked_for(tmp_path: Path):
    path = lines(tmp_path / "x.jsonl", plain())
    assert evaluated(path).stated is None
    found = evaluated(path, lenient=True)
    assert (found.accuracy.mean, found.stated.mean if found.stated else None) == (0.25, 0.5)


@pytest.mark.parametrize(
    ("text", "finish", "status"),
    [
        ("[THINK]hm \\boxed{2}", "length", "wrong"),  # Magistral, cut in its thinking
        ("[THINK]hm[/THINK]\\boxed{2}", "stop", "right"),
        ("hm \\boxed{2}", "length", "wrong"),  # beside others whose prompts opened thinking
        ("hm</think>\\boxed{2}", "stop", "right"),
        ("\\boxed{2}", "stop", "right"),
        ("First, perhaps \\boxed{2}, but wait, let us check", "length", "wrong"),  # nobody thinks in marks here
        ("<think>hm</think>\\boxed{2}, as", "length", "right"),
    ],
)
def test_thinking_is_told_from_the_answer_in_the_marks_of_the_files_model(tmp_path: Path, text, finish, status):
    others = {"[THINK]": "[THINK]x[/THINK]\\boxed{9}", "hm ": "x</think>\\boxed{9}", "hm<": "x</think>\\boxed{9}"}
    other = next((said for start, said in others.items() if text.startswith(start)), "\\boxed{9}")
    rows = [{"problem": "1+1", "gold": "2", "completion": text, "finish": finish}] + [
        {"problem": "q", "gold": "1", "completion": other}
    ] * 2
    found = evaluated(lines(tmp_path / "x.jsonl", rows))
    assert found.per_problem[0].right == (status == "right")


def test_thinking_beside_a_completion_stands_before_it(tmp_path: Path):
    rows = [{"question": "1+1", "answer": "2", "completion": "\\boxed{2}", "reasoning_content": "\\boxed{9}"}]
    [(_, [sample])] = read_samples(lines(tmp_path / "x.jsonl", rows), "x").problems
    assert sample.text == "<think>\n\\boxed{9}</think>\n\n\\boxed{2}"
    assert evaluated(lines(tmp_path / "x.jsonl", rows)).accuracy.mean == 1


def test_a_completion_that_was_never_made_is_not_judged_and_a_gold_that_is_none_is_left_out(tmp_path: Path):
    rows = [*plain(), {"problem": "p", "gold": "Proof.", "completion": "x", "tokens": 1}]
    rows[0] = rows[0] | {"completion": None}
    found = evaluated(lines(tmp_path / "x.jsonl", rows))
    assert (found.problems, found.not_judged) == (2, 0.25)
    listed = (tmp_path / "out" / "x.left_out.jsonl").read_text()
    assert "x.jsonl:5" in listed and "no answer that could be compared" in listed


def test_a_gold_that_cannot_be_judged_is_dropped_where_another_can_be(tmp_path: Path):
    found = evaluated(lines(tmp_path / "x.jsonl", plain(gold=[r"\frac{1", "2"])))
    assert (found.problems, found.not_judged) == (2, 0) and found.accuracy.mean == 0.25


@pytest.mark.parametrize("nothing", [None, float("nan")])
@pytest.mark.parametrize("made", [0, 1])
def test_samples_of_which_none_was_made_are_no_accuracy_of_0_unsaid(tmp_path: Path, nothing: Any, made: int):
    rows = plain(completion=nothing, tokens=0)[made:] + plain()[:made]
    console = Console(file=io.StringIO(), width=400)
    import_samples(lines(tmp_path / "x.jsonl", rows), tmp_path / "out", True, console)
    said = "100.0 % of the samples were never made or could not be judged, so accuracy says nothing: look whether the completions stand in another field (--prediction)"
    assert (said in console.file.getvalue()) == (made == 0)


REFUSED: list[tuple[list[dict[str, Any]], dict[str, Any], str]] = [
    ([{"gold": "2", "completion": "x"}], {}, r"x.jsonl:1: no field was recognised as the problem.*--problem"),
    ([{"problem": "1+1", "completion": "x"}], {}, r"x.jsonl:1: no field gold.*--gold"),
    ([{"problem": "1+1", "gold": "2"}], {}, r"x.jsonl:1: no field prediction.*--prediction"),
    ([*plain(), {"problem": "p", "completion": "x", "tokens": 1}], {}, r"x.jsonl:5: no gold"),
    ([*plain(), {"problem": "p", "gold": "", "completion": "x", "tokens": 1}], {}, r"x.jsonl:5: no gold"),
    ([*plain(), {"problem": "p", "gold": "1", "tokens": 1}], {}, r"x.jsonl:5: no field completion"),
    ([*plain(), {"gold": "1", "completion": "x", "tokens": 1}], {}, r"x.jsonl:5: problem is None"),
    ([*plain(), {"problem": "p", "gold": "1", "completion": "x"}], {}, r"x.jsonl:5: tokens is None.*--tokenizer"),
    ([*plain(), {"problem": "p", "gold": "1", "completion": "x", "tokens": -1}], {}, r"x.jsonl:5: tokens is -1"),
    ([*plain(), {"problem": "1+1", "gold": "3", "completion": "x", "tokens": 1}], {}, r"x.jsonl:5: gold is '3'.*x.jsonl:1 asks the same"),
    ([row | {"sample": 0} for row in plain()], {}, r"x.jsonl:3: sample 0 of its problem is in .*x.jsonl:1"),
    ([*plain(model="a"), *plain(model="b")], {}, r"several models \(a, b\).*--model"),
    (plain(model="a"), {"problem": "nope"}, r"no field 'nope'"),
    (plain(gold="Proof."), {}, r"none of 4 rows has a gold"),
    ([{"doc": {"query": "q", "choices": ["a"], "gold_index": 3}, "model_response": {"text": ["x"]}}], {}, r"x.jsonl:1: gold_index 3 names none"),
    ([], {}, "x.jsonl: holds no rows"),
    ([*plain(), {"problem": "p", "gold": "1", "completion": "x", "tokens": float("nan")}], {}, r"x.jsonl:5: tokens is nan"),
    ([*plain(), {"problem": "p", "gold": "1", "completion": "x", "tokens": 10**12}], {}, r"x.jsonl:5: tokens is 1000000000000, more than any"),
    ([*plain(), {"problem": "p", "gold": "1", "completion": "x", "tokens": 0}], {}, r"x.jsonl:5: tokens is 0, and its completion is not empty"),
    (plain(), {"max_tokens": 30}, r"x.jsonl:4: a completion of 40 tokens, and --max-tokens says that none is longer than 30; correct one"),
    (plain(tokens=-1), {}, r"x.jsonl:1: tokens is -1, where a whole number is wanted"),
    (plain(tokens=10.5), {}, r"x.jsonl:1: tokens is 10.5, where a whole number is wanted"),
    ([*plain(generator="a"), *plain(generator="b")], {}, r"several models \(a, b\).*--model"),
    (plain(think_tokens=11), {}, r"x.jsonl:1: tokens is 10, and 11 of them would be thinking"),
    ([plain()[0] | {"think_tokens": 3}, *plain(think_tokens=-3)[1:]], {}, r"x.jsonl:2: think_tokens is -3, which counts no thinking"),
    ([row | {"sample_idx": "0"} for row in plain()], {}, r"x.jsonl:3: sample 0 of its problem is in .*x.jsonl:1"),
    ([*[row | {"sample": 0} for row in plain()[:2]], *plain()[2:], plain(sample=0)[0]], {}, r"x.jsonl:5: sample 0 of its problem is in .*x.jsonl:1"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "options", "words"), REFUSED)
def test_what_cannot_be_read_is_refused_by_its_line_before_anything_is_written(tmp_path: Path, rows, options, words):
    with pytest.raises((ValueError, DataError), match=words):
        evaluated(lines(tmp_path / "x.jsonl", rows), **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({0: {"finish": "ran_dry"}, 1: {"finish": "ran_dry"}, 2: {"finish": "EOS"}}, r"not known and count as finished: 'ran_dry' \(2 times\)$"),
        ({2: {"completion": RIGHT, "tokens": 10}}, r"1 samples repeat another of their problem word for word.*first: .*x.jsonl:3"),
        ({0: {"id": 7}, 1: {"id": 7}, 2: {"id": 7}, 3: {"id": 7, "gold": "3"}, 4: {"gold": "2"}}, None),
        ({n: {"id": 7} for n in range(4)} | {1: {"id": 7, "gold": "3"}, 3: {"id": 7, "gold": "3"}},
         r"id '7' stands for two problems \(in .*x.jsonl:1 and .*x.jsonl:2, with the golds '2' and '3'\), so problems are named by their texts"),
    ],
)  # fmt: skip
def test_what_a_file_leaves_open_is_said_once_with_its_place(tmp_path: Path, changes, words):
    rows = [row | changes.get(n, {}) for n, row in enumerate(plain())]
    if words is None and 3 in changes:
        with pytest.raises(DataError, match="asks the same"):
            read_samples(lines(tmp_path / "x.jsonl", rows), "x")
        return
    said = read_samples(lines(tmp_path / "x.jsonl", rows), "x").said
    assert len(said) == 1 + bool(words) and (not words or re.search(words, said[-1]))


def test_a_completion_that_is_nan_or_null_in_a_list_was_never_made(tmp_path: Path):
    alone = [row | {"completion": float("nan")} if n == 0 else row for n, row in enumerate(plain())]
    listed = [
        {"problem": "1+1", "gold": "2", "completion": [RIGHT, None]},
        {"problem": "3-1", "gold": "2", "completion": [WRONG, WRONG + " "]},
    ]
    for rows in (alone, listed):
        [(_, samples), _] = read_samples(lines(tmp_path / "x.jsonl", rows), "x").problems
        assert sorted(one.finish for one in samples) == ["abort", "stop"]


def test_lengths_that_cannot_be_are_passed_over_where_a_tokenizer_counts(tmp_path: Path, tiny_checkpoint: Path):
    odd = [row | {"tokens": tokens} for row, tokens in zip(plain(), (-1, 10**12, None, 10.5), strict=True)]
    assert evaluated(lines(tmp_path / "x.jsonl", odd), tokenizer=tiny_checkpoint).accuracy.mean == 0.25


def test_a_table_of_texts_counts_with_a_point_and_an_empty_completion_is_one(tmp_path: Path):
    path = tmp_path / "x.csv"
    path.write_text("problem,gold,completion,tokens,finish_reason\n1+1,2,\\boxed{2},10.0,stop\n3-1,2,,,stop\n")
    found = evaluated(path)
    assert (found.accuracy.mean, found.not_judged, found.tokens.mean) == (0.5, 0, 5)


def test_files_that_name_no_model_share_no_ruler_and_files_of_one_model_do(tmp_path: Path):
    def read(folder: str, rows: Sequence[dict[str, Any]], **options: Any) -> Path:
        (tmp_path / folder).mkdir(exist_ok=True)
        import_samples(lines(tmp_path / folder / "x.jsonl", rows), tmp_path / folder / "out", True, QUIET, max_tokens=100, **options)
        return tmp_path / folder / "out"

    twice = [row | {"tokens": 2 * row["tokens"]} for row in plain()]
    (pair,) = compared([read("a", plain()), read("b", twice)]).comparisons
    assert pair.unit == CHARACTERS and any("other units" in words for words in pair.remarks)
    (pair,) = compared([read("a", plain(), model="m"), read("b", twice, model="m")]).comparisons
    assert pair.unit == "tokens" and pair.length is not None and pair.length.mean == pytest.approx(1)


def test_remedies_for_samples_that_others_made_are_none_of_our_settings(tmp_path: Path):
    found = evaluated(lines(tmp_path / "x.jsonl", [row | {"finish": "length"} for row in plain()]))
    (said,) = warnings(found)
    assert "cut off" in said and "eval.max_tokens" not in said
    (said,) = warnings(evaluated(lines(tmp_path / "x.jsonl", [row | {"completion": "2"} for row in plain()])))
    assert "no \\boxed{} answer" in said and "data.instruction" not in said and "--lenient" in said


def test_where_nobody_counted_thinking_no_share_that_closed_it_is_claimed(tmp_path: Path):
    untold, told = (evaluated(lines(tmp_path / "x.jsonl", rows)).by_outcome for rows in (plain(), plain(think_tokens=4)))
    assert untold["right"].closed is None and untold["right"].thinking is None and untold["right"].total == 10
    assert (told["right"].closed, told["wrong"].closed, told["right"].thinking) == (1, 2 / 3, 4)


def test_one_model_of_several_is_picked_by_its_name(tmp_path: Path):
    path = lines(tmp_path / "x.jsonl", [*plain(model="a"), *[row | {"completion": RIGHT} for row in plain(model="b")]])
    found = evaluated(path, model="b")
    assert (found.checkpoint, found.samples, found.accuracy.mean) == ("b", 2, 1.0)
    with pytest.raises(ValueError, match="no samples of c; there are those of a, b"):
        read_samples(path, "x", model="c")


def test_earlier_results_are_not_replaced_unasked(tmp_path: Path):
    path = lines(tmp_path / "x.jsonl", plain())
    import_samples(path, tmp_path / "out", False, QUIET, temperature=0.6)
    with pytest.raises(FileExistsError, match="--overwrite"):
        import_samples(path, tmp_path / "out", False, QUIET)
    assert Evaluation.model_validate_json((tmp_path / "out" / "x.json").read_text()).settings.temperature == 0.6


def test_a_tokenizer_counts_texts_and_does_not_change_them(tmp_path: Path, tiny_checkpoint: Path):
    """One that lacks their words made other answers of them, which were judged in their place."""
    rows = [{"problem": "Where?", "gold": "Paris é", "completion": "<think>\nfar away</think>\n\\boxed{Paris é}"}]
    file = lines(tmp_path / "s.jsonl", rows)
    plain_, counted = evaluated(file, source="a"), evaluated(file, source="a", tokenizer=tiny_checkpoint)
    assert plain_.accuracy.mean == counted.accuracy.mean == 1
    table = pq.read_table(tmp_path / "out" / "a.parquet")
    assert table["text"].to_pylist() == [rows[0]["completion"]] and table["extracted"].to_pylist() == ["Paris é"]
