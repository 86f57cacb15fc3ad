"""Right answers far longer than the others of their group are cut, judged again and counted."""

# ruff: noqa: F811
from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from rewards.verifier.judge import Judge
from rewards.verifier.verdict import Verdict
from rl.algorithm import prepare, rows_of
from rollout.types import Completion, Request
from tests.scripted import ScriptedPool, response
from tests.unit.test_collector import collector, judge, right_samples  # noqa: F401


def outlying(tail: str) -> Callable[[Request], list[Completion]]:
    """Four right answers, the last one far longer than the others: by what is thought before it, or by what is said behind it."""

    def script(request: Request) -> list[Completion]:
        if tail == "before":
            return [response(request.problem.answer, thought=thought) for thought in (3, 3, 3, 60)]
        short = response(request.problem.answer)
        ids = np.concatenate([short.ids[:-1], np.full(57, ord("y"), np.int32), short.ids[-1:]])
        return [short] * 3 + [Completion(ids, np.zeros(len(ids), np.float32), "stop", np.zeros(len(ids), np.int32))]

    return script


def test_an_outlier_among_right_answers_is_cut_and_judged_again_and_what_was_cut_off_does_not_train(judge: Judge):
    """DOT: lengths 14, 14, 14, 71, mean 28.25, deviation 28.5; alpha 1.2 ends the last one at 62 tokens, before its box."""
    budget, sampler = {"kind": "outlier", "limit": 100, "alpha": 1.2}, {"keep_groups": "shaped", "prompts": 2, "max_refills": 0}
    advantage = {"scale": "none"}
    steps, stream = collector(ScriptedPool(outlying("before")), judge, budget=budget, sampler=sampler, reward=[{"kind": "verdict"}])
    collected = steps.next()
    assert collected.metrics["groups/trained"] == 2 and collected.metrics["accuracy"] == 1.0  # as they were sampled
    assert collected.metrics["budget/outliers"] == 2
    for group in collected.groups:
        assert [rollout.reward for rollout in group.rollouts] == [1, 1, 1, 0]
        assert [rollout.limit for rollout in group.rollouts] == [100, 100, 100, 62]
        assert [rollout.tokens for rollout in group.rollouts] == [14, 14, 14, 71] and group.rollouts[3].right
    recipe = stream.recipe.model_copy(update={"advantage": stream.recipe.advantage.model_validate(advantage)})
    [rows_] = prepare(collected.groups, recipe).updates
    assert [int(row.mask_T.sum()) for row in rows_] == [14, 14, 14, 62] * 2
    assert [len(row.ids) for row in rows_] == [14, 14, 14, 71] * 2 and not rows_[3].mask_T[62:].any()
    assert sum(float(np.sum(row.weight_T * row.mask_T)) for row in rows_) == pytest.approx(1.0)  # denominators leave it out, too
    assert [row.advantage_T[0] for row in rows_[:4]] == pytest.approx([0.25] * 3 + [-0.75])
    assert [int(row.mask_T.sum()) for row in rows_of(collected.groups[:1])] == [14, 14, 14, 71]  # what engines are compared on


@pytest.mark.parametrize("keep", ["raw", "shaped"])
@pytest.mark.parametrize(("tail", "fate"), [("before", "trained"), ("behind", "all_right")])
def test_the_filter_sees_the_verdict_on_what_is_left_of_an_outlier(judge: Judge, keep: str, tail: str, fate: str):
    budget, sampler = {"kind": "outlier", "limit": 100, "alpha": 1.2}, {"keep_groups": keep, "prompts": 2, "max_refills": 0}
    more = {"reward": [{"kind": "verdict"}], "advantage": {"scale": "none", "boost": 0.1}}
    steps, stream = collector(ScriptedPool(outlying(tail)), judge, budget=budget, sampler=sampler, **more)
    collected = steps.next()
    assert collected.metrics[f"groups/{fate}"] == 2 and collected.metrics["accuracy"] == 1.0
    if fate == "trained":  # a group of right answers and a wrong one, to advantages as well
        metrics = prepare(collected.groups, stream.recipe).metrics
        assert [rollout.advantage for rollout in collected.groups[0].rollouts] == pytest.approx([0.35] * 3 + [-0.75])
        assert metrics["advantage/constant"] == 0


def test_an_outlier_that_had_answered_before_it_is_cut_stays_right(judge: Judge):
    budget, sampler = {"kind": "outlier", "limit": 100, "alpha": 1.2}, {"keep_groups": "all", "prompts": 2}
    steps, _ = collector(ScriptedPool(outlying("behind")), judge, budget=budget, sampler=sampler, reward=[{"kind": "verdict"}])
    for group in steps.next().groups:
        assert [rollout.reward for rollout in group.rollouts] == [1, 1, 1, 1]
        assert [rollout.ends for rollout in group.rollouts] == [None] * 3 + [62]


class NeverAgain(Judge):
    """Has no verdict on what was cut."""

    def submit(self, *, finish: str, **asked: Any) -> Future[Verdict]:
        if finish != "length":
            return super().submit(finish=finish, **asked)
        said: Future[Verdict] = Future()
        said.set_result(Verdict("not_judged", "timeout"))
        return said


def test_an_outlier_that_cannot_be_judged_again_leaves_its_group_not_judged_and_counted():
    budget, sampler = {"kind": "outlier", "limit": 100, "alpha": 1.2}, {"keep_groups": "all", "prompts": 2, "max_refills": 0}
    with NeverAgain(1, 3.0, 512) as judge:
        steps, _ = collector(ScriptedPool(outlying("before")), judge, budget=budget, sampler=sampler, reward=[{"kind": "verdict"}])
        collected = steps.next()
    metrics = collected.metrics
    assert (collected.groups, metrics["groups/not_judged"], metrics["not_judged"], metrics["budget/outliers"]) == ([], 2, 0.25, 0)
    for rollout in collected.sampled[0].rollouts:
        assert (rollout.ends, rollout.reward) == (None, 0)


@pytest.mark.parametrize("change", [{"least_cut": 0.1}, {"alpha": 1.49, "least_cut": 0.02}])
def test_an_outlier_that_would_lose_little_or_is_none_stays_whole(judge: Judge, change: dict[str, float]):
    budget = {"kind": "outlier", "limit": 100, "alpha": 1.2} | change
    steps, _ = collector(
        ScriptedPool(outlying("before")), judge, budget=budget, sampler={"keep_groups": "all"}, reward=[{"kind": "verdict"}]
    )
    for group in steps.next().groups:
        assert [(rollout.reward, rollout.ends, rollout.limit) for rollout in group.rollouts] == [(1, None, 100)] * 4
