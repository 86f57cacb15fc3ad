"""The tiny reasoner's tokenizer: a word-level vocabulary in which spaces belong to the tokens, so decoding is plain concatenation.

`decode(encode(text)) == text` for everything the tiny task writes, and `\\boxed{42}` stays contiguous. Simplification: text outside
the task's words becomes `<|unk|>`; this tokenizer is for the tiny task only.
"""

from __future__ import annotations

import re

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, END, USER, ASSISTANT, UNKNOWN = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|unk|>"

_PIECES = (
    *("<think>", "</think>", "\\boxed{", "}", "\n", " "),
    *"0123456789x",
    *(" + ", " - ", " * ", " / ", " = ", " -> ", ", ", ": "),
    *("Modulo", "left to right", "Multiply", "Add", "Solve"),
    *("check", "wait", "hmm", "again", "yes", "no"),
)

# Roles in turn; the generation prompt opens the thinking block, as R1's does.
_CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- ('" + ASSISTANT + "' if message['role'] == 'assistant' else '" + USER + "') + message['content'] -}}"
    "{%- if message['role'] == 'assistant' -%}{{- '" + END + "' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '" + ASSISTANT + "<think>\\n' -}}{%- endif -%}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, made from the list above: nothing is downloaded. `save_pretrained` writes it, AutoTokenizer loads it."""
    tokens = [PAD, END, USER, ASSISTANT, UNKNOWN, *_PIECES]
    tokenizer = Tokenizer(models.WordLevel({token: id for id, token in enumerate(tokens)}, unk_token=UNKNOWN))
    longest_first = sorted(_PIECES, key=len, reverse=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )
