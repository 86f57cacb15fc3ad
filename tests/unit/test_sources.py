"""Problems by position: the same stream from the same recipe, and unusable rows listed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from recipes.columns import REFERENCE, NumberColumn
from recipes.data import Data, DataSet
from recipes.schema import Tiny
from rewards.rows import DataError
from rollout.sources import blended, heldout_problems, overlaps, training_source
from rollout.types import Problem


def golds_that_parse(golds: list[str]) -> list[str | None]:
    return [None if gold.strip() else "empty" for gold in golds]


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.jsonl"
    rows = [{"problem": f"n{index}", "answer": str(index), "level": index % 3} for index in range(7)] + [{"problem": "bad", "answer": ""}]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return path


def test_every_epoch_is_another_permutation_and_a_position_is_enough_to_resume(numbers: Path):
    source = training_source(Data(train=str(numbers)), Tiny(), 3, golds_that_parse)
    epochs = [[source.at(position).text for position in range(7 * epoch, 7 * epoch + 7)] for epoch in range(3)]
    assert all(sorted(epoch) == [f"n{index}" for index in range(7)] for epoch in epochs)
    assert epochs[0] != epochs[1]
    again = training_source(Data(train=str(numbers)), Tiny(), 3, golds_that_parse)
    assert again.at(16) == source.at(16)
    other = training_source(Data(train=str(numbers)), Tiny(), 4, golds_that_parse)
    assert [other.at(position).text for position in range(7)] != epochs[0]


def test_rows_whose_gold_cannot_be_judged_are_listed_and_left_out(numbers: Path):
    source = training_source(Data(train=str(numbers)), Tiny(), 0, golds_that_parse)
    assert source.rows == 7
    [(where, reason)] = source.left_out
    assert where.startswith("numbers.jsonl@") and where.endswith("/8") and reason == "no gold answer"


def test_p19_a_gold_that_stands_for_a_missing_value_is_none(tmp_path: Path):
    path = tmp_path / "exported.jsonl"
    golds = ["3", '"None"', '" nan "', "NaN", '"N/A"', "null", '"\\\\text{None}"', '"none of them"']
    path.write_text("\n".join([*(f'{{"problem": "p", "answer": {gold}}}' for gold in golds), '{"problem": "p"}']))
    kept, left_out, *_ = heldout_problems(DataSet(source=str(path)), Tiny(), 0, 0, golds_that_parse)
    assert [row.answer for row in kept] == ["3", r"\text{None}", "none of them"]
    assert [(where.rsplit("/")[-1], reason) for where, reason in left_out] == [
        ("2", "no gold answer (None)"),
        ("3", "no gold answer (nan)"),
        ("4", "no gold answer (nan)"),
        ("5", "no gold answer (N/A)"),
        ("6", "no gold answer"),
        ("9", "no gold answer"),
    ]


def test_a_line_ends_at_a_line_feed_and_at_no_other_character_that_a_string_may_hold(tmp_path: Path):
    path = tmp_path / "separators.jsonl"
    texts = ["a\u2028b", "a\u0085b", "a\u2029b"]
    rows = [json.dumps({"problem": text, "answer": "1"}, ensure_ascii=False) for text in texts] + [
        "\x0c\x0b",
        '{"problem": "c", "answer": ""}',
    ]
    path.write_bytes("\r\n".join(rows).encode())
    source = training_source(Data(train=str(path)), Tiny(), 0, golds_that_parse)
    assert sorted(source.at(position).text for position in range(3)) == sorted(texts)
    assert [where.rsplit("/")[-1] for where, _ in source.left_out] == ["5"]


def test_a_missing_gold_is_left_out_and_odd_levels_and_families_are_none(tmp_path: Path):
    path = tmp_path / "odd.jsonl"
    rows = [{"level": "²"}, {"level": "3", "family": None}, {"level": True, "family": "f"}, {"answer": None}]
    path.write_text("\n".join(json.dumps({"problem": str(index), "answer": 1.5} | row) for index, row in enumerate(rows)))
    kept, left_out, *_ = heldout_problems(DataSet(source=str(path)), Tiny(), 0, 0, golds_that_parse)
    assert [(row.answer, row.level, row.family) for row in kept] == [("1.5", 0, ""), ("1.5", 3, ""), ("1.5", 0, "f")]
    assert [reason for _, reason in left_out] == ["no gold answer"]


def test_a_local_data_set_is_read_through_the_hub_route(tmp_path: Path):
    (tmp_path / "train.jsonl").write_text('{"question": "1 + 1", "gold": 2}\n{"question": "2 + 2", "gold": 4}\n')
    source = training_source(Data(train=f"hub:{tmp_path}", problem="question", answer="gold"), Tiny(), 0, golds_that_parse)
    assert sorted((source.at(position).text, source.at(position).answer) for position in range(2)) == [("1 + 1", "2"), ("2 + 2", "4")]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"problem": "1", "answer": "1"}\n{"problem": ', ":2: not JSON in UTF-8 (Expecting value: column 13"),
        ("[1, 2]", ":1: not a JSON object but int"),
        (
            b'{"problem": "1", "answer": "1"}\r\n\n{"problem": "\xff", "answer": "1"}',
            ":3: not JSON in UTF-8 ('utf-8' codec can't decode byte 0xff",
        ),
        ('{"problem": "1", "answer": ' + "1" * 5000 + "}", ":1: not JSON in UTF-8 (Exceeds the limit"),
        ('{"problem": null, "answer": "1"}', ":1: problem is None: it must be a text that is not empty"),
        ('{"problem": ["x"], "answer": "1"}', ":1: problem is ['x']: it must be a text"),
        ('{"problem": " ", "answer": "1"}', ":1: problem is ' ': it must be a text that is not empty"),
        ('{"problem": "1", "answer": true}', ":1: answer is True: it must be a text, a number or a list of those"),
        ('{"problem": "1", "answer": {"steps": 1}}', ":1: answer is {'steps': 1}: it must be a text, a number or a list of those"),
        (
            '{"problem": "1", "points": "1"}',
            ":1: no column was recognised as the gold answer; it has points, problem. Set data.problem and data.answer",
        ),
        (
            '{"riddle": "1", "answer": "1"}',
            ":1: no column was recognised as the problem; it has answer, riddle. Set data.problem and data.answer",
        ),
        ('{"problem": "1", "answer": ""}', "none of its 1 rows has a usable problem and gold answer (first: no gold answer)"),
    ],
)
def test_unreadable_rows_are_named_by_file_and_line(tmp_path: Path, content: str | bytes, sentence: str):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as error:
        training_source(Data(train=str(path)), Tiny(), 0, golds_that_parse)
    assert f"{path}{sentence}" in str(error.value) or sentence in str(error.value)


def test_a_broken_row_among_others_is_left_out_and_listed(tmp_path: Path):
    rows = [
        {"problem": "p", "answer": "1"},
        *({"problem": problem, "answer": "1"} for problem in (None, " ", "a\ud800 b")),
        *({"problem": "q", "answer": answer} for answer in (True, {"x": 1})),
    ]
    source = training_source(Data(train=write(tmp_path / "rows.jsonl", rows)), Tiny(), 0, golds_that_parse)
    assert source.rows == 1 and [row.rpartition("/")[2] for row, _ in source.left_out] == ["2", "3", "4", "5", "6"]
    assert "half of a character" in source.left_out[2][1]


def test_files_of_a_folder_may_have_different_columns(tmp_path: Path):
    write(tmp_path / "deepscaler.jsonl", [{"problem": "p", "answer": "1", "solution": ""}] * 3)
    write(tmp_path / "dapo.jsonl", [{"prompt": [{"role": "user", "content": "q"}], "reward_model": {"ground_truth": "2"}}])
    source = training_source(Data(train=str(tmp_path)), Tiny(), 0, golds_that_parse)
    assert {(problem.text, problem.answer) for problem in source.problems} == {("p", "1"), ("q", "2")}
    assert source.said[0].endswith("; others: problems and answers: problem from problem, gold from answer")


def test_a_hub_name_may_name_its_split_for_training_and_for_evaluation(tmp_path: Path):
    for split in ("train", "test", "validation"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"problem": split, "answer": "1"}) + "\n")

    def read(suffix: str) -> tuple[str, str]:
        name = f"hub:{tmp_path}{suffix}"
        [held], *_ = heldout_problems(DataSet(source=name, split="test"), Tiny(), 0, 0, golds_that_parse)
        return training_source(Data(train=name, split="validation"), Tiny(), 0, golds_that_parse).at(0).text, held.text

    assert read("") == ("validation", "test")
    assert read(":train") == ("train", "train")
    with pytest.raises(DataError, match=r"gone: no such folder; hub:owner/name names a set of the hub"):
        training_source(Data(train=f"hub:{tmp_path}/gone"), Tiny(), 0, golds_that_parse)
    with pytest.raises(DataError, match=r"split 'gone' cannot be loaded .*hub:owner/name:split names another"):
        read(":gone")


def test_a_missing_file_and_an_unknown_hub_set_are_errors(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        training_source(Data(train=str(tmp_path / "gone.jsonl")), Tiny(), 0, golds_that_parse)
    with pytest.raises(DataError, match="hub:nobody/nothing: split 'train' cannot be loaded"):
        training_source(Data(train="hub:nobody/nothing"), Tiny(), 0, golds_that_parse)


def test_training_and_held_out_problems_of_the_tiny_task_are_disjoint():
    source = training_source(Data(), Tiny(), 0, golds_that_parse)
    held, left_out, *_ = heldout_problems(DataSet(source="tiny"), Tiny(), 200, 0, golds_that_parse)
    assert not {problem.text for problem in held} & {source.at(position).text for position in range(2000)}
    assert len({problem.text for problem in held}) == 200 and left_out == []


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_several_sets_share_the_positions_by_weight_and_each_walks_its_own_permutations(tmp_path: Path):
    names = [
        write(tmp_path / f"{name}.jsonl", [{"problem": f"{name}{i}", "answer": "1"} for i in range(rows)])
        for name, rows in (("a", 40), ("b", 7))
    ]
    data = Data(train=[DataSet(source=names[0], weight=3.0), names[1]])
    source = training_source(data, Tiny(), 5, golds_that_parse)
    drawn = [source.at(position).text for position in range(2000)]
    assert [sum(text.startswith(name) for text in drawn) for name in "ab"] == [1500, 500]
    of_a = [text for text in drawn if text.startswith("a")]
    assert all(len(set(of_a[start : start + 40])) == 40 for start in range(0, 1480, 40))
    again = training_source(data, Tiny(), 5, golds_that_parse)
    assert [again.at(position).text for position in (1999, 3, 1000)] == [drawn[1999], drawn[3], drawn[1000]]
    assert source.rows == 47 and [words.rpartition("(")[2] for words in source.said] == [
        "75.0% of the positions)",
        "25.0% of the positions)",
    ]


def test_a_set_of_a_list_names_its_own_columns(tmp_path: Path):
    name = write(tmp_path / "own.jsonl", [{"problem": "p", "answer": "1", "q": "own", "extra": {"gold": 2}}])
    source = training_source(Data(train=[DataSet(source=name, problem="q", answer="extra.gold")]), Tiny(), 0, golds_that_parse)
    assert (source.at(0).text, source.at(0).answer) == ("own", "2")


def test_a_row_travels_whole_only_where_a_reward_function_reads_it(tmp_path: Path):
    name = write(tmp_path / "row.jsonl", [{"problem": "p", "answer": "1", "hint": "h"}])
    sources = [training_source(Data(train=name), Tiny(), 0, golds_that_parse, columns=columns) for columns in (True, False)]
    assert [source.at(0).columns for source in sources] == [{"problem": "p", "answer": "1", "hint": "h"}, {}]


def test_rows_without_a_number_that_the_recipe_reads_are_refused_as_they_are_read(tmp_path: Path):
    """Plan says it of files that it reads; hub sets and large files are known to the run only."""
    name = write(tmp_path / "row.jsonl", [{"problem": "p", "answer": "1", "asked": "7"}, {"problem": "q", "answer": "1", "asked": None}])
    lacks = [NumberColumn("asked", "budget.column"), NumberColumn("reference_tokens", "the reward term o1_pruner")]
    with pytest.raises(DataError) as error:
        training_source(Data(train=[name, "tiny"]), Tiny(), 0, golds_that_parse, True, lacks)
    first, *others = str(error.value).splitlines()
    assert re.search(r"row.jsonl: 1 of 2 rows hold no number above 0 in asked, .* \(first: row.jsonl@\w+/2: None\)", first)
    assert [line.partition(", which")[0] for line in others] == [
        f"{name}: has no column reference_tokens",
        "tiny: has no column asked",
    ]
    source = training_source(Data(), Tiny(), 0, golds_that_parse, True, lacks[1:])
    assert lacks[1].held_by(source.at(0).columns["reference_tokens"]) and set(source.at(0).columns) == set(REFERENCE)


def test_a_column_that_only_some_rows_have_is_none_in_the_others(tmp_path: Path):
    first = write(tmp_path / "first.jsonl", [{"problem": "p", "answer": "1", "difficulty": 3}, {"problem": "q", "answer": "1"}])
    second = write(tmp_path / "second.jsonl", [{"problem": "r", "answer": "1", "hint": "h"}])
    source = training_source(Data(train=[first, second]), Tiny(), 0, golds_that_parse, columns=True)
    assert {(one.text, one.columns["difficulty"], one.columns["hint"]) for one in source.problems} == {
        ("p", 3, None),
        ("q", None, None),
        ("r", None, "h"),
    }


def test_of_several_golds_those_that_can_be_judged_stay(tmp_path: Path):
    path = tmp_path / "several.jsonl"
    write(path, [{"problem": "p", "answer": ["notfound", "1", "2"]}, {"problem": "q", "answer": ["proof", ""]}])
    [problem], left_out, *_ = heldout_problems(DataSet(source=str(path)), Tiny(), 0, 0, golds_that_parse)
    assert problem.golds == ("1", "2")
    assert [reason for _, reason in left_out] == ["no gold answer (proof)"]


def test_rows_that_repeat_are_one_problem_with_their_samples_and_it_is_said(tmp_path: Path):
    rows = [{"problem": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(3)] * 4 + [{"problem": "What is  2 + 1 ?", "answer": "3"}]
    name = write(tmp_path / "repeated.jsonl", rows)
    held, _, said, _ = heldout_problems(DataSet(source=name), Tiny(), 0, 0, golds_that_parse)
    assert [problem.repeats for problem in held] == [4, 4, 5]
    assert said[1] == f"{name}: 13 rows ask 3 different problems: each counts once, with the samples of all its rows"


def test_training_rows_that_ask_what_an_evaluation_asks_are_found_also_inside_instructions():
    held = [Problem("e1", "What is $17 + 25$?", "42"), Problem("e2", "Half of\n\nthree?", "1.5")]
    training = [
        Problem("t1", "what is 17+25", "42"),
        Problem("t2", "Solve this. Box it.\n\nWhat is 17 + 25?\n\nThink first.", "42"),
        Problem("t3", "Solve this.\n\nHalf of\n\nthree?", "1.5"),
        Problem("t4", "What is 17 + 26?", "43"),
    ]
    assert overlaps(training, held) == [("t1", "e1"), ("t2", "e1"), ("t3", "e2")]


FORMS = [
    "What is 17 + 25?",
    "Work it out stepwise and say the result last in the form Answer: N.\n\nWhat is 17 + 25?\n\nPut the answer behind Answer: alone.",
    "What is 17 + 25? Think step by step and give the final answer within \\boxed{}.",
    "What is 17 + 25?\nReason step by step, and put your final answer in \\boxed{}.",
    "Problem: What is 17 + 25?\n\nSolution:",
    "Here is a riddle.\n\nWhat is $17+25$?",
]

WORDINGS = [
    "Q: {}\nA:",
    "User: {}\nAssistant:",
    "A talk between User and Assistant, who thinks first.\nUser: Close with <answer>.\nThis is the problem:\n{}",
    "Below is a task.\n\n### Instruction:\n{}\n\n### Response: Let's think step by step.",
    "1. {}",
    "Problem 3. {}",
    "{} (2024 AIME I Problem 1)",
    "Answer the following question. {}",
    "Solve this problem: {}",
    "Solve the following math problem:\n{}",
    "{}\nEnter the answer as an integer.",
    "**Question:** {}\n\n**Answer:**",
]


@pytest.mark.parametrize("wording", WORDINGS)
def test_a_label_a_number_or_a_contests_name_around_a_problem_hides_no_overlap(wording: str):
    plain, worded = "What is 17 + 25?", wording.format("What is 17 + 25?")
    for asked, held in ((plain, worded), (worded, plain), (worded, FORMS[2])):
        assert overlaps([Problem("t", asked, "42")], [Problem("e", held, "42")]) == [("t", "e")]
    assert overlaps([Problem("t", "What is 17 + 26?", "43")], [Problem("e", worded, "42")]) == []
    assert overlaps([Problem("t", wording.format("What is 1 7 + 25?"), "33")], [Problem("e", plain, "42")]) == []


@pytest.mark.parametrize(("one", "other"), [("Find f(1 2)", "Find f(12)"), ("Sort $1 1$", "Sort $11$"), ("Find 5!", "Find 5")])
def test_a_space_between_numbers_and_a_factorial_make_another_problem(one: str, other: str):
    assert overlaps([Problem("t", one, "1")], [Problem("e", other, "1")]) == []


@pytest.mark.parametrize("held", FORMS)
def test_one_problem_in_two_usual_wordings_is_an_overlap_whichever_side_words_it(held: str):
    for index, text in enumerate(FORMS[:5]):
        assert overlaps([Problem(f"t{index}", text, "42")], [Problem("e", held, "42")]) == [(f"t{index}", "e")]
    assert overlaps([Problem("t", held.replace("25", "26"), "43")], [Problem("e", text, "42") for text in FORMS]) == []
    assert overlaps([Problem("t", "Here is a riddle.\n\nHalf of 3?", "1.5")], [Problem("e", held, "42")]) == []


def test_one_row_that_two_sets_read_by_other_columns_is_two_problems_and_by_the_same_ones_one(tmp_path: Path):
    path = tmp_path / "two.jsonl"
    path.write_text("\n".join(json.dumps({"q1": f"{n} + 1", "a1": str(n + 1), "q2": f"{n} * 7", "a2": str(n * 7)}) for n in range(4)))
    sums, products = (DataSet(source=str(path), problem=f"q{n}", answer=f"a{n}") for n in (1, 2))

    def ids(*sets: DataSet) -> list[str]:
        return [problem.id for problem in training_source(Data(train=list(sets)), Tiny(), 0, lambda golds: [None] * len(golds)).problems]

    alone, both = ids(sums), ids(sums, products)
    assert both[:4] == alone == ids(products) and both[4:] == [f"{id_}#2" for id_ in alone]
    assert ids(sums, sums) == [*alone, *alone]


def test_every_slate_deals_the_sets_in_another_order_and_a_set_goes_on_where_it_was():
    at = blended([7, 5000], [1.0, 1.0], seed=0)
    first, second = ([at(position) for position in range(start, start + 1000)] for start in (0, 1000))
    assert [index for index, _ in first] != [index for index, _ in second]
    large = [row for index, row in first + second if index == 1]
    assert len(set(large)) == len(large) == 1000


def test_problems_that_differ_in_what_the_system_says_are_two(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    asked = {"role": "user", "content": "1 + 1?"}
    turns = [[{"role": "system", "content": said}, asked] for said in ("In binary.", "In words.", "In binary.")]
    file.write_text("".join(json.dumps({"prompt": one, "answer": "2"}) + "\n" for one in turns))
    held, _, said, _ = heldout_problems(DataSet(source=str(file)), Tiny(), 0, 0, golds_that_parse)
    assert [(problem.system, problem.repeats) for problem in held] == [("In binary.", 2), ("In words.", 1)]
    assert "3 rows ask 2 different problems" in said[1]


def test_columns_that_an_evaluation_set_names_win_over_those_of_the_training_data(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"q": "theirs", "mine": "own", "gold": "1", "a": "2"}) + "\n")
    one = DataSet(source=str(file), problem="mine", answer="a")
    [problem], *_ = heldout_problems(one, Tiny(), 0, 0, golds_that_parse, lent=Data(problem="q", answer="gold"))
    assert (problem.text, problem.answer) == ("own", "2")
