"""The main job, end to end, through the command a user types: cold start, vLLM, DeepSpeed, evaluation, report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.usefixtures("vllm_on_cpu")
ROOT = str(Path(__file__).parents[2])
LACONIC = str(Path(sys.executable).with_name("laconic"))
SMALL = [
    "reward=[{kind: verdict}, {kind: function, name: 'tests.faults.by_length:by_length', weight: 0.1, low: -3, high: 1}]",  # it has something to learn
    "tiny.layers=2", "tiny.width=32", "cold_start.steps=20", "cold_start.batch=8", "train.steps=3", "train.checkpoint_every=2", "train.keep_checkpoints=1",
    "sampler.prompts=4", "sampler.group_size=4", "sampler.keep_groups=all", "budget.limit=24", "eval.problems=8", "eval.samples=2", "eval.max_tokens=40",
]  # fmt: skip


def laconic(*arguments: str, cache: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [LACONIC, *arguments],
        env=os.environ | {"LACONIC_CACHE": str(cache), "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def run_folder(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small run; while it ran, nothing it started listened beyond loopback, and nothing of it is left (P34, P27)."""
    runs = tmp_path_factory.mktemp("runs")
    command = [LACONIC, "train", "quickstart", *SMALL, "name=small", "--runs", str(runs)]
    environment = os.environ | {"LACONIC_CACHE": str(cache), "PYTHONPATH": ROOT}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    listening, family = set(), {}
    while process.poll() is None:
        for child in (
            [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)] if psutil.pid_exists(process.pid) else []
        ):
            try:
                family[child.pid] = child
                listening |= {socket.laddr.ip for socket in child.net_connections("inet") if socket.status == psutil.CONN_LISTEN}
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.5)
    output = process.stdout.read() if process.stdout else ""
    assert process.returncode == 0, output
    assert listening, "the scan saw no port at all, so it proves nothing"
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    psutil.wait_procs(list(family.values()), timeout=20)
    assert [child for child in family.values() if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []
    return runs / "small"


def test_a_run_leaves_everything_the_architecture_page_promises(run_folder: Path):
    assert json.loads((run_folder / "status.json").read_text())["state"] in ("finished", "no-effective-update")
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    for line in lines:
        assert line["groups/sampled"] == 4 and line["groups/trained"] == 4
        assert line["tokens/sampled"] == line["tokens/trained"]
        assert line["mismatch/mean"] < 1e-4  # vLLM and the learner agree on what was sampled
        assert line["length/mean"] <= 24
    assert lines[0]["ratio/mean"] == pytest.approx(1.0, abs=1e-3)
    for name in (
        "recipe.yaml",
        "environment.json",
        "evals/step-0.json",
        "evals/step-0.parquet",
        "evals/step-3.json",
        "samples/step-00002.parquet",
    ):
        assert (run_folder / name).is_file(), name
    assert [folder.name for folder in (run_folder / "checkpoints").iterdir()] == ["step-3"]
    assert list((run_folder / "tensorboard").iterdir())


def test_the_resolved_recipe_of_a_run_loads_again_to_the_same_hash(run_folder: Path):
    from recipes.loader import load, recipe_hash

    assert recipe_hash(load(str(run_folder / "recipe.yaml"))) == json.loads((run_folder / "environment.json").read_text())["recipe_hash"]


def test_the_report_is_one_page_that_needs_nothing_else(run_folder: Path, cache: Path):
    laconic("report", str(run_folder), cache=cache)
    outside, words = [], []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            outside.extend(
                (tag, value) for name, value in attributes if name in ("src", "href") and value and not value.startswith(("#", "data:"))
            )

        def handle_data(self, data: str) -> None:
            words.append(data)

    Reader().feed((run_folder / "report.html").read_text())
    assert outside == []
    assert "95 %" in "".join(words) and "8 problems" in "".join(words)


def test_a_saved_checkpoint_is_evaluated_on_a_file_and_scores_are_written(run_folder: Path, cache: Path, tmp_path: Path):
    data = tmp_path / "mine.jsonl"
    rows = [{"question": f"{a} + {b} = ", "gold": str(a + b)} for a, b in ((1, 2), (30, 4), (5, 6))] + [{"question": "?", "gold": ""}]
    data.write_text("\n".join(json.dumps(row) for row in rows))
    checkpoint = str(run_folder / "checkpoints" / "step-3")
    words = ["engine.count=1", "data.problem=question", "data.answer=gold", "eval.max_tokens=16", "data.max_prompt_tokens=64"]
    command = ("eval", checkpoint, *words, "--data", str(data), "--samples", "3", "--forced", "4", "--out", str(tmp_path / "out"))
    done = laconic(*command, cache=cache)
    scores = json.loads((tmp_path / "out" / "mine.json").read_text())
    assert scores["problems"] == 3 and scores["samples"] == 3  # the empty gold is left out ...
    assert "1" in done.stdout and "left out" in done.stdout  # ... and said
    forced = json.loads((tmp_path / "out" / "mine@forced-4.json").read_text())
    assert forced["forced"]["closed"] > 0 and forced["settings"]["budget"] == {"kind": "forced", "limit": 4}
    table = pq.read_table(tmp_path / "out" / "mine@forced-4.parquet")
    thoughts = [(row["sources"] or []).index(1) if 1 in (row["sources"] or []) else None for row in table.to_pylist()]
    assert set(thoughts) <= {4, None} and table["logprobs"].null_count == 9 and "4 tokens forced" in done.stdout
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = laconic(*command, cache=cache)  # nothing is sampled again, so no engine starts
    assert again.stdout.count("made before") == 2
    assert {path: path.stat().st_mtime_ns for path in before if path.suffix in (".json", ".parquet")}.items() <= before.items()
    refused = laconic(*command, "eval.temperature=0.9", cache=cache, check=False)
    assert refused.returncode == 1 and "another temperature (0.6, 0.9 now): replace them (--overwrite)" in " ".join(refused.stderr.split())


def test_bad_input_is_one_clear_error_before_anything_starts(tiny_checkpoint: Path, cache: Path, tmp_path: Path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"problem": "1 + 1", "answer": "2", "gold": "2", "prediction": "2"}\n{"problem": \n')
    cases = {
        ("train", "dler", "--scale", "tiny", "sampler.gruop_size=4"): "Did you mean sampler.group_size",
        ("train", "dler", "--scale", "tiny", "sampler.group_size=1"): "needs at least 2",
        ("train", "dler", "--scale", "tiny", "learner.updates_per_step=5"): "does not divide",
        ("train", "dler", "--scale", "node8"): "GPU",
        ("train", "quickstart", "stages=[rl]", "model.path=nowhere/at/all"): "nowhere/at/all",
        (
            "train",
            "quickstart",
            "stages=[rl]",
            f"model.path={tiny_checkpoint}",
            f"data.train={broken}",
            "--runs",
            str(tmp_path),
        ): f"{broken}:2: not JSON",
        ("eval", "./no-such-checkpoint"): "no folder ./no-such-checkpoint",
        ("eval", str(tmp_path), "--data", "aime99"): "aime99",
        ("report", str(tmp_path / "no-run")): "no-run",
        ("recipes", "show", "dlre"): "dler",
        ("judge", str(broken)): f"{broken}:2",
    }
    for words, sentence in cases.items():
        done = laconic(*words, cache=cache, check=False)
        assert done.returncode == 1, (words, done.stdout)
        assert sentence in done.stderr.replace("\n", " "), (words, done.stderr)
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) <= 4, done.stderr
    assert not (tmp_path / "quickstart").exists()
