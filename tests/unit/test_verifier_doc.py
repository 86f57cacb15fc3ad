"""docs/verifier.md says what the verifier does: every example of its tables is judged as the page says, by the rule the page names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rewards.verifier.symbolic import compare, gold_fault

PAGE = Path(__file__).parents[2] / "docs/verifier.md"
EXAMPLE = re.compile(r"^\| `(.+?)` \| `(.+?)` \| (right|wrong) \| ([a-z ]+) \|$", re.MULTILINE)
EXAMPLES = EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("gold", "answer", "verdict", "rule"), EXAMPLES)
def test_the_page_and_the_verifier_agree(gold, answer, verdict, rule):
    assert compare(gold=gold, answer=answer) == (verdict == "right", rule)


@pytest.mark.parametrize("gold", sorted({gold for gold, *_ in EXAMPLES}))
def test_every_gold_of_the_page_equals_itself(gold):
    assert gold_fault(gold) is None
    assert compare(gold=gold, answer=gold)[0]


def test_every_table_of_examples_has_both_verdicts_and_no_row_is_passed_over():
    text = PAGE.read_text(encoding="utf-8")
    sections = re.split(r"^### ", text.partition("## Examples")[2].partition("## What it does not do")[0], flags=re.MULTILINE)[1:]
    assert len(sections) >= 7
    for section in sections:
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        found = EXAMPLE.findall(section)
        assert len(rows) == len(found), section.splitlines()[0]
        assert {verdict for _, _, verdict, _ in found} == {"right", "wrong"}
