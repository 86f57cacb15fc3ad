"""Every cell of the table in docs/promises.md: one run for each who and signal, to which it happens in each phase in turn. Slow: half an hour on two cores.

python -m pytest -s tests/cluster/test_survival_table.py    # also prints after how many seconds each fault was noticed
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.faults.conftest import killer  # noqa: F401
from tests.faults.survival import PEERS, PHASES, SIGNALS, outcome
from tests.faults.test_p23_kill_anywhere import Killer, data, model  # noqa: F401
from tests.faults.test_p28_polite_stop import told_to_end
from tests.faults.test_survival import Ended, arguments, learned, problems, run  # noqa: F401

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
        # nobody misses a judging process before it is next asked, and an answer is asked for once: two runs, or some would fall on one that fell before
        apart = ("load", "eval") if peer == "judge" else ()
        halves = [[fault for fault in faults if (fault["phase"] in apart) == late] for late in (False, True)]
        for half, now in enumerate(filter(None, halves)):
            happened = run([*words, *["--overwrite"] * half], tmp_path, *now, within_s=1000)
            assert happened.code == 0, happened.output[-3000:] + happened.warnings
            told(peer, sign, [fault["phase"] for fault in now], happened)
    else:
        for fault in faults:
            resumed = ["--resume"] if (tmp_path / "run" / "recipe.yaml").is_file() else []
            happened = run([*words, *resumed], tmp_path, fault)
            assert happened.code == -signal.SIGKILL and happened.left == [], (fault, happened.output[-3000:], happened.left)
        happened = run([*words, "--resume"], tmp_path)
        assert happened.code == 0, happened.output[-3000:]
    assert happened.left == []
    assert learned(tmp_path) == learned(alone)


@pytest.mark.timeout(600)
def test_p26_p27_a_run_that_loses_engine_judge_and_learner_learns_what_one_does_that_was_left_alone(
    model: Path,  # noqa: F811
    problems: Path,  # noqa: F811
    tmp_path: Path,
):
    alone = run(arguments(model, tmp_path / "alone", problems), tmp_path / "alone", actors=False)
    assert alone.code == 0, alone.output[-3000:]
    faults = [
        {"peer": "engine", "phase": "start", "signal": "SIGKILL"},
        {"peer": "judge", "phase": "judge", "signal": "SIGKILL"},
        {"peer": "learner rank", "phase": "update", "signal": "SIGKILL", "recorded": 1},
        {"peer": "engine", "phase": "rollout", "signal": "SIGSTOP", "recorded": 2},
    ]
    ended = run(arguments(model, tmp_path, problems), tmp_path, *faults)
    assert ended.code == 0, ended.output[-3000:]
    assert [event["phase"] for event in ended.events if event["event"] == "fault"] == ["start", "judge", "update", "rollout"]
    for words in (
        "engine 0 died in process_id: killed by the system for its memory, or by someone; ",
        "is replaced, and asked once more",
        "learner rank 0 died in update (micro-batch 1): killed by",
        "The stage goes on from step 1",
        "engine 0 is frozen in advance: no heartbeat for ",
        "last heartbeat at ",
    ):
        assert words in ended.warnings, ended.warnings
    assert learned(tmp_path) == learned(tmp_path / "alone")
    assert ended.left == []


@pytest.mark.timeout(300)
def test_p27_nothing_is_left_ten_seconds_after_a_driver_that_is_killed_while_an_engine_is_frozen(
    model: Path,  # noqa: F811
    problems: Path,  # noqa: F811
    tmp_path: Path,
):
    faults = [{"peer": "engine", "phase": "rollout", "signal": "SIGSTOP"}, {"peer": "driver", "phase": "rollout", "signal": "SIGKILL"}]
    ended = run(arguments(model, tmp_path, problems), tmp_path, *faults)
    assert ended.code == -9 and len(ended.events) == 2, ended.output[-3000:]
    assert ended.left == []


STOPS = [  # as in tests/faults/test_p28_polite_stop.py
    ("load", 1, 0),
    ("start", 1, 0),
    ("rollout", 1, 0),  # of the first step, before which nothing is worth keeping
    ("update", 1, 1),
    ("verdict", 1, 1),
    ("push", 2, 2),  # the first is of the start
    ("evaluate", 1, 3),
    ("prepare", 2, 4),
    ("rollout", 1, 4),
    ("checkpoint", 1, 8),
]


@pytest.mark.timeout(600)
def test_p28_every_phase_can_be_told_to_end(model: Path, data: Path, killer: Killer, tmp_path: Path):  # noqa: F811
    told_to_end(STOPS, model, data, killer, tmp_path)


def told(peer: str, sign: str, wanted: list[str], ended: Ended) -> None:
    """Every fault happened, and was said where somebody noticed."""
    happened = [event["phase"] for event in ended.events if event["event"] == "fault"]
    assert happened == wanted, ended.warnings
    print(f"\n{peer}, {sign}: noticed after", dict(zip(happened, ended.noticed(), strict=True)), "s")
    assert peer == "driver" or ended.warnings
