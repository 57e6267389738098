"""The recall of the miner's FAISS search is the share of the exact hits that it finds."""

import numpy as np
import pytest

from retrieval_cl.core.hits import Hits
from retrieval_cl.indexing import exact
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.searchers import exact_search, faiss_search
from retrieval_cl.runs.mine_recall import measure_search

RNG = np.random.default_rng(0)
QUERIES, PASSAGES = (RNG.standard_normal((rows, 6)).astype(np.float32) for rows in (40, 300))
IVF = MiningConfig(factory="IVF8,Flat", depth=20)


def measure(search, config):
    return measure_search(search, config, queries=QUERIES, passages=PASSAGES, seed=0)


def test_an_exact_search_is_not_measured():
    assert measure(exact_search(PASSAGES), MiningConfig()) is None


def test_recall_is_that_of_a_slow_count():
    search = faiss_search(PASSAGES, factory="IVF8,Flat")
    found, right = search(QUERIES, 20).rows, exact.search(QUERIES, PASSAGES, k=20).rows
    shares = [len(set(some[some >= 0]) & set(all_)) / 20 for some, all_ in zip(found, right, strict=True)]

    def half(queries, k):
        hits = search(queries, k)
        keep = np.arange(k) < k // 2
        return Hits(np.where(keep, hits.scores, np.float32(-np.inf)), np.where(keep, hits.rows, -1))

    measured = measure(search, IVF)
    assert measured.mean == pytest.approx(np.mean(shares)) and measured.k == 20
    assert (measured.num_queries, measured.queries) == (40, "given")
    assert measure(half, IVF).mean <= 0.5


def test_depth_beyond_the_passages_asks_for_all_of_them():
    config = MiningConfig(factory="Flat", depth=1000)
    assert measure(faiss_search(PASSAGES, factory="Flat"), config).mean == 1
