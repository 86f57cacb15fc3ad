"""Room in a cluster that a node left: who waits for it says what is missing, and does not wait for ever."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from launch import groups
from launch.groups import RoomLost, reserve
from launch.machine import Machine
from launch.placement import Group, Placement

PLACED = Placement(
    (Machine(2, 1, name="10.0.0.1"), Machine(2, 1, name="10.0.0.2")), {"learner": 0.0}, {"learner": [1]}, (Group("PACK", ({"CPU": 1.0},)),)
)


def cluster(monkeypatch: pytest.MonkeyPatch, alive: list[str], waits: int) -> None:
    """A cluster of so many nodes, that has room after so many waits of 100 s."""
    clock, left = [0.0], [waits]

    def wait(seconds: float) -> bool:
        clock[0] += 100.0
        left[0] -= 1
        return left[0] < 0

    monkeypatch.setattr(groups, "placement_group", lambda bundles, strategy: SimpleNamespace(wait=wait))
    monkeypatch.setattr(groups, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    nodes = [{"NodeManagerAddress": name, "Alive": name in alive} for name in ("10.0.0.1", "10.0.0.2")]
    monkeypatch.setattr(
        groups, "ray", SimpleNamespace(nodes=lambda: nodes, cluster_resources=lambda: {"CPU": 2}, available_resources=lambda: {"CPU": 0})
    )


def test_room_that_went_with_a_node_is_waited_for_two_minutes_and_the_node_named(monkeypatch: pytest.MonkeyPatch):
    cluster(monkeypatch, ["10.0.0.1"], waits=50)
    with pytest.raises(
        RoomLost, match=r"^node 10\.0\.0\.2 is gone from the cluster, and for 120 s there was no room elsewhere; bring it back"
    ):
        reserve(PLACED)
    cluster(monkeypatch, ["10.0.0.1"], waits=17)
    reserve(PLACED, preemptible=True)
    cluster(monkeypatch, ["10.0.0.1"], waits=18)
    with pytest.raises(RoomLost, match=r"for 1800 s there was no room"):
        reserve(PLACED, preemptible=True)


def test_a_node_that_comes_back_in_time_and_room_that_others_hold_are_waited_for(monkeypatch: pytest.MonkeyPatch, caplog):
    cluster(monkeypatch, ["10.0.0.1"], waits=1)
    reserve(PLACED)
    caplog.clear()
    cluster(monkeypatch, ["10.0.0.1", "10.0.0.2"], waits=50)
    with caplog.at_level(logging.WARNING):
        reserve(PLACED)
    assert caplog.text.count("waiting for room in Ray: 1 CPU, 2 there, 0 free") == 50
