"""Memory-flat comparison of anchors with a bank: an autograd function that streams tiles of logits.

Memory beyond inputs and gradients grows with A * D + C + one tile, never with A * C: logits are summed online
and computed again in the backward pass (FlashAttention, Dao et al. 2022, section 3.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from retrieval_cl.core.contrast import Contrast
from retrieval_cl.core.layout import Layout, TileSize, lay_out
from retrieval_cl.core.passes import Operands, Slopes, Sums, gradients, sum_up
from retrieval_cl.core.ranks import gather_rows, num_ranks

NATS_PER_BIT = math.log(2.0)
CPU_TILE = TileSize(rows=1024, columns=1024)
GPU_TILE = TileSize(rows=4096, columns=4096)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What an objective needs of a contrast, in logits (scaled and biased).

    Attributes:
        positives: the logit of each anchor with its target.
        negatives: log-sum-exp over the negatives of each anchor; -inf where it has none.
        reverse: log-sum-exp over the anchors that have this anchor's target column as a negative, or None.
    """

    positives: Float[Tensor, " A"]
    negatives: Float[Tensor, " A"]
    reverse: Float[Tensor, " A"] | None


def compare(
    contrast: Contrast,
    *,
    symmetric: bool = False,
    compute_dtype: torch.dtype | None = None,
    size: TileSize | None = None,
) -> Comparison:
    """Scores anchors against the bank, with gradient for anchors, vectors, scale and bias.

    One relation serves both directions: column c is a negative of anchor b where b sees c, the id of c is
    neither -1 nor known to b, and c is not b's target. A shared column is seen by all anchors, a private one
    by those that name it in `own`.

    Args:
        contrast: anchors and bank on one device. A part without `requires_grad` costs no gradient product.
        symmetric: also sum over the anchors, for each target column.
        compute_dtype: of the matrix products, e.g. `torch.bfloat16`; sums are float32 all the same. None:
            float32, or float64 for float64 anchors.
        size: of one tile: speed and memory, and rounding. None: what suits the device.
    """
    if size is None:
        size = GPU_TILE if contrast.anchors.is_cuda else CPU_TILE
    vectors = (part.vectors for part in contrast.bank.parts)
    positives, negatives, columns = _Compare.apply(  # type: ignore[no-untyped-call]
        lay_out(contrast, size),
        symmetric,
        compute_dtype,
        contrast.anchors,
        contrast.scale,
        contrast.bias,
        *vectors,
    )
    if not symmetric:
        return Comparison(positives, negatives, None)
    return Comparison(positives, negatives, _over_ranks(columns)[contrast.targets])


def _over_ranks(columns: Float[Tensor, " C"]) -> Float[Tensor, " C"]:
    # Each rank summed over its own anchors.
    return columns if num_ranks() == 1 else torch.logsumexp(gather_rows(columns[None]), dim=0)


class _Compare(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        layout: Layout,
        symmetric: bool,
        compute_dtype: torch.dtype | None,
        anchors: Float[Tensor, "A D"],
        scale: Float[Tensor, "1"],
        bias: Float[Tensor, "1"] | None,
        *vectors: Float[Tensor, "_ D"],
    ) -> tuple[Float[Tensor, " A"], Float[Tensor, " A"], Float[Tensor, " C"]]:
        operands = _operands(anchors, scale, vectors, compute_dtype=compute_dtype)
        positives, sums = sum_up(layout, operands, symmetric=symmetric)
        ctx.layout, ctx.symmetric, ctx.compute_dtype = layout, symmetric, compute_dtype
        ctx.save_for_backward(anchors, scale, sums.private, sums.rows, sums.columns, *vectors)
        # A bias shifts every logit alike, so it passes through a log-sum-exp.
        shift = 0.0 if bias is None else bias.to(positives.dtype)
        rows, columns = sums.rows * NATS_PER_BIT + shift, sums.columns * NATS_PER_BIT + shift
        return positives * NATS_PER_BIT + shift, rows, columns

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        grad_positives: Float[Tensor, " A"],
        grad_rows: Float[Tensor, " A"],
        grad_columns: Float[Tensor, " C"],
    ) -> tuple[Tensor | None, ...]:
        anchors, scale, private, rows, columns, *vectors = ctx.saved_tensors
        needs_anchors, needs_scale, needs_bias, *needs_vectors = ctx.needs_input_grad[3:]
        # What was summed over nothing is a constant.
        grad_rows = grad_rows.where(rows > -torch.inf, 0.0)
        grad_columns = grad_columns.where(columns > -torch.inf, 0.0)
        # Autocast would take the products of one half precision to the other.
        with torch.autocast(anchors.device.type, enabled=False):
            operands = _operands(anchors, scale, tuple(vectors), compute_dtype=ctx.compute_dtype)
            slopes = Slopes(
                positives=grad_positives * NATS_PER_BIT,
                rows=grad_rows * NATS_PER_BIT,
                columns=grad_columns * NATS_PER_BIT if ctx.symmetric else None,
            )
            grad_scaled, grad_vectors = gradients(
                ctx.layout,
                operands,
                Sums(private, rows, columns),
                slopes,
                needs_anchors=needs_anchors or needs_scale,
                needs_vectors=tuple(needs_vectors),
            )
        grad_anchors = grad_scale = grad_bias = None
        if needs_anchors:
            grad_anchors = (grad_scaled * _bits(scale, grad_scaled.dtype)).to(anchors.dtype)
        if needs_scale:
            # The tiles saw scale * anchors: that gradient holds the scale's, without a pass over the tiles.
            per_row = (grad_scaled * anchors.to(grad_scaled.dtype)).sum(dim=1)
            grad_scale = (per_row.sum(dtype=torch.float64) / NATS_PER_BIT).to(scale.dtype).reshape(1)
        if needs_bias:
            grad_bias = (grad_positives.sum() + grad_rows.sum() + grad_columns.sum()).reshape(1)
        return None, None, None, grad_anchors, grad_scale, grad_bias, *grad_vectors


def _operands(
    anchors: Float[Tensor, "A D"],
    scale: Float[Tensor, "1"],
    vectors: tuple[Tensor, ...],
    *,
    compute_dtype: torch.dtype | None,
) -> Operands:
    sum_dtype = torch.float64 if anchors.dtype == torch.float64 else torch.float32
    scaled = anchors.to(sum_dtype) * _bits(scale, sum_dtype)
    return Operands(scaled.to(compute_dtype or sum_dtype), vectors, sum_dtype)


def _bits(scale: Float[Tensor, "1"], dtype: torch.dtype) -> Float[Tensor, "1"]:
    return scale.to(dtype) / NATS_PER_BIT
