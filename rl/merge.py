"""Update-selective merging: the largest changes of a training run, scaled down, on top of the model it began with.

theta = base + scale * delta, for the `keep` share of entries with the largest |delta|; every other entry keeps base's bits
(DLER, arXiv 2510.15110). The selection is exact: two histograms over the bit patterns of |delta| in fp32 find the
threshold, and among entries equal to it the lowest index in the order of sorted names wins. Memory: one tensor of each model
and two histograms; the output starts as a copy of base's files, in which changed tensors are overwritten in place.
Simplification: safetensors only, and a tied output head is looked for under its usual name `lm_head.weight`.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rl import checkpoint
from rl.state import left
from rollout.tokenizer import copy_companions

_CHUNK = 1 << 24  # entries worked on at a time: bounds the fp32 copies of a large embedding
_HEAD = "lm_head.weight"
_INDEX = "model.safetensors.index.json"
_FLOATS = ("F64", "F32", "F16", "BF16")
_DTYPE_KEYS = ("dtype", "torch_dtype")


def told(counts: Mapping[str, int], out: Path) -> str:
    """What `merge` did, in a line."""
    lost = counts["kept"] - counts["changed"]
    rounded = f"; {lost:,} more changes were lost in the rounding to the base's dtype" if lost else ""
    return f"{out}: {counts['changed']:,} of {counts['entries']:,} entries moved, in {counts['tensors']} tensors{rounded}"


def merge(base: Path, trained: Path, out: Path, keep: float, scale: float, scope: Literal["global", "tensor"] = "global") -> dict[str, int]:
    """Write `base + scale * (largest changes)` to `out`, with base's dtypes and files and the trained model's tokenizer and config.

    Args:
        base: checkpoint folder the training began with.
        trained: checkpoint folder it ended with; same tensor names and shapes.
        out: new folder; appears whole or not at all.
        keep: share of entries to take over, in (0, 1]; of n entries round(keep * n) are taken.
        scale: factor on the changes taken over (0.7 in the paper).
        scope: rank changes over the whole model ("global") or within each tensor ("tensor").

    Returns:
        `tensors`, `entries`, `kept` (changes taken over: zero changes are never counted), `changed` (stored values that now
        differ from base: in bf16 a small change can round away).

    Raises:
        ValueError: arguments or models that do not fit; FileExistsError: `out` is there; CheckpointError: writing failed.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep: {keep}: a share above 0 and at most 1 of the changes, e.g. 0.25")
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale: {scale}: a factor above 0, e.g. 0.7")
    if scope not in ("global", "tensor"):
        raise ValueError(f"scope: {scope!r}: global or tensor")
    if out.exists():
        raise FileExistsError(f"{out} exists already: choose another folder for the merged model")
    old, new = _tensors(base), _tensors(trained)
    names, embedding = _shared_names(base, trained, old, new), _tied_embedding(base, old)
    sizes = {name: math.prod(old[name].shape) for name in names}
    if not sum(sizes.values()):
        raise ValueError(f"{base} holds no {', '.join(_FLOATS)} values: there is nothing to merge")
    cuts = []
    for ranked in [names] if scope == "global" else [[name] for name in names]:
        cuts.append((ranked, *_threshold(partial(_magnitudes, old, new, ranked), round(keep * sum(sizes[name] for name in ranked)))))
    counts = {"tensors": len(names), "entries": sum(sizes.values()), "kept": 0, "changed": 0}

    def fill(folder: Path) -> None:
        _copy_files(base, trained, {place.file for place in old.values()}, folder)
        for ranked, threshold, ties in cuts:
            for name in ranked:
                places = [old[name], old[_HEAD]] if name == embedding else [old[name]]
                kept, changed, ties = _overwrite(folder, places, _pairs(old[name], new[name], name), threshold, ties, scale)
                counts["kept"] += kept
                counts["changed"] += changed

    out.parent.mkdir(parents=True, exist_ok=True)
    how = {"base": str(base), "trained": str(trained), "keep": keep, "scale": scale, "scope": scope}
    checkpoint.write(out, fill, {"limit": left(trained), "merge": how})
    return counts


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies: its file, the byte it starts at, its dtype in safetensors' words, its shape."""

    file: Path
    start: int
    dtype: str
    shape: tuple[int, ...]

    def read(self, name: str) -> Tensor:
        with safe_open(self.file, "pt") as file:
            return file.get_tensor(name)


def _tensors(folder: Path) -> dict[str, _Place]:
    """Every tensor of a checkpoint, one file or sharded."""
    if (folder / _INDEX).is_file():
        shards = _read_object(folder / _INDEX).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(file, str) for file in shards.values()):
            raise ValueError(
                f"{folder / _INDEX}: no weight_map with the file of each tensor: copy it anew from where the checkpoint is from"
            )
        files = sorted(set(shards.values()))
    else:
        shards, files = {}, ["model.safetensors"]
    places: dict[str, _Place] = {}
    for file in files:
        path = folder / Path(file).name  # shards lie beside their index, whatever it says
        if not path.is_file():
            if (folder / _INDEX).is_file():
                advice = f"{_INDEX} names it: fetch it again"
            elif any(folder.glob("*.safetensors")):
                advice = f"its weights are in several files, which {_INDEX} would list: fetch that, too"
            elif any(folder.glob("*.bin")):
                advice = "only pickled weights (.bin), which are not read: save it as safetensors"
            else:
                advice = "is this a checkpoint folder?"
            raise ValueError(f"{path}: no such file; {advice}")
        try:
            with safe_open(path, "pt"):
                pass  # checks the header
        except SafetensorError as error:
            raise ValueError(f"{path} is no intact safetensors file: {error}") from error
        with open(path, "rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
            header = json.loads(raw.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                places[name] = _Place(path, 8 + length + entry["data_offsets"][0], entry["dtype"], tuple(entry["shape"]))
    if lacking := sorted(shards.keys() - places.keys()):
        raise ValueError(f"{folder}: no file holds {lacking[0]}, which {_INDEX} says is there; fetch both again")
    return places


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ValueError with the file's name if it is none."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a {type(content).__name__}, not a JSON object")
    return content


def _shared_names(base: Path, trained: Path, old: dict[str, _Place], new: dict[str, _Place]) -> list[str]:
    """Names of the tensors to merge, sorted; a tied head is left to its embedding. Raises ValueError if the models do not fit."""
    old_names = old.keys() - ({_HEAD} if _tied_embedding(base, old) else set())
    new_names = new.keys() - ({_HEAD} if _tied_embedding(trained, new) else set())
    if old_names != new_names:
        only = [f"{name} is only in {base if name in old_names else trained}" for name in sorted(old_names ^ new_names)]
        raise ValueError(f"{base} and {trained} are not the same architecture: {'; '.join(only[:5])}{' ...' if len(only) > 5 else ''}")
    names = []
    for name in sorted(old_names):
        if old[name].shape != new[name].shape:
            shapes = f"{list(old[name].shape)} in {base} and {list(new[name].shape)} in {trained}"
            raise ValueError(f"{name} has shape {shapes}: not the same architecture")
        if old[name].dtype in _FLOATS and new[name].dtype in _FLOATS:
            names.append(name)
        elif old[name].dtype != new[name].dtype or not torch.equal(old[name].read(name), new[name].read(name)):
            raise ValueError(f"{name} ({old[name].dtype}) differs between {base} and {trained}: only {', '.join(_FLOATS)} can be merged")
    return names


def _tied_embedding(folder: Path, places: dict[str, _Place]) -> str | None:
    """The embedding that a stored `lm_head.weight` repeats, None if the head is not stored or is its own tensor."""
    config = _read_object(folder / "config.json") if (folder / "config.json").is_file() else {}
    embeddings = [name for name in places if name.endswith("embed_tokens.weight")]
    if _HEAD not in places or len(embeddings) != 1 or not config.get("tie_word_embeddings"):
        return None
    if not torch.equal(places[_HEAD].read(_HEAD), places[embeddings[0]].read(embeddings[0])):
        raise ValueError(f"{folder}: config.json says tie_word_embeddings, but {_HEAD} and {embeddings[0]} differ: correct one of them")
    return embeddings[0]


def _pairs(old: _Place, new: _Place, name: str) -> Iterator[tuple[Tensor, Tensor]]:
    """A tensor in flat chunks: base in its own dtype, change in fp32."""
    base, trained = old.read(name).reshape(-1), new.read(name).reshape(-1)
    for base_chunk, trained_chunk in zip(base.split(_CHUNK), trained.split(_CHUNK), strict=True):
        delta = trained_chunk.float() - base_chunk.float()
        if not torch.isfinite(delta).all():
            raise ValueError(f"{name} in {old.file} or {new.file} holds values that are not finite")
        yield base_chunk, delta


def _magnitudes(old: dict[str, _Place], new: dict[str, _Place], names: list[str]) -> Iterator[Tensor]:
    """|delta| as int32 bit patterns, whose order is the order of the numbers."""
    for name in names:
        for _, delta in _pairs(old[name], new[name], name):
            yield delta.abs().view(torch.int32)


def _threshold(magnitudes: Callable[[], Iterator[Tensor]], kept: int) -> tuple[int, int]:
    """Exact place of the cut: all bit patterns above the first number are kept, and of those equal to it the second number.

    Two passes: a histogram of the upper 16 bits finds the bin of the `kept`-th largest, one of the lower 16 bits finds it there.
    """
    if kept == 0:
        return (1 << 31) - 1, 0  # above every number's pattern
    upper = torch.zeros(1 << 16, dtype=torch.int64)
    for bits in magnitudes():
        upper += torch.bincount(bits >> 16, minlength=1 << 16)
    high, left = _bin_of(upper, kept)
    lower = torch.zeros(1 << 16, dtype=torch.int64)
    for bits in magnitudes():
        lower += torch.bincount(bits[bits >> 16 == high] & 0xFFFF, minlength=1 << 16)
    low, ties = _bin_of(lower, left)
    return high << 16 | low, ties


def _bin_of(histogram: Tensor, rank: int) -> tuple[int, int]:
    """Bin of the `rank`-th largest entry (1 is the largest), and its rank within the bin."""
    above = histogram.flip(0).cumsum(0).flip(0) - histogram
    place = int(torch.nonzero(above < rank)[0])
    return place, rank - int(above[place])


def _overwrite(
    folder: Path, places: list[_Place], pairs: Iterator[tuple[Tensor, Tensor]], threshold: int, ties: int, scale: float
) -> tuple[int, int, int]:
    """Write a merged tensor over its copies in `folder`. Returns entries kept, entries changed and the ties that are left."""
    kept = changed = done = 0
    with ExitStack() as stack:
        files = [stack.enter_context(open(folder / place.file.name, "r+b")) for place in places]
        for base, delta in pairs:
            bits = delta.abs().view(torch.int32)
            equal = torch.nonzero(bits == threshold)[:ties, 0]
            ties -= len(equal)
            keep = bits > threshold
            keep[equal] = True
            keep &= bits > 0
            merged = torch.where(keep, (base + scale * delta).to(base.dtype), base)
            kept += int(keep.sum())
            changed += int((merged != base).sum())
            for file, place in zip(files, places, strict=True):
                file.seek(place.start + done)
                file.write(merged.view(torch.uint8).numpy().data)
            done += merged.numel() * merged.element_size()
    return kept, changed, ties


def _copy_files(base: Path, trained: Path, weights: set[Path], folder: Path) -> None:
    """Base's weights as the canvas; tokenizer and config of the trained model, whose dtype gives way to that of the weights."""
    for path in sorted(weights):
        shutil.copyfile(path, folder / path.name)
    if (base / _INDEX).is_file():
        shutil.copyfile(base / _INDEX, folder / _INDEX)
    copy_companions(trained, folder)
    if (trained / "config.json").is_file():
        config = _read_object(trained / "config.json")
        original = _read_object(base / "config.json") if (base / "config.json").is_file() else config
        config = {key: value for key, value in config.items() if key not in _DTYPE_KEYS}
        config |= {key: original[key] for key in _DTYPE_KEYS if key in original}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
