"""The split that is reported on, held out of training: what each system finds there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from retrieval_cl.config import RunConfig
from retrieval_cl.core.hits import Hits
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.runs.judged import Judged, judged_queries
from retrieval_cl.runs.scoreboard import Scoreboard, compare_systems
from retrieval_cl.runs.systems import Words, fuse, search_vectors, search_words, weigh_words
from retrieval_cl.sources.records import RetrievalData

BM25, HYBRID = "bm25", "hybrid"


@final
@dataclass(frozen=True, eq=False)
class HeldOut:
    """One split of a data set, BM25's answers to its queries, and the settings of the comparison."""

    data: RetrievalData
    judged: Judged
    words: Words
    bm25: Hits
    config: RunConfig

    @classmethod
    def of(cls, data: RetrievalData, config: RunConfig) -> HeldOut:
        """Tunes BM25 on dev and searches with it.

        Raises:
            InputError: the data has no such split, or none of its queries has a relevant passage.
        """
        judged = judged_queries(data, config.evaluation.split)
        words = weigh_words(data.passages, data=data, config=config.index)
        return cls(data, judged, words, search_words(words, data, judged, k=config.evaluation.depth), config)

    def search(self, encoder: TextEncoder) -> Hits:
        """What the encoder finds."""
        return search_vectors(encoder, self.data, self.judged, k=self.config.evaluation.depth)

    def compare(self, found: dict[str, Hits], *, best: str) -> Scoreboard:
        """BM25, the given systems, and the hybrid of `best` and BM25, each tested against what came before.

        Args:
            found: system -> its hits.
            best: the system that is fused with BM25 and tested against all others.
        """
        hybrid = fuse(found[best], self.bm25, config=self.config.evaluation)
        others = [name for name in found if name != best]
        pairs = [(best, BM25), *((best, name) for name in others), (HYBRID, BM25), (HYBRID, best)]
        systems = {BM25: self.bm25, **found, HYBRID: hybrid}
        return compare_systems(systems, self.judged, split=self.config.evaluation.split, pairs=pairs)
