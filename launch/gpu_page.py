"""The tables of docs/gpu.md, made from plans: `python -m launch.gpu_page` renews them, a test keeps them current."""

from __future__ import annotations

from pathlib import Path

from launch.actors import Actor, host_bytes
from launch.machine import Machine
from launch.memory import GB, held_words, kv_bytes, number_width, size
from launch.plan import Plan, plan
from recipes.loader import load

PAGE = Path(__file__).parent.parent / "docs" / "gpu.md"
_BEGIN, _END = "<!-- Made by `python -m launch.gpu_page`. -->\n", "<!-- Until here. -->\n"
_MACHINES = {
    "gpu1-24": Machine(16, 64 * GB, (24 * GB,)),
    "gpu1-80": Machine(16, 128 * GB, (80 * GB,)),
    "node8-colocated": Machine(64, 800 * GB, (80 * GB,) * 8),
    "node8": Machine(64, 800 * GB, (80 * GB,) * 8),
}


def renewed(text: str) -> str:
    """The page with tables as plan makes them now."""
    before, _, rest = text.partition(_BEGIN)
    return before + _BEGIN + tables() + _END + rest.partition(_END)[2]


def tables() -> str:
    """Of each scale for GPUs: what a GPU holds in each turn, and what an engine's cache comes to."""
    plans = {scale: plan(load("dler", scale), machine) for scale, machine in _MACHINES.items()}
    still = {
        scale: plan(load("dler", scale, ["cluster={kind: colocated, sleep: false}"]), _MACHINES[scale])
        for scale in plans
        if plans[scale].turns
    }
    lines = [
        "| scale | GPUs | while engines sample | while the learner works | keys and values of an engine | without turns | main memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for scale, made in plans.items():
        gpus, without = made.machine.gpus, _cache(still[scale]) if scale in still else ""
        cells = (*_turns(made), _cache(made), without, size(host_bytes(made.actors, made.placement)))
        lines.append(f"| `{scale}` | {len(gpus)} x {size(gpus[0])} | {' | '.join(cells)} |")
    lines += ["", "| scale | process | at work | resting | in main memory |", "|---|---|---|---|---|"]
    for scale, actor in ((scale, actor) for scale, made in plans.items() for actor in made.actors if actor.gpus):
        resting = "-" if actor.rests is None else held_words(actor.rests)
        lines.append(f"| `{scale}` | {actor.name} | {held_words(actor.holds)} | {resting} | {held_words(actor.host)} |")
    return "\n".join(lines) + "\n"


def _turns(made: Plan) -> tuple[str, str]:
    engine, learner = (next(actor for actor in made.actors if actor.name == name) for name in ("engine", "learner"))
    if not made.turns:
        return f"engine {size(engine.bytes)}, of its own", f"rank {size(learner.bytes)}, of its own"

    def together(works: Actor, rests: Actor) -> str:
        kept = sum((rests.rests or {}).values())
        return f"{works.name} {size(works.bytes)} + {rests.name} {size(kept)} = {size(works.bytes + kept)}"

    return together(engine, learner), together(learner, engine)


def _cache(made: Plan) -> str:
    engine = next(actor for actor in made.actors if actor.name == "engine")
    assert made.shape is not None
    held = engine.holds["KV cache"]
    return f"{size(held)}, {held // kv_bytes(made.shape, 1, number_width(made.recipe)):,} tokens"


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
