"""Where a thought has its answer already (recent.md 1.1 and 1.2): chunks, the first that reaches the gold, what lies behind it."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from rewards.redundant import Thought, Words, chunks, reaches, thought
from rollout.tiny.task import LEVELS, problems, trace
from rollout.tiny.tokenizer import build_tokenizer

WORDS = ["wait", "but", "alternatively", "hmm", "let", "therefore", "again", "check"]
PROSE = [
    "Okay, 6 times 7 is what I need.\n\nSo 6 * 7 = 42.\n\nWait, let me check. 42 / 7 = 6.\n\nBut is that so? Let me see: yes, 42.\n",
    "Hmm, 10 + 5 = 15.\nBut wait, Therefore it is 15, but not 16.\n\nAlternatively, 5 + 10 = 15. Let me go on.\n",
]


def toy(ids: list[int]) -> list[list[int]]:
    """recent.md 1.1: 0 ends a line, 1 closes thinking, 5 and 6 are Wait and Therefore."""
    inside = np.array(ids[: ids.index(1)])
    return [inside[start:end].tolist() for start, end in chunks(np.isin(inside, [5, 6]), inside == 0)]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([10, 11, 0, 12, 13, 5, 14, 0, 15, 1, 20, 21, 22], [[10, 11, 0, 12, 13], [5, 14, 0, 15]]),
        ([10, 11, 0, 12, 5, 14, 5, 15, 0, 16, 1, 20], [[10, 11, 0, 12], [5, 14, 5, 15, 0, 16]]),
        ([10, 11, 0, 12, 13, 5, 14, 0, 15, 1, 20, 6, 22], [[10, 11, 0, 12, 13], [5, 14, 0, 15]]),  # the hole: a split word in the answer
        ([10, 0, 11, 1, 5], [[10, 0, 11]]),
        ([10, 0, 5, 12, 1], [[10, 0], [5, 12]]),  # the last joins nothing
        ([5, 10, 0, 1], [[5, 10, 0]]),
        ([1, 5, 6], []),
    ],
)
def test_a_thought_is_cut_where_it_closes_and_then_split_at_words(ids: list[int], expected: list[list[int]]):
    assert toy(ids) == expected


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_chunks_are_the_whole_thought_in_order_and_all_but_the_last_hold_a_lines_end(tokens: list[tuple[bool, bool]]):
    begins_T, line_T = (np.array([token[side] for token in tokens], dtype=bool) for side in (0, 1))
    parts = chunks(begins_T, line_T)
    assert [end for _, end in parts[:-1]] == [start for start, _ in parts[1:]]
    assert (parts[0][0], parts[-1][1]) == (0, len(tokens)) if tokens else parts == []
    assert all(line_T[start:end].any() for start, end in parts[:-1])
    assert all(begins_T[start] for start, _ in parts[1:])


@pytest.fixture(scope="module", params=["bytes", "pieces"])
def prose(request: pytest.FixtureRequest) -> Any:
    """A tokenizer in the manner of GPT (bytes, a blank in front) and one in the manner of Llama 2 (a blank as a mark of its own)."""
    tokenizer = Tokenizer(models.BPE(unk_token=None if request.param == "bytes" else "<unk>"))
    if request.param == "bytes":
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    else:
        apart = [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Punctuation(), pre_tokenizers.Metaspace(prepend_scheme="never")]
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence(apart), decoders.Metaspace(prepend_scheme="never")
        trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(PROSE, trainer)
    return tokenizer


def split(tokenizer: Any, text: str, words: list[str] = WORDS) -> list[str]:
    encode, decode = (lambda text: tokenizer.encode(text, add_special_tokens=False).ids), tokenizer.decode
    ids = encode(text)
    begins_T, _ = Words(words, encode, decode).found(ids)
    starts = [0, *(place for place in np.flatnonzero(begins_T) if place), len(ids)]
    return [decode(ids[start:end]).strip() for start, end in pairwise(starts)]


def test_words_begin_a_chunk_with_a_capital_anywhere_and_in_small_letters_at_the_start_of_a_line(prose: Any):
    assert split(prose, PROSE[0]) == [
        "Okay, 6 times 7 is what I need.\n\nSo 6 * 7 = 42.",
        "Wait, let me check. 42 / 7 = 6.",
        "But is that so?",
        "Let me see: yes, 42.",
    ]
    assert split(prose, "6 + 1, but 7\nbut 5 is it. But 10 and wait\n  wait 6") == [
        "6 + 1, but 7",
        "but 5 is it.",
        "But 10 and wait",
        "wait 6",
    ]
    assert split(prose, "so it is\nokay, 4", ["Okay"]) == ["so it is", "okay, 4"]


def test_a_word_that_goes_on_in_the_next_token_is_another_word():
    letters = {chr(code): code for code in range(10, 123)}
    words = Words(
        ["wait", "but", "等"],
        lambda text: [letters.get(char, 200) for char in text],
        lambda ids: "".join("等" if i == 200 else chr(i) for i in ids),
    )
    ids = [letters.get(char, 200) for char in "7\nWaiting 7\nbutter 7\nbut 8\nWait, 9\n等a"]
    begins_T, _ = words.found(ids)
    assert ["".join(map(chr, ids[place : place + 3])) for place in np.flatnonzero(begins_T) if ids[place] != 200] == ["but", "Wai"]


def test_what_stands_before_a_word_in_its_line_and_behind_it_decides_also_where_tokens_hold_several_things():
    pieces = ["7", "\nso ", "but", "\n", " ", "等", "中", "a"]
    words = Words(["but", "等"], lambda text: [pieces.index(text)] if text in pieces else [], lambda ids: "".join(pieces[i] for i in ids))

    def begins(*said: str) -> list[int]:
        return np.flatnonzero(words.found([pieces.index(one) for one in said])[0]).tolist()

    assert begins("7", "\nso ", "but", "\n", " ", "but", "7", "but") == [5]  # the first one's line began within a token
    assert begins("7", "等", "中", "等", "a", "等") == [1, 5]  # 中 sets no words apart, a letter does


def test_a_word_that_a_vocabulary_cannot_write_begins_nothing():
    tokenizer = build_tokenizer()
    words = Words(["Wait", "Moreover", "again"], lambda text: tokenizer.encode(text, add_special_tokens=False), tokenizer.decode)
    ids = tokenizer.encode("3 + 4 = 7\nwait, 7\nMoreover 8\nagain", add_special_tokens=False)
    assert [tokenizer.decode([ids[place]]) for place in np.flatnonzero(words.found(ids)[0])] == ["wait", "again"]


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("so 6 * 7 = 42.", "42"),
        ("that makes 1,200 in all", "1200"),
        ("x = -3, I think", "-3"),
        ("the share is 0.75", "3/4"),
        (r"which is \frac{3}{4}.", "0.75"),
        ("it is 3/4", r"\frac{3}{4}"),
        ("about 25%", r"25\%"),
        (r"so \boxed{\sqrt{2}} it is, by step 3", r"\sqrt{2}"),
        (r"\boxed{x+1}", "x+1"),
        (r"So the answer is \boxed{\text{(C)}}", "C"),
        ("wait, 3 + 4 -> 7, yes\n", "7"),
        ("17 - 12 = 5", "5"),
    ],
)
def test_a_chunk_reaches_the_gold_by_its_last_box_or_its_last_number(text: str, gold: str):
    assert reaches(text, [gold]) and reaches(text, ["999", gold])


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("6 * 7 = 42, and 42 + 1 = 43", "42"),
        (r"\boxed{7} and then 8", "8"),
        ("10 - 3", "-3"),
        ("10 -3", "-3"),
        ("we need x^2", "2"),
        ("let a_1 be", "1"),
        ("x^{2}", "2"),
        ("nothing said", "0"),
        ("", "0"),
        ("sqrt of 2", r"\sqrt{2}"),
        ("4,20", "20,4"),
        ("7" * 5000, "7"),
    ],
)
def test_what_is_said_before_a_later_number_or_is_no_number_of_its_own_reaches_nothing(text: str, gold: str):
    assert not reaches(text, [gold])


def tiny(text: str, *golds: str) -> tuple[Thought, list[str]]:
    """What is found in a thought of the tiny reasoner, and the text before and behind."""
    tokenizer = build_tokenizer()

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    ids = encode(text)
    found = thought(ids, golds, Words(WORDS, encode, tokenizer.decode), tokenizer.decode)
    start, end = found.redundant or (len(ids), len(ids))
    return found, [tokenizer.decode(ids[:start]), tokenizer.decode(ids[start:end])]


def test_what_lies_behind_the_first_chunk_that_reaches_the_gold_is_redundant():
    found, texts = tiny("7 + 5 = 12\nwait, 7 + 5 = 12, yes\n12 * 2 = 24\nhmm, 12 * 2 = 24, yes\nagain\n7 + 5 = 12\n", "24")
    assert texts == ["7 + 5 = 12\nwait, 7 + 5 = 12, yes\n12 * 2 = 24\n", "hmm, 12 * 2 = 24, yes\nagain\n7 + 5 = 12\n"]
    assert found.ratio == 2 / 4


def test_nothing_is_redundant_where_no_chunk_or_the_last_one_reaches_the_gold():
    assert tiny("7 + 5 = 12\nwait, 7 + 5 = 12, yes\n", "13")[0] == Thought(None, None)
    assert tiny("7 + 5 = 11\nwait, 7 + 5 = 12, no\n", "12")[0] == Thought(1.0, None)
    assert tiny("7 + 5 = 12\n", "12")[0] == Thought(1.0, None)
    assert tiny("", "12")[0] == Thought(None, None)


@pytest.mark.parametrize("family", LEVELS)
def test_the_redundant_part_of_the_tiny_reasoners_traces_is_found_in_all_that_have_one(family: str):
    """Whatever it derives again once a derivation came to the answer is behind the point, and that derivation is not."""
    asked = problems("train", [family], 0, 0, 150)
    having = 0
    for index, one in enumerate(asked):
        thinking, _, answer = trace(one, Random(index), recheck=0.85, rederive=0.8, slip=0.0).partition("</think>")
        assert answer == f"\n\\boxed{{{one.answer}}}"
        first, again, _ = thinking.partition("again\n")
        found, (kept, behind) = tiny(thinking, one.answer)
        assert kept + behind == thinking
        having += bool(again)
        assert not again or (found.redundant is not None and again + thinking.partition(again)[2] in behind and reaches(kept, [one.answer]))
        assert again or found.redundant is None or behind in first
    assert having > 100
