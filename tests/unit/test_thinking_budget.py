"""Hard thinking budgets: forced tokens are told by position, stay context, and are out of everything else."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from launch.plan import plan
from launch.plan_thinking import thinking_blockers, thinking_warnings
from recipes.budgets import ConstantBudget
from recipes.loader import load
from recipes.objectives import Objective
from recipes.schema import Recipe
from recipes.terms import KlTerm
from rewards.verifier.verdict import Verdict
from rl import algorithm, objective
from rl.gate import GateError, check_gaps
from rl.objective import Tokens, aggregation_weights, correction_weights, kl_penalty, rollout_mean
from rl.policy import Row
from rollout import reference_engine
from rollout.collector import PromptStream, sampling_metrics
from rollout.engine import Engine
from rollout.honesty import check_rehearsal, rehearsal, rehearse
from rollout.records import rows
from rollout.reference_engine import ReferenceEngine
from rollout.scorer import thinking_tokens
from rollout.sources import training_source
from rollout.template import TemplateError, load_template
from rollout.thinking import BudgetIgnored, ThinkIds, allowance, closes, sources, spent
from rollout.types import FORCED, MODEL, Completion, Group, Problem, Request, Rollout
from tests.corrected import corrected
from tests.unit.test_gate import certain
from tests.unit.test_gate import checkpoint as checkpoint

OPEN, CLOSE, END = 5, 6, 1
THINK = ThinkIds((OPEN,), CLOSE)
SOURCES = np.array([MODEL] * 4 + [FORCED] * 2 + [MODEL] * 3, np.int8)
OLD = [-0.5, -0.2, -1.0, -0.3, -20.65, -24.3, -0.4, -0.1, -0.1]
NEW = [-0.45, -0.25, -0.9, -0.3, -19.65, -23.1, -0.38, -0.1, -0.1]


def asked(budget: int | None, prompt: tuple[int, ...] = (9, OPEN, 8), **numbers) -> Request:
    return Request("r", Problem("p", "", ""), prompt, **({"group_size": 4, "max_tokens": 24} | numbers), temperature=1.0, top_p=1.0, seed=7, thinking_tokens=budget)  # fmt: skip


def forced(budget: int, ids: list[int], prompt: tuple[int, ...] = (9, OPEN, 8), think: ThinkIds = THINK) -> list[int]:
    found = sources(asked(budget, prompt), np.array(ids, np.int32), think)
    return [] if found is None else np.flatnonzero(found == FORCED).tolist()


def completion(logp: list[float]) -> Completion:
    return Completion(np.arange(9, dtype=np.int32), np.array(logp, np.float32), "stop", np.zeros(9, np.int32), SOURCES)


# --- the worked example of forced tokens in the numbers of training: b = 4, roles s s s s f f s s s


def test_forced_tokens_are_in_no_length():
    rollout = Rollout("a", 0, completion(OLD), "", answer_start=6)
    assert rollout.tokens == 7 and rollout.completion.budget_hit
    assert thinking_tokens(rollout, thinks=True) == 4  # at most the budget
    assert thinking_tokens(replace(rollout, answer_start=None), thinks=True) == 7
    [row] = rows([Group(asked(4), [rollout])], 0, "digest").to_pylist()
    assert (row["tokens"], row["think_tokens"], len(row["ids"])) == (7, 4, 9) and row["sources"] == SOURCES.tolist()


@pytest.mark.parametrize(
    ("masked", "n", "geometric", "largest", "outside", "k1", "k2", "k3", "surprise"),
    [(False, 9, 1.2941, 3.3201, 0.2222, -0.2578, 0.1364, 0.0974, 5.2833), (True, 7, 1.0173, 1.1052, 0, -0.0171, 0.0011, 0.0011, 0.3714)],
)
def test_forced_tokens_are_out_of_ratio_clip_kl_and_denominators(masked, n, geometric, largest, outside, k1, k2, k3, surprise):
    mask = torch.from_numpy(completion(OLD).sampled) if masked else torch.ones(9, dtype=torch.bool)
    old, new, row = torch.tensor(OLD, dtype=torch.float64), torch.tensor(NEW, dtype=torch.float64), torch.zeros(9, dtype=torch.int64)
    [weight] = aggregation_weights(np.array([int(mask.sum())]), "token_mean", 100)
    tokens = Tokens(mask, torch.full((9,), weight), torch.ones(9), row, new, -old, old, old, ref_logp=old)
    settings = {"clip_low": 0.2, "clip_high": 0.28}
    by_token = objective.loss(tokens, Objective(**settings), 0.0)
    whole = objective.loss(tokens, Objective(ratio="sequence", **settings), 0.0)
    assert int(by_token.sums["tokens"]) == n
    assert float(whole.sums["ratio"]) / n == pytest.approx(geometric, abs=1e-4)
    assert float(-whole.total) == pytest.approx(min(geometric, 1.28), abs=1e-4)  # the weights of a token mean add up to 1
    assert float(torch.exp(torch.where(mask, new - old, 0.0)).max()) == pytest.approx(largest, abs=1e-4)
    assert float(by_token.sums["clipped"]) / n == pytest.approx(outside, abs=1e-4)
    for policy, other, estimator, mean in ((old, new, "k1", k1), (old, new, "k2", k2), (new, old, "k3", k3)):
        kl = rollout_mean(kl_penalty(policy, other, estimator), mask, row)[0]
        assert float(kl) == pytest.approx(mean, abs=1e-4)
    assert float(by_token.sums["entropy"]) / n == pytest.approx(surprise, abs=1e-4)
    moved = objective.loss(tokens, Objective(kl={"coef": 0.5, "estimator": "k2"}, **settings), 0.0)
    assert float(moved.sums["kl"]) / n == pytest.approx(k2, abs=1e-4)
    assert float(moved.total - by_token.total) == pytest.approx(0.5 * k2, abs=1e-4)


def test_an_engine_that_reports_0_for_forced_tokens_spoils_no_correction():
    learner, engine = (
        torch.tensor(OLD),
        torch.tensor([0.0 if source == FORCED else logp for source, logp in zip(SOURCES, OLD, strict=True)]),
    )
    row, mask = torch.zeros(9, dtype=torch.int64), torch.from_numpy(completion(OLD).sampled)
    settings = corrected(kind="sequence_mask", low=0.99, high=1.01)
    assert float((learner - engine).sum().exp()) == pytest.approx(3.0e-20, rel=0.05)  # unmasked: the product, and below the mean
    assert float(rollout_mean(learner - engine, torch.ones_like(mask), row)[0].exp()) == pytest.approx(0.0068, abs=1e-4)
    assert not correction_weights(learner, engine, torch.ones_like(mask), row, settings).any()
    assert correction_weights(learner, engine, mask, row, settings)[mask].tolist() == [1.0] * 7


@pytest.mark.parametrize("bad", [np.nan, -np.inf, -1e9])
def test_what_an_engine_says_of_a_forced_token_reaches_no_reward_and_stops_no_run(bad: float):
    rollouts = [Rollout(name, 0, completion(np.where(SOURCES == FORCED, bad, OLD)), "", 6, terms={"verdict": 1.0}) for name in "ab"]
    group = Group(asked(4), rollouts)
    assert algorithm.finite([group], "stop") == ([group], 0)
    reference = {name: np.where(SOURCES == FORCED, bad, NEW)[None].astype(np.float32) for name in "ab"}
    algorithm._take_off_kl([group], KlTerm(kind="kl", weight=1.0), lambda rows, what: reference, most=10.0)
    assert rollouts[0].terms["kl"] == pytest.approx(0.0171, abs=1e-4)  # minus the mean of old - new over seven tokens


def test_the_gate_asks_of_tokens_that_the_engine_sampled():
    row = algorithm.rows_of([Group(asked(4), [Rollout("a", 0, completion(OLD), "", 6)])])[0]
    learner = {"a": certain(np.where(SOURCES == FORCED, np.nan, OLD).astype(np.float32))}
    assert check_gaps([row], learner, 1e-3)["gate/mean"] == 0
    assert check_gaps([replace(row, own_T=np.zeros(9, bool))], learner, 1e-3) == {}
    with pytest.raises(GateError, match="token 4"):
        check_gaps([replace(row, own_T=np.ones(9, bool))], learner, 1e-3)


# --- where they stand


@pytest.mark.parametrize(
    ("budget", "ids", "found"),
    [
        (4, [8, 8, 8, 8, CLOSE, 9, 9], [4]),  # the prompt's own token behind the opener is not of the budget
        (4, [8, 8, CLOSE, 8, 8, 9, 9], []),  # closed by itself: it trains
        (4, [8, 8, CLOSE, 8, CLOSE, 9], []),  # nor is a stray mark in the answer forced for standing there
        (4, [8, 8, 8, CLOSE], []),  # one before
        (0, [CLOSE, 9], [0]),
        (4, [8, 8, 8], []),  # ended while it thought
        (4, [8, OPEN, 8, 8, CLOSE], [4]),  # opened again while it was open: counted from the first
        (4, [8, OPEN, 8, 8, 8, 8, 8, CLOSE], [7]),  # or from the last
        (4, [8, CLOSE, 9, OPEN, 8, CLOSE, 9, CLOSE], [5, 7]),  # opened anew: engines lose count
    ],
)
def test_a_forced_token_is_told_by_its_place(budget: int, ids: list[int], found: list[int]):
    assert forced(budget, ids) == found


def test_a_model_that_opens_its_thinking_itself_is_counted_from_there_and_one_that_does_not_is_free():
    assert forced(2, [OPEN, 8, 8, CLOSE, 9], prompt=(9, 8)) == [3]
    assert forced(2, [8, 8, 8, 8, 8, CLOSE], prompt=(9, 8)) == []
    assert forced(2, [8, 8, 8, CLOSE], prompt=(9, OPEN, 8, CLOSE)) == []  # closed by its prompt
    assert forced(2, [8, 4, 8, 8, CLOSE], prompt=(9, 3), think=ThinkIds((3, 8, 4), CLOSE)) == [
        4
    ]  # an opening mark across prompt and response


@pytest.mark.parametrize(("budget", "ids"), [(4, [8, 8, 8, 8, 8, CLOSE]), (4, [8] * 5), (0, [8, CLOSE]), (2, [8, 8, 9])])
def test_thinking_beyond_its_budget_stops_the_run_with_a_message(budget: int, ids: list[int]):
    with pytest.raises(BudgetIgnored, match=rf"its budget leaves {budget}: the engine does not enforce it; look at engine\.vllm"):
        forced(budget, ids)


def test_an_engine_is_asked_for_the_budget_and_the_prompts_own_tokens():
    assert allowance(asked(4), THINK) == 5 and allowance(asked(0, (OPEN,)), THINK) == 0 and allowance(asked(4, (9,)), THINK) == 4
    assert allowance(asked(None), THINK) is None and sources(asked(None), np.array([8, CLOSE]), THINK) is None
    assert spent((9, OPEN, 8, OPEN, 8, 8), THINK) == 2 and spent((OPEN, CLOSE), THINK) is None and spent((OPEN, CLOSE, OPEN), THINK) == 0
    with pytest.raises(ValueError, match="request r limits thinking, and its engine was started without the marks"):
        allowance(asked(4), None)


@given(st.integers(0, 6), st.lists(st.sampled_from([8, 8, 9, CLOSE, OPEN]), max_size=3), st.data())
def test_whatever_an_engine_closes_is_marked_and_all_that_it_does_not_is_the_models(budget: int, tail: list[int], data: st.DataObject):
    request, ids, put = asked(budget, (9, OPEN, *tail)), [], []
    for _ in range(data.draw(st.integers(1, 16))):
        put.append(closes(request, ids, THINK))
        ids.append(CLOSE if put[-1] else data.draw(st.sampled_from([8, 8, 8, CLOSE, OPEN])))
    found = sources(request, np.array(ids), THINK)
    marked = np.zeros(len(ids), bool) if found is None else found == FORCED
    assert marked[put].all() and (np.array(ids)[marked] == CLOSE).all()
    closed = [place for place, token in enumerate(ids) if token == CLOSE]
    if OPEN not in ids[closed[0] if closed else 0 :] and OPEN not in ids:
        assert marked.tolist() == put


# --- engines


def reference(checkpoint: Path, think: ThinkIds | None = THINK) -> Engine:
    return ReferenceEngine(checkpoint, "fp32", "cpu", (END,), think)


@pytest.mark.parametrize("budget", [0, 1, 5])
def test_the_reference_engine_closes_thinking_exactly_there_and_the_same_again(checkpoint: Path, budget: int):
    request = asked(budget, group_size=16)
    [(_, found)] = reference(checkpoint).advance([request], 0.0)
    hit = [one for one in found if one.budget_hit and OPEN not in one.ids]
    assert hit and all(int(one.ids[budget]) == CLOSE and CLOSE not in one.ids[:budget] and len(one.ids) > budget + 1 for one in hit)
    assert all(np.flatnonzero(~one.sampled).tolist() == [budget] and one.logprobs[budget] == 0 for one in hit)
    [(_, again)] = reference(checkpoint).advance([request], 0.0)
    assert [one.ids.tolist() for one in again] == [one.ids.tolist() for one in found]
    [(_, free)] = reference(checkpoint).advance([replace(request, thinking_tokens=None)], 0.0)
    assert [one.ids[:budget].tolist() for one in free] == [one.ids[:budget].tolist() for one in found]
    assert not any(one.budget_hit for one in free)


def test_p45_a_rehearsal_with_closed_thinking_is_honest_without_its_forced_tokens_and_not_with_them(checkpoint: Path):
    requests = rehearsal([[9, OPEN, 8]], 41, 1.0, 0, THINK)
    assert [request.thinking_tokens for request in requests] == [None, 0, 3]
    assert rehearsal([[9, 8]], 41, 1.0, 0, THINK)[-1].prompt_ids == (9, 8, OPEN)  # of a model that opens its thinking itself
    samples = rehearse(reference(checkpoint), requests)
    assert check_rehearsal(samples, 1e-3) == ""
    engine = reference(checkpoint)
    [(_, closed)] = engine.advance([requests[1]], 0.0)
    whole = [[*requests[1].prompt_ids, *one.ids.tolist()] for one in closed]
    with_forced = [(ids, one.logprobs, m[:, 2:]) for ids, one, m in zip(whole, closed, engine.moments(whole, 1.0), strict=True)]
    assert "mean gap" in check_rehearsal(with_forced, 1e-3)


class StopsThere(ReferenceEngine):
    """An engine that ends a response with the mark that closes its thinking."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._stop_ids = torch.tensor([END, CLOSE])


def test_an_engine_that_does_not_enforce_the_budget_is_found_at_its_start(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    requests = rehearsal([[9, OPEN, 8]], 41, 1.0, 0, THINK)
    with pytest.raises(BudgetIgnored, match="request thinking-0: nothing came behind the mark that closed its thinking"):
        rehearse(StopsThere(checkpoint, "fp32", "cpu", (END,), THINK), requests)
    monkeypatch.setattr(reference_engine, "closes", lambda request, ids, think: False)
    with pytest.raises(BudgetIgnored, match=r"request thinking-0: thinking goes on for \d tokens, its budget leaves 0"):
        rehearse(reference(checkpoint), requests)
    monkeypatch.setattr(reference_engine, "closes", lambda request, ids, think: len(ids) == 5)  # too late
    with pytest.raises(BudgetIgnored):
        rehearse(reference(checkpoint), requests)


def test_rows_of_a_closed_rollout_train_what_the_model_sampled():
    [row] = algorithm.rows_of([Group(asked(4), [Rollout("a", 0, completion(OLD), "", 6)])])
    assert isinstance(row, Row) and row.mask_T.tolist() == [True] * 4 + [False] * 2 + [True] * 3 and len(row.ids) == 9


# --- recipes


def switched(folder: Path, checkpoint: Path, ending: str) -> Path:
    """The tiny checkpoint with a template whose prompts end so unless thinking is on."""
    shutil.copytree(checkpoint, folder)
    turns = "{%- for turn in messages -%}{{ '<|user|>' + turn.content }}{%- endfor -%}"
    opening = (
        f"{{%- if add_generation_prompt -%}}{{{{- '<|assistant|>' + ('<think>\\n' if enable_thinking else '{ending}') }}}}{{%- endif -%}}"
    )
    (folder / "chat_template.jinja").write_text("{# <think> </think> #}" + turns + opening)
    return folder


@pytest.mark.parametrize(
    ("ending", "data", "words"),
    [
        (r"<think>\n</think>\n", {"template": {"enable_thinking": False}}, "prompts end in '</think>', so there is no thinking to close"),
        (r"<think>\n</think>\n", {"template": {"enable_thinking": True}}, ""),
        (r"", {}, ""),  # a model that opens its thinking itself
        (r"<think>\n", {"thinking": ["<think>", "</think>\n"]}, "thinking is closed by one token"),
    ],
)
def test_plan_and_run_refuse_a_thinking_budget_that_nothing_could_enforce(ending, data, words, tiny_checkpoint: Path, tmp_path: Path):
    folder = switched(tmp_path / "model", tiny_checkpoint, ending)
    given = {"model": {"path": str(folder)}, "budget": {"kind": "thinking"}, "data": data}
    recipe = Recipe.model_validate(given)
    said = list(thinking_blockers(recipe))
    assert [words in one for one in said] == [True] * bool(words)
    template = load_template(folder, recipe.data)
    if words:
        with pytest.raises(TemplateError, match=words):
            template.think_ids()
    else:
        assert template.think_ids() == THINK
    assert not list(thinking_blockers(recipe.model_copy(update={"budget": ConstantBudget()})))


def without_marks(folder: Path, checkpoint: Path) -> Path:
    """The tiny checkpoint, with a vocabulary that has one token for every unknown word, and no marks of thinking."""
    switched(folder, checkpoint, "")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(template.replace("<think>", "").replace("</think>", ""))
    said = (folder / "tokenizer.json").read_text().replace("<think>", "<a>").replace("</think>", "<b>")
    written = json.loads(said) | {"pre_tokenizer": {"type": "WhitespaceSplit"}}
    (folder / "tokenizer.json").write_text(json.dumps(written))
    return folder


def test_plan_and_run_refuse_a_thinking_budget_whose_mark_is_one_token_only_as_all_unknown_words_are(tmp_path, tiny_checkpoint: Path):
    folder = without_marks(tmp_path / "model", tiny_checkpoint)
    recipe = Recipe.model_validate({"model": {"path": str(folder)}, "budget": {"kind": "thinking"}})
    template = load_template(folder, recipe.data)
    assert len(template.tokenizer.encode("</think>", add_special_tokens=False)) == 1
    with pytest.raises(TemplateError, match="this model has none for '</think>'"):
        template.think_ids()
    [said] = thinking_blockers(recipe)
    assert f"{folder} has none for '</think>'" in said


@pytest.mark.parametrize(
    ("term", "warned"),
    [
        ({"kind": "format"}, "format"),
        ({"kind": "closings", "gate": "right"}, "closings"),
        ({"kind": "no_thinking", "gate": "right"}, "no_thinking"),
        ({"kind": "relative", "of": "thinking"}, "relative"),
        ({"kind": "laser", "of": "answer"}, "laser"),
        ({"kind": "laser"}, ""),
    ],
)
def test_plan_warns_of_terms_that_look_for_marks_which_a_local_model_has_not(term, warned, tmp_path, tiny_checkpoint: Path):
    bare = without_marks(tmp_path / "bare", tiny_checkpoint)
    given = {"reward": [{"kind": "verdict"}, term]}
    said = list(thinking_warnings(Recipe.model_validate(given | {"model": {"path": str(bare)}})))
    assert [f"reward: {warned} looks for marks of thinking" in line for line in said] == [True] * bool(warned)
    marked = switched(tmp_path / "marked", tiny_checkpoint, "")
    for known in ({"path": str(marked)}, {"path": "tiny"}, {"path": "owner/name"}):
        assert not list(thinking_warnings(Recipe.model_validate(given | {"model": known})))
    named = {"model": {"path": str(bare)}, "data": {"thinking": ["Thoughts:", "Answer:"]}}
    assert not list(thinking_warnings(Recipe.model_validate(given | named)))
    assert (warned != "") == any(
        "looks for marks" in line for line in plan(Recipe.model_validate(given | {"model": {"path": str(bare)}})).warnings
    )


@pytest.mark.parametrize("kind", ["decs", "efficiency"])
def test_plan_warns_of_credit_for_thoughts_that_a_local_model_does_not_mark_or_whose_prompts_close_them(
    kind, tmp_path, tiny_checkpoint: Path
):
    bare, closed = without_marks(tmp_path / "bare", tiny_checkpoint), switched(tmp_path / "closed", tiny_checkpoint, r"<think>\n</think>\n")
    given = {"credit": {"kind": kind}, "model": {"path": str(bare)}}
    [said] = thinking_warnings(Recipe.model_validate(given))
    assert said.startswith(f"credit: {kind} looks for marks of thinking, and neither template nor vocabulary of {bare} has any")
    assert not list(thinking_warnings(Recipe.model_validate(given | {"data": {"thinking": ["Thoughts:", "Answer:"]}})))
    for marked in ({"path": "tiny"}, {"path": "owner/name"}):
        assert not list(thinking_warnings(Recipe.model_validate(given | {"model": marked})))
    off = given | {"model": {"path": str(closed)}, "data": {"template": {"enable_thinking": False}}}
    [said] = thinking_warnings(Recipe.model_validate(off))
    assert said.startswith(f"credit: {kind}: prompts end in '</think>', so there are no thoughts to search")
    assert not list(thinking_warnings(Recipe.model_validate(off | {"data": {"template": {"enable_thinking": True}}})))
    assert not list(thinking_warnings(Recipe.model_validate({key: value for key, value in off.items() if key != "credit"})))


def test_plan_refuses_options_of_vllm_with_which_it_may_not_close_thinking():
    given = {"budget": {"kind": "thinking"}, "engine": {"vllm": {"speculative_config": {"method": "ngram"}}}}
    assert "engine.vllm.speculative_config: with it" in next(thinking_blockers(Recipe.model_validate(given)))
    assert "speculative_config" in str(plan(Recipe.model_validate(given)).blockers)
    assert not list(thinking_blockers(Recipe.model_validate(given | {"engine": {"kind": "reference"}})))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"template": {"enable_thinking": False}}, "reads no enable_thinking"),
        ({"thinking": ["[T]", "[/T]"]}, "closes its thinking with </think>"),
    ],
)
def test_plan_refuses_for_the_tiny_reasoner_what_its_template_does_not_do(data, words):
    assert words in next(thinking_blockers(Recipe.model_validate({"budget": {"kind": "thinking"}, "data": data})))
    assert not list(thinking_blockers(Recipe.model_validate({"data": data})))


def test_a_thinking_budget_is_a_share_of_the_limit_and_both_may_move(tiny_checkpoint: Path):
    recipe = load(
        "thinking_budget", "tiny", ["train.steps=4", "schedule={budget.limit: {kind: linear, to: 20}, budget.share: {kind: linear, to: 0}}"]
    )
    stream = PromptStream(training_source(recipe.data, recipe.tiny, 0, lambda golds: []), load_template(tiny_checkpoint), recipe)
    asked_for = [(one.limit, one.max_tokens, one.thinking_tokens) for one in map(stream.draw, range(4))]
    assert asked_for == [(104, 104, 52), (76, 76, 25), (48, 48, 8), (20, 20, 0)]  # .5, .333, .167, 0 of it
    assert stream.draw(9).thinking_tokens == 0


@pytest.mark.parametrize(
    ("budget", "schedule", "words"),
    [
        ({"kind": "thinking"}, {"budget.share": {"kind": "linear", "to": 1.5}}, "1.16667 at step 2 is not allowed"),
        ({"kind": "thinking"}, {"budget.share": {"kind": "linear", "to": -1}}, "is not allowed"),
        ({"kind": "constant"}, {"budget.share": {"kind": "linear", "to": 1}}, "budget.kind constant has no share"),
        ({"kind": "thinking", "share": 1.2}, {}, "less than or equal to 1"),
    ],
)
def test_a_share_outside_of_the_limit_is_refused(budget, schedule, words):
    with pytest.raises(ValueError, match=words):
        Recipe.model_validate({"budget": budget, "schedule": schedule, "train": {"steps": 4}})


def test_a_step_says_how_many_were_closed_and_how_well_those_and_the_others_answer():
    hit, free = completion(OLD), replace(completion(OLD), sources=None)
    right, wrong, unknown = Verdict("right", "integer"), Verdict("wrong", "integer"), Verdict("not_judged", "timeout")
    said = [(hit, right), (hit, wrong), (hit, unknown), (free, right)]
    rollouts = [Rollout(str(index), index, one, "", 6, verdict=verdict) for index, (one, verdict) in enumerate(said)]
    rollouts[1].answer_start = 8  # behind a mark of its own, for which it thought on
    metrics = sampling_metrics([Group(asked(4), rollouts)], Counter(), 1.0)
    assert (metrics["budget/closed"], metrics["accuracy/closed"], metrics["accuracy/free"]) == (0.75, 0.5, 1.0)
    assert metrics["budget/evaded"] == pytest.approx(1 / 3)
    assert "budget/closed" not in sampling_metrics([Group(asked(None), rollouts)], Counter(), 1.0)
    assert sampling_metrics([Group(asked(4), rollouts[:1])], Counter(), 1.0)["accuracy/free"] is None
