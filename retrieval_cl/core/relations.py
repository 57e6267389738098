"""Ragged integer rows in CSR form: relations (row -> several ids), and token ids of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int64


@dataclass(frozen=True, eq=False)
class Ragged:
    """Row i holds `values[offsets[i]:offsets[i + 1]]`; values are int64 ids or int32 tokens."""

    offsets: Int64[np.ndarray, " N1"]
    values: Int[np.ndarray, " V"]

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[int]], *, dtype: type[np.integer] = np.int64) -> Ragged:
        """One list a row, kept as it is (order and repeats)."""
        offsets = np.zeros(len(lists) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in lists], out=offsets[1:])
        values = np.fromiter((value for row in lists for value in row), dtype=dtype, count=int(offsets[-1]))
        return cls(offsets, values)

    @classmethod
    def from_pairs(
        cls, rows: Int64[np.ndarray, " V"], values: Int64[np.ndarray, " V"], num_rows: int
    ) -> Ragged:
        """Groups (row, value) pairs by row; values ascend within a row and repeats are dropped."""
        order = np.lexsort((values, rows))
        rows, values = rows[order], values[order]
        if len(rows):
            keep = np.ones(len(rows), dtype=bool)
            keep[1:] = (rows[1:] != rows[:-1]) | (values[1:] != values[:-1])
            rows, values = rows[keep], values[keep]
        offsets = np.zeros(num_rows + 1, dtype=np.int64)
        np.cumsum(np.bincount(rows, minlength=num_rows), out=offsets[1:])
        return cls(offsets, values.astype(np.int64, copy=False))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Int[np.ndarray, " n"]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def counts(self) -> Int64[np.ndarray, " N"]:
        """Number of values of each row."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> Int64[np.ndarray, " V"]:
        """The row of each value."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.counts)

    def take(self, rows: Int64[np.ndarray, " M"]) -> Ragged:
        """The given rows, in the given order."""
        counts = self.counts[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(counts, out=offsets[1:])
        index = np.arange(offsets[-1], dtype=np.int64) + np.repeat(self.offsets[rows] - offsets[:-1], counts)
        return Ragged(offsets, self.values[index])

    def padded(self, *, width: int | None = None) -> Int64[np.ndarray, "N P"]:
        """A rectangle with -1 as padding; `width` defaults to the longest row (at least 1)."""
        counts = self.counts
        width = max(1, int(counts.max(initial=0))) if width is None else width
        out = np.full((len(self), width), -1, dtype=np.int64)
        out[np.arange(width)[None, :] < counts[:, None]] = self.values
        return out
