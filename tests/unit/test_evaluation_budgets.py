"""Evaluations at budgets that were asked for: they are shown, compared at the same one, and told apart from those without one."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from evaluation import charts
from evaluation.budgets import budget_table, table_of
from evaluation.comparisons import read
from evaluation.entries import BASE
from evaluation.figures import even
from evaluation.formats import as_json, markdown, sentences
from evaluation.measured import accuracy_change, of_evaluation
from evaluation.picture import picture
from evaluation.report import page
from evaluation.results import Adherence, Evaluation, Forced, Parallel
from evaluation.statistics import claim_interval
from launch.compare import compare_in_terminal
from launch.shown import Uncut
from tests.unit.test_comparisons import evaluated
from tests.unit.test_report import make_groups

KEPT = {
    "forced-32": {"forced": Forced(closed=0.625, tokens=1.5)},
    "forced-128": {"forced": Forced(closed=0.25, tokens=0.5)},
    "requested-40": {"adherence": Adherence(within=0.488, ratio=1.58)},
    "short-1-of-2": {"parallel": Parallel(votes=1, tokens=177, time=25, stopped=0.6)},
}


def at(folder: Path, name: str, right: int, step: int = 0, prefix: str = "tiny") -> Path:
    """One more evaluation of a folder, at this budget ("": without one), with what is recorded of its kind."""
    kind, _, numbers = name.partition("-")
    first, _, of = numbers.partition("-of-")
    limits = {"first": int(first), "of": int(of)} if of else {"limit": int(first)} if name else {}
    called = f"{prefix}@{name}" if name else prefix
    evaluated(folder, make_groups(right, 50), name=called, **({"budget": {"kind": kind, **limits}} if name else {}))
    file = folder / f"{called}.json"
    made = Evaluation.model_validate_json(file.read_text()).model_copy(update={"step": step, **KEPT.get(name, {})})
    file.write_text(made.model_dump_json())
    return folder


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Two labels at the same four budgets, and at nothing else; the second is right more often."""
    for label, more in (("old", 0), ("new", 8)):
        for name, right in zip(KEPT, (4, 10, 8, 12), strict=True):
            at(tmp_path / label, name, right + more)
    return [tmp_path / "old", tmp_path / "new"]


def test_budgets_alone_have_verdicts_tables_points_and_a_picture(two: list[Path]) -> None:
    found = read(two)
    assert found.shown == {} and found.sources == ["tiny"] and len(found.comparisons) == 4
    shown = page(found)
    assert "Nothing has been evaluated" not in shown and "Accuracy at budgets, forced" in shown and "No evaluation" not in shown
    for text in (shown, markdown(found)):
        assert all(words in text for words in ("128 tokens forced, new", "40 tokens requested, old", "short-1@2, new", "new against old"))
    assert any(said.startswith("tiny, 32 tokens forced, new against old: More accurate (95 % interval") for said in sentences(found))
    made = json.loads(as_json(found))
    assert len(made["at_budgets"]) == 8 and [one["budget"] for one in made["comparisons"]] == list(KEPT)
    drawn = ElementTree.fromstring(picture(found))
    assert len(drawn.findall(".//{*}circle")) == 8 and "short-1@2: " in drawn.attrib["aria-label"]


def test_one_folder_of_budgets_says_each(two: list[Path]) -> None:
    found = read(two[:1])
    *each, lacking = sentences(found)
    assert [said.split(":")[0] for said in each] == [
        f"old on tiny, {words}" for words in ("32 tokens forced", "128 tokens forced", "40 tokens requested", "short-1@2")
    ]
    assert "with 1 vote each" in each[-1] and "tiles" in page(found)
    assert (
        lacking.startswith("Nothing is compared: name a second entry")
        and "--data tiny" in lacking
        and "--forced 32 --no-natural" in lacking
    )
    ElementTree.fromstring(picture(found))
    assert [row.label for row in budget_table(found, "tiny").rows][:2] == ["32 tokens forced", "128 tokens forced"]


def test_a_broken_natural_evaluation_leaves_its_budgets(two: list[Path]) -> None:
    for folder in two:
        at(folder, "", 12)
    (two[1] / "tiny.json").write_text("{ broken")
    found = read(two)
    assert [one.label for one in found.shown["tiny"]] == ["old"] and len(found.comparisons) == 4
    assert "new against old" in page(found) and "new against old" in markdown(found)
    console = Console(record=True, width=120)
    compare_in_terminal(two, None, console)
    text = console.export_text()
    assert "32 tokens forced, new" in text and "new against old" in text and "tiny.json could not be read" in text


def test_only_the_same_budget_is_compared(tmp_path: Path) -> None:
    folders = [at(tmp_path / "a", "forced-32", 4), at(tmp_path / "b", "forced-64", 8)]
    found = read(folders)
    assert found.comparisons == [] and [one.label for one in found.alone] == ["a", "b"]
    with pytest.raises(
        ValueError, match=r"at the same budget \(a: tiny, 32 tokens forced; b: tiny, 64 tokens forced\)\. Nothing can be said of b"
    ):
        compare_in_terminal(folders, None, Console())


def test_a_line_says_accuracy_tokens_and_how_the_budget_was_kept_and_below_it_what_changed(two: list[Path]) -> None:
    found = read(two)
    rows = budget_table(found, "tiny").rows
    cells = {row.label: [f"{cell.text} {cell.small}".strip() for cell in row.cells] for row in rows if not row.sub}
    assert cells["32 tokens forced, old"][0].startswith("16.7 % [") and cells["32 tokens forced, old"][3] == "62.5 % closed"
    assert cells["40 tokens requested, new"][3] == "48.8 % within, 1.58 of it"
    assert cells["short-1@2, new"][3] == "177 thinking, 25 waited for"
    pair = found.budget_pairs["tiny"][0]
    change = claim_interval(accuracy_change(of_evaluation(pair.new.evaluation), of_evaluation(pair.old.evaluation)))
    [text, small] = rows[2].cells[0]
    assert (rows[2].label, text, small) == (
        "new against old",
        "+33.3 points",
        f"[+{100 * change.low:.1f} to +{100 * change.high:.1f}], p {pair.p:.2g}",
    )


def test_what_was_sampled_at_a_budget_is_not_cut_again_and_several_are_no_several_benchmarks(two: list[Path]) -> None:
    found = read(two)
    assert all(pair.better == pair.worse == () for pair in found.comparisons)
    assert not any("benchmarks of equal weight" in said for said in sentences(found))


def test_a_run_has_a_line_before_and_one_after_with_the_colours_of_its_evaluations(tmp_path: Path) -> None:
    for step, right in ((0, 4), (3, 12)):
        for name in ("", "forced-32", "forced-128"):
            at(tmp_path / "run" / "evals", name, right, step, prefix=f"step-{step}")
    found = read([tmp_path / "run"])
    [panel] = charts.asked_panels(found.budgets["tiny"])
    colours = [(one.label, one.colour) for one in found.shown["tiny"]]
    assert [(trace["name"], trace["line"]["color"], trace["text"]) for trace in panel.data] == [(*one, ["32", "128"]) for one in colours]


def test_labels_of_several_runs_differ_in_colour_and_are_of_one_colour_at_all_budgets(tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("decs", "dler", "grpo", "kimi")]
    for place, run in enumerate(runs):
        for step, right in ((0, 4 + place), (3, 12 + place)):
            for name in ("", "forced-32"):
                at(run / "evals", name, right, step, prefix=f"step-{step}")
    found = read(runs)
    colours = {one.label: one.colour for one in found.shown["tiny"]}
    assert len(colours) == len(set(colours.values())) == 8 and colours["decs, before"] == BASE
    assert {one.label: one.colour for [*shown] in found.budgets["tiny"].values() for one in shown} == colours


def test_axes_with_few_points_have_ticks_at_the_budgets(two: list[Path]) -> None:
    forced, requested = charts.asked_panels(read(two).budgets["tiny"])
    for panel, limits in ((forced, {32, 128}), (requested, {40})):
        low, high = (10**end for end in panel.layout["xaxis"]["range"])
        ticks = panel.layout["xaxis"]["tickvals"]
        assert limits <= {tick for tick in ticks if low <= tick <= high} and len(ticks) >= 3 and ticks == sorted(ticks)
        assert all(b >= 1.2 * a for a, b in pairwise(ticks))


@pytest.mark.parametrize("ends", [(53, 80), (21, 23), (101, 149), (990, 1010), (5, 320), (1, 9), (12_000, 13_000)])
def test_a_logarithmic_axis_has_at_least_three_ticks_within(ends: tuple[int, int]) -> None:
    ticks = even(*ends)
    assert 3 <= len(ticks) <= 30 and all(ends[0] <= tick <= ends[1] for tick in ticks)


def test_what_eval_prints_of_budgets_has_every_number_at_80_columns(two: list[Path]) -> None:
    at(two[0], "", 23)
    [run] = read(two[:1]).runs
    console = Console(record=True, width=80)
    console.print(Uncut("old on tiny", table_of(run.evaluations)))
    text = " ".join(console.export_text().split())
    assert "…" not in text and "natural" in text
    for one in run.evaluations:
        assert f"{100 * one.accuracy.mean:.1f} % [{100 * one.accuracy.low:.1f}, {100 * one.accuracy.high:.1f}]" in text
    for kept in ("62.5 % closed", "25.0 % closed", "48.8 % within, 1.58 of it", "177 thinking, 25 waited for"):
        assert kept in text


def test_with_the_natural_evaluation_on_one_side_only_shared_budgets_are_spoken_of_and_what_is_missing_is_said(two: list[Path]) -> None:
    at(two[0], "", 12)
    found = read(two)
    *said, lacking = sentences(found)
    assert [one.evaluation.where for one in found.alone] == ["tiny"] and len(found.comparisons) == 4
    assert said[0].startswith("tiny, 32 tokens forced, new against old: More accurate (95 % interval")
    assert lacking.startswith("What is said of new against old on tiny is of budgets alone: new was sampled at 32 tokens forced, ")
    assert (
        f"`laconic eval new --data tiny --samples 2 eval.temperature=0.6 eval.top_p=1.0 eval.max_tokens=320 eval.problems=24 seed=0 --out {two[1]}`"
        in lacking
    )
    assert "<code>laconic eval new --data tiny --samples 2 " in page(found)
    drawn = ElementTree.fromstring(picture(found))
    assert len(drawn.findall(".//{*}circle")) == 8 and "short-1@2: " in drawn.attrib["aria-label"]
    at(two[1], "", 20)
    assert not any("can be said" in one or "budgets alone" in one for one in sentences(read(two)))


def test_where_nothing_can_be_said_a_sentence_has_the_reason_and_the_command(tmp_path: Path) -> None:
    make = make_groups(12, 50)
    a = evaluated(tmp_path / "a", make, "math500", "math500", temperature=0.6, top_p=0.95, top_k=0, max_tokens=32768, samples=4)
    b = evaluated(tmp_path / "b", make, "aime24", "aime24", temperature=1.0)
    said = sentences(read([a, b]))
    assert said[-1].startswith("On aime24 nothing can be said of b against a: only b was evaluated there.")
    assert (
        f"On math500 nothing can be said of b against a: only a was evaluated there. `laconic eval b --benchmark math500 eval.problems=24 --out {b}` would do it."
        in said
    )
    hotter = evaluated(tmp_path / "hot", make, "math500", "math500", temperature=1.0, max_tokens=32768, samples=4)
    last = sentences(read([a, hotter]))[-1]
    does = f"`laconic eval hot --benchmark math500 eval.problems=24 --out {hotter}-again` would do it; name that folder in its place then."
    assert last == f"So that hot can be compared with a on math500: {does}"  # where it is, the refused one lies
    whole = evaluated(tmp_path / "whole", make_groups(400, 50, problems=500), "math500", "math500", top_p=0.95, top_k=0, max_tokens=32768)
    assert f"`laconic eval hot --benchmark math500 --samples 2 --out {hotter}-again` " in sentences(read([whole, hotter]))[-1]


def test_a_remedy_is_a_command_for_each_set_of_settings_and_the_problems_of_the_tiny_task_are_drawn_by_their_seed(tmp_path: Path) -> None:
    make, r1 = make_groups(12, 50), {"top_p": 0.95, "top_k": 0, "max_tokens": 32768}
    a, b = tmp_path / "a", evaluated(tmp_path / "b", make, "mine")
    evaluated(a, make, "math500", "math500", samples=4, **r1)
    evaluated(a, make, "gsm8k", "gsm8k", samples=1, **r1 | {"max_tokens": 320})
    evaluated(a, make, "rows.jsonl", "rows")
    evaluated(a, make, "my rows.jsonl", "my-rows", budget={"kind": "forced", "limit": 32})
    evaluated(a, make, "tiny", seed=7)
    own, plain = f"--out {b}", "--samples 2 eval.temperature=0.6 eval.top_p=1.0 eval.max_tokens=320 eval.problems=24"
    (said,) = [one for one in sentences(read([a, b])) if "only a was" in one]
    assert said.startswith(
        "On gsm8k, math500, my rows.jsonl, rows.jsonl, tiny nothing can be said of b against a: only a was evaluated there."
    )
    commands = [
        f"--benchmark gsm8k eval.max_tokens=320 eval.problems=24 {own}",
        f"--benchmark math500 eval.problems=24 {own}",
        f"--data 'my rows.jsonl' {plain.replace('2 ', '2 --forced 32 --no-natural ', 1)} {own}",
        f"--data rows.jsonl {plain} {own}",
        f"--data tiny {plain} seed=7 {own}",
    ]
    assert said.endswith(" and ".join(f"`laconic eval b {one}`" for one in commands) + " would do it.")
    other = evaluated(tmp_path / "other", make_groups(12, 50, 12), "tiny", seed=3)
    assert "eval.problems=24 seed=7 --out " in sentences(read([a, other]))[-1]
    evaluated(b, make, "mine", engine="imported")
    imports = [f"`laconic import FILE --source {name} --temperature 0.6 --top-p " for name in ("gsm8k", "math500", "rows.jsonl")]
    (said,) = [one for one in sentences(read([a, b])) if "only a was" in one]
    assert all(one in said for one in imports) and said.count(" (the same of tiny)") == said.count(" (the same of ") == 1
    assert "my rows" not in said.partition("`")[2]
    assert said.endswith(" would do it, of samples that were made so; `laconic import` takes no samples at a budget.")
    forced = evaluated(tmp_path / "forced", make, "other", budget={"kind": "forced", "limit": 32})
    assert any(
        one.endswith("only forced was evaluated there. `laconic import` takes no samples at a budget.")
        for one in sentences(read([forced, b]))
    )


def test_the_picture_of_budgets_alone_has_its_ticks_at_the_budgets(two: list[Path]) -> None:
    ticks = [text.text for text in ElementTree.fromstring(picture(read(two))).findall(".//{*}text") if text.get("text-anchor") == "middle"]
    assert {"32", "40", "128"} <= set(ticks)


def test_imported_samples_are_told_how_to_be_imported_so_that_they_compare(tmp_path: Path) -> None:
    a = evaluated(tmp_path / "a", make_groups(12, 50))
    b = evaluated(tmp_path / "b", make_groups(12, 50), temperature=None, engine="imported")
    asked = f"`laconic import FILE --source tiny --temperature 0.6 --top-p 1.0 --max-tokens 320 --out {b}-again`"
    does = f"{asked} would do it, of samples that were made so; name that folder in its place then"
    assert sentences(read([a, b]))[-1] == f"So that b can be compared with a on tiny: {does}."
    assert sentences(read([b]))[-1].endswith("of other samples of the same problems (`laconic import FILE --source tiny`).")
    own = evaluated(tmp_path / "own", make_groups(12, 50), "mine", engine="vllm")  # what sampled the other is not what samples this one
    assert "only b was evaluated there. `laconic eval own --data tiny " in sentences(read([b, own]))[-2]
    served = evaluated(tmp_path / "served", make_groups(12, 50), "other", engine="http://host/v1, m, asked in messages")
    lacking = sentences(read([own, served]))[-2:]
    assert (
        "`laconic eval --engine-url URL --engine-model served --data mine " in lacking[0]
        and "`laconic eval own --data other " in lacking[1]
    )
