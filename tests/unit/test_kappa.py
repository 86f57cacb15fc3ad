"""Groups of right answers alone that train: DECS' kappa (recent.md 1.4), what it lets into a step, and that a killed run goes on the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.objectives import FixedEntropy
from recipes.schema import Recipe
from rewards.thinking import THINK
from rewards.verifier.judge import Judge
from rl.loop import stateful
from rl.objective import EntropyControl
from rl.state import gathered, put_back
from rl.wires import CollapseWires
from rollout.collector import Collected, Collector, PromptStream
from rollout.kappa import Kappa
from rollout.records import rows
from rollout.scorer import Scorer
from rollout.sources import Source
from rollout.types import Completion, Problem, Request
from tests.scripted import CLOSE, STOP, ScriptedPool, template

RATIOS = [0.45, 0.40, 0.60, 0.75, 0.90]


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(1, 3.0, 512) as judge:
        yield judge


def test_kappa_follows_the_ratio_and_stays_between_its_bounds():
    """Without them it would be -.01, -.02, .02, .05, .08."""
    kappa, capped = Kappa(0.2, 0.2, 64), Kappa(0.2, 0.06, 64)
    shares = [(kappa.after([ratio], 10, 0), capped.after([ratio], 10, 0), kappa.share, capped.share)[2:] for ratio in RATIOS]
    assert [share for share, _ in shares] == pytest.approx([0, 0, 0.04, 0.07, 0.10])
    assert [share for _, share in shares] == pytest.approx([0, 0, 0.04, 0.06, 0.06])


def test_a_step_without_a_ratio_leaves_kappa_as_it_is():
    kappa = Kappa(0.2, 0.2, 64)
    kappa.after([0.7], 5, 0)
    before = kappa.state()
    assert kappa.after([], 0, 0) == {"credit/kappa": pytest.approx(0.04), "credit/ratio": None, "groups/easy": 0}
    assert kappa.state() == before
    assert kappa.after([0.6, 0.9], 0, 0)["credit/ratio"] == pytest.approx(0.75)
    assert kappa.share == pytest.approx(0.05)


@pytest.mark.parametrize(("share", "mixed", "easy"), [(0.05, 64, 3), (0.08, 64, 5), (0.05, 10, 0), (0.05, 19, 1), (0.0, 64, 0)])
def test_so_many_groups_of_right_answers_alone_stand_beside_the_mixed_ones(share: float, mixed: int, easy: int):
    assert Kappa(0.2, 0.2, 64, share=share).easy(mixed) == easy


def test_what_too_few_mixed_groups_do_not_let_in_is_owed_and_never_floods_a_step():
    kappa = Kappa(0.2, 0.2, 64, share=0.05)
    assert [kappa.easy(10), kappa.after([], 10, 0) and kappa.easy(10)] == [0, 1]
    kappa.after([], 10, 1)
    assert kappa.mixed == 0
    assert Kappa(0.2, 0.2, 64, share=0.01, mixed=6400).easy(0) == 12


@given(st.floats(0, 0.99), st.integers(0, 500), st.integers(1, 64), st.integers(0, 200), st.integers(0, 200))
def test_a_step_is_filled_as_far_as_there_are_groups_and_never_beyond(share: float, owed: int, prompts: int, mixed: int, right: int):
    kappa = Kappa(0.2, 0.99, prompts, share, mixed=owed)
    used, easy = kappa.fit(mixed, right)
    assert 0 <= used <= mixed and 0 <= easy <= min(right, kappa.easy(used))
    assert used + easy == min(kappa.kept(mixed, right), prompts)
    assert kappa.kept(mixed + 1, right) > kappa.kept(mixed, right)
    assert kappa.kept(mixed + 1, right) >= kappa.kept(mixed, right + 1) >= kappa.kept(mixed, right)


def said(thought: str, answer: str) -> Completion:
    ids = np.array([*map(ord, thought), CLOSE, *map(ord, f"\\boxed{{{answer}}}"), STOP], np.int32)
    return Completion(ids, np.full(len(ids), -0.5, np.float32), "stop", np.zeros(len(ids), np.int32))


def answers(request: Request) -> list[Completion]:
    """Right answers by position: none, half, all, all; every second one thinks on although it is there, later ones longer."""
    position = int(request.problem.answer)
    rights = (0, 2, 4, 4)[position % 4]
    return [
        said(f"so {position}\n" + "wait, is it 9999\n" * (sample % 2 * (1 + position // 20)), str(position if sample < rights else -1))
        for sample in range(request.group_size)
    ]


def collecting(judge: Judge, seed: int = 0, group: dict[str, Any] | None = None, **credit: Any) -> tuple[Collector, PromptStream]:
    given = {name: value for name, value in ({"kind": "decs", "gain": 0.4, "most": 0.5} | credit).items() if value is not None}
    recipe = Recipe.model_validate(
        {
            "sampler": {"prompts": 4, "group_size": 4, "max_refills": 9} | (group or {}),
            "budget": {"limit": 120},
            "judge": {"audit": 0},
            "credit": given,
        }
    )
    source = Source("numbers", lambda position: Problem(f"p{position}", f"q{position}", str(position)))
    stream = PromptStream(source, template(), recipe)
    return Collector(ScriptedPool(answers, seed), Scorer(judge, template()), stream), stream


def names(found: Collected) -> list[int]:
    return [int(group.problem.answer) for group in found.groups]


@pytest.mark.parametrize("seed", range(5))
def test_a_step_trains_as_many_groups_of_right_answers_alone_as_kappa_lets_in_whoever_finished_first(judge: Judge, seed: int):
    """kappa 1/3: floor(m / 2) beside m mixed ones, so three and one fill the step; positions 1, 5 and 9 are mixed."""
    steps, stream = collecting(judge, seed)
    stream.kappa.share = 1 / 3
    found = steps.next()
    assert stream.position == 10  # the shortest stretch with enough groups in it
    assert names(found) == names(collecting_again(judge)) and sum(name % 4 == 1 for name in names(found)) == 3
    counts = {
        name: found.metrics[f"groups/{name}"] for name in ("sampled", "trained", "easy", "surplus", "all_right", "all_wrong", "short")
    }
    assert counts == {"sampled": 10, "trained": 4, "easy": 1, "surplus": 0, "all_right": 3, "all_wrong": 3, "short": 0}
    assert (stream.kept_share, stream.kappa.mixed) == (0.4, 0)
    assert found.metrics["credit/kappa"] == pytest.approx(1 / 3)
    ratios = [rollout.thought.ratio for group in found.groups for rollout in group.rollouts if rollout.right]
    assert found.metrics["credit/ratio"] == pytest.approx(np.mean(ratios)) == pytest.approx(0.75)
    assert stream.kappa.share == pytest.approx(1 / 3 + 0.4 * 0.25)


def collecting_again(judge: Judge) -> Collected:
    steps, stream = collecting(judge, 99)
    stream.kappa.share = 1 / 3
    return steps.next()


def test_the_refill_limit_and_surplus_count_them(judge: Judge):
    steps, stream = collecting(judge, group={"max_refills": 0})
    stream.kappa.share = 1 / 3
    found = steps.next()  # four prompts, one of them mixed
    assert (names(found), found.metrics["groups/short"], stream.kappa.mixed) == ([1], 1, 1)
    assert stream.kept_share == 1 / 4
    again, stream = collecting(judge)
    stream.kappa.share, stream.kept_share = 1 / 3, 0.1  # forty at once, of which ten are mixed
    found = again.next()
    assert (found.metrics["groups/surplus"], found.metrics["groups/easy"], len(found.groups)) == (7, 1, 4)
    assert stream.kept_share == (10 + 2) / 40  # never more than half of a step


def test_without_kappa_no_group_of_right_answers_alone_trains(judge: Judge):
    for credit in ({"most": 0.0}, {"kind": "efficiency", "gain": None, "most": None}):
        steps, stream = collecting(judge, **credit)
        for _ in range(3):
            found = steps.next()
            assert all(name % 4 == 1 for name in names(found)) and found.metrics["credit/ratio"] is not None
            assert not {"credit/kappa", "groups/easy"} & found.metrics.keys()
        assert stream.kappa.share == 0


def test_what_is_redundant_is_found_in_right_answers_only_counted_and_kept_with_samples(judge: Judge):
    steps, _ = collecting(judge)
    found = steps.next()
    for group in found.sampled:
        for rollout in group.rollouts:
            start = len(f"so {group.problem.answer}\n")
            assert rollout.redundant == ((start, start + len("wait, is it 9999\n")) if rollout.right and rollout.sample % 2 else None)
            assert (rollout.thought is not None) == rollout.right
    rights = [rollout for group in found.sampled for rollout in group.rollouts if rollout.right]
    share = sum(17 for rollout in rights if rollout.redundant) / sum(rollout.tokens for rollout in rights)
    assert found.metrics["credit/redundant"] == pytest.approx(share) and found.metrics["credit/unreached"] == 0
    kept = rows(found.groups, 0, "")["redundant"].to_pylist()
    assert kept == [rollout.redundant and list(rollout.redundant) for group in found.groups for rollout in group.rollouts]


def test_a_mark_of_several_tokens_is_protected_whole_and_a_response_without_thoughts_has_nothing_redundant(judge: Judge):
    steps, stream = collecting(judge, group={"group_size": 3})
    spelled = [*map(ord, "so 7\nWait, 9999\n</think>\\boxed{7}"), STOP]  # a letter each
    made = [
        Completion(np.array(ids, np.int32), np.zeros(len(ids), np.float32), "stop", np.zeros(len(ids), np.int32))
        for ids in (spelled, [CLOSE, *spelled[-10:]])
    ]
    stream.source = Source("seven", lambda position: Problem(f"p{position}", "q", "7"))
    steps._pool = ScriptedPool(lambda request: [*made, said("8", "8")])
    for group in steps.next().groups:
        assert [rollout.right for rollout in group.rollouts] == [True, True, False]
        assert [rollout.redundant for rollout in group.rollouts] == [(5, 16), None, None]


def test_a_gold_that_is_neither_number_nor_box_is_never_reached_and_counted(judge: Judge):
    steps, stream = collecting(judge)
    stream.source = Source("words", lambda position: Problem(f"p{position}", f"q{position}", str(position), others=("x+y",)))
    pool = ScriptedPool(lambda request: [said("so x+y it is\nWait, x+y\n", "y+x" if sample else "-1") for sample in range(4)])
    steps._pool = pool
    found = steps.next()
    assert found.metrics["credit/unreached"] == 1 and found.metrics["credit/redundant"] == 0 and found.metrics["credit/ratio"] is None
    assert all(rollout.redundant is None for group in found.groups for rollout in group.rollouts)


def test_a_shaped_filter_keeps_groups_of_right_answers_alone_in_which_something_is_redundant(judge: Judge):
    steps, _ = collecting(judge, group={"keep_groups": "shaped"}, kind="efficiency", gain=None, most=None)
    assert names(steps.next()) == [1, 2, 3, 5]


def test_a_run_with_kappa_goes_on_as_if_it_had_not_been_killed(judge: Judge):
    wires, learner = CollapseWires(Recipe().wires, THINK), SimpleNamespace(entropy=EntropyControl(FixedEntropy()))

    def step(steps: Collector, at: int) -> tuple[list[int], Any, Any]:
        found = steps.next(at)
        return names(found), found.metrics["credit/kappa"], found.metrics["groups/easy"]

    whole, stream = collecting(judge, 1)
    stream.kappa.share = 0.3
    alone = [step(whole, at) for at in range(6)]
    assert max(easy for *_, easy in alone) > 0 and len({kappa for _, kappa, _ in alone}) > 2
    killed, stream = collecting(judge, 2)
    stream.kappa.share = 0.3
    assert [step(killed, at) for at in range(3)] == alone[:3]
    saved = json.loads(json.dumps(gathered(stateful(stream, learner, wires))))
    resumed, stream = collecting(judge, 3)
    put_back(stateful(stream, learner, wires), saved)
    assert [step(resumed, at) for at in range(3, 6)] == alone[3:]
    assert saved["kappa"]["share"] == alone[3][1]


def test_only_a_recipe_with_kappa_keeps_its_state():
    learner = SimpleNamespace(entropy=None)
    kept = [
        set(stateful(PromptStream(None, None, Recipe.model_validate({"credit": {"kind": kind}})), learner, None))
        for kind in ("even", "decs", "efficiency")
    ]
    assert [part - kept[0] for part in kept] == [set(), {"kappa"}, set()]
