"""Promise P1: advantage, loss and gradient equal the referee's, whatever the method and however the batch is cut.

The first half runs in float64 (1e-6) and asks for every choice of the recipe; the second runs the learner's own path, a padded
transformer in float32 (1e-5). The referee sees one rollout at a time and never a mask.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from recipes.schema import Recipe
from rl.algorithm import prepare
from rl.batching import micro_batches
from rl.objective import Loss, Tokens, loss
from rl.policy import Policy, Row, load_policy, padded
from tests.reference import cases as case
from tests.reference import referee
from tests.reference.referee import Settings, Trajectory, advantages, correction_weights, loss_and_gradient, select, trained

V = 12
AGGREGATES = ["token_mean", "sequence_mean", "sequence_sum", "constant"]
SURROGATES = {
    "clip": {},
    "dual_clip": {"dual_clip": 1.4},
    "cispo_trl": {"surrogate": "cispo", "clip_low": 1.0, "clip_high": 0.5},
    "cispo_verl": {"surrogate": "cispo", "clip_low": 0.2, "clip_high": 0.3},
    "gspo": {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4},
    "sequence_clip": {"ratio": "sequence", "dual_clip": 1.2},
    "sequence_cispo": {"ratio": "sequence", "surrogate": "cispo", "clip_low": 0.1, "clip_high": 0.1},
}
CORRECTIONS = {
    "engine": {"old_logprobs": "engine"},
    "learner": {"old_logprobs": "learner"},
    **{
        kind: {"old_logprobs": "learner", "correction": kind, "low": 0.7, "high": 1.3}
        for kind in ("tis", "clamp", "icepop", "sequence_mask")
    },
}
RULES = [("max_variance", 2), ("max_variance", 3), ("shortest", 3), ("efficient", 2)]
KLS = [{}, *({"kl": 0.2, "kl_estimator": estimator} for estimator in ("k1", "k2", "k3"))]
ENTROPIES = [{}, {"entropy": 0.05}]


class Bigram(nn.Module):
    """A language model in float64: the logits of a token follow from the one before it."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.embedding = nn.Parameter(torch.randn(V, 6, generator=draw, dtype=torch.float64))
        self.head = nn.Parameter(0.3 * torch.randn(V, 6, generator=draw, dtype=torch.float64))

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.embedding[ids_BT] @ self.head.T


def prepared(cases: Sequence[Trajectory], recipe: Recipe) -> list[Row]:
    """What the package trains on: its own advantages and weights, all in one update."""

    def measure(parts: Sequence[Sequence[Row]], what: Sequence[str]) -> dict[str, np.ndarray]:
        said = {"logp": "old_logp", "ref_logp": "ref_logp"}
        return {str(index): np.array([getattr(item, said[name]) for name in what], np.float32) for index, item in enumerate(cases)}

    [rows] = prepare(case.groups(cases), recipe, measure).updates
    return rows


def loss_of(rows: Sequence[Row], cases: Sequence[Trajectory], recipe: Recipe, model: nn.Module) -> Loss:
    """rl.objective.loss of one micro-batch, [B, T] in float64, padded on the right."""
    T = max(len(row.ids) for row in rows)
    batch = {name: torch.zeros(len(rows), T, dtype=torch.float64) for name in ("logp", "entropy", "old_logp", "engine_logp", "ref_logp")}
    mask = torch.zeros(len(rows), T, dtype=torch.bool)
    for b, row in enumerate(rows):
        item, n = cases[int(row.id)], len(row.ids)
        ids = torch.tensor([*row.prompt_ids, *row.ids.tolist()])
        logp_TV = (model(ids[None])[0, len(row.prompt_ids) - 1 : -1] / recipe.sampler.temperature).log_softmax(-1)
        batch["logp"][b, :n] = logp_TV[torch.arange(n), ids[-n:]]
        batch["entropy"][b, :n] = -(logp_TV.exp() * logp_TV).sum(-1)
        behaviour = item.engine_logp if recipe.objective.old_logprobs == "engine" else item.old_logp
        for name, values in (("old_logp", behaviour), ("engine_logp", row.engine_logp.tolist()), ("ref_logp", item.ref_logp)):
            batch[name][b, :n] = torch.tensor(values, dtype=torch.float64)
        mask[b, :n] = True
    per_row = {
        name: torch.tensor([[getattr(row, f"{name}_T")[0]] for row in rows], dtype=torch.float64) for name in ("advantage", "weight")
    }
    tokens = Tokens(**batch, **per_row, row=torch.arange(len(rows))[:, None], mask=mask)
    return loss(tokens, recipe.objective, recipe.objective.entropy.coef)


def ours(cases: Sequence[Trajectory], recipe: Recipe, model: nn.Module, micro_batch: int) -> tuple[float, Tensor]:
    """Loss and flat gradient of the package, accumulated over micro-batches of so many rows, longest first."""
    rows = sorted(prepared(cases, recipe), key=lambda row: -row.tokens)
    model.zero_grad()
    total = 0.0
    for start in range(0, len(rows), micro_batch):
        part, *_ = loss_of(rows[start : start + micro_batch], cases, recipe, model)
        part.backward()
        total += float(part.detach())
    return total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def theirs(cases: Sequence[Trajectory], settings: Settings, model: nn.Module) -> tuple[float, Tensor]:
    """Loss and flat gradient of the referee."""
    of_all = advantages(cases, settings)
    used = trained(cases, settings)
    total, gradient = loss_and_gradient(model, [cases[index] for index in used], [of_all[index] for index in used], settings)
    return total, torch.cat([gradient[name].flatten() for name, _ in model.named_parameters()])


def agree(settings: Settings, cases: Sequence[Trajectory], micro_batch: int, **sections: dict[str, object]) -> None:
    model = Bigram()
    their_loss, their_gradient = theirs(cases, settings, model)
    our_loss, our_gradient = ours(cases, case.recipe(settings, **sections), model, micro_batch)
    assert our_loss == pytest.approx(their_loss, rel=1e-6, abs=1e-9), settings
    assert (our_gradient - their_gradient).norm() <= 1e-6 * their_gradient.norm(), settings
    assert their_gradient.norm() > 0


# ------------------------------------------------------------------------------------------------------------ advantage


def advantage_grid() -> Iterator[Settings]:
    for centre, scale, ddof, boost in product(
        ["group", "leave_one_out"], ["none", "group", "batch", "batch_tokens", "batch_rewards"], [0, 1], [0.0, 0.1]
    ):
        if (centre, scale) != ("leave_one_out", "batch_rewards"):  # the schema refuses it
            yield Settings(centre=centre, scale=scale, ddof=ddof, boost=boost)


SELECTIONS = [("all", None, "drop"), *((*rule, others) for rule in RULES for others in ("drop", "zero"))]


@pytest.mark.parametrize(("rule", "keep", "others"), SELECTIONS)
def test_p01_every_estimator_agrees_with_the_referee(rule: str, keep: int | None, others: str):
    cases = case.trajectories(V)
    if keep is not None:
        cases = select(cases, rule, keep)
    for settings in advantage_grid():
        settings = replace(settings, others=others)
        rows = prepared(cases, case.recipe(settings, select={"kind": rule} | ({"keep": keep, "others": others} if keep else {})))
        expected = advantages(cases, settings)
        assert sorted(int(row.id) for row in rows) == trained(cases, settings)
        np.testing.assert_allclose(
            [row.advantage_T[0] for row in rows], [expected[int(row.id)] for row in rows], atol=1e-9, err_msg=str(settings)
        )


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("old_logprobs", ["engine", "learner"])
def test_p01_a_penalty_in_the_reward_agrees_with_the_referee(estimator: str, old_logprobs: str):
    settings = Settings(scale="batch", kl=0.05, kl_estimator=estimator, kl_in_reward=True, old_logprobs=old_logprobs)
    agree(settings, case.trajectories(V), 8)


# ---------------------------------------------------------------------------------------------------------------- loss


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_p01_every_objective_agrees_with_the_referee(surrogate: str, correction: str):
    """Every KL term and entropy bonus of it; aggregation and micro-batches change from one to the next, so that over all tests each
    aggregation meets each of them. Four groups of the set: the longest and the shortest rollout, and one group without spread."""
    cases = [item for item in case.trajectories(V) if item.group in (0, 1, 3, 6)]
    turn = list(SURROGATES).index(surrogate) + list(CORRECTIONS).index(correction)
    for index, (kl, entropy) in enumerate(product(KLS, ENTROPIES)):
        settings = Settings(scale="batch", **SURROGATES[surrogate], **CORRECTIONS[correction], **kl, **entropy)
        settings = replace(settings, aggregate=AGGREGATES[(turn + index + index // 4) % 4])
        agree(settings, cases, [1, 2, 4, 8, 16][(turn + index) % 5])


def test_p01_the_set_meets_every_case_that_the_formulas_tell_apart():
    """Or agreement would say little: lengths, clipping on both sides, the dual clip, correction weights outside both bounds, flat groups."""
    cases = case.trajectories(V)
    lengths = [len(item.ids) for item in cases]
    assert (len(cases), min(lengths), max(lengths)) == (32, 3, 97)
    of_all = np.array(advantages(cases, Settings(scale="batch")))
    assert (of_all > 0).sum() > 5 and (of_all < 0).sum() > 5 and (of_all == 0).sum() >= 8
    model, share = Bigram(), {}
    for name in ("clip", "dual_clip", "sequence_clip"):
        settings = Settings(scale="batch", **SURROGATES[name])
        _, stats, _ = loss_of(prepared(cases, case.recipe(settings)), cases, case.recipe(settings), model)
        share[name] = float(stats["clipped"] / stats["tokens"])
    assert 0.1 < share["clip"] < share["dual_clip"] < 0.9 and 0.1 < share["sequence_clip"] < 0.9
    for kind in ("tis", "clamp", "icepop", "sequence_mask"):
        weights = np.concatenate([correction_weights(item, Settings(**CORRECTIONS[kind])) for item in cases])
        raw = np.exp(np.concatenate([np.subtract(item.old_logp, item.engine_logp) for item in cases]))
        assert 0.1 < np.mean(~np.isclose(weights, raw)) < 0.9, kind


def test_p01_the_referee_imports_nothing_of_what_it_judges():
    imported = re.findall(r"^\s*(?:from|import) (\w+)", inspect.getsource(referee), re.MULTILINE)
    assert set(imported) == {"__future__", "collections", "dataclasses", "math", "torch"}


# ------------------------------------------------------------------------------------- the learner's own path, float32


def losses(rows: Sequence[Row], cut: Sequence[np.ndarray], cases: Sequence[Trajectory], recipe: Recipe, policy: Policy) -> Iterator[Tensor]:
    """Loss of each micro-batch as the learner computes it, with its backward pass done."""
    for indices in cut:
        batch = padded([rows[index] for index in indices], "cpu")
        own = [cases[int(rows[index].id)] for index in indices]
        logp, entropy = policy(*batch.inputs, 1)
        behaviour = [item.engine_logp if recipe.objective.old_logprobs == "engine" else item.old_logp for item in own]
        batch.old_logp, batch.ref_logp = (torch.tensor(list(chain(*values))) for values in (behaviour, [item.ref_logp for item in own]))
        part = loss(batch.tokens(logp, entropy), recipe.objective, recipe.objective.entropy.coef).total
        part.backward()
        yield part.detach()


def cuts(rows: Sequence[Row]) -> dict[str, list[np.ndarray]]:
    """Ways to cut 32 rows: by count, in any order, by padded tokens, and dealt to ranks."""
    given = np.arange(len(rows))
    tokens_B = np.array([row.tokens for row in rows])
    shuffled = np.random.default_rng(3).permutation(given)
    counted = {f"{size} rows each": np.array_split(given, len(rows) // size) for size in (1, 2, 4, 8, 32)}
    shared = {
        f"{ranks} ranks of {bound} tokens": list(chain(*micro_batches(tokens_B, bound, ranks)))
        for ranks, bound in ((1, 128), (1, 400), (2, 256), (3, 1000))
    }
    return {**counted, **shared, "shuffled": np.array_split(shuffled, 5)}


@pytest.mark.parametrize("method", case.METHODS)
def test_p01_padding_sorting_and_accumulation_change_nothing(tiny_checkpoint: Path, method: str):
    settings = case.METHODS[method]
    recipe = case.recipe(settings)
    policy = load_policy(tiny_checkpoint, torch.float32, settings.temperature, 64)
    exact = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float64)
    cases = case.trajectories(exact.config.vocab_size)
    of_all = advantages(cases, settings)
    expected_loss, expected = loss_and_gradient(exact, cases, of_all, settings)
    size = max(abs(value) for value in of_all)  # the loss is a sum that cancels: 1e-5 of what is added up
    rows = prepared(cases, recipe)
    for name, cut in list(cuts(rows).items())[:: 1 if method == "everything" else 4]:
        policy.zero_grad()
        total = sum(float(part) for part in losses(rows, cut, cases, recipe, policy))
        assert total == pytest.approx(expected_loss, rel=1e-5, abs=1e-6 * size), name
        norm = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
        for parameter, weights in policy.model.named_parameters():
            assert (weights.grad - expected[parameter]).norm() <= 1e-5 * norm, (name, parameter)
