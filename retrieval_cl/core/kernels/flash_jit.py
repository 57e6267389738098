"""Device code of `flash`: blocks of logits that never leave the chip, summed or turned into gradients.

One orientation serves both directions: "left" are the anchors and "right" the columns of the bank, or the
other way round. Capitals are known at compile time. `no_type_check` keeps the checker of tests off these
functions, which Triton compiles from their source.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["num_rows", "num_blocks", "blocks_per_split"])
@no_type_check
def sum_rows(
    left,
    right,
    left_bar,
    right_bar,
    bounds,
    blocks,
    stops,
    places,
    out_largest,
    out_totals,
    num_rows,
    num_columns,
    stride_left,
    stride_right,
    num_blocks,
    blocks_per_split,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DIM: tl.constexpr,
    PAIRS: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Largest logit of a block of rows in one split of the columns, and the sum of 2 ** (logit - largest)."""
    row_block, split = tl.program_id(0), tl.program_id(1)
    first_row = row_block * ROWS
    q = _rows_of(left, first_row, stride_left, num_rows, ROWS, WIDTH, DIM, UPCAST)
    largest = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    done = split * blocks_per_split
    last = tl.minimum(done + blocks_per_split, num_blocks)
    cell = row_block * tl.num_programs(1) + split
    pair, end = tl.load(bounds + cell), tl.load(bounds + cell + 1)
    while done < last:
        # Blocks without pairs run in a loop of their own, which the compiler can pipeline.
        listed = tl.load(blocks + pair, mask=pair < end, other=last)
        for block in range(done, listed):
            first = block * COLUMNS
            v = _rows_of(right, first, stride_right, num_columns, COLUMNS, WIDTH, DIM, UPCAST)
            t = _logits(q, v, right_bar, first, num_columns, COLUMNS, PRECISION)
            before = largest
            largest = tl.maximum(before, tl.max(t, 1))
            total = _total_with(total, before, largest, t)
        if listed < last:
            first = listed * COLUMNS
            stop = tl.load(stops + pair)
            v = _rows_of(right, first, stride_right, num_columns, COLUMNS, WIDTH, DIM, UPCAST)
            t = _logits(q, v, right_bar, first, num_columns, COLUMNS, PRECISION)
            t = _without_pairs(t, places, pair, stop, ROWS, COLUMNS, PAIRS)
            before = largest
            largest = tl.maximum(before, tl.max(t, 1))
            total = _total_with(total, before, largest, t)
            pair = stop
        done = listed + 1
    rows = first_row + tl.arange(0, ROWS)
    out = tl.cast(split, tl.int64) * num_rows + rows
    barred = _values_of(left_bar, first_row, num_rows, ROWS, 0.0) < 0
    tl.store(out_largest + out, tl.where(barred, -float("inf"), largest), mask=rows < num_rows)
    tl.store(out_totals + out, total, mask=rows < num_rows)


@triton.jit(do_not_specialize=["num_rows", "num_blocks", "blocks_per_split"])
@no_type_check
def gradient_rows(
    left,
    right,
    left_bar,
    right_bar,
    left_logs,
    left_slopes,
    right_logs,
    right_slopes,
    bounds,
    blocks,
    stops,
    places,
    out,
    num_rows,
    num_columns,
    stride_left,
    stride_right,
    num_blocks,
    blocks_per_split,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DIM: tl.constexpr,
    PAIRS: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Slopes times right rows: the gradient of a block of left rows, from one split of the columns."""
    row_block, split = tl.program_id(0), tl.program_id(1)
    first_row = row_block * ROWS
    q = _rows_of(left, first_row, stride_left, num_rows, ROWS, WIDTH, DIM, UPCAST)
    log = _values_of(left_logs, first_row, num_rows, ROWS, float("inf"))
    slope = _values_of(left_slopes, first_row, num_rows, ROWS, 0.0)
    grad = tl.zeros([ROWS, DIM], tl.float32)
    done = split * blocks_per_split
    last = tl.minimum(done + blocks_per_split, num_blocks)
    cell = row_block * tl.num_programs(1) + split
    pair, end = tl.load(bounds + cell), tl.load(bounds + cell + 1)
    while done < last:
        listed = tl.load(blocks + pair, mask=pair < end, other=last)
        for block in range(done, listed):
            first = block * COLUMNS
            v = _rows_of(right, first, stride_right, num_columns, COLUMNS, WIDTH, DIM, UPCAST)
            t = _logits(q, v, right_bar, first, num_columns, COLUMNS, PRECISION)
            s = _slopes(t, log, slope, right_logs, right_slopes, first, num_columns, COLUMNS, LEFT, RIGHT)
            grad = tl.dot(s.to(v.dtype), v, grad, input_precision=PRECISION)
        if listed < last:
            first = listed * COLUMNS
            stop = tl.load(stops + pair)
            v = _rows_of(right, first, stride_right, num_columns, COLUMNS, WIDTH, DIM, UPCAST)
            t = _logits(q, v, right_bar, first, num_columns, COLUMNS, PRECISION)
            t = _without_pairs(t, places, pair, stop, ROWS, COLUMNS, PAIRS)
            s = _slopes(t, log, slope, right_logs, right_slopes, first, num_columns, COLUMNS, LEFT, RIGHT)
            grad = tl.dot(s.to(v.dtype), v, grad, input_precision=PRECISION)
            pair = stop
        done = listed + 1
    rows, dims = tl.arange(0, ROWS), tl.arange(0, DIM)
    barred = _values_of(left_bar, first_row, num_rows, ROWS, 0.0) < 0
    start = tl.cast(split, tl.int64) * num_rows + first_row
    held = (first_row + rows < num_rows)[:, None] & (dims < WIDTH)[None, :]
    # Logits of a barred row may lie above the sums, which they are not part of: what came of them is dropped.
    grad = tl.where(barred[:, None], 0.0, grad)
    tl.store(out + start * WIDTH + rows[:, None] * WIDTH + dims[None, :], grad, mask=held)


@triton.jit
@no_type_check
def _rows_of(
    base,
    first,
    stride,
    num_rows,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    DIM: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Rows `first` .. `first + SIZE - 1` of a matrix, filled up with zeros to SIZE x DIM."""
    rows, dims = tl.arange(0, SIZE), tl.arange(0, DIM)
    # The place of the first row may pass 2 ** 31; places within a block cannot.
    places = base + tl.cast(first, tl.int64) * stride + rows[:, None] * stride + dims[None, :]
    held = (first + rows < num_rows)[:, None]
    if WIDTH < DIM:
        held = held & (dims < WIDTH)[None, :]
    values = tl.load(places, mask=held, other=0.0)
    # The interpreter keeps bf16 as integers and would multiply those.
    if UPCAST:
        values = values.to(tl.float32)
    return values


@triton.jit
@no_type_check
def _values_of(base, first, count, SIZE: tl.constexpr, OTHER: tl.constexpr):
    """Entries `first` .. `first + SIZE - 1` of a vector, filled up with OTHER."""
    places = first + tl.arange(0, SIZE)
    return tl.load(base + places, mask=places < count, other=OTHER)


@triton.jit
@no_type_check
def _logits(q, v, bar, first, num_columns, COLUMNS: tl.constexpr, PRECISION: tl.constexpr):
    """Products of two blocks; -inf in columns that are barred for all, and beyond the last."""
    barred = _values_of(bar, first, num_columns, COLUMNS, -float("inf"))
    return tl.dot(q, tl.trans(v), input_precision=PRECISION) + barred[None, :]


@triton.jit
@no_type_check
def _without_pairs(t, places, start, stop, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PAIRS: tl.constexpr):
    """Logits with -inf at the places `start` .. `stop - 1` of the list, by a product of one-hot matrices.

    Scattering into memory would need barriers, and with a barrier the compiler pipelines no loop.
    """
    rows, columns, lanes = tl.arange(0, ROWS), tl.arange(0, COLUMNS), tl.arange(0, PAIRS)
    hits = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(start, stop, PAIRS):
        held = first + lanes < stop
        place = tl.load(places + first + lanes, mask=held, other=0)
        row = tl.where(held, place // COLUMNS, -1)
        left = (rows[:, None] == row[None, :]).to(tl.float16)
        right = ((place % COLUMNS)[:, None] == columns[None, :]).to(tl.float16)
        hits = tl.dot(left, right, hits)
    return tl.where(hits > 0, -float("inf"), t)


@triton.jit
@no_type_check
def _total_with(total, before, largest, t):
    """The sum of 2 ** (logit - largest) with a block more, whose logits moved `largest` up from `before`."""
    shift = tl.where(largest == -float("inf"), 0.0, largest)
    return total * tl.exp2(before - shift) + tl.sum(tl.exp2(t - shift[:, None]), 1)


@triton.jit
@no_type_check
def _slopes(
    t,
    left_log,
    left_slope,
    right_logs,
    right_slopes,
    first,
    num_columns,
    COLUMNS: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
):
    """Gradient of the loss for each logit; 0 where the log is +inf: what stands for a sum over nothing.

    No logit exceeds its sum, but programs that own columns round it another way: where it is huge, by far.
    """
    slope = tl.zeros_like(t)
    if LEFT:
        slope = left_slope[:, None] * tl.exp2(tl.minimum(t - left_log[:, None], 0.0))
    if RIGHT:
        right_log = _values_of(right_logs, first, num_columns, COLUMNS, float("inf"))
        right_slope = _values_of(right_slopes, first, num_columns, COLUMNS, 0.0)
        slope += right_slope[None, :] * tl.exp2(tl.minimum(t - right_log[None, :], 0.0))
    return slope
