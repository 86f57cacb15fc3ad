"""Templates of reports: escaped by themselves, and strict on names that do not exist."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from evaluation import examples


@cache
def environment() -> Environment:
    """The templates of this folder, with filters for texts of models."""
    made = Environment(
        loader=PackageLoader("evaluation.templates", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {
        "shorten": examples.shorten,
        "thinking": lambda text: examples.split_thinking(text)[0],
        "answer": lambda text: examples.split_thinking(text)[1],
    }
    return made
