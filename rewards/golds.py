"""Gold answers out of what data sets hold for them: a value, several of which any will do, a worked solution, or nothing.

Claim: a wrong gold is worse than a missing one, so what only might be an answer is none. A text that ends in a box or in
`#### 72` is a worked solution and its gold is what they mark; any other text is the gold itself, as it stands.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from rewards.rows import nested
from rewards.thinking import split
from rewards.verifier.extract import ABSENT, bare, last_box

_MISSING = ABSENT | {"none", "...", "tbd", "todo", "unknown", "-", "--", "?", "[]", "{}"}
_NO_GOLD = re.compile(
    r"(?:answer:? )?(?:(?:see|the|a|full|complete|formal) )*(?:proofs?|solution|explanation|figure|diagram|image)"
    r"(?: (?:is )?(?:question|problem|only|omitted|required|needed|above|below|follows|missing|given|is left to the reader|not (?:found|required|available)|complete|done))?"
    r"|(?:the )?proof (?:by|of|that|uses) .*|see (?:below|above|attached|text|explanation|proof)|as shown(?: (?:above|below))?|none (?:found|given|available)"
    r"|(?:(?:the|an?|final|correct) )*(?:answer |value |gold )?(?:is |was )?not (?:found|available|applicable|provided|specified|extracted|known)|notfound"
    r"|no (?:final |gold |correct |explicit )*answer(?: (?:found|available|provided|given|extracted))?|(?:answer |proof )?(?:omitted|missing|unavailable|unspecified)"
    r"|(?:(?:the (?:statement|claim|result)|it|this) (?:is |has been )|has been |as |hence |thus |therefore )?(?:now )?(?:proved|proven)|(?:no proof|proof not) needed|(?:\d )?proof"
    r"|(?:the )?answers? (?:will |may )?var(?:y|ies)|unsolved|(?:an )?open problem|(?:error )?timeout|(?:same )?as above|нет|(?:the )?claim follows|(?:to )?(?:prove|be proven|be proved)|q ?e ?d"
    r"|answer|error|invalid|\\(?:blacksquare|square|qed)|[∎□■]|略|无|证明略?|见解析|无答案|нет ответа"
)
_SENTENCE = 12  # words without a formula: nobody's answer would equal them
_MARKED = re.compile(r"####[ \t]*(\S[^\n#]*)\s*\Z")
_LAST_LINE = re.compile(r"(?:^|\n|[.!?] )(?:So,? |Thus,? |Therefore,? |Hence,? )?[Tt]he (?:final )?answer is:?[ \t]*([^\n]+?)\.?\s*\Z")
_UNESCAPED = re.compile(r"(?<!\\)\\(?=[bfnrt][a-zA-Z]{2}|x(?![0-9a-f]{2})|[^'\"\\/bfnrtux])")
_NUMBERS = re.compile(
    r"\[\s*[-+]?[\d.]+(?:e[-+]?\d+)?(?:\s+[-+]?[\d.]+(?:e[-+]?\d+)?)+\s*\]"
)  # as numpy prints them: one pair, or several golds?


def golds(value: Any) -> tuple[str, ...]:
    """The golds that a value holds, any of which will do; () for none.

    A list holds several, also one written as a JSON text of texts (`["1", "2"]`) or as Python or numpy prints it (`['1', '2']`, `['1' '2']`);
    `[1, 2]` stays a text: an interval, or a pair.

    Raises:
        ValueError: true, false, or a mapping without `value` or `ground_truth`.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        held = nested(_UNESCAPED.sub(r"\\\\", value) if value.lstrip()[:1] == "[" else value)
        return golds(held) if isinstance(held, dict) or (isinstance(held, list) and _texts(held)) else (value,)
    if isinstance(value, list):
        return tuple(dict.fromkeys(gold for item in value for gold in golds(item)))
    if isinstance(value, dict):
        for name in ("value", "ground_truth"):
            if name in value:
                return golds(value[name])
    if isinstance(value, float) and value.is_integer():
        return (str(int(value)),)  # whole numbers that a table keeps as floats: AIMO's 142.0
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("it must be a text, a number or a list of those")
    return (str(value),)


def _texts(held: list[Any]) -> bool:
    """Whether a list holds no numbers: `[1, 2]` is a gold itself."""
    return bool(held) and all(_texts(item) if isinstance(item, list) else item is None or isinstance(item, str | dict) for item in held)


def marked(text: str) -> str | None:
    """What a worked solution marks as its answer: behind `####` at its end, in its last box, or behind "The answer is:" on its last line; None if
    it marks nothing. What it thinks before it answers marks nothing."""
    text = split(text)[1] or ""
    if found := _MARKED.search(text):
        return bare(found.group(1))
    if last_box(text) is not None:
        return bare(text)
    found = _LAST_LINE.search(text)
    return found.group(1) if found else None


def no_gold(answer: str) -> str | None:
    """Why a text is no gold answer ("no gold answer (proof)"), None if it may be one."""
    text = answer.strip()
    if not text:
        return "no gold answer"
    plain = re.sub(r"\\(?:text|textbf|mathrm)\{([^{}]*)\}", r"\1", bare(text)).strip(" $*()[].:!\"'")
    words = " ".join(re.sub(r"[_.\-]+", " ", plain.lower()).split())
    if text.lower() in _MISSING or bare(text).lower() in _MISSING or text == "NA" or _NO_GOLD.fullmatch(words):
        return f"no gold answer ({text:.40})"
    if _NUMBERS.fullmatch(text):
        return f"no gold answer (numbers without commas: {text:.40})"
    prose = [] if re.search(r"[$\\\\=]", text) else re.findall(r"[a-zA-Z]{2,}", text)
    return f"no gold answer but a sentence ({text:.40}...)" if len(prose) >= _SENTENCE else None
