"""The whole miner equals a slow loop, for any chunk size, and never does what its peers were caught doing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mining_reference import brute_search, slow_mine

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.core.relations import Ragged
from retrieval_cl.mining import miner
from retrieval_cl.mining.config import MiningConfig
from retrieval_cl.mining.table import SOURCES

RANDOM = SOURCES.index("random")
FIELDS = ("queries", "rows", "scores", "ranks", "sources")
few = settings(max_examples=25, deadline=None)


def mine(query_vectors, passage_vectors, **arguments):
    arguments = {"search": brute_search(passage_vectors)} | arguments
    return miner.mine(query_vectors, passage_vectors, **arguments)


def small_vectors(rng, count):
    """Rows of -1, 0 and 1: every inner product is exact, many tie, many are negative."""
    vectors = rng.integers(-1, 2, size=(count, 4)).astype(np.float32)
    vectors[(vectors == 0).all(axis=1), 0] = 1
    return vectors


def setting(rng, *, num_queries=6, num_passages=14):
    positives = [
        rng.choice(num_passages, size=rng.integers(1, 4), replace=False).tolist() for _ in range(num_queries)
    ]
    return (
        small_vectors(rng, num_queries),
        small_vectors(rng, num_passages),
        {
            "queries": rng.choice(1000, size=num_queries, replace=False),
            "positives": Ragged.from_lists(positives),
            "groups": rng.integers(0, num_passages, size=num_passages) * 3 - 7,
            "seed": int(rng.integers(1000)),
            "round": int(rng.integers(5)),
        },
    )


def random_config(rng):
    depth = int(rng.integers(2, 20))
    rank_min = int(rng.integers(0, depth // 2 + 1))
    weighted = {"sampling": "weighted", "temperature": 0.7}
    return MiningConfig(
        depth=depth,
        rank_min=rank_min,
        rank_max=rng.choice([None, depth]),
        max_score=rng.choice([None, 1.0]),
        min_score=rng.choice([None, -1.0]),
        margin=rng.choice([None, 0.0, 1.0]),
        relative_margin=rng.choice([None, 0.5]),
        positive=rng.choice(["weakest", "strongest"]),
        num_negatives=int(rng.integers(1, depth - rank_min + 1)),
        **[{}, {"sampling": "uniform"}, weighted][rng.integers(3)],
    )


def random_list(rng, num_queries, num_passages):
    rows = np.stack([rng.permutation(num_passages)[:5] for _ in range(num_queries)])
    rows[rng.random(rows.shape) < 0.2] = -1
    return Hits(np.where(rows < 0, -np.inf, 99).astype(np.float32), rows)


def cells(table):
    """Per query the filled places as (row, score, rank, source)."""
    return [
        [
            (table.rows[i, j], table.scores[i, j], table.ranks[i, j], table.sources[i, j])
            for j in range(table.num_negatives)
            if table.rows[i, j] >= 0
        ]
        for i in range(len(table))
    ]


def assert_same(one, other):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@few
@given(seed=st.integers(0, 2**32 - 1), with_extra=st.booleans(), with_reranker=st.booleans())
def test_miner_equals_the_loop(seed, with_extra, with_reranker):
    rng = np.random.default_rng(seed)
    query_vectors, passage_vectors, relations = setting(rng)
    config, dense = random_config(rng), query_vectors @ passage_vectors.T
    by_row = {query: number for number, query in enumerate(relations["queries"].tolist())}
    reranked = (rng.integers(-3, 4, size=dense.shape) / 2).astype(np.float32)
    lists = {"lexical": random_list(rng, *dense.shape), "previous": random_list(rng, *dense.shape)}
    lists = lists if with_extra else {}

    def reranker(queries, passages):
        return reranked[[by_row[query] for query in queries.tolist()], passages]

    table, counts = mine(
        query_vectors,
        passage_vectors,
        config=config,
        extra=lists,
        reranker=reranker if with_reranker else None,
        chunk_size=4,
        reranker_batch=5,
        **relations,
    )
    drawn, removed = slow_mine(
        dense,
        reranked if with_reranker else dense,
        config=config,
        extra=[(name, hits.rows.tolist()) for name, hits in lists.items()],
        **relations,
    )
    judged = table if table.teacher is None else replace(table, scores=table.teacher)
    assert cells(judged) == drawn
    assert (table.teacher is not None) == with_reranker
    there = table.rows >= 0
    line = np.nonzero(there)[0]
    np.testing.assert_array_equal(table.scores[there], dense[line, table.rows[there]])
    if with_reranker:
        positives = relations["positives"]
        expected = reranked[positives.rows, positives.values]
        np.testing.assert_array_equal(table.taught(positives), expected)
    assert counts.removed == removed
    missing = [config.num_negatives - len(row) for row in drawn]
    assert (counts.missing, counts.empty) == (sum(missing), sum(missing))
    assert counts.short_queries == sum(number > 0 for number in missing)
    assert counts.kept + sum(counts.removed.values()) == sum(counts.found.values())
    np.testing.assert_array_equal(table.queries, relations["queries"])


@few
@given(seed=st.integers(0, 2**32 - 1), chunk_size=st.integers(1, 7))
def test_same_seed_gives_same_negatives_for_any_chunk_size_and_query_order(seed, chunk_size):
    rng = np.random.default_rng(seed)
    query_vectors, passage_vectors = rng.normal(size=(2, 20, 6)).astype(np.float32)[:, :14]
    _, _, relations = setting(rng, num_queries=14)
    config = random_config(rng).model_copy(update={"shortage": rng.choice(["fewer", "random"])})
    whole, counts = mine(query_vectors, passage_vectors, config=config, **relations)
    cut, cut_counts = mine(query_vectors, passage_vectors, config=config, chunk_size=chunk_size, **relations)
    assert_same(whole, cut)
    assert counts == cut_counts
    order = rng.permutation(14)
    moved = relations | {
        "queries": relations["queries"][order],
        "positives": relations["positives"].take(order),
    }
    moved_table, _ = mine(query_vectors[order], passage_vectors, config=config, **moved)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(whole, name)[order], getattr(moved_table, name))


@few
@given(seed=st.integers(0, 2**32 - 1))
def test_no_positive_nor_equal_of_one_is_among_the_negatives(seed):
    rng = np.random.default_rng(seed)
    query_vectors, passage_vectors, relations = setting(rng)
    config = random_config(rng).model_copy(update={"shortage": "random"})
    extra = {"lexical": random_list(rng, len(query_vectors), len(passage_vectors))}
    table, _ = mine(query_vectors, passage_vectors, config=config, extra=extra, **relations)
    groups = relations["groups"]
    for number, row in enumerate(table.rows):
        drawn = groups[row[row >= 0]].tolist()
        assert not set(drawn) & set(groups[relations["positives"][number]].tolist())
        assert len(set(drawn)) == len(drawn)


@few
@given(seed=st.integers(0, 2**32 - 1))
def test_filler_is_no_refused_candidate_and_leaves_the_drawn_in_place(seed):
    rng = np.random.default_rng(seed)
    query_vectors, passage_vectors, relations = setting(rng, num_passages=30)
    config = random_config(rng)
    fewer, fewer_counts = mine(query_vectors, passage_vectors, config=config, **relations)
    filling = config.model_copy(update={"shortage": "random"})
    filled, counts = mine(query_vectors, passage_vectors, config=filling, **relations)
    scores = query_vectors @ passage_vectors.T
    for number, (before, after) in enumerate(zip(cells(fewer), cells(filled), strict=True)):
        assert after[: len(before)] == before
        searched = sorted(range(30), key=lambda row: (-scores[number, row], row))[: config.depth]
        refused = {relations["groups"][row] for row in searched}
        for row, score, rank, source in after[len(before) :]:
            assert relations["groups"][row] not in refused
            assert (score, rank, source) == (scores[number, row], -1, RANDOM)
    drawn_at_random = int((filled.sources == RANDOM).sum())
    assert counts.drawn.get("random", 0) == drawn_at_random
    assert counts.missing == fewer_counts.missing == drawn_at_random + counts.empty


def test_shortage_is_filled_where_the_corpus_has_passages_left():
    passage_vectors = np.eye(8, dtype=np.float32)
    config = MiningConfig(depth=3, num_negatives=3, shortage="random", relative_margin=None)
    table, counts = mine(
        passage_vectors[:1],
        passage_vectors,
        queries=np.array([5]),
        positives=Ragged.from_lists([[0]]),
        groups=np.arange(8),
        config=config,
        seed=0,
        round=0,
    )
    assert table.rows[0, :2].tolist() == [1, 2]
    assert table.rows[0, 2] >= 3
    assert table.sources[0].tolist() == [0, 0, RANDOM]
    assert (counts.short_queries, counts.missing, counts.empty) == (1, 1, 0)


def test_a_reranker_is_used_without_any_threshold():
    rng = np.random.default_rng(0)
    query_vectors, passage_vectors, relations = setting(rng)
    config = MiningConfig(depth=10, num_negatives=2, relative_margin=None)
    calls = []

    def reranker(queries, passages):
        calls.append(len(passages))
        return -passages.astype(np.float32)

    table, counts = mine(query_vectors, passage_vectors, config=config, reranker=reranker, **relations)
    there = table.rows >= 0
    np.testing.assert_array_equal(table.teacher[there], -table.rows[there])
    num_positives = len(relations["positives"].values)
    assert calls == [counts.kept, num_positives], "all queries of a chunk share a call"


def test_thresholds_hold_in_the_rerankers_units():
    vectors = np.eye(4, dtype=np.float32)
    taught = np.array([-2.0, -2.05, -2.2, -9.0], dtype=np.float32)
    table, _ = mine(
        vectors[:1],
        vectors,
        queries=np.array([0]),
        positives=Ragged.from_lists([[0]]),
        groups=np.arange(4),
        config=MiningConfig(num_negatives=3, relative_margin=0.05),
        seed=0,
        round=0,
        reranker=lambda queries, passages: taught[passages],
    )
    assert table.rows.tolist() == [[2, 3, -1]]  # the limit is -2.1: the positive's score is negative


def test_fewer_passages_than_asked_for_are_no_error():
    vectors = np.eye(3, dtype=np.float32)
    table, counts = mine(
        vectors,
        vectors,
        queries=np.arange(3),
        positives=Ragged.from_lists([[0], [1], [2]]),
        groups=np.arange(3),
        config=MiningConfig(depth=100, num_negatives=4, shortage="random"),
        seed=0,
        round=0,
    )
    assert table.rows.tolist() == [[1, 2, -1, -1], [0, 2, -1, -1], [0, 1, -1, -1]]
    assert (counts.missing, counts.empty) == (6, 6)
    assert np.isneginf(table.scores[table.rows < 0]).all()
    assert (table.ranks[table.rows < 0] == -1).all() and (table.sources[table.rows < 0] == -1).all()


def test_an_index_that_finds_too_little_gives_no_row_minus_one():
    vectors = np.eye(3, dtype=np.float32)

    def half_empty(queries, k):
        rows = np.full((len(queries), k), -1)
        rows[:, 0] = 1
        return Hits(np.where(rows < 0, -np.finfo(np.float32).max, 0).astype(np.float32), rows)

    table, counts = mine(
        vectors[:1],
        vectors,
        queries=np.array([0]),
        positives=Ragged.from_lists([[0]]),
        groups=np.arange(3),
        config=MiningConfig(num_negatives=2),
        seed=0,
        round=0,
        search=half_empty,
    )
    assert table.rows.tolist() == [[1, -1]]
    assert counts.found == {"dense": 1}


def test_progress_adds_up_to_the_queries():
    rng = np.random.default_rng(1)
    query_vectors, passage_vectors, relations = setting(rng)
    done = []
    mine(
        query_vectors,
        passage_vectors,
        config=MiningConfig(num_negatives=1),
        chunk_size=4,
        progress=done.append,
        **relations,
    )
    assert done == [4, 2]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (lambda passages: np.full(len(passages), np.nan), "nan for query row 0 and passage row"),
        (lambda passages: np.zeros(len(passages) + 1), "one score a pair"),
    ],
)
def test_reranker_without_a_score_for_each_pair_is_refused(scores, message):
    vectors = np.eye(3, dtype=np.float32)
    with pytest.raises(InputError, match=message):
        mine(
            vectors[:1],
            vectors,
            queries=np.array([0]),
            positives=Ragged.from_lists([[0]]),
            groups=np.arange(3),
            config=MiningConfig(num_negatives=2),
            seed=0,
            round=0,
            reranker=lambda queries, passages: scores(passages),
        )
