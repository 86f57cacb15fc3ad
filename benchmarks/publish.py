"""Publishing weights against a memcpy of the same bytes, at about 0.8M, 25M and 100M parameters.

Random fp32 Qwen3 models with the tiny task's vocabulary and tied head are made on the spot. A push is `Publisher.push`: weights out of
the DeepSpeed learner, a digest of every tensor on both sides, through Ray's shared memory into one vLLM engine, which packs them again
and drops its caches. The first push, which also compares logprobs, warms up and is dropped. The memcpy is one thread copying as many
bytes between two arrays.

    python benchmarks/publish.py [--rounds 9] [--json publish.json]

It does not show several engines, untied heads, large vocabularies, bf16, GPUs or several machines. No bound is wanted: small models pay
a fixed cost of per-layer Python, so the ratio to look at is the largest model's.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _measure import Row, column, in_turns, machine, parser, print_table, ratio, sampler, sentence, spread, timed, write_json
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar

from recipes.loader import load
from recipes.schema import Recipe
from rl.learner import Learner
from rl.publisher import Publisher
from rollout.tiny.tokenizer import build_tokenizer

SIZES = {"0.8M": (4, 128), "25M": (13, 384), "100M": (13, 768)}  # layers, width
HEAD = 32


def random_checkpoint(folder: Path, layers: int, width: int) -> int:
    """Write a random model and the tiny task's tokenizer; bytes of its weights."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // HEAD,
            num_key_value_heads=width // HEAD,
            head_dim=HEAD,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def measured(recipe: Recipe, folder: Path, bytes_: int, rounds: int) -> dict[str, list[Row]]:
    """Seconds of push and memcpy, in turns."""
    source, target = np.ones(bytes_, np.uint8), np.zeros(bytes_, np.uint8)
    versions = iter(range(rounds + 1))
    with sampler(recipe, folder) as (pool, stream, _):
        learner = Learner(recipe, folder, "cpu")
        learner.wait_ready()
        pool.wait_ready()
        publisher = Publisher(pool, recipe.publish, [stream.template.prompt_ids(stream.source.at(0))])
        return in_turns(
            rounds,
            {
                "push": lambda: {"seconds": timed(lambda: publisher.push(learner, next(versions)))[0]},
                "memcpy": lambda: {"seconds": timed(lambda: np.copyto(target, source))[0]},
            },
        )


def main() -> None:
    options = parser(__doc__, rounds=9)
    options.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES), help="models to measure (default: all)")
    args = options.parse_args()
    kv_cache = "engine.vllm.kv_cache_memory_bytes=268435456"  # next to nothing is sampled here
    recipe = load("quickstart", overrides=["engine.count=1", kv_cache, f"publish.check_every={args.rounds + 2}"])
    disable_progress_bar()
    facts = machine(recipe)
    table, sizes = [], {}
    for name in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            bytes_ = random_checkpoint(Path(folder), *SIZES[name])
            rows = measured(recipe, Path(folder), bytes_, args.rounds)
        push, memcpy = column(rows["push"], "seconds"), column(rows["memcpy"], "seconds")
        result: dict[str, Any] = ratio(push, memcpy)
        sizes[name] = result | {"bytes": bytes_, "rounds": rows}
        table.append(
            [f"{bytes_ / 4e6:.1f}M", f"{bytes_ / 1e6:.1f}", spread(push, 1, 1e3), spread(memcpy, 2, 1e3), f"{result['ratio']:.1f}"]
        )
    print_table(["parameters", "MB", "push, ms", "memcpy, ms", "push / memcpy"], table)
    print(f"{sentence(result)}, push / memcpy at {name} parameters; no bound wanted")
    write_json(args.json, benchmark="publish", sizes=sizes, machine=facts)


if __name__ == "__main__":
    main()
