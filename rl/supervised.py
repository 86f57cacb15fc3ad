"""Supervised stages: a checkpoint folder, token ids and a few numbers in, a better checkpoint folder out, with TRL's own trainers.

Claim: what trains is what was sampled or rendered, id by id: rows arrive as ids, loss is on the completion alone, and no row is cut: one that
is too long is left out and counted by the caller (`fitting`). The row at a position is a function of seed and position, so a stage that was
killed goes on from its newest checkpoint to the bytes that it would have made.
Simplification: one process, one device; weights are fp32 while they train (bf16: autocast), and saved in the dtype asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from rollout.types import Example, Preference

Progress = Callable[[int, int, float], None]
Item = TypeVar("Item", Example, Preference)


@dataclass(frozen=True)
class Training:
    """How a supervised stage trains.

    Attributes:
        stage: what messages call it, `stages[2] (sft)`.
        steps: optimiser updates (see `steps_of`).
        batch: rows (pairs) of an update.
        lr: its peak; linear warm-up over the first 5 %, cosine to 0.
        seed: of the order of rows.
        dtype: of the checkpoint that comes out, "fp32" or "bf16".
        device: "cpu" or "cuda".
        threads: of the CPU.
        micro_batch_tokens: padded tokens that pass through the model at one time, at least one row.
        gradient_checkpointing: recompute activations in the backward pass.
        checkpoint_every: steps between checkpoints to resume from; 0: none.
    """

    stage: str
    steps: int
    batch: int
    lr: float
    seed: int
    dtype: Literal["fp32", "bf16"] = "fp32"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 2
    micro_batch_tokens: int = 4096
    gradient_checkpointing: bool = False
    checkpoint_every: int = 20


def steps_of(rows: int, batch: int, epochs: float) -> int:
    """Updates that go through `rows` rows `epochs` times, rounded up."""
    raise NotImplementedError


def fitting(rows: Sequence[Item], max_tokens: int) -> list[Item]:
    """The rows of which no sequence, prompt and answer together, exceeds `max_tokens`; the caller says how many do. May be empty."""
    raise NotImplementedError


def sft(start: Path, folder: Path, rows: Sequence[Example], how: Training, progress: Progress | None = None) -> Path:
    """Train on what is to be answered (TRL's SFTTrainer); `folder`/checkpoint, whole or not there.

    Done already: returns at once. Begun already: goes on from the newest checkpoint in `folder`/trainer, which goes when the stage is done.

    Args:
        start: a Hugging Face folder.
        folder: the stage's own.
        rows: at least one.
        progress: called with (steps done, steps in all, loss in nats per token) about a hundred times.

    Raises:
        RuntimeError: the loss is not a number.
        CheckpointError: a checkpoint could not be written.
    """
    raise NotImplementedError


def dpo(start: Path, folder: Path, pairs: Sequence[Preference], beta: float, how: Training, progress: Progress | None = None) -> Path:
    """Train on pairs against the starting policy (TRL's DPOTrainer, sigmoid loss); as `sft`. The loss begins at log 2.

    Args:
        beta: strength of the pull back to the starting policy, above 0.
    """
    raise NotImplementedError
