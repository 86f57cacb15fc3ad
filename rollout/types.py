"""What travels from the sampler to the learner: problems, rollouts and groups.

A rollout carries everything that was decided while sampling; nothing is derived from text again. The group (all
rollouts of one prompt) is the unit of sampling, judging, filtering, staleness and refill.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from rewards.redundant import Thought
from rewards.verifier.verdict import Verdict

Finish = Literal["stop", "length", "abort", "stopped"]
# Where a token of a completion comes from: sampled; put there by the engine (an end of thinking, say); or begun with by a rule of known probability.
MODEL, FORCED, RULE = 0, 1, 2


@dataclass(frozen=True)
class Problem:
    """One question. `id` is stable: it names the source, its revision and the row.

    Attributes:
        answer: the gold; the first of several.
        others: further golds, any of which will do as well.
        system: what a system turn of the data says, "" for none.
        repeats: rows of an evaluation that ask just this; each adds its samples.
        columns: the data's own row, where reward functions read it.
    """

    id: str
    text: str
    answer: str
    family: str = ""
    level: int = 0
    others: tuple[str, ...] = ()
    system: str = ""
    repeats: int = 1
    columns: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def golds(self) -> tuple[str, ...]:
        return (self.answer, *self.others)


class Short(NamedTuple):
    """Chains of a prompt that start together, of which only the first to think to the end may answer (rollout/short).

    Attributes:
        first: so many answer, the others are stopped.
        of: so many start together; a request's group holds one such set behind the other.
        close: ids of the mark that closes thinking, () where there is none.
    """

    first: int
    of: int
    close: tuple[int, ...] = ()


class Wait(NamedTuple):
    """Thinking that would end is told to go on (rollout/closing).

    Attributes:
        times: at most so often.
        ids: of what is put in the place of the mark that closes thinking.
    """

    times: int
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Request:
    """A prompt that waits for its group. `seed` is its own, so a retry samples the same (reference engine).

    `id` names the position in the data and the problem: a step that goes through a small file twice meets a problem twice.

    Attributes:
        max_tokens: where the engine stops.
        limit: what rewards and prompts speak of, tokens; 0 where nothing is rewarded.
        thinking_tokens: free tokens after which the engine closes thinking (rollout/thinking); None: it does not.
        closed: rollouts, the last of the group, that begin with the mark that closes thinking.
        logprobs: the engine reports those of sampled tokens, which costs it time.
        short: which chains of the group are stopped; None: none.
        top_k: likeliest tokens that are sampled from, before top_p; 0: all.
        wait: how thinking that ends before `thinking_tokens` goes on, which no engine does by itself; None: it does not.
    """

    id: str
    problem: Problem
    prompt_ids: tuple[int, ...]
    group_size: int
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    limit: int = 0
    thinking_tokens: int | None = None
    closed: int = 0
    logprobs: bool = True
    short: Short | None = None
    top_k: int = 0
    wait: Wait | None = None


class Counted(NamedTuple):
    """Lengths of an answer as a server counts them that hands out its text and no ids: tokens in all, and of thinking, None if it does not say."""

    tokens: int
    thinking: int | None


@dataclass(frozen=True)
class Completion:
    """What an engine returns for one sample.

    Attributes:
        ids: response token ids, int32 [T]; ends with the stop token if finish is "stop".
        logprobs: behaviour logprobs of `ids`, float32 [T], nats, of the distribution sampled from; [0] where the request asked for none.
        finish: "stop", "length", "abort" or "stopped". Never inferred from the length. An aborted answer is neither finished
            nor cut: it is not judged, wherever it goes, and so its group earns no reward and does not train. Nor is one judged that was stopped
            because others were shorter (`Request.short`): how long it would have been, nobody knows.
        versions: policy version that sampled each token, int32 [T].
        sources: where each token comes from, int8 [T]; None: all of them from the model.
        counted: lengths that count in place of those of `ids`, which are then its text's and were not sampled; None: `ids` are what counts.
        text: as others wrote it, without the end of turn, which a tokenizer's `ids` need not spell to the letter; None: what `ids` come to.
    """

    ids: np.ndarray
    logprobs: np.ndarray
    finish: Finish
    versions: np.ndarray
    sources: np.ndarray | None = None
    counted: Counted | None = None
    text: str | None = None

    @property
    def source_T(self) -> np.ndarray:
        """`sources`, written out, int8 [T]."""
        return np.full(len(self.ids), MODEL, np.int8) if self.sources is None else self.sources

    @property
    def sampled(self) -> np.ndarray:
        """Tokens that train and count as length, bool [T]: all that were not put there outside of any probability."""
        return self.source_T != FORCED

    @property
    def own(self) -> np.ndarray:
        """Tokens whose logprobs are the model's own, bool [T]."""
        return self.source_T == MODEL

    @property
    def budget_hit(self) -> bool:
        """Its thinking was closed by the engine."""
        return bool((self.source_T == FORCED).any())

    @property
    def cut(self) -> bool:
        """Ended by its limit: the one question that rewards, masks and metrics ask."""
        return self.finish == "length"

    def first(self, count: int) -> Completion:
        """Its first tokens, as if its limit had ended it there."""
        sources = None if self.sources is None else self.sources[:count]
        return Completion(self.ids[:count], self.logprobs[:count], "length", self.versions[:count], sources)


@dataclass
class Rollout:
    """A completion and all that was said of it.

    Attributes:
        id: hash of request id, prompt ids and sample index; checked at every join.
        text: decoded response for judges and people; training uses `completion.ids` only.
        answer_start: index of the first token behind the mark that closes thinking, None if it never closed (Template.answer_start).
        terms: reward by term, after weight and gate; `reward` is their sum.
        limit: length limit its reward was given under, tokens.
        ends: tokens of the completion, from its first on, that were rewarded and train; None: all.
        again: the verdict on these, where they were judged again.
        advantage: filled by rl/algorithm, 0 until then.
        by_token: what its tokens trained with, [T] by name (rl/algorithm); empty where it did not train.
        audit: what a second checker says of the answer, None if it was not asked or gave no verdict.
        extra: what reward functions logged of it, by column.
        thought: of a right answer, where its thinking has the gold already; None where the recipe's credit does not ask.
        score: by which it may be taken as the best of several, where whoever made it says one (`laconic import --score`).
        stated: the verdict on an answer stated without a box, None where there is a box or such answers were not read (`laconic eval --lenient`).
    """

    id: str
    sample: int
    completion: Completion
    text: str
    answer_start: int | None
    verdict: Verdict | None = None
    terms: dict[str, float] = field(default_factory=dict)
    reward: float = 0.0
    limit: int = 0
    ends: int | None = None
    again: Verdict | None = None
    advantage: float = 0.0
    audit: Literal["right", "wrong"] | None = None
    thought: Thought | None = None
    stated: Verdict | None = None
    score: float | None = None
    extra: dict[str, str] = field(default_factory=dict)
    by_token: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def tokens(self) -> int:
        """Sampled tokens, stop token included: the one ruler for length."""
        counted = self.completion.counted
        return int(self.completion.sampled.sum()) if counted is None else counted.tokens

    @property
    def think_tokens(self) -> int | None:
        """Of these, those up to and with the mark that closes thinking; None if it never closed, or nobody counted. Of thinking that was kept back, those that are told."""
        counted = self.completion.counted
        if self.answer_start is None:
            return (counted.thinking or None) if counted and self.text and self.completion.finish == "stop" else None
        return int(self.completion.sampled[: self.answer_start].sum()) if counted is None else counted.thinking or None

    @property
    def trains(self) -> np.ndarray:
        """Tokens that a loss may see, bool [T]: what the model sampled, of what was rewarded."""
        return self.completion.sampled & (
            np.arange(len(self.completion.ids)) < (len(self.completion.ids) if self.ends is None else self.ends)
        )

    @property
    def redundant(self) -> tuple[int, int] | None:
        """Half-open range of tokens that it thinks although it has the answer already (rewards/redundant); None: nothing, or nobody asked."""
        return self.thought.redundant if self.thought else None

    @property
    def right(self) -> bool:
        """Its answer as it was sampled, whatever its reward looked at."""
        return self.verdict is not None and self.verdict.status == "right"

    @property
    def right_as_rewarded(self) -> bool:
        """The answer in what was rewarded of it: what filter, advantages and credit go by."""
        verdict = self.again or self.verdict
        return verdict is not None and verdict.status == "right"


@dataclass
class Group:
    """All rollouts of one prompt.

    Attributes:
        logged: numbers that reward functions logged, by name.
        over: of each rollout, length / limit - 1 as the reward term `leash` saw them.
    """

    request: Request
    rollouts: list[Rollout]
    logged: dict[str, list[float]] = field(default_factory=dict)
    over: list[float] = field(default_factory=list)

    @property
    def problem(self) -> Problem:
        return self.request.problem


class Example(NamedTuple):
    """A prompt and what is to be answered to it, as token ids; `ids` ends with the token that ends the turn, unless it was cut."""

    prompt_ids: Sequence[int]
    ids: Sequence[int]


class Preference(NamedTuple):
    """A prompt with an answer and another that is worth less, as token ids."""

    prompt_ids: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]


def rollout_id(request_id: str, prompt_ids: tuple[int, ...], sample: int) -> str:
    """16 hex digits that no other place in the data, prompt or sample shares; a retry of the request has the same."""
    text = f"{request_id}\n{','.join(map(str, prompt_ids))}\n{sample}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
