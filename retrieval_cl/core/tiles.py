"""Memory-flat comparison of anchors with a bank: an autograd function that streams tiles of logits.

Memory beyond inputs and gradients grows with A * D + C + one tile, never with A * C: logits are summed online
and computed again in the backward pass (FlashAttention, Dao et al. 2022, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from retrieval_cl.core.contrast import Contrast
from retrieval_cl.core.engine import Demand, Engine, Task
from retrieval_cl.core.engines import choose_engine
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.identity import Pairs, shared_columns
from retrieval_cl.core.layout import Layout, TileSize, lay_out
from retrieval_cl.core.logsums import NATS_PER_BIT
from retrieval_cl.core.operands import Limits, Operands, guide_scores, in_bits, sum_dtype_of
from retrieval_cl.core.passes import add_gradients, positive_logits, sum_up
from retrieval_cl.core.ranks import gather_rows, num_ranks
from retrieval_cl.core.reductions import LogSum, Reduction
from retrieval_cl.core.waves import Waves


@dataclass(frozen=True, eq=False)
class Comparison:
    """What an objective needs of a contrast, in logits (scaled and biased).

    Attributes:
        pairs: each anchor with its target, or with all its positives.
        targets: the place of each anchor's target among `pairs`.
        positives: the logit of each pair.
        negatives: one row a reduction: over the negatives of each anchor.
        reverse: one row a reduction: over the anchors of all ranks that have each column as a negative; None
            where it was not asked for. Says nothing for a column that is in no pair.
        shared: which columns are seen by all anchors.
    """

    pairs: Pairs
    targets: Int64[Tensor, " A"]
    positives: Float[Tensor, " P"]
    negatives: Float[Tensor, "K A"]
    reverse: Float[Tensor, "K C"] | None
    shared: Bool[Tensor, " C"]


def compare(
    contrast: Contrast,
    *,
    reductions: Sequence[Reduction] = (LogSum(),),
    symmetric: bool = False,
    all_positives: bool = False,
    guard: Guard | None = None,
    compute_dtype: torch.dtype | None = None,
    size: TileSize | None = None,
) -> Comparison:
    """Scores anchors against the bank, with gradient for anchors, vectors, scale and bias.

    One relation serves both directions: column c is a negative of anchor b where b sees c, the id of c is
    neither -1 nor known to b, c is not b's target, and the guard lets it pass. A shared column is seen by all
    anchors, a private one by those that name it in `own`.

    Args:
        contrast: anchors and bank on one device, ids on one device, which may be the host. A part without
            `requires_grad` costs no gradient product.
        reductions: what is summed over the negatives.
        symmetric: also sum over the anchors of all ranks, for each column; every rank brings as many columns.
        all_positives: every column that carries a known id is a positive; else the target alone is.
        guard: what else is no negative.
        compute_dtype: of the matrix products, e.g. `torch.bfloat16`; sums are float32 all the same. None:
            float32, or float64 for float64 anchors.
        size: of one tile: speed and memory, and rounding. None: what suits the device.
    """
    device, sum_dtype = contrast.anchors.device, sum_dtype_of(contrast.anchors)
    demand = Demand(
        reductions=tuple(reductions),
        dim=contrast.anchors.shape[1],
        dtype=compute_dtype or sum_dtype,
        sum_dtype=sum_dtype,
        guarded=guard is not None,
        biased=contrast.bias is not None,
    )
    engine = choose_engine(demand, device)
    if size is None:
        size = engine.tile_size(device, len(contrast.targets))
    plan = _Plan(
        engine=engine,
        layout=lay_out(contrast, size, all_positives=all_positives),
        reductions=tuple(reductions),
        symmetric=symmetric,
        guard=guard,
        contrast=contrast if guard is not None and guard.by_guide else None,
        compute_dtype=compute_dtype,
    )
    vectors = (part.vectors for part in contrast.bank.parts)
    positives, negatives, columns = _Compare.apply(  # type: ignore[no-untyped-call]
        plan, contrast.anchors, contrast.scale, contrast.bias, *vectors
    )
    shared = shared_columns(contrast.bank).to(contrast.anchors.device, non_blocking=True)
    return Comparison(
        pairs=plan.layout.positives,
        targets=plan.layout.targets,
        positives=positives,
        negatives=negatives,
        reverse=sum_over_ranks(columns, shared, reductions=reductions) if symmetric else None,
        shared=shared,
    )


@dataclass(frozen=True, eq=False)
class _Plan:
    engine: type[Engine]
    layout: Layout
    reductions: tuple[Reduction, ...]
    symmetric: bool
    guard: Guard | None
    contrast: Contrast | None
    compute_dtype: torch.dtype | None

    def in_nats(self, values: Float[Tensor, "K N"]) -> Float[Tensor, "K N"]:
        """Rows in their reductions' units become nats. A tensor of units would make a GPU's host wait."""
        return torch.stack([row * each.unit for each, row in zip(self.reductions, values, strict=True)])

    def start(self, operands: Operands, limits: Limits | None) -> Engine:
        return self.engine(Task(self.layout, operands, self.reductions, limits, self.symmetric))

    def limits(self, logits: Float[Tensor, " P"], scale: Float[Tensor, "1"]) -> Limits | None:
        """The guard at work, from the positives' logits in bits."""
        if self.guard is None:
            return None
        if self.contrast is None:
            return Limits(self.guard.limits(logits[self.layout.targets], in_bits(scale, logits.dtype)), None)
        scores = _guide_of_targets(self.contrast, self.layout).to(logits.dtype)
        return Limits(self.guard.limits(scores, scores.new_ones(1)), self.contrast.guide)


def sum_over_ranks(
    columns: Float[Tensor, "K C"], shared: Bool[Tensor, " C"], *, reductions: Sequence[Reduction]
) -> Float[Tensor, "K C"]:
    """Sums over each rank's anchors (nats) become sums over all anchors, with gradient.

    A column that is not `shared` concerns this rank alone and stays as it is.
    """
    if num_ranks() == 1:
        return columns
    gathered = gather_rows(columns.reshape(1, -1)).view(num_ranks(), *columns.shape)
    everywhere = [each.over_ranks(gathered[:, k]) for k, each in enumerate(reductions)]
    return torch.stack(everywhere).where(shared, columns)


class _Compare(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        plan: _Plan,
        anchors: Float[Tensor, "A D"],
        scale: Float[Tensor, "1"],
        bias: Float[Tensor, "1"] | None,
        *vectors: Float[Tensor, "_ D"],
    ) -> tuple[Float[Tensor, " P"], Float[Tensor, "K A"], Float[Tensor, "K C"]]:
        operands = Operands.build(anchors, scale, bias, vectors, compute_dtype=plan.compute_dtype)
        logits = positive_logits(plan.layout, operands)
        limits = plan.limits(logits, scale)
        sums = sum_up(plan.start(operands, limits))
        ctx.plan, ctx.limits = plan, limits
        ctx.save_for_backward(anchors, scale, bias, sums.private, sums.rows, sums.columns, *vectors)
        return operands.shifted(logits) * NATS_PER_BIT, plan.in_nats(sums.rows), plan.in_nats(sums.columns)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        grad_positives: Float[Tensor, " P"],
        grad_rows: Float[Tensor, "K A"],
        grad_columns: Float[Tensor, "K C"],
    ) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        anchors, scale, bias, private, rows, columns, *vectors = ctx.saved_tensors
        needs_anchors, needs_scale, needs_bias, *needs_vectors = ctx.needs_input_grad[1:]
        # What was summed over nothing is a constant.
        grad_rows = grad_rows.where(rows > -torch.inf, 0.0)
        grad_columns = grad_columns.where(columns > -torch.inf, 0.0)
        shift_slopes = [each.shift_slope for each in plan.reductions]
        waves = Waves.build(
            plan.reductions,
            rows=(rows, plan.in_nats(grad_rows)),
            columns=(columns, plan.in_nats(grad_columns)) if plan.symmetric else None,
        )
        # Autocast would take the products of one half precision to the other.
        with torch.autocast(anchors.device.type, enabled=False):
            operands = Operands.build(anchors, scale, bias, tuple(vectors), compute_dtype=plan.compute_dtype)
            new = operands.scaled.new_zeros
            grad_scaled = (
                new(anchors.shape, dtype=operands.sum_dtype) if needs_anchors or needs_scale else None
            )
            grad_shift = new(1, dtype=torch.float64) if needs_bias and None in shift_slopes else None
            grad_vectors = [
                torch.empty_like(part) if needed else None
                for part, needed in zip(vectors, needs_vectors, strict=True)
            ]
            add_gradients(
                plan.start(operands, ctx.limits),
                waves,
                private=private,
                positive_slopes=grad_positives * NATS_PER_BIT,
                scaled=grad_scaled,
                vectors=grad_vectors,
                shift=grad_shift,
            )
        grad_anchors = grad_scale = grad_bias = None
        if needs_anchors and grad_scaled is not None:
            grad_anchors = (grad_scaled * in_bits(scale, grad_scaled.dtype)).to(anchors.dtype)
        if needs_scale and grad_scaled is not None:
            # The tiles saw scale * anchors: that gradient holds the scale's, without a pass over the tiles.
            per_row = (grad_scaled * anchors.to(grad_scaled.dtype)).sum(dim=1)
            grad_scale = (per_row.sum(dtype=torch.float64) / NATS_PER_BIT).to(scale.dtype).reshape(1)
        if grad_shift is not None:
            grad_bias = (grad_shift / NATS_PER_BIT).to(bias.dtype)
        elif needs_bias:
            total = grad_positives.sum()
            for slope, across, down in zip(shift_slopes, grad_rows, grad_columns, strict=True):
                total = total + slope * (across.sum() + down.sum())
            grad_bias = total.to(bias.dtype).reshape(1)
        return None, grad_anchors, grad_scale, grad_bias, *grad_vectors


def _guide_of_targets(contrast: Contrast, layout: Layout) -> Float[Tensor, " A"]:
    """The guide's score of each anchor with its target."""
    assert contrast.guide is not None, "a guard by guide needs a contrast with a guide"
    columns = layout.positives.columns[layout.targets]
    scores = contrast.guide.anchors.new_empty(len(columns), dtype=torch.float32)
    for number, (part, first) in enumerate(zip(contrast.bank.parts, contrast.bank.starts, strict=True)):
        anchors = ((columns >= first) & (columns < first + len(part.ids))).nonzero().squeeze(1)
        rows = columns[anchors] - first
        scores[anchors] = guide_scores(contrast.guide, number, anchors=anchors, rows=rows)
    return scores
