import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.core.hits import Hits
from retrieval_cl.indexing import exact
from retrieval_cl.indexing.recall import MOST_QUERIES, Truth, mean_interval, without_own


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors():
    return unit(np.random.default_rng(0).standard_normal((400, 8)))


@pytest.fixture(scope="module")
def queries():
    return unit(np.random.default_rng(1).standard_normal((60, 8)))


def lossy(queries, vectors, *, k):
    """Searches every other row alone."""
    hits = exact.search(queries, vectors[::2], k=k)
    return Hits(hits.scores, np.where(hits.rows < 0, -1, hits.rows * 2))


def test_recall_equals_a_slow_count(vectors, queries):
    truth = Truth.find(vectors, queries=queries, k=10)
    found = truth.compare(lossy(queries, vectors, k=11))
    right = 0
    for query, row in zip(queries, lossy(queries, vectors, k=10).rows.tolist(), strict=True):
        order = sorted(range(len(vectors)), key=lambda each, query=query: -float(vectors[each] @ query))
        right += len(set(order[:10]) & set(row))
    assert found.mean == pytest.approx(right / (60 * 10), abs=1e-12) and 0.3 < found.mean < 0.7
    assert (found.k, found.num_queries, found.queries) == (10, 60, "given")


def test_corpus_rows_never_find_themselves(vectors):
    truth = Truth.find(vectors, queries=None, k=5)
    assert truth.own.tolist() == list(range(400))
    found = truth.compare(lossy(truth.queries, vectors, k=6))
    right = 0
    for own, row in enumerate(lossy(truth.queries, vectors, k=6).rows.tolist()):
        scores = vectors @ vectors[own]
        others = sorted((each for each in range(400) if each != own), key=lambda each: -scores[each])
        right += len(set(others[:5]) & set([each for each in row if each != own][:5]))
    assert found.mean == pytest.approx(right / 2000, abs=1e-12) and found.queries == "corpus"
    # Finding only oneself is finding nothing.
    alone = np.full((400, 6), -1)
    alone[:, 0] = np.arange(400)
    scores = np.where(alone < 0, -np.inf, 1).astype(np.float32)
    assert truth.compare(Hits(scores, alone)).mean == 0


def test_own_row_behind_its_copies_is_left_out_too():
    hits = Hits(np.array([[1, 1, 1, 0.5]], np.float32), np.array([[3, 7, 9, 1]]))
    assert without_own(hits, np.array([7]), k=3).rows.tolist() == [[3, 9, 1]]
    assert without_own(hits, np.array([5]), k=3).rows.tolist() == [[3, 7, 9]]
    assert without_own(hits, np.array([-1]), k=3).rows.tolist() == [[3, 7, 9]]


def test_any_of_equal_vectors_counts_as_found(vectors, queries):
    copies = np.concatenate([np.repeat(vectors[:1], 30, axis=0), vectors])
    truth = Truth.find(copies, queries=vectors[:1], k=10)
    # Exact search gives copies 0-9, this search 20-30.
    hits = exact.search(vectors[:1], copies[20:], k=11)
    assert truth.compare(Hits(hits.scores, hits.rows + 20)).mean == 1


@pytest.mark.parametrize(("rows", "counts"), [(3, 3), (1, 1)])
def test_k_beyond_rows_counts_the_rows_there_are(vectors, queries, rows, counts):
    truth = Truth.find(vectors[:rows], queries=queries, k=10)
    assert set(truth.counts) == {counts}
    assert truth.compare(exact.search(queries, vectors[:rows], k=11)).mean == 1
    own = Truth.find(vectors[:rows], queries=None, k=10)
    assert set(own.counts) == {counts - 1}
    assert own.compare(exact.search(own.queries, vectors[:rows], k=11)).mean == 1


def test_many_queries_are_sampled_by_the_seed(vectors):
    many = np.repeat(vectors, 8, axis=0)
    found = [Truth.find(vectors[:50], queries=many, k=1, seed=seed).queries for seed in (0, 0, 1)]
    assert len(found[0]) == MOST_QUERIES
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 5000), st.data())
def test_interval_lies_around_the_mean(count, data):
    mean = data.draw(st.integers(0, count)) / count
    low, high = mean_interval(mean, count=count)
    assert 0 <= low <= mean <= high <= 1 and low < high
    # The ends solve Wilson's equation: the mean is 1.96 standard errors of the end from it.
    for end in (low, high):
        if 0 < end < 1 and abs(end - mean) > 1e-9:
            assert abs(mean - end) == pytest.approx(1.959964 * (end * (1 - end) / count) ** 0.5, rel=1e-5)


def test_interval_holds_the_true_mean_at_least_19_times_of_20():
    rng = np.random.default_rng(0)
    values = rng.binomial(10, 0.93, size=(2000, 200)) / 10
    held = [low <= 0.93 <= high for low, high in (mean_interval(m, count=200) for m in values.mean(axis=1))]
    assert np.mean(held) >= 0.95
    values = rng.binomial(1, 0.93, size=(2000, 200))
    held = [low <= 0.93 <= high for low, high in (mean_interval(m, count=200) for m in values.mean(axis=1))]
    assert 0.93 <= np.mean(held) <= 0.98
