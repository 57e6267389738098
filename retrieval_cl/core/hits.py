"""The result of a search: scores and row numbers, best first, -1 where there is none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64


@dataclass(frozen=True, eq=False)
class Hits:
    """Ordered by score descending, ties by row ascending.

    Attributes:
        scores: float32; -inf where `rows` is -1.
        rows: row number of each hit in the searched corpus; -1 is a value (no hit), never an index.
    """

    scores: Float32[np.ndarray, "Q K"]
    rows: Int64[np.ndarray, "Q K"]

    def __post_init__(self) -> None:
        assert self.scores.shape == self.rows.shape, (self.scores.shape, self.rows.shape)

    def top(self, k: int) -> Hits:
        """The first k columns."""
        return Hits(self.scores[:, :k], self.rows[:, :k])
