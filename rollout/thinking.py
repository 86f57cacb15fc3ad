"""Thinking that ends by a rule: which token of a response closes it because the engine put it there, after a budget or as its first.

Claim: what ends a budget is told by position, never by value. A budget of b leaves b free tokens behind the mark that opens thinking; the closing mark
follows at once. What stands there is the engine's, whatever the model would have said: an end of its own just there cannot be told apart
and counts as put there; one before is the model's own, and trains. Logprobs say nothing: raw ones look sampled, processed ones are 0.
Tokens that a prompt holds behind its opening mark count for engines and not for recipes, so an engine is asked for `allowance`.
What a rollout begins with by a rule of known probability (`joined`) is no budget's: it trains with that probability.
Simplification: a closing mark is one token. One of several may come in another split, which engines do not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rollout.types import FORCED, MODEL, RULE, Completion, Request


class BudgetIgnored(RuntimeError):
    """An engine let thinking go on beyond its budget."""


@dataclass(frozen=True)
class ThinkIds:
    """Token ids of the marks of a model's thinking."""

    open: tuple[int, ...]
    close: int


def spent(prompt_ids: Sequence[int], think: ThinkIds) -> int | None:
    """Tokens of a prompt behind the mark that opens its thinking; None if it leaves none open."""
    ids = np.asarray(prompt_ids)
    opened, closed = behind(ids, think.open), behind(ids, (think.close,))
    if not len(opened) or (len(closed) and closed[-1] > opened[-1]):
        return None
    return len(ids) - int(opened[-1])


def allowance(request: Request, think: ThinkIds | None) -> int | None:
    """The request's budget as engines count it, tokens: from the opening mark on. Raises ValueError if the engine knows no marks."""
    if request.thinking_tokens is None:
        return None
    if think is None:
        raise ValueError(f"request {request.id} limits thinking, and its engine was started without the marks of thinking")
    return request.thinking_tokens + (spent(request.prompt_ids, think) or 0)


def closes(request: Request, ids: Sequence[int], think: ThinkIds) -> bool:
    """Whether an engine that has sampled these tokens of a response must close its thinking next."""
    allowed = allowance(request, think)
    if allowed is None:
        return False
    open_now = spent([*request.prompt_ids, *ids], think)
    return open_now is not None and open_now >= allowed


def sources(request: Request, ids: np.ndarray, think: ThinkIds | None) -> np.ndarray | None:
    """Where each token of a response comes from, int8 [T] (rollout/types); None if the engine closed nothing.

    A mark that opens what is open already starts the count again in some of vLLM's runners and not in others: what closes at either place is
    forced. Where a response opens thinking behind a closing mark of its own, they lose count and close anywhere: from there on every closing
    mark is forced.

    Raises:
        BudgetIgnored: thinking goes on beyond its budget.
    """
    allowed = allowance(request, think)
    if allowed is None or think is None:
        return None
    first, tail = len(request.prompt_ids), spent(request.prompt_ids, think)
    begin = first + 1 if tail is None else first - tail
    whole = np.concatenate([np.asarray(request.prompt_ids), ids]).astype(np.int64)
    opened, closed = behind(whole, think.open), np.flatnonzero(whole == think.close)
    opened, closed = opened[opened >= begin], closed[closed >= first]
    end = min(closed, default=len(whole))
    starts, again = opened[opened <= end], opened[opened > end]
    source_T = np.full(len(ids), MODEL, np.int8)
    if len(starts):
        if end - starts[-1] > allowed:
            raise BudgetIgnored(
                f"request {request.id}: thinking goes on for {end - max(starts[-1], first)} tokens, its budget leaves {request.thinking_tokens}: "
                "the engine does not enforce it; look at engine.vllm (speculation, say) or take another budget.kind"
            )
        if end < len(whole) and (end - starts == allowed).any():
            source_T[end - first] = FORCED
    if len(again):
        source_T[closed[closed >= again[0]] - first] = FORCED
    return source_T if (source_T == FORCED).any() else None


def halves(request: Request, think: ThinkIds | None) -> list[Request]:
    """What an engine samples for a request: its group, or those rollouts of it that are free to think, and those that begin with the mark that closes it."""
    if not request.closed:
        return [request]
    if think is None:
        raise ValueError(f"request {request.id} closes thinking, and its engine was started without the marks of thinking")
    free = replace(request, group_size=request.group_size - request.closed, closed=0)
    shut = replace(request, id=f"{request.id} closed", group_size=request.closed, closed=0, seed=request.seed + 1)
    return [free, replace(shut, prompt_ids=(*request.prompt_ids, think.close), max_tokens=max(request.max_tokens - 1, 1))]


def joined(request: Request, parts: Sequence[Sequence[Completion]], think: ThinkIds | None) -> list[Completion]:
    """The rollouts of a request's `halves` as one group.

    Which half a rollout is of was decided with known probability, that of its first token from then on (AdaptThink, arXiv 2505.13417): the
    closing mark in one half, and whatever the model chose first in the other.
    """
    if not request.closed or think is None:
        return [completion for part in parts for completion in part]
    free, shut = parts
    share = request.closed / request.group_size
    begun = [
        replace(
            one,
            ids=np.append(np.int32(think.close), one.ids),
            logprobs=np.append(np.float32(0), one.logprobs),
            versions=np.append(one.versions[:1], one.versions),
            sources=np.append(np.int8(MODEL), one.source_T),
        )
        if len(one.ids)
        else one  # aborted before it sampled anything
        for one in shut
    ]
    return [_by_rule(one, np.log(1 - share)) for one in free] + [_by_rule(one, np.log(share)) for one in begun]


def _by_rule(completion: Completion, logprob: float) -> Completion:
    """A completion whose first token was drawn by the rule, with this logprob; one that the engine forced stays so."""
    source_T = completion.source_T
    first_T = (np.arange(len(source_T)) == 0) & (source_T == MODEL)
    return replace(
        completion,
        sources=np.where(first_T, RULE, source_T).astype(np.int8),
        logprobs=np.where(first_T, np.float32(logprob), completion.logprobs),
    )


def behind(ids: np.ndarray, mark: Sequence[int] | np.ndarray) -> np.ndarray:
    """Indices just behind each occurrence of a mark."""
    if len(ids) < len(mark):
        return np.zeros(0, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(ids, len(mark))
    return np.flatnonzero((windows == np.asarray(mark)).all(axis=1)) + len(mark)
