"""Tables in the terminal: whatever its width, every number of theirs is there whole."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from evaluation.tables import Cell, Row, Table
from launch.doctor import Check, render
from launch.shown import Uncut
from rl.progress import Progress

TABLE = Table(
    ["accuracy", "tokens", "kept to it"],
    [
        Row("24 tokens forced", [Cell("63.5 %", "[54.7, 71.9]"), Cell("1,026.5", "[1,001.1, 1,052.3]"), Cell("63.5 % closed")]),
        Row("new against old", [Cell("+33.3 points", "[+8.3 to +66.7]"), Cell("−12 %", "[−20 to −3]"), Cell("")], sub=True),
        Row("a label of many words that goes on", [Cell("–"), Cell("48,113"), Cell("177 thinking, 25 waited for")]),
    ],
)


def printed(what: object, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_no_number_of_a_table_is_cut_at_any_width(width: int) -> None:
    text = printed(Uncut("title", TABLE), width)
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    cells = " ".join(f"{cell.text} {cell.small}" for row in TABLE.rows for cell in row.cells)
    for number in re.findall(r"\d[\d,.]*\d|\d", cells):
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", text), (number, width)


def test_a_table_that_fits_has_columns_and_one_that_does_not_names_them_in_each_line() -> None:
    assert re.search(r"^ +accuracy +tokens +kept to it$", printed(Uncut("title", TABLE), 120), re.M)
    narrow = printed(Uncut("title", TABLE), 60)
    assert narrow.count("accuracy") == 3 and "24 tokens forced: accuracy 63.5 % [54.7, 71.9], tokens" in narrow


def test_what_doctor_found_is_folded_not_cut() -> None:
    found = "/a/very/long/path/without/any/space/in/it/that/no/terminal/has/room/for/in/one/line/1234567890"
    text = printed(render([Check("Python", "ok", found)]), 60)
    assert "…" not in text and found in re.sub(r"\s", "", text).replace("found", "", 1)


@pytest.mark.parametrize("width", [46, 60, 80])
def test_the_live_view_keeps_its_numbers_where_there_is_little_room(width: int) -> None:
    progress = Progress("rl", 1200, console=Console(file=io.StringIO(), width=width))
    progress._done, progress._metrics = 1100, {"accuracy": 0.912345, "length/mean": 12345.6}
    progress._trends = {"accuracy": [0.1, 0.2] * 30, "length/mean": [1.0, 2.0] * 30}
    text = printed(progress._view(), width)
    assert "1100/1200" in text and "91.2%" in text and "12345.6" in text
