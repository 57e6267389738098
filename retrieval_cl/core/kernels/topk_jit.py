"""Device code of `topk`: products of queries and passages, of which the largest of each block is written.

Capitals are known at compile time. `no_type_check` keeps the checker of tests off these functions, which
Triton compiles from their source.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["num_queries", "num_passages", "num_row_tiles"])
@no_type_check
def block_maxima(
    queries,
    passages,
    out,
    num_queries,
    num_passages,
    stride_query,
    stride_passage,
    stride_out,
    num_row_tiles,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    BLOCK: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """The largest product of each query with each block of passages; -inf for passages beyond the last."""
    # Programs that run side by side share the passages in the cache.
    row_tile, column_tile = tl.program_id(0) % num_row_tiles, tl.program_id(0) // num_row_tiles
    first_query = tl.cast(row_tile, tl.int64) * ROWS
    first_passage = tl.cast(column_tile, tl.int64) * COLUMNS
    rows, columns, numbers = tl.arange(0, ROWS), tl.arange(0, COLUMNS), tl.arange(0, DEPTH)
    row_held, column_held = first_query + rows < num_queries, first_passage + columns < num_passages
    left = queries + first_query * stride_query + rows[:, None] * stride_query + numbers[None, :]
    right = passages + first_passage * stride_passage + columns[:, None] * stride_passage + numbers[None, :]
    products = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, WIDTH, DEPTH):
        q = _part(left + start, row_held, start + numbers, WIDTH, DEPTH, UPCAST)
        v = _part(right + start, column_held, start + numbers, WIDTH, DEPTH, UPCAST)
        products = tl.dot(q, tl.trans(v), products, input_precision="ieee")
    products = tl.where(column_held[None, :], products, -float("inf"))
    largest = tl.max(tl.reshape(products, (ROWS, COLUMNS // BLOCK, BLOCK)), 2)
    blocks = tl.arange(0, COLUMNS // BLOCK)
    first_block = tl.cast(column_tile, tl.int64) * (COLUMNS // BLOCK)
    block_held = (first_block + blocks) * BLOCK < num_passages
    places = out + first_query * stride_out + first_block + rows[:, None] * stride_out + blocks[None, :]
    tl.store(places, largest, mask=row_held[:, None] & block_held[None, :])


@triton.jit(do_not_specialize=["num_passages", "num_chosen", "num_parts"])
@no_type_check
def chosen_products(
    queries,
    passages,
    chosen,
    out,
    num_passages,
    num_chosen,
    stride_query,
    stride_passage,
    num_parts,
    WIDTH: tl.constexpr,
    BLOCKS: tl.constexpr,
    DEPTH: tl.constexpr,
    BLOCK: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Products of one query with all passages of a few blocks of its own; -inf beyond the last passage."""
    query, part = tl.cast(tl.program_id(0) // num_parts, tl.int64), tl.program_id(0) % num_parts
    lanes, numbers = tl.arange(0, BLOCKS * BLOCK), tl.arange(0, DEPTH)
    slots = part * BLOCKS + lanes // BLOCK
    block = tl.load(chosen + query * num_chosen + slots, mask=slots < num_chosen, other=0)
    rows = block * BLOCK + lanes % BLOCK
    held = (slots < num_chosen) & (rows < num_passages)
    left = queries + query * stride_query + numbers
    right = passages + rows[:, None] * stride_passage + numbers[None, :]
    products = tl.zeros([BLOCKS * BLOCK], tl.float32)
    for start in range(0, WIDTH, DEPTH):
        q = tl.load(left + start, mask=start + numbers < WIDTH, other=0.0).to(tl.float32)
        v = _part(right + start, held, start + numbers, WIDTH, DEPTH, UPCAST).to(tl.float32)
        products += tl.sum(v * q[None, :], 1)
    products = tl.where(held, products, -float("inf"))
    places = out + query * num_chosen * BLOCK + part * (BLOCKS * BLOCK) + lanes
    tl.store(places, products, mask=slots < num_chosen)


@triton.jit
@no_type_check
def _part(places, held, numbers, WIDTH: tl.constexpr, DEPTH: tl.constexpr, UPCAST: tl.constexpr):
    """Some numbers of some rows; zeros where a row is not held and beyond its width."""
    mask = held[:, None]
    if WIDTH % DEPTH != 0:
        mask = mask & (numbers < WIDTH)[None, :]
    values = tl.load(places, mask=mask, other=0.0)
    # The interpreter keeps bf16 as integers and would multiply those.
    if UPCAST:
        values = values.to(tl.float32)
    return values
