"""The page of a report: seconds to make it, its megabytes, and seconds until a browser shows it, until its rollouts are there, and to search them.

    python benchmarks/report.py [--runs 5] [--problems 250] [--samples 8] [--words 300] [--json report.json]

Runs with an evaluation before and one after (20,000 rollouts as it stands) are invented: words by Zipf's law, which pack worse than what models
write again and again. The browser is the machine's own Chromium, by playwright; without them only the page is measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from evaluation.report import report
from evaluation.results import Settings
from evaluation.scores import score
from rewards.verifier.verdict import Verdict
from rollout.records import rows
from rollout.types import Completion, Group, Problem, Request, Rollout

LIMIT = 2048
_WORDS = ["".join(np.random.default_rng(n).choice(list("abcdefghijklmnoprstuvwy"), 2 + n % 7)) for n in range(4000)]
_ZIPF = 1 / np.arange(1, len(_WORDS) + 1)


def invented(folder: Path, step: int, problems: int, samples: int, words: int, seed: int) -> None:
    """Write an evaluation of invented rollouts into a run folder: its scores and its samples."""
    rng = np.random.default_rng(seed)
    groups = []
    for number in range(problems):
        problem = Problem(
            f"p{number:04d}", f"Problem {number}: what is {number} + 7?", str(number + 7), "sum" if number % 2 else "chain", number % 5 + 1
        )
        request = Request(problem.id, problem, (1,), samples, LIMIT, 0.6, 1.0, 0)
        group = Group(request, [])
        for sample in range(samples):
            length = int(np.clip(rng.gamma(4, words / 4), 4, LIMIT))
            said = [_WORDS[n] for n in rng.choice(len(_WORDS), length, p=_ZIPF / _ZIPF.sum())]
            right, cut = rng.random() < 1 - problem.level / 8, length > 2.5 * words
            verdict = (
                Verdict("wrong", "unfinished") if cut else Verdict("right" if right else "wrong", "integer", str(number + 7 + (not right)))
            )
            text = "<think> " + " ".join(said) + ("" if cut else f" </think> \\boxed{{{verdict.extracted}}}")
            ids = rng.integers(0, 1000, length + 4).astype(np.int32)
            done = Completion(
                ids, -rng.exponential(0.3, len(ids)).astype(np.float32), "length" if cut else "stop", np.zeros(len(ids), np.int32)
            )
            group.rollouts.append(Rollout(f"{number}-{sample}", sample, done, text, None if cut else length, verdict))
        groups.append(group)
    table = rows(groups, step, "invented")
    settings = Settings(temperature=0.6, top_p=1.0, max_tokens=LIMIT, samples=samples, seed=0, engine="invented", template="invented")
    (folder / "evals").mkdir(parents=True, exist_ok=True)
    scores = score(table, checkpoint="", step=step, source="invented", settings=settings)
    (folder / "evals" / f"step-{step}.json").write_text(scores.model_dump_json())
    pq.write_table(table, folder / "evals" / f"step-{step}.parquet")


def opened(page: Path) -> dict[str, float]:
    """Seconds in a browser; empty where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        return {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        start = time.perf_counter()
        tab.goto(page.resolve().as_uri(), wait_until="load")
        shown = time.perf_counter()
        tab.locator("#reader").scroll_into_view_if_needed()
        tab.wait_for_selector("#reader-list .row")
        there = time.perf_counter()
        tab.fill("#reader-search", "boxed{1")
        tab.locator("#reader-count", has_text=" of ").wait_for()  # the page's policy lets no other way in
        found = time.perf_counter()
        browser.close()
    return {"opened": shown - start, "rollouts there": there - shown, "first search": found - there}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"runs": 5, "problems": 250, "samples": 8, "words": 300}.items():
        options.add_argument(f"--{name}", type=int, default=value)
    options.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        runs = [Path(name) / f"run-{number}" for number in range(args.runs)]
        for number, run in enumerate(runs):
            for step in 0, 40:
                invented(run, step, args.problems, args.samples, args.words if step == 0 else args.words // 2, 100 * number + step)
        start, worked = time.perf_counter(), time.process_time()
        page = report(runs, Path(name) / "report.html")
        numbers = {"made": time.perf_counter() - start, "of the CPU": time.process_time() - worked, **opened(page)}
        size = page.stat().st_size / 1e6
    print(f"{2 * args.runs * args.problems * args.samples:,} rollouts of {args.runs} runs")
    print(f"| {'page':16} | {size:7.2f} MB |")
    for what, seconds in numbers.items():
        print(f"| {what:16} | {seconds:7.2f} s  |")
    if args.json:
        args.json.write_text(json.dumps(numbers | {"megabytes": size}, indent=1))


if __name__ == "__main__":
    main()
