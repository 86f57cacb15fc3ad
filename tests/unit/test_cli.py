"""The command line: what a user types arrives as typed, and what is printed can be read at any width."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from launch import cli, doors
from recipes.groups import GROUPS
from recipes.keys import keys
from recipes.loader import load, scales, shipped
from rl.merge import told


def laconic(*words: str) -> tuple[int, str]:
    """Exit code, and stdout with stderr, without colours."""
    result = CliRunner().invoke(cli.app, list(words), env={"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"})
    return result.exit_code, result.output


def test_keys_in_a_pipe_are_whole_lines_of_four_cells():
    code, text = laconic("recipes", "--keys")
    rows = [line.split("\t") for line in text.splitlines()]
    assert code == 0
    assert rows == [[key.name, key.allowed, key.default_text, key.description] for key in keys()]
    assert ["reward[truncate].kind", "one of truncate", "needed"] in [row[:3] for row in rows]


def test_no_key_is_cut_on_a_narrow_terminal(monkeypatch):
    console = Console(width=80, force_terminal=True, no_color=True, record=True)
    monkeypatch.setattr(doors, "out", console)
    laconic("recipes", "--keys")
    text = console.export_text()
    assert [key.name for key in keys()] == [line.split(" ")[0] for line in text.splitlines() if line[0] != " "][1:]
    assert "…" not in text


def test_a_name_between_colons_stays_as_typed(tmp_path: Path):
    (tmp_path / ":key:.jsonl").write_text("{")
    for words in (
        ["/tmp/:smile:.yaml"],
        ["quickstart", "stages=[rl]", f"data.train={tmp_path}/:key:.jsonl"],
        ["quickstart", "train.:boom:=1"],
    ):
        code, text = laconic("plan", *words)
        assert code == 1 and re.search(":(smile|key|boom):", text), text


def test_recipes_are_listed_with_what_they_are_by_what_they_turn():
    code, text = laconic("recipes")
    rows = [line.split("\t") for line in text.splitlines()]
    assert code == 0 and {len(row) for row in rows} == {3}
    assert {name: words for name, words, _ in rows} == shipped() | scales()
    groups = {group: [name for name, _, its in rows if its == group] for group in dict.fromkeys(row[2] for row in rows)}
    assert list(groups) == list(GROUPS)
    for name, group in {
        "quickstart": "to begin with", "adaptthink": "length rewards", "grpo": "baselines", "dr_grpo": "baselines", "gspo": "baselines", "dler": "length rewards",
        "kimi": "length rewards", "da_dler": "budgets", "curriculum": "budgets", "l1_exact": "budgets", "gfpo": "selection", "tiny": "scales",
    }.items():  # fmt: skip
        assert name in groups[group]


def test_groups_are_headings_and_a_recipe_is_told_by_its_first_sentence(monkeypatch):
    console = Console(width=300, force_terminal=True, no_color=True, record=True)
    monkeypatch.setattr(doors, "out", console)
    laconic("recipes")
    lines = console.export_text().splitlines()
    assert [line.split("  ")[0].strip() for line in lines if line.startswith(tuple(GROUPS))] == list(GROUPS)
    told = shipped()["controller"]
    assert told.startswith("As short as accuracy allows: ") and told.endswith(" rises below it.")  # another sentence follows on that line
    assert all(words and words[-1] in ".?!" for words in [*shipped().values(), *scales().values()])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Overrides that `laconic eval` hands on; no engine is started."""
    seen: list[list[str]] = []
    monkeypatch.setattr("launch.evaluate.evaluate_checkpoints", lambda checkpoints, question, *others: seen.append([*question.overrides]))
    return seen


def test_data_sources_arrive_as_typed_whatever_their_names_hold(asked):
    names = ["tiny", "my,file.jsonl", "a #1.jsonl", "b: c.jsonl", "]{\"'\\.jsonl", "größe-😀.jsonl", "null", "7"]
    code, text = laconic("eval", "x", *(word for name in names for word in ("--data", name)), "--samples", "3")
    assert code == 0, text
    recipe = load("evaluate", overrides=asked[0])
    assert (recipe.eval.data, recipe.eval.samples) == (names, 3)


def test_benchmarks_arrive_by_name_with_their_folder(monkeypatch):
    seen: list[tuple] = []
    monkeypatch.setattr("launch.evaluate.evaluate_checkpoints", lambda *given: seen.append((given[1].benchmarks, given[-1])))
    named = ("--benchmark", "math500", "--benchmark", "aime24@/else")
    assert laconic("eval", "x", *named, "--data-dir", "/data")[0] == laconic("eval", "x", *named, "--show-prompt")[0] == 0
    assert seen == [(["math500@/data", "aime24@/else"], False), (["math500", "aime24@/else"], True)]
    code, text = laconic("eval", "x", "--data-dir", "/data")
    assert code == 1 and "--data-dir: holds the files of --benchmark, which is not said" in text


def test_checkpoints_and_changes_are_told_apart_and_budgets_arrive_in_their_order(monkeypatch, tmp_path):
    seen: list[tuple] = []
    monkeypatch.setattr("launch.evaluate.evaluate_checkpoints", lambda *given: seen.append(given[:2]))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1").mkdir()
    words = ("runs/a=b/step-3", "eval.max_tokens=4096", "owner/name", "lr=1", "seed=2")
    code, text = laconic("eval", *words, "--requested", "2048", "--forced", "1024", "--forced", "64", "--no-natural")
    assert code == 0, text
    [(checkpoints, question)] = seen
    assert checkpoints == ["runs/a=b/step-3", "owner/name", "lr=1"] and not question.natural
    recipe = load("evaluate", overrides=question.overrides)
    assert recipe.seed == 2 and [(one.kind, one.limit) for one in recipe.eval.budgets] == [
        ("forced", 1024),
        ("forced", 64),
        ("requested", 2048),
    ]
    laconic("eval", "owner/name", "--short", "3@8", "--short", "1@4", "--forced", "9", "--extended", "2@64", "--extended", "1@8:hmm, so")
    recipe = load("evaluate", overrides=seen[-1][1].overrides)
    assert [one.model_dump(exclude={"kind"}) for one in recipe.eval.budgets] == [
        {"limit": 9}, {"limit": 64, "waits": 2, "word": "Wait"}, {"limit": 8, "waits": 1, "word": "hmm, so"}, {"first": 3, "of": 8}, {"first": 1, "of": 4}
    ]  # fmt: skip
    assert laconic("eval", "owner/name", "--logprobs")[0] == 0 and seen[-1][1].logprobs and not seen[0][1].logprobs
    code, text = laconic("eval", "--engine-url", "http://localhost:1/v1", "--logprobs")
    assert code == 1 and "logprobs of a server are of nobody knows which distribution: leave out --logprobs" in text
    for wrong in ("3of8", "3@", "@8", "-1@4", "3@8@9"):
        code, text = laconic("eval", "owner/name", f"--short={wrong}")
        assert code == 1 and f"--short {wrong}: not M@K; 3@8 lets the first 3 of 8 chains vote" in text
    code, text = laconic("eval", "--engine-url", "http://localhost:1/v1", "--short", "3@8")
    assert (
        code == 1 and "http://localhost:1/v1: answers of a server are not streamed, so no chain can be stopped: leave out --short" in text
    )
    code, text = laconic("eval", "seed=2")
    assert code == 1 and "no checkpoint: name a folder or a hub id" in text
    code, text = laconic("eval", "a", "b", "--engine-url", "http://localhost:1/v1")
    assert code == 1 and "--engine-url: the server has one model" in text


def test_benchmarks_are_listed_one_a_line_with_rows_samples_licence_place_and_commit():
    lines = [line.split("\t") for line in laconic("benchmarks")[1].splitlines()]
    assert ["math500", "500", "4", "MIT", "hub:HuggingFaceH4/MATH-500", "6e4ed1a"] in [line[:6] for line in lines]
    assert len(lines) == len({line[0] for line in lines}) == 16 and all(len(line) == 7 for line in lines)
    assert all(re.fullmatch("[0-9a-f]{7}", line[5]) for line in lines)
    assert [line[0] for line in lines if line[4].startswith("github:")] == ["college-math", "ockbench-math"]


def test_no_samples_are_refused_not_ignored(asked):
    code, text = laconic("eval", "x", "--samples", "0")
    assert code == 2 and "Invalid value for '--samples'" in text
    assert asked == []


def test_stopping_says_what_the_stopped_code_has_to_add(monkeypatch):
    """A run that was open adds that it can be resumed; a cold start, a plan or an evaluation has nothing to resume."""
    told = KeyboardInterrupt("SIGTERM")
    told.add_note("`--resume` goes on")
    for error, words in ((told, "stopped: SIGTERM. `--resume` goes on"), (KeyboardInterrupt(), "stopped: interrupted")):

        def stop(*args: object, error: KeyboardInterrupt = error, **options: object) -> None:
            raise error

        for module, function in [("launch.stages", "run_recipe"), ("rl.merge", "merge")]:
            monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{function: stop, "told": str}))
        monkeypatch.setattr("launch.evaluate.evaluate_checkpoints", stop)
        for command in (("train", "quickstart"), ("eval", "x"), ("merge", "a", "b", "--out", "c")):
            code, text = laconic(*command)
            assert (code, text.strip()) == (130, words)


def test_sigterm_is_an_interrupt_from_the_first_moment(monkeypatch):
    def stop(*args: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal did not arrive")

    monkeypatch.setitem(sys.modules, "launch.stages", SimpleNamespace(run_recipe=stop))
    code, text = laconic("train", "quickstart")
    assert (code, text.strip()) == (130, "stopped: SIGTERM")


@pytest.mark.parametrize("option", ["--wall-s", "--memory-mb"])
def test_judging_without_time_or_memory_is_refused(tmp_path: Path, option: str):
    (tmp_path / "x.jsonl").write_text('{"gold": "1", "prediction": "1"}\n')
    code, text = laconic("judge", str(tmp_path / "x.jsonl"), option, "0")
    assert code in (1, 2) and option.strip("-").replace("-", "_") in text.replace("-", "_")
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_plan_tries_is_said_before(tmp_path: Path, monkeypatch):
    (tmp_path / "cli_rewards.py").write_text(
        "def calm(completions, **columns): return [c[0]['content'].count('wait') / 9 for c in completions]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    code, text = laconic("plan", "quickstart", "reward=[{kind: verdict}, {kind: function, name: 'cli_rewards:calm', gate: right}]")
    assert code == 0 and text.startswith("trying cli_rewards:calm on a sample\n")
    assert "trying" not in laconic("plan", "quickstart")[1]


@pytest.mark.parametrize("part", ["stages/sft", "stages/sft/checkpoint", "checkpoints/step-3"])
def test_a_part_of_a_run_has_no_report_and_names_the_run(tmp_path: Path, part: str):
    (tmp_path / "run" / part).mkdir(parents=True)
    (tmp_path / "run" / "recipe.yaml").write_text("{}")
    code, text = laconic("report", str(tmp_path / "run" / part))
    assert code == 1 and f"no record of its own, but part of a run; give that one's folder, {tmp_path / 'run'}" in " ".join(text.split())


def test_judge_lists_rows_without_a_gold_and_judges_the_others(tmp_path: Path):
    (tmp_path / "x.json").write_text(json.dumps([{"target": gold, "resps": [["\\boxed{4}"]]} for gold in (None, "4", "", "5")]))
    code, text = laconic("judge", str(tmp_path / "x.json"), "--workers", "1", "--gold", "target", "--prediction", "resps[0][0]")
    assert code == 0 and "1 right, 1 wrong, 2 not judged" in text
    assert f"2 rows without a gold answer (lines 1, 3 of {tmp_path}/x.judged.jsonl)" in text


def test_what_says_nothing_of_an_adapter_is_refused_and_a_merge_has_the_defaults_of_its_stage(monkeypatch):
    code, text = laconic("merge", "a", "--adapter", "b", "--out", "c", "--scope", "tensor", "--keep", "0.5")
    assert code == 1 and "--keep, --scope: an adapter is added in whole" in text
    seen: list[object] = []
    counts = {"kept": 1, "changed": 1, "entries": 4, "tensors": 1}
    monkeypatch.setitem(sys.modules, "rl.merge", SimpleNamespace(merge=lambda *words: seen.append(words) or counts, told=told))
    assert laconic("merge", "a", "b", "--out", "c", "--scale", "1.5")[0] == 0
    assert seen == [(Path("a"), Path("b"), Path("c"), 0.25, 1.5, "global")]


@pytest.mark.parametrize(
    "words",
    [
        ("judge", "FILE", "--workers", "100000"),
        ("import", "FILE", "--temperature", "-1"),
        ("import", "FILE", "--top-p", "3"),
    ],
)
def test_numbers_out_of_their_range_are_refused_before_anything_starts(words: tuple[str, ...], tmp_path):
    file = tmp_path / "in.jsonl"
    file.write_text('{"gold": "4", "prediction": "4"}\n')
    code, text = laconic(*(word.replace("FILE", str(file)) for word in words))
    assert code == 2 and f"Invalid value for '{words[2]}'" in text, text
    assert [*tmp_path.iterdir()] == [file]
