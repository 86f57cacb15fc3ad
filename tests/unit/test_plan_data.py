"""What plan says of the data: what it takes, what it leaves out, and what cannot serve."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from launch.explain import explain
from launch.plan import Plan, plan
from launch.plan_data import read_of_reference
from recipes.loader import load
from recipes.steps import Step, steps
from tests.unit.test_plan import LAPTOP, blockers

BOTH = ["data.train", "eval.data"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def data_lines(tmp_path: Path, train: list[dict[str, str]], held_out: list[dict[str, str]], *words: str) -> Plan:
    for name, rows in (("train", train), ("test", held_out)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return plan(load("dler", None, [f"data.train={tmp_path}/train.jsonl", f"eval.data=[{tmp_path}/test.jsonl]", *words]), LAPTOP)


def test_plan_says_which_columns_it_takes_and_which_rows_are_left_out_repeated_or_shared(tmp_path: Path):
    train = [{"problem": "1 + 1?", "answer": "2"}, {"problem": "Prove it.", "answer": "proof"}]
    made = data_lines(tmp_path, train, [{"question": "1 + 1 ?", "answer": "2"}] * 3)
    assert made.data == [
        f"{tmp_path}/train.jsonl: 2 rows, problems and answers: problem from problem, gold from answer",
        f"{tmp_path}/test.jsonl: 3 rows, problems and answers: problem from question, gold from answer",
        f"{tmp_path}/test.jsonl: 3 rows ask 1 different problems: each counts once, with the samples of all its rows",
    ]
    said = [line for line in made.warnings if line.startswith("data.")]
    assert "1 of 2 rows" in said[0] and said[0].endswith("/2: no gold answer (proof))")
    assert "1 of 1 rows are also rows of" in said[1]
    assert all(line in explain(made) for line in made.data)


def test_plan_says_what_benchmarks_come_to_and_what_training_shares_with_them(tmp_path: Path):
    aime = [{"problem": f"How many are {index}?", "answer": index} for index in range(30)]
    (tmp_path / "aime24.jsonl").write_text("\n".join(map(json.dumps, aime)))
    made = data_lines(
        tmp_path, [{"problem": f"{aime[3]['problem']} Put it in \\boxed{{}}.", "answer": "3"}], [{"problem": "1 + 1 ?", "answer": "2"}],
        f"eval.benchmarks=[aime24@{tmp_path}, math500, mth500, aime25@{tmp_path}]", "eval.problems=20", "eval.samples=3",
    )  # fmt: skip
    said = [line for line in made.data if line.startswith(("aime", "math"))]
    assert said[0].startswith(f"aime24: 30 rows of {tmp_path}/aime24.jsonl") and said[0].endswith(
        ": 20 problems x 3 samples = 60 rollouts an evaluation"
    )
    assert said[1].startswith("math500: 500 rows of hub:HuggingFaceH4/MATH-500, read and checked by the run: 20 problems x 3")
    assert [line for line in made.warnings if "also rows of aime24 (train.jsonl@" in line]
    refused = [line for line in made.blockers if line.startswith("eval.benchmarks: ")]
    assert (
        "mth500: no such benchmark. Did you mean math500?" in refused[0] and "holds no aime25: put it there as aime25.jsonl" in refused[1]
    )


def test_benchmarks_are_not_for_the_tiny_reasoner_and_serve_alone(tmp_path: Path):
    [line] = [line for line in plan(load("quickstart", None, ["eval.benchmarks=[aime24]"]), LAPTOP).blockers if "aime24" in line]
    assert line.startswith("eval.benchmarks: aime24 is not for the tiny reasoner")
    made = plan(load("dler", None, ["eval.data=[]", "eval.benchmarks=[aime24]"]), LAPTOP)
    assert not [line for line in made.blockers if line.startswith("eval.")]


@pytest.mark.parametrize(
    ("rows", "words", "sentence", "keys"),
    [
        ([{"riddle": "1 + 1?", "answer": "2"}], [], "no column was recognised as the problem; it has answer, riddle", BOTH),
        ([{"problem": "1 + 1?", "answer": "2"}], ["data.answer=gold"], "no field 'gold'; it has answer, problem", ["data.train"]),
        (
            [{"problem": "Prove it.", "answer": "proof"}],
            [],
            "none of its 1 rows has a usable problem and gold answer (first: no gold answer (proof))",
            BOTH,
        ),
    ],
)
def test_data_that_cannot_serve_are_refused_by_plan(
    tmp_path: Path, rows: list[dict[str, str]], words: list[str], sentence: str, keys: list[str]
):
    made = data_lines(tmp_path, rows, rows, *words)
    assert [line.split(":")[0] for line in made.blockers if sentence in line] == keys


def test_columns_named_for_training_hold_for_an_evaluation_that_has_them_and_others_are_recognised(tmp_path: Path):
    mine, words = {"task": "1 + 1?", "result": "2", "problem": "no", "answer": "7"}, ["data.problem=task", "data.answer=result"]
    made = data_lines(tmp_path, [mine], [{"problem": "2 + 2?", "answer": "4"}], *words)
    assert not [line for line in made.blockers if line.startswith("eval.data")]
    assert made.data[1] == (
        f"{tmp_path}/test.jsonl: 1 rows, problems and answers: problem from problem, gold from answer; "
        "no field 'task', which data.problem names; no field 'result', which data.answer names"
    )
    assert data_lines(tmp_path, [mine], [mine], *words).data[1].endswith("problem from task, gold from result")
    half = data_lines(tmp_path, [mine], [{"task": "2 + 2?", "problem": "no", "answer": "4"}], *words)
    assert "problem from task, gold from answer; no field 'result'" in half.data[1]
    own = [f'eval.data=[{{"source": "{tmp_path}/test.jsonl", "problem": "riddle"}}]']
    refused = data_lines(tmp_path, [mine], [mine], *words, *own).blockers
    assert any("no field 'riddle'" in line and "problem of the set" in line for line in refused)


def test_a_file_that_is_no_data_is_refused_by_plan(tmp_path: Path):
    (tmp_path / "paper.pdf").write_bytes(b"%PDF-1.7 \xff\x00")
    made = plan(load("dler", None, [f"data.train={tmp_path}/paper.pdf"]), LAPTOP)
    assert any(line.startswith(f"data.train: {tmp_path}/paper.pdf: neither JSON, parquet nor CSV") for line in made.blockers)


def test_problems_that_are_all_too_long_are_refused_by_plan_where_the_tokenizer_is_local(tmp_path: Path, tiny_checkpoint: Path):
    rows = [{"problem": "1 + 1 + 1 + 1", "answer": "4"}] * 2
    words = [f"model.path={tiny_checkpoint}"]
    assert not any("data.max_prompt_tokens 3" in line for line in data_lines(tmp_path, rows, rows, *words).blockers)
    made = data_lines(tmp_path, rows, rows, *words, "data.max_prompt_tokens=3")
    assert sum("fits data.max_prompt_tokens 3: the shortest has 7 tokens" in line for line in made.blockers) == 2
    some = data_lines(tmp_path, [*rows, {"problem": "1 + 1", "answer": "2"}], rows, *words, "data.max_prompt_tokens=3")
    assert [line.partition("rows of ")[0] for line in some.warnings if "data.max_prompt_tokens 3 before" in line] == ["data.train: 2 of 3 "]
    wide = data_lines(
        tmp_path,
        [{"problem": "1" + " " * 99 + "+ 1 + 1", "answer": "3"}, {"problem": "1 + 1", "answer": "2"}],
        rows[:0],
        *words,
        "data.max_prompt_tokens=3",
    )
    assert [line.partition("rows of ")[0] for line in wide.warnings if "data.max_prompt_tokens 3 before" in line] == ["data.train: 1 of 2 "]
    file = tiny_checkpoint / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(2)  # as some are saved; it cuts what they were trained on, and no prompt
    tokenizer.enable_padding(length=9)
    cutting = shutil.copytree(tiny_checkpoint, tmp_path / "cutting")
    tokenizer.save(str(cutting / "tokenizer.json"))
    made = data_lines(tmp_path, rows, rows, f"model.path={cutting}", "data.max_prompt_tokens=3")
    assert sum("the shortest has 7 tokens" in line for line in made.blockers) == 2


def test_problems_that_ask_for_another_form_of_answer_are_told(tmp_path: Path):
    rows = [{"problem": "Solve it. The last line must be of the form Answer: $Answer\n\n1 + 1?", "answer": "2"}]
    assert sum("ask for another form of answer" in line for line in data_lines(tmp_path, rows, rows).warnings) == 2


def test_a_function_that_asks_for_a_column_of_the_data_is_tried_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "plan_columns.py").write_text("def near(completions, distance, **_): return [min(1.0, d / 9) for d in distance]\n")
    monkeypatch.syspath_prepend(tmp_path)
    reward = "reward=[{kind: verdict}, {kind: function, name: 'plan_columns:near', gate: right}]"
    (tmp_path / "with.jsonl").write_text(json.dumps({"problem": "1+1?", "answer": "2", "distance": 3}))
    (tmp_path / "without.jsonl").write_text(json.dumps({"problem": "1+1?", "answer": "2"}))

    def refused(*words: str) -> list[str]:
        return [
            line for line in blockers(LAPTOP, "dler", "tiny", reward, "model.path=someone/something", *words) if line.startswith("reward")
        ]

    for rows, eval_too in (("with.jsonl", "stages=[rl]"), ("hub:owner/name", "stages=[rl]"), ("without.jsonl", "stages=[eval]")):
        assert refused(f"data.train={rows}", eval_too) == []
    assert "missing a required argument: 'distance'" in refused("data.train=without.jsonl", "stages=[rl]")[0]


def test_columns_that_a_function_asks_for_are_looked_for_in_every_set_of_a_mixture_and_in_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "plan_mixed.py").write_text("def near(completions, distance, hint=None, **_): return [0.0 for _ in completions]\n")
    monkeypatch.syspath_prepend(tmp_path)
    reward = "reward=[{kind: verdict}, {kind: function, name: 'plan_mixed:near', gate: right}]"
    (tmp_path / "some.jsonl").write_text("\n".join(json.dumps(ROW | more) for more in ({"distance": 3}, {}, {"distance": None})))
    (tmp_path / "without.jsonl").write_text(json.dumps(ROW))
    made = plan(load("dler", None, [reward, "data.train=[some.jsonl, without.jsonl, tiny]", "stages=[rl]"]), LAPTOP)
    asked = "distance, which the reward function plan_mixed:near asks for"
    assert [line for line in made.blockers if line.startswith("data.")] == [
        f"data.train: {source}: has no column {asked}; add it, or give the function a default" for source in ("without.jsonl", "tiny")
    ]
    [said] = [line for line in made.warnings if asked in line]
    assert said.startswith("data.train: some.jsonl: 2 of 3 rows have no ") and said.endswith("/2): it gets None")


def test_a_function_may_ask_for_the_columns_that_generated_problems_bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "plan_tiny.py").write_text("def near(completions, reference_tokens): return [0.0 for _ in completions]\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert blockers(LAPTOP, "dler", "tiny", "reward=[{kind: verdict}, {kind: function, name: 'plan_tiny:near', gate: right}]") == []


ROW = {"problem": "1 + 1?", "answer": "2"}
ASKED = ["data.instruction=Think for {budget} tokens.", "budget.kind=prompt", "budget.column=asked"]
REFERENCE = ["budget.kind=reference"]
GIVEN = ("reference_tokens", "reference_spread", "reference_accuracy", "reference_shortest")
NEMO, PRUNER = (
    [f"reward=[{{kind: verdict}}, {{kind: {kind}}}]", "waive=[right_beats_wrong, length_of_wrong]"] for kind in ("nemo_band", "o1_pruner")
)
STATISTICS = {"reference_tokens": 300, "reference_spread": 0.0, "reference_accuracy": 1.0}


@pytest.mark.parametrize(
    ("words", "rows", "said"),
    [
        (ASKED, [{}, {}], "has no column asked, which budget.column reads (number above 0): add it or name another; there is problem, answer"),
        (ASKED, [{"asked": None}] * 2, "has no column asked"),
        (ASKED, [{"asked": 70}, {}, {"asked": 0}], "2 of 3 rows hold no number above 0 in asked, which budget.column reads (first: train.jsonl@"),
        (ASKED, [{"asked": 70}, {"asked": "many"}], "/2: 'many'): correct them or take them out"),
        (ASKED, [{"asked": 70}, {"asked": True}], "/2: True)"),
        (ASKED, [{"asked": "-7"}], "1 of 1 rows hold no number above 0"),
        ([*ASKED[:2], "budget.column=extra.asked"], [{"extra": {"asked": 70}}, {"extra": {}}], "1 of 2 rows hold no number above 0 in extra.asked"),
        (REFERENCE, [{"tokens": 3}], "has no column reference_tokens, which budget.column reads"),
        (NEMO, [STATISTICS | {"reference_accuracy": 75}], "1 of 1 rows hold no share from 0 to 1 in reference_accuracy, which the reward term nemo_band reads"),
        (NEMO, [STATISTICS, STATISTICS | {"reference_spread": -1}], "1 of 2 rows hold no number of at least 0 in reference_spread"),
        (PRUNER, [{"reference_tokens": 300}], "has no column reference_accuracy, which the reward term o1_pruner reads (share from 0 to 1): add it or put a stage `reference` before; there is"),
    ],
)  # fmt: skip
def test_a_number_that_the_recipe_reads_and_rows_do_not_have_is_refused_by_plan(
    tmp_path: Path, words: list[str], rows: list[dict[str, object]], said: str
):
    made = data_lines(tmp_path, [ROW | row for row in rows], [ROW], *words)
    lines = [line for line in made.blockers if line.startswith(f"data.train: {tmp_path}/train.jsonl: ")]
    assert len(lines) == 1 and said in lines[0], made.blockers


@pytest.mark.parametrize(
    ("words", "row"),
    [(ASKED, {"asked": 70}), (ASKED, {"asked": "70"}), (REFERENCE, {"reference_tokens": 0.5}), (NEMO, STATISTICS), (PRUNER, STATISTICS),
     ([*ASKED[:2], "budget.column=extra.asked"], {"extra": '{"asked": 70}'}), ([*ASKED, "stages=[eval]"], {}), ([], {})],
)  # fmt: skip
def test_numbers_that_are_there_as_numbers_or_texts_plan(tmp_path: Path, words: list[str], row: dict[str, object]):
    assert not [line for line in data_lines(tmp_path, [ROW | row] * 2, [ROW], *words).blockers if line.startswith("data.")]


def test_every_set_of_a_mixture_is_asked_for_its_numbers_the_generated_one_too(tmp_path: Path):
    (tmp_path / "more.jsonl").write_text(json.dumps(ROW))
    mixture = f"data.train=[{tmp_path}/train.jsonl, {tmp_path}/more.jsonl, tiny]"
    made = data_lines(tmp_path, [ROW | {"asked": 70}], [ROW], *ASKED, mixture)
    assert [line.partition(": has no column asked")[0] for line in made.blockers if line.startswith("data.")] == [
        f"data.train: {tmp_path}/more.jsonl",
        "data.train: tiny",
    ]
    assert any(line.endswith("there is reference_tokens, reference_spread, reference_accuracy") for line in made.blockers)
    assert not blockers(LAPTOP, "nemo_band", "tiny") and not blockers(LAPTOP, "quickstart", None, *REFERENCE)


@pytest.mark.parametrize(
    ("stages", "named"),
    [
        ("[{kind: reference, changes: {data.train: rows.jsonl}}, rl]", "stages[1] (rl) reads what stages[0] (reference) found of each problem, and data.train"),
        ("[reference, {kind: rl, changes: {data.train: rows.jsonl}}]", "and data.train"),
        ("[{kind: reference, changes: {seed: 7}}, rl]", "and seed differ"),
        ("[{kind: reference, changes: {tiny.families: [sum]}}, rl]", "and tiny differ"),
        ("[{kind: reference, changes: {sampler.temperature: 0.9}}, rl]", ""),
        ("[{kind: rl, name: a, changes: {seed: 7}}, reference, rl]", ""),
    ],
)  # fmt: skip
def test_what_a_reference_found_of_other_problems_is_refused_before_it_samples(tmp_path: Path, monkeypatch, stages: str, named: str):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"problem": "1 + 2", "answer": "3"}\n')
    found = [line for line in plan(load("nemo_band", "tiny", [f"stages={stages}"]), LAPTOP).blockers if "found of each problem" in line]
    assert (named in found[0]) if named else not found
    assert not [line for line in plan(load("dler", "tiny", [f"stages={stages}"]), LAPTOP).blockers if "found of each problem" in line]


@pytest.mark.parametrize(
    ("takes", "read"),
    [
        ("reference_tokens", ["reference_tokens"]),
        ("reference_tokens=None", ["reference_tokens"]),
        ("reference_shortest=0, **_", list(GIVEN)),
        ("**columns", list(GIVEN)),
        ("trainer_state", []),
    ],
)
def test_a_function_that_is_given_columns_of_a_reference_reads_them_by_whatever_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes: str, read: list[str]
):
    (tmp_path / f"plan_given_{len(takes)}.py").write_text(f"def by(completions, {takes}): return [0.0 for _ in completions]\n")
    monkeypatch.syspath_prepend(tmp_path)
    reward = f"reward=[{{kind: verdict}}, {{kind: function, name: 'plan_given_{len(takes)}:by', gate: right}}]"

    def rl(stages: str) -> Step:
        return steps(load("dler", "tiny", [reward, f"stages={stages}"]))[-1]

    assert read_of_reference(rl("[reference, rl]")) == read
    assert read_of_reference(rl("[rl]")) == read_of_reference(rl("[{kind: rl, name: a}, reference, eval]")) == []
    other = plan(load("dler", "tiny", [reward, "stages=[{kind: reference, changes: {seed: 7}}, rl]"]), LAPTOP)
    assert any("and seed differ" in line for line in other.blockers) == bool(read)
