"""Groups to rows: whole groups in even updates, one denominator for each update."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recipes.schema import Recipe
from rewards.verifier.verdict import Verdict
from rl.algorithm import prepare
from rl.loop import TooManyCut, idle_terms, refuse_cut
from rl.objective import NonFinite
from rl.policy import padded
from rollout.records import rows as recorded
from rollout.types import Completion, Group, Problem, Request, Rollout


def group(index: int, rewards: list[float], tokens: list[int]) -> Group:
    request = Request(f"r{index}", Problem(f"p{index}", "", ""), (1, 2, 3), len(rewards), 50, 1.0, 1.0, 0)
    rollouts = []
    for sample, (reward, length) in enumerate(zip(rewards, tokens, strict=True)):
        completion = Completion(np.full(length, index, np.int32), np.zeros(length, np.float32), "stop", np.zeros(length, np.int32))
        rollouts.append(Rollout(f"{index}-{sample}", sample, completion, "", None, reward=reward))
    return Group(request, rollouts)


def recipe(updates: int) -> Recipe:
    return Recipe.model_validate({"sampler": {"prompts": 4, "group_size": 4}, "learner": {"updates_per_step": updates}})


def test_dler_rows_carry_the_hand_computed_advantages_and_sum_to_one_denominator():
    groups = [group(0, [1, 0, 0, 0], [10, 40, 40, 40]), group(1, [1, 1, 1, 0], [10, 10, 20, 40])]
    [rows] = prepare(groups, recipe(1)).updates
    expected = [1.7321, -0.5774, -0.5774, -0.5774, 0.5774, 0.5774, 0.5774, -1.7321]  # arXiv 2510.15110
    np.testing.assert_allclose([row.advantage_T[0] for row in rows], expected, atol=1e-4)
    np.testing.assert_allclose([rollout.advantage for item in groups for rollout in item.rollouts], expected, atol=1e-4)
    assert sum(row.weight_T.sum() for row in rows) == pytest.approx(1.0)
    assert [len(row.ids) for row in rows] == [10, 40, 40, 40, 10, 10, 20, 40]


@pytest.mark.parametrize(("kept", "updates"), [(4, 2), (3, 2), (1, 2), (5, 4)])
def test_groups_stay_whole_and_every_update_has_its_own_denominator(kept: int, updates: int):
    batch = prepare([group(index, [1, 0, 0, 1], [3, 4, 5, 6]) for index in range(kept)], recipe(updates)).updates
    assert len(batch) == min(updates, kept)
    owners = [{int(row.ids[0]) for row in rows} for rows in batch]
    assert sum(map(len, owners)) == kept == len(set.union(*owners))
    assert max(map(len, owners)) - min(map(len, owners)) <= 1
    for rows in batch:
        assert sum(row.weight_T.sum() for row in rows) == pytest.approx(1.0)


def test_a_step_without_groups_makes_no_update():
    assert prepare([], recipe(2)).updates == []


def settings(**changes) -> Recipe:
    return Recipe.model_validate({"sampler": {"prompts": 2, "group_size": 4}, "advantage": {"scale": "none"}, **changes})


@pytest.mark.parametrize("credit", ["entropy", "thr", "nthr", "clip_cov", "kl_cov", "even"])
def test_an_update_of_nothing_but_rollouts_that_are_not_selected_is_left_as_it_is(credit: str):
    groups = [group(0, [1, 1, 1, 1], [5, 6, 7, 8]), group(1, [0, 1, 0, 1], [5, 6, 7, 8])]
    for one in groups[0].rollouts + groups[1].rollouts:
        one.verdict = Verdict("right" if one.reward else "wrong", "")

    def measure(updates, names):
        return {row.id: [np.full(len(row.ids), 0.5, np.float32) for _ in names] for rows in updates for row in rows}

    select = {"kind": "max_variance", "of": "advantage", "scope": "batch", "keep": 2, "others": "zero"}
    batch = prepare(groups, settings(select=select, credit={"kind": credit}, learner={"updates_per_step": 2}), measure)
    first, second = batch.updates
    assert [row.id for row in first] == [f"0-{index}" for index in range(4)] and not any(row.advantage_T.any() for row in first)
    assert len(second) == 4 and (credit == "thr" or any(row.advantage_T.any() for row in second))  # of equal influence, thr gives none


def test_tokens_are_chosen_among_those_of_the_rollouts_that_are_selected():
    """core.md 3.2: of 10 tokens of the two selected rollouts half are kept, whatever the entropies of the 30 others."""
    groups = [group(0, [0, 1, 0, 1], [20, 4, 10, 6])]

    def measure(updates, names):
        return {row.id: [np.full(len(row.ids), len(row.ids), np.float32) for _ in names] for rows in updates for row in rows}

    for others in ("zero", "drop"):
        made = settings(tokens={"kind": "entropy", "keep": 0.5}, select={"kind": "shortest", "keep": 2, "others": others})
        [rows] = prepare(groups, made, measure).updates
        assert {row.id: int((row.weight_T > 0).sum()) for row in rows if row.weight_T.any()} == {"0-3": 5}
        assert sum(row.weight_T.sum() for row in rows) == pytest.approx(1)


def test_the_constant_denominator_is_that_of_the_limit_as_it_is_written():
    scheduled = settings(
        budget={"limit": 100},
        objective={"aggregate": "constant"},
        schedule={"budget.limit": {"kind": "linear", "to": 50}},
        train={"steps": 5},
    )
    weights = [prepare([group(0, [1, 0, 0, 1], [10] * 4)], scheduled.at(step)).updates[0][0].weight_T[0] for step in (0, 4)]
    assert weights == pytest.approx([1 / (4 * 100)] * 2)


def test_the_record_of_a_rollout_says_what_each_of_its_tokens_trained_with():
    groups = [group(0, [1, 0, 0, 0], [1, 2, 2, 2]), group(1, [1, 1, 1, 0], [1, 1, 2, 2])]

    def measure(updates, names):
        assert list(names) == ["entropy"]
        return {row.id: [np.linspace(0.5, 1.5, len(row.ids), dtype=np.float32)] for rows in updates for row in rows}

    chosen = settings(tokens={"kind": "entropy", "keep": 0.5}, select={"kind": "shortest", "keep": 2})
    [trained] = prepare(groups, chosen, measure).updates
    assert all(row.entropy is None for row in trained)  # it does not travel to the learner
    read = {one["rollout"]: one for one in recorded(groups, 0, "").to_pylist()}
    for row in trained:
        one = read[row.id]
        assert one["token_advantage"] == pytest.approx(row.advantage_T) and one["token_weight"] == pytest.approx(row.weight_T)
        assert one["token_entropy"] == pytest.approx(np.linspace(0.5, 1.5, len(row.ids))) and one["token_influence"] is None
    assert [row.id for row in trained] == ["0-0", "0-1", "1-0", "1-1"]
    assert min(read["0-1"]["token_weight"]) > 0 and read["1-1"]["token_weight"] == [
        0
    ]  # half of five tokens are three, the earlier of equal ones
    assert [read["0-2"][f"token_{name}"] for name in ("advantage", "weight", "entropy", "influence")] == [None] * 4  # did not train


def cut(item: Group, *samples: int) -> Group:
    for sample in samples:
        completion = item.rollouts[sample].completion
        item.rollouts[sample].completion = Completion(completion.ids, completion.logprobs, "length", completion.versions)
    return item


def test_p07_masked_rollouts_leave_numerator_and_denominator_alike():
    groups = [cut(group(0, [1, 0, 0, 0], [10, 40, 50, 50]), 2, 3), group(1, [1, 1, 1, 0], [10, 10, 20, 40])]
    scored, masked = (prepare(groups, settings(budget={"limit": 50, "cut": cut})).updates[0] for cut in ("score", "mask"))
    assert [row.id for row in masked] == [row.id for row in scored if row.id not in ("0-2", "0-3")]
    assert [row.weight_T[0] for row in scored] == [pytest.approx(1 / 230)] * 8 and [row.weight_T[0] for row in masked] == [
        pytest.approx(1 / 130)
    ] * 6
    assert [row.advantage_T[0] for row in masked] == [
        row.advantage_T[0] for row in scored if row.id not in ("0-2", "0-3")
    ]  # they still are peers


def test_p07_an_update_of_nothing_but_cut_rollouts_is_not_made():
    groups = [cut(group(0, [1, 0, 0, 0], [50] * 4), 0, 1, 2, 3), group(1, [1, 1, 1, 0], [10, 10, 20, 40])]
    batch = prepare(groups, settings(budget={"limit": 50, "cut": "mask"}, learner={"updates_per_step": 2}))
    assert [{row.id[0] for row in rows} for rows in batch.updates] == [{"1"}]
    assert batch.metrics["selected"] == 0.5


def test_p07_a_first_step_of_cut_rollouts_stops_the_run_with_the_remedy():
    refuse_cut(0.95, settings())
    with pytest.raises(TooManyCut, match=r"96.0% .* budget.limit 128, more than budget.cut_stop 95.0%: raise it"):
        refuse_cut(0.96, settings())
    with pytest.raises(TooManyCut, match=r"cut off at budget.limit 64 x budget.room 2 = 128 tokens, more than"):
        refuse_cut(0.96, settings(budget={"limit": 64, "room": 2}))


def test_a_reward_function_that_never_differs_is_said_once_something_else_does():
    functions = [{"kind": "function", "name": f"mine:{name}", "gate": "right"} for name in ("form", "short")]
    tried = Recipe.model_validate({"reward": [{"kind": "verdict"}, *functions]})
    steps = {
        "mine:form was 0 ": [
            {"verdict": 1.0, "mine:form": 0.0, "mine:short": 0.1},
            {},
            {"verdict": 0.0, "mine:form": 0.0, "mine:short": 0.2},
        ],
        "mine:short was -1 ": [
            {"verdict": 1.0, "mine:form": 0.5, "mine:short": -1.0},
            {"verdict": 1.0, "mine:form": 0.0, "mine:short": -1.0},
        ],
        "": [{"verdict": 1.0, "mine:form": 0.0, "mine:short": 0.0}] * 2,  # rollouts that are all alike say nothing
    }
    for said, terms in steps.items():
        assert [words.startswith(f"reward/{said}for every rollout") for words in idle_terms(terms, tried)] == [True] * bool(said)
    assert idle_terms([], tried) == []


@pytest.mark.parametrize(
    ("others", "rows", "weight"), [("drop", ["0-0", "0-1", "0-2"], 1 / 60), ("zero", [f"0-{i}" for i in range(4)], 1 / 100)]
)
def test_what_is_not_selected_is_left_out_or_stays_with_advantage_zero(others, rows, weight):
    select = {"kind": "shortest", "keep": 3, "others": others}
    batch = prepare([group(0, [1, 1, 0, 1], [10, 30, 20, 40])], settings(select=select, advantage={"scale": "group"}))
    assert [row.id for row in batch.updates[0]] == rows
    np.testing.assert_allclose([row.advantage_T[0] for row in batch.updates[0]], [0.7071, 0.7071, -1.4142, 0][: len(rows)], atol=1e-4)
    assert all(row.weight_T[0] == pytest.approx(weight) for row in batch.updates[0])


def test_an_advantage_that_is_not_selected_is_0_and_those_that_are_stay_as_they_are():
    select = {"kind": "max_variance", "of": "advantage", "keep": 2, "others": "zero"}
    [rows] = prepare([group(0, [1, 1, 0, 1], [10] * 4)], settings(select=select, advantage={"scale": "none"})).updates
    assert [row.advantage_T[0] for row in rows] == [0, 0, -0.75, 0.25]


def test_terms_may_be_normalised_one_by_one_before_they_are_added():
    """GDPO's worked example: verdicts 1, 0, 1, 0 and lengths' worth 1, 2/3, 1/3, 0 with weight 0.2."""
    given = group(0, [0.0] * 4, [5] * 4)
    for rollout, verdict, worth in zip(given.rollouts, [1, 0, 1, 0], [1, 2 / 3, 1 / 3, 0], strict=True):
        rollout.terms = {"verdict": float(verdict), "band": 0.2 * worth}
        rollout.reward = sum(rollout.terms.values())
    terms = [{"kind": "verdict"}, {"kind": "band", "weight": 0.2}]
    [rows] = prepare([given], settings(reward=terms, advantage={"scale": "none", "combine": "each"}, waive=["right_beats_wrong"])).updates
    np.testing.assert_allclose([row.advantage_T[0] for row in rows], [1.2683, -0.9105, 0.9105, -1.2683], atol=1e-4)
    [rows] = prepare([given], settings(reward=terms, advantage={"scale": "group"})).updates
    np.testing.assert_allclose([row.advantage_T[0] for row in rows], [1.1163, -0.8682, 0.8682, -1.1163], atol=1e-4)


def test_terms_that_are_normalised_one_by_one_are_over_the_rollouts_that_a_selection_keeps():
    """Of two kept, a right answer that is paid for being short and a wrong one: +-1 of each term, +-1.4 together; over all four it would be +-1.56."""
    given = group(0, [1.2, 1.0, -0.1, 0.8], [5] * 4)
    for rollout, verdict, kimi in zip(given.rollouts, [1.0, 1.0, 0.0, 1.0], [0.2, 0.0, -0.1, -0.2], strict=True):
        rollout.terms = {"verdict": verdict, "kimi": kimi}
    chosen = {
        "reward": [{"kind": "verdict"}, {"kind": "kimi", "weight": 0.4}],
        "select": {"kind": "max_variance", "keep": 2},
        "waive": ["right_beats_wrong", "length_of_wrong"],
    }
    [rows] = prepare([given], settings(advantage={"scale": "none", "combine": "each"}, **chosen)).updates
    assert [row.advantage_T[0] for row in rows] == pytest.approx([1.4, -1.4])


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_terms_may_be_normalised_against_the_other_rollouts_and_whitened_over_the_batch(weight: float):
    """NeMo-RL's GDPO: verdicts 1, 1, 0, 1 and group scaling of 100, 200, 300, 400 tokens; the longest right answer ranks below the wrong one."""
    given = group(0, [0.0] * 4, [5] * 4)
    for rollout, verdict, scaled in zip(given.rollouts, [1, 1, 0, 1], [0.0444, 0.0111, 0, -0.0556], strict=True):
        rollout.terms = {"verdict": float(verdict), "scaling": weight * 10 * scaled}
        rollout.reward = sum(rollout.terms.values())
    terms = [{"kind": "verdict"}, {"kind": "scaling", "weight": weight}]
    advantage = {"scale": "none", "combine": "each_leave_one_out"}
    made = [
        prepare([given], settings(reward=terms, advantage=advantage | more, waive=["right_beats_wrong"])).updates[0]
        for more in ({}, {"scale": "batch", "ddof": 1})
    ]
    summed = np.array([0.5773, 0.5773, -1, 0.5773]) + weight * np.array([1.6591, 0.2957, 0, -3.2024])
    np.testing.assert_allclose([row.advantage_T[0] for row in made[0]], summed - summed.mean(), atol=5e-3 * weight)
    if weight == 1.0:
        np.testing.assert_allclose([row.advantage_T[0] for row in made[1]], [1.1114, 0.4708, -0.4093, -1.1729], atol=2e-3)


def test_the_weight_of_a_term_counts_once_where_all_others_are_equal():
    """Against equals nothing is divided: a lone wrong answer of weight 2 is -1 times 2."""
    given = group(0, [1, 1, 0, 1], [5] * 4)
    for rollout in given.rollouts:
        rollout.terms = {"verdict": 2 * rollout.reward}
    terms, advantage = [{"kind": "verdict", "weight": 2.0}], {"scale": "none", "combine": "each_leave_one_out"}
    [rows] = prepare([given], settings(reward=terms, advantage=advantage, waive=["right_beats_wrong"])).updates
    assert rows[2].advantage_T[0] - rows[0].advantage_T[0] == pytest.approx(2 * (-1 - 0.57735), abs=1e-4)


def test_kl_in_the_reward_is_taken_off_before_advantages_are():
    given = group(0, [1, 1, 0, 0], [2, 4, 2, 4])
    for rollout in given.rollouts:
        rollout.terms["verdict"] = rollout.reward
        rollout.completion.logprobs[:] = -1.0
    recipe = settings(reward=[{"kind": "verdict"}, {"kind": "kl", "weight": 0.1}])
    asked: list[str] = []

    def reference(parts, what):
        assert what == ["ref_logp"]
        asked.extend(row.id for rows in parts for row in rows)
        return {row.id: np.full((1, len(row.ids)), -1.5, np.float32) for rows in parts for row in rows}

    [rows] = prepare([given], recipe, reference).updates
    assert asked == ["0-0", "0-1", "0-2", "0-3"]
    rewards = [1 - 0.05, 1 - 0.05, -0.05, -0.05]  # half a nat a token, however many there are
    assert [rollout.reward for rollout in given.rollouts] == pytest.approx(rewards)
    assert [rollout.terms["kl"] for rollout in given.rollouts] == pytest.approx([-0.05] * 4)
    assert [row.advantage_T[0] for row in rows] == pytest.approx([reward - np.mean(rewards) for reward in rewards])


def test_a_kl_penalty_is_of_the_tokens_that_are_rewarded_not_of_what_was_cut_off_behind_them():
    given = group(0, [1, 1], [4, 8])
    for rollout in given.rollouts:
        rollout.terms["verdict"] = rollout.reward
        rollout.completion.logprobs[:4], rollout.completion.logprobs[4:] = -1.0, -0.1
    given.rollouts[1].ends = 4
    recipe = settings(reward=[{"kind": "verdict"}, {"kind": "kl", "weight": 0.1}], sampler={"group_size": 2})
    prepare([given], recipe, lambda parts, _: {row.id: np.full((1, len(row.ids)), -1.5, np.float32) for rows in parts for row in rows})
    assert [rollout.terms["kl"] for rollout in given.rollouts] == pytest.approx([-0.05] * 2)


def test_p13_a_kl_penalty_never_puts_wrong_before_right():
    given = group(0, [1, 0, 1, 0], [9, 2, 9, 2])
    for rollout in given.rollouts:
        rollout.terms["verdict"] = rollout.reward
        rollout.completion.logprobs[:] = -1.0 if rollout.reward else -2.0
    recipe = settings(reward=[{"kind": "verdict"}, {"kind": "kl", "weight": 1e9, "estimator": "k2"}])
    prepare([given], recipe, lambda parts, _: {row.id: np.full((1, len(row.ids)), -2.0, np.float32) for [row] in zip(*parts, strict=True)})
    # only the right ones have moved
    assert [rollout.terms["kl"] for rollout in given.rollouts] == pytest.approx([-0.49, 0, -0.49, 0])
    assert [rollout.reward for rollout in given.rollouts] == pytest.approx([0.51, 0, 0.51, 0])


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("reward", r"problem p1, rollout 1-3: its reward is nan \(kl nan\)"),
        ("logprob", r"problem p1, rollout 1-2: the engine's logprob of token 3 is -inf"),
    ],
)
def test_a_number_that_is_not_finite_is_named_and_never_averaged_in(where: str, message: str):
    good, bad = group(0, [1, 0, 0, 1], [5] * 4), group(1, [1, 0, 0, 0], [5] * 4)
    if where == "reward":
        bad.rollouts[3].reward, bad.rollouts[3].terms = float("nan"), {"verdict": 0.0, "kl": float("nan")}
    else:
        bad.rollouts[2].completion.logprobs[3] = -np.inf
        forced = replace(good.rollouts[0].completion, sources=np.array([0, 0, 1, 0, 0], np.int8))
        good.rollouts[0].completion = replace(forced, logprobs=np.array([-1, -1, np.nan, -1, -1], np.float32))  # nobody asks about it
    with pytest.raises(NonFinite, match=message):
        prepare([good, bad], settings())
    batch = prepare([good, bad], settings(learner={"nonfinite": "skip"}))
    assert [row.id[0] for row in batch.updates[0]] == ["0"] * 4 and batch.metrics["groups/nonfinite"] == 1
    alone = prepare([good], settings()).updates[0]
    assert [(row.id, row.advantage_T[0], row.weight_T[0]) for row in batch.updates[0]] == [
        (row.id, row.advantage_T[0], row.weight_T[0]) for row in alone
    ]
    assert prepare([bad], settings(learner={"nonfinite": "skip"})).updates == []


def test_p14_the_share_of_gradient_from_groups_of_constant_correctness_is_known():
    mixed, right = group(0, [1, 0, 0, 1], [10] * 4), group(1, [1.0, 0.9, 0.8, 0.7], [10] * 4)
    for rollout in [mixed.rollouts[0], mixed.rollouts[3], *right.rollouts]:
        rollout.verdict = Verdict("right", "integer")
    wrong = group(2, [0.0, 0.0, 0.2, 0.2], [100] * 4)
    metrics = prepare([mixed, right], settings()).metrics
    assert metrics["advantage/constant"] == pytest.approx(0.4 / 2.4) and metrics["advantage/max"] == pytest.approx(0.5)
    for aggregate, share in (("token_mean", 44 / 64), ("sequence_mean", 0.8 / 2.8)):  # in the second, length does not count
        given = settings(objective={"aggregate": aggregate})
        assert prepare([mixed, right, wrong], given).metrics["advantage/constant"] == pytest.approx(share)
    assert prepare([right], settings()).metrics["advantage/constant"] == 1.0


def test_p04_trained_groups_without_any_advantage_are_counted():
    groups = [group(0, [1, 1, 1, 1], [5] * 4), group(1, [1, 0, 0, 0], [5] * 4)]
    assert prepare(groups, settings()).metrics["groups/zero"] == 1


def test_a_rollout_that_is_neither_selected_nor_whole_does_not_train():
    item = cut(group(0, [1, 0, 0, 0], [10, 20, 30, 40]), 1)
    recipe = settings(select={"kind": "shortest", "keep": 3}, budget={"limit": 40, "cut": "mask"})
    assert [row.id for row in prepare([item], recipe).updates[0]] == ["0-0", "0-2"]


def test_what_the_model_did_not_sample_neither_trains_nor_counts_as_length():
    item = group(0, [1, 0], [10, 10])
    forced = np.array([0] * 6 + [1] * 4, np.int8)
    item.rollouts[0].completion = replace(item.rollouts[0].completion, sources=forced)
    assert item.rollouts[0].tokens == 6
    [rows] = prepare([item], settings(sampler={"prompts": 1, "group_size": 2})).updates
    assert [row.mask_T.sum() for row in rows] == [6, 10] and [row.weight_T[0] for row in rows] == [pytest.approx(1 / 16)] * 2
    batch = padded(rows, "cpu")
    assert batch.mask.tolist() == [True] * 6 + [False] * 4 + [True] * 10 and batch.predicts.sum() == 20


@pytest.mark.parametrize(("others", "mean"), [("drop", 1.0), ("zero", 0.75)])
def test_rewards_in_the_metrics_are_those_of_rollouts_that_train(others, mean):
    made = group(0, [1, 1, 0, 1], [10, 30, 40, 20])
    for rollout in made.rollouts:
        rollout.terms = {"verdict": rollout.reward}
    batch = prepare([made], settings(select={"kind": "shortest", "keep": 3, "others": others}))
    assert batch.metrics["reward/mean"] == batch.metrics["reward/verdict"] == mean


def test_a_step_of_which_no_rollout_trains_has_no_share_of_tokens():
    made = group(0, [1, 1, 0, 1], [10, 30, 40, 20])
    for rollout in made.rollouts:
        rollout.completion = replace(rollout.completion, finish="length")
    recipe = settings(tokens={"kind": "entropy"}, budget={"limit": 40, "cut": "mask"})
    batch = prepare([made], recipe, lambda parts, what: {})
    assert batch.updates == [] and batch.metrics["tokens/kept"] is None and batch.metrics["reward/mean"] is None
