"""P15: collapse trips a wire, in words that name the step's samples, before accuracy has to tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recipes.schema import Wires
from rewards.thinking import THINK
from rl.wires import Collapsed, CollapseWires
from rollout.types import FORCED, MODEL, Completion, Group, Problem, Request, Rollout

REQUEST = Request("r", Problem("p", "q", "1"), (1,), 4, 100, 1.0, 1.0, 0, 100)


def step(*texts: str, finish: str = "stop") -> list[Group]:
    """One group; a token is a letter, and the answer starts behind the closing mark."""
    rollouts = []
    for sample, text in enumerate(texts):
        ids = np.array([ord(letter) for letter in text], np.int32)
        end = text.find("</think>")
        completion = Completion(ids, np.zeros(len(ids), np.float32), finish, np.zeros(len(ids), np.int32))
        rollouts.append(Rollout(f"id{sample}", sample, completion, text, None if end < 0 else end + 8))
    return [Group(REQUEST, rollouts)]


def thought(number: int, tokens: int = 60) -> str:
    drawn = np.random.default_rng(number).integers(97, 123, tokens)
    return "".join(map(chr, drawn)) + "</think>\\boxed{1}"


HEALTHY = [step(*(thought(4 * number + sample) for sample in range(4))) for number in range(8)]
COLLAPSES = {
    "empty thinking block": (step("</think>\\boxed{1}", "<think>\n\n</think>\\boxed{2}", "</think>3", thought(9)), 0.5),
    "repeat themselves": (step(*["wait wait wait wait wait wait wait </think>\\boxed{1}"] * 2, thought(1), thought(2)), 0.5),
    "run into the limit": (step(*(thought(number) for number in range(4)), finish="length"), 0.5),
    "tokens on average, 77 at the start": (step(*["a</think>1"] * 4), 0.5),
    "entropy of its tokens is 0.0010 nats": (HEALTHY[0], 0.001),
}


def healthy(settings: Wires | None = None) -> CollapseWires:
    wires = CollapseWires(settings or Wires(short=0.2), THINK)
    for groups in HEALTHY:
        assert wires.look(groups, 0.5)[1] == []
    return wires


@pytest.mark.parametrize("words", COLLAPSES)
def test_p15_each_collapse_is_said_once_with_samples_until_it_is_over(words: str):
    wires = healthy()
    groups, entropy = COLLAPSES[words]
    _, said = wires.look(groups, entropy)
    assert len(said) == 1 and words in said[0] and "rollouts id0" in said[0]
    assert wires.look(groups, entropy)[1] == []  # it was said
    assert wires.look(HEALTHY[0], 0.5)[1] == []
    assert wires.look(groups, entropy)[1] == said


def test_p15_a_trip_is_counted_in_every_step_that_it_lasts():
    wires = healthy()
    groups, entropy = COLLAPSES["repeat themselves"]
    counts = [wires.look(*looked)[0]["wire/tripped"] for looked in ((groups, entropy), (groups, 0.001), (HEALTHY[0], 0.5))]
    assert counts == [1, 2, 0]


def test_p15_short_names_the_shortest_rollouts_and_entropy_the_surest():
    lengths = (20, 9, 20, 4, 6)
    _, [said] = healthy().look(step(*(f"{'abcdefghijklmnopqrstuvwxyzABCD'[:n]}" for n in lengths)), 0.5)
    assert "rollouts id3, id4, id1, the first 'abcd'" in said
    groups = step(*(thought(number) for number in range(5)))
    for rollout, logprob in zip(groups[0].rollouts, (-1.0, -0.1, np.nan, -0.3, -0.2), strict=True):
        rollout.completion.logprobs[:] = logprob
    last = groups[0].rollouts[4]
    last.completion = replace(last.completion, sources=np.where(np.arange(len(last.text)) < 9, FORCED, MODEL))
    last.completion.logprobs[:9] = -99  # the engine's tokens say nothing of how sure the model is
    _, [said] = healthy().look(groups, 0.001)
    assert "rollouts id1, id4, id3, the first" in said


@pytest.mark.parametrize("words", COLLAPSES)
def test_p15_a_recipe_may_stop_there(words: str):
    wires = healthy(Wires(short=0.2, action="stop"))
    _, said = wires.look(*COLLAPSES[words])
    with pytest.raises(Collapsed, match=rf"step 7: .*{words}.*a checkpoint, step-8: --resume goes on"):
        wires.refuse(said, 7)
    wires.refuse(wires.look(*COLLAPSES[words])[1], 8)  # it was said


def test_p15_wires_know_after_a_resume_what_they_knew():
    wires = healthy()
    groups, entropy = COLLAPSES["tokens on average, 77 at the start"]
    again = CollapseWires(Wires(short=0.2), THINK)
    for _ in range(2):  # the second time it was said
        again.restore(wires.state())
        assert again.look(groups, entropy) == wires.look(groups, entropy) and again.state() == wires.state()


def test_p15_the_starts_length_is_that_of_five_steps_and_nothing_is_short_before():
    wires = CollapseWires(Wires(short=0.2), THINK)
    for groups in [*HEALTHY[:3], step(*["a</think>1"] * 4), HEALTHY[3]]:
        assert wires.look(groups, 0.5)[1] == []
    assert wires.state()["length"] == pytest.approx((4 * 77 + 10) / 5)


@pytest.mark.parametrize(("most", "trips"), [(0.5, 0), (0.49, 1)])
def test_p15_a_share_that_is_allowed_trips_nothing(most: float, trips: int):
    wires = CollapseWires(Wires(repetition=most), THINK)  # half of the rollouts repeat themselves
    assert len(wires.look(*COLLAPSES["repeat themselves"])[1]) == trips


def test_p15_a_thought_that_the_engine_closed_at_once_is_no_empty_one():
    groups = step(*["</think>\\boxed{1}"] * 4)
    assert healthy().look(groups, 0.5)[0]["wire/empty_thinking"] == 1
    for rollout in groups[0].rollouts:
        rollout.completion = replace(rollout.completion, sources=np.where(np.arange(len(rollout.text)) < 8, FORCED, MODEL))
    assert healthy().look(groups, 0.5)[0]["wire/empty_thinking"] == 0


def test_p15_what_was_not_sampled_or_trained_trips_nothing():
    wires = CollapseWires(Wires(), THINK)
    assert wires.look([], None) == ({}, [])
    aborted = step("", "", finish="abort")
    assert wires.look(aborted, None) == ({}, []) and wires.state()["steps"] == 0
    metrics, said = wires.look(step("no thought, no mark, all different letters"), None)
    assert said == [] and metrics == {"wire/empty_thinking": 0.0, "wire/repetition": 0.0, "wire/tripped": 0}
