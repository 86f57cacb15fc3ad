"""Evaluation: a policy samples held-out problems, and every sample is judged, counted and kept.

Claim: one route. Evaluations inside a run and `laconic eval` go through `evaluate`, with the engines, template and judge of training; what
differs is who holds the weights. Samples are kept as they come (rollout/parts), and numbers come from what is kept: an evaluation that was
killed goes on where it stopped and ends with the numbers that it would have had (vLLM's random state is not kept: what it had not sampled yet is
another draw).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from evaluation.results import Budget, Evaluation, Extended, Settings, ShortOf
from evaluation.scores import score
from rewards.verifier.stated import block, stated
from rewards.verifier.verdict import best
from rollout.collector import seed_of
from rollout.engine import Pool
from rollout.parts import Parts, differing, read_made, sample, write_whole
from rollout.records import SCHEMA
from rollout.scorer import Scorer
from rollout.template import Template
from rollout.types import Group, Problem, Request, Short, Wait

DATE = "date"  # that prompts state if they state one: kept with the samples, since whoever goes on with them states the same
COMMIT, SOURCE = "revision", "source"  # commit of the hub's set, kept with the samples but no part of what they are: their problems are
_LATER = ("top_k",)  # settings that older samples do not name: made without
_NOT_OF_SAMPLES = {"date", "margin", "stated_limit", COMMIT}  # of the settings: what prompts say is in their ids


@dataclass(frozen=True)
class Asked:
    """An evaluation to be made: a checkpoint on one source of problems, at one budget.

    Attributes:
        path: of its files without their ending: `path`.json and .parquet (docs/architecture.md), and `path`.parts while it is sampled.
        checkpoint, step, source, settings: as Evaluation has them.
        requests: what engines are asked, of which no other evaluation has an id at the same time.
        weights: what tells the checkpoint's weights from others; "" where path and step do.
        ranked: samples are kept with their logprobs, so that the best of several can be told; those without are another evaluation's.
    """

    path: Path
    checkpoint: str
    step: int
    source: str
    settings: Settings
    requests: Sequence[Request]
    weights: str = ""
    ranked: bool = False

    @property
    def label(self) -> str:
        """For people: its source, and the budget."""
        budget = self.settings.budget
        return f"{self.source}, {budget.words}" if budget else self.source

    @property
    def scores(self) -> Path:
        return self.path.parent / f"{self.path.name}.json"

    @property
    def table(self) -> Path:
        return self.path.parent / f"{self.path.name}.parquet"

    @cached_property
    def parts(self) -> Parts:
        settings = self.settings.model_dump(mode="json", exclude=_NOT_OF_SAMPLES)
        asked = [[one.id, one.prompt_ids, one.group_size, one.problem.golds] for one in self.requests]
        made = {
            "template": self.settings.template,
            **{name: json.dumps(value) for name, value in settings.items() if name != "template"},
            **{name: "" for name in _LATER if not settings[name]},
            "problems": hashlib.sha256(json.dumps(asked).encode()).hexdigest(),
            "weights": self.weights,
            **({"logprobs": "kept"} if self.ranked else {}),
        }
        also = {DATE: self.settings.date or "", COMMIT: self.settings.revision or "", SOURCE: self.source}
        remedy = "begin anew (--overwrite), or choose another folder (--out; of a run, name=...)"
        folder = self.path.parent / f"{self.path.name}.parts"
        return Parts(folder, self.requests, made, remedy, also=also, step=self.step)

    def moved(self) -> str:
        """What to say where samples are there of another commit of the hub's set, whose problems are the same; "" else."""
        there = next((file for file in (self.table, *sorted(self.parts.folder.glob("part-*.parquet"))) if file.is_file()), None)
        made, now = read_made(there) if there else {}, self.settings.revision
        if SOURCE not in made or not now or made[COMMIT] in ("", now):  # older samples do not tell their commit apart from what they are
            return ""
        return f"{self.label}: what is there was asked of commit {made[COMMIT]}, the set is at {now} now; its problems are the same"

    def forget(self) -> None:
        """Remove what there is of it."""
        self.scores.unlink(missing_ok=True)
        self.table.unlink(missing_ok=True)
        shutil.rmtree(self.parts.folder, ignore_errors=True)

    def found(self) -> Evaluation | None:
        """What it said when it was made before; None if it was not, or not to its end.

        Raises:
            FileExistsError: another evaluation's results lie in its place.
        """
        if (done := self._written()) is None:
            return None
        try:
            words = differing(read_made(self.table), self.parts.made)
        except (OSError, pa.ArrowException):
            words = "samples that are gone"
        if words:
            raise FileExistsError(
                f"{self.scores} holds earlier results, of {words}: replace them (--overwrite), or choose another folder (--out)"
            )
        return done.model_copy(update={"table": self.table})

    @property
    def made(self) -> bool:
        """Whether it was made to its end before, in whatever way."""
        return self._written() is not None

    def _written(self) -> Evaluation | None:
        try:
            return Evaluation.model_validate_json(self.scores.read_bytes())
        except (OSError, ValueError):
            return None

    def finish(self, table: pa.Table) -> Evaluation:
        """Score its samples, and leave the two files in place of the parts."""
        found = write(
            self.path,
            table,
            checkpoint=self.checkpoint,
            step=self.step,
            source=self.source,
            settings=self.settings,
            asked={request.problem.id: request.group_size for request in self.requests},
        )
        shutil.rmtree(self.parts.folder, ignore_errors=True)
        return found.model_copy(update={"table": self.table})


def write(
    path: Path, table: pa.Table, *, checkpoint: str, step: int, source: str, settings: Settings, asked: Mapping[str, int] | None = None
) -> Evaluation:
    """Write `path`.parquet and then `path`.json of judged samples, whoever made them, and return the scores. Raises as `score`."""
    found = score(table, checkpoint=checkpoint, step=step, source=source, settings=settings, asked=asked)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path.parent / f"{path.name}.parquet", table)
    whole = path.parent / f"{path.name}.json.tmp"
    whole.write_text(found.model_dump_json(indent=1))
    os.replace(whole, path.parent / f"{path.name}.json")
    return found


def requests(name: str, problems: Sequence[Problem], template: Template, settings: Settings, logprobs: bool = False) -> list[Request]:
    """What engines are asked: of each problem `settings.samples` rollouts for each row that asks it (sampled, not greedy), at the settings' budget.

    Where chains are stopped, a problem gets as many whole sets of chains as these samples hold, at least one.

    Args:
        name: of the evaluation, which the ids begin with. Seeds do not depend on it: at every budget a problem's samples begin alike.
    """
    budget, temperature, samples = settings.budget, settings.temperature or 0.0, settings.samples or 1
    stating, short = stating_of(template, settings), None
    wait = Wait(budget.waits, template.word_ids(budget.word)) if isinstance(budget, Extended) else None
    if isinstance(budget, ShortOf):
        short, samples = Short(budget.first, budget.of, template.closer), max(1, samples // budget.of) * budget.of
    return [
        Request(
            id=f"{name}:{index}:{problem.id}",
            problem=problem,
            prompt_ids=stating.prompt_ids(problem),
            group_size=samples * (problem.repeats if temperature > 0 else 1),
            max_tokens=settings.max_tokens,
            temperature=temperature,
            top_p=settings.top_p or 1.0,
            top_k=settings.top_k or 0,
            seed=seed_of(settings.seed, "eval", index),
            limit=_limit(budget, "requested") or 0,
            thinking_tokens=_limit(budget, "forced", "extended"),
            logprobs=logprobs,
            short=short,
            wait=wait,
        )
        for index, problem in enumerate(problems)
    ]


def stating_of(template: Template, settings: Settings) -> Template:
    """The template whose prompts ask for the settings' budget, if they request one."""
    limit = _limit(settings.budget, "requested")
    return template if limit is None else template.asking(limit)


def _limit(budget: Budget | ShortOf | None, *kinds: str) -> int | None:
    """The limit of a budget, if it is of one of these kinds."""
    return budget.limit if isinstance(budget, Budget) and budget.kind in kinds else None


def waiting(asked: Iterable[Asked], say: Callable[[str], None], overwrite: bool = False) -> list[Asked]:
    """Those that are not made yet, what is there of them ready to be gone on with.

    Args:
        say: told, a sentence each, of what was set aside and of what is there already.
        overwrite: begin them anew.

    Raises:
        FileExistsError, OtherParts: results or samples of other settings, problems or weights lie in one's place.
    """
    left = []
    for one in asked:
        if overwrite:
            one.forget()
        done = one.found()
        for words in () if done else one.parts.recovered():
            say(words)
        if words := one.moved():
            say(words)
        if done:
            continue
        if there := len(one.requests) - len(one.parts.waiting()):
            say(f"resumed {one.parts.folder}: {there} of {len(one.requests)} problems are there")
        left.append(one)
    return left


def evaluate(
    asked: Sequence[Asked],
    pool: Pool,
    scorer: Scorer,
    progress: Callable[[int, int], None] | None = None,
    check: Callable[[pa.Table], None] | None = None,
) -> Iterator[tuple[Asked, Evaluation]]:
    """Make these evaluations, all at once, and give each as it is done. Samples that were cut off are judged as unfinished (`Scorer.whole`).

    Args:
        progress: called with (rollouts done, rollouts), what is there already among both.
        check: sees an evaluation's samples before they are scored.
    """
    scorer = replace(scorer, whole=True)
    lenient = [one.parts.folder for one in asked if one.settings.lenient]
    by_folder = {one.parts.folder: one for one in asked}

    def each(groups: Sequence[Group]) -> None:
        read_stated(groups, scorer)

    for parts in sample([one.parts for one in asked], pool, scorer, progress, each if lenient else None):
        table, one = parts.read(), by_folder[parts.folder]
        if check:
            check(table)
        yield one, one.finish(table.select(SCHEMA.names))


def read_stated(groups: Sequence[Group], scorer: Scorer) -> None:
    """Judge answers that finished samples state without a box, as `rollout.stated`; verdicts on boxes stay what they are.

    Read is what stands behind the thinking. A sample that was cut off, or whose thinking never closed, has no answer here either.
    """
    waiting = []
    for rollout, golds in ((rollout, group.problem.golds) for group in groups for rollout in group.rollouts):
        if rollout.verdict is None or rollout.verdict.reason not in ("no box", "empty box") or rollout.completion.finish != "stop":
            continue
        text = scorer.template.text(rollout.completion, start=rollout.answer_start or 0)
        if answer := block(text) or stated(text):
            waiting.append((rollout, [scorer.judge.compare(gold=gold, answer=answer) for gold in golds]))
    for rollout, futures in waiting:
        rollout.stated = best([future.result() for future in futures])
