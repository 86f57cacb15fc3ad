"""Other people's servers: how they are asked, what of their answers counts, and what is said when they do not answer. Real HTTP, on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from evaluation.evaluate import Asked, evaluate, requests
from evaluation.measured import of_table
from evaluation.results import Settings
from recipes.data import Data
from rewards.verifier.judge import Judge
from rollout.api import Api, Refused, ServerError
from rollout.records import CHARACTERS
from rollout.scorer import Scorer
from rollout.server import ServerPool
from rollout.template import Template
from rollout.types import Completion, Counted, Problem, Request, Rollout
from tests.scripted import CLOSE, STOP, template

KEY = "sk-do-not-tell"
Answer = tuple[int, Any]  # status and body: a mapping, or text as it stands
Script = Callable[[str, dict[str, Any]], Answer]


class Served:
    """A server on loopback that answers by a script, and what it was asked: (path, body, authorization)."""

    def __init__(self, script: Script):
        self.seen: list[tuple[str, dict[str, Any], str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def _answer(self, body: dict[str, Any]) -> None:
                outer.seen.append((self.path, body, self.headers.get("authorization", "")))
                status, content = script(self.path, body)
                said = content.encode() if isinstance(content, str) else json.dumps(content).encode()
                self.send_response(status)
                if status == 307:
                    self.send_header("location", "http://elsewhere/v1/models")
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def serve() -> Iterator[Callable[[Script], Served]]:
    up: list[Served] = []

    def start(script: Script) -> Served:
        up.append(Served(script))
        return up[-1]

    yield start
    for one in up:
        one.server.shutdown()
        one.server.server_close()


MODELS = {"data": [{"id": "m"}]}


def chat(message: dict[str, Any], finish: str | None = "stop", usage: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": finish}], **({"usage": usage} if usage else {})}


def answering(*contents: Any) -> Script:
    """A server of messages alone that gives these answers in turn, the last one again and again; the trial gets the first."""
    waiting = list(contents)

    def script(path: str, body: dict[str, Any]) -> Answer:
        if path == "/v1/models":
            return 200, MODELS
        if path == "/v1/completions":
            return 404, {"detail": "Not Found"}
        return 200, waiting.pop(0) if len(waiting) > 1 else waiting[0]

    return script


def of_ids(ids: Sequence[int], finish: str = "stop") -> Script:
    """A server that takes and gives token ids, as vLLM does."""

    def script(path: str, body: dict[str, Any]) -> Answer:
        if path == "/v1/models":
            return 200, MODELS
        text = "".join("</think>" if id == CLOSE else chr(id) for id in ids if id != STOP)
        return 200, {
            "choices": [{"text": text, "token_ids": list(ids), "finish_reason": finish}],
            "usage": {"prompt_tokens": len(body["prompt"])},
        }

    return script


def pool_of(served: Served, known: Template | None = None, model: str = "", data: Data | None = None) -> ServerPool:
    return ServerPool(Api(served.url, KEY, pace=0.0), model, known, data or Data())


def request(pool: ServerPool, size: int = 1, **changes: Any) -> Request:
    problem = Problem("p", "what?", "42")
    settings: dict[str, Any] = {"max_tokens": 50, "temperature": 0.6, "top_p": 0.95, "seed": 7} | changes
    return Request("r", problem, pool.template.prompt_ids(problem), size, **settings)


def answers(pool: ServerPool, size: int = 1, **changes: Any) -> list[Completion]:
    with pool:
        pool.meet()
        pool.submit([request(pool, size, **changes)])
        [(_, completions)] = pool.ready()
        assert pool.outstanding == 0 and pool.ready() == []
        return completions


def refusal(pool: ServerPool) -> str:
    """The one sentence that is said, which never holds the key."""
    with pytest.raises(ServerError) as caught:
        answers(pool)
    said = str(caught.value)
    assert KEY not in said and "\n" not in said and len(said) < 600
    return said


THOUGHT = [*map(ord, "hm"), CLOSE, *map(ord, "\\boxed{42}"), STOP]


def test_a_server_that_takes_and_gives_token_ids_is_asked_in_them_as_our_own_engines_are(serve):
    served = serve(of_ids(THOUGHT))
    pool = pool_of(served, template())
    completions = answers(pool, 3)
    assert pool.takes_ids and pool.template.digest == "digest" and "token ids" in pool.words
    assert [one.ids.tolist() for one in completions] == [THOUGHT] * 3
    assert {(one.finish, pool.template.text(one)) for one in completions} == {("stop", "hm</think>\\boxed{42}")}
    bodies = [body for path, body, _ in served.seen if path == "/v1/completions"][1:]
    assert sorted(body["seed"] for body in bodies) == [7, 8, 9]  # each sample its own
    for body in bodies:
        assert body["prompt"] == list(map(ord, "what?<think>")) and (body["max_tokens"], body["temperature"], body["top_p"]) == (
            50,
            0.6,
            0.95,
        )
        off = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
        assert body | off == body  # a server takes others from the model's files
        assert body["stop_token_ids"] == [STOP] and "logprobs" not in body and "n" not in body
    assert {key for _, _, key in served.seen} == {f"Bearer {KEY}"}


@pytest.mark.parametrize("top_k", [0, 20])
def test_top_k_is_asked_for_in_ids_always_and_in_messages_where_it_is_set(serve, top_k):
    for path, known in (("completions", template()), ("chat/completions", None)):
        served = serve(of_ids(THOUGHT) if known else answering(chat({"content": "\\boxed{42}"})))
        answers(pool_of(served, known), top_k=top_k)
        body = next(body for asked, body, _ in reversed(served.seen) if asked == f"/v1/{path}")
        assert body.get("top_k") == (top_k if known or top_k else None)


def test_a_checkpoint_with_other_tokens_than_the_servers_is_refused(serve):
    def script(path: str, body: dict[str, Any]) -> Answer:
        return (
            (200, MODELS)
            if path == "/v1/models"
            else (200, {"choices": [{"text": "seven", "token_ids": [65, 66], "finish_reason": "stop"}]})
        )

    assert "m has other tokens than the checkpoint" in refusal(pool_of(serve(script), template()))


def test_a_server_that_changes_the_prompt_is_asked_in_messages(serve):
    """One that reads ids as text, or puts a token before them, counts another prompt."""

    def script(path: str, body: dict[str, Any]) -> Answer:
        if path == "/v1/completions":
            return 200, {
                "choices": [{"text": "x", "token_ids": [120], "finish_reason": "stop"}],
                "usage": {"prompt_tokens": len(body["prompt"]) + 1},
            }
        return 200, MODELS if path == "/v1/models" else chat({"content": "\\boxed{42}"})

    pool = pool_of(serve(script), template())
    answers(pool)
    assert not pool.takes_ids


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "\\boxed{42}"}, "\\boxed{42}"),
        ({"content": "<think>\nhm</think>\n\n\\boxed{42}"}, "<think>\nhm</think>\n\n\\boxed{42}"),
        ({"content": "\\boxed{42}", "reasoning_content": "hm"}, "<think>\nhm</think>\n\n\\boxed{42}"),  # DeepSeek, SGLang
        ({"content": "\\boxed{42}", "reasoning": "hm"}, "<think>\nhm</think>\n\n\\boxed{42}"),  # vLLM, OpenRouter
        ({"content": None, "reasoning_content": "hm"}, "<think>\nhm"),  # thinking that never closed
        ({"content": None}, ""),
        ({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "\\boxed{42}"}]}, "<think>\nhm</think>\n\n\\boxed{42}"),
        ({"content": "half \ud83d"}, "half ?"),
    ],
)  # fmt: skip
def test_thinking_that_a_server_says_apart_stands_before_the_answer_in_its_marks(serve, message, text):
    pool = pool_of(serve(answering(chat(message))))
    assert pool.template.text(answers(pool)[0]) == text


def test_without_a_checkpoint_lengths_are_the_servers_count_or_characters_and_say_so(serve):
    usage = {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 5}}
    pool = pool_of(serve(answering(chat({"content": "<think>hm</think>ab"}, usage=usage))))
    [one] = answers(pool)
    assert one.counted == (9, 5) and pool.template.digest == f"tokens of m, as {pool.words.split(',')[0]} counts them"
    told = [Rollout("r", 0, replace(one, counted=Counted(9, count)), "<think>hm</think>ab", 17).think_tokens for count in (5, 0)]
    assert told == [5, None]  # whoever tells 0 of thinking that is there did not count it
    pool = pool_of(serve(answering(chat({"content": "größe"}))))
    [one] = answers(pool)
    assert one.counted is None and len(one.ids) == 5 and pool.template.digest == CHARACTERS


def test_with_a_checkpoint_the_text_of_a_server_without_ids_is_counted_by_its_tokenizer(serve):
    pool = pool_of(serve(answering(chat({"content": "\\boxed{42}", "reasoning": "hm"}, usage={"completion_tokens": 999}))), template())
    [one] = answers(pool)
    text = "hm</think>\n\n\\boxed{42}"  # the prompt opens the thinking
    assert pool.template.text(one) == text and len(one.ids) == len(text) and one.counted is None and pool.template.digest == "digest"


def test_thinking_that_a_server_keeps_to_itself_is_not_counted_by_a_tokenizer(serve):
    usage = {"completion_tokens": 999, "completion_tokens_details": {"reasoning_tokens": 900}}
    script = answering(chat({"content": "\\boxed{42}"}, usage=usage))
    assert "keeps its 900 tokens of thinking to itself" in refusal(pool_of(serve(script), template()))
    [one] = answers(pool_of(serve(script)))
    assert one.counted == (999, 900)


def test_an_evaluation_never_mixes_two_counts(serve):
    script = answering(chat({"content": "x"}, usage={"completion_tokens": 1}), chat({"content": "x"}))
    assert "counted tokens at first and now counts none" in refusal(pool_of(serve(script)))
    first = of_ids(THOUGHT)
    calls = iter(range(9))

    def forgetful(path: str, body: dict[str, Any]) -> Answer:
        status, content = first(path, body)
        if path == "/v1/completions" and next(calls):
            content["choices"][0].pop("token_ids")
        return status, content

    assert "gave token ids at first and now gives none" in refusal(pool_of(serve(forgetful), template()))


@pytest.mark.parametrize(
    ("said", "finish"),
    [
        ("stop", "stop"),
        ("STOP", "stop"),
        ("eos_token", "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("content_filter", "abort"),
    ],
)
def test_how_an_answer_ended_is_what_the_server_says(serve, said, finish):
    assert answers(pool_of(serve(answering(chat({"content": "x"}, said)))))[0].finish == finish


def test_a_server_that_does_not_say_how_an_answer_ended_is_refused(serve):
    assert "finish_reason is None" in refusal(pool_of(serve(answering(chat({"content": "x"}, None)))))


@pytest.mark.parametrize("refuses_top_p", [False, True])
def test_the_names_that_a_server_has_for_settings_are_learned_from_what_it_refuses(serve, refuses_top_p: bool):
    """All of the distribution is asked for, too, as files of models say less; of a server that takes no top_p it is not, and less is refused."""

    def script(path: str, body: dict[str, Any]) -> Answer:
        if path == "/v1/models":
            return 200, MODELS
        if "max_tokens" in body:
            return 400, {
                "error": {
                    "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
                }
            }
        if "seed" in body:
            return 422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}
        if "top_p" in body and refuses_top_p:
            return 400, {"error": {"message": "Unsupported parameter: 'top_p' is not supported with this model."}}
        return 200, chat({"content": "x"})

    served = serve(script)
    answers(pool_of(served), top_p=1.0)
    asked = {"model", "messages", "max_completion_tokens", "temperature"}
    assert served.seen[-1][1].keys() == (asked if refuses_top_p else asked | {"top_p"})
    if refuses_top_p:
        assert "'top_p' is not supported" in refusal(pool_of(serve(script)))


def test_what_is_no_name_of_a_setting_is_not_left_out_but_said(serve):
    refused = (400, {"error": {"message": "Unsupported value: 'temperature' does not support 0.6 with this model."}})
    script = lambda path, body: (200, MODELS) if path == "/v1/models" else refused  # noqa: E731
    assert "'temperature' does not support 0.6" in refusal(pool_of(serve(script)))


REFUSALS: list[tuple[str, Answer, str]] = [
    ("/v1/models", (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}), "set LACONIC_ENGINE_KEY"),
    ("/v1/models", (404, "<html><head><title>x</title></head><h1>Not Found</h1></html>"), "which mostly ends in /v1"),
    ("/v1/models", (200, "<html>welcome</html>"), "which mostly ends in /v1"),
    ("/v1/models", (307, ""), "name the place itself in --engine-url, http://elsewhere"),
    ("/v1/models", (200, {"data": [{"id": "a"}, {"id": "b"}]}), "has a, b: say which with --engine-model"),
    ("/v1/models", (200, {"data": []}), "say which with --engine-model"),
    ("/v1/chat/completions", (403, {"error": "no access"}), "set LACONIC_ENGINE_KEY"),
    ("/v1/chat/completions", (400, {"error": {"message": "max_tokens=50 is too large"}}), "max_tokens=50 is too large"),
    ("/v1/chat/completions", (429, {"error": {"message": "slow down"}}), "--engine-requests"),
    ("/v1/chat/completions", (503, "upstream"), "503: upstream"),
    ("/v1/chat/completions", (200, {"error": {"code": 502, "message": "provider down"}}), "502: provider down"),
    ("/v1/chat/completions", (200, "no JSON {"), "no JSON {"),
    ("/v1/chat/completions", (200, {"object": "list"}), "no completion"),
    ("/v1/chat/completions", (200, {"choices": []}), "no completion"),
    ("/v1/chat/completions", (200, {"choices": [{"text": "x", "finish_reason": "stop"}]}), "no message"),
]


@pytest.mark.parametrize(("path", "answer", "words"), REFUSALS)
def test_what_a_server_says_instead_of_an_answer_is_one_sentence_with_the_remedy(serve, path, answer, words):
    good = answering(chat({"content": "x"}))
    assert words in refusal(pool_of(serve(lambda asked, body: answer if asked == path else good(asked, body))))


def test_a_model_that_a_server_does_not_have_is_named_with_those_that_it_has(serve):
    def script(path: str, body: dict[str, Any]) -> Answer:
        return (200, MODELS) if path == "/v1/models" else (404, {"error": {"message": "The model `mm` does not exist."}})

    for known in (None, template()):
        assert "has no model mm; it has m: say which with --engine-model" in refusal(pool_of(serve(script), known, "mm"))


@pytest.mark.parametrize("status", [429, 500, 503, 529])
def test_a_busy_server_is_asked_again_until_it_answers(serve, status):
    good, calls = answering(chat({"content": "x"})), iter(range(99))

    def script(path: str, body: dict[str, Any]) -> Answer:
        return (status, {"error": "busy"}) if path.startswith("/v1/chat") and next(calls) % 3 else good(path, body)

    assert len(answers(pool_of(serve(script)), 4)) == 4


def test_a_quota_that_is_spent_is_not_waited_for(serve):
    spent = (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}})
    good = answering(chat({"content": "x"}))
    served = serve(lambda path, body: spent if path.startswith("/v1/chat") else good(path, body))
    assert "exceeded your current quota" in refusal(pool_of(served))
    assert len([path for path, *_ in served.seen if path.startswith("/v1/chat")]) == 1


def test_a_server_that_is_not_there_or_silent_or_of_another_kind_is_said_at_once(serve):
    served = serve(answering(chat({"content": "x"})))
    secure = ServerPool(Api(served.url.replace("http", "https"), KEY), "", None, Data())
    assert "does it speak plain http?" in refusal(secure)
    silent = threading.Event()

    def script(path: str, body: dict[str, Any]) -> Answer:
        silent.wait(60)
        return 200, MODELS

    slow = Api(serve(script).url, pace=0.0)

    async def asked() -> None:
        await slow.ask("models", within_s=0.05)

    import asyncio

    with pytest.raises(ServerError, match="was silent for 0 s: ask less at once"):
        asyncio.run(asked())
    silent.set()
    served.server.shutdown()
    served.server.server_close()
    assert "start the server, or correct --engine-url" in refusal(pool_of(served))


def test_a_certificate_that_nobody_vouches_for_is_refused_and_one_that_the_user_names_is_taken(serve, tmp_path: Path, monkeypatch):
    import shutil
    import ssl

    if not shutil.which("openssl"):
        pytest.skip("makes a certificate with openssl, which is not here")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    served = serve(answering(chat({"content": "x"})))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    served.server.socket = context.wrap_socket(served.server.socket, server_side=True)
    url = served.url.replace("http", "https")
    assert "certificate cannot be verified" in refusal(ServerPool(Api(url, KEY, pace=0.0), "", None, Data()))
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(certificate))
    assert len(answers(ServerPool(Api(url, KEY, pace=0.0), "", None, Data()))) == 1


def test_no_server_closes_thinking(serve):
    with pool_of(serve(answering(chat({"content": "x"})))) as pool:
        for forced in ({"thinking_tokens": 8}, {"closed": 1}):
            with pytest.raises(ServerError, match="closes no thinking"):
                pool.submit([request(pool, **forced)])
        assert pool.outstanding == 0


def test_a_budget_that_is_requested_stands_in_the_messages_and_no_proxy_between_them_and_this_machine(serve, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    served = serve(answering(chat({"content": "x"})))
    assert len(answers(pool_of(served), limit=30)) == 1
    assert served.seen[-1][1]["messages"][-1]["content"].endswith("Answer in at most 30 tokens, your thinking included.")


def test_leaving_does_not_wait_for_answers_that_nobody_wants_any_more(serve):
    hold = threading.Event()
    good = answering(chat({"content": "x"}))

    def script(path: str, body: dict[str, Any]) -> Answer:
        if body.get("seed"):
            hold.wait(60)
        return good(path, body)

    with pool_of(serve(script)) as pool:
        pool.meet()
        pool.submit([request(pool, 3)])
    hold.set()  # only behind the with
    assert pool.outstanding == 1


def test_a_server_is_evaluated_by_the_same_road_as_a_checkpoint(serve, tmp_path: Path):
    def script(path: str, body: dict[str, Any]) -> Answer:
        if path == "/v1/models":
            return 200, MODELS
        right = body["seed"] % 2 == 0
        message = {"content": "\\boxed{42}" if right else "\\boxed{41}", "reasoning": "hm" if right else "hmm"}
        return 200, chat(message, usage={"completion_tokens": 10 if right else 20, "completion_tokens_details": {"reasoning_tokens": 4}})

    with pool_of(serve(script)) as pool, Judge(1, 3.0, 512) as judge:
        pool.meet()
        settings = Settings(temperature=0.6, max_tokens=30, samples=4, seed=0, engine=pool.words, template=pool.template.digest)
        asked = requests("mine", [Problem(f"p{n}", f"what? {n}", "42") for n in range(5)], pool.template, settings)
        [(one, found)] = evaluate([Asked(tmp_path / "mine", "m", 0, "mine", settings, asked)], pool, Scorer(judge, pool.template))
    assert (found.accuracy.mean, found.tokens.mean, found.tokens.right, found.by_outcome["right"].thinking) == (0.5, 15.0, 10.0, 4.0)
    table = pq.read_table(one.table)
    assert of_table(table).ruler == found.settings.template == pool.template.digest != ""
    assert set(table["ids"].to_pylist()) == {None} and set(table["text"].to_pylist()) == {
        "<think>\nhm</think>\n\n\\boxed{42}", "<think>\nhmm</think>\n\n\\boxed{41}"
    }  # fmt: skip
    assert KEY not in (tmp_path / "mine.json").read_text()


def test_a_refusal_keeps_its_status_for_whoever_asks_on(serve):
    served = serve(lambda path, body: (418, {"message": "teapot"}))
    api = Api(served.url)

    async def asked() -> None:
        await api.ask("models")

    import asyncio

    with pytest.raises(Refused, match="teapot") as caught:
        asyncio.run(asked())
    assert (caught.value.status, caught.value.words) == (418, "teapot")
