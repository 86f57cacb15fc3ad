"""The reference: its numbers, examples and pairs are those of its rollouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipes.columns import NumberColumn
from rewards.verifier.judge import Judge
from rollout.parts import Parts, sample
from rollout.reference import NoReference, pairs, requests, shortest_right, statistics, with_statistics
from rollout.scorer import Scorer
from rollout.sources import Source, blended
from rollout.types import Completion, Problem, Request
from tests.scripted import ScriptedPool, response, template

ASKED = {"samples": 4, "max_tokens": 40, "temperature": 1.0, "seed": 0, "max_prompt_tokens": 100}
ENDLESS = Source("numbers", lambda position: Problem(f"p{position}", f"q{position}", str(position)))
ROWS = [Problem(f"r{index}", f"q{index}", str(index), columns={"own": index}) for index in range(5)]
FINITE = Source("rows", lambda position: ROWS[position % 5], rows=5, problems=ROWS)
TEMPLATE = template()

Said = list[tuple[str, int]]  # right, wrong or cut, and the tokens of its thought


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(1, 3.0, 512) as judge:
        yield judge


def completions(request: Request, said: Said) -> list[Completion]:
    gold = request.problem.answer
    return [response(gold if kind == "right" else f"{gold}9", thought, "length" if kind == "cut" else "stop") for kind, thought in said]


def sampled(folder: Path, judge: Judge, said: Sequence[Said]) -> pa.Table:
    """A reference of one problem each, whose samples are those."""
    asked = requests(ENDLESS, TEMPLATE, len(said), **{**ASKED, "samples": len(said[0])})
    kept = Parts(folder, asked, {"template": "digest"}, "")
    list(sample([kept], ScriptedPool(lambda request: completions(request, said[int(request.problem.answer)])), Scorer(judge, TEMPLATE)))
    return kept.read()


def table(*said: list[tuple[str, int]]) -> pa.Table:
    """Such a table without sampling: (verdict, tokens) of each problem's rollouts; what a rollout says is its place."""
    rows = [
        {
            "problem_id": f"p{problem}",
            "verdict": verdict,
            "tokens": tokens,
            "finish": "stop",
            "prompt_ids": [problem],
            "ids": [problem, index],
        }
        for problem, rollouts in enumerate(said)
        for index, (verdict, tokens) in enumerate(rollouts)
    ]
    return pa.Table.from_pylist(rows)


def test_the_problems_are_the_first_of_the_stream_each_once_and_those_with_long_prompts_are_passed_over():
    asked = requests(FINITE, TEMPLATE, 12, **ASKED)
    assert [request.problem.id for request in asked] == ["r0", "r1", "r2", "r3", "r4"]
    assert [request.problem.id for request in requests(FINITE, TEMPLATE, 5, first=3, **ASKED)] == ["r0", "r1", "r2", "r3", "r4"]
    assert [request.problem.id for request in requests(ENDLESS, TEMPLATE, 2, **ASKED)] == ["p0", "p1"]
    long = Source("mixed", lambda position: Problem(f"p{position}", "q" * (1 + 99 * (position == 1)), "1"))
    assert [request.problem.id for request in requests(long, TEMPLATE, 3, **ASKED)] == ["p0", "p2"]
    assert len({request.seed for request in asked}) == 5
    assert requests(ENDLESS, TEMPLATE, 1, **ASKED | {"seed": 1})[0].seed != requests(ENDLESS, TEMPLATE, 1, **ASKED)[0].seed


@pytest.mark.parametrize("first", range(11))
def test_where_a_walk_through_the_rows_ends_no_problem_that_is_drawn_is_missed(first: int):
    at = blended([5], [1.0], 7)
    source = Source("rows", lambda position: ROWS[at(position)[1]], rows=5, problems=ROWS)
    for drawn in (1, 3, 5, 7, 23):
        asked = [request.problem.id for request in requests(source, TEMPLATE, min(drawn, 5), first=first, **ASKED)]
        assert len(set(asked)) == len(asked) == min(drawn, 5)
        assert {source.at(first + position).id for position in range(drawn)} <= set(asked)
        found = {id_: dict.fromkeys(("reference_tokens", "reference_accuracy"), 1.0) for id_ in asked}
        joined = with_statistics(source, requests(source, TEMPLATE, min(drawn, 5), first=first, **ASKED), found, seed=0)
        assert [joined.at(first + position).id for position in range(drawn)] == [
            source.at(first + position).id for position in range(drawn)
        ]
        if drawn >= 5:  # a second rl stage behind it goes on in the same order, as far as it goes
            assert [joined.at(position).id for position in range(40)] == [source.at(position).id for position in range(40)]
        assert {joined.at(position).id for position in range(40)} <= set(asked)


def test_rows_that_stand_twice_in_a_mixture_are_asked_once():
    at = blended([5, 5], [1.0, 1.0], 7)
    twice = Source("rows, rows", lambda position: ROWS[at(position)[1]], rows=10, problems=[*ROWS, *ROWS])
    assert len(requests(twice, TEMPLATE, 10, first=3, **ASKED)) == 5


def test_of_sets_of_uneven_weights_all_rows_are_sampled_where_as_many_are_asked_for():
    at = blended([2, 8], [9.0, 1.0], 7)
    named = [Problem(f"s{index}", f"q{index}", "1") for index in range(10)]
    uneven = Source("small, large", lambda position: named[2 * at(position)[0] + at(position)[1]], rows=10, problems=named)
    assert len({uneven.at(position).id for position in range(20)}) < 10
    assert [request.problem.id for request in requests(uneven, TEMPLATE, 10, **ASKED)] == [problem.id for problem in named]
    some = [request.problem.id for request in requests(uneven, TEMPLATE, 4, **ASKED)]
    assert {uneven.at(position).id for position in range(4)} <= set(some) and len(some) <= 4


def test_statistics_are_those_of_the_right_rollouts_and_the_shortest_right_one(tmp_path: Path, judge: Judge):
    found = statistics(
        table(
            [("right", 30), ("right", 50), ("wrong", 5), ("not_judged", 900)],
            [("right", 30), ("wrong", 10)],
            [("wrong", 7)],
            [("not_judged", 7)],
        )
    )
    assert found["p0"] == pytest.approx(
        {"reference_tokens": 40.0, "reference_spread": 200**0.5, "reference_accuracy": 2 / 3, "reference_shortest": 30}
    )
    assert found["p1"] == pytest.approx(  # one right answer is too few for a length: all count
        {"reference_tokens": 20.0, "reference_spread": 200**0.5, "reference_accuracy": 0.5, "reference_shortest": 30}
    )
    assert found["p2"] == {"reference_tokens": 7.0, "reference_spread": 0.0, "reference_accuracy": 0.0, "reference_shortest": None}
    assert found.keys() == {"p0", "p1", "p2"}
    end = len(response("0", 0).ids)
    judged = statistics(sampled(tmp_path, judge, [[("right", 3), ("right", 9), ("wrong", 1), ("cut", 30)]]))
    assert judged["p0"]["reference_tokens"] == end + 6 and judged["p0"]["reference_shortest"] == end + 3
    assert judged["p0"]["reference_accuracy"] == 0.5


def test_a_source_keeps_its_order_and_its_own_columns_and_gives_sampled_problems_only():
    asked = requests(FINITE, TEMPLATE, 5, **ASKED)
    found = statistics(table(*[[("right", 10 + index)] * 2 for index in range(3)]))
    found = {f"r{key[1:]}": value for key, value in found.items()}
    joined = with_statistics(FINITE, asked, found, seed=0)
    assert [joined.at(position).id for position in range(3)] == ["r0", "r1", "r2"]
    assert joined.at(1).columns == {
        "own": 1,
        "reference_tokens": 11.0,
        "reference_spread": 0.0,
        "reference_accuracy": 1.0,
        "reference_shortest": 11,
    }
    assert {joined.at(position).id for position in range(60)} == {"r0", "r1", "r2"}
    assert [joined.at(position).id for position in range(40)] == [
        with_statistics(FINITE, asked, found, seed=0).at(position).id for position in range(40)
    ]
    assert [joined.at(position).id for position in range(60)] != [
        with_statistics(FINITE, asked, found, seed=1).at(position).id for position in range(60)
    ]
    assert [problem.id for problem in joined.problems] == ["r0", "r1", "r2"]
    assert dict(joined.left_out) == dict.fromkeys(("r3", "r4"), "none of its rollouts in the reference could be judged")


def test_beyond_what_was_sampled_an_endless_source_goes_round():
    asked = requests(ENDLESS, TEMPLATE, 4, **ASKED)
    found = statistics(table(*[[("right", 10)] * 2] * 4))
    joined = with_statistics(ENDLESS, asked, found, seed=0)
    assert [joined.at(position).id for position in range(4)] == ["p0", "p1", "p2", "p3"]
    assert sorted(joined.at(position).id for position in range(4, 8)) == ["p0", "p1", "p2", "p3"]


def test_a_problem_without_a_number_that_is_read_is_left_out_and_none_left_is_an_error():
    asked = requests(ENDLESS, TEMPLATE, 2, **ASKED)
    found = statistics(table([("right", 10), ("wrong", 20)], [("wrong", 10), ("wrong", 20)]))
    shortest = [NumberColumn("reference_shortest", "budget.column")]
    joined = with_statistics(ENDLESS, asked, found, 0, shortest)
    assert {joined.at(position).id for position in range(9)} == {"p0"}
    assert joined.left_out == [("p1", "its reference_shortest in the reference is None, and budget.column reads a number above 0")]
    with pytest.raises(
        NoReference, match=r"numbers: none of the 1 problems that the reference stage sampled can train \(the first: its reference_shortest"
    ):
        with_statistics(ENDLESS, asked[1:], found, 0, shortest)


def test_the_shortest_right_answer_is_learned_and_a_shorter_wrong_one_is_not():
    """evaluation-and-inference.md: of 900 wrong, 1200, 3000, 5000 right, it is 1200."""
    found = table([("wrong", 900), ("right", 3000), ("right", 1200), ("right", 5000), ("right", 1200)], [("wrong", 1)], [("right", 8)])
    assert shortest_right(found) == [([0], [0, 2]), ([2], [2, 0])]
    with pytest.raises(
        NoReference, match=r"sampled 2 problems: 0 have a right answer, 1 a wrong one, 0 both; there is nothing to learn from"
    ):
        shortest_right(table([("wrong", 1)], [("not_judged", 1)]))


@pytest.mark.parametrize("learn", [shortest_right, lambda found: pairs(found, "both"), lambda found: pairs(found, "longer")])
def test_a_reference_of_which_nothing_was_judged_says_so(learn: Callable[[pa.Table], object]):
    with pytest.raises(NoReference, match=r"sampled 2 problems, and not one rollout could be judged: give the judge more \(judge.wall_s"):
        learn(table([("not_judged", 1)] * 2, [("not_judged", 3)]))
    with pytest.raises(
        NoReference, match=r"sampled 2 problems: 0 have a right answer, 1 a wrong one, .* \(of 1 not one rollout could be judged\)"
    ):
        learn(table([("not_judged", 1)] * 2, [("wrong", 3), ("not_judged", 3)]))


def test_pairs_set_the_shortest_right_answer_against_the_longest_right_and_the_longest_wrong_one():
    found = table([("wrong", 900), ("right", 1200), ("right", 3000), ("right", 5000), ("wrong", 800)])
    longer, wrong = ([0], [0, 1], [0, 3]), ([0], [0, 1], [0, 0])
    assert pairs(found, "longer") == [longer] and pairs(found, "wrong") == [wrong] and pairs(found, "both") == [longer, wrong]


def test_a_right_answer_hardly_longer_than_the_shortest_makes_no_pair():
    assert pairs(table([("right", 100), ("right", 149)], [("right", 100), ("right", 150)]), "longer") == [([1], [1, 0], [1, 1])]


@pytest.mark.parametrize(
    ("rejected", "said", "words"),
    [
        ("longer", [[("right", 10), ("right", 11)], [("wrong", 3)]], "2 problems: 1 have a right answer, 1 a wrong one, 0 both; none has a right answer and another at least 1.5 times as long"),
        ("wrong", [[("right", 10), ("right", 90)]], "1 problems: 1 have a right answer, 0 a wrong one, 0 both; none has a right and a wrong answer"),
        ("both", [[("wrong", 10), ("wrong", 90)]], "1 problems: 0 have a right answer, 1 a wrong one, 0 both; none has a right answer beside a wrong one"),
    ],
)  # fmt: skip
def test_no_pair_at_all_is_said_with_the_counts(rejected: str, said: list[list[tuple[str, int]]], words: str):
    with pytest.raises(NoReference, match=words):
        pairs(table(*said), rejected)


def test_a_cut_answer_may_be_rejected_and_is_never_chosen(tmp_path: Path, judge: Judge):
    found = sampled(tmp_path, judge, [[("right", 3), ("cut", 30), ("wrong", 5)]])
    [pair] = pairs(found, "both")
    assert pair.rejected == response("0", 30, "length").ids.tolist()
    cut = found.set_column(found.column_names.index("finish"), "finish", pa.array(["length"] * 3))
    with pytest.raises(NoReference):
        shortest_right(cut)


def test_parts_hold_the_records_of_samples_and_what_was_asked(tmp_path: Path, judge: Judge):
    sampled(tmp_path, judge, [[("right", 3), ("cut", 30)]])
    [part] = tmp_path.glob("part-*.parquet")
    kept = pq.read_table(part)
    assert kept.schema.metadata[b"template"] == b"digest"
    assert kept["request"].to_pylist() == ["reference:p0"] * 2 and kept["text"][0].as_py().endswith("\\boxed{0}")


def test_generated_problems_of_a_mixture_train_as_its_rows_do():
    mixed = Source("rows + numbers", lambda position: (FINITE, ENDLESS)[position % 2].at(position), problems=ROWS)
    asked = requests(mixed, TEMPLATE, 6, **ASKED)
    found = {request.problem.id: {"reference_tokens": 5.0} for request in asked}
    joined = with_statistics(mixed, asked, found, seed=0, numbers=[NumberColumn("reference_tokens", "reward")])
    assert [joined.at(position).id for position in range(6)] == [mixed.at(position).id for position in range(6)]
    assert joined.at(1).columns == {"reference_tokens": 5.0} and joined.at(2).columns == {"own": 2, "reference_tokens": 5.0}
    assert not joined.left_out
