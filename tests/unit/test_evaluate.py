"""Evaluations: what is asked, what is kept of one that was killed, which samples are read for a stated answer, and what is recorded of budgets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from evaluation.budgets import table_of
from evaluation.evaluate import Asked, evaluate, requests, waiting
from evaluation.measured import of_table
from evaluation.results import Budget, Evaluation, Extended, Settings
from launch.evaluate import commits
from launch.evaluations import held_commits
from rewards.rows import DataError
from rewards.verifier.judge import Judge
from rollout.scorer import Scorer
from rollout.template import REQUEST
from rollout.types import FORCED, Completion, Problem, Request
from tests.scripted import CLOSE, STOP, ScriptedPool, response, template

SAMPLES = [  # thought, answer behind it (None: the thinking never closes), how it ended, verdict, what reading gives
    ("x", "\\boxed{42}", "stop", "right", None),
    ("x", "\\boxed{41}, or the answer is 42", "stop", "wrong", None),
    ("x", "The answer is 42.", "stop", "wrong", "right"),
    ("x", "#### 42", "stop", "wrong", "right"),
    ("The answer is 42.", "The answer is 7.", "stop", "wrong", "wrong"),
    ("The answer is 42.", "It is hard to say", "stop", "wrong", "wrong"),
    ("The answer is 42.", None, "stop", "wrong", None),
    ("x", "The answer is 42.", "length", "wrong", None),
    ("x", "", "stop", "wrong", None),
]
SETTINGS = Settings(temperature=0.6, top_p=0.9, max_tokens=40, samples=3, seed=0, engine="vllm", template="digest", date="2026-01-01")


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(1, 3.0, 512) as judge:
        yield judge


def asked(folder: Path, problems: int = 7, name: str = "rows", **changes: Any) -> Asked:
    settings = SETTINGS.model_copy(update=changes)
    questions = requests(name, [Problem(f"p{index}", f"q{index}", str(index)) for index in range(problems)], template(), settings)
    return Asked(folder / name, "model", 3, "rows.jsonl", settings, questions, "weights")


def answers(request: Request) -> list[Completion]:
    """The first sample right, the second wrong, the third cut, longer from problem to problem."""
    gold = request.problem.answer
    return [response(gold, 2 + int(gold)), response(f"{gold}9", 4), response(gold, 40, "length")]


def completion(thought: str, answer: str | None, finish: str) -> Completion:
    ids = [*map(ord, thought), *([] if answer is None else [CLOSE, *map(ord, answer)]), *([STOP] if finish == "stop" else [])]
    return Completion(np.array(ids, np.int32), np.zeros(0, np.float32), finish, np.zeros(len(ids), np.int32))


def test_finished_samples_without_a_box_are_read_behind_their_thinking_and_no_others(tmp_path: Path, judge: Judge):
    one = replace(asked(tmp_path, 1, samples=len(SAMPLES), lenient=True))
    one = replace(one, requests=[replace(one.requests[0], problem=Problem("p", "q", "42"))])
    pool = ScriptedPool(lambda request: [completion(*sample[:3]) for sample in SAMPLES])
    [(_, scores)] = evaluate([one], pool, Scorer(judge, template()))
    table = pq.read_table(tmp_path / "rows.parquet")
    assert list(zip(table["verdict"].to_pylist(), table["stated"].to_pylist(), strict=True)) == [sample[3:] for sample in SAMPLES]
    assert scores.stated is not None and scores.stated.mean == pytest.approx(3 / 9)


def test_a_cut_sample_of_a_model_that_does_not_think_has_no_answer_and_one_that_ended_has(
    tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tests.scripted.Letters.opens_thinking", lambda *_: False)
    one, said = (
        asked(tmp_path, 1),
        [("maybe \\boxed{0}, but", None, "length"), ("x", "\\boxed{0} s", "length"), ("\\boxed{0}", None, "stop")],
    )
    [(_, scores)] = evaluate([one], ScriptedPool(lambda _: [completion(*sample) for sample in said]), Scorer(judge, template()))
    assert pq.read_table(one.table)["verdict"].to_pylist() == ["wrong", "right", "right"]
    assert (scores.no_answer, scores.no_answer_by) == (pytest.approx(1 / 3), {"unfinished": pytest.approx(1 / 3)})


def test_engines_are_asked_for_no_logprobs_unless_told_to_and_none_are_kept(tmp_path: Path, judge: Judge):
    problems = [Problem("p", "q", "1")]
    assert [requests("e", problems, template(), SETTINGS, logprobs=told)[0].logprobs for told in (False, True)] == [False, True]
    one = asked(tmp_path, 1, samples=1)
    list(evaluate([one], ScriptedPool(lambda request: [completion("x", "\\boxed{0}", "stop")]), Scorer(judge, template())))
    assert pq.read_table(one.table)["logprobs"].to_pylist() == [None]


def test_samples_that_are_to_be_ranked_keep_their_logprobs_and_those_without_are_not_gone_on_with(tmp_path: Path, judge: Judge):
    plain = asked(tmp_path)
    list(evaluate([plain], ScriptedPool(answers), Scorer(judge, template())))
    ranked = replace(plain, ranked=True, requests=[replace(one, logprobs=True) for one in plain.requests])
    with pytest.raises(FileExistsError, match="other logprobs: replace them"):
        waiting([ranked], pytest.fail)
    assert waiting([ranked], pytest.fail, overwrite=True) == [ranked]
    list(evaluate([ranked], ScriptedPool(answers), Scorer(judge, template())))
    assert waiting([ranked, plain], pytest.fail) == []  # more than was asked for will do
    found = of_table(pq.read_table(ranked.table))
    assert found.scored == "mean logprob" and found.score is not None and set(found.score) == {-0.5}
    assert of_table(pq.read_table(ranked.table).drop_columns("logprobs")).score is None


def test_an_evaluation_leaves_scores_and_samples_and_nothing_else(tmp_path: Path, judge: Judge):
    one = asked(tmp_path)
    [(same, scores)] = evaluate([one], ScriptedPool(answers), Scorer(judge, template()))
    assert same is one and {path.name for path in tmp_path.iterdir()} == {"rows.json", "rows.parquet"}
    assert Evaluation.model_validate_json((tmp_path / "rows.json").read_bytes(), strict=True) == scores.model_copy(update={"table": None})
    assert (scores.checkpoint, scores.step, scores.source, scores.settings) == ("model", 3, "rows.jsonl", SETTINGS)
    assert (scores.accuracy.mean, scores.truncated, scores.problems) == (pytest.approx(1 / 3), pytest.approx(1 / 3), 7)
    assert set(pq.read_table(one.table)["step"].to_pylist()) == {3}


def test_a_killed_evaluation_goes_on_where_it_stopped_and_ends_with_the_same_numbers(
    tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rollout.parts.PART_S", 0.0)
    scorer = Scorer(judge, template())
    both = [asked(tmp_path / "killed", 9, name) for name in ("a", "b@forced-9")]

    def kill(done: int, rollouts: int) -> None:
        if done >= 24:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(evaluate(both, ScriptedPool(answers), scorer, kill))
    said: list[str] = []
    left = waiting(both, said.append)
    assert sum(int(words.split(": ")[1].split()[0]) for words in said) == 8  # problems that are there
    pool = ScriptedPool(answers, seed=9)
    found = dict((one.path.name, scores) for one, scores in evaluate(left, pool, scorer))
    assert len(pool.seen) == 18 - 8
    for one in both:
        alone = replace(one, path=tmp_path / "alone" / one.path.name)
        [(_, scores)] = evaluate([alone], ScriptedPool(answers, seed=3), scorer)
        assert (tmp_path / "killed" / one.scores.name).read_bytes() == alone.scores.read_bytes()
        assert pq.read_table(one.table).equals(pq.read_table(alone.table))
        assert one.path.name not in found or found[one.path.name].accuracy == scores.accuracy
    assert waiting(both, pytest.fail) == []  # made, and said nothing of


def test_scores_that_were_torn_are_made_again_from_what_is_there(tmp_path: Path, judge: Judge):
    one = asked(tmp_path)
    list(evaluate([one], ScriptedPool(answers), Scorer(judge, template())))
    whole = one.scores.read_bytes()
    one.scores.write_bytes(whole[:50])
    assert waiting([one], pytest.fail) == [one]
    list(evaluate([one], ScriptedPool(answers), Scorer(judge, template())))
    assert one.scores.read_bytes() == whole


OTHERS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.7},
    "top_p": {"top_p": 1.0},
    "top_k": {"top_k": 20},
    "max_tokens": {"max_tokens": 41},
    "samples": {"samples": 4},
    "seed": {"seed": 1},
    "engine": {"engine": "reference"},
    "lenient": {"lenient": True},
    "budget": {"budget": Budget(kind="forced", limit=9)},
    "chat template and tokenizer": {"template": "other"},
    "problems": {"problems": 8},
}


@pytest.mark.parametrize("name", [*OTHERS, "weights"])
@pytest.mark.parametrize("made", [True, False])
def test_results_and_samples_that_were_made_otherwise_are_refused_and_overwritten_if_told_to(
    tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch, name: str, made: bool
):
    monkeypatch.setattr("rollout.parts.PART_S", 0.0)
    first = asked(tmp_path)
    found = evaluate([first], ScriptedPool(answers), Scorer(judge, template()), None if made else lambda done, _: 1 / (done < 6))
    with suppress(ZeroDivisionError):
        list(found)
    assert first.made == made and first.parts.folder.is_dir() != made
    other = replace(asked(tmp_path), weights="others") if name == "weights" else asked(tmp_path, **OTHERS[name])
    with pytest.raises((FileExistsError, DataError), match=rf"{name}.*--overwrite"):
        waiting([other], pytest.fail)
    assert waiting([other], pytest.fail, overwrite=True) == [other] and not first.made
    assert list(tmp_path.iterdir()) == []


def test_a_margin_or_a_date_makes_no_other_samples(tmp_path: Path, judge: Judge):
    list(evaluate([asked(tmp_path)], ScriptedPool(answers), Scorer(judge, template())))
    assert waiting([asked(tmp_path, margin=0.05, date="2026-02-02")], pytest.fail) == []


@pytest.mark.parametrize("table", [True, False])
def test_samples_of_before_a_setting_was_recorded_are_gone_on_with_where_it_is_off(tmp_path: Path, judge: Judge, table: bool):
    list(evaluate([asked(tmp_path)], ScriptedPool(answers), Scorer(judge, template())))
    file = asked(tmp_path).table
    old = pq.read_table(file)
    pq.write_table(old.replace_schema_metadata({key: value for key, value in old.schema.metadata.items() if key != b"top_k"}), file)
    assert waiting([asked(tmp_path, top_k=0)], pytest.fail) == []
    with pytest.raises(FileExistsError, match="another top_k"):
        waiting([asked(tmp_path, top_k=20)], pytest.fail)


def test_at_every_budget_the_same_problems_are_asked_with_the_same_seeds():
    problems = [Problem("a", "q1", "1"), Problem("b", "q2", "2")]
    natural, forced, requested = (
        requests(name, problems, template(), SETTINGS.model_copy(update={"budget": budget}))
        for name, budget in (("n", None), ("f", Budget(kind="forced", limit=9)), ("r", Budget(kind="requested", limit=9)))
    )
    for one, two, three in zip(natural, forced, requested, strict=True):
        assert one.seed == two.seed == three.seed and len({one.id, two.id, three.id}) == 3
        assert (one.thinking_tokens, two.thinking_tokens, three.thinking_tokens) == (None, 9, None)
        assert one.prompt_ids == two.prompt_ids != three.prompt_ids
        assert {one.max_tokens, two.max_tokens, three.max_tokens} == {40}
    said = template().tokenizer.decode(list(requested[0].prompt_ids))
    assert said == f"q1\n\n{REQUEST.replace('{budget}', '9')}<think>"


def test_a_requested_budget_stands_where_the_instruction_has_a_place_for_it():
    asking = replace(template(), instruction="Think for {budget} tokens.", budget=500)
    for budget, stated in ((None, 500), (Budget(kind="forced", limit=9), 500), (Budget(kind="requested", limit=9), 9)):
        [one] = requests("e", [Problem("a", "q1", "1")], asking, SETTINGS.model_copy(update={"budget": budget}))
        assert asking.tokenizer.decode(list(one.prompt_ids)) == f"q1\n\nThink for {stated} tokens.<think>"


def test_forced_tokens_have_a_number_of_their_own_and_count_as_nobodys(tmp_path: Path, judge: Judge):
    def close(request: Request) -> list[Completion]:
        done = response("0", 9)
        sources = np.zeros(len(done.ids), np.int8)
        sources[9] = FORCED
        return [replace(done, sources=sources), response("0", 4), response("1", 4), replace(done, sources=sources)]

    one = asked(tmp_path, 1, samples=4, budget=Budget(kind="forced", limit=9))
    [(_, scores)] = evaluate([one], ScriptedPool(close), Scorer(judge, template()))
    assert scores.forced is not None and (scores.forced.closed, scores.forced.tokens) == (0.5, 0.5)
    end = len("\\boxed{0}") + 1
    assert scores.tokens.mean == pytest.approx((2 * (9 + end) + 2 * (4 + 1 + end)) / 4)
    assert scores.adherence is None and json.loads(one.scores.read_text())["settings"]["budget"] == {"kind": "forced", "limit": 9}


@pytest.mark.parametrize(("kind", "put"), [("forced", [9]), ("extended", [4, 9])])
def test_what_thinks_on_behind_the_mark_that_was_put_there_is_told(tmp_path: Path, judge: Judge, kind: str, put: list[int]):
    """One of four closes a second time, behind two further tokens: it was closed, and it did not stop there."""

    def go_on(request: Request) -> list[Completion]:
        answer = [*map(ord, "\\boxed{0}"), STOP]
        shut = [*b"xxxxWxxxx", CLOSE] if kind == "extended" else [*b"xxxxxxxxx", CLOSE]
        found = []
        for ids in ([*shut, *b"yy", CLOSE, *answer], *[[*shut, *answer]] * 3):
            sources = np.zeros(len(ids), np.int8)
            sources[put] = FORCED
            found.append(Completion(np.array(ids, np.int32), np.zeros(0, np.float32), "stop", np.zeros(len(ids), np.int32), sources))
        return found

    budget = Budget(kind="forced", limit=9) if kind == "forced" else Extended(limit=9, waits=2, word="W")
    [(_, scores)] = evaluate([asked(tmp_path, 1, samples=4, budget=budget)], ScriptedPool(go_on), Scorer(judge, template()))
    assert scores.forced is not None and scores.forced.beyond == 0.25
    assert table_of([scores]).rows[0].cells[3].text.endswith("25.0 % thought on")


def test_of_extended_thinking_words_that_have_it_go_on_are_told_apart_from_marks_that_close_it(tmp_path: Path, judge: Judge):
    """4 thought, a word, 3 thought, and closed by the engine or by itself; one that is told twice and never closes; one that is told nothing."""

    def go_on(request: Request) -> list[Completion]:
        answer = [*map(ord, "\\boxed{0}"), STOP]
        shut, own = [*b"xxxxWxxx", CLOSE, *answer], [*b"xxxxWxxx", CLOSE, *answer]
        made = [(shut, [4, 8], "stop"), (own, [4], "stop"), ([*b"xxWxxWxx"], [2, 5], "length"), ([*b"xx", CLOSE, *answer], [], "stop")]
        found = []
        for ids, put, finish in made:
            sources = np.zeros(len(ids), np.int8)
            sources[put] = FORCED
            none, versions = np.zeros(0, np.float32), np.zeros(len(ids), np.int32)
            found.append(Completion(np.array(ids, np.int32), none, finish, versions, sources if put else None))
        return found

    one = asked(tmp_path, 1, samples=4, budget=Extended(limit=9, waits=2, word="W"))
    assert one.path.name == "rows"
    [(_, scores)] = evaluate([one], ScriptedPool(go_on), Scorer(judge, template()))
    assert scores.forced is not None and (scores.forced.closed, scores.forced.waits, scores.forced.tokens) == (0.25, 1.0, 5 / 4)
    again = Evaluation.model_validate_json(one.scores.read_bytes(), strict=True)
    assert again.settings.budget == one.settings.budget and isinstance(again.settings.budget, Extended)
    assert Evaluation.model_validate_json(one.scores.read_text().replace('"extended"', '"forced"')).settings.budget == Budget(
        kind="forced", limit=9
    )


def test_adherence_is_the_share_of_samples_within_what_was_asked_and_their_length_over_it(tmp_path: Path, judge: Judge):
    lengths = iter([480, 505, 900, 1500])  # Control of s1: limits [0, 1000]

    def say(request: Request) -> list[Completion]:
        return [response("0", next(lengths) - len("\\boxed{0}") - 2) for _ in range(4)]

    one = asked(tmp_path, 1, samples=4, max_tokens=2000, budget=Budget(kind="requested", limit=1000))
    [(_, scores)] = evaluate([one], ScriptedPool(say), Scorer(judge, template()))
    assert scores.adherence is not None and scores.adherence.within == 0.75
    assert scores.adherence.ratio == pytest.approx((480 + 505 + 900 + 1500) / 4 / 1000)


def test_another_commit_of_the_same_problems_is_said_and_not_refused(tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch):
    """Someone edited the set's README on the hub."""
    monkeypatch.setattr("rollout.parts.PART_S", 0.0)
    old, new = (asked(tmp_path, revision=commit * 40) for commit in "ab")
    with suppress(ZeroDivisionError):
        list(evaluate([old], ScriptedPool(answers), Scorer(judge, template()), lambda done, _: 1 / (done < 6)))
    said: list[str] = []
    assert held_commits(tmp_path) == {"rows.jsonl": "a" * 40}
    assert waiting([new], said.append) == [new] and f"commit {'a' * 40}, the set is at {'b' * 40} now" in said[0]
    [(_, found)] = evaluate([new], ScriptedPool(answers), Scorer(judge, template()))
    assert found.settings.revision == "b" * 40 and held_commits(tmp_path) == {"rows.jsonl": "a" * 40}
    assert waiting([new], said.append) == [] and len(said) == 3
    run, empty = tmp_path / "run", tmp_path / "empty"
    shutil.copytree(tmp_path, run / "evals")  # of a run whose checkpoint is evaluated, here or on a server
    assert commits(run / "recipe.yaml", empty, False) == commits(None, tmp_path, False) == {"rows.jsonl": "a" * 40}
    assert commits(None, empty, False) == commits(run / "recipe.yaml", tmp_path, True) == {}
