"""What a submitted job's bundle holds, and what it refuses to hold (P33)."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from launch.bundle import RECIPE, BundleError, bundle, user_files
from recipes.loader import dump, load

ROW = '{"problem": "1 + 1", "answer": "2"}\n'
FUNCTION = "reward=[{kind: verdict}, {kind: function, name: 'mine:calm', low: 0, high: 0.1}]"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def write(name: str, text: str = ROW) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def sent(*words: str, include: tuple[str, ...] = ()) -> list[str]:
    return list(user_files(load("quickstart", None, words), [Path(one) for one in include]))


def test_the_archive_holds_what_is_listed_and_the_same_files_have_the_same_name():
    write("data/train.jsonl")
    recipe = load("quickstart", None, ["data.train=data/train.jsonl"])
    made = bundle(recipe)
    name, content = made.packed()
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert {(one.filename, one.file_size) for one in archive.infolist()} == set(made.listed(whole=True))
    assert archive.read(RECIPE).decode() == dump(recipe)
    assert archive.read("data/train.jsonl").decode() == ROW and "launch/__main__.py" in archive.namelist()
    assert sum(length for _, length in made.listed()) == made.total
    assert bundle(recipe).packed()[0] == name
    write("data/train.jsonl", ROW * 2)
    assert bundle(recipe).packed()[0] != name


def test_relative_data_are_sent_to_the_same_place_and_absolute_ones_are_not():
    for name in ("a.jsonl", "sets/b.jsonl", "sets/deep/c.parquet.txt", "far.jsonl", "x/d1.jsonl", "x/d2.jsonl", "bench/aime24.jsonl"):
        write(name)
    words = [f"data.train=[a.jsonl, {{source: sets}}, {Path('far.jsonl').absolute()}, 'hub:owner/name']", "eval.data=['x/d*.jsonl', tiny]"]
    assert sent(*words) == ["a.jsonl", "sets/b.jsonl", "x/d1.jsonl", "x/d2.jsonl"]
    assert sent("eval.benchmarks=['aime24@bench']") == ["bench/aime24.jsonl"]
    assert sent("stages=[{kind: sft, data: a.jsonl}, rl]", "data.train=./a.jsonl") == ["a.jsonl"]
    assert sent("on_cuda={data: {train: a.jsonl}}") == ["a.jsonl"]
    assert sent("stages=[eval]", "data.train=gone.jsonl") == []  # not read


def test_a_reward_function_brings_its_module_and_those_of_the_users_own_that_it_imports():
    write("mine.py", "import json, numpy\nfrom words import deep\ndef calm(completions, **columns): ...\n")
    write("words/__init__.py", "")
    write("words/deep.py", "import other, missing_on_purpose\n")
    write("other.py", "import mine\n")
    write("unrelated.py", "")
    assert sent(FUNCTION) == ["mine.py", "other.py", "words/__init__.py", "words/deep.py"]
    with pytest.raises(BundleError, match="reward: nowhere: no such module here; put the folder that holds it on PYTHONPATH"):
        sent(FUNCTION.replace("mine:", "nowhere.deep:"))


def test_data_and_modules_are_refused_where_they_are_hidden_or_link_outside_and_hidden_folders_of_a_package_stay_here(here: Path):
    outside = write("../elsewhere.jsonl").resolve()
    for name in (".hid/rows.jsonl", ".h.jsonl", "e/rows.jsonl"):
        write(name)
    for name in ("o.jsonl", "odir/rows.jsonl", "e/more.jsonl", "mine/link.py"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).symlink_to(outside)
    for source in ("o.jsonl", "odir/rows.jsonl", "odir", "e/*.jsonl"):
        with pytest.raises(BundleError, match=r"l: is, or lies behind, a link to .*/elsewhere.jsonl, outside of the working folder"):
            sent(f"data.train={source}")
    for source, hidden in ((".hid/rows.jsonl", ".hid"), (".h.jsonl", ".h.jsonl"), ("./.hid", ".hid")):
        with pytest.raises(BundleError, match=rf"nothing of a hidden folder or file \({hidden}\) is sent"):
            sent(f"data.train={source}")
    assert sent(f"data.train={here}/o.jsonl") == []  # an absolute path is of storage that the cluster sees
    for name in ("mine/__init__.py", "mine/.venv/bad.py", "mine/.ssh/k.py", "mine/notes.txt"):
        write(name, "")
    with pytest.raises(BundleError, match=r"mine/link\.py: is, or lies behind, a link"):
        sent(FUNCTION)
    Path("mine/link.py").unlink()
    write("mine/token_budget/__init__.py", "")  # no secret: names of files say what is one
    Path("mine/runs").symlink_to("/tmp")
    assert sent(FUNCTION) == ["mine/__init__.py", "mine/token_budget/__init__.py"]
    Path("mine/twin").symlink_to(here / "mine/token_budget")
    with pytest.raises(BundleError, match="mine/twin: is a link to a folder"):
        sent(FUNCTION)


def test_links_inside_of_the_working_folder_are_sent_as_files_and_refused_as_folders(here: Path):
    write("d/own.txt")
    Path("d/link.txt").symlink_to(here / "d/own.txt")
    write("d/token_counts/a.txt")
    assert sent(include=("d",)) == ["d/link.txt", "d/own.txt", "d/token_counts/a.txt"]
    for target in ("../other", "../..", "gone", "odd"):
        write("other/rows.txt")
        Path("d/odd").symlink_to(target)
        with pytest.raises(BundleError, match="d/odd: is a link to a folder or to nothing, or no file: put what it leads to in its place"):
            sent(include=("d",))
        Path("d/odd").unlink()
    os.mkfifo("d/odd")
    with pytest.raises(BundleError, match="d/odd: is a link to a folder or to nothing, or no file"):
        sent(include=("d",))
    with pytest.raises(BundleError, match=r"\.\.: lies outside of the working folder"):
        sent(include=("..",))


def test_secrets_histories_runs_and_checkpoints_are_never_in_it(here: Path):
    kept = write("extra/prompts/system.txt")
    write("extra/tokenizer.json")
    for name in (
        *(".env", ".env.local", "prod.env", "hf_token", "my-Token.txt", "server.pem", "id_rsa", "id_ed25519.pub", "secrets.yaml", "credentials.json"),
        *(".git/config", "runs/a/recipe.yaml", "checkpoints/step-1/x.json", "step-3/y.json", "model.safetensors", "__pycache__/a.pyc", ".ssh/config"),
    ):  # fmt: skip
        write(f"extra/{name}")
    Path("extra/harmless.txt").symlink_to(here / "extra/id_rsa")
    assert sent(include=("extra",)) == ["extra/prompts/system.txt", "extra/tokenizer.json"]
    assert sent(include=(str(kept),)) == ["extra/prompts/system.txt"]
    for name in ("extra/.env", "extra/hf_token", "extra/harmless.txt", "extra/server.pem", "extra/.ssh/config"):
        with pytest.raises(BundleError, match="looks like a secret by its name and is not sent"):
            sent(include=(name,))
    for name, words in {
        ".git": "nothing of a hidden folder or file",
        ".aws": "looks like a secret",
        "extra/w.gguf": "weights are not sent",
    }.items():
        write(f"{name}/config" if name.startswith(".") else name)
        with pytest.raises(BundleError, match=words):
            sent(include=(name,))
    for name in ("private_key.txt", "service-account.json", "tokenizer_secret.json", "main.tfstate"):
        write(f"own/{name}")
    write("own/tokenizer_config.json")
    assert sent(include=("own",)) == ["own/tokenizer_config.json"]
    outside = here.parent / "elsewhere.txt"
    outside.write_text("not of this folder")
    Path("own/prompt.txt").symlink_to(outside)
    for given in ("own", "own/prompt.txt"):
        with pytest.raises(BundleError, match=r"own/prompt.txt: is, or lies behind, a link to .*, outside of the working folder"):
            sent(include=(given,))
    write("api_token.jsonl")
    with pytest.raises(BundleError, match="looks like a secret"):
        sent("data.train=api_token.jsonl")


def test_what_cannot_be_sent_is_refused_in_a_sentence(here: Path):
    write("deep/here.txt")
    write("outside.jsonl")
    write("weights/config.json", "{}")
    write("launch/mine.txt")
    write("odd/caf\udce9.txt")
    Path("deep/self").symlink_to("self")
    for words, include, said in [
        ([], ["gone.txt"], "--include: no file or folder gone.txt here"),
        (["model.path=weights"], [], "model.path: weights is no hub id, and weights are not sent: name a folder by an absolute path"),
        (["model.path=./nomodel"], [], "model.path: ./nomodel is no hub id"),
        ([], ["deep/self"], "--include: no file or folder deep/self here"),
        ([], ["odd"], "odd/caf\\?.txt: its name is not UTF-8; give it another one"),
        ([], ["launch/mine.txt"], "launch/mine.txt: a file of the job has that place"),
        (["data.train=gone.jsonl"], [], "gone.jsonl: no such file"),
        (["data.train=hub:./deep"], [], "hub:./deep: write the plain path below the working folder"),
    ]:
        with pytest.raises(ValueError, match=said):
            sent(*words, include=tuple(include))
    assert sent(f"model.path={here / 'weights'}") == []


def test_a_file_outside_of_the_working_folder_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch):
    write("outside.jsonl")
    write("deep/here.txt")
    monkeypatch.chdir(here / "deep")
    with pytest.raises(BundleError, match=r"../outside.jsonl: write the plain path below the working folder, without `..`"):
        sent("data.train=../outside.jsonl")
    with pytest.raises(BundleError, match="lies outside of the working folder"):
        sent(include=(str(here / "outside.jsonl"),))
    assert sent(include=("../deep/here.txt", str(here / "deep/here.txt"))) == ["here.txt"]


def test_a_bundle_over_its_cap_names_the_largest_files():
    write("big.jsonl", ROW * 100_000)
    write("small.jsonl")
    recipe = load("quickstart", None, ["data.train=[big.jsonl, small.jsonl]"])
    with pytest.raises(BundleError, match=r"bundle: .* MB is more than its cap of .* MB; the largest: big.jsonl \(.* MB\), .*--max-mb"):
        bundle(recipe, cap=3 << 20)
    assert bundle(recipe).total > 3 << 20
    with pytest.raises(BundleError, match="is more than its cap"):
        bundle(recipe, cap=len(ROW) * 100_000 + 1)  # the largest file alone would fit
    assert len(ROW) * 100_000 + 1 < bundle(recipe, cap=bundle(recipe).total).total
