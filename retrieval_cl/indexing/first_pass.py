"""The first pass over one shard: names a shortlist, and all who may be hits of a query that is in doubt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from retrieval_cl.core import kernels
from retrieval_cl.indexing.shortlist import BFLOAT16_ROUNDING, BLOCK, Bounds, Shard, bound, select


class FirstPass(ABC):
    """Compares one tile of queries after the other with a shard; asked about the last tile alone."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard

    @abstractmethod
    def compare(self, queries: Float32[Tensor, "Q D"], *, norms: Float32[Tensor, " Q"]) -> Bounds:
        """Compares a tile with the shard; says how far scores can lie from products."""

    @abstractmethod
    def shortlist(
        self, count: int
    ) -> tuple[Float32[Tensor, "Q L"], Int64[Tensor, "Q L"], Float32[Tensor, "Q 1"]]:
        """The `count` largest products of a query, descending; their columns; the most any other can be."""

    @abstractmethod
    def reaching(self, row: Int64[Tensor, " 1"], least: Float32[Tensor, "1 1"]) -> Int64[Tensor, "1 N"]:
        """Columns of all passages whose score with one query of the tile can be `least` or more."""


@final
class ProductPass(FirstPass):
    """All products of a tile in memory: on any device, in any dtype."""

    def __init__(self, shard: Shard, *, tile_rows: int) -> None:
        super().__init__(shard)
        # Fresh memory for each tile costs a third of a product in bfloat16.
        on_host = shard.compared.device.type != "cuda"
        self._room = shard.compared.new_empty((tile_rows if on_host else 0, len(shard.compared)))

    def compare(self, queries: Float32[Tensor, "Q D"], *, norms: Float32[Tensor, " Q"]) -> Bounds:
        """See `FirstPass`. Padding columns are -inf."""
        rounded = queries.to(self.shard.compared.dtype)
        self._products = self._multiply(rounded)
        self._products[:, len(self.shard.vectors) :] = -torch.inf
        lost = 0.0 if self._products.dtype == torch.float32 else BFLOAT16_ROUNDING
        self._bounds = bound(queries, rounded, self.shard, norms=norms, rounding=lost)
        return self._bounds

    def shortlist(
        self, count: int
    ) -> tuple[Float32[Tensor, "Q L"], Int64[Tensor, "Q L"], Float32[Tensor, "Q 1"]]:
        """See `FirstPass`."""
        return select(self._products, count=count)

    def reaching(self, row: Int64[Tensor, " 1"], least: Float32[Tensor, "1 1"]) -> Int64[Tensor, "1 N"]:
        """See `FirstPass`."""
        values = self._products[row].float()
        able = (values > -torch.inf) & (self._bounds.take(row).upper(values) >= least)
        return able.nonzero()[None, :, 1]

    def _multiply(self, rounded: Float[Tensor, "Q D"]) -> Float[Tensor, "Q S"]:
        passages = self.shard.compared.T
        if rounded.device.type != "cuda":
            return torch.mm(rounded, passages, out=self._room[: len(rounded)])
        # Products stored as bfloat16 may be summed as bfloat16 there as well.
        if rounded.dtype == torch.float32:
            return rounded @ passages
        return torch.mm(rounded, passages, out_dtype=torch.float32)


def choose(shard: Shard, *, tile_rows: int, count: int) -> FirstPass:
    """The first pass that suits a shard, by a rule and not by a timing.

    Args:
        shard: the passages.
        tile_rows: queries of a tile at most.
        count: of the shortlist.
    """
    skips_blocks = 2 * count < len(shard.compared) // BLOCK
    if skips_blocks and _fuses(shard.compared.dtype, shard.compared.device):
        from retrieval_cl.indexing.fused_pass import FusedPass

        return FusedPass(shard)
    return ProductPass(shard, tile_rows=tile_rows)


def product_bytes(dtype: torch.dtype, device: torch.device) -> int:
    """What is kept of a product until the shortlist is known; 0 where kernels keep the blocks' largest."""
    if device.type != "cuda":
        return dtype.itemsize
    return 0 if _fuses(dtype, device) else torch.float32.itemsize


def _fuses(dtype: torch.dtype, device: torch.device) -> bool:
    # Tensor cores take no whole float32.
    half = dtype in (torch.bfloat16, torch.float16)
    return half and device.type == "cuda" and kernels.available(device)
