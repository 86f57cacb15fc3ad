"""What the commands share: arguments, tables, and what becomes of an error."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from launch.head import ADDRESS, join
from rl.progress import terminal

out = terminal()
_NAMES = 18  # columns that names take at least, so that tables one below the other line up


def _joins(address: str | None) -> None:
    """Have all that this process runs join the Ray at an address, if there is one."""
    if address:
        join(address)


RecipeName = Annotated[str, typer.Argument(help="A shipped recipe (`laconic recipes`) or a YAML file.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Changes to the recipe, e.g. train.steps=100 budget.limit=96.")]
Scale = Annotated[str | None, typer.Option(help="Overlay with the sizes of a machine: tiny, node8, or a YAML file.")]
Runs = Annotated[str, typer.Option(help="Folder of the run folders, or a URL of remote storage (s3://bucket/runs).")]
Address = Annotated[
    str | None,
    typer.Option(
        envvar=ADDRESS,
        callback=_joins,
        help="Join the Ray there, HOST:PORT of its head or auto on a node of it, instead of starting one here.",
    ),
]


def say(words: str, console: Console = out) -> None:
    """Write a line for people as it is, however long."""
    console.print(words, highlight=False, markup=False, soft_wrap=True)


def table(name: str, rows: Iterable[Sequence[str]], *columns: str) -> None:
    """A table whose names are never cut; for a program or a file that reads it, one line a row with tabs between its cells."""
    if not out.is_terminal:
        for row in rows:
            typer.echo("\t".join(row))
        return
    folding = (Column(column, overflow="fold") for column in columns)
    shown = Table(Column(name, no_wrap=True, min_width=_NAMES), *folding, box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*map(Text, row))
    out.print(shown)


@contextmanager
def errors() -> Iterator[None]:
    """One clear error and exit code 1 for whatever a user can mend; LACONIC_DEBUG=1 shows the traceback. SIGTERM ends things as Ctrl-C does."""
    _hush()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except typer.Exit:
        raise  # a RuntimeError by birth, but no error
    except KeyboardInterrupt as error:
        say(f"stopped: {str(error) or 'interrupted'}{_notes(error)}", terminal(stderr=True))
        sys.exit(130)
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("LACONIC_DEBUG"):
            raise
        words = escape(str(error) or type(error).__name__)
        terminal(stderr=True).print(f"[red]error:[/red] {words}{_notes(error)}", soft_wrap=True)
        sys.exit(1)


def _hush() -> None:
    """Keep libraries from talking over our own view; read by them when they are imported."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # threads that wait must not spin for long while another process needs the core


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(signum).name)


def _notes(error: BaseException) -> str:
    """What the code that let the error pass had to say on it."""
    return "".join(f". {note}" for note in getattr(error, "__notes__", []))
