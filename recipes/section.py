"""What every slot of the recipe is made of: a frozen mapping without unknown keys, and the number types of its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A slot of the recipe: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


def kind_or(standard: str) -> Callable[[Any], str]:
    """Reads the kind of a slot that has several, where it may be left unsaid."""
    return lambda value: value.get("kind", standard) if isinstance(value, dict) else getattr(value, "kind", standard)
