"""Candidates of an earlier round, and lists cut to what their quota takes."""

import numpy as np
import pytest

from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.candidates import previous_hits
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.miner import mine
from retrieval_cl.mining.quotas import shorten
from retrieval_cl.mining.scorers import vector_scorer
from retrieval_cl.mining.table import SOURCES, NegativeTable

RANDOM = SOURCES.index("random")
TABLE = NegativeTable(
    round=1,
    queries=np.array([7, 2, 11]),
    rows=np.array([[4, 5, 8], [1, 3, -1], [-1, -1, -1]]),
    scores=np.array([[0.5, 0.25, 0.1], [0.5, 0.2, -np.inf], [-np.inf] * 3], dtype=np.float32),
    ranks=np.array([[0, 4, -1], [9, -1, -1], [-1, -1, -1]], dtype=np.int32),
    sources=np.array([[0, 1, RANDOM], [0, RANDOM, -1], [-1, -1, -1]], dtype=np.int8),
)


def unit_rows(rng, *shape):
    rows = rng.normal(size=shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_previous_hits_are_what_was_found_not_what_was_drawn_at_random():
    hits = previous_hits(TABLE, np.array([2, 99, 7, 11, 0]))
    assert hits.rows.tolist() == [[1, -1, -1], [-1] * 3, [4, 5, -1], [-1] * 3, [-1] * 3]
    assert (hits.scores == -np.inf).all() and hits.scores.dtype == np.float32


def test_previous_hits_of_an_empty_table_are_none():
    # As many columns as a table has, and no line that a query could be found in.
    empty = NegativeTable(
        round=0,
        queries=np.zeros(0, dtype=np.int64),
        rows=np.zeros((0, 2), dtype=np.int64),
        scores=np.zeros((0, 2), dtype=np.float32),
        ranks=np.zeros((0, 2), dtype=np.int32),
        sources=np.zeros((0, 2), dtype=np.int8),
    )
    assert previous_hits(empty, np.array([3, 1])).rows.tolist() == [[-1, -1], [-1, -1]]


@pytest.fixture
def mine_with():
    """Mines 6 queries among 40 passages; returns the table, the counts and what every pair scores."""

    def call(extra, **settings):
        rng = np.random.default_rng(0)
        left, right = unit_rows(rng, 6, 8), unit_rows(rng, 40, 8)
        table, counts = mine(
            left,
            right,
            queries=np.arange(10, 16),
            positives=Ragged.from_lists([[row] for row in range(6)]),
            groups=np.arange(40),
            config=MiningConfig(depth=4, relative_margin=None, **settings),
            seed=0,
            round=1,
            extra=extra,
        )
        return table, counts, vector_scorer(left, right)

    return call


def test_negatives_of_an_earlier_round_are_drawn_again_and_scored_anew(mine_with):
    first, _, _ = mine_with({"lexical": Hits(*lists(30))}, quotas={"lexical": 1, "random": 2})
    previous = previous_hits(first, first.queries)
    table, _, score = mine_with({"previous": previous}, quotas={"previous": {"least": 1}})
    line, place = np.nonzero(table.sources == SOURCES.index("previous"))
    drawn_before = first.sources == SOURCES.index("lexical")
    # A passage that both lists hold belongs to the one that ranks it higher.
    found = zip(line.tolist(), table.rows[line, place].tolist(), strict=True)
    assert len(line) >= 4 and all(row in previous.rows[query] for query, row in found)
    assert (table.rows == 30).sum() == drawn_before.sum() == (first.rows == 30).sum()
    np.testing.assert_array_equal(table.scores[line, place], score(line, table.rows[line, place]))


def lists(*columns):
    """The same passages for all six queries."""
    rows = np.broadcast_to(np.array(columns, dtype=np.int64), (6, len(columns))).copy()
    return np.zeros(rows.shape, dtype=np.float32), rows


@pytest.mark.parametrize("wanted", [1, 3, None])
def test_quota_takes_as_many_candidates_of_a_list_as_it_says_the_best_first(mine_with, wanted):
    extra = {"lexical": Hits(*lists(30, 31, 32, 33, 34))}
    quota = {"least": 2} if wanted is None else {"candidates": wanted}
    table, counts, _ = mine_with(extra, quotas={"lexical": quota})
    assert counts.found["lexical"] == 6 * (wanted or 5)
    drawn = table.rows[table.sources == SOURCES.index("lexical")]
    assert set(drawn.tolist()) <= set(range(30, 30 + (wanted or 5)))


def test_lists_without_a_quota_stay_whole():
    given = {"lexical": Hits(*lists(1, 2, 3)), "second": Hits(*lists(4, 5))}
    config = MiningConfig(quotas={"lexical": {"candidates": 2}, "second": {"candidates": 9}})
    cut = shorten(given, config.source_quotas)
    assert cut["lexical"].rows[0].tolist() == [1, 2] and cut["second"].rows[0].tolist() == [4, 5]
    assert shorten(given, {})["lexical"].rows[0].tolist() == [1, 2, 3]
