"""Whether tokens were drawn from the probabilities that are said of them.

Claim: for an honest sampler the surprise of a token, -logp, has the entropy of its distribution as its mean, whatever came before. So the
sum of surprise minus entropy over all tokens is a martingale of mean 0 whose variance is the sum of the variances of logp, and their ratio
is a standard score. Engines whose logprobs are right and whose choices are not (a broken speculation, say) fail by hundreds of them.
The variance is the distribution's own, not the sample's: where a model is nearly sure, the rare token that makes the variance seldom comes.
When it does come, few such tokens are no normal distribution; so what is judged is Freedman's bound (Ann. Probab. 3, 1975, in Bennett's
form), which holds for any number of tokens and any distribution once each token's excess is cut at c nats:
P(S >= s) <= exp(-V / c^2 h(c s / V)) with h(u) = (1 + u) log(1 + u) - u. A low cut sees many tokens that are a little off, a high one the few
that should never have come; the one that finds most counts.
An engine is asked at its start to sample a small batch and to score it itself (`rehearse`, `check_rehearsal`): an evaluation, where no learner
stands beside it, is protected as well. Where a recipe limits thinking, it is asked to close some, too.
Simplification: the full distribution at one temperature. Truncated sampling (top_p, top_k) draws from another one and is not asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rollout.thinking import BudgetIgnored, ThinkIds, spent
from rollout.types import Completion, Problem, Request

TOLERANCE = {"fp32": 1e-3, "bf16": 0.05}  # mean gap, nats, between two ways of computing a logprob in that precision
LARGEST_Z = 6.0  # an honest sampler exceeds it once in 10^7 looks
_CUTS = np.array([5.0, 10.0, 20.0, 40.0])  # nats that one token may add to the sum that is judged
_CONTEXT, _REPEATS, _SAMPLED = 8, 2, 48  # of a rehearsal's sequence: tokens of a prompt's end, how often it says them, tokens behind it
_ENTRIES = 25_000_000  # logprobs of a rehearsal in all: vLLM hands out 3 million a second
_BUDGETS, _ROOM = (0, 3), 8  # of a rehearsal's thinking, and tokens in all
_FLOOR = 0.1  # of the tolerance on logprobs: a mean so small is their noise, however many tokens show it


def surprise(logp_N: np.ndarray, entropy_N: np.ndarray, variance_N: np.ndarray) -> tuple[float, float]:
    """Mean of -logp - entropy, nats, and its standard score; 0 where every distribution is certain.

    Args:
        logp_N, entropy_N, variance_N: of each sampled token: its logprob, and entropy and variance of the logprob of the distribution that
            it is said to be drawn from, nats.
    """
    excess_N = -logp_N.astype(np.float64) - entropy_N
    spread = float(np.sqrt(np.maximum(variance_N.astype(np.float64), 0.0).sum()))
    mean = float(excess_N.mean())
    if spread == 0:
        return mean, 0.0 if abs(mean) < 1e-6 else float("inf") * np.sign(mean)
    return mean, float(excess_N.sum() / spread)


def dishonest(logp_N: np.ndarray, entropy_N: np.ndarray, variance_N: np.ndarray, tolerance: float) -> str:
    """What is wrong with a sampler of these tokens (see `surprise`), as a sentence; "" if nothing is.

    Args:
        tolerance: of logprobs, nats.
    """
    mean, z = surprise(logp_N, entropy_N, variance_N)
    excess_N = np.sign(mean) * (-logp_N.astype(np.float64) - entropy_N)
    sum_C = np.maximum(np.minimum(excess_N, _CUTS[:, None]).sum(axis=1), 0.0)
    variance = max(float(np.maximum(variance_N, 0.0).sum(dtype=np.float64)), 1e-12)  # a certain sampler's is 0
    u_C = _CUTS * sum_C / variance
    unlikely = (variance / _CUTS**2 * ((1 + u_C) * np.log1p(u_C) - u_C)).max()  # -log of the bound
    if np.isfinite(mean) and (unlikely <= LARGEST_Z**2 / 2 or abs(mean) <= _FLOOR * tolerance):
        return ""
    return (
        f"the tokens were not drawn from the probabilities that belong to them: their surprise is {abs(mean):.2g} nats a token "
        f"{'above' if mean > 0 else 'below'} the entropy (z {z:.0f}, {len(logp_N)} tokens). The engine samples from another distribution "
        "(speculation, another temperature, a truncation): look at engine.vllm"
    )


def moments(logp_NV: np.ndarray, ids_N: np.ndarray) -> np.ndarray:
    """Logprob of each token, and entropy and variance of its distribution, float64 [3, N], from all logprobs [N, V]; nats."""
    p_NV = np.exp(logp_NV)
    finite_NV = np.where(p_NV > 0, logp_NV, 0.0)
    entropy_N = -(p_NV * finite_NV).sum(axis=1)
    variance_N = (p_NV * (finite_NV + entropy_N[:, None]) ** 2).sum(axis=1)
    return np.stack([logp_NV[np.arange(len(ids_N)), ids_N], entropy_N, variance_N])


def rehearsal(
    prompts: Sequence[Sequence[int]], vocabulary: int, temperature: float, seed: int, think: ThinkIds | None = None
) -> list[Request]:
    """Requests of the small batch that an engine samples at its start, from the ends of these prompts; fewer, the larger the vocabulary.

    Each says its end twice: a speculation that drafts what came before drafts at once.

    Args:
        think: marks of thinking where the engine must close it; then some requests leave hardly any.
    """
    ends = list(dict.fromkeys(tuple(ids[-_CONTEXT:]) for ids in prompts if len(ids)))
    wanted = max(1, min(64, _ENTRIES // (vocabulary * (_REPEATS * _CONTEXT + _SAMPLED))))
    chosen = ends[:wanted]
    each = max(1, wanted // len(chosen))
    requests = [
        Request(f"rehearsal-{index}", Problem(f"rehearsal-{index}", "", ""), end * _REPEATS, each, _SAMPLED, temperature, 1.0, seed + index)
        for index, end in enumerate(chosen)
    ]
    if think is not None:
        opened = ends[0] if spent(ends[0], think) is not None else ends[0] + think.open
        requests += [
            Request(f"thinking-{budget}", requests[0].problem, opened, 2, _ROOM, temperature, 1.0, seed, thinking_tokens=budget)
            for budget in _BUDGETS
        ]
    return requests


def rehearse(engine: Any, requests: Sequence[Request]) -> list[tuple[list[int], np.ndarray, np.ndarray]]:
    """Let an engine sample the requests and score what it sampled.

    Returns:
        For each sample: the sequence (prompt and response), and of the tokens that the engine sampled the logprobs reported meanwhile [T]
        and `Engine.moments` [3, T].

    Raises:
        BudgetIgnored: it was to close thinking, and did not.
    """
    groups = dict(engine.advance(requests, 1.0))
    while len(groups) < len(requests):
        groups |= engine.advance([], 1.0)
    samples = [(request, completion) for request in requests for completion in groups[request.id]]
    for request, completion in samples:
        _refuse_ignored(request, completion)
    sequences = [[*request.prompt_ids, *completion.ids.tolist()] for request, completion in samples]
    scored = engine.moments(sequences, requests[0].temperature)
    return [
        (ids, completion.logprobs[completion.sampled], moments_3T[:, len(request.prompt_ids) - 1 :][:, completion.sampled])
        for ids, (request, completion), moments_3T in zip(sequences, samples, scored, strict=True)
    ]


def _refuse_ignored(request: Request, completion: Completion) -> None:
    """Hold a response to its budget of thinking where that leaves no choice, and to go on behind it."""
    if request.thinking_tokens == 0 and not completion.budget_hit:
        raise BudgetIgnored(f"request {request.id}: its thinking was to be closed at once, and was not; look at engine.vllm")
    if request.thinking_tokens is not None and completion.budget_hit and not completion.sampled[-1]:
        raise BudgetIgnored(f"request {request.id}: nothing came behind the mark that closed its thinking; look at engine.vllm")


def check_rehearsal(samples: Sequence[tuple[list[int], np.ndarray, np.ndarray]], tolerance: float) -> str:
    """What is wrong with an engine that sampled and scored so (`rehearse`), as a sentence; "" if nothing is."""
    reported_N = np.concatenate([logp for _, logp, _ in samples])
    logp_N, entropy_N, variance_N = np.concatenate([moments_3T for *_, moments_3T in samples], axis=1)
    if not (np.isfinite(reported_N).all() and np.isfinite(logp_N).all()):
        bad = int((~np.isfinite(reported_N)).sum())
        return f"{bad or int((~np.isfinite(logp_N)).sum())} of {len(logp_N)} sampled tokens have a logprob that is no number"
    gap = float(np.abs(reported_N - logp_N).mean())
    if not gap <= tolerance:
        return (
            f"the logprobs it reports while sampling are not those it gives the same tokens afterwards: mean gap {gap:.2g} nats, "
            f"{tolerance:g} are allowed"
        )
    return dishonest(logp_N, entropy_N, variance_N, tolerance)
