"""The tiny reasoner's problems and verbose traces: generated, verifiable arithmetic in which some thinking pays and most is waste.

Four families of graded difficulty. A trace writes every step, checks it again and again, and derives everything anew: the overthinking
of large models, small. Working a multi-digit step out digit by digit pays (the same step can be recalled in one go, which a small model
often gets wrong), and so does checking where a slip is likely: checks go on until two lines agree. All other checking is there to be unlearned.
Simplifications: answers are non-negative integers; slips are uniform noise on a step's result.

Training and held-out problems are disjoint by construction: a hash of what is asked decides the side, whatever the seed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import Literal

from rollout.types import Problem

TASK_VERSION = 3
"""Part of the cold start's cache key: raise it when problems, traces, tokens or the way they are learned change."""

LEVELS = {"chain": 6, "product": 4, "sum": 4, "linear": 4}
"""Family -> number of levels; level 1 is the easiest."""

HELD_OUT_PER_FAMILY = 240
_HELD_OUT_ONE_IN = 6

_RECALL = 0.2  # multi-digit steps written without work
_GUESS = 0.05  # traces that open with the whole answer, unworked
_OPENERS = "wait, ", "wait, ", "hmm, "  # of a re-check
_CHECK_WORKED = 0.7  # checks of a multi-digit step that work it out
_UNWORKED_SLIP = 3  # what is recalled or guessed goes wrong this many times as often
_ROUNDS = 2  # derivations that may follow the first

Split = Literal["train", "heldout"]


def problems(split: Split, families: Sequence[str], seed: int, start: int, count: int) -> list[Problem]:
    """Problems start .. start + count - 1 of a split: a pure function of the arguments, so a position is enough to resume.

    Families take turns, and within a family its levels do. Training problems never end and may repeat; held-out problems are
    HELD_OUT_PER_FAMILY x families, without duplicates.

    Raises:
        ValueError: for an unknown split or family, and past the last held-out problem.
    """
    if split not in ("train", "heldout"):
        raise ValueError(f"tiny task: split {split!r} does not exist; use train or heldout")
    if unknown := set(families) - set(LEVELS):
        raise ValueError(f"tiny task: families {sorted(unknown)} do not exist; choose from {', '.join(LEVELS)}")
    available = HELD_OUT_PER_FAMILY * len(families)
    if split == "heldout" and start + count > available:
        raise ValueError(
            f"tiny task: {count} held-out problems from number {start} on were asked for, {available} exist for {', '.join(families)}"
        )
    return [_numbered(split, families, seed, index) for index in range(start, start + count)]


def problem(family: str, level: int, rng: Random, id: str = "") -> Problem:
    """Draw one problem of either side of the split."""
    text, answer = _DRAW[family](level, rng)
    return Problem(id=id, text=text, answer=str(answer), family=family, level=level)


def is_held_out(text: str) -> bool:
    """Whether a question belongs to the held-out side. The order of factors and addends does not matter."""
    head, _, body = text.partition(": ")
    asked = " ".join(sorted(body.split())) if head in ("Multiply", "Add") else body
    return hashlib.sha256(f"{head}: {asked}".encode()).digest()[0] % _HELD_OUT_ONE_IN == 0


def _numbered(split: Split, families: Sequence[str], seed: int, index: int) -> Problem:
    turn, which = divmod(index, len(families))
    family = families[which]
    number, level = divmod(turn, LEVELS[family])
    level += 1
    if split == "heldout":
        return _held_out_cell(family, level, seed)[number]
    id = f"tiny/train/{seed}/{family}/{level}/{number}"
    rng = Random(id)
    while is_held_out((drawn := problem(family, level, rng, id)).text):  # one in six
        pass
    return drawn


@lru_cache(maxsize=256)
def _held_out_cell(family: str, level: int, seed: int) -> tuple[Problem, ...]:
    """The held-out problems of one family and level, all different."""
    rng = Random(f"tiny/heldout/{seed}/{family}/{level}")
    texts: dict[str, Problem] = {}
    while len(texts) < HELD_OUT_PER_FAMILY // LEVELS[family]:  # every cell has more than that: tests/unit/test_tiny_task.py
        drawn = problem(family, level, rng, f"tiny/heldout/{seed}/{family}/{level}/{len(texts)}")
        if is_held_out(drawn.text):
            texts.setdefault(drawn.text, drawn)
    return tuple(texts.values())


def _draw_chain(level: int, rng: Random) -> tuple[str, int]:
    value = rng.randrange(10)
    asked = str(value)
    for _ in range(level):
        sign, operand = rng.choice("+-*"), rng.randrange(1, 10)
        asked += f" {sign} {operand}"
        value = _modulo_10(value, sign, operand)
    return f"Modulo 10, left to right: {asked}", value


def _draw_product(level: int, rng: Random) -> tuple[str, int]:
    digits, by = [(2, 1), (3, 1), (4, 1), (2, 2)][level - 1]
    a, b = _number(digits, rng), rng.randrange(2, 10) if by == 1 else _number(by, rng)
    return f"Multiply: {max(a, b)} * {min(a, b)}", a * b


def _draw_sum(level: int, rng: Random) -> tuple[str, int]:
    count, digits = [(2, 2), (2, 3), (3, 2), (3, 3)][level - 1]
    addends = [_number(digits, rng) for _ in range(count)]
    return f"Add: {' + '.join(map(str, addends))}", sum(addends)


def _draw_linear(level: int, rng: Random) -> tuple[str, int]:
    x, a, b, d = rng.randrange(2, 100), rng.randrange(2, 10), rng.randrange(2, 50), rng.randrange(1, 9)
    if level == 1:
        return f"Solve: x + {b} = {x + b}", x
    if level == 2:
        return f"Solve: {a} * x = {a * x}", x
    if level == 3:
        return f"Solve: {a} * x + {b} = {a * x + b}", x
    return f"Solve: {a + d} * x + {b} = {d} * x + {a * x + b}", x


def _number(digits: int, rng: Random) -> int:
    return rng.randrange(10 ** (digits - 1), 10**digits)


_DRAW = {"chain": _draw_chain, "product": _draw_product, "sum": _draw_sum, "linear": _draw_linear}


def trace(problem: Problem, rng: Random, recheck: float, rederive: float, slip: float) -> str:
    """A verbose response to a problem: what follows the prompt's `<think>` line, boxed answer included, end token not.

    Args:
        recheck: chance that a step is followed by re-checks.
        rederive: chance that everything is derived again, up to _ROUNDS times.
        slip: chance that a step goes wrong; a later re-check or derivation may repair it.
    """
    pen = _Pen(rng, recheck, slip)
    derive = _DERIVE[problem.family]
    guess = problem.family != "chain" and rng.random() < _GUESS
    answer = _guess(problem, pen) if guess else derive(problem, pen)
    for _ in range(_ROUNDS):
        if rng.random() >= rederive:
            break
        pen.lines.append("again")
        answer = derive(problem, pen)
    return "\n".join([*pen.lines, "</think>", f"\\boxed{{{answer}}}"])


class _Pen:
    """Writes steps line by line, as a nervous reasoner does; `step` returns the value the reasoner then believes."""

    def __init__(self, rng: Random, recheck: float, slip: float) -> None:
        self.rng, self.recheck, self.slip = rng, recheck, slip
        self.lines: list[str] = []

    def step(self, left: str, value: int, work: Sequence[str] = (), sign: str = "=") -> int:
        """Write `left sign value`, worked out or recalled if there is work to do, then perhaps re-checks of it."""
        believed = self._write("", "", left, value, work if self.rng.random() >= _RECALL else (), work, sign)
        if self.rng.random() < self.recheck:
            checks = self.rng.randint(1, 1 if work else 3)
            while checks > 0:
                checked = self._check(believed, left, value, work, sign)
                checks = checks - 1 if checked == believed else 1  # after a "no" one more, until two lines agree
                believed = checked
        return believed

    def _check(self, believed: int, left: str, value: int, work: Sequence[str], sign: str) -> int:
        opener = self.rng.choice(_OPENERS)
        shown = work if self.rng.random() < _CHECK_WORKED else ()
        return self._write(opener, believed, left, value, shown, work, sign)

    def _write(self, opener: str, believed: int | str, left: str, value: int, shown: Sequence[str], work: Sequence[str], sign: str) -> int:
        unworked = bool(work) and not shown
        written = self.slipped(value, modulo_10=sign == "->", unworked=unworked)
        line = f"{opener}{left}: {', '.join(shown)} -> {written}" if shown else f"{opener}{left} {sign} {written}"
        if opener:
            line += ", yes" if written == believed else ", no"
        self.lines.append(line)
        return written

    def slipped(self, value: int, modulo_10: bool = False, unworked: bool = False) -> int:
        """The value, or with the chance of a slip one that is off in one digit."""
        if self.rng.random() >= self.slip * (_UNWORKED_SLIP if unworked else 1):
            return value
        if modulo_10:
            return (value + self.rng.randrange(1, 10)) % 10
        off = 10 ** self.rng.randrange(len(str(value)))
        return value + off if value <= off or self.rng.random() < 0.5 else value - off


def _guess(problem: Problem, pen: _Pen) -> int:
    """The whole answer in one go, then perhaps a check: by substitution where that is cheap, else by deriving it."""
    asked = problem.text.partition(": ")[2]
    believed = pen.slipped(int(problem.answer), unworked=True)
    solving = problem.family == "linear"
    pen.lines.append(f"x = {believed}" if solving else f"{asked} = {believed}")
    if pen.rng.random() >= pen.recheck:
        return believed
    if solving and _substitute(problem, pen, believed):
        return believed
    if not solving:
        pen.lines.append("check")
    return _DERIVE[problem.family](problem, pen)


def _derive_chain(problem: Problem, pen: _Pen) -> int:
    first, *rest = problem.text.partition(": ")[2].split()
    value = int(first)
    while rest:
        (sign, operand), rest = rest[:2], rest[2:]
        value = pen.step(f"{value} {sign} {operand}", _modulo_10(value, sign, int(operand)), sign="->")
        if rest:  # what is left to do: without this line a small model loses its place among the re-checks
            pen.lines.append(" ".join([str(value), *rest]))
    return value


def _derive_product(problem: Problem, pen: _Pen) -> int:
    a, b = _numbers(problem.text)
    units = pen.step(f"{a} * {b % 10}", a * (b % 10), _times_digit(a, b % 10))
    if b < 10:
        return units
    tens = pen.step(f"{a} * {b // 10}", a * (b // 10), _times_digit(a, b // 10))
    return pen.step(f"{tens}0 + {units}", 10 * tens + units, _plus(10 * tens, units))


def _derive_sum(problem: Problem, pen: _Pen) -> int:
    total, *rest = _numbers(problem.text)
    for addend in rest:
        total = pen.step(f"{total} + {addend}", total + addend, _plus(total, addend))
    return total


def _derive_linear(problem: Problem, pen: _Pen, again: bool = True) -> int:
    (a, b), (d, c) = _sides(problem.text)
    if d:
        a = pen.step(f"{a} - {d}", a - d)
    if b:
        c = pen.step(f"{c} - {b}", max(c - b, 0))
    if a > 1:
        c = pen.step(f"{c} / {a}", c // a, _divided_by_digit(c, a))
    if again and pen.rng.random() < pen.recheck and not _substitute(problem, pen, c):
        return _derive_linear(problem, pen, again=False)  # once more only: a reasoner that always slips must end, too
    return c


def _substitute(problem: Problem, pen: _Pen, x: int) -> bool:
    """Put x into both sides; whether they agree."""
    (a, b), (d, c) = _sides(problem.text)
    left, right = pen.slipped(a * x + b), pen.slipped(d * x + c) if d else c
    shown = f"{a} * {x}" if a > 1 else str(x)
    shown += f" + {b} = {left}" if b else f" = {left}"
    if d:
        shown += f", {d} * {x} + {c} = {right}"
    pen.lines.append(f"check {shown}, {'yes' if left == right else 'no'}")
    return left == right


_DERIVE = {"chain": _derive_chain, "product": _derive_product, "sum": _derive_sum, "linear": _derive_linear}


def _modulo_10(value: int, sign: str, operand: int) -> int:
    return {"+": value + operand, "-": value - operand, "*": value * operand}[sign] % 10


def _times_digit(a: int, digit: int) -> list[str]:
    """a x digit by hand, from the right, carries added: `7 * 6 = 42`, then `4 * 6 = 24 + 4 = 28`."""
    work, carry = [], 0
    for place in map(int, reversed(str(a))):
        total = place * digit + carry
        work.append(f"{place} * {digit} = {place * digit} + {carry} = {total}" if carry else f"{place} * {digit} = {total}")
        carry = total // 10
    return work


def _plus(a: int, b: int) -> list[str]:
    """a + b by hand, from the right, carries as a third addend."""
    work, carry = [], 0
    while a or b:
        total = a % 10 + b % 10 + carry
        work.append(f"{a % 10} + {b % 10} + {carry} = {total}" if carry else f"{a % 10} + {b % 10} = {total}")
        a, b, carry = a // 10, b // 10, total // 10
    return work


def _divided_by_digit(c: int, a: int) -> list[str]:
    """c / a by hand, from the left: every line splits off one digit of the quotient (`17 = 5 * 3 + 2`)."""
    work: list[str] = []
    left = 0
    for place in str(c):
        left = 10 * left + int(place)
        if left >= a or work:
            work.append(f"{left} = {left // a} * {a} + {left % a}")
            left %= a
    return work


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _sides(text: str) -> list[tuple[int, int]]:
    """Coefficient and constant of both sides of an equation."""
    sides = []
    for side in text.partition(": ")[2].split(" = "):
        coefficient = constant = 0
        for term in side.split(" + "):
            if term.endswith("x"):
                coefficient = int(term.removesuffix("x").removesuffix(" * ") or 1)
            else:
                constant = int(term)
        sides.append((coefficient, constant))
    return sides
