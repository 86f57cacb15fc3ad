"""Reward terms: what one group's verdicts, lengths and texts are worth.

A rollout's reward is the sum of its terms. Verdict and truncation together are DLER's R' = R x 1[finished within the
limit], the difficulty ladder is DA-DLER's, a function term is a TRL reward function.
Simplification: a term sees one group, never the batch; scaling over the batch is the advantage's business.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np

from recipes.schema import ROUNDING, Budget, FormatTerm, FunctionTerm, RewardTerm, TruncateTerm, VerdictTerm
from rewards.extract import OPEN_TAG, well_formed

RewardFunction = Callable[..., Sequence[float | None]]


class Columns(TypedDict):
    """What a reward function is told about the problem: one value each, repeated for every completion."""

    problem: str
    answer: str
    level: int


def group_limit(budget: Budget, tokens_G: np.ndarray, right_G: np.ndarray, finished_G: np.ndarray) -> int:
    """The length limit, in tokens, under which a group is rewarded (DA-DLER, arXiv 2510.15110 section 4).

    The share of rollouts that are right, finished and within budget.limit picks the first rung it reaches.

    Args:
        tokens_G: sampled tokens of each rollout.
        right_G: judged right.
        finished_G: ended by itself ("stop").
    """
    if budget.kind == "constant":
        return budget.limit
    share = float(np.mean(right_G & finished_G & (tokens_G <= budget.limit)))
    rung = next(rung for rung in budget.ladder if share >= rung.at_least)
    return int(round(rung.share * budget.limit, 6))  # 0.29 x 100 is 28.999999999999996


def levelled(reward_PG: np.ndarray | Sequence[float]) -> np.ndarray:
    """Rewards, float64 [..., rollouts], in which those of a group that only rounding tells apart are equal, to the least of them.

    A user's function may add in float32, where 0.1 + 0.2 is not 0.3; what is left over must not be divided by itself. Whoever asks
    whether rewards differ (filter, selection, advantages) asks of these. Finite values only.
    """
    reward_PG = np.asarray(reward_PG, dtype=np.float64)
    order_PG = np.argsort(reward_PG, axis=-1, kind="stable")
    sorted_PG = np.take_along_axis(reward_PG, order_PG, axis=-1)
    size_PG = np.maximum(1.0, np.abs(sorted_PG))
    rises_PG = np.diff(sorted_PG, axis=-1) > ROUNDING * np.maximum(size_PG[..., 1:], size_PG[..., :-1])
    first_PG = np.zeros(reward_PG.shape, dtype=np.int64)
    first_PG[..., 1:] = np.maximum.accumulate(np.where(rises_PG, np.arange(1, reward_PG.shape[-1]), 0), axis=-1)
    out_PG = np.empty_like(reward_PG)
    np.put_along_axis(out_PG, order_PG, np.take_along_axis(sorted_PG, first_PG, axis=-1), axis=-1)
    return out_PG


def load_function(name: str) -> RewardFunction:
    """Import `module:function`. Raises ValueError if that fails or the function does not take TRL's reward arguments and `Columns`."""
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name, None)
    except ModuleNotFoundError as error:
        raise ValueError(f"reward function {name}: no module {error.name}; is its folder on PYTHONPATH?") from error
    except (Exception, SystemExit) as error:  # another's module may raise anything
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"reward function {name}: importing {module_name} failed ({said}); correct the module or the name") from error
    if not callable(function):
        raise ValueError(f"reward function {name}: {module_name} has no function {function_name}; correct the name")
    if inspect.iscoroutinefunction(function):
        raise ValueError(f"reward function {name}: is asynchronous; make it a plain function")
    arguments = ["prompts", "completions", "completion_ids", *Columns.__annotations__]
    try:
        inspect.signature(function).bind(**dict.fromkeys(arguments))
    except (TypeError, ValueError) as error:  # ValueError: a builtin without a signature
        raise ValueError(f"reward function {name}: {error}; it must take {', '.join(arguments)}, by name or as **columns") from error
    return function


def _function_scores(
    name: str,
    prompt: str,
    completions: Sequence[str],
    completion_ids: Sequence[Sequence[int]],
    columns: Columns,
    ids: Sequence[str],
) -> np.ndarray:
    G = len(completions)
    repeated = {key: [value] * G for key, value in columns.items()}
    given: Any = load_function(name)(prompts=[prompt] * G, completions=list(completions), completion_ids=list(completion_ids), **repeated)
    remedy = "return a list with one number for each completion"
    try:
        scores = list(given)
    except TypeError as error:
        raise ValueError(f"reward function {name}: returned {given!r:.80}; {remedy}") from error
    if len(scores) != G:
        raise ValueError(f"reward function {name}: returned {len(scores)} rewards for {G} completions; {remedy}")
    for id_, score in zip(ids, scores, strict=True):
        if not _number(score):
            raise ValueError(f"reward function {name}: returned {score!r:.80} for rollout {id_}; {remedy}")
    return np.array([float(score) for score in scores])


def _check_range(term: FunctionTerm, scores_G: np.ndarray, ids: Sequence[str]) -> None:
    """A score outside of what the recipe says could put a wrong answer before a right one. NaN and infinity are learner.nonfinite's."""
    for id_, score in zip(ids, scores_G, strict=True):
        if math.isfinite(score) and not term.low <= score <= term.high:
            raise ValueError(
                f"reward function {term.name}: returned {score:g} for rollout {id_}, outside of {term.low:g} to {term.high:g}; "
                "correct the function, or the term's low and high"
            )


def _number(score: Any) -> bool:
    """Whether it is a number, NaN and infinity included, which learner.nonfinite decides on; a function may have returned anything."""
    try:
        return math.isfinite(score) or True
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of several numbers
        return False


def rewards(
    terms: Sequence[RewardTerm],
    *,
    right_G: np.ndarray,
    finished_G: np.ndarray,
    tokens_G: np.ndarray,
    limit: int,
    prompt: str,
    completions: Sequence[str],
    completion_ids: Sequence[Sequence[int]],
    ids: Sequence[str],
    columns: Columns,
) -> dict[str, np.ndarray]:
    """The reward of each rollout of one group, by term, after weight and gate. The terms add up to the reward.

    Args:
        terms: the recipe's terms. Terms of one name share an entry; a function's name is `module:function`.
        right_G: judged right (bool). Rollouts that could not be judged must have been left out.
        finished_G: ended by themselves (bool).
        tokens_G: sampled tokens.
        limit: the group's length limit, tokens (`group_limit`).
        prompt: the prompt as text, template included; tells whether it opened the thinking block.
        completions: decoded responses. Functions get them as strings, also for chat models.
        completion_ids: their token ids, for functions.
        ids: rollout ids, for error messages.
        columns: the problem's fields, repeated for each completion when handed to functions, as TRL's GRPOTrainer does.
            TRL's trainer_state, log_extra and log_metric are not handed over.

    Raises:
        ValueError: a function cannot be loaded, or returned anything but one number between its bounds for each completion.
    """
    verdict_G = sum(term.weight for term in terms if isinstance(term, VerdictTerm)) * right_G.astype(float)
    out: dict[str, np.ndarray] = {}
    for term in terms:
        name: str = term.kind
        if isinstance(term, VerdictTerm):
            value_G = term.weight * right_G.astype(float)
        elif isinstance(term, TruncateTerm):
            value_G = np.where(~finished_G | (tokens_G > limit), -(1 - term.keep) * verdict_G, 0.0)
        elif isinstance(term, FormatTerm):
            opened = prompt.rstrip().endswith(OPEN_TAG)
            value_G = term.weight * np.array([well_formed(text, opened=opened) for text in completions], dtype=float)
        else:
            name = term.name
            scores_G = _function_scores(name, prompt, completions, completion_ids, columns, ids)
            _check_range(term, scores_G, ids)
            value_G = term.weight * scores_G
        if isinstance(term, FormatTerm | FunctionTerm) and term.gate == "right":
            value_G = np.where(right_G, value_G, 0.0)
        out[name] = out[name] + value_G if name in out else value_G
    return out
