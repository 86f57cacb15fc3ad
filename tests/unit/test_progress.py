"""Progress: a live view on a terminal, aligned plain lines elsewhere, for every stage."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from rl.progress import Progress, clock, plain_line, sparkline

RL = {
    "step": 0, "accuracy": 0.8125, "length/mean": 141.26, "truncated": 0.0312, "loss": 0.01, "tokens_per_s": 12345.6,
    "seconds/step": 4.0, "seconds/sample": 2.51, "seconds/update": 1.4, "seconds/publish": 0.02,
}  # fmt: skip


def plain() -> Console:
    return Console(file=io.StringIO(), width=40)


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, height=20)


def test_without_a_terminal_every_step_is_one_unwrapped_aligned_line():
    console = plain()
    with Progress("rl", total=60, console=console) as progress:
        progress.phase("sample")
        progress.step(RL)
        progress.step(RL | {"step": 1, "accuracy": 1.0, "length/mean": 9.0, "tokens_per_s": 987.0})
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(
        "rl step  1/60  accuracy  81.2%  length  141.3  cut   3.1%  tokens/s  12,346  sample  2.5s  update  1.4s  publish  0.0s  left "
    )
    assert lines[1].index("tokens/s") == lines[0].index("tokens/s")
    assert re.search(r"accuracy *([\d.]+)", lines[1])[1] == "100.0"


def test_a_value_that_does_not_exist_keeps_its_column():
    assert plain_line("rl", 3, 5, {"accuracy": None, "length/mean": 7.0}, None) == "rl step 3/5  accuracy      -  length    7.0"


def test_sft_and_evaluation_show_what_they_have():
    console = plain()
    with Progress("sft", total=700, console=console) as progress:
        progress.step({"step": 9, "loss": 1.25})
    with Progress("eval", total=256, console=console) as progress:
        progress.step({"step": 127, "accuracy": 0.5})
        progress.step({"accuracy": 0.75})
        progress.message("12 problems left out: gold does not parse")
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "sft step  10/700  loss  1.2500"  # how long it takes is not known yet
    assert lines[1].startswith("eval step 128/256  accuracy  50.0%")
    assert lines[2].startswith("eval step 129/256  accuracy  75.0%")
    assert lines[3] == "eval: 12 problems left out: gold does not parse"


def test_the_time_left_of_a_resumed_run_counts_its_own_steps_only(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("rl.progress.time.monotonic", lambda: now[0])
    console = plain()
    with Progress("rl", total=60, start=40, console=console) as progress:
        now[0] += 300  # starting up
        progress.step({"step": 40, "seconds/step": 3.0})
        now[0] += 5
        progress.step({"step": 41, "seconds/step": 5.0})
    assert [line.split("left ")[1] for line in console.file.getvalue().splitlines()] == ["0:57", "1:12"]  # 19 x 3 s, 18 x 4 s


def test_the_time_left_is_told_from_the_last_20_steps(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("rl.progress.time.monotonic", lambda: now[0])
    console = plain()
    with Progress("rl", total=60, console=console) as progress:
        for step in range(31):
            now[0] += 100 if step <= 10 else 2
            progress.step({"step": step})
    assert console.file.getvalue().splitlines()[-1].endswith("left 0:58")  # 29 x 2 s


def test_on_a_terminal_the_view_names_step_phase_and_numbers_and_messages_stay():
    console = terminal()
    with Progress("rl", total=60, console=console) as progress:
        progress.step(RL)
        progress.phase("update")
        progress.message("[resumed] at step 40")
        with console.capture() as capture:
            console.print(progress._view())
    view = capture.get()
    for words in ("rl", "1/60", "left", "update", "accuracy", "81.2%", "141.3", "12,346", "sample 2.5 s", "publish 0.0 s"):
        assert words in view
    assert "[resumed] at step 40" in console.file.getvalue()
    assert "stopped" in console.file.getvalue() and "done" not in console.file.getvalue()  # after 1 of 60 steps


def test_counts_say_from_time_to_time_how_long_it_takes_from_what_they_were_of_late(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("rl.progress.time.monotonic", lambda: now[0])
    console = plain()
    with Progress("eval", total=1000, console=console) as progress:
        progress.count(400, 1000)  # there before
        for done in range(410, 511, 10):
            now[0] += 4
            progress.count(done, 1000)
    [line] = console.file.getvalue().splitlines()
    assert line == "eval 480/1000  left 3:28"  # 10 in 4 s
    now[0], console = 100.0, plain()
    with Progress("eval", total=1000, console=console) as progress:
        progress.count(0, 1000)
        for burst in (1, 31, 61):
            now[0] += 10
            for done in range(burst, burst + 30):
                progress.count(done, 1000)
    assert console.file.getvalue() == "eval 61/1000  left 7:42\n"  # 61 in 30 s, whatever a burst did in no time


@pytest.mark.parametrize(
    ("values", "width", "bars"),
    [([], 4, ""), ([3.0], 4, "▁"), ([2.0, 2.0], 4, "▁▁"), ([0.0, 0.5, 1.0], 4, "▁▅█"), ([0, 0, 4, 4, 8, 8, 14, 14], 4, "▁▃▅█")],
)
def test_a_sparkline_spans_lowest_to_highest_in_at_most_width_bars(values, width, bars):
    assert sparkline(values, width) == bars


def test_clock_reads_like_a_clock():
    assert [clock(5), clock(65.4), clock(7389)] == ["0:05", "1:05", "2:03:09"]
