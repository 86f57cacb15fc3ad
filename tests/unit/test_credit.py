"""Credit by token: the sources' worked examples, THR against autograd, and what every kind keeps.

THR and NTHR: arXiv 2510.03669 and 2505.18830; entropy-shaped advantages 2506.14758; Clip-Cov and KL-Cov 2505.22617; GTPO 2508.04349; DRPO 2510.04474.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from recipes.credit import Credit
from recipes.loader import load
from recipes.objectives import Objective
from recipes.schema import Advantage
from rewards.verifier.verdict import Verdict
from rl.advantage import advantages
from rl.algorithm import prepare, weighed
from rl.batching import whole_groups
from rl.credit import Members, by_group, covariances, credited, drpo, gtpo_rewards, members, shaped, toward
from rl.logprobs import ScoringHead
from rl.objective import Tokens, loss
from rl.policy import Row
from rollout.types import Completion, Rollout
from tests.probes import groups

kind = TypeAdapter(Credit).validate_python
SMALL_STEP = ["sampler.prompts=2", "sampler.group_size=4"]


def group(
    right: Sequence[bool], advantages: Sequence[float], limit: int = 8, share: float | None = None, **of_rows: Sequence[Any]
) -> Members:
    """Rollouts with rows of the given per-token numbers, which also say their lengths."""
    lengths = [len(value) for value in next(iter(of_rows.values()))]
    rows, rollouts = [], []
    for index, (length, flag, advantage) in enumerate(zip(lengths, right, advantages, strict=True)):
        ids = np.arange(length, dtype=np.int32)
        done = Completion(ids, np.full(length, -0.5, np.float32), "stop", ids)
        verdict = Verdict("right" if flag else "wrong", "")
        rollouts.append(Rollout(f"r{index}", index, done, "", None, verdict, reward=float(flag)))
        own = {name: np.asarray(value[index], np.float32) for name, value in of_rows.items()}
        rows.append(Row(f"r{index}", np.zeros(1, np.int32), ids, done.logprobs, advantage_T=np.asarray(advantage), group="g", **own))
    return Members(rows, rollouts, limit, float(np.mean(right)) if share is None else share)


def given_by(one: Members, **of_credit: Any) -> list[list[float]]:
    return [list(map(float, part)) for part in by_group(one, kind(of_credit))]


# ------------------------------------------------------------------------------------------- THR and NTHR

P_RIGHT, P_WRONG = [[0.5, 0.3, 0.2], [0.2, 0.6, 0.2]], [[0.4, 0.4, 0.2], [0.1, 0.1, 0.8]]
H_RIGHT, H_WRONG = [[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]


def influences(toward_N: Sequence[float]) -> list[np.ndarray]:
    """g' (sum of toward x g h) h of the worked example's four tokens, the right answer's first."""
    hidden = np.array(H_RIGHT + H_WRONG)
    error = np.eye(3)[[0, 1, 0, 2]] - np.array(P_RIGHT + P_WRONG)
    total = (error * np.array(toward_N)[:, None]).T @ hidden
    found = ((hidden @ total.T) * error).sum(1)
    return [found[:2], found[2:]]


def test_nthr_damps_the_worked_examples_guilty_token():
    right, wrong = influences([1, 1, 0, 0])
    np.testing.assert_allclose(wrong, [0.34, -0.03], atol=1e-9)
    np.testing.assert_allclose(right, [0.29, 0.03], atol=1e-9)
    assert right.mean() == pytest.approx(0.16)
    one = group([True, False], [1.0, -1.0], influence=[right, wrong], share=0.25)
    assert given_by(one, kind="nthr") == [[1, 1], [-0.5, -1]]
    assert given_by(one, kind="nthr", threshold=3.0) == [[1, 1], [-1, -1]]


@pytest.mark.parametrize(("share", "factor"), [(0.125, 0.75), (0.25, 0.5), (0.5, 0.0), (0.875, 0.75)])
def test_nthr_damps_by_how_far_the_group_is_from_even(share, factor):
    one = group([True, False], [1.0, -1.0], influence=[[0.1], [0.9]], share=share)
    assert given_by(one, kind="nthr") == [[1.0], [-factor]]


def test_the_share_of_right_answers_is_of_the_whole_group_whichever_of_it_train():
    one = group([True, True, True, False], [1.0] * 4, influence=[[0.1]] * 4)
    some = members({row.id: row for row in one.rows[2:]}, one.rollouts, 8)
    assert (len(some.rows), some.mixed, some.share) == (2, True, 0.75)


@pytest.mark.parametrize("steer", [0.0, 0.1, -0.1])
def test_thr_keeps_the_worked_examples_two_dominant_tokens(steer):
    right, wrong = influences([0.5, 0.5, 0, 0])
    np.testing.assert_allclose([right, wrong], [[0.145, 0.015], [0.17, -0.015]], atol=1e-9)
    one = group([True, False], [1.0, -1.0], influence=[right, wrong])
    np.testing.assert_allclose(given_by(one, kind="thr", steer=steer), [[1 + steer, 0], [-(1 - steer), 0]], atol=1e-9)


def test_thr_takes_the_least_or_the_mean_of_several_right_answers():
    one = group([True, True, False], [1.0, 1.0, -2.0], influence=[[0.1, 0.1], [0.5, 0.5], [0.2, -0.4]])
    assert given_by(one, kind="thr", steer=0.0) == [[0, 0], [1, 1], [-2, -2]]  # above 0.1 alone
    assert given_by(one, kind="thr", steer=0.0, across="mean") == [[0, 0], [1, 1], [0, -2]]


@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([1, 3, 64]))
@settings(max_examples=25, deadline=None)
def test_influence_equals_autograds_inner_product_through_the_heads_weight(seed, bias, chunk):
    torch.manual_seed(seed)
    N, H, V, temperature = 9, 4, 13, 0.7
    weight = torch.nn.Parameter(torch.randn(V, H, dtype=torch.float64))
    head = ScoringHead(weight, torch.nn.Parameter(torch.randn(V, dtype=torch.float64)) if bias else None)
    hidden, targets = torch.randn(N, H, dtype=torch.float64), torch.randint(0, V, (N,))
    toward = torch.rand(N, dtype=torch.float64) * (torch.rand(N) < 0.5)
    logp, entropy, found = head.influence(hidden, targets, toward, temperature, chunk)
    plain, plain_entropy = head(hidden, targets, temperature, 64)
    torch.testing.assert_close(logp, plain.detach())
    torch.testing.assert_close(entropy, plain_entropy.detach())

    def slope(value: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(value, weight, retain_graph=True)[0]

    used = targets.unique()
    right = slope((toward * plain).sum())[used]
    each = torch.stack([(slope(one)[used] * right).sum() for one in plain]) * temperature**2
    torch.testing.assert_close(found, each)


def test_influence_weighs_right_answers_by_their_length_in_thr_alone():
    one = group([True, False], [1.0, -1.0], influence=[[0.0] * 4, [0.0]])
    assert [toward(kind({"kind": "thr"}), rollout) for rollout in one.rollouts] == [0.25, 0.0]
    assert [toward(kind({"kind": "nthr"}), rollout) for rollout in one.rollouts] == [1.0, 0.0]


@pytest.mark.parametrize("name", ["thr", "nthr"])
@pytest.mark.parametrize("right", [[True, True], [False, False]])
def test_groups_without_right_or_without_wrong_answers_stay_and_are_counted(name, right):
    one = group(right, [0.5, -0.5], influence=[[0.1, 2.0], [0.3]])
    rows, said = credited(one.rows, [one], kind({"kind": name}), 0)
    assert [row.advantage_T.tolist() for row in rows] == [[0.5, 0.5], [-0.5]]
    assert said == {"credit/changed": 0.0, "credit/zero": 0.0, "credit/idle": 1}


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 4)), min_size=1, max_size=20), st.integers(8, 90), st.integers(1, 3))
def test_a_groups_rows_stay_on_one_rank_and_within_one_window(rows, most, ranks):
    tokens, names = np.array([length for length, _ in rows]), [str(name) for _, name in rows]
    dealt = whole_groups(tokens, names, most, ranks)
    assert len({len(batches) for batches in dealt}) == 1
    assert sorted(int(index) for batches in dealt for batch in batches for index in batch) == list(range(len(rows)))
    for name in set(names):
        owners = {rank for rank, batches in enumerate(dealt) for batch in batches if any(names[index] == name for index in batch)}
        assert len(owners) == 1
        at = [at for batches in dealt for at, batch in enumerate(batches) if any(names[index] == name for index in batch)]
        alone = len(whole_groups(tokens[[other == name for other in names]], [name] * names.count(name), most, 1)[0])
        assert max(at) - min(at) < max(2 * 8, alone) + 1
    for batch in (batch for batches in dealt for batch in batches if len(batch) > 1):
        assert len(batch) * max(tokens[batch]) <= most


def test_groups_of_mixed_lengths_are_sorted_together():
    tokens, names = np.array([40, 4, 40, 4]), ["a", "a", "b", "b"]
    assert [batch.tolist() for batch in whole_groups(tokens, names, 80, 1)[0]] == [[0, 2], [1, 3]]


def test_no_more_groups_than_eight_micro_batches_hold_wait_for_each_other():
    tokens, names = np.array([9, 1] * 24), [str(index // 2) for index in range(48)]
    dealt = [batch.tolist() for batch in whole_groups(tokens, names, 10, 1)[0]]
    assert [len(batch) for batch in dealt] == ([1] * 8 + [8]) * 3  # in each window its long rows, one by one, and the short ones together


def test_groups_go_to_the_rank_that_has_least_to_do():
    shares = whole_groups(np.array([100, 30, 30, 30]), ["a", "b", "c", "d"], 200, 2)
    assert [sorted(int(row) for batch in share for row in batch) for share in shares] == [[0], [1, 2, 3]]


# -------------------------------------------------------------------------------- entropy and covariance


@pytest.mark.parametrize(
    ("advantage", "entropy", "expected"), [(1, 0.5, 1.2), (1, 3, 1.5), (-1, 0.5, -0.8), (-1, 3, -0.5), (0.1, 0.5, 0.15)]
)
def test_entropy_shapes_the_worked_advantages(advantage, entropy, expected):
    assert shaped(np.array([float(advantage)]), np.array([float(entropy)]), kind({"kind": "entropy"}))[0] == pytest.approx(expected)


@given(st.floats(-5, 5), st.floats(0, 12), st.floats(0, 5), st.floats(1.001, 9))
def test_entropy_turns_no_sign_and_never_takes_from_a_right_token(advantage, entropy, weight, most):
    new = shaped(np.array([advantage]), np.array([entropy]), kind({"kind": "entropy", "weight": weight, "most": most}))[0]
    assert new >= advantage and new * advantage >= 0


def test_covariances_of_the_worked_tokens():
    np.testing.assert_allclose(covariances(np.array([1, -1, 0.5, 0]), np.array([-0.1, -2, -3, -0.5])), [1.1375, 0.675, -0.6, -0.1125])


def covaried(seed: int = 3, **of_credit: Any) -> tuple[list[list[float]], list[list[float]], dict[str, float]]:
    """Two rows of the worked tokens, between which a token stands that does not train: their advantages, what holds them, and what is said of it."""
    one = group([True, False], [[1, 9, -1], [0.5, 0]], old_logp=[[-0.1, -99, -2], [-3, -0.5]])
    one = replace(one, rows=[replace(one.rows[0], mask_T=np.array([True, False, True])), one.rows[1]])
    rows, said = credited(one.rows, [one], kind(of_credit), seed)
    return [row.advantage_T.tolist() for row in rows], [row.stay_T.tolist() for row in rows], said


def test_clip_cov_drops_a_share_of_the_tokens_between_its_bounds_at_least_one():
    assert covaried(kind="clip_cov")[0] == [[0, 9, -1], [0.5, 0]]
    assert covaried(kind="clip_cov", low=0.5, share=0.5)[0] == [[0, 9, 0], [0.5, 0]]
    assert covaried(kind="clip_cov", low=0.5, high=1.0, share=0.5)[0] == [[1, 9, 0], [0.5, 0]]
    assert covaried(kind="clip_cov", low=2.0)[0] == [[1, 9, -1], [0.5, 0]]


def test_clip_cov_draws_by_the_seed():
    drawn = [covaried(seed, kind="clip_cov", low=0.5)[0] for seed in range(9)]
    assert sorted({str(one) for one in drawn}) == ["[[0.0, 9.0, -1.0], [0.5, 0.0]]", "[[1.0, 9.0, 0.0], [0.5, 0.0]]"]  # one of two
    assert drawn == [covaried(seed, kind="clip_cov", low=0.5)[0] for seed in range(9)]


def test_kl_cov_holds_the_tokens_of_largest_covariance_in_place():
    advantages, held, said = covaried(kind="kl_cov", share=0.5, weight=3.0)
    assert held == [[3, 0, 3], [0, 0]] and advantages == [[1, 9, -1], [0.5, 0]]
    assert said == {"credit/changed": 0.5, "credit/zero": 0.25, "credit/idle": 0}  # of the four that train


def test_what_is_held_pays_for_the_distance_it_moved():
    logp = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    old = torch.tensor([-1.5, -1.5, -3.0])
    tokens = Tokens(
        torch.ones(3, dtype=torch.bool), torch.full((3,), 0.25), torch.zeros(3), torch.zeros(3, dtype=torch.int64), logp, torch.zeros(3), old, old,
        stay=torch.tensor([2.0, 1.0, 1.0]),
    )  # fmt: skip
    total = loss(tokens, Objective(), 0.0).total
    total.backward()
    assert total.item() == pytest.approx(0.25 * (2 * 0.5 + 0.5))
    assert logp.grad.tolist() == [0.5, -0.25, 0.0]


# ------------------------------------------------------------------------------------------------- GTPO

HESITATES = [[0.5, 1, 2], [1.5, 1], [0.2, 1], [0.4]]
RIGHTS = [True, True, False, False]


def training_from(one: Members, *starts: int) -> Members:
    """The group, each of whose rows trains from a token on."""
    return replace(one, rows=[replace(row, mask_T=np.arange(len(row.ids)) >= at) for row, at in zip(one.rows, starts, strict=True)])


def test_gtpo_rewards_hesitant_tokens_of_right_and_punishes_sure_ones_of_wrong_answers():
    rewards = gtpo_rewards(group(RIGHTS, [0] * 4, entropy=HESITATES), kind({"kind": "gtpo"}))
    expected = [[1.05, 1.10, 1.10], [1.15, 1.10], [-1.133333, -1.1], [-1.066667]]
    later = training_from(group(RIGHTS, [0] * 4, entropy=[[7, *part] for part in HESITATES]), 1, 1, 1, 1)
    for found, found_later, wanted in zip(rewards, gtpo_rewards(later, kind({"kind": "gtpo"})), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        np.testing.assert_allclose(found_later, [0, *wanted], atol=1e-6)  # places are counted among the tokens that train


def test_grpo_s_does_so_by_each_rollouts_mean():
    entropies = [[1.0, 1.0], [1.5, 0.5, 1.0], [0.5, 0.5], [0.2, 0.8]]
    rewards = gtpo_rewards(
        group(RIGHTS, [0] * 4, entropy=[[0.5, 1, 2], [1.5, 1], [0.2, 1], [0.4]]), kind({"kind": "gtpo", "level": "sequence"})
    )
    np.testing.assert_allclose([reward[0] for reward in rewards], [1.096552, 1.103448, -1.08, -1.12], atol=1e-6)
    assert all(len(set(reward.tolist())) == 1 for reward in rewards)
    even = gtpo_rewards(group(RIGHTS, [0] * 4, entropy=entropies), kind({"kind": "gtpo", "level": "sequence"}))
    np.testing.assert_allclose([reward[0] for reward in even], [1.1, 1.1, -1.1, -1.1], atol=1e-6)


def test_gtpo_without_its_second_part_is_grpo_over_tokens():
    one = group([True, False], [0.0, 0.0], entropy=[[0.3, 0.9], [0.1, 0.2]])
    np.testing.assert_allclose(given_by(one, kind="gtpo", weight=0.0), [[1, 1], [-1, -1]])


def test_gtpo_normalised_apart_turns_half_of_a_right_answer_down_and_together_none():
    one = group(RIGHTS, [0] * 4, entropy=HESITATES)
    apart, together = (given_by(one, kind="gtpo", normalise=how) for how in ("apart", "together"))
    assert min(apart[0] + apart[1]) < 0 < min(together[0] + together[1])
    assert max(together[2] + together[3]) < 0
    for part in (apart[0] + apart[1], apart[2] + apart[3], [number for row in together for number in row]):
        assert np.mean(part) == pytest.approx(0, abs=1e-9) and np.std(part) == pytest.approx(1)


# ------------------------------------------------------------------------------------------------- DRPO


@pytest.mark.parametrize(
    ("spread", "expected"),
    [(0.05, [0.9194, 0.0800, 0.0006]), (0.1, [0.7572, 0.2234, 0.0194]), (1, [0.3878, 0.3433, 0.2689]), (10, [0.3388, 0.3347, 0.3266])],
)
def test_drpo_weighs_right_answers_by_their_length_among_themselves(spread, expected):
    one = group([True, True, True, False], [0] * 4, limit=8192, old_logp=[[-1.0] * length for length in (1000, 2000, 4000, 10)])
    np.testing.assert_allclose(drpo(one, kind({"kind": "drpo", "spread": spread}))[:3], expected, atol=1e-4)


@pytest.mark.parametrize(("temperature", "expected"), [(10, [0.4963, 0.5037]), (0.1, [0.1824, 0.8176])])
def test_drpo_weighs_wrong_answers_by_their_likelihood(temperature, expected):
    one = group([True, False, False], [0] * 3, old_logp=[[-0.3], [-0.4], [-0.25]])
    np.testing.assert_allclose(drpo(one, kind({"kind": "drpo", "temperature": temperature}))[1:], -np.array(expected), atol=1e-4)


def test_drpo_reads_length_and_likelihood_of_the_tokens_that_train():
    wrong = [[-1.0, -0.4], [-9.0, -0.25]]
    one = training_from(group([True, True, False, False], [0] * 4, limit=20, old_logp=[[-1.0] * 3, [-1.0] * 3, *wrong]), 2, 1, 1, 1)
    worth = drpo(one, kind({"kind": "drpo", "spread": 0.05, "temperature": 0.1}))  # lengths 1 and 2 of 20: softmax(0, -1)
    np.testing.assert_allclose(worth, [0.7311, 0.2689, -0.1824, -0.8176], atol=1e-4)


def test_drpos_groups_weigh_the_same_however_many_of_their_rollouts_train():
    pair, four = (group([True] + [False] * wrong, [0] * (1 + wrong), old_logp=[[-1.0]] * (1 + wrong)) for wrong in (1, 3))
    four = replace(four, rows=[replace(row, id=f"other {row.id}") for row in four.rows])
    rows, _ = credited([*pair.rows, *four.rows], [pair, four], kind({"kind": "drpo"}), 0)
    assert [row.advantage_T.item() for row in rows] == pytest.approx([3, -3, 3, -1, -1, -1])  # of 6 rows in 2 groups


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [([1000, 2000, 4000], [1, 0.1475, 0.0064]), ([1000, 1500], [1, 1000 / 1500 / 1.841]), ([820, 8192], [1, 1.235e-4 * 820 / 8192])],
)
def test_drpos_mean_logprob_is_a_second_preference_for_short_answers(lengths, expected):
    one = group([True] * len(lengths) + [False], [0] * (len(lengths) + 1), limit=8192, old_logp=[[-1.0] * n for n in [*lengths, 10]])
    each = drpo(one, kind({"kind": "drpo", "spread": 0.1}))[:-1] / lengths  # of a token's logprob
    np.testing.assert_allclose(each / each[0], expected, rtol=2e-3, atol=5e-5)


def test_drpo_removes_the_trap_of_shaped_rewards_that_push_a_right_answer_down():
    shaped_rewards, right = np.array([[1, 0.75, 0.3, 0, 0, 0]]), [True] * 3 + [False] * 3
    grpo = advantages(shaped_rewards, np.array([right]), np.full((1, 6), 7), Advantage(scale="group"))[0]
    np.testing.assert_allclose(grpo, [1.6527, 1.0251, -0.1046, -0.8577, -0.8577, -0.8577], atol=1e-4)
    one = group(right, [0] * 6, limit=8192, old_logp=[[-1.0] * length for length in (1000, 2000, 4000, 10, 10, 10)])
    worth = drpo(one, kind({"kind": "drpo"}))
    assert (worth[:3] > 0).all() and (worth[3:] < 0).all()


def published(means: torch.Tensor, lengths: torch.Tensor, right: torch.Tensor, limit: int) -> torch.Tensor:
    """DRPO's J of one group, of the mean logprobs of its answers: sum of w s over right ones - tau log mean exp(s / tau) over wrong ones."""
    worth = torch.softmax((1 - lengths[right] / limit) / 0.1, 0)
    wrong = means[~right] / 10.0
    return (worth * means[right]).sum() - 10.0 * (torch.logsumexp(wrong, 0) - np.log(len(wrong)))


def test_the_published_objective_has_its_published_value():
    means, right = torch.tensor([-0.30, -0.35, -0.50, -0.40, -0.25], dtype=torch.float64), torch.tensor([True] * 3 + [False] * 2)
    found = published(means, torch.tensor([1000, 2000, 4000, 10, 10]), right, 8192)
    assert found == pytest.approx(0.00966, abs=5e-6)
    wrong = 10.0 * torch.logsumexp(means[~right] / 10, 0) - 10.0 * np.log(2)
    assert found + wrong - 10.0 == pytest.approx(-10.3151, abs=1e-4)  # as the authors' code reports it, whose second term is always tau


def test_drpo_at_a_tiny_lambda_is_finite():
    one = group([True, True, False], [0] * 3, limit=8192, old_logp=[[-1.0] * 1000, [-1.0] * 4000, [-1.0]])
    np.testing.assert_allclose(drpo(one, kind({"kind": "drpo", "spread": 0.01}))[:2], [1, 0], atol=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(2, 5))
@settings(max_examples=25, deadline=None)
def test_drpos_step_follows_the_slope_of_the_published_objective_however_the_rows_are_cut(seed, prompts, size):
    """`published` of each group, 0 without right or without wrong answers; a mean over prompts."""
    rng = np.random.default_rng(seed)
    recipe = load(
        "grpo", None, ["credit.kind=drpo", "objective.surrogate=logp", "objective.aggregate=sequence_mean", "objective.kl.coef=0"]
    )
    many, logps = [], []
    for prompt in range(prompts):
        logp = [rng.normal(-1, 0.5, rng.integers(1, 9)) for _ in range(size)]
        one = group(list(rng.random(size) < 0.5), [0] * size, old_logp=logp)
        rows = [replace(row, id=f"{prompt}/{row.id}", group=str(prompt)) for row in one.rows]
        many.append(replace(one, rows=rows))
        logps += [torch.tensor(row.old_logp, dtype=torch.float64, requires_grad=True) for row in rows]
    rows = weighed(credited([row for one in many for row in one.rows], many, recipe.credit, 0)[0], recipe, set())
    total = torch.zeros(())
    for row, logp in zip(rows, logps, strict=True):  # each row a micro-batch of its own
        flat = [torch.tensor(part) for part in (row.mask_T, row.weight_T, row.advantage_T)]
        tokens = Tokens(*flat, torch.zeros(len(logp), dtype=torch.int64), logp, torch.zeros(len(logp)), logp.detach(), logp.detach())
        total = total + loss(tokens, recipe.objective, 0.0).total
    slopes = torch.autograd.grad(total, logps)

    objective, start = torch.zeros(()), 0
    for one in many:
        means = torch.stack([logp.mean() for logp in logps[start : start + size]])
        lengths = torch.tensor([len(logp) for logp in logps[start : start + size]])
        start += size
        right = torch.tensor(one.right_G)
        if one.mixed:
            objective = objective + published(means, lengths, right, one.limit)
    wanted = torch.autograd.grad(-objective / prompts, logps, allow_unused=True) if objective.requires_grad else [None] * len(logps)
    for found, expected in zip(slopes, wanted, strict=True):
        torch.testing.assert_close(found, torch.zeros_like(found) if expected is None else expected, atol=1e-6, rtol=1e-5)


# ------------------------------------------------------------------------------------------------- all kinds


def test_every_kind_leaves_tokens_alone_that_do_not_train():
    one = group([True, False, True], [1.0, -1.0, 0.5], influence=[[0.3] * 3, [0.9] * 2, [0.1]], entropy=[[0.4] * 3, [0.2] * 2, [0.8]])
    rows = [replace(row, mask_T=np.arange(len(row.ids)) > 0) for row in one.rows]
    one = members({row.id: row for row in rows}, one.rollouts, 8)  # without the last, of which no token trains
    for name in ("thr", "nthr", "entropy", "gtpo", "drpo"):
        for row in credited(rows, [one], kind({"kind": name}), 0)[0]:
            assert not row.advantage_T[~row.mask_T].any() and np.isfinite(row.advantage_T).all(), name


def test_credit_without_what_it_reads_is_an_error_that_names_it():
    one = group([True, False], [1.0, -1.0], old_logp=[[-1.0], [-1.0]])
    with pytest.raises(ValueError, match="row r0: credit reads its influence"):
        by_group(one, kind({"kind": "thr"}))
    with pytest.raises(ValueError, match="row r0: credit reads its entropy"):
        by_group(one, kind({"kind": "gtpo"}))


def test_drpo_wants_the_loss_it_is_written_for():
    with pytest.raises(
        ValueError, match=r"credit\.kind: drpo weighs mean logprobs of rollouts, not surrogate clip and aggregate token_mean"
    ):
        load("grpo", None, ["credit.kind=drpo", "objective.aggregate=token_mean"])


# ------------------------------------------------------------------------------- what credit cannot mean


def test_gtpo_gives_a_lone_right_answer_the_same_everywhere_however_sure_its_tokens():
    one = group([True, False, False], [0] * 3, entropy=[[1e-6, 1e-4, 0.5, 2.0, 0.0], [0.3, 0.0], [0.7]])
    rewards = gtpo_rewards(one, kind({"kind": "gtpo"}))
    assert set(rewards[0].tolist()) == {1.1}
    assert set(given_by(one, kind="gtpo", normalise="apart")[0]) == {0.0}
    assert np.isfinite(np.concatenate(rewards)).all()


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["credit={kind: clip_cov, low: 5.0, high: 1.0}"], "low: 5 is above high 1"),
        (["credit={kind: clip_cov, low: 5.0, high: 5.0}"], "no covariance lies between them"),
        (["credit={kind: clip_cov, share: 0.0}"], "credit.share"),
        (["credit={kind: gtpo, weight: 0.0, normalise: apart}"], "nothing to differ by"),
        (["credit={kind: decs, gain: 0.0}"], "credit.gain"),
        (["credit={kind: efficiency, weight: 1.5}"], "credit.weight"),
        (["credit={kind: decs}", "sampler.keep_groups=shaped"], "take raw"),
        (
            ["credit={kind: decs}", "budget={kind: outlier, limit: 104, alpha: 2.0}"],
            "weighs whole answers, and the budget outlier leaves some in part",
        ),
        (
            [
                "credit={kind: gtpo}",
                'reward=[{kind: verdict, wrong: -3.0},{kind: function, name: "m:f", gate: right, low: -3.0, high: 0.0}]',
            ],
            "gtpo gives wrong answers -base whatever they earn",
        ),
        (["credit={kind: decs, words: []}"], "of texts"),
    ],
)
def test_credit_that_could_not_act_or_would_rank_wrong_above_right_is_refused(words, refused):
    with pytest.raises(ValueError, match=refused):
        load("grpo", "tiny", words)


def test_groups_that_credit_says_nothing_of_are_counted_over_all_updates_of_a_step():
    recipe = load("grpo", "tiny", ["credit.kind=thr", "learner.updates_per_step=2", *SMALL_STEP])
    mixed, easy = groups()
    for rollout in easy.rollouts:
        rollout.verdict = Verdict("right", "")

    def measure(parts: Any, what: Any) -> Any:
        return {row.id: np.ones((len(what), len(row.ids))) for rows in parts for row in rows}

    batch = prepare([mixed, easy], recipe, measure)
    assert len(batch.updates) == 2 and batch.metrics["credit/idle"] == 1


def test_rollouts_that_a_selection_leaves_with_advantage_0_lead_no_influence_and_are_in_no_statistic():
    recipe = load("grpo", "tiny", ["credit.kind=thr", "select={kind: max_variance, keep: 2, others: zero}", *SMALL_STEP])
    seen: list[Row] = []

    def measure(parts: Any, what: Any) -> Any:
        seen.extend(row for rows in parts for row in rows)
        return {row.id: np.stack([np.cos(np.arange(len(row.ids)))] * len(what)) for rows in parts for row in rows}

    batch = prepare(groups(), recipe, measure)
    assert batch.metrics["selected"] == 0.5 and len(seen) == 8
    assert sum(row.toward > 0 for row in seen) <= 2
    assert sum(row.advantage_T.any() for rows in batch.updates for row in rows) <= 4
