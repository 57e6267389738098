"""Draws equal slow loops, follow their weights, and depend on no neighbouring query."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mining_reference import candidates_of, random_candidates

from retrieval_cl.mining import sampling
from retrieval_cl.mining.rules import Candidates

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=40, deadline=None)


@few
@given(seed=seeds, num=st.integers(1, 9))
def test_draw_equals_the_loop_with_ties_by_row(seed, num):
    rng = np.random.default_rng(seed)
    candidates = random_candidates(rng)
    keys = rng.integers(0, 3, size=candidates.rows.shape).astype(np.float64)
    columns = sampling.draw(candidates, keys, num=num)
    for query in range(len(keys)):
        row, score = candidates.rows[query], candidates.scores[query]
        kept = [c for c in range(len(row)) if candidates.kept[query, c]]
        best = sorted(kept, key=lambda c: (-keys[query, c], row[c]))[:num]
        hardest_first = sorted(best, key=lambda c: (-score[c], row[c]))
        assert columns[query].tolist() == hardest_first + [-1] * (num - len(hardest_first))


def test_unscored_dropped_candidates_do_not_disturb_the_draw():
    candidates = candidates_of([[4, 3, 2]], [[np.nan, 0.5, 0.25]], [[False, True, True]])
    assert sampling.draw(candidates, sampling.top_keys(candidates), num=3).tolist() == [[1, 2, -1]]


def test_uniform_draws_every_candidate_equally_often():
    candidates = candidates_of(np.tile(np.arange(8), (4000, 1)), np.tile(np.linspace(1, 0, 8), (4000, 1)))
    keys = sampling.uniform_keys(candidates, np.arange(4000), seed=3, round=0)
    drawn = np.bincount(sampling.draw(candidates, keys, num=2).ravel(), minlength=8)
    assert np.abs(drawn - 1000).max() < 5 * math.sqrt(1000)


def test_weighted_draw_of_one_follows_the_softmax():
    scores = np.array([0.9, 0.8, 0.6, 0.5])
    candidates = candidates_of(np.tile(np.arange(4), (20_000, 1)), np.tile(scores, (20_000, 1)))
    keys = sampling.weighted_keys(candidates, np.arange(20_000), seed=5, round=1, temperature=0.2)
    drawn = np.bincount(sampling.draw(candidates, keys, num=1).ravel(), minlength=4) / 20_000
    weights = np.exp(scores / 0.2)
    np.testing.assert_allclose(drawn, weights / weights.sum(), atol=0.015)


def test_weighted_draw_of_two_follows_sequential_sampling():
    scores = np.array([0.6, 0.4, 0.1])
    candidates = candidates_of(np.tile(np.arange(3), (20_000, 1)), np.tile(scores, (20_000, 1)))
    keys = sampling.weighted_keys(candidates, np.arange(20_000), seed=6, round=1, temperature=0.3)
    left_out = 3 - sampling.draw(candidates, keys, num=2).sum(axis=1)
    p = np.exp(scores / 0.3)
    p /= p.sum()
    # The third is left out when the other two come first, in either order.
    last = [
        sum(p[i] * p[j] / (1 - p[i]) for i in range(3) for j in range(3) if len({i, j, k}) == 3)
        for k in range(3)
    ]
    np.testing.assert_allclose(np.bincount(left_out, minlength=3) / 20_000, last, atol=0.015)


@pytest.mark.parametrize("seed", range(5))
def test_draws_do_not_depend_on_the_neighbouring_queries(seed):
    rng = np.random.default_rng(seed)
    candidates, queries = random_candidates(rng, num_queries=6), np.array([9, 2, 40, 7, 1, 3])
    together = sampling.weighted_keys(candidates, queries, seed=seed, round=4, temperature=0.1)
    order = rng.permutation(6)
    one_by_one = [
        sampling.weighted_keys(
            Candidates(
                *(
                    getattr(candidates, name)[[place]]
                    for name in ("rows", "scores", "ranks", "sources", "kept")
                )
            ),
            queries[[place]],
            seed=seed,
            round=4,
            temperature=0.1,
        )
        for place in order
    ]
    np.testing.assert_array_equal(np.concatenate(one_by_one), together[order])
