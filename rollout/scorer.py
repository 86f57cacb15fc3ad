"""The scorer: completions in, rollouts with verdict, limit and reward out, while the engines go on sampling.

Claim: a reward lands on the rollout it was earned by: every rollout's id is a hash of request, prompt and sample, made
when its completion arrives and checked again when its verdict does.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace

import numpy as np

from recipes.budgets import OutlierBudget
from recipes.lengths import LeashTerm
from recipes.terms import RewardTerm
from rewards.functions import Asked, TrainerState, columns
from rewards.profiles import dot_limit
from rewards.redundant import Thought, Words, thought
from rewards.terms import Facts, rewards
from rewards.verifier.judge import Judge
from rewards.verifier.verdict import Verdict, best
from rollout.budget import Held, group_limit
from rollout.template import Template
from rollout.types import Completion, Finish, Group, Request, Rollout, rollout_id

_DEADLINE_S = 600.0


class RowMismatch(RuntimeError):
    """A verdict or a completion met a row that it does not belong to."""


@dataclass(frozen=True)
class Pending:
    """A group whose verdicts are being made: for each rollout its id and one verdict a gold, of which the best counts."""

    group: Group
    verdicts: list[tuple[str, list[Future[Verdict]]]]

    @property
    def done(self) -> bool:
        return all(future.done() for _, futures in self.verdicts for future in futures)


@dataclass(frozen=True)
class Scorer:
    """Judges and rewards groups. `terms` and `budget` may be left out where only verdicts matter (evaluation); `state` is for functions.

    `unit` is budget.limit as the recipe writes it (default: the request's limit). With `words` right answers are searched for what they think
    although they have the answer already. With `whole` a completion that was cut off has an answer only behind a closing mark of thinking, whether
    or not prompts open it (evaluations): what stands in an unfinished chain is a step.
    """

    judge: Judge
    template: Template
    terms: Sequence[RewardTerm] = ()
    budget: Held | None = None
    state: TrainerState = field(default_factory=TrainerState)
    unit: int = 0
    words: Words | None = None
    whole: bool = False

    def begin(self, request: Request, completions: Sequence[Completion]) -> Pending:
        """Make rollouts of completions and hand them to the judge.

        Raises:
            RowMismatch: not as many completions as the request asked for.
        """
        if len(completions) != request.group_size:
            raise RowMismatch(f"request {request.id} asked for {request.group_size} rollouts and got {len(completions)}")
        texts = [self.template.text(completion) for completion in completions]
        rollouts = [
            Rollout(
                id=rollout_id(request.id, request.prompt_ids, sample),
                sample=sample,
                completion=completion,
                text=texts[sample],
                answer_start=self.template.answer_start(completion.ids, texts[sample]),
            )
            for sample, completion in enumerate(completions)
        ]
        verdicts = [(rollout.id, self._asked(request, rollout.text, rollout.completion.finish)) for rollout in rollouts]
        return Pending(Group(request, rollouts), verdicts)

    def _asked(self, request: Request, text: str, finish: Finish) -> list[Future[Verdict]]:
        """What the judge will say of a text, by gold."""
        thinking, marks = self.template.opens_thinking(request.problem) or (self.whole and finish == "length"), self.template.marks
        return [self.judge.submit(gold=gold, text=text, finish=finish, thinking=thinking, marks=marks) for gold in request.problem.golds]

    def finish(self, pending: Pending) -> Group:
        """Wait for the verdicts and reward the group. A group with an answer that could not be judged gets no rewards.

        Raises:
            RowMismatch: a verdict's id is not its rollout's.
        """
        group = pending.group
        for rollout, (id_, futures) in zip(group.rollouts, pending.verdicts, strict=True):
            expected = rollout_id(group.request.id, group.request.prompt_ids, rollout.sample)
            if not rollout.id == id_ == expected:
                raise RowMismatch(f"verdict of rollout {id_} met rollout {rollout.id} of problem {group.problem.id} (expected {expected})")
            rollout.verdict = _said(futures)
            if self.words is not None and rollout.right:
                rollout.thought = self._thought(group, rollout, self.words)
        if self.budget is not None and judged(group):
            self._reward(group, self.budget)
        return group

    def _thought(self, group: Group, rollout: Rollout, words: Words) -> Thought:
        if rollout.answer_start is None:
            return Thought()
        ids = rollout.completion.ids
        closing = self.template.closing_start(ids, rollout.answer_start)
        return thought(ids[:closing].tolist(), group.problem.golds, words, self.template.tokenizer.decode)

    def audit(self, groups: Sequence[Group], count: int) -> dict[str, int]:
        """Ask a second checker about up to `count` compared answers, drawn by rollout id (a hash), and write what it says on them.

        Returns:
            audit/rows: answers both gave a verdict on; audit/right_only_here, audit/right_only_there: where they disagree.
        """
        compared = sorted(
            ((rollout, group.problem.golds, verdict) for group in groups for rollout in group.rollouts if (verdict := rollout.verdict)),
            key=lambda item: item[0].id,
        )
        drawn = [item for item in compared if item[2].status != "not_judged" and item[2].extracted is not None][:count]
        asked = [[self.judge.audit(gold=gold, answer=verdict.extracted or "") for gold in golds] for _, golds, verdict in drawn]
        found = dict.fromkeys(("audit/rows", "audit/right_only_here", "audit/right_only_there"), 0)
        for (rollout, _, verdict), futures in zip(drawn, asked, strict=True):
            said = _said(futures).status
            if said == "not_judged":
                continue
            rollout.audit = said
            found["audit/rows"] += 1
            if said != verdict.status:
                found["audit/right_only_here" if rollout.right else "audit/right_only_there"] += 1
        return found

    def _outliers_cut(self, group: Group, budget: OutlierBudget) -> list[Rollout]:
        """The rollouts as they are rewarded: outliers of an all-right group are cut and judged again by what is left of them (DOT, arXiv 2601.03969).

        A second verdict that cannot be made becomes the rollout's, so its group is not judged.
        """
        tokens_G, right_G = (np.array([getattr(rollout, name) for rollout in group.rollouts]) for name in ("tokens", "right"))
        limit = dot_limit(tokens_G, right_G, budget.alpha, budget.cut_tokens)
        rewarded = []
        for rollout in group.rollouts:
            if limit is None or rollout.tokens - limit < budget.cut_tokens:
                rewarded.append(rollout)
                continue
            rollout.ends = int(np.flatnonzero(rollout.completion.sampled)[limit - 1]) + 1
            kept = rollout.completion.first(rollout.ends)
            text = self.template.text(kept)
            start = self.template.answer_start(kept.ids, text)
            rollout.again = _said(self._asked(group.request, text, kept.finish))
            if rollout.again.status == "not_judged":
                rollout.verdict = rollout.again
            rewarded.append(replace(rollout, completion=kept, text=text, answer_start=start))
        return rewarded

    def _reward(self, group: Group, held: Held) -> None:
        outliers = held.budget.part(OutlierBudget)
        rollouts = self._outliers_cut(group, outliers) if outliers else group.rollouts
        if not judged(group):
            for rollout in group.rollouts:
                rollout.ends = rollout.again = None  # nothing was rewarded, nothing trains
            return
        tokens_G = np.array([rollout.tokens for rollout in rollouts])
        right_G = np.array([rollout.right_as_rewarded for rollout in rollouts])
        finished_G = np.array([not rollout.completion.cut for rollout in rollouts])
        opened = self.template.opens_thinking(group.problem)
        facts = Facts(
            right_G=right_G,
            finished_G=finished_G,
            tokens_G=tokens_G,
            thinking_G=np.array([thinking_tokens(rollout, opened or self.template.marks.open in rollout.text) for rollout in rollouts]),
            limit=group_limit(held, group.request.limit, tokens_G, right_G, finished_G),
            unit=self.unit or group.request.limit,
            asked=Asked(
                prompt=self.template.tokenizer.decode(list(group.request.prompt_ids)),
                messages=self.template.messages(group.problem, group.request.limit),
                completions=[rollout.text for rollout in rollouts],
                completion_ids=[rollout.completion.ids.tolist() for rollout in rollouts],
                columns=columns(group.problem.columns, problem=group.problem.text, answer=group.problem.answer, level=group.problem.level),
                state=self.state,
                ids=[rollout.id for rollout in group.rollouts],
                marks=self.template.marks,
            ),
        )
        terms = rewards(self.terms, facts)
        group.logged = facts.asked.logged.metrics
        group.over = [over for term in self.terms if isinstance(term, LeashTerm) for over in facts.lengths(term.of) / facts.limit - 1]
        for index, rollout in enumerate(group.rollouts):
            rollout.limit = facts.limit if rollout.ends is None else rollouts[index].tokens
            rollout.extra = {column: values[index] for column, values in facts.asked.logged.extra.items()}
            rollout.terms = {name: float(value_G[index]) for name, value_G in terms.items()}
            rollout.reward = sum(rollout.terms.values())


def _said(futures: Sequence[Future[Verdict]]) -> Verdict:
    """The best verdict of those by gold, once all are there."""
    try:
        return best([future.result(timeout=_DEADLINE_S) for future in futures])
    except FutureTimeout:
        return Verdict("not_judged", "timeout")


def thinking_tokens(rollout: Rollout, thinks: bool) -> int:
    """Sampled tokens of its thinking, the closing mark included: all where that never came, none where the rollout does not think."""
    if rollout.answer_start is None:
        return rollout.tokens if thinks else 0
    return int(rollout.completion.sampled[: rollout.answer_start].sum())


def judged(group: Group) -> bool:
    """Whether every rollout of the group has a verdict of right or wrong."""
    return all(rollout.verdict is not None and rollout.verdict.status != "not_judged" for rollout in group.rollouts)
