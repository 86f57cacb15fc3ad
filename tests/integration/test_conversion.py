"""`laconic convert`: a checkpoint of other ranks and ZeRO stages holds the same numbers, and training goes on the same from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from recipes.schema import Recipe
from rl import checkpoint
from rl.conversion import ConversionError, convert, differing
from rl.learner import Learner
from tests.forked import Forked
from tests.integration.test_learner import LR, recipe, rows

LORA = {"adapter": {"kind": "lora", "rank": 4, "alpha": 8}}
LAYOUTS = {  # of a chain of conversions, by dtype and what trains: ranks, ZeRO stage
    "fp32": [(1, 0), (2, 2), (3, 3), (1, 1)],
    "bf16": [(2, 1), (1, 2)],
    "fp32 lora": [(2, 2), (1, 0), (2, 3)],
    "bf16 lora": [(1, 1), (2, 2)],
}


def of(layout: str, ranks: int, zero: int) -> Recipe:
    dtype, *lora = layout.split()
    return recipe(ranks, zero, 256, dtype, **(LORA if lora else {}))


def saved(folder: Path, tiny_checkpoint: Path, layout: str, ranks: int, zero: int) -> Path:
    """A checkpoint after two updates."""
    learner = Learner(of(layout, ranks, zero), tiny_checkpoint, "cpu")
    learner.update([rows(0), rows(1)], 0)
    checkpoint.write(folder, learner.save, {"ranks": ranks, "zero_stage": zero, "step": 1})
    learner.stop()
    return folder


def resumed(
    forked: Forked, folder: Path, tiny_checkpoint: Path, layout: str, state: Path
) -> tuple[dict[str, float | None], dict[str, torch.Tensor]]:
    """What a run that goes on from a checkpoint does: statistics and weights of its next update; what the optimiser held before goes into `state`."""
    meta = checkpoint.metadata(folder)
    learner = Learner(of(layout, meta["ranks"], meta["zero_stage"]), tiny_checkpoint, "cpu")
    learner.restore(folder)
    learner.keep_state(state)
    stats = learner.update([rows(2)], 1)
    weights = {name: packed.tensor().float() for name, packed in forked.get(learner.weights()[0]).items()}
    learner.stop()
    return stats, weights


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_converted_checkpoint_holds_the_same_state_to_the_bit_and_the_next_update_is_the_same(
    forked: Forked, tiny_checkpoint: Path, tmp_path: Path, layout: str
):
    first, *others = LAYOUTS[layout]
    last = original = saved(tmp_path / "step-1", tiny_checkpoint, layout, *first)
    expected, weights = resumed(forked, original, tiny_checkpoint, layout, tmp_path / "state")
    with safe_open(tmp_path / "state", "pt") as state:
        assert state.get_tensor("updates") == 2
        assert all(state.get_tensor(name).abs().sum() > 0 for name in state.keys())  # noqa: SIM118 - no mapping
    for ranks, zero in others:
        last = convert(last, tmp_path / f"{ranks}-{zero}", of(layout, *first), ranks, zero, {"recipe": "new"})
        meta = checkpoint.metadata(last)
        assert (meta["ranks"], meta["zero_stage"], meta["step"], meta["recipe"]) == (ranks, zero, 1, "new")
        stats, after = resumed(forked, last, tiny_checkpoint, layout, tmp_path / "again")
        assert differing(tmp_path / "state", tmp_path / "again") == ""
        for weights_file in original.rglob("*.safetensors"):  # of adapters too
            assert (last / weights_file.relative_to(original)).read_bytes() == weights_file.read_bytes(), weights_file
        for name in ("loss", "grad_norm", "entropy"):
            assert stats[name] == pytest.approx(expected[name], rel=1e-4 if layout.startswith("fp32") else 2e-2), name
        for name, tensor in weights.items():
            assert (tensor - after[name]).abs().max() < (0.05 * LR if layout.startswith("fp32") else 2**-7 * tensor.abs().max() + LR), name


def test_what_cannot_be_converted_is_refused_before_anything_starts(tmp_path: Path):
    def fill(folder: Path) -> None:
        (folder / "model.safetensors").touch()

    with pytest.raises(ConversionError, match="no learner's state in it"):
        convert(checkpoint.write(tmp_path / "merged", fill), tmp_path / "out", recipe(1, 0, 256), 2, 2, {})

    def fill_adapter(folder: Path) -> None:
        (folder / "learner").mkdir()
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "/gone"}')

    lora = checkpoint.write(tmp_path / "lora", fill_adapter, {"ranks": 1})
    with pytest.raises(ConversionError, match="trains LoRA adapters of /gone, where no checkpoint is"):
        convert(lora, tmp_path / "out", recipe(1, 0, 256), 2, 2, {})
    assert not (tmp_path / "out").exists()
