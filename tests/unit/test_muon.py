"""Muon: against torch's own, and what it does to a matrix's singular values; AdamW for everything else, to the bit."""

from __future__ import annotations

import pytest
import torch

from rl.muon import MuonAdamW, orthogonalised


@pytest.mark.parametrize("shape", [(64, 64), (32, 96), (96, 32)])
def test_singular_values_come_near_one_and_singular_vectors_stay(shape: tuple[int, int]):
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0)), full_matrices=False)
    made = orthogonalised((left @ torch.diag(torch.linspace(0.1, 5.0, min(shape))) @ right)[None])[0]
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.6 and values.max() < 1.25
    inner = left.T @ made @ right.T
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(64, 64), (32, 96), (96, 32)])
def test_a_matrix_takes_the_steps_of_torchs_muon(shape: tuple[int, int]):
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(shape, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    other = torch.nn.Parameter(torch.zeros(2))
    a = MuonAdamW([ours], [other], lr=0.02)
    b = torch.optim.Muon([theirs], lr=0.02, momentum=0.95, nesterov=True, weight_decay=0.0)
    for _ in range(3):
        gradient = torch.randn(shape, generator=generator)
        ours.grad, theirs.grad, other.grad = gradient.clone(), gradient.clone(), torch.ones(2)
        a.step()
        b.step()
    moved, expected = ours - start, theirs - start
    assert (moved - expected).norm() < 0.03 * expected.norm()  # torch iterates in bf16


def test_the_rest_takes_adamw_steps_with_a_tenth_of_the_rate():
    matrix, ours, theirs = torch.nn.Parameter(torch.eye(4)), torch.nn.Parameter(torch.ones(5)), torch.nn.Parameter(torch.ones(5))
    a = MuonAdamW([matrix], [ours], lr=0.02)
    b = torch.optim.AdamW([theirs], lr=0.002, betas=(0.9, 0.98), weight_decay=0.0)
    for scale in (1.0, -2.0, 0.5):
        matrix.grad = torch.eye(4)
        ours.grad, theirs.grad = torch.arange(5.0) * scale, torch.arange(5.0) * scale
        a.step()
        b.step()
    assert torch.equal(ours, theirs)


def test_parameters_without_a_gradient_stay():
    matrix = torch.nn.Parameter(torch.eye(4))
    optimizer = MuonAdamW([matrix], [torch.nn.Parameter(torch.ones(2))], lr=0.1)
    optimizer.step()
    assert torch.equal(matrix, torch.eye(4))
