"""The paper plan (dler, 1.5B, 512 prompts x 16) from one GPU to thousands, simulated with assumed speeds: no GPU has run it, so there is no trace to take.

    python benchmarks/scale.py            # the tables of docs/scale.md

Speeds follow from the model's size and data-sheet numbers of an 80 GB GPU of the H100's kind, with the utilisations below; lengths, the share of groups that train, and the
driver's times are assumptions, too, of which those with "measured" were measured on two CPU cores. Once a run on GPUs exists, `laconic plan dler --scale node8 --simulate RUN`
says the same from that. It shows which part breaks first and roughly where, not seconds to rely on.
"""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from dataclasses import replace

from _measure import print_table

from launch.forecast import Forecast, best_of_each, forecast, layouts, seated, work_of
from launch.memory import Shape, kv_bytes
from launch.plan import Plan, plan
from launch.simulate import Layout, Trace, Work
from recipes.loader import load

FLOPS, BANDWIDTH = 990e12, 3.35e12  # bf16 a second; bytes a second
USED_FLOPS, USED_BANDWIDTH = 0.4, 0.6
ENGINE_S = 4e-3  # of an engine's step beside the GPU's work
PROMPT = 200  # tokens
LENGTHS = {
    0.0: 150,
    0.05: 600,
    0.25: 1500,
    0.5: 2400,
    0.75: 3700,
    0.85: 4000,
    1.0: 4000,
}  # between the paper's start (mostly cut) and its end (mean 2,466)
ALIKE, KEPT = 0.5, 0.5
SCORE_S = 3e-3  # of the driver, an answer: measured 0.9 ms for finding the answer in 4,000 tokens; texts, rewards, records are guessed
POLL_S = 1.4e-3  # measured: a call of an actor
JUDGE_S = 10e-3  # measured: math-verify, 1 ms for numbers, 20 ms for sets
PUSH = 20e9  # bytes of weights a second, read by engines (ipc) or broadcast on a node, unpacked and digested at both ends: a guess, nothing of it has run on a GPU


def assumed(shape: Shape) -> Trace:
    """The trace of a GPU that nobody has measured."""
    flops, bandwidth = USED_FLOPS * FLOPS, USED_BANDWIDTH * BANDWIDTH
    mean = sum((high - low) * (LENGTHS[high] + LENGTHS[low]) / 2 for low, high in zip([*LENGTHS], [*LENGTHS][1:], strict=False))
    return Trace(
        shares=[*LENGTHS],
        lengths=[*LENGTHS.values()],
        alike=ALIKE,
        kept=KEPT,
        step=ENGINE_S + 2 * shape.parameters / bandwidth,
        each=kv_bytes(shape, PROMPT + int(mean / 2), 2) / bandwidth + 2 * shape.parameters / flops,
        take=PROMPT * 2 * shape.parameters / flops,
        judge=JUDGE_S,
        score=SCORE_S,
        poll=POLL_S,
        update=10 * shape.parameters / flops,  # forward, backward, recomputed activations, the reference
        push=2 * shape.parameters / PUSH,
        rest=1e-3,
        between=5.0,
    )


def row(one: Forecast) -> list[str]:
    layout, parts = one.layout, one.parts
    placed = f"{layout.engines} + {layout.ranks}" + (" shared" if layout.colocated else "")
    times = [f"{value:,.0f}" for value in (one.mean, one.p95, parts.sample, parts.update, parts.push + parts.rest + parts.turns)]
    return [
        f"{layout.devices:,}",
        placed,
        *times,
        *(f"{share:.0%}" for share in one.shares),
        f"{layout.devices * one.mean / 3600:.1f}",
    ]


def best(made: Plan, trace: Trace, work: Work, devices: int) -> list[Forecast]:
    ways = (seated(made, layout, trace) for layout in layouts(devices, made.recipe))
    return best_of_each([layout for layout, why in ways if not why], trace, work)


def parts_of(made: Plan, trace: Trace, work: Work, devices: int) -> list[str]:
    """What the fastest step at a size would take without each part that is serial or waits."""
    without = {
        "as it is": (trace, work),
        "no refills": (trace, replace(work, max_refills=1 / trace.kept - 1)),
        "a free driver": (replace(trace, poll=0.0, score=0.0, rest=0.0), work),
        "free judges": (replace(trace, judge=0.0), work),
        "all three": (replace(trace, poll=0.0, score=0.0, rest=0.0, judge=0.0), replace(work, max_refills=1 / trace.kept - 1)),
    }
    fastest: Layout = min(best(made, trace, work, devices), key=lambda one: one.mean).layout
    return [f"{devices:,}", *(f"{forecast(*given, fastest).mean:,.0f}" for given in without.values())]


def main() -> None:
    options = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    options.add_argument("--prompts", type=int, help="of a step (default: the recipe's 512)")
    args = options.parse_args()
    made = plan(load("dler", "node8", [f"sampler.prompts={args.prompts}"] if args.prompts else []))
    assert made.shape is not None
    trace, work = assumed(made.shape), work_of(made)
    head = [
        "GPUs",
        "engines + ranks",
        "step s",
        "p95",
        "sample",
        "update",
        "push, rest, turns",
        "engines busy",
        "learner busy",
        "long tail",
        "GPU h a step",
    ]
    print_table(head, [row(one) for size in (1, 8, 64, 512, 4096) for one in best(made, trace, work, size)])
    print("\nseconds of a step of the fastest way without")
    print_table(
        ["GPUs", "(as it is)", "refills", "driver", "judges", "all three"],
        [parts_of(made, trace, work, size) for size in (8, 512, 4096)],
    )


if __name__ == "__main__":
    main()
