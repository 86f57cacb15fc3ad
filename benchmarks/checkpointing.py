"""A step that ends with a checkpoint against a step without one, at about 0.8M and 25M parameters: what saving costs the critical path.

Random fp32 Qwen3 models; a step is `Learner.update` on random rows, one rank (DeepSpeed, ZeRO-2). Three sides in turns:

    without     the update
    background  the update, then `checkpoint.Background.write`, as a run saves: the step waits for the ranks that write their state, and for what
                is left of the checkpoint before; the rest is beside the next update
    at once     the update, then `checkpoint.write`: all of it is waited for

    python benchmarks/checkpointing.py [--rounds 5] [--sizes 0.8M 25M] [--json checkpointing.json]

`waited` is what the step waits for behind its update. The disk is that of the temporary folder (TMPDIR). It does not show engines that sample beside the
sealing, several ranks, GPUs, network file systems, or a checkpoint that is larger than the memory that the system lends to unwritten files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
from _measure import Row, column, in_turns, machine, parser, print_table, ratio, sentence, spread, timed, write_json
from push import SIZES, random_checkpoint
from transformers.utils.logging import disable_progress_bar

from launch.ray_start import start_ray, stop_ray
from recipes.loader import load
from recipes.schema import Recipe
from rl import checkpoint, policy
from rl.learner import Learner

TOKENS = {"0.8M": (128, 128), "25M": (48, 128), "100M": (32, 128)}  # rows, tokens of each: updates of some seconds


def rows(count_: int, tokens: int) -> list[policy.Row]:
    """Random ones."""
    rng = np.random.default_rng(0)

    def drawn(size: int) -> np.ndarray:
        return rng.integers(5, 40, size).astype(np.int32)

    behaviour, weight = np.full(tokens, -4.5, np.float32), np.asarray(1 / (count_ * tokens))
    return [policy.Row(str(n), drawn(16), drawn(tokens), behaviour, np.asarray(rng.normal()), weight) for n in range(count_)]


def measured(recipe: Recipe, start: Path, given: list[policy.Row], out: Path, rounds: int) -> tuple[dict[str, list[Row]], int]:
    """Seconds of a step of each side, and of them what was waited for behind the update; bytes of a checkpoint."""
    numbers, learner = count(1), Learner(recipe, start, "cpu")
    sizes: list[int] = []
    learner.wait_ready()

    def step(save: Callable[[Path], None]) -> Row:
        update, _ = timed(lambda: learner.update([given], 0))
        folder = out / f"step-{next(numbers)}"
        waited, _ = timed(lambda: save(folder))
        sizes.extend(sum(path.stat().st_size for path in folder.rglob("*")) for folder in checkpoint.finished(out)[-1:])
        return {"seconds": update + waited, "waited": waited}

    with checkpoint.Background() as writer:

        def beside(folder: Path) -> None:
            writer.write(folder, learner.save, {}, lambda: checkpoint.prune(out, 1))

        def at_once(folder: Path) -> None:
            writer.wait()
            checkpoint.write(folder, learner.save, {})
            checkpoint.prune(out, 1)

        def background() -> Row:
            """Two steps, of which the second is met by the sealing of the first."""
            step(beside)
            row = step(beside)
            writer.wait()
            return row

        measures = {"without": lambda: step(lambda folder: None), "background": background, "at once": lambda: step(at_once)}
        return in_turns(rounds, measures), max(sizes)


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["0.8M", "25M"], help="models to measure")
    args = options.parse_args()
    recipe = load("quickstart", overrides=["objective.kl.coef=0", "learner.ranks=1", "learner.zero_stage=2", "learner.lr=1e-9"])
    disable_progress_bar()
    facts = machine(recipe)
    start_ray(num_cpus=2, num_gpus=0)
    sizes: dict[str, dict[str, object]] = {}
    for name in args.sizes:
        table = []
        with tempfile.TemporaryDirectory() as folder:
            random_checkpoint(Path(folder), *SIZES[name])
            sides, bytes_ = measured(recipe, Path(folder), rows(*TOKENS[name]), Path(folder) / "checkpoints", args.rounds)
        without = column(sides["without"], "seconds")
        for side, each in sides.items():
            result = ratio(column(each, "seconds"), without)
            numbers = spread(column(each, "seconds")), spread(column(each, "waited")), f"{result['ratio']:.2f}"
            table.append([f"{name}, {bytes_ / 1e6:,.0f} MB, {side}", *numbers])
            sizes.setdefault(name, {})[side] = {**result, "bytes": bytes_, "rounds": each}
            if side == "background":
                words = f"{sentence(result)}, background / without at {name} parameters; no bound wanted"
        print_table(["", "step, s", "waited, s", "step / without"], table)
        print(words, flush=True)
    stop_ray()
    write_json(args.json, benchmark="checkpointing", sizes=sizes, machine=facts)


if __name__ == "__main__":
    main()
