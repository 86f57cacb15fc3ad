"""A run folder, or one of evaluations, read for people: whatever is there, with a note for whatever is not.

Reports are wanted most when a run went wrong, so nothing here insists on a whole folder: a line half written by a
killed process, a missing file, an unreadable one or one of another form becomes a note. Nothing outside the folder is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import ValidationError

from evaluation.results import Evaluation
from recipes.loader import RecipeError, load
from recipes.steps import steps

_ROLLOUT_COLUMNS = (
    "problem_id",
    "family",
    "level",
    "problem",
    "answer",
    "sample",
    "text",
    "tokens",
    "think_tokens",
    "finish",
    "verdict",
    "reason",
    "extracted",
)
_FILLED = ("problem_id", "sample", "text", "tokens", "finish", "verdict")


@dataclass
class Run:
    """What a run folder says.

    Attributes:
        label: under which it is shown.
        trained: whether it is a run folder; else a folder of evaluations alone.
        recipe, environment, status: contents of the three files, empty if missing.
        metrics: one object a step, steps ascending; of a step recorded twice (a resumed run) the later one.
        trained_before: the same of the stages of reinforcement learning before the one whose record the run's own is, by their names.
        stages: folder to the name of the stage whose evaluations it has, in the order of the stages.
        evaluations: of all stages, steps of each ascending.
        notes: sentences on what was missing or unreadable.
    """

    path: Path
    label: str
    trained: bool = True
    recipe: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    trained_before: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    stages: dict[Path, str] = field(default_factory=dict)
    evaluations: list[Evaluation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def stage(self, evaluation: Evaluation) -> str:
        """The name of the stage that an evaluation of a run is of."""
        return self.stages.get(evaluation.table.parent.parent, "") if evaluation.table else ""


def read_run(path: Path) -> Run:
    """Read a run folder, or a folder of evaluations (one of which may be named by its file).

    The evaluations of a run are those of all its stages, in their order.

    Raises:
        ValueError: the folder does not exist or holds neither.
    """
    path = path.resolve()
    if any((path / name).exists() for name in ("recipe.yaml", "metrics.jsonl", "status.json", "evals")):
        run = Run(path, path.name)
        run.recipe = _as_recorded(path / "recipe.yaml", _read_mapping(run, "recipe.yaml"))
        run.environment = _read_mapping(run, "environment.json")
        run.status = _read_mapping(run, "status.json")
        run.metrics = _read_metrics(run, run.path)
        folders = _stages(run)
        before = {name: _read_metrics(run, folder) for folder, name in folders.items() if folder != path}
        run.trained_before = {name: read for name, read in before.items() if any("accuracy" in record for record in read)}
        run.stages = {folder: name for folder, name in folders.items() if (folder / "evals").is_dir()} or {
            path: folders.get(path, "the run")
        }
        run.evaluations = [one for folder in run.stages for one in _read_evaluations(run, (folder / "evals").glob("*.json"))]
        return run
    run = Run(path, path.name if path.is_dir() else path.stem, trained=False)
    run.evaluations = _read_evaluations(run, path.glob("*.json") if path.is_dir() else [path] if path.is_file() else [])
    if not run.evaluations:
        if whole := next((parent for parent in path.parents if (parent / "recipe.yaml").is_file()), None):
            raise ValueError(f"{path}: no record of its own, but part of a run; give that one's folder, {whole}")
        why = f": {run.notes[0]}" if run.notes else ""
        raise ValueError(
            f"{path}: neither a run folder (no recipe.yaml, metrics.jsonl, status.json or evals) nor a folder of evaluations{why}; "
            "give a folder that `laconic train` or `laconic eval` made"
        )
    return run


def _stages(run: Run) -> dict[Path, str]:
    """The folders of a run's stages with the stages' names, in the order of the stages; where its recipe cannot be read in that of names, with a note."""
    path = run.path
    try:
        folders = {step.folder(path): step.stage.called for step in steps(load(str(path / "recipe.yaml")))}
    except (RecipeError, OSError):
        folders = {path: "the run"} | {folder: folder.name for folder in sorted((path / "stages").glob("*"))}
        if len(folders) > 1:
            run.notes.append("recipe.yaml cannot be read by this version, so evaluations of stages stand in the order of their names.")
    return folders


def _as_recorded(path: Path, read: dict[str, Any]) -> dict[str, Any]:
    """A recipe as it holds in the stage whose record the run's own is, where that stage changes something."""
    stages = read.get("stages")
    if not any(isinstance(stage, dict) and stage.get("changes") for stage in (stages if isinstance(stages, list) else [])):
        return read
    try:
        own = next((step.recipe for step in steps(load(str(path))) if step.own), None)
    except RecipeError:
        return read
    return read if own is None else own.model_dump(mode="json") | {"stages": stages}


def read_rollouts(run: Run, evaluation: Evaluation, problem_ids: Iterable[str]) -> list[dict[str, Any]]:
    """The samples of these problems from the parquet beside an evaluation; empty, with a note, if it cannot be read."""
    return [] if evaluation.table is None else _read_parquet(run, evaluation.table, filters=[("problem_id", "in", sorted(problem_ids))])


def read_last_samples(run: Run) -> tuple[str, list[dict[str, Any]]]:
    """Name and rows of the newest file of training samples, ("", []) if there is none."""
    files = sorted((run.path / "samples").glob("step-*.parquet"))
    return (files[-1].stem, _read_parquet(run, files[-1])) if files else ("", [])


def read_columns(run: Run, file: Path, columns: Sequence[str], filters: list[Any] | None = None) -> pa.Table | None:
    """Those of the columns that the file has; None, with a note, if it cannot be read or lacks what no reader can do without."""
    try:
        there = set(pq.read_schema(file).names)
        if missing := [name for name in _ROLLOUT_COLUMNS if name in columns and name not in there]:
            raise ValueError(f"no column {missing[0]}")
        table = pq.read_table(file, columns=[name for name in columns if name in there], filters=filters)
        if holes := [name for name in _FILLED if name in columns and table[name].null_count]:
            raise ValueError(f"a sample without {holes[0]}")
        return table
    except (OSError, ValueError, pa.ArrowException) as error:
        name = file.relative_to(run.path) if run.path in file.parents else file.name
        note = f"{name} could not be read ({str(error).splitlines()[0][:200]})."
        run.notes += [note] if note not in run.notes else []
        return None


def _read_parquet(run: Run, file: Path, filters: list[Any] | None = None) -> list[dict[str, Any]]:
    table = read_columns(run, file, _ROLLOUT_COLUMNS, filters)
    rows: list[dict[str, Any]] = [] if table is None else table.to_pylist()
    return rows


def _read_evaluations(run: Run, files: Iterable[Path]) -> list[Evaluation]:
    """The evaluations in these files, steps ascending, of each a run's first source first; a file that holds none is named in the notes."""
    found = []
    for file in sorted(files, key=lambda one: one.stem.partition("@")):  # `step-4` of the first source, `step-4-NAME` of another
        name = str(file.relative_to(run.path)) if run.path in file.parents else file.name
        try:
            if content := _read_mapping(run, name):
                found.append(Evaluation.model_validate(content, strict=True).model_copy(update={"table": file.with_suffix(".parquet")}))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            run.notes.append(f"{name} is no whole evaluation ({key}: {first['msg']}), left out.")
    return sorted(found, key=lambda one: one.step)


def _read_mapping(run: Run, name: str) -> dict[str, Any]:
    try:
        file = run.path / name if run.path.is_dir() else run.path
        content = yaml.safe_load(file.read_bytes()) if name.endswith(".yaml") else json.loads(file.read_bytes())
    except FileNotFoundError:
        run.notes.append(f"{name} is missing.")
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        run.notes.append(f"{name} could not be read ({str(error).splitlines()[0][:200]}).")
        return {}
    if isinstance(content, dict) and content:
        return content
    run.notes.append(f"{name} holds no keys with values, left out.")
    return {}


def _read_metrics(run: Run, folder: Path) -> list[dict[str, Any]]:
    file = folder / "metrics.jsonl"
    if not file.exists():
        if folder == run.path:
            run.notes.append("metrics.jsonl is missing: no step was recorded.")
        return []
    by_step: dict[int, dict[str, Any]] = {}
    for number, record in enumerate(records_of(file), start=1):
        if record is None:
            run.notes.append(f"{file.relative_to(run.path)}:{number}: not a whole record, left out.")
        else:
            by_step[record["step"]] = record
    return [by_step[step] for step in sorted(by_step)]


def records_of(file: Path) -> Iterator[dict[str, Any] | None]:
    """The lines of a metrics.jsonl; None for one that is no whole record, as of a step that was killed meanwhile, or holds what a run never writes: NaN, Infinity."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line, parse_constant=int)  # which takes no such word
        except ValueError:
            record = None
        yield record if _is_record(record) else None


def _is_record(record: Any) -> bool:
    """Numbers and nulls by name, with the step as a whole number (docs/architecture.md)."""
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        return False
    return all(value is None or isinstance(value, int | float) for value in record.values())
