"""Classes by vote of the nearest labelled rows, and the protocol without which such a number says nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64, Int64

from retrieval_cl.core.hits import Hits

# Numbers of one table of votes, rows times classes.
_BLOCK = 2**22


@final
@dataclass(frozen=True)
class KnnProtocol:
    """What a kNN accuracy depends on beside the vectors.

    Published figures differ by several points for k and temperature alone: k 200, temperature 0.1 (lightly,
    MoCo), k 10 without weights (dkobak), k 20 (DINO, lightly on Imagenette).

    Attributes:
        k: hits that vote.
        temperature: each votes with exp(score / temperature); None: with 1.
        bank: the labelled rows: which split, which transform, which weights.
        metric: of the scores.
    """

    k: int
    temperature: float | None
    bank: str
    metric: str = "cosine"

    def __str__(self) -> str:
        weight = "a vote each" if self.temperature is None else f"weight exp(score / {self.temperature:g})"
        return f"kNN, k {self.k}, {self.metric}, {weight}; bank: {self.bank}"


def vote(
    hits: Hits, labels: Int64[np.ndarray, " N"], *, num_classes: int, temperature: float | None
) -> Int64[np.ndarray, " Q"]:
    """The class that the hits of each query vote for.

    Args:
        hits: nearest labelled rows of each query, best first; all of them vote. A query that is in the bank
            itself must not be among its hits (`indexing.recall.without_own`).
        labels: class of each row of the bank, from 0.
        num_classes: how many there are.
        temperature: a hit votes with exp(score / temperature) (Wu et al. 2018, section 3.4; 0.07 to 0.1 for
            cosines); None: with 1.

    Returns:
        The class of most votes; of several the one whose first hit is nearest; -1 for a query without hits.
    """
    assert labels.min(initial=0) >= 0 and labels.max(initial=0) < num_classes
    named = np.empty(len(hits.rows), dtype=np.int64)
    step = max(1, _BLOCK // num_classes)
    for start in range(0, len(named), step):
        part = Hits(hits.scores[start : start + step], hits.rows[start : start + step])
        weights = _weights(part, temperature)
        named[start : start + step] = _vote(part, labels, weights, num_classes=num_classes)
    return named


def _vote(
    hits: Hits, labels: Int64[np.ndarray, " N"], weights: Float64[np.ndarray, "Q K"], *, num_classes: int
) -> Int64[np.ndarray, " Q"]:
    found, queries = hits.rows >= 0, np.arange(len(hits.rows))
    classes = labels[np.where(found, hits.rows, 0)]
    cells = queries[:, None] * num_classes + classes
    totals = np.bincount(cells[found], weights[found], minlength=len(queries) * num_classes)
    # The first hit whose class has the most votes: ties fall to the nearest.
    first = np.where(found, totals[cells], -np.inf).argmax(axis=1)
    return np.where(found[queries, first], classes[queries, first], -1)


def _weights(hits: Hits, temperature: float | None) -> Float64[np.ndarray, "Q K"]:
    if temperature is None:
        return np.ones(hits.scores.shape)
    # Relative to the best hit, so that no temperature overflows; all of a query's votes share the factor.
    best = np.where(hits.rows[:, :1] >= 0, hits.scores[:, :1], 0.0)
    shares: Float64[np.ndarray, "Q K"] = np.exp((hits.scores.astype(np.float64) - best) / temperature)
    return shares
