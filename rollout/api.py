"""HTTP to an OpenAI-compatible server: mappings there and back, and one clear sentence for whatever else it says.

Claim: what passes by itself (busy, restarting, a lost connection) is waited for, with growing pauses; what does not is said at once, with the remedy.
The key goes into one header and nowhere else: into no message, record or log. Certificates are checked; nothing is followed to another place.
Simplification: answers are not streamed, so a server must keep a connection open until an answer is whole.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

KEY = "LACONIC_ENGINE_KEY"  # environment variable
_BUSY = frozenset([408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529])
_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)  # seconds, between tries
_LONGEST_PAUSE_S = 300.0  # that a server may ask for
_TIMEOUTS = 2  # an answer that does not come is asked for again once
_CONNECT_S = 10.0
_WORDS = 300  # characters of what a server says
_PATHS = ("/chat/completions", "/completions", "/models")


class ServerError(RuntimeError):
    """A server cannot serve; the message names it and what to do."""


class Refused(ServerError):
    """The server answered, and not with what was asked for."""

    def __init__(self, sentence: str, status: int, words: str):
        super().__init__(sentence)
        self.status, self.words = status, words


def address(url: str) -> str:
    """The root of an API, as http://host:8000/v1, of what people write for it.

    Raises:
        ValueError: no address of http or https, or one that holds a key or a question.
    """
    where = url.strip() if "//" in url else f"//{url.strip()}"
    try:
        parts = urlsplit(where)
        parts.port  # noqa: B018  raises where it is none
    except ValueError as error:
        raise ValueError(f"--engine-url: {url!r} is no address ({error}); write it as http://host:8000/v1") from error
    if "@" in parts.netloc or parts.query:
        raise ValueError(f"--engine-url: the address of {parts.hostname} holds a key, which would be recorded; put it into {KEY}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"--engine-url: {url!r} is no address of http or https; write it as http://host:8000/v1")
    path = parts.path.rstrip("/")
    for end in _PATHS:
        path = path.removesuffix(end)
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


class Api:
    """A server's API. Its calls belong to one event loop.

    Args:
        url: see `address`.
        key: sent as bearer token, "" for none.
        at_once: calls that are under way at most.
        pace: factor on the pauses between tries.
    """

    def __init__(self, url: str, key: str = "", at_once: int = 64, pace: float = 1.0):
        self.url = address(url)
        self._key = key.strip()
        if not self._key.isascii() or not self._key.isprintable():
            raise ValueError(f"{KEY}: holds characters that no key has; set it again")
        self._room, self._pace, self._at_once = asyncio.Semaphore(at_once), pace, at_once
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            limits=httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once),
            verify=httpx.create_ssl_context(),  # reads SSL_CERT_FILE
            trust_env=not _is_loopback(self.url),  # proxies are for what lies outside
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, path: str, body: Mapping[str, Any] | None = None, patient: bool = True, within_s: float = 300.0) -> dict[str, Any]:
        """What the server says at a path: to a question if there is a body.

        Args:
            patient: try again where no connection can be had, too, not only where the server is busy.
            within_s: how long the server may be silent.

        Raises:
            Refused: it says that it will not, or says what is no mapping.
            ServerError: it cannot be reached, or is busy for too long.
        """
        timeout, timeouts = httpx.Timeout(within_s, connect=_CONNECT_S, pool=None), 0
        async with self._room:
            for pause_s in (*_PAUSES, None):
                try:
                    response = await self._client.request(
                        "GET" if body is None else "POST", f"{self.url}/{path}", json=body, timeout=timeout
                    )
                except httpx.HTTPError as error:
                    timeouts += isinstance(error, httpx.ReadTimeout)
                    if pause_s is None or not patient or _for_good(error) or timeouts >= _TIMEOUTS:
                        raise ServerError(self._unreached(error, within_s)) from error
                    asked_s = 0.0
                else:
                    status, content = self._heard(path, response)
                    if status == 200 and isinstance(content, dict):
                        return content
                    refused = self._refused(path, status, content, response)
                    if status not in _BUSY or pause_s is None or "quota" in refused.words.lower():
                        raise refused
                    asked_s = _seconds(response.headers.get("retry-after"))
                await asyncio.sleep(max(asked_s, pause_s * random.uniform(0.5, 1.5)) * self._pace)
        raise AssertionError("the last try returns or raises")

    def _heard(self, path: str, response: httpx.Response) -> tuple[int, Any]:
        """Status and content; an error that is told as success (OpenRouter) has its own."""
        try:
            content = json.loads(response.content)
        except ValueError:
            content = response.text
        if response.status_code == 200 and isinstance(content, dict) and content.get("error"):
            error = content["error"]
            code = error.get("code") if isinstance(error, dict) else None
            return code if isinstance(code, int) and code >= 400 else 400, content
        return response.status_code, content

    def _refused(self, path: str, status: int, content: Any, response: httpx.Response) -> Refused:
        words, where = self.plain(content), f"{self.url}/{path}"
        if status in (401, 403):
            why = f"does not take the key of {KEY}" if self._key else "wants a key"
            sentence = f"{self.url} {why} ({status}: {words}): set {KEY} to one that it takes"
        elif status in _BUSY:
            sentence = f"{self.url} is busy or broken, and stayed so for {len(_PAUSES) + 1} tries ({status}: {words}): ask less at once (--engine-requests), or look at the server"
        elif 300 <= status < 400:
            sentence = f"{where} sends elsewhere ({status}): name the place itself in --engine-url, {response.headers.get('location', '')[:200]} or what it begins with"
        elif status == 404:
            sentence = (
                f"{where} is not there ({status}: {words}): is --engine-url the root of an OpenAI-compatible API, which mostly ends in /v1?"
            )
        elif status == 200:
            sentence = f"{where} answers with what is no JSON object ({words}): is --engine-url the root of an OpenAI-compatible API, which mostly ends in /v1?"
        else:
            sentence = f"{where} refuses the request ({status}: {words}): change what it names, a setting of eval say"
        return Refused(sentence, status, words)

    def _unreached(self, error: httpx.HTTPError, within_s: float) -> str:
        causes = list(_causes(error))
        said = self.plain(str(causes[-1]) or str(error) or type(error).__name__)
        if isinstance(error, httpx.ConnectTimeout):
            return f"{self.url}: no connection within {_CONNECT_S:.0f} s: is the server up, and does the network let one through?"
        if isinstance(error, httpx.TimeoutException):
            return f"{self.url} was silent for {within_s:.0f} s: ask less at once (--engine-requests, now {self._at_once}), or for fewer tokens (eval.max_tokens)"
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            return f"{self.url}: its certificate cannot be verified ({said}): name the file of its authority in SSL_CERT_FILE"
        if any(isinstance(cause, ssl.SSLError) for cause in causes):
            return f"{self.url}: no encrypted connection ({said}): does it speak plain http?"
        if isinstance(error, httpx.ConnectError):
            return f"{self.url}: no connection ({said}): start the server, or correct --engine-url"
        return f"{self.url}: the connection broke ({said or type(error).__name__}): look at the server; one that speaks https only is named with https://"

    def plain(self, content: Any) -> str:
        """What a server says of an error, as a line, without the key."""
        for name in ("error", "message", "detail", "msg", "title"):
            if isinstance(content, dict) and content.get(name):
                content = content[name]
        words = content if isinstance(content, str) else json.dumps(content)
        words = " ".join(re.sub(r"<(style|script|head)\b.*?</\1>|<[^<>]{0,200}>", " ", words, flags=re.DOTALL | re.IGNORECASE).split())
        words = words.replace(self._key, "***") if self._key else words
        return (words if len(words) <= _WORDS else words[: _WORDS - 3] + "...").rstrip(".") or "no word"


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _causes(error: BaseException) -> list[BaseException]:
    """The error, and what it comes from, the root last."""
    found: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None and inner not in found:
        found.append(inner)
        inner = inner.__cause__ or inner.__context__
    return found


def _for_good(error: BaseException) -> bool:
    return any(isinstance(cause, ssl.SSLError) for cause in _causes(error))


def _seconds(said: str | None) -> float:
    """What a Retry-After header asks for, 0 without one in seconds."""
    return min(float(said), _LONGEST_PAUSE_S) if said and re.fullmatch(r"\d+(\.\d+)?", said) else 0.0
