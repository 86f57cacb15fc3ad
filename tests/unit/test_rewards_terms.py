"""Reward terms on one group, against DLER's truncation and DA-DLER's ladder (arXiv 2510.15110)."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.schema import Budget, FormatTerm, FunctionTerm, Rung, TruncateTerm, VerdictTerm
from rewards.terms import group_limit, load_function, rewards

VERDICT = VerdictTerm(kind="verdict")
LADDER = Budget(kind="difficulty", limit=4000, ladder=[Rung(at_least=0.5, share=0.5), Rung()])


def arrays(right, finished=None, tokens=None):
    G = len(right)
    return {
        "right_G": np.array(right, dtype=bool),
        "finished_G": np.array(finished if finished is not None else [1] * G, dtype=bool),
        "tokens_G": np.array(tokens if tokens is not None else [10] * G),
    }


def group(terms, right, finished=None, tokens=None, *, limit=100, prompt="p", completions=None, columns=None):
    G = len(right)
    return rewards(
        terms,
        **arrays(right, finished, tokens),
        limit=limit,
        prompt=prompt,
        completions=completions or ["x"] * G,
        completion_ids=[[1]] * G,
        ids=[f"id{g}" for g in range(G)],
        columns=columns or {},
    )


def total(terms, *args, **kwargs):
    return sum(group(terms, *args, **kwargs).values()).tolist()


@pytest.mark.parametrize(
    ("keep", "expected"),
    [(0.0, [[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]), (0.1, [[1, 0.1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])],
)
def test_a_truncated_right_answer_keeps_its_share_of_the_point(keep, expected):
    terms = [VERDICT, TruncateTerm(kind="truncate", keep=keep)]
    raw = [([1, 1, 0, 0], [1, 0, 1, 1]), ([1, 1, 1, 1], [1, 1, 1, 1]), ([0, 0, 0, 0], [0, 1, 0, 1])]
    for (right, finished), reward in zip(raw, expected, strict=True):
        np.testing.assert_allclose(total(terms, right, finished), reward)


@pytest.mark.parametrize(
    ("tokens", "right", "limit", "expected"),
    [
        ([1200, 4000, 2500, 4000], [1, 1, 0, 0], 2000, [1, 0, 0, 0]),  # p = 0.5
        ([900, 1500, 2500, 3900], [1, 1, 1, 1], 2000, [1, 1, 0, 0]),  # p = 1
        ([900, 1500, 2500, 3900], [0, 0, 0, 0], 4000, [0, 0, 0, 0]),  # p = 0
    ],
)
def test_the_difficulty_ladder_truncates_easy_prompts_harder(tokens, right, limit, expected):
    given = arrays(right, tokens=tokens)
    assert group_limit(LADDER, given["tokens_G"], given["right_G"], given["finished_G"]) == limit
    assert total([VERDICT, TruncateTerm(kind="truncate")], right, tokens=tokens, limit=limit) == expected


@pytest.mark.parametrize(("finished", "tokens"), [([1, 0], [10, 10]), ([1, 1], [10, 4001])])
def test_unfinished_and_overlong_answers_do_not_make_a_prompt_easy(finished, tokens):
    ladder = Budget(kind="difficulty", limit=4000, ladder=[Rung(at_least=0.6, share=0.5), Rung()])
    given = arrays([1, 1], finished, tokens)
    assert group_limit(ladder, given["tokens_G"], given["right_G"], given["finished_G"]) == 4000


def test_a_constant_budget_has_one_limit():
    given = arrays([1, 1])
    assert group_limit(Budget(limit=77), given["tokens_G"], given["right_G"], given["finished_G"]) == 77


def test_a_rung_is_a_whole_number_of_tokens_despite_binary_fractions():
    ladder = Budget(kind="difficulty", limit=100, ladder=[Rung(share=0.29)])
    given = arrays([1])
    assert group_limit(ladder, given["tokens_G"], given["right_G"], given["finished_G"]) == 29


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(1, 200)), min_size=1, max_size=8),
    st.floats(0, 1),
    st.floats(0.1, 3),
    st.integers(1, 200),
)
def test_truncation_multiplies_the_verdict_and_nothing_else(rows, keep, weight, limit):
    right, finished, tokens = zip(*rows, strict=True)
    terms = [TruncateTerm(kind="truncate", keep=keep), VerdictTerm(kind="verdict", weight=weight)]
    expected = [weight * r * (1 if f and t <= limit else keep) for r, f, t in rows]
    np.testing.assert_allclose(total(terms, right, finished, tokens, limit=limit), expected, atol=1e-12)


def test_format_counts_well_formed_texts_and_may_be_gated_on_right_answers():
    texts = [r"<think>a</think>\boxed{1}", r"<think>a</think>\boxed{1}", "1"]
    free, gated = FormatTerm(kind="format", weight=0.1), FormatTerm(kind="format", weight=0.1, gate="right")
    assert group([free], [1, 0, 1], completions=texts)["format"].tolist() == [0.1, 0.1, 0]
    assert group([gated], [1, 0, 1], completions=texts)["format"].tolist() == [0.1, 0, 0]


def test_format_knows_a_thinking_block_that_the_prompt_opened():
    assert group([FormatTerm(kind="format", weight=1)], [1], prompt="q <think>\n", completions=[r"a</think>\boxed{1}"])[
        "format"
    ].tolist() == [1]
    assert group([FormatTerm(kind="format", weight=1)], [1], prompt="q", completions=[r"a</think>\boxed{1}"])["format"].tolist() == [0]


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_rewards.py").write_text(
        "import numpy as np\n"
        "def length(prompts, completions, completion_ids, **columns):\n"
        "    assert prompts == ['p'] * 2 and completion_ids == [[1], [1]] and columns['answer'] == ['7', '7']\n"
        "    return [float(len(c)) for c in completions]\n"
        "def only(completions, **kwargs): return [1] * (len(completions) - 1)\n"
        "def nan(completions, **kwargs): return [1.0, float('nan')]\n"
        "def none(completions, **kwargs): return [None, 1.0]\n"
        "def inf(completions, **kwargs): return [0.0, float('inf')]\n"
        "def text(completions, **kwargs): return 'ab'\n"
        "def nothing(completions, **kwargs): pass\n"
        "def rows(completions, **kwargs): return [[1, 2], 3]\n"
        "def column(completions, **kwargs): return np.ones((len(completions), 1))[:, 0]\n"
        "def narrow(texts): return texts\n"
        "def no_level(prompts, completions, completion_ids, problem, answer): return [1]\n"
        "async def later(completions, **kwargs): return [1]\n"
        "constant = 3\n"
    )
    (tmp_path / "own_broken.py").write_text("import does_not_exist_at_all\n")
    (tmp_path / "own_syntax.py").write_text("def f(:\n")
    (tmp_path / "own_raising.py").write_text("raise KeyError('two\\nlines')\n")
    (tmp_path / "own_script.py").write_text("raise SystemExit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_rewards", None)


def test_a_trl_reward_function_is_called_with_strings_ids_and_repeated_columns(own_module):
    term = FunctionTerm(kind="function", name="own_rewards:length", weight=2, high=3)
    out = group([VERDICT, term], [1, 0], completions=["abc", "a"], columns={"answer": "7", "problem": "?"})
    assert {name: values.tolist() for name, values in out.items()} == {"verdict": [1, 0], "own_rewards:length": [6, 2]}


@pytest.mark.parametrize(
    ("name", "rollout", "value"),
    [("none", "id0", "None"), ("text", "id0", "'a'"), ("rows", "id0", r"\[1, 2\]")],
)
def test_a_reward_that_is_no_number_names_its_rollout_and_term(own_module, name, rollout, value):
    with pytest.raises(
        ValueError, match=rf"reward function own_rewards:{name}: returned {value} for rollout {rollout}; return a list with one"
    ):
        group([FunctionTerm(kind="function", name=f"own_rewards:{name}")], [1, 1])


@pytest.mark.parametrize(("name", "what"), [("only", "1 rewards for 2 completions"), ("nothing", "None")])
def test_a_wrong_number_of_rewards_is_an_error(own_module, name, what):
    with pytest.raises(ValueError, match=f"reward function own_rewards:{name}: returned {what}; return a list with one"):
        group([FunctionTerm(kind="function", name=f"own_rewards:{name}")], [1, 1])


@pytest.mark.parametrize("name", ["nan", "inf"])
def test_a_reward_that_is_not_finite_is_for_the_recipe_to_decide_on(own_module, name):
    value = group([FunctionTerm(kind="function", name=f"own_rewards:{name}")], [1, 1])[f"own_rewards:{name}"][1]
    assert not np.isfinite(value)


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0, 2, "3 for rollout id0, outside of 0 to 2"), (2, 3, "1 for rollout id1, outside of 2 to 3")]
)
def test_p13_a_reward_outside_of_its_bounds_names_its_rollout(own_module, low, high, said):
    with pytest.raises(ValueError, match=f"reward function own_rewards:length: returned {said}; correct the function"):
        group(
            [FunctionTerm(kind="function", name="own_rewards:length", low=low, high=high)],
            [1, 1],
            completions=["abc", "a"],
            columns={"answer": "7"},
        )


def test_an_array_of_rewards_will_do(own_module):
    assert group([FunctionTerm(kind="function", name="own_rewards:column")], [1, 0])["own_rewards:column"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere_at_all:f", "no module nowhere_at_all"),
        ("own_broken:f", "no module does_not_exist_at_all"),
        ("own_rewards:missing", "has no function missing"),
        ("own_rewards:constant", "has no function constant"),
        ("own_rewards:narrow", "it must take prompts, completions, completion_ids, problem, answer, level, by name or as"),
        ("own_rewards:no_level", "got an unexpected keyword argument 'level'; it must take"),
        ("builtins:dict", "no signature found for builtin .*; it must take"),
        ("own_syntax:f", r"importing own_syntax failed \(SyntaxError: .*own_syntax.py, line 1\)\); correct"),
        ("own_raising:f", r"importing own_raising failed \(KeyError: 'two\\nlines'\)"),
        ("own_script:f", r"importing own_script failed \(SystemExit: 0\)"),
        (".foo:bar", r"importing \.foo failed \(TypeError: "),
        (":bar", r"importing  failed \(ValueError: "),
        ("own_rewards:later", "asynchronous"),
    ],
)
def test_an_unusable_reward_function_is_refused_by_name(own_module, name, message):
    with pytest.raises(ValueError, match=message) as error:
        load_function(name)
    assert str(error.value).startswith(f"reward function {name}: ") and "\n" not in str(error.value)


def test_terms_of_one_name_add_up():
    assert group([VERDICT, VerdictTerm(kind="verdict", weight=2)], [1, 0])["verdict"].tolist() == [3, 0]
