"""Addresses and keys of servers as people write them, and how patiently they are asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from rollout.api import Api, Refused, ServerError, address


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("http://host:8000", "http://host:8000/v1"),
        ("http://host:8000/v1/", "http://host:8000/v1"),
        ("https://host/v1/chat/completions", "https://host/v1"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1"),
        ("https://host/api/paas/v4/completions", "https://host/api/paas/v4"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_an_address_is_what_people_write_for_it(url, root):
    assert address(url) == root


@pytest.mark.parametrize(
    "url", ["host:8000", "", "ftp://host", "http://", "http://host:port", "http://user:word@host/v1", "https://host/v1?key=x"]
)
def test_what_is_no_address_or_holds_a_key_is_refused(url):
    with pytest.raises(ValueError, match="--engine-url"):
        address(url)


def test_a_key_that_no_header_takes_is_refused_without_saying_it():
    with pytest.raises(ValueError, match="LACONIC_ENGINE_KEY") as caught:
        Api("http://host", "schlüssel")
    assert "schlüssel" not in str(caught.value)


Asked = Callable[..., tuple[Any, list[float]]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What is heard of a server that answers so, the last answer again and again, and the pauses before it was asked again, seconds."""

    def ask(*answers: tuple[int, Any, dict[str, str]] | httpx.HTTPError, **how: Any) -> tuple[Any, list[float]]:
        waiting, paused = list(answers), list[float]()

        def answer(request: httpx.Request) -> httpx.Response:
            one = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            if isinstance(one, httpx.HTTPError):
                raise one
            status, content, headers = one
            return httpx.Response(status, json=content, headers=headers)

        async def pause(seconds: float) -> None:
            paused.append(seconds)

        async def heard() -> Any:
            api = Api("http://127.0.0.1:9")
            api._client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
            try:
                return await api.ask("models", **how)
            except ServerError as error:
                return error

        monkeypatch.setattr("rollout.api.asyncio.sleep", pause)
        monkeypatch.setattr("rollout.api.random.uniform", lambda low, high: 1.0)
        return asyncio.run(heard()), paused

    return ask


GOOD: tuple[int, Any, dict[str, str]] = (200, {"data": []}, {})
SEVEN = [1, 2, 4, 8, 16, 32, 60]


@pytest.mark.parametrize(
    ("after", "pause"), [("7", 7), ("0.5", 1), ("9999", 300), ("Wed, 21 Oct 2026 07:28:00 GMT", 1), (None, 1)]
)  # 1 s is our own first pause, 300 s the longest
def test_a_busy_server_is_left_alone_for_as_long_as_it_asks_within_bounds(asked: Asked, after: str | None, pause: float):
    assert asked((429, {}, {"retry-after": after} if after else {}), GOOD) == ({"data": []}, [pause])


def test_what_passes_by_itself_is_waited_for_and_what_does_not_is_said_at_once(asked: Asked):
    said, pauses = asked((503, {}, {}))
    assert "for 8 tries" in str(said) and pauses == SEVEN
    no_connection, silent = httpx.ConnectError("refused"), httpx.ReadTimeout("")
    assert [asked(no_connection, patient=patient)[1] for patient in (True, False)] == [SEVEN, []]
    said, pauses = asked(silent, silent, GOOD)
    assert "was silent" in str(said) and pauses == [1]  # once more, and no more
    assert asked(silent, GOOD) == ({"data": []}, [1])
    for code, status, pause in [(20, 400, []), (404, 404, []), (None, 400, []), (429, 429, SEVEN)]:  # errors that are told as success
        said, pauses = asked((200, {"error": {"message": "no", "code": code}}, {}))
        assert isinstance(said, Refused) and (said.status, pauses) == (status, pause)
