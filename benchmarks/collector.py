"""Our collector against raw `LLM.generate`: what judging, rewarding and streaming cost on top of vLLM.

Both sample the same prompts, equally often, up to the same limit, from the same checkpoint, each in a Ray actor of its own with the
same environment, engine settings and sampling parameters: one engine of two threads. They take turns; ours is asked first.

    python benchmarks/collector.py [--rounds 7] [--limit 320] [--json collector.json]

ours: `Collector.next`, from drawing the prompts to rewarded groups, timed at the controller (Ray and judge included).
raw: one `LLM.generate` call with the sampled tokens' logprobs, which training needs, timed inside its actor.
raw, no logprobs: the same without them, for information: this is what the logprobs cost vLLM, whoever asks for them.

It does not show answers that need symbolic judging (the tiny task's are integers), refills (all groups are kept), several engines, a
GPU, or models so large that Python's share of the time vanishes. Rollouts are random: both sides' lengths differ a little.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
from _measure import (
    Row,
    checkpoint_options,
    column,
    in_turns,
    machine,
    parser,
    print_table,
    ratio,
    recipe_and_checkpoint,
    sampler,
    sentence,
    spread,
    timed,
    write_json,
)

from launch.memory import context
from launch.plan import plan
from rollout.types import Request
from rollout.variables import engine_environment
from rollout.vllm_engine import VllmEngine

WANTED = 0.85
THREADS = 2


class RawEngine(VllmEngine):
    """vLLM with our engine's settings, without our way of calling it."""

    def generate(self, requests: Sequence[Request], logprobs: bool) -> Row:
        """Sample all requests in one call; wall seconds and sampled tokens."""
        prompts = [{"prompt_token_ids": list(request.prompt_ids)} for request in requests]
        params = [self._params(request) for request in requests]
        if not logprobs:
            for item in params:
                item.logprobs = None
        start = time.perf_counter()
        outputs = self._llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "tokens": sum(len(sample.token_ids) for output in outputs for sample in output.outputs)}


def main() -> None:
    options = parser(__doc__, rounds=7)
    checkpoint_options(options)
    args = options.parse_args()
    recipe, start = recipe_and_checkpoint(args, "engine.count=1", f"engine.threads={THREADS}")
    facts = machine(recipe)
    with sampler(recipe, start) as (pool, stream, collector):
        actor: Any = ray.remote(RawEngine)
        raw = actor.options(num_cpus=0, runtime_env={"env_vars": engine_environment(THREADS, "cpu")}).remote(
            start, recipe.model.dtype, "cpu", context(recipe), stream.template.stop_ids, 1, plan(recipe).engine
        )
        pool.wait_ready()
        requests: list[Request] = []

        def ours() -> Row:
            seconds, collected = timed(collector.next)
            requests[:] = [group.request for group in collected.groups]
            return {"seconds": seconds, "tokens": collected.metrics["tokens/sampled"]}

        rows = in_turns(
            args.rounds,
            {
                "ours": ours,
                "raw": lambda: ray.get(raw.generate.remote(requests, True)),
                "raw, no logprobs": lambda: ray.get(raw.generate.remote(requests, False)),
            },
        )
    speeds = {name: [row["tokens"] / row["seconds"] for row in each] for name, each in rows.items()}
    print_table(
        ["", "tokens/s", "seconds", "tokens a rollout"],
        [[name, spread(speeds[name], 0), spread(column(each, "seconds")), _lengths(each, args.prompts * 8)] for name, each in rows.items()],
    )
    result = ratio(speeds["ours"], speeds["raw"])
    print(sentence(result, WANTED))
    print(f"for information, against raw without logprobs: {sentence(ratio(speeds['ours'], speeds['raw, no logprobs']))}")
    write_json(args.json, benchmark="collector", **result, wanted=WANTED, rounds=rows, limit=args.limit, machine=facts)


def _lengths(rows: Sequence[Row], rollouts: int) -> str:
    return spread([row["tokens"] / rollouts for row in rows], 1)


if __name__ == "__main__":
    main()
