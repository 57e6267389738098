import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from retrieval_cl.core.kernels.walks import Blocks, walk

BLOCKS = Blocks(rows=16, columns=32, warps=4, stages=1)


def met(found, program):
    """The pairs that one program meets, in the order in which it jumps from cell to cell."""
    pairs, (pair, end) = [], found.bounds[program : program + 2].tolist()
    row_block, split = divmod(program, found.splits)
    block = split * found.blocks_per_split - 1
    while pair < end:
        assert block < found.blocks[pair] < (split + 1) * found.blocks_per_split
        block, stop = int(found.blocks[pair]), int(found.stops[pair])
        assert pair < stop <= end
        for place in found.places[pair:stop].tolist():
            row, column = divmod(place, BLOCKS.columns)
            pairs.append((row_block * BLOCKS.rows + row, block * BLOCKS.columns + column))
        pair = stop
    return pairs


@settings(deadline=None, max_examples=30)
@given(
    num_rows=st.integers(1, 70),
    num_columns=st.integers(1, 300),
    num_pairs=st.integers(0, 200),
    splits=st.integers(1, 5),
    seed=st.integers(0, 100),
)
def test_every_pair_is_met_by_the_program_of_its_cell(num_rows, num_columns, num_pairs, splits, seed):
    random = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, num_rows, (num_pairs,), generator=random)
    columns = torch.randint(0, num_columns, (num_pairs,), generator=random)
    found = walk(rows, columns, num_rows=num_rows, num_columns=num_columns, blocks=BLOCKS, splits=splits)
    num_programs = -(-num_rows // BLOCKS.rows) * found.splits
    assert len(found.bounds) == num_programs + 1
    pairs = [pair for program in range(num_programs) for pair in met(found, program)]
    assert sorted(pairs) == sorted(zip(rows.tolist(), columns.tolist(), strict=True))


@pytest.mark.parametrize("splits", [1, 3, 4, 50])
def test_splits_cover_all_columns_and_none_is_empty(splits):
    nothing = torch.zeros(0, dtype=torch.int64)
    found = walk(nothing, nothing, num_rows=5, num_columns=300, blocks=BLOCKS, splits=splits)
    assert found.splits * found.blocks_per_split >= 10 > (found.splits - 1) * found.blocks_per_split


def test_sorting_waits_for_no_result_of_the_device():
    # Values of fake tensors do not exist: whoever asks for one gets an error.
    with FakeTensorMode():
        rows = torch.zeros(9, dtype=torch.int64)
        found = walk(rows, rows, num_rows=40, num_columns=90, blocks=BLOCKS, splits=2)
    assert found.places.shape == (9,)
