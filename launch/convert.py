"""`laconic convert`: a run whose learner has other ranks or another ZeRO stage goes on from a checkpoint of one that has these.

Claim: what is made is a run folder like any other, with the record up to the checkpoint, the recipe that names the new ranks, and one checkpoint
(rl/conversion); `--resume` knows nothing of where it comes from. The run that it is made of stays as it is.
"""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer

from launch.doors import errors, say
from launch.machine import this_machine
from launch.memory import LIBRARIES, many, size, sizes_apart
from recipes.loader import dump, load, recipe_hash
from recipes.schema import Recipe
from recipes.steps import steps

# All else is the run's record.
_NOT_COPIED = shutil.ignore_patterns("checkpoints", "lock", "status.json", "report.*", "README.md", "accuracy.svg", "mirror.json")


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="checkpoints/step-N of a run.")],
    ranks: Annotated[int, typer.Option(min=1, help="Processes of the new learner (learner.ranks).")],
    zero_stage: Annotated[int, typer.Option(min=0, max=3, help="Its ZeRO stage (learner.zero_stage).")],
    to: Annotated[Path, typer.Option("--out", help="New run folder, which resumes from the checkpoint.")],
) -> None:
    """Make of a checkpoint a run that goes on with other learner ranks, or by another ZeRO stage; the optimiser's state is kept to the bit."""
    with errors():
        made = converted_run(checkpoint, to, ranks, zero_stage)
        say(f"{made} holds it for {many(ranks, 'rank')} with ZeRO-{zero_stage}, compared to the bit. Go on:")
        say(shlex.join(["laconic", "train", f"{to}/recipe.yaml", "--runs", str(to.parent), "--resume"]))


def converted_run(source: Path, out: Path, ranks: int, zero_stage: int) -> Path:
    """Make the run folder `out`; its checkpoint.
    Raises ConversionError, RecipeError, CheckpointError, RunError: it cannot be converted, said before anything starts; or was not, and `out` is not there."""
    from rl.checkpoint import metadata
    from rl.conversion import ConversionError, convertible
    from rl.run import recorded_until

    if ":/" in str(source):
        raise ConversionError(
            f"{source}: name a checkpoint in a folder; what `report` fetched of a URL holds none, so copy the run here first"
        )
    run = source.resolve().parent.parent
    if source.resolve().parent.name != "checkpoints" or not (run / "recipe.yaml").is_file():
        raise ConversionError(f"{source} is no checkpoint in a run's folder: name RUN/checkpoints/step-N")
    if run.parent.name == "stages":
        raise ConversionError(
            f"{source} is of a stage before the run's last training; convert a checkpoint of {run.parent.parent}/checkpoints"
        )
    if out.resolve().is_relative_to(run):
        raise ConversionError(f"--out: {out} lies in the run that is copied, {run}; name a folder beside it")
    if out.exists():
        raise ConversionError(f"{out} exists already: choose another folder for the converted run (--out)")
    convertible(source)
    meta = metadata(source)
    recorded_until(run, meta["step"])
    state, weights = (sum(file.stat().st_size for file in source.glob(pattern)) for pattern in ("learner/**/*", "*.safetensors"))
    for count, stage in ((meta["ranks"], meta["zero_stage"]), (ranks, zero_stage)):
        needed = count * (LIBRARIES["learner"] + weights) + state * (1 if stage else count) + state  # which one of them has whole
        if needed > (room := this_machine().memory):
            takes, has = sizes_apart(needed, room)
            fewer = ", or to fewer ranks (--ranks)" if (count, stage) == (ranks, zero_stage) else ""
            raise ConversionError(
                f"{many(count, 'rank')} with ZeRO-{stage} take {takes} here ({size(LIBRARIES['learner'] + weights)} each, and the optimiser's state of {size(state)} beside "
                f"them), and {has} are free: convert it on a machine with more{fewer}"
            )
    recipe, trained = _converted_recipe(run, out.resolve().name, ranks, zero_stage)
    from launch.ray_start import start_ray, stop_ray

    out.parent.mkdir(parents=True, exist_ok=True)
    start_ray(num_cpus=ranks, num_gpus=0)
    try:
        return _made(source, run, out, recipe, trained)
    finally:
        stop_ray()


def _converted_recipe(run: Path, name: str, ranks: int, zero_stage: int) -> tuple[Recipe, Recipe]:
    """The recipe of the new run, as it stands and with the changes of the stage that trains."""
    from rl.conversion import ConversionError

    words = [f"name={json.dumps(name)}", f"learner.ranks={ranks}", f"learner.zero_stage={zero_stage}"]
    recipe = load(str(run / "recipe.yaml"), overrides=words)
    trained = next(step.recipe for step in steps(recipe) if step.own)
    learner = trained.learner
    if (learner.ranks, learner.zero_stage) != (ranks, zero_stage):
        raise ConversionError(
            f"{run}/recipe.yaml: the changes of its stage say {learner.ranks} ranks with ZeRO-{learner.zero_stage}, which hold whatever the recipe says; "
            "name these, or begin a run anew"
        )
    return recipe, trained


def _made(source: Path, run: Path, out: Path, recipe: Recipe, trained: Recipe) -> Path:
    from rl.conversion import convert as convert_checkpoint
    from rl.run import forget_behind, truncate
    from rl.scratch import scratch_folder

    with scratch_folder(".tmp-convert-", out.parent) as scratch:
        folder = Path(scratch) / "run"
        shutil.copytree(run, folder, ignore=lambda here, names: _NOT_COPIED(here, names) if Path(here) == run else ())
        there, learner = folder / "checkpoints" / source.resolve().name, trained.learner
        made = convert_checkpoint(source.resolve(), there, trained, learner.ranks, learner.zero_stage, {"recipe": recipe_hash(recipe)})
        truncate(folder, step := int(made.name.removeprefix("step-")))
        forget_behind(folder, recipe)
        (folder / "recipe.yaml").write_text(dump(recipe), encoding="utf-8")
        status = {"state": "stopped", "reason": f"converted from {source}", "step": step, "checkpoint": made.name}
        (folder / "status.json").write_text(json.dumps(status), encoding="utf-8")
        folder.rename(out)
    return out / "checkpoints" / made.name
