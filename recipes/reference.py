"""docs/recipes.md, made from the schema and the shipped recipes: `python -m recipes.reference` writes it, a test keeps it current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recipes.keys import Key, as_written, inside, keys, kinds_of
from recipes.loader import scales, shipped, written
from recipes.schema import Recipe, Section

_HEAD = """# Recipes

<!-- Made by `python -m recipes.reference` from recipes/schema.py and recipes/*.yaml. Change those. -->

A recipe is a YAML file that holds what differs from the recipe it `extends` (a name, a path, or a list of them).
What nobody sets keeps the default listed below. Later wins: `extends`, the recipe, `--scale NAME`, `key=value` on the command line.
Mappings merge; lists are replaced whole. `schedule.NAME: null` takes out an inherited schedule (`schedule: {}` changes nothing, as any empty mapping).
What was said for one kind of a slot (`budget.watch` of `controller`) is not carried to another kind, unless the kinds have it from one place
(`limit`, `room`, `cut`, `cut_stop`; `keep`, `others`). A `waive` goes with the `reward` it was written for: where another list replaces that, it is gone.

Of several parents, every file among them and their ancestors speaks once, in this order:

1. bases, which extend nothing and which no list names after another (`grpo`, `dler`): inherited ones, then those that the list itself names;
2. the others, each after what it extends and after what the list names before it: the first parent's chain, the second's, and so on.

So `extends: [curriculum, controller]` is grpo, dler, curriculum, controller: curriculum keeps its reward, which controller only inherits another for.
Numbers of later files win. What has no middle is refused, with both files' names, unless the recipe itself (or what extends it, the scale, the command line) says it:
two parents' own chains say different lists `reward`, `waive` or `stages`, a different kind of a slot (`budget.kind`, `select.kind`), or both a schedule of one number. Lists are compared by what they come to: 1 is 1.0, and what is left out its default.
A list that names a recipe behind one that extends it is refused, too. A controller beside a schedule of `budget.limit` is no conflict: its share is of the limit of the step.
Budgets of two kinds hold together where the recipe says so: one is the slot's kind, the other stands in `budget.also`.
An entry there begins with what a parent said for that kind: `extends: [toggle, controller]` with `budget: {kind: toggle, also: [{kind: controller}]}` and `data: {instruction: ""}` (controller's states the limit, which a toggle decides later) has the numbers of both recipes, and a number in the entry wins.

    laconic train dler --scale tiny learner.lr=1e-4 stages=[rl,eval]

`stages` run one after the other, each from the checkpoint that the one before hands on:

    stages:
      - reference                        # a bare kind
      - {kind: sft, epochs: 2}           # a mapping: numbers of the kind,
      - kind: rl
        name: phase_1                    # a name, which is also its folder: RUN/stages/phase_1
        changes:                         # and what holds in this stage alone
          budget.limit: 8000
          train.steps: 100
      - rl                               # the record of the last rl stage is the run's own
      - eval                             # behind rl: before and after it
      - merge
      - {kind: eval, name: merged}

Where `model.path` is `tiny`, its cold start comes first, named (`cold_start`) or not. Changes that a stage does not read (`train.steps` of `sft`) are a warning of plan.

A key that does not exist, or a value that is not allowed, stops everything before it starts:

    recipes/mine.yaml:14: sampler.gruop_size: unknown key. Did you mean sampler.group_size? (laconic recipes --keys lists all)

Lengths are policy tokens, times are seconds, log-probabilities are nats, schedules run in steps of the RL loop.
"""


def reference() -> str:
    """The whole text of docs/recipes.md."""
    every = keys()
    parts = [_HEAD, f"There are **{len(every)} keys**.\n", "## Shipped recipes\n"]
    parts += [_card(name, name, words) for name, words in shipped().items()]
    parts += ["## Shipped scales\n"]
    parts += [_card(name, f"scales/{name}", words) for name, words in scales().items()]
    parts += ["## Keys\n", _table([key for key in every if "." not in key.name and "[" not in key.name])]
    for section in dict.fromkeys(key.name.split(".")[0].split("[")[0] for key in every):
        inside = [key for key in every if key.name.startswith((f"{section}.", f"{section}["))]
        if inside:
            parts += [f"### {section}\n", *_said(section), _table(inside)]
    return "\n".join(parts).rstrip() + "\n"


def _card(name: str, file: str, words: str) -> str:
    lines = [f"**{name}**: {words}\n"]
    lines += [f"    {key}: {json.dumps(value)}" for key, value in written(file).items()]
    return "\n".join(lines) + "\n"


def _said(section: str) -> list[str]:
    """A section's docstring, if it has one of its own."""
    if section in _KINDS:
        kinds = kinds_of(inside(inside(Recipe, section), 0))
        return [f"{_KINDS[section]} with a `kind`: {', '.join(f'`{kind}`' for kind in kinds)}.\n"]
    if kinds_of(inside(Recipe, section)):
        return []
    schema: Any = Recipe.model_fields[section].annotation
    return [f"{schema.__doc__.strip()}\n"] if schema.__doc__ and schema.__doc__ != Section.__doc__ else []


_KINDS = {
    "reward": "A list of terms, each",
    "schedule": "A mapping from keys of numbers to how each moves,",
    "stages": "A list of stages, each a bare kind or a mapping",
}


def _table(rows: list[Key]) -> str:
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{key.name}` | {_cell(key.allowed)} | {_default(key.default)} | {_cell(key.description)} |" for key in rows]
    return "\n".join(lines) + "\n"


def _default(value: Any) -> str:
    if value is ...:
        return "(needed)"
    if isinstance(value, list):
        value = [as_written(item) for item in value]
    return f"`{_cell(json.dumps(value))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    (Path(__file__).parent.parent / "docs" / "recipes.md").write_text(reference(), encoding="utf-8")
