"""Muon for a model's matrices, AdamW for the rest: twice as much learned from a token as AdamW alone on the tiny reasoner (docs/log.md).

The step of a matrix is its Nesterov momentum with all singular values brought near 1, by Newton-Schulz iteration (Keller Jordan, Muon, 2024).
torch.optim.Muon iterates in bf16, which a CPU without bf16 arithmetic emulates: a step of the cold start takes three times as long there.
Simplifications: in fp32, no weight decay, and matrices only (no convolutions).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = 3.4445, -4.7750, 2.0315  # a x + b x^3 + c x^5 pushes singular values towards 1, fast rather than exactly
_ITERATIONS = 5
_MOMENTUM = 0.95


class MuonAdamW(torch.optim.AdamW):
    """One optimiser for a whole model.

    Args:
        matrices: parameters [rows, columns] for Muon, with learning rate `lr`.
        others: embeddings, norms, biases, for AdamW with a tenth of it.
    """

    def __init__(self, matrices: Sequence[Tensor], others: Sequence[Tensor], lr: float):
        super().__init__([{"params": list(others), "lr": lr / 10}], betas=(0.9, 0.98), weight_decay=0.0)
        self.add_param_group({"params": list(matrices), "lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # a closure would have to see the matrices' gradients
        _, matrices = self.param_groups
        shapes: dict[torch.Size, list[Tensor]] = {}
        for matrix in matrices["params"]:
            if matrix.grad is not None:
                shapes.setdefault(matrix.shape, []).append(matrix)
        for (rows, columns), alike in shapes.items():  # equal shapes together: one large product is faster than many small ones
            for matrix in alike:
                state = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                state.lerp_(matrix.grad, 1 - _MOMENTUM)
                matrix.grad.lerp_(state, _MOMENTUM)
            steps = orthogonalised(torch.stack([matrix.grad for matrix in alike]))
            for matrix, step in zip(alike, steps, strict=True):
                matrix.add_(step, alpha=-matrices["lr"] * max(1.0, rows / columns) ** 0.5)
                matrix.grad = None  # AdamW passes over what has no gradient
        super().step()


def orthogonalised(matrices_NRC: Tensor) -> Tensor:
    """Each matrix with the same singular vectors and singular values between about 0.7 and 1.2, [N, rows, columns].

    Singular values below about a 500th of the matrix's norm end smaller.
    """
    tall = matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x = matrices_NRC.mT if tall else matrices_NRC
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * (square @ square)) @ x
    return x.mT if tall else x
