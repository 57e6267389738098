"""Mining among images at a round's start: other images that the current weights take for the same."""

from __future__ import annotations

from time import perf_counter
from typing import final

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.relations import Ragged
from retrieval_cl.indexing.budget import DEFAULT_MEMORY
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.miner import mine
from retrieval_cl.mining.searchers import build_search, exact_search
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.reporting.facts import MiningRound
from retrieval_cl.runs.image_vectors import ImageVectors
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.run import Run


@final
class ImageMiner:
    """Mines for a run; `Remine` calls it. Every train image is a query, and a candidate of all others.

    Attributes:
        rounds: what each mining did, oldest first.
    """

    def __init__(
        self,
        vectors: ImageVectors,
        *,
        rows: Int64[np.ndarray, " N"],
        groups: Int64[np.ndarray, " N"],
        mining: MiningConfig,
        watch: Stopwatch,
        log: MetricsLog,
    ) -> None:
        """`rows` are the train images, `groups` their item ids: copies are never each other's negatives."""
        self._vectors = vectors
        self._rows = rows
        self._groups = np.unique(groups, return_inverse=True)[1].astype(np.int64, copy=False)
        self._mining = mining
        self._watch = watch
        self._log = log
        self.rounds: list[MiningRound] = []

    def __call__(self, run: Run) -> NegativeTable:
        """The table of the run's round, by image rows."""
        with self._watch("mine"):
            started = perf_counter()
            vectors = self._vectors.of(self._rows)
            numbers = np.arange(len(self._rows), dtype=np.int64)
            table, counts = mine(
                vectors,
                vectors,
                queries=numbers,
                positives=Ragged(np.arange(len(numbers) + 1, dtype=np.int64), numbers),
                groups=self._groups,
                config=self._mining,
                seed=run.config.seed,
                round=run.round,
                search=exact_search(vectors, device=str(run.device), memory_bytes=DEFAULT_MEMORY)
                if self._mining.factory is None
                else build_search(vectors, self._mining, query_vectors=vectors, seed=run.config.seed),
            )
            self.rounds.append(MiningRound(run.round, counts, seconds=perf_counter() - started))
            self._log.append(run.step, round=run.round, mining=counts.to_dict())
            return self._of_images(table)

    def _of_images(self, table: NegativeTable) -> NegativeTable:
        """The same table by rows of the data set instead of places among the train images."""
        rows = np.where(table.rows >= 0, self._rows[np.maximum(table.rows, 0)], -1)
        return NegativeTable(
            table.round, self._rows[table.queries], rows, table.scores, table.ranks, table.sources
        )
