"""Evaluations put together: which there are of a checkpoint, where they go, what is refused before an engine starts, and who closes thinking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluation.evaluate import requests
from evaluation.results import Extended, Settings
from launch.engines import closer, closing
from launch.evaluate import Question, folders, recipe_for
from launch.evaluations import earlier_date, evaluations, fit, settings
from launch.plan import plan
from launch.plan_thinking import thinking_blockers
from launch.problems import HeldOut
from recipes.loader import RecipeError, load
from recipes.schema import Recipe
from rewards.verifier.judge import Judge
from rollout.closing import ClosingPool
from rollout.parts import Parts, sample
from rollout.scorer import Scorer
from rollout.template import TemplateError, load_template
from rollout.types import Problem, Request
from tests.scripted import ScriptedPool, response, template
from tests.unit.test_thinking_budget import switched, without_marks

FORCED = {"kind": "forced", "limit": 16}
REQUESTED = {"kind": "requested", "limit": 20}
SHORT = {"kind": "short", "first": 3, "of": 8}


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(1, 3.0, 512) as judge:
        yield judge


def recipe(*budgets: dict[str, Any], **keys: Any) -> Recipe:
    return Recipe.model_validate({"stages": ["eval"], "eval": {"budgets": list(budgets), "samples": 3, "margin": 0.02}} | keys)


def test_of_each_source_there_is_the_natural_evaluation_and_one_at_each_budget():
    parts = [
        HeldOut("a/rows.jsonl", [Problem("1", "q", "1")], []),
        HeldOut("aime24", [Problem("2", "q", "2")], [], revision="a" * 40, samples=64),
    ]
    found = evaluations(parts, recipe(FORCED, REQUESTED, SHORT), template(), Path("out"), checkpoint="x", weights="w", own_samples=True)
    assert [one.path.name for one in found] == [
        *("rows", "rows@forced-16", "rows@requested-20", "rows@short-3-of-8"),
        *("aime24", "aime24@forced-16", "aime24@requested-20", "aime24@short-3-of-8"),
    ]
    assert [one.label for one in found[:4]] == [
        "a/rows.jsonl" + more for more in ("", ", 16 tokens forced", ", 20 tokens requested", ", short-3@8")
    ]
    assert [one.settings.samples for one in found] == [3] * 4 + [64] * 4 and {one.settings.margin for one in found} == {0.02}
    assert [one.requests[0].group_size for one in found] == [3, 3, 3, 8, 64, 64, 64, 64]
    assert len({request.id for one in found for request in one.requests}) == 8
    assert [one.settings.revision for one in found] == [None] * 4 + ["a" * 40] * 4
    inside = evaluations(parts, recipe(FORCED), template(), Path("run/evals"), checkpoint="x", step=40, prefix="step-40")
    assert [one.path.name for one in inside] == ["step-40", "step-40@forced-16", "step-40-aime24", "step-40-aime24@forced-16"]
    assert {one.settings.samples for one in inside} == {3}  # a run's cheaper setting
    assert [str(inside[0].scores), str(inside[1].table)] == ["run/evals/step-40.json", "run/evals/step-40@forced-16.parquet"]


def test_checkpoints_have_folders_of_their_own_and_two_that_are_one_or_share_a_folder_are_refused():
    assert folders(["runs/a/step-3"], None) == {"runs/a/step-3": Path("evals/runs-a-step-3")}
    assert folders(["runs/a"], Path("out")) == {"runs/a": Path("out")}
    assert folders(["runs/a", "owner/b"], Path("out")) == {"runs/a": Path("out/runs-a"), "owner/b": Path("out/owner-b")}
    for twice in (["a", "./a"], ["a", "b", "a"], ["runs/a", str(Path("runs/a").absolute())], ["a/", "a"]):
        with pytest.raises(ValueError, match="named twice"):
            folders(twice, None)
    for shared in (["a/b", "a-b"], ["a-b/c", "a/b-c"]):
        with pytest.raises(ValueError, match=rf"{shared[0]} and {shared[1]} would share the folder evals/.*one at a time, with --out"):
            folders(shared, None)


def test_prompts_of_what_goes_on_state_the_date_of_what_is_there(tmp_path: Path, judge: Judge):
    assert earlier_date(tmp_path) is None
    request = Request("r", Problem("p", "q", "1"), (1,), 1, 9, 1.0, 1.0, 0)
    parts = Parts(tmp_path / "rows.parts", [request], {"template": "digest"}, "", also={"date": "2025-03-04"})
    list(sample([parts], ScriptedPool(lambda _: [response("1")]), Scorer(judge, template())))
    assert earlier_date(tmp_path) == "2025-03-04"
    (tmp_path / "rows.parts" / "part-00000.parquet").rename(tmp_path / "rows.parquet")  # one that is made, beside one that is not begun
    (tmp_path / "a.parquet").write_bytes(b"torn")
    assert earlier_date(tmp_path) == "2025-03-04"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["eval.budgets=[{kind: forced, limit: 4000}]"], "eval.budgets: forced 4000 is more than max_tokens 320, where samples end"),
        (["eval.budgets=[{kind: requested, limit: 41}]", "eval.max_tokens=40"], "eval.budgets: requested 41 is more than max_tokens 40"),
        (["eval.budgets=[{kind: forced, limit: 9}, {kind: forced, limit: 9}]"], "eval.budgets: forced 9 stands there twice"),
        (["eval.budgets=[{kind: forced, limit: 0}]"], "eval.budgets"),
        (["eval.budgets=[{kind: natural, limit: 9}]"], "needs one of forced, extended, requested, short"),
        (["eval.budgets=[{kind: extended, limit: 400, waits: 1}]"], "eval.budgets: extended 400 is more than max_tokens 320"),
        (["eval.budgets=[{kind: extended, limit: 40, waits: 0}]"], "eval.budgets.*waits"),
        (["eval.budgets=[{kind: short, first: 4, of: 3}]"], "eval.budgets: short 4@3: of 2 or more chains at most all can vote"),
        (["eval.budgets=[{kind: short, first: 1, of: 1}]"], "eval.budgets: short 1@1: of 2 or more"),
        (["eval.budgets=[{kind: short, first: 1, of: 4}]", "eval.temperature=0"], "short 1@4: at temperature 0 all chains are alike"),
        (["eval.budgets=[{kind: short, first: 1, of: 4}, {kind: short, first: 1, of: 4}]"], "short 1@4 stands there twice"),
        (["eval.margin=1.5"], "eval.margin"),
    ],
)
def test_budgets_that_cannot_be_are_refused_by_the_recipe(words: list[str], said: str):
    with pytest.raises(RecipeError, match=said):
        load("evaluate", overrides=["model.path=tiny", *words])


def test_without_the_natural_evaluation_there_must_be_budgets():
    with pytest.raises(ValueError, match="--no-natural: leaves nothing to do without budgets"):
        recipe_for("owner/name", Question(natural=False))
    recipe_for("owner/name", Question(["eval.budgets=[{kind: forced, limit: 9}]"], natural=False))


def test_plan_names_what_no_budget_can_be_had_of(tiny_checkpoint: Path, tmp_path: Path):
    tiny = recipe(REQUESTED)
    assert any("requested: the tiny reasoner's prompts are problems alone" in words for words in plan(tiny).blockers)
    assert not list(thinking_blockers(recipe(FORCED)))
    marked = {"model": {"path": str(switched(tmp_path / "shut", tiny_checkpoint, "<think></think>"))}}
    [said] = thinking_blockers(recipe(FORCED, **marked))
    assert said.startswith("eval.budgets: prompts end in '</think>', so there is no thinking to close")
    with pytest.raises(TemplateError, match="so there is no thinking to close"):
        closing(recipe(FORCED, **marked), load_template(tmp_path / "shut"))
    bare = {"model": {"path": str(without_marks(tmp_path / "bare", tiny_checkpoint))}}
    [said] = thinking_blockers(recipe(FORCED, **bare))
    assert said.startswith(f"eval.budgets: forced: neither template nor vocabulary of {tmp_path}/bare has marks of thinking")
    assert not list(thinking_blockers(recipe(**bare))) and not list(thinking_blockers(recipe(REQUESTED, **bare)))
    trained = recipe(FORCED, **bare | {"stages": ["rl"]})
    assert not list(thinking_blockers(trained))  # nothing is evaluated


def test_engines_close_thinking_where_they_can_and_else_it_is_closed_from_outside(tiny_checkpoint: Path, tmp_path: Path):
    one_token = load_template(tiny_checkpoint)
    pool = ScriptedPool(lambda request: [])
    assert closing(recipe(), one_token) is None and closer(pool, recipe(), one_token) is pool
    assert closing(recipe(FORCED), one_token) == one_token.think_ids() and closer(pool, recipe(FORCED), one_token) is pool
    folder = switched(tmp_path / "several", tiny_checkpoint, r"<think>\n")
    several = recipe(FORCED, model={"path": str(folder)}, data={"thinking": ["<think>", "</think>\n"]})
    assert not list(thinking_blockers(several))
    loaded = load_template(folder, several.data)
    assert closing(several, loaded) is None and isinstance(closer(pool, several, loaded), ClosingPool)
    assert len(loaded.closing_ids()) > 1


def test_thinking_goes_on_by_a_word_that_the_model_has_and_else_is_refused_before_anything_starts(tiny_checkpoint: Path):
    asked = {"kind": "extended", "limit": 9, "waits": 2}
    own = load_template(tiny_checkpoint)
    with pytest.raises(TemplateError, match=r"extended: this model's tokenizer cannot say 'Wait'; name another one"):
        closing(recipe(asked), own)
    known = recipe(asked | {"word": "wait"})
    assert closing(known, own) is not None and isinstance(pool := closer(ScriptedPool(lambda _: []), known, own), ClosingPool)
    [_, made] = settings(known, own)
    [request] = requests("a", [Problem("p", "Add: 1 + 2", "3")], own, made)
    assert request.wait is not None and (request.thinking_tokens, request.wait.times) == (9, 2)
    assert own.tokenizer.decode(request.wait.ids) == "wait" and pool.outstanding == 0
    names = {
        word: Extended(waits=2, limit=64, word=word).name.removeprefix("extended-2-of-64") for word in ("Wait", "Wait,", "Wait.", "Hm")
    }
    assert names == {"Wait": "", "Wait,": "-Wait%2C", "Wait.": "-Wait.", "Hm": "-Hm"}
    assert made.budget is not None and (made.budget.name, made.budget.words) == ("extended-2-of-9-wait", '9 tokens extended by 2 × "wait"')


def test_all_evaluations_ask_the_same_problems_those_whose_prompts_fit_at_every_budget():
    part = HeldOut("rows", [Problem("short", "q", "1"), Problem("long", "q" * 60, "1")], [])
    wide, narrow = (recipe(*budgets, data={"max_prompt_tokens": 100}) for budgets in ((), (REQUESTED,)))
    assert [one.id for one in fit(part, template(), wide).problems] == ["short", "long"]
    fitted = fit(part, template(), narrow)
    assert [one.id for one in fitted.problems] == ["short"] and [where for where, _ in fitted.left_out] == ["long"]


def test_a_template_that_leaves_the_request_out_is_refused():
    deaf = template()

    class Deaf(type(deaf)):  # type: ignore[misc]
        def messages(self, problem: Problem, limit: int = 0) -> list[dict[str, str]]:
            return [{"role": "user", "content": problem.text}]

    said = Deaf(**{name: getattr(deaf, name) for name in ("tokenizer", "instruction", "stop_ids", "thinking", "marks", "digest")})
    part = HeldOut("rows", [Problem("p", "q", "1")], [])
    assert fit(part, said, recipe(FORCED)).problems
    with pytest.raises(TemplateError, match="the chat template leaves the request for a budget out"):
        fit(part, said, recipe(REQUESTED))


def test_settings_record_how_samples_are_made():
    natural, forced = settings(recipe(FORCED, seed=7), replace(template(), date="2026-02-03"), samples=9, lenient=True)
    assert natural == Settings(
        temperature=0.6, top_p=1.0, top_k=0, max_tokens=320, samples=9, seed=7, engine="vllm", template="digest", date="2026-02-03", lenient=True, margin=0.02
    )  # fmt: skip
    assert forced.budget is not None and forced.budget.name == "forced-16" and forced.model_copy(update={"budget": None}) == natural
    instruction = "Think in at most {budget} tokens."
    asked = recipe(FORCED, {"kind": "requested", "limit": 16}, data={"instruction": instruction})
    plain, forced, asking = settings(asked, replace(template(), budget=96))
    assert (plain.instruction, plain.stated_limit, forced.stated_limit, asking.stated_limit) == (instruction, 96, 96, None)
    assert "stated_limit" in plain.shown and "stated_limit" not in natural.shown
