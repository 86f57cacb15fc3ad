from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen3Config, Qwen3ForCausalLM

from rl import logprobs
from rl.logprobs import ScoringHead
from rl.policy import Policy

N, H, V, T = 11, 6, 17, 0.7


@pytest.fixture
def case():
    torch.manual_seed(0)
    head = ScoringHead(torch.nn.Parameter(torch.randn(V, H) / 3), torch.nn.Parameter(torch.randn(V)))
    return torch.randn(N, H, requires_grad=True), head, torch.randint(V, (N,)), torch.randn(N), torch.randn(N)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of every product that makes logits, in their order."""
    seen: list[int] = []
    whole = logprobs._log_softmax

    def counted(hidden_nH, *rest):
        seen.append(len(hidden_nH))
        return whole(hidden_nH, *rest)

    monkeypatch.setattr(logprobs, "_log_softmax", counted)
    return seen


def plain(hidden_NH, head, temperature=T):
    logits_NV = torch.nn.functional.linear(hidden_NH, head.weight, head.bias)
    return torch.distributions.Categorical(logits=logits_NV / temperature)


@pytest.mark.parametrize("chunk", [1, 3, N, N + 5])
@pytest.mark.parametrize("temperature", [T, 1.0])
def test_chunks_change_neither_value_nor_gradient(case, chunk: int, temperature: float):
    hidden_NH, head, targets_N, a_N, b_N = case
    expected = plain(hidden_NH, head, temperature)
    logp_N, entropy_N = head(hidden_NH, targets_N, temperature, chunk, True)
    torch.testing.assert_close(logp_N, expected.log_prob(targets_N), atol=1e-6, rtol=0)
    torch.testing.assert_close(entropy_N, expected.entropy(), atol=1e-6, rtol=0)
    inputs = [hidden_NH, head.weight, head.bias]
    for total, theirs in [
        ((a_N * logp_N + b_N * entropy_N).sum(), (a_N * expected.log_prob(targets_N) + b_N * expected.entropy()).sum()),
        ((a_N * logp_N).sum(), (a_N * expected.log_prob(targets_N)).sum()),
        ((b_N * entropy_N).sum(), (b_N * expected.entropy()).sum()),
    ]:
        ours = torch.autograd.grad(total, inputs, retain_graph=True)
        for one, other in zip(ours, torch.autograd.grad(theirs, inputs, retain_graph=True), strict=True):
            torch.testing.assert_close(one, other, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize("biased", [True, False])
def test_the_closed_form_is_the_slope_in_float64(rows: int, biased: bool):
    torch.manual_seed(1)
    hidden_NH, weight_VH, bias_V = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((rows, H), (V, H), (V,)))
    targets_N = torch.randint(V, (rows,))

    def scores(hidden_NH, weight_VH, bias_V=None):
        return logprobs._Scores.apply(hidden_NH, weight_VH, bias_V, targets_N, T, 2, True)

    assert torch.autograd.gradcheck(scores, (hidden_NH, weight_VH, bias_V) if biased else (hidden_NH, weight_VH))


def test_the_entropy_is_a_statistic_unless_a_gradient_is_asked_for(case):
    hidden_NH, head, targets_N, a_N, _ = case
    logp_N, entropy_N = head(hidden_NH, targets_N, T, 3)
    assert not entropy_N.requires_grad
    [without] = torch.autograd.grad((a_N * logp_N).sum(), head.weight)
    logp_N, entropy_N = head(hidden_NH, targets_N, T, 3, True)
    assert entropy_N.requires_grad
    [unused] = torch.autograd.grad((a_N * logp_N).sum(), head.weight)
    assert torch.equal(without, unused)


def test_a_frozen_head_passes_the_gradient_on_and_gets_none(case):
    hidden_NH, head, targets_N, a_N, _ = case
    [expected] = torch.autograd.grad((a_N * plain(hidden_NH, head).log_prob(targets_N)).sum(), hidden_NH)
    head.requires_grad_(False)
    (a_N * head(hidden_NH, targets_N, T, 3)[0]).sum().backward()
    torch.testing.assert_close(hidden_NH.grad, expected, atol=2e-6, rtol=2e-6)
    assert head.weight.grad is None and head.bias.grad is None


@pytest.mark.parametrize(("chunk", "again"), [(3, [3, 3, 3]), (4, [4, 4]), (N, []), (100, [])])
def test_the_last_piece_is_not_computed_again(case, products: list[int], chunk: int, again: list[int]):
    hidden_NH, head, targets_N, a_N, _ = case
    logp_N, _ = head(hidden_NH, targets_N, T, chunk)
    assert sum(products) == N and max(products) <= chunk
    products.clear()
    (a_N * logp_N).sum().backward()
    assert products == again


def test_a_rank_without_tokens_takes_part_with_gradients_of_zero(case):
    hidden_NH, head, targets_N, *_ = case
    logp_N, entropy_N = head(hidden_NH[:0], targets_N[:0], T, 3, True)
    assert len(logp_N) == len(entropy_N) == 0
    (logp_N.sum() + entropy_N.sum()).backward()
    assert not hidden_NH.grad.any() and head.weight.grad.shape == (V, H) and not head.weight.grad.any()


def test_logits_of_a_half_precision_head_are_not_rounded():
    """Between 16 and 32 bfloat16 knows steps of 0.125 only."""
    torch.manual_seed(2)
    hidden_NH, weight_VH = (torch.randn(64, 256) * 2).bfloat16(), (torch.randn(99, 256) / 2).bfloat16()
    targets_N = torch.randint(99, (64,))
    logp_N, entropy_N = ScoringHead(torch.nn.Parameter(weight_VH))(hidden_NH, targets_N, 1.0, 5)
    assert logp_N.dtype == entropy_N.dtype == torch.float32
    exact_N = (hidden_NH.double() @ weight_VH.double().t()).log_softmax(-1).gather(-1, targets_N[:, None])[:, 0]
    rounded_N = (hidden_NH @ weight_VH.t()).float().log_softmax(-1).gather(-1, targets_N[:, None])[:, 0]
    assert (logp_N - exact_N).abs().max() < 1e-4 < 0.02 < (rounded_N - exact_N).abs().max()


def test_pieces_of_a_half_precision_head_add_up_in_float32():
    torch.manual_seed(3)
    hidden_NH, weight = torch.randn(512, 32).bfloat16(), torch.nn.Parameter((torch.randn(40, 32) / 4).bfloat16())
    targets_N = torch.randint(40, (512,))

    def gradient(chunk: int) -> torch.Tensor:
        return torch.autograd.grad(ScoringHead(weight)(hidden_NH, targets_N, 1.0, chunk)[0].sum(), weight)[0].float()

    assert (gradient(2) - gradient(512)).norm() < 1e-3 * gradient(512).norm()  # one rounding at the end; 256 roundings are off by 1 %


class LiveTensors(TorchDispatchMode):
    """Counts tensors of at least so many numbers that exist at one time: `peak`."""

    def __init__(self, numbers: int):
        super().__init__()
        self.numbers, self.peak, self._seen = numbers, 0, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else [found]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().nbytes() >= self.numbers * tensor.element_size():
                reference = StorageWeakRef(tensor.untyped_storage())
                self._seen[reference.cdata] = reference
        self._seen = {key: reference for key, reference in self._seen.items() if not reference.expired()}
        self.peak = max(self.peak, len(self._seen))
        return found


def peak(numbers: int, call: Callable[[], torch.Tensor]) -> int:
    """Most tensors of so many numbers at one time, in a forward and backward pass, or a forward pass where gradients are off."""
    with LiveTensors(numbers) as live:
        total = call()
        if total.requires_grad:
            total.backward()
    return live.peak


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bonus", [0.0, 0.1])
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_p42_the_peak_of_live_pieces_does_not_depend_on_their_number(dtype: torch.dtype, bonus: float, gradient_checkpointing: bool):
    vocabulary, chunk = 4096, 16
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
    )
    policy = Policy(Qwen3ForCausalLM(config).to(dtype), T, chunk)
    if gradient_checkpointing:
        policy.model.train()
        policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    peaks = []
    for pieces in (1, 2, 4, 16):
        ids_BT = torch.randint(vocabulary, (1, pieces * chunk + 1))
        predicts_BT = torch.ones(1, pieces * chunk, dtype=torch.bool)

        def total(ids_BT=ids_BT, predicts_BT=predicts_BT) -> torch.Tensor:
            logp_N, entropy_N = policy(ids_BT, predicts_BT, ids_BT[0, 1:], bonus > 0)
            return logp_N.exp().sum() + bonus * entropy_N.sum()

        peaks.append(peak(chunk * vocabulary, total))
        with torch.no_grad():
            peaks.append(peak(chunk * vocabulary, total))
    assert set(peaks) == {2}


def test_p42_the_counter_sees_pieces_that_stay():
    kept = [torch.zeros(8, requires_grad=True) for _ in range(4)]
    assert peak(8, lambda: torch.stack([piece.exp().exp().sum() for piece in kept]).sum()) >= 8


@pytest.mark.parametrize(
    ("logits", "temperature", "expected"),
    [
        ([0.0] * 4, 1.0, 1.3863),
        ([0.0, 0.0], 1.0, 0.6931),
        ([2.1972, 0.0], 1.0, 0.3251),  # .9 and .1
        ([2.0, 1.0, 0.0, -1.0], 1.0, 0.9475),
        ([2.0, 1.0, 0.0, -1.0], 0.6, 0.5877),
    ],
)
def test_entropies_are_in_nats_at_the_temperature_of_sampling(logits, temperature, expected):
    """core.md 3.2."""
    head = ScoringHead(torch.nn.Parameter(torch.tensor(logits)[:, None]))
    _, entropy_N = head(torch.ones(1, 1), torch.tensor([0]), temperature, 4)
    assert entropy_N.item() == pytest.approx(expected, abs=1e-4)
