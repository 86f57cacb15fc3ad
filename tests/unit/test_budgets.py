"""Budgets: which limit a prompt, a group or a step is given, by hand examples of the methods and by what moves them."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest

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
from recipes.loader import load
from recipes.schedules import Linear, value_at
from recipes.schema import Recipe
from rewards.profiles import dot_limit, percentile_limit
from rewards.verifier.verdict import Verdict
from rollout.budget import Control, Floor, Held, covering, group_limit, next_floor, next_lambda, request_limit, stated_limit
from rollout.collector import PromptStream
from rollout.sources import Source
from rollout.types import Completion, Group, Problem, Request, Rollout
from tests.scripted import template


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
            "ladder": group_limit(Held(ladder), of, np.array([1, 1]), all_G, all_G),
            "thinking": ThinkingBudget(kind="thinking", limit=of, share=share).closes(of),
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
    again.after(1, 0.5, 0.0, range(5000))
    assert again.rights == [*range(904, 5000)]  # the last 4096
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
    assert next_floor(high, -9.0, settings).share == pytest.approx(0.5 * exp(0.05))  # and off them at once, by no more than the pace
    assert next_floor(Floor(0.8, 2, 0.62, 0.62), 9.0, settings).share == pytest.approx(0.8 * exp(-0.05))


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
        limits = [limit for _, limit in control.budget(now, step).covers.steps]
        assert limits == [min(max(cover, now.limit), now.most_limit) for cover in covers]
        trace = control.after(step, 0.5, None)
        assert [trace[f"budget/{name}"] for name in ("easy", "medium", "hard")] == limits
    assert limits != covers


def test_a_problem_of_just_two_thirds_right_answers_is_of_medium_difficulty():
    grid = CoverageBudget(kind="coverage", limit=100, room=4.0, grid=0.01)  # of 6 rollouts a third is 2: half of the lengths
    assert covering([group_of([110, 120, 130, 140, 150, 160], 4)], grid) == [160, 130, 160]


@pytest.mark.parametrize(("tokens", "finished", "limit"), [([100, 100, 101, 101], 4, 50), ([100] * 4, 1, 75)])
def test_a_rung_is_of_the_share_that_is_right_and_ends_by_itself_within_the_limit(tokens: list[int], finished: int, limit: int):
    budget = DifficultyBudget.model_validate(
        {"limit": 100, "kind": "difficulty", "ladder": [{"at_least": 0.5, "share": 0.5}, {"share": 0.75}]}
    )
    assert group_limit(Held(budget), 100, np.array(tokens), np.ones(4, dtype=bool), np.arange(4) < finished) == limit


def test_a_grid_finer_than_a_token_is_one_of_tokens_up_to_the_longest():
    fine = CoverageBudget(kind="coverage", limit=100, room=1e12, grid=1e-12)
    assert covering([group_of([100, 101, 105, 110, 111, 112, 130, 140], 8)], fine)[0] == 101
    whole = CoverageBudget(kind="coverage", limit=100, room=4.0, grid=0.01)
    groups = [group_of([150, 161, 175, 180, 191, 202, 230, 240], 1)]
    assert covering(groups, fine) == covering(groups, whole)


def test_problems_sampled_apart_are_the_same_at_every_look_and_none_of_them_trains_in_the_step():
    numbers = [Problem(f"p{row}", f"q{row}", str(row)) for row in range(10)]

    def shuffled(position):
        return numbers[(position % 10) * (1, 3)[position // 10 % 2] % 10]  # every other epoch in another order

    for rows, at in ((None, lambda position: Problem(f"p{position}", f"q{position}", "1")), (10, shuffled)):
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
    again = PromptStream(Source("numbers", lambda position: at(position % 7), rows=10), template(), few).watched(0)
    assert len({request.problem.id for request in again}) == len(again) == 7  # as behind a reference that left some out


def test_a_controller_that_watches_takes_its_accuracy_from_there_alone():
    recipe = Recipe.model_validate({"budget": {"kind": "controller", "limit": 100, "watch": 1.0, "measure": 1}})
    control = Control(recipe)
    seen = control.watched(0, [group_of([30] * 4, 3), group_of([50] * 4, 2)])
    assert seen == {"monitor/accuracy": 0.625, "monitor/length": 40.0}
    assert control.after(0, 0.1, 0.0)["budget/accuracy"] == 0.625
    control.watched(1, [group_of([30] * 4, 4)])
    assert control.floor.steps == 2 and control.floor.share < 1
    assert control.watched(2, []) == {} and control.floor.steps == 2  # no verdict: nothing is known
    beside = Control(Recipe.model_validate({"budget": {"kind": "controller", "measure": 1, "also": [{"kind": "coverage"}]}}))
    beside.watched(0, [group_of([30] * 4, 3)])
    assert beside.floor.steps == 0  # coverage looked, and this one goes by what trains


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
