"""Objectives: a contrast in, a loss per anchor out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from retrieval_cl.core.contrast import Contrast
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.logsums import grouped_logsumexp
from retrieval_cl.core.ranks import mean_over_ranks
from retrieval_cl.core.reductions import Count, LogSum, Reduction, SoftplusSum
from retrieval_cl.core.tiles import Comparison, compare, sum_over_ranks

Objective = Callable[[Contrast], Float[Tensor, " A"]]
"""Makes a loss per anchor of a contrast, in nats where the objective is a log-likelihood."""

Positives = Literal["target", "mean", "sum"]


def info_nce(
    contrast: Contrast,
    *,
    symmetric: bool = False,
    positives: Positives = "target",
    decoupled: bool = False,
    hardness: float = 0.0,
    debias: float = 0.0,
    guard: Guard | None = None,
    compute_dtype: torch.dtype | None = None,
) -> Float[Tensor, " A"]:
    """InfoNCE (van den Oord et al. 2018, eq. 4): -log of the positive's share of positive and negatives.

    Args:
        contrast: `compare` tells which columns are an anchor's negatives. The target counts once, whatever
            its id.
        symmetric: the mean of this loss and of its reverse, which picks the anchor for its positive's column
            among the anchors that have that column as a negative (CLIP, Radford et al. 2021, figure 3).
        positives: "target": the target alone. "mean": the mean of the losses of all positives that the anchor
            sees, each alone against the negatives (as SupCon's L_out, Khosla et al. 2020, eq. 2, but no
            positive in another's denominator). "sum": one loss, whose numerator sums over the positives (as
            L_in, eq. 3).
        decoupled: the positive is not in the denominator (Yeh et al. 2022, eq. 6).
        hardness: beta of Robinson et al. 2021 (eq. 4): a negative weighs exp(beta * logit), relative to the
            mean over the negatives. 0: all alike.
        debias: tau+ of Chuang et al. 2020 (eq. 8): the share of negatives that are expected to be positives,
            0 to below 1; the sum over N negatives is corrected by it, to no less than N * exp(bias - scale).
        guard: candidates that are ignored as likely positives.
        compute_dtype: of the matrix products, see `compare`.

    Returns:
        The loss of each anchor in nats, 0 where it has no negative. The mean is what is trained.
    """
    assert hardness >= 0 and 0 <= debias < 1, (hardness, debias)
    compared = compare(
        contrast,
        reductions=_reductions(hardness, debias),
        symmetric=symmetric,
        all_positives=positives != "target",
        guard=guard,
        compute_dtype=compute_dtype,
    )
    direction = _sum_loss if positives == "sum" else _mean_loss
    rule = _Rule(contrast, decoupled=decoupled, hardness=hardness, debias=debias)
    forward = direction(compared, rule)
    if not symmetric:
        return forward
    back = _reverse_sum_loss if positives == "sum" else _reverse_mean_loss
    return (forward + back(compared, rule)) / 2


def sigmoid(
    contrast: Contrast,
    *,
    positives: Literal["target", "sum"] = "target",
    guard: Guard | None = None,
    compute_dtype: torch.dtype | None = None,
) -> Float[Tensor, " A"]:
    """Sigmoid loss (SigLIP, Zhai et al. 2023, eq. 1): every pair of anchor and candidate judged by itself.

    Args:
        contrast: `compare` tells which columns are an anchor's negatives. One direction holds every pair. Its
            bias should start near minus the log of the number of negatives (-10 in the paper).
        positives: "target": the target alone; "sum": every positive that the anchor sees.
        guard: candidates that are ignored as likely positives.
        compute_dtype: of the matrix products, see `compare`.

    Returns:
        Each anchor's sum over its positives and negatives of -log of the probability of being right.
    """
    compared = compare(
        contrast,
        reductions=(SoftplusSum(),),
        all_positives=positives != "target",
        guard=guard,
        compute_dtype=compute_dtype,
    )
    missed = softplus(-compared.positives, threshold=40.0)
    return compared.negatives[0].index_add(0, compared.pairs.anchors, missed)


def weigh(per_anchor: Float[Tensor, " A"], weights: Float[Tensor, " A"] | None) -> Float[Tensor, " A"]:
    """The losses, each times its weight relative to the mean weight over all ranks.

    Their mean is the weighted mean over the anchors of all ranks once gradients are averaged over ranks.
    Weights are at least 0; where all are 0, so is the loss.
    """
    if weights is None:
        return per_anchor
    shares = weights.to(per_anchor.dtype)
    mean_weight = mean_over_ranks(shares.mean()).clamp_min(torch.finfo(shares.dtype).tiny)
    return per_anchor * (shares / mean_weight)


def _reductions(hardness: float, debias: float) -> tuple[Reduction, ...]:
    if hardness > 0:
        return LogSum(1.0 + hardness), LogSum(hardness), Count()
    return (LogSum(), Count()) if debias > 0 else (LogSum(),)


class _Rule:
    """Turns a positive's logit and the sums over its negatives into a loss."""

    def __init__(self, contrast: Contrast, *, decoupled: bool, hardness: float, debias: float) -> None:
        self._scale, self._bias = contrast.scale, contrast.bias
        self._decoupled, self._hardness, self._debias = decoupled, hardness, debias

    def loss(
        self, positives: Float[Tensor, " H"], sums: Float[Tensor, "K H"], mean_positives: Float[Tensor, " H"]
    ) -> Float[Tensor, " H"]:
        """The loss of each positive; `mean_positives` is the log of the mean of what it sums."""
        negatives = self._negatives(sums, mean_positives)
        if not self._decoupled:
            return -logsigmoid(positives - negatives)
        some = negatives > -torch.inf
        return (negatives.where(some, 0.0) - positives).where(some, 0.0)

    def _negatives(
        self, sums: Float[Tensor, "K H"], mean_positives: Float[Tensor, " H"]
    ) -> Float[Tensor, " H"]:
        """Log of the sum over negatives, weighted by hardness and corrected for false ones."""
        if len(sums) == 1:
            return sums[0]
        some = sums[-1] > 0
        count = sums[-1].where(some, 1.0).log()
        total = sums[0].where(some, 0.0)
        if self._hardness > 0:
            total = count + total - sums[1].where(some, 0.0)
        if self._debias > 0:
            total = self._corrected(total, count, mean_positives)
        return total.where(some, -torch.inf)

    def _corrected(
        self, total: Float[Tensor, " H"], count: Float[Tensor, " H"], mean_positives: Float[Tensor, " H"]
    ) -> Float[Tensor, " H"]:
        # The logit of a negative that points away from the anchor.
        opposite = -self._scale.to(total.dtype)
        if self._bias is not None:
            opposite = opposite + self._bias.to(total.dtype)
        lowest = count + opposite
        excess = math.log(self._debias) + count + mean_positives - total
        # Below the floor nothing depends on the negatives: keep the unused branch finite for its gradient.
        safe = excess < 0
        left = total + torch.log(-torch.expm1(excess.where(safe, -1.0))) - math.log1p(-self._debias)
        return torch.maximum(left.where(safe, lowest), lowest)


def _mean_loss(compared: Comparison, rule: _Rule) -> Float[Tensor, " A"]:
    anchors = compared.pairs.anchors
    losses = rule.loss(compared.positives, compared.negatives[:, anchors], compared.positives)
    return _grouped_mean(losses, anchors, num_groups=compared.negatives.shape[1])


def _sum_loss(compared: Comparison, rule: _Rule) -> Float[Tensor, " A"]:
    num_anchors, anchors = compared.negatives.shape[1], compared.pairs.anchors
    total = grouped_logsumexp(compared.positives, anchors, num_groups=num_anchors)
    return rule.loss(total, compared.negatives, total - _counts(anchors, total).log())


def _reverse_mean_loss(compared: Comparison, rule: _Rule) -> Float[Tensor, " A"]:
    assert compared.reverse is not None
    sums = compared.reverse[:, compared.pairs.columns]
    losses = rule.loss(compared.positives, sums, compared.positives)
    return _grouped_mean(losses, compared.pairs.anchors, num_groups=compared.negatives.shape[1])


def _reverse_sum_loss(compared: Comparison, rule: _Rule) -> Float[Tensor, " A"]:
    assert compared.reverse is not None
    columns, num_columns = compared.pairs.columns, compared.reverse.shape[1]
    local = grouped_logsumexp(compared.positives, columns, num_groups=num_columns)
    both = torch.stack([local, _counts(columns, local)])
    total, counts = sum_over_ranks(both, compared.shared, reductions=(LogSum(), Count()))
    targets = columns[compared.targets]
    return rule.loss(total[targets], compared.reverse[:, targets], total[targets] - counts[targets].log())


def _grouped_mean(
    values: Float[Tensor, " H"], groups: Int64[Tensor, " H"], *, num_groups: int
) -> Float[Tensor, " N"]:
    total = values.new_zeros(num_groups)
    return total.index_add(0, groups, values) / _counts(groups, total)


def _counts(groups: Int64[Tensor, " H"], like: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    return torch.zeros_like(like).index_add_(0, groups, torch.ones_like(groups, dtype=like.dtype))
