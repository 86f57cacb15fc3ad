"""Token F1: how many words an answer in words shares with its gold, a look at near misses and never a verdict.

Whether such an answer is right, the verifier's rules for words say (rewards/verifier/words.py). F1 pays for half of a name, and for a
sentence around it, so it can rise with length while accuracy does not: it stands beside accuracy, apart, and nothing is ever called right by it.
Words are those of SQuAD's script (1606.05250): small letters, no punctuation, no articles; repeated words count as often as both have them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence


def token_f1(answer: str | None, golds: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of an answer's words, with the gold that fits best, 0..1; 0 for no answer.

    Where answer or gold has no words at all ("the"), it is 1 if both have none, else 0.
    """
    return max((_f1(_words(answer), _words(gold)) for gold in golds), default=0.0) if answer is not None else 0.0


def _f1(said: Counter[str], asked: Counter[str]) -> float:
    if not said or not asked:
        return float(said == asked)
    return 2 * (said & asked).total() / (said.total() + asked.total())


def _words(text: str) -> Counter[str]:
    plain = re.sub(r"\\text\w*\b|[^\w\s]|_", " ", re.sub(r"(?<=\w)['’](?=\w)", "", text.lower()))
    return Counter(word for word in plain.split() if word not in ("a", "an", "the"))
