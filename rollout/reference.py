"""What a policy does on the training problems: sampled once, judged, kept in parts (rollout/parts), and read by whatever comes after.

Claim: tokens stay as the engines sampled them; nothing is decoded and encoded again.
Simplification: all of it is read into memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import pyarrow as pa

from recipes.columns import REFERENCE, SHORTEST, NumberColumn
from rewards.profiles import profile_of
from rewards.rows import DataError, reach
from rollout.collector import seed_of
from rollout.sources import Source, blended
from rollout.template import Template
from rollout.types import Example, Preference, Problem, Request

_LONGER = 1.5  # times as long as the shortest right answer, so that a pair says something of length (Kimi k1.5, arXiv 2501.12599)

Columns = dict[str, float | None]


class NoReference(DataError):
    """What a stage reads of a reference is not there; the message says what is."""


def requests(
    source: Source,
    template: Template,
    positions: int,
    *,
    samples: int,
    max_tokens: int,
    temperature: float,
    seed: int,
    max_prompt_tokens: int,
    first: int = 0,
    limit: int = 0,
) -> list[Request]:
    """The training problems, each once, to be sampled.

    Args:
        source: as the rl stage has it (rollout.sources.training_source).
        positions: of its stream, from `first` on; as many as it has rows, or more: all its rows. Where a walk through the rows ends among them,
            the next begins with some again: as many problems as positions are looked for in twice as many.
        samples: rollouts of a problem.
        max_tokens: where engines stop.
        max_prompt_tokens: problems with longer prompts are passed over, as training does.
        limit: what `{budget}` in the instruction stands for, tokens.
    """
    every = source.rows is not None and positions >= source.rows
    walked = iter(source.problems) if every else (source.at(first + position) for position in range(2 * positions))
    problems: dict[str, Problem] = {}
    while len(problems) < positions and (problem := next(walked, None)):
        problems[problem.id] = problem
    asked = [
        Request(
            id=f"reference:{problem.id}",
            problem=problem,
            prompt_ids=template.prompt_ids(problem, limit),
            group_size=samples,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=1.0,
            seed=seed_of(seed, "reference", problem.id),
            limit=limit,
        )
        for problem in problems.values()
    ]
    return [request for request in asked if len(request.prompt_ids) <= max_prompt_tokens]


def statistics(table: pa.Table) -> dict[str, Columns]:
    """By problem id: reference_tokens, reference_spread, reference_accuracy (rewards.profiles.profile_of) and reference_shortest.

    reference_shortest is the length of the shortest right answer, None without one. A rollout that could not be judged does not count; a
    problem that has none but such is not there.
    """
    found = {}
    for id_, rollouts in _by_problem(table).items():
        judged = [rollout for rollout in rollouts if rollout["verdict"] != "not_judged"]
        if judged:
            right = [rollout["verdict"] == "right" for rollout in judged]
            profile = profile_of([rollout["tokens"] for rollout in judged], right)
            shortest = min((rollout["tokens"] for rollout in judged if rollout["verdict"] == "right"), default=None)
            found[id_] = {**dict(zip(REFERENCE, profile, strict=True)), SHORTEST: shortest}
    return found


def with_statistics(
    source: Source, asked: Sequence[Request], found: Mapping[str, Columns], seed: int, numbers: Sequence[NumberColumn] = ()
) -> Source:
    """The source with these columns. Where it would give a problem that lacks one, it gives another that does not, drawn in seeded permutations.

    Args:
        asked: what was sampled.
        found: by problem id (`statistics`).
        numbers: columns that must hold a number (Recipe.number_columns); problems that were sampled and lack one are listed in `left_out`.

    Raises:
        NoReference: no problem has all of them.
    """
    own = {problem.id: problem for problem in source.problems}  # with the columns of their rows; generated problems have none
    joined = {
        problem.id: replace(own.get(problem.id, problem), columns=own.get(problem.id, problem).columns | found.get(problem.id, {}))
        for problem in (request.problem for request in asked)
    }
    lacking = {
        id_: words if id_ in found else "none of its rollouts in the reference could be judged"
        for id_, problem in joined.items()
        if (words := _lacks(problem, numbers)) or id_ not in found
    }
    kept = [problem for id_, problem in joined.items() if id_ not in lacking]
    if not kept:
        why = f" (the first: {next(iter(lacking.values()))})" if lacking else ""
        raise NoReference(f"{source.name}: none of the {len(joined)} problems that the reference stage sampled can train{why}")
    ids = {problem.id for problem in kept}
    other = blended([len(kept)], [1.0], seed)

    def at(position: int) -> Problem:
        problem = source.at(position)
        return joined[problem.id] if problem.id in ids else kept[other(position)[1]]

    return replace(
        source,
        at=at,
        left_out=[*source.left_out, *lacking.items()],
        problems=[joined[problem.id] for problem in source.problems if problem.id in ids],
    )


def shortest_right(table: pa.Table) -> list[Example]:
    """The shortest right answer of each problem that has one, as it was sampled, in the order of the table; ties go to the first sample.

    Raises:
        NoReference: no problem has a right answer.
    """
    chosen = [best for rollouts in _by_problem(table).values() if (best := _shortest(rollouts)) is not None]
    if not chosen:
        raise _nothing(table, "there is nothing to learn from: a larger budget.limit, or more samples, may find right ones")
    return [Example(row["prompt_ids"], row["ids"]) for row in _tokens(table, [best["place"] for best in chosen])]


def pairs(table: pa.Table, rejected: Literal["longer", "wrong", "both"]) -> list[Preference]:
    """The shortest right answer of each problem against its longest right one, its longest wrong one, or each of both, as they were sampled.

    The longest right one must be at least 1.5 times as long (Kimi k1.5, arXiv 2501.12599). Wrong ones may be of any length.

    Raises:
        NoReference: not a single pair; says what there is.
    """
    places: list[tuple[int, int]] = []
    for rollouts in _by_problem(table).values():
        chosen = _shortest(rollouts)
        if chosen is None:
            continue
        longest = {
            "longer": _longest(row for row in rollouts if row["verdict"] == "right" and row["tokens"] >= _LONGER * chosen["tokens"]),
            "wrong": _longest(row for row in rollouts if row["verdict"] == "wrong"),
        }
        places += [(chosen["place"], other["place"]) for kind, other in longest.items() if other is not None and rejected in (kind, "both")]
    if not places:
        wanted = {
            "longer": f"a right answer and another at least {_LONGER} times as long",
            "wrong": "a right and a wrong answer",
            "both": f"a right answer beside a wrong one, or one at least {_LONGER} times as long",
        }[rejected]
        raise _nothing(
            table, f"none has {wanted}, so there is no pair: more samples of a problem may find some, a larger budget.limit right ones"
        )
    chosen_rows, other_rows = (_tokens(table, [pair[side] for pair in places]) for side in (0, 1))
    return [Preference(one["prompt_ids"], one["ids"], other["ids"]) for one, other in zip(chosen_rows, other_rows, strict=True)]


def _by_problem(table: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Of each problem its rollouts: verdict, tokens, finish, and `place` in the table."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for place, row in enumerate(table.select(["problem_id", "verdict", "tokens", "finish"]).to_pylist()):
        found[row["problem_id"]].append(row | {"place": place})
    return found


def _shortest(rollouts: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The shortest right rollout that ended by itself, which is what is to be learned."""
    ended = [row for row in rollouts if row["verdict"] == "right" and row["finish"] == "stop"]
    return min(ended, key=lambda row: row["tokens"], default=None)


def _longest(rollouts: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    return max(rollouts, key=lambda row: row["tokens"], default=None)


def _tokens(table: pa.Table, places: Sequence[int]) -> list[dict[str, list[int]]]:
    return table.select(["prompt_ids", "ids"]).take(places).to_pylist()


def _nothing(table: pa.Table, why: str) -> NoReference:
    """What a reference found, and why that does not serve."""
    kinds = [{row["verdict"] for row in rollouts} for rollouts in _by_problem(table).values()]
    unjudged, there = kinds.count({"not_judged"}), f"the reference stage sampled {len(kinds)} problems"
    if kinds and unjudged == len(kinds):
        return NoReference(f"{there}, and not one rollout could be judged: give the judge more (judge.wall_s, judge.memory_mb)")
    right, wrong, both = (sum(kind >= verdicts for kind in kinds) for verdicts in ({"right"}, {"wrong"}, {"right", "wrong"}))
    others = f" (of {unjudged} not one rollout could be judged)" if unjudged else ""
    return NoReference(f"{there}: {right} have a right answer, {wrong} a wrong one, {both} both; {why}{others}")


def _lacks(problem: Problem, numbers: Sequence[NumberColumn]) -> str:
    """The first number that a problem does not have, as a sentence; "" if it has all."""
    for number in numbers:
        if not number.held_by(value := reach(problem.columns, number.name)):
            return f"its {number.name} in the reference is {value!r}, and {number.reader} reads a {number.what}"
    return ""
