"""The output head at a real vocabulary: seconds and peak bytes of a pass, before and now.

    python benchmarks/head.py [--tokens 1024] [--chunk 128] [--rounds 3] [--vocabulary 151936] [--width 1536] [--json head.json]

before: each piece under torch's checkpoint, log-softmax and entropy by autograd, the entropy in no loss: its graph keeps the
recomputed pieces alive. before, entropy used: the same with a bonus, whose backward pass lets them go.
now: rl/logprobs.ScoringHead, without and with a gradient of the entropy.
now, one piece: the same with a chunk as large as the micro-batch: no second product, for the memory of the whole matrix.

Forward and backward of the head alone, float32, one CPU process for each way and round, so that a peak is a process's own; its
size before the pass is taken off. A peak is also given in pieces: one is [chunk, vocabulary] in float32.
It does not show bfloat16 or a GPU (benchmarks/gpu_learner.py).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from math import ceil
from statistics import median

import torch
from _measure import machine, parser, print_table, ratio, sentence, spread, write_json
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recipes.loader import load
from rl.logprobs import ScoringHead

TEMPERATURE = 0.9
WAYS = ["before", "before, entropy used", "now", "now, entropy used", "now, one piece"]


def before(hidden_NH: Tensor, weight_VH: Tensor, targets_N: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """What the learner did: autograd through each piece, computed again in the backward pass."""

    def score(hidden_nH: Tensor, targets_n: Tensor) -> tuple[Tensor, Tensor]:
        logp_nV = torch.log_softmax((hidden_nH @ weight_VH.t()).float() / TEMPERATURE, dim=-1)
        return logp_nV.gather(-1, targets_n[:, None]).squeeze(-1), -(logp_nV.exp() * logp_nV).sum(-1)

    pieces = ceil(len(targets_N) / chunk)
    parts = zip(hidden_NH.tensor_split(pieces), targets_N.tensor_split(pieces), strict=True)
    scored = [checkpoint(score, hidden_nH, targets_n, use_reentrant=False) for hidden_nH, targets_n in parts]
    return torch.cat([logp for logp, _ in scored]), torch.cat([entropy for _, entropy in scored])


def peak_bytes() -> int:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def one_pass(way: str, tokens: int, chunk: int, vocabulary: int, width: int) -> dict[str, float]:
    """Seconds and bytes of one forward and backward pass, in this process."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(vocabulary, width).mul_(width**-0.5))
    hidden_NH = torch.randn(tokens, width, requires_grad=True)
    targets_N = torch.randint(vocabulary, (tokens,))
    used = "entropy used" in way
    start_bytes, start = peak_bytes(), time.perf_counter()
    if way.startswith("before"):
        logp_N, entropy_N = before(hidden_NH, weight, targets_N, chunk)
    else:
        logp_N, entropy_N = ScoringHead(weight)(hidden_NH, targets_N, TEMPERATURE, tokens if way.endswith("one piece") else chunk, used)
    loss = -(logp_N - logp_N.detach()).exp().mean()
    (loss - 0.01 * entropy_N.mean() if used else loss).backward()
    return {"seconds": time.perf_counter() - start, "bytes": peak_bytes() - start_bytes}


def main() -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--tokens", type=int, default=1024, help="of the micro-batch (default 1,024)")
    options.add_argument("--chunk", type=int, default=128, help="tokens of a piece (default 128)")
    options.add_argument("--vocabulary", type=int, default=151_936, help="(default 151,936, Qwen's)")
    options.add_argument("--width", type=int, default=1536, help="(default 1,536, that of 1.5B models)")
    options.add_argument("--way", choices=WAYS, help="measure this one once and print it as JSON")
    args = options.parse_args()
    sizes = {name: getattr(args, name) for name in ("tokens", "chunk", "vocabulary", "width")}
    if args.way:
        print(json.dumps(one_pass(args.way, **sizes)))
        return
    facts = machine(load("quickstart"))
    command = [sys.executable, __file__, *(f"--{name}={value}" for name, value in sizes.items()), "--way"]
    rounds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(args.rounds):
        for way in WAYS:
            done = subprocess.run([*command, way], capture_output=True, text=True, check=True)
            rounds[way].append(json.loads(done.stdout.splitlines()[-1]))
    seconds = {way: [row["seconds"] for row in rows] for way, rows in rounds.items()}
    peaks = {way: [row["bytes"] for row in rows] for way, rows in rounds.items()}
    piece = args.chunk * args.vocabulary * 4
    gradient = args.vocabulary * args.width * 4
    print(
        f"{args.tokens} tokens in pieces of {args.chunk}, vocabulary {args.vocabulary:,}, width {args.width:,}; "
        f"a piece is {piece / 1e6:,.0f} MB, the gradient of the weight, taken off below, {gradient / 1e6:,.0f} MB"
    )
    table = [[way, spread(seconds[way]), spread(peaks[way], 0, 1e-6), f"{(median(peaks[way]) - gradient) / piece:.1f}"] for way in WAYS]
    print_table(["", "seconds", "peak MB", "pieces"], table)
    results = {
        f"{name}, {what}": ratio(columns[f"before{used}"], columns[f"now{used}"])
        for used, name in (("", "entropy measured"), (", entropy used", "entropy used"))
        for what, columns in (("seconds", seconds), ("bytes", peaks))
    }
    for name, result in results.items():
        print(f"before / now, {name}: {sentence(result)}")
    write_json(args.json, benchmark="head", ratios=results, seconds=seconds, bytes=peaks, **sizes, machine=facts)


if __name__ == "__main__":
    main()
