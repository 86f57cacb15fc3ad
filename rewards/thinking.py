"""Where thinking ends and the answer begins: the marks of public reasoning models, as text.

Claim: what stands behind the last closing mark is the answer, and a completion that opened its thinking and did not close it has none.
One home for the marks: the template finds a model's own (rollout/template), the judge, the format term and pages read them here.
Simplification: marks are text, also where a vocabulary has tokens of their own for them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import cache
from typing import NamedTuple

THOUGHTS = (
    "reasoning_content",
    "reasoning",
    "thinking",
    "thinking_trajectory",
    "reasonings",
)  # of a turn, of a part, or beside a completion


class Marks(NamedTuple):
    """What opens a model's thinking and what closes it."""

    open: str
    close: str

    @property
    def spellings(self) -> tuple[Marks, ...]:
        """The pair itself, and every other that a model with these marks writes instead, opening and closing marks of any."""
        return next((pairs for pairs in MIXED if self in pairs), (self,))

    def opened_in(self, text: str) -> bool:
        """Whether a text opens thinking and leaves it open."""
        opened, closed = (max(map(text.rfind, side)) for side in zip(*self.spellings, strict=True))
        return opened > closed


THINK = Marks("<think>", "</think>")
KNOWN = (
    THINK,  # DeepSeek-R1, Qwen3, QwQ, GLM-4.5, Phi-4-reasoning, Nemotron, MiniMax-M1, Hunyuan, SmolLM3 ...
    Marks("[THINK]", "[/THINK]"),  # Magistral, Ministral
    Marks("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1, OpenThinker
    Marks("<seed:think>", "</seed:think>"),  # Seed-OSS
    Marks("<thought>", "</thought>"),  # EXAONE Deep
    Marks("<thinking>", "</thinking>"),
    Marks("<reasoning>", "</reasoning>"),
    Marks("◁think▷", "◁/think▷"),  # Kimi
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning
    Marks("<|begin_internal_thought|>", "<|end_internal_thought|>"),
    Marks("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss
    Marks("<|im_start|>think", "<|im_start|>answer"),  # s1
    Marks("<|channel>", "<channel|>"),  # Gemma 4
    Marks("<mm:think>", "</mm:think>"),  # MiniMax-M3
    Marks("<ifm|think>", "</ifm|think>"),  # K2
    Marks("<longcat_think>", "</longcat_think>"),  # LongCat
    Marks("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    Marks("<unused94>thought", "<unused95>"),  # MedGemma
    Marks("Here is my thought process:", "Here is my response:"),  # Granite 3.2, as its template asks
    Marks("Here's my thought process:", "Here's my response:"),  # as it writes, too
    Marks("Here\u2019s my thought process:", "Here\u2019s my response:"),
)
MIXED = (KNOWN[-3:],)  # pairs that one model writes side by side
# plain words, too: Granite's, and what is left of s1's and gpt-oss's; they think only if their partner is there or the text stops short
_PLAIN = (("think\n", "\nanswer\n"), ("analysis", "assistantfinal"), *KNOWN[-3:])
_CUT_OFF = re.compile(r"[^\W\d_],?\s*\Z")  # stops at a word
_LEFT, _RIGHT, _WORD = "(?:<|&lt;)", "(?:>|&gt;)", r"(?:(?!end|stop)[a-z]+[_:|])*(?:think(?:ing)?|thoughts?|reasoning|scratchpad)"
_MENTION = r"(?<![`'\"(])(?<!\w )(?<!\w, )"  # "the tag <think> opens": inside of a sentence or of quotes a mark only speaks of itself
_ANY_OPEN = rf"{_LEFT} ?\|? ?{_WORD}(?:_(?:start|begin))? ?\|? ?{_RIGHT}|<details[^<>]*\breasoning\b[^<>]*>(?![^\0]*</details>)"
_ANY_CLOSE = rf"{_LEFT} ?(?:\|? ?/ ?\|? ?{_WORD}|\|?(?:end|stop)_(?:of_)?{_WORD}|\|?{_WORD}_(?:end|stop)) ?\|? ?{_RIGHT}"


# How a closing mark is made of an opening one.
_PARTNERS = (
    (r"<(?=\w)", "</"),
    (r"<\|(?=\w)", "<|/"),
    (r"\[", "[/"),
    ("start", "end"),
    ("begin", "end"),
    ("START", "END"),
    ("prefix", "suffix"),
)
_LAST_MARK = re.compile(r"(<[^<>\s]+>|\[[A-Z_]+\])\s*\Z")


@cache
def _patterns(marks: Marks | None) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What opens thinking and what closes it: a model's own marks, or any known model's in any spelling."""
    pairs = KNOWN if marks is None else marks.spellings
    opening, closing = ("|".join(map(re.escape, side)) for side in zip(*pairs, strict=True))
    if marks is None:
        opening, closing = f"{opening}|{_ANY_OPEN}", f"{closing}|{_ANY_CLOSE}"
    spelt = "<&" if marks is None else ""  # what the patterns for any spelling begin with
    firsts = ("".join(sorted({mark[0] for mark in side} | {*spelt})) for side in zip(*pairs, strict=True))
    opens, closes = (f"(?=[{re.escape(first)}])" for first in firsts)  # one character tells most places where none begins
    return (
        re.compile(f"{opens}{_MENTION}(?:{opening})", re.IGNORECASE),
        re.compile(f"{closes}(?:(?<!`)(?:{closing})|(?:{closing})(?!`))", re.IGNORECASE),
    )


def holds_mark(text: str) -> bool:
    """Whether a text opens or closes thinking with a known model's marks; plain words and what only speaks of a mark do not count."""
    return any(not match.group()[0].isalpha() for pattern in _patterns(None) for match in pattern.finditer(text))


def marks_of(template: str, vocabulary: Collection[str], opening: str = "") -> Marks:
    """A model's marks: those that its prompts open; else those that its chat template writes; else those that its vocabulary has tokens for;
    else the most common.

    Args:
        opening: the generation prompt. What it ends in is an opening mark, whatever its name, if template or vocabulary hold its partner.
    """
    if opened := [pair for pair in KNOWN if pair.opened_in(opening)]:
        return max(opened, key=lambda pair: opening.rfind(pair.open))
    last = _LAST_MARK.search(opening)
    if last and (close := next((close for close in closing_of(last[1]) if close in vocabulary or close in template), None)):
        return Marks(last[1], close)
    written = (marks for marks in KNOWN if marks.close in template or marks.open in template)
    held = (marks for marks in KNOWN if all(mark in vocabulary or _made_of(mark, vocabulary) for mark in marks))
    return next(written, None) or next(held, None) or THINK


def marks_in(texts: Collection[str]) -> tuple[Marks, bool]:
    """The known marks that most of a model's texts hold, the most common ones without any, and whether its prompts opened thinking: a text closes what it did not open."""
    held = {pair: sum(pair.open in text or pair.close in text for text in texts) for pair in KNOWN}
    marks = max(held, key=held.__getitem__) if any(held.values()) else THINK
    opens, closes = zip(*marks.spellings, strict=True)
    begun = (text.split(close, 1)[0] for text in texts for close in closes if close in text)
    return marks, any(not any(opener in start for opener in opens) for start in begun)


def _made_of(mark: str, vocabulary: Collection[str]) -> bool:
    """Whether a vocabulary has tokens of their own for several parts of a mark, which a template may join (gpt-oss's)."""
    parts = re.findall(r"<[^<>]+>", mark)
    return len(parts) > 1 and all(part in vocabulary for part in parts)


def closing_of(mark: str) -> tuple[str, ...]:
    """What may close thinking that a mark opens, by the name alone."""
    partners = (re.sub(pattern, by, mark, count=1) for pattern, by in _PARTNERS)
    return tuple(partner for partner in partners if partner != mark)


def closing(text: str, marks: Marks | None = None) -> tuple[int, int] | None:
    """Where the mark that closes a text's thinking begins and ends; None if nothing closes it, or it is opened again behind that. As `split` has it."""
    last, opened = _last(text, marks)
    return None if last is None or any(opened) else last


def _last(text: str, marks: Marks | None) -> tuple[tuple[int, int] | None, Iterator[re.Match[str]]]:
    """Where the last closing mark of a text begins and ends, None without one, and what opens thinking behind it."""
    opens, closes = _patterns(marks)
    last = max(closes.finditer(text), key=re.Match.end, default=None)
    return (None, opens.finditer(text)) if last is None else (last.span(), opens.finditer(text, last.end()))


def split(text: str, marks: Marks | None = None, thinking: bool = False, cut: bool = False) -> tuple[str, str | None]:
    """Thinking with its closing mark, and the answer behind it; None for the answer if thinking never closed.

    Args:
        text: the completion, without its prompt.
        marks: the model's own; None: of whatever known model's marks the text holds.
        thinking: a closing mark is required, even if the completion shows no opening one (many chat templates put it into the prompt).
            Without it, a text free of marks is all answer.
        cut: the completion was cut off: plain words that may open thinking do, if nothing closes it.
    """
    last, opening = _last(text, marks)
    start = last[1] if last else 0
    opened = any(start or marks or not match.group()[0].isalpha() for match in opening)
    for opener, closer in _PLAIN if not (marks or start or opened) else ():
        if text.startswith(opener):
            if (end := text.find(closer)) >= 0:
                return text[: end + len(closer)], text[end + len(closer) :]
            opened = cut or _CUT_OFF.search(text) is not None or text[len(opener) - 1 : len(opener) + 1].isalpha()  # some think no further
    return (text, None) if opened or (thinking and not start) else (text[:start], text[start:])
