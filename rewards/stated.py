r"""What a completion without a box names as its answer: for grading files, never for training.

In order: the last complete <answer>...</answer>; the last "#### ...", "A: ..." or "answer is ..."; the boxes or text of what is left when
stray tags are taken off. Of a sentence, the value it states: what stands behind its last "is" or "=", else its last number.
Simplification: reading prose guesses; a guess that is wrong can only make a right answer wrong, unless it hits the gold.
"""

from __future__ import annotations

import re

from rewards.extract import answer_segment

_BLOCK = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL | re.IGNORECASE)
_MOST_PROSE = 4000  # characters, from the end, that are searched for a value
_WORDED = re.compile(r"\s*(?:yes|no|true|false)\b", re.IGNORECASE)
_OPEN_BLOCK = re.compile(r"<answer\s*>?\s*(.*)", re.DOTALL | re.IGNORECASE)
_TAGS = re.compile(r"</?(?:answer|think)\s*>?|</?[a-z]*$|<\|[a-z_]+\|>.*", re.IGNORECASE | re.DOTALL)
_HASHES = re.compile(r"####[ \t]*(\S[^\n]*)")
_STATED = re.compile(
    r"(?:^A:|^answer[ \t]*\n|(?i:\banswer(?:[ \t]+here)?(?:[ \t]+is\b[ \t]*:?|[ \t]*:|[ \t]+=)))(?:\*\*)?\s*(?=\S)", re.MULTILINE
)
_CHATTER = re.compile(r"\.\s+(?:I hope it is correct|Note:|I will).*", re.DOTALL)
_NUMBER = r"[-+−]?\s?(?:\\?[$€£])?\s?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?(?:\s?%|°|\s?€|\s?\\%)?"
_MATHS = r"\\\((?:(?!\\\))[^\n])+\\\)|\\\[(?:(?!\\\]).)+\\\]|\$\$[^$]+\$\$|\$(?=\S)[^$\n]*(?<=\S)\$(?!\d)|\$ +\\[^$\n]*\$"
_MATHS_RUN = re.compile(_MATHS, re.DOTALL)
_TUPLE = r"[(\[]\s*[-+−]?\d[^()\[\]\n]*,[^()\[\]\n]*[)\]]"
_CLOCK = r"\d{1,2}:\d{2}(?:\s?[AaPp]\.?[Mm]\b\.?)?"
_VALUE = re.compile(rf"(?P<maths>{_MATHS})|(?P<choice>(?<!\w)\([A-J]\))|(?<![\w.])(?P<number>{_TUPLE}|{_CLOCK}|{_NUMBER})", re.DOTALL)
_JOINT = re.compile(r"\s*(?:,|,?\s*\b(?:and|or)\b)\s*")
_BOLD = re.compile(r"\*\*(?=\S)([^*\n]+)(?<=\S)\*\*")
_NAMED_LAST = re.compile(r"\b(?:is|are|was)\s+((?:[\w'-]+\s?){1,4})[.!]*\s*$")
_LINK = re.compile(r"(?:\b(?:is|are|be|equals?|was|to|of|total|:)|[=:≈])\s*(?:about|approximately|exactly|\*\*)?\s*$", re.IGNORECASE)
_PROSE = re.compile(r"(?<![\\a-zA-Z{])[a-zA-Z']{2,}")
_SENTENCE = re.compile(r"(?:(?<=[.!?])|(?<=[.!?]\$)|(?<=[.!?]\$\$))\s+(?=[A-Z\\$])|\n\s*\n|\n(?=[A-Z])")


def stated(text: str) -> str:
    """The answer that a completion without a box names; "" if it names none."""
    text = _named(_BOLD.sub(r"\1", text)).strip()
    return _value_of(text[-_MOST_PROSE:]) if _is_prose(text) else text


def final_segment(text: str) -> str | None:
    """What stands behind the thinking. Closing tags that close nothing are passed over; None if the thinking never closed."""
    segment = answer_segment(text)
    if segment is None or _TAGS.sub("", segment).strip():
        return segment
    pieces = [piece for piece in re.split(r"</think>", text) if _TAGS.sub("", piece).strip()]
    return pieces[-1] if text.count("</think>") > 1 and pieces else segment


def block(text: str) -> str | None:
    """What the last complete <answer>...</answer> holds, wherever it stands."""
    blocks = [held.strip() for held in _BLOCK.findall(text) if held.strip()]
    return blocks[-1] if blocks else None


def _named(text: str) -> str:
    if (
        "<answer" in text.lower()
        and (opened := _OPEN_BLOCK.search(text, text.lower().rindex("<answer")))
        and _TAGS.sub("", opened.group(1)).strip()
    ):
        text = opened.group(1)
    text = _TAGS.sub("", text)
    marks = _HASHES.findall(text)
    if marks:
        return str(marks[-1])
    starts = [match.end() for match in _STATED.finditer(text)]
    if not starts:
        return text
    return (_CHATTER.sub("", text[starts[-1] :]).strip() or text).partition("\n")[0]


def _is_prose(text: str) -> bool:
    """More than an answer: long, or three words outside of formulas, or a capitalised word before a formula. "Yes, because ..." is an answer."""
    if len(text) > 300:
        return True
    outside = _MATHS_RUN.sub("$", text)
    return not _WORDED.match(text) and (
        len(_PROSE.findall(outside)) >= 3 or (outside != text and re.match(r"[A-Z][a-z]+[^$]*\$", outside) is not None)
    )


def _value_of(text: str) -> str:
    """The value that the last sentence with one states; without any, what its end names; else the text itself."""
    sentences = _SENTENCE.split(_CHATTER.sub(".", text))
    for sentence in reversed(sentences):
        values = [match for match in _VALUE.finditer(sentence) if not match["maths"] or re.search(r"\d|[=^_]|\\[a-z]{2}", match["maths"])]
        linked = [match for match in values if _LINK.search(sentence[: match.start()])]
        chosen = linked or [match for match in values if not match["choice"]] or values
        if chosen:
            return _joined(sentence, values, chosen[-1])
    named = _NAMED_LAST.search(sentences[-1])
    return named.group(1).strip() if named else text


def _joined(sentence: str, values: list[re.Match[str]], last: re.Match[str]) -> str:
    """A value with those that commas, "and" or "or" join to it: "$x=2$ or $x=3$" is both."""
    held, index = [last.group().strip().rstrip(",")], values.index(last)
    for before, after in zip(reversed(values[:index]), reversed(values[1 : index + 1]), strict=True):
        if not (before["maths"] and after["maths"]) or not _JOINT.fullmatch(sentence, before.end(), after.start()):
            break
        held.insert(0, before.group().strip())
    for before, after in zip(values[index:], values[index + 1 :], strict=False):
        if not (before["maths"] and after["maths"]) or not _JOINT.fullmatch(sentence, before.end(), after.start()):
            break
        held.append(after.group().strip())
    return " and ".join(held)
