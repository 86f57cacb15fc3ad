"""P13: what a term says that it adds is what it adds, on any group; from this follows whether right beats wrong."""

from __future__ import annotations

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
    case = worth_of(terms, Case(group_size=len(right), least_limit=10, unit=LIMIT, limit=LIMIT, most=80))
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


@pytest.mark.parametrize("combine", ["each", "each_leave_one_out"])
def test_p13_normalising_terms_one_by_one_needs_the_waiver(combine: str):
    with pytest.raises(
        RecipeError, match=rf"{combine} gives .* a right answer may rank below a wrong one; say waive: \[right_beats_wrong\]"
    ):
        load("dler", "tiny", [f"advantage.combine={combine}"])


@pytest.mark.parametrize(("kind", "words"), [("leash", "1 and -1"), ("gr3", "of 0 for wrong")])
def test_p13_verdicts_that_a_formula_does_not_fit_are_refused(kind: str, words: str):
    verdict = VerdictTerm(kind="verdict", wrong=0.0 if kind == "leash" else -1.0)
    with pytest.raises(ValueError, match=words):
        refuse_wrong_before_right([verdict, made(kind)], Case(), ["right_beats_wrong"])
