"""What plan says of waivers, of what a run ends before, and of what nothing reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.machine import Machine
from launch.plan import plan
from launch.plan_warnings import recipe_warnings, stage_warnings
from recipes.loader import keys, load, shipped
from recipes.schema import Recipe


def said(name: str, scale: str | None, *words: str) -> list[str]:
    return [line for line in recipe_warnings(load(name, scale, words)) if line.startswith(("waive", "schedule", "budget"))]


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("grpo", ["waive=[right_beats_wrong]"], "waive: right_beats_wrong: not needed, as every right answer earns more"),
        ("dler", ["waive=[right_beats_wrong]"], "waive: right_beats_wrong: not needed"),
        ("grpo", ["waive=[length_of_wrong]"], "waive: length_of_wrong: not needed, as no term says"),
        ("kimi", [], "waive: length_of_wrong: the length of a wrong answer may change what it earns by kimi"),
        ("adaptthink", [], "waive: length_of_wrong: the length of a wrong answer may change what it earns by no_thinking"),
        ("shorterbetter", ["waive=[right_beats_wrong, length_of_wrong]"], "waive: right_beats_wrong: a right answer may earn 4 less than a wrong one"),
        ("grpo", ["waive=[right_beats_wrong]", "advantage={combine: each, scale: none}"], "waive: right_beats_wrong: advantage.combine: each gives every term its own scale"),
        ("grpo", ["waive=[right_beats_wrong]", "reward=[{kind: verdict}, {kind: format, weight: 1.5}]"], "waive: right_beats_wrong: a right answer may earn 0.5 less"),
        ("grpo", ["waive=[right_beats_wrong]", "reward=[{kind: verdict}, {kind: format, weight: 1.0}]"], "waive: right_beats_wrong: a right answer may earn as little as"),
        ("grpo", ["waive=[right_beats_wrong]", "reward=[{kind: verdict}, {kind: format, weight: 0.5}]", "schedule.reward.format.weight={kind: linear, to: 1.25}"], "waive: right_beats_wrong: a right answer may earn 0.25 less"),
        ("grpo", ["waive=[right_beats_wrong]", "reward=[{kind: verdict}, {kind: truncate}, {kind: format, weight: 0.5}]"], "waive: right_beats_wrong: a right answer may earn 0.5 less"),
    ],
)  # fmt: skip
def test_a_waiver_is_said_to_be_what_it_is(name: str, words: list[str], expected: str):
    lines = said(name, None, *words)
    assert sum(line.startswith(expected) for line in lines) == 1, lines
    assert len([line for line in lines if line.startswith(expected.rpartition(": ")[0][:24])]) == 1, lines


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("grpo", ["schedule.learner.lr={kind: staged, stages: [{since: 20, value: 1e-7}]}"], "schedule: learner.lr: the stage since step 20 is not in this run of 20 steps"),
        ("grpo", ["schedule.learner.lr={kind: exponential, factor: 0.5, every: 20}"], "schedule: learner.lr: its first change, after 20 steps, is not in"),
        ("grpo", ["schedule.learner.lr={kind: linear, to: 1e-7, over: 21}"], "schedule: learner.lr: its end, 1e-07, is not in"),
        ("grpo", ["schedule.learner.lr={kind: exponential, factor: 0.5, every: 7, least: 1.25e-7}", "learner.lr=1e-6"], "schedule: learner.lr: its end, 1.25e-07, is not in this run of 20 steps, which reaches 2.5e-07"),
        ("grpo", ["schedule.budget.limit={kind: exponential, factor: 0.5, every: 7, least: 13}", "budget.limit=104"], "schedule: budget.limit: its end, 13, is not in this run of 20 steps, which reaches 26"),
        ("grpo", ["schedule.budget.limit={kind: linear, to: 60, over: 21}", "budget.limit=100"], "schedule: budget.limit: its end, 60, is not in this run of 20 steps, which reaches 62"),
        ("controller", ["budget.watch=0", "budget.measure=19"], "budget.measure: 19 looks, one every step, come before"),
        ("controller", ["budget.watch=1", "budget.every=5", "budget.measure=4"], "budget.measure: 4 looks, one every 5 steps, come before"),
        ("laser_d", ["budget.every=20"], "budget.every: a second look, after 20 steps, is not in this run"),
        ("toggle", ["budget.period=20"], "budget.period: a phase with a limit is not in this run"),
        ("toggle", ["budget={period: 4, warmup: 20}"], "budget.warmup: a phase with a limit, none before step 20, is not in this run"),
        ("toggle", ["budget={period: 7, warmup: 14}"], "budget.warmup: a phase with a limit, none before step 14, is not in this run"),
        ("toggle", ["budget={period: 20, warmup: 20}"], "budget.period: a phase with a limit is not in this run of 20 steps, nor before step 20, as budget.warmup says"),
    ],
)  # fmt: skip
def test_what_a_run_ends_before_is_a_warning(name: str, words: list[str], expected: str):
    assert [line for line in said(name, "tiny", "train.steps=20", *words) if line.startswith(expected)]
    longer = [line for line in said(name, "tiny", "train.steps=22", *words) if "not in this run" in line]
    assert longer == []


@pytest.mark.parametrize(
    ("name", "words", "said_of"),
    [
        ("dot", ["budget.least_cut=0.9"], "budget.kind: outlier: says nothing, as none of 8 rollouts can exceed mean + 2 deviations by 93 tokens; lower budget.least_cut or"),
        ("dot", ["budget={alpha: 2.4, limit: 12}", "budget.least_cut=0.17"], "budget.kind: outlier: says nothing, as none of 8 rollouts can exceed mean + 2.4 deviations by 2 tokens"),
        ("controller", ["budget.also=[{kind: outlier, alpha: 2.4, least_cut: 0.5}]"], "budget.also[0].kind: outlier: says nothing, as none of 8"),
        ("dot", [], ""),
        ("dot", ["budget.least_cut=0.9", "budget.room=6"], ""),
    ],
)  # fmt: skip
def test_outliers_of_which_none_can_be_cut_are_a_warning(name: str, words: list[str], said_of: str):
    found = [line for line in said(name, "tiny", *words) if "outlier: says nothing" in line]
    assert len(found) == bool(said_of) and all(line.startswith(said_of) for line in found), found


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["reward=[{kind: verdict}, {kind: kimi}]", "waive=[length_of_wrong]"],
            "reward: kimi: says nothing to advantages, as credit.kind decs",
        ),
        (["sampler.keep_groups=all"], "credit.kind: decs: kappa says nothing, as sampler.keep_groups is all; take raw"),
    ],
)
def test_what_decs_does_not_look_at_is_a_warning(words: list[str], expected: str):
    assert [line for line in recipe_warnings(load("decs", "tiny", words)) if line.startswith(expected)]
    assert not [line for line in recipe_warnings(load("efficiency", "tiny", words)) if "decs" in line]


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("drpo", ["reward=[{kind: verdict}, {kind: triangle}]"], "reward: triangle: says nothing to advantages, as credit.kind drpo"),
        ("drpo", ["advantage.boost=0.1"], "advantage.boost: 0.1 says nothing, as credit.kind drpo makes advantages of its own"),
        ("decs", ["advantage.shorter=0.1"], "advantage.shorter: 0.1 says nothing"),
        ("gtpo", ["advantage={centre: reference, scale: none}"], "advantage.centre: reference says nothing"),
        ("gtpo", ["reward=[{kind: verdict, wrong: -0.5}]"], "reward: verdict: what wrong answers earn says nothing"),
        ("decs", ["credit.most=0"], "credit.gain: 0.2 says nothing, as credit.most is 0"),
        ("drpo", ["objective.ratio=sequence"], "objective.ratio: sequence says nothing, as objective.surrogate logp has no ratio"),
        ("thr_exploit", ["select={kind: max_variance, keep: 4, of: advantage, scope: batch}"], "select.scope: batch may leave one rollout"),
        ("entropy8020", ["objective.aggregate=constant"], "tokens.denominator: kept says nothing with objective.aggregate constant"),
        ("grpo", ["reward=[{kind: verdict}, {kind: kl, weight: 0.01}]"], "advantage.scale: group divides a group that differs by little"),
        ("grpo", ["budget={kind: controller, every: 2}"], "budget.every: 2 says nothing, as budget.watch is 0, so that every step is a look"),
        ("controller", ["budget.within=1"], "budget.within: 1 below any start is a floor of 0 or less"),
        (
            "gfpo",
            ["select.kind=efficient", "reward=[{kind: verdict, wrong: -1}]"],
            "select.kind: efficient takes the shortest wrong answers, as they earn -1",
        ),
        ("grpo", ["reward=[{kind: verdict}, {kind: l1_max, form: code, delta: 0.2}]"], "reward: l1_max.delta: 0.2 says nothing, as form is code"),
        ("grpo", ["reward=[{kind: verdict}, {kind: relative, shape: rank, strength: 0.5}]"], "reward: relative.strength: 0.5 says nothing, as shape is rank"),
        ("grpo", ["reward=[{kind: verdict}, {kind: relative, shape: saving, floor: 0.1}]"], "reward: relative.floor: 0.1 says nothing, as shape is saving"),
    ],
)  # fmt: skip
def test_what_credit_and_the_choice_of_tokens_do_not_read_is_a_warning(name: str, words: list[str], expected: str):
    with_words, without = (list(recipe_warnings(load(name, "tiny", some))) for some in (words, []))
    assert [line for line in with_words if line.startswith(expected)], with_words
    assert not [line for line in without if line.startswith(expected)]


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("scale", [None, "tiny"])
def test_no_shipped_recipe_warns_against_its_own_numbers(name: str, scale: str | None):
    recipe = load(name, scale, [])
    lines = [*recipe_warnings(recipe), *stage_warnings(recipe)]
    assert not [line for line in lines if "says nothing" in line or "not in this run" in line or "not needed" in line or "hardly" in line]


@pytest.mark.parametrize("schedule", ["{kind: decays, share: 0.5, count: 5}", "{kind: linear, to: 1e-7, drops: 5}"])
def test_a_schedule_with_more_changes_than_steps_never_ends_and_is_a_warning(schedule: str):
    words = [f"schedule.learner.lr={schedule}"]
    assert [line for line in said("grpo", "tiny", "train.steps=5", *words) if "is not in this run of 5 steps" in line]
    assert said("grpo", "tiny", "train.steps=6", *words) == []


@pytest.mark.parametrize(
    ("schedule", "idle"),
    [
        ("{kind: linear, to: 104}", True),
        ("{kind: staged, stages: [{since: 3, value: 104.5}]}", True),
        ("{kind: exponential, factor: 1.001, every: 9}", True),
        ("{kind: decays, share: 1, count: 2}", True),
        ("{kind: exponential, factor: 0.999, every: 1, least: 102.5}", False),
        ("{kind: exponential, factor: 0.999, every: 1, least: 103.5}", True),
        ("{kind: linear, share: 0.5, over: 1}", False),
        ("{kind: linear, to: 90}", False),
    ],
)
def test_a_schedule_that_moves_nothing_is_a_warning(schedule: str, idle: bool):
    expected = "schedule: budget.limit: says nothing, as 104 holds in every step with it or without; take it out (null)"
    words = ["train.steps=20", f"schedule.budget.limit={schedule}"]
    assert [line for line in said("grpo", "tiny", *words) if line.startswith("schedule")] == [expected] * idle


@pytest.mark.parametrize(
    ("budget", "remedy", "wider"),
    [
        ("{kind: controller, least: 1.0}", "lower budget.least", "budget.least=0.9"),
        ("{kind: prompt, least: 1.0}", "lower budget.least", "budget.least=0.9"),
        ("{kind: reference, least: 1.0}", "lower budget.least", "budget.least=0.9"),
        ("{kind: coverage}", "raise budget.room", "budget.room=1.5"),
        (
            "{kind: difficulty, ladder: [{}]}",
            "give a rung of budget.ladder a share below 1",
            "budget.ladder=[{at_least: 0.5, share: 0.5}, {}]",
        ),
    ],
)
def test_a_budget_that_can_choose_no_limit_but_one_is_a_warning(budget: str, remedy: str, wider: str):
    words = ["reward=[{kind: verdict}, {kind: truncate}]", f"budget={budget}"]
    expected = f"says nothing, as no limit but budget.limit is allowed; {remedy}"
    assert [line for line in said("grpo", "tiny", *words) if line.endswith(expected)]
    assert not [line for line in said("grpo", "tiny", *words, wider) if "no limit but" in line]


BUDGETS = ["{kind: toggle, period: 1}", "{kind: coverage, every: 1}", "{kind: difficulty, ladder: [{at_least: 0.5, share: 0.5}, {}]}"]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("waive", ["waive=[right_beats_wrong, length_of_wrong]"])
def test_limits_that_no_reward_reads_are_a_warning(budget: str, waive: str):
    def unread(*words: str) -> list[str]:
        return [line for line in said("grpo", "tiny", f"budget={budget}", waive, *words) if "its limits say nothing" in line]

    assert unread("reward=[{kind: verdict}, {kind: shortest}]") and unread("reward=[{kind: verdict}]")
    assert not unread("reward=[{kind: verdict}, {kind: truncate}]") and not unread("reward=[{kind: verdict}, {kind: alp}]")


@pytest.mark.parametrize(
    ("stage", "unread"),
    [
        ("{kind: cold_start, changes: {cold_start.steps: 9, tiny: {recheck: 0.1, slip: 0}, seed: 3}}", []),
        ("{kind: cold_start, changes: {learner.lr: 0.1, train: {steps: 9}}}", ["learner.lr", "train.steps"]),
        ("{kind: reference, changes: {budget.limit: 99, data: {max_prompt_tokens: 9}, sampler.temperature: 0.9, engine.count: 2}}", []),
        ("{kind: reference, changes: {sampler: {group_size: 4, temperature: 0.9}, learner.lr: 0.1}}", ["sampler.group_size", "learner.lr"]),
        ("{kind: reference, changes: {train.steps: 9, eval.samples: 2}}", ["train.steps", "eval.samples"]),
        ("{kind: reference, changes: {train.steps: 9, schedule: {budget.limit: {kind: linear, to: 120}}}}", []),
        ("{kind: reference, changes: {schedule.learner.lr: {kind: linear, to: 0.1}}}", ["schedule.learner.lr"]),
        ("{kind: sft, changes: {learner: {lr: 0.1, threads: 1}, seed: 3, train.checkpoint_every: 5}}", []),
        ("{kind: sft, lr: 0.1, changes: {learner: {lr: 0.1, grad_clip: 2.0}, eval.samples: 2}}", ["learner.lr", "learner.grad_clip", "eval.samples"]),
        ("{kind: sft, changes: {train.steps: 9, budget.limit: 99, data.template: {a: 1}}}", ["train.steps", "budget.limit", "data.template.a"]),
        ("{kind: sft, data: rows.jsonl, changes: {budget.limit: 99, data.template: {a: 1}, data.train: rows.jsonl}}", ["data.train"]),
        ("{kind: sft, data: rows.jsonl, max_tokens: 9, changes: {budget: {limit: 99}, train.steps: 9}}", ["budget.limit", "train.steps"]),
        ("{kind: dpo, changes: {learner.lr: 0.1, sampler.prompts: 4, reward: [{kind: verdict}]}}", ["sampler.prompts", "reward"]),
        ("{kind: rl, name: a, changes: {train.steps: 9, reward: [{kind: verdict}], eval.samples: 2}}", []),
        ("{kind: rl, name: a, changes: {cold_start: {steps: 9}}}", ["cold_start.steps"]),
        ("{kind: eval, name: a, changes: {eval.samples: 2, data.instruction: ''}}", []),
        ("{kind: eval, name: a, changes: {sampler.temperature: 0.9, train.steps: 3}}", ["sampler.temperature", "train.steps"]),
    ],
)  # fmt: skip
def test_changes_that_a_stage_does_not_read_are_a_warning_with_key_and_stage(stage: str, unread: list[str]):
    first = [] if "cold_start," in stage else ["{kind: reference, name: before}"]
    recipe = load("dler", "tiny", [f"stages=[{', '.join([*first, stage, 'rl'])}]"])
    at = len(first)
    kind, called = recipe.stages[at].kind, recipe.stages[at].called
    why = f"says nothing, as a stage of kind {kind} does not read it; leave it out"
    assert list(stage_warnings(recipe)) == [f"stages[{at}] ({called}): changes: {key} {why}" for key in unread]


def test_what_stages_are_said_to_read_are_keys_of_a_recipe_and_rl_reads_all_but_the_cold_start():
    there = [key.name for key in keys()]
    stages = load(
        "dler", "tiny", ["stages=[cold_start, reference, {kind: sft, data: rows.jsonl}, dpo, rl, merge, {kind: eval, name: e}]"]
    ).stages
    for stage in stages:
        for name in stage.reads:
            assert name in Recipe.model_fields or name == "schedule.budget" or name in there or f"{name}.kind" in there, name
    assert set(Recipe.model_fields) - set(stages[4].reads) == {
        "cold_start",
        "stages",
        "name",
        "device",
        "on_cuda",
        "model",
        "judge",
        "wandb",
    }


@pytest.mark.parametrize("more", ["factor: 0.5", "factor: 2.0, least: 1e-9", "factor: 0.5, least: 5e-7", "factor: 0.5, least: 2.5e-7"])
def test_a_schedule_that_has_no_end_or_reaches_it_is_no_warning(more: str):
    assert said("grpo", "tiny", "train.steps=20", "learner.lr=1e-6", f"schedule.learner.lr={{kind: exponential, every: 7, {more}}}") == []


def test_columns_of_the_data_are_read_by_stages_that_only_sample(tmp_path: Path):
    (tmp_path / "q.jsonl").write_text("".join(f'{{"q": "{n} + 1?", "gold": "{n + 1}"}}\n' for n in range(40)))
    words = [f"data.train={tmp_path}/q.jsonl", "data.problem=q", "data.answer=gold", "stages=[reference, sft, rl, eval]"]
    assert [line for line in said("grpo", "tiny", *words) if "data.problem" in line or "data.answer" in line] == []


def test_what_only_gpus_can_do_is_a_warning_without_them():
    def said(cluster: str, *nodes: Machine) -> list[str]:
        return [line for line in plan(load("quickstart", None, [f"cluster={cluster}"]), *nodes).warnings if line.startswith("cluster")]

    assert said("{kind: colocated, sleep: false, offload: false}", Machine(2, 24 << 30)) == [
        f"cluster.{name}: false says nothing without GPUs" for name in ("sleep", "offload")
    ]
    assert said("{kind: apart, gpus_per_node: 8}", Machine(2, 24 << 30)) == ["cluster.gpus_per_node: 8 says nothing without GPUs"]
    assert said("{kind: colocated, sleep: true}", Machine(2, 24 << 30)) == []
