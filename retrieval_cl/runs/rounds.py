"""What happens at a round's start: the train queries are mined for with the current weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import final

import numpy as np

from retrieval_cl.core.hits import Hits
from retrieval_cl.mining.candidates import previous_hits
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.counts import MiningCounts
from retrieval_cl.mining.samples import ScoreSamples, score_samples
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.reporting.facts import MiningRound
from retrieval_cl.runs.further_candidates import further_hits
from retrieval_cl.runs.prepare import PreparedText, given_hits
from retrieval_cl.runs.refresh import Refresh
from retrieval_cl.runs.stopwatch import Stopwatch
from retrieval_cl.runs.text_miner import searched_rows
from retrieval_cl.runs.train_queries import mine_train_queries
from retrieval_cl.runs.vectors import Vectors
from retrieval_cl.training.metrics import MetricsLog
from retrieval_cl.training.run import Run


@final
@dataclass(frozen=True, eq=False)
class MinedFacts:
    """What one mining did.

    Attributes:
        scores: cosines under the weights that mined.
        seconds: wall time, encoding included.
    """

    round: int
    counts: MiningCounts
    scores: ScoreSamples
    seconds: float


@final
@dataclass(frozen=True, eq=False)
class RoundTask:
    """All that mining for a round needs beside the weights.

    Attributes:
        extra: further candidates by source name, row i for the i-th train query.
        seed: of the run.
    """

    text: PreparedText
    mining: MiningConfig
    extra: Mapping[str, Hits]
    seed: int

    def mine(
        self, vectors: Vectors, *, round: int, device: str, refresh: Refresh | None = None
    ) -> tuple[NegativeTable, MinedFacts]:
        """The table of the round by the weights behind `vectors`; a function of them and the task alone.

        Whoever shares those takes part. `refresh` gives the passages' vectors where not all of them are
        embedded anew.
        """
        started = perf_counter()
        train, num_queries = self.text.data.splits["train"], len(self.text.data.queries)
        queries = vectors.queries(train.judged_queries)
        passages = vectors.passages() if refresh is None else refresh.passages(queries, device=device)
        table, counts = mine_train_queries(
            self.text,
            queries,
            passages,
            config=self.mining,
            extra=self.extra,
            seed=self.seed,
            round=round,
            device=device,
            sharing=vectors.sharing,
        )
        positives = train.relevant(num_queries).take(train.judged_queries)
        scores = score_samples(table, queries, passages, positives=positives, seed=self.seed)
        return table, MinedFacts(round, counts, scores, perf_counter() - started)


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
        refresh: Refresh | None = None,
    ) -> None:
        """`extra`: further candidates by source name, row i for the i-th train query."""
        self._text = text
        self._vectors = vectors
        self._mining = mining
        queries = text.data.splits["train"].judged_queries
        self._extra = {**given_hits(text.data, queries), **(extra or {})}
        self._has_further = False
        if "previous" in mining.quotas:
            # Before the first table there is none to take from.
            self._extra["previous"] = _nothing(len(queries))
        self._watch = watch
        self._log = log
        self._refresh = refresh
        self.rounds: list[MiningRound] = []
        self.scores: ScoreSamples | None = None

    def __call__(self, run: Run) -> NegativeTable:
        """The table of the run's round."""
        with self._watch("mine"), self._vectors.sharing.together():
            table, facts = self.task(run, run.negatives).mine(
                self._vectors, round=run.round, device=str(run.device), refresh=self._refresh
            )
            self.note(run, facts)
            if self._refresh is not None:
                self._refresh.keep(run)
            return table

    def task(self, run: Run, previous: NegativeTable | None) -> RoundTask:
        """What it mines for a run. `previous`: the table that a quota of source `previous` takes from."""
        if not self._has_further:
            # These lists do not change with the weights.
            rows = searched_rows(self._text, self._mining)
            self._extra |= further_hits(
                self._text, rows, config=self._mining, given=self._extra, device=str(run.device)
            )
            self._has_further = True
        extra = dict(self._extra)
        if previous is not None and "previous" in extra:
            extra["previous"] = previous_hits(previous, self._text.data.splits["train"].judged_queries)
        return RoundTask(self._text, self._mining, extra, run.config.seed)

    def note(self, run: Run, facts: MinedFacts) -> None:
        """Keeps and logs what a mining did, here or in the background."""
        self.scores = facts.scores
        further = {} if self._refresh is None else self._refresh.further()
        self.rounds.append(MiningRound(facts.round, facts.counts, seconds=facts.seconds, further=further))
        self._log.append(run.step, round=facts.round, mining=facts.counts.to_dict())


def _nothing(num_queries: int) -> Hits:
    return Hits(np.full((num_queries, 1), -np.inf, dtype=np.float32), np.full((num_queries, 1), -1))
