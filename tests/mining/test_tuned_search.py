"""With a target recall the miner's FAISS index is searched as widely as that takes, or refused."""

import numpy as np
import pytest
from pydantic import ValidationError

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing import exact
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.searchers import build_search
from retrieval_cl.runs.mine_recall import measure_search

pytest.importorskip("faiss")
RNG = np.random.default_rng(0)
PASSAGES = RNG.standard_normal((2000, 16)).astype(np.float32)
QUERIES = (PASSAGES[:150] + 0.5 * RNG.standard_normal((150, 16))).astype(np.float32)


def search_of(factory="IVF64,Flat", target=None):
    config = MiningConfig(factory=factory, target_recall=target, depth=20)
    return build_search(PASSAGES, config, query_vectors=QUERIES, seed=0), config


def recall_of(factory="IVF64,Flat", target=None):
    search, config = search_of(factory, target)
    return measure_search(search, config, queries=QUERIES, passages=PASSAGES, seed=0).mean


@pytest.mark.parametrize("factory", ["IVF64,Flat", "IVF64,SQ8", "HNSW8"])
def test_a_higher_target_is_reached_by_a_wider_search(factory):
    untuned, low, high = (recall_of(factory, target) for target in (None, 0.5, 0.99))
    assert 0.5 <= low < untuned and low < 0.99 <= high


def test_the_recall_measured_afterwards_is_that_of_the_slow_count():
    search, _ = search_of(target=0.9)
    found, right = search(QUERIES, 20).rows, exact.search(QUERIES, PASSAGES, k=20).rows
    shares = [len(set(some) & set(all_)) / 20 for some, all_ in zip(found, right, strict=True)]
    assert recall_of(target=0.9) == pytest.approx(np.mean(shares)) and np.mean(shares) >= 0.9


def test_the_hits_carry_the_scores_and_the_order_of_exact_search():
    hits, right = search_of(target=1.0)[0](QUERIES, 20), exact.search(QUERIES, PASSAGES, k=20)
    np.testing.assert_array_equal(hits.rows, right.rows)
    np.testing.assert_array_equal(hits.scores, right.scores)


def test_an_index_that_cannot_reach_the_target_is_refused_in_a_line_that_names_the_settings():
    with pytest.raises(
        InputError, match=r"reaches .* at most .*finer mining\.factory .*mining\.target_recall"
    ):
        search_of("PQ2x4", target=1.0)


def test_a_target_without_an_index_is_refused():
    with pytest.raises(
        ValidationError, match=r"target_recall 0\.9 has no effect on exact search; set factory"
    ):
        MiningConfig(target_recall=0.9)
