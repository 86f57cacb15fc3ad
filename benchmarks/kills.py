"""Random kills: driver, engine, learner rank and judge of a tiny run, at any time of it, resumed whenever it ends; then the record must be that of a run left alone.

    python benchmarks/kills.py                          # 200 kills on the reference engine: hours
    python benchmarks/kills.py --engine vllm --kills 50

A run of 8 steps is started, and killed in one of its processes (SIGKILL) at a time drawn by the seed and the kill's number, of all that it takes or within a step, again and again until it is finished. On the reference engine
its metrics (without clocks and restarts), all its rollouts and its last weights must then be, to the bit, those of the run that nobody touched; on vLLM, whose noise is not restored, prompts, limits,
schedules and positions must, with no group twice and none lost. Then the next run begins. One JSON line a kill and one a finished run goes to RUNS/kills-ENGINE.jsonl; what was stopped goes on there. A run that
does not go on twice in a row without a kill between, or whose record differs, ends the script with the seed: that is a bug. What it does not show: several machines, GPUs, power cuts.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
from _measure import print_table

STEPS = 8
OF_PROCESSES = {
    "engine": ("ray::ReferenceEngine", "ray::VllmEngine"),
    "learner rank": ("ray::LearnerRank",),
    "judge": ("rewards.verifier.judge_worker",),
}
KINDS = ("driver", *OF_PROCESSES)
GONE_S = 10.0  # within which nothing of a run that ended is left
CLOCKS = (
    "seconds/",
    "time",
    "tokens_per_s",
    "engines/",
    "learner/restarts",
    "publish/check",
    "gate/",
)  # and what a resumed run checks once more


def words(engine: str, name: str) -> list[str]:
    """The run's: small, with a controller, schedules and refills as state; on vLLM without refills, which follow from its noise."""
    own = (
        ["sampler.keep_groups=raw", "sampler.max_refills=1", "budget.kind=controller", "budget.within=0.05"]
        if engine == "reference"
        else ["sampler.keep_groups=all"]
    )
    return [
        "quickstart", f"name={name}", "stages=[rl]", "device=cpu", f"engine.kind={engine}", "engine.count=1", "learner.ranks=1", "judge.workers=1",
        "sampler.prompts=2", "sampler.group_size=4", "budget.limit=128", "budget.cut_stop=1.0", f"train.steps={STEPS}", "train.checkpoint_every=2",
        "train.samples_per_step=1000", "publish.check_every=3",
        "schedule={learner.lr: {kind: linear, share: 0.5}, objective.clip_high: {kind: decays, share: 0.5, count: 4}}", *own,
    ]  # fmt: skip


class Life:
    """A run from its start or resume to its end or death."""

    def __init__(self, folder: Path, engine: str):
        resume = "--resume" if (folder / "recipe.yaml").exists() else "--overwrite"
        command = [sys.executable, "-m", "launch", "train", *words(engine, folder.name), resume, "--runs", str(folder.parent)]
        self.output = folder.parent / f"{folder.name}.log"
        with self.output.open("w") as output:
            self.process = psutil.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        self.began = time.monotonic()
        self._seen: dict[int, psutil.Process] = {}

    def goes_on(self, seconds: float = 0.0) -> bool:
        """Whether it lives for so long; what it started by then is known."""
        until = time.monotonic() + seconds
        while self.process.poll() is None:
            self._seen |= {one.pid: one for one in self._children()}
            if time.monotonic() >= until:
                return True
            time.sleep(min(0.5, max(0.0, until - time.monotonic())))
        return False

    def reaches(self, drawn: random.Random, seconds: float, folder: Path) -> bool:
        """Whether it lives to a time that is drawn: uniform over the seconds of a whole run, or after so many steps and then a part of one, each for half of the kills."""
        if drawn.random() < 0.5:
            return self.goes_on(drawn.uniform(0, seconds))
        wanted, part = drawn.randrange(STEPS), drawn.uniform(0, seconds / STEPS)
        while recorded(folder) < wanted:
            if not self.goes_on(0.5):
                return False
        return self.goes_on(part)

    def _children(self) -> list[psutil.Process]:
        try:
            return self.process.children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def of(self, kind: str) -> list[psutil.Process]:
        """Its processes of a kind."""
        if kind == "driver":
            return [self.process]
        found = []
        for one in self._children():
            try:
                if any(mark in " ".join(one.cmdline()) for mark in OF_PROCESSES[kind]):
                    found.append(one)
            except psutil.Error:
                continue
        return found

    def left(self) -> list[str]:
        """Its processes that are there some time after its end; they are killed."""
        _, there = psutil.wait_procs(list(self._seen.values()), timeout=GONE_S)
        names = []
        for one in there:
            try:
                names.append(" ".join(one.cmdline())[:80] or one.name())
                one.kill()
            except psutil.NoSuchProcess:
                continue
        return names


def record(folder: Path, engine: str) -> list[Any]:
    """What must be equal of two runs, by step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [pq.read_table(path).to_pylist() for path in sorted((folder / "samples").glob("*.parquet"))]
    if engine == "vllm":
        asked = [sorted((row["rollout"], row["problem_id"], row["sample"], row["limit"]) for row in step) for step in rows]
        names = ("step", "limit", "lr", "groups/sampled", "groups/trained", "prompts/too_long")
        return [[{name: line[name] for name in names} for line in lines], asked]
    weights = (folder / "checkpoints" / f"step-{STEPS}" / "model.safetensors").read_bytes()
    return [[{name: value for name, value in line.items() if not name.startswith(CLOCKS)} for line in lines], rows, weights]


def untouched(runs: Path, engine: str) -> tuple[Path, float]:
    """The run that nobody kills, and the seconds that it takes."""
    folder, timed = runs / f"kills-{engine}-alone", runs / f"kills-{engine}-alone.seconds"
    while not timed.exists():
        shutil.rmtree(folder, ignore_errors=True)
        life = Life(folder, engine)
        while life.goes_on(1.0):
            pass
        if life.process.returncode not in (0, 3):
            raise SystemExit(f"the run that nobody touched failed: {life.output.read_text()[-2000:]}")
        life.left()
        if "done before" in life.output.read_text():  # of the first run on a machine most is its cold start
            timed.write_text(str(time.monotonic() - life.began))
    return folder, float(timed.read_text())


def until_finished(folder: Path, engine: str, seed: str, first: int, most: int, seconds: float, keep: Any) -> int:
    """Kill a run until it is finished or there were as many kills as wanted, then let it end; the number of the next kill."""
    number, fails = first, 0
    while not finished(folder):
        life, last = Life(folder, engine), None
        while life.reaches(random.Random(f"{seed}-{number}"), seconds, folder) if number < most else life.goes_on(1.0):
            if number >= most:
                continue
            drawn = random.Random(f"{seed}-{number}-what")
            there = {kind: found for kind in KINDS if (found := life.of(kind))}
            kind = drawn.choice(sorted(there))
            if last:
                keep(last | {"outcome": "went on"})
            last = {
                "kill": number,
                "seed": seed,
                "run": folder.name,
                "what": kind,
                "after_s": time.monotonic() - life.began,
                "steps": recorded(folder),
            }
            drawn.choice(there[kind]).kill()
            number += 1
            if kind != "driver" and number < most:
                continue
            life.goes_on(seconds)
        code, left = life.process.wait(), life.left()
        ended = {"outcome": f"ended with {code}" if code not in (0, 3) else "went on", "left": left}
        if last:
            keep(last | ended)
        fails = 0 if last else fails + 1
        if fails == 2 and not finished(folder):
            raise SystemExit(f"{folder} does not go on, seed {seed}, behind kill {number - 1}: {life.output.read_text()[-3000:]}")
    return number


def recorded(folder: Path) -> int:
    """Steps in a run's record."""
    lines = folder / "metrics.jsonl"
    return lines.read_text().count("\n") if lines.exists() else 0


def finished(folder: Path) -> bool:
    """Whether a run says so itself."""
    status = folder / "status.json"
    return status.exists() and json.loads(status.read_text())["state"] in ("finished", "no-effective-update")


def main() -> None:
    options = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    options.add_argument("--engine", choices=["reference", "vllm"], default="reference")
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--seed", default="0")
    options.add_argument("--runs", type=Path, default=Path("runs"))
    args: Any = options.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    path = args.runs / f"kills-{args.engine}.jsonl"

    def keep(line: dict[str, Any]) -> None:
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    alone, seconds = untouched(args.runs, args.engine)
    expected = record(alone, args.engine)
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    number = 1 + max((line["kill"] for line in lines if "kill" in line), default=-1)
    done = sum("equal" in line for line in lines)
    while number < args.kills:
        folder = args.runs / f"kills-{args.engine}-{done}"
        number = until_finished(folder, args.engine, args.seed, number, args.kills, seconds, keep)
        equal = record(folder, args.engine) == expected
        keep({"run": folder.name, "equal": equal, "kills_so_far": number})
        if not equal:
            raise SystemExit(f"{folder} is not what {alone} is, seed {args.seed}, behind kill {number - 1}")
        done += 1
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kills = Counter((line["what"], line["outcome"]) for line in lines if "kill" in line)
    print_table(["killed", "outcome", "times"], [[what, outcome, str(count)] for (what, outcome), count in sorted(kills.items())])
    left = sum(len(line.get("left", ())) for line in lines)
    print(f"{done} runs finished, all with the record of the one left alone; {left} processes were there {GONE_S:.0f} s after an end")


if __name__ == "__main__":
    main()
