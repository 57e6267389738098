"""What the matrix products take, and the memory in which one tile of logits lives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from retrieval_cl.core.contrast import Guide
from retrieval_cl.core.identity import Pairs
from retrieval_cl.core.layout import Layout, Tile
from retrieval_cl.core.logsums import NATS_PER_BIT
from retrieval_cl.core.units import multiplies


@dataclass(frozen=True, eq=False)
class Operands:
    """What the matrix products take.

    Attributes:
        scaled: anchors times scale, in bits, as the products take them.
        vectors: the vectors of each part, in the dtype they came in.
        shift: the bias in bits, added to every logit; None for none.
        sum_dtype: of logits, sums and gradients.
        rounded: the dtype whose precision all factors have, wider as they may be.
    """

    scaled: Float[Tensor, "A D"]
    vectors: tuple[Tensor, ...]
    shift: Float[Tensor, "1"] | None
    sum_dtype: torch.dtype
    rounded: torch.dtype

    @classmethod
    def build(
        cls,
        anchors: Float[Tensor, "A D"],
        scale: Float[Tensor, "1"],
        bias: Float[Tensor, "1"] | None,
        vectors: tuple[Tensor, ...],
        *,
        compute_dtype: torch.dtype | None,
    ) -> Operands:
        """Sums are float64 for float64 anchors, else float32; products too, unless `compute_dtype` says.

        On a processor without units for that dtype, factors are rounded to it and multiplied in the dtype of
        sums: that is faster than what imitates such units, and loses no digit more.
        """
        sum_dtype = sum_dtype_of(anchors)
        rounded = compute_dtype or sum_dtype
        imitated = anchors.device.type == "cpu" and not multiplies(rounded, anchors.device)
        scaled = (anchors.to(sum_dtype) * in_bits(scale, sum_dtype)).to(rounded)
        shift = None if bias is None else in_bits(bias, sum_dtype)
        return cls(scaled.to(sum_dtype if imitated else rounded), vectors, shift, sum_dtype, rounded)

    def tile_vectors(self, tile: Tile) -> Float[Tensor, "c D"]:
        """The vectors of a tile, as the products take them."""
        return self._factors(self.vectors[tile.part][tile.start : tile.stop])

    def pair_vectors(self, tile: Tile, columns: Int64[Tensor, " n"]) -> Float[Tensor, "n D"]:
        """The vectors of some columns of a tile, as the products take them."""
        rows = columns - (tile.first - tile.start)
        return self._factors(self.vectors[tile.part][rows])

    def shifted(self, logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Logits with the bias added, where there is one."""
        return logits if self.shift is None else logits + self.shift

    def _factors(self, vectors: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        return vectors.to(self.rounded).to(self.scaled.dtype)


@dataclass(frozen=True, eq=False)
class Limits:
    """A guard at work: logits without bias, or the guide's scores, above an anchor's limit are no negatives'.

    Attributes:
        values: the limit of each anchor.
        guide: whose scores are meant; None: the logits themselves.
    """

    values: Float[Tensor, " A"]
    guide: Guide | None

    def bars(self, tile: Tile, pairs: Pairs, logits: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Which of some pairs with a tile's columns score above the limit."""
        if self.guide is not None:
            rows = pairs.columns - (tile.first - tile.start)
            logits = guide_scores(self.guide, tile.part, anchors=pairs.anchors, rows=rows).to(logits.dtype)
        return logits > self.values[pairs.anchors]


@dataclass(frozen=True, eq=False)
class Room:
    """Memory for one tile of logits, and for others of its shape to compute in.

    Attributes:
        logits: of the tile, in the dtype of sums.
        scratch: free to use between two calls of `tile_logits`.
        spare: likewise; empty unless asked for.
        product: in the dtype of the products; the logits themselves where that is the same.
        above: which logits a guard ignores; empty without one.
    """

    layout: Layout
    operands: Operands
    limits: Limits | None
    logits: Float[Tensor, " R"]
    scratch: Float[Tensor, " R"]
    spare: Float[Tensor, " _"]
    product: Float[Tensor, " R"]
    above: Bool[Tensor, " _"]

    @classmethod
    def build(cls, layout: Layout, operands: Operands, limits: Limits | None, *, spare: bool = False) -> Room:
        """Room for the largest tile."""
        rows = max((high - low for low, high in layout.chunks), default=0)
        size = rows * max((tile.stop - tile.start for tile in layout.tiles if tile.shared), default=0)
        logits = operands.scaled.new_empty(size, dtype=operands.sum_dtype)
        same = operands.scaled.dtype == operands.sum_dtype
        return cls(
            layout,
            operands,
            limits,
            logits,
            scratch=torch.empty_like(logits),
            spare=logits.new_empty(size if spare else 0),
            product=logits if same else operands.scaled.new_empty(size),
            above=logits.new_empty(0 if limits is None else size, dtype=torch.bool),
        )

    def tile_logits(
        self, number: int, chunk: int, vectors: Float[Tensor, "c D"]
    ) -> tuple[Float[Tensor, "r c"], Float[Tensor, "r c"]]:
        """Logits of a tile, -inf where one is no negative's, and scratch; both until the next call."""
        low, high = self.layout.chunks[chunk]
        shape = (high - low, len(vectors))
        flat = self.logits[: shape[0] * shape[1]]
        logits, scratch = flat.view(shape), self.scratch[: len(flat)].view(shape)
        self._multiply(self.operands.scaled[low:high], vectors.T, out=logits)
        matches, padding = self.layout.matches_of(number, chunk), self.layout.padding_of(number)
        if len(matches):
            flat.index_fill_(0, matches, -torch.inf)
        if len(padding):
            logits.index_fill_(1, padding, -torch.inf)
        if self.limits is not None:
            self._ignore(
                logits, scratch, limits=self.limits, tile=self.layout.tiles[number], rows=(low, high)
            )
        if self.operands.shift is not None:
            logits.add_(self.operands.shift)
        return logits, scratch

    def spare_like(self, logits: Float[Tensor, "r c"]) -> Float[Tensor, "r c"]:
        """The spare memory in the shape of a tile."""
        return self.spare[: logits.numel()].view(logits.shape)

    def product_like(self, logits: Float[Tensor, "r c"]) -> Float[Tensor, "r c"]:
        """Memory in the dtype of the products and the shape of a tile; `logits` itself where dtypes agree."""
        return self.product[: logits.numel()].view(logits.shape)

    def factor(self, slope: Float[Tensor, "r c"]) -> Float[Tensor, "r c"]:
        """The slopes of a tile in the dtype of the products."""
        if self.product.dtype == slope.dtype:
            return slope
        return self.product_like(slope).copy_(slope)

    def _multiply(
        self, left: Float[Tensor, "r D"], right: Float[Tensor, "D c"], *, out: Float[Tensor, "r c"]
    ) -> None:
        if left.dtype == out.dtype:
            torch.mm(left, right, out=out)
        elif out.is_cuda:
            torch.ops.aten.mm.dtype_out(left, right, out.dtype, out=out)
        else:
            # The CPU's library rounds products to the dtype of the factors.
            out.copy_(torch.mm(left, right, out=self.product_like(out)))

    def _ignore(
        self,
        logits: Float[Tensor, "r c"],
        scratch: Float[Tensor, "r c"],
        *,
        limits: Limits,
        tile: Tile,
        rows: tuple[int, int],
    ) -> None:
        scores = logits
        if limits.guide is not None:
            left = limits.guide.anchors[rows[0] : rows[1]].to(scratch.dtype)
            right = limits.guide.bank[tile.part][tile.start : tile.stop].to(scratch.dtype)
            scores = torch.mm(left, right.T, out=scratch)
        above = self.above[: logits.numel()].view(logits.shape)
        torch.gt(scores, limits.values[rows[0] : rows[1], None], out=above)
        logits.masked_fill_(above, -torch.inf)


def sum_dtype_of(anchors: Float[Tensor, "A D"]) -> torch.dtype:
    """The dtype of sums over these anchors' logits."""
    return torch.float64 if anchors.dtype == torch.float64 else torch.float32


def accumulate(total: Float[Tensor, "m n"], left: Float[Tensor, "m k"], right: Float[Tensor, "k n"]) -> None:
    """Adds a product to a sum that may have a wider dtype."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    elif total.is_cuda:
        torch.ops.aten.addmm.dtype_out(total, left, right, total.dtype, out=total)
    else:
        total.add_(left @ right)


def guide_scores(
    guide: Guide, part: int, *, anchors: Int64[Tensor, " n"], rows: Int64[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """The guide's score of some anchors with some rows of a part, pair by pair."""
    return (guide.anchors[anchors].float() * guide.bank[part][rows].float()).sum(dim=1)


def in_bits(nats: Float[Tensor, "1"], dtype: torch.dtype) -> Float[Tensor, "1"]:
    """A scale or a bias in units of log 2."""
    return nats.to(dtype) / NATS_PER_BIT
