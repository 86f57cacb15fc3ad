"""Benchmarks that are read of the hub: which commit it is, and what is said where the hub or the commit is not there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evaluation import benchmarks
from evaluation.benchmarks import BENCHMARKS, load
from rewards.rows import DataError
from tests.hub_sets import serving_sets
from tests.unit.test_benchmarks import filled, sound

ASKING = """
import json, os, sys
from evaluation import benchmarks
from evaluation.benchmarks import load_at
benchmarks._RAW = os.environ["HF_ENDPOINT"]
from recipes.data import DataSet
from rollout.sources import usable
sound = lambda golds: [None] * len(golds)
for word in sys.argv[1:]:
    try:
        name, _, commit = word.partition(">")  # read before of this commit
        read = load_at(name, commit, sound) if not word.startswith("hub:") else usable(DataSet(source=word), sound)
        print(json.dumps([len(read.problems), read.commit, read.said]))
    except ValueError as error:
        print(json.dumps([0, "", str(error)]))
"""  # each word as a line of JSON


def of_the_hub(url: str, home: Path, *words: str) -> list[list[Any]]:
    """What another process, whose cache lies there, makes of each word: problems, commit, what is said. No URL: there is no network."""
    environment = os.environ | {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": str(int(not url)),
        "HF_HUB_DISABLE_XET": "1",
    }
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", ASKING, *words], env=environment, capture_output=True, text=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_without_the_hub_the_local_way_is_named():
    for word in ("aime24", "ockbench-math", "ockbench-math@hub:ockbench/ockbench", "aime24@hub:math-ai/aime24", "gpqa-diamond"):
        name = word.partition("@")[0]
        other = {"ockbench-math": "read ockbench-math@hub:ockbench/ockbench, or", "aime24": "or put"}.get(word, "")
        with pytest.raises(
            DataError, match=rf"^{name}: (hub|github):.* cannot be .*{other} .*{name}@FOLDER, in `laconic eval` --data-dir FOLDER"
        ):
            load(word, sound)


def test_what_is_read_of_the_hub_is_of_a_commit_that_is_said_and_can_be_asked_for(tmp_path: Path):
    """Main has moved on from `old`, which aime24 is pinned at, to `new`; the hub has lost what aime25 is pinned at.

    Without a network `datasets` takes what its cache holds, also for another commit than the one asked for.
    """
    git = BENCHMARKS["ockbench-math"].copies[0].commit
    old, new, problems = BENCHMARKS["aime24"].copies[0].commit, "b" * 40, filled("aime24", {"problem": "p", "answer": 7})
    rows = {
        name: "".join(json.dumps(row) + "\n" for row in some).encode()
        for name, some in (("ock", filled("ockbench-math", {"problem": "p", "answer": 1})), ("aime", problems))
    }

    def read(url: str, *words: str) -> list[list[Any]]:
        return of_the_hub(url, tmp_path, *words)

    with serving_sets() as hub:
        hub.commits = {
            "HuggingFaceH4/aime_2024": {commit: {"train.jsonl": rows["aime"], "README.md": b""} for commit in (old, new)},
            "yentinglin/aime_2025": {new: {"train.jsonl": rows["aime"], "README.md": b""}},
            "ockbench/ockbench": {commit: {"OckBench_math.jsonl": rows["ock"]} for commit in (old, new)},
            "OckBench/OckBench": {commit: {"data/OckBench_math.jsonl": rows["ock"]} for commit in (old, git)},
        }
        aime24, none = "aime24@hub:HuggingFaceH4/aime_2024", "c" * 40
        at_old = ["aime24", aime24, f"{aime24}@{old}", f"ockbench-math@hub:ockbench/ockbench@{old}"]
        at_new = [
            "ockbench-math@hub:ockbench/ockbench",
            "hub:HuggingFaceH4/aime_2024:train",
            f"{aime24}@main",
            f"{aime24}@{new}",
            "aime25@hub:yentinglin/aime_2025@main",
        ]
        of_git = ["ockbench-math", "ockbench-math", f"ockbench-math@github:OckBench/OckBench@{old}", f"ockbench-math>{old}"]
        assert [commit for _, commit, _ in read(hub.url, *of_git)] == [git, git, old, old]
        asked = [line for line in hub.asked if f"OckBench/OckBench/{git}" in line and line.startswith("GET")]
        assert len(asked) == 1, "a file of a commit is fetched once"
        wrong = read(
            hub.url, f"ockbench-math@github:OckBench/OckBench@{none}", "ockbench-math@github:owner/name", "aime24@github:owner/name@main"
        )
        assert "cannot be fetched" in wrong[0][2] and "check the commit and the network" in wrong[0][2]
        assert "ockbench-math is read of github:OckBench/OckBench; fetch" in wrong[1][2] and "of no repository of GitHub" in wrong[2][2]
        found = read(hub.url, *at_old, *at_new, f"{aime24}@{none}", "aime25")
        assert [(count > 0, commit) for count, commit, _ in found] == [(True, old)] * 4 + [(True, new)] * 5 + [(False, "")] * 2
        assert all(f"commit {commit}" in said for _, commit, said in found[:9])
        assert found[9][2] == f"aime24: hub:HuggingFaceH4/aime_2024 has no commit {none}; {aime24}@main reads the newest"
        pinned = BENCHMARKS["aime25"].copies[0].commit
        assert f"has no commit {pinned}, which is pinned here; aime25@hub:yentinglin/aime_2025@main reads the newest" in found[10][2]
        held = [
            f"aime24>{old}",
            f"{aime24}@{old}>{new}",
            f"{aime24}@main>{old}",
            f"aime24>{none}",
            f"ockbench-math@hub:ockbench/ockbench>{old}",
            f"aime24>{new}",
        ]
        again = read(hub.url, *held)
        assert [commit for _, commit, _ in again] == [old, old, new, old, old, new]
        assert f"commit {none}, which earlier samples are of, cannot be had" in again[3][2]
        assert again[5][2].endswith(f"earlier samples are of that commit, so it is read and not the pinned {old}")
        assert not any("earlier samples" in said for *_, said in (*again[:3], again[4]))
    (count, commit, _), (none, _, said) = read("", f"{aime24}@main", "aime24")
    assert (count, commit, none) == (30, new, 0) and f"the cache holds the commit {new}" in said


def test_commits_are_whole_and_those_that_lack_one_are_named_in_the_docs():
    commits = [copy.commit for one in BENCHMARKS.values() for copy in one.copies if copy.commit]
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in commits) and len(set(commits)) == len(commits) == len(benchmarks._PINNED)
    said = re.search(r"as none was found that two agree on: (.*)\.\n", (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text())
    lacking = {copy.id for one in BENCHMARKS.values() for copy in one.copies if not copy.commit}
    assert said and set(re.findall(r"`([\w-]+/[\w-]+)`", said[1])) == lacking
