"""The model card of a run's model, in the hub's format: front matter that a machine reads, and what a reader should know before using it.

Claim: everything stands in the run's folder; what does not is left out. Results are those of this checkpoint alone. Folders of this machine and
tokens are taken out, as a card is made to be published.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from evaluation import benchmarks, words
from evaluation.budgets import budget_table
from evaluation.comparisons import Found, found_in
from evaluation.entries import Shown
from evaluation.formats import escaped, table, together
from evaluation.model import Model
from evaluation.paired import paired_table
from evaluation.results import Evaluation
from evaluation.run_folder import Run, read_run
from evaluation.tables import Cell, Row, Table, bounds, noise_table, reservations, settings_table, versions_table
from evaluation.templates import environment
from recipes.data import DataSet
from recipes.stages import DpoStage, MergeStage, ReferenceStage, SftStage
from recipes.steps import Step
from rewards.rows import hub_parts

PICTURE = "accuracy.svg"
_PLACE = re.compile(r"^((?:hub:|[\w.-]+@)?)(?:file://)?~?/.*/(?=.)")  # a text that is a path, blanks and all
_FOLDERS = re.compile(r"(?:file://|(?<=hub:)|(?<![\w/.:…~-]))(?:~[\w.-]*)?/(?:[^\s/\"'`|<>,;()]+/)+")  # paths within a text
_TOKENS = re.compile(r"\bhf_\w{16,}")
_PUBLIC = ("started", "revision", "python", "packages", "cpus", "gpus", "template", "date")  # of environment.json
_SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)  # of the longest budget


class _Markdown(str):
    """Text that is Markdown already; all other is escaped when it is printed."""


def of_model(model: Model) -> Found:
    """What a run says of its model: the evaluations of that, each beside what the run began with, and what may be said of the two."""
    run = read_run(model.run)
    own = [one for one in run.evaluations if model.measured_by(one)]
    firsts = {(one.source, one.settings.budget): one for one in reversed(run.evaluations)}
    beside = [firsts[one.source, one.settings.budget] for one in own]
    run.evaluations = [one for one in run.evaluations if one in own or one in beside]
    run.recipe = _placeless(run.recipe)
    return found_in([run])


def card(model: Model, found: Found, at: str, revision: str | None = None, licence: str | None = None) -> str:
    """The card, front matter and text; where something was evaluated it shows `PICTURE`, which lies beside it.

    Args:
        found: of `of_model`.
        at: what users load it by, an id of the hub or a folder.
        revision: branch of the hub that it lies on, None for the main one.
        licence: as the hub names it, None where nobody said.

    Raises:
        ValueError: huggingface_hub does not take the front matter.
    """
    run = found.runs[0]
    known = {key: run.environment[key] for key in _PUBLIC if run.environment.get(key)}
    packages = {name: version for name, version in known.get("packages", {}).items() if version}
    text = environment().overlay(autoescape=False, finalize=_printed).get_template("card.md").render(
        name=run.label, what=_what(model), state=_state(run), picture=PICTURE if found.shown else "",
        said=[*words.headline(found.comparisons), *_alone(found), *together(found)], results=[*_results(model, found)],
        asked=[(source, _markdown(budget_table(found, source))) for source in found.budgets], load=_arguments(model, found), at=_Markdown(json.dumps(at)), revision=_Markdown(f", revision={json.dumps(revision)}" if revision else ""),
        settings=_markdown(settings_table([run])), versions=_markdown(versions_table([replace(run, environment=known | {"packages": packages})])),
        limits=[*_limits(model, found)], recipe=_fenced(_recipe(model)), code=known.get("revision"), version=packages.get("laconic"),
    )  # fmt: skip
    for source in sorted({one.source for one in run.evaluations}, key=len, reverse=True):
        text = text.replace(escaped(source), escaped(_placeless(source)))
    data = ModelCardData(**_front_matter(model, found), license=licence)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_public(text)}"))


def _front_matter(model: Model, found: Found) -> dict[str, Any]:
    recipe, used = model.step.recipe, [one for step in model.made_by for one in _learned_from(step)]
    hub = [hub_parts(one.source)[0] for one in used if _on_hub(one)]
    results = [one for place, evaluation in enumerate(_of_it(found)) for one in _eval_results(model, evaluation, place)]
    return {
        "base_model": recipe.model.path if recipe.model.on_hub else None,
        "datasets": list(dict.fromkeys(hub)) or None,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["laconic", "reasoning"],
        **({"model_name": found.runs[0].label, "eval_results": results} if results else {}),
    }


def _learned_from(step: Step) -> list[DataSet]:
    """The sets that a stage trains on."""
    if isinstance(step.stage, SftStage):
        return step.stage.sets
    return step.recipe.data.sets if step.stage.kind in ("rl", "reference") else []


def _of_it(found: Found) -> list[Evaluation]:
    """The evaluations of the model itself, without budget, one of each source."""
    return [shown[-1].evaluation for shown in found.shown.values()]


def _eval_results(model: Model, found: Evaluation, place: int) -> list[EvalResult]:
    """Accuracy and mean tokens as the hub lists them, each with its noise in its name."""
    unit = found.settings.unit
    accuracy, length, asked = found.accuracy, found.tokens, f"{found.problems} problems x {found.samples}"
    bounds = "" if length.low is None or length.high is None else f", 95 % interval {length.low:,.1f} to {length.high:,.1f}"
    named = {
        "accuracy": (round(accuracy.mean, 4), f"Accuracy, {asked}, 95 % interval {accuracy.low:.4f} to {accuracy.high:.4f}"),
        f"mean_{unit}": (round(length.mean, 1), f"Mean {unit}, at most {found.settings.max_tokens:,}{bounds}"),
    }
    where = {"task_type": "text-generation", "dataset_name": _placeless(found.source)} | _dataset(model, found.source, place)
    return [EvalResult(metric_type=kind, metric_value=value, metric_name=name, **where) for kind, (value, name) in named.items()]


def _dataset(model: Model, source: str, place: int) -> dict[str, str | None]:
    """Where a source of problems lies on the hub; elsewhere its name, with its place so that no two are one."""
    for step in model.steps:
        recipe = step.recipe
        named = dict(zip(recipe.held_out_names, [*recipe.held_out_sets, *recipe.eval.benchmarks], strict=True)).get(source)
        if isinstance(named, str) and benchmarks.fetched(named):
            benchmark, where = benchmarks.find(named)
            return {"dataset_type": hub_parts(where)[0] if where.startswith("hub:") else benchmark.on_hub}
        if isinstance(named, DataSet) and _on_hub(named):
            path, config, revision, split = hub_parts(named.source)
            return {"dataset_type": path, "dataset_config": config, "dataset_revision": revision, "dataset_split": split or named.split}
    name = re.sub(r"[^\w.-]+", "-", _placeless(source).lower()).strip("-.") or "problems"
    return {"dataset_type": f"{name}-{place + 1}" if place else name}


def _on_hub(one: DataSet) -> bool:
    return bool(re.match(r"hub:[^/.~]", one.source))


def _what(model: Model) -> _Markdown:
    """What the model is, in one sentence."""
    recipe = model.step.recipe
    path, tiny = recipe.model.path, recipe.tiny
    if path == "tiny":
        base = (
            f"the tiny reasoner, a transformer of {tiny.layers} layers and width {tiny.width} that is made from random weights "
            f"and taught arithmetic ({', '.join(tiny.families)})"
        )
    elif recipe.model.on_hub:
        base = f"[{escaped(path)}](https://huggingface.co/{path})" + (
            f" at {escaped(recipe.model.revision)}" if recipe.model.revision else ""
        )
    else:
        base = f"the checkpoint {escaped(_placeless(path))}"
    return _Markdown(f"It is {base}, after {escaped(', then '.join(_stage(step, model) for step in model.made_by))}.")


def _stage(step: Step, model: Model) -> str:
    stage, recipe = step.stage, step.recipe
    data = f"on {', '.join(_placeless(one.source) for one in _learned_from(step))}"
    if isinstance(stage, ReferenceStage):
        return f"a reference of {stage.samples} answers to each problem {data}"
    if isinstance(stage, SftStage):
        return f"supervised fine-tuning {data if stage.sets else 'on its own shortest right answers'}"
    if isinstance(stage, DpoStage):
        return "preference optimisation (DPO) on its own shortest right answers"
    if isinstance(stage, MergeStage):
        return f"a merge of the largest {100 * stage.keep:g} % of the changes, scaled by {stage.scale:g}, into what reinforcement learning began with"
    steps = recipe.train.steps
    done = f"{model.number} of {steps}" if step is model.step and model.number != steps else f"{steps}"
    return f"reinforcement learning for {done} steps of {recipe.sampler.prompts} prompts x {recipe.sampler.group_size} answers {data}"


def _state(run: Run) -> str:
    """How the run ended, where that is not as it should."""
    state, sentence = words.status(run)
    return "" if state == "finished" else sentence


def _alone(found: Found) -> list[str]:
    return [f"On {one.evaluation.where}: {words.measured(one.evaluation)}." for one in found.alone]


def _results(model: Model, found: Found) -> Iterator[dict[str, Any]]:
    """Of every source its tables: numbers with their noise, what changed, accuracy at smaller budgets."""
    for source, shown in found.shown.items():
        settings = shown[-1].evaluation.settings
        before = f" {shown[0].label.capitalize()} is {model.of_what(shown[0].evaluation)}." if len(shown) > 1 else ""
        yield {
            "source": source,
            "asked": f"Temperature {settings.temperature}, top_p {settings.top_p}, {f'top_k {settings.top_k}, ' if settings.top_k else ''}at most {words.limit(settings)}.{before}",
            "unit": words.unit(one.evaluation for one in shown),
            "noise": _markdown(noise_table(shown)),
            "pairs": [(pair.old.label, pair.new.label, _markdown(paired_table(pair))) for pair in found.pairs[source]],
            "budgets": _markdown(_budget_table(shown)),
        }


def _budget_table(shown: list[Shown]) -> Table:
    """Accuracy cut after the fact, at the same budgets for all that are shown."""
    curve = shown[-1].evaluation.budget_curve
    budgets = dict.fromkeys(next(p.budget for p in curve if p.budget >= share * curve[-1].budget) for share in _SHARES)
    rows = []
    for one in shown:
        at = {point.budget: point for point in one.evaluation.budget_curve}
        cells = [Cell(words.percent(at[budget].accuracy), bounds(at[budget], 100, 1)) if budget in at else Cell("–") for budget in budgets]
        rows.append(Row(one.label, cells))
    return Table([f"within {budget:,}" for budget in budgets], rows)


def _arguments(model: Model, found: Found) -> dict[str, Any]:
    """How the evaluation asked and sampled, as Python writes it."""
    recipe, measured = model.step.recipe, _of_it(found)
    settings = measured[0].settings if measured else recipe.eval
    asked = recipe.data.instruction
    if not asked and measured and all(one.source in benchmarks.BENCHMARKS for one in measured):
        asked = benchmarks.DIRECTIVE
    text = json.dumps(f"\n\n{_public(asked)}", ensure_ascii=False) if asked else ""
    stated = getattr(settings, "stated_limit", None) or recipe.at(recipe.train.steps).budget.limit
    budget = f'.replace("{{budget}}", "{stated}")' if "{budget}" in asked else ""
    return {
        "behind": _Markdown(f" + {text}{budget}" if text else ""),
        "template": _Markdown("".join(f", {key}={value!r}" for key, value in recipe.data.template.items())),
        "chat": _Markdown(f", chat_template_kwargs={recipe.data.template!r}" if recipe.data.template else ""),
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k or 0,
        "max_tokens": settings.max_tokens,
    }


def _limits(model: Model, found: Found) -> Iterator[str]:
    """What the numbers do not say."""
    if found.sources:
        yield f"Measured on {', '.join(found.sources)} and on nothing else: other subjects, languages, conversations and safety were not looked at."
    else:
        yield "This checkpoint was not evaluated in its run: nothing is known of its accuracy or its lengths."
    run = found.runs[0]
    waived = dict.fromkeys([*(promise for step in model.steps for promise in step.recipe.waive), *(run.status.get("waived") or [])])
    if waived:
        yield f"Promises that the recipe waives: {', '.join(str(promise).replace('_', ' ') for promise in waived)}."
    yield from reservations(found.runs, found.every, found.comparisons)


def _recipe(model: Model) -> str:
    tree = yaml.safe_load((model.run / "recipe.yaml").read_text(encoding="utf-8"))
    return yaml.safe_dump(_placeless(tree), sort_keys=False, allow_unicode=True, width=140)


def _placeless(value: Any) -> Any:
    """A value of a recipe without folders of this machine, in all that it holds: paths keep their last part."""
    if isinstance(value, dict):
        return {key: _placeless(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_placeless(item) for item in value]
    return _public(_PLACE.sub(r"\1…/", value)) if isinstance(value, str) else value


def _public(text: str) -> str:
    """A text without folders of this machine and without tokens."""
    return _TOKENS.sub("hf_…", _FOLDERS.sub("…/", text))


def _markdown(of: Table) -> _Markdown:
    return _Markdown(table(of))


def _fenced(text: str) -> _Markdown:
    """Text as a block of code that it cannot leave."""
    fence = "`" * max(3, *(1 + len(run) for run in re.findall("`+", text)), 3)
    return _Markdown(f"{fence}yaml\n{text}{fence}")


def _printed(value: Any) -> Any:
    """What a template prints: Markdown as it is, everything else as text."""
    return value if isinstance(value, _Markdown) else escaped(str(value))
