"""What a run began with is what it goes on with: the model's weights and the rows that it trains on; and adapters say whose they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launch import stages
from launch.parts import Part, digests
from launch.plan import plan
from recipes.stages import SftStage
from rl import checkpoint
from rl.checkpoint import CheckpointError
from rl.conversion import convertible
from rl.learner import Learner
from rl.run import RunError
from rl.start import fingerprint, named, placed, refuse_other
from rollout.chats import Conversation
from rollout.sources import Source
from rollout.types import Problem
from tests.inprocess import libraries
from tests.unit.test_loop import recipe

COMMIT = "5e1f" * 10


def other(folder: Path) -> None:
    """Change a checkpoint's last numbers."""
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-40:] = bytes(40)
    (folder / "model.safetensors").write_bytes(weights)


def test_other_weights_have_another_fingerprint_with_a_manifest_or_without(tiny_checkpoint: Path, tmp_path: Path):
    one, two = (Path(shutil.copytree(tiny_checkpoint, tmp_path / name)) for name in ("one", "two"))
    assert fingerprint(one) == fingerprint(two)
    other(two)
    assert fingerprint(one) != fingerprint(two)
    for folder in (one, two):
        (folder / "manifest.json").write_text("{}")
    assert fingerprint(one) != fingerprint(two)  # of weights that were changed below their manifest
    shutil.copy(one / "model.safetensors", two)
    for folder, digest in ((one, "1"), (two, "2")):
        (folder / "manifest.json").write_text(json.dumps({"meta": {}, "files": {"model.safetensors": digest}}))
    assert fingerprint(one) != fingerprint(two)


def rows(file: Path, first: int) -> None:
    file.write_text(
        "".join(json.dumps({"problem": f"{number} + 1", "answer": str(number + 1)}) + "\n" for number in range(first, first + 4))
    )


@pytest.mark.parametrize("changes", [{"learner": {"adapter": {"kind": "lora", "rank": 2}}}, {"objective": {"kl": {"coef": 0.1}}}])
@pytest.mark.parametrize(
    ("harm", "kind", "words"),
    [
        (lambda place: other(place / "model"), CheckpointError, "step-1: its training began with other weights than .*model holds now"),
        (
            lambda place: rows(place / "rows.jsonl", 5),
            RunError,
            r"was trained on other rows than .*rows.jsonl holds now: put the old ones back",
        ),
        (lambda place: None, None, ""),
    ],
)
def test_a_run_goes_on_with_the_weights_and_the_rows_that_it_began_with_or_not_at_all(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    harm: Callable[[Path], object],
    kind: type[Exception] | None,
    words: str,
):
    shutil.copytree(tiny_checkpoint, tmp_path / "model")
    rows(tmp_path / "rows.jsonl", 1)
    wanted = recipe(tmp_path / "model", name="a", data={"train": str(tmp_path / "rows.jsonl")}, train={"steps": 2}, **changes)
    update = Learner.update

    def stopping(self: Learner, updates: Any, step: int) -> Any:
        if step == 1:
            raise KeyboardInterrupt
        return update(self, updates, step)

    with monkeypatch.context() as patch, libraries(), pytest.raises(KeyboardInterrupt):
        patch.setattr(Learner, "update", stopping)
        stages.run_recipe(plan(wanted), tmp_path / "runs")
    folder = tmp_path / "runs" / "a"
    record = (folder / "metrics.jsonl").read_bytes()
    harm(tmp_path)
    monkeypatch.setattr(Learner, "restore", lambda self, folder: None)  # the stand-in keeps no weights
    with libraries():
        if kind is None:
            stages.run_recipe(plan(wanted), tmp_path / "runs", resume=True)
        else:
            with pytest.raises(kind, match=words):
                stages.run_recipe(plan(wanted), tmp_path / "runs", resume=True)
            assert (folder / "metrics.jsonl").read_bytes() == record and record.count(b"\n") == 1


def test_sets_are_known_by_what_their_rows_hold_and_not_by_where_they_lie():
    def of(*texts: str, file: str = "a", stage: Any = None) -> dict[str, str]:
        problems = [Problem(f"{file}/{place}", text, "1") for place, text in enumerate(texts)]
        made: Any = SimpleNamespace(step=SimpleNamespace(stage=stage))
        chats = [Conversation(f"{file}:1", [{"role": "user", "content": text}], "1") for text in texts]
        source = Source("set", lambda _: problems[0], problems=[] if stage else problems)
        return digests([Part(made, source, [], [(chats, [], "")] if stage else [], None)] * 2)

    for stage in (None, SftStage(kind="sft", data="set")):
        assert of("1", "2", stage=stage) == of("1", "2", file="b", stage=stage) and of("1", "2").keys() == {"set"}
        assert len({of(*texts, stage=stage)["set"] for texts in (["1", "2"], ["2", "1"], ["1"], ["1", "3"])}) == 4
    assert of() == {}  # made by position


def test_a_model_of_the_hubs_cache_has_the_hubs_name_and_commit_and_any_other_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert named(tmp_path / "hub/models--owner--a-model/snapshots" / COMMIT) == ("owner/a-model", COMMIT)
    assert named(Path("models/a")) == (str(tmp_path / "models/a"), None)
    assert named(Path("/")) == ("/", None)


def test_the_base_of_adapters_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cached = tmp_path / "hub/models--owner--a-model/snapshots" / COMMIT
    cached.mkdir(parents=True)
    (cached / "config.json").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert placed(*named(cached)) == cached
    assert placed("owner/a-model", "a" * 40) == Path("owner/a-model") and placed("no name", None) == Path("no name")
    assert placed(str(tmp_path), None) == tmp_path


def test_adapters_of_another_model_are_not_converted(tiny_checkpoint: Path, tmp_path: Path):
    base = Path(shutil.copytree(tiny_checkpoint, tmp_path / "base"))

    def fill(folder: Path) -> None:
        (folder / "learner").mkdir()
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))

    meta = {"ranks": 1, "zero_stage": 0}
    made = checkpoint.write(tmp_path / "step-1", fill, meta | {"start": fingerprint(base)})
    older = checkpoint.write(tmp_path / "step-2", fill, meta)
    convertible(made)
    other(base)
    with pytest.raises(
        CheckpointError, match=r"step-1: its training began with other weights than .*base holds now.*: put the old ones back"
    ):
        convertible(made)
    convertible(older)  # which does not say
    refuse_other(older, base)
