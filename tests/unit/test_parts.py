"""Judged groups that are kept as they come: whole, once, in the order asked, and only beside others that were made alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.verifier.judge import Judge
from rollout.parts import OtherParts, Parts, differing, read_made, sample
from rollout.scorer import Scorer
from rollout.types import Completion, Group, Problem, Request
from tests.scripted import ScriptedPool, response, template

MADE = {"template": "digest", "seed": "0"}


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(1, 3.0, 512) as judge:
        yield judge


def asked(count: int, name: str = "p") -> list[Request]:
    problems = [Problem(f"{name}{index}", f"q{index}", str(index)) for index in range(count)]
    return [Request(f"{name}:{one.id}", one, (index,), 2, 40, 1.0, 1.0, index) for index, one in enumerate(problems)]


def right_and_wrong(request: Request) -> list[Completion]:
    return [response(request.problem.answer, 3), response(f"{request.problem.answer}9", 5)]


def kept(folder: Path, count: int, name: str = "p", **made: str) -> Parts:
    return Parts(folder, asked(count, name), MADE | made, "start anew")


def test_rows_are_the_sampled_tokens_in_the_order_asked_whoever_finished_first(tmp_path: Path, judge: Judge):
    there = kept(tmp_path, 12)
    assert list(sample([there], ScriptedPool(right_and_wrong), Scorer(judge, template()))) == [there]
    found = there.read()
    assert found["problem_id"].to_pylist() == [f"p{index // 2}" for index in range(24)]
    assert found["sample"].to_pylist() == [0, 1] * 12
    assert found["verdict"].to_pylist() == ["right", "wrong"] * 12
    for row, request in zip(found.to_pylist()[::2], there.asked, strict=True):
        assert row["prompt_ids"] == list(request.prompt_ids)
        assert row["ids"] == response(request.problem.answer).ids.tolist()


def test_what_is_there_is_not_sampled_again(tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch):
    """A part a group, and a run that is killed after four: they stay, and only the rest is sampled."""
    monkeypatch.setattr("rollout.parts.PART_S", 0.0)
    there = kept(tmp_path, 9)

    def killed(done: int, rollouts: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(sample([there], ScriptedPool(right_and_wrong), Scorer(judge, template()), killed))
    left = there.waiting()
    assert len(left) == 5
    (tmp_path / "part-00099.tmp").write_bytes(b"PAR1 torn")  # as a kill leaves it
    for stray in ("part-00000 (1).parquet", "part-00002.parquet.bak", "part-x.parquet"):  # as people do
        (tmp_path / stray).write_bytes(b"a copy")
    assert there.recovered() == []
    pool, progress = ScriptedPool(right_and_wrong), []
    list(sample([there], pool, Scorer(judge, template()), lambda *said: progress.append(said)))
    assert pool.seen == [request.problem.id for request in left]
    assert progress == [(2 * count, 18) for count in range(10 - len(left), 10)]
    whole = kept(tmp_path / "whole", 9)
    list(sample([whole], ScriptedPool(right_and_wrong, seed=5), Scorer(judge, template())))
    assert there.read().equals(whole.read())
    again = ScriptedPool(lambda request: pytest.fail("sampled again"))
    assert list(sample([there], again, Scorer(judge, template()))) == [there] and again.seen == []


def test_several_are_sampled_at_once_each_is_given_once_whole_and_seen_before_it_is_kept(tmp_path: Path, judge: Judge):
    first, second, third = (kept(tmp_path / name, count, name) for name, count in (("a", 3), ("b", 7), ("c", 1)))
    list(sample([third], ScriptedPool(right_and_wrong), Scorer(judge, template())))
    seen: list[Group] = []

    def each(groups: Sequence[Group]) -> None:
        seen.extend(groups)
        for group in groups:
            group.rollouts[0].reward = 7.0

    found = []
    for one in sample([first, second, third], ScriptedPool(right_and_wrong), Scorer(judge, template()), None, each):
        assert one.waiting() == []
        found.append(one)
    assert found[0] is third and {id(one) for one in found} == {id(first), id(second), id(third)} and len(found) == 3
    assert sorted(group.request.id for group in seen) == sorted(request.id for one in (first, second) for request in one.asked)
    assert second.read()["reward"].to_pylist() == [7.0, 0.0] * 7


def test_a_torn_part_is_set_aside_and_its_requests_are_sampled_again(tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rollout.parts.PART_S", 0.0)
    there = kept(tmp_path, 6)
    list(sample([there], ScriptedPool(right_and_wrong), Scorer(judge, template())))
    before, parts = there.read(), sorted(tmp_path.glob("part-*.parquet"))
    parts[1].write_bytes(parts[1].read_bytes()[:-9])
    parts[-1].write_bytes(b"")
    with pytest.raises(OtherParts, match=r"a part cannot be read .*its problems are sampled again"):
        there.read()
    said = there.recovered()
    assert [f"{part} cannot be read" in words for part, words in zip((parts[1], parts[-1]), said, strict=True)] == [True, True]
    assert len(there.waiting()) >= 2 and there.recovered() == []
    list(sample([there], ScriptedPool(right_and_wrong), Scorer(judge, template())))
    assert there.read().equals(before)


def test_a_folder_is_sampled_into_by_one_process_at_a_time_and_free_when_that_is_gone(tmp_path: Path, judge: Judge):
    there, scorer = kept(tmp_path, 3), Scorer(judge, template())
    first = sample([kept(tmp_path / "other", 2, "o"), there], ScriptedPool(right_and_wrong), scorer)
    next(first)
    with pytest.raises(OtherParts, match=rf"{tmp_path} is being sampled by another process: wait for its end"):
        next(sample([there], ScriptedPool(right_and_wrong), scorer))
    first.close()
    list(sample([there], ScriptedPool(right_and_wrong), scorer))
    assert there.waiting() == []


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"template": "another"}, "sampled with chat template and tokenizer digest, the model now has another: start anew"),
        ({"seed": "1"}, r"sampled with another seed \(0, 1 now\): start anew"),
        ({"problems": "f" * 64}, "sampled with other problems: start anew"),
    ],
)
def test_parts_that_were_made_in_another_way_are_refused(tmp_path: Path, judge: Judge, made: dict[str, str], words: str):
    list(sample([kept(tmp_path, 2)], ScriptedPool(right_and_wrong), Scorer(judge, template())))
    with pytest.raises(OtherParts, match=rf"part-00000.parquet was {words}"):
        kept(tmp_path, 2, **made).recovered()
    assert read_made(tmp_path / "part-00000.parquet") == MADE


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5)), st.dictionaries(st.text(max_size=5), st.text(max_size=5)))
def test_two_ways_agree_if_all_that_is_wanted_is_there_and_the_same_and_what_is_empty_may_be_absent(
    there: dict[str, str], wanted: dict[str, str]
):
    assert (differing(there, wanted) == "") == (
        {name: value for name, value in wanted.items() if value or there.get(name)}.items() <= there.items()
    )


def test_nothing_sampled_is_an_empty_table_and_every_request_waits(tmp_path: Path):
    there = kept(tmp_path / "none", 3)
    assert there.waiting() == there.asked and there.read().num_rows == 0 and there.recovered() == []


def test_parts_that_are_older_than_a_column_are_gone_on_with(tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rollout.parts.PART_S", 0.0)
    there = kept(tmp_path, 3)
    list(sample([there], ScriptedPool(right_and_wrong), Scorer(judge, template())))
    before, old = there.read(), sorted(tmp_path.glob("part-*.parquet"))
    for part in (old[0], *old[1:]):
        pq.write_table(pq.read_table(part).drop_columns("score"), part)
        found = there.read()
        assert found.select(before.column_names).equals(before) and found.schema.metadata == before.schema.metadata
    assert there.recovered() == [] and there.waiting() == []
