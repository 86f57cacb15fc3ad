"""Reward terms on one group, against DLER's truncation and DA-DLER's ladder (arXiv 2510.15110)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from recipes.budgets import ConstantBudget, DifficultyBudget, Rung
from recipes.lengths import ClosingsTerm, CosineTerm, OverlongTerm, ProfileBandTerm, RepetitionTerm, ScalingTerm, ShortestTerm
from recipes.terms import FormatTerm, FunctionTerm, RewardTerm, TruncateTerm, VerdictTerm
from rewards.functions import Asked, TrainerState, columns, load_function
from rewards.terms import Facts, rewards
from rollout.budget import Held, group_limit

VERDICT = VerdictTerm(kind="verdict")
LADDER = DifficultyBudget(kind="difficulty", limit=4000, ladder=[Rung(at_least=0.5, share=0.5), Rung()])


def arrays(right, finished=None, tokens=None):
    G = len(right)
    return {
        "right_G": np.array(right, dtype=bool),
        "finished_G": np.array(finished if finished is not None else [1] * G, dtype=bool),
        "tokens_G": np.array(tokens if tokens is not None else [10] * G),
    }


def group(terms, right, finished=None, tokens=None, *, limit=100, prompt="p", completions=None, columns=None, ids=None):
    G = len(right)
    facts = Facts(
        **arrays(right, finished, tokens),
        thinking_G=np.zeros(G, dtype=int),
        limit=limit,
        unit=limit,
        asked=Asked(
            prompt=prompt,
            messages=[],
            completions=completions or ["x"] * G,
            completion_ids=ids or [[1]] * G,
            columns=columns or {},
            state=TrainerState(0, 1),
            ids=[f"id{g}" for g in range(G)],
        ),
    )
    return rewards(terms, facts)


ALIKE = {"kind": "verdict"}, [1, 1]


@pytest.mark.parametrize(
    ("term", "verdict", "right", "expected"),
    [
        ({"kind": "l1_exact", "of": "answer"}, *ALIKE, [-0.3, -0.1]),  # |40 - 10| and |40 - 50|, of 100
        ({"kind": "l1_exact", "of": "thinking"}, *ALIKE, [-0.2, -0.4]),
        ({"kind": "l1_max", "alpha": 1.0, "delta": 0.5}, *ALIKE, [-0.4, -0.6]),  # 0.5 + 10 / 100, 0.5 - 10 / 100
        ({"kind": "shorterbetter"}, *ALIKE, [0.0, -0.2]),
        ({"kind": "overlong", "buffer": 0.5}, *ALIKE, [-0.5, -1.0]),  # from 20 tokens to 40
        ({"kind": "lead", "least": 0.5}, *ALIKE, [0.0, 0.0]),  # a mean of 40 tokens is no more than 50
        ({"kind": "leash", "weight": 0.5}, *ALIKE, [0.0, -0.125]),  # 0.5 x (50 / 40 - 1)
        ({"kind": "linear", "gate": "none"}, {"kind": "verdict", "wrong": -1.0}, [0, 0], [0.0, 0.0]),  # a mean below 0 is taken off nobody
        ({"kind": "laser", "explore": True}, {"kind": "verdict"}, [0, 0], [0.0, 0.0]),  # the long one repeats itself
        ({"kind": "o1_pruner", "alpha": 2.0}, *ALIKE, [0.0, -0.4]),  # 0 / 30 and -20 / 50, + 2 x (1 - 0.5), less the verdict's 1
    ],
)
def test_prices_are_of_the_recipes_limit_and_bounds_of_the_groups(term, verdict, right, expected):
    """Responses of 30 and 50 tokens, 20 and 0 of them thinking; a limit of 40 where the recipe's is 100."""
    facts = Facts(
        **arrays(right, tokens=[30, 50]), thinking_G=np.array([20, 0]), limit=40, unit=100,
        asked=Asked("p", [], ["x"] * 2, [[7] * 30, [7] * 50], {"reference_tokens": 30, "reference_accuracy": 0.5}, TrainerState(0, 1), ["a", "b"]),
    )  # fmt: skip
    made = TypeAdapter(RewardTerm).validate_python({"weight": 1.0} | term)
    np.testing.assert_allclose(rewards([VerdictTerm(**verdict), made], facts)[term["kind"]], expected)


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
    assert group_limit(Held(LADDER), LADDER.limit, given["tokens_G"], given["right_G"], given["finished_G"]) == limit
    assert total([VERDICT, TruncateTerm(kind="truncate")], right, tokens=tokens, limit=limit) == expected


@pytest.mark.parametrize(("finished", "tokens"), [([1, 0], [10, 10]), ([1, 1], [10, 4001])])
def test_unfinished_and_overlong_answers_do_not_make_a_prompt_easy(finished, tokens):
    ladder = DifficultyBudget(kind="difficulty", limit=4000, ladder=[Rung(at_least=0.6, share=0.5), Rung()])
    given = arrays([1, 1], finished, tokens)
    assert group_limit(Held(ladder), ladder.limit, given["tokens_G"], given["right_G"], given["finished_G"]) == 4000


def test_a_constant_budget_has_one_limit():
    given = arrays([1, 1])
    assert group_limit(Held(ConstantBudget(limit=1)), 77, given["tokens_G"], given["right_G"], given["finished_G"]) == 77


def test_a_rung_is_a_whole_number_of_tokens_despite_binary_fractions():
    ladder = DifficultyBudget(kind="difficulty", limit=100, ladder=[Rung(share=0.29)])
    given = arrays([1])
    assert group_limit(Held(ladder), ladder.limit, given["tokens_G"], given["right_G"], given["finished_G"]) == 29


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"<think>a</think>\boxed{1}", 1.0),
        (r"\boxed{1}", 0.5),  # an answer alone
        (r"<think>a \boxed{1}</think>", 0.5),  # nested in the thought
        (r"<think>a</think>", 0.5),  # none
        (r"<think><think>a</think>\boxed{1}", 0.5),  # opened twice
        (r"<think>a</think>b</think>\boxed{1}", 0.5),
        (r"<think>a\boxed{1}", 0.0),
        (r"</think>\boxed{1}<think>", 0.0),
        ("", 0.0),
    ],
)
def test_format_in_halves_counts_the_block_and_the_box_apart(text, expected):
    """The curriculum's format reward (arXiv 2508.08940), half a point each, with our box in the place of its answer tags."""
    assert group([FormatTerm(kind="format", weight=1, form="halves")], [1], completions=[text])["format"].tolist() == [expected]


def test_format_knows_a_thinking_block_that_the_prompt_opened():
    assert group([FormatTerm(kind="format", weight=1)], [1], prompt="q <think>\n", completions=[r"a</think>\boxed{1}"])[
        "format"
    ].tolist() == [1]
    assert group([FormatTerm(kind="format", weight=1)], [1], prompt="q", completions=[r"a</think>\boxed{1}"])["format"].tolist() == [0]


def test_closings_count_the_closing_marks_that_are_too_many_or_missing():
    """NeMo-RL's format feature, -|marks - 1|."""
    texts = ["a</think>b", "a", "a</think>b</think>c</think>", "</think>" * 9]
    assert group([ClosingsTerm(kind="closings", weight=1)], [1, 0, 1, 0], completions=texts)["closings"].tolist() == [0, -1, -2, -4]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=6), st.integers(1, 5), st.booleans())
def test_closings_are_their_formula(rows, most, gated):
    right, marks = zip(*rows, strict=True)
    term = ClosingsTerm(kind="closings", weight=0.5, most=most, gate="right" if gated else "none")
    found = group([term], right, completions=["a</think>b" * count for count in marks])["closings"]
    assert found.tolist() == [-0.5 * min(abs(count - 1), most) if c or not gated else 0 for c, count in rows]


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 60)), min_size=1, max_size=6),
    st.integers(1, 60),
    st.sampled_from([0.0, 4.0]),
    st.sampled_from([0.25, 0.5, 0.75, 1.0]),
)
def test_a_gated_scaling_is_its_formula(rows, mean, spread, rate):
    right, tokens = zip(*rows, strict=True)
    told = {"reference_tokens": mean, "reference_spread": spread, "reference_accuracy": rate}
    free, gated = (
        group([ScalingTerm(kind="scaling", profiled=profiled)], right, tokens=tokens, columns=told)["scaling"].tolist()
        for profiled in (False, True)
    )
    own = [n for c, n in rows if c]
    acts = bool(own) and rate > 0.5 and spread > 0 and sum(own) / len(own) > mean
    assert gated == (free if acts else [0] * len(rows))


def test_a_dense_repetition_costs_its_price_at_every_repeated_token():
    """arXiv 2502.03373: 0.05 a token, which is 0.05 x the limit per budget.limit tokens."""
    ids = [[7] * 5, [1, 2, 1, 2, 1, 2], [1, 2, 3]]
    term = RepetitionTerm(kind="repetition", size=2, form="dense", weight=0.05 * 100)
    assert group([term], [1, 0, 1], ids=ids)["repetition"].tolist() == pytest.approx([-0.2, -0.2, 0])
    assert group([RepetitionTerm(kind="repetition", size=2)], [1, 0, 1], ids=ids)["repetition"].tolist() == pytest.approx([-0.75, -0.6, 0])


@pytest.mark.parametrize(
    ("name", "mean", "rate", "acts"), [("longer", 199, 0.75, True), ("as long", 200, 0.75, False), ("unsolved", 199, 0.5, False)]
)
def test_scaling_may_wait_until_right_answers_are_longer_than_the_references(name, mean, rate, acts):
    """NeMo-RL's profile gate: the mean of right answers, here 200, against the band's start; no band, no part."""
    told = {"reference_tokens": mean, "reference_spread": 20.0, "reference_accuracy": rate}
    term = ScalingTerm(kind="scaling", weight=1, profiled=True)
    found = group([term], [1, 0, 1], tokens=[100, 900, 300], columns=told)["scaling"].tolist()
    assert found == ([0.5, 0, -0.5] if acts else [0] * 3)
    assert group([term], [0, 0, 0], tokens=[100, 900, 300], columns=told)["scaling"].tolist() == [0] * 3


def test_which_right_answers_are_top_ones_the_terms_before_decide():
    tokens, right = [100, 200, 300, 400], [1, 0, 1, 1]
    short, fine = ShortestTerm(kind="shortest", top=0.5), FormatTerm(kind="format", weight=0.1)
    texts = ["x", "x", r"<think>a</think>\boxed{1}", r"<think>a</think>\boxed{1}"]
    for terms, expected in (([VERDICT, fine, short], 0.1), ([VERDICT, short, fine], 0.1)):
        assert group(terms, right, tokens=tokens, completions=texts)["shortest"].tolist() == [
            expected,
            0,
            0,
            0,
        ]  # place 1 of 3 is the least
    strict = ShortestTerm(kind="shortest", top=0.7)
    assert group([VERDICT, fine, strict], right, tokens=tokens, completions=texts)["shortest"].tolist() == [0] * 4
    assert group([VERDICT, strict, fine], right, tokens=tokens, completions=texts)["shortest"].tolist() == [0.1, 0, 0, 0]


def test_pipeline_rls_difficulty_spares_right_answers_to_hard_prompts():
    term = OverlongTerm(kind="overlong", buffer=0.2, hard=1.0)
    tokens, finished = [900, 1000, 900, 900], [1, 1, 0, 1]
    assert group([term], [1, 0, 1, 0], finished, tokens, limit=1000)["overlong"].tolist() == pytest.approx([-0.25, -1, -0.5, -0.5])


def test_channels_add_up_where_nemo_multiplies_them():
    told = {"reference_tokens": 100.0, "reference_spread": 50.0, "reference_accuracy": 1.0}
    terms = [VERDICT, *(ProfileBandTerm(kind="nemo_band", of=of) for of in ("total", "answer"))]
    assert total(terms, [1, 0], tokens=[125, 125], columns=told) == pytest.approx([1 - 0.1 - 0.1, 0])  # 0.9 x 0.9 there


def test_terms_of_one_name_add_up():
    assert group([VERDICT, VerdictTerm(kind="verdict", weight=2)], [1, 0])["verdict"].tolist() == [3, 0]


def test_every_column_of_the_data_reaches_a_function_by_name(tmp_path, monkeypatch):
    (tmp_path / "data_rewards.py").write_text(
        "def near(completions, solution, **_): return [len(text) / solution_ for text, solution_ in zip(completions, solution)]\n"
        "def only(prompts, completions, completion_ids, problem, answer, level): return [1.0] * len(level)\n"
        "def far(completions, distance, **_): return [1.0] * len(distance)\n"
        "def worked(data_answer, answer, **_): return [float(d == 'long' and a == '7') for d, a in zip(data_answer, answer)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    told = columns({"solution": 4, "answer": "long", "prompts": "x", "source": "s"}, problem="p", answer="7", level=1)
    assert told == {"solution": 4, "data_answer": "long", "data_prompts": "x", "source": "s", "problem": "p", "answer": "7", "level": 1}
    for name, expected in (("near", 0.25), ("only", 1.0), ("worked", 1.0)):
        load_function(f"data_rewards:{name}")
        term = FunctionTerm(kind="function", name=f"data_rewards:{name}")
        assert group([term], [1, 1], columns=told)[term.name].tolist() == [expected] * 2
    lacking = columns({"source": "s"}, problem="p", answer="7", level=1)
    with pytest.raises(ValueError, match=r"data_rewards:far: missing a required argument: 'distance'; there is answer, .*source"):
        group([FunctionTerm(kind="function", name="data_rewards:far")], [1, 1], columns=lacking)


def test_an_answer_that_was_cut_off_earns_what_is_beyond_the_cosines_limit():
    """arXiv 2502.03373: the limit lies below where sampling stops, so whatever is cut is beyond it; running to the cap must not be the best wrong answer."""
    found = group([VerdictTerm(kind="verdict"), CosineTerm(kind="cosine")], [0, 0, 1], [True, False, True], [100, 100, 100])
    np.testing.assert_allclose(sum(found.values()), [0, -10, 1], atol=1e-9)
