"""What happens at a round's start: the train queries are mined for with the current weights."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import final

from retrieval_cl.core.hits import Hits
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.samples import ScoreSamples, score_samples
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.reporting.facts import MiningRound
from retrieval_cl.runs.prepare import PreparedText, given_hits
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.runs.train_queries import mine_train_queries
from retrieval_cl.runs.vectors import Vectors
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.run import Run


@final
class RoundMiner:
    """Mines for a run; `Remine` calls it.

    Attributes:
        rounds: what each mining did, oldest first.
        scores: cosines under the weights of the last mining; None before the first.
    """

    def __init__(
        self,
        text: PreparedText,
        vectors: Vectors,
        *,
        mining: MiningConfig,
        extra: Mapping[str, Hits] | None,
        watch: Stopwatch,
        log: MetricsLog,
    ) -> None:
        """`extra`: further candidates by source name, row i for the i-th train query."""
        self._text = text
        self._vectors = vectors
        self._mining = mining
        self._queries = text.data.splits["train"].judged_queries
        self._positives = text.data.splits["train"].relevant(len(text.data.queries)).take(self._queries)
        self._extra = {**given_hits(text.data, self._queries), **(extra or {})}
        self._watch = watch
        self._log = log
        self.rounds: list[MiningRound] = []
        self.scores: ScoreSamples | None = None

    def __call__(self, run: Run) -> NegativeTable:
        """The table of the run's round."""
        with self._watch("mine"):
            return self._mine(run)

    def _mine(self, run: Run) -> NegativeTable:
        started = perf_counter()
        queries, passages = self._vectors.queries(self._queries), self._vectors.passages()
        table, counts = mine_train_queries(
            self._text,
            queries,
            passages,
            config=self._mining,
            extra=self._extra,
            seed=run.config.seed,
            round=run.round,
            device=str(run.device),
        )
        self.scores = score_samples(table, queries, passages, positives=self._positives, seed=run.config.seed)
        self.rounds.append(MiningRound(run.round, counts, seconds=perf_counter() - started))
        self._log.append(run.step, round=run.round, mining=counts.to_dict())
        return table
