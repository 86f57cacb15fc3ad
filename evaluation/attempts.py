"""Several attempts at one problem: what k of its n stored samples would have said, in closed form.

Claim: nothing here is simulated and nothing plugs a share into a formula of independent draws: every number is the mean over all k-subsets
of the n samples. Whether enough of k are right is hypergeometric (pass@k, G-Pass@k, all k). A vote is counted by the votes of the winner:
given v of them with the shortest at a known place, each other answer has fewer than v, or v and a longer shortest; the number of subsets
is a coefficient of a product of polynomials. A vote that ends when m chains have thought to the end is a vote among the first m by length.
`Stopped` and `short_m` are the rule itself on k chains, `simulated` its mean over random subsets: the same numbers, with noise.

Simplification: answers are grouped once, in the order of generation, each with the first that it equals (equality of answers is not transitive).
Sources: Chen et al. 2021 (pass@k, 2107.03374), G-Pass@k (2412.13147), short-m@k (2505.17813), cons@k (2501.12948).
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import hypergeom

from evaluation.measured import Samples
from evaluation.results import Parallel
from evaluation.statistics import Interval, wilson
from rewards.verifier.compare import compare_quickly

_CEIL_SLACK = 1e-9  # 0.28 x 25 is 7, not 7.000000000000001


def at_least(samples: ArrayLike, right: ArrayLike, k: int, least: int) -> np.ndarray:
    """Chance that at least `least` of k samples are right, of each problem: hypergeometric, unbiased. Shapes broadcast.

    Raises:
        ValueError: k is not within 1..samples, or right not within 0..samples.
    """
    samples_N, right_N = np.asarray(samples), np.asarray(right)
    bad = (k < 1) | (k > samples_N) | (right_N < 0) | (right_N > samples_N)
    if bad.any():
        n, c = (np.broadcast_to(values, bad.shape)[bad][0] for values in (samples_N, right_N))
        raise ValueError(f"pass@{k} of {c} right in {n} samples: needs 1 <= k <= samples and 0 <= right <= samples")
    return np.asarray(hypergeom.sf(least - 1, samples_N, right_N, k))


def pass_at_k(samples: ArrayLike, right: ArrayLike, k: int) -> np.ndarray:
    """Chance that at least one of k is right: 1 - C(n - c, k) / C(n, k), of each problem. Raises as `at_least`."""
    return at_least(samples, right, k, 1)


def all_of_k(samples: ArrayLike, right: ArrayLike, k: int) -> np.ndarray:
    """Chance that all k are right (pass^k): C(c, k) / C(n, k), of each problem. Raises as `at_least`."""
    return at_least(samples, right, k, k)


def g_pass(samples: ArrayLike, right: ArrayLike, k: int, share: float) -> np.ndarray:
    """G-Pass@k: chance that at least max(ceil(share x k), 1) of k are right, of each problem. Raises as `at_least`."""
    return at_least(samples, right, k, max(math.ceil(share * k - _CEIL_SLACK), 1))


def mg_pass(samples: ArrayLike, right: ArrayLike, k: int) -> np.ndarray:
    """mG-Pass@k: 2/k times the sum of P(at least i right) over i from ceil(k/2) + 1 to k, of each problem; 0 for k = 1. Raises as `at_least`."""
    beyond_half = range(math.ceil(k / 2) + 1, k + 2)  # more than k right: never, and there for k = 1
    return np.sum([at_least(samples, right, k, least) for least in beyond_half], axis=0) * 2 / k


def again(samples: ArrayLike, right: ArrayLike, k: int) -> dict[str, np.ndarray]:
    """What k attempts reach, and how often what is right is so again, by name, of each problem: pass@k; all right (pass^h), half of them (G-Pass@h at 0.5)
    and mG-Pass of h, half of k, so that these are means over choices. Nothing for k = 1, pass@k alone below 4. Raises as `at_least`."""
    found = {f"pass@{k}": pass_at_k(samples, right, k)} if k > 1 else {}
    if (h := k // 2) > 1:
        found |= {
            f"pass^{h}": all_of_k(samples, right, h),
            f"G-Pass@{h}": g_pass(samples, right, h, 0.5),
            f"mG-Pass@{h}": mg_pass(samples, right, h),
        }
    return found


@dataclass(frozen=True)
class Chains:
    """Stored samples of one problem, shortest thinking first and those that never finished last; made by `chains`.

    Attributes:
        thinking: tokens of thinking spent, [n].
        finished: whether thinking was closed, [n].
        answer: index of the answer that it gave, [n]; -1: none, it abstains from votes.
        right: whether that answer is right, by answer.
        said: each answer as it was first written.
        own: whether each was judged right by itself, [n]; equal answers may be judged apart.
        score: by which best-of-k ranks them, [n]; None: nobody scored them.
    """

    thinking: np.ndarray
    finished: np.ndarray
    answer: np.ndarray
    right: np.ndarray
    said: tuple[str, ...]
    own: np.ndarray
    score: np.ndarray | None = None

    def first(self, indices: np.ndarray) -> Chains:
        """Those of these places, which ascend."""
        return Chains(
            self.thinking[indices],
            self.finished[indices],
            self.answer[indices],
            self.right,
            self.said,
            self.own[indices],
            None if self.score is None else self.score[indices],
        )


def chains(
    thinking: Sequence[float],
    answers: Sequence[str | None],
    right: Sequence[bool],
    finished: Sequence[bool],
    same: Callable[[str, str], bool],
    score: ArrayLike | None = None,
) -> Chains:
    """Stored samples of one problem, in the order of generation, made ready for votes.

    A sample without an answer, or one that never finished thinking, abstains. Equal lengths keep the order of generation. One that never
    finished counts as the longest: it was cut by the same limit as all, and where it stopped earlier, who waits for it waits for all.

    Args:
        same: whether two extracted answers are one, first the one that came earlier. The verdict of the first holds for all that equal it.
        score: of each, by which one may be taken as the best.
    """
    place: dict[str, int] = {}  # of every answer as it is written
    firsts: list[str] = []
    verdicts: list[bool] = []
    index_n = np.full(len(answers), -1)
    for n, answer in enumerate(answers):
        if answer is None or not finished[n]:
            continue
        if answer not in place:
            place[answer] = next((found for found, first in enumerate(firsts) if same(first, answer)), len(firsts))
        index_n[n] = place[answer]
        if place[answer] == len(firsts):
            firsts.append(answer)
            verdicts.append(bool(right[n]))
    thinking_n, finished_n = np.asarray(thinking, dtype=float), np.asarray(finished, dtype=bool)
    thinking_n = np.where(finished_n, thinking_n, thinking_n.max())
    order_n = np.lexsort((thinking_n, ~finished_n))
    own_n, score_n = np.asarray(right, dtype=bool)[order_n], None if score is None else np.asarray(score, dtype=float)[order_n]
    return Chains(thinking_n[order_n], finished_n[order_n], index_n[order_n], np.array(verdicts, dtype=bool), tuple(firsts), own_n, score_n)


def of_samples(samples: Samples) -> list[Chains]:
    """The chains of each problem, from stored samples. Answers are the same by what the verifier can say without its symbolic worker, so that x+1 and 1+x are two.

    A model that thinks without marks is waited for to the end: where thinking never closed, a sample that ended by itself has finished, and all of it counts.
    """
    closed_S = ~np.isnan(samples.thinking)
    thinking = np.where(closed_S, samples.thinking, samples.length).tolist()
    finished = (closed_S | (samples.finish == "stop")).tolist()
    answers, right, score = samples.extracted.tolist(), samples.right.tolist(), samples.score
    ends_N = np.cumsum(samples.count)
    return [
        chains(thinking[i:j], answers[i:j], right[i:j], finished[i:j], _same_quickly, None if score is None else score[i:j])
        for i, j in zip((ends_N - samples.count).tolist(), ends_N.tolist(), strict=True)
    ]


def _same_quickly(first: str, other: str) -> bool:
    equal = compare_quickly(gold=first, answer=other)
    return equal is not None and equal[0]


class Stopped(NamedTuple):
    """What became of k chains that were stopped.

    Attributes:
        right: the vote was right.
        tokens: thinking tokens of all chains until then, those that were stopped included.
        time: thinking tokens of the longest chain that was waited for.
    """

    right: bool
    tokens: float
    time: float


def short_m(k_chains: Chains, m: int) -> Stopped:
    """short-m@k on k chains: stop all when m have thought to the end, and let those vote; ties go to the shortest. m = k is a majority vote.

    Raises:
        ValueError: m is not within 1..k.
    """
    _check(len(k_chains.thinking), len(k_chains.thinking), m)
    winner, stop = elected(k_chains, m), float(k_chains.thinking[m - 1])
    return Stopped(winner >= 0 and bool(k_chains.right[winner]), float(np.minimum(k_chains.thinking, stop).sum()), stop)


def elected(k_chains: Chains, m: int) -> int:
    """Index of the answer that the first m chains elect, ties to the shortest; -1: nobody votes."""
    voters = k_chains.answer[:m]
    votes = np.bincount(voters[voters >= 0], minlength=1)
    return next((int(answer) for answer in voters if answer >= 0 and votes[answer] == votes.max()), -1)  # shortest first


def voted(samples: Samples, m: int, k: int) -> tuple[Samples, Parallel]:
    """Votes of chains that were sampled k together and stopped when m had thought to the end (rollout/short), each as a sample, and what they cost.

    A vote is as long as the thinking of all its chains until then, and the answers of those that vote. It is cut if fewer than m thought to the end,
    and not judged if it is not right and a chain that votes was not judged. The rule is `short_m` on what was kept: a chain that was stopped had
    thought at least as long as the last that votes, so its tokens beyond change nothing.

    Raises:
        ValueError: a problem's samples are no whole sets of k.
    """
    if (uneven := samples.count % k).any():
        place = int(np.flatnonzero(uneven)[0])
        raise ValueError(f"problem {samples.ids[place]}: {samples.count[place]} samples are no whole sets of {k} chains")
    set_S = np.arange(len(samples.problem)) // k
    sets = replace(samples, ids=tuple(map(str, range(len(samples.problem) // k))), problem=set_S)
    votes = of_samples(sets)
    found = [short_m(one, m) for one in votes]
    tokens_V, time_V, right_V = (np.array([getattr(one, name) for one in found]) for name in ("tokens", "time", "right"))
    stopped_S = samples.finish == "stopped"
    answer_S = np.where(stopped_S | np.isnan(samples.thinking), 0, samples.length - samples.thinking)
    unjudged_V = np.add.reduceat(~stopped_S & ~samples.right & ~samples.wrong, np.arange(0, len(set_S), k))
    said = [one.said[winner] if (winner := elected(one, m)) >= 0 else None for one in votes]
    made = replace(
        samples,
        problem=samples.problem[::k],
        right=right_V.astype(bool),
        wrong=~right_V.astype(bool) & (unjudged_V == 0),
        length=tokens_V + np.add.reduceat(answer_S, np.arange(0, len(set_S), k)),
        thinking=tokens_V,
        finish=np.array(["stop" if one.finished[:m].all() else "length" for one in votes]),
        extracted=np.array(said, dtype=object),
    )
    means = {name: float(made.means(values).mean()) for name, values in (("tokens", tokens_V), ("time", time_V))}
    return made, Parallel(votes=float(made.count.mean()), **means, stopped=float(samples.means(stopped_S).mean()))


class Expected(NamedTuple):
    """Means over all k-subsets: share of right votes, thinking tokens of all chains, and of the longest waited for."""

    accuracy: float
    tokens: float
    time: float


def short_m_at_k(stored: Chains, m: int, k: int) -> Expected:
    """short-m@k over all k-subsets of the stored samples, exact. With m = k it is maj@k (cons@k).

    Raises:
        ValueError: not 1 <= m <= k <= n.
    """
    return short_m_over(stored, m, [k])[0]


def short_m_over(stored: Chains, m: int, ks: Sequence[int]) -> list[Expected]:
    """`short_m_at_k` for each k.

    The m-th shortest is the i-th of the n: of the votes among m of the first i those that contain the i-th, times C(n - i, k - m) ways to be longer.
    """
    n, found = len(stored.thinking), []
    for k in ks:
        _check(n, k, m)
    won_i = _won(stored, m, n - (min(ks) - m)) if min(ks) > m else []
    for k in ks:
        if k == n:  # there is one choice
            found.append(Expected(*map(float, short_m(stored, m))))
            continue
        won = sum(ways * math.comb(n - i, k - m) for i, ways in enumerate(won_i, start=m)) if k > m else _right_votes(stored, m)
        length_m = [_expected_rank(stored.thinking, j, k) for j in range(1, m + 1)]
        found.append(Expected(won / math.comb(n, k), sum(length_m) + (k - m) * length_m[-1], length_m[-1]))
    return found


def _won(stored: Chains, m: int, most: int) -> list[int]:
    """Of the m-subsets whose longest is the i-th, those whose plurality is right, for i from m to `most`."""
    if m == 1:
        return [int(answer >= 0 and stored.right[answer]) for answer in stored.answer[:most].tolist()]
    if m == 3:
        return _won_of_three(stored.answer[:most], np.append(stored.right, False))
    votes = [0] + [_right_votes(stored.first(np.arange(i)), m) for i in range(m, most + 1)]
    return [after - before for before, after in pairwise(votes)]


def _won_of_three(answer_n: np.ndarray, right: np.ndarray) -> list[int]:
    """`_won` of three, pair by pair: two that agree win, else the first that has an answer. `right` is False for none."""
    second, first = (
        answer_n[places] for places in np.tril_indices(len(answer_n), -1)
    )  # by the second: those before i are the first i (i - 1) / 2
    agreed, leading, won = (first == second) & (first >= 0), np.where(first >= 0, first, second), []
    for i, third in enumerate(answer_n[2:].tolist(), start=2):
        pairs = slice(i * (i - 1) // 2)
        joined = (leading[pairs] < 0) | ((third >= 0) & ((first[pairs] == third) | (second[pairs] == third)))
        won.append(int(right[np.where(agreed[pairs] | ~joined, leading[pairs], third)].sum()))
    return won


def maj_at_k(stored: Chains, k: int) -> float:
    """Share of k-subsets whose plurality is right, ties to the shortest thinking, exact. Raises as `short_m_at_k`."""
    return short_m_at_k(stored, k, k).accuracy


def best_of_k(stored: Chains, k: int) -> Expected:
    """Share of k-subsets whose best by score is right, equal scores drawn by lot, exact: sum of c_(i) C(n - i, k - 1) / C(n, k), best first. All k are waited for.

    Raises:
        ValueError: nobody scored them, or not 1 <= k <= n.
    """
    n = len(stored.thinking)
    _check(n, k, 1)
    if stored.score is None:
        raise ValueError("best-of-k: samples without scores have no best; sample with --logprobs, or import with --score")
    _, rank_n = np.unique(-stored.score, return_inverse=True)
    share_n = (np.bincount(rank_n, stored.own) / np.bincount(rank_n))[np.sort(rank_n)]  # of equals, in any order
    return Expected(_expected_rank(share_n, 1, k), k * float(stored.thinking.mean()), _expected_rank(stored.thinking, k, k))


def any_of_k(stored: Chains, k: int) -> Expected:
    """pass@k with what it would cost if an oracle stopped all at the shortest right chain, exact over all k-subsets. Raises ValueError: not 1 <= k <= n.

    A subset is told by its shortest right chain: of those that are longer any may be in it, of those that are shorter the wrong ones.
    """
    n, length_n = len(stored.thinking), stored.thinking
    _check(n, k, 1)
    ways, all_ways, won, tokens, time = math.comb, math.comb(n, k), 0.0, 0.0, 0.0
    for i in np.flatnonzero(stored.own).tolist():
        shorter = length_n[:i][~stored.own[:i]]
        others, longer, stop = len(shorter) + n - 1 - i, n - 1 - i, float(length_n[i])
        here, with_one = ways(others, k - 1) / all_ways, ways(others - 1, k - 2) / all_ways if k > 1 and others else 0.0
        won, time = won + here, time + here * stop
        tokens += here * stop + with_one * (float(shorter.sum()) + longer * stop)
    wrong = length_n[~stored.own]
    if len(wrong) >= k:
        none = ways(len(wrong), k) / all_ways
        tokens, time = tokens + none * k * float(wrong.mean()), time + none * _expected_rank(wrong, k, k)
    return Expected(won, tokens, time)


def simulated(stored: Chains, m: int, k: int, draws: int = 1000) -> tuple[Interval, float, float]:
    """short-m@k over random k-subsets: accuracy with the interval of the draws, mean tokens, mean time. Raises as `short_m_at_k`."""
    n = len(stored.thinking)
    _check(n, k, m)
    rng = np.random.default_rng(0)
    seen = np.array([short_m(stored.first(np.sort(rng.choice(n, k, replace=False))), m) for _ in range(draws)], dtype=float)
    accuracy, tokens, time = seen.mean(axis=0)
    return wilson(float(accuracy), draws), float(tokens), float(time)


def _right_votes(voters: Chains, m: int) -> int:
    """Of all m-subsets of the voters, shortest first, the number whose plurality is right.

    A polynomial is one whole number, coefficient d in the bits from d x `bits` on: none exceeds the 2^n subsets there are, so none carries.
    """
    bits = len(voters.thinking) + 1
    answers = [np.flatnonzero(voters.answer == answer).tolist() for answer in range(len(voters.right))]
    total = 0
    for places in (answers[winner] for winner in np.flatnonzero(voters.right)):
        for v in range(1, min(m, len(places)) + 1):
            rivals = [others for others in answers if others is not places and len(others) >= v]
            fewer = [sum(math.comb(len(others), votes) << bits * votes for votes in range(v)) for others in rivals]
            free = len(voters.thinking) - len(places) - sum(map(len, rivals))  # they cannot reach v votes, or do not vote
            silent = (1 + (1 << bits)) ** free
            for taken, shortest in enumerate(places[: len(places) - v + 1], start=1):
                ways = silent
                for others, below in zip(rivals, fewer, strict=True):
                    ways *= below + (math.comb(len(others) - bisect(others, shortest), v) << bits * v)
                total += math.comb(len(places) - taken, v - 1) * (ways >> bits * (m - v) & (1 << bits) - 1)
    return total


def _expected_rank(sorted_n: np.ndarray, j: int, k: int) -> float:
    """Mean over all k-subsets of the j-th smallest of k."""
    n = len(sorted_n)
    return sum(
        float(length) * (math.comb(i - 1, j - 1) * math.comb(n - i, k - j) / math.comb(n, k)) for i, length in enumerate(sorted_n, 1)
    )


def _check(n: int, k: int, m: int) -> None:
    if not 1 <= m <= k <= n:
        raise ValueError(f"short-{m}@{k} of {n} samples: needs 1 <= m <= k <= samples")
