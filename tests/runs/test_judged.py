"""Queries of a split with their judgements; samples of them and of the corpus."""

import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.runs.judged import judged_queries, sample_passages
from retrieval_cl.sources.records import Qrels, RetrievalData, Texts


@pytest.fixture
def graded():
    """Queries 1, 3, 4 judged; query 4 has nothing relevant."""
    rows = [(1, 0, 2), (1, 5, 0), (1, 7, 1), (3, 7, 1), (4, 2, 0)]
    columns = np.array(rows, dtype=np.int64).T
    return RetrievalData(
        "graded",
        Texts([f"p{i}" for i in range(8)], [f"passage {i}" for i in range(8)]),
        Texts([f"q{i}" for i in range(6)], [f"query {i}" for i in range(6)]),
        {"test": Qrels(*(column.copy() for column in columns))},
    )


def test_queries_without_a_relevant_passage_are_left_out(graded):
    judged = judged_queries(graded, "test")
    assert judged.queries.tolist() == [1, 3]
    assert [judged.relevant[i].tolist() for i in range(2)] == [[0, 5, 7], [7]]
    assert [judged.grades[i].tolist() for i in range(2)] == [[2, 0, 1], [1]]
    assert [judged.right()[i].tolist() for i in range(2)] == [[0, 7], [7]]


def test_measure_counts_graded_hits(graded):
    judged = judged_queries(graded, "test")
    rows = np.full((2, 100), -1, dtype=np.int64)
    rows[0, :2], rows[1, :3] = (5, 7), (1, 2, 7)
    found = judged.measure(Hits(np.where(rows < 0, -np.inf, 0).astype(np.float32), rows))
    assert found["recall@10"].tolist() == [0.5, 1.0]
    assert found["recall@1"].tolist() == [0.0, 0.0]
    assert found["mrr@10"].tolist() == [1 / 2, 1 / 3]


def test_sample_of_queries_is_seeded_and_keeps_their_judgements(tiny_data):
    everything = judged_queries(tiny_data, "train")
    some = judged_queries(tiny_data, "train", max_queries=10, seed=3)
    again = judged_queries(tiny_data, "train", max_queries=10, seed=3)
    other = judged_queries(tiny_data, "train", max_queries=10, seed=4)
    assert len(some.queries) == 10 and np.array_equal(some.queries, again.queries)
    assert not np.array_equal(some.queries, other.queries)
    place = np.searchsorted(everything.queries, some.queries)
    for i, j in enumerate(place.tolist()):
        assert some.relevant[i].tolist() == everything.relevant[j].tolist()


def test_sample_of_passages_holds_every_judged_one_under_its_new_row(tiny_data):
    judged = judged_queries(tiny_data, "dev")
    rows, within = sample_passages(judged, len(tiny_data.passages), max_passages=20, seed=0)
    assert len(rows) == 20 and np.array_equal(rows, np.unique(rows))
    assert np.array_equal(rows[within.relevant.values], judged.relevant.values)
    everything, same = sample_passages(judged, len(tiny_data.passages), max_passages=None)
    assert np.array_equal(everything, np.arange(48)) and same is judged


def test_sample_smaller_than_the_judged_holds_just_them(tiny_data):
    judged = judged_queries(tiny_data, "dev")
    rows, _ = sample_passages(judged, 48, max_passages=1)
    assert np.array_equal(rows, np.unique(judged.relevant.values))


def test_missing_split_and_split_without_right_answers_are_refused(graded):
    with pytest.raises(InputError, match="'graded' has no split 'dev'; it has test"):
        judged_queries(graded, "dev")
    nothing = Qrels(*(np.array([value], dtype=np.int64) for value in (4, 2, 0)))
    with pytest.raises(InputError, match="split 'test' of 'graded' has no query with a relevant passage"):
        judged_queries(RetrievalData("graded", graded.passages, graded.queries, {"test": nothing}), "test")
