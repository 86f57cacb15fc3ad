"""The logprob gate: what the engines say they sampled with is what the learner would have sampled with, or the run stops.

Tokens that engines have just sampled are scored by the learner under the same weights and temperature. A gap means that
one of them uses another temperature, another alignment, another precision, a truncated distribution or stale weights;
training on would be off-policy without anyone knowing. Where it grows with position, positions are counted differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rl.policy import Row

_STARTS = (0, 64, 256, 1024, 4096)  # of position buckets, tokens into the response
_FEWEST = 16  # tokens in a bucket that is worth a mean


class GateError(RuntimeError):
    """Engines and learner disagree about the probabilities of sampled tokens."""


def check_gaps(rows: Sequence[Row], learner_logp: Mapping[str, np.ndarray], tolerance: float) -> dict[str, float | None]:
    """Gaps |learner - engine|, nats, by metric name: mean and p99 over tokens, and the mean from each position on to the next.

    Args:
        rows: what was sampled, with the engines' logprobs.
        learner_logp: the learner's logprobs of the same tokens, by row id.
        tolerance: largest mean allowed, over all tokens and in every position bucket.

    Raises:
        GateError: a mean is larger, or no number.
    """
    if not rows:
        return {}
    for row in rows:
        bad_T = np.flatnonzero(~np.isfinite(learner_logp[row.id]))
        if len(bad_T):
            raise GateError(
                f"rollout {row.id}: the learner's logprob of token {bad_T[0]} is {learner_logp[row.id][bad_T[0]]}: its weights are broken"
            )
    gap_N = np.concatenate([np.abs(learner_logp[row.id] - row.engine_logp) for row in rows])
    place_N = np.concatenate([np.arange(len(row.ids)) for row in rows])
    bucket_N = np.searchsorted(_STARTS, place_N, side="right") - 1
    sizes = np.bincount(bucket_N, minlength=len(_STARTS))
    counted = [index for index, size in enumerate(sizes) if size >= _FEWEST]
    means = {f"gate/from_{_STARTS[index]}": float(gap_N[bucket_N == index].mean()) for index in counted}
    metrics: dict[str, float | None] = {"gate/mean": float(gap_N.mean()), "gate/p99": float(np.quantile(gap_N, 0.99)), **means}
    for name in ("gate/mean", *means):
        if not (metrics[name] or 0.0) <= tolerance:  # NaN fails too
            raise GateError(
                f"engines and learner give sampled tokens other logprobs: {name} {metrics[name]:.2g} nats, publish.tolerance {tolerance:g}. "
                "They differ in weights, temperature or precision; bf16 needs a tolerance of about 0.05"
            )
    return metrics
