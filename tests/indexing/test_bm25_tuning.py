import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.indexing.bm25 import Lexical, tune

GRID = {"k1_grid": (0.3, 1.2, 5.0), "b_grid": (0.0, 0.5, 1.0)}


@pytest.fixture(scope="module")
def texts():
    # A query is some words of its passages, and those of common words: length and repeats both matter.
    rng = np.random.default_rng(0)
    zipf = 1 / np.arange(1, 201)
    draw = lambda size: [f"w{n}" for n in rng.choice(200, size, p=zipf / zipf.sum())]  # noqa: E731
    passages = [draw(int(rng.integers(0, 60))) for _ in range(400)]
    relevant = [sorted(set(rng.integers(0, 400, rng.integers(0, 4)).tolist())) for _ in range(450)]
    queries = [
        [word for row in rows for word in rng.permutation(passages[row])[:2].tolist()] + draw(2)
        for rows in relevant
    ]
    return passages, queries, Ragged.from_lists(relevant)


def slow_recall(passages, queries, relevant, *, k1, b, k):
    hits = Lexical.fit(passages, k1=k1, b=b).search(queries, k=k)
    judged = [row for row in range(len(relevant)) if len(relevant[row])]
    return np.mean([len(set(hits.rows[row]) & set(relevant[row])) / len(relevant[row]) for row in judged])


def test_table_equals_a_full_search_for_every_setting(texts):
    tuned = tune(*texts, k=10, **GRID)
    for i, k1 in enumerate(GRID["k1_grid"]):
        for j, b in enumerate(GRID["b_grid"]):
            assert tuned.recall[i, j] == pytest.approx(slow_recall(*texts, k1=k1, b=b, k=10), abs=1e-3)
    best = np.unravel_index(tuned.recall.argmax(), tuned.recall.shape)
    assert (tuned.k1, tuned.b) == (GRID["k1_grid"][best[0]], GRID["b_grid"][best[1]])
    assert tuned.recall.max() > tuned.recall.min()
    assert tuned.num_queries == sum(texts[2].counts > 0)


def test_sample_of_queries_is_seeded(texts):
    one, again, other = (tune(*texts, max_queries=60, seed=seed, **GRID) for seed in (0, 0, 1))
    assert one.num_queries == 60
    np.testing.assert_array_equal(one.recall, again.recall)
    assert not np.array_equal(one.recall, other.recall)


def test_no_judged_query_is_an_error():
    with pytest.raises(InputError, match="none has a relevant passage"):
        tune([["a"]], [["a"]], Ragged.from_lists([[]]))
