"""Chooses k1 and b of BM25 by recall on dev queries: a baseline that was not tuned is no opponent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float32, Float64, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.indexing import postings
from retrieval_cl.indexing.postings import Words

K1_GRID = (0.6, 1.2, 1.8, 2.6, 4.0, 6.0)
B_GRID = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
# Candidates that each corner of the grid gives, as a multiple of k.
_DEPTH = 5
_QUERIES_AT_ONCE = 200


@dataclass(frozen=True, eq=False)
class Tuned:
    """The best setting on the grid, the first where several are equal.

    Attributes:
        k1: how slowly repeats of a word saturate.
        b: how far a passage's length counts, 0 to 1.
        recall: mean recall@k of every setting, k1 by b.
        num_queries: dev queries it was measured on.
    """

    k1: float
    b: float
    recall: Float64[np.ndarray, "K1 B"]
    num_queries: int


def tune(
    passage_words: Words,
    query_words: Words,
    relevant: Ragged,
    *,
    k1_grid: Sequence[float] = K1_GRID,
    b_grid: Sequence[float] = B_GRID,
    k: int = 10,
    max_queries: int = 1500,
    seed: int = 0,
) -> Tuned:
    """Measures recall@k of every pair of the grid on dev queries.

    Every setting ranks the same candidates of a query: the best 5 k by each corner of the grid, and the
    relevant passages. So the whole grid costs little more than four searches.

    Args:
        passage_words: words of each passage.
        query_words: words of each dev query.
        relevant: dev query -> relevant passage rows.
        k1_grid: values of k1, above 0.
        b_grid: values of b, 0 to 1.
        k: cut of recall.
        max_queries: dev queries used; more are sampled down.
        seed: of that sample.

    Raises:
        InputError: no dev query has a relevant passage.
    """
    judged = np.flatnonzero(relevant.counts)
    if not len(judged):
        raise InputError("BM25 is tuned on dev queries, but none has a relevant passage")
    if len(judged) > max_queries:
        judged = np.sort(np.random.default_rng(seed).choice(judged, max_queries, replace=False))
    numbers, vocabulary = postings.number_words(passage_words)
    passages = postings.count_words(numbers, num_words=len(vocabulary))
    asked = postings.look_up([query_words[row] for row in judged.tolist()], vocabulary)
    queries = postings.count_words(asked, num_words=len(vocabulary))
    wanted = relevant.take(judged)
    candidates = _candidates(queries, passages, wanted, corners=_corners(k1_grid, b_grid), depth=_DEPTH * k)
    recall = np.zeros((len(k1_grid), len(b_grid)))
    for start in range(0, len(judged), _QUERIES_AT_ONCE):
        part = np.arange(start, min(len(judged), start + _QUERIES_AT_ONCE))
        pairs = _Pairs.of(queries[part], passages, candidates.take(part), wanted.take(part))
        for i, k1 in enumerate(k1_grid):
            for j, b in enumerate(b_grid):
                recall[i, j] += pairs.recall(k1=k1, b=b, k=k).sum()
    recall /= len(judged)
    row, column = divmod(int(np.argmax(recall)), len(b_grid))
    return Tuned(k1_grid[row], b_grid[column], recall, len(judged))


def weigh(passages: Any, *, k1: float, b: float) -> Any:
    """BM25 weights [words, passages] from word counts, as Lucene has them (Kamphuis et al. 2020, table 1)."""
    weights = passages.tocoo()
    data = _saturate(weights.data, _lengths(passages)[weights.row], k1=k1, b=b) * _idf(passages)[weights.col]
    return scipy.sparse.csr_matrix((data, (weights.col, weights.row)), shape=passages.shape[::-1])


@dataclass(frozen=True, eq=False)
class _Pairs:
    """(query, candidate) pairs, and the words each pair shares: all that scoring under any k1 and b needs."""

    queries: Int64[np.ndarray, " P"]
    rows: Int64[np.ndarray, " P"]
    relevant: Bool[np.ndarray, " P"]
    num_relevant: Int64[np.ndarray, " Q"]
    pair: Int64[np.ndarray, " W"]
    counts: Float32[np.ndarray, " W"]
    lengths: Float32[np.ndarray, " W"]
    weights: Float32[np.ndarray, " W"]

    @classmethod
    def of(cls, queries: Any, passages: Any, candidates: Ragged, relevant: Ragged) -> _Pairs:
        owner, rows = candidates.rows, candidates.values
        asked = Ragged(queries.indptr.astype(np.int64), np.arange(queries.nnz, dtype=np.int64)).take(owner)
        pair, word = asked.rows, queries.indices[asked.values]
        counts = np.asarray(passages[rows[pair], word]).ravel()
        shared = np.flatnonzero(counts)
        pair, word = pair[shared], word[shared]
        stride = passages.shape[0]
        known = np.isin(owner * stride + rows, relevant.rows * stride + relevant.values)
        return cls(
            queries=owner,
            rows=rows,
            relevant=known,
            num_relevant=relevant.counts,
            pair=pair,
            counts=counts[shared],
            lengths=_lengths(passages)[rows[pair]],
            weights=_idf(passages)[word] * queries.data[asked.values[shared]],
        )

    def recall(self, *, k1: float, b: float, k: int) -> Float64[np.ndarray, " Q"]:
        """Recall@k of each query among its candidates; a passage of score 0 is not found."""
        terms = self.weights * _saturate(self.counts, self.lengths, k1=k1, b=b)
        scores = np.bincount(self.pair, weights=terms, minlength=len(self.rows)).astype(np.float32)
        by_rank = np.lexsort((self.rows, -scores, self.queries))
        starts = np.searchsorted(self.queries, np.arange(len(self.num_relevant)))
        rank = np.arange(len(by_rank)) - starts[self.queries]
        found = by_rank[rank < k]
        found = found[self.relevant[found] & (scores[found] > 0)]
        hits = np.bincount(self.queries[found], minlength=len(self.num_relevant))
        recall: Float64[np.ndarray, " Q"] = hits / self.num_relevant
        return recall


def _corners(k1_grid: Sequence[float], b_grid: Sequence[float]) -> set[tuple[float, float]]:
    return {(k1, b) for k1 in (min(k1_grid), max(k1_grid)) for b in (min(b_grid), max(b_grid))}


def _candidates(
    queries: Any, passages: Any, relevant: Ragged, *, corners: set[tuple[float, float]], depth: int
) -> Ragged:
    owners, rows = [relevant.rows], [relevant.values]
    for k1, b in sorted(corners):
        hits = postings.heaviest(queries, weigh(passages, k1=k1, b=b), k=depth)
        owner, place = np.nonzero(hits.rows >= 0)
        owners.append(owner)
        rows.append(hits.rows[owner, place])
    return Ragged.from_pairs(np.concatenate(owners), np.concatenate(rows), queries.shape[0])


def _lengths(passages: Any) -> Float32[np.ndarray, " N"]:
    """Words of each passage, as a multiple of the mean."""
    lengths = np.asarray(passages.sum(axis=1), dtype=np.float64).ravel()
    relative: Float32[np.ndarray, " N"] = (lengths / max(lengths.mean(), 1e-9)).astype(np.float32)
    return relative


def _idf(passages: Any) -> Float32[np.ndarray, " V"]:
    frequency = np.bincount(passages.indices, minlength=passages.shape[1])
    idf: Float32[np.ndarray, " V"] = np.log(1 + (passages.shape[0] - frequency + 0.5) / (frequency + 0.5))
    return idf.astype(np.float32)


def _saturate(
    counts: Float32[np.ndarray, " W"], lengths: Float32[np.ndarray, " W"], *, k1: float, b: float
) -> Float32[np.ndarray, " W"]:
    saturated: Float32[np.ndarray, " W"] = counts / (
        counts + np.float32(k1) * (1 - b + np.float32(b) * lengths)
    )
    return saturated
