"""Functions of the user's own as rewards: found by name, tried before a run, called as TRL's GRPOTrainer calls them.

Claim: what serves TRL's trainer serves here. A function gets, by name, what it asks for of `prompts`, `completions`, `completion_ids`,
`trainer_state`, `log_extra`, `log_metric` and the problem's columns. Completions are texts, or, for a function that says or shows that it reads messages, lists of one
message ({"role": "assistant", "content": text}), as TRL hands them over for chat models.
Simplification: of TRL's arguments `environments` is not handed over, and no function is asynchronous.
"""

from __future__ import annotations

import importlib
import inspect
import math
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recipes.terms import FunctionTerm
from rewards.thinking import THINK, Marks

RewardFunction = Callable[..., Sequence[float | None]]
Message = dict[str, str]


@dataclass(frozen=True)
class TrainerState:
    """What of TRL's `trainer_state` exists here: steps finished, and steps of the whole run."""

    global_step: int = 0
    max_steps: int = 0


@dataclass(frozen=True)
class Logged:
    """What functions log of a group: a text for each rollout by column, and numbers by name."""

    extra: dict[str, list[str]] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        """Keep one value for each completion beside it in the samples, as text. A column logged again is replaced."""
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise TypeError(f"log_extra({column!r}, ...) takes a list with one value for each completion, not {values!r:.60}")
        self.extra[str(column)] = ["" if value is None else str(value) for value in values]

    def log_metric(self, name: str, value: float | None) -> None:
        """Keep a number; metrics.jsonl has its mean over the step as `function/NAME`, null if it was None each time.

        NaN and infinity are refused by `scores`.
        """
        if not isinstance(name, str) or not name.strip() or len(name.splitlines()) > 1:
            raise ValueError(f"log_metric({name!r}, ...): a metric needs a name of one line")
        try:
            number = None if value is None else float(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"log_metric({name!r}, ...) takes one number, not {value!r:.60}") from error
        self.metrics.setdefault(name, []).extend([] if number is None else [number])


@dataclass(frozen=True)
class Asked:
    """One group, as functions are asked about it.

    Attributes:
        prompt: as text, template included.
        messages: the prompt as chat messages.
        completions: decoded responses.
        completion_ids: their token ids.
        columns: the problem's columns, one value each, which is repeated for every completion.
        ids: rollout ids, for error messages.
        marks: of the model's thinking.
        logged: what the functions log.
    """

    prompt: str
    messages: Sequence[Message]
    completions: Sequence[str]
    completion_ids: Sequence[Sequence[int]]
    columns: Mapping[str, Any]
    state: TrainerState
    ids: Sequence[str]
    marks: Marks = THINK
    logged: Logged = field(default_factory=Logged)

    def alone(self, index: int) -> Asked:
        """The group with one of its completions only."""
        one = slice(index, index + 1)
        return Asked(self.prompt, self.messages, self.completions[one], self.completion_ids[one], self.columns, self.state, self.ids[one])


_SAMPLE = {  # response: its number of tokens; right, wrong, cut off, and ended at once
    "<think>\nOne and one is two.\n</think>\n\nThe answer is \\boxed{2}.": 18,
    "<think>\nIt may be three.\n</think>\n\n\\boxed{3}": 14,
    "<think>\nOne and": 4,
    "": 1,
}
_OWN = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
_QUESTION = "What is 1 + 1?"
_READS_MESSAGES: dict[int, tuple[RewardFunction, bool]] = {}  # by id of the function, which is kept, so that no other gets its id


def sample(columns: Mapping[str, Any] | None = None, limit: int = 100, steps: int = 1) -> Asked:
    """A group like those of a run, for trying functions on.

    Args:
        columns: those of a problem of the data, if they are known.
        limit: most tokens of a completion.
        steps: of the run.
    """
    known = {"problem": _QUESTION, "answer": "2", "level": 1} | dict(columns or {})
    ids = [[7] * min(tokens, limit) for tokens in _SAMPLE.values()]
    state, names = TrainerState(0, steps), [f"{number + 1} of a trial" for number in range(len(ids))]
    return Asked(f"{_QUESTION}\n", [{"role": "user", "content": _QUESTION}], list(_SAMPLE), ids, known, state, names)


def columns(data: Mapping[str, Any], *, problem: str, answer: str, level: int) -> dict[str, Any]:
    """What a reward function is told about the problem: its text, first gold and level, and the data's own columns by their names.

    A column of the data that is called like one of these, or like TRL's arguments, arrives as `data_NAME`.
    """
    taken = {*_OWN, "problem", "answer", "level"}
    own = {f"data_{name}" if name in taken else name: value for name, value in data.items()}
    return own | {"problem": problem, "answer": answer, "level": level}


def load_function(name: str) -> RewardFunction:
    """Import `module:function`. Raises ValueError, in one sentence, if there is none that could be called."""
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name, None)
    except ModuleNotFoundError as error:
        raise ValueError(f"reward function {name}: no module {error.name}; is its folder on PYTHONPATH?") from error
    except (Exception, SystemExit) as error:  # another's module may raise anything
        raise ValueError(
            f"reward function {name}: importing {module_name} failed ({_said(error)}); correct the module or the name"
        ) from error
    if not callable(function):
        raise ValueError(f"reward function {name}: {module_name} has no function {function_name}; correct the name")
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        raise ValueError(f"reward function {name}: is asynchronous; make it a plain function")
    try:
        inspect.signature(function)
    except (TypeError, ValueError) as error:  # a builtin without a signature
        raise ValueError(f"reward function {name}: {error}; write a function that takes completions and **columns") from error
    return function


def columns_needed(function: RewardFunction) -> list[str]:
    """The data's columns that a function cannot be called without: its parameters but ours and those with a default."""
    parameters = inspect.signature(function).parameters.values()
    named = [one.name for one in parameters if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    return [name for name in named if name not in (*_OWN, "problem", "answer", "level", "solution") and not name.startswith("data_")]


def columns_seen(function: RewardFunction, names: Sequence[str]) -> list[str]:
    """Those of these columns that a function is given: all if it takes **columns, else those that it names, with a default or without."""
    parameters = inspect.signature(function).parameters
    return [*names] if any(one.kind is one.VAR_KEYWORD for one in parameters.values()) else [name for name in names if name in parameters]


def scores(term: FunctionTerm, asked: Asked) -> np.ndarray:
    """The function's rewards of a group, float64 [G], before weight and gate. None, for TRL "no say", counts 0.

    Raises:
        ValueError: the function cannot be loaded, asks for what there is not, raises, or returns anything but one number between its
            bounds for each completion, or logs a metric that is no finite number; named with function, rollout and remedy. Rewards of NaN
            and infinity are learner.nonfinite's.
    """
    function = load_function(term.name)
    given = _called(term.name, function, asked)
    remedy = "return a list with one number for each completion"
    try:
        returned = list(given)
    except TypeError:
        returned = None
    if returned is None or isinstance(given, Mapping | set | frozenset):  # whose order says nothing of completions
        raise ValueError(f"reward function {term.name}: returned {given!r:.80}; {remedy}")
    for column, values in asked.logged.extra.items():
        if len(values) != len(asked.ids):
            raise ValueError(
                f"reward function {term.name}: log_extra of {column} has {len(values)} values for {len(asked.ids)} completions"
            )
    for metric, logged in asked.logged.metrics.items():
        if odd := [value for value in logged if not math.isfinite(value)]:
            raise ValueError(
                f"reward function {term.name}: log_metric of {metric} was given {odd[0]}, no finite number, for rollouts {asked.ids[0]} to "
                f"{asked.ids[-1]}; log None where there is none"
            )
    if len(returned) != len(asked.ids):
        raise ValueError(f"reward function {term.name}: returned {len(returned)} rewards for {len(asked.ids)} completions; {remedy}")
    numbers = [0.0 if score is None else score for score in returned]
    for id_, score in zip(asked.ids, numbers, strict=True):
        if not _number(score):
            raise ValueError(f"reward function {term.name}: returned {score!r:.80} for rollout {id_}; {remedy}")
        if math.isfinite(score) and not term.low <= score <= term.high:  # it could put a wrong answer before a right one
            raise ValueError(
                f"reward function {term.name}: returned {score:g} for rollout {id_}, outside of {term.low:g} to {term.high:g}; "
                "correct the function, or the term's low and high"
            )
    return np.array([float(score) for score in numbers])


def trial(term: FunctionTerm, asked: Asked, nonfinite: str) -> None:
    """Try a function before a run, under the recipe's learner.nonfinite. Raises ValueError: see `scores`; a reward is NaN or infinite and that stops runs."""
    for id_, score in zip(asked.ids, scores(term, asked), strict=True):
        if nonfinite == "stop" and not math.isfinite(score):
            raise ValueError(
                f"reward function {term.name}: returned {score} for rollout {id_}, which ends a run; correct it, or say learner.nonfinite=skip"
            )


def _called(name: str, function: RewardFunction, asked: Asked) -> Any:
    """What the function returns. Raises ValueError that names the rollout whose completion it raises at."""
    as_messages = reads_messages(function)
    arguments = _arguments(name, function, asked, as_messages)
    try:
        return function(**arguments)
    except (Exception, SystemExit) as error:  # another's function may raise anything
        whose = f"rollouts {asked.ids[0]} to {asked.ids[-1]}" if len(asked.ids) > 1 else f"rollout {asked.ids[0]}"
        for index in range(len(asked.ids) if len(asked.ids) > 1 else 0):
            try:
                function(**_arguments(name, function, asked.alone(index), as_messages))
            except (Exception, SystemExit):
                whose = f"rollout {asked.ids[index]}"
                break
        form = 'lists of one message ({"role": "assistant", "content": text})' if as_messages else "texts"
        raise ValueError(
            f"reward function {name}: raised {_said(error)} {_where(error)} for {whose}; correct it (its completions are {form})"
        ) from error


def _arguments(name: str, function: RewardFunction, asked: Asked, as_messages: bool) -> dict[str, Any]:
    """What the function takes of what there is. Raises ValueError if it needs more."""
    G = len(asked.completions)
    columns = {"solution": asked.columns.get("answer")} | dict(asked.columns)  # a gold's name in TRL's own functions
    there: dict[str, Any] = {key: [value] * G for key, value in columns.items()} | {
        "prompts": [list(asked.messages) if as_messages else asked.prompt] * G,
        "completions": [[{"role": "assistant", "content": text}] if as_messages else text for text in asked.completions],
        "completion_ids": [list(ids) for ids in asked.completion_ids],
        "trainer_state": asked.state,
        "log_extra": asked.logged.log_extra,
        "log_metric": asked.logged.log_metric,
    }
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        taken = there
    else:
        taken = {parameter.name: there[parameter.name] for parameter in parameters if parameter.name in there}
    try:
        inspect.signature(function).bind(**taken)
    except TypeError as error:
        raise ValueError(f"reward function {name}: {error}; there is {', '.join(sorted(there))}, by name or as **columns") from error
    return taken


def reads_messages(function: RewardFunction) -> bool:
    """Whether completions are messages to the function: as annotated, else if a group like a run's only works as messages."""
    if id(function) in _READS_MESSAGES:
        return _READS_MESSAGES[id(function)][1]
    completions = inspect.signature(function).parameters.get("completions")
    words = "" if completions is None or completions.annotation is completions.empty else str(completions.annotation).lower()
    if "dict" in words or "message" in words:
        found = True
    elif "str" in words:
        found = False
    else:
        found = not _works(function, as_messages=False) and _works(function, as_messages=True)
    _READS_MESSAGES[id(function)] = (function, found)
    return found


def _works(function: RewardFunction, as_messages: bool) -> bool:
    try:
        function(**_arguments("", function, sample(), as_messages))
    except (Exception, SystemExit):
        return False
    return True


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _where(error: BaseException) -> str:
    """File and line where it was raised; of what we do for a function (log_extra, log_metric), where that was called."""
    frames = traceback.extract_tb(error.__traceback__)
    last = next((frame for frame in reversed(frames) if frame.filename != __file__), frames[-1])
    return f"({last.filename.rpartition('/')[2]}, line {last.lineno})"


def _number(score: Any) -> bool:
    """Whether it is a number, NaN and infinity included, which learner.nonfinite decides on; a function may have returned anything."""
    try:
        return math.isfinite(score) or True
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of several numbers
        return False
