"""Seconds of every number of an evaluation, from stored samples, against the 5 that they may take.

    python benchmarks/evaluation_numbers.py [--problems 30] [--samples 64] [--rounds 3] [--json numbers.json]

Two models' samples are drawn: skills, lengths that grow with difficulty, a handful of wrong answers to vote for. Then all numbers are made of
them, each block timed apart: aggregates of k samples, votes, errors and tests, efficiency with joint bootstraps, and lengths. 10,000 resamples throughout.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from evaluation import attempts, efficiency, lengths, measured, statistics
from evaluation.measured import Samples
from evaluation.scores import budget_curve


def drawn(problems: int, samples: int, shorter: float, seed: int) -> Samples:
    """Samples of a model that thinks `shorter` times as long."""
    rng = np.random.default_rng(seed)
    problem_S = np.repeat(np.arange(problems), samples)
    skill_S = np.repeat(np.random.default_rng(0).beta(0.8, 0.6, problems), samples)
    right_S = rng.random(len(problem_S)) < skill_S
    length_S = np.minimum(rng.gamma(4, 3000 * shorter * (1.3 - skill_S)), 32_768).astype(int) + 2
    finish_S = np.where(length_S > 32_000, "length", "stop")
    said_S = np.where(right_S, "7", rng.choice(list("123456"), len(problem_S))).astype(object)
    said_S[finish_S == "length"] = None
    right_S &= finish_S == "stop"
    ids = tuple(f"problem {index}" for index in range(problems))
    return Samples(
        ids, problem_S, right_S, ~right_S, length_S, np.where(finish_S == "stop", length_S * 0.9, np.nan), finish_S, said_S, "drawn"
    )


def blocks(old: Samples, new: Samples) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    n, right_N = new.count, new.means(new.right) * new.count
    right_N, k = right_N.round().astype(int), int(n.min())
    halves = [k >> step for step in range(k.bit_length())]
    a, b = new.measured, old.measured
    tiers_N = lengths.tiers(1 - b.share)
    budgets = [1024, 2048, 4096, 8192, 16_384, 32_768]
    correct_NB = new.means(new.right[:, None] & (new.length[:, None] <= np.array(budgets)))

    def aggregates() -> object:
        of_k = [(attempts.pass_at_k(n, right_N, k), attempts.mg_pass(n, right_N, k), attempts.all_of_k(n, right_N, k)) for k in halves]
        return [statistics.share_interval(value_N) for values in of_k for value_N in values]

    def votes() -> object:
        stored = attempts.of_samples(new)
        accuracy = [[attempts.maj_at_k(one, k) for one in stored] for k in halves]
        short = [[attempts.short_m_at_k(one, m, k)[0] for one in stored] for k in halves for m in (1, 3) if m <= k]
        return [statistics.interval(np.array(value_N)) for value_N in accuracy + short]

    def tests() -> object:
        difference_N = a.share - b.share
        bounds = statistics.claim_interval(measured.accuracy_change(a, b))
        ps = statistics.holm([statistics.sign_flip(difference_N), statistics.mcnemar(5, 3)])
        return statistics.standard_errors(right_N, n), measured.length_change(a, b), statistics.non_inferiority(bounds, len(n), 0.05), ps

    def scalars() -> object:
        area = statistics.bootstrap(correct_NB, lambda *columns: efficiency.budget_area(budgets, np.stack(columns, axis=-1), "log2"))
        return efficiency.scalars(a), efficiency.against(a, b), area, budget_curve(new, np.linspace(512, 32_768, 64).astype(int).tolist())

    def where() -> object:
        relative = lengths.accuracy_by_bin(new, lengths.relative_bins(new.length), tiers_N)
        edges = np.linspace(0, 32_768, 25)
        pairs = lengths.both_right(old, new)
        errors = lengths.conditional_error(new.length, new.right, edges)
        return lengths.by_outcome(new), relative, errors, lengths.savings(pairs, tiers_N), lengths.transitions(old, new)

    return {"aggregates": aggregates, "votes": votes, "errors and tests": tests, "efficiency": scalars, "lengths": where}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--problems", type=int, default=30)
    options.add_argument("--samples", type=int, default=64)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", type=Path, help="also write the seconds to this file")
    args = options.parse_args()
    old, new = drawn(args.problems, args.samples, 1.0, 1), drawn(args.problems, args.samples, 0.6, 2)
    made = blocks(old, new)
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(args.rounds):
        for name, block in made.items():
            start = time.perf_counter()
            block()
            seconds[name].append(time.perf_counter() - start)
    table = {name: median(values) for name, values in seconds.items()}
    table["all"] = sum(table.values())
    print(f"{args.problems} problems x {args.samples} samples, {statistics.RESAMPLES:,} resamples, median of {args.rounds}")
    for name, value in table.items():
        print(f"| {name:18} | {value:7.3f} s |")
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
