"""What the nodes of a run have in common: the folder that it is recorded in, and the checkpoint that it starts from.

Claim: both are looked at on every node where an engine or a rank may run, before anything that takes minutes; what a node lacks is refused with its name and the
remedy. A hub's model is fetched by each node for itself, at the commit that the driver has. Simplification: whether a checkpoint is the same is told by
names and sizes of its files; whether weights are, the publisher asks (rl/publisher).
"""

from __future__ import annotations

import secrets
from pathlib import Path
from tempfile import TemporaryDirectory

from launch.inventory import asked
from launch.plan import Plan
from rl.run import RunError

PATTERNS = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.safetensors")  # files of a checkpoint that are read
_FETCH_S = 3600.0


def elsewhere(made: Plan) -> list[str]:
    """Names of the nodes, beside the driver's, where engines or ranks of a plan may run. Of nodes with GPUs that are all those it takes, as Ray decides."""
    placements = [stage.placement for stage in made.stages]
    named = {placed.nodes[at].name for placed in placements for name in ("engine", "learner") for at in placed.at.get(name, ())}
    if made.device == "cuda":
        named |= {node.name for placed in placements for node in placed.nodes if node.gpus}
    return [node.name for node in made.others if node.name in named]


def refuse_unshared(made: Plan, folder: Path, option: str) -> None:
    """Raise RunError where a node does not see a folder of the driver's, or cannot write there; told by a file that each of them reads and answers.

    Args:
        folder: absolute; if it is not there, the one above that is.
        option: that names it.
    """
    if not (nodes := elsewhere(made)):
        return
    there = next(place for place in (folder, *folder.parents) if place.is_dir())
    remedy = f"name a folder on storage that all nodes share ({option})"
    with TemporaryDirectory(dir=there, prefix=".laconic-", ignore_cleanup_errors=True) as name:
        token, secret = Path(name) / "token", secrets.token_hex(8)
        token.write_text(secret)
        for node, answer in zip(nodes, asked(nodes, f"does not say whether it sees {folder}", _answered, token), strict=True):
            if answer is None:
                raise RunError(f"{folder}: node {node} does not see it: {remedy}")
            if not answer.startswith(secret):
                raise RunError(f"{folder}: node {node} cannot write there ({answer}): {remedy}")
            if not (token.parent / answer).is_file():
                raise RunError(f"{folder}: what node {node} writes there is not seen here: {remedy}")


def _answered(token: Path) -> str | None:
    """On a node: the name of a file that it wrote beside the token, or why it could not; None: it does not see it."""
    try:
        answer = f"{token.read_text()}-{secrets.token_hex(8)}"
    except OSError:
        return None
    try:
        (token.parent / answer).touch()
    except OSError as error:
        return str(error.strerror)
    return answer


def refuse_missing(made: Plan, start: Path) -> None:
    """Have every node hold the checkpoint that the run starts from, at the driver's path. Raises RunError: a node lacks it, has another, or cannot fetch it."""
    if not (nodes := elsewhere(made)):
        return
    model = made.recipe.model
    if model.on_hub and start.parent.name == "snapshots":  # CACHE/models--OWNER--NAME/snapshots/COMMIT
        asked(nodes, f"could not fetch {model.path}", _fetched, model.path, start, within_s=_FETCH_S)
    here = _files(start)
    for node, there in zip(nodes, asked(nodes, f"does not say whether it sees {start}", _files, start), strict=True):
        if other := next((name for name, size in here.items() if there.get(name) != size), None):
            lacks = f"has no {start}" if not there else f"has another {start / other}, or none"
            raise RunError(
                f"model.path: node {node} {lacks}; put it on storage that all nodes share, or name a hub id, which every node fetches"
            )


def _files(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for pattern in PATTERNS for file in folder.glob(pattern)}


def _fetched(model: str, start: Path) -> None:
    """On a node: a model of the hub, at the same place and commit as the driver's."""
    from huggingface_hub import snapshot_download

    snapshot_download(model, revision=start.name, cache_dir=start.parents[2], allow_patterns=list(PATTERNS))
