"""What is said of comparisons in the terminal, in Markdown, JSON, a picture and a page."""

# ruff: noqa: F811
from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from evaluation.comparisons import read
from evaluation.formats import as_json, escaped, markdown
from evaluation.paired import paired_table
from evaluation.picture import picture
from evaluation.report import page, report
from evaluation.results import Evaluation
from evaluation.tables import settings_table
from launch.compare import compare_in_terminal
from rewards.verifier.verdict import Verdict
from tests.unit.test_comparisons import evaluated, two  # noqa: F401
from tests.unit.test_report import make_groups


def test_the_terminal_shows_a_paired_table_and_what_may_be_said(two: list[Path]) -> None:
    console = Console(record=True, width=200)
    compare_in_terminal(two, None, console)
    text = console.export_text()
    assert "tiny: short against long, 24 problems" in text and "More accurate (95 % interval" in text
    for label in ("accuracy", "pass@2", "within 80 tokens", "mean tokens", "truncated", "AES (1, 3, 5)"):
        assert label in text, label
    assert not [word for word in text.split() if "_" in word]


def test_nothing_in_common_is_refused_by_name(two: list[Path]) -> None:
    (two[1] / "tiny.json").unlink()
    evaluated(two[1], make_groups(12, 60), source="other", name="other")
    with pytest.raises(ValueError, match=r"no source of problems was evaluated twice \(long: tiny; short: other\)"):
        compare_in_terminal(two, None, Console())


def test_markdown_escapes_what_would_end_a_cell_or_begin_a_tag(two: list[Path]) -> None:
    evaluated(two[1], make_groups(20, 50), source="a|b <script>", name="other")
    text = markdown(read(two))
    assert escaped("_y_ *x* &lt; top_p") == "\\_y\\_ \\*x\\* &amp;lt; top_p"
    assert escaped("~~x~~ [a][b] [b]: c") == "\\~\\~x\\~\\~ [a]\\[b] [b]\\: c"
    code = "`eval _out --data 'a & b|c.jsonl'`"  # in which marks are none
    assert escaped(f"_a_ {code}") == f"\\_a\\_ {code}" and escaped(code, cell=True) == code.replace("|", "\\|")
    assert escaped("```<b>`") == "\\`\\`\\`&lt;b>\\`"  # ends with other marks than it begins with, so it is none
    assert escaped("`` a`b `` <i>") == "`` a`b `` &lt;i>"
    assert "<script>" not in re.sub("`[^`\n]*`", "", text) and "--data 'a|b <script>' --samples" in text
    assert "## a\\|b &lt;script>" in text and "| accuracy | 50.0 % | 83.3 % | +33.3 points" in text


def test_json_holds_every_evaluation_whole(two: list[Path]) -> None:
    content = json.loads(as_json(read(two)), parse_constant=pytest.fail)
    found = [Evaluation.model_validate({k: v for k, v in one.items() if k not in ("label", "entry")}) for one in content["evaluations"]]
    assert [one.accuracy.mean for one in found] == [0.5, pytest.approx(20 / 24)]
    assert content["comparisons"][0]["claim"] == "better" and content["comparisons"][0]["length"]["unit"] == "tokens"


def test_the_picture_is_well_formed_and_says_what_was_saved(two: list[Path], tmp_path: Path) -> None:
    hostile = evaluated(tmp_path / "x&y", make_groups(20, 50), source="a & <b>")
    for paths in (two, [hostile]):
        root = ElementTree.fromstring(report(paths, tmp_path / "picture.svg", "svg").read_text())
        lines = [path for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("fill") == "none"]
        assert len(lines) == len(paths)
    empty = evaluated(tmp_path / "empty", make_groups(0, 3, 1), max_tokens=1)
    zero = json.loads((empty / "tiny.json").read_text())
    zero["tokens"]["mean"] = 0.0
    (empty / "tiny.json").write_text(json.dumps(zero))
    assert ElementTree.fromstring(picture(read([empty]))).tag.endswith("svg")
    assert "−71 % tokens" in report(two, tmp_path / "picture.svg", "svg").read_text()


def test_a_format_that_is_none_and_a_page_of_several_without_a_place_are_refused(two: list[Path]) -> None:
    with pytest.raises(ValueError, match="--format pdf: expected html, md, json, svg"):
        report(two, form="pdf")
    with pytest.raises(ValueError, match="say where it goes"):
        report(two)


def test_what_was_not_made_alike_shares_no_chart_with_the_first(two: list[Path], tmp_path: Path) -> None:
    evaluated(two[1], make_groups(20, 50), temperature=1.0)
    other = evaluated(tmp_path / "other", make_groups(20, 50), template="another")
    text = report([*two, other], tmp_path / "page.html").read_text()
    assert "Not in these charts: short (temperature was 0.6 before and 1.0 after), other (lengths in other units)." in text


@pytest.mark.parametrize("broken", ["column", "null", "rows", "torn"])
def test_a_table_that_cannot_be_read_is_named_and_the_rest_is_said(two: list[Path], tmp_path: Path, broken: str) -> None:
    file = two[1] / "tiny.parquet"
    table = pq.read_table(file)
    if broken == "column":
        pq.write_table(table.drop_columns(["think_tokens"]), file)
    elif broken == "null":
        tokens = table["tokens"].to_pylist()
        place = table.schema.get_field_index("tokens")
        pq.write_table(table.set_column(place, "tokens", pa.array([None, *tokens[1:]], pa.int64())), file)
    elif broken == "rows":
        pq.write_table(table.slice(0, 0), file)
    else:
        file.write_bytes(file.read_bytes()[:200])
    console = Console(record=True, width=300)
    compare_in_terminal(two, None, console)
    text = console.export_text()
    assert "More accurate" in text and "tiny.parquet could not be read" in text
    assert "tiny.parquet" in report(two, tmp_path / "page.html").read_text()


def test_one_problem_is_null_in_json_and_equal_checkpoints_stay_two(tmp_path: Path) -> None:
    paths = [evaluated(tmp_path / name, make_groups(1, 9, problems=1)) for name in ("a", "b")]
    content = json.loads(as_json(read(paths)), parse_constant=pytest.fail)
    assert content["comparisons"][0]["length"]["low"] is None and len(content["evaluations"]) == 2


def test_the_page_says_what_several_claims_leave(two: list[Path], tmp_path: Path) -> None:
    for path, right in zip(two, (12, 13), strict=True):
        evaluated(path, make_groups(right, 60), source="other", name="other")
    assert "adjusted for 2 comparisons (Holm)" in report(two, tmp_path / "page.html").read_text()


def test_settings_of_evaluations_are_told_in_lines_of_which_those_that_differ_are_marked(tmp_path: Path) -> None:
    """Prompts that state another limit make other samples: compared, marked in its line, and said."""
    instruction = "Think in at most {budget} tokens."
    folders = [
        evaluated(tmp_path / name, make_groups(right, 50), instruction=instruction, stated_limit=limit)
        for name, right, limit in (("a", 12, 4096), ("b", 14, 1024))
    ]
    found = read(folders)
    rows = settings_table(found.runs).rows
    assert [(row.label, row.differs) for row in rows] == [("Evaluation", False), ("Its prompts", True), ("Its judging", False)]
    assert rows[1].cells[0].text.startswith(f"instruction {instruction}, stated limit 4096, template ")
    assert found.comparisons[0].remarks == ("stated limit differs",) and "environment.json is missing" not in page(found)


def test_what_may_not_be_compared_has_no_tiles_of_before_and_after(tmp_path: Path) -> None:
    old, new = evaluated(tmp_path / "old", make_groups(12, 100)), evaluated(tmp_path / "new", make_groups(20, 50), max_tokens=640)
    (pair,) = read([old, new]).comparisons
    assert pair.refused and '<div class="tile' not in page(read([old, new])) and '<div class="tile' in page(read([old]))


def test_intervals_of_lengths_have_as_many_digits_as_the_means(tmp_path: Path) -> None:
    text = markdown(read([evaluated(tmp_path / "some", make_groups(12, 48))]))
    assert re.search(r"\| Mean tokens \| 60 \[5\d, 6\d\] \|", text), text


def test_the_change_of_token_f1_stands_beside_that_of_accuracy(tmp_path: Path) -> None:
    """Longer answers share more words with their golds, and none is right."""
    folders = []
    for name, said in (("short", "Obama the president"), ("long", "Barack Obama the president")):
        groups = make_groups(0, 50)
        for group in groups:
            group.request = replace(group.request, problem=replace(group.problem, answer="Barack Obama"))
            for rollout in group.rollouts:
                rollout.verdict = Verdict("wrong", "words", said)
        folders.append(evaluated(tmp_path / name, groups))
    (pair,) = read(folders).comparisons
    [row] = [row for row in paired_table(pair).rows if row.label == "Token F1, never a verdict"]
    assert [cell.text for cell in row.cells] == ["50.0 %", "80.0 %", "+30.0 points"]
    assert pair.accuracy is not None and pair.accuracy.mean == 0


def test_problems_in_another_order_change_no_number_of_a_pair(tmp_path: Path) -> None:
    """The same samples again: nothing moved, and every interval is that of 24 problems of which none did."""
    groups = make_groups(12, 50)
    for group in groups:  # four samples each, so that there is a row for being right again
        group.rollouts += [replace(one, id=f"{one.id}-again", sample=one.sample + 2) for one in group.rollouts]
    made = {"old": groups, "again": groups, "turned": groups[::-1]}
    again, turned = read([evaluated(tmp_path / name, made[name]) for name in made]).comparisons
    rows = paired_table(again).rows
    assert {"pass^2, all of them right", "mean over budgets 5 to 320, log2"} <= {row.label for row in rows}
    assert paired_table(turned).rows == rows
    for name in ("accuracy", "bounds", "length", "claim", "p", "better", "worse"):
        assert getattr(turned, name) == getattr(again, name), name


def test_what_could_not_be_judged_is_not_taken_for_no_answer(tmp_path: Path) -> None:
    """Half of the problems get no answer; of half of these, nobody can say so afterwards."""
    before, after = make_groups(12, 50), make_groups(12, 50)
    for groups, judged in (before, 24), (after, 18):
        for place, group in enumerate(groups[12:], start=12):
            for rollout in group.rollouts:
                rollout.verdict = Verdict("wrong", "no box") if place < judged else Verdict("not_judged", "time limit")
    (pair,) = read([evaluated(tmp_path / "before", before), evaluated(tmp_path / "after", after)]).comparisons
    rows = {row.label: [cell.text for cell in row.cells] for row in paired_table(pair).rows}
    assert rows["no answer"] == ["50.0 %", "25.0 %", "−25.0 points"]
    assert rows["not judged"] == ["0.0 %", "25.0 %", "+25.0 points"]
