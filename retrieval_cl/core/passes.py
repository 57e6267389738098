"""The two passes over the tiles: sums over negatives, then gradients from logits computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from retrieval_cl.core.engine import Engine, Gradients
from retrieval_cl.core.identity import Pairs
from retrieval_cl.core.layout import Layout, Tile
from retrieval_cl.core.operands import Limits, Operands
from retrieval_cl.core.reductions import Reduction
from retrieval_cl.core.waves import Waves

PAIRS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Sums:
    """What the first pass leaves to the second: private negatives' logits, one row of sums a reduction.

    `columns` is empty where the reverse direction was not asked for, and has sums over nothing in tiles
    that can have no positive.
    """

    private: Float[Tensor, " H"]
    rows: Float[Tensor, "K A"]
    columns: Float[Tensor, "K C"]


def positive_logits(layout: Layout, operands: Operands) -> Float[Tensor, " P"]:
    """The logits of `layout.positives`, in its order, without bias."""
    found = [
        _products(operands, tile, layout.positives.where(layout.positive_slice(number)))
        for number, tile in enumerate(layout.tiles)
    ]
    return torch.cat(found)


def sum_up(engine: Engine) -> Sums:
    """First pass: each reduction over the negatives of every anchor; where symmetric, of every column."""
    task = engine.task
    private = _private_logits(task.layout, task.operands, task.limits)
    rows, columns = engine.sum_up()
    pairs = task.layout.private
    return Sums(
        private=private,
        rows=_with_private(task.reductions, rows, private, pairs.anchors),
        columns=_with_private(task.reductions, columns, private, pairs.columns),
    )


def add_gradients(
    engine: Engine,
    waves: Waves,
    *,
    private: Float[Tensor, " H"],
    positive_slopes: Float[Tensor, " P"],
    scaled: Float[Tensor, "A D"] | None,
    vectors: Sequence[Tensor | None],
    shift: Float[Tensor, "1"] | None,
) -> None:
    """Second pass.

    Args:
        engine: of the first pass, or one like it.
        waves: slopes of the sums.
        private: the private negatives' logits of the first pass.
        positive_slopes: gradient of the loss with respect to the positives' logits.
        scaled: the gradient of the scaled anchors is added here, where it is wanted.
        vectors: the gradient of each part's vectors is written here, where it is wanted.
        shift: the gradient of what is added to every logit is added here, where it is wanted.
    """
    layout, operands = engine.task.layout, engine.task.operands
    engine.start_gradients(waves)
    for number, tile in enumerate(layout.tiles):
        part = vectors[tile.part]
        if part is None and scaled is None and shift is None:
            continue
        rows = None if part is None else part[tile.start : tile.stop]
        here = None if rows is None else torch.zeros_like(rows, dtype=operands.sum_dtype)
        found = Gradients(scaled, here, shift)
        span = layout.positive_slice(number)
        _add_pairs(operands, tile, layout.positives.where(span), positive_slopes[span], found=found)
        if tile.shared:
            engine.add_gradients(number, found=found)
        else:
            span = layout.private_slice(number)
            pairs = layout.private.where(span)
            _add_pairs(operands, tile, pairs, waves.of_pairs(private[span], pairs), found=found)
        if rows is not None and here is not None:
            rows.copy_(here)


def _add_pairs(
    operands: Operands, tile: Tile, pairs: Pairs, slopes: Float[Tensor, " n"], *, found: Gradients
) -> None:
    grad_tile = found.vectors
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
