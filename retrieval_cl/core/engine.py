"""What computes the bulk of a comparison: sums over the shared columns, and their gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from retrieval_cl.core.layout import Layout, TileSize
from retrieval_cl.core.operands import Limits, Operands
from retrieval_cl.core.reductions import Reduction
from retrieval_cl.core.waves import Waves


@dataclass(frozen=True)
class Demand:
    """What is asked of an engine, known before anything is laid out.

    Attributes:
        reductions: what is summed over negatives.
        dim: of the vectors.
        dtype: of the matrix products.
        sum_dtype: of sums and gradients.
        guarded: whether a guard is at work.
        biased: whether something is added to every logit.
    """

    reductions: tuple[Reduction, ...]
    dim: int
    dtype: torch.dtype
    sum_dtype: torch.dtype
    guarded: bool
    biased: bool


@dataclass(frozen=True, eq=False)
class Task:
    """One comparison, laid out.

    Attributes:
        layout: its tiles and pairs.
        operands: of the products.
        reductions: what is summed over negatives.
        limits: of a guard at work; None without one.
        symmetric: whether columns are summed as well.
    """

    layout: Layout
    operands: Operands
    reductions: tuple[Reduction, ...]
    limits: Limits | None
    symmetric: bool


@dataclass(frozen=True, eq=False)
class Gradients:
    """Where gradients are summed, in the dtype of sums; None where there is no need.

    Attributes:
        scaled: of the scaled anchors.
        vectors: of the vectors of some rows of the bank.
        shift: of what is added to every logit.
    """

    scaled: Float[Tensor, "A D"] | None
    vectors: Float[Tensor, "c D"] | None
    shift: Float[Tensor, "1"] | None


class Engine(ABC):
    """Sums and gradients over the tiles of shared parts; single pairs are not its concern."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @staticmethod
    @abstractmethod
    def tile_size(device: torch.device, num_anchors: int) -> TileSize:
        """The tiles it likes."""

    @abstractmethod
    def sum_up(self) -> tuple[Float[Tensor, "K A"], Float[Tensor, "K C"]]:
        """Every reduction over the shared negatives of each anchor; where symmetric, of each column too.

        Columns of tiles that can have no positive may hold sums over nothing; not `symmetric`: no columns.
        """

    @abstractmethod
    def start_gradients(self, waves: Waves) -> None:
        """Comes before the first `add_gradients`."""

    @abstractmethod
    def add_gradients(self, number: int, *, found: Gradients) -> None:
        """Adds the gradients of tile `number`, which is shared, to `found`."""
