"""The unit of lengths: whoever says a length says what it was counted in, tokens or characters, and of which ruler where there are two."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from rich.console import Console

from evaluation.comparisons import Found, read
from evaluation.formats import markdown
from evaluation.paired import paired_table
from evaluation.picture import picture
from evaluation.reader import reader
from evaluation.report import page
from evaluation.results import Settings
from evaluation.words import verdict
from launch.compare import compare_in_terminal
from launch.imported import import_samples
from rollout.records import CHARACTERS
from tests.unit.test_comparisons import evaluated
from tests.unit.test_imported import lines, plain
from tests.unit.test_report import make_groups


def in_words(found: Found) -> dict[str, str]:
    """What a reader sees of every form but JSON: texts, and what charts are labelled with, without scripts and styles."""
    html = re.sub(r"<style.*?</style>", "", page(found), flags=re.DOTALL)
    panels = " ".join(re.findall(r'id="panels">(.*?)</script>', html, re.DOTALL))
    body = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    terminal = io.StringIO()
    if found.comparisons:
        compare_in_terminal([run.path for run in found.runs], None, Console(file=terminal, width=200))
    return {"page": body.partition('id="reader"')[0] + panels, "md": markdown(found), "svg": picture(found), "compare": terminal.getvalue()}


@pytest.mark.parametrize("entries", [1, 2, 3])
def test_lengths_in_characters_are_called_tokens_nowhere(tmp_path: Path, entries: int) -> None:  # P38
    """Tiles, axes, hovers, rows, notes and sentences, of one evaluation and of several; the same in tokens says tokens."""
    for ruler, other, called in ((CHARACTERS, "token", "characters"), ("abc", "character", "tokens")):
        folders = [evaluated(tmp_path / ruler / f"m{place}", make_groups(12, 40 - 9 * place), template=ruler) for place in range(entries)]
        said = in_words(read(folders))
        assert all(called in text for form, text in said.items() if form != "compare" or entries > 1)
        hits = {form: re.findall(rf".{{30}}{other}.{{20}}", text, re.IGNORECASE | re.DOTALL) for form, text in said.items()}
        controls = (
            "with tokens<",
            "colour tokens by",
            "coloured tokens",
            "token to token",
            "carry their tokens",
        )  # of the reader of rollouts
        assert not [hit for found in hits.values() for hit in found if not any(word in hit for word in controls)], ruler


@pytest.mark.parametrize(("old", "new"), [("abc", CHARACTERS), (CHARACTERS, "abc"), ("abc", "def"), ("tokens of m, as recorded", "")])
def test_two_rulers_are_named_where_nothing_may_be_compared_and_stand_at_no_one_arrow(tmp_path: Path, old: str, new: str) -> None:
    folders = [
        evaluated(tmp_path / "m0", make_groups(20, 10), template=old),
        evaluated(tmp_path / "m1", make_groups(20, 10), template=new, temperature=1.0),
    ]
    [pair] = read(folders).comparisons
    said = verdict(pair)
    assert pair.refused and all(Settings(max_tokens=1, template=one).ruler in said for one in (old, new))
    assert not re.search(r"[\d.,]+ → [\d.,]+(?! %)", said.partition("accuracy")[0])
    labels = [row.label for row in paired_table(pair).rows]
    assert "mean length, each as it was counted" in labels and not {"mean tokens", "mean characters"} & set(labels)


@pytest.mark.parametrize("told", [True, False])
def test_samples_whose_thinking_nobody_counted_cost_totals_and_no_thinking(tmp_path: Path, told: bool) -> None:
    rows = [
        row | {"tokens": 40 + n} | ({"think_tokens": 20 if "</think>" in row["completion"] else None} if told else {})
        for n, row in enumerate(plain() * 2)
    ]
    import_samples(lines(tmp_path / "x.jsonl", rows), tmp_path / "own", False, Console(quiet=True), model="m")
    found = read([tmp_path / "own"])
    said = in_words(found)
    assert ("tokens of thinking" in said["md"]) == told and bool(re.search(r"\d tokens, \d+ waited for", said["md"])) != told
    assert [one["told"] for one in reader(found.runs, found.shown)["sets"]] == [told]
    assert ("thinking tokens waited for" in said["page"]) == told and ("tokens waited for" in said["page"])


@pytest.mark.parametrize("budget", [None, {"kind": "forced", "limit": 32}])
def test_lengths_of_two_rulers_share_no_axis_of_tokens(tmp_path: Path, budget: dict[str, object] | None) -> None:
    """Neither in the picture nor in the page's charts, of samples without a budget and at one: those of other rulers are named there, and not drawn."""
    rulers, more = {"one": "abc", "two": "abc", "other": "def", "text": CHARACTERS}, {"budget": budget} if budget else {}
    folders = [evaluated(tmp_path / name, make_groups(12, 50), template=ruler, **more) for name, ruler in rulers.items()]
    found = read(folders)
    drawn = ElementTree.fromstring(picture(found))
    legend = [text[0].text + (text[0].tail or "") for text in drawn.findall(".//{*}text") if len(text)]
    assert len(drawn.findall(".//{*}circle")) == 2 and [said[0] for said in legend] == ["●", "●", "○", "○"]
    assert legend[2:] == [f"○ {name}: not drawn, lengths in other units" for name in ("other", "text")]
    assert "tokens or characters" not in " ".join(drawn.itertext()) and drawn.attrib["aria-label"].count("tokens") == 1 + bool(budget)
    assert "Not in these charts: other (lengths in other units), text (lengths in other units)." in page(found)
    panels = " ".join(re.findall(r'id="panels"[^>]*>(.*?)</script>', page(found), re.DOTALL))
    assert "tokens or characters" not in panels and not re.search(r'"name": ?"(?:other|text)', panels)
