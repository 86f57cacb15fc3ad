"""Weights by name: their digests, their bytes as Ray hands them on, and whether all of a checkpoint are there.

Claim: a digest is made where the tensor is, on its device and without a copy, and is the same number on each: two tensors with equal digests hold equal bytes, but
for one chance in billions, and a single changed byte never goes unnoticed. It guards against faults, not against malice.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # a recipe's model.dtype

_COLUMNS = 1 << 16  # words that share a key of their row


class Undelivered(RuntimeError):
    """Weights did not arrive whole; the message says what was waited for."""


def load_model(checkpoint: Path, **settings: Any) -> Any:
    """A causal language model as transformers reads it from a checkpoint, all of whose weights are in its files.

    Raises:
        ValueError: some are not; transformers would make them up at random, and say so in its log.
    """
    from transformers import AutoModelForCausalLM

    model, found = AutoModelForCausalLM.from_pretrained(checkpoint, trust_remote_code=False, output_loading_info=True, **settings)
    if lacking := sorted(found["missing_keys"]):
        more = f" and {len(lacking) - 1} more" if lacking[1:] else ""
        raise ValueError(
            f"{checkpoint}: the weights hold no {lacking[0]}{more}, which its config.json asks for: fetch them again, or take the config.json of these weights"
        )
    return model


def in_a_line(error: BaseException) -> str:
    """What a library's error says, at most 200 characters of it."""
    return " ".join(str(error).split())[:200]


@functools.cache
def _keys(stream: int) -> np.ndarray:
    """Odd 64-bit numbers, uint64 [_COLUMNS], of splitmix64 (Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        state = np.arange(1 + stream * _COLUMNS, 1 + (stream + 1) * _COLUMNS, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31)) | np.uint64(1)


@torch.no_grad()
def digest(tensor: Tensor) -> Tensor:
    """The digest of a tensor's bytes, row-major, int64 [] on its device; multilinear hashing (arXiv 1202.4961) of its 64-bit words, modulo 2^64.

    Word c of row r counts by column key c times row key r, all odd, and the number of bytes by one more.
    """
    flat = tensor.detach().contiguous().flatten().view(torch.uint8) if tensor.numel() else tensor.new_zeros(0, dtype=torch.uint8)
    whole = flat[: len(flat) // 8 * 8]
    words = (whole.clone() if whole.data_ptr() % 8 else whole).view(torch.int64)
    rest = words[len(words) // _COLUMNS * _COLUMNS :]
    if tail := flat[len(whole) :].numel():
        rest = torch.cat([rest, torch.nn.functional.pad(flat[len(whole) :], (0, 8 - tail)).view(torch.int64)])
    dots = [*_dots(words[: len(words) // _COLUMNS * _COLUMNS].view(-1, _COLUMNS)), *_dots(rest[None])]
    column, row = (torch.from_numpy(_keys(stream).view(np.int64)).to(flat.device) for stream in (0, 1))
    dots_R = torch.cat(dots)
    return (dots_R * row[: len(dots_R)]).sum() + len(flat) * column[-1]


def _dots(words_RC: Tensor) -> Iterator[Tensor]:
    """Sum over columns of words times keys, in parts of [R]."""
    keys = _keys(0)[: words_RC.shape[1]]
    if words_RC.device.type == "cpu":  # numpy's one pass, without products in memory
        yield torch.from_numpy(np.einsum("rc,c->r", words_RC.numpy().view(np.uint64), keys).view(np.int64))
        return
    keys_C = torch.from_numpy(keys.view(np.int64)).to(words_RC.device)
    for part_RC in words_RC.split(1 << 9):  # products of 256 MiB
        yield (part_RC * keys_C).sum(1)


def as_numbers(found: Mapping[str, Tensor]) -> dict[str, int]:
    """Digests as Python's numbers; waits once for the device that they are on."""
    return dict(zip(found, torch.stack(list(found.values())).tolist(), strict=True)) if found else {}


@dataclass(frozen=True)
class Packed:
    """One tensor as bytes, which Ray hands to other processes without a copy."""

    data: np.ndarray
    dtype: str
    shape: tuple[int, ...]

    @property
    def digest(self) -> int:
        """See `digest`."""
        return int(digest(self.tensor()))

    def tensor(self) -> Tensor:
        """The tensor, sharing memory; read only."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that the memory is read only; nobody writes
            return torch.from_numpy(self.data).view(getattr(torch, self.dtype)).view(self.shape)


def pack(tensor: Tensor) -> Packed:
    """A tensor of any device and dtype as bytes, row-major."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return Packed(flat.view(torch.uint8).numpy(), str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))


def checkpoint_names(checkpoint: Path) -> set[str]:
    """Tensor names of a safetensors checkpoint, sharded or not.

    Raises:
        FileNotFoundError: the folder holds no safetensors.
    """
    index = checkpoint / "model.safetensors.index.json"
    if index.exists():
        return set(json.loads(index.read_text())["weight_map"])
    single = checkpoint / "model.safetensors"
    if not single.exists():
        raise FileNotFoundError(
            f"{checkpoint}: no model.safetensors; convert the checkpoint with transformers' save_pretrained (pickled weights are refused)"
        )
    with safe_open(single, framework="pt") as file:
        return set(file.keys())


def check_load(expected: set[str], arrived: Iterable[str], version: int, held: int, sampling: int) -> None:
    """What an engine takes: no weights while groups are sampled, none that are older than those that it has, and no half a model.

    Args:
        held: the version that it has.
        sampling: groups that it owes.

    Raises:
        RuntimeError: one of these; what is missing or extra is named.
    """
    if sampling:
        raise RuntimeError(f"weights version {version} came while {sampling} groups are being sampled")
    if version < held:
        raise RuntimeError(f"weights version {version} is older than version {held} that the engine holds")
    missing, extra = sorted(expected - set(arrived)), sorted(set(arrived) - expected)
    if missing or extra:
        raise RuntimeError(
            f"weights version {version} do not match the checkpoint: missing {missing[:3]} ({len(missing)}), unexpected {extra[:3]} ({len(extra)})"
        )
