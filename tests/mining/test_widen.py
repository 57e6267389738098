"""Short queries are searched deeper, those alone; what comes out is what the deeper depth gives at once."""

import numpy as np
from mining_reference import brute_search
from test_miner import mine

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.config import MiningConfig

VECTORS = np.random.default_rng(4).normal(size=(40, 6)).astype(np.float32)
GIVEN = {
    "queries": np.arange(9),
    "positives": Ragged.from_lists([[row] for row in range(9)]),
    "groups": np.arange(40),
    "seed": 0,
    "round": 0,
}
RULES = {"num_negatives": 3, "relative_margin": None, "max_score": 4.0}


def test_widened_queries_equal_a_deeper_search_and_the_others_the_shallow_one():
    asked = []

    def search(queries, k):
        asked.append((len(queries), k))
        return brute_search(VECTORS)(queries, k)

    shallow, _ = mine(VECTORS[:9], VECTORS, config=MiningConfig(depth=4, **RULES), **GIVEN)
    deep, _ = mine(VECTORS[:9], VECTORS, config=MiningConfig(depth=8, **RULES), **GIVEN)
    config = MiningConfig(depth=4, shortage="widen", widest=8, **RULES)
    short = (shallow.rows < 0).any(axis=1)
    assert 0 < short.sum() < 9
    for chunk_size in (9, 2):
        table, counts = mine(
            VECTORS[:9], VECTORS, config=config, search=search, chunk_size=chunk_size, **GIVEN
        )
        np.testing.assert_array_equal(table.rows, np.where(short[:, None], deep.rows, shallow.rows))
        np.testing.assert_array_equal(table.queries, np.arange(9))
        assert counts.widened == short.sum() and counts.missing == (table.rows < 0).sum()
    assert asked[:2] == [(9, 4), (min(int(short.sum()), 4), 8)], "only the short ones, in shorter chunks"
