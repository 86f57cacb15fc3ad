"""The loop: sample and judge, prepare, update, publish, record. One loop, whatever the method."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from recipes.budgets import Budget
from recipes.loader import recipe_hash
from recipes.schema import Recipe
from recipes.steps import evaluated_after
from recipes.terms import FunctionTerm
from rl import algorithm, checkpoint
from rl.gate import MOMENTS, check_gaps, drawn
from rl.learner import Learner
from rl.progress import Progress
from rl.publisher import Publisher
from rl.run import Run
from rl.start import fingerprint
from rl.state import Stateful, gathered
from rl.stop import Stop
from rl.turns import Turns
from rl.wires import CollapseWires
from rollout.collector import Collected, Collector, PromptStream
from rollout.tokenizer import copy_companions


def train(
    run: Run,
    recipe: Recipe,
    collector: Collector,
    learner: Learner,
    publisher: Publisher,
    turns: Turns,
    saver: Saver,
    evaluate: Callable[[int], None],
    progress: Progress,
    wires: CollapseWires,
) -> None:
    """Train until the recipe's last step, whose checkpoint stands when this returns; or a polite stop, which leaves one of the last finished step.

    Args:
        evaluate: evaluates the published policy after this many finished steps.
    """
    first = run.step
    publisher.begin(learner, version=first)
    if first in evaluated_after(recipe):
        evaluate(first)  # what a run was stopped in, whose checkpoint stands; if it is made, that is all
    began = time.monotonic() - (run.metrics()[first - 1].get("time", 0.0) if first else 0.0)
    with saver.stopping(first) as stop:
        for step in run.remaining_steps():
            saver.writer.check()
            start = time.monotonic()
            now = recipe.at(step)
            measure = partial(learner.measure, temperature=now.sampler.temperature)
            progress.phase("sample")
            collected = collector.next(step)
            try:
                if warning := refuse_unjudged(collected, recipe):
                    progress.message(f"step {step}: {warning}")
                if step == 0:
                    refuse_cut(collected.metrics["truncated"] or 0.0, now)
                    for words in idle_terms([rollout.terms for group in collected.sampled for rollout in group.rollouts], recipe):
                        progress.message(words)
                progress.phase("update")
                turns.learn()
                gaps: dict[str, float | None] = {}
                sound, _ = algorithm.finite(
                    collected.sampled, recipe.learner.nonfinite
                )  # what does not train, too: it is named, and the gate averages it
                if step == first or step % recipe.publish.check_every == 0:
                    rows = drawn(algorithm.rows_of(sound))  # also a step that trains nothing is checked
                    gaps = check_gaps(rows, measure([rows], MOMENTS), recipe.publish.tolerance)
                gated = time.monotonic()
                batch = algorithm.prepare(collected.groups, now, measure)
                stop.hold()
                stats = learner.update(batch.updates, step)
                updated = time.monotonic()
                signs, said = wires.look(collected.sampled, stats["entropy"])
                for words in said:
                    progress.message(f"step {step}: {words}")
            except RuntimeError as error:
                run.keep_samples(step, collected.sampled, str(error))  # what stopped the run is in them
                error.args = (f"step {step}: {error}",)
                raise
            progress.phase("publish")
            pushed = publisher.push(learner, version=step + 1)
            seconds = time.monotonic() - start
            metrics = collected.metrics | gaps | batch.metrics | stats | signs | pushed | turns.spent() | {"learner/restarts": run.returns}
            metrics |= {"seconds/update": updated - gated, "seconds/step": seconds, "time": time.monotonic() - began}
            metrics["tokens_per_s"] = (metrics["tokens/sampled"] or 0) / (seconds - (metrics.get("seconds/watch") or 0.0))
            run.record(step, metrics, collected.sampled, " ".join(said))
            saver.note(step + 1)
            stop.release()
            progress.step(metrics)
            if said and wires.stops:
                saver.keep(stop)
                wires.refuse(said, step)
            if step + 1 in evaluated_after(recipe):
                progress.phase("evaluate")
                evaluate(step + 1)
            if due(step + 1, recipe.train.checkpoint_every, recipe.train.steps):  # last: what a kill interrupts is done again on resume
                progress.phase("checkpoint")
                saver.keep(stop)
    saver.writer.wait()


class NotJudged(RuntimeError):
    """Too many answers of a step could not be judged."""


def refuse_unjudged(collected: Collected, recipe: Recipe) -> str:
    """Stop a run, or give the words of a warning, if more of a step's answers than judge.not_judged_limit have no verdict; else "".

    Raises:
        NotJudged: they are more, and judge.over_limit says stop.
    """
    share, limit = collected.metrics["not_judged"] or 0.0, recipe.judge.not_judged_limit
    if share <= limit:
        return ""
    verdicts = [rollout.verdict for group in collected.sampled for rollout in group.rollouts if rollout.verdict]
    [(reason, _)] = Counter(verdict.reason for verdict in verdicts if verdict.status == "not_judged").most_common(1)
    remedy = "look at the engines' memory and engine.vllm" if reason == "aborted" else "raise judge.wall_s or judge.memory_mb"
    words = f"{share:.1%} of the answers could not be judged ({reason}), more than judge.not_judged_limit {limit:.1%}: {remedy}, or raise the limit"
    if recipe.judge.over_limit == "stop":
        raise NotJudged(words)
    return words


class TooManyCut(RuntimeError):
    """The first step's rollouts do not end: the limit does not fit the model."""


def refuse_cut(share: float, recipe: Recipe) -> None:
    """Stop a run whose limit cuts off nearly everything, before it trains on that.

    Raises:
        TooManyCut: the share is larger than budget.cut_stop.
    """
    if share > recipe.budget.cut_stop:
        raise TooManyCut(
            f"{share:.1%} of the first step's rollouts were cut off at {_stops(recipe.budget)}, more than budget.cut_stop "
            f"{recipe.budget.cut_stop:.1%}: raise it, or look at the samples whether the model ends its answers at all"
        )


def _stops(budget: Budget) -> str:
    """Where engines stop, in words."""
    room = f" x budget.room {budget.room:g} = {budget.most_tokens:,} tokens" if budget.room > 1 else ""
    return f"budget.limit {budget.limit:,}{room}"


def idle_terms(terms: Sequence[Mapping[str, float]], recipe: Recipe) -> list[str]:
    """One warning for each reward function whose value is the same for all rollouts of a step, while something else differs.

    Args:
        terms: of each rollout, by name; without any where it was not judged.
    """
    given: dict[str, set[float]] = {}
    for one in terms:
        for name, value in one.items():
            given.setdefault(name, set()).add(value)
    if all(len(values) == 1 for values in given.values()):
        return []  # nothing differs: the rollouts are alike
    functions = dict.fromkeys(term.name for term in recipe.reward if isinstance(term, FunctionTerm) and term.weight)
    return [
        f"reward/{name} was {next(iter(given[name])):g} for every rollout of the first step: does the function look for what this model writes? "
        "Look at the samples"
        for name in functions
        if len(given.get(name, ())) == 1
    ]


def due(done: int, every: int, total: int) -> bool:
    """Whether a checkpoint is due after `done` of `total` steps."""
    return done == total or (every > 0 and done % every == 0)


def stateful(stream: PromptStream, learner: Learner, wires: CollapseWires) -> dict[str, Stateful]:
    """All that moves over training beside the weights, by name."""
    kappa = {"kappa": stream.kappa} if stream.kappa.most else {}
    return {"stream": stream, "budget": stream.control, "entropy": learner.entropy, "wires": wires, **kappa}


@dataclass
class Saver:
    """Saves a run's checkpoints: the step waits until the ranks have written their state, the rest is done beside the next one (checkpoint.Background).

    Attributes:
        start: the checkpoint that the stage began with, whose tokenizer all others get.
    """

    writer: checkpoint.Background
    run: Run
    learner: Learner
    stream: PromptStream
    wires: CollapseWires
    start: Path
    _meta: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def stopping(self, done: int) -> Iterator[Stop]:
        """Training after `done` steps. A polite stop leaves the checkpoint of the last step that was noted, if there is none yet; one that did not wait, none."""
        self.note(done)
        with Stop() as stop:
            try:
                yield stop
            except KeyboardInterrupt as stopped:
                if stop.holds:
                    raise
                stop.hold()
                for what, do in (
                    ("The checkpoint before could not be written", self.writer.wait),
                    ("The last step could not be saved", self._save_noted),
                ):
                    try:
                        do()
                    except (RuntimeError, OSError) as failed:
                        stopped.add_note(f"{what}: {failed}")
                raise

    def note(self, done: int) -> None:
        """Remember the loop's state as it stands after `done` steps: a stop in the midst of the next one goes back to it."""
        recipe = self.run.holds
        self._meta = {
            "step": done,
            "version": done,
            "limit": self.stream.stated,
            "state": deepcopy(gathered(stateful(self.stream, self.learner, self.wires))),
            "ranks": recipe.learner.ranks,
            "zero_stage": recipe.learner.zero_stage,
            "recipe": recipe_hash(self.run.recipe),
            "template": self.stream.template.digest,
            "start": self._fingerprint,
        }

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.start)

    @property
    def _folder(self) -> Path:
        return self.run.folder / "checkpoints" / f"step-{self._meta['step']}"

    def save(self) -> None:
        """Write policy, tokenizer, optimiser state and the state that was noted as a checkpoint, then let old ones go.

        Raises:
            CheckpointError: this one could not be filled, or the one before not be finished.
        """
        self.writer.write(self._folder, self._fill, self._meta, partial(self._after, self._folder))

    def _save_noted(self) -> None:
        if self._meta["step"] and not self._folder.exists():
            self.save()

    def keep(self, stop: Stop) -> None:
        """`save`, for which a polite stop waits."""
        stop.hold()
        self.save()
        stop.release()

    def _after(self, folder: Path) -> None:
        checkpoint.prune(folder, self.run.holds.train.keep_checkpoints, self.run.best())
        self.run.mirror()
        self.run.stands(folder)  # behind the mirror, which sends the record first: it never tells of one that is not there

    def _fill(self, folder: Path) -> None:
        self.learner.save(folder)
        copy_companions(self.start, folder)
