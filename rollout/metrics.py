"""Every number that a step records, by name: its unit, what it means, when it is null. docs/metrics.md and the report's curves are made of it.

Whatever is in metrics.jsonl is listed here, and whatever is listed here is recorded somewhere; tests hold both. Plain data; it lives in the
first room of the house that records. Simplification: `<...>` in a name stands for anything, `<N>` for a whole number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """One number of a step.

    Attributes:
        name: its key in metrics.jsonl, with what varies in angle brackets.
        unit: "share" is 0 to 1; "" has none.
        meaning: what it is, of which rollouts, tokens or groups.
        null: why it may be null; "" never is.
        only: in which runs or steps it is there at all; "" is in each.
        panel: title of the chart that it is a curve of; metrics of a panel share their unit. "" is not drawn: another curve or the text says it.
        label: the curve's words in its caption; may name what varies.
        still: what it means that it has one value throughout the run.
    """

    name: str
    unit: str
    meaning: str
    null: str = ""
    only: str = ""
    panel: str = ""
    label: str = ""
    still: str = ""


_NO_UPDATE = "no update was made"
_NOTHING_TRAINED = "nothing trained"
_CHECKED = "steps that checked"
_CONTROLLER = "the budget controller"
_COVERAGE = "the budget coverage"
_THINKING = "the budget thinking"
_SHARED = "engines and ranks share GPUs"
_VLLM = "engines of vLLM"
_WATCHED = "steps that looked at problems apart"
_REDUNDANT = "credit that looks for thoughts behind the answer"
_CREDIT = "any credit but even, in steps that train"
_CORRECTION = "with a mismatch correction"

SECTIONS: dict[str, tuple[Metric, ...]] = {
    "What was sampled": (
        Metric("step", "steps", "The step, from 0."),
        Metric("time", "seconds", "From the first step on; of a run that was resumed without starts, and without what was done in vain."),
        Metric(
            "accuracy",
            "share",
            "Right of all judged rollouts, before any group was left out.",
            "no answer was judged",
            panel="Accuracy",
            label="right of all judged rollouts",
        ),
        Metric(
            "accuracy/closed",
            "share",
            "Right of judged rollouts whose thinking the engine closed.",
            "there was none",
            _THINKING,
            "Accuracy",
            "thinking closed by the engine",
        ),
        Metric(
            "accuracy/free",
            "share",
            "Right of the other judged rollouts.",
            "there was none",
            _THINKING,
            "Accuracy",
            "thinking closed by itself",
        ),
        Metric(
            "monitor/accuracy",
            "share",
            "Right of the rollouts of problems sampled apart.",
            "",
            _WATCHED,
            "Accuracy",
            "of problems sampled apart",
        ),
        Metric("length/wrong", "tokens", "Mean length of wrong rollouts.", "none was wrong", panel="Length", label="wrong"),
        Metric("length/right", "tokens", "Mean length of right rollouts.", "none was right", panel="Length", label="right"),
        Metric("length/mean", "tokens", "Mean length of all rollouts, before any group was left out.", panel="Length", label="mean"),
        Metric("monitor/length", "tokens", "Mean length of problems sampled apart.", "", _WATCHED, "Length", "of problems sampled apart"),
        Metric("limit", "tokens", "Mean of the limits that requests state.", panel="Length", label="limit"),
        Metric(
            "limit/rewarded",
            "tokens",
            "Mean of the limits that rewards went by: of a rung, a percentile, a class, a cut.",
            "nothing was rewarded",
            panel="Length",
            label="limit rewarded",
        ),
        Metric(
            "length/q_<N>",
            "tokens",
            "Length that N per cent of all rollouts do not exceed.",
            panel="Lengths, quantiles",
            label="<N> % are no longer",
        ),
        Metric(
            "length/between",
            "share",
            "Of the variance of lengths, what lies between groups.",
            "all lengths are equal, or groups are few",
        ),
        Metric("truncated", "share", "Rollouts cut off by their engine's limit.", panel="Cut off, not judged", label="cut off"),
        Metric("not_judged", "share", "Rollouts without a verdict.", panel="Cut off, not judged", label="not judged"),
        Metric("groups/trained", "groups", "Groups that train.", panel="Groups sampled", label="trained"),
        Metric("groups/all_right", "groups", "Left out: all right.", panel="Groups sampled", label="all right"),
        Metric("groups/all_wrong", "groups", "Left out: all wrong.", panel="Groups sampled", label="all wrong"),
        Metric(
            "groups/flat", "groups", "Left out: right and wrong, and yet of one reward.", panel="Groups sampled", label="constant reward"
        ),
        Metric("groups/surplus", "groups", "Worth training on, but not needed.", panel="Groups sampled", label="surplus"),
        Metric("groups/not_judged", "groups", "Left out: an answer without a verdict.", panel="Groups sampled", label="not judged"),
        Metric("groups/sampled", "groups", "Groups sampled, refills with them."),
        Metric("groups/short", "0 or 1", "1 if the refill limit was reached before `sampler.prompts` groups were worth training on."),
        Metric("tokens/sampled", "tokens", "Lengths of all rollouts added up.", panel="Tokens of a step", label="sampled"),
        Metric("tokens/trained", "tokens", "Tokens of the updates.", panel="Tokens of a step", label="trained"),
        Metric("prompts/too_long", "prompts", "Left out so far, over `data.max_prompt_tokens`.", panel="Prompts too long", label="so far"),
        Metric("wire/empty_thinking", "share", "Rollouts whose thinking holds nothing.", panel="Signs of collapse", label="empty thinking"),
        Metric("wire/repetition", "share", "Rollouts that repeat themselves.", panel="Signs of collapse", label="repetition"),
        Metric("wire/tripped", "wires", "Collapse wires beyond their bounds.", panel="Collapse wires tripped", label="beyond their bounds"),
    ),
    "Budget": (
        Metric("budget/share", "share", "Share of the limit that held in the step.", "", _CONTROLLER, "Controller", "share of the limit"),
        Metric(
            "budget/accuracy", "share", "Running mean of accuracy, after the step.", "", _CONTROLLER, "Controller", "accuracy, smoothed"
        ),
        Metric(
            "budget/floor", "share", "The accuracy that it is not to fall under, after the step.", "", _CONTROLLER, "Controller", "floor"
        ),
        Metric("budget/easy", "tokens", "Limit of easy prompts, after the step.", "", _COVERAGE, "Limits by class", "easy"),
        Metric("budget/medium", "tokens", "Limit of medium prompts, after the step.", "", _COVERAGE, "Limits by class", "medium"),
        Metric("budget/hard", "tokens", "Limit of hard prompts, after the step.", "", _COVERAGE, "Limits by class", "hard"),
        Metric("budget/closed", "share", "Rollouts whose thinking the engine closed.", "", _THINKING, "Thinking", "closed by the engine"),
        Metric(
            "budget/evaded",
            "share",
            "Of these, those that thought on and closed it once more themselves.",
            "",
            _THINKING,
            "Thinking",
            "thought on",
        ),
        Metric(
            "thinking/skipped",
            "share",
            "Rollouts, of those free to think, that close it at once by themselves.",
            "",
            "sampler.no_thinking",
            "Thinking",
            "skipped by choice",
        ),
        Metric("budget/outliers", "rollouts", "Rollouts that were cut.", "", "the budget outlier", "Outliers", "cut"),
    ),
    "Reward, advantage, credit": (
        Metric(
            "reward/<term>",
            "",
            "Mean of a term, weight and gate included, over rollouts that train; of a function, `<term>` is its name.",
            _NOTHING_TRAINED,
            panel="Reward",
            label="<term>",
        ),
        Metric(
            "reward/mean", "", "Mean reward of rollouts that train, all terms included.", _NOTHING_TRAINED, panel="Reward", label="mean"
        ),
        Metric("reward/lambda", "", "Leash's multiplier that held in the step.", "", "reward term leash", "Leash", "multiplier"),
        Metric(
            "function/<name>",
            "",
            "Mean of what reward functions logged under this name.",
            "all they logged was None",
            "reward functions that log it",
            "Logged: <name>",
            "mean over the step",
        ),
        Metric("advantage/max", "", "Largest |advantage| of a token that trains.", panel="Advantage", label="largest"),
        Metric(
            "advantage/constant",
            "share",
            "Part of sum |advantage| x weight x tokens that comes from groups all right or all wrong.",
            "every advantage is 0",
            panel="Push of groups all right or all wrong",
            label="of the whole push",
        ),
        Metric(
            "groups/easy",
            "groups",
            "Groups of right answers alone that trained by kappa.",
            "",
            "credit.kind decs",
            "All right, and trained",
            "let in by kappa",
        ),
        Metric("groups/zero", "groups", "Trained on, with every advantage 0.", panel="Groups without advantage", label="every advantage 0"),
        Metric(
            "groups/nonfinite",
            "groups",
            "Left out for a reward or logprob that is no finite number.",
            panel="Groups not finite",
            label="left out",
        ),
        Metric(
            "selected",
            "share",
            "Rollouts that train, of those of the groups that do.",
            _NOTHING_TRAINED,
            panel="Selection",
            label="of rollouts",
        ),
        Metric(
            "tokens/kept",
            "share",
            "Tokens that train, of those of the rollouts that do.",
            _NOTHING_TRAINED,
            "tokens chooses",
            "Selection",
            "of their tokens",
        ),
        Metric("credit/changed", "share", "Trained tokens whose advantage the credit changed.", "", _CREDIT, "Credit", "changed"),
        Metric("credit/zero", "share", "Trained tokens whose advantage the credit left at 0.", "", _CREDIT, "Credit", "left at 0"),
        Metric("credit/idle", "groups", "Groups that the credit had nothing to say of.", "", _CREDIT, "Credit idle", "nothing to say of"),
        Metric(
            "credit/redundant",
            "share",
            "Tokens of right answers that are thought although the answer is there.",
            "none was right",
            _REDUNDANT,
            "Thoughts of right answers",
            "behind the answer",
        ),
        Metric(
            "credit/unreached",
            "share",
            "Right answers whose thinking never reaches the gold.",
            "none was right",
            _REDUNDANT,
            "Thoughts of right answers",
            "never reach it",
        ),
        Metric(
            "credit/ratio",
            "share",
            "Chunks up to the first that reaches the gold, mean of right answers that trained.",
            "none reached it",
            _REDUNDANT,
            "Thoughts of right answers",
            "chunks up to it",
        ),
        Metric(
            "credit/kappa",
            "share",
            "Groups of right answers alone that were let in, of the step's.",
            "",
            "credit.kind decs",
            "Thoughts of right answers",
            "kappa",
        ),
    ),
    "Learner": (
        Metric("loss", "", "Mean over the step's updates. Of a policy gradient it says nothing of progress.", _NO_UPDATE),
        Metric(
            "entropy",
            "nats per token",
            "Of the policy, mean over trained tokens.",
            _NO_UPDATE,
            panel="Entropy",
            label="of the policy, mean over tokens",
        ),
        Metric("entropy/weight", "", "Weight of the entropy bonus in the step.", panel="Entropy bonus", label="weight"),
        Metric(
            "clip_fraction",
            "share",
            "Trained tokens whose loss clipping decides: a ratio outside the clip range counts where the clipped loss is the larger one (of `cispo`, always).",
            _NO_UPDATE,
            panel="Clip fraction",
            label="ratio outside the clip range",
            still="with one update a step the ratio is 1, and nothing can leave the range",
        ),
        Metric(
            "ratio/mean",
            "",
            "Mean of policy / sampling policy over trained tokens.",
            _NO_UPDATE,
            panel="Ratio",
            label="new to old policy",
            still="one update a step, which starts from the policy that sampled",
        ),
        Metric(
            "kl",
            "nats per token",
            "Estimate of the distance to the reference on trained tokens.",
            f"not measured, as objective.kl.coef is 0; or {_NO_UPDATE}",
            panel="KL to the reference",
            label="estimate on sampled tokens",
        ),
        Metric("grad_norm", "", "Largest of the step's updates.", _NO_UPDATE, panel="Gradient norm", label="before clipping"),
        Metric("lr", "", "Learning rate.", panel="Learning rate", label="of the step"),
        Metric(
            "updates/skipped",
            "updates",
            "Left out for a loss or gradient that is no finite number.",
            panel="Updates not finite",
            label="left out",
        ),
        Metric("correction/weight", "", "Mean weight of the mismatch correction.", "", _CORRECTION, "Mismatch correction", "mean weight"),
        Metric(
            "correction/kept_<N>",
            "share",
            "Tokens with weight above 0, by decile of rollout length: 0 shortest, 9 longest.",
            "the decile has no tokens",
            _CORRECTION,
            "Kept by the correction",
            "decile <N>",
        ),
    ),
    "Engines, checks, time": (
        Metric(
            "mismatch/mean",
            "nats",
            "|learner - engine| logprob of sampled tokens, with the policy before the step's first update; of the whole update where the ratio divides by engine logprobs.",
            _NO_UPDATE,
            panel="Learner against engine",
            label="mean gap of logprobs",
        ),
        Metric("mismatch/max", "nats", "Largest of these.", _NO_UPDATE, panel="Learner against engine", label="largest"),
        Metric(
            "publish/check",
            "nats",
            "Mean of these on the fixed batch, after publishing.",
            "",
            _CHECKED,
            "Learner against engine",
            "fixed batch",
        ),
        Metric("gate/mean", "nats", "Mean of these on 64 rollouts, before the update.", "", _CHECKED),
        Metric("gate/p99", "nats", "99th percentile of these.", "", _CHECKED, "Learner against engine", "gate, 99th percentile"),
        Metric(
            "gate/from_<N>",
            "nats",
            "Their mean from position N of the response to the next such place.",
            "",
            f"{_CHECKED}, where tokens are enough",
            "Gate by position",
            "from <N>",
        ),
        Metric("gate/surprise", "nats", "Mean of -logp - entropy of these tokens, 0 for an honest sampler.", "", _CHECKED),
        Metric(
            "gate/surprise_z", "standard errors", "That in its standard errors.", "", _CHECKED, "Surprise of the gate", "-logp - entropy"
        ),
        Metric(
            "publish/changed", "share", "Tensors that this step's updates changed.", panel="Tensors changed", label="by the step's updates"
        ),
        Metric("audit/rows", "answers", "Verdicts given again by a second checker."),
        Metric("audit/right_only_here", "answers", "Right here, wrong there.", panel="Second checker disagrees", label="right here only"),
        Metric("audit/right_only_there", "answers", "Wrong here, right there.", panel="Second checker disagrees", label="right there only"),
        Metric(
            "engines/busy",
            "share",
            "Of `seconds/sample`, that engines were at work.",
            "",
            _VLLM,
            "Engines at work",
            "of the time that sampling took",
        ),
        Metric(
            "engines/step",
            "seconds",
            "Of an engine's step with few sequences, by a straight line through the steps (rollout/pace); on a CPU, of its processor.",
            "all steps had the same number of sequences",
            _VLLM,
        ),
        Metric(
            "engines/step_each",
            "seconds",
            "More with each sequence that runs; on a CPU, of the processor.",
            "all steps had the same number of sequences",
            _VLLM,
        ),
        Metric(
            "engines/take",
            "seconds",
            "Of a step in which all that runs came just then, by sequence; on a CPU, of the processor.",
            "there was none",
            _VLLM,
        ),
        Metric("engines/core", "share", "Processor time of engines' steps by the time that they took: of a core, on a CPU.", "", _VLLM),
        Metric("engines/calls", "calls", "Slices of time that engines were asked to sample in.", "", _VLLM),
        Metric("engines/restarts", "restarts", "Since engines were started.", panel="Engines started again", label="so far"),
        Metric("engines/given_up", "engines", "That could not be started again, since engines were started."),
        Metric(
            "learner/restarts",
            "restarts",
            "Times that a rank or Ray was lost and the stage went back to a checkpoint in this process.",
        ),
        Metric(
            "tokens_per_s",
            "tokens/s",
            "Sampled tokens by the step's time, `seconds/watch` left out.",
            panel="Throughput",
            label="sampled tokens",
        ),
        Metric("seconds/sample", "seconds", "Sampling and judging.", panel="Time per step", label="sample"),
        Metric("seconds/watch", "seconds", "Problems sampled apart.", "", _WATCHED, "Time per step", "watch"),
        Metric("seconds/update", "seconds", "From groups to new weights.", panel="Time per step", label="update"),
        Metric("seconds/publish", "seconds", "New weights to the engines, and their check.", panel="Time per step", label="publish"),
        Metric(
            "seconds/turns",
            "seconds",
            "Engines and learner changing places on GPUs that they share; half of it is in seconds/publish, too.",
            "",
            _SHARED,
            "Time per step",
            "turns",
        ),
        Metric("seconds/judge", "seconds", "Of seconds/sample, added up over judging processes: comparisons, beside the engines."),
        Metric("seconds/score", "seconds", "Of seconds/sample, the driver's processor time for texts, rewards and the choice of groups."),
        Metric("seconds/poll", "seconds", "Of seconds/sample, the driver's processor time for asking engines."),
        Metric("seconds/step", "seconds", "The whole step."),
    ),
}

METRICS = tuple(metric for section in SECTIONS.values() for metric in section)


@cache
def find(name: str) -> Metric | None:
    """The entry of a recorded name, None if there is none; one that is listed as it stands comes before one that varies."""
    fitting = (metric for metric in sorted(METRICS, key=lambda metric: "<" in metric.name) if varying(metric, name) is not None)
    return next(fitting, None)


def varying(metric: Metric, name: str) -> str | None:
    """What a recorded name says in the place that varies in a metric's ("" where nothing does), None if it is another metric's."""
    before, _, rest = metric.name.partition("<")
    what, _, after = rest.partition(">")
    pattern = (r"(\d+)" if what == "N" else "(.*)") if what else "()"
    found = re.fullmatch(re.escape(before) + pattern + re.escape(after), name)
    return found[1] if found else None


def strange(record: Mapping[str, Any]) -> list[str]:
    """What a line of metrics.jsonl holds beyond this list: names that are not in it, and nulls of what is never null."""
    said = []
    for name, value in record.items():
        metric = find(name)
        if metric is None:
            said.append(f"{name} is not listed in rollout/metrics.py; add it")
        elif value is None and not metric.null:
            said.append(f"{name} is null; rollout/metrics.py must say when")
    return said


_HEAD = """# Metrics

<!-- Made by `python -m rollout.metrics` from rollout/metrics.py. Change that. -->

`metrics.jsonl` of a run folder holds one flat JSON object a step; TensorBoard and W&B get the same numbers. A value that does not exist in a
step is null, for the reason given. A share is from 0 to 1, a token is one of the policy's, a length counts what the model sampled and nothing that was put there.
"""


def page() -> str:
    """The whole text of docs/metrics.md."""
    parts = [_HEAD]
    for title, metrics in SECTIONS.items():
        parts += [f"## {title}\n", _table(metrics)]
    return "\n".join(parts)


def _table(metrics: Sequence[Metric]) -> str:
    lines = ["| name | unit | meaning | there | null |", "|---|---|---|---|---|"]
    for metric in metrics:
        cells = (f"`{metric.name}`", metric.unit, metric.meaning, metric.only, metric.null)
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent.parent / "docs" / "metrics.md").write_text(page(), encoding="utf-8")
