"""Fusion of several searches by rank alone: their scores need no common scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits


def reciprocal_rank_fusion(runs: Sequence[Hits], *, k: int, constant: int = 60) -> Hits:
    """Scores a passage by the sum over runs of 1 / (constant + rank), rank from 1 (Cormack et al. 2009).

    Args:
        runs: hits of the same queries in the same corpus; widths may differ, a row stands once a query.
        k: hits a query.
        constant: how little the first ranks stand out; 60 in the paper.

    Returns:
        Ordered by score descending, ties by row ascending; -1 and -inf fill up.
    """
    if k < 1:
        raise InputError(f"k is {k}; expected at least 1 hit a query")
    num_queries = len(runs[0].rows)
    assert all(len(run.rows) == num_queries for run in runs), [len(run.rows) for run in runs]
    rows = np.concatenate([run.rows for run in runs], axis=1)
    shares = np.concatenate([1.0 / (constant + np.arange(1, run.rows.shape[1] + 1)) for run in runs])
    queries, places = np.nonzero(rows >= 0)
    found = rows[queries, places]
    # Stable, so that the shares of a passage are added in the order of the runs.
    order = np.lexsort((found, queries))
    queries, found, terms = queries[order], found[order], shares[places[order]]
    first = np.flatnonzero(np.diff(queries, prepend=-1) | np.diff(found, prepend=-1))
    queries, found = queries[first], found[first]
    scores = (np.add.reduceat(terms, first) if len(first) else terms).astype(np.float32)
    return _top(queries, found, scores, num_queries=num_queries, k=k)


def _top(queries: np.ndarray, rows: np.ndarray, scores: np.ndarray, *, num_queries: int, k: int) -> Hits:
    order = np.lexsort((rows, -scores, queries))
    queries, rows, scores = queries[order], rows[order], scores[order]
    ranks = np.arange(len(queries)) - np.searchsorted(queries, queries)
    kept = ranks < k
    fused = Hits(
        np.full((num_queries, k), -np.inf, dtype=np.float32), np.full((num_queries, k), -1, dtype=np.int64)
    )
    fused.scores[queries[kept], ranks[kept]] = scores[kept]
    fused.rows[queries[kept], ranks[kept]] = rows[kept]
    return fused
