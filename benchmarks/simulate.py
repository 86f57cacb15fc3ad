"""Predicted against measured: a step of the tiny scale with 1 and 2 engines, 1 and 2 ranks, by a simulation that was calibrated on one of them.

    python benchmarks/simulate.py                     # four runs, then the table
    python benchmarks/simulate.py --steps 12 --runs runs/again

Runs are of the quickstart, 16 prompts x 8 rollouts of at most 320 tokens with its filter and refills, and a learning rate too small to move lengths; they are
kept in RUNS and not done again. Each predicts all four: its own row says how well a run is described at all, the other three are what counts.
Processes of others that want a core are measured while a run steps (what they got, by what the run's engines got of theirs), and predictions are made for that load.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from statistics import mean
from typing import Any

import psutil
from _measure import print_table, write_json

from launch.forecast import Forecast, calibrate, forecast, work_of
from launch.plan import plan

SETTINGS = {f"{engines}x{ranks}": (engines, ranks) for engines in (1, 2) for ranks in (1, 2)}


def run(name: str, runs: Path, steps: int, checkpoint: str) -> Path:
    """The run of a setting, made if it is not there, with `load.json`: what others got of the cores while it stepped."""
    folder, (engines, ranks) = runs / f"simulate-{name}", SETTINGS[name]
    if (folder / "load.json").exists():
        return folder
    words = [
        "stages=[rl]", "device=cpu", "sampler.prompts=16", "budget.limit=320", "learner.lr=1e-9", f"train.steps={steps}", f"model.path={checkpoint}",
        f"engine.count={engines}", f"learner.ranks={ranks}", f"name={folder.name}",
    ]  # fmt: skip
    command = [sys.executable, "-m", "launch", "train", "quickstart", *words, "--overwrite", "--runs", str(runs)]
    process = subprocess.Popen(command, stdout=sys.stderr)
    seen: list[dict[str, Any]] = []
    while process.poll() is None:
        lines = (folder / "metrics.jsonl").read_text().count("\n") if (folder / "metrics.jsonl").exists() else 0
        seen.append({"steps": lines, "at": time.monotonic(), "all": busy(), "own": own(process.pid)})
        time.sleep(0.5)
    if process.returncode not in (0, 3):  # 3: it taught nothing, as it was told to
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    stepping = [row for row in seen if 1 <= row["steps"] < steps]
    first, last = stepping[0], stepping[-1]
    seconds = last["at"] - first["at"]
    got = (last["all"] - first["all"] - last["own"] + first["own"]) / seconds
    write_json(folder / "load.json", seconds=seconds, others=got, own=(last["own"] - first["own"]) / seconds)
    return folder


def busy() -> float:
    """Seconds that all cores have worked."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.softirq + times.irq


def own(pid: int) -> float:
    """Seconds that a process and those it started have worked."""
    total = 0.0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            used = process.cpu_times()
            total += used.user + used.system
        except psutil.Error:
            continue
    return total


def predicted(source: Path, target: Path) -> tuple[Forecast, float]:
    """What the trace of a run says of another's step, under the other's load; and the seconds that it took."""
    trace = calibrate(source, load(source)).trace
    there = calibrate(target, load(target))
    work = work_of(plan(there.recipe))
    return forecast(trace, work, there.layout), mean(record["seconds/step"] for record in there.records)


def load(folder: Path) -> float:
    """Threads of others that wanted a core while a run stepped: what they got, by what engines got of theirs."""
    facts = json.loads((folder / "load.json").read_text())
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][1:]
    return facts["others"] / mean(record["engines/core"] for record in records)


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
    folders = {name: run(name, args.runs, args.steps, args.checkpoint) for name in SETTINGS}
    rows, numbers = [], []
    for source, folder in folders.items():
        for target, other in folders.items():
            found, seconds = predicted(folder, other)
            miss = found.mean / seconds - 1
            numbers.append({"from": source, "of": target, "predicted": found.mean, "measured": seconds, "load": load(other), "miss": miss})
            own = " (its own)" if source == target else ""
            rows.append([f"{source} -> {target}{own}", f"{load(other):.1f}", f"{found.mean:.2f}", f"{seconds:.2f}", f"{miss:+.0%}"])
    print_table(["engines x ranks: from -> of", "load", "predicted s", "measured s", "miss"], rows)
    others = [abs(row["miss"]) for row in numbers if row["from"] != row["of"]]
    print(
        f"{sum(miss <= 0.2 for miss in others)} of {len(others)} predictions of another setting are within 20 %; the furthest is {max(others):.0%} off"
    )
    write_json(args.json, rows=numbers)


if __name__ == "__main__":
    main()
