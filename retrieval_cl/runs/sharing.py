"""Who encodes, searches and scores: this process alone, or all ranks by shares.

It is chosen where a run is put together, never found out further in: what all ranks do together hangs where
one of them alone does it, as when rank 0 mines beside training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import final

import numpy as np
import torch
from jaxtyping import Float32, Int64

from retrieval_cl.core.ranks import num_ranks
from retrieval_cl.core.shares import Make, make_rows, make_rows_over_ranks
from retrieval_cl.core.together import together
from retrieval_cl.indexing.exact import DEFAULT_MEMORY
from retrieval_cl.mining.candidates import Search
from retrieval_cl.mining.scorers import Reranker
from retrieval_cl.mining.searchers import exact_search, exact_search_over_ranks, over_ranks


class Sharing(ABC):
    """How the work is shared; the results are the same to the bit."""

    @abstractmethod
    def rows(self, order: Int64[np.ndarray, " N"], dim: int, *, make: Make) -> Float32[np.ndarray, "N D"]:
        """Rows that `make` gives, a window of `order` a time, see `core.shares`."""

    @abstractmethod
    def exact(
        self, passages: Float32[np.ndarray, "M D"], *, device: str, memory_bytes: int = DEFAULT_MEMORY
    ) -> Search:
        """Exact search among the passages."""

    @abstractmethod
    def search(self, search: Search) -> Search:
        """Any other search, of whose index every process has one."""

    @abstractmethod
    def together(self) -> AbstractContextManager[None]:
        """A block that all leave, or in which all raise, see `core.together`."""

    def reranker(self, reranker: Reranker) -> Reranker:
        """The same scores, window by window of pairs."""

        def score(
            queries: Int64[np.ndarray, " P"], passages: Int64[np.ndarray, " P"]
        ) -> Float32[np.ndarray, " P"]:
            def make(pairs: Int64[np.ndarray, " R"]) -> Float32[np.ndarray, "R 1"]:
                given = np.asarray(reranker(queries[pairs], passages[pairs]), dtype=np.float32)
                return given[:, None]

            return self.rows(np.arange(len(queries), dtype=np.int64), 1, make=make)[:, 0]

        return score


@final
class Alone(Sharing):
    """This process does all of it, whether or not there are other ranks."""

    def rows(self, order: Int64[np.ndarray, " N"], dim: int, *, make: Make) -> Float32[np.ndarray, "N D"]:
        """See `Sharing`."""
        return make_rows(order, dim, make=make)

    def exact(
        self, passages: Float32[np.ndarray, "M D"], *, device: str, memory_bytes: int = DEFAULT_MEMORY
    ) -> Search:
        """See `Sharing`."""
        return exact_search(passages, device=device, memory_bytes=memory_bytes)

    def search(self, search: Search) -> Search:
        """See `Sharing`."""
        return search

    def together(self) -> AbstractContextManager[None]:
        """See `Sharing`."""
        return nullcontext()


@final
class AllRanks(Sharing):
    """Every rank does its share; every rank must ask for the same, in the same order."""

    def __init__(self, link: torch.device) -> None:
        """`link`: where ranks talk to each other: the GPU under nccl."""
        self._link = link

    def rows(self, order: Int64[np.ndarray, " N"], dim: int, *, make: Make) -> Float32[np.ndarray, "N D"]:
        """See `Sharing`."""
        return make_rows_over_ranks(order, dim, make=make, link=self._link)

    def exact(
        self, passages: Float32[np.ndarray, "M D"], *, device: str, memory_bytes: int = DEFAULT_MEMORY
    ) -> Search:
        """See `Sharing`."""
        return exact_search_over_ranks(passages, device=device, memory_bytes=memory_bytes, link=self._link)

    def search(self, search: Search) -> Search:
        """See `Sharing`."""
        return over_ranks(search, link=self._link)

    def together(self) -> AbstractContextManager[None]:
        """See `Sharing`."""
        return together(self._link)


def over_all_ranks(link: torch.device) -> Sharing:
    """What a run shares its work by, that every rank takes part in."""
    return Alone() if num_ranks() == 1 else AllRanks(link)
