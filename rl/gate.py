"""The gate: what the engines sampled is what the learner would have sampled, or the run stops.

Tokens that engines have just sampled are scored by the learner under the same weights and temperature. Two questions are asked.
Do both give them the same logprobs? A gap means another temperature, another alignment, another precision, a truncated distribution
or stale weights. And were they drawn from those probabilities at all (rollout/honesty)? Logprobs that agree do not say so: a broken
speculation reports honest numbers of tokens that it chose otherwise. Training on would be off-policy without anyone knowing.
Where a gap grows with position, positions are counted differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from rl.policy import Row
from rollout.honesty import dishonest, surprise
from rollout.types import MODEL

MOMENTS = ("logp", "entropy", "variance")  # that the learner measures for it
ROWS = 64  # that the learner scores: some thousand tokens, whose means are known well enough
_STARTS = (0, 64, 256, 1024, 4096)  # of position buckets, tokens into the response
_FEWEST = 16  # tokens in a bucket that is worth a mean


class GateError(RuntimeError):
    """Engines and learner disagree about sampled tokens."""


def drawn(rows: Sequence[Row]) -> list[Row]:
    """At most ROWS of the rows, by their ids, which are hashes: the same ones whoever finished first."""
    return sorted(rows, key=lambda row: row.id)[:ROWS]


def drawn_samples(table: pa.Table) -> list[Row]:
    """`drawn` of samples as they are kept: columns of rollout.records and `prompt_ids`."""
    ids = table["rollout"].to_pylist()
    places = sorted(range(len(ids)), key=ids.__getitem__)[:ROWS]
    return [
        Row(
            id=kept["rollout"],
            prompt_ids=np.asarray(kept["prompt_ids"], np.int32),
            ids=np.asarray(kept["ids"], np.int32),
            engine_logp=np.asarray(kept["logprobs"], np.float32),
            own_T=np.array(kept["sources"] or [MODEL] * len(kept["ids"])) == MODEL,
        )
        for kept in table.select(["rollout", "prompt_ids", "ids", "logprobs", "sources"]).take(places).to_pylist()
    ]


def check_gaps(rows: Sequence[Row], moments: Mapping[str, np.ndarray], tolerance: float) -> dict[str, float | None]:
    """Numbers of the gate by metric name, nats: gaps |learner - engine|, mean, p99 and the mean from each position on to the next;
    `gate/surprise`, the mean of -logp - entropy under the learner, and `gate/surprise_z`, that in its standard errors.

    Args:
        rows: what was sampled, with the engines' logprobs; tokens whose logprobs are not the model's own are not asked about.
        moments: what the learner says of the same tokens, [3, T] by row id (Learner.measure of MOMENTS).
        tolerance: largest mean gap allowed, over all tokens and in every position bucket.

    Raises:
        GateError: a mean is larger or no number, or the tokens were not drawn from the learner's distribution.
    """
    if not rows:
        return {}
    for row in rows:
        bad_T = np.flatnonzero(row.own_T & ~np.isfinite(moments[row.id][0]))
        if len(bad_T):
            raise GateError(
                f"rollout {row.id}: the learner's logprob of token {bad_T[0]} is {moments[row.id][0][bad_T[0]]}: its weights are broken"
            )
    logp_N, entropy_N, variance_N = np.concatenate([moments[row.id][:, row.own_T] for row in rows], axis=1)
    gap_N = np.abs(logp_N - np.concatenate([row.engine_logp[row.own_T] for row in rows]))
    place_N = np.concatenate([np.flatnonzero(row.own_T) for row in rows])
    if not len(place_N):
        return {}
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
    if words := dishonest(logp_N, entropy_N, variance_N, tolerance):
        raise GateError(words)
    mean, z = surprise(logp_N, entropy_N, variance_N)
    return metrics | {"gate/surprise": mean, "gate/surprise_z": z}
