"""A report in other forms than the page: Markdown for a text, JSON for a program."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from typing import Any

from evaluation import words
from evaluation.attempts import again
from evaluation.budgets import budget_table
from evaluation.comparisons import Comparison, Found, pooled, samples_of
from evaluation.entries import at_budgets
from evaluation.paired import classes, moved_again, paired_table, reached
from evaluation.parallel import curves, several_table
from evaluation.results import Evaluation
from evaluation.tables import Cell, Table, noise_table, reservations, settings_table, stages_table
from evaluation.unsaid import unsaid

_NAMED = 6  # comparisons whose p a sentence names
_MARKS = re.compile(  # code, in which none is one, and marks: `_` not within a word, and what makes a link of [x] or says where it leads
    r"(?P<code>(?<!`)(?P<ends>`+)(?!`).+?(?<!`)(?P=ends)(?!`))|[\\|*~`&<]|(?<![^\W_])_|_(?![^\W_])|(?<=\])[(\[:]"
)
_NAMES = {"&": "&amp;", "<": "&lt;"}


def markdown(found: Found) -> str:
    """Headline, tables and reservations as Markdown."""
    ends = [(run, *words.status(run)) for run in found.runs if run.trained]
    ended = [f"{run.label}: {sentence}" for run, state, sentence in ends if state != "finished"]
    lines = [f"# {escaped(found.title)}", "", *[f"{escaped(sentence)}\n" for sentence in [*sentences(found), *ended]]]
    for source in found.sources:
        lines += [f"## {escaped(source)}", "", table(noise_table(found.main(source))), ""]
        if (budgets := budget_table(found, source)).rows:
            lines += ["### At budgets that were asked for", "", table(budgets), ""]
        if (several := several_table(found, source)).rows:
            lines += ["### Several samples of a problem", "", table(several), ""]
        for pair in found.pairs.get(source, []):
            lines += [f"### {escaped(f'{pair.new.label} against {pair.old.label}')}", "", table(paired_table(pair)), ""]
    for run in found.runs:
        if (stages := stages_table(run)).rows:
            lines += [f"## {escaped(f'{run.label}, stage by stage')}", "", table(stages), ""]
    lines += [
        "## How sure this is",
        "",
        *[f"- {escaped(sentence)}" for sentence in reservations(found.runs, found.every, found.comparisons)],
        "",
    ]
    settings = settings_table(found.runs)
    return "\n".join([*lines, "## Settings", "", table(settings), ""])


def sentences(found: Found) -> list[str]:
    """What may be said in one sentence each: of every comparison, of evaluations that stand alone, and of several claims at once; and what cannot."""
    return words.headline(found.comparisons, len(found.runs)) + [words.single(one) for one in found.alone] + together(found) + unsaid(found)


def together(found: Found) -> list[str]:
    """What several comparisons say in one, and what several claims at once cost; nothing for one."""
    return [words.pooled(one) for one in pooled(found.comparisons)] + adjusted(found)


def adjusted(found: Found) -> list[str]:
    claims = [pair for pair in found.comparisons if not pair.refused]
    if len(claims) < 2:
        return []
    by_id = words.adjusted_p(claims)
    all_ = [(pair, by_id[id(pair)]) for pair in claims]
    told = all_ if len(all_) <= _NAMED else sorted(all_, key=lambda one: one[1])[:_NAMED]
    named = ", ".join(
        f"{pair.new.evaluation.where}{f', {pair.new.label}' if len(found.runs) > 2 else ''} {words.number(p, 2)}" for pair, p in told
    )
    which = "" if told == all_ else f"; the {_NAMED} smallest"
    return [f"p of no difference of accuracy, adjusted for {len(claims)} comparisons (Holm){which}: {named}."]


def table(of: Table) -> str:
    """A table as Markdown."""
    width = max([len(row.cells) for row in of.rows] + [len(of.head)])
    heads = [*of.head, *[""] * (width - len(of.head))]
    lines = ["| " + " | ".join(["", *(escaped(head, cell=True) for head in heads)]) + " |", "|" + "---|" * (width + 1)]
    for row in of.rows:
        label = ("&nbsp;&nbsp;" if row.sub else "") + escaped(row.label, cell=True) + (" (differ)" if row.differs else "")
        lines.append("| " + " | ".join([label, *(_cell(one) for one in row.cells)]) + " |")
    return "\n".join(lines)


def as_json(found: Found) -> str:
    """Every evaluation whole, and every comparison, as JSON."""
    content: dict[str, Any] = {
        "entries": [
            {"label": run.label, "trained": run.trained, "status": run.status, "recipe": run.recipe, "environment": run.environment}
            | {"notes": run.notes}
            for run in found.runs
        ],
        "evaluations": [
            {"label": one.label, "entry": one.run.label} | one.evaluation.model_dump(mode="json") | {"attempts": _attempts(one.evaluation)}
            for shown in found.shown.values()
            for one in shown
        ],
        "at_budgets": [
            {"entry": run.label} | evaluation.model_dump(mode="json") | {"attempts": _attempts(evaluation)}
            for source in found.sources
            for run, evaluation in at_budgets(found.runs, source)
        ],
        "stages": [
            {"entry": run.label, "stage": run.stage(one)} | one.model_dump(mode="json")
            for run in found.runs
            if stages_table(run).rows
            for one in run.evaluations
        ],
        "several_samples": [
            {
                "label": one.label,
                "entry": one.run.label,
                "source": source,
                "method": curve.method,
                "points": [at._asdict() for at in curve.points],
            }
            for source, shown in found.shown.items()
            for one in shown
            if (samples := samples_of(one, scores=True))
            for curve in curves(samples)
        ],
        "comparisons": [_comparison(pair) for pairs in (found.pairs, found.budget_pairs) for some in pairs.values() for pair in some],
        "pooled": [asdict(one) | {"accuracy": one.accuracy._asdict()} for one in pooled(found.comparisons)],
        "said": sentences(found),
    }
    return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    """The value with None for numbers that are none."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _attempts(of: Evaluation) -> dict[str, float]:
    """pass@k, pass^k, G-Pass@k and mG-Pass@k (`attempts.again`), as means over problems."""
    samples, right = ([getattr(row, key) for row in of.per_problem] for key in ("samples", "right"))
    return {name: float(value_N.mean()) for name, value_N in again(samples, right, min(samples)).items()}


def _attempts_moved(pair: Comparison) -> dict[str, Any]:
    """The changes of these; none where the two are not compared."""
    old, new = pair.old.evaluation, pair.new.evaluation
    return {} if pair.refused else {name: moved_again(old, new, *both)._asdict() for name, both in reached(old, new).items()}


def _comparison(pair: Comparison) -> dict[str, Any]:
    return {
        "source": pair.new.evaluation.source,
        "budget": budget.name if (budget := pair.new.evaluation.settings.budget) else None,
        "old": pair.old.label,
        "new": pair.new.label,
        "refused": pair.refused,
        "remarks": pair.remarks,
        "accuracy": None if pair.accuracy is None else pair.accuracy._asdict(),
        "bounds": None if pair.bounds is None else pair.bounds._asdict(),
        "length": None if pair.length is None else pair.length._asdict() | {"unit": pair.unit},
        "claim": pair.claim,
        "margin": pair.margin,
        "attempts": _attempts_moved(pair),
        "p": pair.p,
        "test": "sign flips" if pair.moved is None else "mcnemar",
        "classes": classes(pair),
        "better": [span._asdict() for span in pair.better],
        "worse": [span._asdict() for span in pair.worse],
    }


def _cell(one: Cell) -> str:
    return escaped(f"{one.text} {one.small}".strip(), cell=True)


def escaped(text: str, cell: bool = False) -> str:
    """Text as one line of Markdown that says the same: no table, no HTML, no picture, no link but of an address that stands there, and no emphasis comes of it.

    Args:
        cell: of a table, where also a `|` within code ends it.
    """

    def marked(found: re.Match[str]) -> str:
        if code := found["code"]:
            return code.replace("|", "\\|") if cell else code
        return _NAMES.get(found[0], f"\\{found[0]}")

    return _MARKS.sub(marked, " ".join(text.splitlines()))
