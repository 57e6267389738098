"""Retrieval by class or item: what has the same label is relevant, the query itself is not."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.relations import Ragged


def same_label(
    wanted: Int64[np.ndarray, " Q"],
    labels: Int64[np.ndarray, " N"],
    *,
    own: Int64[np.ndarray, " Q"] | None = None,
) -> Ragged:
    """Judgements for `metrics.evaluate_hits`: the rows with the label of each query.

    They take 8 bytes a pair of query and relevant row: 10,000 queries of ten classes among 10,000 rows make
    10 million pairs. Ask fewer queries of a larger bank.

    Args:
        wanted: label of each query: a class or an item; -1 is no label, and nothing is relevant.
        labels: label of each row of the bank; -1 is no label.
        own: row of each query in the bank, which is not relevant; -1 or None where it is not there. It must
            be taken out of the hits as well (`indexing.recall.without_own`), or it wins every search.

    Returns:
        Query i -> relevant rows, ascending.
    """
    order = np.argsort(labels, kind="stable")
    firsts = np.searchsorted(labels, wanted, side="left", sorter=order)
    counts = np.searchsorted(labels, wanted, side="right", sorter=order) - firsts
    counts[wanted < 0] = 0
    queries = np.repeat(np.arange(len(wanted)), counts)
    places = np.arange(len(queries)) - np.repeat(np.cumsum(counts) - counts - firsts, counts)
    rows = order[places]
    if own is not None:
        kept = rows != own[queries]
        queries, rows = queries[kept], rows[kept]
    offsets = np.zeros(len(wanted) + 1, dtype=np.int64)
    np.cumsum(np.bincount(queries, minlength=len(wanted)), out=offsets[1:])
    return Ragged(offsets, rows)
