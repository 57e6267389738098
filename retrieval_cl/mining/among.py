"""Mining among some of the passages: everything is numbered within them, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.scorers import Reranker
from retrieval_cl.mining.table import NegativeTable


@final
@dataclass(frozen=True, eq=False)
class Among:
    """Some rows of a corpus, ascending and distinct; the n-th of them is row n within."""

    rows: Int64[np.ndarray, " S"]

    def positives(self, positives: Ragged) -> Ragged:
        """The same relation by rows within; all of its passages must be among them."""
        return Ragged(positives.offsets, self._within(positives.values))

    def extra(self, extra: Mapping[str, Hits]) -> dict[str, Hits]:
        """The same lists by rows within; a hit that is not among them is no hit."""
        return {name: self._hits(hits) for name, hits in extra.items()}

    def back(self, table: NegativeTable) -> NegativeTable:
        """A table mined within, by rows of the corpus; -1 stays."""
        positives = None if table.positives is None else self._outside(table.positives)
        return replace(table, rows=self._outside(table.rows), positives=positives)

    def reranker(self, reranker: Reranker) -> Reranker:
        """The same scores, asked for by rows within."""
        return lambda queries, rows: reranker(queries, self.rows[rows])

    def _outside(self, rows: Int64[np.ndarray, "*S"]) -> Int64[np.ndarray, "*S"]:
        there = rows >= 0
        return np.where(there, self.rows[np.where(there, rows, 0)], -1)

    def _hits(self, hits: Hits) -> Hits:
        kept = np.isin(hits.rows, self.rows)
        rows = np.where(kept, np.searchsorted(self.rows, hits.rows), -1)
        return Hits(np.where(kept, hits.scores, np.float32(-np.inf)), rows)

    def _within(self, rows: Int64[np.ndarray, " V"]) -> Int64[np.ndarray, " V"]:
        assert np.isin(rows, self.rows).all(), "a positive lies outside the passages that are mined"
        return np.searchsorted(self.rows, rows)
