"""`laconic convert` refuses what cannot be converted before anything starts; that it converts is shown with real ranks (integration, faults)."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from evaluation.report import FORMATS
from launch.cli import app
from launch.convert import converted_run
from launch.machine import Machine
from launch.memory import LIBRARIES
from recipes.loader import RecipeError, dump
from recipes.schema import Recipe
from rl import checkpoint
from rl.checkpoint import CheckpointError
from rl.conversion import ConversionError, convertible, differing
from rl.run import Run, RunError


def run_with_checkpoint(folder: Path, parts: tuple[str, ...] = ("learner",), ranks: int = 1, **changes: Any) -> Path:
    def fill(into: Path) -> None:
        for part in parts:
            (into / part).mkdir()

    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1}\n{"step": 2}\n')
    (folder / "recipe.yaml").write_text(dump(Recipe.model_validate({"name": folder.name} | changes)))
    return checkpoint.write(folder / "checkpoints" / "step-3", fill, {"step": 3, "ranks": ranks, "zero_stage": 2})


def test_what_cannot_be_converted_is_refused_in_a_sentence_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("launch.ray_start.start_ray", lambda **_: pytest.fail("Ray was started"))
    source, out = run_with_checkpoint(tmp_path / "a"), tmp_path / "out"
    refused = [
        (tmp_path / "absent", out, 2, 2, ConversionError, "absent is no checkpoint in a run's folder: name RUN/checkpoints/step-N"),
        (tmp_path / "a", out, 2, 2, ConversionError, "is no checkpoint in a run's folder"),
        (source, tmp_path / "a", 2, 2, ConversionError, "a lies in the run that is copied"),
        (source, tmp_path / "a" / "two", 2, 2, ConversionError, "two lies in the run that is copied"),
        (source, tmp_path / "b", 2, 2, ConversionError, "b exists already: choose another folder"),
        (source.with_name("step-9"), out, 2, 2, CheckpointError, "step-9: there is no manifest.json"),
        (run_with_checkpoint(tmp_path / "m", ()), out, 2, 2, ConversionError, "no learner's state in it"),
        (run_with_checkpoint(tmp_path / "l", ("learner", "adapter")), out, 2, 2, ConversionError, "trains LoRA adapters"),
        (source, out, 10_000, 2, ConversionError, r"10,000 ranks with ZeRO-2 take .* here \(.* each, .* and .* are free: convert it on a machine with more, or to fewer ranks"),
        (run_with_checkpoint(tmp_path / "t", ranks=10_000), out, 2, 2, ConversionError, "10,000 ranks .* convert it on a machine with more$"),
        (Path("file:///runs/a/checkpoints/step-3"), out, 2, 2, ConversionError, "name a checkpoint in a folder"),
        (run_with_checkpoint(tmp_path / "a" / "stages" / "rl"), out, 2, 2, ConversionError, "of a stage before the run's last training"),
        (run_with_checkpoint(tmp_path / "b", model={"dtype": "bf16"}), out, 1, 0, RecipeError, "would train without fp32 master weights"),
        (source, tmp_path / ".hidden", 2, 2, RecipeError, "cannot name a folder"),
        (
            run_with_checkpoint(tmp_path / "c", stages=[{"kind": "rl", "changes": {"learner": {"ranks": 3}}}]),
            out, 2, 2, ConversionError, "the changes of its stage say 3 ranks",
        ),
    ]  # fmt: skip
    for given, to, ranks, zero, kind, words in refused:
        with pytest.raises(kind, match=words):
            converted_run(given, to, ranks, zero)
    assert not out.exists()


def test_a_checkpoint_that_does_not_say_how_many_ranks_wrote_it_is_not_converted(tmp_path: Path):
    made = checkpoint.write(tmp_path / "step-3", lambda into: (into / "learner").mkdir(), {"step": 3})
    with pytest.raises(ConversionError, match="no learner's state in it"):
        convertible(made)


def test_states_are_compared_to_the_bit_tensor_by_tensor_on_both_sides(tmp_path: Path):
    one, other = tmp_path / "one", tmp_path / "other"
    for more, odd in [
        ({}, ""),
        ({"b": torch.ones(3)}, "b"),
        ({"a": torch.tensor([1.0, 2.0 + 2.0**-22])}, "a"),  # the next number of fp32
    ]:
        save_file({"a": torch.tensor([1.0, 2.0])}, one)
        save_file({"a": torch.tensor([1.0, 2.0])} | more, other)
        assert differing(one, other) == differing(other, one) == odd


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that checkpoints were converted for, by nobody."""
    recipes: list[Recipe] = []

    def converted(source: Path, out: Path, recipe: Recipe, *more: object) -> Path:
        recipes.append(recipe)
        return out

    monkeypatch.setattr("launch.ray_start.start_ray", lambda **_: None)
    monkeypatch.setattr("launch.ray_start.stop_ray", lambda: None)
    monkeypatch.setattr("rl.conversion.convertible", lambda source: None)
    monkeypatch.setattr("rl.conversion.convert", converted)
    return recipes


def test_the_learner_is_that_of_the_stage_with_its_changes(told: list[Recipe], tmp_path: Path):
    stages = [{"kind": "rl", "changes": {"learner": {"adapter": {"kind": "lora", "rank": 4}}}}]
    made = converted_run(run_with_checkpoint(tmp_path / "a", stages=stages), tmp_path / "out", 2, 3)
    assert made == tmp_path / "out/checkpoints/step-3" and (tmp_path / "out/recipe.yaml").is_file()
    assert (told[0].learner.adapter.kind, told[0].learner.ranks) == ("lora", 2)


@pytest.mark.parametrize(("zero", "ranks", "states"), [(2, 3, 2), (0, 3, 4)])
def test_ranks_are_counted_with_weights_and_the_state_that_each_or_all_hold(
    told: list[Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zero: int, ranks: int, states: int
):
    """Weights of 100 bytes a rank; of 1,000 bytes of state, ZeRO's ranks hold all once and others each, and beside them one has it whole."""
    source = run_with_checkpoint(tmp_path / "a")
    (source / "model.safetensors").write_bytes(bytes(100))
    (source / "learner" / "state").write_bytes(bytes(1000))
    needed = ranks * (LIBRARIES["learner"] + 100) + states * 1000
    monkeypatch.setattr("launch.convert.this_machine", lambda: Machine(8, needed - 1))
    with pytest.raises(ConversionError, match=f"3 ranks with ZeRO-{zero} take"):
        converted_run(source, tmp_path / "out", ranks, zero)
    monkeypatch.setattr("launch.convert.this_machine", lambda: Machine(8, needed))
    assert converted_run(source, tmp_path / "out", ranks, zero).is_relative_to(tmp_path / "out")


def test_the_record_ends_at_the_checkpoint_and_stages_behind_are_to_be_done_again(told: list[Recipe], tmp_path: Path):
    """Of a run of five steps, and what came behind; a merge that stayed would be taken for that of the weights to come."""
    named = [{"kind": "rl", "name": "first"}, {"kind": "rl"}, {"kind": "merge"}, {"kind": "eval", "name": "last"}]
    source = run_with_checkpoint(tmp_path / "a", stages=named)
    run, out = source.parent.parent, tmp_path / "out"
    (run / "metrics.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in range(5)))
    for name in (
        "samples/step-00002.parquet",
        "samples/step-00003.parquet",
        "evals/step-3.json",
        "evals/step-5.json",
        *(f"report.{form}" for form in FORMATS),
    ):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).touch()
    for name in ("first", "merge", "last"):
        (run / "stages" / name / "checkpoint").mkdir(parents=True)
    converted_run(source, out, 2, 2)
    assert (out / "metrics.jsonl").read_text().splitlines() == [f'{{"step": {step}}}' for step in range(3)]
    left = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.parent.name in ("samples", "evals", "stages")}
    assert left == {"samples/step-00002.parquet", "evals/step-3.json", "stages/first"} and not [*out.glob("report.*")]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 5 and len(list((run / "stages").iterdir())) == 3
    (run / "metrics.jsonl").write_text('{"step": 0}\n')
    with pytest.raises(RunError, match="step 1 is missing or cannot be read"):
        converted_run(source, tmp_path / "hole", 2, 2)
    assert not (tmp_path / "hole").exists()


def test_the_command_says_it_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = run_with_checkpoint(tmp_path / "l", ("learner", "adapter"))
    said = CliRunner().invoke(app, ["convert", str(source), "--ranks", "2", "--zero-stage", "2", "--out", str(tmp_path / "out")])
    assert said.exit_code == 1 and "trains LoRA adapters" in said.output
    said = CliRunner().invoke(app, ["convert", str(source), "--ranks", "0", "--zero-stage", "4", "--out", str(tmp_path / "out")])
    assert said.exit_code == 2
    monkeypatch.setattr("launch.convert.converted_run", lambda source, out, ranks, zero_stage: out / "checkpoints/step-3")
    said = CliRunner().invoke(app, ["convert", str(source), "--ranks", "2", "--zero-stage", "2", "--out", str(tmp_path / "it's [b]")])
    command = shlex.split(said.output.splitlines()[-1])
    assert command == ["laconic", "train", f"{tmp_path}/it's [b]/recipe.yaml", "--runs", str(tmp_path), "--resume"]


def test_p25_resuming_with_other_ranks_names_what_converts(tmp_path: Path):
    with Run.create(Recipe(name="a"), tmp_path):
        pass
    for learner in ({"ranks": 2}, {"zero_stage": 3}):
        with pytest.raises(RunError, match=r"learner\.\w+ \(was .*; of a checkpoint `laconic convert` makes a run with other ranks"):
            Run.create(Recipe.model_validate({"name": "a", "learner": learner}), tmp_path, resume=True)
    with pytest.raises(RunError) as refused:
        Run.create(Recipe(name="a", seed=1), tmp_path, resume=True)
    assert "convert" not in str(refused.value)
