"""Collecting a step's groups: filter, refill, order, and rewards that land on the right rows; engines are scripted."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from evaluation.evaluate import requests
from evaluation.results import Settings
from recipes.budgets import ConstantBudget
from recipes.schema import Recipe, VerdictTerm
from recipes.terms import FunctionTerm
from rewards.functions import TrainerState
from rewards.verifier.judge import Judge
from rewards.verifier.verdict import Verdict
from rl.algorithm import prepare
from rl.loop import NotJudged, TooManyCut, refuse_cut, refuse_unjudged
from rl.policy import padded
from rollout import scorer
from rollout.budget import Held
from rollout.collector import Collector, PromptStream, fate_of, sampled, sampling_metrics
from rollout.engine import EnginePool
from rollout.records import rows
from rollout.scorer import RowMismatch, Scorer
from rollout.sources import Source
from rollout.types import Completion, Group, Problem, Request, rollout_id
from tests.scripted import LetterTokenizer, ScriptedPool, response, template


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(1, 3.0, 512) as judge:
        yield judge


def collector(pool: EnginePool, judge: Judge, **changes: object) -> tuple[Collector, PromptStream]:
    sampler = {"prompts": 4, "group_size": 4, "max_refills": 3} | dict(changes.pop("sampler", {}))
    judging = {"not_judged_limit": 1.0, "audit": 0} | dict(changes.pop("judging", {}))
    recipe = Recipe.model_validate({"sampler": sampler, "budget": {"limit": 40}, "judge": judging} | changes)
    source = Source("numbers", lambda position: Problem(f"p{position}", f"q{position}", str(position)))
    stream = PromptStream(source, template(), recipe)
    return Collector(pool, Scorer(judge, template()), stream), stream


def right_samples(rights: Callable[[int], int]) -> Callable[[Request], list[Completion]]:
    """So many right samples at each position; the others are wrong."""

    def script(request: Request) -> list[Completion]:
        position = int(request.problem.answer)
        return [response(str(position if sample < rights(position) else position + 1)) for sample in range(request.group_size)]

    return script


@pytest.mark.parametrize("seed", range(5))
def test_the_prompts_of_a_step_depend_on_the_stream_and_not_on_who_finished_first(judge: Judge, seed: int):
    pool = ScriptedPool(right_samples(lambda position: (0, 2, 4, 1)[position % 4]), seed)
    steps, stream = collector(pool, judge)
    collected = steps.next()
    assert [group.problem.id for group in collected.groups] == ["p1", "p3", "p5", "p7"]
    assert stream.position == 8  # just as many were drawn as were needed
    metrics = collected.metrics
    counts = {name: metrics[f"groups/{name}"] for name in ("sampled", "trained", "all_wrong", "all_right", "short")}
    assert counts == {"sampled": 8, "trained": 4, "all_wrong": 2, "all_right": 2, "short": 0}
    assert metrics["accuracy"] == pytest.approx((0 + 2 + 4 + 1) / 16)
    assert [group.problem.id for group in steps.next().groups] == ["p9", "p11", "p13", "p15"]
    seeds = [[steps.draw().seed for _ in range(3)] for _, steps in (collector(pool, judge, seed=seed) for seed in (1, 1, 2))]
    assert seeds[0] == seeds[1] and len({*seeds[0], *seeds[2]}) == 6


class Straggling(ScriptedPool):
    """Of two groups the second is done when a third is asked for, or after a minute: judging waits for a process that imports sympy."""

    def ready(self, enough: Callable[[], bool] = lambda: False) -> list[tuple[Request, list[Completion]]]:
        until = time.monotonic() + 60
        while [request.problem.id for request in self._owed] == ["p1"] and time.monotonic() < until:
            if enough():
                return []
            time.sleep(0.01)
        self.last = self._owed.pop(0)
        return [(self.last, self._script(self.last))]


def test_a_group_that_needs_another_one_is_not_kept_waiting_by_a_straggler_and_equal_answers_are_judged_once(judge: Judge):
    def script(request: Request) -> list[Completion]:
        said = {"p0": [r"\frac{2\pi}{4}"] * 4}.get(request.problem.id, ["7", "8", "8", "8"])
        return [response(answer) for answer in said]

    steps, stream = collector(pool := Straggling(script), judge, sampler={"prompts": 2})
    stream.source = Source("numbers", lambda position: Problem(f"p{position}", "q", "7" if position else r"\frac{\pi}{2}"))
    collected = steps.next()
    assert [group.problem.id for group in collected.groups] == ["p1", "p2"] and pool.last.problem.id == "p2"
    [verdict] = {rollout.verdict for rollout in collected.sampled[0].rollouts}
    assert verdict and (verdict.status, verdict.reason) == ("right", "symbolic")
    assert collected.metrics["seconds/judge"] == verdict.seconds > 0


@pytest.mark.parametrize("seed", range(5))
def test_a_step_starts_with_what_the_last_one_needed_and_drops_the_surplus_from_the_end_of_the_stretch(judge: Judge, seed: int):
    steps, stream = collector(ScriptedPool(right_samples(lambda position: 2 if position >= 8 else 2 * (position % 2)), seed), judge)
    assert [group.problem.id for group in steps.next().groups] == ["p1", "p3", "p5", "p7"]
    assert stream.kept_share == 0.5
    collected = steps.next()  # eight at once, all of them worth training on
    assert [group.problem.id for group in collected.groups] == ["p8", "p9", "p10", "p11"]
    assert (collected.metrics["groups/trained"], collected.metrics["groups/surplus"], stream.position) == (4, 4, 16)
    assert stream.kept_share == 1.0
    assert [group.problem.id for group in steps.next().groups] == ["p16", "p17", "p18", "p19"]


def test_a_step_that_kept_nothing_makes_the_next_one_start_at_the_refill_limit(judge: Judge):
    steps, stream = collector(ScriptedPool(right_samples(lambda position: 0)), judge)
    assert steps.next().groups == []
    position = stream.position
    steps.next()
    assert stream.position == 2 * position == 2 * (4 + 3 * 4)


def test_past_the_refill_limit_a_step_trains_on_what_there_is_and_says_so(judge: Judge):
    pool = ScriptedPool(right_samples(lambda position: 2 if position == 3 else 0))
    steps, stream = collector(pool, judge)
    collected = steps.next()
    assert [group.problem.id for group in collected.groups] == ["p3"]
    assert collected.metrics["groups/short"] == 1
    assert stream.position == 4 + 3 * 4


def test_an_all_right_group_with_length_to_lose_is_kept_by_the_shaped_signal_only(judge: Judge):
    def script(request: Request) -> list[Completion]:
        return [response(request.problem.answer, thought=3 + 8 * sample) for sample in range(4)]  # 14, 22, 30 and 38 tokens or so

    ladder = {"kind": "difficulty", "limit": 40, "ladder": [{"at_least": 0.5, "share": 0.5}, {}]}
    for keep, fate in (("shaped", "trained"), ("raw", "all_right")):
        steps, _ = collector(ScriptedPool(script), judge, budget=ladder, sampler={"keep_groups": keep, "max_refills": 0})
        collected = steps.next()
        assert collected.metrics[f"groups/{fate}"] == 4
        for group in collected.groups:
            assert {rollout.limit for rollout in group.rollouts} == {20}
            assert [rollout.reward for rollout in group.rollouts] == [float(rollout.tokens <= 20) for rollout in group.rollouts]


def test_a_group_with_an_unjudged_answer_is_left_out_and_counted(judge: Judge):
    def script(request: Request) -> list[Completion]:
        position = int(request.problem.answer)
        first = response("1", finish="abort") if position % 2 else response(str(position))
        return [first, *(response("-1") for _ in range(3))]

    steps, _ = collector(ScriptedPool(script), judge)
    collected = steps.next()
    assert [group.problem.id for group in collected.groups] == ["p0", "p2", "p4", "p6"]
    assert collected.metrics["groups/not_judged"] == 3
    assert collected.metrics["not_judged"] == pytest.approx(3 / 28)
    assert collected.metrics["length/mean"] < collected.metrics["length/wrong"] == len(response("-1").ids)
    assert [group.problem.id for group in collected.sampled] == [f"p{position}" for position in range(7)]  # all of them can be kept to read


@pytest.mark.parametrize("over_limit", ["stop", "warn"])
def test_p19_too_many_answers_without_a_verdict_stop_the_run_or_warn_as_the_recipe_says(judge: Judge, over_limit: str):
    def script(request: Request) -> list[Completion]:
        return [response("1", finish="abort"), *(response(request.problem.answer) for _ in range(3))]

    limits = {"not_judged_limit": 0.1, "over_limit": over_limit}
    steps, stream = collector(ScriptedPool(script), judge, judging={**limits, "audit": 0}, sampler={"max_refills": 0})
    collected = steps.next()
    words = r"25\.0% of the answers could not be judged \(aborted\), more than judge\.not_judged_limit 10\.0%"
    if over_limit == "stop":
        with pytest.raises(NotJudged, match=words):
            refuse_unjudged(collected, stream.recipe)
    else:
        assert re.match(words, refuse_unjudged(collected, stream.recipe))
    assert collected.groups == []  # and none of them became a 0 or a 1
    collected.metrics["not_judged"] = 0.1
    assert refuse_unjudged(collected, stream.recipe) == ""


def test_p20_a_second_checker_gives_some_verdicts_again_and_disagreements_stay_on_their_rollouts(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
):
    """A blank may group digits here and not there; "-1" is wrong everywhere."""

    def script(request: Request) -> list[Completion]:
        answers = ["4 200", "4200", "-1"] if request.problem.id == "p1" else ["-1", "4200", "-2"]
        return [*map(response, answers), response("", thought=40, finish="length")]

    steps, stream = collector(ScriptedPool(script), judge, judging={"audit": 100}, sampler={"prompts": 2, "keep_groups": "all"})
    stream.source = Source("big", lambda position: Problem(f"p{position}", f"q{position}", "4200"))
    collected = steps.next()
    counts = {name: value for name, value in collected.metrics.items() if name.startswith("audit/")}
    assert counts == {"audit/rows": 6, "audit/right_only_here": 1, "audit/right_only_there": 0}
    audits = [[rollout.audit for rollout in group.rollouts] for group in collected.sampled]
    assert audits == [["wrong", "right", "wrong", None], ["wrong", "right", "wrong", None]]
    assert [rollout.right for rollout in collected.sampled[1].rollouts] == [True, True, False, False]
    again = Scorer(judge, template()).audit(collected.sampled, 2)
    assert again["audit/rows"] == 2
    monkeypatch.setattr(scorer, "_DEADLINE_S", 0.0)
    monkeypatch.setattr(judge, "audit", lambda **asked: Future())
    assert Scorer(judge, template()).audit(collected.sampled, 2)["audit/rows"] == 0  # a judge that says nothing ends no run


def test_rewards_stay_on_their_rows_through_ten_thousand_shuffled_rollouts(judge: Judge):
    generator = random.Random(1)
    expected: dict[str, float] = {}

    def script(request: Request) -> list[Completion]:
        completions = []
        for sample in range(request.group_size):
            right = generator.random() < 0.5
            expected[rollout_id(request.id, request.prompt_ids, sample)] = float(right)
            completions.append(response(request.problem.answer if right else "-7", thought=generator.randint(1, 9)))
        return completions

    steps, _ = collector(ScriptedPool(script), judge, sampler={"prompts": 1250, "group_size": 8, "keep_groups": "all"})
    rollouts = [rollout for group in steps.next().groups for rollout in group.rollouts]
    assert len(rollouts) == len({rollout.id for rollout in rollouts}) == 10_000
    assert all(rollout.reward == expected[rollout.id] for rollout in rollouts)


def test_a_problem_met_twice_in_a_step_has_rollouts_of_its_own_and_a_retry_has_not(judge: Judge):
    steps, stream = collector(ScriptedPool(right_samples(lambda position: 2)), judge)
    stream.source = Source("small", lambda position: Problem(f"p{position % 3}", f"q{position % 3}", str(position % 3)))
    groups = steps.next().groups
    assert [group.problem.id for group in groups] == ["p0", "p1", "p2", "p0"]
    assert len({rollout.id for group in groups for rollout in group.rollouts}) == 4 * 4
    scorer = Scorer(judge, template())
    again = scorer.begin(groups[3].request, [rollout.completion for rollout in groups[3].rollouts])
    assert [rollout.id for rollout in again.group.rollouts] == [rollout.id for rollout in groups[3].rollouts]


def test_a_reward_function_that_plan_accepts_gets_every_column_that_plan_checked_for(judge: Judge, tmp_path, monkeypatch):
    (tmp_path / "column_rewards.py").write_text(
        "def listed(prompts, completions, completion_ids, problem, answer, level, trainer_state, log_extra, log_metric):\n"
        "    log_extra('seen', [text[-3:] for text in completions]), log_metric('asked', level[0])\n"
        "    return [trainer_state.global_step + l + len(a) for l, a in zip(level, answer)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    scorer = Scorer(
        judge,
        template(),
        [FunctionTerm(kind="function", name="column_rewards:listed", high=9)],
        Held(ConstantBudget(limit=40)),
        TrainerState(2, 9),
    )
    request = Request("r", Problem("p", "q", "42", level=3), (1,), 2, 40, 1.0, 1.0, 0)
    group = scorer.finish(scorer.begin(request, [response("42"), response("1")]))
    assert [rollout.reward for rollout in group.rollouts] == [7, 7]
    assert [json.loads(row["extra"]) for row in rows([group], 0, "").to_pylist()] == [{"seen": "42}"}, {"seen": "{1}"}]
    assert sampling_metrics([group], Counter(), 1.0)["function/asked"] == 3.0


def test_a_verdict_off_by_one_row_is_detected(judge: Judge):
    scorer = Scorer(judge, template())
    request = Request("r", Problem("p", "q", "1"), (1, 2), 3, 40, 1.0, 1.0, 0)
    pending = scorer.begin(request, [response("1"), response("2"), response("3")])
    pending.verdicts[:] = pending.verdicts[1:] + pending.verdicts[:1]
    with pytest.raises(RowMismatch, match="met rollout"):
        scorer.finish(pending)
    with pytest.raises(RowMismatch, match="asked for 3 rollouts and got 2"):
        scorer.begin(request, [response("1"), response("2")])


def test_any_of_several_golds_makes_an_answer_right_once(judge: Judge):
    request = Request("r", Problem("p", "q", "41", others=("42", "43")), (1,), 3, 40, 1.0, 1.0, 0)
    scorer = Scorer(judge, template(), [VerdictTerm(kind="verdict")], Held(ConstantBudget(limit=40)))
    group = scorer.finish(scorer.begin(request, [response("43"), response("41"), response("7")]))
    assert [rollout.reward for rollout in group.rollouts] == [1, 1, 0]
    assert rows([group], 0, "t").column("golds").to_pylist() == [["41", "42", "43"]] * 3


@pytest.mark.parametrize(("temperature", "samples"), [(0.6, [2, 6]), (0.0, [1, 1])])
def test_a_problem_that_an_evaluation_holds_several_times_has_the_samples_of_all_its_rows(
    judge: Judge, temperature: float, samples: list[int]
):
    problems = [Problem("a", "q1", "1"), Problem("b", "q2", "2", repeats=3)]
    pool: Any = ScriptedPool(lambda request: [response("1")] * request.group_size)
    settings = Settings(samples=samples[0], temperature=temperature, max_tokens=40, template="digest")
    pool.submit(requests("e", problems, template(), settings))
    groups = {group.problem.id: group for group in sampled(pool, Scorer(judge, template()))}
    assert [len(groups[problem.id].rollouts) for problem in problems] == samples


def test_an_unfinished_thought_is_wrong_even_if_it_says_the_answer(judge: Judge):
    request = Request("r", Problem("p", "q", "42"), (1,), 2, 40, 1.0, 1.0, 0)
    boxed = [ord(letter) for letter in "\\boxed{42}"]
    open_ended = Completion(np.array(boxed, np.int32), np.zeros(len(boxed), np.float32), "length", np.zeros(len(boxed), np.int32))
    group = Scorer(judge, template()).finish(Scorer(judge, template()).begin(request, [open_ended, response("42")]))
    assert [rollout.verdict.status for rollout in group.rollouts if rollout.verdict] == ["wrong", "right"]
    assert [rollout.answer_start for rollout in group.rollouts] == [None, 4]


def test_fate_names_why_a_group_was_left_out():
    from rollout.types import Rollout

    def group(statuses: Sequence[str], rewards: Sequence[float]) -> Group:
        request = Request("r", Problem("p", "q", "1"), (1,), len(statuses), 9, 1.0, 1.0, 0)
        rollouts = [
            Rollout(str(i), i, response("1"), "", None, Verdict(status, ""), reward=reward)
            for i, (status, reward) in enumerate(zip(statuses, rewards, strict=True))
        ]
        return Group(request, rollouts)

    assert fate_of(group(["right", "wrong"], [1, 0]), "raw") == "trained"
    assert fate_of(group(["right", "right"], [1, 0]), "raw") == "all_right"
    assert fate_of(group(["right", "right"], [1, 0]), "shaped") == "trained"
    assert fate_of(group(["right", "wrong"], [0, 0]), "shaped") == "flat"
    assert fate_of(group(["right", "wrong"], [0.3, float(np.float32(0.1) + np.float32(0.2))]), "shaped") == "flat"  # 1e-8 apart
    assert fate_of(group(["right", "wrong"], [0.3, 0.29999]), "shaped") == "trained"
    assert fate_of(group(["wrong", "wrong"], [0, 0]), "raw") == "all_wrong"
    assert fate_of(group(["wrong", "wrong"], [0, 0]), "all") == "trained"
    assert fate_of(group(["right", "not_judged"], [1, 0]), "all") == "not_judged"
    assert fate_of(group(["right", "right"], [1, float("nan")]), "raw") == "trained"  # so that the NaN is named


class MergingTokenizer(LetterTokenizer):
    """Two newlines in a row are one token when its text is encoded; asking for that fails."""

    def __call__(self, *_: object, **__: object) -> None:
        raise AssertionError("text was encoded on the training path")

    encode = __call__


def test_the_tokens_trained_on_are_those_sampled_though_their_text_would_encode_otherwise(judge: Judge):
    def script(request: Request) -> list[Completion]:
        answers = [request.problem.answer, "-1", request.problem.answer, "-1"]
        return [merged(response(answer)) for answer in answers]

    def merged(plain: Completion) -> Completion:
        ids = np.concatenate([np.array([10, 10], np.int32), plain.ids])  # two tokens "\n", which encode to one "\n\n"
        return Completion(ids, np.full(len(ids), -0.5, np.float32), plain.finish, np.zeros(len(ids), np.int32))

    pool = ScriptedPool(script)
    steps, stream = collector(pool, judge)
    object.__setattr__(steps._scorer.template, "tokenizer", MergingTokenizer())
    object.__setattr__(stream.template, "tokenizer", MergingTokenizer())
    groups = steps.next().groups
    [rows] = prepare(groups, stream.recipe).updates
    for row, (group, sample) in zip(rows, [(group, sample) for group in groups for sample in range(4)], strict=True):
        assert row.ids.tolist() == script(group.request)[sample].ids.tolist()
        assert row.prompt_ids.tolist() == list(map(ord, group.problem.text + "<think>"))
        together = padded([row], "cpu").ids[0].tolist()
        assert together == [*row.prompt_ids.tolist(), *row.ids.tolist()]


def test_p07_an_engine_that_always_hits_the_cap_is_seen_at_the_first_step(judge: Judge):
    steps, stream = collector(ScriptedPool(lambda request: [response("1", 40, finish="length")] * 4), judge, sampler={"keep_groups": "all"})
    collected = steps.next()
    assert collected.metrics["truncated"] == 1.0
    with pytest.raises(TooManyCut, match=r"100\.0% of the first step's rollouts were cut off at budget\.limit 40"):
        refuse_cut(collected.metrics["truncated"], stream.recipe)


@pytest.mark.parametrize(("cut", "rewards"), [("score", [1, 0, 0, 0]), ("mask", [1, 0, 0, 0]), ("a term", [1, 0, -0.5, -0.5])])
def test_p07_cut_rollouts_are_rewarded_by_the_policy_that_the_recipe_names(judge: Judge, cut: str, rewards: list[float]):
    """One right, one wrong and two cut rollouts; the loss of the group at ratio 1 is -sum(weight x advantage), by hand."""

    def script(request: Request) -> list[Completion]:
        return [response(request.problem.answer), response("-1"), response("1", 40, finish="length"), response("1", 40, finish="length")]

    terms = (
        {"reward": [{"kind": "verdict"}, {"kind": "truncate"}, {"kind": "cut"}], "waive": ["length_of_wrong"]} if cut == "a term" else {}
    )
    steps, stream = collector(
        ScriptedPool(script), judge, budget={"limit": 40} | ({} if cut == "a term" else {"cut": cut}), advantage={"scale": "none"}, **terms
    )
    groups = steps.next().groups
    assert [[rollout.reward for rollout in group.rollouts] for group in groups] == [rewards] * 4
    [rows] = prepare(groups, stream.recipe).updates
    trained = [0, 1] if cut == "mask" else [0, 1, 2, 3]
    tokens, mean = [len(completion.ids) for completion in script(groups[0].request)], sum(rewards) / 4
    by_hand = -sum(tokens[i] * (rewards[i] - mean) for i in trained) / sum(tokens[i] for i in trained)
    assert -sum((row.weight_T * row.advantage_T).sum() for row in rows) == pytest.approx(by_hand)


def test_a_price_per_token_is_that_of_the_recipes_limit_whatever_a_prompts_own_is(judge: Judge):
    """L1-Exact with a limit that a schedule halves: 10 tokens away from it cost 10 / 40 of the weight, before as after."""
    steps, _ = collector(
        ScriptedPool(lambda request: [response("1", request.limit - 10)] * 4),
        judge,
        budget={"limit": 40},
        train={"steps": 2},
        schedule={"budget.limit": {"kind": "linear", "share": 0.5}},
        reward=[{"kind": "verdict"}, {"kind": "l1_exact", "weight": 0.8}],
        waive=["length_of_wrong"],
        sampler={"keep_groups": "all"},
    )
    for step in (0, 1):
        for group in steps.next(step).sampled:
            for rollout in group.rollouts:
                away = abs(rollout.limit - rollout.tokens)
                assert rollout.limit == (40, 20)[step] and rollout.terms["l1_exact"] == pytest.approx(-0.8 * away / 40)


@pytest.mark.parametrize("of", ["total", "thinking", "answer"])
def test_leashs_multiplier_follows_the_lengths_and_the_limits_that_its_penalty_saw(judge: Judge, of: str):
    """The rung's limit is half of the request's 40."""

    def script(request: Request) -> list[Completion]:
        return [response(request.problem.answer, thought=thought) for thought in (15, 15)]

    steps, stream = collector(
        ScriptedPool(script),
        judge,
        sampler={"group_size": 2, "prompts": 2, "keep_groups": "all"},
        budget={"kind": "difficulty", "limit": 40, "ladder": [{"at_least": 0.5, "share": 0.5}, {}]},
        reward=[{"kind": "verdict", "wrong": -1.0}, {"kind": "leash", "of": of, "weight": 0.5, "gain": 0.1}],
        waive=["length_of_wrong", "right_beats_wrong"],
    )
    collected = steps.next()
    rollout = collected.sampled[0].rollouts[0]
    thinking = rollout.answer_start or 0
    length = {"total": rollout.tokens, "thinking": thinking, "answer": rollout.tokens - thinking}[of]
    assert collected.metrics["reward/lambda"] == 0.5 and rollout.limit == 20
    assert stream.control.leash == pytest.approx(moved := 0.5 + 0.1 * (length / 20 - 1))
    [first, second] = [step.sampled[0].rollouts[0].terms["leash"] for step in (collected, steps.next(1))]
    assert second / moved == pytest.approx(first / 0.5) and (first < 0) == (length > 20)  # the next step's rewards go by it
    assert (collected.metrics["limit"], collected.metrics["limit/rewarded"]) == (40, 20)


def test_a_step_without_a_verdict_has_no_accuracy_and_no_rewarded_limit_and_moves_no_controller(judge: Judge):
    steps, stream = collector(
        ScriptedPool(lambda request: [response("1", finish="abort")] * 4),
        judge,
        sampler={"max_refills": 0},
        budget={"kind": "controller", "limit": 40, "measure": 1},
    )
    metrics = steps.next().metrics
    assert metrics["accuracy"] is None and metrics["limit/rewarded"] is None and stream.control.floor.steps == 0


def test_problems_sampled_apart_are_timed_apart_in_steps_that_look_at_them(judge: Judge):
    budget = {"kind": "controller", "limit": 40, "watch": 1.0, "every": 2, "room": 2.0}
    steps, stream = collector(ScriptedPool(right_samples(lambda position: 2)), judge, budget=budget)
    stream.source = Source("numbers", lambda position: Problem(f"p{position % 100}", f"q{position % 100}", str(position % 100)), rows=100)
    assert ["seconds/watch" in steps.next(step).metrics for step in range(3)] == [True, False, True]
