"""State that a checkpoint keeps beside the weights comes back as it was, whole or not at all."""

from __future__ import annotations

import json

import pytest

from recipes.objectives import Entropy
from rl.checkpoint import CheckpointError
from rl.objective import EntropyControl
from rl.state import gathered, put_back
from rollout.collector import PromptStream


def test_what_moved_comes_back_through_json_and_goes_on_the_same():
    settings = Entropy(coef=0.01, target=0.5)
    parts = {"stream": PromptStream(None, None, None, position=70, kept_share=0.25), "entropy": EntropyControl(settings)}
    parts["entropy"].after(0.2)
    saved = json.loads(json.dumps(gathered(parts)))
    again = {"stream": PromptStream(None, None, None), "entropy": EntropyControl(settings)}
    put_back(again, saved)
    assert gathered(again) == gathered(parts) == {"stream": {"position": 70, "kept_share": 0.25}, "entropy": {"coef": 0.015, "on": True}}
    for control in (parts["entropy"], again["entropy"]):
        control.after(0.9)
    assert parts["entropy"].bonus == again["entropy"].bonus


@pytest.mark.parametrize("saved", [None, {}, {"entropy": {"coef": 0.0, "on": True}, "laser": {}}])
def test_a_checkpoint_that_keeps_other_state_than_the_run_has_is_refused(saved):
    with pytest.raises(CheckpointError, match=r"the checkpoint keeps the state of .*: train anew"):
        put_back({"entropy": EntropyControl(Entropy())}, saved)
