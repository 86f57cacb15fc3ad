"""Supervised stages: a checkpoint folder, token ids and a few numbers in, a better checkpoint folder out, with TRL's own trainers.

Claim: what trains is what was sampled or rendered, id by id: rows arrive as ids, loss is on the answer alone, and no row is cut short; what is
too long is left out by the caller (`fitting`). Rows and their order are a function of the seed, and a checkpoint appears whole or not at all,
so a stage that was killed goes on to the bytes that it would have made.
Simplification: one process, one device; weights are fp32 while they train (bf16: autocast) and are saved in the dtype asked for.
"""

from __future__ import annotations

import copy
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeVar

import datasets
import torch
from huggingface_hub import constants
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from recipes.adapters import Adapter, FullWeights
from rewards.rows import DataError
from rl import checkpoint
from rl.adapters import adapted, save_model
from rollout.sources import blended
from rollout.tokenizer import copy_companions, load_tokenizer
from rollout.types import Example, Preference
from rollout.weights import DTYPES, load_model

constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL's trainers tell the hub of model, GPU and data, unless told not to

_SORTED_BATCHES = 50  # batches whose rows are sorted by length together
_PAD = 0  # masks come from lengths, so no pad id has a meaning

Progress = Callable[[int, int, float], None]
Item = TypeVar("Item", Example, Preference)


@dataclass(frozen=True)
class Training:
    """How a supervised stage trains.

    Attributes:
        stage: what messages call it: `stages[2] (sft)`.
        batch: rows (pairs) of an update.
        lr: its peak; linear warm-up over the first 5 % of the updates, then a cosine to 0.
        seed: of the order of batches.
        dtype: of the checkpoint that comes out.
        threads: of the CPU.
        micro_batch_tokens: most padded tokens that pass through the model at one time, but one row (pair) at least.
        gradient_checkpointing: recompute activations in the backward pass.
        checkpoint_every: updates between checkpoints to go on from; 0: none.
        limit: what the last rl stage before left (rl.state.left); None without one.
        adapter: what trains (rl/adapters).
    """

    stage: str
    batch: int
    lr: float
    seed: int
    dtype: Literal["fp32", "bf16"] = "fp32"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 2
    micro_batch_tokens: int = 4096
    gradient_checkpointing: bool = False
    checkpoint_every: int = 20
    limit: int | None = None
    adapter: Adapter = field(default_factory=FullWeights)


def fitting(rows: Sequence[Item], max_tokens: int) -> list[Item]:
    """The rows of which no sequence, prompt and answer together, exceeds `max_tokens`; none, perhaps."""
    return [row for row in rows if _width(row) <= max_tokens]


def drawn(sets: Sequence[Sequence[Item]], weights: Sequence[float], seed: int, batch: int, epochs: float = 1.0) -> list[Item]:
    """Rows in the order to train on them, `batch` for each step of as many as go through all rows `epochs` times, rounded up; never none.

    Each set is walked in seeded permutations, several are mixed by weight as training data are.

    Args:
        sets: none of them empty.
    """
    steps = max(1, math.ceil(epochs * sum(map(len, sets)) / batch - 1e-9))
    at = blended([len(rows) for rows in sets], weights, seed)
    return [sets[index][row] for index, row in map(at, range(steps * batch))]


def sft(start: Path, folder: Path, rows: Sequence[Example], how: Training, progress: Progress | None = None) -> Path:
    """Train on answers (TRL's SFTTrainer), `how.batch` rows an update, until all rows were seen; `folder`/checkpoint, whole or not there.

    Done already: returns at once. Begun already: goes on from the newest checkpoint in `folder`/trainer, which goes when the stage is done.

    Args:
        start: a Hugging Face folder.
        folder: the stage's own.
        rows: in order (`drawn`), at least one.
        progress: called with (updates done, updates in all, loss in nats per token) about a hundred times.

    Raises:
        DataError: there is no row.
        RuntimeError: the loss is not a number.
        CheckpointError: a checkpoint could not be written.
    """

    def trainer(model: Any, tokenizer: Any, dataset: Any, arguments: dict[str, Any]) -> SFTTrainer:
        config = _on_one_device(SFTConfig(**arguments, max_length=None))
        return SFTTrainer(model, config, DataCollatorForLanguageModeling(_PAD), dataset, processing_class=tokenizer)

    table = [{"input_ids": [*row.prompt_ids, *row.ids], "labels": [-100] * len(row.prompt_ids) + [*row.ids]} for row in rows]
    return _train(start, folder, table, [_width(row) for row in rows], 1, trainer, how, progress)


def dpo(start: Path, folder: Path, pairs: Sequence[Preference], beta: float, how: Training, progress: Progress | None = None) -> Path:
    """Train on pairs against the policy at `start` (TRL's DPOTrainer, sigmoid loss), as `sft` does; the loss begins at log 2.

    Args:
        beta: strength of the pull back to that policy.
    """

    def trainer(model: Any, tokenizer: Any, dataset: Any, arguments: dict[str, Any]) -> DPOTrainer:
        config = _on_one_device(DPOConfig(**arguments, max_length=None, beta=beta, precompute_ref_log_probs=True))
        return _DpoOnIds(
            model, None, config, DataCollatorForPreference(_PAD), dataset, processing_class=tokenizer
        )  # the policy itself is asked before it changes: no second model is held

    table = [{"prompt_ids": [*one.prompt_ids], "chosen_ids": [*one.chosen], "rejected_ids": [*one.rejected]} for one in pairs]
    return _train(start, folder, table, [_width(pair) for pair in pairs], 2, trainer, how, progress)


def _on_one_device(config: Any) -> Any:
    """The settings of a trainer that sees several GPUs and takes the first; by itself it would spread over all, which TRL refuses."""
    config._n_gpu = min(config.n_gpu, 1)
    return config


class _DpoOnIds(DPOTrainer):
    """TRL's, whose own preparation of data takes only text."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


def _train(
    start: Path,
    folder: Path,
    table: list[dict[str, list[int]]],
    widths: Sequence[int],
    sequences: int,
    make: Callable[[Any, Any, Any, dict[str, Any]], Any],
    how: Training,
    progress: Progress | None,
) -> Path:
    """See `sft`. `widths`: tokens of each row's longest sequence, of which it has `sequences`."""
    made, work = folder / "checkpoint", folder / "trainer"
    if not checkpoint.whole(made):
        if not table:
            raise DataError(f"{how.stage}: there is nothing to learn from, not one row; give it some")
        for left in folder.glob(f".tmp-{made.name}-*"):  # by a process that was killed while it wrote
            shutil.rmtree(left)
        order = by_length(widths, how.batch, Random(f"batches/{how.seed}"))
        steps = -(-len(table) // how.batch)
        rows = micro_batch_rows(max(widths) * sequences, how.batch, how.micro_batch_tokens)
        arguments = trainer_arguments(work, steps, rows, how.seed) | {
            "gradient_accumulation_steps": how.batch // rows,
            "learning_rate": how.lr,
            "warmup_steps": steps // 20,
            "use_cpu": how.device == "cpu",
            "bf16": how.dtype == "bf16",
            "gradient_checkpointing": how.gradient_checkpointing,
            "save_strategy": "steps" if how.checkpoint_every else "no",
            "save_steps": how.checkpoint_every or 1,
        }
        meta = {"limit": how.limit, "stage": how.stage, "steps": steps, "rows": len(table)}
        with cpu_threads(how.threads), _quiet():
            model = load_model(start, dtype=torch.float32)
            configs = copy.deepcopy(model.config), copy.deepcopy(model.generation_config)
            model = adapted(model, how.adapter, how.seed, start)
            trainer = make(model, load_tokenizer(start), datasets.Dataset.from_list(table).select(order), arguments)
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(Reporter(how.stage, "its lr", steps, progress))
            trainer.add_callback(_Keeper(work))
            trainer.train(resume_from_checkpoint=str(kept) if (kept := checkpoint.latest(work)) else None)
            model.config, model.generation_config = configs  # trainers write their own pad token there

            def fill(new: Path) -> None:
                save_model(model, new, DTYPES[how.dtype])
                copy_companions(start, new)

            checkpoint.write(made, fill, meta)
    shutil.rmtree(work, ignore_errors=True)
    return made


def _width(row: Example | Preference) -> int:
    return len(row.prompt_ids) + max(map(len, row[1:]))


def micro_batch_rows(tokens: int, batch: int, most_tokens: int) -> int:
    """Rows that pass through a model at one time: the largest divisor of `batch` of which the longest, of `tokens`, fit `most_tokens`; 1 at least."""
    return max(rows for rows in range(1, batch + 1) if batch % rows == 0 and (rows == 1 or rows * tokens <= most_tokens))


def by_length(widths: Sequence[int], batch: int, rng: Random) -> list[int]:
    """Row numbers in batches of about equal length, in random order: little padding, little change of what is learned when."""
    ordered: list[int] = []
    for start in range(0, len(widths), _SORTED_BATCHES * batch):
        part = sorted(range(start, min(start + _SORTED_BATCHES * batch, len(widths))), key=widths.__getitem__)
        batches = [part[first : first + batch] for first in range(0, len(part), batch)]
        rng.shuffle(batches)
        ordered += [row for some in batches for row in some]
    return ordered


def trainer_arguments(folder: Path, steps: int, rows: int, seed: int) -> dict[str, Any]:
    """What every trainer is told: rows as they come, a loss a hundred times, nothing printed and nothing reported elsewhere."""
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": rows,
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, steps // 20),
        "seed": seed,
        "train_sampling_strategy": "sequential",
        "logging_steps": max(1, steps // 100),
        "logging_nan_inf_filter": False,  # the filter would hide a lost loss behind the last good one
        "disable_tqdm": True,
        "report_to": "none",
        "dataloader_num_workers": 0,
    }


class Reporter(TrainerCallback):
    """Hands the loss on, and stops a trainer whose loss is lost.

    Args:
        stage, key: what it trains, and what sets its learning rate, for the message.
    """

    def __init__(self, stage: str, key: str, steps: int, progress: Progress | None) -> None:
        self.stage, self.key, self.steps, self.progress = stage, key, steps, progress

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:
            return
        if not logs["loss"] < float("inf"):
            raise RuntimeError(f"{self.stage}: loss is {logs['loss']} at step {state.global_step} of {self.steps}; lower {self.key}")
        if self.progress is not None:
            self.progress(state.global_step, self.steps, logs["loss"])


class _Keeper(TrainerCallback):
    """Turns what a trainer saves into checkpoints that are whole or invisible, of which the newest stays. Behind the last step none is needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_save &= state.global_step < state.max_steps

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        saved = self.folder / f"checkpoint-{state.global_step}"

        def fill(new: Path) -> None:
            for file in saved.iterdir():
                os.rename(file, new / file.name)

        kept = checkpoint.write(self.folder / f"step-{state.global_step}", fill)
        shutil.rmtree(saved, ignore_errors=True)
        for older in self.folder.iterdir():
            if older != kept and older.is_dir():
                shutil.rmtree(older)


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Torch on that many threads, for as long as the context lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of libraries, and of their words only errors: the stage has its own."""
    shown = not datasets.are_progress_bars_disabled(), logging.is_progress_bar_enabled()
    given, level = os.environ.get("TQDM_DISABLE"), logging.get_verbosity()
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    os.environ["TQDM_DISABLE"] = "1"  # read by TRL
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown[0]:
            datasets.enable_progress_bars()
        if shown[1]:
            logging.enable_progress_bar()
        os.environ.pop("TQDM_DISABLE")
        if given is not None:
            os.environ["TQDM_DISABLE"] = given
