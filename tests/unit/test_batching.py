from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rl.batching import micro_batches

lengths = st.lists(st.integers(1, 200), max_size=60).map(np.array)


def padded(rows, tokens_B):
    return len(rows) * tokens_B[rows].max() if len(rows) else 0


def test_rows_of_like_length_share_a_micro_batch():
    tokens_B = np.array([10, 100, 12, 90, 11, 95])
    dealt = micro_batches(tokens_B, micro_batch_tokens=300, ranks=1)
    assert [rows.tolist() for rows in dealt[0]] == [[1, 5, 3], [2, 4, 0]]


def test_a_row_longer_than_the_bound_goes_alone():
    dealt = micro_batches(np.array([500, 20, 20]), micro_batch_tokens=100, ranks=1)
    assert [rows.tolist() for rows in dealt[0]] == [[0], [1, 2]]


def test_a_rank_without_rows_gets_empty_micro_batches():
    dealt = micro_batches(np.array([50, 50]), micro_batch_tokens=50, ranks=4)
    assert [[len(rows) for rows in batches] for batches in dealt] == [[1], [1], [0], [0]]


def test_rows_are_dealt_back_and_forth_so_that_no_rank_always_gets_the_longer_one():
    dealt = micro_batches(np.arange(1, 9), micro_batch_tokens=100, ranks=2)
    assert [[(rows + 1).tolist() for rows in batches] for batches in dealt] == [[[8, 5, 4, 1]], [[7, 6, 3, 2]]]  # 18 tokens each


@given(lengths, st.integers(1, 500), st.integers(1, 5))
def test_every_row_is_in_exactly_one_micro_batch(tokens_B, bound, ranks):
    dealt = micro_batches(tokens_B, bound, ranks)
    seen = [row for batches in dealt for rows in batches for row in rows.tolist()]
    assert len(dealt) == ranks and sorted(seen) == list(range(len(tokens_B)))


@given(lengths, st.integers(1, 500), st.integers(1, 5))
def test_only_a_single_row_may_exceed_the_bound(tokens_B, bound, ranks):
    assert all(padded(rows, tokens_B) <= bound or len(rows) == 1 for batches in micro_batches(tokens_B, bound, ranks) for rows in batches)


@given(lengths, st.integers(1, 500), st.integers(1, 5))
def test_ranks_get_equally_many_micro_batches_and_nearly_equal_tokens(tokens_B, bound, ranks):
    dealt = micro_batches(tokens_B, bound, ranks)
    work = [sum(int(tokens_B[rows].sum()) for rows in batches if len(rows)) for batches in dealt]
    assert len({len(batches) for batches in dealt}) == 1
    assert max(work) - min(work) <= tokens_B.max(initial=0)


def test_the_same_lengths_are_always_cut_the_same_way():
    tokens_B = np.random.default_rng(0).integers(1, 9, 50)  # many ties
    first, second = (micro_batches(tokens_B.copy(), 30, 2) for _ in range(2))
    assert [[rows.tolist() for rows in batches] for batches in first] == [[rows.tolist() for rows in batches] for batches in second]


def test_sorting_keeps_padding_small():
    tokens_B = np.random.default_rng(0).geometric(1 / 60, 256)
    batches = micro_batches(tokens_B, 2048, 1)[0]
    assert sum(padded(rows, tokens_B) for rows in batches) < 1.25 * tokens_B.sum()
