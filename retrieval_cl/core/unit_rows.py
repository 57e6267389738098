"""Rows scaled to length 1, at any length they come with."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def unit_rows(rows: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """The rows over their length, in float32, or in float64 where they come so.

    A zero row (no entry larger than the smallest normal number) has no direction: it becomes zeros, and gets
    no gradient. One over an epsilon would give it a gradient of 1e12.
    """
    wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
    # The squares of a long row overflow and those of a short one vanish. Lengths cancel: no gradient needed.
    largest = wide.detach().abs().amax(dim=1, keepdim=True)
    zero = largest < torch.finfo(wide.dtype).tiny
    level = wide / largest.masked_fill(zero, 1.0)
    lengths = torch.linalg.vector_norm(level, dim=1, keepdim=True)
    unit: Tensor = level / lengths.masked_fill(zero, torch.inf)
    return unit
