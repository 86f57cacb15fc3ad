"""The tokenizer in use is the one in the files, whatever the configuration calls it.

transformers chooses a class by model type and label, and some classes put their own splitting in place of what tokenizer.json says: a
byte-level vocabulary labelled as a Llama tokenizer loses its spaces, without a word. Claim: ids and texts equal those of
`tokenizers.Tokenizer.from_file`; where a class's do not, the plain class around the file is taken.
Simplification: without a tokenizer.json (sentencepiece alone) there is nothing to compare with, and transformers' word is taken.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

_TRAPS = (  # what tokenizers merge, split, strip and normalise differently
    "What is 17+25? Say so.",
    "1,000 = 2\n\n\n  \tÀ e\u0301 \\boxed{-3.14}. ",
    " a  b\u00a0c don't </think>\n\nX12345 中文 🙂",
)
_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*", "vocab.*", "merges.txt", "*.model")
_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


class TokenizerError(ValueError):
    """No tokenizer can be had from the files; the message says why."""


def load_tokenizer(checkpoint: Path) -> Any:
    """A checkpoint's tokenizer, as its files have it.

    Raises:
        TokenizerError: there is none, or none that does what its tokenizer.json says.
    """
    file = checkpoint / "tokenizer.json"
    tokenizer, why = None, ""
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    except Exception as error:  # its many classes raise anything; what can be said is said below
        why = " ".join(f"{error}".split())[:200]
    if not file.is_file():
        if tokenizer is None:
            raise TokenizerError(f"{checkpoint}: no usable tokenizer ({why}); put tokenizer files beside the weights")
        return _literal(tokenizer)
    try:
        own = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        raise TokenizerError(f"{file}: no usable tokenizer ({error}); put the model's own file there") from error
    for made in (tokenizer, None):
        made = made if made is not None else _plain(checkpoint, file)
        if _same(_literal(made), own):
            return made
    raise TokenizerError(f"{file}: transformers makes other ids of a text than this file does; use the model's own tokenizer files")


def copy_tokenizer(checkpoint: Path, folder: Path) -> None:
    """Put a checkpoint's tokenizer files into another folder, byte for byte."""
    for pattern in _FILES:
        for file in sorted(checkpoint.glob(pattern)):
            if file.is_file():
                (folder / file.name).write_bytes(file.read_bytes())


def without_added_tokens(tokenizer: Any) -> Tokenizer:
    """The tokenizer to which every text is plain text: it knows no special and no added tokens."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["added_tokens"] = []
    content["post_processor"] = None
    return Tokenizer.from_str(json.dumps(content))


def _literal(tokenizer: Any) -> Any:
    tokenizer.clean_up_tokenization_spaces = False  # decoding must not tidy " ." away
    return tokenizer


def _same(tokenizer: Any, own: Tokenizer) -> bool:
    for text in _TRAPS:
        ids = own.encode(text, add_special_tokens=False).ids
        try:
            again, back = tokenizer.encode(text, add_special_tokens=False), tokenizer.decode(ids, skip_special_tokens=False)
        except Exception:  # the library's plain ones: a class may have put in tokens that the file lacks
            return False
        if again != ids or back != own.decode(ids, skip_special_tokens=False):
            return False
    return True


def _plain(checkpoint: Path, file: Path) -> Any:
    """The class that adds nothing to tokenizer.json, with the special tokens and the chat template of the other files."""
    said: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (checkpoint / name).is_file():
            said |= json.loads((checkpoint / name).read_text(encoding="utf-8"))
    texts = {name: value["content"] if isinstance(value := said.get(name), dict) else value for name in _TOKENS}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), **{name: text for name, text in texts.items() if text is not None})
    written = checkpoint / "chat_template.jinja"
    template = written.read_text(encoding="utf-8") if written.is_file() else said.get("chat_template")
    if isinstance(template, list):  # named templates
        template = next((one["template"] for one in template if one.get("name") == "default"), None)
    tokenizer.chat_template = template
    return tokenizer
