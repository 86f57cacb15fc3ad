"""The report: what was reached, how sure that is, how it got there, what the rollouts look like, of any mix of runs and evaluations.

Made from their folders only and readable without a network: plotly.js is inside, and the page's content policy forbids
every request. Whatever comes from a model, a data set or a recipe is escaped. A piece that is missing is named, not hidden.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import plotly.offline
import yaml

from evaluation import charts, curves, examples, figures, words
from evaluation.budgets import budget_table
from evaluation.comparisons import Comparison, Found, pooled, read, samples_of, unlike
from evaluation.entries import COLOURS, Shown, at_budgets
from evaluation.figures import Panel
from evaluation.formats import adjusted, as_json, markdown
from evaluation.paired import paired_table
from evaluation.picture import picture
from evaluation.reader import packed, reader
from evaluation.results import Estimate, Evaluation
from evaluation.run_folder import Run, read_last_samples, read_rollouts
from evaluation.statistics import Interval, difference_shown
from evaluation.tables import glance_table, noise_table, reservations, settings_table, stages_table, versions_table
from evaluation.templates import environment
from evaluation.unsaid import unsaid

_FEW = 3  # comparisons whose verdicts are sentences; more are a table
_OPEN = 3  # sources of problems whose charts, rollouts and tables are open; those of further ones are folded
_OF_TRAINING = {"unit": "tokens", "told": True}  # lengths of sampled rollouts


class Tile(NamedTuple):
    """A number of the first screen: what it is, before (or "") and now, and what its noise is."""

    what: str
    was: str
    now: str
    how: str


@dataclass
class Section:
    """A part of the page: the template that shows it, and what that shows."""

    template: str
    values: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None


FORMATS: dict[str, Callable[[Found], str]] = {"html": lambda found: page(found), "md": markdown, "json": as_json, "svg": picture}


def report(paths: Sequence[Path], out: Path | None = None, form: str = "html", margin: float | None = None) -> Path:
    """Write the report and return its path: `out`, or report.FORMAT in the only folder that is shown.

    Args:
        form: of `FORMATS`.
        margin: as in `comparisons.compare`.

    Raises:
        ValueError: one is neither a run folder nor one of evaluations, several come without `out`, or the format is none.
    """
    if form not in FORMATS:
        raise ValueError(f"--format {form}: expected {', '.join(FORMATS)}")
    found = read(paths, margin)
    target = out or _beside(found.runs) / f"report.{form}"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(FORMATS[form](found), encoding="utf-8")
    return target


def _beside(runs: Sequence[Run]) -> Path:
    if len(runs) > 1:
        raise ValueError("a report of several runs or evaluations lies in none of them: say where it goes (--out FILE)")
    return runs[0].path if runs[0].path.is_dir() else runs[0].path.parent


def page(found: Found) -> str:
    """The whole page."""
    sections = [_head(found)]
    for place_, source in enumerate(found.sources):
        own = _of_source(found, source)
        sections += own if place_ < _OPEN else _folded(f"Charts of {source}", own)
    sections += _training(found.runs)
    beside = [_side_by_side(pairs[-1]) for pairs in found.pairs.values() if pairs and not pairs[-1].refused]
    sections += [*beside[:_OPEN], *_folded(f"Rollouts side by side of {len(beside) - _OPEN} more", beside[_OPEN:])]
    sections += [*_last_samples(found), *_reader(found), _sure(found), _settings(found.runs), _foot(found.runs)]
    panels: dict[str, Any] = {}

    def place(panel: Panel) -> str:
        name = f"plot{len(panels)}"
        panels[name] = {"data": _rounded(panel.data), "layout": {**panel.layout, "height": panel.height}}
        return name

    def drawn() -> str:
        return json.dumps(panels, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")

    return (
        environment()
        .get_template("page.html")
        .render(title=found.title, sections=sections, place=place, panels=drawn, plotly=plotly_packed())
    )


@cache
def plotly_packed() -> str:
    """plotly.js as page.js unpacks it."""
    return packed(plotly.offline.get_plotlyjs())


def _folded(summary: str, sections: Sequence[Section]) -> list[Section]:
    return [Section("fold.html", {"summary": summary, "sections": sections})] if sections else []


def _head(found: Found) -> Section:
    pairs, runs = found.comparisons, found.runs
    told = words.told(pairs, len(runs)) if len(pairs) <= _FEW else []
    verdicts = told[0] if len(told) == 1 else [said[0] for said in told]  # of several, the numbers stand in the table below
    verdicts += [words.pooled(one) for one in pooled(pairs)]
    verdicts += [words.single(one) for one in found.alone][:_FEW]
    if not found.sources:
        verdicts = ["Nothing has been evaluated yet, so there is no result to state."]
    leads = []
    states = []
    for run in runs:
        if not run.trained:
            continue
        state, sentence = words.status(run)
        states.append(state)
        who = f"{run.label}: " if len(runs) > 1 else ""
        if state in ("finished", "running", "unknown"):
            lead = "" if any(pair.new.run is run for pair in pairs) else words.progress(run)
            leads.append(f"{who}{sentence} {lead}")
        else:  # what went wrong comes before what was reached
            verdicts.insert(0, who + sentence)
            leads.append(words.progress(run) if not pairs else "")
    leads += unsaid(found)
    main = pairs[-1] if len(pairs) == 1 and not pairs[-1].refused else None
    alone = next(iter(found.alone), None) if not pairs else None
    tiles = (
        _tiles(_one_ruler(main.old.evaluation, main.new.evaluation) if main.length else [main.new.evaluation], main)
        if main
        else _tiles([alone.evaluation], None)
        if alone
        else []
    )
    glance = glance_table(pairs if len(pairs) > 1 else [])
    return Section(
        "head.html",
        {"states": states, "verdicts": verdicts, "leads": [lead for lead in leads if lead], "tiles": tiles, "glance": glance},
    )


def _one_ruler(old: Evaluation, new: Evaluation) -> list[Evaluation]:
    """Both, or the new one alone where their lengths are of two rulers."""
    return [old, new] if old.settings.template == new.settings.template else [new]


def _tiles(shown: Sequence[Evaluation], pair: Comparison | None) -> list[Tile]:
    length, accuracy = (pair.length if len(shown) > 1 else None, pair.bounds) if pair else (None, None)
    last, n, unit = shown[-1], shown[0].problems, shown[-1].settings.unit
    cap = last.budget_curve[-1].budget
    budget = next((point.budget for point in last.budget_curve if point.budget >= last.tokens.p90), cap)
    third = (f"Accuracy at {budget:,} {unit}", [_at_budget(e, budget) for e in shown], "same samples, cut after the fact")
    if budget >= cap:
        third = (f"{unit.capitalize()} of right samples", [words.tokens(e.tokens.right) for e in shown], "mean")
    tiles = [
        (f"Mean {unit}", [words.tokens(e.tokens.mean) for e in shown], _noise(length, last.tokens, n, "%", 0)),
        ("Accuracy", [words.percent(e.accuracy.mean) for e in shown], _noise(accuracy, last.accuracy, n, "points", 1)),
        third,
        (f"Cut off at {words.limit(last.settings)}", [words.percent(e.truncated) for e in shown], "share of samples"),
    ]
    return [Tile(what, values[0].removesuffix(" %") if len(values) > 1 else "", values[-1], how) for what, values, how in tiles]


def _noise(change: Interval | None, value: Estimate, problems: int, unit: str, digits: int) -> str:
    """What stands under a number: the change with its interval, or the number's own interval where nothing is compared."""
    if change is None:
        low, high = value.low, value.high
        scale = 100 if unit == "points" else 1
        if low is None or high is None:
            return "no interval: one problem"
        return f"95 % interval {scale * low:,.{digits}f} to {scale * high:,.{digits}f}"
    if not difference_shown(change, problems):
        return f"no difference shown ({words.span(change, digits)})"
    return f"{words.signed(100 * change.mean, digits)} {unit} ({words.span(change, digits)})"


def _at_budget(evaluation: Evaluation, budget: int) -> str:
    return words.percent(next((point.accuracy for point in evaluation.budget_curve if point.budget >= budget), None))


def _of_source(found: Found, source: str) -> list[Section]:
    """All charts of a source."""
    if source not in found.shown:
        return _asked(found, source)
    (alike,), left = _alike([found.shown[source]])
    sampled = [charts.Sampled(one, samples) for one in alike if (samples := samples_of(one, scores=True)) is not None]
    return [
        _trade_off(source, alike, left),
        *_asked(found, source),
        *_several(found, source, sampled, alike),
        *_levels(source, alike),
        *_lengths(source, sampled),
    ]


def _alike(groups: Sequence[Sequence[Shown]]) -> tuple[list[list[Shown]], str]:
    """Those that may share a chart with the first, by group (one budget), and a sentence on those that may not."""
    why = unlike(groups)
    left = dict.fromkeys(f"{one.label} ({why[id(one)]})" for group in groups for one in group if id(one) in why)
    alike = [[one for one in group if id(one) not in why] for group in groups]
    return alike, f" Not in these charts: {', '.join(left)}." if left else ""


def _trade_off(source: str, shown: Sequence[Shown], left: str) -> Section:
    first = shown[0].evaluation
    settings = first.settings
    lead = (
        f"{first.problems} problems of {source}, {words.asked(*(one.evaluation for one in shown))} each, "
        f"{'' if settings.temperature is None else f'temperature {settings.temperature}, '}at most {words.limit(settings)}.{left}"
    )
    panels = [figures.budget_panel(shown), figures.cost_panel(shown), charts.pareto_panel(shown)]
    return _charts(f"What a {settings.unit.removesuffix('s')} buys", lead, panels, "two")


def _charts(heading: str, lead: str, panels: Sequence[Panel | None], columns: str, keys: Sequence[tuple[str, str, bool]] = ()) -> Section:
    there = [panel for panel in panels if panel is not None]
    return Section("charts.html", {"heading": heading, "lead": lead, "keys": keys, "panels": there, "columns": columns})


def _asked(found: Found, source: str) -> list[Section]:
    """What was found at budgets that were asked for."""
    table = budget_table(found, source)
    if not table.rows:
        return []
    lead = f"Problems of {source}, sampled again at each budget"
    lead += "; not the curves above, which cut the same samples after the fact." if source in found.shown else "."
    lead += " Tokens are those of a sample, and of a vote where chains were stopped."
    lead += " Every interval is for itself, not adjusted for the number of budgets." if found.budget_pairs[source] else ""
    alike, left = _alike(list(found.budgets[source].values()))
    panels = charts.asked_panels(dict(zip(found.budgets[source], alike, strict=True)))
    return [Section("budgets.html", {"lead": lead + left, "panels": panels, "table": table})]


def _several(found: Found, source: str, sampled: Sequence[charts.Sampled], shown: Sequence[Shown]) -> list[Section]:
    """What more samples buy."""
    budgets = at_budgets(found.runs, source)
    panels = charts.parallel_panels(sampled[:: max(len(sampled) - 1, 1)], budgets)
    if not panels:
        return []
    lead = f"Votes among the samples of a problem of {source}, and what attempts reach: counted over all choices of k among the stored samples."
    lead += " Marks: chains that were run together, and stopped." * any(one.parallel for _, one in budgets)
    lead += f" The first and the last of {len(sampled)} are drawn." * (len(sampled) > 2)
    return [_charts("What more samples buy", lead, [*panels, *charts.attempts_panels(shown)], "three")]


def _lengths(source: str, sampled: Sequence[charts.Sampled]) -> list[Section]:
    """Where lengths go, and where mistakes are."""
    if not sampled:
        return []
    ends = [sampled[0], sampled[-1]] if len(sampled) > 1 else list(sampled)
    panels = [*charts.length_panels(ends), charts.error_panel(sampled), *charts.tier_panels(ends)]
    panels += [one for one in [charts.pairs_panel(*ends)] if one] if len(ends) > 1 else []
    lead = f"Single samples on {source}. Long and hard go together, so accuracy by length is shown within tiers of difficulty (2502.15631)."
    return [_charts("Lengths and mistakes", lead, panels, "three" if len(panels) > 4 else "two")]


def _levels(source: str, shown: Sequence[Shown]) -> list[Section]:
    panels = figures.level_panels(shown)
    first = shown[0].evaluation
    if len(first.by_level) < 2 or len(panels) > 12:
        return []
    columns = {1: "two", 2: "two", 3: "three"}.get(len(panels), "four")
    sizes = sorted(row.problems for row in first.by_level)
    size = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
    lead = f"Mean {first.settings.unit} and accuracy on {source} by family and level. A point stands for {size} problems: single points are noisy."
    return [_charts(f"Where the {first.settings.unit} go", lead, panels, columns, figures.keys_of(shown))]


def _training(runs: Sequence[Run]) -> list[Section]:
    """Curves of every run; of several the main ones side by side first, and the rest of each folded."""
    sections = []
    recorded = [run for run in runs if run.metrics]
    if len(recorded) > 1:
        panels = curves.beside_panels([(run.label, COLOURS[place % len(COLOURS)], run.metrics) for place, run in enumerate(recorded)])
        sections.append(
            _charts("Training, side by side", "Over steps, of all sampled rollouts, before any group was filtered out.", panels, "three")
        )
    for run in runs:
        if not run.trained:
            continue
        heading = f"Training of {run.label}" if len(runs) > 1 else "Training"
        if not run.metrics:
            sections.append(Section("empty.html", {"heading": heading, "words": "No training step was recorded."}))
            continue
        stage = f", stage {run.stages[run.path]}" if run.trained_before and run.path in run.stages else ""
        sections.append(_curves_of(run, f"{heading}{stage}", run.metrics, folded=len(recorded) > 1))
        sections += [_curves_of(run, f"{heading}, stage {name}", read, folded=True) for name, read in run.trained_before.items()]
    return sections


def _curves_of(run: Run, heading: str, metrics: Sequence[dict[str, Any]], folded: bool) -> Section:
    """All curves of a record; of the run's own, with what was held out in it."""
    held_out: list[Panel] = []
    for source in dict.fromkeys(evaluation.source for evaluation in run.evaluations) if metrics is run.metrics else ():
        series = [
            one
            for one in run.evaluations
            if one.source == source and not one.settings.budget and one.table and one.table.parent.parent == run.path
        ]
        held_out += figures.held_out_panels(series) if len(series) > 2 else []
    first, last = metrics[0], metrics[-1]
    seconds = last.get("time")
    lead = f"Steps {first['step']} to {last['step']}" + (f", {_duration(seconds)}" if seconds else "")
    lead += ". Accuracy and length are those of all sampled rollouts, before any group was filtered out. All charts run over steps."
    groups = {**({"Held out": held_out} if held_out else {}), **curves.training_panels(metrics)}
    return Section(
        "training.html", {"heading": heading, "lead": lead, "groups": groups, "still": curves.at_rest(metrics), "folded": folded}
    )


def _side_by_side(pair: Comparison) -> Section:
    heading = "Rollouts side by side"
    choices = examples.choose(pair.old.evaluation.per_problem, pair.new.evaluation.per_problem)
    ids = {choice.problem_id for choice in choices if choice.problem_id is not None}
    before, after = (read_rollouts(one.run, one.evaluation, ids) for one in (pair.old, pair.new))
    if not before or not after:
        return Section("empty.html", {"heading": heading, "words": "The samples of these evaluations are not beside them."})
    source = pair.old.evaluation.source
    lead = f"Problems of {source}, picked by the rule printed with each; shown is the sample of median length among those that fit."
    found = [_example(choice, (pair.old, before), (pair.new, after)) for choice in choices]
    return Section("examples.html", {"heading": heading, "lead": lead, "examples": found})


def _example(choice: examples.Choice, *labelled: tuple[Shown, Sequence[dict[str, Any]]]) -> dict[str, Any]:
    sides: list[dict[str, Any]] = []
    counts = []
    for (shown_, rows), verdict, kind in zip(labelled, (choice.before, choice.after), ("before", "after"), strict=True):
        own = [row for row in rows if row["problem_id"] == choice.problem_id]
        counts.append(f"{shown_.label} {sum(row['verdict'] == 'right' for row in own)} of {len(own)} right")
        if row := examples.median_sample(own, verdict):
            of = shown_.evaluation
            sides.append({"row": row, "label": shown_.label, "kind": kind, "unit": of.settings.unit, "told": of.tells_thinking})
    shown = sides if len(sides) == len(labelled) else []
    longest = max([side["row"]["tokens"] for side in shown] + [1])
    facts = _facts(shown[0]["row"], counts) if shown else ""
    return {"title": choice.title, "rule": choice.rule, "sides": shown, "facts": facts, "longest": longest}


def _facts(row: dict[str, Any], more: Sequence[str] = ()) -> str:
    where = " ".join(part for part in (row["family"], f"level {row['level']}" if row["level"] else "") if part)
    return " · ".join([f"answer {row['answer']}", *([where] if where else []), *more])


def _last_samples(found: Found) -> list[Section]:
    """Training samples of runs that have nothing to set side by side."""
    sections = []
    for run in found.runs:
        name, rows = read_last_samples(run) if run.trained else ("", [])
        if not rows or any(pair.new.run is run for pair in found.comparisons):
            continue
        chosen = examples.training_samples(rows)
        longest = max(row["tokens"] for row in rows) or 1
        lead = f"Of {len(rows)} kept at {name}; kinds that went wrong come first. All of them are in samples/."
        cards = [
            {
                "title": "",
                "rule": "",
                "sides": [{"row": row, "label": name, "kind": "after"} | _OF_TRAINING],
                "facts": _facts(row),
                "longest": longest,
            }
            for row in chosen
        ]
        sections.append(Section("examples.html", {"heading": "Last training rollouts", "lead": lead, "examples": cards}))
    return sections


def _reader(found: Found) -> list[Section]:
    values = reader(found.runs, found.shown)
    return [Section("reader.html", values)] if values["count"] else []


def _sure(found: Found) -> Section:
    tables = [(source, noise_table(found.main(source))) for source in found.sources]
    pairs = [
        (f"{pair.new.label} against {pair.old.label}, {pair.new.evaluation.source}", paired_table(pair))
        for pairs in found.pairs.values()
        for pair in pairs
        if not pair.refused
    ]
    sentences = [*adjusted(found), *reservations(found.runs, found.every, found.comparisons)]
    wide = any(len(table.head) > 2 for _, table in tables)
    stages = [(run.label if len(found.runs) > 1 else "", table) for run in found.runs if (table := stages_table(run)).rows]
    return Section("sure.html", {"stages": stages, "tables": tables, "pairs": pairs, "sentences": sentences, "open": _OPEN, "wide": wide})


def _settings(runs: Sequence[Run]) -> Section:
    recipes = [(run.label, yaml.safe_dump(run.recipe, sort_keys=False, allow_unicode=True)) for run in runs if run.recipe]
    return Section(
        "settings.html",
        {
            "settings": settings_table(runs),
            "versions": versions_table(runs),
            "recipes": recipes,
            "several": len(runs) > 1,
            "trained": any(run.trained for run in runs),
        },
    )


def _foot(runs: Sequence[Run]) -> Section:
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Section("foot.html", {"made": made, "names": ("the folder " if len(runs) == 1 else "") + ", ".join(run.label for run in runs)})


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _rounded(value: Any) -> Any:
    """Numbers to 5 significant digits, what is not finite to null: small pages, strict JSON."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
