"""`laconic eval --lenient`: which samples are read for a stated answer, and that verdicts on boxes stay as they were."""

from __future__ import annotations

import numpy as np

from evaluation.evaluate import evaluate, read_stated
from recipes.schema import Eval
from rewards.verifier.judge import Judge
from rollout.scorer import Scorer
from rollout.types import Completion, Problem
from tests.scripted import CLOSE, STOP, ScriptedPool, template

SAMPLES = [  # thought, answer behind it (None: the thinking never closes), how it ended, verdict, what reading gives
    ("x", "\\boxed{42}", "stop", "right", None),
    ("x", "\\boxed{41}, or the answer is 42", "stop", "wrong", None),
    ("x", "The answer is 42.", "stop", "wrong", "right"),
    ("x", "#### 42", "stop", "wrong", "right"),
    ("The answer is 42.", "The answer is 7.", "stop", "wrong", "wrong"),
    ("The answer is 42.", "It is hard to say", "stop", "wrong", "wrong"),
    ("The answer is 42.", None, "stop", "wrong", None),
    ("x", "The answer is 42.", "length", "wrong", None),
    ("x", "", "stop", "wrong", None),
]


def completion(thought: str, answer: str | None, finish: str) -> Completion:
    ids = [*map(ord, thought), *([] if answer is None else [CLOSE, *map(ord, answer)]), *([STOP] if finish == "stop" else [])]
    return Completion(np.array(ids, np.int32), np.zeros(len(ids), np.float32), finish, np.zeros(len(ids), np.int32))


def test_finished_samples_without_a_box_are_read_behind_their_thinking_and_no_others():
    pool = ScriptedPool(lambda request: [completion(*sample[:3]) for sample in SAMPLES])
    with Judge(1, 3.0, 512) as judge:
        scorer = Scorer(judge, template())
        groups = evaluate(pool, scorer, [Problem("p", "q", "42")], Eval(samples=len(SAMPLES)), seed=0)
        read_stated(groups, scorer)
    found = [(rollout.verdict.status, rollout.stated.status if rollout.stated else None) for rollout in groups[0].rollouts]
    assert found == [sample[3:] for sample in SAMPLES]
