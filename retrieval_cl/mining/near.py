"""Candidates that would be false negatives: near duplicates of a positive, or barred by a caller's rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int64

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.rules import Candidates
from retrieval_cl.mining.scorers import vector_scorer
from retrieval_cl.mining.shingles import ShingleSets

Near = Callable[[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]], Bool[np.ndarray, " P"]]
"""(passage rows, passage rows) -> which of these pairs are near duplicates."""

Barred = Callable[[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]], Bool[np.ndarray, " P"]]
"""(query numbers, passage rows) -> which of these pairs are no negatives, whatever they score."""

# Standard errors of the estimate that a pair may lie below the threshold and still be looked at exactly.
_SLACK = 3.0
_PAIRS = 1 << 16


def near_text(shingles: ShingleSets, *, threshold: float) -> Near:
    """Pairs whose Jaccard similarity of shingles is at least `threshold`.

    MinHash chooses the pairs, the exact similarity decides: nothing below the threshold is a near duplicate,
    and about one pair in a thousand that lies just on it is missed.
    """
    num_hashes = shingles.signatures.shape[1]
    estimate = threshold - _SLACK * math.sqrt(threshold * (1 - threshold) / num_hashes)

    def near(left: Int64[np.ndarray, " P"], right: Int64[np.ndarray, " P"]) -> Bool[np.ndarray, " P"]:
        found = shingles.estimate(left, right) >= estimate
        found[found] = shingles.jaccard(left[found], right[found]) >= threshold
        return found

    return near


def near_vectors(passage_vectors: Float[np.ndarray, "M D"], *, cosine: float) -> Near:
    """Pairs whose vectors (unit rows) have at least this cosine."""
    score = vector_scorer(passage_vectors, passage_vectors)

    def near(left: Int64[np.ndarray, " P"], right: Int64[np.ndarray, " P"]) -> Bool[np.ndarray, " P"]:
        return score(left, right) >= np.float32(cosine)

    return near


def drop_near(candidates: Candidates, *, positives: Ragged, near: Near) -> Bool[np.ndarray, "Q K"]:
    """Drops every candidate that is a near duplicate of a positive of its query.

    Args:
        candidates: row i belongs to query i.
        positives: passage rows known to match query i.
        near: says which pairs of passages are near duplicates.
    """
    line, column = np.nonzero(candidates.kept)
    kept = candidates.kept.copy()
    kept[line, column] = ~near_a_positive(line, candidates.rows[line, column], positives=positives, near=near)
    return kept


def drop_barred(
    candidates: Candidates, *, numbers: Int64[np.ndarray, " Q"], barred: Barred
) -> Bool[np.ndarray, "Q K"]:
    """Drops every candidate that is barred; row i of the candidates belongs to query `numbers[i]`."""
    line, column = np.nonzero(candidates.kept)
    kept = candidates.kept.copy()
    kept[line, column] = ~barred(numbers[line], candidates.rows[line, column])
    return kept


def near_a_positive(
    lines: Int64[np.ndarray, " P"], rows: Int64[np.ndarray, " P"], *, positives: Ragged, near: Near
) -> Bool[np.ndarray, " P"]:
    """Which passages are near duplicates of a positive of their line.

    Args:
        lines: row of `positives` for each pair.
        rows: passage row of each pair; no -1.
        positives: passage rows known to match.
        near: says which pairs of passages are near duplicates.
    """
    found = np.zeros(len(rows), dtype=bool)
    for start in range(0, len(rows), _PAIRS):
        part = slice(start, start + _PAIRS)
        matching = positives.take(lines[part])
        owner = start + matching.rows
        found[owner[near(rows[owner], matching.values)]] = True
    return found


def any_near(rules: Sequence[Near]) -> Near:
    """Pairs that at least one of the rules calls near duplicates."""

    def near(left: Int64[np.ndarray, " P"], right: Int64[np.ndarray, " P"]) -> Bool[np.ndarray, " P"]:
        found = np.zeros(len(left), dtype=bool)
        for rule in rules:
            found[~found] = rule(left[~found], right[~found])
        return found

    return near
