"""Every shipped recipe on the tiny reasoner: held-out accuracy and tokens before and after, one seed, the same start, paired intervals.

    python benchmarks/methods.py                  # all that trains, one row as it comes; goes on where it was stopped
    python benchmarks/methods.py kimi laser       # these

Rows are kept in RUNS/methods.jsonl; a recipe that has one is not run again. Before and after are a run's first and last evaluation. pass@4: problems with a right answer among four (– of fewer samples). Update: tokens that the loss
is of, in a mean step. The last column is what moved: limits, controller's share, Leash's multiplier, DECS' kappa, shares of rollouts, of tokens and of
closed and skipped thinking, first and last step. What it does not show: a method's published numbers, which are of other models, data and thousands of steps;
the tiny reasoner reads no instruction, so recipes that state a budget in the prompt do not state it here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from _measure import accuracy_cells, token_cells, trained

from evaluation.attempts import pass_at_k
from evaluation.results import Evaluation
from recipes.loader import load, shipped
from recipes.steps import steps

_HEAD = "| recipe | accuracy before | after | difference, points | pass@4 before | after | tokens before | after | difference | update | seconds | what moved |"
_MOVES = (
    "limit", "limit/rewarded", "budget/share", "budget/closed", "thinking/skipped", "reward/lambda", "selected", "tokens/kept", "credit/zero", "credit/kappa",
)  # fmt: skip


def run(recipe: str, runs: Path, overrides: list[str]) -> dict[str, Any]:
    """Train with one recipe; its row."""
    began = time.monotonic()
    laconic = str(Path(sys.executable).with_name("laconic"))
    words = [f"name=methods-{recipe}", "model.path=tiny", *overrides]
    done = subprocess.run(
        [laconic, "train", recipe, "--scale", "tiny", *words, "--overwrite", "--runs", str(runs)], stdout=sys.stderr, check=False
    )
    seconds = time.monotonic() - began
    if done.returncode:
        return {"recipe": recipe, "failed": done.returncode, "seconds": seconds}
    folder = runs / f"methods-{recipe}"
    evaluated = [step for step in steps(load(str(folder / "recipe.yaml"))) if any(stage.kind == "eval" for stage in step.recipe.stages)]
    files = [(evaluated[0], 0), (evaluated[-1], evaluated[-1].recipe.train.steps if evaluated[-1].recipe.trains else 0)]
    found = trained(*(step.folder(folder) / "evals" / f"step-{number}.json" for step, number in files))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "recipe": recipe,
        "accuracy": found.accuracy,
        "pass": [_pass(found.before), _pass(found.after)],
        "update": sum((step["tokens/trained"] or 0) * (step.get("tokens/kept") or 1.0) for step in lines) / len(lines),
        "tokens": found.tokens,
        "seconds": seconds,
        "moved": {name: [lines[0][name], lines[-1][name]] for name in _MOVES if lines[-1].get(name) is not None},
    }


def _pass(scores: Evaluation) -> float | None:
    """pass@4; None of fewer than four samples."""
    problems = scores.per_problem
    if min(one.samples for one in problems) < 4:
        return None
    return float(pass_at_k([one.samples for one in problems], [one.right for one in problems], 4).mean())


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    if "failed" in row:
        return f"| {row['recipe']} | exit code {row['failed']} | | | | | | | | | {row['seconds']:.0f} | |"
    moved = ", ".join(f"{name} {first:.3g} -> {last:.3g}" for name, (first, last) in row["moved"].items() if first != last)
    cells = [
        row["recipe"],
        *accuracy_cells(row["accuracy"]),
        *("–" if share is None else f"{100 * share:.1f} %" for share in row["pass"]),
        *token_cells(row["tokens"]),
        f"{row['update']:,.0f}",
        f"{row['seconds']:.0f}",
        moved,
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    options = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    options.add_argument("recipes", nargs="*", help="names (default: all that train)")
    options.add_argument("--runs", type=Path, default=Path("runs"))
    options.add_argument("--set", nargs="*", default=[], help="changes to every recipe, e.g. train.steps=100")
    args: Any = options.parse_args()
    names = args.recipes or [name for name in shipped() if name != "quickstart" and load(name).trains]
    args.runs.mkdir(parents=True, exist_ok=True)
    kept = args.runs / "methods.jsonl"
    rows = {row["recipe"]: row for row in map(json.loads, kept.read_text().splitlines())} if kept.exists() else {}
    print(f"{_HEAD}\n|{'---|' * (_HEAD.count('|') - 1)}", flush=True)
    for name in names:
        if name not in rows:
            rows[name] = run(name, args.runs, args.set)
            with kept.open("a") as file:
                file.write(json.dumps(rows[name]) + "\n")
        print(line(rows[name]), flush=True)


if __name__ == "__main__":
    main()
