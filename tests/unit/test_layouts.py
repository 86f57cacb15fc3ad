"""The shapes of public sets: which columns are problem, golds, family and level. Rows are our own."""

from __future__ import annotations

from typing import Any

import pytest

from rewards.golds import golds, no_gold
from rewards.rows import DataError, Row
from rollout.layouts import family_of, golds_of, level_of, problem_of, recognise

USER, SYSTEM = {"role": "user", "content": "1 + 1?"}, {"role": "system", "content": "Be short."}
VERL = {"data_source": "math", "ability": "MATH", "extra_info": {"index": 3}}
SETS: dict[str, tuple[dict[str, Any], tuple[str, tuple[str, ...], str, int]]] = {
    "DeepScaleR": ({"problem": "1 + 1?", "answer": "2", "solution": r"It is \boxed{3}"}, ("1 + 1?", ("2",), "", 0)),
    "DAPO": (VERL | {"prompt": [USER], "reward_model": {"ground_truth": "2", "style": "rule"}}, ("1 + 1?", ("2",), "math", 0)),
    "DAPO, processed": (
        {"prompt": "1 + 1?", "solution": "2", "source_prompt": [SYSTEM], "reward_model": {"ground_truth": "2"}},
        ("1 + 1?", ("2",), "", 0),
    ),
    "Skywork-OR1": (
        VERL | {"prompt": [USER], "reward_model": {"ground_truth": r'["$\\frac{4}{2}$", "2"]', "style": "rule"}},
        ("1 + 1?", (r"$\frac{4}{2}$", "2"), "math", 0),
    ),
    "OpenR1-Math": (
        {"problem": "1 + 1?", "solution": "s", "answer": "2", "problem_type": "Algebra", "source": "x", "messages": [USER]},
        ("1 + 1?", ("2",), "Algebra", 0),
    ),
    "Big-Math": ({"problem": "1 + 1?", "answer": "2", "domain": ["M -> A"], "source": "x", "llama8b_solve_rate": 0.2}, ("1 + 1?", ("2",), "M -> A", 0)),
    "NuminaMath-CoT": ({"source": "s", "problem": "1 + 1?", "solution": r"so \boxed{2}.", "messages": [USER]}, ("1 + 1?", ("2",), "s", 0)),
    "MATH": ({"problem": "1 + 1?", "level": "Level 5", "type": "Algebra", "solution": r"so \boxed{2}."}, ("1 + 1?", ("2",), "Algebra", 5)),
    "MATH-500": ({"problem": "1 + 1?", "solution": "s", "answer": "2", "subject": "Algebra", "level": 2}, ("1 + 1?", ("2",), "Algebra", 2)),
    "GSM8K": ({"question": "1 + 1?", "answer": "It is <<1+1=2>>2\n#### 2"}, ("1 + 1?", ("2",), "", 0)),
    "OlympiadBench": (
        {"context": "Count.", "question": "1 + 1?", "solution": ["s"], "final_answer": ["2", "$2$"], "subfield": "Algebra", "subject": "Math", "difficulty": "Competition"},
        ("Count.\n\n1 + 1?", ("2", "$2$"), "Algebra", 0),
    ),
    "OpenMathReasoning": (
        {"expected_answer": "2", "problem_type": "has_answer_extracted", "problem_source": "forum", "problem": "1 + 1?", "generated_solution": r"\boxed{3}"},
        ("1 + 1?", ("2",), "forum", 0),
    ),
    "AIME, capitals": ({"ID": "I-1", "Problem": "1 + 1?", "Solution": "s", "Answer": 2}, ("1 + 1?", ("2",), "", 0)),
    "AIMO, floats": ({"id": 0, "problem": "1 + 1?", "answer": 2.0, "url": "u"}, ("1 + 1?", ("2",), "", 0)),
    "Omni-MATH": ({"domain": ["A"], "difficulty": 4.5, "problem": "1 + 1?", "solution": "s", "answer": "2"}, ("1 + 1?", ("2",), "A", 4)),
    "POLARIS": ({"problem": "1 + 1?", "answer": "2", "difficulty": "3/8"}, ("1 + 1?", ("2",), "", 0)),
    "TRL": ({"prompt": [SYSTEM, USER], "completion": [{"role": "assistant", "content": r"\boxed{2}"}]}, ("1 + 1?", ("2",), "", 0)),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "The answer is: 2"}]},
        ("1 + 1?", ("2",), "", 0),
    ),
    "Open-Reasoner-Zero": (
        {"messages": [{"from": "human", "value": "1 + 1?"}, {"from": "assistant", "ground_truth": {"value": "2"}}]},
        ("1 + 1?", ("2",), "", 0),
    ),
    "MetaMath": ({"query": "1 + 1?", "response": "2\n#### 2\nThe answer is: 2", "type": "T"}, ("1 + 1?", ("2",), "T", 0)),
}  # fmt: skip


def row(values: dict[str, Any]) -> Row:
    return Row("set:1", "1", values)


@pytest.mark.parametrize("name", SETS)
def test_the_shape_of_a_public_set_is_recognised_by_its_columns(name: str):
    values, expected = SETS[name]
    layout = recognise([row(values)])
    level = level_of(values.get(layout.level)) if layout.level else 0
    assert (problem_of(row(values), layout)[0], golds_of(row(values), layout), family_of(row(values), layout), level) == expected
    assert layout.problem in layout.words and layout.answer in layout.words


def test_a_chat_gives_its_last_user_turn_and_keeps_its_system_turn():
    turns = [SYSTEM, {"role": "user", "content": "0 + 1?"}, {"role": "assistant", "content": "1"}, USER]
    layout = recognise([row({"prompt": turns, "answer": "2"})])
    assert problem_of(row({"prompt": turns, "answer": "2"}), layout) == ("1 + 1?", "Be short.")


def test_a_named_column_wins_over_a_recognised_one_and_may_be_dotted():
    values = {"problem": "p", "answer": "1", "extra": {"question": ["q", "r"], "gold": 5}}
    layout = recognise([row(values)], "extra.question[1]", "extra.gold")
    assert (problem_of(row(values), layout)[0], golds_of(row(values), layout)) == ("r", ("5",))
    with pytest.raises(DataError, match=r"no field 'extra.gone'; it has answer, extra, problem. Set data.problem"):
        recognise([row(values)], "extra.gone")


def test_solutions_of_which_none_marks_an_answer_are_no_golds_but_short_values_are():
    proof = "Let $ABC$ be a triangle with $AB=AC$. Then the bisector is perpendicular to $BC$. Therefore $x=5$."
    texts = (proof, "Evelyn", "$\\frac12$", "It is trivial.", "<think>maybe \\boxed{7}</think> So it is three of them in all.")
    rows = [row({"prompt": "p", "completion": text}) for text in texts]
    layout = recognise(rows)
    assert [golds_of(one, layout) for one in rows] == [(), ("Evelyn",), ("$\\frac12$",), (), ()]
    one_line = row({"question": "q", "answer": "She has 1 + 2. #### 3"})
    assert golds_of(one_line, recognise([one_line])) == ("3",)
    code = row({"problem": "p", "answer": '{"inputs": ["1"], "outputs": ["2"]}'})
    with pytest.raises(DataError, match="it must be a text, a number or a list of those"):
        golds_of(code, recognise([code]))


def test_a_column_of_too_many_families_gives_way_to_the_next():
    rows = [row({"problem": "p", "answer": "1", "topic": str(number), "source": "a"}) for number in range(300)]
    assert recognise(rows).family == "source"


def test_an_instruction_and_what_it_is_about_are_one_problem():
    values = [{"instruction": "Solve it.", "input": text, "output": "4"} for text in ("2 + 2?", "3 + 1?", "")]
    layout = recognise([row(one) for one in values])
    assert [problem_of(row(one), layout)[0] for one in values] == ["Solve it.\n\n2 + 2?", "Solve it.\n\n3 + 1?", "Solve it."]
    assert golds_of(row(values[0]), layout) == ("4",)
    asked = {"instruction": "Be brief.", "question": "2 + 2?", "input": "x", "answer": "4"}
    assert problem_of(row(asked), recognise([row(asked)])) == ("2 + 2?", "")


def test_the_columns_that_most_rows_fill_are_the_sets():
    values = [{"problem": "p", "answer": str(number)} for number in range(5)] + [{"problem": "p", "final_answer": "5"}]
    assert recognise([row(one) for one in values]).answer == "answer"


def test_lists_and_mappings_that_a_csv_holds_as_python_prints_them_are_read():
    values = {
        "question": "q",
        "final_answer": "['1', '2']",
        "subject": "['Algebra -> Sums']",
        "reward_model": "{'ground_truth': '10,000', 'style': 'rule'}",
    }
    layout = recognise([row(values)], answer="final_answer")
    assert (golds_of(row(values), layout), family_of(row(values), layout)) == (("1", "2"), "Algebra -> Sums")
    assert golds_of(row(values), recognise([row(values)])) == ("10,000",)
    assert golds("['cannot be read") == ("['cannot be read",)


@pytest.mark.parametrize(
    ("text", "gold"),
    [("<|begin_of_thought|>maybe 7", ()), ("<think>\\boxed{7} or", ()), ("<think>3 + 4</think> 7", ("7",)), ("[THINK]7", ())],
)
def test_a_thought_is_no_gold_however_short(text: str, gold: tuple[str, ...]):
    one = row({"problem": "p", "solution": text})
    assert golds_of(one, recognise([one])) == gold


@pytest.mark.parametrize("between", [", ", "\n ", " "])
def test_a_chat_that_a_csv_holds_as_python_or_numpy_prints_it_is_a_chat(between: str):
    turns = [{"role": "system", "content": "Be brief: [a 'b']."}, {"role": "user", "content": 'What\'s 2+2? "Say"'}]
    one = row({"prompt": f"[{between.join(map(str, turns))}]", "answer": "4"})
    layout = recognise([one])
    assert layout.chat and problem_of(one, layout) == ('What\'s 2+2? "Say"', "Be brief: [a 'b'].")


@pytest.mark.parametrize("text", ['[{"inputs": ["1"], "outputs": ["2"]}]', "[{'inputs': ['1']}]"])
def test_a_list_of_mappings_that_hold_no_gold_is_none(text: str):
    with pytest.raises(ValueError, match="it must be a text"):
        golds(text)


def test_a_column_of_solve_rates_is_no_level():
    rows = [row({"problem": "p", "answer": "1", "difficulty": rate}) for rate in (0.25, 1.0)]
    assert recognise(rows).level is None
    assert recognise([row({"problem": "p", "answer": "1", "difficulty": rate}) for rate in ("0.25", "1.0")]).level is None  # a CSV's
    levels = [row({"problem": "p", "answer": "1", "difficulty": level}) for level in (0.5, 7.5, -1.0)]
    assert recognise(levels).level == "difficulty" and [level_of(one.values["difficulty"]) for one in levels] == [0, 7, 0]


def test_rows_of_worked_solutions_that_mark_no_answer_hold_no_gold_unless_they_are_one():
    texts = (r"\boxed{2}", "Trivial.", "As shown.", "We see that there are 12 of them.", "$0$", "12 cm", r"x = \frac{1}{2}", "B", "3\n4")
    rows = [row({"problem": "p", "solution": text}) for text in texts]
    layout = recognise(rows)
    assert [golds_of(one, layout) for one in rows] == [("2",), (), (), (), ("$0$",), ("12 cm",), (r"x = \frac{1}{2}",), ("B",), ()]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ()),
        ([], ()),
        (3, ("3",)),
        (["1", ["1", 2]], ("1", "2")),
        ('["$m = \\frac{1}{2}$"]', (r"$m = \frac{1}{2}$",)),
        ("[1, 2]", ("[1, 2]",)),
        ({"value": "9"}, ("9",)),
        ("['1' '2']", ("1", "2")),  # as numpy prints a list, and pandas with it
        ("['\\\\frac{1}{2}'\n '0.5' \"it's\"]", ("\\frac{1}{2}", "0.5", "it's")),
        ("[['1' '2']]", ("1", "2")),
        ("{'ground_truth': array(['1', '2'], dtype=object)}", ("1", "2")),
        ('[ "3" ]', ("3",)),
        ("[null]", ()),
        ("[nan '4']", ("4",)),
        ('["\\xi", "\\frac12"]', ("\\xi", "\\frac12")),
        ("['1' '2'", ("['1' '2'",)),
        ("{'a', 'b'}", ("{'a', 'b'}",)),
    ],
)
def test_several_golds_are_told_from_one_gold_that_is_a_list(value: object, expected: tuple[str, ...]):
    assert golds(value) == expected


@pytest.mark.parametrize(
    "text",
    [
        "proof",
        "Proof.",
        "notfound",
        r"\text{not found}",
        "see solution",
        "Q.E.D.",
        "No answer found",
        "to be proven",
        "Proof by induction.",
        "The proof is complete.",
        "answer: proof",
        r"$\blacksquare$",
        "see below",
        "as shown",
        "none found",
        "hence proved",
        "The statement is proved.",
        "No proof needed",
        "1. proof",
        "Answers will vary",
        "As above.",
        "unsolved",
        "NA",
        "[1 2]",
        "证明略",
        " ",
        "Tom gave two of his apples away, so there are 4 left for all his friends.",
    ],
)
def test_what_says_that_there_is_no_answer_is_no_gold(text: str):
    assert (no_gold(text) or "").startswith("no gold answer")


@pytest.mark.parametrize(
    "text",
    [
        "no solution",
        r"\text{None}",
        "No",
        "DNE",
        "-1",
        "undefined",
        r"$a x + b$, where $b$ is an arbitrary integer, and $a$ is an arbitrary positive integer with no square factor",
        "none of them",
    ],
)
def test_an_answer_that_says_there_is_nothing_is_a_gold(text: str):
    assert no_gold(text) is None


def test_what_stands_before_a_problem_is_not_said_twice_and_a_set_of_few_chats_is_none():
    told = Row("in:1", "1", {"context": "Count.", "question": "Count. 1 + 1?", "final_answer": "2"})
    assert problem_of(told, recognise([told]))[0] == "Count. 1 + 1?"
    rows = [Row(f"in:{place}", str(place), {"problem": said, "answer": "2"}) for place, said in enumerate(["1 + 1?", "2?", [USER]])]
    assert not recognise(rows).chat and recognise(rows[1:] + rows[2:]).chat
