"""Pushing weights against a memcpy of the same bytes, for each carrier and engine, at about 100M parameters.

A random fp32 Qwen3 model with the tiny task's vocabulary and tied head is made on the spot. A push is `Publisher.push`: weights of the DeepSpeed learner,
by one of the carriers (rl/carriers), a digest of every tensor on both sides, loaded into one engine, which drops its caches. The first push, which also compares
logprobs, warms up and is dropped. The memcpy is one thread copying as many bytes between two arrays, in turns with the pushes.

    python benchmarks/push.py [--rounds 9] [--sizes 0.8M 25M 100M] [--carriers store ipc broadcast] [--json push.json]

The reference engine copies what it gets, so it shows the carrier; vLLM's CPU build allocates and packs each layer again besides. Several engines, untied heads, large
vocabularies, bf16, GPUs and several machines are not shown.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _measure import Row, column, in_turns, machine, parser, print_table, ratio, sampler, sentence, spread, timed, write_json
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar

from recipes.loader import load
from recipes.schema import Recipe
from rl.carriers import CARRIERS
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


def measured(recipe: Recipe, folder: Path, carriers: Sequence[str], bytes_: int, rounds: int) -> dict[str, list[Row]]:
    """Seconds of a push by each carrier and of a memcpy, in turns."""
    source, target = np.ones(bytes_, np.uint8), np.zeros(bytes_, np.uint8)
    versions = count()
    with sampler(recipe, folder) as (pool, stream, _):
        learner = Learner(recipe, folder, "cpu")
        learner.wait_ready()
        pool.wait_ready()
        probe = [stream.template.prompt_ids(stream.source.at(0))]

        def push(carrier: str) -> Callable[[], Row]:
            publisher = Publisher(pool, recipe.publish, probe, carrier=CARRIERS[carrier]())
            return lambda: {"seconds": timed(lambda: publisher.push(learner, next(versions)))[0]}

        copies = {"memcpy": lambda: {"seconds": timed(lambda: np.copyto(target, source))[0]}}
        return in_turns(rounds, {carrier: push(carrier) for carrier in carriers} | copies)


def main() -> None:
    options = parser(__doc__, rounds=9)
    options.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["100M"], help="models to measure (default: 100M)")
    options.add_argument("--carriers", nargs="+", choices=list(CARRIERS), default=list(CARRIERS), help="default: all")
    options.add_argument("--engines", nargs="+", choices=["reference", "vllm"], default=["reference", "vllm"], help="default: both")
    args = options.parse_args()
    disable_progress_bar()
    facts = machine(load("quickstart"))
    table, found = [], []
    for name in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            bytes_ = random_checkpoint(Path(folder), *SIZES[name])
            for engine in args.engines:
                kv_cache = "engine.vllm.kv_cache_memory_bytes=268435456"  # next to nothing is sampled here
                seldom = f"publish.check_every={len(args.carriers) * (args.rounds + 2)}"
                recipe = load("quickstart", overrides=["device=cpu", "engine.count=1", f"engine.kind={engine}", kv_cache, seldom])
                rows = measured(recipe, Path(folder), args.carriers, bytes_, args.rounds)
                memcpy = column(rows["memcpy"], "seconds")
                for carrier in args.carriers:
                    push = column(rows[carrier], "seconds")
                    result: dict[str, Any] = ratio(push, memcpy)
                    found.append(result | {"size": name, "engine": engine, "carrier": carrier, "bytes": bytes_, "rounds": rows})
                    times = spread(push, 1, 1e3), spread(memcpy, 2, 1e3)
                    table.append([f"{bytes_ / 4e6:.1f}M", engine, carrier, *times, sentence(result)])
    print_table(["parameters", "engine", "carrier", "push, ms", "memcpy, ms", "push / memcpy, wanted <= 2"], table)
    write_json(args.json, benchmark="push", found=found, machine=facts)


if __name__ == "__main__":
    main()
