"""The report's tables and reservations, as values: what stands behind the headline, and under which settings it was made."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evaluation import words
from evaluation.attempts import again
from evaluation.comparisons import Comparison
from evaluation.entries import Shown
from evaluation.results import IMPORTED, Estimate, Evaluation, Overlap, Point, Share
from evaluation.run_folder import Run
from evaluation.statistics import FEWEST, Interval, standard_errors

TOKEN_F1 = "Token F1, never a verdict"
_FEW = 3  # comparisons that sentences speak of
_SAMPLED = ("temperature", "top_p", "top_k", "max_tokens", "samples", "seed", "engine")  # settings of evaluations
_OWN_ADVANTAGE = ("decs", "drpo")  # kinds of credit that read neither centre nor scale
_PROMPTS = ("instruction", "stated_limit", "template", "date", "revision")
_JUDGED = ("lenient", "margin")
_CLAIMS = {
    "better": "more accurate",
    "not worse": "as accurate",
    "worse": "less accurate",
    "not shown": "not shown",
    "too few": "too few problems",
}


class Cell(NamedTuple):
    """What stands in a table, and what stands small behind it."""

    text: str
    small: str = ""


class Row(NamedTuple):
    """A line of a table; `sub` belongs to the line above it, in one that `differs` the cells are not alike."""

    label: str
    cells: list[Cell]
    sub: bool = False
    differs: bool = False


class Table(NamedTuple):
    """Lines under heads; the first column is the lines' labels."""

    head: list[str]
    rows: list[Row]


def noise_table(shown: Sequence[Shown]) -> Table:
    """Accuracy and length of each evaluation with n, k, budget, intervals, errors and shares (promise: no number without its noise)."""
    k = min(row.samples for one in shown for row in one.evaluation.per_problem)
    lenient = any(one.evaluation.stated for one in shown)
    overlaps = any(one.evaluation.token_f1 for one in shown)
    unit = words.unit(one.evaluation for one in shown)
    columns = [_numbers(one.evaluation, k, lenient, overlaps, unit) for one in shown]
    steps = [f", {_at(one)}" if one.run.trained and not one.label.startswith("step") else "" for one in shown]
    rows = [Row(label.strip(), [column[label] for column in columns], label.startswith(" ")) for label in columns[0]]
    budgets = [f", {budget.words}" if (budget := one.evaluation.settings.budget) else "" for one in shown]
    counted = [f", lengths in {ruler}" * bool(ruler) for ruler in words.rulers(one.evaluation for one in shown)]
    return Table(["".join(parts) for parts in zip([one.label for one in shown], steps, budgets, counted, strict=True)], rows)


def _at(one: Shown) -> str:
    """When in its run an evaluation was made: after which stage, where it has several that were evaluated, and after which of its steps."""
    stage = f"{one.run.stage(one.evaluation)}, " if len(one.run.stages) > 1 else ""
    return f"{stage}step {one.evaluation.step}"


def _numbers(evaluation: Evaluation, k: int, lenient: bool, overlaps: bool, unit: str) -> dict[str, Cell]:
    right_N = np.array([row.right for row in evaluation.per_problem])
    samples_N = np.array([row.samples for row in evaluation.per_problem])
    gen, fix = standard_errors(right_N, samples_N)
    accuracy, length = evaluation.accuracy, evaluation.tokens
    return {
        "Problems × samples": Cell(f"{evaluation.problems:,} × {words.samples_each(evaluation)}"),
        "Samples recorded, of those asked for": Cell(
            f"{samples_N.sum():,}" + f" of {evaluation.wanted:,}" * (evaluation.settings.engine != IMPORTED)
        ),
        "Budget": Cell(words.limit(evaluation.settings)),
        "Accuracy (mean of samples)": Cell(words.percent(accuracy.mean), bounds(accuracy, 100, 1)),
        **({" with stated answers (--lenient)": _with_bounds(evaluation.stated)} if lenient else {}),
        " standard error, new problems": Cell(words.percent(gen, 2)),
        " standard error, new samples": Cell(words.percent(fix, 2)),
        **({TOKEN_F1: overlap(evaluation.token_f1)} if overlaps else {}),
        "maj@n (cons@n), a vote of the n samples that every problem has": _with_bounds(evaluation.majority),
        **{again_label(name): Cell(words.percent(float(of_N.mean()))) for name, of_N in again(samples_N, right_N, k).items()},
        f"Mean {unit}": Cell(words.length(evaluation, unit), length_bounds(length)),
        " median, 90th percentile": Cell(f"{words.tokens(length.median)}, {words.tokens(length.p90)}"),
        " of right samples": Cell(words.tokens(length.right)),
        " of wrong samples": Cell(words.tokens(length.wrong)),
        "Cut off at the budget": Cell(words.percent(evaluation.truncated)),
        "No answer given": Cell(words.percent(evaluation.no_answer)),
        "Not judged": Cell(words.percent(evaluation.not_judged, 2)),
    }


def stages_table(run: Run) -> Table:
    """Every evaluation of a run whose stages were evaluated, in their order; without rows where there is none beside those that are compared."""
    told = run.evaluations
    if len({run.stage(one) for one in told}) < 2 or len(told) < 3:
        return Table([], [])
    several, unit = len({one.where for one in told}) > 1, words.unit(told)
    rows = [
        Row(
            f"{run.stage(one)}, step {one.step}" + (f", {one.where}" if several else ""),
            [_with_bounds(one.accuracy), Cell(words.length(one, unit), length_bounds(one.tokens)), Cell(words.percent(one.truncated))],
        )
        for one in told
    ]
    return Table(["accuracy", f"mean {unit}", "cut off"], rows)


def again_label(name: str) -> str:
    """What a number of `attempts.again` is called in tables, below pass@k."""
    kind = name.rstrip("0123456789")
    return {"pass@": name, "pass^": f" {name}, all of them right", "G-Pass@": f" {name}, half of them right"}.get(kind, f" {name}")


def overlap(found: Overlap | None) -> Cell:
    """Token F1 with its interval and the problems that it is of."""
    if found is None:
        return Cell("–")
    return Cell(
        words.percent(found.mean),
        f"{bounds(found, 100, 1)} of {found.problems:,} problem{'s' * (found.problems != 1)} with a gold in words",
    )


def _with_bounds(accuracy: Share | None) -> Cell:
    return Cell(words.percent(accuracy.mean), bounds(accuracy, 100, 1)) if accuracy else Cell("–")


def glance_table(found: Sequence[Comparison]) -> Table:
    """Every comparison in a line: accuracy and length with their changes, and what may be claimed."""
    rows, unit, adjusted = [], words.unit(one.new.evaluation for one in found), words.adjusted_p(found)
    for one, ruler in zip(found, words.rulers(one.new.evaluation for one in found), strict=True):
        evaluation = one.new.evaluation
        change = Cell("–", one.refused)
        saved = Cell("–")
        if one.bounds is not None:
            change = points(one.bounds)
        if one.length is not None:
            saved = relative(one.length, one.unit)
        cells = [
            Cell(evaluation.where),
            Cell(words.percent(evaluation.accuracy.mean)),
            change,
            Cell(words.length(evaluation, unit), ruler),
            saved,
            Cell(", ".join(f"{span.first:,}" + f" to {span.last:,}" * (span.last > span.first) for span in one.better) or "–"),
            Cell(_claim(one), "; ".join([*[f"Holm p {words.number(p, 2)}" for p in [words.doubted(one, adjusted)] if p], *one.remarks])),
        ]
        rows.append(Row(f"{one.new.label} against {one.old.label}", cells))
    margins = sorted({f"{100 * one.margin:g}" for one in found if one.claim})
    return Table(
        ["problems", "accuracy", "change", unit, "change", "better at budgets", f"claim (margin, points: {', '.join(margins)})"], rows
    )


def _claim(one: Comparison) -> str:
    """As the sentence says it: who loses accuracy for certain is never called as accurate."""
    if one.claim is None or one.bounds is None:
        return "not compared"
    less = one.claim in ("not worse", "not shown") and one.bounds.high < 0
    return f"less accurate{', within the margin' * (one.claim == 'not worse')}" if less else _CLAIMS[one.claim]


def reservations(runs: Sequence[Run], shown: Iterable[Shown], found: Iterable[Comparison]) -> list[str]:
    """What a careful reader should know before quoting the headline, as sentences."""
    shown = list(shown)
    sentences = [words_ for one in shown for words_ in _about(one, len(runs) > 1)]
    found = list(found)
    if len(found) <= _FEW:  # of more they stand in the tables of pairs
        sentences += [words_ for one in found for words_ in _power(one, len(found) > 1)]
    if shown:
        sentences.append(
            "Intervals are 95 % bootstrap intervals over problems (10,000 resamples); two checkpoints are compared problem by problem. "
            "That of their change of accuracy is wider by what so many problems do not show."
        )
    for run in runs:
        said = (_of_training(run) if run.trained else []) + run.notes
        sentences += [f"{run.label}: {sentence}" for sentence in said] if len(runs) > 1 else said
    return sentences


def _of_training(run: Run) -> list[str]:
    seed = run.recipe.get("seed")
    sentences = [
        f"One run with one seed{f' ({seed})' if seed is not None else ''}: how much another seed would differ is not in these intervals."
    ]
    tripped = [record["step"] for record in run.metrics if record.get("wire/tripped")]
    if tripped:
        steps = f"{len(tripped)} of {len(run.metrics)} steps, first step {tripped[0]}"
        sentences.append(f"Collapse wires were tripped in {steps}: read that step's samples, and the curves from there on.")
    short = sum(bool(record.get("groups/short")) for record in run.metrics)
    if short:
        sentences.append(
            f"{short} of {len(run.metrics)} steps trained on fewer groups than asked for, because the refill limit was reached."
        )
    unjudged = [record["not_judged"] for record in run.metrics if record.get("not_judged")]
    if unjudged:
        sentences.append(f"Training answers that could not be judged: at most {words.percent(max(unjudged), 2)} of a step.")
    audited = sum(record.get("audit/rows", 0) for record in run.metrics)
    if audited:
        here, there = (sum(record.get(f"audit/right_only_{side}", 0) for record in run.metrics) for side in ("here", "there"))
        sentences.append(
            f"Plain math-verify, as a second checker, gave {audited:,} training verdicts again: it called {here} wrong that are right here, "
            f"and {there} right that are wrong here" + (" (samples/, column audit)." if here or there else ".")
        )
    checks = [record["publish/check"] for record in run.metrics if record.get("publish/check") is not None]
    if checks:
        times = "once" if len(checks) == 1 else f"{len(checks)} times"
        sentences.append(
            f"Engine and learner were compared on a fixed batch {times} after updates: mean gap at most {words.number(max(checks), 2)} nats."
        )
    gaps = [record for record in run.metrics if record.get("gate/mean") is not None]
    if gaps:
        worst = max(gaps, key=lambda record: record["gate/mean"])
        sentences.append(
            f"Sampled tokens were scored again by the learner in {len(gaps)} of {len(run.metrics)} steps: mean gap at most {words.number(worst['gate/mean'], 2)} nats, "
            f"99 % of tokens within {words.number(worst['gate/p99'], 2)}."
        )
    return sentences + _overlap(run)


def _sets(recipe: Mapping[str, Any]) -> list[str]:
    """The sets of a recipe's data.train, written as a text or as a list of texts and mappings."""
    train = _dict(recipe, "data").get("train")
    named = [f"{item.get('source')} (weight {item.get('weight', 1)})" if isinstance(item, Mapping) else str(item) for item in _items(train)]
    return named or [_get(recipe, "data.train")]


def _stage(item: Any) -> str:
    """A stage of a recipe, written as its kind or as a mapping: its name, and its kind where that says more."""
    if not isinstance(item, Mapping):
        return str(item)
    kind, name = str(item.get("kind")), item.get("name")
    return f"{name} ({kind})" if name and name != kind else kind


def _overlap(run: Run) -> list[str]:
    """Which training rows an evaluation asks too, by evaluation."""
    file = run.path / "overlap.jsonl"
    rows: dict[str, list[str]] = {}
    try:
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
            pair = json.loads(line)
            rows.setdefault(str(pair["eval"]), []).append(str(pair["train_row"]))
    except (OSError, ValueError, LookupError, TypeError) as error:
        return [f"overlap.jsonl could not be read ({error}), so training rows that are also evaluation rows are not told."]
    return [
        f"{len(named)} training rows are also rows of {name} ({', '.join(named[:3])}{', ...' * (len(named) > 3)}; all in overlap.jsonl): "
        "its scores say less of what was learnt."
        for name, named in rows.items()
    ]


def _about(one: Shown, several: bool) -> list[str]:
    evaluation, sentences = one.evaluation, []
    at = f"{one.label}: " if several or not one.run.trained else f"At step {evaluation.step}, "
    if budget := evaluation.settings.budget:
        at += f"{budget.words}: "
    if evaluation.not_judged:
        most = evaluation.accuracy.mean + evaluation.not_judged
        sentences.append(
            f"{at}{words.percent(evaluation.not_judged, 2)} of the samples could not be judged. They stay in the denominator, so "
            f"accuracy is a lower bound; were all of them right, it would be {words.percent(most)}."
        )
    sentences += [f"{at}{warning}." for warning in words.warnings(evaluation, bool(evaluation.stated))]
    missing = evaluation.wanted - sum(row.samples for row in evaluation.per_problem)
    if missing > 0 and evaluation.settings.engine == IMPORTED:
        sentences.append(f"{at}problems have {words.samples_each(evaluation)} samples; each counts alike, whatever it has.")
    elif missing > 0:
        sentences.append(f"{at}{missing} samples that were asked for do not exist; their problems count with the samples they have.")
    return sentences


def detectable(one: Comparison) -> float | None:
    """The change of accuracy, a share, that 4 of 5 such comparisons would show: 2.8 standard errors, by the interval of claims. None without one."""
    if one.bounds is None or math.isnan(one.bounds.low) or one.problems < FEWEST:
        return None
    return 2.8 * (one.bounds.high - one.bounds.low) / (2 * 1.96)


def _power(one: Comparison, several: bool) -> list[str]:
    """What a comparison could have shown."""
    seen = detectable(one)
    if one.bounds is None or seen is None:
        return []
    which = f"{one.new.evaluation.where}, {one.new.label} against {one.old.label}: " if several else ""
    loss, said = round(-100 * one.bounds.low, 6), "any loss of accuracy is ruled out"
    if loss >= 0:  # 0 itself: where sign flips hold no change for possible
        said = (
            f"a loss of more than {words.number(loss)} points of accuracy is ruled out" if loss else "accuracy may not have changed at all"
        )
    return [
        f"{which}A change of accuracy of about {100 * seen:.1f} points would be seen in 4 of 5 such comparisons (2.8 standard errors).",
        f"{which}At this confidence, {said} (p of no difference {words.number(one.p, 2)}, {'exact McNemar' if one.moved else 'sign flips'} over problems).",
    ]


def settings_table(runs: Sequence[Run]) -> Table:
    """The recipes at a glance, side by side; keys that all of them lack are left out."""
    return _beside(runs, [_settings(run) for run in runs])


def _settings(run: Run) -> dict[str, str]:
    recipe = run.recipe
    last = next((one for one in reversed(run.evaluations) if not one.settings.budget), None) or next(iter(run.evaluations), None)
    made = last.settings.shown if last else {}
    limit = {"max_tokens": f"at most {words.limit(last.settings)}"} if last else {}
    said = {key: limit.get(key) or f"{key.replace('_', ' ')} {value}" for key, value in made.items()}
    evaluation = {
        label: ", ".join(said[key] for key in keys if key in said)
        for label, keys in {"Evaluation": _SAMPLED, "Its prompts": _PROMPTS, "Its judging": _JUDGED}.items()
    }
    budgets = dict.fromkeys(one.settings.budget.words for one in run.evaluations if one.settings.budget)
    measured = evaluation | {"Its budgets": ", ".join(budgets)}
    if not recipe:
        return measured
    lines = {
        "Recipe": [f"{_get(recipe, 'name')}, seed {_get(recipe, 'seed')}"],
        "Model": [_get(recipe, "model.path"), _get(recipe, "model.revision"), _get(recipe, "model.dtype")],
        "Stages": [" → ".join(map(_stage, _items(recipe.get("stages"))))],
        "Problems": _sets(recipe),
        "Step": [
            f"{_get(recipe, 'sampler.prompts')} prompts × {_get(recipe, 'sampler.group_size')} rollouts",
            f"temperature {_get(recipe, 'sampler.temperature')}",
        ],
        "Groups kept": [_get(recipe, "sampler.keep_groups")],
        "Length limit": [f"{_get(recipe, 'budget.limit')} tokens", _get(recipe, "budget.kind"), *_also(recipe)],
        "Moved by schedules": _moved(recipe.get("schedule")),
        "Reward": [_term(term) for term in _items(recipe.get("reward"))],
        "Promises waived": _waived(recipe),
        "Selection": [_slot(recipe, "select", "all")],
        "Tokens": [_slot(recipe, "tokens", "all")],
        "Credit": [_slot(recipe, "credit", "even")],
        "Advantage": []
        if _get(recipe, "credit.kind") in _OWN_ADVANTAGE
        else [f"centre {_get(recipe, 'advantage.centre')}", f"scale {_get(recipe, 'advantage.scale')}"],
        "Adapter": [_slot(_dict(recipe, "learner"), "adapter", "full")],
        "Objective": [
            _clip(recipe),
            _get(recipe, "objective.aggregate"),
            _kl(recipe),
        ],
        "Learner": [
            f"{_get(recipe, 'learner.ranks')} ranks, ZeRO {_get(recipe, 'learner.zero_stage')}",
            f"learning rate {_get(recipe, 'learner.lr')}",
        ],
        "Engine": [f"{_get(recipe, 'engine.count')} × {_get(recipe, 'engine.kind')}"],
        "Training": [f"{_get(recipe, 'train.steps')} steps"],
    }
    return {label: ", ".join(part for part in parts if part) for label, parts in lines.items()} | measured


def versions_table(runs: Sequence[Run]) -> Table:
    """environment.json of each run, flattened, side by side."""
    return _beside(runs, [dict(_flat(run.environment)) for run in runs])


def _beside(runs: Sequence[Run], columns: Sequence[Mapping[str, str]]) -> Table:
    """Columns by name; lines in which they differ are marked."""
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = []
    for name in names:
        found = [column.get(name, "") for column in columns]
        if any(found):
            rows.append(Row(name, [Cell(text) for text in found], differs=len(set(found)) > 1))
    return Table([run.label for run in runs] if len(runs) > 1 else [], rows)


def _get(recipe: Mapping[str, Any], key: str) -> str:
    value: Any = recipe
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)


def _items(value: Any) -> list[Any]:
    """What a list holds; what should be a list and is none, as it stands."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _moved(schedules: Any) -> list[str]:
    """Each number that takes a schedule, and how."""
    lines = []
    for name, schedule in schedules.items() if isinstance(schedules, Mapping) else ():
        how = {key: value for key, value in schedule.items() if value is not None} if isinstance(schedule, Mapping) else {"kind": schedule}
        rest = ", ".join(f"{key} {value}" for key, value in how.items() if key != "kind")
        lines.append(f"{name} {how.get('kind', '')}{f' ({rest})' if rest else ''}")
    return lines


def _dict(recipe: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = recipe.get(key)
    return value if isinstance(value, Mapping) else {}


def _slot(recipe: Mapping[str, Any], key: str, plain: str) -> str:
    """A slot's kind with its numbers; "" where it is the one that does nothing."""
    numbers = _dict(recipe, key)
    kind = str(numbers.get("kind") or recipe.get(key) or "")
    rest = ", ".join(f"{name} {value}" for name, value in numbers.items() if name != "kind" and value not in (None, []))
    return "" if kind in ("", plain) else f"{kind}{f' ({rest})' if rest else ''}"


def _clip(recipe: Mapping[str, Any]) -> str:
    """What the surrogate bounds."""
    surrogate = _get(recipe, "objective.surrogate") or "clip"
    bounds = f"−{_get(recipe, 'objective.clip_low')} / +{_get(recipe, 'objective.clip_high')}"
    return f"surrogate {surrogate}" if surrogate == "logp" else f"{surrogate} {bounds}"


def _waived(recipe: Mapping[str, Any]) -> list[str]:
    """Promises that the recipe waives, in all or in one of its stages."""
    stages = [stage.get("changes") for stage in _items(recipe.get("stages")) if isinstance(stage, Mapping)]
    every = [recipe, *(changes for changes in stages if isinstance(changes, Mapping))]
    return list(dict.fromkeys(str(promise).replace("_", " ") for part in every for promise in _items(part.get("waive"))))


def _also(recipe: Mapping[str, Any]) -> list[str]:
    """Further kinds of budget that hold, by name."""
    return [f"and {_get(kind, 'kind')}" for kind in _items(_dict(recipe, "budget").get("also")) if isinstance(kind, Mapping)]


def _term(term: Any) -> str:
    if not isinstance(term, Mapping):
        return str(term)
    rest = [f"{key} {value}" for key, value in term.items() if key != "kind"]
    return f"{term.get('kind')} ({', '.join(rest)})" if rest else str(term.get("kind"))


def _kl(recipe: Mapping[str, Any]) -> str:
    coef = _get(recipe, "objective.kl.coef")
    return "no KL" if coef in ("", "0", "0.0") else f"KL {coef} ({_get(recipe, 'objective.kl.estimator')})"


def _flat(tree: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield key.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def points(change: Interval | None) -> Cell:
    """A change of a share with its interval."""
    return Cell("") if change is None else Cell(f"{words.signed(100 * change.mean)} points", f"[{words.span(change)}]")


def relative(change: Interval | None, unit: str = "tokens") -> Cell:
    """A relative change with its interval, of tokens or what else is said."""
    if change is None:
        return Cell("")
    return Cell(f"{words.signed(100 * change.mean, 0)} %", f"[{words.span(change, 0)}]" + f" {unit}" * (unit != "tokens"))


def length_bounds(length: Estimate) -> str:
    """An interval of a mean length, to as many digits as the mean has beside it."""
    return bounds(length, 1, 0 if length.mean >= 9.95 else 1)


def bounds(value: Estimate | Point, scale: float, digits: int) -> str:
    """The interval of a mean, "" without one."""
    if value.low is None or value.high is None:
        return ""
    return f"[{scale * value.low:,.{digits}f}, {scale * value.high:,.{digits}f}]"
