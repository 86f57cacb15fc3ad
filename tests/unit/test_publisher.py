"""P10 by hand: what a publisher makes of the digests and logprobs that engines answer. Real engines, learners and carriers are in tests/integration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from recipes.schema import Publish
from rl.publisher import Publisher, PublishError

OWN = [-1.0, -2.0]  # what the learner says of the probe


class Engines:
    """A pool and its carrier: the numbers of engines that are left, what they confirm and how they score."""

    def __init__(self, numbers: Sequence[int] = (0, 1), scores: Sequence[Sequence[float]] = (OWN, OWN)):
        self.numbers, self.scores = list(numbers), scores
        self.digests = {"a": 1, "b": 2}
        self.confirmed: list[dict[str, int]] | None = None
        self.said: list[str] = []

    def release(self) -> None:
        self.said.append("release")

    def score(self, probe: Any) -> list[list[np.ndarray]]:
        self.said.append("score")
        return [[np.array(scores, np.float32)] for scores in self.scores]

    def push(self, learner: Any, pool: Any, version: int) -> tuple[dict[str, int], list[dict[str, int]]]:
        self.said.append(f"push {version}")
        return self.digests, self.confirmed or [self.digests for _ in self.numbers]


LEARNER: Any = SimpleNamespace(score=lambda probe: [np.array(OWN, np.float32)])


def publisher(engines: Any, **settings: Any) -> Publisher:
    return Publisher(engines, Publish(**settings), [[1, 2, 3]], carrier=engines)


@pytest.mark.parametrize(
    ("scores", "who", "gap"),
    [
        ([[-1.5, -2.0], OWN], 3, "0.25"),
        ([OWN, [-1.0, -2.5]], 5, "0.25"),
        ([OWN, [-1.5, -1.5]], 5, "0.5"),  # gaps that are 0 on average
        ([[np.nan, -2.0], OWN], 3, "nan"),
        ([OWN, [-1.0, np.nan]], 5, "nan"),
        ([[-3.0, -2.0], [-1.0, np.nan]], 5, "nan"),
    ],
)
def test_p10_each_engines_logprobs_are_the_learners_and_one_whose_are_not_or_no_numbers_is_named(scores: Any, who: int, gap: str):
    engines = Engines((3, 5), scores)  # others were given up
    with pytest.raises(
        PublishError, match=rf"^engine {who} gives other logprobs .* version 7: mean gap {re.escape(gap)} nats, publish.tolerance 0.2\."
    ):
        publisher(engines, tolerance=0.2).push(LEARNER, 7)


def test_p10_a_gap_that_is_allowed_is_recorded_the_largest_of_all_engines():
    engines = Engines((0, 1, 2), [OWN, [-1.25, -2.0], [-1.0, -2.0625]])
    assert publisher(engines, tolerance=0.125).push(LEARNER, 1)["publish/check"] == 0.125


@pytest.mark.parametrize(
    ("confirmed", "words"),
    [
        ({"a": 1, "b": 3}, r"of b \(1 tensors differ\)"),
        ({"a": 1}, r"of b \(1 tensors differ\)"),
        ({}, r"of a \(2 tensors differ\)"),
        ({"a": 1, "b": 2, "c": 3}, r"of c \(1 tensors differ\)"),
    ],
)
def test_p10_bytes_that_an_engine_does_not_confirm_or_has_beside_are_an_error_before_anything_is_sampled(
    confirmed: dict[str, int], words: str
):
    engines = Engines((0, 2))
    engines.confirmed = [engines.digests, confirmed]
    with pytest.raises(PublishError, match=rf"^engine 2 holds other bytes than version 4 {words}"):
        publisher(engines).push(LEARNER, 4)
    assert engines.said == ["release", "push 4"]


def test_p10_the_first_push_is_checked_and_every_so_many_versions_and_old_bytes_are_let_go_before_new_ones_come():
    engines = Engines()
    made = publisher(engines, check_every=3)
    found = []
    for version, digests in ((4, {"a": 1, "b": 2}), (5, {"a": 1, "b": 2}), (6, {"a": 1, "b": 3}), (7, {"a": 2, "b": 4})):
        engines.digests = digests
        found.append(made.push(LEARNER, version))
        made.begin(LEARNER, version)  # they hold it
    assert [said["publish/changed"] for said in found] == [1.0, 0.0, 0.5, 1.0]
    assert ["publish/check" in said for said in found] == [True, False, True, False]
    assert engines.said == ["release", "push 4", "score", "release", "push 5", "release", "push 6", "score", "release", "push 7"]
    made.begin(LEARNER, 8)
    assert engines.said[-2:] == ["release", "push 8"]
