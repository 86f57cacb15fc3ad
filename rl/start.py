"""The model that a training began with: known again by its weights, and named so that others find it.

Claim: adapters, the KL reference and merges read it again, so a run goes on, or is converted, with the same weights or not at all.
Simplification: weights are known by a megabyte or two of each file, from places all over it, which no training leaves as it was.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from rl.checkpoint import MANIFEST, CheckpointError, metadata

_CHUNK, _CHUNKS = 1 << 16, 32  # bytes that are read at so many places of a file of weights
_CACHED = "models--"  # the hub's cache has models--OWNER--NAME/snapshots/COMMIT


def fingerprint(folder: Path) -> str:
    """Hash of what a checkpoint's weights are: of places all over its files, and of the digests in its manifest where it has one."""
    found = hashlib.sha256()
    if (manifest := folder / MANIFEST).is_file():
        found.update(manifest.read_bytes())
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        found.update(f"{file.name} {size}\n".encode())
        with open(file, "rb") as weights:
            for place in range(_CHUNKS):
                weights.seek(place * size // _CHUNKS)
                found.update(weights.read(_CHUNK))
    return found.hexdigest()


def refuse_other(kept: Path, start: Path) -> None:
    """Raises CheckpointError: the training that left the checkpoint `kept` began with other weights than `start` has. One of an earlier version does not say."""
    now = fingerprint(start)
    if metadata(kept).get("start", now) != now:
        raise CheckpointError(
            f"checkpoint {kept}: its training began with other weights than {start} holds now, which would be mixed with those: put the old ones back, or train anew"
        )


def named(folder: Path) -> tuple[str, str | None]:
    """What others call a checkpoint that lies in a folder, and its revision: the hub's name and commit of what its cache holds, else the absolute path alone."""
    place = folder.absolute()
    cached = place.parents[1].name if place.parent.name == "snapshots" else ""
    if cached.startswith(_CACHED):
        return cached.removeprefix(_CACHED).replace("--", "/"), place.name
    return str(place), None


def placed(name: str, revision: str | None) -> Path:
    """Where a checkpoint of that name (`named`) lies here; the name as a path if it does not."""
    from huggingface_hub import snapshot_download

    path = Path(name)
    if path.is_absolute() or path.is_dir():
        return path
    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        return path
