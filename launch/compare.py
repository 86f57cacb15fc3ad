"""`laconic compare`: what runs and evaluations say against the first of them, in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluation import tables
from evaluation.comparisons import read
from evaluation.formats import sentences
from evaluation.paired import paired_table
from evaluation.parallel import several_table


def compare_in_terminal(paths: Sequence[Path], margin: float | None, console: Console) -> None:
    """Print a paired table for each comparison, and the sentences that may honestly be said.

    Of several runs what each arrived at is compared; of one, its end with its start.

    Raises:
        ValueError: nothing there can be compared.
    """
    found = read(paths, margin, ends=False)
    if not found.comparisons:
        held = "; ".join(f"{run.label}: {', '.join(sorted({one.source for one in run.evaluations})) or 'none'}" for run in found.runs)
        raise ValueError(f"nothing to compare: no source of problems was evaluated twice ({held}); evaluate both on the same problems")
    for pair in found.comparisons:
        title = f"{pair.new.evaluation.source}: {pair.new.label} against {pair.old.label}, {pair.problems} problems"
        console.print(_shown(paired_table(pair), title))
    for source in found.shown:
        if (several := several_table(found, source)).rows:
            console.print(_shown(several, f"{source}: several samples of a problem, from those that are stored"))
    for sentence in sentences(found):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    for run in found.runs:
        for note in run.notes:
            console.print(f"{run.label}: {note}", highlight=False, markup=False, soft_wrap=True)


def _shown(made: tables.Table, title: str) -> Table:
    table = Table(title=title, box=None, pad_edge=False, title_justify="left")
    for column in ("", *made.head):
        table.add_column(column, justify="left" if not column else "right")
    for row in made.rows:
        cells = [Text(f"{one.text} {one.small}".strip()) for one in row.cells]
        table.add_row(Text("  " * row.sub + row.label), *cells)
    return table
