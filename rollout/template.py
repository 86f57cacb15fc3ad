"""Problems to prompt ids, response ids to text: the only place where a tokenizer is applied.

Claim: a prompt is the model's own chat template, applied once, with exactly one beginning-of-sequence token at its start, the same on
every day of a run; what a problem's text holds stays text; responses stay ids, and text is made from them for judges and people only.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import TemplateSyntaxError, meta
from transformers import PreTrainedTokenizerBase

from recipes.data import Data
from rewards.thinking import KNOWN, Marks, closing, closing_of, holds_mark, marks_of, split
from rollout.template_syntax import parse_template
from rollout.thinking import ThinkIds, spent
from rollout.tokenizer import TokenizerError, load_tokenizer, renamed_tokens
from rollout.types import Completion, Example, Problem

_TRAPS = "1,000 = 2\n\n\n  \tÀ e\u0301 \\boxed{-3.14}."  # what tokenizers merge and normalise differently
_PLACE, _PLACES = "\ue002{}\ue003", "\ue002(\\d+)\ue003"  # stands for a look-alike while the template is filled in
_QUESTION = "What is 3 + 4?"
_CLOSERS = "budget.kind thinking, sampler.no_thinking or eval.budgets"  # what has thinking closed
REQUEST = "Answer in at most {budget} tokens, your thinking included."  # where a requested budget has no place in the instruction
_THOUGHT, _ANSWER = "Three and four.", "The answer is 7"
_THOUGHTS = ("thinking", "reasoning", "reasoning_content")  # where templates look for a turn's thinking
_LAST_MARK = re.compile(r"(?:<[^<>\s]+>|\[[A-Z_]+\])\s*\Z")
_ROLE = re.compile(r"assistant|model|bot|answer|end|turn|inst|/", re.IGNORECASE)  # what opens an assistant's turn, or closes something
_OWN = set(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters) - {"tools", "documents", "kwargs"}  # no template's
_WINDOW = 64  # tokens from a response's end in which a closing mark is looked for first


class TemplateError(ValueError):
    """The checkpoint's tokenizer cannot serve; the message says why and what to do."""


@dataclass(frozen=True)
class Template:
    """A checkpoint's tokenizer and chat template.

    Attributes:
        stop_ids: every token id that ends a response: of generation_config, config, tokenizer, and of the template's own end of turn.
        thinking: the generation prompt opens a thinking block (`opens_thinking`) for a problem without a system turn.
        marks: of the model's thinking.
        digest: hash of chat template, vocabulary, stop ids, marks and how a text full of traps is split; travels with rollouts, checkpoints and scores.
        arguments: handed to the template (enable_thinking ...).
        date: that the template prints if it prints one, ISO; of the whole run.
        remarks: what a user should know before anything is sampled.
        budget: what `{budget}` stands for where no request says so: in evaluations, the limit of the last step.
        end_id: the token that ends a turn of the model: the template's own, else the tokenizer's end of sequence.
    """

    tokenizer: Any
    instruction: str
    stop_ids: tuple[int, ...]
    thinking: bool
    marks: Marks
    digest: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    date: str = "2026-01-01"
    remarks: tuple[str, ...] = ()
    budget: int = 0
    end_id: int = -1

    def messages(self, problem: Problem, limit: int = 0) -> list[dict[str, str]]:
        """The problem as chat messages: the system's if it has one, and the user's with the instruction behind it.

        Args:
            limit: what `{budget}` in the instruction stands for, tokens; 0: the template's own `budget`.
        """
        system = [{"role": "system", "content": problem.system}] if problem.system else []
        instruction = self.instruction.replace("{budget}", str(limit or self.budget))
        return [*system, {"role": "user", "content": problem.text + (f"\n\n{instruction}" if instruction else "")}]

    def asking(self, limit: int) -> Template:
        """The template whose prompts ask for at most so many tokens: where the instruction has a place for it, or in a sentence behind it."""
        instruction = self.instruction if "{budget}" in self.instruction else f"{self.instruction} {REQUEST}".strip()
        return replace(self, instruction=instruction, budget=limit)

    def prompt_ids(self, problem: Problem, limit: int = 0) -> tuple[int, ...]:
        """Token ids of the problem's messages (`messages`), with the generation prompt.

        Raises:
            TemplateError: the template refuses these messages; some take no system turn.
        """
        return self._chat_ids(self.messages(problem, limit), f"problem {problem.id}")

    def example(self, place: str, turns: Sequence[Mapping[str, str]], answer: str) -> Example:
        """A conversation to learn from: its prompt as inference would see it, and the answer as the model would write it behind that.

        The answer's thinking has the model's marks: the opening one where the prompt does not write it, a closing one where prompts open
        thinking and the answer has none; where the prompt closes thinking, the answer has none. The token that ends a turn stands at its end.

        Args:
            place: for messages.
            answer: with its thinking, if it has any, in whatever known marks.

        Raises:
            TemplateError: the template refuses these turns, the thinking never closes or does so twice, an answer holds a token that would end
                it or that the chat template keeps for itself, or the vocabulary lacks one.
        """
        for turn in turns:
            if turn["role"] == "assistant":
                self._refuse_reserved(self.tokenizer.encode(turn["content"], add_special_tokens=False), place, "an earlier answer")
        prompt_ids = self._chat_ids(turns, place)
        text = self._written(place, answer, _opening(self.tokenizer, list(turns), self.arguments, self.date))
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        self._refuse_reserved(ids, place, "its answer")
        if self.tokenizer.unk_token_id is not None and self.tokenizer.unk_token_id in ids:
            raise TemplateError(f"{place}: its answer holds what this vocabulary has no token for; leave it out")
        return Example(prompt_ids, (*ids, self.end_id))

    def holds_marks(self, turns: Sequence[Mapping[str, str]]) -> bool:
        """Whether what others than the assistant say looks like a mark of the model's own, of roles or of thinking."""
        marks = [mark for pair in self.marks.spellings for mark in pair]
        said = [turn["content"] for turn in turns if turn["role"] != "assistant"]
        return any(self._looks_like_tokens(text) or any(mark in text for mark in marks) for text in said)

    @cached_property
    def _reserved(self) -> frozenset[int]:
        """Special tokens that stand in no answer: of roles, of padding. None where marks of thinking are made of several, which open turns of their own."""
        marks = [self.tokenizer.encode(mark, add_special_tokens=False) for mark in self.marks]
        special = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        several = any(len(ids) > 1 and special & set(ids) for ids in marks)
        return frozenset() if several else frozenset(special.difference(*marks))

    def _refuse_reserved(self, ids: Sequence[int], place: str, what: str) -> None:
        for id in ids:
            if id in self.stop_ids or id in self._reserved:
                why = "which ends a response" if id in self.stop_ids else "which only the chat template writes"
                raise TemplateError(f"{place}: {what} holds {self.tokenizer.decode([id])!r}, {why}; take it out")

    def _written(self, place: str, answer: str, opening: str) -> str:
        """The answer as the model writes it behind a generation prompt; see `example`."""
        own = [mark for pair in self.marks.spellings for mark in pair]
        thinking, said = split(answer, self.marks if any(mark in answer for mark in own) else None)
        if said is None:
            raise TemplateError(f"{place}: its answer opens thinking and never closes it; leave it out")
        opener, closer = self.marks
        begun, thought = "", ""
        if thinking:
            used = next((pair for pair in (self.marks, *KNOWN) if thinking.endswith(pair.close)), None)
            if used is None:
                raise TemplateError(f"{place}: its answer closes thinking with marks of no known model; write {opener} and {closer}")
            thought = thinking.removesuffix(used.close).lstrip()
            begun = opener if thought.startswith(used.open) else f"{opener}\n"
            thought = thought.removeprefix(used.open)
            thinking = thought + closer
        if any(holds_mark(text) or any(mark in text for mark in own) for text in (thought, said)):
            raise TemplateError(f"{place}: its answer holds a mark of thinking beside those around its thinking; leave it out")
        if self.marks.opened_in(opening):
            return (thinking.removeprefix(opening.rpartition(opener)[2]) if thinking else f"\n{closer}\n\n") + said
        return said.lstrip() if closer in opening else begun + thinking + said

    def _chat_ids(self, messages: Sequence[Mapping[str, str]], what: str) -> tuple[int, ...]:
        """Token ids of messages, with the generation prompt. What an assistant said before may hold the model's own tokens; what others say is text.

        Raises:
            TemplateError: see `prompt_ids`.
        """
        try:
            text = _render(self.tokenizer, messages, self.arguments, self.date)
        except Exception as error:  # templates raise what they like, through jinja
            turns, said = " and ".join(message["role"] for message in messages), " ".join(f"{error}".split())
            raise TemplateError(
                f"{what}: the chat template refuses its turns, {turns} ({said}); leave out what it does not take"
            ) from error
        if not any(self._looks_like_tokens(message["content"]) for message in messages if message["role"] != "assistant"):
            return tuple(self.tokenizer.encode(text, add_special_tokens=False))
        return self._with_plain_turns(messages)  # it writes what looks like the model's own tokens

    def closing_ids(self) -> tuple[int, ...]:
        """Ids of the mark that closes thinking, for whoever closes it: engines where they can (`think_ids`), else rollout/closing.

        Raises:
            TemplateError: prompts leave no thinking to close.
        """
        opening = _opening(self.tokenizer, self.messages(Problem("", _QUESTION, "")), self.arguments, self.date)
        if not self.thinking and self.marks.close in opening:
            raise TemplateError(
                f"{_CLOSERS}: prompts end in {self.marks.close!r}, so there is no thinking to close; "
                "let data.template leave thinking on (enable_thinking: true, say), or leave it out"
            )
        return self.closer

    @property
    def closer(self) -> tuple[int, ...]:
        """Ids of the mark that closes thinking, as it stands by itself."""
        return tuple(self.tokenizer.encode(self.marks.close, add_special_tokens=False))

    def word_ids(self, word: str) -> tuple[int, ...]:
        """Ids of a word that is put into thinking, as it stands by itself. Raises TemplateError: the tokenizer has no tokens that say it."""
        ids = tuple(self.tokenizer.encode(word, add_special_tokens=False))
        if self.tokenizer.decode(ids) != word:
            raise TemplateError(
                f"eval.budgets: extended: this model's tokenizer cannot say {word!r}; name another one (--extended N@TOKENS:WORD, in a recipe word: ...)"
            )
        return ids

    def unseen(self) -> str:
        """Why engines cannot close this model's thinking although there is some, as the end of a sentence; "" if they can."""
        closer = self.closing_ids()
        if len(closer) != 1 or self.tokenizer.decode(closer) != self.marks.close:
            return (
                f"thinking is closed by one token, and this model has none for {self.marks.close!r}; "
                "leave it out, or name the marks of its thinking in data.thinking"
            )
        if self.thinking and spent(self.prompt_ids(Problem("", _QUESTION, "")), self._think_ids()) is None:
            return (
                f"prompts open thinking in other tokens than {self.marks.open!r} has by itself, so engines would not see it; leave it out"
            )
        return ""

    def think_ids(self, at_once: bool = False) -> ThinkIds:
        """Ids of the marks of thinking, for an engine that closes it (rollout/thinking).

        Args:
            at_once: a response may begin with the closing mark.

        Raises:
            TemplateError: none can: what closes it is not one token, or prompts leave nothing to close.
        """
        if why := self.unseen():
            raise TemplateError(f"{_CLOSERS}: {why}")
        if at_once and not self.thinking:
            raise TemplateError("sampler.no_thinking: prompts do not open thinking, so no response can begin by closing it; leave it out")
        return self._think_ids()

    def _think_ids(self) -> ThinkIds:
        opener, closer = (self.tokenizer.encode(mark, add_special_tokens=False) for mark in self.marks)
        return ThinkIds(tuple(opener), closer[0])

    def opens_thinking(self, problem: Problem) -> bool:
        """Whether the problem's prompt opens a thinking block, so that a response without a closing mark has no answer.

        Some templates look for `/no_think` in the turns, so problems may differ.
        """
        return self.marks.opened_in(_opening(self.tokenizer, self.messages(problem), self.arguments, self.date))

    def text(self, completion: Completion, start: int = 0) -> str:
        """The response as text, from token `start` on, without its stop token."""
        if completion.text is not None and not start:
            return completion.text
        ids = completion.ids[start:]
        if completion.finish in ("stop", "stopped") and len(ids) and int(ids[-1]) in self.stop_ids:
            ids = ids[:-1]
        return self.tokenizer.decode(ids.tolist(), skip_special_tokens=False)

    def answer_start(self, ids: np.ndarray, text: str) -> int | None:
        """Index of the first token behind the mark that closes thinking, None if there is none or thinking was opened again: where the judge sees the answer begin.

        A mark may come in several tokens, joined to its neighbours: it is looked for in the text, and its last token from the end on.

        Args:
            text: of the response (`text`).
        """
        if (found := closing(text, self.marks)) is None:
            return None
        close, behind = text[slice(*found)], text.count(text[slice(*found)], found[1])  # an answer may speak of the mark
        width = _WINDOW
        while width < len(ids) and self._decoded(ids[-width:]).count(close) <= behind:
            width *= 2
        low, high = max(0, len(ids) - width), len(ids)  # the mark is whole in ids[low:high], and not in ids[low:low]
        start = low
        count = self._decoded(ids[start:]).count(close) - behind
        while high - low > 1:
            middle = (low + high) // 2
            if self._decoded(ids[start:middle]).count(close) >= count:
                high = middle
            else:
                low = middle
        return high

    def closing_start(self, ids: np.ndarray, end: int) -> int:
        """Index of the first token of the mark that closes thinking, which the response's first `end` tokens end in (`answer_start`)."""
        start = end - 1
        while start > 0 and closing(self._decoded(ids[start:end]), self.marks) is None:
            start -= 1
        return start

    def _decoded(self, ids: np.ndarray) -> str:
        return self.tokenizer.decode(ids.tolist(), skip_special_tokens=False)

    @cached_property
    def _renamed(self) -> tuple[Any, dict[str, str], re.Pattern[str]]:
        """See `renamed_tokens`, with what finds such a token's own name, or a place, in a text."""
        tokenizer, names = renamed_tokens(self.tokenizer)
        return tokenizer, names, re.compile("|".join(map(re.escape, [*sorted(names, key=len, reverse=True), *_PLACE.split("{}")])))

    def _looks_like_tokens(self, text: str) -> bool:
        """Whether the tokenizer would find one of its tokens in a text, as it stands or once it is normalised (＜ for <)."""
        tokenizer, _, own = self._renamed
        return bool(own.search(text) or (tokenizer.normalizer and own.search(tokenizer.normalizer.normalize_str(text))))

    def _with_plain_turns(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """Ids of the rendered messages, in which only what the template itself writes is one of the model's own tokens.

        The template sees the turns with places for what looks like tokens, the tokenizer sees the turns and renames the template's own.
        """
        tokenizer, names, own = self._renamed
        found: list[str] = []

        def place(match: re.Match[str]) -> str:
            found.append(match.group())
            return _PLACE.format(len(found) - 1)

        shown = [one if one["role"] == "assistant" else {**one, "content": own.sub(place, one["content"])} for one in messages]
        text = _render(self.tokenizer, shown, self.arguments, self.date)
        parts = re.split(_PLACES, text)
        parts[::2] = [own.sub(lambda match: names[match.group()], part) for part in parts[::2]]
        parts[1::2] = [found[int(index)] for index in parts[1::2]]
        return tuple(tokenizer.encode("".join(parts), add_special_tokens=False).ids)


def load_template(checkpoint: Path | str, data: Data | None = None, date: str | None = None, budget: int = 0) -> Template:
    """Read tokenizer, chat template, stop ids and marks of thinking of a checkpoint.

    Args:
        data: the recipe's; instruction, arguments and marks come from it.
        date: that prompts say if they say one, ISO; None: today.
        budget: see Template.

    Raises:
        TemplateError: no tokenizer, no chat template, one that cannot be filled in or does not read an argument, no stop token, or two
            beginning tokens at the start.
    """
    data = data or Data()
    folder = Path(checkpoint)
    date = date or datetime.now().date().isoformat()
    if data.thinking and (Marks(*data.thinking[::-1]) in KNOWN or data.thinking[0] in closing_of(data.thinking[1])):
        raise TemplateError(f"data.thinking: {data.thinking} closes before it opens; swap the two")
    try:
        tokenizer = load_tokenizer(folder)
    except TokenizerError as error:
        raise TemplateError(str(error)) from error
    if not tokenizer.chat_template:
        raise TemplateError(f"{checkpoint}: the tokenizer has no chat template; add chat_template.jinja to the checkpoint")
    asked = [{"role": "user", "content": _QUESTION + (f"\n\n{data.instruction}" if data.instruction else "")}]
    if unread := _unread(tokenizer.chat_template, data.template):
        raise TemplateError(f"{checkpoint}: {unread}")
    try:
        prompt = _render(tokenizer, asked, data.template, date)
    except Exception as error:  # templates raise what they like, through jinja
        said = " ".join(f"{error}".split())
        raise TemplateError(f"{checkpoint}: the chat template cannot be filled in with data.template {data.template} ({said})") from error
    if _QUESTION not in prompt:
        raise TemplateError(
            f"{checkpoint}: the chat template leaves the user's text out (one for messages in parts, perhaps); use one for messages of plain text"
        )
    if prompt.count("{budget}") < data.instruction.count("{budget}"):
        raise TemplateError(
            f"{checkpoint}: the chat template leaves {{budget}} of data.instruction out; use one that writes the user's text whole"
        )
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    if tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
        raise TemplateError(f"{checkpoint}: the chat template writes the beginning-of-sequence token twice at the start; remove one")
    source = (
        json.dumps(tokenizer.chat_template, ensure_ascii=False) if not isinstance(tokenizer.chat_template, str) else tokenizer.chat_template
    )
    opening = _opening(tokenizer, asked, data.template, date)
    marks, remarks = Marks(*data.thinking) if data.thinking else marks_of(source, tokenizer.get_vocab(), opening), []
    turn_end = _end_of_turn(tokenizer, asked, data.template, date, marks)
    stop_ids = sorted(
        {*_listed_stops(folder, len(tokenizer)), *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]), *turn_end}
    )
    if not stop_ids:
        raise TemplateError(
            f"{checkpoint}: no end-of-sequence token in tokenizer, config.json or generation_config.json; responses could never end"
        )
    if not turn_end:
        remarks.append("its chat template ends an assistant's turn with no token of its own: whether responses end depends on the model")
    opener = _LAST_MARK.search(opening)
    told = opener and (
        _ROLE.search(opener[0]) or opener[0].strip() in prompt.removesuffix(opening)
    )  # what opens the user's turn, too, thinks not
    if opener and not told and not marks.opened_in(opening):
        remarks.append(
            f"its prompts end in {opener[0].strip()}: if that opens the model's thinking, data.thinking must name it and what closes it"
        )
    parts = [tokenizer.chat_template, sorted(tokenizer.get_vocab().items()), tokenizer.encode(_TRAPS), stop_ids, marks, data.template]
    return Template(
        tokenizer=tokenizer,
        instruction=data.instruction,
        stop_ids=tuple(stop_ids),
        thinking=marks.opened_in(opening),
        marks=marks,
        digest=hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12],
        arguments=data.template,
        date=date,
        remarks=tuple(f"{checkpoint}: {words}" for words in remarks),
        budget=budget,
        end_id=turn_end[0] if turn_end else stop_ids[0] if tokenizer.eos_token_id is None else tokenizer.eos_token_id,
    )


def _render(tokenizer: Any, messages: Sequence[Mapping[str, str]], arguments: Mapping[str, Any], date: str, answered: bool = False) -> str:
    """The chat template, filled in; the clock that it may read shows one date."""
    clock = datetime.fromisoformat(date)
    return tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=not answered, tokenize=False, **({"strftime_now": clock.strftime} | dict(arguments))
    )


def _opening(tokenizer: Any, messages: Sequence[Mapping[str, str]], arguments: Mapping[str, Any], date: str) -> str:
    """The generation prompt: what the template writes behind the last turn to let the assistant speak."""
    whole, turns = (_render(tokenizer, messages, arguments, date, answered) for answered in (False, True))
    if whole.startswith(turns) and whole != turns:
        return whole[len(turns) :]
    return whole.rpartition(messages[-1]["content"].strip())[2]  # one that always writes it


def _unread(template: Any, arguments: Mapping[str, Any]) -> str:
    """What is wrong with an argument that the chat template does not read, as a sentence; "" if nothing is or the template cannot be parsed."""
    if own := sorted(_OWN & set(arguments)):
        return f"data.template: {own[0]} is set here for every prompt and is no argument of a chat template; leave it out"
    if not isinstance(template, str) or not arguments:
        return ""
    try:
        read = meta.find_undeclared_variables(parse_template(template))
    except TemplateSyntaxError:
        return ""
    for name in arguments:
        if name not in read:
            close = difflib.get_close_matches(name, sorted(read - {"messages", "add_generation_prompt"}), 1)
            return f"data.template: the chat template reads no {name}" + (f"; did you mean {close[0]}?" if close else "; leave it out")
    return ""


def _end_of_turn(tokenizer: Any, asked: list[dict[str, str]], arguments: Mapping[str, Any], date: str, marks: Marks) -> list[int]:
    """The token that the template puts behind an assistant's turn, if it is one of the tokenizer's special or added ones and ends nothing else.

    It ends the thinking, too, where it is in the closing mark, or where the template writes it between thinking and answer. If the template
    writes no thinking, it is taken to where both marks open parts of one turn with a token that opens no turn (`<|channel|>` of gpt-oss).
    """

    def behind(mark: str, **thoughts: str) -> str:
        whole = _render(tokenizer, [*asked, {"role": "assistant", "content": _ANSWER} | thoughts], arguments, date, answered=True)
        _, found, rest = whole.rpartition(mark)
        return rest if found else ""

    try:
        turns, ending = _render(tokenizer, asked, arguments, date, answered=True), behind(_ANSWER)
    except Exception:  # a template for questions only
        return []
    try:
        between, answered, _ = behind(_THOUGHT, **dict.fromkeys(_THOUGHTS, _THOUGHT)).partition(_ANSWER)
    except Exception:  # one that takes no thinking back
        between, answered = "", ""
    ids, opener, closer = (tokenizer.encode(text, add_special_tokens=False)[:1] for text in (ending.strip(), *marks))
    token, first = (
        tokenizer.added_tokens_decoder[one[0]].content if one and one[0] in tokenizer.added_tokens_decoder else "" for one in (ids, opener)
    )
    parts = token in between if answered else opener == closer and first and first not in turns
    return [] if not token or parts or token in marks.close else ids


def _listed_stops(folder: Path, tokens: int) -> list[int]:
    """Stop ids that generation_config.json and config.json name, without those that no response can hold.

    Args:
        tokens: of the tokenizer; the model may have more.

    Raises:
        TemplateError: a file is no JSON object, or names what is no token's number.
    """
    found = []
    for name in ("generation_config.json", "config.json"):
        try:
            said = json.loads((folder / name).read_text(encoding="utf-8"))
        except OSError:
            continue
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise TemplateError(f"{folder / name} is no JSON object; fetch it again")
        inner = said.get("text_config")
        for part in (said, inner if isinstance(inner, dict) else {}):
            listed = part.get("eos_token_id")
            limit = max(tokens, size if isinstance(size := part.get("vocab_size"), int) else 0)
            for token in listed if isinstance(listed, list) else [] if listed is None else [listed]:
                if isinstance(token, bool) or not isinstance(token, int) or token < 0:
                    raise TemplateError(f"{folder / name}: eos_token_id {token!r} is no token's number; correct it or take it out")
                found += [token] * (token < limit)
    return found
