"""A run folder: everything a run leaves behind, in the files docs/architecture.md lists. It records; it does not decide.

    with Run.create(recipe, Path("runs"), resume=False) as run:
        for step in run.remaining_steps():
            ...
            run.record(step, metrics, groups)

What is needed to go on or to judge the run (metrics, samples, status) is flushed to the disk and its failure is an error.
TensorBoard and W&B are copies for the eye: their failure is one warning. One process writes to a folder: it holds the file `lock`, which
the kernel lets go of however the process ends.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from types import TracebackType
from typing import IO, Any, Literal, Self

from recipes.loader import dump, recipe_hash, recorded
from recipes.schema import Recipe
from recipes.steps import behind, steps
from rl import checkpoint
from rl.environment import environment
from rl.loggers import TensorBoard, WandB
from rl.samples import pick_samples
from rollout.locks import NoLocks, taken
from rollout.parts import write_whole
from rollout.records import rows
from rollout.types import Group

State = Literal["running", "finished", "failed", "stopped", "no-effective-update"]

log = logging.getLogger(__name__)

_PARTS = ("samples", "checkpoints", "evals")
_SAMPLES = re.compile(r"step-(\d+)\.parquet")
_AFTER = re.compile(r"step-(\d+)(?=[-@.])")  # finished steps, in the name of an evaluation


class RunError(ValueError):
    """A run folder that cannot be used as asked; the message says what to do instead."""


class Run:
    """An open run folder. Use as a context manager: how it is left becomes the status.

    Attributes:
        folder: `runs/NAME`.
        recipe: the resolved recipe.
        holds: that recipe as it holds in the stage whose record this is (recipes.steps).
        step: the next step to record, 0-based; set by `truncate_to` on resume.
        checkpoint: newest whole checkpoint when the run was opened to resume or went back, else None. `step-N` holds N finished steps.
        mirror: called when what was written so far is to be kept elsewhere, too (launch/storage).
    """

    def __init__(self, folder: Path, recipe: Recipe, found: Path | None, template: str, holds: Recipe, mirror: Callable[[], None]) -> None:
        self.folder, self.recipe, self.checkpoint, self._template, self.holds, self.mirror = folder, recipe, found, template, holds, mirror
        self.step = checkpoint.metadata(found)["step"] if found else 0
        self._stood = found.name if found else ""  # the checkpoint that status.json tells of
        self._writing = Lock()
        self.returns = 0  # how often the stage went back
        self._lock = _lock(folder)
        self._loggers = self._opened()

    @classmethod
    def create(
        cls,
        recipe: Recipe,
        runs_dir: Path,
        resume: bool = False,
        overwrite: bool = False,
        template: str = "",
        date: str | None = None,
        holds: Recipe | None = None,
        mirror: Callable[[], None] = lambda: None,
        device: str = "",
        data: Mapping[str, str] | None = None,
    ) -> Run:
        """Make `runs_dir/recipe.name`, or open it again to resume. Nothing recorded is touched before `truncate_to`.

        Args:
            overwrite: remove an older run of that name first.
            template: hash of chat template and tokenizer, kept in environment.json and with samples.
            date: that prompts of the run say, if they say one.
            holds: the recipe as it holds in the stage whose record this is; None: as it stands.
            device: of engines and ranks, which `auto` in a recipe does not tell.
            data: hash of the rows of each set that is trained on.

        Raises:
            RunError: see `refuse_unusable`; of a run that is resumed no checkpoint is whole any more, or it was sampled with another template or tokenizer,
                or trained on other rows.
        """
        refuse_unusable(
            recipe, runs_dir, resume, overwrite
        )  # now, whoever asked before: a cold start takes minutes, others start runs in them
        folder = runs_dir / recipe.name
        now = environment(recipe) | {"device": device, "template": template, "date": date, "data": dict(data or {})}
        if resume:
            environments, found = _resumed(folder, now), _newest(folder)
            _write(folder / "environment.json", environments)
            return cls(folder, recipe, found, template, holds or recipe, mirror)
        if overwrite and folder.exists():
            with _lock(folder):
                shutil.rmtree(folder)
        made = runs_dir / f".tmp-{recipe.name}-{os.getpid()}"  # who is killed now leaves no folder that is no run
        shutil.rmtree(made, ignore_errors=True)
        for part in _PARTS:
            (made / part).mkdir(parents=True)
        (made / "metrics.jsonl").touch()
        _write(made / "environment.json", now)
        _write(made / "recipe.yaml", dump(recipe))
        os.rename(made, folder)
        return cls(folder, recipe, None, template, holds or recipe, mirror)

    def _opened(self) -> list[TensorBoard | WandB]:
        """Loggers as a process that begins here has them."""
        wandb = [WandB(self.recipe.wandb, self.recipe, self.folder)] if self.recipe.wandb else []
        return [TensorBoard(self.folder / "tensorboard"), *wandb]

    def remaining_steps(self) -> Iterator[int]:
        """Steps still to do: from the resumed step (0 in a new run) to the recipe's last."""
        yield from range(self.step, self.holds.train.steps)

    def go_back(self) -> None:
        """Stand where the newest whole checkpoint stands, to do again what came behind it. Nothing recorded is touched before `truncate_to`.
        Raises RunError: there was one, and none is whole any more."""
        self.checkpoint = _newest(self.folder)
        self.step = checkpoint.metadata(self.checkpoint)["step"] if self.checkpoint else 0
        self.returns += 1
        self._close_loggers()
        self._loggers = self._opened()  # which hide the steps that are done again

    def truncate_to(self, step: int) -> None:
        """Go on from `step`, as `truncate` has it."""
        truncate(self.folder, step)
        self.step = step

    def record(self, step: int, metrics: Mapping[str, float | int | None], groups: Sequence[Group] = (), said: str = "") -> None:
        """Keep a step: samples by rule, then its line in metrics.jsonl (which makes it count), then the loggers.

        Args:
            said: of the step; rollouts that it names by id are among the samples.

        Raises:
            ValueError: a metric is not a finite number; named. The samples are kept, the line is not written.
        """
        if step != self.step:
            raise ValueError(f"run {self.folder}: step {step} recorded where step {self.step} was expected")
        self.keep_samples(step, groups, said)
        flat = {"step": step} | {key: _number(step, key, value) for key, value in metrics.items()}
        with open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps(flat, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.step = step + 1
        self.status("running")
        self._log(step, flat)

    def keep_samples(self, step: int, groups: Sequence[Group], said: str = "") -> None:
        """Keep some of a step's rollouts, trained on or not, by the rules of `pick_samples`."""
        if kept := pick_samples(groups, self.holds.train.samples_per_step, said):
            path = self.folder / "samples" / f"step-{step:05d}.parquet"
            write_whole(path, rows(kept, step, self._template))

    def metrics(self) -> list[dict[str, Any]]:
        """The recorded steps."""
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def best(self) -> list[Path]:
        """Checkpoints of the highest held-out accuracy, as many as train.keep_best says, best first; of equal ones those of fewer tokens, then newer ones."""
        scored = [
            (score, folder)
            for folder in reversed(checkpoint.finished(self.folder / "checkpoints"))
            if (score := self._heldout(folder.name))
        ]
        return [folder for _, folder in sorted(scored, key=lambda one: one[0])[: self.holds.train.keep_best]]

    def _heldout(self, step: str) -> tuple[float, float] | None:
        """What the evaluation after a step found on the first held-out set, the smaller the better; None without one."""
        try:
            found = json.loads((self.folder / "evals" / f"{step}.json").read_text(encoding="utf-8"))
            score = -float(found["accuracy"]["mean"]), float(found["tokens"]["mean"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return score if all(map(math.isfinite, score)) else None

    def stands(self, found: Path) -> None:
        """Tell of a checkpoint in status.json, once it stands wherever it is kept: a run that is resumed without any then does not begin anew."""
        self._stood = found.name
        self.status("running")

    def status(self, state: State, reason: str = "") -> None:
        """Replace status.json; a reader sees the old or the new one. `step` is the number of finished steps."""
        waived = list(dict.fromkeys(promise for step in steps(self.recipe) for promise in step.recipe.waive))
        more: dict[str, Any] = {"waived": waived} if waived else {}
        if self.holds.train.keep_best:
            more["best"] = [folder.name for folder in self.best()]
        with self._writing:  # a checkpoint stands while the next step is done
            more |= {"checkpoint": self._stood} if self._stood else {}
            _write(self.folder / "status.json", {"state": state, "reason": reason, "step": self.step, **more})

    def __enter__(self) -> Self:
        self.status("running")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            self._last_status("stopped", f"{str(error) or 'interrupted'} after {self.step} of {self.holds.train.steps} steps")
        elif error is not None:
            self._last_status("failed", f"{type(error).__name__}: {error}")
        elif reason := no_effect(self.metrics()):
            self.status("no-effective-update", reason)
        else:
            self.status("finished")
        self._close_loggers()
        self._lock.close()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            error.add_note(f"{self.folder}: the disk took no more; free some of it, or begin anew elsewhere (--runs)")
        if error is not None and self.step:
            words = "What is recorded stays; `--resume` goes on from the last checkpoint."
            error.add_note(words if self._stood else "No checkpoint stood yet: `--resume` does these steps again.")

    def _close_loggers(self) -> None:
        for logger in list(self._loggers):
            with self._never_stopped_by(logger):
                logger.close()

    def _last_status(self, state: State, reason: str) -> None:
        """The status of a run that ends with an error; a disk that takes no more must not hide that error."""
        try:
            self.status(state, reason)
        except OSError as failed:
            log.warning("%s: status %s could not be written: %s", self.folder, state, failed)

    def _log(self, step: int, metrics: Mapping[str, Any]) -> None:
        values = {key: value for key, value in metrics.items() if value is not None and key != "step"}
        for logger in list(self._loggers):
            with self._never_stopped_by(logger):
                logger.log(step, values)

    @contextmanager
    def _never_stopped_by(self, logger: TensorBoard | WandB) -> Iterator[None]:
        """A logger that fails is warned of once and left out from then on."""
        try:
            yield
        except Exception as error:  # other people's code and networks: whatever they raise, training goes on
            what = f"{type(logger).__name__} failed and is left out from now on; metrics.jsonl is complete"
            log.warning("%s: %s: %s", what, type(error).__name__, error)
            self._loggers.remove(logger)


def refuse_unusable(recipe: Recipe, runs_dir: Path, resume: bool = False, overwrite: bool = False) -> None:
    """Nothing, or why `Run.create` would not work; asked before anything expensive starts, and changes nothing.

    Raises:
        RunError: no folder can be made there; another process writes to the run; the folder exists and neither flag is set; `resume` is on and there is no such
            run, its recipe differs, it is finished or one of its folders cannot be written to; `overwrite` is on and the folder is a link, holds no run, or
            the model that is to be trained.
    """
    folder = runs_dir / recipe.name
    refuse_unwritable(folder, "--runs")
    if (folder / "recipe.yaml").is_file():
        _lock(folder).close()
    else:
        there = next(place for place in (runs_dir, *runs_dir.absolute().parents) if place.is_dir())
        with TemporaryDirectory(dir=there, prefix=".laconic-") as tried, open(Path(tried) / "lock", "w") as file:
            taken(file, folder)
    if resume:
        _refuse_other_recipe(folder, recipe)
        _refuse_finished(folder)
        for part in _PARTS:  # which may lie on other disks
            refuse_unwritable(folder / part, "--runs")
    elif folder.exists() and not overwrite:
        raise RunError(f"{folder} exists already: go on with it (--resume), replace it (--overwrite) or choose another name (name=...)")
    elif folder.exists() and not (folder / "recipe.yaml").is_file():
        raise RunError(f"{folder} holds no recipe.yaml, so it is no run and is not replaced: remove it, or choose another name (name=...)")
    elif folder.is_symlink():
        raise RunError(
            f"{folder} is a link to {folder.resolve()}, which is not emptied: remove the link, or choose another name (name=...)"
        )
    elif folder.exists() and Path(recipe.model.path).expanduser().resolve().is_relative_to(folder.resolve()):
        raise RunError(f"model.path: {recipe.model.path} lies in the run that --overwrite would remove; choose another name (name=...)")


def refuse_unwritable(folder: Path, option: str) -> None:
    """Raise RunError where a folder can neither be made nor written to: told by making one there, and taking it away again."""
    there = folder
    try:
        there = next(place for place in (folder, *folder.parents) if place.exists() or place.is_symlink())
        if there != folder or not there.is_file():  # of a file in its place others say more
            TemporaryDirectory(dir=there, prefix=".laconic-").cleanup()
    except OSError as error:
        raise RunError(f"{folder}: nothing can be written in {there}: {error.strerror}; choose another folder ({option})") from error


def no_effect(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Why the recorded steps taught nothing, "" if they taught something or no step was recorded."""
    taught = list(metrics)
    for key, words in (
        ("groups/trained", "a group was left to train on"),
        ("selected", "a rollout was left to train on: all that were chosen were cut, which budget.cut: mask keeps out"),
        (
            "advantage/max",
            "an advantage was other than 0: the rollouts of a prompt that train earned the same, or credit had nothing to compare",
        ),
        ("publish/changed", "the weights moved: gradient or learning rate were 0 or too small to show, or every update was left out"),
    ):
        taught = [row for row in taught if row.get(key, 1)]
        if metrics and not taught:
            return f"in none of {len(metrics)} steps {words}"
    return ""


def _refuse_other_recipe(folder: Path, recipe: Recipe) -> None:
    """Raise RunError unless `folder` holds a run of exactly this recipe."""
    path = folder / "recipe.yaml"
    if not folder.exists():
        raise RunError(f"{folder}: no such run to resume; leave out --resume to start it")
    if not path.exists():
        raise RunError(f"{folder} holds no recipe.yaml, so it is no run or never started: remove it, or choose another name (name=...)")
    saved = recorded(folder)
    if recipe_hash(saved) == recipe_hash(recipe):
        return
    old, new = _flat(saved.model_dump(mode="json")), _flat(recipe.model_dump(mode="json"))
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    differing = ", ".join(f"{key} (was {old.get(key)!r}, now {new.get(key)!r})" for key in keys)
    if any(key in ("learner.ranks", "learner.zero_stage") for key in keys):
        differing += "; of a checkpoint `laconic convert` makes a run with other ranks"
    raise RunError(f"{folder} was started with another recipe: {differing}. Resume with {path}, or choose another name (name=...)")


def is_finished(folder: Path) -> bool:
    """Whether a run, or a stage that is recorded like one, came to its end."""
    return _status(folder).get("state") in ("finished", "no-effective-update")


def _status(folder: Path) -> dict[str, Any]:
    """What status.json says; nothing where it cannot be read."""
    try:
        return dict(json.loads((folder / "status.json").read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _newest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run, None before its first one stood. Raises RunError: one did, and to begin anew would drop the record."""
    kept = folder / "checkpoints"
    if (found := checkpoint.latest(kept)) is not None:
        return found
    if broken := checkpoint.finished(kept):
        why = f"no checkpoint is whole any more: {checkpoint.fault(broken[-1])}"
    elif name := _status(folder).get("checkpoint"):
        why = f"{name} is gone from {kept}, and no other checkpoint is there"
    else:
        return None
    raise RunError(f"{folder}: {why}. Put a whole one back to go on, or begin the run anew (--overwrite)")


def nothing_left(recipe: Recipe, folder: Path) -> bool:
    """Whether a folder holds a run of exactly this recipe that came to its end."""
    return is_finished(folder) and recipe_hash(recorded(folder)) == recipe_hash(recipe)


def _refuse_finished(folder: Path) -> None:
    """Raise RunError if nothing is left to do: evaluating once more would replace the result by another draw."""
    if is_finished(folder):
        advice = f"look at it with `laconic report {shlex.quote(str(folder))}`, or train on from its checkpoint under another name (name=... model.path=...)"
        raise RunError(f"{folder} is finished, nothing is left to resume: {advice}")


def _lock(folder: Path) -> IO[str]:
    """Hold the run until the file is closed or the process ends. Raises RunError if another process does, NoLocks if nobody can tell."""
    file = open(folder / "lock", "a+")  # noqa: SIM115 - held for as long as the run is
    try:
        held = taken(file, folder)
    except NoLocks:
        file.close()
        raise
    if not held:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise RunError(f"{folder} is in use by process {owner}: wait for it or stop it, or choose another name (name=...)")
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys, lists of mappings too (`stages[2].samples`); other lists stay values."""
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        return {key: leaf for place, part in enumerate(value) for key, leaf in _flat(part, f"{prefix}[{place}]").items()}
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {key: leaf for name, part in value.items() for key, leaf in _flat(part, f"{prefix}.{name}" if prefix else str(name)).items()}


def _resumed(folder: Path, now: dict[str, Any]) -> dict[str, Any]:
    """The first environment, with every later one listed behind it. Raises RunError: it cannot be read, or template, tokenizer or training data differ."""
    path = folder / "environment.json"
    try:
        first = json.loads(path.read_text())
        template, data, again = first["template"], dict(first.get("data", {})), [*first.get("resumed", []), now]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path} cannot be read, which says what the run began with: put it back, or begin the run anew (--overwrite)"
        ) from error
    if template != now["template"]:
        raise RunError(
            f"{folder} was sampled with chat template and tokenizer {template}, the model now has {now['template']}: "
            "put the old tokenizer files back, or choose another name (name=...)"
        )
    if others := [name for name, digest in data.items() if now["data"].get(name, digest) != digest]:
        raise RunError(
            f"{folder} was trained on other rows than {others[0]} holds now: put the old ones back, or choose another name (name=...)"
        )
    return first | {"resumed": again}


def recorded_until(folder: Path, step: int) -> int:
    """Bytes of metrics.jsonl before `step`. Raises RunError: a line of them cannot be read or is missing."""
    path, read = folder / "metrics.jsonl", 0
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    for expected in range(step):
        line = lines[expected] if expected < len(lines) else b""
        if not line.endswith(b"\n") or _step_of(line) != expected:
            hole = f"{path}:{expected + 1}: step {expected} is missing or cannot be read"
            raise RunError(
                f"{hole}, so the record does not reach step {step}, where the checkpoint was written: put it back, or begin the run anew (--overwrite)"
            )
        read += len(line)
    return read


def forget_behind(folder: Path, recipe: Recipe) -> None:
    """Forget what stages made of the run's own before, which trains on: a merge, say, that would be taken for that of the weights to come."""
    for step in behind(recipe):
        shutil.rmtree(step.folder(folder), ignore_errors=True)


def truncate(folder: Path, step: int) -> None:
    """Forget metrics and samples of `step` and later ones, and evaluations behind it. A torn last line is forgotten too.

    Raises:
        RunError: a line before `step` cannot be read or is missing.
    """
    end = recorded_until(folder, step)
    with open(folder / "metrics.jsonl", "ab") as file:
        file.truncate(end)
        os.fsync(file.fileno())
    for sample in (folder / "samples").glob("step-*"):
        if (found := _SAMPLES.fullmatch(sample.name)) and int(found[1]) >= step:
            sample.unlink()
    for made in (folder / "evals").glob("step-*"):  # of weights that will be made once more, and need not be the same
        if (found := _AFTER.match(made.name)) and int(found[1]) > step:
            shutil.rmtree(made) if made.is_dir() else made.unlink()


def _step_of(line: bytes) -> int | None:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None


def _number(step: int, key: str, value: Any) -> float | int | None:
    number = value.item() if hasattr(value, "item") else value
    if number is not None and not (isinstance(number, int | float) and math.isfinite(number)):
        advice = f"look at samples/step-{step:05d}.parquet; a value that does not exist is None"
        raise ValueError(f"step {step}: metric {key} is {number!r}, not a finite number: {advice}")
    return number


def _write(path: Path, content: str | dict[str, Any]) -> None:
    """Replace a small file atomically: a reader finds the old text or the new one."""
    temp = path.with_name(path.name + ".tmp")
    with open(temp, "w") as file:
        file.write(content if isinstance(content, str) else json.dumps(content, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temp, path)
