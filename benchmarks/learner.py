"""Our learner against a bare forward and backward pass: what DeepSpeed, Ray, objective and optimiser cost.

One step's rollouts are sampled from the checkpoint; then both sides go through the very same micro-batches (length-sorted, as ours
makes them) again and again, in turns, each in a Ray actor of its own with the same environment and number of threads.

    python benchmarks/learner.py [--rounds 9] [--limit 320] [--json learner.json]

learner: `Learner.update` with the quickstart's settings, one rank of two threads and no KL penalty, timed at the controller: rows to the actor and back, clipped
objective, entropy and statistics, gradient clipping and AdamW included.
learner with KL: the same with the recipe's penalty, for information: its reference model costs one more forward pass, which the bare
side does not have.
bare: the transformers model, logits, logprobs, `backward()`; no optimiser, timed inside its actor.

It does not show large vocabularies (benchmarks/head.py), several ranks, bf16, gradient checkpointing or a GPU
(benchmarks/gpu_learner.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
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
from transformers import AutoModelForCausalLM

from recipes.loader import load
from recipes.schema import Recipe
from rl import algorithm, policy
from rl.batching import micro_batches
from rl.learner import Learner
from rollout.collector import Collector

WANTED = 0.75


class BarePass:
    """Forward and backward of fixed micro-batches, as short as torch and transformers allow."""

    def __init__(self, checkpoint: Path, batches: Sequence[Sequence[policy.Row]], threads: int, temperature: float):
        torch.set_num_threads(threads)
        self._model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="sdpa").eval()
        self._batches, self._temperature = batches, temperature

    def run(self) -> Row:
        """Wall seconds of one pass over all micro-batches."""
        start = time.perf_counter()
        for rows in self._batches:
            batch = policy.padded(rows, "cpu")
            logits_BTV = self._model(input_ids=batch.ids, use_cache=False).logits
            logp_NV = torch.log_softmax(logits_BTV[:, :-1][batch.predicts] / self._temperature, dim=-1)
            logp_N = logp_NV.gather(-1, batch.targets[:, None]).squeeze(-1)
            (-logp_N * batch.advantage * batch.weight).sum().backward()
        self._model.zero_grad(set_to_none=True)
        return {"seconds": time.perf_counter() - start}


def sampled_rows(recipe: Recipe, collector: Collector) -> list[policy.Row]:
    """One step's rows, as the learner gets them."""
    [rows] = algorithm.prepare(collector.next().groups, recipe).updates
    return rows


def bare_actor(recipe: Recipe, start: Path, rows: Sequence[policy.Row]) -> Any:
    """A BarePass over our micro-batches, in the environment that `Learner` gives its ranks."""
    [batches] = micro_batches(np.array([row.tokens for row in rows]), recipe.learner.micro_batch_tokens, ranks=1)
    threads = recipe.learner.threads
    environment = {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "2000", "TQDM_DISABLE": "1"}
    actor: Any = ray.remote(BarePass)
    return actor.options(num_cpus=0, runtime_env={"env_vars": environment}).remote(
        start, [[rows[index] for index in batch] for batch in batches], threads, recipe.sampler.temperature
    )


def main() -> None:
    options = parser(__doc__, rounds=9)
    checkpoint_options(options)
    args = options.parse_args()
    one_rank = "learner.ranks=1", "learner.threads=2"  # as the bare side
    recipe, start = recipe_and_checkpoint(args, "objective.kl.coef=0", *one_rank)
    with_kl, _ = recipe_and_checkpoint(args, f"objective.kl.coef={load('quickstart').objective.kl.coef}", *one_rank)
    facts = machine(recipe)
    with sampler(recipe, start) as (pool, _, collector):
        rows = sampled_rows(recipe, collector)
        pool.stop()  # only the learners are measured
        learner, kl_learner = Learner(recipe, start, "cpu"), Learner(with_kl, start, "cpu")
        bare = bare_actor(recipe, start, rows)
        measured = in_turns(
            args.rounds,
            {
                "learner": lambda: {"seconds": timed(lambda: learner.update([rows], 0))[0]},
                "learner with KL": lambda: {
                    "seconds": timed(lambda: kl_learner.update(algorithm.measured([rows], with_kl.objective, kl_learner.measure), 0))[0]
                },
                "bare": lambda: ray.get(bare.run.remote()),
            },
        )
    seconds = {name: column(each, "seconds") for name, each in measured.items()}
    tokens = sum(row.tokens for row in rows)
    print(f"{len(rows)} rows, {tokens:,} tokens with their prompts, longest {max(row.tokens for row in rows)}")
    print_table(
        ["", "seconds", "tokens/s"],
        [[name, spread(each, 3), spread([tokens / second for second in each], 0)] for name, each in seconds.items()],
    )
    result = ratio(seconds["bare"], seconds["learner"])
    print(sentence(result, WANTED))
    print(f"for information, with the KL reference's forward pass: {sentence(ratio(seconds['bare'], seconds['learner with KL']))}")
    write_json(args.json, benchmark="learner", **result, wanted=WANTED, rounds=measured, tokens=tokens, limit=args.limit, machine=facts)


if __name__ == "__main__":
    main()
