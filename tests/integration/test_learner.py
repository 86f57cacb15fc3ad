"""The DeepSpeed learner against plain torch: sharding, splitting and saving change nothing (P1, P3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from transformers import AutoModelForCausalLM

from recipes.schema import Recipe
from rl.learner import Learner
from rl.policy import Row, load_policy, padded

LR = 1e-3


def rows(seed: int = 0, count: int = 24) -> list[Row]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 60, count)
    return [
        Row(
            prompt_ids=rng.integers(5, 40, rng.integers(2, 12)).astype(np.int32),
            ids=rng.integers(5, 40, length).astype(np.int32),
            engine_logp=rng.normal(-3.7, 0.3, length).astype(np.float32),
            advantage=float(rng.normal()),
            weight=1.0 / int(lengths.sum()),
        )
        for length in lengths
    ]


def recipe(ranks: int, zero: int, micro_batch_tokens: int, **learner: object) -> Recipe:
    settings = {
        "ranks": ranks,
        "zero_stage": zero,
        "micro_batch_tokens": micro_batch_tokens,
        "lr": LR,
        "threads": 1,
        "logit_chunk_tokens": 64,
    }
    return Recipe.model_validate({"learner": settings | learner, "objective": {"dual_clip": 3.0}, "advantage": {"scale": "none"}})


def plain_torch_update(checkpoint: Path, updates: list[list[Row]]) -> tuple[dict[str, torch.Tensor], list[float], list[float]]:
    """One rollout at a time, no padding, torch.optim.AdamW: new weights, losses and gradient norms."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    optimiser = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    losses, norms = [], []
    for update in updates:
        optimiser.zero_grad()
        total = 0.0
        for row in update:
            ids = torch.from_numpy(np.concatenate([row.prompt_ids, row.ids]).astype(np.int64))
            logp = (
                model(ids[None]).logits[0].log_softmax(-1)[len(row.prompt_ids) - 1 : -1].gather(1, ids[len(row.prompt_ids) :, None])[:, 0]
            )
            ratio = torch.exp(logp - torch.from_numpy(row.engine_logp))
            token_loss = torch.maximum(-row.advantage * ratio, -row.advantage * ratio.clamp(0.8, 1.28))
            if row.advantage < 0:
                token_loss = torch.minimum(token_loss, torch.tensor(-row.advantage * 3.0))
            loss = (token_loss * row.weight).sum()
            loss.backward()
            total += float(loss)
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        losses.append(total)
        optimiser.step()
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}, losses, norms


GRID = [(1, 0, 100_000), (1, 1, 128), (1, 3, 256), (2, 0, 128), (2, 1, 100_000), (2, 2, 256), (2, 3, 128)]


@pytest.mark.parametrize(("ranks", "zero", "micro_batch_tokens"), GRID)
def test_ranks_zero_stage_and_micro_batches_do_not_change_the_update(
    ray_session: None, tiny_checkpoint: Path, ranks: int, zero: int, micro_batch_tokens: int
):
    first, second = rows(0), rows(1, count=3)  # the second is too small for every rank to have a row in each micro-batch
    expected, losses, norms = plain_torch_update(tiny_checkpoint, [first, second])
    learner = Learner(recipe(ranks, zero, micro_batch_tokens), tiny_checkpoint, "cpu")
    stats = [learner.update([first], 0), learner.update([second], 1)]
    weights = {name: packed.tensor() for name, packed in ray.get(learner.weights()[0]).items()}
    learner.stop()
    for stat, loss, norm in zip(stats, losses, norms, strict=True):
        assert stat["loss"] == pytest.approx(loss, rel=1e-5, abs=1e-7)
        assert stat["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert stats[0]["tokens/trained"] == sum(len(row.ids) for row in first)
    for name, tensor in weights.items():
        # AdamW's first steps are lr x sign(gradient) where gradients are near zero, so compare in units of lr
        assert (tensor - expected[name]).abs().max() < 0.05 * LR, name


@pytest.mark.parametrize(("ranks", "zero"), [(1, 0), (2, 1), (2, 3)])
def test_a_restored_learner_goes_on_as_if_nothing_had_happened(
    ray_session: None, tiny_checkpoint: Path, tmp_path: Path, ranks: int, zero: int
):
    settings = recipe(ranks, zero, 256)
    learner = Learner(settings, tiny_checkpoint, "cpu")
    learner.update([rows(0)], 0)
    learner.save(tmp_path)
    expected = learner.update([rows(1)], 1)
    after = learner.weights()[1]
    learner.stop()
    restored = Learner(settings, tiny_checkpoint, "cpu")
    restored.restore(tmp_path)
    assert restored.update([rows(1)], 1) == expected
    assert restored.weights()[1] == after  # digests: equal to the bit
    restored.stop()
    AutoModelForCausalLM.from_pretrained(tmp_path)


def test_a_planted_pickle_in_a_checkpoint_is_refused_and_does_not_run(ray_session: None, tiny_checkpoint: Path, tmp_path: Path):
    learner = Learner(recipe(1, 0, 256), tiny_checkpoint, "cpu")
    learner.save(tmp_path)
    [state] = (tmp_path / "learner" / "state").glob("mp_rank_00*")
    trace = tmp_path / "it-ran"

    class Payload:
        def __reduce__(self):
            return Path.touch, (trace,)

    torch.save({"module": Payload()}, state)
    with pytest.raises(RuntimeError, match="failed in restore"):
        learner.restore(tmp_path)
    learner.stop()
    assert not trace.exists()


def test_old_logprobs_of_the_learner_make_the_first_ratio_one(ray_session: None, tiny_checkpoint: Path):
    settings = recipe(1, 0, 256).model_copy(
        update={"objective": Recipe.model_validate({"objective": {"old_logprobs": "learner"}}).objective}
    )
    learner = Learner(settings, tiny_checkpoint, "cpu")
    stats = learner.update([rows(0)], 0)
    learner.stop()
    assert stats["ratio/mean"] == pytest.approx(1.0, abs=1e-6)
    assert stats["mismatch/mean"] > 0.1  # the engine's logprobs in these rows are made up


@torch.no_grad()
def test_a_row_scores_the_same_alone_and_in_company(tiny_checkpoint: Path):
    policy = load_policy(tiny_checkpoint, torch.float32, 1.0, 64)
    together = rows(2, count=9)

    def score(some: list[Row]) -> np.ndarray:
        tensors = padded(some, "cpu")
        return policy(tensors["ids"], tensors["predicts"], tensors["targets"], 1)[0].numpy()

    np.testing.assert_allclose(score(together), np.concatenate([score([row]) for row in together]), atol=1e-5)
