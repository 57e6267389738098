"""Scores hits that another search found by the one rule of exact search, and puts them into its order."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64

from retrieval_cl.core.hits import Hits
from retrieval_cl.indexing import order
from retrieval_cl.indexing.rows import Matrix, Rows

_CHUNK_FLOATS = 2**18


def rescore(
    queries: Matrix,
    passages: Matrix,
    *,
    rows: Int64[np.ndarray, "Q L"],
    k: int,
) -> Hits:
    """The best k of the given rows of each query, with the scores and in the order of `exact.search`.

    Args:
        queries: row i is scored against the passages of `rows[i]`.
        passages: rows of floats, or their shards in order; may be memory maps.
        rows: passage rows, each at most once a query; -1 is no passage.
        k: hits a query; -1 and -inf fill up.
    """
    all_queries, all_passages = Rows(queries, name="queries"), Rows(passages, name="passages")
    keys = torch.full(rows.shape, order.EMPTY)
    pair_queries, pair_places = np.nonzero(rows >= 0)
    step = max(1, _CHUNK_FLOATS // max(1, all_queries.dim))
    for start in range(0, len(pair_queries), step):
        owner, place = pair_queries[start : start + step], pair_places[start : start + step]
        found = rows[owner, place]
        scores = order.dot(all_queries.take(owner), all_passages.take(found))
        keys[owner, place] = order.pack(scores, torch.from_numpy(found))
    best, best_rows = order.unpack(order.best(keys, k=k))
    return Hits(best.numpy(), best_rows.numpy())
