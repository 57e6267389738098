"""Near copies between two groups of texts: an exact set-similarity join over shingles (prefix filter)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.relations import Ragged


def near_copies(left: Ragged, right: Ragged, *, threshold: float = 0.8) -> Int64[np.ndarray, "P 2"]:
    """Pairs (left row, right row) whose shingle sets have a Jaccard similarity of at least `threshold`.

    Exact, by the prefix filter of Bayardo, Ma and Srikant (2007, "Scaling Up All Pairs Similarity Search"):
    with the shingles of each set ordered from rare to common, two sets that similar share one among the
    first `|x| - ceil(threshold * |x|) + 1` of each.

    Args:
        left: distinct shingle hashes of each row, any order.
        right: the same for the other group.
        threshold: in (0, 1].
    """
    assert 0 < threshold <= 1, threshold
    if len(left.values) == 0 or len(right.values) == 0:
        return np.zeros((0, 2), dtype=np.int64)
    names, codes, counts = np.unique(
        np.concatenate([left.values, right.values]), return_inverse=True, return_counts=True
    )
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(names))
    left_ranks = Ragged(left.offsets, rank[codes[: len(left.values)]])
    right_ranks = Ragged(right.offsets, rank[codes[len(left.values) :]])
    pairs = _sharing_a_prefix(_prefixes(left_ranks, threshold), _prefixes(right_ranks, threshold))
    return pairs[_jaccard(left_ranks, right_ranks, pairs) >= threshold]


def _prefixes(sets: Ragged, threshold: float) -> Ragged:
    order = np.lexsort((sets.values, sets.rows))
    sizes = sets.counts
    keep_sizes = np.where(sizes > 0, sizes - np.ceil(threshold * sizes - 1e-9).astype(np.int64) + 1, 0)
    position = np.arange(len(sets.values)) - np.repeat(sets.offsets[:-1], sizes)
    keep = position < np.repeat(keep_sizes, sizes)
    return Ragged.from_pairs(sets.rows[keep], sets.values[order][keep], len(sets))


def _sharing_a_prefix(left: Ragged, right: Ragged) -> Int64[np.ndarray, "P 2"]:
    order = np.argsort(right.values, kind="stable")
    shingle, owner = right.values[order], right.rows[order]
    first = np.searchsorted(shingle, left.values, side="left")
    count = np.searchsorted(shingle, left.values, side="right") - first
    starts = np.repeat(first - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
    pairs = np.stack([np.repeat(left.rows, count), owner[starts + np.arange(int(count.sum()))]], axis=1)
    return np.unique(pairs, axis=0).astype(np.int64)


def _jaccard(left: Ragged, right: Ragged, pairs: Int64[np.ndarray, "P 2"]) -> np.ndarray:
    out = np.zeros(len(pairs))
    for i, (a, b) in enumerate(pairs.tolist()):
        x, y = left[a], right[b]
        shared = len(np.intersect1d(x, y, assume_unique=True))
        out[i] = shared / (len(x) + len(y) - shared)
    return out
