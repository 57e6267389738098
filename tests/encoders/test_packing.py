import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.encoders.packing import pack_rows


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 120))
def test_every_row_is_packed_once_within_the_budget(counts, batch_tokens):
    counts = np.array(counts, dtype=np.int64)
    batches = list(pack_rows(counts, batch_tokens=batch_tokens))
    rows = np.concatenate(batches) if batches else np.empty(0, dtype=np.int64)
    assert sorted(rows) == list(range(len(counts)))
    assert (np.diff(counts[rows]) <= 0).all()
    for batch in batches:
        assert len(batch) == 1 or len(batch) * counts[batch].max() <= batch_tokens


def test_packing_fills_the_budget():
    batches = list(pack_rows(np.full(10, 3, dtype=np.int64), batch_tokens=12))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert batches[0].tolist() == [0, 1, 2, 3]
