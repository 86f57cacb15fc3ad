"""A chat template as jinja2 reads it, without a tokenizer: for plan, which imports none of transformers, and for the arguments that it reads."""

from __future__ import annotations

import re

from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment


def parse_template(text: str) -> nodes.Template:
    """A chat template's syntax tree, with the extensions that transformers has.

    Raises:
        jinja2.TemplateSyntaxError: it is none.
    """
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    return environment.parse(without_generation(text))


def without_generation(text: str) -> str:
    """A chat template without the marks of what an assistant writes, which are transformers' own."""
    return re.sub(r"\{%-?\s*(?:end)?generation\s*-?%\}", "", text)
