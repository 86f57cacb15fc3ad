"""Promise P3: a trajectory scores the same alone or in company, whichever way the model counts positions and whatever id pads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from rl.policy import Policy, Row, load_policy, padded

V, POSITIONS, TEMPERATURE = 40, 64, 0.7


def rotary(eos: int) -> Any:
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    return Qwen3ForCausalLM(
        Qwen3Config(vocab_size=V, head_dim=16, max_position_embeddings=POSITIONS, pad_token_id=0, eos_token_id=eos, **sizes)
    )


def learned(eos: int) -> Any:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=V, n_embd=32, n_layer=2, n_head=2, n_positions=POSITIONS, pad_token_id=0, eos_token_id=eos)
    )


@pytest.fixture(scope="module", params=["rotary", "learned"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose stop token is also its padding (id 0); weights large enough for positions to matter."""
    folder = tmp_path_factory.mktemp(request.param)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = {"rotary": rotary, "learned": learned}[request.param](eos=0)
        for weights in model.parameters():
            weights.data.add_(0.2 * torch.randn_like(weights))
        model.save_pretrained(folder)
    return folder


def rows() -> list[Row]:
    """Rollouts of very different lengths; several hold the id that pads, inside and as the stop token; one fills all positions."""
    rng = np.random.default_rng(0)
    made = []
    for index, (prompt, length) in enumerate([(1, 1), (3, 5), (9, 2), (2, 40), (30, POSITIONS - 30), (5, 3), (4, 17)]):
        ids = rng.integers(0, 5 if index % 2 else V, length).astype(np.int32)
        ids[-1] = 0
        prompt_ids = rng.integers(0, V, prompt).astype(np.int32)
        made.append(Row(str(index), prompt_ids, ids, np.zeros(length, np.float32), 1.0, 1.0))
    return made


@torch.no_grad()
def score(policy: Policy, company: list[Row], extra: int = 0, calls: int = 1) -> dict[str, np.ndarray]:
    """(logprob, entropy) [2, T] of each row when these rows pass the model together, `extra` columns of padding to their right."""
    batch = padded(company, "cpu")
    ids = torch.nn.functional.pad(batch.ids, (0, extra))
    predicts = torch.nn.functional.pad(batch.predicts, (0, extra))
    both_2N = torch.stack(policy(ids, predicts, batch.targets, calls)).numpy()
    ends = np.cumsum([len(row.ids) for row in company])
    return {row.id: both_2N[:, end - len(row.ids) : end] for row, end in zip(company, ends, strict=True)}


@torch.no_grad()
def alone(checkpoint: Path, row: Row) -> np.ndarray:
    """The same by transformers itself: one row, no padding, the whole matrix of logits, float64."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float64).eval()
    ids = torch.from_numpy(np.concatenate([row.prompt_ids, row.ids]).astype(np.int64))
    logp_TV = (model(ids[None]).logits[0, len(row.prompt_ids) - 1 : -1] / TEMPERATURE).log_softmax(-1)
    return torch.stack([logp_TV[torch.arange(len(row.ids)), ids[len(row.prompt_ids) :]], -(logp_TV.exp() * logp_TV).sum(-1)]).numpy()


def test_p03_a_row_scores_the_same_alone_padded_and_in_company(family: Path):
    policy, all_rows = load_policy(family, torch.float32, TEMPERATURE, 16), rows()
    together, backwards = score(policy, all_rows), score(policy, all_rows[::-1], calls=9)
    for row in all_rows:
        expected = alone(family, row)
        np.testing.assert_allclose(score(policy, [row])[row.id], expected, atol=1e-5)
        np.testing.assert_allclose(score(policy, [row], extra=POSITIONS - row.tokens)[row.id], expected, atol=1e-5)
        np.testing.assert_allclose(together[row.id], expected, atol=1e-5)
        np.testing.assert_allclose(backwards[row.id], expected, atol=1e-5)


def test_p03_these_models_would_notice_a_wrong_position_a_token_seen_too_many_or_an_id_that_counts_as_padding(family: Path):
    """Or agreement would say nothing: each of the classical mistakes moves some logprob by more than a hundred tolerances."""
    model = AutoModelForCausalLM.from_pretrained(family).eval()
    row = rows()[3]
    ids = torch.from_numpy(np.concatenate([row.prompt_ids, row.ids]).astype(np.int64))[None]

    @torch.no_grad()
    def logp(**mistake: torch.Tensor) -> torch.Tensor:
        shifted = mistake.pop("prefix", torch.zeros(1, 0, dtype=torch.long))
        return model(torch.cat([shifted, ids], 1), **mistake).logits[:, shifted.shape[1] :].log_softmax(-1)

    right = logp()
    mistakes = {
        "left padding that is attended": {"prefix": torch.zeros(1, 4, dtype=torch.long)},
        "padding told by id": {"attention_mask": (ids != 0).long()},
        "positions told by the mask": {"position_ids": (torch.cumsum(ids != 0, 1) - 1).clamp(min=0)},
    }
    for name, mistake in mistakes.items():
        assert (logp(**mistake) - right).abs().max() > 1e-3, name
