"""What a report or a comparison is of: any mix of training runs and evaluations, as lists of labelled evaluations by source.

Claim: before and after of one run is the case of two labels. A run is set against its start, and all else against what the first one arrived at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.results import Budget, Evaluation, ShortOf
from evaluation.run_folder import Run, read_run

_LONGEST = 32  # characters of a label
BASE, ACCENT = "#8a929b", "#0f6f8f"
COLOURS = (ACCENT, "#b5702a", "#7a5ea8", "#2c8a57", "#b8485a", "#4a6fb5", "#7d7a1f", "#5c4033")


@dataclass(frozen=True)
class Shown:
    """An evaluation with the name and the colour under which it is shown.

    Attributes:
        run: or folder of evaluations, that it is of.
        start: what its run began with, None for a start itself, and for what has none.
    """

    label: str
    colour: str
    evaluation: Evaluation
    run: Run
    start: Shown | None = None


def read_entries(paths: Sequence[Path]) -> list[Run]:
    """Each run folder or folder of evaluations, in the given order, under names that differ.

    Raises:
        ValueError: one is neither, or comes twice.
    """
    runs = [read_run(path) for path in paths]
    for place, run in enumerate(runs):
        if run.path in [other.path for other in runs[:place]]:
            raise ValueError(f"{paths[place]}: given twice; name each run or evaluation once")
    parts = 1
    while len(set(labels := [run.label for run in runs])) < len(runs):
        parts += 1
        for run, label in zip(runs, labels, strict=True):
            run.label = str(Path(*run.path.parts[-parts:])) if labels.count(label) > 1 else label
    short = [_shortened(run.label) for run in runs]
    for run, label in zip(runs, short, strict=True):
        run.label = label if short.count(label) == 1 else run.label
    return runs


def _shortened(label: str) -> str:
    """The last parts of a label that is too long for a legend or a column, as folders are called that are named after a path."""
    if len(label) <= _LONGEST:
        return label
    *parts, tail = label.split("-")
    while parts and len(parts[-1]) + 1 + len(tail) < _LONGEST:
        tail = f"{parts.pop()}-{tail}"
    return f"…{tail[1 - _LONGEST :]}"


def by_source(runs: Sequence[Run], ends: bool = True) -> dict[str, list[Shown]]:
    """Of every source of problems the evaluations without a budget: first and last of a run, or of a checkpoint; in the given order.

    A start that two runs share is shown once. The first of all is grey, and a further start a paler shade of what came of it.

    Args:
        ends: of several runs, the first evaluation of each, too; else only what each arrived at.
    """
    return {source: found[None] for source, found in _shown(runs, ends).items() if None in found}


def by_budget(runs: Sequence[Run], ends: bool = True) -> dict[str, dict[Budget | ShortOf, list[Shown]]]:
    """Of every source the evaluations at each budget, those asked for as `by_source` has those without one, under the same names and colours."""
    made: dict[str, dict[Budget | ShortOf, list[Shown]]] = {}
    for source, found in _shown(runs, ends).items():
        for budget in sorted((one for one in found if one is not None), key=lambda one: one.place):
            made.setdefault(source, {})[budget] = found[budget]
    return made


def _shown(runs: Sequence[Run], ends: bool) -> dict[str, dict[Budget | ShortOf | None, list[Shown]]]:
    found: dict[str, dict[Budget | ShortOf | None, list[Shown]]] = {}
    colours: dict[tuple[str, str], str] = {}  # by source and label
    accents: dict[tuple[str, int], str] = {}  # by source and run
    for run in runs:
        for (source, budget), evaluations in _by_budget(run).items():
            listed = found.setdefault(source, {}).setdefault(budget, [])
            start, ends_here = None, _ends(evaluations, run, len(runs) > 1)
            for label, evaluation in ends_here[0 if ends or len(runs) == 1 else -1 :]:
                begins = len(ends_here) > 1 and evaluation is ends_here[0][1]
                known = next((one for one in listed if begins and one.run is not run and _same(evaluation, one.evaluation)), None)
                if known is None:
                    if (source, label) not in colours:
                        first = all(one != source for one, _ in colours)
                        colours[source, label] = BASE if first else _accent(accents, source, run, paler=begins)
                    listed.append(known := Shown(label, colours[source, label], evaluation, run, start))
                start = known
    return found


def _accent(accents: dict[tuple[str, int], str], source: str, run: Run, paler: bool) -> str:
    """The colour of a run on a source, which it keeps."""
    taken = sum(one == source for one, _ in accents)
    colour = accents.setdefault((source, id(run)), COLOURS[taken % len(COLOURS)])
    if not paler:
        return colour
    return "#" + "".join(f"{round(0.5 * (int(colour[at : at + 2], 16) + 255)):02x}" for at in (1, 3, 5))


def compared(shown: Sequence[Shown]) -> list[tuple[Shown, Shown]]:
    """What is set against what, (old, new): the end of each run against its start, and every other against what the first one arrived at."""
    ends = [one for one in shown if not any(other.start is one for other in shown)]
    own = [(one.start, one) for one in ends if one.start]
    return own + [(ends[0], one) for one in ends[1:]]


def at_budgets(runs: Sequence[Run], source: str) -> list[tuple[Run, Evaluation]]:
    """Evaluations on a source that were made at a budget."""
    return [(run, one) for run in runs for one in run.evaluations if one.source == source and one.settings.budget]


def _by_budget(run: Run) -> dict[tuple[str, Budget | ShortOf | None], list[Evaluation]]:
    """By source and budget, those without one first: they name the colours."""
    found: dict[tuple[str, Budget | ShortOf | None], list[Evaluation]] = {}
    for evaluation in sorted(run.evaluations, key=lambda one: one.settings.budget is not None):
        found.setdefault((evaluation.source, evaluation.settings.budget), []).append(evaluation)
    return found


def _ends(evaluations: Sequence[Evaluation], run: Run, several: bool) -> list[tuple[str, Evaluation]]:
    """The first and the last of what a run has on one source, each with its label."""
    first, last = evaluations[0], evaluations[-1]
    if not run.trained:
        return [(run.label, last)]
    if first is last:
        return [(f"{run.label}, step {first.step}" if several else f"step {first.step}", first)]
    return [(f"{run.label}, before" if several else "before", first), (run.label if several else "after", last)]


def _same(a: Evaluation, b: Evaluation) -> bool:
    return a.checkpoint == b.checkpoint and a.settings == b.settings and a.per_problem == b.per_problem
