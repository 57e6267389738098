import numpy as np
import pytest
import torch

from retrieval_cl.indexing.rows import Rows

CPU = torch.device("cpu")


@pytest.mark.parametrize("sizes", [[10], [1, 0, 4, 5], [0, 10], [5, 5, 0]])
def test_rows_run_on_over_the_shards(sizes):
    whole = torch.arange(20, dtype=torch.float16).view(10, 2)
    rows = Rows([part.numpy() for part in whole.split(sizes)], name="rows")
    assert len(rows) == 10 and rows.dtype == torch.float16
    for start in range(10):
        for stop in range(start, 12):
            assert torch.equal(rows.read(start, stop, device=CPU), whole[start:stop])
    wanted = np.array([9, 0, 4, 4, 5, 1])
    assert torch.equal(rows.take(wanted), whole[torch.from_numpy(wanted)].float())
    assert [(start, len(part)) for start, part in rows.pieces(rows=4)] == [(0, 4), (4, 4), (8, 2)]


def test_one_array_is_not_copied():
    array = np.zeros((6, 3), np.float32)
    rows = Rows(array, name="rows")
    assert rows.copied_bytes(CPU) == 0
    assert np.shares_memory(rows.read(2, 5, device=CPU).numpy(), array)
    assert Rows([array, array], name="rows").copied_bytes(CPU) == 4


def test_shards_of_different_types_are_read_as_float32():
    rows = Rows([np.ones((2, 3), np.float16), np.ones((2, 3), np.float64)], name="rows")
    assert rows.read(0, 1, device=CPU).dtype == rows.read(1, 4, device=CPU).dtype == torch.float32
