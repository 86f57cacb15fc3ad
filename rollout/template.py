"""Problems to prompt ids, response ids to text: the only place where a tokenizer is applied.

Claim: a prompt is the model's own chat template, applied once, with exactly one beginning-of-sequence token; responses
stay ids, and text is made from them for judges and people only.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, GenerationConfig

from rollout.types import Completion, Problem

_OPEN, _CLOSE = "<think>", "</think>"
_TRAPS = "1,000 = 2\n\n\n  \tÀ e\u0301 \\boxed{-3.14}."  # what tokenizers merge and normalise differently


class TemplateError(ValueError):
    """The checkpoint's tokenizer cannot serve; the message says why and what to do."""


@dataclass(frozen=True)
class Template:
    """A checkpoint's tokenizer and chat template.

    Attributes:
        stop_ids: every token id that ends a response.
        thinking: the generation prompt opens a thinking block, so a response without a closing tag has no answer.
        digest: hash of chat template, vocabulary and how a text full of traps is split; travels with rollouts, checkpoints and scores.
    """

    tokenizer: Any
    instruction: str
    stop_ids: tuple[int, ...]
    thinking: bool
    close_ids: tuple[int, ...]
    digest: str

    def messages(self, problem: Problem) -> list[dict[str, str]]:
        """The problem as chat messages: the system's if it has one, and the user's with the instruction behind it."""
        system = [{"role": "system", "content": problem.system}] if problem.system else []
        return [*system, {"role": "user", "content": problem.text + (f"\n\n{self.instruction}" if self.instruction else "")}]

    def prompt_ids(self, problem: Problem) -> tuple[int, ...]:
        """Token ids of the problem's messages, with the generation prompt."""
        return tuple(_render(self.tokenizer, self.messages(problem)))

    def text(self, completion: Completion) -> str:
        """The response as text, without its stop token."""
        ids = completion.ids
        if completion.finish == "stop" and len(ids) and int(ids[-1]) in self.stop_ids:
            ids = ids[:-1]
        return self.tokenizer.decode(ids.tolist(), skip_special_tokens=False)

    def answer_start(self, ids: np.ndarray) -> int | None:
        """Index of the first token behind the last closing think tag, None if there is no such tag."""
        width = len(self.close_ids)
        for end in range(len(ids), width - 1, -1):
            if tuple(ids[end - width : end].tolist()) == self.close_ids:
                return end
        return None


def load_template(checkpoint: Path | str, instruction: str = "") -> Template:
    """Read tokenizer, chat template and stop ids of a checkpoint.

    Raises:
        TemplateError: no tokenizer, no chat template, no stop token, or a template that writes two beginning tokens.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise TemplateError(
            f"{checkpoint}: no usable tokenizer ({str(error).splitlines()[0]}); put tokenizer files beside the weights"
        ) from error
    if not tokenizer.chat_template:
        raise TemplateError(f"{checkpoint}: the tokenizer has no chat template; add chat_template.jinja to the checkpoint")
    stop_ids = _stop_ids(checkpoint, tokenizer)
    if not stop_ids:
        raise TemplateError(f"{checkpoint}: no end-of-sequence token in tokenizer or generation_config.json; responses could never end")
    probe = _render(tokenizer, [{"role": "user", "content": "1"}])
    if tokenizer.bos_token_id is not None and tokenizer.bos_token_id not in stop_ids and probe.count(tokenizer.bos_token_id) > 1:
        raise TemplateError(f"{checkpoint}: the chat template writes the beginning-of-sequence token twice")
    tail = tokenizer.decode(probe, skip_special_tokens=False)
    text = json.dumps([tokenizer.chat_template, sorted(tokenizer.get_vocab().items()), tokenizer.encode(_TRAPS)])
    return Template(
        tokenizer=tokenizer,
        instruction=instruction,
        stop_ids=stop_ids,
        thinking=tail.rfind(_OPEN) > tail.rfind(_CLOSE),
        close_ids=tuple(tokenizer.encode(_CLOSE, add_special_tokens=False)),
        digest=hashlib.sha256(text.encode()).hexdigest()[:12],
    )


def _render(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)


def _stop_ids(checkpoint: Path | str, tokenizer: Any) -> tuple[int, ...]:
    try:
        stop = GenerationConfig.from_pretrained(checkpoint).eos_token_id
    except OSError:
        stop = None
    listed = stop if isinstance(stop, list) else [stop]
    return tuple(sorted({token for token in [*listed, tokenizer.eos_token_id] if token is not None}))
