"""Benchmarks by name: where their rows lie, what they look like, and how they are asked.

Claim: published copies of a benchmark differ in names of columns, not in kind, so a benchmark is a few facts and at most one
function of a row; what is read and judged goes through the reader and the audit of all other data. A copy that lacks a column
or a row is refused: a score on 499 problems is no score on MATH-500.
Defaults are the protocol of DeepSeek-R1 (arXiv 2501.12948): T 0.6, top_p 0.95, 32,768 tokens, several samples, the directive in the user's turn.
A copy is read at the commit that is pinned with it; `NAME@hub:owner/name@main` reads the newest one, `...@COMMIT` any other. A set whose copy on the hub nobody
pins is read of the git repository that its copy comes from (`github:`).
Simplification: the pinned commits are those that other public evaluators pin (at least two beside the same set, split and columns, independent as far as can be seen),
not ones that we fetched; a further copy for which none was found is read at its newest commit. Row count and columns are checked either way, the commit that was
read is said and recorded, and evaluations that come into the same folder or run read that one (`load_at`).
"""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.asked import OPTIONS, Values, all_answers, digest, from_code, held, integer, numeric, options, plain, without_unit
from recipes.keys import nearest
from rewards.golds import golds
from rewards.rows import DataError, Row, Rows, commit_in, quiet_retries, read_rows
from rollout.layouts import level_of, short
from rollout.sources import CheckGolds, LeftOut, audited
from rollout.types import Problem

DIRECTIVE = r"Please reason step by step, and put your final answer within \boxed{}."
PROTOCOL = {
    "temperature": 0.6,
    "top_p": 0.95,
    "top_k": 0,
    "max_tokens": 32768,
    "problems": 0,
}  # keys of `eval`; samples are the benchmark's own
LONGEST_PROMPT = 2048  # tokens that evaluations on benchmarks leave room for; OlympiadBench comes to about 1,000
_PLAIN = ("problem|question", "answer|final_answer|solution")
_FAMILY = ("subfield", "subject", "type", "topic", "data_topic", "perturbation_type", "high_level_domain", "domain")
_HOLES = 0.01  # of rows
_COMMIT = re.compile("[0-9a-f]{40}")
_FILE = re.compile(r"\.(?:jsonl|json|ndjson|parquet|arrow|csv|tsv)(?:\.gz)?$", re.IGNORECASE)
_RAW = "https://raw.githubusercontent.com"
_PINNED = {  # commits of the hub or of git, by id; where they come from stands above
    "HuggingFaceH4/MATH-500": "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
    "EleutherAI/hendrycks_math": "21a5633873b6a120296cce3e2df9d5550074f4a3",
    "HuggingFaceH4/aime_2024": "2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
    "Maxwell-Jia/AIME_2024": "8d88b2876a82a080e2f172cc9b25d0d9d2cb4792",
    "math-ai/aime24": "83a7f387baaa524a8bda0022eac0541582297103",
    "yentinglin/aime_2025": "6f71d77b0b89b9dabe07ab466c51df33f514df7f",
    "math-ai/aime25": "563bb8404243c5f09de6ec262f2db674fe5bce9b",
    "AI-MO/aimo-validation-aime": "13f9e12f613e720c2a2b2f345dd04b998a29494d",
    "math-ai/amc23": "80815d37005feb82cd7f8fbc6901d5d3eff43057",
    "AI-MO/aimo-validation-amc": "69d78a4a2c840e82d69af6bc742bda09005f6316",
    "openai/gsm8k": "740312add88f781978c0658806c59bc2815b9866",
    "qintongli/GSM-Plus": "3b708db57b96a16e8e3368ed2956990c0809440e",
    "ChilleD/SVAMP": "5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef",
    "EleutherAI/asdiv": "8f95807222d87b4c688c3c22a6ba2801e1fa03e2",
    "math-ai/minervamath": "ee46ddc498933b1977577953250ca5c66be64f96",
    "Hothan/OlympiadBench": "91184b52131e7fc9455fef848035173aea8cc01a",
    "Idavidrein/gpqa": "633f5ee89ab8ad4522a9f850766b73f62147ffdd",
    "QwenLM/Qwen2.5-Math": "a45202bd16f1ec06f433442dc1152d0074773465",
    "OckBench/OckBench": "1beef0745e0f357901eb8a8b662c58b20d989dc4",  # one index of public code holds this file at it
}


@dataclass(frozen=True)
class Copy:
    """One published copy.

    Attributes:
        sources: as `read_rows` takes them behind `hub:`, owner/name/config:split, or owner/name/FILE; several are one set.
        host: hub, or github.
    """

    sources: tuple[str, ...]
    rows: int
    host: str = "hub"

    @property
    def id(self) -> str:
        return "/".join(self.sources[0].partition(":")[0].split("/")[:2])

    @property
    def place(self) -> str:
        """What stands behind `NAME@` for this copy."""
        return f"{self.host}:{self.id}"

    @property
    def commit(self) -> str:
        """The pinned commit, 40 hex digits; "" without one."""
        return _PINNED.get(self.id, "")


@dataclass(frozen=True)
class Benchmark:
    """A set of problems that people report.

    Attributes:
        copies: the first is what is read by the bare name; the others are known by their shape.
        licence: of the problems.
        samples: of a problem, by default.
        ask: (text, gold or golds) of a row. Raises DataError for a row that is left out.
        gold: a gold as it is judged.
        forms: columns, one form of which rows must have, with `|` between names for the same.
        others: row counts of what else goes by the name, and what it is.
        called: further names of files and folders.
        about: what tells it from its namesakes.
    """

    name: str
    copies: tuple[Copy, ...]
    licence: str
    samples: int
    ask: Callable[[Values], tuple[str, Any]]
    gold: Callable[[str], str] = str.strip
    forms: tuple[tuple[str, ...], ...] = (_PLAIN,)
    others: tuple[tuple[int, str], ...] = ()
    called: tuple[str, ...] = ()
    about: str = ""

    @property
    def rows(self) -> int:
        return self.copies[0].rows

    @property
    def on_hub(self) -> str:
        """The id by which the hub knows it."""
        return next(copy.id for copy in self.copies if copy.host == "hub")

    @property
    def counts(self) -> dict[int, str]:
        """What may be read under this name: rows, and what they are."""
        return dict(self.others) | {copy.rows: copy.id for copy in reversed(self.copies)}


def find(word: str) -> tuple[Benchmark, str]:
    """The benchmark of `NAME` or `NAME@PLACE`, and the place ("" for the first copy). Raises DataError with the nearest name."""
    name, _, place = word.partition("@")
    if (found := BENCHMARKS.get(name)) is None:
        known = {short(label): one.name for one in BENCHMARKS.values() for label in (one.name, *one.called)}
        close = known.get(short(name)) or known.get(nearest(short(name), known) or "")
        hint = f" Did you mean {close}?" if close else ""
        raise DataError(f"{name}: no such benchmark.{hint} (laconic benchmarks lists all)")
    return found, place


def fetched(word: str) -> bool:
    """Whether reading a benchmark asks the hub or GitHub. Raises DataError as `find`."""
    place = find(word)[1]
    return not place or place.startswith(("hub:", "github:"))


class Read(NamedTuple):
    """What a benchmark holds: problems with a gold that can be judged, (row, reason) of its other rows, a line on what was read, and its commit, "" if none is known."""

    problems: list[Problem]
    left_out: LeftOut
    said: str
    commit: str


def load_at(word: str, commit: str, check_golds: CheckGolds) -> Read:
    """As `load`, of this commit, which earlier samples are of, where the word itself names none: it goes before the pinned one, and that is said.

    Where it cannot be had, what `load` reads is read, and that is said. Raises DataError.
    """
    if not commit or not fetched(word) or "@" in (place := find(word)[1]):
        return load(word, check_golds)
    one = find(word)[0]
    try:
        read = load(f"{one.name}@{place or one.copies[0].place}@{commit}", check_golds)
    except DataError as error:
        read = load(word, check_golds)
        return read._replace(said=f"{read.said}; commit {commit}, which earlier samples are of, cannot be had ({error})")
    pinned = _copy(one, place)[1]
    if pinned in ("", commit):
        return read
    return read._replace(said=f"{read.said}; earlier samples are of that commit, so it is read and not the pinned {pinned}")


def load(word: str, check_golds: CheckGolds) -> Read:
    """The problems of a benchmark.

    Args:
        word: `NAME` (its first copy, at its pinned commit), `NAME@hub:owner/name` (another copy; with `@COMMIT` or `@main` behind, of that
            commit or the newest; so with `github:`, of known copies), or `NAME@FOLDER`: a file, or a folder that holds it under its name or as the hub lays it out.

    Raises:
        DataError: unknown, not there, or rows of other columns or another number than any published copy has.
    """
    one, place = find(word)
    read, where = _remote(one, place) if fetched(word) else _local(one, place)
    _check(one, read, where, one.counts if place else {one.rows: one.copies[0].id})
    problems: list[Problem] = []
    left_out: LeftOut = []
    golds_by_id: dict[str, tuple[str, ...]] = {}
    for row in read.rows:
        try:
            problem = _problem(one, row)
        except DataError as error:
            left_out.append((f"{one.name}@{read.revision}/{row.key}", str(error)))
            continue
        while golds_by_id.setdefault(problem.id, problem.golds) != problem.golds:  # the same question with another answer
            problem = Problem(f"{problem.id}'", problem.text, problem.answer, problem.family, problem.level, problem.others)
        problems.append(problem)
    kept, goldless = audited(problems, check_golds)
    if not kept:
        raise DataError(f"{where}: no row of {one.name} can be asked and judged (first: {[*left_out, *goldless][0][1]}); fetch it again")
    count, again = len(read.rows), len(problems) - len(golds_by_id)
    named = "" if count == one.rows else f" ({one.counts[count]}; {one.copies[0].id} has {one.rows:,})"
    commit = f", commit {read.commit}" if read.commit else ""
    twice = (
        f"; {again:,} of them {'repeats' if again == 1 else 'repeat'} the problem and gold of another row, so these are {len(golds_by_id):,} problems"
        * (again > 0)
    )
    unlike = sum(problem.id.endswith("'") for problem in problems)
    otherwise = f"; {unlike:,} of them {'asks' if unlike == 1 else 'ask'} what another row asks, with another gold" * (unlike > 0)
    said = f"{one.name}: {count:,} rows{named} of {where}{commit}, content {read.revision}{twice}{otherwise}"
    return Read(kept, left_out + goldless, said, read.commit)


def _problem(one: Benchmark, row: Row) -> Problem:
    text, value = one.ask(row.values)
    try:
        found = tuple(dict.fromkeys(one.gold(gold) for gold in golds(value)))
    except ValueError as error:
        raise DataError(f"{row.place}: its gold is {value!r:.80}: {error}; correct it") from error
    if not text.strip():
        raise DataError(f"{row.place}: no text in its problem; fetch the file again")
    answer, *others = found or ("",)
    family = held(row.values, *_FAMILY)
    level = level_of(held(row.values, "level"))
    return Problem(f"{one.name}/{digest(text)}", text, answer, "" if family is None else str(family), level, tuple(others))


def _check(one: Benchmark, read: Rows, where: str, counts: dict[int, str]) -> None:
    """Refuse rows that are not the benchmark's."""
    there = {short(str(name)): str(name) for row in read.rows for name, value in row.values.items() if value is not None}
    lacking = [[column for column in form if not any(short(name) in there for name in column.split("|"))] for form in one.forms]
    if all(lacking):
        fewest = " and ".join(column.replace("|", " or ") for column in min(lacking, key=len))
        raise DataError(
            f"{where}: {one.name} needs a column {fewest}; it has {', '.join(there.values()):.300}: fetch {one.copies[0].id} again"
        )
    _refuse_holes(one, read, where)
    if len(read.rows) not in counts:
        known = " or ".join(f"{rows:,} ({what})" for rows, what in counts.items())
        raise DataError(
            f"{where}: {len(read.rows):,} rows, but {one.name} has {known}: fetch it again, or name a part of it as a set of your own (eval.data)"
        )


def _refuse_holes(one: Benchmark, read: Rows, where: str) -> None:
    """Refuse a copy in which more than one row of a hundred lacks a text or an answer: a score on the others is no score on the benchmark."""
    lacking = [row for row in read.rows if _hole(one, row)]
    if len(lacking) > _HOLES * len(read.rows):
        raise DataError(
            f"{where}: {len(lacking):,} of {len(read.rows):,} rows of {one.name} lack their text or answer (first: {lacking[0].place}): "
            f"fetch {one.copies[0].place} again"
        )


def _hole(one: Benchmark, row: Row) -> bool:
    try:
        text, value = one.ask(row.values)
    except DataError:  # one that the benchmark leaves out
        return False
    return not text.strip() or value is None or value == "" or value == [] or value != value


def _copy(one: Benchmark, place: str) -> tuple[Copy, str]:
    """The copy of `place` ("" the first) and its revision: the pinned commit or what stands behind (`@COMMIT`, `@main`); any other set of the hub as it stands.

    Raises DataError for a repository of GitHub that is no known copy.
    """
    named, _, revision = place.partition("@")
    copy = next((copy for copy in one.copies if named in ("", copy.place) and ":" not in revision), None)
    if copy:
        return copy, revision or copy.commit
    if place.startswith("github:"):
        known = " or ".join(copy.place for copy in one.copies if copy.host == "github")
        raise DataError(
            f"{place}: {one.name} is read of {known or 'no repository of GitHub'}; fetch a file of others and name it: {one.name}@FILE"
        )
    return Copy((place.removeprefix("hub:"),), 0), ""


def _remote(one: Benchmark, place: str) -> tuple[Rows, str]:
    """The rows of what `_copy` makes of `place`, and what they are called."""
    copy, revision = _copy(one, place)
    try:
        parts = [
            _file(copy, source, revision) if _FILE.search(source) else read_rows(f"hub:{_at(source, revision)}") for source in copy.sources
        ]
    except DataError as error:
        if copy.host == "hub" and revision and _gone(copy.id, revision):
            pinned = ", which is pinned here" * (revision == copy.commit)
            raise DataError(
                f"{one.name}: {copy.place} has no commit {revision}{pinned}; {one.name}@{copy.place}@main reads the newest"
            ) from error
        also = "".join(f"read {one.name}@{other.place}, or " for other in one.copies if other.host != copy.host)
        raise DataError(
            f"{one.name}: {error}; or {also}put its rows into a folder as {one.name}.jsonl or .parquet and name that: "
            f"{one.name}@FOLDER, in `laconic eval` --data-dir FOLDER"
        ) from error
    return _joined(parts), f"{copy.host}:{copy.sources[0]}" if len(copy.sources) == 1 else copy.place


def _gone(id_: str, revision: str) -> bool:
    """Whether the hub answers, and has the set without this revision."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        HfApi().dataset_info(id_, revision=revision, timeout=10)
    except RevisionNotFoundError:
        return True
    except Exception:  # no network, no such set, no access: the error that led here says so
        return False
    return False


def _at(source: str, revision: str) -> str:
    """A source of a copy at a revision, "" for none."""
    set_, colon, split = source.partition(":")
    return f"{set_}{f'@{revision}' if revision else ''}{colon}{split}"


def _file(copy: Copy, source: str, revision: str) -> Rows:
    """The rows of one file (owner/name/FILE) of a hub set or a git repository."""
    owner, name, file = source.split("/", 2)
    try:
        with quiet_retries():
            if copy.host == "hub":
                from huggingface_hub import hf_hub_download

                path = hf_hub_download(f"{owner}/{name}", file, repo_type="dataset", revision=revision or None)
            else:
                from datasets import DownloadConfig, DownloadManager

                once = DownloadConfig(use_etag=not _COMMIT.fullmatch(revision), disable_tqdm=True)  # a commit's file does not change
                path = DownloadManager(download_config=once).download(f"{_RAW}/{owner}/{name}/{revision}/{file}")
    except Exception as error:  # whatever network and hub come up with
        remedy = "check name, network and HF_TOKEN" if copy.host == "hub" else "check the commit and the network"
        raise DataError(f"{copy.host}:{source}: cannot be fetched ({' '.join(str(error).split())[:240]}); {remedy}") from error
    return replace(read_rows(path), commit=commit_in(path) if copy.host == "hub" else revision if _COMMIT.fullmatch(revision) else "")


def _local(one: Benchmark, folder: str) -> tuple[Rows, str]:
    base = Path(folder).expanduser()
    if not base.exists():
        raise DataError(f"{folder}: no such folder; {one.name}@FOLDER names one that holds {one.name}.jsonl or .parquet")
    source = next((source for path in _places(one, base) for source in _parts(one, path)), None)
    if source is None:
        also = ", ".join(dict.fromkeys(copy.id for copy in one.copies))
        raise DataError(f"{folder}: holds no {one.name}: put it there as {one.name}.jsonl or .parquet, or as the hub lays it out ({also})")
    read = read_rows(source, "test")
    return replace(read, commit=commit_in(source)), source


def _places(one: Benchmark, base: Path) -> Iterator[Path]:
    """Files and folders that are called as the benchmark is, by its own name first; a file that is named itself; last, the folder around the hub's files."""
    if base.is_file():
        yield base
        return
    near = [path for pattern in ("*", "*/*") for path in sorted(base.glob(pattern)) if path.is_dir() or _FILE.search(path.name)]
    called = {path: [short(_FILE.sub("", name)) for name in (str(path.relative_to(base)), path.name)] for path in near}
    ids = [copy.id for copy in one.copies]
    labels = [one.name, *one.called, *ids, *(f"datasets--{id_}" for id_ in ids), *(id_.partition("/")[2] for id_ in ids)]
    for name in dict.fromkeys(short(label) + behind for label in labels for behind in ("", "test")):
        yield from (path for path in near if name in called[path])
    if short(base.name) in map(short, labels):
        yield base


def _parts(one: Benchmark, path: Path) -> Iterator[str]:
    """What of a place is read: of a folder, the files of a copy's configuration and split, where it has such; else all of it."""
    if path.is_file():
        yield str(path)
        return
    snapshots = sorted((path / "snapshots").glob("*"), key=lambda snapshot: snapshot.stat().st_mtime)  # as the hub's own cache lays it out
    within = glob.escape(str(snapshots[-1] if snapshots else path))
    for copy in one.copies:
        named, _, split = copy.sources[0].partition(":")
        config = "" if len(copy.sources) > 1 else "/".join(named.split("/")[2:])
        patterns = (f"{config}/**/{split}[-.]*", f"{config}[-.]*", config) if config else ()
        for pattern in (*patterns, f"{split}[-.]*"):
            if any(_FILE.search(name) for name in glob.glob(f"{within}/**/{pattern}", recursive=True)):
                yield f"{within}/**/{pattern}"
    if any(_FILE.search(file.name) for file in path.rglob("*")):
        yield str(path)


def _joined(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    digest = hashlib.sha256("".join(part.revision for part in parts).encode()).hexdigest()[:8]
    rows = [row._replace(key=f"{index}/{row.key}") for index, part in enumerate(parts) for row in part.rows]
    return Rows(parts[0].name, digest, rows, parts[0].commit if len({part.commit for part in parts}) == 1 else "")


def _hendrycks() -> tuple[str, ...]:
    parts = ("algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra", "precalculus")
    return tuple(f"EleutherAI/hendrycks_math/{part}:test" for part in parts)


_MAA = "problems by the MAA"
_ALL = (
    Benchmark("math500", (Copy(("HuggingFaceH4/MATH-500:test",), 500),), "MIT", 4, plain),
    Benchmark("math", (Copy(_hendrycks(), 5000),), "MIT", 1, plain, called=("math_test", "hendrycks_math", "MATH-lighteval"), about="the test split"),
    Benchmark(
        "aime24",
        (
            Copy(("HuggingFaceH4/aime_2024:train",), 30),
            Copy(("Maxwell-Jia/AIME_2024:train",), 30),
            Copy(("math-ai/aime24:test",), 30),
            Copy(("simplescaling/aime24_nofigures:train",), 30),
        ),
        _MAA, 64, plain, integer, called=("aime2024",),
    ),
    Benchmark("aime25", (Copy(("yentinglin/aime_2025:train",), 30), Copy(("math-ai/aime25:test",), 30)), _MAA, 64, plain, integer, called=("aime2025",)),
    Benchmark("aime22-24", (Copy(("AI-MO/aimo-validation-aime:train",), 90),), _MAA, 64, plain, integer, about="2022 to 2024; holds aime24"),
    Benchmark(
        "amc23", (Copy(("math-ai/amc23:test",), 40), Copy(("knoveleng/AMC-23:train",), 40)), _MAA, 16, plain, integer, about="the 40 rows"
    ),
    Benchmark("amc", (Copy(("AI-MO/aimo-validation-amc:train",), 83),), _MAA, 16, plain, integer, about="the 83 rows of DeepScaleR; not amc23"),
    Benchmark("gsm8k", (Copy(("openai/gsm8k/main:test",), 1319),), "MIT", 1, plain, integer),
    Benchmark(
        "gsm-plus", (Copy(("qintongli/GSM-Plus:test",), 10552),), "CC BY-SA 4.0", 1, numeric, integer, others=((2400, "testmini"),), called=("gsm+", "gsmplus"),
        about="rows without a numeric gold left out",
    ),
    Benchmark(
        "svamp", (Copy(("ChilleD/SVAMP:test",), 300),), "MIT", 1, plain, integer, others=((1000, "train and test together"),)
    ),
    Benchmark(
        "asdiv", (Copy(("EleutherAI/asdiv/asdiv:validation",), 2305),), "CC BY-NC 4.0", 1, plain, without_unit,
        others=((2215, "the copy of Qwen2.5-Math"),),
    ),
    Benchmark(
        "college-math",
        (
            Copy(("QwenLM/Qwen2.5-Math/evaluation/data/college_math/test.jsonl",), 2818, "github"),
            Copy(("realtreetune/college_math:test",), 2818),
        ),
        "not stated", 1, plain,
    ),
    Benchmark(
        "minerva", (Copy(("math-ai/minervamath:test",), 272), Copy(("knoveleng/Minerva-Math:train",), 272)), "CC BY-NC-SA 4.0", 4, plain, from_code,
        called=("minerva_math",),
    ),
    Benchmark(
        "olympiadbench",
        (Copy(("Hothan/OlympiadBench/OE_TO_maths_en_COMP:train",), 674), Copy(("knoveleng/OlympiadBench:train",), 675)),
        "Apache-2.0", 4, all_answers, called=("olympiad", "olympiad_bench"), about="mathematics in English without pictures",
    ),
    Benchmark(
        "gpqa-diamond", (Copy(("Idavidrein/gpqa/gpqa_diamond:train",), 198), Copy(("hendrydong/gpqa_diamond_mc:test",), 198)), "CC BY 4.0", 8, options,
        forms=(("Question", *OPTIONS), _PLAIN), called=("gpqa", "gpqa_d"), about="gated; options in an order that the record decides",
    ),
    Benchmark(
        "ockbench-math",
        (Copy(("OckBench/OckBench/data/OckBench_math.jsonl",), 200, "github"), Copy(("ockbench/ockbench/OckBench_math.jsonl",), 200)),
        "not stated", 4, plain, integer, called=("ockbench",), about="the mathematics of 200 problems",
    ),
)  # fmt: skip
BENCHMARKS = {one.name: one for one in _ALL}
