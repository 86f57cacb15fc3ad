"""One reader: whatever form rows come in, the same rows come out, and what is no data is said in one sentence."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from rewards.rows import DataError, hub_parts, reach, read_rows

ROWS = [{"problem": "1 + 1?", "answer": "2"}, {"problem": 'a "b",\nc?', "answer": "\\frac{1}{2}"}]


def as_csv(delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["problem", "answer"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def as_parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


LINES = "\n".join(map(json.dumps, ROWS)).encode()
FORMS = {
    "lines.jsonl": LINES,
    "windows.jsonl": b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n"),
    "powershell.jsonl": LINES.decode().encode("utf-16"),
    "array.json": json.dumps(ROWS, indent=1).encode(),
    "lines.JSON": LINES,
    "around.json": json.dumps({"version": "1", "data": ROWS}).encode(),
    "columns.json": json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}).encode(),
    "pandas.json": json.dumps({name: {str(i): row[name] for i, row in enumerate(ROWS)} for name in ROWS[0]}).encode(),
    "by-name.json": json.dumps({"first": ROWS[0], "second": ROWS[1]}).encode(),
    "spread.jsonl": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "table.csv": as_csv(","),
    "semicolons.CSV": as_csv(";"),
    "table.tsv": as_csv("\t"),
    "no-ending": LINES,
    "table.txt": as_csv(","),
    "table.parquet": as_parquet(),
    "misnamed.jsonl": as_parquet(),
    "lines.jsonl.gz": gzip.compress(LINES),
    "table.csv.gz": gzip.compress(as_csv(",")),
    "packed": gzip.compress(as_parquet()),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_file_gives_the_same_rows(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(FORMS[name])
    assert [row.values for row in read_rows(str(tmp_path / name)).rows] == ROWS


def test_paths_are_taken_as_people_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my rows.jsonl").write_bytes(LINES)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in ("~/my rows.jsonl", "my rows.jsonl", "./my rows.jsonl", f"file://{tmp_path}/my%20rows.jsonl", "*.jsonl"):
        assert len(read_rows(path).rows) == 2


@pytest.mark.parametrize("source", ["x" * 300, "~nobody-of-that-name/rows.jsonl", "hub:./" + "x" * 300, "hub:~nobody-of-that-name/set"])
def test_a_path_that_can_be_none_is_one_sentence(source: str):
    with pytest.raises(DataError, match=r"no such (file|folder)"):
        read_rows(source)


def test_a_folder_is_its_shards_in_order_or_those_of_the_split(tmp_path: Path):
    for name in ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist([{"problem": name, "answer": "1"}]), tmp_path / name)
    (tmp_path / "README.md").write_text("a data set")
    rows = read_rows(str(tmp_path), "train").rows
    assert [row.values["problem"][-22:-17] for row in rows] == ["00000", "00001"]
    assert len({row.key for row in rows}) == 2
    assert [row.values["problem"] for row in read_rows(str(tmp_path), "test").rows] == ["data/test-00000-of-00001.parquet"]
    with pytest.raises(DataError, match="no files of the split validation, but of test, train"):
        read_rows(str(tmp_path), "validation")


def test_files_of_a_folder_that_name_no_split_belong_to_each(tmp_path: Path):
    for name in ("train_station.jsonl", "algebra.jsonl", "test.jsonl"):
        (tmp_path / name).write_text(json.dumps({"problem": name, "answer": "1"}))
    assert [row.values["problem"] for row in read_rows(str(tmp_path)).rows] == ["algebra.jsonl", "train_station.jsonl"]
    with pytest.raises(DataError, match="no files of the split dev, but of test, train"):
        read_rows(str(tmp_path), "dev")


@pytest.mark.parametrize("text", ['{"a": 1}{"a": 2}\n{"a": 3}', '{"a": 1}\r{"a": 2}\r{"a": 3}\r', '{"a": 1}\r\n{"a": 2}\r\n\r\n{"a": 3}'])
def test_keys_tell_rows_apart_however_their_lines_end(tmp_path: Path, text: str):
    (tmp_path / "rows.jsonl").write_bytes(text.encode())
    assert len({row.key for row in read_rows(str(tmp_path / "rows.jsonl")).rows}) == 3


def test_a_saved_data_set_of_the_hubs_library_is_a_folder_of_rows(tmp_path: Path):
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    assert [row.values for row in read_rows(str(tmp_path / "saved")).rows] == ROWS


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer, not the data"),
        (b"PK\x03\x04rest", "a zip archive; unpack it first"),
        (b"PAR1 cut off", "damaged"),
        (b"\x1f\x8b\x08 cut off", "its gzip data end early or are damaged"),
        (b"<!doctype html><html>", "neither JSON, parquet nor CSV"),
        (b"\x89PNG\r\n\x00\x00\xff", "neither JSON, parquet nor CSV"),
        (b"", "neither JSON, parquet nor CSV"),
        ("problem,answer\n1 + 1?,2\n".encode("utf-16-le"), "UTF-16 without a mark"),
        (b"[]", "holds no rows"),
        (b"problem,answer,answer\n1,2,3\n", ":1: the column 'answer' is there twice"),
        (b'{"problem": "1"}\n{"answer": "1", "answer": "2"}\n', ":2: the column 'answer' is there twice"),
        (b"problem,answer\n1,2,3\n", ":2: more fields than the 2 names of the first line"),
    ],
)
def test_a_file_that_is_no_data_is_said_in_one_sentence(tmp_path: Path, content: bytes, sentence: str):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_rows(str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hub:owner/name", ("owner/name", None, None, None)),
        ("hub:owner/name:test", ("owner/name", None, None, "test")),
        ("hub:openai/gsm8k/main:train[:10]", ("openai/gsm8k", "main", None, "train[:10]")),
        ("hub:owner/name/config@refs/convert/parquet:test", ("owner/name", "config", "refs/convert/parquet", "test")),
    ],
)
def test_a_hub_name_says_configuration_revision_and_split(name: str, parts: tuple[str | None, ...]):
    assert hub_parts(name) == parts


@pytest.mark.parametrize(
    ("raised", "remedy"),
    [
        (RuntimeError("Dataset scripts are no longer supported, but found math.py"), "it is a loading script: take the hub's parquet copy"),
        (
            ValueError("Config name is missing.\nPlease pick one among the available configs: ['main', 'socratic']"),
            "hub:owner/name/config:split names a",
        ),
        (PermissionError("Dataset 'a/b' is a gated dataset on the Hub"), "ask for access on its page and set HF_TOKEN"),
        (
            ConnectionError("Couldn't reach 'a/b' on the Hub (ConnectionError)"),
            "(ConnectionError)); check the network, or name a local file",
        ),
        (NotImplementedError(), "check name, network and HF_TOKEN"),
    ],
)
def test_whatever_a_hub_set_raises_is_one_sentence_with_source_and_remedy(monkeypatch: pytest.MonkeyPatch, raised: Exception, remedy: str):
    log, shown = logging.getLogger("huggingface_hub.utils._http"), logging.NullHandler()
    records: list[str] = []
    monkeypatch.setattr(shown, "handle", lambda record: records.append(record.getMessage()))

    def fail(*_: object, **__: object) -> None:
        for _ in range(2):
            log.warning("'[Errno -2] Name or service not known' thrown while requesting HEAD https://huggingface.co/x")
        log.warning("Rate limited. Waiting 60s before retry [Retry 1/5].")
        raise raised

    monkeypatch.setattr("datasets.load_dataset", fail)
    monkeypatch.setattr("datasets.get_dataset_split_names", lambda *_, **__: ["train"])
    monkeypatch.setattr(log, "handlers", [shown])
    with pytest.raises(DataError) as error:
        read_rows("hub:owner/name")
    said = str(error.value)
    assert [record.split(",")[0] for record in records] == [
        "The hub does not answer",
        "Rate limited. Waiting 60s before retry [Retry 1/5].",
    ]
    assert said.startswith("hub:owner/name: split 'train' cannot be loaded (") and remedy in said and "\n" not in said


def test_a_hub_set_of_one_split_is_read_whatever_split_was_looked_for(tmp_path: Path):
    (tmp_path / "train.jsonl").write_bytes(LINES)
    assert len(read_rows(f"hub:{tmp_path}", "test").rows) == 2
    with pytest.raises(DataError, match="split 'test' cannot be loaded"):
        read_rows(f"hub:{tmp_path}:test")


def test_a_path_leads_into_mappings_lists_and_json_texts():
    row = {"a": {"b": [{"c": 1}, {"c": 2}]}, "resps": [["x", "y"]], "text": '{"gold": [3]}', "with.dot": 4}
    paths = ["a.b[1].c", "a.b.-1.c", "resps[0][1]", "text.gold[0]", "with.dot", "a.z", "a.b[7]", "a.b.c"]
    assert [reach(row, path) for path in paths] == [2, 2, "y", 3, 4, None, None, None]
