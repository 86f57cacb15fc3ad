"""What stages come to: the recipe that holds in each, the folder it writes, what it sees of those before it, and what plan says of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from evaluation.model import model_of
from launch.evaluate import Question, recipe_for, recipe_of
from launch.explain import explain
from launch.machine import Machine
from launch.memory import GB
from launch.plan import Plan, plan
from recipes.keys import keys, sections
from recipes.loader import RecipeError, dump, load, on_device, recipe_hash
from recipes.schema import Recipe
from recipes.stages import _FIXED, AnyStage, RlStage
from recipes.steps import Step, beginning, steps
from rl.run import Run
from rollout.template import load_template

LAPTOP = Machine(2, 16 * GB)
NODE = Machine(64, 512 * GB, (80 * GB,) * 4, "cuda")
PIPELINE = (
    "stages=[cold_start, {kind: eval, name: before}, reference, sft, {kind: rl, name: phase_1, changes: {budget.limit: 208, train: {steps: 5}}}, "
    "eval, {kind: rl, changes: {budget: {kind: controller}, schedule.learner.lr: {kind: linear, to: 1e-5}}}, eval, merge, {kind: eval, name: merged}]"
)


def planned(*words: str, name: str = "dler", machine: Machine = LAPTOP) -> Plan:
    return plan(load(name, "tiny", list(words)), machine)


def by_name(*words: str) -> dict[str, Step]:
    return {step.stage.called: step for step in steps(load("dler", "tiny", list(words)))}


def test_changes_hold_in_their_stage_alone_and_the_rest_is_the_recipes():
    found = by_name(PIPELINE)
    assert list(found) == ["before", "reference", "sft", "phase_1", "rl", "merge", "merged"]
    assert [(step.recipe.budget.limit, step.recipe.train.steps) for step in (found["phase_1"], found["rl"], found["sft"])] == [
        (208, 5), (104, 34), (104, 34),
    ]  # fmt: skip
    assert [step.recipe.budget.kind for step in found.values()].count("controller") == 1
    assert list(found["rl"].recipe.schedule) == ["learner.lr"] and not found["phase_1"].recipe.schedule


def test_the_eval_behind_rl_is_a_part_of_it_and_other_evals_are_steps():
    kinds = [[stage.kind for stage in step.recipe.stages] for step in by_name(PIPELINE).values()]
    assert kinds == [["eval"], ["reference"], ["sft"], ["rl", "eval"], ["rl", "eval"], ["merge"], ["eval"]]


def test_the_record_of_the_last_rl_stage_is_the_runs_own_and_of_the_last_eval_without_one():
    run = Path("run")
    folders = {name: str(step.folder(run)) for name, step in by_name(PIPELINE).items()}
    assert folders["rl"] == "run" and folders["phase_1"] == "run/stages/phase_1" and folders["merged"] == "run/stages/merged"
    assert by_name("stages=[{kind: eval, name: a}, {kind: eval, name: b}]")["b"].own
    assert not any(step.own for step in by_name("stages=[{kind: reference, problems: 2}, sft]").values())


def test_a_stage_sees_the_reference_before_it_and_not_one_behind():
    found = by_name("stages=[{kind: rl, name: first}, {kind: reference, name: looked}, rl]")
    assert (found["first"].given, found["looked"].given, found["rl"].reference.stage.called) == ((), (), "looked")
    assert "reference_accuracy" in found["rl"].given


@pytest.mark.parametrize(
    ("problems", "rows", "steps", "expected"),
    [(0, None, 3, 72), (0, 50, 3, 50), (0, 500, 3, 72), (9, None, 3, 9), (0, 50, 0, 50), (0, None, 0, 0), (9, 50, 0, 9)],
)
def test_a_reference_samples_what_the_next_rl_stage_draws_but_no_more_rows_than_there_are(problems, rows, steps, expected):
    rl = f", {{kind: rl, changes: {{train.steps: {steps}}}}}" if steps else ""
    assert by_name(f"stages=[{{kind: reference, problems: {problems}}}{rl}]")["reference"].problems(rows) == expected


def test_plan_says_where_an_rl_stage_draws_more_than_the_reference_samples(tiny_checkpoint: Path, tmp_path: Path):
    """Of ten problems a reference of ten samples all, whatever is drawn; `dler` reads nothing of it, so it trains on all data."""
    for name, count in ("small", 4), ("large", 6):
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps({"problem": f"{name} {n} + 1", "answer": str(n + 1)}) + "\n" for n in range(count))
        )
    sets = json.dumps([{"source": str(tmp_path / "small.jsonl"), "weight": 9}, str(tmp_path / "large.jsonl")])
    rows = [f"data.train={sets}", f"model.path={tiny_checkpoint}", "eval.data=[tiny]"]
    hub = ["data.train=hub:owner/name", f"model.path={tiny_checkpoint}", "eval.data=[tiny]"]

    def warned(problems: int, *words: str, name: str = "o1_pruner", before: str = "") -> list[str]:
        stages = f"stages=[{{kind: reference, problems: {problems}}}{before}, rl]"
        return [line for line in planned(stages, "train.steps=3", *words, name=name).warnings if "prompts are drawn" in line]

    assert warned(20) == [
        "train.steps: 72 prompts are drawn, and stages[0] (reference) samples 20 problems: the stage trains on those alone; raise `problems` there, or draw less"
    ]
    assert warned(9, *rows)[0].startswith("train.steps: 72 prompts are drawn, and stages[0] (reference) samples 9 problems: ")
    assert "samples 9 problems, or all if the data have fewer: " in warned(9, *hub)[0]
    first = ", {kind: rl, name: first}"
    assert [line.partition(",")[0] for line in warned(0, before=first)] == [
        "rl: train.steps: 72 prompts are drawn behind 72 of other stages"
    ]
    for quiet in (
        warned(0),
        warned(72),
        warned(0, *rows),
        warned(10, *rows, before=first),
        warned(20, name="dler"),
        warned(0, *rows, before=first),
    ):
        assert quiet == []


@pytest.mark.parametrize(
    ("stages", "name", "unread"),
    [
        ("[reference, rl]", "dler", True), ("[reference, {kind: rl, name: first}, rl]", "dler", True), ("[reference, rl]", "o1_pruner", False),
        ("[reference, sft, rl]", "dler", False), ("[{kind: reference, problems: 4}, {kind: sft, data: [rows.jsonl]}]", "dler", True),
        ("[{kind: reference, problems: 4}]", "dler", False), ("[{kind: reference, problems: 4}, {kind: eval, name: e}]", "dler", False),
        ("[rl, {kind: reference, problems: 4}]", "dler", False),
        ("[reference, {kind: rl, changes: {reward: [{kind: verdict}, {kind: nemo_band}]}}]", "dler", False),
    ],
)  # fmt: skip
def test_a_reference_that_nothing_behind_reads_is_a_warning(stages: str, name: str, unread: bool):
    said = [line for line in planned(f"stages={stages}", name=name).warnings if "nothing behind reads what it samples" in line]
    assert len(said) == unread and all(line.startswith("stages[0] (reference): ") for line in said)


@pytest.mark.parametrize(
    ("stages", "unread"),
    [
        ("[{kind: reference, name: a}, {kind: reference, name: b}, rl]", ["a"]),
        ("[{kind: reference, name: a}, {kind: reference, name: b}, {kind: reference, name: c}, sft, rl]", ["a", "b"]),
        ("[{kind: reference, name: a}, sft, {kind: reference, name: b}, rl]", []),
        ("[{kind: reference, name: a}, rl, {kind: reference, name: b}, {kind: rl, name: two}]", []),
        ("[{kind: reference, name: a}, {kind: reference, name: b, problems: 4}, {kind: eval, name: e}]", []),
        ("[{kind: reference, name: a}, {kind: rl, changes: {reward: [{kind: verdict}]}}, {kind: reference, name: b}, {kind: rl, name: two}]", ["a"]),
        ("[rl, {kind: reference, name: a, problems: 4}, {kind: reference, name: b, problems: 4}]", []),
    ],
)  # fmt: skip
def test_of_references_in_a_row_those_that_another_hides_are_a_warning(stages: str, unread: list[str]):
    said = [line for line in planned(f"stages={stages}", name="o1_pruner").warnings if "nothing behind reads what it samples" in line]
    assert [line.partition("(")[2].partition(")")[0] for line in said] == unread
    assert all("its answers are what is read; leave it out" in line for line in said)


@pytest.mark.parametrize(
    ("reference", "rl", "said"),
    [
        ("data.instruction: Be brief.", "", "data.instruction"),
        ("", "data: {instruction: Be brief.}", "data.instruction"),
        ("data.template: {enable_thinking: false}", "data.instruction: Be brief.", "data.instruction and data.template"),
        ("data.instruction: Be brief.", "data.instruction: Be brief.", ""),
        ("data.max_prompt_tokens: 200", "", ""),
    ],
)
def test_a_reference_with_other_prompts_than_the_rl_that_reads_it_is_a_warning(reference: str, rl: str, said: str):
    def found(name: str) -> list[str]:
        stages = f"[{{kind: reference, changes: {{{reference}}}}}, {{kind: rl, changes: {{{rl}}}}}]"
        made = plan(load(name, None, ["model.path=owner/name", "data.train=hub:owner/name:train", f"stages={stages}"]), LAPTOP)
        return [line for line in made.warnings if "its prompts differ" in line]

    expected = f"stages[1] (rl): its prompts differ from those of stages[0] (reference) ({said}), of whose answers it reads reference_"
    assert [line.startswith(expected) for line in found("o1_pruner")] == [True] * bool(said)
    assert found("dler") == []  # which reads nothing of it


def test_a_cold_start_is_made_by_what_its_changes_say():
    assert beginning(load("dler", "tiny", ["stages=[{kind: cold_start, changes: {cold_start.steps: 9}}, rl]"])).cold_start.steps == 9
    assert beginning(load("dler", "tiny", ["stages=[{kind: rl, changes: {cold_start.steps: 9}}]"])).cold_start.steps == 1150


def test_changes_win_over_what_holds_on_a_gpu():
    recipe = load("dler", None, ["on_cuda={learner.ranks: 2, engine.count: 3}", "stages=[{kind: rl, changes: {learner.ranks: 1}}]"])
    for device, ranks, count in (("cuda", 1, 3), ("cpu", 1, 1)):
        [step] = steps(on_device(recipe, device))
        assert (step.recipe.learner.ranks, step.recipe.engine.count) == (ranks, count)


def test_the_recipe_of_a_stage_loads_to_the_same_hash(tmp_path: Path):
    for step in by_name(PIPELINE).values():
        if step.recipe.trains or step.recipe.stages[0].kind == "eval":  # these are written, each to its folder
            (tmp_path / "recipe.yaml").write_text(dump(step.recipe))
            assert recipe_hash(load(str(tmp_path / "recipe.yaml"))) == recipe_hash(step.recipe)


def test_what_stages_read_is_all_there_in_the_schema_and_rl_reads_all_that_may_change_but_the_cold_start():
    parts = [{"kind": "sft", "data": "rows.jsonl"}, "cold_start", "reference", "sft", "dpo", "rl", "merge", "eval"]
    read = {key for stage in (TypeAdapter(AnyStage).validate_python(part) for part in parts) for key in stage.reads}
    known = {*sections(), *(key.name for key in keys())}
    assert {key.removeprefix("schedule.") for key in read} <= known
    assert {*RlStage(kind="rl").reads, "cold_start", *_FIXED} == {*Recipe.model_fields}


@pytest.mark.parametrize("name", ["name", "stages", "device", "on_cuda.engine.count", "model.path", "judge.workers", "wandb", "tiny.width"])
def test_what_there_is_one_of_in_a_run_has_no_place_in_changes(name: str):
    key = "on_cuda" if name.startswith("on_cuda") else name.split(".")[0] if not name.startswith("tiny") else name
    nested: Any = 1
    for part in reversed(name.split(".")):
        nested = {part: nested}
    for changes in ({name: 1}, nested):
        with pytest.raises(RecipeError, match=rf"stages\[0\]: changes: {key} has no place in it, as it is the whole run's"):
            load("dler", "tiny", [f"stages={json.dumps([{'kind': 'rl', 'changes': changes}])}"])


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ("{budget.limit: 5, budget: {limit: 6}}", "budget.limit"),
        ("{train: {steps: 2}, train.steps: 2}", "train.steps"),
        ("{schedule.learner.lr: {kind: linear, to: 1e-5}, schedule: {learner.lr: {kind: linear, to: 2e-5}}}", "schedule.learner.lr"),
        ("{objective: {kl: {coef: 0.1}}, objective.kl: {coef: 0.1, estimator: k2}}", "objective.kl.coef"),
        ("{eval.budgets: [], eval: {budgets: []}}", "eval.budgets"),
        ("{budget: {}, budget.limit: 6}", "budget.limit"),
    ],
)
def test_changes_that_say_one_key_twice_are_refused(changes: str, key: str):
    for where, words in ("stages[0]: changes", f"stages=[{{kind: rl, changes: {changes}}}]"), ("on_cuda", f"on_cuda={changes}"):
        with pytest.raises(RecipeError, match=f"{re.escape(where)}: {key} is said twice, in two ways of writing it; say it once"):
            load("dler", "tiny", [words])
    load("dler", "tiny", ["stages=[{kind: rl, changes: {budget: {limit: 60}, budget.room: 2.0}}]"])


@pytest.mark.parametrize(
    "changes", ["{budget.limit: 5, budget: {limit: 6}}", "{train: {steps: 2}, train.steps: 2}", "{budget: {}, budget.limit: 6}"]
)
def test_a_key_said_twice_is_placed_where_the_stage_says_it(tmp_path: Path, changes: str):
    (tmp_path / "mine.yaml").write_text(f"extends: dler\n\nstages: [rl, {{kind: rl, name: two, changes: {changes}}}]")
    with pytest.raises(RecipeError, match=r"mine\.yaml:3: stages\[1\]: changes: [a-z.]+ is said twice"):
        load(str(tmp_path / "mine.yaml"), "tiny")
    (tmp_path / "mine.yaml").write_text(f"extends: dler\n\non_cuda: {changes}")
    with pytest.raises(RecipeError, match=r"mine\.yaml:3: on_cuda: [a-z.]+ is said twice"):
        load(str(tmp_path / "mine.yaml"), "tiny")


@pytest.mark.parametrize("name", ["a" * 101, "ä" * 51, "a\nb", "a\tb", " a", "a ", "-x", ".x", "a/b", "a\\b", "", "a\x7f", "a\u202eb"])
def test_names_that_a_folder_cannot_have_are_refused_at_load(name: str):
    for key, words in ("stages[0].name", json.dumps([{"kind": "rl", "name": name}])), ("name", json.dumps(name)):
        with pytest.raises(
            RecipeError, match=rf"^[^\n]*{re.escape(key)}: .* cannot name a folder; take printable characters, at most 100 bytes"
        ):
            load("dler", "tiny", [f"{key.partition('[')[0]}={words}"])
    load("dler", "tiny", [f"name={'a' * 100}", "stages=[{kind: rl, name: größe 2}]"])
    with pytest.raises(RecipeError, match="a second stage named rl would write the same folder"):
        load("dler", "tiny", ["stages=[{kind: rl, name: Rl}, rl]"])


def test_text_that_is_no_unicode_is_refused_in_a_sentence():
    with pytest.raises(RecipeError, match=r"a text in it is not Unicode \(half a pair, as"):
        load("dler", "tiny", ['data.instruction="a \\ud800"'])


def test_words_that_the_locale_cannot_read_are_blamed_on_it_and_not_on_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "ascii")
    said = r"holds bytes that are no text in this terminal's encoding, ascii; set another \(LC_ALL=C.UTF-8, say\)"
    word = "ü".encode().decode("ascii", "surrogateescape")  # as Python reads the command line where LC_ALL=C
    (file := tmp_path / "ü.yaml").write_text("extends: dler")
    for overrides in ([f"name={word}"], [f"data.instruction='{word}'"]):
        with pytest.raises(RecipeError, match=f"-- .*=.*: {said}"):
            load("dler", "tiny", overrides)
    with pytest.raises(RecipeError, match=f"name: .*: {said}"):
        load(f"{tmp_path}/{word}.yaml")
    assert load(str(file)).name == "ü" and load("dler", "tiny", ["name=ü"]).name == "ü"


def test_plan_says_of_each_stage_what_goes_in_what_it_does_and_what_comes_out():
    text = explain(planned(PIPELINE))
    for line in (
        "cold_start -> before -> reference -> sft -> phase_1 -> eval -> rl -> eval -> merge -> merged on the CPU",
        "stage    before (eval), from the cold start; leaves stages/before/evals; the policy stays as it was",
        "sample   the first 120 problems x 8 rollouts of at most 104 tokens at T 1, judged and kept",
        "answer of each; at most 960 rollouts, 99,840 sampled tokens",
        "stage    sft, from the cold start; leaves stages/sft/checkpoint",
        "train    SFT on the shortest right answer to each problem: epochs 1, in batches of 32, learning rate 0.0004, at most 168 tokens",
        "stage    phase_1 (rl), from sft; leaves stages/phase_1/checkpoints/step-5 (`laconic report RUN/stages/phase_1`)",
        "changes  budget.limit: 208",
        "stage    rl, from phase_1; leaves checkpoints/step-34",
        "merge    the 25% of entries that changed most since the last rl stage began, ranked over the whole model, x 0.7, on top of its start",
        "stage    merged (eval), from merge",
        "processes of phase_1, rl, and what one of each holds at its peak:",
        "1 x trainer",
    ):
        assert line in text, line
    assert "stage    " not in explain(planned())  # one stage is said as it is
    assert "(`laconic report RUN/'stages/a b'`)" in explain(planned("stages=[{kind: rl, name: a b}, rl]"))


def test_plan_says_a_line_of_several_stages_once_and_names_the_stage_of_a_line_that_is_not_everyones():
    both = planned(
        "stages=[{kind: rl, name: a}, {kind: rl, name: b, changes: {eval.max_tokens: 50}}, eval]", "learner.micro_batch_tokens=100"
    )
    assert [line for line in both.warnings if "micro_batch_tokens" in line] == [
        line for line in both.warnings if line.startswith("learner.micro")
    ]
    assert sum("micro_batch_tokens" in line for line in both.warnings) == 1
    assert any(line.startswith("b: eval.max_tokens: 50 is below budget.limit") for line in both.warnings)
    wrong = planned("stages=[{kind: rl, name: a}, {kind: rl, name: b, changes: {budget.limit: 3}}]")
    assert [line[:16] for line in wrong.blockers] == ["b: budget.limit:"]


@pytest.mark.parametrize(
    "stages",
    ["[{kind: reference, changes: {data.train: none.jsonl}}, rl]", "[reference, {kind: rl, changes: {data: {train: none.jsonl}}}]"],
)
def test_blockers_of_what_a_stage_changes_name_the_stage(tiny_checkpoint: Path, stages: str):
    called = "reference" if "reference, changes" in stages else "rl"
    lines = planned(f"model.path={tiny_checkpoint}", f"stages={stages}").blockers
    assert [line for line in lines if line.startswith(f"{called}: data.train: none.jsonl: no such file")]
    alone = planned(
        "stages=[{kind: rl, changes: {reward: [{kind: verdict}, {kind: nemo_band}], data.train: none.jsonl}}]",
        f"model.path={tiny_checkpoint}",
    )
    assert alone.blockers and all(line.startswith("rl: ") for line in alone.blockers if line.startswith(("rl: data", "data")))
    assert "rl: " not in "".join(planned("stages=[{kind: reference, problems: 3}, rl]", "budget.limit=3").blockers)  # said for all


def test_a_reference_of_which_nothing_says_how_many_is_explained_without_a_number():
    text = explain(planned("stages=[reference, dpo]"))
    assert "sample   problems (nothing says how many) x 8 rollouts" in text and "first 0" not in text


def test_gpus_that_are_not_there_are_said_once_for_the_stage_that_takes_most():
    lines = [line for line in planned("stages=[reference, sft, rl, merge]", "device=cuda").blockers if line.startswith("device")]
    assert len(lines) == 1 and "and 1 x 1 for learners" in lines[0].replace("+", "and")


@pytest.mark.parametrize(
    ("words", "blocker"),
    [
        (["stages=[{kind: sft, data: rows.jsonl}]"], r"stages\[0\]\.data: rows\.jsonl:1: no column was recognised as completions"),
        (["stages=[{kind: sft, data: [none.jsonl]}, rl]"], r"stages\[0\]\.data: none\.jsonl: no such file"),
        (["stages=[{kind: sft, data: tiny}]"], r"stages\[0\]\.data: tiny has problems and no completions"),
        (["stages=[{kind: sft, data: chats.jsonl, max_tokens: 9000}]"], r"stages\[0\]\.max_tokens: 9000 is more than the 2048 tokens"),
        (
            ["stages=[{kind: sft, data: chats.jsonl, max_tokens: 2}]"],
            r"stages\[0\]\.max_tokens: 2 tokens are less than the 3 of the shortest example of chats\.jsonl",
        ),
        (
            ["stages=[{kind: sft, data: [chats.jsonl]}, rl]"],
            r"stages\[0\]\.data: chats\.jsonl is not for the tiny reasoner, .*; set model\.path, or learn from `reference`",
        ),
        (["stages=[{kind: sft, data: 'hub:a/b'}, rl]"], r"stages\[0\]\.data: hub:a/b is not for the tiny reasoner"),
        (
            ["stages=[reference, {kind: sft, max_tokens: 1}, rl]"],
            r"stages\[1\]\.max_tokens: 1 tokens are less than the 6 of the shortest example of reference",
        ),
        (
            ["stages=[{kind: reference, problems: 9, name: looked}, {kind: dpo, max_tokens: 5}]"],
            r"stages\[1\]\.max_tokens: 5 tokens are less than the 6 of the shortest example of looked",
        ),
        (
            ["stages=[{kind: reference, problems: 9}, sft]", "budget.limit=4"],
            r"^budget\.limit: 4 tokens are less than the 5 tokens of the shortest possible answer to tiny",
        ),
        (["stages=[reference, dpo]"], r"stages\[0\]\.problems: data\.train never ends, and no rl stage comes behind"),
    ],
)
def test_what_a_stage_cannot_learn_from_is_refused_at_plan_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], blocker: str
):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text(json.dumps({"problem": "1 + 1", "answer": "2"}))
    Path("chats.jsonl").write_text(json.dumps({"prompt": "1 + 1", "completion": "2"}))
    assert [line for line in planned(*words).blockers if re.search(blocker, line)]


def test_the_shortest_example_is_counted_in_the_models_tokens_where_they_are_here(tiny_checkpoint: Path, tmp_path: Path):
    chats = tmp_path / "chats.jsonl"
    rows = [
        {"prompt": "Add: 1 + 2 + 3 + 4", "completion": "<think>\n1 + 2 = 3\n</think>\n\\boxed{3}"},
        {"prompt": "Add: 1 + 2", "completion": "3"},
    ]
    chats.write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"problem": "Add: 1 + 2", "answer": "3"}))
    words = [f"model.path={tiny_checkpoint}", f"data.train={tmp_path}/rows.jsonl"]

    def lines(stages: str) -> list[str]:
        return [line for line in planned(*words, f"stages={stages}").blockers if "shortest example" in line]

    tokenizer = load_template(tiny_checkpoint).tokenizer
    asked, said, boxed = (len(tokenizer.encode(text)) for text in ("Add: 1 + 2", "3", "\\boxed{3}"))
    for stages, least in (
        (f"[{{kind: sft, data: {chats}, max_tokens: MOST}}]", asked + said + 1),
        ("[reference, {kind: sft, max_tokens: MOST}]", asked + boxed + 1),
        ("[reference, {kind: dpo, max_tokens: MOST}]", asked + boxed + 1),
    ):
        [line] = lines(stages.replace("MOST", str(least - 1)))
        assert f"{least - 1} tokens are less than the {least} of the shortest example" in line
        assert lines(stages.replace("MOST", str(least))) == []


def test_a_stage_that_says_no_length_takes_all_that_its_reference_sampled():
    longer = "{kind: reference, problems: 9, changes: {budget.limit: 300, data.max_prompt_tokens: 70}}"
    found = by_name(f"stages=[{longer}, dpo, {{kind: sft, name: rows, data: rows.jsonl}}, {{kind: sft, name: short, max_tokens: 90}}, sft]")
    assert [found[name].longest for name in ("dpo", "sft", "rows", "short")] == [370, 370, 168, 90]
    made = planned(f"stages=[{longer}, dpo]")
    assert "in batches of 32, learning rate 0.0001, at most 370 tokens" in explain(made)
    twice = by_name(f"stages=[{longer}, {{kind: reference, name: again, problems: 9}}, dpo]")
    assert twice["dpo"].longest == 168  # the last one's answers


def test_columns_of_a_reference_count_as_the_datas_own_and_are_named_where_they_lack(tiny_checkpoint: Path, tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"problem": "1 + 1", "answer": "2"}))
    words = [f"data.train={rows}", f"model.path={tiny_checkpoint}", "reward=[{kind: verdict}, {kind: nemo_band}]", "eval.data=[tiny]"]
    lacking = planned(*words, "stages=[rl]").blockers
    assert len(lacking) == 3 and all("add it or put a stage `reference` before; there is" in line for line in lacking)
    made = planned(*words, "stages=[reference, rl]")
    assert made.blockers == [] and "reads    reference_tokens, reference_spread, reference_accuracy, which reference found" in explain(made)


def test_a_checkpoint_is_evaluated_with_the_recipe_of_its_run_and_the_changes_of_the_stage_that_made_it(tmp_path: Path):
    recipe = load("dler", "tiny", [PIPELINE.replace("{kind: rl, changes: {budget", "{kind: rl, changes: {eval.samples: 9, budget")])
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    file = tmp_path / "recipe.yaml"
    assert recipe_of(tmp_path / "checkpoints" / "step-3")[1][0] == "eval.samples=9"
    assert recipe_of(tmp_path / "stages" / "merge" / "checkpoint") == (file, [])
    assert recipe_of(tmp_path / "elsewhere" / "else" / "checkpoint") == (None, [])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed: 0", "seed: 0\nsede: 1"),
        ("  group_size:", "  gruop_size: 8\n  group_size:"),
        ("seed: 0", "seed: none"),
        ("waive: []", "waive: [a_promise_of_old]"),
        ("sampler:", "sampler: 5\nother:"),
    ],
)
def test_a_run_of_another_versions_recipe_says_so_whoever_reads_it_and_hints_at_no_spelling(tmp_path: Path, old: str, new: str):
    text = dump(load("dler", "tiny"))
    assert old in text
    run = tmp_path / "dler-tiny"
    run.mkdir()
    (run / "recipe.yaml").write_text(text.replace(old, new, 1))
    asked: list[Callable[[], object]] = [
        lambda: recipe_for(str(run / "checkpoints" / "step-3"), Question()),
        lambda: model_of(run),
        lambda: Run.create(load("dler", "tiny"), tmp_path, resume=True),
    ]
    for ask in asked:
        with pytest.raises(RecipeError) as error:
            ask()
        said = str(error.value)
        assert (
            said.startswith(f"{run / 'recipe.yaml'}") and "\n" not in said and "Did you mean" not in said and "recipes --keys" not in said
        )
        assert f"use the one that made the run (`revision` in {run / 'environment.json'})" in said


@pytest.mark.parametrize("name", ["dler_merge", "two_phase", "sft_short", "dpo_short", "o1_pruner", "adaptthink", "nemo_band"])
def test_recipes_of_several_stages_fit_a_node_of_8_gpus_and_the_tiny_scale(name: str):
    assert plan(load(name, "node8"), Machine(128, 1000 * GB, (80 * GB,) * 8, "cuda")).blockers == []
    assert plan(load(name, "tiny"), LAPTOP).blockers == []


def test_a_trainer_holds_a_tile_of_logits_however_long_its_rows_are():
    made = plan(load("sft_short", "node8"), NODE)
    [trainer] = [actor for part in made.stages for actor in part.actors if actor.name == "trainer"]
    assert trainer.holds["logits"] == 4096 * 32768 * 4 * 2  # of 5,024 tokens and 151,936 entries


def test_both_answers_of_a_pair_pass_at_once():
    held = {}
    for kind in ("sft", "dpo"):
        made = planned(f"stages=[{{kind: reference, problems: 9}}, {{kind: {kind}, max_tokens: 200}}]", "learner.micro_batch_tokens=1")
        [held[kind]] = [actor.holds for part in made.stages for actor in part.actors if actor.name == "trainer"]
    assert held["dpo"]["activations"] == 2 * held["sft"]["activations"]
