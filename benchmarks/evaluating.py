"""Our evaluation against raw `LLM.generate`: what judging, keeping and scoring samples cost on top of vLLM.

Both sample the same prompts, equally often, up to the same limit, from the same checkpoint, each in a Ray actor of its own with the same
environment, engine settings and sampling parameters, neither with logprobs: one engine of two threads. They take turns; ours is asked first.

    python benchmarks/evaluating.py [--rounds 5] [--problems 200] [--samples 16] [--limit 320] [--json evaluating.json]

ours: `evaluate`, from handing in the requests to the two files of a finished evaluation, timed at the controller (Ray and judge included).
raw: one `LLM.generate` call, timed inside its actor.

It does not show answers that need symbolic judging (the tiny task's are integers), several engines, a GPU, or models so large that Python's
share of the time vanishes. Samples are random: both sides' lengths differ a little.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import ray
from _measure import Row, checkpoint_options, column, in_turns, machine, parser, print_table, ratio, sentence, spread, timed, write_json
from collector import THREADS, WANTED, RawEngine

from evaluation.evaluate import evaluate
from launch.evaluate import Question, jobs, recipe_for
from launch.memory import context
from launch.plan import plan
from launch.stages import starting_checkpoint
from recipes.loader import load
from rollout.scorer import Scorer
from rollout.variables import engine_environment


def main() -> None:
    options = parser(__doc__, rounds=5)
    checkpoint_options(options)
    options.add_argument("--problems", type=int, default=200, help="held-out problems of the tiny task (default 200)")
    options.add_argument("--samples", type=int, default=16, help="samples of a problem (default 16)")
    args = options.parse_args()
    start = args.checkpoint or starting_checkpoint(load("quickstart"))
    sizes = (f"eval.problems={args.problems}", f"eval.samples={args.samples}", f"eval.max_tokens={args.limit}")
    question = Question((*sizes, "engine.count=1", f"engine.threads={THREADS}", "device=cpu"))
    with tempfile.TemporaryDirectory() as folder, jobs({str(start): Path(folder)}, question) as (judge, [job]):
        [asked], made = job.asked, plan(recipe_for(str(start), question)[0])
        recipe = made.recipe
        facts = machine(recipe)
        with job.pool(job.parts) as pool:
            actor: Any = ray.remote(RawEngine)
            raw = actor.options(num_cpus=0, runtime_env={"env_vars": engine_environment(THREADS, "cpu")}).remote(
                start, recipe.model.dtype, "cpu", context(recipe), job.template.stop_ids, 1, made.engine
            )

            def ours() -> Row:
                asked.forget()
                seconds, [(_, scores)] = timed(lambda: list(evaluate(job.asked, pool, Scorer(judge, job.template))))
                return {"seconds": seconds, "tokens": scores.tokens.mean * asked.parts.rollouts}

            rows = in_turns(args.rounds, {"ours": ours, "raw": lambda: ray.get(raw.generate.remote(asked.requests, False))})
    speeds = {name: [row["tokens"] / row["seconds"] for row in each] for name, each in rows.items()}
    count = args.problems * args.samples
    print_table(
        ["", "tokens/s", "seconds", "tokens a sample"],
        [
            [name, spread(speeds[name], 0), spread(column(each, "seconds")), spread([row["tokens"] / count for row in each], 1)]
            for name, each in rows.items()
        ],
    )
    result = ratio(speeds["ours"], speeds["raw"])
    print(sentence(result, WANTED))
    write_json(args.json, benchmark="evaluating", **result, wanted=WANTED, rounds=rows, limit=args.limit, machine=facts)


if __name__ == "__main__":
    main()
