"""`laconic import`: samples that others made, judged, counted and kept as an evaluation, which report and compare read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from launch.doors import say
from launch.evaluate import folder_of, print_scores
from recipes.schema import Recipe
from rewards.rows import DataError
from rewards.thinking import marks_in

if TYPE_CHECKING:  # they import transformers
    from evaluation.imported import Imported, Sample
    from rewards.verifier.judge import Judge
    from rollout.scorer import Scorer
    from rollout.template import Template
    from rollout.types import Group, Problem


def import_samples(
    path: Path,
    folder: Path | None,
    overwrite: bool,
    console: Console,
    *,
    source: str | None = None,
    model: str | None = None,
    tokenizer: Path | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    lenient: bool = False,
    problem: str | None = None,
    gold: str | None = None,
    prediction: str | None = None,
    score: str | None = None,
) -> None:
    """Judge the samples of a file and write them to `folder` (default: evals/MODEL) as SOURCE.json and SOURCE.parquet.

    Args:
        source: the set that was asked; default: the file's name.
        tokenizer: folder of the checkpoint, or of the tokenizer, that counts lengths; None: the file's own tokens, else characters.
        max_tokens: where the samples' engine stopped, which none of the file's own lengths goes beyond; default: the longest of them.
        temperature, top_p, top_k: with which they were sampled; recorded, so that settings can be compared.
        lenient, problem, gold, prediction, score, model: see evaluation.imported.read_samples and evaluation.evaluate.read_stated.

    Raises:
        ValueError, DataError: the file cannot be read, or nothing of it used (its place is said).
        FileExistsError: the folder holds results of the same name, and `overwrite` is off.
    """
    from evaluation.imported import read_samples, source_of
    from launch.problems import file_names, list_left_out
    from rl.progress import Progress

    source = source or source_of(path)
    name = file_names([source])[0]
    read = read_samples(
        path, source, problem=problem, gold=gold, prediction=prediction, model=model, lengths=tokenizer is None, score=score
    )
    _refuse_longer(read, max_tokens)
    target = folder_of(read.model or name, folder)
    if (earlier := target / f"{name}.json").exists() and not overwrite:
        raise FileExistsError(f"{earlier} holds earlier results: replace them (--overwrite) or choose another folder (--out)")
    for words in read.said:
        say(words, console)
    template = _template(read, name, tokenizer)
    limits = Recipe(name="import").judge
    from evaluation.evaluate import read_stated, write
    from evaluation.results import IMPORTED, Settings
    from rewards.verifier.judge import Judge
    from rollout.records import rows
    from rollout.scorer import Scorer

    with Judge(os.cpu_count() or 1, limits.wall_s, limits.memory_mb) as judge, Progress(name, len(read.problems)) as progress:
        kept, left_out = _with_golds(read, judge)
        list_left_out(progress, target / f"{name}.left_out.jsonl", name, read.left_out + left_out)
        scorer = Scorer(judge, template, whole=True)
        groups = _judged(kept, scorer, count=tokenizer is not None or not read.counted)
        if lenient:
            read_stated(groups, scorer)
    longest = max(rollout.tokens for group in groups for rollout in group.rollouts)
    settings = Settings(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        max_tokens=max_tokens or max(longest, 1),
        engine=IMPORTED,
        template=template.digest,
        lenient=lenient,
    )
    say(f"lengths are in {template.digest if tokenizer is None else f'tokens of {tokenizer}'}", console)
    if max_tokens is None:
        say(f"the limit is taken to be the longest, {longest} (--max-tokens names it): only evaluations of one limit are compared", console)
    scores = write(target / name, rows(groups, 0, template.digest), checkpoint=read.model, step=0, source=source, settings=settings)
    print_scores(console.print, name, scores, target / f"{name}.json")


def _refuse_longer(read: Imported, limit: int | None) -> None:
    """Refuse a limit that a sample, as its file counts it, goes beyond. Raises DataError with its place."""
    for one in (one for _, samples in read.problems for one in samples):
        if limit is not None and one.tokens is not None and one.tokens > limit:
            raise DataError(
                f"{one.place}: a completion of {one.tokens:,} tokens, and --max-tokens says that none is longer than {limit:,}; "
                "correct one, or count all with --tokenizer"
            )


def _template(read: Imported, name: str, tokenizer: Path | None) -> Template:
    """What reads the texts, under the name of what counts them. Raises TemplateError, TokenizerError: nothing usable lies in the tokenizer's folder."""
    from recipes.data import Data
    from rollout.records import CHARACTERS
    from rollout.template import load_template
    from rollout.tokenizer import load_tokenizer
    from rollout.transcripts import transcripts

    marks, opened = marks_in([one.text for _, samples in read.problems for one in samples])
    made = partial(transcripts, Data(), marks=marks, thinking=opened)
    if tokenizer is None:
        whose = read.model or f"{name} ({read.revision})"  # a file that names no model shares its ruler with no other
        return made(f"tokens of {whose}, as recorded" if read.counted else CHARACTERS)
    if not tokenizer.is_dir():
        raise ValueError(f"--tokenizer: no folder {tokenizer}; name a checkpoint's folder, or one with its tokenizer files")
    counter = load_tokenizer(tokenizer)
    if counter.chat_template:
        own = load_template(tokenizer)  # counts and names as evaluations of that checkpoint do
        return made(own.digest, counter, ends=(own.end_id, *own.stop_ids))
    parts = json.dumps([sorted(counter.get_vocab().items()), counter.encode("1,000 = 2\n\n\n  \tÀ \\boxed{-3.14}.")])
    ends = () if counter.eos_token_id is None else (counter.eos_token_id,)
    return made(hashlib.sha256(parts.encode()).hexdigest()[:12], counter, ends=ends)


def _with_golds(read: Imported, judge: Judge) -> tuple[list[tuple[Problem, list[Sample]]], list[tuple[str, str]]]:
    """The problems with the golds that can be judged, and (id, reason) of those that have none. Raises DataError: none has any."""
    from rollout.sources import audited

    asked = {problem.id: (problem, samples) for problem, samples in read.problems}
    kept, goldless = audited([problem for problem, _ in read.problems], judge.check_golds)
    left_out = [(id_, f"gold {asked[id_][0].answer!r:.60}: {reason}") for id_, reason in goldless]
    if not kept:
        raise DataError(f"none of {len(left_out)} problems has a gold that can be judged (first: {left_out[0][1]}); name its path (--gold)")
    return [(problem, asked[problem.id][1]) for problem in kept], left_out


def _judged(problems: Sequence[tuple[Problem, list[Sample]]], scorer: Scorer, count: bool) -> list[Group]:
    """Judged groups of problems with their samples, whose lengths are counted in the text, or as the file says."""
    from rollout.transcripts import completion
    from rollout.types import Request

    pending = []
    for problem, samples in problems:
        request = Request(problem.id, problem, scorer.template.prompt_ids(problem), len(samples), 1, 1.0, 1.0, 0)
        made = [completion(scorer.template, one.text, one.finish, counted=None if count else one.counted) for one in samples]
        pending.append(scorer.begin(request, made))
    groups = [scorer.finish(one) for one in pending]
    for group, (_, samples) in zip(groups, problems, strict=True):
        for rollout, one in zip(group.rollouts, samples, strict=True):
            rollout.score = one.score
    return groups
