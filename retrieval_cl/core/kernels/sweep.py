"""One read of a tile of logits: sums over its rows and columns, or the slopes of all its entries.

The tile is a library product in memory, at best still in the cache. For any dim and every option: several
exponents, a limit for each row. All logits are in bits (base 2); no atomics, so that the bits repeat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from retrieval_cl.core.kernels.sweep_jit import merge, sum_blocks, write_slopes
from retrieval_cl.core.logsums import finite

MOST_EXPONENTS = 2
# Rows and columns of one block: 32 logits for each of 256 threads, whole lines of memory in a row.
SUM_ROWS, SUM_COLUMNS, SUM_WARPS = 64, 128, 8
SLOPE_ROWS, SLOPE_COLUMNS, SLOPE_WARPS = 16, 256, 4
MERGED_ENTRIES, MERGED_BLOCKS = 64, 64


@dataclass(frozen=True, eq=False)
class Running:
    """Log-sum-exps that grow tile by tile, in place; N entries (rows or columns), E exponents.

    Attributes:
        largest: the largest logit of each entry so far; -inf before the first.
        totals: sum of 2 ** (exponent * (logit - largest)) so far, for each exponent.
    """

    largest: Float32[Tensor, " N"]
    totals: Float32[Tensor, "E N"]

    @classmethod
    def start(cls, num_entries: int, *, num_exponents: int, device: torch.device) -> Self:
        """No logit yet in any entry."""
        largest = torch.full((num_entries,), -torch.inf, device=device)
        return cls(largest, torch.zeros(num_exponents, num_entries, device=device))

    def part(self, low: int, high: int) -> Running:
        """Entries `low` .. `high - 1`, in the same memory."""
        return Running(self.largest[low:high], self.totals[:, low:high])

    def logs(self, exponents: tuple[float, ...]) -> Float32[Tensor, "E N"]:
        """log2 of the sum of 2 ** (exponent * logit); -inf where no logit arrived."""
        tops = finite(self.largest)
        return torch.stack(
            [tops * exponent + total.log2() for exponent, total in zip(exponents, self.totals, strict=True)]
        )


def add_tile(
    logits: Float[Tensor, "R C"],
    rows: Running,
    *,
    exponents: tuple[float, ...] = (1.0,),
    columns: Running | None = None,
    limits: Float32[Tensor, " R"] | None = None,
) -> None:
    """Adds a tile of logits to the running sums of its rows and, from the same read, of its columns.

    Args:
        logits: in bits, any float dtype; -inf where an entry is no negative. Not changed.
        rows: sums of the R rows.
        exponents: one or two, above 0.
        columns: sums of the C columns, or None.
        limits: logits above their row's limit count as -inf, in both directions.
    """
    (num_rows, num_columns), device = logits.shape, logits.device
    assert 1 <= len(exponents) <= MOST_EXPONENTS and min(exponents) > 0 and logits.stride(1) == 1
    if not logits.numel():
        return
    grid = -(-num_rows // SUM_ROWS), -(-num_columns // SUM_COLUMNS)

    def parts(blocks: int, entries: int) -> tuple[Tensor, Tensor]:
        room = torch.empty(1 + len(exponents), blocks, entries, device=device)
        return room[0], room[1:]

    by_row = parts(grid[1], num_rows)
    by_column = by_row if columns is None else parts(grid[0], num_columns)
    with torch.cuda.device_of(logits):
        sum_blocks[grid](
            logits,
            logits if limits is None else limits,
            exponents[0],
            exponents[-1],
            *by_row,
            *by_column,
            num_rows,
            num_columns,
            logits.stride(0),
            EXPONENTS=len(exponents),
            LIMITED=limits is not None,
            BOTH=columns is not None,
            ROWS=SUM_ROWS,
            COLUMNS=SUM_COLUMNS,
            num_warps=SUM_WARPS,
        )
        _merge(rows, by_row, exponents)
        if columns is not None:
            _merge(columns, by_column, exponents)


def tile_slopes(
    logits: Float[Tensor, "R C"],
    out: Float[Tensor, "R C"],
    *,
    row_logs: Float32[Tensor, "E R"],
    row_slopes: Float32[Tensor, "E R"],
    exponents: tuple[float, ...] = (1.0,),
    column_logs: Float32[Tensor, "E C"] | None = None,
    column_slopes: Float32[Tensor, "E C"] | None = None,
    limits: Float32[Tensor, " R"] | None = None,
) -> None:
    """Writes the gradient of the loss with respect to every logit of a tile, ready for two library products.

    out = sum over exponents of exponent * row_slope * 2 ** (exponent * logit - row_log), plus the same of
    the columns where those are given; 0 where the logit is -inf or above its row's limit.

    Args:
        logits: as in `add_tile`.
        out: in the dtype of the products; may be `logits` itself.
        row_logs: log2 of the sum of 2 ** (exponent * logit) over all of a row's logits; -inf gives slope 0.
        row_slopes: gradient of the loss with respect to `row_logs`.
        exponents: as in `add_tile`.
        column_logs: the same of the columns, or None.
        column_slopes: gradient with respect to `column_logs`.
        limits: as in `add_tile`.
    """
    num_rows, num_columns = logits.shape
    assert 1 <= len(exponents) <= MOST_EXPONENTS and logits.stride(1) == out.stride(1) == 1
    if not logits.numel():
        return
    by_row = _in_rows(row_logs), _in_rows(row_slopes)
    both = column_logs is not None and column_slopes is not None
    by_column = by_row
    if column_logs is not None and column_slopes is not None:
        by_column = _in_rows(column_logs), _in_rows(column_slopes)
    grid = -(-num_rows // SLOPE_ROWS), -(-num_columns // SLOPE_COLUMNS)
    with torch.cuda.device_of(logits):
        write_slopes[grid](
            logits,
            logits if limits is None else limits,
            exponents[0],
            exponents[-1],
            *by_row,
            *by_column,
            out,
            num_rows,
            num_columns,
            logits.stride(0),
            *(term.stride(0) for term in (*by_row, *by_column)),
            out.stride(0),
            EXPONENTS=len(exponents),
            LIMITED=limits is not None,
            BOTH=both,
            ROWS=SLOPE_ROWS,
            COLUMNS=SLOPE_COLUMNS,
            num_warps=SLOPE_WARPS,
        )


def _merge(running: Running, parts: tuple[Tensor, Tensor], exponents: tuple[float, ...]) -> None:
    largest, totals = parts
    num_blocks, count = largest.shape
    assert running.largest.stride(0) == 1 and running.totals.stride(1) == 1, "entries must lie in one piece"
    merge[(-(-count // MERGED_ENTRIES),)](
        largest,
        totals,
        exponents[0],
        exponents[-1],
        running.largest,
        running.totals,
        count,
        num_blocks,
        running.totals.stride(0),
        EXPONENTS=len(exponents),
        ENTRIES=MERGED_ENTRIES,
        BLOCKS=MERGED_BLOCKS,
        num_warps=4,
    )


def _in_rows(terms: Float32[Tensor, "E N"]) -> Float32[Tensor, "E N"]:
    return terms if terms.stride(1) == 1 else terms.contiguous()
