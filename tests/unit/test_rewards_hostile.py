r"""Hostile answers are contained (promises P18, P34): each within its time and memory, the next verdict right, nothing executed, nothing on disk."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from rewards.verifier.extract import final_answer
from rewards.verifier.judge import Judge
from rewards.verifier.judge_file import answer_of
from rewards.verifier.stated import stated

WALL_S, MEMORY_MB = 1.0, 512
BYTES = {"kB": 1024}
HOSTILE = [
    # a list of choices that goes on and on
    "A and B and " * 24 + "x",
    # towers, factorials, huge powers and products
    "9^{9^{9^9}}", "10^{10^{10}}", "2^{2^{2^{2^{2^2}}}}", "9^{9^{9^{9^{9^9}}}}", "(99999999)!", "((9!)!)!", "9!!!!!", "1000000!-999999!", r"\frac{10^7!}{(10^7-1)!}", "7^{7^{7^7}}", "(10^9)!", "99^{99^{99}}",
    "1234567890" * 20 + "^{9999}", "9" * 150 + "^{" + "9" * 140 + "}", r"(9^9)^{(9^9)^{9^9}}", r"0.5^{-9^{9^9}}", r"e^{e^{e^{e^{e^e}}}}", r"\sqrt{2}^{\sqrt{2}^{99^{99^{99}}}}", r"\binom{10^9}{5\cdot10^8}", r"\binom{99999999}{49999999}",
    # sums, products, integrals, limits
    r"\sum_{k=1}^{10000000}\frac{1}{k^k}", r"\sum_{k=1}^{10^{12}}\sqrt{k}", r"\prod_{k=1}^{10^9}k", r"\prod_{k=1}^{10^7}\sqrt{k}", r"\sum_{i=1}^{999}\sum_{j=1}^{999}\sum_{k=1}^{999}ijk^{ijk}", r"\int_0^1\frac{\sin(x^x)\ln(x)}{e^{x^{x^x}}+\tan x}dx",
    r"\int e^{x^x}\sin(x^{x^x})dx", r"\int_0^{\infty}\int_0^{\infty}\frac{\sin(xy)}{x^y+y^x}dxdy", r"\lim_{x\to0}\frac{x^{x^{x^x}}-\sin(x^x)}{x^{x^x}}", r"\sum_{n=1}^{\infty}\frac{1}{n^{n^n}+\sin n}",
    # large expansions
    "(x+y+z+w)^{500}", "(1+x)^{99999}", "(a+b)^{(c+d)^{(e+f)^{99}}}", "+".join(f"x^{{{i}}}" for i in range(40)), r"\sqrt{" * 45 + "x" + "}" * 45, r"\frac{1}{1+" * 25 + "x" + "}" * 25, r"\sin(" * 40 + "x" + ")" * 40, "|" * 200, "x^" * 140 + "x",
    r"\begin{pmatrix}" + "&".join("9^{9^{9^9}}" for _ in range(15)) + r"\end{pmatrix}", "(" + ",".join(["7^{7^{7^7}}"] * 15) + ")", r"\{" + ",".join(["x!!!!"] * 40) + r"\}", "1" + r"\pm1" * 60, r"\pm" * 140, "x=" * 140 + "x", "x<" * 140 + "x",
    # nesting, lengths, broken syntax
    "{" * 140 + "}" * 140, "(" * 140 + "1" + ")" * 140, "[" * 290, r"\{" * 140, r"\left(" * 45, r"\boxed{" * 20, r"\text{" * 45, r"\frac{" * 45, "{" * 2000, "9" * 200_000, "x" * 200_000, "\\" * 290, "^" * 290, "_" * 290, "$" * 290, "," * 290, "and " * 70,
    r"\begin{matrix}" * 20, r"\\" * 140, "\x00" * 200, "\ud800" * 10, "\u202e" * 100, "٣" * 100, "1 " * 140, "1," * 140, "-" * 290, "1/" * 140, "1e999999999", "1e-999999999", r"9\times10^{999999999}", "0." + "9" * 280, r"0.\overline{" + "3" * 270 + "}",
    # text that would do something where text is executed
    "__import__('os').system('touch mark')", "eval('9**9**9**9')", r"\input{/etc/passwd}", r"\write18{touch mark}", "while True: pass", "''.join(['9'] * 10**10)", "a" + "*" * 200 + "b", "lambda: 0", "9**9**9**9**9", "range(10**12)", "[0]*10**12",
]  # fmt: skip


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    here = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("empty"))
    with Judge(workers=1, wall_s=WALL_S, memory_mb=MEMORY_MB) as judge:
        judge.compare(gold="x+1", answer="1+x").result()  # wait for the imports
        yield judge
    left = list(Path.cwd().iterdir())
    os.chdir(here)
    assert left == []  # nothing was written


def judging() -> tuple[int, int]:
    """The process that imported, of the judge that was started last, and its fork that compares, as soon as there is one."""
    found: list[psutil.Process] = []
    while not found:
        with suppress(psutil.NoSuchProcess):  # one that was killed a moment ago
            importers = [child for child in psutil.Process().children() if "rewards.verifier.judge_worker" in child.cmdline()]
            found = max(importers, key=psutil.Process.create_time).children()
    return found[0].ppid(), found[0].pid


def right(judge: Judge, gold: str, answer: str) -> bool:
    """Whether an answer that takes a moment is judged right; asked again if time ran out, as it does in a second in which a busy machine stands still."""
    tries = (judge.compare(gold=gold, answer=answer).result() for _ in range(3))
    return next((verdict.status for verdict in tries if verdict.reason != "timeout"), "") == "right"


@pytest.fixture
def contained(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[float, float], bool]]:
    """Whether a judge took its limit and the grace after which a silent worker is replaced, no more, but for what this machine stood still, or a worker, which it says."""
    stop, stood = threading.Event(), [0.0]

    def look() -> None:
        last = time.perf_counter()
        while not stop.wait(0.05):
            last, passed = (now := time.perf_counter()), now - last
            stood[0] += max(0.0, passed - 0.25)

    thread = threading.Thread(target=look)
    thread.start()
    yield lambda seconds, wall_s: seconds < wall_s + 2.5 + stood[0] or "once more" in caplog.text
    stop.set()
    thread.join()


def test_there_are_more_than_sixty_hostile_answers():
    assert len(set(HOSTILE)) == len(HOSTILE) >= 60


@pytest.mark.parametrize("index", range(len(HOSTILE)), ids=lambda index: f"{index}-{HOSTILE[index][:16]!r}")
def test_p18_a_hostile_answer_is_contained_and_the_next_verdict_is_right(judge, contained, index):
    before, start = time.process_time(), time.perf_counter()
    verdict = judge.compare(gold=rf"\frac{{\sqrt{{3}}}}{{{index + 7}}}", answer=HOSTILE[index]).result()
    assert verdict.status in ("wrong", "not_judged")
    assert contained(time.perf_counter() - start, WALL_S)
    assert time.process_time() - before < 0.5  # the caller itself is not held up
    key = index + 2
    assert right(judge, rf"\sqrt{{{key}}}", f"{key}^{{1/2}}")


@pytest.mark.parametrize("index", range(len(HOSTILE)), ids=lambda index: f"{index}-{HOSTILE[index][:16]!r}")
def test_p18_a_hostile_gold_is_contained_too(judge, contained, index):
    start = time.perf_counter()
    assert judge.compare(gold=HOSTILE[index], answer=r"\frac{\sqrt{3}}{7}").result().status in ("wrong", "not_judged")
    assert contained(time.perf_counter() - start, WALL_S)


def test_p18_no_comparison_may_outgrow_its_memory_or_write_a_byte(judge):
    for answer in (r"\prod_{k=1}^{10^7}k", "(99999999)!", r"\binom{99999999}{49999999}", "(x+y+z+w)^{500}"):
        judge.compare(gold=r"\sqrt{3}", answer=answer).result()
    judge.compare(gold="x+2", answer="2+x").result()
    _, pid = judging()
    used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    limits = {line[:26].strip(): line[26:].split()[:2] for line in Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]}
    assert limits["Max file size"] == ["0", "0"]
    soft, hard = map(int, limits["Max address space"])
    assert soft == hard and 0 < soft - used <= MEMORY_MB * 2**20


@pytest.mark.parametrize(
    "text",
    ["The answer is " + "\\(" * 12000, "The answer is" + " " * 20000 + ".", "The answer is " + "\\[" * 12000, "a " * 9000 + " " * 20000, "(A) " * 6000, "$1 " * 8000, "**1** " * 4000, "<answer" * 3000, "\\boxed{" * 3000],
    ids=lambda text: repr(text[:16]),
)  # fmt: skip
def test_p18_a_hostile_completion_without_a_box_is_read_in_time(text):
    """Answers are taken out of completions in the calling process, where nothing could be killed."""
    start = time.process_time()
    assert isinstance(stated(text), str) and final_answer(text, finish="stop", thinking=False)[1] in ("", "no box")
    assert time.process_time() - start < 3


def test_p34_nothing_in_an_answer_or_a_gold_is_executed(judge, tmp_path):
    mark = tmp_path / "mark"
    deeds = [
        f"__import__('os').system('touch {mark}')",
        f"open('{mark}','w')",
        f"exec(\"open('{mark}','w')\")",
        f"eval(\"open('{mark}','w')\")",
        f"1 if open('{mark}','w') else 2",
    ]
    wrappings = [
        "{}",
        r"\text{{{}}}",
        "${}$",
        "x={}",
        "({},1)",
        r"\{{{}\}}",
        r"\frac{{{}}}{{2}}",
        "1<x<{}",
        r"\operatorname{{{}}}(x)",
        r"\sqrt{{{}}}",
        "5 {}",
        "(B) {}",
        r"\begin{{pmatrix}}{}\\1\end{{pmatrix}}",
        "{}!",
        "#### {}",
    ]
    other = [
        rf"\input{{|touch {mark}}}",
        rf"\write18{{touch {mark}}}",
        f"$(touch {mark})",
        f"`touch {mark}`",
        f"[c for c in ().__class__.__base__.__subclasses__()][0]('{mark}')",
        f"lambda: open('{mark}','w')",
        f"%(open('{mark}','w'))s",
    ]
    payloads = [wrapping.format(deed) for wrapping in wrappings for deed in deeds] + other
    futures = [judge.compare(gold=r"\sqrt{3}", answer=payload) for payload in payloads] + [
        judge.compare(gold=payload, answer=r"\sqrt{3}") for payload in payloads
    ]
    assert {future.result().status for future in futures} <= {"wrong", "not_judged"}
    judge.check_golds(payloads)
    for payload in payloads:
        answer_of(f"<think>x</think>The answer is {payload}", bare=True)
    assert list(tmp_path.iterdir()) == []
