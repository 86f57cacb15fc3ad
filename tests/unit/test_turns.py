"""Turns of engines and learner on shared GPUs: who is asked for what, in which order, and that a run comes to the same with them and without."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from launch import stages
from launch.plan import Plan, plan
from rl.learner import Learner, LearnerRank
from rl.turns import Turns
from rollout.reference_engine import ReferenceEngine
from rollout.sleep import Wakefulness
from tests.inprocess import libraries
from tests.unit.test_loop import recipe

CALLS = {
    ReferenceEngine: ("sleep", "wake", "load", "advance", "score"),
    LearnerRank: ("rest", "update", "measure", "score", "weights", "save"),
}


class Recorder:
    """Engines or a learner that note what is asked of them."""

    def __init__(self, said: list[str]):
        self._said = said

    def sleep(self) -> None:
        self._said.append("sleep")

    def wake(self, part: str) -> None:
        self._said.append(f"wake {part}")

    def rest(self, resting: bool) -> None:
        self._said.append("rest" if resting else "back")


def test_a_round_of_turns_is_in_order_and_nothing_is_asked_twice():
    said: list[str] = []
    turns = Turns((Recorder(said), Recorder(said)))
    turns.learn()
    turns.sample()  # nothing was handed over: engines have no weights
    assert said == []
    for _ in range(2):
        turns.hand_over()
    assert said == ["rest", "wake weights"]
    for _ in range(2):
        turns.sample()
        turns.hand_over()  # a push to engines that are awake
    assert said == ["rest", "wake weights", "wake kv_cache"]
    for _ in range(2):
        turns.learn()
    assert said == ["rest", "wake weights", "wake kv_cache", "sleep", "back"]
    turns.hand_over()
    turns.learn()  # of what was handed over, nothing is sampled
    assert said[5:] == ["rest", "wake weights", "sleep", "back"]


def test_the_time_that_turns_took_is_that_of_all_of_them_since_it_was_asked_for(monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 13.0])
    monkeypatch.setattr("rl.turns.time.monotonic", lambda: next(clock))
    turns = Turns((Recorder([]), Recorder([])))
    turns.hand_over()
    turns.sample()
    assert turns.spent() == {"seconds/turns": 5.0} and turns.spent() == {"seconds/turns": 0.0}


def test_without_pairs_no_turn_asks_for_anything():
    turns = Turns()
    for turn in (turns.learn, turns.hand_over, turns.sample, turns.learn):
        turn()
    assert turns.spent() == {}


def test_an_engine_knows_what_it_lacks():
    engine = Wakefulness()
    engine.needed("sample")
    engine.sleep()
    engine.wake("kv_cache")
    with pytest.raises(RuntimeError, match=r"asked to sample that has no room for weights and no weights: it sleeps"):
        engine.needed("sample")
    with pytest.raises(RuntimeError, match=r"version 3 came to an engine that sleeps: wake it first"):
        engine.loading(3)
    engine.wake("weights")
    with pytest.raises(RuntimeError, match=r"asked to score that has no weights: it sleeps"):
        engine.needed("score")
    engine.loading(3)
    with pytest.raises(RuntimeError, match=r"asked to score that has no weights: .*a push did not arrive"):
        engine.needed("score")
    engine.loaded()
    engine.needed("score")


def taking(made: Plan, turns: bool = True) -> Plan:
    """The plan as on GPUs that are shared."""
    return replace(made, turns=turns, stages=[replace(part, turns=turns) for part in made.stages])


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What engines and ranks of a run in this process are asked, by name."""
    said: list[str] = []

    def noted(kind: type, name: str) -> Callable[..., Any]:
        method = getattr(kind, name)

        def call(self: Any, *arguments: Any) -> Any:
            words = {"wake": f"wake {arguments[0] if arguments else ''}", "rest": "rest" if arguments == (True,) else "back"}
            who = "engine" if kind is ReferenceEngine else "rank"
            said.append(words.get(name, f"{who} {name}" if name in ("score",) else name))
            return method(self, *arguments)

        return call

    with monkeypatch.context() as patch, libraries():
        for kind, names in CALLS.items():
            for name in names:
                patch.setattr(kind, name, noted(kind, name))
        yield said


def runs(said: list[str]) -> list[str]:
    """Without repetitions."""
    return [words for index, words in enumerate(said) if index == 0 or said[index - 1] != words]


ROUND = ["rest", "wake weights", "weights", "load", "wake kv_cache"]


def test_a_whole_run_takes_turns_in_this_order(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Engines rehearse before the learner is there, evaluations and checkpoints leave them awake, and each step ends with a push."""
    wanted = recipe(
        tiny_checkpoint,
        stages=["rl", "eval"],
        engine={"kind": "reference", "count": 2},
        train={"steps": 2},
        publish={"check_every": 1, "tolerance": 1e-3},
        eval={"data": ["tiny"], "problems": 2, "samples": 2, "max_tokens": 4, "every": 1, "temperature": 1.0, "top_p": 1.0},
    )
    with watched(monkeypatch) as said:
        stages.run_recipe(taking(plan(wanted)), tmp_path)
    found = runs(said)
    evaluated, check = ["advance", "measure"], ["rank score", "engine score"]
    step = ["advance", "sleep", "back", "measure", "update", *ROUND, *check]
    begin = ["advance", "sleep"]  # the rehearsal
    assert found == [*begin, *ROUND, *check, *evaluated, *step, *evaluated, "save", *step, "save", *evaluated]


def lines(folder: Path) -> list[dict[str, Any]]:
    """A run's record without times."""
    record = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not re.match(r"seconds/|time$|tokens_per_s", name)} for line in record]


def test_a_run_comes_to_the_same_with_turns_and_without_and_when_it_is_stopped_while_engines_sleep(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Learner, "restore", lambda self, folder: None)  # the stand-in keeps no weights
    found = {}
    for name, turns in (("together", False), ("turns", True), ("stopped", True)):
        wanted = recipe(tiny_checkpoint, name=name, learner={"lr": 1e-30})  # moves weights by less than a logprob shows, on any CPU
        with libraries(), monkeypatch.context() as patch:
            if name == "stopped":
                begun, update = [], LearnerRank.update

                def stopping(self: LearnerRank, *arguments: Any, begun: list[int] = begun, update: Any = update) -> Any:
                    begun.append(1)
                    if len(begun) == 2:
                        raise KeyboardInterrupt("SIGTERM")
                    return update(self, *arguments)

                patch.setattr(LearnerRank, "update", stopping)
                with pytest.raises(KeyboardInterrupt):
                    stages.run_recipe(taking(plan(wanted)), tmp_path)
                assert json.loads((tmp_path / name / "status.json").read_text())["state"] == "stopped"
                assert len(lines(tmp_path / name)) == 1
            stages.run_recipe(taking(plan(wanted), turns), tmp_path, resume=name == "stopped")
        tables = [pq.read_table(path) for path in sorted((tmp_path / name / "samples").iterdir())]
        found[name] = lines(tmp_path / name), [table.to_pylist() for table in tables]
    assert found["turns"] == found["together"]
    shown = [
        json.loads(line).get("seconds/turns") for name in found for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
    ]
    assert shown[:3] == [None] * 3 and all(seconds > 0 for seconds in shown[3:])
    assert found["stopped"][1] == found["together"][1] and len(found["stopped"][0]) == 3
