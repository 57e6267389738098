"""Whatever searches, the hits carry the scores and the order of the exact rule."""

import numpy as np
import pytest
from mining_reference import brute_search

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.miner import mine
from retrieval_cl.mining.searchers import build_search


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(600, 24)).astype(np.float32)
    rows[100:120] = rows[:20]  # equal passages tie
    return rows[:200] + rows[200:400] / 4, rows


def relations(num_queries, num_passages):
    return {
        "queries": np.arange(num_queries) + 5,
        "positives": Ragged.from_lists([[query] for query in range(num_queries)]),
        "groups": np.arange(num_passages),
        "seed": 3,
        "round": 1,
    }


def assert_same_hits(one, other):
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_array_equal(one.scores, other.scores)


def test_exact_search_gives_the_bits_of_the_pair_rule(vectors):
    queries, passages = vectors
    found = build_search(passages, MiningConfig(), query_vectors=queries, seed=0)(queries, 30)
    assert_same_hits(found, brute_search(passages)(queries, 30))


def test_a_positive_scores_to_the_bit_as_when_it_is_found(vectors):
    # With a margin of 0 a copy of the positive is kept only if both scores are of the same bits.
    queries, passages = vectors
    config = MiningConfig(num_negatives=1, relative_margin=None, margin=0.0)
    table, _ = mine(queries[:20], passages, config=config, **relations(20, len(passages)))
    assert table.rows[:, 0].tolist() == list(range(100, 120))


def test_miner_with_its_own_search_is_the_same_for_any_chunk_size(vectors):
    queries, passages = vectors
    config = MiningConfig(depth=40, num_negatives=5, relative_margin=0.2, shortage="random")
    tables = [
        mine(queries, passages, config=config, chunk_size=size, **relations(200, len(passages)))[0]
        for size in (200, 64, 3)
    ]
    for table in tables[1:]:
        for name in ("rows", "scores", "ranks", "sources"):
            np.testing.assert_array_equal(getattr(table, name), getattr(tables[0], name))


def test_approximate_hits_carry_exact_scores_in_exact_order(vectors):
    pytest.importorskip("faiss")
    queries, passages = vectors
    config = MiningConfig(factory="IVF8,SQ8", depth=12)
    found = build_search(passages, config, query_vectors=queries, seed=0)(queries, 12)
    exact = brute_search(passages)(queries, len(passages))
    places = [
        [row.index(hit) for hit in hits]
        for row, hits in zip(exact.rows.tolist(), found.rows.tolist(), strict=True)
    ]
    assert places == [sorted(row) for row in places]
    np.testing.assert_array_equal(found.scores, np.take_along_axis(exact.scores, np.array(places), axis=1))


def test_flat_faiss_index_mines_as_exact_search_does(vectors):
    pytest.importorskip("faiss")
    queries, passages = vectors
    config = MiningConfig(depth=40, num_negatives=5)
    exact, _ = mine(queries, passages, config=config, **relations(200, len(passages)))
    flat = config.model_copy(update={"factory": "Flat"})
    by_faiss, _ = mine(queries, passages, config=flat, **relations(200, len(passages)))
    for name in ("rows", "scores", "ranks", "sources"):
        np.testing.assert_array_equal(getattr(by_faiss, name), getattr(exact, name))
