"""What every slot of the recipe is made of: a frozen mapping without unknown keys, and the number types of its values."""

from __future__ import annotations

import json
from math import floor
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]

_LONGEST = 100  # bytes of a folder's name: file systems take 255, and the folders of evaluations are called after where a checkpoint lies


def _folder(name: str) -> str:
    odd = not name.isprintable() or name != name.strip() or name.startswith((".", "-")) or "/" in name or "\\" in name
    if not name or odd or len(name.encode()) > _LONGEST:
        raise ValueError(
            f"{_shortened(name)} cannot name a folder; take printable characters, at most {_LONGEST} bytes of them, without / and \\, "
            "no space at either end, and no . or - at the start"
        )
    return name


def _shortened(name: str) -> str:
    return json.dumps(name if len(name) <= 40 else f"{name[:40]}...")


FolderName = Annotated[str, AfterValidator(_folder)]

_MOST = 1e15  # of any number: products of a few of them are still numbers


class Section(BaseModel):
    """A slot of the recipe: unknown keys are errors, values do not change after loading, and a `low` is not above its `high`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _is_of_this_world(cls, value: Any) -> Any:
        if isinstance(value, int | float) and abs(value) > _MOST:
            raise ValueError(f"beyond what any number here may be, {_MOST:g}")
        return value

    @model_validator(mode="after")
    def _low_is_not_above_high(self) -> Any:
        low, high = getattr(self, "low", None), getattr(self, "high", None)
        if low is not None and high is not None and low > high:
            raise ValueError(f"low: {low:g} is above high {high:g}")
        return self


def whole(number: float) -> int:
    """A whole number of tokens, rounded down; what the arithmetic of shares leaves of one is that one: 0.29 x 100 is 28.999999999999996, and 29 tokens."""
    return floor(round(number, 6))


def kind_or(standard: str) -> BeforeValidator:
    """Fills in the kind of a slot that has several, where it is left unsaid."""
    return BeforeValidator(lambda value: {"kind": standard} | value if isinstance(value, dict) else value)
