"""What the referee and the package are both given: promise P1's fixed set of 32 trajectories, lengths 3 to 97."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from recipes.schema import Recipe
from rewards.verifier.verdict import Verdict
from rollout.types import Completion, Group, Problem, Request, Rollout
from tests.reference.referee import Settings, Trajectory

GROUPS, GROUP_SIZE, LIMIT = 8, 4, 100
LENGTHS = [3, 97, *np.random.default_rng(7).integers(4, 97, GROUPS * GROUP_SIZE - 2).tolist()]

EVERYTHING = Settings(
    scale="batch",
    dual_clip=1.5,
    kl=0.1,
    kl_estimator="k3",
    entropy=0.02,
    old_logprobs="learner",
    correction="icepop",
    low=0.8,
    high=1.5,
    temperature=0.8,
)
# A few whole methods, for tests too dear for every combination. The key says what is special about it.
METHODS = {
    "dler": Settings(scale="batch", kl=5e-4),
    "everything": EVERYTHING,
    "gspo": replace(
        EVERYTHING, ratio="sequence", clip_low=3e-3, clip_high=4e-3, aggregate="sequence_mean", correction="sequence_mask", dual_clip=None
    ),
    "cispo": Settings(centre="leave_one_out", surrogate="cispo", clip_low=1.0, clip_high=4.0, aggregate="constant"),
    "kl_in_reward": Settings(scale="batch_tokens", ddof=1, kl=0.05, kl_in_reward=True, aggregate="sequence_sum"),
}


def trajectories(vocabulary: int, seed: int = 0, noise: float = 0.3, centre: float | None = None) -> list[Trajectory]:
    """Eight groups of four: six of mixed outcome, with a little shaping on top, one all right and one all wrong.

    Log-probabilities lie around `centre` (default: uniform over the vocabulary), so that ratios fall on both sides of every bound.
    """
    rng = np.random.default_rng(seed)
    centre = -np.log(vocabulary) if centre is None else centre
    prompts = [rng.integers(1, vocabulary, rng.integers(1, 9)).tolist() for _ in range(GROUPS)]
    cases = []
    for index, length in enumerate(LENGTHS):
        group = index // GROUP_SIZE
        right = group == 6 or (group != 7 and bool(rng.random() < 0.5 or index % GROUP_SIZE == 0))
        logp = rng.normal(centre, noise, (3, length)).astype(np.float32).astype(float)  # float32 is what rows carry
        logp[1] = logp[0] + np.float32(0.5) * (logp[1] - centre) + np.float32(0.6 * rng.normal())  # old: near the engine's
        shaping = 0.0 if group > 5 else float(rng.integers(0, 4)) / 10
        cases.append(
            Trajectory(
                group=group,
                prompt_ids=prompts[group],
                ids=rng.integers(1, vocabulary, length).tolist(),
                engine_logp=logp[0].tolist(),
                old_logp=logp[1].astype(np.float32).tolist(),
                ref_logp=logp[2].tolist(),
                reward=float(right) + shaping,
                right=right,
            )
        )
    return cases


def recipe(settings: Settings, **sections: dict[str, object]) -> Recipe:
    """The recipe that asks for these settings, validated; `sections` override or add keys."""
    wanted: dict[str, dict[str, object]] = {
        "sampler": {"prompts": GROUPS, "group_size": GROUP_SIZE, "temperature": settings.temperature},
        "budget": {"limit": settings.limit},
        "advantage": {"centre": settings.centre, "scale": settings.scale, "ddof": settings.ddof, "boost": settings.boost},
        "objective": {
            **{
                key: getattr(settings, key)
                for key in ("ratio", "surrogate", "clip_low", "clip_high", "dual_clip", "aggregate", "old_logprobs")
            },
            "entropy": {"coef": settings.entropy},
            "kl": {"coef": 0 if settings.kl_in_reward else settings.kl, "estimator": settings.kl_estimator},
            "correction": {"kind": settings.correction}
            | ({"high": settings.high} if settings.correction != "none" else {})
            | ({"low": settings.low} if settings.correction not in ("none", "tis") else {}),
        },
    }
    if settings.kl and settings.kl_in_reward:
        wanted["reward"] = [{"kind": "verdict"}, {"kind": "kl", "weight": settings.kl, "estimator": settings.kl_estimator}]  # type: ignore[assignment]
    for name, keys in sections.items():
        wanted[name] = {**wanted.get(name, {}), **keys}
    return Recipe.model_validate(wanted)


def groups(cases: Sequence[Trajectory]) -> list[Group]:
    """The same rollouts as the collector hands them over; a rollout's id is its index."""
    made: dict[int, Group] = {}
    for index, case in enumerate(cases):
        request = Request(f"r{case.group}", Problem(f"p{case.group}", "", ""), tuple(case.prompt_ids), GROUP_SIZE, LIMIT, 1.0, 1.0, 0)
        group = made.setdefault(case.group, Group(request, []))
        ids = np.array(case.ids, np.int32)
        completion = Completion(ids, np.array(case.engine_logp, np.float32), "stop", np.zeros(len(ids), np.int32))
        verdict = Verdict("right" if case.right else "wrong", "")
        group.rollouts.append(
            Rollout(str(index), len(group.rollouts), completion, "", None, verdict, {"verdict": case.reward}, case.reward)
        )
    return list(made.values())
