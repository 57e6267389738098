"""What monitors want to know of a contrast, on a sample of its anchors: scores, what was ignored, entropy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from retrieval_cl.core.contrast import Contrast, Guide
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.identity import column_ids, private_candidates, shared_columns, target_pairs
from retrieval_cl.core.ranks import mean_over_ranks
from retrieval_cl.core.reductions import Count, LogSum, Total
from retrieval_cl.core.tiles import compare

SAMPLE = 128


@dataclass(frozen=True)
class Statistics:
    """Means over a sample of the anchors of all ranks.

    Attributes:
        positive_score: of an anchor with its target; a cosine where rows are unit rows.
        negative_score: of an anchor with its negatives; 0 where there is none.
        ignored: share of the candidates, padding and targets aside, that were no negatives: known ids, guard.
        entropy: of the softmax over target and negatives, in nats; log(1 + negatives) where all are alike, 0
            where one candidate has it all.
        chance: what that entropy, and the loss of InfoNCE, would be if all candidates scored alike: log(1 +
            negatives); 0 where there is no negative.
    """

    positive_score: float
    negative_score: float
    ignored: float
    entropy: float
    chance: float


@torch.no_grad()
def measure(contrast: Contrast, *, guard: Guard | None = None) -> Statistics:
    """Statistics of up to 128 anchors, evenly chosen, against the whole bank. Waits for the device.

    It costs 128 / A of what a loss costs, so it is meant for the steps that are logged.
    """
    return Statistics(*mean_over_ranks(_measure(_sample(contrast), guard)).tolist())


def _measure(contrast: Contrast, guard: Guard | None) -> Float[Tensor, "5"]:
    scale = contrast.scale.detach().requires_grad_()
    with torch.enable_grad():
        compared = compare(
            replace(contrast, scale=scale, bias=None),
            reductions=(LogSum(), Count(), Total()),
            guard=guard,
        )
        positives = compared.positives[compared.targets]
        total = torch.logaddexp(positives, compared.negatives[0]).sum()
        # The mean logit under the softmax is the derivative of the log of its denominator by log scale.
        (slope,) = torch.autograd.grad(total, scale)
    num_anchors, count = len(positives), compared.negatives[1].sum()
    num_candidates = _num_candidates(contrast)
    found = [
        (positives / scale).mean(),
        (compared.negatives[2].sum() / scale / count.clamp_min(1.0)).squeeze(),
        (num_candidates - count) / max(1, num_candidates),
        ((total - slope * scale) / num_anchors).squeeze(),
        compared.negatives[1].log1p().mean(),
    ]
    return torch.stack([value.detach().double() for value in found])


def _sample(contrast: Contrast) -> Contrast:
    num_anchors = len(contrast.targets)
    chosen = torch.linspace(0, num_anchors - 1, min(SAMPLE, num_anchors)).round().long()
    here, ids = chosen.to(contrast.anchors.device), chosen.to(contrast.targets.device)
    bank = replace(
        contrast.bank,
        parts=tuple(replace(part, vectors=part.vectors.detach()) for part in contrast.bank.parts),
    )
    guide = contrast.guide
    return replace(
        contrast,
        anchors=contrast.anchors.detach()[here],
        known=contrast.known[ids],
        bank=bank,
        targets=contrast.targets[ids],
        own=None if contrast.own is None else contrast.own[ids],
        teacher=None,
        weights=None,
        guide=None if guide is None else Guide(guide.anchors[here], guide.bank),
    )


def _num_candidates(contrast: Contrast) -> int:
    """Pairs of an anchor and a column it sees, without padding and targets."""
    bank, num_columns = contrast.bank, contrast.bank.num_columns
    shared = shared_columns(bank) & (column_ids(bank) >= 0)
    private = private_candidates(contrast).keys(num_columns)
    targets = target_pairs(contrast)
    not_targets = ~torch.isin(private, targets.keys(num_columns))
    in_shared = len(contrast.targets) * int(shared.sum()) - int(shared[targets.columns].sum())
    return in_shared + int(not_targets.sum())
