"""The queries of a split with their judgements, and searches over the corpus for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float64, Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.evaluation.metrics import evaluate_hits
from retrieval_cl.runs.prepare import require_split
from retrieval_cl.sources.records import RetrievalData

# A stream of random numbers that no other part of a run draws from.
_SAMPLE = 7


@final
@dataclass(frozen=True, eq=False)
class Judged:
    """Queries of one split and what is judged for them.

    Attributes:
        queries: query rows, ascending.
        relevant: the judged passages of each of them.
        grades: their grades; relevant from 1 on.
    """

    queries: Int64[np.ndarray, " Q"]
    relevant: Ragged
    grades: Ragged

    def measure(self, hits: Hits) -> dict[str, Float64[np.ndarray, " Q"]]:
        """Metric -> value of each query; row i of `hits` belongs to query i."""
        return evaluate_hits(hits, self.relevant, grades=self.grades)

    def right(self) -> Ragged:
        """Query -> passages of grade 1 or more."""
        keep = self.grades.values >= 1
        return Ragged.from_pairs(self.relevant.rows[keep], self.relevant.values[keep], len(self.queries))


def judged_queries(
    data: RetrievalData, split: str, *, max_queries: int | None = None, seed: int = 0
) -> Judged:
    """The judged queries of a split, or a seeded sample of them.

    Raises:
        InputError: there is no such split, or none of its queries has a relevant passage.
    """
    qrels = require_split(data, split)
    queries = qrels.judged_queries
    if not len(queries):
        raise InputError(f"split '{split}' of '{data.name}' has no query with a relevant passage")
    if max_queries is not None and len(queries) > max_queries:
        generator = np.random.default_rng([seed, _SAMPLE])
        queries = np.sort(generator.choice(queries, max_queries, replace=False))
    kept: Bool[np.ndarray, " J"] = np.isin(qrels.queries, queries)
    counts = np.bincount(np.searchsorted(queries, qrels.queries[kept]), minlength=len(queries))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Judged(queries, Ragged(offsets, qrels.passages[kept]), Ragged(offsets, qrels.grades[kept]))


def sample_passages(
    judged: Judged, num_passages: int, *, max_passages: int | None, seed: int = 0
) -> tuple[Int64[np.ndarray, " S"], Judged]:
    """All passages, or a seeded sample with every judged one; and the judgements by row within it."""
    rows = np.arange(num_passages, dtype=np.int64)
    if max_passages is None or max_passages >= num_passages:
        return rows, judged
    wanted = np.unique(judged.relevant.values)
    others = np.setdiff1d(rows, wanted)
    generator = np.random.default_rng([seed, _SAMPLE])
    count = min(len(others), max(0, max_passages - len(wanted)))
    chosen = np.union1d(wanted, generator.choice(others, count, replace=False))
    within = Ragged(judged.relevant.offsets, np.searchsorted(chosen, judged.relevant.values))
    return chosen, Judged(judged.queries, within, judged.grades)
