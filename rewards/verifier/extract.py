r"""The final answer of a completion: the text behind the thinking, and in it the last box. Nothing else is ever read.

Rules: what stands behind the thinking (rewards/thinking) is the answer segment; the last \boxed{}, \fbox{} or \framebox{} of that segment is the
answer (with boxes that only "and", "or" or commas join to it), even if it is broken: then there is none, since an earlier box was a step.
Simplification: no box, no answer. Reading numbers out of prose accepts unfinished chains ("... maybe 13").
"""

from __future__ import annotations

import re

from rewards.thinking import THINK, Marks, split

ABSENT = frozenset(["", "null", "nil", "nan", "n/a", "#n/a", "<na>", "[unk]"])  # what exports write for a gold that is not there

_BOX = re.compile(
    r"\\(?:boxed|fbox|framebox)(?:\s*\{(?!\s*\?\s*\})|(?![a-zA-Z])\s*(-?\d{1,30}(?:\.\d{1,30})?(?![.,]?(?:[\w^/]|\\(?![)\],; ])))|[A-Za-z](?=\s*(?:\$|\\\)|\\\]|\.?\s*$))))"
)
_HASHES = re.compile(r"(?:.*\n)?[ \t]*####[ \t]*(\S[^\n]*)\s*", re.DOTALL)  # the end of a worked solution of GSM8K
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_WORDS = r"\b(?:and|or)\b|[和或与與及と]|または|또는|및"
_IN_TEXT = r"\\(?:text|textrm|mathrm|mbox)\{\s*,?\s*(?:and|or|[和或与與及])?\s*\}"
_JOINT = re.compile(rf"(?:[\s,;$~，、；]|\\[()\[\]!,;: ]|\\q?quad|{_IN_TEXT}|{_WORDS})*")
_JOINING_WORD = re.compile(_WORDS)
_JOINING = re.compile(rf"(?<!\\)[,;，、；]|{_WORDS}")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_NAME = r"([a-zA-Z](?:_(?:\w|\{\w+\}))?)[ \t]*=[ \t]*"
_NAME_BEFORE = re.compile(rf"(?:^|[\s$(\[,;，、；和或与與及]){_NAME}$")
_NAMED_JOINT = re.compile(rf"(?:[\s$]|\\[()\[\]])*(?:[,;，、；]|{_WORDS}|{_IN_TEXT})(?:[\s$]|\\[()\[\],;: ]|\\q?quad|{_WORDS})*{_NAME}")
_MOST_BOXES = 20
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))


def _closing(text: str, start: int) -> int | None:
    """Where the brace that was opened before `start` closes."""
    depth = 1
    for match in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.start()
    return None


def _inside(text: str, box: re.Match[str]) -> tuple[str, int] | None:
    r"""What a box holds and where it ends; without braces (\boxed 7) one number or letter. None if its braces never balance."""
    if box.group(1):
        return box.group(1), box.end()
    end = _closing(text, box.end())
    return None if end is None else (text[box.end() : end], end + 1)


def _parted(between: str) -> bool:
    """Whether boxes with this between them are a step and the answer: on lines of their own that nothing joins, or apart as displays that a comma ends."""
    if _BLANK_LINE.search(between):
        return not _JOINING_WORD.search(between)
    return "\n" in between and not _JOINING.search(between)


def last_box(text: str) -> str | None:
    r"""What the last \boxed{...}, \fbox{...} or \boxed 7 holds; None without one, or if its braces never balance.

    Boxes joined to it by nothing but commas, "and" or "or", or by nothing on its line, belong to it: \boxed{2} and \boxed{3} is the list "2, 3",
    with names "x=2, y=3".
    An escaped brace (\{) is text, not nesting. Linear in the length of the text.
    """
    boxes = list(_BOX.finditer(text))[-_MOST_BOXES:]
    if not boxes or (last := _inside(text, boxes[-1])) is None:
        return None
    held, next_start = [last[0]], boxes[-1].start()
    starts = [next_start]
    for box in reversed(boxes[:-1]):
        found = _inside(text[:next_start], box)
        if (
            found is None
            or not (held[0].strip() and found[0].strip())
            or not (_JOINT.fullmatch(text, found[1], next_start) or _NAMED_JOINT.fullmatch(text, found[1], next_start))
            or _parted(text[found[1] : next_start])
        ):
            break
        held, next_start, starts = [found[0], *held], box.start(), [box.start(), *starts]
    names = [_NAME_BEFORE.search(text[max(0, start - 20) : start]) for start in starts]
    if len(held) > 1 and all(names):
        held = [f"{name.group(1)}={box}" for name, box in zip(names, held, strict=True) if name]
    return ", ".join(dict.fromkeys(box.strip() for box in held)) if len(held) > 1 else held[0]


def final_answer(text: str, *, finish: str, thinking: bool, marks: Marks | None = None) -> tuple[str | None, str]:
    """The answer to judge, or None and the reason why there is none.

    Args:
        text: the completion, without its prompt.
        finish: "stop" or "length": a completion cut off in its thinking is "unfinished", not a thought left open.
        thinking: a closing mark of thinking is required.
        marks: of the model's thinking; None: of any known model's.

    Returns:
        (answer, "") or (None, "unfinished" | "thinking not closed" | "no box" | "empty box").
    """
    segment = split(text, marks, thinking, cut=finish == "length")[1]
    if segment is None:
        return None, "unfinished" if finish == "length" else "thinking not closed"
    box = last_box(segment)
    if box is None:
        return None, "no box"
    return (box, "") if box.strip() else (None, "empty box")


def block_and_box(text: str, *, opened: bool, marks: Marks = THINK) -> tuple[bool, bool]:
    """Whether it has exactly one thinking block, closed; and whether there is exactly one box behind its thinking.

    Args:
        opened: the prompt ends with the opening tag, so that the completion must not open another block.
    """
    opens, closes = zip(*marks.spellings, strict=True)
    start, close = min(((text.find(close), close) for close in closes if close in text), default=(-1, ""))
    thought, behind = text[: max(0, start)], text[start + len(close) :]
    one_block = start >= 0 and opened + sum(map(thought.count, opens)) == 1 and not any(mark in behind for mark in (*opens, *closes))
    answer = split(text, marks, opened)[1] or ""
    return one_block, len(_BOX.findall(answer)) == 1 and last_box(answer) is not None


def bare(text: str) -> str:
    """An answer or a gold without its wrapping: box (of a worked solution, the last, or what is behind its last "####"), math delimiters, outer spaces, a full stop at the end."""
    if "####" in text and (marked := _HASHES.fullmatch(text)):
        text = marked.group(1)
    inner = last_box(text) if _BOX.search(text) else None
    text = (text if inner is None else inner).strip()
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip()
    for left, right in _DELIMITERS:
        if text.startswith(left) and text.endswith(right) and len(text) > len(left) + len(right):
            inner = text[len(left) : -len(right)]
            if left not in inner and right not in inner and not inner.endswith("\\"):
                return inner.strip()
    return text
