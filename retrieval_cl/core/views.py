"""What a source hands to a method each step: views of a batch, and what is known to match."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor


@runtime_checkable
class Inputs(Protocol):
    """Rows that a tower embeds. `core.relations.Ragged` holds token ids of texts, `Pixels` holds images."""

    @property
    def counts(self) -> Int64[np.ndarray, " B"]:
        """What each row costs, in tokens; `Pixels` says what an image counts as."""

    def __len__(self) -> int: ...

    def take(self, rows: Int64[np.ndarray, " R"]) -> Self:
        """The given rows, in the given order."""


@final
@dataclass(frozen=True, eq=False)
class Pixels:
    """Images as an encoder takes them.

    Attributes:
        values: normalised by channel, on the device of the encoder.
        cost: tokens that an image counts as where a batch is cut by tokens; texts beside it count in theirs.
    """

    values: Float[Tensor, "B 3 H W"]
    cost: int = 1

    @property
    def counts(self) -> Int64[np.ndarray, " B"]:
        """The same for each image."""
        return np.full(len(self), self.cost, dtype=np.int64)

    def __len__(self) -> int:
        return self.values.shape[0]

    def take(self, rows: Int64[np.ndarray, " R"]) -> Pixels:
        """The given images, in the given order."""
        return Pixels(self.values[torch.from_numpy(rows).to(self.values.device)], self.cost)


@dataclass(frozen=True, eq=False)
class View:
    """One batch of inputs of one kind.

    Attributes:
        inputs: what the tower of this kind embeds, one row an input.
        ids: item id of each row; -1 where the row is padding.
    """

    inputs: Inputs
    ids: Int64[Tensor, " B"]


@dataclass(frozen=True, eq=False)
class Batch:
    """The views of one step, by kind ("query", "positive", "negative", ...), and the anchors' known ids.

    Attributes:
        views: row i of "positive" belongs to row i of "query"; "negative" holds n rows per anchor,
            anchor-major.
        known: all item ids known to match each anchor, -1 pads.
    """

    views: Mapping[str, View]
    known: Int64[Tensor, "A P"]

    def count_rows(self, kinds: Iterable[str]) -> dict[str, int]:
        """Rows of each kind of view; 0 for one that this batch lacks."""
        return {kind: len(self.views[kind].ids) if kind in self.views else 0 for kind in kinds}
