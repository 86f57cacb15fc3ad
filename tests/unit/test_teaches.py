"""What plan says of groups that are mixed, all right and all wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from launch.explain import explain
from launch.plan import plan
from launch.teaches import teaching
from recipes.budgets import CoverageBudget, OutlierBudget, ToggleBudget
from recipes.loader import load
from recipes.terms import VerdictTerm
from rewards.profiles import dot_limit
from rewards.terms import levelled, rewards
from rl.advantage import advantages
from rl.selection import selected
from rollout.budget import Held, Tiers, group_limit
from tests.unit.test_p13_bounds import KINDS, SIGNED, facts, made


@pytest.mark.parametrize(
    ("name", "words", "kept", "length", "trains"),
    [
        ("grpo", [], (1, 1, 1), (0, 0, 0), (1, 0, 0)),
        ("dler", [], (1, 0, 0), (1, 1, 0), (1, 0, 0)),  # correctness is constant where all are right: truncation teaches in mixed groups only
        ("da_dler", [], (1, 1, 0), (1, 1, 0), (1, 1, 0)),
        ("dot", [], (1, 1, 0), (0, 1, 0), (1, 1, 0)),  # outliers of all-right groups alone
        ("dot", ["sampler.keep_groups=raw"], (1, 1, 0), (0, 1, 0), (1, 1, 0)),  # whose verdicts the filter sees behind the cut
        ("dot", ["budget.least_cut=0.2", "budget.alpha=2"], (1, 0, 0), (0, 0, 0), (1, 0, 0)),  # of 8 none can lie so far above
        ("kimi", [], (1, 1, 1), (1, 1, 1), (1, 1, 1)),
        ("grpo", ["reward=[{kind: verdict, wrong: 0.3}, {kind: linear}]", "sampler.keep_groups=shaped"], (1, 1, 0), (1, 1, 0), (1, 1, 0)),
        ("grpo", ["reward=[{kind: verdict, wrong: 0.3}, {kind: linear, gate: none}]", "waive=[length_of_wrong]"], (1, 1, 1), (1, 1, 1), (1, 1, 1)),
        ("laser", [], (1, 1, 0), (1, 1, 0), (1, 1, 0)),
        ("laser", ["reward=[{kind: verdict, wrong: -0.5}, {kind: laser, explore: true}]", "waive=[length_of_wrong, right_beats_wrong]"], (1, 1, 1), (1, 1, 1), (1, 1, 1)),
        ("grpo", ["reward=[{kind: verdict}, {kind: format}]", "sampler.keep_groups=shaped"], (1, 1, 1), (0, 0, 0), (1, 1, 1)),
        ("decs", [], (1, 1, 0), (1, 1, 0), (1, 1, 0)),  # all-right ones as kappa lets in
        ("decs", ["credit.most=0"], (1, 0, 0), (1, 1, 0), (1, 0, 0)),
        ("decs", ["sampler.keep_groups=all"], (1, 1, 1), (1, 1, 0), (1, 1, 0)),
        ("decs", ["reward=[{kind: verdict}, {kind: kimi}]", "waive=[length_of_wrong]"], (1, 1, 0), (1, 1, 0), (1, 1, 0)),  # kimi says nothing
        ("decs", ["sampler.keep_groups=all", "advantage.boost=0.1"], (1, 1, 1), (1, 1, 0), (1, 1, 0)),  # nor does a boost
        ("decs", ["sampler.keep_groups=all", "advantage={centre: reference, scale: none, ddof: 0}"], (1, 1, 1), (1, 1, 0), (1, 1, 0)),
        ("drpo", ["advantage.boost=0.1", "advantage.shorter=0.1"], (1, 1, 1), (1, 0, 0), (1, 0, 0)),
        ("drpo", ["reward=[{kind: verdict}, {kind: kimi}]", "waive=[length_of_wrong]", "sampler.keep_groups=shaped"], (1, 1, 1), (1, 0, 0), (1, 0, 0)),
        ("gtpo", ["reward=[{kind: verdict}, {kind: kimi}]", "waive=[length_of_wrong]", "advantage.shorter=0.1"], (1, 1, 1), (1, 1, 0), (1, 1, 1)),
        ("gtpo", ["credit={weight: 0.0, normalise: together}"], (1, 1, 1), (0, 0, 0), (1, 0, 0)),
        ("efficiency", [], (1, 1, 0), (1, 1, 0), (1, 1, 0)),
        ("efficiency", ["sampler.keep_groups=raw"], (1, 0, 0), (1, 1, 0), (1, 0, 0)),
    ],
)  # fmt: skip
def test_a_recipe_says_which_groups_it_keeps_and_what_they_teach(name: str, words: list[str], kept, length, trains):
    found = teaching(load(name, "tiny", words))
    assert [one.kind for one in found] == ["mixed", "all right", "all wrong"]
    assert tuple(int(one.kept) for one in found) == kept
    assert tuple(int(one.length) for one in found) == length
    assert tuple(int(one.trains) for one in found) == trains


@pytest.mark.parametrize(
    ("term", "warned"),
    [
        ("", False),
        (", floor: 0.0", True),
        (", floor: 0.0, shape: linear", True),
        (", floor: 0.0, shape: saving", False),
        (", floor: 0.1", False),
    ],
)
def test_plan_warns_of_a_factor_that_falls_to_nothing_by_the_groups_shortest_right_answer(term: str, warned: bool):
    recipe = load("grpo", "tiny", [f"reward=[{{kind: verdict}}, {{kind: relative{term}}}]"])
    assert ("which trains guessing" in "\n".join(plan(recipe).warnings)) is warned


def test_plan_says_how_many_groups_of_right_answers_alone_kappa_lets_in():
    assert "all right  kept by the filter: up to 20% of a step (credit.most); carries a length signal: yes (credit.kind: decs)" in explain(
        plan(load("decs", "tiny"))
    )


def test_plan_prints_all_three_columns_of_what_can_teach():
    text = explain(plan(load("dler", "tiny")))
    assert (
        "teaches  mixed      kept by the filter: yes; carries a length signal: yes (truncate); trains: yes, by verdict, truncate\n" in text
    )
    lost = "kept by the filter: no, as its correctness is constant; carries a length signal: yes (truncate), lost with it; trains: no\n"
    assert f"teaches  all right  {lost}" in text
    assert "teaches  all wrong  kept by the filter: no, as its correctness is constant; carries a length signal: no; trains: no\n" in text
    text = explain(plan(load("grpo", "tiny", ["reward=[{kind: verdict}, {kind: function, name: 'my:own', gate: right}]"])))
    assert "all right  kept by the filter: yes; carries a length signal: if my:own looks at it; trains: yes, by my:own\n" in text
    assert "all wrong  kept by the filter: yes; carries a length signal: no; trains: no, as all its rollouts earn the same\n" in text


RIGHTS = {"mixed": [1, 1, 0, 0, 1, 0], "all right": [1] * 6, "all wrong": [0] * 6}
TEXTS = ["a</think>\\boxed{1}", "</think>\\boxed{1}", "x", "a</think>b</think>"]


def groups(kind: str, count: int = 60):
    """Facts of groups of six, of all lengths, some cut off, some of repeated tokens."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        tokens, thinking, finished = rng.integers(1, 80, 6), rng.integers(0, 80, 6), rng.random(6) < 0.7
        given = facts(RIGHTS[kind], tokens, thinking, int(rng.integers(10, 40)), finished)
        ids = [[0] * n if rng.random() < 0.5 else list(range(n)) for n in tokens]
        yield replace(given, asked=replace(given.asked, prompt="1<think>", completions=list(rng.choice(TEXTS, 6)), completion_ids=ids))


@pytest.mark.parametrize("gate", ["none", "right"])
@pytest.mark.parametrize("term", [kind for kind in KINDS if kind not in ("kl", "verdict")])
def test_a_term_is_said_to_tell_rollouts_of_one_verdict_apart_where_its_formula_does(term: str, gate: str):
    gated = {"gate": gate} if "gate" in KINDS[term].model_fields else {}
    terms = [VerdictTerm(kind="verdict", wrong=-1.0 if term in SIGNED else 0.0), made(term, **gated)]
    said = teaching(load("grpo", None, ["budget.room=8"]).model_copy(update={"reward": terms}))
    for one in said[1:]:
        apart = [np.ptp(levelled(rewards(terms, group)[term])) > 0 for group in groups(one.kind)]
        assert any(apart) == (term in one.differs), one


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("qglas", []),
        ("gfpo", []),
        ("gfpo", ["advantage.boost=0.1"]),
        ("gfpo", ["select.kind=efficient"]),
        ("gfpo", ["select.kind=efficient", "reward=[{kind: verdict, wrong: -0.5}]"]),
        ("gfpo", ["select.keep=16"]),
        ("gfpo", ["select.kind=max_variance"]),
        ("grpo", ["advantage.boost=0.1"]),
        ("grpo", ["advantage={centre: reference, scale: none}"]),
        ("grpo", ["advantage={centre: reference, scale: none}", "select={kind: shortest, keep: 3}"]),
        ("qglas", ["reward=[{kind: verdict}, {kind: laser}]", "budget.room=8"]),
        ("grpo", []),
    ],
)
def test_what_is_said_of_a_recipe_is_what_its_advantages_do(name: str, words: list[str]):
    recipe = load(name, None, words).model_copy(update={"schedule": {}})
    if recipe.select.kind != "all":  # of six
        keep = 6 if recipe.select.keep == recipe.sampler.group_size else 4
        recipe = recipe.model_copy(
            update={
                "select": recipe.select.model_copy(update={"keep": keep}),
                "sampler": recipe.sampler.model_copy(update={"group_size": 6}),
            }
        )
    for one in teaching(recipe):
        trains = length = False
        for group in groups(one.kind):
            by_tokens = []
            for tokens_G in (group.tokens_G, group.tokens_G[::-1]):  # the same group with other lengths
                given = replace(group, tokens_G=tokens_G)
                reward_PG, right_PG = np.array([sum(rewards(recipe.reward, given).values())]), given.right_G[None]
                kept_PG = selected(reward_PG, tokens_G[None], recipe.select)
                found = advantages(reward_PG, right_PG, tokens_G[None], recipe.advantage, kept_PG, np.array([0.4]))
                by_tokens.append(tuple(found.round(9).flatten()))
                trains |= bool((found != 0).any())
            length |= by_tokens[0] != by_tokens[1]
        assert (one.trains, one.length) == (trains, length), one


@pytest.mark.parametrize(
    ("words", "differs", "kept"),
    [
        (["reward=[{kind: verdict}, {kind: kl, weight: 0.01}]"], "kl", True),
        (["reward=[{kind: verdict}, {kind: kl, weight: 0.0}]"], "", True),
        (["reward=[{kind: verdict}, {kind: kl, weight: 0.0}]", "schedule.reward.kl.weight={kind: linear, to: 0.1}"], "kl", True),
        (["reward=[{kind: verdict}, {kind: kl, weight: 0.01}]", "sampler.keep_groups=shaped"], "kl", False),  # it comes behind the filter
        (["reward=[{kind: verdict}, {kind: truncate, keep: 1.0}]"], "", True),
        (["reward=[{kind: verdict}, {kind: truncate, keep: 1.0}]", "schedule.reward.truncate.keep={kind: linear, to: 0.5}"], "truncate", True),
    ],
)  # fmt: skip
def test_what_moves_or_is_measured_tells_rollouts_of_constant_groups_apart(words: list[str], differs: str, kept: bool):
    right = teaching(load("grpo", "tiny", words))[1]
    assert (", ".join(right.differs), right.kept, right.trains) == (differs, kept, bool(differs) and kept)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("controller", "limit    104 (40 at step 33) tokens, down to 10 (4 at step 33) while accuracy"),
        ("laser_d", "limit    104 (40 at step 33) to 416 (160 at step 33) tokens by a group's difficulty"),
        ("da_dler", "limit    52 (20 at step 33) tokens where at least 50% are right, else 104 (40 at step 33) tokens"),
        ("l1_exact", "limit    drawn for each prompt from 2 (1 at step 33) to 104 (40 at step 33) tokens"),
        ("thinking_budget", "limit    104 (40 at step 33) tokens, of which thinking is closed after"),
    ],
)
def test_plan_says_limits_as_the_schedule_of_budget_limit_has_them(name: str, words: str):
    schedule = "schedule={budget.limit: {kind: linear, to: 40}}"
    assert any(line.startswith(words) for line in explain(plan(load(name, "tiny", [schedule]))).splitlines())


VERDICTS = {"leash": "{kind: verdict, wrong: -1.0}"}


@pytest.mark.parametrize(
    ("term", "room", "acts"),
    [
        ("leash", 1.0, False),
        ("leash", 1.005, False),  # of 104 tokens that is half a token
        ("leash", 1.01, True),
        ("leash", 1.2, True),
        ("leash, most: 1.0e-7, weight: 1.0e-7", 4.0, False),
        ("laser", 1.0, False),
        ("laser", 1.1, True),
        ("laser, explore: true", 1.0, False),
        ("band", 1.0, False),
        ("band", 1.009, False),
        ("band", 1.5, True),
        ("triangle", 1.0, True),
        ("lead, least: 1.0", 1.0, False),
        ("lead, least: 0.9", 1.0, True),
        ("lead, least: 1.0", 1.5, True),
        ("l1_max, delta: 1.0", 1.0, False),
        ("l1_max, delta: 1.0", 1.5, True),
        ("l1_max, delta: 1.0, form: code", 1.0, True),
        ("l1_max, alpha: 1.0e-9", 1.5, False),
        ("relative, shape: soft, strength: 104", 1.0, False),
        ("relative, shape: soft, strength: 100", 1.0, True),
        ("relative, strength: 1.0e-9", 1.0, False),
        ("relative, floor: 1.0", 1.0, False),
        ("zmad, threshold: 1.0e3", 1.0, False),
        ("repetition, size: 104, weight: 0.5, gate: right", 1.0, False),
        ("repetition, size: 104, weight: 0.5, gate: right", 1.5, True),
        ("laser, weight: 1.0e-12", 2.0, False),
        ("alp, weight: 1.0e-7, gate: right", 1.0, False),
        ("triangle, weight: 1.0e-5", 1.0, True),
        ("arora, alpha: 0.0", 1.0, True),  # of what was cut off it leaves nothing
    ],
)
def test_a_term_that_cannot_act_at_this_room_or_weight_is_not_said_to_train(term: str, room: float, acts: bool):
    """Said of all-right groups of any lengths up to room x 104 tokens, and seen in some or in none of two thousand."""
    kind = term.split(",")[0]
    words = [f"reward=[{VERDICTS.get(kind, '{kind: verdict}')}, {{kind: {term}}}]", f"budget={{limit: 104, room: {room}}}"]
    recipe = load("grpo", "tiny", [*words, *["waive=[length_of_wrong, right_beats_wrong]"] * ("explore" in term)])
    assert (kind in teaching(recipe)[1].differs) is acts
    rng, apart = np.random.default_rng(0), False
    for _ in range(2000):
        tokens = np.minimum(rng.integers(1, rng.choice([2, 10, recipe.most_tokens + 1], 6)), recipe.most_tokens)
        tokens = tokens if rng.random() < 0.5 else np.maximum(tokens, recipe.most_tokens - 9)
        given = facts([1] * 6, tokens, tokens, 104, rng.random(6) < 0.9)
        given = replace(given, unit=104, asked=replace(given.asked, completion_ids=[[0] * n for n in tokens]))
        apart |= np.ptp(levelled(sum(rewards(recipe.reward, given).values()))) > 0
    assert bool(apart) is acts


def test_a_verdict_so_large_that_a_term_is_lost_beside_it_hides_it():
    words = "reward=[{kind: verdict, weight: 1.0e4}, {kind: kimi, weight: 0.005, gate: right}]"
    assert teaching(load("grpo", "tiny", [words]))[1].differs == ()
    assert teaching(load("grpo", "tiny", [words.replace("0.005", "0.05")]))[1].differs == ("kimi",)


def test_a_boost_that_comes_by_a_schedule_trains_all_right_groups():
    recipe = load("grpo", "tiny", ["schedule.advantage.boost={kind: linear, to: 0.1}"])
    assert [one.trains for one in teaching(recipe)] == [True, True, False]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("laser_d", "limit    104 to 416 tokens by a group's difficulty, as 96 problems sampled apart every 20 steps (768 rollouts) shows"),
        ("controller", "while accuracy of 24 problems sampled apart every 2 steps (192 rollouts) is less than 0.02 below its start"),
        (
            "toggle",
            "limit    in every second 10 steps (from step 10), percentile 80 of right answers' lengths, where at least 80% are right",
        ),
        ("l1_exact", "limit    drawn for each prompt from 2 to 104 tokens"),
        ("dot", "limit    in all-right groups, mean + 2 deviations"),
    ],
)
def test_plan_says_what_decides_a_limit_that_is_not_one_for_all(name, words):
    assert any(words in line for line in explain(plan(load(name, scale="tiny"))).splitlines())


@pytest.mark.parametrize("rollouts", [3, 8, 16])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.1, 2.0, 2.4, 3.5])
@pytest.mark.parametrize("least_cut", [0.0, 0.004, 0.1, 0.168, 0.2, 0.5])
def test_outliers_can_be_cut_where_the_longest_rollout_among_the_shortest_is(rollouts: int, alpha: float, least_cut: float):
    for limit in (1, 2, 104, 4096):
        budget = OutlierBudget(kind="outlier", limit=limit, alpha=alpha, least_cut=least_cut)
        groups = [np.array([limit] * longest + [1] * (rollouts - longest)) for longest in range(1, rollouts)]
        found = [dot_limit(tokens_G, tokens_G > 0, alpha, budget.cut_tokens) for tokens_G in groups]
        assert budget.cuts(rollouts) == any(one is not None for one in found)


EXPLORE, BAND, LEASH = "{kind: laser, explore: true}", "{kind: band, gate: none}", "{kind: leash}"
HALF = "{kind: difficulty, ladder: [{at_least: 0.5, share: 0.5}, {}]}"
EASY = "{kind: difficulty, ladder: [{at_least: 0.5}, {share: 0.5}]}"


@pytest.mark.parametrize(
    "budget",
    [
        "{}",
        "{room: 1.5}",
        HALF,  # a group without a right answer keeps the whole limit, which none exceeds
        EASY,
        HALF.replace("0.5,", "1.0,"),  # and one that is mixed, too
        "{kind: difficulty, ladder: [{at_least: 0.9, share: 0.5}, {at_least: 0.8, share: 0.75}, {}]}",
        "{kind: toggle}",
        "{kind: toggle, accuracy: 0.75}",
        "{kind: toggle, accuracy: 0.0}",
        "{kind: coverage, room: 2.0}",
        "{kind: toggle, also: [{kind: difficulty, ladder: [{at_least: 0.5}, {share: 0.5}]}]}",
        "{kind: controller, also: [{kind: toggle, accuracy: 1.0}]}",
    ],
)
@pytest.mark.parametrize("term", [EXPLORE, BAND, LEASH])
def test_what_a_limit_decided_after_sampling_lets_a_term_do_is_said_of_each_kind_of_group(term: str, budget: str):
    kind = term.split(",")[0].split()[-1].strip("}")
    verdict = "{kind: verdict, wrong: -1}" if kind == "leash" else "{kind: verdict}"
    words = [f"budget={budget}", "budget.limit=20", "sampler.group_size=4", f"reward=[{verdict}, {term}]"]
    recipe = load("grpo", "tiny", [*words, "waive=[right_beats_wrong, length_of_wrong]"])
    held, rng = recipe.budget, np.random.default_rng(0)
    toggled = Tiers(((toggle.accuracy, 1), (0.0, 40))) if (toggle := held.part(ToggleBudget)) else None
    rules = [
        Held(held, covers, toggled) for covers in ([Tiers(((0.0, 20),)), Tiers(((0.0, 40),))] if held.part(CoverageBudget) else [None])
    ]
    for one in teaching(recipe):
        apart = False
        for _ in range(400):
            right = {"mixed": rng.permutation([1, 0, *rng.integers(0, 2, 2)]), "all right": np.ones(4), "all wrong": np.zeros(4)}[
                one.kind
            ] > 0
            tokens = rng.choice([1, 2, 19, 20, recipe.most_tokens], 4)
            finished = tokens < recipe.most_tokens
            limit = group_limit(rules[rng.integers(len(rules))], 20, tokens, right, finished)
            given = facts(right, tokens, tokens, limit, finished)
            value = levelled(sum(rewards(recipe.reward, given).values()))
            apart |= any(np.ptp(value[right == side]) > 0 for side in (True, False) if (right == side).any())
        assert apart is (kind in one.differs), one
