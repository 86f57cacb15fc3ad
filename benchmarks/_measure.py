"""What the benchmarks share: two things measured in turns, their ratio with its spread, a model before and after training, and the facts of the machine.

Turns (A B A B ...) in one run let slow drifts of the machine hit both sides alike. Nothing here asserts: a number below what is wanted
is printed like any other.
"""

from __future__ import annotations

import json
import os
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from evaluation.measured import accuracy_change, length_change, of_evaluation
from evaluation.results import Evaluation
from evaluation.statistics import claim_interval
from launch.engines import engines
from launch.plan import plan
from launch.stages import starting_checkpoint
from recipes.loader import load
from recipes.schema import Recipe
from rewards.verifier.judge import Judge
from rl.environment import environment
from rollout.collector import Collector, PromptStream
from rollout.engine import EnginePool
from rollout.scorer import Scorer
from rollout.sources import training_source
from rollout.template import load_template

Row = dict[str, float]


def parser(description: str | None, rounds: int) -> ArgumentParser:
    """The options every benchmark has."""
    options = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=rounds, help=f"measured turns, after one that warms up (default {rounds})")
    options.add_argument("--json", type=Path, help="also write the numbers, with the machine's facts, to this file")
    return options


def checkpoint_options(options: ArgumentParser) -> None:
    """The options of benchmarks that sample from a checkpoint."""
    options.add_argument(
        "--checkpoint", type=Path, help="Hugging Face folder (default: the quickstart's cold-started reasoner, made if not cached)"
    )
    options.add_argument("--prompts", type=int, default=32, help="prompts of a step, 8 rollouts each (default 32)")
    options.add_argument("--limit", type=int, default=320, help="most tokens of a rollout (default 320)")


def recipe_and_checkpoint(args: Namespace, *overrides: str) -> tuple[Recipe, Path]:
    """The quickstart recipe with every sampled group kept and a learning rate too small to move the lengths; its start."""
    common = [f"sampler.prompts={args.prompts}", f"budget.limit={args.limit}", "sampler.keep_groups=all", "learner.lr=1e-9", "device=cpu"]
    recipe = load("quickstart", overrides=[*common, *overrides])
    return recipe, args.checkpoint.resolve() if args.checkpoint else starting_checkpoint(recipe)


@contextmanager
def sampler(recipe: Recipe, start: Path) -> Iterator[tuple[EnginePool, PromptStream, Collector]]:
    """Engines, prompts and collector of a recipe, as its rl stage has them; Ray runs as long as the context lasts."""
    template = load_template(start, recipe.data)
    with (
        Judge(recipe.judge.workers, recipe.judge.wall_s, recipe.judge.memory_mb) as judge,
        engines(plan(recipe), start, template) as (pool, _),
    ):
        stream = PromptStream(training_source(recipe.data, recipe.tiny, recipe.seed, judge.check_golds), template, recipe)
        yield pool, stream, Collector(pool, Scorer(judge, template), stream)


def in_turns(rounds: int, measures: Mapping[str, Callable[[], Row]]) -> dict[str, list[Row]]:
    """Every measure once a round, in their order, for `rounds` rounds after one that is dropped."""
    rows: dict[str, list[Row]] = {name: [] for name in measures}
    for turn in range(rounds + 1):
        for name, measure in measures.items():
            row = measure()
            if turn:
                rows[name].append(row)
    return rows


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Wall seconds of a call, and what it returned."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """The ratio of the medians; `low` and `high` are the extremes of the rounds' own ratios."""
    each = [a / b for a, b in zip(above, below, strict=True)]
    return {"ratio": median(above) / median(below), "low": min(each), "high": max(each)}


def column(rows: Sequence[Row], name: str) -> list[float]:
    """One number of every round."""
    return [row[name] for row in rows]


def spread(values: Sequence[float], digits: int = 2, unit: float = 1.0) -> str:
    """`median [min, max]`, multiplied by `unit`."""
    middle, low, high = (f"{unit * value:,.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} [{low}, {high}]"


def sentence(result: dict[str, float], wanted: float | None = None) -> str:
    """`ratio 0.93 (0.90 .. 0.95), wanted >= 0.85`."""
    words = f"ratio {result['ratio']:.2f} ({result['low']:.2f} .. {result['high']:.2f})"
    return words if wanted is None else f"{words}, wanted >= {wanted}"


class Trained(NamedTuple):
    """A model before and after training. `accuracy`, `tokens`: [before, after, change, low, high], paired over problems."""

    before: Evaluation
    after: Evaluation
    accuracy: list[float]
    tokens: list[float]


def trained(first: Path, last: Path) -> Trained:
    """Two evaluations, with the intervals that `laconic report` would claim by."""
    before, after = (Evaluation.model_validate_json(file.read_text()) for file in (first, last))
    old, new = of_evaluation(before), of_evaluation(after)
    accuracy, tokens = claim_interval(accuracy_change(new, old)), length_change(new, old)
    return Trained(before, after, [before.accuracy.mean, after.accuracy.mean, *accuracy], [before.tokens.mean, after.tokens.mean, *tokens])


def accuracy_cells(accuracy: Sequence[float]) -> list[str]:
    """`Trained.accuracy`, its change in points."""
    before, after, *change = (100 * one for one in accuracy)
    return [f"{before:.1f} %", f"{after:.1f} %", "{:+.1f} [{:+.1f}, {:+.1f}]".format(*change)]


def token_cells(tokens: Sequence[float]) -> list[str]:
    """`Trained.tokens`, its change in per cent."""
    before, after, *change = tokens
    return [f"{before:.1f}", f"{after:.1f}", "{:+.1f} % [{:+.1f}, {:+.1f}]".format(*(100 * one for one in change))]


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns wide enough for their longest entry; the first to the left, the others to the right."""
    widths = [max(map(len, entries)) for entries in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = [
            entry.ljust(width) if index == 0 else entry.rjust(width) for index, (entry, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def machine(recipe: Recipe) -> dict[str, Any]:
    """Hardware, versions and revision, and the load (1, 5, 15 minutes) before the benchmark adds its own: call it first."""
    facts = environment(recipe) | {"load_average": os.getloadavg()}
    load = facts["load_average"][0]
    print(f"{facts['cpus']} cores, load {load:.1f}{' (not quiet: numbers will be low and wide)' if load > 1 else ''}")
    return facts


def write_json(path: Path | None, **numbers: Any) -> None:
    """Write the numbers if a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
