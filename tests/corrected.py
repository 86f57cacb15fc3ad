"""A mismatch correction from its words, as a recipe would say it."""

from __future__ import annotations

from typing import get_args

from recipes.objectives import Correction

_CLASSES = {kind.model_fields["kind"].annotation.__args__[0]: kind for kind in get_args(get_args(Correction)[0])}
KINDS = [kind for kind in _CLASSES if kind != "none"]


def corrected(kind: str, **bounds: float) -> Correction:
    """The correction of this kind, with those of the bounds that it has."""
    made = _CLASSES[kind]
    return made(kind=kind, **{name: value for name, value in bounds.items() if name in made.model_fields})
