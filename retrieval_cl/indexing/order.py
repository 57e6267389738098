"""The one rule that scores a pair and the one order of hits: nothing depends on tile, shard or device."""

from __future__ import annotations

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

# Below every packed score, -inf included: no hit.
EMPTY = torch.iinfo(torch.int64).min
LAST_ROW = 2**32 - 1
_FLIP = 0x7FFFFFFF


def dot(left: Float32[Tensor, "*#B D"], right: Float32[Tensor, "*#B D"]) -> Float32[Tensor, "*#B"]:
    """Inner products of pairs of rows by elementwise operations only; leading axes broadcast.

    A matrix product rounds differently with its shape, its library and its device; elementwise products
    and sums do not. Every score that is shown, compared or thresholded comes from this rule.
    """
    return fold(left * right)


def fold(terms: Float32[Tensor, "*B D"]) -> Float32[Tensor, "*B"]:
    """Sums the last axis: adds its last half onto its first until one column is left. Overwrites `terms`."""
    width = terms.shape[-1]
    if width == 0:
        return terms.new_zeros(terms.shape[:-1])
    while width > 1:
        half = width // 2
        terms[..., :half].add_(terms[..., width - half : width])
        width -= half
    return terms[..., 0]


def pack(scores: Float32[Tensor, "*S"], rows: Int64[Tensor, "*S"]) -> Int64[Tensor, "*S"]:
    """One integer a hit that sorts as the hits do: score first, then the lower row. 0.0 and -0.0 tie."""
    bits = (scores + 0.0).view(torch.int32)
    return (_monotone(bits).long() << 32) | (LAST_ROW - rows)


def unpack(keys: Int64[Tensor, "*S"]) -> tuple[Float32[Tensor, "*S"], Int64[Tensor, "*S"]]:
    """Scores and rows of packed hits; -inf and -1 where the key is EMPTY."""
    scores = _monotone((keys >> 32).to(torch.int32)).view(torch.float32)
    rows = LAST_ROW - (keys & LAST_ROW)
    empty = keys == EMPTY
    return scores.masked_fill(empty, -torch.inf), rows.masked_fill(empty, -1)


def best(keys: Int64[Tensor, "Q N"], *, k: int) -> Int64[Tensor, "Q k"]:
    """The k largest keys of each row, best first; EMPTY fills up."""
    if keys.shape[1] < k:
        keys = torch.nn.functional.pad(keys, (0, k - keys.shape[1]), value=EMPTY)
    return keys.topk(k, dim=1).values


def _monotone(bits: Tensor) -> Tensor:
    # The bits of negative floats ascend as the floats descend; flipping all but the sign mends that.
    return torch.where(bits >= 0, bits, bits ^ _FLIP)
