"""Negatives that may be right answers: by their score beside the positive's, by a nearly equal text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.rules import strongest_positive
from retrieval_cl.mining.scorers import vector_scorer
from retrieval_cl.mining.shingles import ShingleSets
from retrieval_cl.mining.table import NegativeTable

Similarity = Callable[[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]], Float[np.ndarray, " P"]]
"""(passage rows, passage rows) -> how alike they are; 1 is equal."""

_PAIRS = 1 << 16


@dataclass(frozen=True, eq=False)
class Suspects:
    """Negatives beside a positive of their query, the most suspicious first.

    Attributes:
        lines: row of the table.
        rows: the negative's passage row.
        positives: the passage row of the positive it is held against.
        measure: why: the score relative to the positive's (see `by_score`), or the similarity of the two.
        count: how many there are in all; these are the first of them.
        scores: the negative's and the positive's, by which they were found; None where by similarity.
    """

    lines: Int64[np.ndarray, " S"]
    rows: Int64[np.ndarray, " S"]
    positives: Int64[np.ndarray, " S"]
    measure: Float64[np.ndarray, " S"]
    count: int
    scores: Float32[np.ndarray, "S 2"] | None = None


@dataclass(frozen=True)
class NearPairs:
    """Pairs of nearly equal negatives of one query.

    Attributes:
        pairs: near pairs found.
        queries: queries with at least one.
        looked_at: queries that were looked at: all, or a seeded sample.
    """

    pairs: int
    queries: int
    looked_at: int


def by_score(
    table: NegativeTable,
    scores: Float32[np.ndarray, "N n"],
    *,
    positives: Ragged,
    positive_scores: Float32[np.ndarray, " V"],
    most: int,
) -> Suspects:
    """The negatives with the highest scores, one a query, beside the strongest positive of their query.

    The measure is `1 + (score - positive) / |positive|`: 1 is as high as the positive, 0.95 lies 5 % of it
    below; it means the same for negative scores. `count` is the number of negatives at 1 or above. The order
    is not by the measure: first would come queries of which the model knows nothing, whose positive scores
    about 0, with negatives that are as far off.

    Args:
        table: row i belongs to row i of the positives.
        scores: of each place: those that the negatives were chosen by.
        positives: passage rows known to match, at least one a row.
        positive_scores: of `positives.values`, of the same kind.
        most: suspects wanted.
    """
    limit = strongest_positive(positive_scores, positives).astype(np.float64)
    best = _best_positive(positive_scores, positives)
    lines, places = np.nonzero(table.rows >= 0)
    against = limit[lines]
    # A positive of score 0 has no share; its negatives are held against the least float there is.
    size = np.maximum(np.abs(against), np.finfo(np.float32).tiny)
    own = scores[lines, places]
    measure = 1 + (own - against) / size
    order = np.lexsort((places, lines, -own))
    _, first = np.unique(lines[order], return_index=True)
    chosen = order[np.sort(first)[:most]]
    return Suspects(
        lines=lines[chosen],
        rows=table.rows[lines[chosen], places[chosen]],
        positives=best[lines[chosen]],
        measure=measure[chosen],
        count=int(np.count_nonzero(measure >= 1)),
        scores=np.stack([own, against], axis=1)[chosen].astype(np.float32),
    )


def by_similarity(
    table: NegativeTable, similarity: Similarity, *, positives: Ragged, least: float, most: int
) -> Suspects:
    """The negatives most alike to a positive of their query; `count` is those of at least `least`.

    Each negative is held against the positive it is most like.
    """
    lines, places = np.nonzero(table.rows >= 0)
    rows = table.rows[lines, places]
    alike, against = np.empty(len(rows)), np.empty(len(rows), dtype=np.int64)
    for start in range(0, len(rows), _PAIRS):
        part = slice(start, start + _PAIRS)
        matching = positives.take(lines[part])
        found = similarity(rows[part][matching.rows], matching.values).astype(np.float64)
        order = np.lexsort((matching.values, -found, matching.rows))
        first = order[matching.offsets[:-1]]
        alike[part], against[part] = found[first], matching.values[first]
    order = np.lexsort((rows, lines, -alike))
    near = order[: int(np.count_nonzero(alike >= least))]
    chosen = near[:most]
    return Suspects(lines[chosen], rows[chosen], against[chosen], alike[chosen], len(near))


def near_within(
    table: NegativeTable, similarity: Similarity, *, least: float, seed: int, most_pairs: int = 1_000_000
) -> NearPairs:
    """Counts pairs of negatives of one query that are alike by at least `least`.

    Args:
        table: of negatives.
        similarity: of two passages.
        least: from which on a pair is near.
        seed: of the sample.
        most_pairs: pairs looked at; where there are more, a sample of the queries is.
    """
    left, right = np.triu_indices(table.num_negatives, k=1)
    room = max(1, most_pairs // max(1, len(left)))
    lines = np.arange(len(table))
    if len(lines) > room:
        lines = np.sort(np.random.default_rng(seed).choice(len(table), size=room, replace=False))
    pairs = queries = 0
    step = max(1, _PAIRS // max(1, len(left)))
    for start in range(0, len(lines), step):
        rows = table.rows[lines[start : start + step]]
        line, column = np.nonzero((rows[:, left] >= 0) & (rows[:, right] >= 0))
        near = similarity(rows[line, left[column]], rows[line, right[column]]) >= least
        pairs, queries = pairs + int(np.count_nonzero(near)), queries + len(np.unique(line[near]))
    return NearPairs(pairs, queries, len(lines))


def text_similarity(words: Ragged, rows: Int64[np.ndarray, " R"]) -> Similarity:
    """Exact Jaccard similarity of word 3-shingles among the passages `rows` (ascending, distinct).

    Args:
        words: number of each word of the passage `rows[i]`, in the order of the text.
        rows: the passages that will be asked for.
    """
    # The similarity is exact: signatures would go unused.
    shingles = ShingleSets.from_words(words, num_hashes=1)
    return lambda left, right: shingles.jaccard(np.searchsorted(rows, left), np.searchsorted(rows, right))


def vector_similarity(passage_vectors: Float[np.ndarray, "M D"]) -> Similarity:
    """Cosine of the passages' vectors (unit rows)."""
    return vector_scorer(passage_vectors, passage_vectors)


def _best_positive(scores: Float32[np.ndarray, " V"], positives: Ragged) -> Int64[np.ndarray, " N"]:
    order = np.lexsort((positives.values, -scores, positives.rows))
    rows: Int64[np.ndarray, " N"] = positives.values[order[positives.offsets[:-1]]]
    return rows
