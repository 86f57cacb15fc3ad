"""The ledger: answers of our own making, one kind of mathematics after another, whose truth is known by construction.

`tests/ledger/answers.jsonl` says what is right by mathematics and by the conventions of docs/verifier.md, not what the judge says today.
A row that the judge gets wrong carries `known`: "false reject" (right, called wrong), "false accept" (wrong, called right) or "not judged".
No other row may be misjudged, and a mark goes when its row is judged right: the counts fall, they do not grow.
Rows of kind "completion" are whole completions, all others bare answers. Kind "m1" varies what plain math-verify 0.9.0 gets wrong.
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rewards.verifier.extract import final_answer
from rewards.verifier.judge import Judge
from rewards.verifier.symbolic import BadGold, compare
from rewards.verifier.verdict import Verdict

LEDGER = [json.loads(line) for line in (Path(__file__).parents[1] / "ledger/answers.jsonl").read_text(encoding="utf-8").splitlines()]
MARKS = {"false reject": "wrong", "false accept": "right", "not judged": "not_judged"}  # what the judge says of a marked row

Row = dict[str, Any]


def judged(rows: Sequence[Row]) -> list[Verdict]:
    """The verdicts of a judge of its own; limits wide enough that no row meets them on a busy machine."""
    with Judge(workers=1, wall_s=30.0, memory_mb=1024) as judge:
        futures = [
            judge.submit(gold=row["gold"], text=row["answer"], finish="stop", thinking=False)
            if row["kind"] == "completion"
            else judge.compare(gold=row["gold"], answer=row["answer"])
            for row in rows
        ]
        return [future.result() for future in futures]


def compared(row: Row) -> str:
    """The status of a row by `compare`, in this process."""
    answer: str | None = row["answer"]
    if row["kind"] == "completion":
        answer, _ = final_answer(row["answer"], finish="stop", thinking=False)
    try:
        return "right" if answer is not None and compare(gold=row["gold"], answer=answer)[0] else "wrong"
    except BadGold:
        return "not_judged"


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    return judged(LEDGER)


def test_the_ledger_is_well_formed():
    assert len(LEDGER) >= 240
    assert all(set(row) - {"known"} == {"kind", "gold", "answer", "truth"} and row["gold"].strip() for row in LEDGER)
    assert len({(row["gold"], row["answer"]) for row in LEDGER}) == len(LEDGER)
    kinds = dict.fromkeys(row["kind"] for row in LEDGER)
    assert [row["kind"] for row in LEDGER] == [row["kind"] for kind in kinds for row in LEDGER if row["kind"] == kind], (
        "not grouped by kind"
    )
    assert {kind: {row["truth"] for row in LEDGER if row["kind"] == kind} for kind in kinds} == {kind: {"right", "wrong"} for kind in kinds}
    assert 0.4 <= Counter(row["truth"] for row in LEDGER)["right"] / len(LEDGER) <= 0.6


def test_a_known_error_is_marked_as_what_it_is():
    assert [row for row in LEDGER if "known" in row and MARKS[row["known"]] == row["truth"]] == []


def test_p20_known_errors_are_as_many_as_the_page_says():
    assert Counter(row["known"] for row in LEDGER if "known" in row) == {"false reject": 33, "not judged": 1, "false accept": 1}
    page = (Path(__file__).parents[2] / "docs/verifier.md").read_text(encoding="utf-8")
    assert f"{len(LEDGER):,} rows" in page and "33 false rejections, 1 false acceptance and 1 that is not judged" in page


def misjudged(verdicts: Sequence[Verdict], *, known: bool) -> list[tuple[Row, Verdict]]:
    """The rows, marked as known errors or not, whose verdict is not the one to expect of them."""
    rows = [(row, verdict) for row, verdict in zip(LEDGER, verdicts, strict=True) if ("known" in row) is known]
    return [(row, verdict) for row, verdict in rows if verdict.status != (MARKS[row["known"]] if known else row["truth"])]


def test_p20_no_row_of_the_ledger_is_misjudged_but_those_marked_as_known(verdicts):
    assert misjudged(verdicts, known=False) == []


def test_p20_a_mark_goes_when_its_row_is_judged_right(verdicts):
    assert misjudged(verdicts, known=True) == [], "remove the mark of each row judged right, correct the others"


def test_p21_the_ledger_gets_the_same_verdicts_from_any_process_and_in_any_order(verdicts):
    expected = [verdict.status for verdict in verdicts]  # from the main thread, by a child process, in the ledger's order
    order = random.Random(0).sample(range(len(LEDGER)), 600)
    shuffled = [LEDGER[index] for index in order]
    from_thread: list[Verdict] = []
    thread = threading.Thread(target=lambda: from_thread.extend(judged(shuffled)))
    thread.start()
    in_process = [compared(row) for row in reversed(shuffled)]
    thread.join()
    for statuses in ([verdict.status for verdict in from_thread], in_process[::-1]):
        assert [(LEDGER[i], status) for i, status in zip(order, statuses, strict=True) if status != expected[i]] == []
