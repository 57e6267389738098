"""Barred pairs in the order in which the programs of `flash` meet them: by block of rows, then of columns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int32, Int64
from torch import Tensor

MOST_PAIRS = 2**31 - 1


@dataclass(frozen=True)
class Blocks:
    """How a kernel cuts the logits.

    Attributes:
        rows: of a block, a power of two, at least 16.
        columns: of a block, a power of two, at least 16.
        warps: of a program.
        stages: blocks of columns in flight.
    """

    rows: int
    columns: int
    warps: int
    stages: int


@dataclass(frozen=True, eq=False)
class Walk:
    """Barred pairs sorted by cell: a block of rows crossed with a block of columns.

    A program walks over one split of the column blocks of its row block. Its pairs are the entries
    `bounds[i]` .. `bounds[i + 1] - 1` of the lists, i = row block * splits + split.

    Attributes:
        splits: shares of the columns; one program takes each.
        blocks_per_split: column blocks of a split; the last may have fewer.
        bounds: where the pairs of each program begin, and where the last one's end.
        blocks: the column block of each pair.
        stops: where the pairs of the same cell end.
        places: row within the block * columns of a block + column within the block.
    """

    splits: int
    blocks_per_split: int
    bounds: Int32[Tensor, " B"]
    blocks: Int32[Tensor, " H"]
    stops: Int32[Tensor, " H"]
    places: Int32[Tensor, " H"]


def walk(
    rows: Int64[Tensor, " H"],
    columns: Int64[Tensor, " H"],
    *,
    num_rows: int,
    num_columns: int,
    blocks: Blocks,
    splits: int,
) -> Walk:
    """Sorts pairs by cell. Waits for no result of the device; a pair may come twice."""
    assert len(rows) <= MOST_PAIRS, "places in the list are int32"
    num_row_blocks, num_column_blocks = -(-num_rows // blocks.rows), -(-num_columns // blocks.columns)
    per_split = max(1, -(-num_column_blocks // splits))
    splits = max(1, -(-num_column_blocks // per_split))
    cells = rows // blocks.rows * num_column_blocks + columns // blocks.columns
    cells, order = cells.sort(stable=True)
    places = rows % blocks.rows * blocks.columns + columns % blocks.columns
    device = rows.device
    first_blocks = torch.arange(splits, device=device) * per_split
    first_cells = torch.arange(num_row_blocks, device=device)[:, None] * num_column_blocks + first_blocks
    edges = torch.nn.functional.pad(first_cells.flatten(), (0, 1), value=num_row_blocks * num_column_blocks)
    return Walk(
        splits=splits,
        blocks_per_split=per_split,
        bounds=torch.searchsorted(cells, edges, out_int32=True),
        blocks=(cells % max(1, num_column_blocks)).to(torch.int32),
        stops=torch.searchsorted(cells, cells, right=True, out_int32=True),
        places=places[order].to(torch.int32),
    )
