"""Stages that learn from examples: the reference samples them from a policy, sft and dpo train on them.

Claim: what a reference stage sampled is read by problem and by id, never sampled or tokenised again; what sft and dpo leave is an ordinary
checkpoint. Each stage goes on from what it left whole.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from launch.engines import sampling
from launch.memory import many, one_trainer
from launch.parts import Part, Standing
from launch.plan_data import read_of_reference
from launch.problems import file_names, list_left_out
from recipes.data import DataSet
from recipes.stages import DpoStage, ReferenceStage, SftStage, Stage
from recipes.steps import Step
from rewards.rows import DataError
from rewards.verifier.judge import Judge
from rl import checkpoint
from rl.progress import Progress
from rl.supervised import Item, Training, dpo, drawn, fitting, sft
from rollout import reference
from rollout.chats import examples, rendered
from rollout.parts import Parts, sample
from rollout.scorer import Scorer
from rollout.sources import LeftOut
from rollout.template import Template
from rollout.types import Example


def reference_stage(part: Part, stage: ReferenceStage, template: Template, folder: Path, at: Standing, judge: Judge) -> Parts:
    """Sample the training problems that come next from the checkpoint handed on, or those that are not there yet; where they lie."""
    made, recipe, source = part.made, part.recipe, part.source
    assert source is not None
    asked = reference.requests(
        source,
        template,
        part.step.problems(source.rows),
        samples=stage.samples,
        max_tokens=recipe.most_tokens,
        temperature=recipe.sampler.temperature,
        seed=recipe.seed,
        max_prompt_tokens=recipe.data.max_prompt_tokens,
        first=at.position,
        limit=recipe.budget.limit,
    )
    kept = Parts(folder, asked, {"template": template.digest}, "put the old tokenizer files back, or choose another name (name=...)")
    with Progress(stage.called, kept.rollouts) as progress:
        for words in source.said:
            progress.message(words)
        list_left_out(progress, folder / "left_out" / "train.jsonl", source.name, source.left_out)
        for words in kept.recovered():
            progress.message(words)
        if left := kept.waiting():
            if len(left) < len(asked):
                progress.message(f"resumed {folder}: {len(asked) - len(left)} of {len(asked)} problems are there")
            progress.phase("start engines")
            with sampling(made, at.start, template, [request.prompt_ids for request in asked]) as pool:
                progress.phase("sample")
                list(sample([kept], pool, Scorer(judge, template), progress.count))
        if found := list(reference.statistics(kept.read()).values()):
            right = sum(one["reference_shortest"] is not None for one in found)
            accuracy, tokens = (sum(one[name] or 0.0 for one in found) / len(found) for name in ("reference_accuracy", "reference_tokens"))
            progress.message(
                f"{len(found)} problems: accuracy {accuracy:.1%}, {right} have a right answer; reference_tokens, of right answers where there are two, {tokens:.1f} on average"
            )
        if len(found) < len(asked):
            progress.message(f"warning: of {len(asked) - len(found)} of {len(asked)} problems not one rollout could be judged")
    return kept


def refuse_unlearnable(part: Part, template: Template) -> None:
    """Refuse data of which an sft stage could learn nothing, before anything starts: each set is read up to its first example that fits.
    Raises DataError: the template refuses all of a set, or the others are too long."""
    for (conversations, *_), name in zip(part.sets, _names(part.step.stage), strict=False):
        long: list[Example] = []
        for example in rendered(conversations, template, []):
            if fitting([example], part.step.longest):
                break
            long.append(example)
        else:
            raise _all_long(len(long), name, part.step)


def with_reference(part: Part, at: Standing) -> Part:
    """The part with the columns of the reference stage before on its problems, if something reads them."""
    if part.source is None or not read_of_reference(part.step):
        return part
    assert at.reference is not None
    found = reference.statistics(at.reference.read())
    source = reference.with_statistics(part.source, at.reference.asked, found, part.recipe.seed, part.recipe.number_columns)
    return replace(part, source=source)


def supervised_stage(part: Part, stage: SftStage | DpoStage, template: Template, folder: Path, at: Standing) -> Path:
    """Train on examples; the checkpoint that comes out.

    Raises:
        DataError: there is nothing to learn from.
        RuntimeError: the loss is not a number.
    """
    if checkpoint.whole(done := folder / "checkpoint"):
        shutil.rmtree(folder / "trainer", ignore_errors=True)  # of a process that was killed between the two
        Progress(stage.called, 1).message(f"done before, taken from {done}")
        return done
    made, step, recipe, learner = part.made, part.step, part.recipe, one_trainer(part.recipe.learner)
    how = Training(
        stage=step.where,
        batch=stage.batch,
        lr=stage.rate(recipe.learner.lr),
        seed=recipe.seed,
        dtype=recipe.model.dtype,
        device="cuda" if made.device == "cuda" else "cpu",
        threads=learner.threads,
        micro_batch_tokens=learner.micro_batch_tokens,
        gradient_checkpointing=learner.gradient_checkpointing,
        checkpoint_every=recipe.train.checkpoint_every,
        limit=at.limit,
        adapter=learner.adapter,
    )
    words: list[str] = []
    left_out: list[tuple[str, LeftOut]] = []
    names = _names(stage)
    sets = [_short(rows, step, name, words) for rows, name in zip(_given(part, stage, template, at, left_out, words), names, strict=True)]
    order = drawn(sets, [one.weight for one in _named(stage)] or [1.0], recipe.seed, stage.batch, epochs=stage.epochs)
    words.append(_passes(order, sets, names, stage))
    with Progress(stage.called, len(order) // stage.batch) as progress:
        for line in words:
            progress.message(line)
        for name, (source, rows) in zip(file_names([source for source, _ in left_out]), left_out, strict=True):
            list_left_out(progress, folder / "left_out" / f"{name}.jsonl", source, rows)
        progress.phase("train")
        train = partial(dpo, at.start, folder, order, stage.beta) if isinstance(stage, DpoStage) else partial(sft, at.start, folder, order)
        train(how, lambda done, _, loss: progress.step({"step": done - 1, "loss": loss}))
    if made.device == "cuda":  # engines and ranks come next, in processes of their own
        import torch

        gc.collect()
        torch.cuda.empty_cache()
    return done


def _given(
    part: Part, stage: SftStage | DpoStage, template: Template, at: Standing, left_out: list[tuple[str, LeftOut]], words: list[str]
) -> Sequence[Sequence[Any]]:
    """What a stage learns from: its sets, else pairs or the shortest right answers of the last reference, of which what is lacking is said with the stage in front."""
    if not part.sets:
        assert at.reference is not None
        answers = at.reference.read()
        try:
            return [reference.pairs(answers, stage.rejected) if isinstance(stage, DpoStage) else reference.shortest_right(answers)]
        except reference.NoReference as error:
            raise reference.NoReference(f"{part.step.where}: {error}") from error
    words += [said for *_, said in part.sets]
    left_out += [(one.source, rows) for one, (_, rows, _) in zip(_named(stage), part.sets, strict=True)]
    sets, refused = examples([conversations for conversations, *_ in part.sets], template)
    left_out.append(("the chat template", refused))
    asked = [one for conversations, *_ in part.sets for one in conversations]
    if marked := [one.place for one in asked if template.holds_marks(one.turns)]:
        words.append(
            f"{len(marked)} of {len(asked)} prompts hold what looks like the model's own marks of roles or of thinking, learned as the text it is (first: {marked[0]})"
        )
    return sets


def _short(rows: Sequence[Item], step: Step, what: str, words: list[str]) -> list[Item]:
    """The rows that are no longer than allowed. Raises DataError: none is."""
    kept = fitting(rows, step.longest)
    if not kept:
        raise _all_long(len(rows), what, step)
    if len(kept) < len(rows):
        words.append(f"{len(rows) - len(kept)} of {len(rows)} {what} are longer than {step.longest} tokens and left out")
    words.append(f"{len(kept)} {what}")
    return kept


def _passes(order: Sequence[Item], sets: Sequence[Sequence[Item]], names: Sequence[str], stage: SftStage | DpoStage) -> str:
    """How often a stage goes through each set: by its weight, and in whole batches, so that rows may come more often than its epochs say."""
    updates, there = len(order) // stage.batch, sum(map(len, sets))
    drawn = [sum(id(row) in own for row in order) for own in [set(map(id, rows)) for rows in sets]]
    passes = ", ".join(
        f"{count / len(rows):.3g} passes over {len(rows):,} {name}" for count, rows, name in zip(drawn, sets, names, strict=True)
    )
    words = f"{many(updates, 'update')} of {stage.batch}: {passes}"
    if len(order) < 1.5 * stage.epochs * there:
        return words
    wanted = stage.epochs * there
    fits = next((size for size in range(min(stage.batch, int(wanted)), 1, -1) if size * -(-wanted // size) < 1.5 * wanted), 1)
    advice = f"; take batch: {fits}" if fits < stage.batch else ""
    return f"warning: {words}, where epochs says {stage.epochs:g}, as only whole batches train{advice}"


def _names(stage: Stage) -> list[str]:
    """What is learned of each set is called: by its source, where there are several."""
    sets = _named(stage)
    return [f"examples of {one.source}" for one in sets] if len(sets) > 1 else ["pairs" if isinstance(stage, DpoStage) else "examples"]


def _named(stage: Stage) -> list[DataSet]:
    """The sets that a stage names."""
    return stage.sets if isinstance(stage, SftStage) else []


def _all_long(count: int, what: str, step: Step) -> DataError:
    return DataError(f"{step.where}: all {count} {what} are longer than {step.longest} tokens; raise max_tokens")
