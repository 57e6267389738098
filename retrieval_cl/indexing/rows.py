"""Rows of vectors in one array or in several, under running row numbers, read a part at a time."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from retrieval_cl.core.errors import InputError

Vectors = Float[np.ndarray, "_ _"] | Float[Tensor, "_ _"]
# One array or map, or the shards of one, in order.
Matrix = Vectors | Sequence[Vectors]

_READ_ROWS = 8192


@final
class Rows:
    """Vectors in shards; nothing is copied before it is read.

    Attributes:
        dim: numbers a row.
        dtype: of what `read` gives: that of the shards, float32 where they differ.
    """

    def __init__(self, vectors: Matrix, *, name: str) -> None:
        """Takes arrays, memory maps or tensors; `name` is for errors. Raises InputError if widths differ."""
        shards = [vectors] if isinstance(vectors, np.ndarray | Tensor) else list(vectors)
        if not shards:
            raise InputError(f"{name}: no shards; expected at least one matrix, which may have no rows")
        wrong = [
            tuple(each.shape) for each in shards if each.ndim != 2 or each.shape[1] != shards[0].shape[1]
        ]
        if wrong:
            raise InputError(
                f"{name} have shape {wrong[0]}; expected matrices of one width (vectors of one model)"
            )
        self._shards = [as_tensor(each) for each in shards if len(each)] or [as_tensor(shards[0])]
        self._ends = list(accumulate(len(each) for each in self._shards))
        self.dim = int(self._shards[0].shape[1])
        kinds = {each.dtype for each in self._shards}
        self.dtype = kinds.pop() if len(kinds) == 1 else torch.float32

    def __len__(self) -> int:
        return self._ends[-1]

    def copied_bytes(self, device: torch.device) -> int:
        """Bytes a number that `read` copies: none where all rows lie in one array that is at hand."""
        return 0 if len(self._shards) == 1 and self._shards[0].device == device else self.dtype.itemsize

    def read(self, start: int, stop: int, *, device: torch.device) -> Float[Tensor, "R D"]:
        """Rows `start` to `stop` on a device: a view where that is possible."""
        stop = min(stop, len(self))
        parts = list(self._parts(start, stop))
        if len(parts) == 1 and parts[0].dtype == self.dtype:
            return parts[0].to(device)
        # Part by part into its place: a concatenation would hold the rows twice.
        out = torch.empty((stop - start, self.dim), dtype=self.dtype, device=device)
        done = 0
        for part in parts:
            out[done : done + len(part)] = part
            done += len(part)
        return out

    def take(self, rows: Int64[np.ndarray, " M"]) -> Float32[Tensor, "M D"]:
        """The float32 values of the given rows, in the given order, on the CPU."""
        out = torch.empty((len(rows), self.dim), dtype=torch.float32)
        owners = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(owners):
            here, shard = owners == number, self._shards[number]
            places = rows[here] - (self._ends[number] - len(shard))
            out[torch.from_numpy(here)] = shard[torch.from_numpy(places)].to(torch.float32).cpu()
        return out

    def pieces(self, *, rows: int = _READ_ROWS) -> Iterator[tuple[int, Float[Tensor, "R D"]]]:
        """All rows in turn, a few at a time, each with the number of its first."""
        for start in range(0, len(self), rows):
            yield start, self.read(start, start + rows, device=self._shards[0].device)

    def _parts(self, start: int, stop: int) -> Iterator[Tensor]:
        number = bisect_right(self._ends, start)
        while start < stop:
            shard, end = self._shards[number], self._ends[number]
            first = end - len(shard)
            yield shard[start - first : min(stop, end) - first]
            start, number = end, number + 1


def as_tensor(vectors: np.ndarray | Tensor) -> Tensor:
    """A tensor over the same memory, for reading."""
    if not isinstance(vectors, np.ndarray):
        return vectors.detach()
    with warnings.catch_warnings():
        # Read-only memory maps are only read here; torch warns that it cannot know.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(vectors)
