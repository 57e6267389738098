"""Objectives: a contrast in, a loss per anchor out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from retrieval_cl.core.contrast import Contrast
from retrieval_cl.core.ranks import mean_over_ranks
from retrieval_cl.core.tiles import compare

Objective = Callable[[Contrast], Float[Tensor, " A"]]
"""Makes a loss per anchor of a contrast, in nats where the objective is a log-likelihood."""


def info_nce(
    contrast: Contrast, *, symmetric: bool = False, compute_dtype: torch.dtype | None = None
) -> Float[Tensor, " A"]:
    """InfoNCE (van den Oord et al. 2018, eq. 4): -log of the target's share of target and negatives.

    Args:
        contrast: `compare` tells which columns are an anchor's negatives. The target counts once, whatever
            its id.
        symmetric: the mean of this loss and of its reverse, which picks the anchor for its target column
            among the anchors that have that column as a negative (CLIP, Radford et al. 2021, figure 3).
        compute_dtype: of the matrix products, see `compare`.

    Returns:
        The loss of each anchor in nats, 0 where it has no negative. The mean is what is trained.
    """
    compared = compare(contrast, symmetric=symmetric, compute_dtype=compute_dtype)
    forward = -logsigmoid(compared.positives - compared.negatives)
    if compared.reverse is None:
        return forward
    return (forward - logsigmoid(compared.positives - compared.reverse)) / 2


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
