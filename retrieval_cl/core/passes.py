"""The two passes over the tiles: sums over negatives, then gradients from logits computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from retrieval_cl.core.identity import Pairs
from retrieval_cl.core.layout import Layout, Tile
from retrieval_cl.core.operands import Limits, Operands, Room
from retrieval_cl.core.reductions import Accumulator, Reduction
from retrieval_cl.core.waves import Waves

PAIRS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Sums:
    """What the first pass leaves to the second: private negatives' logits, one row of sums a reduction.

    `columns` is empty where the reverse direction was not asked for, and has sums over nothing in tiles
    without a positive.
    """

    private: Float[Tensor, " H"]
    rows: Float[Tensor, "K A"]
    columns: Float[Tensor, "K C"]


@dataclass(frozen=True, eq=False)
class Gradients:
    """Where gradients are summed; None where there is no need.

    Attributes:
        scaled: of the scaled anchors.
        vectors: of each part of the bank, or of one tile alone.
        shift: of what is added to every logit.
    """

    scaled: Float[Tensor, "A D"] | None
    vectors: list[Tensor | None]
    shift: Float[Tensor, "1"] | None


def positive_logits(layout: Layout, operands: Operands) -> Float[Tensor, " P"]:
    """The logits of `layout.positives`, in its order, without bias."""
    found = [
        _products(operands, tile, layout.positives.where(layout.positive_slice(number)))
        for number, tile in enumerate(layout.tiles)
    ]
    return torch.cat(found)


def sum_up(
    layout: Layout,
    operands: Operands,
    *,
    reductions: Sequence[Reduction],
    limits: Limits | None,
    symmetric: bool,
) -> Sums:
    """First pass: each reduction over the negatives of every anchor; where `symmetric`, of every column."""
    room = Room.build(layout, operands, limits)
    private = _private_logits(layout, operands, limits)
    rows = [each.start(len(operands.scaled), like=private) for each in reductions]
    columns = [
        each.start(layout.num_columns if symmetric else 0, like=private).value() for each in reductions
    ]
    for number, tile in enumerate(layout.tiles):
        if not tile.shared:
            continue
        vectors = operands.tile_vectors(tile)
        down = _columns_of(layout, number, reductions, like=private) if symmetric else []
        for chunk, (low, high) in enumerate(layout.chunks):
            logits, scratch = room.tile_logits(number, chunk, vectors)
            for column in down:
                column.add(logits.T, slice(0, len(vectors)), scratch=scratch.T)
            for row in rows[:-1]:
                row.add(logits, slice(low, high), scratch=scratch)
            rows[-1].add(logits, slice(low, high), scratch=logits)
        for total, column in zip(columns, down, strict=False):
            total[tile.first : tile.first + len(vectors)] = column.value()
    shared = torch.stack([row.value() for row in rows])
    across = _with_private(reductions, shared, private, layout.private.anchors)
    down_all = _with_private(reductions, torch.stack(columns), private, layout.private.columns)
    return Sums(private, across, down_all)


def gradients(
    layout: Layout,
    operands: Operands,
    private: Float[Tensor, " H"],
    *,
    waves: Waves,
    limits: Limits | None,
    positive_slopes: Float[Tensor, " P"],
    found: Gradients,
) -> None:
    """Second pass: adds to `found`. `private` holds the private negatives' logits of the first pass."""
    room = Room.build(layout, operands, limits, spare=waves.num_waves > 2)
    for number, tile in enumerate(layout.tiles):
        grad_part = found.vectors[tile.part]
        if grad_part is None and found.scaled is None and found.shift is None:
            continue
        vectors = operands.tile_vectors(tile)
        grad_tile = None if grad_part is None else torch.zeros_like(vectors, dtype=operands.sum_dtype)
        here = Gradients(found.scaled, [grad_tile], found.shift)
        span = layout.positive_slice(number)
        _add_pairs(operands, tile, layout.positives.where(span), positive_slopes[span], found=here)
        if tile.shared:
            _add_shared(layout, operands, room, waves, number=number, vectors=vectors, found=here)
        else:
            span = layout.private_slice(number)
            pairs = layout.private.where(span)
            _add_pairs(operands, tile, pairs, waves.of_pairs(private[span], pairs), found=here)
        if grad_part is not None and grad_tile is not None:
            grad_part[tile.start : tile.stop] = grad_tile


def _add_shared(
    layout: Layout,
    operands: Operands,
    room: Room,
    waves: Waves,
    *,
    number: int,
    vectors: Float[Tensor, "c D"],
    found: Gradients,
) -> None:
    tile, grad_tile = layout.tiles[number], found.vectors[0]
    span = slice(tile.first, tile.first + len(vectors)) if _has_positives(layout, number) else None
    for chunk, (low, high) in enumerate(layout.chunks):
        logits, scratch = room.tile_logits(number, chunk, vectors)
        slope = waves.of_tile(logits, scratch, room=room, rows=slice(low, high), columns=span)
        if found.shift is not None:
            found.shift.add_(slope.sum())
        factor = room.factor(slope)
        if found.scaled is not None:
            _accumulate(found.scaled[low:high], factor, vectors)
        if grad_tile is not None:
            _accumulate(grad_tile, factor.T, operands.scaled[low:high])


def _add_pairs(
    operands: Operands, tile: Tile, pairs: Pairs, slopes: Float[Tensor, " n"], *, found: Gradients
) -> None:
    grad_tile = found.vectors[0]
    if found.shift is not None:
        found.shift.add_(slopes.sum())
    for block, slope in zip(pairs.blocks(PAIRS_AT_ONCE), slopes.split(PAIRS_AT_ONCE), strict=True):
        if len(slope) == 0:
            continue
        if found.scaled is not None:
            vectors = operands.pair_vectors(tile, block.columns)
            found.scaled.index_add_(0, block.anchors, slope[:, None] * vectors)
        if grad_tile is not None:
            anchors = operands.scaled[block.anchors]
            grad_tile.index_add_(0, block.columns - tile.first, slope[:, None] * anchors)


def _accumulate(total: Float[Tensor, "m n"], left: Float[Tensor, "m k"], right: Float[Tensor, "k n"]) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


def _products(operands: Operands, tile: Tile, pairs: Pairs) -> Float[Tensor, " n"]:
    logits = [
        (
            operands.scaled[block.anchors].to(operands.sum_dtype) * operands.pair_vectors(tile, block.columns)
        ).sum(dim=1)
        for block in pairs.blocks(PAIRS_AT_ONCE)
    ]
    return torch.cat(logits)


def _private_logits(layout: Layout, operands: Operands, limits: Limits | None) -> Float[Tensor, " H"]:
    found = [operands.scaled.new_empty(0, dtype=operands.sum_dtype)]
    for number, tile in enumerate(layout.tiles):
        if tile.shared:
            continue
        pairs = layout.private.where(layout.private_slice(number))
        logits = _products(operands, tile, pairs)
        if limits is not None:
            logits = logits.masked_fill(limits.bars(tile, pairs, logits), -torch.inf)
        found.append(operands.shifted(logits))
    return torch.cat(found)


def _columns_of(
    layout: Layout, number: int, reductions: Sequence[Reduction], *, like: Tensor
) -> list[Accumulator]:
    if not _has_positives(layout, number):
        return []
    tile = layout.tiles[number]
    return [each.start(tile.stop - tile.start, like=like) for each in reductions]


def _has_positives(layout: Layout, number: int) -> bool:
    span = layout.positive_slice(number)
    return bool(span.start < span.stop)


def _with_private(
    reductions: Sequence[Reduction],
    shared: Float[Tensor, "K N"],
    private: Float[Tensor, " H"],
    groups: Tensor,
) -> Float[Tensor, "K N"]:
    num_groups = shared.shape[1]
    if num_groups == 0 or len(private) == 0:
        return shared
    joined = [
        each.join(total, each.grouped(private, groups, num_groups=num_groups))
        for each, total in zip(reductions, shared, strict=True)
    ]
    return torch.stack(joined)
