"""P39: every prompt is accounted for, and which rollouts train does not depend on how long they took. P16: one ruler for length."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from evaluation.results import Settings
from evaluation.scores import score
from recipes.schema import Recipe
from rewards.verifier.judge import Judge
from rl.algorithm import prepare
from rollout.budget import Held
from rollout.collector import Collector, PromptStream
from rollout.records import rows
from rollout.scorer import Scorer
from rollout.sources import Source
from rollout.types import Completion, Problem, Request
from tests.scripted import ScriptedPool, response, template

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(1, 3.0, 512) as judge:
        yield judge


def collector(pool: ScriptedPool, judge: Judge, prompts: int) -> tuple[Collector, PromptStream]:
    sampler = {"prompts": prompts, "group_size": 4, "max_refills": 3}
    recipe = Recipe.model_validate({"sampler": sampler, "budget": {"limit": 400}})
    stream = PromptStream(Source("numbers", lambda position: Problem(f"p{position}", f"q{position}", str(position))), template(), recipe)
    return Collector(pool, Scorer(judge, template()), stream), stream


class SlowIsLong(ScriptedPool):
    """Groups come back one by one, the shortest of those outstanding first, as they would from engines that run all at once."""

    def ready(self, enough=None):
        self._owed.sort(key=lambda request: max(len(completion.ids) for completion in self._script(request)))
        request = self._owed.pop(0)
        return [(request, self._script(request))]


def long_or_short(request: Request) -> list[Completion]:
    """Half right; lengths spread over two orders of magnitude, by problem; some groups teach nothing."""
    position = int(request.problem.answer)
    thought = int(np.exp(np.random.default_rng(position).uniform(0, 5)))
    right = {0: 0, 1: 4}.get(position % 5, 2)
    return [response(request.problem.answer if sample < right else "-1", thought) for sample in range(request.group_size)]


def test_p39_every_prompt_sampled_has_exactly_one_fate(judge: Judge):
    pool = SlowIsLong(long_or_short)
    steps, stream = collector(pool, judge, 20)
    for _ in range(4):
        before, seen = stream.position, len(pool.seen)
        collected = steps.next()
        metrics = collected.metrics
        fates = ("trained", "surplus", "all_right", "all_wrong", "flat", "not_judged")
        assert sum(metrics[f"groups/{fate}"] for fate in fates) == metrics["groups/sampled"] == len(collected.sampled)
        assert stream.position - before == len(pool.seen) - seen == metrics["groups/sampled"]
        trained = prepare(collected.groups, stream.recipe)
        assert sum(len(update) for update in trained.updates) == 4 * metrics["groups/trained"]
        assert metrics["groups/trained"] == 20


def test_p39_what_trains_is_as_long_as_what_the_stream_holds_though_slow_is_long(judge: Judge):
    pool = SlowIsLong(long_or_short)
    steps, stream = collector(pool, judge, 40)
    trained = [group for _ in range(6) for group in steps.next().groups]
    lengths = [rollout.tokens for group in trained for rollout in group.rollouts]
    teaching = [position for position in range(stream.position) if position % 5 > 1]
    stream_lengths = [len(completion.ids) for position in teaching for completion in _asked(position, stream)]
    assert ks_2samp(lengths, stream_lengths).pvalue > 0.05
    first = [sorted(teaching[start : start + 80], key=lambda position: len(_asked(position, stream)[0].ids))[:40] for start in (0, 80)]
    hurried = [len(completion.ids) for positions in first for position in positions for completion in _asked(position, stream)]
    assert ks_2samp(hurried, stream_lengths).pvalue < 1e-6  # training on those that finish first, and asking again for the rest, would fail


def _asked(position: int, stream) -> list[Completion]:
    problem = stream.source.at(position)
    return long_or_short(Request("r", problem, (1,), 4, 400, 1.0, 1.0, 0))


def test_p16_reward_learner_record_and_score_count_the_same_tokens(judge: Judge):
    """6 tokens of thought, the closing tag, 9 of answer and the stop token: 17 for everyone, and the limit holds to the token."""
    completions = [response(answer, 6) for answer in ("1", "2", "1", "2")]
    for limit, reward in ((17, 1.0), (16, 0.0)):
        recipe = Recipe.model_validate({"sampler": {"prompts": 1, "group_size": 4}, "budget": {"limit": limit}})
        asked = Request("0:p0", Problem("p0", "q", "1"), (1, 2), 4, limit, 1.0, 1.0, 0, limit)
        scorer = Scorer(judge, template(), recipe.reward, Held(recipe.budget))
        group = scorer.finish(scorer.begin(asked, completions))
        assert [rollout.tokens for rollout in group.rollouts] == [17] * 4
        assert [rollout.reward for rollout in group.rollouts] == [reward, 0.0, reward, 0.0]
        table = rows([group], 0, "digest").to_pylist()
        assert {(row["tokens"], row["think_tokens"], len(row["ids"]), len(row["logprobs"])) for row in table} == {(17, 7, 17, 17)}
        assert {len(row.ids) for row in prepare([group], recipe).updates[0]} == {17}
        scores = score(rows([group], 0, "digest"), checkpoint="c", step=0, source="s", settings=Settings(samples=4, max_tokens=17))
        assert scores.tokens.mean == 17 and scores.budget_curve[-1].accuracy == 0.5


def test_p16_no_module_measures_text():
    """Lengths are counted in ids: outside of judging (which bounds the text it parses), display and telling what a column holds, nothing asks how long a string is, or splits it into words."""
    shown = {
        "rollout/chats.py",
        "evaluation/words.py",
        "evaluation/examples.py",
        "evaluation/report.py",
        "evaluation/reader.py",
        "rollout/tiny/task.py",
    }
    shown |= {f"rewards/{path.name}" for path in (ROOT / "rewards").glob("*.py")} - {"rewards/terms.py"}
    texts = {"text", "texts", "completion", "completion_text", "completions_text", "response", "answer", "prompt", "string"}
    found = []
    for folder in ("rollout", "rewards", "rl", "evaluation"):
        for path in sorted((ROOT / folder).glob("*.py")):
            if f"{folder}/{path.name}" in shown:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                measured = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len" and node.args
                name = node.args[0] if measured else None
                last = name.id if isinstance(name, ast.Name) else name.attr if isinstance(name, ast.Attribute) else ""
                split = isinstance(name, ast.Call) and isinstance(name.func, ast.Attribute) and name.func.attr == "split"
                if last in texts or split:
                    found.append(f"{folder}/{path.name}:{node.lineno}")
    assert found == []
