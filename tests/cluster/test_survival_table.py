"""Every cell of the table in docs/promises.md: one run for each who and signal, to which it happens in each phase in turn. Slow: half an hour on two cores.

python -m pytest -s tests/cluster/test_survival_table.py    # also prints after how many seconds each fault was noticed
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.faults.survival import PEERS, PHASES, SIGNALS, outcome
from tests.faults.test_survival import Ended, arguments, learned, model, problems, run  # noqa: F401

CHANGES = ["train.steps=8", "train.keep_checkpoints=2"]


@pytest.fixture(scope="module")
def alone(model: Path, problems: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    runs = tmp_path_factory.mktemp("alone")
    ended = run(arguments(model, runs, problems, *CHANGES), runs, actors=False)
    assert ended.code == 0, ended.output[-3000:]
    return runs


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("sign", SIGNALS)
@pytest.mark.parametrize("peer", PEERS)
def test_p26_a_run_survives_as_the_table_says(
    peer: str,
    sign: str,
    alone: Path,
    model: Path,  # noqa: F811
    problems: Path,  # noqa: F811
    tmp_path: Path,
):
    words = arguments(model, tmp_path, problems, *CHANGES)
    goes_on = outcome(peer, "rollout", sign).goes_on
    faults = [
        {"peer": peer, "phase": phase, "signal": sign, "recorded": max(0, at - 1) if goes_on else 0} for at, phase in enumerate(PHASES)
    ]
    if goes_on:
        happened = run(words, tmp_path, *faults, within_s=1000)
        assert happened.code == 0, happened.output[-3000:] + happened.warnings
        told(peer, sign, happened)
    else:
        for fault in faults:
            resumed = ["--resume"] if (tmp_path / "run" / "recipe.yaml").is_file() else []
            happened = run([*words, *resumed], tmp_path, fault)
            assert happened.code == -signal.SIGKILL and happened.left == [], (fault, happened.output[-3000:], happened.left)
        happened = run([*words, "--resume"], tmp_path)
        assert happened.code == 0, happened.output[-3000:]
    assert happened.left == []
    assert learned(tmp_path) == learned(alone)


def told(peer: str, sign: str, ended: Ended) -> None:
    """Every fault happened, and was said where somebody noticed."""
    happened = [event["phase"] for event in ended.events if event["event"] == "fault"]
    assert happened == list(PHASES), ended.warnings
    print(f"\n{peer}, {sign}: noticed after", dict(zip(happened, ended.noticed(), strict=True)), "s")
    assert peer == "driver" or ended.warnings
