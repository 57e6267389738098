"""Mining for the train queries of prepared texts, among all passages or those of train alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32

from retrieval_cl.core.hits import Hits
from retrieval_cl.mining.among import Among
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.counts import MiningCounts
from retrieval_cl.mining.miner import mine
from retrieval_cl.mining.searchers import build_search, exact_search
from retrieval_cl.mining.table import NegativeTable
from retrieval_cl.runs.further_candidates import further_hits, reranker_of, shingles_of
from retrieval_cl.runs.prepare import PreparedText


def mine_train_queries(
    text: PreparedText,
    query_vectors: Float32[np.ndarray, "N D"],
    passage_vectors: Float32[np.ndarray, "M D"],
    *,
    config: MiningConfig,
    extra: Mapping[str, Hits],
    seed: int,
    round: int,
    device: str = "cpu",
) -> tuple[NegativeTable, MiningCounts]:
    """Mines a table for the train queries, whose vectors are given in ascending order of their rows.

    Args:
        text: tells what is known to match.
        query_vectors: of the train queries.
        passage_vectors: of the whole corpus.
        config: who is searched (`candidates`), and how.
        extra: further candidates by source name, row i for the i-th train query. Of those that the settings
            ask for, `lexical` and `second` are made here where they are not given.
        seed: of the run.
        round: of mining.
        device: where exact search computes; a FAISS index has a place of its own.
    """
    train = text.data.splits["train"]
    queries, known = train.judged_queries, text.known_passages()
    among = Among(_searched(text, config))
    extra = {**extra, **further_hits(text, among.rows, config=config, given=extra, device=device)}
    reranker = reranker_of(text, config, device=device)
    vectors = passage_vectors if len(among.rows) == len(passage_vectors) else passage_vectors[among.rows]
    table, counts = mine(
        query_vectors,
        vectors,
        queries=queries,
        positives=among.positives(known.take(queries)),
        groups=text.groups[among.rows],
        config=config,
        seed=seed,
        round=round,
        extra=among.extra(extra),
        reranker=None if reranker is None else among.reranker(reranker),
        shingles=shingles_of(text, among.rows, config),
        search=exact_search(vectors, device=device)
        if config.factory is None
        else build_search(vectors, factory=config.factory),
    )
    return among.back(table), counts


def _searched(text: PreparedText, config: MiningConfig) -> np.ndarray:
    if config.candidates == "all":
        return np.arange(len(text.data.passages), dtype=np.int64)
    # All relevant passages of train, and nothing of the judgements of dev and test.
    return np.unique(text.data.splits["train"].relevant(len(text.data.queries)).values)
