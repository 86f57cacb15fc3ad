"""What plan says of budgets: limits that no answer fits, and prompts that state another budget than holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.explain import explain
from launch.plan import plan
from recipes.loader import load, shipped
from tests.unit.test_plan import LAPTOP, blockers


def of_budget(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith(("budget", "data.instruction", "data.template"))]


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("dler", ["budget.limit=4"], "budget.limit: 4 tokens are less than the 5 tokens of the shortest possible answer to tiny; allow more"),
        ("dler", ["schedule={budget.limit: {kind: linear, to: 3}}"], "budget.limit: 3 tokens from step 33 on are less than the 5"),
        ("dler", ["schedule={budget.limit: {kind: staged, stages: [{since: 7, value: 4}, {since: 9, value: 90}]}}"], "budget.limit: 4 tokens from step 7 on"),
        ("curriculum", ["schedule={budget.limit: {kind: exponential, factor: 0.3, every: 10}}"], "budget.limit: 2 tokens from step 30 on"),
        ("da_dler", ["budget.ladder=[{at_least: 0.5, share: 0.04}, {}]"], "budget.ladder: 4 tokens are less than the 5"),
        ("da_dler", ["budget.limit=4"], "budget.ladder: 2 tokens are less than the 5"),
        ("toggle", ["budget.limit=4"], "budget.limit: 4 tokens are less than the 5"),
        ("dot", ["budget.limit=4"], "budget.limit: 4 tokens are less than the 5"),
        ("controller", ["budget.limit=4"], "budget.limit: 4 tokens are less than the 5"),
        ("l1_exact", ["budget.limit=4"], "budget.limit: 4 tokens are less than the 5"),
    ],
)  # fmt: skip
def test_a_budget_that_no_answer_fits_is_refused_by_plan(name: str, words: list[str], said: str):
    found = of_budget(blockers(LAPTOP, name, "tiny", *words))
    assert len(found) == 1 and found[0].startswith(said), found


def test_the_shortest_answer_is_counted_in_the_models_tokens_where_its_tokenizer_is_here(tmp_path: Path, tiny_checkpoint: Path):
    """`\\boxed{`, two digits, `}` and the end of the turn are 5 tokens of the tiny vocabulary; of an unknown one 4 is the least."""
    rows = [{"problem": "1 + 1", "answer": "$12$", "asked": 50}, {"problem": "2", "answer": "345", "asked": 4}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def refused(model: Path | str, *words: str) -> list[str]:
        data = [f"data.train={tmp_path}/rows.jsonl", f"model.path={model}", "stages=[rl]", "data.max_prompt_tokens=64"]
        return of_budget(blockers(LAPTOP, "grpo", None, *data, *words))

    assert "are less than the 5 tokens of the shortest possible answer to " in refused(tiny_checkpoint, "budget.limit=4")[0]
    assert refused(tiny_checkpoint, "budget.limit=5") == refused("owner/name", "budget.limit=4") == []
    assert "less than the 4 tokens" in refused("owner/name", "budget.limit=3")[0]
    column = ["data.instruction=Think for {budget} tokens.", "budget.column=asked", "budget.limit=50"]
    [short] = refused(tiny_checkpoint, *column, "budget.kind=prompt")
    assert short.startswith("budget.column: 1 of 2 rows get less than the 5 tokens of the shortest possible answer to ")
    assert short.endswith("/2: 4 tokens by asked); correct them or raise budget.least")
    assert refused(tiny_checkpoint, *column, "budget.kind=prompt", "budget.least=0.2") == []  # no prompt is given less
    [short] = refused(tiny_checkpoint, *column, "budget.kind=reference", "budget.share=0.1")
    assert "1 of 2 rows" in short and "/2: 1 tokens by asked" in short  # 0.1 x 50 and 0.1 x 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.instruction=Use {Budget} tokens."], "data.instruction: holds {Budget}, which nothing fills in; write {budget}"),
        (["data.instruction=Use {{budget}} tokens."], "holds {{budget}}"),
        (["data.instruction=Use ${budget} tokens."], "holds ${budget}"),
        (["data.instruction=Use { budget } tokens."], "holds { budget }"),
        (["data.instruction=Use {token_budget} tokens, \\boxed{x}"], "holds {token_budget}"),
        (["data.instruction=Use {limit} tokens."], "holds {limit}"),
        (["data.instruction=Use %(budget)s tokens."], "holds %(budget)s"),
        (["data.template={thinking_budget: '{budget}'}"], "data.template: {budget} is filled in in data.instruction only"),
        (["data.instruction=Think within 4000 tokens.", "schedule={budget.limit: {kind: linear, share: 0.5}}"], "says '4000 tokens', but the limit moves by the schedule; write {budget}"),
        (["data.instruction=At most 1.5k thinking tokens!", "budget.kind=controller"], "says '1.5k thinking tokens', but the limit is given by budget.kind controller"),
        (["data.instruction=Mind your token budget.", "budget.kind=reference"], "says 'token budget', but the limit is given by budget.kind reference"),
    ],
)  # fmt: skip
def test_a_prompt_that_states_another_budget_than_holds_is_refused_by_plan(words: list[str], said: str):
    found = of_budget(blockers(LAPTOP, "grpo", None, *words))
    assert len(found) == 1 and said in found[0], found


@pytest.mark.parametrize(
    "words",
    [
        [
            "data.instruction=Use {budget} tokens, and put your answer within \\boxed{}.",
            "schedule={budget.limit: {kind: linear, share: 0.5}}",
        ],
        ["data.instruction=Do not waste tokens. Put the limit in \\boxed{limit}, $x^{n}$ or \\[ n \\]."],
        ["data.instruction=Answer in 2 lines of \\text{tokens}"],
        ["data.instruction=Think within 4,000 tokens."],
        ["data.instruction=Use {budget} tokens.", "stages=[eval]", "budget.limit=1"],
    ],
)
def test_a_prompt_that_states_the_budget_that_holds_plans_without_a_word(words: list[str]):
    made = plan(load("grpo", None, words), LAPTOP)
    assert of_budget([*made.blockers, *made.warnings]) == []


@pytest.mark.parametrize(
    ("words", "how"),
    [
        (
            ["data.instruction=Put the limit in \\boxed{limit}.", "schedule={budget.limit: {kind: linear, share: 0.5}}"],
            "moves by the schedule",
        ),
        (["data.instruction=Answer in 2 lines of \\text{tokens}", "budget.kind=controller"], "is given by budget.kind controller"),
        (["budget.kind=reference", "budget.least=0.1"], "is given by budget.kind reference"),
        (["schedule={budget.limit: {kind: staged, stages: [{since: 7, value: 90}]}}"], "moves by the schedule"),
    ],
)
def test_plan_warns_of_a_limit_that_no_prompt_states(words: list[str], how: str):
    made = plan(load("grpo", None, words), LAPTOP)
    assert of_budget(made.blockers) == []
    assert [line for line in made.warnings if f"the limit {how}, and no prompt states it; {{budget}}" in line]
    told = plan(load("grpo", None, [*words, "data.instruction=Use {budget} tokens."]), LAPTOP)
    assert of_budget([*told.blockers, *told.warnings]) == []


@pytest.mark.parametrize(
    "place",
    ["[budget]", "{length}", "<limit>", "[token limit]", "<tokens>", "{max_tokens}", "%(limit)d", "[LENGTH]"]
    + ["{budgets}", "{Budget}", "{buget}", "{tokens_left}", "{max_len}", "{limits}", "{Budegt:,}"],
)
def test_a_placeholder_that_nothing_fills_in_is_refused(place: str):
    found = of_budget(blockers(LAPTOP, "grpo", None, f"data.instruction=Use {place} of them."))
    assert len(found) == 1 and f"holds {place}, which nothing fills in" in found[0], found


@pytest.mark.parametrize(
    ("place", "said"), [("{answer}", 1), ("{my_name}", 1), (r"\boxed{answer}", 0), (r"\text{word}", 0), ("{x}", 0), ("{a, b}", 0)]
)
def test_any_other_placeholder_is_a_warning_and_what_latex_writes_in_braces_is_none(place: str, said: int):
    made = plan(load("grpo", None, [f"data.instruction=Use {place} here."]), LAPTOP)
    assert of_budget(made.blockers) == []
    assert [f"holds {place}, which nothing fills in: only {{budget}} is" in line for line in made.warnings].count(True) == said


@pytest.mark.parametrize("place", ["{n}", "{N}", "<n>", "[k]", "{number}"])
def test_a_letter_in_brackets_is_a_warning_as_it_may_be_mathematics(place: str):
    made = plan(load("grpo", None, [f"data.instruction=Use {place} words."]), LAPTOP)
    assert of_budget(made.blockers) == []
    assert any(f"holds {place}, which nothing fills in; write {{budget}} if" in line for line in made.warnings)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["budget.share=0.99"], "budget.share: thinking closes after 102 of 104 tokens, which leaves 2, less than the 5 tokens"),
        (["budget.share=1"], "budget.share: thinking closes after 104 of 104 tokens, which leaves 0"),
        (["schedule={budget.share: {kind: linear, to: 1.0}}"], "budget.share: thinking closes after 104 of 104 tokens from step 33 on"),
        (
            ["schedule={budget.limit: {kind: linear, to: 6}}"],
            "budget.share: thinking closes after 3 of 6 tokens from step 33 on, which leaves 3",
        ),
        (
            [
                "budget={kind: reference, share: 0.05, least: 0.05, also: [{kind: difficulty, ladder: [{at_least: .5, share: .3},{share: 1}]}]}"
            ],
            "budget.column: 47 of 64 rows get less than the 5 tokens",
        ),
        (["budget={kind: reference, share: 0.01}"], "budget.column: 63 of 64 rows get less than the 5 tokens"),
    ],
)
def test_a_budget_that_leaves_no_room_to_answer_is_refused(words: list[str], said: str):
    found = of_budget(blockers(LAPTOP, "thinking_budget", "tiny", *words))
    assert len(found) == 1 and found[0].startswith(said), found


@pytest.mark.parametrize(
    ("kinds", "place"),
    [
        ("{kind: reference, share: 1, least: 0.06, also: [{kind: thinking, share: 0.8}]}", "budget"),
        ("{kind: thinking, share: 0.8, also: [{kind: reference, share: 1, least: 0.06}]}", "budget.also[0]"),
        ("{kind: prompt, column: reference_tokens, least: 0.06, also: [{kind: controller, least: 1}, {kind: thinking, share: 0.8}]}", "budget"),
    ],
)  # fmt: skip
def test_a_row_whose_limit_leaves_no_answer_behind_closed_thinking_is_refused(tmp_path: Path, kinds: str, place: str):
    """Of 7 tokens thinking takes 5, which leaves 2; of 20 it takes 16, which leaves 4."""
    rows = [{"problem": f"{tokens} + 0", "answer": "5", "reference_tokens": tokens} for tokens in (20, 7, 60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = [f"data.train={tmp_path}/rows.jsonl", "model.path=owner/name", "stages=[rl]", "data.instruction=Use {budget} tokens."]

    def refused(*words: str) -> list[str]:
        return of_budget(blockers(LAPTOP, "grpo", None, *data, f"budget={kinds}", "budget.limit=104", *words))

    [found] = refused()
    assert found.startswith(f"{place}.column: 1 of 3 rows get less than the 4 tokens of the shortest possible answer"), found
    assert "/2: 7 tokens by reference_tokens, of which thinking closes after 5); correct them, raise " in found
    limits = load("grpo", None, [f"budget={kinds}", *data]).budget
    place = next(place for place, part in limits.placed.items() if part.kind == "thinking")
    assert found.endswith(f"least or lower {place}.share")
    if place == "budget":  # numbers of the first kind move
        assert "2 of 3 rows" in refused("schedule.budget.share={kind: linear, to: 0.9}")[0]
    least = "budget.least=0.16" if place != "budget" else "budget.also=[{kind: reference, share: 1, least: 0.16}]"
    assert refused(least) == []  # 16 tokens, of which 12


def test_limits_that_may_fall_below_the_shortest_answer_are_a_warning():
    def warned(name: str, scale: str | None, *words: str) -> str:
        return "\n".join(plan(load(name, scale, words), LAPTOP).warnings)

    rungs = "budget={kind: controller, least: 0.1, also: [{kind: difficulty, ladder: [{at_least: .5, share: .3},{share: 1}]}]}"
    fall = "budget.least: limits may fall to 10 tokens, 3 on the lowest rung, which leaves 3, less than the 5 tokens"
    assert fall in warned("dler", "tiny", "sampler.keep_groups=shaped", rungs)
    low = "budget.least: limits may fall to 1 tokens, below the 5 tokens of the shortest possible answer; raise it"
    assert low in warned("controller", "tiny", "budget.least=0.01")
    assert "budget.least" not in warned("controller", "tiny")
    behind = "budget.least: limits may fall to 10 tokens, of which thinking closes after 9, which leaves 1, less than the 5 tokens"
    assert behind in warned("controller", "tiny", "budget.also=[{kind: thinking, share: 0.9}]")
    assert "budget.least" not in warned("controller", "tiny", "budget.also=[{kind: thinking, share: 0.5}]")
    first = warned("thinking_budget", "tiny", "budget={share: 0.9, also: [{kind: controller}]}")
    assert behind.replace("budget.least", "budget.also[0].least") in first
    hidden = ["data.train=hub:owner/name:train", "budget={kind: reference, least: 0.01, also: [{kind: thinking, share: 0.99}]}"]
    assert "which leaves 1, less than the 4" in warned("grpo", None, *hidden, "budget.limit=500")
    hub = ["data.train=hub:owner/name:train", "budget.least=0.0001"]
    assert "budget.least: limits may fall to 1 tokens, below the 4 tokens" in warned("grpo", None, "budget.kind=reference", *hub)
    assert "budget.least" not in warned("grpo", "tiny", "budget={kind: reference, share: 1.0, least: 0.01}")  # its rows were looked at
    states = "data.instruction: {budget} states budget.limit, 4000 tokens, and thinking closes after 2000; say which is meant"
    assert states in warned("thinking_budget", None, "budget.limit=4000", "budget.share=0.5", "data.instruction=Use {budget} tokens.")


def test_plan_says_what_moves_wherever_it_changes_and_which_limit_rewards_have():
    stages = "schedule.budget.limit={kind: staged, stages: [{since: 5, value: 50}, {since: 10, value: 104}, {since: 20, value: 50}]}"
    said = explain(plan(load("grpo", "tiny", [stages]), LAPTOP))
    assert "budget.limit 104 from step 0, 50 from step 5, 104 from step 10, 50 from step 20" in said
    assert "limit    104 tokens, as rewards have it" in explain(plan(load("leash", "tiny"), LAPTOP))


def test_what_can_be_met_but_hardly_as_meant_is_a_warning():
    def warned(name: str, scale: str | None, *words: str) -> list[str]:
        return of_budget(plan(load(name, scale, words), LAPTOP).warnings)

    assert warned("grpo", None, "data.instruction=Use 500 tokens.") == [
        "data.instruction: says '500 tokens', budget.limit is 4000; {budget} in the number's place follows it"
    ]
    for same in ("4000", "4k", "4,000", "4.0k"):
        assert warned("grpo", None, f"data.instruction=Use {same} tokens.") == []
    least, told = warned("l1_exact", "tiny")  # 2, 3 and 4 of 2 to 104
    assert least.startswith("budget.least: 2.9% of the drawn limits are below the 5 tokens") and "is not told its limit" in told
    assert warned("l1_exact", "tiny", "budget.least=0.05", "data.instruction='{budget}'") == []
    [least] = warned("l1_exact", "tiny", "data.instruction='{budget}'", "budget.also=[{kind: thinking, share: 0.5}]")[:1]
    assert least.startswith("budget.least: 6.8% of the drawn limits leave less than the 5 tokens")  # 2 to 8 of 2 to 104: 9 leaves 5


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("scale", [None, "tiny"])
def test_the_budget_of_every_shipped_recipe_can_be_met_and_is_the_one_that_it_states(name: str, scale: str | None):
    assert of_budget(blockers(LAPTOP, name, scale)) == []


@pytest.mark.parametrize(
    ("stages", "words", "said"),
    [
        ("[rl, eval]", ["budget.limit=96"], ["96 tokens"]),
        ("[rl, eval, {kind: merge}, {kind: eval, changes: {budget.limit: 77}}]", ["budget.limit=96"], ["96 tokens", "77 tokens"]),
        ("[rl, eval, {kind: merge}, eval]", ["budget.limit=96", "schedule={budget.limit: {kind: linear, to: 48}}"], ["48 tokens"] * 2),
        ("[rl, eval]", ["budget.kind=controller", "budget.limit=96"], ["96 tokens, or what the controller leaves of it"]),
    ],
)
def test_plan_says_which_limit_the_prompts_of_evaluations_state(stages: str, words: list[str], said: list[str]):
    evaluated = ["eval.every=0", f"stages={stages}"]
    text = explain(plan(load("dler", "tiny", [*evaluated, "data.instruction='{budget}'", *words]), LAPTOP))
    found = [line.partition("; prompts state ")[2] for line in text.splitlines() if line.startswith("eval ")]
    assert [line for line in found if line] == said, text
    assert "prompts state" not in explain(plan(load("dler", "tiny", [*evaluated, *words]), LAPTOP))
