"""Carriers by what they ask of a learner and a pool, and the learner's end of each, in this process. Real ones are in tests/integration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from rl.carriers import Broadcast, Ipc, ObjectStore
from rl.outbox import Outbox
from rollout.engine import EngineError, NothingCame
from rollout.weights import Undelivered, as_numbers, digest


class Sides:
    """A learner of two ranks and a pool of engines 1 and 3 (others were given up); `said` is what both are asked."""

    count, numbers = 2, [1, 3]

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.restarts = 0
        self.fails: Exception | None = None
        self.misses: int | None = None  # an engine that is handed another parcel in the push

    def weights(self) -> tuple[str, dict[str, int]]:
        return "stored", {"w": 7}

    def hand_out(self, how: str, *arguments: Any) -> Callable[[float], list[Any]]:
        self.said.append((how, *arguments))
        given = {
            "share": lambda: [{engine: f"handles {engine}"} for engine in arguments[0]],
            "meet": lambda: [[f"seat {place} of {arguments[0]}" for place in range(arguments[0])], []],
        }.get(how, lambda: [{"w": 7}, {}])

        def wait(seconds: float) -> list[Any]:
            self.said.append(f"{how} done within {seconds:g} s")
            return given()

        return wait

    def wait_ready(self) -> None:
        self.said.append("ready")

    def push(self, parcels: list[Any], version: int, again: Any) -> list[dict[str, int]]:
        self.said.append((f"push {version}", *parcels))
        if self.misses is not None:
            self.restarts += 1
            with again(self.misses) as parcel:
                self.said.append(parcel)
        if self.fails is not None:
            raise self.fails
        return [{"w": 7}] * 2


@contextmanager
def failing(sides: Any, error: Exception) -> Iterator[None]:
    sides.fails = error
    with pytest.raises(type(error)):
        yield
    sides.fails = None


@pytest.fixture
def sides() -> Any:
    return Sides()


def test_p10_the_store_hands_all_engines_that_are_left_the_same(sides: Any):
    sides.misses = 3
    assert ObjectStore().push(sides, sides, 4) == ({"w": 7}, [{"w": 7}] * 2)
    assert sides.said == [("push 4", "stored", "stored"), "stored"]


FORGET = [("forget",), "forget done within 300 s"]


def test_p10_each_engine_that_is_left_gets_the_handles_of_its_number_and_nothing_is_held_when_all_confirmed(sides: Any):
    assert Ipc().push(sides, sides, 4) == ({"w": 7}, [{"w": 7}] * 2)
    shared = [("share", [1, 3]), "share done within 300 s", ("digests",), ("push 4", "handles 1", "handles 3")]
    assert sides.said == [*shared, "digests done within 300 s", *FORGET]
    del sides.said[:]
    sides.misses = 3
    with failing(sides, EngineError("out of memory")):
        Ipc().push(sides, sides, 4)
    assert sides.said == [*shared, ("share", [3]), "share done within 300 s", "handles 3", *FORGET]
    del sides.said[:]
    sides.misses = None
    with failing(sides, NothingCame("engine 1 got nothing")):
        Ipc().push(sides, sides, 4)
    assert sides.said == [*shared, *FORGET]  # a learner that is gone fails in that, by its name


def test_p10_a_broadcasts_group_stays_until_an_engine_was_started_again_or_a_push_failed(sides: Any):
    carrier, met = Broadcast(2, 9.0), [("meet", 2, 2, 9.0), "meet done within 300 s"]
    sent = [("send",), ("push 4", "seat 0 of 2", "seat 1 of 2"), "send done within 300 s"]

    def pushed() -> list[Any]:
        del sides.said[:]
        assert carrier.push(sides, sides, 4) == ({"w": 7}, [{"w": 7}] * 2)
        return sides.said

    assert pushed() == ["ready", *met, *sent]
    assert pushed() == ["ready", *sent]
    sides.misses = 3
    alone = [("meet", 1, 2, 9.0), "meet done within 300 s", ("send",), "seat 0 of 1", "send done within 300 s"]
    assert pushed() == ["ready", *sent[:2], *alone, sent[2]]
    sides.misses = None
    assert pushed() == ["ready", *met, *sent] and pushed() == ["ready", *sent]
    del sides.said[:]
    with failing(sides, EngineError("out of memory")):
        carrier.push(sides, sides, 4)
    assert sides.said == ["ready", *sent[:2]] and pushed() == ["ready", *met, *sent]
    with failing(sides, NothingCame("engine 1 got nothing")):
        carrier.push(sides, sides, 4)
    assert sides.said[-1] == "send done within 5 s"  # a learner that is gone fails in that, by its name
    assert pushed() == ["ready", *met, *sent]


def boxes(ranks: int, stays: bool = True) -> tuple[nn.Module, list[Outbox]]:
    model = nn.Linear(3, 2)
    return model, [Outbox(model, ["weight", "bias"], rank, ranks, "cpu", stays) for rank in range(ranks)]


@pytest.mark.parametrize("stays", [True, False])
def test_p10_a_rank_shares_with_the_engines_beside_it_and_rank_0_alone_makes_digests(stays: bool):
    model, (first, second) = boxes(2, stays)
    shared = first.share([0, 1, 2, 5]) | second.share([0, 1, 2, 5])
    assert [*shared] == [0, 2, 1, 5] and all(list(one.names) == ["bias", "weight"] for one in shared.values())
    assert all(bool(handle.key) is stays for one in shared.values() for handle in one.handles.values())
    for again in range(2):
        got = dict(first.share([0])[0].tensors(0, torch.device("cpu")))
        assert all(torch.equal(got[name], tensor) for name, tensor in model.state_dict().items()), again
        assert second.digests() == {} and first.digests() == as_numbers({name: digest(got[name]) for name in got})
        with torch.no_grad():
            model.weight.mul_(2)
    first.forget()
    assert first.digests() == {}


def test_p10_rank_0_alone_puts_bytes_into_the_store_and_their_digests_with_them():
    model, (first, second) = boxes(2)
    stored, digests = first.store()
    assert all(torch.equal(stored[name].tensor(), tensor) for name, tensor in model.state_dict().items())
    assert digests == {name: stored[name].digest for name in ("bias", "weight")} and second.store() == ({}, {})


def test_p10_seats_leave_room_for_each_engines_workers_and_who_does_not_come_costs_a_push_no_digest(monkeypatch: pytest.MonkeyPatch):
    def alone(*_: object) -> None:
        raise Undelivered("rank 0 of 7 did not meet the others")

    monkeypatch.setattr("rl.outbox._own_address", lambda: "127.0.0.1")
    monkeypatch.setattr("rl.outbox.Group", alone)
    model, (first, second) = boxes(2)
    assert second.meet(3, 2, 60.0) == [] and second.send() == {}
    seats = first.meet(3, 2, 60.0)
    assert [seat.first for seat in seats] == [1, 3, 5] and {seat.meeting.size for seat in seats} == {7}
    assert list(seats[0].names) == ["bias", "weight"] and (seats[0].meeting.host, seats[0].meeting.seconds) == ("127.0.0.1", 60.0)
    assert first.send() == as_numbers({name: digest(tensor) for name, tensor in model.state_dict().items()})
    with pytest.raises(AssertionError, match="nobody was given a seat"):  # those of before are no longer waited for
        first.send()
    assert first.meet(1, 1, 60.0)[0].meeting != seats[0].meeting
