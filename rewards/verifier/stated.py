r"""What a completion without a box names as its answer: for grading files, never for training.

In order: the last complete <answer>...</answer>; the last "#### ...", "A: ..." or "answer is ..."; the boxes or text of what is left when
stray tags are taken off. Of a sentence, the value it states: what stands behind its last "is" or "=", else its last number.
A value that is denied or only supposed ("cannot be 7", "Suppose it is 7", "Is it 7?") is passed over.
Simplification: reading prose guesses; a guess that is wrong can only make a right answer wrong, unless it hits the gold.
"""

from __future__ import annotations

import re

from rewards.thinking import split
from rewards.verifier.numbers import as_number
from rewards.verifier.statements import lone_letters
from rewards.verifier.tidy import FUNCTIONS

_BLOCK = re.compile(r"(?si)<(?:answer|ans|final|final_answer)>((?:(?!<answer>).)*?)</(?:answer|ans|final|final_answer)>")  # fmt: skip
_MOST_PROSE = 4000  # characters, from the end, that are searched for a value
_BLANKS = re.compile(r"([ \t])[ \t]+|(\n[ \t]*\n)\s+")
_WORDED = re.compile(r"\s*(?:yes|no|true|false)\b", re.IGNORECASE)
_OPEN_BLOCK = re.compile(r"<answer\s*[>)\]:]?\s*(.*)", re.DOTALL | re.IGNORECASE)
_CUT_TAGS = "|".join(word[:length] for word in ("answer", "think") for length in range(2, len(word)))  # "<a" may be "less than a"
_LINE_START = re.compile(r"(?:\A|\n|</?\w+>)[ \t]*\Z")
_CLOSED_BY_ANSWER = re.compile(r"(?:^|\n)[ \t]*</?answer>", re.IGNORECASE)
_TAGS = re.compile(rf"(?i)<\s?[/\\]?\s?(?:answer|think)\b\s?[>)\]:]?|\n>\s*\Z|</[at]?$|</?(?:{_CUT_TAGS})$|<\|[a-z_]+\|>|\A\s*answer>")  # fmt: skip
_END = re.compile(r"(?:<\|(?:im_end|eot_id|endoftext|end_of_text)\|>|</s>).*", re.DOTALL)
_HASHES = re.compile(r"####[ \t]*(?!(?i:(?:final )?answer)\b)(\S(?:(?!####)[^\n])*)")
_STATED = re.compile(
    r"(?m)(?:^A:|^(?:#+[ \t]*)?(?:\*\*)?(?i:(?:the )?(?:final )?answer)(?:\*\*)?[ \t]*\n"
    r"|(?i:\b(?:answer|ans|réponse|respuesta|antwort|risposta|resposta|ответ)\b\.?\*?(?:[ \t]+here)?(?P<own>[ \t]+(?:is|est|es|ist|lautet|è|é)\b)?"
    r"(?(own)[ \t]*[:：]?|(?:[ \t]*[:：]|[ \t]+=)))"
    r"|\bAns\.[ \t]+(?=\d)|答案(?:[:：]|(?:为|是)[:：]?)|答[:：]"
    r"|选[:：]?(?=\s*\(?[A-J])|(?i:(?<!not )(?<!n't )\b(?:choose|pick|select)[ \t]+)(?=\(?[A-J]\b))(?:\*\*)?\s*(?=\S)"
)
_SUPPOSED = re.compile(
    r"(?i)(?:\W*(?:so|but|now|first|then)\b)?\W*(?:suppose|assume|assuming|if|let(?!\s+(?:me|us)\b|')|were|had)\b(?:(?!,|\bthen\b).)*\Z"
)
_DENIED = re.compile(  # the last line only directly before the value
    r"(?i)(?:(?:\b(?:not|never|cannot|impossible|excludes?|ruled? out|at least|at most|(?:more|less|fewer|greater|other) than"
    r"|nicht|kein|pas|non|não|не|nie|niet|inte|ikke|no (?:es|son))\b|\b(?:neither|nor)\b|n't\b)"
    r"(?:\s+(?!(?:is|are|was|were|makes?|gives?|leaves?)\b)[^\W\d_][\w']*){0,3}|不是|不等于|并非|不为|不到|至少|至多|不超过"
    r"|\b(?:instead of|rather than|out of|of (?:her|his|its|their|the|our|my|all)"
    r"|between(?:\s\S+\sand)?|from\s\S+\sto|over|under|above|below|exceeds|up to|maybe|perhaps))[\s:$*(]*$"
)
_DENIED_BEHIND = re.compile(
    r"(?i)(?:\\text\b|\W)*(?:(?:squared|cubed|factorial|doubled|tripled|in base|değil|(?:[a-z]+ )?or (?:more|less|fewer|so))\b|ではな|이 아니"
    r"|(?:is|are|was|were|does|do|did|can|could|will|would|leads?|gives?|has|must)?\s*"
    r"(?:\b(?:not|never|cannot|wrong|incorrect|false|impossible|(?:be )?(?:ruled out|excluded)|to a contradiction|a contradiction)\b|n't\b))"
)
_GOES_ON = re.compile(  # an operation: what stands before it is no whole value
    r"\s*(?:[-+*/^×·÷](?=\s?(?:[\d\\(]|[a-z]\b))|[xX]\s+[\d$]|\\(?:pi|cdot|times|div|sqrt|frac)(?![a-z])|(?:pi|plus|minus|times (?:the|a|\d)|divided by)\b)"
)
_TAKEN_BACK = re.compile(
    r"(?i)(?:[.!]\s+|\n\s*|—\s*)(?:no\b\W*)?(?:wait|actually|sorry|oops|correction|hmm+|let me (?:re|check|correct)"
    r"|(?:that|this|it)(?: is|'s| was) (?:wrong|incorrect|not right|a mistake)|scratch that)\b\W*"
)
_ASIDE = re.compile(
    r"(?i)\s\((?!or\b)(?=\\?[A-Za-z]{2})|,\s+as\b|,\s+not\s+(?=[\d$\\(-])|,?\s+(?:since|because|when|where|which(?!\s+(?:is|are|equals|makes|means)))\b"
)
_CHOSEN = re.compile(r"(?:\*\*)?\(?([A-J])\)?(?:\*\*)?,?\s+(?:because|since)\b")
_CHATTER = re.compile(r"\.\s+(?:I hope it is correct|Note:|I will).*", re.DOTALL)
_NUMBER = r"[-+−]?\s?(?:\\?[$€£])?\s?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?(?:\s?%|°|!(?!!)|[万亿千百倍折]|\s?(?:€|\\%)|\s(?:hundred|thousand|\w+illion|dozen)\b)?"
_MATHS = r"\\\((?:(?!\\[()])[^\n])+\\\)|\\\[(?:(?!\\[\[\]]).)+\\\]|\$\$[^$]+\$\$|\$(?=\S)[^$\n]*(?<=\S)\$(?!\d)|\$ +\\[^$\n]*\$"
_FIRST = re.compile(rf"(?:{_MATHS}|{_NUMBER})(?=,?\s+(?!(?:or|and|to|[ap]\.?m|dozens?|half|times)\b)[^\W\d_]{{2,}})", re.DOTALL)
_LATEX = r"-?\d*\\(?:[dt]?frac\{[^{}]*\}|sqrt)\{[^{}]*\}(?![\w^{])"
_TIMES = r"(?<=\s)[xX](?=\s)|(?<=\d)[xX](?=\d)"
_SUM = re.compile(rf"(?:[\d\s.,()%+*/×÷·−$€£=-]|{_TIMES}|\\(?:times|cdot|div|\$))+")
_COUNTED_SUM = re.compile(r"[^=]*\d[^=]*[-+*/×÷][^=]*\d[^=]*=")
_CUT = re.compile(  # in a formula, or in the middle of a sentence
    r"(?:[+/=<(\[{,]|\s[-*]|\\(?:frac|sqrt|cdot|times|left)|\b(?:and|or|the|an|of|to|is|are|we|by|with|for|that|so|then|from|at|into|if|but|because"
    r"|plus|minus|times|which|who|where|when|have|has|than|between|equals?))\s*\Z"
)
_OPEN_FORMULA = re.compile(r"\A(?:[^$]*\$[^$]*\$)*[^$]*\$(?!\\\w*(?:square|qed))[^$]*[\\^_=][^$]*\Z")
_MATHS_RUN = re.compile(_MATHS, re.DOTALL)
_TUPLE = r"[(\[]\s*[-+−]?\d[^()\[\]\n]*,[^()\[\]\n]*[)\]]"
_CLOCK = r"\d{1,2}:\d{2}(?:\s?[AaPp]\.?[Mm]\b\.?)?"
_VALUE = re.compile(rf"(?s)(?P<maths>{_MATHS})|(?P<choice>(?<!\w)\([A-J]\))|(?<![a-zA-Z0-9_.])(?P<number>{_LATEX}|{_TUPLE}|{_CLOCK}|{_NUMBER})")  # fmt: skip
_JOINT = re.compile(r"\s*(?:,|,?\s*\b(?:and|or)\b)\s*")
_ARE = re.compile(r"\b(?:are|=|:)[\s:]*$")
_NUMBERS_LEFT = re.compile(r"(?:[\s,]++(?:(?:and|or)\s++)?[-+−]?\d++(?:\.\d++)?)++\s*\.?\s*")
_BOLD = re.compile(r"\*\*(?=\S)([^*\n]+)(?<=\S)\*\*")
_NAMED_LAST = re.compile(r"\b(?:is|are|was)\s+((?:[^\W\d][^\W\d'-]*\s?){1,4})[.!]*\s*$")
_LINK = re.compile(
    r"(?i)(?:\b(?:is|are|be|equals?|was|to|(?:total|sum|number|amount|value|average) of|total|:)|[=:≈])\s*(?:about|approximately|exactly|\*\*)?\s*$"
)
_PROSE = re.compile(rf"(?<![\\a-zA-Z{{])(?!(?:{FUNCTIONS}|sqrt|pi|theta|alpha|beta)(?![a-zA-Z']))[a-zA-Z']{{2,}}")
_NO_PROSE = re.compile(r"\\text\s*\{[^{}]*\}|\b[A-Z][a-z]+\s*[:=](?=\s*[-\d])")  # "Tom: 15" names a value
_FOREIGN = re.compile(r"[\u0400-\u1fff\u3040-\ud7ff]")  # other letters
_SHORT = re.compile(r"(?:[^\W\d_][\w'’]* ){1,4}[$\d.,]+\.|(?=.*[À-ɏḀ-ỿ])[^\W\d_][^=\\]*[$\d][^=\\]*")  # "Cevap 9.", "Lösung: 9"
_CRY = re.compile(r"(?<=[\d*])!+(?=\s*\Z|\s+[A-Z])")
_ADDED = re.compile(r"\b(?:in|over|within|during|with)\s+(?:(?:the|these|those|his|her|its|their|about|only)\s+)?$")
_IS = re.compile(r"\b(?:is|are|equals|becomes)\s+|:\s+")
_HAS_LETTERS = re.compile(r"[a-zA-Z][\s\d]*[=^+*/-]|[=^+*/-]\s*\d*[a-zA-Z]|\d[a-zA-Z](?![a-zA-Z])")
_SENTENCE = re.compile(
    r"(?:(?<=[.!?])|(?<=[.!?]\$)|(?<=[.!?]\$\$))\s+(?=[A-Z\\$])|(?<=[。！？，；])|\n\s*\n|\n(?=[A-Z])|,\s+(?=(?:so|hence|thus|therefore)\b)"
)


def stated(text: str) -> str:
    """The answer that a completion without a box names; "" if it names none."""
    text = _named(_BOLD.sub(_plain_bold, _CRY.sub(".", text) if _PROSE.search(text) or "####" in text else text)).strip()
    return _value_of(text[-_MOST_PROSE:]) if _is_prose(text) else _reckoned(text)


def _reckoned(text: str) -> str:
    """The last line of a calculation in plain signs, "$4 x 8 = $32", as a formula; of one with words in it, what stands behind its last "="."""
    line = text.rpartition("\n")[2]
    if "=" not in line:
        return text
    if _SUM.fullmatch(line):
        return re.sub(_TIMES, r"\\times ", re.sub(r"\\?[$€£]", "", line))
    return _without_aside(line.rpartition("=")[2].strip()) if _PROSE.search(line) and _COUNTED_SUM.match(line) else text


def _plain_bold(bold: re.Match[str]) -> str:
    """The text of a bold piece; a formula or a list gets dollar signs, so that it is read as one value."""
    text = bold.group(1)
    formula = re.search(r"\d", text) and re.search(r"[\\^=<>{]|\d,\s", text) and not re.search(r"\$|\\\(", text)
    return f"${text}$" if formula and not _PROSE.search(text) else text


def final_segment(text: str) -> str | None:
    """What stands behind the thinking, which a tag of the answer on its own line closes, too. Closing tags that close nothing are passed over; None if it never closed."""
    segment = split(text)[1]
    if segment is None and len(parts := _CLOSED_BY_ANSWER.split(text)) > 1 and parts[-1].strip():
        return parts[-1]
    if segment is None or _TAGS.sub("", segment).strip():
        return segment
    pieces = [piece for piece in re.split(r"</think>", text) if _TAGS.sub("", piece).strip()]
    return pieces[-1] if text.count("</think>") > 1 and pieces else segment


def block(text: str) -> str | None:
    """What the last complete <answer>...</answer> holds, wherever it stands; inside of thinking that never closed, on a line of its own."""
    closed = split(text)[1] is not None
    blocks = [
        held for match in _BLOCK.finditer(text) if (held := match[1].strip()) and (closed or _LINE_START.search(text[: match.start()]))
    ]
    return blocks[-1] if blocks else None


def _named(text: str) -> str:
    opened = _OPEN_BLOCK.search(text, max(0, text.lower().rfind("<answer")))
    if opened and _TAGS.sub("", opened.group(1)).strip():
        text = opened.group(1)
    text = _TAGS.sub("", _END.sub("", text))
    marks = _HASHES.findall(text)
    if marks:
        return _first_value(str(marks[-1]))
    text = _BLANKS.sub(r"\1\2", text)[-_MOST_PROSE:]  # what follows takes time that grows with the square of it
    before = (_SENTENCE.split(text[max(0, match.start() - 300) : match.start()])[-1] for match in _STATED.finditer(text))
    claims = [match for match, opening in zip(_STATED.finditer(text), before, strict=True) if not _SUPPOSED.match(opening)]
    if not claims:
        first, _, rest = text.strip().partition("\n")
        if _is_prose(rest) and first[:1].isdigit() and as_number(first) is not None:
            return first
        return "" if _is_prose(text) and _is_cut_off(text) else text
    behind = _CHATTER.sub("", text[claims[-1].end() :]).strip() or text
    if taken_back := list(_TAKEN_BACK.finditer(behind)):
        return behind[taken_back[-1].end() :]
    if display := re.match(r"\\\[.*?\\\]|\$\$[^$]+\$\$", behind, re.DOTALL):
        return display.group()
    behind = behind.partition("\n")[0]
    if chosen := _CHOSEN.match(behind):
        return chosen.group(1)
    own = _SENTENCE.split(behind)[0] if claims[-1]["own"] else behind
    if own[:1] in ("$", "\\") and re.search(r"\d", own) and (first := _first_value(own)) != own:
        return first
    return _without_aside(own if _VALUE.search(own) or not _VALUE.search(behind) else behind)


def _first_value(text: str) -> str:
    """What stands directly behind "####" if words follow that are no unit: 24 of "24 for the 6 packs"."""
    first = None if as_number(text) else _FIRST.match(text)
    return first.group() if first and not _DENIED_BEHIND.match(text, first.end()) else text


def _is_cut_off(text: str) -> bool:
    """Whether a text stops inside of a formula or in the middle of a sentence."""
    end = _SENTENCE.split(text)[-1]
    return (
        bool(_CUT.search(text[-50:]) or _OPEN_FORMULA.search(end))
        or text.count("$$") % 2 > 0
        or end.count("{") > end.count("}")
        or end.count(r"\(") > end.count(r"\)")
    )


def _without_aside(text: str) -> str:
    """A statement that begins with its value, without what is added to it: "7 (for a = 1)", "7, not 8", "7 since ..."."""
    aside = None if _WORDED.match(text) else _ASIDE.search(text)
    return text[: aside.start()] if aside and _VALUE.search(text[: aside.start()]) else text


def _is_prose(text: str) -> bool:
    """More than an answer: long, or three words outside of formulas, or a capitalised word before a formula. "Yes, because ..." is an answer."""
    if len(text) > 300:
        return True
    outside = _MATHS_RUN.sub("$", text)
    return not _WORDED.match(text) and (
        (_FOREIGN.search(outside) or _SHORT.fullmatch(outside)) is not None
        or len(_PROSE.findall(_NO_PROSE.sub("", outside))) >= 3
        or (outside != text and re.match(r"[A-Z][a-z]+[^$]*\$", outside) is not None)
    )


def _value_of(text: str) -> str:
    """The value that the last sentence with one states; without any, what its end names; else the text itself."""
    sentences = _SENTENCE.split(_CHATTER.sub(".", text))
    for sentence in reversed(sentences):
        if sentence.rstrip().endswith("?"):
            continue
        *before, tail = _IS.split(sentence.rstrip(" .!"))
        formula = "$" not in tail and _HAS_LETTERS.search(tail) and not _PROSE.search(tail)
        formula = formula and (not as_number(tail.rpartition("=")[2]) or len(lone_letters(tail)) > 1)  # x = 5 is 5
        if before and formula and not _SUPPOSED.match(sentence) and not _DENIED.search(before[-1]):
            return tail
        values = [match for match in _VALUE.finditer(sentence) if not match["maths"] or re.search(r"\d|[=^_]|\\[a-z]{2}", match["maths"])]
        values = [match for match in values if not _unclaimed(sentence, match)]
        linked = [match for match in values if _LINK.search(sentence[: match.start()])]
        asides = (aside.start() for aside in _ASIDE.finditer(sentence) if linked and aside.start() >= linked[0].end())
        if (aside := next(asides, None)) is not None:
            values, linked = ([match for match in matches if match.end() <= aside] for matches in (values, linked))
        chosen = linked or [match for match in values if not match["choice"] and not _ADDED.search(sentence[: match.start()])] or values
        if chosen:
            last = chosen[-1]
            goes_on = not last["maths"] and _GOES_ON.match(sentence, last.end())
            return sentence[last.start() :] if goes_on else _joined(sentence, values, last)
    named = _NAMED_LAST.search(sentences[-1])
    return named.group(1).strip() if named and not _SUPPOSED.match(sentences[-1][: named.start()]) else text


def _unclaimed(sentence: str, value: re.Match[str]) -> bool:
    """The sentence denies the value or only supposes it."""
    before = sentence[: value.start()]
    return bool(_SUPPOSED.match(before) or _DENIED.search(before[-100:]) or _DENIED_BEHIND.match(sentence, value.end()))


def _joined(sentence: str, values: list[re.Match[str]], last: re.Match[str]) -> str:
    """A value with those that commas, "and" or "or" join to it: "$x=2$ or $x=3$" is both."""
    index = first = end = values.index(last)
    while first > 0 and _are_joined(sentence, values[first - 1], values[first]):
        first -= 1
    while end + 1 < len(values) and _are_joined(sentence, values[end], values[end + 1]):
        end += 1
    held = [value.group().strip().rstrip(",") for value in values[first : end + 1]]
    behind = values[index + 1 :]
    if _ARE.search(sentence[: last.start()]) and _NUMBERS_LEFT.fullmatch(sentence, last.end()):
        held += [value.group().strip().rstrip(",") for value in behind]
    either = "or" in sentence[values[first].end() : values[end].start()] and not all(value["maths"] for value in values[first : end + 1])
    return (" or " if either else " and ").join(held)


def _are_joined(sentence: str, one: re.Match[str], two: re.Match[str]) -> bool:
    """Formulas by a comma, "and" or "or"; numbers by "or"."""
    joint = _JOINT.fullmatch(sentence, one.end(), two.start())
    return joint is not None and bool((one["maths"] and two["maths"]) or "or" in joint.group())
