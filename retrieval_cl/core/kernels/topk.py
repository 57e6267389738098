"""The largest products without their matrix: maxima of blocks of passages, then the blocks that are chosen.

A block holds `BLOCK` passages in a row. The k largest products of a query lie in the k blocks of largest
maxima, so two kernels find them: the first writes one number for each block, the second computes the products
of the few chosen blocks again. Both sum in float32, each in an order of its own: their last bits may differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from retrieval_cl.core.kernels.flash import INTERPRETED
from retrieval_cl.core.kernels.topk_jit import block_maxima, chosen_products


@dataclass(frozen=True)
class Tile:
    """How `block_maxima` cuts the products.

    Attributes:
        rows: queries of a program.
        columns: passages of a program.
        depth: numbers of each that are multiplied at a time.
        warps: of a program.
        stages: of `depth` numbers in flight.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


# 144 KiB of shared memory: an A100 has 163, an H100 227.
HALF_TILE = Tile(128, 256, 64, 8, 3)
# No tensor core takes whole float32: for tests alone.
WHOLE_TILE = Tile(64, 64, 32, 4, 1)
BLOCKS_AT_ONCE, CHOSEN_DEPTH, CHOSEN_WARPS = 8, 64, 4


def largest_of_blocks(
    queries: Float[Tensor, "Q D"], passages: Float[Tensor, "N D"], *, block: int
) -> Float32[Tensor, "Q B"]:
    """The largest product of each query with each block of passages; the last block may have fewer.

    Args:
        queries: rows in one piece each, on the device of the passages.
        passages: in the dtype of the queries; fewer than 2**31 rows.
        block: passages a block, a power of two up to 64.
    """
    _check(queries, passages, block)
    num_blocks = -(-len(passages) // block)
    out = torch.empty(len(queries), num_blocks, device=queries.device)
    if not out.numel():
        return out
    tile = _tile(queries.dtype)
    row_tiles, column_tiles = -(-len(queries) // tile.rows), -(-len(passages) // tile.columns)
    with torch.cuda.device_of(queries):
        block_maxima[(row_tiles * column_tiles,)](
            queries,
            passages,
            out,
            len(queries),
            len(passages),
            queries.stride(0),
            passages.stride(0),
            out.stride(0),
            row_tiles,
            WIDTH=queries.shape[1],
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            DEPTH=tile.depth,
            BLOCK=block,
            UPCAST=INTERPRETED,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    return out


def products_of_blocks(
    queries: Float[Tensor, "Q D"],
    passages: Float[Tensor, "N D"],
    *,
    chosen: Int64[Tensor, "Q M"],
    block: int,
) -> Float32[Tensor, "Q P"]:
    """Products of each query with all passages of its chosen blocks, block after block: P = M * block.

    Args:
        queries: as in `largest_of_blocks`.
        passages: as there.
        chosen: numbers of blocks.
        block: as there.

    Returns:
        -inf where a last block has no passage.
    """
    _check(queries, passages, block)
    chosen = chosen.contiguous()
    out = torch.empty(len(queries), chosen.shape[1] * block, device=queries.device)
    if not out.numel():
        return out
    parts = -(-chosen.shape[1] // BLOCKS_AT_ONCE)
    with torch.cuda.device_of(queries):
        chosen_products[(len(queries) * parts,)](
            queries,
            passages,
            chosen,
            out,
            len(passages),
            chosen.shape[1],
            queries.stride(0),
            passages.stride(0),
            parts,
            WIDTH=queries.shape[1],
            BLOCKS=BLOCKS_AT_ONCE,
            DEPTH=CHOSEN_DEPTH,
            BLOCK=block,
            UPCAST=INTERPRETED,
            num_warps=CHOSEN_WARPS,
        )
    return out


def _tile(dtype: torch.dtype) -> Tile:
    return WHOLE_TILE if dtype == torch.float32 else HALF_TILE


def _check(queries: Float[Tensor, "Q D"], passages: Float[Tensor, "N D"], block: int) -> None:
    assert queries.dtype == passages.dtype and queries.stride(1) == passages.stride(1) == 1, (
        "rows must lie in one piece"
    )
    assert _tile(queries.dtype).columns % block == 0, f"block is {block}"
