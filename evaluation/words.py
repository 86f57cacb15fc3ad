"""Results in words: numbers with their units and intervals, and sentences that claim no more than the interval allows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from evaluation.comparisons import Comparison, Pooled, Span
from evaluation.entries import Shown
from evaluation.results import IMPORTED, Evaluation, Settings, Share
from evaluation.run_folder import Run
from evaluation.statistics import FEWEST, LEVEL, Interval, difference_shown, holm
from evaluation.statistics import non_inferiority as claimed
from rollout.records import CHARACTERS

_NEARLY_ALL = 0.95  # of the samples: a share that no model of the right settings shows


def tokens(value: float | None) -> str:
    """A token count: whole from 10 upwards, thousands apart; an en dash for none."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 9.95 else f"{value:.1f}"


def unit(evaluations: Iterable[Evaluation]) -> str:
    """Of the lengths of all of these: tokens, characters, or "tokens or characters"."""
    return " or ".join(sorted({one.settings.unit for one in evaluations}, reverse=True))


def length(found: Evaluation, of: str = "") -> str:
    """Its mean length, with its unit unless that is `of`, which is said elsewhere."""
    return tokens(found.tokens.mean) + (f" {found.settings.unit}" if found.settings.unit != of else "")


def rulers(found: Iterable[Evaluation]) -> list[str]:
    """What marks the lengths of each where they stand side by side: what counted them, where that differs; else ""."""
    counted = [one.settings.ruler for one in found]
    return counted if len(set(counted)) > 1 else [""] * len(counted)


def limit(settings: Settings) -> str:
    """What a sample may be long: "4,096 tokens". Beside lengths in characters nobody knows what it counts, so it is a number without a unit."""
    return f"{settings.max_tokens:,}" + " tokens" * (settings.unit != CHARACTERS)


def percent(share: float | None, digits: int = 1) -> str:
    """0.799 -> 79.9 %."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.{digits}f} %"


def signed(value: float, digits: int = 1) -> str:
    """+11.3 or −0.4, with a true minus; what rounds to zero has no sign."""
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else ("+" if value > 0 else "−") + text


def number(value: float, digits: int = 3) -> str:
    """A number to so many significant digits, with true minus signs: 0.75, −0.25, 1.2e−5."""
    return re.sub(r"e([-+])0*", r"e\1", f"{value:.{digits}g}").replace("e+", "e").replace("-", "−")


def span(difference: Interval, digits: int = 1) -> str:
    """The 95 % interval of a difference of shares, in points or per cent: "+8.9 to +13.8"."""
    if math.isnan(difference.low):
        return "no interval"
    return f"{signed(100 * difference.low, digits)} to {signed(100 * difference.high, digits)}"


def change_text(change: Interval, problems: int, unit: str, digits: int = 1) -> str:
    """A change with its interval, or the statement that none was shown, again with the interval, which is what says so."""
    if difference_shown(change, problems):
        return f"{signed(100 * change.mean, digits)} {unit}, 95 % interval {span(change, digits)}"
    reason = "" if problems >= FEWEST else f", {problems} problems are too few"
    return f"no difference shown: {signed(100 * change.mean, digits)} {unit}, 95 % interval {span(change, digits)}{reason}"


def non_inferiority(change: Interval, problems: int, delta: float) -> str:
    """The one sentence that may be said of a change of accuracy. Raises as its namesake of `statistics`.

    Args:
        delta: the loss that was allowed beforehand, a share.
    """
    bounds = f"95 % interval {span(change, 2)} points, a loss of {number(100 * delta)} was allowed"
    claim = claimed(change, problems, delta)
    if claim == "too few":
        return f"Nothing can be said of accuracy: {problems} problems are too few, at least {FEWEST} are needed."
    said = {
        "better": "More accurate",
        "not worse": "Less accurate, by less than the margin" if change.high < 0 else "As accurate, within the margin",
        "worse": "Less accurate, by more than the margin",
        "not shown": f"{'Less accurate, and not shown to be within the margin' if change.high < 0 else 'Not shown to be as accurate'}, "
        f"a loss of {number(-100 * change.low)} points is not ruled out",
    }[claim]
    return f"{said} ({bounds})."


def warnings(scores: Evaluation, lenient: bool = False) -> list[str]:
    """What to mend before the numbers of an evaluation are believed, with the remedy; empty where samples end and name answers.

    Args:
        lenient: answers without a box were read.
    """
    silent, cut = scores.no_answer_by, scores.truncated
    found = []
    imported = scores.settings.engine == IMPORTED  # nobody here sets what these were made with
    if scores.not_judged > _NEARLY_ALL:
        found.append(
            f"{percent(scores.not_judged)} of the samples were never made or could not be judged, so accuracy says nothing: "
            f"{'look whether the completions stand in another field (--prediction)' if imported else 'look at their reasons in the samples'}"
        )
    if cut > _NEARLY_ALL:
        found.append(
            f"{percent(cut)} of the samples were cut off at {limit(scores.settings)}, so this says little of the model: "
            f"{'' if imported else 'raise eval.max_tokens, or '}look at the samples whether it ends its answers at all"
        )
    ended = 1 - cut
    boxless, unclosed = (
        sum(silent.get(reason, 0.0) for reason in reasons) for reasons in (("no box", "empty box"), ("thinking not closed",))
    )
    if ended > 1 - _NEARLY_ALL and boxless > _NEARLY_ALL * ended:
        also = "" if lenient else ", or count answers that are stated without one (--lenient)"
        found.append(
            f"{percent(boxless / ended)} of the samples that ended hold no \\boxed{{}} answer, and nothing else counts: "
            f"{'look at the samples whether they were asked for one' if imported else 'ask for it with data.instruction'}{also}"
        )
    if ended > 1 - _NEARLY_ALL and unclosed > _NEARLY_ALL * ended:
        found.append(
            f"{percent(unclosed / ended)} of the samples that ended never closed their thinking, so they hold no answer: "
            "look at the samples whether the model's marks are those of its chat template"
        )
    return found


def headline(found: Sequence[Comparison], entries: int = 1) -> list[str]:
    """What the first screen says of every comparison (`told`), one after the other."""
    return [sentence for one in told(found, entries) for sentence in one]


def told(found: Sequence[Comparison], entries: int = 1) -> list[list[str]]:
    """Of each comparison the claim on accuracy, the numbers behind it, what differs between the two beside, and where the new one is better.

    Args:
        entries: that are shown; of several, a comparison within one names it.
    """
    sentences, several_p = [], adjusted_p(found)
    for one in found:
        several = len(found) > 1 or one.new.evaluation.settings.budget or (entries > 1 and one.old.run is one.new.run)
        where = f"{one.new.evaluation.where}, {one.new.label} against {one.old.label}: " if several else ""
        p = doubted(one, several_p)
        doubt = (
            f" Of {len(several_p)} comparisons one may look so by chance: adjusted for all of them (Holm), p is {number(p, 2)}."
            if p
            else ""
        )
        said = [verdict(one)] if one.refused else [claim(one) + doubt, verdict(one)]
        said += [f"With reservations: {'; '.join(one.remarks)}."] * bool(one.remarks)
        said += [at_budgets(one)] * bool(one.better or one.worse)
        sentences.append([where + said[0], *said[1:]])
    return sentences


def adjusted_p(found: Sequence[Comparison]) -> dict[int, float]:
    """Holm's p of no difference of each comparison that may be made, by its `id`."""
    made = [one for one in found if not one.refused]
    return dict(zip(map(id, made), holm([one.p for one in made]), strict=True)) if made else {}


def doubted(one: Comparison, adjusted: Mapping[int, float]) -> float:
    """Holm's p of a comparison that shows a difference of accuracy alone and not among all (`adjusted_p`); 0 of any other."""
    p = adjusted.get(id(one), 0.0)
    return p if one.bounds is not None and difference_shown(one.bounds, one.problems) and p > LEVEL else 0.0


def pooled(one: Pooled) -> str:
    """One sentence on two models over several benchmarks."""
    shown = one.accuracy.low > 0 or one.accuracy.high < 0
    why = "" if one.p > LEVEL else " (the interval allows for what was not seen)"
    said = f"{'' if shown else f'no difference of accuracy shown{why}, '}{signed(100 * one.accuracy.mean)} points, 95 % interval {span(one.accuracy)}"
    named = ", ".join(one.sources[:5]) + ", ..." * (len(one.sources) > 5)
    named += f"; left out for fewer than {FEWEST} problems: {', '.join(one.few)}" * bool(one.few)
    return (
        f"{one.new} against {one.old} over {len(one.sources)} benchmarks of equal weight ({named}): "
        f"{said} (problems resampled inside each, wider where all of one agree; sign flips of all: p {number(one.p, 2)})."
    )


def claim(one: Comparison) -> str:
    """The one sentence that may be said of accuracy."""
    assert one.bounds is not None
    return non_inferiority(one.bounds, one.problems, one.margin)


def verdict(one: Comparison) -> str:
    """One sentence on an evaluation against another, every number with its noise."""
    before, after = one.old.evaluation, one.new.evaluation
    shares = f"{percent(before.accuracy.mean)} → {percent(after.accuracy.mean)}"
    said = f"Mean length {tokens(before.tokens.mean)} {before.settings.ruler}, and {tokens(after.tokens.mean)} {after.settings.ruler}"
    if alike := before.settings.template == after.settings.template:
        said = f"Mean {after.settings.unit} {tokens(before.tokens.mean)} → {tokens(after.tokens.mean)}"
    if one.bounds is None:
        return f"{said}, accuracy {shares}, but the two cannot be compared: {one.refused}."
    if one.length is None:
        said = "Lengths are not compared"
    elif alike:
        said += f" ({change_text(one.length, one.problems, '%', 0)})"
    else:
        said = f"Length in characters {change_text(one.length, one.problems, '%', 0)}"
    return (
        f"{said}, accuracy {shares} ({change_text(one.bounds, one.problems, 'points')}), "
        f"paired over {one.problems} problems with {asked(before, after)} each."
    )


def at_budgets(one: Comparison) -> str:
    """At which budgets a difference of accuracy is shown."""
    said = [
        f"{word} accurate {' and '.join(_from_to(span) for span in spans)}"
        for word, spans in (("more", one.better), ("less", one.worse))
        if spans
    ]
    return f"Cut after the fact, it is {', and '.join(said)} (at 95 %, for all budgets at once)."


def _from_to(span: Span) -> str:
    return f"at {span.first:,} tokens" if span.first == span.last else f"from {span.first:,} to {span.last:,} tokens"


def single(one: Shown) -> str:
    """One sentence on an evaluation that nothing is compared with."""
    found = one.evaluation
    budget = f", {found.settings.budget.words}" if found.settings.budget else ""
    where = f"One evaluation so far, at step {found.step}{budget}" if one.run.trained else f"{one.label} on {found.where}"
    return f"{where}: {measured(found)}."


def measured(found: Evaluation) -> str:
    """The numbers of an evaluation with their noise."""
    return (
        f"accuracy {_share_with_interval(found.accuracy)} at {length(found)} on average, "
        f"over {found.problems} problems with {asked(found)} each"
    )


def asked(*found: Evaluation) -> str:
    """Of each problem, by all of these: "8 samples", or "4 and 8 samples"."""
    counts = list(dict.fromkeys(samples_each(one) for one in found))
    return f"{' and '.join(counts)} {'vote' if found[-1].parallel else 'sample'}{'s' * (counts != ['1'])}"


def samples_each(found: Evaluation) -> str:
    """Samples of a problem: "8", or "1 to 8" where they are not as many of each."""
    counts = [row.samples for row in found.per_problem]
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def progress(run: Run) -> str:
    """One sentence on training itself, empty before the first step. Training numbers are no evaluation and say so."""
    seen = [record for record in run.metrics if record.get("accuracy") is not None and record.get("length/mean") is not None]
    if not seen:
        return ""
    first, last = seen[0], seen[-1]
    return (
        f"In training, from step {first['step']} to step {last['step']}: "
        f"mean tokens {tokens(first['length/mean'])} → {tokens(last['length/mean'])}, "
        f"accuracy {percent(first['accuracy'])} → {percent(last['accuracy'])} "
        "(sampled training problems, single steps; the evaluations are the evidence)."
    )


def status(run: Run) -> tuple[str, str]:
    """(state, sentence) of a run."""
    state = str(run.status.get("state", "unknown"))
    at, reason = run.status.get("step"), str(run.status.get("reason") or "").strip().rstrip(".")
    sentence = {
        "finished": "The run finished",
        "running": "The run was still going when this was written",
        "failed": "The run failed",
        "stopped": "The run was stopped",
        "no-effective-update": "The run taught nothing: no update had an effect",
        "unknown": "How the run ended is not known: status.json is missing or unreadable",
    }.get(state, f"The run ended as {state}")
    found = run.status.get("best")
    best = [str(name) for name in found] if isinstance(found, list) else []
    order = ", in this order" if len(best) > 1 else ""
    kept = f" Best of its checkpoints on held-out problems, and kept{order}: {', '.join(best)}." if best else ""
    return state, sentence + (f" at step {at}" if at is not None else "") + (f": {reason}." if reason else ".") + kept


def _share_with_interval(share: Share) -> str:
    return f"{percent(share.mean)} (95 % interval {100 * share.low:.1f} to {100 * share.high:.1f})"
