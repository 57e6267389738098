import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.training.staleness import overlap, pack_rows, unpack_rows


def random_hits(seed, *, num_queries, k):
    """Distinct rows a query, some of them -1."""
    generator = np.random.default_rng(seed)
    rows = np.stack([generator.permutation(3 * k)[:k] for _ in range(num_queries)]).astype(np.int64)
    return np.where(generator.random(rows.shape) < 0.2, -1, rows)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), num_queries=st.integers(1, 5), k=st.integers(1, 6))
def test_overlap_is_that_of_a_slow_loop(seed, num_queries, k):
    former, now = (random_hits(seed + i, num_queries=num_queries, k=k) for i in (0, 1))
    kept = [row in now[i] for i, rows in enumerate(former) for row in rows if row >= 0]
    assert overlap(former, now) == pytest.approx(np.mean(kept) if kept else 1.0)


def test_overlap_knows_neither_order_nor_other_queries():
    former = np.array([[1, 2], [3, 4]])
    assert overlap(former, former[:, ::-1]) == 1.0
    assert overlap(former, former[::-1]) == 0.0
    assert overlap(former, np.array([[1, 9], [9, -1]])) == 0.25


@pytest.mark.parametrize("shape", [(3, 4), (2, 1), (0, 5)])
def test_packed_rows_come_back_from_json(shape):
    rows = np.arange(np.prod(shape), dtype=np.int64).reshape(shape) * 2**31 - 1
    found = unpack_rows(json.loads(json.dumps(pack_rows(rows))))
    assert found.dtype == np.int64 and np.array_equal(found, rows)
