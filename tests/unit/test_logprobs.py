from __future__ import annotations

import pytest
import torch

from rl.logprobs import token_logprobs

N, H, V, T = 11, 6, 17, 0.7


class Head(torch.nn.Linear):
    """A head that remembers how many rows it was given, call by call."""

    def __init__(self):
        super().__init__(H, V, bias=False)
        self.rows: list[int] = []

    def forward(self, hidden):
        self.rows.append(len(hidden))
        return super().forward(hidden)


@pytest.fixture
def case():
    torch.manual_seed(0)
    return torch.randn(N, H, requires_grad=True), Head(), torch.randint(V, (N,)), torch.randn(N), torch.randn(N)


def gradients(logp_N, entropy_N, hidden_NH, head, a_N, b_N):
    return torch.autograd.grad((a_N * logp_N + b_N * entropy_N).sum(), [hidden_NH, head.weight])


@pytest.mark.parametrize("chunk", [1, 3, N, N + 5])
def test_chunks_change_neither_value_nor_gradient(case, chunk):
    hidden_NH, head, targets_N, a_N, b_N = case
    plain_NV = torch.nn.functional.linear(hidden_NH, head.weight) / T
    plain = torch.distributions.Categorical(logits=plain_NV)
    logp_N, entropy_N = token_logprobs(hidden_NH, head, targets_N, T, chunk, entropy=True)
    torch.testing.assert_close(logp_N, plain.log_prob(targets_N), atol=1e-6, rtol=0)
    torch.testing.assert_close(entropy_N, plain.entropy(), atol=1e-6, rtol=0)
    expected = gradients(plain.log_prob(targets_N), plain.entropy(), hidden_NH, head, a_N, b_N)
    for ours, theirs in zip(gradients(logp_N, entropy_N, hidden_NH, head, a_N, b_N), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_no_more_than_a_chunk_of_logits_exists_forward_or_backward(case):
    hidden_NH, head, targets_N, a_N, _ = case
    kept: list[int] = []  # elements that autograd holds on to outside the checkpoints

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logp_N, _ = token_logprobs(hidden_NH, head, targets_N, T, 3, entropy=False)
        forward = list(head.rows)
        total = (a_N * logp_N).sum()
    total.backward()
    assert sum(forward) == N and max(head.rows) <= 3
    assert sorted(head.rows[len(forward) :]) == sorted(forward)  # each piece once more in the backward pass
    assert 3 * V not in kept and max(kept) <= N * H


def test_without_gradient_the_head_runs_once(case):
    hidden_NH, head, targets_N, *_ = case
    with torch.no_grad():
        logp_N, entropy_N = token_logprobs(hidden_NH, head, targets_N, 1.0, 4, entropy=False)
    assert sum(head.rows) == N and entropy_N is None and not logp_N.requires_grad


@pytest.mark.parametrize("rows", [0, 1, 5, N])
def test_ranks_with_fewer_tokens_can_call_the_head_as_often_as_the_others(case, rows):
    hidden_NH, head, targets_N, *_ = case
    logp_N, _ = token_logprobs(hidden_NH[:rows], head, targets_N[:rows], T, 3, entropy=False, calls=6)
    assert len(logp_N) == rows and len(head.rows) == 6
    logp_N.sum().backward()
    assert len(head.rows) == 12 and head.weight.grad is not None


def test_log_probabilities_are_float32_under_a_half_precision_head(case):
    hidden_NH, _, targets_N, *_ = case
    head = torch.nn.Linear(H, V, bias=False, dtype=torch.bfloat16)
    hidden_NH = hidden_NH.detach().bfloat16()
    logp_N, entropy_N = token_logprobs(hidden_NH, head, targets_N, T, 3, entropy=True)
    assert logp_N.dtype == entropy_N.dtype == torch.float32
    expected = torch.log_softmax(head(hidden_NH).float() / T, dim=-1).gather(-1, targets_N[:, None])[:, 0]
    torch.testing.assert_close(logp_N, expected, atol=1e-6, rtol=0)
