r"""The judge contains whatever an answer holds (promises P18, P19, P21, P34) and says so in its verdict."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from rewards.rows import Row
from rewards.verifier import judge as judge_module
from rewards.verifier.judge import Judge
from rewards.verifier.judge_file import answer_of, judge_file, paths_of, read_pairs
from rewards.verifier.verdict import Verdict
from tests.unit.test_rewards_hostile import HOSTILE, contained, judging, right  # noqa: F401

WALL_S = 3.0  # a busy machine may stand still for two
PAIRS = [
    (r"\sqrt{1/2}", r"\frac{1}{\sqrt2}", "right"),
    (r"\sqrt{1/2}", r"\frac{\sqrt2}{3}", "wrong"),
    ("7", "7", "right"),
    (r"\sqrt{8}", r"2\sqrt{2}", "right"),
    (r"\frac{", "1/2", "not_judged"),
]

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture(scope="module")
def judge():
    with Judge(workers=1, wall_s=WALL_S, memory_mb=512) as judge:
        judge.compare(gold="x+1", answer="1+x").result()  # wait for the imports
        yield judge


def test_p18_a_tenth_of_hostile_answers_changes_no_other_verdict_and_none_outlasts_its_limit(contained):  # noqa: F811
    """1,000 answers on two workers, 100 of them hostile, 10 of those towers that never end. A killed worker takes about half a second to come back."""
    towers = [rf"7^{{7^{{7^{{{number + 7}}}}}}}" for number in range(10)]
    others = [HOSTILE[53 + number % 37] for number in range(90)]  # braces, long texts, code: what is read in no time, however it ends
    with Judge(2, WALL_S, 512) as judge:
        futures, hostile, honest = [], [], [(rf"\sqrt{{{i * i + 1}}}", rf"({i}^2+1)^{{1/2}}") for i in range(1, 901)]
        for i, (gold, answer) in enumerate(honest, start=1):
            futures.append(judge.compare(gold=gold, answer=answer))
            if i % 9 == 4:
                hostile.append(judge.compare(gold=r"\frac{5}{7}", answer=towers.pop() if i % 90 == 4 else others.pop()))
        verdicts, spoiled = [future.result() for future in futures], [future.result() for future in hostile]
        late = [pair for pair, verdict in zip(honest, verdicts, strict=True) if verdict.reason == "timeout"]  # of a busy machine
        assert all(right(judge, *pair) for pair in late)
    assert {(verdict.status, verdict.reason) for verdict in spoiled[::10]} == {("not_judged", "timeout")} and len(spoiled) == 100
    assert {verdict.status for verdict in spoiled} <= {"not_judged", "wrong"}
    assert contained(max(verdict.seconds for verdict in spoiled), WALL_S)
    assert {verdict.status for verdict in verdicts if verdict.reason != "timeout"} == {"right"} and len(late) < 90


def test_a_timeout_is_not_judged_and_says_how_long_it_took(judge, contained):  # noqa: F811
    verdict = judge.compare(gold=r"\frac{3}{7}", answer=r"6^{6^{6^{6}}}").result()
    assert (verdict.status, verdict.reason) == ("not_judged", "timeout")
    assert verdict.seconds > 0.1 and contained(verdict.seconds, WALL_S)


def test_p19_each_failure_has_its_reason(judge):
    cases = [
        ("7", "7", "stop", False, "wrong", "no box"),
        ("7", r"\boxed{7}", "stop", True, "wrong", "thinking not closed"),
        ("7", r"\boxed{7}", "length", True, "wrong", "unfinished"),
        ("7", r"</think>\boxed{7}", "length", True, "right", "integer"),
        ("7", r"\boxed{7}", "abort", False, "not_judged", "aborted"),
        ("", r"\boxed{7}", "stop", False, "not_judged", "bad gold"),
        (r"\frac{", r"\boxed{x}", "stop", False, "not_judged", "bad gold"),
        ("7", r"\boxed{" + "x" * 301 + "}", "stop", False, "wrong", "too long"),
    ]
    futures = [judge.submit(gold=gold, text=text, finish=finish, thinking=thinking) for gold, text, finish, thinking, *_ in cases]
    assert [(future.result().status, future.result().reason) for future in futures] == [(status, reason) for *_, status, reason in cases]


def test_p19_golds_are_checked_before_they_are_used(judge):
    assert judge.check_golds(["5", "", r"\frac{", r"\frac12", "  ", r"\$18", "x<1", r"\sqrt{"]) == [
        None,
        "empty",
        "does not parse",
        None,
        "empty",
        None,
        None,
        "does not parse",
    ]
    assert judge.check_gold(r"1-\frac{1}{\mathrm{e}}") is None


def test_p20_the_second_checker_has_its_own_opinions_and_the_same_limits(judge, contained):  # noqa: F811
    opinions = [
        judge.audit(gold=gold, answer=answer).result().status for gold, answer in [("42", "42.0"), ("42", "4,2"), (r"\frac{1}{2}", "0.5")]
    ]
    assert opinions == ["right", "wrong", "right"]
    endless = judge.audit(gold=r"\frac{3}{7}", answer=r"8^{8^{8^{8}}}").result()
    assert endless.status == "not_judged" and contained(endless.seconds, WALL_S)
    assert judge.audit(gold=r"\sqrt{8}", answer=r"2\sqrt{2}").result().status == "right"


def test_a_crashed_comparison_is_not_judged_and_the_next_verdict_is_right(judge):
    future = judge.compare(gold=r"\frac{1}{9}", answer=r"9^{9^{9^9}}")
    time.sleep(0.1)
    os.kill(judging()[1], signal.SIGSEGV)
    assert future.result() == Verdict("not_judged", "crash: SIGSEGV", future.result().extracted, future.result().seconds)
    assert judge.compare(gold=r"\sqrt{8}", answer=r"\sqrt{72}/3").result().status == "right"


@pytest.mark.parametrize(("kill", "place", "said"), [(os.killpg, 0, "crash: worker ended"), (os.kill, 1, "crash: SIGKILL")])
def test_p27_a_worker_that_someone_kills_costs_no_answer_its_verdict(judge, caplog, kill, place, said):
    """One that compares for ever: that it is judged again shows by its own end, out of time."""
    future = judge.compare(gold=r"\frac{1}{11}", answer=rf"1{place}^{{9^{{9^9}}}}")
    time.sleep(0.1)
    kill(judging()[place], signal.SIGKILL)
    assert (future.result().status, future.result().reason) == ("not_judged", "timeout")
    assert f"asked once more ({said})" in caplog.text
    assert judge.compare(gold=r"\sqrt{44}", answer=r"2\sqrt{11}").result().status == "right"


def test_p27_a_frozen_worker_is_replaced_and_its_answer_judged_by_another(judge, caplog):
    frozen = judging()[0]
    os.killpg(frozen, signal.SIGSTOP)
    assert judge.compare(gold=r"\sqrt{13}", answer=r"\sqrt{27}").result().status == "wrong"
    assert "asked once more (timeout)" in caplog.text and not os.path.exists(f"/proc/{frozen}")


def test_equal_pairs_share_one_comparison(judge):
    futures = [judge.compare(gold=r"\sqrt{68}", answer=r"2\sqrt{17}") for _ in range(50)]
    assert len({id(future) for future in futures}) == 1


def test_256_integers_are_judged_without_asking_a_process(judge, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rewards.verifier.judge._Worker.ask", lambda self, request: pytest.fail(f"asked: {request}"))
    texts = [f"<think>{'so ' * 100}</think>It is \\boxed{{{i}}}." for i in range(256)]
    futures = [judge.submit(gold=str(i), text=text, finish="stop", thinking=True) for i, text in enumerate(texts)]
    assert all(future.result().status == "right" for future in futures)


def _statuses() -> list[str]:
    with Judge(workers=1, wall_s=3.0, memory_mb=512) as judge:
        return [judge.compare(gold=gold, answer=answer).result().status for gold, answer, _ in PAIRS]


def _put_statuses(results) -> None:
    results.put(_statuses())


def test_p21_the_verdict_is_the_same_from_any_thread_or_process_and_in_any_order(judge):
    expected = [status for _, _, status in PAIRS]
    assert [judge.compare(gold=gold, answer=answer).result().status for gold, answer, _ in PAIRS] == expected
    assert [judge.compare(gold=gold, answer=answer).result().status for gold, answer, _ in reversed(PAIRS)] == expected[::-1]
    from_thread: list[str] = []
    thread = threading.Thread(target=lambda: from_thread.extend(_statuses()))
    thread.start()
    thread.join()
    assert from_thread == expected
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_put_statuses, args=(results,), daemon=True)
    process.start()
    assert results.get(timeout=120) == expected
    process.join()


def test_p34_payloads_in_answers_and_golds_leave_no_trace(judge, tmp_path):
    mark = tmp_path / "mark"
    payloads = [
        f"__import__('os').system('touch {mark}')",
        f"exec(\"open('{mark}','w')\")",
        f"\\text{{__import__('os').system('touch {mark}')}}",
        f"\\input{{|touch {mark}}}",
        f"$(touch {mark})",
        f"\\write18{{touch {mark}}}",
        f"lambda: open('{mark}', 'w')",
        f"1 if open('{mark}','w') else 2",
        f"[c for c in ().__class__.__base__.__subclasses__()][0]('{mark}')",
    ]
    for payload in payloads:
        judge.compare(gold=r"\frac{1}{3}", answer=payload).result()
        judge.compare(gold=payload, answer=r"\frac{1}{3}").result()
        judge.check_gold(payload)
        judge.audit(gold=r"\frac{1}{3}", answer=payload).result()
        judge.audit(gold=payload, answer="1/3").result()
    assert list(tmp_path.iterdir()) == []


def test_p34_a_judging_process_cannot_write_fork_or_connect_nor_outgrow_its_memory(tmp_path):
    mark = tmp_path / "mark"
    code = (
        "import os, socket\nfrom rewards.verifier.judge_worker import _limit\n_limit(64)\n"
        f"deeds = [lambda: os.system('touch {mark}'), lambda: open('{mark}', 'w'), os.fork, lambda: socket.socket().connect(('127.0.0.1', 9)), lambda: bytearray(2**27)]\n"
        "for deed in deeds:\n"
        "    try: deed(); print('done')\n"
        "    except (PermissionError, MemoryError) as error: print(type(error).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=True)
    assert done.stdout.split() == ["PermissionError"] * 4 + ["MemoryError"]
    assert not mark.exists()


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_no_process_is_left_behind_by_a_judge_or_by_a_parent_that_died():
    code = (
        "import os, signal, sys; from rewards.verifier.judge import Judge\n"
        "judge = Judge(1, 1.0, 256); judge.compare(gold='x+1', answer='1+x').result()\n"
        "task = f'/proc/{os.getpid()}/task'\n"
        "print(*[open(f'{task}/{t}/children').read() for t in os.listdir(task)], flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        timeout=120,
        check=False,
    )
    (pid,) = done.stdout.split()
    deadline = time.monotonic() + 30
    while (runs := running(int(pid))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs


def test_a_closed_judge_takes_no_more_work_and_answers_what_it_had():
    judge = Judge(workers=1, wall_s=1.0, memory_mb=256)
    futures = [judge.compare(gold="x+1", answer=f"x+{i}+9^{{9^{{9^9}}}}") for i in range(20)]
    judge.close()
    assert {future.result(timeout=1).status for future in futures} <= {"not_judged", "wrong"}
    with pytest.raises(RuntimeError, match="closed"):
        judge.compare(gold="x+1", answer="x+2")


def test_a_worker_that_cannot_start_is_an_error_with_its_last_words(monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Judge(workers=1, wall_s=1.0, memory_mb=256) as judge, pytest.raises(RuntimeError, match="did not start"):
        judge.compare(gold="x+1", answer="x+2").result()
    assert caplog.text.count("started once more (crash: worker ended)") == 2


def test_p27_a_replacement_that_is_killed_while_it_starts_is_replaced_too(judge, monkeypatch, caplog):
    """The worker is killed over its question, and its replacement before it has imported anything."""
    started, start = [], judge_module._Worker.start

    def start_and_kill(self: judge_module._Worker) -> None:
        before = self._process
        start(self)
        if self._process is not before:
            started.append(self._process.pid)
            if len(started) < 3:
                os.killpg(self._process.pid, signal.SIGKILL)

    monkeypatch.setattr(judge_module._Worker, "start", start_and_kill)
    os.killpg(judging()[0], signal.SIGKILL)
    assert judge.compare(gold=r"\sqrt{84}", answer=r"2\sqrt{21}").result().status == "right"
    assert len(started) == 3 and caplog.text.count("started once more") == 2 and "asked once more" in caplog.text


def test_a_file_is_graded_in_order_with_the_rows_own_fields_kept(tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"id": 1, "gold": "7", "prediction": r"<think>8</think>\boxed{7}"},
        {"id": 2, "gold": r"\frac12", "prediction": "0.5"},
        {"id": 3, "gold": 7, "prediction": 8},
        {"id": 4, "gold": "", "prediction": "8"},
    ]
    source.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    seen: list[tuple[int, int]] = []
    counts = judge_file(source, out, workers=1, wall_s=3.0, memory_mb=512, progress=lambda done, total: seen.append((done, total)))
    assert counts == {"right": 2, "wrong": 1, "not_judged": 1}
    assert seen[-1] == (4, 4)
    graded = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["id"], row["verdict"], row["reason"], row["extracted"]) for row in graded] == [
        (1, "right", "integer", "7"),
        (2, "right", "number", "0.5"),
        (3, "wrong", "integer", "8"),
        (4, "not_judged", "no gold", "8"),
    ]
    assert all(row["seconds"] >= 0 for row in graded)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_several_golds_any_of_which_will_do(tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"gold": ["7", r"\frac{1}{2}"], "prediction": "0.5"},
        {"gold": ["7", "8"], "prediction": "9"},
        {"gold": ["7", r"\frac{"], "prediction": r"\sqrt{2}"},
        {"gold": [r"\frac{", "7"], "prediction": "7"},
    ]
    source.write_text("\n".join(map(json.dumps, rows)))
    assert judge_file(source, out, workers=1, wall_s=3.0, memory_mb=512) == {"right": 2, "wrong": 1, "not_judged": 1}


SHAPES: list[tuple[dict[str, object], str | None, str | None, list[str]]] = [
    ({"doc": {"question": "2+2?"}, "target": "4", "resps": [[r"\boxed{4}"]], "filtered_resps": ["4"]}, None, None, ["right"]),
    ({"doc": {"answer": "4"}, "resps": [["4", "5"]]}, "doc.answer", "resps[0][1]", ["wrong"]),
    ({"input": "2+2?", "output": r"\boxed{4}", "gts": "4", "score": 1.0, "step": 3}, None, None, ["right"]),
    (
        {"reward_model": {"ground_truth": '["4", "5"]'}, "responses": [r"\boxed{5}", r"\boxed{6}", None]},
        None,
        None,
        ["right", "wrong", "wrong"],
    ),
    ({"answer": "2 + 2 = 4\n#### 4", "generation": r"\boxed{4}"}, None, None, ["right"]),
    ({"answer": "4", "completion": [{"role": "assistant", "content": r"\boxed{4}"}]}, None, None, ["right"]),
    ({"gold": None, "prediction": r"\boxed{4}"}, None, None, ["not_judged"]),
    ({"gold": "notfound", "prediction": r"\boxed{4}"}, None, None, ["not_judged"]),
    ({"gold": "4", "prediction": []}, None, None, ["wrong"]),  # a request that failed is an answer that is not there
    ({"text": "2+2?", "answer": "4", "pred": "4"}, None, None, ["right"]),
    ({"doc": {"choices": ["4"], "gold_index": 0}, "model_response": {"text": ["4", "5"]}}, None, None, ["right", "wrong"]),
    ({"target": "4", "output": {"choices": [{"message": {"content": r"\boxed{4}"}}], "completion": r"\boxed{4}"}}, None, None, ["right"]),
    (
        {"answer": "4", "choices": [{"message": {"role": "assistant", "content": "4"}}, {"message": {"content": "5"}}]},
        None,
        None,
        ["right", "wrong"],
    ),
]


@pytest.mark.parametrize(("row", "gold", "prediction", "verdicts"), SHAPES)
def test_files_of_other_tools_are_judged_by_recognised_or_named_paths(tmp_path, row, gold, prediction, verdicts):
    source, out = tmp_path / "in.json", tmp_path / "out.jsonl"
    source.write_text(json.dumps([row]))
    judge_file(source, out, workers=1, wall_s=3.0, memory_mb=512, gold=gold, prediction=prediction)
    graded = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["verdict"] for line in graded] == verdicts
    assert [line.get("sample") for line in graded] == ([None] if len(verdicts) == 1 else list(range(len(verdicts))))


def samples_of(*values: dict[str, object], prediction: str | None = None) -> list[tuple[str, str]]:
    rows = [Row(f"in.json:{number}", str(number), one) for number, one in enumerate(values, 1)]
    return [(pair.text, pair.finish) for pair in read_pairs(rows, paths_of(rows, None, prediction))]


@pytest.mark.parametrize(
    ("row", "prediction", "expected"),
    [
        ({"prediction": ["x", "y"], "finish_reason": ["length", "stop"]}, None, [("x", "length"), ("y", "stop")]),
        ({"prediction": ["x"], "finish_reasons": ["max_tokens"]}, None, [("x", "length")]),
        ({"resps": [["x", "y"]], "stop_reason": [[None, "length"]]}, None, [("x", "stop"), ("y", "length")]),
        ({"predictions": "['x' 'y']", "finish_reason": "['length' 'stop']"}, None, [("x", "length"), ("y", "stop")]),
        ({"outputs": [{"text": "x", "finish_reason": "length"}, {"text": "y"}]}, None, [("x", "length"), ("y", "stop")]),
        ({"choices": [{"message": {"role": "assistant", "content": "x"}, "finish_reason": "length"}]}, None, [("x", "length")]),
        ({"output": {"text": "x", "meta_info": {"finish_reason": {"type": "abort"}}}}, None, [("x", "abort")]),
        ({"model_response": {"text": ["x", "y"], "finish_reason": ["stop", "length"]}}, None, [("x", "stop"), ("y", "length")]),
        ({"outputs": [{"text": "x"}, {"text": "y", "finish_reason": "length"}]}, "outputs[1].text", [("y", "length")]),
        ({"prediction": ["x", "y"], "finish_reason": ["stop", "length"]}, "prediction[1]", [("y", "length")]),
        ({"prediction": ["x", "y", "z"], "finish_reason": ["length", "stop"]}, None, [("x", "stop"), ("y", "stop"), ("z", "stop")]),
    ],
)
def test_each_sample_ended_as_its_mapping_or_its_place_in_a_list_says(row, prediction, expected):
    assert samples_of({"gold": "4"} | row, prediction=prediction) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"['\\boxed{4}', '\\boxed{5}']", [r"\boxed{4}", r"\boxed{5}"]),
        ("['4' '5']", ["4", "5"]),
        ("[{'role': 'user', 'content': '2 + 2?'}\n {'role': 'assistant', 'content': '4'}]", ["4"]),
        ("[1, 2]", ["[1, 2]"]),
        ("[{'a': 1}]", ["[{'a': 1}]"]),
    ],
)
def test_samples_and_chats_that_a_csv_holds_as_they_were_printed_are_told_from_answers(text, expected):
    assert [sample for sample, _ in samples_of({"gold": "4", "prediction": text})] == expected


def test_a_field_that_no_row_fills_gives_way_to_one_that_is_filled():
    assert samples_of(*[{"gold": None, "answer": "4", "prediction": None, "output": "4"}] * 2) == [("4", "stop")] * 2
    assert samples_of({"gold": "4", "prediction": None}) == [("", "stop")]


def test_a_chat_that_ends_with_anothers_turn_answers_nothing():
    turns = [{"role": "assistant", "content": "4"}, {"role": "user", "content": "thanks, 5"}]
    assert samples_of({"gold": "5", "prediction": turns}) == [("", "stop")]


def test_a_row_without_a_value_at_a_named_path_is_told_and_ends_no_file(tmp_path):
    source, out, said = tmp_path / "in.jsonl", tmp_path / "out.jsonl", []
    source.write_text("".join(json.dumps({"target": "4", "resps": resps}) + "\n" for resps in ([["4"]], [[]], [])))
    counts = judge_file(source, out, workers=1, wall_s=3.0, memory_mb=512, prediction="resps[0][0]", say=said.append)
    assert counts == {"right": 1, "wrong": 2, "not_judged": 0}
    assert said[1] == f"{source}: 2 rows hold nothing at resps[0][0], so they answer nothing: {source}:2, {source}:3"


def test_the_fields_that_were_taken_are_said_and_likelihoods_are_refused(tmp_path):
    source, said = tmp_path / "in.json", []
    source.write_text(json.dumps([{"answer": "4", "pred": "4"}] * 2))
    judge_file(source, tmp_path / "out.jsonl", workers=1, wall_s=3.0, memory_mb=512, say=said.append)
    assert said == [f"{source}: 2 rows, gold from answer, prediction from pred"]
    source.write_text(json.dumps([{"target": "1", "resps": [[["-1.2", "False"]], [["-0.5", "True"]]]}]))
    with pytest.raises(ValueError, match="likelihoods of given choices, where texts are judged"):
        judge_file(source, tmp_path / "out.jsonl", workers=1, wall_s=3.0, memory_mb=512)


def test_what_is_judged_is_not_replaced_by_its_verdicts(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"gold": "4", "prediction": "4"}\n')
    with pytest.raises(ValueError, match="is what is judged, and would be replaced by its verdicts"):
        judge_file(source, tmp_path / "." / "in.jsonl", workers=1, wall_s=3.0, memory_mb=512)
    assert source.read_text() == '{"gold": "4", "prediction": "4"}\n'


def test_a_path_that_no_row_has_is_refused_with_the_fields_there_are(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"target": "1", "resps": ["1"]}')
    with pytest.raises(
        ValueError, match=r"in.jsonl:1: no field doc.answer: .* it has target, resps: name the paths \(--gold, --prediction\)"
    ):
        judge_file(source, tmp_path / "out.jsonl", workers=1, wall_s=1.0, memory_mb=256, gold="doc.answer")


def test_a_bad_gold_is_named_also_where_the_answer_is_too_long(tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    golds = [r"\frac{", r"\frac{1}{2}", "7"]
    source.write_text("".join(json.dumps({"gold": gold, "prediction": "x" * 900}) + "\n" for gold in golds))
    assert judge_file(source, out, workers=1, wall_s=3.0, memory_mb=512) == {"right": 0, "wrong": 2, "not_judged": 1}
    graded = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["reason"] for row in graded] == ["bad gold", "too long", "too long"]
    assert all(row["extracted"] == "x" * 900 for row in graded)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"wall_s": 0.0}, "wall_s: 0: seconds a comparison may take, above 0"),
        ({"wall_s": -1.0}, "wall_s: -1: "),
        ({"wall_s": float("nan")}, "wall_s: nan: "),
        ({"wall_s": float("inf")}, "wall_s: inf: "),
        ({"memory_mb": 0}, "memory_mb: 0: memory a comparison may add"),
    ],
)
def test_a_limit_that_would_end_every_comparison_is_refused(tmp_path, limits, words):
    source = tmp_path / "in.jsonl"
    source.write_text('{"gold": "1", "prediction": "1"}\n')
    with pytest.raises(ValueError, match=words):
        judge_file(source, tmp_path / "out.jsonl", **({"workers": 1, "wall_s": 1.0, "memory_mb": 256} | limits))
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(("out", "reason"), [("absent/out.jsonl", "No such file or directory"), ("folder", "Is a directory")])
def test_an_output_that_cannot_be_written_is_named_as_the_user_wrote_it(tmp_path, out, reason):
    (tmp_path / "folder").mkdir()
    source = tmp_path / "in.jsonl"
    source.write_text('{"gold": "1", "prediction": "1"}\n')
    with pytest.raises(OSError, match=rf"{out}: cannot be written \({reason}\): choose another file") as refusal:
        judge_file(source, tmp_path / out, workers=1, wall_s=1.0, memory_mb=256)
    assert ".part" not in str(refusal.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"in.jsonl:2: not JSON in UTF-8 \("),
        ("[1]", "in.jsonl:2: not a JSON object but list"),
        ('{"gold": "1"}', "in.jsonl:2: no field prediction"),
        ('{"gold": true, "prediction": "1"}', "in.jsonl:2: gold is True: it must be a text, a number or a list of those"),
        ('{"gold": "1", "prediction": {"steps": 1}}', "in.jsonl:2: prediction is {'steps': 1}: it must be a text"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(tmp_path, line, message):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"gold": "1", "prediction": "1"}\n' + line + "\n")
    with pytest.raises(ValueError, match=message):
        judge_file(source, out, workers=1, wall_s=1.0, memory_mb=256)
    assert not out.exists()


@pytest.mark.parametrize(
    ("prediction", "bare", "expected"),
    [
        (r"so \boxed{7} #### 8", True, ("7", "")),
        ("so it is #### 8 ", True, ("8", "")),
        ("#### 8\n<answer>\n9\n</answer>", True, ("9", "")),
        ("long\nA: 26", True, ("26", "")),
        ("The answer is: 36.\n", True, ("36.", "")),
        ("<think>1</think> x+1 ", True, ("x+1", "")),
        ("<think>1", True, (None, "thinking not closed")),
        ("<think>1</think>", True, (None, "no answer")),
        ("8", False, (None, "no box")),
        ("<think>never closed\n<answer>9</answer>", True, ("9", "")),
        (r"<think>\boxed{9}</think>Some other text.", True, ("Some other text.", "")),
    ],
)
def test_a_prediction_without_a_box_is_what_it_states_or_all_of_it(prediction, bare, expected):
    assert answer_of(prediction, bare=bare) == expected


def test_a_box_in_a_prediction_that_was_cut_off_is_a_step_unless_its_thinking_was_closed():
    """As in evaluations: with or without an opening mark."""
    for text in (r"so \boxed{6} and now let", r"<think>so \boxed{6} and now let"):
        assert answer_of(text, bare=True, finish="length") == (None, "unfinished")
    assert answer_of(r"hm</think>so \boxed{6} and", bare=True, finish="length") == ("6", "")
