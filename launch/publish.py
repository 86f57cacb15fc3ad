"""`laconic card` and `laconic push`: a run's model as the hub knows models, with its card.

Claim: what is sent is a list of names, said before it is sent; all else in a run (optimiser, samples, logs, manifests with folders of this machine)
stays here. The checkpoint is read back against its manifest first, and all files arrive in one commit or none does.
Simplification: what lies in the repository under other names stays there, but for weights, two sets of which no engine could tell apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub as hub
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import disable_progress_bars, validate_repo_id
from rich.console import Console

from evaluation.card import PICTURE, card, of_model
from evaluation.comparisons import Found
from evaluation.model import Model, model_of
from evaluation.picture import picture
from launch.doors import say
from launch.memory import size
from rl.checkpoint import CheckpointError, finished, verify

_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
_OTHERS = (
    "config.json", "generation_config.json", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
)  # fmt: skip
_MAIN = "main"


def write_card(run: Path, to: Path | None, licence: str | None, console: Console) -> None:
    """Write the card of a run's model to `to` (default: README.md in the run's folder), its picture beside it, and say where.
    Raises ValueError: as `model_of` and `card`."""
    model = model_of(run)
    found = of_model(model)
    target = to or model.run / "README.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    for name, content in _made(model, found, f"{run.name}/{model.called}", None, licence).items():
        place = target if name == "README.md" else target.with_name(name)
        place.write_bytes(content)
        say(f"{place}", console)


def push(
    run: Path, repo: str, console: Console, *, private: bool = False, branch: str = _MAIN, named: str | None = None, dry: bool = False,
    licence: str | None = None,
) -> None:  # fmt: skip
    """Send a run's model with its card to the hub, in one commit.

    Args:
        repo: owner/name; made if it is not there.
        private: it is made private, and refused where it is there and is not.
        branch: made if it is not there.
        named: of the checkpoints, step-N; None: the newest that the last stage made.
        dry: say what would be sent, ask nothing of the hub.

    Raises:
        ValueError: malformed name, no such checkpoint, a run that is still running, no token.
        CheckpointError: the checkpoint is not what its manifest says.
        RuntimeError: the hub refused or could not be reached.
    """
    _refuse_malformed(repo)
    model = model_of(run, named)
    found = of_model(model)
    if found.runs[0].status.get("state") == "running" and named is None:
        raise ValueError(
            f"{run}: still running by its status.json: wait until it has ended, or, where it was killed, go on with it "
            "(laconic train RECIPE --resume) or name a checkpoint of it (--checkpoint step-N)"
        )
    token = "" if dry else _token()
    files = _model_files(model)
    made = _made(model, found, repo, None if branch == _MAIN else branch, licence)
    lengths = {name: len(content) for name, content in made.items()} | {path.name: path.stat().st_size for path in files}
    say(f"{model.called} of {model.run.name} to {repo}, branch {branch}:", console)
    for name, length in lengths.items():
        say(f"  {name}  {size(length)}", console)
    say(f"  together {size(sum(lengths.values()))}", console)
    if dry:
        return
    additions = [hub.CommitOperationAdd(name, content) for name, content in made.items()]
    additions += [hub.CommitOperationAdd(path.name, path) for path in files]
    disable_progress_bars()  # they would talk over our own view
    with console.status(f"sending {size(sum(lengths.values()))} to {repo}"):
        url, removed = _send(repo, additions, private, branch, f"{model.called} of {model.run.name}", token)
    if removed:
        say(f"removed there, as no part of this model: {', '.join(removed)}", console)
    say(f"sent: {url}", console)


def _refuse_malformed(repo: str) -> None:
    try:
        validate_repo_id(repo)
        if "/" not in repo:
            raise ValueError("no owner")
    except ValueError as error:  # HFValidationError
        why = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"{repo}: no name of a model on the hub ({why}); write owner/name, of letters, digits, -, _ and .") from error


def _made(model: Model, found: Found, at: str, revision: str | None, licence: str | None) -> dict[str, bytes]:
    """The card and its picture, by the names they have in a repository."""
    made = {"README.md": card(model, found, at, revision, licence)}
    if found.shown:
        made[PICTURE] = picture(found)
    return {name: text.encode() for name, text in made.items()}


def _model_files(model: Model) -> list[Path]:
    """What of a checkpoint others need, weights last.

    Raises:
        ValueError: there is no checkpoint, or no model in it.
        CheckpointError: it is not whole.
    """
    there = (folder for step in model.steps for folder in finished(step.folder(model.run) / "checkpoints"))
    others = dict.fromkeys(folder.name for folder in there if folder != model.folder)
    remedy = f"name another checkpoint (--checkpoint {' or '.join(others)})" if others else "resume the run (laconic train RECIPE --resume)"
    if not model.folder.is_dir():
        raise ValueError(f"{model.run}: its stage {model.step.stage.called} left no checkpoint ({model.called} is not there): {remedy}")
    try:
        verify(model.folder)
    except CheckpointError as error:
        raise CheckpointError(f"{error}: {remedy}") from error
    names = sorted(path.name for path in model.folder.iterdir() if path.is_file())
    found = [[name for name in names if _listed(name, patterns)] for patterns in (_OTHERS, _WEIGHTS)]
    if "config.json" not in found[0] or not found[1]:
        raise ValueError(f"{model.folder}: holds no config.json with safetensors, so it is no model that others could load: {remedy}")
    return [model.folder / name for name in found[0] + found[1]]


def _token() -> str:
    """The user's, from where the hub keeps it. Raises ValueError if there is none."""
    if token := hub.get_token():
        return token
    raise ValueError(
        "no token of the Hugging Face hub: log in (`hf auth login`), or set HF_TOKEN to a token with write access "
        "(https://huggingface.co/settings/tokens)"
    )


def _send(
    repo: str, additions: list[hub.CommitOperationAdd], private: bool, branch: str, message: str, token: str
) -> tuple[str, list[str]]:
    """One commit; its address, and the weights of another model that it took away. Raises as `push`."""
    api = hub.HfApi(token=token, library_name="laconic")
    with _in_words(repo, token):
        api.create_repo(repo, private=private or None, exist_ok=True)
        if branch != _MAIN:
            api.create_branch(repo, branch=branch, exist_ok=True)
        there = api.model_info(repo, revision=branch)
    if private and not there.private:
        raise ValueError(f"{repo}: is there already and is public: make it private on the hub, leave --private out, or choose another name")
    sent = {one.path_in_repo for one in additions}
    stale = [file.rfilename for file in there.siblings or () if _listed(file.rfilename, _WEIGHTS) and file.rfilename not in sent]
    removals = [hub.CommitOperationDelete(name) for name in stale]
    with _in_words(repo, token):
        done = api.create_commit(repo, [*additions, *removals], commit_message=message, revision=branch)
    return str(done.commit_url), stale


def _listed(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


@contextmanager
def _in_words(repo: str, token: str) -> Iterator[None]:
    """One sentence for whatever hub and network come up with. Raises RuntimeError."""
    try:
        yield
    except Exception as error:
        raise RuntimeError(_explained(repo, error).replace(token, "***")) from error


def _explained(repo: str, error: BaseException) -> str:
    """What went wrong, and what to do."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None and not isinstance(chain[-1], HfHubHTTPError):
        chain.append(cause)  # an upload that failed is wrapped in an error without a reason
    root, owner = chain[-1], repo.partition("/")[0]
    if isinstance(root, OfflineModeIsEnabled):
        return f"{repo}: not sent: HF_HUB_OFFLINE is set, so nothing may be asked of the hub: unset it, or try with --dry-run"
    if not isinstance(root, HfHubHTTPError):
        words = " ".join(str(root).split())[:240] or type(root).__name__
        return f"{repo}: not sent, {constants.ENDPOINT} could not be reached or did not answer as the hub does ({words}): check network and HF_ENDPOINT"
    status = root.response.status_code
    said = " ".join((root.server_message or root.response.reason_phrase).split())[:240]
    remedy = {
        401: "the token is not accepted: log in anew (`hf auth login`), or set HF_TOKEN to a valid one",
        403: f"the token may not write for {owner}: take one with write access, or name an owner that it may write for",
        404: "no such repository or branch, or the token may not see it: check the name and the token",
        409: "it changed in the meantime, or the name is taken: look at it and try again",
        429: "the hub asks to wait: try again later",
    }.get(status, "try again later" if status >= 500 else "mend what it names, and try again")
    return f"{repo}: not sent ({status}: {said}): {remedy}"
