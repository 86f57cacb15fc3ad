"""DLER on the tiny reasoner, several seeds: accuracy and tokens before and after, paired over held-out problems.

    python benchmarks/dler.py --seeds 0 1 2

All seeds start from the quickstart's cold-started reasoner (made if it is not cached); the seed decides prompts, sampling and evaluation. Wanted: mean
tokens at least 60 % lower at T 0.6, and the lower end of the paired 95 % interval of accuracy above -1 point.
What it does not show: how the method does on a model that was not made for it. Prints the rows of docs/results.md.
"""

from __future__ import annotations

import subprocess
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from _measure import accuracy_cells, token_cells, trained

from launch.stages import starting_checkpoint
from recipes.loader import load


def run(seed: int, start: Path, runs: Path, overrides: list[str]) -> tuple[Path, float]:
    """Train with one seed; the run folder and its wall-clock seconds."""
    name = f"dler-seed-{seed}"
    words = [f"name={name}", f"seed={seed}", f"model.path={start}", "stages=[rl, eval]", *overrides]
    began = time.monotonic()
    command = [str(Path(sys.executable).with_name("laconic")), "train", "quickstart", *words, "--overwrite", "--runs", str(runs)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return runs / name, time.monotonic() - began


def row(seed: int, folder: Path, seconds: float) -> tuple[str, bool]:
    """A line of the table, and whether both wishes hold."""
    last = load(str(folder / "recipe.yaml")).train.steps
    found = trained(*(folder / "evals" / f"step-{step}.json" for step in (0, last)))
    cells = [
        str(seed),
        *accuracy_cells(found.accuracy),
        *token_cells(found.tokens),
        f"{found.before.truncated:.1%} / {found.after.truncated:.1%}",
        f"{seconds:.0f}",
    ]
    return "| " + " | ".join(cells) + " |", found.tokens[2] <= -0.6 and found.accuracy[3] > -0.01


def main() -> None:
    options = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--runs", type=Path, default=Path("runs"))
    options.add_argument("overrides", nargs="*", help="changes to the recipe, e.g. train.steps=100")
    args: Any = options.parse_intermixed_args()
    start = starting_checkpoint(load("quickstart"))
    done = [row(seed, *run(seed, start, args.runs, args.overrides)) for seed in args.seeds]
    print("| seed | accuracy before | after | difference, points | tokens before | after | difference | cut before / after | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(line for line, _ in done))
    print(f"{sum(holds for _, holds in done)} of {len(done)} seeds reach both: tokens -60 % and accuracy's lower end above -1 point")


if __name__ == "__main__":
    main()
