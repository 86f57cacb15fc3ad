"""What selection and credit cost beside a step, what they save of the update, and influence at a real vocabulary.

    python benchmarks/credit.py [--rounds 5] [--limit 160] [--json credit.json]

On the cold-started reasoner (0.9M parameters) and on a model of random weights with 25M, one step's groups are sampled; then every recipe
prepares the same groups in turns. Verdicts are drawn, half of them right, so that every group has both (random weights answer nothing).

controller: seconds of `prepare` outside of the learner, less those of even credit, as a share of a step (sampling, plain measuring pass, update).
measuring: seconds of the pass through the model that the recipe asks for, over those of a pass for old logprobs alone.
in all: seconds of controller and measuring pass beyond those of the base recipe (even credit, a pass for old logprobs), as a share of the same step: what credit costs.
update: seconds of the learner's update over those of all rollouts and tokens.
influence: the head alone, random weights, 8 rollouts of 512 tokens, vocabulary 151,936, width 1,536, one CPU process for each way and round: THR's
influence over logprobs and entropy, and with smaller and larger pieces; peaks without the process's size before the pass.

It does not show a GPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
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
from head import peak_bytes
from transformers import Qwen3Config, Qwen3ForCausalLM

from recipes.loader import load
from recipes.schema import Recipe
from rewards.verifier.verdict import Verdict
from rl import algorithm
from rl.learner import Learner
from rl.logprobs import ScoringHead
from rollout.tiny.tokenizer import build_tokenizer
from rollout.types import Group

WAYS: dict[str, list[str]] = {
    "even": [],
    "pods": ["select={kind: max_variance, keep: 4}"],
    "d3s": ["select={kind: max_variance, keep: 4, of: advantage}", "tokens={kind: importance, keep: 0.2}"],
    "entropy 80/20": ["tokens={kind: entropy, keep: 0.2}"],
    "thr": ["credit.kind=thr"],
    "nthr": ["credit.kind=nthr"],
    "entropy shaped": ["credit.kind=entropy"],
    "clip_cov": ["credit.kind=clip_cov"],
    "kl_cov": ["credit.kind=kl_cov"],
    "gtpo": ["credit.kind=gtpo"],
    "drpo": ["credit.kind=drpo", "objective.surrogate=logp", "objective.aggregate=sequence_mean"],
}
MOST = 0.05  # of a step
SIZES = {"tokens": 4096, "chunk": 128, "vocabulary": 151_936, "width": 1536}


def of_25m(folder: Path) -> Path:
    """A checkpoint of random weights that speaks the tiny reasoner's words."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    sizes = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 7, "num_attention_heads": 8, "num_key_value_heads": 8}
    config = Qwen3Config(
        vocab_size=len(tokenizer), **sizes, head_dim=64, max_position_embeddings=2048, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def drawn_verdicts(groups: Sequence[Group]) -> None:
    """Half of each group right, by a fixed draw."""
    rng = np.random.default_rng(0)
    for group in groups:
        right = rng.permutation(len(group.rollouts)) < len(group.rollouts) / 2
        for rollout, flag in zip(group.rollouts, right, strict=True):
            rollout.verdict = Verdict("right" if flag else "wrong", "")
            rollout.terms, rollout.reward = {"verdict": float(flag)}, float(flag)


def one_way(groups: Sequence[Group], recipe: Recipe, learner: Learner, update: bool) -> Row:
    """Seconds of preparing the groups, on the controller and in the learner, and of the update."""
    measuring = 0.0

    def measure(parts: Any, what: Any) -> Any:
        nonlocal measuring
        seconds, found = timed(lambda: learner.measure(parts, what))
        measuring += seconds
        return found

    start = time.perf_counter()
    batch = algorithm.prepare(groups, recipe, measure)
    seconds = time.perf_counter() - start
    return {
        "controller": seconds - measuring,
        "measuring": measuring,
        "update": timed(lambda: learner.update(batch.updates, 0))[0] if update else 0.0,
    }


def beside_a_step(args: Any, name: str, checkpoint: Path | None) -> dict[str, Any]:
    """The table of one model."""
    args.checkpoint = checkpoint
    common = ["objective.kl.coef=0", "learner.ranks=1", "learner.threads=2", "objective.old_logprobs=learner"]
    recipe, start = recipe_and_checkpoint(args, *common)
    with sampler(recipe, start) as (pool, _, collector):
        sampling, collected = timed(collector.next)
        groups = collected.groups
        drawn_verdicts(groups)
        pool.stop()
        learner = Learner(recipe, start, "cpu")
        recipes = {way: load("quickstart", overrides=[*_given(args), *common, *words]) for way, words in WAYS.items()}
        updates = ("even", "pods", "d3s", "entropy 80/20")
        turns = {way: partial(one_way, groups, recipes[way], learner, way in updates) for way in WAYS}
        measured = in_turns(args.rounds, turns)
        learner.stop()
    step = sampling + np.median(column(measured["even"], "measuring")) + np.median(column(measured["even"], "update"))
    base = np.array(column(measured["even"], "controller"))
    shares = {way: ((np.array(column(rows, "controller")) - base) / step).tolist() for way, rows in measured.items()}
    passes = {way: ratio(column(rows, "measuring"), column(measured["even"], "measuring")) for way, rows in measured.items()}
    whole = np.array(column(measured["even"], "measuring")) + base
    costs = {
        way: ((np.array(column(rows, "controller")) + column(rows, "measuring") - whole) / step).tolist() for way, rows in measured.items()
    }
    saved = {way: ratio(column(measured[way], "update"), column(measured["even"], "update")) for way in updates}
    print(
        f"\n{name}: {len(groups)} groups of 8, step {step:.2f} s (sampling {sampling:.2f} s); wanted: at most {MOST:.0%} of it each, in all"
    )
    print_table(
        ["", "controller, share of step", "measuring / plain", "in all, share of step", f"at most {MOST:.0%}", "update / whole"],
        [
            [way, spread(shares[way], 2, 100) + " %", sentence(passes[way]).removeprefix("ratio "), spread(costs[way], 2, 100) + " %", "yes" if np.median(costs[way]) <= MOST else "no", sentence(saved[way]).removeprefix("ratio ") if way in saved else ""]
            for way in WAYS
        ],
    )  # fmt: skip
    return {"step": step, "sampling": sampling, "shares": shares, "measuring": passes, "costs": costs, "update": saved, "rounds": measured}


def _given(args: Any) -> list[str]:
    return [f"sampler.prompts={args.prompts}", f"budget.limit={args.limit}", "sampler.keep_groups=all", "learner.lr=1e-9", "device=cpu"]


def head_pass(way: str, chunk: int) -> dict[str, float]:
    """Seconds and bytes of the head over one group, in this process."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(SIZES["vocabulary"], SIZES["width"]).mul_(SIZES["width"] ** -0.5))
    hidden_NH = torch.randn(SIZES["tokens"], SIZES["width"])
    targets_N = (torch.rand(SIZES["tokens"]) ** 3 * SIZES["vocabulary"]).long()  # some words more often than others
    toward_N = (torch.arange(SIZES["tokens"]) < SIZES["tokens"] // 2).float()
    head, before, start = ScoringHead(weight), peak_bytes(), time.perf_counter()
    with torch.no_grad():
        if way == "influence":
            head.influence(hidden_NH, targets_N, toward_N, 1.0, chunk)
        else:
            head(hidden_NH, targets_N, 1.0, chunk)
    return {"seconds": time.perf_counter() - start, "bytes": peak_bytes() - before, "used": len(targets_N.unique())}


def at_a_real_vocabulary(rounds: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {"logprobs": [], "influence": []}
    passes = [(way, way, SIZES["chunk"]) for way in found]
    passes += [(f"influence, pieces of {chunk}", "influence", chunk) for chunk in (SIZES["chunk"] // 4, SIZES["chunk"] * 4)]
    for _ in range(rounds):
        for name, way, chunk in passes:
            done = subprocess.run(
                [sys.executable, __file__, "--way", way, "--chunk", str(chunk)], capture_output=True, text=True, check=True
            )
            found.setdefault(name, []).append(json.loads(done.stdout.splitlines()[-1]))
    used, piece = int(found["influence"][0]["used"]), SIZES["chunk"] * SIZES["vocabulary"] * 4
    print(
        f"\ninfluence: {SIZES['tokens']:,} tokens of {used:,} words of {SIZES['vocabulary']:,}, width {SIZES['width']:,}, pieces of {SIZES['chunk']} tokens "
        f"({piece / 1e6:.0f} MB); one matrix of the group is {used * SIZES['width'] * 4 / 1e6:.0f} MB, tokens x tokens would be {SIZES['tokens'] ** 2 * 4 / 1e6:.0f} MB"
    )
    print_table(
        ["", "seconds", "peak MB"],
        [[way, spread(column(rows, "seconds")), spread(column(rows, "bytes"), 0, 1e-6)] for way, rows in found.items()],
    )
    result = ratio(column(found["influence"], "seconds"), column(found["logprobs"], "seconds"))
    print(f"influence / logprobs and entropy: {sentence(result)}")
    return {"ratio": result, "rounds": found, "used": used}


def main() -> None:
    options = parser(__doc__, rounds=5)
    checkpoint_options(options)
    options.set_defaults(limit=160)
    options.add_argument("--small", action="store_true", help="the reasoner of 0.9M parameters alone")
    options.add_argument("--way", choices=["logprobs", "influence"], help="pass the head once in this way and print that as JSON")
    options.add_argument("--chunk", type=int, default=SIZES["chunk"], help="tokens of a piece in that")
    args = options.parse_args()
    if args.way:
        print(json.dumps(head_pass(args.way, args.chunk)))
        return
    facts = machine(load("quickstart"))
    numbers = {"0.9M": beside_a_step(args, "0.9M parameters", args.checkpoint)}
    if not args.small:
        numbers["influence"] = at_a_real_vocabulary(min(args.rounds, 3))
        with tempfile.TemporaryDirectory() as folder:
            numbers["25M"] = beside_a_step(args, "25M parameters, random weights", of_25m(Path(folder)))
    write_json(args.json, benchmark="credit", limit=args.limit, machine=facts, **numbers)


if __name__ == "__main__":
    main()
