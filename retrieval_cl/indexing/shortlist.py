"""The first pass of exact search: cheap products, the largest by block maxima, and error bounds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from retrieval_cl.core.errors import InputError

# Columns of one block of the selection. Block j holds columns j, j + m, j + 2m, ... so that maxima vectorise.
BLOCK = 16
# A product whose result is rounded to bfloat16 (8 significant bits) is off by at most this share of itself.
BFLOAT16_ROUNDING = 2.0**-8
_CONVERTED_BYTES = {"cpu": 2**21, "cuda": 2**26}
_LARGEST_NORM = 1e18
# Processors may take values below 1e-38 as zero.
_FLUSHED = 1e-30


@dataclass(frozen=True, eq=False)
class Shard:
    """A run of passages made ready for search.

    Attributes:
        vectors: as they are kept, of which the float32 values give the final scores.
        compared: the same less their mean, in the first pass's dtype, zero rows up to a multiple of BLOCK.
            The mean moves all scores of a query alike; without it rows and rounding errors are smaller.
        mean: the mean that was taken off.
        first_row: corpus row of the first.
        longest: largest norm of a vector.
        longest_compared: largest norm after the mean is taken off.
        largest_residual: largest norm of what rounding to the first pass's dtype took off a row.
    """

    vectors: Float[Tensor, "R D"]
    compared: Float[Tensor, "S D"]
    mean: Float32[Tensor, " D"]
    first_row: int
    longest: float
    longest_compared: float
    largest_residual: float


@dataclass(frozen=True, eq=False)
class Bounds:
    """How far a pair's score can lie from its first-pass product.

    Attributes:
        shift: what the mean adds to all scores of a query.
        error: error of inputs and sums, in the unit of a score.
        rounding: share of the product lost where it was stored.
    """

    shift: Float32[Tensor, "Q 1"]
    error: Float32[Tensor, "Q 1"]
    rounding: float

    def upper(self, products: Float32[Tensor, "Q N"]) -> Float32[Tensor, "Q N"]:
        """No score is above this. -inf stays -inf."""
        return products * (1 + self.rounding * products.sign()) + (self.shift + self.error)

    def lower(self, products: Float32[Tensor, "Q N"]) -> Float32[Tensor, "Q N"]:
        """No score is below this. -inf stays -inf."""
        return products * (1 - self.rounding * products.sign()) + (self.shift - self.error)

    def take(self, rows: Int64[Tensor, " M"]) -> Bounds:
        """The bounds of the given queries."""
        return Bounds(self.shift[rows], self.error[rows], self.rounding)


def make_shard(
    passages: Float[Tensor, "R D"], *, first_row: int, first_pass: torch.dtype, device: torch.device
) -> Shard:
    """Copies passages to the device where they are not there yet, and rounds them for the first pass.

    Raises:
        InputError: a row holds NaN or infinity.
    """
    vectors = passages.to(device)
    count, dim = vectors.shape
    step = max(1, _CONVERTED_BYTES.get(device.type, _CONVERTED_BYTES["cpu"]) // (4 * max(1, dim)))
    starts = range(0, count, step)
    longest = vectors.new_zeros(3, dtype=torch.float32)
    total = vectors.new_zeros(dim, dtype=torch.float32)
    for start in starts:
        part = vectors[start : start + step].to(torch.float32)
        norms = checked_norms(part, name="passages", first_row=first_row + start)
        longest[0] = torch.maximum(longest[0], norms.max())
        total += part.sum(dim=0)
    mean = total / max(1, count)
    compared = vectors.new_zeros((-(-count // BLOCK) * BLOCK, dim), dtype=first_pass)
    for start in starts:
        centred = vectors[start : start + step].to(torch.float32) - mean
        rounded = compared[start : start + len(centred)].copy_(centred)
        longest[1] = torch.maximum(longest[1], _norms(centred).max())
        longest[2] = torch.maximum(longest[2], _norms(centred.sub_(rounded)).max())
    return Shard(vectors, compared, mean, first_row, *longest.tolist())


def checked_norms(vectors: Float32[Tensor, "N D"], *, name: str, first_row: int = 0) -> Float32[Tensor, " N"]:
    """Norms of the rows. Raises InputError naming the first row that is not finite or far too large."""
    norms = _norms(vectors)
    bad = (~(norms < _LARGEST_NORM)).nonzero()
    if len(bad):
        raise InputError(
            f"{name}: row {first_row + int(bad[0])} holds NaN, infinity "
            f"or a norm from {_LARGEST_NORM:g} on; every vector must be finite"
        )
    return norms


def bound(
    queries: Float32[Tensor, "Q D"],
    rounded: Float[Tensor, "Q D"],
    shard: Shard,
    *,
    norms: Float32[Tensor, " Q"],
    rounding: float,
) -> Bounds:
    """Bounds on products of rounded queries with a shard that are summed in float32, in any order.

    |score - product| <= |q - q'| |c| + |q'| |c - c'| by Cauchy and Schwarz, where ' is rounding and c the
    passage less the mean, plus what float32 sums lose (tensor cores truncate: four times the IEEE bound).

    Args:
        queries: a tile of them.
        rounded: the same in the first pass's dtype.
        shard: the passages.
        norms: of the queries.
        rounding: share of a product that is lost where it is stored.
    """
    residuals = _norms(queries - rounded)
    sums = (queries.shape[1] + 8) * 2.0**-22 * (shard.longest + float(_norms(shard.mean[None])))
    error = residuals * shard.longest_compared + norms * (1.01 * shard.largest_residual + sums)
    if shard.compared.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        error += norms * 2.02 * BFLOAT16_ROUNDING * shard.longest_compared
    shift = (queries * shard.mean).sum(dim=1)
    return Bounds(shift[:, None], 1.01 * error[:, None] + _FLUSHED, rounding)


def select(
    products: Float[Tensor, "Q S"], *, count: int
) -> tuple[Float32[Tensor, "Q L"], Int64[Tensor, "Q L"], Float32[Tensor, "Q 1"]]:
    """The `count` largest products of each row, descending, their columns, and the most any other can be.

    The largest elements of a row lie in the blocks of largest maxima, so only those are looked into.
    """
    num_rows, width = products.shape
    blocks = width // BLOCK
    if 2 * count >= blocks:
        values, columns = products.float().topk(min(count, width), dim=1)
        return values, columns, _rest(values, complete=count >= width)
    maxima = _maxima_of_blocks(products.view(num_rows, BLOCK, blocks))
    chosen = maxima.topk(count, dim=1, sorted=False).indices
    columns = (chosen[:, None, :] + torch.arange(BLOCK, device=chosen.device)[:, None] * blocks).flatten(1)
    values, places = products.gather(1, columns).float().topk(count, dim=1)
    return values, columns.gather(1, places), _rest(values, complete=False)


def _rest(values: Float32[Tensor, "Q L"], *, complete: bool) -> Float32[Tensor, "Q 1"]:
    return torch.full_like(values[:, :1], -torch.inf) if complete else values[:, -1:]


def _maxima_of_blocks(products: Float[Tensor, "Q BLOCK B"]) -> Float[Tensor, "Q B"]:
    if products.dtype != torch.bfloat16:
        return products.amax(dim=1)
    # Along an axis torch takes bfloat16 maxima one by one: four times the time of these.
    largest = products[:, 0].clone()
    for place in range(1, products.shape[1]):
        torch.maximum(largest, products[:, place], out=largest)
    return largest


def _norms(vectors: Float32[Tensor, "N D"]) -> Float32[Tensor, " N"]:
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=1)
    return norms
