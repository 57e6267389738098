"""Input the miner cannot use is refused with the row it stands in."""

import numpy as np
import pytest
from mining_reference import brute_search

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.miner import mine


def call(**changes):
    arguments = {
        "query_vectors": np.eye(4, dtype=np.float32)[:2],
        "passage_vectors": np.eye(4, dtype=np.float32),
        "queries": np.array([10, 20]),
        "positives": Ragged.from_lists([[0], [1]]),
        "groups": np.arange(4),
        "config": MiningConfig(num_negatives=2),
        "seed": 0,
        "round": 0,
    } | changes
    passage_vectors = arguments.pop("passage_vectors")
    search = brute_search(passage_vectors)
    return mine(arguments.pop("query_vectors"), passage_vectors, search=search, **arguments)


def spoiled(row, value):
    vectors = np.eye(4, dtype=np.float32)
    vectors[row] = value
    return vectors


def lexical(rows):
    rows = np.array(rows)
    return {"lexical": Hits(np.zeros(rows.shape, dtype=np.float32), rows)}


def test_arguments_of_this_file_are_fine_as_they_are():
    table, _ = call()
    assert (table.rows >= 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"passage_vectors": spoiled(2, np.nan)}, "passage vector row 2 holds NaN"),
        ({"passage_vectors": spoiled(3, np.inf)}, "passage vector row 3 holds NaN or infinity"),
        ({"passage_vectors": spoiled(1, 0)}, "passage vector row 1 is zero"),
        ({"query_vectors": spoiled(1, 0)[:2]}, "query vector row 1 is zero"),
        ({"query_vectors": np.eye(5, dtype=np.float32)[:2]}, "5 dimensions"),
        ({"passage_vectors": np.zeros((0, 4), dtype=np.float32), "groups": np.arange(0)}, "at least one row"),
        ({"positives": Ragged.from_lists([[0], []])}, "query row 20 has no positive"),
        ({"positives": Ragged.from_lists([[0], [4]])}, "query row 20: positive 4 .* 0 to 3"),
        ({"positives": Ragged.from_lists([[-1], [1]])}, "query row 10: positive -1"),
        ({"positives": Ragged.from_lists([[0], [1], [2]])}, "positives for 3"),
        ({"queries": np.array([20, 20])}, "query row 20 stands twice"),
        ({"extra": {"bm25": lexical([[0], [1]])["lexical"]}}, "'bm25': no such source"),
        ({"extra": lexical([[0]])}, "1 rows for 2 queries"),
        ({"extra": lexical([[0], [4]])}, "passage rows 0 to 4"),
        ({"extra": lexical([[0], [-2]])}, "passage rows -2"),
    ],
)
def test_unusable_input_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        call(**changes)
