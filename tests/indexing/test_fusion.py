from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.indexing.fusion import reciprocal_rank_fusion


def make_run(rng, num_queries, width, corpus):
    rows = np.full((num_queries, width), -1, dtype=np.int64)
    for row in rows:
        count = rng.integers(0, min(width, corpus) + 1)
        row[:count] = rng.permutation(corpus)[:count]
    scores = np.where(rows < 0, -np.inf, -np.arange(width)).astype(np.float32)
    return Hits(scores, rows)


def slow_fusion(runs, k, constant):
    out = []
    for query in range(len(runs[0].rows)):
        scores = defaultdict(float)
        for run in runs:
            for rank, row in enumerate(run.rows[query].tolist(), start=1):
                if row >= 0:
                    scores[row] += 1 / (constant + rank)
        best = sorted((-np.float32(score), row) for row, score in scores.items())[:k]
        out.append([(-score, row) for score, row in best] + [(-np.inf, -1)] * (k - len(best)))
    return out


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 9), st.sampled_from([0, 1, 60]))
def test_fusion_equals_slow_loop(seed, num_runs, k, constant):
    rng = np.random.default_rng(seed)
    runs = [make_run(rng, 4, int(rng.integers(1, 8)), 7) for _ in range(num_runs)]
    fused = reciprocal_rank_fusion(runs, k=k, constant=constant)
    pairs = [
        list(zip(s, r, strict=True)) for s, r in zip(fused.scores.tolist(), fused.rows.tolist(), strict=True)
    ]
    expected = [[(float(score), row) for score, row in line] for line in slow_fusion(runs, k, constant)]
    assert pairs == expected


def test_first_in_both_runs_scores_two_sixty_firsts():
    run = Hits(np.array([[5.0, 1.0]], np.float32), np.array([[3, 8]]))
    fused = reciprocal_rank_fusion([run, run], k=2)
    np.testing.assert_array_equal(fused.rows, [[3, 8]])
    np.testing.assert_allclose(fused.scores, [[2 / 61, 2 / 62]], rtol=1e-6)


def test_passages_with_swapped_ranks_tie_and_come_in_row_order():
    one = Hits(np.zeros((1, 2), np.float32), np.array([[9, 2]]))
    two = Hits(np.zeros((1, 2), np.float32), np.array([[2, 9]]))
    np.testing.assert_array_equal(reciprocal_rank_fusion([one, two], k=2).rows, [[2, 9]])


def test_k_below_one_is_an_error():
    run = Hits(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.int64))
    with pytest.raises(InputError, match="k is 0"):
        reciprocal_rank_fusion([run], k=0)
