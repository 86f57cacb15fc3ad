"""Predicted against measured: a step of the tiny scale with 1 and 2 engines, 1 and 2 ranks, by a simulation that was calibrated on one of them.

    python benchmarks/simulate.py                     # four runs, then the table
    python benchmarks/simulate.py --steps 12 --runs runs/again

Runs are of the quickstart, 16 prompts x 8 rollouts of at most 320 tokens with its filter and refills, and a learning rate too small to move lengths; they are
kept in RUNS and not done again. Each predicts all four: its own row says how well a run is described at all, the others are what counts.
The load that others put on the cores in each step, which engines notice (`engines/core`), is a part of what a step is predicted with: predicted is the mean over the
steps of a run, each under its load.
"""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from dataclasses import replace
from pathlib import Path
from statistics import mean

from _measure import print_table, write_json

from launch.forecast import Calibration, calibrate, forecast, others, work_of
from launch.plan import plan

SETTINGS = {f"{engines}x{ranks}": (engines, ranks) for engines in (1, 2) for ranks in (1, 2)}


def run(name: str, runs: Path, steps: int, checkpoint: str) -> Path:
    """The run of a setting, made if it is not there."""
    folder, (engines, ranks) = runs / f"simulate-{name}", SETTINGS[name]
    record = folder / "metrics.jsonl"
    if record.exists() and record.read_text().count("\n") >= steps:
        return folder
    words = [
        "stages=[rl]", "device=cpu", "sampler.prompts=16", "budget.limit=320", "learner.lr=1e-9", f"train.steps={steps}", f"model.path={checkpoint}",
        f"engine.count={engines}", f"learner.ranks={ranks}", f"name={folder.name}",
    ]  # fmt: skip
    command = [sys.executable, "-m", "launch", "train", "quickstart", *words, "--overwrite", "--runs", str(runs)]
    if (code := subprocess.run(command, stdout=sys.stderr, check=False).returncode) not in (
        0,
        3,
    ):  # 3: it taught nothing, as it was told to
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    return folder


def predicted(source: Calibration, target: Calibration) -> dict[str, float]:
    """Seconds of another run's mean step and of its parts by the trace of one, under the other's load."""
    work = work_of(plan(target.recipe))
    found = [forecast(source.trace, work, replace(target.layout, others=others(record, target.layout))) for record in target.records]
    parts = {name: mean(getattr(one.parts, name) for one in found) for name in ("sample", "update")}
    return parts | {"step": mean(one.mean for one in found), "engines": mean(one.shares[0] for one in found)}


def main() -> None:
    options = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=Path, default=Path("runs"))
    options.add_argument("--steps", type=int, default=10, help="of each run; the first does not count (default 10)")
    options.add_argument(
        "--checkpoint", default="tiny", help="Hugging Face folder (default: the quickstart's cold-started reasoner, made if not cached)"
    )
    options.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = options.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    found = {name: calibrate(run(name, args.runs, args.steps, args.checkpoint)) for name in SETTINGS}
    rows, numbers = [], []
    for source, one in found.items():
        for target, other in found.items():
            foreseen = predicted(one, other)
            measured = {name: mean(record[f"seconds/{name}"] for record in other.records) for name in ("step", "sample", "update")}
            busy = mean(record["engines/busy"] * record["seconds/sample"] / record["seconds/step"] for record in other.records)
            miss = foreseen["step"] / measured["step"] - 1
            load = other.layout.others
            numbers.append(
                {"from": source, "of": target, "load": load, "miss": miss, "predicted": foreseen, "measured": measured | {"engines": busy}}
            )
            seconds = [f"{foreseen[part]:.2f} / {measured[part]:.2f}" for part in ("step", "sample", "update")]
            rows.append([f"{source} -> {target}", f"{load:.1f}", *seconds, f"{foreseen['engines']:.0%} / {busy:.0%}", f"{miss:+.0%}"])
    print_table(["engines x ranks", "others want", "step s: predicted / measured", "sample", "update", "engines busy", "miss"], rows)
    misses = [abs(row["miss"]) for row in numbers if row["from"] != row["of"]]
    print(
        f"{sum(miss <= 0.2 for miss in misses)} of {len(misses)} predictions of another setting are within 20 %; the furthest is {max(misses):.0%} off"
    )
    write_json(args.json, rows=numbers)


if __name__ == "__main__":
    main()
