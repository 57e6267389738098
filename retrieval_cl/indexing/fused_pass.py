"""The first pass on a GPU that writes no product but the largest of each block of passages."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from retrieval_cl.core.kernels.topk import largest_of_blocks, products_of_blocks
from retrieval_cl.indexing.first_pass import FirstPass
from retrieval_cl.indexing.shortlist import BLOCK, Bounds, bound


@final
class FusedPass(FirstPass):
    """Maxima of blocks of `BLOCK` passages in a row; products of the blocks that matter are computed anew."""

    def compare(self, queries: Float32[Tensor, "Q D"], *, norms: Float32[Tensor, " Q"]) -> Bounds:
        """See `FirstPass`."""
        self._rounded = queries.to(self.shard.compared.dtype)
        self._passages = self.shard.compared[: len(self.shard.vectors)]
        self._maxima = largest_of_blocks(self._rounded, self._passages, block=BLOCK)
        self._bounds = bound(queries, self._rounded, self.shard, norms=norms, rounding=0.0)
        return self._bounds

    def shortlist(
        self, count: int
    ) -> tuple[Float32[Tensor, "Q L"], Int64[Tensor, "Q L"], Float32[Tensor, "Q 1"]]:
        """See `FirstPass`; `count` must be below the number of blocks."""
        assert count < self._maxima.shape[1]
        largest, chosen = self._maxima.topk(count, dim=1)
        products = products_of_blocks(self._rounded, self._passages, chosen=chosen, block=BLOCK)
        values, places = products.topk(count, dim=1)
        columns = chosen.gather(1, places // BLOCK) * BLOCK + places % BLOCK
        # The two kernels sum in different orders, so a block left out may hold more than the last value here.
        return values, columns, torch.maximum(largest[:, -1:], values[:, -1:])

    def reaching(self, row: Int64[Tensor, " 1"], least: Float32[Tensor, "1 1"]) -> Int64[Tensor, "1 N"]:
        """See `FirstPass`."""
        bounds = self._bounds.take(row)
        chosen = (bounds.upper(self._maxima[row]) >= least).nonzero()[None, :, 1]
        products = products_of_blocks(self._rounded[row], self._passages, chosen=chosen, block=BLOCK)
        able = (products > -torch.inf) & (bounds.upper(products) >= least)
        columns = chosen[:, :, None] * BLOCK + torch.arange(BLOCK, device=chosen.device)
        return columns.flatten(1)[able][None]
