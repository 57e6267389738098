"""Score samples are scores of the pairs they name, and the same for the same seed."""

import numpy as np
import pytest

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.samples import score_samples
from retrieval_cl.mining.table import SOURCES, NegativeTable


@pytest.fixture
def ground():
    """Passage p scores p / 16 with query 0 and 1 + p / 16 with query 1: a score tells its pair."""
    passages = np.stack([np.ones(16), np.arange(16) / 16], axis=1).astype(np.float32)
    queries = np.array([[0, 1], [1, 1]], dtype=np.float32)
    rows = np.array([[3, 4, 9], [5, -1, -1]])
    sources = np.array([[0, 1, SOURCES.index("random")], [0, -1, -1]], dtype=np.int8)
    table = NegativeTable(
        round=0,
        queries=np.array([30, 40]),
        rows=rows,
        scores=np.full(rows.shape, 77, dtype=np.float32),  # a reranker's: of no use beside cosines
        ranks=np.full(rows.shape, -1, dtype=np.int32),
        sources=sources,
    )
    return table, queries, passages, Ragged.from_lists([[0, 1], [2]])


def test_small_populations_are_taken_whole_without_random_filler(ground):
    table, queries, passages, positives = ground
    samples = score_samples(table, queries, passages, positives=positives, seed=0, size=500)
    assert sorted(samples.positives.tolist()) == [0, 1 / 16, 1 + 2 / 16]
    assert sorted(samples.negatives.tolist()) == [3 / 16, 4 / 16, 1 + 5 / 16]


def test_random_pairs_hold_no_positive_and_reach_all_others(ground):
    table, queries, passages, positives = ground
    samples = score_samples(table, queries, passages, positives=positives, seed=0, size=2000)
    pairs = {p / 16 for p in range(2, 16)} | {1 + p / 16 for p in range(16) if p != 2}
    assert set(samples.random.tolist()) == pairs


def test_same_seed_gives_same_sample_of_the_asked_size(ground):
    table, queries, passages, positives = ground
    one, two, other = (
        score_samples(table, queries, passages, positives=positives, seed=seed, size=2) for seed in (5, 5, 8)
    )
    for kind in ("positives", "negatives", "random"):
        np.testing.assert_array_equal(getattr(one, kind), getattr(two, kind))
    assert len(one.positives) == len(one.negatives) == 2
    assert one.random.tolist() != other.random.tolist()
