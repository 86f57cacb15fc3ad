"""The tokenizer in use is the one in the files, whatever the configuration calls it.

transformers chooses a class by model type and label, and some classes put their own splitting in place of what tokenizer.json says: a
byte-level vocabulary labelled as a Llama tokenizer loses its spaces, without a word. Claim: ids and texts equal those of
`tokenizers.Tokenizer.from_file`, since the plain class around the file is taken, whatever the label.
Simplification: without a tokenizer.json (sentencepiece alone) there is nothing to compare with, and transformers' word is taken.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

_TRAPS = (  # what tokenizers merge, split, strip and normalise differently
    "What is 17+25? Say so.",
    "1,000 = 2\n\n\n  \tÀ e\u0301 \\boxed{-3.14}. ",
    "(x)\n\n>\n\n$a$\r\n\r\nIt's 3/4!\n",
    " a  b\u00a0c don't </think>\n\nX12345 中文 🙂",
)
_FILES = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*"),
    *("vocab.*", "merges.txt", "*.model", "*.tiktoken", "tekken.json"),
)
_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


class TokenizerError(ValueError):
    """No tokenizer can be had from the files; the message says why."""


def load_tokenizer(checkpoint: Path) -> Any:
    """A checkpoint's tokenizer, as its files have it.

    Raises:
        TokenizerError: there is none, or none that does what its tokenizer.json says.
    """
    file = checkpoint / "tokenizer.json"
    if not file.is_file():
        try:
            return _literal(AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False))
        except Exception as error:  # its many classes raise anything
            why = " ".join(f"{error}".split())[:200]
            raise TokenizerError(f"{checkpoint}: no usable tokenizer ({why}); put tokenizer files beside the weights") from error
    try:
        own = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        raise TokenizerError(f"{file}: no usable tokenizer ({error}); put the model's own file there") from error
    why = "transformers makes other ids of a text than this file does"
    for make in (PreTrainedTokenizerFast.from_pretrained, _plain):
        try:
            if _same(made := _literal(make(checkpoint)), own):
                return made
        except Exception as error:  # what the files beside it say can be anything
            why = "the files beside it do not fit: " + " ".join(f"{error}".split())[:200]
    raise TokenizerError(f"{file}: {why}; use the model's own tokenizer files")


def copy_companions(checkpoint: Path, folder: Path) -> None:
    """Put what stands beside a checkpoint's weights but is not of them, its tokenizer's files and generation_config.json, into another folder, byte for byte."""
    for pattern in (*_FILES, "generation_config.json"):
        for file in sorted(checkpoint.glob(pattern)):
            if file.is_file():
                (folder / file.name).write_bytes(file.read_bytes())


def renamed_tokens(tokenizer: Any) -> tuple[Tokenizer, dict[str, str]]:
    """The same tokenizer, to which its special and added tokens have other names, and those names: whoever does not use them writes plain text.

    The names hold characters for private use and a number drawn by this process, so that no text has them. White space that is an
    ordinary added token stays what it is.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    nonce, names = secrets.token_hex(8), {}
    for token in content["added_tokens"]:
        if token["special"] or token["content"].strip():
            names[token["content"]] = token["content"] = f"\ue000{nonce}-{token['id']}\ue001"
    model = content["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in model["vocab"].items()}
    else:  # unigram
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    content["post_processor"] = None
    return Tokenizer.from_str(json.dumps(content)), names


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


def _plain(checkpoint: Path) -> Any:
    """The class that adds nothing to tokenizer.json, with special tokens and chat template of the other files, and nothing else of them."""
    said: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (checkpoint / name).is_file():
            said |= json.loads((checkpoint / name).read_text(encoding="utf-8"))
    texts = {name: value["content"] if isinstance(value := said.get(name), dict) else value for name in _TOKENS}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(checkpoint / "tokenizer.json"), **{name: text for name, text in texts.items() if text is not None}
    )
    written = checkpoint / "chat_template.jinja"
    template = written.read_text(encoding="utf-8") if written.is_file() else said.get("chat_template")
    if isinstance(template, list):  # named templates
        template = next((one["template"] for one in template if one.get("name") == "default"), None)
    tokenizer.chat_template = template
    return tokenizer
