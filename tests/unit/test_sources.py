"""Problems by position: the same stream from the same recipe, and unusable rows listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipes.schema import Data, Tiny
from rollout.sources import DataError, heldout_problems, training_source


def golds_that_parse(golds: list[str]) -> list[str | None]:
    return [None if gold.strip() else "empty" for gold in golds]


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.jsonl"
    rows = [{"problem": f"n{index}", "answer": str(index), "level": index % 3} for index in range(7)] + [{"problem": "bad", "answer": ""}]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return path


def test_every_epoch_is_another_permutation_and_a_position_is_enough_to_resume(numbers: Path):
    source = training_source(Data(train=str(numbers)), Tiny(), 3, golds_that_parse)
    epochs = [[source.at(position).text for position in range(7 * epoch, 7 * epoch + 7)] for epoch in range(3)]
    assert all(sorted(epoch) == [f"n{index}" for index in range(7)] for epoch in epochs)
    assert epochs[0] != epochs[1]
    again = training_source(Data(train=str(numbers)), Tiny(), 3, golds_that_parse)
    assert again.at(16) == source.at(16)
    other = training_source(Data(train=str(numbers)), Tiny(), 4, golds_that_parse)
    assert [other.at(position).text for position in range(7)] != epochs[0]


def test_rows_whose_gold_cannot_be_judged_are_listed_and_left_out(numbers: Path):
    source = training_source(Data(train=str(numbers)), Tiny(), 0, golds_that_parse)
    assert source.rows == 7
    [(where, reason)] = source.left_out
    assert where.startswith("numbers.jsonl@") and where.endswith("/8") and reason == "empty"


def test_a_local_data_set_is_read_through_the_hub_route(tmp_path: Path):
    (tmp_path / "train.jsonl").write_text('{"question": "1 + 1", "gold": 2}\n{"question": "2 + 2", "gold": 4}\n')
    source = training_source(Data(train=f"hub:{tmp_path}", problem="question", answer="gold"), Tiny(), 0, golds_that_parse)
    assert sorted((source.at(position).text, source.at(position).answer) for position in range(2)) == [("1 + 1", "2"), ("2 + 2", "4")]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"problem": "1", "answer": "1"}\n{"problem": ', ":2: not JSON"),
        ("[1, 2]", ":1: not a JSON object but list"),
        ('{"question": "1", "answer": "1"}', ":1: no field 'problem'; it has answer, question"),
        ('{"problem": "1", "answer": ""}', "none of its 1 rows has a usable gold answer"),
    ],
)
def test_unreadable_rows_are_named_by_file_and_line(tmp_path: Path, content: str, sentence: str):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(DataError) as error:
        training_source(Data(train=str(path)), Tiny(), 0, golds_that_parse)
    assert f"{path}{sentence}" in str(error.value) or sentence in str(error.value)


def test_a_missing_file_and_an_unknown_hub_set_are_errors(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        training_source(Data(train=str(tmp_path / "gone.jsonl")), Tiny(), 0, golds_that_parse)
    with pytest.raises(DataError, match="hub:nobody/nothing: cannot be loaded"):
        training_source(Data(train="hub:nobody/nothing"), Tiny(), 0, golds_that_parse)


def test_training_and_held_out_problems_of_the_tiny_task_are_disjoint():
    source = training_source(Data(), Tiny(), 0, golds_that_parse)
    held, left_out = heldout_problems("tiny", Data(), Tiny(), 200, 0, golds_that_parse)
    assert not {problem.text for problem in held} & {source.at(position).text for position in range(2000)}
    assert len({problem.text for problem in held}) == 200 and left_out == []
