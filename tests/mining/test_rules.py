"""Every rule equals a slow loop over queries and columns."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining import rules
from retrieval_cl.mining.rules import Candidates

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=40, deadline=None)


def random_candidates(rng, *, num_queries=5, num_columns=9, num_passages=12):
    """Two lists side by side with holes (-1), ties and negative scores; some places dropped before."""
    rows = rng.integers(-1, num_passages, size=(num_queries, num_columns))
    half = num_columns // 2
    ranks = np.concatenate([np.arange(half), np.arange(num_columns - half)]).astype(np.int32)
    return Candidates(
        rows=rows,
        scores=(rng.integers(-4, 5, size=rows.shape) / 4).astype(np.float32),
        ranks=np.broadcast_to(ranks, rows.shape),
        sources=np.zeros(rows.shape, dtype=np.int8),
        kept=(rows >= 0) & (rng.random(rows.shape) < 0.8),
    )


def random_groups(rng, num_passages=12):
    return rng.integers(0, num_passages // 2, size=num_passages)


def random_positives(rng, num_queries=5, num_passages=12):
    return Ragged.from_lists(
        [
            rng.choice(num_passages, size=rng.integers(1, 4), replace=False).tolist()
            for _ in range(num_queries)
        ]
    )


def expected(candidates, holds):
    """The slow loop: kept before, and `holds(query, column)`."""
    kept = np.zeros(candidates.rows.shape, dtype=bool)
    for query, column in np.ndindex(kept.shape):
        kept[query, column] = candidates.kept[query, column] and holds(query, column)
    return kept


@few
@given(seed=seeds)
def test_known_items_and_their_equals_are_dropped(seed):
    rng = np.random.default_rng(seed)
    candidates, groups, positives = random_candidates(rng), random_groups(rng), random_positives(rng)

    def unknown(query, column):
        return groups[candidates.rows[query, column]] not in {groups[row] for row in positives[query]}

    kept = rules.drop_known(candidates, positives=positives, groups=groups)
    np.testing.assert_array_equal(kept, expected(candidates, unknown))


@few
@given(seed=seeds)
def test_of_equal_candidates_the_best_ranked_stays(seed):
    rng = np.random.default_rng(seed)
    candidates, groups = random_candidates(rng), random_groups(rng)

    def is_best(query, column):
        row = candidates.rows[query]
        equals = [c for c in range(len(row)) if row[c] >= 0 and groups[row[c]] == groups[row[column]]]
        return column == min(equals, key=lambda c: (candidates.ranks[query, c], c))

    kept = rules.drop_duplicates(candidates, groups=groups)
    np.testing.assert_array_equal(kept, expected(candidates, is_best))


def test_copy_of_a_dropped_candidate_does_not_stand_in_for_it():
    hits = Hits(np.array([[0.9, 0.8, 0.7]], dtype=np.float32), np.array([[3, 1, 2]]))
    candidates = Candidates.from_hits(hits, source=0)
    groups = np.array([0, 1, 3, 3])  # rows 3 and 2 are copies
    windowed, _ = rules.apply_rules(
        candidates,
        {
            "rank_window": lambda c: rules.keep_ranks(c, rank_min=1, rank_max=3),
            "duplicate": lambda c: rules.drop_duplicates(c, groups=groups),
        },
    )
    np.testing.assert_array_equal(windowed.kept, [[False, True, False]])


@few
@given(seed=seeds, low=st.integers(0, 4), width=st.integers(1, 4))
def test_rank_window_counts_raw_ranks(seed, low, width):
    candidates = random_candidates(np.random.default_rng(seed))
    kept = rules.keep_ranks(candidates, rank_min=low, rank_max=low + width)
    np.testing.assert_array_equal(
        kept, expected(candidates, lambda q, c: low <= candidates.ranks[q, c] < low + width)
    )


def test_rank_window_is_not_moved_by_candidates_dropped_before():
    hits = Hits(np.linspace(1, 0, 6, dtype=np.float32)[None], np.arange(6)[None])
    candidates = Candidates.from_hits(hits, source=0)
    candidates, removed = rules.apply_rules(
        candidates,
        {
            "known": lambda c: c.kept & (c.rows > 1),
            "rank_window": lambda c: rules.keep_ranks(c, rank_min=2, rank_max=4),
        },
    )
    assert candidates.rows[candidates.kept].tolist() == [2, 3]
    assert {name: by_query.tolist() for name, by_query in removed.items()} == {
        "known": [2],
        "rank_window": [2],
    }


@few
@given(seed=seeds, limit=st.sampled_from([-0.5, 0.0, 0.25, 1.0]))
def test_absolute_limits_include_their_bound(seed, limit):
    candidates = random_candidates(np.random.default_rng(seed))
    scores = candidates.scores
    most, least = rules.keep_at_most(candidates, score=limit), rules.keep_at_least(candidates, score=limit)
    np.testing.assert_array_equal(most, expected(candidates, lambda q, c: scores[q, c] <= limit))
    np.testing.assert_array_equal(least, expected(candidates, lambda q, c: scores[q, c] >= limit))


@few
@given(seed=seeds, margin=st.sampled_from([0.0, 0.25, 0.5]))
def test_margins_equal_the_loop_for_scores_of_any_sign(seed, margin):
    rng = np.random.default_rng(seed)
    candidates = random_candidates(rng)
    scores = candidates.scores
    positive = (rng.integers(-4, 5, size=len(scores)) / 4).astype(np.float32)
    np.testing.assert_array_equal(
        rules.keep_below_positive(candidates, positive=positive, margin=margin),
        expected(candidates, lambda q, c: scores[q, c] <= positive[q] - margin),
    )
    np.testing.assert_array_equal(
        rules.keep_below_fraction(candidates, positive=positive, relative_margin=margin),
        expected(candidates, lambda q, c: scores[q, c] <= positive[q] - margin * abs(positive[q])),
    )


def test_relative_margin_never_keeps_a_candidate_above_a_negative_positive():
    hits = Hits(np.array([[-0.38, -0.40, -0.41, -0.43]], dtype=np.float32), np.arange(4)[None])
    candidates = Candidates.from_hits(hits, source=0)
    kept = rules.keep_below_fraction(
        candidates, positive=np.array([-0.4], dtype=np.float32), relative_margin=0.05
    )
    np.testing.assert_array_equal(kept, [[False, False, False, True]])  # the limit is -0.42


@few
@given(seed=seeds)
def test_weakest_and_strongest_positive_equal_the_loop(seed):
    rng = np.random.default_rng(seed)
    positives = random_positives(rng)
    scores = rng.normal(size=len(positives.values)).astype(np.float32)
    per_query = [
        scores[start:stop] for start, stop in zip(positives.offsets, positives.offsets[1:], strict=False)
    ]
    assert rules.weakest_positive(scores, positives).tolist() == [part.min() for part in per_query]
    assert rules.strongest_positive(scores, positives).tolist() == [part.max() for part in per_query]


@few
@given(seed=seeds)
def test_no_rule_brings_a_dropped_candidate_or_an_empty_place_back(seed):
    rng = np.random.default_rng(seed)
    candidates, groups = random_candidates(rng), random_groups(rng)
    positive = np.full(len(candidates.rows), 10, dtype=np.float32)
    for kept in (
        rules.drop_known(candidates, positives=random_positives(rng), groups=groups),
        rules.drop_duplicates(candidates, groups=groups),
        rules.keep_ranks(candidates, rank_min=0, rank_max=99),
        rules.keep_at_most(candidates, score=10.0),
        rules.keep_at_least(candidates, score=-10.0),
        rules.keep_below_positive(candidates, positive=positive, margin=0.0),
        rules.keep_below_fraction(candidates, positive=positive, relative_margin=0.0),
    ):
        assert not (kept & ~candidates.kept).any()
        assert not kept[candidates.rows < 0].any()


def test_empty_places_do_not_hide_the_last_passage():
    # -1 as an index would read the last passage's group and make it a duplicate or a known item.
    hits = Hits(np.array([[0.5, 0.4, -np.inf]], dtype=np.float32), np.array([[0, 2, -1]]))
    candidates = Candidates.from_hits(hits, source=0)
    groups = np.arange(3)
    assert rules.drop_duplicates(candidates, groups=groups).tolist() == [[True, True, False]]
    known = rules.drop_known(candidates, positives=Ragged.from_lists([[1]]), groups=groups)
    assert known.tolist() == [[True, True, False]]
