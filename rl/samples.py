"""Which rollouts of a step are kept for people to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rollout.types import Group, Rollout


def pick_samples(groups: Sequence[Group], count: int, said: str = "") -> list[Group]:
    """The rollouts of a step worth reading, in groups and in their old order: at most `count`, or all that `said` names by id if these are more.

    Those that are named come first. The rules take turns once, each adding one rollout that no rule took before: one that a second checker judges otherwise, shortest,
    longest, right, wrong, cut, not judged. The rest is filled in the order of rollout ids, which are hashes: an even, reproducible draw.
    """
    rollouts = {(i, j): rollout for i, group in enumerate(groups) for j, rollout in enumerate(group.rollouts)}
    draw = sorted(rollouts, key=lambda place: (rollouts[place].id, place))
    rules: list[Callable[[Rollout], bool]] = [
        lambda rollout: rollout.audit is not None and rollout.verdict is not None and rollout.audit != rollout.verdict.status,
        lambda rollout: rollout.right,
        lambda rollout: rollout.verdict is not None and rollout.verdict.status == "wrong" and not rollout.completion.cut,
        lambda rollout: rollout.completion.cut,
        lambda rollout: rollout.verdict is None or rollout.verdict.status == "not_judged",
    ]
    by_length = sorted(draw, key=lambda place: rollouts[place].tokens)
    disputed, *kinds = ([place for place in draw if rule(rollouts[place])] for rule in rules)
    turns = [disputed, by_length, by_length[::-1], *kinds, draw]
    named = [place for place in draw if rollouts[place].id in said]
    picked = list(named)
    for turn in turns:
        fresh = [place for place in turn if place not in picked]
        picked.extend(fresh if turn is draw else fresh[:1])
    chosen = set(picked[: max(count, len(named))])
    kept = [replace(group, rollouts=[r for j, r in enumerate(group.rollouts) if (i, j) in chosen]) for i, group in enumerate(groups)]
    return [group for group in kept if group.rollouts]
