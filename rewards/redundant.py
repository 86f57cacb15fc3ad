r"""Where a thought has its answer already: chunks that begin at words of doubt, the first that reaches the gold, and what lies behind it (DECS, arXiv 2509.25827).

Claim: everything up to the end of the first chunk that reaches the gold is protected, and so are the mark that closes thinking and the answer behind it:
a response is cut there before it is split, so no word of the answer begins a chunk (in the release one does, and the answer is penalised with it).
Simplifications: a chunk reaches the gold if its last box, or else its last number, equals it by the verifier's quick rules (the paper asks a fine-tuned
judge), so a step on the way whose result happens to equal the gold counts, too, and what only computer algebra could compare reaches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rewards.verifier.compare import compare_quickly
from rewards.verifier.extract import last_box

Encode = Callable[[str], Sequence[int]]
Decode = Callable[[Sequence[int]], str]

_SIGN = r"(?:(?<![)\]}\w])(?<![)\]}\w] )[-−])?"  # not of a subtraction
_FRACTION = r"\\[dt]?frac\{-?\d+\}\{-?\d+\}"
_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?(?:\\?%)?|\.\d+"
_NUMBER = re.compile(rf"(?<![\w.^])(?<![_^]\{{){_SIGN}(?:{_FRACTION}|{_DECIMAL})")  # exponents and indices are none


@dataclass(frozen=True)
class Thought:
    """What was found in the thinking of one rollout.

    Attributes:
        ratio: share of its chunks up to the first that reaches the gold (DECS' R); None: none does.
        redundant: half-open range of tokens behind that chunk, up to the mark that closes thinking; None: nothing lies there.
    """

    ratio: float | None = None
    redundant: tuple[int, int] | None = None


class Words:
    """Words that begin a chunk where they begin a sentence: with a capital anywhere, or in small letters at the start of a line.

    One rule for models that write prose and for those that write a step a line. DECS tests the first token of a word alone; here it is the whole word.

    Args:
        words: in any case; one without case counts anywhere.
        encode: text to token ids, nothing added.
        decode: token ids to text.
    """

    def __init__(self, words: Iterable[str], encode: Encode, decode: Decode):
        self._decode, self._texts = decode, dict[int, str]()
        self._anywhere, self._at_line = set[tuple[int, ...]](), set[tuple[int, ...]]()
        for word in words:
            capital, small = word[:1].upper() + word[1:], word[:1].lower() + word[1:]
            self._at_line |= {ids for before in ("", " ") if (ids := self._tokens(encode(before + small), small))}
            self._anywhere |= {ids for before in ("", " ") if (ids := self._tokens(encode(before + capital), capital))}
        self._firsts = sorted({ids[0] for ids in self._anywhere | self._at_line})
        self._lengths = sorted({len(ids) for ids in self._anywhere | self._at_line})

    def _tokens(self, ids: Sequence[int], word: str) -> tuple[int, ...]:
        """A word's tokens without blanks before them; none where the vocabulary cannot write it."""
        start = next((index for index, id_ in enumerate(ids) if self._text(id_).strip()), len(ids))
        return tuple(ids[start:]) if self._decode(list(ids[start:])).strip() == word else ()

    def _text(self, id_: int) -> str:
        if id_ not in self._texts:
            self._texts[id_] = self._decode([id_])
        return self._texts[id_]

    def _opens_line(self, ids: Sequence[int], place: int) -> bool:
        """Whether nothing but blanks stands between a token and the end of the line before it."""
        for before in range(place - 1, -1, -1):
            _, end, behind = self._text(ids[before]).rpartition("\n")
            if behind.strip() or end:
                return not behind.strip()
        return True

    def _goes_on(self, ids: Sequence[int], end: int) -> bool:
        """Whether the word that ends before a token goes on in it, in a script that sets words apart."""
        first = self._text(ids[end])[:1] if end < len(ids) else ""
        return first.isalpha() and first.lower() != first.upper()

    def found(self, ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens with which a chunk begins, and tokens that hold a line's end, bool [T] each."""
        ids = [int(id_) for id_ in ids]
        line_T = np.isin(ids, [id_ for id_ in set(ids) if "\n" in self._text(id_)])
        begins_T = np.zeros(len(ids), dtype=bool)
        for place in np.flatnonzero(np.isin(ids, self._firsts)):
            forms = {tuple(ids[place : place + length]) for length in self._lengths if not self._goes_on(ids, place + length)}
            begins_T[place] = bool(forms & self._anywhere) or (bool(forms & self._at_line) and self._opens_line(ids, place))
        return begins_T, line_T


def chunks(begins_T: np.ndarray, line_T: np.ndarray) -> list[tuple[int, int]]:
    """Half-open token ranges of a thought's chunks: each from a token that begins one up to the next; one without a line's end in it joins the next.

    Args:
        begins_T: tokens with which a chunk begins.
        line_T: tokens that hold a line's end.
    """
    size, start, found = len(begins_T), 0, []
    for end in [*(int(place) for place in np.flatnonzero(begins_T) if place), *[size] * (size > 0)]:
        if end == size or line_T[start:end].any():
            found.append((start, end))
            start = end
    return found


def thought(ids: Sequence[int], golds: Sequence[str], words: Words, decode: Decode) -> Thought:
    """What is found in a thought.

    Args:
        ids: its tokens, up to the mark that closes it and without that.
        golds: any of which will do.
    """
    parts = chunks(*words.found(ids))
    for number, (start, end) in enumerate(parts, start=1):
        if reaches(decode(ids[start:end]), golds):
            return Thought(number / len(parts), (end, len(ids)) if end < len(ids) else None)
    return Thought()


def reaches(text: str, golds: Sequence[str]) -> bool:
    """Whether a text's last box, or else its last number, equals one of the golds by the verifier's quick rules."""
    said = last_box(text) or next((match.group() for match in reversed(list(_NUMBER.finditer(text)))), "")
    return bool(said) and any((compare_quickly(gold=gold, answer=said) or (False, ""))[0] for gold in golds)
