"""Recall@k of an approximate search against exact search, over real queries, with its interval."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, final

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from retrieval_cl.core.hits import Hits
from retrieval_cl.indexing import exact

MOST_QUERIES = 2000
# Two-sided 95 % of the normal distribution.
_Z = 1.959963984540054


@final
@dataclass(frozen=True)
class Recall:
    """A measured recall.

    Attributes:
        k: hits a query.
        num_queries: measured.
        queries: whether they were given, or rows of the corpus (which never find themselves).
        mean: share of exact hits that were found, 0 to 1.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    k: int
    num_queries: int
    queries: Literal["given", "corpus"]
    mean: float
    low: float
    high: float

    def text(self) -> str:
        """One line for the screen."""
        which = "queries" if self.queries == "given" else "rows of the corpus as queries"
        return (
            f"recall@{self.k} {self.mean:.4f} [{self.low:.4f}, {self.high:.4f}] "
            f"against exact search, {self.num_queries:,} {which}"
        )

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


@final
@dataclass(frozen=True, eq=False)
class Truth:
    """What exact search finds for the queries of a measurement.

    Attributes:
        queries: vectors.
        own: row of the corpus that a query is and that counts for nothing; -1: none.
        floors: score of each query's k-th exact hit; -inf where there are none.
        counts: exact hits of each query, at most k.
        k: hits a query.
    """

    queries: Float32[np.ndarray, "Q D"]
    own: Int64[np.ndarray, " Q"]
    floors: Float32[np.ndarray, " Q"]
    counts: Int64[np.ndarray, " Q"]
    k: int

    @classmethod
    def find(
        cls,
        vectors: Float32[np.ndarray, "N D"],
        *,
        queries: Float32[np.ndarray, "Q D"] | None,
        k: int,
        seed: int = 0,
        memory_bytes: int = exact.DEFAULT_MEMORY,
    ) -> Self:
        """Searches exactly.

        Args:
            vectors: the corpus; may be a memory map.
            queries: real queries, a seeded sample of 2,000 where there are more; None (or none): rows of the
                corpus stand in for them.
            k: hits a query; no more than there are rows count.
            seed: of the samples.
            memory_bytes: of exact search.
        """
        rng = np.random.default_rng(seed)
        if queries is None or not len(queries):
            own = np.sort(rng.choice(len(vectors), min(MOST_QUERIES, len(vectors)), replace=False))
            asked = np.ascontiguousarray(vectors[own], dtype=np.float32)
        else:
            chosen = np.sort(rng.choice(len(queries), min(MOST_QUERIES, len(queries)), replace=False))
            own, asked = np.full(len(chosen), -1), np.ascontiguousarray(queries[chosen], dtype=np.float32)
        found = exact.search(asked, vectors, k=min(k + 1, len(vectors)), memory_bytes=memory_bytes)
        hits = without_own(found, own, k=k)
        counts = (hits.rows >= 0).sum(axis=1)
        last = np.take_along_axis(hits.scores, np.maximum(counts - 1, 0)[:, None], axis=1)[:, 0]
        return cls(asked, own.astype(np.int64), last, counts.astype(np.int64), k)

    def compare(self, hits: Hits) -> Recall:
        """The recall of hits, at least k + 1 a query, with the scores of the exact rule.

        A hit counts where it scores no less than the k-th exact one: of equal vectors any will do.
        """
        kept = without_own(hits, self.own, k=self.k)
        right = ((kept.rows >= 0) & (kept.scores >= self.floors[:, None])).sum(axis=1)
        # A corpus of one row, its own query, has nothing to find.
        shares: Float64[np.ndarray, " Q"] = np.where(self.counts > 0, right / np.maximum(self.counts, 1), 1.0)
        mean = float(np.minimum(shares, 1.0).mean())
        low, high = mean_interval(mean, count=len(shares))
        given = bool(len(self.own)) and int(self.own[0]) < 0
        return Recall(self.k, len(shares), "given" if given else "corpus", mean, low, high)


def without_own(hits: Hits, own: Int64[np.ndarray, " Q"], *, k: int) -> Hits:
    """The first k hits that are not the query's own row; with own -1 the first k."""
    mine: Bool[np.ndarray, "Q L"] = (hits.rows == own[:, None]) & (own[:, None] >= 0)
    order = np.argsort(mine, axis=1, kind="stable")
    rows = np.take_along_axis(np.where(mine, -1, hits.rows), order, axis=1)
    scores = np.take_along_axis(np.where(mine, np.float32(-np.inf), hits.scores), order, axis=1)
    return Hits(scores[:, :k], rows[:, :k])


def mean_interval(mean: float, *, count: int) -> tuple[float, float]:
    """95 % interval of a mean of values between 0 and 1: the score interval (Wilson 1927).

    It is made for values that are 0 or 1. Others of the same mean vary less, so that it is too wide for
    them, never too narrow; and it keeps a width where all queries found everything.
    """
    share = _Z**2 / count
    middle = (mean + share / 2) / (1 + share)
    half = _Z / (1 + share) * math.sqrt(mean * (1 - mean) / count + share / (4 * count))
    # The ends belong to the interval where the mean lies there; rounding must not put them beside it.
    return max(0.0, min(mean, middle - half)), min(1.0, max(mean, middle + half))
