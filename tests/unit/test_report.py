"""The report: one offline page from a run folder, clear about what is missing and no bolder than its intervals."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from evaluation import examples, words
from evaluation.comparisons import read
from evaluation.entries import by_source, compared, read_entries
from evaluation.formats import sentences
from evaluation.report import plotly_packed, report
from evaluation.results import Evaluation, ProblemScore, Settings
from evaluation.run_folder import read_run
from evaluation.scores import score
from evaluation.statistics import Interval
from evaluation.tables import settings_table
from recipes.loader import load
from rewards.verifier.verdict import Verdict
from rollout.records import rows
from rollout.types import Completion, Group, Problem, Request, Rollout

SETTINGS = {"temperature": 0.6, "top_p": 1.0, "max_tokens": 320, "samples": 2, "seed": 0, "engine": "reference"}
HOSTILE = "<think> <script>alert(1)</script> <img src=http://evil/x> & </think> \\boxed{7}"


def make_groups(right: int, tokens: int, problems: int = 24, text: str = HOSTILE) -> list[Group]:
    """Two samples a problem, the first `right` problems solved; lengths differ a little from problem to problem."""
    groups = []
    for i in range(problems):
        problem = Problem(id=f"p{i:02d}", text=f"what is {i} + 7 <b>?", answer="7", family=["chain", "<i>sum"][i % 2], level=i % 3 + 1)
        request = Request(problem.id, problem, (1,), 2, 320, 0.6, 1.0, 0)
        length = tokens + i
        rollouts = []
        for s in range(2):
            verdict = Verdict("right", "integer", "7") if i < right else Verdict("wrong", "integer", "8")
            completion = Completion(np.zeros(length, np.int32), np.zeros(length, np.float32), "stop", np.zeros(length, np.int32))
            rollouts.append(Rollout(f"{i}-{s}", s, completion, text, length - 3, verdict))
        groups.append(Group(request, rollouts))
    return groups


def scored(groups: list[Group], step: int = 0, settings: dict | None = None) -> Evaluation:
    table = rows(groups, step, "digest")
    return score(table, checkpoint=f"checkpoints/step-{step}", step=step, source="tiny", settings=Settings(**settings or SETTINGS))


def add_evaluation(run: Path, step: int, groups: list[Group], settings: dict | None = None) -> None:
    (run / "evals").mkdir(exist_ok=True)
    (run / "evals" / f"step-{step}.json").write_text(scored(groups, step, settings).model_dump_json())
    pq.write_table(rows(groups, step, "digest"), run / "evals" / f"step-{step}.parquet")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder as docs/architecture.md describes it: three steps, evaluated before and after."""
    folder = tmp_path / "dler-tiny"
    (folder / "samples").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(
        "name: dler-tiny\nseed: 3\nmodel: {path: tiny, dtype: fp32}\nreward: [{kind: verdict, weight: 1.0}]\n"
    )
    (folder / "environment.json").write_text(json.dumps({"versions": {"torch": "2.13.0"}, "seed": 3, "recipe_hash": "abc"}))
    (folder / "status.json").write_text(json.dumps({"state": "finished", "reason": "all steps done", "step": 3}))
    metrics = [
        {
            "step": t,
            "time": 2.0 * t,
            "accuracy": 0.5,
            "length/mean": 90.0 - t,
            "length/right": None,
            "limit": 96,
            "mismatch/mean": 1e-6 * (1 + t),
            "kl": None,
        }
        for t in range(3)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics))
    pq.write_table(rows(make_groups(1, 40, problems=3), 2, "digest"), folder / "samples" / "step-00002.parquet")
    add_evaluation(folder, 0, make_groups(right=12, tokens=200))
    add_evaluation(folder, 3, make_groups(right=20, tokens=50))
    return folder


def page(folder: Path) -> str:
    """The page without plotly.js, white space collapsed."""
    text = report([folder]).read_text()
    head, library, rest = text.partition(plotly_packed())
    assert library
    return re.sub(r"\s+", " ", head + rest)


def panels(text: str) -> dict:
    found = re.search(r'<script type="application/json" id="panels">(.*?)</script>', text)
    assert found

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(found.group(1), parse_constant=refuse)


# one page, offline and safe


def test_the_page_is_self_contained_and_may_not_reach_the_network(run: Path) -> None:
    text = page(run)
    assert "default-src 'none'" in text
    assert not re.search(r"<(link|iframe|img)\b|<script [^>]*src|@import|url\(", text)
    assert "Plotly.newPlot" in text


def test_model_output_and_problem_texts_are_escaped(run: Path) -> None:
    text = page(run)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script>alert" not in text and "<i>sum" not in text and "<b>?" not in text


def test_every_panel_holds_strict_json_and_a_place_in_the_page(run: Path) -> None:
    text = page(run)
    found = panels(text)
    assert len(found) >= 2 + 2 + 3  # trade-off, two families, training metrics that exist
    assert all(f'id="{name}"' in text and panel["data"] for name, panel in found.items())


def test_a_null_metric_is_a_gap_and_one_that_never_exists_has_no_panel(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "accuracy": None, "entropy": 0.2}) + "\n")
    text = page(run)
    traces = [trace for panel in panels(text).values() for trace in panel["data"]]
    accuracy = next(trace for trace in traces if trace.get("name") == "right of all judged rollouts")
    assert accuracy["y"] == [50, 50, 50, None]
    assert "KL to the reference" not in text and "Entropy" in text


# what it claims


def test_the_verdict_states_both_changes_with_paired_intervals(run: Path) -> None:
    text = page(run)
    claim, sentence, *_ = re.findall(r'<p class="verdict">(.*?)</p>', text)
    assert re.fullmatch(r"More accurate \(95 % interval \+\d\d\.\d\d to \+\d\d\.\d\d points, a loss of 1 was allowed\)\.", claim)
    assert re.fullmatch(
        r"Mean tokens 212 → 62 \(−71 %, 95 % interval −7\d to −7\d\), "
        r"accuracy 50\.0 % → 83\.3 % \(\+33\.3 points, 95 % interval \+\d\d\.\d to \+\d\d\.\d\), "
        r"paired over 24 problems with 2 samples each\.",
        sentence,
    )


def test_twins_get_no_difference_shown(run: Path) -> None:  # P36
    add_evaluation(run, 3, make_groups(right=12, tokens=200))
    assert page(run).count("no difference shown") == 4  # both numbers, in the sentence and in the tiles


def test_a_difference_on_five_problems_is_not_called_one(run: Path) -> None:
    add_evaluation(run, 0, make_groups(right=0, tokens=200, problems=5))
    add_evaluation(run, 3, make_groups(right=5, tokens=50, problems=5))
    assert "no difference shown: +100.0 points" in page(run)
    assert "5 problems are too few" in page(run)


@pytest.mark.parametrize(
    ("settings", "problems", "reason"),
    [({"max_tokens": 640}, 24, "max_tokens was 320 before and 640 after"), ({}, 20, "they were made on different problems")],
)
def test_evaluations_of_other_settings_or_problems_are_not_compared(run: Path, settings: dict, problems: int, reason: str) -> None:
    add_evaluation(run, 3, make_groups(right=20, tokens=50, problems=problems), SETTINGS | settings)
    assert f"cannot be compared: {reason}" in page(run)


def test_every_score_carries_n_k_budget_errors_and_shares(run: Path) -> None:  # P36, A13
    text = page(run)
    for row in (
        r"Problems × samples</td><td>24 × 2",
        r"Samples recorded, of those asked for</td><td>48 of 48",
        r"Budget</td><td>320 tokens",
        r"Accuracy \(mean of samples\)</td><td>50\.0 % <span class=\"small\">\[\d",
        r"standard error, new problems</td><td>10\.43 %",  # sd of twelve 1s and twelve 0s / sqrt(24)
        r"standard error, new samples</td><td>0\.00 %",
        r"pass@2</td><td>50\.0 %",
        r"of right samples</td><td>206",
        r"of wrong samples</td><td>218",
        r"Cut off at the budget</td><td>0\.0 %",
        r"Not judged</td><td>0\.00 %",
    ):
        assert re.search(row, text), row


def test_a_curve_that_was_cut_after_the_fact_says_so(run: Path) -> None:  # P38
    text = page(run)
    assert "Cut after the fact" in text
    assert "tokens allowed per sample" in text and "mean tokens used per sample" in text


def test_samples_that_were_not_judged_or_not_made_are_stated(run: Path) -> None:  # P19, P35
    groups = make_groups(right=20, tokens=50)
    groups[0].rollouts[0].verdict = Verdict("not_judged", "timeout", "7")
    groups[1].rollouts.pop()
    add_evaluation(run, 3, groups)
    text = page(run)
    assert "At step 3, 2.08 % of the samples could not be judged." in text and "were all of them right, it would be 83.3 %" in text
    assert "At step 3, 1 samples that were asked for do not exist" in text


# runs that are not whole


@pytest.mark.parametrize("name", ["recipe.yaml", "environment.json", "status.json", "metrics.jsonl"])
def test_a_missing_file_is_named_and_the_rest_is_shown(run: Path, name: str) -> None:
    (run / name).unlink()
    text = page(run)
    assert f"{name} is missing" in text
    assert "Mean tokens 212 → 62" in text


@pytest.mark.parametrize("name", ["recipe.yaml", "environment.json", "status.json", "evals/step-3.json", "evals/step-3.parquet"])
def test_an_unreadable_file_is_named_and_the_page_is_made(run: Path, name: str) -> None:
    (run / name).write_text('{"half: [written')
    assert f"{name} could not be read" in page(run)


def test_training_rows_that_are_also_evaluation_rows_are_counted_and_named(run: Path) -> None:
    lines = [json.dumps({"eval": "test", "train_row": f"rows/{number}", "eval_row": "e"}) for number in range(4)]
    (run / "overlap.jsonl").write_text("\n".join(lines))
    assert "4 training rows are also rows of test (rows/0, rows/1, rows/2, ...; all in overlap.jsonl)" in page(run)
    (run / "overlap.jsonl").write_text(lines[0] + "\n{")
    assert "overlap.jsonl could not be read" in page(run)


@pytest.mark.parametrize(
    "record", ['{"step": 3, "lr', '{"step": 3, "lr": NaN}', '{"step": "3"}', '{"lr": 1}', '{"step": 3, "lr": "y"}', "[3]", "3"]
)
def test_a_last_line_that_is_half_written_or_of_another_form_is_left_out_and_named(run: Path, record: str) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(record)
    assert "metrics.jsonl:4: not a whole record" in page(run)
    assert [found["step"] for found in read_run(run).metrics] == [0, 1, 2]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("step", None, "step: Field required"),
        ("step", "3", "step: Input should be a valid integer"),
        ("accuracy", 0.5, "accuracy: "),
        ("accuracy", {"mean": 0.5}, "accuracy.low: Field required"),
        ("settings", {}, "settings.max_tokens: Field required"),
        ("tokens", None, "tokens: Field required"),
        ("budget_curve", [], "budget_curve: List should have at least 1 item"),
        ("per_problem", [{"id": "p00"}], "per_problem.0.level: Field required"),
    ],
)
def test_an_evaluation_of_another_form_is_left_out_and_named(run: Path, key: str, value: object, words: str) -> None:
    file = run / "evals" / "step-3.json"
    content = json.loads(file.read_text())
    del content[key]
    file.write_text(json.dumps(content if value is None else content | {key: value}))
    text = page(run)
    assert f"evals/step-3.json is no whole evaluation ({words}" in text
    assert "One evaluation so far, at step 0" in text


@pytest.mark.parametrize("name", ["recipe.yaml", "environment.json", "status.json", "evals/step-3.json"])
@pytest.mark.parametrize("content", ["5", "[1, 2]", "{}"])
def test_a_file_without_keys_is_named_and_the_page_is_made(run: Path, name: str, content: str) -> None:
    (run / name).write_text(content)
    assert f"{name} holds no keys with values" in page(run)


@pytest.mark.parametrize("reward", ["5", "[5, {kind: verdict}]", "{kind: verdict}", "null"])
def test_a_recipe_that_would_not_load_is_shown_as_it_stands(run: Path, reward: str) -> None:
    (run / "recipe.yaml").write_text(f"name: mine\nstages: rl\nsampler: 3\nreward: {reward}\n")
    row = re.search(r"<td>Reward</td><td>(.*?)</td>", page(run))
    assert (row and row.group(1)) == {"5": "5", "[5, {kind: verdict}]": "5, verdict", "{kind: verdict}": "verdict", "null": None}[reward]


def test_a_step_recorded_twice_counts_once_the_later_one(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 1, "accuracy": 0.75}) + "\n")
    assert [record["accuracy"] for record in read_run(run).metrics] == [0.5, 0.75, 0.5]


@pytest.mark.parametrize(
    ("state", "sentence"),
    [("failed", "The run failed at step 2: engine 0 died."), ("no-effective-update", "The run taught nothing: no update")],
)
def test_a_run_that_reached_nothing_opens_with_why_and_shows_its_last_rollouts(run: Path, state: str, sentence: str) -> None:  # P40
    (run / "status.json").write_text(json.dumps({"state": state, "reason": "engine 0 died", "step": 2}))
    (run / "evals" / "step-3.json").unlink()
    text = page(run)
    assert text.index(sentence) < text.index("One evaluation so far, at step 0: accuracy 50.0 %")
    assert "Last training rollouts" in text and "Rollouts side by side" not in text


def test_a_run_without_evaluations_states_no_result(run: Path) -> None:
    for file in (run / "evals").iterdir():
        file.unlink()
    text = page(run)
    assert "Nothing has been evaluated yet" in text and "the evaluations are the evidence" in text


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"neither a run folder .* nor a folder of evaluations; give a folder that `laconic train` or `laconic eval` made"
    ):
        report([tmp_path])


# examples and words


def rows_of(*cells: tuple[str, int, int, float]) -> list[ProblemScore]:
    return [ProblemScore(id=id_, level=level, right=right, samples=4, tokens=tokens) for id_, level, right, tokens in cells]


def test_examples_follow_their_rules_and_use_no_problem_twice() -> None:
    before = rows_of(("a", 1, 4, 100), ("b", 1, 4, 300), ("c", 2, 0, 320), ("d", 3, 0, 320), ("e", 2, 4, 90), ("f", 3, 2, 200))
    after = rows_of(("a", 1, 4, 20), ("b", 1, 4, 30), ("c", 2, 4, 40), ("d", 3, 4, 80), ("e", 2, 1, 50), ("f", 3, 2, 70))
    assert [choice.problem_id for choice in examples.choose(before, after)] == ["b", "d", "e", "f"]


def test_a_rule_without_a_problem_picks_none() -> None:
    same = rows_of(("a", 1, 4, 100))
    assert [choice.problem_id for choice in examples.choose(same, same)] == [None, None, None, "a"]


def test_the_sample_shown_has_the_median_length_of_those_that_fit() -> None:
    lengths = [("right", 50), ("wrong", 10), ("right", 20), ("right", 30), ("right", 40)]
    samples = [{"verdict": verdict, "tokens": tokens, "sample": i} for i, (verdict, tokens) in enumerate(lengths)]
    shown = examples.median_sample(samples, "right")
    assert shown and shown["tokens"] == 30


def test_long_texts_lose_their_middle_and_say_how_much() -> None:
    short = examples.shorten("x" * 5000 + "y" * 5000, most=1000)
    assert "9,000 characters left out" in short and short.startswith("x" * 500) and short.endswith("y" * 500)


def test_numbers_read_like_numbers() -> None:
    assert (words.tokens(1234.4), words.tokens(9.96), words.tokens(3.14), words.tokens(None)) == ("1,234", "10", "3.1", "–")
    assert (words.signed(-0.4), words.signed(11.34), words.signed(-0.04)) == ("−0.4", "+11.3", "0.0")
    assert (words.number(-0.25), words.number(1.2e-5), words.number(0.04996, 2), words.number(3e9)) == ("−0.25", "1.2e−5", "0.05", "3e9")
    assert words.change_text(Interval(-0.774, -0.781, -0.766), 256, "%", 0) == "−77 %, 95 % interval −78 to −77"
    assert words.change_text(Interval(0.01, -0.004, 0.02), 256, "points").startswith("no difference shown: +1.0 points")


def test_a_single_evaluation_is_not_a_comparison(run: Path) -> None:
    (run / "evals" / "step-3.json").unlink()
    (shown,) = by_source(read_entries([run])).values()
    assert len(shown) == 1 and compared(shown) == []


def silent_groups(cut: int, reason: str, right: int = 0) -> list[Group]:
    """40 samples: `cut` of them cut off, then `right` right ones, the others without an answer for this reason."""
    groups = make_groups(right=0, tokens=100, problems=20)
    for index, rollout in enumerate(rollout for group in groups for rollout in group.rollouts):
        if index < cut:
            rollout.completion = replace(rollout.completion, finish="length")
            rollout.verdict = Verdict("wrong", "unfinished")
        elif index >= cut + right:
            rollout.verdict = Verdict("wrong", reason)
    return groups


@pytest.mark.parametrize(
    ("cut", "reason", "right", "warned"),
    [
        (40, "", 0, "100.0 % of the samples were cut off at 320 tokens, so this says little of the model: raise eval.max_tokens"),
        (39, "no box", 0, "97.5 % of the samples were cut off"),
        (30, "no box", 0, r"100.0 % of the samples that ended hold no \boxed{} answer, and nothing else counts: ask for it with data.instruction, or"),
        (0, "empty box", 1, r"97.5 % of the samples that ended hold no \boxed{} answer"),
        (0, "thinking not closed", 0, "100.0 % of the samples that ended never closed their thinking"),
        (20, "no box", 10, None),
        (36, "no box", 2, None),
        (0, "no box", 3, None),
    ],
)  # fmt: skip
def test_an_evaluation_that_tells_nothing_of_the_model_says_why_and_what_to_do(
    cut: int, reason: str, right: int, warned: str | None
) -> None:
    for rollout in (groups := silent_groups(cut, reason, right))[-1].rollouts[-1:]:
        assert rollout.verdict.status == "wrong"
    for index, rollout in enumerate(rollout for group in groups for rollout in group.rollouts):
        if cut <= index < cut + right:
            rollout.verdict = Verdict("right", "integer", "7")
    found = words.warnings(scored(groups))
    assert len(found) == (warned is not None) and all(text.startswith(warned or "") for text in found)


def test_the_page_shows_warnings_and_the_rate_with_stated_answers(run: Path) -> None:
    groups = silent_groups(0, "no box")
    for rollout in groups[0].rollouts:
        rollout.stated = Verdict("right", "integer", "7")
    add_evaluation(run, 3, groups, SETTINGS | {"lenient": True})
    text = report([run]).read_text()
    assert "with stated answers (--lenient)</td><td>–</td><td>5.0 %" in text
    assert r"At step 3, 100.0 % of the samples that ended hold no \boxed{} answer" in text and "(--lenient)." not in text


def test_the_page_says_in_how_many_steps_collapse_wires_were_tripped_and_which_came_first(run: Path):
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line | {"wire/tripped": int(line["step"] > 0)}) + "\n" for line in lines))
    assert f"Collapse wires were tripped in {len(lines) - 1} of {len(lines)} steps, first step 1" in report([run]).read_text()


def test_the_first_source_of_a_run_is_the_one_that_its_files_need_no_name_for(run: Path) -> None:
    for step, at in ((0, ""), (3, ""), (3, "@forced-32")):
        found = json.loads((run / "evals" / f"step-{step}.json").read_text()) | {"source": "aime24"}
        (run / "evals" / f"step-{step}-aime24{at}.json").write_text(json.dumps(found))
    assert read([run]).sources == ["tiny", "aime24"]
    for file in run.glob("evals/step-?-aime24.json"):
        file.unlink()
    for step in (0, 3):
        (run / "evals" / f"step-{step}.json").rename(run / "evals" / f"step-{step}@forced-32.json")
    assert [one.source for one in read_run(run).evaluations] == ["tiny", "tiny", "aime24"]


def test_evaluations_of_stages_are_there_where_this_version_cannot_read_the_recipe(run: Path) -> None:
    shutil.copytree(run / "evals", run / "stages" / "merge" / "evals")
    (run / "recipe.yaml").write_text("name: mine\nstages: [rl, {kind: merge, name: merge}, eval]\na_key_of_old: 1\n")
    found = read_run(run)
    assert len(found.evaluations) == 2 * len(list((run / "evals").glob("*.json")))
    assert [note for note in found.notes if "cannot be read by this version" in note]


def test_a_comparison_within_one_of_several_entries_names_it(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    file = next((run / "evals").glob("*.json"))
    (other / "else.json").write_text(
        file.read_text().replace('"source":"tiny"', '"source":"else"').replace('"source": "tiny"', '"source": "else"')
    )
    assert sentences(read([run]))[0].startswith(("More accurate", "As accurate", "Not shown", "Less accurate"))
    assert sentences(read([run, other]))[0].startswith("tiny, dler-tiny against dler-tiny, before: ")


def test_every_evaluation_between_the_stages_is_in_a_table_in_their_order(run: Path) -> None:
    """Before and after are compared; what lies between them is told, too, in every form."""
    assert "Stage by stage" not in page(run) and "<h2>Training</h2>" in page(run)
    shutil.copytree(run / "evals", run / "stages" / "phase_1" / "evals")
    shutil.copy(run / "metrics.jsonl", run / "stages" / "phase_1")
    (run / "recipe.yaml").write_text("name: mine\nstages: [cold_start, {kind: rl, name: phase_1}, eval, {kind: rl, name: phase_2}, eval]\n")
    text, found = page(run), read_run(run)
    assert text.index("<h2>Training, stage phase_2</h2>") < text.index("<h2>Training, stage phase_1</h2>")
    wanted = [f"{found.stage(one)}, step {one.step}" for one in found.evaluations]
    assert (
        len(wanted) == 2 * len(list((run / "evals").glob("*.json")))
        and wanted[0].startswith("phase_1")
        and wanted[-1].startswith("phase_2")
    )
    assert f"<th>before, {wanted[0]}</th><th>after, {wanted[-1]}</th>" in text
    places = [text.index(f"<td>{label}", text.index("Stage by stage")) for label in wanted]
    assert places == sorted(places)
    assert "stage by stage" in report([run], form="md").read_text()
    told = json.loads(report([run], form="json").read_text())["stages"]
    assert [f"{one['stage']}, step {one['step']}" for one in told] == wanted


def test_stages_are_shown_by_name_and_settings_are_those_of_the_stage_that_the_record_is_of(run: Path) -> None:
    stages = "[cold_start, {kind: rl, name: phase_1}, eval, {kind: rl, changes: {budget.limit: 52, sampler.prompts: 8}}, {kind: merge, name: merge}]"
    (run / "recipe.yaml").write_text(f"name: mine\nstages: {stages}\n")
    text = page(run)
    assert "<td>Stages</td><td>cold_start → phase_1 (rl) → eval → rl → merge</td>" in text
    assert "<td>Length limit</td><td>52 tokens" in text and "8 prompts × 8 rollouts" in text


@pytest.mark.parametrize(
    ("recipe", "words", "rows"),
    [
        ("pods", [], {"Selection": "max_variance (keep 4"}),
        ("entropy8020", [], {"Tokens": "entropy"}),
        ("thr_exploit", [], {"Credit": "thr ("}),
        ("decs", [], {"Credit": "decs", "Advantage": None}),
        ("grpo", ["learner.adapter={kind: lora, rank: 4}"], {"Adapter": "lora (rank 4", "Advantage": "centre group", "Selection": None, "Credit": None}),
        ("curriculum_linear", [], {"Moved by schedules": "budget.limit linear ("}),
        ("kimi", [], {"Promises waived": "length of wrong"}),
        ("grpo", ["stages=[{kind: rl, name: first}, {kind: rl, changes: {reward: [{kind: verdict}, {kind: kimi}], waive: [length_of_wrong]}}]"], {"Promises waived": "length of wrong"}),
    ],
)  # fmt: skip
def test_settings_name_what_selects_credits_adapts_moves_and_waives_and_nothing_that_does_not(
    run: Path, recipe: str, words: list[str], rows: dict[str, str | None]
) -> None:
    (run / "recipe.yaml").write_text(yaml.safe_dump(load(recipe, overrides=words).model_dump(mode="json"), sort_keys=False))
    found = {row.label: row.cells[0].text for row in settings_table([read_run(run)]).rows}
    for label, said in rows.items():
        assert (label not in found) if said is None else found[label].startswith(said), found
