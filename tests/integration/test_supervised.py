"""Supervised stages with TRL's real trainers: what learns and what does not, the same bytes after a kill, and an ordinary checkpoint out."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipes.adapters import Lora
from rewards.rows import DataError
from rl import checkpoint
from rl.adapters import ADAPTER, merge_adapter
from rl.supervised import Training, by_length, dpo, drawn, fitting, micro_batch_rows, sft
from rollout.types import Example, Preference

HOW = Training("stages[1] (sft)", batch=4, lr=3e-3, seed=0, checkpoint_every=2, limit=90)
DRAW = Random(0)


def _ids(least: int, most: int) -> list[int]:
    return [DRAW.randrange(5, 40) for _ in range(DRAW.randint(least, most))]


ROWS = [Example([2, *_ids(2, 6), 3], [*_ids(1, 9), 1]) for _ in range(12)]
PAIRS = [Preference(row.prompt_ids, row.ids, [*_ids(12, 15), 1]) for row in ROWS]
ORDER, PAIR_ORDER = drawn([ROWS], [1.0], 0, 4, epochs=2), drawn([PAIRS], [1.0], 0, 4, epochs=2)

Stage = Callable[[Path, Path, Training, Callable[[int, int, float], None] | None], Path]
STAGES: dict[str, Stage] = {
    "sft": lambda start, folder, how, progress: sft(start, folder, ORDER, how, progress),
    "dpo": lambda start, folder, how, progress: dpo(start, folder, PAIR_ORDER, 0.1, how, progress),
}


def _logp(folder: Path, prompt_ids: list[int], ids: list[int]) -> float:
    """Of an answer, nats."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    sequence = torch.tensor([[*prompt_ids, *ids]])
    with torch.no_grad():
        logp = model(sequence).logits[0, :-1].log_softmax(-1)
    return float(logp.gather(1, sequence[0, 1:, None])[len(prompt_ids) - 1 :].sum())


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("architecture", ["qwen3", "qwen2", "llama"])
def test_a_stage_leaves_an_ordinary_checkpoint_that_differs_from_its_start_in_its_weights_only(
    checkpoints: Callable[[str], Path], tmp_path: Path, stage: str, architecture: str
):
    start = checkpoints(architecture)
    made = STAGES[stage](start, tmp_path, HOW, None)
    assert made == tmp_path / "checkpoint" and [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert checkpoint.metadata(made) == {"stage": HOW.stage, "steps": 6, "rows": 24, "limit": 90}
    old, new = load_file(start / "model.safetensors"), load_file(made / "model.safetensors")
    assert old.keys() == new.keys() and any(not torch.equal(old[name], new[name]) for name in old)
    for file in start.iterdir():
        assert file.name == "model.safetensors" or (made / file.name).read_bytes() == file.read_bytes()
    assert AutoTokenizer.from_pretrained(made).chat_template


def test_what_is_to_be_answered_gets_likelier_and_the_prompt_does_not(tiny_checkpoint: Path, tmp_path: Path):
    """Loss on the prompt, too, would teach it as fast as the answer."""
    row = Example([2, 7, 11, 19, 8, 14, 30, 3], [9, 21, 17, 1])
    losses: list[float] = []
    made = sft(tiny_checkpoint, tmp_path, [row] * 80, HOW, lambda *said: losses.append(said[2]))
    first = -_logp(tiny_checkpoint, row.prompt_ids, row.ids) / len(row.ids)
    assert losses[0] == pytest.approx(first, abs=1e-3)  # the loss that TRL reports is that of the answer alone, in nats per token
    asked, answered = (
        _logp(made, before, then) - _logp(tiny_checkpoint, before, then)
        for before, then in ((row.prompt_ids[:1], row.prompt_ids[1:]), (row.prompt_ids, row.ids))
    )
    assert answered > 4 > 1 > asked


def test_dpo_starts_at_log_2_and_parts_the_chosen_from_the_rejected(tiny_checkpoint: Path, tmp_path: Path):
    losses: list[float] = []
    made = dpo(
        tiny_checkpoint, tmp_path, drawn([PAIRS], [1.0], 0, 4, epochs=10 * 4 / len(PAIRS)), 0.1, HOW, lambda *said: losses.append(said[2])
    )
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)

    def margin(folder: Path) -> float:
        return sum(_logp(folder, one.prompt_ids, one.chosen) - _logp(folder, one.prompt_ids, one.rejected) for one in PAIRS)

    assert margin(made) > margin(tiny_checkpoint) + 20 and losses[-1] < math.log(2)


LORA = replace(HOW, adapter=Lora(kind="lora", rank=4, targets=["q_proj", "down_proj"]))


@pytest.mark.parametrize(("stage", "how"), [("sft", HOW), ("dpo", HOW), ("sft", LORA), ("dpo", LORA)])
def test_a_stage_that_was_killed_goes_on_to_the_bytes_of_one_that_was_not(
    tiny_checkpoint: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, stage: str, how: Training
):
    whole = STAGES[stage](tiny_checkpoint, tmp_path_factory.mktemp("whole"), how, None)
    steps: list[int] = []

    def killed(step: int, *_: float) -> None:
        steps.append(step)
        if len(steps) in (1, 4):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            STAGES[stage](tiny_checkpoint, tmp_path, how, killed)
    made = STAGES[stage](tiny_checkpoint, tmp_path, how, killed)
    assert steps == [1, 1, 2, 3, 3, 4, 5, 6]  # there is a checkpoint after every second
    assert (made / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    if how is LORA:
        new, old = load_file(made / "model.safetensors"), load_file(tiny_checkpoint / "model.safetensors")
        moved = {name for name in old if not torch.equal(new[name], old[name])}
        assert moved == {name for name in old if name.endswith(("q_proj.weight", "down_proj.weight"))}
        out = tmp_path / "merged"
        assert merge_adapter(tiny_checkpoint, made / ADAPTER, out) == len(moved)
        for name, tensor in load_file(out / "model.safetensors").items():
            torch.testing.assert_close(tensor, new[name])
        refuse_adapters_that_do_not_fit(tiny_checkpoint, made / ADAPTER, tmp_path)


def refuse_adapters_that_do_not_fit(base: Path, adapter: Path, folder: Path) -> None:
    """Nothing is merged of an adapter of which some tensors would not arrive, or some layers get none."""
    config, tensors = json.loads((adapter / "adapter_config.json").read_text()), load_file(adapter / "adapter_model.safetensors")
    first = min(tensors)
    for words, change, given in (
        ("lacks base_model", {}, {name.replace("model.model", "transformer"): tensor for name, tensor in tensors.items()}),
        (f"lacks {re.escape(first)} \\(1 such\\)", {}, {name: tensor for name, tensor in tensors.items() if name != first}),
        ("has a tensor that the model has no place for", {"target_modules": ["q_proj"]}, tensors),
        ("lacks .*magnitude", {"use_dora": True}, tensors),
        ("is no adapter of", {"modules_to_save": ["lm_head"]}, tensors),
        ("is no adapter of", {}, None),
    ):
        odd = folder / "odd"
        shutil.rmtree(odd, ignore_errors=True)
        odd.mkdir()
        (odd / "adapter_config.json").write_text(json.dumps(config | change))
        if given is None:
            (odd / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes()[:-9])
        else:
            save_file(given, odd / "adapter_model.safetensors")
        with pytest.raises(ValueError, match=words):
            merge_adapter(base, odd, folder / "none")
        assert not (folder / "none").exists()
    model = AutoModelForCausalLM.from_pretrained(base)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(folder / "tied")
    (odd / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["lm_head"]}))
    parts = {"A": torch.ones(4, model.config.hidden_size), "B": torch.ones(model.config.vocab_size, 4)}
    save_file({f"base_model.model.lm_head.lora_{name}.weight": tensor for name, tensor in parts.items()}, odd / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"moves the output head or the embedding of .*, which are one tensor there"):
        merge_adapter(folder / "tied", odd, folder / "none")


def test_a_finished_stage_is_not_done_again_and_a_broken_checkpoint_is_none(tiny_checkpoint: Path, tmp_path: Path):
    made = sft(tiny_checkpoint, tmp_path, ORDER, HOW)
    before = (made / "model.safetensors").read_bytes()
    assert sft(tiny_checkpoint, tmp_path, ORDER, HOW, lambda *_: pytest.fail("trained again")) == made
    (made / "model.safetensors").write_bytes(before[:-1])
    assert sft(tiny_checkpoint, tmp_path, ORDER, HOW) == made
    assert (made / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("stage", STAGES)
def test_micro_batches_change_memory_and_not_what_is_learned(tiny_checkpoint: Path, tmp_path: Path, stage: str):
    whole, parts = (
        load_file(
            STAGES[stage](tiny_checkpoint, tmp_path / str(tokens), replace(HOW, micro_batch_tokens=tokens), None) / "model.safetensors"
        )
        for tokens in (4096, 1)
    )
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("stage", STAGES)
def test_bf16_saves_bf16_and_learns_from_steps_that_bf16_alone_would_round_away(tiny_checkpoint: Path, tmp_path: Path, stage: str):
    how = replace(HOW, dtype="bf16", lr=1e-5, gradient_checkpointing=True, checkpoint_every=0)
    made = STAGES[stage](tiny_checkpoint, tmp_path, how, None)
    old, new = (load_file(folder / "model.safetensors") for folder in (tiny_checkpoint, made))
    assert {tensor.dtype for tensor in new.values()} == {torch.bfloat16}
    assert any(not torch.equal(old[name].bfloat16(), new[name]) for name in old)


def test_trainers_tell_nobody_of_the_run(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("HF_HUB_OFFLINE", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._telemetry._start_telemetry_thread", lambda: pytest.fail("a trainer calls the hub"))
    sft(tiny_checkpoint, tmp_path, ORDER[:4], HOW)


@pytest.mark.parametrize("stage", STAGES)
def test_a_lost_loss_stops_the_stage_in_words(tiny_checkpoint: Path, tmp_path: Path, stage: str):
    with pytest.raises(RuntimeError, match=r"stages\[1\] \(sft\): loss is nan at step \d of 6; lower its lr"):
        STAGES[stage](tiny_checkpoint, tmp_path, replace(HOW, lr=1e30), None)
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize(
    "stage", [lambda start, folder: sft(start, folder, [], HOW), lambda start, folder: dpo(start, folder, [], 0.1, HOW)]
)
def test_no_rows_are_nothing_to_learn_from(tiny_checkpoint: Path, tmp_path: Path, stage: Callable[[Path, Path], Path]):
    with pytest.raises(DataError, match=r"stages\[1\] \(sft\): there is nothing to learn from, not one row"):
        stage(tiny_checkpoint, tmp_path)


def test_rows_that_are_too_long_are_left_out_whole():
    rows = [Example([1, 2], [3]), Example([1], [2, 3, 4]), Example([1], [2])]
    assert fitting(rows, 3) == [rows[0], rows[2]]
    assert fitting([Preference([1], [2], [2, 3, 4]), Preference([1], [2, 3], [4])], 3) == [Preference([1], [2, 3], [4])]
    assert fitting(rows, 1) == []


def test_epochs_are_rounded_up_to_whole_batches():
    rows = [Example([1], [index]) for index in range(10)]
    assert len(drawn([rows], [1.0], 0, 4)) == 12
    assert len(drawn([rows], [1.0], 0, 5, epochs=0.5)) == 5
    order = drawn([rows], [1.0], 0, 5, epochs=2)
    assert sorted(row.ids[0] for row in order[:10]) == sorted(row.ids[0] for row in order[10:]) == list(range(10))
    assert order[:10] != order[10:] and drawn([rows], [1.0], 1, 5) != order[:10]


def test_several_sets_are_mixed_by_weight():
    few, many = [Example([1], [0])] * 3, [Example([1], [1])] * 40
    mixed = drawn([few, many], [1.0, 3.0], 0, 10, epochs=1000 / 43)
    assert sum(row.ids == [0] for row in mixed) == pytest.approx(250, abs=2)  # slates of 1,000 positions


def test_batches_hold_rows_of_about_equal_length():
    widths = [DRAW.randrange(1, 100) for _ in range(80)]
    order = by_length(widths, 8, Random(0))
    assert sorted(order) == list(range(80))
    assert max(max(part) - min(part) for part in ([widths[row] for row in order[first : first + 8]] for first in range(0, 80, 8))) < 40


@pytest.mark.parametrize(
    ("longest", "batch", "tokens", "rows"), [(100, 8, 800, 8), (100, 8, 799, 4), (100, 12, 650, 6), (900, 7, 800, 1), (1, 7, 5, 1)]
)
def test_a_micro_batch_is_a_divisor_of_the_batch_that_fits_the_tokens(longest: int, batch: int, tokens: int, rows: int):
    assert micro_batch_rows(longest, batch, tokens) == rows
