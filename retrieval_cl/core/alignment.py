"""Alignment: BYOL's objective, which pulls an anchor to its target and knows no negatives."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from retrieval_cl.core.contrast import Contrast
from retrieval_cl.core.unit_rows import unit_rows


def alignment(contrast: Contrast) -> Float[Tensor, " A"]:
    """2 - 2 cos of each anchor with its target (BYOL, Grill et al. 2020, eq. 2).

    Rows are normalised here, so they may have any length; scale, bias, ids and all other columns play no
    part. Nothing is gathered over ranks. A target in a part without gradient (BYOL's EMA twin) gets none.

    Returns:
        The loss of each anchor, 0 (same direction) to 4 (opposite), 2 and no gradient where the anchor or its
        target is a zero row.
    """
    anchors, targets = unit_rows(contrast.anchors), unit_rows(_target_rows(contrast))
    # The distance of unit rows is 2 - 2 cos, but keeps its digits, and its sign, near 0.
    distances = (anchors - targets).square().sum(dim=1)
    have_cosine = anchors.any(dim=1) & targets.any(dim=1)
    return distances.where(have_cosine, 2.0)


def _target_rows(contrast: Contrast) -> Float[Tensor, "A D"]:
    dtype = torch.promote_types(contrast.anchors.dtype, torch.float32)
    rows = torch.zeros_like(contrast.anchors, dtype=dtype, requires_grad=False)
    targets = contrast.targets.to(contrast.anchors.device, non_blocking=True)
    for start, part in zip(contrast.bank.starts, contrast.bank.parts, strict=True):
        if len(part.ids) == 0:
            continue
        # Widened before the look-up, the gradients of a target that several anchors share add up in float32.
        vectors = part.vectors.to(dtype) if part.vectors.requires_grad else part.vectors
        places = targets - start
        # A boolean index would wait for the device.
        inside = (places >= 0) & (places < len(vectors))
        found = vectors[places.clamp(0, len(vectors) - 1)].to(dtype)
        rows = found.where(inside[:, None], rows)
    return rows
