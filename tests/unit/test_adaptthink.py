"""AdaptThink (arXiv 2505.13417): half of a group begins by closing its thinking, and its first tokens have the probability of the rule."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recipes.loader import load
from recipes.schema import Advantage, Recipe
from recipes.terms import NoThinkingTerm
from rewards.functions import Asked, TrainerState
from rewards.terms import Facts, rewards
from rewards.verifier.verdict import Verdict
from rl import algorithm, objective
from rl.advantage import advantages
from rl.gate import check_gaps
from rl.objective import Tokens
from rl.policy import Row
from rollout.collector import sampling_metrics
from rollout.reference_engine import ReferenceEngine
from rollout.scorer import thinking_tokens
from rollout.template import TemplateError, load_template
from rollout.thinking import ThinkIds, halves
from rollout.types import FORCED, MODEL, RULE, Completion, Group, Problem, Request, Rollout
from tests.unit.test_gate import certain
from tests.unit.test_gate import checkpoint as checkpoint
from tests.unit.test_thinking_budget import switched

OPEN, CLOSE, END = 5, 6, 1
THINK = ThinkIds((OPEN,), CLOSE)
HALF = np.float32(np.log(0.5))


def asked(**numbers: Any) -> Request:
    given = {"group_size": 8, "max_tokens": 20, "temperature": 1.0, "top_p": 1.0, "seed": 7, "closed": 4} | numbers
    return Request("r", Problem("p", "", "", columns={"reference_accuracy": 0.75}), (9, OPEN, 8), **given)


def sampled(checkpoint: Path, request: Request) -> list[Completion]:
    [(name, found)] = ReferenceEngine(checkpoint, "fp32", "cpu", (END,), THINK).advance([request], 0.0)
    assert name == request.id and len(found) == request.group_size
    return found


def test_the_last_half_of_a_group_begins_with_the_closing_mark_and_every_first_token_has_the_probability_of_its_half(checkpoint: Path):
    found = sampled(checkpoint, asked())
    assert [int(one.ids[0]) == CLOSE for one in found[4:]] == [True] * 4 and not all(int(one.ids[0]) == CLOSE for one in found[:4])
    for one in found:
        assert one.logprobs[0] == HALF and one.sources[0] == RULE and (one.sources[1:] == MODEL).all() and one.sampled.all()
        assert not one.budget_hit and one.own.tolist() == [False] + [True] * (len(one.ids) - 1)
        assert len(one.ids) == len(one.logprobs) == len(one.versions) <= 20 and (one.finish == "length") == (len(one.ids) == 20)
    free, shut = halves(asked(), THINK)
    assert shut.seed != free.seed == asked().seed  # the halves' samples have nothing in common
    assert [one.ids.tolist() for one in sampled(checkpoint, free)] == [one.ids.tolist() for one in found[:4]]
    assert [[CLOSE, *one.ids.tolist()] for one in sampled(checkpoint, shut)] == [one.ids.tolist() for one in found[4:]]


@pytest.mark.parametrize(("closed", "group_size"), [(1, 4), (6, 8)])
def test_another_share_has_its_own_probabilities(checkpoint: Path, closed: int, group_size: int):
    found = sampled(checkpoint, asked(closed=closed, group_size=group_size))
    share = closed / group_size
    expected = [np.log(1 - share)] * (group_size - closed) + [np.log(share)] * closed
    np.testing.assert_allclose([one.logprobs[0] for one in found], expected, rtol=1e-6)


def test_a_half_that_may_think_still_obeys_a_thinking_budget(checkpoint: Path):
    found = sampled(checkpoint, asked(thinking_tokens=3))
    hit = [one for one in found[:4] if one.budget_hit and OPEN not in one.ids]
    assert hit and all(one.sources[0] == RULE and one.sources[3] == FORCED and int(one.ids[3]) == CLOSE for one in hit)
    assert sampled(checkpoint, asked(thinking_tokens=0))[0].sources[0] == FORCED  # closed at once: forced stays forced


def rollout(sample: int, text: str, right: bool, ids: list[int]) -> Rollout:
    source_T = np.array([RULE] + [MODEL] * (len(ids) - 1), np.int8)
    logp_T = np.array([HALF] + [-0.3] * (len(ids) - 1), np.float32)
    completion = Completion(np.array(ids, np.int32), logp_T, "stop", np.zeros(len(ids), np.int32), source_T)
    verdict = Verdict("right" if right else "wrong", "integer")
    return Rollout(f"{sample}", sample, completion, text, 1 if text.startswith("</think>") else None, verdict)


def group() -> Group:
    """Right and wrong, without a thought and with one."""
    closed, thought = [CLOSE, 9, 9, END], [8, 9, 9, 9, CLOSE, 9, END]
    texts = "</think>\n\\boxed{4}", "3 + 1\n</think>\\boxed{4}", "</think>\\boxed{5}", "3\n</think>\\boxed{5}"
    rollouts = [rollout(0, texts[0], True, closed), rollout(1, texts[1], True, thought), rollout(2, texts[2], False, closed)]
    return Group(asked(group_size=4, closed=2), [*rollouts, rollout(3, texts[3], False, thought)])


def rewarded(recipe: Recipe) -> Group:
    made = group()
    tokens_G = np.array([one.tokens for one in made.rollouts])
    given = Asked("<think>\n", [], [one.text for one in made.rollouts], [], {}, TrainerState(0, 1), [one.id for one in made.rollouts])
    right_G = np.array([one.right for one in made.rollouts])
    terms = rewards(recipe.reward, Facts(right_G, np.ones(4, bool), tokens_G, tokens_G, 40, 40, given))
    for index, one in enumerate(made.rollouts):
        one.terms = {name: float(value_G[index]) for name, value_G in terms.items()}
        one.reward = sum(one.terms.values())
    return made


def adaptthink(*changes: str) -> Recipe:
    return load("adaptthink", "tiny", ["sampler.group_size=4", "sampler.prompts=1", *changes])


def test_adaptthink_by_hand():
    # reference right on 3 of 4: a right answer without thinking .3, with it .25, a wrong one without -.7; no statistic of the group
    made = rewarded(adaptthink())
    algorithm.prepare([made], adaptthink())
    np.testing.assert_allclose([one.advantage for one in made.rollouts], [0.3, 0.25, -0.7, -0.75])


def test_thinking_skipped_is_of_the_rollouts_that_are_free_to_think():
    made = (
        group()
    )  # the first of two free ones skips it by itself; of the half that has no choice one begins otherwise, which does not count
    assert sampling_metrics([made], Counter(), 1.0)["thinking/skipped"] == 0.5
    whole = Group(replace(made.request, closed=0), made.rollouts)
    assert "thinking/skipped" not in sampling_metrics([whole], Counter(), 1.0)


def test_the_baseline_of_the_reference_teaches_in_groups_of_one_reward_and_needs_its_column():
    settings = Advantage(centre="reference", scale="none")
    same = np.ones((2, 4))
    found = advantages(same, same > 0, same, settings, reference_P=np.array([0.75, 1.0]))
    np.testing.assert_allclose(found, [[0.25] * 4, [0.0] * 4])
    kept = np.array([[True, False, True, True]] * 2)
    assert (advantages(same, same > 0, same, settings, kept, np.array([0.75, 0.5]))[:, 1] == 0).all()
    made = rewarded(adaptthink())
    made = Group(replace(made.request, problem=Problem("p7", "", "", columns={"reference_accuracy": "often"})), made.rollouts)
    with pytest.raises(ValueError, match=r"problem p7: its row holds no number in reference_accuracy, which advantage\.centre reads"):
        algorithm.prepare([made], adaptthink())
    assert [column.name for column in adaptthink().number_columns] == ["reference_accuracy"] and adaptthink().reads_columns


def test_the_first_token_trains_with_the_rules_probability_whatever_the_learner_measures():
    recipe, made = adaptthink(), rewarded(adaptthink())
    batch = algorithm.prepare([made], recipe, lambda parts, what: {row.id: np.stack([np.full(len(row.ids), -0.3)]) for row in parts[0]})
    for row in batch.updates[0]:
        assert row.old_logp[0] == HALF and (row.old_logp[1:] == -0.3).all() and row.mask_T.all()
    row = batch.updates[0][0]
    logp = torch.tensor([np.log(0.3), -0.3, -0.3, -0.3], dtype=torch.float64, requires_grad=True)
    four = torch.ones(4, dtype=torch.float64)
    parts = [torch.from_numpy(np.array(part, np.float64)) for part in (row.advantage_T, row.old_logp, row.engine_logp)]
    tokens = Tokens(four > 0, four / 4, parts[0], torch.zeros(4, dtype=torch.int64), logp, four, parts[1], parts[2])
    found = objective.loss(tokens, recipe.objective, 0.0)
    assert float(found.sums["ratio"]) / 4 == pytest.approx(0.6**0.25)  # exp(mean log ratio) of .3 / .5 and three ones
    [gradient] = torch.autograd.grad(found.total, logp)
    np.testing.assert_allclose(gradient, [-0.3 * 0.6**0.25 / 4] * 4, rtol=1e-6)
    assert float(found.sums["mismatch"]) == pytest.approx(0.0, abs=1e-6)  # the rule is no fault of the engine's


def test_the_gate_does_not_ask_about_what_a_rule_drew():
    rows = algorithm.rows_of([group()])
    learner = {row.id: certain(np.where(row.own_T, row.engine_logp, -9.0).astype(np.float32)) for row in rows}
    assert check_gaps(rows, learner, 1e-3)["gate/mean"] == 0
    whole = [Row(row.id, row.prompt_ids, row.ids, row.engine_logp) for row in rows]
    with pytest.raises(RuntimeError, match="give sampled tokens other logprobs"):
        check_gaps(whole, learner, 1e-3)


def test_the_closing_mark_counts_as_length_like_the_models_own():
    shut, free = group().rollouts[:2]
    assert shut.tokens == 4 and thinking_tokens(shut, thinks=True) == 1 and free.tokens == 7


def test_only_a_response_that_begins_by_closing_its_thinking_earns_the_bonus():
    texts = ["</think>a", "\n</think>a", "a</think>b", "<think></think>a", "", "a"]
    given = Asked("", [], texts, [], {}, TrainerState(0, 1), list("abcdef"))
    facts = Facts(np.array([1, 0, 1, 1, 0, 1], bool), np.ones(6, bool), np.ones(6), np.ones(6), 9, 9, given)
    term = NoThinkingTerm(kind="no_thinking", weight=0.2)
    assert rewards([term], facts)["no_thinking"].tolist() == [0.2, 0.2, 0, 0, 0, 0]
    assert rewards([term.model_copy(update={"gate": "right"})], facts)["no_thinking"].tolist() == [0.2, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sampler": {"no_thinking": 0.5}}, "objective.old_logprobs: engine compares the rule"),
        ({"sampler": {"no_thinking": 0.05}, "objective": {"old_logprobs": "learner"}}, "0.05 of 8 rollouts is none or all of them"),
        ({"sampler": {"no_thinking": 0.95}, "objective": {"old_logprobs": "learner"}}, "0.95 of 8 rollouts is none or all of them"),
        ({"advantage": {"centre": "reference"}}, "so scale batch does not fit; take none"),
        ({"reward": [{"kind": "verdict"}, {"kind": "no_thinking"}]}, "no_thinking pays wrong answers for their length"),
        ({"reward": [{"kind": "verdict"}, {"kind": "no_thinking", "weight": 1.5, "gate": "none"}]}, "right must beat wrong"),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        Recipe.model_validate(change)


def test_prompts_that_do_not_open_thinking_cannot_be_closed_at_once(tiny_checkpoint: Path, tmp_path: Path):
    template = load_template(switched(tmp_path / "model", tiny_checkpoint, ""))
    assert template.think_ids() == THINK
    with pytest.raises(TemplateError, match=r"sampler\.no_thinking: prompts do not open thinking"):
        template.think_ids(at_once=True)
