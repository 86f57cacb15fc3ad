"""Collapse wires: signs that a policy is giving up what it was trained for, seen while accuracy may still look well (P15).

Length pressure can end in answers without a thought, in a few tokens whatever the problem, in one phrase over and over, in thoughts that
never end, or in a policy that is sure of every token. Each has a wire; a wire that trips says so once, with rollouts that show it most
(kept in the samples, rl/samples), until it has been quiet again.
Simplification: bounds are of one step's mean; the length to compare with is that of the first steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import numpy as np

from recipes.schema import Wires
from rewards.lengths import repetition
from rewards.thinking import Marks
from rollout.types import Group, Rollout

_FIRST_STEPS = 5  # whose mean length is the start's
_GRAM = 8  # tokens
_REPEATS = 0.5  # share of n-grams that were there before, from which on a rollout repeats itself


class Collapsed(RuntimeError):
    """A wire tripped, and the recipe says stop."""


@dataclass(frozen=True)
class _Sign:
    """One wire in one step: its value, whether that is too much, and the rollouts that show it."""

    name: str
    value: float
    trips: bool
    words: str
    shown: Sequence[Rollout]


class CollapseWires:
    """Looks at every step; keeps the start's length and which wires have tripped (rl/state)."""

    def __init__(self, settings: Wires, marks: Marks):
        self._settings, self._marks = settings, marks
        self._steps, self._length = 0, 0.0
        self._tripped: set[str] = set()

    def look(self, groups: Sequence[Group], entropy: float | None) -> tuple[dict[str, float | int], list[str]]:
        """Metrics of a step, and what is to be said of it.

        Args:
            groups: all that were sampled.
            entropy: mean over trained tokens, nats; None if nothing trained.
        """
        rollouts = [rollout for group in groups for rollout in group.rollouts if rollout.completion.finish != "abort"]
        if not rollouts:
            return {}, []
        signs = self._signs(rollouts, entropy)
        said = [f"{sign.words}{_samples(sign.shown)}" for sign in signs if sign.trips and sign.name not in self._tripped]
        self._tripped = {sign.name for sign in signs if sign.trips}
        shares = {f"wire/{sign.name}": sign.value for sign in signs if sign.name in ("empty_thinking", "repetition")}
        return shares | {"wire/tripped": len(self._tripped)}, said

    def refuse(self, said: Sequence[str], step: int) -> None:
        """Stop a run at a step whose record and checkpoint stand.

        Args:
            said: of the step, by `look`.

        Raises:
            Collapsed: something was said, and wires.action is stop.
        """
        if self.stops and said:
            raise Collapsed(
                f"step {step}: {'; '.join(said)}. wires.action=stop ends the run here, with a checkpoint, step-{step + 1}: --resume goes on from it, and stops "
                "when another wire trips; or begin a run from an earlier one (model.path), with another budget or reward"
            )

    @property
    def stops(self) -> bool:
        """Whether the recipe wants a run stopped where a wire trips."""
        return self._settings.action == "stop"

    def _signs(self, rollouts: Sequence[Rollout], entropy: float | None) -> list[_Sign]:
        settings, length = self._settings, float(np.mean([rollout.tokens for rollout in rollouts]))
        if self._steps < _FIRST_STEPS:
            self._length = (self._length * self._steps + length) / (self._steps + 1)
            self._steps += 1
        signs = [
            self._share("empty_thinking", rollouts, self._thinks_nothing, settings.empty_thinking, "have an empty thinking block"),
            self._share("repetition", rollouts, _repeats, settings.repetition, "repeat themselves"),
            self._share("cut", rollouts, lambda rollout: rollout.completion.cut, settings.cut, "run into the limit"),
        ]
        if self._steps == _FIRST_STEPS:
            short = length < settings.short * self._length
            words = f"rollouts have {length:.0f} tokens on average, {self._length:.0f} at the start (wires.short {settings.short:g})"
            signs.append(_Sign("short", length, short, words, sorted(rollouts, key=lambda rollout: rollout.tokens)[:3]))
        if entropy is not None:
            low = entropy < settings.entropy
            words = f"the entropy of its tokens is {entropy:.4f} nats (wires.entropy {settings.entropy:g})"
            signs.append(_Sign("entropy", entropy, low, words, sorted(rollouts, key=_surprise)[:3]))
        return signs

    def _share(self, name: str, rollouts: Sequence[Rollout], shows: Callable[[Rollout], bool], most: float, what: str) -> _Sign:
        shown = [rollout for rollout in rollouts if shows(rollout)]
        share = len(shown) / len(rollouts)
        return _Sign(name, share, share > most, f"{share:.0%} of the rollouts {what} (wires.{name} {most:g})", shown[:3])

    def _thinks_nothing(self, rollout: Rollout) -> bool:
        """Whether it closed its thinking, and that holds nothing but white space."""
        if rollout.answer_start is None or rollout.completion.budget_hit:
            return False
        thought = rollout.text.partition(self._marks.close)[0].rpartition(self._marks.open)[2]
        return not thought.strip()

    def state(self) -> dict[str, Any]:
        return {"steps": self._steps, "length": self._length, "tripped": sorted(self._tripped)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._steps, self._length, self._tripped = state["steps"], state["length"], set(state["tripped"])


def _repeats(rollout: Rollout) -> bool:
    return repetition(rollout.completion.ids.tolist(), _GRAM) > _REPEATS


def _surprise(rollout: Rollout) -> float:
    """Mean of -logprob over its own tokens, nats: what one rollout tells of the entropy. Infinite where that is no number."""
    logp_T = rollout.completion.logprobs[rollout.completion.own]
    surprise = -float(logp_T.mean()) if len(logp_T) else inf
    return surprise if isfinite(surprise) else inf


def _samples(rollouts: Sequence[Rollout]) -> str:
    """Which rollouts show it, and how one of them begins."""
    if not rollouts:
        return ""
    return f": rollouts {', '.join(rollout.id for rollout in rollouts)}, the first {' '.join(rollouts[0].text.split())[:80]!r}"
