"""What is summed over negatives: logits in bits come in tiles, -inf where one is no negative's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from retrieval_cl.core.logsums import (
    NATS_PER_BIT,
    RunningSum,
    add_logs,
    finite,
    grouped_log_sum,
    safe_logsumexp,
)

# Beyond it log2(1 + 2 ** t) is t to the last bit of float64.
LINEAR_ABOVE = 40.0


@runtime_checkable
class Accumulator(Protocol):
    """Sums of rows that arrive in blocks of columns."""

    def add(self, block: Float[Tensor, "r c"], rows: slice, *, scratch: Float[Tensor, "r c"]) -> None:
        """Adds a block to the given rows. `scratch` is overwritten; it may be `block` itself."""

    def value(self) -> Float[Tensor, " N"]:
        """The sum of each row."""


class Reduction(ABC):
    """A sum over negatives: how tiles of it are joined, and its slope.

    Attributes:
        unit: of a value, in nats.
        differentiable: False where its values are taken for constants.
    """

    unit: ClassVar[float] = NATS_PER_BIT
    differentiable: ClassVar[bool] = True

    @property
    @abstractmethod
    def shift_slope(self) -> float | None:
        """What a sum gains where all its logits gain 1; None where that depends on the logits."""

    @abstractmethod
    def start(self, num_rows: int, *, like: Tensor) -> Accumulator:
        """Nothing summed yet; dtype and device of `like`."""

    @abstractmethod
    def grouped(
        self, logits: Float[Tensor, " H"], groups: Int64[Tensor, " H"], *, num_groups: int
    ) -> Float[Tensor, " N"]:
        """The sum over the logits of each group."""

    @abstractmethod
    def join(self, a: Float[Tensor, " N"], b: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """The sum over all that `a` and `b` were summed over."""

    @abstractmethod
    def over_ranks(self, values: Float[Tensor, "W N"]) -> Float[Tensor, " N"]:
        """The sum over all that the ranks summed over, in nats, with gradient."""

    @abstractmethod
    def slope(
        self, logits: Float[Tensor, "*shape"], values: Float[Tensor, "*sums"], *, out: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """Writes the derivative of each sum with respect to each of its logits; 0 where that is -inf.

        `values`, the sums, broadcast against the logits; `out` may be `logits` itself.
        """


@final
@dataclass(frozen=True)
class LogSum(Reduction):
    """log2 of the sum of 2 ** (exponent * t); -inf over nothing."""

    exponent: float = 1.0

    @property
    def shift_slope(self) -> float:
        """See `Reduction`."""
        return self.exponent

    def start(self, num_rows: int, *, like: Tensor) -> RunningSum:
        """See `Reduction`."""
        return RunningSum.start(num_rows, like=like, exponent=self.exponent)

    def grouped(
        self, logits: Float[Tensor, " H"], groups: Int64[Tensor, " H"], *, num_groups: int
    ) -> Float[Tensor, " N"]:
        """See `Reduction`."""
        return grouped_log_sum(logits * self.exponent, groups, num_groups=num_groups)

    def join(self, a: Float[Tensor, " N"], b: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """See `Reduction`."""
        return add_logs(a, b)

    def over_ranks(self, values: Float[Tensor, "W N"]) -> Float[Tensor, " N"]:
        """See `Reduction`."""
        return safe_logsumexp(values)

    def slope(
        self, logits: Float[Tensor, "*shape"], values: Float[Tensor, "*sums"], *, out: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """See `Reduction`."""
        torch.sub(logits, finite(values) / self.exponent, out=out)
        if self.exponent == 1.0:
            return out.exp2_()
        # No logit exceeds its sum, but the sum's rounding, where it is huge, may say so by far.
        return out.clamp_max_(0.0).mul_(self.exponent).exp2_().mul_(self.exponent)


class PlainSum(Reduction, ABC):
    """A sum of one term a logit; a constant unless `slope` is overridden."""

    @property
    def shift_slope(self) -> float | None:
        """See `Reduction`."""
        return None if self.differentiable else 0.0

    @abstractmethod
    def terms(self, logits: Float[Tensor, "*shape"], *, out: Float[Tensor, "*shape"]) -> None:
        """Writes the term of each logit; 0 where that is -inf. `out` may be `logits` itself."""

    def start(self, num_rows: int, *, like: Tensor) -> Accumulator:
        """See `Reduction`."""
        return _RunningTotal(self, like.new_zeros(num_rows))

    def grouped(
        self, logits: Float[Tensor, " H"], groups: Int64[Tensor, " H"], *, num_groups: int
    ) -> Float[Tensor, " N"]:
        """See `Reduction`."""
        terms = torch.empty_like(logits)
        self.terms(logits, out=terms)
        return logits.new_zeros(num_groups).index_add_(0, groups, terms)

    def join(self, a: Float[Tensor, " N"], b: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """See `Reduction`."""
        return a + b

    def over_ranks(self, values: Float[Tensor, "W N"]) -> Float[Tensor, " N"]:
        """See `Reduction`."""
        return values.sum(dim=0)

    def slope(
        self, logits: Float[Tensor, "*shape"], values: Float[Tensor, "*sums"], *, out: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """See `Reduction`."""
        return out.zero_()


@final
@dataclass(frozen=True)
class SoftplusSum(PlainSum):
    """Sum of log2(1 + 2 ** t): what the sigmoid loss takes of negatives."""

    def terms(self, logits: Float[Tensor, "*shape"], *, out: Float[Tensor, "*shape"]) -> None:
        """See `PlainSum`."""
        torch.ops.aten.softplus.out(logits, NATS_PER_BIT, LINEAR_ABOVE, out=out)

    def slope(
        self, logits: Float[Tensor, "*shape"], values: Float[Tensor, "*sums"], *, out: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """See `Reduction`."""
        return torch.mul(logits, NATS_PER_BIT, out=out).sigmoid_()


@final
@dataclass(frozen=True)
class Count(PlainSum):
    """Number of negatives."""

    unit: ClassVar[float] = 1.0
    differentiable: ClassVar[bool] = False

    def terms(self, logits: Float[Tensor, "*shape"], *, out: Float[Tensor, "*shape"]) -> None:
        """See `PlainSum`."""
        torch.gt(logits, -torch.inf, out=out)


@final
@dataclass(frozen=True)
class Total(PlainSum):
    """Sum of the logits themselves: for statistics."""

    differentiable: ClassVar[bool] = False

    def terms(self, logits: Float[Tensor, "*shape"], *, out: Float[Tensor, "*shape"]) -> None:
        """See `PlainSum`."""
        torch.nan_to_num(logits, neginf=0.0, out=out)


@final
class _RunningTotal:
    def __init__(self, plain: PlainSum, total: Float[Tensor, " N"]) -> None:
        self._plain, self._total = plain, total

    def add(self, block: Float[Tensor, "r c"], rows: slice, *, scratch: Float[Tensor, "r c"]) -> None:
        self._plain.terms(block, out=scratch)
        self._total[rows] += scratch.sum(dim=1)

    def value(self) -> Float[Tensor, " N"]:
        return self._total
