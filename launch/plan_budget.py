r"""What plan says of budgets: those that no answer fits, and prompts that speak of another budget than the recipe gives.

Claim: a limit is refused only where no answer fits it. The shortest answer is taken to be a set's shortest gold as it is written, in `\boxed{}`,
and the end of the turn, in the model's own tokens where its tokenizer is here; else 4: box, gold, brace, end. Simplification: that no
thinking needs to be closed first (the tiny reasoner's always does, which makes 5).
"""

from __future__ import annotations

import difflib
import json
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recipes.budgets import Budget, ControllerBudget, CoverageBudget, DifficultyBudget, PromptBudget, ThinkingBudget
from recipes.columns import number_in
from recipes.schema import Recipe
from rewards.rows import reach
from rewards.verifier.extract import bare
from rollout.budget import request_limit, thinking_limit
from rollout.types import Problem

_LEAST = 4  # tokens of the shortest answer in any vocabulary
_CANDIDATES = 64  # of many golds, those of fewest characters are counted
_IN_ADVANCE = ("prompt", "reference", "controller")  # kinds that decide a limit before sampling, and not always the same
_WORDS = r"(?:[a-z]+[ _-])*(?:budget|limit|token|length)s?"
_NEARLY = re.compile(
    rf"(?<![a-zA-Z])\$?\{{+\s*{_WORDS}\s*(?:[:!.][^{{}}]*)?\}}+|%\({_WORDS}\)[sd]|\$(?:budget|limit)\b|<{_WORDS}>|(?<!\\)\[{_WORDS}\]", re.I
)
_LETTER = re.compile(r"(?<![\w^\\}])(?:\{(?:n|k|num|number)\}|<(?:n|k|num|number)>|\[(?:n|k|num|number)\])", re.I)  # may be mathematics
_PLACE = re.compile(r"(?<![\w^\\}])\{+([A-Za-z]+(?:[ _-][A-Za-z]+)*)(?:[:!.][^{}]*)?\}+")  # not what belongs to a LaTeX command
_TOKENS = re.compile(r"(?P<number>\d[\d,_]*(?:\.\d+)?)\s*(?P<thousand>k?)[ -]*(?:[a-z]+\s+)?tokens?\b", re.I)
_SPEAKS = re.compile(rf"{_TOKENS.pattern}|\b(?:(?:token|length|thinking|reasoning)s?[ -](?:budget|limit)|budget of)\b", re.I)


def local_tokenizer(recipe: Recipe) -> Any:
    """The model's tokenizer where it lies here, as `tokenizers` reads it, which takes no transformers; None elsewhere."""
    file = Path(recipe.model.path).expanduser() / "tokenizer.json"
    if not file.is_file():
        return None
    from tokenizers import Tokenizer

    try:
        found = Tokenizer.from_file(str(file))
        found.no_truncation()
        found.no_padding()
        return found
    except Exception:  # what is wrong with a tokenizer is said by those who need it
        return None


def token_count(tokenizer: Any, text: str) -> int:
    """Tokens of a text as it is, without a template."""
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def shortest_answer(recipe: Recipe, tokenizer: Any, problems: Sequence[Problem]) -> int:
    """Tokens of the shortest possible answer to any of these problems, the end of the turn among them."""
    golds = [gold for problem in problems for gold in problem.golds]
    if tokenizer is None or not golds:
        return _LEAST + (recipe.model.path == "tiny")
    candidates = sorted(dict.fromkeys(golds), key=len)[:_CANDIDATES]
    return min(token_count(tokenizer, f"\\boxed{{{bare(gold)}}}") for gold in candidates) + 1


def budget_blockers(recipe: Recipe, source: str, problems: Sequence[Problem], shortest: int) -> Iterator[str]:
    """Limits below the shortest answer to a set's problems: of the recipe in any step, and of single rows. A sentence each.
    `problems`: with their columns, where they are known; a row without a number is said elsewhere."""
    budgets = recipe.each("budget")
    least, step = min((_rung(budget, budget.limit), step) for step, budget in budgets.items())
    answer = f"the {shortest} tokens of the shortest possible answer to {source}"
    if least < shortest:
        ladder = next((place for place, part in recipe.budget.placed.items() if isinstance(part, DifficultyBudget)), None)
        key = f"{ladder}.ladder" if ladder and least < budgets[step].limit else "budget.limit"
        yield f"{key}: {least} tokens{_since(recipe, step)} are less than {answer}; allow more"
        return
    thinks = _thinks(recipe)
    step, tightest = min(budgets.items(), key=lambda one: _left(one[1], one[1].limit))
    if (left := _left(tightest, tightest.limit)) < shortest:
        moved = ", or where its schedule ends" if f"{thinks}.share" in recipe.schedule else ""
        closed = thinking_limit(tightest, tightest.limit)
        since = _since(recipe, step)
        yield f"{thinks}.share: thinking closes after {closed} of {tightest.limit} tokens{since}, which leaves {left}, less than {answer}; lower it{moved}"
        return
    for place, part in recipe.budget.placed.items():
        if (column := getattr(part, "column", None)) is None:
            continue
        numbers = [(number, problem) for problem in problems if (number := number_in(reach(problem.columns, column))) > 0]
        if not numbers:
            continue
        least_asked = min(numbers, key=lambda one: one[0])[1]  # whatever holds, no other row gets less
        step, held = min(budgets.items(), key=lambda one: _left(one[1], request_limit(one[1].placed[place], least_asked, 0)))
        moved = held.placed[place]
        short = [(problem, limit) for _, problem in numbers if _left(held, limit := request_limit(moved, problem, 0)) < shortest]
        if short:
            problem, limit = short[0]
            advice = f"correct them, raise {place}.least or lower {thinks}.share" if thinks else f"correct them or raise {place}.least"
            yield (
                f"{place}.column: {len(short)} of {len(problems)} rows get{_since(recipe, step)} less than {answer} "
                f"(first: {problem.id}: {limit} tokens by {column}{_closing(held, limit)}); {advice}"
            )


def _left(held: Budget, limit: int) -> int:
    """Tokens into which an answer to a request with this limit must fit, where the rung is the lowest: that, or what closed thinking leaves of the limit, if
    that is less. Never less for a larger limit."""
    return min(_rung(held, limit), limit - (thinking_limit(held, limit) or 0))


def _rung(held: Budget, limit: int) -> int:
    """What the lowest rung of a difficulty leaves of a request's limit; the limit, without one."""
    difficulty = None if held.part(CoverageBudget) else held.part(DifficultyBudget)  # coverage may raise what a rung is a share of
    return difficulty.lowered(limit) if difficulty else limit


def _closing(held: Budget, limit: int) -> str:
    """What the lowest rung and closed thinking leave of a limit, in words; empty where neither is."""
    rung, closed = _rung(held, limit), thinking_limit(held, limit)
    return f", {rung} on the lowest rung" * (rung != limit) + ("" if closed is None else f", of which thinking closes after {closed}")


def _since(recipe: Recipe, step: int) -> str:
    """From which step on numbers of the budget are so, if schedules move them."""
    return f" from step {step} on" if any(name.startswith("budget.") for name in recipe.schedule) else ""


def _thinks(recipe: Recipe) -> str:
    """Where the kind that closes thinking stands; empty without one."""
    return next((place for place, part in recipe.budget.placed.items() if isinstance(part, ThinkingBudget)), "")


def prompt_blockers(recipe: Recipe) -> Iterator[str]:
    """Prompts that state a budget, and not the one that holds."""
    said, moves = recipe.data.instruction, "budget.limit" in recipe.schedule
    nearly = [found.group() for found in _NEARLY.finditer(said)] + [
        found.group() for found in _PLACE.finditer(said) if _means_budget(found[1])
    ]
    for name in dict.fromkeys(nearly):
        if name != "{budget}":
            yield f"data.instruction: holds {name}, which nothing fills in; write {{budget}}"
    if "{budget}" in json.dumps(recipe.data.template):
        yield "data.template: {budget} is filled in in data.instruction only; say it there"
    if "{budget}" not in said and (found := _SPEAKS.search(said)) and (moves or in_advance(recipe)):
        how = "moves by the schedule" if moves else f"is given by {in_advance(recipe)}"
        yield f"data.instruction: says {found.group()!r}, but the limit {how}; write {{budget}} in the number's place"


def in_advance(recipe: Recipe) -> str:
    """The kind that decides limits before sampling, and not always the same, by its key; "" if none does."""
    return next((f"{place}.kind {part.kind}" for place, part in recipe.budget.placed.items() if part.kind in _IN_ADVANCE), "")


def _means_budget(name: str) -> bool:
    """Whether a placeholder's name has a word that is nearly one for a budget."""
    words = ("budget", "limit", "tokens", "token", "length", "len")
    return any(difflib.get_close_matches(word, words, 1, 0.75) for word in re.split("[ _-]", name.lower()))


def budget_warnings(recipe: Recipe, shortest: int, seen: bool) -> Iterator[str]:
    """What can be met, but hardly as meant. `seen`: the rows of every set are known, so that limits from their columns were looked at (`budget_blockers`)."""
    budget, said = recipe.budget, recipe.data.instruction
    thinks, answer = _thinks(recipe), f"the {shortest} tokens of the shortest possible answer"
    remedy = f"raise it, or lower {thinks}.share" if thinks else "raise it"
    for place, part in budget.placed.items():
        if (least := getattr(part, "least", None)) is None:
            continue
        held = min(recipe.each("budget").values(), key=lambda held: _left(held, held.tokens(least)))
        low, limit = held.tokens(least), held.limit
        if not _left(held, low) < shortest <= _left(held, limit):
            continue
        if isinstance(part, PromptBudget) and part.column is None:
            drawn = range(low, limit + 1)
            share = bisect_left(drawn, shortest, key=lambda one: _left(held, one)) / len(drawn)
            leave = "leave less than" if thinks else "are below"
            yield f"{place}.least: {share:.1%} of the drawn limits {leave} {answer}{' when thinking is closed' if thinks else ''}; {remedy}"
        elif isinstance(part, ControllerBudget) or not seen:
            below = f"{_closing(held, low)}, which leaves {_left(held, low)}, less than" if _closing(held, low) else ", below"
            yield f"{place}.least: limits may fall to {low} tokens{below} {answer}; {remedy}"
    yield from _instruction_warnings(recipe)
    for found in _PLACE.finditer(said):
        if len(found[1]) > 1 and not _means_budget(found[1]) and not _LETTER.fullmatch(found.group()):
            yield f"data.instruction: holds {found.group()}, which nothing fills in: only {{budget}} is"
    for letter in _LETTER.finditer(said):
        yield f"data.instruction: holds {letter.group()}, which nothing fills in; write {{budget}} if it stands for the limit"
    if "{budget}" not in said and not in_advance(recipe) and "budget.limit" not in recipe.schedule:
        for number in _TOKENS.finditer(said):
            stated = float(re.sub("[,_]", "", number["number"])) * (1000 if number["thousand"] else 1)
            if stated != budget.limit:
                yield f"data.instruction: says {number.group()!r}, budget.limit is {budget.limit}; {{budget}} in the number's place follows it"


def _instruction_warnings(recipe: Recipe) -> Iterator[str]:
    """Prompts that do not state the limit that holds for them, or another one."""
    budget, said, moves = recipe.budget, recipe.data.instruction, "budget.limit" in recipe.schedule
    if recipe.model.path == "tiny":
        if said != "{budget}" and ("prompt" in budget.kinds or "{budget}" in said):
            yield "data.instruction: the tiny reasoner has no words for an instruction, so it is not told its limit"
    elif "{budget}" not in said and not _SPEAKS.search(said) and (moves or in_advance(recipe)):
        how = "moves by the schedule" if moves else f"is given by {in_advance(recipe)}"
        yield f"data.instruction: the limit {how}, and no prompt states it; {{budget}} in the instruction tells the model"
    if (thinking := budget.part(ThinkingBudget)) and "{budget}" in said:
        limit, closed = f"budget.limit, {budget.limit} tokens", f"{thinking.closes(budget.limit)}"
        if in_advance(recipe):
            limit, closed = "the whole limit of a prompt", f"{thinking.share:g} of that"
        yield f"data.instruction: {{budget}} states {limit}, and thinking closes after {closed}; say which is meant"
