"""Sums and gradients of logits that are never written: blocks stay on the chip (Dao et al. 2022, 3.1).

For dims up to 512; above 256 library products with `sweep` need less work. All logits are in bits (base 2).
Every sum has one fixed order, so the same input on the same kind of device gives the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from triton.runtime import JITFunction

from retrieval_cl.core.kernels.flash_jit import gradient_rows, sum_rows
from retrieval_cl.core.kernels.walks import Blocks, Walk, walk
from retrieval_cl.core.logsums import finite

# TRITON_INTERPRET=1 was set before the import.
INTERPRETED = not isinstance(sum_rows, JITFunction)
LARGEST_DIM = 512
# Above, the padding of 384 to 512 and the fifth product (logits are computed twice in the second pass) cost
# more than a tile's way to memory and back.
FASTEST_DIM = 256
# A product of one-hot matrices takes in this many pairs at a time; tensor cores need 16 at least.
PAIRS_AT_ONCE = 32
# Floats that gradients of several splits may take before they are added up: 128 MiB.
SPLIT_ROOM = 1 << 25
MOST_SPLITS = 32
BUSY_ENOUGH = 0.93
INTERPRETED_PROCESSORS = 4


@dataclass(frozen=True, eq=False)
class Plan:
    """How one part of the bank is compared: sizes, and which entries are no negatives.

    Attributes:
        anchors: anchor of each barred pair; pairs may repeat.
        columns: column of each barred pair, counted from the part's first.
        anchor_bar: 0 for every anchor.
        column_bar: 0, or -inf where the column is padding.
        blocks: of the kernels.
        dim: of the vectors.
    """

    anchors: Int64[Tensor, " H"]
    columns: Int64[Tensor, " H"]
    anchor_bar: Float32[Tensor, " A"]
    column_bar: Float32[Tensor, " C"]
    blocks: Blocks
    dim: int

    @cached_property
    def by_anchors(self) -> Walk:
        """The barred pairs for programs that own anchors."""
        return self._walk(self.anchors, self.columns, len(self.anchor_bar), len(self.column_bar))

    @cached_property
    def by_columns(self) -> Walk:
        """The barred pairs for programs that own columns."""
        return self._walk(self.columns, self.anchors, len(self.column_bar), len(self.anchor_bar))

    def _walk(
        self, rows: Int64[Tensor, " H"], columns: Int64[Tensor, " H"], num_rows: int, num_columns: int
    ) -> Walk:
        splits = _num_splits(num_rows, num_columns, dim=self.dim, blocks=self.blocks, device=rows.device)
        return walk(
            rows, columns, num_rows=num_rows, num_columns=num_columns, blocks=self.blocks, splits=splits
        )


def suits(dim: int, dtype: torch.dtype) -> bool:
    """Whether these kernels should beat library products with `sweep`: half precision, small dims."""
    return dim <= FASTEST_DIM and dtype in (torch.bfloat16, torch.float16)


def plan(
    anchors: Int64[Tensor, " H"],
    columns: Int64[Tensor, " H"],
    *,
    padding: Bool[Tensor, " C"],
    num_anchors: int,
    dim: int,
    dtype: torch.dtype,
    blocks: Blocks | None = None,
) -> Plan:
    """Prepares the comparison of anchors with one part of the bank. Waits for no result of the device.

    Args:
        anchors: anchor of each barred pair (its target, a match), in any order; pairs may repeat.
        columns: column of each barred pair, counted from the part's first.
        padding: columns with id -1, nobody's candidates.
        num_anchors: A.
        dim: D, at most `LARGEST_DIM`.
        dtype: of the products: bfloat16, float16 or float32.
        blocks: None: what suits dim and dtype on an H100.
    """
    assert dim <= LARGEST_DIM, f"dim {dim} is above {LARGEST_DIM}"
    return Plan(
        anchors=anchors,
        columns=columns,
        anchor_bar=torch.zeros(num_anchors, device=padding.device),
        column_bar=torch.zeros(len(padding), device=padding.device).masked_fill_(padding, -torch.inf),
        blocks=blocks or _blocks(dim, dtype),
        dim=dim,
    )


def flash_sums(
    plan: Plan, scaled: Float[Tensor, "A D"], vectors: Float[Tensor, "C D"], *, symmetric: bool
) -> tuple[Float32[Tensor, " A"], Float32[Tensor, " N"]]:
    """First pass: log-sum-exps over the negatives of each anchor and, where `symmetric`, of each column.

    Args:
        plan: which entries are negatives.
        scaled: anchors times scale, in bits.
        vectors: of one part of the bank, in the dtype of `scaled`.
        symmetric: also sum over anchors, for each column; else the second tensor is empty.

    Returns:
        Log-sum-exps; -inf where nothing was summed, as in padding columns.
    """
    bars = plan.anchor_bar, plan.column_bar
    rows = _sums(plan.by_anchors, scaled, vectors, bars=bars, blocks=plan.blocks)
    if not symmetric:
        return rows, rows.new_empty(0)
    columns = _sums(plan.by_columns, vectors, scaled, bars=bars[::-1], blocks=plan.blocks)
    return rows, columns


def flash_gradients(
    plan: Plan,
    scaled: Float[Tensor, "A D"],
    vectors: Float[Tensor, "C D"],
    *,
    row_logs: Float32[Tensor, " A"],
    row_slopes: Float32[Tensor, " A"],
    column_logs: Float32[Tensor, " C"] | None = None,
    column_slopes: Float32[Tensor, " C"] | None = None,
    needs_anchors: bool = True,
    needs_vectors: bool = True,
) -> tuple[Float32[Tensor, "A D"] | None, Float32[Tensor, "C D"] | None]:
    """Second pass: gradients of the scaled anchors and of one part's vectors, logits computed again.

    Slope of a logit t: row_slope * 2 ** (t - row_log), plus the same of its column where those are given.

    Args:
        plan: as in the first pass.
        scaled: as in the first pass.
        vectors: as in the first pass.
        row_logs: log-sum-exp of each anchor over the whole bank, in bits; -inf gives slope 0.
        row_slopes: gradient of the loss with respect to it, per bit.
        column_logs: log-sum-exp of each column of this part; -inf gives slope 0.
        column_slopes: gradient with respect to it.
        needs_anchors: whether the first result is wanted, else None.
        needs_vectors: whether the second result is wanted, else None.
    """
    by_row, by_column = _terms(row_logs, row_slopes), None
    if column_logs is not None and column_slopes is not None:
        by_column = _terms(column_logs, column_slopes)
    bars = plan.anchor_bar, plan.column_bar
    grad_scaled = grad_vectors = None
    if needs_anchors:
        grad_scaled = _gradients(
            plan.by_anchors, scaled, vectors, bars=bars, terms=(by_row, by_column), blocks=plan.blocks
        )
    if needs_vectors:
        grad_vectors = _gradients(
            plan.by_columns, vectors, scaled, bars=bars[::-1], terms=(by_column, by_row), blocks=plan.blocks
        )
    return grad_scaled, grad_vectors


# Log-sum-exps, +inf where nothing was summed, and slopes.
_Terms = tuple[Tensor, Tensor]


def _terms(logs: Float32[Tensor, " N"], slopes: Float32[Tensor, " N"]) -> _Terms:
    return logs.where(logs > -torch.inf, torch.inf), slopes.contiguous()


def _sums(
    walk: Walk,
    left: Float[Tensor, "M D"],
    right: Float[Tensor, "N D"],
    *,
    bars: tuple[Tensor, Tensor],
    blocks: Blocks,
) -> Float32[Tensor, " M"]:
    largest = left.new_full((walk.splits, len(left)), -torch.inf, dtype=torch.float32)
    totals = torch.zeros_like(largest)
    if len(left) and len(right):
        lists = walk.bounds, walk.blocks, walk.stops, walk.places
        with torch.cuda.device_of(left):
            sum_rows[_grid(walk, left, blocks)](
                left, right, *bars, *lists, largest, totals, **_shape(walk, left, right, blocks)
            )
    top = finite(largest.amax(dim=0))
    return top + (totals * (largest - top).exp2_()).sum(dim=0).log2_()


def _gradients(
    walk: Walk,
    left: Float[Tensor, "M D"],
    right: Float[Tensor, "N D"],
    *,
    bars: tuple[Tensor, Tensor],
    terms: tuple[_Terms | None, _Terms | None],
    blocks: Blocks,
) -> Float32[Tensor, "M D"]:
    # Zeros where no program runs; else every entry is written.
    runs = len(left) > 0 and len(right) > 0
    new = left.new_empty if runs else left.new_zeros
    grads = new((walk.splits, *left.shape), dtype=torch.float32)
    if runs:
        lists = walk.bounds, walk.blocks, walk.stops, walk.places
        # Terms that are not there are never read: any pointer will do.
        on_left, on_right = (term or bars for term in terms)
        flags = {"LEFT": terms[0] is not None, "RIGHT": terms[1] is not None}
        with torch.cuda.device_of(left):
            gradient_rows[_grid(walk, left, blocks)](
                left,
                right,
                *bars,
                *on_left,
                *on_right,
                *lists,
                grads,
                **flags,
                **_shape(walk, left, right, blocks),
            )
    return grads[0] if walk.splits == 1 else grads.sum(dim=0)


def _grid(walk: Walk, left: Float[Tensor, "M D"], blocks: Blocks) -> tuple[int, int]:
    # Programs of one split run side by side, so that they share its vectors in the cache.
    return -(-len(left) // blocks.rows), walk.splits


def _shape(
    walk: Walk, left: Float[Tensor, "M D"], right: Float[Tensor, "N D"], blocks: Blocks
) -> dict[str, Any]:
    """What both kernels take beside their tensors."""
    assert left.dtype == right.dtype and left.stride(1) == right.stride(1) == 1, "rows must lie in one piece"
    dim = left.shape[1]
    return {
        "num_rows": len(left),
        "num_columns": len(right),
        "stride_left": left.stride(0),
        "stride_right": right.stride(0),
        "num_blocks": -(-len(right) // blocks.columns),
        "blocks_per_split": walk.blocks_per_split,
        "WIDTH": dim,
        "ROWS": blocks.rows,
        "COLUMNS": blocks.columns,
        "DIM": max(16, 1 << (dim - 1).bit_length()),
        "PAIRS": PAIRS_AT_ONCE,
        "PRECISION": "ieee",
        "UPCAST": INTERPRETED,
        "num_warps": blocks.warps,
        "num_stages": blocks.stages,
    }


def _blocks(dim: int, dtype: torch.dtype) -> Blocks:
    """What suits an H100: 227 KiB of shared memory and 64k registers for one program on a processor.

    The gradient of a block of rows (rows x dim floats) stays in registers, at most 128 of each thread.
    """
    if dtype == torch.float32:
        # No tensor core takes whole float32: small blocks, as the operands fill the registers. Slow.
        return Blocks(32, 32, 4, 1) if dim <= 128 else Blocks(16, 16, 4, 1)
    return Blocks(128, 64, 8, 3) if dim <= FASTEST_DIM else Blocks(64, 32, 8, 2)


def _num_splits(num_rows: int, num_columns: int, *, dim: int, blocks: Blocks, device: torch.device) -> int:
    """Splits of the columns that keep the processors of the device busy, as few as will do."""
    processors = INTERPRETED_PROCESSORS
    if device.type == "cuda":
        processors = torch.cuda.get_device_properties(device).multi_processor_count
    row_blocks = max(1, -(-num_rows // blocks.rows))
    most = min(MOST_SPLITS, -(-num_columns // blocks.columns), SPLIT_ROOM // max(1, num_rows * dim))
    best, best_share = 1, 0.0
    for splits in range(1, most + 1):
        waves = row_blocks * splits / processors
        share = waves / math.ceil(waves)
        if share > best_share:
            best, best_share = splits, share
        if share >= BUSY_ENOUGH:
            break
    return best
