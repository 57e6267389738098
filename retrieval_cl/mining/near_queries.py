"""Queries that are nearly the same and have other right answers: each other's likely false negatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt64

from retrieval_cl.core.relations import Ragged
from retrieval_cl.indexing import exact
from retrieval_cl.mining.audit import is_known
from retrieval_cl.mining.noise import mix
from retrieval_cl.mining.shingles import ShingleSets
from retrieval_cl.mining.table import NegativeTable

# A pair at the threshold is overlooked with at most this chance.
_MISSED = 1e-3
# Of queries that agree in a band each is held against so many.
_NEXT = 64
_BLOCK = 1 << 16
_NEIGHBOURS = 16


@final
@dataclass(frozen=True, eq=False)
class QueryPairs:
    """Pairs of nearly equal queries, `left[i] < right[i]`.

    Attributes:
        left: row.
        right: row.
        alike: how much.
        measure: what that is, in words.
        least: from which on a pair is near.
        looked_at: rows that were held against all others.
    """

    left: Int64[np.ndarray, " P"]
    right: Int64[np.ndarray, " P"]
    alike: Float64[np.ndarray, " P"]
    measure: str
    least: float
    looked_at: int


@final
@dataclass(frozen=True, eq=False)
class NearQueries:
    """Nearly equal queries with other right answers, the most alike first.

    Attributes:
        left: row of the table.
        right: row of the table of the other.
        positives: a right answer of `left` that is not known to answer `right`, else any.
        other_positives: the same the other way round.
        alike: how much the two are.
        pairs: how many there are in all; the arrays hold the first of them.
        queries: queries in at least one pair.
        negatives: negatives of a query that are a right answer of one nearly equal to it.
        looked_at: queries that were held against all others.
    """

    left: Int64[np.ndarray, " S"]
    right: Int64[np.ndarray, " S"]
    positives: Int64[np.ndarray, " S"]
    other_positives: Int64[np.ndarray, " S"]
    alike: Float64[np.ndarray, " S"]
    pairs: int
    queries: int
    negatives: int
    looked_at: int

    def to_dict(self) -> dict[str, int]:
        """JSON values, without the pairs themselves."""
        names = ("pairs", "queries", "negatives", "looked_at")
        return {name: getattr(self, name) for name in names}


def near_texts_of(words: ShingleSets, *, least: float) -> QueryPairs:
    """Pairs of rows whose sets have a Jaccard similarity of at least `least`.

    Candidates agree in a band of their signatures (Leskovec, Rajaraman, Ullman, "Mining of Massive
    Datasets", 3.4); their similarity is exact. Rows without words are like none.
    """
    found = _distinct(_in_bands(words, least=least), num_rows=len(words.sets))
    alike = np.concatenate(
        [np.zeros(0), *(words.jaccard(*part.T) for part in np.array_split(found, len(found) // _BLOCK + 1))]
    )
    near = alike >= least
    looked_at = int(np.count_nonzero(words.sets.counts))
    return QueryPairs(found[near, 0], found[near, 1], alike[near], "overlap of words", least, looked_at)


def near_vectors_of(
    vectors: Float32[np.ndarray, "N D"], *, least: float, seed: int, most_pairs: int = 500_000_000
) -> QueryPairs:
    """Pairs of rows (unit vectors) whose cosine is at least `least`, among the nearest 16 of each.

    Args:
        vectors: of the queries.
        least: cosine from which on two are near.
        seed: of the sample.
        most_pairs: cosines computed; where there are more, those of a sample of the rows with all are.
    """
    rows = np.arange(len(vectors))
    room = max(1, most_pairs // max(1, len(vectors)))
    if len(rows) > room:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), size=room, replace=False))
    hits = exact.search(vectors[rows], vectors, k=min(1 + _NEIGHBOURS, len(vectors)))
    line, place = np.nonzero((hits.scores >= least) & (hits.rows != rows[:, None]))
    pairs = np.stack([rows[line], hits.rows[line, place]], axis=1)
    low_high, first = np.unique(np.sort(pairs, axis=1), axis=0, return_index=True)
    alike = hits.scores[line, place][first].astype(np.float64)
    return QueryPairs(low_high[:, 0], low_high[:, 1], alike, "cosine", least, len(rows))


def with_other_answers(
    pairs: QueryPairs,
    table: NegativeTable,
    *,
    positives: Ragged,
    groups: Int64[np.ndarray, " M"],
    most: int,
) -> NearQueries:
    """Those pairs whose right answers are not the same items.

    Args:
        pairs: of rows of the table.
        table: what was mined.
        positives: passage rows known to match row i of the table.
        groups: passages with one number are the same item.
        most: pairs kept.
    """
    answers = _answers(positives, groups)
    other = answers[pairs.left] != answers[pairs.right]
    left, right, alike = pairs.left[other], pairs.right[other], pairs.alike[other]
    order = np.lexsort((right, left, -alike))[:most]
    left_kept, right_kept = left[order], right[order]
    return NearQueries(
        left=left_kept,
        right=right_kept,
        positives=_own(left_kept, right_kept, positives=positives, groups=groups),
        other_positives=_own(right_kept, left_kept, positives=positives, groups=groups),
        alike=alike[order],
        pairs=len(left),
        queries=len(np.unique(np.concatenate([left, right]))),
        negatives=_drawn(left, right, table, positives=positives, groups=groups),
        looked_at=pairs.looked_at,
    )


def _in_bands(words: ShingleSets, *, least: float) -> Iterator[Int64[np.ndarray, "P 2"]]:
    filled = np.flatnonzero(words.sets.counts)
    height = words.signatures.shape[1]
    width = max(rows for rows in (1, 2, 4) if rows == 1 or (1 - least**rows) ** (height // rows) <= _MISSED)
    for start in range(0, height, width):
        keys = np.zeros(len(filled), dtype=np.uint64)
        for column in range(start, start + width):
            keys = mix(keys ^ words.signatures[filled, column].astype(np.uint64))
        order = np.argsort(keys, kind="stable")
        keys, rows = keys[order], filled[order]
        for step in range(1, min(_NEXT, len(rows) - 1) + 1):
            same: Bool[np.ndarray, " _"] = keys[step:] == keys[:-step]
            if not same.any():
                break
            yield np.stack([rows[:-step][same], rows[step:][same]], axis=1)


def _distinct(pairs: Iterator[Int64[np.ndarray, "P 2"]], *, num_rows: int) -> Int64[np.ndarray, "R 2"]:
    keys = [np.unique(np.minimum(*part.T) * num_rows + np.maximum(*part.T)) for part in pairs]
    found = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *keys]))
    return np.stack([found // num_rows, found % num_rows], axis=1)


def _answers(positives: Ragged, groups: Int64[np.ndarray, " M"]) -> UInt64[np.ndarray, " N"]:
    """A number for the set of items of each row: equal for equal sets, and else but by a chance of 2^-64."""
    items = np.unique(np.stack([positives.rows, groups[positives.values]]), axis=1)
    sums = np.zeros(len(positives), dtype=np.uint64)
    np.add.at(sums, items[0], mix(items[1].astype(np.uint64)))
    return sums


def _own(
    rows: Int64[np.ndarray, " S"],
    others: Int64[np.ndarray, " S"],
    *,
    positives: Ragged,
    groups: Int64[np.ndarray, " M"],
) -> Int64[np.ndarray, " S"]:
    """The first right answer of each row that is none of the other's; where there is none, its first."""
    mine, theirs = positives.take(rows), positives.take(others)
    known = Ragged(theirs.offsets, groups[theirs.values])
    shared = is_known(mine.rows, groups[mine.values], known=known)
    order = np.lexsort((np.arange(len(shared)), shared, mine.rows))
    first: Int64[np.ndarray, " S"] = mine.values[order[mine.offsets[:-1]]]
    return first


def _drawn(
    left: Int64[np.ndarray, " P"],
    right: Int64[np.ndarray, " P"],
    table: NegativeTable,
    *,
    positives: Ragged,
    groups: Int64[np.ndarray, " M"],
) -> int:
    owners, near = np.concatenate([left, right]), np.concatenate([right, left])
    answers = positives.take(near)
    by_line = Ragged.from_pairs(owners[answers.rows], groups[answers.values], len(table))
    lines, places = np.nonzero(table.rows >= 0)
    found = is_known(lines, groups[table.rows[lines, places]], known=by_line)
    return int(np.count_nonzero(found))
