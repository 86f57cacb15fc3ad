"""Benchmarks by name: rows in each set's published shape, made here, and what comes of them."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from evaluation import benchmarks
from evaluation.asked import from_code, integer
from evaluation.benchmarks import BENCHMARKS, find, load
from launch.evaluate import Question, evaluate_checkpoints
from launch.plan import PlanError
from launch.problems import HeldOut, held_out
from recipes.loader import load as load_recipe
from rewards.rows import DataError
from rewards.verifier.judge import Judge
from rollout.template import load_template
from rollout.types import Problem
from tests.scripted import template

REAL = Path(os.environ.get("LACONIC_BENCHMARK_DATA", "absent"))
GPQA = {"Question": "Which?", "Correct Answer": "right", **{f"Incorrect Answer {n}": f"wrong {n}" for n in (1, 2, 3)}}


def sound(golds: Sequence[str]) -> list[str | None]:
    return [None] * len(golds)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def filled(name: str, row: dict[str, Any], rows: int | None = None) -> list[dict[str, Any]]:
    """As many rows as the benchmark has, each with a question of its own."""
    text = next(key for key in ("problem", "Problem", "question", "Question") if key in row)
    return [{**row, text: f"{row[text]} ({index})"} for index in range(rows or BENCHMARKS[name].rows)]


def read(tmp_path: Path, name: str, row: dict[str, Any], rows: int | None = None) -> Problem:
    write(tmp_path / f"{name}.jsonl", filled(name, row, rows))
    problems, left_out, *_ = load(f"{name}@{tmp_path}", sound)
    assert len(problems) == (rows or BENCHMARKS[name].rows) and left_out == []
    return problems[0]


@pytest.mark.parametrize(
    ("name", "row", "golds"),
    [
        ("math500", {"problem": "p", "solution": "\\boxed{7}", "answer": "\\frac{1}{2}", "subject": "Algebra", "level": 5}, ("\\frac{1}{2}",)),
        ("math", {"problem": "p", "solution": "So \\boxed{1}, no: \\boxed{\\frac{1}{2}}.", "type": "Algebra", "level": "Level 3"}, ("\\frac{1}{2}",)),
        ("aime24", {"problem": "p", "solution": "s", "answer": "025"}, ("25",)),
        ("aime24", {"ID": "2024-I-1", "Problem": "p", "Solution": "s", "Answer": 204}, ("204",)),
        ("aime24", {"problem": "p", "solution": "\\boxed{033}"}, ("33",)),
        ("aime25", {"problem": "p", "answer": "70"}, ("70",)),
        ("aime25", {"problem": "p", "answer": "$\\boxed{070}$"}, ("70",)),
        ("aime22-24", {"id": 0, "problem": "p", "solution": "s", "answer": "116", "url": "u"}, ("116",)),
        ("amc23", {"question": "q", "answer": "27.0"}, ("27",)),
        ("amc", {"problem": "p", "answer": 142.0}, ("142",)),
        ("gsm8k", {"question": "q", "answer": "5 * 250 = <<5*250=1250>>1250\n#### 1,250"}, ("1250",)),
        ("college-math", {"question": "q", "answer": "$x = 3$", "data_topic": "college_math.algebra"}, ("$x = 3$",)),
        ("college-math", {"problem": "q", "answer": "3"}, ("3",)),
        ("minerva", {"question": "q", "answer": "np.arcsin(10/13)"}, (r"\arcsin(10/13)",)),
        ("minerva", {"problem": "q", "solution": "Thus \\boxed{4.5e33}.", "type": "Astronomy"}, ("4.5e33",)),
        ("olympiadbench", {"question": "q", "final_answer": ["$2$"], "is_multiple_answer": False, "subfield": "Algebra"}, ("$2$",)),
        ("olympiadbench", {"question": "q", "final_answer": ["$2$", "$5$"], "is_multiple_answer": True}, ("$2$, $5$",)),
        ("gpqa-diamond", {"problem": "Q (A) 1 (B) 2", "solution": "\\boxed{B}", "domain": "Physics"}, ("B",)),
        ("ockbench-math", {"problem": "p", "answer": 468, "id": 0}, ("468",)),
    ],
)  # fmt: skip
def test_a_row_in_its_published_shape_is_asked_with_its_gold(tmp_path: Path, name: str, row: dict[str, Any], golds: tuple[str, ...]):
    problem = read(tmp_path, name, row)
    assert problem.golds == golds
    assert problem.text.startswith(next(str(row[key]) for key in ("problem", "Problem", "question") if key in row))
    assert problem.level == {5: 5, "Level 3": 3}.get(row.get("level"), 0)


def test_a_body_stands_before_its_question_and_units_are_no_part_of_an_answer(tmp_path: Path):
    svamp = {
        "ID": "chal-1",
        "Body": "There are 87 oranges. ",
        "Question": "How many?",
        "Equation": "( 87 )",
        "Answer": "145.0",
        "Type": "Addition",
    }
    problem = read(tmp_path, "svamp", svamp)
    assert (problem.text, problem.answer, problem.family) == ("There are 87 oranges. How many? (0)", "145", "Addition")
    asdiv = {"body": "Ellen has six.", "question": "How many?", "answer": "1,500 (balls)", "solution_type": "Addition", "formula": "f"}
    assert read(tmp_path, "asdiv", asdiv).answer == "1500"
    for answer, gold in (("3:4", "3:4"), ("Rug B", "Rug B"), ("(2 apples)", "(2 apples)"), ("12 (square feet) ", "12")):
        assert read(tmp_path, "asdiv", asdiv | {"answer": answer}, 2215).answer == gold


def test_rows_of_gsm_plus_without_a_numeric_gold_are_left_out_and_counted(tmp_path: Path):
    row = {"question": "q", "solution": "s", "answer": "1,234", "perturbation_type": "digit expansion"}
    rows = filled("gsm-plus", row, 2400)
    rows[3] |= {"perturbation_type": "critical thinking", "answer": "5"}
    rows[4]["answer"], rows[5]["answer"], rows[6]["answer"] = "None", None, "not enough information"
    write(tmp_path / "gsm-plus.jsonl", rows)
    problems, left_out, said, _ = load(f"gsm-plus@{tmp_path}", sound)
    assert [key.rpartition("/")[2] for key, _ in left_out] == ["4", "5", "6", "7"] and len(problems) == 2396
    assert all(reason.startswith("no numeric gold (") for _, reason in left_out)
    assert said.startswith("gsm-plus: 2,400 rows (testmini; qintongli/GSM-Plus has 10,552) of ")


def test_options_of_gpqa_stand_in_an_order_that_the_record_alone_decides(tmp_path: Path):
    def asked(folder: str, rows: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
        write(tmp_path / folder / "gpqa-diamond.jsonl", rows)
        return {
            problem.text.partition("\n")[0]: (problem.text, problem.answer)
            for problem in load(f"gpqa-diamond@{tmp_path}/{folder}", sound)[0]
        }

    rows = [{**row, "Record ID": f"rec{index}"} for index, row in enumerate(filled("gpqa-diamond", GPQA))]
    first = asked("a", rows)
    assert asked("b", rows[::-1]) == first  # neither the place among the rows nor a draw before it
    assert {letter for _, letter in first.values()} == set("ABCD")
    for text, letter in first.values():
        assert f"\n{letter}) right\n" in text and len(re.findall(r"^[A-D]\) ", text, re.M)) == 4


def test_rows_of_gpqa_without_one_right_letter_are_left_out_and_counted(tmp_path: Path):
    rows = [{**row, "Record ID": f"rec{index}"} for index, row in enumerate(filled("gpqa-diamond", GPQA))]
    faults: list[dict[str, Any]] = [
        {"Incorrect Answer 2": None}, {"Correct Answer": None}, {"Incorrect Answer 1": ""}, {"Incorrect Answer 3": "  \n"},
        {"Incorrect Answer 1": float("nan")}, {"Question": None}, {"Incorrect Answer 1": "wrong  2 "}, {"Incorrect Answer 3": "right\n"},
    ]  # fmt: skip
    for place, fault in enumerate(faults):
        rows[place] |= fault
    rows[20] |= {"Incorrect Answer 1": 0, "Incorrect Answer 2": "Right"}  # a number, and another letter case, are options
    write(tmp_path / "gpqa-diamond.jsonl", rows)
    problems, left_out, *_ = load(f"gpqa-diamond@{tmp_path}", sound)
    assert len(problems) == 190 and [key.rpartition("/")[2] for key, _ in left_out] == [str(place + 1) for place in range(8)]
    assert [reason for _, reason in left_out][:2] == ["its Incorrect Answer 2 is empty", "its Correct Answer is empty"]
    assert all(reason.startswith("two of its options are of the same text (") for _, reason in left_out[6:])


@pytest.mark.parametrize("copies", [1, 3])
def test_a_row_that_is_there_twice_is_no_problem_of_its_own_and_is_said(tmp_path: Path, copies: int):
    """Fewer problems under the right number of rows: no published set is refused for it (ASDiv has one), none passes for whole."""
    rows = filled("amc23", {"problem": "p", "answer": "1"})
    write(tmp_path / "amc23.jsonl", [*rows[: 40 - copies], *rows[:copies]])
    problems, left_out, said, _ = load(f"amc23@{tmp_path}", sound)
    assert len({problem.id for problem in problems}) == 40 - copies and left_out == []
    counted = f"{copies} of them {'repeats' if copies == 1 else 'repeat'} the problem and gold of another row, so these are {40 - copies} problems"
    assert said.endswith(counted)
    write(tmp_path / "amc23.jsonl", rows)
    assert "repeat" not in load(f"amc23@{tmp_path}", sound).said
    write(tmp_path / "amc23.jsonl", [*rows[:-1], rows[0] | {"answer": "2"}])
    found = load(f"amc23@{tmp_path}", sound)
    assert len({problem.id for problem in found.problems}) == 40 and found.said.endswith(
        "; 1 of them asks what another row asks, with another gold"
    )


def test_olympiadbench_says_which_of_its_copies_was_read(tmp_path: Path):
    row = {"question": "q", "final_answer": ["1"], "is_multiple_answer": False}
    for rows, words in ((674, "674 rows of"), (675, "675 rows (knoveleng/OlympiadBench; Hothan/OlympiadBench has 674) of")):
        write(tmp_path / "olympiadbench.jsonl", filled("olympiadbench", row, rows))
        assert words in load(f"olympiadbench@{tmp_path}", sound)[2]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"problem": "p", "answer": "1"}] * 29, "29 rows, but aime24 has 30 (HuggingFaceH4/aime_2024): fetch it again"),
        ([{"riddle": "p", "answer": "1"}] * 30, "aime24 needs a column problem or question; it has riddle, answer"),
        ([{"problem": "p", "gold": "1"}] * 30, "aime24 needs a column answer or final_answer or solution; it has problem, gold"),
        ([{"problem": "p", "answer": None}] * 30, "aime24 needs a column answer"),
    ],
)
def test_rows_that_are_not_the_benchmarks_are_refused_by_file_and_fault(tmp_path: Path, rows: list[dict[str, Any]], words: str):
    file = write(tmp_path / "aime24.jsonl", rows)
    with pytest.raises(DataError) as error:
        load(f"aime24@{tmp_path}", sound)
    assert str(error.value).startswith(f"{file}: ") and words in str(error.value)


@pytest.mark.parametrize(
    ("name", "row", "place"),
    [
        ("math500", {"problem": "p", "answer": "1"}, "math500.parquet"),
        ("math500", {"problem": "p", "answer": "1"}, "MATH-500/test.jsonl"),
        ("math500", {"problem": "p", "answer": "1"}, "HuggingFaceH4/MATH-500/test.jsonl"),
        ("math500", {"problem": "p", "answer": "1"}, "datasets--HuggingFaceH4--MATH-500/snapshots/abc/test.jsonl"),
        ("gsm8k", {"question": "p", "answer": "#### 1"}, "gsm8k_test.jsonl"),
        ("gsm8k", {"question": "p", "answer": "#### 1"}, "openai/gsm8k/main/test-00000-of-00001.parquet"),
        ("amc23", {"problem": "p", "answer": "1"}, "knoveleng/AMC-23/data/train-00000-of-00001.parquet"),
        ("aime25", {"problem": "p", "answer": "1"}, "aime_2025/data/train-00000-of-00001.parquet"),
        ("minerva", {"problem": "p", "answer": "1"}, "minerva_math/test.jsonl"),
        ("math", {"problem": "p", "solution": "\\boxed{1}"}, "MATH-lighteval/data/test-00000-of-00001.parquet"),
        ("ockbench-math", {"problem": "p", "answer": 1}, "ockbench/OckBench_math.jsonl"),
        ("math500", {"problem": "p", "answer": "1"}, "data/MATH500.jsonl"),
        ("svamp", {"Body": "b", "Question": "q", "Answer": "1.0"}, "data/svamp/test.jsonl"),
        ("gpqa-diamond", GPQA, "gpqa/gpqa_diamond.csv"),
        ("gsm-plus", {"question": "p", "answer": "1", "perturbation_type": "t"}, "GSM-Plus/data/test-00000-of-00001.parquet"),
        ("olympiadbench", {"question": "p", "final_answer": ["1"]}, "OlympiadBench/OE_TO_maths_en_COMP/OE_TO_maths_en_COMP.parquet"),
    ],
)  # fmt: skip
def test_a_folder_holds_a_benchmark_by_its_name_or_as_the_hub_lays_it_out(tmp_path: Path, name: str, row: dict[str, Any], place: str):
    """Other splits, configurations and sets beside it are not read."""
    (tmp_path / "README.md").write_text("no data")
    file = write(tmp_path / place, filled(name, row))
    for other in ("socratic/test-00000-of-00001.parquet", "main/train-00000-of-00001.parquet"):
        if name == "gsm8k" and "main" in place:
            write(file.parent.parent / other, filled(name, row, 3))
    if name == "ockbench-math":
        write(file.with_name("OckBench_coding.jsonl"), [{"problem": "p", "tests": "t"}])
    for beside, set_ in (
        ("testmini-00000-of-00001.parquet", "gsm-plus"),
        ("gpqa_main.csv", "gpqa-diamond"),
        ("../TP_TO_maths/TP_TO_maths.parquet", "olympiadbench"),
    ):
        if name == set_:
            write(file.parent / beside, filled(name, row, 3))
    write(tmp_path / "aime24.jsonl", [{"problem": "p", "answer": "1"}])
    assert len(load(f"{name}@{tmp_path}", sound)[0]) == BENCHMARKS[name].rows
    assert len(load(f"{name}@{file}", sound)[0]) == BENCHMARKS[name].rows


@pytest.mark.parametrize("hole", [{"answer": None}, {"answer": ""}, {"problem": None}])
def test_a_copy_with_holes_is_no_copy_and_one_row_of_many_is_left_out(tmp_path: Path, hole: dict[str, Any]):
    rows = filled("math500", {"problem": "p", "answer": "1"})
    several = write(tmp_path / "several.jsonl", [row | hole if place % 2 else row for place, row in enumerate(rows)])
    with pytest.raises(DataError, match=r"250 of 500 rows of math500 lack their text or answer \(first: .*several.jsonl:2\): fetch hub:"):
        load(f"math500@{several}", sound)
    one = load(f"math500@{write(tmp_path / 'one.jsonl', [rows[0] | hole, *rows[1:]])}", sound)
    assert (len(one.problems), len(one.left_out)) == (499, 1)


def test_math_is_read_of_seven_folders_as_one_set(tmp_path: Path):
    parts = [source.split("/")[2].partition(":")[0] for source in BENCHMARKS["math"].copies[0].sources]
    rows = filled("math", {"problem": "p", "solution": "\\boxed{1}"})
    for index, part in enumerate(parts):
        write(tmp_path / "hendrycks_math" / part / "test-00000-of-00001.parquet", rows[index::7])
        write(tmp_path / "hendrycks_math" / part / "train-00000-of-00001.parquet", rows[:5])
    assert len({problem.id for problem in load(f"math@{tmp_path}", sound)[0]}) == 5000


def test_a_problem_has_the_same_id_in_every_copy_and_another_one_where_its_gold_differs(tmp_path: Path):
    rows = filled("aime24", {"problem": "How  many\n?", "answer": 7})
    one = {problem.id for problem in load(f"aime24@{write(tmp_path / 'a.jsonl', rows)}", sound)[0]}
    copy = [{"Problem": row["problem"].replace("  ", " ").replace("\n", " "), "Answer": "007"} for row in reversed(rows)]
    assert {problem.id for problem in load(f"aime24@{write(tmp_path / 'b.jsonl', copy)}", sound)[0]} == one
    again = [*rows[:28], rows[0] | {"answer": 8}, rows[0]]
    ids = [problem.id for problem in load(f"aime24@{write(tmp_path / 'c.jsonl', again)}", sound)[0]]
    assert len(set(ids)) == 29 and ids[0] == ids[29] != ids[28]


def test_a_place_without_the_benchmark_says_what_would_be_looked_for(tmp_path: Path):
    (tmp_path / "math500-notes.jsonl").write_text("{}")
    with pytest.raises(
        DataError, match=r"holds no math500: put it there as math500.jsonl or .parquet, or as the hub lays it out \(Hugging"
    ):
        load(f"math500@{tmp_path}", sound)
    with pytest.raises(DataError, match="gone: no such folder"):
        load(f"math500@{tmp_path}/gone", sound)


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("MATH-500", "math500"),
        ("mth500", "math500"),
        ("gsm+", "gsm-plus"),
        ("aime2024", "aime24"),
        ("GPQA", "gpqa-diamond"),
        ("xyzzy", None),
    ],
)
def test_an_unknown_benchmark_is_refused_with_the_nearest(name: str, close: str | None):
    with pytest.raises(DataError, match=rf"no such benchmark\.{f' Did you mean {close}[?]' if close else ''} \(laconic"):
        find(name)


@pytest.mark.parametrize(
    ("text", "whole"),
    [("1,000", "1000"), ("27.0", "27"), ("070", "70"), ("$18", "18"), (r"\$18", "18"), ("145.0", "145"), ("-5", "-5"), ("12\\text{ cm}", "12"),
     ("3/4", "3/4"), ("1,2", "1,2"), ("5%", "5%"), ("12.50", "12.50"), ("2^3", "2^3"), ("", "")],
)  # fmt: skip
def test_a_gold_that_is_whole_is_a_whole_number(text: str, whole: str):
    assert integer(text) == whole


@given(st.integers(-(10**9), 10**9), st.sampled_from(["{}", "{:,}", "{}.0", " {} ", "${}$"]))
def test_whole_numbers_stay_what_they_are_however_they_are_written(number: int, form: str):
    assert integer(form.format(number)) == str(number)


def test_golds_that_are_code_equal_what_a_model_would_write():
    pairs = [
        ("np.arcsin(10/13)", r"\arcsin\left(\frac{10}{13}\right)"), ("np.sqrt((1+2)/12)", r"\frac12"), ("np.sqrt(2)*x**2", r"x^2\sqrt{2}"),
        ("np.log(2)", r"\ln 2"), ("np.exp(-t/(R*C))", "e^{-t/(RC)}"), ("4.5e33", r"4.5 \times 10^{33}"), (r"\exp{a*t} - \exp{-a*t}", "e^{at}-e^{-at}"),
        ("2*np.pi", r"2\pi"), ("x**(n+1)", "x^{n+1}"), (r"a+$ $b", "b+a"),
    ]  # fmt: skip
    with Judge(1, 3.0, 1024) as judge:
        verdicts = [judge.compare(gold=from_code(code), answer=answer) for code, answer in pairs]
        assert [verdict.result().status for verdict in verdicts] == ["right"] * len(pairs)


def test_eval_takes_the_protocol_of_r1_where_nothing_else_is_said():
    from launch.evaluate import protocol

    settings = load_recipe("evaluate", overrides=[*protocol(["math500", "aime24"]), "eval.max_tokens=4096"]).eval
    assert (settings.data, settings.benchmarks, settings.problems) == ([], ["math500", "aime24"], 0)
    assert (settings.temperature, settings.top_p, settings.max_tokens) == (0.6, 0.95, 4096)
    assert protocol([]) == []
    assert {name: one.samples for name, one in BENCHMARKS.items() if one.samples > 1} == {
        "aime24": 64, "aime25": 64, "aime22-24": 64, "amc23": 16, "amc": 16, "gpqa-diamond": 8, "math500": 4, "minerva": 4, "olympiadbench": 4, "ockbench-math": 4,
    }  # fmt: skip


def test_a_benchmark_takes_its_own_samples_in_eval_unless_others_are_said():
    from launch.evaluate import Question, recipe_for
    from launch.evaluations import evaluations

    def samples(part: HeldOut, named: list[str], *words: str) -> int | None:
        question = Question(words, named)
        recipe, _ = recipe_for("owner/name", question)
        [one] = evaluations([part], recipe, template(), Path(), checkpoint="x", own_samples=question.own_samples)
        return one.settings.samples

    aime, rows = HeldOut("aime24", [], [], samples=64), HeldOut("rows.jsonl", [], [])
    assert (samples(aime, ["aime24"]), samples(aime, ["aime24"], "eval.samples=2"), samples(rows, ["aime24"])) == (64, 2, 4)
    assert samples(aime, ["aime24"], "eval={samples: 4}") == 4
    assert samples(aime, [], "eval.benchmarks=[aime24]") == 4  # as the recipe says it, which is a run's cheap setting


@pytest.mark.parametrize(("words", "behind"), [([], f"\n\n{benchmarks.DIRECTIVE}"), (["data.instruction=Box it."], "")])
def test_in_a_recipe_benchmarks_stand_beside_its_sets_with_its_own_settings(tmp_path: Path, words: list[str], behind: str):
    """The protocol's directive stands behind a problem unless the recipe has an instruction, which the template puts there."""
    write(tmp_path / "rows.jsonl", [{"problem": "1 + 1?", "answer": "2"}])
    write(tmp_path / "minerva.jsonl", filled("minerva", {"question": "How far?", "answer": "3"}))
    asked = [
        f"eval.data=[{tmp_path}/rows.jsonl]",
        f"eval.benchmarks=[minerva@{tmp_path}, minerva@{tmp_path}/minerva.jsonl]",
        "eval.problems=100",
    ]
    recipe = load_recipe("evaluate", overrides=[*asked, *words])
    with Judge(1, 3.0, 1024) as judge:
        own, first, again = held_out(recipe, judge)
    assert [part.name for part in (own, first, again)] == [f"{tmp_path}/rows.jsonl", "minerva 1", "minerva 2"]
    assert (own.samples, first.samples) == (None, BENCHMARKS["minerva"].samples)
    assert own.problems[0].text == "1 + 1?" and first.problems == again.problems and len(first.problems) == 100
    assert all(re.fullmatch(rf"How far\? \(\d+\){re.escape(behind)}", problem.text) for problem in first.problems)


def test_the_first_prompt_is_shown_as_the_model_sees_it(tiny_checkpoint: Path):
    from launch.evaluate import print_prompts
    from launch.evaluations import evaluations

    console = Console(width=40, record=True)
    template = load_template(tiny_checkpoint)
    problem = Problem("aime24/1", "Add: 1 + 2", "3")
    part = HeldOut("aime24", [problem, Problem("aime24/2", "Add: 9 + 9", "18")], [])
    recipe = load_recipe("evaluate", overrides=["eval.budgets=[{kind: forced, limit: 9}]"])  # whose prompts are the same
    print_prompts(console, template, evaluations([part], recipe, template, Path(), checkpoint="x"))
    ids = template.prompt_ids(problem)
    text = template.tokenizer.decode(list(ids), skip_special_tokens=False)
    assert console.export_text() == f"aime24: aime24/1, {len(ids)} tokens, gold 3\n{text}\n"


def test_a_prompt_is_shown_of_a_model_that_is_too_short_for_the_protocol_and_has_no_weights_here(tiny_checkpoint: Path, tmp_path: Path):
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "short", ignore=shutil.ignore_patterns("*.safetensors", "manifest.json")))
    rows = filled("aime24", {"problem": "Add: 1 + 2", "answer": 3})
    question = Question(benchmarks=[f"aime24@{write(tmp_path / 'aime24.jsonl', [*rows[:-1], rows[-1] | {'answer': True}])}"])
    console = Console(width=400, record=True)
    evaluate_checkpoints([str(folder)], question, tmp_path / "out", False, console, show_prompt=True)
    shown = console.export_text()
    assert "<|user|>Add: 1 + 2" in shown and not (tmp_path / "out").exists()
    assert shown.startswith("aime24: 30 rows of ") and "gold is True" in shown and "\naime24: 1 row left out\n" in shown
    with pytest.raises(PlanError, match=r"eval\.max_tokens: 32768 is more than .*would fit"):
        evaluate_checkpoints([str(folder)], question, tmp_path / "out", False, console)


@pytest.mark.skipif(not REAL.is_dir(), reason="LACONIC_BENCHMARK_DATA names no folder")
def test_golds_of_real_rows_equal_themselves_but_those_named_here():
    missed = {
        "asdiv": ["-", "The 60th caller.", "Vendor 2"], "math": [r"12 \text{ gm}", r"\text{C, F, H}"], "olympiadbench": ["$t(0,4]$"],
        "minerva": [r"\frac{dM}{dt}=\frac{10^{5} L_{\odot}}{0.007 c^{2} M_{\odot}^{6}} M^{6}"],
    }  # fmt: skip
    with Judge(os.cpu_count() or 1, 3.0, 1024) as judge:
        for name in BENCHMARKS:
            try:
                golds = {problem.id: problem.answer for problem in load(f"{name}@{REAL}", sound)[0]}
            except DataError as error:
                assert "holds no" in str(error)
                continue
            out = load(f"{name}@{REAL}", judge.check_golds)[1]
            assert sorted(golds.get(key, "-") for key, _ in out) == sorted(missed.get(name, [])), benchmarks.BENCHMARKS[name]
