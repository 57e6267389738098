"""Metrics of a ranking, per query: recall@k, success@k, MRR@k, nDCG@k, by trec_eval's definitions.

Every metric reads `gains`: the grade of the passage at each rank, relevant where it is at least 1. A query
without a relevant passage scores 0 everywhere.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from retrieval_cl.core.relations import Ragged


def gains(rows: Int64[np.ndarray, "Q K"], relevant: Ragged, grades: Ragged) -> Int64[np.ndarray, "Q K"]:
    """Looks up the grade of every hit.

    Args:
        rows: passage rows in rank order, each at most once a query; -1 where there is no hit.
        relevant: the judged passage rows of each query, in any order.
        grades: the grade of each of them, with the offsets of `relevant`.

    Returns:
        The grade of each hit; 0 where it is -1, not judged, or judged below 1.
    """
    assert len(relevant) == len(rows), (len(relevant), len(rows))
    assert np.array_equal(relevant.offsets, grades.offsets)
    found = np.zeros(rows.shape, dtype=np.int64)
    if not len(relevant.values) or not rows.size:
        return found
    stride = 1 + int(max(rows.max(), relevant.values.max()))
    judged = relevant.rows * stride + relevant.values
    order = np.argsort(judged, kind="stable")
    wanted = np.arange(len(rows), dtype=np.int64)[:, None] * stride + rows
    place = order[np.minimum(np.searchsorted(judged, wanted, sorter=order), len(order) - 1)]
    hit = (rows >= 0) & (judged[place] == wanted)
    found[hit] = np.maximum(grades.values[place[hit]], 0)
    return found


def count_relevant(grades: Ragged) -> Int64[np.ndarray, " Q"]:
    """Number of passages of grade at least 1 of each query."""
    return np.bincount(grades.rows[grades.values >= 1], minlength=len(grades)).astype(np.int64)


def recall_at_k(
    gains: Int64[np.ndarray, "Q K"], num_relevant: Int64[np.ndarray, " Q"], *, k: int
) -> Float64[np.ndarray, " Q"]:
    """Relevant passages among the first k, divided by all relevant ones, also where those are more than k."""
    found = (gains[:, :k] >= 1).sum(axis=1)
    share: Float64[np.ndarray, " Q"] = found / np.maximum(num_relevant, 1)
    return share


def success_at_k(gains: Int64[np.ndarray, "Q K"], *, k: int) -> Float64[np.ndarray, " Q"]:
    """1 where any of the first k passages is relevant: what CLIP and metric-learning papers call recall@k."""
    return np.asarray((gains[:, :k] >= 1).any(axis=1), dtype=np.float64)


def mrr_at_k(gains: Int64[np.ndarray, "Q K"], *, k: int) -> Float64[np.ndarray, " Q"]:
    """1 / rank of the first relevant passage among the first k."""
    reciprocal = 1.0 / np.arange(1, gains[:, :k].shape[1] + 1)
    best: Float64[np.ndarray, " Q"] = np.max((gains[:, :k] >= 1) * reciprocal, axis=1, initial=0.0)
    return best


def ndcg_at_k(gains: Int64[np.ndarray, "Q K"], ideal_grades: Ragged, *, k: int) -> Float64[np.ndarray, " Q"]:
    """Discounted gain of the first k, divided by that of the ideal ranking of all judgements cut at k.

    Gains are the grades themselves, discounted by 1 / log2(rank + 1) (Järvelin and Kekäläinen 2002, as in
    trec_eval).
    """
    top = gains[:, :k]
    gained = (top * _discounts(top.shape[1])).sum(axis=1)
    ideal = _ideal_gain(ideal_grades, k=k)
    share: Float64[np.ndarray, " Q"] = np.divide(gained, ideal, out=np.zeros_like(gained), where=ideal > 0)
    return share


def _ideal_gain(grades: Ragged, *, k: int) -> Float64[np.ndarray, " Q"]:
    rows = grades.rows
    descending = np.maximum(grades.values[np.lexsort((-grades.values, rows))], 0)
    place = np.arange(len(rows)) - grades.offsets[rows]
    kept = place < k
    weighted = descending[kept] * _discounts(k)[place[kept]]
    return np.bincount(rows[kept], weights=weighted, minlength=len(grades)).astype(np.float64, copy=False)


def _discounts(k: int) -> Float64[np.ndarray, " K"]:
    discounts: Float64[np.ndarray, " K"] = 1.0 / np.log2(np.arange(2, k + 2))
    return discounts
