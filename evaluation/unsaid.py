"""What cannot be said of the entries shown: why, and what would have to be run so that it can.

Claim: where two entries have nothing in common on a source, or may not be compared there, a sentence says so; it names the commands that evaluate the
one as the other was evaluated. Entries are set against the first, as everywhere.
Simplification: of settings the command names those that must agree; instructions and columns of a set are the recipe's.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks import BENCHMARKS, PROTOCOL
from evaluation.comparisons import Found
from evaluation.results import IMPORTED, Budget, Evaluation, ShortOf
from evaluation.run_folder import Run
from rollout.records import CHARACTERS

_NAMED = 5  # sources that a sentence names
_ENGINES = ("vllm", "reference")  # of this machine; any other samples on a server
_SETTINGS = ("temperature", "top_p", "top_k", "max_tokens")


def unsaid(found: Found) -> list[str]:
    """A sentence for every two entries and what they lack to be compared, and for one entry that stands alone."""
    if len(found.runs) == 1:
        return [*_single(found)]
    first, *others = found.runs
    said = [sentence for other in others for sentence in _between(first, other)]
    for pair in found.comparisons:
        if pair.refused:
            said.append(
                f"So that {pair.new.label} can be compared with {pair.old.label} on {pair.new.evaluation.source}: "
                f"{_remedy(pair.new.run, [pair.old.evaluation], again=True)}."
            )
    return said


def _single(found: Found) -> Iterator[str]:
    """Of one entry that nothing is compared in."""
    [run] = found.runs
    if found.comparisons or not found.alone or (run.trained and run.status.get("state") != "finished"):
        return
    like = [one.evaluation for one in found.alone]
    if like[0].settings.engine == IMPORTED:
        yield f"Nothing is compared: name a second entry, of other samples of the same problems (`laconic import FILE --source {shlex.quote(like[0].source)}`)."
    else:
        yield f"Nothing is compared: name a second entry, of another checkpoint that was evaluated alike ({_commands('CHECKPOINT', like, like[0])})."


def _between(first: Run, other: Run) -> Iterator[str]:
    """What two entries lack: sources that one of them has, and sources that both have at no budget in common, or without a budget in one of them only."""
    held, also = _held(first), _held(other)
    for has, lacks, there, missing in ((first, other, held, also), (other, first, also, held)):
        if only := [source for source in there if source not in missing]:
            named = f"{', '.join(only[:_NAMED])}{', ...' * (len(only) > _NAMED)}"
            like = [there[source].get(None) or next(iter(there[source].values())) for source in only]
            yield (
                f"On {named} nothing can be said of {other.label} against {first.label}: only {has.label} was evaluated there. "
                f"{_remedy(lacks, like)}."
            )
    for source in held:
        if source not in also or None in (common := held[source].keys() & also[source].keys()):
            continue
        lacks, own = (other, held[source]) if None in held[source] else (first, also[source])
        if common and None not in own:
            continue  # at budgets alone, some of which they share
        wanted = own.get(None) or next(iter(own.values()))
        where = f"{other.label} against {first.label} on {source}"
        reason = f"{other.label} was sampled {_asked(also[source])}; {first.label} {_asked(held[source])}"
        start = f"What is said of {where} is of budgets alone" if common else f"Nothing can be said of {where}"
        yield f"{start}: {reason}. {_remedy(lacks, [wanted])}."


def _asked(budgets: Collection[Budget | ShortOf | None]) -> str:
    """At which budgets, in words and in their order."""
    limited = sorted((one for one in budgets if one), key=lambda one: one.place)
    said = ["without a budget"] * (None in budgets) + [f"at {', '.join(one.words for one in limited)}"] * bool(limited)
    return " and ".join(said)


def _held(run: Run) -> dict[str, dict[Budget | ShortOf | None, Evaluation]]:
    """The last evaluation of each source at each budget."""
    found: dict[str, dict[Budget | ShortOf | None, Evaluation]] = {}
    for one in run.evaluations:
        found.setdefault(one.source, {})[one.settings.budget] = one
    return found


def _remedy(run: Run, like: Sequence[Evaluation], again: bool = False) -> str:
    """What to do so that an entry has evaluations like these.

    Args:
        again: it has such of other settings, which lie where these would.
    """
    last = run.evaluations[-1] if run.evaluations else None
    out = f" --out {shlex.quote(_folder(run) + '-again' * again)}"
    then = "; name that folder in its place then" * again
    if last is not None and last.settings.engine == IMPORTED:
        natural = [one for one in like if not one.settings.budget]
        none = ["`laconic import` takes no samples at a budget"] * (len(natural) < len(like))
        asked = [
            f"`{' '.join(['laconic import FILE', f'--source {first}', *options])}{out}`"
            + f" (the same of {', '.join(others)})" * bool(others)
            for options, (first, *others) in _by_options(natural, _imported).items()
        ]
        does = [f"{' and '.join(asked)} would do it, of samples that were made so{then}"] * bool(asked)
        return "; ".join(does + none)
    checkpoint = last.checkpoint if last and not run.trained else ""
    if run.trained:
        checkpoint = _checkpoint_of(run, last) if last else "CHECKPOINT"
        out, then = "", "; name the folder that it writes in place of the run's then"
    return f"{_commands(checkpoint or 'CHECKPOINT', like, last, out)} would do it{then}"


def _checkpoint_of(run: Run, last: Evaluation) -> str:
    """Where a run has what it evaluated: of the stage that trained, a step's checkpoint; of another, the checkpoint that it left."""
    folder = last.table.parent.parent if last.table else run.path
    if last.step:
        return str(folder / "checkpoints" / f"step-{last.step}")
    return str(folder / "checkpoint") if (folder / "checkpoint").is_dir() else "CHECKPOINT"


def _folder(run: Run) -> str:
    path = run.path if run.path.is_dir() else run.path.parent
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _commands(checkpoint: str, like: Sequence[Evaluation], own: Evaluation | None, where: str = "") -> str:
    """`laconic eval` of a checkpoint, as these evaluations were made: once for each set of settings.

    Args:
        own: one of the checkpoint's: what it was sampled on it is to be sampled on again.
        where: what each ends with.
    """
    served = own is not None and own.settings.engine not in (None, IMPORTED, *_ENGINES)
    begins = ["laconic", "eval", *(["--engine-url", "URL", "--engine-model"] if served else []), shlex.quote(checkpoint)]
    said = []
    for options, sources in _by_options(like, _sampled).items():
        named = "--benchmark" if sources[0] in BENCHMARKS else "--data"
        said.append(f"`{' '.join([*begins, *(f'{named} {source}' for source in sources), *options])}{where}`")
    return " and ".join(said)


def _by_options(like: Sequence[Evaluation], options: Callable[[Evaluation], Sequence[str]]) -> dict[tuple[str, ...], list[str]]:
    """The sources of evaluations, quoted, by the options that make them alike."""
    found: dict[tuple[str, ...], list[str]] = {}
    for one in like:
        found.setdefault(tuple(options(one)), []).append(shlex.quote(one.source))
    return found


def _sampled(one: Evaluation) -> list[str]:
    """Of `laconic eval`; a benchmark of which all problems were asked does not say how many."""
    settings, benchmark = one.settings, BENCHMARKS.get(one.source)
    samples = settings.samples or max(row.samples for row in one.per_problem)
    words = [] if benchmark and samples == benchmark.samples else [f"--samples {samples}"]
    if settings.budget:
        words += [settings.budget.option, "--no-natural"]
    known = PROTOCOL if benchmark else {}
    words += [f"eval.{name}={value}" for name, value in _recorded(one).items() if value != known.get(name)]
    if not benchmark or one.problems < benchmark.rows:
        words.append(f"eval.problems={one.problems}")
    if one.source == "tiny" and settings.seed is not None:  # which draws its problems
        words.append(f"seed={settings.seed}")
    return words


def _imported(one: Evaluation) -> list[str]:
    """Of `laconic import`."""
    return [f"--{name.replace('_', '-')} {value}" for name, value in _recorded(one).items()]


def _recorded(one: Evaluation) -> dict[str, Any]:
    """The settings that must agree, as far as they are known; a limit beside lengths in characters is not."""
    unknown = "max_tokens" if one.settings.unit == CHARACTERS else ""
    return {name: value for name in _SETTINGS if (value := getattr(one.settings, name)) is not None and name != unknown}
