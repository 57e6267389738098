"""The two passes over the tiles: sums of logits, then gradients from logits computed again, all in bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from retrieval_cl.core.identity import Pairs
from retrieval_cl.core.layout import Layout, Tile
from retrieval_cl.core.logsums import RunningSum, add_logs, finite, grouped_log_sum

PAIRS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Operands:
    """What the matrix products take.

    Attributes:
        scaled: anchors times scale, in bits, in the dtype of the products.
        vectors: the vectors of each part, in the dtype they came in.
        sum_dtype: of logits, sums and gradients.
    """

    scaled: Float[Tensor, "A D"]
    vectors: tuple[Tensor, ...]
    sum_dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Sums:
    """What the first pass leaves to the second: private negatives' logits, log-sum-exps of rows and columns.

    `columns` is empty where the reverse direction was not asked for, and -inf in tiles without a target.
    """

    private: Float[Tensor, " H"]
    rows: Float[Tensor, " A"]
    columns: Float[Tensor, " C"]


@dataclass(frozen=True, eq=False)
class Slopes:
    """Gradients of the loss with respect to positive logits and to the log-sum-exps over rows and columns."""

    positives: Float[Tensor, " A"]
    rows: Float[Tensor, " A"]
    columns: Float[Tensor, " C"] | None


def sum_up(layout: Layout, operands: Operands, *, symmetric: bool) -> tuple[Float[Tensor, " A"], Sums]:
    """First pass. Returns the positives' logits, and the sums; over columns only where `symmetric`."""
    room = _Room.build(layout, operands)
    new = room.logits.new_empty
    num_anchors, num_columns = len(operands.scaled), layout.num_columns
    positives, private = new(num_anchors), new(len(layout.private.anchors))
    rows = RunningSum.start(num_anchors, like=private)
    columns = new(num_columns if symmetric else 0).fill_(-torch.inf)
    for number, tile in enumerate(layout.tiles):
        vectors = _tile_vectors(operands, tile)
        targets = layout.target_slice(number)
        pairs = layout.targets.where(targets)
        positives[pairs.anchors] = _pair_logits(operands, vectors, pairs, first=tile.first)
        if not tile.shared:
            own = layout.private_slice(number)
            private[own] = _pair_logits(operands, vectors, layout.private.where(own), first=tile.first)
            continue
        both = symmetric and targets.start < targets.stop
        down = RunningSum.start(len(vectors), like=private)
        for chunk, (low, high) in enumerate(layout.chunks):
            logits, scratch = room.tile_logits(number, chunk, vectors)
            if both:
                down.add(logits.T, slice(0, len(vectors)), scratch=scratch.T)
            rows.add(logits, slice(low, high), scratch=logits)
        if both:
            columns[tile.first : tile.first + len(vectors)] = down.log()
    row_logs = add_logs(rows.log(), grouped_log_sum(private, layout.private.anchors, num_groups=num_anchors))
    if symmetric:
        seen = layout.private.columns
        columns = add_logs(columns, grouped_log_sum(private, seen, num_groups=num_columns))
    return positives, Sums(private, row_logs, columns)


def gradients(
    layout: Layout,
    operands: Operands,
    sums: Sums,
    slopes: Slopes,
    *,
    needs_anchors: bool,
    needs_vectors: tuple[bool, ...],
) -> tuple[Float[Tensor, "A D"], list[Tensor | None]]:
    """Second pass. Returns gradients of the scaled anchors, and of each part's vectors or None."""
    room = _Room.build(layout, operands)
    sums = Sums(sums.private, finite(sums.rows), finite(sums.columns))
    grad_scaled = torch.zeros_like(operands.scaled, dtype=operands.sum_dtype)
    grad_parts = [
        torch.empty_like(part) if needed else None
        for part, needed in zip(operands.vectors, needs_vectors, strict=True)
    ]
    for number, tile in enumerate(layout.tiles):
        grad_part = grad_parts[tile.part]
        if grad_part is None and not needs_anchors:
            continue
        vectors = _tile_vectors(operands, tile)
        grads = _TileGradients(
            scaled=grad_scaled if needs_anchors else None,
            vectors=None if grad_part is None else torch.zeros_like(vectors, dtype=operands.sum_dtype),
        )
        pairs = layout.targets.where(layout.target_slice(number))
        _add_pairs(operands, vectors, pairs, slopes.positives[pairs.anchors], first=tile.first, grads=grads)
        if tile.shared:
            _add_shared(layout, operands, sums, slopes, room, number=number, vectors=vectors, grads=grads)
        else:
            pairs = layout.private.where(layout.private_slice(number))
            slope = _private_slopes(sums, slopes, pairs, sums.private[layout.private_slice(number)])
            _add_pairs(operands, vectors, pairs, slope, first=tile.first, grads=grads)
        if grad_part is not None and grads.vectors is not None:
            grad_part[tile.start : tile.stop] = grads.vectors
    return grad_scaled, grad_parts


@dataclass(frozen=True, eq=False)
class _TileGradients:
    """Where gradients are summed: of all scaled anchors, and of one tile's vectors. None where not needed."""

    scaled: Float[Tensor, "A D"] | None
    vectors: Float[Tensor, "c D"] | None


@dataclass(frozen=True, eq=False)
class _Room:
    """Memory for one tile of logits, a second one to compute in, and a third in the dtype of the products."""

    layout: Layout
    operands: Operands
    logits: Float[Tensor, " R"]
    scratch: Float[Tensor, " R"]
    product: Float[Tensor, " R"]

    @classmethod
    def build(cls, layout: Layout, operands: Operands) -> _Room:
        rows = max((high - low for low, high in layout.chunks), default=0)
        columns = max((tile.stop - tile.start for tile in layout.tiles if tile.shared), default=0)
        logits = operands.scaled.new_empty(rows * columns, dtype=operands.sum_dtype)
        same = operands.scaled.dtype == operands.sum_dtype
        product = logits if same else operands.scaled.new_empty(rows * columns)
        return cls(layout, operands, logits, torch.empty_like(logits), product)

    def tile_logits(
        self, number: int, chunk: int, vectors: Float[Tensor, "c D"]
    ) -> tuple[Float[Tensor, "r c"], Float[Tensor, "r c"]]:
        """Logits of a tile, -inf where one is no negative's, and room of their shape; until the next call."""
        low, high = self.layout.chunks[chunk]
        shape = (high - low, len(vectors))
        flat = self.logits[: shape[0] * shape[1]]
        product, logits = self.product[: len(flat)].view(shape), flat.view(shape)
        torch.mm(self.operands.scaled[low:high], vectors.T, out=product)
        if product.dtype != logits.dtype:
            logits.copy_(product)
        matches, padding = self.layout.matches_of(number, chunk), self.layout.padding_of(number)
        if len(matches):
            flat.index_fill_(0, matches, -torch.inf)
        if len(padding):
            logits.index_fill_(1, padding, -torch.inf)
        return logits, self.scratch[: len(flat)].view(shape)

    def factor(self, slope: Float[Tensor, "r c"]) -> Float[Tensor, "r c"]:
        """The slopes of a tile in the dtype of the products."""
        if self.product.dtype == slope.dtype:
            return slope
        return self.product[: slope.numel()].view(slope.shape).copy_(slope)


def _add_shared(
    layout: Layout,
    operands: Operands,
    sums: Sums,
    slopes: Slopes,
    room: _Room,
    *,
    number: int,
    vectors: Float[Tensor, "c D"],
    grads: _TileGradients,
) -> None:
    tile, targets = layout.tiles[number], layout.target_slice(number)
    span = slice(tile.first, tile.first + len(vectors))
    for chunk, (low, high) in enumerate(layout.chunks):
        logits, scratch = room.tile_logits(number, chunk, vectors)
        both = slopes.columns is not None and targets.start < targets.stop
        if both:
            torch.sub(logits, sums.columns[span], out=scratch).exp2_()
        slope = logits.sub_(sums.rows[low:high, None]).exp2_().mul_(slopes.rows[low:high, None])
        if both and slopes.columns is not None:
            slope.addcmul_(scratch, slopes.columns[span])
        factor = room.factor(slope)
        if grads.scaled is not None:
            _accumulate(grads.scaled[low:high], factor, vectors)
        if grads.vectors is not None:
            _accumulate(grads.vectors, factor.T, operands.scaled[low:high])


def _accumulate(total: Float[Tensor, "m n"], left: Float[Tensor, "m k"], right: Float[Tensor, "k n"]) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


def _tile_vectors(operands: Operands, tile: Tile) -> Float[Tensor, "c D"]:
    return operands.vectors[tile.part][tile.start : tile.stop].to(operands.scaled.dtype)


def _pair_logits(
    operands: Operands, vectors: Float[Tensor, "c D"], pairs: Pairs, *, first: int
) -> Float[Tensor, " n"]:
    logits = [
        (operands.scaled[block.anchors].to(operands.sum_dtype) * vectors[block.columns - first]).sum(dim=1)
        for block in pairs.blocks(PAIRS_AT_ONCE)
    ]
    return torch.cat(logits)


def _private_slopes(
    sums: Sums, slopes: Slopes, pairs: Pairs, logits: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    slope = (logits - sums.rows[pairs.anchors]).exp2() * slopes.rows[pairs.anchors]
    if slopes.columns is None:
        return slope
    return slope + (logits - sums.columns[pairs.columns]).exp2() * slopes.columns[pairs.columns]


def _add_pairs(
    operands: Operands,
    vectors: Float[Tensor, "c D"],
    pairs: Pairs,
    slopes: Float[Tensor, " n"],
    *,
    first: int,
    grads: _TileGradients,
) -> None:
    blocks = zip(pairs.blocks(PAIRS_AT_ONCE), slopes.split(PAIRS_AT_ONCE), strict=True)
    for block, slope in blocks:
        columns: Int64[Tensor, " n"] = block.columns - first
        if grads.scaled is not None:
            grads.scaled.index_add_(0, block.anchors, slope[:, None] * vectors[columns])
        if grads.vectors is not None:
            grads.vectors.index_add_(0, columns, slope[:, None] * operands.scaled[block.anchors])
