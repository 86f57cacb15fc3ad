"""Numbers that move, and limits of prompts and groups, against the worked examples of their papers."""

from __future__ import annotations

import re
from contextlib import nullcontext
from itertools import pairwise
from math import exp, log
from time import process_time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.plan import plan, step_work
from recipes.budgets import (
    ConstantBudget,
    ControllerBudget,
    CoverageBudget,
    DifficultyBudget,
    OutlierBudget,
    PromptBudget,
    ReferenceBudget,
    ThinkingBudget,
)
from recipes.lengths import LeashTerm
from recipes.loader import RecipeError, load
from recipes.schedules import Decays, Exponential, Linear, Stage, Staged, value_at
from recipes.schema import Recipe
from rewards.profiles import dot_limit, percentile_limit
from rewards.verifier.verdict import Verdict
from rollout.budget import Control, Floor, covering, group_limit, next_floor, next_lambda, request_limit, stated_limit
from rollout.collector import PromptStream
from rollout.sources import Source
from rollout.types import Completion, Group, Problem, Request, Rollout
from tests.scripted import template
from tests.unit.test_plan import LAPTOP

PAPER = Exponential(kind="exponential", factor=0.7, every=150)


def at(schedule, steps, *when, start=256.0):
    return [value_at(schedule, start, step, steps) for step in when]


def test_the_exponential_budget_falls_at_the_papers_steps_and_stays_past_its_end():
    """arXiv 2508.08940: B0 256, factor 0.7, every 150 of 600 steps."""
    assert at(PAPER, 600, 0, 149, 150, 299, 300, 449, 450, 599) == pytest.approx([256, 256, 179.2, 179.2, 125.44, 125.44, 87.808, 87.808])
    assert at(PAPER, 600, 600, 10_000) == pytest.approx([87.808] * 2)  # the formula alone would give 61.466
    assert at(PAPER, 600, 0, 150, 300, 450, start=256) == [256, 179, 125, 87]  # whole numbers are rounded down
    faster = Exponential(kind="exponential", factor=0.7, every=100)
    assert at(faster, 700, *range(0, 700, 100)) == pytest.approx([256, 179.2, 125.44, 87.808, 61.4656, 43.02592, 30.118144])
    assert at(Exponential(kind="exponential", factor=0.7, every=150, least=100), 600, 599) == [100]


@pytest.mark.parametrize(("count", "factor", "every"), [(1, 0.3398, 300), (3, 0.6978, 150), (7, 0.8571, 75)])
def test_a_number_of_decays_gives_factor_and_interval(count: int, factor: float, every: int):
    schedule = Decays(kind="decays", share=87 / 256, count=count)
    values = at(schedule, 600, *range(600))
    changes = [step for step in range(1, 600) if values[step] != values[step - 1]]
    assert changes == [every * k for k in range(1, count + 1)] and values[-1] == pytest.approx(87)
    assert values[every] / values[0] == pytest.approx(factor, abs=1e-4)


def test_three_decays_and_three_linear_drops_have_their_levels():
    steps = (0, 150, 300, 450)
    assert at(Decays(kind="decays", share=87 / 256, count=3), 600, *steps) == pytest.approx([256, 178.65, 124.67, 87], abs=0.01)
    assert at(Linear(kind="linear", to=87, drops=3), 600, *steps) == pytest.approx([256, 199.67, 143.33, 87], abs=0.01)


def test_a_line_reaches_its_end_in_the_last_step_and_stages_hold_from_their_step_on():
    assert at(Linear(kind="linear", to=0.0), 5, 0, 2, 4, 9, start=1.0) == [1.0, 0.5, 0.0, 0.0]
    assert at(Linear(kind="linear", share=0.5, over=1), 5, 0, 4, start=1.0) == [0.5, 0.5]
    assert at(Linear(kind="linear", to=0.0, over=3), 9, 0, 1, 2, 8, start=1.0) == [1.0, 0.5, 0.0, 0.0]
    prune = Staged(kind="staged", stages=[Stage(since=180, value=3000), Stage(since=360, value=2000)])
    assert at(prune, 500, 0, 179, 180, 359, 360, 499, start=4000) == [4000, 4000, 3000, 3000, 2000, 2000]


@given(st.integers(1, 400), st.integers(1, 9), st.floats(1, 1000), st.floats(1, 1000))
def test_a_schedule_stays_between_its_ends_and_never_turns(steps: int, count: int, start: float, to: float):
    for schedule in (
        Decays(kind="decays", share=to / start, count=count),
        Linear(kind="linear", to=to, drops=count),
        Linear(kind="linear", to=to),
    ):
        values = at(schedule, steps, *range(steps + 3), start=start)
        assert min(start, to) - 1e-6 <= min(values) and max(values) <= max(start, to) + 1e-6
        assert all((after - before) * (to - start) >= -1e-6 for before, after in pairwise(values))


def test_the_recipe_at_a_step_holds_plain_numbers_and_engines_keep_room_for_the_largest():
    words = [
        "train.steps=10",
        "budget.room=2.5",
        "schedule={budget.limit: {kind: linear, to: 52, drops: 1}, learner.lr: {kind: linear, to: 0.0001}, reward.truncate.keep: {kind: linear, to: 1.0}}",
    ]
    recipe = load("dler", "tiny", words)
    assert [recipe.at(step).budget.limit for step in (0, 4, 5, 9, 99)] == [104, 104, 52, 52, 52]
    assert recipe.at(9).learner.lr == pytest.approx(1e-4) and recipe.at(9).reward[1].keep == 1.0
    assert (
        recipe.at(0).budget == recipe.budget
        and recipe.at(5).at(9) == recipe.at(5)
        and recipe.most("budget.limit") == 104
        and recipe.at(5).most_tokens == 130
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("schedule={judge.workers: {kind: linear, to: 3}}", "schedule: judge.workers cannot move"),
        ("schedule={budget.limit: {kind: linear, to: 0}}", "schedule: budget.limit: 0 at step 33 is not allowed"),
        ("schedule={reward.verdict.weight: {kind: linear, to: 0.00001}}", "right must beat wrong"),
        (
            "schedule={reward.verdict.weight: {kind: linear, to: 0.0}}",
            "reward.verdict.weight: 0 at step 33 is not allowed: input should be greater than 0",
        ),
        (
            "schedule={reward.truncate.keep: {kind: staged, stages: [{since: 3, value: 0.9}, {since: 7, value: 1.1}]}}",
            "reward.truncate.keep: 1.1 at step 7 is not",
        ),
        (
            "schedule={objective.clip_low: {kind: linear, to: -0.2}}",
            "objective.clip_low: -0.00606061 at step 17 is not allowed: input should be greater than 0",
        ),
        (
            "schedule={objective.clip_high: {kind: exponential, factor: 10, every: 1, least: 0}} train.steps=400",
            r"objective.clip_high: 2.8e\+15 at step 16 is not",
        ),
        (
            "schedule={objective.entropy.coef: {kind: linear, to: 2}} objective.entropy.target=1 objective.entropy.coef=0.5",
            "schedule: objective.entropy.coef: with objective.entropy.target the weight adapts",
        ),
        (
            "schedule={sampler.temperature: {kind: linear, to: 0}}",
            "sampler.temperature: 0 at step 33 is not allowed: input should be greater than 0",
        ),
        (
            "schedule={sampler.temperature: {kind: staged, stages: [{since: 2, value: -1}, {since: 3, value: 1}]}}",
            "sampler.temperature: -1 at step 2 is not",
        ),
        ("schedule={advantage.shorter: {kind: linear, to: -1}} advantage.shorter=1", "advantage.shorter: -0.030303 at step 17 is not"),
        ("schedule={learner.lr: {kind: linear, share: 0}}", "learner.lr: 0 at step 33 is not allowed"),
        ("schedule={select.keep: {kind: linear, to: 4}}", "schedule: select.keep: select.kind all has no keep; take a kind that has"),
        (
            "schedule={reward.triangle.weight: {kind: linear, to: 0.1}}",
            r"reward.triangle.weight: reward has no triangle term; add one, or take the schedule out \(null\)",
        ),
        ("schedule={reward.truncate.sharpness: {kind: linear, to: 0.1}}", "schedule: reward.truncate.sharpness cannot move; these can"),
        (
            "schedule={select.keep: {kind: linear, to: 1}} select={kind: shortest, keep: 4}",
            "schedule: select.keep: 1 at step 23 is not allowed: expected 2 to sampler.group_size 8",
        ),
        (
            "schedule={select.keep: {kind: linear, to: 9}} select={kind: shortest, keep: 4}",
            "schedule: select.keep: 9 at step 33 is not allowed: expected 2 to sampler.group_size 8",
        ),
        (
            "budget.ladder=[{at_least: 0.5, share: 0.1}, {}] budget.kind=difficulty schedule={budget.limit: {kind: linear, to: 9}}",
            "budget.limit: 9 at step 33 is not allowed: ladder: a share of limit 9 is less than one token",
        ),
        (
            "reward=[{kind: verdict, weight: 9}, {kind: function, name: 'a:b', low: 0.0, high: 1.0, gate: right}] schedule={reward.function.low: {kind: linear, to: 0.9}, reward.function.high: {kind: linear, to: 0.5}}",
            "schedule: reward.function.low: 0.654545 beside reward.function.high 0.636364 at step 24 is not allowed: low: 0.654545 is above high",
        ),
        (
            "reward=[{kind: verdict, weight: 9}, {kind: function, name: 'a:b', low: 0.1, high: 0.9, gate: right}] train.steps=5 schedule={reward.function.low: {kind: staged, stages: [{since: 1, value: 0.2}, {since: 2, value: 0.5}, {since: 3, value: 0.6}]}, reward.function.high: {kind: staged, stages: [{since: 1, value: 0.3}, {since: 2, value: 0.4}, {since: 3, value: 0.9}]}}",
            "reward.function.low: 0.5 beside reward.function.high 0.4 at step 2 is not",
        ),
        (
            "schedule={budget.limit: {kind: exponential, factor: 0.7, every: 2, least: 99999}}",
            "schedule: budget.limit: least 99999 is above [0-9]+, where it starts",
        ),
        (
            "reward=[{kind: verdict, wrong: -1.0}, {kind: leash}, {kind: leash, of: answer}]",
            "reward: two leash terms would follow one lambda; keep one",
        ),
        (
            "select={kind: shortest, keep: 4} reward=[{kind: verdict}, {kind: function, name: 'a:b', low: 0.2, high: 0.2}] schedule={reward.function.high: {kind: linear, to: 0.5}}",
            "select.kind: shortest with function, a term that tells wrong answers apart",
        ),
        (
            "reward=[{kind: verdict}, {kind: linear, weight: 0.1, gate: right}, {kind: linear, weight: 0.3, gate: right}] schedule.reward.linear.weight={kind: linear, to: 0.2}",
            "schedule: reward.linear.weight: reward has more than one linear term",
        ),
        (
            "reward=[{kind: verdict}, {kind: verdict, weight: 2}] schedule.reward.verdict.weight={kind: decays, share: 0.5, count: 2}",
            "schedule: reward.verdict.weight: reward has more than one verdict term",
        ),
        (
            "reward=[{kind: verdict, wrong: -1.0}, {kind: leash, weight: 2.0, most: 1.0}]",
            r"reward\[1\].weight: 2 is above most 1, where lambda must stay",
        ),
        ("schedule={objective.kl.coef: {kind: decays, share: 0.5, count: 2}}", None),
        ("schedule={advantage.boost: {kind: decays, share: 0.5, count: 2}}", "decays multiplies, and starts at 0"),
        ("schedule={budget.limit: {kind: staged, stages: [{since: 3, value: 5}, {since: 3, value: 6}]}}", "each must come after"),
        ("schedule={budget.limit: {kind: exponential, factor: 0.5}}", "schedule.budget.limit.every: missing"),
        ("budget={kind: outlier} reward=[{kind: verdict}]", "budget.alpha: 3: among 8 rollouts none lies more than 2.475 deviations above"),
        ("budget={kind: prompt} model.path=owner/name stages=[rl]", "data.instruction: budget.kind prompt gives each prompt its own limit"),
    ],
)
def test_a_schedule_or_budget_that_cannot_be_is_refused(words: str, message: str | None):
    if message is None:
        load("dler", "tiny", [words])
        return
    with pytest.raises(RecipeError, match=message):
        load(
            "dler",
            "tiny",
            re.split(
                r" (?=(?:reward|select|schedule(?:\.[\w.]+)?|model\.path|stages|budget\.kind|train\.steps|advantage\.shorter|objective\.entropy\.\w+)=)",
                words,
            ),
        )


def test_a_schedule_that_is_refused_is_placed_at_its_own_line(tmp_path):
    lines = ["extends: dler", "schedule:", "  objective.clip_low: {kind: linear, to: 0}", "  learner.lr: {kind: linear, share: 0.5}"]
    (tmp_path / "mine.yaml").write_text("\n".join(lines))
    with pytest.raises(RecipeError, match=rf"^{tmp_path}/mine.yaml:3: schedule: objective.clip_low: 0 at step 449 is not allowed"):
        load(str(tmp_path / "mine.yaml"))


def test_a_number_may_move_over_all_that_its_key_allows_and_stays_where_it_ended():
    """Right to the bounds, also below 0 where the key allows that; what is past the end of the run is not asked."""
    words = [
        "train.steps=10",
        "select={kind: max_variance, keep: 8}",
        "reward=[{kind: verdict}, {kind: cosine, wrong_short: -2.0, wrong_long: -1.0, beyond: -3.0}]",
        "waive=[right_beats_wrong, length_of_wrong]",
        "schedule={select.keep: {kind: linear, to: 2}, sampler.temperature: {kind: linear, to: 0.1, over: 4}, advantage.boost: {kind: linear, to: 0.5}, "
        "objective.kl.coef: {kind: linear, to: 0}, reward.cosine.beyond: {kind: linear, to: -9}, budget.limit: {kind: exponential, factor: 0.5, every: 9}}",
    ]
    recipe = load("dler", "tiny", words)
    assert [recipe.at(step).select.keep for step in (0, 4, 9, 99)] == [8, 5, 2, 2]
    assert [recipe.at(step).sampler.temperature for step in (0, 3, 9, 10**9)] == pytest.approx([1.0, 0.1, 0.1, 0.1])
    assert recipe.at(9).reward[1].beyond == -9 and recipe.at(9).objective.kl.coef == 0 and recipe.ends("budget.limit") == (52, 104)


_FUNCTION = "reward=[{kind: verdict, weight: 9}, {kind: function, name: 'a:b', low: 1.0, high: 2.0, gate: right}]"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([_FUNCTION, "schedule={reward.function.low: {kind: linear, to: 3.0}, reward.function.high: {kind: linear, to: 4.0}}"], ""),
        (
            [
                "reward=[{kind: verdict, wrong: -8}, {kind: function, name: 'a:b', low: -1.0, high: 1.0, gate: right}]",
                "schedule={reward.function.low: {kind: linear, to: -4.0}, reward.function.high: {kind: linear, to: -3.0}}",
            ],
            "",
        ),
        (
            [
                _FUNCTION,
                "schedule={reward.function.low: {kind: linear, to: 3.0}, reward.function.high: {kind: staged, stages: [{since: 30, value: 4}]}}",
            ],
            "reward.function.low: 2.0303 beside reward.function.high 2 at step 17 is not allowed: low: 2.0303 is above high 2",
        ),
        (
            [_FUNCTION, "schedule={reward.function.high: {kind: linear, to: 0.0}}"],
            "reward.function.high: 0.969697 at step 17 is not allowed: low: 1 is above high 0.969697",
        ),
        (
            ["schedule={objective.clip_high: {kind: linear, to: 1.0}, objective.clip_low: {kind: linear, to: -0.1}}"],
            "objective.clip_low: 0 at step 22 is not allowed: input should be greater than 0",
        ),
        (
            ["schedule={reward.verdict.weight: {kind: linear, to: 1.0e-5}}"],
            "reward.verdict.weight: 1e-05 at step 33 is not allowed: .*right must beat wrong",
        ),
        (  # each end of both is allowed: it is what lies between that is not
            [
                "waive=[length_of_wrong]",
                "reward=[{kind: verdict, weight: 2.0}, {kind: format, weight: 1.0}]",
                "schedule={reward.verdict.weight: {kind: staged, stages: [{since: 20, value: 9}]}, reward.format.weight: {kind: staged, stages: [{since: 10, value: 8}]}}",
            ],
            "reward.format.weight: 8 at step 10 is not allowed: wrong answers may earn 8, right ones no more than 2: right must beat wrong",
        ),
        (
            [
                "reward=[{kind: verdict}, {kind: overlong, gate: right, weight: 0.5}]",
                "schedule={reward.overlong.weight: {kind: linear, to: 2.0}}",
            ],
            "schedule: reward.overlong.weight: 1 at step 11 is not allowed: wrong answers may earn 0, right ones no more than 0",
        ),
        (
            ["reward=[{kind: verdict}, {kind: gr3}]", "schedule={reward.verdict.wrong: {kind: linear, to: -1.0}}"],
            "schedule: reward.verdict.wrong: -0.030303 at step 1 is not allowed: gr3 needs verdicts of 0",
        ),
        (
            ["reward=[{kind: verdict, wrong: -1.0}, {kind: leash}]", "schedule={reward.verdict.wrong: {kind: linear, to: 0.0}}"],
            "schedule: reward.verdict.wrong: -0.969697 at step 1 is not allowed: leash needs verdicts 1 and -1",
        ),
        (
            [
                "reward=[{kind: verdict}, {kind: l1_exact, gate: right, weight: 0.8}]",
                "schedule={budget.limit: {kind: staged, stages: [{since: 7, value: 208}]}}",
            ],
            "schedule: budget.limit: 208 at step 7 is not allowed: wrong answers may earn 0, right ones no more than -0.6",
        ),
        (
            ["reward=[{kind: verdict}, {kind: overlong, gate: right, weight: 1.5}]", "schedule={budget.limit: {kind: linear, to: 52}}"],
            "reward: wrong answers may earn 0, right ones no more than -0.5",  # from the start: no schedule is to blame
        ),
    ],
)
def test_numbers_that_move_together_are_held_to_the_rules_as_they_stand_in_each_step(words: list[str], message: str):
    with pytest.raises(RecipeError, match=message) if message else nullcontext():
        load("dler", "tiny", words)


def test_a_slot_is_told_by_the_first_step_of_each_value():
    recipe = load(
        "dler",
        "tiny",
        ["train.steps=9", "schedule={budget.limit: {kind: linear, to: 52, drops: 1}, learner.lr: {kind: linear, share: 0.5}}"],
    )
    assert {step: budget.limit for step, budget in recipe.each("budget").items()} == {0: 104, 5: 52}
    assert recipe.each("sampler") == {0: recipe.sampler} and list(recipe.each("learner")) == list(range(9))
    assert all(recipe.each("learner")[step] == recipe.at(step).learner for step in range(9))


def test_a_long_run_is_checked_as_fast_as_a_short_one():
    """All steps of what moves are asked, without a recipe for each."""
    schedule = "schedule={budget.limit: {kind: linear, to: 52}, reward.verdict.weight: {kind: linear, to: 3.0}, objective.clip_low: {kind: linear, to: 0.1}}"
    began = process_time()
    load("dler", "tiny", ["train.steps=1000", schedule])
    assert process_time() - began < 2  # a tenth of that; a minute and more where each step looks at all


def test_plan_sees_the_least_temperature_and_the_most_rollouts_of_a_schedule(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cold = load("dler", "tiny", ["schedule={sampler.temperature: {kind: linear, to: 0.005}}"])
    assert "sampler.temperature: 0.005: vLLM samples at 0.01 at the least; set that" in plan(cold, LAPTOP).blockers
    fewer = load("dler", "tiny", ["select={kind: shortest, keep: 2}", "schedule={select.keep: {kind: linear, to: 6}}"])
    assert step_work(fewer).rows_per_update == 24 * 6
    whole = load("dler", "tiny", ["select={kind: shortest, keep: 8}", "schedule={select.keep: {kind: linear, to: 4}}"])
    assert not any("every rollout trains" in line for line in plan(whole, LAPTOP).warnings)


def test_a_schedule_is_changed_on_the_command_line_by_the_name_of_its_number():
    changed = load("curriculum", "tiny", ["schedule.budget.limit.share=0.5", "schedule.learner.lr={kind: linear, to: 0.0001}"]).schedule
    assert changed == {"budget.limit": Decays(kind="decays", share=0.5, count=3), "learner.lr": Linear(kind="linear", to=1e-4)}


def test_another_kind_takes_what_both_know_and_forgets_the_rest(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        'extends: da_dler\nmodel: {path: tiny}\ndata: {instruction: "{budget}"}\nbudget: {kind: prompt, least: 0.9}\n'
    )
    budget = load(str(tmp_path / "mine.yaml")).budget
    assert budget == PromptBudget(kind="prompt", limit=4000, least=0.9)


def test_each_prompt_is_given_its_own_limit():
    problem = Problem("p", "", "", columns={"asked": "70", "reference_tokens": 300, "none": None})
    assert request_limit(ConstantBudget(limit=104), problem, 1) == 104
    assert request_limit(PromptBudget(kind="prompt", limit=104, column="asked"), problem, 1) == 70
    assert request_limit(PromptBudget(kind="prompt", limit=60, column="asked"), problem, 1) == 60
    assert request_limit(ReferenceBudget(kind="reference", limit=104, share=0.25), problem, 1) == 75
    drawn = [request_limit(PromptBudget(kind="prompt", limit=104, least=100 / 104), problem, seed) for seed in range(200)]
    assert set(drawn) == {100, 101, 102, 103, 104} and drawn == [
        request_limit(PromptBudget(kind="prompt", limit=104, least=100 / 104), problem, seed) for seed in range(200)
    ]
    with pytest.raises(ValueError, match=r"budget\.column none holds None, no number of tokens"):
        request_limit(PromptBudget(kind="prompt", limit=60, column="none"), problem, 1)


@pytest.mark.parametrize("of", [100, 4000])
def test_a_share_of_tokens_is_that_many_for_whoever_asks(of: int):
    """0.29 x 100 is 28.999999999999996 to a machine, 0.57 and 0.58 likewise."""
    problem = Problem("p", "", "", columns={"reference_tokens": of})
    for percent in range(1, 101):
        share, tokens = percent / 100, percent * of // 100
        reference = ReferenceBudget(kind="reference", limit=of, share=share, least=0.0)
        controller = ControllerBudget(kind="controller", limit=of, least=share)
        ladder = DifficultyBudget.model_validate({"kind": "difficulty", "limit": of, "ladder": [{"share": share}]})
        outlier = OutlierBudget(kind="outlier", limit=of, least_cut=share)
        all_G = np.ones(2, dtype=bool)
        asked = {
            "reference": request_limit(reference, problem, 1),
            "controller": stated_limit(controller, share),
            "least": controller.least_limit,
            "ladder": group_limit(ladder, of, np.array([1, 1]), all_G, all_G),
            "thinking": ThinkingBudget(kind="thinking", limit=of, share=share).thinking_tokens,
            "outlier": outlier.cut_tokens,
            "room": ConstantBudget(limit=of, room=1 + share).most_tokens - of,
            "schedule": value_at(Linear(kind="linear", share=share), of, 9, 10),
        }
        assert asked == dict.fromkeys(asked, tokens), percent


def test_dot_cuts_an_outlier_among_right_answers_only():
    """arXiv 2601.03969: 15 lengths 1000..1280 and one of 6000, alpha 3."""
    tokens_G, right_G = np.array([*range(1000, 1300, 20), 6000]), np.ones(16, dtype=bool)
    assert dot_limit(tokens_G, right_G, 3.0) == 5097
    assert dot_limit(tokens_G, np.arange(16) > 0, 3.0) is None  # one is wrong
    assert dot_limit(tokens_G, right_G, 3.0, least_cut=903) == 5097 and dot_limit(tokens_G, right_G, 3.0, least_cut=904) is None
    twice_G = np.array([*range(1000, 1620, 20), 6000])
    assert dot_limit(twice_G, np.ones(32, dtype=bool), 3.0) == 3996


def test_toggle_limits_every_second_phase_by_a_percentile_of_right_lengths():
    """recent.md 4: right lengths 800 to 2000, percentiles 1000, 1280, 1640; one wrong of four, percentile 50."""
    lengths = [800, 900, 1000, 1100, 2000]
    assert [percentile_limit(lengths, rho) for rho in (50, 80, 90)] == pytest.approx([1000, 1280, 1640])
    budget = {"kind": "toggle", "limit": 4000, "period": 10, "percentile": 50, "accuracy": 0.5}
    recipe = Recipe.model_validate({"budget": budget, "train": {"steps": 40}})
    control = Control(recipe)
    control.after(0, 0.5, 0.0, [500, 900, 1500])
    tokens_G, right_G, all_G = np.array([500, 1500, 900, 3000]), np.array([1, 1, 1, 0], dtype=bool), np.ones(4, dtype=bool)
    limits = [group_limit(control.budget(recipe.budget, step), 4000, tokens_G, right_G, all_G) for step in (0, 9, 10, 19, 20)]
    assert limits == [4000, 4000, 900, 900, 4000]
    assert group_limit(control.budget(recipe.budget, 10), 4000, tokens_G, np.array([1, 0, 0, 0], dtype=bool), all_G) == 4000
    again = Control(recipe)
    again.restore(control.state())
    assert again.budget(recipe.budget, 10) == control.budget(recipe.budget, 10)
    control.rights = [10, 20, 30, 40]  # whose percentile 70 is 30.999999999999996 to a machine
    limited = control.budget(recipe.budget.model_copy(update={"percentile": 70.0}), 10)
    assert group_limit(limited, 4000, tokens_G, right_G, all_G) == 31


def test_toggle_waits_for_its_warmup_and_then_limits_every_second_phase():
    """recent.md 4: phases of 10 steps and a warm-up of 100 are first limited at 110 to 119."""
    recipe = Recipe.model_validate({"budget": {"kind": "toggle", "limit": 4000, "period": 10, "warmup": 100}, "train": {"steps": 140}})
    control = Control(recipe)
    control.rights = [800, 900]
    tokens_G, all_G = np.array([100, 4000]), np.ones(2, dtype=bool)
    limited = [step for step in range(140) if group_limit(control.budget(recipe.budget, step), 4000, tokens_G, all_G, all_G) < 4000]
    assert limited == [*range(110, 120), *range(130, 140)]


def test_leashs_multiplier_follows_the_mean_of_all_rollouts():
    """arXiv 2512.21540: lambda 0.1, gain 0.005, target 4096."""
    settings = LeashTerm(kind="leash")
    excess = np.mean(np.array([3000, 6144, 16384, 2000, 12288]) / 4096) - 1
    assert excess == pytest.approx(0.9441, abs=1e-4)
    assert next_lambda(0.1, excess, settings) == pytest.approx(0.104721, abs=1e-6)
    runaway = np.mean(np.array([2000] * 7 + [20000]) / 4096) - 1  # one of eight keeps the pressure on all
    assert runaway == pytest.approx(0.0376, abs=1e-4) and next_lambda(0.1, runaway, settings) > 0.1
    assert next_lambda(0.0, -1.0, settings) == 0.0 and next_lambda(1.0, 9.0, settings) == 1.0


def test_leashs_multiplier_overshoots_as_in_the_published_run():
    """Its 498 mean lengths are known at these steps; between them a line is drawn, which leaves the published trace by less than 0.04."""
    steps, tokens = [1, 50, 100, 149, 200, 300, 400, 500], [8621, 7884, 6003, 4550, 3070, 2494, 2094, 2150]
    published = {1: 0.1055, 10: 0.1541, 50: 0.3516, 100: 0.5246, 149: 0.5806, 200: 0.5489, 300: 0.3821, 400: 0.1605, 500: 0.0}
    now, trace = 0.1, {}
    for step in range(1, 501):
        now = trace[step] = next_lambda(now, np.interp(step, steps, tokens) / 4096 - 1, LeashTerm(kind="leash"))
    assert trace[1] == pytest.approx(published[1], abs=5e-5)
    assert {step: trace[step] for step in published} == pytest.approx(published, abs=0.04)
    assert abs(max(trace, key=trace.get) - 149) < 20  # by then lengths are on target, and they fall to half of it


def test_the_controller_is_the_integrator_of_the_worked_example():
    """recent.md 5.4: floor .60, gain .5, bound .2, mean .62 at the start; lambda is -log share."""
    settings = ControllerBudget(kind="controller", limit=1000, measure=1, within=0.02, smooth=0.8, gain=0.5, pace=9.0, least=exp(-0.2))
    floor = next_floor(Floor(), 0.62, settings)
    mean, share = [], []
    for accuracy in (0.62, 0.63, 0.61, 0.55, 0.54, 0.60, 0.62):
        floor = next_floor(floor, accuracy, settings)
        mean.append(floor.accuracy)
        share.append(-log(floor.share))
    assert mean == pytest.approx([0.6200, 0.6220, 0.6196, 0.6057, 0.5925, 0.5940, 0.5992], abs=5.1e-5)
    assert share == pytest.approx([0.0100, 0.0210, 0.0308, 0.0336, 0.0299, 0.0269, 0.0265], abs=5.1e-5)
    for _ in range(100):
        floor = next_floor(floor, 1.0, settings)
    assert -log(floor.share) == pytest.approx(0.2)


def test_the_controller_lowers_the_limit_while_accuracy_is_above_its_floor_and_no_further():
    settings = ControllerBudget(kind="controller", limit=100, measure=2, within=0.02, smooth=0.8, gain=0.5, pace=0.05, least=0.5)
    floor = Floor()
    for accuracy in (0.60, 0.64):
        floor = next_floor(floor, accuracy, settings)
    assert floor == Floor(1.0, 2, 0.62, 0.62)
    trace = []
    for accuracy in (0.63, 0.61, 0.55, 0.54, 0.60, 0.62):
        floor = next_floor(floor, accuracy, settings)
        trace.append(floor.accuracy)
    assert trace == pytest.approx([0.6220, 0.6196, 0.6057, 0.5925, 0.5940, 0.5992], abs=1e-4)  # the mean of methods' worked example
    assert floor.share < 1
    high = low = Floor(1.0, 2, 0.62, 0.62)
    for _ in range(200):
        high, low = next_floor(high, 0.9, settings), next_floor(low, 0.1, settings)
    assert high.share == pytest.approx(0.5) and low.share == 1.0  # at the bounds
    assert next_floor(high, -9.0, settings).share > high.share  # and off them at once


def group_of(lengths, right):
    """A judged group of rollouts of these lengths, the first `right` of them right."""
    request = Request("r", Problem("p", "", ""), (1,), len(lengths), 99, 1.0, 1.0, 0)
    rollouts = []
    for index, length in enumerate(lengths):
        ids = np.zeros(length, np.int32)
        completion = Completion(ids, ids.astype(np.float32), "stop", ids)
        rollouts.append(Rollout(str(index), index, completion, "", None, Verdict("right" if index < right else "wrong", "")))
    return Group(request, rollouts)


@pytest.mark.parametrize(("form", "limits"), [("code", [5120, 7168, 16000]), ("paper", [5120, 6144, 16000])])
def test_laser_d_covers_a_class_with_the_least_length_of_its_grid(form, limits):
    """core.md 5.9, 8 rollouts: of easy responses .1 fit into 4096 and .3 into 5120, of medium ones .4 into 6144 and .5 into 7168, no hard one but 16384."""
    easy = [4000, *[5000] * 2, *[9000] * 7]
    medium = [*[6000] * 4, 7000, *[16000] * 5]
    hard = [16000] * 8
    budget = CoverageBudget(kind="coverage", limit=4096, room=4.0, form=form)

    def classed(lengths, right):
        return [group_of((lengths * 4)[8 * index : 8 * index + 8], right) for index in range(5)]  # 40 responses: four times the ten

    groups = [*classed(easy, 6), *classed(medium, 3), group_of(hard, 1)]
    assert covering(groups, budget) == limits
    assert covering([group_of(hard, 1)], budget) == [16000, 16000, 16000]  # classes without a problem: the longest
    assert covering([group_of([50] * 8, 8)], budget) == [4096, 4096, 4096]  # never below the limit


def test_a_group_is_rewarded_under_the_limit_of_its_class():
    """LASER-D's reward side counts the thirds themselves with the class above."""
    recipe = Recipe.model_validate({"budget": {"kind": "coverage", "limit": 100, "room": 4.0}, "sampler": {"group_size": 6}})
    control = Control(recipe)
    tokens_G, all_G = np.full(6, 50), np.ones(6, dtype=bool)
    assert group_limit(control.budget(recipe.budget, 0), 100, tokens_G, all_G, all_G) == 100  # nothing was looked at yet
    control.restore(control.state() | {"covers": [110, 220, 330]})
    budget = control.budget(recipe.budget, 0)
    limits = [group_limit(budget, 100, tokens_G, np.arange(6) < right, all_G) for right in range(7)]
    assert limits == [330, 330, 220, 220, 110, 110, 110]


@pytest.mark.parametrize(("share", "covers"), [(0.2, [150, 250, 390]), (3.0, [100, 150, 390])])
def test_limits_of_classes_stay_within_the_limits_of_the_step(share: float, covers: list[int]):
    recipe = load(
        "laser_d", "tiny", ["budget.limit=100", "budget.room=4.0", f"schedule={{budget.limit: {{kind: linear, share: {share}}}}}"]
    )
    control = Control(recipe)
    control.restore(control.state() | {"covers": covers})
    for step in (0, recipe.train.steps // 2, recipe.train.steps - 1):
        now = recipe.at(step).budget
        limits = [limit for _, limit in control.budget(now, step).steps]
        assert limits == [min(max(cover, now.limit), now.most_limit) for cover in covers]
        trace = control.after(step, 0.5, None)
        assert [trace[f"budget/{name}"] for name in ("easy", "medium", "hard")] == limits
    assert limits != covers


def test_a_grid_finer_than_a_token_is_one_of_tokens_up_to_the_longest():
    fine = CoverageBudget(kind="coverage", limit=100, room=1e12, grid=1e-12)
    assert covering([group_of([100, 101, 105, 110, 111, 112, 130, 140], 8)], fine)[0] == 101
    whole = CoverageBudget(kind="coverage", limit=100, room=4.0, grid=0.01)
    groups = [group_of([150, 161, 175, 180, 191, 202, 230, 240], 1)]
    assert covering(groups, fine) == covering(groups, whole)


def test_problems_sampled_apart_are_the_same_at_every_look_and_none_of_them_trains_in_the_step():
    numbers = [Problem(f"p{row}", f"q{row}", str(row)) for row in range(10)]
    for rows, at in ((None, lambda position: Problem(f"p{position}", f"q{position}", "1")), (10, lambda position: numbers[position % 10])):
        budget = {"kind": "controller", "limit": 100, "room": 2.0, "watch": 0.5, "every": 3}
        recipe = Recipe.model_validate({"budget": budget, "sampler": {"prompts": 12}})
        stream = PromptStream(Source("numbers", at, rows=rows), template(), recipe)
        stream.control.floor = Floor(share=0.4)
        looks = {step: stream.watched(step) for step in (0, 1, 2, 3)}
        assert not looks[1] and not looks[2] and stream.position == 0
        assert [request.problem.id for request in looks[0]] == [request.problem.id for request in looks[3]]
        assert len({request.problem.id for request in looks[0]}) == 6
        assert [request.seed for request in looks[0]] != [request.seed for request in looks[3]]
        assert {(request.limit, request.max_tokens) for request in looks[3]} == {(40, 200)}  # what is asked for, and room beyond it
    few = Recipe.model_validate({"budget": budget | {"watch": 4.0}, "sampler": {"prompts": 12}})
    assert len(PromptStream(Source("numbers", at, rows=10), template(), few).watched(0)) == 10


def test_a_controller_that_watches_takes_its_accuracy_from_there_alone():
    recipe = Recipe.model_validate({"budget": {"kind": "controller", "limit": 100, "watch": 1.0, "measure": 1}})
    control = Control(recipe)
    seen = control.watched(0, [group_of([30] * 4, 3), group_of([50] * 4, 2)])
    assert seen == {"monitor/accuracy": 0.625, "monitor/length": 40.0}
    assert control.after(0, 0.1, 0.0)["budget/accuracy"] == 0.625
    control.watched(1, [group_of([30] * 4, 4)])
    assert control.floor.steps == 2 and control.floor.share < 1
    assert control.watched(2, []) == {} and control.floor.steps == 2  # no verdict: nothing is known


def test_the_share_of_a_step_is_what_held_in_it_and_a_step_without_verdicts_moves_nothing():
    for watch in (0.0, 1.0):
        recipe = Recipe.model_validate({"budget": {"kind": "controller", "limit": 100, "watch": watch, "measure": 1}})
        control = Control(recipe)
        for step in range(4):
            if watch:
                control.watched(step, [group_of([30] * 4, 3)])
            held = control.floor.share
            assert control.after(step, 0.75, None)["budget/share"] == held
        assert control.floor.share < 1
    before = control.state()
    assert Control(recipe).after(0, None, None)["budget/accuracy"] == 0.0
    leash = Recipe.model_validate({"budget": {"kind": "controller"}, "reward": [{"kind": "verdict", "wrong": -1.0}, {"kind": "leash"}]})
    control = Control(leash)
    before = control.state()
    assert control.after(0, None, None)["reward/lambda"] == 0.1 and control.state() == before


def test_what_prompts_of_an_evaluation_state_is_what_the_controller_leaves_of_the_limit():
    controller = Recipe.model_validate({"budget": {"kind": "controller", "limit": 100, "least": 0.2}}).budget
    assert [stated_limit(controller, share) for share in (1.0, 0.418, 0.01)] == [100, 41, 20]
    assert stated_limit(Recipe.model_validate({"budget": {"limit": 100}}).budget, 0.5) == 100
