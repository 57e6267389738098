from collections import Counter

import bm25s
import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.indexing.bm25 import Lexical


def make_words(rng, count, *, vocabulary=60, longest=25):
    zipf = 1 / np.arange(1, vocabulary + 1)
    lengths = rng.integers(0, longest, count)
    return [[f"w{n}" for n in rng.choice(vocabulary, size, p=zipf / zipf.sum())] for size in lengths]


def slow_scores(passages, query, *, k1, b):
    # Kamphuis et al. 2020, table 1, row "Lucene (accurate)".
    mean = np.mean([len(words) for words in passages])
    counts = [Counter(words) for words in passages]
    scores = np.zeros(len(passages))
    for word in query:
        frequency = sum(word in count for count in counts)
        idf = np.log(1 + (len(passages) - frequency + 0.5) / (frequency + 0.5))
        for row, count in enumerate(counts):
            tf = count[word]
            if tf:
                scores[row] += idf * tf / (tf + k1 * (1 - b + b * len(passages[row]) / mean))
    return scores


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.5, 0.0), (3.0, 1.0)])
def test_scores_equal_slow_loop(k1, b):
    rng = np.random.default_rng(0)
    passages, queries = make_words(rng, 50), [["w0", "w7", "w7", "unknown"], ["w55"], []]
    hits = Lexical.fit(passages, k1=k1, b=b).search(queries, k=50)
    for row, query in enumerate(queries):
        scores = slow_scores(passages, query, k1=k1, b=b)
        found = hits.rows[row] >= 0
        assert set(hits.rows[row, found]) == set(np.flatnonzero(scores))
        np.testing.assert_allclose(hits.scores[row, found], scores[hits.rows[row, found]], rtol=1e-5)
        assert (hits.scores[row, ~found] == -np.inf).all()


def test_scores_equal_those_bm25s_retrieves():
    rng = np.random.default_rng(1)
    passages, queries = make_words(rng, 3000), make_words(rng, 40, longest=8)
    queries = [query or ["w3"] for query in queries]
    hits = Lexical.fit(passages, k1=1.5, b=0.75).search(queries, k=10)
    peer = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    peer.index(passages, show_progress=False)
    scores = peer.retrieve(queries, k=10, show_progress=False).scores
    np.testing.assert_allclose(np.where(hits.rows < 0, 0, hits.scores), scores, rtol=1e-5)


@pytest.mark.parametrize("k", [1, 5, 100, 1500])
def test_equal_passages_tie_and_come_in_row_order(k):
    # Long runs of equal scores, far beyond the shortlist, at and after the k-th place.
    passages = [["a"], ["a", "b"], ["c"], ["b"]] * 500
    lexical = Lexical.fit(passages, k1=1.2, b=0.75)
    hits = lexical.search([["a"], ["c"], ["a", "b"]], k=k)
    expected = [np.arange(0, 2000, 4), np.arange(1, 2000, 4)]
    np.testing.assert_array_equal(hits.rows[0, :k], pad(np.concatenate(expected), k))
    np.testing.assert_array_equal(hits.rows[1], pad(np.arange(2, 2000, 4), k))
    assert (np.diff(hits.scores[2][hits.rows[2] >= 0]) <= 0).all()
    assert (hits.rows[2, : min(k, 500)] == np.arange(1, 2000, 4)[:k]).all()


def pad(rows, k):
    return np.concatenate([rows, np.full(k, -1)])[:k]


def test_query_beside_others_scores_as_alone():
    rng = np.random.default_rng(2)
    passages, queries = make_words(rng, 400), make_words(rng, 30)
    lexical = Lexical.fit(passages, k1=1.2, b=0.75)
    together = lexical.search(queries, k=20)
    for row, query in enumerate(queries):
        alone = lexical.search([query], k=20)
        np.testing.assert_array_equal(alone.rows[0], together.rows[row])
        np.testing.assert_array_equal(alone.scores[0], together.scores[row])


def test_query_without_known_words_has_no_hits():
    hits = Lexical.fit([["a"], []], k1=1.2, b=0.75).search([["z"], []], k=3)
    assert (hits.rows == -1).all() and (hits.scores == -np.inf).all()


def test_saved_index_gives_the_same_bits_and_bm25s_reads_it(tmp_path):
    rng = np.random.default_rng(3)
    passages, queries = make_words(rng, 200), [["w1", "w2"], ["w30"]]
    lexical = Lexical.fit(passages, k1=0.9, b=0.4)
    lexical.save(tmp_path / "lexical")
    again = Lexical.load(tmp_path / "lexical")
    assert (again.k1, again.b, len(again)) == (0.9, 0.4, 200)
    before, after = lexical.search(queries, k=7), again.search(queries, k=7)
    np.testing.assert_array_equal(before.rows, after.rows)
    np.testing.assert_array_equal(before.scores, after.scores)
    peer = bm25s.BM25.load(tmp_path / "lexical", show_progress=False)
    np.testing.assert_allclose(
        peer.retrieve(queries, k=7, show_progress=False).scores, before.scores, rtol=1e-5
    )


def test_words_are_numbered_as_they_first_occur_not_by_their_hash():
    # The sum of a score runs in this order; a set's would change from one process to the next.
    lexical = Lexical.fit([["pear", "apple"], ["fig", "pear", "date"]], k1=1.2, b=0.75)
    assert lexical._retriever.vocab_dict == {"pear": 0, "apple": 1, "fig": 2, "date": 3}


def test_bad_arguments_say_what_is_valid():
    with pytest.raises(InputError, match="none of the 2 passages holds a word"):
        Lexical.fit([[], []], k1=1.2, b=0.75)
    with pytest.raises(InputError, match="b from 0 to 1"):
        Lexical.fit([["a"]], k1=1.2, b=1.5)
    with pytest.raises(InputError, match="k is 0"):
        Lexical.fit([["a"]], k1=1.2, b=0.75).search([["a"]], k=0)
