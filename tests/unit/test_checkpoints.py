"""What plan says of a local checkpoint from its files alone (B6 of the kinds: weights, tokenizers, adapters, architectures, lengths)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launch.checkpoints import checkpoint_faults, embedding_rows, header, vocabulary
from launch.memory import config_shape

Change = Callable[[Path], Any]


def configured(**more: Any) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | more))

    return change


def indexed(*names: str) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / names[0])
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {str(i): name for i, name in enumerate(names)}}))

    return change


def renamed(before: str, after: str) -> Change:
    return lambda folder: (folder / before).rename(folder / after)


def adapter(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))


def longer_vocabulary(folder: Path) -> None:
    held = json.loads((folder / "tokenizer.json").read_text())
    held["added_tokens"].append({"id": 41, "content": "<|new|>", "special": True})
    (folder / "tokenizer.json").write_text(json.dumps(held))


def cut_off(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-10])


FAULTS: dict[str, tuple[Change, str]] = {
    "adapter": (adapter, "is an adapter of owner/base: merge it first"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "holds no config.json; name the folder of a checkpoint"),
    "broken config": (lambda folder: (folder / "config.json").write_text("{"), "a config.json that is no JSON object"),
    "pickled": (renamed("model.safetensors", "pytorch_model.bin"), "pytorch_model.bin: weights in this form are not loaded"),
    "gguf": (renamed("model.safetensors", "model.gguf"), "model.gguf: weights in this form are not loaded"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights (model.safetensors)"),
    "a shard is missing": (
        indexed("a.safetensors", "b.safetensors"),
        "b.safetensors, which model.safetensors.index.json lists, is not there",
    ),
    "no index": (renamed("model.safetensors", "model-00001-of-00002.safetensors"), "but neither model.safetensors nor"),
    "cut off": (cut_off, "model.safetensors is cut off or no safetensors file"),
    "no tokenizer": (lambda folder: [file.unlink() for file in folder.glob("tokenizer*")], "holds no tokenizer (tokenizer.json)"),
    "no template": (lambda folder: [file.unlink() for file in folder.glob("chat_template*")], "the tokenizer has no chat template"),
    "small embedding": (longer_vocabulary, "has tokens up to number 41, the model's embedding only 41 rows"),
    "encoder": (configured(is_encoder_decoder=True), "an encoder and a decoder is no plain causal language model"),
    "multimodal": (configured(architectures=["Qwen2VLForConditionalGeneration"]), "Qwen2VLForConditionalGeneration is no plain causal"),
    "own code": (configured(auto_map={"AutoModel": "x.Y"}), "auto_map asks for code from the checkpoint"),
    "quantised": (configured(quantization_config={"quant_method": "awq"}), "awq weights cannot be trained"),
    "experts": (configured(num_experts=8), "num_experts 8: mixtures of experts cannot be trained"),
    "soft cap": (configured(final_logit_softcapping=30.0), "final_logit_softcapping 30.0 changes logits behind the output head"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_checkpoint_that_cannot_serve_is_named_with_file_and_remedy(name: str, tiny_checkpoint: Path, tmp_path: Path):
    change, words = FAULTS[name]
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    assert list(checkpoint_faults(folder, trains=True)) == []
    change(folder)
    found = list(checkpoint_faults(folder, trains=True))
    assert any(words in line for line in found), found
    evaluated = list(checkpoint_faults(folder, trains=False))
    assert bool(evaluated) == (name not in ("quantised", "experts", "soft cap"))  # an engine can sample from those


def test_sizes_of_vocabulary_and_embedding_are_those_of_the_files(tiny_checkpoint: Path):
    assert vocabulary(tiny_checkpoint / "tokenizer.json") == embedding_rows(tiny_checkpoint, {}) == 41
    assert embedding_rows(tiny_checkpoint / "gone", {"vocab_size": 7}) == 7 and vocabulary(tiny_checkpoint / "config.json") is None
    assert header(tiny_checkpoint / "config.json") is None


@pytest.mark.parametrize(
    ("rope", "reach"),
    [
        (None, 2048),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}, 4096),
        ({"type": "linear", "factor": 2}, 4096),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 256}, 2048),
    ],
)
def test_the_context_is_what_the_rotary_embedding_reaches(rope: dict[str, Any] | None, reach: int, tiny_checkpoint: Path, tmp_path: Path):
    config = json.loads((tiny_checkpoint / "config.json").read_text()) | {"rope_scaling": rope}
    config.pop("rope_parameters", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = config_shape(tmp_path / "config.json")
    assert shape is not None and shape.max_positions == reach
