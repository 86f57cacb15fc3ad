"""Judged groups, kept as they come: what is there is whole and is never sampled again.

Claim: groups lie in parts that appear at once, and a request that a part holds is done; so whoever is killed goes on where it stopped, and ends
with the same rows. All parts of a folder were made alike (template, settings, seed, ...): each of them says how, and others are refused, never mixed.
A part that cannot be read any more is set aside, and its requests are sampled again, which is said.
Simplification: all of it is read into memory.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rewards.rows import DataError
from rollout.collector import sampled
from rollout.engine import Pool
from rollout.locks import taken
from rollout.records import SCHEMA, rows
from rollout.scorer import Scorer
from rollout.types import Group, Request

PART_S = 10.0  # of sampling: what a killed run loses at most
_PART = re.compile(r"part-(\d+)\.")  # and what else lies in the folder is no part
_SCHEMA = pa.schema([*SCHEMA, ("request", pa.string()), ("prompt_ids", pa.list_(pa.int32()))])


class OtherParts(DataError):
    """Parts that were made in another way, or that are gone; the message says what to do."""


@dataclass(frozen=True)
class Parts:
    """Where groups of requests are kept (`part-00000.parquet`, ...) while they are sampled.

    Attributes:
        asked: the requests, of which ids no other parts have one at the same time.
        made: what all parts must agree in, by name; `template` is the hash of the chat template and tokenizer that made the ids.
        remedy: what to do where they do not, the end of a sentence.
        also: what parts say beside that.
        step: of training, that the rows are of.
    """

    folder: Path
    asked: Sequence[Request]
    made: Mapping[str, str]
    remedy: str
    also: Mapping[str, str] = field(default_factory=dict)
    step: int = 0

    def recovered(self) -> list[str]:
        """Set parts aside that cannot be read; a sentence for each.

        Raises:
            OtherParts: one was made in another way.
        """
        said = []
        for part in _parts(self.folder):
            try:
                pq.read_table(part, columns=["request"])
                made = read_made(part)
            except (pa.ArrowException, OSError) as error:
                os.replace(part, part.with_suffix(".torn"))
                said.append(f"{part} cannot be read ({str(error).splitlines()[0]}): what it held is sampled again")
                continue
            if words := differing(made, self.made):
                raise OtherParts(f"{part} was sampled with {words}: {self.remedy}")
        return said

    @property
    def rollouts(self) -> int:
        """That are asked for."""
        return sum(request.group_size for request in self.asked)

    def waiting(self) -> list[Request]:
        """Those requests whose groups are not there: none when all is done."""
        there = set(_joined(self.folder, ["request"])["request"].to_pylist())
        return [request for request in self.asked if request.id not in there]

    def read(self) -> pa.Table:
        """The rows of what was asked, one a rollout: columns of rollout.records, `request` and `prompt_ids`; in the order asked, by sample within a request.

        Raises:
            OtherParts: a part cannot be read.
        """
        table = _joined(self.folder)
        places = {request.id: place for place, request in enumerate(self.asked)}
        place_R = np.array([places.get(request, -1) for request in table["request"].to_pylist()], dtype=np.int64)
        order_R = np.argsort(place_R, kind="stable")
        return table.take(order_R[place_R[order_R] >= 0])

    def keep(self, groups: Sequence[Group]) -> None:
        """Write a part that appears at once."""
        asked = [group.request for group in groups for _ in group.rollouts]
        table = rows(groups, self.step, self.made["template"])
        for name, values in (("request", [one.id for one in asked]), ("prompt_ids", [one.prompt_ids for one in asked])):
            table = table.append_column(_SCHEMA.field(name), pa.array(values, _SCHEMA.field(name).type))
        number = max((int(found[1]) + 1 for part in self.folder.iterdir() if (found := _PART.match(part.name))), default=0)
        write_whole(self.folder / f"part-{number:05d}.parquet", table.replace_schema_metadata({**self.also, **self.made}))


def sample(
    kept: Sequence[Parts],
    pool: Pool,
    scorer: Scorer,
    progress: Callable[[int, int], None] | None = None,
    each: Callable[[Sequence[Group]], None] | None = None,
) -> Iterator[Parts]:
    """Sample and judge what is not there yet, all at once, and keep it part by part, also if sampling fails; those that are whole, as they get so.

    Args:
        scorer: its verdicts count; it needs no terms.
        progress: called with (rollouts done, rollouts), what was there already among both.
        each: sees groups before they are kept.

    Raises:
        OtherParts: another process samples into one of the folders.
    """
    with ExitStack() as held:
        for one in kept:
            held.enter_context(_alone(one.folder))
        yield from _sampled(kept, pool, scorer, progress, each)


def _sampled(
    kept: Sequence[Parts],
    pool: Pool,
    scorer: Scorer,
    progress: Callable[[int, int], None] | None,
    each: Callable[[Sequence[Group]], None] | None,
) -> Iterator[Parts]:
    left = {one.folder: one.waiting() for one in kept}
    home = {request.id: one for one in kept for request in left[one.folder]}
    missing = {folder: len(requests) for folder, requests in left.items()}
    fresh: dict[Path, list[Group]] = {one.folder: [] for one in kept}
    total, since = sum(one.rollouts for one in kept), time.monotonic()
    done = total - sum(request.group_size for requests in left.values() for request in requests)

    def flush(which: Sequence[Parts]) -> None:
        for one in which:
            groups, fresh[one.folder] = fresh[one.folder], []
            if groups:
                if each:
                    each(groups)
                one.keep(groups)

    pool.submit([request for requests in left.values() for request in requests])
    try:
        yield from [one for one in kept if not missing[one.folder]]
        for group in sampled(pool, scorer):
            one = home[group.request.id]
            fresh[one.folder].append(group)
            missing[one.folder] -= 1
            done += len(group.rollouts)
            if progress:
                progress(done, total)
            if time.monotonic() - since > PART_S:
                flush(kept)
                since = time.monotonic()
            if not missing[one.folder]:
                flush([one])
                yield one
    finally:
        flush(kept)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The folder, made if it is not there, for this process alone. Raises OtherParts: another has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        if not taken(file, folder):
            raise OtherParts(f"{folder} is being sampled by another process: wait for its end, or choose another folder")
        yield


def read_made(path: Path) -> dict[str, str]:
    """What a parquet file says of how it was made."""
    found = pq.read_schema(path).metadata or {}
    return {name.decode(): value.decode() for name, value in found.items() if not name.startswith((b"ARROW", b"pandas"))}


def differing(there: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """The first thing in which two ways differ, in words; "" if they agree. What is absent is empty."""
    for name, value in wanted.items():
        if (old := there.get(name, "")) != value:
            if name == "template":
                return f"chat template and tokenizer {old or 'unknown'}, the model now has {value}"
            other = "other" if name.endswith("s") else "another"
            return f"{other} {name}" + (f" ({old}, {value} now)" if old and len(old + value) < 90 else "")
    return ""


def write_whole(path: Path, table: pa.Table) -> None:
    """Write a parquet file that appears at once."""
    with open(path.with_suffix(".tmp"), "wb") as file:
        pq.write_table(table, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path.with_suffix(".tmp"), path)


def _parts(folder: Path) -> list[Path]:
    return sorted(part for part in folder.glob("part-*.parquet") if _PART.fullmatch(part.name.removesuffix("parquet")))


def _joined(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """All parts, in the order in which they were written."""
    try:
        read = [pq.read_table(part, columns=columns) for part in _parts(folder)]
    except (pa.ArrowException, OSError) as error:
        raise OtherParts(
            f"{folder}: a part cannot be read ({error}); start again (a run: --resume), and its problems are sampled again"
        ) from error
    if columns is None:
        read.append(_SCHEMA.empty_table())  # parts may be older than a column
    return pa.concat_tables(read, promote_options="default") if read else _SCHEMA.empty_table()
