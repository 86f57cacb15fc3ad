"""Log-probabilities of chosen tokens without the [tokens, vocabulary] matrix.

The head is applied to a few tokens at a time and again in the backward pass, so that only one piece's logits exist at
once in either. It is called as a module, never read as a weight: a head whose weight is sharded (ZeRO-3), tied or
adapted works alike. The cost is a second head product per token.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def token_logprobs(
    hidden_NH: Tensor, lm_head: Callable[[Tensor], Tensor], targets_N: Tensor, temperature: float, chunk: int, entropy: bool, calls: int = 1
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each target and, if asked, the entropy of its distribution: float32 [N], nats.

    Args:
        hidden_NH: last hidden states, each at the position that predicts its target.
        lm_head: hidden states [n, H] to logits [n, V].
        targets_N: token ids, int64.
        temperature: logits are divided by it, as they were while sampling.
        chunk: most tokens whose logits exist at one time.
        entropy: whether to compute the entropy as well (with gradient).
        calls: least number of calls of the head. Ranks that share a sharded head must call it equally often, so they
            pass the largest count, ceil(N / chunk), of any of them; some pieces may then be empty.
    """
    pieces = max(ceil(len(targets_N) / chunk), calls)
    # Pieces of equal size rather than full ones and a rest: the same bound, and `calls` of them at any N.
    scored = [
        checkpoint(_score, hidden, lm_head, targets, temperature, entropy, use_reentrant=False)
        for hidden, targets in zip(hidden_NH.tensor_split(pieces), targets_N.tensor_split(pieces), strict=True)
    ]
    logp_N = torch.cat([logp for logp, _ in scored])
    return logp_N, torch.cat([H for _, H in scored]) if entropy else None


def _score(
    hidden_NH: Tensor, lm_head: Callable[[Tensor], Tensor], targets_N: Tensor, temperature: float, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    logp_NV = torch.log_softmax(lm_head(hidden_NH).float() / temperature, dim=-1)
    logp_N = logp_NV.gather(-1, targets_N[:, None]).squeeze(-1)
    return logp_N, -(logp_NV.exp() * logp_NV).sum(-1) if entropy else None
