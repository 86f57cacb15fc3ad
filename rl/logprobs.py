"""Log-probabilities of chosen tokens without the [tokens, vocabulary] matrix.

The head takes a few tokens at a time and keeps one number a token, the entropy, and the last piece's log-softmax for the
backward pass, whose slope has a closed form: d logp / d logits = (onehot - p) / T and d H / d logits = -p (log p + H) / T. So two
[piece, vocabulary] tensors exist at once, however many pieces there are, and a micro-batch that fits one piece has no second product.
Other pieces' logits are computed again: the gradient of the head's weight needs each token's coefficient, which the loss knows only
when it has seen all tokens (a ratio of whole rollouts, a NaN), and keeping the probabilities would be the whole matrix.
Logits and all sums are float32 under a bfloat16 model too; the slope is rounded to the model's type before its two products.
How tokens influence each other through the head needs no token x token matrix either: `ScoringHead.influence`.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class ScoringHead(nn.Module):
    """An output head that answers with logprob and entropy of tokens instead of logits.

    A module, called once a pass, so that a weight which is sharded (ZeRO-3) is gathered once for all pieces.

    Args:
        weight_VH: the head's weight, tied to the embedding or not.
        bias_V: its bias, if it has one.
    """

    def __init__(self, weight_VH: nn.Parameter, bias_V: nn.Parameter | None = None):
        super().__init__()
        self.weight, self.bias = weight_VH, bias_V

    def forward(
        self, hidden_NH: Tensor, targets_N: Tensor, temperature: float, chunk: int, entropy_gradient: bool = False, spread: bool = False
    ) -> tuple[Tensor, ...]:
        """Log-probability of each target and the entropy of its distribution: float32 [N], nats; with `spread` the variance of the
        log-probability under it, too, nats^2, and no gradient.

        Args:
            hidden_NH: last hidden states, each at the position that predicts its target.
            targets_N: token ids, int64.
            temperature: logits are divided by it, as they were while sampling.
            chunk: most tokens whose logits exist at one time.
            entropy_gradient: whether the entropy carries a gradient, or is a statistic.
        """
        if spread:
            return self._moments(hidden_NH, targets_N, temperature, chunk)
        return _Scores.apply(hidden_NH, self.weight, self.bias, targets_N, temperature, chunk, entropy_gradient)

    @torch.no_grad()
    def _moments(self, hidden_NH: Tensor, targets_N: Tensor, temperature: float, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
        parts = []
        for hidden_nH, targets_n in zip(hidden_NH.split(chunk), targets_N.split(chunk), strict=True):
            logp_nV = _log_softmax(hidden_nH, self.weight, self.bias, temperature)
            entropy_n = -torch.einsum("nv,nv->n", logp_nV.exp(), logp_nV)
            logp_n = logp_nV.gather(-1, targets_n[:, None])[:, 0]
            parts.append((logp_n, entropy_n, torch.einsum("nv,nv->n", logp_nV.exp(), (logp_nV + entropy_n[:, None]).square_())))
        logp_N, entropy_N, variance_N = (torch.cat(column) for column in zip(*parts, strict=True))
        return logp_N, entropy_N, variance_N

    @torch.no_grad()
    def influence(
        self, hidden_NH: Tensor, targets_N: Tensor, toward_N: Tensor, temperature: float, chunk: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability and entropy as `forward` gives them, and what training on each token alone would do, through the head's weight, to
        the sum of `toward` x logprob over all: float32 [N] each (THR, arXiv 2510.03669).

        With g = onehot - p and h the hidden state it is g' (sum of toward x g h) h, the inner product of the two gradients by the weight, times the
        temperature squared. Taken over the vocabulary that the targets use, [U, H]; probabilities are of the whole one, and are not made to add up to 1.
        Two looks at the hidden states, of which the second needs the logits of these tokens only.
        """
        used_U, place_N = targets_N.unique(return_inverse=True)
        weight_UH, bias_U = self.weight[used_U], None if self.bias is None else self.bias[used_U]
        toward_UH = torch.zeros(len(used_U), hidden_NH.shape[1], dtype=_wide(hidden_NH), device=hidden_NH.device)
        pieces = [slice(start, start + chunk) for start in range(0, len(targets_N), chunk)]
        logp_N = hidden_NH.new_empty(len(targets_N), dtype=toward_UH.dtype)  # small results among large pieces would split a CPU's heap
        entropy_N, influence_N = torch.empty_like(logp_N), torch.empty_like(logp_N)
        logp_nV = None
        for piece in pieces:
            logp_nV = None  # the piece before goes before this one comes
            logp_nV = _log_softmax(hidden_NH[piece], self.weight, self.bias, temperature)
            logp_N[piece] = logp_nV.gather(-1, targets_N[piece, None])[:, 0]
            error_nU = _errors(logp_nV[:, used_U], place_N[piece])
            entropy_N[piece] = -torch.einsum("nv,nv->n", logp_nV.exp(), logp_nV)
            toward_UH += (error_nU * toward_N[piece, None]).t() @ hidden_NH[piece].to(toward_UH.dtype)
        logp_nV = None
        for piece in pieces:
            logits_nU = _product(hidden_NH[piece], weight_UH.t())
            if bias_U is not None:
                logits_nU += bias_U
            logits_nU /= temperature
            whole_n = logits_nU.gather(-1, place_N[piece, None])[:, 0] - logp_N[piece]  # log of the sum over the whole vocabulary
            error_nU = _errors(logits_nU - whole_n[:, None], place_N[piece])
            influence_N[piece] = torch.einsum("nu,nu->n", error_nU, hidden_NH[piece].to(toward_UH.dtype) @ toward_UH.t())
        return logp_N, entropy_N, influence_N


def _errors(logp_nU: Tensor, place_n: Tensor) -> Tensor:
    """onehot - p over some of the vocabulary; `place_n` is where each target stands in it."""
    return -logp_nU.exp().scatter_add(-1, place_n[:, None], torch.full_like(logp_nU[:, :1], -1.0))


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        temperature: float,
        chunk: int,
        entropy_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        N = len(targets_N)
        size = ceil(N / max(ceil(N / chunk), 1))  # equal pieces rather than full ones and a rest: more is kept for the way back
        pieces = [slice(start, start + size) for start in range(0, N, size)] if N else []
        logp_N = hidden_NH.new_empty(N, dtype=_wide(hidden_NH))
        entropy_N = torch.empty_like(logp_N)
        logp_nV = None
        for piece in pieces:
            logp_nV = None  # the piece before goes before this one comes
            logp_nV = _log_softmax(hidden_NH[piece], weight_VH, bias_V, temperature)
            logp_N[piece] = logp_nV.gather(-1, targets_N[piece, None])[:, 0]
            entropy_N[piece] = -torch.einsum("nv,nv->n", logp_nV.exp(), logp_nV)
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy_N)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, targets_N, entropy_N)
        ctx.temperature, ctx.pieces, ctx.kept_nV = temperature, pieces, logp_nV
        return logp_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, bias_V, targets_N, entropy_N = ctx.saved_tensors
        by_logp_N, by_entropy_N = slopes
        by_logp_N = torch.zeros_like(entropy_N) if by_logp_N is None else by_logp_N
        wide = {"dtype": entropy_N.dtype}
        hidden_slope_NH = torch.zeros_like(hidden_NH)
        weight_slope_VH = torch.zeros_like(weight_VH, **wide) if ctx.needs_input_grad[1] else None
        bias_slope_V = torch.zeros_like(bias_V, **wide) if bias_V is not None else None
        logp_nV, ctx.kept_nV = ctx.kept_nV, None
        for piece in reversed(ctx.pieces):
            if logp_nV is None:
                logp_nV = _log_softmax(hidden_NH[piece], weight_VH, bias_V, ctx.temperature)
            by_entropy_n = None if by_entropy_N is None else by_entropy_N[piece]
            slope_nV = _slope(logp_nV, targets_N[piece], entropy_N[piece], by_logp_N[piece], by_entropy_n).div_(ctx.temperature)
            logp_nV = None
            if bias_slope_V is not None:
                bias_slope_V += slope_nV.sum(0)
            slope_nV = slope_nV.to(hidden_NH.dtype)
            hidden_slope_NH[piece] = _product(slope_nV, weight_VH).to(hidden_NH.dtype)
            if weight_slope_VH is not None:
                _add_product(weight_slope_VH, slope_nV.t(), hidden_NH[piece])
            slope_nV = None
        return hidden_slope_NH, weight_slope_VH, bias_slope_V, None, None, None, None


def _slope(logp_nV: Tensor, targets_n: Tensor, entropy_n: Tensor, by_logp_n: Tensor, by_entropy_n: Tensor | None) -> Tensor:
    """Slope of the loss by the logits before the temperature, from its slopes by logp and entropy; uses `logp_nV` up."""
    if by_entropy_n is None:
        slope_nV = logp_nV.exp_().mul_(-by_logp_n[:, None])
    else:
        probability_nV = logp_nV.exp()
        slope_nV = logp_nV.add_(entropy_n[:, None]).mul_(-by_entropy_n[:, None]).sub_(by_logp_n[:, None]).mul_(probability_nV)
    return slope_nV.scatter_add_(-1, targets_n[:, None], by_logp_n[:, None])


def _log_softmax(hidden_nH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, temperature: float) -> Tensor:
    logits_nV = _product(hidden_nH, weight_VH.t())
    if bias_V is not None:
        logits_nV += bias_V
    return torch.log_softmax(logits_nV.div_(temperature), dim=-1)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product of operands as they are with sums and result in float32 at least.

    On a GPU the tensor cores do just that with half precision operands; a CPU gets them widened.
    """
    wide = _wide(left)
    if left.is_cuda and left.dtype != wide:
        return torch.mm(left, right, out_dtype=wide)
    return left.to(wide) @ right.to(wide)


def _add_product(sums: Tensor, left: Tensor, right: Tensor) -> None:
    """`sums` plus the product, in place; operands and sums as in `_product`."""
    if left.is_cuda and left.dtype != sums.dtype:
        torch.addmm(sums, left, right, out_dtype=sums.dtype, out=sums)
    else:
        sums.addmm_(left.to(sums.dtype), right.to(sums.dtype))


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
