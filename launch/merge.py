"""`laconic merge`: what a training changed, or an adapter, on top of the checkpoint that it began with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from launch.doors import errors, say


def merge(
    base: Annotated[Path, typer.Argument(help="Checkpoint that the training began with.")],
    to: Annotated[Path, typer.Option("--out", help="New folder for the merged checkpoint.")],
    trained: Annotated[Path | None, typer.Argument(help="Checkpoint that it ended with.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Instead of TRAINED: a LoRA adapter of BASE, added in whole.")] = None,
    keep: Annotated[float | None, typer.Option(help="Share of entries to take over, largest changes first (0.25).")] = None,
    scale: Annotated[float | None, typer.Option(help="Factor on the changes taken over (0.7).")] = None,
    scope: Annotated[
        Literal["global", "tensor"] | None,
        typer.Option(help="Rank changes over the whole model (global, the default) or within each tensor (tensor)."),
    ] = None,
) -> None:
    """Update-selective merge (DLER, arXiv 2510.15110): BASE plus the largest changes of TRAINED; or BASE plus a LoRA adapter."""
    with errors():
        given: dict[str, Any] = {name: value for name, value in (("keep", keep), ("scale", scale), ("scope", scope)) if value is not None}
        if adapter is not None and trained is None:
            from rl.adapters import merge_adapter

            if given:
                raise ValueError(
                    f"{', '.join(f'--{name}' for name in given)}: an adapter is added in whole; leave it out, or merge two checkpoints"
                )
            say(f"{to}: {merge_adapter(base, adapter, to):,} layers moved by {adapter}")
            return
        if trained is None or adapter is not None:
            raise ValueError("merge: name a trained checkpoint behind BASE, or an adapter of it (--adapter FOLDER): one of the two")
        from recipes.stages import MergeStage
        from rl.merge import merge as make_merge
        from rl.merge import told

        how = MergeStage.model_construct(**given)  # a stage's defaults; what is odd, merge says
        say(told(make_merge(base, trained, to, how.keep, how.scale, how.scope), to))
