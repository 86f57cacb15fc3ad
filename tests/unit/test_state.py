"""State that a checkpoint keeps beside the weights comes back as it was, whole or not at all."""

from __future__ import annotations

import json

import numpy as np
import pytest

from recipes.objectives import AdaptiveEntropy, FixedEntropy
from recipes.schema import Recipe
from rl.checkpoint import CheckpointError
from rl.objective import EntropyControl
from rl.state import gathered, put_back
from rollout.budget import Control, group_limit
from rollout.collector import PromptStream
from tests.unit.test_budgets import group_of


def test_what_moved_comes_back_through_json_and_goes_on_the_same():
    settings = AdaptiveEntropy(kind="adaptive", coef=0.01, target=0.5)
    reward = [{"kind": "verdict", "wrong": -1.0}, {"kind": "leash", "gain": 0.005}]
    recipe = Recipe.model_validate({"budget": {"kind": "controller", "measure": 1}, "reward": reward})
    parts = {
        "stream": PromptStream(None, None, Recipe(), position=70, kept_share=0.25, too_long=3),
        "budget": Control(recipe),
        "entropy": EntropyControl(settings),
    }
    parts["entropy"].after(0.2)
    for accuracy in (0.5, 0.9):
        parts["budget"].after(0, accuracy, 1.0)
    saved = json.loads(json.dumps(gathered(parts)))
    again = {"stream": PromptStream(None, None, Recipe()), "budget": Control(recipe), "entropy": EntropyControl(settings)}
    put_back(again, saved)
    assert gathered(again) == gathered(parts)
    moved = gathered(again)
    assert (moved["stream"], moved["entropy"]) == ({"position": 70, "kept_share": 0.25, "too_long": 3}, {"coef": 0.015, "on": True})
    assert (
        moved["budget"]["leash"] == pytest.approx(0.11) and moved["budget"]["floor"]["steps"] == 2 and moved["budget"]["floor"]["share"] < 1
    )
    assert again["budget"].after(0, 0.9, 1.0) == parts["budget"].after(0, 0.9, 1.0)
    parts["entropy"].after(0.9)
    again["entropy"].restore(json.loads(json.dumps(parts["entropy"].state())))  # off, and as large as it was
    for control in (parts["entropy"], again["entropy"]):
        control.after(0.2)
        assert (control.weight, control.on) == (pytest.approx(0.015), True)


@pytest.mark.parametrize("saved", [None, {}, {"entropy": {"coef": 0.0, "on": True}, "laser": {}}])
def test_a_checkpoint_that_keeps_other_state_than_the_run_has_is_refused(saved):
    with pytest.raises(CheckpointError, match=r"the checkpoint keeps the state of .*: train anew"):
        put_back({"entropy": EntropyControl(FixedEntropy())}, saved)


@pytest.mark.parametrize("kind", ["toggle", "coverage", "controller"])
def test_every_budget_that_remembers_goes_on_as_if_it_had_not_been_killed(kind):
    """Steps 0 to 5, killed after 2: a Control restored through JSON gives the same limits from there on."""
    budget = {"kind": kind, "limit": 100, "room": 2.0} | {
        "toggle": {"period": 2, "accuracy": 0.0, "percentile": 20},
        "controller": {"measure": 1, "watch": 1.0},
    }.get(kind, {})
    recipe = Recipe.model_validate({"budget": budget, "sampler": {"group_size": 4}})

    def step(control: Control, at: int) -> object:
        lengths = [40 + 9 * at, 90, 110 + 13 * at, 130 + 13 * at]
        control.watched(at, [group_of(lengths, right) for right in (4, 2, 1)])
        trace = control.after(at, 0.5 + at / 20, 0.1, lengths)
        all_G = np.ones(4, dtype=bool)
        return trace, control.floor, [group_limit(control.budget(recipe.budget, at), 100, np.array(lengths), all_G, all_G)]

    whole, killed, resumed = Control(recipe), Control(recipe), Control(recipe)
    alone = [step(whole, at) for at in range(6)]
    assert [step(killed, at) for at in range(3)] == alone[:3]
    resumed.restore(json.loads(json.dumps(killed.state())))
    assert [step(resumed, at) for at in range(3, 6)] == alone[3:]
    assert len({str(one) for one in alone}) > 1


def test_state_that_another_version_wrote_is_refused_in_words():
    saved = {"stream": {"position": 3, "kept_share": 1.0}, "budget": Control(Recipe()).state() | {"floor": {"lambda": 1.0}}}
    with pytest.raises(CheckpointError, match=r"the state of stream as another version wrote it \('too_long'\): train anew"):
        put_back({"stream": PromptStream(None, None, Recipe())}, {"stream": saved["stream"]})
    with pytest.raises(CheckpointError, match=r"the state of budget as another version wrote it .*: train anew"):
        put_back({"budget": Control(Recipe())}, {"budget": saved["budget"]})
