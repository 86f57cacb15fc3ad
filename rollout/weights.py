"""Weights on their way from learner to engine: packed for shared memory, named, and with a digest for every tensor."""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # a recipe's model.dtype


@dataclass(frozen=True)
class Packed:
    """One tensor as bytes, which Ray hands to other processes without a copy."""

    data: np.ndarray
    dtype: str
    shape: tuple[int, ...]

    @property
    def digest(self) -> int:
        """CRC-32 of the bytes."""
        return zlib.crc32(self.data.data)

    def tensor(self) -> torch.Tensor:
        """The tensor, sharing memory; read only."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that the memory is read only; nobody writes
            return torch.from_numpy(self.data).view(getattr(torch, self.dtype)).view(self.shape)


def pack(tensor: torch.Tensor) -> Packed:
    """A tensor of any device and dtype as bytes, row-major."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return Packed(flat.view(torch.uint8).numpy(), str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))


def digests(weights: Mapping[str, Packed]) -> dict[str, int]:
    """Digest of every tensor by name."""
    return {name: packed.digest for name, packed in weights.items()}


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


def check_names(expected: set[str], arrived: Iterable[str], version: int) -> None:
    """Half a model is not a model: raise RuntimeError naming what is missing or extra."""
    missing, extra = sorted(expected - set(arrived)), sorted(set(arrived) - expected)
    if missing or extra:
        raise RuntimeError(
            f"weights version {version} do not match the checkpoint: missing {missing[:3]} ({len(missing)}), unexpected {extra[:3]} ({len(extra)})"
        )
