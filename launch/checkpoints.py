"""What a local checkpoint's files say before torch loads: whether its weights, tokenizer and architecture can serve.

Reads JSON and the header of safetensors files; no tensor, no tokenizer is made. Each fault names the file and the remedy.
Simplification: what only running the model shows (a head that is changed in code) is left to the learner's own check.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_CHANGES_LOGITS = ("final_logit_softcapping", "logits_scaling", "logit_scale")  # behind the head, where the learner would miss it
_WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1}


def checkpoint_faults(folder: Path, trains: bool) -> Iterator[str]:
    """Why a checkpoint folder cannot be used, one sentence each.

    Args:
        trains: it is to be trained; an evaluation can do with more architectures.
    """
    adapter = read_json(folder / "adapter_config.json")
    if adapter is not None and not (folder / "config.json").is_file():
        base = adapter.get("base_model_name_or_path") or "its base model"
        yield (
            f"model.path: {folder} is an adapter of {base}: merge it first (peft: PeftModel.from_pretrained(base, {str(folder)!r})"
            ".merge_and_unload().save_pretrained(FOLDER)) and name the merged folder"
        )
        return
    config = read_json(folder / "config.json")
    if config is None:
        found = "holds no config.json" if not (folder / "config.json").exists() else "has a config.json that is no JSON object"
        yield f"model.path: {folder} {found}; name the folder of a checkpoint (runs/NAME/checkpoints/step-N)"
        return
    yield from config_faults(config, f"{folder}/config.json", trains)
    yield from _weight_faults(folder)
    yield from _tokenizer_faults(folder, config)


def config_faults(config: Mapping[str, Any], where: str, trains: bool) -> Iterator[str]:
    """What a configuration says that learner, publisher or engines cannot do."""
    architectures = config.get("architectures") or []
    kinds = [name for name in architectures if not str(name).endswith("ForCausalLM")]
    if config.get("is_encoder_decoder") or kinds:
        what = kinds[0] if kinds else "an encoder and a decoder"
        yield f"model.path: {where}: {what} is no plain causal language model (...ForCausalLM); take the text model of its family"
    if "auto_map" in config:
        yield f"model.path: {where}: auto_map asks for code from the checkpoint, which is never run; take a model that transformers has built in"
    if (quantised := config.get("quantization_config")) and trains:
        method = quantised.get("quant_method", "quantised") if isinstance(quantised, dict) else "quantised"
        yield f"model.path: {where}: {method} weights cannot be trained; take the model in bf16 or fp32"
    if trains and (experts := next((key for key in config if "expert" in key and config[key]), None)):
        yield f"model.path: {where}: {experts} {config[experts]}: mixtures of experts cannot be trained here; take a dense model"
    for key in _CHANGES_LOGITS:
        if trains and config.get(key) not in (None, 0, 1, 1.0):
            yield f"model.path: {where}: {key} {config[key]} changes logits behind the output head, which the learner does not do; take another model"


def read_json(file: Path) -> dict[str, Any] | None:
    """A file's JSON object; None if there is none."""
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return held if isinstance(held, dict) else None


def header(file: Path) -> dict[str, Any] | None:
    """Names, types, shapes and places of a safetensors file's tensors; None if it is cut off or something else."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= size - 8:
                return None
            held = json.loads(stream.read(length))
        tensors = {name: part for name, part in held.items() if name != "__metadata__"}
        whole = all(part["data_offsets"][1] <= size - 8 - length for part in tensors.values())
        sized = all(
            part["data_offsets"][1] - part["data_offsets"][0] == prod(part["shape"]) * _WIDTHS[part["dtype"]]
            for part in tensors.values()
            if part["dtype"] in _WIDTHS
        )
        return tensors if whole and sized else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None


def _weight_faults(folder: Path) -> Iterator[str]:
    index = folder / "model.safetensors.index.json"
    names = sorted(weight_files(folder))
    if not names:
        others = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth", "*.gguf") for file in folder.glob(pattern))
        stray = sorted(file.name for file in folder.glob("*.safetensors"))
        if index.exists():
            yield f"model.path: {index} lists no weights; fetch the checkpoint again"
        elif stray:
            yield f"model.path: {folder} has {stray[0]}, but neither model.safetensors nor {index.name}; fetch what is missing"
        elif others:
            yield (
                f"model.path: {folder / others[0]}: weights in this form are not loaded (pickled files can run code); convert them to safetensors "
                "with transformers' save_pretrained"
            )
        else:
            yield f"model.path: {folder} holds no weights (model.safetensors); fetch them or name another folder"
        return
    for name in names:
        if not (folder / name).is_file():
            yield f"model.path: {folder / name}, which {index.name} lists, is not there; fetch it"
        elif header(folder / name) is None:
            yield f"model.path: {folder / name} is cut off or no safetensors file; fetch it again"


def weight_files(folder: Path) -> set[str]:
    """Names of the safetensors files that hold a checkpoint's weights, there or not."""
    index = read_json(folder / "model.safetensors.index.json")
    if index is not None and isinstance(index.get("weight_map"), dict):
        return set(map(str, index["weight_map"].values()))
    return {"model.safetensors"} if (folder / "model.safetensors").is_file() else set()


def _tokenizer_faults(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    file = folder / "tokenizer.json"
    if not file.is_file() and not any((folder / name).is_file() for name in ("tokenizer.model", "vocab.json", "tokenizer_config.json")):
        yield f"model.path: {folder} holds no tokenizer (tokenizer.json); put the model's tokenizer files beside the weights"
        return
    settings = read_json(folder / "tokenizer_config.json") or {}
    if not any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")) and not settings.get("chat_template"):
        yield f"model.path: {folder}: the tokenizer has no chat template; add chat_template.jinja to the checkpoint"
    tokens, rows = vocabulary(file), embedding_rows(folder, config)
    if tokens is not None and rows is not None and tokens > rows:
        yield (
            f"model.path: {file} has tokens up to number {tokens - 1}, the model's embedding only {rows} rows; "
            "take the tokenizer that belongs to these weights"
        )


def vocabulary(file: Path) -> int | None:
    """One more than the largest token id of a tokenizer.json; None if that cannot be told."""
    held = read_json(file)
    if held is None:
        return None
    vocab = held.get("model", {}).get("vocab")
    ids = [-1, *(token["id"] for token in held.get("added_tokens", []) if isinstance(token.get("id"), int))]
    if isinstance(vocab, dict):
        ids += [number for number in vocab.values() if isinstance(number, int)]
    elif isinstance(vocab, list):  # unigram
        ids.append(len(vocab) - 1)
    return max(ids) + 1 or None


def embedding_rows(folder: Path, config: Mapping[str, Any]) -> int | None:
    """Tokens that the weights have an embedding for: as the files have it, else as the configuration says."""
    for name in sorted(weight_files(folder)):
        for tensor, part in (header(folder / name) or {}).items():
            if tensor.endswith(_EMBEDDINGS):
                return int(part["shape"][0])
    size = config.get("vocab_size")
    return size if isinstance(size, int) else None
