"""What moves over training beside the weights, in one room: whoever has state gives it as JSON values, and takes it back on resume.

Claim: a run that is resumed from a checkpoint goes on as if it had not been killed, so everything that decides the next step is a pure
function of recipe and step, or is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from rl.checkpoint import MANIFEST, CheckpointError, metadata


class Stateful(Protocol):
    """Has `state`, JSON values, and takes them back."""

    def state(self) -> dict[str, Any]: ...
    def restore(self, state: Mapping[str, Any]) -> None: ...


def gathered(parts: Mapping[str, Stateful]) -> dict[str, dict[str, Any]]:
    """The state of every part, by its name; what a checkpoint's manifest keeps."""
    return {name: part.state() for name, part in parts.items()}


def left(folder: Path) -> int | None:
    """What the rl stages of a checkpoint's run left of their limit, tokens: evaluations of it state that; None for a checkpoint that does not say."""
    return metadata(folder).get("limit") if (folder / MANIFEST).is_file() else None


def put_back(parts: Mapping[str, Stateful], saved: Mapping[str, Mapping[str, Any]] | None) -> None:
    """Give every part the state that a checkpoint keeps of it.

    Raises:
        CheckpointError: the checkpoint keeps none of a part, or of one that is not here, or another version's.
    """
    names = set(saved or {})
    if odd := sorted(names ^ set(parts)):
        raise CheckpointError(
            f"the checkpoint keeps the state of {', '.join(sorted(names)) or 'nothing'}, not just of what this run has ({odd[0]}): train anew"
        )
    for name, part in parts.items():
        try:
            part.restore((saved or {})[name])
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"the checkpoint keeps the state of {name} as another version wrote it ({error}): train anew") from error
