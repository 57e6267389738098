"""Retrieval between two sides of which a row may match several of the other: images and their captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged

CUTS = (1, 5, 10)
# Scores of one block of queries.
_BLOCK = 2**22


def evaluate_cross_modal(
    queries: Float32[np.ndarray, "Q D"],
    candidates: Float32[np.ndarray, "M D"],
    relevant: Ragged,
    *,
    cuts: Sequence[int] = CUTS,
) -> dict[str, Float64[np.ndarray, " Q"]]:
    """Scores every query by cosine against all candidates; one without a right candidate scores 0.

    Args:
        queries: unit rows.
        candidates: unit rows.
        relevant: query i -> the rows of its right candidates.
        cuts: the k of each metric, at least 1. Beyond the number of candidates all of them are among the
            first k, as trec_eval has it.

    Returns:
        Metric name -> one value a query: `success@k`, whether any right candidate is among the first k (what
        papers on images and captions call R@k), and `recall@k`, the share of all right candidates that are.
        Of equal scores the wrong candidates come first.

    Raises:
        InputError: a row holds NaN or infinity.
    """
    assert len(relevant) == len(queries) and min(cuts) >= 1, (len(relevant), len(queries), cuts)
    assert relevant.values.min(initial=0) >= 0 and relevant.values.max(initial=-1) < len(candidates)
    require_finite(queries, name="queries")
    require_finite(candidates, name="candidates")
    relevant = Ragged.from_pairs(relevant.rows, relevant.values.astype(np.int64), len(relevant))
    ranks = np.empty(len(relevant.values), dtype=np.int64)
    for rows in blocks(len(queries), width=len(candidates)):
        places = slice(relevant.offsets[rows.start], relevant.offsets[rows.stop])
        scores = cosines(queries[rows.start : rows.stop], candidates)
        ranks[places] = _ranks(scores, relevant.take(np.arange(rows.start, rows.stop)), most=max(cuts))
    counts = relevant.counts
    found = {cut: np.bincount(relevant.rows, weights=ranks <= cut, minlength=len(relevant)) for cut in cuts}
    success = {f"success@{cut}": (number > 0).astype(np.float64) for cut, number in found.items()}
    return success | {f"recall@{cut}": number / np.maximum(counts, 1) for cut, number in found.items()}


def cosines(
    queries: Float32[np.ndarray, "Q D"], candidates: Float32[np.ndarray, "M D"]
) -> Float32[np.ndarray, "Q M"]:
    """Products of unit rows, summed in float64: equal rows get equal scores, however the sums are cut."""
    return (queries.astype(np.float64) @ candidates.astype(np.float64).T).astype(np.float32)


def blocks(num_rows: int, *, width: int) -> Iterator[range]:
    """Runs of rows whose scores with `width` others take a few megabytes."""
    step = max(1, _BLOCK // max(1, width))
    return (range(start, min(start + step, num_rows)) for start in range(0, num_rows, step))


def require_finite(vectors: Float32[np.ndarray, "N D"], *, name: str) -> None:
    """Raises InputError naming the first row with NaN or infinity."""
    bad: Bool[np.ndarray, " N"] = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        first, number = int(bad.argmax()), int(bad.sum())
        raise InputError(f"{name}: row {first} holds NaN or infinity; so do {number} of {len(bad)} rows")


def _ranks(scores: Float32[np.ndarray, "Q M"], relevant: Ragged, *, most: int) -> Int64[np.ndarray, " V"]:
    """Rank of each right candidate from 1, behind all wrong ones of its score; above `most` it may be less.

    The best `most` wrong candidates decide who is among the first `most`.
    """
    right = scores[relevant.rows, relevant.values]
    wrong = torch.from_numpy(scores.copy())
    wrong[torch.from_numpy(relevant.rows), torch.from_numpy(relevant.values)] = -torch.inf
    best = wrong.topk(min(most, scores.shape[1]), dim=1).values.numpy()
    before = (best[relevant.rows] >= right[:, None]).sum(axis=1)
    order = np.lexsort((-right, relevant.rows))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - relevant.offsets[relevant.rows]
    ranks: Int64[np.ndarray, " V"] = before + place + 1
    return ranks
