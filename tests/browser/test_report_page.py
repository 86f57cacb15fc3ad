"""The report in a real browser: charts are drawn, rollouts are found and read, with the keyboard too, and nothing leaves the page."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.report import invented
from evaluation.report import report
from rewards.verifier.verdict import Verdict
from rollout.records import rows
from rollout.tiny.tokenizer import build_tokenizer
from rollout.types import Completion, Group, Problem, Request, Rollout
from tests.unit.test_comparisons import evaluated
from tests.unit.test_report import make_groups

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (make install)")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")

_PATIENCE_MS = 120_000
PROBLEMS, SAMPLES = 250, 16  # of each evaluation: five runs with the first and the last hold 20,000 rollouts, and 8 of training
HOSTILE = '<img src=x onerror="window.harmed = 1"><script>window.harmed = 1</script> 6\n</think>\n\\boxed{6}'


def trained(run: Path) -> None:
    """What training leaves: steps, and kept samples that say what each of their tokens trained with."""
    tokenizer = build_tokenizer()
    (run / "samples").mkdir()
    names = ("accuracy", "length/mean", "limit", "reward/mean", "entropy", "grad_norm")
    lines = [{"step": step, "time": 2.0 * step} | {name: 1 / (step + 1) for name in names} for step in range(40)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    problem = Problem("train/0", "Add <b>3 + 3</b>", "6")
    group = Group(Request("r", problem, (1,), 8, 320, 0.6, 1.0, 0), [])
    for sample in range(8):
        text = HOSTILE if sample == 0 else "3 + 3 -> 6\nwait, 3 + 3 -> 6, yes\n</think>\n\\boxed{6}"
        ids = np.array([*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id], np.int32)
        done = Completion(ids, -np.linspace(0, 2, len(ids)).astype(np.float32), "stop", np.zeros(len(ids), np.int32))
        one = Rollout(f"t{sample}", sample, done, text, None, Verdict("right", "integer", "6"), reward=1.0)
        one.by_token = {"advantage": np.linspace(-1, 1, len(ids)), "weight": np.arange(len(ids)) % 2 / 100}
        group.rollouts.append(one)
    pq.write_table(rows([group], 39, "invented"), run / "samples" / "step-00039.parquet")
    tokenizer.save_pretrained(run / "checkpoints" / "step-40")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs", numbered=False)
    runs = [folder / f"run-{number}" for number in range(3)]
    for number, run in enumerate(runs):
        for step in 0, 40:
            if number < 2 or step:
                invented(run, step, PROBLEMS, SAMPLES, 24 if step == 0 else 12, 10 * number + step)
    trained(runs[0])
    return report(runs, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        playwright.expect.set_options(timeout=_PATIENCE_MS)
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=_PATIENCE_MS)
        yield found
        found.close()


def window(browser: Any, **how: Any) -> Any:
    """A window of its own, in which a busy machine is waited for."""
    context = browser.new_context(**how)
    context.set_default_timeout(_PATIENCE_MS)
    return context


@pytest.fixture
def tab(browser: Any, page_file: Path) -> Iterator[Any]:
    """The page in a tab of its own; whatever it complained of or asked for fails the test."""
    context = window(browser, viewport={"width": 1280, "height": 900}, color_scheme="light")
    opened = context.new_page()
    said: list[str] = []
    opened.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: said.append(f"error: {error}"))
    opened.on("request", lambda request: said.append(f"request: {request.url}") if request.url != page_file.as_uri() else None)
    opened.goto(page_file.as_uri())
    yield opened
    context.close()
    assert said == []


def reader(tab: Any) -> Any:
    """The reader, once its rollouts are there."""
    tab.locator("#reader").scroll_into_view_if_needed()
    tab.locator("#reader-list .row").first.wait_for()
    return tab.locator("#reader")


def count(tab: Any, words: str) -> None:
    playwright.expect(tab.locator("#reader-count")).to_have_text(words)


def marks(tab: Any, name: str) -> list[Any]:
    """What is in the list's rows, of those in view."""
    return tab.locator(f"#reader-list .row {name}").all_inner_texts()


def samples(page_file: Path) -> dict[str, list[Any]]:
    """All rollouts of the page, from the files that it was made of."""
    found: dict[str, list[Any]] = {"verdict": [], "finish": [], "tokens": [], "text": []}
    runs = sorted((page_file.parent.parent / "runs").iterdir())
    for file in [file for run in runs for part in ("evals", "samples") for file in sorted((run / part).glob("*.parquet"))]:
        for name, values in pq.read_table(file, columns=list(found)).to_pydict().items():
            found[name] += values
    return found


# the page


def test_every_chart_is_drawn_when_it_comes_into_view(tab: Any) -> None:
    plots = tab.locator(".plot")
    assert plots.count() > 8
    for index in range(plots.count()):
        plots.nth(index).scroll_into_view_if_needed()
        plots.nth(index).locator("svg").first.wait_for()


@pytest.fixture(scope="module")
def many_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models on six sources, with remarks longer than a line, and one at a budget."""
    folder = tmp_path_factory.mktemp("many", numbered=False)
    for name, right, tokens in (("old", 12, 200), ("new", 20, 50)):
        for index in range(6):
            said = {"engine": name * 20, "instruction": name * 60, "revision": name[0] * 40} if index == 0 else {}
            evaluated(folder / name, make_groups(right, tokens), f"source-{index}", f"s{index}", **said)
        at = {"kind": "forced", "limit": 64}
        evaluated(folder / name, make_groups(right, 50), "source-0", "s0@forced-64", budget=at)
    return report([folder / "old", folder / "new"], folder / "report.html")


def test_of_many_sources_all_but_the_first_are_folded_and_the_keyboard_opens_them(browser: Any, many_sources: Path) -> None:
    context = window(browser, viewport={"width": 1000, "height": 800})
    tab = context.new_page()
    tab.goto(many_sources.as_uri())
    folds = tab.locator("details.fold")
    assert folds.locator("> summary").all_inner_texts() == [
        *(f"Charts of source-{n}" for n in (3, 4, 5)),
        "Rollouts side by side of 3 more",
    ]
    plot = folds.first.locator(".plot").first
    assert not plot.is_visible()
    folds.first.locator("> summary").focus()
    tab.keyboard.press("Enter")
    plot.locator("svg").first.wait_for()
    assert tab.evaluate("() => document.documentElement.scrollWidth") <= 1000
    tab.pdf()
    assert all(tab.locator(".plot").nth(index).locator("svg").count() > 0 for index in range(tab.locator(".plot").count()))
    context.close()


def test_any_two_labels_of_a_sample_can_be_set_side_by_side(browser: Any, many_sources: Path) -> None:
    context = window(browser, viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.goto(many_sources.as_uri())
    reader(tab)
    sides = tab.locator("#reader-shown .rollout header .key")
    assert sides.all_inner_texts() == ["old", "new"]  # of four labels those without a budget
    tab.locator("#reader-first").select_option(label="old, 64 tokens forced")
    tab.locator("#reader-beside").select_option(label="new, 64 tokens forced")
    assert sides.all_inner_texts() == ["old, 64 tokens forced", "new, 64 tokens forced"]
    tab.locator("#reader-list").focus()
    tab.keyboard.press("j")
    assert sides.all_inner_texts() == ["old, 64 tokens forced", "new, 64 tokens forced"]
    tab.locator("#reader-set").select_option(label="old · source-3")  # two labels: they are side by side as they are
    assert sides.all_inner_texts() == ["old", "new"] and not tab.locator("#reader-first").is_visible()
    context.close()


def test_a_table_sorts_by_the_column_whose_head_is_pressed(tab: Any) -> None:
    table = tab.locator("table.sortable").first
    head = table.locator("th").nth(1)
    number = lambda text: float(re.sub(r"[^\d.-]", "", text.replace("−", "-")) or "nan")  # noqa: E731
    for press, down in ((head.click, True), (lambda: head.press("Enter"), False)):
        press()
        values = [number(text.split()[0]) for text in table.locator("tr > td:nth-child(2)").all_inner_texts() if text.strip()]
        assert values == sorted(values, reverse=down) and head.get_attribute("aria-sort") == ("descending" if down else "ascending")


_FAINT = """() => {
  const parts = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return text.startsWith("color") ? [...n.slice(0, 3).map((x) => 255 * x), n[3] ?? 1] : [...n.slice(0, 3), n[3] ?? 1]; };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
  const ground = (one) => { if (!one) return matchMedia("(prefers-color-scheme: dark)").matches ? [0, 0, 0] : [255, 255, 255]; const own = parts(getComputedStyle(one).backgroundColor); return over(own, own[3] < 1 ? ground(one.parentElement) : [0, 0, 0]); };
  const light = (rgb) => rgb.map((x) => x / 255).map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)).reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const faint = [], walk = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode());) {
    const one = node.parentElement;
    if (!node.data.trim() || !one.checkVisibility() || one.closest("svg, script, option")) continue;
    const under = ground(one), [a, b] = [light(over(parts(getComputedStyle(one).color), under)), light(under)].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 3) faint.push(node.data.trim().slice(0, 40));
  }
  return faint;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_what_is_behind_it(tab: Any, scheme: str) -> None:
    tab.emulate_media(color_scheme=scheme)
    reader(tab)
    tab.locator(".chip[data-filter=carried]").click()
    tab.locator("#reader-measure").select_option("surprise")
    tab.locator("#reader-shown .token").first.wait_for()
    assert tab.evaluate(_FAINT) == []


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_window(tab: Any, width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 800})
    reader(tab)
    assert tab.evaluate("() => document.documentElement.scrollWidth") <= width


def test_paper_shows_every_chart_and_the_whole_rollout_that_is_open(tab: Any) -> None:
    reader(tab)
    tab.pdf()
    drawn = [tab.locator(".plot").nth(index).locator("svg").count() > 0 for index in range(tab.locator(".plot").count())]
    assert all(drawn)
    tab.emulate_media(media="print")
    assert tab.locator("#reader-shown .rollout").first.is_visible() and not tab.locator("#reader-list").is_visible()
    hidden = "() => [...document.querySelectorAll('#reader-shown pre')].filter((one) => one.scrollHeight > one.clientHeight + 1).length"
    assert tab.evaluate(hidden) == 0


# the rollouts


def test_filters_leave_what_the_files_hold_and_say_how_many(tab: Any, page_file: Path) -> None:
    reader(tab)
    there, total = samples(page_file), 5 * PROBLEMS * SAMPLES + 8
    count(tab, f"{total:,} rollouts")
    wrong, cut = tab.locator(".chip[data-filter=wrong]"), tab.locator(".chip[data-filter=cut]")
    wrong.click()
    count(tab, f"{there['verdict'].count('wrong'):,} of {total:,}")
    cut.click()
    count(tab, f"{there['finish'].count('length'):,} of {total:,}")  # what was cut is wrong
    assert set(marks(tab, ".badge.wrong")) == {"wrong"} and "cut off" in marks(tab, ".badge.cut")
    wrong.click()
    tab.locator(".chip[data-filter=right]").click()
    count(tab, f"0 of {total:,}")
    assert "No rollout is like that" in tab.locator("#reader-shown").inner_text()
    tab.locator("#reader-list").focus()
    tab.keyboard.press("Escape")
    tab.locator("#reader-set").select_option(label="run-0, training")
    count(tab, f"8 of {total:,}")
    tab.locator("#reader-set").select_option("")
    tab.locator("#reader-search").fill("</THINK> \\boxed{201}")
    said = [text for text in there["text"] if "</think> \\boxed{201}" in text]
    count(tab, f"{len(said):,} of {total:,}")


def test_rollouts_are_ordered_by_length_and_only_those_in_view_exist(tab: Any, page_file: Path) -> None:
    reader(tab)
    longest = sorted(samples(page_file)["tokens"], reverse=True)
    tab.locator("#reader-sort").select_option("longest")
    playwright.expect(tab.locator("#reader-row-0 > .count")).to_have_text(f"{longest[0]:,}")
    assert [int(text.replace(",", "")) for text in marks(tab, "> .count")[:10]] == longest[:10]
    tab.locator("#reader-list").press("End")
    playwright.expect(tab.locator(f"#reader-row-{len(longest) - 1} > .count")).to_have_text(f"{longest[-1]:,}")
    assert tab.locator("#reader-list .row").count() < 60


def test_the_keyboard_goes_through_the_rollouts_and_into_the_search_and_back(tab: Any) -> None:
    reader(tab)
    chosen = lambda: tab.locator("#reader-list .row[aria-selected=true]").get_attribute("id")  # noqa: E731
    for key, place in (("j", 1), ("j", 2), ("k", 1)):
        tab.keyboard.press(key)
        assert chosen() == f"reader-row-{place}"
    tab.locator("#reader-list").focus()
    for key, place in (("ArrowDown", 2), ("ArrowUp", 1), ("Home", 0), ("ArrowUp", 0)):
        tab.keyboard.press(key)
        assert chosen() == f"reader-row-{place}" == tab.locator("#reader-list").get_attribute("aria-activedescendant")
    tab.keyboard.press("/")
    tab.keyboard.type("jk no rollout says this")
    count(tab, "0 of 20,008")
    tab.keyboard.press("Escape")
    count(tab, "20,008 rollouts")
    assert tab.locator("#reader-list:focus").count() == 1


def test_before_and_after_of_a_sample_stand_side_by_side_and_one_can_be_put_away(tab: Any) -> None:
    reader(tab)
    sides = tab.locator("#reader-shown .rollout")
    tab.locator("#reader-beside").select_option(label="run-0")
    assert sides.locator("header .key").all_inner_texts() == ["run-0, before", "run-0"]
    tab.keyboard.press("j")  # the same sample of the other label, beside the first of its source
    assert sides.locator("header .key").all_inner_texts() == ["run-0, before", "run-0"]
    tab.locator(".chip[data-filter=changed]").click()
    verdicts = sides.locator(".badge").all_inner_texts()
    assert len(verdicts) >= 2 and tab.locator("#reader-count").inner_text().endswith(" of 20,008")
    tab.locator("#reader-beside").select_option("")
    assert sides.count() == 1
    tab.keyboard.press("j")
    assert sides.count() == 1


def test_tokens_wear_their_numbers_and_the_keyboard_reads_them(tab: Any) -> None:
    reader(tab)
    tab.locator("#reader-set").select_option(label="run-0, training")
    tab.locator("#reader-list").press("j")
    tab.locator("#reader-measure").select_option("advantage")
    tokens = tab.locator("#reader-shown .token")
    assert "".join(tokens.all_inner_texts()).startswith("3 + 3 -> 6\nwait, ")
    strength = [
        float(style.split(":")[1].strip(" ;")) for style in tokens.evaluate_all("all => all.map((one) => one.getAttribute('style'))")
    ]
    assert strength[0] == strength[-1] == 1 and min(strength) < 0.1
    assert "minus" in tokens.first.get_attribute("class") and "minus" not in tokens.last.get_attribute("class")
    tab.locator("#reader-shown pre.tokens").focus()
    tab.keyboard.press("ArrowRight")
    said = tab.locator("#reader-shown .token-said").inner_text()
    assert re.match(r'token 2 of \d+, id \d+ " \+ ": advantage −0\.\d+ \(after credit\)', said)
    assert tokens.nth(1).get_attribute("title") == said and "−" in tab.locator("#reader-legend").inner_text()
    tab.locator("#reader-measure").select_option("surprise")
    tokens.nth(3).click()
    assert "surprise" in tab.locator("#reader-shown .token-said").inner_text()


def test_what_a_model_or_a_data_set_writes_is_text_and_nothing_else(tab: Any) -> None:
    reader(tab)
    tab.locator("#reader-search").fill("window.harmed")
    count(tab, "1 of 20,008")
    assert tab.locator("#reader-shown pre").inner_text() == HOSTILE and "<b>3 + 3</b>" in tab.locator("#reader-shown .problem").inner_text()
    assert tab.locator("#reader-shown img, #reader-shown script, #reader-list b").count() == 0
    assert tab.evaluate("() => window.harmed === undefined")
