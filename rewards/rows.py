"""Rows of data as people have them: files of JSON, parquet, Arrow or CSV, compressed or not, folders of those, and hub sets.

Claim: one reader for training, evaluation and judging, so what one of them takes, all take. What a file is, its content
says; its name decides only where the content cannot (CSV or tab-separated). JSON lines, one JSON array, and objects written over
several lines are one case: JSON values one after another.
Simplification: everything is read whole, into plain Python values.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import glob
import gzip
import hashlib
import io
import json
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

SOURCES = "a file or folder of JSON lines, JSON, parquet or CSV, or hub:owner/name/config:split"
_DATA_SUFFIXES = {".jsonl", ".json", ".ndjson", ".parquet", ".arrow", ".csv", ".tsv"}
_NOT_ROWS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"}
_SPLITS = {"train": {"train", "training"}, "test": {"test", "eval", "heldout"}, "validation": {"validation", "valid", "val", "dev"}}
_PACKED = {
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
}
_COLUMN_NAMES = re.compile(
    r"(?:\"?[\w.-]{1,40}(?: [\w.-]{1,20}){0,2}\"?(?:[,;\t]|$))+"
)  # of a table whose file name does not say that it is one
_PRINTED = re.compile(r"\s*(?:\[\s*(?:['\"{\[]|array\(|None\b|nan\b)|\{\s*['\"])")
_TOKEN = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s\[\]{}(),:'\"]+|\S", re.DOTALL)
_OPENS, _CLOSES = frozenset("[{(,:"), frozenset("]}),:")
_HUB_SET = re.compile(r"(?P<path>[^@:]+)(?:@(?P<revision>[^:]+))?(?::(?P<split>.+))?")


class DataError(ValueError):
    """A source cannot be read; the message names file, place and remedy."""


class Row(NamedTuple):
    """One row. `place` is for messages (file:number), `key` tells it from the other rows of its source.

    A row of JSON lines or CSV is numbered by the line it begins on, any other by its position, from 1.
    """

    place: str
    key: str
    values: dict[str, Any]

    def has(self, path: str) -> bool:
        """Whether it has a path (`reach`), if only as a name without a value."""
        return path in self.values or reach(self.values, path) is not None


@dataclass(frozen=True)
class Rows:
    """All rows of a source.

    Attributes:
        revision: 8 hex digits of its content, or of the hub set's fingerprint.
        commit: of the hub set that was read, 40 hex digits; "" for what is not of the hub.
    """

    name: str
    revision: str
    rows: list[Row]
    commit: str = ""


def read_rows(source: str, split: str = "train") -> Rows:
    """All rows of a file, folder, pattern or hub set.

    Args:
        source: a path (`~`, `file://`, `*` and relative ones too), or `hub:owner/name/config@revision:split`; configuration, revision
            and split may be absent.
        split: taken of a hub set that names none, and of a folder whose file names tell splits apart.

    Raises:
        DataError: not there, not data, or a row that is no object (file and line).
    """
    if source.startswith("hub:"):
        return _hub_rows(source, split)
    files, base = _files(source, split)
    digest, rows = hashlib.sha256(), []
    for path in files:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
        digest.update(content)
        prefix = "" if path == base else f"{path.relative_to(base)}/"
        rows += [Row(f"{path}:{number}", f"{prefix}{number}", values) for number, values in _parsed(path, content)]
    if not rows:
        raise DataError(f"{source}: holds no rows; name {SOURCES}")
    return Rows(base.name, digest.hexdigest()[:8], rows)


def local_bytes(source: str, split: str = "train") -> int:
    """Bytes of a local source's files. Raises DataError as `read_rows` does for a source that is not there."""
    return sum(path.stat().st_size for path in local_files(source, split))


def local_files(source: str, split: str = "train") -> list[Path]:
    """A local source's files, in their order. Raises DataError as `read_rows` does for a source that is not there."""
    return _files(source, split)[0]


def hub_parts(source: str) -> tuple[str, str | None, str | None, str | None]:
    """Path, configuration, revision and split of `hub:owner/name/config@revision:split`; of `hub:FOLDER` (which begins with / . or ~) the path alone.

    Raises:
        DataError: not of that form, or no such folder.
    """
    found = _HUB_SET.fullmatch(source.removeprefix("hub:"))
    path = found["path"] if found else ""
    if found and path[0] in "/.~":
        try:
            found_there = Path(path).expanduser().exists()
        except (OSError, RuntimeError):
            found_there = False
        if not found_there:
            raise DataError(f"{source:.100}: no such folder; hub:owner/name names a set of the hub")
        return str(Path(path).expanduser()), None, found["revision"], found["split"]
    owner, _, rest = path.partition("/")
    name, _, config = rest.partition("/")
    if not found or not all(re.fullmatch(r"[A-Za-z0-9][\w.-]*", part) for part in (owner, name)) or path.endswith("/"):
        raise DataError(f"{source} is no hub set; write hub:owner/name, hub:owner/name:split or hub:owner/name/config:split")
    return f"{owner}/{name}", config or None, found["revision"], found["split"]


def reach(values: Any, path: str) -> Any:
    """What a dotted path leads to in nested mappings and lists (`reward_model.ground_truth`, `resps[0][0]`); None if it leads nowhere.

    A key that itself holds dots or brackets is tried first; a mapping or list written as a JSON text is looked into, too.
    """
    if isinstance(values, dict) and path in values:
        return values[path]
    for part in re.findall(r"[^.\[\]]+", path):
        if isinstance(values, str):
            values = nested(values)
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list) and re.fullmatch(r"-?\d+", part) and -len(values) <= int(part) < len(values):
            values = values[int(part)]
        else:
            return None
    return values


def nested(text: Any) -> Any:
    """The mapping or list that a JSON text holds, or that Python or numpy printed (a CSV of pandas); anything else as it is."""
    if isinstance(text, str) and text.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
        if _PRINTED.match(text):
            with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                held = ast.literal_eval(_with_commas(text))  # literals only: it calls and looks up nothing
                return held if isinstance(held, dict | list) else text
    return text


def _with_commas(text: str) -> str:
    """What numpy prints (`['1' '2']`, a line break between mappings, `array(...)` inside them) as Python does, which joins texts that no comma parts."""
    parts: list[str] = []
    for token in _TOKEN.findall(text):
        if token.startswith("dtype="):
            parts.pop()  # the comma before it
        elif token != "array":
            if parts and token not in _CLOSES and parts[-1] not in _OPENS:
                parts.append(",")
            parts.append("None" if token == "nan" else token)
    return "".join(parts)


def _files(source: str, split: str) -> tuple[list[Path], Path]:
    """The files of a source in order, and what their rows' keys are relative to."""
    text = unquote(re.sub(r"^file://(localhost(?=/))?", "", source)) if source.startswith("file://") else source
    try:
        path = Path(text).expanduser()
        if path.is_file():
            return [path], path
    except (OSError, RuntimeError) as error:  # a name longer than file systems take, a home that nobody has
        raise DataError(f"{source:.100}: no such file ({getattr(error, 'strerror', error)}); sources are `tiny`, {SOURCES}") from error
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and _is_data(file.relative_to(path)))
        base = path
    else:
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        base = Path(re.split(r"[*?\[]", str(path))[0]).parent if "/" in str(path) else Path()
    if not found:
        what = "holds no data files" if path.is_dir() else "no such file"
        raise DataError(f"{source}: {what}; sources are `tiny`, {SOURCES}")
    return (_of_split(source, found, base, split) if path.is_dir() else found), base


def _is_data(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    named = suffixes and (suffixes[-1] in _DATA_SUFFIXES or (suffixes[-1] == ".gz" and suffixes[0] in _DATA_SUFFIXES))
    return bool(named) and path.name not in _NOT_ROWS and not any(part.startswith((".", "_")) for part in path.parts)


def _of_split(source: str, files: list[Path], base: Path, split: str) -> list[Path]:
    """The files of a folder that belong to a split, as the hub tells them apart: by a word of their path, and those that name
    none. All, where one split is all there is."""
    aliases = {word: name for name, words in _SPLITS.items() for word in words} | {split.lower(): split}
    named: dict[str, list[Path]] = {}
    for file in files:
        words = re.split(r"[^a-z0-9]+", str(file.relative_to(base)).lower())
        named.setdefault(next((aliases[word] for word in words if word in aliases), ""), []).append(file)
    wanted = named.get(aliases.get(split.lower(), split), [])
    if wanted or len(named) == 1:
        return sorted(wanted + named.get("", [])) if wanted else files
    raise DataError(
        f"{source}: no files of the split {split}, but of {', '.join(sorted(filter(None, named)))}; name one of its files or `split:` of the set"
    )


def _parsed(path: Path, content: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, row) of one file's content."""
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: its gzip data end early or are damaged ({error}); fetch it again") from error
    for magic, what in _PACKED.items():
        if content.startswith(magic):
            raise DataError(f"{path}: {what}; unpack it first")
    if content[:4] == b"PAR1" or content[:6] == b"ARROW1" or content[:4] == b"\xff\xff\xff\xff":
        return enumerate(_arrow_rows(path, content), 1)
    if content.startswith(b"version https://git-lfs"):
        raise DataError(f"{path}: a Git LFS pointer, not the data; fetch them (git lfs pull)")
    text = _text(path, content)
    names = path.name.lower().removesuffix(".gz")
    start = text.lstrip()[:1]
    if start in ("{", "[") or names.endswith((".json", ".jsonl", ".ndjson")):
        return _json_rows(path, text)
    header = text.lstrip("\r\n").partition("\n")[0]
    if names.endswith((".csv", ".tsv")) or (len(re.split(r"[,;\t]", header)) > 1 and _COLUMN_NAMES.fullmatch(header.strip())):
        return _csv_rows(path, text, "\t" if "\t" in header else ";" if ";" in header and "," not in header else ",")
    raise DataError(f"{path}: neither JSON, parquet nor CSV (it begins with {text.strip()[:40]!r}); name {SOURCES}")


def _text(path: Path, content: bytes) -> str:
    coding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    if coding != "utf-16" and b"\0" in content[:1024]:
        raise DataError(
            f"{path}: neither JSON, parquet nor CSV (bytes that are no text, or UTF-16 without a mark); save it as UTF-8, or name {SOURCES}"
        )
    try:
        return content.decode(coding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        kind = "CSV" if path.name.lower().removesuffix(".gz").endswith((".csv", ".tsv")) else "JSON"
        raise DataError(f"{path}:{line}: not {kind} in UTF-8 ({error}); save it as UTF-8") from error


def _arrow_rows(path: Path, content: bytes) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = pa.BufferReader(content)
    try:
        if content[:4] == b"PAR1":
            table = pq.read_table(source)
        else:
            table = (pa.ipc.open_file if content[:6] == b"ARROW1" else pa.ipc.open_stream)(source).read_all()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged ({str(error).splitlines()[0]}); fetch it again") from error
    return table.to_pylist()


def _csv_rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(1 << 30)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        line = 1 if reader.fieldnames is None else reader.line_num
        _refuse_twice(f"{path}:{line}", reader.fieldnames or [])
        for row in reader:
            if None in row:
                raise DataError(
                    f"{path}:{line + 1}: more fields than the {len(reader.fieldnames or [])} names of the first line; quote those that hold {delimiter!r}"
                )
            yield line + 1, dict(row)
            line = reader.line_num
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not CSV ({error}); quote fields that hold quotes, commas or line breaks") from error


def _refuse_twice(place: str, names: Sequence[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{place}: the column {twice[0]!r} is there twice; rename or remove one")


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of JSON values one after another; a value that is a list, or an object that holds a table, is the file's only one."""
    values = list(_json_values(path, text.replace("\r\n", "\n").replace("\r", "\n")))
    if len({line for line, _ in values}) < len(values):  # several on a line
        values = list(enumerate((value for _, value in values), 1))
    numbered = values
    if len(values) == 1 and not (isinstance(values[0][1], dict) and path.name.lower().removesuffix(".gz").endswith(("jsonl", "ndjson"))):
        held = _table(values[0][1])
        numbered = values if held is None else list(enumerate(held, 1))
    for number, row in numbered:
        if isinstance(row, list) and row and all(isinstance(turn, dict) for turn in row):
            row = {"messages": row}  # a chat alone, as Open-Reasoner-Zero's files have it
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: not a JSON object but {type(row).__name__}")
        yield number, row


def _json_values(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            _refuse_twice(f"{path}:{line}", [name for name, _ in pairs])
        return found

    decoder, blank = json.JSONDecoder(object_pairs_hook=unique), re.compile(r"\s*")
    position, line, counted = 0, 1, 0
    while (position := blank.match(text, position).end()) < len(text):  # type: ignore[union-attr]
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            where = line if text[position] == "{" else error.lineno  # of rows, the one that is broken, wherever that shows
            raise DataError(f"{path}:{where}: not JSON in UTF-8 ({error.msg}: column {error.colno}); correct the line") from error
        except DataError:
            raise
        except (ValueError, RecursionError) as error:  # an integer of thousands of digits, brackets nested as deep
            raise DataError(f"{path}:{line}: not JSON in UTF-8 ({error}); correct the line") from error
        yield line, value


def _table(value: Any) -> list[Any] | None:
    """The rows that a file's only JSON value stands for: a list; an object around one list of rows; columns; rows by name. None: it is one row."""
    if isinstance(value, list):
        return value
    parts = list(value.values()) if isinstance(value, dict) else []
    lists = [part for part in parts if isinstance(part, list) and part and all(isinstance(row, dict) and not is_turn(row) for row in part)]
    if len(lists) == 1 and not any(isinstance(part, str) and len(part) > 200 for part in parts):
        return lists[0]
    if len(parts) > 1 and all(isinstance(part, list) and len(part) == len(parts[0]) for part in parts):
        return [dict(zip(value, row, strict=True)) for row in zip(*parts, strict=True)]
    if parts and all(isinstance(part, dict) and part for part in parts):
        if all(key.isdigit() for part in parts for key in part):  # columns, as pandas writes them
            return [{name: column.get(key) for name, column in value.items()} for key in parts[0]]
        return parts if len({frozenset(part) for part in parts}) == 1 and len(parts) > 1 else None
    return None


def is_turn(value: Any) -> bool:
    """Whether a mapping is a turn of a chat: `role` and `content`, or `from` and `value`."""
    return isinstance(value, dict) and ({"role", "content"} <= value.keys() or "from" in value)


def _hub_rows(source: str, split: str) -> Rows:
    from datasets import get_dataset_split_names, load_dataset

    path, config, revision, named = hub_parts(source)
    try:
        with quiet_retries():
            if named is None and split not in (splits := get_dataset_split_names(path, config, revision=revision)) and len(splits) == 1:
                split = splits[0]
            dataset = load_dataset(path, config, split=named or split, revision=revision)
        rows = dataset.with_format("arrow")[:].to_pylist()  # pictures and sounds stay bytes: nothing decodes them
    except Exception as error:  # whatever a data set's files, the network or the hub come up with
        raise DataError(f"{source}: split {named or split!r} cannot be loaded ({_said(error)}); {_hub_remedy(str(error))}") from error
    commit = next((commit_in(file["filename"]) for file in dataset.cache_files), "")
    if commit and re.fullmatch(r"[0-9a-f]{7,40}", revision or "") and not commit.startswith(revision or ""):
        raise DataError(  # without a network, `datasets` takes what is there, whatever was asked for
            f"{source}: the hub cannot be reached, and the cache holds the commit {commit}: fetch the one that is asked for, or ask for that"
        )
    return Rows(
        path.rstrip("/").rpartition("/")[2],
        dataset._fingerprint[:8],
        [Row(f"{source}:{number}", str(number), row) for number, row in enumerate(rows)],
        commit,
    )


@contextlib.contextmanager
def quiet_retries() -> Iterator[None]:
    """What the hub's library says of each request that it tries again becomes one word that it does: whoever asked says what came of it. Waits for rate limits are said."""
    log, said = logging.getLogger("huggingface_hub.utils._http"), False

    def once(record: logging.LogRecord) -> bool:
        nonlocal said
        words = record.getMessage()
        if "Rate limited" in words:
            return True
        if said or "thrown while requesting" not in words or "Error 429" in words:
            return False
        said, record.msg, record.args = True, "The hub does not answer, and is asked again for about half a minute", ()
        return True

    log.addFilter(once)
    try:
        yield
    finally:
        log.removeFilter(once)


def commit_in(path: str | Path) -> str:
    """The commit that a file of the hub's caches is of: a folder around it has its name. "" without one."""
    return next((part for part in reversed(Path(path).parts) if re.fullmatch(r"[0-9a-f]{40}", part)), "")


def _said(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 240 else words[:237] + "..."


def _hub_remedy(message: str) -> str:
    if "script" in message.lower():
        return "it is a loading script: take the hub's parquet copy (hub:owner/name/config@refs/convert/parquet:split) or a local file"
    if "onfig" in message and ("missing" in message or "not found" in message or "available" in message):
        return "hub:owner/name/config:split names a configuration"
    if "gated" in message or "401" in message or "403" in message:
        return "ask for access on its page and set HF_TOKEN"
    if "couldn't reach" in message.lower() or "offline mode" in message.lower():
        return "check the network, or name a local file"
    if "plit" in message:
        return "hub:owner/name:split names another"
    return "check name, network and HF_TOKEN; hub:owner/name:split names another"
