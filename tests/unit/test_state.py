"""State that a checkpoint keeps beside the weights comes back as it was, whole or not at all."""

from __future__ import annotations

import json

import pytest

from recipes.objectives import Entropy
from recipes.schema import Recipe
from rl.checkpoint import CheckpointError
from rl.objective import EntropyControl
from rl.state import gathered, put_back
from rollout.budget import Control
from rollout.collector import PromptStream


def test_what_moved_comes_back_through_json_and_goes_on_the_same():
    settings = Entropy(coef=0.01, target=0.5)
    reward = [{"kind": "verdict", "wrong": -1.0}, {"kind": "leash", "gain": 0.005}]
    recipe = Recipe.model_validate({"budget": {"kind": "controller", "measure": 1}, "reward": reward})
    parts = {
        "stream": PromptStream(None, None, Recipe(), position=70, kept_share=0.25),
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
    assert (moved["stream"], moved["entropy"]) == ({"position": 70, "kept_share": 0.25}, {"coef": 0.015, "on": True})
    assert (
        moved["budget"]["leash"] == pytest.approx(0.11) and moved["budget"]["floor"]["steps"] == 2 and moved["budget"]["floor"]["share"] < 1
    )
    assert again["budget"].after(0, 0.9, 1.0) == parts["budget"].after(0, 0.9, 1.0)
    for control in (parts["entropy"], again["entropy"]):
        control.after(0.9)
    assert parts["entropy"].bonus == again["entropy"].bonus


@pytest.mark.parametrize("saved", [None, {}, {"entropy": {"coef": 0.0, "on": True}, "laser": {}}])
def test_a_checkpoint_that_keeps_other_state_than_the_run_has_is_refused(saved):
    with pytest.raises(CheckpointError, match=r"the checkpoint keeps the state of .*: train anew"):
        put_back({"entropy": EntropyControl(Entropy())}, saved)
