"""Random filler brings back nothing found, refused or known, and leaves no place empty that it could fill."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mining_reference import candidates_of, random_candidates

from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining import filler as mining_filler

few = settings(max_examples=40, deadline=None)


@few
@given(seed=st.integers(0, 2**32 - 1), num_passages=st.integers(1, 150), missing=st.integers(0, 6))
def test_random_filler_is_new_to_the_query_and_complete(seed, num_passages, missing):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, rng.integers(1, num_passages + 1), size=num_passages)
    groups = np.unique(groups, return_inverse=True)[1]
    candidates = random_candidates(rng, num_passages=num_passages, num_columns=min(7, num_passages))
    queries = rng.choice(100, size=4, replace=False)
    positives = Ragged.from_lists([[int(rng.integers(num_passages))] for _ in range(4)])
    wanted = np.array([missing, 0, max(0, missing - 1), 1])
    filler = mining_filler.draw_random(
        wanted, queries, candidates=candidates, positives=positives, groups=groups, seed=seed, round=0
    )
    assert filler.shape == (4, wanted.max())
    for query in range(4):
        found = [row for row in candidates.rows[query].tolist() if row >= 0]
        refused = {groups[row] for row in [*found, *positives[query].tolist()]}
        drawn = [row for row in filler[query].tolist() if row >= 0]
        drawn_groups = [groups[row] for row in drawn]
        assert not refused & set(drawn_groups)
        assert len(set(drawn_groups)) == len(drawn)
        assert len(drawn) == min(wanted[query], len(set(groups.tolist()) - refused))
        assert filler[query].tolist() == drawn + [-1] * (filler.shape[1] - len(drawn))


def test_random_filler_is_spread_over_the_corpus_and_differs_by_round():
    num_queries = 5000
    candidates = candidates_of(np.zeros((num_queries, 1)), np.zeros((num_queries, 1)))
    arguments = {
        "candidates": candidates,
        "positives": Ragged.from_lists([[1]] * num_queries),
        "groups": np.arange(12),
        "seed": 0,
    }
    wanted, queries = np.full(num_queries, 2), np.arange(num_queries)
    filler = mining_filler.draw_random(wanted, queries, round=0, **arguments)
    drawn = np.bincount(filler.ravel(), minlength=12)
    assert drawn[:2].tolist() == [0, 0]
    assert np.abs(drawn[2:] - 1000).max() < 6 * math.sqrt(1000)
    assert (mining_filler.draw_random(wanted, queries, round=1, **arguments) != filler).mean() > 0.8
