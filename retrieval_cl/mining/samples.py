"""Seeded samples of scores for pictures: positives, mined negatives, random passages, all by the vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.rules import contains, item_keys
from retrieval_cl.mining.scorers import vector_scorer
from retrieval_cl.mining.table import SOURCES, NegativeTable


@dataclass(frozen=True, eq=False)
class ScoreSamples:
    """Cosines of sampled pairs; `negatives` are mined ones, not random filler."""

    positives: Float32[np.ndarray, " P"]
    negatives: Float32[np.ndarray, " N"]
    random: Float32[np.ndarray, " R"]


def score_samples(
    table: NegativeTable,
    query_vectors: Float32[np.ndarray, "N D"],
    passage_vectors: Float32[np.ndarray, "M D"],
    *,
    positives: Ragged,
    seed: int,
    size: int = 10_000,
) -> ScoreSamples:
    """Scores up to `size` pairs of each kind, drawn with the seed; the whole where there are fewer.

    Args:
        table: row i belongs to query vector i.
        query_vectors: unit rows.
        passage_vectors: unit rows.
        positives: passage rows known to match query vector i.
        seed: of the sample.
        size: pairs of each kind.
    """
    generator = np.random.default_rng(seed)
    score = vector_scorer(query_vectors, passage_vectors)

    def sample(numbers: Int64[np.ndarray, " V"], rows: Int64[np.ndarray, " V"]) -> Float32[np.ndarray, " S"]:
        chosen = np.sort(generator.choice(len(rows), size=min(size, len(rows)), replace=False))
        return score(numbers[chosen], rows[chosen])

    line, place = np.nonzero((table.rows >= 0) & (table.sources != SOURCES.index("random")))
    numbers = generator.integers(len(query_vectors), size=size)
    rows = generator.integers(len(passage_vectors), size=size)
    items = np.arange(len(passage_vectors), dtype=np.int64)
    known = np.sort(item_keys(positives.rows, positives.values, groups=items))
    unknown = ~contains(known, item_keys(numbers, rows, groups=items))
    return ScoreSamples(
        positives=sample(positives.rows, positives.values),
        negatives=sample(line.astype(np.int64), table.rows[line, place]),
        random=score(numbers[unknown], rows[unknown]),
    )
