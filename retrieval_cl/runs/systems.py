"""The systems that are compared: search by words, by vectors, and both fused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float32

from retrieval_cl.core.hits import Hits
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.encoders.words import split_words
from retrieval_cl.indexing import exact
from retrieval_cl.indexing.bm25 import Lexical, tune
from retrieval_cl.indexing.bm25_tuning import B_GRID, K1_GRID
from retrieval_cl.indexing.fusion import reciprocal_rank_fusion
from retrieval_cl.runs.config import EvaluationConfig, IndexConfig
from retrieval_cl.runs.judged import Judged, judged_queries
from retrieval_cl.sources.records import RetrievalData, Texts

# Where nothing can be tuned: the values of Anserini, which most papers' BM25 have.
DEFAULT_K1, DEFAULT_B = 0.9, 0.4


@final
@dataclass(frozen=True, eq=False)
class Words:
    """BM25 over a corpus.

    Attributes:
        lexical: the weighted words.
        tuned_on: dev queries that chose k1 and b; 0 where they are set or the defaults.
    """

    lexical: Lexical
    tuned_on: int

    def describe(self) -> str:
        """k1, b, and where they come from."""
        how = f"best of the grid on {self.tuned_on:,} dev queries" if self.tuned_on else "not tuned"
        return f"k1 {self.lexical.k1:g}, b {self.lexical.b:g} ({how})"


def weigh_words(passages: Texts, *, data: RetrievalData | None = None, config: IndexConfig) -> Words:
    """Fits BM25; k1 and b are the config's, else the best on the dev split of `data`, else the defaults."""
    words = split_words(passages.full())
    k1, b, tuned_on = config.k1, config.b, 0
    if (k1 is None or b is None) and data is not None and "dev" in data.splits:
        dev = judged_queries(data, "dev")
        tuned = tune(
            words,
            split_words(query_texts(data, dev)),
            dev.right(),
            k1_grid=K1_GRID if k1 is None else (k1,),
            b_grid=B_GRID if b is None else (b,),
        )
        k1, b, tuned_on = tuned.k1, tuned.b, tuned.num_queries
    k1, b = (DEFAULT_K1 if k1 is None else k1), (DEFAULT_B if b is None else b)
    return Words(Lexical.fit(words, k1=k1, b=b), tuned_on)


def search_words(words: Words, data: RetrievalData, judged: Judged, *, k: int) -> Hits:
    """The k best passages of each judged query by BM25."""
    return words.lexical.search(split_words(query_texts(data, judged)), k=k)


def search_vectors(
    encoder: TextEncoder,
    data: RetrievalData,
    judged: Judged,
    *,
    k: int,
    progress: Callable[[int, int], None] | None = None,
) -> Hits:
    """The k nearest passages of each judged query, by exact search over the whole corpus in float32."""
    passages: Float32[np.ndarray, "M D"] = encoder.encode(
        data.passages.full(), kind="passage", progress=progress
    )
    queries = encoder.encode(query_texts(data, judged), kind="query")
    return exact.search(queries, passages, k=k, device=encoder.device)


def fuse(dense: Hits, words: Hits, *, config: EvaluationConfig) -> Hits:
    """Both lists by reciprocal rank."""
    return reciprocal_rank_fusion((dense, words), k=config.depth, constant=config.rank_constant)


def query_texts(data: RetrievalData, judged: Judged) -> list[str]:
    """The texts of the judged queries."""
    texts = data.queries.full()
    return [texts[row] for row in judged.queries.tolist()]
