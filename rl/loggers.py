"""Copies of metrics.jsonl for the eye: TensorBoard and W&B. Whoever calls them goes on when they fail (rl/run)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recipes.schema import Recipe


class TensorBoard:
    """The numbers of metrics.jsonl as TensorBoard events; opened at the first step, behind which a resumed run's old events are hidden."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # seconds of import that opening a run need not pay

            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class WandB:
    """The same numbers on Weights & Biases, a W&B run for each process that trains.

    W&B takes no step twice, so the steps that a resumed run does again would keep the numbers of the run that was killed. A resumed run is
    therefore a W&B run of its own in the group of the first, which begins with everything that metrics.jsonl holds: the numbers that count.
    """

    def __init__(self, project: str, recipe: Recipe, folder: Path) -> None:
        self._project, self._recipe, self._folder = project, recipe, folder
        self._run: Any = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._run is None:
            import wandb

            began = (
                json.loads((self._folder / "environment.json").read_text())["started"]
                if step == 0
                else time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            )
            self._run = wandb.init(
                project=self._project,
                group=self._recipe.name,
                name=self._recipe.name if step == 0 else f"{self._recipe.name}, resumed at {step}",
                id=f"{self._recipe.name}-{''.join(filter(str.isalnum, began))}-{step}",
                config=self._recipe.model_dump(mode="json"),
                dir=str(self._folder),
            )
            for line in (self._folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[:step]:
                earlier = json.loads(line)
                self._run.log({key: value for key, value in earlier.items() if key != "step" and value is not None}, step=earlier["step"])
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
