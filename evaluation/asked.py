"""How a row of a benchmark is asked: its text and its gold, whatever its copy calls its columns.

Claim: what copies of a set differ in is their columns' names, and a gold is a text; so an adapter is one function of a row, and one of a gold.
"""

from __future__ import annotations

import hashlib
import random
import re
from decimal import Decimal
from typing import Any

from rewards.golds import golds, marked, no_gold
from rewards.rows import DataError
from rewards.verifier.numbers import as_number
from rollout.layouts import short

OPTIONS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
_INNER = r"((?:[^()]|\([^()]*\))*)"  # of parentheses
Values = dict[str, Any]


def digest(text: str) -> str:
    """What a problem is called by: 12 hex digits of its text alone, however it is spaced, so that copies of it pair."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:12]


def held(values: Values, *names: str) -> Any:
    """The first of these columns that holds something, however it is spelt (`Expected Answer`, expected_answer)."""
    spelt = {
        short(str(name)): value for name, value in values.items() if value is not None and value != "" and value == value
    }  # NaN is none
    return next((spelt[short(name)] for name in names if short(name) in spelt), None)


def plain(values: Values) -> tuple[str, Any]:
    """A problem and its answer; what a worked solution marks; where the question has a body, that before it."""
    asked = [held(values, "body", "context"), held(values, "problem", "question")]
    text = " ".join(part.strip() for part in asked if isinstance(part, str))
    answer = held(values, "answer", "final_answer")
    if answer is None:
        answer = marked(str(held(values, "solution") or ""))
    elif isinstance(answer, str) and ("####" in answer or "\\boxed" in answer):
        answer = marked(answer)
    return text, answer


def numeric(values: Values) -> tuple[str, Any]:
    """As `plain`; rows that are made to have no answer, or have one that is no number, are left out."""
    if short(str(held(values, "perturbation_type"))) == "criticalthinking":
        raise DataError("no numeric gold (critical thinking)")
    text, answer = plain(values)
    if no_gold(str(answer)) or as_number(integer(str(answer))) is None:
        raise DataError(f"no numeric gold ({answer!s:.40})")
    return text, answer


def all_answers(values: Values) -> tuple[str, Any]:
    """As `plain`; of a row that asks for several answers all must be given, so they are one gold."""
    text, answer = plain(values)
    several = golds(answer) if held(values, "is_multiple_answer") in (True, "True", "true") else ()
    return text, ", ".join(several) if len(several) > 1 else answer


def options(values: Values) -> tuple[str, Any]:
    """A question with its options lettered, in an order that the record alone decides; or one that comes with them.

    A row without its question, with an option that is empty, or with two that read alike has no right letter, or two: it is left out.
    """
    ask = "Answer with the letter of the right option."
    if held(values, *OPTIONS) is None:
        text, answer = plain(values)
        return f"{text}\n\n{ask}", answer
    question, right, *wrong = ("" if (found := held(values, name)) is None else str(found).strip() for name in ("question", *OPTIONS))
    if lacking := [name for name, text in zip(("Question", *OPTIONS), (question, right, *wrong), strict=True) if not text]:
        raise DataError(f"its {' and its '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} empty")
    options = [right, *wrong]
    if len({" ".join(option.split()) for option in options}) < len(options):
        raise DataError(f"two of its options are of the same text ({' | '.join(options)!r:.80})")
    random.Random(str(held(values, "record_id") or question)).shuffle(options)  # a text seeds by its SHA-512: the same everywhere
    lettered = [f"{letter}) {option}" for letter, option in zip("ABCD", options, strict=True)]
    return "\n".join([question, "", *lettered, "", ask]), "ABCD"[options.index(right)]


def integer(text: str) -> str:
    r"""A gold that is a whole number, as one: "1,000" -> 1000, "27.0" -> 27, "070" -> 70, "$18" -> 18; any other text as it stands."""
    plain = re.sub(r"\\text\{[^{}]*\}|[\s$\\]", "", text)
    return str(int(Decimal(plain.replace(",", "")))) if re.fullmatch(r"[-+]?(?:\d+|\d{1,3}(?:,\d{3})+)(?:\.0*)?", plain) else text.strip()


def without_unit(text: str) -> str:
    """ASDiv: "9 (apples)" -> 9."""
    return integer(re.sub(r"(?<=\S)\s*\([^()]*\)\s*$", "", text))


def from_code(text: str) -> str:
    r"""A gold that is written as a program writes it, in LaTeX: np.arcsin(10/13), np.sqrt(2), x**2, \exp{a*t}."""
    text = " ".join(text.replace("$ $", " ").split())
    text = re.sub(rf"np\.sqrt\({_INNER}\)", r"\\sqrt{\1}", text)
    text = re.sub(r"np\.log(?=\()", r"\\ln", text)  # numpy's log is the natural one
    text = re.sub(r"np\.([a-z]+)", r"\\\1", text)
    text = re.sub(r"\\exp\{([^{}]*)\}", r"e^{\1}", text)
    text = re.sub(rf"\*\*(?:\({_INNER}\)|(-?[\w.]+))", lambda power: f"^{{{power[1] or power[2]}}}", text)
    return text.replace("*", r" \cdot ")
