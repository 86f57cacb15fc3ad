"""Promise P29: no key is ignored. For each key of the schema, what a run does with it is asked before and after changing it.

A probe hands a recipe to the code that a run hands it to, and returns what came of it: requests, rewards, updated weights, what
libraries were asked for (tests/inprocess), the run folder. No probe looks at the recipe itself, its hash or what prints it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from recipes.keys import keys
from tests.probes import (
    BASES,
    FUNCTION,
    TERMS,
    PlainJudge,
    Probe,
    Row,
    World,
    chosen,
    cold_started,
    collected,
    eased,
    engines_started,
    evaluated,
    limits,
    placed,
    poisoned,
    prepared,
    recipe_of,
    requests,
    shaped,
    staged,
    started_from,
    submitted,
    trained,
    unjudged,
    whole_run,
    wired,
)

CUT = [{"kind": "verdict"}, {"kind": "cut"}]
KL_TERM = [{"kind": "verdict"}, {"kind": "kl", "weight": 0.5}]
RUNGS = [{"at_least": 0.5, "share": 0.5}, {"share": 1.0}]
LADDER = {"budget.kind": "difficulty", "budget.ladder": RUNGS}
FILE, HUB = {"data.train": "rows.jsonl"}, {"data.train": "hub:owner/name"}
DECS = {"credit.kind": "decs", "credit.most": 0.5, "credit.gain": 0.9}
DRPO = {"objective.surrogate": "logp", "objective.aggregate": "sequence_mean"}
PROMPT = {"budget.kind": "prompt", "budget.limit": 128, "data.instruction": "{budget}"}
REFERENCE = {"budget.kind": "reference", "budget.limit": 128}
COVERAGE = {
    "budget.kind": "coverage",
    "budget.limit": 64,
    "budget.room": 4.0,
    "budget.watch": 0.1,
    "sampler.group_size": 32,
    "budget.every": 2,
}
CONTROLLER = {"budget.kind": "controller", "budget.limit": 128, "budget.measure": 1}
TOGGLE = {"budget.kind": "toggle", "budget.limit": 128, "budget.period": 1, "sampler.group_size": 32}
OUTLIER = {"budget.kind": "outlier", "budget.alpha": 1.0}
MOVES: list[tuple[dict[str, Any], dict[str, Any]]] = [  # a schedule of budget.limit, and what to change in it
    ({"kind": "exponential", "factor": 0.5, "every": 2, "least": 40.0}, {"factor": 0.8, "every": 3, "least": 60.0}),
    ({"kind": "decays", "share": 0.3, "count": 3}, {"kind": {"kind": "linear", "to": 20.0}, "share": 0.4, "count": 2}),
    ({"kind": "linear", "to": 30.0}, {"kind": {"kind": "decays", "share": 0.2, "count": 1}, "to": 40.0, "over": 3, "drops": 2}),
    ({"kind": "staged", "stages": [{"since": 2, "value": 90.0}]}, {"stages": [{"since": 3, "value": 90.0}]}),
]
SHARED_NUMBERS: dict[str, tuple[Any, dict[str, Any]]] = {"weight": (0.77, {}), "of": ("answer", {})}
GATE: dict[str, tuple[Any, dict[str, Any]]] = {"gate": ("right", {"gate": "none"})}
LENGTH_TERMS: dict[str, dict[str, tuple[Any, dict[str, Any]]]] = {  # its numbers: another value, and what else the term must say
    "l1_exact": GATE,
    "l1_max": {"alpha": (2.0, {}), "delta": (0.4, {}), "form": ("code", {})},
    "kimi": GATE,
    "arora": {"alpha": (0.3, {})},
    "o1_pruner": GATE | {"alpha": (0.1, {}), "low": (-0.5, {}), "high": (0.5, {})},
    "alp": GATE,
    "shorterbetter": GATE,
    "laser": {"explore": (True, {})},
    "overlong": GATE | {"buffer": (0.9, {}), "hard": (2.0, {"buffer": 1.0})},
    "cosine": GATE
    | {"right_short": (3.0, {}), "right_long": (1.5, {}), "wrong_short": (-5.0, {}), "wrong_long": (-1.0, {}), "beyond": (-3.0, {})},
    "lead": {"alpha": (0.3, {}), "least": (0.9, {})},
    "triangle": GATE,
    "band": GATE,
    "linear": GATE,
    "logarithm": {"sharpness": (1.0, {})},
    "relative": {"shape": ("rank", {}), "strength": (0.1, {}), "floor": (0.9, {})},
    "shortest": {"top": (0.9, {})},
    "longest": {"top": (0.9, {})},
    "profiled": GATE | {"deviations": (9.0, {})},
    "scaling": {"profiled": (True, {"of": "answer"})},
    "zmad": {"threshold": (9.0, {})},
    "nemo_band": {"deviations": (9.0, {}), "held": (False, {})},
    "gr3": {"alpha": (0.9, {})},
    "leash": {"gain": (0.1, {}), "most": (0.105, {"gain": 0.1})},
}
SETS = {"data.train": [{"source": "rows.jsonl"}, {"source": "more.jsonl", "weight": 0.1}]}
KEPT, KL = {"select.kind": "shortest", "select.keep": 2}, {"objective.kl.coef": 0.5}
CORRECTED = {"objective.old_logprobs": "learner", "objective.correction.kind": "clamp"}
ADAPTIVE = {"objective.entropy": {"kind": "adaptive", "coef": 0.1, "target": 9.0}}  # nats, more than the model ever has
ONE_EACH, NODES = {"learner.ranks": 4, "engine.count": 4}, (("nodes", 1), ("gpus_per_node", 3))  # on 16 GPUs
SHARED = {"learner.ranks": 1, "engine.count": 1, "engine.kind": "vllm", "cluster.kind": "colocated"}
LORA, SHARDED = {"learner.adapter.kind": "lora", "learner.adapter.rank": 2}, {"learner.zero_stage": 1}
COLD, MERGED = {"stages": [{"kind": "cold_start", "changes": {"cold_start.steps": 5}}]}, {"stages": [{"kind": "rl"}, {"kind": "merge"}]}
LEARN = {"stages": [{"kind": "reference", "samples": 4, "problems": 3}, {"kind": "sft", "batch": 2, "max_tokens": 99}]}
PREFER = {"stages": [{"kind": "reference", "samples": 4, "problems": 3}, {"kind": "dpo", "batch": 2, "max_tokens": 99}]}


def reward_of(kind: str, **numbers: Any) -> dict[str, Any]:
    before = [{"kind": "triangle"}] * (kind in ("shortest", "longest"))  # these look at what was earned by then
    return {"reward": [{"kind": "verdict", "wrong": -1.0 if kind == "leash" else 0.0}, *before, {"kind": kind, **numbers}]}


ROWS = [
    Row("name", whole_run, "other"),
    Row("seed", requests, 1),
    Row("seed", evaluated, 1),
    Row("seed", cold_started, 1),
    Row("stages", whole_run, ["rl", "eval"]),
    Row("stages[cold_start].kind", cold_started, {"kind": "rl"}, COLD),
    Row("stages[cold_start].changes", cold_started, {"tiny.layers": 2}, COLD),
    Row("stages[reference].kind", staged, "eval", {"stages": [{"kind": "reference", "problems": 3}]}),
    Row("stages[reference].changes", staged, {"budget": {"limit": 3}}, LEARN),
    Row("stages[reference].name", staged, "other", LEARN),
    Row("stages[reference].samples", staged, 6, LEARN),
    Row("stages[reference].problems", staged, 2, LEARN),
    Row("stages[sft].kind", staged, {"kind": "dpo", "batch": 2}, LEARN),
    Row("stages[sft].changes", staged, {"learner.lr": 0.1}, LEARN),
    Row("stages[sft].name", staged, "other", LEARN),
    Row("stages[sft].epochs", staged, 2, LEARN),
    Row("stages[sft].batch", staged, 3, LEARN),
    Row("stages[sft].lr", staged, 0.1, LEARN),
    Row("stages[sft].max_tokens", staged, 2, LEARN, stops="all 3 examples are longer than 2 tokens"),
    Row("stages[sft].data", staged, ["chats.jsonl"], LEARN),
    Row("stages[dpo].kind", staged, {"kind": "sft", "batch": 2}, PREFER),
    Row("stages[dpo].changes", staged, {"learner.threads": 1}, PREFER),
    Row("stages[dpo].name", staged, "other", PREFER),
    Row("stages[dpo].epochs", staged, 2, PREFER),
    Row("stages[dpo].batch", staged, 3, PREFER),
    Row("stages[dpo].lr", staged, 0.1, PREFER),
    Row("stages[dpo].max_tokens", staged, 2, PREFER, stops="all 6 pairs are longer than 2 tokens"),
    Row("stages[dpo].rejected", staged, "wrong", PREFER),
    Row("stages[dpo].beta", staged, 0.5, PREFER),
    Row("stages[rl].kind", staged, {"kind": "eval"}, {"stages": [{"kind": "rl"}]}),
    Row("stages[rl].changes", staged, {"train.steps": 1}, {"stages": [{"kind": "rl"}]}),
    Row("stages[rl].name", staged, "other", {"stages": [{"kind": "rl", "name": "first"}, "rl"]}),
    Row("stages[merge].kind", staged, {"kind": "eval"}, MERGED),
    Row("stages[merge].name", staged, "other", MERGED),
    Row("stages[merge].keep", staged, 0.5, MERGED),
    Row("stages[merge].scale", staged, 0.5, MERGED),
    Row("stages[merge].scope", staged, "tensor", MERGED),
    Row("stages[eval].kind", staged, {"kind": "rl"}, {"stages": [{"kind": "eval"}]}),
    Row("stages[eval].changes", staged, {"eval.problems": 3}, {"stages": [{"kind": "eval"}]}),
    Row("stages[eval].name", staged, "other", {"stages": [{"kind": "eval", "name": "before"}, "rl"]}),
    Row("device", engines_started, "cuda"),
    Row("on_cuda", engines_started, {"engine": {"count": 3}}, {"device": "cuda"}),
    Row("model.path", started_from, "owner/other"),
    Row("model.revision", started_from, "main"),
    Row("model.dtype", trained, "bf16", SHARDED),
    Row("model.dtype", engines_started, "bf16", SHARDED),
    Row("tiny.layers", cold_started, 2),
    Row("tiny.width", cold_started, 48),
    Row("tiny.families", cold_started, ["linear"]),
    Row("tiny.families", requests, ["linear"]),
    Row("tiny.families", evaluated, ["linear"]),
    Row("tiny.recheck", cold_started, 0.1),
    Row("tiny.rederive", cold_started, 0.1),
    Row("tiny.slip", cold_started, 0.5),
    Row("cold_start.steps", cold_started, 7),
    Row("cold_start.batch", cold_started, 3),
    Row("cold_start.lr", cold_started, 0.01),
    Row("data.train", requests, "rows.jsonl"),
    Row("data.split", requests, "validation", HUB),
    Row("data.problem", requests, "question", FILE),
    Row("data.problem", evaluated, "question", {"eval.data": ["rows.jsonl"]}),
    Row("data.answer", requests, "gold", FILE),
    Row("data.train[].source", requests, "more.jsonl", SETS),
    Row("data.train[].weight", requests, 99.0, SETS),
    Row("data.train[].problem", requests, "question", SETS),
    Row("data.train[].answer", requests, "gold", SETS),
    Row("data.train[].split", requests, "validation", {"data.train": [{"source": "hub:owner/name"}]}),
    Row("eval.data", evaluated, [{"source": "rows.jsonl", "problem": "question"}], {"eval.data": ["rows.jsonl"]}),
    Row("data.instruction", requests, "Solve"),
    Row("data.template", requests, {"messages": []}, stops="cannot be filled in"),
    Row("data.thinking", requests, ["Add", "</think>"]),
    Row("data.max_prompt_tokens", requests, 12),
    Row("data.max_prompt_tokens", engines_started, 12),
    Row("sampler.prompts", collected, 1),
    Row("sampler.group_size", requests, 3),
    Row("sampler.temperature", requests, 0.7),
    Row("sampler.temperature", trained, 0.7),
    Row("sampler.keep_groups", collected, "shaped"),
    Row("sampler.max_refills", collected, 0),
    Row("sampler.no_thinking", requests, 0.5, along={"objective.old_logprobs": "learner"}),
    Row("budget.kind", collected, "difficulty", along={"budget.ladder": RUNGS}),
    Row("budget.limit", requests, 99),
    Row("budget.limit", collected, 15),
    Row("budget.limit", engines_started, 999),
    Row("budget.also", collected, [{"kind": "difficulty", "ladder": RUNGS}]),
    Row("budget[difficulty].ladder", collected, [{"share": 0.9}], LADDER),
    Row("budget[difficulty].ladder[].at_least", collected, 0.9, LADDER),
    Row("budget[difficulty].ladder[].share", collected, 0.4, LADDER),
    Row("budget.room", requests, 2.0),
    Row("budget[prompt].column", limits, "other", PROMPT | {"budget.column": "asked"}),
    Row("budget[prompt].least", limits, 0.9, PROMPT),
    Row("budget[reference].column", limits, "other", REFERENCE),
    Row("budget[reference].share", limits, 0.3, REFERENCE),
    Row("budget[reference].least", limits, 0.8, REFERENCE),
    Row("budget[coverage].watch", limits, 0.5, COVERAGE),
    Row("budget[coverage].every", limits, 3, COVERAGE),
    Row("budget[coverage].grid", limits, 0.9, COVERAGE | {"sampler.group_size": 8}),
    Row("budget[coverage].form", limits, "paper", COVERAGE | {"sampler.group_size": 8}),
    Row("budget[controller].watch", limits, 0.1, CONTROLLER),
    Row("budget[controller].every", limits, 2, CONTROLLER | {"budget.watch": 0.1}),
    Row("budget[controller].within", limits, 0.5, CONTROLLER),
    Row("budget[controller].measure", limits, 4, CONTROLLER),
    Row("budget[controller].smooth", limits, 0.0, CONTROLLER),
    Row("budget[controller].gain", limits, 0.1, CONTROLLER),
    Row("budget[controller].pace", limits, 0.01, CONTROLLER),
    Row("budget[controller].least", limits, 0.99, CONTROLLER),
    Row("budget[outlier].alpha", collected, 1.3, OUTLIER),
    Row("budget[outlier].least_cut", collected, 0.9, OUTLIER),
    Row("budget[toggle].period", limits, 3, TOGGLE),
    Row("budget[toggle].warmup", limits, 3, TOGGLE),
    Row("budget[toggle].percentile", limits, 20.0, TOGGLE),
    Row("budget[toggle].accuracy", limits, 0.99, TOGGLE),
    Row("budget[thinking].share", limits, 0.2, {"budget.kind": "thinking", "budget.limit": 128}),
    Row("schedule", limits, {"budget.limit": {"kind": "linear", "to": 20}}),
    Row("schedule[linear].share", limits, 0.5, {"schedule": {"budget.limit": {"kind": "linear", "share": 0.3}}}),
    Row("schedule[exponential].kind", limits, {"kind": "linear", "to": 20.0}, {"schedule": {"budget.limit": MOVES[0][0]}}),
    Row("schedule[staged].kind", limits, {"kind": "linear", "to": 20.0}, {"schedule": {"budget.limit": MOVES[3][0]}}),
    Row("schedule[staged].stages[].since", limits, 1, {"schedule": {"budget.limit": MOVES[3][0]}}),
    Row("schedule[staged].stages[].value", limits, 80.0, {"schedule": {"budget.limit": MOVES[3][0]}}),
    *(
        Row(f"schedule[{before['kind']}].{name}", limits, after, {"schedule": {"budget.limit": before}})
        for before, changes in MOVES
        for name, after in changes.items()
    ),
    Row("budget.cut", prepared, "mask"),
    Row("budget.cut_stop", whole_run, 0.5, stops=r"budget\.cut_stop 50\.0%"),
    Row("reward", collected, TERMS[:1]),
    Row("reward[verdict].kind", collected, "format", {"reward": [*TERMS, {"kind": "verdict"}]}),
    Row("reward[verdict].weight", collected, 2.0),
    Row("reward[truncate].kind", collected, "verdict"),
    Row("reward[truncate].keep", collected, 0.2),
    Row("reward[format].kind", collected, "verdict"),
    Row("reward[format].weight", collected, 0.2),
    Row("reward[format].gate", collected, "right"),
    Row("reward[format].form", shaped, "halves", reward_of("format")),
    *(Row(f"reward[{kind}].kind", shaped, "kimi" if kind != "kimi" else "triangle", reward_of(kind)) for kind in LENGTH_TERMS),
    *(
        Row(f"reward[{kind}].{name}", shaped, value, reward_of(kind, **company))
        for kind, numbers in LENGTH_TERMS.items()
        for name, (value, company) in (SHARED_NUMBERS | numbers).items()
    ),
    Row("reward[repetition].kind", shaped, "kimi", reward_of("repetition")),
    Row("reward[repetition].weight", shaped, 0.7, reward_of("repetition", size=5)),
    Row("reward[repetition].gate", shaped, "right", reward_of("repetition", size=5)),
    Row("reward[repetition].size", shaped, 5, reward_of("repetition")),
    Row("reward[repetition].form", shaped, "dense", reward_of("repetition", size=5)),
    Row("reward[closings].kind", shaped, "kimi", reward_of("closings")),
    Row("reward[closings].weight", shaped, 0.7, reward_of("closings")),
    Row("reward[closings].gate", shaped, "right", reward_of("closings")),
    Row("reward[closings].most", shaped, 1, reward_of("closings")),
    Row("reward[no_thinking].kind", shaped, "kimi", reward_of("no_thinking")),
    Row("reward[no_thinking].weight", shaped, 0.7, reward_of("no_thinking")),
    Row("reward[no_thinking].gate", shaped, "right", reward_of("no_thinking")),
    Row("reward[verdict].wrong", collected, -0.5),
    Row("reward[cut].kind", collected, "format", {"reward": CUT, "waive": ["length_of_wrong"]}),
    Row("reward[cut].weight", collected, 0.7, {"reward": CUT, "waive": ["length_of_wrong"]}),
    Row("reward[kl].kind", prepared, "cut", {"reward": KL_TERM, "waive": ["length_of_wrong"]}),
    Row("reward[kl].weight", prepared, 0.7, {"reward": KL_TERM}),
    Row("reward[kl].estimator", prepared, "k3", {"reward": KL_TERM}),
    Row("waive", whole_run, ["length_of_wrong"]),
    Row("reward[function].kind", collected, "format", {"reward": FUNCTION}),
    Row("reward[function].name", collected, "p29_rewards:length", {"reward": FUNCTION}),
    Row("reward[function].weight", collected, 0.05, {"reward": FUNCTION}),
    Row("reward[function].gate", collected, "right", {"reward": FUNCTION}),
    Row("reward[function].low", collected, 3.0, {"reward": FUNCTION}, stops="outside of 3 to 8"),
    Row("reward[function].high", collected, 3.0, {"reward": FUNCTION}, stops="outside of -1 to 3"),
    Row("judge.workers", whole_run, 1),
    Row("judge.wall_s", whole_run, 4.0),
    Row("judge.memory_mb", whole_run, 512),
    Row("judge.not_judged_limit", unjudged, 0.01, stops=r"judge\.not_judged_limit 1\.0%"),
    Row(
        "judge.over_limit", unjudged, "stop", {"judge.over_limit": "warn", "judge.not_judged_limit": 0.02}, stops=r"not_judged_limit 2\.0%"
    ),
    Row("judge.audit", collected, 2),
    Row("advantage.centre", prepared, "leave_one_out"),
    Row("advantage.scale", prepared, "none"),
    Row("advantage.ddof", prepared, 1),
    Row("advantage.combine", prepared, "each", {"waive": ["right_beats_wrong"]}),
    Row("advantage.combine", prepared, "each_leave_one_out", {"waive": ["right_beats_wrong"], "advantage.combine": "each"}),
    Row("advantage.weigh", prepared, "success"),
    Row("advantage.shorter", prepared, 0.1),
    Row("advantage.boost", prepared, 0.1),
    Row("select.kind", prepared, "shortest", along={"select.keep": 2}),
    *[
        Row(f"select[{kind}].{name}", prepared, value, KEPT | {"select.kind": kind})
        for kind in ("max_variance", "shortest", "efficient")
        for name, value in (("keep", 3), ("others", "zero"))
    ],
    Row("select[max_variance].of", prepared, "advantage", KEPT | {"select.kind": "max_variance"}),
    Row("select[max_variance].scope", chosen, "batch", KEPT | {"select.kind": "max_variance", "select.of": "advantage", "select.keep": 2}),
    Row("credit.kind", prepared, "entropy"),
    *[
        Row(f"credit[{kind}].{name}", prepared, value, along | {"credit.kind": kind})
        for kind, name, value, along in (
            ("thr", "steer", -0.1, {}),
            ("thr", "threshold", 0.1, {}),
            ("thr", "across", "mean", {}),
            ("nthr", "threshold", 0.0, {}),
            ("entropy", "weight", 0.2, {}),
            ("entropy", "most", 3.0, {}),
            ("clip_cov", "share", 0.5, {"credit.low": -9.0}),
            ("clip_cov", "low", 0.3, {"credit.low": -9.0}),
            ("clip_cov", "high", -0.1, {"credit.low": -9.0}),
            ("kl_cov", "share", 0.5, {}),
            ("kl_cov", "weight", 2.0, {}),
            ("gtpo", "level", "sequence", {}),
            ("gtpo", "base", 0.5, {}),
            ("gtpo", "weight", 0.3, {}),
            ("gtpo", "normalise", "apart", {}),
            ("drpo", "spread", 0.3, DRPO),
            ("drpo", "temperature", 0.3, DRPO),
        )
    ],
    Row("credit[decs].beta", prepared, 0.2, {"credit.kind": "decs"}),
    Row("credit[decs].form", prepared, "paper", {"credit.kind": "decs"}),
    Row("credit[decs].gain", eased, 0.1, DECS),
    Row("credit[decs].most", eased, 0.1, DECS),
    Row("credit[decs].words", eased, ["so"], DECS),
    Row("credit[efficiency].weight", prepared, 0.9, {"credit.kind": "efficiency", "advantage.scale": "none"}),
    Row("credit[efficiency].words", eased, ["so"], {"credit.kind": "efficiency"}),
    Row("tokens.kind", prepared, "entropy"),
    *[
        Row(f"tokens[{kind}].{name}", prepared, value, {"tokens.kind": kind})
        for kind in ("entropy", "importance")
        for name, value in (("keep", 0.7), ("denominator", "all"))
    ],
    Row("objective.ratio", trained, "sequence"),
    Row("objective.surrogate", trained, "cispo"),
    Row("objective.clip_low", trained, 0.1),
    Row("objective.clip_high", trained, 0.1),
    Row("objective.dual_clip", trained, 1.1),
    Row("objective.entropy.kind", trained, "adaptive", {"objective.entropy.coef": 0.1}, along={"objective.entropy.target": 9.0}),
    Row("objective.entropy.coef", trained, 0.1),
    Row("objective.entropy[adaptive].target", trained, 1.0, ADAPTIVE),
    Row("objective.entropy[adaptive].delta", trained, 0.1, ADAPTIVE),
    Row("objective.entropy[adaptive].most", trained, 0.102, ADAPTIVE),
    Row("objective.aggregate", prepared, "sequence_mean"),
    Row("objective.old_logprobs", trained, "learner"),
    Row("objective.kl.coef", trained, 0.5),
    Row("objective.kl.estimator", trained, "k3", KL),
    Row("objective.hinge.weight", trained, 1000.0),
    Row("objective.hinge.slack", trained, 0.0, {"objective.hinge.weight": 1000.0, "objective.hinge.slack": 0.01}),
    Row("objective.correction.kind", trained, "icepop", CORRECTED),
    Row("objective.correction[tis].high", trained, 1.001, CORRECTED | {"objective.correction.kind": "tis"}),
    *(
        Row(f"objective.correction[{kind}].{name}", trained, value, CORRECTED | {"objective.correction.kind": kind})
        for kind in ("clamp", "icepop", "sequence_mask")
        for name, value in (("low", 0.99), ("high", 1.004))
    ),
    Row("wires.empty_thinking", wired, 0.2),
    Row("wires.repetition", wired, 0.2),
    Row("wires.cut", wired, 0.2),
    Row("wires.short", wired, 0.5),
    Row("wires.entropy", wired, 0.02),
    Row("wires.action", wired, "stop", {"wires.cut": 0.2}),
    Row("cluster.kind", placed, "colocated", {"learner.ranks": 2, "engine.count": 2}),
    *(Row(f"cluster[{kind}].{key}", placed, n, ONE_EACH | {"cluster.kind": kind}) for kind in ("apart", "colocated") for key, n in NODES),
    *(Row(f"cluster[colocated].{key}", placed, new, SHARED) for key, new in (("sleep", False), ("offload", False))),
    Row("cluster.carrier", placed, "store", ONE_EACH),
    *(Row(f"cluster[{kind}].preemptible", submitted, True, {"cluster.kind": kind}) for kind in ("apart", "colocated")),
    Row("learner.ranks", trained, 2),
    Row("learner.zero_stage", trained, 1),
    Row("learner.lr", trained, 0.02),
    Row("learner.warmup_steps", trained, 4),
    Row("learner.weight_decay", trained, 0.1),
    Row("learner.grad_clip", trained, 0.001),
    Row("learner.updates_per_step", prepared, 2),
    Row("learner.micro_batch_tokens", trained, 16),
    Row("learner.nonfinite", poisoned, "stop", {"learner.nonfinite": "skip"}, stops="its reward is nan"),
    Row("learner.logit_chunk_tokens", trained, 5),
    Row("learner.gradient_checkpointing", trained, True),
    Row("learner.adapter.kind", trained, "lora"),
    *(Row(f"learner.adapter[lora].{name}", trained, value, LORA) for name, value in (("rank", 3), ("alpha", 8.0), ("targets", ["q_proj"]))),
    Row("learner.threads", trained, 1),
    Row("engine.kind", engines_started, "reference"),
    Row("engine.count", engines_started, 2),
    Row("engine.threads", engines_started, 2),
    Row("engine.vllm", engines_started, {"kv_cache_memory_bytes": 1 << 20, "max_num_seqs": 7}),
    Row("publish.check_every", whole_run, 1),
    Row("publish.tolerance", whole_run, 1e-12, stops=r"publish\.tolerance 1e-12"),
    Row("train.steps", whole_run, 1),
    Row("train.checkpoint_every", whole_run, 0),
    Row("train.keep_checkpoints", whole_run, 1),
    Row("train.keep_best", whole_run, 2, {"train.steps": 3, "train.keep_checkpoints": 1, "eval.every": 1}),
    Row("train.samples_per_step", whole_run, 3),
    Row("eval.data", evaluated, ["tiny", "rows.jsonl"]),
    Row("eval.benchmarks", evaluated, ["aime24@aime.jsonl"]),
    *(Row(f"eval.{key}", evaluated, value) for key, value in {"problems": 2, "samples": 3, "temperature": 0.7, "top_p": 0.9}.items()),
    *(Row(f"eval.{key}", evaluated, value) for key, value in {"top_k": 20, "max_tokens": 99, "margin": 0.02}.items()),
    Row("eval.max_tokens", engines_started, 99, {"stages": ["rl", "eval"]}),
    Row("eval.every", whole_run, 1),
    Row("eval.budgets", evaluated, [{"kind": "forced", "limit": 9}]),
    *(
        Row(f"eval.budgets[{kind}].{key}", evaluated, other, {"eval.budgets": [{"kind": kind, **numbers}]})
        for kind, numbers, changes in (
            ("forced", {"limit": 9}, {"limit": 10}),
            ("requested", {"limit": 9}, {"limit": 10}),
            ("short", {"first": 1, "of": 4}, {"first": 2, "of": 3}),
            ("extended", {"limit": 9, "waits": 1, "word": "wait"}, {"limit": 10, "waits": 2, "word": "again"}),
        )
        for key, other in {"kind": {"kind": "requested" if kind == "forced" else "forced", "limit": 9}, **changes}.items()
    ),
    Row("wandb", whole_run, "project"),
]


@pytest.fixture(scope="module")
def world(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("p29")
    rows = [{"problem": f"{i} + 1", "answer": i + 1, "question": f"{i} * 1", "gold": i} for i in range(9)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "more.jsonl").write_text("\n".join(json.dumps({"problem": f"{i} - 1", "answer": i - 1}) for i in range(9)))
    (folder / "aime.jsonl").write_text("\n".join(json.dumps({"problem": f"{i} + 5", "answer": i + 5}) for i in range(30)))
    (folder / "chats.jsonl").write_text(json.dumps({"prompt": "1 + 2", "completion": "3"}))
    (folder / "p29_rewards.py").write_text(
        "def remainder(completion_ids, **_): return [sum(ids) % 7 for ids in completion_ids]\n"
        "def length(completion_ids, **_): return [len(ids) % 5 for ids in completion_ids]\n"
    )

    def load_dataset(name: str, config: str | None, split: str, revision: str | None) -> Dataset:
        return Dataset.from_list([{"problem": f"{row['problem']} of {split}", "answer": row["answer"]} for row in rows])

    with pytest.MonkeyPatch.context() as patch, PlainJudge(0, 1.0, 1) as judge:  # plain numbers need no judging process
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setattr("datasets.load_dataset", load_dataset)
        patch.setattr("datasets.get_dataset_split_names", lambda *_, **__: ["train", "validation", "test"])
        yield World(tiny_checkpoint, judge, folder)


@pytest.fixture(scope="module")
def answer_of(world: World) -> Callable[[Row], Any]:
    """What a row's probe says of its base, asked once."""
    known: dict[str, Any] = {}

    def answer(row: Row) -> Any:
        name = f"{row.probe.__name__} {row.base}"
        if name not in known:
            known[name] = row.probe(recipe_of(world, BASES[row.probe], row.base), world)
        return known[name]

    return answer


def named(row: Row) -> str:
    return f"{row.key}-{row.probe.__name__}"


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_p29_changing_a_key_changes_what_the_run_does(world: World, answer_of: Callable[[Row], Any], row: Row):
    before = answer_of(row)
    changed = recipe_of(world, BASES[row.probe], row.base, row.along, {row.key: row.value})
    if row.stops:
        with pytest.raises((RuntimeError, ValueError), match=row.stops):
            row.probe(changed, world)
    else:
        assert row.probe(changed, world) != before, f"{row.key}: nothing that {row.probe.__name__} shows depends on it; is it read?"


@pytest.mark.parametrize("probe", BASES, ids=lambda probe: probe.__name__)
def test_p29_a_probe_says_the_same_of_recipes_that_differ_elsewhere(world: World, answer_of: Callable[[Row], Any], probe: Probe):
    """What differs with every run, or with any key, would show nothing."""
    idle = {"tiny.layers": 3} if probe is whole_run else {"name": "other"}
    base = {"learner.nonfinite": "skip"} if probe is poisoned else {}
    assert probe(recipe_of(world, BASES[probe], base, idle), world) == answer_of(Row("", probe, None, base))


def test_p29_the_set_of_keys_is_frozen():
    """ROWS is the list. Every key is one more thing to know: if a new one is meant, say there what changes with it, and run `python -m recipes.reference`."""
    rows, names = {row.key for row in ROWS}, {key.name for key in keys()}
    assert sorted(names - rows) == [], "keys without a row"
    assert sorted(rows - names) == [], "rows of keys that are gone"


def test_p29_there_are_fewer_than_120_keys_and_8_of_a_kind():
    names = [key.name for key in keys()]
    outside = [name for name in names if "[" not in name.replace("[]", "")]
    kinds = Counter(name.rpartition("]")[0] for name in names if name not in outside)
    assert len(outside) < 120 and max(kinds.values()) <= 8 + 1  # numbers of a kind, and `kind` itself
