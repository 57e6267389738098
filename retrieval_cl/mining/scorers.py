"""What a (query, passage) pair scores, by the vectors or by a reranker: one rule for every pair."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing import order

# Blocks of pairs that stay in the processor's cache.
_BLOCK_FLOATS = 1 << 18

Scorer = Callable[[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]], Float32[np.ndarray, " P"]]
"""(query numbers, passage rows) -> scores; a query number is a row of the query vectors."""

Reranker = Callable[[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]], Float[np.ndarray, " P"]]
"""(query rows, passage rows) -> scores, higher is better; rows of the data set. It gets the pairs of
many queries at once; one that pads should sort them by length, as `encoders.cross_encoder` does."""


def vector_scorer(
    query_vectors: Float[np.ndarray, "N D"], passage_vectors: Float[np.ndarray, "M D"]
) -> Scorer:
    """Scores by the inner product, to the bit as exact search scores its final hits."""
    block = max(1, _BLOCK_FLOATS // query_vectors.shape[1])

    def score(numbers: Int64[np.ndarray, " P"], rows: Int64[np.ndarray, " P"]) -> Float32[np.ndarray, " P"]:
        scores = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), block):
            part = slice(start, start + block)
            left, right = _tensor(query_vectors, numbers[part]), _tensor(passage_vectors, rows[part])
            scores[part] = order.dot(left, right).numpy()
        return scores

    return score


def reranker_scorer(reranker: Reranker, queries: Int64[np.ndarray, " N"], *, batch: int) -> Scorer:
    """Scores by the reranker, `batch` pairs a call, however many queries they belong to.

    Raises:
        InputError: on scoring, where it gives another number of scores than pairs, or one that is not finite.
    """

    def score(numbers: Int64[np.ndarray, " P"], rows: Int64[np.ndarray, " P"]) -> Float32[np.ndarray, " P"]:
        scores = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), batch):
            part = slice(start, start + batch)
            asked = queries[numbers[part]]
            given = np.asarray(reranker(asked, rows[part]), dtype=np.float32)
            _check_scores(given, asked, rows[part])
            scores[part] = given
        return scores

    return score


def _tensor(vectors: Float[np.ndarray, "N D"], rows: Int64[np.ndarray, " P"]) -> Float32[Tensor, "P D"]:
    return torch.from_numpy(vectors[rows].astype(np.float32, copy=False))


def _check_scores(
    scores: Float32[np.ndarray, ...], queries: Int64[np.ndarray, " P"], rows: Int64[np.ndarray, " P"]
) -> None:
    if scores.shape != rows.shape:
        raise InputError(
            f"the reranker gave scores of shape {scores.shape} for {len(rows)} pairs; one score a pair"
        )
    if len(bad := np.flatnonzero(~np.isfinite(scores))):
        pair = f"query row {queries[bad[0]]} and passage row {rows[bad[0]]}"
        raise InputError(f"the reranker gave {scores[bad[0]]} for {pair}; scores must be finite")
