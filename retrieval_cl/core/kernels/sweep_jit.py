"""Device code of `sweep`: one read of a tile of logits sums its rows and columns, or writes its slopes.

Capitals are known at compile time. `no_type_check` keeps the checker of tests off these functions, which
Triton compiles from their source.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def sum_blocks(
    logits,
    limits,
    exponent_a,
    exponent_b,
    row_largest,
    row_totals,
    column_largest,
    column_totals,
    num_rows,
    num_columns,
    stride,
    EXPONENTS: tl.constexpr,
    LIMITED: tl.constexpr,
    BOTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Largest logit and sums of 2 ** (exponent * (logit - largest)) of the rows and columns of one block."""
    row_block, column_block = tl.program_id(0), tl.program_id(1)
    first_row, first_column = row_block * ROWS, column_block * COLUMNS
    t = _block(logits, limits, first_row, first_column, stride, num_rows, num_columns, LIMITED, ROWS, COLUMNS)
    rows, columns = first_row + tl.arange(0, ROWS), first_column + tl.arange(0, COLUMNS)
    largest = tl.max(t, 1)
    below = t - _finite(largest)[:, None]
    out = column_block * num_rows + rows
    tl.store(row_largest + out, largest, mask=rows < num_rows)
    for number in tl.static_range(EXPONENTS):
        total = tl.sum(tl.exp2(below * _pick(number, exponent_a, exponent_b)), 1)
        held = number * tl.num_programs(1) * num_rows + out
        tl.store(row_totals + held, total, mask=rows < num_rows)
    if BOTH:
        largest = tl.max(t, 0)
        below = t - _finite(largest)[None, :]
        out = row_block * num_columns + columns
        tl.store(column_largest + out, largest, mask=columns < num_columns)
        for number in tl.static_range(EXPONENTS):
            total = tl.sum(tl.exp2(below * _pick(number, exponent_a, exponent_b)), 0)
            held = number * tl.num_programs(0) * num_columns + out
            tl.store(column_totals + held, total, mask=columns < num_columns)


@triton.jit
@no_type_check
def merge(
    block_largest,
    block_totals,
    exponent_a,
    exponent_b,
    largest,
    totals,
    count,
    num_blocks,
    stride,
    EXPONENTS: tl.constexpr,
    ENTRIES: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Adds the sums of all blocks to running ones: entries of a vector, each owned by one program."""
    entries = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    blocks = tl.arange(0, BLOCKS)
    before = tl.load(largest + entries, mask=entries < count, other=-float("inf"))
    after = before
    for first in range(0, num_blocks, BLOCKS):
        held = (first + blocks < num_blocks)[:, None] & (entries < count)[None, :]
        places = (first + blocks)[:, None] * count + entries[None, :]
        after = tl.maximum(after, tl.max(tl.load(block_largest + places, mask=held, other=-float("inf")), 0))
    shift = _finite(after)
    for number in tl.static_range(EXPONENTS):
        exponent = _pick(number, exponent_a, exponent_b)
        out = totals + number * stride + entries
        total = tl.load(out, mask=entries < count, other=0.0) * tl.exp2(exponent * (before - shift))
        for first in range(0, num_blocks, BLOCKS):
            held = (first + blocks < num_blocks)[:, None] & (entries < count)[None, :]
            places = (first + blocks)[:, None] * count + entries[None, :]
            top = tl.load(block_largest + places, mask=held, other=-float("inf"))
            part = tl.load(block_totals + number * num_blocks * count + places, mask=held, other=0.0)
            total += tl.sum(part * tl.exp2(exponent * (top - shift[None, :])), 0)
        tl.store(out, total, mask=entries < count)
    tl.store(largest + entries, after, mask=entries < count)


@triton.jit
@no_type_check
def write_slopes(
    logits,
    limits,
    exponent_a,
    exponent_b,
    row_logs,
    row_slopes,
    column_logs,
    column_slopes,
    out,
    num_rows,
    num_columns,
    stride,
    stride_row_logs,
    stride_row_slopes,
    stride_column_logs,
    stride_column_slopes,
    stride_out,
    EXPONENTS: tl.constexpr,
    LIMITED: tl.constexpr,
    BOTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Slope of each logit of one block: what the sums of its row and of its column pass on to it."""
    first_row, first_column = tl.program_id(0) * ROWS, tl.program_id(1) * COLUMNS
    t = _block(logits, limits, first_row, first_column, stride, num_rows, num_columns, LIMITED, ROWS, COLUMNS)
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    row_held, column_held = first_row + rows < num_rows, first_column + columns < num_columns
    slope = tl.zeros([ROWS, COLUMNS], tl.float32)
    for number in tl.static_range(EXPONENTS):
        exponent = _pick(number, exponent_a, exponent_b)
        places = first_row + rows
        log = tl.load(row_logs + number * stride_row_logs + places, mask=row_held, other=0.0)
        grad = tl.load(row_slopes + number * stride_row_slopes + places, mask=row_held, other=0.0)
        slope += (exponent * grad)[:, None] * tl.exp2(tl.minimum(exponent * t - _nowhere(log)[:, None], 0.0))
        if BOTH:
            places = first_column + columns
            log = tl.load(column_logs + number * stride_column_logs + places, mask=column_held, other=0.0)
            grad = tl.load(
                column_slopes + number * stride_column_slopes + places, mask=column_held, other=0.0
            )
            slope += (exponent * grad)[None, :] * tl.exp2(
                tl.minimum(exponent * t - _nowhere(log)[None, :], 0.0)
            )
    places = out + tl.cast(first_row, tl.int64) * stride_out + first_column
    places = places + rows[:, None] * stride_out + columns[None, :]
    tl.store(places, slope.to(out.dtype.element_ty), mask=row_held[:, None] & column_held[None, :])


@triton.jit
@no_type_check
def _block(
    logits,
    limits,
    first_row,
    first_column,
    stride,
    num_rows,
    num_columns,
    LIMITED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A block of logits in float32; -inf beyond the tile, and above a row's limit."""
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    row_held = first_row + rows < num_rows
    places = logits + tl.cast(first_row, tl.int64) * stride + first_column
    places = places + rows[:, None] * stride + columns[None, :]
    held = row_held[:, None] & (first_column + columns < num_columns)[None, :]
    t = tl.load(places, mask=held, other=-float("inf")).to(tl.float32)
    if LIMITED:
        limit = tl.load(limits + first_row + rows, mask=row_held, other=0.0)
        t = tl.where(t > limit[:, None], -float("inf"), t)
    return t


@triton.jit
@no_type_check
def _pick(number: tl.constexpr, exponent_a, exponent_b):
    """The exponent of a number, 0 or 1."""
    return exponent_a if number == 0 else exponent_b


@triton.jit
@no_type_check
def _finite(log):
    """0 instead of -inf: a shift that keeps 2 ** (-inf - shift) at 0."""
    return tl.where(log == -float("inf"), 0.0, log)


@triton.jit
@no_type_check
def _nowhere(log):
    """+inf instead of -inf: what was summed over nothing has slope 0."""
    return tl.where(log == -float("inf"), float("inf"), log)
