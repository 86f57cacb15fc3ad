"""Budgets that hold together (`budget.also`): one limit for a request, one for a group, bounds over all of them, and what is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from launch.explain import explain
from launch.plan import plan
from recipes.budgets import Budget, ControllerBudget, CoverageBudget, DifficultyBudget, OutlierBudget, ThinkingBudget, ToggleBudget
from recipes.loader import RecipeError, dump, in_stage, load, on_device, recipe_hash
from recipes.schema import Recipe
from rollout.budget import Control, Floor, Held, Tiers, covering, group_limit, request_limit, thinking_limit
from rollout.collector import PromptStream
from rollout.sources import Source
from rollout.types import Problem
from tests.scripted import template
from tests.unit.test_budgets import group_of

LADDER = {"kind": "difficulty", "ladder": [{"at_least": 0.5, "share": 0.5}, {"share": 0.75}]}
ALL = [
    {"kind": "coverage", "watch": 0.5, "every": 2},
    LADDER,
    {"kind": "toggle", "period": 1, "accuracy": 0.5},
    {"kind": "outlier", "alpha": 1.5},
    {"kind": "thinking", "share": 0.25},
]


def made(kind: str, *also: dict[str, Any], **numbers: Any) -> Budget:
    return TypeAdapter(Budget).validate_python({"kind": kind, "limit": 100, "also": list(also), **numbers})


def refusal(*words: str, name: str = "dler") -> str:
    with pytest.raises(RecipeError) as error:
        load(name, "tiny", list(words))
    return str(error.value)


def test_a_request_is_given_the_least_of_what_the_kinds_say_and_thinking_its_share_of_that():
    problem = Problem("p", "", "", columns={"asked": 70, "reference_tokens": 90})
    column, reference = {"kind": "prompt", "column": "asked"}, {"kind": "reference", "share": 0.5}
    controller, thinking = {"kind": "controller", "least": 0.2}, {"kind": "thinking", "share": 0.5}
    assert request_limit(made("prompt", reference, column="asked"), problem, 1) == 45
    assert request_limit(made("reference", column, share=1.0), problem, 1) == 70
    budget = made("controller", column, thinking, least=0.2)
    assert [request_limit(budget, problem, 1, share) for share in (1.0, 0.6, 0.1)] == [70, 60, 20]
    assert thinking_limit(budget, 60) == 30 and thinking_limit(made("toggle"), 60) is None
    budget = made("toggle", controller)
    assert [request_limit(budget, problem, 1, share) for share in (1.0, 0.6, 0.1)] == [100, 60, 20]


def test_after_sampling_coverage_raises_a_rung_is_a_share_of_that_and_a_toggle_lowers_it():
    budget = made("controller", *ALL, room=2.0, watch=0.5, every=2)
    tokens_G, ended_G = np.array([150, 150, 150, 150]), np.ones(4, dtype=bool)
    covers = Tiers(((2 / 3, 120), (1 / 3, 160), (0.0, 200)))
    toggled = Tiers(((0.5, 70), (0.0, 200)))
    right = {count: np.arange(4) < count for count in (0, 2, 4)}
    assert [group_limit(Held(budget, covers), 100, tokens_G, right_G, ended_G) for right_G in right.values()] == [
        150,  # of 200, which all are within, three quarters: none is right
        80,  # of 160, half: half are right
        90,  # of 120, which none is within, three quarters
    ]
    assert [group_limit(Held(budget, covers, toggled), 100, tokens_G, right_G, ended_G) for right_G in right.values()] == [150, 70, 70]
    assert group_limit(Held(budget, covers), 50, tokens_G // 2, right[2], ended_G) == 40  # a controller left half: coverage says 1.6 of it
    assert group_limit(Held(budget), 100, tokens_G // 2, right[4], ended_G) == 50  # before the first look


def test_a_toggle_leaves_groups_that_are_seldom_right_what_coverage_gave_them():
    recipe = Recipe.model_validate({"budget": made("toggle", {"kind": "coverage"}, period=1, accuracy=0.5, room=2.0).model_dump()})
    control = Control(recipe)
    control.restore(control.state() | {"rights": [50], "covers": [110, 150, 200]})
    tokens_G, ended_G = np.full(4, 120), np.ones(4, dtype=bool)
    limits = [group_limit(control.budget(recipe.budget, 1), 100, tokens_G, np.arange(4) < right, ended_G) for right in (1, 2)]
    assert limits == [200, 50]


def test_the_order_in_which_a_recipe_names_them_changes_nothing():
    first = made("toggle", {"kind": "coverage"}, LADDER, room=2.0)
    second = made("difficulty", {"kind": "toggle"}, {"kind": "coverage"}, room=2.0, ladder=LADDER["ladder"])
    assert (first.beyond(), first.least_limit, first.most_limit) == (second.beyond(), second.least_limit, second.most_limit)
    covers, toggled = Tiers(((0.0, 180),)), Tiers(((0.0, 170),))
    tokens_G, all_G = np.array([150, 190]), np.ones(2, dtype=bool)
    assert {group_limit(Held(one, covers, toggled), 100, tokens_G, all_G, all_G) for one in (first, second)} == {90}


def test_a_schedule_of_the_limit_moves_that_of_all_kinds():
    recipe = load("dler", "tiny", ["budget.also=[{kind: controller}, {kind: thinking}]", "schedule.budget.limit={kind: linear, to: 52}"])
    last = recipe.at(recipe.train.steps).budget
    assert [part.limit for part in last.parts] == [52, 52, 52]
    assert all(not part.also for part in last.parts)


def test_kinds_that_watch_look_at_the_same_problems_once_and_each_takes_in_what_it_saw():
    coverage = CoverageBudget(kind="coverage", limit=104, room=4.0, watch=0.5, every=2)
    words = ["budget={kind: controller, room: 4.0, watch: 0.5, every: 2, measure: 1, also: [{kind: coverage, watch: 0.5, every: 2}]}"]
    recipe = load("dler", "tiny", words)
    source = Source("numbers", lambda position: Problem(f"p{position}", f"q{position}", "1"))
    stream = PromptStream(source, template(), recipe)
    assert [len(stream.watched(step)) for step in (0, 1, 2)] == [12, 0, 12]  # half of 24 prompts
    stream.control.watched(0, [group_of([30, 150], 1), group_of([50, 390], 2)])
    assert stream.control.floor.start == 0.75 and stream.control.covers == covering(
        [group_of([30, 150], 1), group_of([50, 390], 2)], coverage
    )
    apart = load("dler", "tiny", ["budget={kind: controller, room: 4.0, also: [{kind: coverage, watch: 0.5, every: 2}]}"])
    control = Control(apart)
    assert control.after(0, 0.5, None)["budget/floor"] == pytest.approx(0.48)  # its own accuracy is that of what trains
    assert control.floor.steps == 1


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    shares = st.sampled_from([0.04, 0.25, 0.3, 0.5, 0.67, 0.75, 0.9, 1.0])
    kinds: list[dict[str, Any]] = [
        {"kind": "controller", "least": draw(st.sampled_from([0.0, 0.1, 0.55, 1.0]))},
        {"kind": "prompt", "least": draw(st.sampled_from([0.03, 0.4]))},
        {"kind": "coverage", "watch": 1.0},
        {"kind": "difficulty", "ladder": [{"at_least": 0.5, "share": draw(shares)}, {"share": draw(shares)}]},
        {"kind": "toggle"},
        {"kind": "thinking"},
    ]
    chosen = draw(st.lists(st.sampled_from(range(len(kinds))), min_size=1, max_size=4, unique=True))
    first, *also = [kinds[index] for index in chosen]
    limit, room = draw(st.integers(25, 60)), draw(st.sampled_from([1.0, 1.05, 1.5, 2.0]))
    return TypeAdapter(Budget).validate_python({**first, "limit": limit, "room": room, "also": also})


@given(budget=budgets())
@settings(max_examples=120, deadline=None)
def test_bounds_of_a_limit_are_the_worst_over_all_kinds_of_every_request_and_every_group(budget: Budget):
    asked = range(budget.least_request, budget.limit + 1) if {"controller", "prompt"} & {*budget.kinds} else [budget.limit]
    covers = [None, *(Tiers(((0.0, limit),)) for limit in (budget.limit, budget.most_tokens))] if budget.part(CoverageBudget) else [None]
    toggled = [None, Tiers(((0.0, 1),))] if budget.part(ToggleBudget) else [None]
    met = []
    for limit in asked:
        most = budget.sampled(limit)
        for cover in covers:
            for toggle in toggled:
                for right in (0, 1):
                    group = np.array([1, 1]), np.full(2, bool(right)), np.ones(2, dtype=bool)
                    held = group_limit(Held(budget, cover, toggle), limit, *group)
                    assert budget.least_limit <= held <= budget.most_limit
                    met.append((most / held, most - held, held))
    times, above = budget.beyond()
    assert max(more for _, more, _ in met) == above and min(held for *_, held in met) == budget.least_limit
    worst = max(ratio for ratio, *_ in met)
    assert worst <= times + 1e-9
    if len(asked) == 1 or budget.part(ToggleBudget):  # of several limits, whole tokens hide how near the bound is met
        assert worst == pytest.approx(times)


def test_a_reward_that_keeps_right_before_wrong_under_each_kind_and_not_under_both_is_refused():
    words = ["reward=[{kind: verdict}, {kind: alp, gate: right, weight: 0.5}]"]
    load("grpo", "tiny", [*words, "budget={kind: controller, room: 1.5}"])
    rung = "{kind: difficulty, ladder: [{at_least: 0.5, share: 0.6}, {}]}"
    load("grpo", "tiny", [*words, f"budget={rung}"])
    assert "right must beat wrong" in refusal(*words, f"budget={{kind: controller, room: 1.5, also: [{rung}]}}", name="grpo")


@pytest.mark.parametrize(
    ("also", "said"),
    [
        ("[{kind: toggle, limit: 3}]", "budget.also[0].limit: budget.limit is that of all kinds; leave it out here"),
        ("[{kind: toggle}, {kind: outlier, cut: mask}]", "budget.also[1].cut: budget.cut is that of all kinds; leave it out here"),
        ("[{kind: toggle, also: [{kind: outlier}]}]", "budget.also[0].also: further kinds stand side by side; leave it out here"),
        ("[{kind: toggle}, {kind: toggle}]", "budget.also[1].kind: toggle is there already; each kind holds once"),
        ("[{kind: controller}]", "budget.also[0].kind: controller is there already; each kind holds once"),
        ("[{kind: constant}]", 'budget.also[0].kind: "constant" is not allowed; needs one of difficulty, prompt'),
        ("[{period: 3}]", "budget.also[0].kind: missing; needs one of difficulty, prompt"),
        ("[toggle]", 'budget.also[0]: "toggle" is not allowed; needs a mapping of keys'),
        ("[{kind: toggle, perod: 3}]", "budget.also[0].perod: unknown key. Did you mean budget[toggle].period?"),
        ("[{kind: toggle, period: 0}]", "budget.also[0].period: 0 is not allowed; needs a whole number, at least 1"),
        ("[{kind: outlier, alpha: 9}]", "budget.also[0].alpha: 9: among 8 rollouts none lies more than 2.475 deviations"),
        ("[{kind: coverage, watch: 0.01}]", "budget.also[0].watch: 0.01 x sampler.prompts 24 is not one problem"),
        ("[{kind: difficulty, ladder: [{share: 0.001}]}]", "budget.also[0].ladder: a share of limit 104 is less than one token"),
    ],
)
def test_what_cannot_hold_beside_a_first_kind_is_refused_where_it_stands(also: str, said: str):
    assert said in refusal("budget.kind=controller", f"budget.also={also}")


def test_two_kinds_that_watch_apart_are_refused_by_name():
    said = refusal("budget={kind: controller, watch: 1.0, also: [{kind: coverage, watch: 2.0}]}")
    assert "budget.also: controller and coverage look at the same problems" in said and "watch is 1 every 1 and 2 every 20" in said


def test_what_a_further_kind_asks_of_the_prompts_and_of_the_schedule_is_said_by_its_name():
    states = "data.instruction=At most {budget} tokens."
    assert "but budget.also[0].kind toggle decides it after sampling; take it out" in refusal(states, "budget.also=[{kind: toggle}]")
    model = ["model.path=owner/name", "stages=[rl]"]
    assert "budget.kind prompt gives each prompt its own limit" in refusal(*model, "budget.also=[{kind: prompt}]")
    said = refusal(*model, states, "budget={kind: toggle, also: [{kind: prompt}]}")
    assert "budget.also: prompt gives each prompt a limit that it must state, and toggle decides another after sampling" in said
    said = refusal("budget.also=[{kind: thinking}]", "schedule.budget.share={kind: linear, to: 0.1}")
    assert "budget.share: is a number of thinking in budget.also, which stays; make thinking the first kind (budget.kind)" in said
    said = refusal("budget.also=[{kind: controller}]", "schedule.budget.least={kind: linear, to: 0.1}")
    assert "budget.least cannot move" in said  # in the first kind neither
    said = refusal(
        "budget={limit: 100, also: [{kind: difficulty, ladder: [{share: 0.05}]}]}", "schedule.budget.limit={kind: linear, to: 9}"
    )
    assert "is not allowed" in said and "less than one token" in said


def test_a_recipe_with_several_budgets_is_written_and_read_alike_and_one_without_says_nothing_of_them():
    recipe = load("dler", "tiny", ["budget={kind: controller, room: 2.0, also: [{kind: toggle, period: 7}, {kind: outlier, alpha: 1.5}]}"])
    again = Recipe.model_validate(recipe.model_dump(mode="json"))
    assert again == recipe and recipe_hash(again) == recipe_hash(recipe)
    assert "also:\n  - kind: toggle\n    period: 7\n" in dump(recipe) and dump(recipe).count("cut_stop") == 1
    toggle, outlier = recipe.budget.part(ToggleBudget), recipe.budget.part(OutlierBudget)
    assert toggle and outlier and (toggle.room, toggle.period, outlier.alpha) == (2.0, 7, 1.5)
    assert recipe.budget.part(DifficultyBudget) is None and isinstance(recipe.budget, ControllerBudget)
    assert "also" not in load("dler", "tiny").budget.model_dump()


def test_parents_of_two_kinds_are_refused_and_told_where_the_other_one_goes(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: [toggle, controller]")
    with pytest.raises(
        RecipeError, match=r"write budget.kind in mine to settle it, and the other kind in budget.also, where both are to hold"
    ):
        load(str(path))
    path.write_text("extends: [toggle, controller]\nbudget: {kind: toggle, also: [{kind: controller, watch: 1.0, every: 2}]}")
    recipe = load(str(path), "tiny")
    assert recipe.budget.kinds == ("toggle", "controller") and recipe.budget.watching is not None


@pytest.mark.parametrize(
    ("text", "first", "also"),
    [
        ("extends: [toggle, controller]\nbudget: {kind: toggle, also: [{kind: controller}]}", {"period": 10}, {"watch": 1.0, "every": 2, "measure": 1}),
        ("extends: [controller, toggle]\nbudget: {kind: controller, also: [{kind: toggle}]}", {"watch": 1.0, "every": 2}, {"period": 10}),
        ("extends: [toggle, controller]\nbudget: {kind: toggle, also: [{kind: controller, watch: 0.5}]}", {}, {"watch": 0.5, "every": 2, "measure": 1}),
        ("extends: toggle\nbudget: {kind: outlier, alpha: 1.5, also: [{kind: toggle}]}", {"alpha": 1.5}, {"period": 10, "warmup": 0}),
        ("extends: [dot, controller]\nbudget: {kind: controller, also: [{kind: outlier}]}", {"measure": 1}, {"alpha": 2.0}),
        ("extends: base.yaml\nbudget: {also: [{kind: controller}]}", {"period": 10}, {"gain": 0.75}),
        ("extends: base.yaml\nbudget: {kind: controller, also: [{kind: toggle}]}", {"gain": 0.75}, {"period": 10}),
        ("extends: dler\nbudget: {kind: toggle, also: [{kind: controller}]}", {"period": 50}, {"watch": 0.0, "measure": 5}),
    ],
)  # fmt: skip
def test_what_was_said_for_a_kind_of_budget_holds_for_it_wherever_it_stands_now(tmp_path, text: str, first: dict, also: dict):
    (tmp_path / "base.yaml").write_text("extends: toggle\nbudget: {also: [{kind: controller, gain: 0.75}]}")
    (tmp_path / "mine.yaml").write_text(text)
    recipe = load(str(tmp_path / "mine.yaml"), "tiny")
    one, other = recipe.budget.parts
    assert {name: getattr(one, name) for name in first} == first and {name: getattr(other, name) for name in also} == also
    (tmp_path / "again.yaml").write_text(dump(recipe))
    assert load(str(tmp_path / "again.yaml")).budget == recipe.budget


def test_what_a_recipe_says_for_a_kind_holds_in_a_stage_and_on_a_gpu_where_it_stands_in_also(tmp_path):
    turned = "{budget: {kind: toggle, also: [{kind: controller}]}}"
    (tmp_path / "mine.yaml").write_text(f"extends: controller\non_cuda: {turned}\nstages: [rl, {{kind: rl, name: two, changes: {turned}}}]")
    recipe = load(str(tmp_path / "mine.yaml"), "tiny")
    for there in (in_stage(recipe, 1), on_device(recipe, "cuda")):
        controller = there.budget.part(ControllerBudget)
        assert there.budget.kinds == ("toggle", "controller") and controller and (controller.watch, controller.measure) == (1.0, 1)


def test_plan_says_how_each_kind_decides_and_warns_of_each_by_its_place():
    words = [
        "budget={kind: controller, measure: 40, also: [{kind: toggle, period: 50}, {kind: thinking, share: 0.5}, {kind: difficulty, ladder: [{at_least: 0.5, share: 0.5}, {}]}]}",
        "reward=[{kind: verdict}]",
    ]
    made = plan(load("grpo", "tiny", words))
    text, warned = explain(made), "\n".join(made.warnings)
    assert text.count("\nlimit    ") == 4 and "0.5 x what the other kinds leave where at least 50% are right" in text
    assert "thinking is closed after 0.5 x what the other kinds leave, at most 52 tokens" in text and "in every second 50 steps" in text
    assert "budget.measure: 40 looks" in warned and "budget.also[0].period: a phase with a limit is not in this run" in warned
    assert "budget.also[0].kind: toggle: its limits say nothing, as no term of the reward reads a limit" in warned


def test_all_that_the_kinds_know_is_in_one_state():
    recipe = Recipe.model_validate(
        {"budget": {"kind": "controller", "limit": 100, "room": 2.0, "watch": 0.5, "every": 2, "measure": 1, "also": ALL}}
    )
    control = Control(recipe)
    control.floor, control.covers, control.rights = Floor(0.5, 3, 0.6, 0.5), [120, 150, 200], [40, 50, 60]
    again = Control(recipe)
    again.restore(control.state())
    assert again.budget(recipe.budget, 1) == control.budget(recipe.budget, 1)
    assert again.after(1, 0.5, None, [70]) == control.after(1, 0.5, None, [70])
    assert again.state() == control.state() and again.rights == [40, 50, 60, 70]
    assert isinstance(recipe.budget.part(ThinkingBudget), ThinkingBudget)


def test_plan_counts_one_step_and_few_tokens_in_words():
    words = ["train.steps=1", "sampler.prompts=4", "eval.every=1", "reward=[{kind: verdict}, {kind: truncate}]"]
    budget = "budget={kind: controller, watch: 1, every: 1, also: [{kind: toggle, period: 1}]}"
    made = plan(load("grpo", "tiny", [*words, budget]))
    text = explain(made)
    assert "in every second step (not in this run)" in text and "4 problems sampled apart every step (" in text
    assert (
        "run      1 step = 1 update on 32 rollouts; at most 6,656 sampled tokens" in text and text.count("before and after training") == 1
    )
    assert " 1 steps" not in text and "0.0M" not in text and "and every step" not in text  # its one step is the last
    assert "before and after training, and every step" in explain(plan(load("grpo", "tiny", ["train.steps=2", "eval.every=1"])))
