"""Mines for the train queries of prepared texts, for all of them or for those that hide right answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Float32, Int64

from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.among import Among
from retrieval_cl.mining.candidates import Search
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.counts import MiningCounts
from retrieval_cl.mining.estimate import HeldBack
from retrieval_cl.mining.miner import mine
from retrieval_cl.mining.samples import ScoreSamples, score_samples
from retrieval_cl.mining.scorers import Reranker, vector_scorer
from retrieval_cl.mining.searchers import build_search
from retrieval_cl.mining.shingles import ShingleSets
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.runs.further_candidates import further_hits, reranker_of, shingles_of
from retrieval_cl.runs.prepare import PreparedText
from retrieval_cl.runs.remembering import remembering
from retrieval_cl.runs.sharing import Alone, Sharing
from retrieval_cl.sources.records import RetrievalData

_ALONE = Alone()


@final
@dataclass(frozen=True, eq=False)
class TextMiner:
    """What a table is mined with, made once; passages are numbered within those searched.

    Attributes:
        queries: query row of each query number: the train queries.
        query_vectors: of these.
        among: the passages that are searched.
        passage_vectors: of these.
        corpus_vectors: of all passages.
        positives: passages known to match each query number.
        groups: item of each passage, below their number.
        alone: whether no earlier query has the text of this one.
        extra: further candidates.
        reranker: None for none.
        shingles: None for none.
        search: the dense search.
        config: of the run.
        seed: of the run.
        round: of mining.
    """

    queries: Int64[np.ndarray, " N"]
    query_vectors: Float32[np.ndarray, "N D"]
    among: Among
    passage_vectors: Float32[np.ndarray, "M D"]
    corpus_vectors: Float32[np.ndarray, "C D"]
    positives: Ragged
    groups: Int64[np.ndarray, " M"]
    alone: np.ndarray
    extra: Mapping[str, Hits]
    reranker: Reranker | None
    shingles: ShingleSets | None
    search: Search
    config: MiningConfig
    seed: int
    round: int

    @classmethod
    def prepare(
        cls,
        text: PreparedText,
        query_vectors: Float32[np.ndarray, "N D"],
        passage_vectors: Float32[np.ndarray, "M D"],
        *,
        extra: Mapping[str, Hits],
        config: MiningConfig,
        seed: int,
        device: str,
        memory_bytes: int,
        round: int = 0,
        sharing: Sharing = _ALONE,
    ) -> TextMiner:
        """Makes lists, index, reranker and shingles that the settings ask for.

        Args:
            text: tells what is known to match.
            query_vectors: of the train queries, in ascending order of their rows.
            passage_vectors: of the whole corpus.
            extra: further candidates by source name, row i for the i-th train query. Of those that the
                settings ask for, `lexical` and `second` are made here where they are not given.
            config: who is searched, and how.
            seed: of the run.
            device: where exact search computes; a FAISS index has a place of its own.
            memory_bytes: of exact search.
            round: of mining.
            sharing: who searches and scores; where it is among all ranks, each makes a miner and mines.

        Raises:
            InputError: what a setting names cannot be loaded or built.
        """
        queries = text.data.splits["train"].judged_queries
        among = Among(searched_rows(text, config))
        further = further_hits(
            text, among.rows, config=config, given=extra, device=device, memory_bytes=memory_bytes
        )
        extra = {**extra, **further}
        reranker = reranker_of(text, config, device=device)
        whole = len(among.rows) == len(passage_vectors)
        vectors = passage_vectors if whole else passage_vectors[among.rows]
        alone = np.zeros(len(queries), dtype=bool)
        alone[np.unique(text.query_groups[queries], return_index=True)[1]] = True
        return cls(
            queries=queries,
            query_vectors=query_vectors,
            among=among,
            passage_vectors=vectors,
            corpus_vectors=passage_vectors,
            positives=among.positives(text.known_passages().take(queries)),
            groups=np.unique(text.groups[among.rows], return_inverse=True)[1].astype(np.int64, copy=False),
            alone=alone,
            extra=among.extra(extra),
            reranker=None if reranker is None else sharing.reranker(among.reranker(reranker)),
            shingles=shingles_of(text, among.rows, config),
            search=sharing.exact(vectors, device=device, memory_bytes=memory_bytes)
            if config.factory is None
            else sharing.search(build_search(vectors, config, query_vectors=query_vectors, seed=seed)),
            config=config,
            seed=seed,
            round=round,
        )

    def mine(self) -> tuple[NegativeTable, MiningCounts]:
        """The table of all train queries, by rows of the corpus."""
        numbers = np.arange(len(self.queries), dtype=np.int64)
        table, counts = self._mine(numbers, self.positives, self.config)
        return self.among.back(table), counts

    def score(self, positives: Ragged) -> Float32[np.ndarray, " V"]:
        """The vectors' score of pairs of a query number and a passage row of the corpus."""
        return vector_scorer(self.query_vectors, self.corpus_vectors)(positives.rows, positives.values)

    def sample_scores(self, table: NegativeTable, positives: Ragged) -> ScoreSamples:
        """Scores of known, mined and random pairs, by rows of the corpus."""
        return score_samples(
            table, self.query_vectors, self.corpus_vectors, positives=positives, seed=self.seed
        )

    def to_hold_back(self) -> tuple[TextMiner, Ragged]:
        """The same miner, which remembers what it has found and scored, and what it may hide.

        Of queries with the same text one hides something: another that hides another part would tell of it.
        """
        reranker = None if self.reranker is None else remembering(self.reranker)
        kept = self.alone[self.positives.rows]
        hideable = Ragged.from_pairs(
            self.positives.rows[kept], self.positives.values[kept], len(self.positives)
        )
        return replace(self, search=remembering(self.search), reranker=reranker), hideable

    def held_back(self, held: HeldBack, margin: float | None) -> tuple[NegativeTable, MiningCounts]:
        """The table of those that hide something, by another margin; passages are those within."""
        config = self.config.model_copy(update={"relative_margin": margin})
        return self._mine(held.numbers, held.shown, config)

    def _mine(
        self, numbers: Int64[np.ndarray, " S"], positives: Ragged, config: MiningConfig
    ) -> tuple[NegativeTable, MiningCounts]:
        return mine(
            self.query_vectors[numbers],
            self.passage_vectors,
            queries=self.queries[numbers],
            positives=positives,
            groups=self.groups,
            config=config,
            seed=self.seed,
            round=self.round,
            extra={name: Hits(hits.scores[numbers], hits.rows[numbers]) for name, hits in self.extra.items()},
            reranker=self.reranker,
            shingles=self.shingles,
            search=self.search,
        )


def searched_rows(text: PreparedText, config: MiningConfig) -> Int64[np.ndarray, " S"]:
    """The passages that are searched: all, or those of train pairs, whatever dev and test judge."""
    return rows_to_search(text.data, config)


def rows_to_search(data: RetrievalData, config: MiningConfig) -> Int64[np.ndarray, " S"]:
    """The same of data that were not tokenised yet."""
    if config.candidates == "all":
        return np.arange(len(data.passages), dtype=np.int64)
    return np.unique(data.splits["train"].relevant(len(data.queries)).values)
