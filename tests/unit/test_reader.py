"""The rollouts in a report's page: all rows, each text once, what is left out by which rule, and what single tokens say."""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from evaluation import by_token
from evaluation.by_token import pieces
from evaluation.entries import by_source, read_entries
from evaluation.reader import reader
from evaluation.results import Settings
from evaluation.scores import score
from rewards.redundant import Thought
from rewards.verifier.verdict import Verdict
from rollout.records import rows
from rollout.tiny.tokenizer import build_tokenizer
from rollout.types import FORCED, Completion, Group, Problem, Request, Rollout

TOKENIZER = build_tokenizer()


def group(name: str, samples: list[tuple[str, str]], **of_completion: Any) -> Group:
    """Samples of (text, verdict), tokens of the tiny tokenizer."""
    problem = Problem(name, f"what is {name}?", "7", "sum", 2, others=("seven",))
    found = Group(Request(name, problem, (1,), len(samples), 320, 0.6, 1.0, 0), [])
    for sample, (text, verdict) in enumerate(samples):
        ids = np.array([*TOKENIZER.encode(text, add_special_tokens=False), TOKENIZER.eos_token_id], np.int32)
        done = replace(Completion(ids, np.full(len(ids), -0.5, np.float32), "stop", np.zeros(len(ids), np.int32)), **of_completion)
        start = text.count("</think>") and ids.tolist().index(TOKENIZER.convert_tokens_to_ids("</think>")) + 1
        found.rollouts.append(Rollout(f"{name}-{sample}", sample, done, text, start or None, Verdict(verdict, "integer", "7")))
    return found


def say(text: str) -> str:
    return f"{text}\n</think>\n\\boxed{{7}}"


def evaluated(run: Path, step: int, groups: list[Group], source: str = "tiny", budget: dict[str, Any] | None = None) -> None:
    (run / "evals").mkdir(parents=True, exist_ok=True)
    table = rows(groups, step, "digest")
    settings = Settings(max_tokens=320, samples=len(groups[0].rollouts), budget=budget)
    scores = score(table, checkpoint="", step=step, source=source, settings=settings)
    name = f"{source}-{step}" + (f"@{budget['kind']}-{budget['limit']}" if budget else "")
    (run / "evals" / f"{name}.json").write_text(scores.model_dump_json())
    pq.write_table(table, run / "evals" / f"{name}.parquet")


def kept(run: Path, step: int, groups: list[Group]) -> None:
    (run / "samples").mkdir(parents=True, exist_ok=True)
    pq.write_table(rows(groups, step, "digest"), run / "samples" / f"step-{step:05d}.parquet")


def read(*folders: Path, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is in the page, and what the section says of it."""
    runs = read_entries(folders)
    values = reader(runs, by_source(runs), **options)
    content = json.loads(zlib.decompress(base64.b64decode(values["payload"])))
    assert {len(column) for column in (*content["rows"].values(), content["thinking"], content["answer"])} == {values["count"]}
    return content, values


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two problems before and after, two samples each, and two kept samples of a training step."""
    folder = tmp_path / "run"
    evaluated(
        folder, 0, [group("a", [(say("1 + 2"), "right"), (say("1"), "right")]), group("b", [(say("3"), "right"), ("<think>9", "wrong")])]
    )
    evaluated(folder, 3, [group("a", [(say("2"), "wrong"), (say("3"), "wrong")]), group("b", [(say("4"), "wrong"), (say("5"), "wrong")])])
    kept(folder, 2, [group("t", [(say("6"), "right"), (say("7"), "wrong")])])
    (folder / "checkpoints" / "step-3").mkdir(parents=True)
    TOKENIZER.save_pretrained(folder / "checkpoints" / "step-3")
    return folder


def test_every_rollout_of_every_label_is_there_once_and_a_problem_is_written_once(run: Path) -> None:
    content, values = read(run)
    labels = [content["sets"][one]["label"] for one in content["rows"]["set"]]
    assert Counter(labels) == {"before": 4, "after": 4, "training": 2} and values["lead"].startswith(
        "All 10 rollouts of the evaluations above and that training kept. 10 carry"
    )
    assert content["problems"]["problem"] == ["what is a?", "what is b?", "what is t?"] and content["problems"]["golds"][0] == [
        "7",
        "seven",
    ]
    texts = [thinking + answer for thinking, answer in zip(content["thinking"], content["answer"], strict=True)]
    assert texts[:4] == [say("1 + 2"), say("2"), say("1"), say("3")]  # of a sample before, then after
    assert content["answer"][0] == "\n\\boxed{7}" and content["answer"][texts.index("<think>9")] == ""


def test_a_verdict_has_changed_where_the_majority_is_another_than_under_the_first_label(run: Path) -> None:
    content, _ = read(run)
    found = zip(content["rows"]["problem"], content["rows"]["changed"], strict=True)
    assert set(found) == {(0, 1), (1, 0), (2, 0)}  # b: one of two right is no majority, before as after


def test_evaluations_at_budgets_are_there_the_last_at_each_and_held_against_their_own_run_without_one(run: Path) -> None:
    """After training all is wrong; closed at 9, a is right again; b was half right before and is wrong both times."""
    at = {"kind": "forced", "limit": 9}
    for step, verdict in ((0, "wrong"), (3, "right")):
        closed = [group("a", [(say("2"), verdict), (say("3"), verdict)]), group("b", [(say("4"), "wrong"), (say("5"), "wrong")])]
        evaluated(run, step, closed, budget=at)
    evaluated(run, 3, [group("c", [(say("1"), "right")])], source="other", budget=at)
    content, _ = read(run)
    assert [(one["label"], one["source"], one["at"]) for one in content["sets"]] == [
        ("before", "tiny", ""), ("after", "tiny", ""), ("9 tokens forced", "tiny", "9 tokens forced"), ("9 tokens forced", "other", "9 tokens forced"), ("training", "", ""),
    ]  # fmt: skip
    found = set(zip(*(content["rows"][name] for name in ("set", "problem", "changed")), strict=True))
    named = {(content["sets"][one]["label"], content["problems"]["problem_id"][problem], changed) for one, problem, changed in found}
    assert named == {
        ("before", "a", 1), ("before", "b", 0), ("after", "a", 1), ("after", "b", 0), ("9 tokens forced", "a", 1), ("9 tokens forced", "b", 0),
        ("9 tokens forced", "c", 0), ("training", "t", 0),
    }  # fmt: skip


def test_evaluations_on_several_sources_do_not_mix_their_problems(run: Path) -> None:
    evaluated(run, 3, [group("a", [(say("8"), "right")])], source="other")
    content, values = read(run)
    assert content["problems"]["problem_id"] == ["a", "b", "a", "t"] and content["problems"]["source"] == ["tiny", "tiny", "other", ""]
    assert [one["source"] for one in content["sets"]] == ["tiny", "tiny", "other", ""] and values["several"]


def test_texts_that_do_not_fit_are_left_out_by_rule_and_said_and_before_and_after_stay_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_token, "_ROLLOUTS", 0)
    draw = np.random.default_rng(0)
    folder = tmp_path / "run"
    for step in 0, 3:
        noise = [[say("".join(draw.choice(list("0123456789x"), 400))) for _ in range(4)] for _ in range(20)]
        evaluated(folder, step, [group(f"p{n:02d}", [(text, "right") for text in texts]) for n, texts in enumerate(noise)])
    full, _ = read(folder)
    content, values = read(folder, most=20_000)
    assert len(values["payload"]) <= 20_000 and None not in full["thinking"]
    there = {
        (p, s, k)
        for p, s, k, text in zip(*(content["rows"][name] for name in ("problem", "sample", "set")), content["thinking"], strict=True)
        if text
    }
    assert 0 < len(there) < 160 and f"{len(there)} of them have their text here" in values["lead"]
    assert {(p, s) for p, s, k in there if k == 0} == {(p, s) for p, s, k in there if k == 1}
    count = Counter(s for _, s, _ in there)
    assert all(
        count[s] == 40 or not any(count[later] for later in range(s + 1, 4)) for s in range(4)
    )  # a sample begins when all of the one before are there
    assert content["rows"] == full["rows"]


def test_tokens_say_how_surprising_they_were_and_where_the_answer_begins(run: Path) -> None:
    content, values = read(run)
    one = content["carried"]["0"]
    assert "".join(one["texts"]) == say("1 + 2") + "<|end|>" and one["surprise"] == [0.5] * len(one["ids"])
    assert (
        one["texts"][one["answer"] - 1] == "</think>"
        and content["scales"] == {"surprise": 0.5}
        and "10 carry their tokens" in values["lead"]
    )


def test_tokens_of_training_say_what_they_trained_with_and_what_the_engine_put_there(run: Path) -> None:
    [trained] = [group("t", [(say("6"), "right")], sources=np.array([0, 0, FORCED, 0, 0, 0, 0, 0], np.int8))]
    length = len(trained.rollouts[0].completion.ids)
    numbers = {"advantage": np.linspace(-1, 1, length), "weight": np.array([0.0, 0.25] * (length // 2)), "entropy": np.full(length, np.nan)}
    trained.rollouts[0].by_token, trained.rollouts[0].thought = numbers, Thought(redundant=(1, 3))
    kept(run, 2, [trained])
    content, _ = read(run)
    [one] = [content["carried"][str(n)] for n, text in enumerate(content["thinking"]) if text == "6\n</think>"]
    assert one["advantage"] == pytest.approx(numbers["advantage"], abs=0.01) and one["weight"] == numbers["weight"].tolist()
    assert one["redundant"] == [0, 1, 1, 0, 0, 0, 0, 0]
    assert one["source"] == [0, 0, 2 - 1, 0, 0, 0, 0, 0] and not {"entropy", "influence"} & set(one)  # what is no number is none
    assert one["texts"][one["answer"] - 1] == "</think>"  # it was put there, and is no length


def test_samples_that_older_runs_kept_are_read(run: Path) -> None:
    file = run / "samples" / "step-00002.parquet"
    table = pq.read_table(file)
    pq.write_table(
        table.drop_columns([name for name in table.column_names if name.startswith("token_") or name in ("golds", "sources", "redundant")]),
        file,
    )
    content, values = read(run)
    assert values["count"] == 10 and content["problems"]["golds"][2] == ["7"]


@pytest.mark.parametrize("how", ["gone", "another"])
def test_without_the_tokenizer_that_made_them_tokens_are_numbers(run: Path, how: str) -> None:
    file = run / "checkpoints" / "step-3" / "tokenizer.json"
    if how == "gone":
        file.unlink()
    else:
        other = Tokenizer(models.WordLevel({f"w{n}": n for n in range(len(TOKENIZER))}, unk_token="w0"))
        other.save(str(file))
    content, _ = read(run)
    assert content["carried"]["0"]["texts"] is None and content["carried"]["0"]["ids"][0] == TOKENIZER.encode("1")[0]


def test_the_newest_checkpoint_is_the_highest_step(run: Path) -> None:
    for step in 20, 100:
        (run / "checkpoints" / f"step-{step}").mkdir()
    (run / "checkpoints" / "step-3" / "tokenizer.json").rename(run / "checkpoints" / "step-100" / "tokenizer.json")
    (run / "checkpoints" / "step-20" / "tokenizer.json").write_text("{")
    assert read(run)[0]["carried"]["0"]["texts"]


def test_a_few_carry_tokens_training_and_evaluations_in_turns_within_what_a_page_may_hold(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_token, "_ROLLOUTS", 3)
    content, _ = read(run)
    chosen = [content["sets"][content["rows"]["set"][int(row)]]["label"] for row in content["carried"]]
    assert Counter(chosen) == {"training": 2, "before": 1}
    monkeypatch.setattr(by_token, "_TOKENS", 0)
    content, values = read(run)
    assert content["carried"] == {} and "carry their tokens" not in values["lead"]


def test_a_character_of_several_tokens_stands_with_the_last_of_them() -> None:
    tokenizer = Tokenizer(models.BPE({char: n for n, char in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    for text in ("a é 中 🙂!", "🙂🙂", "é"):
        ids = tokenizer.encode(text).ids
        found = pieces(ids, tokenizer.decode)
        assert len(found) == len(ids) and "".join(found) == text
    assert pieces(tokenizer.encode("a🙂").ids, tokenizer.decode) == ["a", "", "", "", "🙂"]
    cut = tokenizer.encode("a🙂").ids[:-1]  # in the middle of a character
    assert "".join(pieces(cut, tokenizer.decode)) == tokenizer.decode(cut)


def test_spaces_that_a_decoder_strips_from_a_first_token_are_kept() -> None:
    tokenizer = Tokenizer(models.WordLevel({"▁so": 0, "▁it": 1, "s": 2}, unk_token="s"))
    tokenizer.decoder = decoders.Metaspace()
    assert pieces([0, 1, 2, 1], tokenizer.decode) == ["so", " it", "s", " it"]


def test_lengths_that_were_counted_in_characters_say_so(run: Path) -> None:
    file = run / "evals" / "tiny-3.parquet"
    pq.write_table(pq.read_table(file).replace_schema_metadata({"template": "characters"}), file)
    assert [one["unit"] for one in read(run)[0]["sets"]] == ["tokens", "characters", "tokens"]


def test_samples_that_cannot_be_read_are_noted_once_and_the_others_are_there(run: Path) -> None:
    (run / "evals" / "tiny-3.parquet").write_text("half")
    runs = read_entries([run])
    values = reader(runs, by_source(runs))
    assert values["count"] == 6 and [one["label"] for one in values["sets"]] == ["before", "training"]
    assert len([note for note in runs[0].notes if "evals/tiny-3.parquet could not be read" in note]) == 1
