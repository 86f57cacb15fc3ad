"""Somebody else's server as the engines of an evaluation: the same requests in, groups of completions out, over an OpenAI-compatible API.

Claim: how a server is asked is found out once, by asking it (`ServerPool.meet`), and is the same for all samples. Where a checkpoint says what the
model's tokens are and the server takes and gives ids, prompts and lengths are those of our own engines. Else prompts are messages, put into form by the
server's chat template, and lengths are what the tokenizer counts in the text, what the server counts, or characters; never two of them in one evaluation.
Every sample is a call of its own, so that each has its seed and its count, and can be asked for again alone.
"""

from __future__ import annotations

import asyncio
import difflib
import queue
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from recipes.data import Data
from rewards.completions import completions
from rewards.verifier.judge_file import ended
from rollout.api import Api, Refused, ServerError
from rollout.records import CHARACTERS
from rollout.template import Template
from rollout.transcripts import completion, spoken, transcripts
from rollout.types import Completion, Counted, Finish, Problem, Request

_NO_IDS = frozenset([400, 404, 405, 415, 422, 501])  # what servers say that take no token ids
_LOOK_S = 0.2
_SILENCE_S, _TOKEN_S = 900.0, 0.1  # how long an answer may take that is not streamed: so long, and so long a token
_TRIAL, _TRIAL_TOKENS = Problem("trial", "What is 3 + 4?", "7"), 16


class ServerPool:
    """What an evaluation asks of an EnginePool (`submit`, `outstanding`, `ready`), of a server; a context manager.

    Args:
        api: not used elsewhere.
        model: as the server calls it; "": the only one that it has.
        template: of the checkpoint that the server has, None if nobody knows its tokens.
        data: the recipe's; instruction and marks of thinking come from it where there is no template.
    """

    def __init__(self, api: Api, model: str, template: Template | None, data: Data):
        self._api, self.model, self._known = api, model, template
        self.template: Template = template or transcripts(data)
        self.takes_ids = False  # and gives them
        self._counts = False  # the server's count is the length
        self._names = {name: name for name in ("max_tokens", "seed", "top_p")}  # what the server calls them, "" if it takes none
        self._models: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._done: queue.SimpleQueue[tuple[Request, list[Completion]] | BaseException] = queue.SimpleQueue()
        self._owed = 0
        threading.Thread(target=self._loop.run_forever, name="server", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def meet(self) -> None:
        """Find out how the server is asked and what lengths are counted in (`template.digest`), with one short answer.

        Raises:
            ServerError: it cannot be reached, has no such model, or says what is no completion.
        """
        self._run(self._meet())

    @property
    def words(self) -> str:
        """How it is asked, for people and records."""
        form = "token ids" if self.takes_ids else "messages in its own chat template"
        return f"{self._api.url}, {self.model}, asked in {form}"

    @property
    def lengths(self) -> str:
        """What lengths are counted in, for people."""
        counter = "as the server counts them" if self._counts else "counted in the text with the checkpoint's tokenizer"
        return CHARACTERS if self.template.digest == CHARACTERS else f"tokens, {'as they were sampled' if self.takes_ids else counter}"

    def submit(self, requests: Sequence[Request]) -> None:
        """Ask for groups.

        Raises:
            ServerError: one closes thinking or stops chains, which no server does.
        """
        for request in requests:
            if request.short is not None:
                raise ServerError(
                    "answers of a server are not streamed, so no chain can be stopped: evaluate short-m@k with engines of this machine"
                )
            if request.thinking_tokens is not None or request.closed:
                raise ServerError("a server closes no thinking: evaluate forced budgets with engines of this machine, without --engine-url")
            self._owed += 1
            asyncio.run_coroutine_threadsafe(self._group(request), self._loop)

    @property
    def outstanding(self) -> int:
        """Groups submitted and not returned."""
        return self._owed

    def ready(self, enough: Callable[[], bool] = lambda: False) -> list[tuple[Request, list[Completion]]]:
        """See rollout/engine.EnginePool.ready. Raises ServerError."""
        groups: list[tuple[Request, list[Completion]]] = []
        while self._owed and (not groups or not self._done.empty()):
            try:
                got = self._done.get(timeout=_LOOK_S)
            except queue.Empty:
                if enough():
                    break
                continue
            if isinstance(got, BaseException):
                raise got
            self._owed -= 1
            groups.append(got)
        return groups

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._api.close()

    async def _group(self, request: Request) -> None:
        try:
            samples = await asyncio.gather(*(self._sample(request, sample) for sample in range(request.group_size)))
            self._done.put((request, list(samples)))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # for whoever waits
            self._done.put(error)

    async def _sample(self, request: Request, sample: int) -> Completion:
        within_s = _SILENCE_S + _TOKEN_S * request.max_tokens
        if not self.takes_ids:
            return self._written(request.problem, await self._api.ask("chat/completions", self._chat(request, sample), within_s=within_s))
        return self._completed(await self._api.ask("completions", self._prompt(request, sample), within_s=within_s))

    async def _meet(self) -> None:
        self._models = models = await self._listed_models()
        if not self.model:
            if len(models) != 1:
                raise ServerError(f"{self._api.url} has {_listed(models)}: say which with --engine-model")
            self.model = models[0]
        trial = Request("trial", _TRIAL, self.template.prompt_ids(_TRIAL), 1, _TRIAL_TOKENS, 1.0, 1.0, 0)
        try:
            if self._known is None or not await self._takes_ids(trial):
                await self._takes_messages(trial)
        except Refused as refused:
            if self._names_no_model(refused):
                near = difflib.get_close_matches(self.model, models, 3, 0.3) or models
                raise ServerError(
                    f"{self._api.url} has no model {self.model}; it has {_listed(near)}: say which with --engine-model"
                ) from refused
            raise

    async def _listed_models(self) -> list[str]:
        try:
            content = await self._api.ask("models", patient=False)
        except Refused as refused:
            if refused.status in (401, 403) or not self.model:
                raise
            return []  # some servers have no list
        rows = content.get("data")
        return [str(row["id"]) for row in rows if isinstance(row, dict) and "id" in row] if isinstance(rows, list) else []

    def _names_no_model(self, refused: Refused) -> bool:
        """Whether a server refuses because it has no such model."""
        return refused.status in (400, 404) and self.model not in self._models and self.model in refused.words

    async def _takes_ids(self, trial: Request) -> bool:
        """Whether the server takes a prompt as token ids and gives ids. Raises ServerError: they are another model's."""
        try:
            content = await self._api.ask("completions", self._prompt(trial, 0), patient=False)
        except Refused as refused:
            if refused.status in _NO_IDS and not self._names_no_model(refused):
                return False
            raise
        choice = _choice(content)
        if not _are_ids(choice.get("token_ids")) or _usage(content).get("prompt_tokens", len(trial.prompt_ids)) != len(trial.prompt_ids):
            return False
        self.takes_ids = True
        read, said = (self.template.tokenizer.decode(choice["token_ids"], skip_special_tokens=False), str(choice.get("text")))
        if not _letters(read).startswith(_letters(said)):
            raise ServerError(
                f"{self._api.url}: {self.model} has other tokens than the checkpoint (its {said!r:.60} would be {read!r:.60}): name the checkpoint that it was made of, or none"
            )
        return True

    async def _takes_messages(self, trial: Request) -> None:
        """Find out what the server calls the limit of tokens, whether it takes a seed, and who counts. Raises ServerError."""
        while True:
            try:
                content = await self._api.ask("chat/completions", self._chat(trial, 0), patient=False)
                break
            except Refused as refused:
                if refused.status in (400, 422) and self._names["max_tokens"] == "max_tokens" and "max_completion_tokens" in refused.words:
                    self._names["max_tokens"] = "max_completion_tokens"
                elif refused.status in (400, 422) and (
                    name := next((name for name in ("seed", "top_p") if self._names[name] and name in refused.words.lower()), "")
                ):
                    self._names[name] = ""
                else:
                    raise
        self._counts = self._known is None and "completion_tokens" in _usage(content)
        if self._counts:
            self.template = replace(self.template, digest=f"tokens of {self.model}, as {self._api.url} counts them")
        self._written(trial.problem, content)

    def _prompt(self, request: Request, sample: int) -> dict[str, Any]:
        """A call for one sample of a prompt in ids. A server's own defaults, which it takes from the model's files, are switched off as in our engines."""
        own = {
            "top_k": request.top_k,
            "min_p": 0.0,
            **{"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0},
            "stop_token_ids": list(self.template.stop_ids),
            "return_token_ids": True,
        }
        text = {"skip_special_tokens": False, "spaces_between_special_tokens": False}
        return {"prompt": list(request.prompt_ids), **self._settings(request, sample), **own, **text}

    def _chat(self, request: Request, sample: int) -> dict[str, Any]:
        stating = self.template.asking(request.limit) if request.limit else self.template
        own = {"top_k": request.top_k} if request.top_k else {}  # not of the API, so a server that has none is not told
        return {"messages": stating.messages(request.problem), **self._settings(request, sample), **own}

    def _settings(self, request: Request, sample: int) -> dict[str, Any]:
        settings = {
            self._names["max_tokens"]: request.max_tokens,
            "temperature": request.temperature,
            self._names["top_p"]
            or ("" if request.top_p == 1.0 else "top_p"): request.top_p,  # also all of it, where a model's files say less
            self._names["seed"]: (request.seed + sample) % 2**31,
        }
        return {"model": self.model} | {name: value for name, value in settings.items() if name}

    def _completed(self, content: Mapping[str, Any]) -> Completion:
        choice = _choice(content)
        if not _are_ids(ids := choice.get("token_ids")):
            raise ServerError(f"{self._api.url} gave token ids at first and now gives none ({choice!r:.100}): is it one server?")
        return completion(self.template, "", self._finish(choice), ids=ids)

    def _written(self, problem: Problem, content: Mapping[str, Any]) -> Completion:
        choice, usage = _choice(content), _usage(content)
        message = choice.get("message")
        if not isinstance(message, dict):
            raise ServerError(
                f"{self._api.url}/chat/completions answers with what is no message ({choice!r:.100}): is it an OpenAI-compatible API?"
            )
        answer, thinking, _ = next(completions([message], "message"))
        details: Any = usage.get("completion_tokens_details")
        hidden = (details.get("reasoning_tokens") or 0) if isinstance(details, dict) else 0
        if self._counts and not isinstance(usage.get("completion_tokens"), int):
            raise ServerError(f"{self._api.url} counted tokens at first and now counts none ({usage!r:.100}): is it one server?")
        if self._known is not None and hidden and not thinking and self.template.marks.close not in answer:
            raise ServerError(
                f"{self._api.url} keeps its {hidden} tokens of thinking to itself, so no tokenizer can count them: name no checkpoint, and its own count is taken"
            )
        text = spoken(self.template.marks, thinking, answer, self.template.opens_thinking(problem))
        counted = (
            Counted(usage["completion_tokens"], details.get("reasoning_tokens") if isinstance(details, dict) else None)
            if self._counts
            else None
        )
        return completion(self.template, text, self._finish(choice), counted=counted)

    def _finish(self, choice: Mapping[str, Any]) -> Finish:
        """How an answer ended; one that was stopped by a filter, say, is nothing to judge."""
        said = choice.get("finish_reason")
        if not isinstance(said, str):
            raise ServerError(
                f"{self._api.url} does not say how an answer ended (finish_reason is {said!r}), so nobody knows which were cut: take another server"
            )
        return ended(said)


def _choice(content: Mapping[str, Any]) -> dict[str, Any]:
    """The one answer. Raises ServerError: there is none."""
    choices = content.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ServerError(f"the server answers with what is no completion ({content!r:.150}): is --engine-url an OpenAI-compatible API?")
    return choices[0]


def _usage(content: Mapping[str, Any]) -> dict[str, Any]:
    usage = content.get("usage")
    return {name: value for name, value in usage.items() if value is not None} if isinstance(usage, dict) else {}


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(id_, int) for id_ in value)


def _letters(text: str) -> str:
    """What two ways to decode agree on."""
    return "".join(filter(str.isalnum, text))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + f", ... ({len(names)})" * (len(names) > 10) if names else "no list of models"
