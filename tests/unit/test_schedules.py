"""Numbers that move, and limits of prompts and groups, against the worked examples of their papers."""

from __future__ import annotations

import re
from contextlib import nullcontext
from itertools import pairwise
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.plan import plan, step_work
from recipes.budgets import (
    PromptBudget,
)
from recipes.loader import RecipeError, load
from recipes.schedules import Decays, Exponential, Linear, Stage, Staged, value_at
from recipes.schema import Recipe
from recipes.terms import least_of_right, margin
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
            "schedule={objective.entropy.coef: {kind: linear, to: 2}} objective.entropy.kind=adaptive objective.entropy.target=1 objective.entropy.coef=0.5",
            "schedule: objective.entropy.coef: with objective.entropy.kind adaptive the weight adapts",
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
        ("schedule={advantage.boost: {kind: exponential, factor: 0.5, every: 3}}", "exponential multiplies, and starts at 0"),
        (
            "schedule={advantage.boost: {kind: linear, share: 0.5}}",
            "linear multiplies, and starts at 0; take linear with an end",
        ),
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


MOVING = [
    ("l1_max", {"budget.limit": "{kind: linear, share: 0.3}", "reward.l1_max.weight": "{kind: linear, to: 0.5}"}),
    ("l1_max", {"reward.l1_max.weight": "{kind: linear, to: 0.6, over: 300}", "reward.l1_max.alpha": "{kind: decays, share: 3.0, count: 7}"}),
    ("alp", {"budget.limit": "{kind: exponential, factor: 0.93, every: 5, least: 11}", "reward.alp.weight": "{kind: linear, to: 0.6, drops: 9}"}),
    ("alp", {"reward.verdict.weight": "{kind: linear, to: 0.5}", "reward.alp.weight": "{kind: linear, to: 0.2}"}),
    ("alp", {"reward.alp.weight": "{kind: staged, stages: [{since: 3, value: 0.2}, {since: 250, value: 0.05}]}", "budget.limit": "{kind: linear, to: 20, over: 90}"}),
    ("triangle, gate: right", {"reward.triangle.weight": "{kind: linear, to: 3.0, drops: 40}", "budget.limit": "{kind: linear, to: 200}"}),
]  # fmt: skip


@pytest.mark.parametrize("steps", [1, 2, 7, 400])
@pytest.mark.parametrize(("term", "schedule"), MOVING)
def test_the_steps_that_are_looked_at_hold_the_worst_of_all_steps(term: str, schedule: dict[str, str], steps: int):
    words = f"schedule={{{', '.join(f'{name}: {said}' for name, said in schedule.items())}}}"
    changed = ["budget.room=1.35", "waive=[right_beats_wrong, length_of_wrong]", f"train.steps={steps}"]
    recipe = load("grpo", "tiny", [words, f"reward=[{{kind: verdict}}, {{kind: {term}, weight: 0.1}}]", *changed])
    seen, every = recipe.rewards(), recipe.rewards(range(steps))
    for worst in (
        lambda rewards: min(least_of_right(*held) for held in rewards.values()),
        lambda rewards: min(margin(*held) for held in rewards.values()),
        lambda rewards: max(max(abs(end) for right in (True, False) for end in one.adds(right, case)) for reward, case in rewards.values() for one in reward),
        lambda rewards: max(case.times for _, case in rewards.values()),
        lambda rewards: min(case.limit for _, case in rewards.values()),
    ):  # fmt: skip
        assert worst(seen) == pytest.approx(worst(every), abs=1e-12)


def test_the_first_step_that_breaks_a_rule_is_named_also_where_it_lies_within_a_line():
    words = [
        "schedule={reward.alp.weight: {kind: linear, to: 1.2}}",
        "reward=[{kind: verdict}, {kind: alp, gate: right, weight: 0.2}]",
        "train.steps=1001",
    ]
    with pytest.raises(RecipeError, match=r"schedule: reward.alp.weight: 1 at step 800 is not allowed: wrong answers may earn 0"):
        load("grpo", "tiny", words)


def test_a_check_of_many_steps_looks_at_few_of_them():
    schedule = "schedule={budget.limit: {kind: linear, share: 0.5}, reward.alp.weight: {kind: linear, to: 0.05}, learner.lr: {kind: linear, share: 0.1}}"
    recipe = load("grpo", "tiny", ["train.steps=200000", schedule, "reward=[{kind: verdict}, {kind: alp, gate: right, weight: 0.1}]"])
    assert len(recipe.rewards()) < 3 * 52  # of each of its whole tokens the first step and the last


def test_a_whole_number_stays_above_a_bound_that_is_none():
    schedule = Exponential(kind="exponential", factor=0.5, every=1, least=6.7)
    assert [value_at(schedule, 20, step, 9) for step in (0, 1, 8)] == [20, 10, 7]
    assert value_at(schedule, 20.0, 8, 9) == 6.7


def test_prices_per_token_and_room_for_tokens_are_the_recipes_whatever_the_step():
    recipe = Recipe.model_validate(
        {"budget": {"limit": 128}, "schedule": {"budget.limit": {"kind": "linear", "to": 256}}, "train": {"steps": 5}}
    )
    assert recipe.at(4).budget.limit == 256 and recipe.at(4).unit == recipe.unit == 128
    assert (recipe.budget.most_tokens, recipe.most_tokens) == (128, 256)
