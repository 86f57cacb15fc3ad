"""The DeepSpeed learner: saving, scoring and numbers that are not finite (sharding and splitting: test_p01_learner_grid)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from recipes.schema import Recipe
from recipes.terms import KlTerm, VerdictTerm
from rl.adapters import ADAPTER
from rl.algorithm import measured
from rl.learner import Learner, LearnerError
from rl.objective import NonFinite
from rl.policy import Row, load_policy, padded
from tests.forked import Forked

LR = 1e-3


def rows(seed: int = 0, count: int = 24) -> list[Row]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 60, count)
    return [
        Row(
            id=f"{seed}-{index}",
            prompt_ids=rng.integers(5, 40, rng.integers(2, 12)).astype(np.int32),
            ids=rng.integers(5, 40, length).astype(np.int32),
            engine_logp=rng.normal(-3.7, 0.3, length).astype(np.float32),
            advantage_T=rng.normal(),
            weight_T=1.0 / int(lengths.sum()),
        )
        for index, length in enumerate(lengths)
    ]


def recipe(ranks: int, zero: int, micro_batch_tokens: int, dtype: str = "fp32", **learner: object) -> Recipe:
    settings = {
        "ranks": ranks,
        "zero_stage": zero,
        "micro_batch_tokens": micro_batch_tokens,
        "lr": LR,
        "threads": 1,
        "logit_chunk_tokens": 64,
    }
    sections = {"model": {"dtype": dtype}, "learner": settings | learner}
    return Recipe.model_validate(sections | {"objective": {"dual_clip": 3.0}, "advantage": {"scale": "none"}})


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
            token_loss = torch.maximum(-row.advantage_T[0] * ratio, -row.advantage_T[0] * ratio.clamp(0.8, 1.28))
            if row.advantage_T[0] < 0:
                token_loss = torch.minimum(token_loss, torch.tensor(-row.advantage_T[0] * 3.0))
            loss = (token_loss * row.weight_T[0]).sum()
            loss.backward()
            total += float(loss)
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        losses.append(total)
        optimiser.step()
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}, losses, norms


@pytest.mark.parametrize(
    ("ranks", "zero", "dtype", "adapter"),
    [
        (1, 0, "fp32", "full"),
        (2, 1, "fp32", "full"),
        (2, 3, "fp32", "full"),
        (1, 1, "bf16", "full"),
        (2, 2, "bf16", "full"),
        (1, 0, "fp32", "lora"),
        (2, 3, "fp32", "lora"),
    ],
)
def test_a_restored_learner_goes_on_as_if_nothing_had_happened_and_so_does_one_that_rested(
    forked: Forked, tiny_checkpoint: Path, tmp_path: Path, ranks: int, zero: int, dtype: str, adapter: str
):
    settings = recipe(ranks, zero, 256, dtype, adapter={"kind": adapter})
    learner = Learner(settings, tiny_checkpoint, "cpu")
    learner.update([rows(0)], 0)
    awake = learner.weights()[1], learner.score([[5, 6, 7]])[0].tolist()
    learner.rest(True)  # on a CPU DeepSpeed moves its states from main memory to main memory, but unlinks and links them all the same
    assert (learner.weights()[1], learner.score([[5, 6, 7]])[0].tolist()) == awake
    with pytest.raises(LearnerError, match="an update was asked of a learner that rests"):
        learner.update([rows(1)], 1)
    learner.save(tmp_path)
    learner.rest(False)
    expected = learner.update([rows(1)], 1)
    after = learner.weights()[1]
    learner.stop()
    restored = Learner(settings, tiny_checkpoint, "cpu")
    restored.restore(tmp_path)
    assert restored.update([rows(1)], 1) == expected
    assert restored.weights()[1] == after  # digests: equal to the bit
    restored.stop()
    saved = AutoModelForCausalLM.from_pretrained(tmp_path)
    if adapter == "lora":  # of the checkpoint's two forms, peft's says the same
        base = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=saved.dtype)
        whole = PeftModel.from_pretrained(base, tmp_path / ADAPTER).merge_and_unload()
        for name, tensor in saved.state_dict().items():
            torch.testing.assert_close(whole.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("ranks", "zero", "poison", "architecture"),
    [(1, 0, np.nan, "qwen2"), (2, 0, -np.inf, "llama"), (2, 1, np.nan, "qwen3"), (2, 3, -np.inf, "qwen2")],
)
def test_an_update_with_a_number_that_is_not_finite_is_left_out_or_stops_the_run_and_names_the_rollout(
    forked: Forked, checkpoints: Callable[[str], Path], ranks: int, zero: int, poison: float, architecture: str
):
    checkpoint = checkpoints(architecture)
    learner = Learner(recipe(ranks, zero, 256, nonfinite="skip"), checkpoint, "cpu")
    before = learner.weights()[1]
    bad = rows(0, count=6)
    bad[3].engine_logp[1] = poison  # of 2 ranks, one has it
    stats = learner.update([bad], 0)
    assert (stats["updates/skipped"], stats["tokens/trained"], stats["loss"]) == (1, 0, None)
    assert learner.weights()[1] == before
    stats = learner.update([bad, rows(1)], 0)  # the second update is made as if the first had not been tried
    assert stats["updates/skipped"] == 1 and stats["tokens/trained"] == sum(len(row.ids) for row in rows(1))
    weights, [loss], [norm] = plain_torch_update(checkpoint, [rows(1)])
    assert (stats["loss"], stats["grad_norm"]) == (pytest.approx(loss, rel=1e-5), pytest.approx(norm, rel=1e-5))
    reference, after = learner.weights()
    for name, packed in forked.get(reference).items():
        assert (packed.tensor() - weights[name]).abs().max() < 0.05 * LR, name
    learner._recipe = recipe(ranks, zero, 256)
    with pytest.raises(NonFinite, match=r"rollout 0-3: engine_logp (nan|-inf).*learner.nonfinite=skip"):
        learner.update([bad], 1)
    assert learner.weights()[1] == after
    learner.stop()


@pytest.mark.parametrize(("ranks", "zero", "architecture"), [(1, 0, "qwen2"), (2, 3, "llama")])
def test_rows_are_scored_by_the_policy_as_it_is_and_by_the_reference_as_it_was(
    forked: Forked, checkpoints: Callable[[str], Path], ranks: int, zero: int, architecture: str
):
    checkpoint = checkpoints(architecture)
    settings = recipe(ranks, zero, 256).model_copy(update={"reward": [VerdictTerm(kind="verdict"), KlTerm(kind="kl", weight=0.1)]})
    learner = Learner(settings, checkpoint, "cpu")
    given = rows(0, count=7)
    both = learner.measure([given], ["logp", "ref_logp"])
    first, reference = ({name: found[index] for name, found in both.items()} for index in (0, 1))
    learner.update([given], 0)
    again = learner.measure([given[:3], [], given[3:]], ["ref_logp", "logp"])
    later = {name: found[1] for name, found in again.items()}
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    for row in given:
        ids = torch.from_numpy(np.concatenate([row.prompt_ids, row.ids]).astype(np.int64))
        with torch.no_grad():
            logp = model(ids[None]).logits[0].log_softmax(-1)[len(row.prompt_ids) - 1 : -1]
        expected = logp.gather(1, ids[len(row.prompt_ids) :, None])[:, 0].numpy()
        np.testing.assert_allclose(first[row.id], expected, atol=1e-5)
        np.testing.assert_array_equal(reference[row.id], first[row.id])
        np.testing.assert_allclose(again[row.id][0], reference[row.id], atol=1e-5)
        assert np.abs(later[row.id] - first[row.id]).max() > 1e-4
    learner.stop()


@pytest.mark.parametrize(("ranks", "zero"), [(1, 1), (2, 2)])
def test_in_bf16_an_update_that_is_not_finite_leaves_weights_and_the_next_update_as_they_were(
    forked: Forked, tiny_checkpoint: Path, ranks: int, zero: int
):
    bad = rows(0, count=6)
    bad[3].engine_logp[1] = np.nan
    after = []
    for updates in ([bad, rows(1)], [rows(1)]):
        learner = Learner(recipe(ranks, zero, 256, "bf16", nonfinite="skip"), tiny_checkpoint, "cpu")
        stats = learner.update(updates, 0)
        assert stats["updates/skipped"] == len(updates) - 1 and stats["tokens/trained"] == sum(len(row.ids) for row in rows(1))
        after.append((stats["loss"], stats["grad_norm"], learner.weights()[1]))
        learner.stop()
    assert after[0] == after[1]


def test_a_planted_pickle_in_a_checkpoint_is_refused_and_does_not_run(forked: Forked, tiny_checkpoint: Path, tmp_path: Path):
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


def test_old_logprobs_of_the_learner_make_the_first_ratio_one(forked: Forked, tiny_checkpoint: Path):
    settings = recipe(1, 0, 256).model_copy(
        update={"objective": Recipe.model_validate({"objective": {"old_logprobs": "learner"}}).objective}
    )
    learner = Learner(settings, tiny_checkpoint, "cpu")
    stats = learner.update(measured([rows(0)], settings.objective, learner.measure), 0)
    learner.stop()
    assert stats["ratio/mean"] == pytest.approx(1.0, abs=1e-6)
    assert stats["mismatch/mean"] > 0.1  # the engine's logprobs in these rows are made up


@torch.no_grad()
def test_a_row_scores_the_same_alone_and_in_company(tiny_checkpoint: Path):
    policy = load_policy(tiny_checkpoint, torch.float32, 1.0, 64)
    together = rows(2, count=9)

    def score(some: list[Row]) -> np.ndarray:
        tensors = padded(some, "cpu")
        return policy(*tensors.inputs, 1)[0].numpy()

    np.testing.assert_allclose(score(together), np.concatenate([score([row]) for row in together]), atol=1e-5)
