"""P45, the sampler is honest: engines that do not sample from what they report trip the gate, honest ones never do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from rl.gate import GateError, check_gaps
from rl.policy import Row
from rollout import reference_engine
from rollout.honesty import check_rehearsal, dishonest, moments, rehearsal, rehearse, surprise
from rollout.reference_engine import ReferenceEngine
from rollout.types import Problem, Request
from tests.unit.test_gate import checkpoint as checkpoint
from tests.unit.test_gate import learner_moments

TEMPERATURE, TOLERANCE = 0.8, 1e-3
Draw = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def sampled(engine: ReferenceEngine, seed: int, group: int = 64, tokens: int = 40) -> list[Row]:
    request = Request(str(seed), Problem("p", "", ""), tuple(range(5, 12)), group, tokens, TEMPERATURE, 1.0, seed)
    [(_, completions)] = engine.advance([request], 0.0)
    prompt = np.asarray(request.prompt_ids, np.int32)
    return [Row(f"{seed}-{index}", prompt, one.ids, one.logprobs, 0.0) for index, one in enumerate(completions)]


def chosen_otherwise(choose: Callable[[torch.Tensor, torch.Generator], torch.Tensor]) -> Draw:
    """A sampler that reports the right logprobs of tokens that it chose in its own way."""

    def draw(logits_GV: torch.Tensor, request: Request, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        logprobs_GV = (logits_GV / request.temperature).log_softmax(-1)
        token_G = choose(logprobs_GV, generator)
        return token_G, logprobs_GV.gather(1, token_G[:, None])[:, 0]

    return draw


def colder(logprobs_GV: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.multinomial((logprobs_GV / 0.9).softmax(-1), 1, generator=generator)[:, 0]


def hotter(logprobs_GV: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.multinomial((logprobs_GV / 1.1).softmax(-1), 1, generator=generator)[:, 0]


def top_k(logprobs_GV: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    best = logprobs_GV.topk(5, dim=-1)
    return best.indices.gather(1, torch.multinomial(best.values.softmax(-1), 1, generator=generator))[:, 0]


def stale_draft(logprobs_GV: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of the tokens come from a draft that knows other weights and are never checked."""
    noise = torch.randn(logprobs_GV.shape, generator=generator)
    use = torch.rand(len(logprobs_GV), generator=generator) < 0.5
    return torch.where(use, hotter(logprobs_GV + noise, generator), torch.multinomial(logprobs_GV.exp(), 1, generator=generator)[:, 0])


def broken_rejection(logprobs_GV: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A draft of uniform tokens; each is accepted with its probability, and what is refused is replaced by another draft."""
    first, second = (torch.randint(0, logprobs_GV.shape[1], (len(logprobs_GV),), generator=generator) for _ in range(2))
    accepted = torch.rand(len(logprobs_GV), generator=generator).log() < logprobs_GV.gather(1, first[:, None])[:, 0]
    return torch.where(accepted, first, second)


@pytest.mark.parametrize("choose", [colder, hotter, top_k, stale_draft, broken_rejection], ids=lambda choose: choose.__name__)
def test_p45_a_sampler_that_chooses_otherwise_than_it_says_trips_within_4000_tokens(
    checkpoint: Path, choose: Callable[[torch.Tensor, torch.Generator], torch.Tensor], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reference_engine, "_draw", chosen_otherwise(choose))
    rows = sampled(ReferenceEngine(checkpoint, "fp32", "cpu", ()), 0, group=100)
    assert sum(len(row.ids) for row in rows) == 4000
    with pytest.raises(GateError, match=r"not drawn from the probabilities that belong to them.*z -?\d+, 4000 tokens"):
        check_gaps(rows, learner_moments(checkpoint, rows), TOLERANCE)


def test_p45_200_honest_runs_do_not_and_their_scores_are_standard(checkpoint: Path):
    engine = ReferenceEngine(checkpoint, "fp32", "cpu", ())
    runs = [sampled(engine, seed, group=16, tokens=10) for seed in range(200)]
    found = learner_moments(checkpoint, [row for run in runs for row in run])
    z_R = np.array([check_gaps(run, found, TOLERANCE)["gate/surprise_z"] for run in runs], float)
    assert np.abs(z_R).max() < 4.5 and abs(z_R.mean()) < 0.3 and 0.85 < z_R.std() < 1.15


def test_p45_a_model_that_is_nearly_sure_does_not_trip_for_the_rare_token_that_did_not_come():
    # 1,000 tokens of probability 0.999: each 0.0069 nats less surprising than its entropy; the variance is that of the rare one.
    p = np.array([0.999, 0.001])
    logp_NV = np.log(np.tile(p, (1000, 1)))
    sure = moments(logp_NV, np.zeros(1000, int))
    mean, z = surprise(*sure)
    assert mean == pytest.approx(-0.0069, abs=1e-4) and z == pytest.approx(-1.0, abs=0.01)
    assert dishonest(*sure, 1e-3) == ""
    # and where it came as often as it should, one in a thousand
    assert surprise(*moments(logp_NV, np.arange(1000) // 999))[1] == pytest.approx(0.0, abs=0.01)


def test_p45_a_token_of_one_in_a_million_is_no_lie_and_ten_of_them_are():
    # 6,400 tokens as a trained tiny reasoner's: the rare one, should it come, is 12 standard errors away in a normal distribution's eyes.
    logp_NV = np.log(np.tile([1 - 1e-6, 1e-6], (6400, 1)))
    for count, lies in ((0, False), (1, False), (2, False), (20, True)):
        found = moments(logp_NV, (np.arange(6400) < count).astype(int))
        assert bool(dishonest(*found, 1e-3)) is lies
    assert surprise(*moments(logp_NV, (np.arange(6400) < 1).astype(int)))[1] > 12


def test_p45_a_broken_speculation_is_seen_in_the_64_tokens_that_a_large_vocabulary_allows():
    rng = np.random.default_rng(0)
    logp_NV = np.log(rng.dirichlet(np.full(1000, 0.002), 64).clip(1e-9))
    logp_NV -= np.logaddexp.reduce(logp_NV, axis=1, keepdims=True)
    drawn = (np.exp(logp_NV).cumsum(axis=1) > rng.random((64, 1))).argmax(axis=1)
    assert dishonest(*moments(logp_NV, drawn), 1e-3) == ""
    drawn[::3] = rng.integers(0, 1000, 22)  # a third are the draft's
    assert "64 tokens" in dishonest(*moments(logp_NV, drawn), 1e-3)


@pytest.mark.parametrize(("tokens", "share"), [(180, 0.2), (640, 0.1), (2400, 0.05), (5000, 0.02)])
def test_p45_a_few_tokens_that_should_not_have_come_are_seen_among_many_and_honest_ones_are_never(tokens: int, share: float):
    # Distributions as wide as a small model's (entropy 3 nats, variance 4): tokens of a draft are 10 nats too surprising.
    rng = np.random.default_rng(0)
    logp_NV = 3.5 * rng.normal(size=(tokens, 1000))
    logp_NV -= np.logaddexp.reduce(logp_NV, axis=1, keepdims=True)
    cumulated_NV = np.exp(logp_NV).cumsum(axis=1)
    for _ in range(50):  # with the other sizes, 200 honest runs
        drawn = np.minimum((cumulated_NV > rng.random((tokens, 1))).argmax(axis=1), 999)
        found = moments(logp_NV, drawn)
        assert dishonest(*found, 1e-3) == ""
    drafted = rng.random(tokens) < share
    logp, entropy, variance = found
    assert "not drawn from" in dishonest(np.where(drafted, -entropy - 10, logp), entropy, variance, 1e-3)


@pytest.mark.parametrize("sign", [1, -1])
def test_p45_six_standard_errors_are_a_lie_unless_they_are_a_tenth_of_what_logprobs_may_be_off(sign: int):
    # 10,000 tokens of entropy 1 and variance 1: 0.055 and 0.07 nats are 5.5 and 7 standard errors. Cut at 5 nats, -log of the bound is
    # 400 h(0.275) = 13.9 and 400 h(0.35) = 22.1, on either side of 6^2 / 2 = 18.
    def said(excess: float, tolerance: float) -> str:
        return dishonest(np.full(10_000, -1 - sign * excess), np.ones(10_000), np.ones(10_000), tolerance)

    assert said(0.055, 1e-3) == said(0.07, 0.71) == ""
    assert "0.07 nats a token " + ("above" if sign > 0 else "below") in said(0.07, 1e-3) and said(0.07, 0.69)


def test_moments_by_hand():
    # p = 1/2, 1/4, 1/4: entropy 1.5 ln 2; logp is -ln 2 or -2 ln 2, each half of the time: variance (ln 2 / 2)^2
    logp_NV = np.log(np.array([[0.5, 0.25, 0.25]]))
    np.testing.assert_allclose(moments(logp_NV, np.array([1]))[:, 0], [-2 * np.log(2), 1.5 * np.log(2), (np.log(2) / 2) ** 2])
    np.testing.assert_allclose(moments(np.array([[0.0, -np.inf]]), np.array([0]))[:, 0], [0, 0, 0])  # certain


def test_a_certain_sampler_has_no_surprise_unless_it_does_what_cannot_be():
    assert surprise(np.zeros(9), np.zeros(9), np.zeros(9)) == (0.0, 0.0)
    assert surprise(np.full(9, -5.0), np.zeros(9), np.zeros(9)) == (5.0, np.inf)


class Numberless(ReferenceEngine):
    def advance(self, requests: Sequence[Request], seconds: float):
        done = super().advance(requests, seconds)
        for _, completions in done:
            completions[0].logprobs[3] = np.nan
        return done


class Raw(ReferenceEngine):
    def advance(self, requests: Sequence[Request], seconds: float):
        done = super().advance(requests, seconds)
        for _, completions in done:
            for one in completions:
                one.logprobs[:] *= 0.8
        return done


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (ReferenceEngine, ""),
        (Numberless, "have a logprob that is no number"),
        (Raw, "not those it gives the same tokens afterwards: mean gap"),
    ],
)
def test_p45_an_engine_samples_and_scores_a_small_batch_at_its_start(checkpoint: Path, kind: type[ReferenceEngine], words: str):
    requests = rehearsal([list(range(5, 40)), list(range(6, 12)), list(range(5, 40))], 41, TEMPERATURE, 0)
    assert [request.prompt_ids for request in requests] == [(*range(32, 40),) * 2, (*range(6, 12),) * 2]  # the same end twice is one
    said = check_rehearsal(rehearse(kind(checkpoint, "fp32", "cpu", (1,)), requests), TOLERANCE)
    assert words in said and bool(said) == bool(words)


def test_p45_a_dishonest_engine_is_caught_at_its_start(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reference_engine, "_draw", chosen_otherwise(broken_rejection))
    requests = rehearsal([list(range(5, 40))], 41, 1.0, 0)
    assert "not drawn from the probabilities" in check_rehearsal(
        rehearse(ReferenceEngine(checkpoint, "fp32", "cpu", ()), requests), TOLERANCE
    )


def test_a_large_vocabulary_makes_a_small_rehearsal():
    requests = rehearsal([[index] * 30 for index in range(16)], 151_936, 1.0, 0)
    assert [(request.group_size, request.max_tokens, len(request.prompt_ids)) for request in requests] == [(1, 48, 16)] * 2


def test_the_head_and_numpy_agree_on_moments(checkpoint: Path):
    rows = sampled(ReferenceEngine(checkpoint, "fp32", "cpu", (1,)), 1, group=4)
    found = learner_moments(checkpoint, rows)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    for row in rows:
        with torch.no_grad():
            logits_TV = model(torch.tensor([[*row.prompt_ids, *row.ids]])).logits[0, len(row.prompt_ids) - 1 : -1] / TEMPERATURE
        np.testing.assert_allclose(found[row.id], moments(logits_TV.log_softmax(-1).double().numpy(), row.ids), atol=1e-4)
