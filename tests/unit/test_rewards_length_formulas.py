"""Length parts, limits and profiles against a plain reading of each formula, on random groups."""

import math
import statistics
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rewards import lengths, profiles


def _right_ones(tokens, right):
    return [n for n, c in zip(tokens, right, strict=True) if c]


def _clip(x, low, high):
    return min(high, max(low, x))


def _sigmoid(x):
    return 1 / (1 + math.exp(-x))


def plain_arora(t, r, f, alpha):
    kept = [n for n, c, done in zip(t, r, f, strict=True) if c and done]

    def whole(n):
        return 1 - alpha * _sigmoid((n - statistics.fmean(kept)) / (statistics.pstdev(kept) + 1e-7))

    return [(whole(n) if c and done else 0) - c for n, c, done in zip(t, r, f, strict=True)]


def plain_kimi(t, r):
    if max(t) == min(t):
        return [0] * len(t)
    score = [0.5 - (n - min(t)) / (max(t) - min(t)) for n in t]
    return [x if c else min(0, x) for x, c in zip(score, r, strict=True)]


def plain_shorterbetter(t, r):
    target = min(_right_ones(t, r), default=statistics.fmean(t))
    return [-abs(n - target) for n in t]


def plain_cosine(t, r, limit):
    def eta(n, least, most):
        return least + 0.5 * (most - least) * (1 + math.cos(math.pi * n / limit))

    def whole(n, c):
        if n > limit:
            return -10
        return eta(n, 1, 2) if c else eta(n, 0, -10)

    return [whole(n, c) - c for n, c in zip(t, r, strict=True)]


def plain_lead(t, r, alpha):
    own = _right_ones(t, r)
    if len(own) < 2:
        return [0] * len(t)
    mean, spread = statistics.fmean(own), statistics.stdev(own)
    return [math.exp(-alpha * (n - mean) / (spread + 1e-6)) - 1 if c else 0 for n, c in zip(t, r, strict=True)]


def plain_linear(t, mean):
    return [-mean * n / max(t) if n else 0 for n in t]


def plain_logarithm(n, limit, k):
    return 0 if n >= limit else math.log(1 + k * (1 - n / limit)) / math.log(1 + k)


def plain_relative(t, r, shape, strength, floor):
    own = [max(1, n) for n in _right_ones(t, r)]

    def factor(n):
        excess = (n - min(own)) / min(own)
        return {
            "linear": lambda: 1 - strength * excess,
            "exponential": lambda: math.exp(-strength * excess),
            "rank": lambda: 1 / (1 + sum(m < n for m in set(own))),
            "binary": lambda: 1.0 if n == min(own) else 0.0,
            "soft": lambda: 1 if n <= strength * statistics.median(own) else 1 - (n / (strength * statistics.median(own)) - 1),
            "saving": lambda: 1 + _clip(1 - n / statistics.fmean(own), 0, 1),
        }[shape]()

    return [max(floor, factor(max(1, n))) - 1 if c else 0 for n, c in zip(t, r, strict=True)]


def plain_top(t, r, reward, top):
    earned = sorted(x for x, c in zip(reward, r, strict=True) if c)
    return [n for n, c, x in zip(t, r, reward, strict=True) if c and x >= earned[max(0, int(len(earned) * top) - 1)]]


def plain_shortest(t, r, reward, top):
    own = _right_ones(t, r)
    if len(set(own)) < 2:
        return [0] * len(t)
    least = sorted(x for x, c in zip(reward, r, strict=True) if c)[max(0, int(len(own) * top) - 1)]
    return [1 if c and n == min(own) and x >= least else 0 for n, c, x in zip(t, r, reward, strict=True)]


def plain_longest(t, r, reward, top):
    if not any(r):
        return [0] * len(t)
    own = plain_top(t, r, reward, top)
    least = sorted(x for x, c in zip(reward, r, strict=True) if c)[max(0, int(sum(r) * top) - 1)]
    if len(set(own)) < 2:
        return [0] * len(t)
    return [-1 if c and x >= least and n == max(own) else 0 for n, c, x in zip(t, r, reward, strict=True)]


def plain_scaling(t, r):
    own = _right_ones(t, r)
    if not own or max(own) == min(own):
        return [0] * len(t)
    weight = {n: 1 - (n - min(own)) / (max(own) - min(own)) for n in own}
    mean = statistics.fmean(weight[n] for n in own)
    return [weight[n] - mean if c else 0 for n, c in zip(t, r, strict=True)]


def plain_zmad(t, r, threshold):
    own = _right_ones(t, r)
    if not own:
        return [0] * len(t)
    median = statistics.median(own)
    mad = statistics.median(abs(n - median) for n in own)
    if mad == 0 or mad / median < 0.015:
        return [0] * len(t)
    return [-1 if c and 0.6745 * (n - median) / mad > threshold else 0 for n, c in zip(t, r, strict=True)]


def plain_overlong(n, limit, buffer):
    if n <= limit - buffer:
        return 0
    return ((limit - buffer) - n) / buffer if n <= limit else -1


def plain_triangle(n, limit):
    if n <= limit:
        return n / limit
    return 1 - (n - limit) / limit if n <= 2 * limit else 0


def plain_factor(n, a, b, floor):
    return 1 if n <= a else max(0, 1 - (n - a) / (b - a) * (1 - floor))


# name: (the function of a group, its plain reading of the same), of tokens, right, finished, limit
FORMULAS = {
    "l1_exact": (lambda t, r, f, m: lengths.l1_exact(t, m, 3e-4), lambda t, r, f, m: [-3e-4 * abs(m - n) for n in t]),
    "l1_max": (
        lambda t, r, f, m: lengths.l1_max(t, r, m, 1e-3, 0.5),
        lambda t, r, f, m: [c * _clip(1e-3 * (m - n) + 0.5, 0, 1) - c for n, c in zip(t, r, strict=True)],
    ),
    "l1_max_code": (
        lambda t, r, f, m: lengths.l1_max_code(t, r, m, 1e-3),
        lambda t, r, f, m: [c * (_clip(1e-3 * (m - n), -1, 1) + 1) / 2 - c for n, c in zip(t, r, strict=True)],
    ),
    "kimi": (lambda t, r, f, m: lengths.kimi(t, r), lambda t, r, f, m: plain_kimi(t, r)),
    "arora": (lambda t, r, f, m: lengths.arora(t, r, f, 0.4), lambda t, r, f, m: plain_arora(t, r, f, 0.4)),
    "o1_pruner": (
        lambda t, r, f, m: lengths.o1_pruner(t, m),
        lambda t, r, f, m: [_clip((m - (n or 1)) / (n or 1), -2, 4) for n in t],
    ),
    "alp": (
        lambda t, r, f, m: lengths.alp(t, r, 1e4),
        lambda t, r, f, m: [-(max(sum(r), 1) / len(t)) * n / 1e4 for n in t],
    ),
    "shorterbetter": (lambda t, r, f, m: lengths.shorterbetter(t, r), lambda t, r, f, m: plain_shorterbetter(t, r)),
    "laser": (
        lambda t, r, f, m: lengths.laser(t, r, m),
        lambda t, r, f, m: [1 if c and n <= m else 0 for n, c in zip(t, r, strict=True)],
    ),
    "laser_de": (
        lambda t, r, f, m: lengths.laser_de(t, r, m, f),
        lambda t, r, f, m: [1 if (c and n <= m) or (not c and n > m and not rep) else 0 for n, c, rep in zip(t, r, f, strict=True)],
    ),
    "overlong": (
        lambda t, r, f, m: lengths.overlong(t, m, m / 5),
        lambda t, r, f, m: [plain_overlong(n, m, m / 5) for n in t],
    ),
    "cosine": (lambda t, r, f, m: lengths.cosine(t, r, m, beyond=-10), lambda t, r, f, m: plain_cosine(t, r, m)),
    "lead": (lambda t, r, f, m: lengths.lead(t, r, 0.05), lambda t, r, f, m: plain_lead(t, r, 0.05)),
    "triangle": (lambda t, r, f, m: lengths.triangle(t, m), lambda t, r, f, m: [plain_triangle(n, m) for n in t]),
    "band": (
        lambda t, r, f, m: lengths.band(t, m),
        lambda t, r, f, m: [1 if n <= m else plain_triangle(n, m) for n in t],
    ),
    "linear": (lambda t, r, f, m: lengths.linear(t, float(np.mean(r))), lambda t, r, f, m: plain_linear(t, sum(r) / len(r))),
    "logarithm": (
        lambda t, r, f, m: lengths.logarithm(t, r, m, 5.0),
        lambda t, r, f, m: [plain_logarithm(n, m, 5) if c else 0 for n, c in zip(t, r, strict=True)],
    ),
    **{
        f"relative {shape}": (
            lambda t, r, f, m, shape=shape: lengths.relative(t, r, shape, 0.7, 0.2),
            lambda t, r, f, m, shape=shape: plain_relative(t, r, shape, 0.7, 0.2),
        )
        for shape in get_args(lengths.Shape)
    },
    "shortest": (
        lambda t, r, f, m: lengths.shortest(t, r, r + 0.1 * f, 0.5),
        lambda t, r, f, m: plain_shortest(t, r, [c + 0.1 * x for c, x in zip(r, f, strict=True)], 0.5),
    ),
    "longest": (
        lambda t, r, f, m: lengths.longest(t, r, r + 0.1 * f, 0.5),
        lambda t, r, f, m: plain_longest(t, r, [c + 0.1 * x for c, x in zip(r, f, strict=True)], 0.5),
    ),
    "profiled": (
        lambda t, r, f, m: profiles.beyond_profile(t, profiles.Profile(m, 3.5, 1.0), 1.0),
        lambda t, r, f, m: [-1 if n >= m + 3.5 else 0 for n in t],
    ),
    "overlong, hard prompts spared": (
        lambda t, r, f, m: lengths.overlong(t, m, m / 5) * lengths.spared(r, f, 1.5),
        lambda t, r, f, m: [
            plain_overlong(n, m, m / 5) * ((sum(r) / len(r)) ** 1.5 if c and done else 1) for n, c, done in zip(t, r, f, strict=True)
        ],
    ),
    "scaling": (lambda t, r, f, m: lengths.scaling(t, r), lambda t, r, f, m: plain_scaling(t, r)),
    "zmad": (lambda t, r, f, m: lengths.zmad(t, r, 2.1), lambda t, r, f, m: plain_zmad(t, r, 2.1)),
    "leash": (lambda t, r, f, m: lengths.leash(t, m), lambda t, r, f, m: [-max(0, n / m - 1) for n in t]),
    "gr3": (
        lambda t, r, f, m: lengths.gr3(t, 0.33),
        lambda t, r, f, m: [1 / (1 + 0.33 * (n / statistics.fmean(t) if any(t) else 1)) for n in t],
    ),
    "profile_band": (
        lambda t, r, f, m: profiles.profile_band(t, r, m, 2 * m, 0.7, held=False),
        lambda t, r, f, m: [c * plain_factor(n, m, 2 * m, 0.7) - c for n, c in zip(t, r, strict=True)],
    ),
    "profile_band held": (
        lambda t, r, f, m: profiles.profile_band(t, r, m, 2 * m, 0.7),
        lambda t, r, f, m: [c * max(0.7, plain_factor(n, m, 2 * m, 0.7)) - c for n, c in zip(t, r, strict=True)],
    ),
}
GATED = ["l1_max", "l1_max_code", "arora", "laser", "lead", "logarithm", "scaling", "zmad", "profile_band", "profile_band held"]
GATED += ["shortest", "longest", *(name for name in FORMULAS if name.startswith("relative"))]


@st.composite
def groups(draw, least=2):
    size = draw(st.integers(least, 9))
    one = st.integers(0, 12) | st.integers(0, 40_000)
    column = st.lists(st.booleans(), min_size=size, max_size=size)
    tokens = draw(st.lists(one, min_size=size, max_size=size))
    return tokens, draw(column), draw(column), draw(st.integers(1, 20) | st.integers(1, 30_000))


@pytest.mark.parametrize("name", FORMULAS)
@given(group=groups())
def test_a_function_is_its_formula(name, group):
    tokens, right, finished, limit = group
    function, plain = FORMULAS[name]
    found = function(np.array(tokens), np.array(right), np.array(finished), limit)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, plain(tokens, right, finished, limit), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", FORMULAS)
@given(group=groups(least=1))
def test_length_parts_are_finite_and_gated_ones_are_zero_for_wrong_answers(name, group):
    tokens, right, finished, limit = map(np.array, group)
    with np.errstate(all="raise", under="ignore"):
        found = FORMULAS[name][0](tokens, right, finished, limit)
    assert found.shape == tokens.shape and np.isfinite(found).all()
    if name in GATED:
        assert not found[~right].any()


@given(ids=st.lists(st.integers(0, 3), max_size=12), size=st.integers(1, 4))
def test_repetition_is_the_share_of_ngrams_seen_before(ids, size):
    seen, repeated, count = [], 0, 0
    for start in range(len(ids) - size + 1):
        gram, count = ids[start : start + size], count + 1
        repeated += gram in seen
        seen.append(gram)
    assert lengths.repetition(ids, size) == pytest.approx(repeated / count if count else 0)
    grams = [ids[start : start + size] for start in range(count)]
    inside = {start + place for start, gram in enumerate(grams) if gram in grams[:start] for place in range(size)}
    assert lengths.repeated(ids, size) == len(inside)


@given(group=groups(least=1), deviations=st.floats(0, 3), min_passing=st.integers(1, 4))
def test_a_profile_and_its_band_are_their_formulas(group, deviations, min_passing):
    tokens, right, _, _ = group
    own = _right_ones(tokens, right)
    counted = own if len(own) >= min_passing else tokens
    rate, mean = len(own) / len(right), statistics.fmean(counted)
    spread = statistics.stdev(counted) if len(counted) > 1 else 0
    profile = profiles.profile_of(tokens, right, min_passing)
    np.testing.assert_allclose(profile, [mean, spread, rate], rtol=1e-9)
    band = profiles.band_of(profile, deviations)
    if rate <= 0.5 or not spread:
        assert band is None
    else:
        np.testing.assert_allclose(band, [mean, mean + deviations * spread, np.interp(rate, [0.5, 1], [1, 0.6])], rtol=1e-9)


@given(group=groups(), alpha=st.sampled_from([0.3, 1.1, 2.3]))
def test_a_dot_limit_is_its_formula(group, alpha):
    tokens = group[0]
    exact = statistics.fmean(tokens) + alpha * statistics.stdev(tokens)
    assume(abs(exact - round(exact)) > 1e-6)  # else rounding decides
    limit = math.floor(exact)
    expected = limit if max(tokens) - limit >= 32 else None
    assert profiles.dot_limit(np.array(tokens), np.ones(len(tokens), bool), alpha) == expected


@given(group=groups(least=1), rho=st.integers(0, 100))
def test_a_percentile_limit_is_its_formula(group, rho):
    ordered = sorted(group[0])
    place = rho / 100 * (len(ordered) - 1)
    low = min(int(place), len(ordered) - 1)
    high = min(low + 1, len(ordered) - 1)
    expected = ordered[low] + (place - low) * (ordered[high] - ordered[low])
    assert profiles.percentile_limit(group[0], rho) == pytest.approx(expected, abs=1e-6)


@given(
    shares=st.lists(st.integers(0, 64), min_size=1, max_size=6),
    rollouts=st.integers(2, 16),
    name=st.sampled_from(["easy", "medium", "hard"]),
    form=st.sampled_from(["paper", "code"]),
)
def test_a_laser_limit_is_its_formula(shares, rollouts, name, form):
    grid = {1024 * (index + 4): share / 64 for index, share in enumerate(sorted(shares))}
    exact = {"easy": 2 * rollouts / 3, "medium": rollouts / 3, "hard": 1}[name]
    size = max(1, math.ceil(exact) if form == "paper" else math.floor(exact))
    expected = next((n for n, share in grid.items() if share * size >= 1), 6000)
    assert profiles.laser_limit(grid, name, rollouts, 6000, form) == min(expected, 6000)


@given(group=groups(), beta=st.floats(0.01, 1), cap=st.floats(0.1, 2))
def test_qglas_is_its_formula_and_keeps_signs(group, beta, cap):
    tokens, right, _, _ = group
    reward = [float(c) for c in right]
    mean = statistics.fmean(reward)
    advantage = [x - mean for x in reward]
    found = profiles.qglas(np.array(advantage), np.array(tokens), np.array(reward), cap, beta)
    own = _right_ones(tokens, right)
    if 0 < len(own) < len(right):
        reference = statistics.fmean(own)
        ordered = sorted(reward)
        place = 0.25 * (len(ordered) - 1)
        low = ordered[int(place)]
        quartile = low + (place - int(place)) * (ordered[int(place) + 1] - low)
        pull = (1 - quartile) / statistics.stdev(reward) * 2 * beta  # right answers' rewards do not differ
        expected = [
            pull * _clip((reference - n) / (reference + 1e-6), 0, cap) / cap if c else 0 for n, c in zip(tokens, right, strict=True)
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    else:
        assert not found.any()
    assert (found >= 0).all() and not found[~np.array(right)].any()


@given(group=groups(), weight=st.floats(0, 2))
def test_gdpo_is_its_formula(group, weight):
    tokens, right, _, _ = group

    def by_group(x):
        mean, spread = statistics.fmean(x), statistics.pstdev(x)
        return [(value - mean) / spread if spread else 0 for value in x]

    def by_others(x):
        out = []
        for index, value in enumerate(x):
            others = x[:index] + x[index + 1 :]
            spread = statistics.stdev(others) if len(others) > 1 else 0
            out.append((value - statistics.fmean(others)) / (spread + 1e-6 if spread else 1))
        return out

    for against, plain in (("group", by_group), ("leave_one_out", by_others)):
        found = profiles.gdpo(np.array([right, tokens], dtype=float), [1, weight], against)
        expected = [a + weight * b for a, b in zip(plain([float(c) for c in right]), plain(tokens), strict=True)]
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)


@given(share=st.floats(0, 1), slope=st.floats(0, 5000))
def test_a_success_weight_is_its_formula_and_stays_between_its_ends(share, slope):
    found = lengths.success_weight(share, slope=slope)
    assert 0.4 <= found <= 1.5
    assert found == pytest.approx(0.4 + 1.1 * _sigmoid(_clip(-slope * (share - 0.75), -700, 700)))


def test_one_rollout_gets_no_relative_part():
    one = np.array([500])
    for right in (np.array([True]), np.array([False])):
        for function in (lengths.kimi, lengths.lead, lengths.scaling, lengths.zmad, lengths.shorterbetter):
            assert function(one, right).tolist() == [0]
        for function in (lengths.shortest, lengths.longest):
            assert function(one, right, np.array([1.0])).tolist() == [0]
        for shape in get_args(lengths.Shape):
            assert lengths.relative(one, right, shape).tolist() == [0]
        assert profiles.dot_limit(one, right) is None
        assert profiles.qglas(np.array([1.0]), one, np.array([1.0])).tolist() == [0]
        assert profiles.gdpo(np.array([[1.0]]), [1], "leave_one_out").tolist() == [0]
