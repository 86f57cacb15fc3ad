"""P13: what a term says that it adds is what it adds, on any group; from this follows whether right beats wrong."""

from __future__ import annotations

import re
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.keys import kinds_of
from recipes.loader import RecipeError, load
from recipes.schema import Recipe
from recipes.term import Case
from recipes.terms import KlTerm, VerdictTerm, refuse_wrong_before_right, worth_of
from rewards.functions import Asked, TrainerState
from rewards.terms import TERMS, Facts, rewards

KINDS = {
    kind: term for kind, term in kinds_of(get_args(get_args(Recipe.model_fields["reward"].annotation)[0])[0]).items() if kind != "function"
}
LENGTH = [kind for kind, term in KINDS.items() if "of" in term.model_fields]
SIGNED = {"leash"}  # verdicts of 1 and -1
LIMIT = 40


def made(kind: str, **numbers):
    return KINDS[kind](kind=kind, **({"weight": 0.3} if kind == "kl" else {}), **numbers)


def facts(right, tokens, thinking, limit: int, finished=None) -> Facts:
    G = len(right)
    return Facts(
        right_G=np.array(right, dtype=bool),
        finished_G=np.ones(G, dtype=bool) if finished is None else np.array(finished, dtype=bool),
        tokens_G=np.array(tokens),
        thinking_G=np.minimum(thinking, tokens),
        limit=limit,
        unit=LIMIT,
        asked=Asked(
            prompt="",
            messages=[],
            completions=["x"] * G,
            completion_ids=[list(range(n)) for n in tokens],
            columns={"reference_tokens": 20, "reference_spread": 6.0, "reference_accuracy": 0.75},
            state=TrainerState(0, 1),
            ids=[str(g) for g in range(G)],
        ),
    )


GROUPS = st.integers(2, 9).flatmap(
    lambda G: st.tuples(
        *(st.lists(values, min_size=G, max_size=G) for values in (st.booleans(), st.integers(0, 80), st.integers(0, 80), st.booleans())),
        st.integers(10, LIMIT),
    )
)


def test_every_kind_but_the_batchs_own_has_its_function():
    assert set(KINDS.values()) - {KlTerm} < set(TERMS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "kl"])
@given(
    group=GROUPS,
    changes=st.fixed_dictionaries({"gate": st.sampled_from(["none", "right"]), "of": st.sampled_from(["total", "thinking", "answer"])}),
)
@settings(max_examples=60, deadline=None)
def test_p13_a_term_adds_what_it_says_and_nothing_depends_on_a_wrong_answers_length_unless_it_says_so(kind, group, changes):
    right, tokens, thinking, finished, limit = group
    term = made(kind, **{name: value for name, value in changes.items() if name in KINDS[kind].model_fields})
    verdict = VerdictTerm(kind="verdict", wrong=-1.0 if kind in SIGNED else 0.0)
    terms = [term] if kind == "verdict" else [verdict, term]
    case = worth_of(terms, Case(group_size=len(right), unit=LIMIT, limit=LIMIT, most=80, times=8, above=70))
    value_G = rewards(terms, facts(right, tokens, thinking, limit, finished))[kind]
    assert np.isfinite(value_G).all()
    for is_right in (True, False):
        low, high = term.adds(is_right, case)
        if is_right and term.erases() == "at once":
            low = -case.worth
        mine_G = value_G[np.array(right) == is_right]
        assert ((low - 1e-9 <= mine_G) & (mine_G <= high + 1e-9)).all(), (kind, is_right, low, high, value_G)
    if not term.sees_length_of_wrong() and kind != "repetition":
        ended_G = ~np.array(right) & np.array(finished)
        assert len({round(value, 9) for value in value_G[ended_G]}) <= 1


@pytest.mark.parametrize("kind", LENGTH)
def test_p13_a_recipe_with_a_gated_length_term_needs_no_waiver_and_an_ungated_one_that_sees_wrong_lengths_does(kind):
    verdict = "{kind: verdict, wrong: -1}" if kind in SIGNED else "{kind: verdict, weight: 20}"
    gated = "gate" in KINDS[kind].model_fields
    if kind not in ("o1_pruner", "cosine"):  # these stand in the verdict's place
        load("dler", "tiny", [f"reward=[{verdict}, {{kind: {kind}{', gate: right' * gated}}}]"])
    if gated:
        with pytest.raises(RecipeError, match=r"waive: \[length_of_wrong\]|waive: \[right_beats_wrong\]"):
            load("dler", "tiny", [f"reward=[{verdict}, {{kind: {kind}, gate: none}}]"])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "kl"])
def test_a_term_says_whether_it_reads_the_limit(kind: str):
    verdict = KINDS["verdict"](kind="verdict", wrong=-1.0 if kind in SIGNED else 0.0)
    seen = {
        tuple(sum(rewards([verdict, made(kind)], facts([1, 1, 0, 1], [5, 19, 30, 38], [2, 9, 12, 20], limit)).values()).tolist())
        for limit in (10, 20, 40)
    }
    assert (len(seen) > 1) == KINDS[kind].reads_limit


@pytest.mark.parametrize("combine", ["each", "each_leave_one_out"])
def test_p13_normalising_terms_one_by_one_needs_the_waiver(combine: str):
    with pytest.raises(
        RecipeError, match=rf"{combine} gives .* a right answer may rank below a wrong one; say waive: \[right_beats_wrong\]"
    ):
        load("dler", "tiny", [f"advantage.combine={combine}"])


ALP, EXACT = "{kind: alp, gate: right, weight: 0.5}", "{kind: l1_exact, gate: right, weight: 0.8}"


@pytest.mark.parametrize(
    ("term", "budget", "margin"),
    [
        (ALP, "{kind: controller}", 0.5),
        (ALP, "{kind: prompt, least: 0.01}", 0.5),
        (ALP, "{kind: reference, room: 1.5}", 0.25),
        (ALP, "{kind: constant} schedule={budget.limit: {kind: linear, share: 0.05}}", 0.5),
        (ALP, "{kind: outlier, alpha: 2.0}", 0.5),
        (ALP, "{kind: coverage, room: 1.8}", 1 - 0.5 * 187 / 104),  # its limits are no less than what was sampled with
        (ALP, "{kind: coverage, room: 4.0}", None),
        (ALP, "{kind: difficulty, ladder: [{at_least: 0.5, share: 0.75}, {}]}", 1 - 0.5 * 104 / 78),
        (ALP, "{kind: difficulty, ladder: [{at_least: 0.5, share: 0.1}, {}]}", None),
        (ALP, "{kind: toggle}", None),
        (EXACT, "{kind: prompt, room: 1.5}", 0.2),
        (EXACT, "{kind: prompt, room: 3.0}", None),
        (EXACT, "{kind: difficulty, room: 2.0, ladder: [{at_least: 0.5, share: 0.5}, {}]}", None),
        (
            EXACT,
            "{} schedule={budget.limit: {kind: linear, share: 0.5}, reward.l1_exact.weight: {kind: linear, to: 1.4}}",
            1 - 0.832168,  # of the worst step; the most of both together would be 1.4
        ),
    ],
)
def test_p13_a_rollout_is_held_against_the_limit_that_it_was_sampled_with_and_those_decided_later_against_the_least(
    term: str, budget: str, margin: float | None
):
    words = [f"reward=[{{kind: verdict}}, {term}]", *f"budget={budget}".split(" schedule", 1)]
    words = [f"schedule{word}" if word.startswith("=") else word for word in words]
    if margin is None:
        with pytest.raises(RecipeError, match="right must beat wrong"):
            load("grpo", "tiny", words)
        return
    recipe = load("grpo", "tiny", words)
    assert recipe.margin == pytest.approx(margin, abs=1e-6)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ("{kind: cosine, of: thinking}, {kind: cosine, of: answer}", "two cosine terms"),
        ("{kind: cosine}, {kind: o1_pruner}", "cosine and o1_pruner"),
        ("{kind: o1_pruner}, {kind: kimi}, {kind: o1_pruner, of: answer}", "two o1_pruner terms"),
    ],
)
def test_two_terms_in_the_verdicts_place_are_refused_whatever_is_waived(terms: str, said: str):
    with pytest.raises(RecipeError, match=f"{said} would each stand in the verdict's place, and take it off twice; keep one"):
        load("grpo", "tiny", [f"reward=[{{kind: verdict}}, {terms}]", "waive=[right_beats_wrong, length_of_wrong]"])


@pytest.mark.parametrize(
    ("term", "said"),
    [
        ("{kind: o1_pruner, low: 1.0, high: 1.0}", r"reward\[1\].low: 1 is high, too: what is right and what is wrong would earn the same"),
        ("{kind: o1_pruner, alpha: 0}", r"reward\[1\].alpha: 0 leaves out whether an answer is right: .* would earn the same"),
        (
            "{kind: o1_pruner, of: thinking, alpha: 0.0, low: 0}",
            r"reward\[1\].alpha: 0 leaves out whether an answer is right: .* would earn the same",
        ),
        (
            "{kind: cosine, right_short: 1, right_long: 0, wrong_short: 1, wrong_long: 0}",
            r"reward\[1\].right_short: 1 to 0 is what wrong answers earn, too",
        ),
        (
            "{kind: function, name: 'my:own', gate: right, weight: -1.0, low: 1.0, high: 1.0}",
            "every answer, right or wrong, earns 0: nothing would train",
        ),
    ],
)
def test_a_reward_that_leaves_right_and_wrong_alike_is_refused_whatever_is_waived(term: str, said: str):
    with pytest.raises(RecipeError, match=said):
        load("grpo", "tiny", [f"reward=[{{kind: verdict}}, {term}]", "waive=[right_beats_wrong, length_of_wrong]"])


@pytest.mark.parametrize(("kind", "words"), [("leash", "1 and -1"), ("gr3", "of 0 for wrong")])
def test_p13_verdicts_that_a_formula_does_not_fit_are_refused(kind: str, words: str):
    verdict = VerdictTerm(kind="verdict", wrong=0.0 if kind == "leash" else -1.0)
    with pytest.raises(ValueError, match=words):
        refuse_wrong_before_right([verdict, made(kind)], Case(), ["right_beats_wrong"])


@pytest.mark.parametrize(
    "reward",
    [
        "[{kind: verdict}, {kind: arora, of: thinking}, {kind: arora, of: answer}]",
        "[{kind: verdict}, {kind: arora, weight: 1.5}]",
        "[{kind: verdict}, {kind: truncate}, {kind: arora}]",
        "[{kind: verdict}, {kind: truncate}, {kind: kl, weight: 1}]",
        "[{kind: verdict}, {kind: arora}, {kind: kl, weight: 0.1}]",
    ],
)
def test_p13_what_erases_a_verdict_may_do_so_once_and_leaves_a_tie_that_nothing_else_breaks(reward: str):
    with pytest.raises(RecipeError, match=r"right must beat wrong"):
        load("dler", "tiny", [f"reward={reward}"])


@pytest.mark.parametrize("term", ["{kind: cut}", "{kind: repetition, form: dense, weight: 0.01}"])
def test_p13_a_term_by_which_a_short_wrong_answer_earns_more_than_a_long_one_needs_the_waiver(term: str):
    with pytest.raises(RecipeError, match=r"pays wrong answers for their length; .* waive: \[length_of_wrong\]"):
        load("dler", "tiny", [f"reward=[{{kind: verdict}}, {term}]"])
    load("dler", "tiny", [f"reward=[{{kind: verdict}}, {term}]", "waive=[length_of_wrong]"])


@pytest.mark.parametrize(
    "term",
    ["{kind: format, form: halves}", "{kind: cut}", "{kind: repetition, weight: 0.1}", "{kind: closings}", "{kind: kl, weight: 0.1}"],
)
@pytest.mark.parametrize("rule", ["shortest", "efficient"])
def test_p13_a_choice_by_length_among_wrong_answers_that_earn_differently_is_refused(rule: str, term: str):
    with pytest.raises(RecipeError, match=rf"select\.kind: {rule} with \w+, a term that tells wrong answers apart"):
        load("dler", "tiny", [f"select={{kind: {rule}, keep: 4}}", f"reward=[{{kind: verdict}}, {term}]", "waive=[length_of_wrong]"])


def test_p13_the_margin_at_a_step_is_that_of_the_prices_that_rewards_go_by():
    """Prices per token are those of budget.limit as it is written, however far a schedule moves the limit; the KL term's bound follows the margin."""
    words = ["budget.limit=10", "schedule={budget.limit: {kind: linear, to: 100, over: 10}}", "train.steps=10"]
    recipe = load(
        "dler", "tiny", [*words, "reward=[{kind: verdict}, {kind: shorterbetter, weight: 0.09, gate: right}, {kind: kl, weight: 1}]"]
    )
    assert recipe.margin == pytest.approx(0.1)
    assert [recipe.at(step).unit for step in (0, 9)] == [10, 10]
    assert recipe.at(9).margin == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("term", "words", "advice"),
    [
        ("{kind: kimi}", [], "; gate it (gate: right), or say waive"),
        ("{kind: repetition, form: dense, weight: 0.1}", [], "; gate it (gate: right), or say waive"),
        ("{kind: laser, explore: true, weight: 0.2}", [], "; say explore: false, or say waive"),
        ("{kind: cut}", [], "; take it out, or say waive"),
        ("{kind: cut}", ["waive=[length_of_wrong]", "select={kind: shortest, keep: 3}"], "; take it out"),
        ("{kind: kl, weight: 0.01}", ["select={kind: efficient, keep: 3}"], "; take it out"),
        (
            "{kind: laser, explore: true, weight: 0.2}",
            ["waive=[length_of_wrong]", "select={kind: shortest, keep: 3}", "budget.room=2"],
            "; say explore: false",
        ),
        ("{kind: format}", ["select={kind: efficient, keep: 3}"], "; gate it (gate: right)"),
        ("{kind: cut, weight: 0.1}, {kind: leash}", [], "needs verdicts"),
        ("{kind: profiled, weight: 3.0}", [], "raise the verdict's weight, narrow"),
        ("{kind: function, name: 'my:own'}", [], "raise the verdict's weight, gate terms that wrong answers earn (gate: right), narrow"),
    ],
)
def test_what_an_error_advises_of_a_term_that_pays_wrong_answers_is_a_key_that_it_has(term: str, words: list[str], advice: str):
    with pytest.raises(RecipeError, match=re.escape(advice)):
        load("grpo", "tiny", [f"reward=[{{kind: verdict}}, {term}]", *words])
