"""Labelled answers, where a folder of them is named: no more than the errors that docs/verifier.md reports."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from rewards.verifier.judge_file import judge_file

FOLDER = Path(os.environ.get("LACONIC_VERIFIER_DATA", "absent"))
PAGE = Path(__file__).parents[2] / "docs/verifier.md"
ROWS = re.findall(r"^\| (\w+) \| \d+ \| (\d+) / \d+ \| (\d+) / \d+ \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(("name", "rejections", "acceptances"), ROWS)
def test_errors_on_labelled_answers_are_those_of_the_page(tmp_path, name, rejections, acceptances):
    source = FOLDER / f"{name}.jsonl"
    if not source.exists():
        pytest.skip("LACONIC_VERIFIER_DATA names no folder with this set")
    judge_file(source, tmp_path / "out.jsonl", workers=2, wall_s=10.0, memory_mb=1024)
    judged = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sum(row["correct"] and row["verdict"] != "right" for row in judged) <= int(rejections)
    assert sum(not row["correct"] and row["verdict"] == "right" for row in judged) <= int(acceptances)


def test_the_page_reports_every_set():
    assert len(ROWS) >= 10
