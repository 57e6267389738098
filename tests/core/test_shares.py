"""Windows are a function of the number of rows; two ranks make the rows of one, and end together."""

import numpy as np
import pytest
import rank_shares
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.core.shares import MAX_ROWS, MIN_ROWS, make_rows, windows


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 3_000_000))
def test_windows_cut_the_rows_evenly_and_leave_none_out(num_rows):
    found = windows(num_rows)
    assert [window.start for window in found] == [0, *(window.stop for window in found)][: len(found)]
    sizes = [window.stop - window.start for window in found]
    assert sum(sizes) == num_rows and all(0 < size <= MAX_ROWS for size in sizes)
    # All but the last are of one size.
    assert len(set(sizes[:-1])) <= 1 and all(size > MIN_ROWS // 2 for size in sizes[:-1])


@pytest.mark.parametrize(
    ("num_rows", "count"), [(512, 1), (513, 2), (4096, 8), (100_000, 64), (2_000_000, 123)]
)
def test_few_rows_make_few_windows_and_many_make_full_ones(num_rows, count):
    assert len(windows(num_rows)) == count


def test_one_process_makes_every_window_once_in_order():
    asked = []

    def make(rows):
        asked.append(rows)
        return rows.astype(np.float32)[:, None]

    order = np.random.default_rng(0).permutation(1300)
    assert make_rows(order, 1, make=make)[:, 0].tolist() == list(range(1300))
    assert len(asked) == 3 and np.array_equal(np.concatenate(asked), order)


def test_two_ranks_make_the_rows_of_one_and_fail_together(tmp_path):
    mp.spawn(rank_shares.work, args=(tmp_path,), nprocs=2)
