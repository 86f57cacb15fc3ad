"""`laconic eval --engine-url` against vLLM's own server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from evaluation.results import Evaluation
from launch.evaluate import Question
from launch.server import evaluate_server
from recipes.data import Data
from rollout.api import KEY, Api, ServerError
from rollout.reference_engine import ReferenceEngine
from rollout.server import ServerPool
from rollout.template import load_template
from rollout.types import Problem, Request
from rollout.variables import engine_environment

WORD = "the-key-of-this-test"
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def url(vllm_on_cpu: None, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--model", tiny_checkpoint, "--served-model-name", "tiny", "--dtype", "float32", "--enforce-eager", "--block-size", "32"]
    words += ["--max-model-len", "512", "--kv-cache-memory-bytes", str(64 << 20), "--host", "127.0.0.1", "--port", str(port)]
    log = tmp_path_factory.mktemp("server") / "log"
    with open(log, "w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *map(str, words), "--api-key", WORD],
            stdout=file, stderr=subprocess.STDOUT, cwd=log.parent, env=os.environ | engine_environment(1, "cpu"),
        )  # fmt: skip
    try:
        for _ in range(1200):
            assert server.poll() is None, log.read_text()[-2000:]
            try:
                urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except (URLError, OSError):
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(120)


def test_vllms_server_gives_the_tokens_that_our_own_engine_samples(url: str, tiny_checkpoint: Path):
    """Greedy, so that both must: by ids, and by messages in the same chat template, which then count the same."""
    template = load_template(tiny_checkpoint)
    problems = [Problem(text, text, "46") for text in ("12+34", "7*8", "100")]
    requests = [Request(one.text, one, template.prompt_ids(one), 1, 24, 0.0, 1.0, 0) for one in problems]
    engine = ReferenceEngine(tiny_checkpoint, "fp32", "cpu", template.stop_ids)
    expected = {request.id: engine.advance([request], 0)[0][1][0] for request in requests}
    for known in (template, None):
        with ServerPool(Api(url, WORD), "", known, Data()) as pool:
            pool.meet()
            assert (pool.model, pool.takes_ids) == ("tiny", known is not None)
            pool.submit(requests)
            found = {}
            while pool.outstanding:
                found |= {request.id: completions[0] for request, completions in pool.ready()}
        for id_, ours in expected.items():
            assert found[id_].finish == ours.finish
            if known:
                assert found[id_].ids.tolist() == ours.ids.tolist()
            else:
                assert found[id_].counted is not None and found[id_].counted.tokens == len(ours.ids)


def test_an_evaluation_of_a_server_leaves_what_one_of_a_checkpoint_leaves(url: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch):
    data = tmp_path / "mine.jsonl"
    data.write_text("".join(json.dumps({"problem": f"{a}+1", "answer": str(a + 1)}) + "\n" for a in range(6)))
    monkeypatch.setenv(KEY, WORD)
    words = ["eval.samples=3", "eval.max_tokens=16", f"eval.data=[{data}]", "eval.budgets=[{kind: forced, limit: 3}]"]
    evaluate_server(url, "", str(tiny_checkpoint), Question(words), tmp_path / "out", False, QUIET)
    found = Evaluation.model_validate_json((tmp_path / "out" / "mine.json").read_text())
    assert (found.problems, found.samples, found.settings.template) == (6, 3, load_template(tiny_checkpoint, Data()).digest)
    assert "token ids" in (found.settings.engine or "")
    table = pq.read_table(tmp_path / "out" / "mine.parquet")
    assert len(table) == 18 and max(table["tokens"].to_pylist()) <= 16
    forced = Evaluation.model_validate_json((tmp_path / "out" / "mine@forced-3.json").read_text())
    assert forced.forced is not None and forced.forced.closed > 0 and forced.forced.tokens == forced.forced.closed  # one mark each
    assert WORD.encode() not in b"".join(file.read_bytes() for file in (tmp_path / "out").iterdir())
    evaluate_server(url, "", str(tiny_checkpoint), Question(words), tmp_path / "out", False, QUIET)  # made before
    with pytest.raises(FileExistsError, match="--overwrite"):
        evaluate_server(url, "", str(tiny_checkpoint), Question([*words, "seed=1"]), tmp_path / "out", False, QUIET)
    with pytest.raises(ServerError, match="has no model other; it has tiny"):
        evaluate_server(url, "other", None, Question(words), tmp_path / "out", True, QUIET)
    monkeypatch.setenv(KEY, "another")
    with pytest.raises(ServerError, match=f"set {KEY}"):
        evaluate_server(url, "", None, Question(words), tmp_path / "out", True, QUIET)
    with pytest.raises(ServerError, match="max_model_len"):
        monkeypatch.setenv(KEY, WORD)
        evaluate_server(url, "", str(tiny_checkpoint), Question([*words, "eval.max_tokens=600"]), tmp_path / "out", True, QUIET)
