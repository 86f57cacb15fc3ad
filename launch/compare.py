"""`laconic compare`: what runs and evaluations say against the first of them, in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from evaluation.budgets import budget_table
from evaluation.comparisons import read
from evaluation.formats import sentences
from evaluation.paired import paired_table
from evaluation.parallel import several_table
from evaluation.unsaid import unsaid
from launch.doors import say
from launch.shown import Uncut


def compare_in_terminal(paths: Sequence[Path], margin: float | None, console: Console) -> None:
    """Print a paired table for each comparison, and the sentences that may honestly be said.

    Of several runs what each arrived at is compared; of one, its end with its start.

    Raises:
        ValueError: nothing there can be compared.
    """
    found = read(paths, margin, ends=False)
    if not found.comparisons and not any(found.budget_pairs.values()):
        held = "; ".join(f"{run.label}: {' and '.join(sorted({one.where for one in run.evaluations})) or 'none'}" for run in found.runs)
        at = " at the same budget" * bool(found.budgets)
        remedy = " ".join(unsaid(found)) or "Evaluate both on the same problems."
        raise ValueError(f"nothing to compare: no source of problems was evaluated twice{at} ({held}). {remedy}")
    for source in found.sources:
        for pair in found.pairs.get(source, []):
            title = f"{source}: {pair.new.label} against {pair.old.label}, {pair.problems} problems"
            console.print(Uncut(title, paired_table(pair)))
        if (budgets := budget_table(found, source)).rows:
            console.print(Uncut(f"{source}: at budgets that were asked for", budgets))
        if (several := several_table(found, source)).rows:
            console.print(Uncut(f"{source}: several samples of a problem, from those that are stored", several))
    for sentence in sentences(found):
        say(sentence, console)
    for run in found.runs:
        for note in run.notes:
            say(f"{run.label}: {note}", console)
