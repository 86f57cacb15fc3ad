"""One self-contained page on a run: what it reached, how sure that is, how it got there, what the rollouts look like.

Made from the run folder only and readable without a network: plotly.js is inside, and the page's content policy forbids
every request. Whatever comes from a model, a data set or a recipe is escaped. A piece that is missing is named, not hidden.
Simplification: one run a page; the charts take any number of labelled evaluations, so that runs can be compared later.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import plotly.offline
import yaml

from evaluation import examples, figures, words
from evaluation.figures import AFTER, BEFORE, Panel
from evaluation.results import Estimate, Evaluation
from evaluation.run_folder import Pair, Run, pairs, read_last_samples, read_rollouts, read_run
from evaluation.statistics import Interval, difference_shown
from evaluation.tables import noise_table, reservations, settings_table, versions_table


class _Page:
    """Collects the panels while the sections are written: a section needs only a place for its plot."""

    def __init__(self) -> None:
        self.panels: dict[str, dict[str, Any]] = {}

    def panel(self, panel: Panel) -> str:
        name = f"plot{len(self.panels)}"
        self.panels[name] = {"data": _rounded(panel.data), "layout": {**panel.layout, "height": panel.height}}
        keys = "".join(_key(*key) for key in panel.keys)
        note = f'<p class="note">{html.escape(panel.note)}</p>' if panel.note else ""
        unit = f' <span class="unit">{html.escape(panel.unit)}</span>' if panel.unit else ""
        caption = f'<figcaption><span><b>{html.escape(panel.title)}</b>{unit}</span><span class="keys">{keys}</span></figcaption>'
        return f'<figure>{caption}<div id="{name}" style="height: {panel.height}px"></div>{note}</figure>'

    def grid(self, panels: Iterable[Panel], columns: str) -> str:
        return f'<div class="grid {columns}">{"".join(self.panel(panel) for panel in panels)}</div>'


def _key(label: str, colour: str, dashed: bool) -> str:
    kind = "plain" if not colour else "dashed" if dashed else ""
    return f'<span class="key {kind}" style="--c: {colour or "none"}">{html.escape(label)}</span>'


def report(run_dir: Path) -> Path:
    """Write run_dir/report.html and return its path.

    Raises:
        ValueError: run_dir is not a run folder.
    """
    run, page = read_run(run_dir), _Page()
    sections = [_headline(run)]
    for pair in pairs(run):
        sections += [_trade_off(page, pair), _levels(page, pair)]
    sections.append(_training(page, run))
    sections += [_rollouts(run, pair) for pair in pairs(run)] or [""]
    sections += [_last_samples(run), _evidence(run), _settings(run), _footer(run)]
    template = Template(resources.files("evaluation").joinpath("report_template.html").read_text())
    panels = json.dumps(page.panels, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    text = template.substitute(
        title=f"{html.escape(run.name)} · Laconic", body="\n".join(sections), plotly=plotly.offline.get_plotlyjs(), panels=panels
    )
    out = run.path / "report.html"
    out.write_text(text)
    return out


def _headline(run: Run) -> str:
    state, sentence = words.status(run)
    found = pairs(run)
    verdicts = words.verdicts(found)
    if not verdicts:
        verdicts = ["Nothing has been evaluated yet, so there is no result to state."]
    lead = "" if any(pair.after for pair in found) else words.progress(run)
    if state in ("finished", "running", "unknown"):
        lead = f"{sentence} {lead}"
    else:  # what went wrong comes before what was reached
        verdicts.insert(0, sentence)
    return (
        f'<div class="head"><div><div class="eyebrow">Laconic · run report</div><h1>{html.escape(run.name)}</h1></div>'
        f'<span class="pill {html.escape(state)}">{html.escape(state)}</span></div>'
        + "".join(f'<p class="verdict">{html.escape(verdict)}</p>' for verdict in verdicts)
        + f'<p class="lead">{html.escape(lead)}</p>'
        + "".join(_tiles(pair) for pair in found[:1])
    )


def _tiles(pair: Pair) -> str:
    shown = [pair.before] if pair.after is None else [pair.before, pair.after]
    length, accuracy = words.changes(pair) or (None, None)
    last, n = shown[-1], pair.before.problems
    cap = last.settings.max_tokens
    budget = next((point.budget for point in last.budget_curve if point.budget >= last.tokens.p90), cap)
    third = (f"Accuracy at {budget:,} tokens", [_at_budget(e, budget) for e in shown], "same samples, cut after the fact")
    if budget >= cap:
        third = ("Tokens of right samples", [words.tokens(e.tokens.right) for e in shown], "mean")
    tiles = [
        ("Mean tokens", [words.tokens(e.tokens.mean) for e in shown], _noise(length, last.tokens, n, "%", 0)),
        ("Accuracy", [words.percent(e.accuracy.mean) for e in shown], _noise(accuracy, last.accuracy, n, "points", 1)),
        third,
        (f"Cut off at {cap:,} tokens", [words.percent(e.truncated) for e in shown], "share of samples"),
    ]
    return '<div class="tiles">' + "".join(_tile(*tile) for tile in tiles) + "</div>"


def _tile(what: str, values: list[str], how: str) -> str:
    was = f'<span class="was">{values[0].removesuffix(" %")} →</span> ' if len(values) > 1 else ""
    value = f'<div class="value">{was}<span class="is">{values[-1]}</span></div>'
    return f'<div class="tile"><div class="what">{what}</div>{value}<div class="how">{how}</div></div>'


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


def _labelled(pair: Pair) -> list[tuple[str, str, Evaluation]]:
    if pair.after is None:
        return [(f"step {pair.before.step}", BEFORE if pair.before.step == 0 else AFTER, pair.before)]
    return [("before", BEFORE, pair.before), ("after", AFTER, pair.after)]


def _trade_off(page: _Page, pair: Pair) -> str:
    found = _labelled(pair)
    first = found[0][2]
    settings = first.settings
    lead = (
        f"{first.problems} problems of {pair.source}, {first.samples} samples each, "
        f"temperature {settings.temperature}, at most {words.tokens(settings.max_tokens)} tokens."
    )
    grid = page.grid([figures.budget_panel(found), figures.cost_panel(found)], "two")
    return f'<section><h2>What a token buys</h2><p class="lead">{html.escape(lead)}</p>{grid}</section>'


def _levels(page: _Page, pair: Pair) -> str:
    found = _labelled(pair)
    panels = figures.level_panels(found)
    if len(found[0][2].by_level) < 2 or len(panels) > 12:
        return ""
    keys = "".join(_key(label, colour, False) for label, colour, _ in found)
    columns = {1: "two", 2: "two", 3: "three"}.get(len(panels), "four")
    sizes = sorted(row.problems for row in found[0][2].by_level)
    size = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
    lead = f"Mean tokens and accuracy on {pair.source} by family and level. A point stands for {size} problems: single points are noisy."
    return (
        f'<section><h2>Where the tokens go</h2><figcaption><span class="lead">{html.escape(lead)}</span>'
        f'<span class="keys">{keys}</span></figcaption>{page.grid(panels, columns)}</section>'
    )


def _training(page: _Page, run: Run) -> str:
    if not run.metrics:
        return '<section><h2>Training</h2><div class="empty">No training step was recorded.</div></section>'
    panels = figures.training_panels(run.metrics)
    for pair in pairs(run):
        series = [evaluation for evaluation in run.evaluations if evaluation.source == pair.source]
        panels = panels + figures.held_out_panels(series) if len(series) > 2 else panels
    first, last = run.metrics[0], run.metrics[-1]
    seconds = last.get("time")
    lead = f"Steps {first['step']} to {last['step']}" + (f", {_duration(seconds)}" if seconds else "")
    lead += ". Accuracy and length are those of all sampled rollouts, before any group was filtered out. All charts run over steps."
    return f'<section><h2>Training</h2><p class="lead">{lead}</p>{page.grid(panels, "three")}</section>'


def _rollouts(run: Run, pair: Pair) -> str:
    if pair.after is None or words.comparable(pair):
        return ""
    choices = examples.choose(pair.before.per_problem, pair.after.per_problem)
    ids = {choice.problem_id for choice in choices if choice.problem_id is not None}
    before, after = (read_rollouts(run, evaluation, ids) for evaluation in (pair.before, pair.after))
    heading = "<section><h2>Rollouts side by side</h2>"
    if not before or not after:
        return f'{heading}<div class="empty">The samples of these evaluations are not in the run folder.</div></section>'
    lead = f"Problems of {pair.source}, picked by the rule printed with each; shown is the sample of median length among those that fit."
    body = "".join(_example(choice, before, after) for choice in choices)
    return f'{heading}<p class="lead">{html.escape(lead)}</p>{body}</section>'


def _example(choice: examples.Choice, before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> str:
    head = f'<h3>{choice.title}</h3><div class="rule">{choice.rule}</div>'
    old_rows, new_rows = ([row for row in rows if row["problem_id"] == choice.problem_id] for rows in (before, after))
    old, new = examples.median_sample(old_rows, choice.before), examples.median_sample(new_rows, choice.after)
    if old is None or new is None:
        return f'<div class="example">{head}<div class="empty">No problem fits.</div></div>'
    longest = max(old["tokens"], new["tokens"], 1)
    counts = [
        f"{who} {sum(row['verdict'] == 'right' for row in rows)} of {len(rows)} right"
        for who, rows in (("before", old_rows), ("after", new_rows))
    ]
    sides = _rollout(old, "before", "before", longest) + _rollout(new, "after", "after", longest)
    return f'<div class="example">{head}{_problem(old, counts)}<div class="grid two sides">{sides}</div></div>'


def _problem(row: dict[str, Any], more: Sequence[str] = ()) -> str:
    where = " ".join(part for part in (row["family"], f"level {row['level']}" if row["level"] else "") if part)
    facts = " · ".join([f"answer {row['answer']}", *([where] if where else []), *more])
    return (
        f'<div class="problem">{html.escape(examples.shorten(row["problem"], 2000))} <span class="small">{html.escape(facts)}</span></div>'
    )


def _rollout(row: dict[str, Any], who: str, kind: str, longest: int) -> str:
    thinking, answer = examples.split_thinking(row["text"])
    verdict = {"right": "right", "wrong": "wrong"}.get(row["verdict"], "not judged")
    cut = '<span class="badge cut">cut off</span>' if row["finish"] == "length" else ""
    said = f"said {row['extracted']}" if row["extracted"] is not None else row["reason"]
    think = row["think_tokens"]
    split = "thinking never closed" if think is None else f"{think:,} thinking + {row['tokens'] - think:,} answer"
    return (
        f'<article class="rollout {kind}"><header><span class="who">{html.escape(who)}</span>'
        f'<span class="badge {verdict}">{verdict}</span>{cut}<span class="small">{html.escape(examples.shorten(said, 80))}</span>'
        f'<span class="count"><strong>{row["tokens"]:,}</strong> tokens: {split}</span></header>'
        f'<div class="bar"><i style="width: {100 * row["tokens"] / longest:.1f}%"></i></div>'
        f"<pre>{html.escape(examples.shorten(thinking))}<b>{html.escape(examples.shorten(answer, 2000))}</b></pre></article>"
    )


def _last_samples(run: Run) -> str:
    name, rows = read_last_samples(run)
    if not rows or any(pair.after for pair in pairs(run)):
        return ""
    chosen = examples.training_samples(rows)
    longest = max(row["tokens"] for row in rows) or 1
    cards = "".join(f"<div>{_problem(row)}{_rollout(row, name, 'after', longest)}</div>" for row in chosen)
    lead = f"Of {len(rows)} kept at {name}; kinds that went wrong come first. All of them are in samples/."
    return f'<section><h2>Last training rollouts</h2><p class="lead">{html.escape(lead)}</p><div class="grid two">{cards}</div></section>'


def _evidence(run: Run) -> str:
    found = pairs(run)
    tables = "".join((f"<h3>{html.escape(pair.source)}</h3>" if len(found) > 1 else "") + noise_table(pair) for pair in found)
    items = "".join(f"<li>{html.escape(text)}</li>" for text in reservations(run))
    tables = tables or '<div class="empty">No evaluation, so nothing to be sure of.</div>'
    return f'<section><h2>How sure this is</h2><div class="grid two"><div>{tables}</div><ul class="plain">{items}</ul></div></section>'


def _settings(run: Run) -> str:
    recipe = yaml.safe_dump(run.recipe, sort_keys=False, allow_unicode=True) if run.recipe else ""
    whole = f"<details><summary>The whole resolved recipe</summary><pre>{html.escape(recipe)}</pre></details>" if recipe else ""
    tables = f'<div class="grid two"><div>{settings_table(run)}</div><div>{versions_table(run)}</div></div>'
    return f'<section class="settings"><h2>Settings</h2>{tables}{whole}</section>'


def _footer(run: Run) -> str:
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"<footer>Made by laconic report on {made} from the folder {html.escape(run.name)} alone.</footer>"


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
