"""Reward terms: what one group's verdicts, lengths and texts are worth.

A rollout's reward is the sum of its terms. Verdict and truncation together are DLER's R' = R x 1[finished within the
limit] (core.md 1.2), the difficulty ladder is DA-DLER's (core.md 1.7), a function term is a TRL reward function.
Simplification: a term sees one group, never the batch; scaling over the batch is the advantage's business.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from recipes.schema import Budget, FormatTerm, FunctionTerm, RewardTerm, TruncateTerm, VerdictTerm
from rewards.extract import OPEN_TAG, well_formed

RewardFunction = Callable[..., Sequence[float | None]]


def group_limit(budget: Budget, tokens_G: np.ndarray, right_G: np.ndarray, finished_G: np.ndarray) -> int:
    """The length limit, in tokens, under which a group is rewarded (DA-DLER, arXiv 2510.15110 section 4; core.md 1.7).

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


def load_function(name: str) -> RewardFunction:
    """Import `module:function`. Raises ValueError if it is missing or does not take TRL's reward arguments."""
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(f"reward function {name}: no module {error.name}; is its folder on PYTHONPATH?") from error
    except ImportError as error:
        raise ValueError(f"reward function {name}: importing {module_name} failed: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"reward function {name}: {module_name} has no function {function_name}")
    if inspect.iscoroutinefunction(function):
        raise ValueError(f"reward function {name}: is asynchronous; only plain functions are called")
    try:
        inspect.signature(function).bind(prompts=[], completions=[], completion_ids=[], problem=[], answer=[])
    except TypeError as error:
        raise ValueError(f"reward function {name}: must take prompts, completions, completion_ids and **kwargs ({error})") from error
    return function


def _function_scores(
    name: str,
    prompt: str,
    completions: Sequence[str],
    completion_ids: Sequence[Sequence[int]],
    columns: Mapping[str, Any],
    ids: Sequence[str],
) -> np.ndarray:
    G = len(completions)
    repeated = {key: [value] * G for key, value in columns.items()}
    given = load_function(name)(prompts=[prompt] * G, completions=list(completions), completion_ids=list(completion_ids), **repeated)
    if len(given) != G:
        raise ValueError(f"reward function {name} returned {len(given)} rewards for {G} completions: return one each")
    for id_, score in zip(ids, given, strict=True):
        if score is None or not math.isfinite(score):
            raise ValueError(f"rollout {id_}: reward function {name} returned {score}: return a finite number for every completion")
    return np.array(given, dtype=float)


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
    columns: Mapping[str, Any],
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
        columns: the problem's fields (`problem`, `answer`, ...), repeated for each completion when handed to functions,
            as TRL's GRPOTrainer does. TRL's trainer_state, log_extra and log_metric are not handed over.

    Raises:
        ValueError: a function is missing, or returned a wrong number of rewards, None, NaN or infinity.
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
            value_G = term.weight * _function_scores(name, prompt, completions, completion_ids, columns, ids)
        if isinstance(term, FormatTerm | FunctionTerm) and term.gate == "right":
            value_G = np.where(right_G, value_G, 0.0)
        out[name] = out[name] + value_G if name in out else value_G
    return out
