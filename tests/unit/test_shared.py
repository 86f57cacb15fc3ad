"""What nodes must have in common: which nodes are asked, and what their answers come to. Two real nodes are asked in tests/cluster."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from launch import shared
from launch.machine import Machine
from launch.memory import GB
from launch.plan import Plan, plan
from launch.shared import elsewhere, refuse_missing, refuse_unshared
from recipes.loader import load
from rl.run import RunError

CORES = [Machine(8, 20 * GB, name=f"10.0.0.{n}", lends=8) for n in (1, 2, 3)]


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan of two engines, of which one is on another node."""
    made = plan(load("quickstart", None, ["engine.count=2", "learner.ranks=1", "cluster={kind: apart, nodes: 2}"]), CORES[0], CORES[1:])
    assert elsewhere(made) == ["10.0.0.2"]
    return made


def answering(monkeypatch: pytest.MonkeyPatch, change: Any = lambda answer, token: answer) -> list[list[str]]:
    """Nodes that see what this machine sees, and then what `change` makes of it; which were asked."""
    heard = []

    def asked(names: list[str], what: str, ask: Any, *arguments: Any, **_: Any) -> list[Any]:
        heard.append(names)
        return [change(ask(*arguments), arguments[-1]) for _ in names]

    monkeypatch.setattr(shared, "asked", asked)
    return heard


def test_nodes_where_nothing_of_the_run_is_are_not_asked():
    assert elsewhere(plan(load("quickstart", None, ["cluster={kind: apart, nodes: 1}"]), CORES[0], CORES[1:])) == []
    gpus = [Machine(64, 800 * GB, (80 * GB,) * 8, name=f"10.0.0.{n}", lends=64) for n in (5, 6)]
    assert elsewhere(plan(load("dler", "node8"), CORES[0], [CORES[1], *gpus])) == ["10.0.0.5", "10.0.0.6"]  # Ray says which


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda answer, token: None, r"node 10.0.0.2 does not see it: name a folder on storage that all nodes share \(--runs\)"),
        (lambda answer, token: "Read-only file system", r"node 10.0.0.2 cannot write there \(Read-only file system\)"),
        (lambda answer, token: (token.parent / answer).unlink() or answer, r"what node 10.0.0.2 writes there is not seen here"),
    ],
)
def test_a_folder_that_a_node_does_not_share_is_refused_and_nothing_is_left_there(
    answer: Any, said: str, two: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    answering(monkeypatch, answer)
    with pytest.raises(RunError, match=rf"^{tmp_path}/runs: {said}"):
        refuse_unshared(two, tmp_path / "runs", "--runs")
    assert list(tmp_path.iterdir()) == []
    heard = answering(monkeypatch)
    refuse_unshared(two, tmp_path / "runs", "--runs")
    assert heard == [["10.0.0.2"]] and list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_a_node_lacks_or_has_otherwise_is_refused(two: Plan, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    answering(monkeypatch)
    refuse_missing(two, tiny_checkpoint)
    answering(monkeypatch, lambda files, _: {})
    with pytest.raises(RunError, match=rf"model.path: node 10.0.0.2 has no {tiny_checkpoint}; put it on storage that all nodes share"):
        refuse_missing(two, tiny_checkpoint)
    answering(monkeypatch, lambda files, _: files | {"model.safetensors": 1})
    with pytest.raises(RunError, match=rf"has another {tiny_checkpoint}/model.safetensors, or none"):
        refuse_missing(two, tiny_checkpoint)


def test_a_model_of_the_hub_is_fetched_by_each_node_at_the_drivers_commit_and_place(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    snapshot = tmp_path / "hub/models--owner--name/snapshots/0123abc"
    shutil.copytree(tiny_checkpoint, snapshot)
    words = ["model.path=owner/name", "engine.count=2", "learner.ranks=1", "cluster={kind: apart, nodes: 2}", "stages=[rl]"]
    made = plan(load("quickstart", None, words), CORES[0], CORES[1:])
    fetched = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *model, **how: fetched.append((model, how)))
    answering(monkeypatch)
    refuse_missing(made, snapshot)
    [(model, how)] = fetched
    assert (model, how["revision"], how["cache_dir"]) == (("owner/name",), "0123abc", tmp_path / "hub")
