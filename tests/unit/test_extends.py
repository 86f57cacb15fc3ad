"""Composition: in which order recipes' words are laid over each other, and what of several parents is refused."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

import pytest

from launch.plan import plan
from recipes.budgets import ControllerBudget, CoverageBudget
from recipes.loader import RecipeError, load, on_device
from recipes.schema import Recipe


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(text: str, *words: str, **others: str) -> Recipe:
    """mine.yaml as `text`, beside files of the names in `others`."""
    for name, content in {**others, "mine": text}.items():
        Path(f"{name}.yaml").write_text(content)
    return load("mine.yaml", None, words)


def refusal(text: str, *words: str, **others: str) -> str:
    with pytest.raises(RecipeError) as error:
        made(text, *words, **others)
    return str(error.value)


def kinds(recipe: Recipe) -> list[str]:
    return [term.kind for term in recipe.reward]


@pytest.mark.parametrize("pair", ["[curriculum, controller]", "[controller, curriculum]"])
def test_a_base_that_one_parent_only_inherits_overrides_nothing_that_the_other_says(pair: str):
    recipe = made(f"extends: {pair}")
    assert kinds(recipe) == ["verdict", "triangle", "format"] and recipe.budget.limit == 256 and list(recipe.schedule) == ["budget.limit"]
    assert isinstance(recipe.budget, ControllerBudget) and (recipe.budget.watch, recipe.budget.every) == (1.0, 2)


@pytest.mark.parametrize("order", [["curriculum", "d3s", "thr_exploit"], ["thr_exploit", "d3s", "curriculum"]])
def test_budget_selection_and_credit_of_three_recipes_stand_side_by_side(order: list[str]):
    recipe, parents = made(f"extends: [{', '.join(order)}]"), {name: load(name) for name in order}
    assert recipe.reward == parents["curriculum"].reward and recipe.budget == parents["curriculum"].budget
    assert (recipe.select, recipe.tokens, recipe.credit) == (parents["d3s"].select, parents["d3s"].tokens, parents["thr_exploit"].credit)
    assert sorted(recipe.schedule) == ["budget.limit", "select.keep", "tokens.keep"]
    assert "each say their own credit.kind; write credit.kind in mine to settle it" in refusal("extends: [thr_exploit, nthr]")


def test_a_shared_base_is_laid_down_once_below_all_that_extend_it():
    recipe = made("extends: [gfpo, gspo]")
    assert (recipe.learner.lr, recipe.train.steps, recipe.select.kind, recipe.objective.ratio) == (1e-7, 100, "shortest", "sequence")
    whole = made("extends: [gfpo, dapo]", "select={kind: all}")
    assert whole.learner.lr == 1e-7 and kinds(whole) == ["verdict", "overlong"] and whole.objective.clip_high == 0.28
    recipe = made("extends: [kimi, controller]")
    assert kinds(recipe) == ["verdict", "kimi"] and recipe.waive == ["length_of_wrong"]


def test_a_chain_between_base_and_parent_is_its_own_and_a_base_that_a_list_names_is_above_inherited_ones():
    deep = {"one": "extends: grpo\nlearner: {lr: 2e-6}", "two": "extends: one.yaml\ntrain: {steps: 7}"}
    for pair in ("[two.yaml, gspo]", "[gspo, two.yaml]"):
        recipe = made(f"extends: {pair}", **deep)
        assert (recipe.learner.lr, recipe.train.steps, recipe.objective.ratio) == (2e-6, 7, "sequence")
    assert kinds(made("extends: [grpo, controller]")) == ["verdict"]  # the controller, upon grpo in place of its dler
    assert made("extends: [curriculum, scales/tiny]").budget.limit == 104  # nothing is a base that a list names after another


def test_what_extends_a_composition_resolves_as_the_composition_itself():
    both = "extends: [laser_d, quickstart]"
    composed = made("extends: both.yaml\nname: same", both=both)
    assert composed == made(both + "\nname: same")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("extends: [leash, gr3]", ["leash (recipes/leash.yaml:", "gr3 (recipes/gr3.yaml:", "write reward in mine"]),
        ("extends: [gr3, gfpo, leash]", ["gr3 (", "leash (", "reward"]),
        ("extends: [kimi, dler]", ["kimi (", "dler (", "reward"]),
        ("extends: [toggle, dot]", ["toggle (", "dot (", "write budget.kind in mine"]),
        ("extends: [da_dler, controller]", ["da_dler (", "controller (", "budget.kind"]),
        ("extends: [laser_d, controller]", ["laser_d (", "controller (", "budget.kind"]),
        (
            "extends: [curriculum_linear, curriculum_fixed]",
            ["curriculum_linear (", "curriculum_fixed (", "write schedule.budget.limit in mine"],
        ),
        ("extends: [gfpo, pods.yaml]", ["gfpo (", "pods (pods.yaml:2)", "write select.kind in mine"]),
        ("extends: [entropy.yaml, importance.yaml]", ["entropy (", "importance (", "write tokens.kind in mine"]),
        ("extends: [two_phase, sft_short]", ["two_phase (", "sft_short (", "write stages in mine"]),
        ("extends: [kimi, each.yaml]", ["kimi (", "each (each.yaml:2)", "write waive in mine"]),
    ],
)
def test_what_two_parents_cannot_both_have_is_refused_by_their_names(text: str, names: list[str]):
    said = refusal(
        text,
        entropy="extends: grpo\ntokens: {kind: entropy}",
        importance="extends: grpo\ntokens: {kind: importance}",
        pods="extends: grpo\nselect: {kind: max_variance, keep: 4}",
        each="extends: grpo\nwaive: [right_beats_wrong]\nadvantage: {combine: each}",
    )
    assert said.startswith("mine.yaml:1: extends: ") and all(name in said for name in names) and len(said.splitlines()) == 1


def test_a_conflict_is_settled_by_the_recipe_what_extends_it_a_scale_or_the_command_line():
    reward = "reward: [{kind: verdict}]"
    conflict = "extends: [kimi, gr3]\n"
    assert kinds(made(conflict + reward)) == ["verdict"]
    assert kinds(made(conflict, "reward=[{kind: verdict}]")) == ["verdict"]
    assert kinds(made("extends: both.yaml\n" + reward, both=conflict)) == ["verdict"]
    assert "reward" in refusal("extends: both.yaml\nseed: 1", both=conflict)
    Path("scale.yaml").write_text(reward)
    assert kinds(load("both.yaml", "scale.yaml")) == ["verdict"]


def test_a_waiver_goes_with_the_reward_that_it_was_written_for():
    own = "reward: [{kind: verdict}, {kind: gr3}]"
    assert made(f"extends: kimi\n{own}").waive == [] == made(f"extends: [kimi, gr3]\n{own}").waive
    assert made("extends: [kimi, controller]", "reward=[{kind: verdict}]").waive == []
    assert "pays wrong answers for their length" in refusal("extends: dapo\nreward: [{kind: verdict}, {kind: kimi}]", "waive=[]")
    assert made(f"extends: kimi\n{own}\nwaive: [length_of_wrong]").waive == ["length_of_wrong"]
    assert made("extends: kimi\nwaive: [length_of_wrong, right_beats_wrong]").waive == ["length_of_wrong", "right_beats_wrong"]
    for_kimi = "extends: kimi\nwaive: [right_beats_wrong, length_of_wrong]"
    assert made("extends: [other.yaml, wider.yaml]", other=f"extends: kimi\n{own}", wider=for_kimi).waive == []


def test_a_number_said_for_one_kind_stays_with_it_and_waits_for_it():
    both = "extends: [controller, laser_d]\ndata: {instruction: x}\n"
    coverage = made(both + "budget: {kind: coverage}").budget
    assert coverage == CoverageBudget(kind="coverage", limit=4096, room=4.0)  # watch 4, every 20: its own, not the controller's 1 and 2
    controller = made(both, "budget.kind=controller").budget
    assert isinstance(controller, ControllerBudget) and (controller.watch, controller.every, controller.limit) == (1.0, 2, 4096)
    kept = made("extends: gfpo\nselect: {kind: efficient}").select  # all kinds that select have these from one class
    assert (kept.kind, kept.keep, kept.others) == ("efficient", 6, "zero")
    words = ["budget.grid=0.5", "budget.kind=coverage"]  # in either order
    assert (
        made("extends: toggle\ndata: {instruction: x}", *words).budget
        == made("extends: toggle\ndata: {instruction: x}", *words[::-1]).budget
    )


def test_orders_that_contradict_are_refused():
    assert refusal("extends: [kimi, grpo]") == "mine.yaml:1: extends: kimi extends grpo already; leave grpo out, or name it first"
    said = refusal("extends: [a.yaml, b.yaml]", a="extends: [gspo, gfpo]", b="extends: [gfpo, gspo]")
    assert "mine.yaml:1: extends: these recipes name each other in different orders: " in said and "gspo" in said


@pytest.mark.parametrize("slot", ["budget", "select", "schedule.budget.limit"])
@pytest.mark.parametrize("kind", ["[a]", "{a: b}", "3", "true"])
def test_a_kind_that_is_no_text_is_one_clear_error(slot: str, kind: str):
    for word in (f"{slot}.kind={kind}", f"{slot}={{kind: {kind}}}"):
        assert f"-- {word}: {slot}.kind: " in (said := refusal("extends: curriculum", word)) and "is not allowed; needs one of" in said
    assert "reward[0].kind: " in refusal(f"reward: [{{kind: {kind}}}]")
    assert "budget.kind: " in refusal(f"extends: da_dler\non_cuda:\n  budget: {{kind: {kind}}}")


def test_a_schedule_whose_number_another_parent_takes_away_is_refused_by_the_kind_that_lacks_it():
    refused = refusal("extends: [d3s, d3s_tokens]")
    assert "schedule: select.keep: select.kind all has no keep; take a kind that has, or the schedule out (null)" in refused
    settled = made("extends: [d3s, d3s_tokens]\nschedule: {select.keep: null}")
    assert (settled.select.kind, list(settled.schedule)) == ("all", ["tokens.keep"])


def test_an_inherited_schedule_is_taken_out_by_null():
    assert made("extends: curriculum\nschedule: {budget.limit: null}").schedule == {}
    assert made("extends: thinkprune", "schedule.budget.limit=null").schedule == {}
    assert made("extends: curriculum", "schedule={budget.limit: null, learner.lr: {kind: linear, share: 0.5}}").schedule.keys() == {
        "learner.lr"
    }
    assert made(
        "extends: other.yaml\nschedule: {budget.limit: {kind: linear, to: 9}}", other="extends: curriculum\nschedule: {budget.limit: null}"
    ).schedule
    twice = made(
        "extends: other.yaml\nschedule: {reward.triangle.weight: null}",
        "schedule.reward.triangle.weight=null",
        other="extends: curriculum\nschedule: {reward.triangle.weight: {kind: linear, to: 0.1}}",
    )
    assert twice.schedule.keys() == {"budget.limit"} == made("extends: curriculum\nschedule: {}").schedule.keys()
    said = refusal("extends: curriculum", "schedule.budget.limits=null")
    assert said.startswith("-- schedule.budget.limits=null: schedule.budget.limits: null is not allowed") and said.endswith(
        "there is none to take out"
    )
    assert made("extends: curriculum\non_cuda: {schedule: {budget.limit: null}}").schedule.keys() == {"budget.limit"}
    assert on_device(made("extends: curriculum\non_cuda: {schedule: {budget.limit: null}}"), "cuda").schedule == {}


@pytest.mark.parametrize(
    ("text", "words", "sentence"),
    [
        ("extends: dler\nbudget: {kind: contoller}", [], 'mine.yaml:2: budget.kind: "contoller" is not allowed; needs one of'),
        ("extends: dler\nbudget: {kind: contoller}", [], "thinking. Did you mean controller?"),
        ("extends: dler\nselect:\n  kind: shortst", [], 'mine.yaml:3: select.kind: "shortst" is not allowed'),
        ("extends: dler\nreward: [{kind: verdct}]", [], "Did you mean verdict?"),
        (
            "extends: dler\nobjective: {aggregate: token_men}",
            [],
            "needs one of token_mean, sequence_mean, sequence_sum, constant. Did you mean token_mean?",
        ),
        ("extends: dler\nbudget:\n  kind: difficulty", [], "mine.yaml:3: budget.ladder: missing"),
        (
            "extends: curriculum",
            ["schedule.budget.limit={kind: linear, to: 0}"],
            "-- schedule.budget.limit={kind: linear, to: 0}: schedule: budget.limit: 0",
        ),
        (
            "extends: curriculum_linear",
            ["schedule.budget.limit.share=0.0"],
            "-- schedule.budget.limit.share=0.0: schedule: budget.limit: 0",
        ),
        (
            "extends: curriculum",
            ["learner.lr=1e-5", "schedule.learner.lr={kind: linear, to: 0}"],
            "-- schedule.learner.lr={kind: linear, to: 0}: schedule",
        ),
        (
            "extends: dler\nschedule:\n  budget.limit: {kind: linear, to: 0}",
            ["schedule.learner.lr={kind: linear, to: 0.1}"],
            "mine.yaml:3: schedule: budget.limit: 0",
        ),
        (
            "extends: curriculum",
            ["schedule.budget.limit=50"],
            "-- schedule.budget.limit=50: schedule.budget.limit: 50 is not allowed; needs a mapping of keys, as `{kind: linear, to: 87}`",
        ),
        (
            "extends: dler\nschedule:\n  budget:\n    limit: {kind: linear, to: 9}",
            [],
            "mine.yaml:3: schedule.budget: names no number; the keys",
        ),
        ("extends: dler", ["schedule.objective.entropy.coef=1"], "schedule.objective.entropy.coef: 1 is not allowed"),
        ("extends: dler", ["schedule.reward.truncate.keep=1"], "schedule.reward.truncate.keep: 1 is not allowed"),
        (
            "extends: dler\nreward:\n- kind: verdict\n- {kind: function, name: 'a:b', low: 2.0}",
            [],
            "mine.yaml:4: reward[1].low: 2 is above high 1",
        ),
        (
            "extends: dler\nreward:\n- kind: verdict\n- kind: function\n  name: 'a:b'\n  high: -1.0",
            [],
            "mine.yaml:6: reward[1].low: 0 is above high -1",
        ),
        (
            "extends: dler\nreward:\n- kind: verdict\n- {kind: o1_pruner, gate: right, low: 4.0, high: -2.0}",
            [],
            "mine.yaml:4: reward[1].low: 4 is above high -2",
        ),
        ("extends: clip_cov\ncredit: {low: 6.0}", [], "mine.yaml:2: credit.low: 6 is above high 5"),
        (
            "extends: dler\nobjective: {correction: {kind: clamp, low: 3.0}}",
            [],
            "mine.yaml:2: objective.correction.low: 3.0 is not allowed; needs a number, at least 0 and at most 1",
        ),
        (
            "extends: dler\nobjective: {correction: {kind: tis, low: 0.5}}",
            [],
            "mine.yaml:2: objective.correction.low:",
        ),
        ("extends: alp", ["waive=[]"], "-- waive=[]: reward: alp pays wrong answers for their length"),
    ],
)
def test_an_error_is_placed_at_the_words_that_were_said_last_whatever_stands_around_them(text: str, words: list[str], sentence: str):
    Path("mine.yaml").write_text(text)
    for scale in (None, "tiny"):
        with pytest.raises(RecipeError) as error:
            load("mine.yaml", scale, words)
        assert sentence in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("place", "one", "two"),
    [
        ("tiny.families", "tiny: {families: [chain]}", "tiny: {families: [sum]}"),
        ("data.thinking", "data: {thinking: [<a>, </a>]}", "data: {thinking: [<b>, </b>]}"),
        ("eval.benchmarks", "eval: {benchmarks: [math500]}", "eval: {benchmarks: [aime24]}"),
        ("on_cuda.reward", "on_cuda: {reward: [{kind: verdict}]}", "on_cuda: {reward: [{kind: verdict, wrong: -1}]}"),
        ("on_cuda.budget.kind", "on_cuda: {budget: {kind: controller}}", "on_cuda: {budget: {kind: reference}}"),
        ("on_cuda.budget.kind", "on_cuda: {budget.kind: controller}", "on_cuda: {budget: {kind: reference}}"),
        ("on_cuda.schedule.learner.lr", "on_cuda: {schedule: {learner.lr: {kind: linear, to: 0.1}}}", "on_cuda: {schedule: {learner.lr: {kind: linear, to: 0.2}}}"),
        ("objective.correction.kind", "objective: {old_logprobs: learner, correction: {kind: tis}}", "objective: {old_logprobs: learner, correction: {kind: none}}"),
    ],
)  # fmt: skip
def test_lists_and_kinds_that_two_parents_say_differently_are_refused_wherever_they_stand(place: str, one: str, two: str):
    others = {"one": f"extends: grpo\n{one}", "two": f"extends: grpo\n{two}"}
    said = refusal("extends: [one.yaml, two.yaml]", **others)
    assert said.startswith(
        f"mine.yaml:1: extends: one (one.yaml:2) and two (two.yaml:2) each say their own {place}; write {place} in mine to"
    )
    assert made(f"extends: [one.yaml, two.yaml]\n{two}", **others) == made(f"extends: grpo\n{two}")
    assert made("extends: [one.yaml, same.yaml]", **others, same=others["one"]).overridden == ()


@pytest.mark.parametrize(
    ("place", "one", "two"),
    [
        ("advantage.centre", "advantage: {centre: leave_one_out}", "advantage: {centre: group}"),
        ("objective.aggregate", "objective: {aggregate: constant}", "objective: {aggregate: token_mean}"),
        ("data.instruction", "data: {instruction: so}", "data: {instruction: otherwise}"),
        ("on_cuda.model.dtype", "on_cuda: {model: {dtype: bf16}}", "on_cuda: {model: {dtype: fp32}}"),
        ("on_cuda.model.dtype", "on_cuda: {model.dtype: bf16}", "on_cuda: {model: {dtype: fp32}}"),
        ("wandb", "wandb: mine", "wandb: null"),
        ("learner.gradient_checkpointing", "learner: {gradient_checkpointing: true}", "learner: {gradient_checkpointing: false}"),
        ("data.train", "data: {train: tiny}", "data: {train: [tiny]}"),
    ],
)
def test_a_word_of_one_parent_that_anothers_overrides_is_said_by_plan(place: str, one: str, two: str):
    others = {"one": f"extends: grpo\n{one}", "two": f"extends: grpo\n{two}"}
    recipe = made("extends: [one.yaml, two.yaml]", **others)
    [said] = recipe.overridden
    assert said.startswith(f"extends: {place}: ") and said.endswith(f"of one (one.yaml:2); write {place} in mine to settle it")
    assert " of two (two.yaml:2) holds, not " in said and said in plan(on_device(recipe, "cpu")).warnings
    assert made(f"extends: [one.yaml, two.yaml]\n{two}", **others).overridden == ()
    assert made(f"extends: both.yaml\n{two}", both="extends: [one.yaml, two.yaml]", **others).overridden == ()


def test_numbers_and_what_a_scale_says_override_without_a_word():
    lower, higher = "extends: grpo\nlearner: {lr: 1e-6}", "extends: grpo\nlearner: {lr: 2e-6}"
    assert made("extends: [lower.yaml, higher.yaml]", lower=lower, higher=higher).overridden == ()
    assert load("quickstart").overridden == ()
    scale, aggregate = made("extends: [rloo, reinforce_pp]").overridden
    assert scale.startswith('extends: advantage.scale: "batch_tokens" of reinforce_pp (recipes/reinforce_pp.yaml:')
    assert ' holds, not "sequence_sum" of rloo (recipes/rloo.yaml:' in aggregate


@pytest.mark.parametrize(
    ("place", "one", "two"),
    [
        ("budget.ladder", "{kind: difficulty, ladder: [{at_least: 0.5, share: 0.5}, {}]}", "{kind: difficulty, ladder: [{at_least: 0.9, share: 0.2}, {}]}"),
        ("credit.words", "{kind: efficiency, words: [so]}", "{kind: efficiency, words: [hm]}"),
    ],
)  # fmt: skip
def test_the_list_of_a_kind_that_two_parents_say_differently_is_refused(place: str, one: str, two: str):
    slot, _, name = place.partition(".")
    others = {"one": f"extends: grpo\n{slot}: {one}", "two": f"extends: grpo\n{slot}: {two}"}
    assert f"each say their own {place}; write {place} in mine to settle it" in refusal("extends: [one.yaml, two.yaml]", **others)
    made("extends: [one.yaml, two.yaml]", **{**others, "two": others["one"]})
    own = one.partition(f"{name}: ")[2]
    made(f"extends: [one.yaml, two.yaml]\n{slot}: {{{name}: {own}", **others)


def test_what_a_parent_loses_with_its_base_is_said_unless_the_list_names_the_base_that_holds():
    """controller stands on dler (rewards cut at the limit, whole batches), gfpo on grpo: the base that comes last holds."""
    lost = made("extends: [controller, gfpo]").overridden
    assert any("reward" in line and "of dler, which controller is based on; say reward to settle it" in line for line in lost), lost
    assert any('advantage.scale: "group" of grpo holds, not "batch" of dler' in line for line in lost)
    other = made("extends: [gfpo, controller]").overridden
    assert any("of grpo, which gfpo is based on" in line for line in other)
    assert not [line for line in made("extends: [controller, gfpo]\nreward: [{kind: verdict}]").overridden if "extends: reward" in line]
    for named in ("[grpo, controller]", "[curriculum, d3s, thr_exploit]"):
        assert not [line for line in made(f"extends: {named}").overridden if "is based on" in line]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("reward: [{kind: verdict, weight: 2}]", "reward: [{weight: 2.0, kind: verdict}]"),
        ("reward: [{kind: verdict}, {kind: truncate, keep: 0}]", "reward: [{kind: verdict, weight: 1, wrong: 0}, {kind: truncate}]"),
        ("on_cuda: {reward: [{kind: verdict}]}", "on_cuda: {reward: [{kind: verdict, weight: 1}]}"),
        ("stages: [rl, eval]", "stages: [{kind: rl}, {kind: eval, name: null}]"),
        ("schedule: {learner.lr: {kind: linear, share: 1}}", "schedule: {learner.lr: {over: null, share: 1.0, kind: linear}}"),
        (
            "budget: {kind: difficulty, ladder: [{at_least: 0.5, share: 0.5}, {}]}",
            "budget: {kind: difficulty, ladder: [{share: 0.5, at_least: 0.5}, {share: 1}]}",
        ),
        ("budget: {also: [{kind: toggle}]}", "budget: {also: [{kind: toggle, period: 50}]}"),
        ("waive: [length_of_wrong, right_beats_wrong]", "waive: [right_beats_wrong, length_of_wrong]"),
        ("eval: {budgets: [{kind: forced, limit: 99}]}", "eval: {budgets: [{limit: 99, kind: forced}]}"),
        ("data: {train: [{source: tiny}]}", "data: {train: [{source: tiny, weight: 1}]}"),
    ],
)
def test_lists_of_two_parents_that_come_to_the_same_are_the_same_however_they_are_written(one: str, two: str):
    others = {"one": f"extends: grpo\n{one}", "two": f"extends: grpo\n{two}"}
    composed = made("extends: [one.yaml, two.yaml]", **others)
    assert composed.overridden == () and composed == made("extends: two.yaml", **others)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("reward: [{kind: verdict}, {kind: cut}]", "reward: [{kind: cut}, {kind: verdict}]"),  # `shortest` goes by what stands before it
        ("reward: [{kind: verdict}]", "reward: [{kind: verdict, weight: 1.5}]"),
        ("reward: [{kind: verdict, weigth: 1}]", "reward: [{kind: verdict}]"),  # not allowed, which is said once they are settled
        ("stages: [rl]", "stages: [rl, eval]"),
    ],
)
def test_lists_of_two_parents_that_come_to_something_else_are_not(one: str, two: str):
    others = {"one": f"extends: grpo\n{one}", "two": f"extends: grpo\n{two}"}
    assert "each say their own" in refusal("extends: [one.yaml, two.yaml]", **others)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "budget.kind: controller",
            "mine.yaml:2: budget.kind: a key of a file has no dots; write `budget:` and the rest indented below it",
        ),
        ("bugdet: {kind: controller}", "mine.yaml:2: bugdet: unknown key. Did you mean budget?"),
        ("budget: {knid: toggle}", "mine.yaml:2: budget.knid: unknown key. Did you mean budget.kind?"),
        ("budget: {also.kind: toggle}", "mine.yaml:2: budget.also.kind: a key of a file has no dots"),
        ("on_cuda: {budget: {knd: toggle}}", "mine.yaml:2: budget.knd: unknown key. Did you mean budget.kind?"),
    ],
)
def test_a_key_that_does_not_exist_is_said_before_the_conflict_that_it_settles_not(words: str, said: str):
    found = refusal(f"extends: [toggle, controller]\n{words}")
    assert found.startswith(said) and "each say their own" not in found
    assert "each say their own budget.kind" in refusal("extends: [toggle, controller]\nbudget: {limit: 300}")


@pytest.mark.parametrize(
    ("wrong", "later"),
    [
        ("budget.also.0.period=3", "budget.also=[{kind: toggle}]"),
        ("reward.1.keep=3", "reward=[{kind: verdict}]"),
        ("stages.0.samples=4", "stages=[rl]"),
        ("waive.right=1", "waive=[]"),
        ("budget.limit.tokens=3", "budget.limit=40"),
        ("budget={limit: {tokens: 3}}", "budget.limit=40"),
        ("budget=40", "budget.limit=40"),
        ("on_cuda.reward.1.keep=3", "on_cuda.reward=[{kind: verdict}]"),
        ("schedule.budget.limit=40", "schedule.budget.limit={kind: linear, to: 50}"),
        ("data.train.0.source=tiny", "data.train=tiny"),
    ],
)
def test_a_word_that_cannot_be_is_refused_whatever_word_comes_behind_it(wrong: str, later: str):
    here, there = refusal("extends: dler", wrong, later), refusal("extends: dler", later, wrong)
    assert here == there and here.startswith(f"-- {wrong}: ") and " is not allowed; needs " in here


def test_what_cannot_be_in_a_file_is_refused_there_whatever_is_laid_over_it():
    wrong = "extends: dler\nreward:\n  1: {keep: 0.5}"
    said = 'wrong.yaml:2: reward: {"1": {"keep": 0.5}} is not allowed; needs a list (at least 1) of mappings'
    assert refusal("extends: wrong.yaml\nreward: [{kind: verdict}]", wrong=wrong) == said
    assert made("extends: mild.yaml", "schedule.budget.limit=null", mild="extends: curriculum\non_cuda: {wandb: null}").wandb is None


@pytest.mark.parametrize(
    ("before", "words", "place", "expected"),
    [
        ("", ["on_cuda={learner.lr: 1e-5}", "learner.lr=1e-4"], "learner.lr", 1e-4),
        ("", ["on_cuda={learner.lr: 1e-5}", "on_cuda.learner.lr=1e-4"], "learner.lr", 1e-4),
        ("on_cuda: {learner: {lr: 1e-5}}", ["on_cuda={learner.lr: 1e-4}"], "learner.lr", 1e-4),
        ("on_cuda: {cluster: {kind: apart, nodes: 2}}", ["cluster.kind=auto"], "cluster.kind", "auto"),
        ("on_cuda: {cluster: {kind: apart, nodes: 2}}", ["cluster.kind=colocated"], "cluster.nodes", 2),  # both kinds have it
        ("on_cuda: {budget: {kind: controller, within: 0.1}}", ["budget.kind=toggle", "data.instruction=''"], "budget.kind", "toggle"),
    ],
)
def test_what_is_said_later_holds_on_gpus_too_however_it_is_written(before: str, words: list[str], place: str, expected: object):
    held = on_device(made(f"extends: dler\n{before}", *words), "cuda")
    assert attrgetter(place)(held) == expected
