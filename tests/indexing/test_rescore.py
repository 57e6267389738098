import numpy as np

from retrieval_cl.indexing import exact
from retrieval_cl.indexing.rescore import rescore


def test_rescoring_all_rows_equals_exact_search():
    rng = np.random.default_rng(0)
    queries, passages = rng.standard_normal((6, 16), np.float32), rng.standard_normal((300, 16), np.float32)
    rows = np.stack([rng.permutation(300) for _ in range(6)])
    exactly, again = exact.search(queries, passages, k=9), rescore(queries, passages, rows=rows, k=9)
    np.testing.assert_array_equal(exactly.rows, again.rows)
    np.testing.assert_array_equal(exactly.scores, again.scores)


def test_minus_one_is_no_passage_and_ties_come_in_row_order():
    passages = np.ones((4, 2), np.float32)
    hits = rescore(np.ones((1, 2), np.float32), passages, rows=np.array([[3, -1, 1, -1]]), k=3)
    np.testing.assert_array_equal(hits.rows, [[1, 3, -1]])
    np.testing.assert_array_equal(hits.scores, [[2.0, 2.0, -np.inf]])


def test_shards_in_float16_are_scored_by_their_float32_values():
    rng = np.random.default_rng(1)
    queries = rng.standard_normal((9, 6), dtype=np.float32)
    passages = rng.standard_normal((50, 6), dtype=np.float32).astype(np.float16)
    rows = np.tile(np.arange(50), (9, 1))
    hits = rescore(queries, [passages[:20], passages[20:]], rows=rows, k=7)
    whole = exact.search(queries, passages.astype(np.float32), k=7)
    np.testing.assert_array_equal(hits.rows, whole.rows)
    np.testing.assert_array_equal(hits.scores, whole.scores)
