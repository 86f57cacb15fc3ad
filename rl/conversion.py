"""Checkpoints of other ranks: the same policy and the same optimiser, dealt to another number of processes or by another ZeRO stage.

Claim: what is resumed from a converted checkpoint goes on as the original would. Both sides are learners as they train, so DeepSpeed reads and
writes its own files, tensors only; between them the optimiser's state is whole (rl/sharding), and that which the new ranks hold is compared with the
old ones' to the bit before anything is written. Simplification: all of it passes through the memory of one process, 12 bytes a trained parameter.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open

from recipes.schema import Recipe
from rl import checkpoint
from rl.adapters import ADAPTER
from rl.learner import Learner
from rl.scratch import scratch_folder
from rl.start import placed, refuse_other
from rollout.tokenizer import copy_companions


class ConversionError(ValueError):
    """A checkpoint that cannot be converted, or was not converted faithfully."""


def convertible(source: Path) -> None:
    """Raises ConversionError or CheckpointError: `source` is no whole checkpoint of a training run that can be converted, or the model that its adapters are of
    is gone or another one."""
    checkpoint.verify(source)
    if not (source / "learner").is_dir() or "ranks" not in checkpoint.metadata(source):
        raise ConversionError(f"{source}: no learner's state in it, so there is nothing to convert; name checkpoints/step-N of a run")
    if (base := _base(source)) == source:
        return
    if not (base / "config.json").is_file():
        raise ConversionError(
            f"{source}: trains LoRA adapters of {base}, where no checkpoint is; put it back, or start a run from {source} (model.path)"
        )
    refuse_other(source, base)


def convert(source: Path, out: Path, recipe: Recipe, ranks: int, zero_stage: int, said: dict[str, object]) -> Path:
    """Write the checkpoint `source` as `out`, for a learner of so many ranks and that ZeRO stage. Ray must run.

    Args:
        recipe: that it was trained by.
        said: what the new manifest says otherwise, beside ranks and ZeRO stage.

    Raises:
        ConversionError: see `convertible`, or the new ranks hold other numbers.
        LearnerError, CheckpointError: reading or writing failed.
    """
    convertible(source)
    meta = checkpoint.metadata(source)
    out.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder("laconic-convert-", out.parent) as folder:
        old, new = Path(folder) / "old", Path(folder) / "new"
        learner = _learner(recipe, _base(source), meta["ranks"], meta["zero_stage"])
        try:
            learner.restore(source)
            learner.keep_state(old)
        finally:
            learner.stop()
        learner = _learner(recipe, _base(source), ranks, zero_stage)
        try:
            learner.take_state(old)
            learner.keep_state(new)
            if odd := differing(old, new):
                raise ConversionError(f"{source}: {odd} is not the same for {ranks} ranks with ZeRO-{zero_stage}; nothing was written")

            def fill(folder: Path) -> None:
                learner.save(folder)
                copy_companions(source, folder)

            return checkpoint.write(out, fill, meta | {"ranks": ranks, "zero_stage": zero_stage} | said)
        finally:
            learner.stop()


def differing(one: Path, other: Path) -> str:
    """The first tensor of two files of `Learner.keep_state` that is not equal to the bit; "" without any."""
    with safe_open(one, "pt") as old, safe_open(other, "pt") as new:
        if odd := sorted(set(old.keys()) ^ set(new.keys())):
            return odd[0]
        return next((name for name in sorted(old.keys()) if not old.get_tensor(name).equal(new.get_tensor(name))), "")


def _base(source: Path) -> Path:
    """Where a checkpoint's weights are but for those that the state holds: itself, or, of adapters, what they are of."""
    adapter = source / ADAPTER
    if not adapter.is_dir():
        return source
    try:
        settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        return placed(settings["base_model_name_or_path"], settings.get("revision"))
    except (OSError, ValueError, KeyError, TypeError):
        return adapter  # which says of none


def _learner(recipe: Recipe, source: Path, ranks: int, zero_stage: int) -> Learner:
    """On the CPU, with no more than the state depends on."""
    learner = recipe.learner.model_copy(update={"ranks": ranks, "zero_stage": zero_stage, "threads": 1})
    plain = Recipe.model_validate({"model": {"dtype": recipe.model.dtype}}).model_copy(update={"learner": learner})
    made = Learner(plain, source, "cpu")
    made.wait_ready()
    return made
