"""P8, the logprob gate: five faults that engines have had must trip it, a clean engine must never."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM

from recipes.schema import Publish
from rl.algorithm import rows_of
from rl.gate import ROWS, GateError, check_gaps, drawn, drawn_samples
from rl.policy import Row, load_policy, padded
from rollout.records import rows
from rollout.reference_engine import ReferenceEngine, _draw
from rollout.types import FORCED, MODEL, RULE, Group, Problem, Request, Rollout, rollout_id
from tests.scripted import response

TEMPERATURE, TOLERANCE = 0.8, Publish().tolerance


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with weights large enough that its distributions are as peaked as a trained model's."""
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.randn_like(parameter) * 0.25)
    folder = tmp_path_factory.mktemp("peaked")
    model.save_pretrained(folder)
    return folder


def sampled(
    engine: ReferenceEngine, seed: int, temperature: float = TEMPERATURE, top_p: float = 1.0, tokens: int = 20, top_k: int = 0
) -> list[Row]:
    request = Request(str(seed), Problem("p", "", ""), tuple(range(5, 12)), 4, tokens, temperature, top_p, seed, top_k=top_k)
    [(_, completions)] = engine.advance([request], 0.0)
    return [
        Row(f"{seed}-{index}", np.asarray(request.prompt_ids, np.int32), completion.ids, completion.logprobs, 0.0)
        for index, completion in enumerate(completions)
    ]


def test_the_rows_that_are_compared_are_the_same_whether_taken_from_rollouts_or_from_what_is_kept_of_them():
    groups = []
    for place in range(40):
        asked = Request(f"r{place}", Problem(f"p{place}", "q", "1"), (1, place), 2, 40, 1.0, 1.0, place)
        done = [
            replace(response("1", 2 + place % 5), logprobs=np.linspace(-3, -1, len(response("1", 2 + place % 5).ids), dtype=np.float32))
        ] * 2
        done[1] = replace(done[1], sources=np.array([FORCED, RULE, *[MODEL] * (len(done[1].ids) - 2)], np.int8))
        groups.append(
            Group(asked, [Rollout(rollout_id(asked.id, asked.prompt_ids, index), index, one, "", None) for index, one in enumerate(done)])
        )
    table = rows(groups, 0, "t")
    prompts = pa.array([list(group.request.prompt_ids) for group in groups for _ in group.rollouts], pa.list_(pa.int32()))
    kept, wanted = drawn_samples(table.append_column("prompt_ids", prompts)), drawn(rows_of(groups))
    assert [row.id for row in kept] == [row.id for row in wanted] and len(kept) == 64
    for one, other in zip(kept, wanted, strict=True):
        for name in ("prompt_ids", "ids", "engine_logp", "own_T"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def learner_moments(checkpoint: Path, rows: list[Row]) -> dict[str, np.ndarray]:
    policy = load_policy(checkpoint, torch.float32, TEMPERATURE, 64)
    tensors = padded(rows, "cpu")
    with torch.no_grad():
        moments_3N = torch.stack(policy(*tensors.inputs, spread=True)).numpy()
    ends = np.cumsum([len(row.ids) for row in rows])[:-1]
    return {row.id: part for row, part in zip(rows, np.split(moments_3N, ends, axis=1), strict=True)}


def certain(logp: np.ndarray) -> np.ndarray:
    """Moments of tokens that come as often as their logprobs say."""
    return np.stack([logp, -logp, np.ones_like(logp)])


def engine(checkpoint: Path) -> ReferenceEngine:
    return ReferenceEngine(checkpoint, "fp32", "cpu", (1,))


def no_temperature(checkpoint: Path) -> list[Row]:
    """Logprobs of the raw logits, as engines give them unless asked for processed ones."""
    rows = sampled(engine(checkpoint), 0)
    raw = engine(checkpoint).score([[*row.prompt_ids, *row.ids] for row in rows])
    return [Row(r.id, r.prompt_ids, r.ids, logp[len(r.prompt_ids) - 1 :], 0.0) for r, logp in zip(rows, raw, strict=True)]


def shifted_by_one(checkpoint: Path) -> list[Row]:
    return [Row(r.id, r.prompt_ids, r.ids, np.roll(r.engine_logp, 1), 0.0) for r in sampled(engine(checkpoint), 0)]


def bf16_head(checkpoint: Path) -> list[Row]:
    broken = engine(checkpoint)
    head = broken._model.lm_head
    head.forward = lambda hidden: torch.nn.functional.linear(hidden.bfloat16(), head.weight.bfloat16()).float()
    return sampled(broken, 0)


def renormalised_top_p(checkpoint: Path) -> list[Row]:
    return sampled(engine(checkpoint), 0, top_p=0.9)


def renormalised_top_k(checkpoint: Path) -> list[Row]:
    return sampled(engine(checkpoint), 0, top_k=5)


def one_stale_layer(checkpoint: Path) -> list[Row]:
    broken = engine(checkpoint)
    with torch.no_grad():
        for parameter in broken._model.model.layers[1].parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.02)
    return sampled(broken, 0)


@pytest.mark.parametrize(
    "fault", [no_temperature, shifted_by_one, bf16_head, renormalised_top_p, renormalised_top_k, one_stale_layer], ids=lambda f: f.__name__
)
def test_p08_a_faulty_engine_trips_the_gate(checkpoint: Path, fault):
    rows = fault(checkpoint)
    with pytest.raises(GateError, match=r"publish\.tolerance"):
        check_gaps(rows, learner_moments(checkpoint, rows), TOLERANCE)


def test_p08_a_clean_engine_never_trips_it_in_200_runs(checkpoint: Path):
    clean, rows = engine(checkpoint), []
    for seed in range(200):
        rows.append(sampled(clean, seed, tokens=6))
    found = learner_moments(checkpoint, [row for run in rows for row in run])
    for run in rows:
        assert check_gaps(run, found, TOLERANCE)["gate/mean"] < TOLERANCE / 10


def row(name: str, engine_logp: list[float]) -> Row:
    return Row(name, np.zeros(1, np.int32), np.zeros(len(engine_logp), np.int32), np.array(engine_logp, np.float32), 0.0)


def test_gaps_are_reported_by_position_and_one_bad_stretch_is_enough():
    long = row("a", [-1.0] * 300)
    learner = np.full(300, -1.0, np.float32)
    learner[280:] -= 0.01  # 20 of 300 tokens: a mean of 7e-4 hides them
    with pytest.raises(GateError, match="gate/from_256"):
        check_gaps([long], {"a": certain(learner)}, 1e-3)
    metrics = check_gaps([long, row("b", [-1.0])], {"a": certain(learner), "b": certain(np.array([-1.1], np.float32))}, 0.1)
    assert metrics["gate/from_256"] == pytest.approx(20 * 0.01 / 44, rel=1e-3)
    assert metrics["gate/from_64"] == 0 and metrics["gate/from_0"] == pytest.approx(0.1 / 65, rel=1e-3)
    assert metrics["gate/mean"] == pytest.approx(0.3 / 301, rel=1e-3) and metrics["gate/p99"] == pytest.approx(0.01, rel=1e-3)
    assert "gate/from_1024" not in metrics


def test_a_handful_of_tokens_at_a_far_position_is_no_mean_and_16_are():
    for more in (15, 16):
        learner = np.full(256 + more, -1.0, np.float32)
        learner[256:] -= 0.01
        far, found = row("a", [-1.0] * (256 + more)), {"a": certain(learner)}
        assert ("gate/from_256" in check_gaps([far], found, 0.1)) == (more == 16)
    with pytest.raises(GateError, match="gate/from_256"):
        check_gaps([far], found, 1e-3)


def test_positions_are_counted_in_the_response_also_behind_what_the_engine_put_there():
    far = replace(row("a", [-1.0] * 280), own_T=np.arange(280) >= 260)
    metrics = check_gaps([far], {"a": certain(np.full(280, -1.0, np.float32))}, 1e-3)
    assert "gate/from_256" in metrics and "gate/from_0" not in metrics


def test_a_gap_that_is_no_number_trips_the_gate_and_nothing_sampled_does_not():
    with pytest.raises(GateError, match="rollout b: the learner's logprob of token 1 is nan"):
        check_gaps(
            [row("a", [-1.0]), row("b", [-1.0, -2.0])], {"a": certain(np.array([-1.0])), "b": certain(np.array([-1.0, np.nan]))}, 1.0
        )
    with pytest.raises(GateError, match="rollout a: the learner's logprob of token 0 is -inf: its weights are broken"):
        check_gaps([row("a", [-1.0])], {"a": certain(np.array([-np.inf]))}, 1.0)
    with pytest.raises(GateError, match="gate/mean nan"):
        check_gaps([row("a", [np.nan])], {"a": certain(np.array([-1.0]))}, 1.0)
    forced = replace(row("a", [-1.0, -1.0]), own_T=np.array([False, True]))  # the engine's own tokens may be what the learner never says
    assert check_gaps([forced], {"a": certain(np.array([-np.inf, -1.0]))}, 1e-3)["gate/mean"] == 0
    assert check_gaps([], {}, 1e-3) == check_gaps([replace(forced, own_T=np.zeros(2, bool))], {"a": certain(np.ones(2))}, 1e-3) == {}


def test_the_gate_asks_for_64_rows_and_the_same_ones_in_any_order():
    rows = [row(f"{(7 * index) % 100:02d}", [-1.0]) for index in range(100)]
    assert [one.id for one in drawn(rows)] == [f"{index:02d}" for index in range(ROWS)] == [one.id for one in drawn(rows[::-1])]
    assert drawn(rows[:3]) == sorted(rows[:3], key=lambda one: one.id)


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [(0, 1.0, [0.4, 0.3, 0.2, 0.1]), (2, 1.0, [4 / 7, 3 / 7]), (9, 1.0, [0.4, 0.3, 0.2, 0.1]), (2, 0.5, [1.0]), (3, 0.75, [4 / 7, 3 / 7])],
)
def test_top_k_is_taken_first_and_top_p_of_what_it_leaves(top_k: int, top_p: float, kept: list[float]):  # as vLLM has it
    request = Request("r", Problem("p", "", ""), (1,), 400, 1, 1.0, top_p, 0, top_k=top_k)
    logits_GV = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().repeat(400, 1)
    token_G, logprob_G = _draw(logits_GV, request, torch.Generator().manual_seed(0))
    assert set(token_G.tolist()) == set(range(len(kept)))
    torch.testing.assert_close(logprob_G.exp(), torch.tensor(kept)[token_G])
