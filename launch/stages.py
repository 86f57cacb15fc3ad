"""The stages of a recipe, in order: cold start, reinforcement learning, evaluation before and after.

This module puts the pieces together and owns nothing else: it starts Ray, engines and learner, hands them to the loop,
and closes everything again however the run ends.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import ray

from evaluation.evaluate import evaluate, write_scores
from evaluation.words import warnings
from launch.memory import context, evaluates, push_bytes
from launch.plan import Plan, PlanError, check_runnable, gpus_needed, plan
from launch.ray_start import start_ray, stop_ray
from recipes.schema import Recipe
from rewards.verifier.judge import Judge
from rl import checkpoint, loop
from rl.algorithm import rows_of
from rl.cold_start import cold_start, cold_started
from rl.gate import MOMENTS, check_gaps, drawn
from rl.learner import Learner
from rl.progress import Progress
from rl.publisher import Publisher
from rl.run import Run, prompt_date, refuse_unusable
from rl.state import put_back
from rl.wires import CollapseWires
from rollout.budget import stated_limit
from rollout.collector import Collector, PromptStream, seed_of
from rollout.engine import EnginePool
from rollout.honesty import TOLERANCE, rehearsal
from rollout.reference_engine import ReferenceEngine
from rollout.scorer import Scorer
from rollout.sources import DataError, Source, heldout_problems, overlaps, training_source
from rollout.template import Template, load_template
from rollout.thinking import ThinkIds
from rollout.types import Problem
from rollout.vllm_engine import VllmEngine, engine_environment

_LONGEST_NAME = 60  # characters of any alphabet, of at most 4 bytes; file systems take 255 bytes, and a name gets prefix, number and suffix


@dataclass(frozen=True)
class HeldOut:
    """Problems of one evaluation source, the rows that cannot be used, and what there is to say of it."""

    name: str
    problems: list[Problem]
    left_out: list[tuple[str, str]]
    said: list[str] = field(default_factory=list)


def cache_folder() -> Path:
    """Where cold-started reasoners are kept: $LACONIC_CACHE, else ~/.cache/laconic."""
    return Path(os.environ.get("LACONIC_CACHE", "~/.cache/laconic")).expanduser()


def run_recipe(made: Plan, runs_dir: Path, resume: bool = False, overwrite: bool = False) -> Path:
    """Run all stages of a recipe that was planned and found runnable (`check_runnable`); returns the run folder.

    Raises:
        PlanError, DataError, TemplateError, RunError: before anything expensive starts.
        EngineError, LearnerError, PublishError, CheckpointError, NotJudged: while it runs; the run folder says so too.
    """
    recipe = made.recipe
    trains = "rl" in recipe.stages
    refuse_unusable(recipe, runs_dir, resume, overwrite)  # before the minutes of a cold start; Run.create asks for those who came meanwhile
    settle_device(made)
    with Judge(recipe.judge.workers, recipe.judge.wall_s, recipe.judge.memory_mb) as judge:
        heldout = held_out(recipe, judge)
        source = training_source(
            recipe.data, recipe.tiny, recipe.seed, judge.check_golds, recipe.reads_columns, recipe.number_columns if trains else ()
        )
        start = starting_checkpoint(recipe)
        made = planned_with(start, made)
        date = prompt_date(runs_dir / recipe.name) if resume else None
        template = load_template(start, recipe.data, date, budget=recipe.at(recipe.train.steps).budget.limit)
        closing(recipe, template)  # refused before anything starts
        heldout = [fitting(part, template, recipe.data.max_prompt_tokens) for part in heldout]
        some_fit(source, template, recipe.data.max_prompt_tokens)
        with (
            Run.create(recipe, runs_dir, resume, overwrite, template.digest, template.date) as run,
            Progress(recipe.name, recipe.train.steps, checkpoint.metadata(run.checkpoint)["step"] if run.checkpoint else 0) as progress,
        ):
            for words in [*source.said, *(words for part in heldout for words in part.said)]:
                progress.message(words)
            for words in template.remarks:
                progress.message(words)
            list_left_out(progress, run.folder / "left_out" / "train.jsonl", source.name, source.left_out)
            list_overlap(progress, run.folder / "overlap.jsonl", source, heldout)
            for part, name in zip(heldout, file_names([part.name for part in heldout]), strict=True):
                list_left_out(progress, run.folder / "left_out" / f"eval-{name}.jsonl", part.name, part.left_out)
            if trains:
                _reinforce(run, made, start, template, PromptStream(source, template, recipe), heldout, judge, progress)
            elif heldout:
                with engines(made, start, template) as pool:
                    pool.wait_ready()
                    rehearsed(made, pool, template, [template.prompt_ids(problem) for problem in heldout[0].problems[:16]])
                    _evaluate(run, pool, Scorer(judge, stating(template, recipe, left(start))), heldout, 0, str(start), progress)
    return run.folder


def settle_device(made: Plan) -> None:
    """Hold torch and DeepSpeed to the plan's device, before minutes go into a cold start or a download.

    Raises:
        PlanError: the plan is for GPUs that torch cannot use.
    """
    if made.device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed looks for a GPU and says that it found none
    else:
        import torch

        if not torch.cuda.is_available():
            raise PlanError("device: there is a GPU that torch cannot use; `laconic doctor` looks for the reason")


def planned_with(start: Path, made: Plan) -> Plan:
    """The plan once the model is there: what a download brought is checked, and known to whoever asks for sizes.

    Raises:
        PlanError: it cannot run here after all.
    """
    if made.shape is not None:
        return made
    again = plan(made.recipe.model_copy(update={"model": made.recipe.model.model_copy(update={"path": str(start)})}), made.machine)
    check_runnable(again)
    return replace(again, recipe=made.recipe)


def starting_checkpoint(recipe: Recipe) -> Path:
    """The folder the rl stage starts from: the cold-started reasoner, a local folder, or a hub snapshot."""
    if recipe.model.path == "tiny":
        if (kept := cold_started(recipe, cache_folder())).is_dir():
            Progress("cold start", recipe.sft.steps).message(f"done before, taken from {kept}")
            return kept
        with Progress("cold start", recipe.sft.steps) as progress:
            return cold_start(recipe, cache_folder(), lambda step, steps, loss: progress.step({"step": step - 1, "loss": loss}))
    path = Path(recipe.model.path).expanduser()
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
    try:
        return Path(snapshot_download(recipe.model.path, revision=recipe.model.revision, allow_patterns=patterns))
    except OSError as error:  # all the hub's own errors are
        why = str(error).splitlines()[0]
        raise FileNotFoundError(
            f"model.path: {recipe.model.path} could not be had from the Hugging Face hub: {why} Name a checkpoint folder, or check name, network and HF_TOKEN"
        ) from error


def held_out(recipe: Recipe, judge: Judge) -> list[HeldOut]:
    """The evaluation problems of a recipe; empty if it evaluates nothing."""
    if not evaluates(recipe):
        return []
    return [
        HeldOut(name, *heldout_problems(one, recipe.tiny, recipe.eval.problems, recipe.seed, judge.check_golds, recipe.data))
        for name, one in zip(recipe.held_out_names, recipe.held_out_sets, strict=True)
    ]


def fitting(part: HeldOut, template: Template, most: int) -> HeldOut:
    """The part without problems whose prompts exceed `most` tokens, which engines keep no room for."""
    tokens = [len(template.prompt_ids(problem)) for problem in part.problems]
    long = [
        (problem.id, f"prompt of {count} tokens, data.max_prompt_tokens is {most}")
        for problem, count in zip(part.problems, tokens, strict=True)
        if count > most
    ]
    if len(long) == len(part.problems):
        raise DataError(f"{part.name}: all {len(long)} prompts exceed data.max_prompt_tokens {most}; raise it")
    kept = [problem for problem, count in zip(part.problems, tokens, strict=True) if count <= most]
    return replace(part, problems=kept, left_out=part.left_out + long)


def some_fit(source: Source, template: Template, most: int) -> None:
    """Refuse training data of which nothing that is drawn first fits, before engines start. Raises DataError."""
    drawn = [source.at(position) for position in range(min(256, source.rows or 16))]
    shortest = min(len(template.prompt_ids(problem)) for problem in drawn)
    if shortest > most:
        raise DataError(
            f"{source.name}: the first {len(drawn)} prompts drawn all exceed data.max_prompt_tokens {most}, the shortest by {shortest - most}; raise it"
        )


def file_names(sources: Sequence[str]) -> list[str]:
    """Names for the files of evaluation sources: the last part of each, or all of it where several end alike, or a number."""
    short = [_file_name(Path(source).name) for source in sources]
    names = [name if short.count(name) == 1 else _file_name(source) for name, source in zip(short, sources, strict=True)]
    taken, again = set(names), {name for name in names if names.count(name) > 1}
    for index, name in enumerate(names):
        if name in again:
            names[index] = next(free for number in count(1) if (free := f"{name}-{number}") not in taken)
            taken.add(names[index])
    return names


def _file_name(source: str) -> str:
    return re.sub(r"[^\w.-]+", "-", source.removeprefix("hub:").removesuffix(".jsonl"))[-_LONGEST_NAME:].strip("-.") or "data"


def list_left_out(progress: Progress, path: Path, source: str, left_out: list[tuple[str, str]]) -> None:
    """Say which rows cannot be used: five of them and their number here, all of them in the JSON-lines file `path`."""
    if not left_out:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"row": where, "reason": reason}) + "\n" for where, reason in left_out), encoding="utf-8")
    for where, reason in left_out[:5]:
        progress.message(f"left out {where}: {reason}")
    progress.message(f"{source}: {len(left_out)} rows left out, listed in {path}")


def list_overlap(progress: Progress, path: Path, source: Source, heldout: Sequence[HeldOut]) -> None:
    """Say which training rows ask what an evaluation asks, and list all of them in the JSON-lines file `path`. Nothing is left out for it."""
    found = [(part.name, *pair) for part in heldout for pair in overlaps(source.problems, part.problems)]
    if not found:
        return
    path.write_text("".join(json.dumps({"eval": name, "train_row": row, "eval_row": other}) + "\n" for name, row, other in found))
    for name in dict.fromkeys(name for name, _, _ in found):
        rows = [row for part, row, _ in found if part == name]
        progress.message(
            f"{len(rows)} training rows are also rows of {name} ({', '.join(rows[:3])}{', ...' * (len(rows) > 3)}), listed in {path}"
        )


@contextmanager
def engines(made: Plan, start: Path, template: Template, first_step: int = 0) -> Iterator[EnginePool]:
    """Ray and the engine actors of a plan, up for as long as the context lasts."""
    recipe, device = made.recipe, made.device
    gpus = {actor.name: actor.gpus for actor in made.actors}
    start_ray(num_cpus=os.cpu_count() or 1, num_gpus=gpus_needed(made), push=push_bytes(recipe, made.shape))

    think = closing(recipe, template)
    starts = Counter[int]()  # an engine that is started again must not repeat its first noise

    def start_engine(index: int) -> Any:
        actor: Any
        arguments: tuple[Any, ...]
        if recipe.engine.kind == "reference":
            actor, arguments = ray.remote(ReferenceEngine), (start, recipe.model.dtype, device, template.stop_ids, think)
        else:
            seed = seed_of(recipe.seed, "engine", index, first_step, starts[index]) % 2**31
            starts[index] += 1
            actor = ray.remote(VllmEngine)
            arguments = (start, recipe.model.dtype, device, context(recipe), template.stop_ids, seed, made.engine, think)
        environment = {"env_vars": engine_environment(recipe.engine.threads, device)}
        return actor.options(num_cpus=0, num_gpus=gpus["engine"], runtime_env=environment).remote(*arguments)

    try:
        yield EnginePool(start_engine, recipe.engine.count)
    finally:
        stop_ray()


def rehearsed(made: Plan, pool: EnginePool, template: Template, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Refuse engines that do not sample from the probabilities that they report; sampled sequences, prompts' ends and responses.

    Raises:
        EngineError: one does not, or does not close thinking where the recipe limits it.
    """
    recipe = made.recipe
    temperature = recipe.sampler.temperature if "rl" in recipe.stages else recipe.eval.temperature or 1.0
    seed = seed_of(recipe.seed, "rehearsal") % 2**31
    requests = rehearsal(prompts, len(template.tokenizer), temperature, seed, closing(recipe, template))
    return pool.rehearse(requests, max(TOLERANCE[recipe.model.dtype], recipe.publish.tolerance))[:16]


def stating(template: Template, recipe: Recipe, share: float) -> Template:
    """The template for evaluations: prompts state the budget of the last step, of which a controller leaves this share."""
    return replace(template, budget=stated_limit(recipe.at(recipe.train.steps).budget, share))


def left(folder: Path) -> float:
    """The share of the limit that the controller of a checkpoint's run left; 1 for a checkpoint that does not say."""
    state = checkpoint.metadata(folder).get("state") if (folder / checkpoint.MANIFEST).is_file() else None
    return ((state or {}).get("budget") or {}).get("floor", {}).get("share", 1.0)


def closing(recipe: Recipe, template: Template) -> ThinkIds | None:
    """The marks of thinking if training asks engines to close it. Raises TemplateError: they cannot."""
    return template.think_ids(at_once=recipe.sampler.no_thinking > 0) if recipe.closes_thinking else None


def _reinforce(
    run: Run, made: Plan, start: Path, template: Template, stream: PromptStream, heldout: list[HeldOut], judge: Judge, progress: Progress
) -> None:
    recipe = run.recipe
    saved = run.checkpoint
    done = 0
    if saved is not None:
        meta = checkpoint.metadata(saved)
        done = meta["step"]
    run.truncate_to(done)
    wires = CollapseWires(recipe.wires, template.marks)
    progress.phase("start engines and learner")
    with engines(made, start, template, done) as pool:
        learner = Learner(recipe, start, made.device, gpus=next(actor.gpus for actor in made.actors if actor.name == "learner"))
        learner.wait_ready()
        pool.wait_ready()
        if saved is not None:
            learner.restore(saved)
            put_back(loop.stateful(stream, learner, wires), meta.get("state"))
            progress.message(f"resumed {saved}: policy, optimiser, data position {stream.position}, step {done}" + _not_restored(recipe))
        prompts = [template.prompt_ids(stream.source.at(position)) for position in range(16)]
        publisher = Publisher(pool, recipe.publish, rehearsed(made, pool, template, prompts))

        def evaluate_now(step: int) -> None:
            name = str(start) if step == 0 else f"checkpoints/step-{step}"
            scorer = Scorer(judge, stating(template, recipe, stream.control.floor.share))
            _evaluate(run, pool, scorer, heldout, step, name, progress, learner)

        if saved is None and "eval" in recipe.stages:
            evaluate_now(0)
        collector = Collector(pool, Scorer(judge, template, recipe.reward, recipe.budget), stream, recipe)
        save = partial(loop.save_checkpoint, run, learner, stream, wires, start)
        loop.train(run, recipe, collector, learner, publisher, save, evaluate_now, progress, wires)
        if "eval" in recipe.stages:
            evaluate_now(recipe.train.steps)


def _not_restored(recipe: Recipe) -> str:
    return (
        "" if recipe.engine.kind == "reference" else "; not vLLM's random state, so the rollouts to come differ from an uninterrupted run's"
    )


def _evaluate(
    run: Run,
    pool: EnginePool,
    scorer: Scorer,
    heldout: list[HeldOut],
    step: int,
    name: str,
    progress: Progress,
    learner: Learner | None = None,
) -> None:
    settings, recipe = run.recipe.eval, run.recipe
    names = file_names([part.name for part in heldout])
    for index, part in enumerate(heldout):
        progress.phase(f"evaluate {part.name}")
        groups = evaluate(pool, scorer, part.problems, settings, recipe.seed)
        if learner is not None and settings.temperature > 0 and settings.top_p == 1:  # truncated sampling draws from another distribution
            rows = drawn(rows_of(groups))
            check_gaps(rows, learner.measure([rows], MOMENTS, settings.temperature), recipe.publish.tolerance)
        file = f"step-{step}" if index == 0 else f"step-{step}-{names[index]}"
        scores = write_scores(
            run.folder / "evals",
            file,
            groups,
            checkpoint=name,
            step=step,
            source=part.name,
            settings=settings,
            seed=recipe.seed,
            engine=recipe.engine.kind,
            template=scorer.template,
        )
        for warning in warnings(scores):
            progress.message(f"warning: {part.name} after step {step}: {warning}")
        accuracy, tokens = scores["accuracy"], scores["tokens"]
        progress.message(
            f"{part.name} after step {step}: accuracy {accuracy['mean']:.1%} [{accuracy['low']:.1%}, {accuracy['high']:.1%}], "
            f"{tokens['mean']:.1f} tokens, {scores['truncated']:.1%} cut ({len(groups)} problems x {settings.samples})"
        )
