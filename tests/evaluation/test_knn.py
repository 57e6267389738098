import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_cl.core.hits import Hits
from retrieval_cl.evaluation import knn
from retrieval_cl.evaluation.knn import KnnProtocol, vote


def make_hits(rows, scores=None):
    rows = np.array(rows, dtype=np.int64).reshape(len(rows), -1)
    if scores is None:
        scores = np.broadcast_to(np.linspace(0.9, 0.1, rows.shape[1]), rows.shape)
    return Hits(np.where(rows >= 0, scores, -np.inf).astype(np.float32), rows)


def slow_vote(hits, labels, *, temperature):
    named = []
    for scores, rows in zip(hits.scores.tolist(), hits.rows.tolist(), strict=True):
        votes = {}
        for score, row in zip(scores, rows, strict=True):
            if row >= 0:
                weight = 1.0 if temperature is None else math.exp((score - scores[0]) / temperature)
                votes[int(labels[row])] = votes.get(int(labels[row]), 0.0) + weight
        # Classes stand in the order of their nearest hit; max takes the first of several.
        named.append(max(votes, key=votes.__getitem__) if votes else -1)
    return named


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 0.07, 1.0]), st.integers(1, 9))
def test_vote_equals_a_loop_over_queries_and_hits(seed, temperature, k):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 12)
    rows = np.stack([rng.permutation(12)[:k] for _ in range(10)])
    # The last hits of some queries are none, for some all.
    rows[np.arange(k)[None, :] >= rng.integers(0, k + 1, 10)[:, None]] = -1
    scores = -np.sort(-rng.uniform(-1, 1, (10, k)), axis=1)
    hits = make_hits(rows, scores)
    found = vote(hits, labels, num_classes=4, temperature=temperature)
    assert found.tolist() == slow_vote(hits, labels, temperature=temperature)


def test_majority_wins_and_ties_fall_to_the_nearest():
    labels = np.array([2, 0, 0, 2, 1])
    hits = make_hits([[0, 1, 2, 4], [0, 1, 2, 3], [1, 0, 3, 2], [4, 0, 1, -1]])
    assert vote(hits, labels, num_classes=3, temperature=None).tolist() == [0, 2, 0, 1]


def test_low_temperature_hears_the_nearest_alone_and_a_high_one_all():
    labels = np.array([1, 0, 0])
    hits = make_hits([[0, 1, 2]], [[0.9, 0.8, 0.7]])
    # Two votes of exp(-.1 / T) and exp(-.2 / T) outweigh one of 1 above T = 0.1 / ln 1.618.
    turn = 0.1 / math.log((1 + math.sqrt(5)) / 2)
    named = [
        vote(hits, labels, num_classes=2, temperature=t)[0] for t in (1e-4, 0.99 * turn, 1.01 * turn, 100.0)
    ]
    assert named == [1, 1, 0, 0]


def test_query_without_hits_names_no_class():
    assert vote(make_hits([[-1, -1]]), np.array([0]), num_classes=1, temperature=0.1).tolist() == [-1]


def test_blocks_of_queries_make_no_difference(monkeypatch):
    rng = np.random.default_rng(0)
    hits, labels = make_hits(rng.integers(0, 30, (20, 5))), rng.integers(0, 3, 30)
    whole = vote(hits, labels, num_classes=3, temperature=0.1)
    monkeypatch.setattr(knn, "_BLOCK", 10)
    assert np.array_equal(vote(hits, labels, num_classes=3, temperature=0.1), whole)


def test_vote_equals_scikit_learn_where_there_are_no_ties():
    neighbors = pytest.importorskip("sklearn.neighbors")
    rng = np.random.default_rng(1)
    bank, queries, labels = rng.normal(size=(200, 8)), rng.normal(size=(40, 8)), rng.integers(0, 2, 200)
    model = neighbors.KNeighborsClassifier(7, metric="cosine").fit(bank, labels)
    distances, rows = model.kneighbors(queries)
    found = vote(make_hits(rows, 1 - distances), labels, num_classes=2, temperature=None)
    assert np.array_equal(found, model.predict(queries))


def test_protocol_tells_all_that_a_number_depends_on():
    of_one = KnnProtocol(k=1, temperature=None, bank="train, evaluation transform, weights of step 5")
    of_three = KnnProtocol(k=3, temperature=0.1, bank="train", metric="dot product")
    assert (
        str(of_one) == "kNN, k 1, cosine, a vote each; bank: train, evaluation transform, weights of step 5"
    )
    assert str(of_three) == "kNN, k 3, dot product, weight exp(score / 0.1); bank: train"
