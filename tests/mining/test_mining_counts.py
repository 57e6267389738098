"""Counts add up over chunks and turn into JSON as they are."""

import json

import numpy as np
from mining_reference import candidates_of

from retrieval_cl.mining.config import Quota
from retrieval_cl.mining.counts import Tally
from retrieval_cl.mining.table import NegativeTable


def table_of(rows, ranks, sources):
    rows = np.array(rows)
    return NegativeTable(
        round=0,
        queries=np.arange(len(rows)),
        rows=rows,
        scores=np.where(rows < 0, -np.inf, rows / 8).astype(np.float32),
        ranks=np.array(ranks, dtype=np.int32),
        sources=np.array(sources, dtype=np.int8),
    )


def removed(**rules):
    return {name: np.array(numbers) for name, numbers in rules.items()}


def test_counts_tell_what_was_found_removed_drawn_and_missing():
    tally = Tally()
    first = candidates_of(
        [[1, 2, 3], [4, 5, -1]], np.zeros((2, 3)), [[True, True, False], [False, True, True]]
    )
    second = candidates_of([[6, 7, 8]], np.zeros((1, 3)), [[False, False, False]])
    tally.add(first, removed(known=[1, 0], margin=[0, 1]), drawn=np.array([2, 1]), wanted=2)
    tally.add(second, removed(known=[0], margin=[3]), drawn=np.array([0]), wanted=2)
    table = table_of([[1, 2], [5, 9], [-1, -1]], [[0, 1], [1, -1], [-1, -1]], [[0, 0], [1, 3], [-1, -1]])
    counts = tally.counts(table, quotas={"lexical": Quota(least=1)})
    assert counts.found == {"dense": 8}
    assert counts.removed == {"known": 1, "margin": 4}
    assert (counts.num_queries, counts.kept) == (3, 3)
    assert counts.drawn == {"dense": 2, "lexical": 1, "random": 1}
    assert (counts.short_queries, counts.missing, counts.empty) == (2, 3, 2)
    assert counts.unmet == {"lexical": 2}  # one of three queries got a lexical one
    assert counts.mean_rank == 2 / 3
    assert counts.rank_quantiles[0.5] == 1 and counts.rank_quantiles[1.0] == 1
    assert counts.score_quantiles[0.0] == 1 / 8 and counts.score_quantiles[1.0] == 5 / 8


def test_counts_of_nothing_drawn_are_valid_json():
    counts = Tally().counts(table_of([[-1]], [[-1]], [[-1]]), quotas={})
    assert json.loads(json.dumps(counts.to_dict(), allow_nan=False))["mean_rank"] is None


def test_quantiles_are_named_by_their_share():
    counts = Tally().counts(table_of([[3]], [[7]], [[0]]), quotas={})
    assert counts.to_dict()["rank_quantiles"]["0.05"] == 7
    json.dumps(counts.to_dict(), allow_nan=False)
