"""The stages of a recipe, one after the other: each takes a checkpoint and hands one on.

This module puts the pieces together and owns nothing else: it starts engines and learner, hands them to the loop, and closes everything again
however the run ends. A stage that left what it makes whole is not done again, so a run that is resumed goes on in the stage in which it was.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from evaluation.evaluate import Asked, evaluate, waiting
from evaluation.words import warnings
from launch.checkpoints import adapter_faults, linear_layers
from launch.engines import carrier, closer, closing, engines, rehearsed, sampling, stating
from launch.evaluations import evaluations, fit
from launch.machine import cache_folder
from launch.parts import Part, Standing, digests, read_data
from launch.plan import Plan, PlanError, check_runnable, plan
from launch.problems import file_names, list_left_out, list_overlap, some_fit
from launch.shared import PATTERNS, refuse_missing, refuse_unshared
from launch.teachers import reference_stage, refuse_unlearnable, supervised_stage, with_reference
from recipes.schema import Recipe
from recipes.stages import DpoStage, EvalStage, MergeStage, ReferenceStage, SftStage, changed
from recipes.steps import beginning, evaluated_after
from rewards.rows import quiet_retries
from rewards.verifier.judge import Judge
from rl import checkpoint, loop
from rl.cold_start import cold_start, cold_started
from rl.environment import prompt_date
from rl.gate import MOMENTS, check_gaps, drawn_samples
from rl.learner import Learner, LearnerLost
from rl.merge import merge, told
from rl.progress import Progress
from rl.publisher import Publisher
from rl.run import Run, RunError, forget_behind, is_finished, nothing_left, refuse_unusable, refuse_unwritable
from rl.start import refuse_other
from rl.state import put_back
from rl.turns import Turns
from rl.wires import CollapseWires
from rollout.collector import Collector, PromptStream
from rollout.engine import Pool
from rollout.peers import RayLost
from rollout.scorer import Scorer
from rollout.template import Template, load_template

log = logging.getLogger(__name__)

_RETURNS = 3
_NOT_RESTORED = "; not vLLM's random state, so the rollouts to come differ from an uninterrupted run's"
# Beginnings of variables that accelerate, torch, DeepSpeed and vLLM read; SLURM_* none of them does.
_OF_LAUNCHERS = (
    "RANK=", "WORLD_SIZE=", "LOCAL_RANK=", "LOCAL_WORLD_SIZE=", "NODE_RANK=", "MASTER_ADDR=", "MASTER_PORT=", "GROUP_RANK=",
    "GROUP_WORLD_SIZE=", "ROLE_RANK=", "ROLE_WORLD_SIZE=", "ROLE_NAME=", "FORK_LAUNCHED=", "ACCELERATE_", "FSDP_", "MEGATRON_LM_",
    "PARALLELISM_CONFIG_", "TORCHELASTIC_", "SMDATAPARALLEL_", "OMPI_COMM_", "PMI_", "MPI_LOCAL", "MV2_COMM_", "VLLM_DP_",
)  # fmt: skip


def run_recipe(
    made: Plan, runs_dir: Path, resume: bool = False, overwrite: bool = False, mirror: Callable[[], None] = lambda: None
) -> Path:
    """Run all stages of a recipe that was planned and found runnable (`check_runnable`); returns the run folder.
    `mirror` is called at the beginning, after each checkpoint and each stage.

    Raises:
        PlanError, DataError, TemplateError, RunError: before anything expensive starts.
        EngineError, LearnerError, PublishError, CheckpointError, NotJudged: while it runs; the run folder says so too.
    """
    recipe = made.recipe
    runs_dir = runs_dir.absolute() if made.machine.name else runs_dir  # processes of a Ray that is joined have another working folder
    folder = runs_dir / recipe.name
    if resume and recipe.cluster.preemptible:  # a job that was taken away
        resume = (folder / "recipe.yaml").is_file()  # else before there was a run
        if resume and nothing_left(recipe, folder):
            return folder  # at its very end
    refuse_unusable(recipe, runs_dir, resume, overwrite)  # before the minutes of a cold start; Run.create asks for those who came meanwhile
    refuse_unshared(made, runs_dir, "--runs")
    if recipe.model.path == "tiny":
        refuse_unshared(made, cache_folder(), "LACONIC_CACHE")
    settle_device(made)
    with Judge(recipe.judge.workers, recipe.judge.wall_s, recipe.judge.memory_mb) as judge:
        parts = read_data(made, judge, folder if resume else None)
        start = starting_checkpoint(beginning(recipe))
        start = start.absolute() if made.machine.name else start
        refuse_missing(made, start)
        made = planned_with(start, made)
        date = prompt_date(folder) if resume else None
        ready = [_ready(replace(part, made=again), start, date) for part, again in zip(parts, made.stages, strict=True)]
        digest, date, holds = next(((it.digest, it.date, part.recipe) for part, it in ready if part.step.own), ("", date, recipe))
        with Run.create(recipe, runs_dir, resume, overwrite, digest, date, holds, mirror, made.device, digests(parts)) as run:
            at = Standing(start, start)
            for part, template in ready:
                run.mirror()
                at = _survived(part, run, template, at, judge)
    return folder


def _ready(part: Part, start: Path, date: str | None) -> tuple[Part, Template]:
    """The part without problems that engines keep no room for, and the template of its prompts. Raises DataError, TemplateError: it cannot run."""
    recipe = part.recipe
    template = load_template(start, recipe.data, date, budget=recipe.at(recipe.train.steps).budget.limit)
    closing(recipe, template)  # refused before anything starts
    heldout = [fit(one, template, recipe) for one in part.heldout]
    if part.source is not None:
        some_fit(part.source, template, recipe.data.max_prompt_tokens)
    refuse_unlearnable(part, template)
    return replace(part, heldout=heldout), template


def _survived(part: Part, run: Run, template: Template, at: Standing, judge: Judge) -> Standing:
    """`_done`; once more, with new processes and from what the stage kept, when a learner or Ray is lost, as often as _RETURNS without a checkpoint in between."""
    kept = part.step.folder(run.folder) / "checkpoints"
    left, stood, run.returns = _RETURNS, checkpoint.latest(kept), 0
    while True:
        try:
            return _done(part, run, template, at, judge)
        except (LearnerLost, RayLost, checkpoint.CheckpointError) as error:
            if isinstance(error, checkpoint.CheckpointError) and not isinstance(error.__cause__, LearnerLost):
                raise  # it was no rank that could not write
            run.go_back()
            before, stood = stood, run.checkpoint if part.step.own else checkpoint.latest(kept)
            left = left if stood == before else _RETURNS
            if not left:
                raise
            left -= 1
            whence = f"step {run.step}" if part.step.own else "what it kept"
            log.warning("%s: %s. The stage goes on from %s", part.step.where, error, whence)


def _done(part: Part, run: Run, template: Template, at: Standing, judge: Judge) -> Standing:
    """Do a stage, or what is left of it; where the run then stands."""
    folder = part.step.folder(run.folder)
    match stage := part.step.stage:
        case ReferenceStage():
            return replace(at, reference=reference_stage(part, stage, template, folder, at, judge))
        case SftStage() | DpoStage():
            return replace(at, start=supervised_stage(part, stage, template, folder, at))
        case MergeStage():
            return replace(at, start=_merge(stage, folder, at))
        case EvalStage():
            _evaluate_only(part, run, template, at, judge)
            return at
    return _reinforce(part, run, template, at, judge)


@contextmanager
def _record(part: Part, run: Run, template: Template) -> Iterator[Run]:
    """The open record of a stage: the run's own, or one of its own in the run's folder."""
    if part.step.own:
        yield run
        return
    folder = part.step.folder(run.folder)
    begun = (folder / "recipe.yaml").is_file()
    if not begun:
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed while it made the folder
    told = partial(Run.create, template=template.digest, date=template.date, device=part.made.device, mirror=run.mirror)
    with told(part.recipe, folder.parent, begun) as own:
        own.returns = run.returns
        yield own


def _say_data(part: Part, record: Run, template: Template, progress: Progress) -> None:
    """What there is to say of a stage's data, and which rows are left out."""
    source, heldout = part.source, part.heldout
    for words in [*(source.said if source else ()), *(words for one in heldout for words in one.said), *template.remarks]:
        progress.message(words)
    if source is not None:
        list_left_out(progress, record.folder / "left_out" / "train.jsonl", source.name, source.left_out)
    if part.learned is not None:
        list_overlap(progress, record.folder / "overlap.jsonl", part.learned, heldout)
    for one, name in zip(heldout, file_names([one.name for one in heldout]), strict=True):
        list_left_out(progress, record.folder / "left_out" / f"eval-{name}.jsonl", one.name, one.left_out)


def settle_device(made: Plan) -> None:
    """Hold torch and DeepSpeed to the plan's device, and to this process and those it starts, before minutes go into a cold start or a download.

    What a launcher (torchrun, accelerate, mpirun) says of processes of its own is taken out of the environment: libraries would wait for them.

    Raises:
        PlanError: the plan is for GPUs that torch cannot use.
    """
    for name in [name for name in os.environ if f"{name}=".startswith(_OF_LAUNCHERS)]:
        del os.environ[name]
    if made.device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed looks for a GPU and says that it found none
    elif made.machine.gpus:  # else those of other nodes are meant
        import torch

        if not torch.cuda.is_available():
            raise PlanError("device: there is a GPU that torch cannot use; `laconic doctor` looks for the reason")


def planned_with(start: Path, made: Plan) -> Plan:
    """The plan once the model is there: what a download brought is checked, and known to whoever asks for sizes.
    Raises PlanError: it cannot run here after all."""
    if made.shape is not None:
        # Of the cold start's model, or of a hub's whose shape is known.
        if faults := list(adapter_faults(linear_layers(start), made.recipe)):
            raise PlanError("\n".join(faults))
        return made
    model = made.recipe.model.model_copy(update={"path": str(start)})
    again = plan(made.recipe.model_copy(update={"model": model}), made.machine, made.others)
    check_runnable(again)
    parts = [replace(new, recipe=old.recipe, step=old.step) for new, old in zip(again.stages, made.stages, strict=True)]
    return replace(again, recipe=made.recipe, stages=parts)


def starting_checkpoint(recipe: Recipe, weights: bool = True) -> Path:
    """The folder that the first stage starts from: the cold-started reasoner, a local folder, or a hub snapshot, without its weights if they are not needed."""
    if recipe.model.path == "tiny":
        if (kept := cold_started(recipe, cache_folder())).is_dir():
            Progress("cold start", recipe.cold_start.steps).message(f"done before, taken from {kept}")
            return kept
        refuse_unwritable(kept, "LACONIC_CACHE")
        with Progress("cold start", recipe.cold_start.steps) as progress:
            return cold_start(recipe, cache_folder(), lambda step, steps, loss: progress.step({"step": step - 1, "loss": loss}))
    path = Path(recipe.model.path).expanduser()
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download

    patterns = [pattern for pattern in PATTERNS if weights or pattern != "*.safetensors"]
    try:
        with quiet_retries():
            return Path(snapshot_download(recipe.model.path, revision=recipe.model.revision, allow_patterns=patterns))
    except OSError as error:  # all the hub's own errors are
        lines = str(error).splitlines() or [type(error).__name__]
        why = " ".join(dict.fromkeys([lines[0], lines[-1]]))  # between them stands where it was looked for
        raise FileNotFoundError(
            f"model.path: {recipe.model.path} could not be had from the Hugging Face hub: {why} Name a checkpoint folder, or check name, network and HF_TOKEN"
        ) from error


def _reinforce(part: Part, run: Run, template: Template, at: Standing, judge: Judge) -> Standing:
    """Train by the loop, with the evaluations before, after and in between."""
    recipe, folder = part.recipe, part.step.folder(run.folder)
    before = _whole(part, run, template)
    if not before:
        with _record(part, run, template) as record:
            _train(with_reference(part, at), record, template, at, judge)
    last = checkpoint.latest(folder / "checkpoints")
    if last is None or (meta := checkpoint.metadata(last))["step"] != recipe.train.steps:
        raise RunError(
            f"{part.step.where}: {folder} is finished and its last checkpoint, step-{recipe.train.steps}, is gone, which the next stage starts "
            "from: put it back, or begin the run anew (--overwrite)"
        )
    if before:
        refuse_other(last, at.start)  # which a merge reads
        Progress(recipe.name, recipe.train.steps).message(f"resumed {last}: all {recipe.train.steps} steps are done")
    return replace(at, start=last, began=at.start, position=meta["state"]["stream"]["position"], limit=meta.get("limit"))


def _whole(part: Part, run: Run, template: Template) -> bool:
    """Whether an rl stage was done before, its last evaluation included."""
    folder, recipe = part.step.folder(run.folder), part.recipe
    if not part.step.own:
        return is_finished(folder)
    done = run.checkpoint is not None and checkpoint.metadata(run.checkpoint)["step"] == recipe.train.steps
    ends = recipe.stages[-1].kind == "eval" or recipe.train.steps in evaluated_after(recipe)
    return done and (not ends or all(one.made for one in _asked(part, run, template, recipe.train.steps)))


def _train(part: Part, run: Run, template: Template, at: Standing, judge: Judge) -> None:
    """What is left of an rl stage."""
    made, recipe, saved, source = part.made, part.recipe, run.checkpoint, part.source
    assert source is not None
    if saved is not None:
        refuse_other(saved, at.start)
    meta = checkpoint.metadata(saved) if saved is not None else {}
    done = meta.get("step", 0)
    with Progress(recipe.name, recipe.train.steps, done) as progress:
        _say_data(part, run, template, progress)
        run.truncate_to(done)
        if part.step.own and done < recipe.train.steps:
            forget_behind(run.folder, run.recipe)
        stream, wires = PromptStream(source, template, recipe, at.position), CollapseWires(recipe.wires, template.marks)
        progress.phase("start engines and learner")
        with engines(made, at.start, template, done) as (pool, options):
            begun = partial(Learner, recipe, at.start, made.device, partial(options, "learner"))
            early = None if made.turns else begun()  # beside the engines
            pool.wait_ready()
            probe = rehearsed(made, pool, template, [template.prompt_ids(source.at(position)) for position in range(16)])
            if made.turns:  # a learner that begins needs their room
                pool.sleep()
            learner = early or begun()
            learner.wait_ready()
            turns = Turns((pool, learner)) if made.turns else Turns()
            if saved is not None:
                learner.restore(saved)
                put_back(loop.stateful(stream, learner, wires), meta.get("state"))
                drawn = "" if recipe.engine.kind == "reference" else _NOT_RESTORED
                progress.message(f"resumed {saved}: policy, optimiser, data position {stream.position}, step {done}{drawn}")
            publisher = Publisher(pool, recipe.publish, probe, turns, carrier(made))

            whole = recipe.eval.top_p == 1 and not recipe.eval.top_k  # truncated sampling draws from another distribution
            compared = recipe.eval.temperature > 0 and whole

            def gate(samples: pa.Table) -> None:
                rows = drawn_samples(samples)
                check_gaps(rows, learner.measure([rows], MOMENTS, recipe.eval.temperature), recipe.publish.tolerance)

            def evaluate_now(step: int) -> None:
                name = str(at.start) if step == 0 else f"checkpoints/step-{step}"
                stated = replace(template, budget=stream.stated)
                left_over = waiting(_asked(part, run, stated, step, name, compared), progress.message)
                _evaluate(left_over, closer(pool, recipe, template), Scorer(judge, stated), progress, gate if compared else None)

            evaluated = recipe.stages[-1].kind == "eval"
            if saved is None and evaluated:
                if made.turns:  # engines that slept have no weights
                    publisher.begin(learner, 0)
                evaluate_now(0)
            collector = Collector(pool, Scorer(judge, template), stream)
            with checkpoint.Background() as writer:
                saver = loop.Saver(writer, run, learner, stream, wires, at.start)
                loop.train(run, recipe, collector, learner, publisher, turns, saver, evaluate_now, progress, wires)
            if evaluated:
                evaluate_now(recipe.train.steps)


def _evaluate_only(part: Part, run: Run, template: Template, at: Standing, judge: Judge) -> None:
    """Evaluate the checkpoint that the stage before hands on."""
    if not part.step.own and is_finished(part.step.folder(run.folder)):
        return
    with _record(part, run, template) as record, Progress(part.recipe.name, 1) as progress:
        _say_data(part, record, template, progress)
        stated = stating(template, part.recipe, changed(part.step.stage.said), at.limit)
        part = replace(part, heldout=[fit(one, stated, part.recipe) for one in part.heldout])
        asked = _asked(part, record, stated, 0, str(at.start))
        if left_over := waiting(asked, progress.message):
            with sampling(part.made, at.start, template, [request.prompt_ids for request in asked[0].requests]) as pool:
                _evaluate(left_over, closer(pool, part.recipe, template), Scorer(judge, stated), progress)


def _asked(part: Part, run: Run, template: Template, step: int, name: str = "", logprobs: bool = False) -> list[Asked]:
    """The evaluations of a stage after a step."""
    folder = run.folder / "evals"
    return evaluations(part.heldout, part.recipe, template, folder, checkpoint=name, step=step, prefix=f"step-{step}", logprobs=logprobs)


def _evaluate(
    asked: Sequence[Asked], pool: Pool, scorer: Scorer, progress: Progress, check: Callable[[pa.Table], None] | None = None
) -> None:
    """Make evaluations and say what each found."""
    progress.phase("evaluate")
    for one, scores in evaluate(asked, pool, scorer, check=check):
        for warning in warnings(scores):
            progress.message(f"warning: {one.label} after step {one.step}: {warning}")
        accuracy, tokens = scores.accuracy, scores.tokens
        progress.message(
            f"{one.label} after step {one.step}: accuracy {accuracy.mean:.1%} [{accuracy.low:.1%}, {accuracy.high:.1%}], "
            f"{tokens.mean:.1f} {scores.settings.unit}, {scores.truncated:.1%} cut ({scores.problems} problems x {scores.samples})"
        )


def _merge(stage: MergeStage, folder: Path, at: Standing) -> Path:
    """The checkpoint, with what the last rl stage changed taken over in part."""
    merged = folder / "checkpoint"
    if not checkpoint.whole(merged):
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed while it merged
        with Progress(stage.called, 1) as progress:
            counts = merge(at.began, at.start, merged, stage.keep, stage.scale, stage.scope)
            progress.message(told(counts, merged))
    return merged
