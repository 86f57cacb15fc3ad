"""Scores against hand examples (evaluation methods A9, A11) and simulated twins."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.attempts import maj_at_k, of_samples
from evaluation.entries import BASE, Shown
from evaluation.measured import Samples, of_table
from evaluation.results import Evaluation, Settings
from evaluation.run_folder import Run
from evaluation.scores import budget_curve, score
from evaluation.tables import noise_table, reservations
from evaluation.words import warnings
from rewards.verifier.verdict import Verdict
from rollout.records import CHARACTERS, SCHEMA, rows
from rollout.types import Completion, Group, Problem, Request, Rollout

SETTINGS = {"temperature": 0.6, "top_p": 1.0, "max_tokens": 320, "samples": 2, "seed": 0, "engine": "reference"}


def make_group(name: str, samples: list[tuple[int, str]], family: str = "chain", level: int = 1) -> Group:
    """A judged group from (tokens, status) pairs; status "cut" is a wrong verdict on a truncated sample, None is unjudged."""
    problem = Problem(id=name, text=f"problem {name}", answer="7", family=family, level=level)
    request = Request(id=name, problem=problem, prompt_ids=(1, 2), group_size=2, max_tokens=320, temperature=0.6, top_p=1.0, seed=0)
    rollouts = []
    for index, (tokens, status) in enumerate(samples):
        completion = Completion(
            ids=np.arange(tokens, dtype=np.int32),
            logprobs=np.zeros(tokens, dtype=np.float32),
            finish="length" if status == "cut" else "stop",
            versions=np.full(tokens, 3, dtype=np.int32),
        )
        verdict = {
            "right": Verdict("right", "integer", "7"),
            "wrong": Verdict("wrong", "integer", "8"),
            "cut": Verdict("wrong", "unfinished"),
            "not_judged": Verdict("not_judged", "timeout", "7"),
        }.get(status)
        rollouts.append(
            Rollout(id=f"{name}-{index}", sample=index, completion=completion, text="t", answer_start=tokens // 2, verdict=verdict)
        )
    return Group(request, rollouts)


def of_groups(groups: list[Group]) -> Samples:
    return of_table(rows(groups, 0, "digest"))


def evaluation(groups: list[Group], **settings: object) -> Evaluation:
    asked = {group.problem.id: group.request.group_size for group in groups}
    table = rows(groups, 0, str(settings.get("template", "t")))
    return score(table, checkpoint="step-0", step=0, source="tiny", settings=Settings(**SETTINGS | settings), asked=asked)


# budgets


def test_budget_curve_hand_example() -> None:  # A11 natural
    lengths = [(500, "right"), (1500, "right"), (3000, "wrong"), (9000, "right")]
    groups = [make_group(str(place), [sample]) for place, sample in enumerate(lengths)]
    curve = budget_curve(of_groups(groups), [1000, 2000, 4000, 10000])
    assert [point.accuracy for point in curve] == [0.25, 0.5, 0.5, 0.75]
    assert [point.tokens for point in curve] == [875, 1500, 2250, 3500]


def test_what_was_never_made_counts_at_the_limit_and_in_characters_moves_no_mean() -> None:
    groups = [make_group(name, [(tokens, "right") for tokens in made]) for name, made in (("a", [20, 34]), ("b", [9, 0]), ("c", [0, 0]))]
    for group, sample in ((groups[1], 1), (groups[2], 0), (groups[2], 1)):
        group.rollouts[sample] = replace(
            group.rollouts[sample], completion=replace(group.rollouts[sample].completion, finish="abort"), verdict=None
        )
    found = {ruler: evaluation(groups, template=ruler) for ruler in ("t", CHARACTERS)}
    assert [row.tokens for row in found["t"].per_problem] == [27, (9 + 320) / 2, 320]
    assert [row.tokens for row in found[CHARACTERS].per_problem] == [27, 9, 18]
    assert found[CHARACTERS].tokens.mean == (27 + 9) / 2 and found[CHARACTERS].accuracy.mean == 0.5


samples = st.lists(
    st.lists(st.tuples(st.integers(1, 320), st.sampled_from(["right", "wrong", "not_judged"])), min_size=1, max_size=4),
    min_size=2,
    max_size=5,
)


@given(samples)
@settings(max_examples=30, deadline=None)
def test_accuracy_and_tokens_never_fall_with_the_budget_and_end_at_the_score(problems: list[list[tuple[int, str]]]) -> None:
    result = evaluation([make_group(str(i), group) for i, group in enumerate(problems)])
    curve = result.budget_curve
    assert all(a.accuracy <= b.accuracy and a.tokens <= b.tokens for a, b in itertools.pairwise(curve))
    assert curve[-1].budget == 320
    assert curve[-1].accuracy == pytest.approx(result.accuracy.mean)
    assert curve[-1].tokens == pytest.approx(result.tokens.mean)
    assert all(point.low <= point.accuracy + 1e-9 and point.accuracy <= point.high + 1e-9 for point in curve)


# the whole score


def test_unjudged_samples_stay_in_the_denominator_and_are_shown() -> None:  # P19, P35
    result = evaluation([make_group("a", [(10, "right"), (10, "not_judged")]), make_group("b", [(10, "right"), (10, "never judged")])])
    assert result.accuracy.mean == 0.5
    assert result.not_judged == 0.5
    assert result.no_answer == 0
    uneven = [make_group("a", [(9, "not_judged"), (9, "right"), (9, "right"), (9, "cut")]), make_group("b", [(9, "not_judged")])]
    found = evaluation(uneven)  # means over problems, as accuracy is: not 2 and 1 of 5
    assert (found.accuracy.mean, found.not_judged, found.truncated, found.no_answer) == (1 / 4, (1 / 4 + 1) / 2, 1 / 8, 1 / 8)


def test_a_short_group_counts_the_samples_that_exist_and_shows_the_missing() -> None:  # P35, planted short batch
    result = evaluation([make_group("a", [(10, "right")]), make_group("b", [(10, "right"), (30, "wrong")])])
    assert result.accuracy.mean == 0.75  # mean over problems, not 2 of 3 samples
    assert result.tokens.mean == 15
    assert (result.wanted, sum(row.samples for row in result.per_problem)) == (4, 3)


def test_of_a_problem_that_several_rows_ask_samples_are_asked_for_by_each_of_them() -> None:
    two = [(10, "right"), (30, "wrong")]
    groups = [make_group("twice", [*two, *two]), *(make_group(f"p{n}", two) for n in range(8)), make_group("short", two[:1])]
    groups[0].request = replace(groups[0].request, group_size=4)
    run = Run(Path(), "run", trained=False)
    shown = [Shown("run", BASE, evaluation(groups), run)]
    cells = {row.label: row.cells[0].text for row in noise_table(shown).rows}
    assert cells["Samples recorded, of those asked for"] == "21 of 22"
    assert any("1 samples that were asked for do not exist" in sentence for sentence in reservations([run], shown, []))
    votes = evaluation(groups[:2], budget={"kind": "short", "first": 1, "of": 2})
    assert (votes.wanted, sum(row.samples for row in votes.per_problem)) == (3, 3)


def test_samples_that_are_all_empty_have_a_budget_curve_of_one_point() -> None:
    result = evaluation([make_group("a", [(0, "wrong"), (0, "wrong")])], template="characters")
    assert [(point.budget, point.accuracy) for point in result.budget_curve] == [(1, 0.0)]


def test_a_problem_without_samples_is_an_error_not_a_gap() -> None:
    with pytest.raises(ValueError, match="problem b: no samples"):
        evaluation([make_group("a", [(10, "right")]), make_group("b", [])])


def test_a_problem_that_comes_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="problem a: scored twice"):
        evaluation([make_group("a", [(10, "right")]), make_group("a", [(10, "right")])])


def test_lengths_are_split_by_right_wrong_and_truncated() -> None:  # A9, P38
    result = evaluation([make_group("a", [(10, "right"), (40, "wrong")]), make_group("b", [(20, "right"), (320, "cut")])])
    tokens = result.tokens
    assert (tokens.right, tokens.wrong, tokens.truncated, tokens.median) == (15, 180, 320, 30)
    assert (result.truncated, result.no_answer) == (0.25, 0.25)


def test_levels_are_scored_apart_and_a_level_without_right_answers_has_no_right_length() -> None:
    result = evaluation(
        [make_group("a", [(10, "right")], level=1), make_group("b", [(30, "wrong")], level=2), make_group("c", [(20, "right")], level=1)]
    )
    assert [cell.model_dump() for cell in result.by_level] == [
        {"family": "chain", "level": 1, "problems": 2, "accuracy": 1.0, "tokens": 15.0, "tokens_right": 15.0},
        {"family": "chain", "level": 2, "problems": 1, "accuracy": 0.0, "tokens": 30.0, "tokens_right": None},
    ]


def test_a_score_is_strict_json_with_the_documented_keys() -> None:  # docs/architecture.md
    result = evaluation([make_group("a", [(10, "wrong")])])
    written = json.loads(result.model_dump_json(), parse_constant=pytest.fail)
    assert Evaluation.model_validate(written, strict=True) == result
    assert set(written) == {
        *(
            "checkpoint",
            "step",
            "source",
            "settings",
            "problems",
            "samples",
            "asked",
            "accuracy",
            "tokens",
            "truncated",
            "no_answer",
            "not_judged",
        ),
        *(
            "no_answer_by",
            "token_f1",
            "majority",
            "stated",
            "by_outcome",
            "by_level",
            "budget_curve",
            "per_problem",
            "forced",
            "adherence",
            "parallel",
        ),
    }
    assert result.tokens.right is None and result.tokens.low is None


def test_what_keeps_samples_without_an_answer_is_told_apart() -> None:
    groups = [make_group("a", [(5, "wrong"), (5, "cut")]), make_group("b", [(5, "right"), (5, "wrong")])]
    for group, reason in zip(groups, ("no box", "thinking not closed"), strict=True):
        for rollout in group.rollouts:
            if rollout.verdict.status == "wrong" and rollout.completion.finish == "stop":
                rollout.verdict = Verdict("wrong", reason)
    result = evaluation(groups)
    assert result.no_answer_by == {"no box": 0.25, "thinking not closed": 0.25, "unfinished": 0.25} and result.no_answer == 0.75


def test_stated_answers_make_a_rate_of_their_own_and_leave_the_other() -> None:
    groups = [make_group("a", [(5, "wrong"), (5, "right")]), make_group("b", [(5, "wrong"), (5, "wrong")])]
    groups[0].rollouts[0].stated, groups[1].rollouts[0].stated = Verdict("right", "integer", "7"), Verdict("wrong", "integer", "8")
    assert evaluation(groups).stated is None
    result = evaluation(groups, lenient=True)
    assert (result.accuracy.mean, result.stated.mean) == (0.25, 0.5)
    assert result.stated.low < 0.5 < result.stated.high
    assert [row["stated"] for row in rows(groups, 0, "t").to_pylist()] == ["right", None, "wrong", None]


def test_token_f1_is_told_of_answers_in_words_and_changes_no_accuracy() -> None:
    groups = [make_group("a", [(5, "wrong"), (5, "cut")]), make_group("b", [(5, "right"), (5, "wrong")])]
    assert evaluation(groups).token_f1 is None
    groups[0].request = replace(groups[0].request, problem=Problem("a", "Who?", "Barack Obama", others=("Obama",)))
    groups[0].rollouts[0].verdict = Verdict("wrong", "words", "President Obama")
    result = evaluation(groups)
    assert (result.token_f1.mean, result.token_f1.problems) == (pytest.approx((2 / 3 + 0) / 2), 1)
    assert result.accuracy.mean == 0.25


def test_lengths_of_an_evaluation_are_split_into_thinking_and_answer() -> None:  # answers begin at half of the tokens
    result = evaluation([make_group("a", [(10, "right"), (40, "wrong")]), make_group("b", [(20, "right"), (320, "cut")])])
    assert result.by_outcome["right"].model_dump() == {"samples": 2, "closed": 1, "thinking": 7.5, "answer": 7.5, "total": 15}
    assert result.by_outcome["truncated"].total == result.tokens.truncated == 320


# records


def test_rows_keep_every_sample_whole_with_the_documented_columns() -> None:
    table = rows([make_group("a", [(4, "right"), (0, "unjudged")])], step=12, template="digest")
    assert table.schema == SCHEMA
    first, second = table.to_pylist()
    assert (first["step"], first["problem_id"], first["tokens"], first["think_tokens"], first["version"]) == (12, "a", 4, 2, 3)
    assert first["ids"] == [0, 1, 2, 3] and first["verdict"] == "right"
    assert (second["verdict"], second["reason"], second["version"]) == ("not_judged", "never judged", None)


def test_a_row_holds_all_golds_and_the_oldest_policy_version_of_its_tokens() -> None:
    group = make_group("a", [(4, "right")])
    group.request = replace(group.request, problem=Problem("a", "Half?", "1/2", others=("0.5",)))
    old = group.rollouts[0].completion
    group.rollouts[0].completion = Completion(old.ids, old.logprobs, old.finish, np.array([5, 3, 4, 5], np.int32))
    [row] = rows([group], step=0, template="").to_pylist()
    assert (row["golds"], row["version"]) == (["1/2", "0.5"], 3)


def test_of_the_samples_that_ended_never_more_than_all_lack_a_box() -> None:
    groups = [make_group("a", [(5, "wrong"), (5, "cut"), (5, "cut"), (5, "cut")])]
    for rollout in groups[0].rollouts:
        rollout.verdict = Verdict("wrong", "no box")
    result = evaluation(groups)
    assert result.no_answer_by == {"no box": 0.25, "unfinished": 0.75}
    assert any(line.startswith("100.0 % of the samples that ended hold no") for line in warnings(result)), warnings(result)


def test_stored_samples_read_back_are_those_that_were_scored() -> None:
    groups = [
        make_group("a", [(4, "right"), (320, "cut"), (7, "not_judged")]),
        make_group("b", [(9, "wrong"), (6, "right"), (8, "wrong"), (5, "never judged")]),
    ]
    groups[1].rollouts[0].answer_start = None
    scored, stored = of_groups(groups), of_table(rows(groups[::-1], step=0, template="digest"))
    assert (stored.ids, stored.ruler, stored.problem.tolist()) == (("b", "a"), "digest", [0] * 4 + [1] * 3)
    order = [3, 4, 5, 6, 0, 1, 2]
    for name in ("right", "wrong", "length", "thinking", "finish", "extracted", "cut"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(scored, name)[order])


def test_rows_of_one_problem_belong_together_wherever_they_stand() -> None:
    table = rows([make_group("a", [(4, "right"), (5, "wrong")]), make_group("b", [(6, "right"), (9, "right")])], step=0, template="")
    mixed = of_table(table.take([0, 2, 1, 3]))
    assert mixed.measured.share.tolist() == [0.5, 1] and mixed.length.tolist() == [4, 5, 6, 9]


def test_votes_are_taken_from_stored_samples() -> None:  # 8 is voted for twice, a cut sample abstains, "8.0" is 8
    group = make_group("a", [(4, "right"), (9, "wrong"), (6, "wrong"), (320, "cut")])
    group.rollouts[2].verdict = Verdict("wrong", "number", "8.0")
    (chains,) = of_samples(of_groups([group]))
    assert (maj_at_k(chains, 1), maj_at_k(chains, 4)) == (0.25, 0)
    assert chains.answer.tolist() == [0, 1, 1, -1] and chains.thinking.tolist() == [2, 3, 4, 160]


def test_a_model_without_marks_of_thinking_is_waited_for_to_the_end() -> None:
    group = make_group("a", [(9, "right"), (4, "wrong"), (3, "cut")])
    for rollout in group.rollouts:
        rollout.answer_start = None
    (chains,) = of_samples(of_groups([group]))
    assert chains.thinking.tolist() == [4, 9, 9] and chains.finished.tolist() == [True, True, False]
