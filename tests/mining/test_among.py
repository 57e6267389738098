"""Mining among some passages gives rows of the whole corpus, and only of those passages."""

import numpy as np

from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.among import Among
from retrieval_cl.mining.table import NegativeTable

AMONG = Among(np.array([2, 5, 9]))


def test_positives_are_numbered_within():
    within = AMONG.positives(Ragged.from_lists([[5], [2, 9]]))
    assert [list(within[0]), list(within[1])] == [[1], [0, 2]]


def test_a_hit_outside_is_no_hit():
    hits = Hits(np.array([[3.0, 2.0, 1.0, -np.inf]], dtype=np.float32), np.array([[9, 4, 2, -1]]))
    found = AMONG.extra({"lexical": hits})["lexical"]
    assert found.rows.tolist() == [[2, -1, 0, -1]]
    assert found.scores.tolist() == [[3.0, -np.inf, 1.0, -np.inf]]


def test_table_goes_back_and_minus_one_stays():
    table = NegativeTable(
        round=1,
        queries=np.array([0]),
        rows=np.array([[2, -1, 0]]),
        scores=np.zeros((1, 3), dtype=np.float32),
        ranks=np.zeros((1, 3), dtype=np.int32),
        sources=np.zeros((1, 3), dtype=np.int8),
    )
    assert AMONG.back(table).rows.tolist() == [[9, -1, 2]]
