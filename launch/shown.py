"""Tables in the terminal: none of their numbers is ever cut.

Claim: a table stands as columns where these fit, with labels of several lines; else, in a narrow terminal or in a file, each row is a text that
names its columns.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column
from rich.table import Table as Columns
from rich.text import Text

from evaluation.tables import Row, Table

_GAP = 2  # between two columns


@dataclass(frozen=True)
class Uncut:
    """A table under its title that rich can print."""

    title: str
    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As columns or as lines, whichever the width allows."""
        yield Text(self.title, style="italic")
        labels = ["  " * row.sub + row.label for row in self.table.rows]
        cells = [[f"{one.text} {one.small}".strip() for one in row.cells] for row in self.table.rows]
        widths = [max(map(cell_len, column)) for column in zip(self.table.head, *cells, strict=True)]
        room = options.max_width - sum(_GAP + width for width in widths)
        if room < max(cell_len(word) for label in labels for word in label.split()):
            yield Text("\n".join(_line(row, self.table.head) for row in self.table.rows))
            return
        columns = Columns(Column(), *(Column(head, justify="right", no_wrap=True) for head in self.table.head), box=None, pad_edge=False)
        for label, own in zip(labels, cells, strict=True):
            columns.add_row(*map(Text, (label, *own)))
        yield columns


def _line(row: Row, heads: list[str]) -> str:
    cells = [f"{head} {one.text} {one.small}".strip() for head, one in zip(heads, row.cells, strict=True) if one.text or one.small]
    return "  " * row.sub + f"{row.label}: {', '.join(cells)}"
