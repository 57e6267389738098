"""One process alone; what ranks share is told in test_rank_runs.py."""

import numpy as np
import torch

from retrieval_cl.core import shares
from retrieval_cl.mining.searchers import exact_search
from retrieval_cl.runs.sharing import Alone, over_all_ranks

CPU = torch.device("cpu")


def test_one_process_shares_with_nobody():
    assert isinstance(over_all_ranks(CPU), Alone)


def test_pairs_are_scored_in_windows_that_only_their_number_decides(monkeypatch):
    monkeypatch.setattr(shares, "MIN_ROWS", 16)
    asked = []

    def score(queries, passages):
        asked.append(len(queries))
        return np.cos(queries * 3.0 + passages)

    queries, passages = np.divmod(np.arange(70), 9)
    found = Alone().reranker(score)(queries, passages)
    assert np.array_equal(found, np.cos(queries * 3.0 + passages).astype(np.float32))
    assert asked == [14] * 5


def test_searches_are_those_of_the_miner():
    rng = np.random.default_rng(0)
    queries, passages = (rng.normal(size=(rows, 6)).astype(np.float32) for rows in (5, 40))
    expected = exact_search(passages)(queries, 3)
    for search in (Alone().exact(passages, device="cpu"), Alone().search(exact_search(passages))):
        found = search(queries, 3)
        assert np.array_equal(found.rows, expected.rows) and np.array_equal(found.scores, expected.scores)
