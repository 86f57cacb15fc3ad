"""What a plan says of the data: local sets are read, hub sets only checked by name, so that it takes seconds and no network.

Golds are not judged here (that takes processes): only those that are absent by what they say are told.
Simplification: sets of more than 256 MiB of files are left to the run, which reads and checks the same before engines start.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from evaluation import benchmarks
from launch.memory import evaluates
from launch.plan_budget import budget_blockers, budget_warnings, local_tokenizer, prompt_blockers, shortest_answer, token_count
from recipes.columns import REFERENCE
from recipes.data import DataSet
from recipes.schema import Recipe
from recipes.stages import ReferenceStage, SftStage, Supervised, learns_from_reference
from recipes.steps import Step
from recipes.terms import FunctionTerm
from rewards.functions import columns, columns_needed, columns_seen, load_function
from rewards.rows import DataError, hub_parts, local_bytes
from rewards.thinking import split
from rollout.chats import Conversation, conversations
from rollout.sources import lacking, normalised, overlaps, share_columns, shares, usable
from rollout.tiny import task as tiny_task
from rollout.tiny.reference import with_reference
from rollout.types import Problem

_MOST_BYTES = 256 << 20
_PROMPT = ("instruction", "template")  # of data: what a prompt is made of beside the problem
_LONGEST = 1000
_LETTERS = 16  # more than most tokens have
_SHORTEST = 64
_OTHER_FORM = re.compile(r"Answer: ?\$?\\?\$?Answer|[\"'`]?Answer:[\"'`]|####|<answer>")


@dataclass
class DataPlan:
    """Lines on the data: what was recognised, what stands in the way, and what will hardly be meant.

    Attributes:
        columns: what a reward function is told of the first training problem; None where the rows are known to the run only.
    """

    said: list[str] = field(default_factory=list)
    blockers: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    columns: dict[str, Any] | None = None


def plan_data(step: Step) -> DataPlan:
    """Read what is local of a stage's data, and say what comes of it. Raises nothing."""
    found, recipe = DataPlan(), step.recipe
    training = [("data.train", one) for one in recipe.data.sets] if recipe.samples else []
    held_out = [("eval.data", one) for one in recipe.held_out_sets] if evaluates(recipe) else []
    if evaluates(recipe):
        _eval_blockers(recipe, found)
    tokenizer = local_tokenizer(recipe)
    read = {(key, index): _problems(key, one, step, tokenizer, found) for index, (key, one) in enumerate(training + held_out)}
    by_set = [(one.source, read["data.train", index]) for index, (_, one) in enumerate(training)]
    trained = [problem for _, problems in by_set for problem in problems]
    if recipe.trains:
        _beyond_reference(step, by_set, found)
        _budget(step, by_set, tokenizer, found)
        _functions(step, by_set, found)
    _examples(step, tokenizer, found)
    if isinstance(step.stage, ReferenceStage):
        _reference(step, by_set, tokenizer, found)
    if trained:
        share_columns(trained)
        first = trained[0]
        given = dict.fromkeys(step.given, 1.0)
        found.columns = columns(first.columns | given, problem=first.text, answer=first.answer, level=first.level)
    elif all(one.source == "tiny" for _, one in training):
        found.columns = dict.fromkeys((*REFERENCE, *step.given), 1.0)
    learned = trained
    if not training and step.index:  # an evaluation behind other stages
        learned = [problem for one in recipe.data.sets for problem in _problems("data.train", one, step, tokenizer, DataPlan())]
    asked_of = [(one.source, read["eval.data", index]) for index, (_, one) in enumerate(held_out, len(training))]
    for source, problems in asked_of + _benchmarks(recipe, found):
        if rows := overlaps(learned, problems):
            names = ", ".join(row for row, _ in rows[:3]) + ", ..." * (len(rows) > 3)
            found.warnings.append(
                f"data.train: {len(rows)} of {len(learned)} rows are also rows of {source} ({names}), so its score says less"
            )
        asked = {(problem.text, problem.system, problem.golds) for problem in problems}
        different = len({(normalised(text), *others) for text, *others in asked})
        if different < len(problems):
            found.said.append(
                f"{source}: {len(problems)} rows ask {different} different problems: each counts once, with the samples of all its rows"
            )
    for source, problems in by_set:
        if (different := len({normalised(text) for text in {problem.text for problem in problems}})) < len(problems):
            found.said.append(
                f"{source}: {len(problems)} rows ask {different} different problems: each is drawn as often as it stands there"
            )
    if len(training) > 1:
        parts = zip(shares([one.weight for _, one in training]), training, strict=True)
        found.said.append("data.train: " + ", ".join(f"{count / 10:.1f}% of the positions from {one.source}" for count, (_, one) in parts))
    return found


def read_of_reference(step: Step) -> list[str]:
    """Columns that the reward, the budget or the advantage of a stage read or are given, of those that the reference stage before it gives."""
    asked = [number.name for number in step.recipe.number_columns]
    for term in step.recipe.reward if step.given else ():
        try:
            asked += columns_seen(load_function(term.name), step.given) if isinstance(term, FunctionTerm) else []
        except ValueError:  # said by those who try it
            continue
    return [name for name in step.given if name in asked] if step.recipe.trains else []


def _beyond_reference(step: Step, training: Sequence[tuple[str, list[Problem]]], found: DataPlan) -> None:
    """A stage that draws more problems than the reference sampled, of which it reads something, trains on those that were."""
    looked, seen = step.reference, [source for source, problems in training if problems]
    if looked is None or not read_of_reference(step):
        return
    rows = sum(len(problems) for _, problems in training) if len(seen) == len(training) else None
    sampled = looked.problems(rows)
    if sampled < step.since and (rows is None or sampled < rows):
        unknown = rows is None and "tiny" not in [source for source, _ in training]
        before = f" behind {step.since - step.draws:,} of other stages" if step.draws < step.since else ""
        found.warnings.append(
            f"train.steps: {step.draws:,} prompts are drawn{before}, and {looked.where} samples {sampled:,} problems"
            f"{', or all if the data have fewer' if unknown else ''}: the stage trains on those alone; raise `problems` there, or draw less"
        )


def unread_references(steps: Sequence[Step]) -> Iterator[str]:
    """Reference stages of which nothing behind reads what they sample, though something trains there; rl that reads what other prompts were answered with."""
    for looked in steps:
        trained = [step for step in steps if step.index > looked.index and (step.recipe.trains or isinstance(step.stage, Supervised))]
        behind = [step for step in trained if step.reference and step.reference.index == looked.index]
        if not isinstance(looked.stage, ReferenceStage) or not trained:
            continue
        if not any(learns_from_reference(step.stage) or read_of_reference(step) for step in behind):
            next_one = next((step for step in steps if step.index > looked.index and isinstance(step.stage, ReferenceStage)), None)
            hidden = f", and behind {next_one.where} its answers are what is read" if next_one else ""
            yield (
                f"{looked.where}: nothing behind reads what it samples: no sft or dpo learns from it, and no reward, budget or advantage of an rl stage "
                f"reads its columns{hidden}; leave it out"
            )
        for step in behind:
            names = [name for name in _PROMPT if getattr(step.recipe.data, name) != getattr(looked.recipe.data, name)]
            if names and (read := read_of_reference(step)):
                differ = " and ".join(f"data.{name}" for name in names)
                yield f"{step.where}: its prompts differ from those of {looked.where} ({differ}), of whose answers it reads {', '.join(read)}; say it for both"


def reference_blockers(steps: Sequence[Step]) -> Iterator[str]:
    """Stages that read what a reference stage found of problems that are not theirs: of other training data, or drawn by another seed."""
    for step in steps:
        looked = step.reference
        if looked is None or not read_of_reference(step):
            continue
        here, there = step.recipe, looked.recipe
        drawn = any(one.source == "tiny" for one in here.data.sets)
        others = ["data.train"] * (here.data.sets != there.data.sets)
        others += ["tiny"] * (drawn and here.tiny != there.tiny) + ["seed"] * (here.seed != there.seed)
        if others:
            yield (
                f"{step.where} reads what {looked.where} found of each problem, and {', '.join(others)} differ between them: "
                "say it for the whole recipe instead of in one stage's changes"
            )


def _eval_blockers(recipe: Recipe, found: DataPlan) -> None:
    if not recipe.eval.data and not recipe.eval.benchmarks:
        found.blockers.append(
            "eval.data: empty, so the eval stage has nothing to do; name `tiny`, a file or hub:owner/name, or eval.benchmarks"
        )
    most = tiny_task.HELD_OUT_PER_FAMILY * len(recipe.tiny.families)
    if "tiny" in [one.source for one in recipe.held_out_sets] and recipe.eval.problems > most:
        found.blockers.append(
            f"eval.problems: {recipe.eval.problems} is more than the {most} held-out problems of {', '.join(recipe.tiny.families)}"
        )


def _budget(step: Step, training: Sequence[tuple[str, list[Problem]]], tokenizer: Any, found: DataPlan) -> None:
    """What is to be said of the budgets of training, against each of its sets."""
    recipe, read = step.recipe, step.recipe.budget.columns.values()
    given = any(column in step.given for column in read)
    shortest = [shortest_answer(recipe, tokenizer, problems) for _, problems in training]
    found.blockers += prompt_blockers(recipe)
    drawn = tiny_task.problems("train", recipe.tiny.families, recipe.seed, 0, _SHORTEST) if not set(read) <= set(step.given) else []
    for (source, problems), tokens in zip(training, shortest, strict=True):
        asked = [with_reference(problem, recipe.tiny) for problem in drawn] if source == "tiny" else problems
        found.blockers += budget_blockers(recipe, source, asked, tokens)
    seen = not given and all(source == "tiny" or problems for source, problems in training)
    found.warnings += budget_warnings(recipe, min(shortest), seen)


def _reference(step: Step, training: Sequence[tuple[str, list[Problem]]], tokenizer: Any, found: DataPlan) -> None:
    """A reference stage must know where to stop, and leave room for an answer."""
    for source, problems in training:
        least = shortest_answer(step.recipe, tokenizer, problems)
        if step.recipe.most_tokens < least:
            found.blockers.append(
                f"budget.limit: {step.recipe.most_tokens} tokens are less than the {least} tokens of the shortest possible answer to {source}; allow more"
            )
    if not step.problems(None if "tiny" in [source for source, _ in training] else 1):
        found.blockers.append(
            f"stages[{step.index}].problems: data.train never ends, and no rl stage comes behind that would say how many; name a number"
        )


def _functions(step: Step, training: Sequence[tuple[str, list[Problem]]], found: DataPlan) -> None:
    """Columns that reward functions ask for by name, and sets, or some of their rows, do not have. Of one set alone, trying the function says the first."""
    for term in [term for term in step.recipe.reward if isinstance(term, FunctionTerm)]:
        try:
            needed = [name for name in columns_needed(load_function(term.name)) if name not in step.given]
        except ValueError:  # said by those who try it
            continue
        for (source, problems), name in product(training, needed):
            there = [problem.columns.get(name) is not None for problem in problems] or [name in REFERENCE] * (source == "tiny")
            words = f"{name}, which the reward function {term.name} asks for"
            if there and not any(there) and len(training) > 1:
                found.blockers.append(f"data.train: {source}: has no column {words}; add it, or give the function a default")
            elif any(there) and not all(there):
                first = problems[there.index(False)].id
                found.warnings.append(
                    f"data.train: {source}: {there.count(False)} of {len(there)} rows have no {words} (first: {first}): it gets None"
                )


def _examples(step: Step, tokenizer: Any, found: DataPlan) -> None:
    """What an sft or dpo stage is to learn from, against the longest that it takes."""
    stage, sampler = step.stage, step.reference
    if isinstance(stage, Supervised) and stage.max_tokens and sampler and learns_from_reference(stage):
        read = [_problems("data.train", one, sampler, tokenizer, DataPlan()) for one in sampler.recipe.data.sets]
        least = min(max(1, _shortest(tokenizer, problems)) + shortest_answer(sampler.recipe, tokenizer, problems) for problems in read)
        _allows(step, sampler.stage.called, least, found)
    for one in stage.sets if isinstance(stage, SftStage) else ():
        where = f"stages[{step.index}].data"
        if step.recipe.model.path == "tiny" and one.source != "tiny":
            found.blockers.append(f"{where}: {_foreign(one.source)}; set model.path, or learn from `reference`")
        try:
            if one.source == "tiny":
                found.blockers.append(f"{where}: tiny has problems and no completions; the cold start is what learns from its traces")
            elif _is_read_here(one, found):
                kept, left_out, said = conversations(one)
                found.said.append(said)
                _allows(step, one.source, _shortest_example(tokenizer, kept), found)
                if left_out:
                    first = f"first: {left_out[0][0]}: {left_out[0][1]}"
                    found.warnings.append(f"{where}: {len(left_out)} rows of {one.source} are left out ({first}); {len(kept)} are examples")
        except DataError as error:
            found.blockers.append(f"{where}: {error}")


def _allows(step: Step, source: str, least: int, found: DataPlan) -> None:
    """A stage that learns takes the shortest example of a set at least, which has so many tokens before its template."""
    if step.longest < least:
        found.blockers.append(
            f"stages[{step.index}].max_tokens: {step.longest} tokens are less than the {least} of the shortest example of {source}, prompt and answer, before its template; allow more"
        )


def _shortest_example(tokenizer: Any, kept: Sequence[Conversation]) -> int:
    """Tokens of the shortest prompt with its answer, thinking left out, and the end of the turn, where there is a tokenizer; else one of each."""
    said = sorted(((one.turns[-1]["content"], split(one.answer)[1] or "") for one in kept), key=lambda texts: len("".join(texts)))
    if tokenizer is None:
        return 3
    return 1 + min(sum(token_count(tokenizer, text) for text in texts) for texts in said[:_SHORTEST])


def _foreign(source: str) -> str:
    return f"{source} is not for the tiny reasoner, which knows only the words of its own problems"


def _benchmarks(recipe: Recipe, found: DataPlan) -> list[tuple[str, list[Problem]]]:
    """(name, problems) of the benchmarks; of those on the hub, no problems. What they come to is said."""
    parts: list[tuple[str, list[Problem]]] = []
    for word in recipe.eval.benchmarks if evaluates(recipe) else ():
        if recipe.model.path == "tiny":
            found.blockers.append(f"eval.benchmarks: {_foreign(word)}; set model.path")
            continue
        try:
            one, place = benchmarks.find(word)
            if benchmarks.fetched(word):
                said = f"{one.name}: {one.rows:,} rows of {place or one.copies[0].place}, read and checked by the run"
                parts.append((one.name, []))
            else:
                kept, left_out, said, _ = benchmarks.load(word, lambda golds: [None] * len(golds))
                said += f"; {len(left_out)} left out (first: {left_out[0][1]})" if left_out else ""
                parts.append((one.name, kept))
        except DataError as error:
            found.blockers.append(f"eval.benchmarks: {error}")
            continue
        rows = len(parts[-1][1]) or one.rows
        asked = min(recipe.eval.problems or rows, rows)
        samples = recipe.eval.samples
        found.said.append(f"{said}: {asked:,} problems x {samples} samples = {asked * samples:,} rollouts an evaluation")
    return parts


def _problems(key: str, one: DataSet, step: Step, tokenizer: Any, found: DataPlan) -> list[Problem]:
    """The problems of a local set that have a gold; what stands in the way goes to `found`."""
    recipe, trains = step.recipe, key == "data.train"
    if one.source == "tiny":
        found.blockers += [f"{key}: {line}" for line in lacking("tiny", [], step.numbers if trains else ())]
        return []
    if recipe.model.path == "tiny":
        found.blockers.append(f"{key}: {_foreign(one.source)}; set {key} or model.path")
        return []
    try:
        if not _is_read_here(one, found):
            return []
        columns = trains and recipe.trains and recipe.reads_columns
        kept, left_out, said, _ = usable(one, lambda golds: [None] * len(golds), columns, None if trains else recipe.data)
    except DataError as error:
        found.blockers.append(f"{key}: {error}")
        return []
    found.said.append(said)
    found.blockers += [f"{key}: {line}" for line in lacking(one.source, kept, step.numbers if trains else ())]
    texts = Counter(problem.text for problem in kept)
    asking = sum(rows for text, rows in texts.items() if _OTHER_FORM.search(text) and "boxed" not in text)
    if 2 * asking > len(kept):
        found.warnings.append(
            f"{key}: the problems of {one.source} ask for another form of answer (`Answer:`, `####` or a tag), but what counts is the last \\boxed{{}}; say so in data.instruction"
        )
    if left_out:
        found.warnings.append(
            f"{key}: {len(left_out)} of {len(kept) + len(left_out)} rows of {one.source} are left out (first: {left_out[0][0]}: {left_out[0][1]})"
        )
    if (shortest := _shortest(tokenizer, kept)) > recipe.data.max_prompt_tokens:
        found.blockers.append(
            f"{key}: no problem of {one.source} fits data.max_prompt_tokens {recipe.data.max_prompt_tokens}: the shortest has {shortest} tokens before its template; raise it"
        )
    elif long := _longer(tokenizer, kept, recipe.data.max_prompt_tokens):
        found.warnings.append(
            f"{key}: {'at least ' * (long == _LONGEST)}{long} of {len(kept)} rows of {one.source} are longer than data.max_prompt_tokens {recipe.data.max_prompt_tokens} before their template, and left out"
        )
    return kept


def _is_read_here(one: DataSet, found: DataPlan) -> bool:
    """Whether plan reads a set, as it is local and not too large. Raises DataError: it is none."""
    if one.source.startswith("hub:"):
        hub_parts(one.source)
        return False
    if local_bytes(one.source, one.split or "train") > _MOST_BYTES:
        found.said.append(f"{one.source}: more than {_MOST_BYTES >> 20} MiB, so it is read and checked by the run")
        return False
    return True


def _longer(tokenizer: Any, problems: Sequence[Problem], most: int) -> int:
    """How many problems have more tokens than that, without template; of those of most characters, so many that it is no wait. No token is less than a byte."""
    if tokenizer is None:
        return 0
    candidates = sorted((problem.text for problem in problems if len(problem.text.encode()) > most), key=len)[-_LONGEST:]
    begun = _LETTERS * most  # which mostly is enough to tell
    return sum(any(token_count(tokenizer, part) > most for part in dict.fromkeys((text[:begun], text))) for text in candidates)


def _shortest(tokenizer: Any, problems: Sequence[Problem]) -> int:
    """Tokens of the shortest problem, without template, where there is a tokenizer; else 0. Of many, those of fewest characters are counted."""
    if tokenizer is None or not problems:
        return 0
    candidates = sorted((problem.text for problem in problems), key=len)[:_SHORTEST]
    return min(token_count(tokenizer, text) for text in candidates)
