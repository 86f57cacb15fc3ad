"""Sending a model: exactly the files that were listed arrive, whole, and everything that can go wrong is one sentence with a remedy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from launch import cli
from tests.hub import TOKEN, Hub, Repo, serving
from tests.unit.test_card import FILES, evaluate, keep, make_run
from tests.unit.test_report import make_groups

SENT = {name for name in FILES if "/" not in name} - {"notes.txt"} | {"README.md", "accuracy.svg"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on loopback, with a token for it."""
    with serving() as made:
        for name, value in (
            ("ENDPOINT", made.url),
            ("HF_HUB_OFFLINE", False),
            ("HF_HUB_DISABLE_XET", True),
            ("HF_HUB_DISABLE_TELEMETRY", True),
        ):
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield made
        assert made.strange == []


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = make_run(tmp_path / "short-one")
    evaluate(folder, 0, make_groups(right=12, tokens=200))
    evaluate(folder, 3, make_groups(right=20, tokens=50))
    return folder


def push(run: Path | str, *words: str, repo: str = "me/short-one") -> tuple[int, str]:
    """Exit code and what is said."""
    done = CliRunner().invoke(cli.app, ["push", str(run), repo, *words], env={"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"})
    assert TOKEN not in done.output
    return done.exit_code, done.output


def refused(run: Path | str, *words: str, repo: str = "me/short-one") -> str:
    """The one sentence of a push that failed."""
    code, said = push(run, *words, repo=repo)
    assert code == 1, said
    (sentence,) = [line for line in said.splitlines() if line.startswith("error: ")]
    return sentence


def test_what_arrives_is_what_was_listed_byte_by_byte_and_nothing_else_is_asked(hub: Hub, run: Path) -> None:
    code, said = push(run)
    files = hub.repos["me/short-one"].branches["main"]
    assert code == 0 and files.keys() - {".gitattributes"} == SENT
    assert {name: files[name] for name in SENT & FILES.keys()} == {name: FILES[name] for name in SENT & FILES.keys()}
    assert b"name: short-one" in files["README.md"] and b"me/short-one" in files["README.md"] and files["accuracy.svg"].startswith(b"<svg")
    listed = dict(re.findall(r"^  (\S+)  (.+)$", said, re.MULTILINE))
    assert listed.keys() == SENT and listed["model.safetensors"] == "205 KB"
    assert said.index("model.safetensors") < said.index("sent: ")
    assert [line.replace("/main", "") for line in hub.asked if "/upload/" not in line] == [
        "POST /api/repos/create", "GET /api/models/me/short-one/revision", "POST /api/validate-yaml", "POST /api/models/me/short-one/preupload",
        "POST /me/short-one.git/info/lfs/objects/batch", "POST /verify", "POST /api/models/me/short-one/commit",
    ]  # fmt: skip
    assert [commit["summary"] for commit in hub.commits] == ["checkpoints/step-3 of short-one"]


def test_a_dry_run_lists_the_same_and_asks_nothing(hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    code, said = push(run, "--dry-run")
    assert code == 0 and {name for name in SENT if f"  {name}  " in said} == SENT and "notes.txt" not in said and "learner" not in said
    assert hub.asked == [] and hub.repos == {}


def test_a_run_on_remote_storage_is_refused_with_what_to_do(hub: Hub) -> None:
    assert refused("s3://bucket/runs/a") == (
        "error: s3://bucket/runs/a: weights are not fetched from remote storage; copy the run's folder here with the storage's own tools, and name that"
    )


def test_a_second_push_replaces_the_first_and_takes_away_weights_that_are_not_of_the_model(hub: Hub, run: Path) -> None:
    old = {"model-00001-of-00002.safetensors": b"a", "model-00002-of-00002.safetensors": b"b", "model.safetensors.index.json": b"{}"}
    hub.repos["me/short-one"] = Repo(branches={"main": {"README.md": b"older", "photo.png": b"mine"} | old})
    code, said = push(run)
    assert code == 0 and hub.repos["me/short-one"].branches["main"].keys() == SENT | {"photo.png"}
    assert all(name in said.partition("removed there")[2] for name in old)
    assert b"older" not in hub.repos["me/short-one"].branches["main"]["README.md"]


def test_a_branch_is_made_where_it_is_not_there_and_main_stays(hub: Hub, run: Path) -> None:
    for _ in range(2):
        assert push(run, "--revision", "short")[0] == 0
    branches = hub.repos["me/short-one"].branches
    assert branches["main"].keys() == {".gitattributes"} and branches["short"].keys() == SENT | {".gitattributes"}
    assert b'revision="short"' in branches["short"]["README.md"]


def test_private_is_private_or_refused(hub: Hub, run: Path) -> None:
    assert push(run, "--private")[0] == 0 and hub.repos["me/short-one"].private
    assert push(run, "--private")[0] == 0
    hub.repos["me/open"] = Repo()
    assert "me/open: is there already and is public" in refused(run, "--private", repo="me/open")
    assert hub.repos["me/open"].branches["main"].keys() == {".gitattributes"}


def test_a_checkpoint_that_is_named_is_what_is_sent_with_a_card_of_its_own(hub: Hub, run: Path) -> None:
    keep(run / "checkpoints" / "step-1", FILES | {"model.safetensors": b"w" * 999})
    assert push(run, "--checkpoint", "step-1")[0] == 0
    files = hub.repos["me/short-one"].branches["main"]
    assert files["model.safetensors"] == b"w" * 999 and b"not evaluated in its run" in files["README.md"] and "accuracy.svg" not in files
    assert "has step-1, step-2, step-3; name one of these" in refused(run, "--checkpoint", "step-9")


def test_the_model_of_the_last_stage_is_sent_in_as_many_parts_as_it_has(hub: Hub, tmp_path: Path) -> None:
    run = make_run(tmp_path / "short-one", ["stages=[rl, eval, merge]"])
    assert "its stage merge left no checkpoint" in refused(run) and "--checkpoint step-2 or step-3" in refused(run)
    parts = {f"model-0000{number}-of-00002.safetensors": bytes([number]) * 70_000 for number in (1, 2)}
    keep(run / "stages" / "merge" / "checkpoint", {"config.json": b"{}", "model.safetensors.index.json": b"{}"} | parts)
    assert push(run)[0] == 0
    files = hub.repos["me/short-one"].branches["main"]
    assert files.keys() == {".gitattributes", "README.md", "config.json", "model.safetensors.index.json", *parts}
    assert {name: files[name] for name in parts} == parts


@pytest.mark.parametrize("status", [401, 403, 404, 409, 429, 400])
@pytest.mark.parametrize("at", ["repos/create", "/preupload/", "/commit/"])
def test_each_refusal_of_the_hub_is_a_sentence_with_its_reason(hub: Hub, run: Path, status: int, at: str) -> None:
    if (status, at) in [(409, "repos/create"), (429, "/preupload/")]:
        return  # it is there already; asked again for half a minute
    hub.refuse[at] = status, {"error": "because of the moon"}
    hub.refuse["GET"] = (404, {"error": "because of the moon"}) if at == "repos/create" else (200, {"id": "me/short-one", "private": False})
    said = refused(run)
    assert said.startswith(f"error: me/short-one: not sent ({status}: because of the moon): ") and hub.commits == []
    remedy = {
        401: "hf auth login",
        403: "may not write for me",
        404: "no such repository",
        409: "try again",
        429: "try again later",
        400: "mend",
    }
    assert remedy[status] in said


def test_a_name_of_somebody_else_is_refused_by_the_hub_in_words(hub: Hub, run: Path) -> None:
    assert "the token may not write for them" in refused(run, repo="them/it")


def test_large_files_that_the_store_does_not_take_are_named_with_its_answer(hub: Hub, run: Path) -> None:
    hub.refuse["PUT"] = 403, {"error": "no room"}
    assert "not sent (403: no room)" in refused(run) and hub.commits == []


@pytest.mark.parametrize(
    "repo", ["short-one", "me/", "/it", "me/a/b", "me/-it", "me/a..b", "me/it.git", "mé/it", "https://x.co/me/it", "me/" + "a" * 97]
)
def test_a_malformed_name_is_refused_before_anything_is_read_or_asked(hub: Hub, run: Path, repo: str) -> None:
    assert f"{repo}: no name of a model on the hub" in refused(run / "nowhere", repo=repo) and hub.asked == []


def test_without_a_token_without_a_network_and_at_a_server_that_is_no_hub_it_says_so(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.refuse["repos/create"] = 200, ["no hub"]
    assert "did not answer as the hub does" in refused(run)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 could not be reached" in refused(run)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused(run)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "no token of the Hugging Face hub: log in (`hf auth login`), or set HF_TOKEN" in refused(run)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda run: cut(run / "checkpoints/step-3/model.safetensors"), "model.safetensors has 204799 bytes, its manifest says 204800: name another checkpoint (--checkpoint step-2)"),
        (lambda run: (run / "checkpoints/step-3/tokenizer.json").write_bytes(b'{"version": "1.1"}'), "the content of tokenizer.json is not what was written"),
        (lambda run: (run / "checkpoints/step-3/config.json").unlink(), "config.json is missing"),
        (lambda run: (run / "checkpoints/step-3/manifest.json").unlink(), "it was never finished"),
        (lambda run: (run / "checkpoints").rename(run / "moved"), "left no checkpoint (checkpoints/step-3 is not there): resume the run"),
        (lambda run: (run / "status.json").write_text('{"state": "running", "step": 2}'), "still running by its status.json"),
        (lambda run: keep(run / "checkpoints/step-4", {"weights.pt": b"p"}), "holds no config.json with safetensors"),
        (lambda run: keep(run / "checkpoints/step-4", {"config.json": b"{}", "weights.pt": b"p"}), "holds no config.json with safetensors"),
    ],
)  # fmt: skip
def test_a_run_without_a_whole_model_is_refused_before_anything_is_asked(
    hub: Hub, run: Path, harm: Callable[[Path], object], words: str
) -> None:
    harm(run)
    assert words in refused(run) and hub.asked == []


def test_a_checkpoint_of_a_run_that_was_killed_can_be_named(hub: Hub, run: Path) -> None:
    (run / "status.json").write_text('{"state": "running", "step": 2}')
    assert push(run, "--checkpoint", "step-2")[0] == 0
    assert b"still going when this was written" in hub.repos["me/short-one"].branches["main"]["README.md"]


def test_the_command_itself_reads_endpoint_and_token_from_the_environment(run: Path) -> None:
    with serving() as hub:
        environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        words = [sys.executable, "-c", "from launch.cli import app; app()", "push", str(run), "me/short-one"]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert hub.repos["me/short-one"].branches["main"]["model.safetensors"] == FILES["model.safetensors"] and hub.strange == []
    assert TOKEN not in done.stdout + done.stderr and f"sent: {hub.url}/me/short-one/commit/" in done.stdout


def test_card_writes_readme_and_picture_into_the_run_or_where_out_says(run: Path, tmp_path: Path) -> None:
    for words, place in (
        ([], run / "README.md"),
        (["--out", str(tmp_path / "new" / "CARD.md"), "--license", "mit"], tmp_path / "new" / "CARD.md"),
    ):
        done = CliRunner().invoke(cli.app, ["card", str(run), *words])
        assert (
            done.exit_code == 0 and place.read_text().startswith("---\n") and (place.parent / "accuracy.svg").read_text().startswith("<svg")
        )
        assert 'from_pretrained("short-one/checkpoints/step-3")' in place.read_text()
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    assert "license: mit" in place.read_text() and "license" not in (run / "README.md").read_text()
