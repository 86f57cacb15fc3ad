"""Recipes: what resolves, what is refused and with which sentence."""

from __future__ import annotations

import re
from math import isfinite
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recipes.keys import keys, nearest
from recipes.loader import RecipeError, dump, load, recipe_hash, scales, shipped
from recipes.reference import reference
from recipes.schema import Recipe

NAMES = [key.name for key in keys()]
LEAVES = {name.rpartition(".")[2] for name in NAMES}
ROOT = Path(__file__).parents[2]

BROKEN = {
    # text of mine.yaml -> what the one line must say behind the file's name
    "sampler:\n  gruop_size: 8": "2: sampler.gruop_size: unknown key. Did you mean sampler.group_size? (laconic recipes --keys lists all)",
    "smapler:\n  prompts: 8": "1: smapler: unknown key. Did you mean sampler?",
    "group_size: 8": "1: group_size: unknown key. Did you mean sampler.group_size?",
    "learner:\n  group_size: 8": "2: learner.group_size: unknown key. Did you mean sampler.group_size?",
    "kl: {coef: 1}": "1: kl: unknown key. Did you mean objective.kl?",
    "objective:\n  kl:\n    coeff: 1": "3: objective.kl.coeff: unknown key. Did you mean objective.kl.coef?",
    "learner.lr: 1e-5": "1: learner.lr: a key of a file has no dots; write `learner:` and the rest indented below it",
    "zzzzzz: 1": "1: zzzzzz: unknown key. (laconic recipes --keys lists all)",
    "reward: [{kind: verdict}, {kind: truncate, kep: 0}]": "1: reward[1].kep: unknown key. Did you mean reward[1].keep?",
    "sampler:\n  prompts: 0": "2: sampler.prompts: 0 is not allowed; needs a whole number, at least 1",
    "sampler:\n  prompts: 8.5": "2: sampler.prompts: 8.5 is not allowed; needs a whole number, at least 1",
    "sampler:\n  prompts: true": "2: sampler.prompts: true is not allowed; needs a whole number, at least 1",
    'sampler:\n  prompts: "8"': '2: sampler.prompts: "8" is not allowed; needs a whole number',
    "sampler: 8": "1: sampler: 8 is not allowed; needs a mapping of keys",
    "sampler:": "1: sampler: null is not allowed; needs a mapping of keys",
    "learner:\n  lr: fast": '2: learner.lr: "fast" is not allowed; needs a number, above 0',
    "learner:\n  lr: -1e-6": "2: learner.lr: -1e-06 is not allowed; needs a number, above 0",
    "learner:\n  lr: 1e999": "learner.lr: Infinity is not allowed; needs a number, above 0",
    "learner:\n  zero_stage: 4": "2: learner.zero_stage: 4 is not allowed; needs one of 0, 1, 2, 3",
    "model:\n  dtype: fp16": '2: model.dtype: "fp16" is not allowed; needs one of fp32, bf16',
    "objective:\n  kl:\n    estimator: k4": '3: objective.kl.estimator: "k4" is not allowed; needs one of k1, k2, k3',
    "objective:\n  clip_low: 0": "2: objective.clip_low: 0 is not allowed; needs a number, above 0",
    "objective:\n  dual_clip: 1": "2: objective.dual_clip: 1 is not allowed; needs a number, above 1 or null",
    "judge:\n  not_judged_limit: 2": "2: judge.not_judged_limit: 2 is not allowed; needs a number, at least 0 and at most 1",
    "tiny:\n  families: [chain, sums]": '2: tiny.families[1]: "sums" is not allowed; needs one of chain, product, sum, linear',
    "eval:\n  data: tiny": '2: eval.data: "tiny" is not allowed; needs a list of texts',
    "reward: []": "1: reward: [] is not allowed; needs a list (at least 1) of mappings",
    "reward:\n- kind: verdict\n- kind: length": '3: reward[1].kind: "length" is not allowed; needs one of verdict, truncate, cut, kl, format',
    "reward:\n- weight: 1": "2: reward[0].kind: missing; needs one of verdict, truncate, cut, kl, format, function",
    "reward: [{kind: verdict}, {kind: function}]": "1: reward[1].name: missing; needs text",
    "reward: [{kind: verdict}, {kind: function, name: mine}]": '1: reward[1].name: "mine" is not allowed; needs text, matching',
    "waive: [right_beats_wrong, length_of_wrong, right_beats_wrong]": "1: waive: right_beats_wrong is said twice; say it once",
    "waive: [length_of_wrong, length_of_wrong]": "1: waive: length_of_wrong is said twice; say it once",
    "reward: [{kind: truncate}]": "1: reward: no verdict term: nothing would tell right from wrong",
    "sampler:\n  group_size: 1": "2: sampler.group_size: 1: advantage.centre group compares rollouts of one prompt and needs at least 2",
    "sampler:\n  prompts: 30\nlearner:\n  updates_per_step: 4": "4: learner.updates_per_step: 4 does not divide sampler.prompts 30",
    "sampler:\n  prompts: 30\nextends: dler": "2: learner.updates_per_step: 8 does not divide sampler.prompts 30",
    "model:\n  dtype: bf16\nlearner:\n  zero_stage: 0": "4: learner.zero_stage: 0 with model.dtype bf16 would train without fp32 master weights",
    "budget:\n  kind: difficulty": "budget.ladder: missing; needs a list of mappings",
    "budget: {kind: difficulty, ladder: [{at_least: 0.5}]}": "1: budget.ladder: rungs must fall in at_least and end with one",
    "budget: {kind: difficulty, ladder: [{at_least: 0.5}, {at_least: 0.5, share: 0.5}, {}]}": "1: budget.ladder: rungs must fall in at_least",
    "budget: {kind: difficulty, ladder: [{share: 0.5}, {}]}": "1: budget.ladder: rungs must fall in at_least",
    "objective:\n  correction: {kind: tis}": "2: objective.correction: with old_logprobs: engine the ratio already holds it",
    "stages: []": "1: stages: [] is not allowed; needs a list (at least 1) of cold_start, reference, sft, dpo, rl, merge, eval, or mappings",
    "name: ../b": '1: name: "../b" cannot name a folder; take',
    "name: b/c": '1: name: "b/c" cannot name a folder; take',
    "eval: {temperature: 0, samples: 4}": "4 greedy rollouts (eval.temperature 0) would all be the same; set 1",
    "stages: [cold_start, rl]\nmodel: {path: other}": "2: stages[0]: cold_start makes the tiny reasoner",
    "stages: [rl, cold_start]": "1: stages[1]: cold_start makes the model from nothing, so what ran before would be lost; put it first",
    "stages:\n- rl\n- eval\n- rl\n- eval": "4: stages[2]: a second stage named rl would write the same folder; name it (name: ...)",
    "stages: [{kind: rl, name: merge}, merge]": "1: stages[1]: a second stage named merge would write the same folder",
    "stages: [rl, {kind: eval, name: after}]": "1: stages[1]: an eval directly behind rl is a part of that stage; leave its name out",
    "stages: [rl, {kind: eval, changes: {eval.samples: 2}}]": "1: stages[1]: an eval directly behind rl is a part of that stage; leave its changes out",
    "stages: [merge]": "1: stages[0]: merge takes over what rl changed, and no rl stage comes before it",
    "stages: [rl, dpo]": "1: stages[1]: dpo learns from answers that a reference stage sampled, and none comes before it; put `reference` before it",
    "stages: [sft, rl, eval]": "where the tiny reasoner's first training is meant: sft is now called cold_start",
    "stages: [sft]\nmodel: {path: other}": "1: stages[0]: sft learns from answers that a reference stage sampled, and none comes before it",
    "sft: {steps: 9}": "1: sft: unknown key. sft is now called cold_start.",
    "stages: [{kind: rl, steps: 9}]": "1: stages[0].steps: unknown key.",
    "stages: [{kind: merge, kep: 1}]": "1: stages[0].kep: unknown key. Did you mean stages[0].keep?",
    "stages:\n- kind: rl\n  changes:\n    budget.limt: 9": "4: budget.limt: unknown key. Did you mean budget.limit? (laconic recipes --keys lists all) (in stages[0].changes)",
    "stages:\n- kind: rl\n  changes:\n    budget: {limit: -9}": "4: budget.limit: -9 is not allowed; needs a whole number, at least 1 (in stages[0].changes)",
    "stages:\n- kind: rl\n  changes:\n    learner.updates_per_step: 7": "4: learner.updates_per_step: 7 does not divide sampler.prompts 32 (in stages[0].changes)",
    "stages: [{kind: rl, changes: {name: other}}]": "1: stages[0]: changes: name has no place in it",
    "stages: [{kind: rl, changes: {on_cuda.learner.ranks: 1}}]": "1: stages[0]: changes: on_cuda has no place in it",
    "on_cuda: {sampler.prompts: 30}\nstages: [{kind: rl, changes: {learner.updates_per_step: 4}}]": "2: learner.updates_per_step: 4 does not divide sampler.prompts 30",
    "name: -b": '1: name: "-b" cannot name a folder; take',
    "reward: [{kind: verdict, wrong: -1.0e+16}]": "1: reward[0].wrong: beyond what any number here may be, 1e+15",
    "reward: [{kind: verdict}, {kind: function, name: 'a:b', low: 0.5, high: 0.25}]": "1: reward[1].low: 0.5 is above high 0.25",
    "waive: [right_beats_wrong, right_beats_wrong]": "1: waive: right_beats_wrong is said twice; say it once",
    "sampler: {no_thinking: 0.99, group_size: 4}\nobjective: {old_logprobs: learner}": "0.99 of 4 rollouts is none or all of them",
    "advantage: {combine: each_leave_one_out}": "1: advantage.combine: each_leave_one_out gives every term its own scale",
    "advantage: {centre: leave_one_out, scale: batch_rewards}": "1: advantage.scale: batch_rewards with centre leave_one_out can exceed",
    "advantage: {centre: reference, scale: none, combine: each}": "so combine each does not fit; take sum",
    "select: {kind: max_variance, keep: 4, scope: batch}": "1: select.scope: batch compares rollouts of several prompts",
    "select: {kind: shortest, keep: 1}": "1: select.keep: 1: expected 2 to sampler.group_size 8 rollouts",
    "select: {kind: shortest, keep: 9}": "1: select.keep: 9: expected 2 to sampler.group_size 8 rollouts",
    "select: {kind: efficient, keep: 4}\nreward: [{kind: verdict}, {kind: format}]": "select.kind: efficient with format, a term that tells wrong answers apart",
    "objective: {correction: {kind: icepop}}": "1: objective.correction: with old_logprobs: engine the ratio already holds it",
    "objective: {old_logprobs: learner, correction: {kind: sequence_mask, low: 0.9, high: 1.001}}": "so narrow, sequence_mask drops short rollouts",
    "objective: {surrogate: logp, dual_clip: 3.0}": "1: objective.dual_clip: says nothing with surrogate logp",
    "credit: {kind: drpo}\nobjective: {surrogate: logp}": "2: credit.kind: drpo weighs mean logprobs of rollouts, not surrogate logp and aggregate token_mean",
    "schedule: {budget.limit: {kind: linear, to: 9, share: 0.5}}": "to: say either to or share",
    "schedule: {budget.limit: {kind: staged, stages: [{since: 3, value: 9}, {since: 3, value: 8}]}}": "since [3, 3]: each must come after the one before",
    "schedule: {budget.limit: {kind: exponential, factor: 0.5, every: 2, least: 129}}": "budget.limit: least 129 is above 128, where it starts",
    "schedule: {objective.entropy.coef: {kind: linear, to: 0.1}}\nobjective: {entropy: {kind: adaptive, target: 0.5}}": "with objective.entropy.kind adaptive the weight adapts",
    "budget: {kind: difficulty, limit: 4, ladder: [{share: 0.1}]}": "1: budget.ladder: a share of limit 4 is less than one token",
    "budget: {kind: outlier, alpha: 2.5}": "1: budget.alpha: 2.5: among 8 rollouts none lies more than 2.475 deviations above their mean",
    "budget: {kind: controller, watch: 2.0, also: [{kind: coverage}]}": "here watch is 2 every 1 and 4 every 20",
    "eval: {budgets: [{kind: forced, limit: 321}]}": "1: eval.budgets: forced 321 is more than max_tokens 320, where samples end",
    "eval: {budgets: [{kind: short, first: 1, of: 1}]}": "1: eval.budgets: short 1@1: of 2 or more chains at most all can vote",
    "eval: {temperature: 0, samples: 1, budgets: [{kind: short, first: 1, of: 2}]}": "at temperature 0 all chains are alike",
    "eval: {budgets: [{kind: forced, limit: 9}, {kind: forced, limit: 9}]}": "1: eval.budgets: forced 9 stands there twice",
    "stages: [sft, reference, rl]\nmodel: {path: other}": "1: stages[0]: sft learns from answers that a reference stage sampled, and none comes before it",
    "stages: [{kind: rl, name: a}, {kind: rl, name: A}]": "1: stages[1]: a second stage named A would write the same folder",
    "stages: [{kind: rl, changes: {tiny.width: 64}}]": "1: stages[0]: changes: tiny.width has no place in it",
    "reward: [{kind: verdict}, {kind: cut}]\nwaive: [right_beats_wrong]": "reward: cut pays wrong answers for their length",
    "reward: [{kind: verdict}, {kind: function, name: 'a:b', gate: right, low: -2.0}]\nwaive: [right_beats_wrong]\ncredit: {kind: gtpo}": "credit.kind: gtpo gives wrong answers -base whatever they earn",
    "seed: 1\nseed: 2": "2: seed: written twice (first at mine.yaml:1)",
    "seed: [1": "not YAML",
    "a: 1\n\tb: 2": "2: not YAML",
    "extends: dlre": "1: extends: dlre: no such recipe. Did you mean dler? Shipped: adaptthink, alp",
    "extends: mine.yaml": "extends itself: mine -> mine",
    "extends: 3": "1: extends: 3 is not allowed; needs the name of a recipe",
    "extends: ../other.yaml": "no such file",
    "- seed: 1": "needs `key: value` lines, found something else",
    "": "needs `key: value` lines, found nothing",
    "seed: &a 1": "1: anchors and aliases are not used in recipes",
    "name: !!python/object/apply:os.system [id]": "1: tags (tag:yaml.org,2002:python/object/apply:os.system) are not used",
    "seed: 1\n---\nseed: 2": "not YAML",
    "seed: " + "[" * 5000: "1: nested more than 12 deep",
    "? [a]\n: 1": "1: a key must be a name",
    "name: " + "x" * 300_000: "larger than 256 KiB",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: text[:40])
def test_a_broken_recipe_is_refused_with_the_right_sentence(here: Path, text: str):
    (here / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError) as refusal:
        load("mine.yaml")
    assert BROKEN[text] in str(refusal.value)
    assert "mine.yaml" in str(refusal.value) or "other.yaml" in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_bytes_that_are_no_text_are_refused(here: Path):
    (here / "mine.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(RecipeError, match=r"mine\.yaml: not UTF-8"):
        load("mine.yaml")


def test_every_problem_gets_its_line(here: Path):
    (here / "mine.yaml").write_text("seed: -1\nsampler:\n  prompt: 8\nlearner:\n  lr: 0\n")
    with pytest.raises(RecipeError) as refusal:
        load("mine.yaml")
    starts = [" ".join(line.split(": ")[:2]) for line in str(refusal.value).splitlines()]
    assert starts == ["mine.yaml:1 seed", "mine.yaml:3 sampler.prompt", "mine.yaml:5 learner.lr"]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("sampler.gruop_size=4", "-- sampler.gruop_size=4: sampler.gruop_size: unknown key. Did you mean sampler.group_size?"),
        (
            "cluster[colocated].offload=false",
            "-- cluster[colocated].offload=false: cluster[colocated]: unknown key. Did you mean cluster.offload, with cluster.kind=colocated?",
        ),
        ("credit[gtpo].normalise=true", ": credit[gtpo]: unknown key. Did you mean credit.normalise, with credit.kind=gtpo?"),
        (
            "learner.adapter[lora].rank=4",
            ": learner.adapter[lora]: unknown key. Did you mean learner.adapter.rank, with learner.adapter.kind=lora?",
        ),
        (
            "learner.adapter.rank=4",
            ": learner.adapter.rank: unknown key. Did you mean learner.adapter.rank, with learner.adapter.kind=lora?",
        ),
        ("reward[truncate].keep=0", ": reward[truncate]: unknown key. Did you mean an entry of reward with kind: truncate?"),
        ("budget[nosuch].limit=9", ": budget[nosuch]: unknown key. "),
        ("zzz[x].y=0", ": zzz[x]: unknown key."),
        ("learner.lr=abc", '-- learner.lr=abc: learner.lr: "abc" is not allowed; needs a number, above 0'),
        ("learner.lr", "-- learner.lr: not an override; write key=value"),
        (".lr=3", "not an override; write key=value"),
        (
            "budget.every={a: 1}",
            ': budget.every: {"a": 1} is not allowed; needs a whole number, at least 1',
        ),  # of a kind that is not the slot's
        ("seed.deep=1", '-- seed.deep=1: seed: {"deep": 1} is not allowed; needs a whole number'),
        (
            "stages=[rl, eva]",
            '-- stages=[rl, eva]: stages[1]: "eva" is not allowed; needs one of cold_start, reference, sft, dpo, rl, merge, eval. Did you mean eval?',
        ),
        ("stages=[rl", "not YAML"),
        ("stages=[rl]\nseed: 3", "holds more than one value"),
        ("stages=[cold_start, merge]", "-- stages=[cold_start, merge]: stages[1]: merge takes over what rl changed"),
    ],
)
def test_a_wrong_override_is_named_as_it_was_typed(word: str, sentence: str):
    with pytest.raises(RecipeError) as refusal:
        load("quickstart", overrides=[word])
    assert sentence in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(RecipeError, match=r"quikstart: no such recipe. Did you mean quickstart\? Shipped: .*dler.* end in .yaml"):
        load("quikstart")
    with pytest.raises(RecipeError, match=r"huge: no such scale. Shipped: gpu1-24, gpu1-80, node8-colocated, node8, tiny"):
        load("dler", "huge")
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: no such file"):
        load("nowhere.yaml")


def test_later_wins_and_mappings_merge_and_lists_are_replaced(here: Path):
    (here / "base.yaml").write_text("learner: {lr: 1e-5, ranks: 2}\nengine: {vllm: {a: 1, b: 2}}\neval: {data: [tiny, x.jsonl]}\n")
    (here / "mine.yaml").write_text("extends: base.yaml\nlearner: {ranks: 3}\nengine: {vllm: {b: 3}}\n")
    (here / "big.yaml").write_text("learner: {threads: 7}\neval: {data: [y.jsonl]}\n")
    recipe = load("mine.yaml", "big.yaml", ["learner.threads=9", "engine.vllm.c=true"])
    assert (recipe.learner.lr, recipe.learner.ranks, recipe.learner.threads) == (1e-5, 3, 9)
    assert recipe.engine.vllm == {"a": 1, "b": 3, "c": True}
    assert recipe.eval.data == ["y.jsonl"]
    assert recipe.name == "mine-big"


def test_scalars_mean_what_they_look_like():
    words = ["learner.lr=1e-5", "wandb=no", "name=1:30", "data.instruction=Answer: yes, please # not a comment", "model.revision='7'"]
    recipe = load("quickstart", overrides=words)
    assert recipe.learner.lr == 1e-5
    assert (recipe.wandb, recipe.name, recipe.model.revision) == ("no", "1:30", "7")
    assert recipe.data.instruction == "Answer: yes, please # not a comment"
    assert load("quickstart", overrides=["wandb="]).wandb is None


COMBINATIONS = [(name, scale) for name in shipped() for scale in (None, *scales())]


@pytest.mark.parametrize(("name", "scale"), COMBINATIONS)
def test_a_resolved_recipe_loads_to_the_same_hash(here: Path, name: str, scale: str | None):
    recipe = load(name, scale)
    (here / "recipe.yaml").write_text(dump(recipe))
    again = load("recipe.yaml")
    assert again == recipe
    assert recipe_hash(again) == recipe_hash(recipe)
    assert len(recipe_hash(recipe)) == 12


@settings(deadline=None, max_examples=60)
@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12),
    st.floats(1e-12, 1e3),
    st.sampled_from([0, 0.0, "1e5", "no", [None], True]),
)
@example("\x85", 1.0, 0)  # a line break to YAML 1.1
def test_any_text_and_number_survives_the_resolved_recipe(
    tmp_path_factory: pytest.TempPathFactory, text: str, number: float, option: object
):
    recipe = load("quickstart")
    recipe = recipe.model_copy(
        update={
            "wandb": text,
            "learner": recipe.learner.model_copy(update={"lr": number}),
            "engine": recipe.engine.model_copy(update={"vllm": {"option": option, text: [text]}}),
        }
    )
    path = tmp_path_factory.mktemp("resolved") / "recipe.yaml"
    path.write_text(dump(recipe), encoding="utf-8")
    assert recipe_hash(load(str(path))) == recipe_hash(recipe)


@pytest.mark.parametrize("marks", [["<a>", ""], ["", "</a>"], ["<a>", "<a>"], [" ", "</a>"], ["<a>", "<a>final"], ["<a>open", "<a>"]])
def test_marks_of_thinking_that_cannot_be_told_apart_are_refused(marks: list[str]):
    with pytest.raises(
        RecipeError, match=r"data\.thinking: \[.*\]: one of these marks is empty or within the other; name what opens and what"
    ):
        load("quickstart", overrides=[f"data.thinking={marks}"])


def test_changing_a_value_changes_the_hash():
    hashes = {recipe_hash(load("quickstart", overrides=[word])) for word in ("seed=0", "seed=1", "learner.lr=3e-4", "eval.every=5")}
    assert len(hashes) == 4


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_misspelled_key_is_recognised(data: st.DataObject):
    name = data.draw(st.sampled_from([name for name in NAMES if len(name.rpartition(".")[2]) > 2]))
    section, dot, leaf = name.rpartition(".")
    at = data.draw(st.integers(0, len(leaf) - 2))
    kind = data.draw(st.sampled_from(["drop", "swap", "double", "replace"]))
    wrong = {
        "drop": leaf[:at] + leaf[at + 1 :],
        "swap": leaf[:at] + leaf[at + 1] + leaf[at] + leaf[at + 2 :],
        "double": leaf[:at] + leaf[at] + leaf[at:],
        "replace": leaf[:at] + "q" + leaf[at + 1 :],
    }[kind]
    if wrong not in LEAVES:
        assert nearest(section + dot + wrong, NAMES) == name


@pytest.mark.parametrize(
    ("wrong", "close"),
    [
        ("learner.foo", None), ("foo", None), ("objective.foo", None), ("budget.x", None),
        ("learner.warmup", "learner.warmup_steps"), ("eval.sample", "eval.samples"), ("budget.perod", "budget[toggle].period"),
        ("learner.gruop_size", "sampler.group_size"), ("train.lr", "learner.lr"), ("bugdet.limt", "budget.limit"), ("limt", "budget.limit"),
    ],
)  # fmt: skip
def test_the_nearest_key_is_of_the_same_section_or_else_a_near_one(wrong: str, close: str | None):
    assert nearest(wrong, NAMES) == close


def test_an_unknown_key_in_changes_is_not_likened_to_one_of_elsewhere():
    with pytest.raises(RecipeError, match=r"learner\.foo: unknown key\. \(laconic recipes --keys lists all\)"):
        load("dler", "tiny", ["stages=[{kind: rl, changes: {learner.foo: 1}}]"])


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([name for name in NAMES if "." in name and "[" not in name]))
def test_a_misspelled_key_is_refused_with_the_right_one(name: str):
    section, _, leaf = name.rpartition(".")
    if len(leaf) > 2:
        with pytest.raises(RecipeError, match=f"Did you mean {name}\\?"):
            load("quickstart", overrides=[f"{section}.{leaf}q=1"])


def test_the_dler_preset_is_the_papers_card():  # arXiv 2510.15110
    recipe = load("dler")
    sampler, objective, learner = recipe.sampler, recipe.objective, recipe.learner
    assert (sampler.prompts, sampler.group_size, sampler.temperature, sampler.keep_groups) == (512, 16, 1.0, "raw")
    assert sampler.prompts // learner.updates_per_step == 64
    assert (recipe.budget.limit, recipe.reward[1].kind, recipe.reward[1].keep) == (4000, "truncate", 0.0)
    assert (recipe.advantage.centre, recipe.advantage.scale, recipe.advantage.boost) == ("group", "batch", 0.0)
    assert (objective.clip_low, objective.clip_high, objective.dual_clip, objective.aggregate) == (0.2, 0.28, None, "token_mean")
    assert (objective.kl.estimator, objective.kl.coef, objective.entropy.coef) == ("k2", 5e-4, 0.0)
    assert (learner.lr, learner.weight_decay, learner.grad_clip, learner.warmup_steps, recipe.train.steps) == (1e-6, 0.01, 1.0, 0, 450)


def test_the_release_preset_is_the_card_of_its_bundled_script():  # verl-dler/dler_slurm.sh
    recipe = load("dler_release")
    assert recipe.objective.old_logprobs == "learner"
    assert (recipe.sampler.prompts, recipe.learner.updates_per_step) == (256, 4)
    assert recipe.reward[1].keep == 0.1
    assert (recipe.advantage.scale, recipe.advantage.ddof, recipe.advantage.boost) == ("batch_tokens", 1, 0.1)
    assert (recipe.objective.dual_clip, recipe.objective.kl.estimator, recipe.objective.kl.coef) == (10.0, "k3", 5e-4)


def test_da_dler_halves_the_limit_of_easy_prompts():
    recipe = load("da_dler")
    assert [(rung.at_least, rung.share * recipe.budget.limit) for rung in recipe.budget.ladder] == [(0.5, 2000), (0.0, 4000)]
    assert (recipe.sampler.keep_groups, recipe.train.steps) == ("shaped", 150)


def test_a_scale_changes_sizes_and_keeps_the_method():
    for name in ("dler", "dler_release", "da_dler"):
        recipe, small = load(name), load(name, "tiny")
        assert [stage.kind for stage in small.stages] == ["rl", "eval"]
        assert small.model.path == "tiny"
        assert (small.objective, small.advantage, small.reward, small.sampler.keep_groups) == (
            recipe.objective,
            recipe.advantage,
            recipe.reward,
            recipe.sampler.keep_groups,
        )
    quickstart = load("quickstart").model_dump(exclude={"name"})
    assert quickstart == load("dler", "tiny").model_dump(exclude={"name"})


def test_the_reference_page_is_current():
    page = ROOT / "docs" / "recipes.md"
    assert page.read_text(encoding="utf-8") == reference(), "run `python -m recipes.reference`"


def test_every_key_says_what_it_means_and_what_it_takes():
    for key in keys():
        assert key.description.endswith("."), key.name
        assert key.allowed, key.name


def test_defaults_read_like_yaml():
    defaults = {key.name: key.default_text for key in keys()}
    assert defaults["reward"] == "[{kind: verdict, weight: 1.0, wrong: 0.0}, {kind: truncate, keep: 0.0}]"
    assert defaults["reward[truncate].kind"] == "needed"
    assert defaults["model.revision"] == "null"
    assert defaults["data.instruction"] == "''"
    assert (defaults["engine.vllm"], defaults["budget.kind"], defaults["stages"]) == ("{}", "constant", "[rl]")
    for key in keys():
        if key.default is not ... and key.name not in ("reward", "stages"):
            assert yaml.safe_load(key.default_text) == key.default, key.name


def test_bf16_comes_with_sharded_gradients_unless_a_recipe_says_otherwise():
    for recipe in (load("dler"), load("dler", "node8"), load("da_dler", "node8")):
        assert (recipe.model.dtype, recipe.learner.zero_stage) == ("bf16", 2)
    assert load("dler", "tiny").learner.zero_stage == 0


@pytest.mark.parametrize("budget", [{"kind": "coverage", "watch": 0.01}, {"kind": "controller", "watch": 0.01}])
def test_a_budget_that_would_watch_no_problem_is_refused(budget):
    with pytest.raises(ValueError, match=r"budget\.watch: 0\.01 x sampler\.prompts 32 is not one problem; raise it"):
        Recipe.model_validate({"budget": budget})


@pytest.mark.parametrize(
    ("term", "reads"),
    [
        ("{kind: profiled}", True),
        ("{kind: nemo_band}", True),
        ("{kind: scaling, profiled: true}", True),
        ("{kind: scaling}", False),
        ("{kind: relative}", False),
    ],
)
def test_a_recipe_knows_whether_its_terms_read_columns_of_the_data(term: str, reads: bool):
    assert load("grpo", "tiny", [f"reward=[{{kind: verdict}}, {term}]"]).reads_columns is reads


@pytest.mark.parametrize("combine", ["each", "each_leave_one_out"])
def test_leash_is_refused_where_each_term_is_normalised_by_itself(combine):
    reward = [{"kind": "verdict", "wrong": -1.0}, {"kind": "leash"}]
    waive = ["right_beats_wrong", "length_of_wrong"]
    with pytest.raises(
        ValueError, match=rf"reward: leash moves its own weight, which advantage\.combine {combine} normalises away; say combine: sum"
    ):
        Recipe.model_validate({"reward": reward, "advantage": {"combine": combine}, "waive": waive})
    assert Recipe.model_validate({"reward": reward, "waive": waive}).advantage.combine == "sum"


EXTREMES = ["1e308", "-1e308", "5e-324", "1e16", "1000.0", "0", "1" + "0" * 400, "-1" + "0" * 30]


def numbers_of(slot: str) -> list[str]:
    """Recipes, as words, that set one number of each kind of a slot to `{}`."""
    items = [re.fullmatch(rf"{slot}\[(\w+)\]\.(\w+)", key.name) for key in keys() if "number" in key.allowed]
    return [f"kind: {item[1]}, {item[2]}: {{}}" for item in items if item]


@pytest.mark.parametrize("extreme", EXTREMES, ids=lambda text: text[:8])
def test_no_number_ends_in_a_traceback(extreme: str):
    """Whatever a number is, a recipe is either loaded, with finite bounds of its reward, or refused in words."""
    plain = [[f"{key.name}={extreme}"] for key in keys() if "number" in key.allowed and "[" not in key.name]
    slots = [[f"{slot}={{{item.format(extreme)}}}"] for slot in ("budget", "select", "credit", "tokens") for item in numbers_of(slot)]
    apart = [[f"budget.kind={kind}", f"budget.{name}={extreme}"] for kind in ("coverage", "controller") for name in ("watch", "limit")]
    more = {"kl": ", weight: 0.1", "function": ", name: 'a:b'"}
    terms = [
        [f"reward=[{{kind: verdict}}, {{{item.format(extreme)}{more.get(item.split()[1][:-1], '')}}}]"] for item in numbers_of("reward")
    ]
    moves = [
        "linear, to: {}",
        "decays, count: 2, share: {}",
        "exponential, every: 1, factor: {}",
        "staged, stages: [{{since: 1, value: {}}}]",
    ]
    lead = "reward=[{kind: verdict}, {kind: lead}]"
    scheduled = [
        [lead, "train.steps=9", f"schedule={{{name}: {{kind: {move.format(extreme)}}}}}"]
        for name in ("reward.lead.alpha", "budget.limit", "learner.lr")
        for move in moves
    ]
    for words in [*plain, *slots, *apart, *terms, *scheduled]:
        try:
            recipe = load("grpo", "tiny", [*words, "waive=[right_beats_wrong, length_of_wrong]"])
        except RecipeError as error:
            assert str(error)
        else:
            assert isfinite(recipe.margin) and isfinite(recipe.most_tokens)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("budget.room=1e308", "budget.room: beyond what any number here may be, 1e+15"),
        ("seed=10000000000000000000", "seed: beyond what any number"),
        ("reward=[{kind: verdict}, {kind: lead, alpha: 1000.0}]", "reward: lead may add up to 1.01e+304 in size, and rewards keep below 1e+09; take"),
        ("reward=[{kind: verdict, weight: 1e12}]", "reward: verdict may add up to 1e+12 in size"),
        ("schedule={budget.limit: {kind: exponential, factor: 1e10, every: 1}}", "at step 2 is not allowed: beyond what any number"),
    ],
)  # fmt: skip
def test_a_number_beyond_all_measure_is_refused_in_words(words: str, sentence: str):
    with pytest.raises(RecipeError, match=re.escape(sentence)):
        load("grpo", "tiny", [words, "waive=[right_beats_wrong]"])


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens", "model.embed_tokens"])
def test_adapters_of_heads_and_embeddings_are_refused(name: str):
    with pytest.raises(RecipeError, match=rf"{name}: the output head and embeddings have no adapter here; leave it out"):
        load("grpo", overrides=[f"learner.adapter={{kind: lora, targets: [q_proj, {name}]}}"])
