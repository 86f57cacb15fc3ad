"""What stands in the way of closing thinking, after a budget or at once, as far as a local checkpoint's template and vocabulary say: without transformers.

Simplification: the run asks the tokenizer itself (rollout/template), before anything starts; what cannot be read here is left to that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from launch.checkpoints import chat_template, read_json, token_text
from launch.memory import evaluates
from launch.plan_budget import local_tokenizer
from recipes.credit import RedundantCredit
from recipes.schema import Recipe
from rewards.thinking import THINK, Marks, marks_of
from rollout.template_syntax import without_generation

_QUESTION = "What is 3 + 4?"
_BY_MARKS = ("format", "closings", "no_thinking")  # reward terms that read marks, beside those of one part's length
_OTHERS = ("speculative_config", "reasoning_config", "reasoning_parser")  # of vLLM's options: what may keep it from closing where it should


def thinking_blockers(recipe: Recipe) -> Iterator[str]:
    """Why thinking cannot be closed for this recipe, or no budget stated to the model, one sentence each; nothing if it does not ask for that."""
    if recipe.model.path == "tiny" and evaluates(recipe) and any(budget.kind == "requested" for budget in recipe.eval.budgets):
        yield "eval.budgets: requested: the tiny reasoner's prompts are problems alone, so none can ask for a budget; take it out"
    if not recipe.closes_thinking and not forces_thinking(recipe):
        return
    for name in _OTHERS:
        if recipe.engine.kind == "vllm" and name in recipe.engine.vllm:
            yield f"engine.vllm.{name}: with it, vLLM may not close thinking where the recipe says; leave it out"
    if recipe.model.path == "tiny":
        if recipe.data.template:
            yield f"data.template: the tiny reasoner's template reads no {min(recipe.data.template)}: it always leaves thinking open; leave it out"
        if recipe.data.thinking and Marks(*recipe.data.thinking) != THINK:
            yield f"data.thinking: the tiny reasoner closes its thinking with {THINK.close}; leave it out"
        return
    if (read := _read(recipe)) is None:
        return
    folder, tokenizer, template, opening, marks = read
    key = "eval.budgets" if not recipe.closes_thinking else "sampler.no_thinking" if recipe.sampler.no_thinking else "budget.kind"
    closer = tokenizer.encode(marks.close, add_special_tokens=False).ids
    if key == "eval.budgets" and not _has_marks(recipe, marks, tokenizer, template, opening):
        yield (
            f"{key}: forced: neither template nor vocabulary of {folder} has marks of thinking, so there is none to close; "
            "name them in data.thinking, or take it out"
        )
    elif key != "eval.budgets" and (len(closer) != 1 or tokenizer.decode(closer, skip_special_tokens=False) != marks.close):
        # One token may stand for all that is unknown.
        yield (
            f"{key}: thinking is closed by one token, and {folder} has none for {marks.close!r}; "
            "leave it out, or name the marks of the model's thinking in data.thinking"
        )
    elif marks.close in opening and not marks.opened_in(opening):
        yield (
            f"{key}: prompts end in {marks.close!r}, so there is no thinking to close; "
            "let data.template leave thinking on (enable_thinking: true, say), or leave it out"
        )
    elif recipe.sampler.no_thinking and not marks.opened_in(opening):
        yield "sampler.no_thinking: prompts do not open thinking, so no response can begin by closing it; leave it out"


def thinking_warnings(recipe: Recipe) -> Iterator[str]:
    """What looks for marks of thinking which a local model does not have, or for thoughts that its prompts close: terms of the reward, credit."""
    terms = [term.kind for term in recipe.reward if term.kind in _BY_MARKS or getattr(term, "of", "total") != "total"]
    asking = {"reward": ", ".join(dict.fromkeys(terms)), "credit": recipe.credit.kind if isinstance(recipe.credit, RedundantCredit) else ""}
    if not recipe.trains or not any(asking.values()) or (read := _read(recipe)) is None:
        return
    folder, tokenizer, template, opening, marks = read
    if asking["credit"] and marks.close in opening and not marks.opened_in(opening):
        yield f"credit: {asking['credit']}: prompts end in {marks.close!r}, so there are no thoughts to search; let data.template leave thinking on"
    if _has_marks(recipe, marks, tokenizer, template, opening):
        return
    for slot, kinds in asking.items():
        if kinds:
            yield (
                f"{slot}: {kinds} looks for marks of thinking, and neither template nor vocabulary of {folder} has any; "
                "name them in data.thinking, or leave it out"
            )


def forces_thinking(recipe: Recipe) -> bool:
    """Whether evaluations have thinking closed at a budget."""
    return evaluates(recipe) and any(budget.kind in ("forced", "extended") for budget in recipe.eval.budgets)


def _has_marks(recipe: Recipe, marks: Marks, tokenizer: Tokenizer, template: str, opening: str) -> bool:
    """Whether a model's marks of thinking are named, or there is any sign that it has some."""
    written = [template, opening, recipe.data.instruction, tokenizer.get_vocab()]
    return bool(recipe.data.thinking) or marks != THINK or any(mark in text for mark in marks for text in written)


def _read(recipe: Recipe) -> tuple[Path, Tokenizer, str, str, Marks] | None:
    """Folder, tokenizer, chat template, generation prompt and marks of thinking of a local model; None where they cannot be read, which is said by those who check them."""
    folder = Path(recipe.model.path).expanduser()
    if recipe.model.path == "tiny" or (tokenizer := local_tokenizer(recipe)) is None:
        return None
    try:
        template = chat_template(folder)
        opening = _opening(template, folder, recipe.data.template)
        marks = Marks(*recipe.data.thinking) if recipe.data.thinking else marks_of(template, tokenizer.get_vocab(), opening)
        return folder, tokenizer, template, opening, marks
    except Exception:  # of the tokenizers, plain; templates raise what they like, through jinja
        return None


def _opening(template: str, folder: Path, arguments: dict[str, Any]) -> str:
    """What a chat template writes behind the user's turn to let the assistant speak."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    tokens = {
        name: token_text(value) for name, value in (read_json(folder / "tokenizer_config.json") or {}).items() if name.endswith("_token")
    }
    given = {"messages": [{"role": "user", "content": _QUESTION}], "strftime_now": datetime.now().strftime, "raise_exception": _refuse}
    made = environment.from_string(without_generation(template))
    return made.render(**(tokens | given | arguments), add_generation_prompt=True).rpartition(_QUESTION)[2]


def _refuse(words: str) -> None:
    raise ValueError(words)
