"""Chains that are stopped when enough have thought to the end: who wins, what it costs, and that running them says what stored samples say."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.attempts import of_samples, short_m, voted
from evaluation.evaluate import Asked, evaluate, requests
from evaluation.measured import of_table
from evaluation.results import Evaluation, Settings, ShortOf
from evaluation.scores import score
from rewards.verifier.judge import Judge
from rollout.records import rows
from rollout.reference_engine import ReferenceEngine
from rollout.scorer import Scorer
from rollout.short import Chains
from rollout.types import Completion, Problem, Request, Short
from tests.scripted import CLOSE, STOP, ScriptedPool, response, template
from tests.unit.test_scores import make_group


def asked(first: int, of: int, sets: int = 1, close: tuple[int, ...] = (CLOSE,)) -> Request:
    return Request("r", Problem("p", "q", "1"), (1,), of * sets, 99, 1.0, 1.0, 0, short=Short(first, of, close))


def stepped(chains: Chains, lengths: Sequence[int], steps: int) -> list[int]:
    """Chains that think for so many tokens, the mark included, a token at a time; those that lost."""
    lost: list[int] = []
    for step in range(1, steps + 1):
        for chain, length in enumerate(lengths):
            if chain not in lost:
                chains.take(chain, [CLOSE if step == length else 9])
        lost += chains.stop()
    return sorted(lost)


def test_the_shortest_win_and_the_others_have_spent_what_the_last_of_them_did() -> None:  # B1: winners 5, 9, 12; spent 5, 9, 12, 12, 12
    chains = Chains(asked(3, 5))
    assert stepped(chains, [40, 9, 60, 5, 12], 12) == [0, 2]
    assert [len(one.ids) for one in chains.completions(0)] == [12] * 5
    assert chains.finish == ["stopped", None, "stopped", None, None] and not chains.done


def test_a_set_is_decided_while_its_winners_still_answer() -> None:
    chains = Chains(asked(2, 3))
    chains.take(0, [9] * 4 + [CLOSE] + [8] * 2 + [CLOSE])  # a second mark is of its answer
    chains.take(1, [9] * 8 + [CLOSE])
    chains.take(2, [9] * 8)
    assert chains.stop() == [] and [one.finish for one in chains.completions(0)] == ["abort"] * 3
    chains.take(2, [9])
    assert chains.stop() == [2] and chains.finish == [None, None, "stopped"]
    chains = Chains(asked(1, 2))
    chains.take(0, [9] * 4 + [CLOSE] + [8] * 9 + [CLOSE])
    chains.take(1, [9] * 7)
    assert chains.stop() == [1]  # which has thought for longer than the other did


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_who_wins_does_not_depend_on_who_is_sampled_when(data: st.DataObject) -> None:
    of = data.draw(st.integers(2, 6))
    first, lengths = data.draw(st.integers(1, of)), data.draw(st.lists(st.integers(1, 12), min_size=of, max_size=of))
    never = data.draw(st.sets(st.integers(0, of - 1), max_size=of))  # cut before they have thought to the end
    turns = random.Random(data.draw(st.integers(0, 999)))
    whole = [[9] * 13 if chain in never else [9] * (length - 1) + [CLOSE] + [8] * 3 for chain, length in enumerate(lengths)]
    chains, at = Chains(asked(first, of)), [0] * of
    while not chains.done:
        chain = turns.choice([place for place in range(of) if chains.finish[place] is None])
        count = turns.randint(1, 5)
        piece, at[chain] = whole[chain][at[chain] : at[chain] + count], at[chain] + count
        ended = at[chain] >= len(whole[chain])
        chains.take(chain, piece, finish=("length" if chain in never else "stop") if ended else None)
        chains.stop()
    ranked = sorted((length, chain) for chain, length in enumerate(lengths) if chain not in never)[:first]
    stopped = set(range(of)) - {chain for _, chain in ranked} if len(ranked) == first else set()
    assert {chain for chain in range(of) if chains.finish[chain] == "stopped"} == stopped


def test_sets_of_chains_are_decided_apart_and_a_mark_of_several_tokens_is_seen() -> None:
    chains = Chains(asked(1, 2, sets=2, close=(7, 8)))
    for chain, ids in enumerate(([7, 7, 8], [9, 7, 9], [8, 7, 9], [9, 9, 9])):
        chains.take(chain, ids)
    assert chains.stop() == [1] and chains.stop() == []


def test_without_marks_a_chain_has_thought_when_it_ends_by_itself() -> None:
    chains = Chains(asked(1, 3, close=()))
    chains.take(0, [CLOSE, CLOSE, 9])
    chains.take(1, [9, 9], finish="stop")
    chains.take(2, [9], finish="length")
    assert chains.stop() == [0, 2]


def test_rollouts_that_are_no_whole_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="r: 5 rollouts are no sets"):
        Chains(Request("r", Problem("p", "q", "1"), (1,), 5, 99, 1.0, 1.0, 0, short=Short(1, 2)))


# a model that thinks for a random number of tokens and says 1, 2 or 3, in the reference engine


class Markov:
    """Logits by the last token: t goes on or closes, then \\boxed{1}, \\boxed{2} or \\boxed{3}, and the end."""

    def __init__(self, config: Any):
        self.config = config
        self._logits_VV = torch.full((256, 256), -torch.inf)
        said = [CLOSE, *map(ord, "\\boxed{")]
        for last, following in [*pairwise(said), *((ord(digit), ord("}")) for digit in "123"), (ord("}"), STOP)]:
            self._logits_VV[last, following] = 0
        self._logits_VV[ord("{"), [ord("1"), ord("2"), ord("3")]] = torch.tensor([0.6, 0.25, 0.15]).log()
        for last in (ord(">"), ord("t")):  # the prompt's end
            self._logits_VV[last, [ord("t"), CLOSE]] = torch.tensor([0.9, 0.1]).log()
        self._logits_VV[STOP, STOP] = 0

    def __call__(self, input_GT: torch.Tensor, **_: Any) -> Any:
        return SimpleNamespace(logits=self._logits_VV[input_GT[:, -1:]])


class LocalPool:
    """An engine in this process as a pool."""

    def __init__(self, engine: ReferenceEngine):
        self._engine, self._owed = engine, dict[str, Request]()

    def submit(self, requests: Sequence[Request]) -> None:
        self._engine._waiting += requests
        self._owed |= {request.id: request for request in requests}

    @property
    def outstanding(self) -> int:
        return len(self._owed)

    def ready(self, enough: Callable[[], bool] = lambda: False) -> list[tuple[Request, list[Completion]]]:
        return [(self._owed.pop(name), completions) for name, completions in self._engine.advance([], 0.0)]


@pytest.fixture
def pool(tiny_checkpoint: Path) -> LocalPool:
    engine = ReferenceEngine(tiny_checkpoint, "fp32", "cpu", [STOP])
    engine._model = Markov(engine._model.config)  # type: ignore[assignment]
    return LocalPool(engine)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(1, 3.0, 512) as judge:
        yield judge


def evaluation(folder: Path, budget: ShortOf | None, samples: int = 16, problems: int = 12, max_tokens: int = 32, **changes: Any) -> Asked:
    made = Settings(temperature=1.0, top_p=1.0, max_tokens=max_tokens, samples=samples, seed=3, template="digest", budget=budget, **changes)
    name = f"rows@{budget.name}" if budget else "rows"
    return Asked(
        folder / name, "model", 0, "rows", made, requests(name, [Problem(f"p{i}", f"q{i}", "1") for i in range(problems)], template(), made)
    )


@pytest.mark.parametrize(("first", "of"), [(1, 4), (3, 8), (2, 2), (3, 16)])
def test_running_chains_says_exactly_what_stored_samples_of_the_same_seeds_say(
    tmp_path: Path, judge: Judge, pool: LocalPool, first: int, of: int
) -> None:
    both = [evaluation(tmp_path, None), evaluation(tmp_path, ShortOf(first=first, of=of))]
    natural, short = (found for _, found in sorted(evaluate(both, pool, Scorer(judge, template())), key=lambda item: item[0] is both[1]))
    stored = of_table(pq.read_table(both[0].table))
    assert (stored.finish == "length").any() and (stored.finish == "stop").any()
    found = [
        short_m(one, first)
        for place in range(12)
        for start in range(0, 16, of)
        for one in of_samples(
            type(stored)(
                **{name: getattr(stored, name)[16 * place + start :][:of] for name in ("right", "wrong", "length", "thinking", "finish", "extracted")},
                ids=("set",), problem=np.zeros(of, int), ruler="",
            )
        )
    ]  # fmt: skip
    votes = 16 // of
    assert [row.right for row in short.per_problem] == [sum(one.right for one in found[i * votes : (i + 1) * votes]) for i in range(12)]
    assert {row.samples for row in short.per_problem} == {votes} and short.samples == votes and natural.samples == 16
    assert short.parallel is not None and short.parallel.votes == votes
    assert short.parallel.tokens == pytest.approx(np.mean([one.tokens for one in found]), rel=1e-12)
    assert short.parallel.time == pytest.approx(np.mean([one.time for one in found]), rel=1e-12)
    kept = of_table(pq.read_table(both[1].table))
    if first < of:
        assert kept.length.sum() < stored.length.sum() and short.parallel.stopped == pytest.approx((kept.finish == "stopped").mean())
    for index in range(len(kept.length)):  # what was sampled of each chain is the beginning of what it would have been
        assert kept.length[index] <= stored.length[index] and (
            kept.finish[index] == "stopped" or kept.length[index] == stored.length[index]
        )


def test_a_killed_evaluation_of_chains_goes_on_where_it_stopped(
    tmp_path: Path, judge: Judge, pool: LocalPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rollout.parts.PART_S", 0.0)
    killed, whole = (evaluation(tmp_path / name, ShortOf(first=2, of=4)) for name in ("killed", "whole"))

    def kill(done: int, rollouts: int) -> None:
        if done >= 5 * 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(evaluate([killed], pool, Scorer(judge, template()), kill))
    pool._owed.clear()
    pool._engine._waiting.clear()
    assert len(killed.parts.waiting()) == 7
    list(evaluate([killed], pool, Scorer(judge, template())))
    list(evaluate([whole], pool, Scorer(judge, template())))
    assert killed.scores.read_bytes() == whole.scores.read_bytes()
    assert pq.read_table(killed.table).equals(pq.read_table(whole.table))


def test_chains_that_were_stopped_are_no_samples_cut_and_no_lengths_of_answers(tmp_path: Path, judge: Judge, pool: LocalPool) -> None:
    one = evaluation(tmp_path, ShortOf(first=1, of=4), max_tokens=64)
    [(_, found)] = evaluate([one], pool, Scorer(judge, template()))
    table = pq.read_table(one.table)
    ends = table["finish"].to_pylist()
    assert ends.count("stopped") == 3 * len(ends) // 4 and (found.truncated, found.not_judged, found.no_answer) == (0, 0, 0)
    assert {reason for reason, end in zip(table["reason"].to_pylist(), ends, strict=True) if end == "stopped"} == {"stopped"}
    assert found.parallel is not None and found.parallel.stopped == 0.75
    answer = len("\\boxed{1}") + 1
    assert found.tokens.mean == pytest.approx(found.parallel.tokens + answer)  # of a vote: all its thinking, and the answer of its voter
    assert found.by_outcome["right"].answer == pytest.approx(answer) and found.by_outcome["truncated"].samples == 0
    assert Evaluation.model_validate_json(one.scores.read_bytes(), strict=True) == found.model_copy(update={"table": None})


def test_a_vote_of_unfinished_chains_is_cut_and_has_no_answer() -> None:
    group = make_group("a", [(6, "cut"), (6, "cut"), (4, "right"), (9, "wrong")])
    for rollout in group.rollouts[:2]:
        rollout.answer_start = None
    samples = of_table(rows([group], step=0, template="t"))
    made, parallel = voted(samples, 2, 2)
    assert made.finish.tolist() == ["length", "stop"] and made.right.tolist() == [False, True] and made.extracted[0] is None
    assert parallel.tokens == pytest.approx(np.mean([12, samples.thinking[2] + samples.thinking[3]]))
    with pytest.raises(ValueError, match="problem a: 4 samples are no whole sets of 3 chains"):
        voted(samples, 1, 3)


def test_a_problem_gets_as_many_votes_as_its_samples_hold_whole_sets_and_at_least_one(tmp_path: Path) -> None:
    for samples, of, size in ((16, 4, 16), (10, 4, 8), (3, 4, 4), (64, 8, 64)):
        one = evaluation(tmp_path, ShortOf(first=1, of=of), samples=samples, problems=1).requests[0]
        assert (one.group_size, one.short) == (size, Short(1, of, template().closer))


def test_votes_whose_voters_could_not_be_judged_are_not_judged(tmp_path: Path, judge: Judge) -> None:
    def answers(request: Request) -> list[Completion]:
        return [response("1", 2, "abort"), response("2", 3), response("1", 4), response("1", 9)]

    one = evaluation(tmp_path, ShortOf(first=2, of=2), samples=4, problems=1)
    [(_, found)] = evaluate([one], ScriptedPool(answers), Scorer(judge, template()))
    assert (found.accuracy.mean, found.not_judged) == (0.5, 0.5)
    assert found.parallel is not None and score(
        pq.read_table(one.table), checkpoint="model", step=0, source="rows", settings=one.settings
    ) == found.model_copy(update={"table": None, "asked": None})
