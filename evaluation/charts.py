"""Charts of an evaluation's samples: where lengths go, what more samples buy, budgets that were asked for, and the front over checkpoints.

Claim: five kinds of accuracy against tokens are never joined by one line (cut after the fact, forced, extended, requested, several samples), and accuracy by
length is shown within tiers of difficulty, since long and hard go together.
Simplification: tiers are quantiles of the level of problems, or, where all are of one level, of how often the first evaluation shown fails on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evaluation import figures, parallel, words
from evaluation.attempts import all_of_k, g_pass, pass_at_k
from evaluation.efficiency import Point, front, frontier_gap, hypervolume, scaling
from evaluation.entries import ACCENT, Shown
from evaluation.figures import APART, FAINT, LIMIT, RIGHT, WRONG, Panel, around, drawn_dot, drawn_line, error_bars, laid_out, log_axis
from evaluation.lengths import accuracy_by_bin, both_right, conditional_error, relative_bins, savings, tiers
from evaluation.measured import Samples, places
from evaluation.results import Budget, Evaluation, ShortOf
from evaluation.run_folder import Run

_BINS = 24
_TIERS = ("easiest", "easier", "harder", "hardest")
_TIER_COLOURS = ("#a5d3e0", "#5fa8bf", "#2b86a5", "#b5702a")
_METHOD_COLOURS = {"majority": ACCENT, "short-1": "#b5702a", "short-3": "#7a5ea8", "oracle (pass@k)": LIMIT}
_METHODS = (
    "Majority: plurality, ties to the shortest, samples without an answer abstain. short-m: all are stopped when m have thought to the end, and "
    "those vote (2505.17813). Oracle: stops at the shortest right one."
)
_FEWEST_IN_BIN = 20
_GAP_BUDGETS = 6  # a 64th of the limit, and doubled up to half of it


class Sampled(NamedTuple):
    """An evaluation with its samples."""

    shown: Shown
    samples: Samples


def pareto_panel(shown: Sequence[Shown]) -> Panel | None:
    """Accuracy against mean length of all evaluations with the front that none beats; None for fewer than three, or where rulers differ."""
    if len(shown) < 3 or len({one.evaluation.settings.template for one in shown}) > 1:
        return None
    unit, cap = shown[0].evaluation.settings.unit, max(one.evaluation.budget_curve[-1].budget for one in shown)
    hover = f"%{{y:.1f}} % at %{{x:,.0f}} {unit}"
    points = [Point(one.label, one.evaluation.accuracy.mean, one.evaluation.tokens.mean, "") for one in shown]
    best = front(points)
    steps_x = [value for point in best for value in (point.length, point.length)] + [cap]
    steps_y = [0.0] + [100 * point.accuracy for point in best for _ in (0, 1)]
    data = [drawn_line(steps_x, steps_y, "front", FAINT, hover=hover, width=1.6)]
    data += [drawn_dot(one.evaluation, one.label, one.colour, hover=hover) for one in shown]
    share = hypervolume(points, cap)
    low = min(point.length for point in points)
    made = log_axis(laid_out(x=f"mean {unit}", yrange=_near(100 * point.accuracy for point in points)), 0.7 * low, cap)
    note = f"Line: the front, which nothing shown beats in both. It dominates {100 * share:.1f} % of the area up to {cap:,} {unit} (linear axis). {_gaps(shown)}"
    return Panel(f"Accuracy against mean {unit}", figures.keys_of(shown), data, made, note, "%", 360)


def _gaps(shown: Sequence[Shown]) -> str:
    """REG of each against the best of those shown, over the doubling budgets that all curves have; "" for fewer than three of these."""
    curves = [{point.budget: point.accuracy for point in one.evaluation.budget_curve} for one in shown]
    places = [2**step - 1 for step in range(_GAP_BUDGETS) if 2**step <= len(curves[0])]
    budgets = [budget for budget in (list(curves[0])[place] for place in places) if all(budget in curve for curve in curves)]
    if len(budgets) < 3:
        return ""
    accuracy_SB = np.array([[curve[budget] for budget in budgets] for curve in curves])
    told = [f"{one.label} {frontier_gap(own_B, accuracy_SB.max(axis=0)):.2f}" for one, own_B in zip(shown, accuracy_SB, strict=True)]
    return f"REG, what each lacks to the best of these, summed over the budgets {', '.join(f'{budget:,}' for budget in budgets)}: {', '.join(told)}."


def length_panels(found: Sequence[Sampled]) -> list[Panel]:
    """A histogram of lengths for each, right and wrong samples stacked, on one logarithmic axis."""
    edges = _edges(found)
    middle, unit = np.sqrt(edges[:-1] * edges[1:]), found[0].shown.evaluation.settings.unit
    panels = []
    for shown, samples in found:
        data = []
        for name, mask_S, colour in (
            ("right", samples.right, RIGHT),
            ("wrong", samples.wrong & ~samples.cut, WRONG),
            ("cut off", samples.cut & ~samples.right, "#7a3b1d"),
            ("not judged", ~samples.right & ~samples.wrong & ~samples.cut, LIMIT),
        ):
            counts, _ = np.histogram(np.clip(samples.length[mask_S], edges[0], edges[-1]), edges)
            if counts.any():
                data.append(
                    {"type": "bar", "x": middle.tolist(), "y": counts.tolist(), "width": (0.94 * np.diff(edges)).tolist(), "name": name}
                    | {"marker": {"color": colour}, "hovertemplate": f"%{{y}} {name}<extra>around %{{x:,.0f}} {unit}</extra>"}
                )
        made = log_axis(laid_out(x=unit, yrange=[0, None]), edges[0], edges[-1]) | {"barmode": "stack", "bargap": 0}
        keys = [(trace["name"], trace["marker"]["color"], False) for trace in data]
        panels.append(Panel(f"Lengths, {shown.label}", keys, data, made, unit="samples", height=240))
    return panels


def error_panel(found: Sequence[Sampled]) -> Panel:
    """P(wrong, given at least this long) of each; only where enough samples are as long."""
    edges, unit = _edges(found), found[0].shown.evaluation.settings.unit
    data = []
    for shown, samples in found:
        enough = np.array([(samples.length >= edge).sum() >= _FEWEST_IN_BIN for edge in edges])
        wrong = 100 * conditional_error(samples.length, samples.right, edges)
        if enough.any():
            data.append(
                drawn_line(
                    edges[enough].tolist(),
                    wrong[enough].tolist(),
                    shown.label,
                    shown.colour,
                    hover=f"%{{y:.1f}} % wrong from %{{x:,.0f}} {unit} on",
                )
            )
    made = log_axis(laid_out(x=f"at least so many {unit}", yrange=[0, 102]), edges[0], edges[-1])
    note = f"Share of wrong samples among those at least as long; ends where fewer than {_FEWEST_IN_BIN} are."
    return Panel("Mistakes among long samples", figures.keys_of([one.shown for one in found]), data, made, note, "%", 240)


def tier_panels(found: Sequence[Sampled]) -> list[Panel]:
    """Accuracy by length relative to the model's own 99th percentile, within tiers of difficulty, for each."""
    tier_N = _tiers(found[0])
    panels = []
    for shown, samples in found:
        data = []
        own_N = _ordered(tier_N, found[0].samples, samples)
        if own_N is None:
            continue
        table = accuracy_by_bin(samples, relative_bins(samples.length), own_N)
        for tier in sorted({row["tier"] for row in table}):
            rows = [row for row in table if row["tier"] == tier and row["samples"] >= _FEWEST_IN_BIN // 2]
            x, y = [10 * row["bin"] + 5 for row in rows], [100 * row["accuracy"] for row in rows]
            one = drawn_line(x, y, _TIERS[tier], _TIER_COLOURS[tier], hover="%{y:.1f} % around %{x} % of p99", width=1.8)
            one |= {"mode": "lines+markers", "marker": {"size": 5, "color": _TIER_COLOURS[tier]}}
            if rows and all(row["low"] is not None for row in rows):
                one["error_y"] = error_bars(y, [100 * row["low"] for row in rows], [100 * row["high"] for row in rows], _TIER_COLOURS[tier])
            data.append(one)
        keys = [(trace["name"], trace["line"]["color"], False) for trace in data]
        made = laid_out(x="length, % of the model's own 99th percentile", yrange=[0, 104], xrange=[0, 102])
        panels.append(Panel(f"Accuracy by length and difficulty, {shown.label}", keys, data, made, unit="%", height=240))
    return panels


def pairs_panel(old: Sampled, new: Sampled) -> Panel | None:
    """Mean length of right samples of both, on problems that both solve; None where there are none or their lengths are other units."""
    if old.samples.ruler != new.samples.ruler or set(old.samples.ids) != set(new.samples.ids):
        return None
    pairs = both_right(old.samples, new.samples)
    if not len(pairs.problem):
        return None
    both, unit = np.concatenate([pairs.old, pairs.new]), old.shown.evaluation.settings.unit
    low, high = 0.8 * both.min(), 1.2 * both.max()
    names = [f"{old.samples.ids[place]}" for place in pairs.problem]
    dots: dict[str, Any] = {"type": "scatter", "mode": "markers", "x": pairs.old.tolist(), "y": pairs.new.tolist(), "text": names}
    dots |= {
        "marker": {"color": new.shown.colour, "size": 5, "opacity": 0.55},
        "hovertemplate": "%{text}: %{x:,.0f} → %{y:,.0f}<extra></extra>",
    }
    diagonal = drawn_line([low, high], [low, high], "alike", LIMIT, hover="alike", dashed=True, width=1.2)
    made = log_axis(log_axis(laid_out(x=f"{unit}, {old.shown.label}", y=f"{unit}, {new.shown.label}"), low, high), low, high, "yaxis")
    told = [
        f"{_TIERS[row['tier']]} {100 * row['median']:.0f} % [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"
        for row in savings(pairs, _tiers(old))
    ]
    note = (
        f"{len(pairs.problem):,} problems that both solve; {100 * (pairs.ratio > 1).mean():.0f} % of them take longer now. "
        f"Median saving [quartiles] by difficulty: {'; '.join(told)}."
    )
    return Panel("Problems that both solve", [("as long as before", LIMIT, True)], [diagonal, dots], made, note, unit, 240)


def parallel_panels(found: Sequence[Sampled], run: Sequence[tuple[Run, Evaluation]] = ()) -> list[Panel]:
    """Accuracy of each method of parallel.curves against k, thinking tokens and waiting time, three panels each on axes that all share.

    None of those with fewer than three samples a problem.

    Args:
        run: evaluations of chains that were stopped (`Evaluation.parallel`), as marks beside the curves of the same checkpoint.
    """
    drawn = [(one.shown, own, parallel.beside(one.shown, run)) for one in found if (own := parallel.curves(one.samples))]
    panels: list[list[Panel]] = [[] for _ in drawn]
    unit = parallel.unit(drawn[0][0].evaluation) if drawn else ""
    for name, axis, along in (
        ("k", "k, samples of a problem", lambda at: at.k),
        (unit, f"{unit} of all k", lambda at: at.tokens),
        ("time to answer", f"{unit} waited for", lambda at: at.time),
    ):
        data = [
            [_method(shown, curve, along) for curve in own]
            + [_mark(budget, of, along(parallel.of_run(of, budget))) for budget, of in marks]
            for shown, own, marks in drawn
        ]
        xs, ys = ([value for traces in data for trace in traces for value in trace[side]] for side in ("x", "y"))
        for place, (shown, _, _) in enumerate(drawn):
            keys = [(trace["name"], trace["line"]["color"], trace["line"]["dash"] != "solid") for trace in data[place]]
            ticks = sorted(set(xs)) if name == "k" else None
            made = log_axis(laid_out(x=axis, yrange=_near(ys)), 0.9 * min(xs), 1.15 * max(xs), ticks=ticks)
            note = _METHODS if shown is drawn[0][0] and name == "k" else ""
            panels[place].append(Panel(f"{shown.label}, against {name}", keys, data[place], made, note, "%", 260))
    return [panel for own in panels for panel in own]


def _method(shown: Shown, curve: parallel.Curve, along: Callable[[parallel.At], float]) -> dict[str, Any]:
    x, y = [along(at) for at in curve.points], [100 * at.accuracy for at in curve.points]
    told = [
        f"k = {at.k}: {100 * at.accuracy:.1f} % [{100 * at.low:.1f}, {100 * at.high:.1f}], {parallel.cost(at, shown)}"
        for at in curve.points
    ]
    colour = _METHOD_COLOURS.get(curve.method, RIGHT)
    line = drawn_line(x, y, curve.method, colour, hover="%{customdata}", dashed=colour == LIMIT, width=1.8)
    return line | {"mode": "lines+markers", "customdata": told, "marker": {"size": 5, "color": colour}}


def _mark(budget: ShortOf, of: Evaluation, x: float) -> dict[str, Any]:
    """What was run with chains stopped, with its interval."""
    y, colour = [100 * of.accuracy.mean], _METHOD_COLOURS.get(f"short-{budget.first}", WRONG)
    dot = drawn_line([x], y, f"{budget.words}, run", colour, hover="%{y:.1f} % at %{x:,.0f}")
    dot |= {"mode": "markers", "marker": {"color": colour, "size": 10, "symbol": "diamond", "line": {"color": "white", "width": 1.5}}}
    return dot | {"error_y": error_bars(y, [100 * of.accuracy.low], [100 * of.accuracy.high], colour)}


def attempts_panels(shown: Sequence[Shown]) -> list[Panel]:
    """What k attempts reach, and how often it is so again, over k: pass@k, G-Pass@k at one half, pass^k; none for single samples."""
    kinds: dict[str, tuple[Callable[[list[int], list[int], int], np.ndarray], str]] = {
        "pass@k": (
            pass_at_k,
            "One of k is right; unbiased. What more attempts reach if an oracle picks: a shorter model that lost it has become narrower.",
        ),
        "G-Pass@k": (
            lambda samples, right, k: g_pass(samples, right, k, 0.5),
            "At least half of k are right, of even k: half of an odd one is more than half.",
        ),
        "pass^k": (all_of_k, "All of k are right: how far one may rely on it."),
    }
    counts = {one.label: [[getattr(row, key) for row in one.evaluation.per_problem] for key in ("samples", "right")] for one in shown}
    panels = []
    for name, (of, note) in kinds.items():
        data = []
        for one in shown:
            samples, right = counts[one.label]
            ks = [k for k in range(1, min(samples) + 1) if name != "G-Pass@k" or k % 2 == 0]
            if min(samples) > 1:
                y = [100 * float(of(samples, right, k).mean()) for k in ks]
                line = drawn_line(ks, y, one.label, one.colour, hover=f"{name}, k = %{{x}}: %{{y:.1f}} %")
                data.append(line | {"mode": "lines+markers", "marker": {"size": 5, "color": one.colour}})
        if data:
            made = laid_out(x="k", yrange=_near(y for trace in data for y in trace["y"]))
            made["xaxis"] |= {"dtick": max(1, max(len(trace["x"]) for trace in data) // 8)}
            panels.append(Panel(name, figures.keys_of(shown), data, made, note, "%", 260))
    return panels


def asked_panels(found: Mapping[Budget | ShortOf, Sequence[Shown]]) -> list[Panel]:
    """Accuracy at budgets that were forced, and at those that were requested, each kind by itself: one line for each label."""
    panels = []
    limited = [(budget, one) for budget, shown in found.items() if isinstance(budget, Budget) for one in shown]
    for kind in dict.fromkeys(budget.kind for budget, _ in limited):
        lines: dict[str, list[tuple[Budget, Shown]]] = {}
        for budget, one in sorted((item for item in limited if item[0].kind == kind), key=lambda item: item[0].place):
            lines.setdefault(one.label, []).append((budget, one))
        data = [_asked_line(label, line) for label, line in lines.items()]
        xs, limits = [x for trace in data for x in trace["x"]], sorted({budget.limit for line in lines.values() for budget, _ in line})
        unit = words.unit(one.evaluation for line in lines.values() for _, one in line)
        first, last = 0.8 * min(*xs, *limits), 1.2 * max(*xs, *limits)
        made = log_axis(laid_out(x=f"mean {unit} used per sample", yrange=[0, 102]), first, last, ticks=around(limits, first, last))
        what = {
            "forced": "thinking closed by the engine at the budget",
            "requested": "the budget stated in the prompt",
            "extended": "thinking that ends before is told to go on, and closed at the budget",
        }.get(kind, kind)
        note = f"Sampled at each budget: {what}. {'; '.join(_slope(label, line) for label, line in lines.items())}."
        keys = [(label, line[0][1].colour, False) for label, line in lines.items()]
        panels.append(Panel(f"Accuracy at budgets, {kind}", keys, data, made, note, "%", 320))
    return panels


def _asked_line(label: str, line: Sequence[tuple[Budget, Shown]]) -> dict[str, Any]:
    found, colour = [one.evaluation for _, one in line], line[0][1].colour
    x, y = [one.tokens.mean for one in found], [100 * one.accuracy.mean for one in found]
    trace = drawn_line(x, y, label, colour, hover=f"budget %{{text}}: %{{y:.1f}} % at %{{x:,.0f}} {found[0].settings.unit}")
    trace |= {"mode": "lines+markers", "marker": {"size": 6, "color": colour}, "text": [budget.at for budget, _ in line]}
    trace["error_y"] = error_bars(y, [100 * one.accuracy.low for one in found], [100 * one.accuracy.high for one in found], colour)
    return trace


def _slope(label: str, line: Sequence[tuple[Budget, Shown]]) -> str:
    """The budgets of a line, and what it gains along them."""
    told = f"{label}: budgets {', '.join(budget.at for budget, _ in line)}"
    x, y = ([getattr(one.evaluation, name).mean for _, one in line] for name in ("tokens", "accuracy"))
    if not len(set(x)) == len(x) > 1 or max(x) < APART * min(x):  # too near each other for a slope
        return told
    return (
        f"{told}, {words.signed(1e5 * scaling(x, y), 2)} points for each further 1,000 {line[0][1].evaluation.settings.unit} (s1's Scaling)"
    )


def _near(values: Iterable[float]) -> list[float]:
    """A range of per cents around the values, at least 20 wide."""
    found = list(values)
    return [max(0.0, min(min(found) - 5, 80)), min(102.0, max(max(found) + 5, 20))]


def _edges(found: Sequence[Sampled]) -> np.ndarray:
    """Bins of lengths that all share, evenly spaced in the logarithm."""
    low = max(1, min(int(one.samples.length.min()) for one in found))
    high = max(int(one.samples.length.max()) for one in found)
    return np.geomspace(low, max(high, low + 1) * 1.0001, _BINS + 1)


def _tiers(one: Sampled) -> np.ndarray:
    """Tier of each problem of its samples."""
    level = {row.id: row.level for row in one.shown.evaluation.per_problem}
    failed = {row.id: 1 - row.share for row in one.shown.evaluation.per_problem}
    by = level if len(set(level.values())) > 1 else failed
    return tiers([by[id_] for id_ in one.samples.ids])


def _ordered(values_N: np.ndarray, of: Samples, other: Samples) -> np.ndarray | None:
    """The values in the order of the other's problems; None where those differ."""
    return values_N[places(other.ids, of.ids)] if set(of.ids) == set(other.ids) else None
